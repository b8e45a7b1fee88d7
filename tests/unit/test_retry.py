"""The retry policies: gaps, ends, and any strategy of tenacity, evaluated without sleeping."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks.exceptions import InvalidInput
from procore_hooks.retry import AttemptFailed, RetryPolicy

NOW = datetime(2025, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def wait_of(
    policy: RetryPolicy, number: int, since: datetime = NOW, now: datetime = NOW, status: int | None = 500
) -> float:
    return policy.backoff(number, since, now, status).wait.total_seconds()


def only(wait: Any, stop: Any = tenacity.stop_never) -> RetryPolicy:
    return RetryPolicy(wait=wait, stop=stop)


# Procore's


@pytest.mark.parametrize("number", range(1, 40))
def test_procore_gaps(number: int) -> None:
    """1, 2, 4 ... 3600 seconds, and at most a second of jitter on top, never below."""
    expected = min(2 ** (number - 1), 3600)
    waits = [wait_of(RetryPolicy.procore(), number) for _ in range(50)]
    assert all(expected <= wait <= expected + 1 for wait in waits)
    # Fifty equal rolls of a real number would be a wonder: the jitter is there.
    assert len(set(waits)) > 1


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_procore_stops_at_twelve_hours_and_not_before(microseconds: int, number: int) -> None:
    """By the time since the first failure alone, whatever the number of attempts."""
    span = timedelta(microseconds=microseconds)
    backoff = RetryPolicy.procore().backoff(number, NOW, NOW + span, 500)
    assert backoff.stop is (span >= 12 * HOUR)


def test_procore_to_the_microsecond() -> None:
    """The edge itself."""
    edge = NOW + 12 * HOUR
    assert RetryPolicy.procore().backoff(20, NOW, edge - timedelta(microseconds=1), None).stop is False
    assert RetryPolicy.procore().backoff(20, NOW, edge, None).stop is True


def test_procore_from_the_first_failure_to_the_last() -> None:
    """Played through: about twenty-four attempts, none before its gap, the last between 12 and 13 hours."""
    policy, now, number = RetryPolicy.procore(), NOW, 1
    while not (backoff := policy.backoff(number, NOW, now, 500)).stop:
        now += backoff.wait
        number += 1
        assert number < 40
    assert 12 * HOUR <= now - NOW <= 13 * HOUR + timedelta(seconds=1)
    assert number == 24
    assert (policy.on_failure, policy.max_retry_after) == ("pause", HOUR)


# Standard Webhooks'


@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        (1, 5),
        (2, 5 * 60),
        (3, 30 * 60),
        (4, 2 * 3600),
        (5, 5 * 3600),
        (6, 10 * 3600),
        (7, 14 * 3600),
        (8, 20 * 3600),
        (9, 24 * 3600),
    ],
)
def test_standard_webhooks_gaps(number: int, seconds: int) -> None:
    """The waits that the specification lists, up to a tenth longer; another attempt follows on each."""
    policy = RetryPolicy.standard_webhooks()
    backoffs = [policy.backoff(number, NOW, NOW + 100 * HOUR, 500) for _ in range(50)]
    assert all(seconds <= backoff.wait.total_seconds() <= seconds * 1.1 for backoff in backoffs)
    assert len({backoff.wait for backoff in backoffs}) > 1
    assert not any(backoff.stop for backoff in backoffs)


def test_standard_webhooks_ends_with_the_tenth() -> None:
    """Ten attempts, each delivery on its own."""
    policy = RetryPolicy.standard_webhooks()
    assert policy.backoff(10, NOW, NOW, 500).stop is True
    assert policy.on_failure == "independent"


# Strategies of tenacity


def test_no_strategy_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are computed, and the strategies see the stored number and times, not those of this process."""
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it slept"))
    seen: list[tuple[int, float | None]] = []

    def wait(state: tenacity.RetryCallState) -> float:
        seen.append((state.attempt_number, state.seconds_since_start))
        return 7

    assert wait_of(only(wait), 3, NOW, NOW + HOUR) == 7
    assert seen == [(3, 3600.0)]


def test_a_strategy_may_look_at_the_status() -> None:
    """The outcome of the attempt is an `AttemptFailed` with the status, None without an answer."""

    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        assert state.outcome.failed
        error = state.outcome.exception()
        assert isinstance(error, AttemptFailed)
        return 60 if error.status == 429 else 1 if error.status is None else 2

    assert [wait_of(only(wait), 1, status=status) for status in (429, None, 500)] == [60, 1, 2]


