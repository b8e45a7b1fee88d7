"""Configured headers and the headers of answers: what may pass, and what is shown of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks._core.headers import check_headers, kept_response_headers, masked_headers
from procore_hooks._core.secret import Secret
from procore_hooks.exceptions import InvalidHeader

SECRET = "hunter2-hunter2-hunter2"


def refusal(headers: Any) -> InvalidHeader:
    with pytest.raises(InvalidHeader) as caught:
        check_headers(headers)
    assert "\n" not in str(caught.value)
    assert "\r" not in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def test_good_headers_are_wrapped_and_read_only() -> None:
    """Names keep their case, values become Secrets, given wrapped or not."""
    checked = check_headers({"Authorization": f"Bearer {SECRET}", "X-Tenant!#$%&'*+.^_`|~": Secret("a\tb  c")})
    assert {name: value.reveal() for name, value in checked.items()} == {
        "Authorization": f"Bearer {SECRET}",
        "X-Tenant!#$%&'*+.^_`|~": "a\tb  c",
    }
    assert SECRET not in repr(checked)
    with pytest.raises(TypeError):
        checked["x"] = Secret("y")
    assert check_headers({}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a:b",
        "X\r\nY",
        "X\n",
        "é",
        "X\x00",
        "a" * 101,
        ":path",
        ":",
        'a"b',
        "a(b",
        "a/b",
        "Ｘ",
        "\u212a",
        7,
        None,
        b"x",
    ],
)
def test_names_are_tokens(name: Any) -> None:
    """Anything but an RFC 9110 token is refused, and not quoted either: it may be a misplaced value."""
    assert refusal({name: SECRET}).field == "destination_headers"


RESERVED = (
    "host content-length content-type content-encoding transfer-encoding accept-encoding connection keep-alive te "
    "trailer upgrade expect cookie set-cookie user-agent date http2-settings proxy-authorization proxy-connection "
    "webhook-id webhook-signature webhook- svix-id"
)


@pytest.mark.parametrize("name", RESERVED.split())
def test_reserved_names_are_refused_in_any_case(name: str) -> None:
    """What the sender, the connection or the signature sets, no app may."""
    for spelling in (name, name.upper(), name.title()):
        error = refusal({spelling: SECRET})
        assert error.field == f"destination_headers.{spelling}"
        assert "leave it out" in error.problem


def test_a_name_may_be_there_once() -> None:
    """Case does not tell two headers apart."""
    assert "twice" in refusal({"X-Key": SECRET, "x-key": SECRET}).problem


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", f" {SECRET}", f"{SECRET} ", f"\t{SECRET}", f"{SECRET}\n", f"\u00a0{SECRET}"),
        *(f"{SECRET}\r\nX: y", f"hun\nter2{SECRET}", f"{SECRET}\x00x", f"{SECRET}\x7fx", f"{SECRET}\x0bx"),
        *(f"{SECRET}é", f"{SECRET}\udc80", f"{SECRET}😀x", SECRET.encode(), None, 7, [SECRET], SECRET * 400),
    ],
    ids=range(20),
)
def test_values_are_visible_ascii_and_never_shown(value: Any) -> None:
    """A refused value does not appear in the error, wrapped or not; the header's name does."""
    assert refusal({"X-Key": value}).field == "destination_headers.X-Key"
    if isinstance(value, str):
        assert refusal({"X-Key": Secret(value)}).field == "destination_headers.X-Key"


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=4))
def test_what_passes_cannot_break_a_request(headers: dict[str, str]) -> None:
    """Whatever is given: an InvalidHeader, or names and values without line breaks and controls."""
    try:
        checked = check_headers(headers)
    except InvalidHeader:
        return
    for name, value in checked.items():
        assert name.isascii()
        assert name.isprintable()
        assert ":" not in name
        text = value.reveal()
        assert text
        assert text.strip() == text
        assert all(character == "\t" or " " <= character <= "~" for character in text)


