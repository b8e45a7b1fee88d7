"""What is Django's own: settings, checks, tables, emits in its transactions, and the application that is served."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import path as url

from procore_hooks import Conflict, Dispatcher, HookRegistry, InvalidInput, InvalidPayload, SQLiteStorage
from procore_hooks.integrations.django import emit, get_dispatcher, get_registry, install, storage_in
from procore_hooks.integrations.django._configuration import _made
from procore_hooks.testing import ScriptedEndpoint

from ..scene import hook_for
from .frameworks import PROJECT, django_settings

BOUND = 30.0
ALIAS = "of_a_test"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.db"


@pytest.fixture
def project() -> Any:
    """The module that the settings name things in."""
    return ModuleType(PROJECT)


@pytest.fixture
def configured(project: Any, path: Path) -> Iterator[Callable[..., Any]]:
    """Django with a database in a file; called with what ``PROCORE_HOOKS`` says."""
    with contextlib.ExitStack() as stack:

        def configure(named: object, name: str = str(path)) -> None:
            stack.enter_context(
                django_settings(
                    project, PROCORE_HOOKS=named, ROOT_URLCONF=(url("", lambda request: HttpResponse("here")),)
                )
            )
            connections.settings[ALIAS] = {"ENGINE": "django.db.backends.sqlite3", "NAME": name}
            connections.configure_settings(connections.settings)

        yield configure
        if ALIAS in connections.settings:
            connections[ALIAS].close()
            del connections[ALIAS], connections.settings[ALIAS]
        if name := _made.pop(f"{PROJECT}.make_registry", None):
            name.close()


@pytest.fixture
def endpoint() -> ScriptedEndpoint:
    return ScriptedEndpoint()


@pytest.fixture
def site(configured: Callable[..., None], project: Any, endpoint: ScriptedEndpoint) -> HookRegistry:
    """The registry of a project whose hooks live in its database, with a hook that hears everything."""
    project.make_registry = lambda: HookRegistry(storage_in(ALIAS))
    project.make_dispatcher = lambda registry: Dispatcher(registry, transport=endpoint)
    configured({"REGISTRY": f"{PROJECT}.make_registry", "DISPATCHER": f"{PROJECT}.make_dispatcher"})
    registry = get_registry()
    hook_for(registry)
    return registry


def resources(registry: HookRegistry) -> list[str | None]:
    return [delivery.event.resource_id for delivery in registry.deliveries.list()]


def runs(dispatcher: Dispatcher) -> bool:
    try:
        dispatcher.start()
    except Conflict:
        return True
    dispatcher.stop()
    return False


# Settings


def test_the_registry_is_made_once(configured: Callable[..., None], project: Any) -> None:
    """A function is called at the first use and not again; a registry is taken as it is."""
    made: list[HookRegistry] = []

    def make_registry() -> HookRegistry:
        made.append(HookRegistry())
        return made[-1]

    project.make_registry = make_registry
    configured({"REGISTRY": f"{PROJECT}.make_registry"})
    assert get_registry() is get_registry() is made[0]
    assert len(made) == 1
    project.registry = HookRegistry()
    configured({"REGISTRY": f"{PROJECT}.registry"})
    assert get_registry() is project.registry
    assert isinstance(get_dispatcher(), Dispatcher)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (None, "PROCORE_HOOKS: there is none"),
        ({}, r"PROCORE_HOOKS\['REGISTRY'\]: it is missing"),
        ({"REGISTRY": 5}, r"PROCORE_HOOKS\['REGISTRY'\]: 5 is not a dotted name"),
        ({"REGISTRY": f"{PROJECT}.nothing"}, r"'project_of_a_test.nothing' cannot be imported"),
        ({"REGISTRY": f"{PROJECT}.number"}, r"a int is no HookRegistry"),
        ({"REGISTRY": f"{PROJECT}.make_registry"}, r"project_of_a_test.make_registry made no HookRegistry"),
        ({"REGISTRY": f"{PROJECT}.registry", "DISPATCHER": f"{PROJECT}.make_registry"}, "it made no Dispatcher"),
    ],
)
def test_wrong_settings(configured: Callable[..., None], project: Any, named: object, says: str) -> None:
    """Whoever needs the registry or a dispatcher is told what is wrong, and what to write, in one line."""
    project.number, project.make_registry, project.registry = 5, lambda *given: 5, HookRegistry()
    configured(named)
    with pytest.raises(ImproperlyConfigured, match=says) as caught:
        get_dispatcher()
    assert "\n" not in str(caught.value)


def test_the_check_says_what_is_wrong(configured: Callable[..., None], project: Any) -> None:
    """`manage.py check` finds what a request would fall over, without making a registry."""
    from procore_hooks.integrations.django.apps import check_settings

    project.make_registry, project.number = lambda: pytest.fail("it was made"), 5
    configured({"REGISTRY": f"{PROJECT}.make_registry"})
    assert check_settings() == []
    configured({"REGISTRY": f"{PROJECT}.nothing", "AUTHORIZE": f"{PROJECT}.number"})
    assert [one.id for one in check_settings()] == ["procore_hooks.E001", "procore_hooks.E003"]
    configured({"AUTHORIZE": f"{PROJECT}.make_registry"})
    assert [one.id for one in check_settings()] == ["procore_hooks.E002"]
    configured(None)
    assert [one.id for one in check_settings()] == ["procore_hooks.E001"]


def test_a_storage_in_a_file_of_djangos(configured: Callable[..., None], path: Path) -> None:
    """The storage is in the database's file; one in memory, or of another kind, is refused."""
    configured({}, str(path))
    with contextlib.closing(storage_in(ALIAS, durability="normal")) as storage:
        assert repr(storage) == f"SQLiteStorage({str(path)!r})"
    with pytest.raises(ImproperlyConfigured, match=r"'default'.* is no SQLite"):
        storage_in("default")


