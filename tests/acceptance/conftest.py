"""Registries on files, processes that share them, and waits with a bound."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from procore_hooks import DestinationPolicy, HookRegistry, MemoryStorage, SQLiteStorage
from procore_hooks.testing import ManualClock

from .. import scene
from ..scene import URL as URL
from ..scene import hook_for as hook_for

BOUND = 60.0  # seconds after which a test that waits for something has failed
wait_until = partial(scene.wait_until, bound=BOUND)

_PREAMBLE = """
import logging, sys
from procore_hooks import DestinationPolicy, Dispatcher, HookRegistry, SQLiteStorage, Timeouts
logging.getLogger("procore_hooks").setLevel(logging.ERROR)
registry = HookRegistry(SQLiteStorage(sys.argv[1], durability="normal"), destinations=DestinationPolicy.local())
"""


def begin(script: str, path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A process that runs `script`, with `registry` on the file; further arguments are `sys.argv[2:]`."""
    command = [sys.executable, "-c", _PREAMBLE + script, str(path), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    """Let the process end, and hold that nothing went wrong in it."""
    _, errors = process.communicate(b"\n", timeout=BOUND)
    assert (process.returncode, errors) == (0, b"")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hooks.db"


@pytest.fixture
def filed(path: Path) -> Iterator[HookRegistry]:
    """A registry on a file, by the machine's clock."""
    storage = SQLiteStorage(path, durability="normal")
    with HookRegistry(storage, destinations=DestinationPolicy.local()) as registry:
        yield registry


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def by_hand(request: pytest.FixtureRequest, path: Path, clock: ManualClock) -> Iterator[HookRegistry]:
    """A registry whose clock stands still until it is told, over each of the storages."""
    storage = MemoryStorage() if request.param == "memory" else SQLiteStorage(path, durability="normal")
    with HookRegistry(storage, destinations=DestinationPolicy.local(), clock=clock) as registry:
        yield registry
