"""Heads of requests as bytes, and answers that are read without h11: both say what h11 says."""

from __future__ import annotations

import re

import h11
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from procore_hooks._http1 import AnswerParser, _plain_head, plain_answer, request_head

HOST = (b"Host", b"hooks.example")
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: keep-alive\r\n"
    b"Set-Cookie: a=b, c\r\nContent-Length: 2\r\n\r\nok"
)
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nDate: Sat, 17 May 2031 09:30:01 GMT\r\n\r\n"


def as_h11_reads(data: bytes) -> tuple[object, ...] | None:
    """What h11 reads, if the answer is whole, nothing follows, and the connection goes on."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
    http.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    http.send(h11.EndOfMessage())
    http.receive_data(data)
    try:
        head = http.next_event()
        if not isinstance(head, h11.Response):
            return None
        body = b""
        while isinstance(event := http.next_event(), h11.Data):
            body += event.data
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.EndOfMessage) or http.trailing_data[0] or http.their_state is not h11.DONE:
        return None
    return head.status_code, head.reason, head.http_version, head.headers.raw_items(), body


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A whole answer in which up to three stretches were replaced by what answers are made of."""
    data = draw(st.sampled_from([ANSWER, NO_CONTENT]))
    pieces = st.sampled_from(
        [
            *(b"\r\n", b"\r", b"\n", b"\x00", b" ", b"\t", b":", b",", b";", b"0", b"2", b"3", b"\x80", b"\x0b", b"ok"),
            *(b"HTTP/1.0", b"HTTP/1.1", b"204", b"304", b"103", b"101", b"999", b"close", b"keep-alive", b"chunked"),
            *(
                b"Content-Length: 2\r\n",
                b"content-length: 3\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Upgrade: h2\r\n",
            ),
            *(b"Connection: close\r\n", b"X: \r\n", b"X:y\r\n", b"X :y\r\n", b" folded\r\n", b"Content-Length: 02\r\n"),
        ]
    )
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 25)))
        data = data[:start] + draw(pieces) + data[end:]
    return data


@given(spoilt())
@example(ANSWER)
@example(NO_CONTENT)
@example(ANSWER.replace(b"200", b"304"))
@example(ANSWER.replace(b"200", b"204"))
@example(NO_CONTENT.replace(b"204", b"200"))
@example(ANSWER.replace(b"keep-alive", b"close"))
@example(ANSWER + b"HTTP/1.1 200 OK\r\n")
def test_a_plain_answer_is_what_h11_reads(data: bytes) -> None:
    """What is read without h11 reads the same with it, and leaves the connection as fit for another request."""
    plain = plain_answer(data)
    if plain is not None:
        head, body = plain
        assert as_h11_reads(data) == (head.status, head.reason, head.version, list(head.headers), body)


@pytest.mark.parametrize("data", [ANSWER, NO_CONTENT, ANSWER.replace(b"keep-alive", b"Keep-Alive")])
def test_usual_answers_are_plain(data: bytes) -> None:
    """Whole answers as most servers give them need no h11; what is not whole, or more, does."""
    assert plain_answer(data) is not None
    assert plain_answer(data[:-1]) is None
    assert plain_answer(data + b"\n") is None


@pytest.mark.parametrize(
    "data",
    [
        ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ANSWER.replace(b"200", b"103"),
        ANSWER.replace(b"200", b"304"),
        ANSWER.replace(b"200", b"204"),
        ANSWER.replace(b"keep-alive", b"close"),
        ANSWER.replace(b"keep-alive", b"keep-alive, close"),
        ANSWER.replace(b"Connection: keep-alive", b"Transfer-Encoding: chunked"),
        ANSWER.replace(b"Connection: keep-alive", b"Upgrade: h2c"),
        ANSWER.replace(b"Connection: keep-alive", b"Content-Length: 2"),
        ANSWER.replace(b"Connection: keep-alive", b"content-type: twice"),
        ANSWER.replace(b"keep-alive", b"keep-alive\r\n folded"),
        ANSWER.replace(b"keep-alive", b"\xe9"),
        ANSWER.replace(b"text/plain", b"x" * 66_000),
        NO_CONTENT.replace(b"204", b"200"),
        NO_CONTENT.replace(b"Date", b"Content-Length: 0\r\nDate"),
    ],
)
def test_all_others_are_left_to_h11(data: bytes) -> None:
    """Old versions, interim answers, ends that are told in another way, names that are there twice, long heads."""
    assert plain_answer(data) is None


def test_a_head_that_is_known_says_nothing_of_the_body() -> None:
    """A head that came before is still held against the body that came with it, and against nothing longer."""
    head, _, body = ANSWER.partition(b"\r\n\r\n")
    head += b"\r\n\r\n"
    for _ in range(2):
        assert plain_answer(head + body[:-1]) is None
        assert plain_answer(head + body + b"+") is None
        found = plain_answer(head + body[::-1])
        assert found is not None
        assert found[1] == body[::-1]


