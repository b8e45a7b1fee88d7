"""Receivers that do whatever a receiver must not, each with what is to be recorded of it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import Final

import attrs

from ..transport.conftest import OK, Peer

__all__ = ["RECEIVERS", "Hostile"]

Script = Callable[[Peer], Awaitable[None]]
NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
REFUSED: Final = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
CHUNKED: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
NOT_HTTP: Final = "the answer is not HTTP/1.1"
NO_ANSWER: Final = "the receiver closed the connection without an answer|the connection was lost: .*"
LATE: Final = "no answer within 1.6 s of the connection|no answer came within 2 s"
ENDLESS: Final = "the answer did not end within 2 s"
FRAMED: Final = "the answer's body is framed wrongly"
CUT: Final = "the answer's body was cut short"
LONG: Final = "the answer's head is longer than 64 KiB"
WASTED: Final = "the answer's body came with more than 16 KiB of chunk sizes and trailers"


@attrs.frozen
class Hostile:
    """A receiver, and the attempts that are to be recorded.

    Attributes:
        statuses: one for each event, one after the other.
        error: what `response_error` of the last must be, as a regular expression; None: nothing.
        body: the kept body of the last; None: any.
        payload_bytes: how long the payload of the events is.
    """

    script: Script
    statuses: tuple[int | None, ...]
    error: str | None = None
    body: bytes | None = None
    scheme: str = "http"
    payload_bytes: int = 0


def _answers(answer: bytes, status: int | None, error: str | None = None, body: bytes | None = None) -> Hostile:
    """One that reads the request, sends this, and leaves the connection open."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.reader.read()

    return Hostile(script, (status,), error, body)


def _answers_and_closes(answer: bytes, status: int | None, error: str | None = None) -> Hostile:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    return Hostile(script, (status,), error)


def _goes_on(begin: bytes, more: bytes, status: int | None, error: str | None, pause: float = 0.0) -> Hostile:
    """One that sends `more` for ever."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(begin)
        while True:
            await peer.send(more)
            await asyncio.sleep(pause)

    return Hostile(script, (status,), error)


def _answers_twice(first: bytes) -> Hostile:
    """One whose first connection sends `first` to the first request, and whose others answer as they should."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(first if peer.seen.connections == 1 else NO_CONTENT)
        await peer.request()
        await peer.send(REFUSED)

    return Hostile(script, (200, 204))


async def _extra_bytes_later(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK if peer.seen.connections == 1 else NO_CONTENT)
    await asyncio.sleep(0)
    await peer.send(REFUSED)
    await peer.reader.read()


async def _closes_on_the_second_request(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK)
    await peer.reader.readexactly(1)


async def _never_reads(peer: Peer) -> None:
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


async def _closes_at_once(peer: Peer) -> None:
    pass


async def _resets_at_once(peer: Peer) -> None:
    peer.reset()


async def _resets_in_the_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab")
    await asyncio.sleep(0.05)
    peer.reset()


async def _closes_half_at_once(peer: Peer) -> None:
    peer.writer.write_eof()
    await peer.reader.read()


