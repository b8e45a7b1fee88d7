"""Runs a long comparison in as many processes as there are cores, each with a seed of its own.

Without coverage's tracer, under which it takes three times as long.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..scene import untraced_environment

__all__ = ["play"]

ROOT = Path(__file__).parents[2]


def play(module: str, count: int) -> tuple[list[str], list[str]]:
    """What the processes print, and of those what ended with an error; `count` is shared out among them."""
    players = os.cpu_count() or 1
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"tests.destinations.{module}", "--seed", str(seed), "--count", str(share)],
            cwd=ROOT,
            env=untraced_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in range(1, players + 1)
        if (share := len(range(seed, count + 1, players)))
    ]
    told = [process.communicate()[0] for process in processes]
    sys.stdout.write("".join(told))
    return told, [text for text, process in zip(told, processes, strict=True) if process.returncode != 0]
