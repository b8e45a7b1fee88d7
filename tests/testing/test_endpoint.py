"""The scripted endpoint: an httpx transport that answers as a `WebhookReceiver` would."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from types import FrameType

import httpx
import pytest

from procore_hooks.exceptions import InvalidInput
from procore_hooks.testing import ReceivedRequest, ScriptedEndpoint
from procore_hooks.testing.script import Script

URL = "https://hooks.example/procore?token=abc"


def test_sync_and_async_clients_get_the_script_in_order() -> None:
    """One endpoint serves both kinds of client; replies come in order, and 200 without a body when they are over."""
    endpoint = ScriptedEndpoint().reply(503, {"Retry-After": "7"}, b"busy").reply(201, times=2)

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=endpoint) as client:
            return [await client.get(URL) for _ in range(2)]

    with httpx.Client(transport=endpoint) as client:
        first = client.get(URL)
        others = [*asyncio.run(ask()), client.get(URL)]

    assert (first.status_code, first.headers["retry-after"], first.content) == (503, "7", b"busy")
    assert [(r.status_code, r.content) for r in others] == [(201, b""), (201, b""), (200, b"")]


def test_requests_are_recorded_as_they_were_sent() -> None:
    """Method, path with query, headers in any case and body are there, in order."""
    endpoint = ScriptedEndpoint()
    with httpx.Client(transport=endpoint) as client:
        client.post(URL, json={"a": 1}, headers={"Authorization": "Bearer x"})
        client.put("https://hooks.example/caf%C3%A9", content=b"raw")
    post, put = endpoint.requests

    assert (post.method, post.path, post.json()) == ("POST", "/procore?token=abc", {"a": 1})
    assert (post.headers["authorization"], post.headers["HOST"]) == ("Bearer x", "hooks.example")
    assert (put.method, put.path, put.body) == ("PUT", "/caf%C3%A9", b"raw")
    assert post.received_at <= put.received_at
    with pytest.raises(ValueError, match="Expecting value"):
        put.json()


def test_requests_is_a_copy() -> None:
    """What a caller does to the list changes nothing, and the values are frozen."""
    endpoint = ScriptedEndpoint()
    with httpx.Client(transport=endpoint) as client:
        client.get(URL)
    endpoint.requests.clear()

    assert len(endpoint.requests) == 1
    with pytest.raises(AttributeError):
        endpoint.requests[0].method = "PUT"  # type: ignore[misc]


def test_a_scripted_error_is_raised_and_the_request_recorded() -> None:
    """An error takes the place of an answer as often as it says, and leaves no traceback of its earlier raises."""
    refused = httpx.ConnectError("refused")
    endpoint = ScriptedEndpoint().reply(error=refused, times=3)
    depths = []
    with httpx.Client(transport=endpoint) as client:
        for _ in range(3):
            with pytest.raises(httpx.ConnectError, match="refused") as caught:
                client.get(URL)
            depths.append(len(caught.traceback))
        assert client.get(URL).status_code == 200

    assert len(endpoint.requests) == 4
    assert len(set(depths)) == 1


def test_the_answer_of_the_bare_transport_streams() -> None:
    """Without a client, the answer's raw bytes can be read from its stream, as those of a socket can."""
    endpoint = ScriptedEndpoint().reply(body=b"hello")

    async def ask() -> tuple[bytes, str]:
        response = await endpoint.handle_async_request(httpx.Request("POST", URL, content=b"x"))
        chunks = [chunk async for chunk in response.aiter_raw()]
        return b"".join(chunks), response.headers["content-length"]

    assert asyncio.run(ask()) == (b"hello", "5")


def test_for_ever_lasts_until_something_else_is_scripted() -> None:
    """`times=None` goes on and on; a later reply takes over, and after it the script is over."""
    endpoint = ScriptedEndpoint().reply(500, times=None)
    with httpx.Client(transport=endpoint) as client:
        outage = [client.get(URL).status_code for _ in range(5)]
        endpoint.reply(202)
        recovered = [client.get(URL).status_code for _ in range(3)]

    assert outage == [500] * 5
    assert recovered == [202, 200, 200]


