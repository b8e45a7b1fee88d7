"""A world in one thread: dispatchers, a storage, receivers and clocks, all moved by one seed.

The pure core and a real storage do what they do in life; around them everything is simulated, so that a step takes
microseconds and any order of events can come about: dispatchers that die before or after each commit, that stall beyond
their leases, answers that are lost, storage errors, clocks that are set. A step is one action of one of the actors.

The dispatchers do as the engine does: a turn that they enter is carried out later, while their attempts go on, and
whenever they look at the clock and find it set, they move along what they have in hand.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import attrs

from procore_hooks import Attempt, Delivery, Event, Hook, RetryPolicy, Secret
from procore_hooks._core.claims import Claim, ClockReading, Settlement, Turn, moved_claim, moved_settlement
from procore_hooks._core.decide import Answer, Backoff, backoff_basis, decide, is_success
from procore_hooks.exceptions import Conflict
from procore_hooks.storage._base import DeliveryQuery, EmitRequest, Storage

from .law import Emitted, Hit, Law

T = TypeVar("T")

START = datetime(2031, 5, 17, tzinfo=UTC)
TOTAL = 10.0  # seconds that an attempt may take, from the moment at which the turn that claimed it was entered
LEASE = timedelta(seconds=TOTAL + 5)
MOST_HOOKS = 6
DISPATCHERS = 3
NO_WAIT = Backoff(wait=timedelta(0), stop=False)
# How far a flight is. Its dispatcher may die or stall between any two.
CLAIMED, CONNECTED, HEAD_SENT, HALF_SENT, ARRIVED, ACTED_ON, ANSWERED = range(7)
SET_BY = tuple(timedelta(days=days) for days in (-10, 10)) + tuple(timedelta(minutes=m) for m in (-7, -1, 1, 45))


class Broken(AssertionError):
    """The law is broken."""


@attrs.define(eq=False)
class Flight:
    """A claimed attempt in a dispatcher's hands."""

    dispatcher: Dispatcher
    claim: Claim
    started_at: datetime
    deadline: float
    stage: int = CLAIMED
    answer: Answer | None = None


@attrs.frozen
class Result:
    """An attempt that is over, and before when (by the steady clock) the next one may not begin."""

    settlement: Settlement
    not_before: float


@attrs.frozen
class Entered:
    """A turn that a dispatcher has entered."""

    results: list[Result]
    now: datetime
    elapsed: float
    reading: ClockReading


@attrs.define(eq=False)
class Dispatcher:
    """A dispatcher process."""

    number: int
    reading: ClockReading
    flights: list[Flight] = attrs.field(factory=list)
    finished: list[Result] = attrs.field(factory=list)
    entered: Entered | None = None
    stalled_until: float = 0.0


@attrs.define(eq=False)
class Endpoint:
    """The receiver behind a hook. Its mood decides what it answers."""

    hook_id: int
    in_order: bool
    parity: int
    mood: str = "well"


