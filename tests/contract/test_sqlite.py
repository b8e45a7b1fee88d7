"""The SQLite storage passes the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from procore_hooks import SQLiteStorage, Storage
from procore_hooks.testing.storage_contract import StorageContract


class TestSQLiteStorage(StorageContract):
    """Everything that `Storage` says, on a real file."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "hooks.db"

    @pytest.fixture
    def storage(self, path: Path) -> Iterator[SQLiteStorage]:
        # "normal" spares the disk: what is lost at a power cut is not the matter here.
        storage = SQLiteStorage(path, durability="normal")
        yield storage
        storage.close()

    @pytest.fixture
    def reopen(self, path: Path) -> Callable[[], Storage]:
        return lambda: SQLiteStorage(path, durability="normal")
