"""Order within a hook, whatever its endpoint does; and hooks that do not hold each other up."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from tenacity import stop_never, wait_fixed

from procore_hooks import DestinationPolicy, Dispatcher, HookRegistry, MemoryStorage, RetryPolicy, SQLiteStorage
from procore_hooks.testing import ManualClock, WebhookReceiver

from .conftest import BOUND, hook_for, wait_until

SOON = RetryPolicy(wait=wait_fixed(0.01), stop=stop_never)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_first_arrivals_are_in_order_of_emission(kind: str, path: Path) -> None:
    """Over a thousand events and a receiver that fails at random, `max_in_flight=1` keeps the order of emission."""
    dice = random.Random(kind)
    storage = MemoryStorage() if kind == "memory" else SQLiteStorage(path, durability="normal")
    with HookRegistry(storage, destinations=DestinationPolicy.local()) as registry, WebhookReceiver() as receiver:
        for _ in range(3000):
            receiver.reply(dice.choices((200, 500, 503, 404), (8, 1, 1, 1))[0])
        receiver.reply(200, times=None)
        hook_for(registry, receiver.url)
        with Dispatcher(registry, retry=SOON) as dispatcher:
            for number in range(1000):
                registry.emit("RFIs", "update", number)
            dispatcher.drain(BOUND)
            wait_until(lambda: not registry.deliveries.list(status=("enqueued", "retrying"), page_size=1).items)
        arrived = [request.json()["data"] for request in receiver.requests]

    assert len(arrived) > 1100
    assert list(dict.fromkeys(arrived)) == list(range(1000))
    # Not only the first arrivals: nothing is sent before its predecessor was taken.
    assert arrived == sorted(arrived)


def test_a_wide_hook_still_gets_everything(by_hand: HookRegistry, clock: ManualClock) -> None:
    """With a larger `max_in_flight` and random failures everything arrives, in whatever order."""
    dice = random.Random(3)
    got: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        status = dice.choices((200, 500), (5, 1))[0]
        if status == 200:
            got.append(int(request.content.partition(b'"data":')[2].rstrip(b"}")))
        return httpx.Response(status)

    hook_for(by_hand, max_in_flight=10)
    for number in range(300):
        by_hand.emit("RFIs", "update", number)
    dispatcher = Dispatcher(by_hand, transport=httpx.MockTransport(handler), retry=SOON)
    while dispatcher.drain().next_due_at is not None:
        clock.advance(timedelta(seconds=0.02))
    assert sorted(got) == list(range(300))


def test_one_hanging_hook_of_ten_delays_nobody(filed: HookRegistry) -> None:
    """While one endpoint holds its answer, the other nine get all of theirs; its own attempt is still open then."""
    with WebhookReceiver() as hanging, WebhookReceiver() as lively:
        hanging.reply(200, delay=3600)
        stuck = hook_for(filed, hanging.url)
        for number in range(9):
            hook_for(filed, f"{lively.url}{number}")
        with Dispatcher(filed) as dispatcher:
            for number in range(100):
                filed.emit("RFIs", "update", number)
            lively.wait_for(900, timeout=9)  # within the ten seconds that the hanging attempt may take
            wait_until(lambda: filed.deliveries.stats(since=stuck.created_at).delivered == 900, bound=9)
            (oldest,) = [one for one in filed.deliveries.iter(stuck.id) if one.attempt_count]
            assert (oldest.status, oldest.attempts) == ("enqueued", ())
            assert len(hanging.requests) == 1
            filed.hooks.disable(stuck.id, queued="drop")
            hanging.close()
            dispatcher.drain(BOUND)
        for number in range(9):
            arrived = [r.json()["data"] for r in lively.requests if r.path == f"/{number}"]
            assert arrived == list(range(100))