def test_limits_hold_exactly() -> None:
    """50 headers, names of 100 and values of 8,192 characters, 16 KiB together pass; one more does not."""
    assert len(check_headers({f"x-{n}": "v" for n in range(50)})) == 50
    assert refusal({f"x-{n}": "v" for n in range(51)}).field == "destination_headers"
    assert check_headers({"n" * 100: "v"})
    assert check_headers({"a": "v" * 8_192, "bb": "v" * 8_189})
    assert "16,385" in refusal({"a": "v" * 8_192, "bb": "v" * 8_190}).problem
    assert "8,193" in refusal({"a": "v" * 8_193}).problem


@pytest.mark.parametrize("headers", [None, [("a", "b")], "Authorization: x", 7])
def test_headers_are_a_mapping(headers: Any) -> None:
    """Anything else is refused with the fix."""
    assert "use a dict" in refusal(headers).problem


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("Bearer c3a24b8208", "*****b8208"),
        ("Basic aGVsbG86d29ybGQxMjM=", "*****xMjM="),
        ("c3a24b8208", "*****b8208"),
        ("Bearer abc", "*****"),
        ("Token  short", "*****"),
        ('Token token="abcdef"', "*****"),
        ("ApiKey key=abcdef;", "*****"),
        ("x", "*****"),
    ],
)
def test_values_are_masked_as_procore_does(value: str, masked: str) -> None:
    """Stars and the last five characters; of a short credential stars only, however long its scheme is."""
    assert masked_headers({"Authorization": value, "X-Key": Secret(value)}) == {
        "authorization": masked,
        "x-key": masked,
    }


def test_kept_headers_are_lower_case_joined_and_masked() -> None:
    """Names in lower case, latin-1 values, duplicates joined, cookies never kept."""
    raw = [
        (b"Content-Type", b"text/plain"),
        (b"Set-Cookie", b"session=hunter2"),
        (b"X-A", b"1"),
        (b"x-a", b"caf\xe9"),
        (b"SET-COOKIE", b"hunter2"),
    ]
    kept = kept_response_headers(raw)
    assert kept == {"content-type": "text/plain", "set-cookie": "*****", "x-a": "1, caf\xe9"}
    assert list(kept) == ["content-type", "set-cookie", "x-a"]


def test_kept_headers_are_bounded() -> None:
    """At most 50 names, 1,024 characters each and 16 KiB together, however many and however long they are."""
    raw = [(b"n%d" % n, b"v" * 300) for n in range(60)] + [(b"n0", b"v" * 2_000)] * 100 + [(b"L" * 9_000, b"x")]
    kept = kept_response_headers(raw)
    assert len(kept) == 50
    assert {len(value) for value in kept.values()} == {300, 1_024}
    assert list(kept_response_headers(raw, most=2)) == ["n0", "n1"]
    assert len(next(iter(kept_response_headers(raw[-1:])))) == 1_024


def test_kept_headers_are_bounded_together() -> None:
    """What would bring names and values over 16 KiB is left out, and what is shorter still goes in."""
    kept = kept_response_headers([*((b"n%d" % n, b"v" * 2_000) for n in range(60)), (b"last", b"x")])
    together = sum(len(name) + len(value) for name, value in kept.items())
    assert 16_384 - 1_100 < together <= 16_384
    assert kept["last"] == "x"


def test_what_steers_the_next_attempt_is_kept_first() -> None:
    """A receiver, or what stands before it, cannot hide a Retry-After behind fifty other headers."""
    raw = [(b"x-%d" % n, b"v" * 1_000) for n in range(60)] + [(b"Retry-After", b"120"), (b"Webhook-Delivery", b"stop")]
    assert dict(list(kept_response_headers(raw).items())[:2]) == {"retry-after": "120", "webhook-delivery": "stop"}


def test_kept_headers_hold_no_control_characters() -> None:
    """A NUL or a line break of a hostile answer does not reach the database or a log."""
    assert kept_response_headers([(b"X\x00\n", b"a\x00b\r\nc\td\x7f")]) == {"x??": "a?b??c\td?"}
