"""An app under the soak: it emits, dispatches, and one of a hundred of the things it does goes wrong.

    python -m tests.soak.app FOLDER LIFE EVENTS_PER_SECOND

Once a second it prints the memory it holds, in bytes, and how many files it has open. It ends when its standard input
does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tenacity import stop_after_delay, wait_exponential, wait_random

from procore_hooks import DestinationPolicy, Dispatcher, Event, HookRegistry, RetryPolicy, SQLiteStorage, Timeouts
from procore_hooks._clock import SystemClock
from procore_hooks._core.payloads import render
from procore_hooks.exceptions import StorageBusy, StorageError

from ..faults.evidence import Notebook

ONE_OF_A_HUNDRED = 0.01
EVENTS_OF_A_LIFE = 1_000_000
TIMEOUTS = Timeouts(1, 2, 2)
RETRY = RetryPolicy(wait=wait_exponential(0.2, max=5) + wait_random(0, 0.2), stop=stop_after_delay(120))


class SetClock(SystemClock):
    """The machine's clock, set by as many days as a file says: all processes see the same, as on a machine."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def now(self) -> datetime:
        return super().now() + timedelta(days=int(self._file.read_text() or "0"))


class FaultyStorage:
    """A storage one of a hundred of whose calls fails, before it has done its work or after."""

    def __init__(self, storage: SQLiteStorage, dice: random.Random) -> None:
        self._storage = storage
        self._dice = dice

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def turn(self, *arguments: Any, **keywords: Any) -> Any:
        self._may_fail()
        turn = self._storage.turn(*arguments, **keywords)
        if turn.claims or turn.settled:
            self._may_fail()
        return turn

    def emit(self, *arguments: Any, **keywords: Any) -> Any:
        self._may_fail()
        emissions = self._storage.emit(*arguments, **keywords)
        self._may_fail()
        return emissions

    def _may_fail(self) -> None:
        if self._dice.random() < ONE_OF_A_HUNDRED / 2:
            raise StorageBusy("locked, says the soak")


def main() -> None:
    logging.basicConfig(level=logging.CRITICAL)
    folder, life, rate = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    dice = random.Random(life)

    def body(event: Event) -> bytes:
        if dice.random() < ONE_OF_A_HUNDRED:
            raise ValueError("a format raises, says the soak")
        return render("v4.0", event, {})

    def observer(notice: object) -> None:
        if dice.random() < ONE_OF_A_HUNDRED:
            raise ValueError("an observer raises, says the soak")

    storage = FaultyStorage(SQLiteStorage(folder / "hooks.db", durability="normal"), dice)
    registry = HookRegistry(
        storage,  # type: ignore[arg-type]
        destinations=DestinationPolicy.local(),
        clock=SetClock(folder / "days"),
        payload_formats={"soak": body},
    )
    notebook = Notebook(folder / "notes")
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with Dispatcher(registry, retry=RETRY, timeouts=TIMEOUTS, observers=[observer]):
        _emit(registry, notebook, life, rate, over, dice)
    notebook.close()


def _emit(
    registry: HookRegistry, notebook: Notebook, life: int, rate: float, over: threading.Event, dice: random.Random
) -> None:
    begun, told = time.monotonic(), 0
    number = life * EVENTS_OF_A_LIFE
    while not over.wait(1 / rate):
        number += 1
        if dice.random() >= ONE_OF_A_HUNDRED:
            _emit_once(registry, notebook, number)
        elif os.fork() == 0:
            _emit_once(registry, notebook, number)
            os._exit(0)
        if time.monotonic() - begun > told:
            told += 1
            _tell()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _emit_once(registry: HookRegistry, notebook: Notebook, number: int) -> None:
    # What the caller does about an error is another matter: here it is an emit of which nobody knows.
    with contextlib.suppress(StorageError):
        notebook.emit(registry, number)


def _tell() -> None:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(resident, len(os.listdir("/proc/self/fd")), flush=True)


if __name__ == "__main__":
    main()
