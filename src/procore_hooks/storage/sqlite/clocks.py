"""Following the wall clock when it is set: what is still to come moves with it."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Final

from ..._core.claims import ClockReading

__all__ = ["clock_reading", "follow_clock"]

_MICROSECOND: Final = timedelta(microseconds=1)

_REMEMBER: Final = "UPDATE procore_hooks_turns SET steady = ?, ahead = ?"
# 0 and less stand for "at once".
_MOVE: Final = (
    """UPDATE procore_hooks_queues SET failing_since = failing_since + :by, paused_until = paused_until + :by,
    ready_at = iif(ready_at > 0, max(1, ready_at + :by), ready_at)""",
    """UPDATE procore_hooks_deliveries SET lease_until = lease_until + :by, began_at = began_at + :by
    WHERE lease_until IS NOT NULL""",
    """UPDATE procore_hooks_deliveries SET due_at = iif(due_at > 0, max(1, due_at + :by), due_at),
    began_at = began_at + :by WHERE due_at IS NOT NULL""",
)


def clock_reading(steady: str | None, ahead: int | None) -> ClockReading | None:
    """The reading of the last turn that wrote, by its columns in ``procore_hooks_turns``."""
    return None if steady is None or ahead is None else ClockReading(steady, timedelta(microseconds=ahead))


def follow_clock(cursor: sqlite3.Cursor, reading: ClockReading, known: ClockReading | None) -> bool:
    """Move all that is still to come, if the wall clock was set since the `known` reading. Returns whether it was."""
    by = reading.set_since(known)
    for statement in _MOVE if by else ():
        cursor.execute(statement, {"by": by // _MICROSECOND})
    if by or known is None or known.steady != reading.steady:
        cursor.execute(_REMEMBER, (reading.steady, reading.offset // _MICROSECOND))
    return bool(by)
