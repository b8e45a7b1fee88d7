"""What was created since a moment is counted from the right delivery on, whichever way the deliveries were made."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from procore_hooks import SQLiteStorage
from procore_hooks.storage._base import EmitRequest
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

# An hour after what is there already, so in a quarter of its own.
LATER = at(3600)


def emit_within(storage: SQLiteStorage, path: Path, *, commit: bool) -> None:
    with contextlib.closing(sqlite3.connect(path)) as app:
        storage.emit([EmitRequest(event=make.an_event())], LATER, app)
        app.commit() if commit else app.rollback()


WAYS: dict[str, Callable[[SQLiteStorage, Path, int], object]] = {
    "emit": lambda storage, path, hook_id: make.emit(storage, now=LATER),
    "emit many": lambda storage, path, hook_id: make.emit_many(storage, 3, now=LATER),
    "emit, in the app's transaction": lambda storage, path, hook_id: emit_within(storage, path, commit=True),
    "ping": lambda storage, path, hook_id: storage.add_ping(hook_id, make.an_event(), LATER),
    "redeliver": lambda storage, path, hook_id: storage.redeliver(1, LATER),
    "recover": lambda storage, path, hook_id: storage.recover(hook_id, T0, at(1), LATER),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_make_a_delivery(storage: SQLiteStorage, path: Path, way: str) -> None:
    """The first deliveries of a quarter of an hour are counted, whichever way they were made, and so are those of later
    quarters when a clock was set back in between.
    """
    hook = make.listening(storage)
    make.emit(storage)
    make.turn(storage, make.given_up(make.turn(storage).claims[0]))
    before = storage.count_deliveries(None, T0)
    WAYS[way](storage, path, hook.id)
    made = sum(storage.count_deliveries(None, T0).values()) - sum(before.values())
    assert made > 0
    assert sum(storage.count_deliveries(None, LATER).values()) == made
    make.emit(storage, now=at(-7200))
    make.emit(storage, now=LATER)
    assert sum(storage.count_deliveries(None, LATER).values()) == made + 1
    assert sum(storage.count_deliveries(hook.id, at(-7200)).values()) == made + 3


def test_a_transaction_that_is_rolled_back(storage: SQLiteStorage, path: Path) -> None:
    """Where the app rolls back the emit that came first in a quarter of an hour, those after it are counted."""
    make.listening(storage)
    make.emit(storage)
    emit_within(storage, path, commit=False)
    make.emit(storage, now=LATER)
    assert storage.count_deliveries(None, LATER) == {"enqueued": 1}


def test_an_emit_that_fails(storage: SQLiteStorage) -> None:
    """An emit that raises has noted nothing, and remembers nothing: the next one of the same quarter is counted."""
    make.listening(storage)
    event = make.an_event()
    make.emit(storage, event)
    with pytest.raises(Exception, match=str(event.id)):
        make.emit(storage, event, now=LATER)
    make.emit(storage, now=LATER)
    assert storage.count_deliveries(None, LATER) == {"enqueued": 1}


def test_two_processes_at_once(storage: SQLiteStorage, path: Path) -> None:
    """A storage that was not the first to make a delivery in a quarter of an hour leaves the first where it is."""
    make.listening(storage)
    with contextlib.closing(SQLiteStorage(path)) as other:
        for one in (storage, other, storage, other):
            make.emit(one, now=LATER)
    assert storage.count_deliveries(None, LATER) == {"enqueued": 4}


def test_nothing_runs_for_each_delivery(storage: SQLiteStorage, rows: Callable[..., list[object]]) -> None:
    """The table of deliveries has no trigger: SQLite would run it for each, and copy them all beforehand."""
    assert rows("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'procore_hooks_deliveries'") == []
