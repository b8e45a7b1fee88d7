"""The grid of resources and actions, and its ticks."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest

from procore_hooks import PROCORE, Hook, HookRegistry, ResourceCatalog
from procore_hooks.resources import Resource
from procore_hooks.web import console_app

from .conftest import MOUNTED, Visitor, mounted, shown

JSON = {"accept": "application/json"}


def boxes(page: Any) -> dict[str, str]:
    """The state of each box that may be ticked, by its key."""
    found = re.findall(r'<button class="box"[^>]*data-key="([^"]+)"[^>]*aria-checked="(\w+)"([^>]*)>', page.text)
    return {html.unescape(key): "covered" if "disabled" in rest else state for key, state, rest in found}


def triggers(registry: HookRegistry, hook: Hook) -> set[tuple[str, str]]:
    return {(one.resource, one.action) for one in registry.triggers.list(hook.id, page_size=1000)}


def test_grid_has_the_projects_resources(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """Each resource of a project is there by category, its unsupported actions are disabled, company's are absent."""
    page = admin.get(f"hooks/{hook.id}/events")
    found = boxes(page)
    for resource in PROCORE:
        for action in ("create", "update", "delete"):
            expected = resource.level == "project" and action in resource.actions
            assert (f"r|{action}|{resource.name}" in found) is expected
    unsupported = sum(3 - len(one.actions) for one in PROCORE if one.level == "project")
    assert page.text.count("disabled aria-label=") >= unsupported > 0
    assert {key for key, state in found.items() if state == "true"} == {"r|create|RFIs", "r|update|RFIs"}
    assert found["c|create|Project Management"] == "mixed"
    assert "2 of 275 events" in shown(page)


def test_grid_of_a_company(registry: HookRegistry, visit: Callable[..., Visitor]) -> None:
    """A company's hook hears of company-level resources; of its projects' too if it is made so."""
    admin = visit(mounted(registry))
    own = registry.hooks.create("https://a.example/", namespace="a", company_id=8)
    both = registry.hooks.create("https://b.example/", namespace="a", company_id=8, include_projects=True)
    levels = {resource.name: resource.level for resource in PROCORE}
    for hook, expected in ((own, {"company"}), (both, {"company", "project"})):
        keys = boxes(admin.get(f"{MOUNTED}/companies/8/hooks/{hook.id}/events"))
        assert {levels[key.split("|")[2]] for key in keys if key.startswith("r|")} == expected


@pytest.mark.parametrize("headers", [JSON, None], ids=["script", "plain"])
def test_tick_is_in_force_at_once(
    admin: Visitor, registry: HookRegistry, hook: Hook, emit: Callable[..., int], headers: Any
) -> None:
    """A tick stores the trigger, with scripts or without; the next emit makes a delivery; unticking ends it."""
    path = f"hooks/{hook.id}/events"
    answer = admin.post(path, headers=headers, tick="on|r|delete|RFIs")
    assert ("RFIs", "delete") in triggers(registry, hook)
    assert emit(action="delete")
    if headers:
        assert answer.json()["states"]["r|delete|RFIs"] == "on"
        assert answer.json()["count"] == "3 of 275 events"
    else:
        assert answer.headers["location"].endswith("/events?done=saved#r-RFIs")
        assert "Saved" in shown(admin.follow(answer))
    admin.post(path, headers=headers, tick="off|r|delete|RFIs")
    assert ("RFIs", "delete") not in triggers(registry, hook)


