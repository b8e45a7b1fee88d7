"""kill -9 at every named step of the work, at different occurrences of it: the conservation law holds.

By default each step is killed twice; with PROCORE_HOOKS_FULL=1, ten times. The table is printed at the end (`-s`).
"""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from procore_hooks.testing import WebhookReceiver

from ..faults.evidence import FULL, duplicates
from .conftest import ForkServer, World
from .failpoints import OPENING, STEPS

HITS = range(1, 11) if FULL else (1, 4)


@attrs.frozen
class Line:
    """One step's line of the table."""

    step: str
    kills: int
    violations: int
    duplicates: int


@pytest.fixture(scope="module")
def table() -> Iterator[list[Line]]:
    lines: list[Line] = []
    yield lines
    print(f"\n{'step':40} {'kills':>6} {'violations':>11} {'duplicates':>11}")
    for line in lines:
        print(f"{line.step:40} {line.kills:6} {line.violations:11} {line.duplicates:11}")


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(world: World, table: list[Line], step: str) -> None:
    """Killed at this step, again and again on one file: nothing is lost, nothing half done, no final state changes.
    A delivery arrives twice only if its last byte was out and its result not yet recorded.
    """
    if step.startswith("connect"):
        world.receiver.reply(200, headers={"connection": "close"}, times=None)
    world.found()
    broken, died = [], []
    for hit in HITS:
        died.append(world.live(step=step, hit=hit))
        broken += world.look_now()
    broken += world.end()
    twice = duplicates(world.receiver.requests)
    table.append(Line(step, len(HITS), len(broken), twice))
    assert died == [signal.SIGKILL] * len(HITS)
    assert broken == []
    assert twice == (len(HITS) if STEPS[step] else 0)


@pytest.mark.parametrize("step", OPENING)
def test_killed_while_a_file_is_made(
    tmp_path: Path, fork_server: ForkServer, receiver: WebhookReceiver, table: list[Line], step: str
) -> None:
    """Killed while it makes the tables: the file holds all of them or none, and whoever comes next finds a good one."""
    broken, dice = [], random.Random(step)
    for hit in HITS:
        folder = tmp_path / str(hit)
        folder.mkdir()
        mode = dice.choice(("wal", "delete")) if "journal" not in step else "wal"
        world = World(folder, server=fork_server, receiver=receiver, options={"journal_mode": mode})
        receiver.reset()
        assert world.live(step=step, hit=hit if "middle" in step else 1, count=0) == signal.SIGKILL
        tables = tables_of(world.path)
        assert bool(tables) == ("after the commit" in step)
        world.found()
        assert len(tables_of(world.path)) > 5
        assert tables in ([], tables_of(world.path))
        assert world.live(count=4) == 0
        broken += world.end(is_faultless=True)
    table.append(Line(step, len(HITS), len(broken), 0))
    assert broken == []


def tables_of(path: Path) -> list[str]:
    """What a file holds, seen from outside."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_schema ORDER BY name")]
