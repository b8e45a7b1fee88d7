"""Rows to values and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from ..._core.frozen import FrozenDict, freeze
from ..._core.models import Attempt, AttemptOutcome, Delivery, DeliveryStatus, Event, Hook, PreviousSecret, Trigger
from ..._core.secret import Secret
from ...exceptions import SecretUnreadable
from ...keyring import DAMAGED, KeyRing
from .encryption import decrypted, encrypted

__all__ = [
    "ATTEMPTS_PER_DELIVERY",
    "EVENT_COLUMNS",
    "HOOK_COLUMNS",
    "OUTCOMES",
    "STATES",
    "HeaderItems",
    "attempt_from_row",
    "attempt_row",
    "compact_json",
    "delivery_from_row",
    "event_from_row",
    "event_row",
    "hook_from_row",
    "moment",
    "moment_or_none",
    "secret_columns",
    "split_headers",
    "stamp",
    "stamp_or_none",
    "trigger_from_row",
]

STATES: Final[tuple[DeliveryStatus, ...]] = ("enqueued", "retrying", "delivered", "failed", "discarded")
OUTCOMES: Final[tuple[AttemptOutcome, ...]] = ("ok", "retried", "failed", "discarded", "unknown")
# The key of an attempt holds its delivery and its number, so that no index is needed to find a delivery's attempts.
ATTEMPTS_PER_DELIVERY: Final = 1 << 20
# The signature has a column of its own; the others follow from the event and the start.
_DERIVED_HEADERS: Final = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature"})

# Made once: `json.dumps` makes one for each call that asks for separators.
compact_json: Final = json.JSONEncoder(separators=(",", ":")).encode
HeaderItems = tuple[tuple[str, str], ...]

_NOTHING: Final = FrozenDict[str, Any]()
_NO_HEADERS: Final = FrozenDict[str, Secret]()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

HOOK_COLUMNS: Final = """h.id, h.namespace, h.destination_url, h.destination_headers, h.company_id, h.project_id,
    h.include_projects, h.status, h.when_disabled, h.payload_version, h.max_in_flight, h.signing_secrets,
    h.created_at, h.updated_at, q.failing_since, q.paused_until"""
EVENT_COLUMNS: Final = """e.id, e.ulid, e.resource, e.action, e.resource_id, e.company_id, e.project_id, e.user_id,
    e.occurred_at, e.payload, e.metadata, e.related_resources"""


def stamp(value: datetime) -> int:
    """Microseconds since 1970."""
    return (value - _EPOCH) // _MICROSECOND


def stamp_or_none(value: datetime | None) -> int | None:
    """The same; None stays None."""
    return None if value is None else (value - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The moment that is `value` microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=value)


def moment_or_none(value: int | None) -> datetime | None:
    """The same; None stays None."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def secret_columns(hook: Hook, keys: KeyRing | None) -> dict[str, str]:
    """The columns of the hooks table that hold secrets: the headers, then the current signing secret and [secret,
    expiry] of each that was rotated away. JSON, encrypted for the row of `hook.id` if there are keys.
    """
    headers = {name: value.reveal() for name, value in hook.destination_headers.items()}
    older = [[one.secret.reveal(), stamp(one.expires_at)] for one in hook.previous_secrets]
    columns = {"destination_headers": headers, "signing_secrets": [hook.signing_secret.reveal(), *older]}
    return {column: encrypted(keys, hook.id, column, compact_json(value)) for column, value in columns.items()}


def hook_from_row(row: Sequence[Any], keys: KeyRing | None) -> Hook:
    """A hook of HOOK_COLUMNS. Raises `SecretUnreadable`."""
    headers = _headers(row[0], decrypted(keys, row[0], "destination_headers", row[3]))
    current, older = _signing_secrets(row[0], decrypted(keys, row[0], "signing_secrets", row[11]))
    return Hook(
        id=row[0],
        namespace=row[1],
        destination_url=row[2],
        destination_headers=headers,
        company_id=row[4],
        project_id=row[5],
        include_projects=bool(row[6]),
        status=row[7],
        when_disabled=row[8],
        payload_version=row[9],
        max_in_flight=row[10],
        signing_secret=current,
        previous_secrets=older,
        created_at=moment(row[12]),
        updated_at=moment(row[13]),
        failing_since=moment_or_none(row[14]),
        paused_until=moment_or_none(row[15]),
    )


# Rows that others wrote into may hold anything. What JSON's own errors say of it is the secrets themselves.
_NOT_OURS: Final = (ValueError, TypeError, AttributeError, OverflowError)


def _headers(hook_id: int, text: str) -> FrozenDict[str, Secret]:
    try:
        headers = {name: Secret(value) for name, value in json.loads(text).items()}
    except _NOT_OURS:
        raise SecretUnreadable(None, f"hook {hook_id}, destination_headers: {DAMAGED}") from None
    return FrozenDict(headers) if headers else _NO_HEADERS


