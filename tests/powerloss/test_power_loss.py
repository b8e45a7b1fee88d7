"""Power losses: what was acknowledged under ``durability="full"`` is there when the power is back.

A recorder process uses the library; its record says what the disk was told, and when. From it come the files that a
power loss at any moment would have left, with a chance of its own for every sector that was not synced. A seed is some
such losses in one record. PROCORE_HOOKS_FULL=1 tries 1,000 seeds of each kind.
"""

from __future__ import annotations

import itertools
import os
import pickle
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from procore_hooks import Delivery, Dispatcher, HookRegistry, SQLiteStorage
from procore_hooks.testing import ManualClock, ScriptedEndpoint

from ..scene import FULL, untraced_environment
from ..simulation.law import Emitted, Hit, Law
from .disk import SECTOR, Disk, Link, Operation, Sync, Truncate, Unlink, Write
from .recorder import Acknowledged, Begun, Finished, Opened
from .vfs import obstacle

ROOT = Path(__file__).parents[2]
SEEDS = 1000 if FULL else 60
SEEDS_PER_TEST = 60
SEEDS_PER_RECORD = 30
LOSSES_PER_SEED = 4
LATER = timedelta(days=30)

_OBSTACLE = obstacle()
needs_vfs = pytest.mark.skipif(_OBSTACLE is not None, reason=str(_OBSTACLE))
in_parts = pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))


@attrs.define
class Known:
    """What the app, its users and its receivers know at some moment of a record."""

    hook_ids: tuple[int, ...] = ()
    begun: set[int] = attrs.field(factory=set)
    acknowledged: set[int] = attrs.field(factory=set)
    finished: dict[int, str] = attrs.field(factory=dict)
    hits: list[Hit] = attrs.field(factory=list)

    def take(self, mark: object) -> None:
        match mark:
            case Opened(hook_ids):
                self.hook_ids = hook_ids
            case Begun(number):
                self.begun.add(number)
            case Acknowledged(number):
                self.acknowledged.add(number)
            case Finished(statuses):
                self.finished.update(statuses)
            case Hit():
                self.hits.append(mark)


@attrs.frozen
class Loss:
    """The power was lost after this many operations and marks."""

    seed: int
    position: int
    files: Mapping[str, bytes]
    known: Known


@attrs.frozen
class Record:
    """What a recorder wrote down."""

    entries: Sequence[Any]
    emits: Mapping[int, Emitted]

    def losses(self, seeds: Sequence[int]) -> Iterator[Loss]:
        """The power losses of these seeds, in the order of their moments."""
        after_emits = [place + 1 for place, entry in enumerate(self.entries) if isinstance(entry, Acknowledged)]
        moments: dict[int, list[tuple[int, random.Random]]] = {}
        for seed in seeds:
            dice = random.Random(seed)
            for number in range(LOSSES_PER_SEED):
                # Every other one just after an emit has returned, the worst moment for what it promised.
                moment = dice.choice(after_emits) if number % 2 else dice.randrange(len(self.entries) + 1)
                moments.setdefault(moment, []).append((seed, dice))
        disk, known = Disk(), Known()
        for position in range(len(self.entries) + 1):
            for seed, dice in moments.get(position, ()):
                yield Loss(seed, position, disk.after_power_loss(dice), known)
            if position < len(self.entries):
                entry = self.entries[position]
                if isinstance(entry, Operation):
                    disk.take(entry)
                else:
                    known.take(entry)


