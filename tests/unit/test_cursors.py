"""Cursors: what was given out comes back, and nothing else does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks._core.cursors import ListKind, decode_cursor, encode_cursor
from procore_hooks.exceptions import InvalidCursor

KINDS: tuple[ListKind, ...] = ("hooks", "triggers", "deliveries")
IDS = st.integers(0, 2**63 - 1)


@given(st.sampled_from(KINDS), IDS)
def test_a_cursor_comes_back_as_its_id(kind: ListKind, id: int) -> None:
    """Every id of a list goes there and back, as short url-safe text without padding."""
    cursor = encode_cursor(kind, id)
    assert decode_cursor(kind, cursor) == id
    assert re.fullmatch(r"[A-Za-z0-9_-]{7,18}", cursor)


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), IDS)
def test_a_cursor_of_another_list_is_refused_by_name(kind: ListKind, other: ListKind, id: int) -> None:
    """The error says of which list it is."""
    if kind == other:
        return
    with pytest.raises(InvalidCursor, match=f"is of a list of {kind}, not of {other}"):
        decode_cursor(other, encode_cursor(kind, id))


@given(st.sampled_from(KINDS), IDS, st.data())
def test_a_changed_cursor_is_refused(kind: ListKind, id: int, data: st.DataObject) -> None:
    """One character changed, cut or added anywhere makes it invalid: no second spelling of a cursor exists."""
    cursor = encode_cursor(kind, id)
    at = data.draw(st.integers(0, len(cursor) - 1))
    character = data.draw(st.sampled_from("ABCxyz019_-=+/ \n"))
    for changed in (cursor[:at] + character + cursor[at + 1 :], cursor[:at] + cursor[at + 1 :], cursor + character):
        if changed != cursor:
            with pytest.raises(InvalidCursor):
                decode_cursor(kind, changed)


@given(
    st.text() | st.binary() | st.integers() | st.none() | st.lists(st.text()) | st.from_regex(r"[A-Za-z0-9_-]{1,18}")
)
def test_garbage_of_any_type_is_refused(garbage: Any) -> None:
    """Nothing but InvalidCursor comes out, in one line with the fix."""
    with pytest.raises(InvalidCursor) as caught:
        decode_cursor("hooks", garbage)
    assert caught.value.field == "cursor"
    assert "next_cursor" in caught.value.problem


def test_an_id_that_no_database_holds_is_refused() -> None:
    """Rightly checksummed, but over 63 bits."""
    with pytest.raises(InvalidCursor):
        decode_cursor("hooks", encode_cursor("hooks", 2**63))


def test_the_text_of_a_cursor_stays_the_same_between_releases() -> None:
    """A cursor kept by a client goes on working."""
    assert [encode_cursor(kind, 54321) for kind in KINDS] == ["aNQxDQ9Dqw", "dNQxGDMZvw", "ZNQxBBW6zw"]
