"""`registry.deliveries`: each verb, over each storage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import httpx
import pytest

from procore_hooks import (
    Conflict,
    Dispatcher,
    DrainReport,
    EventInput,
    Hook,
    HookRegistry,
    InvalidInput,
    MemoryStorage,
    NotFound,
    RetryPolicy,
)
from procore_hooks.testing import ManualClock, ScriptedEndpoint

Listening = Callable[..., Hook]
Drain = Callable[[], DrainReport]
SECOND = timedelta(seconds=1)


def ids(deliveries: Any) -> list[int]:
    return [delivery.id for delivery in deliveries]


@pytest.fixture
def one_of_each(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, clock: ManualClock
) -> dict[str, int]:
    """A delivery in every status, a second apart, of two hooks: delivered, failed and retrying of the first."""
    first, second = listening(), listening(("Photos", "*"))
    retry = RetryPolicy(wait=lambda state: 3600, stop=lambda state: False, on_failure="independent")
    dispatcher = Dispatcher(registry, transport=endpoint, retry=retry)
    made: dict[str, int] = {"first": first.id, "second": second.id}
    answers: list[tuple[str, int, dict[str, str]]] = [
        ("delivered", 200, {}),
        ("failed", 400, {"webhook-delivery": "abort-message"}),
        ("retrying", 500, {}),
    ]
    for status, answer, headers in answers:
        endpoint.reply(answer, headers)
        made[status] = registry.emit("RFIs", "update", {"is": status}, resource_id=made["first"]).delivery_ids[0]
        dispatcher.drain()
        clock.advance(SECOND)
    made["discarded"] = registry.emit("Photos", "create", resource_id=5).delivery_ids[0]
    registry.hooks.disable(second.id, "drop")
    registry.hooks.enable(second.id)
    clock.advance(SECOND)
    made["enqueued"] = registry.emit("Photos", "update").delivery_ids[0]
    return made


def test_every_status_is_there(registry: HookRegistry, one_of_each: dict[str, int]) -> None:
    """The history names each state, newest first, and why what is over did not arrive."""
    order = ["enqueued", "discarded", "retrying", "failed", "delivered"]
    page = registry.deliveries.list()
    assert [delivery.status for delivery in page] == order
    assert ids(page) == [one_of_each[status] for status in order]
    assert [delivery.reason is not None for delivery in page] == [False, True, False, True, False]
    assert [delivery.completed_at is not None for delivery in page] == [False, True, False, True, True]
    assert [delivery.last_attempt is not None for delivery in page] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"hook_id": "first"}, ["retrying", "failed", "delivered"]),
        ({"hook_id": "second"}, ["enqueued", "discarded"]),
        ({"status": "failed"}, ["failed"]),
        ({"status": ["failed", "enqueued"]}, ["enqueued", "failed"]),
        ({"status": []}, ["enqueued", "discarded", "retrying", "failed", "delivered"]),
        ({"only_failures": True}, ["discarded", "retrying", "failed"]),
        ({"only_failures": True, "status": ["delivered", "failed"]}, ["failed"]),
        ({"only_failures": True, "status": "delivered"}, []),
        ({"only_failures": True, "status": []}, ["discarded", "retrying", "failed"]),
        ({"only_failures": True, "hook_id": "first"}, ["retrying", "failed"]),
        ({"resource": "Photos"}, ["enqueued", "discarded"]),
        ({"resource": "photos"}, []),
        ({"action": "create"}, ["discarded"]),
        ({"resource": "Photos", "action": "update"}, ["enqueued"]),
        ({"resource_id": 5}, ["discarded"]),
        ({"resource_id": "5"}, ["discarded"]),
        ({"start": 1}, ["enqueued", "discarded", "retrying", "failed"]),
        ({"end": 1}, ["delivered"]),
        ({"start": 1, "end": 3}, ["retrying", "failed"]),
        ({"start": 3, "end": 3}, []),
        ({"page_size": 2}, ["enqueued", "discarded"]),
    ],
    ids=str,
)
def test_list_filters(
    registry: HookRegistry,
    clock: ManualClock,
    one_of_each: dict[str, int],
    filters: dict[str, Any],
    expected: list[str],
) -> None:
    """Each filter takes exactly what fits, times are half-open, and `iter` and pages of one give the same."""
    began = clock.now() - 4 * SECOND
    filters = {
        name: one_of_each[value] if name == "hook_id" else began + value * SECOND if name in ("start", "end") else value
        for name, value in filters.items()
    }
    wanted = [one_of_each[status] for status in expected]
    assert ids(registry.deliveries.list(**filters)) == wanted
    if "page_size" not in filters:
        assert ids(registry.deliveries.iter(**filters)) == wanted
        assert ids(registry.deliveries.iter(**filters, page_size=1)) == wanted


def test_pages_are_stable_while_rows_arrive(registry: HookRegistry, listening: Listening) -> None:
    """25 a page; what is emitted between two pages shifts nothing."""
    listening()
    emitted = [registry.emit("RFIs", "update").delivery_ids[0] for _ in range(30)]
    first = registry.deliveries.list()
    assert len(first) == 25
    registry.emit("RFIs", "update")
    second = registry.deliveries.list(cursor=first.next_cursor)
    assert ids(first) + ids(second) == emitted[::-1]
    assert second.next_cursor is None


def test_iter_starts_where_it_is_told(registry: HookRegistry, listening: Listening) -> None:
    """`iter` takes every filter of `list`, the cursor too, and reads page by page as it is used."""
    listening()
    emitted = [registry.emit("RFIs", "update").delivery_ids[0] for _ in range(5)]
    cursor = registry.deliveries.list(page_size=2).next_cursor
    assert ids(registry.deliveries.iter(cursor=cursor)) == emitted[2::-1]
    deliveries = registry.deliveries.iter(page_size=1)
    assert next(deliveries).id == emitted[-1]
    registry.deliveries.prune(before=registry.clock.now())
    assert len(list(deliveries)) == 4


def test_history_of_a_deleted_hook(registry: HookRegistry, one_of_each: dict[str, int]) -> None:
    """It stays, and can be listed and counted by the hook's id; a hook that never was is an error."""
    registry.hooks.delete(one_of_each["first"])
    assert len(registry.deliveries.list(one_of_each["first"])) == 3
    since = registry.clock.now() - timedelta(days=1)
    assert registry.deliveries.stats(one_of_each["first"], since=since).total == 3
    for call in (
        lambda: registry.deliveries.list(99),
        lambda: registry.deliveries.list(99, only_failures=True, status="delivered"),
        lambda: next(registry.deliveries.iter(99)),
        lambda: registry.deliveries.stats(99, since=since),
    ):
        with pytest.raises(NotFound, match="hook with id 99"):
            call()


def test_bodies_come_with_get_alone(registry: HookRegistry, one_of_each: dict[str, int]) -> None:
    """Lists have the attempts without bodies; `get` has the very bytes that were sent and received."""
    for delivery in registry.deliveries.list():
        assert all(attempt.request_body == attempt.response_body == b"" for attempt in delivery.attempts)
    (attempt,) = registry.deliveries.get(one_of_each["retrying"]).attempts
    assert b'"data":{"is":"retrying"}' in attempt.request_body
    assert (attempt.number, attempt.outcome, attempt.response_status) == (1, "retried", 500)


@pytest.mark.parametrize("version", ["v2.0", "v3.0", "v4.0", "standard", "own"])
def test_get_has_the_body_as_it_was_sent(clock: ManualClock, endpoint: ScriptedEndpoint, version: str) -> None:
    """In every format, also when the hook is deleted; an own format's body as it was made then."""
    calls: list[int] = []

    def own(event: Any) -> bytes:
        calls.append(event.id)
        return b'{"call":%d}' % len(calls)

    with HookRegistry(MemoryStorage(), clock=clock, payload_formats={"own": own}) as registry:
        hook = registry.hooks.create("https://hooks.acme.example/", namespace="acme", payload_version=version)
        registry.triggers.create(hook.id, "RFIs", "update")
        delivery_id = registry.emit("RFIs", "update", {"subject": "Tür"}).delivery_ids[0]
        endpoint.reply(500, body=b"no")
        dispatcher = Dispatcher(registry, transport=endpoint)
        dispatcher.drain()
        clock.advance(timedelta(hours=1))
        dispatcher.drain()
        registry.hooks.delete(hook.id)
        attempts = registry.deliveries.get(delivery_id).attempts
        assert [attempt.request_body for attempt in attempts] == [request.body for request in endpoint.requests]
        assert [attempt.response_body for attempt in attempts] == [b"no", b""]
        assert len(calls) == (2 if version == "own" else 0)


def test_the_history_holds_no_credentials(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain
) -> None:
    """Headers are masked to their last five characters, the URL's query is stars, errors quote neither."""
    token, query = "Bearer c3a24b8208deadbeef", "token=s3cr3t-in-the-url"
    listening(url=f"https://hooks.acme.example/in?{query}", destination_headers={"Authorization": token})
    endpoint.reply(error=httpx.LocalProtocolError(f"Illegal header value {token!r} for {query}"))
    delivery_id = registry.emit("RFIs", "update").delivery_ids[0]
    drain()
    delivery = registry.deliveries.get(delivery_id)
    (attempt,) = delivery.attempts
    assert attempt.request_url == "https://hooks.acme.example/in?*****"
    assert attempt.request_headers["authorization"] == "*****dbeef"
    assert attempt.response_error is not None
    for text in (repr(delivery), attempt.response_error, str(attempt.request_headers)):
        assert "c3a24b8208" not in text
        assert "s3cr3t" not in text


