"""A machine's own addresses, however public: none is delivered to unless `allow` says so."""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from procore_hooks import _dialling
from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._dialling import Dialler, is_own_address
from procore_hooks.exceptions import InvalidDestination

from .conftest import resolving

OWN = "93.184.216.34"
BOTH = ("https", "http")

# The judgement, with what the system would say given


class Dialled(Exception):
    """The address got so far that a socket would have been opened for it."""


def connect(
    monkeypatch: pytest.MonkeyPatch, url: str, policy: DestinationPolicy, own: Any = (OWN,)
) -> tuple[list[str], Exception]:
    """Which addresses were asked about, and how the attempt to connect to `url` ended."""
    asked: list[str] = []

    def is_own(address: str) -> bool:
        asked.append(address)
        if isinstance(own, OSError):
            raise own
        return address in own

    async def dial(addresses: tuple[str, ...], port: int) -> socket.socket:
        raise Dialled(*addresses)

    monkeypatch.setattr(_dialling, "_dial_first", dial)
    dialler = Dialler(policy, None, is_own)
    try:
        asyncio.run(dialler.connect(policy.check(url), asyncio.Protocol, 5))
    except (Dialled, InvalidDestination, httpx.ConnectError) as error:
        return asked, error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("url", "answers", "problem"),
    [
        (f"https://{OWN}/", (), f"the address {OWN} is not allowed: an address of this machine"),
        ("https://a.example/", (OWN,), "an address of 'a.example' is not allowed: an address of this machine"),
        (
            "https://a.example/",
            ("8.8.8.8", OWN),
            "an address of 'a.example' is not allowed: an address of this machine",
        ),
        (f"https://{OWN}:8443/", (), f"the address {OWN} is not allowed: an address of this machine"),
    ],
)
def test_own_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, answers: tuple[str, ...], problem: str
) -> None:
    """A public address of this machine, alone or among others, is refused before anything is dialled, and said so."""
    policy = DestinationPolicy(resolve=resolving(answers)[0])
    _, error = connect(monkeypatch, url, policy)
    assert isinstance(error, InvalidDestination)
    assert error.problem == problem


def test_other_address_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses that are somebody else's are dialled, each of them asked about."""
    policy = DestinationPolicy(resolve=resolving(("8.8.8.8", "2606:4700::1"))[0])
    asked, error = connect(monkeypatch, "https://a.example/", policy)
    assert asked == ["8.8.8.8", "2606:4700::1"]
    assert isinstance(error, Dialled)


@pytest.mark.parametrize(
    ("rules", "is_dialled"),
    [
        ({"allow": (OWN,)}, True),
        ({"allow": ("93.184.0.0/16:443",)}, True),
        ({"allow": ("93.184.0.0/16:8443",)}, False),
        ({"allow": ("10.0.0.0/8",)}, False),
        ({"allow": (OWN,), "deny": ("93.0.0.0/8",)}, False),
    ],
)
def test_allow_opens_an_own_address(monkeypatch: pytest.MonkeyPatch, rules: Any, is_dialled: bool) -> None:
    """An own address is dialled if `allow` holds it, at this port, and `deny` does not; then nobody asks the system."""
    asked, error = connect(monkeypatch, f"https://{OWN}/", DestinationPolicy(**rules))
    assert isinstance(error, Dialled) == is_dialled
    assert asked == ([OWN] if not is_dialled and "deny" not in rules else [])


def test_own_address_is_asked_for_at_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that becomes the machine's own is refused from then on: nothing is remembered."""
    own: list[str] = []
    for is_own in (False, True, False):
        own[:] = [OWN] if is_own else []
        _, error = connect(monkeypatch, f"https://{OWN}/", DestinationPolicy(), own)
        assert isinstance(error, InvalidDestination) == is_own


def test_unanswered_question_is_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not tell, nothing is dialled, and the attempt fails as one that may be made again."""
    error = OSError(errno.EMFILE, "Too many open files")
    _, raised = connect(monkeypatch, f"https://{OWN}/", DestinationPolicy(), error)
    assert isinstance(raised, httpx.ConnectError)
    assert str(raised) == f"whether {OWN} is this machine's own could not be found out: too many open files"


# What the system says


@pytest.mark.parametrize(
    ("address", "is_own"),
    [
        ("127.0.0.1", True),
        ("::ffff:127.0.0.1", True),
        ("64:ff9b::127.0.0.1", True),
        ("8.8.8.8", False),
        ("::ffff:8.8.8.8", False),
        ("2606:4700:4700::1111", False),
        ("64:ff9b::8.8.8.8", False),
        ("nonsense", False),
    ],
)
def test_system_knows_its_own(address: str, is_own: bool) -> None:
    """The system tells its own addresses from others, also where they are carried in IPv6."""
    assert is_own_address(address) is is_own


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes all of 127.0.0.0/8 for its own")
def test_second_address_of_a_network_is_own() -> None:
    """An address from which the system would not send, as it has another in that network, is its own all the same."""
    assert is_own_address("127.9.9.9")


def test_socket_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket there is no answer; a family that the system lacks has no addresses of its own."""

    def no_socket(problem: int, *arguments: object) -> socket.socket:
        raise OSError(problem, "as a test")

    monkeypatch.setattr(socket, "socket", functools.partial(no_socket, errno.EMFILE))
    with pytest.raises(OSError, match="as a test"):
        is_own_address("8.8.8.8")
    monkeypatch.setattr(socket, "socket", functools.partial(no_socket, errno.EAFNOSUPPORT))
    assert not is_own_address("2606:4700::1")


# A machine with public addresses

IN_A_NAMESPACE = Path(__file__).with_name("own_addresses_in_a_namespace.py")


@functools.cache
def namespace() -> list[str]:
    """The command that runs others in a network of their own; skips where there is none."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        try:
            done = subprocess.run([*command, "ip", "link", "set", "lo", "up"], capture_output=True, timeout=30)
        except FileNotFoundError:
            break
        if done.returncode == 0:
            return command
    pytest.skip("needs a network namespace: unshare and ip, as root or with user namespaces")


def test_machine_with_public_addresses_does_not_deliver_to_itself() -> None:
    """In a network of its own where 8.8.4.4 is this machine: see the script for what it does there."""
    command = [*namespace(), sys.executable, str(IN_A_NAMESPACE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    own = found.pop("own")
    assert {address for address, is_own in own.items() if is_own} == {
        "8.8.4.4",
        "::ffff:8.8.4.4",
        "64:ff9b::808:404",
        "9.9.9.1",
        "9.9.9.2",  # the second in its network
        "2606:4700::7",
    }
    assert {address for address, is_own in own.items() if not is_own} == {"1.1.1.1", "2606:4700::8"}
    # Where a socket may be bound to any address, that tells nothing.
    assert found.pop("own_when_any_can_be_bound") in ({"8.8.4.4": True, "1.1.1.1": False}, None)
    assert found == {
        "attempts": ["not sent: an address of 'self.example' is not allowed: an address of this machine"] * 3
        + ["not sent: the address 8.8.4.4 is not allowed: an address of this machine"],
        "check": ["address", "The address 8.8.4.4 is not allowed: an address of this machine."],
        "connections_before_allow": 0,
        "with_allow": "delivered",
        "connections": 1,
    }
