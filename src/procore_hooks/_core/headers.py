"""Headers on their way out and back: what an app may configure, and what the history keeps.

Header names and values are checked here, and not left to the HTTP library: over HTTP/2 a CR or LF in a value goes
out on the wire, and the errors of some libraries quote the value, which is most often a credential. So no error of
this module holds a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NoReturn

from ..exceptions import InvalidHeader
from .frozen import FrozenDict
from .secret import MASK, Secret, mask, reveal

__all__ = ["check_headers", "check_sent_headers", "kept_response_headers", "masked_headers"]

_FIELD = "destination_headers"
_MAX_HEADERS = 50
_MAX_NAME = 100
_MAX_VALUE = 8_192
_MAX_TOGETHER = 16_384
_MAX_KEPT_VALUE = 1_024
_MAX_KEPT_TOGETHER = 16_384

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?", re.ASCII)
# Halves of surrogate pairs are no text that a database takes.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_RAW_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# What may end a scheme or a parameter's name and begin the credential itself.
_CREDENTIAL_BOUNDS = re.compile(r"[\s,;:=\"']+")

# Those that the sender, the connection or the signature owns.
_RESERVED = frozenset(
    {
        *("host", "content-length", "content-type", "content-encoding", "transfer-encoding", "accept-encoding"),
        *("connection", "keep-alive", "te", "trailer", "upgrade", "expect", "http2-settings"),
        *("cookie", "set-cookie", "user-agent", "date"),
    }
)
_RESERVED_PREFIXES = ("proxy-", "webhook-", "svix-")
_COOKIES = frozenset({"set-cookie", "set-cookie2"})
# What an answer says of what to do next: read whatever else it holds.
_STEERING = frozenset({b"retry-after", b"webhook-delivery"})


def check_headers(headers: Mapping[str, str | Secret]) -> FrozenDict[str, Secret]:
    """The configured headers of a hook, their values wrapped. Raises `InvalidHeader`, which never shows a value.

    Names are RFC 9110 tokens of at most 100 characters that nobody else sets; values are visible ASCII of at most
    8,192 characters, spaces and tabs inside; at most 50 headers and 16 KiB together.
    """
    if not isinstance(headers, Mapping):
        _refuse(None, f"{type(headers).__name__} is not a mapping: use a dict of names to values")
    given_headers = list(islice(headers.items(), _MAX_HEADERS + 1))
    if len(given_headers) > _MAX_HEADERS:
        _refuse(None, f"more than the {_MAX_HEADERS} headers that may be are there: use fewer")
    checked: dict[str, Secret] = {}
    seen: set[str] = set()
    together = 0
    for given, value in given_headers:
        name = _checked_name(given)
        if name.lower() in seen:
            _refuse(name, "the name is there twice, for case does not count: keep one of them")
        seen.add(name.lower())
        checked[name] = _checked_value(name, value)
        together += len(name) + len(checked[name])
    if together > _MAX_TOGETHER:
        _refuse(None, f"{together:,} characters together are over the {_MAX_TOGETHER:,} that may be: use shorter ones")
    return FrozenDict(checked)


def check_sent_headers(raw: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a request whose header names or values, as they would go out, hold a control character other than a tab.

    The last wall before a transport that is not our own: over HTTP/2 it would go out. Raises `InvalidHeader`, which
    shows neither name nor value.
    """
    if _RAW_CONTROLS.search(b"".join([text for header in raw for text in header])):
        raise InvalidHeader("headers", "one of them holds a line break or another control character")


def masked_headers(headers: Mapping[str, str | Secret]) -> FrozenDict[str, str]:
    """Configured headers as they may be shown: lower-case names, values as stars and their last five characters.

    So Procore shows an Authorization header. A credential too short for that is stars only. Of what no header has that
    this library stored, a name that is none is stars, since it may be a misplaced value, and control characters and
    halves of surrogate pairs become ``?``.
    """
    return FrozenDict(
        {
            name.lower() if _TOKEN.fullmatch(name) else MASK: _CONTROLS.sub("?", _masked_value(reveal(value)))
            for name, value in headers.items()
        }
    )


def kept_response_headers(raw: Iterable[tuple[bytes, bytes]], *, most: int = 50) -> FrozenDict[str, str]:
    """The headers of an answer as the history keeps them: the first `most` names, in lower case.

    ``retry-after`` and ``webhook-delivery`` come before all others, since they decide what happens next. Values are cut
    to 1,024 characters; those of one name are joined with ``", "``; what would bring names and values together over
    16 KiB is left out. Cookies are masked; control characters, which some databases refuse, become ``?``.
    """
    kept: dict[str, str] = {}
    together = 0
    for raw_name, raw_value in sorted(raw, key=_by_use):
        name = _CONTROLS.sub("?", raw_name[:_MAX_KEPT_VALUE].lower().decode("latin-1"))
        before = kept.get(name)
        if before is None:
            if len(kept) >= most:
                continue
        elif name in _COOKIES:
            continue
        value = MASK if name in _COOKIES else _CONTROLS.sub("?", raw_value[:_MAX_KEPT_VALUE].decode("latin-1"))
        if before is not None:
            value = f"{before}, {value}"[:_MAX_KEPT_VALUE]
        size = len(value) + (len(name) if before is None else -len(before))
        if together + size <= _MAX_KEPT_TOGETHER:
            kept[name] = value
            together += size
    return FrozenDict(kept)


def _by_use(header: tuple[bytes, bytes]) -> bool:
    return header[0].lower() not in _STEERING


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        _refuse(None, f"a name is of type {type(name).__name__}, not str: use text such as 'Authorization'")
    name = str.__str__(name)
    if name.startswith(":"):
        _refuse(None, "a name begins with ':', which HTTP/2 keeps for itself: use a plain name")
    if len(name) > _MAX_NAME:
        _refuse(None, f"a name has {len(name):,} characters, over the {_MAX_NAME} that may be: use a shorter one")
    if not _TOKEN.fullmatch(name):
        _refuse(None, "a name is empty or holds other characters than letters, digits and !#$%&'*+-.^_`|~: mend it")
    # CGI, and WSGI after it, make one variable of "Webhook_Id" and "webhook-id".
    usual = name.lower().replace("_", "-")
    if usual in _RESERVED or usual.startswith(_RESERVED_PREFIXES):
        _refuse(name, "this header is set by the sender itself or by the connection: leave it out")
    return name


def _checked_value(name: str, value: object) -> Secret:
    if not isinstance(value, str | Secret):
        _refuse(name, f"the value is of type {type(value).__name__}: use text, or a Secret")
    plain = str.__str__(reveal(value))
    if not plain:
        _refuse(name, "the value is empty: give one, or leave the header out")
    if len(plain) > _MAX_VALUE:
        _refuse(
            name, f"the value has {len(plain):,} characters, over the {_MAX_VALUE:,} that may be: use a shorter one"
        )
    if plain != plain.strip():
        _refuse(name, "the value begins or ends with white space: strip() it")
    if not _VALUE.fullmatch(plain):
        _refuse(name, "the value holds a line break, a control character or one beyond ASCII: encode it first")
    return Secret(plain)


def _masked_value(value: str) -> str:
    """`value` masked, unless the credential in it is itself too short to show the end of."""
    credential = _CREDENTIAL_BOUNDS.split(value.rstrip("=\"' \t"))[-1]
    return MASK if mask(credential) == MASK else mask(value)


def _refuse(name: str | None, problem: str) -> NoReturn:
    raise InvalidHeader(_FIELD if name is None else f"{_FIELD}.{name}", problem)
