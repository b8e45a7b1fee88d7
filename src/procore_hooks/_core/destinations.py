"""Which URLs and which addresses a delivery may go to.

A destination is judged twice. Its *text* is judged when a hook is created or changed: the rules refuse whatever two
programs could read differently (userinfo, backslashes, numbers that stand for addresses, zone ids ...), and what
`httpx` reads as scheme, host and port must be what was read here. The *address* is judged whenever a connection is
opened, each time anew, since a name may point elsewhere by then.

The order in which an address is judged: the policy's `deny`; the addresses of cloud metadata, which only an exact
/32 or /128 in `allow` opens; the policy's `allow`; the table of special-purpose networks; the machine's own addresses,
which whoever dials finds out.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, NoReturn
from unicodedata import bidirectional

import attrs

from ..exceptions import InvalidDestination, InvalidInput
from .addresses import (
    LOOPBACK,
    METADATA,
    Address,
    Network,
    carried,
    carried_forms,
    parse_address,
    parse_network,
    special_purpose,
)
from .models import masked_url

if TYPE_CHECKING:
    from httpx import URL

__all__ = ["Destination", "DestinationPolicy", "Judgement", "Resolver"]

Resolver = Callable[[str], Iterable[str] | Awaitable[Iterable[str]]]

MAX_URL = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

_FIELD = "destination_url"
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?]*)")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_RIGHT_TO_LEFT = frozenset(("R", "AL", "AN"))
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What inet_aton reads as a number, which is why getaddrinfo makes an address of a name that ends in one.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# RFC 6761, 6762, 7686, 8375, 9476 and ICANN's .internal. The first group is loopback, the second private networks;
# of the rest no server on the internet ever has a name.
_LOOPBACK_NAMES = ("localhost", "localdomain")
_PRIVATE_NAMES = ("internal", "local", "home.arpa", "intranet", "lan", "private", "corp", "home")
_NO_NAMES = ("invalid", "onion", "alt", "in-addr.arpa", "ip6.arpa")
# `10.0.0.0/8:443` and `[fd00::/8]:443`; whatever else holds a colon is IPv6 without a port.
_RULE_WITH_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[0-9]+\.[0-9./]+)):(?P<port>.*)")
_BRACKETED = re.compile(r"\[([^\[\]]+)\]")


@attrs.frozen
class Judgement:
    """Whether an address may be dialled, and why or why not, in words."""

    allowed: bool
    reason: str


@attrs.frozen(kw_only=True)
class Destination:
    """A URL that passed, in parts.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: in ASCII, lower case; an IPv6 address without its brackets.
        url: the whole URL in the form in which it is sent.
        origin: scheme, host and port, by which connections are kept.
    """

    scheme: str
    host: str
    port: int
    url: str = attrs.field(repr=masked_url)
    origin: tuple[str, str, int] = attrs.field(init=False, repr=False, eq=False)

    @origin.default
    def _make_origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def address(self) -> Address | None:
        """The address that the host is; None where it is a name."""
        return parse_address(self.host)


@attrs.frozen
class _Rule:
    """An entry of `allow` or `deny`: a network, and the port it is for; None is every port."""

    network: Network
    port: int | None

    def fits(self, address: Address, port: int) -> bool:
        return address in self.network and self.port in (None, port)

    @property
    def is_exact(self) -> bool:
        return self.network.prefixlen == self.network.max_prefixlen


def _schemes(value: Iterable[str]) -> tuple[str, ...]:
    schemes = _texts("schemes", value)
    if not schemes or not set(schemes) <= set(DEFAULT_PORTS):
        raise InvalidInput("schemes", f'{schemes!r}: give one or both of "https" and "http"')
    return schemes


def _allow(value: Iterable[str]) -> tuple[str, ...]:
    return _texts("allow", value)


def _deny(value: Iterable[str]) -> tuple[str, ...]:
    return _texts("deny", value)


def _texts(field: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise InvalidInput(field, f"{value!r} is one string: give a tuple of them, as ({value!r},)")
    if not isinstance(value, Iterable):
        raise InvalidInput(field, f"{value!r} is no tuple: give a tuple of strings")
    return tuple(value)


def _check_resolve(policy: DestinationPolicy, attribute: object, value: Resolver | None) -> None:
    if value is not None and not callable(value):
        raise InvalidInput("resolve", f"{value!r} cannot be called: give a function that takes a host name")


def _parse_rule(field: str, text: str) -> _Rule:
    """The rule that `text` is. Raises `InvalidInput` that says what to give instead."""
    if not isinstance(text, str):
        raise InvalidInput(field, f'{text!r} is no text: give a network such as "10.0.0.0/8"')
    parts, bare = _RULE_WITH_PORT.fullmatch(text), _BRACKETED.fullmatch(text)
    port = None
    if parts is not None:
        if not _is_port(parts["port"]):
            raise InvalidInput(field, f"{text!r}: the port must be a number from 1 to 65535")
        port = int(parts["port"])
    network_text = (parts["v6"] or parts["v4"]) if parts is not None else bare[1] if bare is not None else text
    try:
        network = parse_network(network_text)
    except ValueError as error:
        if "host bits" in str(error):
            raise InvalidInput(
                field, f"{text!r} has bits beyond its prefix: give the network's first address"
            ) from None
        fix = 'give an address or a network, as "10.1.2.3" or "10.0.0.0/8"; a name may point anywhere'
        raise InvalidInput(field, f"{text!r} is no network: {fix}") from None
    if carried(network.network_address) is not None:
        raise InvalidInput(field, f"{text!r} carries IPv4 addresses: give the IPv4 network itself")
    return _Rule(network, port)


def _rules(field: str) -> Callable[[DestinationPolicy], tuple[_Rule, ...]]:
    return lambda policy: tuple(_parse_rule(field, text) for text in getattr(policy, field))


@attrs.frozen
class DestinationPolicy:
    """Which destinations deliveries may have. The default: https, to any address of the public internet.

    Attributes:
        schemes: one or both of ``"https"`` and ``"http"``.
        allow: networks to open although they are not public, each an address or a network, with or without a
            port: ``"10.1.2.3"``, ``"10.1.0.0/16:8443"``, ``"fd00::/8"``, ``"[fd00::/8]:443"``. The addresses of
            cloud metadata open only by an entry of exactly that address.
        deny: networks to close, in the same notation; it wins over `allow`.
        resolve: replaces name look-up: takes a host name and returns its addresses, or an awaitable of them. A
            plain function runs in a thread.

    Raises `InvalidInput` for an entry that is not a network, and for whatever else is of the wrong kind.
    """

    schemes: tuple[str, ...] = attrs.field(default=("https",), converter=_schemes)
    allow: tuple[str, ...] = attrs.field(default=(), converter=_allow)
    deny: tuple[str, ...] = attrs.field(default=(), converter=_deny)
    resolve: Resolver | None = attrs.field(default=None, validator=_check_resolve)
    _allowed: tuple[_Rule, ...] = attrs.field(
        init=False, repr=False, eq=False, default=attrs.Factory(_rules("allow"), takes_self=True)
    )
    _denied: tuple[_Rule, ...] = attrs.field(
        init=False, repr=False, eq=False, default=attrs.Factory(_rules("deny"), takes_self=True)
    )

    @classmethod
    def local(cls) -> DestinationPolicy:
        """For development and tests: http and https, and loopback (127.0.0.0/8 and ::1) beside the public internet."""
        return cls(schemes=("https", "http"), allow=("127.0.0.0/8", "::1"))

    def check(self, url: str) -> Destination:
        """`url` in parts, if its text is fine and its host, where that is an address, is allowed.

        Raises `InvalidDestination`, whose text holds no userinfo, path or query.
        """
        destination = self.parse(url)
        if destination.address is not None:
            judgement = self.judge(destination.host, destination.port)
            if not judgement.allowed:
                _refuse(f"the address {destination.host} is not allowed: {judgement.reason}")
        return destination

    def parse(self, url: str) -> Destination:
        """`url` in parts, if its text is fine. Raises `InvalidDestination`. An address in it is not judged."""
        scheme, text, port = _split(url, self.schemes)
        if text.isascii():  # judged before httpx reads it, for a reason that says more
            self._check_name(_read_host(text.lower()))
        seen = _as_httpx_reads(url)
        if seen is None:
            _refuse_idna(text)
        seen_host = seen.raw_host.decode("ascii")
        # Judged after IDNA, which makes full stops of ideographic ones and so an address of what was none.
        host = _read_host(text.lower() if text.isascii() else seen_host)
        self._check_name(host)
        if "xn--" in host and not _is_idna(host):
            _refuse_idna(text)
        if (seen.scheme, _usual(seen_host), seen.port or DEFAULT_PORTS[scheme]) != (scheme, host, port):
            _refuse(f"the host {_shown(text)} can be read in more than one way: write it in its usual form")
        return Destination(scheme=scheme, host=host, port=port, url=str(seen))

    def judge(self, address: str, port: int, *, own: bool = False) -> Judgement:
        """Whether `address`, in its usual notation and without a zone, may be dialled at `port`.

        With `own` it is one of the addresses of the machine that dials: it may be public and is closed all the same,
        unless `allow` holds it, since what listens there may trust whoever comes from the same machine.
        """
        judged = parse_address(address)
        if judged is None:
            return Judgement(False, "not an IPv4 or IPv6 address")
        forms = carried_forms(judged)
        if any(rule.fits(form, port) for rule in self._denied for form in forms):
            return Judgement(False, "the policy's `deny` holds it")
        core = carried(judged) or judged
        by_allow = [rule for rule in self._allowed if rule.fits(core, port)]
        if METADATA.intersection(forms):
            if any(rule.is_exact for rule in by_allow):
                return Judgement(True, "the policy's `allow` names this metadata address")
            return Judgement(False, "cloud metadata, which only this very address in `allow` opens")
        if by_allow:
            return Judgement(True, "the policy's `allow` holds it")
        reason = special_purpose(core)
        if reason is None:
            return Judgement(False, "an address of this machine") if own else Judgement(True, "a public address")
        return Judgement(False, reason if core is judged else f"carries an IPv4 address of {reason}")

    def _check_name(self, host: str) -> None:
        """Refuse a host that is neither an address nor a name that may be looked up."""
        if parse_address(host) is not None:
            return
        name = host.removesuffix(".")
        labels = name.split(".")
        if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
            _refuse(
                f"the host {_shown(host)} is not a name: labels of 1 to 63 letters, digits, - and _, at most 253 in all"
            )
        if _NUMBER.fullmatch(labels[-1]):
            _refuse(f"the host {_shown(host)} is a number: write an address as four decimal numbers, 0 to 255")
        if _ends_in(name, _LOOPBACK_NAMES) and not self._opens_loopback:
            _refuse(f"the host {_shown(host)} is this machine; DestinationPolicy.local() allows it for development")
        if _ends_in(name, _PRIVATE_NAMES) and not self.allow:
            _refuse(f"the host {_shown(host)} is a private name: name its network in DestinationPolicy(allow=...)")
        if _ends_in(name, _NO_NAMES):
            _refuse(f"the host {_shown(host)} has a special-use ending, under which no server can be reached")

    @property
    def _opens_loopback(self) -> bool:
        return any(
            rule.network.version == loopback.version and rule.network.overlaps(loopback)
            for rule in self._allowed
            for loopback in LOOPBACK
        )


def _split(url: str, schemes: tuple[str, ...]) -> tuple[str, str, int]:
    """Scheme in lower case, host as written, and port of `url`."""
    if not isinstance(url, str):
        raise InvalidDestination(_FIELD, f"must be a string, not {type(url).__name__}")
    if len(url) > MAX_URL:
        _refuse(f"it has {len(url)} characters, at most {MAX_URL} are allowed")
    if not url.isprintable() or " " in url:
        _refuse("it holds a space or a control character: percent-encode it")
    if "\\" in url or "#" in url:
        _refuse("it holds a backslash or a fragment (#): leave it out")
    parts = _URL.match(url)
    if parts is None or not parts["authority"]:
        _refuse(f"it is not a full URL: write {schemes[0]}://host/path")
    scheme = parts["scheme"].lower()
    if scheme not in schemes:
        _refuse(f"the scheme {_shown(scheme)} is not allowed: use {' or '.join(schemes)}")
    if "@" in parts["authority"]:
        _refuse("it holds a user name or a password: put credentials into destination_headers")
    if any(not char.isascii() and char.lower() != char for char in parts["authority"]):
        # Readers differ in what they make of it: a final sigma, a sharp s, a Kelvin sign.
        _refuse("its host has a capital letter that is not ASCII: write the host in lower case, or as xn--...")
    if "%" in parts["authority"]:
        _refuse("its host holds a percent sign: write the host plainly, an IPv6 address without a zone")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None or not authority["host"]:
        _refuse("its host is missing or malformed: write a name, or an IPv6 address in [brackets]")
    if authority["port"] is None:
        return scheme, authority["host"], DEFAULT_PORTS[scheme]
    if not _is_port(authority["port"]):
        _refuse("its port is not a number from 1 to 65535 in plain digits")
    return scheme, authority["host"], int(authority["port"])


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and int(text) <= 65535


def _read_host(text: str) -> str:
    """The host that `text`, ASCII in lower case, stands for: an address in its usual notation, or a name."""
    if not text.startswith("["):
        return _usual(text.removesuffix(".")) if parse_address(text.removesuffix(".")) else text
    address = parse_address(text[1:-1])
    if address is None or address.version == 4:
        _refuse(f"the host {_shown(text)} is not an IPv6 address: [brackets] are for these alone")
    return str(address)


def _as_httpx_reads(url: str) -> URL | None:
    """`url` as it would be sent; None for one that httpx does not take."""
    # Not above: httpx takes longer to import than all that an app needs in order to emit.
    from httpx import URL, InvalidURL

    try:
        return URL(url)
    except (InvalidURL, UnicodeError):
        return None


def _is_idna(host: str) -> bool:
    """Whether `host`, in ASCII, is a name of IDNA 2008 in each of its labels and, for its directions, as a whole."""
    labels = host.removesuffix(".").split(".")
    shown = []
    for label in labels:
        # httpx decodes a host that begins with such a label, and that label alone.
        seen = _as_httpx_reads(f"https://{label}/") if label.startswith("xn--") else None
        if label.startswith("xn--") and seen is None:
            return False
        try:
            shown.append(label if seen is None else seen.host)
        except UnicodeError:
            return False
    directions = [[bidirectional(char) for char in label] for label in shown]
    if not any(_RIGHT_TO_LEFT.intersection(each) for each in directions):
        return True
    # Of labels from right to left IDNA has judged each; beside them the others too are bound (RFC 5893, section 2).
    others = [each for each in directions if not _RIGHT_TO_LEFT.intersection(each)]
    return all(each[0] == "L" and [one for one in each if one != "NSM"][-1] in ("L", "EN") for each in others)


def _usual(host: str) -> str:
    address = parse_address(host)
    return host if address is None else str(address)


def _ends_in(name: str, endings: Iterable[str]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _refuse_idna(host: str) -> NoReturn:
    _refuse(f"the host {_shown(host)} is not a name of IDNA 2008: write it in ASCII")


def _refuse(problem: str) -> NoReturn:
    raise InvalidDestination(_FIELD, problem)
