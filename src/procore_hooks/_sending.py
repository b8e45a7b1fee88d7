"""One attempt: the request goes out, what comes back is told in words and values. No attempt ends in an exception."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import attrs
import httpx

from ._clock import Clock
from ._core.claims import Claim, Settlement
from ._core.decide import Answer, is_success
from ._core.frozen import FrozenDict
from ._core.headers import kept_response_headers, masked_headers
from ._core.masking import SecretsOfHook
from ._core.models import Attempt, Timeouts, masked_url
from ._core.states import OUTCOMES, after
from ._requests import PreparedRequest, RequestMaker
from ._transport import GuardedTransport
from .exceptions import InvalidDestination, InvalidHeader, ProcoreHooksError

__all__ = ["MOST_READ", "Sender", "Sent", "left_open"]

_CUT_SHORT: Final = "cut short: the dispatcher stopped before an answer came"
# A body is read up to here, so that the connection can be used again. Less than that is kept.
MOST_READ: Final = 65_536
_LONGEST_ERROR: Final = 500
# All that some reader of a log takes for the end of a line, or a terminal for a command.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@attrs.frozen(kw_only=True)
class Sent:
    """An attempt, whose outcome is still to be decided, and what came of it."""

    attempt: Attempt
    answer: Answer


@attrs.define
class _Received:
    """What has come so far; filled while it comes, since it may stop coming."""

    status: int | None = None
    headers: FrozenDict[str, str] = attrs.field(factory=FrozenDict)
    body: bytearray = attrs.field(factory=bytearray)

    def take_head(self, status: int, headers: Sequence[tuple[bytes, bytes]], secrets: SecretsOfHook) -> None:
        """Take the head of the answer. Raises `httpx.RemoteProtocolError` for a status that is none."""
        if not 100 <= status <= 999:
            raise httpx.RemoteProtocolError("the answer's status is not a number of three digits")
        self.status = status
        self.headers = kept_response_headers(secrets.masked_in_headers(headers))

    def take(self, chunk: bytes) -> bool:
        """Take more of the body. False if that is enough."""
        self.body += chunk[: MOST_READ - len(self.body)]
        return len(self.body) < MOST_READ


class Sender:
    """Sends claimed deliveries through a transport.

    `kept_response_bytes` is how much of the body of an answer is kept.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        maker: RequestMaker,
        timeouts: Timeouts,
        clock: Clock,
        kept_response_bytes: int,
    ) -> None:
        self._transport = transport
        self._maker = maker
        self._timeouts = timeouts
        self._clock = clock
        self._kept_bytes = kept_response_bytes

    async def send(self, claim: Claim, send_by: float) -> Sent:
        """Make one attempt, within the total deadline and over by `send_by` of the loop's clock.

        Raises only what ends the task or the process.
        """
        started_at = self._clock.now()
        received = _Received()
        try:
            prepared = self._maker.request(claim.hook, claim.event, started_at)
        except Exception as error:
            text = _tidy(_unprepared(claim, error), SecretsOfHook(claim.hook))
            return self._sent(claim, None, started_at, received, text)
        error_text = None
        now = asyncio.get_running_loop().time()
        deadline = asyncio.timeout_at(min(now + self._timeouts.total, send_by))
        try:
            async with deadline:
                await self._exchange(prepared, received)
        except BaseException as error:
            # A cancellation that nobody asked for is the transport's own, as is a group that holds one.
            if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit) and not _is_its_own(error):
                raise
            if isinstance(error, TimeoutError) and deadline.expired():
                what = "no answer came" if received.status is None else "the answer did not end"
                error_text = f"{what} within {self._timeouts.total:g} s"
            else:
                error_text = _tidy(_in_words(error), prepared.secrets)
        return self._sent(claim, prepared, started_at, received, error_text)

    async def _exchange(self, prepared: PreparedRequest, received: _Received) -> None:
        if type(self._transport) is GuardedTransport:  # a subclass may do things of its own
            await self._exchange_bytes(self._transport, prepared, received)
            return
        response = await self._transport.handle_async_request(prepared.as_httpx(self._timeouts))
        try:
            received.take_head(response.status_code, response.headers.raw, prepared.secrets)
            if response.is_stream_consumed:  # a mock that was made with its content
                received.take(response.content)
                return
            async for chunk in response.aiter_raw():
                if not received.take(chunk):
                    return
        finally:
            await response.aclose()

    async def _exchange_bytes(
        self, transport: GuardedTransport, prepared: PreparedRequest, received: _Received
    ) -> None:
        """The same by our own transport, without the requests and responses of httpx, which cost a third of it all."""
        head, body = await transport.send(
            prepared.destination,
            prepared.head,
            prepared.body,
            connect=self._timeouts.connect,
            response=self._timeouts.response,
        )
        try:
            received.take_head(head.status, head.headers, prepared.secrets)
            async for chunk in body:
                if not received.take(chunk):
                    return
        finally:
            await body.aclose()

    def _sent(
        self,
        claim: Claim,
        prepared: PreparedRequest | None,
        started_at: datetime,
        received: _Received,
        error: str | None,
    ) -> Sent:
        hook, body = claim.hook, bytes(received.body)
        if prepared is not None:
            is_cut = error is not None or len(body) >= MOST_READ
            body = prepared.secrets.masked_in_answer(body, self._kept_bytes, is_cut=is_cut)
        answer = Answer(status=received.status, headers=received.headers, error=error)
        attempt = Attempt(
            number=claim.number,
            # What nearly all are decided to be: one more attempt need not be made of it then.
            outcome=OUTCOMES["accepted"] if is_success(answer) else "unknown",
            request_url=masked_url(hook.destination_url) if prepared is None else prepared.url,
            request_headers=masked_headers(hook.destination_headers) if prepared is None else prepared.headers,
            request_body=b"" if prepared is None else prepared.stored_body,
            response_status=received.status,
            response_headers=received.headers,
            response_body=body,
            response_error=error,
            started_at=started_at,
            completed_at=self._clock.now(),
        )
        return Sent(attempt=attempt, answer=answer)


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


def _unprepared(claim: Claim, error: Exception) -> str:
    if isinstance(error, InvalidHeader):
        return f"not sent: {error}"
    if isinstance(error, ProcoreHooksError):
        return str(error)
    # What an app's own format raises may well quote the payload: its type is enough here.
    return f"the payload format {claim.hook.payload_version!r} raised {type(error).__name__}"


def _in_words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _in_words(error.exceptions[0])
    if isinstance(error, InvalidDestination):
        return f"not sent: {error.problem}"
    if isinstance(error, InvalidHeader):
        return f"not sent: {error}"
    text = _text_of(error)
    if isinstance(error, httpx.TransportError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def _tidy(text: str, secrets: SecretsOfHook) -> str:
    """One line without the hook's secrets: transports other than ours may quote what they were given."""
    # Half a surrogate pair is no text that a database takes.
    text = secrets.masked_in_error(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROLS.sub(" ", text).strip()[:_LONGEST_ERROR]
