"""The quarters of an hour in which deliveries were made, each with an id that none of its deliveries is below.

So what was created since a moment is found without an index on it, which would take some 20 bytes and one more page for
every delivery. It holds whichever way a clock was set: a quarter keeps what its first transaction said.
"""

from __future__ import annotations

import sqlite3
from typing import Final

__all__ = ["QUARTER", "Quarters"]

QUARTER: Final = 900_000_000  # of an hour, in microseconds
_NOTE: Final = """
INSERT OR IGNORE INTO procore_hooks_times SELECT ?, coalesce(max(id), 0) + 1 FROM procore_hooks_deliveries
"""


class Quarters:
    """Notes them, once each. May be used from any thread."""

    def __init__(self) -> None:
        self._noted = -1

    def note(self, cursor: sqlite3.Cursor, now: int) -> None:
        """To be called in each transaction that makes deliveries which say `now`, before it makes them."""
        if now // QUARTER != self._noted:
            cursor.execute(_NOTE, (now // QUARTER,))

    def remember(self, now: int) -> None:
        """Save others the trouble: a transaction that noted it is committed."""
        self._noted = now // QUARTER
