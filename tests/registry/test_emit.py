"""`emit`, `emit_many`, `bind`, idempotency keys and the caller's own transaction."""

from __future__ import annotations

import contextlib
import inspect
import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import (
    BoundRegistry,
    DrainReport,
    Emission,
    EventInput,
    Hook,
    HookRegistry,
    IdempotencyConflict,
    InvalidInput,
    InvalidPayload,
    SQLiteStorage,
    Storage,
    UnknownResource,
)
from procore_hooks.resources import ResourceCatalog
from procore_hooks.storage._base import EventIdTaken
from procore_hooks.testing import ManualClock, ScriptedEndpoint

Listening = Callable[..., Hook]


def everything(registry: HookRegistry) -> list[int]:
    return [delivery.id for delivery in registry.deliveries.iter()]


def test_an_event_holds_what_was_given(registry: HookRegistry, listening: Listening) -> None:
    """Ids become text, times UTC, and what is stored reads back as it was returned."""
    listening()
    occurred = datetime(2024, 5, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    emission = registry.emit(
        "RFIs",
        "update",
        {"subject": "Tür 12", "lines": [1, 2.5, None, True]},
        resource_id=54321,
        company_id=8,
        project_id="6778",
        user_id=1,
        metadata={"source": "import"},
        related_resources=[{"id": 7, "name": "Drawings"}],
        occurred_at=occurred,
    )
    event = emission.event
    assert (event.resource, event.action, event.resource_id) == ("RFIs", "update", "54321")
    assert (event.company_id, event.project_id, event.user_id) == ("8", "6778", "1")
    assert event.occurred_at == occurred
    assert event.occurred_at.tzinfo is UTC
    assert event.payload == {"subject": "Tür 12", "lines": (1, 2.5, None, True)}
    assert event.payload_json == '{"subject":"Tür 12","lines":[1,2.5,null,true]}'.encode()
    assert event.metadata == {"source": "import"}
    assert event.related_resources == ({"id": "7", "name": "Drawings"},)
    stored = registry.deliveries.get(emission.delivery_ids[0])
    assert stored.event == event
    assert (stored.status, stored.attempt_count, stored.last_attempt) == ("enqueued", 0, None)


def test_ids_of_events_rise(registry: HookRegistry, listening: Listening, clock: ManualClock) -> None:
    """Ids and ULIDs are 63 bits and 26 characters, and rise, though the clock stands still or steps back."""
    listening()
    events = [registry.emit("RFIs", "update").event for _ in range(5)]
    clock.set(clock.now() - timedelta(days=1))
    events.append(registry.emit("RFIs", "update").event)
    assert sorted({event.id for event in events}) == [event.id for event in events]
    assert sorted({event.ulid for event in events}) == [event.ulid for event in events]
    assert all(event.id < 2**63 and len(event.ulid) == 26 for event in events)


def test_the_payload_is_serialised_at_once(
    registry: HookRegistry, listening: Listening, drain: Callable[[], DrainReport], endpoint: ScriptedEndpoint
) -> None:
    """What happens to the dict after emit changes nothing, neither in the event nor on the wire."""
    listening()
    payload: dict[str, Any] = {"lines": [1]}
    event = registry.emit("RFIs", "update", payload).event
    payload["lines"].append(2)
    payload["more"] = 1
    assert event.payload == {"lines": (1,)}
    drain()
    assert endpoint.requests[0].json()["data"] == {"lines": [1]}


def test_nothing_matches_nothing_is_stored(registry: HookRegistry, listening: Listening) -> None:
    """An emit that nobody wants gives an event without deliveries, and leaves no trace."""
    listening(("Photos", "create"))
    emission = registry.emit("RFIs", "update")
    assert emission.delivery_ids == ()
    assert emission.event.resource == "RFIs"
    assert everything(registry) == []


@pytest.mark.parametrize(
    ("scope", "company", "project", "heard"),
    [
        ({}, None, None, True),
        ({}, 8, None, True),
        ({}, 8, 6778, True),
        ({"company_id": 8}, 8, None, True),
        ({"company_id": 8}, 8, 6778, False),
        ({"company_id": 8}, 9, None, False),
        ({"company_id": 8}, None, None, False),
        ({"company_id": 8, "include_projects": True}, 8, None, True),
        ({"company_id": 8, "include_projects": True}, 8, 6778, True),
        ({"company_id": 8, "include_projects": True}, 9, 6778, False),
        ({"company_id": 8, "project_id": 6778}, 8, 6778, True),
        ({"company_id": 8, "project_id": 6778}, 8, None, False),
        ({"company_id": 8, "project_id": 6778}, 9, 6778, False),
        ({"company_id": 8, "project_id": 6778}, None, 6778, True),
        ({"project_id": 6778}, 9, 6778, True),
        ({"project_id": 6778}, 9, 6779, False),
        ({"project_id": 8}, 8, None, False),
    ],
    ids=str,
)
def test_scope(
    registry: HookRegistry,
    listening: Listening,
    scope: dict[str, Any],
    company: int | None,
    project: int | None,
    heard: bool,
) -> None:
    """A project hook gets its project's, a company hook its own and with `include_projects` theirs, others all."""
    listening(**scope)
    emission = registry.emit("RFIs", "update", company_id=company, project_id=project)
    assert bool(emission.delivery_ids) is heard


def test_one_delivery_for_each_hook(registry: HookRegistry, listening: Listening) -> None:
    """Fan-out in the order of the hooks, and all of one event."""
    hooks = [listening().id for _ in range(3)]
    emission = registry.emit("RFIs", "update")
    deliveries = [registry.deliveries.get(one) for one in emission.delivery_ids]
    assert [delivery.hook_id for delivery in deliveries] == hooks
    assert {delivery.event.id for delivery in deliveries} == {emission.event.id}


def test_emit_many_is_one_transaction(registry: HookRegistry, listening: Listening) -> None:
    """All in order, from any iterable; one wrong among them, wherever, and none is stored."""
    listening()
    inputs = [EventInput("RFIs", "update", {"n": n}, company_id=n) for n in range(3)]
    emissions = registry.emit_many(one for one in inputs)
    assert isinstance(emissions, tuple)
    assert [emission.event.payload for emission in emissions] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert everything(registry) == [emission.delivery_ids[0] for emission in reversed(emissions)]
    with pytest.raises(InvalidPayload):
        registry.emit_many([*inputs, EventInput("RFIs", "update", {"n": float("nan")})])
    registry.emit("RFIs", "update", {"n": 9}, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        registry.emit_many([*inputs, EventInput("RFIs", "update", {"n": 8}, idempotency_key="k")])
    assert len(everything(registry)) == 4
    assert registry.emit_many([]) == ()


@pytest.mark.parametrize("inputs", [7, EventInput("RFIs", "update"), [("RFIs", "update")], [None]], ids=str)
def test_emit_many_takes_inputs_alone(registry: HookRegistry, listening: Listening, inputs: Any) -> None:
    """Anything but an iterable of `EventInput` is an error of ours."""
    listening()
    with pytest.raises(InvalidInput, match=r"^inputs: .*EventInput"):
        registry.emit_many(inputs)
    assert everything(registry) == []


def test_a_taken_event_id_is_replaced(
    registry: HookRegistry, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have drawn the same id: the emit goes on with the next and stores all, once."""
    listening()
    first = registry.emit("RFIs", "update").event
    real = registry._next_ids
    drawn = [(first.id, first.ulid)]
    monkeypatch.setattr(registry, "_next_ids", lambda now: drawn.pop() if drawn else real(now))
    second = registry.emit("RFIs", "update", {"n": 2})
    assert second.event.id != first.id
    assert registry.deliveries.get(second.delivery_ids[0]).event.payload == {"n": 2}
    monkeypatch.setattr(registry, "_next_ids", lambda now: (first.id, first.ulid))
    with pytest.raises(InvalidInput, match="clock") as caught:
        registry.emit("RFIs", "update")
    assert not isinstance(caught.value, EventIdTaken)
    assert len(everything(registry)) == 2


def test_bind_fills_in(registry: HookRegistry) -> None:
    """The bound ids are those of every emit that names none itself."""
    bound = registry.bind(company_id=8, project_id=6778, user_id=1)
    event = bound.emit("RFIs", "update", {"n": 1}, resource_id=5).event
    assert (event.company_id, event.project_id, event.user_id, event.resource_id) == ("8", "6778", "1", "5")
    assert event.payload == {"n": 1}
    assert bound.emit("RFIs", "update", project_id=9).event.project_id == "9"
    own, filled = bound.emit_many([EventInput("RFIs", "update", company_id=9), EventInput("RFIs", "update")])
    assert (own.event.company_id, own.event.project_id) == ("9", "6778")
    assert filled.event.company_id == "8"
    assert registry.bind(company_id=8).emit("RFIs", "update").event.project_id is None
    assert bound.emit("RFIs", "update", project_id=None).event.project_id == "6778"
    with pytest.raises(InvalidInput, match="inputs"):
        bound.emit_many([7])  # type: ignore[list-item]


def test_bind_has_the_same_emit() -> None:
    """The views take what the registry takes, name by name, with the same defaults and annotations."""
    for name in ("emit", "emit_many"):
        assert inspect.signature(getattr(BoundRegistry, name)) == inspect.signature(getattr(HookRegistry, name))


@pytest.mark.parametrize("field", ["company_id", "project_id", "user_id"])
def test_bind_refuses_a_wrong_id_at_once(registry: HookRegistry, field: str) -> None:
    """Not only the first emit says so."""
    with pytest.raises(InvalidInput, match=rf"^{field}: True "):
        registry.bind(**{field: True})


# Idempotency keys


def test_a_key_gives_the_first_emission_again(registry: HookRegistry, listening: Listening) -> None:
    """Same key, same content: nothing is stored, and the answer is the first one, wherever the hooks are now."""
    hook = listening()
    first = registry.emit("RFIs", "update", {"a": 1}, metadata={"m": 1}, company_id=8, idempotency_key="k")
    listening()
    registry.hooks.delete(hook.id)
    again = registry.emit("RFIs", "update", {"a": 1}, metadata={"m": 1}, company_id="8", idempotency_key="k")
    assert again == first
    assert everything(registry) == list(first.delivery_ids)


def test_a_key_counts_without_a_match_too(registry: HookRegistry, listening: Listening) -> None:
    """A first emit that nobody wanted is remembered: a hook that comes later does not get the second one."""
    first = registry.emit("RFIs", "update", idempotency_key="k")
    listening()
    assert registry.emit("RFIs", "update", idempotency_key="k") == first
    assert everything(registry) == []


@pytest.mark.parametrize(
    "other",
    [
        {"payload": {"a": 2}},
        {"resource": "Photos"},
        {"action": "create"},
        {"resource_id": 1},
        {"company_id": 1},
        {"project_id": 1},
        {"user_id": 1},
        {"metadata": {"m": 1}},
        {"related_resources": [{"id": 1, "name": "Photos"}]},
        {"occurred_at": datetime(2025, 1, 1, tzinfo=UTC)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_key_with_other_content_is_a_conflict(
    registry: HookRegistry, listening: Listening, other: dict[str, Any]
) -> None:
    """Whatever differs, nothing is stored, and the error names the key."""
    listening(("*", "*"))
    given: dict[str, Any] = {"resource": "RFIs", "action": "update", "payload": {"a": 1}, "idempotency_key": "k-1"}
    first = registry.emit(**given)
    with pytest.raises(IdempotencyConflict, match="'k-1'"):
        registry.emit(**given | other)
    assert everything(registry) == list(first.delivery_ids)
    assert registry.emit(**given) == first


def test_a_key_within_one_call(registry: HookRegistry, listening: Listening) -> None:
    """The same key twice in one `emit_many` is one event, answered twice."""
    listening()
    one = EventInput("RFIs", "update", idempotency_key="k")
    first, second = registry.emit_many([one, one])
    assert first == second
    assert len(everything(registry)) == 1


def test_a_key_lasts_until_it_is_pruned(registry: HookRegistry, listening: Listening, clock: ManualClock) -> None:
    """`prune` forgets keys stored before its moment, and not the others; the time of day does not count."""
    listening()
    first = registry.emit("RFIs", "update", idempotency_key="k")
    clock.advance(timedelta(days=400))
    registry.deliveries.prune(before=first.event.occurred_at)
    assert registry.emit("RFIs", "update", idempotency_key="k") == first
    registry.deliveries.prune(before=clock.now())
    again = registry.emit("RFIs", "update", idempotency_key="k")
    assert again.event.id != first.event.id
    assert len(everything(registry)) == 2


# The caller's transaction


@pytest.fixture
def sqlite_registry(path: Path, clock: ManualClock) -> HookRegistry:
    registry = HookRegistry(SQLiteStorage(path, durability="normal"), clock=clock)
    hook = registry.hooks.create("https://hooks.acme.example/", namespace="acme")
    registry.triggers.create(hook.id, "*", "*")
    return registry


@pytest.mark.parametrize("commit", [True, False])
def test_deliveries_exist_if_and_only_if_the_caller_commits(
    sqlite_registry: HookRegistry, path: Path, commit: bool
) -> None:
    """Inside the caller's transaction nothing is seen outside before the commit; a rollback leaves nothing."""
    with contextlib.closing(sqlite3.connect(path)) as connection, sqlite_registry as registry:
        connection.execute("CREATE TABLE rfis (subject TEXT)")
        connection.execute("INSERT INTO rfis VALUES ('Door 12')")
        emissions: list[Emission] = [registry.emit("RFIs", "create", connection=connection)]
        emissions += registry.emit_many([EventInput("RFIs", "update")] * 2, connection=connection)
        emissions.append(registry.bind(company_id=8).emit("RFIs", "update", connection=connection))
        assert everything(registry) == []
        connection.commit() if commit else connection.rollback()
        expected = [emission.delivery_ids[0] for emission in reversed(emissions)] if commit else []
        assert everything(registry) == expected
        if commit:
            assert connection.execute("SELECT * FROM rfis").fetchall() == [("Door 12",)]


def test_a_refused_emit_leaves_the_callers_transaction_as_it_was(sqlite_registry: HookRegistry, path: Path) -> None:
    """What the caller did before stays, what a failing `emit_many` did goes, and the caller goes on."""
    with contextlib.closing(sqlite3.connect(path)) as connection, sqlite_registry as registry:
        registry.emit("RFIs", "update", {"n": 1}, idempotency_key="k")
        connection.execute("CREATE TABLE rfis (subject TEXT)")
        connection.execute("INSERT INTO rfis VALUES ('Door 12')")
        with pytest.raises(IdempotencyConflict):
            registry.emit_many(
                [EventInput("RFIs", "update"), EventInput("RFIs", "update", {"n": 2}, idempotency_key="k")],
                connection=connection,
            )
        kept = registry.emit("RFIs", "delete", connection=connection)
        connection.commit()
        assert connection.execute("SELECT * FROM rfis").fetchall() == [("Door 12",)]
        assert everything(registry)[:-1] == list(kept.delivery_ids)


# The catalogue and the limit


def test_emit_goes_by_the_catalogue(storage: Storage) -> None:
    """With a catalogue a misspelt resource raises with the nearest name; what it has is emitted."""
    catalog = ResourceCatalog.from_mapping({"RFIs": ["update"]})
    with HookRegistry(storage, resources=catalog) as registry:
        assert registry.emit("RFIs", "update").event.resource == "RFIs"
        with pytest.raises(UnknownResource, match="did you mean 'RFIs'"):
            registry.emit("RFI", "update")


def test_the_longest_payload(storage: Storage) -> None:
    """The limit counts bytes of JSON: at it is fine, one more is not."""
    with HookRegistry(storage, max_payload_bytes=100) as registry:
        assert len(registry.emit("RFIs", "update", "é" * 49).event.payload_json) == 100
        with pytest.raises(InvalidPayload, match="100"):
            registry.emit("RFIs", "update", "é" * 49 + "x")


def test_bodies_go_without_needless_escapes(
    registry: HookRegistry, listening: Listening, drain: Callable[[], DrainReport], endpoint: ScriptedEndpoint
) -> None:
    """UTF-8 goes out as such."""
    listening()
    registry.emit("RFIs", "update", {"subject": "Tür 12 ✓"})
    drain()
    assert '"Tür 12 ✓"'.encode() in endpoint.requests[0].body
    assert json.loads(endpoint.requests[0].body)["data"] == {"subject": "Tür 12 ✓"}
