"""The storage contract's tests of queues: order, fairness, limits, pauses, probes and due moments."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations

import attrs
import pytest

from .._core.frozen import FrozenDict
from ..storage._base import HookChange, Settlement, Storage, Turn
from ._contract_values import (
    LEASE,
    T0,
    accepted,
    an_event,
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

__all__ = ["OrderContract", "PauseContract", "SettlementContract"]


def _hooks_of(result: Turn) -> Counter[int]:
    return Counter(claim.hook.id for claim in result.claims)


class OrderContract:
    """Which deliveries a turn claims."""

    def test_a_claim_says_what_the_dispatcher_needs(self, storage: Storage) -> None:
        """A first claim carries delivery, hook, event, number, times; it counts the attempt and is under way."""
        hook = listening(storage)
        emission = emit(storage)
        (claim,) = turn(storage, now=at(2)).claims
        assert (claim.delivery_id, claim.hook, claim.event) == (emission.delivery_ids[0], hook, emission.event)
        assert (claim.number, claim.failures, claim.first_attempt_at) == (1, 0, None)
        assert (claim.claimed_at, claim.lease_until) == (at(2), at(2) + LEASE)
        delivery = storage.get_delivery(claim.delivery_id)
        assert (delivery.status, delivery.attempt_count, delivery.attempts) == ("enqueued", 1, ())
        assert delivery.next_attempt_at is None

    def test_a_delivery_is_claimed_once(self, storage: Storage) -> None:
        """While its lease lasts, a claimed delivery is not claimed again."""
        listening(storage, max_in_flight=10)
        waiting = emit_many(storage, 3)
        assert ids(turn(storage)) == waiting
        assert ids(turn(storage, now=at(29.999))) == []

    def test_a_turn_claims_no_more_than_its_capacity(self, storage: Storage) -> None:
        """`capacity` bounds the claims of a turn; the rest stays in order."""
        listening(storage, max_in_flight=10)
        waiting = emit_many(storage, 5)
        assert ids(turn(storage, capacity=0)) == []
        assert ids(turn(storage, capacity=2)) == waiting[:2]
        assert ids(turn(storage, capacity=2)) == waiting[2:4]
        assert ids(turn(storage, capacity=2)) == waiting[4:]

    def test_one_at_a_time_keeps_the_order_of_emission(self, storage: Storage) -> None:
        """With `max_in_flight` 1, a hook's deliveries go out one after the other, by id."""
        listening(storage)
        waiting = emit_many(storage, 4)
        order: list[int] = []
        settled: list[Settlement] = []
        for second in range(4):
            (claim,) = turn(storage, *settled, now=at(second)).claims
            assert ids(turn(storage, now=at(second))) == []
            order.append(claim.delivery_id)
            settled = [accepted(claim, at(second))]
        assert order == waiting

    def test_max_in_flight_bounds_what_is_under_way(self, storage: Storage) -> None:
        """No more than `max_in_flight` are under way; each that is settled makes room for one."""
        listening(storage, max_in_flight=3)
        waiting = emit_many(storage, 6)
        first = turn(storage)
        assert ids(first) == waiting[:3]
        assert ids(turn(storage)) == []
        assert ids(turn(storage, accepted(first.claims[1]))) == waiting[3:4]

    def test_a_turn_shares_its_room_evenly(self, storage: Storage) -> None:
        """Of 12 places, three hooks with long queues get four each; what a short queue leaves goes to the others."""
        hooks = [listening(storage, (name, "*"), max_in_flight=50) for name in "ABCD"]
        for name, number in (("A", 50), ("B", 50), ("C", 50)):
            emit_many(storage, number, resource=name)
        assert sorted(_hooks_of(turn(storage, capacity=12)).values()) == [4, 4, 4]
        emit_many(storage, 1, resource="D")
        shares = _hooks_of(turn(storage, capacity=13))
        assert [shares[hook.id] for hook in hooks] == [4, 4, 4, 1]

    def test_room_that_one_hook_cannot_use_goes_to_others(self, storage: Storage) -> None:
        """A turn claims as much as it has room for while anything is due, wherever the short queues stand."""
        for order in permutations("ABC"):
            hooks = [listening(storage, (f"{name}{order}", "*"), max_in_flight=9) for name in order]
            for name, number in zip("ABC", (9, 1, 9), strict=True):
                emit_many(storage, number, resource=f"{name}{order}")
            result = turn(storage, capacity=5)
            assert sorted(_hooks_of(result).values()) == [1, 2, 2]
            for hook in hooks:
                storage.delete_hook(hook.id, T0, "deleted")
            sweep(storage)

    def test_a_huge_queue_does_not_hold_up_the_others(self, storage: Storage) -> None:
        """Beside a hook with hundreds waiting, each of 20 hooks with one waiting is served in the next turns."""
        huge = listening(storage, ("huge", "*"), max_in_flight=1000)
        emit_many(storage, 400, resource="huge")
        for _ in range(3):
            assert _hooks_of(turn(storage, capacity=7)) == {huge.id: 7}
        small = [listening(storage) for _ in range(20)]
        emit(storage)
        served = Counter[int]()
        for _ in range(3):
            served += _hooks_of(turn(storage, capacity=7))
        assert {hook.id: served[hook.id] for hook in small} == {hook.id: 1 for hook in small}
        assert served[huge.id] == 1

    def test_hooks_take_turns(self, storage: Storage) -> None:
        """With room for two of six hooks a turn, each is served twice in six turns, and none twice in a row."""
        hooks = [listening(storage, max_in_flight=50) for _ in range(6)]
        emit_many(storage, 20)
        rounds = [set(_hooks_of(turn(storage, capacity=2))) for _ in range(6)]
        assert all(len(served) == 2 for served in rounds)
        assert all(not before & after for before, after in pairwise(rounds))
        assert Counter(hook_id for served in rounds for hook_id in served) == {hook.id: 2 for hook in hooks}

    def test_the_hook_served_longest_ago_comes_first(self, storage: Storage) -> None:
        """A hook that was idle while others were served comes before them when it has something again."""
        first, second = listening(storage, ("A", "*")), listening(storage, ("B", "*"))
        emit_many(storage, 5, resource="A")
        emit_many(storage, 5, resource="B")
        (one,) = turn(storage, capacity=1).claims
        (two,) = turn(storage, capacity=1).claims
        assert {one.hook.id, two.hook.id} == {first.id, second.id}
        turn(storage, accepted(two), capacity=0)
        turn(storage, accepted(one), capacity=0)
        assert _hooks_of(turn(storage, capacity=1)) == {one.hook.id: 1}

    def test_a_hook_whose_last_is_claimed_is_due_no_more(self, storage: Storage) -> None:
        """Once all of a hook is claimed, its next turn is when the leases run out, also where what was claimed first
        is newer than what was claimed last.
        """
        hook = listening(storage, max_in_flight=5)
        emit(storage)
        ping = storage.add_ping(hook.id, an_event(), T0)
        assert ids(turn(storage, capacity=1)) == [ping.id]
        assert turn(storage, capacity=1).next_due_at == T0 + LEASE

    def test_returned_ones_go_before_fresh_ones(self, storage: Storage) -> None:
        """What failed goes again before what was never tried, by due moment, then by id."""
        listening(storage, max_in_flight=4)
        waiting = emit_many(storage, 6)
        claims = turn(storage).claims
        dues = [at(3), at(2), None, at(2)]
        back = [put_off(claim, due_at=due) for claim, due in zip(claims, dues, strict=True)]
        turn(storage, *back, capacity=0)
        order = [ids(turn(storage, now=at(5), capacity=1))[0] for _ in range(4)]
        assert order == [waiting[index] for index in (2, 1, 3, 0)]

    def test_a_retry_waits_for_its_moment_and_fresh_ones_flow_on(self, storage: Storage) -> None:
        """A returned delivery is claimed when it is due and not before; meanwhile its hook's fresh ones go out."""
        listening(storage)
        late, fresh, last = emit_many(storage, 3)
        (claim,) = turn(storage).claims
        (next_claim,) = turn(storage, put_off(claim, due_at=at(300))).claims
        assert next_claim.delivery_id == fresh
        (last_claim,) = turn(storage, accepted(next_claim), now=at(299.999)).claims
        assert last_claim.delivery_id == last
        assert ids(turn(storage, accepted(last_claim), now=at(299.999))) == []
        (again,) = turn(storage, now=at(300)).claims
        assert (again.delivery_id, again.number, again.first_attempt_at) == (late, 2, T0)

    def test_fresh_ones_are_due_whatever_the_horizon(self, storage: Storage) -> None:
        """With `due_by` before `now`, fresh deliveries are claimed, and retries due by then, but no later ones."""
        listening(storage, max_in_flight=5)
        emit_many(storage, 2)
        early, late = turn(storage).claims
        turn(storage, put_off(early, due_at=at(5)), put_off(late, due_at=at(6)), capacity=0)
        (fresh,) = emit_many(storage, 1, now=at(8))
        assert ids(turn(storage, now=at(9), due_by=at(5))) == [early.delivery_id, fresh]
        assert ids(turn(storage, now=at(9), due_by=at(9))) == [late.delivery_id]

    def test_the_clock_may_stand_still_or_step_back(self, storage: Storage) -> None:
        """At one and the same moment, and after a step back, what waits at once is still claimed."""
        listening(storage)
        waiting = emit_many(storage, 3)
        (one,) = turn(storage).claims
        (two,) = turn(storage, accepted(one)).claims
        (three,) = turn(storage, accepted(two, at(-3600)), now=at(-3600)).claims
        assert [one.delivery_id, two.delivery_id, three.delivery_id] == waiting

    @pytest.mark.parametrize("what", ["retry", "pause"])
    def test_what_was_due_waits_again_after_the_clock_stepped_back(self, storage: Storage, what: str) -> None:
        """What had come due, and was not claimed for want of room, is due at its moment by the clock set back."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        failure = put_off(claim, due_at=at(10)) if what == "retry" else fails_and_pauses(claim, T0, at(10))
        turn(storage, failure, capacity=0)
        turn(storage, now=at(10), capacity=0)
        result = turn(storage, now=at(9))
        assert (ids(result), result.next_due_at) == ([], at(10))
        assert ids(turn(storage, now=at(10))) == [claim.delivery_id]


class PauseContract:
    """Failures: the pause, the probe, and the epoch."""

    def test_a_paused_hook_waits(self, storage: Storage) -> None:
        """Nothing of a paused hook is claimed before the pause has come to its end; other hooks go on."""
        paused, other = listening(storage), listening(storage)
        emit_many(storage, 2)
        claims = {claim.hook.id: claim for claim in turn(storage).claims}
        failure = fails_and_pauses(claims[paused.id], T0, at(60))
        result = turn(storage, failure, accepted(claims[other.id]))
        assert _hooks_of(result) == {other.id: 1}
        hook = storage.get_hook(paused.id)
        assert (hook.failing_since, hook.paused_until) == (T0, at(60))
        assert ids(turn(storage, now=at(29))) == []
        assert _hooks_of(turn(storage, accepted(result.claims[0]), now=at(59.999))) == {}
        assert _hooks_of(turn(storage, now=at(60))) == {paused.id: 1}

    def test_a_pause_is_judged_by_the_horizon(self, storage: Storage) -> None:
        """With `due_by` before `now`, a pause that ends between them has not come to its end."""
        listening(storage)
        emit_many(storage, 2)
        (claim,) = turn(storage).claims
        turn(storage, fails_and_pauses(claim, T0, at(10)), capacity=0)
        assert ids(turn(storage, now=at(20), due_by=at(9.999))) == []
        assert ids(turn(storage, now=at(20), due_by=at(10))) == [claim.delivery_id]

    def test_the_probe_is_one_and_the_same_delivery_first(self, storage: Storage) -> None:
        """While a hook fails, one delivery at a time is under way, however many may be: first the one that failed."""
        listening(storage, max_in_flight=5)
        waiting = emit_many(storage, 1)
        (claim,) = turn(storage).claims
        turn(storage, fails_and_pauses(claim, T0, at(10)), capacity=0)
        waiting += emit_many(storage, 9)
        (probe,) = turn(storage, now=at(10)).claims
        assert (probe.delivery_id, probe.number, probe.failures) == (waiting[0], 2, 1)
        assert probe.hook == storage.get_hook(probe.hook.id)
        assert probe.hook.failing_since == T0
        assert ids(turn(storage, now=at(10))) == []
        assert ids(turn(storage, accepted(probe, at(11), HookChange()), now=at(11))) == waiting[1:6]

    def test_the_probe_waits_for_what_is_under_way(self, storage: Storage) -> None:
        """A failing hook claims nothing while anything of before the failure is still under way."""
        listening(storage, max_in_flight=3)
        emit_many(storage, 5)
        one, two, three = turn(storage).claims
        turn(storage, fails_and_pauses(one, T0, at(5)), capacity=0)
        assert ids(turn(storage, accepted(two, at(6)), now=at(6))) == []
        assert ids(turn(storage, accepted(three, at(6)), now=at(6))) == [one.delivery_id]

    def test_a_failure_of_one_delivery_alone_pauses_nothing(self, storage: Storage) -> None:
        """A settlement without a change leaves failures and pause as they are."""
        hook = listening(storage, max_in_flight=5)
        waiting = emit_many(storage, 7)
        claims = turn(storage).claims
        result = turn(storage, given_up(claims[0]), put_off(claims[1], due_at=at(60)))
        assert [settled.changed for settled in result.settled] == [False, False]
        assert ids(result) == waiting[5:]
        assert storage.get_hook(hook.id).failing_since is None
        assert result.claims[0].failures == 0

    def test_of_failures_together_the_first_counts(self, storage: Storage) -> None:
        """Of attempts that fail together, in one turn or several, only the first changes the pause."""
        hook = listening(storage, max_in_flight=3)
        emit_many(storage, 3)
        one, two, three = turn(storage).claims
        result = turn(storage, fails_and_pauses(one, T0, at(5)), fails_and_pauses(two, T0, at(50)), capacity=0)
        assert [settled.changed for settled in result.settled] == [True, False]
        result = turn(storage, fails_and_pauses(three, at(1), at(500)), now=at(1), capacity=0)
        assert [settled.changed for settled in result.settled] == [False]
        assert storage.get_hook(hook.id).paused_until == at(5)
        (probe,) = turn(storage, now=at(5)).claims
        assert probe.failures == 1

    def test_a_success_of_before_the_failure_does_not_lift_the_pause(self, storage: Storage) -> None:
        """A success whose claim is older than the failure leaves the pause; a later one, of the probe, lifts it."""
        hook = listening(storage, max_in_flight=2)
        emit_many(storage, 3)
        one, two = turn(storage).claims
        turn(storage, fails_and_pauses(one, T0, at(5)), capacity=0)
        result = turn(storage, accepted(two, at(1), HookChange()), now=at(1), capacity=0)
        assert [(settled.status, settled.changed) for settled in result.settled] == [("delivered", False)]
        assert storage.get_hook(hook.id).paused_until == at(5)
        (probe,) = turn(storage, now=at(5)).claims
        result = turn(storage, accepted(probe, at(6), HookChange()), now=at(6))
        assert result.settled[0].changed
        assert (storage.get_hook(hook.id).failing_since, storage.get_hook(hook.id).paused_until) == (None, None)
        assert [claim.failures for claim in result.claims] == [0]

    @pytest.mark.parametrize("verb", ["enable", "disable"])
    def test_enabling_and_disabling_begin_a_new_epoch(self, storage: Storage, verb: str) -> None:
        """A change decided before the hook was disabled, or enabled, is not taken; its delivery is settled."""
        hook = listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        (probe,) = turn(storage, fails_and_pauses(claim, T0, at(5)), now=at(5)).claims
        if verb == "enable":
            storage.enable_hook(hook.id, at(6))
        else:
            storage.disable_hook(hook.id, at(6), None)
        (settled,) = turn(storage, fails_and_pauses(probe, at(7), at(900)), now=at(7), capacity=0).settled
        assert (settled.status, settled.changed) == ("retrying", False)
        assert storage.get_hook(hook.id).paused_until != at(900)

    def test_enabling_makes_all_that_waits_due_at_once(self, storage: Storage) -> None:
        """`enable_hook` forgets failures and pause, and retries of later are due at once, with the full room."""
        hook = listening(storage, max_in_flight=3)
        waiting = emit_many(storage, 4)
        one, two, _ = turn(storage).claims
        turn(storage, put_off(two, due_at=at(5000)), fails_and_pauses(one, T0, at(3600)), capacity=0)
        enabled = storage.enable_hook(hook.id, at(1))
        assert (enabled.failing_since, enabled.paused_until) == (None, None)
        result = turn(storage, now=at(1))
        assert ids(result) == waiting[:2]
        assert [claim.failures for claim in result.claims] == [0, 0]


class SettlementContract:
    """What a settlement stores."""

    def test_an_attempt_is_stored_as_it_is(self, storage: Storage) -> None:
        """`get_delivery` gives each attempt field for field, oldest first, and the last one as `last_attempt`."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        failure = put_off(claim, at(1.234567), due_at=at(10))
        attempt = attrs.evolve(
            failure.attempt,
            request_headers=FrozenDict({"webhook-id": claim.event.ulid, "authorization": "*****b8208"}),
            request_body=b'{"subject":"T\xc3\xbcr 12"}',
            response_status=503,
            response_headers=FrozenDict({"content-type": "text/html", "retry-after": "5"}),
            response_body=b"\x00\xff not even text",
            response_error="503 Service Unavailable",
        )
        turn(storage, attrs.evolve(failure, attempt=attempt), now=at(2), capacity=0)
        (claim,) = turn(storage, now=at(10)).claims
        success = accepted(claim, at(11))
        turn(storage, success, now=at(11))
        delivery = storage.get_delivery(claim.delivery_id)
        assert delivery.attempts == (attempt, success.attempt)
        assert delivery.last_attempt == success.attempt
        assert (delivery.status, delivery.attempt_count) == ("delivered", 2)
        assert delivery.completed_at is not None

    def test_each_answer_keeps_its_own_headers(self, storage: Storage) -> None:
        """Attempts that end in one turn keep the headers of their own answers, whether they are the same or not."""
        listening(storage, max_in_flight=6)
        claims = [claim for _ in emit_many(storage, 6) for claim in turn(storage, capacity=1).claims]
        same = FrozenDict({"server": "one"})
        answered = [same, same, FrozenDict({"server": "two"}), FrozenDict(), same, FrozenDict({"server": "one"})]
        settlements = [
            attrs.evolve(one, attempt=attrs.evolve(one.attempt, response_headers=headers))
            for one, headers in zip(map(accepted, claims), answered, strict=True)
        ]
        turn(storage, *settlements)
        kept = [storage.get_delivery(claim.delivery_id).attempts[0].response_headers for claim in claims]
        assert kept == answered

    def test_statuses(self, storage: Storage) -> None:
        """A delivery takes its settlement's status and reason; a final one is never claimed again."""
        listening(storage, max_in_flight=4)
        waiting = emit_many(storage, 4)
        claims = turn(storage).claims
        settlements: list[Settlement] = [
            accepted(claims[0]),
            put_off(claims[1], due_at=at(5)),
            given_up(claims[2], reason="no more attempts"),
            attrs.evolve(given_up(claims[3]), status="discarded", reason="not wanted"),
        ]
        result = turn(storage, *settlements)
        assert [settled.settlement for settled in result.settled] == settlements
        expected = ["delivered", "retrying", "failed", "discarded"]
        assert [settled.status for settled in result.settled] == expected
        assert statuses(storage, waiting) == expected
        deliveries = [storage.get_delivery(each) for each in waiting]
        assert [delivery.reason for delivery in deliveries] == [None, None, "no more attempts", "not wanted"]
        assert [delivery.completed_at is None for delivery in deliveries] == [False, True, False, False]
        assert ids(turn(storage, now=at(5))) == [waiting[1]]

    def test_next_attempt_at(self, storage: Storage) -> None:
        """A waiting delivery says when its next attempt is due, the pause counted; others say None."""
        hook = listening(storage, max_in_flight=2)
        one, two, three = emit_many(storage, 3)
        first, second = turn(storage).claims
        assert storage.get_delivery(one).next_attempt_at is None
        turn(storage, put_off(first, due_at=at(100)), fails_and_pauses(second, T0, at(60)), capacity=0)
        moments = [storage.get_delivery(each).next_attempt_at for each in (one, two, three)]
        assert moments == [at(100), at(60), at(60)]
        storage.disable_hook(hook.id, T0, None)
        assert [storage.get_delivery(each).next_attempt_at for each in (one, two, three)] == [None] * 3

    def test_an_event_for_two_hooks_is_settled_for_each(self, storage: Storage) -> None:
        """One hook's result says nothing about another's delivery of the same event."""
        listening(storage), listening(storage)
        event = an_event()
        one, two = emit(storage, event).delivery_ids
        claims = {claim.delivery_id: claim for claim in turn(storage).claims}
        turn(storage, accepted(claims[one]), given_up(claims[two]))
        assert statuses(storage, [one, two]) == ["delivered", "failed"]
