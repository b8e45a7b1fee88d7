"""Emits in the host's thread, 200 a second asked, while a dispatcher in the same process works through a backlog."""

from __future__ import annotations

import time
from collections.abc import Sequence

from procore_hooks import Dispatcher, HookRegistry

from ._backlog import PAYLOAD, listen, opened
from ._bulk import add_waiting
from ._harness import Bar, Options, Result, alternate, folder, main, percentile, quantity, require
from .sink import Sink, sink

_PER_SECOND = 200
_FIGURES = (("p50", "ms", Bar(2, 0.5)), ("p99", "ms", Bar(25, 10)), ("share achieved", "%", Bar(95, 100)))


def measure(options: Options) -> Sequence[Result]:
    """Three rows: p50, p99 and the share of the emits asked for that came about in time."""
    seconds, backlog = options.size(4, 1), options.size(24_000, 2_500)
    with folder() as where, sink() as receiver, opened(where / "hooks.db") as registry:
        hook = listen(registry, receiver.url)

        def round_of_emits() -> tuple[float, float, float]:
            # What the last round left waits too.
            add_waiting(where / "hooks.db", hook.id, backlog)
            return _round(registry, hook.id, receiver, seconds)

        rounds = alternate(options.runs, {"p50, p99 in ms, share in %": round_of_emits})
    samples = rounds["p50, p99 in ms, share in %"]
    measured = f"{seconds} s of emits at {_PER_SECOND} a second, late ones made up for, beside a backlog of {backlog:,}"
    return [
        quantity(
            f"emit in the host's thread, {_PER_SECOND}/s asked, dispatcher saturated in the same process: {name}",
            measured,
            [one[place] for one in samples],
            unit,
            bar,
        )
        for place, (name, unit, bar) in enumerate(_FIGURES)
    ]


def _round(registry: HookRegistry, hook_id: int, receiver: Sink, seconds: float) -> tuple[float, float, float]:
    asked = int(seconds * _PER_SECOND)
    times: list[float] = []
    receiver.reset()
    with Dispatcher(registry):
        receiver.wait_for(100)
        start = time.monotonic()
        while len(times) < asked and (now := time.monotonic()) < start + seconds:
            due = start + len(times) / _PER_SECOND
            if due > now:
                time.sleep(due - now)
            before = time.perf_counter()
            registry.emit("RFIs", "update", PAYLOAD, resource_id=54321, company_id=8, project_id=6778)
            times.append((time.perf_counter() - before) * 1000)
        waiting = registry.deliveries.list(hook_id, status="enqueued", page_size=1)
        require(len(waiting) > 0, "the backlog was gone before the emits were over")
    return round(percentile(times, 0.5), 3), round(percentile(times, 0.99), 3), 100 * len(times) / asked


if __name__ == "__main__":
    main(measure)
