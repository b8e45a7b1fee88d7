"""What follows from an attempt: the whole table of answers, under both modes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks._core.claims import Claim, HookChange, Settlement
from procore_hooks._core.decide import (
    Answer,
    Backoff,
    FailureMode,
    backoff_basis,
    decide,
    is_success,
)
from procore_hooks._core.models import Attempt, Event, Hook
from procore_hooks._core.secret import Secret

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
MODES: list[FailureMode] = ["pause", "independent"]
OTHER_FAILURES = [100, 199, 301, 302, 307, 308, 400, 401, 404, 409, 418, 429, 500, 502, 503, 504, 599]


def a_claim(
    *,
    number: int = 1,
    failures: int = 0,
    failing_since: datetime | None = None,
    paused_until: datetime | None = None,
    first_attempt_at: datetime | None = None,
) -> Claim:
    hook = Hook(
        id=7,
        namespace="acme",
        destination_url="https://acme.example/",
        signing_secret=Secret("s"),
        failing_since=failing_since,
        paused_until=paused_until,
        created_at=NOW,
        updated_at=NOW,
    )
    event = Event(id=1, ulid="1", resource="RFIs", action="update", occurred_at=NOW)
    return Claim(
        delivery_id=3,
        hook=hook,
        event=event,
        number=number,
        epoch=2,
        failures=failures,
        first_attempt_at=first_attempt_at,
        claimed_at=NOW,
        lease_until=NOW + MINUTE,
    )


def settle(
    answer: Answer,
    claim: Claim | None = None,
    *,
    mode: FailureMode = "pause",
    wait: timedelta = 4 * SECOND,
    stop: bool = False,
    most: timedelta = HOUR,
) -> Settlement:
    claim = claim or a_claim()
    attempt = Attempt(number=claim.number, outcome="unknown", request_url="https://acme.example/", started_at=NOW)
    settlement = decide(
        claim, attempt, answer, backoff=Backoff(wait=wait, stop=stop), mode=mode, max_retry_after=most, now=NOW
    )
    # Always: the claim it was decided for, and the attempt as it was but for its outcome.
    assert settlement.claim is claim
    assert settlement.attempt == attrs.evolve(attempt, outcome=settlement.attempt.outcome)
    return settlement


def answered(status: int | None, **headers: str) -> Answer:
    return Answer(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        error=None if status else "connection refused",
    )


# Success


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 226, 299])
def test_any_2xx_is_success(status: int, mode: FailureMode) -> None:
    """Whatever the policy or Retry-After says; a hook that was well is left alone, so nothing is written to it."""
    settlement = settle(answered(status, retry_after="60"), mode=mode, stop=True)
    assert (settlement.status, settlement.attempt.outcome) == ("delivered", "ok")
    assert (settlement.reason, settlement.due_at, settlement.hook_change) == (None, None, None)


@pytest.mark.parametrize(
    "claim", [a_claim(failures=3, failing_since=NOW - HOUR, paused_until=NOW), a_claim(failing_since=NOW - HOUR)]
)
def test_a_success_ends_the_run_of_failures(claim: Claim) -> None:
    """Counters and pause are reset."""
    assert settle(answered(200), claim).hook_change == HookChange()


def test_a_lone_success_leaves_a_slow_down() -> None:
    """Under "independent" the pause is what a 429 asked for: another delivery's success does not lift it."""
    claim = a_claim(failing_since=NOW - HOUR, paused_until=NOW + MINUTE)
    change = settle(answered(200), claim, mode="independent").hook_change
    assert change == HookChange(paused_until=NOW + MINUTE)


@pytest.mark.parametrize("status", [None, 0, 199, 300, 304, 400, 500])
def test_what_is_no_success(status: int | None) -> None:
    """2xx alone is; redirects are not, nor is no answer."""
    assert not is_success(Answer(status=status))


# Failures under "pause"


@pytest.mark.parametrize("status", [None, *OTHER_FAILURES])
def test_a_failure_pauses_the_hook(status: int | None) -> None:
    """The first failure of a hook begins its run; the delivery keeps its place, which is what no due moment means."""
    settlement = settle(answered(status))
    assert (settlement.status, settlement.attempt.outcome, settlement.due_at) == ("retrying", "retried", None)
    assert settlement.hook_change == HookChange(failures=1, failing_since=NOW, paused_until=NOW + 4 * SECOND)


def test_a_further_failure_lengthens_the_run() -> None:
    """Since when stays, how many rises, the pause is new."""
    claim = a_claim(number=2, failures=5, failing_since=NOW - HOUR, paused_until=NOW - SECOND)
    change = settle(answered(500), claim, wait=32 * SECOND).hook_change
    assert change == HookChange(failures=6, failing_since=NOW - HOUR, paused_until=NOW + 32 * SECOND)


