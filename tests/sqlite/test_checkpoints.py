"""The WAL is copied into the file when there is nothing else to do, and not within somebody's emit."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from procore_hooks import SQLiteStorage
from procore_hooks.testing import _contract_values as make

ENOUGH = 40


def in_the_file(path: Path) -> int:
    """How many delivered ones are in the file itself, whatever the WAL beside it says."""
    alone = path.with_suffix(".alone")
    # By another process: to open and close the file here would drop SQLite's locks on it.
    subprocess.run(["cp", path, alone], check=True)
    with contextlib.closing(sqlite3.connect(alone)) as connection:
        found = connection.execute("SELECT count(*) FROM procore_hooks_deliveries WHERE state = 2").fetchone()[0]
    return int(found)


def deliver(storage: SQLiteStorage, number: int, *, capacity: int = 0) -> None:
    """Claim so many and settle them, in a turn that may claim `capacity` more."""
    claims = make.turn(storage, capacity=number).claims
    assert len(claims) == number
    make.turn(storage, *(make.accepted(claim) for claim in claims), capacity=capacity)


@pytest.fixture
def waiting(storage: SQLiteStorage, path: Path) -> SQLiteStorage:
    """A storage with 60 waiting, and nothing in the WAL that is not in the file."""
    make.listening(storage, max_in_flight=1_000)
    make.emit_many(storage, 60)
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
    return storage


def test_once_enough_is_settled(waiting: SQLiteStorage, path: Path) -> None:
    """A turn with nothing to claim copies the WAL once 40 were settled since the last time, be it by several turns."""
    deliver(waiting, ENOUGH - 1)
    assert in_the_file(path) == 0
    deliver(waiting, 1)
    assert in_the_file(path) == ENOUGH
    deliver(waiting, 5)
    assert in_the_file(path) == ENOUGH


def test_not_while_there_is_something_to_claim(waiting: SQLiteStorage, path: Path) -> None:
    """A turn that claims something leaves the WAL alone: what it claimed is to go out."""
    deliver(waiting, ENOUGH, capacity=1)
    assert in_the_file(path) == 0


def test_a_checkpoint_that_fails(
    waiting: SQLiteStorage, connection_of: Callable[[SQLiteStorage], sqlite3.Connection]
) -> None:
    """Where the WAL cannot be copied, the turn ends as it would have: its results are stored already."""
    claims = make.turn(waiting, capacity=ENOUGH).claims
    connection_of(waiting).set_authorizer(
        lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_PRAGMA else sqlite3.SQLITE_OK
    )
    turn = make.turn(waiting, *(make.accepted(claim) for claim in claims), capacity=0)
    assert len(turn.settled) == ENOUGH
