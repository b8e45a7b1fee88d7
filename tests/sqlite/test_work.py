"""What a call costs does not depend on what it has nothing to do with.

Work is counted in instructions of SQLite's machine, so a busy computer changes nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from procore_hooks import Hook, SQLiteStorage
from procore_hooks._core.claims import Claim, Settlement
from procore_hooks.storage._base import DeliveryQuery
from procore_hooks.storage.sqlite.quarters import Quarters
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

Steps = Callable[[SQLiteStorage, Callable[[], object]], int]
MOST = 1.5
HOUR = timedelta(hours=1)
LONG_AGO = T0 - timedelta(days=99_999)

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :number)"
_EVENTS = f"""
{_NUMBERS} INSERT INTO procore_hooks_events
SELECT i + (SELECT coalesce(max(id), 0) + 1000000 FROM procore_hooks_events), printf('%026d', i), 'RFIs', 'update',
    NULL, NULL, NULL, NULL, 1, x'6E756C6C', NULL, NULL, 1 FROM n
"""
_DELIVERIES = f"""
{_NUMBERS} INSERT INTO procore_hooks_deliveries (hook_id, event_id, state, attempt_count, created_at)
SELECT :first + i % :hooks, (SELECT max(id) FROM procore_hooks_events) - :number + 1 + i, :state, 0, 1 FROM n
"""
_MORE_HOOKS = (
    f"""{_NUMBERS} INSERT INTO procore_hooks_hooks SELECT i + (SELECT max(id) + 1 FROM procore_hooks_hooks), namespace,
    destination_url, destination_headers, company_id, project_id, include_projects, status, when_disabled,
    payload_version, max_in_flight, signing_secrets, created_at, updated_at, deleted_at, version
    FROM n, procore_hooks_hooks WHERE id = :first""",
    """INSERT INTO procore_hooks_queues (hook_id, max_in_flight, enabled)
    SELECT id, max_in_flight, 1 FROM procore_hooks_hooks WHERE id > (SELECT max(hook_id) FROM procore_hooks_queues)""",
    """INSERT INTO procore_hooks_triggers (hook_id, resource, action, scope)
    SELECT id, 'RFIs', 'update', 'p:' || id FROM procore_hooks_hooks
    WHERE id > (SELECT max(hook_id) FROM procore_hooks_triggers)""",
)


class Bulk:
    """Rows by the thousand, by SQL of the test's own."""

    def __init__(self, storage: SQLiteStorage, path: Path) -> None:
        self._storage, self._path = storage, path

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[sqlite3.Cursor]:
        with contextlib.closing(sqlite3.connect(self._path)) as connection, connection:
            yield connection.cursor()

    def hooks(self, number: int, max_in_flight: int = 1) -> Hook:
        """So many hooks, each for its own project; returns the first, whose id the others' follow."""
        first = self._storage.add_hook(make.a_hook(max_in_flight=max_in_flight))
        self._storage.add_trigger(first.id, "RFIs", "update")
        with self._cursor() as cursor:
            for statement in _MORE_HOOKS if number > 1 else ():
                cursor.execute(statement, {"number": number - 1, "first": first.id})
            cursor.execute("UPDATE procore_hooks_triggers SET scope = 'p:' || hook_id WHERE hook_id = ?", (first.id,))
        return first

    def deliveries(self, hook: Hook, number: int, hooks: int = 1, state: int = 0) -> None:
        """So many deliveries, shared out among a hook and those that follow it."""
        with self._cursor() as cursor:
            Quarters().note(cursor, 1)
            cursor.execute(_EVENTS, {"number": number})
            cursor.execute(_DELIVERIES, {"number": number, "first": hook.id, "hooks": hooks, "state": state})
            if state == 0:
                cursor.execute(
                    "UPDATE procore_hooks_queues SET ready_at = 0 WHERE hook_id BETWEEN ? AND ?",
                    (hook.id, hook.id + hooks - 1),
                )

    def pause(self, hook: Hook, hooks: int = 1) -> None:
        with self._cursor() as cursor:
            cursor.execute(
                """UPDATE procore_hooks_queues SET failures = 3, failing_since = 1, paused_until = :until,
                ready_at = iif(ready_at IS NULL, NULL, :until) WHERE hook_id BETWEEN :first AND :last""",
                {"until": 10**17, "first": hook.id, "last": hook.id + hooks - 1},
            )


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], tuple[SQLiteStorage, Bulk]]]:
    with contextlib.ExitStack() as stack:

        def open_one(name: str) -> tuple[SQLiteStorage, Bulk]:
            storage = SQLiteStorage(tmp_path / f"{name}.db", durability="normal")
            stack.callback(storage.close)
            return storage, Bulk(storage, tmp_path / f"{name}.db")

        yield open_one


