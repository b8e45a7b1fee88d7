"""A receiver that costs next to nothing: it counts requests, notes when each began, and answers 200.

It runs as a process of its own (``python -m benchmarks.sink``), on a port that it prints, until its standard input
ends. Each POST is counted; a path that starts with ``/slow`` is answered after 100 ms; of ``/timed`` ones the
``webhook-id`` is noted too. ``python -m benchmarks.sink --measure`` tells what a request costs it.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

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


class _Seen:
    """What came in since the last reset. Times are of the monotonic clock, which all processes share."""

    def __init__(self) -> None:
        self.arrivals = array.array("d")
        self.began: dict[str, float] = {}


class _Connection(asyncio.Protocol):
    def __init__(self, seen: _Seen, loop: asyncio.AbstractEventLoop) -> None:
        self._seen, self._loop = seen, loop
        self._buffer = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._began = time.monotonic()
        self._buffer = self._buffer + data if self._buffer else data
        while (end := self._buffer.find(b"\r\n\r\n") + 4) > 3:
            length = _LENGTH.search(self._buffer, 0, end)
            whole = end + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            head, self._buffer = self._buffer[:end], self._buffer[whole:]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"GET "):
            body = self._asked(head[4 : head.index(b" ", 4)])
            self._write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            return
        self._seen.arrivals.append(self._began)
        if head.startswith(b"POST /slow"):
            self._loop.call_later(_DELAY, self._write, _ANSWER)
            return
        if head.startswith(b"POST /timed"):
            webhook_id = _WEBHOOK_ID.search(head)
            if webhook_id:
                self._seen.began[webhook_id[1].decode()] = self._began
        self._write(_ANSWER)

    def _asked(self, path: bytes) -> bytes:
        if path == b"/reset":
            self._seen.__init__()  # type: ignore[misc]
        if path == b"/arrivals":
            return self._seen.arrivals.tobytes()
        if path == b"/cpu":
            return repr(time.process_time()).encode()
        if path == b"/began":
            return json.dumps(self._seen.began).encode()
        return b"%d" % len(self._seen.arrivals)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)  # type: ignore[attr-defined]


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


async def _serve() -> None:
    loop, seen = asyncio.get_running_loop(), _Seen()
    server = await loop.create_server(lambda: _Connection(seen, loop), "127.0.0.1", 0, backlog=_BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


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
        asyncio.run(_serve())
