"""kill -9 at random instants, from outside, while a process opens the file, emits and delivers as fast as it can.

40 kills by default; 500 with PROCORE_HOOKS_FULL=1. The seed of each world is its number, and decides when is killed.
"""

from __future__ import annotations

import random
import signal

import pytest

from ..faults.evidence import FULL, duplicates
from .conftest import World

WORLDS = 10 if FULL else 4
KILLS = 50 if FULL else 10  # of each world
FILES = (
    {"journal_mode": "wal", "durability": "normal"},
    {"journal_mode": "wal", "durability": "full"},
    {"journal_mode": "delete", "durability": "full"},
)


def script_answers(world: World, dice: random.Random) -> None:
    """Most answers are good; some are not, and some take their time."""
    for _ in range(2000):
        world.receiver.reply(dice.choice((200, 200, 204, 500, 503)), delay=dice.choice((0, 0, 0, 0.02)))
        world.receiver.reply(200, times=dice.randrange(1, 20))


@pytest.mark.parametrize("seed", range(WORLDS))
def test_killed_at_random_instants(world: World, seed: int) -> None:
    """Whenever a process is killed, the next one goes on with its file, and in the end the whole law holds."""
    dice = random.Random(seed)
    world.options = FILES[seed % len(FILES)]
    script_answers(world, dice)
    world.found()
    broken = []
    for kill in range(KILLS):
        seconds = dice.choice((dice.uniform(0, 0.03), dice.uniform(0, 0.12)))
        died = world.live(seconds=seconds, count=dice.randrange(60), in_turns=False)
        assert died == signal.SIGKILL
        if kill % 10 == 9:
            broken += world.look_now()
    assert world.live(count=4) == 0  # one that is left alone
    broken += world.end()
    arrived = world.receiver.requests
    print(f"seed {seed}: {KILLS} kills, {len(arrived)} requests, {duplicates(arrived)} of them not the first")
    assert broken == []
    assert arrived
