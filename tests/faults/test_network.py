"""A bad network between dispatcher and receiver: nothing is lost, and nothing comes twice without a reason."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tenacity import stop_after_attempt, wait_fixed

from procore_hooks import Dispatcher, HookRegistry, RetryPolicy, Timeouts
from procore_hooks.testing import WebhookReceiver

from .evidence import FULL, Evidence, Notebook, drain_dry, duplicates
from .proxy import Fault, Proxy

TIMEOUTS = Timeouts(connect=5, response=5, total=10)
EAGER = RetryPolicy(wait=wait_fixed(1), stop=stop_after_attempt(1000))
# The request is about 550 bytes of head and 300 of body, the answer below has 96 of head and 40 of body.
ANSWER = b"x" * 40
REQUEST_CUTS = (*range(0, 1600, 20 if FULL else 160), 1, 5, 17)
ANSWER_CUTS = range(0, 150, 1 if FULL else 12)


@pytest.fixture
def proxy(receiver: WebhookReceiver) -> Iterator[Proxy]:
    with Proxy(urllib.parse.urlsplit(receiver.url).port or 0) as proxy:
        yield proxy


def deliver_through(
    proxy: Proxy, registry: HookRegistry, evidence: Evidence, notebook: Notebook, *faults: Fault, **options: object
) -> None:
    """One hook, an event for each fault and two more; each connection has its fault, and the law is looked at."""
    proxy.next(*faults)
    evidence.add_hook(registry, f"{proxy.url}a", ["RFIs"])
    for number in range(len(faults) + 2):
        notebook.emit(registry, number, "RFIs")
    drain_dry(registry, retry=EAGER, timeouts=options.get("timeouts", TIMEOUTS))
    assert proxy.faults_left == 0


@pytest.mark.parametrize(
    ("cuts", "field"),
    [
        (REQUEST_CUTS, "cut_request_at"),
        (REQUEST_CUTS, "close_request_at"),
        (ANSWER_CUTS, "cut_answer_at"),
        (ANSWER_CUTS, "close_answer_at"),
    ],
)
def test_a_connection_cut_at_byte_k(
    proxy: Proxy,
    receiver: WebhookReceiver,
    registry: HookRegistry,
    evidence: Evidence,
    notebook: Notebook,
    cuts: range,
    field: str,
) -> None:
    """Reset, or closed on one side, after any number of bytes of the request or of the answer: all is delivered, in
    order, and comes twice only where the receiver had got it whole.
    """
    receiver.reply(200, headers={"connection": "close", "x": "y" * 20}, body=ANSWER, times=None)
    faults = [Fault(**{field: cut}) for cut in cuts]
    deliver_through(proxy, registry, evidence, notebook, *faults)
    requests = receiver.requests
    assert evidence.verdict(registry, requests) == []
    assert {one.status for one in registry.deliveries.iter()} == {"delivered"}
    attempts = sum(one.attempt_count for one in registry.deliveries.iter())
    twice = duplicates(requests)
    print(f"{field}: {len(faults)} cuts, {len(requests)} requests, {twice} of them not the first")
    assert attempts >= len(requests)
    if field.endswith("request_at"):
        assert attempts > len(faults)  # a request was cut in two, time and again
    else:
        assert twice > len(faults) / 4


def test_an_answer_that_is_lost(
    proxy: Proxy, receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """The receiver has committed and its answer is lost: it gets the same webhook-id once more for each loss, and no
    more often.
    """
    deliver_through(proxy, registry, evidence, notebook, *[Fault(lose_answer=True)] * 5)
    assert evidence.verdict(registry, receiver.requests) == []
    assert duplicates(receiver.requests) == 5
    (first,) = {one.headers["webhook-id"] for one in receiver.requests[:6]}
    assert first == receiver.requests[0].headers["webhook-id"]


def test_a_slow_network(
    proxy: Proxy, receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """Latency and little bandwidth cost time and nothing else: without a fault, one attempt and one hit each."""
    slow = Fault(latency=0.02, bytes_per_second=20_000)
    deliver_through(proxy, registry, evidence, notebook, slow)
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []


def test_a_network_slower_than_the_deadline(
    proxy: Proxy, receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """What takes longer than the attempt may is given up and tried again, on a connection of its own."""
    slow = Fault(latency=0.6)
    quick = Timeouts(connect=0.3, response=0.3, total=0.3)
    deliver_through(proxy, registry, evidence, notebook, slow, slow, timeouts=quick)
    assert evidence.verdict(registry, receiver.requests) == []
    first = min(registry.deliveries.iter(), key=lambda one: one.id)
    assert [one.outcome for one in first.attempts] == ["retried", "retried", "ok"]
    assert proxy.connections >= 3


def test_nobody_listens_for_a_while(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """A refused connection is a failed attempt; once somebody listens again the queue flows on, in order."""
    port = urllib.parse.urlsplit(receiver.url).port or 0
    hook = evidence.add_hook(registry, f"{receiver.url}a", ["RFIs"])
    receiver.close()
    for number in range(5):
        notebook.emit(registry, number, "RFIs")
    for _ in range(3):
        assert Dispatcher(registry, retry=EAGER).drain().retried == 1
        registry.clock.ahead += timedelta(seconds=2)  # type: ignore[attr-defined]
    assert registry.hooks.get(hook.id).failing_since is not None
    with WebhookReceiver(port=port) as again:
        drain_dry(registry, retry=EAGER)
        assert evidence.verdict(registry, again.requests) == []
        assert len(again.requests) == 5
