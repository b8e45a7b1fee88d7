"""The clocks: what a storage or a dispatcher may rely on."""

from __future__ import annotations

import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from types import FrameType

import pytest

from procore_hooks._clock import Clock, SystemClock
from procore_hooks.exceptions import InvalidInput
from procore_hooks.testing import ManualClock


def test_system_clock_is_aware_and_in_utc() -> None:
    """The system clock gives the present moment in UTC."""
    before = datetime.now(UTC)
    now = SystemClock().now()

    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


def test_manual_clock_stands_still_at_its_default_start() -> None:
    """Without a start it shows 2025-01-01T00:00:00Z, however often it is read."""
    clock: Clock = ManualClock()

    assert clock.now() == clock.now() == datetime(2025, 1, 1, tzinfo=UTC)


def test_manual_clock_shows_any_start_in_utc() -> None:
    """A start in another zone is shown as the same moment in UTC."""
    clock = ManualClock(datetime(2025, 6, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))))

    assert clock.now().isoformat() == "2025-05-31T23:30:00+00:00"


def test_advance_adds_up_and_returns_the_new_moment() -> None:
    """Steps add up; the new moment is what `now` shows from then on."""
    clock = ManualClock()
    clock.advance(timedelta(hours=12))

    assert clock.advance(timedelta(seconds=1)) == clock.now() == datetime(2025, 1, 1, 12, 0, 1, tzinfo=UTC)


def test_set_may_go_back() -> None:
    """`set` shows an earlier moment as well as a later one, in UTC."""
    clock = ManualClock()
    earlier = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1)))

    assert clock.set(earlier) == clock.now() == earlier
    assert clock.now().tzinfo is UTC


@pytest.mark.parametrize("wrong", [datetime(2025, 1, 1, tzinfo=UTC).replace(tzinfo=None), "2025-01-01"])
def test_naive_and_foreign_moments_are_refused(wrong: datetime) -> None:
    """A moment without a zone, or of another type, is refused by name, and leaves the clock as it was."""
    with pytest.raises(InvalidInput, match=r"^start: "):
        ManualClock(wrong)
    clock = ManualClock()
    with pytest.raises(InvalidInput, match=r"^moment: "):
        clock.set(wrong)
    assert clock.now() == datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("wrong", [60, timedelta(microseconds=-1), timedelta.max])
def test_steps_that_are_no_steps_forward_are_refused(wrong: timedelta) -> None:
    """A number, a step back and one past the year 9999 are refused in one line, and leave the clock as it was."""
    clock = ManualClock()
    with pytest.raises(InvalidInput, match=r"^by: .+$") as caught:
        clock.advance(wrong)
    assert "\n" not in str(caught.value)
    assert clock.now() == datetime(2025, 1, 1, tzinfo=UTC)


def test_a_moment_that_utc_cannot_hold_is_refused() -> None:
    """A moment whose UTC lies outside of the years 1 to 9999 is refused as any wrong value is."""
    with pytest.raises(InvalidInput, match=r"^moment: "):
        ManualClock().set(datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))))


def test_no_step_is_lost_between_threads() -> None:
    """Every thread's steps count, even where threads are switched at each instruction of `advance`."""
    clock = ManualClock()
    threads, steps = 4, 20

    def trace(frame: FrameType, event: str, arg: object) -> object:
        if frame.f_code is not ManualClock.advance.__code__:
            return None
        frame.f_trace_opcodes = True
        time.sleep(0)  # gives the interpreter away: reading, adding and writing without a lock loses steps then
        return trace

    def advance() -> None:
        sys.settrace(trace)  # type: ignore[arg-type]
        for _ in range(steps):
            clock.advance(timedelta(seconds=1))
        sys.settrace(None)

    workers = [threading.Thread(target=advance) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert clock.now() == datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=threads * steps)