def test_redeliver(
    registry: HookRegistry, one_of_each: dict[str, int], drain: Drain, endpoint: ScriptedEndpoint
) -> None:
    """A new delivery of the same event, with the same webhook-id, that points at the old, which stays as it is."""
    old = registry.deliveries.get(one_of_each["failed"])
    new = registry.deliveries.redeliver(old.id)
    assert new.id not in one_of_each.values()
    assert (new.redelivery_of, new.status, new.hook_id, new.event) == (old.id, "enqueued", old.hook_id, old.event)
    endpoint.reset()
    drain()
    assert old.event.ulid in [request.headers["webhook-id"] for request in endpoint.requests]
    assert registry.deliveries.get(new.id).status == "delivered"
    assert registry.deliveries.get(old.id) == old
    assert registry.deliveries.redeliver(new.id).redelivery_of == new.id


def test_redeliver_refuses(registry: HookRegistry, one_of_each: dict[str, int]) -> None:
    """What is not final yet, what is not there, and what has no hook that would take it."""
    for status in ("enqueued", "retrying"):
        with pytest.raises(Conflict, match=status):
            registry.deliveries.redeliver(one_of_each[status])
    with pytest.raises(NotFound, match="delivery with id 99"):
        registry.deliveries.redeliver(99)
    registry.hooks.update(one_of_each["first"], when_disabled="drop")
    registry.hooks.disable(one_of_each["first"])
    with pytest.raises(Conflict, match="enable"):
        registry.deliveries.redeliver(one_of_each["failed"])
    registry.hooks.delete(one_of_each["first"])
    with pytest.raises(NotFound, match="hook"):
        registry.deliveries.redeliver(one_of_each["failed"])
    assert len(registry.deliveries.list()) == 5


def test_recover_takes_what_nothing_covers(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain, clock: ManualClock
) -> None:
    """The failed and discarded of [since, until) once each; not again while a redelivery lives or has arrived."""
    hook = listening()
    began = clock.now()
    endpoint.reply(400, {"webhook-delivery": "abort-message"}, times=3)
    lost = []
    for _ in range(3):
        lost.append(registry.emit("RFIs", "update").delivery_ids[0])
        drain()
        clock.advance(SECOND)
    recover = registry.deliveries.recover
    assert recover(hook.id, since=began + SECOND, until=began + 2 * SECOND) == 1
    assert [delivery.redelivery_of for delivery in registry.deliveries.list(page_size=1)] == [lost[1]]
    assert recover(hook.id, since=began) == 2
    assert recover(hook.id, since=began) == 0
    assert drain().delivered == 3
    assert recover(hook.id, since=began) == 0
    webhook_ids = [request.headers["webhook-id"] for request in endpoint.requests]
    assert sorted(webhook_ids[:3]) == sorted(webhook_ids[3:])


def test_recover_goes_on_when_a_redelivery_failed_too(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain, clock: ManualClock
) -> None:
    """A failed redelivery covers nothing: the event is recovered again, once, up to this very moment."""
    hook = listening()
    endpoint.reply(400, {"webhook-delivery": "abort-message"}, times=2)
    registry.emit("RFIs", "update")
    drain()
    assert registry.deliveries.recover(hook.id, since=clock.now()) == 1
    drain()
    assert registry.deliveries.recover(hook.id, since=clock.now()) == 1
    assert drain().delivered == 1


def test_recover_refuses(registry: HookRegistry, listening: Listening, clock: ManualClock) -> None:
    """An unknown hook, one that drops, and times in the wrong order."""
    hook = listening(when_disabled="drop")
    with pytest.raises(NotFound):
        registry.deliveries.recover(99, since=clock.now())
    with pytest.raises(InvalidInput, match="since"):
        registry.deliveries.recover(hook.id, since=clock.now() + SECOND)
    with pytest.raises(InvalidInput, match="since"):
        registry.deliveries.recover(hook.id, since=clock.now(), until=clock.now() - SECOND)
    registry.hooks.disable(hook.id)
    with pytest.raises(Conflict, match="enable"):
        registry.deliveries.recover(hook.id, since=clock.now())


def test_prune_deletes_what_is_final_and_older(
    registry: HookRegistry, clock: ManualClock, one_of_each: dict[str, int]
) -> None:
    """What waits stays whatever its age, and so does what was made at the very moment."""
    began = clock.now() - 4 * SECOND
    assert registry.deliveries.prune(before=began) == 0
    assert registry.deliveries.prune(before=began + SECOND) == 1
    with pytest.raises(NotFound):
        registry.deliveries.get(one_of_each["delivered"])
    assert registry.deliveries.prune(before=clock.now() + timedelta(days=400)) == 2
    assert ids(registry.deliveries.list()) == [one_of_each["enqueued"], one_of_each["retrying"]]


