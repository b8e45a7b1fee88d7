"""What emits leave out of the index by hook: few, soon put in, and seen by whoever looks before that."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import SQLiteStorage
from procore_hooks._core.models import Hook
from procore_hooks.storage.sqlite import emit as emit_module
from procore_hooks.storage.sqlite import hooks as hooks_module
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

Rows = Callable[..., list[Any]]
FRAME = 4_096 + 24  # of the WAL: a page and its header


@pytest.fixture
def left_out(rows: Rows) -> Callable[[], list[int]]:
    """Tells the ids of those that are left out."""
    return lambda: [row[0] for row in rows("SELECT id FROM procore_hooks_deliveries WHERE unindexed IS NOT NULL")]


def claimed(storage: SQLiteStorage, seconds: int = 1) -> list[int]:
    return [claim.delivery_id for claim in make.turn(storage, now=at(seconds)).claims]


def test_an_event_for_ten_hooks_is_written_in_few_pages(
    storage: SQLiteStorage, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much the hooks have had, an emit does not write a page for each of them."""
    for _ in range(10):
        make.listening(storage)
    make.emit_many(storage, 500)

    def written() -> int:
        rows("PRAGMA wal_checkpoint(TRUNCATE)")
        make.emit(storage)
        return path.with_name(f"{path.name}-wal").stat().st_size // FRAME

    assert max(written() for _ in range(9)) <= 6
    indexing = [sql.replace("1 FROM", "NULL FROM") for sql in emit_module._INSERT_FEW]
    monkeypatch.setattr(emit_module, "_INSERT_FEW", indexing)
    assert written() > 10


def test_few_are_left_out(storage: SQLiteStorage, left_out: Callable[[], list[int]]) -> None:
    """Without any dispatcher, emits leave out at most 256, be it one by one or many in a transaction."""
    for _ in range(3):
        make.listening(storage)
    most = 0
    for number in (1,) * 100 + (70, 90, 40) + (1,) * 100:
        make.emit_many(storage, number)
        most = max(most, len(left_out()))
    assert 200 < most <= 256
    assert len(make.history(storage, 1)) == 400


def test_a_turn_leaves_none_out(storage: SQLiteStorage, left_out: Callable[[], list[int]]) -> None:
    """A turn puts in all there are, also those of hooks that it serves later."""
    for _ in range(3):
        make.listening(storage)
    make.emit_many(storage, 5)
    assert left_out() == list(range(1, 16))
    make.turn(storage, capacity=1)
    assert left_out() == []


def test_what_was_put_in_is_not_looked_at_again(
    storage: SQLiteStorage, steps_of: Callable[[SQLiteStorage, Callable[[], object]], int]
) -> None:
    """What it takes to put in the next one does not grow with what was put in before."""
    make.listening(storage)
    make.emit_many(storage, 2_000)
    storage.update_hook(1, {}, T0)
    make.emit(storage)
    assert steps_of(storage, lambda: storage._write_by_index(lambda cursor: None)) < 500


def keep_and_enable(storage: SQLiteStorage, hook: Hook) -> None:
    storage.disable_hook(hook.id, T0, None)
    make.emit(storage)
    storage.enable_hook(hook.id, T0)


def update_twice(storage: SQLiteStorage, hook: Hook) -> None:
    # What the first one put in, the second finds; what came in between only the second can put in.
    storage.update_hook(hook.id, {"max_in_flight": 40}, T0)
    make.emit(storage)
    storage.update_hook(hook.id, {"max_in_flight": 50}, T0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(update_twice, [1, 2, 3], id="update"),
        pytest.param(keep_and_enable, [1, 2, 3], id="enable"),
        pytest.param(lambda storage, hook: storage.add_ping(hook.id, make.an_event(), T0), [3, 1, 2], id="ping"),
    ],
)
def test_what_was_left_out_goes_on_waiting(
    storage: SQLiteStorage, change: Callable[[SQLiteStorage, Hook], object], expected: list[int]
) -> None:
    """Whatever is done to the hook meanwhile, its queue stays ready, and in its order."""
    hook = make.listening(storage, max_in_flight=50)
    make.emit(storage)
    make.emit(storage)
    change(storage, hook)
    assert claimed(storage) == expected


