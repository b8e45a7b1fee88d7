"""The storage contract's tests of leases and fences, of flushing, disabling and deleting, and of `next_due_at`."""

from __future__ import annotations

import attrs
import pytest

from ..storage._base import HookChange, Storage
from ._contract_values import (
    LEASE,
    T0,
    accepted,
    at,
    emit,
    emit_many,
    fails_and_pauses,
    given_up,
    ids,
    listening,
    put_off,
    statuses,
    sweep,
    turn,
)

__all__ = ["DiscardContract", "LeaseContract", "NextDueContract"]


class LeaseContract:
    """Leases that run out, and results that come too late."""

    def test_a_lease_that_ran_out_is_recorded_and_the_delivery_returns(self, storage: Storage) -> None:
        """At its end the attempt is recorded as ``unknown``, and the delivery goes out again at once, counted up."""
        listening(storage, destination_url="https://hooks.example/in?token=c3a24b8208")
        emit(storage)
        (claim,) = turn(storage).claims
        assert turn(storage, now=at(29.999)).expired == 0
        result = turn(storage, now=at(30))
        assert result.expired == 1
        (again,) = result.claims
        assert (again.delivery_id, again.number, again.first_attempt_at) == (claim.delivery_id, 2, T0)
        delivery = storage.get_delivery(claim.delivery_id)
        assert (delivery.status, delivery.attempt_count) == ("retrying", 2)
        (attempt,) = delivery.attempts
        assert (attempt.number, attempt.outcome) == (1, "unknown")
        assert (attempt.started_at, attempt.completed_at) == (claim.claimed_at, None)
        assert attempt.response_status is None
        assert "c3a24b8208" not in attempt.request_url

    def test_an_unknown_attempt_pauses_nothing(self, storage: Storage) -> None:
        """A lease that runs out leaves failures, pause and epoch as they are."""
        hook = listening(storage, max_in_flight=2)
        emit_many(storage, 3)
        lost, kept = turn(storage).claims
        result = turn(storage, now=at(30), capacity=0)
        assert result.expired == 2
        assert storage.get_hook(hook.id).failing_since is None
        result = turn(storage, now=at(30))
        assert ids(result) == [lost.delivery_id, kept.delivery_id]
        assert [claim.epoch for claim in result.claims] == [lost.epoch] * 2

    def test_it_returns_before_fresh_ones_and_before_due_retries(self, storage: Storage) -> None:
        """A delivery that was left open counts as due since ever."""
        listening(storage, max_in_flight=2)
        retried, lost, fresh = emit_many(storage, 3)
        claims = turn(storage).claims
        turn(storage, put_off(claims[0], due_at=at(5)), capacity=0)
        turn(storage, now=at(30), capacity=0)
        order = [ids(turn(storage, now=at(30), capacity=1)) for _ in range(2)]
        assert order == [[lost], [retried]]
        assert statuses(storage, [fresh]) == ["enqueued"]

    def test_it_returns_whatever_the_horizon(self, storage: Storage) -> None:
        """Leases run out by `now`, not by `due_by`; what they return is due since ever."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        assert ids(turn(storage, now=at(30), due_by=T0)) == [claim.delivery_id]

    def test_a_result_of_a_lease_that_ran_out_is_late(self, storage: Storage) -> None:
        """After the attempt was recorded as ``unknown``, nothing of its result is stored, waiting or under way."""
        hook = listening(storage)
        (delivery_id,) = emit(storage).delivery_ids
        (claim,) = turn(storage).claims
        turn(storage, now=at(30), capacity=0)
        failure = fails_and_pauses(claim, at(31), at(900))
        result = turn(storage, failure, now=at(31))
        assert (result.settled, result.late) == ((), (failure,))
        (again,) = result.claims
        result = turn(storage, accepted(claim, at(32)), now=at(32))
        assert len(result.late) == 1
        delivery = storage.get_delivery(delivery_id)
        assert (delivery.status, [attempt.outcome for attempt in delivery.attempts]) == ("retrying", ["unknown"])
        assert storage.get_hook(hook.id).paused_until is None
        result = turn(storage, accepted(again, at(33)), now=at(33))
        assert [settled.status for settled in result.settled] == ["delivered"]

    def test_a_result_before_the_turn_that_would_expire_it_counts(self, storage: Storage) -> None:
        """A turn takes settlements before it looks at leases: a result after the lease, but before that, holds."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        result = turn(storage, accepted(claim, at(45)), now=at(45))
        assert ([settled.status for settled in result.settled], result.expired) == (["delivered"], 0)

    def test_a_result_counts_once(self, storage: Storage) -> None:
        """The same settlement twice, in one turn or in two, is late the second time; no final status changes."""
        listening(storage)
        (delivery_id,) = emit(storage).delivery_ids
        (claim,) = turn(storage).claims
        success, failure = accepted(claim), given_up(claim)
        result = turn(storage, success, failure)
        assert [settled.settlement for settled in result.settled] == [success]
        assert result.late == (failure,)
        assert turn(storage, success).late == (success,)
        assert statuses(storage, [delivery_id]) == ["delivered"]
        assert len(storage.get_delivery(delivery_id).attempts) == 1

    def test_an_unknown_delivery_is_late(self, storage: Storage) -> None:
        """A settlement of a delivery that was pruned away is late."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        turn(storage, accepted(claim))
        storage.prune(at(1))
        assert len(turn(storage, accepted(claim)).late) == 1

    def test_a_lease_makes_room_when_it_ends(self, storage: Storage) -> None:
        """Expired leases no longer count against `max_in_flight`, in that same turn."""
        listening(storage, max_in_flight=2)
        waiting = emit_many(storage, 4)
        turn(storage, lease=LEASE)
        assert ids(turn(storage, now=at(30))) == waiting[:2]


class DiscardContract:
    """Flushing, disabling, dropping, deleting."""

    def test_a_flush_discards_what_waits(self, storage: Storage) -> None:
        """A flush discards what waits for its hook, with its reason, and nothing else; the next event starts afresh."""
        hook, other = listening(storage, max_in_flight=2), listening(storage, ("Submittals", "*"))
        waiting = emit_many(storage, 5)
        kept = emit_many(storage, 1, resource="Submittals")
        claims = {claim.delivery_id: claim for claim in turn(storage, capacity=3).claims}
        turn(storage, put_off(claims[waiting[1]], due_at=at(500)), capacity=0)
        flush = given_up(claims[waiting[0]], at(1), change=HookChange(flush_reason="flushed after 12 hours"))
        result = turn(storage, flush, now=at(1), capacity=0)
        assert result.settled[0].changed
        assert result.discarded + sweep(storage, at(1)) == 4
        assert statuses(storage, waiting) == ["failed", *["discarded"] * 4]
        assert {storage.get_delivery(each).reason for each in waiting[1:]} == {"flushed after 12 hours"}
        assert all(storage.get_delivery(each).completed_at for each in waiting)
        assert statuses(storage, kept) == ["enqueued"]
        assert storage.get_hook(hook.id).status == storage.get_hook(other.id).status == "active"
        fresh = emit_many(storage, 1, now=at(2))
        assert ids(turn(storage, now=at(2))) == fresh
        assert not set(waiting) & set(ids(turn(storage, now=at(600))))

    def test_a_flush_of_more_than_a_thousand(self, storage: Storage) -> None:
        """However many a flush discards, and over however many turns: what is emitted afterwards is delivered."""
        listening(storage)
        waiting = emit_many(storage, 2500)
        (claim,) = turn(storage).claims
        flush = given_up(claim, change=HookChange(flush_reason="flushed"))
        result = turn(storage, flush, capacity=0)
        fresh = emit_many(storage, 1)
        assert result.discarded + sweep(storage) == 2499
        assert storage.count_deliveries(None, T0) == {"failed": 1, "discarded": 2499, "enqueued": 1}
        assert ids(turn(storage)) == fresh
        assert statuses(storage, [waiting[1], waiting[-1]]) == ["discarded", "discarded"]

    def test_a_flush_reaches_what_is_under_way(self, storage: Storage) -> None:
        """Of deliveries under way at a flush, those that succeed are delivered, those that fail are discarded."""
        listening(storage, max_in_flight=3)
        waiting = emit_many(storage, 3)
        one, two, three = turn(storage).claims
        turn(storage, given_up(one, change=HookChange(flush_reason="flushed")), capacity=0)
        result = turn(storage, put_off(two, due_at=at(5)), accepted(three), capacity=0)
        assert [settled.status for settled in result.settled] == ["discarded", "delivered"]
        assert statuses(storage, waiting) == ["failed", "discarded", "delivered"]
        assert storage.get_delivery(waiting[1]).reason == "flushed"

    def test_a_flush_of_an_old_epoch_is_not_taken(self, storage: Storage) -> None:
        """A flush that was decided before the hook was enabled anew discards nothing."""
        hook = listening(storage)
        waiting = emit_many(storage, 2)
        (claim,) = turn(storage).claims
        storage.disable_hook(hook.id, T0, None)
        storage.enable_hook(hook.id, T0)
        result = turn(storage, given_up(claim, change=HookChange(flush_reason="flushed")))
        assert (result.settled[0].changed, result.discarded) == (False, 0)
        assert ids(result) == waiting[1:]

    def test_a_change_that_disables_keeps_what_waits(self, storage: Storage) -> None:
        """A settlement may disable its hook: nothing of it is claimed until it is enabled, and nothing is lost."""
        hook = listening(storage)
        waiting = emit_many(storage, 3)
        (claim,) = turn(storage).claims
        result = turn(storage, put_off(claim, change=HookChange(disable=True)))
        assert (result.claims, result.settled[0].changed, result.next_due_at) == ((), True, None)
        assert storage.get_hook(hook.id).status == "disabled"
        assert ids(turn(storage, now=at(1e6))) == []
        assert statuses(storage, waiting) == ["retrying", "enqueued", "enqueued"]
        storage.enable_hook(hook.id, at(1e6))
        assert ids(turn(storage, now=at(1e6))) == waiting[:1]

    def test_disabling_keeps_what_waits_and_what_is_under_way(self, storage: Storage) -> None:
        """Without a drop reason, what waits goes on waiting, and what is under way comes back to it."""
        hook = listening(storage, max_in_flight=2)
        waiting = emit_many(storage, 3)
        one, two = turn(storage).claims
        storage.disable_hook(hook.id, T0, None)
        result = turn(storage, put_off(one), accepted(two), now=at(1))
        assert ([settled.status for settled in result.settled], ids(result)) == (["retrying", "delivered"], [])
        storage.enable_hook(hook.id, at(2))
        assert ids(turn(storage, now=at(2))) == [waiting[0], waiting[2]]

    @pytest.mark.parametrize("end", ["result", "lease"])
    @pytest.mark.parametrize("verb", ["drop", "drop and enable", "delete"])
    def test_dropping_and_deleting_discard(self, storage: Storage, verb: str, end: str) -> None:
        """What waits is discarded, with the reason; what is under way too, unless it succeeds, even if enabled since.

        What is emitted after the hook was enabled again is delivered.
        """
        hook = listening(storage, max_in_flight=3)
        waiting = emit_many(storage, 6)
        claims = turn(storage).claims
        turn(storage, put_off(claims[2], due_at=at(5)), capacity=0)
        if verb == "delete":
            storage.delete_hook(hook.id, at(1), "the reason")
        else:
            storage.disable_hook(hook.id, at(1), "the reason")
        if verb == "drop and enable":
            storage.enable_hook(hook.id, at(1))
        fresh = emit_many(storage, 1, now=at(1)) if verb == "drop and enable" else []
        sweep(storage, at(1))
        assert statuses(storage, waiting) == ["enqueued"] * 2 + ["discarded"] * 4
        result = turn(storage, accepted(claims[0], at(2)), now=at(2), capacity=0)
        assert [settled.status for settled in result.settled] == ["delivered"]
        if end == "result":
            result = turn(storage, put_off(claims[1], at(2)), now=at(2), capacity=0)
            assert [settled.status for settled in result.settled] == ["discarded"]
        turn(storage, now=at(30), capacity=0)
        sweep(storage, at(30))
        assert statuses(storage, waiting) == ["delivered"] + ["discarded"] * 5
        deliveries = [storage.get_delivery(each) for each in waiting[1:]]
        assert {delivery.reason for delivery in deliveries} == {"the reason"}
        assert None not in {delivery.completed_at for delivery in deliveries}
        outcome = "retried" if end == "result" else "unknown"
        assert [attempt.outcome for attempt in deliveries[0].attempts] == [outcome]
        assert ids(turn(storage, now=at(31))) == fresh

    def test_a_drop_leaves_other_hooks_alone(self, storage: Storage) -> None:
        """Dropping and deleting discard nothing of another hook."""
        dropped, deleted, kept = (listening(storage) for _ in range(3))
        emit_many(storage, 2)
        storage.disable_hook(dropped.id, T0, "dropped")
        storage.delete_hook(deleted.id, T0, "deleted")
        sweep(storage)
        assert storage.count_deliveries(kept.id, T0) == {"enqueued": 2}
        assert storage.count_deliveries(dropped.id, T0) == storage.count_deliveries(deleted.id, T0) == {"discarded": 2}


class NextDueContract:
    """`Turn.next_due_at`."""

    def test_nothing_waits(self, storage: Storage) -> None:
        """None when nothing waits and nothing is under way."""
        listening(storage)
        assert turn(storage).next_due_at is None
        emit(storage)
        (claim,) = turn(storage).claims
        assert turn(storage, accepted(claim)).next_due_at is None

    def test_there_is_more_to_do_at_once(self, storage: Storage) -> None:
        """At most `now` when what is due found no room in this turn."""
        listening(storage), listening(storage)
        emit(storage)
        for capacity in (0, 1):
            next_due_at = turn(storage, capacity=capacity).next_due_at
            assert next_due_at is not None
            assert next_due_at <= T0
        assert turn(storage).next_due_at == T0 + LEASE

    def test_a_lease(self, storage: Storage) -> None:
        """The end of the first lease, when all that waits has to wait for room."""
        listening(storage), listening(storage)
        emit_many(storage, 3)
        turn(storage, capacity=1)
        assert turn(storage, now=at(7)).next_due_at == at(30)

    def test_a_pause(self, storage: Storage) -> None:
        """The end of the pause."""
        listening(storage)
        emit_many(storage, 3)
        (claim,) = turn(storage).claims
        assert turn(storage, fails_and_pauses(claim, T0, at(60))).next_due_at == at(60)
        assert turn(storage, now=at(59)).next_due_at == at(60)

    def test_a_pause_of_a_hook_without_anything_waiting(self, storage: Storage) -> None:
        """A pause alone is nothing to do."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        pause = HookChange(failures=1, failing_since=T0, paused_until=at(60))
        assert turn(storage, given_up(claim, change=pause)).next_due_at is None

    def test_retries(self, storage: Storage) -> None:
        """The first due moment of the retries, or the end of the pause if that is later."""
        listening(storage, max_in_flight=3)
        emit_many(storage, 3)
        one, two, three = turn(storage).claims
        result = turn(storage, put_off(one, due_at=at(20)), put_off(two, due_at=at(10)))
        assert result.next_due_at == at(10)
        pause = HookChange(failures=1, failing_since=T0, paused_until=at(15))
        assert turn(storage, put_off(three, due_at=at(40), change=pause)).next_due_at == at(15)

    def test_a_retry_of_a_hook_without_room_waits_for_the_lease(self, storage: Storage) -> None:
        """A due moment counts for nothing while its hook has no room: then the lease does."""
        listening(storage)
        emit_many(storage, 2)
        (claim,) = turn(storage).claims
        result = turn(storage, put_off(claim, due_at=at(5)))
        assert len(result.claims) == 1
        assert result.next_due_at == at(30)

    def test_after_the_horizon(self, storage: Storage) -> None:
        """With `due_by` before `now`, what came due between them is told by its moment, at most `now`."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        turn(storage, put_off(claim, due_at=at(5)))
        result = turn(storage, now=at(20), due_by=at(4))
        assert (result.claims, result.next_due_at) == ((), at(5))

    def test_disabled_hooks_do_not_count(self, storage: Storage) -> None:
        """What waits for a disabled or deleted hook is nothing to do."""
        disabled, deleted = listening(storage), listening(storage)
        emit_many(storage, 2)
        claims = turn(storage).claims
        turn(storage, *(put_off(claim, due_at=at(5)) for claim in claims), capacity=0)
        storage.disable_hook(disabled.id, T0, None)
        storage.delete_hook(deleted.id, T0, "deleted")
        sweep(storage)
        assert turn(storage).next_due_at is None
        storage.enable_hook(disabled.id, at(1))
        result = turn(storage, now=at(1), capacity=0)
        assert result.next_due_at is not None
        assert result.next_due_at <= at(1)

    def test_an_empty_turn_does_nothing(self, storage: Storage) -> None:
        """A turn over an empty storage is empty."""
        assert turn(storage) == attrs.evolve(turn(storage), claims=(), settled=(), late=(), discarded=0, expired=0)