def work_of_a_turn(storage: SQLiteStorage, steps_of: Steps) -> int:
    """What it costs to settle 64 and claim 64."""
    first = make.turn(storage, capacity=64)
    assert len(first.claims) == 64
    settlements = [make.accepted(claim, at(1)) for claim in first.claims]
    claimed: list[int] = []
    work = steps_of(storage, lambda: claimed.extend(make.ids(make.turn(storage, *settlements, now=at(1), capacity=64))))
    assert len(claimed) == 64
    return work


@pytest.mark.parametrize(("hooks", "max_in_flight"), [(100, 1), (1, 64), (64, 10)])
def test_a_turn_whatever_waits(
    opened: Callable[[str], tuple[SQLiteStorage, Bulk]], steps_of: Steps, hooks: int, max_in_flight: int
) -> None:
    """A turn of 64 costs the same with 1,000 waiting and with 100,000, in one queue and in many."""
    work = {}
    for waiting in (1_000, 100_000):
        storage, bulk = opened(str(waiting))
        bulk.deliveries(bulk.hooks(hooks, max_in_flight), waiting, hooks)
        work[waiting] = work_of_a_turn(storage, steps_of)
    assert work[100_000] <= MOST * work[1_000]


@pytest.mark.parametrize(("hooks", "max_in_flight"), [(64, 1), (1, 64)])
def test_a_turn_after_many_others(
    opened: Callable[[str], tuple[SQLiteStorage, Bulk]], steps_of: Steps, hooks: int, max_in_flight: int
) -> None:
    """A turn of 64 costs the same whether none of a backlog has gone out yet or half of it: no turn walks over what the
    turns before it took.
    """
    work = {}
    for gone in (0, 100):
        storage, bulk = opened(str(gone))
        bulk.deliveries(bulk.hooks(hooks, max_in_flight), 64 * 200, hooks)
        settlements: list[Settlement] = []
        for _ in range(gone):
            claims = make.turn(storage, *settlements, capacity=64).claims
            settlements = [make.accepted(claim) for claim in claims]
            assert len(settlements) == 64
        make.turn(storage, *settlements, capacity=0)
        work[gone] = work_of_a_turn(storage, steps_of)
    assert work[100] <= MOST * work[0]


@pytest.mark.parametrize("others", ["empty", "paused", "paused and waiting", "waiting for later", "disabled"])
def test_a_turn_beside_other_hooks(
    opened: Callable[[str], tuple[SQLiteStorage, Bulk]], steps_of: Steps, others: str
) -> None:
    """A turn of 64 costs the same beside 10 hooks that have nothing for it and beside 5,000."""
    work = {}
    for number in (10, 5_000):
        storage, bulk = opened(str(number))
        quiet = bulk.hooks(number)
        if others not in ("empty", "paused"):
            bulk.deliveries(quiet, 2 * number, number)
        if others.startswith("paused"):
            bulk.pause(quiet, number)
        with bulk._cursor() as cursor:
            if others == "waiting for later":
                cursor.execute("UPDATE procore_hooks_deliveries SET state = 1, due_at = 100000000000000000")
                cursor.execute("UPDATE procore_hooks_queues SET ready_at = 100000000000000000, head = 1000000")
            elif others == "disabled":
                cursor.execute("UPDATE procore_hooks_queues SET enabled = 0, ready_at = NULL")
        bulk.deliveries(bulk.hooks(100), 1_000, 100)
        work[number] = work_of_a_turn(storage, steps_of)
    assert work[5_000] <= MOST * work[10]


def test_a_queue_that_is_full_and_calls_itself_ready(
    opened: Callable[[str], tuple[SQLiteStorage, Bulk]],
) -> None:
    """Of a hook with all that it may have in flight nothing is claimed, even where its row says that it is ready; after
    that it says so no more.
    """
    storage, bulk = opened("full")
    bulk.deliveries(bulk.hooks(1), 3)
    assert len(make.turn(storage).claims) == 1
    with bulk._cursor() as cursor:
        cursor.execute("UPDATE procore_hooks_queues SET ready_at = 0")
    assert make.turn(storage).claims == ()
    with bulk._cursor() as cursor:
        assert cursor.execute("SELECT ready_at, in_flight FROM procore_hooks_queues").fetchone() == (None, 1)


