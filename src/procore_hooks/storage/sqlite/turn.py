"""A turn: settle what finished, discard what was dropped, return what a crash left open, claim what fits.

Every step is one statement for all rows together, and what it finds comes back as one row of JSON: a statement that
returns a row for each delivery would give the interpreter lock away each time, inside the write transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from ..._core.claims import Claim, ClockReading, Settlement, Turn
from ...keyring import KeyRing
from .claiming import HookCache, Queue, end_waits, load_claims, pick
from .clocks import clock_reading, follow_clock
from .connection import Database
from .indexing import index_deliveries
from .rows import moment, stamp
from .settling import RequestKey, Settling
from .sweeping import sweep

__all__ = ["Turns"]

_MOST_REMEMBERED: Final = 10_000
# Some 15 pages of the WAL each, from emit to result. SQLite itself waits for 1,000 pages, and then whoever commits next
# has to copy them into the file, which takes several milliseconds: an app's emit, as likely as not.
_SETTLED_PER_CHECKPOINT: Final = 40

_DUE: Final = """(SELECT min(ready_at) FROM procore_hooks_queues WHERE ready_at IS NOT NULL),
    (SELECT min(lease_until) FROM procore_hooks_deliveries WHERE lease_until IS NOT NULL),
    EXISTS (SELECT 1 FROM procore_hooks_queues WHERE sweep_from IS NOT NULL)"""
_NEXT_DUE: Final = f"SELECT {_DUE}"
# One statement instead of one for each thing that most turns find nothing to do for.
_STATE: Final = f"""
SELECT {_DUE}, (SELECT min(ready_at) FROM procore_hooks_queues WHERE ready_at > 0), steady, ahead,
    indexed_through < (SELECT max(id) FROM procore_hooks_deliveries)
FROM procore_hooks_turns"""


class Turns:
    """The turns of one database, with what is worth remembering between them."""

    def __init__(self, database: Database, keys: KeyRing | None) -> None:
        self._database = database
        self._request_ids: dict[RequestKey, int] = {}
        self._hooks = HookCache(keys)
        self._settled = 0  # since the last checkpoint
        self._is_expected = False

    def expect(self) -> None:
        """A queue was made ready: the next turn need not look first whether there is anything to do."""
        self._is_expected = True

    def turn(
        self,
        settlements: Sequence[Settlement],
        now: datetime,
        due_by: datetime,
        lease: timedelta,
        capacity: int,
        reading: ClockReading | None,
        wait: bool,
    ) -> Turn:
        """See `Storage.turn`."""
        write = self._database.write if wait else self._database.write_at_once
        at, due = stamp(now), stamp(due_by)
        is_expected, self._is_expected = self._is_expected and capacity > 0, False
        # Most turns of an idle dispatcher end here, without a write.
        if not settlements and not is_expected:
            idle = self._if_idle(at, due, capacity, reading)
            if idle is not None:
                return idle
        settling = Settling(self._request_ids)
        turn, picked = write(self._change, settling, settlements, at, due, lease, capacity, reading)
        self._remember(settling.stored)
        self._hooks.log_trouble()
        claims, next_due_at = self._database.read(_claims_and_next, picked, now, now + lease)
        self._settled += len(turn.settled)
        if not picked and self._settled >= _SETTLED_PER_CHECKPOINT:
            self._settled = 0
            self._database.checkpoint()
        return attrs.evolve(turn, claims=claims, next_due_at=next_due_at)

    def _change(
        self,
        cursor: sqlite3.Cursor,
        settling: Settling,
        settlements: Sequence[Settlement],
        at: int,
        due: int,
        lease: timedelta,
        capacity: int,
        reading: ClockReading | None,
    ) -> tuple[Turn, Sequence[Queue]]:
        """All that a turn writes. Returns it without its claims, and what was picked of them."""
        _, lease_until, sweeping, waits_until, steady, ahead, may_lack_index = cursor.execute(_STATE).fetchone()
        if may_lack_index:
            index_deliveries(cursor)
        moved = reading is not None and follow_clock(cursor, reading, clock_reading(steady, ahead))
        settled, late = settling.settle(cursor, settlements, at, due)
        swept = sweep(cursor, at, due) if sweeping or settling.has_dropped else 0
        expired, dropped = 0, 0
        if moved or (lease_until is not None and lease_until <= at):
            expired, dropped = settling.return_expired(cursor, at, due)
        # Pauses that are over come first, else a probe waits behind everybody's backlog.
        if moved or (waits_until is not None and waits_until <= due):
            end_waits(cursor, due)
        picked = pick(cursor, self._hooks, at, due, lease, capacity)
        return Turn(settled=tuple(settled), late=tuple(late), discarded=swept + dropped, expired=expired), picked

    def _if_idle(self, at: int, due: int, capacity: int, reading: ClockReading | None) -> Turn | None:
        """The turn, if there is nothing to do in it besides settling."""
        ready_at, lease_until, sweeping, _, steady, ahead, _ = self._database.read(_state)
        moved = reading is not None and bool(reading.set_since(clock_reading(steady, ahead)))
        claimable = capacity > 0 and ready_at is not None and ready_at <= due
        if moved or claimable or sweeping or (lease_until is not None and lease_until <= at):
            return None
        return Turn(next_due_at=_earliest(ready_at, lease_until, sweeping))

    def _remember(self, request_ids: dict[RequestKey, int]) -> None:
        if len(self._request_ids) > _MOST_REMEMBERED:
            # A new one: another thread may be in a turn with the old.
            self._request_ids = {}
        self._request_ids.update(request_ids)


def _state(cursor: sqlite3.Cursor) -> tuple[Any, ...]:
    state: tuple[Any, ...] = cursor.execute(_STATE).fetchone()
    return state


def _claims_and_next(
    cursor: sqlite3.Cursor, picked: Sequence[Queue], now: datetime, lease_until: datetime
) -> tuple[tuple[Claim, ...], datetime | None]:
    claims = load_claims(cursor, picked, now, lease_until)
    return tuple(claims), _earliest(*cursor.execute(_NEXT_DUE).fetchone())


def _earliest(ready_at: int | None, lease_until: int | None, sweeping: int) -> datetime | None:
    if sweeping:
        return moment(0)
    moments = [value for value in (ready_at, lease_until) if value is not None]
    return moment(min(moments)) if moments else None
