"""The wall clock is set while a dispatcher works: every wait goes on as long as it was to, and nothing is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tenacity import stop_after_delay, wait_fixed

from procore_hooks import DestinationPolicy, Dispatcher, DrainReport, HookRegistry, RetryPolicy, Storage, StorageBusy
from procore_hooks._clock import SystemClock
from procore_hooks._core.claims import Settlement
from procore_hooks.testing import ScriptedEndpoint

from .conftest import BOUND, HeldEndpoint, answering, emit, hook_for, wait_until
from .test_trouble import Failing

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
HALF_A_DAY = RetryPolicy(wait=wait_fixed(3600), stop=stop_after_delay(timedelta(hours=12)))
set_by = pytest.mark.parametrize("by", [timedelta(days=10), timedelta(days=-10)], ids=["forward", "back"])


class SettableClock(SystemClock):
    """A machine's clocks, moved by hand: time passes for both, and only the wall clock can be set."""

    def __init__(self) -> None:
        super().__init__()
        self._steady = "by hand"
        self._passed = timedelta(0)
        self._wall = datetime(2031, 5, 17, tzinfo=UTC)

    def now(self) -> datetime:
        return self._wall + self._passed

    def elapsed(self) -> float:
        return self._passed.total_seconds()

    def let_pass(self, time: timedelta) -> None:
        self._passed += time

    def set_by(self, by: timedelta) -> None:
        self._wall += by


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def settable(storage: Storage, clock: SettableClock) -> Iterator[HookRegistry]:
    """A registry by a clock that can be set, over each of the storages."""
    with HookRegistry(storage, destinations=DestinationPolicy.local(), clock=clock) as registry:
        yield registry


@set_by
def test_a_retry_comes_when_it_was_to_come(settable: HookRegistry, clock: SettableClock, by: timedelta) -> None:
    """By the steady clock the gap is the policy's, to the second, and what waits is told by the new wall clock."""
    hook = hook_for(settable)
    endpoint = ScriptedEndpoint().reply(500).reply(200)
    with Dispatcher(settable, transport=endpoint, retry=HALF_A_DAY) as dispatcher:
        sent = emit(settable)
        dispatcher.drain(BOUND)
        clock.let_pass(30 * MINUTE)
        clock.set_by(by)
        report = dispatcher.drain(BOUND)
        assert (len(endpoint.requests), report.next_due_at) == (1, clock.now() + 30 * MINUTE)
        assert settable.hooks.get(hook.id).failing_since == clock.now() - 30 * MINUTE
        assert settable.hooks.get(hook.id).paused_until == clock.now() + 30 * MINUTE
        clock.let_pass(30 * MINUTE - timedelta(seconds=1))
        dispatcher.drain(BOUND)
        assert len(endpoint.requests) == 1
        clock.let_pass(timedelta(seconds=1))
        assert dispatcher.drain(BOUND).next_due_at is None
    assert settable.deliveries.get(sent).status == "delivered"


@pytest.mark.parametrize("mode", ["pause", "independent"])
def test_a_jump_forward_gives_nothing_up(settable: HookRegistry, clock: SettableClock, mode: str) -> None:
    """Half a day of retries is half a day, though the wall clock shows ten more."""
    hook_for(settable)
    policy = RetryPolicy(wait=wait_fixed(3600), stop=stop_after_delay(timedelta(hours=12)), on_failure=mode)
    dispatcher = Dispatcher(settable, transport=answering(500), retry=policy)
    sent = emit(settable)
    for hour in range(12):
        dispatcher.drain()
        assert settable.deliveries.get(sent).status == "retrying", f"after {hour} hours"
        clock.let_pass(HOUR)
        if hour == 6:
            clock.set_by(timedelta(days=10))
    dispatcher.drain()
    delivery = settable.deliveries.get(sent)
    assert (delivery.status, delivery.attempt_count) == ("failed", 13)
    assert "13 attempts in 12 h" in (delivery.reason or "")


