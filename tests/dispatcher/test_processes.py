"""Dispatchers and processes: a fork, an interpreter that exits, an interrupt, an emit from another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from procore_hooks import DestinationPolicy, Dispatcher, EventInput, HookRegistry, SQLiteStorage
from procore_hooks.testing import ScriptedEndpoint, WebhookReceiver

from .conftest import BOUND, HeldEndpoint, emit, hook_for, wait_until

PREAMBLE = """
import logging, sys
logging.getLogger("procore_hooks").setLevel(logging.ERROR)
from procore_hooks import DestinationPolicy, Dispatcher, HookRegistry, SQLiteStorage, Timeouts
registry = HookRegistry(SQLiteStorage(sys.argv[1]), destinations=DestinationPolicy.local())
"""


def begin(script: str, path: Path) -> subprocess.Popen[bytes]:
    """A process that runs `script` with a registry on the file."""
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script, str(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hooks.db"


@pytest.fixture
def filed(path: Path) -> HookRegistry:
    """A registry on a file."""
    return HookRegistry(SQLiteStorage(path), destinations=DestinationPolicy.local())


def exit_code(child: int) -> int:
    """The exit code of a forked child; one that hangs is killed, which is then its code."""
    give_up = time.monotonic() + BOUND
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > give_up:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def test_an_emit_of_another_process_is_noticed(filed: HookRegistry, path: Path) -> None:
    """An idle dispatcher finds what another process emits."""
    hook_for(filed)
    endpoint = ScriptedEndpoint()
    with Dispatcher(filed, transport=endpoint):
        other = begin("registry.emit('RFIs', 'update', 'from elsewhere')", path)
        assert endpoint.wait_for(1, BOUND)[0].json()["data"] == "from elsewhere"
        assert other.communicate(timeout=BOUND)[1] == b""


def test_what_is_in_flight_at_the_interpreters_exit_is_settled(filed: HookRegistry, path: Path) -> None:
    """A script that ends without `stop` still settles its attempt, once the answer comes; what waits stays."""
    with WebhookReceiver() as receiver:
        receiver.reply(200, delay=0.5)
        hook_for(filed, receiver.url)
        script = begin("Dispatcher(registry).start()\nregistry.emit('RFIs', 'update')\nsys.stdin.readline()", path)
        receiver.wait_for(1, BOUND)
        assert script.communicate(b"\n", timeout=BOUND)[1] == b""
    assert script.returncode == 0
    (delivery,) = filed.deliveries.list()
    assert (delivery.status, delivery.attempt_count) == ("delivered", 1)


SCRIPT_THAT_LEAVES = """
import threading
from procore_hooks.observers import AttemptRecorded
begun = threading.Event()
class Slow(SQLiteStorage):
    def turn(self, *args, **keywords):
        turn = super().turn(*args, **keywords)
        if turn.claims:
            begun.set()
        return turn
registry = HookRegistry(Slow(sys.argv[1]), destinations=DestinationPolicy.local())
Dispatcher(registry).start()
for _ in range(3):
    registry.emit('RFIs', 'update')
