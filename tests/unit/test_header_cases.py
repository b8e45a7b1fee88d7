"""Headers that a hook may not have, in one table, and the ways to set them: each is refused, unshown and unstored."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import AsyncHookRegistry, HookRegistry, InvalidHeader, Secret, SQLiteStorage

URL = "https://hooks.acme.example/in"
# In each refused value, or it is the whole of it; errors are searched for it.
SECRET = "hunter2-hunter2-hunter2"
FIELD = "destination_headers"


class Lying(str):
    """Text that says it is other text, to whoever asks politely."""

    def __str__(self) -> str:
        return "x-harmless"

    def __repr__(self) -> str:
        return "'x-harmless'"

    def __len__(self) -> int:
        return 3

    def __format__(self, spec: str) -> str:
        return "x-harmless"

    def lower(self) -> str:
        return "x-harmless"

    def strip(self, characters: str | None = None) -> str:
        return self

    def startswith(self, *arguments: Any) -> bool:
        return False

    def replace(self, *arguments: Any) -> str:
        return "x-harmless"

    def encode(self, *arguments: Any) -> bytes:
        return b"x-harmless"


class EndlessHeaders(Mapping[str, str]):
    """A mapping that says it holds one header, and gives them without an end."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"x-{number}"

    def __getitem__(self, name: str) -> str:
        return SECRET


