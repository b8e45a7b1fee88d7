"""A page of 25 failures, newest first, at 5,000,000 deliveries over one at 50,000. One in a hundred failed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from procore_hooks import HookRegistry

from ._backlog import listen, opened
from ._bulk import add_history
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, require, side, timed

_HOOKS = 10
_SIZE = 25
_BAR = Bar(1.5, 1.1)
_FIGURE = "page of 25 (failures only, newest first) at 5,000,000 deliveries ÷ at 50,000"


def measure(options: Options) -> Sequence[Result]:
    """Three rows: of all hooks, of one hook, and the page in the middle of all."""
    many, few, pages = options.size(5_000_000, 100_000), options.size(50_000, 50_000), options.size(300, 20)
    with folder() as where, opened(where / "many.db") as large, opened(where / "few.db") as small:
        sides: dict[str, Callable[[], float]] = {}
        for name, registry, number in (("many", large, many), ("few", small, few)):
            hook = listen(registry, "http://127.0.0.1:1", _HOOKS)
            add_history(where / f"{name}.db", hook.id, number, _HOOKS)
            middle = _middle(registry, number)
            sides[f"all {name}"] = _p50(registry, pages, None, None)
            sides[f"hook {name}"] = _p50(registry, pages, hook.id, None)
            sides[f"middle {name}"] = _p50(registry, pages, None, middle)
        costs = alternate(options.runs, sides)
    return [
        ratio(
            f"{_FIGURE}, {words}",
            f"p50 of {pages} pages, {_HOOKS} hooks",
            side(f"{many:,} deliveries", costs[f"{which} many"], "µs"),
            side(f"{few:,} deliveries", costs[f"{which} few"], "µs"),
            _BAR,
        )
        for which, words in (("all", "of all hooks"), ("hook", "of one hook"), ("middle", "one in the middle"))
    ]


def _p50(registry: HookRegistry, number: int, hook_id: int | None, cursor: str | None) -> Callable[[], float]:
    def page() -> None:
        found = registry.deliveries.list(hook_id, only_failures=True, page_size=_SIZE, cursor=cursor)
        require(len(found) == _SIZE, f"a page had {len(found)} deliveries")
        require(all(one.status == "failed" and one.attempts for one in found), "a page is not of failures")

    return lambda: statistics.median(timed(page) for _ in range(number)) * 1e6


def _middle(registry: HookRegistry, number: int) -> str | None:
    """The cursor half way down all failures."""
    cursor, left = None, number // 100 // 2
    while left > 0:
        page = registry.deliveries.list(only_failures=True, page_size=min(left, 1_000), cursor=cursor)
        cursor, left = page.next_cursor, left - len(page)
    return cursor


if __name__ == "__main__":
    main(measure)
