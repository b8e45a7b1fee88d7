"""What ``python -m procore_hooks dispatch`` does once its arguments are understood.

The dispatcher works in a thread of its own, and the main thread waits for signals: so they are heard at any time, and
nothing is done within their handlers.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import logging
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from functools import reduce
from pathlib import Path
from typing import Final, Self

from ._async_registry import AsyncHookRegistry
from ._core.destinations import DestinationPolicy
from ._core.models import DrainReport, Timeouts
from ._dispatcher import Dispatcher
from ._registry import HookRegistry
from .exceptions import InvalidInput, ProcoreHooksError
from .retry import RetryPolicy

__all__ = ["dispatch"]

_log = logging.getLogger("procore_hooks")

_ASK_AGAIN: Final = 0.1  # seconds
_OF_REGISTRY: Final = ("durability", "journal_mode", "http", "allow", "deny", "local")
_OF_DISPATCHER: Final = ("max_in_flight", "retry", "timeouts")
_KINDS: Final = "HookRegistry, AsyncHookRegistry or Dispatcher"
# The fields of what is made of an option that has another name.
_OPTIONS: Final = dict.fromkeys(("connect", "response", "total"), "timeouts")


class _Unusable(Exception):
    """The file or the app is not what it should be; the text says why, in one line."""


class _Signals:
    """Hears SIGINT and SIGTERM while it is entered. The second of them ends the process at once.

    Attributes:
        number: the first signal that came, if one has.
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None

    def __enter__(self) -> Self:
        # Python runs a handler when the main thread gets to it, which may be just about to wait. A byte that is written
        # as the signal comes is not missed.
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        return self

    def listen(self) -> None:
        """Hear them from now on, whoever else has set handlers meanwhile."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self._before:
            signal.signal(number, self._hear)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def _hear(self, number: int, frame: object) -> None:
        if self.number is not None:
            os._exit(128 + number)  # as a shell tells it
        self.number = signal.Signals(number)

    def wake(self) -> None:
        """Let `wait` return."""
        with contextlib.suppress(BlockingIOError):  # so many bytes are there already that it will
            self._writer.send(b"\0")

    def wait(self, seconds: float | None) -> None:
        """Wait for a signal or a `wake`, at most so long."""
        self._reader.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            self._reader.recv(64)


def dispatch(options: argparse.Namespace) -> int:
    """Deliver as `options` say, and return the exit code. Leaves by `SystemExit` if they contradict each other."""
    parser: argparse.ArgumentParser = options.parser
    if options.timeout is not None and not options.drain:
        parser.error("--timeout: it is for --drain, and without that there is nothing to wait for")
    if options.app is not None:
        _refuse(options, _OF_REGISTRY, "the registry of an --app says it itself")
    ours = _set_up_logging()
    try:
        with _Signals() as signals, _opened(options) as dispatcher:
            _let_app_log(ours, options.log_level)
            signals.listen()  # the app may have set handlers of its own
            report = _carry_out(dispatcher, options, signals)
    except InvalidInput as error:
        parser.error(f"--{_OPTIONS.get(error.field, error.field).replace('_', '-')}: {error.problem}")
    except (ProcoreHooksError, _Unusable) as error:
        parser.exit(1, f"{parser.prog}: {_one_line(error)}\n")
    if report is not None:
        sys.stdout.write(f"{_in_words(report)}\n")
    return 0


def _refuse(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            options.parser.error(f"--{name.replace('_', '-')}: {why}")


# What to deliver


@contextlib.contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Dispatcher]:
    """The dispatcher that the options ask for. A file that was opened for it is closed at the end."""
    retry = RetryPolicy.standard_webhooks() if options.retry == "standard" else RetryPolicy.procore()
    timeouts = Timeouts() if options.timeouts is None else Timeouts(*options.timeouts)
    settings = {} if options.max_in_flight is None else {"max_in_flight": options.max_in_flight}
    if options.app is None:
        with _registry_on_file(options) as registry:
            yield Dispatcher(registry, retry=retry, timeouts=timeouts, **settings)
        return
    found = _of_app(options)
    if isinstance(found, Dispatcher):
        _refuse(options, _OF_DISPATCHER, f"{options.app} is a Dispatcher, which says it itself")
        yield found
    else:
        _warn_if_in_memory(found)
        yield Dispatcher(found, retry=retry, timeouts=timeouts, **settings)


def _registry_on_file(options: argparse.Namespace) -> HookRegistry:
    from .storage.sqlite import SQLiteStorage

    local = DestinationPolicy.local() if options.local else DestinationPolicy()
    destinations = DestinationPolicy(
        schemes=("https", "http") if options.http else local.schemes,
        allow=(*local.allow, *(options.allow or ())),
        deny=tuple(options.deny or ()),
    )
    _check_file(options.file)
    storage = SQLiteStorage(
        options.file, durability=options.durability or "full", journal_mode=options.journal_mode or "wal"
    )
    return HookRegistry(storage, destinations=destinations)


def _check_file(path: str) -> None:
    """Refuse a path that leads to no file of ours: to open it would make one, or put our tables into another's."""
    if not os.path.exists(path):
        raise _Unusable(f"{path} does not exist: the app makes it when it first opens it; is the path right?")
    if not os.path.isfile(path):
        raise _Unusable(f"{path} is not a file")
    with contextlib.suppress(sqlite3.Error):  # what is wrong with it, the storage will find and tell
        with contextlib.closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'procore_hooks_schema'").fetchone():
                return
        raise _Unusable(f"{path} holds no hooks: the app makes the tables when it first opens it; is the path right?")


