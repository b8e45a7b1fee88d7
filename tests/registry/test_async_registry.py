"""`AsyncHookRegistry`: the names and signatures of the sync one, and the same results, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import (
    AsyncHookRegistry,
    BoundRegistry,
    Dispatcher,
    Emission,
    EventInput,
    HookRegistry,
    InvalidInput,
    NotFound,
    SQLiteStorage,
    Storage,
    StorageError,
)
from procore_hooks._async_registry import AsyncBoundRegistry, AsyncDeliveries, AsyncHooks, AsyncTriggers
from procore_hooks._deliveries import Deliveries
from procore_hooks._hooks import Hooks
from procore_hooks._triggers import Triggers
from procore_hooks.testing import ManualClock, ScriptedEndpoint

PAIRS = [
    (HookRegistry, AsyncHookRegistry),
    (BoundRegistry, AsyncBoundRegistry),
    (Hooks, AsyncHooks),
    (Triggers, AsyncTriggers),
    (Deliveries, AsyncDeliveries),
]
# What the parts of the library use among themselves; apps have no need of them.
INTERNAL = {Hooks: {"check_async"}, Deliveries: {"pages"}, HookRegistry: {"ping_event"}}
# What is not awaited: it does no work, or is iterated.
NOT_AWAITED = {"bind", "iter"}
OTHER_WORDS = {"Iterator[Delivery]": "AsyncIterator[Delivery]", "BoundRegistry": "AsyncBoundRegistry"}


def verbs(kind: type) -> dict[str, Callable[..., Any]]:
    return {
        name: method
        for name, method in vars(kind).items()
        if inspect.isfunction(method) and not name.startswith("_") and name not in INTERNAL.get(kind, ())
    }


@pytest.mark.parametrize(("sync", "awaited"), PAIRS, ids=lambda kind: kind.__name__)
def test_the_same_names(sync: type, awaited: type) -> None:
    """Every public verb of one is a verb of the other."""
    assert verbs(sync).keys() == verbs(awaited).keys() != set()


@pytest.mark.parametrize(
    ("sync", "awaited", "name"),
    [
        (*pair, name)
        for pair in PAIRS
        for name in sorted({"__init__", *verbs(pair[0])})
        if name != "__init__" or pair == PAIRS[0]
    ],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_the_same_signature(sync: type, awaited: type, name: str) -> None:
    """Parameters, in order, by kind, with defaults and annotations, are the same; what it returns too, awaited."""
    one, other = inspect.signature(getattr(sync, name)), inspect.signature(getattr(awaited, name))
    assert list(one.parameters.values()) == list(other.parameters.values())
    assert other.return_annotation == OTHER_WORDS.get(one.return_annotation, one.return_annotation)
    assert "self" in one.parameters
    if name == "iter":
        assert inspect.isasyncgenfunction(getattr(awaited, name))
    elif name != "__init__":
        assert inspect.iscoroutinefunction(getattr(awaited, name)) is (name not in NOT_AWAITED)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


@pytest.fixture
def make(storage: Storage, clock: ManualClock) -> Callable[[], AsyncHookRegistry]:
    return lambda: AsyncHookRegistry(storage, clock=clock)


def test_every_verb(make: Callable[[], AsyncHookRegistry], clock: ManualClock, endpoint: ScriptedEndpoint) -> None:
    """A round through all of them does what it does without awaiting, with a dispatcher in the same loop."""

    async def work() -> None:
        async with make() as registry:
            hooks, triggers, deliveries = registry.hooks, registry.triggers, registry.deliveries
            hook = await hooks.create("https://hooks.acme.example/", namespace="acme", company_id=8)
            assert await hooks.get(hook.id) == hook
            assert (await hooks.list(namespace="acme")).items == (hook,)
            assert (await hooks.update(hook.id, max_in_flight=2)).max_in_flight == 2
            trigger = await triggers.create(hook.id, "RFIs", "update")
            assert (await triggers.list(hook.id)).items == (trigger,)
            assert (await triggers.replace(hook.id, {"RFIs": ["update", "create"]}))[0] == trigger
            assert len(await triggers.change(hook.id, add=[("Photos", "create")], remove=[("Photos", "update")])) == 3
            await triggers.delete(trigger.id)
            emission = await registry.emit("RFIs", "create", {"n": 1}, company_id=8, idempotency_key="k")
            bound = registry.bind(company_id=8)
            again = await bound.emit("RFIs", "create", {"n": 1}, idempotency_key="k")
            assert again == emission
            await bound.emit_many([EventInput("RFIs", "create")])
            await registry.emit_many([EventInput("RFIs", "create", company_id=8)])
            assert [v.delivers for v in await registry.explain("RFIs", "create", company_id=8)] == [True]
            assert (await hooks.check(hook.id, transport=endpoint)).ok
            ping = await hooks.ping(hook.id)
            rotated = await hooks.rotate_secret(hook.id, grace=timedelta(0))
            assert rotated.signing_secret != hook.signing_secret
            report = await Dispatcher(registry, transport=endpoint).drain_async(timeout=30)
            assert report.delivered == 4
            assert (await deliveries.get(ping.id)).status == "delivered"
            assert len(await deliveries.list(hook.id, status="delivered")) == 4
            assert ping.id in [delivery.id async for delivery in deliveries.iter(page_size=1)]
            assert (await deliveries.redeliver(ping.id)).redelivery_of == ping.id
            assert await deliveries.recover(hook.id, since=clock.now()) == 0
            assert (await deliveries.stats(since=clock.now())).total == 5
            assert await deliveries.prune(before=clock.now() + timedelta(seconds=1)) == 4
            assert (await hooks.disable(hook.id, "drop")).status == "disabled"
            assert (await hooks.enable(hook.id)).status == "active"
            await hooks.delete(hook.id)
            with pytest.raises(NotFound):
                await hooks.get(hook.id)
        with pytest.raises(StorageError, match="closed"):
            await registry.hooks.list()

    run(work)


def test_iter_is_an_async_iterator(make: Callable[[], AsyncHookRegistry]) -> None:
    """It gives all, newest first, page after page, and may be left early; a wrong filter raises when it begins."""

    async def work() -> None:
        async with make() as registry:
            hook = await registry.hooks.create("https://hooks.acme.example/", namespace="acme")
            await registry.triggers.create(hook.id, "*", "*")
            emissions = await registry.emit_many(EventInput("RFIs", "update") for _ in range(7))
            found = [delivery.id async for delivery in registry.deliveries.iter(hook.id, page_size=3)]
            assert found == [emission.delivery_ids[0] for emission in reversed(emissions)]
            assert [d async for d in registry.deliveries.iter(status="failed")] == []
            async with contextlib.aclosing(registry.deliveries.iter(page_size=1)) as deliveries:  # type: ignore[type-var]
                async for delivery in deliveries:
                    assert delivery.id == found[0]
                    break
            with pytest.raises(InvalidInput, match="page_size"):
                await anext(registry.deliveries.iter(page_size=0))

    run(work)


def test_the_loop_goes_on_meanwhile(make: Callable[[], AsyncHookRegistry], monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waits for the storage blocks its thread, not the loop."""

    async def work() -> None:
        async with make() as registry:
            storage, loop = registry.sync_registry.storage, asyncio.get_running_loop()
            real, goes_on = storage.emit, threading.Event()

            def slow(*arguments: Any) -> list[Emission]:
                # The loop itself ends the wait: were it blocked, it could not.
                loop.call_soon_threadsafe(goes_on.set)
                assert goes_on.wait(10)
                return real(*arguments)

            monkeypatch.setattr(storage, "emit", slow)
            await registry.emit("RFIs", "update")
            goes_on.clear()
            await registry.bind(company_id=8).emit("RFIs", "update")

    run(work)


