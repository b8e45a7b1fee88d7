"""Secrets are planted, all that a registry and a dispatcher do is done, and nothing that they tell shows a secret.

Each test has secrets of its own, listens to every logger from DEBUG on, and at its end looks for each secret, in each
writing, in every value, error, log record and notice that came by. A secret is in `Secret.reveal()`, in the database,
and on the wire, and nowhere else; a hook's own `destination_url` is as it was given.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from procore_hooks import (
    AsyncHookRegistry,
    Dispatcher,
    HookRegistry,
    InvalidInput,
    KeyRing,
    RetryPolicy,
    SecretUnreadable,
    SQLiteStorage,
    StorageError,
    Timeouts,
    VerificationError,
    verify,
)
from procore_hooks.testing import WebhookReceiver

from .conftest import BOUND, answering, wait_until
from .planted import Net, Planted
from .planted_scene import FAILURES, LONG_AGO, NoTLS, Scene, closed_port, echo, of_httpx, quoting, served, staged


@pytest.fixture
def printed(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed so far, by any thread."""
    return lambda: "".join(capfd.readouterr())


@pytest.fixture(params=["memory", "sqlite"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, printed: Callable[[], str]) -> Iterator[Scene]:
    """A scene in each of the storages that need no server."""
    with staged(None if request.param == "memory" else tmp_path / "hooks.db", printed) as one:
        yield one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hooks.db"


@pytest.fixture
def in_file(path: Path, printed: Callable[[], str]) -> Iterator[Scene]:
    """A scene in an encrypted file."""
    with staged(path, printed) as one:
        yield one


@pytest.fixture
def echoing(scene: Scene) -> Iterator[str]:
    """The URL of a receiver that sends back all that it gets."""
    with served(ThreadingHTTPServer(("127.0.0.1", 0), echo(scene.planted))) as port:
        yield f"http://127.0.0.1:{port}"


def test_the_net_finds_what_leaks() -> None:
    """In a value, an error and its cause, a log record, whatever the writing is; and nothing where nothing is."""
    planted, net = Planted(rotated=["whsec_" + "k5/+Wq9z" * 5]), Net()
    written = (repr(planted.authorization), quote(planted.header, safe=""), planted.url("https://hooks.example"))
    in_hex, in_base64 = b64decode(planted.signing[6:]).hex(), b64encode(planted.private.encode()).decode()

    def failing() -> None:
        try:
            raise LookupError(b64decode(planted.encryption))
        except LookupError as error:
            raise RuntimeError("no secret here") from error

    with net.over_all_loggers():
        net.value("a value", written)
        assert {name for name, *_ in net.leaks(planted)} == {"query", "authorization", "header"}
        logging.getLogger("httpx").debug("%s", [in_hex, planted.path])
        net.raising("an error", failing)
    net.told += ("more", in_base64), ("more", f"{planted.rotated[0][6:20]}...")
    assert {name for name, *_ in net.leaks(planted)} == planted.writings().keys()
    assert net.leaks(Planted(), "and printed") == []


# Answers


def test_answers_and_all_that_follows(scene: Scene, webhook_receiver: WebhookReceiver) -> None:
    """Delivered, failed, gone, late; sent again, recovered, pinged, disabled, deleted, pruned."""
    registry, value = scene.registry, scene.net.value
    hooks = scene.plant(webhook_receiver.url.rstrip("/"))
    assert scene.deliver() == [None, None]
    got = webhook_receiver.requests[0]
    assert got.headers["authorization"] == f"Bearer {scene.planted.authorization}"
    assert scene.planted.query in got.path
    for status in (500, 410):
        webhook_receiver.reply(status, times=2)
        assert scene.deliver(retry=RetryPolicy.procore()) == [None, None]
        for hook in hooks:
            if status == 500:
                value("ping", registry.hooks.ping(hook.id))
                value("drain", scene.dispatcher(retry=RetryPolicy.procore()).drain(BOUND))
            value("enable", registry.hooks.enable(hook.id))
        value("drain", scene.dispatcher().drain(BOUND))
    for hook in hooks:
        value("ping", registry.hooks.ping(hook.id))
        value("check", registry.hooks.check(hook.id))
        value("disable", registry.hooks.disable(hook.id, "drop"))
        value("redeliver", registry.deliveries.redeliver(registry.deliveries.list(hook.id)[-1].id))
        value("recover", registry.deliveries.recover(hook.id, since=LONG_AGO))
    kinds = {type(notice).__name__ for notice in scene.net.notices}
    assert kinds == {"AttemptRecorded", "HookPaused", "HookResumed", "HookDisabled"}
    registry.hooks.delete(hooks[1].id)
    scene.hooks.pop()
    scene.net.raising("redeliver of a deleted hook", lambda: registry.deliveries.redeliver(2))
    value("prune", registry.deliveries.prune(before=datetime.now(UTC) + timedelta(days=1)))


def test_an_answer_that_comes_late(scene: Scene, webhook_receiver: WebhookReceiver) -> None:
    """The deadline says how long it was, and nothing of what was sent."""
    scene.plant(webhook_receiver.url.rstrip("/"))
    webhook_receiver.reply(200, delay=0.2, times=2)
    assert scene.deliver(timeouts=Timeouts(response=0.05)) == ["no answer within 0.05 s of the connection"] * 2


def test_answers_to_an_async_registry(scene: Scene, webhook_receiver: WebhookReceiver) -> None:
    """The same values come out of the awaited verbs, and asyncio in its debug mode logs no more than otherwise."""
    scene.plant(webhook_receiver.url.rstrip("/"))

    async def main() -> None:
        registry = AsyncHookRegistry(scene.registry.storage, destinations=scene.registry.destinations)
        asyncio.get_running_loop().set_debug(True)
        async with Dispatcher(registry, observers=[scene.net.observe]) as dispatcher:
            scene.net.value("emit", await registry.emit("RFIs", "update"))
            scene.net.value("drain", await dispatcher.drain_async(BOUND))
        scene.net.value("list", await registry.hooks.list())
        for delivery in await registry.deliveries.list():
            assert delivery.status == "delivered"
            scene.take(delivery.id)
        for hook in scene.hooks:
            scene.net.value("check", await registry.hooks.check(hook.id))

    asyncio.run(main())


def test_a_receiver_that_sends_back_all_it_got(scene: Scene, echoing: str) -> None:
    """In the body and in headers, as text and as JSON, the redirect among it; also cut where it is kept no further."""
    hooks = scene.plant(echoing)
    for kept in (0, 400, 1_000, 8_192, 65_536):
        assert scene.deliver(kept_response_bytes=kept) == [None, None]
        for hook in hooks:
            scene.registry.hooks.enable(hook.id)
    attempt = scene.registry.deliveries.get(scene.registry.deliveries.list()[0].id).attempts[0]
    assert attempt.response_body.count(b"*****") > 20
    assert attempt.response_headers["location"].endswith("/hook?*****")
    for hook in hooks:
        report = scene.net.value("check", scene.registry.hooks.check(hook.id))
        assert "https://elsewhere.example" in report.advice


@pytest.mark.parametrize("times", [500, 2_000])
def test_an_echo_that_is_cut_within_a_secret(scene: Scene, times: int) -> None:
    """By our own limit, wherever in a secret that falls, and by a receiver that hangs."""
    scene.plant("https://hooks.example")
    sent = scene.planted.headers["Authorization"].encode()

    class Body(httpx.AsyncByteStream):
        def __init__(self, content: bytes, hangs: bool) -> None:
            self.content, self.hangs = content, hangs

        async def __aiter__(self) -> Any:
            yield self.content
            if self.hangs:
                await asyncio.Event().wait()

    for shift in (4, 17, 40):
        content = b"x" * shift + sent * times
        cut_by_us = len(content) > 65_536
        stream = Body(content if cut_by_us else content[: -shift or None], hangs=not cut_by_us)
        transport = httpx.MockTransport(lambda request, stream=stream: httpx.Response(200, stream=stream))
        timeouts, why = Timeouts(), None
        if not cut_by_us:
            timeouts, why = Timeouts(total=0.1), "the answer did not end within 0.1 s"
        assert scene.deliver(transport, kept_response_bytes=65_536, timeouts=timeouts) == [why, why]


# Failures on the way


@pytest.mark.parametrize("why", FAILURES)
def test_failures_on_the_way(scene: Scene, why: str) -> None:
    """Refused, unknown, forbidden: the history, the log and a check tell why, and no more of the URL than its host."""
    base, policy = FAILURES[why](scene)
    hooks = scene.plant(base)
    scene.registry = HookRegistry(scene.registry.storage, destinations=policy)
    assert [why in str(error) for error in scene.deliver()] == [True, True]
    for hook in hooks:
        assert not scene.net.value("check", scene.registry.hooks.check(hook.id)).ok


@pytest.mark.parametrize("own", [True, False])
def test_tls_that_fails(scene: Scene, own: bool) -> None:
    """By the library's own transport, and by httpx's."""
    with served(ThreadingTCPServer(("127.0.0.1", 0), NoTLS)) as port:
        hooks = scene.plant(f"https://127.0.0.1:{port}")
        transport = None if own else of_httpx()
        assert all("TLS" in str(error) or "SSL" in str(error) for error in scene.deliver(transport))
        for hook in hooks:
            report = scene.net.value("check", scene.registry.hooks.check(hook.id, transport=transport))
            assert report.stage == ("tls" if own else "connection")


def test_a_payload_format_that_raises(scene: Scene) -> None:
    """Its error says what it likes of the event; the hook's secrets it does not know."""
    hooks = scene.plant("https://hooks.example", payload_version="own")
    assert scene.deliver() == ["the payload format 'own' raised LookupError"] * 2
    for hook in hooks:
        scene.net.raising("check", lambda hook=hook: scene.registry.hooks.check(hook.id))


# Transports of the app's own


def test_httpx_as_the_transport(scene: Scene, webhook_receiver: WebhookReceiver) -> None:
    """httpx and httpcore log what they do: it holds no secret that we gave them."""
    scene.plant(webhook_receiver.url.rstrip("/"))
    assert scene.deliver(of_httpx()) == [None, None]
    assert any(place == "log of httpcore.connection" for place, _ in scene.net.logged)


def test_httpx_whose_connection_is_refused(scene: Scene) -> None:
    """What httpx raises has the request within it."""
    scene.plant(f"http://127.0.0.1:{closed_port()}")
    assert all(scene.deliver(of_httpx()))


@pytest.mark.parametrize("kind", [httpx.ConnectError, RuntimeError, OSError, KeyError, UnicodeError])
@pytest.mark.parametrize("chained", [True, False])
def test_transports_that_quote_what_they_were_given(scene: Scene, kind: type[Exception], chained: bool) -> None:
    """Stars stand for it, in the history, in the log, in notices, and in a check."""
    hooks = scene.plant("https://hooks.example")
    transport = quoting(kind, chained)
    assert all("*****" in str(error) for error in scene.deliver(transport))
    for hook in hooks:
        assert not scene.net.value("check", scene.registry.hooks.check(hook.id, transport=transport)).ok


# Bad input, and what is logged of trouble


def test_bad_input_that_holds_a_secret(scene: Scene) -> None:
    """Every verb that takes a secret refuses without showing it, and shows of a URL no path and no query."""
    planted, hooks, net = scene.planted, scene.registry.hooks, scene.net
    (hook, _) = scene.plant("https://hooks.example")
    odd = [":70000", "/ ", "\\", "\n", "\u200b.com", "/#"]
    urls = [
        f"https://me:{planted.authorization}@hooks.example",
        "ftp://hooks.example",
        "https://10.0.0.1",
        "https://[::g]",
    ]
    for base in ["", "https://xn--a", *urls, *(f"https://hooks.example{one}" for one in odd)]:
        url = planted.url(base)
        for call in (
            lambda url=url: hooks.create(url, namespace="test"),
            lambda url=url: hooks.update(hook.id, destination_url=url),
        ):
            assert isinstance(net.raising(f"url {base}", call), InvalidInput)
        net.value("check", hooks.check(url))
    secret = planted.authorization
    for headers in (
        {"X-Key": f"{secret}\n"},
        {f"X: {secret}": "v"},
        {"Host": secret},
        {"X-Key": secret.encode()},
        {"X-Key": secret * 400},
        [secret],
    ):
        net.raising("headers", lambda headers=headers: hooks.update(hook.id, destination_headers=headers))
    for bad in (planted.signing + "!", planted.private[:-4], planted.signing[:20], planted.signing.encode()):
        net.raising("signing", lambda bad=bad: hooks.create("https://a.example/", namespace="t", signing_secret=bad))
    net.raising("update", lambda: hooks.update(hook.id, signing_secret=planted.signing))
    for keys, current in (
        ({planted.encryption: "2026-11"}, "2026-11"),
        ({"2026-11": planted.encryption + "A"}, "2026-11"),
        ({"2026-11": planted.encryption}, planted.encryption),
        ({"2026-11": planted.encryption.encode()}, "2026-11"),
        (planted.encryption, "2026-11"),
    ):
        net.raising("KeyRing", lambda keys=keys, current=current: KeyRing(keys, current=current))
    for bad in (planted.signing, [planted.signing, planted.signing + "!"], planted.signing.encode()):
        error = net.raising("verify", lambda bad=bad: verify(b"{}", {}, bad))
        assert isinstance(error, VerificationError | InvalidInput)


def test_callables_that_raise(scene: Scene) -> None:
    """An observer and a retry policy that raise are logged, and what they were told of is not."""

    def observer(notice: object) -> None:
        raise RuntimeError(f"cannot take {type(notice).__name__} with {notice.hook.signing_secret}")  # type: ignore[attr-defined]

    def wait(state: object) -> float:
        raise RuntimeError(f"cannot wait for {state!r} {vars(state)!r}")

    scene.plant("https://hooks.example")
    policy = RetryPolicy(wait=wait, stop=lambda state: False)  # type: ignore[arg-type]
    scene.deliver(answering(500), observers=[observer, scene.net.observe], retry=policy)
    logged = "".join(text for _, text in scene.net.logged)
    assert [text in logged for text in ("cannot take AttemptRecorded", "cannot wait for")] == [True, True]


def test_a_storage_that_fails(in_file: Scene, path: Path) -> None:
    """What the database says of a failure, in errors and in the log of a running dispatcher, holds no value."""
    hooks = in_file.plant("https://hooks.example")
    net, registry = in_file.net, in_file.registry
    with in_file.dispatcher(answering()):
        registry.emit("RFIs", "update")
        wait_until(lambda: all(one.status == "delivered" for one in registry.deliveries.list()))
        connection = sqlite3.connect(path)
        connection.execute("ALTER TABLE procore_hooks_hooks RENAME TO moved")
        connection.execute("ALTER TABLE procore_hooks_attempts RENAME TO moved_too")
        for call in (
            lambda: registry.hooks.get(hooks[0].id),
            lambda: registry.hooks.rotate_secret(hooks[0].id),
            lambda: registry.hooks.create(
                in_file.planted.url("https://hooks.example"),
                namespace="test",
                destination_headers=in_file.planted.headers,
            ),
            lambda: registry.emit("RFIs", "update"),
            lambda: registry.deliveries.get(registry.deliveries.list()[0].id),
        ):
            assert isinstance(net.trying("storage", call), StorageError | None)
        connection.execute("ALTER TABLE procore_hooks_queues RENAME TO moved_three")
        wait_until(lambda: any("the storage failed" in text for _, text in net.logged))
        for there, back in (("moved", "hooks"), ("moved_too", "attempts"), ("moved_three", "queues")):
            connection.execute(f"ALTER TABLE {there} RENAME TO procore_hooks_{back}")
        connection.close()


def test_secrets_that_cannot_be_read(in_file: Scene, path: Path) -> None:
    """With another key, with none, with a damaged text; and what encrypts them anew."""
    hooks = in_file.plant("https://hooks.example")
    net, original, other = in_file.net, in_file.registry, Planted()
    original.emit("RFIs", "update")
    new = KeyRing({"2026-12": other.encryption}, current="2026-12")
    wrong = KeyRing({"2026-11": other.encryption}, current="2026-11")
    for keys in (None, new, wrong):
        with HookRegistry(SQLiteStorage(path, keys=keys, durability="normal")) as registry:
            for call in (
                lambda registry=registry: registry.hooks.get(hooks[0].id),
                lambda registry=registry: registry.hooks.list(),
                lambda registry=registry: registry.explain("RFIs", "update"),
                lambda registry=registry: registry.hooks.rotate_secret(hooks[0].id),
            ):
                assert isinstance(net.raising("unreadable", call), SecretUnreadable)
            dispatcher = Dispatcher(registry, transport=answering(), observers=[net.observe])
            if keys is None:
                net.raising("drain", dispatcher.drain)
            else:
                net.value("drain", dispatcher.drain(BOUND))
    assert any("hooks that cannot be read" in text for _, text in net.logged)
    keys = {"2026-11": in_file.planted.encryption, "2026-12": other.encryption}
    both, back = (KeyRing(keys, current=current) for current in ("2026-12", "2026-11"))
    storage = SQLiteStorage(path, keys=both, durability="normal")
    with HookRegistry(storage, destinations=original.destinations) as in_file.registry:
        assert net.value("reencrypt", storage.reencrypt()) == 2
        net.value("both", both)
        assert in_file.deliver(answering()) == [None, None]
        in_file.look_around()
    in_file.registry = original
    storage = SQLiteStorage(path, keys=back, durability="normal")
    with HookRegistry(storage):
        storage.reencrypt()
    connection = sqlite3.connect(path)
    (text,) = connection.execute("SELECT signing_secrets FROM procore_hooks_hooks WHERE id = 1").fetchone()
    for damaged in (f"{text[:-12]}AAAAAAAAAAA=", text[:-12], text[12:], "{}"):
        with connection:
            connection.execute("UPDATE procore_hooks_hooks SET signing_secrets = ? WHERE id = 1", (damaged,))
        net.raising("damaged", lambda: original.hooks.get(1))
    with connection:
        connection.execute("UPDATE procore_hooks_hooks SET signing_secrets = ? WHERE id = 1", (text,))
    connection.close()
    assert net.leaks(other) == []
