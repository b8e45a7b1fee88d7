"""Cancellation, at any moment: what was in flight is settled at once, and the next dispatcher goes on.

200 moments by default; 10,000 with PROCORE_HOOKS_FULL=1. They follow from their seeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from procore_hooks import Dispatcher, HookRegistry
from procore_hooks.testing import WebhookReceiver

from .evidence import BOUND, FULL, AheadClock, Evidence, Notebook, drain_dry

MOMENTS = 200  # of each seed
SEEDS = 50 if FULL else 1
LONGEST = 0.012  # seconds that a dispatcher works before it is cancelled


def left_open(registry: HookRegistry) -> set[tuple[int, int]]:
    """The attempts that are counted and not recorded, of the newest deliveries that have been tried."""
    newest = registry.deliveries.list(status=["enqueued", "retrying"], page_size=200)
    return {(one.id, one.attempt_count) for one in newest if one.attempt_count != len(one.attempts)}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_cancelled_at_random_moments(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook, seed: int
) -> None:
    """`run_async` cancelled at any moment settles what is in flight as ``unknown``, without waiting for leases.
    Cancelled once more while it does so, it may leave leases behind, which run out. In the end the law holds.
    """
    evidence.add_hooks(registry, receiver.url)
    for _ in range(MOMENTS):
        receiver.reply(200, delay=0.004).reply(200, times=3).reply(500)
    dice, numbers = random.Random(seed), iter(range(10 * MOMENTS))
    assert isinstance(registry.clock, AheadClock)
    clock, open_after_one = registry.clock, set()

    async def cancel_one(is_twice: bool) -> None:
        task = asyncio.create_task(Dispatcher(registry).run_async())
        for _ in range(dice.randrange(3)):
            notebook.emit(registry, next(numbers))
            await asyncio.sleep(0)
        await asyncio.sleep(dice.choice((0, dice.uniform(0, LONGEST))))
        task.cancel()
        if is_twice:
            await asyncio.sleep(dice.choice((0, dice.uniform(0, 0.002))))
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    for moment in range(MOMENTS):
        is_twice = dice.random() < 0.1
        asyncio.run(asyncio.wait_for(cancel_one(is_twice), BOUND))
        clock.ahead += timedelta(seconds=20)  # no lease and no pause is left of what was before
        if moment % 5 == 0:
            before = left_open(registry)
            asyncio.run(asyncio.wait_for(cancel_one(False), BOUND))
            open_after_one |= left_open(registry) - before
    drain_dry(registry)
    deliveries = list(registry.deliveries.iter(page_size=1000))
    cut_short = sum(a.outcome == "unknown" for one in deliveries for a in one.attempts)
    print(f"{MOMENTS} cancellations, {cut_short} attempts cut short")
    assert open_after_one == set()
    assert evidence.verdict(registry, receiver.requests) == []
    assert cut_short > MOMENTS / 20


class CancelledAt(Coroutine[Any, Any, Any]):
    """A coroutine whose task is cancelled in its step number `step`, so at the await that ends this step."""

    def __init__(self, inner: Coroutine[Any, Any, Any], step: int) -> None:
        self._inner = inner
        self.steps_left = step

    def send(self, value: Any) -> Any:
        self.steps_left -= 1
        if self.steps_left == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()


def test_cancelled_at_each_await(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """A drain that is cancelled at its first await, at its second and so on, until it has none left: each time all is
    settled at once.
    """
    evidence.add_hooks(registry, receiver.url)

    async def drain_until(step: int) -> bool:
        steps = CancelledAt(Dispatcher(registry).drain_async(BOUND), step)
        task = asyncio.create_task(steps)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return steps.steps_left > 0

    for step in range(1, 500):
        notebook.emit(registry, step, "RFIs")
        if asyncio.run(drain_until(step)):
            break
        assert left_open(registry) == set()
    else:
        raise AssertionError("500 awaits for a few deliveries")
    assert step > 5
    drain_dry(registry)
    assert evidence.verdict(registry, receiver.requests) == []
