"""The storage contract's tests of waking subscribers and of many threads at once."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from ..exceptions import StorageBusy
from ..storage._base import HookChange, Settlement, Storage
from ._contract_values import (
    T0,
    accepted,
    an_event,
    at,
    emit,
    fails_and_pauses,
    given_up,
    history,
    listening,
    turn,
)

__all__ = ["ThreadContract", "WakeContract"]

_PATIENCE = 60.0


@contextmanager
def _woken(storage: Storage) -> Iterator[list[None]]:
    """The calls of a subscriber, counted."""
    calls: list[None] = []
    unsubscribe = storage.subscribe(lambda: calls.append(None))
    yield calls
    unsubscribe()


class WakeContract:
    """`subscribe`, and turns that wait for nobody."""

    def test_a_turn_that_waits_for_nobody(self, storage: Storage) -> None:
        """Without `wait` a turn does all that one does, or says that it is busy and has done nothing."""
        listening(storage)
        (sent,) = emit(storage).delivery_ids
        try:
            (claim,) = turn(storage, wait=False).claims
        except StorageBusy:
            (claim,) = turn(storage).claims
        assert claim.delivery_id == sent
        try:
            (settled,) = turn(storage, accepted(claim), wait=False).settled
        except StorageBusy:
            (settled,) = turn(storage, accepted(claim)).settled
        assert settled.status == storage.get_delivery(sent).status == "delivered"

    @pytest.mark.parametrize("verb", ["emit", "redeliver", "recover", "ping", "enable", "more room", "settle"])
    def test_what_makes_a_hook_ready_wakes(self, storage: Storage, verb: str) -> None:
        """Each kind of commit that makes a hook ready calls the subscriber."""
        hook = listening(storage)
        (old,) = emit(storage).delivery_ids
        turn(storage, given_up(turn(storage).claims[0]))
        emit(storage), emit(storage)
        (claim,) = turn(storage).claims
        if verb == "enable":
            turn(storage, fails_and_pauses(claim, T0, at(60)))
        calls: dict[str, Callable[[], object]] = {
            "emit": lambda: emit(storage),
            "redeliver": lambda: storage.redeliver(old, T0),
            "recover": lambda: storage.recover(hook.id, T0, at(1), T0),
            "ping": lambda: storage.add_ping(hook.id, an_event(), T0),
            "enable": lambda: storage.enable_hook(hook.id, T0),
            "more room": lambda: storage.update_hook(hook.id, {"max_in_flight": 2}, T0),
            "settle": lambda: turn(storage, accepted(claim), capacity=0),
        }
        if verb in ("emit", "redeliver", "recover", "ping"):
            turn(storage, given_up(claim, change=HookChange(flush_reason="flushed")))
        with _woken(storage) as woken:
            calls[verb]()
            assert woken

    def test_every_subscriber_until_it_ends(self, storage: Storage) -> None:
        """All subscribers are called, also one function twice; one that ended its subscription is not."""
        listening(storage)
        woken: list[str] = []
        first = storage.subscribe(lambda: woken.append("first"))
        second = storage.subscribe(lambda: woken.append("second"))
        emit(storage)
        assert {"first", "second"} == set(woken)
        first()
        woken.clear()
        emit(storage)
        assert set(woken) == {"second"}
        second()
        woken.clear()
        emit(storage)
        assert woken == []


def _yield_at_every_line(frame: FrameType, event: str, arg: Any) -> Any:
    """Trace the storages' own code and let another thread run at each line, so that a missing lock shows."""
    if not frame.f_globals.get("__name__", "").startswith("procore_hooks.storage"):
        return None
    if event == "line":
        time.sleep(0)
    return _yield_at_every_line


@contextmanager
def _threads(*tasks: Callable[[], None]) -> Iterator[None]:
    """Run the tasks in threads that take turns at every line of a storage; the first error of one is raised."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        sys.settrace(_yield_at_every_line)
        try:
            task()
        except BaseException as error:
            errors.append(error)
        finally:
            sys.settrace(None)

    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(_PATIENCE)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), f"a thread did not end within {_PATIENCE} seconds"


class ThreadContract:
    """Many threads on one storage."""

    def test_threads_that_emit_and_turn(self, storage: Storage) -> None:
        """Three threads emit while three turn: each delivery is claimed and delivered once, and none is left."""
        hooks = [listening(storage, max_in_flight=2) for _ in range(4)]
        each, lock = 12, threading.Lock()
        emitted: list[int] = []
        claimed: list[int] = []
        give_up_at = time.monotonic() + _PATIENCE

        def emits() -> None:
            for _ in range(each):
                made = emit(storage).delivery_ids
                with lock:
                    emitted.extend(made)

        def turns() -> None:
            settlements: list[Settlement] = []
            while (len(claimed) < 3 * each * len(hooks) or settlements) and time.monotonic() < give_up_at:
                result = turn(storage, *settlements, capacity=3)
                assert result.late == ()
                with lock:
                    claimed.extend(claim.delivery_id for claim in result.claims)
                settlements = [accepted(claim) for claim in result.claims]

        with _threads(emits, emits, emits, turns, turns, turns):
            pass
        assert len(emitted) == 3 * each * len(hooks)
        assert sorted(claimed) == sorted(emitted)
        assert storage.count_deliveries(None, T0) == {"delivered": len(emitted)}

    def test_one_key_in_many_threads(self, storage: Storage) -> None:
        """Threads that emit with the same key get one and the same emission, and one delivery is made."""
        listening(storage)
        emissions = []
        with _threads(*[lambda: emissions.append(emit(storage, key="order-1"))] * 5):
            pass
        assert len(emissions) == 5
        assert all(emission == emissions[0] for emission in emissions)
        assert len(history(storage)) == 1

    def test_one_recovery_in_many_threads(self, storage: Storage) -> None:
        """Threads that recover at once make each redelivery once, all together."""
        hook = listening(storage)
        for _ in range(5):
            emit(storage)
            turn(storage, given_up(turn(storage).claims[0]), capacity=0)
        made: list[int] = []
        with _threads(*[lambda: made.append(storage.recover(hook.id, T0, at(1), at(1)))] * 4):
            pass
        assert sum(made) == 5
        assert len(history(storage)) == 10
