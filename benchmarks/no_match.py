"""An emit that none of 10,000 hooks wants over an emit where there is no hook at all."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from procore_hooks import HookRegistry

from ._backlog import PAYLOAD, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, require, side, timed


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    hooks, emits = options.size(10_000, 100), options.size(2_000, 100)
    with folder() as where, opened(where / "many.db") as many, opened(where / "none.db") as none:
        # Half of them want another resource, half the same one of other projects.
        listen(many, "http://127.0.0.1:1", hooks // 2, resource="Submittals")
        for number in range(hooks - hooks // 2):
            hook = many.hooks.create("http://127.0.0.1:1", namespace="benchmark", company_id=8, project_id=number + 1)
            many.triggers.create(hook.id, "RFIs", "update")
        sides = {"many": lambda: _p50(many, emits), "none": lambda: _p50(none, emits)}
        costs = alternate(options.runs, sides)
    return [
        ratio(
            "matching one event against 10,000 hooks of which none match ÷ against none",
            f"p50 of {emits:,} emits",
            side(f"{hooks:,} hooks", costs["many"], "µs"),
            side("no hooks", costs["none"], "µs"),
            Bar(1.2, 1.05),
        )
    ]


def _p50(registry: HookRegistry, number: int) -> float:
    """Microseconds."""

    def emit() -> None:
        emission = registry.emit("RFIs", "update", PAYLOAD, resource_id=54321, company_id=8, project_id=999_999)
        require(not emission.delivery_ids, "a hook matched")

    return statistics.median(timed(emit) for _ in range(number)) * 1e6


if __name__ == "__main__":
    main(measure)
