"""The storage contract's tests of a wall clock that is set: what is to come moves with it, what was stays."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ..storage._base import ClockReading, Storage
from ._contract_values import (
    LEASE,
    T0,
    an_event,
    at,
    emit,
    emit_many,
    fails_and_pauses,
    ids,
    listening,
    put_off,
    turn,
)

__all__ = ["ClockContract"]

DAYS = timedelta(days=10)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
set_by = pytest.mark.parametrize("by", [DAYS, -DAYS, timedelta(minutes=-3)])


def reading(by: timedelta = timedelta(0), steady: str = "steady") -> ClockReading:
    """The reading of a clock that was set by `by` since `T0`."""
    return ClockReading(steady, timedelta(days=20_000) + by)


class ClockContract:
    """Turns that bring readings of a clock."""

    @set_by
    def test_a_pause_lasts_as_long_as_it_was_to(self, storage: Storage, by: timedelta) -> None:
        """By the steady clock, a paused hook is ready exactly when it was to be."""
        hook = listening(storage)
        emit(storage)
        (claim,) = turn(storage, reading=reading()).claims
        turn(storage, fails_and_pauses(claim, T0, T0 + HOUR), reading=reading())
        result = turn(storage, now=T0 + by + SECOND, reading=reading(by))
        assert (ids(result), result.next_due_at) == ([], T0 + by + HOUR)
        now = storage.get_hook(hook.id)
        assert (now.failing_since, now.paused_until) == (T0 + by, T0 + by + HOUR)
        assert ids(turn(storage, now=T0 + by + HOUR - SECOND, reading=reading(by))) == []
        assert ids(turn(storage, now=T0 + by + HOUR, reading=reading(by))) == [claim.delivery_id]

    @set_by
    def test_a_delivery_is_due_when_it_was_to_be(self, storage: Storage, by: timedelta) -> None:
        """A returned delivery's moment moves, as does that of its first claim; the order of moments stays."""
        listening(storage, max_in_flight=2)
        emit_many(storage, 2)
        later, sooner = turn(storage, reading=reading()).claims
        results = [put_off(later, due_at=T0 + 2 * HOUR), put_off(sooner, due_at=T0 + HOUR)]
        turn(storage, *results, reading=reading())
        assert ids(turn(storage, now=T0 + by + HOUR - SECOND, reading=reading(by))) == []
        result = turn(storage, now=T0 + by + HOUR, reading=reading(by))
        assert (ids(result), result.claims[0].first_attempt_at) == ([sooner.delivery_id], T0 + by)
        assert ids(turn(storage, now=T0 + by + 2 * HOUR, lease=HOUR, reading=reading(by)))[-1] == later.delivery_id

    @set_by
    def test_a_lease_lasts_as_long_as_it_was_to(self, storage: Storage, by: timedelta) -> None:
        """Nobody else claims what is under way, and the lease runs out when it was to; its first claim moves too."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage, reading=reading()).claims
        result = turn(storage, now=T0 + by + LEASE - SECOND, reading=reading(by))
        assert (result.expired, ids(result), result.next_due_at) == (0, [], T0 + by + LEASE)
        result = turn(storage, now=T0 + by + LEASE, reading=reading(by))
        assert (result.expired, ids(result)) == (1, [claim.delivery_id])
        assert result.claims[0].first_attempt_at == T0 + by

    def test_history_stays_as_it_was(self, storage: Storage) -> None:
        """When deliveries were made, and attempts begun and ended, is told as the clock showed it then."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage, now=at(1), reading=reading()).claims
        turn(storage, put_off(claim, at(2)), now=at(2), capacity=0, reading=reading())
        before = storage.get_delivery(claim.delivery_id)
        turn(storage, now=at(3) + DAYS, capacity=0, reading=reading(DAYS))
        assert storage.get_delivery(claim.delivery_id) == before

    def test_what_was_due_at_once_still_is(self, storage: Storage) -> None:
        """A set clock holds nothing up that waited for nothing, and a ping is still the first."""
        hook = listening(storage)
        fresh = emit(storage)
        (claim,) = turn(storage, reading=reading()).claims
        turn(storage, put_off(claim), capacity=0, reading=reading())
        ping = storage.add_ping(hook.id, an_event("ping"), T0)
        (first,) = turn(storage, now=T0 - DAYS, reading=reading(-DAYS)).claims
        assert first.delivery_id == ping.id
        result = turn(storage, put_off(first, due_at=T0 - DAYS + HOUR), now=T0 - DAYS, reading=reading(-DAYS))
        assert ids(result) == list(fresh.delivery_ids)

    def test_an_emit_before_the_next_turn_lifts_no_pause(self, storage: Storage) -> None:
        """An emit may be the first to see the new time: it does not make a paused hook ready."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage, reading=reading()).claims
        turn(storage, fails_and_pauses(claim, T0, T0 + HOUR), reading=reading())
        emit(storage, now=T0 + DAYS)
        result = turn(storage, now=T0 + DAYS, reading=reading(DAYS))
        assert (ids(result), result.next_due_at) == ([], T0 + DAYS + HOUR)

    def test_a_jump_counts_once(self, storage: Storage) -> None:
        """However many turns bring the new reading; and back again is back where it was."""
        hook = listening(storage)
        emit(storage)
        (claim,) = turn(storage, reading=reading()).claims
        turn(storage, fails_and_pauses(claim, T0, T0 + HOUR), reading=reading())
        for by in (DAYS, DAYS, DAYS + SECOND / 2, DAYS, timedelta(0), timedelta(0), -DAYS):
            turn(storage, now=T0 + by, capacity=0, reading=reading(by))
            expected = T0 + HOUR + (DAYS if by > DAYS else by)
            assert storage.get_hook(hook.id).paused_until == expected

    def test_what_cannot_be_compared_moves_nothing(self, storage: Storage) -> None:
        """The first reading, one of another steady clock, and a turn without any leave every moment as it is."""
        hook = listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        turn(storage, fails_and_pauses(claim, T0, T0 + HOUR))
        for one in (reading(DAYS), None, reading(steady="after a restart"), None, reading(DAYS)):
            turn(storage, capacity=0, reading=one)
            assert storage.get_hook(hook.id).paused_until == T0 + HOUR
