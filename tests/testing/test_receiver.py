"""The webhook receiver, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from procore_hooks.testing import WebhookReceiver


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """A receiver that is closed after the test."""
    with WebhookReceiver() as receiver:
        yield receiver


@contextlib.contextmanager
def connected(receiver: WebhookReceiver) -> Iterator[socket.socket]:
    """A bare connection to the receiver."""
    address = urlsplit(receiver.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        yield connection


def answer_to(connection: socket.socket, method: str = "POST") -> tuple[int, bytes]:
    """Status and body of the next answer."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return response.status, response.read()


def end_of(connection: socket.socket) -> bytes:
    """All that still arrives until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            received += data
    return received


def test_requests_arrive_to_the_letter(receiver: WebhookReceiver) -> None:
    """Method, path with query, headers and body are those that were sent; the default answer is an empty 200."""
    with httpx.Client() as client:
        answer = client.post(f"{receiver.url}hook?x=%20y", json={"a": "ü"}, headers={"Webhook-Id": "msg_1"})
    (request,) = receiver.requests

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    assert (request.method, request.path, request.json()) == ("POST", "/hook?x=%20y", {"a": "ü"})
    assert request.headers["webhook-id"] == "msg_1"
    assert request.received_at <= time.monotonic()


def test_the_script_is_played_in_order(receiver: WebhookReceiver) -> None:
    """Replies with status, headers (several of one name too) and body come in order, as often as they say."""
    receiver.reply(503, [("Retry-After", "7"), ("X-A", "1"), ("X-A", "2")], "besetzt", times=2).reply(201, body=b"ok")
    with httpx.Client() as client:
        answers = [client.post(receiver.url) for _ in range(4)]

    assert [(a.status_code, a.content) for a in answers] == [
        (503, b"besetzt"),
        (503, b"besetzt"),
        (201, b"ok"),
        (200, b""),
    ]
    assert answers[1].headers["retry-after"] == "7"
    assert answers[1].headers.get_list("x-a") == ["1", "2"]


def test_a_connection_is_kept_alive(receiver: WebhookReceiver) -> None:
    """Several requests go over one connection, whatever the method and status of the answers."""
    receiver.reply(500, body=b"no").reply(204, body=b"never sent").reply(body=b"not for HEAD")
    with connected(receiver) as connection:
        for method, expected in (
            ("POST", (500, b"no")),
            ("POST", (204, b"")),
            ("HEAD", (200, b"")),
            ("PUT", (200, b"")),
        ):
            connection.sendall(f"{method} /{method} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer_to(connection, method) == expected

    assert [request.method for request in receiver.requests] == ["POST", "POST", "HEAD", "PUT"]


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_bodies_arrive_in_any_pieces(receiver: WebhookReceiver, piece: int) -> None:
    """Counted and chunked bodies, with extensions and trailers, are put together from pieces of any size."""
    sent = (
        b"\r\nPOST /counted HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello\r\n\r\nyz"
        b"POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5;a="b"\r\nhello\r\nA \r\n\r\nworld!!!\r\n0\r\nTrailer: 1\r\n\r\n'
        b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n"
        b"POST /again HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    )
    with connected(receiver) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), piece):
            connection.sendall(sent[start : start + piece])
        requests = receiver.wait_for(4)

    assert [(request.path, request.body) for request in requests] == [
        ("/counted", b"hello\r\n\r\nyz"),
        ("/chunked", b"hello\r\nworld!!!"),
        ("/empty", b""),
        ("/again", b"x"),
    ]


def test_a_large_body_arrives(receiver: WebhookReceiver) -> None:
    """20 MiB, the most that a payload may have, arrive byte for byte, counted and chunked."""
    body = bytes(range(256)) * (20 * 4096)
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    with httpx.Client(timeout=30) as client:
        client.post(receiver.url, content=body)
        client.post(receiver.url, content=pieces)

    assert [request.body == body for request in receiver.requests] == [True, True]


def test_a_client_that_waits_for_100_gets_it(receiver: WebhookReceiver) -> None:
    """`Expect: 100-continue` is answered once, before the body, and the request then goes on."""
    with connected(receiver) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(
            b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for chunk in (b"1\r\nh\r\n", b"1\r\ni\r\n", b"0\r\n\r\n"):
            connection.sendall(chunk)
        assert end_of(connection).startswith(b"HTTP/1.1 200 OK\r\n")
    assert receiver.requests[0].body == b"hi"


@pytest.mark.parametrize(
    ("request_line", "header", "reply_headers"),
    [
        ("POST / HTTP/1.1", "Connection: close", {}),
        ("POST / HTTP/1.0", "Host: x", {}),
        ("POST / HTTP/1.1", "Host: x", {"Connection": "close"}),
    ],
)
def test_a_connection_closes_when_either_side_says_so(
    receiver: WebhookReceiver, request_line: str, header: str, reply_headers: dict[str, str]
) -> None:
    """After `Connection: close`, in the request or the script, and after HTTP/1.0, the answer is the last."""
    receiver.reply(headers=reply_headers, body=b"bye")
    with connected(receiver) as connection:
        connection.sendall(f"{request_line}\r\n{header}\r\n\r\n".encode())
        answer = end_of(connection)
    assert answer.lower().count(b"connection: close") == 1
    assert answer.endswith(b"\r\n\r\nbye")


def test_a_client_that_shuts_down_its_side_is_answered(receiver: WebhookReceiver) -> None:
    """A half-closed connection gets its answer, a late one too, and is closed then."""
    receiver.reply(delay=0.05, body=b"late")
    with connected(receiver) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert end_of(connection).endswith(b"late")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"POST / HTTP/2\r\n\r\n",
        b"POST / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nName : 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nA: 1\r\n folded\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 65_537,
        b"POST / HTTP/1.1\r\nA: " + b"a" * 65_536,
    ],
)
def test_what_is_not_http_is_refused(receiver: WebhookReceiver, sent: bytes) -> None:
    """A malformed request is answered 400, its connection closed, and nothing of it recorded."""
    with connected(receiver) as connection:
        connection.sendall(sent)
        answer = end_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert receiver.requests == []


def test_a_hundred_connections_at_once(receiver: WebhookReceiver) -> None:
    """A hundred connections, all open at once, each get their answer."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(receiver)) for _ in range(100)]
        for number, connection in enumerate(connections):
            connection.sendall(f"POST /{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert [answer_to(connection) for connection in connections] == [(200, b"")] * 100
    assert {request.path for request in receiver.requests} == {f"/{number}" for number in range(100)}


def test_a_delay_holds_up_no_other_connection(receiver: WebhookReceiver) -> None:
    """While one answer is delayed, other connections get theirs at once."""
    receiver.reply(201, delay=30).reply(202)
    with connected(receiver) as slow, connected(receiver) as fast:
        slow.sendall(b"POST /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        receiver.wait_for(1)
        fast.sendall(b"POST /fast HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_to(fast)[0] == 202
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(1)


def test_pipelined_requests_are_answered_in_turn(receiver: WebhookReceiver) -> None:
    """A request that comes while an answer is delayed waits for it, and is recorded after it."""
    receiver.reply(201, delay=0.05).reply(202)
    with connected(receiver) as connection:
        connection.sendall(
            b"POST /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answers = end_of(connection)
    assert answers.index(b" 201 ") < answers.index(b" 202 ")
    assert [request.path for request in receiver.requests] == ["/1", "/2"]


def test_requests_count_once_they_are_complete(receiver: WebhookReceiver) -> None:
    """The order is that of arrival in full: a request whose body comes last is recorded last."""
    with connected(receiver) as first, connected(receiver) as second:
        first.sendall(b"POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
        second.sendall(b"POST /second HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [request.path for request in receiver.wait_for(1)] == ["/second"]
        first.sendall(b"b")
        assert [request.path for request in receiver.wait_for(2)] == ["/second", "/first"]


def test_wait_for_wakes_up_on_arrival(receiver: WebhookReceiver) -> None:
    """A waiting thread is woken by the request that it waits for, and gets all that has come."""
    waiting: list[int] = []
    waiter = threading.Thread(target=lambda: waiting.append(len(receiver.wait_for(3, timeout=30))))
    waiter.start()
    with httpx.Client() as client:
        for _ in range(3):
            client.post(receiver.url)
    waiter.join(10)
    assert waiting == [3]


def test_wait_for_says_what_has_come(receiver: WebhookReceiver) -> None:
    """When the bound passes, the error lists the last requests, without their queries."""
    with pytest.raises(AssertionError, match=r"^0 of 1 requests came within 0\.01 s: none$"):
        receiver.wait_for(1, timeout=0.01)
    with httpx.Client() as client:
        for number in range(12):
            client.post(f"{receiver.url}{number}?token=secret")
    with pytest.raises(AssertionError) as caught:
        receiver.wait_for(13, timeout=0.01)
    listed = ", ".join(f"POST /{number}" for number in range(2, 12))
    assert str(caught.value) == f"12 of 13 requests came within 0.01 s: the last 10: {listed}"


def test_wait_for_sees_what_a_coroutine_sends(receiver: WebhookReceiver) -> None:
    """It works in an event loop too, in a thread of it."""

    async def send_and_wait() -> int:
        waiting = asyncio.create_task(asyncio.to_thread(receiver.wait_for, 1))
        async with httpx.AsyncClient() as client:
            await client.post(receiver.url)
        return len(await waiting)

    assert asyncio.run(send_and_wait()) == 1


def test_close_cuts_answers_under_way() -> None:
    """`close` returns promptly while an answer is delayed and a body is half sent, and frees the port."""
    receiver = WebhookReceiver().reply(delay=300)
    port = urlsplit(receiver.url).port
    with connected(receiver) as delayed, connected(receiver) as half_sent:
        half_sent.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc")
        delayed.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        receiver.wait_for(1)
        closer = threading.Thread(target=receiver.close)
        closer.start()
        closer.join(10)
        assert not closer.is_alive()
        assert (end_of(delayed), end_of(half_sent)) == (b"", b"")
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port or 0), timeout=10)


def test_close_twice_and_leave_after_close() -> None:
    """Closing again does nothing; the requests stay readable; no thread is left."""
    with WebhookReceiver() as receiver:
        httpx.post(receiver.url)
        receiver.close()
    receiver.close()

    assert len(receiver.requests) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("webhook-receiver")]


def test_a_taken_port_is_refused(receiver: WebhookReceiver) -> None:
    """A receiver on a port that is in use raises where it is made."""
    with pytest.raises(OSError, match="in use"):
        WebhookReceiver(port=urlsplit(receiver.url).port or 0)


def test_ipv6_urls_have_brackets() -> None:
    """On an IPv6 address the URL is one that a client can use."""
    try:
        receiver = WebhookReceiver("::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with receiver:
        assert receiver.url.startswith("http://[::1]:")
        assert httpx.post(receiver.url).status_code == 200


def test_clients_that_disconnect_leave_no_trace() -> None:
    """Clients that vanish before, during and after a request, with or without a reset, print nothing."""
    program = """
import socket, struct
from urllib.parse import urlsplit
from procore_hooks.testing import WebhookReceiver

receiver = WebhookReceiver().reply(delay=0.05, body=b"x" * 10_000_000, times=None)
address = urlsplit(receiver.url)
full = b"POST / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
for sent in (b"", b"POST /", b"POST / HTTP/1.1\\r\\nContent-Length: 9\\r\\n\\r\\nabc", full, full * 3):
    for reset in (False, True):
        client = socket.create_connection((address.hostname, address.port))
        before = len(receiver.requests)
        client.sendall(sent)
        if sent.startswith(full):
            receiver.wait_for(before + 1)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
receiver.reply(201)
client = socket.create_connection((address.hostname, address.port), timeout=10)
client.sendall(b"GET /last HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
assert client.recv(1000).startswith(b"HTTP/1.1 ")
client.close()
open_at_exit = WebhookReceiver()
receiver.close()
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
