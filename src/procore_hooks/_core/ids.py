"""Ids of events, made in the process: no storage is asked, and they still rise with time.

An event's id is a 63-bit integer: 42 bits of Unix milliseconds (they last until 2109), then 21 random bits. Its ULID
is 48 bits of the same and 80 random ones, in Crockford's base 32 (https://github.com/ulid/spec). Within one source
both rise strictly, even while the clock stands still or steps back: the last one plus 1 is the next.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from ..exceptions import InvalidInput

__all__ = ["IdSource"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MAX_MS = 2**42 - 1
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Ten bits at a time make two characters: of the time, a zero for the sign and 49 more.
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_SHIFTS = range(40, -1, -10)
# A random byte makes a random character: 256 is a multiple of 32.
_CHARACTERS = _ALPHABET.encode() * 8
_OF_CHANCE = 16  # characters of a ULID
_AT_ONCE = 64


class IdSource:
    """Makes ids of events. Any thread may use it; a forked child needs a source of its own.

    `random(n)` gives n random bytes. It is asked for those of 64 ids at once.
    """

    __slots__ = ("_id", "_lock", "_ms", "_random", "_thrown", "_ulid")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._thrown: Iterator[tuple[int, str]] = iter(())
        self._lock = threading.Lock()
        self._ms = -1
        self._id = -1
        self._ulid = ""

    def next(self, now: datetime) -> tuple[int, str]:
        """An event's id and its ULID, above all that this source gave before.

        Raises `InvalidInput` if `now` is naive, or so late that its milliseconds do not fit.
        """
        if now.tzinfo is None:
            raise InvalidInput("now", f"{now.isoformat()} is naive: use an aware datetime, such as datetime.now(UTC)")
        ms = max(0, (now - _EPOCH) // _MILLISECOND)
        if ms > _MAX_MS:
            raise InvalidInput("now", f"{now.isoformat()} is past what an event's id can hold, in 2109: set the clock")
        with self._lock:
            if ms > self._ms:
                self._ms = ms
                number, text = next(self._thrown, None) or self._throw()
                # After very many ids in one millisecond the last may lie in the next one already.
                self._id = max(ms << 21 | number, self._id + 1)
                ulid = "".join([_PAIRS[ms >> shift & 1023] for shift in _SHIFTS]) + text
                self._ulid = ulid if ulid > self._ulid else _after(self._ulid)
            else:
                self._id += 1
                self._ulid = _after(self._ulid)
            return self._id, self._ulid

    def _throw(self) -> tuple[int, str]:
        """The dice of one id and its ULID, and those of others put by."""
        numbers = 4 * _AT_ONCE
        thrown = self._random(numbers + _OF_CHANCE * _AT_ONCE)
        text = thrown[numbers:].translate(_CHARACTERS).decode("ascii")
        self._thrown = zip(
            [number >> 11 for number in struct.unpack(f"<{_AT_ONCE}I", thrown[:numbers])],
            [text[start : start + _OF_CHANCE] for start in range(0, len(text), _OF_CHANCE)],
            strict=True,
        )
        return next(self._thrown)


def _after(ulid: str) -> str:
    """The next ULID: the last character that is none of the highest goes up, those behind it start anew."""
    kept = ulid.rstrip(_ALPHABET[-1])
    return kept[:-1] + _ALPHABET[_ALPHABET.index(kept[-1]) + 1] + _ALPHABET[0] * (len(ulid) - len(kept))
