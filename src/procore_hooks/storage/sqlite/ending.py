"""Ended attempts, on their way into the history: all of them with a few statements."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Final

from ..._core.models import Attempt, DeliveryStatus
from .ready import ready
from .rows import STATES, HeaderItems, attempt_row, compact_json, split_headers

__all__ = ["EndedAttempts", "RequestKey"]

# A URL, and headers as they are stored.
RequestKey = tuple[str, HeaderItems]

_RETRYING: Final = STATES.index("retrying")
_WORTH_A_STATEMENT: Final = 4
_COLUMNS: Final = 11  # of the attempts table
_ROW: Final = f"({', '.join('?' * _COLUMNS)})"
_MOST_ROWS: Final = 128

# What nearly all of them become is one and the same: with that as parameters it takes little more than half the time.
_END_ALIKE: Final = """
UPDATE procore_hooks_deliveries SET state = :state, completed_at = :completed_at, due_at = :due_at, reason = :reason,
    lease_until = NULL, claimed_at = NULL, began_at = iif(:state > 1, NULL, began_at)
WHERE id IN (SELECT value FROM json_each(:ids))
"""
_END_ATTEMPTS: Final = """
UPDATE procore_hooks_deliveries SET state = j.state, completed_at = j.completed_at, due_at = j.due_at,
    reason = j.reason, lease_until = NULL, claimed_at = NULL, began_at = iif(j.state > 1, NULL, began_at)
FROM (SELECT value ->> 0 AS id, value ->> 1 AS state, value ->> 2 AS completed_at, value ->> 3 AS due_at,
    value ->> 4 AS reason FROM json_each(?)) AS j
WHERE procore_hooks_deliveries.id = j.id
"""
_LEAVE_FLIGHT: Final = f"""
UPDATE procore_hooks_queues SET in_flight = in_flight - :ended, ready_at = {ready(in_flight="in_flight - :ended")}
WHERE hook_id IN (SELECT value FROM json_each(:hooks))
"""


class EndedAttempts:
    """Attempts that end in one transaction: added one by one, and stored together.

    What is kept of each until then are numbers and texts in lists that they share: an object for each would have the
    garbage collector look at them all, while the storage is locked.

    `request_ids` says which URLs and headers are stored already; those that come to it go into `stored`.
    """

    def __init__(
        self, cursor: sqlite3.Cursor, request_ids: Mapping[RequestKey, int], stored: dict[RequestKey, int]
    ) -> None:
        self._cursor = cursor
        self._request_ids = request_ids
        self._stored = stored
        self._attempts: list[object] = []  # column by column, row by row
        self._hook_ids: list[int] = []
        # The deliveries, by what becomes of them: state, completed at, due at, reason.
        self._alike: dict[tuple[int, int | None, int | None, str | None], list[int]] = {}
        # Response headers and their text: many of a hook's answers have the very same object.
        self._answered: Mapping[str, str] = {}
        self._answered_text: str | None = None

    def add_retrying(self, delivery_id: int, hook_id: int, attempt: Attempt, due_at: int) -> None:
        """Its delivery returns to the queue, and is due by `due_at`."""
        self._add(delivery_id, hook_id, attempt, (_RETRYING, None, due_at, None))

    def add_final(
        self, delivery_id: int, hook_id: int, attempt: Attempt, status: DeliveryStatus, at: int, reason: str | None
    ) -> None:
        """Its delivery is over, at `at`."""
        self._add(delivery_id, hook_id, attempt, (STATES.index(status), at, None, reason))

    def _add(
        self, delivery_id: int, hook_id: int, attempt: Attempt, becomes: tuple[int, int | None, int | None, str | None]
    ) -> None:
        headers, signature = split_headers(attempt)
        request_id = self._request_id(attempt.request_url, headers)
        if attempt.response_headers is not self._answered:
            self._answered = attempt.response_headers
            self._answered_text = compact_json(self._answered) if self._answered else None
        self._attempts += attempt_row(delivery_id, attempt, request_id, signature, self._answered_text)
        self._hook_ids.append(hook_id)
        self._alike.setdefault(becomes, []).append(delivery_id)

    def store(self, due: int) -> None:
        """Store them all, and make room in their queues."""
        self._insert_attempts()
        rest = []
        for (state, completed_at, due_at, reason), ids in self._alike.items():
            if len(ids) < _WORTH_A_STATEMENT:
                rest += [[delivery_id, state, completed_at, due_at, reason] for delivery_id in ids]
                continue
            values = {"state": state, "completed_at": completed_at, "due_at": due_at, "reason": reason}
            self._cursor.execute(_END_ALIKE, {**values, "ids": json.dumps(ids)})
        if rest:
            self._cursor.execute(_END_ATTEMPTS, (json.dumps(rest),))
        hooks: dict[int, list[int]] = {}  # by how many of theirs ended
        for hook_id, number in Counter(self._hook_ids).items():
            hooks.setdefault(number, []).append(hook_id)
        for number, of_them in hooks.items():
            self._cursor.execute(_LEAVE_FLIGHT, {"ended": number, "hooks": json.dumps(of_them), "due": due})

    def _insert_attempts(self) -> None:
        # Bodies are bytes, which JSON cannot hold: so many rows of parameters. Sizes are powers of two, so that a
        # few statements serve and stay prepared.
        start, number = 0, len(self._hook_ids)
        while start < number:
            size = min(_MOST_ROWS, 1 << ((number - start).bit_length() - 1))
            rows = self._attempts[start * _COLUMNS : (start + size) * _COLUMNS]
            marks = ", ".join([_ROW] * size)
            self._cursor.execute(f"INSERT INTO procore_hooks_attempts VALUES {marks}", rows)
            start += size

    def _request_id(self, url: str, headers: HeaderItems) -> int:
        """The URL and the headers are the same for most attempts of a hook: they are stored once."""
        key = url, headers
        known = self._request_ids.get(key) or self._stored.get(key)
        if known is None:
            row = url, compact_json(dict(headers))
            self._cursor.execute("INSERT OR IGNORE INTO procore_hooks_requests (url, headers) VALUES (?, ?)", row)
            found = self._cursor.execute("SELECT id FROM procore_hooks_requests WHERE url = ? AND headers = ?", row)
            known = self._stored[key] = int(found.fetchone()[0])
        return known
