"""Two dispatcher processes on one SQLite file over one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from ._backlog import emit, listen, opened
from ._drain_process import drain_process
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, require, side
from .sink import sink


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    number = options.size(8_000, 300)
    with folder() as where, sink() as receiver, opened(where / "hooks.db") as registry:
        # Room for two dispatchers with 100 in flight each.
        listen(registry, receiver.url, max_in_flight=200)

        def rate(processes: int) -> float:
            emit(registry, number)
            return _drain_rate(where / "hooks.db", number, processes)

        rates = alternate(2 * options.runs, {"two": lambda: rate(2), "one": lambda: rate(1)})
    return [
        ratio(
            "two dispatcher processes on one SQLite file ÷ one",
            f"drains of {number:,} of one hook, 100 in flight in each process",
            side("two", rates["two"], "deliveries/s"),
            side("one", rates["one"], "deliveries/s"),
            Bar(1.5, 1.8),
        )
    ]


def _drain_rate(path: Path, number: int, processes: int) -> float:
    """Deliveries per second from the word to start until the last process is done."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(drain_process(path)) for _ in range(processes)]
        began = time.perf_counter()
        for process in started:
            process.start()
        delivered = [process.result()[0] for process in started]
        seconds = time.perf_counter() - began
    require(sum(delivered) == number, f"{number} waited, and {delivered} were delivered")
    return number / seconds


if __name__ == "__main__":
    main(measure)
