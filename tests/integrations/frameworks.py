"""One small app for each framework, with the page mounted at /webhooks, and one way to ask all three."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal

import attrs
import django
import fastapi
import flask
import httpx
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.test.utils import override_settings
from django.urls import include, path

from procore_hooks import HookRegistry
from procore_hooks.integrations.fastapi import install as install_in_fastapi
from procore_hooks.integrations.flask import install as install_in_flask

FORM = "application/x-www-form-urlencoded"
PROJECT = "project_of_a_test"


@attrs.frozen
class Told:
    """What a request was answered with; `headers` as they came, a name more than once if need be."""

    status: int
    headers: list[tuple[str, str]]
    text: str

    def all(self, name: str) -> list[str]:
        return [value for given, value in self.headers if given.lower() == name]


@attrs.define
class Admission:
    """What an app's `authorize` says, and what it has seen."""

    answer: Literal["yes", "no", "refuse", "fail"] = "yes"
    requests: list[Any] = attrs.field(factory=list)
    scopes: list[tuple[str | None, str | None]] = attrs.field(factory=list)
    threads: list[int] = attrs.field(factory=list)

    def decide(
        self, request: Any, company_id: str | None, project_id: str | None, refuse: Callable[[], object]
    ) -> bool:
        self.requests.append(request)
        self.scopes.append((company_id, project_id))
        self.threads.append(threading.get_ident())
        if self.answer == "refuse":
            refuse()
        if self.answer == "fail":
            raise RuntimeError("the database is down")
        return self.answer == "yes"


@attrs.define
class App:
    """An app, asked from outside: `ask` takes method, address, body and headers, and keeps cookies.

    With ``prefix`` the server itself is mounted there.
    """

    name: str
    admission: Admission
    ask: Callable[..., Told]


@contextmanager
def in_fastapi(registry: HookRegistry) -> Iterator[App]:
    app, admission = fastapi.FastAPI(), Admission()

    def refuse() -> None:
        raise fastapi.HTTPException(401, "sign in", {"x-why": "nobody"})

    def may(request: fastapi.Request, company_id: str | None, project_id: str | None) -> bool:
        return admission.decide(request, company_id, project_id, refuse)

    install_in_fastapi(app, registry, authorize=may, dispatcher=False)
    cookies = httpx.Cookies()

    async def send(
        method: str, address: str, body: bytes | None, headers: Mapping[str, str], prefix: str
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app, root_path=prefix)
        address = prefix + address  # as uvicorn has it
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies=cookies) as client:
            answer = await client.request(method, address, content=body, headers=headers)
        cookies.update(client.cookies)
        return answer

    def ask(method: str, address: str, body: bytes | None = None, prefix: str = "", **headers: str) -> Told:
        answer = asyncio.run(send(method, address, body, _headers(body, headers), prefix))
        return Told(answer.status_code, answer.headers.multi_items(), answer.text)

    yield App("fastapi", admission, ask)


@contextmanager
def in_flask(registry: HookRegistry) -> Iterator[App]:
    app, admission = flask.Flask(__name__), Admission()
    app.testing, app.secret_key = True, "of the test"
    app.config["SESSION_COOKIE_NAME"] = "of_the_app"

    @app.before_request
    def before() -> None:
        flask.g.before = "it ran"

    @app.errorhandler(401)
    def sign_in(error: Exception) -> tuple[str, int, dict[str, str]]:
        return "sign in", 401, {"x-why": "nobody"}

    def may(request: flask.Request, company_id: str | None, project_id: str | None) -> bool:
        flask.session["seen"] = flask.g.before
        return admission.decide(request, company_id, project_id, lambda: flask.abort(401))

    install_in_flask(app, registry, authorize=may, dispatcher=False)
    client = app.test_client()

    def ask(method: str, address: str, body: bytes | None = None, prefix: str = "", **headers: str) -> Told:
        mounted = {"SCRIPT_NAME": prefix}
        headers = _headers(body, headers)
        answer = client.open(address, method=method, data=body, headers=headers, environ_overrides=mounted)
        return Told(answer.status_code, list(answer.headers), answer.text)

    yield App("flask", admission, ask)


@contextmanager
def in_django(registry: HookRegistry) -> Iterator[App]:
    configure_django()
    admission = Admission()

    def refuse() -> None:
        raise PermissionDenied

    def may(request: HttpRequest, company_id: str | None, project_id: str | None) -> bool:
        return admission.decide(request, company_id, project_id, refuse)

    class SignIn:
        """Answers Django's own refusal, and nothing that another has answered."""

        def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
            self._get_response = get_response

        def __call__(self, request: HttpRequest) -> HttpResponse:
            return self._get_response(request)

        def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
            refused = isinstance(error, PermissionDenied)
            return HttpResponse("sign in", status=401, headers={"x-why": "nobody"}) if refused else None

    named = {"REGISTRY": f"{PROJECT}.registry", "AUTHORIZE": f"{PROJECT}.may"}
    module: Any = ModuleType(PROJECT)
    module.registry, module.may, module.SignIn = registry, may, SignIn
    with django_settings(
        module,
        PROCORE_HOOKS=named,
        ROOT_URLCONF=(path("webhooks/", include("procore_hooks.integrations.django.urls")),),
        MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware", f"{PROJECT}.SignIn"],
    ):
        client = Client(enforce_csrf_checks=True, SERVER_NAME="localhost")

        def ask(method: str, address: str, body: bytes | None = None, prefix: str = "", **headers: str) -> Told:
            headers = _headers(body, headers)
            answer = client.generic(method, address, body or b"", FORM, headers=headers, SCRIPT_NAME=prefix)
            cookies = [("Set-Cookie", morsel.OutputString()) for morsel in answer.cookies.values()]
            return Told(answer.status_code, [*answer.items(), *cookies], answer.content.decode())

        yield App("django", admission, ask)


def configure_django() -> None:
    """Once in this process, with whatever settings."""
    if not settings.configured:
        settings.configure(USE_TZ=True, LOGGING_CONFIG=None)
        django.setup()


@contextmanager
def django_settings(module: ModuleType, **changes: Any) -> Iterator[None]:
    """Django with these settings, in which `PROJECT` names `module`."""
    configure_django()
    sys.modules[PROJECT] = module
    try:
        with override_settings(ALLOWED_HOSTS=["localhost"], **changes):
            yield
    finally:
        sys.modules.pop(PROJECT, None)


def _headers(body: bytes | None, headers: Mapping[str, str]) -> dict[str, str]:
    form = {} if body is None else {"content-type": FORM}
    return form | {name.replace("_", "-"): value for name, value in headers.items()}


FRAMEWORKS = {"fastapi": in_fastapi, "flask": in_flask, "django": in_django}
