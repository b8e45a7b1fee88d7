"""When `install` has a dispatcher run, in one process: with FastAPI's lifespan, with Flask's first request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import fastapi
import flask
import pytest

from procore_hooks import Conflict, DestinationPolicy, Dispatcher, Hook, HookRegistry
from procore_hooks.integrations import fastapi as with_fastapi
from procore_hooks.integrations import flask as with_flask
from procore_hooks.testing import ScriptedEndpoint

from ..scene import hook_for

BOUND = 30.0


@pytest.fixture
def registry() -> Iterator[HookRegistry]:
    with HookRegistry(destinations=DestinationPolicy.local()) as registry:
        yield registry


@pytest.fixture
def hook(registry: HookRegistry) -> Hook:
    return hook_for(registry)


@pytest.fixture
def endpoint() -> ScriptedEndpoint:
    return ScriptedEndpoint()


@pytest.fixture
def dispatcher(registry: HookRegistry, hook: Hook, endpoint: ScriptedEndpoint) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(registry, transport=endpoint)
    yield dispatcher
    dispatcher.stop()


def runs(dispatcher: Dispatcher) -> bool:
    try:
        dispatcher.start()
    except Conflict:
        return True
    dispatcher.stop()
    return False


def test_fastapis_dispatcher_runs_with_the_app(
    registry: HookRegistry, dispatcher: Dispatcher, endpoint: ScriptedEndpoint
) -> None:
    """It starts after the app's own start, delivers, has stopped when the app's own end begins, and starts again."""
    told: list[tuple[str, bool]] = []

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[dict[str, str]]:
        told.append(("start", runs(dispatcher)))
        yield {"state": "of the app"}
        told.append(("end", runs(dispatcher)))

    app = fastapi.FastAPI(lifespan=lifespan)
    with_fastapi.install(app, registry, authorize=None, dispatcher=dispatcher)

    async def live() -> Any:
        async with app.router.lifespan_context(app) as state:
            told.append(("between", runs(dispatcher)))
            await asyncio.to_thread(registry.emit, "RFIs", "create")
            await asyncio.to_thread(dispatcher.drain, BOUND)
            return state

    assert asyncio.run(live()) == {"state": "of the app"}
    assert told == [("start", False), ("between", True), ("end", False)]
    assert len(endpoint.requests) == 1
    asyncio.run(live())
    assert len(endpoint.requests) == 2


def test_fastapis_dispatcher_stops_when_the_app_fails(registry: HookRegistry, dispatcher: Dispatcher) -> None:
    """An error that comes out of the lifespan leaves nothing running."""
    app = fastapi.FastAPI()
    with_fastapi.install(app, registry, authorize=None, dispatcher=dispatcher)

    async def fail() -> None:
        async with app.router.lifespan_context(app):
            raise RuntimeError("the server fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        asyncio.run(fail())
    assert not runs(dispatcher)


def flask_app(registry: HookRegistry, dispatcher: Dispatcher | bool, *, testing: bool = False) -> flask.Flask:
    app = flask.Flask(__name__)
    app.testing = testing
    app.add_url_rule("/", "index", lambda: "here")
    with_flask.install(app, registry, authorize=None, dispatcher=dispatcher)
    return app


def test_flasks_dispatcher_starts_with_the_first_request(
    registry: HookRegistry, dispatcher: Dispatcher, endpoint: ScriptedEndpoint
) -> None:
    """It does not run before, and delivers from then on; later requests go on without a word."""
    client = flask_app(registry, dispatcher).test_client()
    assert not runs(dispatcher)
    assert [client.get("/").text for _ in range(3)] == ["here"] * 3
    registry.emit("RFIs", "create")
    endpoint.wait_for(1, BOUND)
    assert runs(dispatcher)


def test_flask_in_tests_does_not_dispatch(registry: HookRegistry, dispatcher: Dispatcher) -> None:
    """With `testing` set, before `install` or after, no request starts it."""
    before = flask_app(registry, dispatcher, testing=True)
    after = flask_app(registry, dispatcher)
    after.testing = True
    for app in (before, after):
        app.test_client().get("/")
    assert not runs(dispatcher)


def test_another_app_does_not_start_it(registry: HookRegistry, dispatcher: Dispatcher) -> None:
    """A request to an app that it was not installed in starts nothing."""
    flask_app(registry, dispatcher)
    flask_app(registry, False).test_client().get("/")
    assert not runs(dispatcher)


@pytest.mark.parametrize(("marked", "starts"), [("true", True), ("false", False), (None, False)])
def test_flasks_reloader(
    registry: HookRegistry, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, marked: str | None, starts: bool
) -> None:
    """The process that the reloader starts dispatches at once; its parent, which reads the app too, does not."""
    if marked is not None:
        monkeypatch.setenv("WERKZEUG_RUN_MAIN", marked)
    flask_app(registry, dispatcher)
    assert runs(dispatcher) == starts


def test_without_authorize_there_is_no_page(registry: HookRegistry) -> None:
    """None mounts nothing, in either."""
    app = fastapi.FastAPI()
    routes = len(app.routes)
    with_fastapi.install(app, registry, authorize=None, dispatcher=False)
    assert len(app.routes) == routes
    assert flask_app(registry, False).test_client().get("/webhooks/companies/8").status_code == 404
