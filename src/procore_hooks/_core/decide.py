"""What follows from an attempt: the answer goes in, the settlement comes out.

The rules, with their sources:

- Any 2xx is success, whatever the body holds (Procore). A success ends the hook's run of failures.
- Everything else is a failure: other statuses, redirects (never followed), no answer at all.
- Under ``"pause"`` (Procore) a failure pauses the hook: the delivery keeps its place, the next try is a probe, and
  when the policy stops, the probe is ``failed`` and all that waits behind it is flushed. The next event starts afresh.
- Under ``"independent"`` (Standard Webhooks) a failure concerns its delivery alone, which comes back when it is due.
- 429, 502, 503, 504 and any ``Retry-After`` slow the hook down: its pause is at least that long, clamped to
  `max_retry_after` (RFC 9110, section 10.2.3; Standard Webhooks).
- 410, or ``webhook-delivery: disable``, disables the hook and keeps its queue. ``webhook-delivery: abort-message`` on
  a failure makes this delivery ``failed`` and pauses nothing (Standard Webhooks).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Literal

import attrs

from .claims import Claim, HookChange, Settlement
from .models import Attempt
from .states import OUTCOMES, Happening, after

__all__ = ["Answer", "Backoff", "FailureMode", "backoff_basis", "decide", "is_success", "parse_retry_after"]

FailureMode = Literal["pause", "independent"]

_SLOW_DOWN: Final = frozenset({429, 502, 503, 504})
_GONE: Final = 410
# Under "independent", a 429 or 5xx without a Retry-After holds the other deliveries of the hook up no longer than this.
_UNSAID_SLOW_DOWN: Final = timedelta(minutes=1)


@attrs.frozen(kw_only=True)
class Answer:
    """What came of a POST: a status, or an error in words.

    Attributes:
        headers: lower-case names.
    """

    status: int | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    error: str | None = None

    @property
    def directive(self) -> str:
        """The value of ``webhook-delivery``, lower case; empty without one."""
        return self.headers.get("webhook-delivery", "").strip().lower()


@attrs.frozen(kw_only=True)
class Backoff:
    """What the retry policy says after a failure: how long to wait, or to stop."""

    wait: timedelta
    stop: bool


def is_success(answer: Answer) -> bool:
    """Whether the endpoint took the delivery."""
    return answer.status is not None and 200 <= answer.status <= 299


def parse_retry_after(value: str | None, now: datetime, most: timedelta) -> timedelta | None:
    """A ``Retry-After`` header as a wait from `now`, clamped to 0..`most`; None if absent or not understood."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # Longer than any sane wait, and too long for int() to be safe with.
        seconds = most.total_seconds() if len(text) > 9 else min(int(text), most.total_seconds())
        return timedelta(seconds=seconds)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(moment - now, timedelta(0)), most)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def backoff_basis(claim: Claim, mode: FailureMode, started_at: datetime, now: datetime) -> tuple[int, datetime]:
    """The attempt number and the start that the retry policy counts from, after a failure at `now`.

    Under ``"pause"`` they are the hook's run of failures, under ``"independent"`` the delivery's own attempts.
    """
    if mode == "pause":
        return claim.failures + 1, claim.hook.failing_since or now
    return claim.number, claim.first_attempt_at or started_at


def decide(
    claim: Claim,
    attempt: Attempt,
    answer: Answer,
    *,
    backoff: Backoff,
    mode: FailureMode,
    max_retry_after: timedelta,
    now: datetime,
) -> Settlement:
    """The settlement of a claimed attempt.

    Args:
        attempt: as it is to be recorded; its outcome is set here.
        backoff: what the policy says about a failure; not looked at on success.
        now: when the attempt was over.
    """
    if is_success(answer):
        return _settlement(claim, attempt, "accepted", change=_after_success(claim, answer, mode))
    if answer.status == _GONE or answer.directive == "disable":
        return _settlement(claim, attempt, "put_off", change=HookChange(disable=True))
    if answer.directive == "abort-message":
        reason = f"the endpoint aborted this message ({_in_words(answer)})"
        return _settlement(claim, attempt, "aborted", reason=reason)
    retry_after = parse_retry_after(answer.headers.get("retry-after"), now, max_retry_after)
    wait = max(backoff.wait, retry_after or timedelta(0))
    if mode == "pause":
        return _after_failure_that_pauses(claim, attempt, answer, wait, backoff.stop, now)
    return _after_failure_alone(claim, attempt, answer, retry_after, wait, backoff.stop, now)


def _after_success(claim: Claim, answer: Answer, mode: FailureMode) -> HookChange | None:
    if answer.directive == "disable":
        return HookChange(disable=True)
    # Nothing to reset is the common case, and costs the storage nothing.
    if claim.failures or claim.hook.failing_since is not None:
        paused_until = claim.hook.paused_until if mode == "independent" else None
        return HookChange(paused_until=paused_until)
    return None


def _after_failure_that_pauses(
    claim: Claim, attempt: Attempt, answer: Answer, wait: timedelta, stop: bool, now: datetime
) -> Settlement:
    failures = claim.failures + 1
    failing_since = claim.hook.failing_since or now
    if stop:
        spell = f"{failures} attempts in {_duration(now - failing_since)} without a success"
        reason = f"given up after {spell}; the last: {_in_words(answer)}"
        flushed = HookChange(flush_reason=f"the queue was flushed after {spell}")
        return _settlement(claim, attempt, "exhausted", reason=reason, change=flushed)
    change = HookChange(failures=failures, failing_since=failing_since, paused_until=now + wait)
    return _settlement(claim, attempt, "put_off", change=change)


def _after_failure_alone(
    claim: Claim,
    attempt: Attempt,
    answer: Answer,
    retry_after: timedelta | None,
    wait: timedelta,
    stop: bool,
    now: datetime,
) -> Settlement:
    paused_until = claim.hook.paused_until
    if retry_after is not None or answer.status in _SLOW_DOWN:
        slow_down = retry_after if retry_after is not None else min(wait, _UNSAID_SLOW_DOWN)
        paused_until = max(paused_until or now, now + slow_down)
    change = None
    if claim.failures or claim.hook.failing_since is None or paused_until != claim.hook.paused_until:
        # No failures are counted for the hook: that would make its next attempt a probe and stop the flow.
        change = HookChange(failing_since=claim.hook.failing_since or now, paused_until=paused_until)
    if stop:
        spent = _duration(now - (claim.first_attempt_at or attempt.started_at))
        reason = f"given up after {claim.number} attempts in {spent}; the last: {_in_words(answer)}"
        return _settlement(claim, attempt, "exhausted", reason=reason, change=change)
    return _settlement(claim, attempt, "put_off", due_at=now + wait, change=change)


def _settlement(
    claim: Claim,
    attempt: Attempt,
    happening: Happening,
    *,
    reason: str | None = None,
    due_at: datetime | None = None,
    change: HookChange | None = None,
) -> Settlement:
    outcome = OUTCOMES[happening]
    return Settlement(
        claim=claim,
        attempt=attempt if attempt.outcome == outcome else attrs.evolve(attempt, outcome=outcome),
        status=after("enqueued", happening),
        reason=reason,
        due_at=due_at,
        hook_change=change,
    )


def _in_words(answer: Answer) -> str:
    return f"HTTP {answer.status}" if answer.status is not None else answer.error or "no answer"


def _duration(span: timedelta) -> str:
    seconds = max(0, round(span.total_seconds()))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    return f"{seconds} s"
