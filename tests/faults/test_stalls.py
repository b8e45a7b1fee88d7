"""A process that stands still beyond its leases, and a file that stays locked."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
import time
from datetime import timedelta
from pathlib import Path

import pytest

from procore_hooks import Dispatcher, HookRegistry, StorageBusy
from procore_hooks.testing import WebhookReceiver

from .evidence import BOUND, FULL, AheadClock, Evidence, Notebook, drain_dry, duplicates, open_registry, wait_until
from .processes import process, said, tell

LOCKED_FOR = 60.0 if FULL else 1.0  # seconds


STALLS = """
import logging, sys
from pathlib import Path
from procore_hooks import Dispatcher, Timeouts
from tests.faults.evidence import open_registry

class Handler(logging.Handler):
    def emit(self, record):
        if "leases had run out" in record.getMessage():
            print("late", flush=True)

logging.getLogger("procore_hooks").addHandler(Handler())
registry = open_registry(Path(sys.argv[1]))
with Dispatcher(registry, timeouts=Timeouts(60, 60, 60), max_in_flight=3):
    print("up", flush=True)
    sys.stdin.readline()
"""


def test_stopped_beyond_the_lease(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """A process is stopped (SIGSTOP) with attempts in flight, and another takes over when the leases are over. When it
    goes on, its results are late: they are dropped, and change nothing of what the other one has recorded.
    """
    evidence.add_hooks(registry, receiver.url)
    receiver.reply(500, delay=0.3, times=3).reply(200, times=None)
    with process(STALLS, evidence.path) as stalled:
        assert said(stalled) == "up"
        for number in range(8):
            notebook.emit(registry, number)
        receiver.wait_for(3, BOUND)
        os.kill(stalled.pid, signal.SIGSTOP)
        assert isinstance(registry.clock, AheadClock)
        registry.clock.ahead = timedelta(seconds=100)
        drain_dry(registry)
        before = {one.id: one for one in registry.deliveries.iter()}
        assert {one.status for one in before.values()} == {"delivered"}
        assert evidence.look(registry) == []

        os.kill(stalled.pid, signal.SIGCONT)
        assert said(stalled) == "late"
        stalled.communicate("\n", timeout=BOUND)
        assert stalled.returncode == 0
    assert {one.id: one for one in registry.deliveries.iter()} == before
    assert evidence.verdict(registry, receiver.requests) == []
    assert duplicates(receiver.requests) == 3
    assert sorted(a.outcome for one in before.values() for a in one.attempts if a.outcome != "ok") == ["unknown"] * 3


LOCKS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    connection.execute("BEGIN EXCLUSIVE" if line.strip() == "lock" else "ROLLBACK")
    print("done", flush=True)
"""


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_file_that_stays_locked(
    tmp_path: Path,
    receiver: WebhookReceiver,
    notebook: Notebook,
    caplog: pytest.LogCaptureFixture,
    journal_mode: str,
) -> None:
    """While another process holds the file, emits raise `StorageBusy` after `busy_timeout` and store nothing. The
    dispatcher keeps the results of what was in flight, waits, and goes on by itself: no attempt is lost or repeated.
    """
    evidence = Evidence(tmp_path)
    registry = open_registry(evidence.path, busy_timeout=0.5, journal_mode=journal_mode)
    evidence.add_hooks(registry, receiver.url)
    # Long enough for the lock to be there before the answers, on a busy machine too.
    receiver.reply(200, delay=2.0, times=3).reply(200, times=None)
    with (
        caplog.at_level(logging.ERROR, "procore_hooks"),
        process(LOCKS, evidence.path) as other,
        Dispatcher(registry) as dispatcher,
    ):
        notebook.emit(registry, 0)
        receiver.wait_for(3, BOUND)
        tell(other, "lock")
        assert said(other) == "done"
        locked_at = time.monotonic()
        for number in range(1, 4):
            with pytest.raises(StorageBusy, match="stayed locked"):
                notebook.emit(registry, number, "RFIs")
        assert time.monotonic() - locked_at >= 1.5
        wait_until(lambda: time.monotonic() - locked_at >= LOCKED_FOR and caplog.records, bound=LOCKED_FOR + BOUND)
        tell(other, "free")
        assert said(other) == "done"
        notebook.emit(registry, 4, "RFIs")
        assert dispatcher.drain(BOUND).next_due_at is None
    assert {record.getMessage().split(",")[0] for record in caplog.records} == {"the storage failed"}
    assert [one.event.payload["number"] for one in registry.deliveries.iter()] == [4] * 3 + [0] * 3
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []
    registry.close()


def test_a_stranger_in_the_midst_of_a_write(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """A writer that comes and goes all the time only slows others down: nobody's emit fails, and nothing is lost."""
    evidence.add_hooks(registry, receiver.url)
    with (
        contextlib.closing(sqlite3.connect(evidence.path, isolation_level=None, timeout=30)) as other,
        Dispatcher(registry) as dispatcher,
    ):
        for number in range(100):
            other.execute("BEGIN IMMEDIATE")
            other.execute("CREATE TABLE IF NOT EXISTS of_the_app (number)")
            other.execute("INSERT INTO of_the_app VALUES (?)", (number,))
            other.execute("COMMIT" if number % 2 else "ROLLBACK")
            notebook.emit(registry, number)
        assert dispatcher.drain(BOUND).next_due_at is None
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []
