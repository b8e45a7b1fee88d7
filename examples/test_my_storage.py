from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from procore_hooks import Storage
from procore_hooks.storage.sqlite import SQLiteStorage as MyStorage  # put yours here
from procore_hooks.testing import StorageContract


class TestMyStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        storage = MyStorage(tmp_path / "hooks.db", journal_mode="delete")  # open and empty
        yield storage
        storage.close()

    @pytest.fixture
    def reopen(self, storage: Storage, tmp_path: Path) -> Callable[[], Storage]:
        """Another object on the same data. A storage that is not durable leaves this fixture out."""
        return lambda: MyStorage(tmp_path / "hooks.db", journal_mode="delete")
