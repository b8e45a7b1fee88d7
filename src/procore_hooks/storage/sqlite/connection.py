"""One SQLite file, a connection for each thread, and driver errors turned into ours.

SQLite's locks are those of a process, and what it remembers of them is not true any more in a forked child: a child
that inherits an open file may write where its parent, or a third process, does not look, and rows are lost without a
word. So just before a fork all connections are closed, once the calls that use them are done, and parent and child
open new ones.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeVar, TypeVarTuple

import attrs

from ...exceptions import InvalidInput, StorageBusy, StorageCorrupt, StorageError, StorageFull

__all__ = ["Database", "Durability", "JournalMode", "storage_error"]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
Durability = Literal["full", "normal"]
JournalMode = Literal["wal", "delete"]

_log = logging.getLogger("procore_hooks")

# What SQLite says, besides SQLITE_FULL, where a disk is full or a limit on the size of files is reached.
_NO_SPACE: Final = ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHMSIZE")
_OLDEST_SQLITE: Final = (3, 38, 0)  # the first with the operators -> and ->> on JSON
_LONGEST_WAIT_AT_FORK: Final = 10.0  # seconds; no call of ours should take that long
# Connections that are open after a fork all the same: it came from within a call, or from C code that says nothing of
# it. The child must not use them, and not close them either, since closing could write: they are kept, untouched.
_ABANDONED: Final[list[object]] = []
# Whoever closes a file loses the locks that SQLite holds on it for this process. So nobody here may open a file by
# SQLite while another thread is still making it, or while this process forks.
_opening_a_file: Final = threading.Lock()
_databases: Final[weakref.WeakSet[Database]] = weakref.WeakSet()
_warned_of_wal_reset = False


def storage_error(error: sqlite3.Error, path: str) -> StorageError:
    """The error of ours that says what `error` says."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    extended = getattr(error, "sqlite_errorname", None) or ""
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageBusy(f"{path} stayed locked by another connection; is a long transaction open on it?")
    if code == sqlite3.SQLITE_FULL or extended in _NO_SPACE:
        return StorageFull(f"{path} could not be written: no space is left, or the file may not grow ({error})")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StorageCorrupt(f"{path} is not an SQLite database, or a damaged one ({error})")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StorageError(f"{path} cannot be opened: is it a file, does its folder exist, and may it be written to?")
    if code == sqlite3.SQLITE_READONLY:
        return StorageError(f"{path} may not be written to: look at the permissions of the file and its folder")
    return StorageError(f"{path}: {error}")


@attrs.define(eq=False)
class _Opened:
    connection: sqlite3.Connection
    thread: threading.Thread
    # Held while the connection is in use, so that close() cannot pull it away from another thread.
    in_use: threading.Lock = attrs.field(factory=threading.Lock)
    is_closed: bool = False
    # Whether it is set up to wait for other connections. Kept as it is until it is to be otherwise, since to set it is
    # a statement, too.
    waits: bool = True


