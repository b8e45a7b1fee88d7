"""Play simulated worlds.

    python -m tests.simulation.simulator --seed 7 --steps 100000

plays a world and says what is broken, if anything; the same seed gives the same world. With --worlds 10 it plays ten of
them, of this seed and the nine that follow.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from procore_hooks import MemoryStorage, SQLiteStorage, StorageError
from procore_hooks.storage._base import Storage

from .world import Broken, World

MODES = ("pause", "independent")


def play(seed: int, steps: int, *, storage: str = "memory", mode: str = "") -> World:
    """Play a world to its end. Raises `Broken` with the shortest replay that still breaks, and the end of its trace.

    Without a mode, even seeds pause a hook that fails and odd ones let its deliveries fail independently.
    """
    mode = mode or MODES[seed % 2]
    world, error = _play(seed, steps, storage, mode)
    if error is None:
        return world
    # A world is the same up to any step, so a shorter one that breaks as well is easier to understand.
    enough, too_few = world.steps + 1, 0  # the step that broke it was not counted any more
    while enough - too_few > 1:
        half = (enough + too_few) // 2
        if _play(seed, half, storage, mode)[1] is None:
            too_few = half
        else:
            enough = half
    world, error = _play(seed, enough, storage, mode, tells_all=True)
    replay = f"python -m tests.simulation.simulator --seed {seed} --steps {enough} --storage {storage} --mode {mode}"
    raise Broken("\n  ".join([f"{error}", f"replay with: {replay}", *world.trace])) from error


def _play(
    seed: int, steps: int, storage: str, mode: str, *, tells_all: bool = False
) -> tuple[World, Broken | StorageError | None]:
    with tempfile.TemporaryDirectory() as folder:
        store: Storage = (
            MemoryStorage() if storage == "memory" else SQLiteStorage(Path(folder, "world.db"), durability="normal")
        )
        world = World(seed, store, mode, tells_all=tells_all)
        try:
            while world.steps < steps:
                world.step()
            world.settle_down()
        except (Broken, StorageError) as error:
            return world, error
        finally:
            store.close()
    return world, None


def main() -> None:
    parser = argparse.ArgumentParser(description="Play simulated worlds.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", type=int, default=1, help="how many, of this seed and those that follow")
    parser.add_argument("--steps", type=int, default=100_000, help="of each world")
    parser.add_argument("--storage", choices=("memory", "sqlite"), default="memory")
    parser.add_argument("--mode", choices=MODES, default="")
    parser.add_argument("--gently", action="store_true", help="at the lowest priority, beside other work")
    options = parser.parse_args()
    if options.gently and hasattr(os, "nice"):
        os.nice(19)
    for seed in range(options.seed, options.seed + options.worlds):
        started = time.perf_counter()
        world = play(seed, options.steps, storage=options.storage, mode=options.mode)
        took = time.perf_counter() - started
        sys.stdout.write(
            f"seed {seed}: {world.steps:,} steps, {len(world.law.emitted):,} events, {len(world.hits):,} hits, "
            f"{took:.1f} s, the law holds\n"
        )


if __name__ == "__main__":
    main()
