"""Simulated worlds: whatever order things happen in, the conservation law holds.

Ten million steps over the memory storage, and some thousands over SQLite, in processes of their own and without
coverage's tracer, which would make each step several times as long. They are played at the lowest priority beside the
other tests (see conftest.py), and the seeds are printed.
"""

from __future__ import annotations

import pytest

from procore_hooks import MemoryStorage

from .conftest import Worlds
from .simulator import play
from .world import Broken, World


def test_the_same_worlds_on_sqlite(sqlite_worlds: Worlds) -> None:
    """The same law over the real file."""
    assert sqlite_worlds.wait() == []


def test_a_world_is_its_seed() -> None:
    """The same seed plays the same world, so a failure can be replayed."""
    assert play(5, 3000).hits == play(5, 3000).hits
    assert play(5, 3000).hits != play(6, 3000).hits


def test_a_broken_world_says_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong is told with the shortest replay that still goes wrong, and what led there."""

    def broken_emit(world: World) -> bool:
        if world.next_id > 7:
            raise Broken("as a test")
        return emit(world)

    emit = World._emit
    monkeypatch.setattr(World, "_emit", broken_emit)
    with pytest.raises(Broken) as caught:
        play(3, 1000)
    first, replay, *trace = str(caught.value).splitlines()
    steps = int(replay.split("--steps ")[1].split()[0])
    assert (first, replay.split("--steps")[0]) == (
        "as a test",
        "  replay with: python -m tests.simulation.simulator --seed 3 ",
    )
    assert any("event 7 makes deliveries" in line for line in trace)
    with pytest.raises(Broken):
        play(3, steps)
    play(3, steps - 1)


def test_the_law_sees_a_lost_delivery() -> None:
    """A storage that forgets one delivery is found out."""
    world = World(1, MemoryStorage(), "pause")
    while not any(one.hook_ids for one in world.law.emitted.values()):
        world.step()
    lost = next(one for one in world.law.emitted.values() if one.hook_ids)
    assert world.law.check([], []) == [f"1: event {lost.event_id} went to hooks [], not {sorted(lost.hook_ids)}"]


def test_millions_of_steps(worlds: Worlds) -> None:
    """No world breaks the law, in either failure mode; one that does prints the command that replays it."""
    assert worlds.wait() == []