def test_ids_are_not_used_again_after_prune(registry: HookRegistry, listening: Listening, drain: Drain) -> None:
    """The id of a pruned delivery never names another one."""
    listening()
    old = registry.emit("RFIs", "update").delivery_ids[0]
    drain()
    assert registry.deliveries.prune(before=registry.clock.now() + SECOND) == 1
    assert registry.emit("RFIs", "update").delivery_ids[0] > old


def test_stats(registry: HookRegistry, clock: ManualClock, one_of_each: dict[str, int]) -> None:
    """How many are in each status, of one hook or of all, made at or after the moment."""
    began = clock.now() - 4 * SECOND
    stats = registry.deliveries.stats(since=began)
    assert (stats.enqueued, stats.retrying, stats.delivered, stats.failed, stats.discarded) == (1, 1, 1, 1, 1)
    assert (stats.total, stats.since) == (5, began)
    assert registry.deliveries.stats(one_of_each["second"], since=began).total == 2
    late = registry.deliveries.stats(since=began + 3 * SECOND)
    assert (late.enqueued, late.discarded, late.total) == (1, 1, 2)
    assert registry.deliveries.stats(since=clock.now() + SECOND).total == 0


def test_stats_in_buckets(registry: HookRegistry, clock: ManualClock, one_of_each: dict[str, int]) -> None:
    """Spans from `since` on, the last of which holds the present; together they are the stats without buckets."""
    began = clock.now() - 4 * SECOND
    stats = registry.deliveries.stats(since=began, bucket=2 * SECOND)
    assert attrs.evolve(stats, buckets=()) == registry.deliveries.stats(since=began)
    assert [one.start for one in stats.buckets] == [began, began + 2 * SECOND, began + 4 * SECOND]
    assert [(one.delivered, one.failed, one.retrying, one.discarded, one.enqueued) for one in stats.buckets] == [
        (1, 1, 0, 0, 0),
        (0, 0, 1, 1, 0),
        (0, 0, 0, 0, 1),
    ]
    assert sum(one.total for one in stats.buckets) == stats.total == 5
    second = registry.deliveries.stats(one_of_each["second"], since=began, bucket=timedelta(minutes=15))
    assert [(one.start, one.total) for one in second.buckets] == [(began, 2)]


def test_what_a_clock_that_was_set_back_left_is_in_the_last_bucket(
    registry: HookRegistry, clock: ManualClock, one_of_each: dict[str, int]
) -> None:
    """Deliveries from after the present moment count in the last bucket; where `since` is later still, in the one."""
    later = clock.now()
    clock.set(later - 3 * SECOND)
    began = clock.now() - SECOND
    stats = registry.deliveries.stats(since=began, bucket=SECOND)
    assert [one.total for one in stats.buckets] == [1, 4]
    assert [(one.start, one.enqueued) for one in registry.deliveries.stats(since=later, bucket=SECOND).buckets] == [
        (later, 1)
    ]


def test_buckets_of_a_hook_that_never_was(registry: HookRegistry, clock: ManualClock) -> None:
    """It is not found, with buckets as without; and 5,000 buckets will do."""
    with pytest.raises(NotFound):
        registry.deliveries.stats(99, since=clock.now(), bucket=SECOND)
    stats = registry.deliveries.stats(since=clock.now() - 4_999 * SECOND, bucket=SECOND)
    assert (len(stats.buckets), stats.total) == (5_000, 0)
    with pytest.raises(InvalidInput, match="5,001"):
        registry.deliveries.stats(since=clock.now() - 5_000 * SECOND, bucket=SECOND)


def test_a_failing_hook_is_flushed_after_twelve_hours(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain, clock: ManualClock
) -> None:
    """Procore's policy, replayed: the head is failed, the rest discarded, each with a reason; then it starts afresh."""
    listening()
    began = clock.now()
    emissions = registry.emit_many([EventInput("RFIs", "update")] * 3)
    endpoint.reply(500, times=None)
    report = drain()
    while registry.deliveries.stats(since=began).failed == 0:
        assert report.next_due_at is not None
        clock.set(max(report.next_due_at, clock.now()))
        report = drain()
    assert timedelta(hours=12) <= clock.now() - began <= timedelta(hours=13, seconds=2)
    head, *rest = (registry.deliveries.get(emission.delivery_ids[0]) for emission in emissions)
    assert head.status == "failed"
    assert head.attempt_count == len(head.attempts) == len(endpoint.requests)
    assert head.reason is not None
    assert "12 h" in head.reason
    for delivery in rest:
        assert (delivery.status, delivery.attempts) == ("discarded", ())
        assert "flushed" in str(delivery.reason)
    endpoint.reply(200, times=None)
    registry.emit("RFIs", "update")
    assert drain().delivered == 1
