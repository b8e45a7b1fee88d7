"""Where the time comes from. `procore_hooks.testing.ManualClock` is the one for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What tells the time. It may be called from any thread."""

    def now(self) -> datetime:
        """The moment it is, aware and in UTC."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """The moment it is, in UTC."""
        return datetime.now(UTC)
