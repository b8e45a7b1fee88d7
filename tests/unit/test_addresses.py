"""The table of special-purpose addresses, at its edges and in every format that carries an IPv4 address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks._core.addresses import METADATA, carried_forms, parse_address, special_purpose
from procore_hooks._core.destinations import DestinationPolicy

IPV4_BLOCKS = [
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "255.255.255.255"),
]
CARRIERS = [
    "::{0}",
    "::ffff:{0}",
    "::ffff:0:{0}",
    "64:ff9b::{0}",
    "64:ff9b:1::{0}",
    "2002:{1}::1",
    "2001:0:{1}::",
    "2606:4700::5efe:{0}",
    "2606:4700::200:5efe:{0}",
]
POLICY = DestinationPolicy()


def judged(address: object) -> bool:
    return POLICY.judge(str(address), 443).allowed


@pytest.mark.parametrize(("first", "last"), IPV4_BLOCKS)
def test_ipv4_block_is_denied_to_its_edges_and_not_beyond(first: str, last: str) -> None:
    """The first and last address of a block are denied, with a reason; the neighbours outside are public."""
    for inside in (first, last):
        judgement = POLICY.judge(inside, 443)
        assert not judgement.allowed
        assert judgement.reason
    low, high = int(IPv4Address(first)), int(IPv4Address(last))
    outside = [IPv4Address(number) for number in (low - 1, high + 1) if 0 <= number < 2**32]
    assert all(judged(address) for address in outside)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"])
def test_public_address_is_allowed(address: str) -> None:
    """A server's address on the public internet passes."""
    assert judged(address)


@given(st.integers(min_value=0, max_value=2**128 - 1).map(IPv6Address))
def test_ipv6_outside_global_unicast_is_denied(address: IPv6Address) -> None:
    """No IPv6 address outside 2000::/3 passes, but for NAT64 and IPv4-mapped ones of a public IPv4 address."""
    if address not in IPv6Network("2000::/3"):
        carries = [form for form in carried_forms(address) if form.version == 4]
        assert not judged(address) or (carries and all(judged(form) for form in carries))


@given(st.ip_addresses(v=4), st.sampled_from(CARRIERS))
def test_no_carrier_opens_what_its_ipv4_address_does_not(inner: IPv4Address, carrier: str) -> None:
    """An IPv6 address that carries a denied IPv4 one is denied, whatever the format."""
    octets = inner.packed.hex()
    outer = carrier.format(inner, f"{octets[:4]}:{octets[4:]}")
    if not judged(inner):
        assert not judged(outer)
    elif not carrier.startswith(("::ffff:{", "64:ff9b::")):
        assert not judged(outer), "formats of another age, none of which a receiver has"


@pytest.mark.parametrize("carrier", ["::ffff:{0}", "64:ff9b::{0}"])
def test_mapped_and_nat64_are_judged_by_what_they_carry(carrier: str) -> None:
    """Carrying a public address they pass, carrying a private one they do not, by its allow they do."""
    assert judged(carrier.format("8.8.8.8"))
    assert not judged(carrier.format("10.0.0.1"))
    assert DestinationPolicy(allow=("10.0.0.0/8",)).judge(carrier.format("10.0.0.1"), 443).allowed


@pytest.mark.parametrize(
    "address", ["2002:a9fe:a9fe::5efe:101:101", "2002:101:101::5efe:a9fe:a9fe", "2001:0:a9fe:a9fe:0:5efe:101:101"]
)
def test_address_of_two_formats_is_judged_by_both(address: str) -> None:
    """What is 6to4 or Teredo, and ISATAP by its last bits, carries an address in each of these ways."""
    assert not DestinationPolicy(allow=("::/0",)).judge(address, 80).allowed
    assert not DestinationPolicy(allow=("::/0",), deny=("169.254.0.0/16",)).judge(address, 80).allowed
    assert not DestinationPolicy(allow=("::/0",), deny=("1.1.1.1",)).judge(address, 80).allowed


@pytest.mark.parametrize("address", sorted(METADATA, key=str))
def test_metadata_opens_by_its_own_entry_only(address: IPv4Address | IPv6Address) -> None:
    """No network opens a metadata address, however it is written: only the very address does."""
    whole = "0.0.0.0/0" if address.version == 4 else "::/0"
    near = f"{address}/{address.max_prefixlen - 1}"
    broad = DestinationPolicy(allow=(whole, str(ip_network(near, strict=False))))
    assert not broad.judge(str(address), 80).allowed
    assert DestinationPolicy(allow=(str(address),)).judge(str(address), 80).allowed
    assert not DestinationPolicy(allow=(str(address),), deny=(whole,)).judge(str(address), 80).allowed
    if address.version == 4:
        mapped = f"::ffff:{address}"
        assert not broad.judge(mapped, 80).allowed
        assert not DestinationPolicy(allow=("::/0",)).judge(f"::{address}", 80).allowed


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "01.2.3.4", "fe80::1%eth0", "8.8.8.8 ", "[::1]", 134744072])
def test_what_is_no_address_is_denied(text: object) -> None:
    """A resolver's answer that is not an address in its usual notation is denied, not repaired."""
    assert parse_address(text) is None
    assert not POLICY.judge(text, 443).allowed  # type: ignore[arg-type]


def test_judgement_does_not_ask_the_standard_library() -> None:
    """Addresses that some Python versions call global are special here."""
    for text in ("ff0e::1", "::ffff:0:7f00:1", "fec0::1", "5f00::1", "224.0.0.1", "192.88.99.1", "3fff::1", "4000::1"):
        assert special_purpose(ip_address(text)) is not None
