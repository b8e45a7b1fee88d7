"""What goes on the wire for an attempt: body, signature, headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import attrs
import httpx

from ._core.destinations import Destination, DestinationPolicy
from ._core.frozen import FrozenDict
from ._core.headers import check_headers, check_sent_headers, masked_headers
from ._core.masking import SecretsOfHook
from ._core.models import Event, Hook, Timeouts, masked_url
from ._core.payloads import BUILT_IN, PayloadFormat, render
from ._core.signing import Signer
from ._http1 import RequestHead, request_head
from ._version import __version__
from .exceptions import InvalidHeader

__all__ = ["PreparedRequest", "RequestMaker"]

_USER_AGENT: Final = f"procore-hooks/{__version__}"
# What is signed and sent of an event's id, which may come from a storage that others wrote to.
_SIGNED_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_MOST_REMEMBERED: Final = 10_000


@attrs.frozen(repr=False)  # it holds what the hook keeps secret
class _Prepared:
    """What stays the same from one attempt of a hook to the next.

    Attributes:
        older_secrets: how many that were rotated away sign too. They end one by one, so the number says which.
        shown_url, shown_headers: as `PreparedRequest` has them.
        headers: those of the request that are not of the event.
        head: the beginning of the request's head.
    """

    hook: Hook
    older_secrets: int
    destination: Destination
    shown_url: str
    shown_headers: dict[str, str]
    headers: tuple[tuple[str, str], ...]
    head: bytes
    signer: Signer
    secrets: SecretsOfHook


@attrs.define(eq=False, repr=False, kw_only=True)
class PreparedRequest(RequestHead):
    """A request, of which our own transport sends the head before the body, and what the history keeps of it.

    Attributes:
        signed_headers: those that sign it.
    """

    _prepared: _Prepared
    body: bytes
    signed_headers: dict[str, str]

    @property
    def destination(self) -> Destination:
        """Where it goes, as judged."""
        return self._prepared.destination

    @property
    def secrets(self) -> SecretsOfHook:
        """What the history must not hold, whoever quotes it."""
        return self._prepared.secrets

    @property
    def url(self) -> str:
        """With its query masked."""
        return self._prepared.shown_url

    @property
    def headers(self) -> FrozenDict[str, str]:
        """Lower-case names, credentials masked."""
        return FrozenDict(self._prepared.shown_headers, **self.signed_headers)

    @property
    def stored_body(self) -> bytes:
        """Empty for a built-in format, whose body follows from the event."""
        return b"" if self._prepared.hook.payload_version in BUILT_IN else self.body

    def as_httpx(self, timeouts: Timeouts) -> httpx.Request:
        """The same for another transport of httpx's. Raises `InvalidHeader` for what no header may hold."""
        seconds = {
            "connect": timeouts.connect,
            "read": timeouts.response,
            "write": timeouts.total,
            "pool": timeouts.connect,
        }
        request = httpx.Request(
            "POST",
            self.destination.url,
            headers=[*self._prepared.headers, *self.signed_headers.items()],
            content=self.body,
            extensions={"timeout": seconds},
        )
        check_sent_headers(request.headers.raw)
        return request


class RequestMaker:
    """Makes the requests of attempts. Remembers of each hook what need not be done again."""

    def __init__(self, destinations: DestinationPolicy, formats: Mapping[str, PayloadFormat]) -> None:
        self._destinations = destinations
        self._formats = formats
        self._remembered: dict[int, _Prepared] = {}

    def request(self, hook: Hook, event: Event, now: datetime) -> PreparedRequest:
        """The signed POST of `event` to `hook` at `now`.

        Raises `InvalidDestination` for a URL that the policy refuses, `InvalidHeader` for headers, or an event's ulid,
        that this library would not have stored, `UnknownPayloadVersion`, `InvalidPayload`, `InvalidInput` for an
        ed25519 key where the package `cryptography` is missing, and whatever an app's own payload format raises.
        """
        prepared = self._prepare(hook, now)
        body = render(hook.payload_version, event, self._formats)
        timestamp = int(now.timestamp())
        if not _SIGNED_ID.fullmatch(event.ulid):
            raise InvalidHeader("webhook-id", "the stored ulid of the event holds what none of this library's does")
        signature = prepared.signer.sign(event.ulid, timestamp, body)
        signed = {
            "webhook-id": event.ulid,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
        }
        lines = (
            f"content-length: {len(body)}\r\nwebhook-id: {event.ulid}\r\nwebhook-timestamp: {timestamp}\r\n"
            f"webhook-signature: {signature}\r\n\r\n"
        )
        return PreparedRequest(
            method=b"POST",
            raw=prepared.head + lines.encode("ascii"),
            length=len(body),
            prepared=prepared,
            body=body,
            signed_headers=signed,
        )

    def _prepare(self, hook: Hook, now: datetime) -> _Prepared:
        still_signing = [one.secret for one in hook.previous_secrets if one.expires_at > now]
        remembered = self._remembered.get(hook.id)
        if remembered is not None and remembered.hook is hook and remembered.older_secrets == len(still_signing):
            return remembered
        destination = self._destinations.check(hook.destination_url)
        url = httpx.URL(destination.url)
        check_headers(hook.destination_headers)
        own = {"content-type": "application/json", "user-agent": _USER_AGENT}
        # httpx would add accept, accept-encoding and connection headers of a client: there is no client here.
        fixed = {"host": url.netloc.decode("ascii"), "accept": "*/*", "accept-encoding": "identity", **own}
        configured = tuple((name, value.reveal()) for name, value in hook.destination_headers.items())
        names = {name.lower() for name, _ in configured}
        headers = (*((k, v) for k, v in fixed.items() if k not in names), *configured)
        prepared = _Prepared(
            hook=hook,
            older_secrets=len(still_signing),
            destination=destination,
            shown_url=masked_url(hook.destination_url),
            shown_headers=own | masked_headers(hook.destination_headers),
            headers=headers,
            head=_head(url, headers),
            signer=Signer((hook.signing_secret, *still_signing)),
            secrets=SecretsOfHook(hook, str(url)),
        )
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[hook.id] = prepared
        return prepared


def _head(url: httpx.URL, headers: Iterable[tuple[str, str]]) -> bytes:
    """A head without the line that ends it."""
    raw = ((name.encode("ascii"), value.encode("ascii")) for name, value in headers)
    return request_head(b"POST", url.raw_path, raw).raw[:-2]
