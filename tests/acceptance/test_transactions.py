"""`emit(..., connection=...)`: the deliveries exist if, and only if, the caller commits."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from django import setup
from django.conf import settings
from django.db.backends.sqlite3.base import DatabaseWrapper
from sqlalchemy.orm import Session

from procore_hooks import Dispatcher, HookRegistry, IdempotencyConflict, InvalidInput, InvalidPayload
from procore_hooks.testing import ScriptedEndpoint

from .conftest import BOUND, hook_for

Connect = Callable[[Path], sqlite3.Connection]


def by_default(path: Path) -> sqlite3.Connection:
    """A transaction that the driver begins."""
    return sqlite3.connect(path)


def by_hand(path: Path) -> sqlite3.Connection:
    """A transaction that the app begins."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    return connection


def immediate(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level="IMMEDIATE")


def without_autocommit(path: Path) -> sqlite3.Connection:
    """The way of Python 3.12: a transaction is always open."""
    return sqlite3.connect(path, autocommit=False)  # type: ignore[call-overload]


NEW = pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3.connect(autocommit=) came with Python 3.12")
WAYS = [by_default, by_hand, immediate, pytest.param(without_autocommit, marks=NEW)]


@pytest.fixture
def table(path: Path, filed: HookRegistry) -> None:
    """A table of the app's in the same file, and a hook that hears everything."""
    hook_for(filed)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE doors (name TEXT)")
        connection.commit()


