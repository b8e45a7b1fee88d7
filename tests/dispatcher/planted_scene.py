"""What tests of planted secrets happen in: a registry whose hooks hold them, receivers, and transports that tell."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer
from typing import Any

import attrs
import httpx
from tenacity import stop_never, wait_fixed

from procore_hooks import (
    DestinationPolicy,
    Dispatcher,
    Hook,
    HookRegistry,
    KeyRing,
    MemoryStorage,
    RetryPolicy,
    Secret,
    SQLiteStorage,
)

from .conftest import BOUND
from .planted import Net, Planted, bodies_and_headers

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
ALONE = RetryPolicy(wait=wait_fixed(600), stop=stop_never, on_failure="independent")


def raising_format(event: object) -> object:
    raise LookupError(f"cannot write {event!r}")


@attrs.define
class Scene:
    """A registry with planted secrets, and the net."""

    planted: Planted
    net: Net
    registry: HookRegistry
    hooks: list[Hook] = attrs.field(factory=list)

    def plant(self, base: str, **fields: Any) -> list[Hook]:
        """Two hooks that hear everything, one for each kind of signing key; both keys have been rotated."""
        planted, hooks = self.planted, self.registry.hooks
        for secret in (planted.signing, Secret(planted.private)):
            made = self.net.value(
                "create",
                hooks.create(
                    planted.url(base),
                    namespace="test",
                    destination_headers=planted.headers,
                    signing_secret=secret,
                    **fields,
                ),
            )
            self.registry.triggers.create(made.id, "*", "*")
            rotated = self.net.value("rotate_secret", hooks.rotate_secret(made.id))
            planted.rotated.append(rotated.signing_secret.reveal())
            self.hooks.append(self.net.value("update", hooks.update(made.id, max_in_flight=2)))
        return self.hooks

    def dispatcher(self, transport: httpx.AsyncBaseTransport | None = None, **settings: Any) -> Dispatcher:
        settings = {"observers": [self.net.observe], "retry": ALONE, **settings}
        return Dispatcher(self.registry, transport=transport, **settings)

    def deliver(self, transport: httpx.AsyncBaseTransport | None = None, **settings: Any) -> list[str | None]:
        """One event for each hook, sent once. Returns what the attempts say went wrong; all is in the net."""
        emission = self.registry.emit("RFIs", "update", {"subject": "Door 12"}, resource_id=7)
        self.net.value("emit", emission)
        dispatcher = self.dispatcher(transport, **settings)
        self.net.value("drain", dispatcher.drain(BOUND))
        self.net.value("dispatcher", dispatcher)
        for delivery_id in emission.delivery_ids:
            self.take(delivery_id)
        attempts = [self.registry.deliveries.get(one).attempts[0] for one in emission.delivery_ids]
        return [attempt.response_error for attempt in attempts]

    def take(self, delivery_id: int) -> None:
        delivery = self.net.value("deliveries.get", self.registry.deliveries.get(delivery_id))
        self.net.told.append(("history", bodies_and_headers(delivery)))

    def look_around(self) -> None:
        """All that only reads."""
        registry, value = self.registry, self.net.value
        value("hooks.list", registry.hooks.list())
        value("triggers.list", registry.triggers.list(self.hooks[0].id))
        value("deliveries.list", registry.deliveries.list())
        value("failures", registry.deliveries.list(only_failures=True))
        value("explain", registry.explain("RFIs", "update"))
        value("stats", registry.deliveries.stats(since=LONG_AGO))
        for thing in (registry, registry.hooks, registry.storage, registry.destinations, *registry.deliveries.iter()):
            value("things", thing)
        for hook in self.hooks:
            value("headers", hook.destination_headers)
            value("secrets", hook.previous_secrets)
            for secret in (hook.signing_secret, *hook.destination_headers.values()):
                value("secret", secret)
            value("public key", hook.public_key)


@contextmanager
def staged(path: Path | None, printed: Callable[[], str]) -> Iterator[Scene]:
    """A scene in an encrypted file, or in memory without a path. At the end nothing may have leaked."""
    planted, net = Planted(), Net()
    with net.over_all_loggers():
        keys = net.value("KeyRing", KeyRing({"2026-11": planted.encryption}, current="2026-11"))
        storage = MemoryStorage() if path is None else SQLiteStorage(path, keys=keys, durability="normal")
        policy = DestinationPolicy(("https", "http"), ("127.0.0.0/8",), resolve=lambda host: ["127.0.0.1"])
        with HookRegistry(storage, destinations=policy, payload_formats={"own": raising_format}) as registry:
            scene = Scene(planted, net, registry)
            yield scene
            scene.look_around()
    assert net.leaks(planted, printed()) == []


def echo(planted: Planted) -> type[BaseHTTPRequestHandler]:
    """Answers with all that it got, and what else it knows, in the body and in headers, and redirects to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            signature = self.headers["webhook-signature"]
            got = {"url": self.path, "headers": dict(self.headers), "body": body.decode()}
            known = planted.known_to_receiver(signature)
            text = f"{json.dumps(got)}\n{got}\n{self.headers}\n{self.path}\n{known}".encode()
            self.send_response(307, self.path)
            self.send_header("Location", f"https://elsewhere.example{self.path}")
            self.send_header("Set-Cookie", f"session={planted.query}")
            for number, (name, value) in enumerate(self.headers.items()):
                self.send_header(f"X-Echo-{number}", f"{name}: {value}")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *values: object) -> None:
            pass

    return Handler


