"""What an app may listen to while a dispatcher works.

An observer is a function of one notice. It is called in the dispatcher's thread, after the fact is stored, so it must
be quick; what it raises is logged and goes no further.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs

from ._core.models import Attempt, DeliveryStatus, Event, Hook

__all__ = ["AttemptRecorded", "HookDisabled", "HookPaused", "HookResumed", "Notice", "Observer", "QueueFlushed"]


@attrs.frozen(kw_only=True)
class AttemptRecorded:
    """An attempt is over and in the history.

    Attributes:
        status: the delivery's status now.
    """

    hook: Hook
    event: Event
    delivery_id: int
    attempt: Attempt
    status: DeliveryStatus


@attrs.frozen(kw_only=True)
class HookPaused:
    """A failure paused a hook, or lengthened its pause.

    Attributes:
        failures: the failures in a row.
        until: when the next attempt is made.
    """

    hook: Hook
    failures: int
    failing_since: datetime
    until: datetime


@attrs.frozen(kw_only=True)
class HookResumed:
    """A success ended a hook's run of failures."""

    hook: Hook


@attrs.frozen(kw_only=True)
class HookDisabled:
    """An endpoint asked for its hook to be disabled: by status 410, or by ``webhook-delivery: disable``."""

    hook: Hook


@attrs.frozen(kw_only=True)
class QueueFlushed:
    """The retry policy gave up: what waited for the hook is discarded."""

    hook: Hook
    reason: str


Notice = AttemptRecorded | HookPaused | HookResumed | HookDisabled | QueueFlushed
Observer = Callable[[Notice], None]