def test_no_storage_in_memory(configured: Callable[..., None]) -> None:
    """A database in memory, as Django's tests have it by default, is refused, and the error names the way out."""
    configured({}, ":memory:")
    with pytest.raises(ImproperlyConfigured, match=r"in memory.*'TEST': {'NAME'"):
        storage_in(ALIAS)


def test_migrating_makes_the_tables(configured: Callable[..., None], project: Any, path: Path) -> None:
    """After `migrate` the file has the tables of the hooks; where it was another kind of database, nothing is done."""
    from procore_hooks.integrations.django.apps import make_tables

    project.make_registry = lambda: HookRegistry(storage_in(ALIAS))
    configured({"REGISTRY": f"{PROJECT}.make_registry"})
    make_tables(using="default")
    assert not path.exists()
    make_tables(using=ALIAS)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM procore_hooks_deliveries").fetchone() == (0,)


# Emits


def test_an_emit_lives_and_dies_with_djangos_transaction(site: HookRegistry) -> None:
    """What `atomic` commits is queued, what it rolls back is not, and nothing waits for `on_commit`."""
    from django.db import transaction

    with transaction.atomic(using=ALIAS):
        emit("RFIs", "update", {"n": 1}, resource_id=1, using=ALIAS)
        assert resources(site) == []  # seen by nobody else yet
    with contextlib.suppress(RuntimeError), transaction.atomic(using=ALIAS):
        emit("RFIs", "update", {"n": 2}, resource_id=2, using=ALIAS)
        raise RuntimeError("something else went wrong")
    with transaction.atomic(using=ALIAS):
        with contextlib.suppress(RuntimeError), transaction.atomic(using=ALIAS):
            emit("RFIs", "update", {"n": 3}, resource_id=3, using=ALIAS)
            raise RuntimeError("the inner one alone")
        emit("RFIs", "update", {"n": 4}, resource_id=4, using=ALIAS)
        with pytest.raises(InvalidPayload):
            emit("RFIs", "update", float("nan"), using=ALIAS)
    assert resources(site) == ["4", "1"]
    assert emit("RFIs", "update", resource_id=5, using=ALIAS).event.resource_id == "5"
    assert resources(site) == ["5", "4", "1"]


def test_the_page_waits_for_no_transaction(configured: Callable[..., None], project: Any) -> None:
    """With `ATOMIC_REQUESTS` the page is served outside a transaction, since the registry's own connection writes."""
    project.registry, project.may = HookRegistry(), lambda *asked: connections[ALIAS].in_atomic_block
    configured({"REGISTRY": f"{PROJECT}.registry", "AUTHORIZE": f"{PROJECT}.may"})
    connections.settings[ALIAS]["ATOMIC_REQUESTS"] = True
    urls = importlib.import_module("procore_hooks.integrations.django.urls")
    page = importlib.reload(urls).urlpatterns[1]  # as with these databases
    with django_settings(project, ROOT_URLCONF=(page,)):
        assert Client(SERVER_NAME="localhost").get("/companies/8").status_code == 403
    with django_settings(project, ROOT_URLCONF=(url("<path:rest>", lambda request, rest: seen(project.may())),)):
        assert Client(SERVER_NAME="localhost").get("/companies/8").content == b"True"


