"""Transports of every kind, and whatever they raise: one recorded attempt each, readable and without a secret."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from tenacity import stop_after_attempt, wait_fixed

from procore_hooks import Attempt, DestinationPolicy, Dispatcher, HookRegistry, RetryPolicy
from procore_hooks.testing import ManualClock, WebhookReceiver

from .conftest import BOUND, answering, emit, hook_for

EVERY_MINUTE = RetryPolicy(wait=wait_fixed(60), stop=stop_after_attempt(100))
CREDENTIAL, TOKEN, KEY = "c3a24b8208deadbeef", "tok-en-5511", "k3y+value/=="
SECRETS = (CREDENTIAL, TOKEN, KEY)


def secretive_hook(registry: HookRegistry) -> None:
    hook_for(
        registry,
        f"https://hooks.example/in?token={TOKEN}&x=1",
        destination_headers={"Authorization": f"Bearer {CREDENTIAL}", "X-Api-Key": f"Token key={KEY}"},
    )


def attempt_on(registry: HookRegistry, transport: httpx.AsyncBaseTransport) -> Attempt:
    sent = emit(registry)
    Dispatcher(registry, transport=transport, retry=EVERY_MINUTE).drain(BOUND)
    (attempt,) = registry.deliveries.get(sent).attempts
    return attempt


# Those that work


def test_mock_transports_with_a_sync_handler(registry: HookRegistry) -> None:
    """A plain function serves as endpoint, and sees the request as it would go out."""
    hook_for(registry)
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, text="thanks")

    attempt = attempt_on(registry, httpx.MockTransport(handler))
    assert (attempt.outcome, attempt.response_body) == ("ok", b"thanks")
    assert seen[0].method == "POST"
    assert seen[0].content == attempt.request_body


def test_mock_transports_with_an_async_handler(registry: HookRegistry) -> None:
    """A coroutine function serves as well, and may take its time."""
    hook_for(registry)

    async def handler(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        return httpx.Response(200, json={"ok": True})

    assert attempt_on(registry, httpx.MockTransport(handler)).outcome == "ok"


Message = dict[str, Any]


def test_an_asgi_app_receives_in_process(registry: HookRegistry) -> None:
    """`httpx.ASGITransport` delivers to an app in the same process; one that raises is a recorded failure."""
    bodies: list[bytes] = []

    async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Any]) -> None:
        if scope["path"] == "/broken":
            raise LookupError("in the app")
        bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    hook = hook_for(registry, "https://app.example/")
    attempt = attempt_on(registry, httpx.ASGITransport(app))  # type: ignore[arg-type]
    assert (attempt.response_status, bodies) == (204, [attempt.request_body])

    registry.hooks.update(hook.id, destination_url="https://app.example/broken")
    assert attempt_on(registry, httpx.ASGITransport(app)).response_error == "LookupError: in the app"  # type: ignore[arg-type]


# Those that raise


class BrokenText(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this works")


def _unicode_error() -> UnicodeError:
    try:
        "\udcff".encode()
    except UnicodeError as error:
        return error
    raise AssertionError


RAISED: list[tuple[BaseException, str]] = [
    (OSError(113, "No route to host"), "OSError: [Errno 113] No route to host"),
    (ConnectionResetError(), "ConnectionResetError"),
    (httpx.ConnectError("refused"), "refused"),
    (httpx.ConnectError(""), "ConnectError"),
    (TimeoutError("mine"), "TimeoutError: mine"),
    (ssl.SSLCertVerificationError("self-signed certificate"), "SSLCertVerificationError: "),
    (_unicode_error(), "UnicodeEncodeError: 'utf-8' codec can't encode"),
    (OSError("half \udcff\ud800 a character"), "OSError: half \\udcff\\ud800 a character"),
    (RuntimeError("line\r\nbreak \x00 and \x1b[31mred"), "RuntimeError: line break   and  [31mred"),
    (BrokenText(), "BrokenText"),
    (ExceptionGroup("several", [ExceptionGroup("inner", [OSError("first")]), KeyError("second")]), "OSError: first"),
    (BaseExceptionGroup("cancelled", [asyncio.CancelledError("scope")]), "CancelledError: scope"),
    (asyncio.CancelledError("a cancel scope of its own"), "CancelledError: a cancel scope of its own"),
    (RecursionError("maximum depth"), "RecursionError: maximum depth"),
    (MemoryError(), "MemoryError"),
    (StopAsyncIteration("over"), "StopAsyncIteration: over"),
    (RuntimeError("x" * 10_000), "RuntimeError: xxx"),
]


@pytest.mark.parametrize(("error", "text"), RAISED, ids=lambda value: type(value).__name__)
def test_whatever_is_raised_is_one_recorded_attempt(by_hand: HookRegistry, error: BaseException, text: str) -> None:
    """Each exception is the failure of one attempt, in one readable line, and the next attempt is made when due."""
    hook_for(by_hand)

    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    attempt = attempt_on(by_hand, httpx.MockTransport(handler))
    assert (attempt.outcome, attempt.response_status) == ("retried", None)
    assert attempt.response_error is not None
    assert attempt.response_error.startswith(text)
    assert attempt.response_error.isprintable()
    assert len(attempt.response_error) <= 500
    (delivery,) = by_hand.deliveries.list()
    assert (delivery.status, delivery.attempt_count) == ("retrying", 1)


def test_an_error_that_cannot_be_stored_as_it_is_stops_nobody(by_hand: HookRegistry, clock: ManualClock) -> None:
    """After text that no database takes, the delivery and its neighbours go on."""
    hook_for(by_hand)

    def handler(request: httpx.Request) -> httpx.Response:
        if clock.now().minute == 0:
            raise OSError("\ud800")
        return httpx.Response(200)

    emit(by_hand)
    emit(by_hand)
    dispatcher = Dispatcher(by_hand, transport=httpx.MockTransport(handler), retry=EVERY_MINUTE)
    dispatcher.drain()
    clock.set(clock.now().replace(minute=1))
    assert dispatcher.drain().delivered == 2


@pytest.mark.parametrize("quoted", ["header", "raw_header", "part", "url", "query_value", "repr", "group"])
def test_no_secret_gets_into_the_history_or_the_log(
    registry: HookRegistry, caplog: pytest.LogCaptureFixture, quoted: str
) -> None:
    """A transport's error may quote what it was given; the history and the log show stars there."""
    secretive_hook(registry)

    def handler(request: httpx.Request) -> httpx.Response:
        texts = {
            "header": request.headers["authorization"] + " " + request.headers["x-api-key"],
            "raw_header": str(request.headers.raw),
            "part": f"credential {CREDENTIAL} and {KEY}",
            "url": str(request.url),
            "query_value": f"bad token {TOKEN}",
            "repr": f"{request.url!r} {list(request.headers.items())!r}",
        }
        if quoted == "group":
            raise ExceptionGroup(CREDENTIAL, [RuntimeError(texts["raw_header"])])
        raise RuntimeError(texts[quoted])

    with caplog.at_level(logging.DEBUG):
        attempt = attempt_on(registry, httpx.MockTransport(handler))
    everything = f"{attempt!r} {registry.deliveries.list()[0]!r} {caplog.text}"
    assert str(attempt.response_error).startswith("RuntimeError: ")
    assert [secret for secret in SECRETS if secret in everything] == []
    assert "*****" in str(attempt.response_error)


