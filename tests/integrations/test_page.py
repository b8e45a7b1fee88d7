"""The settings page within an app of each framework."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import django.http
import fastapi
import flask
import pytest
from werkzeug.test import EnvironBuilder

from procore_hooks import DestinationPolicy, Hook, HookRegistry, InvalidInput
from procore_hooks.integrations.flask import _read_body, install

from .frameworks import FRAMEWORKS, App

REQUESTS: dict[str, type[Any]] = {
    "fastapi": fastapi.Request,
    "flask": flask.Request,
    "django": django.http.HttpRequest,
}
PAGE = "/webhooks/companies/8/projects/6778"


@pytest.fixture
def registry() -> Iterator[HookRegistry]:
    with HookRegistry(destinations=DestinationPolicy.local()) as registry:
        yield registry


@pytest.fixture
def hook(registry: HookRegistry) -> Hook:
    return registry.hooks.create("http://127.0.0.1:9/in", namespace="acme-sync", company_id=8, project_id=6778)


@pytest.fixture(params=FRAMEWORKS)
def app(request: pytest.FixtureRequest, registry: HookRegistry) -> Iterator[App]:
    with FRAMEWORKS[request.param](registry) as app:
        yield app


def token_on(text: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', text)
    assert found is not None
    return found[1]


def test_it_is_where_it_is_mounted(app: App, hook: Hook) -> None:
    """The page shows the scope's hooks, links to addresses below its own, and its files are there."""
    told = app.ask("GET", PAGE)
    assert told.status == 200
    assert "acme-sync" in told.text
    assert f'"{PAGE}/hooks/{hook.id}' in told.text
    (style,) = re.findall(r'href="(/webhooks/static/[^"]+\.css[^"]*)"', told.text)
    assert app.ask("GET", style).all("content-type") == ["text/css; charset=utf-8"]
    assert app.ask("GET", f"{PAGE}/hooks/99999").status == 404
    assert app.ask("GET", "/webhooks/nowhere").status == 404
    assert app.ask("HEAD", PAGE).status == 200


def test_a_server_that_is_itself_mounted_somewhere(app: App, hook: Hook) -> None:
    """The page's addresses begin with what the server says that it is mounted at."""
    told = app.ask("GET", PAGE, prefix="/portal")
    assert told.status == 200
    assert f'"/portal{PAGE}/hooks/{hook.id}' in told.text


def test_the_app_decides(app: App, hook: Hook) -> None:
    """`authorize` gets the framework's own request and the ids as text, unquoted; nobody is let in without its True."""
    assert app.ask("GET", PAGE).status == 200
    app.ask("GET", "/webhooks/companies/B%C3%BCro%201")
    app.ask("GET", "/webhooks/projects/7")
    assert app.admission.scopes == [("8", "6778"), ("Büro 1", None), (None, "7")]
    assert {isinstance(one, REQUESTS[app.name]) for one in app.admission.requests} == {True}
    app.admission.answer = "no"
    told = app.ask("GET", PAGE)
    assert (told.status, "acme-sync" in told.text) == (403, False)


def test_an_authorize_that_raises(app: App, hook: Hook) -> None:
    """The framework's own refusal is answered as the framework does; whatever else is raised lets nobody in."""
    app.admission.answer = "refuse"
    told = app.ask("GET", PAGE)
    assert (told.status, told.all("x-why"), "acme-sync" in told.text) == (401, ["nobody"], False)
    app.admission.answer = "fail"
    told = app.ask("GET", PAGE)
    assert (told.status, "acme-sync" in told.text, "database" in told.text) == (503, False, False)