@pytest.mark.parametrize(
    ("answer", "last"),
    [(answered(503), "HTTP 503"), (answered(None), "connection refused"), (Answer(), "no answer")],
)
def test_the_last_failure_flushes_the_queue(answer: Answer, last: str) -> None:
    """When the policy stops: this one failed, what waits is flushed, both with words that say how long it went."""
    claim = a_claim(number=3, failures=23, failing_since=NOW - 12 * HOUR - 5 * MINUTE)
    settlement = settle(answer, claim, stop=True)
    assert (settlement.status, settlement.attempt.outcome) == ("failed", "failed")
    spell = "24 attempts in 12 h 5 min without a success"
    assert settlement.reason == f"given up after {spell}; the last: {last}"
    assert settlement.hook_change == HookChange(flush_reason=f"the queue was flushed after {spell}")


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(0), "0 s"),
        (59 * SECOND, "59 s"),
        (60 * SECOND, "1 min"),
        (61 * SECOND, "1 min 1 s"),
        (HOUR, "1 h"),
        (HOUR + 59 * SECOND, "1 h"),
        (25 * HOUR + 2 * MINUTE, "25 h 2 min"),
        (-HOUR, "0 s"),
    ],
)
def test_spans_in_words(span: timedelta, words: str) -> None:
    """Two units at most; a clock that stepped back gives nothing negative."""
    reason = settle(answered(500), a_claim(failing_since=NOW - span), stop=True).reason
    assert reason is not None
    assert f" in {words} without" in reason


# Failures under "independent"


@pytest.mark.parametrize("status", [None, 302, 400, 404, 500])
def test_a_failure_concerns_its_delivery_alone(status: int | None) -> None:
    """It comes back when it is due; the hook is not paused and no failures are counted, which would stop the flow."""
    settlement = settle(answered(status), mode="independent")
    assert (settlement.status, settlement.attempt.outcome) == ("retrying", "retried")
    assert settlement.due_at == NOW + 4 * SECOND
    assert settlement.hook_change == HookChange(failures=0, failing_since=NOW, paused_until=None)


def test_a_hook_that_is_known_to_fail_is_left_alone() -> None:
    """Nothing new to say about the hook: nothing is written."""
    claim = a_claim(failing_since=NOW - HOUR)
    assert settle(answered(500), claim, mode="independent").hook_change is None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_these_slow_the_hook_down(status: int) -> None:
    """Without Retry-After for as long as the delivery waits, a minute at most."""
    for wait, pause in ((4 * SECOND, 4 * SECOND), (5 * HOUR, MINUTE)):
        settlement = settle(answered(status), mode="independent", wait=wait)
        assert settlement.due_at == NOW + wait
        assert settlement.hook_change == HookChange(failing_since=NOW, paused_until=NOW + pause)


def test_a_slow_down_is_not_shortened() -> None:
    """Of two that were asked for, the later end holds."""
    claim = a_claim(failing_since=NOW - HOUR, paused_until=NOW + HOUR)
    assert settle(answered(503, retry_after="60"), claim, mode="independent").hook_change is None
    change = settle(answered(503, retry_after="3600"), claim, mode="independent", most=2 * HOUR).hook_change
    assert change is None
    change = settle(answered(503, retry_after="7200"), claim, mode="independent", most=2 * HOUR).hook_change
    assert change == HookChange(failing_since=NOW - HOUR, paused_until=NOW + 2 * HOUR)


def test_the_last_failure_of_a_delivery_alone() -> None:
    """It is failed, in words of its own attempts; nothing is flushed."""
    claim = a_claim(number=10, first_attempt_at=NOW - 75 * HOUR, failing_since=NOW - HOUR)
    settlement = settle(answered(500), claim, mode="independent", stop=True)
    assert (settlement.status, settlement.attempt.outcome, settlement.due_at) == ("failed", "failed", None)
    assert settlement.reason == "given up after 10 attempts in 75 h; the last: HTTP 500"
    assert settlement.hook_change is None


# What the endpoint asks for


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        answered(410),
        answered(410, retry_after="60"),
        answered(500, webhook_delivery="disable"),
        answered(404, webhook_delivery=" Disable "),
        answered(410, webhook_delivery="abort-message"),
    ],
    ids=range(5),
)
def test_gone_disables_the_hook_and_keeps_its_queue(answer: Answer, mode: FailureMode, stop: bool) -> None:
    """The delivery waits with the rest, even where the policy would give it up now."""
    settlement = settle(answer, mode=mode, stop=stop)
    assert (settlement.status, settlement.attempt.outcome, settlement.due_at) == ("retrying", "retried", None)
    assert settlement.hook_change == HookChange(disable=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_success_may_disable_the_hook(mode: FailureMode) -> None:
    """Taken, and no more, please: delivered, and disabled."""
    settlement = settle(answered(200, webhook_delivery="disable"), mode=mode)
    assert (settlement.status, settlement.hook_change) == ("delivered", HookChange(disable=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answered(400, webhook_delivery="abort-message"), "HTTP 400"),
        (answered(503, webhook_delivery="ABORT-MESSAGE", retry_after="60"), "HTTP 503"),
    ],
)
def test_abort_message_fails_this_delivery_alone(answer: Answer, words: str, mode: FailureMode) -> None:
    """`failed`, with a reason, and the hook is not paused."""
    settlement = settle(answer, mode=mode)
    assert (settlement.status, settlement.attempt.outcome) == ("failed", "failed")
    assert settlement.reason == f"the endpoint aborted this message ({words})"
    assert settlement.hook_change is None