def seen(value: object) -> HttpResponse:
    return HttpResponse(str(value))


# The application


def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
    assert status == "200 OK"


def request_to(application: Any) -> bytes:
    return b"".join(application(RequestFactory(SERVER_NAME="localhost").get("/").environ, start_response))


def test_wsgi_dispatches_at_once(site: HookRegistry, endpoint: ScriptedEndpoint, project: Any) -> None:
    """A process that loads it serves, and dispatches from then on; requests are answered as before."""
    dispatchers: list[Dispatcher] = []
    make = project.make_dispatcher
    project.make_dispatcher = lambda registry: dispatchers.append(make(registry)) or dispatchers[-1]
    application = install(get_wsgi_application())
    try:
        site.emit("RFIs", "update")
        endpoint.wait_for(1, BOUND)
        assert request_to(application) == request_to(application) == b"here"
        assert len(dispatchers) == 1
    finally:
        dispatchers[0].stop()


def test_gunicorns_master_does_not_dispatch(site: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gunicorn has loaded it before it forks, nothing runs; a request, which only a worker gets, starts it."""
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", ModuleType("gunicorn.arbiter"))
    dispatcher = Dispatcher(site, transport=ScriptedEndpoint())
    application = install(get_wsgi_application(), dispatcher=dispatcher)
    assert not runs(dispatcher)
    assert request_to(application) == b"here"
    assert runs(dispatcher)
    dispatcher.stop()


def test_no_dispatcher(site: HookRegistry) -> None:
    """With False the application is the one that was given."""
    application = get_wsgi_application()
    assert install(application, dispatcher=False) is application


def test_bad_input() -> None:
    """What is no application, and what is no dispatcher, is refused."""
    with pytest.raises(InvalidInput, match="application: "):
        install(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="dispatcher: "):
        install(get_wsgi_application(), dispatcher=None)  # type: ignore[arg-type]


def lived(application: Any, between: Callable[[], None]) -> list[str]:
    """What an ASGI server is told when it starts and when it ends, with `between` in between."""
    told: list[str] = []

    async def live() -> None:
        asked: asyncio.Queue[dict[str, str]] = asyncio.Queue()

        async def send(message: dict[str, str]) -> None:
            told.append(message["type"])
            if message["type"] == "lifespan.startup.complete":
                await asyncio.to_thread(between)
                await asked.put({"type": "lifespan.shutdown"})

        await asked.put({"type": "lifespan.startup"})
        await application({"type": "lifespan"}, asked.get, send)

    asyncio.run(asyncio.wait_for(live(), BOUND))
    return told


def test_asgi_dispatches_while_the_server_lives(site: HookRegistry, endpoint: ScriptedEndpoint) -> None:
    """It starts with the server's start, not when it is loaded, and has stopped when the server's end is answered."""
    dispatcher = Dispatcher(site, transport=endpoint)
    application = install(get_asgi_application(), dispatcher=dispatcher)
    site.emit("RFIs", "update")
    assert not runs(dispatcher)

    def between() -> None:
        assert runs(dispatcher)
        endpoint.wait_for(1, BOUND)

    assert lived(application, between) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not runs(dispatcher)


def test_asgi_says_why_it_does_not_start(site: HookRegistry) -> None:
    """A dispatcher that cannot start fails the server's start."""
    application = install(get_asgi_application(), dispatcher=Dispatcher(site))
    site.close()
    assert lived(application, lambda: None) == ["lifespan.startup.failed"]


def test_asgi_without_a_lifespan(site: HookRegistry) -> None:
    """A server that says nothing of its start has it started by the first request."""
    dispatcher = Dispatcher(site, transport=ScriptedEndpoint())
    application = install(get_asgi_application(), dispatcher=dispatcher)
    statuses: list[int] = []

    async def send(message: dict[str, Any]) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        # After its body nothing more comes of a client that stays.
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")]}
    asyncio.run(asyncio.wait_for(application(scope, receive, send), BOUND))
    assert (statuses, runs(dispatcher)) == ([200], True)
    dispatcher.stop()


def test_a_storage_is_djangos_to_name(site: HookRegistry, path: Path) -> None:
    """The registry that the settings make is in the file of the alias."""
    assert isinstance(site.storage, SQLiteStorage)
    assert str(path) in repr(site.storage)
