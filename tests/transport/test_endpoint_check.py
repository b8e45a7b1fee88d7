"""The check of an endpoint: each stage fails in its own words, and nothing escapes as an exception."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trustme

from procore_hooks import _dialling
from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._core.models import EndpointReport, Timeouts
from procore_hooks._dialling import NameNotFound
from procore_hooks._endpoint_check import check_endpoint, check_url
from procore_hooks._transport import GuardedTransport

from .conftest import OK, Peer, answering, answers_ok, loopback, receiver, resolving

POLICY = DestinationPolicy(schemes=("https", "http"))
TIMEOUTS = Timeouts(connect=1, response=1, total=2)


def check_with(
    handler: Callable[[httpx.Request], Any], url: str = "https://hooks.example/a-token?a-token"
) -> EndpointReport:
    """The report on an endpoint that behaves like this, through a transport that is not ours."""
    request = httpx.Request("POST", url, content=b"{}", headers={"authorization": "Bearer a-token"})
    return asyncio.run(check_endpoint(request, POLICY, httpx.MockTransport(handler), TIMEOUTS))


async def check_real(
    url: str, policy: DestinationPolicy, timeouts: Timeouts = TIMEOUTS, **settings: Any
) -> EndpointReport:
    """The report on an endpoint on a real socket."""
    transport = GuardedTransport(policy, **settings)
    try:
        return await check_endpoint(httpx.Request("POST", url, content=b"{}"), policy, transport, timeouts)
    finally:
        await transport.aclose()


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_is_ok(status: int) -> None:
    """Any 2xx is well, and the last stage is reached."""
    assert check_with(lambda request: httpx.Response(status)) == EndpointReport(ok=True, stage="answer")


@pytest.mark.parametrize(
    ("status", "problem", "advice"),
    [
        (401, "credentials", "Authorization"),
        (403, "credentials", "Authorization"),
        (404, "nothing at this path", "path"),
        (405, "does not take POST", "POST"),
        (410, "gone for good", "URL"),
        (413, "too large", "limit"),
        (418, "refuses", "log"),
        (429, "less often", "rate limit"),
        (500, "failed while", "log"),
        (503, "unavailable", "log"),
        (599, "fails", "log"),
    ],
)
def test_status_is_explained(status: int, problem: str, advice: str) -> None:
    """A status that is no success says what is likely wrong, with the status, and what to do."""
    report = check_with(lambda request: httpx.Response(status, text="a-token"))
    assert (report.ok, report.stage) == (False, "answer")
    assert problem in report.problem
    assert str(status) in report.problem
    assert advice in report.advice


@pytest.mark.parametrize(
    ("location", "advice"),
    [
        ("https://www.hooks.example/login?a-token", "on https://www.hooks.example."),
        ("https://user:a-token@www.hooks.example:8443/x", "on https://www.hooks.example:8443."),
        ("//[2606:4700::1]/x", "on https://[2606:4700::1]."),
        ("/a-token/", "another path on the same host"),
        ("http://hooks.example/", "on http://hooks.example."),
        ("javascript:alert(1)", "the endpoint itself"),
        ("https://" + "x" * 3000, "the endpoint itself"),
        ("https://[", "the endpoint itself"),
        ("https://a:99999999/", "the endpoint itself"),
        (None, "another path on the same host"),
    ],
)
def test_redirect_is_told_by_scheme_and_host(location: str | None, advice: str) -> None:
    """A redirect is not followed; the advice names where it points, without path, query or userinfo."""
    headers = {} if location is None else {"location": location}
    report = check_with(lambda request: httpx.Response(308, headers=headers))
    assert (report.ok, report.stage) == (False, "answer")
    assert "not followed" in report.problem
    assert advice in report.advice


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "stage"),
    [
        (NameNotFound("a-token"), "name"),
        (httpx.ConnectError("a-token"), "connection"),
        (httpx.ConnectTimeout("a-token"), "connection"),
        (httpx.ReadTimeout("a-token"), "answer"),
        (httpx.RemoteProtocolError("a-token"), "answer"),
        (ssl.SSLError("a-token"), "answer"),
        (ExceptionGroup("a-token", [ValueError("a-token")]), "answer"),
        (UnicodeError("a-token"), "answer"),
        (Unprintable(), "answer"),
    ],
)
def test_any_exception_becomes_a_report(error: Exception, stage: str) -> None:
    """Whatever another transport raises is a report, and none of its text is repeated: it may hold a secret."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    report = check_with(handler)
    assert (report.ok, report.stage) == (False, stage)
    assert "a-token" not in report.problem + report.advice
    assert report.advice


