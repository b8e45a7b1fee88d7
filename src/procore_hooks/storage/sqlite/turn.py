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

from ..._core.claims import ClockReading, Settlement, Turn
from ...exceptions import StorageBusy
from ...keyring import KeyRing
from .claiming import DUE, HookCache, Loaded, Queue, end_waits, load_claims, pick
from .clocks import clock_reading, follow_clock
from .connection import Database
from .ending import RequestKey
from .indexing import INDEX, INDEXED_THROUGH
from .rows import moment, stamp
from .settling import Settling
from .sweeping import sweep

__all__ = ["Turns"]

_MOST_REMEMBERED: Final = 10_000
# Some 15 pages of the WAL each, from emit to result. SQLite itself waits for 1,000 pages, and then whoever commits next
# has to copy them into the file, which takes several milliseconds: an app's emit, as likely as not.
_SETTLED_PER_CHECKPOINT: Final = 40

_STATE: Final = f"SELECT {DUE}, steady, ahead FROM procore_hooks_turns"
# One statement instead of one for each thing that most turns find nothing to do for. The clock's reading is still that
# of the last turn that noted one: `follow_clock` compares it, and notes the new one.
_BEGIN: Final = f"""
UPDATE procore_hooks_turns SET number = number + 1, indexed_through = {INDEXED_THROUGH}
RETURNING {DUE}, steady, ahead, number, (SELECT min(ready_at) FROM procore_hooks_queues WHERE ready_at > 0)
"""


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
        at, due = stamp(now), stamp(due_by)
        is_expected, self._is_expected = self._is_expected and capacity > 0, False
        # Most turns of an idle dispatcher end here, without a write.
        if not settlements and not is_expected:
            idle = self._if_idle(at, due, capacity, reading, wait)
            if idle is not None:
                return idle
        settling = Settling(self._request_ids)
        work = settling, settlements, at, due, lease, capacity, reading
        turn, picked = self._database.write(self._change, *work, wait=wait)
        self._remember(settling.stored)
        self._hooks.log_trouble()
        claims, next_due = self._loaded(picked, now, now + lease, wait)
        self._settled += len(turn.settled)
        if not picked and self._settled >= _SETTLED_PER_CHECKPOINT:
            self._settled = 0
            self._database.checkpoint(wait)
        return attrs.evolve(turn, claims=claims, next_due_at=_earliest(*next_due))

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
        cursor.execute(INDEX)
        _, lease_until, sweeping, steady, ahead, number, waits_until = cursor.execute(_BEGIN).fetchone()
        moved = reading is not None and follow_clock(cursor, reading, clock_reading(steady, ahead))
        settled, late = settling.settle(cursor, settlements, at, due)
        swept = sweep(cursor, at, due) if sweeping or settling.has_dropped else 0
        expired, dropped = 0, 0
        if moved or (lease_until is not None and lease_until <= at):
            expired, dropped = settling.return_expired(cursor, at, due)
        # Pauses that are over come first, else a probe waits behind everybody's backlog.
        if moved or (waits_until is not None and waits_until <= due):
            end_waits(cursor, due)
        picked = pick(cursor, self._hooks, number, at, due, lease, capacity)
        return Turn(settled=tuple(settled), late=tuple(late), discarded=swept + dropped, expired=expired), picked

    def _loaded(self, picked: Sequence[Queue], now: datetime, lease_until: datetime, wait: bool) -> Loaded:
        try:
            return self._database.read(load_claims, picked, now, lease_until, wait=wait)
        except StorageBusy:
            # Whoever mends the WAL after a crash is waited for after all: what was picked is claimed already.
            return self._database.read(load_claims, picked, now, lease_until)

    def _if_idle(self, at: int, due: int, capacity: int, reading: ClockReading | None, wait: bool) -> Turn | None:
        """The turn, if there is nothing to do in it besides settling."""
        ready_at, lease_until, sweeping, steady, ahead = self._database.read(_state, wait=wait)
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


def _earliest(ready_at: int | None, lease_until: int | None, sweeping: int) -> datetime | None:
    if sweeping:
        return moment(0)
    moments = [value for value in (ready_at, lease_until) if value is not None]
    return moment(min(moments)) if moments else None
