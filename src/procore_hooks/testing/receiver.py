"""A webhook receiver for tests: a real HTTP/1.1 server on loopback that answers by a script.

It is one asyncio loop in one thread. Requests are parsed here and not by a framework, for two reasons: what was
sent is recorded to the letter, and it takes a fraction of the time, which the code under test has for itself.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from concurrent.futures import Future
from http import HTTPStatus
from typing import Self

import attrs
import httpx

from .script import Reply, Script

__all__ = ["WebhookReceiver"]

_LONGEST_HEAD = 65_536
_BACKLOG = 1024
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")


class _BadRequest(Exception):
    """What arrived is not an HTTP/1.1 request; the text says why."""


@attrs.frozen
class _Head:
    """The request line and the headers, and what follows from them: `length` is None of a chunked body."""

    method: str
    target: str
    headers: httpx.Headers
    length: int | None
    keep_alive: bool
    expects_continue: bool


def _parse_head(raw: bytes) -> _Head:
    first, *lines = raw.split(b"\r\n")
    request_line = _REQUEST_LINE.fullmatch(first)
    if request_line is None:
        raise _BadRequest("the first line is not that of an HTTP/1.1 request")
    method, target, minor = request_line.groups()
    pairs = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise _BadRequest("a header line is not 'name: value'")
        pairs.append((name, value.strip(b" \t")))
    headers = httpx.Headers(pairs)
    return _Head(
        method.decode("ascii"),
        target.decode("ascii"),
        headers,
        _body_length(headers),
        minor == b"1" and "close" not in headers.get("connection", "").lower(),
        headers.get("expect", "").lower() == "100-continue",
    )


def _body_length(headers: httpx.Headers) -> int | None:
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise _BadRequest("transfer-encoding is not 'chunked' alone, without a content-length")
        return None
    if length is None:
        return 0
    if not length.isascii() or not length.isdigit() or len(length) > 12:
        raise _BadRequest("content-length is not one number")
    return int(length)


class _Incoming:
    """The bytes of a connection, cut into requests."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._head: _Head | None = None
        self._decoded = bytearray()
        self._chunk_left: int | None = None
        self._in_trailer = False

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._bytes += data

    def wants_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body. True once per request."""
        if self._head is None or not self._head.expects_continue or self._bytes:
            return False
        self._head = attrs.evolve(self._head, expects_continue=False)
        return True

    def take(self) -> tuple[_Head, bytes] | None:
        """The next request that is here in full. Raises `_BadRequest`."""
        head = self._head or self._take_head()
        if head is None:
            return None
        self._head = head
        body = self._take_chunked() if head.length is None else self._take_counted(head.length)
        if body is None:
            return None
        self._head = None
        return head, body

    def _take_head(self) -> _Head | None:
        while self._bytes.startswith(b"\r\n"):  # RFC 9112, 2.2: empty lines before a request are ignored
            del self._bytes[:2]
        end = self._bytes.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
        if end < 0:
            if len(self._bytes) >= _LONGEST_HEAD:
                raise _BadRequest(f"the headers are longer than {_LONGEST_HEAD} bytes")
            return None
        return _parse_head(self._cut(end, 4))

    def _take_counted(self, length: int) -> bytes | None:
        return self._cut(length, 0) if len(self._bytes) >= length else None

    def _take_chunked(self) -> bytes | None:
        while True:
            if self._chunk_left is None:
                line = self._take_line()
                if line is None:
                    return None
                if self._read_size(line):
                    body = bytes(self._decoded)
                    self._decoded.clear()
                    return body
            elif len(self._bytes) < self._chunk_left + 2:
                return None
            else:
                if not self._bytes.startswith(b"\r\n", self._chunk_left):
                    raise _BadRequest("a chunk is not as long as it says")
                self._decoded += self._cut(self._chunk_left, 2)
                self._chunk_left = None

    def _read_size(self, line: bytes) -> bool:
        """Go by the line that announces a chunk, or by one after the last chunk; True at the end of the body."""
        if self._in_trailer:
            self._in_trailer = line != b""
            return not self._in_trailer
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise _BadRequest("a chunk does not begin with its size")
        self._chunk_left = int(size[1], 16) or None
        self._in_trailer = self._chunk_left is None
        return False

    def _take_line(self) -> bytes | None:
        end = self._bytes.find(b"\r\n")
        if end < 0 and len(self._bytes) > _LONGEST_HEAD:
            raise _BadRequest(f"a line of a chunked body is longer than {_LONGEST_HEAD} bytes")
        return None if end < 0 else self._cut(end, 2)

    def _cut(self, length: int, separator: int) -> bytes:
        cut = bytes(memoryview(self._bytes)[:length])
        del self._bytes[: length + separator]
        return cut


def _answer_bytes(reply: Reply, method: str, keep_alive: bool) -> tuple[bytes, bool]:
    """The whole answer in one piece, and whether the connection stays open after it."""
    headers, body = reply.content(method)
    closes = any(name.lower() == b"connection" and value.lower() == b"close" for name, value in headers)
    if not keep_alive and not closes:
        headers = (*headers, (b"connection", b"close"))
    phrase = _PHRASES.get(reply.status, b"")
    lines = [b"HTTP/1.1 %d %s\r\n" % (reply.status, phrase), *(b"%s: %s\r\n" % pair for pair in headers), b"\r\n", body]
    return b"".join(lines), keep_alive and not closes


class _Connection(asyncio.Protocol):
    """One connection: its requests are answered one after the other, each in one write.

    asyncio sets TCP_NODELAY on it, so that no answer waits for the client's acknowledgement of the one before.
    """

    def __init__(self, receiver: WebhookReceiver, connections: set[_Connection]) -> None:
        self._receiver = receiver
        self._connections = connections
        self._incoming = _Incoming()
        self._transport: asyncio.Transport | None = None
        self._delayed: asyncio.TimerHandle | None = None
        self._eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._incoming.feed(data)
        self._go_on()

    def eof_received(self) -> bool:
        # A client that shut down its own side may still read: it gets the answer that it waits for.
        self._eof = True
        return self._delayed is not None

    def abort(self) -> None:
        """Cut the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _go_on(self) -> None:
        while self._transport is not None and not self._transport.is_closing() and self._delayed is None:
            try:
                request = self._incoming.take()
            except _BadRequest as error:
                self._send(Reply(400, body=str(error)), "", False)
                return
            if request is None:
                if self._incoming.wants_continue():
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                elif self._eof:
                    self._transport.close()
                return
            head, body = request
            reply = self._receiver._receive(head.method, head.target, head.headers, body)
            if reply.delay:
                loop = asyncio.get_running_loop()
                self._delayed = loop.call_later(reply.delay, self._send_late, reply, head.method, head.keep_alive)
            else:
                self._send(reply, head.method, head.keep_alive)

    def _send_late(self, reply: Reply, method: str, keep_alive: bool) -> None:
        self._delayed = None
        self._send(reply, method, keep_alive)
        self._go_on()

    def _send(self, reply: Reply, method: str, keep_alive: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        answer, stays_open = _answer_bytes(reply, method, keep_alive)
        self._transport.write(answer)
        if not stays_open:
            self._transport.close()


class WebhookReceiver(Script):
    """A real HTTP server in a thread of its own, up as soon as it is made; ``with`` or `close()` ends it.

    Args:
        host: the address to listen on; loopback by default, since it lets anyone in.
        port: 0 takes a free one, and `url` tells which.

    Raises `OSError` where the port is taken.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # The socket listens from here on: who connects before the loop has begun waits in the backlog.
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._port = self._socket.getsockname()[1]
        self._host = f"[{host}]" if family == socket.AF_INET6 else host
        self._begun: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"webhook-receiver-{self._port}", daemon=True)
        self._thread.start()
        self._begun.result()

    @property
    def url(self) -> str:
        """Where it listens: ``http://127.0.0.1:PORT/``."""
        return f"http://{self._host}:{self._port}/"

    def close(self) -> None:
        """Stop listening and cut every connection, answers under way too. Calling it again does nothing."""
        try:
            self._loop.call_soon_threadsafe(self._end.set)
        except RuntimeError:  # the loop is closed already
            return
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"WebhookReceiver({self.url!r})"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:  # no file descriptor is left for the loop: who waits for it must not wait for ever
            self._socket.close()
            self._begun.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        connections: set[_Connection] = set()
        server = await self._loop.create_server(
            lambda: _Connection(self, connections), sock=self._socket, backlog=_BACKLOG
        )
        self._begun.set_result(None)
        await self._end.wait()
        server.close()
        for connection in tuple(connections):
            connection.abort()
        await asyncio.sleep(0)  # one turn of the loop, in which the aborted sockets are closed
