"""The sending half of the model: what a drain does, where each endpoint answers by its mood.

Hooks have nothing to do with each other, so each is drained on its own. All that a hook may have under way is claimed
at once, and of answers that come back together only the first that changes the queue does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

import attrs
from tenacity import RetryCallState

from procore_hooks import DrainReport, RetryPolicy

from .model import Model, ModelDelivery, ModelHook

__all__ = ["LEASE", "MOODS", "Mode", "Mood", "Queues", "answer_of", "policy"]

Mode: TypeAlias = Literal["pause", "independent"]
Mood: TypeAlias = Literal["well", "broken", "gone", "busy", "slow", "aborting", "unreachable", "moody"]

MOODS: Final[tuple[Mood, ...]] = ("well", "broken", "gone", "busy", "slow", "aborting", "unreachable", "moody")
LEASE: Final = timedelta(seconds=15)
LAST_TRY: Final = 4
EVER: Final = datetime.min.replace(tzinfo=UTC)


@attrs.frozen
class Answer:
    """An endpoint's answer; without a status there is none."""

    status: int | None
    headers: dict[str, str] = attrs.field(factory=dict)


def answer_of(mood: Mood, number: int, max_in_flight: int) -> Answer:
    """What an endpoint in this mood answers to the event with this number."""
    if mood == "moody" and max_in_flight == 1:  # where order is not certain, no mood may hang on the event
        return Answer(500 if number % 2 else 204)
    return {
        "well": Answer(200),
        "moody": Answer(200),
        "broken": Answer(500),
        "gone": Answer(410),
        "busy": Answer(503),
        "slow": Answer(429, {"retry-after": "120"}),
        "aborting": Answer(400, {"webhook-delivery": "abort-message"}),
        "unreachable": Answer(None),
    }[mood]


def policy(mode: Mode) -> RetryPolicy:
    """10, 20, 40 seconds, without dice; the fourth failure is the last."""

    def wait(state: RetryCallState) -> float:
        return 10.0 * 2.0 ** (state.attempt_number - 1)

    return RetryPolicy(wait=wait, stop=lambda state: state.attempt_number >= LAST_TRY, on_failure=mode)