def test_heads_that_are_remembered_are_short() -> None:
    """What a receiver writes into a long head does not stay in memory, and of short ones only so many do."""
    _plain_head.cache_clear()
    assert plain_answer(ANSWER.replace(b"text/plain", b"x" * 1_000)) is not None
    assert _plain_head.cache_info().currsize == 0
    for number in range(1_000):
        assert plain_answer(ANSWER.replace(b"text/plain", b"text/%d" % number)) is not None
    assert _plain_head.cache_info().currsize == 256


@given(st.lists(st.integers(1, 60), max_size=8))
def test_an_answer_reads_the_same_in_pieces(sizes: list[int]) -> None:
    """Wherever the network cuts an answer, its head and its body are the same, and another may follow."""
    parser = AnswerParser()
    for _ in range(2):
        parser.begin(b"POST")
        rest, body = ANSWER, b""
        for size in sizes:
            parser.feed(rest[:size])
            rest = rest[size:]
            parser.head()
        parser.feed(rest)
        head = parser.head()
        assert head is not None
        assert (head.status, head.reason, list(head.headers)[-1]) == (200, b"OK", (b"Content-Length", b"2"))
        while (data := parser.body()) is not None:
            body += data
        assert body == b"ok"
        assert parser.start_over()


def test_no_other_answer_follows_one_that_is_not_read_to_its_end() -> None:
    """A connection goes on only after the whole answer was taken, and nothing else came."""
    parser = AnswerParser()
    parser.begin(b"POST")
    assert not parser.start_over()
    parser.feed(ANSWER)
    parser.head()
    assert not parser.start_over()
    assert (parser.body(), parser.body()) == (b"ok", None)
    parser.feed(b"H")
    assert not parser.start_over()


def test_no_other_answer_follows_one_that_came_with_more() -> None:
    """Nor is one believed that begins with what was left over."""
    parser = AnswerParser()
    parser.begin(b"POST")
    parser.feed(ANSWER + ANSWER)
    assert parser.head() is not None
    assert (parser.body(), parser.body()) == (b"ok", None)
    assert not parser.start_over()


def test_the_answer_to_a_head_request_has_no_body() -> None:
    """Whatever its content-length says."""
    parser = AnswerParser()
    parser.begin(b"HEAD")
    parser.feed(ANSWER.removesuffix(b"ok"))
    assert parser.head() is not None
    assert parser.body() is None
    assert parser.start_over()
    parser.begin(b"HEAD")
    parser.feed(ANSWER)
    assert parser.head() is not None
    assert parser.body() is None
    assert not parser.start_over()


def as_a_server_reads(raw: bytes) -> h11.Request:
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    http.receive_data(raw)
    event = http.next_event()
    assert isinstance(event, h11.Request)
    return event


TEXT = st.text(st.characters(codec="latin-1"), max_size=12).map(lambda text: text.encode("latin-1"))


@given(TEXT | st.sampled_from([b"POST", b"GET"]), TEXT | st.just(b"/"), st.lists(st.tuples(TEXT | st.just(b"X"), TEXT)))
def test_a_head_is_refused_or_read_as_it_was_meant(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """No name, value, method or target adds a line or changes another one: a server reads just what was given."""
    try:
        head = request_head(method, target, [HOST, *headers])
    except httpx.LocalProtocolError:
        return
    read = as_a_server_reads(head.raw)
    assert (read.method, read.target) == (method, target)
    assert read.headers.raw_items() == [HOST, *headers]


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([], "no host header"),
        ([HOST, (b"hOST", b"other")], "no host header, or several"),
        ([HOST, (b"Content-Length", b"1"), (b"Content-Length", b"1")], "content-length"),
        ([HOST, (b"Content-Length", b"+1")], "content-length"),
        ([HOST, (b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")], "in two ways"),
        ([HOST, (b"Transfer-Encoding", b"gzip")], "its coding is not chunked"),
        ([HOST, (b"X", b"a\r\nY: secret")], "value of a header"),
        ([HOST, (b"X", b"a\x00")], "value of a header"),
        ([HOST, (b"X", b" a")], "value of a header"),
        ([HOST, (b"X Y", b"secret")], "name or the value of a header"),
        ([HOST, (b"", b"secret")], "name or the value of a header"),
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_refused(headers: list[tuple[bytes, bytes]], why: str) -> None:
    """The reason is in the error, and no value of a header."""
    with pytest.raises(httpx.LocalProtocolError, match=re.escape(why)) as caught:
        request_head(b"POST", b"/", headers)
    assert "secret" not in str(caught.value)


def test_a_head_says_how_its_body_ends() -> None:
    """By its length, by chunks, or at once; and whether it is the last on its connection."""
    lengths = {
        (): 0,
        ((b"Content-Length", b"7"),): 7,
        ((b"Transfer-Encoding", b"Chunked"),): None,
    }
    for headers, length in lengths.items():
        assert request_head(b"POST", b"/", [HOST, *headers]).length == length
    assert request_head(b"POST", b"/", [HOST, (b"Connection", b"Close")]).closes
    assert not request_head(b"POST", b"/", [HOST]).closes
