"""A TCP proxy between a dispatcher and its receiver that does what networks do: wait, trickle, cut, close one side."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Self

import attrs

__all__ = ["Fault", "Proxy"]

_CHUNK = 65_536


@attrs.frozen(kw_only=True)
class Fault:
    """What becomes of one connection.

    Attributes:
        latency: seconds that each piece is on its way, in either direction.
        bytes_per_second: how fast it goes, in either direction; None is at once.
        cut_request_at, cut_answer_at: the connection is reset once so many bytes have passed in this direction.
        close_request_at, close_answer_at: the same, but this direction alone is closed, in good order.
        lose_answer: the receiver's answer is read to its end, and the connection reset.
    """

    latency: float = 0.0
    bytes_per_second: int | None = None
    cut_request_at: int | None = None
    cut_answer_at: int | None = None
    close_request_at: int | None = None
    close_answer_at: int | None = None
    lose_answer: bool = False


class Proxy:
    """Listens on loopback and passes on to `port`; each new connection takes the next fault, or none."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._faults: deque[Fault] = deque()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)
        self.connections = 0
        self.url = ""
        self._thread.start()
        assert self._begun.wait(30)

    def next(self, *faults: Fault) -> None:
        """What happens to the connections that come next."""
        self._faults.extend(faults)

    @property
    def faults_left(self) -> int:
        """How many faults have not happened yet."""
        return len(self._faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        self._begun.set()
        await self._end.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connected(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.connections += 1
        fault = self._faults.popleft() if self._faults else Fault()
        from_receiver, to_receiver = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {to_client, to_receiver}

        def reset() -> None:
            # With this the client gets a reset, and not an end in good order.
            to_client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            to_client.transport.abort()
            # What has gone to the receiver arrives there; it sees an end and not a reset.
            to_receiver.close()

        request = _Way(fault, fault.cut_request_at, fault.close_request_at, reset)
        answer = _Way(fault, fault.cut_answer_at, fault.close_answer_at, reset)
        back = _lose(from_receiver, reset) if fault.lose_answer else answer.pass_on(from_receiver, to_client)
        # Cancelled when the proxy ends with connections open.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(request.pass_on(from_client, to_receiver), back, return_exceptions=True)
        to_client.close()
        to_receiver.close()
        self._writers -= {to_client, to_receiver}


@attrs.define
class _Way:
    """One direction of a connection."""

    fault: Fault
    cut_at: int | None
    close_at: int | None
    reset: Callable[[], None]
    passed: int = 0

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stop = min((at for at in (self.cut_at, self.close_at) if at is not None), default=None)
        while self.passed != stop and (data := await reader.read(_CHUNK)):
            if stop is not None:
                data = data[: stop - self.passed]
            await self._delay(len(data))
            writer.write(data)
            await writer.drain()
            self.passed += len(data)
        if self.cut_at is not None and self.passed == self.cut_at:
            self.reset()
        elif not writer.transport.is_closing():
            writer.write_eof()

    async def _delay(self, length: int) -> None:
        speed = self.fault.bytes_per_second
        seconds = self.fault.latency + (length / speed if speed is not None else 0)
        if seconds:
            await asyncio.sleep(seconds)


async def _lose(reader: asyncio.StreamReader, reset: Callable[[], None]) -> None:
    """Read an answer without passing it on."""
    if await reader.readuntil(b"\r\n\r\n"):
        reset()
