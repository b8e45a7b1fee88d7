"""Where a dispatcher's storage work is done, one call after another: in a thread of its own, while its loop goes on,
or in the loop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["StorageThread"]

T = TypeVar("T")

_MOMENT: Final = 0.1


class StorageThread:
    """Runs functions one after another in a thread of its own.

    Not an executor: those shut down before an interpreter's exit handlers run, and the last results still have to be
    stored then.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="procore-hooks-storage", daemon=True)
        self._thread.start()
        self._worker = self._thread.ident

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """What `function`, which the thread runs as soon as it can, returns or raises. For the running loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def call() -> None:
            outcome: tuple[T | None, BaseException | None]
            try:
                outcome = function(), None
            except BaseException as error:
                outcome = None, error
            # Without a loop nobody waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_set, future, *outcome)

        self._calls.put(call)
        return future

    def call_here(self, function: Callable[[], T]) -> T:
        """What `function` returns, called at once by the caller, who did not ask for another call meanwhile."""
        usual, self._worker = self._worker, threading.get_ident()
        try:
            return function()
        finally:
            self._worker = usual

    @property
    def is_current(self) -> bool:
        """Whether the caller is within one of the calls."""
        return threading.get_ident() == self._worker

    def end(self) -> None:
        """Let the thread end once it has done what was asked."""
        self._calls.put(None)
        # Idle, it ends at once. Where a second cancellation left it at work, it ends by itself.
        self._thread.join(_MOMENT)


def _set(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
