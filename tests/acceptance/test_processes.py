"""Several processes on one file: nothing twice, and nothing stuck when one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from procore_hooks import Delivery, DestinationPolicy, Dispatcher, HookRegistry, SQLiteStorage
from procore_hooks.testing import ManualClock, ScriptedEndpoint, WebhookReceiver

from .conftest import BOUND, begin, end, hook_for, wait_until

WORKER = """
name, settled = sys.argv[2], []
with Dispatcher(registry, max_in_flight=8, observers=[settled.append]):
    print("up", flush=True)
    sys.stdin.readline()
    for number in range(1000):
        registry.emit("RFIs", "update", f"{name}{number}")
    print("emitted", flush=True)
    sys.stdin.readline()
sys.exit(0 if settled else "this process delivered nothing")
"""


def said(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Wait for this line of the process."""
    assert process.stdout is not None
    assert process.stdout.readline() == line


def tell(process: subprocess.Popen[bytes]) -> None:
    """Let the process go on."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def test_two_processes_deliver_each_event_once(filed: HookRegistry, path: Path) -> None:
    """Two processes emit 2,000 events and deliver them from one file: each arrives once, by one attempt."""
    with WebhookReceiver() as receiver:
        hook = hook_for(filed, receiver.url, max_in_flight=100)  # room for both, so that both have work
        workers = [begin(WORKER, path, name) for name in "ab"]
        for worker in workers:
            said(worker, b"up\n")
        for worker in workers:
            tell(worker)
        for worker in workers:
            said(worker, b"emitted\n")
        wait_until(lambda: filed.deliveries.stats(hook.id, since=hook.created_at).delivered == 2000)
        for worker in workers:
            end(worker)
        arrived = Counter(request.json()["data"] for request in receiver.requests)

    assert arrived == Counter(f"{name}{number}" for name in "ab" for number in range(1000))
    deliveries = list(filed.deliveries.iter(hook.id, page_size=1000))
    assert len(deliveries) == 2000
    assert {(one.status, one.attempt_count, len(one.attempts)) for one in deliveries} == {("delivered", 1, 1)}


HOLDER = """
Dispatcher(registry, timeouts=Timeouts(connect=5, response=float(sys.argv[2]), total=float(sys.argv[2]))).run()
"""


def killed_in_mid_post(registry: HookRegistry, path: Path, receiver: WebhookReceiver, total: float) -> int:
    """The delivery whose POST a process had begun, and not heard the answer of, when it was killed."""
    (sent,) = registry.emit("RFIs", "update", "first").delivery_ids
    holder = begin(HOLDER, path, str(total))
    receiver.wait_for(1, BOUND)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate(timeout=BOUND)
    assert holder.returncode == -signal.SIGKILL
    return sent


def check_taken_over(registry: HookRegistry, first: int, second: int) -> None:
    delivery = registry.deliveries.get(first)
    assert (delivery.status, delivery.attempt_count) == ("delivered", 2)
    assert [(a.number, a.outcome) for a in delivery.attempts] == [(1, "unknown"), (2, "ok")]
    assert delivery.attempts[0].completed_at is None
    assert "no result was recorded" in str(delivery.attempts[0].response_error)
    assert status_and_count(registry.deliveries.get(second)) == ("delivered", 1)


def status_and_count(delivery: Delivery) -> tuple[str, int]:
    return delivery.status, delivery.attempt_count


def test_a_killed_dispatcher_leaves_nothing_stuck(filed: HookRegistry, path: Path) -> None:
    """After the lease another dispatcher delivers; the killed attempt is ``unknown`` and pauses nothing."""
    with WebhookReceiver() as receiver:
        receiver.reply(200, delay=3600).reply(200, times=None)
        hook = hook_for(filed, receiver.url)
        first = killed_in_mid_post(filed, path, receiver, total=30)
        (second,) = filed.emit("RFIs", "update", "second").delivery_ids

        assert Dispatcher(filed).drain().delivered == 0  # the lease holds
        assert status_and_count(filed.deliveries.get(first)) == ("enqueued", 1)
        clock = ManualClock(datetime.now(UTC) + timedelta(seconds=36))
        later = HookRegistry(SQLiteStorage(path), destinations=DestinationPolicy.local(), clock=clock)
        assert Dispatcher(later).drain().delivered == 2
        later.close()
        assert [request.json()["data"] for request in receiver.requests] == ["first", "first", "second"]
        assert len({request.headers["webhook-id"] for request in receiver.requests[:2]}) == 1
    check_taken_over(filed, first, second)
    assert filed.hooks.get(hook.id).failing_since is None


def test_a_running_dispatcher_takes_over_by_itself(filed: HookRegistry, path: Path) -> None:
    """A second process' dispatcher that is already waiting delivers as soon as the lease of the killed one is over."""
    with WebhookReceiver() as receiver:
        receiver.reply(200, delay=3600).reply(200, times=None)
        hook_for(filed, receiver.url)
        first = killed_in_mid_post(filed, path, receiver, total=0.5)
        (second,) = filed.emit("RFIs", "update", "second").delivery_ids
        with Dispatcher(filed):
            wait_until(lambda: filed.deliveries.get(second).status == "delivered")
        requests = receiver.requests
    check_taken_over(filed, first, second)
    assert requests[1].received_at - requests[0].received_at >= 5.5 - 0.5


@pytest.mark.parametrize("instant", range(5))
def test_emits_of_a_killed_process_are_all_or_nothing(filed: HookRegistry, path: Path, instant: int) -> None:
    """A process killed while it emits leaves each event with all of its deliveries, or not at all."""
    for _ in range(3):
        hook_for(filed)
    emitter = begin("print('up', flush=True)\nwhile True:\n    registry.emit('RFIs', 'update')", path)
    said(emitter, b"up\n")
    wait_until(lambda: len(filed.deliveries.list(page_size=1000)) > 30 * (instant + 1))
    emitter.kill()
    emitter.communicate(timeout=BOUND)

    per_event = Counter(one.event.id for one in filed.deliveries.iter(page_size=1000))
    assert set(per_event.values()) == {3}
    assert Dispatcher(filed, transport=ScriptedEndpoint()).drain().delivered == 3 * len(per_event)
