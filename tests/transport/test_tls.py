"""TLS: the name that a certificate must hold, the reasons of a refusal, and the time it may take."""

from __future__ import annotations

import asyncio
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._dialling import TLSFailed, TLSTimeout
from procore_hooks._transport import GuardedTransport
from procore_hooks.exceptions import InvalidInput

from .conftest import (
    BOUND,
    OK,
    Peer,
    answers_ok,
    loopback,
    post,
    receiver,
    resolving,
    send,
    transport_for,
)

CA = trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def client_context(*trusted: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for each in trusted:
        each.configure_trust(context)
    return context


def test_tls_is_spoken_by_name_and_reused() -> None:
    """The certificate is checked against the name, not the dialled address; the connection is kept."""

    async def main() -> None:
        tls = server_context(CA.issue_cert("hooks.example"))
        policy = loopback(resolving(["127.0.0.1"])[0])
        async with (
            receiver(answers_ok, tls=tls) as seen,
            transport_for(policy, ssl_context=client_context(CA)) as transport,
        ):
            for host in ("hooks.example", "hooks.example", "hooks.example."):
                assert await send(transport, post(f"https://{host}:{seen.port}/")) == (200, b"ok")
            assert seen.connections == 2

    asyncio.run(main())


YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@pytest.mark.parametrize(
    ("certificate", "trusted", "text"),
    [
        (
            CA.issue_cert("hooks.example", not_before=YESTERDAY - timedelta(days=9), not_after=YESTERDAY),
            [CA],
            "expired",
        ),
        (CA.issue_cert("other.example"), [CA], "another name"),
        (CA.issue_cert("hooks.example"), [], "issuer is not trusted|self-signed"),
    ],
)
def test_bad_certificate_is_refused(certificate: trustme.LeafCert, trusted: list[trustme.CA], text: str) -> None:
    """An expired, foreign or untrusted certificate fails with its reason, and no request is sent."""

    async def main() -> None:
        policy = loopback(resolving(["127.0.0.1"])[0])
        async with (
            receiver(answers_ok, tls=server_context(certificate)) as seen,
            transport_for(policy, ssl_context=client_context(*trusted)) as transport,
        ):
            with pytest.raises(TLSFailed, match=text):
                await send(transport, post(f"https://hooks.example:{seen.port}/"))
            assert seen.requests == []

    asyncio.run(main())


def test_default_trust_does_not_hold_an_unknown_authority() -> None:
    """Without TLS settings of the app's own, only public authorities are trusted."""

    async def main() -> None:
        tls = server_context(CA.issue_cert("hooks.example"))
        async with (
            receiver(answers_ok, tls=tls) as seen,
            transport_for(loopback(resolving(["127.0.0.1"])[0])) as transport,
        ):
            for _ in range(2):
                with pytest.raises(TLSFailed, match="certificate"):
                    await send(transport, post(f"https://hooks.example:{seen.port}/"))

    asyncio.run(main())


def test_plain_http_on_the_port_is_told() -> None:
    """What does not speak TLS is told apart from a bad certificate."""

    async def main() -> None:
        async def greets(peer: Peer) -> None:
            await peer.send(OK)
            await peer.reader.read()

        async with receiver(greets) as seen, transport_for() as transport:
            with pytest.raises(TLSFailed, match="does not speak TLS"):
                await send(transport, post(f"https://127.0.0.1:{seen.port}/"))

    asyncio.run(main())


def test_connection_closed_within_the_handshake_is_told() -> None:
    """A receiver that hangs up while TLS is being agreed on fails at TLS."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.reader.read(1)

        async with receiver(script) as seen, transport_for(ssl_context=client_context()) as transport:
            with pytest.raises(TLSFailed, match="while TLS was being agreed on"):
                await send(transport, post(f"https://127.0.0.1:{seen.port}/"))

    asyncio.run(main())


def test_silent_tls_times_out_within_the_connect_timeout() -> None:
    """Name, connection and TLS share one timeout: a receiver that never shakes hands does not hold it up."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await asyncio.Event().wait()

        async with receiver(script) as seen, transport_for(ssl_context=client_context()) as transport:
            started = time.monotonic()
            with pytest.raises(TLSTimeout, match="TLS was not agreed on"):
                await send(transport, post(f"https://127.0.0.1:{seen.port}/", connect=0.1))
            assert time.monotonic() - started < BOUND

    asyncio.run(main())


@pytest.mark.parametrize("settings", [{"idle_seconds": -1}, {"idle_seconds": float("nan")}, {"max_idle": -1}])
def test_wrong_setting_is_refused(settings: dict[str, float]) -> None:
    """A setting out of its range raises when the transport is made, and names itself."""
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        GuardedTransport(DestinationPolicy(), **settings)  # type: ignore[arg-type]
