"""A dispatcher's life: each way to run one, what stopping waits for, and what is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import procore_hooks._engine as engine_module
from procore_hooks import (
    AsyncHookRegistry,
    Conflict,
    DestinationPolicy,
    Dispatcher,
    HookRegistry,
    InvalidInput,
    SQLiteStorage,
    StorageError,
    Timeouts,
)
from procore_hooks._storage_thread import StorageThread
from procore_hooks.testing import ScriptedEndpoint, WebhookReceiver

from .conftest import BOUND, HeldEndpoint, answering, emit, hook_for, wait_until

QUICK = Timeouts(connect=1, response=1, total=1)


def status_of(registry: HookRegistry, delivery_id: int) -> str:
    return registry.deliveries.get(delivery_id).status


# Each way to run


def test_start_delivers_in_the_background_until_stop(registry: HookRegistry) -> None:
    """Between start and stop events flow; after stop they stay enqueued."""
    hook_for(registry)
    endpoint = ScriptedEndpoint()
    dispatcher = Dispatcher(registry, transport=endpoint)
    dispatcher.start()
    sent = emit(registry)
    wait_until(lambda: status_of(registry, sent) == "delivered")
    dispatcher.stop()
    waiting = emit(registry)

    assert status_of(registry, waiting) == "enqueued"
    assert len(endpoint.requests) == 1


def test_with_starts_and_stops(registry: HookRegistry) -> None:
    """A `with` block delivers while it lasts, and stops also when its body raises."""
    hook_for(registry)
    dispatcher = Dispatcher(registry, transport=answering())

    def block() -> None:
        with dispatcher as entered:
            assert entered is dispatcher
            sent = emit(registry)
            wait_until(lambda: status_of(registry, sent) == "delivered")
            raise KeyError("of the app")

    with pytest.raises(KeyError):
        block()
    assert status_of(registry, emit(registry)) == "enqueued"


def test_run_works_in_this_thread_until_stop(registry: HookRegistry) -> None:
    """`run` returns once another thread calls `stop`."""
    hook_for(registry)
    endpoint = ScriptedEndpoint()
    dispatcher = Dispatcher(registry, transport=endpoint)
    emit(registry)

    def stop_later() -> None:
        endpoint.wait_for(1)
        dispatcher.stop()

    stopper = threading.Thread(target=stop_later)
    stopper.start()
    dispatcher.run()
    stopper.join(BOUND)
    assert registry.deliveries.list()[0].status == "delivered"


def test_run_async_works_in_the_callers_loop(registry: HookRegistry) -> None:
    """`run_async` delivers in the loop that awaits it, and `stop` ends it from inside and at once."""
    hook_for(registry)
    loops: list[asyncio.AbstractEventLoop] = []
    dispatcher = Dispatcher(registry, transport=answering(), observers=[lambda _: loops.append(_loop())])

    async def main() -> None:
        task = asyncio.create_task(dispatcher.run_async())
        sent = emit(registry)
        async with asyncio.timeout(BOUND):
            await asyncio.to_thread(wait_until, lambda: status_of(registry, sent) == "delivered")
            dispatcher.stop()  # would wait for ever here, if it waited for its own loop
            await task
        assert loops == [asyncio.get_running_loop()]

    asyncio.run(main())


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_async_with_works_in_the_callers_loop(registry: HookRegistry) -> None:
    """`async with` delivers while it lasts and settles what is in flight when it ends."""
    hook_for(registry)
    endpoint = HeldEndpoint()

    async def main() -> int:
        async with asyncio.timeout(BOUND), Dispatcher(registry, transport=endpoint):
            sent = emit(registry)
            await asyncio.to_thread(endpoint.wait_for, 1)
            endpoint.answer(0)
        return sent

    assert status_of(registry, asyncio.run(main())) == "delivered"


def test_an_async_registry_will_do() -> None:
    """A dispatcher takes an `AsyncHookRegistry` as well."""

    async def main() -> None:
        async with AsyncHookRegistry() as registry:
            hook = await registry.hooks.create("https://hooks.example/", namespace="test")
            await registry.triggers.create(hook.id, "RFIs", "update")
            async with Dispatcher(registry, transport=answering()) as dispatcher:
                await registry.emit("RFIs", "update")
                assert (await dispatcher.drain_async(BOUND)).delivered == 1

    asyncio.run(main())


# One at a time


@pytest.mark.parametrize("again", [Dispatcher.start, Dispatcher.run], ids=["start", "run"])
def test_a_running_dispatcher_is_not_started_twice(plain: HookRegistry, again: Callable[[Dispatcher], None]) -> None:
    """A second start or run is a conflict, and the first goes on."""
    hook_for(plain)
    with Dispatcher(plain, transport=answering()) as dispatcher:
        with pytest.raises(Conflict, match="running already"):
            again(dispatcher)
        sent = emit(plain)
        wait_until(lambda: status_of(plain, sent) == "delivered")


def test_run_inside_a_loop_is_a_conflict(plain: HookRegistry) -> None:
    """`run` in a thread with a running loop says what to call instead, and leaves the dispatcher fit to start."""
    dispatcher = Dispatcher(plain, transport=answering())

    async def main() -> None:
        with pytest.raises(Conflict, match="run_async"):
            dispatcher.run()

    asyncio.run(main())
    dispatcher.start()
    dispatcher.stop()


def test_it_starts_again_after_stop(registry: HookRegistry) -> None:
    """A stopped dispatcher can be started again, any number of times, and goes on with what waited."""
    hook_for(registry)
    dispatcher = Dispatcher(registry, transport=answering())
    for _ in range(3):
        sent = emit(registry)
        with dispatcher:
            wait_until(lambda sent=sent: status_of(registry, sent) == "delivered")


def test_stop_of_one_that_never_ran_does_nothing(plain: HookRegistry) -> None:
    """Stopping what does not run returns at once, twice too."""
    dispatcher = Dispatcher(plain)
    dispatcher.stop()
    dispatcher.stop(timeout=1)


@pytest.mark.parametrize("wrong", [0, -1, 10_001, True, 1.5, "7"])
def test_max_in_flight_is_checked(plain: HookRegistry, wrong: object) -> None:
    """A limit that is no number from 1 to 10,000 is refused by name."""
    with pytest.raises(InvalidInput, match="max_in_flight"):
        Dispatcher(plain, max_in_flight=wrong)  # type: ignore[arg-type]


# Where the storage's work is done


class Turns:
    """Notes in which thread each turn is taken."""

    def __init__(self, registry: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
        self._turn = registry.storage.turn
        self.threads: list[threading.Thread] = []
        monkeypatch.setattr(registry.storage, "turn", self._noted)

    def _noted(self, *args: Any, **kwargs: Any) -> Any:
        self.threads.append(threading.current_thread())
        return self._turn(*args, **kwargs)

    def names(self) -> set[str]:
        return {thread.name for thread in self.threads}


def test_a_loop_of_its_own_takes_the_turns(registry: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a loop of its own neither a lone event nor one of many costs a hand-over between threads."""
    monkeypatch.setattr(engine_module, "_LONG_WAIT", BOUND)  # a busy machine may keep any turn waiting
    hook_for(registry, max_in_flight=2)
    turns, endpoint = Turns(registry, monkeypatch), HeldEndpoint()
    # Before it starts: a turn that comes upon an emit would be left to the other thread.
    emit(registry)
    emit(registry)
    with Dispatcher(registry, transport=endpoint) as dispatcher:
        endpoint.wait_for(2)
        endpoint.answer(0)
        endpoint.answer(1)
        assert dispatcher.drain(BOUND).next_due_at is None
    assert turns.names() == {"procore-hooks-dispatcher"}