async def _closes_half_after_the_answer(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\nwhole")
    peer.writer.write_eof()
    await peer.reader.read()


async def _answers_the_head(peer: Peer) -> None:
    await peer.head()
    await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
    await asyncio.Event().wait()


async def _answers_before_the_request(peer: Peer) -> None:
    await peer.send(OK)
    await peer.request()
    await peer.reader.read()


async def _says_nothing(peer: Peer) -> None:
    await asyncio.Event().wait()


async def _talks_plainly(peer: Peer) -> None:
    await peer.reader.read(1)
    await peer.send(OK)
    await peer.reader.read()


async def _talks_nonsense_in_tls(peer: Peer) -> None:
    await peer.reader.read(1)
    await peer.send(b"\x16\x03\x03\x00\x05\xff\xff\xff\xff\xff")
    await peer.reader.read()


def _gzip_bomb() -> bytes:
    """A mebibyte that becomes a gibibyte of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(2**20)
    first = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * 1023 + packer.flush()


def _head(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines, b"", body))


def _counted(*lines: bytes) -> bytes:
    """A whole answer of two bytes, with these header lines too."""
    return _head(*lines, b"content-length: 2", body=b"ok")


BOMB: Final = _gzip_bomb()

RECEIVERS: Final[dict[str, Hostile]] = {
    # They take their time, or never end
    "drips its head": _goes_on(b"HTTP/1.1 200 OK\r\nx: ", b"y", None, LATE, 0.01),
    "drips interim answers": _goes_on(b"", b"HTTP/1.1 103 Early\r\n\r\n", None, LATE, 0.1),
    "drips its body": _goes_on(_head(b"content-length: 9999"), b"y", 200, ENDLESS, 0.01),
    "sends a body without an end": _goes_on(_head(), b"x" * 65536, 200, None),
    "sends chunks without an end": _goes_on(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n", 200, None),
    "sends interim answers without an end": _goes_on(
        b"", b"HTTP/1.1 103 Early\r\nx: y\r\n\r\n" * 100, None, "more than 16 interim .1xx. answers came"
    ),
    "sends a head without an end": _goes_on(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000, None, LONG),
    "sends trailers without an end": _goes_on(CHUNKED + b"0\r\n", b"x: y\r\n" * 1000, 200, WASTED),
    "sends chunks of one byte without an end": _goes_on(CHUNKED, b"1\r\nx\r\n" * 1000, 200, WASTED),
    "never reads": Hostile(_never_reads, (None,), LATE, payload_bytes=1_000_000),
    "says nothing in TLS": Hostile(_says_nothing, (None,), ".*TLS was not agreed on within 1.6 s", scheme="https"),
    # Too much
    "sends a gzip bomb": _answers(
        _head(b"content-encoding: gzip", b"content-length: %d" % len(BOMB), body=BOMB), 200, None, BOMB[:8192]
    ),
    "sends 8,000 headers": _answers(_counted(*(b"%x:y" % number for number in range(8000))), 200, None, b"ok"),
    "sends 16 interim answers with long heads": _answers(
        (b"HTTP/1.1 103 Early\r\nx: " + b"y" * 60_000 + b"\r\n\r\n") * 16 + OK, None, LONG
    ),
    "sends a header of a mebibyte": _answers(_counted(b"x: " + b"y" * 2**20), None, LONG),
    "sends a status line of a mebibyte": _answers(b"HTTP/1.1 200 " + b"y" * 2**20, None, LONG),
    "sends a chunk extension of a mebibyte": _answers(CHUNKED + b"2;" + b"e" * 2**20 + b"\r\nok\r\n", 200, WASTED),
    # Bodies
    "sends a chunk without a size": _answers(CHUNKED + b"\r\nok\r\n0\r\n\r\n", 200, FRAMED),
    "sends a chunk of size -2": _answers(CHUNKED + b"-2\r\nok\r\n0\r\n\r\n", 200, FRAMED),
    "sends a chunk of size 0x2": _answers(CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n", 200, FRAMED),
    "sends a chunk of 2^84 bytes": _answers(CHUNKED + b"f" * 21 + b"\r\nok\r\n", 200, FRAMED),
    "sends a chunk longer than its size": _answers(CHUNKED + b"2\r\nokxx0\r\n\r\n", 200, FRAMED),
    "sends a chunk shorter than its size": _answers_and_closes(CHUNKED + b"9\r\nok\r\n0\r\n\r\n", 200, CUT),
    "sends no last chunk": _answers_and_closes(CHUNKED + b"2\r\nok\r\n", 200, CUT),
    "sends trailers": _answers(CHUNKED + b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", 200, None, b"ok"),
    "sends a broken trailer": _answers(CHUNKED + b"2\r\nok\r\n0\r\nno colon\r\n\r\n", 200, FRAMED),
    "sends a charset that is none": _answers(
        _counted(b"content-type: text/html; charset=x-\xff").replace(b"ok", b"\xff\xfe"), 200, None, b"\xff\xfe"
    ),
    "sends more than its content-length": _answers(_counted() + b"tail", 200, None, b"ok"),
    "sends less than its content-length": _answers(_head(b"content-length: 9", body=b"ok"), 200, ENDLESS, b"ok"),
    "cuts its body short": _answers_and_closes(_head(b"content-length: 9", body=b"ok"), 200, CUT),
    "sends two content-lengths": _answers(_counted(b"content-length: 9"), None, NOT_HTTP),
    "sends its content-length twice": _answers(_counted(b"content-length: 2"), 200, None, b"ok"),
    "sends a negative content-length": _answers(_head(b"content-length: -1", body=b"ok"), None, NOT_HTTP),
    "sends a content-length of 30 digits": _answers(_head(b"content-length: " + b"9" * 30), None, NOT_HTTP),
    "sends chunks and a content-length": _answers(
        _head(b"content-length: 1", b"transfer-encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n"), 200, None, b"ok"
    ),
    "sends an unknown transfer-encoding": _answers(_head(b"transfer-encoding: gzip"), None, NOT_HTTP),
    "sends 204 with a body": _answers(b"HTTP/1.1 204 None\r\ncontent-length: 2\r\n\r\nok", 204, None, b""),
    "sends 304 with a body": _answers(b"HTTP/1.1 304 Same\r\ncontent-length: 2\r\n\r\nok", 304, None, b""),
    "resets in the body": Hostile(_resets_in_the_body, (200,), "the connection was lost: .*"),
    # Heads
    "has status 999": _answers(_counted().replace(b"200", b"999"), 999, None, b"ok"),
    "has status 000": _answers(_counted().replace(b"200", b"000"), None, NOT_HTTP),
    "has status -20": _answers(_counted().replace(b"200", b"-20"), None, NOT_HTTP),
    "has status 2000": _answers(_counted().replace(b"200", b"2000"), None, NOT_HTTP),
    "has no status": _answers(b"HTTP/1.1\r\ncontent-length: 0\r\n\r\n", None, NOT_HTTP),
    "answers in HTTP/0.9": _answers_and_closes(b"<html>thanks</html>\n", None, NOT_HTTP),
    "answers in HTTP/2": _answers(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", None, f"{NOT_HTTP}|{LATE}"),
    "begins HTTP/2": _answers(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None, NOT_HTTP),
    "answers in SSH": _answers(b"SSH-2.0-OpenSSH\r\n\r\n", None, NOT_HTTP),
    "upgrades": _answers(b"HTTP/1.1 101 Switch\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", None, NOT_HTTP),
    "puts a NUL into a header": _answers(_counted(b"x: a\x00b"), None, NOT_HTTP),
    "leaves the colon out": _answers(_counted(b"x y"), None, NOT_HTTP),
    "puts a space before the colon": _answers(_counted(b"x : y"), None, NOT_HTTP),
    "folds a header": _answers(_counted(b"x: a", b" b"), 200, None, b"ok"),
    "begins with a folded line": _answers(_counted(b" x: a"), None, NOT_HTTP),
    "redirects to the cloud's metadata": _answers(
        b"HTTP/1.1 307 Go\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n", 307
    ),
    # Connections
    "closes at once": Hostile(_closes_at_once, (None,), NO_ANSWER),
    "resets at once": Hostile(_resets_at_once, (None,), NO_ANSWER + "|port [0-9]+: connection reset by peer"),
    "closes half at once": Hostile(_closes_half_at_once, (None,), NO_ANSWER),
    "closes half after the answer": Hostile(_closes_half_after_the_answer, (200,), None, b"whole"),
    "speaks TLS on a plain port": _answers(b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n", None, NOT_HTTP),
    "speaks plainly where TLS is due": Hostile(
        _talks_plainly, (None,), ".*what listens there does not speak TLS", scheme="https"
    ),
    "speaks nonsense in TLS": Hostile(_talks_nonsense_in_tls, (None,), ".*(TLS|speak).*", scheme="https"),
    "answers the head of an upload": Hostile(_answers_the_head, (413,), payload_bytes=5_000_000),
    "answers before the request": Hostile(_answers_before_the_request, (200,), None, b"ok"),
    "sends two answers in one": _answers_twice(OK + REFUSED),
    "sends extra bytes": _answers_twice(OK + b"\r\nx"),
    "sends extra bytes later": Hostile(_extra_bytes_later, (200, 204)),
    "closes as the next request comes": Hostile(_closes_on_the_second_request, (200, None), NO_ANSWER),
}
