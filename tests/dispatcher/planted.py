"""Secrets that are planted in hooks, every writing that they are looked for in, and a net for all that is told."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_bytes, token_hex
from typing import TypeVar
from urllib.parse import quote

import attrs

from procore_hooks import Delivery, Hook, Page, Verdict, generate_ed25519_secret
from procore_hooks.observers import Notice

T = TypeVar("T")

# The history shows the last five characters of a header. Eight of a secret are more than it may.
_PIECE = 12


def _text(count: int) -> str:
    """Random text with what JSON, URLs and `repr` write in ways of their own."""
    return f"{token_hex(count)}/+{token_hex(count)}\\&{token_hex(count)}"


@attrs.frozen
class Planted:
    """One of each, new in every test, and those that came about later."""

    query: str = attrs.field(factory=lambda: token_hex(16))
    path: str = attrs.field(factory=lambda: token_hex(12))
    authorization: str = attrs.field(factory=lambda: _text(8))
    header: str = attrs.field(factory=lambda: _text(8))
    signing: str = attrs.field(factory=lambda: "whsec_" + base64.b64encode(token_bytes(32)).decode())
    private: str = attrs.field(factory=lambda: generate_ed25519_secret().reveal())
    encryption: str = attrs.field(factory=lambda: base64.b64encode(token_bytes(32)).decode())
    rotated: list[str] = attrs.field(factory=list)

    def url(self, base: str) -> str:
        return f"{base}/in/{self.path}/hook?page=2&token={self.query}"

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.authorization}",
            "X-Tenant": f"acme key={self.header}",
            "Accept": "text/html",
        }

    def known_to_receiver(self, signature: str) -> str:
        """All that a receiver could write into its answer, in the ways that receivers write, if it was sent this."""
        known = [self.query, self.authorization, self.header]
        if signature.startswith("v1,"):  # of a private key it does not know more than the public one
            known += self.signing, self.signing[6:], self.rotated[0]
        text = "\n".join([*known, *(f"{name}: {value}" for name, value in self.headers.items())])
        return "\n".join([text, json.dumps(text), json.dumps(known).replace("/", "\\/"), quote(text)])

    def writings(self) -> dict[str, set[str]]:
        """Of each secret, pieces of it in each writing."""
        named = {field.name: getattr(self, field.name) for field in attrs.fields(Planted)}
        secrets = {name: text for name, text in named.items() if isinstance(text, str)}
        secrets |= {f"rotated {number}": text for number, text in enumerate(self.rotated)}
        return {name: _writings(text) for name, text in secrets.items()}


def _writings(secret: str) -> set[str]:
    bare = secret.partition("_")[2] or secret
    pieces = {bare[start : start + _PIECE] for start in (*range(0, len(bare) - _PIECE, _PIECE), len(bare) - _PIECE)}
    written = {quote(bare, safe=""), repr(bare)[1:-1], json.dumps(bare)[1:-1], bare.encode().hex(), bare[::-1]}
    # In base64 text has three looks, by where it begins; its first and last characters depend on its neighbours.
    for shift in range(3):
        written.add(base64.b64encode(b"\0" * shift + bare.encode()).decode()[4:-4])
    try:
        raw = base64.b64decode(bare, validate=True)
    except ValueError:
        return pieces | written
    return pieces | written | {raw.hex(), repr(raw)[2:-1], raw.decode("latin-1")}


class Net:
    """All that is told while a test runs: values, errors, log records and notices, as text, each with its place."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.logged: list[tuple[str, str]] = []
        self.notices: list[Notice] = []

    def value(self, place: str, value: T) -> T:
        """Keep what a public value shows. What the hook's own `destination_url` holds is taken out."""
        self.told += [(f"{place}: repr", repr(value)), (f"{place}: str", str(value)), (f"{place}: format", f"{value}")]
        serialised = []
        if attrs.has(type(value)):
            serialised.append(repr(attrs.asdict(value)))  # type: ignore[call-overload]
            serialised.append(json.dumps(attrs.asdict(value), default=repr))  # type: ignore[call-overload]
        try:
            serialised.append(pickle.dumps(value, 0).decode("latin-1"))
            serialised.append(pickle.dumps(value).decode("latin-1"))
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            serialised.append("".join(traceback.format_exception(error)))
        for text in serialised:
            for hook in _hooks_in(value):
                for url in (
                    hook.destination_url,
                    json.dumps(hook.destination_url)[1:-1],
                    repr(hook.destination_url)[1:-1],
                ):
                    text = text.replace(url, "")
            self.told.append((f"{place}: serialised", text))
        return value

    def error(self, place: str, error: BaseException) -> None:
        """Keep what an error and its chain show, in a traceback and in their attributes."""
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format())
        self.logged.append((f"{place}: traceback", shown))
        for one in _chain(error):
            self.logged.append((f"{place}: error", f"{one!r} {one} {one.args!r} {one.__dict__!r}"))

    def trying(self, place: str, call: Callable[[], object]) -> BaseException | None:
        """Keep the error that `call` raises, if it raises one."""
        try:
            call()
        except Exception as error:
            self.error(place, error)
            return error
        return None

    def raising(self, place: str, call: Callable[[], object]) -> BaseException:
        """Keep the error that `call` raises."""
        error = self.trying(place, call)
        assert error is not None, f"{place} raised nothing"
        return error

    def observe(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.value(f"notice {type(notice).__name__}", notice)

    @contextmanager
    def over_all_loggers(self) -> Iterator[None]:
        """Keep every record of every logger, from DEBUG on."""
        net, formatter = self, logging.Formatter("%(name)s %(message)s %(threadName)s %(pathname)s")

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                place = f"log of {record.name}"
                net.logged += [
                    (place, formatter.format(record)),
                    (place, repr(record.__dict__)),
                    (place, repr(record.args)),
                ]
                if record.exc_info is not None and record.exc_info[1] is not None:
                    net.error(place, record.exc_info[1])

        root, handler = logging.getLogger(), Handler(0)
        loggers = [logging.getLogger(name) for name in ("procore_hooks", "httpx", "httpcore", "h11", "asyncio")]
        levels = [(one, one.level) for one in (root, *loggers)]
        root.addHandler(handler)
        for one, _ in levels:
            one.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            root.removeHandler(handler)
            for one, level in levels:
                one.setLevel(level)

    def leaks(self, planted: Planted, printed: str = "") -> list[tuple[str, str, str]]:
        """Each secret that was told: which, where, and in what writing. A path may be told by values, not by logs."""
        writings = planted.writings()
        logged = [*self.logged, ("output", printed)]
        return [
            (name, place, writing)
            for name, found in writings.items()
            for place, text in (logged if name == "path" else self.told + logged)
            for writing in found
            if writing in text
        ]


def _hooks_in(value: object) -> list[Hook]:
    if isinstance(value, Hook):
        return [value]
    if isinstance(value, Page):
        return [hook for one in value for hook in _hooks_in(one)]
    if isinstance(value, tuple):
        return [hook for one in value for hook in _hooks_in(one)]
    if isinstance(value, Verdict | Notice):
        return [value.hook]
    return []


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it shows: its causes, its contexts, and those of a group."""
    yield error
    if error.__cause__ is not None:
        yield from _chain(error.__cause__)
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _chain(error.__context__)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _chain(one)


def bodies_and_headers(delivery: Delivery) -> str:
    """All text that the history holds of a delivery but the URL of its requests, which `repr` shows."""
    return "\n".join(
        f"{attempt.request_headers} {attempt.request_body!r} {attempt.response_headers} {attempt.response_error}\n"
        + attempt.response_body.decode("latin-1")
        for attempt in delivery.attempts
    )
