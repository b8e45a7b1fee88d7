"""Opening and closing: files that are not ours or not yet, and registries that are closed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from procore_hooks import (
    EventInput,
    HookRegistry,
    InvalidInput,
    MemoryStorage,
    SchemaTooNew,
    SQLiteStorage,
    Storage,
    StorageCorrupt,
    StorageError,
)


def execute(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_registry_without_a_storage_is_in_memory() -> None:
    """`HookRegistry()` works, and shares nothing with another one."""
    with HookRegistry() as one, HookRegistry() as other:
        assert isinstance(one.storage, MemoryStorage)
        one.hooks.create("https://hooks.acme.example/", namespace="acme")
        assert other.hooks.list().items == ()


def test_close_and_context_manager(storage: Storage) -> None:
    """Leaving closes the storage, also on an exception, which comes through; closing again does nothing."""
    with pytest.raises(ZeroDivisionError), HookRegistry(storage) as registry:
        _ = 1 / 0
    registry.close()
    for call in (
        lambda: registry.hooks.list(),
        lambda: registry.hooks.create("https://hooks.acme.example/", namespace="acme"),
        lambda: registry.emit("RFIs", "update"),
        lambda: registry.emit_many([EventInput("RFIs", "update")]),
        lambda: registry.deliveries.list(),
        lambda: registry.explain("RFIs", "update"),
    ):
        with pytest.raises(StorageError, match="closed"):
            call()


def test_a_file_keeps_everything(path: Path) -> None:
    """What was stored is there when the file is opened again, secrets and history included."""
    with HookRegistry(SQLiteStorage(path)) as registry:
        hook = registry.hooks.create(
            "https://hooks.acme.example/", namespace="acme", destination_headers={"Authorization": "Bearer x"}
        )
        trigger = registry.triggers.create(hook.id, "RFIs", "update")
        emission = registry.emit("RFIs", "update", {"n": 1}, idempotency_key="k")
    with HookRegistry(SQLiteStorage(str(path))) as registry:
        assert registry.hooks.list().items == (hook,)
        assert registry.triggers.list(hook.id).items == (trigger,)
        assert registry.deliveries.get(emission.delivery_ids[0]).event == emission.event
        assert registry.emit("RFIs", "update", {"n": 1}, idempotency_key="k") == emission


def test_a_file_that_is_no_database(path: Path) -> None:
    """`StorageCorrupt` names the file, which stays as it was to the byte."""
    path.write_bytes(b"Once upon a time " * 100)
    with pytest.raises(StorageCorrupt) as caught:
        SQLiteStorage(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"Once upon a time " * 100


def raise_user_version(path: Path) -> None:
    execute(path, "PRAGMA user_version = 999")


def raise_schema_table(path: Path) -> None:
    execute(path, "UPDATE procore_hooks_schema SET version = 999")


@pytest.mark.parametrize("raise_version", [raise_user_version, raise_schema_table])
def test_a_newer_schema_is_refused(path: Path, raise_version: Callable[[Path], None]) -> None:
    """`SchemaTooNew` says what to upgrade, and the file is left as it was, to the byte."""
    with HookRegistry(SQLiteStorage(path, journal_mode="delete")) as registry:
        registry.hooks.create("https://hooks.acme.example/", namespace="acme")
    raise_version(path)
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match=r"999.*upgrade procore-hooks") as caught:
        SQLiteStorage(path, journal_mode="delete")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_the_apps_own_user_version_is_not_ours(path: Path) -> None:
    """In an app's database `user_version` belongs to the app: it is neither changed nor taken for ours."""
    execute(path, "CREATE TABLE rfis (subject TEXT)", "PRAGMA user_version = 999")
    with HookRegistry(SQLiteStorage(path)) as registry:
        registry.hooks.create("https://hooks.acme.example/", namespace="acme")
    with HookRegistry(SQLiteStorage(path)) as registry:
        assert len(registry.hooks.list()) == 1
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (999,)


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    """An error of ours names the path."""
    with pytest.raises(StorageError) as caught:
        SQLiteStorage(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It is not made; the error asks for it."""
    with pytest.raises(StorageError, match="folder"):
        SQLiteStorage(tmp_path / "none" / "hooks.db")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("path", [":memory:", "", "file:hooks.db?mode=memory"])
def test_what_is_no_path_of_a_file(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's names for a database in memory are refused, with a word on `MemoryStorage`; no file is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=r"^path: .*MemoryStorage\(\)") as caught:
        SQLiteStorage(path)
    assert repr(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_connection_of_another_kind_or_file(path: Path, tmp_path: Path) -> None:
    """A connection that is none, in memory, or on another file is refused, and nothing is stored by it anywhere."""
    other = tmp_path / "other.db"
    with HookRegistry(SQLiteStorage(path)) as registry, contextlib.ExitStack() as stack:
        hook = registry.hooks.create("https://hooks.acme.example/", namespace="acme")
        registry.triggers.create(hook.id, "*", "*")
        connections = [stack.enter_context(contextlib.closing(sqlite3.connect(one))) for one in (":memory:", other)]
        for connection in (*connections, object(), "hooks.db", 7):
            with pytest.raises(InvalidInput, match=r"^connection: "):
                registry.emit("RFIs", "update", connection=connection)
        assert not any(connection.in_transaction for connection in connections)
        assert registry.deliveries.list().items == ()
    with HookRegistry() as registry, pytest.raises(InvalidInput, match=r"^connection: .*SQLiteStorage"):
        registry.emit("RFIs", "update", connection=object())