@set_by
def test_an_attempt_under_way_keeps_its_lease(settable: HookRegistry, clock: SettableClock, by: timedelta) -> None:
    """Nobody else claims what is in flight, and its failure pauses the hook from then on, by the new wall clock."""
    hook = hook_for(settable)
    held, other = HeldEndpoint(), ScriptedEndpoint().reply(200)
    with Dispatcher(settable, transport=held, retry=HALF_A_DAY) as dispatcher:
        sent = emit(settable)
        held.wait_for(1)
        clock.set_by(by)
        Dispatcher(settable, transport=other).drain()
        assert not other.requests
        held.answer(0, 500)
        dispatcher.drain(BOUND)
    after = settable.hooks.get(hook.id)
    assert (after.failing_since, after.paused_until) == (clock.now(), clock.now() + HOUR)
    assert [attempt.outcome for attempt in settable.deliveries.get(sent).attempts] == ["retried"]


def test_attempts_that_have_not_begun_move_along(settable: HookRegistry, clock: SettableClock) -> None:
    """Of many claimed together, those that begin after the clock was set count from their first attempt too."""
    hook_for(settable, max_in_flight=100)
    sent = [emit(settable) for _ in range(100)]
    policy = RetryPolicy(wait=wait_fixed(3600), stop=stop_after_delay(timedelta(hours=12)), on_failure="independent")
    Dispatcher(settable, transport=answering(500), retry=policy).drain()
    clock.let_pass(HOUR)
    jumps = iter([timedelta(days=10)])

    def refuse(request: httpx.Request) -> httpx.Response:
        clock.set_by(next(jumps, timedelta(0)))
        return httpx.Response(500)

    Dispatcher(settable, transport=httpx.MockTransport(refuse), retry=policy).drain()
    assert {(one.status, one.attempt_count) for one in map(settable.deliveries.get, sent)} == {("retrying", 2)}


