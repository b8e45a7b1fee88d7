"""Deliveries per second over those of a plain loop of `httpx.Client.post`, which signs and records nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

import httpx

from ._backlog import PAYLOAD_JSON, emit_and_drain, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, require, side
from .sink import sink


def measure(options: Options) -> Sequence[Result]:
    """One row."""
    number, posts = options.size(5_000, 200), options.size(1_500, 100)
    with folder() as where, sink() as receiver, opened(where / "hooks.db") as registry:
        listen(registry, receiver.url)

        def loop() -> float:
            return post_rate(receiver.url, posts)

        rates = alternate(options.runs, {"ours": lambda: emit_and_drain(registry, number), "loop": loop})
    return [
        ratio(
            "deliveries/s ÷ a plain loop of httpx.Client.post",
            f"drain of {number:,}, 100 in flight, over {posts:,} posts one after the other",
            side("drain", rates["ours"], "deliveries/s"),
            side("loop", rates["loop"], "posts/s"),
            Bar(1.5, 2),
        )
    ]


def post_rate(url: str, number: int) -> float:
    """Posts per second of one client, one after the other."""
    with httpx.Client() as client:
        began = time.perf_counter()
        for _ in range(number):
            answer = client.post(url, content=PAYLOAD_JSON, headers={"content-type": "application/json"})
            require(answer.status_code == 200, f"the sink answered {answer.status_code}")
        return number / (time.perf_counter() - began)


if __name__ == "__main__":
    main(measure)