def test_a_turn_that_would_wait_is_another_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else keeps the file locked, the loop goes on: what is under way comes to its end, and is settled
    once the lock is gone.
    """
    path = tmp_path / "hooks.db"
    with (
        HookRegistry(SQLiteStorage(path), destinations=DestinationPolicy.local()) as registry,
        contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as outside,
    ):
        hook_for(registry, max_in_flight=2)
        endpoint = HeldEndpoint()
        with Dispatcher(registry, transport=endpoint) as dispatcher:
            sent = [emit(registry), emit(registry)]
            endpoint.wait_for(2)
            turns, engine = Turns(registry, monkeypatch), dispatcher._engine
            assert engine is not None
            outside.execute("BEGIN IMMEDIATE")
            endpoint.answer(0)
            wait_until(lambda: "procore-hooks-storage" in turns.names())
            assert len(engine._in_flight) == 1
            endpoint.answer(1)
            wait_until(lambda: engine._in_flight.has_settlements)
            outside.execute("ROLLBACK")
            wait_until(lambda: {status_of(registry, one) for one in sent} == {"delivered"})


def test_turns_that_wait_are_left_to_the_other_thread(plain: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once turns wait long, as for a slow disk, the loop does without them for a second, and tries again then. Turns
    that are at work all the time, however long, stay where they are.
    """
    seconds, of_work = [0.0], [0.0]
    clocks = SimpleNamespace(monotonic=lambda: seconds[0], thread_time=lambda: of_work[0])
    monkeypatch.setattr(engine_module, "time", clocks)
    monkeypatch.setattr(engine_module, "_POLL", 0.001)
    turn, names, works = plain.storage.turn, [], threading.Event()

    def long_turn(*args: Any, **keywords: Any) -> Any:
        seconds[0] += 0.5
        if works.is_set():
            of_work[0] += 0.5
        names.append(threading.current_thread().name.removeprefix("procore-hooks-"))
        return turn(*args, **keywords)

    monkeypatch.setattr(plain.storage, "turn", long_turn)
    with Dispatcher(plain, transport=answering()):
        wait_until(lambda: len(names) >= 6)
        works.set()
        seen = len(names) + 4
        wait_until(lambda: len(names) >= seen + 6)
    assert names[:6] == ["dispatcher", "storage", "storage"] * 2
    assert set(names[seen : seen + 6]) == {"dispatcher"}


