"""Which hooks get an event: the rule by keys against the rule in prose."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks._core.matching import company_fits, explain, scope_key, scope_keys, wanted_pairs
from procore_hooks._core.models import Event, Hook, Trigger
from procore_hooks._core.secret import Secret

NOW = datetime(2025, 1, 1, tzinfo=UTC)
SOME = st.sampled_from([None, "1", "2", "*", "c:1", "p:1"])


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        ((None, None, False), "*"),
        (("8", None, False), "c:8"),
        (("8", None, True), "C:8"),
        (("8", "6778", False), "p:6778"),
        ((None, "6778", False), "p:6778"),
    ],
)
def test_the_key_of_a_scope(scope: tuple[str | None, str | None, bool], key: str) -> None:
    """The table of the module's text."""
    assert scope_key(*scope) == key


@pytest.mark.parametrize(
    ("scope", "keys"),
    [
        ((None, None), {"*"}),
        (("8", None), {"*", "c:8", "C:8"}),
        (("8", "6778"), {"*", "C:8", "p:6778"}),
        ((None, "6778"), {"*", "p:6778"}),
    ],
)
def test_the_keys_of_an_event(scope: tuple[str | None, str | None], keys: set[str]) -> None:
    """Each once, and no more than four, which the storages count on."""
    found = scope_keys(*scope)
    assert set(found) == keys
    assert len(found) == len(keys) <= 4


@given(SOME, SOME, st.booleans(), SOME, SOME)
def test_keys_say_what_the_contract_says(
    company: str | None, project: str | None, include: bool, of_company: str | None, of_project: str | None
) -> None:
    """The look-up by keys agrees with the sentences of the contract, for any ids, those too that look like keys."""
    found = scope_key(company, project, include) in scope_keys(of_company, of_project)
    if project is not None:
        expected = of_project == project
    elif company is not None:
        expected = of_company == company and (of_project is None or include)
    else:
        expected = True
    assert found is expected


@pytest.mark.parametrize(
    ("hook", "event", "fits"),
    [(None, None, True), ("8", None, True), (None, "8", True), ("8", "8", True), ("8", "9", False)],
)
def test_two_tenants_may_have_projects_of_one_id(hook: str | None, event: str | None, fits: bool) -> None:
    """Only two different companies do not fit."""
    assert company_fits(hook, event) is fits


def test_wanted_pairs() -> None:
    """The name itself and the wildcard, for both."""
    assert set(wanted_pairs("RFIs", "update")) == {("RFIs", "update"), ("RFIs", "*"), ("*", "update"), ("*", "*")}


def hook(**fields: Any) -> Hook:
    given: dict[str, Any] = {
        "id": 1,
        "namespace": "a",
        "destination_url": "https://a.example/",
        "signing_secret": Secret("a"),
    }
    return Hook(**given | {"created_at": NOW, "updated_at": NOW} | fields)


def event(company_id: str | None = None, project_id: str | None = None) -> Event:
    return Event(
        id=1, ulid="1", resource="RFIs", action="update", occurred_at=NOW, company_id=company_id, project_id=project_id
    )


def trigger(resource: str, action: str, id: int = 5) -> Trigger:
    return Trigger(id=id, hook_id=1, resource=resource, action=action)


def test_explain_names_the_trigger_that_fits() -> None:
    """The first that fits, by its id and names."""
    triggers = [trigger("Photos", "update", 4), trigger("RFIs", "*", 5), trigger("RFIs", "update", 6)]
    verdict = explain(hook(), triggers, event())
    assert (verdict.delivers, verdict.why) == (True, "trigger 5 ('RFIs', '*') fits")


def test_explain_tells_the_scope_before_the_triggers() -> None:
    """Where both are wrong, the scope is what the app has to mend first."""
    assert explain(hook(company_id="8"), [], event("9")).why == "the hook is for company 8, the event is of company 9"
    assert explain(hook(), [], event("9")).why == "no trigger for 'RFIs' and 'update'"


@pytest.mark.parametrize(
    ("status", "when", "delivers"),
    [("active", "keep", True), ("active", "drop", True), ("disabled", "keep", True), ("disabled", "drop", False)],
)
def test_explain_of_disabled_hooks(status: str, when: str, delivers: bool) -> None:
    """Kept is delivered, later; dropped is not; `when_disabled` says nothing while the hook is active."""
    verdict = explain(hook(status=status, when_disabled=when), [trigger("*", "*")], event())
    assert verdict.delivers is delivers
    assert ("disabled" in verdict.why) is (status == "disabled")
