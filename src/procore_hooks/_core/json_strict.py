"""Strict JSON: what is serialised reads back the same everywhere, or is refused.

`json.dumps` writes ``NaN``, turns the key ``1`` into ``"1"`` beside a ``"1"`` that is there already, and passes
lone surrogates, which no receiver can decode. Here each of these is an error that names its place, as in
``payload.lines[2].amount``, and never shows the value: a payload may hold anything.

`serialise` takes one of two ways. `_encoder_for` walks over the value, level by level, and sees whether it consists
of nothing but dicts, lists, tuples and scalars of exactly these types; an encoder in C does the rest. When anything
else turns up, `_Converter` walks once more, slower, turns each value into a plain one, and finds the place and the
words for what is wrong. Both count at least the bytes that a value will need, so that a small value that holds the
same big one a thousand times, or itself twice, ends early instead of filling the memory.

The encoder is that of `json`, or orjson's where that is installed (the extra ``speed``) and the value holds nothing
that the two write in different ways: no float (``1e+16`` and ``1e16``), no integer beyond 64 bits, and of everything
but text, integers, booleans, None, dicts, lists and tuples nothing either. An event's bytes are signed and hashed, so
they must not depend on what is installed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cache
from json.encoder import encode_basestring
from typing import Any, NoReturn
from uuid import UUID

import attrs

from ..exceptions import InvalidInput, InvalidPayload
from .frozen import FrozenDict
from .secret import Secret

__all__ = ["DEFAULT_MAX_BYTES", "MAX_BYTES", "MAX_DEPTH", "quoted", "serialise", "timestamp"]

DEFAULT_MAX_BYTES = 262_144
MAX_BYTES = 20 * 1024 * 1024
MAX_DEPTH = 100

# How much of a key is shown in a path.
_SHOWN_KEY = 40
_LARGE = 2**64
# Of the integers below that, those of 64 bits begin here.
_SMALLEST = -(2**63)
# What `_as_text` makes text of, and the encoder through it.
_AS_TEXT = frozenset({datetime, date, time, UUID, Decimal})

# A text as JSON: what the encoder uses for texts. It may still hold lone surrogates, which no encoder of UTF-8 takes.
quoted: Callable[[str], str] = encode_basestring

# A place within the value: its parent's place and the key or index there. Only an error makes text of it.
_Place = tuple["_Place | None", "str | int"]


def serialise(value: object, *, field: str = "payload", max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """`value` as strict JSON: UTF-8, compact, without needless escapes; at most `max_bytes`, 100 levels deep.

    Aware datetimes become UTC text, UUID, Decimal, date and aware time text, an Enum its value, attrs and dataclass
    instances mappings of their fields. Raises `InvalidPayload` for anything that is not JSON, with its place under
    `field`, and `InvalidInput` for a `max_bytes` that is not 1 to 20 MiB.
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or not 1 <= max_bytes <= MAX_BYTES:
        raise InvalidInput("max_bytes", f"{max_bytes!r} is not a number of bytes from 1 to {MAX_BYTES:,} (20 MiB)")
    encode = _encoder_for(value, max_bytes)
    try:
        body = None if encode is None else encode(value)
    # NaN, a naive datetime, an integer of too many digits; and a lone surrogate, which orjson tells by a TypeError
    except (ValueError, TypeError):
        body = None
    if body is None:
        body = _encode_plain(_Converter(field, max_bytes).convert(value, None, 0))
    if len(body) > max_bytes:
        raise InvalidPayload(field, f"it is {len(body):,} bytes of JSON, {_too_large(max_bytes)}")
    return body


def timestamp(moment: datetime) -> str:
    """`moment` in UTC as Procore writes it: ``2025-02-06T23:34:12.246562Z``. Raises `InvalidInput` if it is naive."""
    if moment.tzinfo is not UTC:
        if moment.utcoffset() is None:
            raise InvalidInput("moment", "a naive datetime says no time zone: use datetime.now(UTC) or an aware one")
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:
            raise InvalidInput("moment", "in UTC it lies outside the years 1 to 9999: use a moment inside") from None
    return datetime.isoformat(moment, timespec="microseconds")[:-6] + "Z"


