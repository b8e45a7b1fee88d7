"""Headers on the wire: what a peer gets, byte for byte, over HTTP/1.1 and over HTTP/2, and what it never gets.

Rows that were written into the file by other means than this library did not pass its first wall. They meet the second
one, before the request is handed to any transport.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trustme

from procore_hooks import Attempt, DestinationPolicy, Dispatcher, HookRegistry, SQLiteStorage
from procore_hooks._requests import RequestMaker
from procore_hooks.testing import ManualClock

from .conftest import BOUND, answers_ok, receiver

SECRET = "hunter2-hunter2-hunter2"
CA = trustme.CA()
# All that RFC 9110 lets a name and a value hold, and this library too.
TOKEN_NAME = "X-!#$%&'*+.^_`|~09azAZ"
EVERY_VALUE = "!" + "".join(map(chr, range(0x20, 0x7F))) + "\t~"
GOOD = {"Authorization": f"Bearer {SECRET}", "ACCEPT": "text/plain", TOKEN_NAME: EVERY_VALUE, "x-tenant": "a\tb  c"}


@attrs.define
class Peer:
    """What came on the wire: bytes as they were, the headers of each request, and how to send to it."""

    url: str
    transport: httpx.AsyncBaseTransport | None
    raw: bytearray = attrs.field(factory=bytearray)
    requests: list[list[tuple[bytes, bytes]]] = attrs.field(factory=list)


@asynccontextmanager
async def http1() -> AsyncIterator[Peer]:
    """A peer that speaks HTTP/1.1, and the library's own transport."""
    async with receiver(answers_ok) as seen:
        peer = Peer(f"http://127.0.0.1:{seen.port}/in", None)
        yield peer
        for request in seen.requests:
            peer.raw += request
            head = request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
            peer.requests.append([(name, value) for name, _, value in (line.partition(b": ") for line in head)])


@asynccontextmanager
async def http2() -> AsyncIterator[Peer]:
    """A peer that speaks HTTP/2 over TLS, and an httpx transport of the app's own, which agrees to that."""
    certificate, client = CA.issue_cert("localhost"), ssl.create_default_context()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(server_context)
    server_context.set_alpn_protocols(["h2"])
    CA.configure_trust(client)
    transport = httpx.AsyncHTTPTransport(http2=True, verify=client)
    peer = Peer("", transport)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A check on the way in would end the connection where what came is to be seen.
        config = h2.config.H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        try:
            while data := await reader.read(65_536):
                peer.raw += data
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        peer.requests.append([(bytes(name), bytes(value)) for name, value in event.headers])
                    elif isinstance(event, h2.events.StreamEnded):
                        connection.send_headers(event.stream_id, [(":status", "204")], end_stream=True)
                writer.write(connection.data_to_send())
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    peer.url = f"https://localhost:{server.sockets[0].getsockname()[1]}/in"
    try:
        yield peer
    finally:
        await transport.aclose()
        server.close()
        await asyncio.sleep(0)


PEERS: dict[str, Callable[[], AbstractAsyncContextManager[Peer]]] = {"http/1.1": http1, "http/2": http2}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hooks.db"


@pytest.fixture
def registry(path: Path) -> Iterator[HookRegistry]:
    storage = SQLiteStorage(path, durability="normal")
    with HookRegistry(storage, destinations=DestinationPolicy.local(), clock=ManualClock()) as registry:
        yield registry


def listening(registry: HookRegistry, url: str, headers: dict[str, str]) -> int:
    hook = registry.hooks.create(url, namespace="test", destination_headers=headers)
    registry.triggers.create(hook.id, "*", "*")
    return hook.id


def write(path: Path, statement: str, *values: object) -> None:
    """Change the file by hand, as another program would."""
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def sent_to(
    open_peer: Callable[[], AbstractAsyncContextManager[Peer]], deliver: Callable[[Peer], Awaitable[None]]
) -> Peer:
    """A peer that was delivered to, and is gone."""

    async def main() -> Peer:
        async with asyncio.timeout(BOUND):
            async with open_peer() as peer:
                await deliver(peer)
            return peer

    return asyncio.run(main())


@pytest.mark.parametrize("protocol", PEERS)
def test_headers_arrive_byte_for_byte(registry: HookRegistry, protocol: str) -> None:
    """Every header once, the configured ones as they were given, and no CR, LF or NUL within one."""

    async def deliver(peer: Peer) -> None:
        listening(registry, peer.url, GOOD)
        registry.emit("RFIs", "update", {"subject": "Door 12"})
        report = await Dispatcher(registry, transport=peer.transport).drain_async(BOUND)
        assert report.delivered == 1

    peer = sent_to(PEERS[protocol], deliver)
    (headers,) = peer.requests
    got = {name.lower(): value for name, value in headers}
    assert len(got) == len(headers)
    for name, value in GOOD.items():
        assert got.pop(name.lower().encode()) == value.encode()
    ours = {"content-length", "content-type", "user-agent", "accept-encoding"}
    signed = {"webhook-id", "webhook-timestamp", "webhook-signature"}
    of_protocol = {"host"} if protocol == "http/1.1" else {":method", ":scheme", ":authority", ":path"}
    assert {name.decode() for name in got} == ours | signed | of_protocol
    assert not any(character in text for header in headers for text in header for character in b"\r\n\0")
    if protocol == "http/1.1":
        head, _, body = bytes(peer.raw).partition(b"\r\n\r\n")
        # The request line, one line for each header, and nothing that some reader takes for more.
        lines = head.split(b"\r\n")
        assert len(lines) == 1 + len(headers)
        assert not any(character in line for line in lines for character in b"\r\n\0")
        assert len(body) == int(got[b"content-length"])