def test_tick_may_come_twice(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """A tick says what is wanted: the same one again changes nothing and is no error."""
    for tick in ("on|r|delete|RFIs", "on|r|delete|RFIs", "off|r|delete|RFIs", "off|r|delete|RFIs"):
        assert admin.post(f"hooks/{hook.id}/events", headers=JSON, tick=tick).status_code == 200
    assert triggers(registry, hook) == {("RFIs", "create"), ("RFIs", "update")}


def test_tick_of_somebody_else_stays_and_is_shown(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """The answer to a tick holds every box, those that somebody else ticked meanwhile too."""
    admin.get(f"hooks/{hook.id}/events")
    registry.triggers.create(hook.id, "Submittals", "create")
    states = admin.post(f"hooks/{hook.id}/events", headers=JSON, tick="on|r|delete|RFIs").json()["states"]
    assert states["r|create|Submittals"] == "on"
    assert ("Submittals", "create") in triggers(registry, hook)


def test_category_tick(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """It ticks that action of each resource of the category that supports it, and unticks them all."""
    path = f"hooks/{hook.id}/events"
    expected = {
        (one.name, "delete")
        for one in PROCORE.categories["Project Management"]
        if one.level == "project" and "delete" in one.actions
    }
    states = admin.post(path, headers=JSON, tick="on|c|delete|Project Management").json()["states"]
    assert states["c|delete|Project Management"] == "on"
    assert triggers(registry, hook) == expected | {("RFIs", "create"), ("RFIs", "update")}
    admin.post(path, headers=JSON, tick="off|c|delete|Project Management")
    assert triggers(registry, hook) == {("RFIs", "create"), ("RFIs", "update")}


def test_wider_triggers_cover_their_boxes(registry: HookRegistry, visit: Callable[..., Visitor], hook: Hook) -> None:
    """A box that a wildcard includes is ticked and disabled; the wildcard is named beside, and can be taken away."""
    admin = visit(mounted(registry))
    wider = registry.triggers.create(hook.id, "RFIs", "*")
    page = admin.get(f"hooks/{hook.id}/events")
    assert {boxes(page)[f"r|{action}|RFIs"] for action in ("create", "update", "delete")} == {"covered"}
    assert "Other triggers" in shown(page)
    assert "RFIs, every action" in shown(page)
    admin.post(f"hooks/{hook.id}/events", tick=f"off|t|{wider.id}")
    assert triggers(registry, hook) == {("RFIs", "create"), ("RFIs", "update")}
    everything = registry.triggers.create(hook.id, "*", "*")
    states = admin.post(f"hooks/{hook.id}/events", headers=JSON, tick="on|c|create|Core").json()["states"]
    assert set(states.values()) == {"covered", "on"}
    assert triggers(registry, hook) == {("RFIs", "create"), ("RFIs", "update"), ("*", "*")}
    assert everything.id in {one.id for one in registry.triggers.list(hook.id)}


@pytest.mark.parametrize(
    ("tick", "status"),
    [
        ("", 400),
        ("on", 400),
        ("up|r|create|RFIs", 400),
        ("on|r|create|Nothing", 404),
        ("on|r|create|Companies", 404),
        ("on|r|*|RFIs", 404),
        ("on|c|create|Nothing", 404),
        ("on|t|999", 404),
        ("on|r|delete|Budget View Snapshots", 404),
    ],
)
def test_tick_that_no_box_makes_is_refused(
    admin: Visitor, registry: HookRegistry, hook: Hook, tick: str, status: int
) -> None:
    """A made-up tick changes nothing, and the answer says so in the form that was asked for."""
    answer = admin.post(f"hooks/{hook.id}/events", headers=JSON, tick=tick)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert triggers(registry, hook) == {("RFIs", "create"), ("RFIs", "update")}


def test_search_hides_other_rows(admin: Visitor, hook: Hook) -> None:
    """With a search in the address only rows with that text are visible, whatever its case."""
    page = admin.get(f"hooks/{hook.id}/events?q=rfi")
    visible = re.findall(r'data-name="([^"]+)">', page.text)
    assert "rfis" in visible
    assert all("rfi" in name for name in visible)


def test_catalogue_of_an_app(visit: Callable[..., Visitor]) -> None:
    """An app's own catalogue is shown, with its own actions and levels, the registry's if none is named."""
    own = ResourceCatalog([Resource("Doors", "project", "House <1>", frozenset({"open", "update"}))])
    with HookRegistry(resources=own) as registry:
        hook = registry.hooks.create("https://a.example/", namespace="a", company_id=8)
        admin = visit(mounted(registry))
        page = admin.get(f"{MOUNTED}/companies/8/hooks/{hook.id}/events")
        assert set(boxes(page)) >= {"r|open|Doors", "r|update|Doors"}
        assert "House <1>" in shown(page)
        empty = visit(mounted(registry, catalogue=ResourceCatalog([])))
        assert "no resources" in shown(empty.get(f"{MOUNTED}/companies/8/hooks/{hook.id}/events"))
        assert console_app(registry, authorize=lambda *_: True)


def test_unchanged_grid_is_not_sent_again(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """Asked for news, the page is empty while there are none, and whole once a box was ticked elsewhere."""
    version = re.search(r'data-live="(\w+)"', admin.get(f"hooks/{hook.id}/events").text)
    assert version
    asked = {"x-unless-version": version[1]}
    assert admin.get(f"hooks/{hook.id}/events", headers=asked).status_code == 204
    registry.triggers.create(hook.id, "RFIs", "delete")
    assert boxes(admin.get(f"hooks/{hook.id}/events", headers=asked))["r|delete|RFIs"] == "true"


def test_ticks_of_two_at_the_same_moment(
    admin: Visitor, registry: HookRegistry, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else presses the very same box while this tick is under way: both wanted it, and both have it."""
    create, delete = registry.triggers.create, registry.triggers.delete

    def twice(call: Callable[..., Any]) -> Callable[..., Any]:
        def other_first(*args: Any) -> Any:
            call(*args)
            return call(*args)

        return other_first

    monkeypatch.setattr(registry.triggers, "create", twice(create))
    monkeypatch.setattr(registry.triggers, "delete", twice(delete))
    path = f"hooks/{hook.id}/events"
    assert admin.post(path, headers=JSON, tick="on|r|delete|RFIs").json()["states"]["r|delete|RFIs"] == "on"
    assert "r|delete|RFIs" not in admin.post(path, headers=JSON, tick="off|r|delete|RFIs").json()["states"]
