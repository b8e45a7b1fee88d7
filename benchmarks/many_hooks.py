"""The rate with 10,000 hooks over that with one, by dispatchers that have served each of them before.

The first delivery to a hook costs more: its URL is judged, its headers are checked, its secrets are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

from procore_hooks import Dispatcher

from ._backlog import drain_rate, emit, listen, opened
from ._bulk import add_waiting
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, side
from .sink import sink


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    hooks, number, few = options.size(10_000, 100), options.size(20_000, 300), options.size(5_000, 200)
    with (
        folder() as where,
        sink() as receiver,
        opened(where / "many.db") as with_many,
        opened(where / "one.db") as with_one,
    ):
        first = listen(with_many, receiver.url, hooks, max_in_flight=1)
        listen(with_one, receiver.url)

        def many() -> float:
            # Each event for one of the hooks; by emits it would need as many scopes.
            add_waiting(where / "many.db", first.id, number, hooks)
            return drain_rate(to_many, number)

        def one() -> float:
            emit(with_one, few)
            return drain_rate(to_one, few)

        # They meet the hooks in the first round, which does not count.
        to_many, to_one = Dispatcher(with_many), Dispatcher(with_one)
        rates = alternate(2 * options.runs, {"many": many, "one": one})
    return [
        ratio(
            "rate with 10,000 hooks ÷ with 1",
            f"drain of {number:,} of {hooks:,} hooks with one receiver, one in flight each, over {few:,} of one hook, "
            "by dispatchers that have served them before",
            side(f"{hooks:,} hooks", rates["many"], "deliveries/s"),
            side("1 hook", rates["one"], "deliveries/s"),
            Bar(0.9, 1),
        )
    ]


if __name__ == "__main__":
    main(measure)
