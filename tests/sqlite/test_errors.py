"""What goes wrong in SQLite is told as an error of ours, and nothing is half done."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from procore_hooks import (
    ProcoreHooksError,
    SQLiteStorage,
    StorageBusy,
    StorageCorrupt,
    StorageError,
    StorageFull,
)
from procore_hooks.storage._base import ClockReading, DeliveryQuery, EmitRequest, HookQuery
from procore_hooks.storage.sqlite.connection import storage_error
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

Rows = Callable[..., list[Any]]
LATER = T0 + timedelta(days=1)

# Delivery 1 of hook 1 failed, delivery 2 waits; delivery 3 of hook 1 is of the test.
WRITES: dict[str, Callable[[SQLiteStorage], object]] = {
    "add_hook": lambda s: s.add_hook(make.a_hook()),
    "update_hook": lambda s: s.update_hook(1, {"namespace": "other"}, T0),
    "enable_hook": lambda s: s.enable_hook(1, T0),
    "disable_hook": lambda s: s.disable_hook(1, T0, "dropped"),
    "delete_hook": lambda s: s.delete_hook(1, T0, "deleted"),
    "add_trigger": lambda s: s.add_trigger(1, "Submittals", "create"),
    "delete_trigger": lambda s: s.delete_trigger(1),
    "replace_triggers": lambda s: s.replace_triggers(1, [("Submittals", "create")]),
    "emit": lambda s: make.emit(s),
    "add_ping": lambda s: s.add_ping(1, make.an_event(), T0),
    "redeliver": lambda s: s.redeliver(1, T0),
    "recover": lambda s: s.recover(1, T0, LATER, LATER),
    "prune": lambda s: s.prune(LATER),
    "turn": lambda s: make.turn(s, now=at(5)),
}
READS: dict[str, Callable[[SQLiteStorage], object]] = {
    "get_hook": lambda s: s.get_hook(1),
    "list_hooks": lambda s: s.list_hooks(HookQuery()),
    "list_triggers": lambda s: s.list_triggers(1, 0, 25),
    "list_deliveries": lambda s: s.list_deliveries(DeliveryQuery()),
    "get_delivery": lambda s: s.get_delivery(1),
    "payload_version_of": lambda s: s.payload_version_of(1),
    "count_deliveries": lambda s: s.count_deliveries(None, T0),
    "count_in_buckets": lambda s: s.count_in_buckets(None, T0, LATER - T0, 3),
    "turn": lambda s: make.turn(s, now=at(5), capacity=0, reading=ClockReading("not heard of yet", timedelta(0))),
}
CALLS = READS | WRITES


def prepare(storage: SQLiteStorage) -> None:
    """A hook with a failed delivery and one that waits."""
    make.listening(storage)
    make.emit_many(storage, 2)
    (claim,) = make.turn(storage).claims
    make.turn(storage, make.given_up(claim), capacity=0)


@pytest.fixture
def dump(path: Path) -> Callable[[], list[str]]:
    """All rows of all tables."""

    def read() -> list[str]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return list(connection.iterdump())

    return read


# Busy


@pytest.fixture
def impatient(path: Path) -> Iterator[SQLiteStorage]:
    storage = SQLiteStorage(path, durability="normal", busy_timeout=0.02)
    prepare(storage)
    yield storage
    storage.close()


@pytest.mark.parametrize("call", WRITES)
def test_a_file_that_others_keep_locked(
    impatient: SQLiteStorage, outside: sqlite3.Connection, dump: Callable[[], list[str]], call: str
) -> None:
    """A write that waits longer than `busy_timeout` is `StorageBusy` and stores nothing; afterwards it works."""
    before = dump()
    outside.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageBusy, match="stayed locked by another connection; is a long transaction open"):
        WRITES[call](impatient)
    outside.execute("ROLLBACK")
    assert dump() == before
    WRITES[call](impatient)
    assert dump() != before


def test_a_turn_that_may_not_wait(
    storage: SQLiteStorage,
    outside: sqlite3.Connection,
    dump: Callable[[], list[str]],
    connection_of: Callable[[SQLiteStorage], sqlite3.Connection],
) -> None:
    """Without `wait` a turn that finds the file locked is `StorageBusy` at once, whatever `busy_timeout` is, and has
    done nothing; a call that comes after it waits again for as long as it is to.
    """
    make.listening(storage)
    make.emit(storage)
    before = dump()
    outside.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(StorageBusy):
        make.turn(storage, wait=False)
    assert time.monotonic() - began < 10  # of the 30 that others wait
    outside.execute("ROLLBACK")
    assert dump() == before
    assert len(make.turn(storage, wait=False).claims) == 1
    assert connection_of(storage).execute("PRAGMA busy_timeout").fetchone() == (30_000,)


def test_who_waits_after_a_turn_that_did_not(path: Path, outside: sqlite3.Connection) -> None:
    """A write, in the thread of a turn that was not to wait, waits for as long as it is to."""
    with contextlib.closing(SQLiteStorage(path, busy_timeout=0.2)) as storage:
        make.listening(storage)
        make.emit(storage)
        assert len(make.turn(storage, wait=False).claims) == 1
        outside.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(StorageBusy):
            make.emit(storage)
        assert time.monotonic() - began >= 0.15
        outside.execute("ROLLBACK")


def test_a_turn_that_may_not_wait_and_has_claimed(storage: SQLiteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where events can be read only after waiting, which is so while another process mends the WAL after a crash, a
    turn that was not to wait does so all the same: else what it claimed would be nobody's until the lease ends.
    """
    read = storage._database.read

    def busy_at_once(*arguments: Any, wait: bool = True) -> Any:
        if not wait:
            raise StorageBusy("the WAL is being mended")
        return read(*arguments)

    make.listening(storage)
    make.emit(storage)
    monkeypatch.setattr(storage._database, "read", busy_at_once)
    assert len(make.turn(storage, wait=False).claims) == 1