def test_a_change(app: App, hook: Hook, registry: HookRegistry) -> None:
    """A form with its token changes what it says and leads on; without one nothing is changed."""
    shown = app.ask("GET", f"{PAGE}/hooks/{hook.id}")
    body = urlencode({"token": token_on(shown.text)}).encode()
    told = app.ask("POST", f"{PAGE}/hooks/{hook.id}/pause", b"token=wrong")
    assert (told.status, registry.hooks.get(hook.id).status) == (403, "active")
    told = app.ask("POST", f"{PAGE}/hooks/{hook.id}/pause", body)
    assert (told.status, registry.hooks.get(hook.id).status) == (303, "disabled")
    assert told.all("location")[0].startswith(f"{PAGE}/hooks/{hook.id}")
    app.admission.answer = "no"
    assert app.ask("POST", f"{PAGE}/hooks/{hook.id}/resume", body).status == 403
    assert registry.hooks.get(hook.id).status == "disabled"


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 3 * 1024 * 1024])
def test_a_body_that_is_too_long(app: App, hook: Hook, registry: HookRegistry, size: int) -> None:
    """More than 1 MiB is refused, whether or not the framework would have read it, and nothing is changed."""
    body = urlencode({"token": token_on(app.ask("GET", f"{PAGE}/hooks/{hook.id}").text)}).encode()
    told = app.ask("POST", f"{PAGE}/hooks/{hook.id}/pause", body + b"&x=" + b"y" * size)
    assert (told.status, registry.hooks.get(hook.id).status) == (413, "active")


class Drip(io.RawIOBase):
    """A body that arrives a few bytes at a time, as one from a socket may."""

    def __init__(self, body: bytes) -> None:
        self._left = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(7, len(buffer))
        piece, self._left = self._left[:size], self._left[size:]
        buffer[: len(piece)] = piece
        return len(piece)


def test_a_body_in_pieces() -> None:
    """Flask's body is read to its end, in however many pieces it comes."""
    environ = EnvironBuilder(method="POST").get_environ()
    sent = {**environ, "CONTENT_LENGTH": "5000", "wsgi.input": Drip(b"x" * 9_000)}
    assert _read_body(flask.Request(sent)) == b"x" * 5_000


def test_headers_and_cookies_come_through(app: App, hook: Hook) -> None:
    """Each cookie is set with its attributes, and the page's own policy is not the framework's."""
    told = app.ask("GET", f"{PAGE}?lang=de")
    cookies = {cookie.partition("=")[0]: cookie.lower() for cookie in told.all("set-cookie")}
    assert {"procore_hooks_browser", "procore_hooks_language"} <= cookies.keys()
    for name in ("procore_hooks_browser", "procore_hooks_language"):
        assert "httponly" in cookies[name]
        assert "samesite=lax" in cookies[name]
        assert "max-age=31536000" in cookies[name]
    assert told.all("x-frame-options") == ["DENY"]
    assert len(told.all("content-security-policy")) == 1
    assert 'lang="de"' in app.ask("GET", PAGE, accept_language="en").text


def test_authorize_runs_where_the_request_is(app: App, hook: Hook) -> None:
    """In a synchronous framework `authorize` is called in the thread of the request, with all that belongs to it."""
    told = app.ask("GET", PAGE)
    if app.name != "fastapi":
        assert app.admission.threads == [threading.get_ident()]
    if app.name == "flask":
        # The session, which `authorize` wrote what came before into.
        assert any(cookie.startswith("of_the_app=") for cookie in told.all("set-cookie"))


def test_an_authorize_of_another_kind(registry: HookRegistry) -> None:
    """A coroutine function and an object with one do as well; what cannot be called is refused when it is installed."""

    class May:
        async def __call__(self, request: flask.Request, company_id: str | None, project_id: str | None) -> bool:
            return company_id == "8"

    async def may(request: flask.Request, company_id: str | None, project_id: str | None) -> bool:
        return company_id == "8"

    app = flask.Flask(__name__)
    install(app, registry, authorize=may, path="/one", dispatcher=False)
    install(app, registry, authorize=May(), path="/two", dispatcher=False)
    for path in ("/one", "/two"):
        client = app.test_client()
        told = [client.get(f"{path}/companies/{company}").status_code for company in (8, 9)]
        assert told == [200, 403]
    with pytest.raises(InvalidInput, match="authorize: it cannot be called"):
        install(app, registry, authorize=True, path="/three", dispatcher=False)  # type: ignore[arg-type]
