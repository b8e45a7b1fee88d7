"""Opening a file: what is made in it, what is left alone, what is refused, and who may read it."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import InvalidInput, SchemaTooNew, SQLiteStorage, StorageCorrupt, StorageError
from procore_hooks.storage.sqlite import connection as connection_module
from procore_hooks.storage.sqlite import emit, schema
from procore_hooks.storage.sqlite.quarters import Quarters
from procore_hooks.storage.sqlite.schema import APPLICATION_ID, VERSION
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import at

Rows = Callable[..., list[Any]]


def execute(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Schema


def test_a_new_file_says_whose_it_is(path: Path, storage: SQLiteStorage, rows: Rows) -> None:
    """Tables are made under our prefix, and the file's header holds our application id and the schema's version."""
    names = {row[0] for row in rows("SELECT name FROM sqlite_schema WHERE type = 'table'")} - {"sqlite_sequence"}
    assert {name.removeprefix("procore_hooks_") for name in names} == {
        "attempts", "deliveries", "events", "hooks", "idempotency_keys", "matching", "queues", "requests", "schema",
        "times", "triggers", "turns",
    }  # fmt: skip
    assert rows("PRAGMA application_id") == [(APPLICATION_ID,)]
    assert rows("PRAGMA user_version") == [(VERSION,)]
    assert rows("SELECT version FROM procore_hooks_schema") == [(VERSION,)]
    assert path.read_bytes().startswith(b"SQLite format 3\0")


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_a_file_of_an_older_schema_is_brought_up(
    path: Path, monkeypatch: pytest.MonkeyPatch, rows: Rows, version: int
) -> None:
    """What is in a file of an older release stays, and counts as what is stored from now on does."""
    with monkeypatch.context() as older:
        older.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:version])
        older.setattr(schema, "VERSION", version)
        # Then emits put their deliveries into all indexes themselves.
        statements = [one.replace(", unindexed)", ")").replace("?, 1 FROM", "? FROM") for one in emit._INSERT_FEW]
        older.setattr(emit, "_INSERT_FEW", statements)
        if version < 5:  # and the file's own triggers noted the quarters
            older.setattr(Quarters, "note", lambda *_: None)
        storage = SQLiteStorage(path)
        hook = make.listening(storage, max_in_flight=50)
        for hour in (0, 2, 1, 30):
            make.emit_many(storage, 2, now=at(3600 * hour))
        storage.close()
    assert rows("PRAGMA user_version") == [(version,)]
    with contextlib.closing(SQLiteStorage(path)) as storage:
        make.emit(storage, now=at(3600 * 30))
        make.emit(storage, now=at(3600 * 31))
        assert rows("PRAGMA user_version") == [(VERSION,)]
        counted = [storage.count_deliveries(None, at(3600 * hour)).get("enqueued", 0) for hour in (0, 1, 2, 30, 31, 32)]
        assert counted == [10, 8, 6, 4, 1, 0]
        assert storage.count_deliveries(hook.id, at(3600)) == {"enqueued": 8}
        assert [one.id for one in make.history(storage, hook.id)] == list(range(10, 0, -1))
        assert [claim.delivery_id for claim in make.turn(storage, now=at(3600 * 32)).claims] == list(range(1, 11))


def test_opening_again_changes_nothing(path: Path) -> None:
    """A file of this schema is left as it is, to the byte."""
    SQLiteStorage(path).close()
    before = path.read_bytes()
    SQLiteStorage(path).close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("user_version", [0, 7, 999])
def test_a_file_shared_with_the_app(path: Path, rows: Rows, user_version: int) -> None:
    """Beside an app's tables ours are made; the app's rows, `user_version` and `application_id` stay its own."""
    execute(
        path,
        "CREATE TABLE rfis (subject TEXT)",
        "INSERT INTO rfis VALUES ('Door 12')",
        f"PRAGMA user_version = {user_version}",
        "PRAGMA application_id = 42",
    )
    for _ in range(2):
        storage = SQLiteStorage(path)
        make.listening(storage)
        storage.close()
    assert rows("PRAGMA user_version") == [(user_version,)]
    assert rows("PRAGMA application_id") == [(42,)]
    assert rows("SELECT * FROM rfis") == [("Door 12",)]
    assert rows("SELECT count(*) FROM procore_hooks_hooks") == [(2,)]


@pytest.mark.parametrize("made_with", ["wal", "delete"])
@pytest.mark.parametrize("opened_with", ["wal", "delete"])
@pytest.mark.parametrize(
    "raised", ["PRAGMA user_version = 999", "UPDATE procore_hooks_schema SET version = 999"], ids=["header", "table"]
)
def test_a_newer_schema_is_refused_untouched(path: Path, made_with: Any, opened_with: Any, raised: str) -> None:
    """Whatever the journal modes, `SchemaTooNew` names both versions, and not a byte of the file changes."""
    storage = SQLiteStorage(path, journal_mode=made_with)
    make.listening(storage)
    storage.close()
    execute(path, raised)
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match=rf"{path} has schema 999, .* up to {VERSION}; .*upgrade procore-hooks"):
        SQLiteStorage(path, journal_mode=opened_with)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


# What is no file of ours


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize(
    "content", [b"Once upon a time " * 100, b"\0" * 4096, b"SQLite format 2\0" + b"x" * 4080, b"key=1"]
)
def test_a_file_that_is_no_database(path: Path, content: bytes, journal_mode: Any) -> None:
    """It is `StorageCorrupt`, named, and stays as it was to the byte."""
    path.write_bytes(content)
    with pytest.raises(StorageCorrupt, match=f"^{path} is not an SQLite database"):
        SQLiteStorage(path, journal_mode=journal_mode)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    """A file without a byte is taken for a new one, as SQLite does."""
    path.touch()
    storage = SQLiteStorage(path)
    make.listening(storage)
    storage.close()
    assert path.stat().st_size > 0


def test_a_folder(tmp_path: Path) -> None:
    """A path that is a folder is named, with a question that leads to the answer."""
    with pytest.raises(StorageError, match=f"^{tmp_path} cannot be opened: is it a file, ") as caught:
        SQLiteStorage(tmp_path)
    assert type(caught.value) is StorageError


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It is not made, and the error asks for it."""
    with pytest.raises(StorageError, match="does its folder exist"):
        SQLiteStorage(tmp_path / "none" / "hooks.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", ":memory:", "file:hooks.db?mode=memory", "a\0b", b"hooks.db", None, 7], ids=repr)
