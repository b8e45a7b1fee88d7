"""The guarded transport against real sockets: what it sends, which connections it keeps, what a cancellation leaves."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._transport import GuardedTransport

from .conftest import (
    BOUND,
    OK,
    Peer,
    answering,
    answering_once,
    answers_ok,
    loopback,
    post,
    receiver,
    resolving,
    send,
    transport_for,
)

# Requests and answers


def test_request_arrives_and_answer_comes_back_as_it_is() -> None:
    """Head and body go over the wire once; status, header lines and raw body come back unchanged."""
    zipped = gzip.compress(b"x" * 10000)
    head = b"HTTP/1.1 201 Made\r\nX-One: a\r\nx-one: b\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"

    async def main() -> None:
        async with receiver(answering(head % len(zipped) + zipped)) as seen, transport_for() as transport:
            request = post(f"http://127.0.0.1:{seen.port}/a?b=c", b'{"a":1}', authorization="Bearer t")
            response = await transport.handle_async_request(request)
            assert (response.status_code, response.extensions["reason_phrase"]) == (201, b"Made")
            assert response.headers.get_list("x-one") == ["a", "b"]
            assert b"".join([chunk async for chunk in response.stream]) == zipped  # type: ignore[union-attr]
            assert response.request is request
            (sent,) = seen.requests
            assert sent.startswith(b"POST /a?b=c HTTP/1.1\r\n")
            assert b"Authorization: Bearer t\r\n" in sent or b"authorization: Bearer t\r\n" in sent
            assert sent.endswith(b'\r\n\r\n{"a":1}')

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, b"ok"),
    ],
)
def test_every_framing_is_read(answer: bytes, body: bytes) -> None:
    """Chunked, closed at the end, HTTP/1.0, without a body, and after interim answers."""

    async def main() -> None:
        async with receiver(answering_once(answer)) as seen, transport_for() as transport:
            assert (await send(transport, post(f"http://127.0.0.1:{seen.port}/")))[1] == body

    asyncio.run(main())


def test_streamed_request_body_is_sent() -> None:
    """An asynchronous request body is sent as it comes."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    async def script(peer: Peer) -> None:
        body = await peer.head()
        while not body.endswith(b"\r\n0\r\n\r\n"):
            body += await peer.reader.read(65536)
        peer.seen.requests.append(body)
        await peer.send(OK)

    async def main() -> None:
        async with receiver(script) as seen, transport_for() as transport:
            assert await send(transport, post(f"http://127.0.0.1:{seen.port}/", chunks())) == (200, b"ok")
            assert seen.requests[0].count(b"x" * 65536) == 64

    asyncio.run(main())


def test_redirect_is_not_followed() -> None:
    """A redirect comes back as the answer; nobody is dialled for it."""

    async def main() -> None:
        async with receiver(answers_ok) as other:
            answer = b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:%d/\r\ncontent-length: 0\r\n\r\n" % other.port
            async with receiver(answering(answer)) as seen, transport_for() as transport:
                assert (await send(transport, post(f"http://127.0.0.1:{seen.port}/")))[0] == 307
            assert other.connections == 0

    asyncio.run(main())


def test_environment_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is ignored: it would dial addresses that nobody judged."""

    async def main() -> None:
        async with receiver(answers_ok) as proxy, receiver(answers_ok) as seen, transport_for() as transport:
            for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            assert (proxy.connections, seen.connections) == (0, 1)

    asyncio.run(main())


def test_header_with_line_break_is_not_sent() -> None:
    """A header that would inject a line raises, with no value in the message, and nothing reaches the receiver."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for() as transport:
            request = post(f"http://127.0.0.1:{seen.port}/")
            request.headers = httpx.Headers([*request.headers.raw, (b"x-token", b"hunter2\r\nx-injected: 1")])
            with pytest.raises(httpx.LocalProtocolError) as caught:
                await send(transport, request)
            assert "hunter2" not in str(caught.value)
            assert caught.value.request is request
            assert seen.requests == []

    asyncio.run(main())


