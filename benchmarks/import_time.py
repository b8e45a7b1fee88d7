"""How long ``import procore_hooks`` takes over ``import httpx``, as whole processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ._harness import ROOT, Bar, Options, Result, alternate, folder, main, ratio, side, timed

_FEWEST = 11


_OURS: dict[str, tuple[str, Bar | None]] = {
    "import procore_hooks": ("import procore_hooks over import httpx", Bar(1.25, 1.1)),
    "from procore_hooks import HookRegistry, SQLiteStorage": ("(for comparison) what emits over import httpx", None),
    "from procore_hooks import Dispatcher, SQLiteStorage": ("(for comparison) what delivers over import httpx", None),
}


def measure(options: Options) -> Sequence[Result]:
    """Three rows, of which the first is the figure."""
    runs = options.size(max(4 * options.runs, _FEWEST), 3)
    with folder() as where:
        # Both from bytecode, which the round that does not count makes, wherever and however they are installed.
        times = alternate(
            runs, {what: lambda what=what: _milliseconds(what, where) for what in ("import httpx", *_OURS)}
        )
    httpx = side("httpx", times["import httpx"], "ms")
    return [
        ratio(figure, f"whole processes, {runs} of each", side(what, times[what], "ms"), httpx, bar)
        for what, (figure, bar) in _OURS.items()
    ]


def _milliseconds(what: str, bytecode: Path) -> float:
    """How long a process takes that does this and ends."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    command = [sys.executable, "-c", what]
    return timed(lambda: subprocess.run(command, check=True, cwd=ROOT, env=environment)) * 1000


if __name__ == "__main__":
    main(measure)
