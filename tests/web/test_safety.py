"""Who is let in, what a form must carry, and what no request can do."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from procore_hooks import Hook, HookRegistry, MemoryStorage, StorageBusy
from procore_hooks.web import console_app

from .conftest import MOUNTED, PROJECT, Visitor, mounted, shown

CHANGES = ["", "/pause", "/resume", "/secret", "/delete", "/test", "/events", "/deliveries", "/deliveries/1/redeliver"]
PAGES = ["", "/last-day", "/events", "/deliveries", "/deliveries/1", "/deliveries/1/payload"]


def everything(registry: HookRegistry) -> list[object]:
    hooks = registry.hooks.list()
    triggers = [one for hook in hooks for one in registry.triggers.list(hook.id, page_size=1000)]
    return [*hooks, *triggers, *registry.deliveries.list()]


def raising(error: Exception) -> Callable[..., bool]:
    def authorize(*_: Any) -> bool:
        raise error

    return authorize


async def refuse(*_: Any) -> bool:
    return False


REFUSALS = [
    (lambda *_: False, 403),
    (refuse, 403),
    (lambda *_: None, 403),
    (lambda *_: 1, 403),
    (lambda *_: "yes", 403),
    (raising(PermissionError("no")), 403),
    (raising(RuntimeError("database is down")), 503),
    (raising(HTTPException(401, headers={"www-authenticate": "Basic"})), 401),
    (raising(HTTPException(303, headers={"location": "/login"})), 303),
]


@pytest.mark.parametrize(("authorize", "status"), REFUSALS)
def test_nobody_is_let_in_but_by_true(
    registry: HookRegistry, hook: Hook, visit: Callable[..., Visitor], admin: Visitor, authorize: Any, status: int
) -> None:
    """Whatever else `authorize` returns or raises refuses every page and every change, and shows and does nothing."""
    before = everything(registry)
    admin.get("new")
    stranger = visit(mounted(registry, authorize))
    stranger.client.cookies.update(admin.client.cookies)
    stranger.token = admin.token
    answers = [stranger.get(), stranger.get("new"), stranger.post("new", url="https://b.example/", namespace="b")]
    answers += [stranger.get(f"hooks/{hook.id}{page}") for page in PAGES]
    answers += [stranger.post(f"hooks/{hook.id}{change}", tick="on|r|delete|RFIs") for change in CHANGES]
    assert {answer.status_code for answer in answers} == {status}
    assert not [answer for answer in answers if "acme" in answer.text or "database" in answer.text]
    assert everything(registry) == before
    if status == 303:
        assert answers[0].headers["location"] == "/login"


def test_authorize_is_asked_for_this_scope_each_time(registry: HookRegistry, visit: Callable[..., Visitor]) -> None:
    """It gets the request and the ids in the address as text, and a plain function does not hold up the loop."""
    asked: list[tuple[str, Any, Any, bool]] = []

    def authorize(request: Any, company_id: Any, project_id: Any) -> bool:
        on_main = threading.current_thread() is threading.main_thread()
        asked.append((request.headers["x-user"], company_id, project_id, on_main))
        return True

    visitor = visit(mounted(registry, authorize))
    for path in ("/companies/8", "/companies/8/projects/A%201", "/projects/6778"):
        assert visitor.get(MOUNTED + path, headers={"x-user": "ann"}).status_code == 200
    assert asked == [("ann", "8", None, False), ("ann", "8", "A 1", False), ("ann", None, "6778", False)]


@pytest.mark.parametrize("change", ["new", *(f"hooks/1{change}" for change in CHANGES)])
def test_form_without_a_right_token_changes_nothing(
    admin: Visitor,
    registry: HookRegistry,
    hook: Hook,
    emit: Callable[..., int],
    visit: Callable[..., Visitor],
    app: Any,
    change: str,
) -> None:
    """No token, a made-up one, another browser's, or none of one's own cookie: each is refused."""
    emit()
    other = visit(app)
    other.get("new")
    admin.get("new")
    before = everything(registry)
    fields = {"url": "https://b.example/", "namespace": "b", "tick": "on|r|delete|RFIs", "since": "2025-01-01T00:00"}
    for token in ("", "x", "a" * 16 + "." + "b" * 43, other.token, admin.token[:-1], admin.token + "A"):
        assert admin.post(change, token=token, **fields).status_code == 403
    token = admin.token
    admin.client.cookies.clear()
    assert admin.post(change, token=token, **fields).status_code == 403
    assert everything(registry) == before


def test_token_differs_each_time_and_holds_each_time(admin: Visitor, hook: Hook) -> None:
    """No two pages carry the same token, so that compression tells nothing; all of them hold."""
    tokens = []
    for _ in range(3):
        admin.get("new")
        tokens.append(admin.token)
    assert len(set(tokens)) == 3
    for token in tokens:
        assert admin.post(f"hooks/{hook.id}/pause", token=token).status_code == 303


def test_form_from_another_site_is_refused(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """Browsers say where a form comes from: another site, or another host of the same one, is refused."""
    for site in ("cross-site", "same-site"):
        assert admin.post(f"hooks/{hook.id}/pause", headers={"sec-fetch-site": site}).status_code == 403
    assert registry.hooks.get(hook.id).status == "active"
    assert admin.post(f"hooks/{hook.id}/pause", headers={"sec-fetch-site": "same-origin"}).status_code == 303


def test_cookies_are_closed(visit: Callable[..., Visitor], app: Any) -> None:
    """By https the cookies are Secure and bound to this host; no script reads them, and no other site sends them."""
    for origin, name, secure in (
        ("https://a.example", "__Host-procore_hooks_browser", True),
        ("http://a.example", "procore_hooks_browser", False),
    ):
        cookie = visit(app, origin).get("new").headers["set-cookie"]
        assert cookie.startswith(f"{name}=")
        assert ("Secure" in cookie) is secure
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Path=/" in cookie


def test_note_is_closed(admin: Visitor, hook: Hook) -> None:
    """The cookie that lets the next page show a secret does not hold the secret, and is as closed as the other."""
    cookie = admin.post(f"hooks/{hook.id}/secret").headers["set-cookie"]
    assert "whsec_" not in cookie
    assert "SameSite=strict" in cookie
    assert "HttpOnly" in cookie


@pytest.mark.parametrize("path", ["", "new", "hooks/1", "hooks/1/events", "hooks/1/deliveries", "hooks/9", "static"])
def test_headers_of_every_answer(admin: Visitor, hook: Hook, path: str) -> None:
    """No inline code, nothing framed, nothing guessed, nothing kept by caches."""
    page = admin.get(f"{MOUNTED}/static/console.js" if path == "static" else path)
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy["script-src"], policy["style-src"], policy["form-action"]} == {"'self'"}
    assert {policy["frame-ancestors"], policy["base-uri"]} == {"'none'"}
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "same-origin"
    assert page.headers["cache-control"] == ("public, max-age=31536000, immutable" if path == "static" else "no-store")
    if path != "static":
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page.text)


def test_body_over_a_mebibyte_is_refused(admin: Visitor, registry: HookRegistry, hook: Hook) -> None:
    """Announced or not, a larger body is not read to its end; one of exactly a mebibyte is."""
    admin.get("new")
    path = f"hooks/{hook.id}/pause"
    form = f"token={admin.token}&x=".encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    sent = 0

    async def unannounced() -> Any:
        nonlocal sent
        yield form
        for _ in range(256):
            sent += 65536
            yield b"x" * 65536

    too_long = form + b"x" * (2**20 + 1 - len(form))
    assert admin.send("POST", path, content=too_long, headers=headers).status_code == 413
    assert registry.hooks.get(hook.id).status == "active"
    assert admin.send("POST", path, content=too_long[:-1], headers=headers).status_code == 303
    answer = admin.send("POST", path, content=unannounced(), headers=headers)
    assert answer.status_code == 413
    assert "at most 1 MiB" in shown(answer)
    assert 0 < sent <= 2**20 + 2 * 65536
    sent = 0
    announced = {**headers, "content-length": str(2**24)}
    assert admin.send("POST", path, content=unannounced(), headers=announced).status_code == 413
    assert sent == 0


@pytest.mark.parametrize(
    ("content", "type_", "status"),
    [
        (b"\xff=\xfe", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % n for n in range(101)), "application/x-www-form-urlencoded", 400),
        (b"token=%ff", "application/x-www-form-urlencoded", 400),
        (b"{}", "application/json", 415),
        (b"token=1", "text/plain", 415),
        (b"", "multipart/form-data; boundary=x", 415),
    ],
)
def test_body_that_is_no_form_is_refused(admin: Visitor, hook: Hook, content: bytes, type_: str, status: int) -> None:
    """Other encodings are not taken for a form."""
    answer = admin.send("POST", f"hooks/{hook.id}/pause", content=content, headers={"content-type": type_})
    assert answer.status_code == status


def test_methods_and_files(admin: Visitor, hook: Hook) -> None:
    """A page that only shows takes no POST, a change takes no GET, and no file is found but the page's own."""
    assert admin.get(f"hooks/{hook.id}/pause").status_code == 405
    assert admin.send("POST", PROJECT).status_code == 405
    assert admin.send("PUT", f"hooks/{hook.id}").status_code == 405
    assert admin.send("HEAD", PROJECT).status_code == 200
    for name in ("..%2fconsole.py", "nothing", "../_console.py"):
        assert admin.get(f"{MOUNTED}/static/{name}").status_code == 404
    assert admin.get(f"{PROJECT}/").status_code == 200
    assert admin.get(f"{MOUNTED}/").status_code == 404


