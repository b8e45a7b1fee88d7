"""One attempt: the request goes out, what comes back is told in words and values. No attempt ends in an exception."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterable, Iterable, Sequence
from datetime import datetime
from typing import Final

import attrs
import httpx

from ._clock import Clock
from ._core.claims import Claim, Settlement
from ._core.decide import Answer, is_success
from ._core.frozen import FrozenDict
from ._core.headers import masked_headers
from ._core.masking import SecretsOfHook
from ._core.models import Attempt, Timeouts, masked_url
from ._core.states import OUTCOMES, after
from ._requests import PreparedRequest, RequestMaker
from ._transport import GuardedTransport
from .exceptions import InvalidDestination, InvalidHeader, ProcoreHooksError

__all__ = ["MOST_READ", "Sender", "Underway", "left_open"]

_CUT_SHORT: Final = "cut short: the dispatcher stopped before an answer came"
# A body is read up to here, so that the connection can be used again. Less than that is kept.
MOST_READ: Final = 65_536
_LONGEST_ERROR: Final = 500
# All that some reader of a log takes for the end of a line, or a terminal for a command.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@attrs.define(eq=False)
class Underway:
    """An attempt from its claim to its end; filled while it goes on, since it may stop at any point.

    Attributes:
        started_at: when it was prepared; the moment of the claim until then.
        request: None until it is prepared, and if that failed; `error` then says why.
        deadline: when it has to be over, by the loop's clock.
        is_late: whether it was cancelled because that has passed.
        headers, body: as they came, with whatever secrets they hold.
        error: what went wrong, in words, without the hook's secrets.
        completed_at: None until it is over.
    """

    claim: Claim
    started_at: datetime
    request: PreparedRequest | None = None
    deadline: float = math.inf
    is_late: bool = False
    status: int | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytearray = attrs.field(factory=bytearray)
    error: str | None = None
    completed_at: datetime | None = None

    @property
    def is_prepared(self) -> bool:
        """Whether there is a request to send, or an error that says why there is none."""
        return self.deadline < math.inf

    def take_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Take the head of the answer. Raises `httpx.RemoteProtocolError` for a status that is none."""
        if not 100 <= status <= 999:
            raise httpx.RemoteProtocolError("the answer's status is not a number of three digits")
        self.status = status
        self.headers = headers

    def take(self, chunk: bytes) -> bool:
        """Take more of the body. False if that is enough."""
        self.body += chunk[: MOST_READ - len(self.body)]
        return len(self.body) < MOST_READ


class Sender:
    """Sends claimed deliveries through a transport.

    What needs no waiting is apart from what does, so that it can be done for many attempts together.

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

    def prepare(self, attempts: Iterable[Underway], send_by: float) -> None:
        """Make their requests. They are to be over within the total deadline, and by `send_by` of the loop's clock."""
        loop = asyncio.get_running_loop()
        now = self._clock.now()
        for one in attempts:
            one.started_at = now
            try:
                one.request = self._maker.request(one.claim.hook, one.claim.event, now)
            except Exception as error:
                one.error = _tidy(_unprepared(one.claim, error), SecretsOfHook(one.claim.hook))
            one.deadline = min(loop.time() + self._timeouts.total, send_by)

    async def send(self, one: Underway) -> None:
        """Send the request of a prepared attempt, and take what comes.

        Raises only what ends the task or the process. The task is to be cancelled at the deadline, once `is_late` is
        set.
        """
        transport, request = self._transport, one.request
        if request is None:
            return
        try:
            if type(transport) is GuardedTransport:
                # Without the requests and responses of httpx, which cost a third of it all.
                head, body = await transport.send(
                    request.destination,
                    request,
                    request.body,
                    connect=self._timeouts.connect,
                    response=self._timeouts.response,
                )
                try:
                    one.take_head(head.status, head.headers)
                    whole = body.take_whole()
                    if whole is None:
                        await _read(body, one)
                    else:
                        one.take(whole)
                finally:
                    body.close()
            else:  # a subclass may do things of its own
                await self._send_by_httpx(transport, request, one)
        except BaseException as error:
            one.error = self._what_ended(error, one, request.secrets)
        # It may have to wait for the storage. One byte more tells that there was more.
        if len(one.body) > self._kept_bytes:
            del one.body[request.secrets.looked_at(self._kept_bytes) + 1 :]

    def _what_ended(self, error: BaseException, one: Underway, secrets: SecretsOfHook) -> str:
        """What ended an exchange, in words. Raises it if it is to end the task or the process."""
        task = asyncio.current_task()
        is_cancellation = isinstance(error, asyncio.CancelledError)
        if (
            one.is_late
            and task is not None
            and (isinstance(error, TimeoutError) or (is_cancellation and not task.uncancel()))
        ):
            what = "no answer came" if one.status is None else "the answer did not end"
            return f"{what} within {self._timeouts.total:g} s"
        # A cancellation that nobody asked for is the transport's own, as is a group that holds one.
        is_own = is_cancellation and task is not None and not task.cancelling()
        if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit) and not is_own:
            raise error
        return _tidy(_in_words(error), secrets)

    async def _send_by_httpx(
        self, transport: httpx.AsyncBaseTransport, request: PreparedRequest, one: Underway
    ) -> None:
        response = await transport.handle_async_request(request.as_httpx(self._timeouts))
        try:
            one.take_head(response.status_code, response.headers.raw)
            if response.is_stream_consumed:  # a mock that was made with its content
                one.take(response.content)
                return
            await _read(response.aiter_raw(), one)
        finally:
            await response.aclose()

    def outcome(self, one: Underway) -> tuple[Attempt, Answer]:
        """What the history keeps of an attempt that is over, its outcome still to be decided, and what to decide by."""
        hook, request = one.claim.hook, one.request
        headers, body = FrozenDict[str, str](), b""
        if request is not None:
            headers = request.secrets.kept_headers(one.headers)
            is_cut = one.error is not None or len(one.body) >= MOST_READ
            body = request.secrets.masked_in_answer(bytes(one.body), self._kept_bytes, is_cut=is_cut)
        answer = Answer(status=one.status, headers=headers, error=one.error)
        attempt = Attempt(
            number=one.claim.number,
            # What nearly all are decided to be: one more attempt need not be made of it then.
            outcome=OUTCOMES["accepted"] if is_success(answer) else "unknown",
            request_url=masked_url(hook.destination_url) if request is None else request.url,
            request_headers=masked_headers(hook.destination_headers) if request is None else request.headers,
            request_body=b"" if request is None else request.stored_body,
            response_status=one.status,
            response_headers=headers,
            response_body=body,
            response_error=one.error,
            started_at=one.started_at,
            completed_at=one.completed_at,
        )
        return attempt, answer


async def _read(body: AsyncIterable[bytes], one: Underway) -> None:
    """Take what comes of `body`, up to its end or to where it is enough."""
    async for chunk in body:
        if not one.take(chunk):
            return


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
