"""The transport that deliveries go through: httpx's interface, asyncio and h11 inside, and a guard before it.

`httpx`'s own would follow environment proxies and dial whatever a name points to, and its pool looks at every request
and every connection at each step. Here a destination has its few idle connections, newest first, and a request takes
one or dials one: the cost of a request does not grow with the number of others.

Idle connections are kept per scheme, host and port, so that one destination's verified connection never carries
another's request. A request that fails is never repeated here: a repetition would be an attempt that nobody recorded.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Coroutine, Mapping
from typing import Any

import httpx

from ._connection import BUFFER, AnswerBody, Connection
from ._core.destinations import Destination, DestinationPolicy
from ._deadlines import Deadlines
from ._dialling import Dialler
from ._http1 import AnswerHead, RequestHead, request_head, unsendable
from .exceptions import InvalidInput

__all__ = ["GuardedTransport"]

Origin = tuple[str, str, int]

# What Procore gives a receiver; used where the request does not say.
DEFAULT_SECONDS = 5.0
_MAX_CHECKED = 4096


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends requests over HTTP/1.1 to destinations that a policy allows, and nowhere else.

    A request's extension ``"timeout"`` may hold ``"connect"`` (name, TCP and TLS together) and ``"read"`` (from
    the connection until the answer's head is complete), in seconds; each is 5 otherwise. A deadline over the whole
    is the caller's, by `asyncio.timeout`: a cancelled request closes its connection. Answers come as they are:
    no redirect is followed, nothing is decompressed, no cookie is kept.

    Of one event loop at a time; idle connections of another one are dropped.

    Args:
        destinations: judges scheme, host and each address, whenever a connection is opened.
        ssl_context: TLS settings; without them the public certificate authorities are trusted.
        idle_seconds: how long a connection that carried an answer waits for another request; 0 keeps none.
        max_idle_per_destination, max_idle: how many wait; beyond `max_idle` the longest idle goes.
    """

    def __init__(
        self,
        destinations: DestinationPolicy,
        *,
        ssl_context: ssl.SSLContext | None = None,
        idle_seconds: float = 2.0,
        max_idle_per_destination: int = 8,
        max_idle: int = 256,
    ) -> None:
        for name, value in (("idle_seconds", idle_seconds), ("max_idle", max_idle)):
            if not 0 <= value <= 86400:
                raise InvalidInput(name, f"{value!r} must be from 0 to 86400")
        self._destinations = destinations
        self._dialler = Dialler(destinations, ssl_context)
        self._idle = _IdleConnections(idle_seconds, max_idle_per_destination, max_idle)
        # Shared by all connections. Windows' loop reads into it in the background, so there each has its own.
        self._buffer = None if sys.platform == "win32" else bytearray(BUFFER)
        self._deadlines: Deadlines[Connection] | None = None
        self._checked: dict[tuple[bytes, bytes, int | None], Destination] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` once; the answer's body is still to be read, and closed.

        Raises `InvalidDestination` where the guard refuses, and httpx's transport errors.
        """
        timeouts = request.extensions.get("timeout") or {}
        try:
            head, body = await self.send(
                self._destination(request.url),
                request_head(request.method.encode("ascii"), request.url.raw_path, request.headers.raw),
                _body(request),
                connect=_seconds(timeouts, "connect"),
                response=_seconds(timeouts, "read"),
            )
        except httpx.RequestError as error:
            error.request = request
            raise
        return httpx.Response(
            head.status,
            headers=head.headers,
            stream=body,
            extensions={"http_version": b"HTTP/" + head.version, "reason_phrase": head.reason},
            request=request,
        )

    def send(
        self,
        destination: Destination,
        head: RequestHead,
        body: bytes | httpx.AsyncByteStream,
        *,
        connect: float,
        response: float,
    ) -> Coroutine[Any, Any, tuple[AnswerHead, AnswerBody]]:
        """Send a request that is bytes already, as `handle_async_request` does. To be awaited at once."""
        connection = self._idle.take(destination.origin)
        if connection is not None:
            return connection.exchange(head, body, response)
        return self._dial_and_send(destination, head, body, connect, response)

    async def _dial_and_send(
        self,
        destination: Destination,
        head: RequestHead,
        body: bytes | httpx.AsyncByteStream,
        connect: float,
        response: float,
    ) -> tuple[AnswerHead, AnswerBody]:
        generation = self._idle.generation
        deadlines = self._deadlines_of(asyncio.get_running_loop())
        connection = await self._dialler.connect(
            destination,
            lambda: Connection(destination.origin, generation, deadlines, self._idle.give, self._buffer),
            connect,
        )
        return await connection.exchange(head, body, response)

    async def aclose(self) -> None:
        """Close idle connections now, and those in use as soon as their answers end.

        The transport may be used again: it then opens new ones.
        """
        self._idle.enter(asyncio.get_running_loop())
        self._idle.clear()
        await asyncio.sleep(0)  # asyncio closes the sockets in the loop's next turn

    def _deadlines_of(self, loop: asyncio.AbstractEventLoop) -> Deadlines[Connection]:
        if self._deadlines is None or self._deadlines.loop is not loop:
            self._deadlines = Deadlines(loop, Connection.end_late)
        return self._deadlines

    def _destination(self, url: httpx.URL) -> Destination:
        """Scheme, host and port of `url`, checked by the policy; checked once for each."""
        key = (url.raw_scheme, url.raw_host, url.port)
        destination = self._checked.get(key)
        if destination is None:
            host = url.raw_host.decode("ascii")
            authority = f"[{host}]" if ":" in host else host
            port = "" if url.port is None else f":{url.port}"
            destination = self._destinations.check(f"{url.scheme}://{authority}{port}/")
            if len(self._checked) >= _MAX_CHECKED:
                self._checked.clear()
            self._checked[key] = destination
        return destination


def _body(request: httpx.Request) -> bytes | httpx.AsyncByteStream:
    try:
        return request.content
    except httpx.RequestNotRead:
        if isinstance(request.stream, httpx.AsyncByteStream):
            return request.stream
        raise unsendable("its body is not an asynchronous stream") from None


def _seconds(timeouts: Mapping[str, Any], name: str) -> float:
    seconds = timeouts.get(name)
    return DEFAULT_SECONDS if seconds is None else float(seconds)


class _IdleConnections:
    """Connections that wait for another request to their own destination."""

    def __init__(self, seconds: float, per_origin: int, total: int) -> None:
        self._seconds = seconds
        self._per_origin = per_origin
        self._total = total
        # Both in the order in which they became idle.
        self._by_origin: dict[Origin, dict[Connection, None]] = {}
        self._all: dict[Connection, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._sweep: asyncio.TimerHandle | None = None
        self.generation = 0

    def take(self, origin: Origin) -> Connection | None:
        """The connection to `origin` that became idle last, if it is still good."""
        loop = asyncio.get_running_loop()
        self.enter(loop)
        while waiting := self._by_origin.get(origin):
            connection = next(reversed(waiting))
            self._remove(connection)
            if connection.is_usable(loop.time()):
                return connection
            connection.abort()
        return None

    def give(self, connection: Connection) -> None:
        """Take a connection whose answer was read to its end, or close it."""
        if connection.generation != self.generation or self._total == 0 or not connection.keep(self._seconds):
            connection.abort()
            return
        waiting = self._by_origin.setdefault(connection.origin, {})
        waiting[connection] = self._all[connection] = None
        if len(waiting) > self._per_origin:
            self._drop(next(iter(waiting)))
        elif len(self._all) > self._total:
            self._drop(next(iter(self._all)))
        if self._sweep is None and self._loop is not None:
            self._sweep = self._loop.call_at(connection.expires_at, self._expire)

    def clear(self) -> None:
        """Close all, and let those in use not come back."""
        self.generation += 1
        for connection in list(self._all):
            self._drop(connection)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in [each for each in self._all if not each.is_usable(now)]:
            self._drop(connection)
        self._sweep = None
        if self._all and self._loop is not None:
            self._sweep = self._loop.call_at(min(each.expires_at for each in self._all), self._expire)

    def _drop(self, connection: Connection) -> None:
        self._remove(connection)
        connection.abort()

    def _remove(self, connection: Connection) -> None:
        del self._all[connection]
        waiting = self._by_origin[connection.origin]
        del waiting[connection]
        if not waiting:
            del self._by_origin[connection.origin]

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Forget the connections of another loop, or of the parent of a fork, whose sockets stay the parent's."""
        old, same_process = self._loop, os.getpid() == self._pid
        if loop is old and same_process:
            return
        if old is not None and same_process and not old.is_closed():
            for connection in self._all:
                old.call_soon_threadsafe(connection.abort)
        self._all, self._by_origin, self._sweep = {}, {}, None
        self._loop, self._pid = loop, os.getpid()
        self.generation += 1
