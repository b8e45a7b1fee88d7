"""Strict JSON: what goes through, what is refused, and in which words."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks._core import json_strict
from procore_hooks._core.frozen import FrozenDict
from procore_hooks._core.json_strict import MAX_BYTES, serialise, timestamp
from procore_hooks._core.secret import Secret
from procore_hooks.exceptions import InvalidInput, InvalidPayload


class Loud(str):
    """A str subclass that lies wherever it can."""

    __slots__ = ()

    def __str__(self) -> str:
        return "lie"

    def __repr__(self) -> str:
        return "lie"

    def encode(self, *args: Any) -> bytes:
        return b"lie"


class LoudInt(int):
    def __repr__(self) -> str:
        return "lie"

    __str__ = __repr__

    def __index__(self) -> int:
        return 666

    __int__ = __index__


class LoudFloat(float):
    def __repr__(self) -> str:
        return "lie"

    __str__ = __repr__

    def __float__(self) -> float:
        return 6.66


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "yes"


class Flags(IntFlag):
    A = 1
    B = 2


class Renamed(str, Enum):
    """Its text and its value differ."""

    ONE = "one"

    def __new__(cls, text: str) -> Renamed:
        member = str.__new__(cls, "text of " + text)
        member._value_ = text
        return member


@attrs.frozen
class Line:
    amount: Decimal
    at: datetime


@dataclass
class Plain:
    name: str
    tags: tuple[str, ...]


Point = namedtuple("Point", "x y")

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


def refusal(value: object, **options: Any) -> InvalidPayload:
    with pytest.raises(InvalidPayload) as caught:
        serialise(value, **options)
    assert "\n" not in str(caught.value)
    return caught.value


@given(JSON_VALUES)
def test_plain_values_read_back_the_same(value: object) -> None:
    """Every JSON value is written so that it reads back equal, compactly, as json.dumps itself would."""
    written = serialise(value)
    assert json.loads(written) == value
    assert written == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@given(JSON_VALUES)
def test_both_ways_write_the_same_bytes(value: object) -> None:
    """The converting walk, forced by an ordered mapping around the value, writes what the quick one writes."""
    assert serialise(OrderedDict(v=value)) == serialise({"v": value})


def test_text_is_utf8_without_needless_escapes() -> None:
    """Only quotes, backslashes and control characters are escaped."""
    assert serialise({"é": '😀 "\\\n\x7f/'}) == '{"é":"😀 \\"\\\\\\n\x7f/"}'.encode()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (datetime(2025, 2, 6, 23, 34, 12, 246562, tzinfo=UTC), b'"2025-02-06T23:34:12.246562Z"'),
        (datetime(2025, 2, 7, 1, 34, 12, tzinfo=timezone(timedelta(hours=2))), b'"2025-02-06T23:34:12.000000Z"'),
        (date(2025, 2, 6), b'"2025-02-06"'),
        (time(12, 30, tzinfo=UTC), b'"12:30:00Z"'),
        (time(12, 30, tzinfo=timezone(timedelta(hours=-5))), b'"12:30:00-05:00"'),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.20"), b'"1.20"'),
        (Colour.RED, b'"red"'),
        (Level.HIGH, b"3"),
        (Word.YES, b'"yes"'),
        (Flags.A | Flags.B, b"3"),
        (Renamed.ONE, b'"one"'),
        (Loud("true"), b'"true"'),
        (LoudInt(5), b"5"),
        (LoudFloat(0.5), b"0.5"),
        (Point(1, 2), b"[1,2]"),
        (MappingProxyType({"a": 1}), b'{"a":1}'),
        (FrozenDict({"a": (1, 2)}), b'{"a":[1,2]}'),
        ({Loud("a"): 1, Word.YES: 2, Renamed.ONE: 3}, b'{"a":1,"yes":2,"one":3}'),
        (
            Line(Decimal(3), datetime(2025, 1, 1, tzinfo=UTC)),
            b'{"amount":"3","at":"2025-01-01T00:00:00.000000Z"}',
        ),
        (Plain("n", ("a",)), b'{"name":"n","tags":["a"]}'),
        (2**64, b"18446744073709551616"),
        (-(10**30), b"-1" + b"0" * 30),
        (None, b"null"),
        ("", b'""'),
        ({}, b"{}"),
        ([], b"[]"),
    ],
)
def test_each_kind_has_its_form(value: object, written: bytes) -> None:
    """Values of known kinds and of subclasses are written by what they hold, alone and inside a payload."""
    assert serialise(value) == written
    assert serialise({"v": [value]}) == b'{"v":[' + written + b"]}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "JSON has no nan"),
        (float("-inf"), "JSON has no -inf"),
        (LoudFloat("nan"), "JSON has no nan"),
        (Decimal("NaN"), "JSON has no NaN"),
        (Decimal("Infinity"), "JSON has no Infinity"),
        (datetime(2025, 1, 1), "naive"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-2))), "years 1 to 9999"),
        (time(12), "UTC offset"),
        ("\ud83d\ude00", "lone surrogate"),
        (b"bytes", "base64"),
        (bytearray(b"bytes"), "base64"),
        ({1, 2}, "sorted(value)"),
        (frozenset(), "sorted(value)"),
        (Secret("hunter2-hunter2"), "Secret"),
        (object(), "object has no form in JSON"),
        (int, "type has no form in JSON"),
        (Plain, "type has no form in JSON"),
        (1j, "complex"),
        (10**5000, "too many digits"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_is_not_json_is_refused_with_its_place(value: object, words: str) -> None:
    """The error names the place under the field, what is wrong and the fix, in one line."""
    error = refusal({"lines": [0, 1, {"amount": value}]})
    assert error.field == "payload.lines[2].amount"
    assert words in error.problem
    assert ": " in error.problem
    assert refusal(value, field="metadata").field == "metadata"


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"a", (1, 2), date(2025, 1, 1), Level.HIGH, Secret("s" * 20)])
def test_keys_are_text(key: object) -> None:
    """json.dumps would merge the keys 1 and "1": no key but text goes through."""
    error = refusal({"a": {key: 1, "1": 2}})
    assert error.field == "payload.a"
    assert "not str" in error.problem


def test_keys_that_become_the_same_are_refused() -> None:
    """Two different keys with one text do not silently become one."""

    class Own(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return self is other

    assert "same text" in refusal({Own("a"): 1, Own("a"): 2}).problem


def test_a_surrogate_in_a_key_is_refused() -> None:
    """Keys are text like any other."""
    assert "lone surrogate" in refusal({"a\udc80": 1}).problem


def test_errors_do_not_show_values() -> None:
    """A payload may hold anything: no error quotes a text, a Secret or an object's repr."""

    class Telling:
        def __repr__(self) -> str:
            return "hunter2"

    for value in ("hunter2\udc80", Secret("hunter2-hunter2"), Telling(), b"hunter2", {"hunter2"}, {Telling(): 1}):
        assert "hunter2" not in str(refusal({"a": value}))


