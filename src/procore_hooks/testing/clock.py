"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from ..exceptions import InvalidInput

__all__ = ["ManualClock"]

_START = datetime(2025, 1, 1, tzinfo=UTC)


def _in_utc(field: str, moment: datetime) -> datetime:
    if not isinstance(moment, datetime):
        raise InvalidInput(field, f"{moment!r} is not a datetime")
    if moment.utcoffset() is None:
        raise InvalidInput(field, f"{moment!r} is naive; give it a time zone, such as tzinfo=datetime.UTC")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(field, f"{moment!r} is outside the years 1 to 9999 in UTC") from None


class ManualClock:
    """A clock for tests: with it, days of retries pass in milliseconds. Any thread may read or turn it.

    Args:
        start: the moment that it shows at first, aware; by default 2025-01-01T00:00:00Z.

    Raises `InvalidInput` for a naive `start`.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._now = _START if start is None else _in_utc("start", start)

    def now(self) -> datetime:
        """The moment that the clock shows, in UTC."""
        with self._lock:
            return self._now

    def advance(self, by: timedelta) -> datetime:
        """Go forward and return the new moment. Raises `InvalidInput` for a negative step or one past year 9999."""
        if not isinstance(by, timedelta):
            raise InvalidInput("by", f"{by!r} is not a timedelta; write timedelta(seconds=...)")
        if by < timedelta(0):
            raise InvalidInput("by", f"{by!r} is negative; set() takes the clock back")
        with self._lock:
            try:
                self._now += by
            except OverflowError:
                raise InvalidInput("by", f"{by!r} leads past the year 9999; make it shorter") from None
            return self._now

    def set(self, moment: datetime) -> datetime:
        """Show `moment`, which may lie in the past, and return it in UTC. Raises `InvalidInput` for a naive one."""
        now = _in_utc("moment", moment)
        with self._lock:
            self._now = now
        return now

    def __repr__(self) -> str:
        return f"ManualClock({self.now().isoformat()})"
