"""`Dispatcher`: delivers what a registry's storage holds, in a thread, in this thread, or in the caller's loop."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from ._async_registry import AsyncHookRegistry
from ._core.checks import shown
from ._core.models import DrainReport, Timeouts
from ._engine import Engine, EngineSettings
from ._registry import HookRegistry
from ._requests import RequestMaker
from ._sending import MOST_READ
from .exceptions import Conflict, InvalidInput
from .observers import Observer
from .retry import RetryPolicy

__all__ = ["Dispatcher"]

T = TypeVar("T")

# What a stop may take beyond the attempts in flight: storing their results, closing connections. In seconds.
_STOP_MARGIN = 5.0


class Dispatcher:
    """Delivers, retries, and records each attempt.

    Several dispatchers may work on one storage, in one process or in many; each delivery is claimed by one of them.
    With the extra ``speed`` the loops that it makes for itself are uvloop's; the caller's stays what it is.

    Args:
        registry: a `HookRegistry` or an `AsyncHookRegistry`.
        retry: when to try again; dispatchers of one storage should share one policy.
        timeouts: how long an attempt may take.
        max_in_flight: how many attempts may be under way at once, over all hooks.
        transport: an httpx transport to send through, such as `httpx.MockTransport` in tests. By default our own,
            which dials only what the registry's `destinations` allow. One that is given is not closed by us.
        kept_response_bytes: how much of the body of an answer the history keeps, 0 to 65536; no more than 64 KiB of
            it are ever read.
        observers: functions that are told what happens (see `procore_hooks.observers`).

    Raises:
        InvalidInput: a value is wrong.
    """

    def __init__(
        self,
        registry: HookRegistry | AsyncHookRegistry,
        *,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        max_in_flight: int = 100,
        transport: httpx.AsyncBaseTransport | None = None,
        kept_response_bytes: int = 8192,
        observers: Iterable[Observer] = (),
    ) -> None:
        if isinstance(max_in_flight, bool) or not isinstance(max_in_flight, int) or not 1 <= max_in_flight <= 10_000:
            raise InvalidInput("max_in_flight", f"{max_in_flight!r} is not 1 to 10000")
        if type(kept_response_bytes) is not int or not 0 <= kept_response_bytes <= MOST_READ:
            raise InvalidInput(
                "kept_response_bytes", f"{shown(kept_response_bytes)} is not 0 to {MOST_READ}: use a number"
            )
        registry = registry if isinstance(registry, HookRegistry) else registry.sync_registry
        self._settings = EngineSettings(
            registry=registry,
            maker=RequestMaker(registry.destinations, registry.payload_formats),
            retry=RetryPolicy.procore() if retry is None else retry,
            timeouts=Timeouts() if timeouts is None else timeouts,
            max_in_flight=max_in_flight,
            transport=transport,
            kept_response_bytes=kept_response_bytes,
            observers=tuple(observers),
        )
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = threading.Event()
        self._pid = os.getpid()

    # In a thread of its own

    def start(self) -> None:
        """Deliver in a background thread until `stop`, or until the interpreter exits.

        Raises:
            Conflict: it is running already.
            StorageError: the storage is closed.
        """
        began: Future[None] = Future()
        engine = self._take_on(has_own_loop=True)
        self._thread = threading.Thread(
            target=self._run_in_thread, args=(engine, began), name="procore-hooks-dispatcher", daemon=True
        )
        self._thread.start()
        began.result()
        atexit.register(self.stop)

    def _run_in_thread(self, engine: Engine, began: Future[None]) -> None:
        try:
            _run_in_own_loop(self._run_engine(engine, lambda: began.set_result(None)))
        except BaseException as error:
            if began.done():
                raise
            began.set_exception(error)

    def stop(self, timeout: float | None = None) -> None:
        """Claim nothing more and wait for the attempts in flight; what is not sent stays queued.

        Args:
            timeout: how long to wait at most, in seconds. At most `timeouts.total`, and a little for storing the
                results, is waited anyway. Does nothing if it is not running.
        """
        engine = self._engine
        if engine is None or self._pid != os.getpid():
            return
        engine.stop()
        if self._is_own_loop():
            return  # run_async and `async with` wait by themselves
        longest = self._settings.timeouts.total + _STOP_MARGIN
        if self._ended.wait(longest if timeout is None else min(timeout, longest)):
            atexit.unregister(self.stop)
            if self._thread is not None:
                self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # In this thread

    def run(self) -> None:
        """Deliver in this thread until `stop` is called from another one, or an interrupt comes.

        Raises:
            Conflict: it is running already, or an event loop runs in this thread.
        """
        _refuse_running_loop("run_async()")
        _run_in_own_loop(self._run_engine(self._take_on(has_own_loop=True)))

    # In the caller's loop

    async def run_async(self) -> None:
        """Deliver in this event loop until `stop` is called or the task is cancelled.

        Raises:
            Conflict: it is running already.
        """
        await self._run_engine(self._take_on(has_own_loop=False))

    async def __aenter__(self) -> Self:
        engine = self._take_on(has_own_loop=False)
        # From here on there is something to drain. Nothing is awaited: a cancellation would leave the task behind.
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run_engine(engine))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._engine is not None:
            self._engine.stop()
        if task is not None:
            await task

    # Draining

    def drain(self, timeout: float | None = None) -> DrainReport:
        """Send all that is due now, and what that unblocks, and wait for it; retries that become due later stay.

        Works whether the dispatcher is running or not.

        Args:
            timeout: how long to wait at most, in real seconds; None waits until it is done.

        Returns:
            What was done, also when the time was up.

        Raises:
            Conflict: an event loop runs in this thread; use ``await drain_async()``.
        """
        _refuse_running_loop("drain_async()")
        engine, loop = self._running_engine()
        if engine is None or loop is None:
            return _run_in_own_loop(self._drain_alone(timeout, has_own_loop=True))
        drain = engine.drain()
        try:
            return drain.done.result(timeout)
        except TimeoutError:
            return engine.so_far(drain)

    async def drain_async(self, timeout: float | None = None) -> DrainReport:  # noqa: ASYNC109 - as drain has it
        """The same as `drain`, awaited."""
        engine, loop = self._running_engine()
        if engine is None or loop is None:
            return await self._drain_alone(timeout, has_own_loop=False)
        drain = engine.drain()
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(drain.done)
        except TimeoutError:
            return engine.so_far(drain)

    async def _drain_alone(self, longest: float | None, *, has_own_loop: bool) -> DrainReport:
        engine = self._take_on(has_own_loop=has_own_loop)
        horizon = self._settings.registry.clock.now()
        try:
            async with asyncio.timeout(longest):
                await engine.run(horizon=horizon)
        except TimeoutError:
            pass
        finally:
            self._let_go()
        return engine.report_so_far

    # Which engine is at work

    def _take_on(self, *, has_own_loop: bool) -> Engine:
        with self._lock:
            if self._running_engine()[0] is not None:
                raise Conflict("this dispatcher is running already: stop() it first, or make another one")
            self._pid = os.getpid()
            self._ended = threading.Event()
            self._engine, self._thread = Engine(self._settings, has_own_loop=has_own_loop), None
            return self._engine

    def _let_go(self) -> None:
        self._engine = self._loop = None
        self._ended.set()

    def _running_engine(self) -> tuple[Engine | None, asyncio.AbstractEventLoop | None]:
        # A forked child has the object, and no thread that works.
        return (self._engine, self._loop) if self._pid == os.getpid() else (None, None)

    def _is_own_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    async def _run_engine(self, engine: Engine, started: Callable[[], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await engine.run(started=started)
        finally:
            self._let_go()


def _refuse_running_loop(instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise Conflict(f"an event loop is running in this thread: use await {instead} instead")


def _run_in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, with a loop of uvloop's where that is installed."""
    with asyncio.Runner(loop_factory=_faster_loop()) as runner:
        return runner.run(work)


def _faster_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes a loop of uvloop's, which comes with the extra ``speed``; None where it is not installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    make_loop: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return make_loop