class Database:
    """A file and its connections. Safe to use from any thread, and after a fork from the child too."""

    def __init__(
        self, path: str | os.PathLike[str], durability: Durability, journal_mode: JournalMode, busy_timeout: float
    ) -> None:
        text = os.fspath(path) if isinstance(path, os.PathLike) else path
        if not isinstance(text, str) or not text or "\0" in text or text == ":memory:" or text.startswith("file:"):
            raise InvalidInput(
                "path", f"{text!r} is not the path of a file; MemoryStorage() keeps everything in memory"
            )
        is_number = isinstance(busy_timeout, int | float) and not isinstance(busy_timeout, bool)
        if not is_number or not 0 <= busy_timeout <= 86_400:
            raise InvalidInput("busy_timeout", f"{busy_timeout!r} is not a number of seconds from 0 to 86400: use 30")
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise StorageError(f"SQLite {sqlite3.sqlite_version} is too old: 3.38 or newer is needed")
        self.path: str = str(Path(text).absolute())
        self._durability = durability
        self._journal_mode = journal_mode
        self._busy_timeout = busy_timeout
        self._closed = False
        self._forget_connections()
        _warn_of_wal_reset(journal_mode)
        with _opening_a_file:
            _make_private(self.path)
            _databases.add(self)

    def _forget_connections(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[int, _Opened] = {}
        # Last: another thread of a forked child that sees this number uses what is above.
        self._pid = os.getpid()

    def read(self, work: Callable[[sqlite3.Cursor, *Arguments], T], *arguments: *Arguments, wait: bool = True) -> T:
        """What `work(cursor, *arguments)` returns, outside any transaction: each statement sees a state of its own.

        With a WAL reading waits for nobody but whoever mends it after a crash.
        """
        return self._run("", work, arguments, wait)

    def snapshot(self, work: Callable[[sqlite3.Cursor, *Arguments], T], *arguments: *Arguments) -> T:
        """What `work(cursor, *arguments)` returns, in a read transaction: all its statements see one state."""
        return self._run("BEGIN", work, arguments, True)

    def write(self, work: Callable[[sqlite3.Cursor, *Arguments], T], *arguments: *Arguments, wait: bool = True) -> T:
        """What `work(cursor, *arguments)` returns, in a write transaction: committed, or rolled back if it raises.

        The lock is taken at once: a transaction that reads first and then finds the lock gone cannot be saved. Without
        `wait` it is `StorageBusy` where that would have to wait for another connection.
        """
        if not wait and self._journal_mode != "wal":
            raise StorageBusy(f"{self.path} has no WAL: whoever writes waits for those who read")
        return self._run("BEGIN IMMEDIATE", work, arguments, wait)

    # A function is called, where a context manager would read as well: one costs an emit 4 % more.
    def _run(
        self, begin: str, work: Callable[[sqlite3.Cursor, *Arguments], T], arguments: tuple[*Arguments], wait: bool
    ) -> T:
        while True:
            opened = self._of_this_thread()
            with opened.in_use:
                self.check_open()
                if opened.is_closed:
                    continue  # a fork came in between
                cursor = opened.connection.cursor()
                try:
                    if opened.waits is not wait:
                        cursor.execute(f"PRAGMA busy_timeout = {round(self._busy_timeout * 1000) if wait else 0}")
                        opened.waits = wait
                    if begin:
                        cursor.execute(begin)
                    result = work(cursor, *arguments)
                    if begin:
                        cursor.execute("COMMIT")
                except BaseException as error:
                    if opened.connection.in_transaction:
                        with contextlib.suppress(sqlite3.Error):
                            opened.connection.rollback()
                    if isinstance(error, sqlite3.Error):
                        raise storage_error(error, self.path) from error
                    raise
                return result

    def checkpoint(self, wait: bool) -> None:
        """Copy what is in the WAL, if there is one, into the file. Nobody waits for it, nor it for anybody, so `wait`
        is only what the connection happens to be set up for.
        """
        # What goes wrong here goes wrong again where it matters: at the next commit.
        with contextlib.suppress(StorageError):
            self.read(lambda cursor: cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall(), wait=wait)

    def _of_this_thread(self) -> _Opened:
        if self._pid != os.getpid():
            self.abandon_connections()
        opened = self._opened.get(threading.get_ident())
        return self._open() if opened is None or opened.thread is not threading.current_thread() else opened

    def prepare_fork(self) -> None:
        """Close what can be closed, and open nothing until the fork is done."""
        self._lock.acquire()
        for ident, one in list(self._opened.items()):
            # Where this very thread forks in the midst of a call, it would wait for itself.
            patience = 0.0 if one.thread is threading.current_thread() else _LONGEST_WAIT_AT_FORK
            if one.in_use.acquire(timeout=patience):
                one.connection.close()
                one.is_closed = True
                one.in_use.release()
                del self._opened[ident]

    def go_on_after_fork(self) -> None:
        """In the parent: open connections again as they are needed."""
        self._lock.release()

    def abandon_connections(self) -> None:
        """In the child: take over nothing that is open. Not even the lock: a thread that is not there may hold it."""
        _ABANDONED.append(self._opened)
        self._forget_connections()

    def check_open(self) -> None:
        """Raise `StorageError` if `close` was called."""
        if self._closed:
            raise StorageError(f"the storage of {self.path} is closed")

    def _open(self) -> _Opened:
        with self._lock:
            self.check_open()
            for ident, other in list(self._opened.items()):
                if not other.thread.is_alive():
                    del self._opened[ident]
                    other.connection.close()
            try:
                connection = self.connect()
            except sqlite3.Error as error:
                raise storage_error(error, self.path) from error
            opened = _Opened(connection, threading.current_thread())
            self._opened[threading.get_ident()] = opened
        return opened

    def connect(self) -> sqlite3.Connection:
        """A new connection, set up. `synchronous` and the like are settings of a connection, not of the file."""
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            cursor = connection.cursor()
            # In WAL mode NORMAL loses acknowledged commits at a power loss; without a WAL it can damage the file, and
            # FULL loses the last commit, whose journal may be back: EXTRA syncs the folder that it was removed from.
            full = "FULL" if self._journal_mode == "wal" else "EXTRA"
            cursor.execute(f"PRAGMA synchronous = {full if self._durability == 'full' else 'NORMAL'}")
            cursor.execute("PRAGMA temp_store = MEMORY")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def set_journal_mode(self) -> None:
        """Set it as asked for. Unlike other settings it is one of the file: once is enough, for all connections."""
        self.read(self._set_journal_mode)

    def _set_journal_mode(self, cursor: sqlite3.Cursor) -> None:
        # Reading it first: setting it anew would need the lock each time. While another process is switching, SQLite
        # says "busy" at once, without waiting for its timeout.
        mode, give_up = self._journal_mode, time.monotonic() + self._busy_timeout
        while True:
            try:
                if cursor.execute("PRAGMA journal_mode").fetchone()[0] != mode:
                    cursor.execute(f"PRAGMA journal_mode = {mode}")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.005)

    def close(self) -> None:
        """Close all connections; those that another thread is using, once it is done with them."""
        if self._pid != os.getpid():
            self.abandon_connections()
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, {}
        for one in opened.values():
            with one.in_use:
                one.connection.close()