def test_reset_forgets_requests_and_script() -> None:
    """After `reset` the endpoint is as new."""
    endpoint = ScriptedEndpoint().reply(500, times=None)
    with httpx.Client(transport=endpoint) as client:
        client.get(URL)
        endpoint.reset()
        assert endpoint.requests == []
        assert client.get(URL).status_code == 200


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_have_no_body_get_none(status: int) -> None:
    """204 and 304 go without a body and its length, and the answer to HEAD keeps the length alone."""
    endpoint = ScriptedEndpoint().reply(status, body=b"hello").reply(body=b"hello")
    with httpx.Client(transport=endpoint) as client:
        empty, head = client.get(URL), client.head(URL)

    assert (empty.content, "content-length" in empty.headers) == (b"", False)
    assert (head.content, head.headers["content-length"]) == (b"", "5")


def test_a_delay_past_the_read_timeout_times_out() -> None:
    """A client with a shorter read timeout gets `ReadTimeout` after its timeout, not the answer after the delay."""
    endpoint = ScriptedEndpoint().reply(delay=60, times=None)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=endpoint, timeout=0.01) as client:
            await client.get(URL)

    with pytest.raises(httpx.ReadTimeout):
        asyncio.run(asyncio.wait_for(ask(), 10))
    with httpx.Client(transport=endpoint, timeout=0.01) as client, pytest.raises(httpx.ReadTimeout):
        client.get(URL)


def test_a_delay_holds_up_its_own_request_alone() -> None:
    """While one request waits, another one on the same loop is answered."""
    endpoint = ScriptedEndpoint().reply(201, delay=0.2).reply(202)

    async def ask() -> list[int]:
        async with httpx.AsyncClient(transport=endpoint) as client:
            answered: list[int] = []

            async def one() -> None:
                answered.append((await client.get(URL)).status_code)

            await asyncio.gather(one(), one())
            return answered

    assert asyncio.run(ask()) == [202, 201]


def test_each_reply_goes_out_once_between_threads() -> None:
    """Replies are used up exactly as often as they say, even where threads are switched at each line of the script."""
    endpoint = ScriptedEndpoint().reply(201, times=40).reply(202, times=30)
    seen: list[int] = []

    def trace(frame: FrameType, event: str, arg: object) -> object:
        if frame.f_code.co_filename != Script.reply.__code__.co_filename:
            return None
        time.sleep(0)  # gives the interpreter away: without a lock, a reply goes out too often or too rarely then
        return trace

    def ask() -> None:
        sys.settrace(trace)  # type: ignore[arg-type]
        for _ in range(20):
            seen.append(endpoint.handle_request(httpx.Request("GET", URL)).status_code)
        sys.settrace(None)

    workers = [threading.Thread(target=ask) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert Counter(seen) == {201: 40, 202: 30, 200: 10}
    assert len(endpoint.requests) == 80


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", 100),
        ("status", 1000),
        ("status", "200"),
        ("headers", {"retry-after": 7}),
        ("body", {"a": 1}),
        ("delay", -1),
        ("delay", float("inf")),
        ("delay", float("nan")),
        ("times", 0),
        ("times", 1.5),
        ("error", httpx.ConnectError),
    ],
)
def test_a_wrong_reply_is_refused_where_it_is_scripted(field: str, value: object) -> None:
    """A value that cannot be sent raises at once, names its field, and scripts nothing."""
    endpoint = ScriptedEndpoint()
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        endpoint.reply(**{field: value})  # type: ignore[arg-type]
    assert endpoint.handle_request(httpx.Request("GET", URL)).status_code == 200


def test_received_requests_compare_by_value() -> None:
    """Two records of the same request are equal."""
    one, other = (ReceivedRequest("POST", "/", httpx.Headers({"A": "1"}), b"x", 1.0) for _ in range(2))
    assert one == other


def test_the_test_kit_imports_what_is_used_alone() -> None:
    """Importing the package imports none of its parts; a part is imported when it is used, and misspelt ones fail."""
    program = """
import sys
import procore_hooks.testing as testing
parts = lambda: sorted(name for name in sys.modules if name.startswith("procore_hooks.testing."))
assert parts() == [], parts()
assert set(testing.__all__) <= set(dir(testing))
testing.ManualClock
assert parts() == ["procore_hooks.testing.clock"], parts()
assert not hasattr(testing, "ManualClok")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