def test_storage_that_fails_is_no_500(hook: Hook, registry: HookRegistry, admin: Visitor, monkeypatch: Any) -> None:
    """A storage that cannot answer gives 503, in words, with the advice to come again."""

    def busy(*_: Any) -> Any:
        raise StorageBusy("locked")

    monkeypatch.setattr(MemoryStorage, "get_hook", busy)
    page = admin.get(f"hooks/{hook.id}")
    assert page.status_code == 503
    assert page.headers["retry-after"] == "1"
    assert "nothing was changed" in shown(page)


@pytest.mark.parametrize("company", ["%20", "8%20", "%07", "9" * 201, "8%2f9"])
def test_id_that_can_be_none_is_not_found(admin: Visitor, company: str) -> None:
    """An address whose id no company can have is not found, and nobody is asked."""
    assert admin.get(f"{MOUNTED}/companies/{company}").status_code == 404


@pytest.mark.parametrize("value", ["", "x", "é", "a.b", "A" * 43, "A" * 5000])
def test_cookie_of_any_text_is_harmless(app: Any, hook: Hook, visit: Callable[..., Visitor], value: str) -> None:
    """A browser key that was not given out here is replaced, and a note that was not is not believed."""
    visitor = visit(app)
    cookies = "; ".join(f"procore_hooks_{name}={value}" for name in ("browser", "note", "language"))
    page = visitor.get(f"hooks/{hook.id}", headers={"cookie": cookies.encode()})
    assert page.status_code == 200
    assert "shown this once" not in shown(page)
    assert ("set-cookie" in page.headers) is (value != "A" * 43)


