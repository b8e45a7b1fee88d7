"""A world in one thread: workers, a storage, receivers and clocks, all moved by one seed.

The pure core and a real storage do what they do in life; around them everything is simulated, so that a step takes
microseconds and any order of events can come about: workers that crash before or after each commit, that stall beyond
their leases, answers that are lost, storage errors. A step is one action of one of the actors.

    python -m tests.simulation.simulator --seed 7 --steps 100000

plays a world and says what is broken, if anything; the same seed gives the same world.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import attrs

from procore_hooks import (
    Attempt,
    Delivery,
    Event,
    Hook,
    MemoryStorage,
    RetryPolicy,
    Secret,
    SQLiteStorage,
    StorageError,
)
from procore_hooks._core.claims import Claim, Settlement, Turn
from procore_hooks._core.decide import Answer, backoff_basis, decide
from procore_hooks.storage._base import DeliveryQuery, EmitRequest, Storage

from .law import Emitted, Hit, Law

T = TypeVar("T")

START = datetime(2031, 5, 17, tzinfo=UTC)
TOTAL = 10.0  # seconds that an attempt may take
LEASE = timedelta(seconds=TOTAL + 5)
HOOKS = 5
# How far a flight is. A worker may crash or stall between any two.
CLAIMED, CONNECTED, SENT, ARRIVED, ANSWERED = range(5)


class Broken(AssertionError):
    """The law is broken."""


@attrs.define(eq=False)
class Flight:
    """A claimed attempt in a worker's hands."""

    claim: Claim
    started_at: datetime
    deadline: float
    stage: int = CLAIMED
    answer: Answer | None = None


@attrs.define(eq=False)
class Worker:
    """A dispatcher process."""

    number: int
    flights: list[Flight] = attrs.field(factory=list)
    finished: list[Settlement] = attrs.field(factory=list)
    stalled_until: float = 0.0


@attrs.define(eq=False)
class Endpoint:
    """The receiver behind a hook. Its mood decides what it answers."""

    hook_id: int
    in_order: bool
    mood: str = "well"