def _too_large(max_bytes: int) -> str:
    return f"over the limit of {max_bytes:,}: send less, or a reference by which the rest can be fetched"


def _encoder_for(value: object, max_bytes: int) -> Callable[[object], bytes] | None:
    """What can encode all of `value`; None if nothing can, or it is too deep or surely larger than `max_bytes`."""
    size, is_same_by_either = 0, True
    level: list[Any] = [(value,)]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for container in level:
            size += len(container)
            if size > max_bytes + 1:
                return None
            items = container
            if type(container) is dict or type(container) is FrozenDict:
                for key in container:
                    if type(key) is not str:
                        return None
                    size += len(key)
                items = container.values()
            for item in items:
                kind = type(item)
                if kind is str:
                    size += len(item)
                elif kind is int:
                    if not _SMALLEST <= item < _LARGE:
                        if item >= _LARGE or item <= -_LARGE:
                            return None
                        is_same_by_either = False
                elif kind is dict or kind is list or kind is tuple:
                    below.append(item)
                elif item is None or item is True or item is False:
                    pass
                elif kind is float or kind in _AS_TEXT:
                    is_same_by_either = False
                elif kind is FrozenDict:
                    below.append(item)
                    is_same_by_either = False
                else:
                    return None
        if not below:
            if size > max_bytes + 1:
                return None
            return _faster_encode() if is_same_by_either else _encode_plain
        level = below
    return None


@cache
def _faster_encode() -> Callable[[object], bytes]:
    """orjson's encoder, which comes with the extra ``speed``; where it is not installed, that of `json`."""
    try:
        from orjson import dumps
    except ImportError:
        return _encode_plain
    encode: Callable[[object], bytes] = dumps
    return encode


def _as_text(value: object) -> str | None:
    """The text that stands for a value of the standard library; None if it is not of a kind that has one.

    Raises `InvalidInput`, without a place, for one that has no right text.
    """
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, date):
        return date.isoformat(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        if not Decimal.is_finite(value):
            raise InvalidInput("", f"JSON has no {Decimal.__str__(value)[:20]}: send None, or text")
        return Decimal.__str__(value)
    if isinstance(value, time):
        if time.utcoffset(value) is None:
            raise InvalidInput("", "the time says no UTC offset: send an aware datetime, or value.isoformat()")
        return time.isoformat(value).replace("+00:00", "Z")
    return None


def _plain_encoder() -> Callable[[object], str]:
    # The depth is bounded before, so the encoder need not look for cycles.
    encoder = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=_as_text
    )
    # What it calls in the end, in C, it makes anew for each value; made once it saves an emit 3 %. Its name is not
    # public: where it is missing, or wants to be called otherwise, the encoder does it all.
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    join = "".join
    try:
        in_c = make(None, encoder.default, encode_basestring, None, ":", ",", False, False, False)
        join(in_c({"a": [1, None]}, 0))
    except TypeError:
        return encoder.encode
    return lambda value: join(in_c(value, 0))


_encode = _plain_encoder()


def _encode_plain(value: object) -> bytes:
    return _encode(value).encode()


