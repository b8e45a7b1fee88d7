"""`explain` says of each hook what `emit` then does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procore_hooks import Hook, HookRegistry, InvalidInput, Trigger
from procore_hooks.testing import ManualClock

Listening = Callable[..., Hook]


def why(registry: HookRegistry, **scope: Any) -> tuple[bool, str]:
    (verdict,) = registry.explain("RFIs", "update", **scope)
    return verdict.delivers, verdict.why


def test_reasons(registry: HookRegistry, listening: Listening) -> None:
    """Each refusal names what differs, in words that show the fix."""
    hook = listening(company_id=8)
    assert why(registry, company_id=8) == (
        True,
        f"trigger {registry.triggers.list(hook.id)[0].id} ('RFIs', 'update') fits",
    )
    assert why(registry, company_id=9) == (False, "the hook is for company 8, the event is of company 9")
    assert why(registry) == (False, "the hook is for company 8, the event is of no company")
    assert "include_projects=True" in why(registry, company_id=8, project_id=6778)[1]
    registry.hooks.update(hook.id, project_id=6778)
    assert why(registry, company_id=8) == (False, "the hook is for project 6778, the event is of no project")
    assert why(registry, project_id=1) == (False, "the hook is for project 6778, the event is of project 1")
    assert "company 9" in why(registry, company_id=9, project_id=6778)[1]
    registry.triggers.replace(hook.id, {"RFIs": ["create"]})
    assert why(registry, project_id=6778) == (False, "no trigger for 'RFIs' and 'update'")


def test_reasons_of_disabled_hooks(registry: HookRegistry, listening: Listening) -> None:
    """A kept event counts as delivered, later; a dropped one does not."""
    hook = listening()
    registry.hooks.disable(hook.id)
    delivers, words = why(registry)
    assert (delivers, "waits until enabled" in words) == (True, True)
    registry.hooks.update(hook.id, when_disabled="drop")
    delivers, words = why(registry)
    assert (delivers, "drops" in words) == (False, True)


def test_every_hook_once_and_nothing_stored(registry: HookRegistry, listening: Listening) -> None:
    """All hooks are there, in order, and no event is; the resource is checked as in `emit`."""
    hooks = [listening(("Photos", "create")), listening()]
    assert [verdict.hook for verdict in registry.explain("RFIs", "update")] == hooks
    assert registry.deliveries.list().items == ()
    for resource, action in (("*", "update"), ("RFIs", "*"), ("RFIs", "Update")):
        with pytest.raises(InvalidInput):
            registry.explain(resource, action)


def test_more_hooks_than_are_read_at_once(registry: HookRegistry, listening: Listening) -> None:
    """No hook is lost or shown twice where one read ends and the next begins."""
    ids = [listening(("Photos", "create")).id for _ in range(501)]
    assert [verdict.hook.id for verdict in registry.explain("RFIs", "update")] == ids


def test_a_hook_that_is_deleted_meanwhile(
    registry: HookRegistry, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that goes between the two reads is left out, and no error."""
    gone, stays = listening(), listening()
    read = registry.storage.list_triggers

    def delete_first(hook_id: int, after: int, limit: int) -> list[Trigger]:
        if hook_id == gone.id:
            registry.hooks.delete(gone.id)
        return read(hook_id, after, limit)

    monkeypatch.setattr(registry.storage, "list_triggers", delete_first)
    assert [verdict.hook.id for verdict in registry.explain("RFIs", "update")] == [stays.id]


SOME = st.sampled_from([None, 1, 2])
PAIRS = st.sets(st.tuples(st.sampled_from(["RFIs", "Photos", "*"]), st.sampled_from(["update", "create", "*"])))
HOOKS = st.lists(
    st.tuples(SOME, SOME, st.booleans(), st.booleans(), st.sampled_from(["keep", "drop"]), PAIRS),
    min_size=1,
    max_size=4,
)
EVENTS = st.lists(
    st.tuples(st.sampled_from(["RFIs", "Photos", "Bids"]), st.sampled_from(["update", "create", "delete"]), SOME, SOME),
    min_size=1,
    max_size=6,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hooks=HOOKS, events=EVENTS)
def test_explain_agrees_with_emit(
    registry: HookRegistry, clock: ManualClock, hooks: list[Any], events: list[Any]
) -> None:
    """For any hooks and events: a delivery is made, to send or to keep, for just the hooks that `explain` names."""
    # One storage for all examples, so that SQLite's file is made once; what an example leaves is deleted by the next.
    for left in registry.explain("RFIs", "update"):
        registry.hooks.delete(left.hook.id)
    for company, project, include, disabled, when_disabled, pairs in hooks:
        hook = registry.hooks.create(
            "https://hooks.acme.example/",
            namespace="acme",
            company_id=company,
            project_id=project,
            include_projects=include and company is not None and project is None,
            when_disabled=when_disabled,
        )
        for pair in sorted(pairs):
            registry.triggers.create(hook.id, *pair)
        if disabled:
            registry.hooks.disable(hook.id)
    for resource, action, company, project in events:
        scope = {"company_id": company, "project_id": project}
        verdicts = registry.explain(resource, action, **scope)
        emission = registry.emit(resource, action, **scope)
        made = [registry.deliveries.get(one) for one in emission.delivery_ids]
        waiting = [delivery.hook_id for delivery in made if delivery.status == "enqueued"]
        assert waiting == [verdict.hook.id for verdict in verdicts if verdict.delivers]
        dropped = {delivery.hook_id for delivery in made if delivery.status == "discarded"}
        assert dropped == {verdict.hook.id for verdict in verdicts if "drops" in verdict.why}