# Kept connections


def test_connection_is_reused() -> None:
    """Requests one after another to the same destination share one connection."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for() as transport:
            for _ in range(5):
                await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            assert (seen.connections, len(seen.requests)) == (1, 5)

    asyncio.run(main())


def test_connection_is_not_shared_between_destinations() -> None:
    """Two names at one address never share a connection: its judgement and certificate belong to one name."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for(loopback(resolving(["127.0.0.1"])[0])) as transport:
            for name in ("a.example", "b.example", "a.example", "b.example"):
                await send(transport, post(f"http://{name}:{seen.port}/"))
            assert seen.connections == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 0\r\n\r\n",
        OK + OK,
        OK + b"x",
    ],
)
def test_connection_is_not_kept(answer: bytes) -> None:
    """A connection that the receiver will close, or that carries bytes nobody asked for, is used once."""

    async def main() -> None:
        async with receiver(answering(answer)) as seen, transport_for() as transport:
            for _ in range(2):
                await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            assert seen.connections == 2

    asyncio.run(main())


def test_long_keep_alive_does_not_lengthen_ours() -> None:
    """A receiver's Keep-Alive header shortens how long a connection is kept, and never lengthens it."""

    async def main() -> None:
        answer = b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=99999\r\ncontent-length: 0\r\n\r\n"
        async with receiver(answering(answer)) as seen, transport_for(idle_seconds=0.05) as transport:
            await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            async with asyncio.timeout(BOUND):
                assert await seen.ended.get() == 1

    asyncio.run(main())


def test_idle_connection_expires() -> None:
    """A connection that nobody uses is closed by itself, and the next request opens another."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for(idle_seconds=0.05) as transport:
            await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            async with asyncio.timeout(BOUND):
                assert await seen.ended.get() == 1
            await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            assert seen.connections == 2

    asyncio.run(main())


@pytest.mark.parametrize("stray", [b"", OK, b"HTTP/1.1 408 Timeout\r\nconnection: close\r\n\r\n"])
def test_idle_connection_that_the_receiver_touched_is_not_used(stray: bytes) -> None:
    """An end, or bytes that answer nothing, on an idle connection make the next request open another."""

    async def main() -> None:
        touched = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            if peer.seen.connections == 1:
                await go.wait()
                await peer.send(stray)
                peer.writer.close() if not stray else None
                touched.set()
            await peer.request()
            await peer.send(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")

        go = asyncio.Event()
        async with receiver(script) as seen, transport_for(idle_seconds=60) as transport:
            await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            go.set()
            await touched.wait()
            assert await send(transport, post(f"http://127.0.0.1:{seen.port}/")) == (200, b"ok")
            assert seen.connections == 2

    asyncio.run(main())


def test_failed_request_on_a_kept_connection_is_not_repeated() -> None:
    """A receiver that takes a request and closes gets it once: a repetition would be an unrecorded duplicate."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()

        async with receiver(script) as seen, transport_for() as transport:
            await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            with pytest.raises(httpx.RemoteProtocolError, match="without an answer"):
                await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            assert (seen.connections, len(seen.requests)) == (1, 2)

    asyncio.run(main())


@pytest.mark.parametrize("settings", [{"max_idle_per_destination": 2}, {"max_idle": 2}])
def test_number_of_idle_connections_is_bounded(settings: dict[str, int]) -> None:
    """Of many connections that become idle together, only so many are kept."""

    async def main() -> None:
        barrier = asyncio.Barrier(5)

        async def script(peer: Peer) -> None:
            while True:
                await peer.request()
                await barrier.wait()
                await peer.send(OK)

        async with receiver(script) as seen, transport_for(idle_seconds=60, **settings) as transport:
            url = f"http://127.0.0.1:{seen.port}/"
            await asyncio.gather(*(send(transport, post(url)) for _ in range(5)))
            async with asyncio.timeout(BOUND):
                for _ in range(3):
                    await seen.ended.get()
            await asyncio.gather(*(send(transport, post(url)) for _ in range(5)))
            assert seen.connections == 8

    asyncio.run(main())


