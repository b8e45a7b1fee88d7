"""Putting new deliveries into the index of their hooks: after their emit, and many at a time.

An event for ten hooks makes ten rows that lie side by side, but their entries in the index by hook lie in ten places,
and each is one more page for its commit to write: most of what such an emit costs. So an emit leaves them out, and
whoever reads by that index in a write transaction, a turn above all, puts them in first. So does an emit that fills up
256 ids, which keeps those that are left out few.

A row that is left out has `unindexed` set, and its id lies above `indexed_through`. What reads by hook without writing
has to look at these rows too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, TypeVarTuple

__all__ = ["INDEX", "INDEXED_THROUGH", "UNINDEXED", "fills_up", "index_deliveries", "with_index"]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_AT_ONCE_BITS: Final = 8  # 256 rows fill some three pages

# What finds them, of whatever hooks, among deliveries `d`.
UNINDEXED: Final = "d.id > (SELECT indexed_through FROM procore_hooks_turns) AND d.unindexed IS NOT NULL"
INDEX: Final = f"UPDATE procore_hooks_deliveries AS d SET unindexed = NULL WHERE {UNINDEXED}"
# What it is after that.
INDEXED_THROUGH: Final = "coalesce((SELECT max(id) FROM procore_hooks_deliveries), 0)"
_REMEMBER: Final = f"""
UPDATE procore_hooks_turns SET indexed_through = {INDEXED_THROUGH} WHERE indexed_through <> {INDEXED_THROUGH}
"""


def index_deliveries(cursor: sqlite3.Cursor) -> None:
    """Put all that are left out into the index."""
    cursor.execute(INDEX)
    cursor.execute(_REMEMBER)


def with_index(cursor: sqlite3.Cursor, work: Callable[[sqlite3.Cursor, *Arguments], T], *arguments: *Arguments) -> T:
    """What `work(cursor, *arguments)` returns, which finds all deliveries in the index."""
    index_deliveries(cursor)
    return work(cursor, *arguments)


def fills_up(ids: Sequence[int]) -> bool:
    """Whether an emit that took these ids, which follow one another, is to index them and what was left out before."""
    return (ids[0] - 1) >> _AT_ONCE_BITS != ids[-1] >> _AT_ONCE_BITS
