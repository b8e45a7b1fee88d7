"""How SQLite finds rows: by index, whatever is asked for, in an empty file and in a full one."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import re
import sqlite3
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import procore_hooks.storage.sqlite as sqlite_storage
from procore_hooks import SQLiteStorage
from procore_hooks.storage._base import ClockReading, DeliveryQuery, HookChange, HookQuery
from procore_hooks.storage.sqlite import claiming, emit, history, hooks, indexing, settling, sweeping, turn
from procore_hooks.storage.sqlite.connection import Database
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

MODULES = (emit, indexing, claiming, settling, sweeping, turn, history, hooks)
# Names that stand for a whole table in a plan; the others are JSON or subqueries.
TABLES = {"d", "r", "e", "a", "q", "h", "t", "k"}
_SCAN = re.compile(r"SCAN (?P<table>\w+)(?: USING (?:COVERING )?INDEX (?P<index>\w+))?")
# A range of ids is a part of the table, of whatever hooks.
_ID_RANGE = re.compile(r"SEARCH (?P<table>\w+) USING INTEGER PRIMARY KEY \(rowid[<>]\?")

# What may walk a table or an index from its end, and why. Each is tried, so none is here for nothing.
SCANS = {
    "a list of all deliveries walks them newest first, and stops at its limit": (
        lambda sql, table, index: "ORDER BY d.id DESC" in sql and table == "d" and index is None
    ),
    "a list of all failures walks the index that holds nothing else, and stops at its limit": (
        lambda sql, table, index: "ORDER BY d.id DESC" in sql and index == "procore_hooks_deliveries_failing"
    ),
    "the index of queues that are being swept holds nothing else": (
        lambda sql, table, index: index == "procore_hooks_queues_sweep"
    ),
    "all that is to come moves when the clock is set, which is rare": lambda sql, table, index: ":by" in sql,
    "the table holds one row": lambda sql, table, index: table in ("procore_hooks_turns", "procore_hooks_matching"),
}
RANGES = {
    "a list of all deliveries goes on from its cursor, and stops at its limit": (
        lambda sql, table: "ORDER BY d.id DESC" in sql and "d.hook_id = ?" not in sql and table == "d"
    ),
    "pruning goes through all deliveries by id, outside of any transaction": (
        lambda sql, table: sql.startswith("SELECT id FROM procore_hooks_deliveries WHERE id > ? AND created_at < ?")
    ),
    "counting goes from the first delivery of the time, which is found among the quarters of an hour": (
        lambda sql, table: "state, count(*)" in sql and table in ("d", "procore_hooks_times")
    ),
    "the attempts of a delivery are those of a range of ids": lambda sql, table: table == "a",
    "what emits left out of the index of its hook lies at the end, and is never much": (
        lambda sql, table: table == "d" and "SELECT indexed_through FROM" in sql
    ),
    "a list of hooks goes on from its cursor, and stops at its limit": (
        lambda sql, table: table == "h" and "ORDER BY h.id LIMIT" in sql
    ),
}
SORTS = {
    "the hooks that match one event are sorted": lambda sql: "SELECT DISTINCT t.hook_id" in sql,
    "a recovery sorts what it finds": lambda sql: "GROUP BY d.event_id ORDER BY 1" in sql,
    "counting groups by status and bucket": lambda sql: "state, count(*)" in sql,
    "the triggers of one hook are sorted": lambda sql: "FROM procore_hooks_triggers" in sql and "hook_id = ?" in sql,
    "the attempts of one page, or of one delivery, are sorted": lambda sql: "procore_hooks_attempts a" in sql,
    "the rows of one prune are grouped by event": lambda sql: "AS gone" in sql,
    "rows given as JSON keep its order": lambda sql: "ORDER BY key" in sql or "ORDER BY j.key" in sql,
}


_ROWS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number})
INSERT INTO procore_hooks_{table} SELECT {columns} FROM n;
"""
MANY_ROWS = "".join(
    _ROWS.format(number=number, table=table, columns=columns)
    for table, number, columns in (
        ("hooks", 500, "i, 'a', 'u', '{}', i % 9, NULL, 0, 'active', 'keep', 'v4.0', 1, '[\"\"]', i, i, NULL, i"),
        ("queues", 500, "i, iif(i % 2, 0, NULL), i, 0, 0, 1, 1, 0, NULL, iif(i % 9, NULL, 5), 0, 0, NULL, NULL"),
        ("triggers", 500, "i, i, 'RFIs', 'update', '*', NULL"),
        ("events", 10_000, "i, i, 'RFIs', 'update', i, NULL, NULL, NULL, i, x'00', NULL, NULL, 1"),
        (
            "deliveries",
            20_000,
            "i, i % SERVED + 1, i / 2, i % 5, 1, i, i, iif(i % 20, NULL, i), iif(i % 30, NULL, i), NULL, NULL, "
            "iif(i % 90, NULL, 7), NULL, NULL",
        ),
        ("times", 500, "i + 9999, i"),
        ("requests", 500, "i, i, i"),
        ("attempts", 20_000, "i * 1048576 + 1, 0, i % 500, NULL, NULL, 200, NULL, NULL, NULL, i, i"),
        ("idempotency_keys", 5_000, "'k' || i, x'00', i, '[]', i"),
    )
)


