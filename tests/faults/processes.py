"""Processes that run a script, and are spoken to line by line."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from .evidence import BOUND

__all__ = ["ROOT", "process", "said", "tell"]

ROOT = Path(__file__).parents[2]  # where scripts find `tests`


@contextlib.contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `script`; one that still runs at the end is killed."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def said(child: subprocess.Popen[str], bound: float = BOUND) -> str:
    """The next line of the process; if it has ended, its errors. Silent for `bound` seconds, it is killed."""
    assert child.stdout is not None
    assert child.stderr is not None
    patience = threading.Timer(bound, child.kill)
    patience.start()
    try:
        return child.stdout.readline().strip() or f"nothing: {child.stderr.read()}"
    finally:
        patience.cancel()


def tell(child: subprocess.Popen[str], line: str = "") -> None:
    """Write a line to the process."""
    assert child.stdin is not None
    child.stdin.write(f"{line}\n")
    child.stdin.flush()
