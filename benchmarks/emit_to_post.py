"""From the call of emit to the first byte of its POST at the receiver, at 50 emits a second.

At this rate little of what an emit needs is still in the processor's caches, and what that costs differs from machine
to machine. So three things are measured beside it. How much of it is the emit itself, from its call to its return,
which no dispatcher can begin before. The least that could be: one row of 1 KB is committed, and another thread sends
the bytes of a POST that was made beforehand on a connection that is open. And how much longer something takes after
the pause than at once after itself: `json.dumps` of the payload.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from procore_hooks import Dispatcher, HookRegistry

from ._backlog import PAYLOAD, PAYLOAD_JSON, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, percentile, quantity, ratio, side, timed
from .emit_cost import bare_commit
from .sink import Sink, sink

_PER_SECOND = 50


def measure(options: Options) -> Sequence[Result]:
    """Six rows, of which the first two are the figure."""
    number = options.size(500, 25)
    with (
        folder() as where,
        sink() as receiver,
        opened(where / "hooks.db") as registry,
        _least(where, receiver) as least,
    ):
        listen(registry, f"{receiver.url}/timed")

        def ours() -> tuple[float, float, float]:
            with Dispatcher(registry):
                return _delays(_emit(registry), receiver, number)

        samples = alternate(
            options.runs,
            {
                "ours": ours,
                "least": lambda: _delays(least, receiver, number),
                "pause": lambda: _after_a_pause(options.size(100, 5)),
            },
        )
    often = f"{number}, {_PER_SECOND} a second"

    def rows(name: str, figure: str, measured: str, bars: Sequence[Bar | None]) -> Iterator[Result]:
        for place, (percent, bar) in enumerate(zip(("p50", "p99"), bars, strict=True)):
            yield quantity(f"{figure}, {percent}", measured, [one[place] for one in samples[name]], "ms", bar)

    return [
        *rows(
            "ours",
            f"emit → POST begun, {_PER_SECOND} emits/s",
            f"emits, {often}, beside a dispatcher in the same process",
            (Bar(1, 0.5), Bar(5, 2)),
        ),
        quantity(
            f"(for comparison) the emit alone, {_PER_SECOND} emits/s, p50",
            "the same emits, from the call to its return, once it is committed",
            [one[2] for one in samples["ours"]],
            "ms",
        ),
        *rows(
            "least",
            "(for comparison) the least that could be",
            f"bare commits of 1 KB, {often}, each followed by bytes that another thread sends",
            (None, None),
        ),
        ratio(
            "(for comparison) what runs after a pause ÷ what runs at once",
            f"json.dumps of 1 KB, {1000 // _PER_SECOND} ms after the last one over at once after that",
            side("after the pause", [one[0] for one in samples["pause"]], "µs"),
            side("at once", [one[1] for one in samples["pause"]], "µs"),
        ),
    ]


def _delays(send: Callable[[], str], receiver: Sink, number: int) -> tuple[float, float, float]:
    """p50 and p99, and the p50 of the call itself, in milliseconds. `send` returns the webhook-id."""
    receiver.reset()
    called: dict[str, float] = {}
    calls: list[float] = []
    start = time.monotonic()
    for turn in range(number):
        time.sleep(max(0.0, start + turn / _PER_SECOND - time.monotonic()))
        before = time.monotonic()
        webhook_id = send()
        calls.append((time.monotonic() - before) * 1000)
        called[webhook_id] = before
    receiver.wait_for(number)
    began = receiver.began()
    delays = [(began[webhook_id] - before) * 1000 for webhook_id, before in called.items()]
    p50, p99, call = (percentile(values, share) for values, share in ((delays, 0.5), (delays, 0.99), (calls, 0.5)))
    return round(p50, 3), round(p99, 3), round(call, 3)


def _after_a_pause(number: int) -> tuple[float, float]:
    """The p50 of `json.dumps` after a pause, and at once after that, in microseconds."""
    pairs = []
    for _ in range(number):
        time.sleep(1 / _PER_SECOND)
        pairs.append((timed(lambda: json.dumps(PAYLOAD)) * 1e6, timed(lambda: json.dumps(PAYLOAD)) * 1e6))
    first, second = (statistics.median(each) for each in zip(*pairs, strict=True))
    return first, second


def _emit(registry: HookRegistry) -> Callable[[], str]:
    return lambda: registry.emit("RFIs", "update", PAYLOAD, resource_id=54321, company_id=8, project_id=6778).event.ulid


@contextlib.contextmanager
def _least(where: Path, receiver: Sink) -> Iterator[Callable[[], str]]:
    """A function that commits a row and lets another thread send; it returns the webhook-id."""
    host, port = receiver.url.removeprefix("http://").split(":")
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    head = "POST /timed HTTP/1.1\r\nhost: {}\r\nwebhook-id: {}\r\ncontent-length: {}\r\n\r\n"
    with bare_commit(where, "normal") as commit, socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def run() -> None:
            while (webhook_id := waiting.get()) is not None:
                connection.sendall(head.format(host, webhook_id, len(PAYLOAD_JSON)).encode() + PAYLOAD_JSON)
                connection.recv(65_536)

        def send() -> str:
            webhook_id = str(time.monotonic_ns())
            commit()
            waiting.put(webhook_id)
            return webhook_id

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield send
        finally:
            waiting.put(None)
            thread.join()


if __name__ == "__main__":
    main(measure)
