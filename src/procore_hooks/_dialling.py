"""From a destination to a connection: look up the name, judge every answer, dial, speak TLS.

The guard stands here, where the socket is dialled. A name is looked up once per connection; every address that came
back is judged, and one bad address refuses them all, since an honest receiver has none. The machine's own addresses are
bad too, however public: the system is asked whether an address is one. Only judged addresses are dialled, and the
socket's peer is compared with the address, so nothing that the name points to later can matter. Certificate, server
name and Host header stay with the name. No proxy is ever used: it would dial for us, unjudged.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar, cast

import httpx

from ._connection import describe_os_error
from ._core.addresses import Address, carried_forms, parse_address
from ._core.destinations import Destination, DestinationPolicy, Judgement
from .exceptions import InvalidDestination

__all__ = ["Dialler", "NameNotFound", "NameTimeout", "TLSFailed", "TLSTimeout", "is_own_address"]

T = TypeVar("T")
P = TypeVar("P", bound=asyncio.BaseProtocol)

MAX_ANSWERS = 256
MAX_DIALLED = 16
STAGGER = 0.25

_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
# OpenSSL's X509_V_ERR_*, in words; what is not here comes in OpenSSL's own.
_CERTIFICATE_PROBLEMS = {
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is self-signed",
    19: "the certificate's chain ends in a self-signed one that is not trusted",
    20: "the certificate's issuer is not trusted, or an intermediate certificate is missing",
    21: "the certificate's issuer is not trusted, or an intermediate certificate is missing",
    23: "the certificate was revoked",
    62: "the certificate is for another name",
    64: "the certificate is for another address",
}


class NameNotFound(httpx.ConnectError):
    """The host's name could not be looked up."""


class NameTimeout(httpx.ConnectTimeout):
    """The look-up of the host's name took too long."""


class TLSFailed(httpx.ConnectError):
    """There is a connection, but TLS could not be agreed on, or the certificate does not hold."""


class TLSTimeout(httpx.ConnectTimeout):
    """There is a connection, but agreeing on TLS took too long."""


