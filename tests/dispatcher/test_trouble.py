"""What goes wrong while a dispatcher works: the storage, a lease, a hook that changes, an endpoint that hangs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from tenacity import stop_after_attempt, wait_fixed

from procore_hooks import Dispatcher, HookRegistry, RetryPolicy, Storage, StorageBusy, StorageError, Timeouts, verify
from procore_hooks.storage._base import Turn
from procore_hooks.testing import ManualClock, ScriptedEndpoint

from .conftest import BOUND, HeldEndpoint, answering, emit, hook_for, wait_until

EVERY_MINUTE = RetryPolicy(wait=wait_fixed(60), stop=stop_after_attempt(100))

# The storage


class Failing:
    """A storage whose turns fail for as long as the test wants."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.error: Exception | None = None
        self.failed: list[float] = []
        self.refused = 0  # results that were brought in vain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def turn(self, *args: Any, wait: bool, **keywords: Any) -> Turn:
        if self.error is not None:
            if isinstance(self.error, StorageBusy) and not wait:
                raise self.error  # a thread that may wait is to try it
            self.failed.append(time.monotonic())
            self.refused += len(args[0])
            raise self.error
        return self._storage.turn(*args, wait=wait, **keywords)


@pytest.fixture
def failing(registry: HookRegistry) -> Failing:
    registry.storage = Failing(registry.storage)  # type: ignore[assignment]
    return registry.storage  # type: ignore[return-value]


