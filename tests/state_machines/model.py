"""What a registry is expected to do, in dicts and lists: hooks, triggers, events, history. `queues` adds the sending.

Written from the documentation and not from the storages, as plainly as it can be: everything is a walk over all that
there is. Where the registry chooses a number, the model takes it over and holds that it is above all before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import attrs

from procore_hooks import (
    Conflict,
    DeliveryStatus,
    DuplicateTrigger,
    EventInput,
    IdempotencyConflict,
    InvalidInput,
    NotFound,
)

__all__ = ["FAILURES", "FINAL", "Model", "ModelDelivery", "ModelHook"]

FINAL: Final = ("delivered", "failed", "discarded")
FAILURES: Final = ("retrying", "failed", "discarded")


@attrs.define(kw_only=True)
class ModelHook:
    """A hook and the state of its queue.

    Attributes:
        failures: under "pause", the present run of them.
    """

    id: int
    url: str
    namespace: str
    company_id: str | None
    project_id: str | None
    include_projects: bool
    when_disabled: str
    max_in_flight: int
    created_at: datetime
    updated_at: datetime
    status: str = "active"
    failures: int = 0
    failing_since: datetime | None = None
    paused_until: datetime | None = None

    @property
    def drops(self) -> bool:
        return self.status == "disabled" and self.when_disabled == "drop"

    def hears(self, company_id: str | None, project_id: str | None) -> bool:
        """Whether an event of this company and project is in its scope."""
        if self.project_id is not None:
            same_company = self.company_id is None or company_id is None or self.company_id == company_id
            return project_id == self.project_id and same_company
        if self.company_id is not None:
            return company_id == self.company_id and (project_id is None or self.include_projects)
        return True


@attrs.define(kw_only=True)
class ModelDelivery:
    """A delivery.

    Attributes:
        kind: how it waits: never tried, tried before, or ahead of all since it is a ping.
        due_at: when a tried one is due; None is at once.
        lease_until: while an attempt is under way.
        doom: why it will be discarded when it comes back from under way.
        attempts: (outcome, status of the response).
    """

    id: int
    hook_id: int
    event_id: int
    number: int
    resource: str
    action: str
    resource_id: str | None
    created_at: datetime
    status: DeliveryStatus = "enqueued"
    kind: Literal["fresh", "returned", "ping"] = "fresh"
    due_at: datetime | None = None
    lease_until: datetime | None = None
    doom: str | None = None
    completed_at: datetime | None = None
    redelivery_of: int | None = None
    reason: str | None = None
    attempts: list[tuple[str, int | None]] = attrs.field(factory=list)

    @property
    def waits(self) -> bool:
        return self.status not in FINAL and self.lease_until is None

    def finish(self, status: DeliveryStatus, reason: str | None, now: datetime) -> None:
        self.status, self.reason, self.completed_at = status, reason, now


@attrs.frozen
class ModelKey:
    """An idempotency key that was used."""

    content: tuple[Any, ...]
    event_id: int
    delivery_ids: tuple[int, ...]
    stored_at: datetime


class Model:
    """All that a registry holds."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.hooks: dict[int, ModelHook] = {}
        self.deleted_hooks: set[int] = set()
        self.triggers: dict[int, tuple[int, str, str]] = {}
        self.deliveries: dict[int, ModelDelivery] = {}
        self.keys: dict[str, ModelKey] = {}
        self.greatest = {"hook": 0, "trigger": 0, "delivery": 0, "event": 0}

    def _rises(self, kind: str, number: int) -> int:
        assert number > self.greatest[kind], f"{kind} {number} is not above {self.greatest[kind]}"
        self.greatest[kind] = number
        return number

    # Hooks

    def hook(self, hook_id: int) -> ModelHook:
        if hook_id not in self.hooks:
            raise NotFound("hook", hook_id)
        return self.hooks[hook_id]

    def check_scope(self, fields: dict[str, Any]) -> None:
        if fields["include_projects"] and (fields["company_id"] is None or fields["project_id"] is not None):
            raise InvalidInput("include_projects", "as a model")

    def create_hook(self, hook_id: int, **fields: Any) -> None:
        self._rises("hook", hook_id)
        self.hooks[hook_id] = ModelHook(id=hook_id, created_at=self.now, updated_at=self.now, **fields)

    def update_hook(self, hook_id: int, **changes: Any) -> None:
        hook = self.hook(hook_id)
        self.check_scope({**attrs.asdict(hook), **changes})
        for name, value in changes.items():
            setattr(hook, name, value)
        hook.updated_at = self.now

    def enable_hook(self, hook_id: int) -> None:
        hook = self.hook(hook_id)
        hook.status, hook.updated_at = "active", self.now
        hook.failures, hook.failing_since, hook.paused_until = 0, None, None
        for one in self.waiting(hook_id):
            one.due_at = None

    def disable_hook(self, hook_id: int, queued: str) -> None:
        hook = self.hook(hook_id)
        hook.status, hook.updated_at = "disabled", self.now
        if queued == "drop":
            self.drop(hook_id, "the hook was disabled and its queue dropped")

    def delete_hook(self, hook_id: int) -> None:
        self.hook(hook_id)
        self.drop(hook_id, "the hook was deleted")
        del self.hooks[hook_id]
        self.deleted_hooks.add(hook_id)
        self.triggers = {number: trigger for number, trigger in self.triggers.items() if trigger[0] != hook_id}

    def waiting(self, hook_id: int) -> list[ModelDelivery]:
        return [one for one in self.deliveries.values() if one.hook_id == hook_id and one.waits]

    def drop(self, hook_id: int, reason: str) -> None:
        """Discard what waits, and what is under way once it comes back."""
        for one in self.deliveries.values():
            if one.hook_id == hook_id and one.waits:
                one.finish("discarded", reason, self.now)
            elif one.hook_id == hook_id and one.lease_until is not None:
                one.doom = reason

    # Triggers

    def triggers_of(self, hook_id: int) -> dict[int, tuple[str, str]]:
        self.hook(hook_id)
        return {number: (trigger[1], trigger[2]) for number, trigger in self.triggers.items() if trigger[0] == hook_id}

    def check_new_trigger(self, hook_id: int, resource: str, action: str) -> None:
        if (resource, action) in self.triggers_of(hook_id).values():
            raise DuplicateTrigger("as a model")

    def create_trigger(self, trigger_id: int, hook_id: int, resource: str, action: str) -> None:
        self.triggers[self._rises("trigger", trigger_id)] = (hook_id, resource, action)

    def delete_trigger(self, trigger_id: int) -> None:
        if trigger_id not in self.triggers:
            raise NotFound("trigger", trigger_id)
        del self.triggers[trigger_id]

    def replace_triggers(self, hook_id: int, found: dict[int, tuple[str, str]], wanted: set[tuple[str, str]]) -> None:
        """`found` is what the registry says that the triggers are now."""
        before = self.triggers_of(hook_id)
        assert set(found.values()) == wanted
        assert len(found) == len(wanted)
        kept = {number: pair for number, pair in before.items() if pair in wanted}
        assert kept.items() <= found.items()
        for number in before.keys() - kept.keys():
            del self.triggers[number]
        for number in sorted(found.keys() - kept.keys()):
            self.create_trigger(number, hook_id, *found[number])

    # Events

    def matching(self, one: EventInput) -> list[ModelHook]:
        """The hooks that get such an event, by id."""
        wanting = {
            hook_id
            for hook_id, resource, action in self.triggers.values()
            if resource in (one.resource, "*") and action in (one.action, "*")
        }
        hooks = (self.hooks[hook_id] for hook_id in sorted(wanting))
        return [hook for hook in hooks if hook.hears(_text(one.company_id), _text(one.project_id))]

    def check_emits(self, inputs: Iterable[EventInput]) -> None:
        """Raise what emitting these together raises."""
        seen = {key: used.content for key, used in self.keys.items()}
        for one in inputs:
            if one.idempotency_key is not None and seen.setdefault(one.idempotency_key, content(one)) != content(one):
                raise IdempotencyConflict("as a model")

    def emit(self, one: EventInput, event_id: int, delivery_ids: Sequence[int]) -> None:
        """`event_id` and `delivery_ids` are what the registry answered."""
        used = self.keys.get(one.idempotency_key or "")
        if used is not None:
            assert (event_id, tuple(delivery_ids)) == (used.event_id, used.delivery_ids)
            return
        hooks = self.matching(one)
        assert len(hooks) == len(delivery_ids)
        self._rises("event", event_id)
        for hook, delivery_id in zip(hooks, delivery_ids, strict=True):
            made = self._add_delivery(
                id=delivery_id,
                hook_id=hook.id,
                event_id=event_id,
                number=one.payload["number"],
                resource=one.resource,
                action=one.action,
                resource_id=_text(one.resource_id),
            )
            if hook.drops:
                made.finish("discarded", "the hook was disabled and drops events", self.now)
        if one.idempotency_key is not None:
            self.keys[one.idempotency_key] = ModelKey(content(one), event_id, tuple(delivery_ids), self.now)

    def _add_delivery(self, **fields: Any) -> ModelDelivery:
        made = ModelDelivery(created_at=self.now, **fields)
        self.deliveries[self._rises("delivery", made.id)] = made
        return made

    def check_ping(self, hook_id: int) -> ModelHook:
        hook = self.hook(hook_id)
        if hook.status == "disabled":
            raise Conflict("as a model")
        return hook

    def add_ping(self, hook_id: int, delivery_id: int, event_id: int) -> None:
        """A delivery ahead of all that waits, which ends the hook's pause."""
        self.check_ping(hook_id).paused_until = None
        self._rises("event", event_id)
        self._add_delivery(
            id=delivery_id,
            hook_id=hook_id,
            event_id=event_id,
            number=0,
            resource="Webhooks",
            action="ping",
            resource_id=None,
            kind="ping",
        )

    # History

    def listed(self, **filters: Any) -> list[ModelDelivery]:
        """The deliveries that fit, newest first. Filters as the registry has them."""
        hook_id, statuses = filters.get("hook_id"), filters.get("status")
        if hook_id is not None and hook_id not in self.hooks and hook_id not in self.deleted_hooks:
            raise NotFound("hook", hook_id)
        return [
            one
            for one in reversed(self.deliveries.values())
            if (hook_id is None or one.hook_id == hook_id)
            and (not statuses or one.status in statuses)
            and (not filters.get("only_failures") or one.status in FAILURES)
            and filters.get("resource") in (None, one.resource)
            and filters.get("action") in (None, one.action)
            and filters.get("resource_id") in (None, one.resource_id)
            and (filters.get("start") is None or one.created_at >= filters["start"])
            and (filters.get("end") is None or one.created_at < filters["end"])
        ]

    def next_attempt_at(self, one: ModelDelivery) -> datetime | None:
        hook = self.hooks.get(one.hook_id)
        if hook is None or hook.status == "disabled" or not one.waits:
            return None
        return max(moment for moment in (one.created_at, one.due_at, hook.paused_until) if moment is not None)

    def check_delivery(self, delivery_id: int) -> ModelDelivery:
        if delivery_id not in self.deliveries:
            raise NotFound("delivery", delivery_id)
        return self.deliveries[delivery_id]

    def check_redeliver(self, delivery_id: int) -> None:
        old = self.check_delivery(delivery_id)
        if self.hook(old.hook_id).drops or old.status not in FINAL:
            raise Conflict("as a model")

    def repeat(self, old: ModelDelivery, delivery_id: int) -> None:
        """Add a redelivery."""
        self._add_delivery(
            id=delivery_id,
            hook_id=old.hook_id,
            event_id=old.event_id,
            number=old.number,
            resource=old.resource,
            action=old.action,
            resource_id=old.resource_id,
            redelivery_of=old.id,
        )

    def recoverable(self, hook_id: int, since: datetime, until: datetime | None) -> list[ModelDelivery]:
        """What `recover` repeats, in this order."""
        if self.hook(hook_id).drops:
            raise Conflict("as a model")
        end = self.now + timedelta.resolution if until is None else until
        of_hook = [one for one in self.deliveries.values() if one.hook_id == hook_id]
        covered = {
            one.event_id
            for one in of_hook
            if one.redelivery_of is not None and one.status in ("enqueued", "retrying", "delivered")
        }
        chosen: dict[int, ModelDelivery] = {}
        for one in of_hook:
            lost = one.status in ("failed", "discarded") and since <= one.created_at < end
            if lost and one.event_id not in covered:
                chosen.setdefault(one.event_id, one)
        return sorted(chosen.values(), key=lambda one: one.id)

    def prune(self, before: datetime) -> int:
        gone = [one.id for one in self.deliveries.values() if one.status in FINAL and one.created_at < before]
        for delivery_id in gone:
            del self.deliveries[delivery_id]
        self.keys = {key: used for key, used in self.keys.items() if used.stored_at >= before}
        return len(gone)


def content(one: EventInput) -> tuple[Any, ...]:
    """What makes two emits with one key the same."""
    ids = (_text(one.resource_id), _text(one.company_id), _text(one.project_id))
    return (one.resource, one.action, one.payload["number"], *ids)


def _text(value: int | str | None) -> str | None:
    return None if value is None else str(value)
