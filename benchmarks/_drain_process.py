"""Dispatchers in processes of their own.

The process says ``ready``, waits for a line, drains a file, and tells how many it delivered and its peak memory.
"""

from __future__ import annotations

import contextlib
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from procore_hooks import Dispatcher

from ._backlog import opened
from ._harness import ROOT, require

__all__ = ["DrainProcess", "drain_process"]


class DrainProcess:
    """Such a process, seen from the benchmark's."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        require(self._out.readline() == "ready\n", "a dispatcher's process did not start")

    def start(self) -> None:
        """Let it drain."""
        self._in.write("go\n")
        self._in.flush()

    def result(self) -> tuple[int, float]:
        """Wait for its end: how many it delivered, and the most memory that it had resident, in MiB."""
        delivered, peak = self._out.readline().split()
        return int(delivered), float(peak)


@contextlib.contextmanager
def drain_process(path: Path) -> Iterator[DrainProcess]:
    """A process that is ready to drain this file."""
    command = [sys.executable, "-m", "benchmarks._drain_process", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            yield DrainProcess(process)
        except BaseException:
            process.kill()
            raise


def _peak_memory() -> float:
    # `resource.getrusage` would also count what the parent had when it started us.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    require(found is not None, "this system does not tell a process's peak memory")
    return int(found[1]) / 1024 if found else 0.0


def _serve(path: Path) -> None:
    with opened(path) as registry:
        dispatcher = Dispatcher(registry)
        print("ready", flush=True)
        sys.stdin.readline()
        report = dispatcher.drain()
        print(report.delivered, _peak_memory(), flush=True)


if __name__ == "__main__":
    logging.getLogger("procore_hooks").setLevel(logging.ERROR)
    _serve(Path(sys.argv[1]))
