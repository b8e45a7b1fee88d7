"""The worlds are played beside the other tests: they begin when those do, and their own tests come last."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from ..scene import untraced_environment

ROOT = Path(__file__).parents[2]
# A long run on request: PROCORE_HOOKS_STEPS=1000000000 for a night.
STEPS = int(os.environ.get("PROCORE_HOOKS_STEPS", "10_000_000"))
STEPS_PER_WORLD = 250_000
_TESTS = ("test_millions_of_steps", "test_the_same_worlds_on_sqlite")


@attrs.define
class Worlds:
    """Some worlds that are being played, in one process."""

    processes: list[subprocess.Popen[str]]

    def wait(self) -> list[str]:
        """Wait for the last, print what they say, and return what is broken."""
        broken = []
        for process in self.processes:
            told, error = process.communicate()
            sys.stdout.write(told)
            if process.returncode != 0:
                broken.append(error)
        return broken

    def stop(self) -> None:
        """End those that are still played."""
        for process in self.processes:
            process.kill()
            process.communicate()


_STARTED = pytest.StashKey[dict[str, Worlds]]()


def _start(first: int, count: int, steps: int, storage: str) -> subprocess.Popen[str]:
    arguments = f"--gently --seed {first} --worlds {count} --steps {steps} --storage {storage}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation.simulator", *arguments.split()],
        cwd=ROOT,
        env=untraced_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _start_worlds(name: str) -> Worlds:
    if name == "test_the_same_worlds_on_sqlite":
        return Worlds([_start(0, 8, 5_000, "sqlite")])
    players = os.cpu_count() or 1
    worlds = max(1, STEPS // STEPS_PER_WORLD)
    shares = [len(range(player, worlds, players)) for player in range(players)]
    firsts = [sum(shares[:player]) for player in range(players)]
    return Worlds(
        [
            _start(first, share, min(STEPS, STEPS_PER_WORLD), "memory")
            for first, share in zip(firsts, shares, strict=True)
            if share
        ]
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that wait for the worlds at the end."""
    items.sort(key=lambda item: item.name in _TESTS)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to play what will be waited for."""
    wanted = [item.name for item in session.items if item.name in _TESTS]
    if not session.config.option.collectonly:
        session.config.stash[_STARTED] = {name: _start_worlds(name) for name in wanted}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no process behind when the tests end early."""
    for worlds in session.config.stash.get(_STARTED, {}).values():
        worlds.stop()


@pytest.fixture
def worlds(request: pytest.FixtureRequest) -> Worlds:
    """The worlds over the memory storage."""
    return request.config.stash[_STARTED]["test_millions_of_steps"]


@pytest.fixture
def sqlite_worlds(request: pytest.FixtureRequest) -> Worlds:
    """The worlds over the real file."""
    return request.config.stash[_STARTED]["test_the_same_worlds_on_sqlite"]
