"""The form of a hook's endpoint: what is saved, checked and masked, and what somebody else did meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from procore_hooks import Hook, HookRegistry
from procore_hooks.testing import WebhookReceiver

from .conftest import PROJECT, Visitor, mounted, shown, value_of


def test_saved_endpoint_gets_a_green_banner_or_a_warning(
    admin: Visitor, registry: HookRegistry, hook: Hook, receiver: WebhookReceiver
) -> None:
    """The endpoint is saved, tried with its headers, and the page says what came of it and what to do."""
    version = value_of(admin.get(f"hooks/{hook.id}"), "version")
    page = admin.follow(admin.post(f"hooks/{hook.id}", url=receiver.url, authorization="", version=version))
    assert "It took a test POST" in shown(page)
    assert receiver.requests[0].headers["authorization"] == "Bearer c3a24b8208xMiJ9"
    assert receiver.requests[0].headers["x-tenant"] == "acme"

    receiver.reply(401)
    version = value_of(page, "version")
    page = admin.follow(admin.post(f"hooks/{hook.id}", url=f"{receiver.url}/b", authorization="", version=version))
    assert "did not take a test POST" in shown(page)
    assert "does not accept the credentials (status 401)" in shown(page)
    assert "Correct the Authorization header" in shown(page)
    assert registry.hooks.get(hook.id).destination_url == f"{receiver.url}/b"


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"authorization": ""}, {"Authorization": "Bearer c3a24b8208xMiJ9", "X-Tenant": "acme"}),
        ({"authorization": "Token new"}, {"Authorization": "Token new", "X-Tenant": "acme"}),
        ({"authorization": "", "remove_authorization": "on"}, {"X-Tenant": "acme"}),
    ],
)
def test_authorization_is_kept_replaced_or_removed(
    admin: Visitor,
    registry: HookRegistry,
    hook: Hook,
    receiver: WebhookReceiver,
    fields: dict[str, str],
    headers: dict[str, str],
) -> None:
    """An empty field keeps the header, a filled one replaces it, the box removes it; other headers stay."""
    version = value_of(admin.get(f"hooks/{hook.id}"), "version")
    admin.post(f"hooks/{hook.id}", url=receiver.url, version=version, **fields)
    saved = registry.hooks.get(hook.id).destination_headers
    assert {name: value.reveal() for name, value in saved.items()} == headers


def test_refused_endpoint_leaves_the_hook_as_it_was(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """A wrong URL stays in its field, with the error; nothing is stored."""
    version = value_of(admin.get(f"hooks/{hook.id}"), "version")
    page = admin.post(f"hooks/{hook.id}", url="https://user@x.example/", authorization="Token n", version=version)
    assert page.status_code == 422
    assert (value_of(page, "url"), value_of(page, "authorization")) == ("https://user@x.example/", "Token n")
    assert "user name or a password" in shown(page)
    assert registry.hooks.get(hook.id) == hook


@pytest.mark.parametrize(
    "changed",
    [{"destination_url": "https://second.example/"}, {"destination_headers": {"Authorization": "Bearer second"}}],
    ids=["url", "header"],
)
def test_change_of_somebody_else_is_shown_and_not_overwritten(
    admin: Visitor, registry: HookRegistry, hook: Hook, receiver: WebhookReceiver, changed: dict[str, Any]
) -> None:
    """What was typed stays and is not stored; what is there now is shown; saving again, knowingly, replaces it."""
    version = value_of(admin.get(f"hooks/{hook.id}"), "version")
    theirs = registry.hooks.update(hook.id, **changed)
    page = admin.post(f"hooks/{hook.id}", url=receiver.url, authorization="Token mine", version=version)
    assert page.status_code == 409
    assert registry.hooks.get(hook.id) == theirs
    assert f"now it is {theirs.destination_url}" in shown(page)
    assert (value_of(page, "url"), value_of(page, "authorization")) == (receiver.url, "Token mine")

    admin.post(f"hooks/{hook.id}", url=receiver.url, authorization="Token mine", version=value_of(page, "version"))
    assert registry.hooks.get(hook.id).destination_url == receiver.url


def test_form_without_a_version_changes_nothing(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """A form that does not say what it was filled from is a conflict."""
    assert admin.post(f"hooks/{hook.id}", url="https://b.example/", authorization="").status_code == 409
    assert registry.hooks.get(hook.id) == hook


def test_pause_of_somebody_else_is_no_conflict(
    admin: Visitor, registry: HookRegistry, hook: Hook, receiver: WebhookReceiver
) -> None:
    """Only what the form holds can conflict: pausing and rotating touch neither URL nor headers."""
    version = value_of(admin.get(f"hooks/{hook.id}"), "version")
    registry.hooks.disable(hook.id)
    registry.hooks.enable(hook.id)
    assert admin.post(f"hooks/{hook.id}", url=receiver.url, authorization="", version=version).status_code == 303


def test_query_of_a_url_is_in_its_form_only(admin: Visitor, registry: HookRegistry) -> None:
    """A URL's query often holds a token: lists and headings leave it out, the form that changes it has it."""
    hook = registry.hooks.create("https://a.example/in?token=hunter2", namespace="a", company_id=8, project_id=6778)
    assert "hunter2" not in admin.get().text
    assert "hunter2" not in admin.get(f"hooks/{hook.id}/deliveries").text
    assert admin.get(f"hooks/{hook.id}").text.count("hunter2") == 1


