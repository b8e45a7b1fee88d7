"""The hooks and triggers of `MemoryStorage`, with the index that finds who wants an event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any

import attrs

from .._core.matching import company_fits, scope_key, scope_keys, wanted_pairs
from .._core.models import Event, Hook, Trigger
from ..exceptions import DuplicateTrigger, NotFound
from ._base import HookQuery
from ._memory_queue import HookQueue

__all__ = ["Directory"]


class Directory:
    """Hooks by id, their triggers, and of deleted hooks the payload version, which their history needs."""

    def __init__(self) -> None:
        self._queues: dict[int, HookQueue] = {}
        self._deleted: dict[int, str] = {}
        self._triggers: dict[int, Trigger] = {}
        self._index: dict[tuple[str, str, str], dict[int, HookQueue]] = {}
        self._hook_ids = count(1)
        self._trigger_ids = count(1)

    def add(self, hook: Hook) -> Hook:
        """Keep a hook under a new id."""
        hook = attrs.evolve(hook, id=next(self._hook_ids))
        self._queues[hook.id] = HookQueue(hook=hook)
        return hook

    def find(self, hook_id: int) -> HookQueue | None:
        """The hook's queue; None for a hook that never was or that is deleted."""
        return self._queues.get(hook_id)

    def get(self, hook_id: int) -> HookQueue:
        """The hook's queue. Raises `NotFound`."""
        queue = self._queues.get(hook_id)
        if queue is None:
            raise NotFound("hook", hook_id)
        return queue

    def payload_version_of(self, hook_id: int) -> str:
        """The payload version of a hook, deleted or not. Raises `NotFound`."""
        queue = self._queues.get(hook_id)
        if queue is not None:
            return queue.hook.payload_version
        if hook_id not in self._deleted:
            raise NotFound("hook", hook_id)
        return self._deleted[hook_id]

    def queues(self) -> Iterable[HookQueue]:
        """The queues of all hooks."""
        return self._queues.values()

    def select(self, query: HookQuery) -> list[Hook]:
        """The hooks that fit, by id."""
        return list(islice(self._fitting(query), query.limit))

    def _fitting(self, query: HookQuery) -> Iterator[Hook]:
        for hook_id, queue in self._queues.items():
            hook = queue.hook
            if (
                hook_id > query.after
                and query.namespace in (None, hook.namespace)
                and query.company_id in (None, hook.company_id)
                and query.project_id in (None, hook.project_id)
                and query.status in (None, hook.status)
            ):
                yield hook

    def update(self, queue: HookQueue, changes: Mapping[str, Any]) -> None:
        """Change fields of the hook; its triggers go along with its scope."""
        changed = attrs.evolve(queue.hook, **changes)
        if _key(changed) == _key(queue.hook):
            queue.hook = changed
            return
        for trigger in queue.triggers.values():
            self._unlist(queue, trigger)
        queue.hook = changed
        for trigger in queue.triggers.values():
            self._enlist(queue, trigger)

    def delete(self, queue: HookQueue) -> None:
        """Forget the hook, but for its payload version, and its triggers."""
        for trigger in list(queue.triggers.values()):
            self._remove_trigger(queue, trigger)
        self._deleted[queue.hook.id] = queue.hook.payload_version
        del self._queues[queue.hook.id]

    def add_trigger(self, queue: HookQueue, resource: str, action: str) -> Trigger:
        """Keep a trigger under a new id. Raises `DuplicateTrigger`."""
        if (resource, action) in queue.triggers:
            raise DuplicateTrigger(f"hook {queue.hook.id} has a trigger for {resource!r} and {action!r} already")
        trigger = Trigger(id=next(self._trigger_ids), hook_id=queue.hook.id, resource=resource, action=action)
        self._triggers[trigger.id] = queue.triggers[resource, action] = trigger
        self._enlist(queue, trigger)
        return trigger

    def delete_trigger(self, trigger_id: int) -> None:
        """Forget a trigger. Raises `NotFound`."""
        trigger = self._triggers.get(trigger_id)
        if trigger is None:
            raise NotFound("trigger", trigger_id)
        self._remove_trigger(self._queues[trigger.hook_id], trigger)

    def replace_triggers(self, queue: HookQueue, wanted: Iterable[tuple[str, str]]) -> None:
        """Make `wanted` the hook's triggers; those it has stay as they are."""
        for pair in queue.triggers.keys() - set(wanted):
            self._remove_trigger(queue, queue.triggers[pair])
        for resource, action in wanted:
            if (resource, action) not in queue.triggers:
                self.add_trigger(queue, resource, action)

    def wanting(self, event: Event) -> Sequence[HookQueue]:
        """The queues of the hooks that get the event, by ascending id."""
        found: dict[int, HookQueue] = {}
        keys = scope_keys(event.company_id, event.project_id)
        for resource, action in wanted_pairs(event.resource, event.action):
            for key in keys:
                found.update(self._index.get((resource, action, key), ()))
        fitting = (queue for queue in found.values() if company_fits(queue.hook.company_id, event.company_id))
        return sorted(fitting, key=lambda queue: queue.hook.id)

    def _enlist(self, queue: HookQueue, trigger: Trigger) -> None:
        wanting = self._index.setdefault((trigger.resource, trigger.action, _key(queue.hook)), {})
        wanting[queue.hook.id] = queue

    def _unlist(self, queue: HookQueue, trigger: Trigger) -> None:
        entry = (trigger.resource, trigger.action, _key(queue.hook))
        del self._index[entry][queue.hook.id]
        if not self._index[entry]:
            del self._index[entry]

    def _remove_trigger(self, queue: HookQueue, trigger: Trigger) -> None:
        self._unlist(queue, trigger)
        del self._triggers[trigger.id]
        del queue.triggers[trigger.resource, trigger.action]


def _key(hook: Hook) -> str:
    return scope_key(hook.company_id, hook.project_id, hook.include_projects)
