"""When a queue is ready, in SQL.

The columns of ``procore_hooks_queues``:

- `ready_at`: NULL while nothing can be claimed from the hook; 0 for "at once"; otherwise the moment at which a pause
  ends or a returned delivery becomes due. Never the present time, which would go wrong when a clock steps back.
- `served`: the number of the turn that last served it. Hooks take turns by it.
- `head`: no fresh delivery has an id up to it. Fresh deliveries need no index of their own: they are those above it.
- `in_flight`: how many of its deliveries are under way; at most `max_in_flight`, or 1 while `failures` is above 0.
- `enabled`: 1 active, 0 disabled and keeping, -1 disabled and dropping.
- `epoch`: rises whenever failures or pause change.
- `dropped_through`: what comes back to the queue with an id up to it is discarded, with `drop_reason`.
- `sweep_from`: NULL, or the head from which waiting deliveries up to `dropped_through` are still to be discarded.
  Nothing is claimed from the hook until that is done.

Of the deliveries, `due_at` is set on returned ones only (0 for "at once"; a ping's is below 0, so it goes first), and
`lease_until` on those under way only.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ASLEEP", "READY", "ready"]

_READY: Final = """CASE
    WHEN {enabled} <> 1 OR {sweep_from} IS NOT NULL OR {in_flight} >= iif({failures} > 0, 1, {max_in_flight}) THEN NULL
    WHEN EXISTS (SELECT 1 FROM procore_hooks_deliveries d INDEXED BY procore_hooks_deliveries_hook
        WHERE d.hook_id = procore_hooks_queues.hook_id AND d.id > {head} AND d.unindexed IS NULL)
        THEN iif({paused_until} > :due, {paused_until}, 0)
    ELSE (SELECT iif(max(d.due_at, coalesce({paused_until}, 0)) > :due,
            max(d.due_at, coalesce({paused_until}, 0)), 0)
        FROM procore_hooks_deliveries d
        WHERE d.hook_id = procore_hooks_queues.hook_id AND d.due_at IS NOT NULL ORDER BY d.due_at LIMIT 1)
END"""


def ready(**columns: str) -> str:
    """The expression for `ready_at`, with :due as the present. A column that the same statement sets is given as the
    expression that it is set to, since SQL would see its old value.
    """
    names = ("enabled", "sweep_from", "in_flight", "max_in_flight", "failures", "head", "paused_until")
    return _READY.format(**({name: f"procore_hooks_queues.{name}" for name in names} | columns))


READY: Final = ready()
# Not ready, or only later than a fresh delivery makes it.
ASLEEP: Final = """enabled = 1 AND sweep_from IS NULL
    AND (ready_at IS NULL OR (ready_at > 0 AND (paused_until IS NULL OR paused_until <= :now)))
    AND in_flight < iif(failures > 0, 1, max_in_flight)"""
