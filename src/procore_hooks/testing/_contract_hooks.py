"""The storage contract's tests of hooks and triggers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import attrs
import pytest

from .._core.models import Hook, PreviousSecret, Trigger
from .._core.secret import Secret
from ..exceptions import DuplicateTrigger, NotFound, StorageError
from ..storage._base import DeliveryQuery, HookQuery, Storage
from ._contract_values import (
    LEASE,
    T0,
    a_hook,
    accepted,
    an_event,
    at,
    emit,
    emit_many,
    history,
    ids,
    listening,
    turn,
)

__all__ = ["HookContract", "TriggerContract"]

_UNKNOWN = 987_654_321
_CALLS: dict[str, Callable[[Storage], object]] = {
    "subscribe": lambda storage: storage.subscribe(lambda: None),
    "add_hook": lambda storage: storage.add_hook(a_hook()),
    "get_hook": lambda storage: storage.get_hook(_UNKNOWN),
    "list_hooks": lambda storage: storage.list_hooks(HookQuery()),
    "update_hook": lambda storage: storage.update_hook(_UNKNOWN, {"namespace": "other"}, T0),
    "enable_hook": lambda storage: storage.enable_hook(_UNKNOWN, T0),
    "disable_hook": lambda storage: storage.disable_hook(_UNKNOWN, T0, None),
    "delete_hook": lambda storage: storage.delete_hook(_UNKNOWN, T0, "deleted"),
    "add_trigger": lambda storage: storage.add_trigger(_UNKNOWN, "RFIs", "create"),
    "list_triggers": lambda storage: storage.list_triggers(_UNKNOWN, 0, 25),
    "delete_trigger": lambda storage: storage.delete_trigger(_UNKNOWN),
    "replace_triggers": lambda storage: storage.replace_triggers(_UNKNOWN, []),
    "emit": lambda storage: emit(storage),
    "add_ping": lambda storage: storage.add_ping(_UNKNOWN, an_event(), T0),
    "list_deliveries": lambda storage: storage.list_deliveries(DeliveryQuery()),
    "get_delivery": lambda storage: storage.get_delivery(_UNKNOWN),
    "payload_version_of": lambda storage: storage.payload_version_of(_UNKNOWN),
    "redeliver": lambda storage: storage.redeliver(_UNKNOWN, T0),
    "recover": lambda storage: storage.recover(_UNKNOWN, T0, T0, T0),
    "prune": lambda storage: storage.prune(T0),
    "count_deliveries": lambda storage: storage.count_deliveries(None, T0),
    "count_in_buckets": lambda storage: storage.count_in_buckets(None, T0, LEASE, 3),
    "turn": lambda storage: storage.turn([], now=T0, due_by=T0, lease=LEASE, capacity=1),
}


class HookContract:
    """Hooks: stored, listed, changed, enabled, disabled, deleted; and the end of a storage."""

    def test_a_hook_comes_back_as_it_was_stored(self, storage: Storage) -> None:
        """A hook comes back field for field, secrets included, under an id of the storage's choice."""
        given = a_hook(
            namespace="acme-sync",
            destination_url="https://hooks.acme.example/in?token=c3a24b8208",
            destination_headers={"Authorization": Secret("Bearer c3a24b8208"), "X-Größe": Secret("ü")},
            company_id="8",
            project_id="9007199254740993",
            when_disabled="drop",
            payload_version="v2.0",
            max_in_flight=7,
            previous_secrets=(PreviousSecret(secret=Secret("whsec_b2xk"), expires_at=at(86400.123456)),),
        )
        stored = storage.add_hook(given)
        assert stored == attrs.evolve(given, id=stored.id)
        assert storage.get_hook(stored.id) == stored
        assert storage.get_hook(stored.id).destination_headers["Authorization"].reveal() == "Bearer c3a24b8208"

    def test_a_company_hook_keeps_whether_it_includes_projects(self, storage: Storage) -> None:
        """`include_projects` is kept."""
        hook = storage.add_hook(a_hook(company_id="8", include_projects=True))
        assert storage.get_hook(hook.id).include_projects is True

    def test_hook_ids_rise_and_are_never_used_again(self, storage: Storage) -> None:
        """The id of a deleted hook, even of the newest, does not come back."""
        first, second = storage.add_hook(a_hook()), storage.add_hook(a_hook())
        storage.delete_hook(second.id, T0, "deleted")
        third = storage.add_hook(a_hook())
        storage.delete_hook(third.id, T0, "deleted")
        storage.delete_hook(first.id, T0, "deleted")
        assert first.id < second.id < third.id < storage.add_hook(a_hook()).id

    def test_a_hook_that_never_was_is_not_found(self, storage: Storage) -> None:
        """Getting, changing and deleting an unknown hook raises `NotFound`."""
        for call in ("get_hook", "update_hook", "delete_hook", "payload_version_of"):
            with pytest.raises(NotFound):
                _CALLS[call](storage)

    def test_hooks_are_listed_by_id_in_pages(self, storage: Storage) -> None:
        """`after` and `limit` page through the hooks by ascending id; deleted ones are left out."""
        hooks = [storage.add_hook(a_hook()) for _ in range(6)]
        storage.delete_hook(hooks[2].id, T0, "deleted")
        kept = [hook.id for hook in hooks if hook is not hooks[2]]
        assert [hook.id for hook in storage.list_hooks(HookQuery())] == kept
        assert [hook.id for hook in storage.list_hooks(HookQuery(limit=2))] == kept[:2]
        assert [hook.id for hook in storage.list_hooks(HookQuery(after=kept[1], limit=2))] == kept[2:4]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            (HookQuery(namespace="a"), [0]),
            (HookQuery(company_id="8"), [0, 1]),
            (HookQuery(project_id="6778"), [1]),
            (HookQuery(status="disabled"), [2]),
            (HookQuery(status="active", company_id="8", namespace="b"), [1]),
            (HookQuery(company_id="9"), []),
        ],
        ids=str,
    )
    def test_hooks_are_listed_by_filter(self, storage: Storage, query: HookQuery, found: list[int]) -> None:
        """Each filter, and all together, leave the hooks that fit."""
        hooks = [
            storage.add_hook(a_hook(namespace="a", company_id="8")),
            storage.add_hook(a_hook(namespace="b", company_id="8", project_id="6778")),
            storage.add_hook(a_hook(namespace="b")),
        ]
        storage.disable_hook(hooks[2].id, T0, None)
        assert [hook.id for hook in storage.list_hooks(query)] == [hooks[index].id for index in found]

    @pytest.mark.parametrize(
        "changes",
        [
            {"destination_url": "https://elsewhere.example/"},
            {"namespace": "other", "destination_headers": {"X-Key": Secret("k")}},
            {"company_id": "8", "include_projects": True},
            {"when_disabled": "drop"},
            {"max_in_flight": 5},
            {
                "signing_secret": Secret("whsec_bmV3"),
                "previous_secrets": (PreviousSecret(secret=Secret("whsec_b2xk"), expires_at=at(60)),),
            },
        ],
        ids=lambda changes: "+".join(changes),
    )
    def test_an_update_changes_the_named_fields(self, storage: Storage, changes: dict[str, Any]) -> None:
        """An update sets the named fields and `updated_at`, and nothing else."""
        hook, other = storage.add_hook(a_hook()), storage.add_hook(a_hook())
        updated = storage.update_hook(hook.id, changes, at(5))
        assert updated == attrs.evolve(hook, updated_at=at(5), **changes)
        assert storage.get_hook(hook.id) == updated
        assert storage.get_hook(other.id) == other

    def test_an_update_may_be_a_function_of_the_hook(self, storage: Storage) -> None:
        """It is asked once, about the hook as it stands; if it raises, that is raised and nothing is stored."""
        hook = storage.add_hook(a_hook())
        asked: list[Hook] = []

        def another_room(now: Hook) -> dict[str, Any]:
            asked.append(now)
            return {"max_in_flight": now.max_in_flight + 1}

        def refused(now: Hook) -> dict[str, Any]:
            raise LookupError(now.id)

        first = storage.update_hook(hook.id, another_room, at(1))
        second = storage.update_hook(hook.id, another_room, at(2))
        assert asked == [hook, first]
        assert second == attrs.evolve(hook, max_in_flight=3, updated_at=at(2))
        with pytest.raises(LookupError):
            storage.update_hook(hook.id, refused, at(3))
        assert storage.get_hook(hook.id) == second

    def test_an_update_goes_for_the_next_claim(self, storage: Storage) -> None:
        """A claim carries the hook as it is now, not as it was when the event was emitted."""
        hook = listening(storage)
        emit(storage)
        storage.update_hook(hook.id, {"destination_url": "https://elsewhere.example/"}, at(1))
        (claim,) = turn(storage, now=at(2)).claims
        assert claim.hook == storage.get_hook(hook.id)
        assert claim.hook.destination_url == "https://elsewhere.example/"

    def test_a_change_of_scope_goes_for_its_triggers(self, storage: Storage) -> None:
        """After a change of scope the hook's triggers match in the new scope, and only there."""
        hook = listening(storage, ("RFIs", "*"), company_id="8")
        storage.update_hook(hook.id, {"company_id": "9"}, T0)
        assert emit(storage, an_event(company_id="8")).delivery_ids == ()
        assert len(emit(storage, an_event(company_id="9")).delivery_ids) == 1
        storage.update_hook(hook.id, {"include_projects": True}, T0)
        assert len(emit(storage, an_event(company_id="9", project_id="1")).delivery_ids) == 1
        storage.update_hook(hook.id, {"company_id": None, "include_projects": False}, T0)
        assert len(emit(storage, an_event(company_id="8")).delivery_ids) == 1

    def test_a_change_of_max_in_flight_goes_for_the_next_turn(self, storage: Storage) -> None:
        """Raised, more are claimed; lowered, none until fewer are under way."""
        hook = listening(storage)
        waiting = emit_many(storage, 6)
        first = turn(storage)
        assert ids(first) == waiting[:1]
        storage.update_hook(hook.id, {"max_in_flight": 3}, T0)
        second = turn(storage)
        assert ids(second) == waiting[1:3]
        storage.update_hook(hook.id, {"max_in_flight": 1}, T0)
        settled = [accepted(claim) for claim in (*first.claims, *second.claims)]
        assert ids(turn(storage, *settled[:2])) == []
        assert ids(turn(storage, settled[2])) == waiting[3:4]

    def test_triggers_may_be_replaced_by_a_function_of_them(self, storage: Storage) -> None:
        """It is asked once, about those that are there, by id; if it raises, that is raised and nothing changes."""
        hook = listening(storage, ("RFIs", "update"), ("Users", "*"))
        before = storage.list_triggers(hook.id, 0, 10)
        asked: list[list[Trigger]] = []

        def others(present: Sequence[Trigger]) -> list[tuple[str, str]]:
            asked.append(list(present))
            return [("Users", "*"), ("Tasks", "create"), ("Tasks", "create")]

        def refused(present: Sequence[Trigger]) -> list[tuple[str, str]]:
            raise LookupError(len(present))

        after = storage.replace_triggers(hook.id, others)
        assert asked == [before]
        assert [(one.resource, one.action) for one in after] == [("Users", "*"), ("Tasks", "create")]
        assert after[0] == before[1]
        with pytest.raises(LookupError):
            storage.replace_triggers(hook.id, refused)
        assert storage.list_triggers(hook.id, 0, 10) == after

    def test_enabling_and_disabling_show(self, storage: Storage) -> None:
        """What `disable_hook` and `enable_hook` return is what `get_hook` then gives."""
        hook = storage.add_hook(a_hook())
        assert storage.disable_hook(hook.id, at(1), None).status == "disabled"
        assert storage.get_hook(hook.id).status == "disabled"
        assert storage.enable_hook(hook.id, at(2)).status == "active"
        assert storage.get_hook(hook.id).status == "active"

    def test_a_deleted_hook_leaves_only_its_history(self, storage: Storage) -> None:
        """A deleted hook is not found, gets no events and has no triggers; its deliveries stay listed."""
        hook, other = listening(storage, payload_version="v2.0"), listening(storage)
        (delivery_id, _) = emit(storage).delivery_ids
        storage.delete_hook(hook.id, T0, "deleted by an admin")
        with pytest.raises(NotFound):
            storage.get_hook(hook.id)
        with pytest.raises(NotFound):
            storage.update_hook(hook.id, {"namespace": "other"}, T0)
        with pytest.raises(NotFound):
            storage.delete_hook(hook.id, T0, "deleted")
        with pytest.raises(NotFound):
            storage.list_triggers(hook.id, 0, 25)
        assert [storage.get_delivery(made).hook_id for made in emit(storage).delivery_ids] == [other.id]
        assert [delivery.id for delivery in history(storage, hook.id)] == [delivery_id]
        assert storage.payload_version_of(hook.id) == "v2.0"

    def test_the_payload_version_of_a_hook(self, storage: Storage) -> None:
        """A hook's payload version is told by its id."""
        hook = storage.add_hook(a_hook(payload_version="standard"))
        assert storage.payload_version_of(hook.id) == "standard"

    @pytest.mark.parametrize("call", list(_CALLS))
    def test_a_closed_storage_refuses_every_call(self, storage: Storage, call: str) -> None:
        """After `close`, which may be called again, every other call raises `StorageError`."""
        listening(storage)
        storage.close()
        storage.close()
        with pytest.raises(StorageError):
            _CALLS[call](storage)

    def test_hooks_and_triggers_outlive_the_storage_object(
        self, storage: Storage, reopen: Callable[[], Storage] | None
    ) -> None:
        """Of a durable storage, a new object on the same data has hooks, triggers, and ids that go on rising."""
        if reopen is None:
            pytest.skip("this storage is not durable")
        hook = listening(storage, ("RFIs", "*"), destination_headers={"Authorization": Secret("Bearer c3a24b8208")})
        hook = storage.update_hook(hook.id, {"max_in_flight": 4}, at(1))
        newest = storage.add_hook(a_hook())
        storage.delete_hook(newest.id, T0, "deleted")
        storage.close()
        again = reopen()
        try:
            assert again.get_hook(hook.id) == hook
            assert [trigger.action for trigger in again.list_triggers(hook.id, 0, 25)] == ["*"]
            assert again.add_hook(a_hook()).id > newest.id
        finally:
            again.close()


