"""The list of hooks, the form for a new one, and a hook's overview."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from procore_hooks import AsyncHookRegistry, EndpointReport, Hook, HookRegistry, InvalidInput, generate_ed25519_secret
from procore_hooks.testing import ManualClock, WebhookReceiver
from procore_hooks.web import console_app, console_path
from procore_hooks.web._tokens import Note

from .conftest import MOUNTED, PROJECT, Visitor, mounted, shown, value_of


def test_empty_page_leads_to_the_form(admin: Visitor) -> None:
    """Without hooks the page says what one is for, and how to make one."""
    page = admin.get()
    assert page.status_code == 200
    assert "No hooks yet" in shown(page)
    assert f'href="{PROJECT}/new"' in page.text
    assert admin.get("new").status_code == 200


def test_new_hook_is_stored_checked_and_its_secret_shown_once(
    admin: Visitor, registry: HookRegistry, receiver: WebhookReceiver
) -> None:
    """What was typed is what is stored; the endpoint got a test POST; only the next page shows the secret."""
    answer = admin.post(
        "new", url=receiver.url, authorization="Bearer abc123xMiJ9", namespace="acme", payload_version="v3.0"
    )
    (hook,) = registry.hooks.list()
    secret = hook.signing_secret.reveal()
    assert (hook.destination_url, hook.namespace, hook.payload_version) == (receiver.url, "acme", "v3.0")
    assert (hook.company_id, hook.project_id) == ("8", "6778")
    assert receiver.requests[0].headers["authorization"] == "Bearer abc123xMiJ9"

    page = admin.follow(answer)
    assert secret in page.text
    assert "It took a test POST" in shown(page)
    again = admin.get(f"hooks/{hook.id}")
    assert secret not in again.text
    assert "It took a test POST" not in shown(again)
    assert "abc123xMiJ9" not in page.text + again.text
    assert "*****xMiJ9" in again.text


def test_secret_is_not_shown_to_another_browser(
    admin: Visitor, registry: HookRegistry, receiver: WebhookReceiver, visit: Callable[..., Visitor], app: Any
) -> None:
    """Only the browser that made the hook is shown the secret, and no made-up note opens it."""
    admin.post("new", url=receiver.url, namespace="acme", payload_version="v4.0")
    (hook,) = registry.hooks.list()
    other = visit(app)
    other.client.cookies.set("procore_hooks_note", "eyJzZWNyZXQiOnRydWV9.forged")
    assert hook.signing_secret.reveal() not in other.get(f"hooks/{hook.id}").text


def test_note_of_one_hook_opens_no_other_and_runs_out(
    admin: Visitor, registry: HookRegistry, clock: ManualClock, hook: Hook
) -> None:
    """The note that shows a secret holds for its hook, and for five minutes."""
    other = registry.hooks.create("https://hooks.acme.example/b", namespace="b", company_id=8, project_id=6778)
    admin.post(f"hooks/{other.id}/secret")
    assert "shown this once" not in shown(admin.get(f"hooks/{hook.id}"))
    clock.advance(timedelta(minutes=5, seconds=1))
    assert "shown this once" not in shown(admin.get(f"hooks/{other.id}"))


def test_rotated_secret_is_shown_once(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """Rotation gives a new secret, shows that one, and says until when the old one signs."""
    page = admin.follow(admin.post(f"hooks/{hook.id}/secret"))
    changed = registry.hooks.get(hook.id)
    assert changed.signing_secret != hook.signing_secret
    assert changed.signing_secret.reveal() in page.text
    assert hook.signing_secret.reveal() not in page.text
    assert "signs too, until 2025-01-02 00:00:00 UTC" in shown(page)


def test_private_key_is_never_shown(admin: Visitor, registry: HookRegistry) -> None:
    """Of an ed25519 pair the page shows the public key, always, and the private one never."""
    hook = registry.hooks.create(
        "https://a.example/", namespace="a", company_id=8, project_id=6778, signing_secret=generate_ed25519_secret()
    )
    for page in (lambda: admin.get(f"hooks/{hook.id}"), lambda: admin.follow(admin.post(f"hooks/{hook.id}/secret"))):
        text = page().text
        assert str(registry.hooks.get(hook.id).public_key) in text
        assert "whsk_" not in text


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"url": "ftp://x.example/"}, "url", "ftp"),
        ({"url": "https://10.0.0.1/"}, "url", "10.0.0.1"),
        ({"url": ""}, "url", "full URL"),
        ({"namespace": "Acme Sync"}, "namespace", "acme-sync"),
        ({"authorization": "Bearer ümlaut"}, "authorization", "beyond ASCII"),
        ({"payload_version": "v9"}, "payload_version", "v4.0"),
    ],
)
def test_error_stands_beside_its_field(
    admin: Visitor, registry: HookRegistry, fields: dict[str, str], field: str, words: str
) -> None:
    """A refused form comes back with what was typed, the registry's words beside the field, and nothing stored."""
    typed = {
        "url": "https://a.example/",
        "authorization": "Token abc",
        "namespace": "acme",
        "payload_version": "v4.0",
        **fields,
    }
    page = admin.post("new", **typed)
    assert page.status_code == 422
    assert registry.hooks.list().items == ()
    for name in ("url", "authorization", "namespace"):
        assert value_of(page, name) == typed[name]
    beside = re.search(rf'<p class="wrong" id="{field}-wrong"[^>]*>([^<]*)</p>', page.text)
    assert beside
    assert words in beside[1]
    assert f'aria-invalid="true" aria-describedby="{field}-wrong' in page.text