class NoTLS(StreamRequestHandler):
    """What listens there and speaks no TLS."""

    def handle(self) -> None:
        self.request.recv(1)
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")


@contextmanager
def served(server: TCPServer) -> Iterator[int]:
    """The port of a server that works in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def of_httpx() -> httpx.AsyncHTTPTransport:
    """httpx's own transport, which keeps no connection beyond the event loop."""
    return httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def quoting(kind: Callable[..., Exception], chained: bool) -> httpx.MockTransport:
    """A transport that puts all that it was given into its error."""

    def handler(request: httpx.Request) -> httpx.Response:
        told = f"{request.url} {request.url!r} {request.headers!r} {request.headers.raw} {request.url.path}"
        for header in ("authorization", "x-tenant"):
            told += f" {request.headers[header]} {json.dumps(request.headers[header])}"
        told += f" {dict(request.url.params)} {httpx.QueryParams(request.headers)}"
        if chained:
            try:
                raise ValueError(told)
            except ValueError as error:
                raise ExceptionGroup(told, [kind(told), KeyError(told)]) from error
        raise kind(told)

    return httpx.MockTransport(handler)


# Failures on the way: what makes each, and what is then said


def refused(scene: Scene) -> tuple[str, DestinationPolicy]:
    return f"http://127.0.0.1:{closed_port()}", scene.registry.destinations


def unknown_name(scene: Scene) -> tuple[str, DestinationPolicy]:
    def resolve(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")

    return "https://hooks.example", DestinationPolicy(resolve=resolve)


def broken_resolver(scene: Scene) -> tuple[str, DestinationPolicy]:
    def resolve(host: str) -> list[str]:
        raise RuntimeError(f"no resolver for {scene.planted.url(host)}")

    return "https://hooks.example", DestinationPolicy(resolve=resolve)


def forbidden(scene: Scene) -> tuple[str, DestinationPolicy]:
    return "https://hooks.example", DestinationPolicy(resolve=lambda host: ["10.0.0.1"])


def forbidden_since(scene: Scene) -> tuple[str, DestinationPolicy]:
    return "http://127.0.0.1:1", DestinationPolicy(deny=("127.0.0.0/8",))


FAILURES: dict[str, Callable[[Scene], tuple[str, DestinationPolicy]]] = {
    "the connection was refused": refused,
    "does not exist": unknown_name,
    "could not be looked up: RuntimeError": broken_resolver,
    "is not allowed: a private network": forbidden,
    "the scheme 'http' is not allowed": forbidden_since,
}