@pytest.mark.parametrize(
    "drop",
    [
        pytest.param(lambda storage, hook: storage.disable_hook(hook.id, T0, "dropped"), id="disable"),
        pytest.param(lambda storage, hook: storage.delete_hook(hook.id, T0, "deleted"), id="delete"),
    ],
)
def test_what_was_left_out_is_dropped(storage: SQLiteStorage, drop: Callable[[SQLiteStorage, Hook], object]) -> None:
    """A hook that is disabled with `drop`, or deleted, has nothing that waits any more."""
    hook = make.listening(storage)
    make.emit_many(storage, 3)
    drop(storage, hook)
    assert make.statuses(storage, [1, 2, 3]) == ["discarded"] * 3
    assert storage.count_deliveries(hook.id, T0) == {"discarded": 3}


def test_an_event_while_a_drop_is_carried_out(storage: SQLiteStorage) -> None:
    """Enabled before all that was dropped is discarded, a hook gets what came since, once that is done."""
    hook = make.listening(storage)
    make.emit(storage)
    # As a process does that ends, or is overtaken, between the two.
    storage._write_by_index(hooks_module.disable_hook, hook.id, T0, "dropped", None)
    storage.enable_hook(hook.id, T0)
    make.emit(storage)
    storage._sweep(hook.id, T0)
    assert make.statuses(storage, [1, 2]) == ["discarded", "enqueued"]
    assert claimed(storage) == [2]


def test_lists_and_counts_see_what_was_left_out(storage: SQLiteStorage) -> None:
    """A list of one hook has them first, page by page and by each filter, and its counts have them too."""
    one, other = make.listening(storage, max_in_flight=50), make.listening(storage)
    make.emit_many(storage, 3)
    make.turn(storage, capacity=0, now=at(1))
    storage.add_ping(one.id, make.an_event(action="ping"), at(2))  # is in the index, with all before it
    make.emit_many(storage, 2, now=at(3))
    expected = [10, 8, 7, 5, 3, 1]
    assert [one.id for one in make.history(storage, one.id)] == expected
    paged, before = [], None
    while page := make.history(storage, one.id, limit=1, before=before):
        paged.append(page[0].id)
        before = page[0].id
    assert paged == expected
    assert [one.id for one in make.history(storage, one.id, limit=3)] == expected[:3]
    assert [one.id for one in make.history(storage, one.id, statuses=frozenset({"enqueued"}))] == expected
    assert [one.id for one in make.history(storage, one.id, action="ping")] == [7]
    assert [one.id for one in make.history(storage, one.id, start=at(3))] == [10, 8]
    assert [one.id for one in make.history(storage, one.id, end=at(3))] == [7, 5, 3, 1]
    assert storage.count_deliveries(one.id, T0) == {"enqueued": 6}
    assert storage.count_deliveries(one.id, at(3)) == {"enqueued": 2}
    assert storage.count_deliveries(one.id, at(4)) == {}
    assert storage.count_deliveries(other.id, T0) == {"enqueued": 5}


def test_a_list_while_they_are_put_in(
    storage: SQLiteStorage,
    path: Path,
    left_out: Callable[[], list[int]],
    connection_of: Callable[[SQLiteStorage], sqlite3.Connection],
) -> None:
    """A list that looks at what is left out, and then into the index, has each once, though a turn comes in between."""
    hook = make.listening(storage)
    make.emit_many(storage, 3)
    turns = []
    with_turn = SQLiteStorage(path, durability="normal")

    def come_in_between(sql: str) -> None:
        if "INDEXED BY procore_hooks_deliveries_hook" in sql and not turns:
            turns.append(make.turn(with_turn, capacity=1))

    connection_of(storage).set_trace_callback(come_in_between)
    listed = [one.id for one in make.history(storage, hook.id)]
    connection_of(storage).set_trace_callback(None)
    with_turn.close()
    assert len(turns) == 1
    assert left_out() == []
    assert listed == [3, 2, 1]
