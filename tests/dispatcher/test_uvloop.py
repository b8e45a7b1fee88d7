"""With the extra ``speed`` a dispatcher's own loops are uvloop's, and all that it does is the same on either loop."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType

import httpx
import pytest

from procore_hooks import Dispatcher, HookRegistry
from procore_hooks.testing import WebhookReceiver

from ..transport.conftest import Peer, answering_once, post, receiver, send, transport_for
from .conftest import BOUND, emit, hook_for

uvloop = pytest.importorskip("uvloop")


@pytest.fixture(params=["uvloop", "asyncio"])
def own_loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether uvloop is there; where it is not, it is as if it were not installed."""
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    return bool(request.param == "uvloop")


class Asking(httpx.AsyncBaseTransport):
    """Answers 200, and remembers the loop that it was asked in."""

    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.asked = threading.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.loops.append(asyncio.get_running_loop())
        self.asked.set()
        return httpx.Response(200)


def start_and_stop(dispatcher: Dispatcher, asked: threading.Event) -> None:
    with dispatcher:
        assert asked.wait(BOUND)


def run_and_stop(dispatcher: Dispatcher, asked: threading.Event) -> None:
    def stop() -> None:
        asked.wait(BOUND)
        dispatcher.stop()

    other = threading.Thread(target=stop)
    other.start()
    dispatcher.run()
    other.join()


def drain(dispatcher: Dispatcher, asked: threading.Event) -> None:
    dispatcher.drain(BOUND)


@pytest.mark.parametrize("work", [start_and_stop, run_and_stop, drain])
def test_its_own_loops_are_uvloops_where_that_is_installed(
    plain: HookRegistry, own_loops: bool, work: Callable[[Dispatcher, threading.Event], None]
) -> None:
    """`start`, `run` and `drain` make a loop of uvloop's; without it one of asyncio's. It is closed at the end."""
    hook_for(plain)
    emit(plain)
    transport = Asking()
    work(Dispatcher(plain, transport=transport), transport.asked)
    assert [isinstance(loop, uvloop.Loop) for loop in transport.loops] == [own_loops]
    assert transport.loops[0].is_closed()
    assert plain.deliveries.get(1).status == "delivered"


def test_the_callers_loop_stays_what_it_is(plain: HookRegistry) -> None:
    """`async with`, `run_async` and `drain_async` use the loop that they are called in."""
    hook_for(plain)
    transport = Asking()
    dispatcher = Dispatcher(plain, transport=transport)

    async def main() -> asyncio.AbstractEventLoop:
        emit(plain)
        await dispatcher.drain_async(BOUND)
        emit(plain)
        async with dispatcher:
            await dispatcher.drain_async(BOUND)
        transport.asked.clear()
        emit(plain)
        task = asyncio.create_task(dispatcher.run_async())
        assert await asyncio.to_thread(transport.asked.wait, BOUND)
        dispatcher.stop()
        await task
        return asyncio.get_running_loop()

    loop = asyncio.run(asyncio.wait_for(main(), BOUND))
    assert transport.loops == [loop] * 3
    assert not isinstance(loop, uvloop.Loop)


def test_uvloop_is_imported_when_a_loop_is_made(monkeypatch: pytest.MonkeyPatch, plain: HookRegistry) -> None:
    """To make a dispatcher, or to run it in the caller's loop, needs no import of it."""
    monkeypatch.delitem(sys.modules, "uvloop")
    asyncio.run(Dispatcher(plain).drain_async(BOUND))
    assert "uvloop" not in sys.modules
    monkeypatch.setitem(sys.modules, "uvloop", uvloop)  # a second import of its extension would be another module
    Dispatcher(plain).drain(BOUND)


# What our connections ask of a loop, on either


