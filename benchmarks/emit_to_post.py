"""From the call of emit to the first byte of its POST at the receiver, at 50 emits a second."""

from __future__ import annotations

import time
from collections.abc import Sequence

from procore_hooks import Dispatcher, HookRegistry

from ._backlog import PAYLOAD, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, percentile, quantity
from .sink import Sink, sink

_PER_SECOND = 50


def measure(options: Options) -> Sequence[Result]:
    """Two rows: p50 and p99."""
    number = options.size(500, 25)
    with folder() as where, sink() as receiver, opened(where / "hooks.db") as registry:
        listen(registry, f"{receiver.url}/timed")
        with Dispatcher(registry):
            rounds = alternate(options.runs, {"p50, p99 in ms": lambda: _delays(registry, receiver, number)})
    samples = rounds["p50, p99 in ms"]
    measured = f"{number} emits, {_PER_SECOND} a second, beside a dispatcher in the same process"
    return [
        quantity(
            f"emit → POST begun, {_PER_SECOND} emits/s, {name}", measured, [one[place] for one in samples], "ms", bar
        )
        for place, name, bar in ((0, "p50", Bar(1, 0.5)), (1, "p99", Bar(5, 2)))
    ]


def _delays(registry: HookRegistry, receiver: Sink, number: int) -> tuple[float, float]:
    receiver.reset()
    called: dict[str, float] = {}
    start = time.monotonic()
    for turn in range(number):
        time.sleep(max(0.0, start + turn / _PER_SECOND - time.monotonic()))
        before = time.monotonic()
        emission = registry.emit("RFIs", "update", PAYLOAD, resource_id=54321, company_id=8, project_id=6778)
        called[emission.event.ulid] = before
    receiver.wait_for(number)
    began = receiver.began()
    delays = [(began[webhook_id] - before) * 1000 for webhook_id, before in called.items()]
    return round(percentile(delays, 0.5), 3), round(percentile(delays, 0.99), 3)


if __name__ == "__main__":
    main(measure)
