"""Simulated worlds: whatever order things happen in, the conservation law holds.

Two million steps over the memory storage and some thousands over SQLite, in processes of their own and without
coverage's tracer, which would make each step several times as long. The seeds are printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from procore_hooks import MemoryStorage

from .simulator import Broken, World, play

ROOT = Path(__file__).parents[2]
# A long run on request: PROCORE_HOOKS_STEPS=1000000000 for a night.
STEPS = int(os.environ.get("PROCORE_HOOKS_STEPS", "2_000_000"))
STEPS_PER_WORLD = 250_000


def _play_apart(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation.simulator", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _play_worlds(worlds: list[list[str]]) -> list[str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        played = list(pool.map(_play_apart, worlds))
    sys.stdout.writelines(one.stdout for one in played)
    return [one.stderr for one in played if one.returncode != 0]


def test_millions_of_steps() -> None:
    """No world breaks the law, in either failure mode; one that does prints the command that replays it."""
    count = max(1, STEPS // STEPS_PER_WORLD)
    worlds = [
        ["--seed", str(seed), "--steps", str(STEPS_PER_WORLD), "--mode", ("pause", "independent")[seed % 2]]
        for seed in range(count)
    ]
    assert _play_worlds(worlds) == []


def test_the_same_worlds_on_sqlite() -> None:
    """The same law over the real file."""
    worlds = [
        ["--seed", str(seed), "--steps", "5000", "--storage", "sqlite", "--mode", ("pause", "independent")[seed % 2]]
        for seed in range(8)
    ]
    assert _play_worlds(worlds) == []


def test_a_world_is_its_seed() -> None:
    """The same seed plays the same world, so a failure can be replayed."""
    assert play(5, 3000).hits == play(5, 3000).hits
    assert play(5, 3000).hits != play(6, 3000).hits


def test_a_broken_world_says_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong is told with the step, the command and a trace."""

    def emit_twice(world: World) -> bool:
        monkeypatch.undo()
        raise Broken("as a test")

    monkeypatch.setattr(World, "_emit", emit_twice)
    with pytest.raises(Broken, match=r"(?s)as a test.*at step \d+; replay with: .*--seed 3"):
        play(3, 1000)


def test_the_law_sees_a_lost_delivery() -> None:
    """A storage that forgets one delivery is found out."""
    world = World(1, MemoryStorage(), "pause")
    while not world.law.emitted or not any(one.hook_ids for one in world.law.emitted.values()):
        world.step()
    lost = next(one for one in world.law.emitted.values() if one.hook_ids)
    assert world.law.check([], []) == [f"1: event {lost.event_id} went to hooks [], not {sorted(lost.hook_ids)}"]
