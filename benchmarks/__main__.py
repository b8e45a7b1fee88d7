"""Runs all benchmarks, or those named, and writes the table of results."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ._harness import ROOT, Bar, Result, add_options, progress, result_from, shown

# In the order of the bar.
NAMES: Final = (
    "loop_of_posts",
    "bare_transport",
    "guard_cost",
    "shared_async_client",
    "celery_redis",
    "huey_sqlite",
    "two_dispatchers",
    "slow_receiver",
    "emit_cost",
    "turn_growth",
    "emit_to_post",
    "emit_beside_dispatcher",
    "million_waiting",
    "many_hooks",
    "no_match",
    "page_of_failures",
    "bytes_on_disk",
    "peak_memory",
    "import_time",
)
_DISTRIBUTIONS: Final = ("procore-hooks", "httpx", "httpcore", "h11", "attrs", "celery", "redis", "huey", "requests")

# What keeps figures from their bar, by how their names begin. Told of those that missed it.
_IN_THE_WAY: Final = {
    "deliveries/s ÷ the same transport bare": (
        "A delivery is more than its exchange: the body is made and signed, what came back is decided on and recorded. "
        "The rows below it that send bytes made on the way show how much of it is making and signing."
    ),
    "two dispatcher processes": (
        "On two cores the receiver, in a process of its own, takes of both dispatchers what one of them leaves it: the "
        "faster one dispatcher is, the less there is left for a second."
    ),
    "100 ms receiver": (
        "With 1,000 in flight a thousand connections are opened first, what belongs to a delivery has left the "
        "processor's caches when its answer comes, and the garbage collector has looked at it more often."
    ),
    "emit p50 alone": (
        "The statements of an emit alone are twice a bare commit: an event, a delivery for each hook that matched, and "
        "the queues that wake. Python runs colder between commits than in a loop of its own, so that checking, "
        "serialising and numbering an event take as long again."
    ),
    "settle + claim per delivery in a turn of 64, growth from 1 to": (
        "With one hook a turn writes one queue twice, with many 64 queues twice, each with its entry in the index of "
        "those that are ready, and looks into 64 of them for their first delivery. Beyond that it does not grow: see "
        "the row from 64 hooks."
    ),
    "rate with 10,000 hooks": (
        "Each delivery of a turn is of a queue of its own to read and to write, and nothing of a hook stays in a cache."
    ),
    "page of 25": (
        "SQLite takes the same steps for a page at any size (`tests/sqlite/test_work.py` counts them). In about a "
        "millisecond each, what differs is the machine from itself: see the spread."
    ),
    "emit → POST begun": (
        "20 ms after the last event nothing that the next one needs is in this machine's caches any more, whether its "
        "processor slept meanwhile or not: the same few lines take several times as long as when they run again at "
        "once (the last of the rows for comparison). So what counts is how much different code there is on the way. "
        "The emit itself, before whose commit nothing can be sent, takes most of the bar (a row for comparison), and "
        "of the least that could be (another one: a bare commit, one hand-over between threads, bytes made beforehand) "
        "the hand-over and the send still follow. To that come the loop that wakes, a turn of eight statements, and "
        "making and signing the request."
    ),
}


def run() -> int:
    """Returns 1 if a benchmark broke off; a figure that misses its bar is a result like any other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], metavar="name", help=f"of {', '.join(NAMES)}; all")
    add_options(parser)
    parser.add_argument(
        "--output", type=Path, help="where to write; benchmarks/RESULTS.md, if all are run and not quickly"
    )
    given = parser.parse_args()
    output = given.output
    if output is None and not given.names and not given.quick:
        output = ROOT / "benchmarks" / "RESULTS.md"
    load, began = os.getloadavg()[0], time.monotonic()
    results: list[Result] = []
    broken: list[str] = []
    for name in given.names or NAMES:
        found = _measured(name, ["--runs", str(given.runs), *(["--quick"] if given.quick else [])])
        results += found
        if not found:
            broken.append(name)
    before = _values_in(output)
    text = _page(results, before, broken, f"{given.runs} runs of each side", load, time.monotonic() - began)
    if given.quick:
        text = text.replace("# Results", "# Results of a quick run: they mean nothing", 1)
    if output is not None:
        output.write_text(text, encoding="utf-8")
        print(f"written to {output}")
    print(f"{len(results)} rows in {(time.monotonic() - began) / 60:.1f} min; broke off: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


def _measured(name: str, flags: Sequence[str]) -> list[Result]:
    """The rows of one benchmark, from a process of its own: what others left in memory must not weigh on it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="procore-hooks-benchmark-") as where:
        answer = Path(where, "results.json")
        command = [sys.executable, "-m", f"benchmarks.{name}", *flags, "--json", str(answer)]
        progress(f"{name} ...")
        done = subprocess.run(command, cwd=ROOT, check=False)
        progress(f"{name}: {time.monotonic() - began:.0f} s")
        if done.returncode != 0:
            return []
        return [result_from(fields) for fields in json.loads(answer.read_text(encoding="utf-8"))]


def _values_in(page: Path | None) -> dict[str, str]:
    """The values of the last run, by figure."""
    if page is None or not page.exists():
        return {}
    rows = [line.strip("| ").split(" | ") for line in page.read_text(encoding="utf-8").splitlines()]
    return {row[0]: row[2] for row in rows if len(row) >= 8}


def _page(
    results: Sequence[Result], before: Mapping[str, str], broken: Sequence[str], how: str, load: float, seconds: float
) -> str:
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks`; README.md here says what is measured and how.",
        "",
        *(f"- {name}: {value}" for name, value in _surroundings(load).items()),
        f"- Taken: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, in {seconds / 60:.0f} minutes, {how}",
        "",
        "A ratio is that of the medians of two sides, taken in turn; its spread is from the lowest to the highest",
        "ratio of a run. Beside each median is the spread of its side, beside the value that of the run before.",
        "",
        "| figure | measured | value | before | spread | medians | reach | stretch | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(result, before.get(result.figure, "")) for result in results),
    ]
    missed = [result.figure for result in results if result.verdict == "missed"]
    reasons = [(start, why) for start, why in _IN_THE_WAY.items() if any(one.startswith(start) for one in missed)]
    if reasons:
        lines += ["", "## What keeps the others from their bar", ""]
        lines += [f"- *{start} ...*: {why}" for start, why in reasons]
    if broken:
        lines += ["", f"Broke off, so not in the table: {', '.join(broken)}."]
    return "\n".join([*lines, ""])


def _row(result: Result, before: str) -> str:
    bar = result.bar
    reach, stretch = (f"{bar.reach:g}", f"{bar.stretch:g}") if isinstance(bar, Bar) else ("", "")
    if result.why_skipped:
        cells = [result.figure, result.why_skipped, "", before, "", "", reach, stretch, result.verdict]
    else:
        low, high = (shown(each) for each in result.spread)
        sides = "; ".join(result.sides)
        value = shown(result.value, result.unit)
        spread = f"{low} .. {high}"
        cells = [result.figure, result.measured, value, before, spread, sides, reach, stretch, result.verdict]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _surroundings(load: float) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "Machine": f"{platform.machine()}, {_processor()}, {os.cpu_count()} cores, {_memory()}; "
        f"load average at the start {load:.1f}",
        "System": f"{platform.system()} {platform.release()}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "Packages": ", ".join(f"{name} {version}" for name in _DISTRIBUTIONS if (version := _version(name))),
        "Redis": _redis(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "processor unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "model unknown")


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _redis() -> str:
    program = shutil.which("redis-server")
    if program is None:
        return "not installed"
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return next((word[2:] for word in told.split() if word.startswith("v=")), told.strip())


if __name__ == "__main__":
    sys.exit(run())
