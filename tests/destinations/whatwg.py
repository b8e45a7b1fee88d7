"""Another reader of URLs: scheme, host and port as browsers and Node see them.

Written from the URL Standard of the WHATWG (https://url.spec.whatwg.org/), for http and https only, and held to what
Node answers by tests/data/whatwg_urls.json. It shares no code with the library; the tables of IDNA come from `idna`.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

import idna

__all__ = ["PORTS", "Reading", "ipv6_pieces", "read", "read_host"]

# Scheme, host and port, the port always there.
Reading = tuple[str, str, int]

PORTS = {"http": 80, "https": 443}
FORBIDDEN = frozenset(map(chr, range(0x21))) | frozenset("#/:<>?@[\\]^|%\x7f")
DIGITS = re.compile(r"[0-9]+")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class Unreadable(Exception):
    """The standard calls it a failure."""


def read(url: str) -> Reading | None:
    """Scheme, host and port of `url`; None where the standard fails, or the scheme is neither http nor https."""
    text = url.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = text.strip("".join(map(chr, range(0x21))))
    text = re.sub(r"[\t\n\r]", "", text)
    scheme = SCHEME.match(text)
    if scheme is None or scheme[1].lower() not in PORTS:
        return None
    rest = text[scheme.end() :].lstrip("/\\")
    authority = re.match(r"[^/?#\\]*", rest)
    assert authority is not None
    try:
        host, port = _authority(authority[0])
        return scheme[1].lower(), read_host(host), PORTS[scheme[1].lower()] if port is None else port
    except Unreadable:
        return None


def _authority(text: str) -> tuple[str, int | None]:
    _, _, place = text.rpartition("@")
    depth = 0
    for index, char in enumerate(place):
        depth += (char == "[") - (char == "]")
        if char == ":" and depth == 0:
            host, port = place[:index], place[index + 1 :]
            break
    else:
        host, port = place, ""
    if not host or (port and not DIGITS.fullmatch(port)) or (port and int(port) > 65535):
        raise Unreadable
    return host, int(port) if port else None


def read_host(text: str) -> str:
    if text.startswith("["):
        if not text.endswith("]"):
            raise Unreadable
        return _ipv6_text(ipv6_pieces(text[1:-1]))
    domain = unquote_to_bytes(text.encode()).decode("utf-8", "replace")
    name = _to_ascii(domain)
    if not name or not FORBIDDEN.isdisjoint(name):
        raise Unreadable
    return _ipv4(name) if _ends_in_a_number(name) else name


def _to_ascii(domain: str) -> str:
    """UTS 46, non-transitional, without the rules on hyphens, lengths and STD3."""
    if domain.isascii():
        mapped = domain.lower()
    else:
        try:
            mapped = idna.uts46_remap(domain, std3_rules=False, transitional=False)
        except idna.IDNAError:
            raise Unreadable from None
    labels = [_label(label) for label in mapped.split(".")]
    shown = [_decoded(label) for label in labels]
    if any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for label in shown for char in label):
        try:
            for label in filter(None, shown):
                idna.check_bidi(label, check_ltr=True)
        except idna.IDNAError:
            raise Unreadable from None
    return ".".join(labels)


def _label(label: str) -> str:
    if label.startswith("xn--"):
        _check_label(_decoded(label))
        return label
    if label.isascii():
        return label
    _check_label(label)
    return "xn--" + label.encode("punycode").decode("ascii")


def _decoded(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        shown = label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        raise Unreadable from None
    if shown.isascii() or shown.encode("punycode").decode("ascii") != label[4:]:
        raise Unreadable
    return shown


def _check_label(label: str) -> None:
    """The criteria that UTS 46 has for the characters of a label."""
    try:
        if unicodedata.category(label[0]).startswith("M") or "." in label:
            raise Unreadable
        if idna.uts46_remap(label, std3_rules=False, transitional=False) != label:
            raise Unreadable
        for index, char in enumerate(label):
            if char in "\u200c\u200d" and not idna.valid_contextj(label, index):
                raise Unreadable
    except (idna.IDNAError, UnicodeError, ValueError):
        raise Unreadable from None


def _ends_in_a_number(name: str) -> bool:
    parts = name.split(".")
    if not parts[-1]:
        parts.pop()
    return bool(parts) and (DIGITS.fullmatch(parts[-1]) is not None or _number(parts[-1]) is not None)


def _number(part: str) -> int | None:
    base, digits = 10, part
    if part[:2] in ("0x", "0X"):
        base, digits = 16, part[2:]
    elif len(part) > 1 and part[0] == "0":
        base, digits = 8, part[1:]
    if not part:
        return None
    allowed = "0123456789abcdef"[:base]
    if any(char not in allowed for char in digits.lower()):
        return None
    return int(digits, base) if digits else 0


def _ipv4(name: str) -> str:
    parts = name.split(".")
    if not parts[-1] and len(parts) > 1:
        parts.pop()
    numbers = [_number(part) for part in parts]
    if len(numbers) > 4 or None in numbers:
        raise Unreadable
    *heads, tail = (number for number in numbers if number is not None)
    if any(head > 255 for head in heads) or tail >= 256 ** (5 - len(numbers)):
        raise Unreadable
    total = tail + sum(head << 8 * (3 - index) for index, head in enumerate(heads))
    return ".".join(str(total >> shift & 255) for shift in (24, 16, 8, 0))


def ipv6_pieces(text: str) -> list[int]:
    """The eight pieces."""
    head, gap, tail = text.partition("::")
    if "::" in tail or tail.startswith(":"):
        raise Unreadable
    before = _pieces(head, ends=not gap)
    after = _pieces(tail, ends=True)
    if not gap:
        pieces = before
    else:
        pieces = [*before, *[0] * (8 - len(before) - len(after)), *after]
        if len(before) + len(after) > 7:
            raise Unreadable
    if len(pieces) != 8:
        raise Unreadable
    return pieces


def _pieces(text: str, *, ends: bool) -> list[int]:
    if not text:
        return []
    pieces: list[int] = []
    *most, last = text.split(":")
    for part in most:
        pieces.append(_piece(part))
    if ends and "." in last:
        octets = last.split(".")
        if len(octets) != 4 or not all(re.fullmatch(r"0|[1-9][0-9]{0,2}", octet) for octet in octets):
            raise Unreadable
        one, two, three, four = map(int, octets)
        if max(one, two, three, four) > 255:
            raise Unreadable
        return [*pieces, one << 8 | two, three << 8 | four]
    return [*pieces, _piece(last)]


def _piece(part: str) -> int:
    if not re.fullmatch(r"[0-9A-Fa-f]{1,4}", part):
        raise Unreadable
    return int(part, 16)


def _ipv6_text(pieces: list[int]) -> str:
    """In brackets, the first longest run of zeros as a double colon."""
    runs = re.finditer(r"0{2,}", "".join("0" if piece == 0 else "x" for piece in pieces))
    longest = max(runs, key=lambda run: run.end() - run.start(), default=None)
    if longest is None:
        return f"[{':'.join(f'{piece:x}' for piece in pieces)}]"
    head, tail = pieces[: longest.start()], pieces[longest.end() :]
    return f"[{':'.join(f'{piece:x}' for piece in head)}::{':'.join(f'{piece:x}' for piece in tail)}]"
