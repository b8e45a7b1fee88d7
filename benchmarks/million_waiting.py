"""The rate at which a dispatcher delivers while 1,000,000 wait over that with 1,000."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from procore_hooks import Dispatcher, HookRegistry

from ._backlog import listen, opened
from ._bulk import add_waiting
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, side
from .sink import Sink, sink

# Of the first thousand arrivals: neither the start nor the end of a short queue.
_FROM, _TO = 0.1, 0.9


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    many, few, bursts = options.size(1_000_000, 2_000), options.size(1_000, 200), options.size(5, 1)
    with (
        folder() as where,
        sink() as receiver,
        opened(where / "many.db") as with_many,
        opened(where / "few.db") as with_few,
    ):
        sides = {
            "many": _bursts(with_many, where / "many.db", receiver, many, few, bursts),
            "few": _bursts(with_few, where / "few.db", receiver, few, few, bursts),
        }
        rates = alternate(options.runs, sides)
    return [
        ratio(
            "rate with 1,000,000 waiting ÷ with 1,000",
            f"{bursts} starts of a dispatcher, 100 in flight, the middle 80 % of {few:,} arrivals after each",
            side(f"{many:,} waiting", rates["many"], "deliveries/s"),
            side(f"{few:,} waiting", rates["few"], "deliveries/s"),
            Bar(0.8, 0.95),
        )
    ]


def _bursts(
    registry: HookRegistry, path: Path, receiver: Sink, waiting: int, number: int, bursts: int
) -> Callable[[], float]:
    hook = listen(registry, receiver.url)
    left = 0

    def rate() -> float:
        nonlocal left
        deliveries = seconds = 0.0
        for _ in range(bursts):
            add_waiting(path, hook.id, waiting - left, 1)
            receiver.reset()
            with Dispatcher(registry):
                receiver.wait_for(number)
            # Those that were in flight at the stop came in too.
            left = waiting - receiver.count()
            arrivals = receiver.arrivals()
            first, last = int(number * _FROM), int(number * _TO)
            deliveries += last - first
            seconds += arrivals[last] - arrivals[first]
        return deliveries / seconds

    return rate


if __name__ == "__main__":
    main(measure)
