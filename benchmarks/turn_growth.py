"""Settle and claim 64 in a turn: how its cost grows with what waits, with the hooks, and beside a paused hook.

The storage is called as a dispatcher calls it; attempts are recorded in full. What a turn costs is the median of many,
once every hook was served. The files are taken in turn, turn by turn: where a machine's speed changes from one second
to the next, a side that is measured after the other tells more of that than of its turns.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import attrs

from procore_hooks import Attempt, DestinationPolicy, Hook, HookRegistry
from procore_hooks._core.claims import Claim, Settlement
from procore_hooks._requests import RequestMaker

from ._backlog import listen, opened
from ._bulk import add_waiting, pause
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, require, side

_AT_ONCE: Final = 64
_LEASE: Final = timedelta(hours=1)
_BAR: Final = Bar(1.3, 1.1)
_ANSWER: Final = {"content-type": "text/plain; charset=utf-8", "content-length": "2", "server": "sink"}
_FIGURE: Final = "settle + claim per delivery in a turn of 64, growth"


def measure(options: Options) -> Sequence[Result]:
    """Four rows, of which the third tells how much of the second is that a turn touches 64 queues, not one."""
    few, some, many = options.size(1_000, 200), options.size(100_000, 1_000), options.size(1_000_000, 2_000)
    hooks = options.size(10_000, 100)
    with folder() as where, contextlib.ExitStack() as stack:

        def turns(name: str, hooks: int, waiting: int, beside: int = 0) -> _Turns:
            registry = stack.enter_context(opened(where / f"{name}.db"))
            if beside:
                paused = listen(registry, "http://127.0.0.1:1")
                add_waiting(where / f"{name}.db", paused.id, beside)
                pause(where / f"{name}.db", paused.id)
            first = listen(registry, "http://127.0.0.1:1", hooks, max_in_flight=_AT_ONCE if hooks == 1 else 1)
            return _Turns(registry, where / f"{name}.db", first, hooks, waiting)

        files = {
            "1 hook, few": turns("few", 1, few),
            "1 hook, many": turns("many", 1, many),
            "1 hook": turns("one", 1, some),
            "64 hooks": turns("sixty-four", _AT_ONCE, some),
            "all hooks": turns("hooks", hooks, some),
            "beside": turns("beside", 1, some, beside=many),
        }
        rounds = alternate(options.runs, {"µs per delivery": lambda: _costs(files, options.size(10, 2))})[
            "µs per delivery"
        ]
        costs = {name: [one[name] for one in rounds] for name in files}

    def growth(what: str, over: str, under: str, bar: Bar | None = _BAR) -> Result:
        above, below = (side(name, costs[name], "µs per delivery") for name in (over, under))
        return ratio(f"{_FIGURE} {what}", f"{over!r} over {under!r}", above, below, bar)

    return [
        growth(f"from {few:,} to {many:,} waiting", "1 hook, many", "1 hook, few"),
        growth(f"from 1 to {hooks:,} hooks, {some:,} waiting", "all hooks", "1 hook"),
        growth(f"from 64 to {hooks:,} hooks (for comparison)", "all hooks", "64 hooks", None),
        growth(f"beside a paused hook with {many:,} waiting", "beside", "1 hook"),
    ]


def _costs(files: Mapping[str, _Turns], number: int) -> dict[str, float]:
    """Microseconds per delivery of each file: the median of `number` turns, three times over."""
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(3):
        for one in files.values():
            one.fill()
        for _ in range(number):
            for name, one in files.items():
                seconds[name].append(one.turn())
    return {name: round(statistics.median(times) / _AT_ONCE * 1e6, 2) for name, times in seconds.items()}


@attrs.define
class _Turns:
    """Turns on one file."""

    registry: HookRegistry
    path: Path
    first: Hook
    hooks: int
    waiting: int
    _maker: RequestMaker = attrs.field(factory=lambda: RequestMaker(DestinationPolicy.local(), {}), init=False)
    _claims: tuple[Claim, ...] = attrs.field(default=(), init=False)
    _left: int = attrs.field(default=0, init=False)
    _is_warm: bool = attrs.field(default=False, init=False)

    def fill(self) -> None:
        """Let as many wait as wanted; and a turn that is not measured, after another connection wrote."""
        if not self._is_warm:
            # What a dispatcher knows of a hook once it has served it.
            add_waiting(self.path, self.first.id, self.hooks, self.hooks)
            for _ in range(self.hooks // _AT_ONCE):
                self.turn()
            self._left, self._is_warm = self.hooks % _AT_ONCE, True
        add_waiting(self.path, self.first.id, self.waiting - self._left, self.hooks)
        self._left = self.waiting
        self.turn()

    def turn(self) -> float:
        """Seconds of the next turn, which settles what the one before it claimed."""
        settlements = [self._settled(claim) for claim in self._claims]
        now = datetime.now(UTC)
        began = time.perf_counter()
        turn = self.registry.storage.turn(settlements, now=now, due_by=now, lease=_LEASE, capacity=_AT_ONCE)
        seconds = time.perf_counter() - began
        require(len(turn.claims) == _AT_ONCE, f"a turn claimed {len(turn.claims)}, not {_AT_ONCE}")
        require(not turn.late, "settlements came late")
        self._claims, self._left = turn.claims, self._left - _AT_ONCE
        return seconds

    def _settled(self, claim: Claim) -> Settlement:
        """The claim's request went out, signed, and was answered."""
        prepared = self._maker.request(claim.hook, claim.event, claim.claimed_at)
        attempt = Attempt(
            number=claim.number,
            outcome="ok",
            request_url=prepared.url,
            request_headers=prepared.headers,
            request_body=prepared.stored_body,
            response_status=200,
            response_headers=_ANSWER,
            response_body=b"ok",
            started_at=claim.claimed_at,
            completed_at=claim.claimed_at + timedelta(milliseconds=1),
        )
        return Settlement(claim=claim, attempt=attempt, status="delivered")


if __name__ == "__main__":
    main(measure)
