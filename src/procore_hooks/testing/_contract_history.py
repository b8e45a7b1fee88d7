"""The storage contract's tests of the history: lists, redelivery, recovery, pruning and counting."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from random import Random
from typing import Any

import attrs
import pytest

from .._core.models import DeliveryStatus
from ..exceptions import Conflict, NotFound
from ..storage._base import DeliveryQuery, EventIdTaken, HookChange, Storage
from ._contract_values import (
    T0,
    a_hook,
    accepted,
    an_event,
    at,
    emit,
    emit_many,
    given_up,
    history,
    ids,
    listening,
    put_off,
    statuses,
    sweep,
    turn,
)

__all__ = ["HistoryContract", "PruneContract", "RedeliveryContract"]


def _settled(storage: Storage, status: DeliveryStatus, now: Any = T0) -> int:
    """Emit an event at `now`, whose delivery then comes to this final status. Returns the delivery's id."""
    (delivery_id,) = emit(storage, now=now).delivery_ids
    (claim,) = turn(storage, now=now).claims
    settlement = accepted(claim, now) if status == "delivered" else given_up(claim, now)
    turn(storage, attrs.evolve(settlement, status=status), now=now)
    return delivery_id


class HistoryContract:
    """Lists and counts."""

    def test_newest_first_in_pages(self, storage: Storage) -> None:
        """Deliveries of all hooks come by descending id; `before` and `limit` page through them."""
        listening(storage), listening(storage)
        made = emit_many(storage, 5)[::-1]
        assert len(made) == 10
        assert [delivery.id for delivery in history(storage)] == made
        assert [delivery.id for delivery in history(storage, limit=4)] == made[:4]
        assert [delivery.id for delivery in history(storage, limit=4, before=made[3])] == made[4:8]
        assert [delivery.id for delivery in history(storage, limit=4, before=made[7])] == made[8:]
        assert history(storage, before=made[-1]) == []

    def test_pages_are_stable_while_rows_arrive(self, storage: Storage) -> None:
        """What is emitted or settled between two pages neither repeats nor hides a delivery."""
        hook = listening(storage, max_in_flight=100)
        made = emit_many(storage, 9)[::-1]
        seen: list[int] = []
        before = None
        while page := storage.list_deliveries(DeliveryQuery(hook_id=hook.id, before=before, limit=2)):
            seen += [delivery.id for delivery in page]
            before = seen[-1]
            emit_many(storage, 3)
            turn(storage, *(accepted(claim) for claim in turn(storage, capacity=3).claims), capacity=0)
        assert seen == made

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ({}, [0, 1, 2, 3, 4]),
            ({"statuses": frozenset({"failed"})}, [2]),
            ({"statuses": frozenset({"retrying", "failed", "discarded"})}, [1, 2, 3]),
            ({"statuses": frozenset({"enqueued", "delivered"})}, [0, 4]),
            ({"resource": "RFIs"}, [0, 1, 4]),
            ({"action": "create"}, [1, 3]),
            ({"resource_id": "1"}, [0, 3]),
            ({"start": at(2)}, [2, 3, 4]),
            ({"end": at(2)}, [0, 1]),
            ({"start": at(1), "end": at(3)}, [1, 2]),
            ({"start": at(1), "end": at(1)}, []),
            ({"resource": "RFIs", "action": "create", "statuses": frozenset({"retrying"})}, [1]),
            ({"resource": "RFIs", "resource_id": "2"}, []),
        ],
        ids=str,
    )
    def test_filters(self, storage: Storage, filters: dict[str, Any], found: list[int]) -> None:
        """Each filter, alone and with others, leaves what fits; times are half-open."""
        hook = listening(storage, ("*", "*"), max_in_flight=4)
        events = [
            an_event("RFIs", "update", resource_id="1"),
            an_event("RFIs", "create"),
            an_event("Submittals", "update"),
            an_event("Submittals", "create", resource_id="1"),
            an_event("RFIs", "update", resource_id="11"),
        ]
        made = [emit(storage, event, now=at(second)).delivery_ids[0] for second, event in enumerate(events)]
        one, two, three, four = turn(storage, now=at(9)).claims
        discarded = attrs.evolve(given_up(four), status="discarded")
        turn(storage, accepted(one), put_off(two, due_at=at(900)), given_up(three), discarded, capacity=0)
        expected = [made[index] for index in reversed(found)]
        assert [delivery.id for delivery in history(storage, **filters)] == expected
        assert [delivery.id for delivery in history(storage, hook.id, **filters)] == expected
        assert [delivery.id for delivery in history(storage, limit=1, **filters)] == expected[:1]

    def test_by_hook(self, storage: Storage) -> None:
        """`hook_id` leaves that hook's deliveries; a hook that never was raises `NotFound`."""
        one, two = listening(storage), listening(storage)
        silent = storage.add_hook(a_hook())
        emit_many(storage, 2)
        assert {delivery.hook_id for delivery in history(storage, one.id)} == {one.id}
        assert len(history(storage, two.id)) == 2
        assert history(storage, silent.id) == []
        with pytest.raises(NotFound):
            history(storage, 987_654_321)

    def test_lists_carry_attempts_without_bodies(self, storage: Storage) -> None:
        """In a list the attempts are complete but for their bodies, which `get_delivery` has."""
        listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        success = accepted(claim)
        attempt = attrs.evolve(success.attempt, request_body=b"asked", response_body=b"answered")
        turn(storage, attrs.evolve(success, attempt=attempt))
        (listed,) = history(storage)
        full = storage.get_delivery(listed.id)
        assert full.attempts == (attempt,)
        assert listed.attempts == (attrs.evolve(attempt, request_body=b"", response_body=b""),)
        assert attrs.evolve(listed, attempts=()) == attrs.evolve(full, attempts=())

    def test_an_unknown_delivery_is_not_found(self, storage: Storage) -> None:
        """Getting and redelivering what never was raises `NotFound`."""
        with pytest.raises(NotFound):
            storage.get_delivery(987_654_321)
        with pytest.raises(NotFound):
            storage.redeliver(987_654_321, T0)

    def test_counts(self, storage: Storage) -> None:
        """Counts by status, of one hook or all, since a moment; statuses without any are left out."""
        one, two = listening(storage, ("A", "*")), listening(storage, ("B", "*"))
        assert storage.count_deliveries(None, T0) == {}
        emit_many(storage, 2, resource="A")
        emit_many(storage, 3, now=at(5), resource="B")
        claims = {claim.hook.id: claim for claim in turn(storage, now=at(6)).claims}
        turn(storage, accepted(claims[one.id]), given_up(claims[two.id]), now=at(6), capacity=0)
        assert storage.count_deliveries(None, T0) == {"delivered": 1, "failed": 1, "enqueued": 3}
        assert storage.count_deliveries(one.id, T0) == {"delivered": 1, "enqueued": 1}
        assert storage.count_deliveries(None, at(5)) == {"failed": 1, "enqueued": 2}
        assert storage.count_deliveries(None, at(5.001)) == {}

    def test_counts_in_buckets(self, storage: Storage) -> None:
        """A delivery counts from the very start of a bucket until just before the next; the last has no end."""
        one, two = listening(storage, ("A", "*"), max_in_flight=9), listening(storage, ("B", "*"))
        for moment in (-0.000001, 0, 9.999999, 10, 10, 19.999999, 20, 3_000_000):
            emit(storage, an_event("A"), now=at(moment))
        emit(storage, an_event("B"), now=at(5))
        claims = [claim for claim in turn(storage, now=at(20)).claims if claim.hook.id == one.id]
        turn(storage, accepted(claims[1]), put_off(claims[2], due_at=at(900)), given_up(claims[3]), capacity=0)
        ten = timedelta(seconds=10)
        assert storage.count_in_buckets(None, T0, ten, 4) == [
            {"delivered": 1, "retrying": 1, "enqueued": 1},
            {"failed": 1, "enqueued": 2},
            {"enqueued": 1},
            {"enqueued": 1},
        ]
        assert storage.count_in_buckets(two.id, T0, ten, 3) == [{"enqueued": 1}, {}, {}]
        assert storage.count_in_buckets(None, at(20), ten, 1) == [{"enqueued": 2}]
        assert storage.count_in_buckets(None, at(4_000_000), ten, 2) == [{}, {}]

    @pytest.mark.parametrize("seed", range(3))
    def test_buckets_together_are_the_count(self, storage: Storage, seed: int) -> None:
        """Whatever was made when, and became of it, the buckets of any range hold what the count of the range says."""
        random = Random(seed)
        hooks = [listening(storage, (resource, "*"), max_in_flight=30) for resource in ("A", "B")]
        for _ in range(60):
            emit(storage, an_event(random.choice("AB")), now=at(random.choice([random.uniform(0, 100), 50])))
        ends = (accepted, put_off, given_up)
        turn(storage, *(random.choice(ends)(claim) for claim in turn(storage, now=at(100), capacity=40).claims))
        storage.recover(hooks[0].id, T0, at(101), at(random.uniform(0, 100)))
        storage.prune(at(10))
        for hook_id in (None, *(hook.id for hook in hooks)):
            since, width, number = at(random.uniform(-10, 110)), timedelta(seconds=random.uniform(1, 50)), 4
            tallies = storage.count_in_buckets(hook_id, since, width, number)
            assert len(tallies) == number
            assert sum(map(Counter, tallies), Counter()) == storage.count_deliveries(hook_id, since)
            for position, tally in enumerate(tallies[:-1]):
                start = since + position * width
                found = history(storage, hook_id, start=start, end=start + width)
                assert tally == Counter(delivery.status for delivery in found)

    def test_counts_after_a_clock_was_set(self, storage: Storage) -> None:
        """Counts go by the moments of creation also where later deliveries have earlier ones, by hours and by days."""
        hook = listening(storage)
        moments = [0, 90_000, 3_600, 7_200, -90_000, 7_199, 7_200, 7_201, 3_599, -3_600_000, 90_000]
        for moment in moments:
            emit(storage, now=at(moment))
        for since in sorted({*moments, 7_300, 100_000}):
            expected = sum(moment >= since for moment in moments)
            assert storage.count_deliveries(None, at(since)).get("enqueued", 0) == expected
            assert storage.count_deliveries(hook.id, at(since)).get("enqueued", 0) == expected
        tallies = storage.count_in_buckets(None, at(3_600), timedelta(hours=1), 3)
        assert [tally.get("enqueued", 0) for tally in tallies] == [2, 3, 2]


