"""Failpoints: a process kills itself at a named step of the work, at the step's k-th occurrence.

Nothing of this is in the code under test. In a child process that is to die, functions are wrapped, and SQLite tells
of each statement before it runs it (`set_trace_callback`), together with what the thread is doing: opening the file,
emitting, or taking a turn.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from procore_hooks import SQLiteStorage
from procore_hooks._connection import Connection
from procore_hooks._dialling import Dialler
from procore_hooks._engine import Engine
from procore_hooks._sending import Sender
from procore_hooks.storage import sqlite
from procore_hooks.storage.sqlite import turn
from procore_hooks.storage.sqlite.connection import Database
from procore_hooks.storage.sqlite.turn import Turns

__all__ = ["OPENING", "STEPS", "Failpoint"]

OPENING: Final = (
    "migrate: before the journal mode",
    "migrate: before the first table",
    "migrate: in the middle",
    "migrate: before the commit",
    "migrate: after the commit",
)
# Whether a delivery that is under way at this step is sent twice: the last byte is out, and no result is recorded.
STEPS: Final[dict[str, bool]] = {
    "emit: before BEGIN": False,
    "emit: after the event row": False,
    "emit: after the deliveries": False,
    "emit: before the commit": False,
    "emit: after the commit": False,
    "claim: before BEGIN": False,
    "claim: before the commit": False,
    "claim: after the commit": False,
    "claim: before the claims are loaded": False,
    "claim: after the turn": False,
    "connect: before": False,
    "connect: after": False,
    "send: before the first byte": False,
    "send: after the last byte": True,
    "read: before the answer": True,
    "read: after the head": True,
    "read: after the body": True,
    "record: before the turn": True,
    "record: before the attempts": True,
    "record: after the attempts": True,
    "record: before the commit": True,
    "record: after the commit": False,
}

# What a thread is doing, and how the statement begins that comes right after a step.
_STATEMENTS: Final = {
    ("migrate", "PRAGMA journal_mode ="): "migrate: before the journal mode",
    ("migrate", "CREATE TABLE procore_hooks_schema"): "migrate: before the first table",
    ("migrate", "CREATE"): "migrate: in the middle",
    ("migrate", "COMMIT"): "migrate: before the commit",
    ("emit", "BEGIN IMMEDIATE"): "emit: before BEGIN",
    ("emit", "INSERT OR FAIL INTO procore_hooks_deliveries"): "emit: after the event row",
    ("emit", "UPDATE procore_hooks_queues"): "emit: after the deliveries",
    ("emit", "COMMIT"): "emit: before the commit",
    ("turn", "BEGIN IMMEDIATE"): "claim: before BEGIN",
    ("claim", "COMMIT"): "claim: before the commit",
    ("claim", "SELECT d.id, d.hook_id, d.attempt_count"): "claim: before the claims are loaded",
    ("record", "INSERT INTO procore_hooks_attempts"): "record: before the attempts",
    ("record", "UPDATE procore_hooks_deliveries SET state"): "record: after the attempts",
    ("record", "COMMIT"): "record: before the commit",
}
_AFTER_COMMIT: Final = {doing: f"{doing}: after the commit" for doing in ("migrate", "emit", "claim", "record")}


class Failpoint:
    """Kills this process, with -9, when `step` is reached for the `hit`-th time."""

    def __init__(self, step: str, hit: int) -> None:
        self._step = step
        self._left = hit
        self._thread = threading.local()

    def _reached(self, step: str | None) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    @property
    def _doing(self) -> str:
        return getattr(self._thread, "doing", "")

    @contextlib.contextmanager
    def _does(self, what: str) -> Iterator[None]:
        before, self._thread.doing = self._doing, what
        try:
            yield
        finally:
            self._thread.doing = before

    def arm(self) -> None:
        """Wrap what there is to wrap, in this process and for good."""
        self._wrap_storage()
        self._wrap_turns()
        self._wrap_sending()

    # The storage

    def _wrap_storage(self) -> None:
        connect, migrate, emit = Database.connect, sqlite.migrate, SQLiteStorage.emit

        def traced_connect(database: Database) -> sqlite3.Connection:
            connection = connect(database)
            connection.set_trace_callback(self._before_statement)
            return connection

        def watched(write: Callable[..., Any]) -> Callable[..., Any]:
            def watched_write(database: Database, *arguments: Any, **keywords: Any) -> Any:
                result = write(database, *arguments, **keywords)
                self._reached(_AFTER_COMMIT.get(self._doing))
                return result

            return watched_write

        Database.connect = traced_connect  # type: ignore[method-assign]
        Database.write = watched(Database.write)  # type: ignore[method-assign]
        sqlite.migrate = self._doing_it("migrate", migrate)  # type: ignore[attr-defined]
        SQLiteStorage.emit = self._doing_it("emit", emit)  # type: ignore[method-assign]

    def _doing_it(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with self._does(what):
                return function(*arguments)

        return call

    def _before_statement(self, statement: str) -> None:
        doing, begins = self._doing, statement.lstrip()
        for (where, beginning), step in _STATEMENTS.items():
            if where == doing and begins.startswith(beginning):
                self._reached(step)

    def _wrap_turns(self) -> None:
        take_turn, pick = Turns.turn, turn.pick

        def watched_turn(turns: Turns, settlements: Any, *arguments: Any) -> Any:
            if settlements:
                self._reached("record: before the turn")
            # A turn that records claims too: what is lost with it was sent already, so it is a step of recording.
            with self._does("record" if settlements else "turn"):
                return take_turn(turns, settlements, *arguments)

        def watched_pick(*arguments: Any) -> Any:
            picked = pick(*arguments)
            if picked and self._doing == "turn":
                self._thread.doing = "claim"
            return picked

        Turns.turn = watched_turn  # type: ignore[method-assign]
        turn.pick = watched_pick  # type: ignore[attr-defined]

    # Sending

    def _wrap_sending(self) -> None:
        self._around(Dialler, "connect", "connect: before", "connect: after")
        self._around(Connection, "exchange", "send: before the first byte", "read: after the head")
        self._around(Sender, "send", None, "read: after the body")
        write, received, take_turn = Connection._write, Connection.buffer_updated, Engine._turn

        def watched_write(connection: Connection, data: bytes | memoryview) -> None:
            write(connection, data)  # head and body at once, as all that this test sends
            self._reached("send: after the last byte")

        def watched_received(connection: Connection, nbytes: int) -> None:
            self._reached("read: before the answer")
            received(connection, nbytes)

        async def watched_turn(engine: Engine) -> Any:
            result = await take_turn(engine)
            if result is not None and result.claims and not result.settled:
                self._reached("claim: after the turn")
            return result

        Connection._write = watched_write  # type: ignore[method-assign]
        Connection.buffer_updated = watched_received  # type: ignore[method-assign]
        Engine._turn = watched_turn  # type: ignore[method-assign]

    def _around(self, owner: type, name: str, before: str | None, after: str | None) -> None:
        function: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def call(*arguments: Any) -> Any:
            self._reached(before)
            result = await function(*arguments)
            self._reached(after)
            return result

        setattr(owner, name, call)
