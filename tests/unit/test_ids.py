"""Ids of events: they rise, whatever the clock does and however many threads ask."""

from __future__ import annotations

import os
import re
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks._core.ids import IdSource
from procore_hooks.exceptions import InvalidInput

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
NOW = datetime(2025, 2, 6, 23, 34, 12, 246562, tzinfo=UTC)
MS = int(NOW.timestamp()) * 1_000 + 246


def zeros(count: int) -> bytes:
    return bytes(count)


def ones(count: int) -> bytes:
    return b"\xff" * count


def number_of(ulid: str) -> int:
    value = 0
    for character in ulid:
        value = value * 32 + ALPHABET.index(character)
    return value


def test_an_id_is_42_bits_of_time_and_21_of_chance() -> None:
    """The milliseconds stand above the dice, in the id and in the ULID."""
    low_id, low_ulid = IdSource(zeros).next(NOW)
    high_id, high_ulid = IdSource(ones).next(NOW)
    assert (low_id, high_id) == (MS << 21, (MS << 21) + 2**21 - 1)
    assert (number_of(low_ulid), number_of(high_ulid)) == (MS << 80, (MS << 80) + 2**80 - 1)


def test_a_ulid_is_26_characters_of_crockford() -> None:
    """The example of the ULID specification: its time part is 01ARZ3NDEK for 1469922850259 ms."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=1469922850259)
    assert IdSource(zeros).next(moment)[1] == "01ARZ3NDEK" + "0" * 16
    assert re.fullmatch(f"[{ALPHABET}]{{26}}", IdSource(os.urandom).next(NOW)[1])


def test_within_a_millisecond_the_next_is_the_last_plus_one() -> None:
    """So it is also when the clock steps back by days."""
    source = IdSource(os.urandom)
    first_id, first_ulid = source.next(NOW)
    for step, moment in enumerate([NOW, NOW - timedelta(days=10), NOW + timedelta(microseconds=1)], 1):
        id, ulid = source.next(moment)
        assert (id, number_of(ulid)) == (first_id + step, number_of(first_ulid) + step)


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=50), st.sampled_from([zeros, ones, os.urandom]))
def test_ids_rise_strictly(steps: list[int], dice: Any) -> None:
    """Clock steps of any sign and the worst of luck change nothing: ids and ULIDs rise, as numbers and as text."""
    source, moment, made = IdSource(dice), NOW, []
    for step in steps:
        moment += timedelta(milliseconds=step)
        made.append(source.next(moment))
    for (id, ulid), (next_id, next_ulid) in pairwise(made):
        assert id < next_id < 2**63
        assert ulid < next_ulid


def test_what_ran_over_into_the_next_millisecond_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids made beyond the room of one millisecond stay below those of the next, even with the lowest dice there."""
    monkeypatch.setattr("procore_hooks._core.ids._AT_ONCE", 1)
    throws = [ones, zeros]
    source = IdSource(lambda count: throws.pop(0)(count))
    made = [source.next(moment) for moment in (NOW, NOW, NOW + timedelta(milliseconds=1))]
    assert [id - made[0][0] for id, _ in made] == [0, 1, 2]
    assert [number_of(ulid) - number_of(made[0][1]) for _, ulid in made] == [0, 1, 2]


def test_the_dice_are_even_and_never_used_twice() -> None:
    """Each character of chance comes as often as each other, in each place; and 1,000 ids share nothing."""
    thrown: list[int] = []

    def counting(count: int) -> bytes:
        thrown.append(count)
        return bytes(number % 256 for number in range(count))

    source = IdSource(counting)
    made = [source.next(NOW + timedelta(milliseconds=step))[1][10:] for step in range(64)]
    assert len(thrown) == 1
    assert {character: "".join(made).count(character) for character in ALPHABET} == dict.fromkeys(ALPHABET, 32)
    source = IdSource(os.urandom)
    pairs = [source.next(NOW + timedelta(milliseconds=step)) for step in range(1_000)]
    assert len({ulid[10:] for _, ulid in pairs}) == 1_000
    assert len({id & (2**21 - 1) for id, _ in pairs}) > 990


def test_the_time_of_a_moment_does_not_depend_on_its_zone() -> None:
    """The same moment in another zone gives the same milliseconds."""
    there = NOW.astimezone(timezone(timedelta(hours=-7)))
    assert IdSource(zeros).next(there) == IdSource(zeros).next(NOW)


def test_moments_out_of_range() -> None:
    """Before 1970 counts as 1970; past 2109, and naive, is an error."""
    assert IdSource(zeros).next(datetime(1900, 1, 1, tzinfo=UTC)) == (0, "0" * 26)
    last = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=2**42 - 1)
    assert IdSource(ones).next(last)[0] == 2**63 - 1
    with pytest.raises(InvalidInput, match="2109"):
        IdSource(ones).next(last + timedelta(milliseconds=1))
    with pytest.raises(InvalidInput, match="naive"):
        IdSource(zeros).next(datetime(2025, 1, 1))


def test_threads_never_get_the_same_id() -> None:
    """With a switch of threads forced at each line of the source, every id is made once."""
    source = IdSource(zeros)
    made: list[tuple[int, str]] = []
    hold = threading.Event()

    def tracer(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename.endswith("ids.py"):
            # Lets another thread run here; nothing is waited for that comes about.
            hold.wait(0.0001)
            return tracer
        return None

    def work() -> None:
        sys.settrace(tracer)
        for _ in range(20):
            made.append(source.next(NOW))
        sys.settrace(None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == len({id for id, _ in made}) == len({ulid for _, ulid in made}) == 80
