"""Where the time comes from. `procore_hooks.testing.ManualClock` is the one for tests."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from ._core.claims import CLOCK_TOLERANCE, ClockReading

__all__ = ["Clock", "ClockFollower", "SystemClock"]

# The two clocks are read one after the other: again, if this process was held up in between for longer.
_CLOSE_TOGETHER: Final = 0.01
_TRIES: Final = 10
_SURELY_THE_SAME: Final = CLOCK_TOLERANCE.total_seconds() / 2
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
# Unlike CLOCK_MONOTONIC it goes on while the machine sleeps.
_SINCE_START: Final = getattr(time, "CLOCK_BOOTTIME", 0)


class Clock(Protocol):
    """What tells the time. It may be called from any thread."""

    def now(self) -> datetime:
        """The moment it is, aware and in UTC."""
        ...


class SystemClock:
    """The clock of the machine, which people and time servers set."""

    def __init__(self) -> None:
        self._steady = _name_of_the_steady_clock()

    def now(self) -> datetime:
        """The moment it is, in UTC."""
        return datetime.now(UTC)

    def elapsed(self) -> float:
        """Seconds since the machine started, also those that it slept: a steady clock, which nobody can set."""
        return time.clock_gettime(_SINCE_START)

    def read(self) -> tuple[datetime, ClockReading | None]:
        """The moment it is, and how far that is ahead of the steady clock; None where the system does not tell."""
        if self._steady is None:
            return self.now(), None
        for _ in range(_TRIES):
            before = self.elapsed()
            now = self.now()
            if self.elapsed() - before < _CLOSE_TOGETHER:
                break
        return now, ClockReading(self._steady, now - _EPOCH - timedelta(seconds=before))


class ClockFollower:
    """Reads a clock, and tells when it was set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.reading: ClockReading | None = None
        self._ahead = 0.0  # the same in seconds

    def read(self) -> tuple[datetime, timedelta]:
        """The moment it is, and by how much the clock was set since it was last read here."""
        if not isinstance(self._clock, SystemClock):
            # A clock of the app's own is what it says: a test that turns it wants the time to pass.
            return self._clock.now(), timedelta(0)
        if self.reading is not None:
            # The common case: no reading has to be made.
            now = self._clock.now()
            if abs(now.timestamp() - self._clock.elapsed() - self._ahead) < _SURELY_THE_SAME:
                return now, timedelta(0)
        now, reading = self._clock.read()
        by = timedelta(0) if reading is None else reading.set_since(self.reading)
        if by or self.reading is None:
            self.reading = reading
            self._ahead = 0.0 if reading is None else reading.offset.total_seconds()
        return now, by

    def set_since(self, earlier: ClockReading | None) -> timedelta:
        """By how much the clock was found to be set since an earlier `reading`."""
        return timedelta(0) if self.reading is None else self.reading.set_since(earlier)


def _name_of_the_steady_clock() -> str | None:
    """The same for all processes whose steady clocks show the same: of one start of one machine, in one time namespace.

    Linux tells; of other systems' steady clocks it cannot be known whether the machine was started anew.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{start}/{os.stat('/proc/self/ns/time').st_ino}"
    except (OSError, ValueError):
        return None