def test_a_turn_that_may_not_wait_without_a_wal(path: Path) -> None:
    """Without a WAL who writes waits for who reads, so such a turn is `StorageBusy` whoever else is there."""
    with contextlib.closing(SQLiteStorage(path, journal_mode="delete")) as storage:
        make.listening(storage)
        make.emit(storage)
        with pytest.raises(StorageBusy, match="has no WAL"):
            make.turn(storage, wait=False)
        assert len(make.turn(storage).claims) == 1


@pytest.mark.parametrize("call", READS)
def test_reading_beside_a_writer(impatient: SQLiteStorage, outside: sqlite3.Connection, call: str) -> None:
    """With a WAL, reading waits for nobody, nor does a turn that has nothing to do."""
    outside.execute("BEGIN EXCLUSIVE")
    READS[call](impatient)
    outside.execute("ROLLBACK")


@pytest.mark.parametrize("call", READS)
def test_reading_a_locked_file_without_a_wal(path: Path, call: str) -> None:
    """Without a WAL a reader waits for a writer, and no longer than `busy_timeout`."""
    storage = SQLiteStorage(path, journal_mode="delete", busy_timeout=0.02)
    prepare(storage)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageBusy):
            READS[call](storage)
        other.execute("ROLLBACK")
    READS[call](storage)
    storage.close()


def test_a_commit_that_finds_a_reader(path: Path, dump: Callable[[], list[str]]) -> None:
    """Without a WAL a commit waits for readers; if it has to give up, nothing of the transaction stays."""
    storage = SQLiteStorage(path, journal_mode="delete", busy_timeout=0.02)
    prepare(storage)
    before = dump()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM procore_hooks_hooks").fetchall()
        with pytest.raises(StorageBusy):
            make.emit(storage)
        other.execute("ROLLBACK")
    assert dump() == before
    make.emit(storage)
    storage.close()


