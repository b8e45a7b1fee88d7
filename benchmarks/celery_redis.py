"""A drain over that of Celery on Redis: eight prefork workers, a `requests` task with autoretry, nothing recorded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ._backlog import PAYLOAD_JSON, emit_and_drain, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, side, skipped
from ._peers import missing, peer_rate, redis_server, worker
from .sink import sink

_FIGURE = "drain ÷ Celery + Redis (prefork 8, a requests task with autoretry)"
_BAR = Bar(5, 10)


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    if absent := missing(["celery", "redis", "requests"], ["redis-server"]):
        return [skipped(_FIGURE, absent, _BAR)]
    number, tasks = options.size(5_000, 200), options.size(2_000, 100)
    command = ["celery", "-A", "benchmarks._celery_tasks", "worker", "--pool", "prefork", "--concurrency", "8"]
    with folder() as where, sink() as receiver, redis_server(where) as broker, opened(where / "hooks.db") as registry:
        listen(registry, receiver.url)
        environment = {"BENCHMARK_BROKER": broker}
        os.environ.update(environment)
        from ._celery_tasks import post

        def enqueue(number: int) -> None:
            for _ in range(number):
                post.delay(receiver.url, PAYLOAD_JSON.decode())

        def celery() -> float:
            return peer_rate(receiver, tasks, enqueue, lambda: worker(command, environment))

        rates = alternate(options.runs, {"ours": lambda: emit_and_drain(registry, number), "celery": celery})
    return [
        ratio(
            _FIGURE,
            f"drain of {number:,}, 100 in flight, over {tasks:,} queued tasks",
            side("drain", rates["ours"], "deliveries/s"),
            side("Celery", rates["celery"], "tasks/s"),
            _BAR,
        )
    ]


if __name__ == "__main__":
    main(measure)
