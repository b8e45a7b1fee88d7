"""Task queues that deliver webhooks in their way: how to start them, and how fast they drain."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from ._harness import ROOT, require
from .sink import Sink

__all__ = ["missing", "peer_rate", "redis_server", "worker"]

_LONGEST_START: Final = 30.0


def missing(modules: Sequence[str], programs: Sequence[str] = ()) -> str:
    """What is not installed, in words; empty if all is."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    absent += [name for name in programs if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (see benchmarks/README.md)" if absent else ""


def peer_rate(
    receiver: Sink, number: int, enqueue: Callable[[int], None], workers: Callable[[], AbstractContextManager[None]]
) -> float:
    """Deliveries per second at the receiver, from the first to the last: what starting the workers takes is not in it.

    `number` tasks are queued before any worker runs, as our backlog is.
    """
    receiver.reset()
    enqueue(number)
    with workers():
        receiver.wait_for(number)
    arrivals = sorted(receiver.arrivals())
    require(len(arrivals) == number, f"{number} tasks made {len(arrivals)} requests")
    return (number - 1) / (arrivals[-1] - arrivals[0])


@contextlib.contextmanager
def worker(command: Sequence[str], environment: dict[str, str]) -> Iterator[None]:
    """A consumer in processes of its own, ended with SIGTERM."""
    log = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", *command], env=os.environ | environment, cwd=ROOT, stdout=log, stderr=log
    )
    try:
        yield
        require(process.poll() is None, f"{command[0]} ended by itself with {process.returncode}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis_server(where: Path) -> Iterator[str]:
    """The URL of a Redis of our own on a free port, which keeps nothing on disk."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([*command, "--dir", str(where)], stdout=subprocess.DEVNULL)
    try:
        _wait_for_port(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def _wait_for_port(port: int) -> None:
    give_up = time.monotonic() + _LONGEST_START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            require(time.monotonic() < give_up, f"redis-server did not open port {port}")
            time.sleep(0.05)
