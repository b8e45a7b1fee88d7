"""Whether what a registry tells is what the model holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import attrs

from procore_hooks import Delivery, DeliveryStats, HookRegistry, Page

from .model import Model, ModelDelivery, ModelHook

__all__ = ["assert_equal", "compare_all", "compare_delivery", "pages_of", "stats_of"]

T = TypeVar("T")

_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
_INSIDE: Final = ("url", "failures")  # of a hook: told by another name, or not at all


def assert_equal(real: object, expected: object) -> None:
    """For where there is room for an expression only."""
    assert real == expected


def pages_of(turn: Callable[..., Page[T]], page_size: int) -> list[T]:
    """All items of all pages, each of which but the last is full."""
    page = turn(page_size=page_size)
    items = list(page)
    while page.next_cursor is not None:
        assert len(page) == page_size
        page = turn(page_size=page_size, cursor=page.next_cursor)
        items += page
    assert len(page) <= page_size
    return items


def stats_of(deliveries: Sequence[ModelDelivery], since: datetime) -> DeliveryStats:
    """What the registry's stats should be."""
    return DeliveryStats(since=since, **Counter(one.status for one in deliveries))


def compare_all(registry: HookRegistry, model: Model) -> None:
    """Hooks, triggers, deliveries and counts."""
    hooks = pages_of(registry.hooks.list, 3)
    for hook, expected in zip(hooks, model.hooks.values(), strict=True):
        for field in attrs.fields(ModelHook):
            if field.name not in _INSIDE:
                assert getattr(hook, field.name) == getattr(expected, field.name), field.name
        assert hook.destination_url == expected.url
        triggers = pages_of(partial(registry.triggers.list, hook.id), 2)
        assert {one.id: (one.resource, one.action) for one in triggers} == model.triggers_of(hook.id)
        assert [one.id for one in triggers] == sorted(one.id for one in triggers)
    listed = pages_of(registry.deliveries.list, 7)
    for found, one in zip(listed, model.listed(), strict=True):
        compare_delivery(found, model, one)
    stats = registry.deliveries.stats(since=_LONG_AGO)
    assert stats == stats_of(model.listed(), _LONG_AGO)
    assert stats.total == len(listed)


def compare_delivery(found: Delivery, model: Model, one: ModelDelivery) -> None:
    """One delivery with its attempts."""
    for name in ("id", "hook_id", "status", "created_at", "completed_at", "redelivery_of"):
        assert getattr(found, name) == getattr(one, name), name
    for name in ("resource", "action", "resource_id"):
        assert getattr(found.event, name) == getattr(one, name), name
    assert found.event.id == one.event_id
    assert [(attempt.outcome, attempt.response_status) for attempt in found.attempts] == one.attempts
    assert [attempt.number for attempt in found.attempts] == list(range(1, len(one.attempts) + 1))
    assert found.attempt_count == len(one.attempts) + (one.lease_until is not None)
    assert found.next_attempt_at == model.next_attempt_at(one)
    assert (found.reason is None) == (one.reason is None)
    assert (found.reason or "").startswith(one.reason or "")
