"""Draining: what it sends, what it leaves, when it answers, and what its report says."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tenacity import stop_after_attempt, wait_fixed

from procore_hooks import Conflict, Dispatcher, DrainReport, HookRegistry, RetryPolicy, SQLiteStorage, Timeouts
from procore_hooks.testing import ManualClock, ScriptedEndpoint

from .conftest import BOUND, HeldEndpoint, answering, emit, hook_for, wait_until

EVERY_MINUTE = RetryPolicy(wait=wait_fixed(60), stop=stop_after_attempt(3))


def wait_for_a_drain(dispatcher: Dispatcher) -> None:
    """Wait until another thread is in `drain` of a running dispatcher."""
    engine = dispatcher._engine
    assert engine is not None
    wait_until(lambda: engine._drains)


def test_a_drain_sends_all_that_is_due(registry: HookRegistry) -> None:
    """Without a running dispatcher a drain delivers everything, over all hooks, and returns."""
    for _ in range(3):
        hook_for(registry)
    for _ in range(50):
        registry.emit("RFIs", "update")
    report = Dispatcher(registry, transport=answering()).drain()

    assert report == DrainReport(delivered=150)
    assert registry.deliveries.stats(since=registry.hooks.get(1).created_at).delivered == 150


def test_a_running_dispatcher_is_drained(registry: HookRegistry) -> None:
    """On a running dispatcher a drain waits until it has sent what is due; it goes on running."""
    hook_for(registry)
    with Dispatcher(registry, transport=answering()) as dispatcher:
        for _ in range(3):
            for _ in range(20):
                emit(registry)
            assert dispatcher.drain(BOUND).next_due_at is None
            assert registry.deliveries.list(status=("enqueued", "retrying")).items == ()


def test_a_drain_counts_what_was_done_since_it_was_asked(by_hand: HookRegistry, clock: ManualClock) -> None:
    """A report on a running dispatcher holds what was done since the call, not since the start."""
    hook_for(by_hand)
    endpoint = HeldEndpoint()
    with Dispatcher(by_hand, transport=endpoint, retry=EVERY_MINUTE) as dispatcher:
        emit(by_hand)
        endpoint.wait_for(1)
        endpoint.answer(0)
        assert dispatcher.drain(BOUND).failed == 0
        emit(by_hand)
        endpoint.wait_for(2)
        reports: list[DrainReport] = []
        drainer = threading.Thread(target=lambda: reports.append(dispatcher.drain(BOUND)))
        drainer.start()
        wait_for_a_drain(dispatcher)
        endpoint.answer(1, 500)
        drainer.join(BOUND)
    assert len(reports) == 1
    assert (reports[0].delivered, reports[0].retried) == (0, 1)


def test_the_report_tells_all_that_came_of_it(by_hand: HookRegistry, clock: ManualClock) -> None:
    """Delivered, retried, failed and discarded are counted, and the pause is in `next_due_at`."""
    hook_for(by_hand)
    endpoint = ScriptedEndpoint().reply(200).reply(500, times=3)
    dispatcher = Dispatcher(by_hand, transport=endpoint, retry=EVERY_MINUTE)
    for _ in range(4):
        emit(by_hand)

    assert dispatcher.drain() == DrainReport(delivered=1, retried=1, next_due_at=clock.now() + timedelta(minutes=1))
    assert dispatcher.drain() == DrainReport(next_due_at=clock.now() + timedelta(minutes=1))
    clock.advance(timedelta(minutes=1))
    assert dispatcher.drain() == DrainReport(retried=1, next_due_at=clock.now() + timedelta(minutes=1))
    clock.advance(timedelta(minutes=1))
    assert dispatcher.drain() == DrainReport(failed=1, discarded=2)


def test_next_due_at_leaves_disabled_hooks_out(by_hand: HookRegistry, clock: ManualClock) -> None:
    """What waits for a disabled hook is never due; of several paused hooks the earliest counts."""
    first, second, disabled = hook_for(by_hand), hook_for(by_hand), hook_for(by_hand)
    by_hand.hooks.disable(disabled.id)
    dispatcher = Dispatcher(by_hand, transport=answering(500), retry=EVERY_MINUTE)
    by_hand.emit("RFIs", "update")
    assert dispatcher.drain().next_due_at == clock.now() + timedelta(minutes=1)
    clock.advance(timedelta(seconds=30))
    by_hand.hooks.enable(second.id)
    assert dispatcher.drain().next_due_at == clock.now() + timedelta(seconds=30)
    by_hand.hooks.disable(first.id)
    by_hand.hooks.disable(second.id)
    assert dispatcher.drain().next_due_at is None


def test_next_due_at_counts_leases(by_hand: HookRegistry, clock: ManualClock) -> None:
    """While another dispatcher holds a delivery, its lease is the next moment, and a drain does not wait for it."""
    hook_for(by_hand)
    endpoint = HeldEndpoint()
    with Dispatcher(by_hand, transport=endpoint, timeouts=Timeouts(total=3)):
        emit(by_hand)
        endpoint.wait_for(1)
        report = Dispatcher(by_hand, transport=answering()).drain()
        endpoint.answer(0)
    assert report == DrainReport(next_due_at=clock.now() + timedelta(seconds=8))


def test_a_drain_sends_no_later_retry(registry: HookRegistry) -> None:
    """What fails and becomes due while the drain is at work stays: the clock was read once."""
    hook_for(registry)
    at_once = RetryPolicy(wait=wait_fixed(0), stop=stop_after_attempt(50))
    report = Dispatcher(registry, transport=answering(500), retry=at_once).drain() if emit(registry) else None
    assert report is not None
    assert (report.retried, report.failed) == (1, 0)


@pytest.mark.parametrize("running", [False, True])
def test_a_drain_returns_when_its_time_is_up(plain: HookRegistry, running: bool) -> None:
    """`drain(timeout)` returns a report while an attempt still hangs."""
    hook_for(plain, max_in_flight=2)
    endpoint = HeldEndpoint()
    dispatcher = Dispatcher(plain, transport=endpoint)
    if running:
        dispatcher.start()
    emit(plain)
    emit(plain)

    def answer_one() -> None:
        endpoint.wait_for(2)
        if running:
            wait_for_a_drain(dispatcher)
        endpoint.answer(0)

    done = threading.Thread(target=answer_one)
    done.start()
    report = dispatcher.drain(timeout=1)
    done.join(BOUND)
    if running:
        endpoint.answer(1)
        dispatcher.stop()

    assert report.delivered == 1


def test_a_drain_cut_short_leaves_nothing_leased(registry: HookRegistry) -> None:
    """When the time of a drain of its own is up, attempts in flight are ``unknown`` and due at once."""
    hook_for(registry)
    sent = emit(registry)
    report = Dispatcher(registry, transport=HeldEndpoint()).drain(timeout=0.05)
    delivery = registry.deliveries.get(sent)

    assert (report.delivered, report.failed) == (0, 0)
    assert (delivery.status, [a.outcome for a in delivery.attempts]) == ("retrying", ["unknown"])
    assert registry.hooks.get(1).failing_since is None
    assert Dispatcher(registry, transport=answering()).drain().delivered == 1
    assert registry.deliveries.get(sent).attempt_count == 2


def test_a_drain_of_no_time_at_all_loses_nothing(registry: HookRegistry) -> None:
    """A drain that is over before it began leaves the delivery for the next one."""
    hook_for(registry)
    emit(registry)
    Dispatcher(registry, transport=answering()).drain(timeout=0)
    Dispatcher(registry, transport=answering()).drain()
    assert registry.deliveries.list()[0].status == "delivered"


def test_a_drain_in_a_running_loop_is_a_conflict(plain: HookRegistry) -> None:
    """In a coroutine `drain` names `drain_async`, which works there, running or not."""
    hook_for(plain)
    dispatcher = Dispatcher(plain, transport=answering())

    async def main() -> None:
        with pytest.raises(Conflict, match="drain_async"):
            dispatcher.drain()
        emit(plain)
        assert (await dispatcher.drain_async(BOUND)).delivered == 1
        async with dispatcher:
            emit(plain)
            assert (await dispatcher.drain_async(BOUND)).next_due_at is None
            assert plain.deliveries.list(status="enqueued").items == ()
        dispatcher.start()
        emit(plain)
        await dispatcher.drain_async(BOUND)
        assert plain.deliveries.list(status="enqueued").items == ()
        dispatcher.stop()

    asyncio.run(main())


def test_drain_async_returns_when_its_time_is_up(plain: HookRegistry) -> None:
    """`drain_async(timeout)` on a running dispatcher returns a report, and the attempt goes on."""
    hook_for(plain)
    endpoint = HeldEndpoint()

    async def main() -> None:
        async with Dispatcher(plain, transport=endpoint) as dispatcher:
            emit(plain)
            report = await dispatcher.drain_async(0.05)
            assert report.delivered == 0
            endpoint.answer(0)
            assert (await dispatcher.drain_async(BOUND)).next_due_at is None

    asyncio.run(main())
    assert plain.deliveries.list()[0].attempt_count == 1


def test_two_drains_of_one_idle_dispatcher_conflict(plain: HookRegistry) -> None:
    """While one thread drains an idle dispatcher, another one's drain is a conflict and not a second claim."""
    hook_for(plain)
    endpoint = HeldEndpoint()
    dispatcher = Dispatcher(plain, transport=endpoint)
    emit(plain)
    first = threading.Thread(target=dispatcher.drain)
    first.start()
    endpoint.wait_for(1)
    with pytest.raises(Conflict, match="running already"):
        dispatcher.drain()
    endpoint.answer(0)
    first.join(BOUND)
    assert plain.deliveries.list()[0].attempt_count == 1