class TriggerContract:
    """Triggers: stored, listed, replaced, deleted; each takes effect at once."""

    def test_triggers_are_listed_by_id_in_pages(self, storage: Storage) -> None:
        """A hook's triggers, and no other's, come by ascending id; `after` and `limit` page through them."""
        hook, other = storage.add_hook(a_hook()), storage.add_hook(a_hook())
        made = [storage.add_trigger(hook.id, "RFIs", action) for action in ("update", "create", "delete", "*")]
        storage.add_trigger(other.id, "RFIs", "update")
        assert [(t.hook_id, t.resource, t.action) for t in made[:1]] == [(hook.id, "RFIs", "update")]
        assert storage.list_triggers(hook.id, 0, 25) == sorted(made, key=lambda trigger: trigger.id)
        assert storage.list_triggers(hook.id, 0, 3) == made[:3]
        assert storage.list_triggers(hook.id, made[2].id, 3) == made[3:]

    def test_a_hook_has_a_trigger_once(self, storage: Storage) -> None:
        """The same trigger again raises `DuplicateTrigger`; another hook may have it too."""
        hook, other = listening(storage), listening(storage)
        with pytest.raises(DuplicateTrigger):
            storage.add_trigger(hook.id, "RFIs", "update")
        assert [len(storage.list_triggers(each.id, 0, 25)) for each in (hook, other)] == [1, 1]

    def test_triggers_of_an_unknown_hook_are_not_found(self, storage: Storage) -> None:
        """Without the hook, adding, listing and replacing raise `NotFound`; so does deleting an unknown trigger."""
        for call in ("add_trigger", "list_triggers", "replace_triggers", "delete_trigger"):
            with pytest.raises(NotFound):
                _CALLS[call](storage)

    def test_a_trigger_takes_effect_at_once(self, storage: Storage) -> None:
        """An event after `add_trigger` is delivered, one before it or after `delete_trigger` is not."""
        hook = storage.add_hook(a_hook())
        assert emit(storage).delivery_ids == ()
        trigger = storage.add_trigger(hook.id, "RFIs", "update")
        assert len(emit(storage).delivery_ids) == 1
        storage.delete_trigger(trigger.id)
        assert emit(storage).delivery_ids == ()
        assert storage.list_triggers(hook.id, 0, 25) == []
        with pytest.raises(NotFound):
            storage.delete_trigger(trigger.id)

    def test_trigger_ids_rise_and_are_never_used_again(self, storage: Storage) -> None:
        """The id of a deleted trigger, even of the newest, does not come back."""
        hook = storage.add_hook(a_hook())
        newest = storage.add_trigger(hook.id, "RFIs", "update")
        storage.delete_trigger(newest.id)
        after = storage.add_trigger(hook.id, "RFIs", "update")
        storage.delete_hook(hook.id, T0, "deleted")
        other = storage.add_hook(a_hook())
        assert newest.id < after.id < storage.add_trigger(other.id, "RFIs", "update").id

    def test_replacing_keeps_the_ids_of_what_stays(self, storage: Storage) -> None:
        """`replace_triggers` deletes what is not wanted, adds what is new, and leaves the rest under its ids."""
        hook, other = listening(storage, ("RFIs", "create"), ("RFIs", "update")), listening(storage)
        gone, stays = storage.list_triggers(hook.id, 0, 25)
        after = storage.replace_triggers(hook.id, [("Submittals", "*"), ("RFIs", "update")])
        assert after == storage.list_triggers(hook.id, 0, 25)
        assert [(trigger.resource, trigger.action) for trigger in after] == [("RFIs", "update"), ("Submittals", "*")]
        assert after[0] == stays
        assert after[1].id > gone.id
        assert len(storage.list_triggers(other.id, 0, 25)) == 1
        assert emit(storage, an_event("RFIs", "create")).delivery_ids == ()
        assert len(emit(storage, an_event("Submittals", "delete")).delivery_ids) == 1

    def test_replacing_by_nothing_deletes_all(self, storage: Storage) -> None:
        """An empty list of wanted triggers leaves none."""
        hook = listening(storage)
        assert storage.replace_triggers(hook.id, []) == []
        assert emit(storage).delivery_ids == ()

    def test_a_change_of_triggers_leaves_what_was_emitted(self, storage: Storage) -> None:
        """What an event was emitted to stays so when the trigger goes."""
        hook = listening(storage)
        (delivery_id,) = emit(storage).delivery_ids
        storage.replace_triggers(hook.id, [])
        assert ids(turn(storage, now=T0 + timedelta(seconds=1))) == [delivery_id]
