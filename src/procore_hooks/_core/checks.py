"""Checks of what an app passes in: each returns the normalised value, or raises with field, value and fix."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NoReturn, TypeVar, get_args

from ..exceptions import InvalidInput, NotFound
from .frozen import FrozenDict, freeze
from .json_strict import serialise
from .models import DeliveryStatus

__all__ = [
    "check_action",
    "check_bucket",
    "check_choice",
    "check_id",
    "check_idempotency_key",
    "check_max_in_flight",
    "check_metadata",
    "check_moment",
    "check_namespace",
    "check_page_size",
    "check_related_resources",
    "check_resource",
    "check_row_id",
    "check_statuses",
    "check_switch",
    "shown",
]

Choice = TypeVar("Choice", bound=str)

_ANY = "*"
_SHOWN = 60
_MAX_TEXT = 200
_MAX_KEY = 255
_MAX_EXTRAS = 16_384
_MAX_BUCKETS = 5_000
_NAMESPACE = re.compile(r"[a-z0-9-]{1,100}", re.ASCII)
_ACTION = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}", re.ASCII)
_NOT_SLUG = re.compile(r"[^a-z0-9]+", re.ASCII)
_STATUSES: tuple[DeliveryStatus, ...] = get_args(DeliveryStatus)


def shown(value: object) -> str:
    """`value` as an error may show it: its repr on one short line, or only its type where that could say too much."""
    if isinstance(value, str):
        text = str.__str__(value)
        return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text):,} characters)"
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int:
        return repr(value) if value.bit_length() <= 3 * _SHOWN else f"an integer of {value.bit_length():,} bits"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    return f"a value of type {type(value).__name__}"


def check_id(field: str, value: int | str | None) -> str | None:
    """An id of a company, project, user or resource as text; None stays None.

    Integers, and printable text of 1 to 200 characters without spaces around it, will do.
    """
    if value is None:
        return None
    if type(value) is int and value.bit_length() <= 64:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        number = int.__index__(value)
        # 600 bits are 181 digits at the most.
        if number.bit_length() <= 600:
            return str(number)
    return _text(field, value, _MAX_TEXT, "an integer, or printable text", "a number or text such as 42 or 'A-42'")


def check_namespace(value: str) -> str:
    """A namespace: 1 to 100 of a-z, 0-9 and -."""
    if isinstance(value, str) and _NAMESPACE.fullmatch(value):
        return str.__str__(value)
    fix = "such as 'acme-invoice-sync'"
    if isinstance(value, str):
        slug = _NOT_SLUG.sub("-", value.lower()).strip("-")
        if _NAMESPACE.fullmatch(slug) and len(slug) <= _SHOWN:
            fix = f"such as {slug!r}"
    _refuse("namespace", value, f"is not 1 to 100 of a-z, 0-9 and '-': use one {fix}")


def check_resource(value: str, *, wildcard: bool = False) -> str:
    """The name of a resource: 1 to 200 printable characters, no spaces around it; ``"*"`` only as a wildcard."""
    if value == _ANY and not wildcard:
        _refuse("resource", value, "stands for every resource, and only in a trigger: name one, such as 'RFIs'")
    return _text("resource", value, _MAX_TEXT, "printable text", "a name such as 'RFIs'")


def check_action(value: str, *, wildcard: bool = False) -> str:
    """An action: a lower-case letter or digit, then those and ``_ . : -``, at most 64; ``"*"`` only as a wildcard."""
    if isinstance(value, str):
        if _ACTION.fullmatch(value) or (wildcard and value == _ANY):
            return str.__str__(value)
        if value == _ANY:
            _refuse("action", value, "stands for every action, and only in a trigger: name one, such as 'update'")
        if _ACTION.fullmatch(value.lower()):
            _refuse("action", value, f"is not in lower case: use {value.lower()!r}")
    _refuse("action", value, "is not 1 to 64 of a-z, 0-9 and '_.:-', a letter or digit first: use one such as 'update'")


def check_moment(field: str, value: datetime) -> datetime:
    """An aware datetime, in UTC."""
    if not isinstance(value, datetime):
        _refuse(field, value, "is not a datetime: use an aware one, such as datetime.now(UTC)")
    if value.utcoffset() is None:
        _refuse(field, value, "is naive: add its time zone, with value.replace(tzinfo=UTC) if it is in UTC")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        _refuse(field, value, "lies outside the years 1 to 9999 in UTC: use a moment inside")


def check_bucket(value: timedelta, since: datetime, now: datetime) -> int:
    """How many spans of this length it takes from `since` on until one holds `now`: 1 to 5,000.

    One will do where `since` is after `now`.
    """
    if not isinstance(value, timedelta) or value <= timedelta(0):
        _refuse("bucket", value, "is not a timedelta above zero: use one such as timedelta(minutes=15)")
    number = max(0, (now - since) // value) + 1
    if number > _MAX_BUCKETS:
        fix = f"use a longer one, or a later since: at most {_MAX_BUCKETS:,} will do"
        raise InvalidInput("bucket", f"{value} makes {number:,} of the time since {since.isoformat()}: {fix}")
    return number


def check_page_size(value: int) -> int:
    """How many to a page: 1 to 1000."""
    return _one_to_1000("page_size", value)


def check_max_in_flight(value: int) -> int:
    """How many deliveries of a hook may be under way at once: 1 to 1000."""
    return _one_to_1000("max_in_flight", value)


def check_choice(field: str, value: object, choices: Collection[Choice]) -> Choice:
    """One of `choices`."""
    for choice in choices:
        if isinstance(value, str) and value == choice:
            return choice
    _refuse(field, value, f"is not known: use one of {', '.join(map(repr, choices))}")


def check_statuses(value: str | Iterable[str] | None) -> frozenset[DeliveryStatus]:
    """One status, or several, as a set; None and an empty collection give the empty one, which means any."""
    if value is None:
        return frozenset()
    if isinstance(value, str) or not isinstance(value, Iterable):
        value = (value,)
    return frozenset(check_choice("status", one, _STATUSES) for one in value)


def check_idempotency_key(value: str | None) -> str | None:
    """A key of 1 to 255 printable characters; None stays None."""
    if value is None:
        return None
    return _text("idempotency_key", value, _MAX_KEY, "printable text", "one such as 'invoice-42-paid'")


def check_metadata(field: str, value: Mapping[str, Any] | None) -> FrozenDict[str, Any]:
    """A mapping of JSON values, at most 16 KiB of JSON, as it will read back; None is the empty one.

    Raises `InvalidPayload` for what is not strict JSON.
    """
    if value is None:
        return FrozenDict()
    if not isinstance(value, Mapping):
        _refuse(field, value, "is not a mapping: use a dict of names to JSON values")
    frozen: FrozenDict[str, Any] = freeze(json.loads(serialise(value, field=field, max_bytes=_MAX_EXTRAS)))
    return frozen


def check_related_resources(value: Iterable[Mapping[str, Any]] | None) -> tuple[FrozenDict[str, Any], ...]:
    """Mappings with an `id`, kept as text, and a `name`; at most 16 KiB of JSON together. None is the empty tuple.

    Further keys are kept. Raises `InvalidPayload` for what is not strict JSON.
    """
    field = "related_resources"
    if value is None:
        return ()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        _refuse(field, value, "is not a list: use one of mappings with 'id' and 'name'")
    given = [_related(f"{field}[{index}]", one) for index, one in enumerate(value)]
    frozen: tuple[FrozenDict[str, Any], ...] = freeze(json.loads(serialise(given, field=field, max_bytes=_MAX_EXTRAS)))
    return frozen


def _related(field: str, one: object) -> dict[Any, Any]:
    if not isinstance(one, Mapping):
        _refuse(field, one, "is not a mapping: use {'id': 42, 'name': 'RFIs'}")
    for name in ("id", "name"):
        if one.get(name) is None:
            raise InvalidInput(field, f"it has no {name!r}: use {{'id': 42, 'name': 'RFIs'}}")
    name = _text(f"{field}.name", one["name"], _MAX_TEXT, "printable text", "a name such as 'RFIs'")
    return {**one, "id": check_id(f"{field}.id", one["id"]), "name": name}


def check_row_id(kind: str, value: int) -> int:
    """The id of a hook, trigger or delivery. Raises `NotFound` for a number that no id can have."""
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(f"{kind}_id", value, f"is not the id of a {kind}: use the number in its `id`")
    if not 0 < value < 2**62:
        raise NotFound(kind, value)
    return value


def check_switch(field: str, value: bool) -> bool:
    """True or False, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        _refuse(field, value, "is neither True nor False: use one of them")
    return value


def _one_to_1000(field: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000:
        return int.__index__(value)
    _refuse(field, value, "is not a whole number from 1 to 1000: use one")


def _text(field: str, value: object, longest: int, what: str, fix: str) -> str:
    if isinstance(value, str):
        text = str.__str__(value)
        if 0 < len(text) <= longest and text.isprintable() and text == text.strip():
            return text
    _refuse(field, value, f"is not {what} of 1 to {longest} characters without spaces around it: use {fix}")


def _refuse(field: str, value: object, problem: str) -> NoReturn:
    raise InvalidInput(field, f"{shown(value)} {problem}")