def _make_private(path: str) -> None:
    """Make the file, if it is not there, so that its owner alone may read it: it will hold secrets.

    SQLite makes it as the umask says, and its WAL and journal with the permissions that the file has.
    """
    with contextlib.suppress(OSError):  # what is wrong with the path, SQLite will find and tell
        os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


class _Fork:
    """What this process does before and after it forks."""

    def __init__(self) -> None:
        self._prepared: list[Database] = []

    def before(self) -> None:
        _opening_a_file.acquire()
        self._prepared = list(_databases)
        for database in self._prepared:
            database.prepare_fork()

    def after_in_parent(self) -> None:
        for database in self._prepared:
            database.go_on_after_fork()
        self._prepared = []
        _opening_a_file.release()

    def after_in_child(self) -> None:
        for database in self._prepared:
            database.abandon_connections()
        self._prepared = []
        if _opening_a_file.locked():
            _opening_a_file.release()


if hasattr(os, "register_at_fork"):
    _fork = _Fork()
    os.register_at_fork(before=_fork.before, after_in_parent=_fork.after_in_parent, after_in_child=_fork.after_in_child)


def _warn_of_wal_reset(journal_mode: JournalMode) -> None:
    global _warned_of_wal_reset
    version = sqlite3.sqlite_version_info
    safe = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    if journal_mode == "wal" and not safe and not _warned_of_wal_reset:
        _warned_of_wal_reset = True
        _log.warning(
            "SQLite %s has a rare bug that can damage a WAL database with several writers (fixed in 3.51.3, 3.50.7 and "
            '3.44.6); upgrade it, or use SQLiteStorage(path, journal_mode="delete") at some cost in speed',
            sqlite3.sqlite_version,
        )
