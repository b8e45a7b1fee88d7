"""Discarding what waits: decided at once, for a whole queue, and carried out by the thousand.

To discard a million rows in one piece would hold the write lock for a second. So a drop only moves the queue's head to
its end and marks the range; each turn, of whichever dispatcher, discards some, and nothing is claimed from the hook
until all are.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from .ready import ready

__all__ = ["drop_waiting", "sweep"]

_SWEPT_AT_ONCE: Final = 1000

_DROP: Final = """
UPDATE procore_hooks_queues SET drop_reason = :reason, sweep_from = coalesce(sweep_from, head), ready_at = NULL,
(dropped_through, head) = (SELECT m, m FROM (SELECT coalesce(max(id), 0) AS m FROM procore_hooks_deliveries d
    WHERE d.hook_id = :hook AND d.unindexed IS NULL))
WHERE hook_id = :hook
"""
_SWEEP_RETURNED: Final = """
SELECT json_group_array(id) FROM (
    SELECT id FROM procore_hooks_deliveries INDEXED BY procore_hooks_deliveries_returned
    WHERE hook_id = :hook AND due_at IS NOT NULL AND id <= :through LIMIT :left)
"""
_SWEEP_FRESH: Final = """
SELECT json_group_array(id) FROM (
    SELECT id FROM procore_hooks_deliveries INDEXED BY procore_hooks_deliveries_hook
    WHERE hook_id = :hook AND id > :start AND id <= :through AND state = 0 AND lease_until IS NULL
        AND unindexed IS NULL
    ORDER BY id LIMIT :left)
"""
_DISCARD: Final = """
UPDATE procore_hooks_deliveries SET state = 4, completed_at = ?, due_at = NULL, began_at = NULL, reason = ?
WHERE id IN (SELECT value FROM json_each(?))
"""
_SWEPT: Final = f"""
UPDATE procore_hooks_queues SET sweep_from = NULL, ready_at = {ready(sweep_from="NULL")} WHERE hook_id = :hook
"""


def drop_waiting(cursor: sqlite3.Cursor, hook_id: int, reason: str) -> None:
    """Mark all that waits for the hook as dropped, and what comes back from under way too."""
    cursor.execute(_DROP, {"reason": reason, "hook": hook_id})


def sweep(cursor: sqlite3.Cursor, now: int, due: int, hook_id: int | None = None) -> int:
    """Discard some of what was dropped; of one hook, or of whichever have something left."""
    left = _SWEPT_AT_ONCE
    only = "" if hook_id is None else "AND hook_id = ?"
    rows = cursor.execute(
        f"""SELECT hook_id, dropped_through, drop_reason, sweep_from FROM procore_hooks_queues
        WHERE sweep_from IS NOT NULL {only} LIMIT 100""",
        () if hook_id is None else (hook_id,),
    ).fetchall()
    for hook, through, reason, start in rows:
        for statement in (_SWEEP_RETURNED, _SWEEP_FRESH):
            if left <= 0:
                break
            parameters = {"hook": hook, "start": start, "through": through, "left": left}
            ids = json.loads(cursor.execute(statement, parameters).fetchone()[0])
            cursor.execute(_DISCARD, (now, reason, json.dumps(ids)))
            left -= len(ids)
            if statement is _SWEEP_FRESH and ids:
                # The next one goes on from here, and does not look at these rows again.
                cursor.execute("UPDATE procore_hooks_queues SET sweep_from = ? WHERE hook_id = ?", (ids[-1], hook))
        if left > 0:
            cursor.execute(_SWEPT, {"hook": hook, "due": due})
    return _SWEPT_AT_ONCE - left
