"""A connection for each thread, and none too many."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import SQLiteStorage, StorageError
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

InThread = Callable[[Callable[[], object]], threading.Thread]


def descriptors(path: Path) -> int:
    """How many files this process has open in the folder of `path`."""
    links = Path("/proc/self/fd")
    if not links.exists():
        pytest.skip("this system does not tell which files a process has open")
    count = 0
    for link in links.iterdir():
        with contextlib.suppress(OSError):
            count += str(link.readlink()).startswith(f"{path.parent}{os.sep}")
    return count


def test_each_thread_has_a_connection_of_its_own(storage: SQLiteStorage, connection_of: Any) -> None:
    """A thread keeps its connection from call to call, and shares it with no other thread that lives."""
    mine = connection_of(storage)
    met, go = threading.Barrier(4), threading.Event()
    seen: list[sqlite3.Connection] = []

    def look() -> None:
        seen.append(connection_of(storage))
        met.wait(30)
        assert connection_of(storage) is seen[seen.index(connection_of(storage))]
        go.wait(30)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    met.wait(30)
    go.set()
    for thread in threads:
        thread.join(30)
    assert connection_of(storage) is mine
    assert len({id(one) for one in (mine, *seen)}) == 4


def test_connections_of_ended_threads_are_closed(storage: SQLiteStorage, path: Path) -> None:
    """Two hundred threads, one after the other, leave no more open than a few."""
    make.listening(storage)
    before = descriptors(path)
    for _ in range(200):
        thread = threading.Thread(target=make.emit, args=(storage,))
        thread.start()
        thread.join(30)
    assert len(storage._database._opened) <= 2
    assert descriptors(path) <= before + 3
    assert storage.count_deliveries(None, T0) == {"enqueued": 200}


def test_opening_and_closing_leaves_nothing_open(path: Path) -> None:
    """However often a file is opened, used by threads and closed, no descriptor is left."""
    before = descriptors(path)
    for _ in range(20):
        storage = SQLiteStorage(path, durability="normal")
        threads = [threading.Thread(target=make.listening, args=(storage,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        storage.close()
        assert descriptors(path) == before


def test_failed_openings_leave_nothing_open(path: Path) -> None:
    """A file that is refused is not kept open."""
    path.write_bytes(b"Once upon a time " * 100)
    before = descriptors(path)
    for _ in range(20):
        with pytest.raises(StorageError):
            SQLiteStorage(path)
    assert descriptors(path) == before


@contextlib.contextmanager
def held(connection: sqlite3.Connection) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Stops the connection's next statement midway: the first event says that it has begun, the second lets it go."""
    begun, go = threading.Event(), threading.Event()

    def wait() -> int:
        begun.set()
        return 0 if go.wait(30) else 1

    connection.set_progress_handler(wait, 1)
    try:
        yield begun, go
    finally:
        go.set()


def test_close_waits_for_a_call_under_way(storage: SQLiteStorage, connection_of: Any, in_thread: InThread) -> None:
    """A call that another thread began before `close` ends as if there were no `close`; a later one is refused."""
    hook = make.listening(storage)
    ready, start = threading.Event(), threading.Event()
    connections: list[sqlite3.Connection] = []
    seen: list[object] = []

    def work() -> None:
        connections.append(connection_of(storage))
        ready.set()
        start.wait(30)
        seen.append(storage.get_hook(hook.id))
        with pytest.raises(StorageError, match="closed"):
            storage.get_hook(hook.id)
        seen.append("refused")

    thread = in_thread(work)
    assert ready.wait(30)
    with held(connections[0]) as (begun, go):
        start.set()
        assert begun.wait(30)
        closing = in_thread(storage.close)
        closing.join(0.2)
        assert closing.is_alive()
        go.set()
        closing.join(30)
    thread.join(30)
    assert seen == [hook, "refused"]


def test_close_waits_for_a_transaction_under_way(storage: SQLiteStorage, in_thread: InThread, path: Path) -> None:
    """What a call stores, it stores whole, also when `close` comes in the middle."""
    begun, go, done = threading.Event(), threading.Event(), []

    def change(cursor: sqlite3.Cursor) -> None:
        cursor.execute("UPDATE procore_hooks_turns SET number = 7")
        begun.set()
        assert go.wait(30)
        cursor.execute("UPDATE procore_hooks_turns SET number = number + 1")

    def work() -> None:
        storage._database.write(change)
        done.append(True)

    in_thread(work)
    assert begun.wait(30)
    closing = in_thread(storage.close)
    closing.join(0.2)
    assert closing.is_alive()
    go.set()
    closing.join(30)
    assert not closing.is_alive()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT number FROM procore_hooks_turns").fetchone() == (8,)


def test_close_while_a_thread_is_opening(
    storage: SQLiteStorage, path: Path, in_thread: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is about to open its connection when another one closes the storage gets an error, and leaves
    nothing open.
    """
    before = descriptors(path)
    begun, go, refused = threading.Event(), threading.Event(), []
    connect = storage._database.connect

    def slow_connect() -> sqlite3.Connection:
        begun.set()
        assert go.wait(30)
        return connect()

    monkeypatch.setattr(storage._database, "connect", slow_connect)

    def work() -> None:
        try:
            while True:
                make.emit(storage)
        except StorageError as error:
            refused.append(str(error))

    thread = in_thread(work)
    assert begun.wait(30)
    closing = in_thread(storage.close)
    go.set()
    closing.join(30)
    thread.join(30)
    # Whether the second call still came before the close is left to the scheduler; what comes after it is refused.
    assert len(refused) <= 1
    with pytest.raises(StorageError):
        make.emit(storage)
    assert all("closed" in text for text in refused)
    assert storage._database._opened == {}
    assert descriptors(path) < before


def test_closing_twice(storage: SQLiteStorage) -> None:
    """`close` may be called again, from any thread, and does nothing then."""
    storage.close()
    storage.close()
    thread = threading.Thread(target=storage.close)
    thread.start()
    thread.join(30)


def test_what_was_rolled_back_is_not_remembered(
    storage: SQLiteStorage, in_thread: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn whose transaction fails at the end leads no turn of another thread astray, not even one that begins the
    moment the lock is free: the attempts that it stores are in the history.
    """
    make.listening(storage, max_in_flight=2)
    make.emit_many(storage, 2)
    one, two = make.turn(storage).claims
    write = storage._database.write

    def failing(work: Callable[..., object], *arguments: object, wait: bool) -> object:
        def work_in_vain(cursor: sqlite3.Cursor) -> None:
            work(cursor, *arguments)
            raise StorageError("no space is left")

        try:
            return write(work_in_vain)
        except StorageError:
            monkeypatch.undo()
            in_thread(lambda: make.turn(storage, make.accepted(two, at(1)), now=at(1))).join(30)
            raise

    monkeypatch.setattr(storage._database, "write", failing)
    with pytest.raises(StorageError, match="no space"):
        make.turn(storage, make.accepted(one, at(1)), now=at(1))
    (attempt,) = storage.get_delivery(two.delivery_id).attempts
    assert attempt.outcome == "ok"
    assert storage.get_delivery(one.delivery_id).attempts == ()
    make.turn(storage, make.accepted(one, at(2)), now=at(2))
    assert [a.outcome for a in storage.get_delivery(one.delivery_id).attempts] == ["ok"]
