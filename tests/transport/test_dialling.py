"""The guard where connections are opened: names, addresses, the race of dials."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from procore_hooks import _dialling
from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._dialling import NameNotFound, NameTimeout
from procore_hooks.exceptions import InvalidDestination

from .conftest import (
    BOUND,
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

# The guard


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/", "http://[::ffff:127.0.0.1]:{}/", "http://localhost:{}/"])
def test_loopback_is_not_dialled_by_default(url: str) -> None:
    """Without an allow, nothing on this machine is ever connected to, however it is written."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for(DestinationPolicy(("https", "http"))) as transport:
            with pytest.raises(InvalidDestination):
                await send(transport, post(url.format(seen.port)))
            assert seen.connections == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "answers",
    [("127.0.0.1", "10.0.0.5"), ("10.0.0.5", "127.0.0.1"), ("127.0.0.1", "fe80::1%lo"), ("127.0.0.1", "localhost"), ()],
)
def test_one_bad_answer_refuses_all(answers: tuple[str, ...]) -> None:
    """If any address that came back is not allowed, or none came, no connection is made at all."""

    async def main() -> None:
        policy = loopback(resolving(answers)[0])
        async with receiver(answers_ok) as seen, transport_for(policy) as transport:
            with pytest.raises(InvalidDestination):
                await send(transport, post(f"http://mixed.example:{seen.port}/"))
            assert seen.connections == 0

    asyncio.run(main())


def test_name_that_flips_is_judged_at_each_dial() -> None:
    """A name that pointed to an allowed address and now points elsewhere is refused at the next dial."""

    async def main() -> None:
        resolve, asked = resolving(["127.0.0.1"], ["10.0.0.5"])
        close = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        async with receiver(answering(close)) as seen, transport_for(loopback(resolve)) as transport:
            await send(transport, post(f"http://flip.example:{seen.port}/"))
            with pytest.raises(InvalidDestination, match=r"'flip\.example' is not allowed: a private network"):
                await send(transport, post(f"http://flip.example:{seen.port}/"))
            assert (asked, seen.connections) == (["flip.example", "flip.example"], 1)

    asyncio.run(main())


