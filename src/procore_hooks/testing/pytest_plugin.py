"""Fixtures for apps that test their webhooks: pytest finds them by itself once the package is installed.

They import what they need when a test asks for them, so that loading the plugin costs a test run nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from procore_hooks import HookRegistry

    from .clock import ManualClock
    from .receiver import WebhookReceiver

__all__ = ["hook_clock", "hook_registry", "webhook_receiver"]


@pytest.fixture
def hook_clock() -> ManualClock:
    """A `ManualClock` at 2025-01-01T00:00:00Z; `hook_registry` goes by it."""
    from .clock import ManualClock

    return ManualClock()


@pytest.fixture
def hook_registry(hook_clock: ManualClock) -> Iterator[HookRegistry]:
    """A `HookRegistry` in memory, by the time of `hook_clock`, which may deliver to loopback over http."""
    from procore_hooks import DestinationPolicy, HookRegistry, MemoryStorage

    with HookRegistry(MemoryStorage(), destinations=DestinationPolicy.local(), clock=hook_clock) as registry:
        yield registry


@pytest.fixture
def webhook_receiver() -> Iterator[WebhookReceiver]:
    """A `WebhookReceiver` on a free port of loopback, closed after the test."""
    from .receiver import WebhookReceiver

    with WebhookReceiver() as receiver:
        yield receiver
