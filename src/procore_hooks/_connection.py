"""One HTTP/1.1 connection: bytes by asyncio, their meaning by h11, one exchange at a time.

An `asyncio.Protocol` and not a pair of streams: a small exchange then costs one `write`, one callback and one wake-up.
Reading goes on while the request is being sent, so that an early answer (413 during an upload) is seen. All errors
come out as httpx's, in words of our own: h11's hold pieces of headers.

h11 gets what came piece by piece, and what it makes of one piece is looked at before the next: a body in chunks of one
byte, or a thousand interim answers, would otherwise keep the loop from everybody else for half a second.

A connection that failed, was cancelled or was left early is aborted and never used again.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import h11
import httpx

__all__ = ["AnswerBody", "Connection", "describe_os_error"]

# Of the answer's head and all interim answers before it, together.
MAX_HEAD = 64 * 1024
MAX_INTERIM_ANSWERS = 16
# Of chunk sizes, chunk extensions and trailers.
MAX_FRAMING = 16 * 1024
# How much of an answer is held in memory before the receiver is made to wait.
MAX_UNREAD = 64 * 1024
_PIECE = 8 * 1024
# Up to here, head and body are sent together.
_SMALL = 64 * 1024
_HEAD_TOO_LONG = f"the answer's head is longer than {MAX_HEAD // 1024} KiB"
_WRONG_LENGTH = "its body is not as long as its content-length says"
_KEEP_ALIVE_TIMEOUT = re.compile(rb"timeout\s*=\s*\"?([0-9]{1,6})(?![0-9])", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """A connection to one destination, opened for it and used for it alone.

    Attributes:
        origin: (scheme, host, port), as judged.
        generation: which generation of the transport's connections it belongs to.
        expires_at: by the loop's clock, while idle.
    """

    def __init__(self, origin: tuple[str, str, int], generation: int) -> None:
        self.origin = origin
        self.generation = generation
        self.expires_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._head: h11.Response | None = None
        self._interim_answers = 0
        self._came = bytearray()  # and h11 has not seen it yet
        self._seen = 0  # how much of this answer h11 has, less the body that was taken
        self._most_framing = 0
        self._unread = 0
        self._write_paused = False
        self._busy = True
        self._ended = False
        self._saw_end = False
        self._lost: Exception | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self.abort()  # bytes that answer nothing: whatever follows on this connection is not to be trusted
            return
        self._came += data
        self._unread += len(data)
        if self._unread > MAX_UNREAD and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self._ended:
            self._salvage()
        self._lost = exc if exc is not None else ConnectionAbortedError()
        self._wake()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake()

    def _salvage(self) -> None:
        """Take an answer that waits in the socket. asyncio drops it when it notices the loss while writing."""
        transport = self._transport
        if transport is None or transport.get_extra_info("ssl_object") is not None:
            return
        try:
            sock = transport.get_extra_info("socket")
            with socket.fromfd(sock.fileno(), sock.family, sock.type) as twin:
                twin.setblocking(False)
                while self._unread <= MAX_UNREAD and (data := twin.recv(MAX_HEAD)):
                    self._came += data
                    self._unread += len(data)
        except OSError:
            pass

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        """Until something happened: bytes, an end, a loss, or room to write."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # One exchange

    async def exchange(self, request: httpx.Request, seconds: float) -> h11.Response:
        """Send `request` and return the head of its answer, within `seconds`.

        Raises httpx's errors, and whatever the request's own stream raises.
        """
        self._busy = True
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                await self._send(request)
                if not self._unread:
                    await self._more()
                while (head := self._poll_head()) is None:
                    await self._more()
                return head
        except TimeoutError:
            if not deadline.expired():
                raise
            raise httpx.ReadTimeout(f"no answer within {seconds:g} s of the connection") from None

    async def _send(self, request: httpx.Request) -> None:
        try:
            head = self._http.send(
                h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            )
        except h11.LocalProtocolError:
            raise _unsendable("its method, target or a header is not allowed in HTTP/1.1") from None
        try:
            content = request.content
        except httpx.RequestNotRead:
            self._write(head)
            await self._send_stream(request.stream)
            return
        if len(content) <= _SMALL:
            self._write(head + self._framed(content))
        else:
            self._write(head)
            await self._send_large(memoryview(content))

    def _framed(self, content: bytes) -> bytes:
        try:
            body = self._http.send(h11.Data(data=content)) if content else b""
            return body + self._http.send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            raise _unsendable(_WRONG_LENGTH) from None

    async def _send_large(self, content: memoryview) -> None:
        """Send the body piece by piece: the socket's buffer would otherwise be one more copy of it."""
        try:
            for start in range(0, len(content), _SMALL):
                if not await self._send_piece(content[start : start + _SMALL]):
                    return
            self._write(self._http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError:
            raise _unsendable(_WRONG_LENGTH) from None

    async def _send_stream(self, stream: Any) -> None:
        if not isinstance(stream, httpx.AsyncByteStream):
            raise _unsendable("its body is not an asynchronous stream")
        try:
            async for chunk in stream:
                if not await self._send_piece(chunk):
                    return
            self._write(self._http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError:
            raise _unsendable(_WRONG_LENGTH) from None

    async def _send_piece(self, piece: bytes | memoryview) -> bool:
        """Send some of the body. False if no more is wanted: an answer has come, or the connection is lost."""
        if piece:
            self._write(self._http.send(h11.Data(data=piece)))  # type: ignore[arg-type] # it copies a view once
        while self._write_paused and self._lost is None and self._poll_head() is None:
            await self._wait()
        return self._lost is None and self._poll_head() is None

    def _write(self, data: bytes) -> None:
        if self._transport is not None and self._lost is None and not self._transport.is_closing():
            self._transport.write(data)

    def _poll_head(self) -> h11.Response | None:
        """The final answer's head, if it has come; interim answers are skipped."""
        while self._head is None:
            event = self._next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.Response):
                self._head = event
                self._most_framing = self._seen + MAX_FRAMING
            elif isinstance(event, h11.InformationalResponse):
                self._interim_answers += 1
                if self._interim_answers > MAX_INTERIM_ANSWERS:
                    raise httpx.RemoteProtocolError(f"more than {MAX_INTERIM_ANSWERS} interim (1xx) answers came")
            else:
                raise httpx.RemoteProtocolError("the receiver closed the connection without an answer")
        return self._head

    async def read_body(self) -> bytes | None:
        """The next raw bytes of the answer's body; None at its end. Raises httpx's errors."""
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                self._seen -= len(event.data)
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return None
            if event is not h11.NEED_DATA:
                raise httpx.RemoteProtocolError("the answer's body was cut short")
            await self._more()

    def _next_event(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA and self._show_more():
                pass
            return event
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(self._protocol_problem(error.error_status_hint)) from None

    def _show_more(self) -> bool:
        """Show h11 the next piece of what came, or its end. False if there is nothing new."""
        if self._came:
            self._check_size()
            piece = bytes(self._came[:_PIECE])
            del self._came[:_PIECE]
            self._seen += len(piece)
            self._http.receive_data(piece)
            return True
        if self._ended and not self._saw_end:
            self._saw_end = True
            self._http.receive_data(b"")
            return True
        return False

    def _check_size(self) -> None:
        if self._head is None and self._seen >= MAX_HEAD:
            raise httpx.RemoteProtocolError(_HEAD_TOO_LONG)
        if self._head is not None and self._seen > self._most_framing:
            raise httpx.RemoteProtocolError(
                f"the answer's body came with more than {MAX_FRAMING // 1024} KiB of chunk sizes and trailers"
            )

    def _protocol_problem(self, status_hint: int) -> str:
        if status_hint == 431:
            return _HEAD_TOO_LONG if self._head is None else "the answer's body is framed wrongly"
        if self._head is not None:
            return "the answer's body was cut short" if self._saw_end else "the answer's body is framed wrongly"
        if not self._saw_end:
            return "the answer is not HTTP/1.1"
        begun = self._http.trailing_data[0]
        if not begun:
            return "the receiver closed the connection without an answer"
        return "the answer was cut short" if begun.startswith(b"HTTP/1.") else "the answer is not HTTP/1.1"

    async def _more(self) -> None:
        """Wait for more of the answer."""
        if self._ended:
            return
        if self._lost is not None:
            raise httpx.ReadError(f"the connection was lost: {describe_os_error(self._lost)}")
        if self._unread > MAX_UNREAD and self._transport is not None:
            self._transport.resume_reading()
        self._unread = 0
        await self._wait()

    # Between exchanges

    def keep(self, seconds: float) -> bool:
        """Make ready for another exchange and let expire in `seconds`. False if it cannot carry one."""
        transport, http = self._transport, self._http
        if transport is None or transport.is_closing() or self._ended or transport.get_write_buffer_size():
            return False
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return False
        if self._came or http.trailing_data[0]:  # bytes that answer nothing
            return False
        seconds = min(seconds, self._promised_seconds())
        if seconds <= 0:
            return False
        http.start_next_cycle()
        self._busy, self._head, self._interim_answers, self._seen, self._unread = False, None, 0, 0, 0
        self.expires_at = self._loop.time() + seconds
        return True

    def _promised_seconds(self) -> float:
        """How long the receiver keeps the connection, by its Keep-Alive header, less a second for the way."""
        for name, value in self._head.headers if self._head is not None else ():
            if name == b"keep-alive" and (promised := _KEEP_ALIVE_TIMEOUT.search(value)):
                return float(promised[1]) - 1
        return float("inf")

    def is_usable(self, now: float) -> bool:
        """Whether an idle connection has not expired, and the receiver has sent nothing, not even an end."""
        transport = self._transport
        if now >= self.expires_at or transport is None or transport.is_closing():
            return False
        return not _is_readable(transport.get_extra_info("socket").fileno())

    def abort(self) -> None:
        """Close at once. What was not sent stays unsent."""
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()


class AnswerBody(httpx.AsyncByteStream):
    """The raw body of an answer. Read to its end it gives the connection back; left before, it closes it."""

    def __init__(self, connection: Connection, give_back: Callable[[Connection], None]) -> None:
        self._connection: Connection | None = connection
        self._give_back = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is None:
            raise StopAsyncIteration
        try:
            data = await connection.read_body()
        except BaseException:
            await self.aclose()
            raise
        if data is None:
            self._connection = None
            self._give_back(connection)
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


def describe_os_error(error: Exception) -> str:
    """What an error of the socket or of TLS says, without its numbers."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'broken').replace('_', ' ').lower()}"
    if isinstance(error, ConnectionResetError):
        return "reset by the receiver"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "closed" if isinstance(error, ConnectionError) else type(error).__name__


def _unsendable(why: str) -> httpx.LocalProtocolError:
    return httpx.LocalProtocolError(f"the request cannot be sent: {why}")


def _is_readable(descriptor: int) -> bool:
    if descriptor < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])
