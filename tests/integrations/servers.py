"""Servers of the example apps, as processes of their own, and what a browser or a client does with them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import attrs
import httpx

import procore_hooks
from procore_hooks import DestinationPolicy, Hook, HookRegistry, SQLiteStorage

from ..scene import untraced_environment, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSWORD = "door-12"
BOUND = 30.0
# Notes which process starts a dispatcher. It imports nothing of ours: that would cost every process half a second.
_SITECUSTOMIZE = """
import os, threading
start = threading.Thread.start
def noted_start(self):
    if self.name == "procore-hooks-dispatcher":
        with open(os.environ["NOTED_STARTS"], "a") as notes:
            notes.write(f"{os.getpid()}\\n")
    start(self)
threading.Thread.start = noted_start
"""
_COMMANDS = {
    # Each in one process, if nothing else is asked for.
    "uvicorn": ["uvicorn", "app:app", "--port", "PORT"],
    "gunicorn": ["gunicorn", "app:app", "--bind", "127.0.0.1:PORT"],
    "gunicorn asgi": ["gunicorn", "app:app", "-k", "asgi", "--bind", "127.0.0.1:PORT"],
    "flask run": ["flask", "run", "--port", "PORT"],
    "django gunicorn": ["gunicorn", "portal.wsgi", "--bind", "127.0.0.1:PORT"],
    "django uvicorn": ["uvicorn", "portal.asgi:application", "--port", "PORT"],
    "manage.py": ["start", "127.0.0.1:PORT"],
    "dispatch": ["procore_hooks_dispatch"],
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@attrs.define
class Server:
    """A server process of an example, and the file that its app keeps everything in."""

    example: str
    command: str
    options: tuple[str, ...]
    database: Path
    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    notes: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def started_dispatchers(self) -> list[int]:
        """The processes that started one, in order."""
        return noted(self.notes)

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.output()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(self.url, timeout=BOUND).status_code < 500
            return False

        wait_until(answers, bound=BOUND)

    def terminate(self) -> float:
        """Send SIGTERM and wait for the end; returns the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(BOUND)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end:\n{self.output()}") from None
        return time.monotonic() - began


def environment_for(database: Path, folder: str, notes: Path) -> dict[str, str]:
    """What an example is run with; `folder` gets the module that notes starts."""
    (Path(folder) / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return {
        **untraced_environment(),
        "NOTED_STARTS": str(notes),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([folder, str(Path(procore_hooks.__file__).parents[1])]),
        "PYTHONUNBUFFERED": "1",
        "RFIS_DATABASE": str(database),
        "RFIS_LOCAL_RECEIVERS": "1",
        "RFIS_PASSWORD": PASSWORD,
    }


def noted(notes: Path) -> list[int]:
    return [int(line) for line in notes.read_text().split()] if notes.exists() else []


def run(
    example: str, words: list[str], database: Path, changes: Mapping[str, str | None] | None = None
) -> tuple[int, list[int], str]:
    """Run Python in the example's folder to its end: its status, the processes that dispatched, and all it said."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        environment = {**environment_for(database, folder, notes), **(changes or {})}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=EXAMPLES / example,
            env={name: value for name, value in environment.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BOUND,
        )
        return done.returncode, noted(notes), done.stdout


@contextlib.contextmanager
def serving(
    example: str, command: str, *options: str, database: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """The example, served by this command; killed at the end, with all its children, if it still runs."""
    port = free_port()
    words = [word.replace("PORT", str(port)) for word in _COMMANDS[command]]
    in_django = example == "django_site" and command in ("manage.py", "dispatch")
    started = ["manage.py", *words] if in_django else ["-m", *words]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        notes = Path(folder) / "notes"
        process = subprocess.Popen(
            [sys.executable, *started, *options],
            cwd=EXAMPLES / example,
            env={**environment_for(database, folder, notes), **(environment or {})},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        server = Server(example, command, options, database, port, process, log, notes)
        try:
            yield server
        finally:
            # The group has no other processes than those that were started here.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(BOUND)


def signed_in(server: Server) -> httpx.Client:
    """A client that has signed in, the way in which the example has people do it."""
    client = httpx.Client(base_url=server.url, timeout=BOUND)
    if server.example == "fastapi_app":
        client.auth = httpx.BasicAuth("admin", PASSWORD)
    elif server.example == "flask_app":
        assert client.post("/login", data={"password": PASSWORD}).status_code == 302
    else:
        form = {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": _token(client, "/login/")}
        assert client.post("/login/", data=form).status_code == 302
    return client


def _token(client: httpx.Client, path: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def create_rfi(server: Server, client: httpx.Client, subject: str) -> httpx.Response:
    """Create an RFI, as the example's own page does."""
    if server.example == "fastapi_app":
        return client.post("/rfis", json={"subject": subject})
    form: dict[str, Any] = {"subject": subject}
    if server.example == "flask_app":
        return client.post("/rfis", data=form)
    return client.post("/", data={**form, "csrfmiddlewaretoken": _token(client, "/")})


@contextlib.contextmanager
def hooked(database: Path, url: str) -> Iterator[tuple[HookRegistry, Hook]]:
    """The registry of the example's file, with a hook that hears of its RFIs."""
    with HookRegistry(SQLiteStorage(database), destinations=DestinationPolicy.local()) as registry:
        hook = registry.hooks.create(url, namespace="test", company_id=8, project_id=6778)
        registry.triggers.create(hook.id, "RFIs", "create")
        yield registry, hook
