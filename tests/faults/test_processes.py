"""Forks, exits, and many processes on one file.

With PROCORE_HOOKS_FULL=1 the crowd delivers 80,000, which takes longer than pytest lets a test hang by default: give it
``-o faulthandler_timeout=1800`` then.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

from procore_hooks import Dispatcher, HookRegistry, StorageBusy
from procore_hooks.testing import WebhookReceiver

from .evidence import BOUND, FULL, Evidence, Notebook, drain_dry, open_registry
from .processes import ROOT, process, said, tell

CHILDREN = 4
PROCESSES = 8
LONGEST = 1500.0 if FULL else 150.0  # seconds until all have emitted, and again until all is delivered
NAMES = "abcdefghij"  # of hooks that all want everything
EVENTS_OF_EACH = (10_000 if FULL else 1_000) // len(NAMES)


def fork(work: Callable[[], object]) -> int:
    """A child that does `work` and ends without running anything of pytest."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return child


def wait_for(children: list[int]) -> None:
    """Each must have ended well."""
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_children_of_a_live_dispatcher(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """Forked while a dispatcher delivers and while the parent emits, four children emit and drain with the objects that
    they inherited, the parent goes on, and each delivery is sent once.
    """
    evidence.add_hooks(registry, receiver.url)
    dispatcher = Dispatcher(registry)

    def be_a_child(number: int) -> None:
        for event in range(20):
            notebook.emit(registry, 100 * number + event)
            if event % 5 == 0:
                dispatcher.drain(BOUND)
        with Dispatcher(registry) as own:
            own.drain(BOUND)

    with dispatcher:
        children = []
        for number in range(1, CHILDREN + 1):
            for event in range(5):
                notebook.emit(registry, 1000 * number + event)
            children.append(fork(lambda number=number: be_a_child(number)))
        for event in range(20):
            notebook.emit(registry, 9000 + event)
        wait_for(children)
        assert dispatcher.drain(BOUND).next_due_at is None
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_children_that_outlive_their_parents_storage(
    receiver: WebhookReceiver, evidence: Evidence, notebook: Notebook
) -> None:
    """The parent closes the storage while its children go on: what they emit is not lost, although SQLite, in a parent
    that believes to be the last, takes the WAL away.
    """
    parents = open_registry(evidence.path)
    evidence.add_hooks(parents, receiver.url)
    (is_closed, close), (has_emitted, emitted) = os.pipe(), os.pipe()

    def be_a_child(number: int) -> None:
        os.close(close)
        notebook.emit(parents, 100 * number)
        os.write(emitted, b"x")
        assert os.read(is_closed, 1) == b""
        for event in range(1, 10):
            notebook.emit(parents, 100 * number + event)

    with Dispatcher(parents) as dispatcher:
        notebook.emit(parents, 1)
        dispatcher.drain(BOUND)
        children = [fork(lambda number=number: be_a_child(number)) for number in range(1, CHILDREN + 1)]
        for _ in children:
            assert os.read(has_emitted, 1) == b"x"
    parents.close()
    os.close(close)
    wait_for(children)
    for descriptor in (is_closed, has_emitted, emitted):
        os.close(descriptor)
    with open_registry(evidence.path) as registry:
        drain_dry(registry)
        assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_children_of_a_transaction(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """Forked in the midst of the app's own transaction, with an emit in it: in the child SQLite believes that the
    lock is held, so children that emit get `StorageBusy` and store nothing. The parent's transaction commits whole,
    once, and children of later forks emit and drain.
    """
    evidence.add_hooks(registry, receiver.url)
    impatient = open_registry(evidence.path, busy_timeout=0.1)

    def emit_and_drain(number: int) -> None:
        for event in range(10):
            notebook.emit(impatient, 100 * number + event)
        Dispatcher(impatient).drain(BOUND)

    def find_it_locked(number: int) -> None:
        with pytest.raises(StorageBusy):
            notebook.emit(impatient, number, "RFIs")

    with Dispatcher(registry) as dispatcher:
        with contextlib.closing(sqlite3.connect(evidence.path, timeout=30)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            emission = notebook.emit(registry, 1, "RFIs", connection=connection)
            wait_for([fork(lambda number=number: find_it_locked(number)) for number in range(2, CHILDREN + 2)])
            assert registry.deliveries.list().items == ()
            connection.commit()
        wait_for([fork(lambda number=number: emit_and_drain(number)) for number in range(10, CHILDREN + 10)])
        assert dispatcher.drain(BOUND).next_due_at is None
    assert registry.deliveries.get(emission.delivery_ids[0]).status == "delivered"
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []
    impatient.close()


EXITS = """
import sys
from pathlib import Path
from procore_hooks import Dispatcher
from tests.faults.evidence import Notebook, open_registry
registry, notebook = open_registry(Path(sys.argv[1])), Notebook(Path(sys.argv[2]))
Dispatcher(registry).start()
for number in range(int(sys.argv[3]), int(sys.argv[3]) + 20):
    notebook.emit(registry, number)
if sys.argv[4] == "raises":
    raise SystemExit("as a test")
"""


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_exits_with_work_in_flight(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, how: str
) -> None:
    """Scripts that end, one after the other, right after their last emit and without `stop`: attempts in flight are
    settled at exit, the rest waits for the next process, and nothing is sent twice.
    """
    evidence.add_hooks(registry, receiver.url)
    receiver.reply(200, delay=0.05, times=None)
    for script in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", EXITS, evidence.path, evidence.notes, str(script * 20), how],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        assert ended.returncode == (1 if how == "raises" else 0), ended.stderr
        assert all(one.attempt_count == len(one.attempts) for one in registry.deliveries.iter())
    receiver.reply(200, times=None)
    drain_dry(registry)
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []


CROWD = """
import sys
from pathlib import Path
from procore_hooks import Dispatcher
from tests.faults.evidence import Notebook, open_registry
registry, notebook = open_registry(Path(sys.argv[1])), Notebook(Path(sys.argv[2]))
first, count, settled = int(sys.argv[3]), int(sys.argv[4]), []
sys.stdin.readline()
with Dispatcher(registry, max_in_flight=16, observers=[settled.append]) as dispatcher:
    for number in range(first, first + count):
        notebook.emit(registry, number, "RFIs")
    print("emitted", flush=True)
    sys.stdin.readline()
    dispatcher.drain()
print(len(settled), flush=True)
"""


def test_a_crowd_on_one_file(receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence) -> None:
    """Eight processes that emit and deliver on one file: no call fails for a busy file, no delivery is claimed by two,
    and each is sent once.
    """
    for name in NAMES:
        evidence.add_hook(registry, f"{receiver.url}{name}", ["RFIs"], max_in_flight=100)
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(process(CROWD, *_share(evidence, number))) for number in range(PROCESSES)]
        for one in crowd:
            tell(one)
        assert [said(one, LONGEST) for one in crowd] == ["emitted"] * PROCESSES
        ended = [one.communicate("\n", timeout=LONGEST) for one in crowd]
    total = PROCESSES * EVENTS_OF_EACH * len(NAMES)
    assert [(one.returncode, _complaints(errors)) for one, (_, errors) in zip(crowd, ended, strict=True)] == [
        (0, [])
    ] * PROCESSES
    settled = [int(out) for out, _ in ended]
    assert sum(settled) == total
    assert sum(one > 0 for one in settled) > 1  # several took part
    assert len(receiver.requests) == total
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []


def _share(evidence: Evidence, number: int) -> tuple[object, ...]:
    return evidence.path, evidence.notes, number * 100_000, EVENTS_OF_EACH


def _complaints(errors: str) -> list[str]:
    # Of an old SQLite each process warns once.
    return [line for line in errors.splitlines() if "has a rare bug" not in line]
