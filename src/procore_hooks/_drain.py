"""Somebody waits for an engine to be done with what was due when they asked."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, InvalidStateError
from datetime import datetime
from typing import Self

import attrs

from ._clock import Clock, ClockFollower
from ._core.claims import ClockReading
from ._core.models import DrainReport

__all__ = ["Drain", "report_between"]


@attrs.frozen(eq=False)
class Drain:
    """Somebody waits until nothing is due that was due when they asked; `done` then gets the report."""

    asked_at: datetime
    reading: ClockReading | None
    before: DrainReport
    done: Future[DrainReport] = attrs.field(factory=Future)

    @classmethod
    def asked_now(cls, clock: Clock, before: DrainReport) -> Self:
        """Asked for at this moment, when so much was done before."""
        follower = ClockFollower(clock)
        now, _ = follower.read()
        return cls(now, follower.reading, before)

    def horizon_by(self, clock: ClockFollower) -> datetime:
        """The moment at which it was asked for, by the wall clock as it is set now."""
        return self.asked_at + clock.set_since(self.reading)

    def answer(self, report: DrainReport) -> None:
        """Tell whoever waits, if somebody still does."""
        with contextlib.suppress(InvalidStateError):
            self.done.set_result(report_between(self.before, report))


def report_between(before: DrainReport, after: DrainReport) -> DrainReport:
    """What was done from one report to the other."""
    return DrainReport(
        delivered=after.delivered - before.delivered,
        retried=after.retried - before.retried,
        failed=after.failed - before.failed,
        discarded=after.discarded - before.discarded,
        next_due_at=after.next_due_at,
    )
