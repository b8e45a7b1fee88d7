"""The storage contract's tests of emitting: who gets what, all or nothing, and once per idempotency key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .._core.frozen import freeze
from .._core.models import Emission
from ..exceptions import Conflict, IdempotencyConflict, InvalidInput, NotFound
from ..storage._base import EmitRequest, EventIdTaken, Settlement, Storage
from ._contract_values import (
    T0,
    a_hook,
    accepted,
    an_event,
    at,
    emit,
    emit_many,
    fails_and_pauses,
    history,
    ids,
    listening,
    statuses,
    turn,
)

__all__ = ["EmitContract", "PingContract"]

_SCOPES: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, True),
    ({}, {"company_id": "8"}, True),
    ({}, {"company_id": "8", "project_id": "6778"}, True),
    ({}, {"project_id": "6778"}, True),
    ({"company_id": "8"}, {"company_id": "8"}, True),
    ({"company_id": "8"}, {"company_id": "9"}, False),
    ({"company_id": "8"}, {}, False),
    ({"company_id": "8"}, {"company_id": "8", "project_id": "6778"}, False),
    ({"company_id": "8", "include_projects": True}, {"company_id": "8"}, True),
    ({"company_id": "8", "include_projects": True}, {"company_id": "8", "project_id": "6778"}, True),
    ({"company_id": "8", "include_projects": True}, {"company_id": "9", "project_id": "6778"}, False),
    ({"company_id": "8", "include_projects": True}, {"project_id": "6778"}, False),
    ({"project_id": "6778"}, {"project_id": "6778"}, True),
    ({"project_id": "6778"}, {"company_id": "8", "project_id": "6778"}, True),
    ({"project_id": "6778"}, {"company_id": "8", "project_id": "1"}, False),
    ({"project_id": "6778"}, {"company_id": "8"}, False),
    ({"company_id": "8", "project_id": "6778"}, {"company_id": "8", "project_id": "6778"}, True),
    ({"company_id": "8", "project_id": "6778"}, {"project_id": "6778"}, True),
    ({"company_id": "8", "project_id": "6778"}, {"company_id": "9", "project_id": "6778"}, False),
    ({"company_id": "8", "project_id": "6778"}, {"company_id": "8"}, False),
]


class EmitContract:
    """Emitting."""

    @pytest.mark.parametrize(("hook", "event", "fits"), _SCOPES, ids=str)
    def test_scope(self, storage: Storage, hook: dict[str, Any], event: dict[str, Any], fits: bool) -> None:
        """A hook gets the events of its scope and no others."""
        listening(storage, **hook)
        assert len(emit(storage, an_event(**event)).delivery_ids) == fits

    @pytest.mark.parametrize(
        ("trigger", "fits"),
        [
            (("RFIs", "update"), True),
            (("RFIs", "*"), True),
            (("*", "update"), True),
            (("*", "*"), True),
            (("RFIs", "create"), False),
            (("Submittals", "update"), False),
            (("Submittals", "*"), False),
            (("*", "create"), False),
            (("rfis", "update"), False),
        ],
        ids=str,
    )
    def test_triggers_and_wildcards(self, storage: Storage, trigger: tuple[str, str], fits: bool) -> None:
        """A trigger fits by its resource and action, to the letter; ``*`` fits any."""
        listening(storage, trigger)
        assert len(emit(storage, an_event("RFIs", "update")).delivery_ids) == fits

    def test_several_triggers_of_a_hook_make_one_delivery(self, storage: Storage) -> None:
        """A hook of which several triggers match gets the event once."""
        listening(storage, ("RFIs", "update"), ("RFIs", "*"), ("*", "update"), ("*", "*"))
        assert len(emit(storage).delivery_ids) == 1

    def test_delivery_ids_follow_events_then_hooks(self, storage: Storage) -> None:
        """Of one call, ids rise in the order of the events, and of one event by ascending hook id."""
        hooks = [
            listening(storage, ("*", "*")),
            listening(storage, project_id="1"),
            listening(storage, company_id="8", include_projects=True),
            listening(storage, ("RFIs", "*")),
        ]
        events = [an_event(company_id="8", project_id="1") for _ in range(3)]
        emissions = storage.emit([EmitRequest(event=event) for event in events], T0, None)
        made = [delivery_id for emission in emissions for delivery_id in emission.delivery_ids]
        assert made == sorted(set(made))
        assert [storage.get_delivery(each).hook_id for each in made] == [hook.id for hook in hooks] * 3
        assert [emission.event for emission in emissions] == events
        assert emit(storage, an_event(project_id="1")).delivery_ids[0] > made[-1]

    def test_an_event_comes_back_as_it_was_emitted(self, storage: Storage) -> None:
        """A delivery carries the event field for field, its payload byte for byte."""
        listening(storage, ("*", "*"))
        event = an_event(
            "Änderungen",
            "create",
            id=2**63 - 1,
            resource_id="54321",
            company_id="8",
            project_id="6778",
            user_id="u-1",
            occurred_at=at(-3600.654321),
            payload_json='{"subject":"Tür 12 🚪","n":9007199254740993,"x":1.0,"nested":[{"a":null}]}'.encode(),
            metadata=freeze({"source": "import", "deep": {"list": [1, 2]}}),
            related_resources=(freeze({"id": 7, "name": "Drawings"}),),
        )
        emission = emit(storage, event)
        assert emission.event == event
        stored = storage.get_delivery(emission.delivery_ids[0]).event
        assert stored == event
        assert stored.payload_json == event.payload_json
        assert turn(storage).claims[0].event == event

    def test_a_new_delivery(self, storage: Storage) -> None:
        """A new delivery is enqueued, unattempted, and created at the `now` of its emit."""
        hook = listening(storage)
        (delivery_id,) = emit(storage, now=at(1.5)).delivery_ids
        delivery = storage.get_delivery(delivery_id)
        assert (delivery.id, delivery.hook_id, delivery.status) == (delivery_id, hook.id, "enqueued")
        assert (delivery.attempts, delivery.attempt_count, delivery.last_attempt) == ((), 0, None)
        assert (delivery.created_at, delivery.completed_at) == (at(1.5), None)
        assert (delivery.redelivery_of, delivery.reason) == (None, None)

    def test_an_unmatched_event_is_not_stored(self, storage: Storage) -> None:
        """An event that no hook matches leaves nothing, not even its id in use."""
        event = an_event()
        assert emit(storage, event) == Emission(event, ())
        assert history(storage) == []
        listening(storage)
        assert len(emit(storage, event).delivery_ids) == 1

    def test_emitting_nothing(self, storage: Storage) -> None:
        """No events give no emissions."""
        assert storage.emit([], T0, None) == []

    def test_an_event_id_in_use_is_refused(self, storage: Storage) -> None:
        """A stored event's id, or one that came twice in a call, raises `EventIdTaken`; nothing is stored."""
        listening(storage)
        taken, fresh = an_event(), an_event()
        emit(storage, taken)
        for events in ([an_event(), an_event(id=taken.id)], [fresh, an_event(id=fresh.id)]):
            with pytest.raises(EventIdTaken):
                storage.emit([EmitRequest(event=event) for event in events], T0, None)
        assert [delivery.event for delivery in history(storage)] == [taken]

    def test_the_same_key_gives_the_first_emission(self, storage: Storage) -> None:
        """A key seen before, with the same fingerprint, gives the first emission again and stores nothing."""
        listening(storage)
        first = emit(storage, key="order-1")
        assert len(first.delivery_ids) == 1
        listening(storage)
        assert emit(storage, key="order-1", now=at(60)) == first
        assert emit(storage, an_event("Submittals"), key="order-1", now=at(60)) == first
        assert len(history(storage)) == 1
        assert len(emit(storage, key="order-2").delivery_ids) == 2

    def test_a_key_holds_for_an_unmatched_event_too(self, storage: Storage) -> None:
        """An event that matched nobody, emitted with a key, is not delivered when its key comes again."""
        first = emit(storage, key="order-1")
        assert first.delivery_ids == ()
        listening(storage)
        assert emit(storage, key="order-1") == first
        assert history(storage) == []
        with pytest.raises(IdempotencyConflict):
            emit(storage, key="order-1", fingerprint=b"another")
        with pytest.raises(EventIdTaken):
            emit(storage, an_event(id=first.event.id))

    def test_a_key_with_other_content_is_refused(self, storage: Storage) -> None:
        """A key seen before with another fingerprint raises `IdempotencyConflict`; nothing of the call is stored."""
        listening(storage)
        emit(storage, key="order-1")
        requests = [
            EmitRequest(event=an_event()),
            EmitRequest(event=an_event(), idempotency_key="order-2", fingerprint=b"one"),
            EmitRequest(event=an_event(), idempotency_key="order-1", fingerprint=b"another"),
        ]
        with pytest.raises(IdempotencyConflict):
            storage.emit(requests, T0, None)
        assert len(history(storage)) == 1
        assert len(emit(storage, key="order-2", fingerprint=b"two").delivery_ids) == 1

    def test_a_key_twice_in_one_call(self, storage: Storage) -> None:
        """The second use of a key in one call is a replay of the first; with other content it is refused."""
        listening(storage)

        def request(fingerprint: bytes) -> EmitRequest:
            return EmitRequest(event=an_event(), idempotency_key="order-1", fingerprint=fingerprint)

        with pytest.raises(IdempotencyConflict):
            storage.emit([request(b"one"), request(b"two")], T0, None)
        assert history(storage) == []
        first, second = storage.emit([request(b""), request(b"")], T0, None)
        assert first == second
        assert len(history(storage)) == 1

    def test_a_key_outlives_its_hook(self, storage: Storage) -> None:
        """The first emission comes again also when its hook was deleted since."""
        hook = listening(storage)
        first = emit(storage, key="order-1")
        storage.delete_hook(hook.id, T0, "deleted")
        assert emit(storage, key="order-1") == first

    def test_a_disabled_hook_keeps(self, storage: Storage) -> None:
        """A disabled hook that keeps gets its events after it is enabled."""
        hook = listening(storage)
        storage.disable_hook(hook.id, T0, None)
        (delivery_id,) = emit(storage).delivery_ids
        assert statuses(storage, [delivery_id]) == ["enqueued"]
        assert ids(turn(storage)) == []
        storage.enable_hook(hook.id, at(1))
        assert ids(turn(storage, now=at(1))) == [delivery_id]

    def test_a_disabled_hook_drops(self, storage: Storage) -> None:
        """A disabled hook that drops has its events discarded, with a reason, and never sent; others get theirs."""
        hook, other = listening(storage, when_disabled="drop"), listening(storage)
        storage.disable_hook(hook.id, T0, None)
        dropped, kept = emit(storage, now=at(1)).delivery_ids
        assert statuses(storage, [dropped, kept]) == ["discarded", "enqueued"]
        delivery = storage.get_delivery(dropped)
        assert delivery.reason
        assert delivery.completed_at is not None
        storage.enable_hook(hook.id, at(2))
        assert ids(turn(storage, now=at(2))) == [kept]
        later = emit(storage, now=at(3)).delivery_ids
        assert [storage.get_delivery(each).hook_id for each in later] == [hook.id, other.id]
        assert ids(turn(storage, now=at(3))) == [later[0]]

    def test_a_foreign_connection_is_refused(self, storage: Storage) -> None:
        """What is no connection on the storage's database raises `InvalidInput`, and nothing is stored."""
        listening(storage)
        with pytest.raises(InvalidInput, match="connection"):
            storage.emit([EmitRequest(event=an_event())], T0, object())
        assert history(storage) == []

    def test_deliveries_and_keys_outlive_the_storage_object(
        self, storage: Storage, reopen: Callable[[], Storage] | None
    ) -> None:
        """Of a durable storage, another object on the same data sees at once what this one stored."""
        if reopen is None:
            pytest.skip("this storage is not durable")
        listening(storage)
        again = reopen()
        try:
            first = emit(storage, key="order-1")
            assert emit(again, key="order-1") == first
            (claim,) = turn(again).claims
            assert ids(turn(storage)) == []
            turn(storage, accepted(claim))
            assert again.get_delivery(claim.delivery_id).status == "delivered"
        finally:
            again.close()


