"""What a request never gets from elsewhere: the environment, another destination, an earlier answer."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections import defaultdict
from pathlib import Path

import httpx
import pytest
import trustme

from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._dialling import TLSFailed
from procore_hooks._transport import GuardedTransport

from .conftest import OK, Peer, Script, answering, answers_ok, loopback, post, receiver, resolving, send, transport_for

CA = trustme.CA()
NAMES = ["a.example", "b.example", "c.example"]


def server_context(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(*names).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CA.configure_trust(context)
    return context


def host_of(request: bytes) -> str:
    _, _, rest = request.lower().partition(b"\r\nhost: ")
    return rest.partition(b"\r\n")[0].decode()


# The environment


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("spelt", [str.upper, str.lower])
def test_proxy_variables_are_not_heeded(monkeypatch: pytest.MonkeyPatch, scheme: str, name: str, spelt: object) -> None:
    """Whatever proxy the environment names, and whether or not it exempts others, it is never connected to."""

    async def main() -> None:
        tls = server_context("a.example") if scheme == "https" else None
        async with receiver(answers_ok) as proxy, receiver(answers_ok, tls=tls) as seen:
            monkeypatch.setenv(spelt(name), f"http://127.0.0.1:{proxy.port}")  # type: ignore[operator]
            monkeypatch.setenv("NO_PROXY", "nowhere.example")
            policy = loopback(resolving(["127.0.0.1"])[0])
            async with transport_for(policy, ssl_context=client_context()) as transport:
                assert (await send(transport, post(f"{scheme}://a.example:{seen.port}/")))[0] == 200
            assert (proxy.connections, seen.connections) == (0, 1)

    asyncio.run(main())


async def shake_hands() -> None:
    """A default transport against a certificate that only the environment could make it trust."""
    policy = loopback(resolving(["127.0.0.1"])[0])
    async with (
        receiver(answers_ok, tls=server_context("a.example")) as seen,
        transport_for(policy) as transport,
    ):
        with pytest.raises(TLSFailed, match="certificate"):
            await send(transport, post(f"https://a.example:{seen.port}/"))
        assert seen.requests == []


def authorities(folder: Path) -> tuple[Path, Path]:
    """Our authority as SSL_CERT_FILE takes it, and as SSL_CERT_DIR does."""
    file, directory = folder / "ca.pem", folder / "authorities"
    CA.cert_pem.write_to_path(str(file))
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl, for the name of a file in SSL_CERT_DIR")
    command = [openssl, "x509", "-hash", "-noout", "-in", str(file)]
    named = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    directory.mkdir()
    shutil.copy(file, directory / f"{named}.0")
    return file, directory


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_authorities_of_the_environment_are_not_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """An authority that the environment names is not trusted, though OpenSSL by itself would; one is that is given."""
    file, directory = authorities(tmp_path)
    monkeypatch.setenv(variable, str(file if variable == "SSL_CERT_FILE" else directory))

    async def main() -> None:
        tls = server_context("a.example")
        async with receiver(answers_ok, tls=tls) as seen:
            by_itself = ssl.create_default_context()
            _, writer = await asyncio.open_connection(
                "127.0.0.1", seen.port, ssl=by_itself, server_hostname="a.example"
            )
            writer.close()
            given = GuardedTransport(loopback(resolving(["127.0.0.1"])[0]), ssl_context=client_context())
            assert (await send(given, post(f"https://a.example:{seen.port}/")))[0] == 200
            await given.aclose()
        await shake_hands()

    asyncio.run(main())


def test_keys_are_not_logged_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SSLKEYLOGFILE gets no key of ours: whoever may set it could read what is sent."""
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    asyncio.run(shake_hands())
    assert not log.exists() or ("SECRET" not in log.read_text() and "CLIENT_RANDOM" not in log.read_text())


# Other destinations


def test_name_server_name_certificate_and_host_stay_together() -> None:
    """Three names at one address, asked at once and again: each connection shows one name, in TLS and in each Host."""
    told: list[str | None] = []
    hosts: dict[int, set[str]] = defaultdict(set)

    async def script(peer: Peer) -> None:
        number = peer.seen.connections
        server_name = peer.writer.get_extra_info("ssl_object").context.name
        while True:
            head = await peer.head()
            await peer.reader.readexactly(2)
            hosts[number].add(f"{server_name}={host_of(head)}")
            await peer.send(OK)

    class Named(ssl.SSLContext):
        name = ""

    contexts = {}
    for name in NAMES:
        contexts[name] = Named(ssl.PROTOCOL_TLS_SERVER)
        contexts[name].name = name
        CA.issue_cert(name).configure_cert(contexts[name])

    def choose(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        told.append(name)
        if name in contexts:
            tls.context = contexts[name]

    async def main() -> None:
        front = server_context("nobody.example")
        front.sni_callback = choose  # type: ignore[assignment]
        policy = loopback(resolving(["127.0.0.1"])[0])
        async with (
            receiver(script, tls=front) as seen,
            transport_for(policy, ssl_context=client_context(), idle_seconds=60) as transport,
        ):
            for _ in range(3):
                urls = [f"https://{name}:{seen.port}/" for name in NAMES * 4]
                answers = await asyncio.gather(*(send(transport, post(url)) for url in urls))
                assert {status for status, _ in answers} == {200}
            assert {frozenset(each) for each in hosts.values()} == {
                frozenset([f"{name}={name}:{seen.port}"]) for name in NAMES
            }
            assert seen.connections < 36, "some were used again"
            assert set(told) == set(NAMES)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "certified", "server_name"),
    [
        ("https://a.example.:{}/", "a.example", "a.example"),
        ("https://A.EXAMPLE:{}/", "a.example", "a.example"),
        ("https://b\u00fccher.example:{}/", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("https://127.0.0.1:{}/", "127.0.0.1", None),
    ],
)
def test_server_name_is_the_host_and_not_the_address(url: str, certified: str, server_name: str | None) -> None:
    """TLS is told the host's name, in ASCII and without its last full stop; no name where the host is an address."""
    told: list[str | None] = []

    async def main() -> None:
        tls = server_context(certified)
        tls.sni_callback = lambda tls, name, context: told.append(name)  # type: ignore[assignment]
        policy = loopback(resolving(["127.0.0.1"])[0])
        async with (
            receiver(answers_ok, tls=tls) as seen,
            transport_for(policy, ssl_context=client_context()) as transport,
        ):
            assert (await send(transport, post(url.format(seen.port))))[0] == 200
            assert told == [server_name]

    asyncio.run(main())


