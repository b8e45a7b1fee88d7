"""What is remembered of who gets an event: right whatever changed meanwhile, and whoever changed it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import SQLiteStorage
from procore_hooks.storage._base import EmitRequest
from procore_hooks.storage.sqlite import schema
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0

Rows = Callable[..., list[Any]]


@pytest.fixture
def other(path: Path, storage: SQLiteStorage) -> SQLiteStorage:
    """The same file, as another process has it open."""
    return SQLiteStorage(path, durability="normal")


def getting(storage: SQLiteStorage) -> list[int]:
    """The hooks that get an event, in the file as it is now."""
    emission = make.emit(storage)
    return [storage.get_delivery(one).hook_id for one in emission.delivery_ids]


CHANGES: dict[str, Callable[[SQLiteStorage, Any], object]] = {
    "another hook": lambda storage, hook: make.listening(storage),
    "a hook that hears everything": lambda storage, hook: make.listening(storage, ("*", "*")),
    "no trigger": lambda storage, hook: storage.delete_trigger(storage.list_triggers(hook.id, 0, 1)[0].id),
    "other triggers": lambda storage, hook: storage.replace_triggers(hook.id, [("Other", "*")]),
    "another company": lambda storage, hook: storage.update_hook(hook.id, {"company_id": "99"}, T0),
    "no hook": lambda storage, hook: storage.delete_hook(hook.id, T0, "deleted"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("changed_by", ["itself", "another"])
def test_an_emit_goes_by_the_triggers_of_now(
    storage: SQLiteStorage, other: SQLiteStorage, rows: Rows, change: str, changed_by: str
) -> None:
    """After each kind of change, by the same object or by another process, an emit finds what a fresh one finds."""
    hook = make.listening(storage, company_id=make.an_event().company_id)
    assert getting(storage) == [hook.id]
    CHANGES[change](storage if changed_by == "itself" else other, hook)
    fresh = SQLiteStorage(storage._database.path, durability="normal")
    expected = getting(fresh)
    assert getting(storage) == expected
    assert expected != [hook.id]


@pytest.mark.parametrize("changed_by", ["itself", "another"])
def test_an_emit_goes_by_whether_a_hook_drops_now(
    storage: SQLiteStorage, other: SQLiteStorage, changed_by: str
) -> None:
    """A hook that was disabled, and drops, gets nothing any more; once enabled it does again."""
    hook = make.listening(storage, when_disabled="drop")
    assert getting(storage) == [hook.id]
    by = storage if changed_by == "itself" else other
    by.disable_hook(hook.id, T0, None)
    (dropped,) = make.emit(storage).delivery_ids
    assert storage.get_delivery(dropped).status == "discarded"
    by.enable_hook(hook.id, T0)
    (kept,) = make.emit(storage).delivery_ids
    assert storage.get_delivery(kept).status == "enqueued"


def test_nobody_is_remembered_too(storage: SQLiteStorage, other: SQLiteStorage) -> None:
    """An event that nobody wanted is wanted as soon as a hook of another process listens, and no longer than that."""
    assert getting(storage) == []
    hook = make.listening(other)
    assert getting(storage) == [hook.id]
    other.delete_hook(hook.id, T0, "deleted")
    assert getting(storage) == []


def test_what_was_rolled_back_is_not_remembered(storage: SQLiteStorage, path: Path) -> None:
    """An emit inside the app's transaction sees the app's own changes to our tables; after a rollback nobody does."""
    hook = make.listening(storage)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as mine:
        mine.execute("BEGIN IMMEDIATE")
        mine.execute("DELETE FROM procore_hooks_triggers")
        assert storage.emit([EmitRequest(event=make.an_event())], T0, mine)[0].delivery_ids == ()
        mine.execute("ROLLBACK")
        # A change that draws a number again: were it a count, it would be the one of before.
        mine.execute("UPDATE procore_hooks_queues SET enabled = enabled")
    assert getting(storage) == [hook.id]


def test_a_change_by_hand_counts(storage: SQLiteStorage, rows: Rows) -> None:
    """SQLite itself sees to it, so that a repair by hand is not missed either."""
    hook = make.listening(storage)
    assert getting(storage) == [hook.id]
    for statement in (
        "UPDATE procore_hooks_triggers SET action = 'other'",
        "UPDATE procore_hooks_triggers SET action = '*'",
        "DELETE FROM procore_hooks_triggers",
    ):
        rows(statement)
        assert getting(storage) == ([hook.id] if "'*'" in statement else [])


def test_a_hook_disabled_by_hand_drops(storage: SQLiteStorage, rows: Rows) -> None:
    """The same of the queue's own mark."""
    make.listening(storage)
    make.emit(storage)
    rows("UPDATE procore_hooks_queues SET enabled = -1")
    (dropped,) = make.emit(storage).delivery_ids
    assert storage.get_delivery(dropped).status == "discarded"


def test_the_index_is_asked_once(
    storage: SQLiteStorage, connection_of: Callable[[SQLiteStorage], sqlite3.Connection]
) -> None:
    """For each kind of event, until something changes; the bodies of emits do not count."""
    make.listening(storage)
    asked: list[str] = []
    connection_of(storage).set_trace_callback(
        lambda sql: asked.append(sql) if "procore_hooks_triggers_match" in sql else None
    )
    for _ in range(3):
        make.emit(storage)
        make.emit(storage, make.an_event(resource="Nobody"))
    assert len(asked) == 2
    make.listening(storage, ("Other", "*"))
    make.emit(storage)
    assert len(asked) == 3


def test_a_file_of_the_first_schema_gets_it(path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks and triggers stay, and changes count from then on."""
    with monkeypatch.context() as older:
        older.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:1])
        older.setattr(schema, "VERSION", 1)
        storage = SQLiteStorage(path, durability="normal")
        hook = storage.add_hook(make.a_hook())
        storage.add_trigger(hook.id, "*", "*")
        storage.close()
    storage = SQLiteStorage(path, durability="normal")
    assert rows("SELECT version FROM procore_hooks_schema") == [(schema.VERSION,)]
    assert getting(storage) == [hook.id]
    storage.replace_triggers(hook.id, [])
    assert getting(storage) == []