class Dialler:
    """Opens connections to destinations that `destinations` allows.

    `is_own` tells whether an address is one of this machine's, and may raise OSError.
    """

    def __init__(
        self,
        destinations: DestinationPolicy,
        ssl_context: ssl.SSLContext | None,
        is_own: Callable[[str], bool] | None = None,
    ) -> None:
        self._destinations = destinations
        self._ssl_context = ssl_context
        self._is_own = is_own or is_own_address
        self._ssl_lock = threading.Lock()

    async def connect(self, destination: Destination, protocol: Callable[[], P], seconds: float) -> P:
        """A connection, name, TCP and TLS together within `seconds`.

        Raises `InvalidDestination` if an address is not allowed or none came, and subclasses of
        `httpx.ConnectError` and `httpx.ConnectTimeout`.
        """
        late: type[httpx.ConnectTimeout] = NameTimeout
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                addresses = await self._addresses(destination)
                late = httpx.ConnectTimeout
                sock = await _dial_first(addresses, destination.port)
                late = TLSTimeout if destination.scheme == "https" else late
                return await self._speak(sock, destination, protocol)
        except TimeoutError:
            if not deadline.expired():
                raise
            what = {NameTimeout: "its name was not looked up", TLSTimeout: "TLS was not agreed on"}
            problem = what.get(late, "no connection came about")
            raise late(f"{_place(destination)}: {problem} within {seconds:g} s") from None

    async def _addresses(self, destination: Destination) -> tuple[str, ...]:
        """The judged addresses of the destination, at most 16."""
        host = destination.host
        answers = (host,) if destination.address is not None else await self._look_up(host)
        if not answers:
            raise InvalidDestination("destination_url", f"the name {host!r} has no address")
        which = f"the address {host}" if destination.address is not None else f"an address of {host!r}"
        for address in answers:
            judgement = self._judge(address, destination.port)
            if not judgement.allowed:
                raise InvalidDestination("destination_url", f"{which} is not allowed: {judgement.reason}")
        return answers[:MAX_DIALLED]

    def _judge(self, address: str, port: int) -> Judgement:
        """The policy's judgement, with what only the system knows: whether the address is the machine's own."""
        if_own = self._destinations.judge(address, port, own=True)
        if if_own.allowed:
            return if_own  # opened by `allow`
        judgement = self._destinations.judge(address, port)
        try:
            return if_own if judgement.allowed and self._is_own(address) else judgement
        except OSError as error:
            why = f"whether {address} is this machine's own could not be found out: {describe_os_error(error)}"
            raise httpx.ConnectError(why) from None

    async def _look_up(self, host: str) -> tuple[str, ...]:
        """What the name's look-up answers, each address once. Raises `NameNotFound` when it fails."""
        resolve = self._destinations.resolve or _system_addresses
        try:
            if inspect.iscoroutinefunction(resolve):
                answers = await resolve(host)
            else:
                answers = await _in_thread(lambda: _collected(resolve(host)))
                if inspect.isawaitable(answers):
                    answers = await answers
            return tuple(dict.fromkeys(map(str, islice(answers, MAX_ANSWERS))))
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME:
                raise NameNotFound(f"the name {host!r} does not exist") from None
            why = (error.strerror or "no reason given").lower()
            raise NameNotFound(f"the name {host!r} could not be looked up: {why}") from None
        except Exception as error:
            raise NameNotFound(f"the name {host!r} could not be looked up: {type(error).__name__}") from None

    async def _speak(self, sock: socket.socket, destination: Destination, protocol: Callable[[], P]) -> P:
        """Put the protocol, and TLS if the scheme says so, on a connected socket."""
        loop = asyncio.get_running_loop()
        try:
            context = await self._context() if destination.scheme == "https" else None
            name = destination.host.removesuffix(".") if context is not None else None
            _, connection = await loop.create_connection(protocol, sock=sock, ssl=context, server_hostname=name)
        except (OSError, ValueError) as error:
            sock.close()
            raise TLSFailed(f"{_place(destination)}: {_tls_problem(error)}") from None
        except BaseException:
            sock.close()
            raise
        return connection

    async def _context(self) -> ssl.SSLContext:
        """The TLS settings: made once, in a thread, since it takes tens of milliseconds."""
        if self._ssl_context is not None:
            return self._ssl_context
        return await _in_thread(self._make_context)

    def _make_context(self) -> ssl.SSLContext:
        with self._ssl_lock:
            context = self._ssl_context
            if context is None:
                context = httpx.create_ssl_context(trust_env=False)
                # The standard library has read SSLKEYLOGFILE all the same.
                context.keylog_filename = None  # type: ignore[assignment]
                context.set_alpn_protocols(["http/1.1"])
                self._ssl_context = context
            return context