def test_opening_a_locked_file(path: Path) -> None:
    """A new file that another connection keeps locked is `StorageBusy`, and can be opened afterwards."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageBusy):
            SQLiteStorage(path, busy_timeout=0.02)
        other.execute("ROLLBACK")
    SQLiteStorage(path).close()


# Full


@pytest.mark.parametrize("call", ["emit", "add_hook", "turn"])
def test_a_file_that_may_not_grow(
    storage: SQLiteStorage,
    connection_of: Callable[[SQLiteStorage], sqlite3.Connection],
    dump: Callable[[], list[str]],
    call: str,
) -> None:
    """What does not fit is `StorageFull`; nothing of it is stored, and with room it works."""
    make.listening(storage, max_in_flight=1000)
    ids = make.emit_many(storage, 100)
    claims = make.turn(storage).claims
    big = b"x" * 200_000
    calls: dict[str, Callable[[], object]] = {
        "emit": lambda: storage.emit(
            [EmitRequest(event=make.an_event()), EmitRequest(event=make.an_event(payload_json=big))], T0, None
        ),
        "add_hook": lambda: storage.add_hook(make.a_hook(destination_url="https://hooks.example/" + "x" * 200_000)),
        "turn": lambda: make.turn(storage, _recorded(claims[0], big), *map(make.accepted, claims[1:])),
    }
    connection = connection_of(storage)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    before = dump()
    with pytest.raises(StorageFull, match="no space is left") as caught:
        calls[call]()
    assert isinstance(caught.value, OSError)
    assert dump() == before
    connection.execute("PRAGMA max_page_count = 1000000")
    calls[call]()
    assert dump() != before
    if call == "turn":
        assert set(make.statuses(storage, ids)) == {"delivered"}
        assert storage.get_delivery(claims[0].delivery_id).attempts[0].response_body == big


def _recorded(claim: Any, body: bytes) -> Any:
    settlement = make.accepted(claim)
    return attrs.evolve(settlement, attempt=attrs.evolve(settlement.attempt, response_body=body))


LIMITED = """
import resource, sys
from procore_hooks import SQLiteStorage, StorageFull
from procore_hooks.storage._base import EmitRequest
from procore_hooks.testing import _contract_values as make
storage = SQLiteStorage(sys.argv[1], journal_mode=sys.argv[2])
make.listening(storage)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
stored, refused = 0, []
for _ in range(400):
    try:
        make.emit(storage, make.an_event(payload_json=b"x" * 5_000))
        stored += 1
    except StorageFull as error:
        refused.append(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
make.emit(storage, make.an_event(payload_json=b"x" * 5_000))
storage.close()
print(stored + 1, len(refused))
"""


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_limit_on_the_size_of_files(path: Path, rows: Rows, journal_mode: str) -> None:
    """Under RLIMIT_FSIZE each emit is stored whole or is `StorageFull`; once it is lifted, the file is sound."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), journal_mode], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    stored, refused = map(int, done.stdout.split())
    assert refused > 0
    assert stored > 10
    assert rows("PRAGMA integrity_check") == [("ok",)]
    assert rows("SELECT count(*), count(DISTINCT event_id) FROM procore_hooks_deliveries") == [(stored, stored)]
    assert rows("SELECT count(*) FROM procore_hooks_events") == [(stored,)]


NO_ROOM_AT_ALL = """
import resource, sys
from procore_hooks import SQLiteStorage, StorageFull
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
try:
    SQLiteStorage(sys.argv[1])
except StorageFull:
    print("full")
"""


@pytest.mark.parametrize("limit", [0, 8_192, 20_000])
def test_no_room_to_open(path: Path, limit: int) -> None:
    """A new file for which there is no room is `StorageFull`, and opens once there is."""
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM_AT_ALL, str(path), str(limit)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "full\n", done.stderr
    SQLiteStorage(path).close()


# Damaged


@pytest.mark.parametrize("call", CALLS)
def test_a_damaged_file(path: Path, call: str) -> None:
    """Pages that hold nonsense are `StorageCorrupt`, which names the file, in whatever call meets them."""
    storage = SQLiteStorage(path, journal_mode="delete")
    prepare(storage)
    storage.close()
    content = path.read_bytes()
    size = 4096
    # The schema, in the first pages, is left: a file without it is no database at all.
    kept = _pages_of_the_schema(path)
    pages = [
        content[n * size : (n + 1) * size] if n + 1 in kept else b"\xa5" * size for n in range(len(content) // size)
    ]
    path.write_bytes(b"".join(pages))
    storage = SQLiteStorage(path, journal_mode="delete")
    with pytest.raises(StorageCorrupt, match=f"^{path} is not an SQLite database, or a damaged one"):
        CALLS[call](storage)
    storage.close()


def _pages_of_the_schema(path: Path) -> set[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        root = "SELECT rootpage FROM sqlite_schema WHERE name = 'procore_hooks_schema'"
        (version_page,) = connection.execute(root).fetchone()
        first_table = connection.execute("SELECT min(rootpage) FROM sqlite_schema WHERE rootpage > 0").fetchone()[0]
        try:
            pages = {r[0] for r in connection.execute("SELECT pageno FROM dbstat WHERE name = 'sqlite_schema'")}
        except sqlite3.OperationalError:
            # Not every SQLite tells: the schema's own pages lie among the first and at no root.
            roots = {row[0] for row in connection.execute("SELECT rootpage FROM sqlite_schema")}
            total = connection.execute("PRAGMA page_count").fetchone()[0]
            pages = set(range(1, first_table)) | (set(range(1, total + 1)) - roots)
    return pages | {version_page}


def test_a_file_cut_short(path: Path) -> None:
    """A file whose end is missing is an error of ours."""
    storage = SQLiteStorage(path, journal_mode="delete")
    prepare(storage)
    storage.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)

    def open_and_list() -> None:
        with contextlib.closing(SQLiteStorage(path, journal_mode="delete")) as storage:
            storage.list_deliveries(DeliveryQuery())

    with pytest.raises(StorageCorrupt):
        open_and_list()


# Closed, and all the rest


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_storage(storage: SQLiteStorage, call: str) -> None:
    """Every call says that the storage is closed, and which one."""
    prepare(storage)
    storage.close()
    with pytest.raises(StorageError, match=r"the storage of .*hooks\.db is closed") as caught:
        CALLS[call](storage)
    assert type(caught.value) is StorageError


@pytest.mark.parametrize("call", CALLS)
def test_tables_that_are_gone(storage: SQLiteStorage, rows: Rows, call: str) -> None:
    """Where somebody dropped the tables, the error is ours and says which one is missing."""
    prepare(storage)
    for (name,) in rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'procore_hooks_%'"):
        rows(f"DROP TABLE {name}")
    with pytest.raises(StorageError, match="no such table: procore_hooks_"):
        CALLS[call](storage)


def test_an_emit_in_a_callers_transaction_that_fails(storage: SQLiteStorage, path: Path) -> None:
    """On a caller's connection too: closed, locked or read-only, the error is ours, and its transaction lives on."""
    make.listening(storage)
    request = [EmitRequest(event=make.an_event())]
    closed = sqlite3.connect(path)
    closed.close()
    with pytest.raises(StorageError, match="closed"):
        storage.emit(request, T0, closed)
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as caller:

        def emit_meanwhile(cursor: sqlite3.Cursor) -> None:
            with pytest.raises(StorageBusy):
                storage.emit(request, T0, caller)

        storage._database.write(emit_meanwhile)
        assert not caller.in_transaction
        caller.execute("PRAGMA query_only = 1")
        with pytest.raises(StorageError, match="may not be written to"):
            storage.emit(request, T0, caller)
        caller.rollback()
        caller.execute("PRAGMA query_only = 0")
        assert storage.emit(request, T0, caller)[0].delivery_ids == (1,)
        caller.commit()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_BUSY", StorageBusy),
        ("SQLITE_BUSY_SNAPSHOT", StorageBusy),
        ("SQLITE_BUSY_RECOVERY", StorageBusy),
        ("SQLITE_LOCKED", StorageBusy),
        ("SQLITE_LOCKED_SHAREDCACHE", StorageBusy),
        ("SQLITE_FULL", StorageFull),
        ("SQLITE_IOERR_WRITE", StorageFull),
        ("SQLITE_IOERR_FSYNC", StorageFull),
        ("SQLITE_IOERR_TRUNCATE", StorageFull),
        ("SQLITE_IOERR_SHMSIZE", StorageFull),
        ("SQLITE_NOTADB", StorageCorrupt),
        ("SQLITE_CORRUPT", StorageCorrupt),
        ("SQLITE_CORRUPT_INDEX", StorageCorrupt),
        ("SQLITE_CANTOPEN", StorageError),
        ("SQLITE_READONLY", StorageError),
        ("SQLITE_READONLY_DBMOVED", StorageError),
        ("SQLITE_IOERR_READ", StorageError),
        ("SQLITE_INTERRUPT", StorageError),
        (None, StorageError),
    ],
)
def test_what_each_code_of_sqlite_means(name: str | None, kind: type[StorageError]) -> None:
    """Each code has its error, extended codes that of their kind; the message is one line and names the file."""
    error = sqlite3.OperationalError("what SQLite says")
    if name is not None:
        error.sqlite_errorname, error.sqlite_errorcode = name, getattr(sqlite3, name)
    told = storage_error(error, "/srv/hooks.db")
    assert type(told) is kind
    assert isinstance(told, ProcoreHooksError)
    assert str(told).startswith("/srv/hooks.db")
    assert "\n" not in str(told)
