"""Long queues that are dropped: decided at once, carried out by the thousand, whatever comes in between."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from procore_hooks import Hook, SQLiteStorage
from procore_hooks.storage._base import HookChange
from procore_hooks.storage.sqlite import hooks as hooks_module
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

Rows = Callable[..., list[Any]]
WAITING = 5_000
AT_ONCE = 1_000


@pytest.fixture
def discarded(rows: Rows) -> Callable[[], int]:
    """How many deliveries are discarded in the file."""
    return lambda: rows("SELECT count(*) FROM procore_hooks_deliveries WHERE state = 4")[0][0]


@pytest.fixture
def hook(storage: SQLiteStorage) -> Hook:
    """A hook with 5,000 waiting, some of which came back."""
    hook = make.listening(storage, max_in_flight=100)
    make.emit_many(storage, WAITING)
    claims = make.turn(storage).claims
    make.turn(storage, *(make.put_off(claim) for claim in claims), capacity=0)
    return hook


@pytest.fixture
def steps(
    storage: SQLiteStorage, connection_of: Callable[[SQLiteStorage], sqlite3.Connection], discarded: Callable[[], int]
) -> list[int]:
    """How many were discarded when each transaction began."""
    seen: list[int] = []
    connection_of(storage).set_trace_callback(
        lambda statement: seen.append(discarded()) if statement == "BEGIN IMMEDIATE" else None
    )
    return seen


@pytest.mark.parametrize("verb", ["disable", "delete"])
def test_a_call_discards_the_whole_queue(
    storage: SQLiteStorage, hook: Hook, steps: list[int], discarded: Callable[[], int], verb: str
) -> None:
    """When it returns all are discarded, and no transaction took more than a thousand."""
    if verb == "disable":
        storage.disable_hook(hook.id, T0, "dropped by hand")
    else:
        storage.delete_hook(hook.id, T0, "deleted by hand")
    assert discarded() == WAITING
    steps.append(WAITING)
    sizes = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert max(sizes) <= AT_ONCE
    assert len(steps) > WAITING // AT_ONCE
    reasons = {delivery.reason for delivery in make.history(storage)}
    assert reasons == {"dropped by hand" if verb == "disable" else "deleted by hand"}
    assert make.turn(storage, now=at(1)).next_due_at is None


def test_a_flush_is_carried_out_by_turns(
    storage: SQLiteStorage, hook: Hook, steps: list[int], discarded: Callable[[], int]
) -> None:
    """The turn that settles the flush and those after it discard a thousand each, and claim nothing until all are;
    then the hook goes on with what came since.
    """
    (claim, *others) = make.turn(storage).claims
    flush = HookChange(flush_reason="12 hours without success")
    results = [make.turn(storage, make.given_up(claim, at(1), change=flush), now=at(1))]
    after = make.emit(storage).delivery_ids
    while results[-1].discarded:
        results.append(make.turn(storage, now=at(1)))
        if results[-1].discarded and discarded() < WAITING - 1 - len(others):
            assert results[-1].claims == ()
            assert results[-1].next_due_at is not None
            assert results[-1].next_due_at <= at(1)
    assert sum(result.discarded for result in results) == WAITING - 1 - len(others)
    assert max(result.discarded for result in results) <= AT_ONCE
    assert [make.ids(result) for result in results if result.claims] == [list(after)]
    # What was under way is discarded when it comes back.
    make.turn(storage, *(make.put_off(other, at(2)) for other in others), now=at(2))
    assert discarded() == WAITING - 1


def drop_without_sweep(storage: SQLiteStorage, hook: Hook, verb: str) -> None:
    """The first commit of a disable or a delete, after which the process dies."""
    if verb == "delete":
        storage._database.write(hooks_module.delete_hook, hook.id, T0, "gone")
    else:
        storage._write_by_index(hooks_module.disable_hook, hook.id, T0, "gone", None)


@pytest.mark.parametrize("verb", ["disable", "delete"])
def test_the_next_turns_finish_what_a_crash_left(
    storage: SQLiteStorage, hook: Hook, discarded: Callable[[], int], verb: str
) -> None:
    """After a crash between the decision and its end nothing more is claimed of the hook, and the next turns, of
    whichever process, discard the rest by the thousand, while another hook is served.
    """
    other = make.listening(storage, ("Submittals", "update"), max_in_flight=100)
    make.emit_many(storage, 50, resource="Submittals")
    drop_without_sweep(storage, hook, verb)
    assert discarded() == 0
    for done in range(1, WAITING // AT_ONCE + 1):
        result = make.turn(storage, now=at(done), capacity=5)
        assert result.discarded == AT_ONCE
        assert {claim.hook.id for claim in result.claims} == {other.id}
        assert discarded() == done * AT_ONCE
    assert make.turn(storage, now=at(9), capacity=0).discarded == 0
    assert {d.reason for d in make.history(storage, hook.id)} == {"gone"}


def test_a_hook_enabled_in_the_midst(storage: SQLiteStorage, hook: Hook, discarded: Callable[[], int]) -> None:
    """A hook that is enabled while its dropped queue is still being discarded gets what was emitted after the drop, and
    nothing of the old, and only once the old is gone.
    """
    drop_without_sweep(storage, hook, "disable")
    expected = list(make.emit(storage, now=at(1)).delivery_ids)
    storage.enable_hook(hook.id, at(2))
    expected += make.emit(storage, now=at(2)).delivery_ids
    claimed: list[int] = []
    while discarded() < WAITING:
        assert claimed == []
        claimed += make.ids(make.turn(storage, now=at(3)))
    assert claimed + make.ids(make.turn(storage, now=at(3))) == expected


def test_many_dropped_queues_share_the_turns(storage: SQLiteStorage, discarded: Callable[[], int]) -> None:
    """However many queues are dropped, a turn discards a thousand in all."""
    dropped = [make.listening(storage) for _ in range(30)]
    make.emit_many(storage, 100)
    for hook in dropped:
        storage._write_by_index(hooks_module.disable_hook, hook.id, T0, "gone", None)
    assert [make.turn(storage, now=at(1)).discarded for _ in range(4)] == [1000, 1000, 1000, 0]
    assert discarded() == 3000
