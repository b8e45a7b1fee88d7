"""What the machine draws: few values of each kind, so that they meet often."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st

from procore_hooks import EventInput

from .model import FINAL
from .queues import MOODS

numbers = st.integers(0, 20)  # which one of those that there are
companies = st.sampled_from([None, 8, "9"])
projects = st.sampled_from([None, None, "71", 72])
resources = st.sampled_from(["RFIs", "RFIs", "Submittals"])
actions = st.sampled_from(["create", "update"])
wanted_resources = st.sampled_from(["RFIs", "RFIs", "Submittals", "*"])
wanted_actions = st.sampled_from(["create", "update", "*"])
resource_ids = st.sampled_from([None, 54321, "d-12"])
page_sizes = st.sampled_from([1, 2, 3, 7, 1000])
some_statuses = st.sets(st.sampled_from(["enqueued", "retrying", *FINAL]), max_size=3)
spans = st.sampled_from([0.000001, 1, 10, 15, 20, 40, 120, 3600]).map(lambda seconds: timedelta(seconds=seconds))
long_spans = st.sampled_from([0, 20, 3600, 100_000]).map(lambda seconds: timedelta(seconds=seconds))
moods = st.sampled_from([*MOODS, "well", "well", "broken", "aborting"])
limits = st.sampled_from([1, 1, 2, 3])
events = st.builds(
    EventInput,
    resources,
    actions,
    st.builds(dict, number=st.integers(1, 2)),
    resource_id=resource_ids,
    company_id=companies,
    project_id=projects,
    idempotency_key=st.sampled_from([None, None, None, "a", "b"]),
)
several_events = st.lists(events, min_size=1, max_size=4)
namespaces = st.sampled_from(["acme", "zenith"])
fields = st.fixed_dictionaries(
    {},
    optional={
        "namespace": namespaces,
        "company_id": companies,
        "project_id": projects,
        "include_projects": st.booleans(),
        "when_disabled": st.sampled_from(["keep", "drop"]),
        "max_in_flight": limits,
        "destination_url": st.just("another"),
    },
)
replacements = st.dictionaries(wanted_resources, st.lists(wanted_actions, max_size=2), max_size=2)
of_deliveries = st.fixed_dictionaries(
    {},
    optional={
        "only_failures": st.booleans(),
        "resource": resources,
        "action": actions,
        "resource_id": resource_ids,
        "start": spans,
        "end": spans,
    },
)
of_hooks = st.fixed_dictionaries(
    {},
    optional={
        "namespace": namespaces,
        "company_id": companies,
        "project_id": projects,
        "status": st.sampled_from(["active", "disabled"]),
    },
)