@pytest.mark.parametrize("commit", [True, False])
def test_emit_within_the_callers_transaction(path: Path, commit: bool) -> None:
    """With a connection the emit happens in the caller's thread, to which SQLite ties it, and in its transaction."""

    async def work() -> None:
        async with AsyncHookRegistry(SQLiteStorage(path, durability="normal")) as registry:
            hook = await registry.hooks.create("https://hooks.acme.example/", namespace="acme")
            await registry.triggers.create(hook.id, "*", "*")
            with contextlib.closing(sqlite3.connect(path)) as connection:
                one = EventInput("RFIs", "update")
                await registry.emit("RFIs", "update", connection=connection)
                await registry.emit_many([one], connection=connection)
                await registry.bind(company_id=8).emit("RFIs", "update", connection=connection)
                await registry.bind(company_id=8).emit_many([one], connection=connection)
                assert len(await registry.deliveries.list()) == 0
                connection.commit() if commit else connection.rollback()
            assert len(await registry.deliveries.list()) == (4 if commit else 0)

    run(work)


def test_errors_come_through(make: Callable[[], AsyncHookRegistry]) -> None:
    """Bad input raises the same typed errors, from the constructor on."""
    with pytest.raises(InvalidInput, match="payload_formats"):
        AsyncHookRegistry(payload_formats={"v4.0": print})

    async def work() -> None:
        async with make() as registry:
            for call in (
                lambda: registry.emit("RFIs", "*"),
                lambda: registry.emit_many(7),  # type: ignore[arg-type]
                lambda: registry.hooks.create("http://acme.example/", namespace="acme"),
                lambda: registry.hooks.check(True),
            ):
                with pytest.raises(InvalidInput):
                    await call()
            with pytest.raises(InvalidInput):
                registry.bind(company_id=True)
            with pytest.raises(NotFound):
                await registry.hooks.check(99)

    run(work)