def test_stop_ends_a_drain(plain: HookRegistry) -> None:
    """Somebody who waits in a drain gets their report when the dispatcher is stopped."""
    hook_for(plain)
    endpoint = HeldEndpoint()
    dispatcher = Dispatcher(plain, transport=endpoint)
    dispatcher.start()
    emit(plain)
    emit(plain)
    endpoint.wait_for(1)
    reports: list[DrainReport] = []
    drainer = threading.Thread(target=lambda: reports.append(dispatcher.drain()))
    drainer.start()
    wait_for_a_drain(dispatcher)
    stopper = threading.Thread(target=dispatcher.stop)
    stopper.start()
    endpoint.answer(0)
    drainer.join(BOUND)
    stopper.join(BOUND)
    assert [report.delivered for report in reports] == [1]


def test_a_drain_asked_for_at_the_very_end_returns(plain: HookRegistry) -> None:
    """Drains that race with the end of a run all return: none waits for an answer that nobody gives any more."""
    hook_for(plain)
    dispatcher = Dispatcher(plain, transport=answering())
    for _ in range(30):
        dispatcher.start()
        begin = threading.Barrier(3)
        done: list[DrainReport] = []

        def drain(begin: threading.Barrier = begin, done: list[DrainReport] = done) -> None:
            begin.wait(BOUND)
            for _ in range(20):
                try:
                    done.append(dispatcher.drain())
                except Conflict:  # the other one drains it, now that it has stopped
                    done.append(DrainReport())

        drainers = [threading.Thread(target=drain, daemon=True) for _ in range(2)]
        for drainer in drainers:
            drainer.start()
        begin.wait(BOUND)
        dispatcher.stop()
        for drainer in drainers:
            drainer.join(BOUND)
        assert len(done) == 40


