"""Deliveries per second over requests per second of the same transport, bare: no storage, nothing decided or recorded.

Bare, it is called as anybody may call it, with requests of httpx that were made and signed beforehand. The dispatcher
does not make these: it hands the transport bytes. Two more rows compare it to that, with requests made beforehand and
on the way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import httpx

from procore_hooks import DestinationPolicy, Event, GuardedTransport, Hook, Timeouts
from procore_hooks._requests import PreparedRequest, RequestMaker

from ._backlog import emit_and_drain, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, require, side
from .sink import sink

_IN_FLIGHT = 100


def measure(options: Options) -> Sequence[Result]:
    """Three rows, of which the first is the figure."""
    number = options.size(5_000, 200)
    with folder() as where, sink() as receiver, opened(where / "hooks.db") as registry:
        hook = listen(registry, receiver.url)
        emit_and_drain(registry, 1)
        event = registry.deliveries.list(hook.id)[0].event

        def by_httpx() -> float:
            return httpx_rate([one.as_httpx(Timeouts()) for one in prepared(hook, event, number)], number)

        rates = alternate(
            2 * options.runs,
            {
                "ours": lambda: emit_and_drain(registry, number),
                "httpx": by_httpx,
                "bytes": lambda: bare_rate(list(prepared(hook, event, number)), number),
                "signing": lambda: bare_rate(prepared(hook, event, number), number),
            },
        )
    ours = side("drain", rates["ours"], "deliveries/s")
    measured = f"drain of {number:,} over as many requests, {_IN_FLIGHT} in flight"
    return [
        ratio(
            "deliveries/s ÷ the same transport bare, same concurrency",
            f"{measured}, each an httpx.Request made beforehand",
            ours,
            side("bare", rates["httpx"], "requests/s"),
            Bar(0.8, 0.9),
        ),
        ratio(
            "(for comparison) ÷ the same transport, given bytes that were made beforehand",
            measured,
            ours,
            side("bare, bytes", rates["bytes"], "requests/s"),
        ),
        ratio(
            "(for comparison) ÷ the same transport, given bytes that are made and signed on the way",
            measured,
            ours,
            side("bare, bytes, signing", rates["signing"], "requests/s"),
        ),
    ]


def prepared(hook: Hook, event: Event, number: int) -> Iterable[PreparedRequest]:
    """Requests as a dispatcher makes them."""
    maker = RequestMaker(DestinationPolicy.local(), {})
    return (maker.request(hook, event, datetime.now(UTC)) for _ in range(number))


def bare_rate(requests: Iterable[PreparedRequest], number: int) -> float:
    """Requests per second through a transport of their own."""
    began = time.perf_counter()
    asyncio.run(_send_all(requests))
    return number / (time.perf_counter() - began)


async def _send_all(requests: Iterable[PreparedRequest]) -> None:
    transport = GuardedTransport(DestinationPolicy.local(), max_idle_per_destination=_IN_FLIGHT)
    waiting = iter(requests)

    async def worker() -> None:
        for one in waiting:
            head, body = await transport.send(one.destination, one, one.body, connect=5.0, response=5.0)
            async for _ in body:
                pass
            require(head.status == 200, f"the sink answered {head.status}")

    await asyncio.gather(*(worker() for _ in range(_IN_FLIGHT)))
    await transport.aclose()


def httpx_rate(requests: Iterable[httpx.Request], number: int) -> float:
    """The same by the transport's public method, with requests and responses of httpx."""
    began = time.perf_counter()
    asyncio.run(_send_all_by_httpx(requests))
    return number / (time.perf_counter() - began)


async def _send_all_by_httpx(requests: Iterable[httpx.Request]) -> None:
    transport = GuardedTransport(DestinationPolicy.local(), max_idle_per_destination=_IN_FLIGHT)
    waiting = iter(requests)

    async def worker() -> None:
        for request in waiting:
            response = await transport.handle_async_request(request)
            await response.aread()
            await response.aclose()
            require(response.status_code == 200, f"the sink answered {response.status_code}")

    await asyncio.gather(*(worker() for _ in range(_IN_FLIGHT)))
    await transport.aclose()


if __name__ == "__main__":
    main(measure)