def test_include_projects_is_for_company_hooks(
    registry: HookRegistry, receiver: WebhookReceiver, visit: Callable[..., Visitor]
) -> None:
    """A company's page offers it, a project's does not."""
    admin = visit(mounted(registry))
    company = f"{MOUNTED}/companies/8"
    assert 'name="include_projects"' in admin.get(f"{company}/new").text
    admin.post(f"{company}/new", url=receiver.url, namespace="a", payload_version="v4.0", include_projects="on")
    (hook,) = registry.hooks.list()
    assert (hook.company_id, hook.project_id, hook.include_projects) == ("8", None, True)
    assert 'name="include_projects"' not in admin.get("new").text


SCOPES = [
    (8, 6778, "/companies/8/projects/6778"),
    (8, None, "/companies/8"),
    (None, 6778, "/projects/6778"),
    (9, 6778, "/companies/9/projects/6778"),
    (None, None, None),
]


def test_each_scope_shows_its_own_hooks(admin: Visitor, registry: HookRegistry) -> None:
    """A hook is on the page of exactly its scope; elsewhere it is not listed, and not found."""
    hooks = {
        path: registry.hooks.create(f"https://h{index}.example/", namespace="a", company_id=company, project_id=project)
        for index, (company, project, path) in enumerate(SCOPES)
    }
    for path in filter(None, hooks):
        listed = re.findall(r'id="h(\d+)"', admin.get(MOUNTED + path).text)
        assert listed == [str(hooks[path].id)]
        for owner, hook in hooks.items():
            found = admin.get(f"{MOUNTED}{path}/hooks/{hook.id}")
            assert found.status_code == (200 if owner == path else 404)
            assert (hook.destination_url in found.text) is (owner == path)


def test_company_page_finds_its_hooks_behind_many_projects(admin: Visitor, registry: HookRegistry) -> None:
    """However many hooks the company's projects have, its own are listed, page after page, each once."""
    for index in range(60):
        registry.hooks.create(f"https://p{index}.example/", namespace="a", company_id=8, project_id=index)
    own = [registry.hooks.create(f"https://c{n}.example/", namespace="a", company_id=8).id for n in range(30)]
    seen: list[int] = []
    page = admin.get(f"{MOUNTED}/companies/8")
    while True:
        seen += map(int, re.findall(r'id="h(\d+)"', page.text))
        more = re.search(r'href="(\?cursor=[^"]+)"', page.text)
        if more is None:
            break
        page = admin.get(f"{MOUNTED}/companies/8{more[1]}")
    assert seen == own


@pytest.mark.parametrize(
    "path", ["hooks/999", "hooks/x", "hooks/0", "hooks/-1", "hooks/99999999999999999999", "nothing"]
)
def test_what_there_is_not_is_not_found(admin: Visitor, path: str) -> None:
    """A hook that never was, and an address that no page has, are a plain "not found"."""
    page = admin.get(path)
    assert page.status_code == 404
    assert "Not found" in shown(page)


