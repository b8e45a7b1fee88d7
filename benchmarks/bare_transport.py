"""Deliveries per second over requests per second of the same transport, bare: no storage, nothing decided or recorded.

Its requests are made and signed beforehand. How much of the difference making and signing them is shows in the second
row, where the bare side does that too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import httpx

from procore_hooks import DestinationPolicy, Event, GuardedTransport, Hook, Timeouts
from procore_hooks._requests import RequestMaker

from ._backlog import emit_and_drain, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, require, side
from .sink import sink

_IN_FLIGHT = 100


def measure(options: Options) -> Sequence[Result]:
    """Two rows, of which the first is the figure."""
    number = options.size(5_000, 200)
    with folder() as where, sink() as receiver, opened(where / "hooks.db") as registry:
        hook = listen(registry, receiver.url)
        emit_and_drain(registry, 1)
        event = registry.deliveries.list(hook.id)[0].event

        def prepared() -> float:
            return bare_rate(list(signed(hook, event, number)), number)

        def made_on_the_way() -> float:
            return bare_rate(signed(hook, event, number), number)

        rates = alternate(
            options.runs,
            {"ours": lambda: emit_and_drain(registry, number), "bare": prepared, "signing": made_on_the_way},
        )
    ours = side("drain", rates["ours"], "deliveries/s")
    return [
        ratio(
            "deliveries/s ÷ the same transport bare, same concurrency",
            f"drain of {number:,} over as many prepared requests, {_IN_FLIGHT} in flight",
            ours,
            side("bare", rates["bare"], "requests/s"),
            Bar(0.8, 0.9),
        ),
        ratio(
            "(for comparison) ÷ the same transport that makes and signs its requests",
            "the same, requests made as they are sent",
            ours,
            side("bare and signing", rates["signing"], "requests/s"),
        ),
    ]


def signed(hook: Hook, event: Event, number: int) -> Iterable[httpx.Request]:
    """Requests as a dispatcher makes them."""
    maker = RequestMaker(DestinationPolicy.local(), {})
    return (maker.request(hook, event, datetime.now(UTC)).as_httpx(Timeouts()) for _ in range(number))


def bare_rate(requests: Iterable[httpx.Request], number: int) -> float:
    """Requests per second through a transport of their own."""
    began = time.perf_counter()
    asyncio.run(_send_all(requests))
    return number / (time.perf_counter() - began)


async def _send_all(requests: Iterable[httpx.Request]) -> None:
    transport = GuardedTransport(DestinationPolicy.local())
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
