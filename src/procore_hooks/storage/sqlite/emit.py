"""Events and their deliveries, in one transaction."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from ..._core.models import Delivery, Emission, Event
from ...exceptions import Conflict, IdempotencyConflict, InvalidInput
from .._base import DROPPED, EmitRequest, EventIdTaken
from .history import get_delivery
from .hooks import require_hook
from .indexing import fills_up, index_deliveries
from .matching import VALUES, Match, MatchCache
from .quarters import Quarters
from .ready import ASLEEP
from .rows import EVENT_COLUMNS, event_from_row, event_row, stamp

__all__ = ["add_ping", "driver_connection", "emit_all", "savepoint"]

_INSERT_EVENT: Final = "INSERT INTO procore_hooks_events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# By the number of hooks. OR FAIL, since SQLite need not keep a copy of each page then to be able to take back this
# statement alone: whatever fails here takes back the whole emit.
_INSERT_FEW: Final = tuple(
    f"""
INSERT OR FAIL INTO procore_hooks_deliveries (hook_id, event_id, state, attempt_count, created_at, unindexed)
SELECT column1, ?, 0, 0, ?, 1 FROM {values}"""
    for values in VALUES
)
_INSERT_MANY: Final = """
INSERT OR FAIL INTO procore_hooks_deliveries
    (hook_id, event_id, state, attempt_count, created_at, completed_at, reason)
SELECT value ->> 0, :event, iif(value ->> 1 < 0, 4, 0), 0, :now,
    iif(value ->> 1 < 0, :now, NULL), iif(value ->> 1 < 0, :reason, NULL)
FROM json_each(:matches) ORDER BY key
"""
# Most emits find all queues ready already, and leave their pages alone.
_WAKE: Final = f"""
UPDATE procore_hooks_queues SET ready_at = iif(paused_until > :now, paused_until, 0) WHERE {ASLEEP} AND hook_id IN """
_WAKE_FEW: Final = tuple(_WAKE.replace(":now", "?") + values for values in VALUES)
_WAKE_MANY: Final = _WAKE + "(SELECT value ->> 0 FROM json_each(:matches))"
# The head keeps up with rows that are no fresh ones from the start (discarded, or a ping) while nothing fresh waits
# before them. So whatever lies above a head is fresh, or has something fresh before it. All of the hook's are in its
# index: whatever made it drop put them in.
_PASS: Final = """
UPDATE procore_hooks_queues SET head = (
    SELECT max(id) FROM procore_hooks_deliveries d
    WHERE d.hook_id = procore_hooks_queues.hook_id AND d.unindexed IS NULL)
WHERE hook_id = :hook AND NOT EXISTS (
    SELECT 1 FROM procore_hooks_deliveries d INDEXED BY procore_hooks_deliveries_hook
    WHERE d.hook_id = procore_hooks_queues.hook_id AND d.unindexed IS NULL AND d.id > procore_hooks_queues.head
        AND d.id < :before)
