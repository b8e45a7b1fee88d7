"""`hooks.check`: one attempt outside of the history. Imported when it is asked for, as it brings in all that sends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import httpx

from ._core.models import EndpointReport, Hook, Timeouts
from ._endpoint_check import check_endpoint, check_url
from ._requests import RequestMaker
from ._transport import GuardedTransport

if TYPE_CHECKING:
    from ._registry import HookRegistry

__all__ = ["check_hook", "run_apart"]

T = TypeVar("T")


async def check_hook(
    registry: HookRegistry, get: Callable[[], Hook], timeouts: Timeouts, transport: httpx.AsyncBaseTransport | None
) -> EndpointReport:
    """Try the endpoint of the hook that `get` gives, through `transport` or the library's own."""
    hook = await asyncio.to_thread(get)
    refused = check_url(hook.destination_url, registry.destinations)
    if refused is not None:
        return refused
    maker = RequestMaker(registry.destinations, registry.payload_formats)
    prepared = maker.request(hook, registry.ping_event(hook), registry.clock.now())
    own = GuardedTransport(registry.destinations) if transport is None else transport
    try:
        report = await check_endpoint(prepared.as_httpx(timeouts), registry.destinations, own, timeouts)
        # The host of a redirect is the receiver's own words.
        return attrs.evolve(report, advice=prepared.secrets.masked_in_words(report.advice))
    finally:
        if transport is None:
            await own.aclose()


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop of its own in a thread of its own: the caller may well be inside a running loop."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="procore-hooks-check", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
