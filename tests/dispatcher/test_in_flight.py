"""Many attempts at once: they are prepared and decided together, and still each stands for itself."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

import procore_hooks._engine as engine_module
from procore_hooks import Dispatcher, Event, HookRegistry, MemoryStorage, Timeouts
from procore_hooks._core.claims import Settlement
from procore_hooks._sending import Sender, Underway
from procore_hooks.testing import ScriptedEndpoint

from .conftest import BOUND, HeldEndpoint, answering, emit, hook_for, wait_until


def test_one_that_cannot_be_made_holds_up_no_other() -> None:
    """Of many that are prepared together, each that a payload format refuses is recorded as such; the rest are sent."""

    def refuse_some(event: Event) -> object:
        number = event.payload["number"]
        if number % 7 == 3:
            raise LookupError
        return {"number": number}

    with HookRegistry(MemoryStorage(), payload_formats={"mine": refuse_some}) as registry:
        hook = hook_for(registry, payload_version="mine", max_in_flight=100)
        for number in range(70):
            registry.emit("RFIs", "update", {"number": number})
        endpoint = ScriptedEndpoint()
        Dispatcher(registry, transport=endpoint).drain(BOUND)

        assert sorted(request.json()["number"] for request in endpoint.requests) == [
            number for number in range(70) if number % 7 != 3
        ]
        errors = Counter(
            attempt.response_error for delivery in registry.deliveries.iter(hook.id) for attempt in delivery.attempts
        )
        assert errors == {None: 60, "the payload format 'mine' raised LookupError": 10}


def test_the_slowest_keeps_no_others_in_memory(registry: HookRegistry) -> None:
    """Payloads and answers of attempts that are settled are let go, though one that began with them goes on, and
    nothing is claimed after them.
    """
    hook_for(registry, max_in_flight=20)
    sent = [emit(registry) for _ in range(20)]
    events = {registry.deliveries.get(each).event.ulid for each in sent}
    endpoint = HeldEndpoint()

    def in_memory() -> list[str]:
        found = [each.claim.event.ulid for each in gc.get_objects() if type(each) in (Underway, Settlement)]
        return [ulid for ulid in found if ulid in events]  # other tests may have left some behind

    with Dispatcher(registry, transport=endpoint, timeouts=Timeouts(total=2 * BOUND)) as dispatcher:
        endpoint.wait_for(20)
        for index in range(1, 20):
            endpoint.answer(index)
        wait_until(lambda: all(registry.deliveries.get(each).status == "delivered" for each in sent[1:]))
        wait_until(lambda: len(in_memory()) == 1)
        assert in_memory() == [registry.deliveries.get(sent[0]).event.ulid]
        endpoint.answer(0)
        dispatcher.drain(BOUND)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.eager_task_factory came with Python 3.12")
def test_in_a_loop_whose_tasks_begin_at_once(registry: HookRegistry) -> None:
    """`run_async` works in a host's loop that begins each task within `create_task`."""
    hook_for(registry, max_in_flight=20)
    sent = [emit(registry) for _ in range(50)]

    async def run() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        dispatcher = Dispatcher(registry, transport=ScriptedEndpoint())
        await asyncio.wait_for(dispatcher.drain_async(), BOUND)

    asyncio.run(run())
    assert {registry.deliveries.get(each).status for each in sent} == {"delivered"}