def test_app_by_itself(registry: HookRegistry, visit: Callable[..., Visitor]) -> None:
    """Not mounted anywhere, its addresses begin at the root."""
    visitor = visit(console_app(registry, authorize=lambda *_: True))
    page = visitor.get("/companies/8")
    assert 'href="/companies/8/new"' in page.text
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert len(files) == 3
    assert all(visitor.get(file).status_code == 200 for file in files)


WORDS = st.text(max_size=40) | st.sampled_from(
    ["1", "-1", "999999999999999999999", "null", "on|r|", "*", "%00", "\x00"]
)
ADDRESSES = ["", "/new", *(f"/hooks/{{n}}{part}" for part in {*CHANGES, *PAGES})]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST"]),
    address=st.sampled_from(ADDRESSES),
    number=st.just("1") | WORDS,
    fields=st.dictionaries(
        st.sampled_from(["url", "authorization", "namespace", "tick", "since", "version", "payload_version", "status"])
        | st.sampled_from(["resource", "resource_id", "cursor", "tab", "attempt", "q", "lang", "count", "done"]),
        WORDS,
    ),
    headers=st.dictionaries(
        st.sampled_from(["accept", "accept-language", "cookie", "sec-fetch-site", "x-unless-version", "content-type"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
        max_size=2,
    ),
)
def test_no_request_is_a_500(
    admin: Visitor, hook: Hook, method: str, address: str, number: str, fields: dict[str, str], headers: dict[str, str]
) -> None:
    """Whatever stands in an address, a query, a form or a header, the answer is a page or a plain refusal."""
    if not admin.token:
        admin.get("new")
    try:
        path = httpx.URL(PROJECT + address.replace("{n}", number)).raw_path.decode()
    except httpx.InvalidURL:
        return
    keywords: dict[str, Any] = {"params": fields} if method == "GET" else {"data": {"token": admin.token, **fields}}
    answer = admin.send(method, path, headers=headers, **keywords)
    assert answer.status_code < 500, (method, path, fields)
