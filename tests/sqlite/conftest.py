"""A storage on a file of its own, and ways to look at it from outside."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import KeyRing, SQLiteStorage

Steps = Callable[[Callable[[], object]], int]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hooks.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SQLiteStorage]:
    # "normal" spares the disk: no test here cuts the power.
    storage = SQLiteStorage(path, durability="normal")
    yield storage
    storage.close()


@pytest.fixture
def open_with(path: Path) -> Iterator[Callable[..., SQLiteStorage]]:
    """Opens the file with a key ring or without, as often as it is called; closes all in the end."""
    opened: list[SQLiteStorage] = []

    def open_file(keys: KeyRing | None, **options: Any) -> SQLiteStorage:
        opened.append(SQLiteStorage(path, durability="normal", keys=keys, **options))
        return opened[-1]

    yield open_file
    for storage in opened:
        storage.close()


def own_connection(storage: SQLiteStorage) -> sqlite3.Connection:
    """The connection that the storage uses in this thread."""
    return storage._database.read(lambda cursor: cursor.connection)


@pytest.fixture
def connection_of() -> Callable[[SQLiteStorage], sqlite3.Connection]:
    return own_connection


@pytest.fixture
def outside(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is none of the storage's, for any thread; it waits for no lock."""
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)) as other:
        yield other


@pytest.fixture
def rows(path: Path) -> Callable[..., list[Any]]:
    """Runs one statement on a connection of its own, and gives the rows."""

    def run(statement: str, *parameters: object) -> list[Any]:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    return run


@pytest.fixture
def steps_of() -> Callable[[SQLiteStorage, Callable[[], object]], int]:
    """How many instructions SQLite's machine runs for a call: work, not time."""

    def count(storage: SQLiteStorage, call: Callable[[], object]) -> int:
        connection, grain, ticks = own_connection(storage), 20, 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        connection.set_progress_handler(tick, grain)
        try:
            call()
        finally:
            connection.set_progress_handler(None, grain)
        return ticks * grain

    return count


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Starts a call in a thread, which the test's end waits for."""
    started: list[threading.Thread] = []

    def start(call: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=call)
        started.append(thread)
        thread.start()
        return thread

    yield start
    for thread in started:
        thread.join(30)
        assert not thread.is_alive()