def test_certificate_of_the_address_is_not_enough() -> None:
    """A certificate for the dialled address, or for another name at it, does not stand for the host's name."""

    async def main() -> None:
        policy = loopback(resolving(["127.0.0.1"])[0])
        for names in (["127.0.0.1"], ["b.example"], ["127.0.0.1", "b.example", "*.a.example"]):
            async with (
                receiver(answers_ok, tls=server_context(*names)) as seen,
                transport_for(policy, ssl_context=client_context()) as transport,
            ):
                with pytest.raises(TLSFailed, match="another name"):
                    await send(transport, post(f"https://a.example:{seen.port}/"))
                assert seen.requests == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        ("http://a.example:{}/", "http://b.example:{}/", False),
        ("http://a.example:{}/", "http://a.example.:{}/", False),
        ("http://a.example:{}/", "http://127.0.0.1:{}/", False),
        ("http://a.example:{}/", "http://x.a.example:{}/", False),
        ("http://a.example:{}/", "http://A.example:{}/other?path", True),
    ],
)
def test_connection_belongs_to_one_destination(one: str, other: str, is_shared: bool) -> None:
    """A kept connection serves its own scheme, host and port, and nothing else that leads to the same address."""

    async def main() -> None:
        policy = loopback(resolving(["127.0.0.1"])[0])
        async with receiver(answers_ok) as seen, transport_for(policy, idle_seconds=60) as transport:
            for url in (one, other, one, other):
                assert (await send(transport, post(url.format(seen.port))))[0] == 200
            assert seen.connections == (1 if is_shared else 2)

    asyncio.run(main())


def test_other_scheme_or_port_is_another_destination() -> None:
    """The same host at another port, or by another scheme, gets a connection of its own."""

    async def main() -> None:
        policy = loopback(resolving(["127.0.0.1"])[0])
        async with (
            receiver(answers_ok) as plain,
            receiver(answers_ok) as second,
            receiver(answers_ok, tls=server_context("a.example")) as secure,
            transport_for(policy, ssl_context=client_context(), idle_seconds=60) as transport,
        ):
            for _ in range(2):
                await send(transport, post(f"http://a.example:{plain.port}/"))
                await send(transport, post(f"http://a.example:{second.port}/"))
                await send(transport, post(f"https://a.example:{secure.port}/"))
                with pytest.raises(httpx.ConnectTimeout):  # it waits for the rest of a request
                    await send(transport, post(f"https://a.example:{plain.port}/", connect=0.05))
            assert len(plain.requests) == len(second.requests) == len(secure.requests) == 2
            assert (second.connections, secure.connections) == (1, 1)

    asyncio.run(main())


# Earlier answers


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    """Whatever an answer points to, elsewhere or on the same host, the answer itself comes back and nobody is asked."""

    async def main() -> None:
        async with receiver(answers_ok) as other:
            for location in (f"http://127.0.0.1:{other.port}/".encode(), b"/again", b"//127.0.0.1/"):
                head = b"HTTP/1.1 %d Go\r\nlocation: %b\r\nrefresh: 0; url=/\r\ncontent-length: 0\r\n\r\n"
                async with receiver(answering(head % (status, location))) as seen, transport_for() as transport:
                    assert (await send(transport, post(f"http://127.0.0.1:{seen.port}/")))[0] == status
                    assert len(seen.requests) == 1
            assert other.connections == 0

    asyncio.run(main())


def test_no_cookie_is_kept_and_no_challenge_is_met() -> None:
    """What an answer sets or asks for does not come with the next request, on the same connection or on another."""
    head = b"HTTP/1.1 401 No\r\nset-cookie: session=1; path=/\r\nwww-authenticate: Basic realm=x\r\n"
    head += b'alt-svc: h2=":443"\r\nstrict-transport-security: max-age=99999\r\ncontent-length: 0\r\n\r\n'

    async def main(script: Script) -> None:
        async with receiver(script) as seen, transport_for(DestinationPolicy.local()) as transport:
            for _ in range(3):
                assert (await send(transport, post(f"http://127.0.0.1:{seen.port}/")))[0] == 401
            assert len(set(seen.requests)) == 1
            assert len(seen.requests) == 3
            assert b"cookie" not in seen.requests[0].lower()
            assert b"authorization" not in seen.requests[0].lower()

    asyncio.run(main(answering(head)))
    asyncio.run(main(answering(head.replace(b"content-length", b"connection: close\r\ncontent-length"))))


def test_credentials_of_the_users_files_are_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A .netrc, which httpx's own client would read, changes nothing."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login a password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))

    async def main() -> None:
        async with receiver(answers_ok) as seen, transport_for() as transport:
            request: httpx.Request = post(f"http://127.0.0.1:{seen.port}/")
            assert (await send(transport, request))[0] == 200
            assert b"authorization" not in seen.requests[0].lower()

    asyncio.run(main())