@set_by
def test_an_attempt_that_is_over_waits_for_its_turn(
    settable: HookRegistry, clock: SettableClock, by: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that is not decided yet when the clock is set pauses the hook from the moment at which it came."""
    hook = hook_for(settable, max_in_flight=2)
    turn, may_return = settable.storage.turn, threading.Event()

    def slow_turn(settlements: Sequence[Settlement], *, wait: bool, **keywords: Any) -> Any:
        if not wait:
            raise StorageBusy("others write")
        done = turn(settlements, **keywords)
        if settlements:
            assert may_return.wait(BOUND)
        return done

    held = HeldEndpoint()
    monkeypatch.setattr(settable.storage, "turn", slow_turn)
    with Dispatcher(settable, transport=held, retry=HALF_A_DAY) as dispatcher:
        emit(settable)
        emit(settable)
        held.wait_for(2)
        engine = dispatcher._engine
        assert engine is not None
        held.answer(0)
        wait_until(lambda: len(engine._in_flight) == 1 and not engine._in_flight.has_settlements)
        held.answer(1, 500)
        wait_until(lambda: engine._in_flight.has_settlements)
        clock.let_pass(10 * MINUTE)
        clock.set_by(by)
        may_return.set()
        dispatcher.drain(BOUND)
    after = settable.hooks.get(hook.id)
    assert after.failing_since == clock.now() - 10 * MINUTE
    assert after.paused_until == clock.now() + HOUR - 10 * MINUTE


def test_a_run_of_failures_goes_on(settable: HookRegistry, clock: SettableClock) -> None:
    """A probe that was claimed before the jump and fails after it is measured by the time that has passed."""
    hook = hook_for(settable)
    held = HeldEndpoint()
    with Dispatcher(settable, transport=held, retry=HALF_A_DAY) as dispatcher:
        emit(settable)
        held.wait_for(1)
        held.answer(0, 500)
        dispatcher.drain(BOUND)
        clock.let_pass(HOUR)
        held.wait_for(2)
        clock.set_by(timedelta(days=10))
        held.answer(1, 500)
        dispatcher.drain(BOUND)
        assert settable.hooks.get(hook.id).failing_since == clock.now() - HOUR


@set_by
def test_results_that_wait_for_the_storage_move_along(
    settable: HookRegistry, clock: SettableClock, by: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that could not be stored before the jump is stored by the new wall clock."""
    monkeypatch.setattr("procore_hooks._engine._LONGEST_BACK_OFF", 0.05)
    hook = hook_for(settable)
    failing = Failing(settable.storage)
    settable.storage = failing  # type: ignore[assignment]
    held = HeldEndpoint()
    with Dispatcher(settable, transport=held, retry=HALF_A_DAY) as dispatcher:
        emit(settable)
        held.wait_for(1)
        failing.error = StorageBusy("hooks.db stayed locked")
        held.answer(0, 500)
        wait_until(lambda: failing.refused)
        clock.set_by(by)
        seen = failing.refused
        wait_until(lambda: failing.refused >= seen + 2)
        failing.error = None
        dispatcher.drain(BOUND)
    assert settable.hooks.get(hook.id).paused_until == clock.now() + HOUR


def test_a_drain_ends_though_the_clock_is_set_back(settable: HookRegistry, clock: SettableClock) -> None:
    """What was asked for before the jump does not wait for retries of ten days."""
    hook_for(settable)
    held = HeldEndpoint()
    reports: list[DrainReport] = []
    with Dispatcher(settable, transport=held, retry=HALF_A_DAY) as dispatcher:
        emit(settable)
        held.wait_for(1)
        waiting = threading.Thread(target=lambda: reports.append(dispatcher.drain(BOUND)))
        waiting.start()
        wait_until(lambda: dispatcher._engine is not None and dispatcher._engine._drains)
        clock.set_by(timedelta(days=-10))
        held.answer(0, 500)
        waiting.join(BOUND / 2)
        assert not waiting.is_alive()
    assert reports[0].next_due_at == clock.now() + HOUR


@set_by
def test_a_dispatcher_that_starts_later_follows_too(
    settable: HookRegistry, clock: SettableClock, by: timedelta
) -> None:
    """The clock may be set while no dispatcher runs: the next one on the same machine finds out."""
    hook = hook_for(settable)
    emit(settable)
    Dispatcher(settable, transport=answering(500), retry=HALF_A_DAY).drain()
    clock.set_by(by)
    clock.let_pass(30 * MINUTE)
    report = Dispatcher(settable, transport=answering(200), retry=HALF_A_DAY).drain()
    assert (report.delivered, report.next_due_at) == (0, clock.now() + 30 * MINUTE)
    assert settable.hooks.get(hook.id).paused_until == report.next_due_at


def test_the_log_says_so_once(settable: HookRegistry, clock: SettableClock, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks at the times in a history finds out why they jump; a clock that is steered by less is not told."""
    with caplog.at_level(logging.INFO, "procore_hooks"), Dispatcher(settable, transport=answering()) as dispatcher:
        for by in (timedelta(seconds=0.7), timedelta(days=-10)):
            dispatcher.drain(BOUND)
            clock.set_by(by)
            dispatcher.drain(BOUND)
    assert [record.getMessage() for record in caplog.records] == [
        "the wall clock was set by -863999.3 s: what waits goes on waiting as long as it was to"
    ]


def test_a_claim_that_took_too_long_is_not_sent(
    settable: HookRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A turn that the storage held up for longer than the lease sends nothing: somebody else may have claimed it."""
    hook_for(settable)
    sent: list[httpx.Request] = []
    monkeypatch.setattr("procore_hooks._engine._KEPT_TO_SETTLE", 1e6)
    with Dispatcher(settable, transport=httpx.MockTransport(sent.append)) as dispatcher:
        emit(settable)
        wait_until(lambda: "the storage took so long that 1 claimed deliveries" in caplog.text)
        dispatcher.stop()
    assert not sent
    assert settable.deliveries.list()[0].attempt_count == 1
