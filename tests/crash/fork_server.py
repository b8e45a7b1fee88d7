"""A process that has imported everything and forks a child for each life that is asked for: it costs milliseconds.

It has one thread, and reads one life a line, in JSON. It answers with the signal that ended the child, or 0.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs

from procore_hooks import Dispatcher, Timeouts

from ..faults.evidence import Notebook, open_registry
from .failpoints import Failpoint

LONGEST_LIFE = 30.0  # seconds after which a child that nobody kills is killed by its alarm
TIMEOUTS = Timeouts(connect=2, response=2, total=2)


@attrs.frozen(kw_only=True)
class Life:
    """What a child does: it opens the file, delivers in the background, and emits.

    Attributes:
        path, notes: the database, and the emitter's notebook.
        ahead: how far the child's clock is ahead, in seconds.
        first, count: the numbers of its events.
        step, hit: where it kills itself.
        seconds: after which it is killed by another; it never ends by itself then.
        in_turns: nothing is emitted while a delivery is under way, and one delivery is sent at a time. So there is
            exactly one thing that a kill can hit.
    """

    path: str
    notes: str
    ahead: float
    first: int
    count: int = 16
    step: str = ""
    hit: int = 0
    seconds: float | None = None
    in_turns: bool = True
    options: dict[str, str] = attrs.field(factory=dict)


def live(life: Life) -> None:
    """Be the child."""
    signal.alarm(int(LONGEST_LIFE))
    if life.step:
        Failpoint(life.step, life.hit).arm()
    registry = open_registry(Path(life.path), timedelta(seconds=life.ahead), **life.options)
    notebook = Notebook(Path(life.notes))
    dispatcher = Dispatcher(registry, timeouts=TIMEOUTS, max_in_flight=1 if life.in_turns else 100)
    dispatcher.start()
    for number in range(life.first, life.first + life.count):
        if life.in_turns:
            dispatcher.drain(LONGEST_LIFE)
        notebook.emit(registry, number)
    if life.seconds is not None:
        signal.pause()
    dispatcher.drain(LONGEST_LIFE)
    dispatcher.stop()


def give(life: Life) -> int:
    """Fork a child for this life, and return the signal that ended it; a child that ends by itself gives 0 or less."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            live(life)
            code = 0
        except BaseException as error:
            os.write(2, f"a child failed: {error!r}\n".encode())
        finally:
            os._exit(code)
    if life.seconds is not None:
        descriptor = os.pidfd_open(child)
        try:
            # It ends early only if the child does, which is found out below.
            select.select([descriptor], [], [], life.seconds)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
    _, status = os.waitpid(child, 0)
    return -os.waitstatus_to_exitcode(status)


def serve(lines: Sequence[str] | Any) -> None:
    """Answer each line."""
    logging.getLogger("procore_hooks").setLevel(logging.CRITICAL)
    for line in lines:
        sys.stdout.write(f"{give(Life(**json.loads(line)))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(sys.stdin)