def test_short_credential_is_masked_whole(admin: Visitor, registry: HookRegistry) -> None:
    """Five characters of a short credential would be too much."""
    hook = registry.hooks.create(
        "https://a.example/",
        namespace="a",
        company_id=8,
        project_id=6778,
        destination_headers={"authorization": "Basic abcd1234"},
    )
    assert "d1234" not in admin.get(f"hooks/{hook.id}").text


def test_headers_of_other_names_are_named(admin: Visitor, hook: Hook) -> None:
    """The page changes the Authorization header; of others it tells the names, and no value."""
    page = admin.get(f"hooks/{hook.id}")
    assert "Further headers X-Tenant" in shown(page)
    assert page.text.count("acme") == page.text.count("hooks.acme.example") + 2  # the namespace


def test_check_that_raises_still_saves(registry: HookRegistry, visit: Callable[..., Visitor], caplog: Any) -> None:
    """An app's payload format that raises spoils the check, not the hook; the log says so."""

    def broken(event: Any) -> Any:
        raise RuntimeError("spoilt")

    with HookRegistry(payload_formats={"mine": broken}) as own:
        admin = visit(mounted(own))
        assert ">mine</option>" in admin.get("new").text
        page = admin.follow(admin.post("new", url="https://a.example/", namespace="a", payload_version="mine"))
        assert "Hook created." in shown(page)
        assert "could not be checked" in caplog.text


def test_of_two_at_once_the_later_sees_what_the_earlier_did(
    admin: Visitor,
    registry: HookRegistry,
    hook: Hook,
    receiver: WebhookReceiver,
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two admins save at the same moment: one is saved, the other one is shown what there is now."""
    version = value_of(admin.get(f"hooks/{hook.id}"), "version")
    second_has_read = threading.Event()
    reads: list[int] = []
    get, update = registry.hooks.get, registry.hooks.update

    def read(hook_id: int) -> Hook:
        found = get(hook_id)
        reads.append(hook_id)
        if len(reads) == 2:
            second_has_read.set()
        return found

    def store(hook_id: int, **changes: Any) -> Hook:
        second_has_read.wait(10)  # both have read the same when the first one stores
        return update(hook_id, **changes)

    monkeypatch.setattr(registry.hooks, "get", read)
    monkeypatch.setattr(registry.hooks, "update", store)

    async def save_both() -> list[int]:
        forms = [
            {"token": admin.token, "url": f"{receiver.url}{name}", "authorization": "", "version": version}
            for name in ("a", "b")
        ]
        answers = await asyncio.gather(*(admin.client.post(f"{PROJECT}/hooks/{hook.id}", data=form) for form in forms))
        return sorted(answer.status_code for answer in answers)

    assert runner.run(save_both()) == [303, 409]
