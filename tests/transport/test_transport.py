"""The guarded transport against real sockets: what it sends, what it reads, what a cancellation leaves."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

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
    resolve_later,
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


def test_long_body_is_read_whole() -> None:
    """A body larger than what is held in memory arrives whole, also when the caller takes its time to begin."""
    body = bytes(range(256)) * 2**15

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                async with asyncio.timeout(0.1):
                    await asyncio.shield(writing := asyncio.ensure_future(peer.send(body)))
            except TimeoutError:
                stalled.set()
                await writing

        stalled = asyncio.Event()
        async with receiver(script) as seen, transport_for() as transport:
            response = await transport.handle_async_request(post(f"http://127.0.0.1:{seen.port}/"))
            async with asyncio.timeout(BOUND):
                await stalled.wait()
                assert await response.aread() == body

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


@pytest.mark.parametrize("content", [b"{}", iter([b"{}"])])
def test_unsendable_body_is_refused(content: object) -> None:
    """A body that is not of its content-length, or that only a synchronous client could send, raises."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for() as transport:
            request = post(f"http://127.0.0.1:{seen.port}/", content, **{"content-length": "9"})
            with pytest.raises(httpx.LocalProtocolError, match="its body"):
                await send(transport, request)
            assert seen.requests == []

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


@pytest.mark.parametrize("idle_seconds", [0, 60])
def test_cancelled_at_every_step_of_the_loop(idle_seconds: float) -> None:
    """Cancelled after any number of turns of the loop, dialling or on a kept connection, a request leaks no socket
    and harms no later one."""

    async def main() -> None:
        policy = loopback(resolve_later)
        async with receiver(answers_ok) as seen:
            async with transport_for(policy, idle_seconds=idle_seconds) as transport:
                url = f"http://a.example:{seen.port}/"
                for turns in range(30):
                    task = asyncio.create_task(send(transport, post(url)))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    assert await send(transport, post(url)) == (200, b"ok")
            async with asyncio.timeout(BOUND):
                for _ in range(seen.connections):
                    await seen.ended.get()

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


# The time for an answer


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    """A body that is a stream, and stops, is bounded as the answer is."""

    async def stops() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for() as transport:
            with pytest.raises(httpx.ReadTimeout, match=r"no answer within 0\.05 s of the connection"):
                await send(transport, post(f"http://127.0.0.1:{seen.port}/", stops(), read=0.05))

    asyncio.run(main())


def test_the_time_of_one_exchange_does_not_end_the_next() -> None:
    """An answer that came in time stops the clock: the next exchange on the connection has a time of its own."""

    async def main() -> None:
        may_answer = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()
            await may_answer.wait()
            await peer.send(OK)

        async with receiver(script) as seen, transport_for() as transport:
            url = f"http://127.0.0.1:{seen.port}/"
            assert await send(transport, post(url, read=0.1)) == (200, b"ok")
            asyncio.get_running_loop().call_later(0.2, may_answer.set)  # when the first time would have been up
            assert await send(transport, post(url, read=BOUND)) == (200, b"ok")
            assert seen.connections == 1

    asyncio.run(main())
