"""Deliveries per second over those of one shared `httpx.AsyncClient` that posts 32 at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import httpx

from ._backlog import PAYLOAD_JSON, emit_and_drain, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, require, side
from .sink import sink

_AT_A_TIME = 32


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    number, posts = options.size(5_000, 200), options.size(640, 64)
    with folder() as where, sink() as receiver, opened(where / "hooks.db") as registry:
        listen(registry, receiver.url)

        def client() -> float:
            began = time.perf_counter()
            asyncio.run(_post_all(receiver.url, posts))
            return posts / (time.perf_counter() - began)

        rates = alternate(options.runs, {"ours": lambda: emit_and_drain(registry, number), "client": client})
    return [
        ratio(
            "deliveries/s ÷ one shared httpx.AsyncClient, 32 at a time",
            f"drain of {number:,}, 100 in flight, over {posts:,} posts by {_AT_A_TIME} tasks",
            side("drain", rates["ours"], "deliveries/s"),
            side("client", rates["client"], "posts/s"),
            Bar(10, 15),
        )
    ]


async def _post_all(url: str, number: int) -> None:
    async with httpx.AsyncClient(timeout=60) as client:

        async def worker() -> None:
            for _ in range(number // _AT_A_TIME):
                answer = await client.post(url, content=PAYLOAD_JSON, headers={"content-type": "application/json"})
                require(answer.status_code == 200, f"the sink answered {answer.status_code}")

        await asyncio.gather(*(worker() for _ in range(_AT_A_TIME)))


if __name__ == "__main__":
    main(measure)
