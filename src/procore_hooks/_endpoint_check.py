"""Whether an endpoint will get its deliveries, found out by trying, and said in one sentence.

The stages are those of a delivery: the URL's text, the name, the address, the connection, TLS, the answer. The
report names the first that fails, what is likely wrong there, and what to do about it.
"""

from __future__ import annotations

import asyncio

import httpx

from ._core.destinations import DestinationPolicy
from ._core.models import EndpointReport, EndpointStage, Timeouts
from ._dialling import NameNotFound, NameTimeout, TLSFailed, TLSTimeout
from ._transport import GuardedTransport
from .exceptions import InvalidDestination

__all__ = ["check_endpoint", "check_url"]

_ALLOW = "give a URL on the public internet, or name the network in DestinationPolicy(allow=...)"
_ANSWERS = {
    400: ("does not understand the request", "see in the endpoint's log what it misses in the body or the headers"),
    401: ("does not accept the credentials", "correct the Authorization header in destination_headers"),
    403: ("does not accept the credentials", "correct the Authorization header in destination_headers"),
    404: ("has nothing at this path", "correct the path of the URL"),
    405: ("does not take POST", "give a URL that takes POST with a JSON body"),
    408: ("waited for the request and gave up", "let the endpoint answer within its time"),
    410: ("is gone for good", "give the URL of the endpoint that took its place"),
    413: ("finds the body too large", "raise the endpoint's limit on request bodies"),
    415: ("does not take JSON", "let the endpoint take application/json"),
    429: ("asks to be called less often", "raise the endpoint's rate limit; deliveries slow down meanwhile"),
}
_PASSES_ON = {502: "its proxy gets no good answer", 503: "it is unavailable", 504: "its proxy gets no answer in time"}


def check_url(url: str, destinations: DestinationPolicy) -> EndpointReport | None:
    """What is wrong with the text of `url`, or with the address that its host is; None if nothing."""
    try:
        destinations.parse(url)
    except InvalidDestination as error:
        return _failed("url", _sentence(error.problem), "correct the URL")
    try:
        destinations.check(url)
    except InvalidDestination as error:
        return _failed("address", _sentence(error.problem), _ALLOW)
    return None


async def check_endpoint(
    request: httpx.Request,
    destinations: DestinationPolicy,
    transport: httpx.AsyncBaseTransport,
    timeouts: Timeouts,
) -> EndpointReport:
    """Send `request` once through `transport` and say what came of it. Any failure becomes a report."""
    refused = check_url(str(request.url), destinations)
    if refused is not None:
        return refused
    request.extensions = {
        **request.extensions,
        "timeout": {"connect": timeouts.connect, "read": timeouts.response},
    }
    try:
        async with asyncio.timeout(timeouts.total):
            response = await transport.handle_async_request(request)
            await response.aclose()
        return _judge_answer(request, response)
    except Exception as error:
        return _judge_failure(error, timeouts, own=isinstance(transport, GuardedTransport))


def _judge_answer(request: httpx.Request, response: httpx.Response) -> EndpointReport:
    status = response.status_code
    if 200 <= status <= 299:
        return EndpointReport(ok=True, stage="answer")
    if 300 <= status <= 399:
        return _redirected(request, response)
    if status >= 500:
        why = _PASSES_ON.get(status, "it failed while it handled the request")
        return _answered(status, f"fails: {why}", "see the endpoint's log, and try again once it is mended")
    what, advice = _ANSWERS.get(status, ("refuses the request", "see in the endpoint's log why"))
    return _answered(status, what, advice)


def _redirected(request: httpx.Request, response: httpx.Response) -> EndpointReport:
    """A redirect is not followed: it would carry the event and the credentials to an address nobody judged."""
    what = "points to another address, and redirects are not followed"
    there = _target(request, response)
    if there is None:
        return _answered(response.status_code, what, "give the URL of the endpoint itself")
    if there == _origin(request.url):
        return _answered(response.status_code, what, "give the URL it points to: another path on the same host")
    return _answered(response.status_code, what, f"give the URL it points to directly, on {there}")


def _target(request: httpx.Request, response: httpx.Response) -> str | None:
    """Where the answer points to; None if that is no proper URL."""
    try:
        return _origin(request.url.join(response.headers.get("location", "")))
    except (httpx.InvalidURL, ValueError):
        return None


def _origin(url: httpx.URL) -> str:
    """Scheme, host and port of `url`: the rest may hold a token. Raises `InvalidDestination` if they are odd."""
    origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
    DestinationPolicy.local().parse(f"{origin}/")
    return origin


def _judge_failure(error: Exception, timeouts: Timeouts, own: bool) -> EndpointReport:
    # Only our own transport is known to put no header value into its texts.
    text = _sentence(str(error)) if own and isinstance(error, httpx.TransportError) else type(error).__name__
    if isinstance(error, InvalidDestination):
        return _failed("address", _sentence(error.problem), _ALLOW)
    if isinstance(error, NameNotFound | NameTimeout):
        return _failed("name", text, "correct the host in the URL, or wait until its DNS entry is known everywhere")
    if isinstance(error, TLSFailed | TLSTimeout):
        return _failed(
            "tls", text, "install a valid certificate for this very name, with its intermediate certificates"
        )
    if isinstance(error, httpx.ConnectTimeout):
        return _failed("connection", text, "let the endpoint's firewall admit connections to this port")
    if isinstance(error, httpx.ConnectError):
        return _failed("connection", text, "start the endpoint, or correct the port in the URL")
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        problem = f"The endpoint gave no answer within {timeouts.response:g} s"
        return _failed("answer", problem, "let the endpoint answer at once and do its work afterwards")
    advice = "see the endpoint's log; it must answer with plain HTTP/1.1"
    return _failed("answer", f"The endpoint gave no proper answer: {text}", advice)


def _answered(status: int, what: str, advice: str) -> EndpointReport:
    return _failed("answer", f"The endpoint {what} (status {status})", advice)


def _failed(stage: EndpointStage, problem: str, advice: str) -> EndpointReport:
    return EndpointReport(ok=False, stage=stage, problem=f"{problem}.", advice=f"{_sentence(advice)}.")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