class World:
    """Everything, and how it moves."""

    def __init__(self, seed: int, storage: Storage, mode: str, *, tells_all: bool = False) -> None:
        self.random = random.Random(seed).random
        self.storage = storage
        self.elapsed = 0.0
        self.offset = timedelta(0)  # how far the wall clock was set
        self.law = Law()
        self.hits: list[Hit] = []
        self.steps = 0
        self.trace: deque[str] = deque(maxlen=80)
        self.tells_all = tells_all  # also what goes well, which takes time
        self.pauses = mode == "pause"
        roll = self.random
        self.policy = RetryPolicy(
            wait=lambda state: min(2.0 ** (state.attempt_number - 1), 60.0) + roll(),
            stop=lambda state: (state.seconds_since_start or 0) > 600 or (not self.pauses and state.attempt_number > 9),
            on_failure="pause" if self.pauses else "independent",
        )
        self.dispatchers = [Dispatcher(number, self._reading()) for number in range(DISPATCHERS)]
        self.flights: list[Flight] = []
        self.endpoints: list[Endpoint] = []
        self.by_hook: dict[int, Endpoint] = {}
        self.not_before: dict[int, float] = {}  # of a hook that is paused, by the steady clock
        self.due: dict[int, dict[int, float]] = {}  # of each hook, its deliveries that returned
        self.leased: dict[int, tuple[float, int]] = {}
        self.next_id = 1
        for _ in range(MOST_HOOKS - 1):
            self._add_endpoint()
        # Of a thousand steps, so many of each kind.
        kinds: tuple[tuple[int, Callable[[], bool]], ...] = (
            (35, self._emit),
            (100, self._turn),
            (800, self._move_flight),
            (32, self._pass_time),
            (20, self._change_mood),
            (5, self._stall),
            (3, self._die),
            (1, self._set_clock),
            (4, self._operate),
        )
        self.kinds = [action for weight, action in kinds for _ in range(weight)]

    def _some(self, things: Sequence[T]) -> T:
        # Three times as fast as choice(), and good enough for dice.
        return things[int(self.random() * len(things))]

    def step(self) -> None:
        """One action of one actor; one that finds nothing to do does not count."""
        self.steps += self.kinds[int(self.random() * len(self.kinds))]()

    def note(self, text: str, *values: object) -> None:
        """Remember something for the trace."""
        self.trace.append(f"step {self.steps}, {self.elapsed:.2f} s: {text % values}")

    # Clocks

    @property
    def now(self) -> datetime:
        """The wall clock."""
        return START + self.offset + timedelta(seconds=self.elapsed)

    def _reading(self) -> ClockReading:
        return ClockReading("steady", self.offset)

    def _look(self, dispatcher: Dispatcher) -> datetime:
        """A dispatcher reads the clock, as the engine does it."""
        if self.offset != dispatcher.reading.offset:
            reading = self._reading()
            by = reading.set_since(dispatcher.reading)
            dispatcher.reading = reading
            self.note("dispatcher %d: finds the clock set by %s", dispatcher.number, by)
            dispatcher.finished = [_moved(result, by) for result in dispatcher.finished]
            for flight in dispatcher.flights:
                flight.claim = moved_claim(flight.claim, by)
        return self.now

    def _set_clock(self) -> bool:
        by = self._some(SET_BY)
        if abs(self.offset + by) > timedelta(days=3_000):
            by = -by
        self.offset += by
        self.note("the wall clock is set by %s", by)
        return True

    def _pass_time(self) -> bool:
        self.elapsed += self._some((0.01, 0.1, 1.0, 1.0, 5.0, 30.0))
        return True

    # Emitters

    def _emit(self) -> bool:
        resource = self._some(("R0", "R1", "all", "nobody"))
        event = self._event(resource)
        wanted = frozenset(one.hook_id for one in self.endpoints if resource in ("all", f"R{one.parity}"))
        if self.random() < 0.01:
            self.law.add(Emitted(event.id, event.ulid, frozenset()))  # it raised before the commit
            return True
        (emission,) = self.storage.emit([EmitRequest(event=event)], self.now, None)
        self.law.add(Emitted(event.id, event.ulid, wanted))
        if self.tells_all:
            self.note("event %d makes deliveries %s", event.id, emission.delivery_ids)
        return True

    def _event(self, resource: str) -> Event:
        number = self.next_id
        self.next_id += 1
        return Event(
            id=number, ulid=f"U{number}", resource=resource, action="update", occurred_at=START, payload_json=b"{}"
        )

    # Dispatchers

    def _turn(self) -> bool:
        dispatcher = self._some(self.dispatchers)
        if dispatcher.stalled_until > self.elapsed:
            return False
        if dispatcher.entered is None:
            now = self._look(dispatcher)
            dispatcher.entered = Entered(dispatcher.finished, now, self.elapsed, dispatcher.reading)
            dispatcher.finished = []
            return True
        entered, dispatcher.entered = dispatcher.entered, None
        chance = self.random()
        if chance < 0.004:
            self.note("dispatcher %d: storage error", dispatcher.number)
            by = dispatcher.reading.set_since(entered.reading)
            dispatcher.finished = [_moved(result, by) for result in entered.results] + dispatcher.finished
            return True
        turn = self._carry_out(entered, self._some((0, 1, 4, 8)))
        if chance > 0.997:
            self.note("dispatcher %d: dies after the commit of %d claims", dispatcher.number, len(turn.claims))
            self._bury(dispatcher)
        elif turn.claims:
            self._take_off(dispatcher, entered, turn)
        return True

    def _carry_out(self, entered: Entered, capacity: int) -> Turn:
        now = entered.now
        settlements = [result.settlement for result in entered.results]
        turn = self.storage.turn(
            settlements, now=now, due_by=now, lease=LEASE, capacity=capacity, reading=entered.reading
        )
        if turn.settled:
            self._note_settled(turn, entered.results)
        for claim in turn.claims:
            self._check_claim(claim, entered)
        return turn

    def _take_off(self, dispatcher: Dispatcher, entered: Entered, turn: Turn) -> None:
        by = dispatcher.reading.set_since(entered.reading)
        for claim in turn.claims:
            mine = moved_claim(claim, by) if by else claim
            flight = Flight(dispatcher, mine, self._look(dispatcher), entered.elapsed + TOTAL)
            dispatcher.flights.append(flight)
            self.flights.append(flight)

    def _note_settled(self, turn: Turn, results: list[Result]) -> None:
        not_before = {id(result.settlement): result.not_before for result in results}
        for settled in turn.settled:
            claim, change = settled.settlement.claim, settled.settlement.hook_change
            hook_id = claim.hook.id
            self.leased.pop(claim.delivery_id, None)
            if self.tells_all:
                self.note("delivery %d: attempt %d settled, %s", claim.delivery_id, claim.number, settled.status)
            moment = not_before[id(settled.settlement)]
            if settled.status == "retrying" and settled.settlement.due_at is not None:
                self.due.setdefault(hook_id, {})[claim.delivery_id] = moment
            if change is None or not settled.changed:
                continue
            if change.paused_until is not None and self.pauses:
                self.not_before[hook_id] = moment
            else:
                self.not_before.pop(hook_id, None)

    def _check_claim(self, claim: Claim, entered: Entered) -> None:
        delivery_id, hook_id = claim.delivery_id, claim.hook.id
        lease, number = self.leased.get(delivery_id, (-1.0, 0))
        if lease > self.elapsed:
            raise Broken(f"delivery {delivery_id} was claimed twice")
        if claim.number <= number:
            raise Broken(f"3: the fence of delivery {delivery_id} did not rise")
        not_before = max(self.not_before.get(hook_id, 0.0), self.due.get(hook_id, {}).pop(delivery_id, 0.0))
        if not_before > self.elapsed + 1e-3:
            raise Broken(f"6: delivery {delivery_id} to hook {hook_id} was tried {not_before - self.elapsed} s early")
        self.leased[delivery_id] = (entered.elapsed + LEASE.total_seconds(), claim.number)
        if self.tells_all:
            self.note("delivery %d to hook %d: attempt %d claimed", delivery_id, hook_id, claim.number)

    def _move_flight(self) -> bool:
        if not self.flights:
            # Nothing goes on without a turn or some time.
            return self._turn() if self.random() < 0.5 else self._pass_time()
        flight = self.flights[int(self.random() * len(self.flights))]
        if flight.dispatcher.stalled_until > self.elapsed:
            return False
        if self.elapsed >= flight.deadline:
            self._land(flight, Answer(error="no answer came in time"))
            return True
        stage, chance = flight.stage, self.random()
        if stage == ANSWERED:
            if chance < 0.98:  # else it is lost on the way
                self._land(flight, flight.answer or Answer(status=200))
            else:
                flight.deadline = min(flight.deadline, self.elapsed)
        elif stage < ARRIVED and chance < 0.005:
            self._land(flight, Answer(error="no connection"))
        else:
            flight.stage = stage = stage + 1
            if stage == ARRIVED:
                self.hits.append(Hit(flight.claim.hook.id, flight.claim.event.ulid))
            elif stage == ANSWERED:
                flight.answer = self._answer(self.by_hook[flight.claim.hook.id])
        return True

    def _land(self, flight: Flight, answer: Answer) -> None:
        now = self._look(flight.dispatcher)
        self.flights.remove(flight)
        flight.dispatcher.flights.remove(flight)
        claim, mode = flight.claim, self.policy.on_failure
        attempt = Attempt(
            number=claim.number,
            outcome="unknown",
            request_url="https://hooks.example/",
            response_status=answer.status,
            response_error=answer.error,
            started_at=flight.started_at,
            completed_at=now,
        )
        backoff = NO_WAIT
        if not is_success(answer):
            number, since = backoff_basis(claim, mode, now, now)
            backoff = self.policy.backoff(number, since, now, answer.status)
        settlement = decide(
            claim,
            attempt,
            answer,
            backoff=backoff,
            mode=mode,
            max_retry_after=self.policy.max_retry_after,
            now=now,
        )
        if self.tells_all:
            self.note("delivery %d: answer %s", claim.delivery_id, answer.status or answer.error)
        flight.dispatcher.finished.append(Result(settlement, self.elapsed + backoff.wait.total_seconds()))

    def _stall(self) -> bool:
        dispatcher = self._some(self.dispatchers)
        dispatcher.stalled_until = self.elapsed + self._some((1.0, 20.0, 60.0))
        self.note("dispatcher %d: stalls until %.1f s", dispatcher.number, dispatcher.stalled_until)
        return True

    def _die(self) -> bool:
        dispatcher = self._some(self.dispatchers)
        self.note("dispatcher %d: dies with %d in flight", dispatcher.number, len(dispatcher.flights))
        self._bury(dispatcher)
        return True

    def _bury(self, dispatcher: Dispatcher) -> None:
        """All that it had in hand is gone, and another one starts."""
        self.flights = [flight for flight in self.flights if flight.dispatcher is not dispatcher]
        self.dispatchers[dispatcher.number] = Dispatcher(dispatcher.number, self._reading())

    # Receivers

    def _change_mood(self) -> bool:
        if not self.endpoints:
            return False
        self._some(self.endpoints).mood = self._some(("well", "well", "ill", "moody"))
        return True

    def _answer(self, endpoint: Endpoint) -> Answer:
        if endpoint.mood == "well":
            return Answer(status=200)
        if endpoint.mood == "ill":
            return Answer(status=500)
        chance = self.random()
        if chance < 0.5:
            return Answer(status=200)
        if chance < 0.97:
            return Answer(status=503, headers={"retry-after": "3"})
        if chance < 0.985:
            return Answer(status=400, headers={"webhook-delivery": "abort-message"})
        return Answer(status=410)

    # Operators

    def _operate(self) -> bool:
        if not self.endpoints:
            return self._add_endpoint()
        endpoint, what = self._some(self.endpoints), self.random()
        self.note("hook %d: operated (%.3f)", endpoint.hook_id, what)
        hook_id, now = endpoint.hook_id, self.now
        if what < 0.3:
            self._enable(hook_id)
        elif what < 0.45:
            self.storage.disable_hook(hook_id, now, None)
        elif what < 0.5:
            self.storage.disable_hook(hook_id, now, "dropped by the simulation")
        elif what < 0.55:
            self.storage.delete_hook(hook_id, now, "deleted by the simulation")
            self.endpoints.remove(endpoint)
        elif what < 0.7:
            return len(self.endpoints) < MOST_HOOKS and self._add_endpoint()
        elif what < 0.8:
            self.storage.recover(hook_id, now - timedelta(minutes=10), now, now)
        elif what < 0.9:
            self._redeliver()
        else:
            self._ping(hook_id)
        return True

    def _add_endpoint(self) -> bool:
        number = len(self.by_hook)
        in_order = number % 2 == 0
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
        endpoint = Endpoint(hook.id, in_order, number % 2)
        self.storage.add_trigger(hook.id, f"R{endpoint.parity}", "*")
        self.storage.add_trigger(hook.id, "all", "update")
        self.endpoints.append(endpoint)
        self.by_hook[hook.id] = endpoint
        return True

    def _enable(self, hook_id: int) -> None:
        self.storage.enable_hook(hook_id, self.now)
        self.not_before.pop(hook_id, None)
        self.due.pop(hook_id, None)

    def _redeliver(self) -> None:
        deliveries = self.storage.list_deliveries(DeliveryQuery(limit=20))
        hook_ids = {one.hook_id for one in self.endpoints}
        final = [one for one in deliveries if one.completed_at is not None and one.hook_id in hook_ids]
        if final:
            self.storage.redeliver(self._some(final).id, self.now)

    def _ping(self, hook_id: int) -> None:
        event = self._event("ping")
        try:
            self.storage.add_ping(hook_id, event, self.now)
        except Conflict:
            return  # it is disabled
        self.law.add(Emitted(event.id, event.ulid, frozenset({hook_id}), is_ordered=False))
        self.not_before.pop(hook_id, None)

    # The end

    def settle_down(self) -> None:
        """All endpoints well, all dispatchers awake: go on until nothing is due, then check the law."""
        for endpoint in self.endpoints:
            endpoint.mood = "well"
            self._enable(endpoint.hook_id)
        waits = True
        while waits:
            waits = False
            for dispatcher in self.dispatchers:
                waits |= self._finish_turn(dispatcher)
            self.elapsed += 1.0
        in_order = frozenset(hook_id for hook_id, one in self.by_hook.items() if one.in_order and self.pauses)
        if broken := self.law.check(_all_deliveries(self.storage), self.hits, in_order=in_order):
            raise Broken("; ".join(broken[:5]))

    def _finish_turn(self, dispatcher: Dispatcher) -> bool:
        """Everything that this dispatcher has in hand arrives. Returns whether there is more to do."""
        dispatcher.stalled_until = 0.0
        for flight in list(dispatcher.flights):
            if flight.stage < ARRIVED:
                self.hits.append(Hit(flight.claim.hook.id, flight.claim.event.ulid))
            self._land(flight, Answer(status=200))
        for entered in (dispatcher.entered, None):
            now = self._look(dispatcher)
            if entered is None:
                entered = Entered(dispatcher.finished, now, self.elapsed, dispatcher.reading)
                dispatcher.finished = []
            turn = self._carry_out(entered, 50)
            self._take_off(dispatcher, entered, turn)
        dispatcher.entered = None
        return turn.next_due_at is not None or bool(dispatcher.flights)


def _moved(result: Result, by: timedelta) -> Result:
    return Result(moved_settlement(result.settlement, by), result.not_before) if by else result


def _all_deliveries(storage: Storage) -> Iterator[Delivery]:
    before = None
    while page := storage.list_deliveries(DeliveryQuery(before=before, limit=50_000)):
        yield from page
        before = page[-1].id
