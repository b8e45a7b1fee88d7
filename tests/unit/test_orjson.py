"""With the extra ``speed``, orjson writes what it writes byte for byte as `json` does, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from procore_hooks._core import json_strict
from procore_hooks._core.frozen import FrozenDict
from procore_hooks._core.json_strict import MAX_DEPTH, serialise
from procore_hooks.exceptions import InvalidPayload

orjson = pytest.importorskip("orjson")


class Word(StrEnum):
    YES = "yes"


class Level(IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Items(list[Any]):
    pass


class Row(dict[str, Any]):
    pass


# Whatever is likely to be escaped, to be several bytes, or to be half of something.
TEXT = st.text(
    st.characters()
    | st.sampled_from('\x00\x1f "\\/\x7f\x80\x9f\xa0\u2028\u2029\ufeff\ufffe\uffff\ud800\udfff\U00010000\U0010ffff')
)
INTEGERS = st.integers() | st.sampled_from(
    [sign * 2**power + step for sign in (1, -1) for power in (31, 32, 53, 63, 64) for step in (-1, 0, 1)]
)
PLAIN = st.none() | st.booleans() | INTEGERS | TEXT
OTHER = (
    st.floats()
    | st.sampled_from([1e16, 1e22, 5e-324, -0.0, Word.YES, Level.HIGH, Text("t"), Number(7), Number(2**70)])
    | st.sampled_from([UUID(int=1), Decimal("1.20"), date(2025, 2, 6), datetime(2025, 2, 6), b"bytes", object()])
    | st.datetimes(timezones=st.just(UTC))
)
KEYS = TEXT | st.sampled_from(["1", "a", Word.YES, Text("a"), Text("1")]) | st.sampled_from([1, None, True, 1.5])


def values(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of these leaves and keys in every kind of container."""

    def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        items, pairs = st.lists(inner), st.dictionaries(keys, inner)
        return items | pairs | items.map(tuple) | items.map(Items) | pairs.map(Row) | pairs.map(FrozenDict)

    return st.recursive(leaves, around, max_leaves=25)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What orjson was given, as `serialise` goes on."""
    given: list[object] = []

    def dumps(value: object) -> bytes:
        given.append(value)
        written: bytes = orjson.dumps(value)
        return written

    monkeypatch.setattr(json_strict, "_faster_encode", lambda: dumps)
    return given


def outcome(value: object, max_bytes: int, faster: Callable[[], Callable[[object], bytes]]) -> object:
    """The bytes, or the words of the error, with this encoder as the faster one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_strict, "_faster_encode", faster)
        try:
            return serialise(value, max_bytes=max_bytes)
        except InvalidPayload as error:
            return error.field, error.problem


@given(values(PLAIN, TEXT) | values(PLAIN | OTHER, KEYS), st.sampled_from([1, 20, 100, 100_000]))
@example({"a": [1e16, 1]}, 100)
@example({"a": "\ud83d\ude00"}, 100)
@example({"a\udc80": 1}, 100)
@example(nested(MAX_DEPTH), 1000)
@example(nested(MAX_DEPTH + 1), 1000)
@example("x" * 98, 100)
@example("é" * 50, 100)
@example([2**64 - 1, 2**64, -(2**63), -(2**63) - 1], 100)
def test_the_outcome_is_the_same_without(value: object, max_bytes: int) -> None:
    """Identical bytes, and identical places and words of errors, whatever the value and the limit."""
    with_it = outcome(value, max_bytes, lambda: orjson.dumps)
    assert with_it == outcome(value, max_bytes, lambda: json_strict._encode_plain)
    assert type(with_it) in (bytes, tuple)


def test_every_character_is_written_the_same() -> None:
    """All of Unicode, as a value and as a key, the first 4,096 also one by one: escapes are those of `json`."""
    every = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    for value in ({"".join(every): "".join(every)}, every[:4096], dict.fromkeys(every[:4096], 1)):
        assert serialise(value, max_bytes=json_strict.MAX_BYTES) == json_strict._encode_plain(value)


@pytest.mark.parametrize(
    "value",
    [
        {"subject": "Türe 12", "lines": [{"id": 1, "open": True, "note": None}, ("a", -5)]},
        2**64 - 1,
        -(2**63),
        "\x00\U0010ffff",
    ],
    ids=["payload", "largest", "smallest", "text"],
)
def test_plain_values_go_by_orjson(encoded: list[object], value: object) -> None:
    """Text, integers of 64 bits, booleans, None, dicts, lists and tuples are what it is there for."""
    serialise(value)
    assert encoded == [value]


@pytest.mark.parametrize(
    "value",
    [
        *(1.5, 1e16, -0.0, 2**64, -(2**63) - 1, Word.YES, Level.HIGH, Text("t"), Number(7), Items([1]), Row(a=1)),
        *(FrozenDict({"a": 1}), UUID(int=1), Decimal(1), date(2025, 2, 6), datetime(2025, 2, 6, tzinfo=UTC)),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:8]}",
)
def test_all_else_goes_by_json(encoded: list[object], value: object) -> None:
    """A value of any other kind, alone or deep inside, keeps the whole payload away from orjson."""
    for whole in (value, [1, {"a": (value, "b")}], {"a": 1, "b": {"c": value}}):
        serialise(whole)
    with pytest.raises(InvalidPayload):
        serialise({1: "a"})
    assert encoded == []


def test_it_is_used_where_it_is_installed_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serialise` takes orjson's encoder if it can be imported, and else that of `json`, and writes the same."""
    value = {"subject": "Türe 12", "lines": [1, None]}
    json_strict._faster_encode.cache_clear()
    try:
        assert json_strict._faster_encode() is orjson.dumps
        written = serialise(value)
        json_strict._faster_encode.cache_clear()
        monkeypatch.setitem(sys.modules, "orjson", None)  # as if it were not there
        assert json_strict._faster_encode() is json_strict._encode_plain
        assert serialise(value) == written
    finally:
        json_strict._faster_encode.cache_clear()
