"""`registry.hooks.check`: a report for whatever is wrong, and nothing in the history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from procore_hooks import DestinationPolicy, Hook, HookRegistry, NotFound, Timeouts, verify
from procore_hooks.testing import ManualClock, ScriptedEndpoint, WebhookReceiver

Listening = Callable[..., Hook]


def test_check_reports_a_good_endpoint(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint
) -> None:
    """By id the hook's headers and a signature that verifies are sent; nothing of it is in the history."""
    hook = listening(destination_headers={"Authorization": "Bearer c3a24b8208"})
    report = registry.hooks.check(hook.id, transport=endpoint)
    assert (report.ok, report.stage, report.problem, report.advice) == (True, "answer", "", "")
    request = endpoint.requests[0]
    assert request.headers["authorization"] == "Bearer c3a24b8208"
    assert verify(request.body, request.headers, hook.signing_secret, now=registry.clock.now())["reason"] == "ping"
    assert registry.deliveries.list().items == ()


@pytest.mark.parametrize(
    ("url", "stage"), [("http://hooks.acme.example/", "url"), ("https://10.0.0.1/", "address"), ("nonsense", "url")]
)
def test_check_reports_a_bad_url_without_sending(
    registry: HookRegistry, endpoint: ScriptedEndpoint, url: str, stage: str
) -> None:
    """A URL that is refused is a report and not an exception: one sentence for the problem, one for the fix."""
    report = registry.hooks.check(url, transport=endpoint)
    assert (report.ok, report.stage) == (False, stage)
    for sentence in (report.problem, report.advice):
        assert sentence.endswith(".")
        assert "\n" not in sentence
    assert endpoint.requests == []


def test_check_reports_answers_and_errors(registry: HookRegistry, endpoint: ScriptedEndpoint) -> None:
    """A refusal, a redirect and a failing connection are told apart."""
    endpoint.reply(401).reply(302, {"location": "https://other.acme.example/"})
    endpoint.reply(error=httpx.ConnectError("refused"))
    reports = [registry.hooks.check("https://hooks.acme.example/", transport=endpoint) for _ in range(3)]
    assert [report.ok for report in reports] == [False, False, False]
    assert [report.stage for report in reports] == ["answer", "answer", "connection"]
    assert "Authorization" in reports[0].advice
    assert "redirect" in reports[1].problem


def test_check_quotes_no_secret_back(registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint) -> None:
    """A receiver that puts what it was sent into the host that it redirects to gets it into no report."""
    hook = listening(destination_headers={"Authorization": "Bearer c3a24b8208"})
    endpoint.reply(302, {"location": "https://c3a24b8208.acme.example/"})
    report = registry.hooks.check(hook.id, transport=endpoint)
    assert "redirects" in report.problem
    assert "acme.example" in report.advice
    assert "c3a24b8208" not in repr(report)


def test_check_goes_to_a_real_server(clock: ManualClock) -> None:
    """Through the library's own transport, inside a running loop too, which it must not block on itself."""
    registry = HookRegistry(destinations=DestinationPolicy.local(), clock=clock)
    with WebhookReceiver() as receiver:

        async def inside() -> bool:
            return registry.hooks.check(receiver.url, timeouts=Timeouts(connect=4)).ok

        assert registry.hooks.check(receiver.url).ok
        assert asyncio.run(inside())
        assert [request.method for request in receiver.requests] == ["POST", "POST"]


def test_check_of_an_unknown_hook(registry: HookRegistry, endpoint: ScriptedEndpoint) -> None:
    """`NotFound`, as everywhere, though it runs in another thread."""
    with pytest.raises(NotFound):
        registry.hooks.check(7, transport=endpoint)