class Recorder:
    """A cursor that notes each statement, and the line that runs it."""

    statements: dict[str, Any] = {}  # noqa: RUF012 - the fixture sets a new one
    lines: set[tuple[str, int]] = set()  # noqa: RUF012

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        frame = sys._getframe(1)
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        self.statements.setdefault(sql, parameters)
        return self._cursor.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class RecordingDatabase(Database):
    """A database whose cursors are recorders."""

    def _run(self, begin: str, work: Any, arguments: Any, wait: bool) -> Any:
        return super()._run(begin, lambda cursor: work(Recorder(cursor), *arguments), (), wait)


def every_list() -> list[DeliveryQuery]:
    """A query for each combination of filters."""
    choices: dict[str, tuple[Any, ...]] = {
        "hook_id": (None, 1),
        "statuses": (
            frozenset(),
            frozenset({"retrying", "failed", "discarded"}),
            frozenset({"failed"}),
            frozenset({"enqueued"}),
            frozenset({"delivered", "failed"}),
        ),
        "resource": (None, "RFIs"),
        "action": (None, "update"),
        "resource_id": (None, "7"),
        "start": (None, T0),
        "end": (None, T0),
        "before": (None, 500),
    }
    return [DeliveryQuery(**dict(zip(choices, values, strict=True))) for values in itertools.product(*choices.values())]


