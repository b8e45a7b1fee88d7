"""Which internet addresses are special, and why: a table of our own, frozen.

The table follows IANA's special-purpose registries (RFC 6890 and its updates). The flags of the standard library's
`ipaddress` differ between Python versions and call several blocks global that reach into a private network
(multicast, IPv4-translated, NAT64 of a private address), so of `ipaddress` only parsing and membership are used.

- IPv4: everything but the blocks in `_IPV4`.
- IPv6: nothing but 2000::/3, less the blocks in `_IPV6`.
- An IPv6 address that merely carries an IPv4 one (mapped, NAT64) is judged by the one that it carries.
- Addresses at which clouds hand out credentials are apart (`METADATA`): a broad `allow` must not open them.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = [
    "LOOPBACK",
    "METADATA",
    "Address",
    "Network",
    "carried",
    "carried_forms",
    "parse_address",
    "parse_network",
    "special_purpose",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_IPV4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this network (RFC 791)"),
        ("10.0.0.0/8", "a private network (RFC 1918)"),
        ("100.64.0.0/10", "carrier-grade NAT (RFC 6598)"),
        ("127.0.0.0/8", "loopback (RFC 1122)"),
        ("169.254.0.0/16", "link-local (RFC 3927)"),
        ("172.16.0.0/12", "a private network (RFC 1918)"),
        ("192.0.0.0/24", "IETF protocol assignments (RFC 6890)"),
        ("192.0.2.0/24", "documentation (RFC 5737)"),
        ("192.31.196.0/24", "AS112 name service (RFC 7535)"),
        ("192.52.193.0/24", "multicast tunnels (RFC 7450)"),
        ("192.88.99.0/24", "6to4 relays (RFC 7526)"),
        ("192.168.0.0/16", "a private network (RFC 1918)"),
        ("192.175.48.0/24", "AS112 name service (RFC 7534)"),
        ("198.18.0.0/15", "benchmarking (RFC 2544)"),
        ("198.51.100.0/24", "documentation (RFC 5737)"),
        ("203.0.113.0/24", "documentation (RFC 5737)"),
        ("224.0.0.0/4", "multicast (RFC 5771)"),
        ("255.255.255.255/32", "limited broadcast (RFC 8190)"),
        ("240.0.0.0/4", "reserved (RFC 1112)"),
    )
)

# The first that holds an address gives the reason; the blocks outside 2000::/3 are here for their reasons only.
_IPV6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("::/128", "unspecified (RFC 4291)"),
        ("::1/128", "loopback (RFC 4291)"),
        ("::/96", "IPv4-compatible (RFC 4291)"),
        ("::ffff:0:0/96", "IPv4-mapped (RFC 4291)"),
        ("::ffff:0:0:0/96", "IPv4-translated (RFC 2765)"),
        ("64:ff9b::/96", "NAT64 (RFC 6052)"),
        ("64:ff9b:1::/48", "local NAT64 (RFC 8215)"),
        ("100::/64", "discard-only (RFC 6666)"),
        ("100:0:0:1::/64", "a dummy prefix (RFC 9780)"),
        ("2001::/32", "Teredo (RFC 4380)"),
        ("2001::/23", "IETF protocol assignments (RFC 2928)"),
        ("2001:db8::/32", "documentation (RFC 3849)"),
        ("2002::/16", "6to4 (RFC 3056)"),
        ("2620:4f:8000::/48", "AS112 name service (RFC 7534)"),
        ("3ffe::/16", "the former 6bone (RFC 3701)"),
        ("3fff::/20", "documentation (RFC 9637)"),
        ("5f00::/16", "segment routing (RFC 9602)"),
        ("fc00::/7", "a private network (RFC 4193)"),
        ("fe80::/10", "link-local (RFC 4291)"),
        ("fec0::/10", "site-local (RFC 3879)"),
        ("ff00::/8", "multicast (RFC 4291)"),
    )
)

# With the length of a prefix: some readers take 0.0.0.255 for a mask, others for its opposite.
_NETWORK = re.compile(r"[0-9A-Fa-f:.]+(?:/(?:0|[1-9][0-9]{0,2}))?")
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_TEREDO = IPv6Network("2001::/32")
_6TO4 = IPv6Network("2002::/16")
# Formats whose last 32 bits are an IPv4 address.
_TAILS = tuple(IPv6Network(network) for network in ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48"))
_IPV4_BITS = 0xFFFFFFFF
# RFC 5214: an interface identifier 0000:5efe or 0200:5efe (the universal bit), then an IPv4 address.
_ISATAP_MASK, _ISATAP = 0xFDFFFFFF, 0x00005EFE

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

METADATA: frozenset[Address] = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google, Oracle, DigitalOcean, OpenStack and more
        "169.254.169.253",  # AWS name service
        "169.254.169.123",  # AWS time service
        "169.254.170.2",  # AWS ECS task credentials
        "169.254.170.23",  # AWS EKS pod credentials
        "169.254.42.42",  # Scaleway
        "169.254.0.23",  # Tencent
        "168.63.129.16",  # Azure WireServer, a public address
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle classic
        "fd00:ec2::254",  # AWS
        "fd00:ec2::253",  # AWS name service
        "fd00:ec2::23",  # AWS EKS pod credentials
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:42::42",  # Scaleway
        "fd20:ce::254",  # Google
        "fe80::a9fe:a9fe",  # OpenStack
    )
)


def parse_address(text: object) -> Address | None:
    """The address that `text` is in its usual notation, without a zone; None for anything else."""
    if not isinstance(text, str) or "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def parse_network(text: str) -> Network:
    """The network that `text` is, an address being one of its own. Raises ValueError, also for host bits."""
    if _NETWORK.fullmatch(text) is None:
        raise ValueError("a zone, a mask or no network at all")
    return ip_network(text)


def carried(address: Address) -> IPv4Address | None:
    """The IPv4 address by which `address` is judged: of a mapped and of a NAT64 one that which it carries."""
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & _IPV4_BITS)
    return None


def carried_forms(address: Address) -> tuple[Address, ...]:
    """`address` and every IPv4 address that it may carry, in any format; Teredo's is stored inverted."""
    if isinstance(address, IPv4Address):
        return (address,)
    bits = int(address)
    tail = bits & _IPV4_BITS
    found: list[Address] = [address]
    if _is_isatap(bits) or carried(address) is not None or any(address in network for network in _TAILS):
        found.append(IPv4Address(tail))
    if address in _6TO4:
        found.append(IPv4Address(bits >> 80 & _IPV4_BITS))
    if address in _TEREDO:
        found += IPv4Address(bits >> 64 & _IPV4_BITS), IPv4Address(tail ^ _IPV4_BITS)
    return tuple(found)


def special_purpose(address: Address) -> str | None:
    """What `address` is for, if not for a server on the public internet; None if it is."""
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _IPV4 if address in network), None)
    known = next((reason for network, reason in _IPV6 if address in network), None)
    if known is not None:
        return known
    if address not in _GLOBAL_IPV6:
        return "outside the global unicast addresses (RFC 4291)"
    return "ISATAP (RFC 5214)" if _is_isatap(int(address)) else None


def _is_isatap(bits: int) -> bool:
    return (bits >> 32) & _ISATAP_MASK == _ISATAP
