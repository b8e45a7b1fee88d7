"""HTTP/1.1 without I/O: the head of a request as bytes, and what the bytes of an answer mean.

h11 does not write our requests: it would check again, attempt by attempt, what is known of a hook since it was made.
It is told of a request that stands for all of them, so that it expects an answer.

Nor does it read an answer that came as a whole and has nothing in it that could be read in two ways, as nearly all
have: one pattern tells them, and what does not fit it to the last byte is left to h11, as if it had come just now.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Final

import attrs
import h11
import httpx

__all__ = ["MAX_HEAD", "MAX_INTERIM_ANSWERS", "AnswerHead", "AnswerParser", "RequestHead", "request_head", "unsendable"]

# Of the answer's head and all interim answers before it, together.
MAX_HEAD: Final = 64 * 1024
MAX_INTERIM_ANSWERS: Final = 16
# Of chunk sizes, chunk extensions and trailers.
MAX_FRAMING: Final = 16 * 1024
# h11 gets what came piece by piece, and what it makes of one piece is looked at before the next: a body in chunks of
# one byte, or a thousand interim answers, would otherwise keep the loop from everybody else for half a second.
_PIECE: Final = 8 * 1024

_HEAD_TOO_LONG: Final = f"the answer's head is longer than {MAX_HEAD // 1024} KiB"
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_VALUE: Final = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_END: Final = h11.EndOfMessage()
# A whole head of visible ASCII, with a final status.
_PLAIN_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\x20-\x7e]*)\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++: ?[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\r\n)*+)\r\n"
)
_PLAIN_HEADER: Final = re.compile(rb"([^:]+): ?([^\r]+)\r\n")
# Of heads, and in bytes: together less than a megabyte, with what was read of them.
_MOST_REMEMBERED: Final = 256
_LONGEST_REMEMBERED: Final = 1024
# With one of these an answer's end, or what follows it, is not a matter of its length alone.
_NOT_PLAIN: Final = frozenset({b"transfer-encoding", b"proxy-connection", b"upgrade", b"trailer"})


@attrs.define(eq=False)
class RequestHead:
    """The head of a request as it goes out, with the empty line that ends it.

    Attributes:
        length: of the body that belongs to it, in bytes; None for one that is sent in chunks.
        closes: whether it asks the receiver to close the connection.
    """

    method: bytes
    raw: bytes = attrs.field(repr=False)  # it holds the hook's credentials
    length: int | None
    closes: bool = False


def request_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """The head of any request. Raises `httpx.LocalProtocolError`, which quotes nothing of it."""
    headers = tuple(headers)
    named: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise unsendable("the name or the value of a header is not allowed in HTTP/1.1")
        named.setdefault(name.lower(), []).append(value)
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise unsendable("its method or target is not allowed in HTTP/1.1")
    if len(named.get(b"host", ())) != 1:
        raise unsendable("it has no host header, or several")
    lines = [b"%b %b HTTP/1.1\r\n" % (method, target), *(b"%b: %b\r\n" % header for header in headers), b"\r\n"]
    closes = any(b"close" in value.lower() for value in named.get(b"connection", ()))
    return RequestHead(method, b"".join(lines), _length(named), closes)


def _length(named: dict[bytes, list[bytes]]) -> int | None:
    lengths, codings = named.get(b"content-length", []), named.get(b"transfer-encoding", [])
    if codings:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"]:
            raise unsendable("the length of its body is given in two ways, or its coding is not chunked")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
        raise unsendable("its content-length is not one number")
    return int(lengths[0])


def unsendable(why: str) -> httpx.LocalProtocolError:
    """The error for a request that is not HTTP/1.1."""
    return httpx.LocalProtocolError(f"the request cannot be sent: {why}")


@attrs.frozen
class AnswerHead:
    """The head of a final answer. Names of headers are as they came."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    version: bytes
    reason: bytes


def plain_answer(data: bytes) -> tuple[AnswerHead, bytes] | None:
    """Head and body of an answer to a POST, if `data` is just that and of the plainest kind; else None."""
    end = data.find(b"\r\n\r\n") + 4
    if not 4 <= end <= MAX_HEAD:
        return None
    read = _plain_head if end <= _LONGEST_REMEMBERED else _plain_head.__wrapped__
    plain = read(data[:end])
    if plain is None or plain[1] != len(data) - end:
        return None
    return plain[0], data[end:]


@lru_cache(_MOST_REMEMBERED)
def _plain_head(data: bytes) -> tuple[AnswerHead, int] | None:
    """A head of the plainest kind, and how long its body is; else None.

    Within a second the answers of a receiver mostly have the same one.
    """
    found = _PLAIN_HEAD.fullmatch(data)
    if found is None:
        return None
    status, reason = found[1], found[2]
    headers = tuple(_PLAIN_HEADER.findall(found[3]))
    named = {name.lower(): value for name, value in headers}
    if len(named) < len(headers) or not _NOT_PLAIN.isdisjoint(named):  # also if a name is there twice
        return None
    if named.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    length = named.get(b"content-length")
    if status == b"204":  # RFC 9110, section 8.6: without a body, and so without its length
        length = b"0" if length is None else None
    if status == b"304" or length is None or not _DIGITS.fullmatch(length):
        return None
    return AnswerHead(int(status), headers, b"1.1", reason), int(length)