@pytest.mark.skipif(not hasattr(tenacity, "wait_exception"), reason="this tenacity has no wait_exception")
def test_wait_exception() -> None:
    """tenacity's own way to look at the exception."""
    policy = only(tenacity.wait_exception(lambda error: 60 if getattr(error, "status", 0) == 429 else 1))
    assert [wait_of(policy, 1, status=status) for status in (429, 500)] == [60, 1]


def test_stop_before_delay() -> None:
    """A stop strategy that looks at the wait to come gets to see it."""
    policy = only(tenacity.wait_fixed(600), tenacity.stop_before_delay(3600))
    assert policy.backoff(1, NOW, NOW + timedelta(seconds=2999), None).stop is False
    assert policy.backoff(1, NOW, NOW + timedelta(seconds=3000), None).stop is True


@pytest.mark.parametrize(
    ("wait", "number", "low", "high"),
    [
        (tenacity.wait_none(), 1, 0, 0),
        (tenacity.wait_fixed(timedelta(minutes=1)), 9, 60, 60),
        (tenacity.wait_random(1, 2), 1, 1, 2),
        (tenacity.wait_incrementing(start=10, increment=5), 3, 20, 20),
        (tenacity.wait_exponential(max=3600), 10_000, 3600, 3600),
        (tenacity.wait_random_exponential(max=60), 10_000, 0, 60),
        (tenacity.wait_exponential_jitter(max=50, jitter=2), 3, 4, 6),
        (tenacity.wait_exponential_jitter(max=50, exp_base=2.5, jitter=2), 10_000, 50, 50),
        (tenacity.wait_fixed(1) + tenacity.wait_fixed(2), 1, 3, 3),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(9)), 5, 9, 9),
        (lambda state: -5, 1, 0, 0),
        (lambda state: math.nan, 1, 0, 0),
        (lambda state: math.inf, 1, 365 * 86_400, 365 * 86_400),
        (lambda state: 10**400, 1, 365 * 86_400, 365 * 86_400),
        (lambda state: 1.5 ** (state.attempt_number * 10_000), 1, 365 * 86_400, 365 * 86_400),
    ],
    ids=range(15),
)
def test_any_wait_strategy(wait: Any, number: int, low: float, high: float) -> None:
    """Whatever it gives, one that overflows too, the wait lies between nothing and a year."""
    assert low <= wait_of(only(wait), number) <= high


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (tenacity.stop_never, [False, False]),
        (tenacity.stop_after_attempt(3), [False, True]),
        (tenacity.stop_after_delay(10) | tenacity.stop_after_attempt(3), [False, True]),
        (tenacity.stop_after_delay(10) & tenacity.stop_after_attempt(3), [False, False]),
        (lambda state: state.attempt_number > 2, [False, True]),
    ],
    ids=range(5),
)
def test_any_stop_strategy(stop: Any, expected: list[bool]) -> None:
    """Alone or combined; what it gives becomes a bool."""
    policy = only(tenacity.wait_none(), stop)
    assert [policy.backoff(number, NOW, NOW + timedelta(seconds=9), None).stop for number in (2, 3)] == expected


def test_a_clock_that_stepped_back() -> None:
    """A failure before the start counts as one at the start."""
    policy = only(tenacity.wait_fixed(1), tenacity.stop_after_delay(0.5))
    assert policy.backoff(1, NOW, NOW - HOUR, None).stop is False
    seen: list[float | None] = []

    def wait(state: tenacity.RetryCallState) -> float:
        seen.append(state.seconds_since_start)
        return 1

    assert wait_of(only(wait), 1, NOW, NOW - HOUR) == 1
    assert seen == [0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("wait", 5),
        ("wait", None),
        ("stop", True),
        ("stop", timedelta(hours=12)),
        ("on_failure", "retry"),
        ("on_failure", None),
        ("max_retry_after", 3600),
        ("max_retry_after", timedelta(seconds=-1)),
        ("max_retry_after", timedelta(days=8)),
        ("max_retry_after", None),
    ],
    ids=str,
)
def test_wrong_policies(field: str, value: Any) -> None:
    """Each field is checked, and the error names it."""
    given = {"wait": tenacity.wait_fixed(1), "stop": tenacity.stop_never, field: value}
    with pytest.raises(InvalidInput) as caught:
        RetryPolicy(**given)
    assert caught.value.field == field
    assert repr(value) in caught.value.problem


@pytest.mark.parametrize("most", [timedelta(0), timedelta(days=7)])
def test_the_longest_retry_after(most: timedelta) -> None:
    """From nothing to a week, both included."""
    policy = RetryPolicy(wait=tenacity.wait_none(), stop=tenacity.stop_never, max_retry_after=most)
    assert policy.max_retry_after == most
