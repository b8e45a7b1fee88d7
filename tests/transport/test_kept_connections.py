"""Which connections the transport keeps, for whom, how long, and when it lets go of them."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

from procore_hooks import _transport
from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._transport import GuardedTransport

from .conftest import (
    BOUND,
    OK,
    Peer,
    answering,
    answers_ok,
    loopback,
    post,
    receiver,
    resolve_later,
    resolving,
    send,
    transport_for,
)


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


def test_bytes_that_answer_nothing_close_an_idle_connection() -> None:
    """An answer that was sent ahead is never taken for that of the next request: its connection closes at once."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            if peer.seen.connections == 1:
                await go.wait()
                await peer.send(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
                await peer.request()

        go = asyncio.Event()
        async with receiver(script) as seen, transport_for(idle_seconds=60) as transport:
            await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            go.set()
            async with asyncio.timeout(BOUND):
                assert await seen.ended.get() == 1
            assert await send(transport, post(f"http://127.0.0.1:{seen.port}/")) == (200, b"ok")

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


def test_connections_of_another_live_loop_are_dropped() -> None:
    """Used from a second event loop, the transport closes the first one's idle connections, in their own loop."""
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for(idle_seconds=60) as transport:
            url = f"http://127.0.0.1:{seen.port}/"
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(send(transport, post(url)), other))
            assert await send(transport, post(url)) == (200, b"ok")
            assert seen.connections == 2
            async with asyncio.timeout(BOUND):
                assert await seen.ended.get() == 1

    try:
        asyncio.run(main())
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join(BOUND)
        other.close()


def test_checked_origins_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the transport remembers of destinations is bounded, and forgetting it changes nothing."""
    monkeypatch.setattr(_transport, "_MAX_CHECKED", 2)

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for(loopback(resolve_later)) as transport:
            for host in ("a.example", "b.example", "c.example", "a.example"):
                assert (await send(transport, post(f"http://{host}:{seen.port}/")))[0] == 200
                assert len(transport._checked) <= 2

    asyncio.run(main())
