"""What goes on the wire for an attempt: body, signature, headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import attrs
import httpx

from ._core.destinations import DestinationPolicy
from ._core.frozen import FrozenDict
from ._core.headers import check_headers, check_sent_headers, masked_headers
from ._core.masking import SecretsOfHook
from ._core.models import Event, Hook, Timeouts, masked_url
from ._core.payloads import BUILT_IN, render
from ._core.signing import Signer
from ._version import __version__

__all__ = ["PayloadFormat", "PreparedRequest", "RequestMaker"]

PayloadFormat = Callable[[Event], object]

_USER_AGENT: Final = f"procore-hooks/{__version__}"
_MOST_REMEMBERED: Final = 10_000


@attrs.frozen(kw_only=True)
class PreparedRequest:
    """A request, and what the history keeps of it.

    Attributes:
        url: with its query masked.
        headers: lower-case names, credentials masked.
        stored_body: empty for a built-in format, whose body follows from the event.
        secrets: what the history must not hold, whoever quotes it.
    """

    request: httpx.Request
    url: str
    headers: FrozenDict[str, str]
    stored_body: bytes
    secrets: SecretsOfHook


@attrs.frozen
class _Prepared:
    """What stays the same from one attempt of a hook to the next.

    Attributes:
        older_secrets: how many that were rotated away sign too. They end one by one, so the number says which.
    """

    hook: Hook
    older_secrets: int
    url: httpx.URL
    shown_url: str
    shown_headers: dict[str, str]
    headers: tuple[tuple[str, str], ...]
    signer: Signer
    secrets: SecretsOfHook


class RequestMaker:
    """Makes the requests of attempts. Remembers of each hook what need not be done again."""

    def __init__(
        self, destinations: DestinationPolicy, formats: Mapping[str, PayloadFormat], timeouts: Timeouts
    ) -> None:
        self._destinations = destinations
        self._formats = formats
        self._extensions = {
            "timeout": {
                "connect": timeouts.connect,
                "read": timeouts.response,
                "write": timeouts.total,
                "pool": timeouts.connect,
            }
        }
        self._remembered: dict[int, _Prepared] = {}

    def request(self, hook: Hook, event: Event, now: datetime) -> PreparedRequest:
        """The signed POST of `event` to `hook` at `now`.

        Raises `InvalidDestination` for a URL that the policy refuses, `InvalidHeader` for stored headers that this
        library would not have stored, `UnknownPayloadVersion`, `InvalidPayload`, `InvalidInput` for an ed25519 key
        where the package `cryptography` is missing, and whatever an app's own payload format raises.
        """
        prepared = self._prepare(hook, now)
        body = render(hook.payload_version, event, self._formats)
        timestamp = int(now.timestamp())
        signature = prepared.signer.sign(event.ulid, timestamp, body)
        signed = {
            "webhook-id": event.ulid,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
        }
        request = httpx.Request(
            "POST",
            prepared.url,
            headers=[*prepared.headers, *signed.items()],
            content=body,
            extensions=dict(self._extensions),
        )
        check_sent_headers(request.headers.raw)
        return PreparedRequest(
            request=request,
            url=prepared.shown_url,
            headers=FrozenDict(prepared.shown_headers | signed),
            stored_body=b"" if hook.payload_version in BUILT_IN else body,
            secrets=prepared.secrets,
        )

    def _prepare(self, hook: Hook, now: datetime) -> _Prepared:
        still_signing = [one.secret for one in hook.previous_secrets if one.expires_at > now]
        remembered = self._remembered.get(hook.id)
        if remembered is not None and remembered.hook is hook and remembered.older_secrets == len(still_signing):
            return remembered
        url = httpx.URL(self._destinations.check(hook.destination_url).url)
        check_headers(hook.destination_headers)
        own = {"content-type": "application/json", "user-agent": _USER_AGENT}
        # httpx would add accept, accept-encoding and connection headers of a client: there is no client here.
        fixed = {"host": url.netloc.decode("ascii"), "accept": "*/*", "accept-encoding": "identity", **own}
        configured = tuple((name, value.reveal()) for name, value in hook.destination_headers.items())
        names = {name.lower() for name, _ in configured}
        prepared = _Prepared(
            hook=hook,
            older_secrets=len(still_signing),
            url=url,
            shown_url=masked_url(hook.destination_url),
            shown_headers=own | masked_headers(hook.destination_headers),
            headers=(*((k, v) for k, v in fixed.items() if k not in names), *configured),
            signer=Signer((hook.signing_secret, *still_signing)),
            secrets=SecretsOfHook(hook, str(url)),
        )
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[hook.id] = prepared
        return prepared
