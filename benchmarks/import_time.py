"""How long ``import procore_hooks`` takes over ``import httpx``, as whole processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ._harness import ROOT, Bar, Options, Result, alternate, folder, main, ratio, side, timed

_FEWEST = 11


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    runs = options.size(max(4 * options.runs, _FEWEST), 3)
    with folder() as where:
        # Both from bytecode, which the round that does not count makes, wherever and however they are installed.
        times = alternate(
            runs,
            {
                "procore_hooks": lambda: _milliseconds("procore_hooks", where),
                "httpx": lambda: _milliseconds("httpx", where),
            },
        )
    return [
        ratio(
            "import procore_hooks over import httpx",
            f"whole processes, {runs} of each",
            side("procore_hooks", times["procore_hooks"], "ms"),
            side("httpx", times["httpx"], "ms"),
            Bar(1.25, 1.1),
        )
    ]


def _milliseconds(name: str, bytecode: Path) -> float:
    """How long a process takes that imports this and ends."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    command = [sys.executable, "-c", f"import {name}"]
    return timed(lambda: subprocess.run(command, check=True, cwd=ROOT, env=environment)) * 1000


if __name__ == "__main__":
    main(measure)