class Queues:
    """Drains a model."""

    def __init__(self, model: Model, mode: Mode) -> None:
        self._model = model
        self._mode = mode
        self.moods: dict[int, Mood] = {}

    def room(self, hook: ModelHook) -> int:
        under_way = [d for d in self._model.deliveries.values() if d.hook_id == hook.id and d.lease_until is not None]
        return (1 if hook.failures else hook.max_in_flight) - len(under_way)

    def due(self, hook: ModelHook) -> list[ModelDelivery]:
        """What may be claimed from the hook now, in this order."""
        now = self._model.now
        if hook.status == "disabled" or (hook.paused_until is not None and hook.paused_until > now):
            return []
        waiting = [d for d in self._model.waiting(hook.id) if d.due_at is None or d.due_at <= now]
        # A ping is ahead of all that waits, so of two the newer one goes first.
        waiting.sort(
            key=lambda d: (-d.id, EVER, 0) if d.kind == "ping" else (1 + (d.kind == "fresh"), d.due_at or EVER, d.id)
        )
        return waiting[: max(0, self.room(hook))]

    def claim_all(self) -> None:
        """A dispatcher claims what it can, and is never heard of again."""
        self._expire()
        for hook in self._model.hooks.values():
            for one in self.due(hook):
                one.lease_until = self._model.now + LEASE
                one.due_at = None

    def _expire(self) -> None:
        """Attempts whose lease is over are unknown, and their deliveries wait again."""
        for one in self._model.deliveries.values():
            if one.lease_until is not None and one.lease_until <= self._model.now:
                one.lease_until = None
                one.attempts.append(("unknown", None))
                one.kind = "returned"
                if one.doom is not None:
                    one.finish("discarded", one.doom, self._model.now)
                else:
                    one.status = "retrying"

    def drain(self) -> tuple[DrainReport, dict[int, list[int]]]:
        """What the dispatcher reports, and the ids of the events that each hook gets, in order."""
        before = {one.id: one.status for one in self._model.deliveries.values()}
        self._expire()
        retried = 0
        sent: dict[int, list[int]] = {}
        for hook in self._model.hooks.values():
            while batch := self.due(hook):
                sent.setdefault(hook.id, []).extend(one.event_id for one in batch)
                may_change = True
                for one in batch:
                    answer = answer_of(self.moods.get(hook.id, "well"), one.number, hook.max_in_flight)
                    may_change = not self._settle(hook, one, answer, may_change) and may_change
                    retried += one.status == "retrying"
        after = [one.status for one in self._model.deliveries.values() if one.status != before[one.id]]
        report = DrainReport(
            delivered=after.count("delivered"),
            retried=retried,
            failed=after.count("failed"),
            discarded=after.count("discarded"),
            next_due_at=self.next_due_at(),
        )
        return report, sent

    def _settle(self, hook: ModelHook, one: ModelDelivery, answer: Answer, may_change: bool) -> bool:
        """Returns whether it changed the queue, as it does only if it may."""
        one.kind, one.due_at = "returned", None
        if answer.status in (200, 204):
            one.attempts.append(("ok", answer.status))
            one.finish("delivered", None, self._model.now)
            return may_change and self._recovered(hook)
        if answer.status == 410:
            self._put_off(one, answer)
            if may_change:
                hook.status, hook.updated_at = "disabled", self._model.now
                hook.failures, hook.failing_since, hook.paused_until = 0, None, None
            return may_change
        if "webhook-delivery" in answer.headers:
            one.attempts.append(("failed", answer.status))
            one.finish("failed", "the endpoint aborted this message", self._model.now)
            return False
        fail = self._fail_and_pause if self._mode == "pause" else self._fail_alone
        return fail(hook, one, answer, may_change)

    def _recovered(self, hook: ModelHook) -> bool:
        if hook.failing_since is None:
            return False
        hook.failures, hook.failing_since = 0, None
        if self._mode == "pause":
            hook.paused_until = None
        return True

    def _put_off(self, one: ModelDelivery, answer: Answer) -> None:
        one.attempts.append(("retried", answer.status))
        one.status = "retrying"

    def _give_up(self, one: ModelDelivery, answer: Answer) -> None:
        one.attempts.append(("failed", answer.status))
        one.finish("failed", "given up after", self._model.now)

    def _fail_and_pause(self, hook: ModelHook, one: ModelDelivery, answer: Answer, may_change: bool) -> bool:
        if may_change and hook.failures + 1 == LAST_TRY:
            self._give_up(one, answer)
            hook.failures, hook.failing_since, hook.paused_until = 0, None, None
            self._model.drop(hook.id, "the queue was flushed after")
            return True
        self._put_off(one, answer)
        if may_change:
            hook.failures += 1
            hook.failing_since = hook.failing_since or self._model.now
            hook.paused_until = self._model.now + _wait(hook.failures, answer)
        return may_change

    def _fail_alone(self, hook: ModelHook, one: ModelDelivery, answer: Answer, may_change: bool) -> bool:
        now, number = self._model.now, len(one.attempts) + 1
        wait = _wait(number, answer)
        if number >= LAST_TRY:
            self._give_up(one, answer)
        else:
            self._put_off(one, answer)
            one.due_at = now + wait
        paused_until = hook.paused_until
        if answer.status in (429, 503):
            slow_down = wait if answer.headers else min(wait, timedelta(minutes=1))
            paused_until = max(paused_until or now, now + slow_down)
        if not may_change or (hook.failing_since is not None and paused_until == hook.paused_until):
            return False
        hook.failing_since, hook.paused_until = hook.failing_since or now, paused_until
        return True

    def next_due_at(self) -> datetime | None:
        """The next moment at which a lease is over or something can be claimed."""
        moments = [one.lease_until for one in self._model.deliveries.values() if one.lease_until is not None]
        for hook in self._model.hooks.values():
            waiting = [one.due_at or EVER for one in self._model.waiting(hook.id)]
            if waiting and hook.status == "active" and self.room(hook) > 0:
                moments.append(max(min(waiting), hook.paused_until or EVER))
        return min(moments, default=None)


def _wait(number: int, answer: Answer) -> timedelta:
    asked = timedelta(seconds=int(answer.headers.get("retry-after", "0")))
    return max(timedelta(seconds=10 * 2 ** (number - 1)), asked)
