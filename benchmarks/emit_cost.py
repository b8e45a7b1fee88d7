"""The p50 of `registry.emit` over that of a bare commit of one row of 1 KB, with the same durability, taken in turn."""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from procore_hooks import HookRegistry

from ._backlog import PAYLOAD, PAYLOAD_JSON, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, side, timed

_BARS = {
    ("normal", 1): Bar(4, 2.5),
    ("normal", 10): Bar(6, 4.5),
    ("full", 1): Bar(1.8, 1.4),
    ("full", 10): Bar(2.2, 1.7),
}


def measure(options: Options) -> Sequence[Result]:
    """Four rows."""
    return [row for durability in ("normal", "full") for row in _rows(options, durability)]


def _rows(options: Options, durability: Literal["normal", "full"]) -> Sequence[Result]:
    number = options.size(500, 20)
    with folder() as where, opened(where / "hooks.db", durability) as registry, bare_commit(where, durability) as bare:
        listen(registry, "http://127.0.0.1:1", resource="One")
        listen(registry, "http://127.0.0.1:1", hooks=10, resource="Ten")
        commits = {"bare": bare, "one": _emit(registry, "One"), "ten": _emit(registry, "Ten")}
        rounds = alternate(options.runs, {"p50 of all, in turn": lambda: _medians(number, commits)})
    medians = rounds["p50 of all, in turn"]
    under = side("bare", [one["bare"] for one in medians], "µs")
    return [
        ratio(
            f"emit p50 alone ÷ a bare one-row commit of 1 KB, {durability}: {words}",
            f"p50 of {number} emits over that of as many INSERTs with COMMIT, each after the other",
            side(f"emit, {words}", [one[name] for one in medians], "µs"),
            under,
            _BARS[durability, matches],
        )
        for name, words, matches in (("one", "one match", 1), ("ten", "ten matches", 10))
    ]


def _medians(number: int, commits: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The p50 of each, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in commits}
    for _ in range(number):
        for name, commit in commits.items():
            times[name].append(timed(commit) * 1e6)
    return {name: round(statistics.median(each), 1) for name, each in times.items()}


def _emit(registry: HookRegistry, resource: str) -> Callable[[], object]:
    return lambda: registry.emit(
        resource, "update", PAYLOAD, resource_id=54321, company_id=8, project_id=6778, user_id=42
    )


@contextlib.contextmanager
def bare_commit(where: Path, durability: str) -> Iterator[Callable[[], None]]:
    """A function that stores a row of 1 KB and commits."""
    with contextlib.closing(sqlite3.connect(where / "bare.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {durability}")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")

        def commit() -> None:
            connection.execute("INSERT INTO rows (body) VALUES (?)", (PAYLOAD_JSON,))
            connection.commit()

        yield commit


if __name__ == "__main__":
    main(measure)
