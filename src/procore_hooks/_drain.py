"""Somebody waits for an engine to be done with what was due when they asked."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, InvalidStateError
from datetime import datetime

import attrs

from ._core.models import DrainReport

__all__ = ["Drain", "report_between"]


@attrs.frozen(eq=False)
class Drain:
    """Somebody waits until nothing is due at `horizon`; `done` then gets the report."""

    horizon: datetime
    before: DrainReport
    done: Future[DrainReport] = attrs.field(factory=Future)

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
