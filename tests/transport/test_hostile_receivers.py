"""What a hostile receiver can do to the transport: nothing but fail its own delivery."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import httpx
import pytest

from .conftest import BOUND, Peer, answering_once, answers_ok, post, receiver, send, transport_for

# Hostile receivers


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nx-token: hunter2", "cut short"),
        (b"SSH-2.0-OpenSSH hunter2\r\n", "not HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nhunter2 no colon\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: hunter2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 2**20 + b"\r\n\r\n", "longer than 64 KiB"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 2**16 + b"\r\n", "longer than 64 KiB"),
        (b"HTTP/1.1 103 Early\r\n\r\n" * 1000, "more than 16 interim"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", "not HTTP"),
    ],
)
def test_bad_head_is_a_protocol_error(answer: bytes, text: str) -> None:
    """Whatever is wrong with the head of an answer, it is one error that repeats nothing of it."""

    async def main() -> None:
        async with receiver(answering_once(answer)) as seen, transport_for() as transport:
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError), match=text) as caught:
                await send(transport, post(f"http://127.0.0.1:{seen.port}/path-secret"))
            assert "hunter2" not in str(caught.value)
            assert "secret" not in str(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nhunter2\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * 2**17,
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
    ],
)
def test_bad_body_is_a_protocol_error(answer: bytes) -> None:
    """A body that is framed wrongly or cut short raises while it is read, and the status is known by then."""

    async def main() -> None:
        async with receiver(answering_once(answer)) as seen, transport_for() as transport:
            async with asyncio.timeout(BOUND):
                response = await transport.handle_async_request(post(f"http://127.0.0.1:{seen.port}/"))
                assert response.status_code == 200
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)) as caught:
                    await response.aread()
            assert "hunter2" not in str(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize("endless", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 103 Early\r\nx: "])
def test_dripped_head_times_out(endless: bytes) -> None:
    """A head that never ends, a byte at a time, takes no longer than the response timeout."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(endless)
            while endless:
                await peer.send(b"y")
                await asyncio.sleep(0.01)
            await peer.reader.read()

        async with receiver(script) as seen, transport_for() as transport:
            with pytest.raises(httpx.ReadTimeout, match=r"no answer within 0\.2 s"):
                await send(transport, post(f"http://127.0.0.1:{seen.port}/", read=0.2))
            async with asyncio.timeout(BOUND):
                assert await seen.ended.get() == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "before", [None, b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"]
)
def test_reset_is_a_read_error(before: bytes | None) -> None:
    """A reset before the request was read, before the answer, or within it, is an httpx error."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            if before is not None:
                await peer.request()
                await peer.send(before)
            peer.reset()

        async with receiver(script) as seen, transport_for() as transport:
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                await send(transport, post(f"http://127.0.0.1:{seen.port}/"))

    asyncio.run(main())


def test_half_closed_receiver_is_answered_to_the_end() -> None:
    """A receiver that shuts its own direction after the answer has given a whole answer."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\nwhole")
            peer.writer.write_eof()
            await peer.reader.read()

        async with receiver(script) as seen, transport_for() as transport:
            assert await send(transport, post(f"http://127.0.0.1:{seen.port}/")) == (200, b"whole")
            async with asyncio.timeout(BOUND):
                assert await seen.ended.get() == 1

    asyncio.run(main())


def test_answer_before_the_request_is_read_as_its_answer() -> None:
    """A receiver that answers as soon as it is connected to, and closes, is understood."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 503 Full\r\ncontent-length: 0\r\n\r\n")
            await peer.request()

        async with receiver(script) as seen, transport_for() as transport:
            assert (await send(transport, post(f"http://127.0.0.1:{seen.port}/")))[0] == 503

    asyncio.run(main())


async def _upload() -> AsyncIterator[bytes]:
    for _ in range(80):
        yield b"x" * 65536


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
def test_early_answer_during_an_upload_is_read(streamed: bool, stays: bool) -> None:
    """A 413 that comes while 5 MB are being sent is the answer, whether the receiver then closes or just waits."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
            if stays:
                await asyncio.Event().wait()

        async with receiver(script) as seen, transport_for() as transport:
            content = _upload() if streamed else b"x" * 5_000_000
            assert (await send(transport, post(f"http://127.0.0.1:{seen.port}/", content)))[0] == 413
            if not stays:
                return
            # What is left of the upload must not be taken for the start of the next request.
            assert (await send(transport, post(f"http://127.0.0.1:{seen.port}/")))[0] == 413
            assert seen.connections == 2

    asyncio.run(main())


def test_answer_that_waits_in_a_broken_socket_is_used() -> None:
    """An answer that arrived before the reset counts, even if the loss is noticed while writing."""

    async def main() -> None:
        answered = threading.Event()

        def serve(listener: socket.socket) -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(16)
                peer.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
                peer.settimeout(BOUND)
                peer.recv(1, socket.MSG_PEEK)  # bytes that are unread at the close make it a reset
            answered.set()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x" * 1000
            yield b"x" * 1000
            answered.wait(BOUND)  # the loop must not see the answer before it writes
            for _ in range(10):
                yield b"x" * 1000

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve, args=(listener,))
            thread.start()
            async with transport_for() as transport:
                port = listener.getsockname()[1]
                assert (await send(transport, post(f"http://127.0.0.1:{port}/", chunks())))[0] == 413
            thread.join(BOUND)

    asyncio.run(main())


def test_body_of_another_length_than_announced_is_refused() -> None:
    """A streamed body that is longer or shorter than its content-length closes the connection."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for() as transport:
            for length in ("1", "9999999"):
                request = post(f"http://127.0.0.1:{seen.port}/", _upload(), **{"content-length": length})
                with pytest.raises(httpx.LocalProtocolError, match="content-length"):
                    await send(transport, request)
            async with asyncio.timeout(BOUND):
                assert {await seen.ended.get(), await seen.ended.get()} == {1, 2}

    asyncio.run(main())