async def _in_thread(work: Callable[[], T]) -> T:
    """The result of `work`, run in a daemon thread of its own.

    Not in the loop's executor: a look-up that hangs would hold one of its few threads, and the interpreter's exit.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[T | None, Exception | None]] = loop.create_future()

    def settle(outcome: tuple[T | None, Exception | None]) -> None:
        if not future.done():
            future.set_result(outcome)

    def run() -> None:
        outcome: tuple[T | None, Exception | None]
        try:
            outcome = work(), None
        except Exception as error:
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="procore-hooks-look-up", daemon=True).start()
    result, error = await future
    if error is not None:
        raise error
    return cast(T, result)


def _collected(answers: Iterable[str] | Awaitable[Iterable[str]]) -> Iterable[str] | Awaitable[Iterable[str]]:
    """`answers` read to their end, in the thread that this runs in: a generator may look up only now."""
    return answers if inspect.isawaitable(answers) else tuple(islice(answers, MAX_ANSWERS))


def _system_addresses(host: str) -> list[str]:
    # As bytes: a str would be put through IDNA 2003 once more.
    found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


def is_own_address(address: str) -> bool:
    """Whether `address`, or the IPv4 address that it carries, is one of this machine's. No packet is sent.

    Asks the system, and lists no interfaces: addresses come and go. Raises OSError if the system does not say.
    """
    judged = parse_address(address)
    return judged is not None and any(_is_own(str(form)) for form in carried_forms(judged))


def _is_own(address: str) -> bool:
    # Of what is its own the system takes the address itself as the source, but for a second one in the same network.
    # A socket can be bound to that too: to any address, though, where the system is set so (ip_nonlocal_bind).
    nobodys = "2001:db8::1" if ":" in address else "192.0.2.1"  # for documentation (RFC 3849, RFC 5737)
    return _source_towards(address) == parse_address(address) or (_can_bind(address) and not _can_bind(nobodys))


def _source_towards(address: str) -> Address | None:
    """The address from which a datagram to `address` would be sent; None if there is no way to it."""
    try:
        with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
            sock.connect((address, 9))  # chooses the way, and sends nothing
            return parse_address(sock.getsockname()[0])
    except OSError:
        return None


def _can_bind(address: str) -> bool:
    try:
        with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
            return True
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return False
        raise


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def _dial_first(addresses: tuple[str, ...], port: int) -> socket.socket:
    """A socket connected to the first address that answers; the next is tried after 250 ms (RFC 8305)."""
    if len(addresses) == 1:
        return await _dial(addresses[0], port)
    waiting = iter(_interleaved(addresses))
    tasks: set[asyncio.Task[socket.socket]] = set()
    failure: httpx.ConnectError | None = None
    try:
        while True:
            if (address := next(waiting, None)) is not None:
                tasks.add(asyncio.create_task(_dial(address, port)))
            elif not tasks:
                raise failure or httpx.ConnectError("no address could be dialled")
            done, _ = await asyncio.wait(
                tasks, timeout=None if address is None else STAGGER, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                tasks.discard(task)
                try:
                    return task.result()
                except httpx.ConnectError as error:
                    failure = failure or error
    finally:
        for task in tasks:
            task.add_done_callback(_close_loser)
            task.cancel()


def _interleaved(addresses: tuple[str, ...]) -> list[str]:
    """The addresses with the families taking turns, the first one's family first."""
    first = ":" in addresses[0]
    same = [address for address in addresses if (":" in address) == first]
    other = [address for address in addresses if (":" in address) != first]
    turns = [address for pair in zip(same, other, strict=False) for address in pair]
    return turns + same[len(other) :] + other[len(same) :]


def _close_loser(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _dial(address: str, port: int) -> socket.socket:
    """A socket connected to `address` and to nothing else."""
    sock = None
    try:
        sock = socket.socket(_family(address), socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
        peer = sock.getpeername()[0]
        if peer != address and parse_address(peer) != parse_address(address):
            raise httpx.ConnectError("the connection led to another address than was dialled")
        return sock
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise httpx.ConnectError(f"port {port}: {_connect_problem(error)}") from None
        raise


def _connect_problem(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if error.errno == errno.ENOTCONN:  # it was reset before its peer could be looked at
        return os.strerror(errno.ECONNRESET).lower()
    return os.strerror(error.errno).lower() if error.errno else describe_os_error(error)


def _tls_problem(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATE_PROBLEMS.get(error.verify_code, f"the certificate is refused: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return "what listens there does not speak TLS"
        return describe_os_error(error)
    if isinstance(error, ConnectionError):
        return "the connection was closed while TLS was being agreed on"
    return describe_os_error(error)


def _place(destination: Destination) -> str:
    host = f"[{destination.host}]" if ":" in destination.host else destination.host
    return f"{host}:{destination.port}"