def test_the_history_masks_what_was_sent(registry: HookRegistry) -> None:
    """A delivered attempt shows the URL without its query and credentials by their ends alone."""
    secretive_hook(registry)
    attempt = attempt_on(registry, answering())
    assert attempt.request_url == "https://hooks.example/in?*****"
    assert attempt.request_headers["authorization"].endswith("dbeef")
    assert [secret for secret in SECRETS if secret in repr(attempt) + str(dict(attempt.request_headers))] == []


def test_a_forbidden_destination_is_recorded_and_not_dialled(registry: HookRegistry) -> None:
    """A hook whose URL the policy of this process refuses is a failed attempt in words; nothing is sent."""
    with WebhookReceiver() as receiver:
        hook_for(registry, receiver.url)
        emit(registry)
        strict = HookRegistry(registry.storage, destinations=DestinationPolicy(("https", "http")))
        Dispatcher(strict, retry=EVERY_MINUTE).drain(BOUND)
        (delivery,) = registry.deliveries.list()
        assert delivery.last_attempt is not None
        assert "127.0.0.1" in str(delivery.last_attempt.response_error)
        assert receiver.requests == []


def test_an_endpoint_that_is_down_is_said_to_be(registry: HookRegistry) -> None:
    """A refused connection is a failed attempt that says so."""
    with WebhookReceiver() as receiver:
        url = receiver.url
    hook_for(registry, url)
    emit(registry)
    Dispatcher(registry, retry=EVERY_MINUTE).drain(BOUND)
    attempt = registry.deliveries.list()[0].last_attempt
    assert attempt is not None
    assert "refused" in str(attempt.response_error)
