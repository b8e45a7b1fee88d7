"""Files with a million rows, by SQL of the benchmarks' own: emitting them would take most of an hour.

The rows are those that emits, turns and settlements would have left. Whoever changes the schema looks here too.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from procore_hooks.storage.sqlite.quarters import Quarters

from ._backlog import PAYLOAD_JSON
from ._harness import progress

__all__ = ["add_history", "add_waiting", "checkpoint", "pause"]

_NUMBERS: Final = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :number)"
_EVENTS: Final = f"""
{_NUMBERS} INSERT INTO procore_hooks_events
SELECT i + :event, printf('%026d', i + :event), 'RFIs', 'update', '54321', '8', '6778', '42', :now, :payload,
    NULL, NULL, :uses FROM n
"""
_WAITING: Final = f"""
{_NUMBERS} INSERT INTO procore_hooks_deliveries (hook_id, event_id, state, attempt_count, created_at)
SELECT :hook + i % :hooks, :event + i, 0, 0, :now FROM n
"""
_READY: Final = """
UPDATE procore_hooks_queues SET ready_at = 0 WHERE ready_at IS NULL AND in_flight < max_in_flight
    AND hook_id BETWEEN :hook AND :hook + :hooks - 1
"""
_INDEXED: Final = """
UPDATE procore_hooks_turns SET indexed_through = (SELECT max(id) FROM procore_hooks_deliveries)
"""
# Every hundredth event failed with all hooks; the others were delivered.
_OVER: Final = f"""
{_NUMBERS} INSERT INTO procore_hooks_deliveries
    (hook_id, event_id, state, attempt_count, created_at, completed_at, reason)
SELECT :hook + i % :hooks, :event + i / :hooks, iif(i / :hooks % 100 = 50, 3, 2), 1, :now, :now,
    iif(i / :hooks % 100 = 50, 'the receiver answered 400', NULL) FROM n
"""
_ATTEMPTS: Final = """
INSERT INTO procore_hooks_attempts
SELECT id * 1048576 + 1, iif(state = 3, 2, 0), (SELECT min(id) FROM procore_hooks_requests), NULL,
    'v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=', iif(state = 3, 400, 200),
    '{"content-type":"text/plain; charset=utf-8","content-length":"2","server":"sink"}', x'6F6B', NULL, :now, :now
FROM procore_hooks_deliveries WHERE id > :after
"""
_REQUEST: Final = """
INSERT OR IGNORE INTO procore_hooks_requests (url, headers)
VALUES ('http://127.0.0.1:1/', '{"content-type":"application/json","user-agent":"procore-hooks/0"}')
"""
_CHUNK: Final = 500_000


@contextlib.contextmanager
def _cursor(path: Path) -> Iterator[sqlite3.Cursor]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection.cursor()


def add_waiting(path: Path, hook_id: int, number: int, hooks: int = 1) -> None:
    """So many fresh deliveries, each of an event of its own, shared out among a hook and those that follow it."""
    began = time.perf_counter()
    for start in range(0, number, _CHUNK):
        with _cursor(path) as cursor:
            values = _next(cursor) | {"hook": hook_id, "hooks": hooks, "uses": 1}
            values["number"] = min(_CHUNK, number - start)
            cursor.execute(_EVENTS, values)
            cursor.execute(_WAITING, values)
            cursor.execute(_READY, values)
            cursor.execute(_INDEXED)
    _tell(path, number, began)


def add_history(path: Path, hook_id: int, number: int, hooks: int) -> None:
    """So many deliveries that are over, with their attempts: each event went to all of the hooks, one in a hundred
    failed.
    """
    began = time.perf_counter()
    for start in range(0, number, _CHUNK):
        with _cursor(path) as cursor:
            cursor.execute(_REQUEST)
            values = _next(cursor) | {"hook": hook_id, "hooks": hooks, "uses": hooks}
            deliveries = min(_CHUNK, number - start)
            cursor.execute(_EVENTS, values | {"number": deliveries // hooks})
            cursor.execute(_OVER, values | {"number": deliveries})
            cursor.execute(_ATTEMPTS, values)
            cursor.execute(_INDEXED)
    with _cursor(path) as cursor:
        cursor.execute("UPDATE procore_hooks_queues SET head = (SELECT max(id) FROM procore_hooks_deliveries)")
    _tell(path, number, began)


def pause(path: Path, hook_id: int) -> None:
    """As after failures, until the year 5138."""
    with _cursor(path) as cursor:
        cursor.execute(
            """UPDATE procore_hooks_queues SET failures = 3, failing_since = 1, paused_until = :until,
            ready_at = iif(ready_at IS NULL, NULL, :until) WHERE hook_id = :hook""",
            {"until": 10**17, "hook": hook_id},
        )


def checkpoint(path: Path) -> None:
    """Bring all that the write-ahead log holds into the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _next(cursor: sqlite3.Cursor) -> dict[str, object]:
    event, after = cursor.execute(
        """SELECT coalesce(max(id), 0) + 1, (SELECT coalesce(max(id), 0) FROM procore_hooks_deliveries)
        FROM procore_hooks_events"""
    ).fetchone()
    now = time.time_ns() // 1000
    Quarters().note(cursor, now)
    return {"event": event, "after": after, "now": now, "payload": PAYLOAD_JSON}


def _tell(path: Path, number: int, began: float) -> None:
    checkpoint(path)
    if number >= 1_000:
        progress(f"filled {path.name} with {number:,} deliveries in {time.perf_counter() - began:.1f} s")