SMUGGLED = f"{SECRET}\r\nContent-Length: 0\r\n\r\nPOST /evil HTTP/1.1\r\nHost: evil"
# What somebody wrote into the headers of a hook, and what the attempt then says.
BY_HAND: dict[str, tuple[dict[str, Any], str]] = {
    "line break": ({"X-Key": SMUGGLED}, "destination_headers.X-Key: the value holds a line break"),
    "lone LF": ({"X-Key": f"{SECRET}\nX-Evil: 1"}, "destination_headers.X-Key: the value holds a line break"),
    "lone CR": ({"X-Key": f"{SECRET}\rX-Evil: 1"}, "destination_headers.X-Key: the value holds a line break"),
    "NUL": ({"X-Key": f"{SECRET}\0{SECRET}"}, "destination_headers.X-Key: the value holds a line break"),
    "beyond ASCII": ({"X-Key": f"{SECRET}\u560a\u560d"}, "destination_headers.X-Key: the value holds a line break"),
    "half a character": ({"X-Key": f"{SECRET}\ud800"}, "destination_headers.X-Key: the value holds a line break"),
    "a line break in a name": ({f"X\r\n{SECRET}: 1\r\nY": SECRET}, "destination_headers: a name is empty or holds"),
    "half a character in a name": ({f"X\ud800{SECRET}": SECRET}, "destination_headers: a name is empty or holds"),
    "pseudo header": ({":authority": SECRET}, "destination_headers: a name begins with ':'"),
    "a Host": ({"Host": SECRET}, "destination_headers.Host: this header is set by the sender"),
    "two Hosts": ({"Host": SECRET, "hOST": "evil.example"}, "destination_headers.Host: this header is set by"),
    "a signature": ({"webhook-signature": SECRET}, "destination_headers.webhook-signature: this header is set"),
    "framing": ({"Transfer-Encoding": SECRET}, "destination_headers.Transfer-Encoding: this header is set"),
    "the same twice": ({"X-Key": SECRET, "x-key": SECRET}, "destination_headers.x-key: the name is there twice"),
    "white space": ({"X-Key": f" {SECRET}"}, "destination_headers.X-Key: the value begins or ends with white space"),
}


def only_attempt(registry: HookRegistry) -> Attempt:
    (delivery,) = registry.deliveries.list()
    (attempt,) = registry.deliveries.get(delivery.id).attempts
    assert (delivery.status, delivery.attempt_count) == ("retrying", 1)
    return attempt


@pytest.mark.parametrize("case", BY_HAND)
@pytest.mark.parametrize("protocol", PEERS)
def test_headers_written_by_hand_are_not_sent(registry: HookRegistry, path: Path, protocol: str, case: str) -> None:
    """Nothing reaches the peer; one attempt is recorded that says why, and shows no value."""
    headers, why = BY_HAND[case]

    async def deliver(peer: Peer) -> None:
        hook_id = listening(registry, peer.url, GOOD)
        registry.emit("RFIs", "update")
        write(path, "UPDATE procore_hooks_hooks SET destination_headers = ? WHERE id = ?", json.dumps(headers), hook_id)
        await Dispatcher(registry, transport=peer.transport).drain_async(BOUND)

    peer = sent_to(PEERS[protocol], deliver)
    assert (bytes(peer.raw), peer.requests) == (b"", [])
    attempt = only_attempt(registry)
    assert attempt.outcome == "retried"
    assert str(attempt.response_error).startswith(f"not sent: {why}")
    shown = f"{attempt.response_error} {attempt!r}"
    assert shown.isprintable()
    assert all(value.encode() for value in attempt.request_headers.values())  # no half of a character
    assert "hunter2-hunter2" not in shown


@pytest.mark.parametrize("ulid", ["01J\r\nX-Evil: 1\r\nZ", "01J\nZ", "01J\x7fZ", "01J\u560a\u560dZ", "", "01J: Z"])
@pytest.mark.parametrize("protocol", PEERS)
def test_an_id_written_by_hand_is_not_sent(registry: HookRegistry, path: Path, protocol: str, ulid: str) -> None:
    """The id of an event is a header too."""

    async def deliver(peer: Peer) -> None:
        listening(registry, peer.url, GOOD)
        registry.emit("RFIs", "update")
        write(path, "UPDATE procore_hooks_events SET ulid = ?", ulid)
        await Dispatcher(registry, transport=peer.transport).drain_async(BOUND)

    peer = sent_to(PEERS[protocol], deliver)
    assert (bytes(peer.raw), peer.requests) == (b"", [])
    error = str(only_attempt(registry).response_error)
    assert error.startswith("not sent: webhook-id: the stored ulid of the event ")
    assert error.isprintable()


def test_without_the_walls_http2_would_carry_it(registry: HookRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the walls are for: without them a line break arrives over HTTP/2, and the peer does see it."""
    prepared = RequestMaker._prepare

    def smuggling(maker: RequestMaker, *arguments: Any) -> Any:
        one = prepared(maker, *arguments)
        return attrs.evolve(one, headers=(*one.headers, ("x-smuggled", "a\r\nb")))

    monkeypatch.setattr(RequestMaker, "_prepare", smuggling)

    async def deliver(peer: Peer) -> None:
        listening(registry, peer.url, {})
        registry.emit("RFIs", "update")
        dispatcher = Dispatcher(registry, transport=peer.transport)
        await dispatcher.drain_async(BOUND)
        assert peer.requests == []  # the last wall alone
        monkeypatch.setattr("procore_hooks._requests.check_sent_headers", lambda raw: None)
        (hook,) = registry.hooks.list()
        registry.hooks.ping(hook.id)
        await dispatcher.drain_async(BOUND)

    peer = sent_to(http2, deliver)
    assert any((b"x-smuggled", b"a\r\nb") in headers for headers in peer.requests)