def test_name_is_looked_up_once_per_connection() -> None:
    """What was judged is what is dialled: no second look-up happens in between, nor for a kept connection."""

    async def main() -> None:
        resolve, asked = resolving(["127.0.0.1"], ["10.0.0.5"])
        async with receiver(answers_ok) as seen, transport_for(loopback(resolve)) as transport:
            for _ in range(3):
                await send(transport, post(f"http://once.example:{seen.port}/"))
            assert (len(asked), seen.connections) == (1, 1)

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="of a socket that was reset, Linux says that it is not connected")
def test_reset_before_the_peer_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that resets the connection at once is told of as that, however late its address is looked at."""

    class HeldUp(socket.socket):
        def getpeername(self) -> Any:
            poll = select.poll()
            poll.register(self, select.POLLHUP)
            assert poll.poll(BOUND * 1000)
            return super().getpeername()

    def reset(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    async def main(port: int) -> None:
        async with transport_for(DestinationPolicy.local()) as transport:
            with pytest.raises(httpx.ConnectError, match=rf"^port {port}: connection reset by peer$"):
                await send(transport, post(f"http://127.0.0.1:{port}/"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=reset, args=(listener,))
        thread.start()
        monkeypatch.setattr(_dialling.socket, "socket", HeldUp)
        asyncio.run(main(listener.getsockname()[1]))
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux connects 0.0.0.0 to loopback")
def test_peer_must_be_the_address_that_was_dialled() -> None:
    """A socket that ends up at another address than was dialled is closed unused."""

    async def main() -> None:
        policy = loopback(resolving(["0.0.0.0"])[0], allow=("0.0.0.0/8",))
        async with receiver(answers_ok) as seen, transport_for(policy) as transport:
            with pytest.raises(httpx.ConnectError, match="another address"):
                await send(transport, post(f"http://zero.example:{seen.port}/"))
            assert seen.requests == []

    asyncio.run(main())


def test_scheme_is_checked_by_the_transport_too() -> None:
    """A request for a scheme that the policy does not have goes nowhere, whoever built it."""

    async def main() -> None:
        policy = DestinationPolicy(allow=("127.0.0.0/8",))
        async with receiver(answers_ok) as seen, transport_for(policy) as transport:
            for scheme in ("http", "ws", "ftp"):
                with pytest.raises(InvalidDestination):
                    await send(transport, post(f"{scheme}://127.0.0.1:{seen.port}/"))
            assert seen.connections == 0

    asyncio.run(main())


# Names and dialling


@pytest.mark.parametrize(
    "resolve",
    [lambda host: ["127.0.0.1"], lambda host: iter(["127.0.0.1"]), resolve_later, lambda host: resolve_later(host)],
)
def test_resolver_may_be_plain_or_awaitable(resolve: Any) -> None:
    """A resolver may return addresses or an awaitable of them."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for(loopback(resolve)) as transport:
            assert (await send(transport, post(f"http://a.example:{seen.port}/")))[0] == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "does not exist"),
        (socket.gaierror(socket.EAI_AGAIN, "Try again"), "try again"),
        (UnicodeError("hunter2"), "UnicodeError"),
        (StopIteration(), "could not be looked up"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_failed_look_up_says_so(error: Exception, text: str) -> None:
    """Whatever a resolver raises is a NameNotFound that names the host."""

    def resolve(host: str) -> list[str]:
        raise error

    async def main() -> None:
        async with transport_for(loopback(resolve)) as transport:
            with pytest.raises(NameNotFound, match=text) as caught:
                await send(transport, post("http://nowhere.example/secret"))
            assert "nowhere.example" in str(caught.value)
            assert "secret" not in str(caught.value)

    asyncio.run(main())


def test_system_looks_names_up_by_default() -> None:
    """Without a resolver of the app's own, the system's is asked."""

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for() as transport:
            assert (await send(transport, post(f"http://localhost:{seen.port}/")))[0] == 200

    asyncio.run(main())


def test_hung_look_ups_do_not_hold_up_others() -> None:
    """However many look-ups hang, each times out by itself and the next name is looked up at once."""
    release = threading.Event()

    def resolve(host: str) -> list[str]:
        if host == "hung.example":
            release.wait(BOUND)
        return ["127.0.0.1"]

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for(loopback(resolve)) as transport:
            hung = [
                asyncio.create_task(send(transport, post("http://hung.example/", connect=BOUND))) for _ in range(50)
            ]
            assert (await send(transport, post(f"http://fine.example:{seen.port}/")))[0] == 200
            with pytest.raises(NameTimeout, match=r"within 0\.05 s"):
                await send(transport, post("http://hung.example/", connect=0.05))
            for task in hung:
                task.cancel()
            await asyncio.gather(*hung, return_exceptions=True)

    try:
        asyncio.run(main())
    finally:
        release.set()


def test_hung_look_up_does_not_hold_up_the_exit() -> None:
    """The interpreter ends although a look-up never returns."""
    script = """
import asyncio, threading, httpx
from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._transport import GuardedTransport
transport = GuardedTransport(DestinationPolicy(resolve=lambda host: threading.Event().wait()))
request = httpx.Request("POST", "https://hung.example/", extensions={"timeout": {"connect": 0.05}})
try:
    asyncio.run(transport.handle_async_request(request))
except httpx.ConnectTimeout:
    print("timed out")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "timed out\n"


def test_refused_connection_goes_on_to_the_next_address() -> None:
    """Where one address refuses, the next is dialled at once; where all do, the error says so."""

    async def main() -> None:
        policy = loopback(resolving(["127.0.0.2", "127.0.0.1"], ["127.0.0.2", "127.0.0.3"], ["127.0.0.2"])[0])
        async with receiver(answers_ok) as seen, transport_for(policy, idle_seconds=0) as transport:
            assert (await send(transport, post(f"http://a.example:{seen.port}/")))[0] == 200
            for _ in range(2):
                with pytest.raises(httpx.ConnectError, match="refused"):
                    await send(transport, post(f"http://a.example:{seen.port}/"))

    asyncio.run(main())


@contextmanager
def silent_port(host: str, port: int = 0) -> Iterator[int]:
    """A port that answers no more SYN: its queue of connections is full."""
    with socket.socket() as listener:
        listener.bind((host, port))
        listener.listen(0)
        where = listener.getsockname()
        filling: list[socket.socket] = []
        try:
            for _ in range(64):
                filling.append(socket.socket())
                filling[-1].settimeout(0.1)
                try:
                    filling[-1].connect(where)
                except TimeoutError:
                    break
            else:
                pytest.skip("this system's queue of connections does not fill")
            yield where[1]
        finally:
            for each in filling:
                each.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.2 and a short queue of connections")
def test_silent_address_does_not_hold_up_the_next() -> None:
    """An address that does not answer is overtaken by the next one after a quarter of a second."""

    async def main() -> None:
        policy = loopback(resolving(["127.0.0.2", "127.0.0.1"])[0])
        async with receiver(answers_ok) as seen, transport_for(policy) as transport:
            with silent_port("127.0.0.2", seen.port):
                assert (await send(transport, post(f"http://a.example:{seen.port}/")))[0] == 200

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="needs a short queue of connections")
def test_connect_timeout() -> None:
    """A connection that does not come about in time raises, and says how long was waited."""

    async def main() -> None:
        async with transport_for() as transport:
            with silent_port("127.0.0.1") as port, pytest.raises(httpx.ConnectTimeout, match=r"within 0\.05 s"):
                await send(transport, post(f"http://127.0.0.1:{port}/", connect=0.05))

    asyncio.run(main())


def test_loser_of_the_race_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two dials succeed at once, one socket is used and the other does not stay open."""
    dialled: list[socket.socket] = []

    async def main() -> None:
        both = asyncio.Event()

        async def dial(address: str, port: int) -> socket.socket:
            sock = socket.create_connection((address, port))
            sock.setblocking(False)
            dialled.append(sock)
            if len(dialled) == 2:
                both.set()
            await both.wait()
            return sock

        monkeypatch.setattr(_dialling, "_dial", dial)
        monkeypatch.setattr(_dialling, "STAGGER", 0.01)
        policy = loopback(resolving(["127.0.0.1", "127.0.0.2"])[0])
        async with receiver(answers_ok, host="0.0.0.0") as seen, transport_for(policy) as transport:
            assert (await send(transport, post(f"http://a.example:{seen.port}/")))[0] == 200
            assert sorted(sock.fileno() == -1 for sock in dialled) == [False, True]

    asyncio.run(main())


def test_only_sixteen_addresses_are_dialled() -> None:
    """A name with very many addresses costs sixteen dials, not thousands."""

    async def main() -> None:
        addresses = [f"127.0.1.{last}" for last in range(1, 17)]
        policy = loopback(resolving([*addresses, "127.0.0.1"], [*addresses[:15], "127.0.0.1"])[0])
        async with receiver(answers_ok) as seen, transport_for(policy) as transport:
            with pytest.raises(httpx.ConnectError):
                await send(transport, post(f"http://many.example:{seen.port}/"))
            assert (await send(transport, post(f"http://many.example:{seen.port}/")))[0] == 200

    asyncio.run(main())
