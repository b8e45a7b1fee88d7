"""A receiver that takes 100 ms to answer, with 1,000 in flight, over one that answers at once."""

from __future__ import annotations

from collections.abc import Sequence

from ._backlog import emit_and_drain, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, side
from .sink import sink


def measure(options: Options) -> Sequence[Result]:
    """Two rows, of which the first is the figure."""
    number, few = options.size(10_000, 400), options.size(5_000, 200)
    with (
        folder() as where,
        sink() as receiver,
        opened(where / "slow.db") as to_slow,
        opened(where / "fast.db") as to_fast,
    ):
        listen(to_slow, f"{receiver.url}/slow", max_in_flight=1_000)
        listen(to_fast, receiver.url, max_in_flight=1_000)
        rates = alternate(
            options.runs,
            {
                "slow": lambda: emit_and_drain(to_slow, number, 1_000),
                "fast": lambda: emit_and_drain(to_fast, few, 100),
                "fast, 1,000": lambda: emit_and_drain(to_fast, few, 1_000),
            },
        )
    over = side("100 ms, 1,000 in flight", rates["slow"], "deliveries/s")
    return [
        ratio(
            "100 ms receiver, 1,000 in flight ÷ fast receiver",
            f"drain of {number:,} over a drain of {few:,} with 100 in flight, which is the default",
            over,
            side("fast, 100 in flight", rates["fast"], "deliveries/s"),
            Bar(0.9, 1),
        ),
        ratio(
            "(for comparison) ÷ fast receiver with 1,000 in flight too",
            f"drain of {number:,} over a drain of {few:,}",
            over,
            side("fast, 1,000 in flight", rates["fast, 1,000"], "deliveries/s"),
        ),
    ]


if __name__ == "__main__":
    main(measure)
