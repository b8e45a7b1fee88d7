"""Receivers on real sockets that follow a script, and the transport that they are sent requests through."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx

from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._transport import GuardedTransport

BOUND = 10  # seconds after which a test that waits for something has failed
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@attrs.define
class Seen:
    """What a receiver saw."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = attrs.field(factory=list)
    ended: asyncio.Queue[int] = attrs.field(factory=asyncio.Queue)  # the number of each connection that is over


@attrs.frozen
class Peer:
    """One accepted connection, for the script of a receiver."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    seen: Seen

    async def head(self) -> bytes:
        """Read the head of a request."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> None:
        """Read a whole request."""
        head = await self.head()
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        self.seen.requests.append(head + await self.reader.readexactly(length))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close so that the other side is sent a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def receiver(script: Script, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Seen]:
    """A receiver that follows `script` on each connection, then closes it."""
    seen = Seen()
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        number = seen.connections
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(Peer(reader, writer, seen))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            seen.ended.put_nowait(number)

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


@asynccontextmanager
async def transport_for(policy: DestinationPolicy | None = None, **settings: Any) -> AsyncIterator[GuardedTransport]:
    transport = GuardedTransport(policy or DestinationPolicy.local(), **settings)
    try:
        yield transport
    finally:
        await transport.aclose()


def post(url: str, content: Any = b"{}", connect: float = 5, read: float = 5, **headers: str) -> httpx.Request:
    timeout = {"connect": connect, "read": read}
    return httpx.Request("POST", url, content=content, headers=headers, extensions={"timeout": timeout})


async def send(transport: GuardedTransport, request: httpx.Request) -> tuple[int, bytes]:
    async with asyncio.timeout(BOUND):
        response = await transport.handle_async_request(request)
        return response.status_code, b"".join([chunk async for chunk in response.stream])  # type: ignore[union-attr]


async def answers_ok(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(OK)


def answering(answer: bytes) -> Script:
    """A receiver that sends this to each request, and goes on."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return script


def answering_once(answer: bytes) -> Script:
    """A receiver that sends this to one request, and closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    return script


def resolving(*answers: Iterable[str]) -> tuple[Callable[[str], Iterable[str]], list[str]]:
    """A resolver that gives these answers in turn, the last one for ever, and the names it was asked for."""
    asked: list[str] = []

    def resolve(host: str) -> Iterable[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


def loopback(resolve: Any, allow: tuple[str, ...] = ("127.0.0.0/8",)) -> DestinationPolicy:
    return DestinationPolicy(("https", "http"), allow, resolve=resolve)


async def resolve_later(host: str) -> list[str]:
    """An awaitable resolver."""
    return ["127.0.0.1"]