def do_everything(storage: SQLiteStorage) -> None:
    """Every verb, in each of its ways."""
    one = make.listening(storage, max_in_flight=50)
    other = make.listening(storage, ("RFIs", "*"), ("*", "*"), company_id="8")
    dropping = make.listening(storage, ("RFIs", "update"), status="disabled", when_disabled="drop")
    make.emit(storage, make.an_event("Drawings", company_id="8"), key="k")
    make.emit(storage, make.an_event("Drawings", company_id="8"), key="k")
    make.emit_many(storage, 9)
    taken = make.turn(storage).claims
    pausing = make.fails_and_pauses(taken[0], at(1), at(60))
    disabling = HookChange(disable=True)
    flushing = HookChange(flush_reason="flushed")
    settled = [make.given_up(claim, at(1)) for claim in taken[1:4]]
    make.turn(storage, pausing, *settled, make.put_off(taken[4], at(1), due_at=at(99)), now=at(1))
    make.turn(storage, now=at(200))  # leases run out
    storage.enable_hook(one.id, at(201))
    storage.add_ping(one.id, make.an_event(), at(202))
    (claim, *rest) = make.turn(storage, now=at(203)).claims
    make.turn(storage, make.given_up(claim, at(204), change=flushing), *map(make.accepted, rest), now=at(204))
    storage.enable_hook(one.id, at(205))
    make.emit(storage)
    (claim,) = (claim for claim in make.turn(storage, now=at(206)).claims if claim.hook.id == one.id)
    make.turn(storage, make.put_off(claim, at(207), change=disabling), now=at(207))
    storage.enable_hook(one.id, at(208))
    storage.update_hook(one.id, {"max_in_flight": 60}, at(208))
    storage.redeliver(make.history(storage, one.id, statuses=frozenset({"failed"}))[0].id, at(209))
    storage.recover(one.id, T0, at(209), at(209))
    for query in (HookQuery(), HookQuery(namespace="contract", company_id="8", project_id="6", status="active")):
        storage.list_hooks(query)
    storage.list_triggers(one.id, 0, 25)
    storage.replace_triggers(other.id, [("RFIs", "*"), ("Submittals", "create")])
    storage.delete_trigger(storage.list_triggers(other.id, 0, 1)[0].id)
    storage.get_delivery(1)
    storage.payload_version_of(one.id)
    for hook_id in (None, one.id):
        storage.count_deliveries(hook_id, T0)
        storage.count_in_buckets(hook_id, T0, timedelta(seconds=100), 3)
    make.emit_many(storage, 3)
    storage.disable_hook(dropping.id, at(210), "dropped")
    storage.delete_hook(one.id, at(211), "deleted")
    for statuses, before in ((frozenset(), 9), (frozenset(), None), (history._FAILING, None)):
        storage.list_deliveries(DeliveryQuery(statuses=statuses, before=before))
    storage.prune(T0 + timedelta(days=1))
    for days in (0, 1, 2):
        reading = ClockReading("steady", timedelta(days=days))
        make.turn(storage, now=at(220) + timedelta(days=days), capacity=0, reading=reading)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], set[tuple[str, int]]]:
    """Each statement that a storage runs, with parameters that it was run with, and the lines that run them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_storage, "Database", RecordingDatabase)
        storage = SQLiteStorage(tmp_path_factory.mktemp("recorded") / "hooks.db", durability="normal")
        # Not those that make the tables.
        patch.setattr(Recorder, "statements", {})
        patch.setattr(Recorder, "lines", set())
        do_everything(storage)
        storage.close()
        return Recorder.statements, Recorder.lines


@pytest.fixture(scope="module", params=["empty", "many hooks, analysed", "one hook, analysed"])
def planner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A connection to a file without rows and statistics, or with very many of one shape or another."""
    path = tmp_path_factory.mktemp("planned") / "hooks.db"
    SQLiteStorage(path, durability="normal").close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        if request.param != "empty":
            connection.executescript(MANY_ROWS.replace("SERVED", "500" if request.param.startswith("many") else "1"))
            connection.execute("ANALYZE")
        yield connection


def plan(planner: sqlite3.Connection, sql: str, parameters: Any) -> list[str]:
    return [row[3] for row in planner.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]


def trouble(planner: sqlite3.Connection, sql: str, parameters: Any, used: set[str]) -> list[str]:
    """The steps of a plan that look at a whole table or sort, unless they are listed; `used` gets the listed ones."""
    wrong = []
    for step in plan(planner, sql, parameters):
        reasons = None
        scan = _SCAN.match(step)
        if scan and (scan["table"] in TABLES or scan["table"].startswith("procore_hooks_")):
            reasons = {why for why, fits in SCANS.items() if fits(sql, scan["table"], scan["index"])}
        elif id_range := _ID_RANGE.match(step):
            reasons = {why for why, fits in RANGES.items() if fits(sql, id_range["table"])}
        elif "TEMP B-TREE" in step:
            reasons = {why for why, fits in SORTS.items() if fits(sql)}
        elif "AUTOMATIC" in step:
            reasons = set()
        if reasons is not None:
            used |= reasons
            if not reasons:
                wrong.append(f"{step}   IN   {' '.join(sql.split())}")
    return wrong


def test_every_statement_finds_its_rows_by_an_index(
    planner: sqlite3.Connection, recorded: tuple[dict[str, Any], set[tuple[str, int]]]
) -> None:
    """No statement of any verb looks at a whole table, or sorts, but for those that are listed with their reasons."""
    used: set[str] = set()
    wrong = [problem for sql, p in recorded[0].items() for problem in trouble(planner, sql, p, used)]
    assert wrong == [], "\n".join(wrong)
    assert used == SCANS.keys() | RANGES.keys() | SORTS.keys()


