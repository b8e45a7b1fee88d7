"""What a settled attempt is worth telling: notices for observers, lines for the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ._core.claims import Settled
from .observers import AttemptRecorded, HookDisabled, HookPaused, HookResumed, Notice, QueueFlushed

__all__ = ["log_settled", "notices_of"]

_log = logging.getLogger("procore_hooks")


def notices_of(settled: Settled) -> Iterator[Notice]:
    """The notices of a settled attempt, the attempt itself first."""
    settlement = settled.settlement
    claim = settlement.claim
    yield AttemptRecorded(
        hook=claim.hook,
        event=claim.event,
        delivery_id=claim.delivery_id,
        attempt=settlement.attempt,
        status=settled.status,
    )
    change = settlement.hook_change
    if change is None or not settled.changed:
        return
    if change.disable:
        yield HookDisabled(hook=claim.hook)
    elif change.flush_reason is not None:
        yield QueueFlushed(hook=claim.hook, reason=change.flush_reason)
    elif change.paused_until is not None and change.failing_since is not None:
        yield HookPaused(
            hook=claim.hook,
            failures=change.failures,
            failing_since=change.failing_since,
            until=change.paused_until,
        )
    elif change.failing_since is None:
        yield HookResumed(hook=claim.hook)


def log_settled(settled: Settled) -> None:
    """One line for each attempt at DEBUG, and one for what an operator should hear of."""
    settlement = settled.settlement
    claim, attempt, change = settlement.claim, settlement.attempt, settlement.hook_change
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug(
            "delivery %d to hook %d: attempt %d %s (%s)",
            claim.delivery_id,
            claim.hook.id,
            attempt.number,
            attempt.outcome,
            attempt.response_status if attempt.response_status is not None else attempt.response_error,
        )
    if change is None or not settled.changed:
        return
    if change.disable:
        _log.warning("hook %d: its endpoint asked to be disabled (HTTP %s)", claim.hook.id, attempt.response_status)
    elif change.flush_reason is not None:
        _log.error("hook %d: %s", claim.hook.id, change.flush_reason)
    elif change.failing_since is not None and claim.hook.failing_since is None:
        what = f"HTTP {attempt.response_status}" if attempt.response_status is not None else attempt.response_error
        _log.warning("hook %d: deliveries fail (%s) and will be tried again", claim.hook.id, what)
    elif change.failing_since is None and claim.hook.failing_since is not None:
        _log.info("hook %d: deliveries succeed again", claim.hook.id)