@pytest.mark.parametrize(
    ("url", "stage"),
    [
        ("http://localhost/a-token", "url"),
        ("http://user:a-token@hooks.example/", "url"),
        ("https://127.0.0.1/a-token", "address"),
        ("https://[::ffff:10.0.0.1]/a-token", "address"),
    ],
)
def test_url_is_judged_before_anything_is_sent(url: str, stage: str) -> None:
    """A URL that no delivery may use is reported without a request."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was sent")

    report = check_with(handler, url)
    assert (report.ok, report.stage) == (False, stage)
    assert "a-token" not in report.problem + report.advice
    assert report == check_url(url, POLICY)


def test_timeouts_reach_the_transport() -> None:
    """The transport is told how long name, connection and answer may take."""
    seen: list[object] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return httpx.Response(200)

    check_with(handler)
    assert seen == [{"connect": 1, "read": 1}]


def test_total_is_bounded_even_if_the_transport_has_no_timeouts() -> None:
    """A transport that never answers is given up after the total deadline."""

    async def handler(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError("never")

    request = httpx.Request("POST", "https://hooks.example/")
    timeouts = Timeouts(connect=1, response=1, total=0.05)
    report = asyncio.run(check_endpoint(request, POLICY, httpx.MockTransport(handler), timeouts))
    assert (report.ok, report.stage) == (False, "answer")
    assert "no answer" in report.problem


def test_cancellation_is_not_a_report() -> None:
    """A cancelled check is cancelled."""

    async def main() -> None:
        entered = asyncio.Event()

        async def handler(request: httpx.Request) -> httpx.Response:
            entered.set()
            await asyncio.Event().wait()
            raise AssertionError("never")

        request = httpx.Request("POST", "https://hooks.example/")
        task = asyncio.create_task(check_endpoint(request, POLICY, httpx.MockTransport(handler), TIMEOUTS))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


# On real sockets


def test_good_endpoint_is_ok() -> None:
    """An endpoint that takes the POST is well."""

    async def main() -> None:
        async with receiver(answers_ok) as seen:
            report = await check_real(f"http://127.0.0.1:{seen.port}/", DestinationPolicy.local())
            assert (report.ok, len(seen.requests)) == (True, 1)

    asyncio.run(main())


def test_unknown_name_is_told() -> None:
    """A name that cannot be looked up fails at the name."""

    def resolve(host: str) -> list[str]:
        raise OSError("no")

    report = asyncio.run(check_real("https://nowhere.example/", loopback(resolve)))
    assert (report.stage, "nowhere.example" in report.problem) == ("name", True)


def test_private_address_behind_a_name_is_told() -> None:
    """A name that points into a private network fails at the address."""
    report = asyncio.run(check_real("https://inside.example/", loopback(resolving(["10.0.0.1"])[0])))
    assert (report.stage, "private network" in report.problem) == ("address", True)
    assert "allow=" in report.advice


@pytest.mark.parametrize("host", ["93.184.216.34", "inside.example"])
def test_own_address_is_told(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A public address of this very machine, also behind a name, fails at the address, as any that is not allowed."""
    monkeypatch.setattr(_dialling, "is_own_address", lambda address: address == "93.184.216.34")
    report = asyncio.run(
        check_real(f"https://{host}/a-token", DestinationPolicy(resolve=resolving(["93.184.216.34"])[0]))
    )
    which = f"The address {host}" if host[0] == "9" else f"An address of {host!r}"
    assert (report.stage, report.problem) == ("address", f"{which} is not allowed: an address of this machine.")
    assert "allow=" in report.advice


def test_refused_connection_is_told() -> None:
    """A port that nobody listens at fails at the connection."""

    async def main() -> None:
        async with receiver(answers_ok) as seen:
            pass
        report = await check_real(f"http://127.0.0.1:{seen.port}/", DestinationPolicy.local())
        assert (report.stage, "refused" in report.problem) == ("connection", True)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "trusted", "problem"), [("other.example", True, "another name"), ("hooks.example", False, "")]
)
def test_bad_certificate_is_told(name: str, trusted: bool, problem: str) -> None:
    """A certificate that does not hold fails at TLS, with its reason."""

    async def main() -> None:
        authority = trustme.CA()
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.issue_cert(name).configure_cert(server)
        if trusted:
            authority.configure_trust(client)
        policy = loopback(resolving(["127.0.0.1"])[0])
        async with receiver(answers_ok, tls=server) as seen:
            report = await check_real(f"https://hooks.example:{seen.port}/", policy, ssl_context=client)
            assert (report.stage, report.ok, seen.requests) == ("tls", False, [])
            assert "certificate" in report.problem
            assert problem in report.problem

    asyncio.run(main())


def test_silence_is_told() -> None:
    """An endpoint that takes the request and does not answer fails at the answer, with the time it had."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.reader.read()

        async with receiver(script) as seen:
            timeouts = Timeouts(connect=1, response=0.1, total=2)
            report = await check_real(f"http://127.0.0.1:{seen.port}/", DestinationPolicy.local(), timeouts)
            assert (report.stage, report.ok) == ("answer", False)
            assert "0.1 s" in report.problem

    asyncio.run(main())


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"", OK[:10]])
def test_something_else_than_http_is_told(answer: bytes) -> None:
    """An endpoint that is not an HTTP server fails at the answer."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(answer)

        async with receiver(script) as seen:
            report = await check_real(f"http://127.0.0.1:{seen.port}/", DestinationPolicy.local())
            assert (report.stage, report.ok) == ("answer", False)
            assert "no proper answer: " in report.problem

    asyncio.run(main())


def test_endless_answer_does_not_hold_up_the_check() -> None:
    """The status decides; a body without end is not read."""

    async def main() -> None:
        endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2**20
        async with receiver(answering(endless)) as seen:
            assert (await check_real(f"http://127.0.0.1:{seen.port}/", DestinationPolicy.local())).ok
            async with asyncio.timeout(10):
                await seen.ended.get()

    asyncio.run(main())
