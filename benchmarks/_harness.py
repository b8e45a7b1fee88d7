"""What every benchmark needs: sides taken in turn, medians, and a line that says what came of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs

__all__ = [
    "ROOT",
    "Bar",
    "Options",
    "Result",
    "add_options",
    "alternate",
    "folder",
    "main",
    "percentile",
    "progress",
    "quantity",
    "ratio",
    "require",
    "result_from",
    "shown",
    "side",
    "skipped",
    "timed",
]

ROOT: Final = Path(__file__).resolve().parent.parent
_OPEN_FILES: Final = 8192
T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Options:
    """How much to do.

    Attributes:
        runs: how often each side is measured.
        quick: tiny sizes, to see that a benchmark works; its figures mean nothing.
    """

    runs: int = 5
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """How many of something: `full`, or `quick` with that option."""
        return quick if self.quick else full


@attrs.frozen
class Bar:
    """What a figure is to reach, and what it may stretch to. Which way is better follows from the two."""

    reach: float
    stretch: float

    def verdict(self, value: float) -> str:
        """``"stretch"``, ``"reach"`` or ``"missed"``."""
        sign = 1 if self.stretch >= self.reach else -1
        if sign * value >= sign * self.stretch:
            return "stretch"
        return "reach" if sign * value >= sign * self.reach else "missed"


@attrs.frozen(kw_only=True)
class Result:
    """A row of the table of results.

    Attributes:
        figure: as the bar has it.
        measured: what was divided by what, or what was taken.
        value: a ratio or, where there is a `unit`, a quantity.
        spread: of `value`, from the lowest run to the highest.
        sides: median and spread of each side, in words.
        bar: None for a figure that is given for comparison only.
        why_skipped: if set, nothing was measured.
    """

    figure: str
    measured: str
    value: float = 0.0
    unit: str = ""
    spread: tuple[float, float] = (0.0, 0.0)
    sides: tuple[str, ...] = ()
    bar: Bar | None = None
    why_skipped: str = ""

    @property
    def verdict(self) -> str:
        """In one word."""
        if self.why_skipped:
            return "skipped"
        return "-" if self.bar is None else self.bar.verdict(self.value)

    def __str__(self) -> str:
        if self.why_skipped:
            return f"{self.figure}: skipped: {self.why_skipped}"
        low, high = self.spread
        bar = "" if self.bar is None else f"  reach {self.bar.reach:g}, stretch {self.bar.stretch:g}: {self.verdict}"
        lines = [f"{self.figure}: {shown(self.value, self.unit)}  ({shown(low)} .. {shown(high)}){bar}"]
        return "\n".join([*lines, f"    {self.measured}", *(f"    {side}" for side in self.sides)])


def shown(value: float, unit: str = "") -> str:
    """A number with about three digits, and its unit."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 20 else 2
    return f"{value:,.{digits}f}{' ' if unit else ''}{unit}"


def alternate(runs: int, sides: Mapping[str, Callable[[], T]], *, warm_up: bool = True) -> dict[str, list[T]]:
    """What each side gave, in `runs` rounds that take the sides in turn, after one round that does not count."""
    given: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(0 if warm_up else 1, runs + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            value = side()
            told = f"{value:,.4g}" if isinstance(value, float) else value
            progress(f"round {number}, {name}: {told} in {time.perf_counter() - began:.1f} s")
            if number:
                given[name].append(value)
    return given


def ratio(figure: str, measured: str, over: _Side, under: _Side, bar: Bar | None = None) -> Result:
    """The ratio of the medians of two sides, and the spread of the ratios of their runs."""
    each = [a / b for a, b in zip(over.samples, under.samples, strict=True)]
    return Result(
        figure=figure,
        measured=measured,
        value=statistics.median(over.samples) / statistics.median(under.samples),
        spread=(min(each), max(each)),
        sides=(str(over), str(under)),
        bar=bar,
    )


def quantity(figure: str, measured: str, samples: Sequence[float], unit: str, bar: Bar | None = None) -> Result:
    """The median of something that has a unit."""
    return Result(
        figure=figure,
        measured=measured,
        value=statistics.median(samples),
        unit=unit,
        spread=(min(samples), max(samples)),
        bar=bar,
    )


def skipped(figure: str, why: str, bar: Bar) -> Result:
    """A row that could not be measured here."""
    return Result(figure=figure, measured="", bar=bar, why_skipped=why)


@attrs.frozen
class _Side:
    name: str
    samples: Sequence[float]
    unit: str

    def __str__(self) -> str:
        low, high = min(self.samples), max(self.samples)
        return f"{self.name}: {shown(statistics.median(self.samples))} {self.unit} ({shown(low)} .. {shown(high)})"


def side(name: str, samples: Sequence[float], unit: str) -> _Side:
    """One side of a ratio, with what it is measured in."""
    return _Side(name, samples, unit)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def timed(action: Callable[[], object]) -> float:
    """How long `action` takes, in seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def require(holds: bool, otherwise: str) -> None:
    """End the benchmark where its figure would be of something else."""
    if not holds:
        raise RuntimeError(otherwise)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder, where TMPDIR says."""
    with tempfile.TemporaryDirectory(prefix="procore-hooks-benchmark-") as name:
        yield Path(name)


def progress(text: str) -> None:
    """Tell what is going on, on standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags that every benchmark takes."""
    parser.add_argument("--runs", type=int, default=5, help="how often each side is measured (5)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works; the figures mean nothing"
    )


def main(measure: Callable[[Options], Sequence[Result]]) -> None:
    """Run one benchmark from the command line, and print its results."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    parser.add_argument("--json", type=Path, help="write the results here too")
    given = parser.parse_args()
    if given.runs < 1:
        parser.error("--runs must be at least 1")
    # The warning about old SQLite releases is for users, not for a table of figures.
    logging.getLogger("procore_hooks").setLevel(logging.ERROR)
    os.chdir(ROOT)
    _allow_open_files()
    results = measure(Options(runs=given.runs, quick=given.quick))
    for result in results:
        print(result)
    if given.json is not None:
        given.json.write_text(json.dumps([attrs.asdict(result) for result in results]))


def _allow_open_files() -> None:
    """A thousand in flight are a thousand sockets, here and in the sink, which inherits this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def result_from(fields: dict[str, object]) -> Result:
    """A result that was written as JSON."""
    bar = fields.pop("bar")
    for name in ("spread", "sides"):
        fields[name] = tuple(fields[name])  # type: ignore[arg-type]
    return Result(**fields, bar=Bar(**bar) if isinstance(bar, dict) else None)  # type: ignore[arg-type]
