"""Hours and days of retries, replayed with a clock turned by hand: Procore's schedule and Standard Webhooks'."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

from procore_hooks import Dispatcher, DrainReport, HookRegistry, RetryPolicy
from procore_hooks.testing import ManualClock, ScriptedEndpoint

from .conftest import hook_for

HALF_A_DAY = timedelta(hours=12)


def replay(dispatcher: Dispatcher, clock: ManualClock) -> list[DrainReport]:
    """Drain, go to the next moment at which something is due, drain, and so on, until nothing is."""
    reports = [dispatcher.drain()]
    while (due := reports[-1].next_due_at) is not None:
        assert due > clock.now()
        clock.set(due)
        reports.append(dispatcher.drain())
    return reports


def gaps(moments: list[datetime]) -> list[float]:
    return [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(moments)]


# Procore: pause, 1 s to 1 h, 12 h


def test_twelve_hours_of_procores_schedule(by_hand: HookRegistry, clock: ManualClock) -> None:
    """1, 2, 4 ... 3,600 s, each up to a second longer; after 12 h the head is failed and the rest discarded."""
    hook = hook_for(by_hand)
    endpoint = ScriptedEndpoint().reply(500, times=None)
    head, *rest = [by_hand.emit("RFIs", "update", number).delivery_ids[0] for number in range(5)]
    start = clock.now()
    reports = replay(Dispatcher(by_hand, transport=endpoint), clock)

    delivery = by_hand.deliveries.get(head)
    waits = gaps([attempt.started_at for attempt in delivery.attempts])
    expected = [min(2.0**n, 3600.0) for n in range(len(waits))]
    assert all(want <= wait <= want + 1 for want, wait in zip(expected, waits, strict=True))
    assert any(wait != want for want, wait in zip(expected, waits, strict=True))  # there is jitter
    assert HALF_A_DAY <= clock.now() - start <= HALF_A_DAY + timedelta(hours=1, seconds=1)
    assert len(delivery.attempts) == len(endpoint.requests) == len(reports) == delivery.attempt_count

    assert (delivery.status, delivery.completed_at) == ("failed", clock.now())
    assert [a.outcome for a in delivery.attempts] == ["retried"] * (len(reports) - 1) + ["failed"]
    assert str(delivery.reason).startswith(f"given up after {len(reports)} attempts in 12 h")
    assert str(delivery.reason).endswith("without a success; the last: HTTP 500")
    for waited in map(by_hand.deliveries.get, rest):
        assert (waited.status, waited.attempts) == ("discarded", ())
        assert str(waited.reason).startswith(f"the queue was flushed after {len(reports)} attempts in 12 h")
    assert sum(report.retried for report in reports) == len(reports) - 1
    assert (reports[-1].failed, reports[-1].discarded) == (1, 4)
    assert by_hand.hooks.get(hook.id).status == "active"


def test_the_next_event_starts_a_fresh_cycle(by_hand: HookRegistry, clock: ManualClock) -> None:
    """After a flush the hook is tried at once again, and has 12 hours again."""
    hook = hook_for(by_hand)
    endpoint = ScriptedEndpoint().reply(500, times=None)
    dispatcher = Dispatcher(by_hand, transport=endpoint)
    by_hand.emit("RFIs", "update")
    first = replay(dispatcher, clock)
    clock.advance(timedelta(days=3))
    hook = by_hand.hooks.get(hook.id)
    assert (hook.failing_since, hook.paused_until) == (None, None)

    (second,) = by_hand.emit("RFIs", "update").delivery_ids
    emitted_at = clock.now()
    again = replay(dispatcher, clock)
    attempts = by_hand.deliveries.get(second).attempts
    assert attempts[0].started_at == emitted_at
    assert 1 <= gaps([a.started_at for a in attempts])[0] <= 2
    assert abs(len(again) - len(first)) <= 1
    assert clock.now() - emitted_at >= HALF_A_DAY


def test_a_success_resets_the_schedule(by_hand: HookRegistry, clock: ManualClock) -> None:
    """After a success the queue flows in order, and the next failure begins at one second."""
    hook_for(by_hand)
    endpoint = ScriptedEndpoint().reply(500, times=8).reply(200, times=3).reply(500).reply(200)
    dispatcher = Dispatcher(by_hand, transport=endpoint)
    sent = [by_hand.emit("RFIs", "update", number).delivery_ids[0] for number in range(4)]
    reports = replay(dispatcher, clock)

    assert [request.json()["data"] for request in endpoint.requests] == [*[0] * 9, 1, 2, 3, 3]
    assert sum(report.delivered for report in reports) == 4
    last = by_hand.deliveries.get(sent[3])
    assert 1 <= gaps([a.started_at for a in last.attempts])[0] <= 2
    assert 128 <= gaps([a.started_at for a in by_hand.deliveries.get(sent[0]).attempts])[-1] <= 129
    assert by_hand.hooks.get(1).failing_since is None


def test_a_failing_hook_gets_one_probe_at_a_time(by_hand: HookRegistry, clock: ManualClock) -> None:
    """However wide a hook is, while it fails one delivery goes out at a time, and the twelve hours count for all."""
    hook_for(by_hand, max_in_flight=3)
    endpoint = ScriptedEndpoint().reply(503, times=None)
    for number in range(6):
        by_hand.emit("RFIs", "update", number)
    dispatcher = Dispatcher(by_hand, transport=endpoint)
    assert dispatcher.drain().retried == 3
    reports = replay(dispatcher, clock)[1:]
    assert {report.retried + report.failed for report in reports} == {1}
    stats = by_hand.deliveries.stats(since=by_hand.hooks.get(1).created_at)
    assert (stats.failed, stats.discarded) == (1, 5)


# Standard Webhooks: independent, ten attempts

STEPS = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]


def test_ten_attempts_of_the_standard_webhooks_schedule(by_hand: HookRegistry, clock: ManualClock) -> None:
    """At once, then after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h, up to a tenth longer; then it is failed."""
    hook_for(by_hand)
    endpoint = ScriptedEndpoint().reply(500, times=None)
    (sent,) = by_hand.emit("RFIs", "update").delivery_ids
    dispatcher = Dispatcher(by_hand, transport=endpoint, retry=RetryPolicy.standard_webhooks())
    replay(dispatcher, clock)

    delivery = by_hand.deliveries.get(sent)
    waits = gaps([attempt.started_at for attempt in delivery.attempts])
    assert len(waits) == 9
    assert all(step <= wait <= step * 1.1 for step, wait in zip(STEPS, waits, strict=True))
    assert (delivery.status, delivery.attempt_count) == ("failed", 10)
    assert str(delivery.reason).startswith("given up after 10 attempts in ")


def test_fresh_deliveries_flow_on_while_others_wait(by_hand: HookRegistry, clock: ManualClock) -> None:
    """Under `independent` one delivery that always fails holds nobody up: the others are delivered at once."""
    hook_for(by_hand)

    class Picky(ScriptedEndpoint):
        async def handle_async_request(self, request):  # type: ignore[no-untyped-def]
            response = await super().handle_async_request(request)
            if b'"data":"bad"' in request.content:
                response.status_code = 500
            return response

    endpoint = Picky()
    dispatcher = Dispatcher(by_hand, transport=endpoint, retry=RetryPolicy.standard_webhooks())
    (bad,) = by_hand.emit("RFIs", "update", "bad").delivery_ids
    for number in range(3):
        by_hand.emit("RFIs", "update", number)
    report = dispatcher.drain()
    assert (report.delivered, report.retried) == (3, 1)

    for number in range(3, 12):
        assert report.next_due_at is not None
        clock.set(report.next_due_at)
        by_hand.emit("RFIs", "update", number)
        report = dispatcher.drain()
        assert report.delivered == 1
    assert report.failed == 1
    assert by_hand.deliveries.get(bad).attempt_count == 10
    assert [r.json()["data"] for r in endpoint.requests if r.json()["data"] != "bad"] == list(range(12))


def test_each_delivery_has_a_schedule_of_its_own(by_hand: HookRegistry, clock: ManualClock) -> None:
    """Two deliveries that fail at different times are tried again at different times, each by its own number."""
    hook_for(by_hand)
    dispatcher = Dispatcher(
        by_hand, transport=ScriptedEndpoint().reply(500, times=None), retry=RetryPolicy.standard_webhooks()
    )
    (first,) = by_hand.emit("RFIs", "update").delivery_ids
    dispatcher.drain()
    clock.advance(timedelta(hours=1))
    (second,) = by_hand.emit("RFIs", "update").delivery_ids
    replay(dispatcher, clock)
    for sent in (first, second):
        attempts = by_hand.deliveries.get(sent).attempts
        assert len(attempts) == 10
    waits = gaps([attempt.started_at for attempt in by_hand.deliveries.get(second).attempts])
    assert all(step <= wait <= step * 1.1 for step, wait in zip(STEPS, waits, strict=True))
