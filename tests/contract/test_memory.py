"""`MemoryStorage` passes the storage contract, and what is true of it alone."""

from __future__ import annotations

import threading

import pytest

from procore_hooks.exceptions import InvalidInput, NotFound
from procore_hooks.storage._base import EmitRequest, Storage
from procore_hooks.storage.memory import MemoryStorage
from procore_hooks.testing._contract_values import T0, an_event, at, emit, emit_many, fails_and_pauses, listening, turn
from procore_hooks.testing.storage_contract import StorageContract


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


def test_there_is_no_transaction_to_join(storage: MemoryStorage) -> None:
    """A connection is refused with words that name what to do instead."""
    with pytest.raises(InvalidInput, match=r"connection: .*in-memory storage has no transactions to join") as caught:
        storage.emit([EmitRequest(event=an_event())], T0, object())
    assert caught.value.field == "connection"


def test_subscribers_are_called_without_the_lock(storage: MemoryStorage) -> None:
    """While a subscriber runs, another thread uses the storage, and sees what was committed."""
    hook = listening(storage)
    seen: list[dict[str, int]] = []

    def wake() -> None:
        thread = threading.Thread(target=lambda: seen.append(dict(storage.count_deliveries(hook.id, T0))), daemon=True)
        thread.start()
        thread.join(10)

    storage.subscribe(wake)
    emit(storage)
    assert seen == [{"enqueued": 1}]


def test_what_is_dropped_is_discarded_in_the_same_call(storage: MemoryStorage) -> None:
    """In memory no turn is needed between a drop and its effect."""
    hook = listening(storage)
    emit_many(storage, 3)
    storage.disable_hook(hook.id, T0, "dropped")
    assert storage.count_deliveries(hook.id, T0) == {"discarded": 3}


def test_the_reason_of_a_drop(storage: MemoryStorage) -> None:
    """An event for a hook that drops says so in its history."""
    hook = listening(storage, when_disabled="drop")
    storage.disable_hook(hook.id, T0, None)
    assert storage.get_delivery(emit(storage).delivery_ids[0]).reason == "the hook was disabled and drops events"


def test_unknown_hooks_are_not_enabled_or_disabled(storage: MemoryStorage) -> None:
    """`enable_hook` and `disable_hook` raise `NotFound` for a hook that is not there."""
    with pytest.raises(NotFound):
        storage.enable_hook(1, T0)
    with pytest.raises(NotFound):
        storage.disable_hook(1, T0, None)


def test_the_schedule_does_not_grow_with_what_is_over(storage: MemoryStorage) -> None:
    """Many pauses and claims leave no more entries behind than there are hooks and live leases."""
    listening(storage)
    emit_many(storage, 1)
    now = 0.0
    for _ in range(300):
        now += 1
        for claim in turn(storage, now=at(now)).claims:
            turn(storage, fails_and_pauses(claim, at(now), at(now + 1)), now=at(now))
    dispatch = storage._dispatch
    assert len(dispatch._schedule._ready) + len(dispatch._schedule._asleep) <= 2
    assert len(dispatch._leases) <= 1
