"""When to try again: tenacity's strategies, evaluated on what is stored, never by sleeping in a process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import attrs
from tenacity import (
    Future,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_chain,
    wait_combine,
    wait_exponential,
    wait_fixed,
    wait_random,
)

from ._core.decide import Backoff, FailureMode
from .exceptions import InvalidInput

__all__ = ["AttemptFailed", "RetryPolicy"]

WaitStrategy = Callable[[RetryCallState], float]
StopStrategy = Callable[[RetryCallState], bool]

_LONGEST_WAIT = timedelta(days=365)
_LONGEST_RETRY_AFTER = timedelta(days=7)
# Standard Webhooks 1.0, "Retries": at once, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
_STANDARD_WEBHOOKS_WAITS = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)


class AttemptFailed(Exception):
    """What a strategy finds as the outcome of the attempt: ``retry_state.outcome.exception()``.

    Attributes:
        status: the HTTP status, or None when no answer came.
    """

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


def _callable_strategy(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not callable(value):
        raise InvalidInput(attribute.name, f"{value!r} is not a tenacity strategy such as wait_exponential(max=3600)")


def _known_mode(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("pause", "independent"):
        raise InvalidInput("on_failure", f"{value!r} is neither 'pause' nor 'independent'")


def _clampable(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= _LONGEST_RETRY_AFTER:
        raise InvalidInput("max_retry_after", f"{value!r} is not a timedelta between 0 and 7 days")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How failed deliveries are tried again.

    The strategies are evaluated on a `tenacity.RetryCallState` that is rebuilt from the stored attempt number and
    times, so they hold across restarts and processes. All dispatchers of one storage should share one policy.

    Args:
        wait: a tenacity wait strategy; gives the seconds to wait after a failure.
        stop: a tenacity stop strategy; says after a failure that it was the last.
        on_failure: ``"pause"`` pauses the hook, keeps the order and sends one probe at a time until a success; the
            attempt number is then the hook's consecutive failures. ``"independent"`` gives each delivery a schedule of
            its own, and its own number.
        max_retry_after: the longest ``Retry-After`` of an endpoint that is obeyed.
    """

    wait: WaitStrategy = attrs.field(validator=_callable_strategy)
    stop: StopStrategy = attrs.field(validator=_callable_strategy)
    on_failure: FailureMode = attrs.field(default="pause", validator=_known_mode)
    max_retry_after: timedelta = attrs.field(default=timedelta(hours=1), validator=_clampable)

    @classmethod
    def procore(cls) -> RetryPolicy:
        """Procore's: a failure pauses the hook; waits grow from 1 s to 1 h, and after 12 h the queue is flushed.

        Up to one second of jitter comes on top of each wait.
        """
        return cls(
            wait=wait_exponential(multiplier=1, min=1, max=3600) + wait_random(0, 1),
            stop=stop_after_delay(timedelta(hours=12)),
            on_failure="pause",
        )

    @classmethod
    def standard_webhooks(cls) -> RetryPolicy:
        """Standard Webhooks': each delivery on its own, ten attempts over about three days, waits up to 10 % longer."""
        steps = [wait_combine(wait_fixed(s), wait_random(0, s / 10)) for s in _STANDARD_WEBHOOKS_WAITS]
        return cls(wait=wait_chain(*steps), stop=stop_after_attempt(len(steps) + 1), on_failure="independent")

    def backoff(self, number: int, since: datetime, now: datetime, status: int | None) -> Backoff:
        """What follows on a failure at `now`.

        Args:
            number: the attempt that failed, 1 for the first.
            since: when the counting began.
            status: the HTTP status of the answer; None without one.
        """
        state = RetryCallState(_RETRYING, fn=None, args=(), kwargs={})
        state.attempt_number = number
        state.start_time = 0.0
        state.outcome_timestamp = max(0.0, (now - since).total_seconds())
        state.outcome = Future.construct(number, AttemptFailed(status), True)
        longest = _LONGEST_WAIT.total_seconds()
        try:
            seconds = min(max(0.0, float(self.wait(state))), longest)
        except OverflowError:
            seconds = longest
        # As tenacity does it: the stop strategy may look at the wait that would follow.
        state.upcoming_sleep = seconds
        return Backoff(wait=timedelta(seconds=seconds), stop=bool(self.stop(state)))


# Strategies may ask the state for its retry object; this one never runs anything.
_RETRYING = Retrying(retry=retry_if_exception_type(AttemptFailed))
