"""`registry.triggers`: each verb, over each storage."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from procore_hooks import DuplicateTrigger, Hook, HookRegistry, InvalidInput, NotFound, Storage, UnsupportedAction
from procore_hooks.resources import ResourceCatalog

Listening = Callable[..., Hook]


def test_create_takes_effect_at_once(registry: HookRegistry, storage: Storage, listening: Listening) -> None:
    """The very next emit delivers, through another registry of the same storage too; after delete none does."""
    hook = listening(("Photos", "create"))
    trigger = registry.triggers.create(hook.id, "RFIs", "update")
    assert (trigger.hook_id, trigger.resource, trigger.action) == (hook.id, "RFIs", "update")
    other = HookRegistry(storage, clock=registry.clock)
    assert len(other.emit("RFIs", "update").delivery_ids) == 1
    other.triggers.delete(trigger.id)
    assert registry.emit("RFIs", "update").delivery_ids == ()
    assert len(registry.emit("Photos", "create").delivery_ids) == 1


@pytest.mark.parametrize(
    ("resource", "action", "heard"),
    [
        ("RFIs", "update", {("RFIs", "update")}),
        ("RFIs", "*", {("RFIs", "update"), ("RFIs", "delete")}),
        ("*", "update", {("RFIs", "update"), ("Photos", "update")}),
        ("*", "*", {("RFIs", "update"), ("RFIs", "delete"), ("Photos", "update"), ("Photos", "delete")}),
    ],
)
def test_wildcards(
    registry: HookRegistry, listening: Listening, resource: str, action: str, heard: set[tuple[str, str]]
) -> None:
    """`"*"` stands for every resource, or for every action, and for nothing else."""
    listening((resource, action))
    events = [(r, a) for r in ("RFIs", "Photos") for a in ("update", "delete")]
    assert {pair for pair in events if registry.emit(*pair).delivery_ids} == heard


def test_several_fitting_triggers_make_one_delivery(registry: HookRegistry, listening: Listening) -> None:
    """A hook gets an event once, however many of its triggers fit."""
    listening(("RFIs", "update"), ("RFIs", "*"), ("*", "update"), ("*", "*"))
    assert len(registry.emit("RFIs", "update").delivery_ids) == 1


def test_names_match_to_the_letter(registry: HookRegistry, listening: Listening) -> None:
    """Another case is another resource, and what looks like a pattern of SQL is none."""
    listening(("RFIs", "update"), ("%", "update"), ("R_Is", "update"))
    assert registry.emit("rfis", "update").delivery_ids == ()
    assert registry.emit("RFI", "update").delivery_ids == ()


def test_a_duplicate_is_refused(registry: HookRegistry, listening: Listening) -> None:
    """The same pair twice on one hook raises; on another hook it is a trigger of its own."""
    hook, other = listening(), listening()
    with pytest.raises(DuplicateTrigger, match=rf"hook {hook.id} .*'RFIs'.*'update'"):
        registry.triggers.create(hook.id, "RFIs", "update")
    assert len(registry.triggers.list(hook.id)) == 1
    assert len(registry.triggers.list(other.id)) == 1


def test_list_in_pages(registry: HookRegistry, listening: Listening) -> None:
    """All of a hook's triggers and nobody else's, oldest first, also where one is deleted meanwhile."""
    listening(("Photos", "create"))
    hook = listening(*[(f"Resource {n}", "update") for n in range(5)])
    first = registry.triggers.list(hook.id, page_size=2)
    assert [trigger.resource for trigger in first] == ["Resource 0", "Resource 1"]
    registry.triggers.delete(first[1].id)
    page, rest = first, []
    while page.next_cursor is not None:
        page = registry.triggers.list(hook.id, page_size=2, cursor=page.next_cursor)
        rest += [trigger.resource for trigger in page]
    assert rest == ["Resource 2", "Resource 3", "Resource 4"]


def test_replace_keeps_the_ids_of_what_stays(registry: HookRegistry, listening: Listening) -> None:
    """All in one step: what is not wanted goes, what is new comes, the rest keeps its id; one page tells it."""
    hook = listening(("RFIs", "create"), ("RFIs", "update"))
    kept = registry.triggers.list(hook.id)[1]
    page = registry.triggers.replace(hook.id, {"RFIs": ["update", "delete", "update"], "*": ("create",)})
    assert kept in page
    assert page.next_cursor is None
    assert {(t.resource, t.action) for t in page} == {("RFIs", "update"), ("RFIs", "delete"), ("*", "create")}
    assert registry.triggers.list(hook.id).items == page.items
    assert registry.emit("RFIs", "create").delivery_ids != ()
    assert registry.triggers.replace(hook.id, {}).items == ()
    assert registry.emit("RFIs", "update").delivery_ids == ()


def test_replace_takes_more_than_a_page(registry: HookRegistry, listening: Listening) -> None:
    """The page that `replace` returns has no bound: it holds all of them."""
    hook = listening()
    wanted = {f"Resource {n}": ["create", "update"] for n in range(600)}
    assert len(registry.triggers.replace(hook.id, wanted)) == 1200


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (7, "wanted"),
        (["RFIs"], "wanted"),
        ({"RFIs": "update"}, "wanted"),
        ({"RFIs": 7}, "wanted"),
        ({"RFIs": None}, "wanted"),
        ({"RFIs": b"update"}, "wanted"),
        ({7: ["update"]}, "resource"),
        ({"RFIs": ["Update"]}, "action"),
        ({"Photos": ["create"], "RFIs": [7]}, "action"),
    ],
    ids=str,
)
def test_a_wrong_replace_changes_nothing(registry: HookRegistry, listening: Listening, wanted: Any, field: str) -> None:
    """One wrong name, and the triggers stay as they were."""
    hook = listening()
    before = registry.triggers.list(hook.id)
    with pytest.raises(InvalidInput) as caught:
        registry.triggers.replace(hook.id, wanted)
    assert caught.value.field == field
    assert ": " in caught.value.problem
    assert registry.triggers.list(hook.id) == before


def test_unknown_hooks_and_triggers(registry: HookRegistry) -> None:
    """Every verb raises `NotFound` with the kind and the id."""
    for verb, arguments, kind in (
        (registry.triggers.create, (7, "RFIs", "update"), "hook"),
        (registry.triggers.list, (7,), "hook"),
        (registry.triggers.replace, (7, {}), "hook"),
        (registry.triggers.delete, (7,), "trigger"),
        (registry.triggers.delete, (2**70,), "trigger"),
    ):
        with pytest.raises(NotFound) as caught:
            verb(*arguments)
        assert (caught.value.kind, caught.value.id) == (kind, arguments[0])


def test_triggers_go_by_the_catalogue(storage: Storage) -> None:
    """With a catalogue a trigger that can never fit is refused; wildcards are for what it has."""
    catalog = ResourceCatalog.from_mapping({"RFIs": ["create", "update"], "Photos": ["create"]})
    with HookRegistry(storage, resources=catalog) as registry:
        hook = registry.hooks.create("https://hooks.acme.example/", namespace="acme")
        for pair in (("RFIs", "*"), ("*", "update"), ("*", "*"), ("Photos", "create")):
            registry.triggers.create(hook.id, *pair)
        for pair in (("Photos", "update"), ("*", "delete")):
            with pytest.raises(UnsupportedAction):
                registry.triggers.create(hook.id, *pair)
        assert len(registry.triggers.list(hook.id)) == 4


def test_change_adds_and_removes_at_once(registry: HookRegistry, listening: Callable[..., Hook]) -> None:
    """What is there already is not added again, what is not there is not removed, and all others keep their ids."""
    hook = listening(("RFIs", "update"), ("Users", "*"))
    kept = registry.triggers.list(hook.id).items[1]
    changed = registry.triggers.change(
        hook.id, add=[("Users", "*"), ("Tasks", "create")], remove=[("RFIs", "update"), ("Nothing", "update")]
    )
    assert [(one.resource, one.action) for one in changed] == [("Users", "*"), ("Tasks", "create")]
    assert changed.items[0] == kept
    assert registry.triggers.list(hook.id).items == changed.items


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field in ("add", "remove") for value in ("RFIs", 7, [("RFIs",)], [("RFIs", 1)])],
)
def test_change_refuses_what_are_no_pairs(
    registry: HookRegistry, listening: Callable[..., Hook], field: str, value: Any
) -> None:
    """The field and the shape that is wanted are named, and nothing is changed."""
    hook = listening()
    before = registry.triggers.list(hook.id)
    with pytest.raises(InvalidInput, match=rf"{field}: .* is not \(resource, action\)"):
        registry.triggers.change(hook.id, **{"add": [("Tasks", "create")], field: value})
    assert registry.triggers.list(hook.id) == before


def test_changes_at_once_lose_nothing(registry: HookRegistry, listening: Callable[..., Hook]) -> None:
    """Of changes that run at the same time none undoes another."""
    hook = listening(("RFIs", "update"))
    together = Barrier(4)

    def add(number: int) -> None:
        together.wait(30)
        registry.triggers.change(hook.id, add=[(f"R{number}", "update")], remove=[("RFIs", "update")])

    with ThreadPoolExecutor(4) as threads:
        for one in [threads.submit(add, number) for number in range(4)]:
            one.result(30)
    assert {one.resource for one in registry.triggers.list(hook.id)} == {"R0", "R1", "R2", "R3"}
