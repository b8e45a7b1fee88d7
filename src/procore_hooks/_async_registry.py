"""`AsyncHookRegistry`: the verbs of `HookRegistry`, awaited.

The storages are synchronous. Each call runs in a thread, which costs some 50 microseconds, and the event loop goes on
meanwhile. What the verbs do, take and raise is told where they are defined, in `HookRegistry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from ._clock import Clock
from ._core.destinations import DestinationPolicy
from ._core.json_strict import DEFAULT_MAX_BYTES
from ._core.models import (
    Delivery,
    DeliveryStats,
    DeliveryStatus,
    Emission,
    EndpointReport,
    EventInput,
    Hook,
    HookStatus,
    Page,
    Timeouts,
    Trigger,
    Verdict,
    WhenDisabled,
)
from ._core.payloads import PayloadFormat
from ._core.secret import Secret
from ._deliveries import Deliveries
from ._hooks import Hooks
from ._registry import BoundRegistry, HookRegistry
from ._triggers import Triggers
from .resources import ResourceCatalog
from .storage._base import Storage

if TYPE_CHECKING:
    import httpx

__all__ = ["AsyncBoundRegistry", "AsyncHookRegistry"]


class AsyncHooks:
    """`Hooks`, awaited."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    async def create(
        self,
        destination_url: str,
        *,
        namespace: str,
        destination_headers: Mapping[str, str | Secret] | None = None,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
        include_projects: bool = False,
        when_disabled: WhenDisabled = "keep",
        payload_version: str = "v4.0",
        max_in_flight: int = 1,
        signing_secret: str | Secret | None = None,
    ) -> Hook:
        """See `Hooks.create`."""
        return await asyncio.to_thread(
            self._hooks.create,
            destination_url,
            namespace=namespace,
            destination_headers=destination_headers,
            company_id=company_id,
            project_id=project_id,
            include_projects=include_projects,
            when_disabled=when_disabled,
            payload_version=payload_version,
            max_in_flight=max_in_flight,
            signing_secret=signing_secret,
        )

    async def get(self, hook_id: int) -> Hook:
        """See `Hooks.get`."""
        return await asyncio.to_thread(self._hooks.get, hook_id)

    async def list(
        self,
        *,
        namespace: str | None = None,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
        status: HookStatus | None = None,
        page_size: int = 25,
        cursor: str | None = None,
    ) -> Page[Hook]:
        """See `Hooks.list`."""
        return await asyncio.to_thread(
            self._hooks.list,
            namespace=namespace,
            company_id=company_id,
            project_id=project_id,
            status=status,
            page_size=page_size,
            cursor=cursor,
        )

    async def update(self, hook_id: int, *, if_unchanged: Hook | None = None, **changes: Any) -> Hook:
        """See `Hooks.update`."""
        return await asyncio.to_thread(self._hooks.update, hook_id, if_unchanged=if_unchanged, **changes)

    async def delete(self, hook_id: int) -> None:
        """See `Hooks.delete`."""
        await asyncio.to_thread(self._hooks.delete, hook_id)

    async def enable(self, hook_id: int) -> Hook:
        """See `Hooks.enable`."""
        return await asyncio.to_thread(self._hooks.enable, hook_id)

    async def disable(self, hook_id: int, queued: Literal["keep", "drop"] = "keep") -> Hook:
        """See `Hooks.disable`."""
        return await asyncio.to_thread(self._hooks.disable, hook_id, queued)

    async def check(
        self,
        url_or_id: str | int,
        *,
        timeouts: Timeouts | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> EndpointReport:
        """See `Hooks.check`."""
        return await self._hooks.check_async(url_or_id, timeouts=timeouts, transport=transport)

    async def ping(self, hook_id: int) -> Delivery:
        """See `Hooks.ping`."""
        return await asyncio.to_thread(self._hooks.ping, hook_id)

    async def rotate_secret(self, hook_id: int, *, grace: timedelta = timedelta(hours=24)) -> Hook:
        """See `Hooks.rotate_secret`."""
        return await asyncio.to_thread(self._hooks.rotate_secret, hook_id, grace=grace)


class AsyncTriggers:
    """`Triggers`, awaited."""

    def __init__(self, triggers: Triggers) -> None:
        self._triggers = triggers

    async def create(self, hook_id: int, resource: str, action: str) -> Trigger:
        """See `Triggers.create`."""
        return await asyncio.to_thread(self._triggers.create, hook_id, resource, action)

    async def list(self, hook_id: int, *, page_size: int = 25, cursor: str | None = None) -> Page[Trigger]:
        """See `Triggers.list`."""
        return await asyncio.to_thread(self._triggers.list, hook_id, page_size=page_size, cursor=cursor)

    async def delete(self, trigger_id: int) -> None:
        """See `Triggers.delete`."""
        await asyncio.to_thread(self._triggers.delete, trigger_id)

    async def change(
        self,
        hook_id: int,
        *,
        add: Iterable[tuple[str, str]] = (),
        remove: Iterable[tuple[str, str]] = (),
    ) -> Page[Trigger]:
        """See `Triggers.change`."""
        return await asyncio.to_thread(self._triggers.change, hook_id, add=add, remove=remove)

    async def replace(self, hook_id: int, wanted: Mapping[str, Iterable[str]]) -> Page[Trigger]:
        """See `Triggers.replace`."""
        return await asyncio.to_thread(self._triggers.replace, hook_id, wanted)


class AsyncDeliveries:
    """`Deliveries`, awaited."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    async def list(
        self,
        hook_id: int | None = None,
        *,
        status: DeliveryStatus | Iterable[DeliveryStatus] | None = None,
        only_failures: bool = False,
        resource: str | None = None,
        action: str | None = None,
        resource_id: int | str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        page_size: int = 25,
        cursor: str | None = None,
    ) -> Page[Delivery]:
        """See `Deliveries.list`."""
        return await asyncio.to_thread(
            self._deliveries.list,
            hook_id,
            status=status,
            only_failures=only_failures,
            resource=resource,
            action=action,
            resource_id=resource_id,
            start=start,
            end=end,
            page_size=page_size,
            cursor=cursor,
        )

    async def iter(self, hook_id: int | None = None, **filters: Any) -> AsyncIterator[Delivery]:
        """See `Deliveries.iter`."""
        for_pages = self._deliveries.pages(hook_id, **filters)
        while (page := await asyncio.to_thread(next, for_pages, None)) is not None:
            for delivery in page:
                yield delivery

    async def get(self, delivery_id: int) -> Delivery:
        """See `Deliveries.get`."""
        return await asyncio.to_thread(self._deliveries.get, delivery_id)

    async def redeliver(self, delivery_id: int) -> Delivery:
        """See `Deliveries.redeliver`."""
        return await asyncio.to_thread(self._deliveries.redeliver, delivery_id)

    async def recover(self, hook_id: int, *, since: datetime, until: datetime | None = None) -> int:
        """See `Deliveries.recover`."""
        return await asyncio.to_thread(self._deliveries.recover, hook_id, since=since, until=until)

    async def prune(self, *, before: datetime) -> int:
        """See `Deliveries.prune`."""
        return await asyncio.to_thread(self._deliveries.prune, before=before)

    async def stats(
        self, hook_id: int | None = None, *, since: datetime, bucket: timedelta | None = None
    ) -> DeliveryStats:
        """See `Deliveries.stats`."""
        return await asyncio.to_thread(self._deliveries.stats, hook_id, since=since, bucket=bucket)


class AsyncHookRegistry:
    """`HookRegistry`, awaited. `sync_registry` is the one behind it."""

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        resources: ResourceCatalog | None = None,
        destinations: DestinationPolicy = DestinationPolicy(),
        payload_formats: Mapping[str, PayloadFormat] | None = None,
        clock: Clock | None = None,
        max_payload_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self.sync_registry = HookRegistry(
            storage,
            resources=resources,
            destinations=destinations,
            payload_formats=payload_formats,
            clock=clock,
            max_payload_bytes=max_payload_bytes,
        )
        self.hooks = AsyncHooks(self.sync_registry.hooks)
        self.triggers = AsyncTriggers(self.sync_registry.triggers)
        self.deliveries = AsyncDeliveries(self.sync_registry.deliveries)

    async def emit(
        self,
        resource: str,
        action: str,
        payload: Any = None,
        *,
        resource_id: int | str | None = None,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
        user_id: int | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        related_resources: Sequence[Mapping[str, Any]] | None = None,
        occurred_at: datetime | None = None,
        idempotency_key: str | None = None,
        connection: object | None = None,
    ) -> Emission:
        """See `HookRegistry.emit`."""
        one = EventInput(
            resource,
            action,
            payload,
            resource_id=resource_id,
            company_id=company_id,
            project_id=project_id,
            user_id=user_id,
            metadata=metadata,
            related_resources=related_resources,
            occurred_at=occurred_at,
            idempotency_key=idempotency_key,
        )
        return (await self.emit_many((one,), connection=connection))[0]

    async def emit_many(
        self, inputs: Iterable[EventInput], *, connection: object | None = None
    ) -> tuple[Emission, ...]:
        """See `HookRegistry.emit_many`."""
        if connection is not None:
            # The caller's connection belongs to the caller's thread.
            return self.sync_registry.emit_many(inputs, connection=connection)
        return await asyncio.to_thread(self.sync_registry.emit_many, inputs)

    def bind(
        self,
        *,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
        user_id: int | str | None = None,
    ) -> AsyncBoundRegistry:
        """See `HookRegistry.bind`."""
        bound = self.sync_registry.bind(company_id=company_id, project_id=project_id, user_id=user_id)
        return AsyncBoundRegistry(bound)

    async def explain(
        self,
        resource: str,
        action: str,
        *,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
    ) -> tuple[Verdict, ...]:
        """See `HookRegistry.explain`."""
        return await asyncio.to_thread(
            self.sync_registry.explain, resource, action, company_id=company_id, project_id=project_id
        )

    async def close(self) -> None:
        """See `HookRegistry.close`."""
        await asyncio.to_thread(self.sync_registry.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class AsyncBoundRegistry:
    """`BoundRegistry`, awaited."""

    def __init__(self, bound: BoundRegistry) -> None:
        self._bound = bound

    async def emit(
        self,
        resource: str,
        action: str,
        payload: Any = None,
        *,
        resource_id: int | str | None = None,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
        user_id: int | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        related_resources: Sequence[Mapping[str, Any]] | None = None,
        occurred_at: datetime | None = None,
        idempotency_key: str | None = None,
        connection: object | None = None,
    ) -> Emission:
        """See `HookRegistry.emit`."""
        one = EventInput(
            resource,
            action,
            payload,
            resource_id=resource_id,
            company_id=company_id,
            project_id=project_id,
            user_id=user_id,
            metadata=metadata,
            related_resources=related_resources,
            occurred_at=occurred_at,
            idempotency_key=idempotency_key,
        )
        return (await self.emit_many((one,), connection=connection))[0]

    async def emit_many(
        self, inputs: Iterable[EventInput], *, connection: object | None = None
    ) -> tuple[Emission, ...]:
        """See `HookRegistry.emit_many`."""
        if connection is not None:
            return self._bound.emit_many(inputs, connection=connection)
        return await asyncio.to_thread(self._bound.emit_many, inputs)