def test_close_ends_idle_connections_and_those_in_use_later() -> None:
    """After aclose nothing stays open: an exchange under way ends, and its connection with it."""

    async def main() -> None:
        got, go = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            if peer.seen.connections == 1:
                got.set()
                await go.wait()
            await peer.send(OK)
            await peer.reader.read()

        async with receiver(script) as seen:
            transport = GuardedTransport(DestinationPolicy.local(), idle_seconds=60)
            under_way = asyncio.create_task(send(transport, post(f"http://127.0.0.1:{seen.port}/")))
            await got.wait()
            await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            await transport.aclose()
            async with asyncio.timeout(BOUND):
                assert await seen.ended.get() == 2
                go.set()
                assert await under_way == (200, b"ok")
                assert await seen.ended.get() == 1

    asyncio.run(main())


def test_transport_serves_one_loop_after_another() -> None:
    """Closed in one event loop, a transport works in the next, with connections of its own."""
    transport = GuardedTransport(DestinationPolicy.local())

    async def main() -> None:
        async with receiver(answers_ok) as seen:
            for _ in range(2):
                await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            assert seen.connections == 1
            await transport.aclose()

    asyncio.run(main())
    asyncio.run(main())


# Cancelled and left early


@pytest.mark.parametrize(
    "before", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"]
)
def test_cancelled_request_closes_its_connection(before: bytes) -> None:
    """Cancelled at whatever point of the answer, a request leaves no connection that another could get."""

    async def main() -> None:
        sent = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            if peer.seen.connections == 1:
                await peer.send(before)
                sent.set()
                await peer.reader.read()
            await peer.send(OK)

        async with receiver(script) as seen, transport_for() as transport:
            task = asyncio.create_task(send(transport, post(f"http://127.0.0.1:{seen.port}/")))
            await sent.wait()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(BOUND):
                assert await seen.ended.get() == 1
            assert (await send(transport, post(f"http://127.0.0.1:{seen.port}/")))[0] == 200
            assert seen.connections == 2

    asyncio.run(main())


def test_cancelled_at_every_step_of_the_loop() -> None:
    """Cancelled after any number of turns of the loop, a request leaks no socket and harms no later one."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for(loopback(_async_resolve)) as transport:
            url = f"http://a.example:{seen.port}/"
            for turns in range(30):
                task = asyncio.create_task(send(transport, post(url)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert await send(transport, post(url)) == (200, b"ok")

    asyncio.run(main())


def test_caller_that_stops_reading_an_endless_body_closes_the_connection() -> None:
    """A body without end is read as far as the caller wants, and the receiver then sees the connection go."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await peer.send(b"x" * 65536)

        async with receiver(script) as seen, transport_for() as transport:
            response = await transport.handle_async_request(post(f"http://127.0.0.1:{seen.port}/"))
            size = 0
            async for chunk in response.stream:  # type: ignore[union-attr]
                size += len(chunk)
                if size >= 65536:
                    break
            await response.aclose()
            async with asyncio.timeout(BOUND):
                assert await seen.ended.get() == 1

    asyncio.run(main())


def test_unread_body_makes_the_receiver_wait() -> None:
    """What the caller does not read is not hoarded: the receiver's writes stall."""

    async def main() -> None:
        stalled = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(1024):
                try:
                    async with asyncio.timeout(0.5):
                        await peer.send(b"x" * 2**20)
                except TimeoutError:
                    stalled.set()
                    return

        async with receiver(script) as seen, transport_for() as transport:
            response = await transport.handle_async_request(post(f"http://127.0.0.1:{seen.port}/"))
            async with asyncio.timeout(BOUND):
                await seen.ended.get()
            await response.aclose()
            assert stalled.is_set()

    asyncio.run(main())