# Name, value, and what the refusal must say. The name is in the error's field where it is a token.
RESERVED = "set by the sender itself or by the connection: leave it out"
NAME = "other characters than letters"
VALUE = "a line break, a control character or one beyond ASCII"
SPACE = "begins or ends with white space"
ONE: list[tuple[Any, Any, str]] = [
    # What the sender sets
    ("hOsT", SECRET, RESERVED),
    ("CONTENT-LENGTH", SECRET, RESERVED),
    ("Content-Type", SECRET, RESERVED),
    ("content-Encoding", SECRET, RESERVED),
    ("Accept-Encoding", SECRET, RESERVED),
    ("User-Agent", SECRET, RESERVED),
    ("dATE", SECRET, RESERVED),
    # What the connection sets
    ("Transfer-ENCODING", SECRET, RESERVED),
    ("Connection", SECRET, RESERVED),
    ("Keep-Alive", SECRET, RESERVED),
    ("tE", SECRET, RESERVED),
    ("Trailer", SECRET, RESERVED),
    ("UPGRADE", SECRET, RESERVED),
    ("HTTP2-Settings", SECRET, RESERVED),
    ("Expect", SECRET, RESERVED),
    ("Proxy-Authorization", SECRET, RESERVED),
    ("proxy-connection", SECRET, RESERVED),
    ("PROXY-", SECRET, RESERVED),
    # What belongs to a browser
    ("Cookie", SECRET, RESERVED),
    ("Set-Cookie", SECRET, RESERVED),
    # What the signature is made of
    ("Webhook-Id", SECRET, RESERVED),
    ("WEBHOOK-TIMESTAMP", SECRET, RESERVED),
    ("webhook-Signature", SECRET, RESERVED),
    ("webhook-delivery", SECRET, RESERVED),
    ("webhook-", SECRET, RESERVED),
    ("Svix-Id", SECRET, RESERVED),
    ("SVIX-SIGNATURE", SECRET, RESERVED),
    # The same to a receiver behind CGI or WSGI
    ("Webhook_Signature", SECRET, RESERVED),
    ("content_length", SECRET, RESERVED),
    ("Transfer_Encoding", SECRET, RESERVED),
    ("HTTP2_Settings", SECRET, RESERVED),
    # Names that are none
    (":authority", SECRET, "begins with ':'"),
    (":path", SECRET, "begins with ':'"),
    (":", SECRET, "begins with ':'"),
    ("", SECRET, NAME),
    (" ", SECRET, NAME),
    ("X Key", SECRET, NAME),
    (" X-Key", SECRET, NAME),
    ("X-Key ", SECRET, NAME),
    ("X-Key\t", SECRET, NAME),
    ("Host ", SECRET, NAME),
    ("X-Key:", SECRET, NAME),
    ("X-Key: a", SECRET, NAME),
    ("X-Key\r", SECRET, NAME),
    ("X-Key\n", SECRET, NAME),
    (f"X-Key: a\r\nAuthorization: {SECRET}\r\nX", SECRET, NAME),
    (f"X\r\n\r\nGET /{SECRET} HTTP/1.1\r\nHost", SECRET, NAME),
    ("X-Key\x00", SECRET, NAME),
    ("X-Key\x7f", SECRET, NAME),
    ("X-Key\x0b", SECRET, NAME),
    ("X-Kéy", SECRET, NAME),
    ("Ｈｏｓｔ", SECRET, NAME),  # fullwidth
    ("\u212aeep-Alive", SECRET, NAME),  # a Kelvin sign, in lower case a k
    ("User-Agen\u0442", SECRET, NAME),  # a Cyrillic t
    ("Proxy\u2010Authorization", SECRET, NAME),  # a hyphen that is not ASCII
    ("Webhook-\u0131d", SECRET, NAME),  # a dotless i, in upper case an I
    ("Webhook-\u0130d", SECRET, NAME),  # a dotted I, in lower case an i and a dot
    ("tran\u017ffer-encoding", SECRET, NAME),  # a long s, in upper case an S
    ("X-Key\u200b", SECRET, NAME),
    ("X-Key\ud800", SECRET, NAME),
    ("X-(Key)", SECRET, NAME),
    ('"X-Key"', SECRET, NAME),
    ("n" * 101, SECRET, "101 characters"),
    (b"X-Key", SECRET, "of type bytes"),
    (None, SECRET, "of type NoneType"),
    (7, SECRET, "of type int"),
    (("X-Key",), SECRET, "of type tuple"),
    (Secret("X-Key"), SECRET, "of type Secret"),
    (Lying("Host"), SECRET, RESERVED),
    (Lying("X\r\nHost"), SECRET, NAME),
    (Lying("n" * 101), SECRET, "101 characters"),
    # Values that are none
    ("X-Key", "", "empty"),
    ("X-Key", " ", SPACE),
    ("X-Key", f" {SECRET}", SPACE),
    ("X-Key", f"{SECRET} ", SPACE),
    ("X-Key", f"\t{SECRET}", SPACE),
    ("X-Key", f"{SECRET}\n", SPACE),
    ("X-Key", f"{SECRET}\r\n", SPACE),
    ("X-Key", f"\u00a0{SECRET}", SPACE),
    ("X-Key", f"{SECRET}\rHost: evil", VALUE),
    ("X-Key", f"{SECRET}\nHost: evil", VALUE),
    ("X-Key", f"{SECRET}\r\nHost: evil", VALUE),
    ("X-Key", f"{SECRET}\r\n folded", VALUE),
    ("X-Key", f"{SECRET}\r\nContent-Length: 0\r\n\r\nPOST / HTTP/1.1\r\nHost: evil", VALUE),
    ("X-Key", f"{SECRET}\x00{SECRET}", VALUE),
    ("X-Key", f"{SECRET}\x7f{SECRET}", VALUE),
    ("X-Key", f"{SECRET}\x1b[2J{SECRET}", VALUE),
    ("X-Key", f"{SECRET}é", VALUE),
    ("X-Key", f"{SECRET}\u560a\u560d{SECRET}", VALUE),  # whose last bytes, in UTF-16, are LF and CR
    ("X-Key", f"{SECRET}\u2028{SECRET}", VALUE),
    ("X-Key", f"{SECRET}\ud800", VALUE),
    ("X-Key", SECRET.encode(), "of type bytes"),
    ("X-Key", None, "of type NoneType"),
    ("X-Key", 7, "of type int"),
    ("X-Key", True, "of type bool"),
    ("X-Key", [SECRET], "of type list"),
    ("X-Key", SECRET * 400, "9,200 characters"),
    ("X-Key", Secret(f"{SECRET}\r\nHost: evil"), VALUE),
    ("X-Key", Lying(f"{SECRET}\r\nHost: evil"), VALUE),
    ("X-Key", Secret(Lying(f"{SECRET}\r\nHost: evil")), VALUE),
    ("X-Key", Lying(f" {SECRET}"), SPACE),
    ("X-Key", Lying(SECRET * 400), "9,200 characters"),
]
# Whole mappings, and the name in the error's field, if there is one.
WHOLE: list[tuple[Any, str | None, str]] = [
    ({"X-Key": SECRET, "x-kEY": SECRET}, "x-kEY", "twice"),
    ({"Authorization": SECRET, "AUTHORIZATION": SECRET}, "AUTHORIZATION", "twice"),
    ({"X-Good": SECRET, "Host": SECRET}, "Host", RESERVED),
    ({f"x-{n}": SECRET for n in range(51)}, None, "more than the 50"),
    (EndlessHeaders(), None, "more than the 50"),
    ({"a": "v" * 8_192, "b": "v" * 8_191}, None, "16,385 characters together"),
    ([("X-Key", SECRET)], None, "list is not a mapping"),
    (f"X-Key: {SECRET}", None, "str is not a mapping"),
    (SECRET.encode(), None, "bytes is not a mapping"),
    ({SECRET}, None, "set is not a mapping"),
    (7, None, "int is not a mapping"),
    (Secret(SECRET), None, "Secret is not a mapping"),
]


