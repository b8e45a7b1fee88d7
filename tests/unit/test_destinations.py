"""The text rules of destinations, and the notation of `allow` and `deny`."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from procore_hooks import exceptions
from procore_hooks._core.addresses import parse_address
from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks.exceptions import InvalidDestination, InvalidInput

DATA = Path(__file__).parent.parent / "data"
BOTH = DestinationPolicy(schemes=("https", "http"))


@attrs.frozen
class Row:
    url: str
    answers: tuple[str, ...]
    expected: str
    why: str


def rows(name: str) -> Iterator[Row]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            url = row["url"]
            if re.search(r"\\[xurnt]", url):
                url = url.encode("ascii").decode("unicode_escape")
            answers = tuple(row["resolves_to"].split()) if row["resolves_to"] not in ("-", "(none)") else ()
            if row["resolves_to"] == "64 public":
                answers = tuple(f"93.184.216.{last}" for last in range(64))
            yield Row(url, answers, row["expected"], row["why"])


ROWS = [*rows("hostile_urls.csv"), *rows("more_hostile_urls.csv")]


def verdict(policy: DestinationPolicy, row: Row) -> str:
    """What becomes of the row, in the words of its column `expected`."""
    try:
        destination = policy.check(row.url)
    except InvalidDestination:
        return "refused"
    answers = (destination.host,) if destination.address else row.answers
    allowed = [policy.judge(answer, destination.port).allowed for answer in answers]
    return "allow" if allowed and all(allowed) else "deny_address"


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row.why[:40]}" for number, row in enumerate(ROWS)])
def test_hostile_url(row: Row) -> None:
    """Each row of the lists of hostile URLs is refused, denied or let through as it says."""
    found = verdict(BOTH, row)
    if row.expected == "reject_url":
        assert found == "refused"
    elif row.expected == "allow":
        assert found == "allow"
    else:
        assert found == ("deny_address" if row.answers or "no address" in row.why else "refused")


def test_the_list_is_whole() -> None:
    """The lists have rows of every kind, so that a lost file does not pass for success."""
    assert len(ROWS) >= 230
    assert {row.expected for row in ROWS} == {"reject_url", "deny_address", "allow"}


@pytest.mark.parametrize(
    "url",
    [
        "https://good.example\\@evil.example/",
        "https://good.example/a\tb",
        "https://good.example/a b",
        "https://good.example/\u2028",
        "https://good.example/\ud800",
        "https://good.example/#",
        "https://user@good.example/",
        "https://@good.example/",
        "https://:secret@good.example/",
        "https://good.example:/",
        "https://good.example:080/",
        "https://good.example:+80/",
        "https://good.example:80:80/",
        "https://good.example:99999/",
        "https://[::1]:/",
        "https://[::1",
        "https://::1/",
        "https://[v1.fe80]/",
        "https://[fe80::1%25eth0]/",
        "https://.good.example/",
        "https://good..example/",
        "https://good.example../",
        "https://-good.example/",
        "https://good-.example/",
        "https://go!od.example/",
        "https://a.0x7f000001/",
        "https://a.0x/",
        "https://127.0.0.1.1/",
        "https://256.1.1.1/",
        "https://1.2.3.08/",
        "https://xn--a/",
        "https://goo\u212a.example/",
        "https://good\u00ad.example/",
        "https://\u0661\u0662\u0667.0.0.1/",
        "https://good.example\uff0fevil.example/",
        "https://good.example\uff20evil.example/",
        "https://good.example\uff1a80/",
        "https://localhost.localdomain/",
        "https://printer.local/",
        "https://a.home.arpa/",
        "https://a.onion/",
        "https://a.invalid/",
        "https://1.0.0.127.in-addr.arpa/",
        "https:///path",
        "https://?query",
        "//good.example/",
        "file:///etc/passwd",
        "https+unix://x/",
    ],
)
def test_more_hostile_urls_are_refused(url: str) -> None:
    """The rules go beyond the list: each kind of text that can be read in two ways is refused."""
    with pytest.raises(InvalidDestination) as caught:
        BOTH.check(url)
    assert caught.value.field == "destination_url"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("https://Hooks.ACME.example/procore?x=1", "https", "hooks.acme.example", 443),
        ("HTTP://a.example:8080", "http", "a.example", 8080),
        ("https://b\u00fccher.example/\u00e9", "https", "xn--bcher-kva.example", 443),
        ("https://[2606:4700:4700:0:0:0:0:1111]:8443/", "https", "2606:4700:4700::1111", 8443),
        ("https://r3---sn-abc.example/", "https", "r3---sn-abc.example", 443),
        ("https://a_b.example/@x", "https", "a_b.example", 443),
        ("https://8.8.8.8/", "https", "8.8.8.8", 443),
    ],
)
def test_good_url_is_taken_apart(url: str, scheme: str, host: str, port: int) -> None:
    """Scheme and host come out in lower case and ASCII, and the port is always there."""
    destination = BOTH.check(url)
    assert (destination.scheme, destination.host, destination.port) == (scheme, host, port)
    assert httpx.URL(destination.url).raw_host.isascii()


@given(st.text(max_size=40), st.sampled_from(["https://", "http://", "https://a.example", "https://127.0.0.1", ""]))
@example("\u212a.example", "https://")
def test_what_passes_is_read_alike_by_httpx(text: str, start: str) -> None:
    """Whatever the text, check refuses it with its own error, or httpx reads the same scheme, host and port."""
    try:
        destination = BOTH.check(start + text)
    except InvalidDestination:
        return
    for url in (httpx.URL(start + text), httpx.URL(destination.url)):
        assert url.scheme == destination.scheme
        assert (parse_address(url.host) or url.raw_host.decode()) == (destination.address or destination.host)
        assert (url.port or {"http": 80, "https": 443}[url.scheme]) == destination.port
        assert not url.userinfo
        assert not url.fragment
    assert BOTH.check(destination.url) == destination


@given(st.text(alphabet="0123456789xabcdef.\u3002\uff10\u2460", min_size=1, max_size=20))
def test_numeric_host_is_an_address_or_refused(host: str) -> None:
    """No host that ends in a number passes, unless it is an address in four decimal numbers."""
    try:
        destination = BOTH.check(f"https://{host}/")
    except InvalidDestination:
        return
    if re.fullmatch(r"(.*\.)?(\d+|0x[0-9a-f]*)\.?", destination.host):
        assert destination.address is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@a.example/hunter2?hunter2",
        "https://a..example/hunter2?hunter2",
        "https://127.0.0.1/hunter2?token=hunter2",
        "https://a.example:0/hunter2?hunter2",
        "ftp://a.example/hunter2",
        "hunter2:secret",
        "https://a.example/hunter2\\",
        "https://a.example/?hunter2#hunter2",
        "https://a.example/hunter2" + "x" * 2048,
    ],
)
def test_message_tells_no_secret(url: str) -> None:
    """A refusal never repeats userinfo, path or query, where tokens are."""
    with pytest.raises(InvalidDestination) as caught:
        BOTH.check(url)
    assert "hunter2" not in str(caught.value) + repr(caught.value)


def test_destination_masks_its_query() -> None:
    """A printed destination shows no query."""
    assert "hunter2" not in repr(BOTH.check("https://a.example/?token=hunter2"))


def test_length_is_bounded() -> None:
    """2,048 characters pass, one more does not."""
    url = "https://a.example/".ljust(2048, "x")
    assert BOTH.check(url).port == 443
    with pytest.raises(InvalidDestination, match="2049"):
        BOTH.check(url + "x")


def test_default_policy_is_https_only() -> None:
    """Plain http has to be asked for."""
    assert DestinationPolicy().check("https://a.example/").scheme == "https"
    with pytest.raises(InvalidDestination, match="use https"):
        DestinationPolicy().check("http://a.example/")


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/", "http://127.0.0.1:8000/", "https://[::1]/", "http://a.localhost/"]
)
def test_local_policy_allows_this_machine(url: str) -> None:
    """For development, loopback may be named in every way; private networks stay closed."""
    local = DestinationPolicy.local()
    assert local.check(url)
    assert local.judge("::1", 1).allowed
    assert not local.judge("10.0.0.1", 1).allowed
    assert not local.judge("169.254.169.254", 80).allowed


def test_private_name_needs_an_allow() -> None:
    """A name under .internal passes once the policy opens some network; its address is judged all the same."""
    policy = DestinationPolicy(allow=("10.1.0.0/16",))
    assert policy.check("https://hooks.corp.internal/").host == "hooks.corp.internal"
    with pytest.raises(InvalidDestination, match="private name"):
        DestinationPolicy().check("https://hooks.corp.internal/")
    with pytest.raises(InvalidDestination, match="this machine"):
        policy.check("https://localhost/")


@pytest.mark.parametrize(
    ("entry", "address", "port", "allowed"),
    [
        ("10.1.0.0/16", "10.1.2.3", 443, True),
        ("10.1.0.0/16", "10.2.2.3", 443, False),
        ("10.1.0.0/16:8443", "10.1.2.3", 8443, True),
        ("10.1.0.0/16:8443", "10.1.2.3", 443, False),
        ("10.1.2.3:8443", "10.1.2.3", 8443, True),
        ("fd00::/8", "fd12::1", 443, True),
        ("[fd00::/8]", "fd12::1", 443, True),
        ("[fd00::/8]:443", "fd12::1", 443, True),
        ("[fd00::/8]:443", "fd12::1", 80, False),
        ("fd00::1:443", "fd00::1:443", 80, True),
        ("169.254.169.254/32:80", "169.254.169.254", 80, True),
        ("169.254.169.254/32:80", "169.254.169.254", 8080, False),
    ],
)
def test_allow_opens_what_it_names(entry: str, address: str, port: int, allowed: bool) -> None:
    """An entry opens its network, at its port if it has one, and nothing else."""
    assert DestinationPolicy(allow=(entry,)).judge(address, port).allowed is allowed


def test_deny_wins() -> None:
    """What `deny` holds is closed, be it public or allowed, in every form that carries it."""
    policy = DestinationPolicy(allow=("10.0.0.0/8",), deny=("10.9.0.0/16", "8.8.8.8", "2606:4700::/32"))
    assert policy.judge("10.8.0.1", 443).allowed
    for address in ("10.9.0.1", "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::a09:1", "2606:4700::1"):
        assert not policy.judge(address, 443).allowed
    assert DestinationPolicy(deny=("8.8.8.0/24:25",)).judge("8.8.8.8", 443).allowed


@pytest.mark.parametrize(
    ("rules", "address", "reason"),
    [
        ({}, "8.8.8.8", "an address of this machine"),
        ({}, "64:ff9b::8.8.8.8", "an address of this machine"),
        ({}, "10.0.0.1", "a private network (RFC 1918)"),
        ({"deny": ("8.8.8.8",)}, "8.8.8.8", "the policy's `deny` holds it"),
        ({"allow": ("8.8.8.8:80",)}, "8.8.8.8", "an address of this machine"),
    ],
)
def test_own_address_is_denied(rules: dict[str, tuple[str, ...]], address: str, reason: str) -> None:
    """An address of the machine that dials is denied, be it public; another reason comes first where there is one."""
    judgement = DestinationPolicy(**rules).judge(address, 443, own=True)  # type: ignore[arg-type]
    assert (judgement.allowed, judgement.reason) == (False, reason)
    assert DestinationPolicy(allow=("8.0.0.0/8:443", "10.0.0.0/8")).judge(address, 443, own=True).allowed


@pytest.mark.parametrize(
    ("arguments", "field", "fix"),
    [
        ({"allow": ("hooks.acme.example",)}, "allow", "a name may point anywhere"),
        ({"deny": ("localhost:80",)}, "deny", "give an address or a network"),
        ({"allow": ("10.0.0.1/8",)}, "allow", "first address"),
        ({"allow": ("10.0.0.0/8:0",)}, "allow", "1 to 65535"),
        ({"allow": ("10.0.0.0/8:x",)}, "allow", "1 to 65535"),
        ({"allow": ("::ffff:10.0.0.0/104",)}, "allow", "the IPv4 network itself"),
        ({"allow": (10,)}, "allow", "no text"),
        ({"allow": ("fe80::1%eth0",)}, "allow", "is no network"),
        ({"deny": ("10.0.0.0/0.255.255.255",)}, "deny", "is no network"),
        ({"deny": ("10.0.0.0/08",)}, "deny", "is no network"),
        ({"allow": "10.0.0.0/8"}, "allow", "a tuple"),
        ({"deny": None}, "deny", "a tuple"),
        ({"resolve": "8.8.8.8"}, "resolve", "a function"),
        ({"schemes": "https"}, "schemes", "a tuple"),
        ({"schemes": ()}, "schemes", "one or both"),
        ({"schemes": ("ftp",)}, "schemes", "one or both"),
    ],
)
def test_wrong_policy_is_refused(arguments: dict[str, object], field: str, fix: str) -> None:
    """A policy that cannot mean what it says is refused when it is made, with the fix."""
    with pytest.raises(InvalidInput, match=re.escape(fix)) as caught:
        DestinationPolicy(**arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_not_a_string_is_refused() -> None:
    """A URL of another type raises the same error as a bad one."""
    with pytest.raises(exceptions.InvalidDestination, match="must be a string"):
        BOTH.check(b"https://a.example/")  # type: ignore[arg-type]