def test_deleted_hook_is_not_found(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """Deleting leads back to the list; the hook is gone, and so is each of its pages."""
    page = admin.follow(admin.post(f"hooks/{hook.id}/delete"))
    assert "Hook deleted." in shown(page)
    assert registry.hooks.list().items == ()
    for part in ("", "/events", "/deliveries", "/deliveries/1"):
        assert admin.get(f"hooks/{hook.id}{part}").status_code == 404
    for part in ("", "/pause", "/resume", "/secret", "/delete", "/test", "/events", "/deliveries"):
        assert admin.post(f"hooks/{hook.id}{part}", since="2025-01-01T00:00").status_code == 404


def test_pause_and_resume(
    admin: Visitor, registry: HookRegistry, hook: Hook, emit: Callable[..., int], drain: Callable[[], Any]
) -> None:
    """A paused hook says so and delivers nothing; resumed, it delivers what waited."""
    page = admin.follow(admin.post(f"hooks/{hook.id}/pause"))
    assert "Hook paused." in shown(page)
    assert "waits until you resume" in shown(page)
    emit()
    assert drain().delivered == 0
    page = admin.follow(admin.post(f"hooks/{hook.id}/resume"))
    assert "Active" in shown(page)
    assert drain().delivered == 1


def test_failing_hook_says_since_when_and_what_comes_next(
    admin: Visitor, hook: Hook, emit: Callable[..., int], drain: Callable[[], Any], endpoint: Any, clock: ManualClock
) -> None:
    """The page tells since when deliveries fail and when the next attempt is; "try now" ends the pause."""
    endpoint.reply(500)
    emit()
    drain()
    page = admin.get(f"hooks/{hook.id}")
    assert "Failing since 2025-01-01 00:00:00 UTC" in shown(page)
    assert "Next attempt: in " in shown(page)
    clock.advance(timedelta(minutes=3))
    page = admin.get(f"hooks/{hook.id}")
    assert "3 minutes ago . Deliveries wait and are retried in order. Next attempt: due now" in shown(page)
    assert "Active" in shown(admin.follow(admin.post(f"hooks/{hook.id}/resume")))


def test_note_fits_a_cookie(hook: Hook, clock: ManualClock) -> None:
    """However long a report, in whatever script, a browser keeps the note."""
    report = EndpointReport(ok=False, stage="name", problem="字" * 5000, advice="ü" * 5000)
    sealed = Note(show_secret=True, report=report).seal(hook, clock.now())
    assert len(sealed) < 3_500
    opened = Note.open(sealed, hook, clock.now())
    assert opened is not None
    assert opened.report is not None
    assert (opened.show_secret, opened.report.problem) == (True, "字" * 300)


def test_without_the_extra_it_says_how_to_get_it() -> None:
    """Where Starlette or Jinja2 is missing, the error names the extra."""
    code = "import sys; sys.modules['jinja2'] = None\nimport procore_hooks.web"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'procore-hooks[web]'" in run.stderr


def test_async_registry_will_do(visit: Callable[..., Visitor]) -> None:
    """The page takes either registry."""
    registry = AsyncHookRegistry()
    assert "No hooks yet" in shown(visit(mounted(registry)).get())


@pytest.mark.parametrize(
    ("keywords", "field"),
    [({"registry": 1}, "registry"), ({"authorize": None}, "authorize"), ({"catalogue": []}, "catalogue")],
)
def test_wrong_arguments_are_refused(keywords: dict[str, Any], field: str) -> None:
    """Without somebody who decides who may open it, there is no page."""
    arguments: dict[str, Any] = {"registry": HookRegistry(), "authorize": lambda *_: True, **keywords}
    with pytest.raises(InvalidInput) as caught:
        console_app(arguments.pop("registry"), **arguments)
    assert caught.value.field == field
    with pytest.raises(TypeError):
        console_app(HookRegistry())  # type: ignore[call-arg]


def test_console_path() -> None:
    """The address of a page, for the app's own links; ids are escaped, and one without a page is refused."""
    assert console_path(company_id=8) == "/companies/8"
    assert console_path(company_id=8, project_id="A 1?") == "/companies/8/projects/A%201%3F"
    assert console_path(project_id=6778) == "/projects/6778"
    for wrong in ({}, {"company_id": "a/b"}, {"project_id": ""}, {"company_id": " 8"}):
        with pytest.raises(InvalidInput):
            console_path(**wrong)


@pytest.mark.parametrize("project", ["A 1?", "100%", "ä#b", "a&b=c"])
def test_ids_of_any_text_have_their_pages(admin: Visitor, registry: HookRegistry, project: str) -> None:
    """An id is text: whatever may stand in it, its page is found by `console_path` and its links lead on."""
    registry.hooks.create("https://a.example/", namespace="a", company_id="C 8", project_id=project)
    page = admin.get(MOUNTED + console_path(company_id="C 8", project_id=project))
    link = re.search(r'id="h\d+" href="([^"]+)"', page.text)
    assert link
    assert admin.get(link[1]).status_code == 200
