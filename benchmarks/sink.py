"""A receiver that costs next to nothing: it counts requests, notes when each began, and answers 200.

It runs as a process of its own (``python -m benchmarks.sink``), on a port that it prints, until its standard input
ends. Each POST is counted; a path that starts with ``/slow`` is answered after 100 ms; of ``/timed`` ones the
``webhook-id`` is noted too. ``python -m benchmarks.sink --measure`` tells what a request costs it.
"""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import http.client
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final, NoReturn

from ._harness import ROOT

__all__ = ["Sink", "sink"]

_DELAY: Final = 0.1
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 2\r\n"
    b"date: Sat, 17 May 2031 09:30:01 GMT\r\nserver: sink\r\n\r\nok"
)
_LENGTH: Final = re.compile(rb"\ncontent-length: *(\d+)", re.IGNORECASE)
_WEBHOOK_ID: Final = re.compile(rb"\nwebhook-id: *(\S+)", re.IGNORECASE)
_BACKLOG: Final = 4096
_AT_ONCE: Final = 16_384


class _Seen:
    """What came in since the last reset. Times are of the monotonic clock, which all processes share."""

    def __init__(self) -> None:
        self.arrivals = array.array("d")
        self.began: dict[str, float] = {}

    def told(self, path: bytes) -> bytes:
        """What a GET of `path` is answered."""
        if path == b"/reset":
            self.__init__()  # type: ignore[misc]
        if path == b"/arrivals":
            return self.arrivals.tobytes()
        if path == b"/cpu":
            return repr(time.process_time()).encode()
        if path == b"/began":
            return json.dumps(self.began).encode()
        return b"%d" % len(self.arrivals)


class _Connection:
    __slots__ = ("began", "buffer", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.buffer = b""
        self.began = 0.0


class _Server:
    """Bare sockets, since what asyncio does before it hands over the first byte would be counted against the sender."""

    def __init__(self) -> None:
        self._seen = _Seen()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._late: collections.deque[tuple[float, _Connection]] = collections.deque()

    def serve(self) -> NoReturn:
        """Answer whoever comes."""
        while True:
            wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            for descriptor, _ in self._poll.poll(wait):
                # Before anything is done, since it is the moment of the first byte.
                now = time.monotonic()
                connection = self._connections.get(descriptor)
                if connection is None:
                    self._accept()
                else:
                    self._receive(connection, now)
            while self._late and self._late[0][0] <= time.monotonic():
                self._answer(self._late.popleft()[1])

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = self._listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections[accepted.fileno()] = _Connection(accepted)
                self._poll.register(accepted, select.EPOLLIN)

    def _receive(self, connection: _Connection, now: float) -> None:
        try:
            data = connection.socket.recv(_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(connection)
            return
        if not connection.buffer:
            connection.began = now
        buffer = connection.buffer + data if connection.buffer else data
        while (end := buffer.find(b"\r\n\r\n") + 4) > 3:
            length = _LENGTH.search(buffer, 0, end)
            whole = end + (int(length[1]) if length else 0)
            if len(buffer) < whole:
                break
            head, buffer = buffer[:end], buffer[whole:]
            self._take(connection, head)
        connection.buffer = buffer

    def _take(self, connection: _Connection, head: bytes) -> None:
        if head.startswith(b"GET "):
            body = self._seen.told(head[4 : head.index(b" ", 4)])
            # It is the benchmark's own, and reads what may be more than a buffer holds.
            connection.socket.setblocking(True)
            connection.socket.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            connection.socket.setblocking(False)
            return
        self._seen.arrivals.append(connection.began)
        if head.startswith(b"POST /slow"):
            self._late.append((time.monotonic() + _DELAY, connection))
            return
        if head.startswith(b"POST /timed"):
            webhook_id = _WEBHOOK_ID.search(head)
            if webhook_id:
                self._seen.began[webhook_id[1].decode()] = connection.began
        self._answer(connection)

    def _answer(self, connection: _Connection) -> None:
        # It is gone, or does not read: whoever sends too much of that will notice.
        with contextlib.suppress(OSError):
            connection.socket.send(_ANSWER)

    def _end(self, connection: _Connection) -> None:
        self._poll.unregister(connection.socket)
        del self._connections[connection.socket.fileno()]
        connection.socket.close()


class Sink:
    """The sink, seen from the benchmark's process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}"
        # What the library sends to must not be what it is asked through: this connection is of the benchmark's own.
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def reset(self) -> None:
        """Forget what came in."""
        self._ask("/reset")

    def count(self) -> int:
        """How many POSTs came in."""
        return int(self._ask("/count"))

    def arrivals(self) -> list[float]:
        """When the first byte of each came, by the monotonic clock, in the order in which they were complete."""
        times = array.array("d")
        times.frombytes(self._ask("/arrivals"))
        return times.tolist()

    def began(self) -> dict[str, float]:
        """The same by ``webhook-id``, of those to ``/timed``."""
        times: dict[str, float] = json.loads(self._ask("/began"))
        return times

    def cpu_seconds(self) -> float:
        """What it has used of a processor so far."""
        return float(self._ask("/cpu"))

    def wait_for(self, number: int, longest: float = 300.0) -> None:
        """Until so many POSTs came in."""
        give_up = time.monotonic() + longest
        while (count := self.count()) < number:
            if time.monotonic() > give_up:
                raise RuntimeError(f"only {count} of {number} requests came in {longest:g} s")
            time.sleep(0.02)

    def _ask(self, path: str) -> bytes:
        self._connection.request("GET", path)
        return self._connection.getresponse().read()


@contextlib.contextmanager
def sink() -> Iterator[Sink]:
    """A running sink."""
    command = [sys.executable, "-m", "benchmarks.sink"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Sink(int(process.stdout.readline()))
        finally:
            process.stdin.close()


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


async def _send(port: int, number: int, connections: int = 32) -> None:
    request = b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1024\r\n\r\n" + b"x" * 1024

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(number // connections):
            writer.write(request)
            await reader.readexactly(len(_ANSWER))
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))


def _measure() -> None:
    """What a request costs in processor time, which a busy machine lengthens little."""
    number = 16_000
    with sink() as receiver:
        port = int(receiver.url.rpartition(":")[2])
        for _ in range(5):
            before, began = receiver.cpu_seconds(), time.perf_counter()
            asyncio.run(_send(port, number))
            seconds, cpu = time.perf_counter() - began, receiver.cpu_seconds() - before
            print(
                f"{cpu / number * 1e6:.1f} µs of a processor each, so at most {number / cpu:,.0f} requests/s; "
                f"one raw asyncio client sent {number / seconds:,.0f}"
            )


if __name__ == "__main__":
    if "--measure" in sys.argv:
        _measure()
    else:
        threading.Thread(target=_leave_with_parent, daemon=True).start()
        server = _Server()
        print(server.port, flush=True)
        server.serve()
