"""The history: lists, single deliveries, redelivery, pruning, counts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from ..._core.models import Attempt, Delivery, DeliveryStatus
from ..._core.states import WAITING
from ...exceptions import Conflict, NotFound
from .._base import DeliveryQuery
from .connection import Database
from .hooks import require_hook
from .indexing import UNINDEXED
from .quarters import QUARTER, Quarters
from .ready import READY
from .rows import ATTEMPTS_PER_DELIVERY, EVENT_COLUMNS, STATES, attempt_from_row, delivery_from_row, stamp
from .schema import FAILING

__all__ = [
    "count_deliveries",
    "count_in_buckets",
    "get_delivery",
    "list_deliveries",
    "payload_version_of",
    "prune",
    "recover",
    "redeliver",
]

_SELECT: Final = f"""
SELECT d.id, d.hook_id, d.state, d.attempt_count, d.created_at, d.completed_at, d.due_at, d.lease_until,
    d.redelivery_of, d.reason, q.enabled, q.paused_until, {EVENT_COLUMNS}
FROM procore_hooks_deliveries d%s CROSS JOIN procore_hooks_events e ON e.id = d.event_id
    CROSS JOIN procore_hooks_queues q ON q.hook_id = d.hook_id
"""
_ATTEMPTS: Final = f"""
SELECT a.id, a.outcome, %s, a.signature, a.response_status, a.response_headers, %s, a.response_error, a.started_at,
    a.completed_at, r.url, r.headers
FROM json_each(?) j CROSS JOIN procore_hooks_attempts a
    ON a.id > j.value * {ATTEMPTS_PER_DELIVERY} AND a.id < (j.value + 1) * {ATTEMPTS_PER_DELIVERY}
    CROSS JOIN procore_hooks_requests r ON r.id = a.request_id
ORDER BY a.id
"""
_IN_LISTS: Final = _ATTEMPTS % ("NULL", "NULL")
_IN_FULL: Final = _ATTEMPTS % ("a.request_body", "a.response_body")
_FAILING: Final[frozenset[DeliveryStatus]] = frozenset({"retrying", "failed", "discarded"})
_PRUNED_AT_ONCE: Final = 500
# From the first delivery of that quarter of an hour on, and not from the first of all. Each way is named: what ANALYZE
# found in a file with one busy hook would mislead.
_FIRST_SINCE: Final = f"(SELECT min(first_id) FROM procore_hooks_times WHERE quarter >= :since / {QUARTER})"
_OF_ALL_SINCE: Final = f"""
FROM procore_hooks_deliveries d NOT INDEXED WHERE d.id >= {_FIRST_SINCE} AND created_at >= :since AND hook_id <> 0
"""
_OF_HOOK_SINCE: Final = f"""
FROM (SELECT created_at, state FROM procore_hooks_deliveries d INDEXED BY procore_hooks_deliveries_hook
    WHERE d.id >= {_FIRST_SINCE} AND created_at >= :since AND hook_id = :hook AND unindexed IS NULL
    UNION ALL SELECT created_at, state FROM procore_hooks_deliveries d NOT INDEXED
    WHERE {UNINDEXED} AND created_at >= :since AND hook_id = :hook)
