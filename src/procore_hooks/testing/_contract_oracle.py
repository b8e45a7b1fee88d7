"""What a storage should do, written as plainly as it can be: lists, loops, and no thought of speed.

The oracle does not foretell which hooks a turn serves where the specification leaves that open; it judges what the
storage chose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import attrs

from .._core.models import Delivery, DeliveryStatus, Hook
from ..storage._base import Claim, Settlement, Turn

__all__ = ["FINAL", "Oracle", "OracleDelivery", "OracleHook"]

FINAL = ("delivered", "failed", "discarded")
_EVER = datetime.min.replace(tzinfo=UTC)


@attrs.define(eq=False)
class OracleHook:
    """A hook as the oracle sees it."""

    id: int
    resource: str
    max_in_flight: int
    drops: bool
    disabled: bool = False
    deleted: bool = False
    failures: int = 0
    failing_since: datetime | None = None
    paused_until: datetime | None = None
    epoch: int = 0
    served: int = 0


@attrs.define(eq=False)
class OracleDelivery:
    """A delivery as the oracle sees it: `due` is a moment, ``"fresh"``, ``"ping"``, or None for since ever."""

    id: int
    hook: OracleHook
    event_id: int
    created_at: datetime
    status: DeliveryStatus = "enqueued"
    due: datetime | str | None = "fresh"
    outcomes: list[str] = attrs.field(factory=list)
    claims: int = 0
    lease_until: datetime | None = None
    epoch_seen: int = -1
    doom: str | None = None
    reason: str | None = None
    is_redelivery: bool = False

    @property
    def waits(self) -> bool:
        return self.status not in FINAL and self.lease_until is None

    @property
    def under_way(self) -> bool:
        return self.lease_until is not None

    def discard(self, reason: str) -> None:
        self.status, self.reason = "discarded", reason


class Oracle:
    """Hooks and deliveries, and what each verb does to them. `check_turn` compares a turn of the storage."""

    def __init__(self) -> None:
        self.hooks: list[OracleHook] = []
        self.deliveries: dict[int, OracleDelivery] = {}
        self.open: dict[int, OracleDelivery] = {}  # those that are not final
        self.turns = 0
        self.latest = _EVER  # the latest moment that a turn was told

    def add(self, delivery: OracleDelivery) -> None:
        """A delivery was made."""
        if delivery.hook.disabled and delivery.hook.drops:
            delivery.status = "discarded"
        else:
            self.open[delivery.id] = delivery
        self.deliveries[delivery.id] = delivery

    def waiting(self, hook: OracleHook) -> list[OracleDelivery]:
        """What waits for the hook."""
        return [delivery for delivery in self.open.values() if delivery.hook is hook and delivery.waits]

    def under_way(self, hook: OracleHook) -> list[OracleDelivery]:
        """What is under way to the hook."""
        return [delivery for delivery in self.open.values() if delivery.hook is hook and delivery.under_way]

    def enable(self, hook: OracleHook) -> None:
        """`enable_hook`."""
        hook.disabled, hook.failures, hook.failing_since, hook.paused_until = False, 0, None, None
        hook.epoch += 1
        for delivery in self.waiting(hook):
            if isinstance(delivery.due, datetime):
                delivery.due = None

    def drop(self, hook: OracleHook, reason: str) -> None:
        """Discard what waits; what is under way, should it come back."""
        for delivery in self.open.values():
            if delivery.hook is hook and delivery.under_way:
                delivery.doom = reason
            elif delivery.hook is hook and delivery.waits:
                delivery.discard(reason)

    def lost(self, hook: OracleHook, since: datetime, until: datetime) -> list[int]:
        """The event of each delivery that `recover` makes, in order."""
        mine = [delivery for delivery in self.deliveries.values() if delivery.hook is hook]
        covered = {each.event_id for each in mine if each.is_redelivery and each.status not in ("failed", "discarded")}
        events: list[int] = []
        for delivery in sorted(mine, key=lambda each: each.id):
            lost = delivery.status in ("failed", "discarded") and since <= delivery.created_at < until
            if lost and delivery.event_id not in covered and delivery.event_id not in events:
                events.append(delivery.event_id)
        return events

    def prune(self, before: datetime) -> int:
        """`prune`."""
        gone = [each.id for each in self.deliveries.values() if each.status in FINAL and each.created_at < before]
        for delivery_id in gone:
            del self.deliveries[delivery_id]
        return len(gone)

    def move(self, by: timedelta) -> None:
        """The wall clock was set: what is to come moves along."""
        self.latest += by
        for hook in self.hooks:
            hook.failing_since = hook.failing_since and hook.failing_since + by
            hook.paused_until = hook.paused_until and hook.paused_until + by
        for delivery in self.open.values():
            delivery.lease_until = delivery.lease_until and delivery.lease_until + by
            delivery.due = delivery.due + by if isinstance(delivery.due, datetime) else delivery.due

    # A turn

    def check_turn(
        self, settlements: Sequence[Settlement], turn: Turn, *, now: datetime, due_by: datetime, capacity: int
    ) -> set[int]:
        """Do what a turn has to do, and compare. Returns the ids of the deliveries that it touched."""
        self.turns += 1
        self.latest = max(self.latest, now)
        touched = {settlement.claim.delivery_id for settlement in settlements}
        self._settle(settlements, turn)
        touched |= self._expire(turn, now)
        self._check_claims(turn.claims, now, due_by, capacity)
        touched |= {claim.delivery_id for claim in turn.claims}
        self.open = {each.id: each for each in self.open.values() if each.status not in FINAL}
        self._check_next_due_at(turn, now, due_by)
        return touched

    def _settle(self, settlements: Sequence[Settlement], turn: Turn) -> None:
        taken, late = [], []
        for settlement in settlements:
            delivery = self.deliveries.get(settlement.claim.delivery_id)
            if delivery is None or not delivery.under_way or delivery.claims != settlement.claim.number:
                late.append(settlement)
                continue
            taken.append((settlement, self._take(delivery, settlement), delivery))
        assert list(turn.late) == late, "late settlements"
        assert [settled.settlement for settled in turn.settled] == [settlement for settlement, _, _ in taken]
        for settled, (_, (status, changed), delivery) in zip(turn.settled, taken, strict=True):
            assert settled.status == status, f"status of delivery {delivery.id}"
            if not delivery.hook.deleted:
                assert settled.changed == changed, f"change by delivery {delivery.id}"

    def _take(self, delivery: OracleDelivery, settlement: Settlement) -> tuple[DeliveryStatus, bool]:
        hook, change = delivery.hook, settlement.hook_change
        delivery.lease_until = None
        delivery.outcomes.append(settlement.attempt.outcome)
        if settlement.status != "retrying":
            delivery.status, delivery.reason = settlement.status, settlement.reason
        elif delivery.doom is not None:
            delivery.discard(delivery.doom)
        else:
            delivery.status, delivery.due = "retrying", settlement.due_at
        if change is None or hook.deleted or hook.epoch != delivery.epoch_seen:
            return delivery.status, False
        hook.epoch += 1
        hook.failures, hook.failing_since = change.failures, change.failing_since
        hook.paused_until, hook.disabled = change.paused_until, hook.disabled or change.disable
        if change.flush_reason is not None:
            self.drop(hook, change.flush_reason)
        return delivery.status, True

    def _expire(self, turn: Turn, now: datetime) -> set[int]:
        found = [each for each in self.open.values() if each.lease_until is not None and each.lease_until <= now]
        returned = [each for each in found if each.doom is None]
        assert len(returned) <= turn.expired <= len(found), "expired leases"
        for delivery in found:
            delivery.lease_until = None
            delivery.outcomes.append("unknown")
            if delivery.doom is not None:
                delivery.discard(delivery.doom)
            else:
                delivery.status, delivery.due = "retrying", None
        return {delivery.id for delivery in found}

    def _ready_from(self, hook: OracleHook) -> datetime | None:
        """From when the hook is ready; None if time alone does not make it so."""
        most = 1 if hook.failures > 0 else hook.max_in_flight
        if hook.deleted or hook.disabled or len(self.under_way(hook)) >= most:
            return None
        moments = [each.due if isinstance(each.due, datetime) else _EVER for each in self.waiting(hook)]
        return max(min(moments), hook.paused_until or _EVER) if moments else None

    def _due(self, hook: OracleHook, due_by: datetime) -> list[OracleDelivery]:
        """What may be claimed of the hook, in order."""
        moment = self._ready_from(hook)
        if moment is None or moment > due_by:
            return []

        def key(delivery: OracleDelivery) -> tuple[int, datetime, int]:
            if isinstance(delivery.due, datetime) or delivery.due is None:
                return 1, delivery.due or _EVER, delivery.id
            return (0 if delivery.due == "ping" else 2), _EVER, delivery.id

        due = [each for each in self.waiting(hook) if not isinstance(each.due, datetime) or each.due <= due_by]
        most = 1 if hook.failures > 0 else hook.max_in_flight
        return sorted(due, key=key)[: most - len(self.under_way(hook))]

    def _check_claims(self, claims: Sequence[Claim], now: datetime, due_by: datetime, capacity: int) -> None:
        due = {hook.id: queue for hook in self.hooks if (queue := self._due(hook, due_by))}
        got = Counter(claim.hook.id for claim in claims)
        assert len(claims) == min(capacity, sum(len(queue) for queue in due.values())), "number of claims"
        for hook_id, number in got.items():
            expected = [delivery.id for delivery in due.get(hook_id, [])][:number]
            assert [each.delivery_id for each in claims if each.hook.id == hook_id] == expected, f"order of {hook_id}"
        self._check_fairness(due, got, capacity)
        for claim in claims:
            self._check_claim(claim, now)

    def _check_fairness(self, due: dict[int, list[OracleDelivery]], got: Counter[int], capacity: int) -> None:
        hooks = {hook.id: hook for hook in self.hooks}
        left_out = [hooks[hook_id] for hook_id in due if hook_id not in got]
        if left_out and got:
            assert len(got) == capacity, "a ready hook was left out for another's second delivery"
            chosen = max((hooks[hook_id] for hook_id in got), key=lambda hook: hook.served)
            oldest = min(left_out, key=lambda hook: hook.served)
            assert oldest.served >= chosen.served, (
                f"hook {oldest.id}, last served in turn {oldest.served}, was left out in turn {self.turns} "
                f"for hook {chosen.id}, last served in turn {chosen.served}"
            )
        for hook_id, number in got.items():
            if number < len(due[hook_id]):
                assert number >= max(got.values()) - 1, "the room was not shared evenly"
        for hook_id in got:
            hooks[hook_id].served = self.turns

    def _check_claim(self, claim: Claim, now: datetime) -> None:
        delivery = self.deliveries[claim.delivery_id]
        hook = delivery.hook
        delivery.claims += 1
        delivery.lease_until, delivery.epoch_seen = claim.lease_until, hook.epoch
        assert claim.claimed_at == now
        assert claim.event.id == delivery.event_id
        assert (claim.number, claim.failures) == (delivery.claims, hook.failures), f"claim of {delivery.id}"
        assert (claim.first_attempt_at is None) == (claim.number == 1)
        self.check_hook(claim.hook, hook, now)

    def check_hook(self, hook: Hook, expected: OracleHook, now: datetime) -> None:
        """Compare a hook. A pause that is over may still be told, or not."""
        assert (hook.status == "disabled") == expected.disabled, f"status of hook {expected.id}"
        assert hook.failing_since == expected.failing_since, f"failing_since of hook {expected.id}"
        if expected.paused_until is None or expected.paused_until > now:
            assert hook.paused_until == expected.paused_until, f"paused_until of hook {expected.id}"

    def _check_next_due_at(self, turn: Turn, now: datetime, due_by: datetime) -> None:
        ready = [moment for hook in self.hooks if (moment := self._ready_from(hook)) is not None]
        leases = [each.lease_until for each in self.open.values() if each.lease_until is not None]
        # Whether the lease of a hook that is disabled or gone counts is not said.
        gone = (each for each in self.open.values() if each.hook.deleted or each.hook.disabled)
        optional = [each.lease_until for each in gone if each.lease_until is not None]
        sure = ready + [lease for lease in leases if lease not in optional]
        allowed = {min(sure, default=None), min(sure + optional, default=None)}
        if any(moment <= due_by for moment in ready):
            assert turn.next_due_at is not None, "next_due_at"
            assert turn.next_due_at <= now, "next_due_at"
        elif due_by >= self.latest or turn.next_due_at is None or turn.next_due_at > now:
            assert turn.next_due_at in allowed, f"next_due_at {turn.next_due_at}, not {allowed}"

    def check_delivery(self, delivery: Delivery) -> None:
        """Compare a delivery, and hold it against the law of final states."""
        expected, where = self.deliveries[delivery.id], f"delivery {delivery.id}"
        assert (delivery.status, delivery.hook_id) == (expected.status, expected.hook.id), where
        assert [attempt.outcome for attempt in delivery.attempts] == expected.outcomes, where
        assert [each.number for each in delivery.attempts] == list(range(1, len(expected.outcomes) + 1)), where
        assert delivery.attempt_count == expected.claims == len(expected.outcomes) + expected.under_way, where
        assert (delivery.completed_at is not None) == (delivery.status in FINAL), where
        if delivery.status == "delivered":
            assert [number for number, outcome in enumerate(expected.outcomes, 1) if outcome == "ok"] == [
                expected.claims
            ], where
        if delivery.status in ("failed", "discarded"):
            assert delivery.reason, where
            assert expected.reason in (None, delivery.reason), where
        stopped = expected.hook.deleted or expected.hook.disabled or not expected.waits
        assert (delivery.next_attempt_at is None) == stopped, where