class RedeliveryContract:
    """`redeliver` and `recover`."""

    def test_redeliver(self, storage: Storage) -> None:
        """A redelivery is a new delivery of the same event that points at the old one, which stays as it was."""
        hook = listening(storage)
        old_id = _settled(storage, "failed")
        old = storage.get_delivery(old_id)
        new = storage.redeliver(old_id, at(5))
        assert (new.hook_id, new.event, new.redelivery_of) == (hook.id, old.event, old_id)
        assert (new.status, new.attempts, new.attempt_count, new.created_at) == ("enqueued", (), 0, at(5))
        assert new.id > old_id
        assert storage.get_delivery(new.id) == new
        assert storage.get_delivery(old_id) == old
        assert ids(turn(storage, now=at(5))) == [new.id]

    def test_a_redelivery_goes_to_the_end_of_the_queue(self, storage: Storage) -> None:
        """It waits behind what was emitted before it; a delivered one may be sent again too."""
        listening(storage, max_in_flight=5)
        old = _settled(storage, "delivered")
        waiting = emit_many(storage, 2)
        new = storage.redeliver(old, T0)
        assert ids(turn(storage)) == [*waiting, new.id]

    def test_a_delivery_that_is_not_final_is_not_redelivered(self, storage: Storage) -> None:
        """Waiting, under way or retrying: `Conflict`, and nothing is made."""
        listening(storage)
        (delivery_id,) = emit(storage).delivery_ids
        with pytest.raises(Conflict):
            storage.redeliver(delivery_id, T0)
        (claim,) = turn(storage).claims
        with pytest.raises(Conflict):
            storage.redeliver(delivery_id, T0)
        turn(storage, put_off(claim, due_at=at(5)))
        with pytest.raises(Conflict):
            storage.redeliver(delivery_id, T0)
        assert len(history(storage)) == 1

    def test_redelivery_to_a_hook_that_cannot_have_it(self, storage: Storage) -> None:
        """Disabled and dropping: `Conflict`; disabled and keeping: it waits; deleted: `NotFound`. So does recovery."""
        hook = listening(storage)
        old = _settled(storage, "failed")
        storage.disable_hook(hook.id, T0, None)
        new = storage.redeliver(old, T0)
        assert ids(turn(storage)) == []
        storage.update_hook(hook.id, {"when_disabled": "drop"}, T0)
        with pytest.raises(Conflict):
            storage.redeliver(old, T0)
        with pytest.raises(Conflict):
            storage.recover(hook.id, T0, at(1), T0)
        storage.enable_hook(hook.id, T0)
        assert ids(turn(storage)) == [new.id]
        storage.delete_hook(hook.id, T0, "deleted")
        with pytest.raises(NotFound):
            storage.redeliver(old, T0)
        with pytest.raises(NotFound):
            storage.recover(hook.id, T0, at(1), T0)

    def test_recover_sends_what_was_lost_again(self, storage: Storage) -> None:
        """Failed and discarded deliveries, and no others, of that hook, in the order of their ids, once."""
        hook = listening(storage, max_in_flight=9)
        other = listening(storage, ("RFIs", "create"))
        failed, delivered = _settled(storage, "failed"), _settled(storage, "delivered")
        discarded, failed_later = _settled(storage, "discarded"), _settled(storage, "failed")
        emit(storage, an_event("RFIs", "create"))
        (claim,) = turn(storage).claims
        turn(storage, given_up(claim), capacity=0)
        assert storage.recover(hook.id, T0, at(1), at(5)) == 3
        made = history(storage, hook.id)[:3][::-1]
        assert [delivery.redelivery_of for delivery in made] == [failed, discarded, failed_later]
        assert [storage.get_delivery(old).event for old in (failed, discarded, failed_later)] == [
            delivery.event for delivery in made
        ]
        assert {(delivery.status, delivery.created_at) for delivery in made} == {("enqueued", at(5))}
        assert delivered not in [delivery.redelivery_of for delivery in made]
        assert len(history(storage, other.id)) == 1
        assert ids(turn(storage, now=at(5))) == [delivery.id for delivery in made]

    def test_the_range_of_recover_is_half_open(self, storage: Storage) -> None:
        """`since <= created_at < until`."""
        hook = listening(storage)
        made = [_settled(storage, "failed", at(second)) for second in range(4)]
        assert storage.recover(hook.id, at(1), at(3), at(9)) == 2
        assert [delivery.redelivery_of for delivery in history(storage)[:2]] == [made[2], made[1]]

    @pytest.mark.parametrize(
        ("fate", "again"), [("enqueued", 0), ("retrying", 0), ("delivered", 0), ("failed", 1), ("discarded", 1)]
    )
    def test_a_live_or_delivered_redelivery_covers(self, storage: Storage, fate: str, again: int) -> None:
        """What a redelivery waits for, tries or has delivered is not sent again; after one that was lost, it is, once.

        The lost redelivery lies in the range too: its event is sent once all the same.
        """
        hook = listening(storage)
        old = _settled(storage, "failed")
        storage.redeliver(old, T0)
        if fate != "enqueued":
            (claim,) = turn(storage).claims
            settlements = {
                "retrying": put_off(claim, due_at=at(50)),
                "delivered": accepted(claim),
                "failed": given_up(claim),
                "discarded": attrs.evolve(given_up(claim), status="discarded"),
            }
            turn(storage, settlements[fate])
        assert storage.recover(hook.id, T0, at(1), at(2)) == again
        assert storage.recover(hook.id, T0, at(3), at(3)) == 0
        assert len(history(storage)) == 2 + again

    def test_another_hooks_redelivery_does_not_cover(self, storage: Storage) -> None:
        """Coverage is of the hook: another hook's redelivery of the same event is nothing to this one."""
        one, two = listening(storage), listening(storage)
        mine, others = emit(storage).delivery_ids
        turn(storage, *(given_up(claim) for claim in turn(storage).claims))
        storage.redeliver(others, T0)
        assert storage.recover(one.id, T0, at(1), T0) == 1
        assert history(storage)[0].redelivery_of == mine
        assert storage.recover(two.id, T0, at(1), T0) == 0

    def test_recovering_a_flushed_queue(self, storage: Storage) -> None:
        """What a flush discarded comes back in its order."""
        hook = listening(storage)
        waiting = emit_many(storage, 4)
        (claim,) = turn(storage).claims
        turn(storage, given_up(claim, change=HookChange(flush_reason="flushed")), capacity=0)
        sweep(storage)
        assert storage.recover(hook.id, T0, at(1), at(1)) == 4
        assert [delivery.redelivery_of for delivery in history(storage)[:4]] == waiting[::-1]


