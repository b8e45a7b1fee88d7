"""What an app gives to the library, and it raises: observers, payload formats, retry strategies."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from procore_hooks import DestinationPolicy, Dispatcher, Event, HookRegistry, RetryPolicy, SQLiteStorage
from procore_hooks.testing import WebhookReceiver

from .evidence import BOUND, AheadClock, Evidence, Notebook, drain_dry


def test_observers_that_raise(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """Observers that raise on every notice change nothing: one attempt and one hit for each delivery, and an observer
    that comes after them hears of all.
    """
    evidence.add_hooks(registry, receiver.url)
    heard: Counter[str] = Counter()

    def fail(notice: Any) -> None:
        raise RuntimeError(f"as a test, on {type(notice).__name__}")

    def listen(notice: Any) -> None:
        heard[type(notice).__name__] += 1

    with Dispatcher(registry, observers=[fail, listen, fail]) as dispatcher:
        for number in range(20):
            notebook.emit(registry, number)
        dispatcher.drain(BOUND)
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []
    assert heard == {"AttemptRecorded": len(receiver.requests)}


class Moody:
    """A payload format that raises on some events, and on each of these some times only."""

    def __init__(self) -> None:
        self._dice = random.Random(3)
        self._moods: dict[int, int] = {}

    def __call__(self, event: Event) -> object:
        mood = self._moods.setdefault(event.id, self._dice.choice((0, 0, 1, 3)))
        if mood > 0:
            self._moods[event.id] = mood - 1
            raise self._dice.choice((KeyError("x"), ValueError("y"), RecursionError(), StopIteration()))
        if mood == 0 and self._dice.random() < 0.1:
            return {"not": {"JSON"}}
        self._moods[event.id] = -1
        return {"number": event.payload["number"]}


@pytest.mark.parametrize("on_failure", ["pause", "independent"])
def test_payload_formats_that_raise(
    evidence: Evidence, receiver: WebhookReceiver, notebook: Notebook, on_failure: Any
) -> None:
    """A format that raises, or makes no JSON, fails that attempt and nothing else: it is recorded, without the words of
    the error, and tried again.
    """
    registry = HookRegistry(
        SQLiteStorage(evidence.path, durability="normal"),
        destinations=DestinationPolicy.local(),
        payload_formats={"moody": Moody()},
        clock=AheadClock(),
    )
    policy = RetryPolicy(wait=wait_fixed(5), stop=stop_after_attempt(50), on_failure=on_failure)
    evidence.add_hook(registry, f"{receiver.url}a", ["RFIs"], payload_version="moody")
    for number in range(40):
        notebook.emit(registry, number, "RFIs")
    drain_dry(registry, retry=policy)
    deliveries = list(registry.deliveries.iter())
    failed = [attempt for one in deliveries for attempt in one.attempts if attempt.outcome != "ok"]
    assert len(failed) > 10
    assert all("moody" in (attempt.response_error or "") for attempt in failed)
    broken = evidence.verdict(
        registry,
        receiver.requests,
        in_order=frozenset({1} if on_failure == "pause" else ()),
        body_of=lambda one: b'{"number":%d}' % one.event.payload["number"],
    )
    assert broken == []
    assert len(receiver.requests) == 40
    registry.close()


def test_strategies_that_raise(
    receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook
) -> None:
    """A retry strategy that raises costs a minute's wait: the attempt is recorded, and the delivery tried again."""

    def fail(state: Any) -> float:
        raise ZeroDivisionError

    evidence.add_hooks(registry, receiver.url)
    receiver.reply(500, times=7).reply(200, times=None)
    for number in range(8):
        notebook.emit(registry, number)
    drain_dry(registry, retry=RetryPolicy(wait=fail, stop=stop_after_attempt(50)))
    assert evidence.verdict(registry, receiver.requests) == []
    assert {one.status for one in registry.deliveries.iter()} == {"delivered"}


class Interrupted(SQLiteStorage):
    """A storage in which something happens between a claim and its POST, once."""

    happening: Any = None

    def turn(self, *arguments: Any, **keywords: Any) -> Any:
        turn = super().turn(*arguments, **keywords)
        if turn.claims and self.happening is not None:
            happening, self.happening = self.happening, None
            happening()
        return turn


HAPPENINGS = {
    "another URL": lambda r, hook: r.hooks.update(hook.id, destination_url=f"{hook.destination_url}?new"),
    "other headers": lambda r, hook: r.hooks.update(hook.id, destination_headers={"x-new": "1"}),
    "another secret": lambda r, hook: r.hooks.rotate_secret(hook.id),
    "more at once": lambda r, hook: r.hooks.update(hook.id, max_in_flight=5),
    "other triggers": lambda r, hook: r.triggers.replace(hook.id, {}),
    "disabled": lambda r, hook: r.hooks.disable(hook.id),
    "disabled, dropping": lambda r, hook: r.hooks.disable(hook.id, queued="drop"),
    "disabled and enabled": lambda r, hook: (r.hooks.disable(hook.id), r.hooks.enable(hook.id)),
    "deleted": lambda r, hook: r.hooks.delete(hook.id),
}


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("what", HAPPENINGS)
def test_a_hook_that_changes_between_claim_and_post(
    tmp_path: Path, receiver: WebhookReceiver, notebook: Notebook, what: str, status: int
) -> None:
    """Whatever happens to a hook while its delivery is claimed and not yet sent, that attempt goes out as it was
    claimed and is recorded; all that follows goes by the hook as it is then.
    """
    evidence = Evidence(tmp_path)
    storage = Interrupted(evidence.path, durability="normal")
    registry = HookRegistry(storage, destinations=DestinationPolicy.local(), clock=AheadClock())
    hook = evidence.add_hook(registry, f"{receiver.url}a", ["RFIs"])
    evidence.add_hook(registry, f"{receiver.url}b", ["RFIs"])
    for number in range(4):
        notebook.emit(registry, number, "RFIs")
    receiver.reply(status, times=2).reply(200, times=None)
    storage.happening = lambda: HAPPENINGS[what](registry, hook)
    drain_dry(registry)

    first, *others = sorted(registry.deliveries.iter(hook.id), key=lambda one: one.id)
    ours = [one for one in receiver.requests if one.path.startswith("/a")]
    assert ours[0].path == "/a"
    assert "x-new" not in ours[0].headers
    ended = {"disabled", "disabled, dropping", "deleted"}
    if what == "disabled":
        assert evidence.verdict(registry, receiver.requests, waits=lambda one: one.hook_id == hook.id) == []
        assert len(ours) == 1
        registry.hooks.enable(hook.id)
        drain_dry(registry)
    elif what in ended:
        assert (first.status, first.attempt_count) == ("delivered" if status == 200 else "discarded", 1)
        assert {(one.status, one.attempt_count) for one in others} == {("discarded", 0)}
        assert len(ours) == 1
    elif what == "another URL":
        assert {one.path for one in ours[1:]} == {"/a?new"}
    elif what == "other headers":
        assert {one.headers.get("x-new") for one in ours[1:]} == {"1"}
    in_order = frozenset({hook.id} if what != "more at once" else ())
    assert evidence.verdict(registry, receiver.requests, in_order=in_order) == []
    registry.close()