begun.wait()
"""


def test_an_exit_right_after_the_claim_loses_nothing(filed: HookRegistry, path: Path) -> None:
    """An interpreter that exits with an attempt just begun settles that one; the others are enqueued, unclaimed."""
    with WebhookReceiver() as receiver:
        hook_for(filed, receiver.url)
        script = begin(SCRIPT_THAT_LEAVES, path)
        assert script.communicate(timeout=BOUND)[1] == b""
        hits = len(receiver.requests)
    statuses = [delivery.status for delivery in filed.deliveries.list()]
    assert statuses.count("delivered") == hits >= 1
    assert statuses.count("enqueued") == 3 - hits
    assert sum(delivery.attempt_count for delivery in filed.deliveries.list()) == hits


def test_an_interrupt_ends_run_and_settles_what_is_in_flight(filed: HookRegistry, path: Path) -> None:
    """Control-C raises `KeyboardInterrupt` out of `run`; the attempt is ``unknown`` and due at once."""
    with WebhookReceiver() as receiver:
        receiver.reply(200, delay=600)
        hook_for(filed, receiver.url)
        emit(filed)
        script = begin(
            "try:\n    Dispatcher(registry, timeouts=Timeouts(5, 600, 600)).run()\n"
            "except KeyboardInterrupt:\n    sys.exit(7)",
            path,
        )
        receiver.wait_for(1, BOUND)
        script.send_signal(signal.SIGINT)
        assert script.communicate(timeout=BOUND)[1] == b""
    assert script.returncode == 7
    (delivery,) = filed.deliveries.list()
    assert (delivery.status, [a.outcome for a in delivery.attempts]) == ("retrying", ["unknown"])
    assert Dispatcher(filed, transport=ScriptedEndpoint()).drain().delivered == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_life_of_its_own(filed: HookRegistry, path: Path) -> None:
    """With a live dispatcher in the parent, a child emits, and drains with its own; each delivery is sent once."""
    hook_for(filed)
    parents = ScriptedEndpoint()
    dispatcher = Dispatcher(filed, transport=parents)
    held = HeldEndpoint()
    with dispatcher:
        emit(filed, "before")
        parents.wait_for(1, BOUND)
        dispatcher.drain(BOUND)
        child = os.fork()
        if child == 0:
            _be_the_child(filed, dispatcher)
        assert exit_code(child) == 0
        dispatcher.drain(BOUND)
        emit(filed, "after")
        dispatcher.drain(BOUND)
    assert held.requests == []
    deliveries = filed.deliveries.list()
    assert [(d.status, d.attempt_count) for d in deliveries] == [("delivered", 1)] * 3


def _be_the_child(registry: HookRegistry, dispatcher: Dispatcher) -> None:
    try:
        sent = emit(registry, "from the child")
        # The parent's dispatcher is not the child's: here it does not run, so it drains by itself.
        assert dispatcher._running_engine() == (None, None)
        dispatcher.stop()
        Dispatcher(registry, transport=ScriptedEndpoint()).drain(BOUND)
        dispatcher.drain(BOUND)
        wait_until(lambda: registry.deliveries.get(sent).status == "delivered")
    except BaseException as error:
        os.write(2, f"the child failed: {error!r}\n".encode())
        os._exit(1)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_may_start_its_parents_dispatcher(filed: HookRegistry) -> None:
    """A forked child may `start` the object that its parent is running, and gets a thread of its own."""
    hook_for(filed)
    dispatcher = Dispatcher(filed, transport=ScriptedEndpoint())
    dispatcher.start()
    child = os.fork()
    if child == 0:
        try:
            dispatcher.start()
            sent = emit(filed)
            wait_until(lambda: filed.deliveries.get(sent).status == "delivered")
            dispatcher.stop()
            os._exit(len([t for t in threading.enumerate() if t.name.startswith("procore-hooks")]))
        except BaseException as error:
            os.write(2, f"the child failed: {error!r}\n".encode())
            os._exit(99)
    code = exit_code(child)
    dispatcher.stop()
    assert code == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_in_the_midst_of_work_hangs_nobody(filed: HookRegistry) -> None:
    """Forked while another thread opens the file or writes to it, a child still emits, time after time."""
    hook_for(filed, max_in_flight=20)
    dispatcher = Dispatcher(filed, transport=ScriptedEndpoint())
    for _ in range(50):
        filed.emit_many(EventInput("RFIs", "update") for _ in range(10))
        with dispatcher:
            child = os.fork()
            if child == 0:
                try:
                    emit(filed)
                    os._exit(0)
                finally:
                    os._exit(1)
            assert exit_code(child) == 0
    dispatcher.drain(BOUND)
    assert filed.deliveries.stats(since=filed.hooks.get(1).created_at).delivered == 50 * 11
