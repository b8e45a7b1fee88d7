"""The examples under real servers, with workers, forks and reloaders: all arrives once, and a stop loses nothing."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from procore_hooks import Hook, HookRegistry, verify
from procore_hooks.testing import WebhookReceiver

from ..scene import FULL, wait_until
from .servers import BOUND, Server, create_rfi, hooked, run, serving, signed_in

pytest.importorskip("gunicorn")
pytest.importorskip("uvicorn")

# Marked with a star: of the long form.
SEVERAL_WORKERS = {
    "FastAPI in uvicorn": ("fastapi_app", "uvicorn", "--workers", "2"),
    "FastAPI in gunicorn, preloaded *": ("fastapi_app", "gunicorn asgi", "--workers", "2", "--preload"),
    "Flask in gunicorn *": ("flask_app", "gunicorn", "--workers", "2"),
    "Flask in gunicorn, preloaded": ("flask_app", "gunicorn", "--workers", "2", "--preload"),
    "Django in gunicorn": ("django_site", "django gunicorn", "--workers", "2"),
    "Django in gunicorn, preloaded *": ("django_site", "django gunicorn", "--workers", "2", "--preload"),
}
ONE_PROCESS = {
    "FastAPI under a reloader *": ("fastapi_app", "uvicorn", "--reload"),
    "Flask under a reloader": ("flask_app", "flask run", "--debug"),
    "Flask in its own server *": ("flask_app", "flask run"),
    "Django under a reloader *": ("django_site", "manage.py"),
    "Django in ASGI *": ("django_site", "django uvicorn"),
}
LOADING = {
    "flask routes": ("flask_app", "-m", "flask", "routes"),
    "manage.py check *": ("django_site", "manage.py", "check"),
    "import of the FastAPI app *": ("fastapi_app", "-c", "import app"),
}
Database = Callable[[str], Path]
# The slowest attempt in flight takes less; a server that waits for more than that has been held up.
SOON = 10.0


def run_here(cases: Iterable[str]) -> list[str]:
    return [case for case in cases if FULL or not case.endswith("*")]


def arrived(receiver: WebhookReceiver) -> Counter[str]:
    """How often each RFI's subject has arrived."""
    return Counter(request.json()["data"]["subject"] for request in receiver.requests)


def create(server: Server, client: httpx.Client, name: str, number: int) -> None:
    for each in range(number):
        assert create_rfi(server, client, f"{name} {each}").status_code < 400


def all_delivered(registry: HookRegistry, hook: Hook, number: int) -> None:
    """Wait until so many are, each by one attempt."""
    wait_until(lambda: registry.deliveries.stats(since=hook.created_at).delivered == number, bound=BOUND)
    assert [delivery.attempt_count for delivery in registry.deliveries.list()] == [1] * number