def doors(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM doors ORDER BY rowid")]


def delivered(registry: HookRegistry) -> list[Any]:
    """What a drain sends: the payloads, in order."""
    endpoint = ScriptedEndpoint()
    Dispatcher(registry, transport=endpoint).drain(BOUND)
    return [request.json()["data"] for request in endpoint.requests]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("connect", WAYS)
def test_rolled_back_nothing_exists(filed: HookRegistry, path: Path, connect: Connect) -> None:
    """With the caller's rollback the deliveries are gone, as are the caller's own rows."""
    with closing(connect(path)) as connection:
        connection.execute("INSERT INTO doors VALUES ('one')")
        emission = filed.emit("RFIs", "update", 1, connection=connection)
        assert len(emission.delivery_ids) == 1
        assert filed.deliveries.list().items == ()  # nobody else sees it yet
        connection.rollback()
    assert (doors(path), filed.deliveries.list().items, delivered(filed)) == ([], (), [])


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("connect", WAYS)
def test_committed_it_is_delivered(filed: HookRegistry, path: Path, connect: Connect) -> None:
    """With the caller's commit they exist, with the ids that the emit gave, and are sent."""
    with closing(connect(path)) as connection:
        connection.execute("INSERT INTO doors VALUES ('one')")
        emission = filed.emit("RFIs", "update", 1, connection=connection)
        connection.commit()
    assert doors(path) == ["one"]
    assert [one.id for one in filed.deliveries.list()] == list(emission.delivery_ids)
    assert delivered(filed) == [1]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("connect", WAYS)
def test_an_emit_may_come_first(filed: HookRegistry, path: Path, connect: Connect) -> None:
    """An emit as the first statement begins the transaction, if the connection is one that begins by itself."""
    with closing(connect(path)) as connection:
        filed.emit("RFIs", "update", 1, connection=connection)
        connection.execute("INSERT INTO doors VALUES ('one')")
        assert connection.in_transaction
        connection.rollback()
        assert filed.deliveries.list().items == ()
        if connect is by_hand:
            connection.execute("BEGIN")
        filed.emit("RFIs", "update", 2, connection=connection)
        connection.commit()
    assert (doors(path), delivered(filed)) == ([], [2])


def with_autocommit(path: Path) -> sqlite3.Connection:
    """Python 3.12's own: the driver neither begins nor commits anything."""
    return sqlite3.connect(path, autocommit=True)  # type: ignore[call-overload]


def without_isolation_level(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("connect", [without_isolation_level, pytest.param(with_autocommit, marks=NEW)])
def test_in_autocommit_an_emit_stands_alone(filed: HookRegistry, path: Path, connect: Connect) -> None:
    """A connection in autocommit mode commits the emit as it does any statement, whole."""
    with closing(connect(path)) as connection:
        filed.emit("RFIs", "update", 1, connection=connection)
        assert not connection.in_transaction
        connection.rollback()
    assert delivered(filed) == [1]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("connect", WAYS)
def test_a_failing_emit_leaves_the_callers_transaction_alive(filed: HookRegistry, path: Path, connect: Connect) -> None:
    """After an emit that raises, the caller's rows before and after it are committed; of the emit there is nothing."""
    with closing(connect(path)) as connection:
        connection.execute("INSERT INTO doors VALUES ('before')")
        filed.emit("RFIs", "update", 1, idempotency_key="k", connection=connection)
        with pytest.raises(IdempotencyConflict):
            filed.emit("RFIs", "update", 2, idempotency_key="k", connection=connection)
        with pytest.raises(InvalidPayload):
            filed.emit("RFIs", "update", float("nan"), connection=connection)
        connection.execute("INSERT INTO doors VALUES ('after')")
        connection.commit()
    assert (doors(path), delivered(filed)) == (["before", "after"], [1])


@pytest.mark.usefixtures("table")
def test_a_row_factory_of_the_caller_does_no_harm(filed: HookRegistry, path: Path) -> None:
    """Rows as the caller likes them, and text as bytes, do not disturb an emit, nor it them."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        filed.emit("RFIs", "update", 1, connection=connection)
        assert connection.row_factory is sqlite3.Row
        connection.commit()
    assert delivered(filed) == [1]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("commits", [True, False])
def test_a_sqlalchemy_connection_joins(filed: HookRegistry, path: Path, commits: bool) -> None:
    """An emit on a SQLAlchemy `Connection` lives and dies with its transaction."""
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO doors VALUES ('one')"))
        filed.emit("RFIs", "update", 1, connection=connection)
        connection.commit() if commits else connection.rollback()
    engine.dispose()
    assert (doors(path), delivered(filed)) == ((["one"], [1]) if commits else ([], []))


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("commits", [True, False])
def test_a_sqlalchemy_session_joins(filed: HookRegistry, path: Path, commits: bool) -> None:
    """An emit on a SQLAlchemy `Session` does too."""
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with Session(engine) as session:
        session.execute(sqlalchemy.text("INSERT INTO doors VALUES ('one')"))
        filed.emit("RFIs", "update", 1, connection=session)
        session.commit() if commits else session.rollback()
    engine.dispose()
    assert (doors(path), delivered(filed)) == ((["one"], [1]) if commits else ([], []))


@pytest.fixture
def django(path: Path) -> Iterator[DatabaseWrapper]:
    """Django's connection to the file, as `django.db.connection` is one."""
    if not settings.configured:
        settings.configure(USE_TZ=True, LOGGING_CONFIG=None)
        setup()
    options = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": {}, "TIME_ZONE": None}
    defaults = {"ATOMIC_REQUESTS": False, "AUTOCOMMIT": True, "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}
    connection = DatabaseWrapper({**defaults, **options}, alias="doors")
    yield connection
    connection.close()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("commits", [True, False])
def test_djangos_connection_joins(filed: HookRegistry, path: Path, django: DatabaseWrapper, commits: bool) -> None:
    """An emit on Django's connection belongs to its transaction; outside one it stands alone."""
    django.set_autocommit(False)
    with django.cursor() as cursor:
        cursor.execute("INSERT INTO doors VALUES (%s)", ["one"])
    filed.emit("RFIs", "update", 1, connection=django)
    django.commit() if commits else django.rollback()
    django.set_autocommit(True)
    filed.emit("RFIs", "update", 2, connection=django)
    assert (doors(path), delivered(filed)) == ((["one"], [1, 2]) if commits else ([], [2]))


@pytest.mark.usefixtures("table")
def test_an_open_transaction_is_seen_when_it_commits(filed: HookRegistry, path: Path) -> None:
    """A running dispatcher sends nothing before the commit, and notices the commit by itself."""
    endpoint = ScriptedEndpoint()
    with Dispatcher(filed, transport=endpoint) as dispatcher, closing(sqlite3.connect(path)) as connection:
        filed.emit("RFIs", "update", 1, connection=connection)
        dispatcher.drain(BOUND)
        assert endpoint.requests == []
        connection.commit()
        endpoint.wait_for(1, BOUND)


def _elsewhere(tmp_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "other.db")


@pytest.mark.usefixtures("table")
def test_another_database_is_refused(filed: HookRegistry, tmp_path: Path) -> None:
    """A connection to another file, to memory, or that is none, is refused by name, and nothing is stored."""
    engine = sqlalchemy.create_engine("sqlite://")
    with (
        closing(_elsewhere(tmp_path)) as other,
        closing(sqlite3.connect(":memory:")) as memory,
        engine.connect() as alchemy,
    ):
        for wrong in (other, memory, alchemy, object(), "hooks.db", 7):
            with pytest.raises(InvalidInput, match="connection"):
                filed.emit("RFIs", "update", connection=wrong)
    engine.dispose()
    assert filed.deliveries.list().items == ()


def test_the_memory_storage_has_no_transactions_to_join(tmp_path: Path) -> None:
    """Where nothing can be joined, a connection is refused rather than ignored."""
    with (
        HookRegistry() as registry,
        closing(_elsewhere(tmp_path)) as other,
        pytest.raises(InvalidInput, match="connection"),
    ):
        registry.emit("RFIs", "update", connection=other)