def test_abort_message_on_success_is_success() -> None:
    """It was taken."""
    assert settle(answered(200, webhook_delivery="abort-message")).status == "delivered"


@pytest.mark.parametrize("directive", ["", "abort", "disabled", "disable, abort-message"])
def test_other_directives_say_nothing(directive: str) -> None:
    """Only the two words that the specification knows."""
    assert settle(answered(500, webhook_delivery=directive)) == settle(answered(500))


# Retry-After


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("60", 60),
        ("0", 4),
        ("1", 4),
        ("-1", 4),
        ("soon", 4),
        ("۱۲۰", 4),
        ("7200", 3600),
        ("99999999999999999999", 3600),
        ("Wed, 01 Jan 2025 12:10:00 GMT", 600),
        ("Wed, 01 Jan 2025 11:00:00 GMT", 4),
    ],
)
def test_retry_after_under_pause(status: int, value: str, wait: int) -> None:
    """The pause is at least that long, at most `max_retry_after`, and never shorter than the policy's own."""
    change = settle(answered(status, retry_after=value)).hook_change
    assert change is not None
    assert change.paused_until == NOW + timedelta(seconds=wait)


def test_retry_after_does_not_shorten_a_long_wait() -> None:
    """`max_retry_after` bounds what the endpoint asks for, not what the policy says."""
    change = settle(answered(429, retry_after="60"), wait=2 * HOUR).hook_change
    assert change is not None
    assert change.paused_until == NOW + 2 * HOUR


@pytest.mark.parametrize("status", [400, 429, 503])
def test_retry_after_alone_slows_the_hook_down(status: int) -> None:
    """Under "independent" any Retry-After holds the whole hook up, and this delivery at least as long."""
    settlement = settle(answered(status, retry_after="60"), mode="independent")
    assert settlement.due_at == NOW + MINUTE
    assert settlement.hook_change == HookChange(failing_since=NOW, paused_until=NOW + MINUTE)


# What the policy counts from


def test_backoff_basis() -> None:
    """Under "pause" the hook's run of failures, under "independent" the delivery's own attempts."""
    fresh = a_claim()
    assert backoff_basis(fresh, "pause", NOW, NOW + SECOND) == (1, NOW + SECOND)
    assert backoff_basis(fresh, "independent", NOW, NOW + SECOND) == (1, NOW)
    later = a_claim(number=4, failures=9, failing_since=NOW - HOUR, first_attempt_at=NOW - MINUTE)
    assert backoff_basis(later, "pause", NOW, NOW + SECOND) == (10, NOW - HOUR)
    assert backoff_basis(later, "independent", NOW, NOW + SECOND) == (4, NOW - MINUTE)


@given(
    answer=st.builds(
        Answer,
        status=st.none() | st.integers(100, 599),
        headers=st.dictionaries(
            st.sampled_from(["retry-after", "webhook-delivery"]),
            st.sampled_from(["60", "-1", "99999999999", "disable", "abort-message", "x"]),
        ),
    ),
    mode=st.sampled_from(MODES),
    stop=st.booleans(),
    wait=st.timedeltas(timedelta(0), timedelta(days=365)),
    claim=st.builds(
        a_claim,
        number=st.integers(1, 30),
        failures=st.integers(0, 30),
        failing_since=st.none() | st.just(NOW - HOUR),
        paused_until=st.none() | st.just(NOW + HOUR),
    ),
)
def test_what_holds_for_every_answer(answer: Answer, claim: Claim, **given: Any) -> None:
    """Success iff 2xx; failed and discarded have a reason; only what is retried waits, and never for the past."""
    settlement = settle(answer, claim, **given)
    assert (settlement.status == "delivered") is (settlement.attempt.outcome == "ok") is is_success(answer)
    assert (settlement.status == "failed") is (settlement.reason is not None)
    assert (settlement.status == "retrying") is (settlement.attempt.outcome == "retried")
    assert settlement.due_at is None or settlement.due_at >= NOW
    assert settlement.due_at is None or (settlement.status, given["mode"]) == ("retrying", "independent")
    change = settlement.hook_change
    if change is not None and not is_success(answer):
        assert change.paused_until is None or change.paused_until >= NOW
        assert change.flush_reason is None or (given["stop"], given["mode"]) == (True, "pause")
        assert (change.failures > 0) is (
            given["mode"] == "pause" and settlement.status == "retrying" and not change.disable
        )