def is_named(name: Any, why: str) -> bool:
    """Whether the error names the header: a name that is none may be a misplaced value, and is not shown."""
    return isinstance(name, str) and not (why == NAME or "':'" in why or "101 " in why)


CASES: list[tuple[Any, str, str]] = [
    *(
        ({name: value}, f"{FIELD}.{str.__str__(name)}" if is_named(name, why) else FIELD, why)
        for name, value, why in ONE
    ),
    *((headers, FIELD if name is None else f"{FIELD}.{name}", why) for headers, name, why in WHOLE),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HookRegistry]:
    path: Path = tmp_path_factory.mktemp("headers") / "hooks.db"
    with HookRegistry(SQLiteStorage(path, durability="normal")) as registry:
        registry.hooks.create(URL, namespace="acme", destination_headers={"X-Kept": "as it was"})
        yield registry


def ways(registry: HookRegistry) -> list[Callable[[Any], object]]:
    """Each way to give a hook its headers."""
    (hook,) = registry.hooks.list()
    awaited = AsyncHookRegistry(registry.storage).hooks
    return [
        lambda headers: registry.hooks.create(URL, namespace="acme", destination_headers=headers),
        lambda headers: registry.hooks.update(hook.id, destination_headers=headers),
        lambda headers: asyncio.run(awaited.create(URL, namespace="acme", destination_headers=headers)),
        lambda headers: asyncio.run(awaited.update(hook.id, destination_headers=headers)),
    ]


@pytest.mark.parametrize(("headers", "field", "why"), CASES, ids=range(len(CASES)))
def test_it_is_refused_however_it_is_given(registry: HookRegistry, headers: Any, field: str, why: str) -> None:
    """An `InvalidHeader` of one line that names the field and the reason, and shows no value; nothing is stored."""
    before = registry.hooks.list().items
    for way in ways(registry):
        with pytest.raises(InvalidHeader) as caught:
            way(headers)
        error = caught.value
        assert error.field == field
        assert why in error.problem
        assert str(error).isprintable()
        shown = "".join(traceback.format_exception_only(error)) + repr(error.args) + repr(error.__dict__)
        assert "hunter2" not in shown
        assert error.__cause__ is None
        assert error.__context__ is None
        assert registry.hooks.list().items == before


def test_the_table_is_long_enough() -> None:
    """No case is there twice, and none went missing by accident."""
    assert len(ONE) + len(WHOLE) == len(CASES) > 100


@pytest.mark.parametrize(
    "name", ["Authorization", "X_Api_Key", "Accept", "X-Host", "Date-Of-Birth", "Webhooks", "From"]
)
def test_what_is_merely_alike_passes(registry: HookRegistry, name: str) -> None:
    """Names that begin like a reserved one, or hold one, are the app's to use, in any case."""
    for spelling in (name, name.lower(), name.upper()):
        (hook,) = registry.hooks.list()
        registry.hooks.update(hook.id, destination_headers={spelling: "v"})
        (stored,) = registry.hooks.list()
        assert {name: value.reveal() for name, value in stored.destination_headers.items()} == {spelling: "v"}


def test_what_is_stored_is_what_was_judged(registry: HookRegistry) -> None:
    """Text that lies about itself is stored as the plain text that it is."""
    (hook,) = registry.hooks.list()
    given = {Lying("X-Key"): Lying("plain"), "X-Wrapped": Secret(Lying("plain too"))}
    headers = registry.hooks.update(hook.id, destination_headers=given).destination_headers
    assert {name: value.reveal() for name, value in headers.items()} == {"X-Key": "plain", "X-Wrapped": "plain too"}
    assert {type(text) for name, value in headers.items() for text in (name, value.reveal())} == {str}
    assert type(Secret(Lying("plain")).reveal()) is str
    assert Secret(Lying("plain")) == Secret("plain")
