"""The clock of a real process is set by days, by libfaketime where it is installed."""

from __future__ import annotations

import glob
from itertools import pairwise
from pathlib import Path

import pytest

from procore_hooks import HookRegistry
from procore_hooks.testing import WebhookReceiver

from .evidence import BOUND, Evidence, Notebook, wait_until
from .processes import process, said, tell

_LIBRARIES = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")

# It has a loop of its own: libfaketime spoils the waits that threads make.
DISPATCHES = """
import asyncio, sys
from pathlib import Path
from tenacity import stop_after_delay, wait_fixed
from procore_hooks import AsyncHookRegistry, DestinationPolicy, Dispatcher, RetryPolicy, SQLiteStorage

async def main():
    storage = SQLiteStorage(Path(sys.argv[1]), durability="normal")
    registry = AsyncHookRegistry(storage, destinations=DestinationPolicy.local())
    retry = RetryPolicy(wait=wait_fixed(1.5), stop=stop_after_delay(3600))
    async with Dispatcher(registry, retry=retry):
        print("up", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@pytest.mark.skipif(not _LIBRARIES, reason="libfaketime is not installed")
@pytest.mark.parametrize("days", [10, -10])
def test_a_machine_whose_clock_is_set(
    tmp_path: Path,
    receiver: WebhookReceiver,
    registry: HookRegistry,
    evidence: Evidence,
    notebook: Notebook,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
) -> None:
    """A hook fails, the wall clock is set by ten days, and it is tried again neither early nor days late."""
    evidence.add_hook(registry, f"{receiver.url}a", {"RFIs"})
    receiver.reply(500, times=2).reply(200, times=None)
    set_to = tmp_path / "faketime"
    set_to.write_text("+0")
    monkeypatch.setenv("LD_PRELOAD", _LIBRARIES[0])
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(set_to))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("DONT_FAKE_MONOTONIC", "1")
    with process(DISPATCHES, evidence.path) as child:
        assert said(child) == "up"
        notebook.emit(registry, 0, "RFIs")
        wait_until(lambda: registry.deliveries.list()[0].attempts)
        set_to.write_text(f"{days:+}d")
        wait_until(lambda: registry.deliveries.list()[0].status == "delivered")
        tell(child)
        assert child.wait(BOUND) == 0
    assert evidence.verdict(registry, receiver.requests) == []
    arrivals = [one.received_at for one in receiver.requests]
    assert len(arrivals) == 3
    assert all(later - earlier >= 1.5 for earlier, later in pairwise(arrivals)), arrivals