class World:
    """Everything, and how it moves."""

    def __init__(self, seed: int, storage: Storage, mode: str) -> None:
        self.dice = random.Random(seed)
        self.storage = storage
        self.mono = 0.0
        self.offset = timedelta(0)  # how far the wall clock was set
        self.law = Law()
        self.hits: list[Hit] = []
        self.steps = 0
        self.trace: deque[str] = deque(maxlen=60)
        roll = self.dice.random
        self.policy = RetryPolicy(
            wait=lambda state: min(2.0 ** (state.attempt_number - 1), 60.0) + roll(),
            stop=lambda state: (
                (state.seconds_since_start or 0) > 600 or (mode == "independent" and state.attempt_number > 9)
            ),
            on_failure="pause" if mode == "pause" else "independent",
        )
        self.workers = [Worker(number) for number in range(3)]
        self.endpoints = [self._add_endpoint(in_order=n % 2 == 0) for n in range(HOOKS)]
        self.by_hook = {endpoint.hook_id: endpoint for endpoint in self.endpoints}
        self.not_before: dict[int, float] = {}  # law 6: of a paused hook, by the monotonic clock
        self.leased: dict[int, tuple[float, int]] = {}
        self.next_id = 1
        self.actions: list[tuple[float, Callable[[], bool]]] = [
            (0.04, self._emit),
            (0.15, self._turn),
            (0.70, self._move_flight),
            (0.05, self._pass_time),
            (0.03, self._change_mood),
            (0.004, self._stall),
            (0.003, self._crash),
            (0.002, self._operate),
        ]
        self._thresholds = _cumulated([weight for weight, _ in self.actions])

    def _some(self, things: Sequence[T]) -> T:
        # Three times as fast as choice(), and good enough for dice.
        return things[int(self.dice.random() * len(things))]

    # Clocks

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.mono) + self.offset

    # Actors

    def _add_endpoint(self, *, in_order: bool) -> Endpoint:
        hook = self.storage.add_hook(
            Hook(
                id=0,
                namespace="simulated",
                destination_url="https://hooks.example/",
                signing_secret=Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
                max_in_flight=1 if in_order else 3,
                created_at=START,
                updated_at=START,
            )
        )
        self.storage.add_trigger(hook.id, f"R{hook.id % 2}", "*")
        self.storage.add_trigger(hook.id, "all", "update")
        return Endpoint(hook.id, in_order)

    def step(self) -> None:
        """One action of one actor; one that finds nothing to do does not count."""
        roll = self.dice.random() * self._thresholds[-1]
        for threshold, (_, action) in zip(self._thresholds, self.actions, strict=True):
            if roll < threshold:
                self.steps += action()
                return

    def _emit(self) -> bool:
        number = self.next_id
        self.next_id += 1
        resource = self._some(("R0", "R1", "all", "nobody"))
        event = Event(
            id=number, ulid=f"U{number}", resource=resource, action="update", occurred_at=self.now, payload_json=b"{}"
        )
        wanted = frozenset(e.hook_id for e in self.endpoints if resource == "all" or resource == f"R{e.hook_id % 2}")
        fault = self.dice.random()
        if fault < 0.01:
            self.law.add(Emitted(number, event.ulid, frozenset()))  # it raised before the commit
            return True
        self.storage.emit([EmitRequest(event=event)], self.now, None)
        self.law.add(Emitted(number, event.ulid, wanted))
        return True

    def _turn(self) -> bool:
        worker = self._some(self.workers)
        if worker.stalled_until > self.mono:
            return False
        fault = self.dice.random()
        if fault < 0.004:
            self._note("worker %d: storage error", worker.number)
            return True  # nothing was stored; the results are still at hand
        batch, worker.finished = worker.finished, []
        now = self.now
        capacity = self._some((0, 1, 4, 8))
        turn = self.storage.turn(batch, now=now, due_by=now, lease=LEASE, capacity=capacity)
        self._after_turn(turn, now)
        if fault > 0.997:
            self._note("worker %d: crashed after the commit of %d claims", worker.number, len(turn.claims))
            worker.flights.clear()
            return True
        for claim in turn.claims:
            worker.flights.append(Flight(claim, now, self.mono + TOTAL))
        return True

    def _after_turn(self, turn: Turn, now: datetime) -> None:
        for settled in turn.settled:
            hook_id = settled.settlement.claim.hook.id
            change = settled.settlement.hook_change
            self.leased.pop(settled.settlement.claim.delivery_id, None)
            if change is not None and settled.changed:
                if change.paused_until is not None and self.policy.on_failure == "pause":
                    wait = (change.paused_until - now).total_seconds()
                    self.not_before[hook_id] = self.mono + wait
                else:
                    self.not_before.pop(hook_id, None)
        for claim in turn.claims:
            lease, number = self.leased.get(claim.delivery_id, (-1.0, 0))
            if lease > self.mono:
                raise Broken(f"delivery {claim.delivery_id} was claimed twice")
            if claim.number <= number:
                raise Broken(f"3: the fence of delivery {claim.delivery_id} did not rise")
            if self.not_before.get(claim.hook.id, 0.0) > self.mono + 1e-6:
                raise Broken(f"6: hook {claim.hook.id} was tried too early")
            self.leased[claim.delivery_id] = (self.mono + LEASE.total_seconds(), claim.number)

    def _move_flight(self) -> bool:
        worker = self._some(self.workers)
        if not worker.flights or worker.stalled_until > self.mono:
            return False
        flight = self._some(worker.flights)
        if self.mono >= flight.deadline:
            self._finish(worker, flight, Answer(error="no answer came in time"))
        elif flight.stage == ANSWERED:
            if self.dice.random() < 0.98:  # else it is lost on the way
                self._finish(worker, flight, flight.answer or Answer(status=200))
            else:
                flight.deadline = min(flight.deadline, self.mono)
        elif flight.stage == ARRIVED:
            flight.stage, flight.answer = ANSWERED, self._answer(self.by_hook[flight.claim.hook.id])
        elif self.dice.random() < 0.01:
            self._finish(worker, flight, Answer(error="no connection"))
        else:
            flight.stage += 1
            if flight.stage == ARRIVED:
                self.hits.append(Hit(flight.claim.hook.id, flight.claim.event.ulid))
        return True

    def _answer(self, endpoint: Endpoint) -> Answer:
        if endpoint.mood == "well":
            return Answer(status=200)
        if endpoint.mood == "ill":
            return Answer(status=500)
        roll = self.dice.random()
        if roll < 0.5:
            return Answer(status=200)
        if roll < 0.97:
            return Answer(status=503, headers={"retry-after": "3"})
        if roll < 0.985:
            return Answer(status=400, headers={"webhook-delivery": "abort-message"})
        return Answer(status=410)

    def _finish(self, worker: Worker, flight: Flight, answer: Answer) -> None:
        worker.flights.remove(flight)
        claim, now = flight.claim, self.now
        number, since = backoff_basis(claim, self.policy.on_failure, flight.started_at, now)
        attempt = Attempt(
            number=claim.number,
            outcome="unknown",
            request_url="https://hooks.example/",
            response_status=answer.status,
            response_error=answer.error,
            started_at=flight.started_at,
            completed_at=now,
        )
        settlement = decide(
            claim,
            attempt,
            answer,
            backoff=self.policy.backoff(number, since, now, answer.status),
            mode=self.policy.on_failure,
            max_retry_after=self.policy.max_retry_after,
            now=now,
        )
        worker.finished.append(settlement)

    def _pass_time(self) -> bool:
        self.mono += self._some((0.01, 0.1, 1.0, 1.0, 5.0, 30.0))
        return True

    def _change_mood(self) -> bool:
        endpoint = self._some(self.endpoints)
        endpoint.mood = self._some(("well", "well", "ill", "moody"))
        return True

    def _stall(self) -> bool:
        worker = self._some(self.workers)
        worker.stalled_until = self.mono + self._some((1.0, 20.0, 60.0))
        self._note("worker %d: stalls until %.1f", worker.number, worker.stalled_until)
        return True

    def _crash(self) -> bool:
        worker = self._some(self.workers)
        self._note("worker %d: crashes with %d in flight", worker.number, len(worker.flights))
        worker.flights.clear()
        worker.finished.clear()
        worker.stalled_until = 0.0
        return True

    def _operate(self) -> bool:
        endpoint = self._some(self.endpoints)
        what = self.dice.random()
        if what < 0.4:
            self.storage.enable_hook(endpoint.hook_id, self.now)
            self.not_before.pop(endpoint.hook_id, None)
        elif what < 0.6:
            self.storage.disable_hook(endpoint.hook_id, self.now, None)
        elif what < 0.7:
            self.storage.disable_hook(endpoint.hook_id, self.now, "dropped by the simulation")
        self._note("hook %d: operated (%.2f)", endpoint.hook_id, what)
        return True

    def _note(self, text: str, *values: object) -> None:
        self.trace.append(f"{self.steps} at {self.mono:.2f}: {text % values}")

    # The end

    def settle_down(self) -> None:
        """All endpoints well, all workers awake: go on until nothing is due, then check the law."""
        for endpoint in self.endpoints:
            endpoint.mood = "well"
            self.storage.enable_hook(endpoint.hook_id, self.now)
        self.not_before.clear()
        for _ in range(1_000_000):
            for worker in self.workers:
                worker.stalled_until = 0.0
                for flight in list(worker.flights):
                    if flight.stage < ARRIVED:
                        self.hits.append(Hit(flight.claim.hook.id, flight.claim.event.ulid))
                    self._finish(worker, flight, Answer(status=200))
                batch, worker.finished = worker.finished, []
                turn = self.storage.turn(batch, now=self.now, due_by=self.now, lease=LEASE, capacity=50)
                self._after_turn(turn, self.now)
                worker.flights += [Flight(claim, self.now, self.mono + TOTAL) for claim in turn.claims]
            if turn.next_due_at is None and not any(worker.flights or worker.finished for worker in self.workers):
                break
            if turn.next_due_at is not None and turn.next_due_at > self.now:
                self.mono += 1.0
        broken = self.law.check(
            _all_deliveries(self.storage),
            self.hits,
            in_order=frozenset(e.hook_id for e in self.endpoints if e.in_order and self.policy.on_failure == "pause"),
        )
        if broken:
            raise Broken("; ".join(broken[:5]))


def _all_deliveries(storage: Storage) -> Iterator[Delivery]:
    before = None
    while page := storage.list_deliveries(DeliveryQuery(before=before, limit=1000)):
        yield from page
        before = page[-1].id


def _cumulated(weights: list[float]) -> list[float]:
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    return sums


def play(seed: int, steps: int, *, storage: str = "memory", mode: str = "pause") -> World:
    """Play a world to its end. Raises `Broken` with the command that replays it and the last notes of its trace."""
    with tempfile.TemporaryDirectory() as folder:
        store: Storage = (
            MemoryStorage() if storage == "memory" else SQLiteStorage(Path(folder, "world.db"), durability="normal")
        )
        world = World(seed, store, mode)
        try:
            while world.steps < steps:
                world.step()
            world.settle_down()
        except (Broken, StorageError) as error:
            replay = (
                f"python -m tests.simulation.simulator --seed {seed} --steps {steps} --storage {storage} --mode {mode}"
            )
            trace = "\n  ".join(world.trace)
            raise Broken(f"{error}\nat step {world.steps}; replay with: {replay}\n  {trace}") from error
        finally:
            store.close()
        return world


def main() -> None:
    parser = argparse.ArgumentParser(description="Play a simulated world.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--storage", choices=("memory", "sqlite"), default="memory")
    parser.add_argument("--mode", choices=("pause", "independent"), default="pause")
    options = parser.parse_args()
    started = time.perf_counter()
    world = play(options.seed, options.steps, storage=options.storage, mode=options.mode)
    took = time.perf_counter() - started
    sys.stdout.write(f"seed {options.seed}: {world.steps:,} steps, {len(world.hits):,} hits, {took:.1f} s, law holds\n")


if __name__ == "__main__":
    main()