def test_places_with_odd_keys_stay_short_and_on_one_line() -> None:
    """Keys that are no identifiers are quoted, and long ones are cut."""
    assert refusal({"due date\n": 1j}).field == "payload['due date\\n']"
    assert refusal({"k" * 5000: 1j}).field == f"payload[{'k' * 40!r}...]"


def test_depth_ends_at_100() -> None:
    """A hundred containers within each other pass, one more does not, by either way."""

    def nested(depth: int, inner: object) -> object:
        for level in range(depth):
            inner = {"a": inner} if level % 2 else [inner]
        return inner

    assert serialise(nested(100, 1)).count(b"[") == 50
    assert serialise(nested(100, Level.HIGH)).count(b"[") == 50
    assert "100 levels" in refusal(nested(101, 1)).problem
    assert "100 levels" in refusal(nested(101, Level.HIGH)).problem
    assert "100 levels" in refusal(nested(100_000, 1)).problem


def test_cycles_end() -> None:
    """A value within itself is refused, even where it branches at each level."""
    one: list[Any] = []
    one += [one, one]
    two: dict[str, Any] = {"date": date(2025, 1, 1)}
    two["self"] = two["again"] = two
    for value in (one, two):
        assert "within itself" in refusal(value).problem


def test_size_is_bounded_exactly() -> None:
    """A body of max_bytes passes, one byte more does not; bytes count, not characters."""
    assert len(serialise("x" * 98, max_bytes=100)) == 100
    assert "101 bytes" in refusal("x" * 99, max_bytes=100).problem
    assert len(serialise("é" * 49, max_bytes=100)) == 100
    assert "102 bytes" in refusal("é" * 50, max_bytes=100).problem
    assert serialise([1, 2, 3], max_bytes=7) == b"[1,2,3]"
    assert serialise(1, max_bytes=1) == b"1"
    assert serialise(Level.HIGH, max_bytes=1) == b"3"
    assert len(serialise(["é"] * 52_000)) < 262_144 < len(serialise("x" * 262_143, max_bytes=MAX_BYTES))
    refusal("x" * 262_143)


@pytest.mark.parametrize("other", [None, Level.HIGH], ids=["quick", "converting"])
@pytest.mark.parametrize("inner", ["x" * 100_000, [1] * 100_000, {"k" * 100_000: 1}], ids=["text", "list", "key"])
def test_repeated_references_do_not_fill_the_memory(inner: object, other: object) -> None:
    """A small value that stands for a large body is refused before that body is built: its size stays unknown."""
    problem = refusal([other, *[inner] * 1_000]).problem
    assert problem.startswith("it is more JSON than may be")
    problem = refusal({"other": other, **{str(n): inner for n in range(1_000)}}).problem
    assert problem.startswith("it is more JSON than may be")


@pytest.mark.parametrize("max_bytes", [0, -1, MAX_BYTES + 1, True, 10.0, None])
def test_the_limit_itself_is_limited(max_bytes: Any) -> None:
    """No caller may ask for more than 20 MiB."""
    with pytest.raises(InvalidInput, match="max_bytes"):
        serialise({}, max_bytes=max_bytes)
    assert serialise({}, max_bytes=MAX_BYTES) == b"{}"


def test_timestamps_have_microseconds_and_z() -> None:
    """Procore's format, whatever the zone, also for the earliest years; a naive moment is an error."""
    assert timestamp(datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01T00:00:00.000000Z"
    assert (
        timestamp(datetime(2025, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5.5)))) == "2025-01-01T00:00:00.000000Z"
    )
    with pytest.raises(InvalidInput, match="naive"):
        timestamp(datetime(2025, 1, 1))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_the_bytes_are_those_of_the_standard_library(value: Any) -> None:
    """Also where the part of `json` in C, of which the encoder is made once, has another name or is not there."""

    def written(encode: Any) -> object:
        try:
            return encode(value).encode()
        except UnicodeEncodeError:
            return "refused"

    make = json.encoder.c_make_encoder  # type: ignore[attr-defined]
    expected = written(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    assert written(json_strict._encode) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("json.encoder.c_make_encoder", None)
        assert written(json_strict._plain_encoder()) == expected
        refusals = iter([TypeError("made in another way")])

        def refusing(*arguments: Any) -> Any:
            for refusal in refusals:
                raise refusal
            return make(*arguments)

        patch.setattr("json.encoder.c_make_encoder", refusing)
        assert written(json_strict._plain_encoder()) == expected