def rfis(server: Server) -> int:
    table = "rfis_rfi" if server.example == "django_site" else "rfis"
    with closing(sqlite3.connect(server.database)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def check_signatures(receiver: WebhookReceiver, hook: Hook) -> None:
    for request in receiver.requests:
        assert verify(request.body, request.headers, hook.signing_secret)["data"] == request.json()["data"]


@pytest.mark.parametrize("case", run_here(SEVERAL_WORKERS))
def test_several_workers(case: str, database: Database, receiver: WebhookReceiver) -> None:
    """Each worker dispatches, the process that started them does not, and each RFI arrives in one signed POST. SIGTERM
    ends the server while a POST is under way, which is waited for; the rest is delivered by the next start, before
    any request.
    """
    example, command, *options = SEVERAL_WORKERS[case]
    path = database(example)
    with hooked(path, receiver.url) as (registry, hook):
        with serving(example, command, *options, database=path) as server:
            server.wait_until_it_answers()
            with closing(signed_in(server)) as client:
                create(server, client, "early", 4)
                receiver.wait_for(4, timeout=BOUND)
                wait_until(lambda: len(server.started_dispatchers()) == 2, bound=BOUND)
                receiver.reply(200, delay=0.5, times=None)
                create(server, client, "late", 4)
            receiver.wait_for(5, timeout=BOUND)
            assert server.terminate() < SOON
            assert server.process.pid not in server.started_dispatchers()
        sent = len(receiver.requests)
        assert (rfis(server), sent < 8) == (8, True)
        stats = registry.deliveries.stats(since=hook.created_at)
        assert (stats.delivered, stats.enqueued) == (sent, 8 - sent)
        receiver.reply(200, times=None)
        # One worker will do where each of several takes long to come up.
        again = options if "gunicorn" in command else []
        with serving(example, command, *again, database=path):
            receiver.wait_for(8, timeout=BOUND)
            all_delivered(registry, hook, 8)
        assert arrived(receiver) == {f"{when} {number}": 1 for when in ("early", "late") for number in range(4)}
        check_signatures(receiver, hook)


@pytest.mark.parametrize("case", run_here(ONE_PROCESS))
def test_one_process(case: str, database: Database, receiver: WebhookReceiver) -> None:
    """One process dispatches, and where there is a reloader, that is the one that serves and not its parent. What the
    app rolls back is not sent, and SIGTERM ends it soon.
    """
    example, command, *options = ONE_PROCESS[case]
    path = database(example)
    with hooked(path, receiver.url) as (registry, hook), serving(example, command, *options, database=path) as server:
        server.wait_until_it_answers()
        with closing(signed_in(server)) as client:
            create(server, client, "early", 1)
            assert create_rfi(server, client, "x" * 300_000).status_code == 422
            create(server, client, "late", 1)
        all_delivered(registry, hook, 2)
        (dispatching,) = server.started_dispatchers()
        assert (dispatching == server.process.pid) == ("reloader" not in case)
        assert server.terminate() < SOON
        assert (rfis(server), arrived(receiver)) == (2, {"early 0": 1, "late 0": 1})
        check_signatures(receiver, hook)


def test_a_process_of_its_own(database: Database, receiver: WebhookReceiver) -> None:
    """`manage.py procore_hooks_dispatch` delivers what a server that does not dispatch has stored, and ends at SIGTERM
    once the POST that is under way was answered.
    """
    path = database("django_site")
    with hooked(path, receiver.url) as (registry, hook):
        alone = {"RFIS_DISPATCH": "0"}
        command = serving("django_site", "dispatch", database=path)
        with serving("django_site", "django gunicorn", database=path, environment=alone) as server, command as own:
            server.wait_until_it_answers()
            receiver.reply(200, delay=0.5)
            with closing(signed_in(server)) as client:
                create(server, client, "early", 2)
            receiver.wait_for(1, timeout=BOUND)
            assert own.terminate() < SOON
            assert (own.process.returncode, own.started_dispatchers()) == (0, [own.process.pid])
            assert server.started_dispatchers() == []
            assert "stays queued" in own.output()
        assert arrived(receiver) == {"early 0": 1}
        assert registry.deliveries.stats(hook.id, since=hook.created_at).delivered == 1


@pytest.mark.parametrize("case", run_here(LOADING))
def test_what_does_not_serve_does_not_dispatch(case: str, database: Database, receiver: WebhookReceiver) -> None:
    """A command that loads the app, and a mere import, start no dispatcher."""
    example, *words = LOADING[case]
    path = database(example)
    with hooked(path, receiver.url) as (registry, hook):
        registry.emit("RFIs", "create", {"subject": "waits"}, company_id=8, project_id=6778)
        status, started, output = run(example, words, path)
        assert (status, started) == (0, []), output
        assert registry.deliveries.stats(hook.id, since=hook.created_at).enqueued == 1


def test_the_tests_of_the_django_site(tmp_path: Path) -> None:
    """They pass by `manage.py test`, and dispatch only when they say so."""
    status, started, output = run("django_site", ["manage.py", "test"], tmp_path / "rfis.db")
    assert (status, started) == (0, []), output
    assert "Ran 2 tests" in output


def test_no_password_no_start(database: Database) -> None:
    """No example starts without a password of the reader's own."""
    for example, words in (("flask_app", ["-c", "import app"]), ("django_site", ["manage.py", "check"])):
        status, _, output = run(example, words, database(example), {"RFIS_PASSWORD": None})
        assert status != 0
        assert "KeyError: 'RFIS_PASSWORD'" in output
