"""Ids of events, made in the process: no storage is asked, and they still rise with time.

An event's id is a 63-bit integer: 42 bits of Unix milliseconds (they last until 2109), then 21 random bits. Its ULID
is 48 bits of the same and 80 random ones, in Crockford's base 32 (https://github.com/ulid/spec). Within one source
both rise strictly, even while the clock stands still or steps back: the last one plus 1 is the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from ..exceptions import InvalidInput

__all__ = ["IdSource"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS = 2**42 - 1
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Ten bits at a time make two characters.
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_SHIFTS = range(120, -1, -10)
# Random bytes for an id and its ULID.
_BYTES = 13
_AT_ONCE = 64


class IdSource:
    """Makes ids of events. Any thread may use it; a forked child needs a source of its own.

    `random(n)` gives n random bytes. It is asked for those of 64 ids at once.
    """

    __slots__ = ("_id", "_lock", "_ms", "_random", "_thrown", "_ulid")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._thrown = b""
        self._lock = threading.Lock()
        self._ms = -1
        self._id = -1
        self._ulid = -1

    def next(self, now: datetime) -> tuple[int, str]:
        """An event's id and its ULID, above all that this source gave before.

        Raises `InvalidInput` if `now` is naive, or so late that its milliseconds do not fit.
        """
        if now.tzinfo is None:
            raise InvalidInput("now", f"{now.isoformat()} is naive: use an aware datetime, such as datetime.now(UTC)")
        since = now - _EPOCH
        ms = max(0, since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000)
        if ms > _MAX_MS:
            raise InvalidInput("now", f"{now.isoformat()} is past what an event's id can hold, in 2109: set the clock")
        with self._lock:
            if ms > self._ms:
                self._ms = ms
                dice = self._dice()
                # After very many ids in one millisecond the last may lie in the next one already.
                self._id = max(ms << 21 | dice >> 83, self._id + 1)
                self._ulid = max(ms << 80 | dice & (2**80 - 1), self._ulid + 1)
            else:
                self._id += 1
                self._ulid += 1
            return self._id, _crockford(self._ulid)

    def _dice(self) -> int:
        if not self._thrown:
            self._thrown = self._random(_BYTES * _AT_ONCE)
        thrown, self._thrown = self._thrown[:_BYTES], self._thrown[_BYTES:]
        return int.from_bytes(thrown, "big")


def _crockford(ulid: int) -> str:
    return "".join([_PAIRS[ulid >> shift & 1023] for shift in _SHIFTS])