def test_what_is_cut_short_is_settled_once(registry: HookRegistry, caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled run brings one result for each attempt that it ends: none comes twice, and too late."""
    hook_for(registry, max_in_flight=20)
    sent = [emit(registry) for _ in range(20)]
    endpoint = HeldEndpoint()

    async def main() -> None:
        run = asyncio.create_task(Dispatcher(registry, transport=endpoint).run_async())
        await asyncio.to_thread(endpoint.wait_for, 20)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(main())
    outcomes = [[attempt.outcome for attempt in registry.deliveries.get(each).attempts] for each in sent]
    assert outcomes == [["unknown"]] * 20
    assert "were dropped" not in caplog.text


def test_what_is_cut_short_before_it_begins(registry: HookRegistry) -> None:
    """A run that is cancelled while the first of many go out leaves none of the others claimed."""
    hook_for(registry, max_in_flight=100)
    sent = [emit(registry) for _ in range(100)]
    came: list[httpx.Request] = []

    async def main() -> None:
        async def cancel(request: httpx.Request) -> httpx.Response:
            came.append(request)
            run.cancel()
            await asyncio.sleep(BOUND)
            return httpx.Response(200)

        run = asyncio.create_task(Dispatcher(registry, transport=httpx.MockTransport(cancel)).run_async())
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(main())
    assert 0 < len(came) < 100
    outcomes = [[attempt.outcome for attempt in registry.deliveries.get(each).attempts] for each in sent]
    assert outcomes == [["unknown"]] * 100


@pytest.mark.parametrize("batch", [0, 1])
def test_a_mistake_of_ours_stops_nobody_else(
    registry: HookRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, batch: int
) -> None:
    """Should preparing some fail as it never should, these wait for their leases to run out, and the rest are sent."""
    hook_for(registry, max_in_flight=100)
    sent = [emit(registry) for _ in range(100)]
    prepare = Sender.prepare
    calls: list[int] = []

    def fail_once(sender: Sender, attempts: Sequence[Underway], send_by: float) -> None:
        calls.append(len(attempts))
        if len(calls) == batch + 1:
            raise LookupError("a mistake")
        prepare(sender, attempts, send_by)

    monkeypatch.setattr(Sender, "prepare", fail_once)
    endpoint = ScriptedEndpoint()
    with Dispatcher(registry, transport=endpoint):
        wait_until(lambda: len(calls) > batch and len(endpoint.requests) == 100 - calls[batch])
    assert caplog.text.count("what came of attempt 1 is not known") == calls[batch]
    ended = [attempt.outcome for each in sent for attempt in registry.deliveries.get(each).attempts]
    assert Counter(ended) == {"ok": 100 - calls[batch]}


def test_answers_are_read_before_all_have_begun(registry: HookRegistry) -> None:
    """However many are claimed together, the first answers are read while the last requests have still to go out."""
    hook_for(registry, max_in_flight=200)
    for _ in range(200):
        emit(registry)
    came = 0
    before_the_first_ended: list[int] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal came
        came += 1
        await asyncio.sleep(0)
        before_the_first_ended.append(came)
        return httpx.Response(200)

    Dispatcher(registry, transport=httpx.MockTransport(answer)).drain(BOUND)
    assert came == 200
    assert before_the_first_ended[0] < 100


@pytest.mark.parametrize("kept", [0, 20, 60, 64, 300])
def test_a_long_answer_is_cut_and_still_masked(by_hand: HookRegistry, kept: int) -> None:
    """What is let go of an answer before it is masked is too far from its beginning to matter."""
    secret = "ab12CD34ef56GH78"
    hook_for(by_hand, destination_headers={"X-Token": secret})
    for before in range(40):
        body = b"." * before + secret.encode() * 200
        sent = emit(by_hand)
        Dispatcher(by_hand, transport=answering(content=body), kept_response_bytes=kept).drain()
        attempt = by_hand.deliveries.get(sent).attempts[0]
        assert len(attempt.response_body) <= kept
        assert attempt.response_body[:64] == (b"." * before + b"*****" * 200)[: min(kept, 64)]
        assert secret[:8].encode() not in attempt.response_body


class OneAfterAnother(httpx.AsyncBaseTransport):
    """Of requests that come together, each ends two steps of the loop after the one before: the time that it takes
    an answer to be read and to end its attempt. `on_end` is told its number.
    """

    def __init__(self, on_end: Callable[[int], object] = lambda _: None) -> None:
        self._on_end = on_end
        self._came = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number = self._came
        self._came += 1
        for _ in range(2 * number):
            await asyncio.sleep(0)
        self._on_end(number)
        return httpx.Response(200)


@pytest.fixture
def settled_together(registry: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many were settled by each turn that settled any."""
    turn = registry.storage.turn
    numbers: list[int] = []

    def noted(settlements: Sequence[object], **keywords: Any) -> object:
        numbers.extend([len(settlements)] if settlements else [])
        return turn(settlements, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(registry.storage, "turn", noted)
    return numbers


def test_what_ends_together_is_settled_together(registry: HookRegistry, settled_together: list[int]) -> None:
    """Attempts that end shortly one after the other are settled in one turn."""
    hook_for(registry, max_in_flight=30)
    for _ in range(30):
        emit(registry)
    assert Dispatcher(registry, transport=OneAfterAnother()).drain(BOUND).delivered == 30
    assert settled_together == [30]


def test_so_many_that_end_together(
    registry: HookRegistry, settled_together: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once enough have ended they are settled, however many more there are to come."""
    monkeypatch.setattr(engine_module, "_GATHERED", 8)
    hook_for(registry, max_in_flight=40)
    for _ in range(40):
        emit(registry)
    Dispatcher(registry, transport=OneAfterAnother()).drain(BOUND)
    assert sum(settled_together) == 40
    assert max(settled_together) <= 12


def test_an_emit_while_some_end_together(registry: HookRegistry, settled_together: list[int]) -> None:
    """An event that is emitted while attempts end is not kept waiting until all have."""
    hook_for(registry, max_in_flight=41)
    for _ in range(40):
        emit(registry)
    transport = OneAfterAnother(lambda number: emit(registry) if number == 10 else None)
    Dispatcher(registry, transport=transport).drain(BOUND)
    assert sum(settled_together) == 41
    assert 10 <= settled_together[0] <= 15
