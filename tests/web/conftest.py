"""The settings page as an app would mount it, and somebody who looks at it, without a socket in between."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from procore_hooks import PROCORE, DestinationPolicy, Dispatcher, DrainReport, Hook, HookRegistry
from procore_hooks.testing import ManualClock, ScriptedEndpoint, WebhookReceiver
from procore_hooks.web import console_app

MOUNTED = "/webhooks"
PROJECT = f"{MOUNTED}/companies/8/projects/6778"
HOST = "http://console.example"


class Visitor:
    """A browser without scripts: it keeps cookies and sends the token of the page that it saw last."""

    def __init__(self, runner: asyncio.Runner, app: Any, origin: str = HOST) -> None:
        self._runner = runner
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=origin)
        self.token = ""

    def send(self, method: str, path: str, **keywords: Any) -> httpx.Response:
        """Any request; the answer as it is, redirects not followed."""
        address = path if path.startswith("/") else f"{PROJECT}/{path}".rstrip("/")
        return self._runner.run(self.client.request(method, address, **keywords))

    def get(self, path: str = "", **keywords: Any) -> httpx.Response:
        """A page; its token is kept for the next form."""
        return self._kept(self.send("GET", path, **keywords))

    def post(self, path: str, *, token: str | None = None, headers: Any = None, **fields: str) -> httpx.Response:
        """A form."""
        if not self.token:
            self.get("new")
        data = {"token": self.token if token is None else token, **fields}
        return self._kept(self.send("POST", path, data=data, headers=headers))

    def follow(self, response: httpx.Response) -> httpx.Response:
        """The page that a change led to."""
        assert response.status_code == 303, (response.status_code, shown(response))
        return self.get(response.headers["location"])

    def _kept(self, response: httpx.Response) -> httpx.Response:
        found = re.search(r'name="token" value="([^"]+)"', response.text)
        if found:
            self.token = found[1]
        return response

    def close(self) -> None:
        self._runner.run(self.client.aclose())


def shown(response: httpx.Response) -> str:
    """The text of a page as people read it, on one line."""
    body = response.text.partition("<body")[2].partition(">")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def value_of(response: httpx.Response, name: str) -> str:
    """The value of the form's field with this name."""
    found = re.search(rf'<input[^>]*\bname="{name}"[^>]*\bvalue="([^"]*)"', response.text)
    assert found, f"no field {name}"
    return html.unescape(found[1])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(clock: ManualClock) -> Iterator[HookRegistry]:
    with HookRegistry(clock=clock, destinations=DestinationPolicy.local(), resources=PROCORE) as registry:
        yield registry


@pytest.fixture
def endpoint() -> ScriptedEndpoint:
    return ScriptedEndpoint()


@pytest.fixture
def drain(registry: HookRegistry, endpoint: ScriptedEndpoint) -> Callable[[], DrainReport]:
    """Sends what is due to the endpoint."""
    return Dispatcher(registry, transport=endpoint).drain


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def mounted(registry: HookRegistry, authorize: Any = lambda request, company_id, project_id: True, **more: Any) -> Any:
    """An app with the console in it."""
    return Starlette(routes=[Mount(MOUNTED, app=console_app(registry, authorize=authorize, **more))])


@pytest.fixture
def visit(runner: asyncio.Runner) -> Iterator[Callable[..., Visitor]]:
    """Makes a visitor of an app."""
    visitors: list[Visitor] = []

    def make(app: Any, origin: str = HOST) -> Visitor:
        visitors.append(Visitor(runner, app, origin))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.close()


@pytest.fixture
def app(registry: HookRegistry) -> Any:
    return mounted(registry)


@pytest.fixture
def admin(app: Any, visit: Callable[..., Visitor]) -> Visitor:
    """An admin of project 6778 of company 8."""
    return visit(app)


@pytest.fixture
def hook(registry: HookRegistry) -> Hook:
    """A hook of the project that hears of new and changed RFIs."""
    hook = registry.hooks.create(
        "https://hooks.acme.example/in",
        namespace="acme",
        destination_headers={"Authorization": "Bearer c3a24b8208xMiJ9", "X-Tenant": "acme"},
        company_id=8,
        project_id=6778,
    )
    registry.triggers.create(hook.id, "RFIs", "create")
    registry.triggers.create(hook.id, "RFIs", "update")
    return hook


@pytest.fixture
def emit(registry: HookRegistry) -> Callable[..., int]:
    """Emits a change of an RFI of the project; returns the id of its delivery."""

    def one(payload: Any = None, resource_id: int = 54321, action: str = "update", resource: str = "RFIs") -> int:
        emission = registry.emit(resource, action, payload, resource_id=resource_id, company_id=8, project_id=6778)
        return emission.delivery_ids[0]

    return one
