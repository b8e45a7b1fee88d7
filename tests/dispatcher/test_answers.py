"""What each answer of an endpoint leads to, in the history and for the hook's queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import format_datetime

import httpx
import pytest
from tenacity import stop_after_attempt, wait_fixed

from procore_hooks import Attempt, Dispatcher, HookRegistry, RetryPolicy, Timeouts
from procore_hooks.testing import ManualClock, ScriptedEndpoint, WebhookReceiver

from .conftest import BOUND, HeldEndpoint, answering, emit, hook_for

EVERY_MINUTE = RetryPolicy(wait=wait_fixed(60), stop=stop_after_attempt(100))
ALONE = RetryPolicy(wait=wait_fixed(600), stop=stop_after_attempt(100), on_failure="independent")


class Stream(httpx.AsyncByteStream):
    """A body of these chunks; then it hangs, if told to."""

    def __init__(self, chunk: bytes, times: int, hangs: bool = False) -> None:
        self.chunk, self.times, self.hangs = chunk, times, hangs
        self.read = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.times):
            self.read += len(self.chunk)
            yield self.chunk
        if self.hangs:
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed = True


def attempt_on(registry: HookRegistry, transport: httpx.AsyncBaseTransport, **keywords: object) -> Attempt:
    """The attempt of one event sent through `transport`."""
    sent = emit(registry)
    Dispatcher(registry, transport=transport, **keywords).drain()  # type: ignore[arg-type]
    (attempt,) = registry.deliveries.get(sent).attempts
    return attempt


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(by_hand: HookRegistry, status: int) -> None:
    """The whole range from 200 to 299 delivers."""
    hook_for(by_hand)
    attempt = attempt_on(by_hand, answering(status))
    assert (attempt.outcome, attempt.response_status, attempt.response_error) == ("ok", status, None)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 422, 500, 599])
def test_everything_else_is_failure(by_hand: HookRegistry, clock: ManualClock, status: int) -> None:
    """Redirects, client and server errors pause the hook, and the delivery keeps its place."""
    hook = hook_for(by_hand)
    attempt = attempt_on(by_hand, answering(status), retry=EVERY_MINUTE)
    assert (attempt.outcome, attempt.response_status) == ("retried", status)
    assert by_hand.hooks.get(hook.id).paused_until == clock.now() + timedelta(minutes=1)
    assert by_hand.deliveries.list()[0].status == "retrying"


def test_redirects_are_not_followed(registry: HookRegistry) -> None:
    """The place that a redirect names gets no request."""
    with WebhookReceiver() as elsewhere, WebhookReceiver() as receiver:
        receiver.reply(307, {"Location": elsewhere.url})
        hook_for(registry, receiver.url)
        emit(registry)
        report = Dispatcher(registry, retry=EVERY_MINUTE).drain()
        assert (report.retried, len(receiver.requests), elsewhere.requests) == (1, 1, [])


def test_gone_disables_the_hook_and_keeps_its_queue(by_hand: HookRegistry) -> None:
    """A 410 disables; what waits, the refused delivery first, flows in order after `enable`."""
    hook = hook_for(by_hand)
    endpoint = ScriptedEndpoint().reply(410)
    sent = [emit(by_hand, number) for number in range(3)]
    dispatcher = Dispatcher(by_hand, transport=endpoint)

    assert dispatcher.drain().next_due_at is None
    assert by_hand.hooks.get(hook.id).status == "disabled"
    assert [by_hand.deliveries.get(i).status for i in sent] == ["retrying", "enqueued", "enqueued"]
    by_hand.hooks.enable(hook.id)
    assert dispatcher.drain().delivered == 3
    assert [request.json()["data"] for request in endpoint.requests] == [0, 0, 1, 2]


@pytest.mark.parametrize("status", [200, 500])
def test_webhook_delivery_disable_acts_as_410(by_hand: HookRegistry, status: int) -> None:
    """`webhook-delivery: disable` disables the hook; on a success that delivery is delivered all the same."""
    hook = hook_for(by_hand)
    first, second = emit(by_hand), emit(by_hand)
    Dispatcher(by_hand, transport=answering(status, {"Webhook-Delivery": " Disable "})).drain()
    assert by_hand.hooks.get(hook.id).status == "disabled"
    assert by_hand.deliveries.get(first).status == ("delivered" if status == 200 else "retrying")
    assert by_hand.deliveries.get(second).attempt_count == 0


def test_abort_message_fails_one_delivery_without_a_pause(by_hand: HookRegistry) -> None:
    """`webhook-delivery: abort-message` makes that delivery ``failed``; the next goes out at once."""
    hook = hook_for(by_hand)
    first, second = emit(by_hand), emit(by_hand)
    endpoint = ScriptedEndpoint().reply(422, {"webhook-delivery": "abort-message"})
    report = Dispatcher(by_hand, transport=endpoint).drain()

    assert (report.failed, report.delivered) == (1, 1)
    delivery = by_hand.deliveries.get(first)
    assert (delivery.status, delivery.reason) == ("failed", "the endpoint aborted this message (HTTP 422)")
    assert by_hand.deliveries.get(second).status == "delivered"
    assert by_hand.hooks.get(hook.id).failing_since is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 60),
        ("-1", 60),
        ("99999999999999999999", 3600),
        ("\u0661\u0662\u0660", 60),
        ("soon", 60),
        ("date", 1800),
    ],
)
@pytest.mark.parametrize("status", [429, 503, 500])
def test_retry_after_is_obeyed_and_clamped(
    by_hand: HookRegistry, clock: ManualClock, status: int, value: str, seconds: int
) -> None:
    """A `Retry-After` lengthens the pause, to an hour at most; what is none changes nothing, whatever the status."""
    hook = hook_for(by_hand)
    text = format_datetime(clock.now() + timedelta(minutes=30)) if value == "date" else value
    endpoint = ScriptedEndpoint().reply(status, {"Retry-After": text})
    attempt_on(by_hand, endpoint, retry=EVERY_MINUTE)
    assert by_hand.hooks.get(hook.id).paused_until == clock.now() + timedelta(seconds=seconds)


@pytest.mark.parametrize(("headers", "seconds"), [({"retry-after": "90"}, 90), ({}, 60)])
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_endpoint_is_spared_under_independent(
    by_hand: HookRegistry, clock: ManualClock, status: int, headers: dict[str, str], seconds: int
) -> None:
    """429, 502, 503 and 504 hold the whole hook up, though a failed delivery otherwise waits alone."""
    hook_for(by_hand)
    first, second = emit(by_hand), emit(by_hand)
    endpoint = ScriptedEndpoint().reply(status, headers)
    dispatcher = Dispatcher(by_hand, transport=endpoint, retry=ALONE)

    assert dispatcher.drain().next_due_at == clock.now() + timedelta(seconds=seconds)
    assert by_hand.deliveries.get(second).attempt_count == 0
    clock.advance(timedelta(seconds=seconds))
    assert dispatcher.drain().delivered == 1
    assert (by_hand.deliveries.get(first).status, by_hand.deliveries.get(second).status) == ("retrying", "delivered")


@pytest.mark.parametrize("status", [200, 500])
def test_an_endless_body_is_cut(by_hand: HookRegistry, status: int) -> None:
    """Of a body at most 64 KiB are read and 8 KiB are kept; the answer counts by its status."""
    hook_for(by_hand)
    stream = Stream(b"x" * 1000, 10**9)
    attempt = attempt_on(by_hand, httpx.MockTransport(lambda _: httpx.Response(status, stream=stream)))

    assert attempt.outcome == ("ok" if status == 200 else "retried")
    assert (attempt.response_body, attempt.response_error) == (b"x" * 8192, None)
    assert 65_536 <= stream.read < 65_536 + 2000
    assert stream.closed


def test_one_huge_chunk_is_cut_too(by_hand: HookRegistry) -> None:
    """A body that comes at once, or was read already, is kept no further than any other."""
    hook_for(by_hand)
    assert len(attempt_on(by_hand, answering(content=b"y" * 10**6)).response_body) == 8192


def test_an_endless_body_over_a_socket_is_cut(registry: HookRegistry) -> None:
    """The same over a real connection, which is not used again then."""
    with WebhookReceiver() as receiver:
        receiver.reply(200, {"content-length": str(10**9)}, b"z" * 200_000)
        hook_for(registry, receiver.url)
        attempt = attempt_on(registry, None)  # type: ignore[arg-type]
        assert (attempt.outcome, attempt.response_body) == ("ok", b"z" * 8192)
        assert attempt_on(registry, None).outcome == "ok"  # type: ignore[arg-type]


def test_a_2xx_whose_body_hangs_is_a_success(registry: HookRegistry) -> None:
    """The status decides: what came of the body is kept, and the history says that it did not end."""
    hook_for(registry)
    stream = Stream(b"half", 1, hangs=True)
    transport = httpx.MockTransport(lambda _: httpx.Response(202, stream=stream))
    attempt = attempt_on(registry, transport, timeouts=Timeouts(total=0.05))

    assert (attempt.outcome, attempt.response_status, attempt.response_body) == ("ok", 202, b"half")
    assert attempt.response_error == "the answer did not end within 0.05 s"
    assert stream.closed


def test_a_failure_whose_body_hangs_is_a_failure(registry: HookRegistry) -> None:
    """A hanging body does not turn another status into a success."""
    hook_for(registry)
    transport = httpx.MockTransport(lambda _: httpx.Response(500, stream=Stream(b"half", 1, hangs=True)))
    attempt = attempt_on(registry, transport, timeouts=Timeouts(total=0.05), retry=EVERY_MINUTE)
    assert (attempt.outcome, attempt.response_status) == ("retried", 500)


def test_the_total_deadline_ends_an_attempt(registry: HookRegistry) -> None:
    """An endpoint that never answers costs `timeouts.total`, whatever the transport thinks of timeouts."""
    hook_for(registry)
    sent = emit(registry)
    Dispatcher(registry, transport=HeldEndpoint(), timeouts=Timeouts(total=0.05), retry=EVERY_MINUTE).drain(BOUND)
    (attempt,) = registry.deliveries.get(sent).attempts
    assert (attempt.outcome, attempt.response_status) == ("retried", None)
    assert attempt.response_error == "no answer came within 0.05 s"


def test_the_timeouts_reach_the_transport(registry: HookRegistry) -> None:
    """Connect and response timeouts are the request's own, in httpx's terms."""
    hook_for(registry)
    seen: list[object] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return httpx.Response(200)

    timeouts = Timeouts(connect=1, response=2, total=3)
    attempt_on(registry, httpx.MockTransport(handler), timeouts=timeouts)
    assert seen == [{"connect": 1, "read": 2, "write": 3, "pool": 1}]


def test_headers_of_answers_are_kept_without_cookies(registry: HookRegistry) -> None:
    """Names are lower case, cookies masked, control characters gone."""
    hook_for(registry)
    headers = [(b"X-Trace", b"a\x01b"), (b"Set-Cookie", b"session=secret")]
    attempt = attempt_on(registry, httpx.MockTransport(lambda _: httpx.Response(200, headers=headers)))
    assert attempt.response_headers["x-trace"] == "a?b"
    assert "secret" not in str(attempt)