def test_every_statement_was_looked_at(recorded: tuple[dict[str, Any], set[tuple[str, int]]]) -> None:
    """The test above has seen each statement of each module: every constant, and every line that executes one."""
    statements, lines = recorded
    constants = {
        f"{module.__name__}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, str) and value.lstrip().startswith(("SELECT", "UPDATE", "INSERT", "DELETE"))
    }
    templates = {"history._SELECT", "history._ATTEMPTS", "emit._WAKE"}
    unseen = [name for name, sql in constants.items() if sql not in statements]
    assert {".".join(name.split(".")[-2:]) for name in unseen} == templates
    missed = [
        f"{Path(str(module.__file__)).name}:{node.lineno}"
        for module in MODULES
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if is_execute(node) and not any((module.__file__, line) in lines for line in lines_of(node))
        # These run on a connection of the caller.
        if not within(module, node, {"driver_connection", "savepoint"})
    ]
    assert missed == []


def is_execute(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "execute"


def lines_of(node: ast.AST) -> range:
    assert isinstance(node, ast.Call)
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def within(module: ModuleType, node: ast.AST, names: set[str]) -> bool:
    assert isinstance(node, ast.Call)
    functions = (one for one in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(one, ast.FunctionDef))
    return any(one.name in names and one.lineno <= node.lineno <= (one.end_lineno or one.lineno) for one in functions)


def test_lists_with_every_combination_of_filters(planner: sqlite3.Connection) -> None:
    """A list reads deliveries newest first by an index, and never sorts; failures are read by the index that holds
    nothing else, and those of a hook by the one of the hook.
    """
    for query in every_list():
        if history._is_by_hook(query):
            sql, parameters = history._list_statement(query, is_indexed=False)
            assert trouble(planner, sql, parameters, set()) == []
            steps = plan(planner, sql, parameters)
            assert any(re.match(r"SEARCH d USING INTEGER PRIMARY KEY \(rowid>\?", step) for step in steps), (
                query,
                steps,
            )
        sql, parameters = history._list_statement(query)
        assert trouble(planner, sql, parameters, set()) == []
        steps = plan(planner, sql, parameters)
        assert not any("TEMP B-TREE" in step for step in steps)
        failing = bool(query.statuses) and query.statuses <= {"retrying", "failed", "discarded"}
        if failing and query.hook_id is not None:
            assert any("SEARCH d USING INDEX procore_hooks_deliveries_failing_of_hook (hook_id=?" in s for s in steps)
        elif failing:
            assert any(re.search(r"(SCAN|SEARCH) d USING INDEX procore_hooks_deliveries_failing\b", s) for s in steps)
        elif query.hook_id is not None:
            assert any("SEARCH d USING INDEX procore_hooks_deliveries_hook (hook_id=?" in step for step in steps)
        if query.before is not None:
            by_id = r"SEARCH d USING .*(rowid|\bid)<\?"
            assert any(re.search(by_id, step) for step in steps), (query, steps)


def test_counts_begin_where_the_time_begins(
    planner: sqlite3.Connection, recorded: tuple[dict[str, Any], set[tuple[str, int]]]
) -> None:
    """A count, in buckets or not, reads a range of ids, of one hook or of all, and finds its first by the hour."""
    counts = {sql: parameters for sql, parameters in recorded[0].items() if "count(*)" in sql and ":since" in sql}
    assert len(counts) == 4
    for sql, parameters in counts.items():
        deliveries, times, *unindexed = (s for s in plan(planner, sql, parameters) if s.startswith("SEARCH"))
        of_hook = "SEARCH d USING INDEX procore_hooks_deliveries_hook (hook_id=? AND id>?)"
        of_all = "SEARCH d USING INTEGER PRIMARY KEY (rowid>?)"
        assert deliveries == (of_hook if ":hook" in sql else of_all)
        assert times == "SEARCH procore_hooks_times USING INTEGER PRIMARY KEY (rowid>?)"
        assert unindexed == ([of_all] if ":hook" in sql else [])