def test_an_ended_run_answers_drains_at_once(plain: HookRegistry) -> None:
    """Asked for after the end, or just before it, a drain is answered with what was done."""
    dispatcher = Dispatcher(plain, transport=answering())
    dispatcher.start()
    engine = dispatcher._engine
    assert engine is not None
    dispatcher.stop()
    assert engine.drain().done.result(timeout=BOUND) == DrainReport()


def test_a_drain_sees_what_was_emitted_before_it(plain: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that looked before the emit does not answer the drain after it, however late it returns."""
    hook_for(plain)
    turn, looked, may_return = plain.storage.turn, threading.Event(), threading.Event()

    def slow_turn(*args: object, **keywords: object) -> object:
        done = turn(*args, **keywords)  # type: ignore[arg-type]
        if not looked.is_set():
            looked.set()
            assert may_return.wait(BOUND)
        return done

    dispatcher = Dispatcher(plain, transport=answering())
    monkeypatch.setattr(plain.storage, "turn", slow_turn)
    dispatcher.start()
    assert looked.wait(BOUND)
    sent = emit(plain)
    statuses: list[str] = []
    drainer = threading.Thread(
        target=lambda: (dispatcher.drain(BOUND), statuses.append(plain.deliveries.get(sent).status))
    )
    drainer.start()
    wait_for_a_drain(dispatcher)
    may_return.set()
    drainer.join(BOUND)
    dispatcher.stop()
    assert statuses == ["delivered"]


# Waking


def _delivered_after(registry: HookRegistry, act: Callable[[], object]) -> float:
    """How many seconds a running, idle dispatcher takes to send what `act` makes due."""
    endpoint = ScriptedEndpoint()
    with Dispatcher(registry, transport=endpoint) as dispatcher:
        dispatcher.drain(BOUND)
        start = time.monotonic()
        act()
        return endpoint.wait_for(1, BOUND)[0].received_at - start


@pytest.mark.parametrize("what", ["emit", "ping", "enable", "redeliver"])
def test_it_wakes_at_once(registry: HookRegistry, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """What this process makes due is sent without waiting for the next look: with that put off, it still comes."""
    monkeypatch.setattr("procore_hooks._engine._POLL", 3600.0)
    hook = hook_for(registry)
    sent = emit(registry)
    Dispatcher(registry, transport=answering()).drain()
    if what == "enable":
        registry.hooks.disable(hook.id)
        emit(registry)
    acts: dict[str, Callable[[], object]] = {
        "emit": lambda: registry.emit("RFIs", "update"),
        "ping": lambda: registry.hooks.ping(hook.id),
        "enable": lambda: registry.hooks.enable(hook.id),
        "redeliver": lambda: registry.deliveries.redeliver(sent),
    }
    assert _delivered_after(registry, acts[what]) < BOUND


def test_it_notices_what_others_emit(tmp_path: Path) -> None:
    """What another object on the same file emits, as another process would, is sent within half a second."""
    with (
        HookRegistry(SQLiteStorage(tmp_path / "hooks.db")) as ours,
        HookRegistry(SQLiteStorage(tmp_path / "hooks.db")) as theirs,
    ):
        hook_for(theirs)
        waits = sorted(_delivered_after(ours, lambda: theirs.emit("RFIs", "update")) for _ in range(5))
    assert waits[0] < 0.5


def test_it_wakes_when_a_pause_is_over(registry: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry is made when it is due, not when the next look comes."""
    monkeypatch.setattr("procore_hooks._engine._POLL", 3600.0)
    hook_for(registry)
    endpoint = ScriptedEndpoint().reply(500)
    soon = RetryPolicy(wait=wait_fixed(0.05), stop=stop_after_attempt(5))
    with Dispatcher(registry, transport=endpoint, retry=soon):
        emit(registry)
        first, second = endpoint.wait_for(2, BOUND)
    assert second.received_at - first.received_at >= 0.05
