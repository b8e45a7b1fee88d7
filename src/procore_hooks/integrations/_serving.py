"""A dispatcher that runs wherever a server serves the app, and nowhere else.

An app is imported by more processes than serve it: by shells, tests and job runners, by the parent of a reloader, and
by the master of gunicorn, which forks its workers only then if it preloads. A process serves

- for certain, from its first request on;
- already before it, if it is a worker of gunicorn. That shows in the calls that are under way while a worker loads the
  app, and, where the app was preloaded, while it is being forked: both lead through ``Arbiter.spawn_worker``.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Final

from procore_hooks import AsyncHookRegistry, Dispatcher, HookRegistry, InvalidInput

__all__ = ["ServedDispatcher", "checked_path", "chosen_dispatcher", "is_gunicorn", "is_gunicorn_worker"]

_GUNICORN: Final = "gunicorn.arbiter"
_served: Final[weakref.WeakSet[ServedDispatcher]] = weakref.WeakSet()


def chosen_dispatcher(registry: HookRegistry | AsyncHookRegistry, given: Dispatcher | bool) -> Dispatcher | None:
    """The dispatcher that `install` was given; a new one for True, none for False.

    Raises:
        InvalidInput: it is something else, or the registry is none.
    """
    if not isinstance(registry, HookRegistry | AsyncHookRegistry):
        raise InvalidInput("registry", f"a {type(registry).__name__} is no registry: use HookRegistry(...)")
    if isinstance(given, bool):
        return Dispatcher(registry) if given else None
    if not isinstance(given, Dispatcher):
        raise InvalidInput("dispatcher", f"a {type(given).__name__} is none: use Dispatcher(registry), True or False")
    return given


def checked_path(path: str) -> str:
    """A path to mount at, without a slash at its end. Raises `InvalidInput`."""
    if not isinstance(path, str) or not path.startswith("/") or not path.rstrip("/"):
        raise InvalidInput("path", f"{path!r} is not a path below /: use one such as '/webhooks'")
    return path.rstrip("/")


def is_gunicorn() -> bool:
    """Whether this process is of gunicorn: its master, or a worker."""
    return _GUNICORN in sys.modules


def is_gunicorn_worker() -> bool:
    """Whether gunicorn is making this process a worker just now: by loading the app, or by forking."""
    if not is_gunicorn():
        return False
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "spawn_worker" and frame.f_globals.get("__name__") == _GUNICORN:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class ServedDispatcher:
    """A dispatcher, started at most once in each process. It stops when the interpreter exits."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._lock = threading.Lock()
        self._started_in: int | None = None
        _served.add(self)

    @property
    def runs_here(self) -> bool:
        """Whether it was started in this process."""
        return self._started_in == os.getpid()

    def start(self) -> None:
        """Start it in this process, unless that was done. Cheap enough for every request."""
        if self.runs_here:
            return
        with self._lock:
            if not self.runs_here:
                self._dispatcher.start()
                self._started_in = os.getpid()

    def stop(self) -> None:
        """Stop it, if it runs in this process, and wait for its attempts in flight. It may be started again."""
        with self._lock:
            if self.runs_here:
                self._dispatcher.stop()
                self._started_in = None

    def go_on_in_child(self) -> None:
        """After a fork: a worker of gunicorn dispatches; any other child does once it serves."""
        self._lock = threading.Lock()  # another thread may have held the old one
        if is_gunicorn_worker():
            self.start()


def _after_fork() -> None:
    for one in list(_served):
        one.go_on_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