@pytest.fixture(params=["uvloop", "asyncio"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    library: ModuleType = uvloop if request.param == "uvloop" else asyncio
    with asyncio.Runner(loop_factory=library.new_event_loop) as runner:
        yield runner


def test_many_deliveries_over_kept_connections(plain: HookRegistry, own_loops: bool) -> None:
    """Over sockets each arrives once, whatever the loop, and few connections carry them all."""
    with WebhookReceiver() as webhooks:
        hook_for(plain, webhooks.url, max_in_flight=8)
        for number in range(100):
            emit(plain, number)
        assert Dispatcher(plain, max_in_flight=8).drain(BOUND).delivered == 100
        assert sorted(request.json()["data"] for request in webhooks.requests) == list(range(100))


def test_an_answer_during_the_request_is_read(runner: asyncio.Runner) -> None:
    """A receiver that refuses before it has read a large body, and closes: its answer is what is told."""

    async def main() -> tuple[int, bytes]:
        async def refuses(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")

        async with receiver(refuses) as seen, transport_for() as transport:
            return await send(transport, post(f"http://127.0.0.1:{seen.port}/", b"x" * 5_000_000))

    assert runner.run(main()) == (413, b"no")


def test_an_answer_that_waits_in_a_broken_socket_is_used(runner: asyncio.Runner) -> None:
    """An answer that came before a reset counts, though the loss is noticed while writing."""
    may_answer, answered = threading.Event(), threading.Event()

    def serve(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(16)
            may_answer.wait(BOUND)
            peer.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        answered.set()  # and what it had not read has made the close a reset

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        for _ in range(5):  # older releases of uvloop send what was written in the loop's next round
            await asyncio.sleep(0)
        may_answer.set()
        answered.wait(BOUND)  # the loop must not see the answer before it writes
        for _ in range(10):
            yield b"x" * 1000

    async def main(port: int) -> tuple[int, bytes]:
        async with transport_for() as transport:
            return await send(transport, post(f"http://127.0.0.1:{port}/", chunks()))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        assert runner.run(main(listener.getsockname()[1])) == (413, b"")
        thread.join(BOUND)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the receiver closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\ncont", "the answer was cut short"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", "the answer's body was cut short"),
    ],
    ids=["nothing", "head", "body"],
)
def test_half_an_answer_is_an_error_in_the_same_words(runner: asyncio.Runner, answer: bytes, words: str) -> None:
    """The receiver closes before it has said anything, in the midst of the head, or of the body."""

    async def main() -> str:
        async with receiver(answering_once(answer)) as seen, transport_for() as transport:
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            return str(caught.value)

    assert runner.run(main()) == words


def test_a_reset_is_an_error_in_the_same_words(runner: asyncio.Runner) -> None:
    """The receiver resets the connection instead of answering."""

    async def resets(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async def main() -> str:
        async with receiver(resets) as seen, transport_for() as transport:
            with pytest.raises(httpx.ReadError) as caught:
                await send(transport, post(f"http://127.0.0.1:{seen.port}/"))
            return str(caught.value)

    assert runner.run(main()) == "the connection was lost: reset by the receiver"


def test_a_refused_connection_in_the_same_words(runner: asyncio.Runner) -> None:
    """Nobody listens there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]

        async def main() -> str:
            async with transport_for() as transport:
                with pytest.raises(httpx.ConnectError) as caught:
                    await send(transport, post(f"http://127.0.0.1:{port}/"))
                return str(caught.value)

        assert runner.run(main()) == f"port {port}: the connection was refused"


def test_an_endless_answer_makes_the_receiver_wait(runner: asyncio.Runner) -> None:
    """What nobody reads is not taken in: the receiver's sends come to a halt, and an abort ends its connection."""

    async def main() -> int:
        sent = 0

        async def endless(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                await peer.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536

        async with receiver(endless) as seen, transport_for() as transport:
            response = await transport.handle_async_request(post(f"http://127.0.0.1:{seen.port}/"))
            before = -1
            async with asyncio.timeout(BOUND):
                while before < sent or sent == 0:  # until a moment passes in which nothing more went out
                    before = sent
                    await asyncio.sleep(0.05)
            await response.aclose()
            async with asyncio.timeout(BOUND):
                await seen.ended.get()
        return sent

    assert 0 < runner.run(main()) < 64 * 1024 * 1024
