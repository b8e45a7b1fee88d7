"""The peak memory of a process that drains 100,000, less that of one that drains 1,000."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from ._backlog import listen, opened
from ._bulk import add_waiting
from ._drain_process import drain_process
from ._harness import Bar, Options, Result, alternate, folder, main, require, side
from .sink import sink


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    many, few = options.size(100_000, 1_000), options.size(1_000, 100)
    with folder() as where, sink() as receiver:
        hooks = {}
        for number in (many, few):
            with opened(where / f"{number}.db") as registry:
                hooks[number] = listen(registry, receiver.url).id

        def peak(number: int) -> float:
            add_waiting(where / f"{number}.db", hooks[number], number)
            return _peak(where / f"{number}.db", number)

        peaks = alternate(options.runs, {"many": lambda: peak(many), "few": lambda: peak(few)}, warm_up=False)
    differences = [a - b for a, b in zip(peaks["many"], peaks["few"], strict=True)]
    return [
        Result(
            figure="peak memory with 100,000 waiting (SQLite) over 1,000 waiting",
            measured=f"resident at most, of a process that drains {many:,}, less that of one that drains {few:,}",
            value=statistics.median(differences),
            unit="MiB",
            spread=(min(differences), max(differences)),
            sides=(str(side(f"{many:,}", peaks["many"], "MiB")), str(side(f"{few:,}", peaks["few"], "MiB"))),
            bar=Bar(40, 10),
        )
    ]


def _peak(path: Path, number: int) -> float:
    with drain_process(path) as process:
        process.start()
        delivered, peak = process.result()
    require(delivered == number, f"{number} waited, and {delivered} were delivered")
    return peak


if __name__ == "__main__":
    main(measure)