"""


def get_delivery(cursor: sqlite3.Cursor, delivery_id: int) -> Delivery:
    """The delivery with its attempts in full. Raises `NotFound`."""
    row = cursor.execute(f"{_SELECT % ''} WHERE d.id = ?", (delivery_id,)).fetchone()
    if row is None:
        raise NotFound("delivery", delivery_id)
    return _with_attempts(cursor, [row], _IN_FULL)[0]


def list_deliveries(cursor: sqlite3.Cursor, query: DeliveryQuery) -> list[Delivery]:
    """The deliveries that fit, newest first."""
    if query.hook_id is not None:
        payload_version_of(cursor, query.hook_id)
    rows: list[Sequence[Any]] = []
    # The newest first, which may not be in the index of their hook yet.
    for is_indexed in (False, True) if _is_by_hook(query) else (True,):
        if len(rows) < query.limit:
            sql, parameters = _list_statement(attrs.evolve(query, limit=query.limit - len(rows)), is_indexed=is_indexed)
            rows += cursor.execute(sql, parameters).fetchall()
    return _with_attempts(cursor, rows, _IN_LISTS)


def _is_by_hook(query: DeliveryQuery) -> bool:
    """Whether the index by hook finds them, and none of those on failures."""
    return query.hook_id is not None and not (query.statuses and query.statuses <= _FAILING)


def _list_statement(query: DeliveryQuery, *, is_indexed: bool = True) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    parameters: list[Any] = []
    # Named: after an ANALYZE that saw one hook with nearly all, SQLite would look for those of any hook by their ids.
    index = ""
    if _is_by_hook(query):
        index = " INDEXED BY procore_hooks_deliveries_hook" if is_indexed else " NOT INDEXED"
        conditions.append("d.unindexed IS NULL" if is_indexed else UNINDEXED)
    if query.statuses:
        if query.statuses <= _FAILING:
            conditions.append(FAILING)
            of_hook = "" if query.hook_id is None else "_of_hook"
            index = f" INDEXED BY procore_hooks_deliveries_failing{of_hook}"
        if query.statuses != _FAILING:
            conditions.append(f"d.state IN ({', '.join(str(STATES.index(s)) for s in sorted(query.statuses))})")
    wanted: dict[str, Any] = {
        "d.hook_id = ?": query.hook_id,
        "e.resource = ?": query.resource,
        "e.action = ?": query.action,
        "e.resource_id = ?": query.resource_id,
        "d.created_at >= ?": None if query.start is None else stamp(query.start),
        "d.created_at < ?": None if query.end is None else stamp(query.end),
        "d.id < ?": query.before,
    }
    for condition, value in wanted.items():
        if value is not None:
            conditions.append(condition)
            parameters.append(value)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"{_SELECT % index} {where} ORDER BY d.id DESC LIMIT ?", [*parameters, query.limit]


def _with_attempts(cursor: sqlite3.Cursor, rows: Sequence[Sequence[Any]], sql: str) -> list[Delivery]:
    webhook_ids = {row[0]: row[13] for row in rows}
    attempts: dict[int, list[Attempt]] = {delivery_id: [] for delivery_id in webhook_ids}
    tried = [row[0] for row in rows if row[3]]
    if tried:
        for row in cursor.execute(sql, (json.dumps(tried),)).fetchall():
            delivery_id = row[0] // ATTEMPTS_PER_DELIVERY
            attempts[delivery_id].append(attempt_from_row(row, webhook_ids[delivery_id]))
    return [delivery_from_row(row, attempts[row[0]]) for row in rows]


def payload_version_of(cursor: sqlite3.Cursor, hook_id: int) -> str:
    """The payload version of a hook, deleted or not. Raises `NotFound`."""
    row = cursor.execute("SELECT payload_version FROM procore_hooks_hooks WHERE id = ?", (hook_id,)).fetchone()
    if row is None:
        raise NotFound("hook", hook_id)
    return str(row[0])


def redeliver(cursor: sqlite3.Cursor, delivery_id: int, now: datetime, quarters: Quarters) -> Delivery:
    """A new delivery of the same event at the end of the queue."""
    delivery = get_delivery(cursor, delivery_id)
    _require_open_queue(cursor, delivery.hook_id)
    if delivery.status in WAITING:
        raise Conflict(f"delivery {delivery_id} is still {delivery.status}; it can be repeated once it is final")
    _repeat(cursor, [delivery_id], delivery.hook_id, now, quarters)
    return get_delivery(cursor, int(cursor.execute("SELECT max(id) FROM procore_hooks_deliveries").fetchone()[0]))


def _require_open_queue(cursor: sqlite3.Cursor, hook_id: int) -> None:
    if require_hook(cursor, hook_id) < 0:
        raise Conflict(f"hook {hook_id} is disabled and drops events: enable it first")


def _repeat(
    cursor: sqlite3.Cursor, delivery_ids: Sequence[int], hook_id: int, now: datetime, quarters: Quarters
) -> None:
    quarters.note(cursor, stamp(now))
    ids = json.dumps(delivery_ids)
    cursor.execute(
        """INSERT INTO procore_hooks_deliveries (hook_id, event_id, state, attempt_count, created_at, redelivery_of)
        SELECT d.hook_id, d.event_id, 0, 0, :now, d.id
        FROM json_each(:ids) j CROSS JOIN procore_hooks_deliveries d ON d.id = j.value ORDER BY j.key""",
        {"ids": ids, "now": stamp(now)},
    )
    cursor.execute(
        """UPDATE procore_hooks_events SET uses = uses + 1 WHERE id IN (
            SELECT d.event_id FROM json_each(?) j CROSS JOIN procore_hooks_deliveries d ON d.id = j.value)""",
        (ids,),
    )
    cursor.execute(
        f"UPDATE procore_hooks_queues SET ready_at = {READY} WHERE hook_id = :hook",
        {"hook": hook_id, "due": stamp(now)},
    )


def recover(
    cursor: sqlite3.Cursor, hook_id: int, since: datetime, until: datetime, now: datetime, quarters: Quarters
) -> int:
    """Repeat what failed or was discarded in the time, each event once, unless a redelivery covers it."""
    _require_open_queue(cursor, hook_id)
    rows = cursor.execute(
        f"""SELECT min(d.id) FROM procore_hooks_deliveries d INDEXED BY procore_hooks_deliveries_failing_of_hook
        WHERE d.hook_id = :hook AND {FAILING} AND d.state IN (3, 4)
            AND d.created_at >= :since AND d.created_at < :until
            AND NOT EXISTS (SELECT 1 FROM procore_hooks_deliveries r
                WHERE r.hook_id = :hook AND r.event_id = d.event_id AND r.redelivery_of IS NOT NULL
                    AND r.state IN (0, 1, 2))
        GROUP BY d.event_id ORDER BY 1""",
        {"hook": hook_id, "since": stamp(since), "until": stamp(until)},
    ).fetchall()
    ids = [row[0] for row in rows]
    if ids:
        _repeat(cursor, ids, hook_id, now, quarters)
    return len(ids)


def count_deliveries(cursor: sqlite3.Cursor, hook_id: int | None, since: datetime) -> dict[DeliveryStatus, int]:
    """How many are in each status."""
    rows = cursor.execute(
        f"SELECT state, count(*) {_OF_ALL_SINCE if hook_id is None else _OF_HOOK_SINCE} GROUP BY 1",
        {"since": stamp(since), "hook": hook_id},
    )
    return {STATES[state]: count for state, count in rows.fetchall()}


def count_in_buckets(
    cursor: sqlite3.Cursor, hook_id: int | None, since: datetime, width: timedelta, number: int
) -> list[dict[DeliveryStatus, int]]:
    """How many were created in each span of time, by status."""
    rows = cursor.execute(
        f"""SELECT min((created_at - :since) / :width, :last), state, count(*)
        {_OF_ALL_SINCE if hook_id is None else _OF_HOOK_SINCE} GROUP BY 1, 2""",
        {"since": stamp(since), "width": width // timedelta.resolution, "last": number - 1, "hook": hook_id},
    )
    buckets: list[dict[DeliveryStatus, int]] = [{} for _ in range(number)]
    for position, state, count in rows.fetchall():
        buckets[position][STATES[state]] = count
    return buckets


def prune(database: Database, before: datetime) -> int:
    """Delete old final deliveries and what nothing needs any more, some hundred at a time."""
    limit, pruned, position = stamp(before), 0, 0
    while True:
        ids = database.read(_ids_to_prune, position, limit)
        if not ids:
            break
        position = ids[-1]
        pruned += database.write(_prune_rows, json.dumps(ids))
    while _prune_keys(database, limit):
        pass
    return pruned


def _ids_to_prune(cursor: sqlite3.Cursor, after: int, before: int) -> list[int]:
    rows = cursor.execute(
        """SELECT id FROM procore_hooks_deliveries WHERE id > ? AND created_at < ? AND state IN (2, 3, 4)
        ORDER BY id LIMIT ?""",
        (after, before, _PRUNED_AT_ONCE),
    )
    return [row[0] for row in rows]


def _prune_rows(cursor: sqlite3.Cursor, ids: str) -> int:
    cursor.execute(
        f"""DELETE FROM procore_hooks_attempts WHERE id IN (
            SELECT a.id FROM json_each(?) j CROSS JOIN procore_hooks_attempts a
            ON a.id > j.value * {ATTEMPTS_PER_DELIVERY} AND a.id < (j.value + 1) * {ATTEMPTS_PER_DELIVERY})""",
        (ids,),
    )
    cursor.execute(
        """UPDATE procore_hooks_events SET uses = uses - gone.n FROM (
            SELECT d.event_id AS event_id, count(*) AS n FROM json_each(?) j
            CROSS JOIN procore_hooks_deliveries d ON d.id = j.value GROUP BY d.event_id) AS gone
        WHERE id = gone.event_id""",
        (ids,),
    )
    cursor.execute(
        """DELETE FROM procore_hooks_events WHERE uses = 0 AND id IN (
            SELECT d.event_id FROM json_each(?) j CROSS JOIN procore_hooks_deliveries d ON d.id = j.value)""",
        (ids,),
    )
    # The next delivery is numbered after the greatest id in the table: where that one goes, a row of no hook and no
    # event keeps its number taken.
    greatest = cursor.execute("SELECT max(id) FROM procore_hooks_deliveries").fetchone()[0]
    cursor.execute("DELETE FROM procore_hooks_deliveries WHERE id IN (SELECT value FROM json_each(?))", (ids,))
    pruned = int(cursor.rowcount)
    cursor.execute("DELETE FROM procore_hooks_deliveries WHERE hook_id = 0 AND unindexed IS NULL")
    cursor.execute(
        """INSERT OR IGNORE INTO procore_hooks_deliveries (id, hook_id, event_id, state, attempt_count, created_at)
        VALUES (?, 0, 0, 5, 0, 0)""",
        (greatest,),
    )
    return pruned


def _prune_keys(database: Database, before: int) -> int:
    keys = database.read(_keys_to_prune, before)
    if keys:
        database.write(_prune_key_rows, json.dumps(keys))
    return len(keys)


def _keys_to_prune(cursor: sqlite3.Cursor, before: int) -> list[str]:
    rows = cursor.execute(
        "SELECT key FROM procore_hooks_idempotency_keys WHERE created_at < ? LIMIT ?", (before, _PRUNED_AT_ONCE)
    )
    return [row[0] for row in rows]


def _prune_key_rows(cursor: sqlite3.Cursor, keys: str) -> None:
    # Another process may be pruning too: an event is let go of by whoever deletes its key.
    gone = cursor.execute(
        """DELETE FROM procore_hooks_idempotency_keys WHERE key IN (SELECT value FROM json_each(?))
        RETURNING event_id""",
        (keys,),
    ).fetchall()
    ids = json.dumps([row[0] for row in gone])
    cursor.execute(
        "UPDATE procore_hooks_events SET uses = uses - 1 WHERE id IN (SELECT value FROM json_each(?))", (ids,)
    )
    cursor.execute("DELETE FROM procore_hooks_events WHERE uses = 0 AND id IN (SELECT value FROM json_each(?))", (ids,))