class PingContract:
    """Pings."""

    def test_a_ping_goes_ahead_of_all_that_waits(self, storage: Storage) -> None:
        """A ping needs no trigger, and is claimed before returned and fresh deliveries of its hook."""
        hook = listening(storage)
        returned, fresh = emit_many(storage, 2)
        turn(storage, lease=at(1) - T0)
        turn(storage, now=at(1), capacity=0)
        event = an_event("ping", "ping")
        ping = storage.add_ping(hook.id, event, at(2))
        assert (ping.hook_id, ping.event, ping.status, ping.created_at) == (hook.id, event, "enqueued", at(2))
        assert storage.get_delivery(ping.id) == ping
        order = []
        settled: list[Settlement] = []
        for _ in range(3):
            (claim,) = turn(storage, *settled, now=at(2)).claims
            order.append(claim.delivery_id)
            settled = [accepted(claim, at(2))]
        assert order == [ping.id, returned, fresh]

    def test_a_ping_ends_the_pause(self, storage: Storage) -> None:
        """A ping of a paused hook goes out at once."""
        hook = listening(storage)
        emit(storage)
        (claim,) = turn(storage).claims
        turn(storage, fails_and_pauses(claim, T0, at(3600)))
        ping = storage.add_ping(hook.id, an_event(), at(1))
        assert storage.get_hook(hook.id).paused_until is None
        assert ids(turn(storage, now=at(1))) == [ping.id]

    def test_a_ping_goes_to_its_hook_alone(self, storage: Storage) -> None:
        """Other hooks that want such events do not get the ping."""
        hook, _ = listening(storage), listening(storage, ("*", "*"))
        ping = storage.add_ping(hook.id, an_event(), T0)
        assert ids(turn(storage)) == [ping.id]

    def test_a_ping_that_cannot_go_out_is_refused(self, storage: Storage) -> None:
        """Without the hook a ping raises `NotFound`, while it is disabled `Conflict`; nothing is stored."""
        hook = storage.add_hook(a_hook())
        storage.disable_hook(hook.id, T0, None)
        with pytest.raises(Conflict):
            storage.add_ping(hook.id, an_event(), T0)
        assert history(storage) == []
        storage.delete_hook(hook.id, T0, "deleted")
        with pytest.raises(NotFound):
            storage.add_ping(hook.id, an_event(), T0)
