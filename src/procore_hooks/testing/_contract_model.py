"""The storage contract's model test: random operations, each turn compared with the oracle.

The clock of these tests runs, stands still and steps back. A failure names its seed and its step.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

import attrs
import pytest

from .._core.models import Delivery, Emission
from ..storage._base import Claim, ClockReading, DeliveryQuery, EmitRequest, HookChange, Settlement, Storage, Turn
from ._contract_oracle import FINAL, Oracle, OracleDelivery, OracleHook
from ._contract_values import T0, accepted, an_event, emit, fails_and_pauses, given_up, listening, put_off

__all__ = ["ModelContract"]

_RESOURCES = ("RFIs", "Submittals", "Drawings")
_MOST_HOOKS = 12
_MOST_WAITING = 120


class _Play:
    """A storage and an oracle, and the operations that are done to both."""

    def __init__(self, storage: Storage, random: Random) -> None:
        self.storage = storage
        self.random = random
        self.oracle = Oracle()
        self.now = T0
        self.ahead = timedelta(0)  # of the steady clock
        self.claims: list[Claim] = []  # held by dispatchers that are alive
        self.old_claims: list[Claim] = []  # settled or forgotten: their results may still come, late
        self.operations: list[tuple[int, Callable[[], object]]] = [
            (30, self.emit),
            (60, self.turn),
            (12, self.tick),
            (2, self.step_back),
            (2, self.set_clock),
            (2, self.add_hook),
            (1, self.delete_hook),
            (2, self.disable_hook),
            (4, self.enable_hook),
            (2, self.change_room),
            (4, self.ping),
            (4, self.redeliver),
            (1, self.recover),
            (1, self.prune),
        ]

    def step(self) -> None:
        """One random operation."""
        weights = [weight for weight, _ in self.operations]
        self.random.choices([operation for _, operation in self.operations], weights)[0]()

    def tick(self) -> None:
        """Time goes on, by a little or by much."""
        self.now += timedelta(seconds=self.random.choice((0.001, 1, 3, 10, 40)))

    def step_back(self) -> None:
        """The clock is set back."""
        self.now -= timedelta(seconds=self.random.choice((0.001, 5, 60)))

    def hooks(self) -> list[OracleHook]:
        """The hooks that are not deleted."""
        return [hook for hook in self.oracle.hooks if not hook.deleted]

    def add_hook(self) -> None:
        """A new hook."""
        if len(self.hooks()) >= _MOST_HOOKS:
            return
        resource, room = self.random.choice((*_RESOURCES, "*")), self.random.choice((1, 1, 2, 5))
        drops = self.random.random() < 0.3
        hook = listening(self.storage, (resource, "*"), max_in_flight=room, when_disabled="drop" if drops else "keep")
        self.oracle.hooks.append(OracleHook(hook.id, resource, room, drops))

    def delete_hook(self) -> None:
        """A hook goes, with what waits for it."""
        if len(self.hooks()) > 4:
            hook = self.random.choice(self.hooks())
            self.storage.delete_hook(hook.id, self.now, "deleted")
            self.oracle.drop(hook, "deleted")
            hook.deleted = True
            self.turn(capacity=0)

    def disable_hook(self) -> None:
        """An active hook is disabled; what waits is kept or dropped."""
        if active := [hook for hook in self.hooks() if not hook.disabled]:
            hook, reason = self.random.choice(active), self.random.choice((None, "dropped"))
            self.storage.disable_hook(hook.id, self.now, reason)
            hook.disabled = True
            hook.epoch += 1
            if reason is not None:
                self.oracle.drop(hook, reason)
                self.turn(capacity=0)

    def enable_hook(self) -> None:
        """A hook that is disabled, or fails, is enabled."""
        if stopped := [hook for hook in self.hooks() if hook.disabled or hook.failures]:
            hook = self.random.choice(stopped)
            self.storage.enable_hook(hook.id, self.now)
            self.oracle.enable(hook)

    def change_room(self) -> None:
        """A hook may have more, or less, under way."""
        if hooks := self.hooks():
            hook, room = self.random.choice(hooks), self.random.choice((1, 2, 5))
            self.storage.update_hook(hook.id, {"max_in_flight": room}, self.now)
            hook.max_in_flight = room

    def emit(self) -> None:
        """A few events."""
        if len(self.oracle.open) > _MOST_WAITING:
            return
        events = [an_event(self.random.choice(_RESOURCES)) for _ in range(self.random.choice((1, 1, 1, 4)))]
        emissions = self.storage.emit([EmitRequest(event=event) for event in events], self.now, None)
        for emission in emissions:
            self._note(emission)

    def _note(self, emission: Emission) -> None:
        wanting = [hook for hook in self.hooks() if hook.resource in ("*", emission.event.resource)]
        assert len(emission.delivery_ids) == len(wanting), "fan-out"
        for delivery_id, hook in zip(emission.delivery_ids, wanting, strict=True):
            self.oracle.add(OracleDelivery(delivery_id, hook, emission.event.id, self.now))

    def ping(self) -> None:
        """A ping to an active hook without one; only where no claim's epoch is in question."""
        for hook in self.random.sample(self.hooks(), len(self.hooks())):
            has_one = any(delivery.due == "ping" for delivery in self.oracle.waiting(hook))
            if not hook.disabled and not has_one and not self.oracle.under_way(hook):
                event = an_event("ping", "ping")
                delivery = self.storage.add_ping(hook.id, event, self.now)
                hook.paused_until = None
                self.oracle.add(OracleDelivery(delivery.id, hook, event.id, self.now, due="ping"))
                return

    def redeliver(self) -> None:
        """One of the lost deliveries again."""
        lost = [
            each
            for each in self.oracle.deliveries.values()
            if each.status in ("failed", "discarded")
            and not each.hook.deleted
            and not (each.hook.disabled and each.hook.drops)
        ]
        if lost:
            old = self.random.choice(lost)
            new = self.storage.redeliver(old.id, self.now)
            self.oracle.add(OracleDelivery(new.id, old.hook, old.event_id, self.now, is_redelivery=True))

    def recover(self) -> None:
        """What a hook lost in some time."""
        if hooks := [hook for hook in self.hooks() if not (hook.disabled and hook.drops)]:
            hook = self.random.choice(hooks)
            since = self.now - timedelta(seconds=self.random.choice((10, 60)))
            events = self.oracle.lost(hook, since, self.now)
            assert self.storage.recover(hook.id, since, self.now, self.now) == len(events), "recovered"
            made = self.storage.list_deliveries(DeliveryQuery(limit=len(events))) if events else []
            assert [delivery.event.id for delivery in reversed(made)] == events, "recovered"
            for new in reversed(made):
                self.oracle.add(OracleDelivery(new.id, hook, new.event.id, self.now, is_redelivery=True))

    def prune(self) -> None:
        """The history of some time ago goes."""
        before = self.now - timedelta(seconds=60)
        assert self.storage.prune(before) == self.oracle.prune(before), "pruned"

    def turn(self, capacity: int | None = None) -> None:
        """A turn of some dispatcher, which settles some of what is held, and now and then something late."""
        random = self.random
        random.shuffle(self.claims)
        ended = [self.claims.pop() for _ in range(random.randint(0, len(self.claims)))]
        if random.random() < 0.05:  # its dispatcher died
            self.old_claims += ended
            ended = []
        late = random.sample(self.old_claims, min(len(self.old_claims), random.choice((0, 0, 0, 1, 2))))
        self.old_claims = (self.old_claims + ended)[-50:]
        self.take_turn([self.result(claim) for claim in ended + late], capacity, random.choice((0, 0, 0, 2, 10)))

    def take_turn(self, settlements: list[Settlement], capacity: int | None, behind: float = 0) -> Turn:
        """The turn in the storage and in the oracle, and what it touched, compared."""
        random, due_by = self.random, self.now - timedelta(seconds=behind)
        capacity = random.choice((0, 1, 2, 3, 5, 8, 20)) if capacity is None else capacity
        lease = timedelta(seconds=random.choice((2, 15, 30)))
        reading = ClockReading("steady", self.ahead)
        turn = self.storage.turn(
            settlements, now=self.now, due_by=due_by, lease=lease, capacity=capacity, reading=reading
        )
        touched = self.oracle.check_turn(settlements, turn, now=self.now, due_by=due_by, capacity=capacity)
        assert all(claim.lease_until == self.now + lease for claim in turn.claims), "lease_until"
        self.claims += turn.claims
        for delivery_id in touched & self.oracle.deliveries.keys():
            self.oracle.check_delivery(self.storage.get_delivery(delivery_id))
        return turn

    def set_clock(self) -> None:
        """The wall clock is set, and the next turn moves what is to come."""
        by = timedelta(seconds=self.random.choice((-864_000, -20, 20, 864_000)))
        self.now += by
        self.ahead += by
        self.oracle.move(by)
        self.take_turn([], 0)

    def result(self, claim: Claim) -> Settlement:
        """A random result, with the changes that the core decides on."""
        random, now = self.random, self.now
        kind = random.choices(
            ("ok", "pause", "alone", "give up", "flush", "gone", "discard"), (60, 10, 15, 4, 2, 1, 2)
        )[0]
        later = now + timedelta(seconds=random.choice((0, 1, 5, 20)))
        if kind == "ok":
            return accepted(claim, now, HookChange() if claim.failures else None)
        if kind == "pause":
            return fails_and_pauses(claim, now, later)
        if kind == "alone":
            return put_off(claim, now, due_at=random.choice((None, later)))
        if kind == "gone":
            return put_off(claim, now, change=HookChange(disable=True))
        if kind == "flush":
            return given_up(claim, now, change=HookChange(flush_reason="flushed"))
        return attrs.evolve(given_up(claim, now), status="failed" if kind == "give up" else "discarded")

    def check_everything(self) -> None:
        """Compare every hook, every delivery and the counts."""
        for hook in self.hooks():
            self.oracle.check_hook(self.storage.get_hook(hook.id), hook, self.now)
        deliveries: list[Delivery] = []
        before = None
        while page := self.storage.list_deliveries(DeliveryQuery(before=before, limit=100)):
            deliveries += page
            before = page[-1].id
        assert [delivery.id for delivery in deliveries] == sorted(self.oracle.deliveries, reverse=True), "the list"
        for delivery in deliveries:
            self.oracle.check_delivery(delivery)
        self.check_counts()

    def check_counts(self) -> None:
        """Compare the counts of each status."""
        expected: dict[str, int] = {}
        for each in self.oracle.deliveries.values():
            expected[each.status] = expected.get(each.status, 0) + 1
        assert self.storage.count_deliveries(None, datetime.min.replace(tzinfo=T0.tzinfo)) == expected, "counts"

    def finish(self) -> None:
        """Enable every hook and deliver all that is left: then everything is final."""
        for hook in self.hooks():
            self.storage.enable_hook(hook.id, self.now)
            self.oracle.enable(hook)
        settlements: list[Settlement] = []
        for _ in range(2 * _MOST_WAITING + 100):
            self.now += timedelta(seconds=30)
            turn = self.take_turn(settlements, 20)
            settlements = [accepted(claim, self.now, HookChange() if claim.failures else None) for claim in turn.claims]
            if turn.next_due_at is None:
                break
        assert not self.oracle.open, "something is left that is never due"
        assert all(delivery.status in FINAL for delivery in self.oracle.deliveries.values())
        self.check_everything()


class ModelContract:
    """Random operations against the oracle. Change `model_steps` to play longer or shorter."""

    model_steps = 2000

    @pytest.mark.parametrize("seed", range(6))
    def test_random_operations(self, storage: Storage, seed: int) -> None:
        """Whatever is done in whatever order: every turn does what the oracle does, and in the end all is final."""
        play = _Play(storage, Random(seed))
        step = 0
        try:
            for _ in range(4):
                play.add_hook()
            for step in range(self.model_steps):
                play.step()
                if step % 100 == 0:
                    play.check_everything()
            play.check_everything()
            play.finish()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {step}: {error}") from error

    def test_the_oracle_sees_a_wrong_storage(self, storage: Storage) -> None:
        """The comparison is not blind: a delivery that the oracle does not know of is noticed."""
        play = _Play(storage, Random(0))
        for _ in range(4):
            play.add_hook()
        emit(storage, an_event(play.hooks()[0].resource))
        with pytest.raises(AssertionError, match="the list"):
            play.check_everything()
