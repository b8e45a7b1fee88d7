"""Forks: parent and child both go on with one storage object, and lose nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from procore_hooks import SQLiteStorage
from procore_hooks.storage._base import HookQuery
from procore_hooks.testing._contract_values import T0

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run(script: str, *arguments: object) -> str:
    """Runs a script that forks, in a process of its own."""
    quiet = ("-W", "ignore::DeprecationWarning")  # of forks beside threads, which is what this is about
    command = [sys.executable, *quiet, "-c", SCRIPT_STARTS + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


SCRIPT_STARTS = """
import itertools, logging, os, sqlite3, subprocess, sys, threading
from pathlib import Path
logging.disable()
from procore_hooks import SQLiteStorage
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0

path = sys.argv[1]

def numbers(start):
    # Each process numbers its events by itself.
    make._EVENT_IDS = itertools.count(start)

def count(storage):
    return storage.count_deliveries(None, T0)["enqueued"]

def open_files():
    links = Path("/proc/self/fd")
    return sum(os.path.realpath(link).startswith(path) for link in links.iterdir()) if links.exists() else 0
"""

BOTH_GO_ON = """
storage = SQLiteStorage(path)
make.listening(storage, max_in_flight=50)
make.emit(storage)
child = os.fork()
inherited = open_files() if child == 0 else 0
if child == 0:
    numbers(1_000_000)
threads = [threading.Thread(target=lambda: [make.emit(storage) for _ in range(10)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
if child == 0:
    sys.exit(inherited)
assert os.waitpid(child, 0)[1] == 0
print(count(storage))
storage.close()
connection = sqlite3.connect(path)
assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
"""


@needs_fork
def test_parent_and_child_go_on(path: Path) -> None:
    """One storage object serves both after a fork, threads of each; the child starts without any open file of it."""
    assert int(run(BOTH_GO_ON, path)) == 1 + 40 + 40


OUTLIVES = """
storage = SQLiteStorage(path)
make.listening(storage)
make.emit(storage)
said, say = os.pipe()
heard, tell = os.pipe()
child = os.fork()
if child == 0:
    numbers(1_000_000)
    for _ in range(2):
        for _ in range(10):
            make.emit(storage)
        os.write(say, b"x")
        os.read(heard, 1)
    os._exit(0)
os.read(said, 1)
storage.close()
third = subprocess.Popen([sys.executable, "-c", sys.argv[2], path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
third.stdout.readline()
os.write(tell, b"x")
os.read(said, 1)
third.communicate(b"go on")
os.write(tell, b"x")
os.waitpid(child, 0)
storage = SQLiteStorage(path)
print(count(storage))
"""
THE_THIRD = """
storage = SQLiteStorage(path)
numbers(2_000_000)
for _ in range(10): make.emit(storage)
print("opened", flush=True)
sys.stdin.read()
for _ in range(10): make.emit(storage)
storage.close()
"""


@needs_fork
def test_a_child_that_outlives_its_parents_storage(path: Path) -> None:
    """A child goes on after its parent has closed the file and a third process has opened it: all see one file, and
    nothing that any of them stored is lost.
    """
    assert int(run(OUTLIVES, path, SCRIPT_STARTS + THE_THIRD)) == 1 + 20 + 20


MIDWAY = """
storage = SQLiteStorage(path)
make.listening(storage)
make.emit(storage)
ending = sys.argv[2]
halfway, go = threading.Event(), threading.Event()

def write(cursor):
    cursor.execute("PRAGMA cache_size = 5")
    fill = "UPDATE procore_hooks_events SET user_id = hex(zeroblob(200000))"
    cursor.execute(fill)
    halfway.set()
    go.wait(0.3)  # the fork waits for this
    cursor.execute(fill)

writer = threading.Thread(target=storage._database.write, args=[write])
writer.start()
assert halfway.wait(30)
child = os.fork()
if child == 0:
    assert open_files() == 0
    numbers(1_000_000)
    if ending == "emit": make.emit(storage)
    if ending == "close": storage.close()
    if ending == "forget": del storage
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
writer.join(30)
print(count(storage), storage.get_delivery(1).event.user_id == "00" * 200_000)
storage.close()
connection = sqlite3.connect(path)
assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
"""


@needs_fork
@pytest.mark.parametrize("ending", ["emit", "close", "forget"])
def test_a_fork_beside_a_transaction(path: Path, ending: str) -> None:
    """A fork waits for the transaction of another thread. So whatever the child does then, and however it ends, the
    transaction is stored whole, and the child is not shut out by a lock that nobody will release.
    """
    assert run(MIDWAY, path, ending).split() == ["2" if ending == "emit" else "1", "True"]


WITHIN = """
storage = SQLiteStorage(path, busy_timeout=5)
make.listening(storage)

def write(cursor):
    cursor.execute("UPDATE procore_hooks_turns SET number = 41")
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    cursor.execute("UPDATE procore_hooks_turns SET number = number + 1")

storage._database.write(write)
make.emit(storage)
storage.close()
connection = sqlite3.connect(path)
print(connection.execute("SELECT number FROM procore_hooks_turns").fetchone()[0])
"""


@needs_fork
def test_a_fork_within_a_call_does_not_wait_for_itself(path: Path) -> None:
    """A thread that forks in the midst of a call goes on with it."""
    assert int(run(WITHIN, path)) == 42


UNSAID = """
storage = SQLiteStorage(path)
make.listening(storage)
make.emit(storage)
mine = storage._database._opened[threading.get_ident()].connection
touched = []
mine.set_trace_callback(touched.append)
# As if C code had forked: another process, and no word of it. A thread that is not there any more holds the lock.
storage._database._lock.acquire()
number = os.getpid() + 1
os.getpid = lambda: number
if sys.argv[2] == "emit":
    make.emit(storage)
    assert storage._database._opened[threading.get_ident()].connection is not mine
storage.close()
mine.execute("SELECT 1")  # it was not closed
print(len(touched))
"""


@pytest.mark.parametrize("call", ["emit", "close"])
def test_a_fork_that_is_not_announced(path: Path, call: str) -> None:
    """In a child that finds its parent's connection open, it is neither used nor closed, and no lock is waited for."""
    assert int(run(UNSAID, path, call)) == 1


def test_a_connection_that_a_fork_closed_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork may come between looking up a thread's connection and locking it: the call opens another one."""
    storage = SQLiteStorage(path)
    database = storage._database
    look_up, forked = database._of_this_thread, []

    def look_up_and_fork() -> object:
        found = look_up()
        if not forked:
            forked.append(found)
            database.prepare_fork()
            database.go_on_after_fork()
        return found

    monkeypatch.setattr(database, "_of_this_thread", look_up_and_fork)
    assert storage.list_hooks(HookQuery()) == []
    forked.clear()
    assert storage.prune(T0) == 0
    storage.close()
