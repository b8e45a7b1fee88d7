"""The table of special-purpose addresses a second time, from IANA's registries, in whole numbers and nothing else.

    python -m tests.destinations.table --seed 1 --count 1000000

asks policies about so many addresses, at the edges of every block and at random, in every form that carries an IPv4
address, and prints those about which this table says otherwise; it then ends with 1.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from procore_hooks import DestinationPolicy

from .whatwg import ipv6_pieces

# (4 or 6, the number)
Numbered = tuple[int, int]
# (4 or 6, first number, last number, port or None for all)
Block = tuple[int, int, int, int | None]

# Every row of the registry for IPv4, globally reachable or not, and multicast, which has a registry of its own.
IPV4 = """
    0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29
    192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24
    192.88.99.0/24 192.88.99.2/32 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24
    224.0.0.0/4 240.0.0.0/4 255.255.255.255/32
"""
# The same for IPv6, with what left the registries (6bone) and what other registries hold (site-local, multicast).
IPV6 = """
    ::1/128 ::/128 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128
    2001:1::2/128 2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28
    2001:db8::/32 2002::/16 2620:4f:8000::/48 3ffe::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
    ::/96 ::ffff:0:0:0/96
"""
METADATA = """
    169.254.169.254 169.254.169.253 169.254.169.123 169.254.170.2 169.254.170.23 169.254.42.42 169.254.0.23
    168.63.129.16 100.100.100.200 192.0.0.192 fd00:ec2::254 fd00:ec2::253 fd00:ec2::23 fd00:c1::a9fe:a9fe fd00:42::42
    fd20:ce::254 fe80::a9fe:a9fe
