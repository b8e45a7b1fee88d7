"""Pruning: little by little, without giving an id twice, and nothing that is still needed."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from procore_hooks import SQLiteStorage
from procore_hooks.storage._base import EmitRequest
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

Rows = Callable[..., list[Any]]
LATER = T0 + timedelta(days=1)


def deliver(storage: SQLiteStorage) -> None:
    """Deliver all that waits."""
    settlements: list[Any] = []
    while claims := (result := make.turn(storage, *settlements, capacity=1000)).claims:
        settlements = [make.accepted(claim) for claim in claims]
    assert result.next_due_at is None


@pytest.fixture
def count(rows: Rows) -> Callable[[str], int]:
    """How many rows a table of ours has."""
    return lambda table: rows(f"SELECT count(*) FROM procore_hooks_{table}")[0][0]


@pytest.mark.parametrize("reopened", [False, True])
def test_ids_are_never_used_again(
    storage: SQLiteStorage, reopen: Callable[[], SQLiteStorage], rows: Rows, reopened: bool
) -> None:
    """However often everything is pruned, the newest included, each delivery has an id above all before it."""
    hook = make.listening(storage, max_in_flight=1000)
    greatest = 0
    for number in (3, 1, 1, 5):
        ids = make.emit_many(storage, number)
        assert min(ids) > greatest
        greatest = max(ids)
        deliver(storage)
        assert storage.prune(LATER) == number
        assert make.history(storage) == []
        assert storage.count_deliveries(None, T0 - timedelta(days=99999)) == {}
        assert storage.count_deliveries(hook.id, T0) == {}
        if reopened:
            rows("VACUUM")
            storage = reopen()
    assert storage.prune(LATER) == 0
    # Deliveries made in other ways too.
    ping = storage.add_ping(hook.id, make.an_event(), T0)
    assert ping.id > greatest
    deliver(storage)
    again = storage.redeliver(ping.id, T0)
    assert again.id > ping.id
    deliver(storage)
    assert storage.prune(LATER) == 2
    assert make.emit(storage).delivery_ids[0] > again.id


@pytest.fixture
def reopen(path: Any) -> Any:
    opened: list[SQLiteStorage] = []

    def open_again() -> SQLiteStorage:
        opened.append(SQLiteStorage(path, durability="normal"))
        return opened[-1]

    yield open_again
    for one in opened:
        one.close()


def test_an_event_lives_as_long_as_its_last_delivery(storage: SQLiteStorage, count: Callable[[str], int]) -> None:
    """An event of several deliveries goes with the last of them, whether they were pruned together or one by one."""
    make.listening(storage)
    slow = make.listening(storage)
    emission = make.emit(storage)
    fast_claim, slow_claim = sorted(make.turn(storage).claims, key=lambda claim: claim.hook.id)
    make.turn(storage, make.accepted(fast_claim), make.put_off(slow_claim, due_at=at(60)), capacity=0)
    assert storage.prune(LATER) == 1
    assert storage.get_delivery(slow_claim.delivery_id).event == emission.event
    (claim,) = make.turn(storage, now=at(60)).claims
    make.turn(storage, make.accepted(claim, at(60)), now=at(60), capacity=0)
    again = storage.redeliver(claim.delivery_id, LATER)
    assert storage.prune(LATER) == 1
    assert storage.get_delivery(again.id).event == emission.event
    storage.delete_hook(slow.id, LATER, "deleted")
    assert storage.prune(LATER + timedelta(seconds=1)) == 1
    assert count("events") == 0
    assert count("attempts") == 0


def test_deliveries_of_one_event_pruned_together(storage: SQLiteStorage, count: Callable[[str], int]) -> None:
    """Three deliveries of one event in one step let go of it three times."""
    for _ in range(3):
        make.listening(storage)
    make.emit_many(storage, 4)
    deliver(storage)
    assert count("events") == 4
    assert storage.prune(LATER) == 12
    assert (count("events"), count("attempts")) == (0, 0)


def test_a_key_keeps_its_event(storage: SQLiteStorage, count: Callable[[str], int]) -> None:
    """A key outlives the pruned deliveries of its emit and gives the first answer, until it is pruned itself."""
    make.listening(storage)
    make.emit(storage, now=T0)  # an older delivery
    first = make.emit(storage, now=LATER, key="k")
    unmatched = make.emit(storage, make.an_event("Submittals"), now=LATER, key="u")
    deliver(storage)
    with_the_key = LATER + timedelta(seconds=1)
    assert storage.prune(LATER) == 1
    assert make.emit(storage, now=LATER, key="k") == first
    assert make.emit(storage, make.an_event("Submittals"), now=LATER, key="u") == unmatched
    assert storage.prune(with_the_key) == 1
    assert (count("events"), count("idempotency_keys")) == (0, 0)
    assert make.emit(storage, now=LATER, key="k").event != first.event
    assert make.emit(storage, make.an_event("Submittals"), now=LATER, key="u") != unmatched


def test_a_key_goes_before_its_delivery(storage: SQLiteStorage, count: Callable[[str], int]) -> None:
    """Pruning a key takes nothing from a delivery that still waits."""
    make.listening(storage)
    emission = make.emit(storage, key="k")
    assert storage.prune(LATER) == 0
    assert (count("events"), count("idempotency_keys")) == (1, 0)
    (claim,) = make.turn(storage).claims
    assert claim.event == emission.event
    make.turn(storage, make.accepted(claim), capacity=0)
    assert storage.prune(LATER) == 1
    assert count("events") == 0


def test_three_thousand_in_small_transactions(
    storage: SQLiteStorage,
    connection_of: Callable[[SQLiteStorage], sqlite3.Connection],
    outside: sqlite3.Connection,
    count: Callable[[str], int],
) -> None:
    """3,000 deliveries, with 3,000 keys, go a few hundred at a time, and in between others write without waiting."""
    make.listening(storage, max_in_flight=1000)
    requests = [EmitRequest(event=make.an_event(), idempotency_key=f"k{n}") for n in range(3_000)]
    storage.emit(requests, T0, None)
    deliver(storage)
    outside.execute("CREATE TABLE others (deliveries, keys)")

    def write(statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":
            # The lock is free here: this connection waits for none.
            outside.execute(
                """INSERT INTO others SELECT (SELECT count(*) FROM procore_hooks_deliveries WHERE hook_id > 0),
                (SELECT count(*) FROM procore_hooks_idempotency_keys)"""
            )

    connection_of(storage).set_trace_callback(write)
    assert storage.prune(LATER) == 3_000
    connection_of(storage).set_trace_callback(None)
    left = [*outside.execute("SELECT deliveries, keys FROM others ORDER BY rowid").fetchall(), (0, 0)]
    for before, after in itertools.pairwise(left):
        assert before[0] - after[0] <= 500
        assert before[1] - after[1] <= 500
    assert left[0] == (3_000, 3_000)
    assert (count("events"), count("attempts"), count("idempotency_keys")) == (0, 0, 0)


def test_two_that_prune_at_once(storage: SQLiteStorage, path: Any, count: Callable[[str], int]) -> None:
    """What another one has pruned in between is not counted, and its events are let go of once."""
    make.listening(storage)
    make.listening(storage)
    make.emit(storage, key="k")
    make.emit(storage, key="kept", now=LATER + timedelta(days=1))
    deliver(storage)
    other = SQLiteStorage(path, durability="normal")
    pruned: list[int] = []
    connection = storage._database.read(lambda cursor: cursor.connection)
    connection.set_trace_callback(
        lambda statement: pruned.append(other.prune(LATER)) if statement == "BEGIN IMMEDIATE" and not pruned else None
    )
    assert storage.prune(LATER) == 0
    connection.set_trace_callback(None)
    other.close()
    assert pruned == [2]
    assert (count("events"), count("idempotency_keys")) == (1, 1)
    assert make.emit(storage).delivery_ids[0] > 4
