"""A registry beside the model: each rule calls both, and then all that the registry tells is what the model holds."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from procore_hooks import (
    Delivery,
    Dispatcher,
    Emission,
    EventInput,
    HookRegistry,
    MemoryStorage,
    Page,
    ProcoreHooksError,
    SQLiteStorage,
    Trigger,
)
from procore_hooks.testing import ManualClock

from . import drawing as draw
from .comparing import assert_equal, compare_all, compare_delivery, pages_of, stats_of
from .model import FINAL, Model
from .queues import LEASE, Mode, Mood, Queues, answer_of, policy

__all__ = ["RegistryMachine"]

T = TypeVar("T")


def _pick(things: Sequence[T], number: int) -> T:
    return things[number % len(things)]


def _texts(values: dict[str, Any]) -> dict[str, Any]:
    """Ids are kept as text."""
    return {
        name: str(value) if type(value) is int and name.endswith("_id") else value for name, value in values.items()
    }


def _error_of(check: Callable[[], object]) -> type[ProcoreHooksError] | None:
    try:
        check()
    except ProcoreHooksError as error:
        return type(error)
    return None


class RegistryMachine(RuleBasedStateMachine):
    """A registry on some storage beside the model."""

    def __init__(self, is_on_disk: bool) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp() if is_on_disk else None
        self.clock = ManualClock()
        self.start = self.clock.now()
        self.registry = self._open()
        self.model = Model(self.start)
        self.urls = 0
        self.event_ids: dict[str, int] = {}  # by ulid
        self.sent: dict[str, list[int]] = {}  # event ids by URL, of the latest drain
        self.bodies: dict[str, set[bytes]] = {}  # by ulid

    def teardown(self) -> None:
        self.registry.close()
        if self.folder is not None:
            shutil.rmtree(self.folder)

    @initialize(mode=st.sampled_from(["pause", "independent"]), first=draw.fields, several=draw.several_events)
    def begin(self, mode: Mode, first: dict[str, Any], several: list[EventInput]) -> None:
        self.mode = mode
        self.queues = Queues(self.model, mode)
        self.create_hook({})
        self.create_hook({"company_id": 8, "project_id": "71"})
        self.create_hook(first)
        for number in range(len(self.model.hooks)):
            self.create_trigger(number, "RFIs", "*")
        self.emit_many(several)

    def _open(self) -> HookRegistry:
        # "normal" spares the disk: no power is lost here.
        storage = SQLiteStorage(Path(self.folder, "hooks.db"), durability="normal") if self.folder else MemoryStorage()
        return HookRegistry(storage, clock=self.clock)

    @precondition(lambda self: self.folder is not None)
    @rule()
    def reopen(self) -> None:
        """Another process goes on with the file, some time later: within a millisecond its event ids need not rise."""
        self.registry.close()
        self.pass_time(timedelta(milliseconds=1))
        self.registry = self._open()

    # What is the same

    def _same(
        self,
        real: Callable[[], T],
        then: Callable[[T], object] = lambda made: None,
        *,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """Call the registry. It raises what the model's `check` raises; else the model takes the answer."""
        expected = _error_of(check)
        if expected is None:
            then(real())
            return
        with pytest.raises(expected) as caught:
            real()
        assert type(caught.value) is expected

    def _a_url(self) -> str:
        self.urls += 1
        return f"https://hooks.acme.example/{self.urls}"

    def _hook_id(self, number: int) -> int:
        """Mostly of a hook, at times of a deleted one or of none."""
        return _pick([*self.model.hooks, *self.model.hooks, *self.model.deleted_hooks, 999], number)

    # Hooks

    @rule(values=draw.fields)
    def create_hook(self, values: dict[str, Any]) -> None:
        given = {"namespace": "acme", **values, "destination_url": self._a_url()}
        url = given.pop("destination_url")
        expected = {
            "url": url,
            "company_id": None,
            "project_id": None,
            "include_projects": False,
            "when_disabled": "keep",
            "max_in_flight": 1,
            **_texts(given),
        }
        self._same(
            lambda: self.registry.hooks.create(url, **given),
            lambda hook: self.model.create_hook(hook.id, **expected),
            check=lambda: self.model.check_scope(expected),
        )

    @rule(number=draw.numbers, values=draw.fields)
    def update_hook(self, number: int, values: dict[str, Any]) -> None:
        hook_id = self._hook_id(number)
        given = {name: self._a_url() if value == "another" else value for name, value in values.items()}
        expected = {name.replace("destination_url", "url"): value for name, value in _texts(given).items()}
        self._same(
            lambda: self.registry.hooks.update(hook_id, **given),
            check=lambda: self.model.update_hook(hook_id, **expected),
        )

    @rule(number=draw.numbers)
    def enable(self, number: int) -> None:
        hook_id = self._hook_id(number)
        self._same(lambda: self.registry.hooks.enable(hook_id), check=lambda: self.model.enable_hook(hook_id))

    @rule(number=draw.numbers, queued=st.sampled_from(["keep", "keep", "drop"]))
    def disable(self, number: int, queued: Literal["keep", "drop"]) -> None:
        hook_id = self._hook_id(number)
        self._same(
            lambda: self.registry.hooks.disable(hook_id, queued=queued),
            check=lambda: self.model.disable_hook(hook_id, queued),
        )

    @rule(number=draw.numbers)
    def delete(self, number: int) -> None:
        hook_id = self._hook_id(number)
        self._same(lambda: self.registry.hooks.delete(hook_id), check=lambda: self.model.delete_hook(hook_id))

    @rule(number=draw.numbers)
    def ping(self, number: int) -> None:
        hook_id = self._hook_id(number)

        def take(ping: Delivery) -> None:
            self.event_ids[ping.event.ulid] = ping.event.id
            self.model.add_ping(hook_id, ping.id, ping.event.id)

        self._same(lambda: self.registry.hooks.ping(hook_id), take, check=lambda: self.model.check_ping(hook_id))

    # Triggers

    @rule(number=draw.numbers, resource=draw.wanted_resources, action=draw.wanted_actions)
    def create_trigger(self, number: int, resource: str, action: str) -> None:
        hook_id = self._hook_id(number)
        self._same(
            lambda: self.registry.triggers.create(hook_id, resource, action),
            lambda made: self.model.create_trigger(made.id, hook_id, resource, action),
            check=lambda: self.model.check_new_trigger(hook_id, resource, action),
        )

    @rule(number=draw.numbers)
    def delete_trigger(self, number: int) -> None:
        trigger_id = _pick([*self.model.triggers, self.model.greatest["trigger"] + 1], number)
        self._same(
            lambda: self.registry.triggers.delete(trigger_id), check=lambda: self.model.delete_trigger(trigger_id)
        )

    @rule(number=draw.numbers, pairs=draw.replacements)
    def replace_triggers(self, number: int, pairs: dict[str, list[str]]) -> None:
        hook_id = self._hook_id(number)
        wanted = {(resource, action) for resource, actions in pairs.items() for action in actions}

        def take(page: Page[Trigger]) -> None:
            assert [one.id for one in page] == sorted(one.id for one in page)
            self.model.replace_triggers(hook_id, {one.id: (one.resource, one.action) for one in page}, wanted)

        self._same(lambda: self.registry.triggers.replace(hook_id, pairs), take, check=lambda: self.model.hook(hook_id))

    # Events

    @rule(one=draw.events, is_bound=st.booleans())
    def emit(self, one: EventInput, is_bound: bool) -> None:
        self._explain(one)
        scope = {"company_id": one.company_id, "project_id": one.project_id}
        emit = self.registry.bind(**scope).emit if is_bound else partial(self.registry.emit, **scope)
        self._same(
            lambda: emit(
                one.resource,
                one.action,
                one.payload,
                resource_id=one.resource_id,
                idempotency_key=one.idempotency_key,
            ),
            lambda emission: self._take([one], [emission]),
            check=lambda: self.model.check_emits([one]),
        )

    def emit_many(self, several: list[EventInput]) -> None:
        self._same(
            lambda: self.registry.emit_many(several),
            lambda emissions: self._take(several, emissions),
            check=lambda: self.model.check_emits(several),
        )

    def _take(self, inputs: Sequence[EventInput], emissions: Sequence[Emission]) -> None:
        for one, emission in zip(inputs, emissions, strict=True):
            self.event_ids[emission.event.ulid] = emission.event.id
            self.model.emit(one, emission.event.id, emission.delivery_ids)

    def _explain(self, one: EventInput) -> None:
        """What `explain` says before an emit is what the model then holds the emit to."""
        verdicts = self.registry.explain(one.resource, one.action, company_id=one.company_id, project_id=one.project_id)
        assert [verdict.hook.id for verdict in verdicts] == list(self.model.hooks)
        assert all(verdict.why for verdict in verdicts)
        getting = [hook.id for hook in self.model.matching(one) if not hook.drops]
        assert [verdict.hook.id for verdict in verdicts if verdict.delivers] == getting

    # Sending

    def pass_time(self, span: timedelta) -> None:
        self.model.now = self.clock.advance(span)

    @rule(number=st.none() | draw.numbers, mood=draw.moods, span=draw.spans)
    def drain_in_a_mood(self, number: int | None, mood: Mood, span: timedelta) -> None:
        """Of one endpoint, or of all."""
        for hook_id in self.model.hooks if number is None else [self._hook_id(number)]:
            self.queues.moods[hook_id] = mood
        self.pass_time_and_drain(span)

    @rule(times=st.integers(1, 4))
    def drain_on(self, times: int) -> None:
        """Again and again, whenever something is due."""
        for _ in range(times):
            due_at = self.queues.next_due_at()
            self.pass_time_and_drain(max(timedelta(0), due_at - self.model.now) if due_at else timedelta(0))

    @rule(several=draw.several_events, span=draw.spans)
    def emit_and_drain(self, several: list[EventInput], span: timedelta) -> None:
        self.emit_many(several)
        self.pass_time_and_drain(span)

    def drain(self) -> None:
        self.sent = {}
        # The model is drained first; endpoints answer by what it held before.
        before = {hook.url: (hook.id, hook.max_in_flight) for hook in self.model.hooks.values()}
        self.answering = before
        expected, sent = self.queues.drain()
        transport = httpx.MockTransport(self._answer)
        assert Dispatcher(self.registry, retry=policy(self.mode), transport=transport).drain(timeout=60) == expected
        assert self.sent.keys() == {self.model.hooks[hook_id].url for hook_id in sent}
        for url, event_ids in self.sent.items():
            hook_id, max_in_flight = before[url]
            in_order = list if max_in_flight == 1 else sorted
            assert in_order(event_ids) == in_order(sent[hook_id])

    def pass_time_and_drain(self, span: timedelta) -> None:
        self.pass_time(span)
        self.drain()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        url, webhook_id = str(request.url), request.headers["webhook-id"]
        self.sent.setdefault(url, []).append(self.event_ids[webhook_id])
        self.bodies.setdefault(webhook_id, set()).add(request.content)
        hook_id, max_in_flight = self.answering[url]
        number = json.loads(request.content)["data"].get("number", 0)
        answer = answer_of(self.queues.moods.get(hook_id, "well"), number, max_in_flight)
        if answer.status is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(answer.status, headers=answer.headers)

    @rule(span=draw.spans)
    def claim_and_die(self, span: timedelta) -> None:
        """A dispatcher process claims all it can, and is killed."""
        self.pass_time(span)
        now = self.clock.now()
        self.queues.claim_all()
        self.registry.storage.turn((), now=now, due_by=now, lease=LEASE, capacity=1000)

    # History

    @rule(number=draw.numbers)
    def redeliver(self, number: int) -> None:
        final = [one.id for one in self.model.deliveries.values() if one.status in FINAL]
        delivery_id = _pick([*final, *self.model.deliveries, self.model.greatest["delivery"] + 1], number)
        self._same(
            lambda: self.registry.deliveries.redeliver(delivery_id),
            lambda made: self.model.repeat(self.model.deliveries[delivery_id], made.id),
            check=lambda: self.model.check_redeliver(delivery_id),
        )

    @rule(number=draw.numbers, ago=draw.long_spans, span=st.none() | draw.spans, wait=st.none() | draw.spans)
    def recover(self, number: int, ago: timedelta, span: timedelta | None, wait: timedelta | None) -> None:
        """Once, or once more after a drain, which leaves less to recover."""
        hook_id = self._hook_id(number)
        since = self.model.now - ago
        until = None if span is None else since + span
        self._recover(hook_id, since, until)
        if wait is not None:
            self.pass_time_and_drain(wait)
            self._recover(hook_id, since, until)

    def _recover(self, hook_id: int, since: datetime, until: datetime | None) -> None:
        def take(count: int) -> None:
            lost = self.model.recoverable(hook_id, since, until)
            assert count == len(lost)
            made = [one.id for one in self.registry.deliveries.list(page_size=1000)][:count]
            for old, delivery_id in zip(lost, reversed(made), strict=True):
                self.model.repeat(old, delivery_id)

        self._same(
            lambda: self.registry.deliveries.recover(hook_id, since=since, until=until),
            take,
            check=lambda: self.model.recoverable(hook_id, since, until),
        )

    @rule(ago=draw.long_spans)
    def prune(self, ago: timedelta) -> None:
        before = self.model.now - ago
        self._same(
            lambda: self.registry.deliveries.prune(before=before),
            lambda count: assert_equal(count, self.model.prune(before)),
        )

    @rule(
        number=st.none() | draw.numbers,
        statuses=draw.some_statuses,
        filters=draw.of_deliveries,
        page_size=draw.page_sizes,
    )
    def list_deliveries(self, number: int | None, statuses: set[str], filters: dict[str, Any], page_size: int) -> None:
        hook_id = None if number is None else self._hook_id(number)
        moments = {name: self.model.now - filters[name] for name in ("start", "end") if name in filters}
        wanted = {"status": statuses, **filters, **moments}
        self._same(
            lambda: pages_of(partial(self.registry.deliveries.list, hook_id, **wanted), page_size),
            lambda found: assert_equal(
                [one.id for one in found],
                [one.id for one in self.model.listed(hook_id=hook_id, **_texts(wanted))],
            ),
            check=lambda: self.model.listed(hook_id=hook_id, **_texts(wanted)),
        )
        since = moments.get("start", self.start)
        self._same(
            lambda: self.registry.deliveries.stats(hook_id, since=since),
            lambda stats: assert_equal(stats, stats_of(self.model.listed(hook_id=hook_id, start=since), since)),
            check=lambda: self.model.listed(hook_id=hook_id),
        )

    @rule(filters=draw.of_hooks, page_size=draw.page_sizes)
    def list_hooks(self, filters: dict[str, Any], page_size: int) -> None:
        found = pages_of(partial(self.registry.hooks.list, **filters), page_size)
        wanted = [(name, value) for name, value in _texts(filters).items() if value is not None]
        fitting = [
            hook.id for hook in self.model.hooks.values() if all(getattr(hook, name) == value for name, value in wanted)
        ]
        assert [hook.id for hook in found] == fitting

    @rule(number=draw.numbers)
    def get_delivery(self, number: int) -> None:
        """`get` has the bodies, those that the endpoint got."""
        delivery_id = _pick([*self.model.deliveries, self.model.greatest["delivery"] + 1], number)

        def compare(found: Delivery) -> None:
            compare_delivery(found, self.model, self.model.deliveries[delivery_id])
            for attempt in found.attempts:
                assert attempt.outcome == "unknown" or attempt.request_body in self.bodies[found.event.ulid]

        self._same(
            lambda: self.registry.deliveries.get(delivery_id),
            compare,
            check=lambda: self.model.check_delivery(delivery_id),
        )

    # After each step

    @invariant()
    def everything_agrees(self) -> None:
        compare_all(self.registry, self.model)