class AnswerParser:
    """Makes of the bytes that came on one connection the answers to its requests, one after the other.

    Bytes may come before the request that they seem to answer. All errors are `httpx.RemoteProtocolError`, in words of
    our own: h11's hold pieces of headers.
    """

    def __init__(self) -> None:
        self._method = b""
        self._is_read_by_h11 = False
        self._came = bytearray()  # and nobody has looked at it yet
        self._head: AnswerHead | None = None
        self._plain_body: bytes | None = None
        self._interim_answers = 0
        self._seen = 0  # how much of this answer h11 has, less the body that was taken
        self._most_framing = 0
        self._ended = False
        self._saw_end = False

    @cached_property
    def _http(self) -> h11.Connection:
        return h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)  # most connections never need one

    def begin(self, method: bytes) -> None:
        """An answer to a request by `method` is to come."""
        self._method = method
        self._head, self._plain_body, self._interim_answers, self._seen = None, None, 0, 0

    def feed(self, data: bytes | memoryview) -> None:
        """What came."""
        self._came += data

    def feed_end(self) -> None:
        """Nothing more comes."""
        self._ended = True

    def head(self) -> AnswerHead | None:
        """The head of the final answer, or None if it is not there yet. Interim answers are skipped."""
        if not self._is_read_by_h11 and self._head is None and (self._came or self._ended) and not self._is_plain():
            self._leave_to_h11()
        while self._head is None and self._is_read_by_h11:
            event = self._next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.Response):
                raw = event.headers.raw_items()
                self._head = AnswerHead(event.status_code, raw, event.http_version, event.reason)
                self._most_framing = self._seen + MAX_FRAMING
            elif isinstance(event, h11.InformationalResponse):
                self._interim_answers += 1
                if self._interim_answers > MAX_INTERIM_ANSWERS:
                    raise httpx.RemoteProtocolError(f"more than {MAX_INTERIM_ANSWERS} interim (1xx) answers came")
            else:
                raise httpx.RemoteProtocolError("the receiver closed the connection without an answer")
        return self._head

    def whole_body(self) -> bytes | None:
        """All of its body, if it came as a whole and none of it was taken yet."""
        if self._is_read_by_h11:
            return None
        body, self._plain_body = self._plain_body, None
        return body

    def body(self) -> bytes | None:
        """Some of its body; empty if there is nothing yet, None at its end."""
        if not self._is_read_by_h11:
            data, self._plain_body = self._plain_body, None
            return data or None
        event = self._next_event()
        if isinstance(event, h11.Data):
            self._seen -= len(event.data)
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        if event is not h11.NEED_DATA:
            raise httpx.RemoteProtocolError("the answer's body was cut short")
        return b""

    def start_over(self) -> bool:
        """Make ready for the next answer. False if there cannot be one: this one is not over or was the last, or more
        has come than belongs to it.
        """
        if self._came or self._head is None:
            return False
        if not self._is_read_by_h11:
            return self._plain_body is None
        http = self._http
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE or http.trailing_data[0]:
            return False
        http.start_next_cycle()
        self._is_read_by_h11 = False
        return True

    def _is_plain(self) -> bool:
        """Whether what came is a whole answer of the plainest kind, which is then taken."""
        plain = plain_answer(bytes(self._came)) if self._method == b"POST" and not self._ended else None
        if plain is not None:
            self._head, self._plain_body = plain
            self._came.clear()
        return plain is not None

    def _leave_to_h11(self) -> None:
        self._http.send(_standing_for(self._method))
        self._http.send(_END)
        self._is_read_by_h11 = True

    def _next_event(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA and self._show_more():
                pass
            return event
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(self._problem(error.error_status_hint)) from None

    def _show_more(self) -> bool:
        """Show h11 the next piece of what came, or its end. False if there is nothing new."""
        if self._came:
            self._check_size()
            piece = bytes(self._came[:_PIECE])
            del self._came[:_PIECE]
            self._seen += len(piece)
            self._http.receive_data(piece)
            return True
        if self._ended and not self._saw_end:
            self._saw_end = True
            self._http.receive_data(b"")
            return True
        return False

    def _check_size(self) -> None:
        if self._head is None and self._seen >= MAX_HEAD:
            raise httpx.RemoteProtocolError(_HEAD_TOO_LONG)
        if self._head is not None and self._seen > self._most_framing:
            raise httpx.RemoteProtocolError(
                f"the answer's body came with more than {MAX_FRAMING // 1024} KiB of chunk sizes and trailers"
            )

    def _problem(self, status_hint: int) -> str:
        if status_hint == 431:
            return _HEAD_TOO_LONG if self._head is None else "the answer's body is framed wrongly"
        if self._head is not None:
            return "the answer's body was cut short" if self._saw_end else "the answer's body is framed wrongly"
        if not self._saw_end:
            return "the answer is not HTTP/1.1"
        begun = self._http.trailing_data[0]
        if not begun:
            return "the receiver closed the connection without an answer"
        return "the answer was cut short" if begun.startswith(b"HTTP/1.") else "the answer is not HTTP/1.1"


def _standing_for(method: bytes) -> h11.Request:
    """A request whose answer h11 reads like that of any other by this method."""
    return _POST if method == b"POST" else _any_request(method)


def _any_request(method: bytes) -> h11.Request:
    return h11.Request(method=method, target="/", headers=[("host", "any"), ("content-length", "0")])


_POST: Final = _any_request(b"POST")
