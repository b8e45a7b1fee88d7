"""A drain over that of Huey on SQLite: four processes, a `requests` task that is repeated, nothing recorded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ._backlog import PAYLOAD_JSON, emit_and_drain, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, side, skipped
from ._peers import missing, peer_rate, worker
from .sink import sink

_FIGURE = "drain ÷ Huey on SQLite with 4 processes (which records nothing)"
_BAR = Bar(1.3, 2)


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    if absent := missing(["huey", "requests"]):
        return [skipped(_FIGURE, absent, _BAR)]
    number, tasks = options.size(5_000, 200), options.size(3_000, 100)
    command = ["huey.bin.huey_consumer", "benchmarks._huey_tasks.huey", "--workers", "4", "--worker-type", "process"]
    with folder() as where, sink() as receiver, opened(where / "hooks.db") as registry:
        listen(registry, receiver.url)
        environment = {"BENCHMARK_HUEY_FILE": str(where / "huey.db")}
        os.environ.update(environment)
        from ._huey_tasks import post

        def enqueue(number: int) -> None:
            for _ in range(number):
                post(receiver.url, PAYLOAD_JSON.decode())

        def huey() -> float:
            return peer_rate(receiver, tasks, enqueue, lambda: worker(command, environment))

        rates = alternate(options.runs, {"ours": lambda: emit_and_drain(registry, number), "huey": huey})
    return [
        ratio(
            _FIGURE,
            f"drain of {number:,}, 100 in flight, over {tasks:,} queued tasks",
            side("drain", rates["ours"], "deliveries/s"),
            side("Huey", rates["huey"], "tasks/s"),
            _BAR,
        )
    ]


if __name__ == "__main__":
    main(measure)
