"""A process that uses the library for a while and writes down what reached the disk, and what was promised when.

    python -m tests.powerloss.recorder FOLDER --seed 7 --durability full --journal-mode wal

leaves the record in FOLDER/record, pickled: operations of `disk` with the marks below between them.
"""

from __future__ import annotations

import argparse
import pickle
import random
import sqlite3
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import httpx

from procore_hooks import Delivery, Dispatcher, HookRegistry, RetryPolicy, SQLiteStorage
from procore_hooks.testing import ManualClock

from ..simulation.law import FINAL, Emitted, Hit
from .vfs import RecordingVFS

__all__ = ["Acknowledged", "Begun", "Finished", "Opened"]

STEPS = 60


@attrs.frozen
class Opened:
    """The storage is there, with its hooks: from here on it must open again."""

    hook_ids: tuple[int, ...]


@attrs.frozen
class Begun:
    """An emit with this number was called."""

    number: int


@attrs.frozen
class Acknowledged:
    """The emit with this number has returned."""

    number: int
    emitted: Emitted


@attrs.frozen
class Finished:
    """These deliveries were seen in these final states."""

    statuses: dict[int, str]


class Recorder:
    """An app, its dispatcher and its receivers, with a record of everything."""

    def __init__(self, folder: Path, seed: int, options: dict[str, Any]) -> None:
        self.vfs = RecordingVFS(str(folder))
        self.vfs.install()
        self.mark: Callable[[object], None] = self.vfs.operations.append
        self._path = folder / "hooks.db"
        self._options = options
        self._dice = random.Random(seed)
        self._clock = ManualClock()
        self._emits = 0
        self._registry = self._open()
        self._hook_ids = tuple(self._add_hook(number) for number in range(3))
        self.mark(Opened(self._hook_ids))

    def _open(self) -> HookRegistry:
        return HookRegistry(SQLiteStorage(self._path, **self._options), clock=self._clock)

    def _add_hook(self, number: int) -> int:
        hook = self._registry.hooks.create(f"https://hooks.acme.example/{number}", namespace="acme")
        self._registry.triggers.create(hook.id, "RFIs", "*")
        if number:
            self._registry.triggers.create(hook.id, "Submittals", "update")
        return hook.id

    def play(self) -> None:
        """Some steps, and the end."""
        steps = [self._emit, self._emit_large, self._drain, self._recover, self._checkpoint, self._reopen]
        for step in self._dice.choices(steps, weights=[60, 6, 15, 5, 8, 6], k=STEPS):
            self._clock.advance(timedelta(seconds=self._dice.choice((0, 1, 60))))
            step()
        self._registry.close()

    def _emit(self, text: str = "Door 12") -> None:
        number = self._emits = self._emits + 1
        resource = self._dice.choice(("RFIs", "RFIs", "Submittals"))
        wanted = frozenset(self._hook_ids if resource == "RFIs" else self._hook_ids[1:])
        self.mark(Begun(number))
        emission = self._registry.emit(resource, "update", {"number": number, "text": text})
        self.mark(Acknowledged(number, Emitted(emission.event.id, emission.event.ulid, wanted)))

    def _emit_large(self) -> None:
        self._emit("Door 12 " * self._dice.randrange(1000, 4000))

    def _drain(self) -> None:
        policy = RetryPolicy(wait=lambda state: 1.0, stop=lambda state: state.attempt_number >= 3)
        Dispatcher(self._registry, retry=policy, transport=httpx.MockTransport(self._answer)).drain()
        self.mark(Finished({one.id: one.status for one in self._deliveries() if one.status in FINAL}))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        hook_id = self._hook_ids[int(request.url.path[1:])]
        self.mark(Hit(hook_id, request.headers["webhook-id"], request.content))
        return httpx.Response(200 if self._dice.random() < 0.8 else 500)

    def _deliveries(self) -> list[Delivery]:
        return list(self._registry.deliveries.iter(page_size=1000))

    def _recover(self) -> None:
        # Not of the first hook: what is sent again need not be in order.
        self._registry.deliveries.recover(self._dice.choice(self._hook_ids[1:]), since=ManualClock().now())

    def _checkpoint(self) -> None:
        # As any program on the file may do. Without a WAL it does nothing.
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute(f"PRAGMA wal_checkpoint({self._dice.choice(('PASSIVE', 'RESTART', 'TRUNCATE'))})")
        connection.close()

    def _reopen(self) -> None:
        self._registry.close()
        self._registry = self._open()


def main() -> int:
    parser = argparse.ArgumentParser(description="Records what reaches the disk.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--durability", required=True)
    parser.add_argument("--journal-mode", required=True)
    arguments = parser.parse_args()
    raised: list[object] = []
    # What a callback raises, ctypes can only report.
    sys.unraisablehook = raised.append
    options = {"durability": arguments.durability, "journal_mode": arguments.journal_mode}
    recorder = Recorder(arguments.folder, arguments.seed, options)
    recorder.play()
    if raised:
        print(f"the VFS raised: {raised[0]}", file=sys.stderr)
        return 1
    (arguments.folder / "record").write_bytes(pickle.dumps(recorder.vfs.operations))
    return 0


if __name__ == "__main__":
    # Under the module's own name, so that the record can be read elsewhere.
    from tests.powerloss import recorder as this

    sys.exit(this.main())
