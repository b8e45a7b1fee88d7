"""The clocks: what a storage or a dispatcher may rely on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import FrameType

import pytest

from procore_hooks._clock import Clock, ClockFollower, SystemClock
from procore_hooks._core.claims import ClockReading
from procore_hooks.exceptions import InvalidInput
from procore_hooks.testing import ManualClock


def test_system_clock_is_aware_and_in_utc() -> None:
    """The system clock gives the present moment in UTC."""
    before = datetime.now(UTC)
    now = SystemClock().now()

    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


class SlowlyRead(SystemClock):
    """A clock whose readings are held up: the other one then goes on in between."""

    def __init__(self, held_up: list[float]) -> None:
        super().__init__()
        self._steady = "slow"
        self._held_up = held_up
        self._seconds = 0.0
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        self._seconds += self._held_up.pop() if self._held_up else 0.0
        return datetime(2031, 5, 17, tzinfo=UTC) + self.ahead + timedelta(seconds=self._seconds)

    def elapsed(self) -> float:
        return self._seconds


def test_a_process_that_is_held_up_sees_no_jump() -> None:
    """Both clocks are read again when this process was stopped between them, so a reading is right to 10 ms."""
    follower = ClockFollower(SlowlyRead([0.0, 0.0, 30.0, 2.0]))
    for _ in range(3):
        now, by = follower.read()
        assert by == timedelta(0)
    assert follower.reading == ClockReading("slow", datetime(2031, 5, 17, tzinfo=UTC) - datetime.fromtimestamp(0, UTC))
    assert now == datetime(2031, 5, 17, 0, 0, 32, tzinfo=UTC)


def test_steering_adds_up_to_a_jump() -> None:
    """Small steps in one direction count once they are more than a second together."""
    clock = SlowlyRead([])
    follower = ClockFollower(clock)
    found = []
    for _ in range(4):
        found.append(follower.read()[1])
        clock.ahead += timedelta(seconds=0.6)
    assert found == [timedelta(0), timedelta(0), timedelta(seconds=1.2), timedelta(0)]


def test_only_the_machines_clock_is_followed() -> None:
    """A clock of the app's own is what it says: one that a test turns wants the time to pass."""
    clock = ManualClock()
    follower = ClockFollower(clock)
    follower.read()
    clock.advance(timedelta(days=10))
    assert follower.read() == (clock.now(), timedelta(0))
    assert follower.reading is None


def test_where_the_system_does_not_tell_nothing_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without knowing which start of the machine it is, offsets cannot be compared: then clocks are not followed."""

    def missing(*arguments: object, **keywords: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    follower = ClockFollower(SystemClock())
    now, by = follower.read()
    assert (by, follower.reading) == (timedelta(0), None)
    assert now.tzinfo is UTC


def test_processes_of_one_machine_have_the_same_steady_clock() -> None:
    """Readings of two processes can be compared: the same clock, and the same offset within the tolerance."""
    reading = SystemClock().read()[1]
    if reading is None:
        pytest.skip("this system does not tell which start of the machine it is")
    script = (
        "from procore_hooks._clock import SystemClock\n"
        "reading = SystemClock().read()[1]\n"
        "print(reading.steady, reading.offset.total_seconds())"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert told[0] == reading.steady
    assert abs(timedelta(seconds=float(told[1])) - reading.offset) < timedelta(seconds=1)


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