def test_a_storage_that_fails_for_a_while_stops_nothing(
    registry: HookRegistry, failing: Failing, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatcher keeps running, tries less and less often, says so once, and recovers by itself."""
    monkeypatch.setattr("procore_hooks._engine._FIRST_BACK_OFF", 0.02)
    hook_for(registry)
    # Before it starts: a turn that is under way would not notice, and claim what is emitted meanwhile.
    failing.error = StorageBusy("hooks.db stayed locked")
    with caplog.at_level(logging.ERROR, "procore_hooks"), Dispatcher(registry, transport=answering()) as dispatcher:
        sent = emit(registry)
        wait_until(lambda: len(failing.failed) >= 5)
        assert registry.deliveries.get(sent).attempt_count == 0
        failing.error = None
        assert dispatcher.drain(BOUND).next_due_at is None
        assert registry.deliveries.get(sent).status == "delivered"

    # Each at least as long as it is to be: a busy machine can only make them longer.
    gaps = [later - earlier for earlier, later in pairwise(failing.failed)]
    assert all(gap >= 0.95 * 0.02 * 2**number for number, gap in enumerate(gaps)), gaps
    assert [record.getMessage() for record in caplog.records if record.name.startswith("procore_hooks")] == [
        "the storage failed, deliveries wait and will be tried again: hooks.db stayed locked"
    ]


def test_trouble_is_logged_once_a_minute(
    registry: HookRegistry, failing: Failing, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a storage keeps failing, one line comes in each minute of the monotonic clock, however often it fails."""
    seconds = 1000.0
    monkeypatch.setattr(
        "procore_hooks._engine.time", SimpleNamespace(monotonic=lambda: seconds, thread_time=lambda: 0.0)
    )
    monkeypatch.setattr("procore_hooks._engine._FIRST_BACK_OFF", 0.001)
    monkeypatch.setattr("procore_hooks._engine._LONGEST_BACK_OFF", 0.001)
    failing.error = StorageError("gone")

    def lines_after_more_failures() -> int:
        seen = len(failing.failed)
        wait_until(lambda: len(failing.failed) >= seen + 5)
        return len(caplog.records)

    with caplog.at_level(logging.ERROR, "procore_hooks"), Dispatcher(registry, transport=answering()):
        assert lines_after_more_failures() == 1
        seconds += 59
        assert lines_after_more_failures() == 1
        seconds += 1.5
        assert lines_after_more_failures() == 2
        failing.error = None


def test_an_error_that_is_none_of_ours_stops_nothing_either(
    registry: HookRegistry, failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    """A storage that raises what it must not is logged with its traceback, and tried again."""
    hook_for(registry)
    with Dispatcher(registry, transport=answering()) as dispatcher:
        failing.error = ZeroDivisionError("a bug")
        emit(registry)
        wait_until(lambda: failing.failed)
        failing.error = None
        assert dispatcher.drain(BOUND).next_due_at is None
    assert registry.deliveries.list()[0].status == "delivered"
    assert "Traceback" in caplog.text


def test_results_wait_for_the_storage(registry: HookRegistry, failing: Failing) -> None:
    """An answer that comes while the storage fails is stored afterwards: one attempt, one POST."""
    hook_for(registry)
    endpoint = HeldEndpoint()
    with Dispatcher(registry, transport=endpoint) as dispatcher:
        sent = emit(registry)
        endpoint.wait_for(1)
        failing.error = StorageError("gone")
        endpoint.answer(0)
        wait_until(lambda: failing.refused)
        failing.error = None
        dispatcher.drain(BOUND)
    delivery = registry.deliveries.get(sent)
    assert (delivery.status, delivery.attempt_count, len(endpoint.requests)) == ("delivered", 1, 1)


def test_a_drain_of_its_own_raises_what_the_storage_raises(registry: HookRegistry, failing: Failing) -> None:
    """Without a running dispatcher nobody would try again: the caller hears of it, and a later drain goes on."""
    hook_for(registry)
    emit(registry)
    dispatcher = Dispatcher(registry, transport=answering())
    failing.error = StorageError("gone")
    with pytest.raises(StorageError, match="gone"):
        dispatcher.drain()
    failing.error = None
    assert dispatcher.drain().delivered == 1


def test_stop_does_not_wait_for_a_storage_that_fails(registry: HookRegistry, failing: Failing) -> None:
    """With a result that cannot be stored, stop gives up after the total deadline; the lease lets others go on."""
    hook_for(registry)
    endpoint = HeldEndpoint()
    dispatcher = Dispatcher(registry, transport=endpoint, timeouts=Timeouts(total=1))
    dispatcher.start()
    sent = emit(registry)
    endpoint.wait_for(1)
    failing.error = StorageError("gone")
    endpoint.answer(0)
    dispatcher.stop()
    failing.error = None
    assert registry.deliveries.get(sent).status == "enqueued"
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("procore-hooks")] == []


# Leases


def test_a_result_after_the_lease_is_dropped(
    by_hand: HookRegistry, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once another dispatcher has taken over, the first one's answer changes nothing, and the log says so."""
    hook = hook_for(by_hand)
    slow = HeldEndpoint()
    with Dispatcher(by_hand, transport=slow, max_in_flight=1) as first:
        sent = emit(by_hand)
        slow.wait_for(1)
        clock.advance(timedelta(seconds=14.9))
        assert Dispatcher(by_hand, transport=answering()).drain().delivered == 0
        clock.advance(timedelta(seconds=0.2))
        assert Dispatcher(by_hand, transport=answering()).drain().delivered == 1
        slow.answer(0, 500)
        wait_until(lambda: "were dropped" in caplog.text)
        first.drain(BOUND)

    delivery = by_hand.deliveries.get(sent)
    assert (delivery.status, delivery.attempt_count) == ("delivered", 2)
    assert [attempt.outcome for attempt in delivery.attempts] == ["unknown", "ok"]
    assert by_hand.hooks.get(hook.id).failing_since is None
    dropped = f"results that came after their leases had run out were dropped: 1; the first: delivery {sent}, attempt 1"
    assert dropped in caplog.text


def test_a_dispatcher_that_lost_its_own_lease_settles_each_attempt(by_hand: HookRegistry, clock: ManualClock) -> None:
    """Two attempts of one delivery in one dispatcher are told apart, also when they are cut short."""
    hook_for(by_hand)
    slow = HeldEndpoint()
    dispatcher = Dispatcher(by_hand, transport=slow, timeouts=Timeouts(total=1.5))
    dispatcher.start()
    sent = emit(by_hand)
    slow.wait_for(1)
    clock.advance(timedelta(seconds=7))
    slow.wait_for(2)
    dispatcher.stop()
    delivery = by_hand.deliveries.get(sent)
    assert delivery.attempts[0].outcome == "unknown"
    assert delivery.attempt_count == len(delivery.attempts)


def test_a_mistake_of_our_own_does_not_hammer_the_endpoint(
    by_hand: HookRegistry, clock: ManualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt whose result cannot be worked out is logged, waits for its lease, and is ``unknown`` then."""
    hook_for(by_hand)
    sent = emit(by_hand)
    endpoint = ScriptedEndpoint()
    with monkeypatch.context() as patch:
        patch.setattr("procore_hooks._in_flight.decide", lambda *_, **__: 1 / 0)
        report = Dispatcher(by_hand, transport=endpoint).drain(BOUND)
    assert (len(endpoint.requests), report.next_due_at) == (1, clock.now() + timedelta(seconds=15))
    assert f"delivery {sent}: what came of attempt 1 is not known" in caplog.text
    clock.advance(timedelta(seconds=15))
    assert Dispatcher(by_hand, transport=endpoint).drain().delivered == 1
    assert [attempt.outcome for attempt in by_hand.deliveries.get(sent).attempts] == ["unknown", "ok"]


def test_a_late_result_does_not_end_the_next_attempt(
    by_hand: HookRegistry, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """While the one that took over is still at it, the first one's success counts for nothing: the second decides."""
    hook_for(by_hand)
    slow, other = HeldEndpoint(), HeldEndpoint()
    with Dispatcher(by_hand, transport=slow, max_in_flight=1) as first:
        sent = emit(by_hand)
        slow.wait_for(1)
        clock.advance(timedelta(seconds=16))
        with Dispatcher(by_hand, transport=other, retry=EVERY_MINUTE) as second:
            other.wait_for(1)
            slow.answer(0)
            first.drain(BOUND)
            assert by_hand.deliveries.get(sent).status == "retrying"
            other.answer(0, 500)
            second.drain(BOUND)
    assert [attempt.outcome for attempt in by_hand.deliveries.get(sent).attempts] == ["unknown", "retried"]
    assert caplog.text.count("were dropped: 1") == 1


# Hooks that change


def test_an_update_holds_from_the_next_attempt_on(by_hand: HookRegistry, clock: ManualClock) -> None:
    """A running dispatcher sends each attempt to the URL, with the headers and the secret, that the hook has then."""
    hook = hook_for(by_hand, destination_headers={"X-Own": "before"})
    endpoint = ScriptedEndpoint()
    with Dispatcher(by_hand, transport=endpoint) as dispatcher:
        emit(by_hand)
        dispatcher.drain(BOUND)
        by_hand.hooks.update(hook.id, destination_url="https://new.example/", destination_headers={"X-Own": "after"})
        secret = by_hand.hooks.rotate_secret(hook.id, grace=timedelta(0)).signing_secret
        emit(by_hand)
        dispatcher.drain(BOUND)
    before, after = endpoint.requests
    assert [request.headers["host"] for request in (before, after)] == ["hooks.example", "new.example"]
    assert [request.headers["x-own"] for request in (before, after)] == ["before", "after"]
    verify(after.body, after.headers, secret, now=clock.now())


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("change", ["delete", "drop", "disable", "update"])
def test_a_hook_that_changes_while_its_attempt_is_under_way(
    by_hand: HookRegistry, clock: ManualClock, change: str, status: int
) -> None:
    """The attempt is recorded as it went, with the URL it was claimed with; the change decides what follows."""
    hook = hook_for(by_hand)
    changes: dict[str, Callable[[], object]] = {
        "delete": lambda: by_hand.hooks.delete(hook.id),
        "drop": lambda: by_hand.hooks.disable(hook.id, queued="drop"),
        "disable": lambda: by_hand.hooks.disable(hook.id),
        "update": lambda: by_hand.hooks.update(hook.id, destination_url="https://new.example/"),
    }
    hosts: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        if len(hosts) == 1:
            changes[change]()
        return httpx.Response(status)

    first, second = emit(by_hand), emit(by_hand)
    dispatcher = Dispatcher(by_hand, transport=httpx.MockTransport(handler), retry=EVERY_MINUTE)
    dispatcher.drain()
    clock.advance(timedelta(minutes=1))
    if change == "disable":
        assert len(hosts) == 1
        by_hand.hooks.enable(hook.id)
    dispatcher.drain()

    failing = {"delete": "discarded", "drop": "discarded"}.get(change, "retrying")
    assert by_hand.deliveries.get(first).status == ("delivered" if status == 200 else failing)
    assert len(by_hand.deliveries.get(first).attempts) == by_hand.deliveries.get(first).attempt_count
    if change in ("delete", "drop"):
        waited = by_hand.deliveries.get(second)
        assert (waited.status, waited.attempts, bool(waited.reason)) == ("discarded", (), True)
        assert hosts == ["hooks.example"]
    else:
        later = "new.example" if change == "update" else "hooks.example"
        assert hosts == ["hooks.example", later]


def test_a_hook_that_is_deleted_between_claim_and_post() -> None:
    """Deleted once its delivery is claimed, the hook still gets that one POST, and the history holds it."""
    with HookRegistry(payload_formats={"mine": lambda event: (registry.hooks.delete(1), {"a": 1})[1]}) as registry:
        hook_for(registry, payload_version="mine")
        endpoint = ScriptedEndpoint()
        sent = emit(registry)
        Dispatcher(registry, transport=endpoint).drain()
        assert (registry.deliveries.get(sent).status, len(endpoint.requests)) == ("delivered", 1)


# Many hooks


def test_a_hanging_hook_slows_nobody(registry: HookRegistry) -> None:
    """While one endpoint never answers, another's whole queue flows."""
    hook_for(registry, "https://hanging.example/")
    other = hook_for(registry, "https://lively.example/")
    held = HeldEndpoint()

    class Both(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.host == "hanging.example":
                return await held.handle_async_request(request)
            return httpx.Response(200)

    for _ in range(50):
        registry.emit("RFIs", "update")
    with Dispatcher(registry, transport=Both(), max_in_flight=2):
        wait_until(lambda: registry.deliveries.stats(other.id, since=other.created_at).delivered == 50)
        assert len(held.requests) == 1
        registry.hooks.disable(1, queued="drop")
        held.answer(0)


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_the_limit_holds_over_all_hooks(registry: HookRegistry, limit: int) -> None:
    """Never are more attempts under way than `max_in_flight`, and so many are when there is enough to do."""
    for _ in range(4):
        hook_for(registry, max_in_flight=5)
    for _ in range(5):
        registry.emit("RFIs", "update")
    endpoint = HeldEndpoint()
    with Dispatcher(registry, transport=endpoint, max_in_flight=limit) as dispatcher:
        for done in range(20):
            endpoint.wait_for(min(20, done + limit))
            endpoint.answer(done)
        dispatcher.drain(BOUND)
    assert (endpoint.most_at_once, len(endpoint.requests)) == (limit, 20)


def test_a_hooks_own_limit_holds(registry: HookRegistry) -> None:
    """A hook's `max_in_flight` is kept below the dispatcher's, and a change of it holds from the next claim on."""
    hook = hook_for(registry, max_in_flight=2)
    endpoint = HeldEndpoint()
    with Dispatcher(registry, transport=endpoint) as dispatcher:
        for _ in range(6):
            emit(registry)
        endpoint.wait_for(2)
        registry.hooks.update(hook.id, max_in_flight=3)
        endpoint.wait_for(3)
        for index in range(6):
            endpoint.wait_for(index + 1)
            endpoint.answer(index)
        dispatcher.drain(BOUND)
    assert endpoint.most_at_once == 3


def test_two_dispatchers_share_the_work(registry: HookRegistry) -> None:
    """Two dispatchers of one registry send each delivery once."""
    for _ in range(5):
        hook_for(registry)
    endpoint = ScriptedEndpoint()
    with Dispatcher(registry, transport=endpoint) as one, Dispatcher(registry, transport=endpoint) as other:
        for _ in range(40):
            registry.emit("RFIs", "update")
        for dispatcher in (one, other, one):
            dispatcher.drain(BOUND)
        wait_until(lambda: registry.deliveries.stats(since=registry.hooks.get(1).created_at).delivered == 200)
    assert len(endpoint.requests) == 200
