"""One HTTP/1.1 connection: bytes by asyncio, one exchange at a time.

A protocol and not a pair of streams: a small exchange then costs one `write`, one callback and one wake-up. One that
brings its own buffer: asyncio would allocate 256 KiB for every answer of 200 bytes, which takes longer than to read it.
Reading goes on while the request is being sent, so that an early answer (413 during an upload) is seen. All errors
come out as httpx's.

A connection that failed, was cancelled or was left early is aborted and never used again.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

import httpx

from ._deadlines import Deadlines
from ._http1 import MAX_HEAD, AnswerHead, AnswerParser, RequestHead, unsendable

__all__ = ["BUFFER", "AnswerBody", "Connection", "describe_os_error"]

# How much is read at once, at most.
BUFFER: Final = 64 * 1024
# How much of an answer is held in memory before the receiver is made to wait.
MAX_UNREAD: Final = 64 * 1024
# Up to here, head and body are sent together.
_SMALL: Final = 64 * 1024
_WRONG_LENGTH: Final = "its body is not as long as its content-length says"
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"timeout\s*=\s*\"?([0-9]{1,6})(?![0-9])", re.IGNORECASE)


class _Late(Exception):
    """The answer's head did not come in time."""


class Connection(asyncio.BufferedProtocol):
    """A connection to one destination, opened for it and used for it alone.

    Attributes:
        origin: (scheme, host, port), as judged.
        generation: which generation of the transport's connections it belongs to.
        expires_at: by the loop's clock, while idle.
    """

    def __init__(
        self,
        origin: tuple[str, str, int],
        generation: int,
        deadlines: Deadlines[Connection],
        give_back: Callable[[Connection], None],
        buffer: bytearray | None = None,
    ) -> None:
        """`deadlines` call `end_late`; `give_back` takes it once an answer was read to its end. `buffer` may be shared
        by connections of one event loop, if that reads into it and tells us in one go.
        """
        self.origin = origin
        self.generation = generation
        self._buffer = memoryview(bytearray(BUFFER) if buffer is None else buffer)
        self.expires_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._deadlines = deadlines
        self._give_back = give_back
        self._parser = AnswerParser()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._head: AnswerHead | None = None
        self._is_sent = False
        self._unread = 0
        self._write_paused = False
        self._busy = True
        self._is_late = False
        self._ended = False
        self._lost: Exception | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._busy:
            self.abort()  # bytes that answer nothing: whatever follows on this connection is not to be trusted
            return
        self._parser.feed(self._buffer[:nbytes])
        self._unread += nbytes
        if self._unread > MAX_UNREAD and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._parser.feed_end()
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
                    self._parser.feed(data)
                    self._unread += len(data)
        except OSError:
            pass

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # Functions that return what is to be awaited, where a coroutine would do: each that waits for an answer is one more
    # object, of some hundred bytes, that the garbage collector looks at over and over, and there may be thousands.

    def _something(self) -> asyncio.Future[None]:
        """Something that happens: bytes, an end, a loss, or room to write. Raises `_Late`."""
        if self._is_late:
            raise _Late
        self._waiter = self._loop.create_future()
        return self._waiter

    # One exchange

    async def exchange(
        self, head: RequestHead, body: bytes | httpx.AsyncByteStream, seconds: float
    ) -> tuple[AnswerHead, AnswerBody]:
        """Send a request and return the head of its answer, within `seconds`, and its body, which is still to be read.

        Raises httpx's errors, and whatever the body's own stream raises.
        """
        self._busy = True
        self._parser.begin(head.method)
        # Not `asyncio.timeout`, which costs more: nothing here needs to be cancelled.
        self._deadlines.set(self, self._loop.time() + seconds)
        try:
            if isinstance(body, bytes) and len(body) <= _SMALL and len(body) == head.length:
                self._write(head.raw + body)
                self._is_sent = not head.closes
            else:
                await self._send(head, body, seconds)
            while (answer := self._poll_head()) is None:
                await self._more()
        except _Late:
            self.abort()
            raise httpx.ReadTimeout(f"no answer within {seconds:g} s of the connection") from None
        except BaseException:
            self.abort()
            raise
        finally:
            self._deadlines.clear(self)
            self._is_late = False  # it may have been just in time
        return answer, AnswerBody(self, self._give_back)

    def end_late(self) -> None:
        """End the wait for the answer's head."""
        self._is_late = True
        self._wake()

    async def _send(self, head: RequestHead, body: bytes | httpx.AsyncByteStream, seconds: float) -> None:
        if not isinstance(body, bytes):
            self._write(head.raw)
            # A stream may wait for things that no timer of ours wakes.
            deadline = asyncio.timeout(seconds)
            try:
                async with deadline:
                    self._is_sent = await self._send_stream(body, head.length)
            except TimeoutError:
                if not deadline.expired():
                    raise
                raise _Late from None
        elif len(body) != head.length:
            raise unsendable(_WRONG_LENGTH)
        else:
            self._write(head.raw)
            self._is_sent = await self._send_large(memoryview(body))
        self._is_sent = self._is_sent and not head.closes

    async def _send_large(self, body: memoryview) -> bool:
        """Send the body piece by piece: the socket's buffer would otherwise be one more copy of it."""
        for start in range(0, len(body), _SMALL):
            if not await self._send_piece(body[start : start + _SMALL]):
                return False
        return True

    async def _send_stream(self, stream: httpx.AsyncByteStream, length: int | None) -> bool:
        sent = 0
        async for chunk in stream:
            sent += len(chunk)
            if length is not None and sent > length:
                raise unsendable(_WRONG_LENGTH)
            framed = chunk if length is not None or not chunk else b"%x\r\n%b\r\n" % (len(chunk), chunk)
            if not await self._send_piece(framed):
                return False
        if length is None:
            self._write(b"0\r\n\r\n")
        elif sent != length:
            raise unsendable(_WRONG_LENGTH)
        return True

    async def _send_piece(self, piece: bytes | memoryview) -> bool:
        """Send some of the body. False if no more is wanted: an answer has come, or the connection is lost."""
        if piece:
            self._write(piece)
        while self._write_paused and self._lost is None and self._poll_head() is None:
            await self._something()
        return self._lost is None and self._poll_head() is None

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is not None and self._lost is None and not self._transport.is_closing():
            self._transport.write(data)

    def _poll_head(self) -> AnswerHead | None:
        """The final answer's head, if it has come."""
        if self._head is None:
            self._head = self._parser.head()
        return self._head

    def take_whole_body(self) -> bytes | None:
        """All of the answer's body, if it has come and nobody has taken any; else None."""
        return self._parser.whole_body()

    async def read_body(self) -> bytes | None:
        """The next raw bytes of the answer's body; None at its end. Raises httpx's errors."""
        while (data := self._parser.body()) == b"":
            await self._more()
        return data

    def _more(self) -> asyncio.Future[None]:
        """More of the answer, which the parser wants. Raises `_Late`, and `httpx.ReadError` if no more comes."""
        if self._lost is not None:
            raise httpx.ReadError(f"the connection was lost: {describe_os_error(self._lost)}")
        if self._unread > MAX_UNREAD and self._transport is not None:
            self._transport.resume_reading()
        self._unread = 0
        return self._something()

    # Between exchanges

    def keep(self, seconds: float) -> bool:
        """Make ready for another exchange and let expire in `seconds`. False if it cannot carry one."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._ended or transport.get_write_buffer_size():
            return False
        seconds = min(seconds, self._promised_seconds())
        if seconds <= 0 or not self._is_sent or not self._parser.start_over():
            return False
        self._busy, self._head, self._is_sent, self._unread = False, None, False, 0
        self.expires_at = self._loop.time() + seconds
        return True

    def _promised_seconds(self) -> float:
        """How long the receiver keeps the connection, by its Keep-Alive header, less a second for the way."""
        for name, value in self._head.headers if self._head is not None else ():
            if name.lower() == b"keep-alive" and (promised := _KEEP_ALIVE_TIMEOUT.search(value)):
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

    def take_whole(self) -> bytes | None:
        """All of it, if it is there already and nobody has taken any. The connection is then given back."""
        connection = self._connection
        body = None if connection is None else connection.take_whole_body()
        if body is not None and connection is not None:
            self._connection = None
            self._give_back(connection)
        return body

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """The same at once."""
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


def _is_readable(descriptor: int) -> bool:
    if descriptor < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])