def test_an_interrupted_turn_loses_no_result(registry: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in the midst of a turn, in the thread of `run`, ends it; what was to be stored is stored first."""
    monkeypatch.setattr(engine_module, "_LONG_WAIT", BOUND)  # a busy machine may keep any turn waiting
    hook_for(registry)
    sent, turn = emit(registry), registry.storage.turn

    def interrupted(settlements: Any, **keywords: Any) -> Any:
        if settlements and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return turn(settlements, **keywords)

    monkeypatch.setattr(registry.storage, "turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Dispatcher(registry, transport=answering()).run()
    assert status_of(registry, sent) == "delivered"


@pytest.mark.parametrize("way", ["run_async", "async with", "drain_async"])
def test_the_callers_loop_is_never_kept_waiting(
    registry: HookRegistry, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """In the caller's loop, where others want to go on, no turn is taken, however it is run."""
    hook_for(registry)
    turns, dispatcher = Turns(registry, monkeypatch), Dispatcher(registry, transport=answering())

    async def main() -> None:
        sent = emit(registry)
        async with asyncio.timeout(BOUND):
            if way == "drain_async":
                await dispatcher.drain_async()
            elif way == "async with":
                async with dispatcher:
                    await dispatcher.drain_async()
            else:
                task = asyncio.create_task(dispatcher.run_async())
                await asyncio.to_thread(wait_until, lambda: status_of(registry, sent) == "delivered")
                dispatcher.stop()
                await task

    asyncio.run(main())
    assert turns.names() == {"procore-hooks-storage"}


def test_whose_calls_are_the_storage_threads_own() -> None:
    """A wake that comes from within a call is the dispatcher's own, in whichever thread it is made, and no other is."""

    async def main() -> None:
        thread = StorageThread()
        assert not thread.is_current
        assert thread.call_here(lambda: thread.is_current)
        assert not thread.is_current
        with pytest.raises(ZeroDivisionError):
            thread.call_here(lambda: 1 / 0)
        assert not thread.is_current
        assert await thread.call(lambda: thread.is_current)
        thread.end()

    asyncio.run(main())


def test_an_emit_of_an_observer_is_noticed(registry: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that an observer emits, in the loop's own thread, wakes the dispatcher as any other."""
    monkeypatch.setattr(engine_module, "_POLL", 2 * BOUND)
    hook_for(registry)
    endpoint = HeldEndpoint()
    emitted: list[int] = []

    def follow(notice: object) -> None:
        if not emitted:
            emitted.append(emit(registry))

    with Dispatcher(registry, transport=endpoint, observers=[follow]):
        emit(registry)
        endpoint.wait_for(1)
        endpoint.answer(0)
        endpoint.wait_for(2)
        endpoint.answer(1)


# What stopping waits for


def test_stop_waits_for_what_is_in_flight_and_claims_nothing_more(registry: HookRegistry) -> None:
    """An attempt under way is settled by its answer; what waits behind it stays enqueued and was not claimed."""
    hook_for(registry)
    endpoint = HeldEndpoint()
    dispatcher = Dispatcher(registry, transport=endpoint)
    dispatcher.start()
    first, second = emit(registry), emit(registry)
    endpoint.wait_for(1)
    stopper = threading.Thread(target=dispatcher.stop)
    stopper.start()
    endpoint.answer(0)
    stopper.join(BOUND)

    assert not stopper.is_alive()
    assert status_of(registry, first) == "delivered"
    assert (status_of(registry, second), registry.deliveries.get(second).attempt_count) == ("enqueued", 0)


def test_stop_waits_at_most_as_long_as_asked(plain: HookRegistry) -> None:
    """`stop(timeout)` returns when its time is up, and the attempt is still settled by its answer."""
    hook_for(plain)
    endpoint = HeldEndpoint()
    dispatcher = Dispatcher(plain, transport=endpoint)
    dispatcher.start()
    sent = emit(plain)
    endpoint.wait_for(1)
    dispatcher.stop(timeout=0.05)

    assert status_of(plain, sent) == "enqueued"
    endpoint.answer(0)
    wait_until(lambda: status_of(plain, sent) == "delivered")


def test_stop_waits_no_longer_than_the_total_deadline(registry: HookRegistry) -> None:
    """An attempt that ignores its own deadline is cut short, recorded as unknown, and due at once."""
    hook_for(registry)

    class Stubborn(HeldEndpoint):
        async def handle_async_request(self, request):  # type: ignore[no-untyped-def]
            try:
                return await super().handle_async_request(request)
            except asyncio.CancelledError:
                # Once: it takes no notice of the deadline.
                return await super().handle_async_request(request)

    endpoint = Stubborn()
    dispatcher = Dispatcher(registry, transport=endpoint, timeouts=Timeouts(total=0.2))
    dispatcher.start()
    sent = emit(registry)
    endpoint.wait_for(2)
    dispatcher.stop()

    delivery = registry.deliveries.get(sent)
    assert (delivery.status, delivery.attempts[0].outcome) == ("retrying", "unknown")
    assert "cut short" in str(delivery.attempts[0].response_error)
    assert Dispatcher(registry, transport=answering()).drain().delivered == 1


@pytest.mark.parametrize("times", [1, 2])
def test_cancelling_run_async_settles_what_is_in_flight(registry: HookRegistry, times: int) -> None:
    """A cancelled `run_async` raises `CancelledError`; its attempt is ``unknown`` and due at once, no lease waits."""
    hook = hook_for(registry)
    endpoint = HeldEndpoint()

    async def main() -> None:
        task = asyncio.create_task(Dispatcher(registry, transport=endpoint).run_async())
        emit(registry)
        async with asyncio.timeout(BOUND):
            await asyncio.to_thread(endpoint.wait_for, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    for _ in range(times):
        asyncio.run(main())
        endpoint.requests.clear()
        endpoint._open.clear()
    first = registry.deliveries.list(hook.id)[-1]
    assert [attempt.outcome for attempt in first.attempts] == ["unknown"] * times
    assert registry.hooks.get(hook.id).paused_until is None
    assert Dispatcher(registry, transport=answering()).drain().delivered == times


def test_stop_in_an_observer_ends_the_run(registry: HookRegistry) -> None:
    """An observer, which runs in the dispatcher's thread, may stop it without waiting for itself."""
    hook_for(registry)
    dispatcher = Dispatcher(registry, transport=answering(), observers=[lambda _: dispatcher.stop()])
    dispatcher.start()
    emit(registry)
    wait_until(lambda: not _dispatcher_threads())
    assert registry.deliveries.list()[0].status == "delivered"


# What is left


def _dispatcher_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("procore-hooks")]


def test_nothing_is_left_after_stop(registry: HookRegistry) -> None:
    """No thread, no socket: when `stop` returns they are gone, kept-alive connections too."""
    with WebhookReceiver() as receiver, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        hook_for(registry, receiver.url)
        dispatcher = Dispatcher(registry)
        for _ in range(2):
            with dispatcher:
                sent = emit(registry)
                wait_until(lambda sent=sent: status_of(registry, sent) == "delivered")
            assert _dispatcher_threads() == []
        gc.collect()
    assert [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)] == []


def test_nothing_is_left_after_a_drain(registry: HookRegistry) -> None:
    """A drain without a running dispatcher leaves no thread either."""
    hook_for(registry)
    emit(registry)
    Dispatcher(registry, transport=answering()).drain()
    assert _dispatcher_threads() == []


def test_a_second_cancellation_leaves_no_thread(plain: HookRegistry) -> None:
    """Cancelled again while it settles, a run still ends its storage thread."""
    hook_for(plain)
    endpoint = HeldEndpoint()

    async def main() -> None:
        task = asyncio.create_task(Dispatcher(plain, transport=endpoint).run_async())
        emit(plain)
        async with asyncio.timeout(BOUND):
            await asyncio.to_thread(endpoint.wait_for, 1)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    wait_until(lambda: not _dispatcher_threads())


def test_a_given_transport_stays_open(plain: HookRegistry) -> None:
    """A transport that the app gave is the app's to close."""
    closed: list[bool] = []

    class Ours(ScriptedEndpoint):
        async def aclose(self) -> None:
            closed.append(True)

    hook_for(plain)
    emit(plain)
    Dispatcher(plain, transport=Ours()).drain()
    assert closed == []


def test_idle_dispatchers_hardly_work(plain: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to do the storage is asked a few times a second, not in a spin."""
    turns: list[float] = []
    turn = plain.storage.turn
    monkeypatch.setattr(plain.storage, "turn", lambda *a, **k: (turns.append(time.monotonic()), turn(*a, **k))[1])
    with Dispatcher(plain, transport=answering()):
        wait_until(lambda: len(turns) >= 4)
    assert turns[3] - turns[1] > 0.3


def test_a_closed_storage_is_refused() -> None:
    """What cannot work is an error where it is started, in each way to start it, and leaves nothing behind."""
    registry = HookRegistry()
    registry.close()
    dispatcher = Dispatcher(registry)

    async def main() -> None:
        async with dispatcher:
            pass

    for begin in (dispatcher.start, dispatcher.run, dispatcher.drain, lambda: asyncio.run(main())):
        with pytest.raises(StorageError, match="closed"):
            begin()
        assert dispatcher._running_engine() == (None, None)
    wait_until(lambda: not _dispatcher_threads())


def test_a_closed_storage_is_told_of(plain: HookRegistry, caplog: pytest.LogCaptureFixture) -> None:
    """A dispatcher whose storage is closed beneath it goes on trying, says so, and stops when told."""
    with caplog.at_level(logging.ERROR, "procore_hooks"), Dispatcher(plain, timeouts=QUICK):
        plain.close()
        wait_until(lambda: "closed" in caplog.text)
    assert _dispatcher_threads() == []