def _of_app(options: argparse.Namespace) -> HookRegistry | AsyncHookRegistry | Dispatcher:
    """What the app has under the name, or what its function returns."""
    module, _, name = options.app.partition(":")
    if not module or not name:
        options.parser.error(f"--app: {options.app!r} is not MODULE:NAME, such as shop.webhooks:registry")
    try:
        found: object = reduce(getattr, name.split("."), importlib.import_module(module))
        if inspect.isroutine(found):
            found = found()
    except (Exception, SystemExit) as error:
        if options.log_level == "debug":
            traceback.print_exc()
        raise _Unusable(f"--app {options.app}: {type(error).__name__}: {_one_line(error)}{_place_of(error)}") from None
    if not isinstance(found, HookRegistry | AsyncHookRegistry | Dispatcher):
        if inspect.iscoroutine(found):
            found.close()
        raise _Unusable(f"--app {options.app}: it is of type {type(found).__name__}: name a {_KINDS}")
    return found


def _warn_if_in_memory(registry: HookRegistry | AsyncHookRegistry) -> None:
    from .storage.memory import MemoryStorage

    registry = registry.sync_registry if isinstance(registry, AsyncHookRegistry) else registry
    if isinstance(registry.storage, MemoryStorage):
        _log.warning("the registry keeps everything in memory: what other processes emit never comes here")


def _place_of(error: BaseException) -> str:
    """Where in the app the error was raised; nothing where it was here."""
    ours = (str(Path(__file__).parent), importlib.__file__, "<")
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(ours)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


# At work


def _carry_out(dispatcher: Dispatcher, options: argparse.Namespace, signals: _Signals) -> DrainReport | None:
    """Run or drain, until it is done or a signal comes. Raises what that raises."""
    outcome: Future[DrainReport | None] = Future()

    def work() -> None:
        try:
            if options.drain:
                outcome.set_result(dispatcher.drain(options.timeout))
            else:
                dispatcher.run()
                outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            signals.wake()

    thread = threading.Thread(target=work, name="procore-hooks-dispatcher", daemon=True)
    thread.start()
    _log.info("delivering what is in %s", options.file or options.app)
    is_told = False
    while not outcome.done():
        if signals.number is not None:
            if not is_told:
                _log.info("%s: claiming nothing more, and waiting for what is in flight", signals.number.name)
                is_told = True
            dispatcher.stop(0)
        # Again and again: the signal may have come before there was anything to stop.
        signals.wait(_ASK_AGAIN if is_told else None)
    thread.join()
    _log.info("stopped")
    return outcome.result()


def _set_up_logging() -> logging.Handler:
    """Write the library's log lines to stderr, from now on: to open a file, or an app, may be worth a warning."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ"))
    _log.addHandler(handler)
    return handler


def _let_app_log(ours: logging.Handler, level: str | None) -> None:
    """Set the level, and leave the rest to the app if it has said where log lines go."""
    if logging.root.handlers or _log.handlers != [ours]:
        _log.removeHandler(ours)
    elif level is None:
        level = "info"
    if level is not None:
        _log.setLevel(level.upper())


class _Line(logging.Formatter):
    """A line with the time in UTC."""

    def converter(self, seconds: float | None) -> time.struct_time:
        return time.gmtime(seconds)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _in_words(report: DrainReport) -> str:
    due = (
        "nothing is due later" if report.next_due_at is None else f"next due at {report.next_due_at:%Y-%m-%dT%H:%M:%SZ}"
    )
    counts = {name: getattr(report, name) for name in ("delivered", "retried", "failed", "discarded")}
    return f"{', '.join(f'{name} {count}' for name, count in counts.items())}; {due}"
