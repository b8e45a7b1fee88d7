"""The public API as apps use it: checked by mypy and pyright, and never run.

An `assert_type` that does not hold, or a `type: ignore` that is not needed, is an error of the checkers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, assert_type

import httpx
from tenacity import retry_any, stop_after_attempt, stop_after_delay, wait_exponential, wait_random

from procore_hooks import (
    PROCORE,
    AsyncHookRegistry,
    Attempt,
    AttemptOutcome,
    BoundRegistry,
    Clock,
    Delivery,
    DeliveryBucket,
    DeliveryStats,
    DeliveryStatus,
    DestinationPolicy,
    Dispatcher,
    DrainReport,
    Emission,
    EndpointReport,
    Event,
    EventInput,
    Hook,
    HookRegistry,
    HookStatus,
    InvalidInput,
    Judgement,
    MemoryStorage,
    NotFound,
    Page,
    ProcoreHooksError,
    ResourceCatalog,
    RetryPolicy,
    Secret,
    SQLiteStorage,
    Storage,
    Timeouts,
    Trigger,
    Verdict,
    WhenDisabled,
    verify,
)
from procore_hooks.testing import ManualClock, ScriptedEndpoint, WebhookReceiver

now: datetime = ManualClock().now()


def own_format(event: Event) -> Mapping[str, object]:
    return {"id": event.ulid}


def storages_fit_the_protocol(path: str) -> Sequence[Storage]:
    clock: Clock = ManualClock(start=now)
    HookRegistry(clock=clock)
    return [MemoryStorage(), SQLiteStorage(path), SQLiteStorage(path, durability="normal")]


def hooks(registry: HookRegistry) -> None:
    hook = registry.hooks.create(
        "https://hooks.acme.example/procore",
        namespace="acme-invoice-sync",
        destination_headers={"Authorization": Secret("Bearer c3a24b8208"), "X-Tenant": "acme"},
        company_id=8,
        project_id="6778",
        signing_secret=Secret("whsec_..."),
        when_disabled="drop",
    )
    assert_type(hook, Hook)
    assert_type(hook.id, int)
    assert_type(hook.company_id, str | None)
    assert_type(hook.status, HookStatus)
    assert_type(hook.when_disabled, WhenDisabled)
    assert_type(hook.destination_headers["Authorization"].reveal(), str)
    assert_type(hook.paused_until, datetime | None)
    page = registry.hooks.list(namespace="acme", status="active", page_size=100)
    assert_type(page, Page[Hook])
    assert_type(page[0], Hook)
    assert_type(page[1:], Sequence[Hook])
    assert_type(page.next_cursor, str | None)
    assert_type([one.namespace for one in page], list[str])
    assert_type(registry.hooks.update(hook.id, max_in_flight=2), Hook)
    assert_type(registry.hooks.disable(hook.id, queued="drop"), Hook)
    assert_type(registry.hooks.enable(hook.id), Hook)
    assert_type(registry.hooks.ping(hook.id), Delivery)
    assert_type(registry.hooks.rotate_secret(hook.id, grace=timedelta(hours=1)), Hook)
    report = registry.hooks.check(hook.id, timeouts=Timeouts(connect=2))
    assert_type(report, EndpointReport)
    assert_type(report.stage, Literal["url", "name", "address", "connection", "tls", "answer"])
    registry.hooks.delete(hook.id)
    registry.hooks.create("https://hooks.acme.example/")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    hook.status = "disabled"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def triggers(registry: HookRegistry) -> None:
    assert_type(registry.triggers.create(1, "RFIs", "*"), Trigger)
    assert_type(registry.triggers.list(1), Page[Trigger])
    assert_type(registry.triggers.replace(1, {"RFIs": ["create", "update"], "Photos": ("create",)}), Page[Trigger])
    assert_type(registry.triggers.change(1, add=[("RFIs", "create")], remove=[("RFIs", "update")]), Page[Trigger])
    registry.triggers.delete(1)


def emitting(registry: HookRegistry, connection: sqlite3.Connection) -> None:
    emission = registry.emit(
        "RFIs",
        "update",
        {"subject": "Door 12"},
        resource_id=54321,
        company_id=8,
        project_id="6778",
        user_id=None,
        metadata={"source": "import"},
        related_resources=[{"id": 7, "name": "Drawings"}],
        occurred_at=now,
        idempotency_key="rfi-54321",
        connection=connection,
    )
    assert_type(emission, Emission)
    assert_type(emission.event, Event)
    assert_type(emission.delivery_ids, tuple[int, ...])
    assert_type(registry.emit_many([EventInput("RFIs", "update", resource_id=1)]), tuple[Emission, ...])
    bound = registry.bind(company_id=8)
    assert_type(bound, BoundRegistry)
    assert_type(bound.emit("RFIs", "update", resource_id=1), Emission)
    bound.emit("RFIs", "update", resourceid=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    verdicts = registry.explain("RFIs", "update", company_id=8)
    assert_type(verdicts, tuple[Verdict, ...])
    assert_type([(one.hook, one.delivers, one.why) for one in verdicts], list[tuple[Hook, bool, str]])


def history(registry: HookRegistry) -> None:
    statuses: list[DeliveryStatus] = ["failed", "discarded"]
    assert_type(registry.deliveries.list(1, status=statuses, only_failures=True), Page[Delivery])
    for delivery in registry.deliveries.iter(status="retrying", resource_id=7, start=now):
        assert_type(delivery, Delivery)
        assert_type(delivery.status, Literal["enqueued", "retrying", "delivered", "failed", "discarded"])
        assert_type(delivery.last_attempt, Attempt | None)
        for attempt in delivery.attempts:
            assert_type(attempt.outcome, AttemptOutcome)
            assert_type(attempt.response_body, bytes)
    assert_type(registry.deliveries.redeliver(1), Delivery)
    assert_type(registry.deliveries.recover(1, since=now), int)
    assert_type(registry.deliveries.prune(before=now), int)
    assert_type(registry.deliveries.stats(since=now), DeliveryStats)
    assert_type(registry.deliveries.stats(since=now, bucket=timedelta(minutes=15)).buckets, tuple[DeliveryBucket, ...])
    registry.deliveries.list(status="successful")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def making_a_registry(path: str) -> None:
    with HookRegistry(
        SQLiteStorage(path),
        resources=PROCORE,
        destinations=DestinationPolicy(schemes=("https", "http"), allow=("10.1.0.0/16:8443",)),
        payload_formats={"own": own_format, "bytes": lambda event: event.payload_json},
        clock=ManualClock(),
    ) as registry:
        assert_type(registry, HookRegistry)
        assert_type(registry.destinations.judge("10.1.0.1", 8443), Judgement)
        assert_type(registry.resources, ResourceCatalog | None)


def dispatching(registry: HookRegistry, asynchronous: AsyncHookRegistry) -> None:
    policy = RetryPolicy(
        wait=wait_exponential(max=3600) + wait_random(0, 1),
        stop=stop_after_delay(3600) | stop_after_attempt(10),
        on_failure="independent",
        max_retry_after=timedelta(minutes=5),
    )
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    with Dispatcher(registry, retry=policy, timeouts=Timeouts(total=5), transport=transport) as dispatcher:
        assert_type(dispatcher, Dispatcher)
        assert_type(dispatcher.drain(timeout=10), DrainReport)
    Dispatcher(asynchronous, retry=RetryPolicy.standard_webhooks(), observers=[print])
    RetryPolicy(wait=5, stop=retry_any)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def asynchronously(registry: AsyncHookRegistry) -> None:
    async with registry:
        hook = await registry.hooks.create("https://hooks.acme.example/", namespace="acme")
        assert_type(hook, Hook)
        assert_type(await registry.hooks.list(), Page[Hook])
        assert_type(await registry.triggers.create(hook.id, "RFIs", "update"), Trigger)
        assert_type(await registry.emit("RFIs", "update"), Emission)
        assert_type(await registry.emit_many([]), tuple[Emission, ...])
        assert_type(await registry.bind(user_id=1).emit("RFIs", "update"), Emission)
        async for delivery in registry.deliveries.iter(hook.id):
            assert_type(delivery, Delivery)
    async with Dispatcher(registry) as dispatcher:
        assert_type(await dispatcher.drain_async(timeout=1.5), DrainReport)


def receiving(body: bytes, headers: Mapping[str, str]) -> None:
    assert_type(verify(body, headers, ["whsec_a", Secret("whsec_b")], tolerance=timedelta(minutes=1)), dict[str, Any])
    with WebhookReceiver() as receiver:
        assert_type(receiver.url, str)
        receiver.reply(503, times=2).reply(200)
    ScriptedEndpoint().reply(error=httpx.ConnectError("refused"))


def errors(registry: HookRegistry) -> None:
    try:
        registry.hooks.get(1)
    except NotFound as error:
        assert_type(error.kind, str)
        as_builtin: LookupError = error
        print(as_builtin)
    except InvalidInput as error:
        assert_type(error.field, str)
        wrong_value: ValueError = error
        print(wrong_value)
    except ProcoreHooksError:
        raise
