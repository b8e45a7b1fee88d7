"""Cursors of pages: the list and the last id shown, as opaque text.

A checksum catches a cursor that was cut, mistyped or made up. It guards against mistakes, not against attacks: a
cursor opens nothing that the list itself would not show.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Final, Literal, NoReturn, TypeVar

from ..exceptions import InvalidCursor
from .models import Delivery, Hook, Page, Trigger

__all__ = ["ListKind", "after_cursor", "decode_cursor", "encode_cursor", "page_of"]

ListKind = Literal["hooks", "triggers", "deliveries"]
Listed = TypeVar("Listed", Hook, Trigger, Delivery)

_KINDS: Final[dict[ListKind, bytes]] = {"hooks": b"h", "triggers": b"t", "deliveries": b"d"}
_LISTS: Final = {tag: kind for kind, tag in _KINDS.items()}
_CHECKSUM = 4
# A tag, eight bytes of an id at the most, and the checksum, in base 64.
_LONGEST = 18
_FIX = "pass the next_cursor of the page before, unchanged, or leave it out for the first page"


def encode_cursor(kind: ListKind, id: int) -> str:
    """The cursor after `id` (0 to 2**63 - 1) in the list `kind`: url-safe text without padding."""
    content = _KINDS[kind] + id.to_bytes((id.bit_length() + 7) // 8, "big")
    return _encode(content)


def decode_cursor(kind: ListKind, cursor: str) -> int:
    """The id in `cursor`. Raises `InvalidCursor` for anything that `encode_cursor` did not make for this list."""
    if not isinstance(cursor, str):
        _refuse(f"a value of type {type(cursor).__name__} is not a cursor")
    if len(cursor) > _LONGEST or not cursor.isascii():
        _refuse("this is not a cursor")
    try:
        content = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[:-_CHECKSUM]
    except binascii.Error:
        _refuse("this is not a cursor")
    found = _LISTS.get(content[:1])
    id = int.from_bytes(content[1:], "big")
    # Encoding it again also refuses every other way to write the same bytes.
    if found is None or id >= 2**63 or encode_cursor(found, id) != cursor:
        _refuse("this is not a cursor, or not a whole one")
    if found != kind:
        _refuse(f"this cursor is of a list of {found}, not of {kind}")
    return id


def after_cursor(kind: ListKind, cursor: str | None) -> int | None:
    """The id after which a page starts; None for the first page. Raises `InvalidCursor`."""
    return None if cursor is None else decode_cursor(kind, cursor)


def page_of(kind: ListKind, items: Sequence[Listed], size: int) -> Page[Listed]:
    """The page of the first `size` of `items`, which hold one more if another page follows: nothing is counted."""
    shown = tuple(items[:size])
    return Page(shown, encode_cursor(kind, shown[-1].id) if len(items) > size else None)


def _encode(content: bytes) -> str:
    checked = content + zlib.crc32(content).to_bytes(_CHECKSUM, "big")
    return base64.urlsafe_b64encode(checked).rstrip(b"=").decode("ascii")


def _refuse(problem: str) -> NoReturn:
    raise InvalidCursor("cursor", f"{problem}: {_FIX}")