def _signing_secrets(hook_id: int, text: str) -> tuple[Secret, tuple[PreviousSecret, ...]]:
    try:
        current, *older = json.loads(text)
        previous = tuple(PreviousSecret(secret=Secret(one), expires_at=moment(end)) for one, end in older)
        return Secret(current), previous
    except _NOT_OURS:
        raise SecretUnreadable(None, f"hook {hook_id}, signing_secrets: {DAMAGED}") from None


def trigger_from_row(row: Sequence[Any]) -> Trigger:
    """A trigger of (id, hook_id, resource, action)."""
    return Trigger(id=row[0], hook_id=row[1], resource=row[2], action=row[3])


def event_row(event: Event, uses: int) -> tuple[object, ...]:
    """The columns of the events table."""
    return (
        event.id,
        event.ulid,
        event.resource,
        event.action,
        event.resource_id,
        event.company_id,
        event.project_id,
        event.user_id,
        stamp(event.occurred_at),
        event.payload_json,
        json.dumps(event.metadata, ensure_ascii=False) if event.metadata else None,
        json.dumps(event.related_resources, ensure_ascii=False) if event.related_resources else None,
        uses,
    )


def event_from_row(row: Sequence[Any]) -> Event:
    """An event of EVENT_COLUMNS."""
    return Event(
        id=row[0],
        ulid=row[1],
        resource=row[2],
        action=row[3],
        resource_id=row[4],
        company_id=row[5],
        project_id=row[6],
        user_id=row[7],
        occurred_at=moment(row[8]),
        payload_json=row[9],
        metadata=freeze(json.loads(row[10])) if row[10] else _NOTHING,
        related_resources=freeze(json.loads(row[11])) if row[11] else (),
    )


def split_headers(attempt: Attempt) -> tuple[HeaderItems, str | None]:
    """The attempt's headers without those that follow from the event and the start, and the signature.

    If they are not those of a signed request sent when it started, all of them, and no signature.
    """
    headers = attempt.request_headers
    seconds = str(stamp(attempt.started_at) // 1_000_000)
    if headers.get("webhook-timestamp") != seconds or not headers.keys() >= _DERIVED_HEADERS:
        return tuple(headers.items()), None
    kept = tuple([item for item in headers.items() if item[0] not in _DERIVED_HEADERS])
    return kept, headers["webhook-signature"]


def attempt_row(
    delivery_id: int, attempt: Attempt, request_id: int, signature: str | None, response_headers: str | None
) -> tuple[object, ...]:
    """The columns of the attempts table. What follows from the event and the start is not stored again.

    `response_headers` are the attempt's, as JSON: the caller may have the text already.
    """
    return (
        delivery_id * ATTEMPTS_PER_DELIVERY + attempt.number,
        OUTCOMES.index(attempt.outcome),
        request_id,
        attempt.request_body or None,
        signature,
        attempt.response_status,
        response_headers,
        attempt.response_body or None,
        attempt.response_error,
        stamp(attempt.started_at),
        stamp_or_none(attempt.completed_at),
    )


def attempt_from_row(row: Sequence[Any], webhook_id: str) -> Attempt:
    """An attempt of (id, outcome, request_body, signature, status, headers, body, error, started, completed, url,
    request headers).
    """
    headers: dict[str, str] = json.loads(row[11])
    if row[3] is not None:
        headers["webhook-id"] = webhook_id
        headers["webhook-timestamp"] = str(row[8] // 1_000_000)
        headers["webhook-signature"] = row[3]
    return Attempt(
        number=row[0] % ATTEMPTS_PER_DELIVERY,
        outcome=OUTCOMES[row[1]],
        request_body=row[2] or b"",
        response_status=row[4],
        response_headers=FrozenDict(json.loads(row[5])) if row[5] else FrozenDict(),
        response_body=row[6] or b"",
        response_error=row[7],
        started_at=moment(row[8]),
        completed_at=moment_or_none(row[9]),
        request_url=row[10],
        request_headers=FrozenDict(headers),
    )


def delivery_from_row(row: Sequence[Any], attempts: Sequence[Attempt]) -> Delivery:
    """A delivery of (id, hook_id, state, attempt_count, created_at, completed_at, due_at, lease_until, redelivery_of,
    reason, the queue's enabled, the queue's paused_until) and EVENT_COLUMNS.
    """
    _, _, state, _, created_at, _, due_at, lease_until, _, _, enabled, paused_until = row[:12]
    next_attempt_at = None
    if state <= 1 and lease_until is None and enabled == 1:
        next_attempt_at = moment(max(created_at, due_at or 0, paused_until or 0))
    return Delivery(
        id=row[0],
        hook_id=row[1],
        event=event_from_row(row[12:]),
        status=cast(DeliveryStatus, STATES[state]),
        attempts=tuple(attempts),
        attempt_count=row[3],
        next_attempt_at=next_attempt_at,
        created_at=moment(created_at),
        completed_at=moment_or_none(row[5]),
        redelivery_of=row[8],
        reason=row[9],
    )
