"""Mappings that refuse every change and work as a dict otherwise."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks._core.frozen import FrozenDict, freeze

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def ior(mapping: Any) -> None:
    mapping |= {"b": 2}


def delete(mapping: Any) -> None:
    del mapping["a"]


def assign(mapping: Any) -> None:
    mapping["a"] = 2


@pytest.mark.parametrize(
    "change",
    [
        assign,
        delete,
        ior,
        lambda mapping: mapping.clear(),
        lambda mapping: mapping.pop("a"),
        lambda mapping: mapping.pop("none", None),
        lambda mapping: mapping.popitem(),
        lambda mapping: mapping.setdefault("a", 2),
        lambda mapping: mapping.setdefault("b", 2),
        lambda mapping: mapping.update({"b": 2}),
        lambda mapping: mapping.update(b=2),
    ],
    ids=range(11),
)
def test_every_change_is_refused(change: Callable[[Any], object]) -> None:
    """Also one that would change nothing; the error says what to do."""
    mapping = FrozenDict({"a": 1})
    with pytest.raises(TypeError, match=r"read-only: make a dict\(\)"):
        change(mapping)
    assert mapping == {"a": 1}
    with pytest.raises(AttributeError):
        mapping.other = 1  # type: ignore[attr-defined]


def test_no_method_of_dict_is_left_open() -> None:
    """Whatever dict can do to itself is overridden: a method that a new Python adds would be found here."""
    known = {"clear", "pop", "popitem", "setdefault", "update", "__setitem__", "__delitem__", "__ior__"}
    reads = {"copy", "fromkeys", "get", "items", "keys", "values"}
    assert {name for name in vars(dict) if not name.startswith("__")} == (known | reads) - {
        name for name in known if name.startswith("__")
    }
    assert known <= vars(FrozenDict).keys()


def test_it_is_a_dict() -> None:
    """`json.dumps`, `isinstance`, comparison, `dict()` and `|` work as ever; what `|` gives is a plain dict."""
    mapping = FrozenDict({"a": FrozenDict({"b": (1,)})})
    assert json.dumps(mapping) == '{"a": {"b": [1]}}'
    assert isinstance(mapping, dict)
    assert mapping == {"a": {"b": (1,)}}
    for changeable in (dict(mapping), mapping | {}, mapping.copy()):
        assert type(changeable) is dict
    assert not hasattr(mapping, "__dict__")


def test_copies_and_pickles() -> None:
    """A copy is itself; deep copies and pickles are equal and frozen as well."""
    mapping = FrozenDict({"a": FrozenDict({"b": (1,)})})
    assert copy.copy(mapping) is mapping
    others = [copy.deepcopy(mapping)]
    others += [pickle.loads(pickle.dumps(mapping, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in others:
        assert other == mapping
        assert isinstance(other, FrozenDict)
        assert isinstance(other["a"], FrozenDict)


def test_hash() -> None:
    """Equal mappings have one hash, whatever their order; with a list inside there is none."""
    assert hash(FrozenDict({"a": 1, "b": 2})) == hash(FrozenDict({"b": 2, "a": 1}))
    assert len({FrozenDict({"a": 1}), FrozenDict({"a": 1})}) == 1
    with pytest.raises(TypeError):
        hash(FrozenDict({"a": []}))


@given(JSON)
def test_freeze_reaches_every_depth(value: Any) -> None:
    """The same JSON, without a dict or list that could be changed."""
    frozen = freeze(value)
    assert json.dumps(frozen) == json.dumps(value)
    waiting = [frozen]
    while waiting:
        one = waiting.pop()
        assert type(one) not in (dict, list)
        if isinstance(one, FrozenDict):
            waiting += one.values()
        elif isinstance(one, tuple):
            waiting += one
