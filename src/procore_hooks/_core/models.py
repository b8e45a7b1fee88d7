"""The values that apps see. All are frozen, and show no secret when printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar, overload

import attrs

from ..exceptions import InvalidInput
from .ed25519 import public_key_of
from .frozen import FrozenDict, freeze
from .secret import Secret

__all__ = [
    "Attempt",
    "AttemptOutcome",
    "Delivery",
    "DeliveryBucket",
    "DeliveryStats",
    "DeliveryStatus",
    "DrainReport",
    "Emission",
    "EndpointReport",
    "EndpointStage",
    "Event",
    "EventInput",
    "Hook",
    "HookStatus",
    "Page",
    "PreviousSecret",
    "Timeouts",
    "Trigger",
    "Verdict",
    "WhenDisabled",
    "masked_url",
]

T = TypeVar("T")

HookStatus = Literal["active", "disabled"]
WhenDisabled = Literal["keep", "drop"]
DeliveryStatus = Literal["enqueued", "retrying", "delivered", "failed", "discarded"]
AttemptOutcome = Literal["ok", "retried", "failed", "discarded", "unknown"]
EndpointStage = Literal["url", "name", "address", "connection", "tls", "answer"]


def _frozen_dict(value: Mapping[str, Any] | None) -> FrozenDict[str, Any]:
    return value if isinstance(value, FrozenDict) else FrozenDict(value or {})


def masked_url(url: str) -> str:
    """`url` without its query and fragment, which often carry a token; stars stand for them."""
    head, mark, _ = url.partition("?")
    return f"{head}?*****" if mark else head


@attrs.frozen(kw_only=True)
class PreviousSecret:
    """A signing secret that was rotated away and still signs, beside the new one, until `expires_at`."""

    secret: Secret
    expires_at: datetime


@attrs.frozen(kw_only=True)
class Hook:
    """A notification endpoint in a scope, under a namespace.

    Attributes:
        company_id, project_id: the scope. With neither, the hook gets every event.
        include_projects: a company hook gets its projects' events too.
        status: a ``"disabled"`` hook delivers nothing; what waits is kept.
        when_disabled: whether new events are kept for a disabled hook, or dropped with a reason.
        payload_version: the format of the body, fixed once the hook exists.
        max_in_flight: how many deliveries may be under way at once; 1 keeps the order of emission.
        failing_since: when the present run of failures began; None while all is well.
        paused_until: until when deliveries wait after a failure.
        signing_secret: of Standard Webhooks: ``whsec_`` and base64, or an ed25519 private key, ``whsk_`` and base64.
        previous_secrets: secrets that were rotated away and still sign for their grace.
    """

    id: int
    namespace: str
    destination_url: str = attrs.field(repr=masked_url)
    destination_headers: FrozenDict[str, Secret] = attrs.field(converter=_frozen_dict, factory=FrozenDict)
    company_id: str | None = None
    project_id: str | None = None
    include_projects: bool = False
    status: HookStatus = "active"
    when_disabled: WhenDisabled = "keep"
    payload_version: str = "v4.0"
    max_in_flight: int = 1
    failing_since: datetime | None = None
    paused_until: datetime | None = None
    signing_secret: Secret
    previous_secrets: tuple[PreviousSecret, ...] = ()
    created_at: datetime
    updated_at: datetime

    @property
    def public_key(self) -> str | None:
        """What a receiver verifies with, ``whpk_`` and base64, if the secret is an ed25519 private key; else None."""
        return public_key_of(self.signing_secret)


@attrs.frozen(kw_only=True)
class Trigger:
    """A resource and an action that a hook wants to hear about; ``"*"`` stands for every one."""

    id: int
    hook_id: int
    resource: str
    action: str


@attrs.frozen(kw_only=True)
class Event:
    """One change of one resource.

    Attributes:
        id: 63 bits, rising with time.
        ulid: the same event's ULID, the ``webhook-id`` of every POST of it.
        payload_json: the payload as it was serialised when it was emitted, UTF-8.
    """

    id: int
    ulid: str
    resource: str
    action: str
    resource_id: str | None = None
    company_id: str | None = None
    project_id: str | None = None
    user_id: str | None = None
    occurred_at: datetime
    payload_json: bytes = attrs.field(default=b"null", repr=False)
    metadata: FrozenDict[str, Any] = attrs.field(converter=_frozen_dict, factory=FrozenDict, repr=False)
    related_resources: tuple[FrozenDict[str, Any], ...] = attrs.field(default=(), repr=False)

    @cached_property
    def payload(self) -> Any:
        """The payload as it was serialised: JSON values, read-only."""
        return freeze(json.loads(self.payload_json))


@attrs.frozen(kw_only=True)
class Attempt:
    """One POST of a delivery, or the try to make one.

    Attributes:
        number: 1 for the first.
        outcome: ``ok | retried | failed | discarded``, and ``unknown`` where a crash left it open.
        request_url: the destination with its query masked.
        request_headers: lower-case names; credentials masked to their last five characters.
        request_body, response_body: empty in lists; `deliveries.get` has them.
        response_status: None when no answer came; `response_error` then says why, in words.
        completed_at: None when the outcome is ``unknown``.
    """

    number: int
    outcome: AttemptOutcome
    request_url: str
    request_headers: FrozenDict[str, str] = attrs.field(converter=_frozen_dict, factory=FrozenDict)
    request_body: bytes = attrs.field(default=b"", repr=False)
    response_status: int | None = None
    response_headers: FrozenDict[str, str] = attrs.field(converter=_frozen_dict, factory=FrozenDict)
    response_body: bytes = attrs.field(default=b"", repr=False)
    response_error: str | None = None
    started_at: datetime
    completed_at: datetime | None = None


@attrs.frozen(kw_only=True)
class Delivery:
    """One event on its way to one hook.

    Attributes:
        status: ``enqueued -> retrying -> delivered | failed | discarded``; the last three are final.
        attempts: oldest first. An attempt under way is counted in `attempt_count` and not yet listed.
        next_attempt_at: the earliest moment of the next attempt; None when it is final, under way, or
            its hook is disabled.
        redelivery_of: the delivery that this one repeats.
        reason: why it was discarded or failed, in words.
    """

    id: int
    hook_id: int
    event: Event
    status: DeliveryStatus
    attempts: tuple[Attempt, ...] = ()
    attempt_count: int = 0
    next_attempt_at: datetime | None = None
    created_at: datetime
    completed_at: datetime | None = None
    redelivery_of: int | None = None
    reason: str | None = None

    @property
    def last_attempt(self) -> Attempt | None:
        """The newest attempt; None before the first."""
        return self.attempts[-1] if self.attempts else None


@attrs.frozen
class Page(Sequence[T], Generic[T]):
    """One page of a list: a sequence, and the cursor of the next page (None on the last)."""

    items: tuple[T, ...] = attrs.field(converter=tuple)
    next_cursor: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self.items[index]


@attrs.frozen
class EventInput:
    """What `emit` takes, as a value: one of many for `emit_many`."""

    resource: str
    action: str
    payload: Any = attrs.field(default=None, repr=False)
    resource_id: int | str | None = attrs.field(default=None, kw_only=True)
    company_id: int | str | None = attrs.field(default=None, kw_only=True)
    project_id: int | str | None = attrs.field(default=None, kw_only=True)
    user_id: int | str | None = attrs.field(default=None, kw_only=True)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True, repr=False)
    related_resources: Sequence[Mapping[str, Any]] | None = attrs.field(default=None, kw_only=True, repr=False)
    occurred_at: datetime | None = attrs.field(default=None, kw_only=True)
    idempotency_key: str | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Emission:
    """What an emit stored: the event, and one delivery for each hook that matched."""

    event: Event
    delivery_ids: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class Verdict:
    """Whether a hook would get an event, and why or why not, in words."""

    hook: Hook
    delivers: bool
    why: str


@attrs.frozen(kw_only=True)
class EndpointReport:
    """What a check of an endpoint found.

    Attributes:
        ok: whether deliveries will very likely arrive.
        stage: how far the check came: the stage that failed, or ``"answer"``, the last, when all is well.
        problem: what is likely wrong, in one sentence; empty when all is well.
        advice: what to do about it; empty when all is well.
    """

    ok: bool
    stage: EndpointStage
    problem: str = ""
    advice: str = ""


@attrs.frozen(kw_only=True)
class DeliveryBucket:
    """How many of the deliveries created in one span of time are in each status now.

    Attributes:
        start: the first moment of the span, which ends where the next one's starts.
    """

    start: datetime
    enqueued: int = 0
    retrying: int = 0
    delivered: int = 0
    failed: int = 0
    discarded: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.enqueued + self.retrying + self.delivered + self.failed + self.discarded


@attrs.frozen(kw_only=True)
class DeliveryStats:
    """How many deliveries, created at or after `since`, are in each status now.

    Attributes:
        buckets: the same in equal spans of time, oldest first, if they were asked for; together they hold as many.
    """

    since: datetime
    enqueued: int = 0
    retrying: int = 0
    delivered: int = 0
    failed: int = 0
    discarded: int = 0
    buckets: tuple[DeliveryBucket, ...] = ()

    @property
    def total(self) -> int:
        """All of them."""
        return self.enqueued + self.retrying + self.delivered + self.failed + self.discarded


@attrs.frozen(kw_only=True)
class DrainReport:
    """What a drain did.

    Attributes:
        delivered, failed, discarded: deliveries that became so.
        retried: attempts that failed and will be tried again.
        next_due_at: the next moment at which anything becomes due, pauses and leases counted, disabled
            hooks not; None when nothing will.
    """

    delivered: int = 0
    retried: int = 0
    failed: int = 0
    discarded: int = 0
    next_due_at: datetime | None = None


def _finite_seconds(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
        raise InvalidInput(attribute.name, f"{value!r} is not a number of seconds above 0, at most 3600")


@attrs.frozen
class Timeouts:
    """How long an attempt may take, in seconds; always finite.

    Procore gives an endpoint 5 seconds to answer once connected.

    Attributes:
        connect: for the name, the connection and TLS together.
        response: from the connection until the answer's headers are complete.
        total: for the whole attempt, the body of the answer included.
    """

    connect: float = attrs.field(default=5, validator=_finite_seconds)
    response: float = attrs.field(default=5, validator=_finite_seconds)
    total: float = attrs.field(default=10, validator=_finite_seconds)
