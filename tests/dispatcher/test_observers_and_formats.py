"""What an app hands to a dispatcher: observers that listen, payload formats that render. Both may raise."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from tenacity import stop_after_attempt, wait_fixed

from procore_hooks import Dispatcher, Event, HookRegistry, MemoryStorage, RetryPolicy
from procore_hooks._core.payloads import PayloadFormat
from procore_hooks.observers import AttemptRecorded, HookDisabled, HookPaused, HookResumed, Notice, QueueFlushed
from procore_hooks.testing import ManualClock, ScriptedEndpoint

from .conftest import answering, emit, hook_for, wait_until

EVERY_MINUTE = RetryPolicy(wait=wait_fixed(60), stop=stop_after_attempt(3))


# Observers


def test_observers_are_told_in_order(by_hand: HookRegistry, clock: ManualClock) -> None:
    """Each attempt first, then what it did to its hook: paused, resumed, paused, flushed, disabled."""
    hook = hook_for(by_hand)
    endpoint = ScriptedEndpoint().reply(500).reply(200).reply(500, times=3).reply(410)
    told: list[Notice] = []
    dispatcher = Dispatcher(by_hand, transport=endpoint, retry=EVERY_MINUTE, observers=[told.append])
    emit(by_hand)
    dispatcher.drain()
    clock.advance(timedelta(minutes=1))
    dispatcher.drain()
    emit(by_hand)
    emit(by_hand)
    for _ in range(3):
        dispatcher.drain()
        clock.advance(timedelta(minutes=1))
    emit(by_hand)
    dispatcher.drain()

    assert [type(notice) for notice in told] == [
        *(AttemptRecorded, HookPaused, AttemptRecorded, HookResumed),
        *(AttemptRecorded, HookPaused) * 2,
        *(AttemptRecorded, QueueFlushed, AttemptRecorded, HookDisabled),
    ]
    paused = [notice for notice in told if isinstance(notice, HookPaused)]
    assert [notice.failures for notice in paused] == [1, 1, 2]
    assert paused[0].until - paused[0].failing_since == timedelta(minutes=1)
    attempts = [notice for notice in told if isinstance(notice, AttemptRecorded)]
    assert [notice.status for notice in attempts] == [
        *("retrying", "delivered", "retrying", "retrying", "failed", "retrying")
    ]
    assert {notice.hook.id for notice in told} == {hook.id}


def test_a_notice_comes_after_the_fact_is_stored(by_hand: HookRegistry) -> None:
    """An observer that looks finds the attempt in the history."""
    hook_for(by_hand)
    seen: list[str] = []

    def look(notice: Notice) -> None:
        if isinstance(notice, AttemptRecorded):
            seen.append(by_hand.deliveries.get(notice.delivery_id).status)

    emit(by_hand)
    Dispatcher(by_hand, transport=answering(), observers=[look]).drain()
    assert seen == ["delivered"]


def test_observers_that_raise_are_harmless(by_hand: HookRegistry, caplog: pytest.LogCaptureFixture) -> None:
    """What an observer raises is logged; the other observers and all deliveries go on."""
    hook_for(by_hand)
    told: list[Notice] = []

    def broken(notice: Notice) -> None:
        raise LookupError("of the observer")

    for _ in range(3):
        emit(by_hand)
    with caplog.at_level(logging.ERROR, "procore_hooks"):
        report = Dispatcher(by_hand, transport=answering(), observers=[broken, told.append]).drain()
    assert (report.delivered, len(told)) == (3, 3)
    assert caplog.text.count("an observer raised on AttemptRecorded") == 3


def test_an_observer_may_emit(by_hand: HookRegistry) -> None:
    """An observer may use the registry from the dispatcher's thread; what it emits is delivered."""
    hook_for(by_hand)
    sent = [emit(by_hand)]

    def answer(notice: Notice) -> None:
        if isinstance(notice, AttemptRecorded) and len(sent) < 3:
            sent.append(emit(by_hand))

    with Dispatcher(by_hand, transport=answering(), observers=[answer]):
        wait_until(lambda: len(sent) == 3 and by_hand.deliveries.get(sent[2]).status == "delivered")


