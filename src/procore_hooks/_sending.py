"""One attempt: the request goes out, what comes back is told in words and values. No attempt ends in an exception."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Final

import attrs
import httpx

from ._clock import Clock
from ._core.claims import Claim, Settlement
from ._core.decide import Answer
from ._core.frozen import FrozenDict
from ._core.headers import kept_response_headers, masked_headers
from ._core.models import Attempt, Hook, Timeouts, masked_url
from ._core.states import OUTCOMES, after
from ._requests import RequestMaker
from .exceptions import InvalidDestination, ProcoreHooksError

__all__ = ["Sender", "Sent", "left_open"]

_CUT_SHORT: Final = "cut short: the dispatcher stopped before an answer came"
# An answer is read up to here, so that the connection can be used again, and kept up to there.
_MOST_READ: Final = 65_536
_MOST_KEPT: Final = 8_192
_LONGEST_ERROR: Final = 500
_PARTS: Final = re.compile(r"[\s,;:=\"']+")
_SHORTEST_PART: Final = 4
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]+")


@attrs.frozen(kw_only=True)
class Sent:
    """An attempt, its outcome still open, and what came of it."""

    attempt: Attempt
    answer: Answer


@attrs.define
class _Received:
    """What has come so far; filled while it comes, since it may stop coming."""

    status: int | None = None
    headers: FrozenDict[str, str] = attrs.field(factory=FrozenDict)
    body: bytearray = attrs.field(factory=bytearray)


class Sender:
    """Sends claimed deliveries through a transport."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, maker: RequestMaker, timeouts: Timeouts, clock: Clock
    ) -> None:
        self._transport = transport
        self._maker = maker
        self._timeouts = timeouts
        self._clock = clock

    async def send(self, claim: Claim, send_by: float) -> Sent:
        """Make one attempt, within the total deadline and over by `send_by` of the loop's clock.

        Raises only what ends the task or the process.
        """
        started_at = self._clock.now()
        try:
            prepared = self._maker.request(claim.hook, claim.event, started_at)
        except Exception as error:
            attempt = Attempt(
                number=claim.number,
                outcome="unknown",
                request_url=masked_url(claim.hook.destination_url),
                request_headers=masked_headers(claim.hook.destination_headers),
                started_at=started_at,
            )
            return self._sent(attempt, _Received(), self._unprepared(claim, error))
        attempt = Attempt(
            number=claim.number,
            outcome="unknown",
            request_url=prepared.url,
            request_headers=prepared.headers,
            request_body=prepared.stored_body,
            started_at=started_at,
        )
        received = _Received()
        error_text = None
        try:
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(min(now + self._timeouts.total, send_by)):
                await self._exchange(prepared.request, received)
        except BaseException as error:
            # A cancellation that nobody asked for is the transport's own, as is a group that holds one.
            if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit) and not _is_its_own(error):
                raise
            error_text = self._in_words(claim, error, received)
        return self._sent(attempt, received, error_text)

    async def _exchange(self, request: httpx.Request, received: _Received) -> None:
        response = await self._transport.handle_async_request(request)
        try:
            received.status = response.status_code
            received.headers = kept_response_headers(response.headers.raw)
            if response.is_stream_consumed:  # a mock that was made with its content
                received.body += response.content[:_MOST_READ]
                return
            async for chunk in response.aiter_raw():
                received.body += chunk[: _MOST_READ - len(received.body)]
                if len(received.body) >= _MOST_READ:
                    return
        finally:
            await response.aclose()

    def _sent(self, attempt: Attempt, received: _Received, error: str | None) -> Sent:
        attempt = attrs.evolve(
            attempt,
            response_status=received.status,
            response_headers=received.headers,
            response_body=bytes(received.body[:_MOST_KEPT]),
            response_error=error,
            completed_at=self._clock.now(),
        )
        return Sent(attempt=attempt, answer=Answer(status=received.status, headers=received.headers, error=error))

    def _unprepared(self, claim: Claim, error: Exception) -> str:
        if isinstance(error, ProcoreHooksError):
            return _tidy(claim, str(error))
        # What an app's own format raises may well quote the payload: its type is enough here.
        return f"the payload format {claim.hook.payload_version!r} raised {type(error).__name__}"

    def _in_words(self, claim: Claim, error: BaseException, received: _Received) -> str:
        if isinstance(error, BaseExceptionGroup):
            return self._in_words(claim, error.exceptions[0], received)
        if isinstance(error, TimeoutError):
            what = "no answer came" if received.status is None else "the answer did not end"
            return f"{what} within {self._timeouts.total:g} s"
        if isinstance(error, InvalidDestination):
            return _tidy(claim, f"not sent: {error.problem}")
        text = _text_of(error)
        if isinstance(error, httpx.TransportError) and text:
            return _tidy(claim, text)
        return _tidy(claim, f"{type(error).__name__}: {text}" if text else type(error).__name__)


def left_open(claim: Claim, now: datetime) -> Settlement:
    """The settlement of an attempt that was cut short: the delivery returns, due at once, and pauses nothing."""
    attempt = Attempt(
        number=claim.number,
        outcome=OUTCOMES["left_open"],
        request_url=masked_url(claim.hook.destination_url),
        request_headers=masked_headers(claim.hook.destination_headers),
        response_error=_CUT_SHORT,
        started_at=claim.claimed_at,
        completed_at=now,
    )
    return Settlement(claim=claim, attempt=attempt, status=after("enqueued", "left_open"))


def _is_its_own(error: BaseException) -> bool:
    """Whether `error` is a cancellation that the transport let escape, while nobody has cancelled this task."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def _tidy(claim: Claim, text: str) -> str:
    """One line without the hook's secrets: transports other than ours may quote what they were given."""
    for secret in _secrets_of(claim.hook):
        text = text.replace(secret, "*****")
    # Half a surrogate pair is no text that a database takes.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROLS.sub(" ", text).strip()[:_LONGEST_ERROR]


def _secrets_of(hook: Hook) -> list[str]:
    """What no error may quote, the longest first: header values and the query, and the parts of both."""
    values = [value.reveal() for value in hook.destination_headers.values()]
    _, _, query = hook.destination_url.partition("?")
    # The first part of a header is most often a word such as "Bearer", and that of a parameter its name.
    parts = [part for value in (*values, *query.split("&")) for part in _PARTS.split(value)[1:]]
    whole = [secret for secret in (*values, query) if secret]
    return sorted({*whole, *(part for part in parts if len(part) >= _SHORTEST_PART)}, key=len, reverse=True)