class PruneContract:
    """`prune`."""

    def test_final_deliveries_of_before_are_deleted(self, storage: Storage) -> None:
        """Final deliveries created before the moment go; newer ones, and ones that are not final, stay."""
        listening(storage, max_in_flight=9)
        old = [_settled(storage, status, at(1)) for status in ("delivered", "failed", "discarded")]
        (under_way,) = emit(storage, now=at(1)).delivery_ids
        turn(storage, now=at(1))
        (waiting,) = emit(storage, now=at(1)).delivery_ids
        newer = storage.redeliver(old[0], at(2)).id
        assert storage.prune(at(1)) == 0
        assert storage.prune(at(2)) == 3
        assert [delivery.id for delivery in history(storage)] == [newer, waiting, under_way]
        for delivery_id in old:
            with pytest.raises(NotFound):
                storage.get_delivery(delivery_id)
        assert storage.prune(at(2)) == 0
        assert ids(turn(storage, now=at(3))) == [waiting, newer]

    def test_an_event_goes_with_its_last_delivery(self, storage: Storage) -> None:
        """An event stays while any delivery of it is left, and its id is free once none is."""
        listening(storage, ("RFIs", "*"), max_in_flight=9), listening(storage, ("RFIs", "*"), max_in_flight=9)
        event = an_event()
        one, two = emit(storage, event).delivery_ids
        claims = {claim.delivery_id: claim for claim in turn(storage).claims}
        turn(storage, accepted(claims[one]))
        assert storage.prune(at(1)) == 1
        assert storage.get_delivery(two).event == event
        with pytest.raises(EventIdTaken):
            emit(storage, event)
        turn(storage, accepted(claims[two]))
        assert storage.prune(at(1)) == 1
        assert len(emit(storage, event).delivery_ids) == 2

    def test_ids_are_not_used_again_after_a_prune(self, storage: Storage) -> None:
        """A delivery emitted after a prune of everything has a new id, and is delivered."""
        listening(storage)
        old = _settled(storage, "delivered")
        assert storage.prune(at(1)) == 1
        (new,) = emit(storage, now=at(1)).delivery_ids
        assert new > old
        assert ids(turn(storage, now=at(1))) == [new]

    def test_keys_of_before_are_forgotten(self, storage: Storage) -> None:
        """A key stored before the moment may be used anew; a newer one still gives its first emission."""
        listening(storage)
        first, second = emit(storage, key="a", now=at(1)), emit(storage, key="b", now=at(2))
        unmatched = emit(storage, an_event("Submittals"), key="c", now=at(2))
        storage.prune(at(2))
        assert emit(storage, key="a", now=at(3), fingerprint=b"another").event != first.event
        assert emit(storage, key="b", now=at(3)) == second
        assert emit(storage, key="c", now=at(3)) == unmatched

    def test_pruning_more_than_one_step(self, storage: Storage) -> None:
        """Thousands of deliveries are pruned in one call, in whatever steps."""
        hook = listening(storage)
        emit_many(storage, 2500)
        storage.disable_hook(hook.id, T0, "dropped")
        sweep(storage)
        assert storage.prune(at(1)) == 2500
        assert storage.count_deliveries(None, T0) == {}
        assert statuses(storage, []) == []