def test_operators_hear_of_failures_once(
    by_hand: HookRegistry, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A run of failures is one warning at its beginning, a success one line at its end, whatever lies between."""
    hook_for(by_hand)
    endpoint = ScriptedEndpoint().reply(500, times=2)
    dispatcher = Dispatcher(by_hand, transport=endpoint, retry=EVERY_MINUTE)
    emit(by_hand)
    with caplog.at_level(logging.INFO, "procore_hooks"):
        for _ in range(3):
            dispatcher.drain()
            clock.advance(timedelta(minutes=1))
    assert [record.getMessage() for record in caplog.records] == [
        "hook 1: deliveries fail (HTTP 500) and will be tried again",
        "hook 1: deliveries succeed again",
    ]


# Payload formats


def registry_with(**formats: PayloadFormat) -> HookRegistry:
    return HookRegistry(MemoryStorage(), payload_formats=formats, clock=ManualClock())


def test_a_format_of_the_app_makes_the_body() -> None:
    """A JSON value is serialised, bytes go out as they are, and the history keeps what was sent."""

    def as_json(event: Event) -> object:
        return {"what": event.resource, "who": event.payload["name"]}

    with registry_with(mine=as_json, raw=lambda event: b"<xml/>") as registry:
        for version in ("mine", "raw"):
            hook_for(registry, payload_version=version)
        endpoint = ScriptedEndpoint()
        registry.emit("RFIs", "update", {"name": "Ada"})
        Dispatcher(registry, transport=endpoint).drain()
        bodies = {b'{"what":"RFIs","who":"Ada"}', b"<xml/>"}
        assert {request.body for request in endpoint.requests} == bodies
        stored = [registry.deliveries.get(one.id).attempts[0].request_body for one in registry.deliveries.list()]
        assert set(stored) == bodies


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        (lambda event: event.payload["secret"]["missing"], "the payload format 'mine' raised TypeError"),
        (lambda event: {"x": object()}, "mine"),
        (lambda event: float("nan"), "mine"),
    ],
    ids=["raises", "no JSON", "NaN"],
)
def test_a_format_that_fails_is_a_recorded_attempt(format_: PayloadFormat, text: str) -> None:
    """Nothing is sent; the attempt fails in words that do not quote the payload, and others go on."""
    with registry_with(mine=format_) as registry:
        hook_for(registry, payload_version="mine")
        hook_for(registry)
        endpoint = ScriptedEndpoint()
        registry.emit("RFIs", "update", {"secret": "s3cr3t"})
        report = Dispatcher(registry, transport=endpoint, retry=EVERY_MINUTE).drain()

        assert (report.delivered, report.retried, len(endpoint.requests)) == (1, 1, 1)
        (failed,) = registry.deliveries.list(only_failures=True)
        (attempt,) = failed.attempts
        assert (attempt.outcome, attempt.request_body, attempt.response_status) == ("retried", b"", None)
        assert text in str(attempt.response_error)
        assert "s3cr3t" not in str(attempt.response_error)
        # Looking at it does not call the format again.
        assert registry.deliveries.get(failed.id).attempts == failed.attempts


def test_a_format_that_this_process_lacks_is_a_recorded_attempt() -> None:
    """A dispatcher without the hook's format says so in the history, and delivers the rest."""
    with registry_with(mine=lambda event: {}) as registry:
        hook_for(registry, payload_version="mine")
        registry.emit("RFIs", "update")
        without = HookRegistry(registry.storage, clock=registry.clock)
        Dispatcher(without, transport=answering(), retry=EVERY_MINUTE).drain()
        attempt = registry.deliveries.list()[0].last_attempt
        assert attempt is not None
        assert "payload_version: 'mine' is not known" in str(attempt.response_error)


def test_a_retry_strategy_that_raises_waits_a_minute(
    by_hand: HookRegistry, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken strategy neither loses the delivery nor hammers the endpoint."""

    def broken(state: object) -> float:
        raise ZeroDivisionError

    hook_for(by_hand)
    emit(by_hand)
    policy = RetryPolicy(wait=broken, stop=stop_after_attempt(3))
    report = Dispatcher(by_hand, transport=answering(500), retry=policy).drain()
    assert report.next_due_at == clock.now() + timedelta(minutes=1)
    assert "the retry policy raised" in caplog.text