"""


def emit_all(
    cursor: sqlite3.Cursor, requests: Sequence[EmitRequest], now: int, matching: MatchCache, quarters: Quarters
) -> tuple[list[Emission], bool]:
    """Store them all, in the transaction of `cursor`. Returns, too, whether a queue may have been made ready."""
    quarters.note(cursor, now)
    emitted = [_emit(cursor, request, now, matching) for request in requests]
    return [emission for emission, _ in emitted], any(has_woken for _, has_woken in emitted)


def _emit(cursor: sqlite3.Cursor, request: EmitRequest, now: int, matching: MatchCache) -> tuple[Emission, bool]:
    if request.idempotency_key is not None:
        earlier = _earlier(cursor, request.idempotency_key, request.fingerprint)
        if earlier is not None:
            return earlier, False
    event = request.event
    match, is_asleep = matching.of(cursor, event, now)
    ids: tuple[int, ...] = ()
    uses = len(match.hook_ids) + (request.idempotency_key is not None)
    if uses:
        _insert_event(cursor, event, uses)
    if match.hook_ids:
        ids = _fan_out(cursor, event.id, match, is_asleep, now)
    if request.idempotency_key is not None:
        cursor.execute(
            "INSERT INTO procore_hooks_idempotency_keys VALUES (?, ?, ?, ?, ?)",
            (request.idempotency_key, request.fingerprint, event.id, json.dumps(ids), now),
        )
    return Emission(event, ids), is_asleep and bool(ids)


def _earlier(cursor: sqlite3.Cursor, key: str, fingerprint: bytes) -> Emission | None:
    row = cursor.execute(
        f"""SELECT k.fingerprint, k.delivery_ids, {EVENT_COLUMNS}
        FROM procore_hooks_idempotency_keys k JOIN procore_hooks_events e ON e.id = k.event_id WHERE k.key = ?""",
        (key,),
    ).fetchone()
    if row is None:
        return None
    if row[0] != fingerprint:
        raise IdempotencyConflict(f"idempotency_key: {key!r} was used before for another event; use a new key")
    return Emission(event_from_row(row[2:]), tuple(json.loads(row[1])))


def _insert_event(cursor: sqlite3.Cursor, event: Event, uses: int) -> None:
    try:
        cursor.execute(_INSERT_EVENT, event_row(event, uses))
    except sqlite3.IntegrityError as error:
        raise EventIdTaken(event.id) from error


def _fan_out(cursor: sqlite3.Cursor, event_id: int, match: Match, is_asleep: bool, now: int) -> tuple[int, ...]:
    number = len(match.hook_ids)
    if match.are_few:
        cursor.execute(_INSERT_FEW[number], (event_id, now, *match.hook_ids))
    else:
        cursor.execute(_INSERT_MANY, {"matches": match.as_json, "event": event_id, "now": now, "reason": DROPPED})
    # New rows take the numbers after the greatest one, and nobody else writes meanwhile.
    last = int(cursor.lastrowid or 0)
    ids = tuple(range(last - number + 1, last + 1))
    if is_asleep and match.are_few:
        cursor.execute(_WAKE_FEW[number], (now, now, *match.hook_ids))
    elif is_asleep:
        cursor.execute(_WAKE_MANY, {"matches": match.as_json, "now": now})
    if fills_up(ids):
        index_deliveries(cursor)
    for hook_id in match.dropping:
        cursor.execute(_PASS, {"hook": hook_id, "before": ids[0]})
    return ids


def add_ping(cursor: sqlite3.Cursor, hook_id: int, event: Event, now: datetime, quarters: Quarters) -> Delivery:
    """Store an event for one hook, due before all that waits, and end the hook's pause."""
    if require_hook(cursor, hook_id) != 1:
        raise Conflict(f"hook {hook_id} is disabled and delivers nothing: enable it first")
    _insert_event(cursor, event, 1)
    quarters.note(cursor, stamp(now))
    cursor.execute(
        """INSERT INTO procore_hooks_deliveries (hook_id, event_id, state, attempt_count, created_at)
        VALUES (?, ?, 0, 0, ?)""",
        (hook_id, event.id, stamp(now)),
    )
    delivery_id = int(cursor.lastrowid or 0)
    # Below 0, ahead of all that waits, and of earlier pings too.
    cursor.execute("UPDATE procore_hooks_deliveries SET due_at = -id WHERE id = ?", (delivery_id,))
    cursor.execute(_PASS, {"hook": hook_id, "before": delivery_id})
    cursor.execute(
        """UPDATE procore_hooks_queues SET paused_until = NULL,
        ready_at = iif(sweep_from IS NULL AND in_flight < iif(failures > 0, 1, max_in_flight), 0, NULL)
        WHERE hook_id = ?""",
        (hook_id,),
    )
    return get_delivery(cursor, delivery_id)


def driver_connection(connection: Any, path: str) -> sqlite3.Connection:
    """The `sqlite3.Connection` behind a caller's connection: its own, Django's or SQLAlchemy's, on the same file."""
    found = connection
    if hasattr(found, "ensure_connection"):  # Django
        found.ensure_connection()
        found = found.connection
    elif not isinstance(found, sqlite3.Connection):  # a SQLAlchemy Session, then its Connection, then the driver's
        if callable(getattr(found, "connection", None)):
            found = found.connection()
        found = getattr(getattr(found, "connection", found), "driver_connection", None)
    if not isinstance(found, sqlite3.Connection):
        raise InvalidInput(
            "connection", f"a {type(connection).__name__} is no sqlite3, SQLAlchemy or Django connection to SQLite"
        )
    files = [row[2] for row in found.execute("PRAGMA database_list") if row[1] == "main"]
    if not files or not files[0] or not os.path.samefile(files[0], path):
        raise InvalidInput("connection", f"it is open on {files[0] or 'memory'!r}, the hooks are in {path!r}")
    return found


@contextlib.contextmanager
def savepoint(connection: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
    """A cursor on the caller's connection: an emit that raises leaves nothing, and the caller's transaction as it was.

    A connection that starts transactions by itself (the driver's default) has one started here, to be committed by
    the caller. One in autocommit mode commits the emit on its own, as it does every statement.
    """
    cursor = sqlite3.Cursor(connection)
    cursor.row_factory = None
    # Since Python 3.12 `autocommit` may say True, and the isolation level then says nothing.
    is_autocommit = connection.isolation_level is None or getattr(connection, "autocommit", None) is True
    if not connection.in_transaction and not is_autocommit:
        # The lock at once: a transaction that reads first may find that it can no longer write.
        cursor.execute("BEGIN IMMEDIATE")
    cursor.execute("SAVEPOINT procore_hooks_emit")
    try:
        yield cursor
    except BaseException:
        # A full disk may have rolled back everything already.
        if connection.in_transaction:
            cursor.execute("ROLLBACK TO procore_hooks_emit")
            cursor.execute("RELEASE procore_hooks_emit")
        raise
    cursor.execute("RELEASE procore_hooks_emit")
