"""`HookRegistry`: what an app declares hooks on and emits events to. It checks in the core, then stores."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from types import TracebackType
from typing import Any, Final, Self

import attrs

from ._clock import Clock, SystemClock
from ._core.checks import (
    check_action,
    check_id,
    check_idempotency_key,
    check_metadata,
    check_moment,
    check_related_resources,
    check_resource,
    shown,
)
from ._core.destinations import DestinationPolicy
from ._core.ids import IdSource
from ._core.json_strict import DEFAULT_MAX_BYTES, MAX_BYTES, serialise
from ._core.matching import explain
from ._core.models import Emission, Event, EventInput, Hook, Verdict
from ._core.payloads import BUILT_IN, PayloadFormat
from ._deliveries import Deliveries
from ._event_ids import until_ids_are_free
from ._hooks import Hooks
from ._triggers import Triggers
from .exceptions import InvalidInput, NotFound
from .resources import ResourceCatalog
from .storage._base import EmitRequest, EventIdTaken, HookQuery, Storage

__all__ = ["BoundRegistry", "HookRegistry"]

_EXPLAINED_AT_ONCE: Final = 500
_FIELDS: Final = attrgetter(*(field.name for field in attrs.fields(EventInput)))


class HookRegistry:
    """Hooks, triggers, events and deliveries of one storage.

    Args:
        storage: `MemoryStorage()` if left out, which forgets everything with the process.
        resources: with a `ResourceCatalog`, an unknown resource or unsupported action is an error.
        destinations: where deliveries may go; public https addresses only, unless told otherwise.
        payload_formats: the app's own formats by name: functions that take an `Event` and return a JSON value, or
            bytes. A hook chooses one by its `payload_version`.
        clock: tells the time; a `testing.ManualClock` in tests.
        max_payload_bytes: the longest payload in JSON; at most 20 MiB.

    Raises:
        InvalidInput: a value is wrong.
    """

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
        self.storage = _in_memory() if storage is None else storage
        self.resources = resources
        self.destinations = destinations
        self.payload_formats = _checked_formats({} if payload_formats is None else payload_formats)
        self.clock: Clock = SystemClock() if clock is None else clock
        if type(max_payload_bytes) is not int or not 0 < max_payload_bytes <= MAX_BYTES:
            raise InvalidInput("max_payload_bytes", f"{shown(max_payload_bytes)} is not 1 to {MAX_BYTES}: use a number")
        self._max_payload_bytes = max_payload_bytes
        self._ids = IdSource(os.urandom)
        self._ids_of = os.getpid()
        self.hooks = Hooks(self)
        self.triggers = Triggers(self)
        self.deliveries = Deliveries(self)

    def emit(
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
        """Store an event and a delivery of it to every hook that wants it, all or nothing.

        When it returns, the deliveries are as durable as the storage is, and a dispatcher will send them.

        Args:
            resource, action: what changed and how, such as ``"RFIs"`` and ``"update"``.
            payload: a JSON value; serialised here and now, so that changing it later changes nothing.
            resource_id, company_id, project_id, user_id: numbers or text, kept as text.
            metadata: small facts about the event; v2.0 and v3.0 bodies have Procore's names in it.
            related_resources: mappings with ``id`` and ``name``.
            occurred_at: an aware datetime; now, if left out.
            idempotency_key: emitting again with the same key and content stores nothing and returns the first
                `Emission`, until it is pruned.
            connection: a connection of the app's on the same database: the deliveries then exist if, and only if,
                the app commits.

        Returns:
            The event and the ids of its deliveries; none if no hook wants it, and then nothing is stored.

        Raises:
            InvalidInput: a value is wrong; nothing was stored.
            IdempotencyConflict: the key was used for other content.
            StorageError: it could not be stored; nothing was.
        """
        now = self.clock.now()
        # As they are: another object made of them would cost an emit 3 % more.
        request = self._request(
            now,
            resource,
            action,
            payload,
            resource_id,
            company_id,
            project_id,
            user_id,
            metadata,
            related_resources,
            occurred_at,
            idempotency_key,
        )
        return self._store([request], now, connection)[0]

    def emit_many(self, inputs: Iterable[EventInput], *, connection: object | None = None) -> tuple[Emission, ...]:
        """Emit several events in one transaction: all of them, or none and an exception.

        Raises:
            InvalidInput, IdempotencyConflict, StorageError: as for `emit`.
        """
        if not isinstance(inputs, Iterable):
            raise InvalidInput("inputs", f"{shown(inputs)} is not a list of EventInput: put it into one")
        listed = tuple(inputs)
        for one in listed:
            if not isinstance(one, EventInput):
                raise InvalidInput("inputs", f"{shown(one)} is not an EventInput: use EventInput(resource, action)")
        now = self.clock.now()
        requests = [self._request(now, *_FIELDS(one)) for one in listed]
        return tuple(self._store(requests, now, connection)) if requests else ()

    def _request(
        self,
        now: datetime,
        resource: str,
        action: str,
        payload: Any = None,
        resource_id: int | str | None = None,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
        user_id: int | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        related_resources: Sequence[Mapping[str, Any]] | None = None,
        occurred_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> EmitRequest:
        """The fields of an `EventInput`, checked, as what the storage takes."""
        resource, action = check_resource(resource), check_action(action)
        if self.resources is not None:
            self.resources.check(resource, action)
        payload_json = serialise(payload, max_bytes=self._max_payload_bytes)
        event_id, ulid = self._next_ids(now)
        event = Event(
            id=event_id,
            ulid=ulid,
            resource=resource,
            action=action,
            occurred_at=now if occurred_at is None else check_moment("occurred_at", occurred_at),
            payload_json=payload_json,
            resource_id=check_id("resource_id", resource_id),
            company_id=check_id("company_id", company_id),
            project_id=check_id("project_id", project_id),
            user_id=check_id("user_id", user_id),
            metadata=check_metadata("metadata", metadata),
            related_resources=check_related_resources(related_resources),
        )
        key = check_idempotency_key(idempotency_key)
        fingerprint = b"" if key is None else _fingerprint(event, occurred_at is not None)
        return EmitRequest(event=event, idempotency_key=key, fingerprint=fingerprint)

    def _store(self, requests: Sequence[EmitRequest], now: datetime, connection: object | None) -> list[Emission]:
        try:
            return self.storage.emit(requests, now, connection)
        except EventIdTaken:
            return until_ids_are_free(now, lambda: self.storage.emit(self._renumbered(requests, now), now, connection))

    def _next_ids(self, now: datetime) -> tuple[int, str]:
        if self._ids_of != os.getpid():
            # A forked child would go on with its parent's numbers.
            self._ids, self._ids_of = IdSource(os.urandom), os.getpid()
        return self._ids.next(now)

    def _renumbered(self, requests: Sequence[EmitRequest], now: datetime) -> list[EmitRequest]:
        renumbered = []
        for request in requests:
            event_id, ulid = self._next_ids(now)
            renumbered.append(attrs.evolve(request, event=attrs.evolve(request.event, id=event_id, ulid=ulid)))
        return renumbered

    def ping_event(self, hook: Hook) -> Event:
        """The test event that `hooks.ping` delivers to `hook`."""
        now = self.clock.now()
        event_id, ulid = self._next_ids(now)
        return Event(
            id=event_id,
            ulid=ulid,
            resource="Webhooks",
            action="ping",
            occurred_at=now,
            company_id=hook.company_id,
            project_id=hook.project_id,
            payload_json=b'{"message":"This is a test of the webhook. Nothing has changed."}',
        )

    def bind(
        self,
        *,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
        user_id: int | str | None = None,
    ) -> BoundRegistry:
        """A view with the same `emit` and `emit_many` that fills these in where a call leaves them out."""
        return BoundRegistry(
            self,
            company_id=check_id("company_id", company_id),
            project_id=check_id("project_id", project_id),
            user_id=check_id("user_id", user_id),
        )

    def explain(
        self,
        resource: str,
        action: str,
        *,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
    ) -> tuple[Verdict, ...]:
        """Which hooks would get such an event, and for each hook why or why not, in words. Nothing is stored.

        For looking into "why did nothing arrive?": it reads every hook.
        """
        now = self.clock.now()
        sample = self._request(now, resource, action, company_id=company_id, project_id=project_id).event
        verdicts: list[Verdict] = []
        after = 0
        while True:
            hooks = self.storage.list_hooks(HookQuery(after=after, limit=_EXPLAINED_AT_ONCE))
            for hook in hooks:
                # One that is deleted meanwhile gets no event either.
                with contextlib.suppress(NotFound):
                    triggers = self.storage.list_triggers(hook.id, 0, 1_000_000)
                    verdicts.append(explain(hook, triggers, sample))
            if len(hooks) < _EXPLAINED_AT_ONCE:
                return tuple(verdicts)
            after = hooks[-1].id

    def close(self) -> None:
        """Close the storage. Stop dispatchers first."""
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class BoundRegistry:
    """A registry whose emits have a company, a project or a user filled in; made by `HookRegistry.bind`."""

    def __init__(
        self, registry: HookRegistry, *, company_id: str | None, project_id: str | None, user_id: str | None
    ) -> None:
        self._registry = registry
        self._filled: dict[str, Any] = {"company_id": company_id, "project_id": project_id, "user_id": user_id}

    def emit(
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
        return self.emit_many((one,), connection=connection)[0]

    def emit_many(self, inputs: Iterable[EventInput], *, connection: object | None = None) -> tuple[Emission, ...]:
        """See `HookRegistry.emit_many`."""
        filled = (attrs.evolve(one, **self._missing_in(one)) if isinstance(one, EventInput) else one for one in inputs)
        return self._registry.emit_many(filled, connection=connection)

    def _missing_in(self, one: EventInput) -> dict[str, Any]:
        return {name: value for name, value in self._filled.items() if getattr(one, name) is None}


def _in_memory() -> Storage:
    from .storage.memory import MemoryStorage

    return MemoryStorage()


def _checked_formats(formats: Mapping[str, PayloadFormat]) -> dict[str, PayloadFormat]:
    if not isinstance(formats, Mapping):
        raise InvalidInput("payload_formats", f"{shown(formats)} is not a mapping: use a dict of names to functions")
    for name, function in formats.items():
        if not isinstance(name, str) or not name or name in BUILT_IN:
            raise InvalidInput("payload_formats", f"{shown(name)} is no name for a format of your own: choose another")
        if not callable(function):
            raise InvalidInput(
                "payload_formats", f"{shown(function)} under {name!r} is not a function: use one that takes an Event"
            )
    return dict(formats)


def _fingerprint(event: Event, with_time: bool) -> bytes:
    """A digest of what an emit said. Ids are not part of it, nor the time unless it was given."""
    content = [
        event.resource,
        event.action,
        event.resource_id,
        event.company_id,
        event.project_id,
        event.user_id,
        event.occurred_at.isoformat() if with_time else None,
        event.metadata,
        event.related_resources,
    ]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    digest.update(event.payload_json)
    return digest.digest()
