"""The body of a POST: one function of the event for each payload version.

``v2.0`` and ``v3.0`` are thin, as Procore's are: they say what changed, and the receiver asks for the rest. Their ids
are integers. ``v4.0`` has ids as text and carries the payload as ``data``; ``standard`` is the envelope of Standard
Webhooks. An app may add formats of its own.

The payload was serialised once, when it was emitted, and goes in byte for byte. A body depends on nothing but the
event, so it is the same on every attempt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..exceptions import UnknownPayloadVersion
from .checks import shown
from .json_strict import MAX_BYTES, quoted, serialise, timestamp
from .models import Event

__all__ = ["BUILT_IN", "PayloadFormat", "check_version", "render"]

PayloadFormat = Callable[[Event], object]

_CANONICAL_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_NO_PAYLOAD = b"null"


def _number_or_text(value: object) -> object:
    """An id as v2.0 and v3.0 send it: an integer where its text is exactly that of a 64-bit integer, else as it is.

    ``"007"`` stays text: as the number 7 it would be another id.
    """
    if isinstance(value, str) and _CANONICAL_INTEGER.fullmatch(value):
        number = int(value)
        if -(2**63) <= number < 2**63:
            return number
    return value


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _json(value: object) -> bytes:
    return serialise(value, field="event", max_bytes=MAX_BYTES)


class _Texts:
    """Makes an object of plain names and texts: the bytes of `_json`, in a third of the time. Every attempt has one."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._template = "{" + ",".join([f'"{name}":%s' for name in names]) + "}"

    def filled(self, *texts: str) -> bytes:
        """The object whose names have these `texts`, in the order of the names."""
        try:
            return (self._template % tuple(map(quoted, texts))).encode()
        except UnicodeEncodeError:
            return _json(dict(zip(self._names, texts, strict=True)))  # which says what is wrong


_V4_HEAD = _Texts(
    *("id", "timestamp", "reason", "company_id", "project_id", "user_id", "resource_type", "resource_id"),
    "payload_version",
)
_STANDARD_HEAD = _Texts("type", "timestamp")


def _thin(event: Event, api_version: str) -> dict[str, Any]:
    user, company, project = map(_number_or_text, (event.user_id, event.company_id, event.project_id))
    metadata = {
        "source_user_id": user,
        "source_project_id": project,
        "source_operation_id": None,
        "source_company_id": company,
        "source_application_id": None,
        **event.metadata,
    }
    return {
        "id": event.id,
        "ulid": event.ulid,
        "timestamp": timestamp(event.occurred_at),
        "metadata": metadata,
        "user_id": user,
        "company_id": company,
        "project_id": project,
        "api_version": api_version,
        "event_type": event.action,
        "resource_name": event.resource,
        "resource_id": _number_or_text(event.resource_id),
    }


def _v2(event: Event) -> bytes:
    return _json(_thin(event, "v2.0"))


def _v3(event: Event) -> bytes:
    body = _thin(event, "v3.0")
    body["related_resources"] = [
        {name: _number_or_text(value) if name == "id" else value for name, value in related.items()}
        for related in event.related_resources
    ]
    return _json(body)


def _v4(event: Event) -> bytes:
    head = _V4_HEAD.filled(
        event.ulid,
        timestamp(event.occurred_at),
        event.action,
        _text(event.company_id),
        _text(event.project_id),
        _text(event.user_id),
        event.resource,
        _text(event.resource_id),
        "v4.0",
    )
    parts = [head[:-1]]
    if event.payload_json != _NO_PAYLOAD:
        parts += b',"data":', event.payload_json
    if event.metadata:
        parts += b',"metadata":', _json(event.metadata)
    if event.related_resources:
        related = [
            {name: _text(value) if name == "id" else value for name, value in one.items()}
            for one in event.related_resources
        ]
        parts += b',"related_resources":', _json(related)
    parts.append(b"}")
    return b"".join(parts)


def _standard(event: Event) -> bytes:
    head = _STANDARD_HEAD.filled(f"{event.resource}.{event.action}", timestamp(event.occurred_at))
    data = b"{}" if event.payload_json == _NO_PAYLOAD else event.payload_json
    return b'%b,"data":%b}' % (head[:-1], data)


BUILT_IN: Mapping[str, Callable[[Event], bytes]] = MappingProxyType(
    {"v2.0": _v2, "v3.0": _v3, "v4.0": _v4, "standard": _standard}
)


def check_version(payload_version: str, own: Mapping[str, PayloadFormat]) -> str:
    """`payload_version`, if it is built in or one of the app's `own`. Raises `UnknownPayloadVersion`."""
    if isinstance(payload_version, str) and (payload_version in BUILT_IN or payload_version in own):
        return payload_version
    known = ", ".join(map(repr, [*BUILT_IN, *(name for name in own if name not in BUILT_IN)]))
    raise UnknownPayloadVersion("payload_version", f"{shown(payload_version)} is not known: use one of {known}")


def render(payload_version: str, event: Event, own: Mapping[str, PayloadFormat]) -> bytes:
    """The body of `event` in a built-in format or in one of the app's `own`.

    A format of the app's returns bytes, which are sent as they are, or a JSON value of at most 20 MiB. Raises
    `UnknownPayloadVersion`, `InvalidPayload` if the app's value is not JSON, and whatever the app's function raises.
    """
    built_in = BUILT_IN.get(payload_version)
    if built_in is not None:
        return built_in(event)
    body = own[check_version(payload_version, own)](event)
    return body if isinstance(body, bytes) else serialise(body, field=payload_version, max_bytes=MAX_BYTES)
