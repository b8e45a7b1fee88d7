"""Many events in one transaction: all or none."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import EventInput, HookRegistry, IdempotencyConflict, InvalidPayload, SQLiteStorage
from procore_hooks.storage._base import EmitRequest, EventIdTaken
from procore_hooks.testing import ManualClock
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0

Rows = Callable[..., list[Any]]


@pytest.fixture
def transactions(storage: SQLiteStorage, connection_of: Callable[[SQLiteStorage], sqlite3.Connection]) -> list[str]:
    """What this thread's connection has begun and ended."""
    seen: list[str] = []
    connection_of(storage).set_trace_callback(
        lambda statement: seen.append(statement) if statement.startswith(("BEGIN", "COMMIT", "ROLLBACK")) else None
    )
    return seen


@pytest.fixture
def registry(storage: SQLiteStorage) -> HookRegistry:
    registry = HookRegistry(storage, clock=ManualClock())
    hook = registry.hooks.create("https://hooks.acme.example/in", namespace="acme")
    registry.triggers.create(hook.id, "RFIs", "update")
    return registry


def test_a_thousand_in_one_transaction(
    registry: HookRegistry, storage: SQLiteStorage, transactions: list[str], rows: Rows
) -> None:
    """`emit_many` of a thousand is one transaction, and gives each its own delivery, in order."""
    emissions = registry.emit_many(EventInput("RFIs", "update", {"n": n}) for n in range(1_000))
    assert transactions == ["BEGIN IMMEDIATE", "COMMIT"]
    assert [e.delivery_ids for e in emissions] == [(n,) for n in range(1, 1_001)]
    assert [e.event.payload["n"] for e in emissions] == list(range(1_000))
    assert rows("SELECT count(*) FROM procore_hooks_events") == [(1_000,)]


def test_one_that_nobody_wants_writes_nothing(registry: HookRegistry, transactions: list[str]) -> None:
    """Events that no hook wants take no lock, however many they are."""
    registry.emit_many(EventInput("Drawings", "create") for _ in range(50))
    assert transactions == []


@pytest.mark.parametrize("trouble", ["payload", "key", "input that raises"])
def test_one_in_the_middle_that_fails(registry: HookRegistry, rows: Rows, trouble: str) -> None:
    """If one of many cannot be stored, none is, and the same many without it can."""
    registry.emit("RFIs", "update", {"n": -1}, idempotency_key="used")

    def inputs(with_trouble: bool) -> Any:
        for n in range(1_000):
            if n == 500 and with_trouble:
                if trouble == "input that raises":
                    raise ZeroDivisionError
                bad = float("nan") if trouble == "payload" else "other content"
                yield EventInput("RFIs", "update", bad, idempotency_key="used")
            yield EventInput("RFIs", "update", {"n": n})

    tables = ("events", "deliveries", "idempotency_keys")
    before = [rows(f"SELECT * FROM procore_hooks_{table}") for table in tables]
    kinds = {"payload": InvalidPayload, "key": IdempotencyConflict, "input that raises": ZeroDivisionError}
    with pytest.raises(kinds[trouble]):
        registry.emit_many(inputs(True))
    assert [rows(f"SELECT * FROM procore_hooks_{table}") for table in tables] == before
    assert len(registry.emit_many(inputs(False))) == 1_000


def test_an_event_id_that_is_taken(storage: SQLiteStorage, rows: Rows) -> None:
    """One taken id among many is `EventIdTaken`, and stores nothing; the queue is not woken for nothing either."""
    make.listening(storage)
    taken = make.emit(storage, make.an_event()).event
    before = rows("SELECT * FROM procore_hooks_queues")
    events = [make.an_event() for _ in range(1_000)]
    events[500] = make.an_event(id=taken.id)
    with pytest.raises(EventIdTaken):
        storage.emit([EmitRequest(event=event) for event in events], T0, None)
    assert rows("SELECT count(*) FROM procore_hooks_events") == [(1,)]
    assert rows("SELECT count(*) FROM procore_hooks_deliveries") == [(1,)]
    assert rows("SELECT * FROM procore_hooks_queues") == before


@pytest.mark.parametrize("joined", [False, True])
def test_a_registry_numbers_anew(
    storage: SQLiteStorage, path: Path, monkeypatch: pytest.MonkeyPatch, rows: Rows, joined: bool
) -> None:
    """Two processes that draw the same numbers in the same millisecond both emit, and nothing is stored twice; so does
    one within the transaction of its app, of which nothing is lost.
    """
    moment = datetime(2031, 5, 17, tzinfo=UTC)
    monkeypatch.setattr("os.urandom", lambda size: b"\x07" * size)
    one, other = (HookRegistry(storage, clock=ManualClock(moment)) for _ in range(2))
    hook = one.hooks.create("https://hooks.acme.example/in", namespace="acme")
    one.triggers.create(hook.id, "RFIs", "update")
    with contextlib.closing(sqlite3.connect(path)) as app:
        app.execute("CREATE TABLE rfis (n)")
        emissions = list(one.emit_many(EventInput("RFIs", "update", n) for n in range(3)))
        app.execute("INSERT INTO rfis VALUES (1)")
        if not joined:
            app.commit()
        emissions += [other.emit("RFIs", "update", n, connection=app if joined else None) for n in range(3, 6)]
        app.commit()
    assert len({emission.event.id for emission in emissions}) == 6
    assert rows("SELECT CAST(payload AS TEXT) FROM procore_hooks_events ORDER BY id") == [(str(n),) for n in range(6)]
    assert rows("SELECT count(*) FROM procore_hooks_deliveries") == [(6,)]
    assert rows("SELECT n FROM rfis") == [(1,)]
