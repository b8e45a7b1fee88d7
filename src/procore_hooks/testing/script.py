"""A script of answers and a record of requests: what `WebhookReceiver` and `ScriptedEndpoint` have in common.

A request that has arrived in full is recorded and takes its reply in one step, so that the n-th request recorded
gets the n-th reply, however many arrive at once. When the script is over, the answer is 200 without a body.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeAlias

import attrs
import httpx

from ..exceptions import InvalidInput

__all__ = ["RawHeaders", "ReceivedRequest", "Reply", "ReplyHeaders", "Script"]

RawHeaders: TypeAlias = tuple[tuple[bytes, bytes], ...]
ReplyHeaders: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

_SHOWN = 10
_NO_BODY = {204, 304}
_FRAMING = {b"content-length", b"transfer-encoding"}


@attrs.frozen
class ReceivedRequest:
    """A request as it arrived.

    Attributes:
        path: the target of the request, query included.
        headers: names in any case find their values.
        received_at: when it had arrived in full, in seconds of `time.monotonic()`.
    """

    method: str
    path: str
    headers: httpx.Headers
    body: bytes
    received_at: float

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` if it is none."""
        return json.loads(self.body)


def _as_bytes(field: str, value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise InvalidInput(field, f"{value!r} is neither bytes nor a string; encode it first")


def _raw_body(body: object) -> bytes:
    return _as_bytes("body", body)


def _raw_headers(headers: ReplyHeaders | None) -> RawHeaders:
    # Whatever else they hold goes out as it is: receivers in the wild send worse.
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return tuple((_as_bytes("headers", name), _as_bytes("headers", value)) for name, value in pairs)


def _check_status(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or not 200 <= value <= 999:
        raise InvalidInput("status", f"{value!r} is not a final HTTP status, 200 to 999")


def _check_delay(instance: object, attribute: attrs.Attribute[float], value: object) -> None:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidInput("delay", f"{value!r} is not a number of seconds, 0 or more")


def _check_times(times: object) -> None:
    if times is not None and (not isinstance(times, int) or times < 1):
        raise InvalidInput("times", f"{times!r} is not a number of answers above 0; None is for ever")


def _check_error(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Exception):
        raise InvalidInput("error", f"{value!r} is not an exception, such as httpx.ConnectError('refused')")


@attrs.frozen
class Reply:
    """One answer of the script: after `delay` seconds, `error` is raised or the rest is sent."""

    status: int = attrs.field(default=200, validator=_check_status)
    headers: RawHeaders = attrs.field(default=None, converter=_raw_headers)
    body: bytes = attrs.field(default=b"", converter=_raw_body)
    delay: float = attrs.field(default=0.0, validator=_check_delay)
    error: Exception | None = attrs.field(default=None, validator=_check_error)

    def content(self, method: str) -> tuple[RawHeaders, bytes]:
        """The headers and the body that answer a request of this method: HEAD, 204 and 304 go without a body.

        A ``content-length`` or ``transfer-encoding`` in the script stays as it is, right or wrong.
        """
        if self.status in _NO_BODY:
            return self.headers, b""
        headers = self.headers
        if not any(name.lower() in _FRAMING for name, _ in headers):
            headers = (*headers, (b"content-length", b"%d" % len(self.body)))
        return headers, b"" if method == "HEAD" else self.body


class Script:
    """The queue of replies and the list of requests. Any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._replies: deque[tuple[Reply, int | None]] = deque()
        self._requests: list[ReceivedRequest] = []

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests so far, in the order in which they arrived in full: a copy."""
        with self._changed:
            return list(self._requests)

    def reply(
        self,
        status: int = 200,
        headers: ReplyHeaders | None = None,
        body: bytes | str = b"",
        delay: float = 0.0,
        times: int | None = 1,
    ) -> Self:
        """Script what comes next, after all that is scripted already. Returns the same object, to go on with.

        Args:
            status: 200 to 999.
            headers: a mapping, or pairs where a name comes more than once; sent as they are, beside a
                ``content-length`` where they have none.
            body: bytes, or text to be sent as UTF-8.
            delay: seconds to wait before the answer; other requests are not held up.
            times: how many requests get this answer; None is from then on, until another reply is scripted.

        Raises `InvalidInput` for a value that is none of these.
        """
        return self._script(Reply(status, headers, body, delay), times)

    def wait_for(self, count: int, timeout: float = 5.0) -> list[ReceivedRequest]:
        """Wait until at least `count` requests have arrived, at most `timeout` seconds, and return all of them.

        Raises `AssertionError`, which says what has come, when the time is over. It blocks its thread: in a
        coroutine, hand it to `asyncio.to_thread`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                raise AssertionError(self._shortfall(count, timeout))
            return list(self._requests)

    def reset(self) -> None:
        """Forget the requests and the rest of the script."""
        with self._changed:
            self._requests.clear()
            self._replies.clear()

    def _script(self, reply: Reply, times: int | None) -> Self:
        _check_times(times)
        with self._changed:
            self._replies.append((reply, times))
        return self

    def _receive(self, method: str, path: str, headers: httpx.Headers, body: bytes) -> Reply:
        """Record a request that has arrived in full, and take the reply to it."""
        with self._changed:
            self._requests.append(ReceivedRequest(method, path, headers, body, time.monotonic()))
            self._changed.notify_all()
            return self._next_reply()

    def _next_reply(self) -> Reply:
        while self._replies:
            reply, left = self._replies.popleft()
            if left is None and self._replies:
                continue
            if left is None:
                self._replies.append((reply, None))
            elif left > 1:
                self._replies.appendleft((reply, left - 1))
            return reply
        return _OVER

    def _shortfall(self, count: int, timeout: float) -> str:
        # Without queries, which often carry a token.
        came = [f"{request.method} {request.path.partition('?')[0]}" for request in self._requests]
        listed = ", ".join(came[-_SHOWN:]) or "none"
        last = f" the last {_SHOWN}:" if len(came) > _SHOWN else ""
        return f"{len(came)} of {count} requests came within {timeout:g} s:{last} {listed}"


_OVER = Reply()