"""
FULL32, FULL128 = (1 << 32) - 1, (1 << 128) - 1
COMPATIBLE, MAPPED, TRANSLATED, NAT64 = 0, 0xFFFF << 32, 0xFFFF << 48, 0x0064FF9B << 96
LOCAL_NAT64, SIX_TO_FOUR, TEREDO = 0x0064FF9B0001 << 80, 0x2002 << 112, 0x2001 << 112


def number(text: str) -> Numbered:
    if ":" not in text:
        one, two, three, four = map(int, text.split("."))
        return 4, one << 24 | two << 16 | three << 8 | four
    bits = 0
    for piece in ipv6_pieces(text):
        bits = bits << 16 | piece
    return 6, bits


def block(text: str) -> Block:
    """`10.0.0.0/8`, or with a port after a space `10.0.0.0/8 443`; an address alone is a block too."""
    network, _, port = text.partition(" ")
    base, _, prefix = network.partition("/")
    version, first = number(base)
    width = 32 if version == 4 else 128
    return version, first, first + (1 << width - int(prefix or width)) - 1, int(port) if port else None


SPECIAL = [block(text) for text in (IPV4 + IPV6).split()]
SECRETS = {number(text) for text in METADATA.split()}


class Table:
    """What a policy with these rules has to say; `allow` and `deny` as `block` takes them."""

    def __init__(self, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> None:
        self._allow = [block(text) for text in allow]
        self._deny = [block(text) for text in deny]
        self.policy = DestinationPolicy(allow=tuple(map(_rule, allow)), deny=tuple(map(_rule, deny)))

    def allows(self, address: Numbered, port: int) -> bool:
        carried = carried_by(address)
        if any(_holds(self._deny, form, port) for form in (address, *carried)):
            return False
        # Mapped and NAT64 addresses are the IPv4 address that they carry.
        judged = carried[0] if address[0] == 6 and address[1] & ~FULL32 in (MAPPED, NAT64) else address
        opening = [rule for rule in self._allow if _holds([rule], judged, port)]
        if SECRETS.intersection((address, *carried)):
            return any(first == last for _, first, last, _ in opening)
        return bool(opening) or is_public(judged)


def is_public(address: Numbered) -> bool:
    version, bits = address
    if version == 6 and (not 0x2 << 124 <= bits < 0x4 << 124 or looks_like_isatap(bits)):
        return False
    return not _holds(SPECIAL, address, 0)


def _holds(blocks: list[Block], address: Numbered, port: int) -> bool:
    version, bits = address
    return any(
        version == family and first <= bits <= last and only in (None, port) for family, first, last, only in blocks
    )


def _rule(text: str) -> str:
    network, _, port = text.partition(" ")
    if not port:
        return network
    return f"[{network}]:{port}" if ":" in network else f"{network}:{port}"


def looks_like_isatap(bits: int) -> bool:
    return bits >> 32 & FULL32 in (0x00005EFE, 0x02005EFE)


def carried_by(address: Numbered) -> list[Numbered]:
    """Every IPv4 address in it, by any of the formats that the bits may be of."""
    version, bits = address
    if version == 4:
        return []
    found = []
    tail, prefix = bits & FULL32, bits & ~FULL32
    is_local_nat64 = bits >> 80 == LOCAL_NAT64 >> 80
    if prefix in (COMPATIBLE, MAPPED, TRANSLATED, NAT64) or is_local_nat64 or looks_like_isatap(bits):
        found.append(tail)
    if bits >> 112 == 0x2002:
        found.append(bits >> 80 & FULL32)
    if bits >> 96 == 0x20010000:
        found += bits >> 64 & FULL32, tail ^ FULL32
    return [(4, each) for each in found]


def carriers(inner: int, dice: random.Random) -> Iterator[int]:
    """IPv6 addresses that carry `inner` in each format, the rest of their bits rolled."""
    other, rest = dice.getrandbits(32), dice.getrandbits(64)
    for prefix in (COMPATIBLE, MAPPED, TRANSLATED, NAT64, LOCAL_NAT64 | dice.getrandbits(48) << 32):
        yield prefix | inner
    yield SIX_TO_FOUR | inner << 80 | dice.getrandbits(16) << 64 | rest
    yield SIX_TO_FOUR | inner << 80 | 0x5EFE << 32 | other
    yield TEREDO | inner << 64 | rest
    yield TEREDO | other << 64 | dice.getrandbits(32) << 32 | inner ^ FULL32
    for interface in (0x5EFE, 0x02005EFE, 0x01005EFE, 0x5EFF):  # the last two are not ISATAP's
        yield (
            dice.choice((0x2606, 0x2002, 0xFE80, 0x2001)) << 112 | dice.getrandbits(32) << 64 | interface << 32 | inner
        )


def edges() -> Iterator[Numbered]:
    """The first and the last address of each block, and their neighbours."""
    secrets = [(version, bits, bits, None) for version, bits in sorted(SECRETS)]
    for version, first, last, _ in [*SPECIAL, *secrets, block("2000::/3")]:
        limit = FULL32 if version == 4 else FULL128
        for bits in (first - 1, first, first + 1, last - 1, last, last + 1):
            if 0 <= bits <= limit:
                yield version, bits


def addresses(seed: int, count: int) -> Iterator[Numbered]:
    """Every edge, alone and carried, then others at random until there are `count`."""
    dice = random.Random(seed)
    made = 0
    for version, bits in edges():
        forms = [(version, bits)]
        if version == 4:
            forms += [(6, each) for each in carriers(bits, dice)]
        yield from forms
        made += len(forms)
    while made < count:
        for address in _rolled(dice):
            yield address
            made += 1


def _rolled(dice: random.Random) -> Iterator[Numbered]:
    inner = dice.getrandbits(32)
    yield 4, inner
    yield 6, dice.getrandbits(128)
    yield 6, 1 << 125 | dice.getrandbits(125)
    for bits in carriers(inner, dice):
        yield 6, bits
    # In a block or, with a bit of its prefix turned, somewhere near.
    version, first, last, _ = dice.choice(SPECIAL)
    width = (last - first).bit_length()
    bits = first | dice.getrandbits(width) if width else first
    yield version, bits
    yield version, bits ^ 1 << dice.randrange(32 if version == 4 else 128)
    version, first = dice.choice(sorted(SECRETS))
    yield version, first ^ 1 << dice.randrange(32 if version == 4 else 128)


TABLES = {
    "default": Table(),
    "all allowed": Table(allow=("0.0.0.0/0", "::/0")),
    "some rules": Table(
        allow=("10.0.0.0/8 443", "2002::/16", "fd00::/8", "169.254.169.254/32", "168.63.129.16", "fd00:ec2::254 443"),
        deny=("10.9.0.0/16", "8.0.0.0/8", "2606::/16", "203.0.0.0/8 80", "2001::/32 80"),
    ),
}


def compare(seed: int, count: int) -> list[str]:
    """What the policies say otherwise than the tables."""
    wrong = []
    for index, address in enumerate(addresses(seed, count)):
        version, bits = address
        text = str(IPv4Address(bits) if version == 4 else IPv6Address(bits))
        for name, table in TABLES.items():
            if name != "default" and index % 5 and index > 10_000:
                continue
            port = 80 if index % 2 else 443
            judgement = table.policy.judge(text, port)
            if judgement.allowed != table.allows(address, port) or not judgement.reason:
                wrong.append(f"{text} at {port}, {name}: {judgement}")
    return wrong


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--count", type=int, default=1_000_000)
    arguments = options.parse_args()
    wrong = compare(arguments.seed, arguments.count)
    print(f"seed {arguments.seed}: {arguments.count} addresses, {len(wrong)} judged otherwise by the second table")
    print(*wrong[:20], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
