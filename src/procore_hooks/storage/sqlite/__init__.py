"""A storage in one SQLite file: durable, for one process or several on one machine."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar, TypeVarTuple

from ..._core.checks import check_choice
from ..._core.claims import ClockReading, Settlement, Turn
from ..._core.models import Delivery, DeliveryStatus, Emission, Event, Hook, Trigger
from ...exceptions import InvalidInput
from ...keyring import KeyRing
from .._base import Changes, DeliveryQuery, EmitRequest, HookQuery, Wanted
from . import emit, history, hooks
from .connection import Database, Durability, JournalMode, storage_error
from .encryption import reencrypt
from .indexing import with_index
from .matching import MatchCache
from .quarters import Quarters
from .rows import stamp
from .schema import migrate
from .sweeping import sweep
from .turn import Turns

__all__ = ["SQLiteStorage"]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class SQLiteStorage:
    """Hooks, events and deliveries in one SQLite file, made if it is not there.

    Safe for many threads and several processes at once. The tables' names start with ``procore_hooks_``, so the file
    may be the app's own database, and events can join its transactions. A new file holds secrets, so only its owner may
    read it; a file that is there keeps its permissions. After a fork, parent and child may both go on with this object.

    Args:
        path: the file. Its folder must exist and be writable.
        durability: ``"full"`` loses nothing that was acknowledged, even when the power goes. ``"normal"`` is faster
            and may lose the last commits then, though not when the process dies.
        journal_mode: ``"wal"``, or ``"delete"``, which is slower and spares the file a bug of older SQLite releases.
        busy_timeout: how long to wait for other writers, in seconds, before `StorageBusy`.
        keys: encrypts the headers and signing secrets of hooks whenever they are written. Those that are plain already
            stay so until then, or until `reencrypt`, and are read all the same. Without it they are stored as they are.

    Raises:
        StorageCorrupt: the file is not a database.
        SchemaTooNew: a newer release wrote it.
        StorageError: it cannot be opened or written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        journal_mode: JournalMode = "wal",
        busy_timeout: float = 30.0,
        keys: KeyRing | None = None,
    ) -> None:
        check_choice("durability", durability, ("full", "normal"))
        check_choice("journal_mode", journal_mode, ("wal", "delete"))
        if keys is not None and not isinstance(keys, KeyRing):
            raise InvalidInput("keys", f"a value of type {type(keys).__name__} is no KeyRing: use KeyRing(...) or None")
        self._keys = keys
        self._database = Database(path, durability, journal_mode, busy_timeout)
        self._turns = Turns(self._database, keys)
        self._matching = MatchCache()
        self._quarters = Quarters()
        self._lock = threading.Lock()
        self._wakes: tuple[Callable[[], None], ...] = ()
        try:
            migrate(self._database)
        except BaseException:
            self._database.close()
            raise

    def __repr__(self) -> str:
        return f"SQLiteStorage({self._database.path!r})"

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See `Storage.subscribe`."""
        self._database.check_open()
        with self._lock:
            self._wakes = (*self._wakes, wake)

        def end() -> None:
            with self._lock:
                self._wakes = tuple(one for one in self._wakes if one is not wake)

        return end

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()

    def _write_and_wake(self, work: Callable[[sqlite3.Cursor, *Arguments], T], *arguments: *Arguments) -> T:
        result = self._write_by_index(work, *arguments)
        self._wake()
        return result

    def _write_by_index(self, work: Callable[[sqlite3.Cursor, *Arguments], T], *arguments: *Arguments) -> T:
        return self._database.write(with_index, work, *arguments)

    # Hooks

    def add_hook(self, hook: Hook) -> Hook:
        """See `Storage.add_hook`."""
        return self._database.write(hooks.add_hook, hook, self._keys)

    def get_hook(self, hook_id: int) -> Hook:
        """See `Storage.get_hook`."""
        return self._database.read(hooks.get_hook, hook_id, self._keys)

    def list_hooks(self, query: HookQuery) -> list[Hook]:
        """See `Storage.list_hooks`."""
        return self._database.read(hooks.list_hooks, query, self._keys)

    def update_hook(self, hook_id: int, changes: Changes, now: datetime) -> Hook:
        """See `Storage.update_hook`."""
        return self._write_and_wake(hooks.update_hook, hook_id, changes, now, self._keys)

    def enable_hook(self, hook_id: int, now: datetime) -> Hook:
        """See `Storage.enable_hook`."""
        return self._write_and_wake(hooks.enable_hook, hook_id, now, self._keys)

    def disable_hook(self, hook_id: int, now: datetime, drop_reason: str | None) -> Hook:
        """See `Storage.disable_hook`."""
        hook = self._write_by_index(hooks.disable_hook, hook_id, now, drop_reason, self._keys)
        if drop_reason is not None:
            self._sweep(hook_id, now)
        return hook

    def delete_hook(self, hook_id: int, now: datetime, reason: str) -> None:
        """See `Storage.delete_hook`."""
        self._database.write(hooks.delete_hook, hook_id, now, reason)
        self._sweep(hook_id, now)

    def _sweep(self, hook_id: int, now: datetime) -> None:
        # What is dropped is decided with the first commit. Should this process die here, the next turn goes on.
        swept = 1
        while swept:
            swept = self._write_by_index(sweep, stamp(now), stamp(now), hook_id)

    def reencrypt(self) -> int:
        """Encrypt with the current key what is plain or encrypted with an older one. Returns how many hooks that was.

        It goes on in small transactions, beside emitters and dispatchers, and may be cut off at any point and called
        again. Once it returns, and no process writes with an older key any more, older keys may go.

        Raises:
            InvalidInput: the storage was opened without keys.
            SecretUnreadable: a hook does not decrypt. It was left as it is, and all others are done.
        """
        if self._keys is None:
            raise InvalidInput("keys", "the storage was opened without: use SQLiteStorage(path, keys=KeyRing(...))")
        return reencrypt(self._database, self._keys)

    # Triggers

    def add_trigger(self, hook_id: int, resource: str, action: str) -> Trigger:
        """See `Storage.add_trigger`."""
        return self._database.write(hooks.add_trigger, hook_id, resource, action)

    def list_triggers(self, hook_id: int, after: int, limit: int) -> list[Trigger]:
        """See `Storage.list_triggers`."""
        return self._database.snapshot(hooks.list_triggers, hook_id, after, limit)

    def delete_trigger(self, trigger_id: int) -> None:
        """See `Storage.delete_trigger`."""
        self._database.write(hooks.delete_trigger, trigger_id)

    def replace_triggers(self, hook_id: int, wanted: Wanted) -> list[Trigger]:
        """See `Storage.replace_triggers`."""
        return self._database.write(hooks.replace_triggers, hook_id, wanted)

    # Events

    def emit(self, requests: Sequence[EmitRequest], now: datetime, connection: object | None) -> list[Emission]:
        """See `Storage.emit`."""
        if connection is not None:
            return self._emit_within(connection, requests, now)
        at = stamp(now)
        if not self._matching.may_be_wanted(requests) and not self._database.read(
            self._matching.are_wanted, requests, at
        ):
            return [Emission(request.event) for request in requests]
        emissions, has_woken = self._database.write(emit.emit_all, requests, at, self._matching, self._quarters)
        self._quarters.remember(at)
        if has_woken:
            self._turns.expect()
        self._wake()
        return emissions

    def _emit_within(self, connection: object, requests: Sequence[EmitRequest], now: datetime) -> list[Emission]:
        try:
            caller = emit.driver_connection(connection, self._database.path)
            with emit.savepoint(caller) as cursor:
                emissions, _ = emit.emit_all(cursor, requests, stamp(now), self._matching, self._quarters)
                return emissions
        except sqlite3.Error as error:
            raise storage_error(error, self._database.path) from error

    def add_ping(self, hook_id: int, event: Event, now: datetime) -> Delivery:
        """See `Storage.add_ping`."""
        return self._write_and_wake(emit.add_ping, hook_id, event, now, self._quarters)

    # Deliveries

    def list_deliveries(self, query: DeliveryQuery) -> list[Delivery]:
        """See `Storage.list_deliveries`."""
        return self._database.snapshot(history.list_deliveries, query)

    def get_delivery(self, delivery_id: int) -> Delivery:
        """See `Storage.get_delivery`."""
        return self._database.snapshot(history.get_delivery, delivery_id)

    def payload_version_of(self, hook_id: int) -> str:
        """See `Storage.payload_version_of`."""
        return self._database.read(history.payload_version_of, hook_id)

    def redeliver(self, delivery_id: int, now: datetime) -> Delivery:
        """See `Storage.redeliver`."""
        return self._write_and_wake(history.redeliver, delivery_id, now, self._quarters)

    def recover(self, hook_id: int, since: datetime, until: datetime, now: datetime) -> int:
        """See `Storage.recover`."""
        return self._write_and_wake(history.recover, hook_id, since, until, now, self._quarters)

    def prune(self, before: datetime) -> int:
        """See `Storage.prune`."""
        return history.prune(self._database, before)

    def count_deliveries(self, hook_id: int | None, since: datetime) -> dict[DeliveryStatus, int]:
        """See `Storage.count_deliveries`."""
        return self._database.read(history.count_deliveries, hook_id, since)

    def count_in_buckets(
        self, hook_id: int | None, since: datetime, width: timedelta, number: int
    ) -> list[dict[DeliveryStatus, int]]:
        """See `Storage.count_in_buckets`."""
        return self._database.read(history.count_in_buckets, hook_id, since, width, number)

    # Dispatch

    def turn(
        self,
        settlements: Sequence[Settlement],
        *,
        now: datetime,
        due_by: datetime,
        lease: timedelta,
        capacity: int,
        reading: ClockReading | None = None,
        wait: bool = True,
    ) -> Turn:
        """See `Storage.turn`."""
        turn = self._turns.turn(settlements, now, due_by, lease, capacity, reading, wait)
        if turn.next_due_at is not None and turn.next_due_at <= now:
            # There is more to do than this dispatcher has room for.
            self._wake()
        return turn