class _Converter:
    """Turns a value into plain JSON types, or raises with the place and the words for what is wrong."""

    __slots__ = ("_field", "_max_bytes", "_size")

    def __init__(self, field: str, max_bytes: int) -> None:
        self._field = field
        self._max_bytes = max_bytes
        self._size = 0

    def convert(self, value: object, place: _Place | None, depth: int) -> Any:
        """`value` in plain types; `depth` containers surround it."""
        if value is None or value is True or value is False:
            return value
        if isinstance(value, Enum):
            return self.convert(value.value, place, depth)
        if isinstance(value, str):
            # The methods of the builtin itself: a subclass may have overridden its own.
            return self._text(str.__str__(value), place)
        if isinstance(value, int):
            return self._integer(int.__index__(value), place)
        if isinstance(value, float):
            return self._number(float.__float__(value), place)
        if isinstance(value, list | tuple):
            self._enter(len(value), place, depth)
            return [self.convert(item, (place, index), depth + 1) for index, item in enumerate(value)]
        if isinstance(value, Mapping):
            return self._mapping(value.items(), len(value), place, depth)
        try:
            text = _as_text(value)
        except InvalidInput as error:
            self._refuse(place, error.problem)
        if text is not None:
            return text
        names = _field_names(value)
        if names is None:
            self._refuse(place, _why_not(value))
        return self._mapping(((name, getattr(value, name)) for name in names), len(names), place, depth)

    def _mapping(self, items: Iterable[tuple[Any, Any]], length: int, place: _Place | None, depth: int) -> Any:
        self._enter(length, place, depth)
        plain: dict[str, Any] = {}
        for key, item in items:
            name = self._key(key, place)
            if name in plain:
                self._refuse((place, name), "two keys become this same text: rename one")
            plain[name] = self.convert(item, (place, name), depth + 1)
        return plain

    def _key(self, key: object, place: _Place | None) -> str:
        if isinstance(key, Enum):
            key = key.value
        if isinstance(key, str):
            return self._text(str.__str__(key), place)
        shown = f"{key!r} " if key is None or type(key) in (bool, float) else ""
        self._refuse(place, f"a key {shown}is of type {type(key).__name__}, not str: use str(key)")

    def _text(self, text: str, place: _Place | None) -> str:
        self._grow(len(text), place)
        try:
            text.encode()
        except UnicodeEncodeError:
            self._refuse(place, "the text holds a lone surrogate, which UTF-8 cannot carry: decode its source properly")
        return text

    def _integer(self, number: int, place: _Place | None) -> int:
        self._grow(number.bit_length() >> 2, place)
        try:
            int.__repr__(number)
        except ValueError:
            self._refuse(place, "the integer has too many digits for Python to write: send it as text")
        return number

    def _number(self, number: float, place: _Place | None) -> float:
        if number - number != 0:
            self._refuse(place, f"JSON has no {number!r}: send None, or text")
        return number

    def _enter(self, length: int, place: _Place | None, depth: int) -> None:
        if depth >= MAX_DEPTH:
            self._refuse(place, f"nested more than {MAX_DEPTH} levels deep, or within itself: send a flatter value")
        self._grow(length, place)

    def _grow(self, size: int, place: _Place | None) -> None:
        self._size += size
        # One more than the limit, for the bytes are a lower bound and the encoder has the last word.
        if self._size > self._max_bytes + 1:
            raise InvalidPayload(self._field, f"it is more JSON than may be, {_too_large(self._max_bytes)}")

    def _refuse(self, place: _Place | None, problem: str) -> NoReturn:
        raise InvalidPayload(self._field + _path(place), problem)


def _field_names(value: object) -> tuple[str, ...] | None:
    """The names of the fields of an attrs or dataclass instance; None for anything else."""
    kind = type(value)
    if attrs.has(kind):
        return tuple(field.name for field in attrs.fields(kind))
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return None


def _why_not(value: object) -> str:
    if isinstance(value, Secret):
        return "a Secret does not travel in a body: leave it out"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{type(value).__name__} is not JSON: decode it, or send base64 text"
    if isinstance(value, set | frozenset):
        return f"a {type(value).__name__} has no order: send sorted(value)"
    return f"{type(value).__name__} has no form in JSON: convert it to text, numbers, lists and dicts"


def _path(place: _Place | None) -> str:
    steps: list[str] = []
    while place is not None:
        place, step = place
        if isinstance(step, str) and step.isidentifier() and len(step) <= _SHOWN_KEY:
            steps.append(f".{step}")
        elif isinstance(step, str) and len(step) > _SHOWN_KEY:
            steps.append(f"[{step[:_SHOWN_KEY]!r}...]")
        else:
            steps.append(f"[{step!r}]")
    return "".join(reversed(steps))
