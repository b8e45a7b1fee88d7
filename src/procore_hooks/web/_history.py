"""What the lists and the details of deliveries show: values for the templates, made without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import attrs

from procore_hooks import Attempt, Delivery, Hook

from ._json_layout import laid_out
from ._moments import span

__all__ = ["TABS", "Details", "Shown", "Tab", "details_of", "hook_state", "next_step", "read_tab", "shown_text", "took"]

Tab = Literal["payload", "request", "response", "body"]
HookState = Literal["active", "paused", "failing"]
NextStep = Literal["at", "due", "paused", "under_way"]

TABS: Final[tuple[Tab, ...]] = ("payload", "request", "response", "body")

_FINAL: Final = frozenset({"delivered", "failed", "discarded"})
# More than this of a body is for a download, not for a page.
_MOST_SHOWN: Final = 262_144


def hook_state(hook: Hook) -> HookState:
    """In one word how a hook is."""
    if hook.status == "disabled":
        return "paused"
    return "active" if hook.failing_since is None else "failing"


def next_step(delivery: Delivery, hook: Hook, now: datetime) -> NextStep | None:
    """What comes next of a delivery; None once it is final."""
    if delivery.status in _FINAL:
        return None
    if delivery.attempt_count > len(delivery.attempts):
        return "under_way"
    if hook.status == "disabled":
        return "paused"
    if delivery.next_attempt_at is None or delivery.next_attempt_at <= now:
        return "due"
    return "at"


def read_tab(text: str | None) -> Tab:
    """The tab in an address; the first for one that there is not."""
    return next((tab for tab in TABS if tab == text), TABS[0])


@attrs.frozen(kw_only=True)
class Shown:
    """A body as text.

    Attributes:
        cut: of how many bytes only the first are shown; None when all are.
    """

    text: str
    shown: int
    cut: int | None = None


def shown_text(body: bytes) -> Shown:
    """A body as people read it: JSON laid out, anything else as it is, what is not UTF-8 with marks in its place."""
    part = body[:_MOST_SHOWN]
    if len(part) < len(body):
        return Shown(text=part.decode("utf-8", "replace"), shown=len(part), cut=len(body))
    return Shown(text=laid_out(part.decode("utf-8", "replace")), shown=len(part))


@attrs.frozen(kw_only=True)
class Details:
    """One delivery, one of its attempts, and one tab of that.

    Attributes:
        attempt: the one that the tab shows; None before the first.
        payload: what was sent, or will be the payload of what is sent.
        error: why no answer came, if none did.
    """

    attempt: Attempt | None
    tab: Tab
    payload: Shown
    headers: Mapping[str, str]
    body: Shown
    error: str | None

    @property
    def sent(self) -> bytes | None:
        """The body that went out; None before the first attempt."""
        return None if self.attempt is None else self.attempt.request_body


def took(attempt: Attempt) -> str:
    """How long an attempt took; empty where no end was recorded."""
    return "" if attempt.completed_at is None else span(attempt.completed_at - attempt.started_at)


def details_of(delivery: Delivery, number: int | None, tab: Tab) -> Details:
    """The details of `delivery`: of its attempt with this number, or of the last one."""
    chosen = next((one for one in delivery.attempts if one.number == number), delivery.last_attempt)
    if chosen is None:
        payload = shown_text(delivery.event.payload_json)
        return Details(attempt=None, tab=tab, payload=payload, headers={}, body=shown_text(b""), error=None)
    return Details(
        attempt=chosen,
        tab=tab,
        payload=shown_text(chosen.request_body),
        headers=chosen.request_headers if tab == "request" else chosen.response_headers,
        body=shown_text(chosen.response_body),
        error=chosen.response_error if chosen.response_status is None else None,
    )
