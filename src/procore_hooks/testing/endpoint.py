"""A scripted endpoint without a socket: an httpx transport."""

from __future__ import annotations

import asyncio
import time
from typing import Self

import httpx

from .script import Reply, ReplyHeaders, Script

__all__ = ["ScriptedEndpoint"]


class ScriptedEndpoint(Script, httpx.AsyncBaseTransport, httpx.BaseTransport):
    """An httpx transport that answers by the script: ``Dispatcher(registry, transport=ScriptedEndpoint())``.

    It records every request that it is asked to send, those too that end in a scripted error. A delay longer than
    the request's own read timeout ends in `httpx.ReadTimeout`, as it would with a socket.
    """

    def reply(
        self,
        status: int = 200,
        headers: ReplyHeaders | None = None,
        body: bytes | str = b"",
        delay: float = 0.0,
        times: int | None = 1,
        error: Exception | None = None,
    ) -> Self:
        """Script what comes next, as a `WebhookReceiver` does; with `error`, that is raised instead of an answer."""
        return self._script(Reply(status, headers, body, delay, error), times)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Record the request and answer it, or raise what the script says."""
        reply = self._take(request, request.read())
        wait, in_time = _patience(request, reply)
        if wait:
            time.sleep(wait)
        return _outcome(request, reply, in_time)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Record the request and answer it, or raise what the script says."""
        reply = self._take(request, await request.aread())
        wait, in_time = _patience(request, reply)
        if wait:
            await asyncio.sleep(wait)
        return _outcome(request, reply, in_time)

    def _take(self, request: httpx.Request, body: bytes) -> Reply:
        path = request.url.raw_path.decode("ascii")
        return self._receive(request.method, path, httpx.Headers(request.headers.raw), body)


def _patience(request: httpx.Request, reply: Reply) -> tuple[float, bool]:
    """How many seconds pass, and whether the answer comes within the request's read timeout."""
    limit = request.extensions.get("timeout", {}).get("read")
    if limit is None or reply.delay <= limit:
        return reply.delay, True
    return limit, False


def _outcome(request: httpx.Request, reply: Reply, in_time: bool) -> httpx.Response:
    if not in_time:
        raise httpx.ReadTimeout("the scripted delay is longer than the read timeout", request=request)
    if reply.error is not None:
        # One exception may be raised many times: without this, its traceback would grow each time.
        raise reply.error.with_traceback(None)
    headers, body = reply.content(request.method)
    # A stream and not `content`, since that would count as read already: a caller reads it raw, as from a socket.
    return httpx.Response(reply.status, headers=list(headers), stream=httpx.ByteStream(body), request=request)