def record(folder: Path, seed: int, durability: str, journal_mode: str) -> Record:
    """Let a process of its own use the library and write down what happens."""
    place = folder / str(seed)
    place.mkdir()
    options = ["--seed", str(seed), "--durability", durability, "--journal-mode", journal_mode]
    done = subprocess.run(
        [sys.executable, "-m", "tests.powerloss.recorder", str(place), *options],
        cwd=ROOT,
        env=untraced_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    entries = pickle.loads((place / "record").read_bytes())
    return Record(entries, {one.number: one.emitted for one in entries if isinstance(one, Acknowledged)})


def losses(folder: Path, first: int, durability: str, journal_mode: str) -> Iterator[tuple[Record, Loss]]:
    """All losses of the seeds of one test, `first` and those after it; some seeds share a record."""
    last = min(first + SEEDS_PER_TEST, SEEDS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        starts = range(first, last, SEEDS_PER_RECORD)
        records = pool.map(lambda start: record(folder, start, durability, journal_mode), starts)
        for start, one in zip(starts, records, strict=True):
            for loss in one.losses(range(start, min(start + SEEDS_PER_RECORD, last))):
                yield one, loss


class Recovery:
    """An app that starts again on what a power loss left."""

    def __init__(self, folder: Path, loss: Loss, journal_mode: str) -> None:
        for old in folder.glob("hooks.db*"):
            old.unlink()
        for name, contents in loss.files.items():
            (folder / name).write_bytes(contents)
        path = folder / "hooks.db"
        connection = sqlite3.connect(path)
        # The first to look at the file, so it is SQLite's own recovery that is checked.
        self.integrity = connection.execute("PRAGMA integrity_check").fetchall()
        connection.close()
        self.clock = ManualClock(ManualClock().now() + LATER)
        storage = SQLiteStorage(path, durability="normal", journal_mode=journal_mode)
        self.registry = HookRegistry(storage, clock=self.clock)

    def __enter__(self) -> Recovery:
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.close()

    def return_open_attempts(self) -> None:
        """Let what was under way at the loss be recorded as unknown."""
        now = self.clock.now()
        self.registry.storage.turn((), now=now, due_by=now, lease=timedelta(seconds=15), capacity=0)

    def go_on(self) -> list[Hit]:
        """Deliver the rest, to receivers that are well. Returns what they got."""
        endpoint = ScriptedEndpoint()
        report = Dispatcher(self.registry, transport=endpoint).drain()
        assert report.next_due_at is None
        hooks = {hook.destination_url.rpartition("/")[2]: hook.id for hook in self.registry.hooks.list()}
        return [Hit(hooks[one.path[1:]], one.headers["webhook-id"], one.body) for one in endpoint.requests]

    def deliveries(self) -> list[Delivery]:
        return list(self.registry.deliveries.iter(page_size=1000))

    def body_of(self, delivery: Delivery) -> bytes:
        return self.registry.deliveries.get(delivery.id).attempts[-1].request_body


def law_of(one: Record, known: Known, *, is_sure: bool = True) -> Law:
    """The law with all that was promised."""
    law = Law(final=dict(known.finished) if is_sure else {})
    for number in known.begun:
        law.add(attrs.evolve(one.emits[number], is_sure=is_sure and number in known.acknowledged))
    return law


def broken_promises(one: Record, loss: Loss, folder: Path, journal_mode: str, *, to_the_end: bool) -> list[str]:
    """What the library said before the power was lost and does not hold to."""
    law, hits = law_of(one, loss.known), list(loss.known.hits)
    with Recovery(folder, loss, journal_mode) as app:
        broken = [] if app.integrity == [("ok",)] else [f"damaged: {app.integrity}"]
        if [hook.id for hook in app.registry.hooks.list()][: len(loss.known.hook_ids)] != list(loss.known.hook_ids):
            return [*broken, "hooks are lost"]
        app.return_open_attempts()
        if to_the_end:
            hits += app.go_on()
        return broken + law.check(
            app.deliveries(),
            hits,
            waits=lambda delivery: not to_the_end,
            in_order=frozenset(loss.known.hook_ids[:1]),
            body_of=app.body_of if to_the_end else None,
        )


@needs_vfs
@in_parts
@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_full_durability_loses_nothing(tmp_path: Path, journal_mode: str, first: int) -> None:
    """Whenever the power goes: the file is sound, no acknowledged emit, result or claim is lost, the law holds."""
    broken = []
    tried = 0
    for one, loss in losses(tmp_path, first, "full", journal_mode):
        tried += 1
        problems = broken_promises(one, loss, tmp_path, journal_mode, to_the_end=tried % LOSSES_PER_SEED == 0)
        broken += [f"seed {loss.seed}, position {loss.position}: {problem}" for problem in problems]
    print(f"{tried // LOSSES_PER_SEED} seeds, {tried} power losses, {len(broken)} promises broken")
    assert broken[:20] == []
    assert tried == LOSSES_PER_SEED * min(SEEDS_PER_TEST, SEEDS - first)


@needs_vfs
@in_parts
def test_normal_durability_loses_whole_emits_and_nothing_else(tmp_path: Path, first: int) -> None:
    """With "normal" acknowledged emits are lost, so these tests see it; the file is sound, and no emit is halved."""
    lost = acknowledged = tried = 0
    for one, loss in losses(tmp_path, first, "normal", "wal"):
        tried += 1
        law = law_of(one, loss.known, is_sure=False)
        with Recovery(tmp_path, loss, "wal") as app:
            assert app.integrity == [("ok",)], (loss.seed, loss.position)
            app.return_open_attempts()
            listed = app.deliveries()
            broken = law.check(listed, loss.known.hits, waits=lambda delivery: True)
        # Claims are lost as well, so arrivals prove nothing.
        assert [text for text in broken if not text.startswith("4")] == [], (loss.seed, loss.position)
        present = {delivery.event.id for delivery in listed}
        acknowledged += len(loss.known.acknowledged)
        lost += sum(one.emits[number].event_id not in present for number in loss.known.acknowledged)
    print(f"{tried // LOSSES_PER_SEED} seeds, {tried} power losses: {lost} of {acknowledged} acknowledged emits lost")
    assert lost > 0


def test_what_was_synced_stays() -> None:
    """A power loss leaves every synced byte, and of the later ones any sectors, or none."""
    disk = Disk()
    before, after = b"a" * 4 * SECTOR, b"b" * 4 * SECTOR
    for operation in (Link("f", 1), Write(1, 0, before), Sync(1), Write(1, SECTOR // 2, after)):
        disk.take(operation)
    seen = {disk.after_power_loss(random.Random(seed))["f"] for seed in range(500)}
    assert before in seen
    whole = before[: SECTOR // 2] + after
    assert whole in seen
    assert len(seen) > 10
    for found in seen:
        assert found[: SECTOR // 2] == before[: SECTOR // 2]
        # Each sector is old, new, or missing at the end of the file; a hole before a later one is zero.
        bounds = [SECTOR // 2, *range(SECTOR, 4 * SECTOR + 1, SECTOR), len(whole)]
        for start, stop in itertools.pairwise(bounds):
            assert found[start:stop] in (before[start:stop], whole[start:stop])


def test_names_are_durable_once_the_file_or_the_folder_was_synced() -> None:
    """An unsynced new file may be missing, an unsynced unlink may not have been; synced ones are certain."""

    def found(operations: list[Operation]) -> set[bytes | None]:
        disk = Disk()
        for operation in operations:
            disk.take(operation)
        return {disk.after_power_loss(random.Random(seed)).get("f") for seed in range(50)}

    made: list[Operation] = [Link("f", 1)]
    assert found(made) == {None, b""}
    assert found([*made, Sync(1)]) == {b""}
    written = [*made, Write(1, 0, b"old"), Truncate(1, 2), Sync(1)]
    assert found(written) == {b"ol"}
    gone = [*written, Unlink("f", is_durable=False)]
    assert found(gone) == {None, b"ol"}
    assert found([*written, Unlink("f", is_durable=True)]) == {None}
    again = [*gone, Link("f", 2), Write(2, 0, b"new")]
    assert found(again) == {None, b"ol", b"", b"new"}
    assert found([*again, Sync(2)]) == {b"new"}
    assert found([*gone, Link("g", 2), Sync(2, with_folder=True)]) == {None}
