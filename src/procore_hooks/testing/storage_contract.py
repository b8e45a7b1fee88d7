"""The suite that every storage passes: what `Storage` promises, as tests.

::

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self) -> Iterator[Storage]:
            storage = MyStorage(...)          # open and empty
            yield storage
            storage.close()

        @pytest.fixture
        def reopen(self, storage) -> Callable[[], Storage]:      # durable storages only
            return lambda: MyStorage(...)     # one more object on the same data, each time it is called

Time is an argument everywhere: no test looks at a clock or sleeps. The parts are in the modules `_contract_*`; of
them, `_contract_model` plays random operations against a plain model, from seeds that a failure prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ..storage._base import Storage
from ._contract_clock import ClockContract
from ._contract_emit import EmitContract, PingContract
from ._contract_history import HistoryContract, PruneContract, RedeliveryContract
from ._contract_hooks import HookContract, TriggerContract
from ._contract_lease import DiscardContract, LeaseContract, NextDueContract
from ._contract_model import ModelContract
from ._contract_queue import OrderContract, PauseContract, SettlementContract
from ._contract_threads import ThreadContract, WakeContract

__all__ = ["StorageContract"]


class StorageContract(
    HookContract,
    TriggerContract,
    EmitContract,
    PingContract,
    OrderContract,
    PauseContract,
    SettlementContract,
    LeaseContract,
    DiscardContract,
    NextDueContract,
    ClockContract,
    HistoryContract,
    RedeliveryContract,
    PruneContract,
    WakeContract,
    ThreadContract,
    ModelContract,
):
    """All tests of a storage. Subclass it under a name that pytest collects, with a fixture `storage`."""

    @pytest.fixture
    def storage(self) -> Storage:
        """An open, empty storage. Override it."""
        pytest.fail("override the fixture `storage`: it gives an open, empty storage")

    @pytest.fixture
    def reopen(self) -> Callable[[], Storage] | None:
        """What opens one more storage on the same data; None for a storage that is not durable."""
        return None

    @pytest.fixture(autouse=True)
    def _closed_at_the_end(self, storage: Storage) -> Iterator[None]:
        yield
        storage.close()
