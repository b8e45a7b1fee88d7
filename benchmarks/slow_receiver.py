"""A receiver that takes 100 ms to answer, with 1,000 in flight, over one that answers at once.

Both drain so many that it hardly matters how they begin and end: a thousand connections are opened first, and the last
answers come after 100 ms, which is a tenth of a drain of 10,000.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._backlog import emit_and_drain, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, side
from .sink import sink


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    number = options.size(30_000, 400)
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
                "fast": lambda: emit_and_drain(to_fast, number, 100),
            },
        )
    return [
        ratio(
            "100 ms receiver, 1,000 in flight ÷ fast receiver",
            f"drains of {number:,}; with the fast one 100 in flight, which is the default",
            side("100 ms, 1,000 in flight", rates["slow"], "deliveries/s"),
            side("fast, 100 in flight", rates["fast"], "deliveries/s"),
            Bar(0.9, 1),
        )
    ]


if __name__ == "__main__":
    main(measure)
