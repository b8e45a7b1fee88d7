"""How much of the file a delivery takes, with a fan-out of three and one attempt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from procore_hooks import Dispatcher

from ._backlog import drain_rate, emit, listen, opened
from ._bulk import checkpoint
from ._harness import Bar, Options, Result, alternate, folder, main, quantity
from .sink import sink

_HOOKS = 3


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    events = options.size(1_000, 100)
    with sink() as receiver:
        sizes = alternate(options.runs, {"bytes": lambda: _bytes(receiver.url, events)}, warm_up=False)
    return [
        quantity(
            "bytes on disk per delivery, fan-out 3, one attempt",
            f"{events:,} events of 1 KB to {_HOOKS} hooks, delivered; the file after a checkpoint, less the empty one",
            sizes["bytes"],
            "B",
            Bar(800, 600),
        )
    ]


def _bytes(url: str, events: int) -> float:
    with folder() as where, opened(where / "hooks.db") as registry:
        listen(registry, url, _HOOKS)
        empty = _size(where / "hooks.db")
        emit(registry, events)
        drain_rate(Dispatcher(registry), events * _HOOKS)
        return (_size(where / "hooks.db") - empty) / (events * _HOOKS)


def _size(path: Path) -> int:
    checkpoint(path)
    return path.stat().st_size


if __name__ == "__main__":
    main(measure)