def test_what_is_no_path(path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is no path of a file is refused before anything is made, with a word on `MemoryStorage`."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=r"^path: .*MemoryStorage\(\)") as caught:
        SQLiteStorage(path)
    assert repr(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("busy_timeout", [-1, float("nan"), float("inf"), "30", None, True])
def test_a_busy_timeout_that_is_none(path: Path, busy_timeout: Any) -> None:
    """What is no number of seconds is refused before a file is made."""
    with pytest.raises(InvalidInput, match=r"^busy_timeout: "):
        SQLiteStorage(path, busy_timeout=busy_timeout)
    assert not path.exists()


UNWRITABLE = """
import os, sys
from procore_hooks import SQLiteStorage, StorageError
if os.geteuid() == 0:
    os.setuid(65534)  # permissions are nothing to root
try:
    SQLiteStorage(sys.argv[1])
except StorageError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o755), (0o000, 0o755), (None, 0o555)])
def test_what_may_not_be_written(
    tmp_path_factory: pytest.TempPathFactory, file_mode: int | None, folder_mode: int
) -> None:
    """A file or a folder without the permission is a `StorageError` that speaks of it."""
    with open_to_all() as folder:
        path = folder / "hooks.db"
        if file_mode is not None:
            SQLiteStorage(path).close()
            path.chmod(file_mode)
        folder.chmod(folder_mode)
        said = subprocess.run(
            [sys.executable, "-c", UNWRITABLE, str(path)], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        assert said.startswith(f"StorageError {path} ")
        assert "permissions" in said or "may it be written to?" in said


@contextlib.contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that any user may look into; those of pytest are its own user's alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# Permissions


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_new_file_is_private(path: Path, journal_mode: Any) -> None:
    """The file holds secrets: it is made for its owner alone, and what SQLite puts beside it too."""
    umask = os.umask(0)
    try:
        storage = SQLiteStorage(path, journal_mode=journal_mode)
        beside: dict[str, int] = {}

        def look_around(cursor: sqlite3.Cursor) -> None:
            cursor.execute("UPDATE procore_hooks_turns SET number = 7")
            beside.update({one.name: mode_of(one) for one in path.parent.iterdir()})

        storage._database.write(look_around)
        storage.close()
    finally:
        os.umask(umask)
    assert len(beside) == (3 if journal_mode == "wal" else 2)
    assert set(beside.values()) == {0o600}


def test_a_new_file_is_private_from_its_first_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is so before SQLite writes anything: nobody may open it early and read it later."""
    seen: list[tuple[int, int]] = []
    connect = sqlite3.connect

    def look(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        seen.append((mode_of(path), path.stat().st_size))
        return connect(*args, **kwargs)

    monkeypatch.setattr(sqlite3, "connect", look)
    SQLiteStorage(path).close()
    assert seen[0] == (0o600, 0)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_the_permissions_of_a_file_that_is_there_stay(path: Path, mode: int) -> None:
    """Whoever made the file decided who may read it."""
    execute(path, "CREATE TABLE rfis (subject TEXT)")
    path.chmod(mode)
    SQLiteStorage(path).close()
    assert mode_of(path) == mode


def test_a_link_to_a_file_that_is_not_there(path: Path, tmp_path: Path) -> None:
    """The file that a link points to is made, and is private too."""
    link = tmp_path / "link.db"
    link.symlink_to(path)
    SQLiteStorage(link).close()
    assert mode_of(path) == 0o600


def test_making_a_file_costs_nobody_a_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To close a file drops all locks of this process on it, so while one thread makes it, no other one opens it."""
    making, go, opened = threading.Event(), threading.Event(), threading.Event()
    really_close = os.close

    def slow_close(descriptor: int) -> None:
        if threading.current_thread().name == "maker":
            making.set()
            assert go.wait(30)
        really_close(descriptor)

    def open_one() -> None:
        SQLiteStorage(path).close()
        opened.set()

    monkeypatch.setattr(connection_module.os, "close", slow_close)
    maker = threading.Thread(target=open_one, name="maker")
    maker.start()
    assert making.wait(30)
    other = threading.Thread(target=open_one, name="other")
    other.start()
    assert not opened.wait(0.2)
    go.set()
    for thread in (maker, other):
        thread.join(30)
    assert opened.is_set()


# Settings


def settings_of(cursor: sqlite3.Cursor) -> tuple[int, str]:
    """`synchronous` and `journal_mode`."""
    return tuple(cursor.execute(f"PRAGMA {one}").fetchone()[0] for one in ("synchronous", "journal_mode"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("durability", "journal_mode", "synchronous"),
    [("full", "wal", 2), ("normal", "wal", 1), ("full", "delete", 3), ("normal", "delete", 1)],
)
def test_every_thread_has_the_durability_asked_for(
    path: Path, durability: Any, journal_mode: Any, synchronous: int
) -> None:
    """`synchronous` belongs to a connection: that of each thread has it, NORMAL only where it was asked for, else FULL,
    and EXTRA where a commit is the removal of a journal.
    """
    storage = SQLiteStorage(path, durability=durability, journal_mode=journal_mode)
    seen: list[tuple[int, str]] = []

    def look() -> None:
        seen.append(storage._database.read(settings_of))

    look()
    for _ in range(3):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(30)
    storage.close()
    assert seen == [(synchronous, journal_mode)] * 4


def test_the_default_is_full(path: Path) -> None:
    """Without a word, nothing that was acknowledged may be lost."""
    storage = SQLiteStorage(path)
    assert storage._database.read(settings_of) == (2, "wal")
    storage.close()


@pytest.mark.parametrize("setting", [{"durability": "FULL"}, {"durability": 2}, {"journal_mode": "off"}])
def test_other_settings_are_refused(path: Path, setting: dict[str, Any]) -> None:
    """A setting that does not exist is named, and no file is made."""
    with pytest.raises(InvalidInput, match=f"^{next(iter(setting))}: "):
        SQLiteStorage(path, **setting)
    assert not path.exists()


def test_a_file_changes_its_journal_mode(path: Path) -> None:
    """A file that was made in one mode is turned to the other by the next one who opens it so."""
    for mode in ("wal", "delete", "wal"):
        storage = SQLiteStorage(path, journal_mode=mode)  # type: ignore[arg-type]
        make.listening(storage)
        assert storage._database.read(settings_of)[1] == mode
        storage.close()


@pytest.mark.parametrize(
    ("version", "journal_mode", "warns"),
    [
        ((3, 40, 1), "wal", True),
        ((3, 40, 1), "delete", False),
        ((3, 44, 5), "wal", True),
        ((3, 44, 6), "wal", False),
        ((3, 45, 0), "wal", True),
        ((3, 50, 6), "wal", True),
        ((3, 50, 7), "wal", False),
        ((3, 51, 2), "wal", True),
        ((3, 51, 3), "wal", False),
        ((3, 60, 0), "wal", False),
    ],
)
def test_the_warning_of_a_wal_bug(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: tuple[int, int, int],
    journal_mode: Any,
    warns: bool,
) -> None:
    """Where SQLite has the bug and the file a WAL, it is logged, once in a process, with what to do."""
    monkeypatch.setattr(connection_module, "_warned_of_wal_reset", False)
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    with caplog.at_level(logging.WARNING, "procore_hooks"):
        for name in ("one.db", "two.db"):
            SQLiteStorage(tmp_path / name, journal_mode=journal_mode).close()
    messages = [record.getMessage() for record in caplog.records if record.name == "procore_hooks"]
    assert len(messages) == warns
    assert all('journal_mode="delete"' in message and "3.51.3" in message for message in messages)


def test_an_sqlite_that_is_too_old(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with both versions, before a file is made."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    with pytest.raises(StorageError, match=r"3\.38 or newer"):
        SQLiteStorage(path)
    assert not path.exists()
