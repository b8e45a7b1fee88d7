"""The loop of a dispatcher: turn, send, turn.

One asyncio loop sends, and takes the storage's turns in between; a helper thread takes those that have to wait for
somebody, and all of them where the loop is the caller's. While a turn is under way, attempts finish and gather, so the
busier it is, the more fits into one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import attrs
import httpx

from ._clock import ClockFollower
from ._core.claims import Claim, Settlement, Turn, moved_claim, moved_settlement
from ._core.models import DrainReport, Timeouts
from ._drain import Drain, report_between
from ._in_flight import InFlight
from ._notices import log_settled, notices_of
from ._requests import RequestMaker
from ._sending import Sender, left_open
from ._storage_thread import StorageThread
from ._transport import GuardedTransport
from .exceptions import StorageBusy, StorageError
from .observers import Notice, Observer
from .retry import RetryPolicy

if TYPE_CHECKING:
    from ._registry import HookRegistry

__all__ = ["Engine", "EngineSettings"]

_log = logging.getLogger("procore_hooks")

# How many connections may wait for another request, where fewer are in flight.
_LEAST_IDLE: Final = 256
# How often to look for what other processes emitted, in seconds.
_POLL: Final = 0.25
# A claim outlives the longest attempt by this. Most of it is for a turn that has to wait for the storage: the lease
# counts from before it. The rest, in seconds, is kept so that the result can still be stored.
_LEASE_MARGIN: Final = timedelta(seconds=5)
_KEPT_TO_SETTLE: Final = 1.0
# With so many settlements a turn costs little more for each than with any number.
_GATHERED: Final = 256
# Turns that wait no longer than this, on average, cost less in the loop's own thread than to have them taken by another
# one, which competes for the interpreter lock at each step: with 64 deliveries that makes up some 5 ms. In seconds.
_LONG_WAIT: Final = 0.005
_ELSEWHERE_FOR: Final = 1.0
# Of the last one in that average. Now and then one copies the WAL, which takes 20 ms and is no reason.
_WEIGHT: Final = 0.02
_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 0.1, 5.0
_LOG_EVERY: Final = 60.0


@attrs.frozen(kw_only=True)
class EngineSettings:
    """What a dispatcher was made with.

    Attributes:
        maker: remembers the hooks from one run to the next.
    """

    registry: HookRegistry
    maker: RequestMaker
    retry: RetryPolicy
    timeouts: Timeouts
    max_in_flight: int
    transport: httpx.AsyncBaseTransport | None
    kept_response_bytes: int
    observers: tuple[Observer, ...]


class Engine:
    """One run of a dispatcher, in one event loop. `stop`, `wake` and `drain` may be called from any thread.

    Args:
        has_own_loop: nothing else runs in the loop, so that it may be kept waiting for as long as a turn takes that
            waits for nobody.
    """

    def __init__(self, settings: EngineSettings, *, has_own_loop: bool) -> None:
        self._settings = settings
        self._has_own_loop = has_own_loop
        self._storage = settings.registry.storage
        self._clock = ClockFollower(settings.registry.clock)
        self._lease = timedelta(seconds=settings.timeouts.total) + _LEASE_MARGIN
        self._drains: list[Drain] = []
        self._drains_lock = threading.Lock()
        self._is_at_end = False
        self._report = DrainReport()
        self._stopping = False
        self._back_off = _FIRST_BACK_OFF
        self._logged_at: dict[str, float] = {}  # by text
        self._wake_asked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._pending: tuple[asyncio.Future[Turn], Sequence[Settlement]] | None = None
        self._horizon: datetime | None = None
        self._wait_of_turns = 0.0
        self._elsewhere_until = 0.0  # by the monotonic clock

    # From any thread

    def wake(self) -> None:
        """Look at the storage now."""
        if not self._wake_asked and self._loop is not None:
            self._wake_asked = True
            # When the loop is closed there is nothing left to wake.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._woken.set)

    def _wake_unless_own(self) -> None:
        # A turn of our own tells us itself what it left to do.
        if not self._thread.is_current:
            self.wake()

    def stop(self) -> None:
        """Claim nothing more, and end once what is in flight is settled."""
        self._stopping = True
        self._wake_asked = False
        self.wake()

    def drain(self) -> Drain:
        """Ask to be told when nothing is due any more that is due now, or when the run is over."""
        drain = Drain.asked_now(self._settings.registry.clock, self._report)
        with self._drains_lock:
            self._drains.append(drain)
            is_at_end = self._is_at_end
        if is_at_end:
            drain.answer(self._report)
        self.wake()
        return drain

    def so_far(self, drain: Drain) -> DrainReport:
        """What was done since `drain` was asked for, which is then forgotten."""
        drain.done.cancel()
        return report_between(drain.before, self._report)

    @property
    def report_so_far(self) -> DrainReport:
        """What was done since the start."""
        return self._report

    # In its loop

    async def run(self, *, horizon: datetime | None = None, started: Callable[[], None] | None = None) -> DrainReport:
        """Work until stopped or cancelled; with a `horizon`, until nothing is due that is due by it.

        On cancellation what is in flight is cut short and settled as ``unknown``, so that it need not wait for its
        lease to run out.
        """
        self._loop = asyncio.get_running_loop()
        self._horizon = horizon
        settings, registry = self._settings, self._settings.registry
        most = settings.max_in_flight
        transport = settings.transport or GuardedTransport(
            registry.destinations, max_idle_per_destination=most, max_idle=max(most, _LEAST_IDLE)
        )
        sender = Sender(transport, settings.maker, settings.timeouts, registry.clock, settings.kept_response_bytes)
        self._in_flight = InFlight(sender, settings.retry, self._now, self._woken)
        self._thread = StorageThread()
        try:
            unsubscribe = self._storage.subscribe(self._wake_unless_own)
        except BaseException:
            self._thread.end()
            raise
        try:
            if started is not None:
                started()
            await self._work(self._loop)
        finally:
            unsubscribe()
            try:
                await self._cut_short()
            finally:
                self._thread.end()
                self._end_drains()
                if settings.transport is None:
                    await transport.aclose()
        return self._report

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        stop_by = None
        while True:
            self._wake_asked = False
            self._woken.clear()
            if self._stopping and stop_by is None:
                stop_by = time.monotonic() + self._settings.timeouts.total
            # A turn that is under way when somebody asks may have looked before their last emit.
            asked = self._open_drains()
            send_by = loop.time() + self._lease.total_seconds() - _KEPT_TO_SETTLE
            turn = await self._turn()
            if turn is not None:
                self._in_flight.begin(self._in_time(turn.claims, send_by), send_by, turn.settled)
                self._answer_drains(asked, turn)
            if self._is_over(turn, stop_by):
                return
            delay = self._time_to_wait(turn)
            # What was settled is over: kept for as long as we wait, the garbage collector would look at it again.
            del turn
            await self._wait(delay)

    async def _turn(self) -> Turn | None:
        """One turn; None if the storage could not, after a pause that grows from time to time."""
        now = self._now()
        batch = self._in_flight.take_settlements()
        capacity = 0 if self._stopping else max(0, self._settings.max_in_flight - len(self._in_flight))
        reading = self._clock.reading
        try:
            turn = await self._stored(batch, now, capacity)
        except Exception as error:
            self._pending = None
            by = self._clock.set_since(reading)
            self._in_flight.give_back([moved_settlement(one, by) if by else one for one in batch])
            if self._horizon is not None:
                raise
            self._log_trouble(error)
            await asyncio.sleep(self._back_off)
            self._back_off = min(self._back_off * 2, _LONGEST_BACK_OFF)
            return None
        self._pending = None
        self._back_off = _FIRST_BACK_OFF
        self._account(turn)
        by = self._clock.set_since(reading)
        return attrs.evolve(turn, claims=tuple(moved_claim(one, by) for one in turn.claims)) if by else turn

    async def _stored(self, batch: Sequence[Settlement], now: datetime, capacity: int) -> Turn:
        if self._has_own_loop and time.monotonic() >= self._elsewhere_until:
            try:
                return self._turn_here(self._storage_turn(batch, now, capacity, wait=False))
            except StorageBusy:
                pass  # the thread waits for whoever writes, and the loop goes on
            except Exception:
                raise
            except BaseException:
                # An interrupt in the thread of `run`. Should this have been stored, it comes late, and nobody minds.
                self._in_flight.give_back(batch)
                raise
        future = self._thread.call(self._storage_turn(batch, now, capacity, wait=True))
        self._pending = future, batch
        return await asyncio.shield(future)

    def _turn_here(self, turn: Callable[[], Turn]) -> Turn:
        """Take it in this thread, where it costs less; but not for a while once they wait, as for a slow disk."""
        began = time.monotonic() - time.thread_time()
        done = self._thread.call_here(turn)
        now = time.monotonic()
        self._wait_of_turns += _WEIGHT * (now - time.thread_time() - began - self._wait_of_turns)
        if self._wait_of_turns > _LONG_WAIT:
            self._wait_of_turns, self._elsewhere_until = 0.0, now + _ELSEWHERE_FOR
        return done

    def _storage_turn(
        self, batch: Sequence[Settlement], now: datetime, capacity: int, *, wait: bool
    ) -> Callable[[], Turn]:
        due_by = now if self._horizon is None else min(self._horizon, now)
        reading = self._clock.reading
        return lambda: self._storage.turn(
            batch, now=now, due_by=due_by, lease=self._lease, capacity=capacity, reading=reading, wait=wait
        )

    def _now(self) -> datetime:
        """The moment it is. If the clock was set, all that is at hand moves along first."""
        now, by = self._clock.read()
        if by:
            _log.warning(
                "the wall clock was set by %+.1f s: what waits goes on waiting as long as it was to", by.total_seconds()
            )
            self._in_flight.move(by)
            self._horizon = self._horizon and self._horizon + by
        return now

    def _log_trouble(self, error: Exception) -> None:
        text = "the storage failed, deliveries wait and will be tried again: %s"
        self._log_sparingly(logging.ERROR, text, error, cause=None if isinstance(error, StorageError) else error)

    def _log_sparingly(self, level: int, text: str, *values: object, cause: Exception | None = None) -> None:
        """Log what may come over and over: each text once a minute."""
        now = time.monotonic()
        if now - self._logged_at.get(text, float("-inf")) >= _LOG_EVERY:
            self._logged_at[text] = now
            _log.log(level, text, *values, exc_info=cause)

    def _in_time(self, claims: Sequence[Claim], send_by: float) -> Sequence[Claim]:
        """The claims, if there is time to send them. Else their leases run out, and they are tried again."""
        if not claims or asyncio.get_running_loop().time() < send_by:
            return claims
        self._log_sparingly(
            logging.WARNING,
            "the storage took so long that %d claimed deliveries, the first of them %d, are not sent: they are tried "
            "again when their leases have run out",
            len(claims),
            claims[0].delivery_id,
        )
        return ()

    def _account(self, turn: Turn) -> None:
        counted = {"delivered": 0, "retrying": 0, "failed": 0, "discarded": turn.discarded}
        for settled in turn.settled:
            counted[settled.status] += 1
            log_settled(settled)
            for notice in notices_of(settled) if self._settings.observers else ():
                self._notify(notice)
        if turn.late:
            self._log_sparingly(
                logging.WARNING,
                "results that came after their leases had run out were dropped: %d; the first: delivery %d, attempt %d",
                len(turn.late),
                turn.late[0].claim.delivery_id,
                turn.late[0].claim.number,
            )
        self._report = DrainReport(
            delivered=self._report.delivered + counted["delivered"],
            retried=self._report.retried + counted["retrying"],
            failed=self._report.failed + counted["failed"],
            discarded=self._report.discarded + counted["discarded"],
            next_due_at=turn.next_due_at,
        )

    def _notify(self, notice: Notice) -> None:
        for observer in self._settings.observers:
            try:
                observer(notice)
            except Exception:
                _log.exception("an observer raised on %s", type(notice).__name__)

    def _open_drains(self) -> Sequence[Drain]:
        with self._drains_lock:
            self._drains = [drain for drain in self._drains if not drain.done.done()]
            return tuple(self._drains)

    def _answer_drains(self, asked: Sequence[Drain], turn: Turn) -> None:
        for drain in asked:
            if self._is_drained(turn, drain.horizon_by(self._clock)):
                drain.answer(self._report)

    def _end_drains(self) -> None:
        with self._drains_lock:
            self._is_at_end = True
        for drain in self._open_drains():
            drain.answer(self._report)

    def _is_drained(self, turn: Turn, horizon: datetime) -> bool:
        return not self._in_flight.is_busy and (turn.next_due_at is None or turn.next_due_at > horizon)

    def _is_over(self, turn: Turn | None, stop_by: float | None) -> bool:
        if stop_by is not None:
            return not self._in_flight.is_busy or time.monotonic() >= stop_by
        return self._horizon is not None and turn is not None and self._is_drained(turn, self._horizon)

    async def _wait(self, delay: float) -> None:
        """Until all have begun, and an attempt is over, an emit or a stop wakes us, or `delay` seconds have passed."""
        # What the next turn claims is to be over by another time than what has not begun yet.
        while self._in_flight.is_beginning:  # noqa: ASYNC110 - a few steps of the loop, and no event of theirs
            await asyncio.sleep(0)
        if delay > 0.0 and self._loop is not None:
            handle = self._loop.call_later(delay, self._woken.set)
            try:
                await self._woken.wait()
            finally:
                handle.cancel()
        else:
            await asyncio.sleep(0)
        await self._gather()

    async def _gather(self) -> None:
        """Let attempts that end together be settled together: a turn makes about as many statements for one as for all.

        Only as long as more of them end, and nobody wakes us.
        """
        before = -1
        while self._in_flight and not self._wake_asked and before < self._in_flight.over < _GATHERED:
            before = self._in_flight.over
            # What comes is read in one step, and ends its attempt in the next.
            for _ in range(2):
                await asyncio.sleep(0)

    def _time_to_wait(self, turn: Turn | None) -> float:
        """Seconds until something is due, or it is time to look again."""
        if self._in_flight.has_settlements or turn is None:
            return 0.0
        has_room = not self._stopping and len(self._in_flight) < self._settings.max_in_flight
        if not has_room or turn.next_due_at is None:
            return _POLL
        if self._horizon is not None and turn.next_due_at > self._horizon:
            return _POLL
        return min(_POLL, (turn.next_due_at - self._now()).total_seconds())

    async def _cut_short(self) -> None:
        """End what is still in flight, and store what came of it as far as that can be done now."""
        await self._in_flight.cut_short()
        claims: Sequence[Claim] = ()
        if self._pending is not None:
            # Cancelled in the middle of a turn: what it claimed is ours all the same.
            future, settled = self._pending
            try:
                turn = await future
            except Exception:
                self._in_flight.give_back(settled)
            else:
                self._account(turn)
                claims = turn.claims
        now = self._now()  # first: what waits moves along if the clock was set meanwhile
        batch = [*self._in_flight.take_settlements(), *(left_open(claim, now) for claim in claims)]
        if not batch:
            return
        try:
            self._account(await self._thread.call(self._storage_turn(batch, now, 0, wait=True)))
        except Exception as error:
            # Their leases run out, and another dispatcher goes on with them.
            self._log_trouble(error)