def test_a_queue_that_calls_itself_ready_for_what_is_over(
    opened: Callable[[str], tuple[SQLiteStorage, Bulk]],
) -> None:
    """A head that lags behind rows that are over is moved past them, and their queue says that it is ready no more."""
    storage, bulk = opened("over")
    bulk.deliveries(bulk.hooks(1), 3, state=2)
    with bulk._cursor() as cursor:
        cursor.execute("UPDATE procore_hooks_queues SET ready_at = 0")
    assert make.turn(storage).claims == ()
    with bulk._cursor() as cursor:
        assert cursor.execute("SELECT ready_at, head FROM procore_hooks_queues").fetchone() == (None, 3)


def test_a_lone_event_takes_few_statements(
    storage: SQLiteStorage, connection_of: Callable[[SQLiteStorage], sqlite3.Connection]
) -> None:
    """The turn after an emit does not look first whether there is something to do, nor for more than the one that
    waits; the turn after that looks, and writes nothing.
    """
    make.listening(storage, max_in_flight=50)
    asked: list[str] = []

    def statements_of_a_turn(*settlements: Settlement) -> list[str]:
        asked.clear()
        connection_of(storage).set_trace_callback(lambda sql: asked.append(sql.split()[0]))
        claims.extend(make.turn(storage, *settlements, now=at(len(claims))).claims)
        connection_of(storage).set_trace_callback(None)
        return list(asked)

    claims: list[Claim] = []
    make.emit(storage)
    first = statements_of_a_turn()
    assert len(claims) == 1
    # The index, what there is to do, which queues, which hook, the delivery, the queue; after that the event. Later
    # without the hook, which is known then.
    assert first == ["BEGIN", "UPDATE", "UPDATE", "SELECT", "SELECT", "UPDATE", "UPDATE", "COMMIT", "SELECT"]
    statements_of_a_turn(make.accepted(claims[0]))
    make.emit(storage)
    assert statements_of_a_turn() == ["BEGIN", "UPDATE", "UPDATE", "SELECT", "UPDATE", "UPDATE", "COMMIT", "SELECT"]
    assert len(claims) == 2
    assert statements_of_a_turn() == ["SELECT"]


def test_turns_that_may_not_wait_say_so_once(
    storage: SQLiteStorage, connection_of: Callable[[SQLiteStorage], sqlite3.Connection]
) -> None:
    """Of the turns that one thread takes without waiting, the first alone sets up the connection for it."""
    make.listening(storage)
    make.emit(storage)
    connection = connection_of(storage)
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    (claim,) = make.turn(storage, wait=False).claims
    assert [sql for sql in asked if sql.startswith("PRAGMA")] == ["PRAGMA busy_timeout = 0"]
    asked.clear()
    make.turn(storage, make.accepted(claim), wait=False)
    make.turn(storage, wait=False)
    connection.set_trace_callback(None)
    assert "COMMIT" in asked
    assert not [sql for sql in asked if sql.startswith("PRAGMA")]


def test_a_turn_beside_one_paused_hook_with_very_many(
    opened: Callable[[str], tuple[SQLiteStorage, Bulk]], steps_of: Steps
) -> None:
    """A turn of 64 costs the same beside a paused hook with 10 waiting and beside one with 50,000."""
    work = {}
    for waiting in (10, 50_000):
        storage, bulk = opened(str(waiting))
        paused = bulk.hooks(1)
        bulk.deliveries(paused, waiting)
        bulk.pause(paused)
        bulk.deliveries(bulk.hooks(100), 1_000, 100)
        work[waiting] = work_of_a_turn(storage, steps_of)
    assert work[50_000] <= MOST * work[10]


@pytest.mark.parametrize("analysed", [False, True])
def test_an_emit_beside_hooks_that_do_not_match(
    opened: Callable[[str], tuple[SQLiteStorage, Bulk]], steps_of: Steps, analysed: bool
) -> None:
    """An emit that one hook wants costs the same beside 10 hooks of other scopes and beside 10,000, also when SQLite
    knows their statistics.
    """
    work = {}
    for number in (10, 10_000):
        storage, bulk = opened(str(number))
        bulk.hooks(number)
        make.listening(storage, company_id="8")
        with bulk._cursor() as cursor:
            # All alike, which is what could mislead.
            cursor.execute("UPDATE procore_hooks_triggers SET scope = 'p:1' WHERE scope <> 'c:8'")
            cursor.execute("ANALYZE" if analysed else "SELECT 1")
        make.emit(storage, make.an_event(company_id="8"))
        ids: list[int] = []
        event = make.an_event(company_id="8")
        work[number] = steps_of(
            storage,
            lambda storage=storage, event=event, ids=ids: ids.extend(  # type: ignore[misc]
                make.emit(storage, event).delivery_ids
            ),
        )
        assert len(ids) == 1
    assert work[10_000] <= MOST * work[10]


@pytest.mark.parametrize("of_a_hook", [False, True])
def test_a_page_of_failures(
    opened: Callable[[str], tuple[SQLiteStorage, Bulk]], steps_of: Steps, of_a_hook: bool
) -> None:
    """A page of failures costs the same among 1,000 deliveries and among 100,000, the first and one in the middle."""
    work = {}
    for number in (1_000, 100_000):
        storage, bulk = opened(str(number))
        hook = bulk.hooks(2)
        # One in ten failed; in the newest thousand none did.
        bulk.deliveries(hook, number // 10, 2, state=3)
        bulk.deliveries(hook, number * 9 // 10, 2, state=2)
        with bulk._cursor() as cursor:
            failed = cursor.execute("SELECT id FROM procore_hooks_deliveries WHERE state = 3 ORDER BY id").fetchall()
        first = DeliveryQuery(
            statuses=frozenset({"retrying", "failed", "discarded"}), hook_id=hook.id if of_a_hook else None
        )
        for name, query in (("first", first), ("middle", attrs.evolve(first, before=failed[len(failed) * 2 // 3][0]))):
            found: list[object] = []
            work[name, number] = steps_of(
                storage,
                lambda query=query, found=found, storage=storage: found.extend(  # type: ignore[misc]
                    storage.list_deliveries(query)
                ),
            )
            assert len(found) == 25
    assert work["first", 100_000] <= MOST * work["first", 1_000]
    assert work["middle", 100_000] <= MOST * work["middle", 1_000]
    assert work["middle", 100_000] <= MOST * work["first", 100_000]


@pytest.mark.parametrize("of_a_hook", [False, True])
def test_counts_of_a_day(opened: Callable[[str], tuple[SQLiteStorage, Bulk]], steps_of: Steps, of_a_hook: bool) -> None:
    """To count the last hours, in buckets or not, costs the same after 1,000 older deliveries and after 100,000."""
    work = {}
    for number in (1_000, 100_000):
        storage, bulk = opened(str(number))
        hook = bulk.hooks(2)
        bulk.deliveries(hook, number, 2, state=2)
        make.listening(storage)
        make.emit_many(storage, 100)
        hook_id = hook.id if of_a_hook else None
        work["all", number] = steps_of(
            storage,
            lambda storage=storage, hook_id=hook_id: storage.count_deliveries(hook_id, T0),  # type: ignore[misc]
        )
        work["buckets", number] = steps_of(
            storage,
            lambda storage=storage, hook_id=hook_id: storage.count_in_buckets(  # type: ignore[misc]
                hook_id, T0 - 2 * HOUR, HOUR, 3
            ),
        )
        assert storage.count_in_buckets(None, T0 - 2 * HOUR, HOUR, 3) == [{}, {}, {"enqueued": 100}]
    assert work["all", 100_000] <= MOST * work["all", 1_000]
    assert work["buckets", 100_000] <= MOST * work["buckets", 1_000]


def test_a_turn_when_others_have_analysed(opened: Callable[[str], tuple[SQLiteStorage, Bulk]], steps_of: Steps) -> None:
    """Statistics of a file in which one hook has nearly all mislead no turn: that of other hooks costs the same."""
    work = {}
    for analysed in (False, True):
        storage, bulk = opened(str(analysed))
        busy = bulk.hooks(100)
        bulk.deliveries(busy, 20_000, state=2)
        if analysed:
            with bulk._cursor() as cursor:
                cursor.execute("ANALYZE")
        bulk.deliveries(bulk.hooks(100), 1_000, 100)
        bulk.deliveries(busy, 20_000, state=2)
        work[analysed] = work_of_a_turn(storage, steps_of)
    assert work[True] <= MOST * work[False]


def test_the_count_counts(opened: Callable[[str], tuple[SQLiteStorage, Bulk]], steps_of: Steps) -> None:
    """The measure of these tests sees work that does grow: counting all deliveries."""
    work = {}
    for number in (1_000, 10_000):
        storage, bulk = opened(str(number))
        bulk.deliveries(bulk.hooks(1), number)
        work[number] = steps_of(
            storage,
            lambda storage=storage: storage.count_deliveries(None, LONG_AGO),  # type: ignore[misc]
        )
    assert work[10_000] > 5 * work[1_000]
