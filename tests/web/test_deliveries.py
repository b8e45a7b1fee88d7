"""The list of deliveries, the details of one, and what can be done about them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from procore_hooks import Hook, HookRegistry
from procore_hooks.testing import ManualClock, ScriptedEndpoint

from .conftest import Visitor, shown

EVIL = "<script>alert(1)</script>"
ABORT = {"webhook-delivery": "abort-message"}


def rows(page: Any) -> list[int]:
    """The ids of the deliveries on a page."""
    return [int(number) for number in re.findall(r'id="row-(\d+)"', page.text)]


def test_empty_list_says_what_will_come(admin: Visitor, hook: Hook) -> None:
    """Before the first delivery the page says so; with filters it says that none fits."""
    assert "No deliveries yet" in shown(admin.get(f"hooks/{hook.id}/deliveries"))
    assert "All is well" in shown(admin.get(f"hooks/{hook.id}/deliveries?only_failures=1"))
    assert "No delivery fits" in shown(admin.get(f"hooks/{hook.id}/deliveries?status=failed"))


def test_newest_first_25_at_a_time(admin: Visitor, hook: Hook, emit: Callable[..., int]) -> None:
    """The link leads on, page after page, without a gap and without one twice, while new ones arrive."""
    ids = [emit() for _ in range(60)]
    page = admin.get(f"hooks/{hook.id}/deliveries")
    seen = rows(page)
    assert seen == ids[:-26:-1]
    while more := re.search(r'id="more" href="([^"]+)"', page.text):
        emit()
        page = admin.get(more[1].replace("&amp;", "&"))
        seen += rows(page)
    assert seen == ids[::-1]


def test_filters_are_in_the_address(
    admin: Visitor, hook: Hook, emit: Callable[..., int], drain: Callable[[], Any], endpoint: ScriptedEndpoint
) -> None:
    """Failures, status, resource and resource id narrow the list; the form shows them; pages go on with them."""
    endpoint.reply(400, headers=ABORT)
    failed = emit(resource_id=1)
    good = emit(resource_id=2, action="create")
    drain()
    waiting = emit(resource_id=1)
    path = f"hooks/{hook.id}/deliveries"
    assert rows(admin.get(path)) == [waiting, good, failed]
    assert rows(admin.get(f"{path}?only_failures=1")) == [failed]
    assert rows(admin.get(f"{path}?status=delivered")) == [good]
    assert rows(admin.get(f"{path}?resource_id=1")) == [waiting, failed]
    assert rows(admin.get(f"{path}?resource=RFIs&resource_id=1&status=enqueued")) == [waiting]
    assert rows(admin.get(f"{path}?resource=Submittals")) == []
    page = admin.get(f"{path}?only_failures=1&status=failed&resource=RFIs&resource_id=1")
    assert 'name="only_failures" value="1" checked' in page.text
    assert '<option value="failed" selected>' in page.text
    many = [emit(resource_id=7) for _ in range(30)]
    more = re.search(r'id="more" href="([^"]+)"', admin.get(f"{path}?resource_id=7").text)
    assert more
    assert rows(admin.get(more[1].replace("&amp;", "&"))) == many[4::-1]


@pytest.mark.parametrize("query", ["resource=*", "resource_id=%07", "cursor=zz", "resource_id=" + "9" * 300])
def test_filter_that_does_not_fit_says_why(admin: Visitor, hook: Hook, query: str) -> None:
    """A filter that the registry refuses is an error on the page, and stays in its field."""
    page = admin.get(f"hooks/{hook.id}/deliveries?{query}")
    assert page.status_code == 422
    assert "This filter does not fit" in shown(page)


@pytest.mark.parametrize(
    "query", ["status=nothing", "only_failures=x", "count=5", "done=<x>&count=9", "done=recovered"]
)
def test_odd_query_is_ignored(admin: Visitor, hook: Hook, query: str) -> None:
    """What the page does not know in an address changes nothing."""
    page = admin.get(f"hooks/{hook.id}/deliveries?{query}")
    assert page.status_code == 200
    assert "banner" not in page.text


def test_details_show_what_went_out_and_what_came_back(
    admin: Visitor, hook: Hook, emit: Callable[..., int], drain: Callable[[], Any], endpoint: ScriptedEndpoint
) -> None:
    """Payload laid out, request headers masked, response headers and body, each in a tab with an address."""
    endpoint.reply(503, headers={"x-why": "upstream"}, body=b'{"error":"down","id":9007199254740993}')
    number = emit({"subject": "Door 12", "cost": 1.10})
    drain()
    path = f"hooks/{hook.id}/deliveries/{number}"
    payload = shown(admin.get(path))
    assert '"data": { "subject": "Door 12", "cost": 1.1 }' in payload
    assert "Attempt 1 503 · failed, retried later" in payload
    assert "Next attempt" in payload
    headers = shown(admin.get(f"{path}?tab=request"))
    assert "authorization *****xMiJ9" in headers
    assert "c3a24b8208" not in headers
    assert "webhook-id" in headers
    assert "x-why upstream" in shown(admin.get(f"{path}?tab=response"))
    assert '"id": 9007199254740993' in shown(admin.get(f"{path}?tab=body"))
    assert admin.get(f"{path}?tab=nothing").status_code == 200


def test_each_attempt_has_its_address(
    admin: Visitor,
    hook: Hook,
    emit: Callable[..., int],
    drain: Callable[[], Any],
    endpoint: ScriptedEndpoint,
    clock: ManualClock,
) -> None:
    """The timeline lists the attempts, oldest first; the tabs show the one that was chosen, or else the last."""
    endpoint.reply(500, body=b"first")
    endpoint.reply(502, body=b"second")
    number = emit()
    drain()
    clock.advance(timedelta(minutes=1))
    drain()
    clock.advance(timedelta(minutes=1))
    drain()
    path = f"hooks/{hook.id}/deliveries/{number}"
    page = admin.get(f"{path}?tab=body")
    assert re.findall(r'id="attempt-(\d)"', page.text) == ["1", "2", "3"]
    assert "The body is empty." in shown(page)
    assert "first" in shown(admin.get(f"{path}?tab=body&attempt=1"))
    assert "second" in shown(admin.get(f"{path}?tab=body&attempt=2"))
    assert admin.get(f"{path}?tab=body&attempt=99").status_code == 200


def test_before_the_first_attempt_the_payload_is_shown(
    admin: Visitor, registry: HookRegistry, hook: Hook, emit: Callable[..., int]
) -> None:
    """Nothing went out yet: the event's payload is there, each tab says so, and so does what comes next."""
    number = emit({"subject": "Door 12"})
    for tab in ("payload", "request", "response", "body"):
        page = shown(admin.get(f"hooks/{hook.id}/deliveries/{number}?tab={tab}"))
        assert "Not sent yet." in page
        assert "due now" in page
    registry.hooks.disable(hook.id)
    assert "when the hook is resumed" in shown(admin.get(f"hooks/{hook.id}/deliveries/{number}"))


def test_nothing_of_a_receiver_is_markup(
    admin: Visitor, hook: Hook, emit: Callable[..., int], drain: Callable[[], Any], endpoint: ScriptedEndpoint
) -> None:
    """Script in a body, a header, a payload or a resource's id is text on every page that shows it."""
    endpoint.reply(400, headers={**ABORT, "x-evil": f'"{EVIL}'}, body=EVIL.encode())
    number = emit({"subject": EVIL, EVIL: f"'{EVIL}\""}, resource_id=f'"><{EVIL}')  # type: ignore[arg-type]
    drain()
    path = f"hooks/{hook.id}/deliveries"
    tabs = [f"{path}/{number}?tab={tab}" for tab in ("payload", "request", "response", "body")]
    for address in (path, *tabs, f"{path}?resource={EVIL}&resource_id={EVIL}", f"hooks/{hook.id}/events?q={EVIL}"):
        page = admin.get(address)
        assert "<script>alert" not in page.text
        assert page.text.count("<script") == 1
        assert "alert(1)" in shown(page) or "alert(1)" in page.text


def test_body_that_is_no_text(
    admin: Visitor, hook: Hook, emit: Callable[..., int], drain: Callable[[], Any], endpoint: ScriptedEndpoint
) -> None:
    """Bytes that are not UTF-8, and control characters, are shown somehow and break nothing."""
    endpoint.reply(200, body=bytes(range(256)))
    number = emit()
    drain()
    page = admin.get(f"hooks/{hook.id}/deliveries/{number}?tab=body")
    assert page.status_code == 200
    assert "ABCDEFG" in shown(page)


def test_large_payload_is_cut_and_can_be_downloaded(
    registry: HookRegistry, admin: Visitor, hook: Hook, emit: Callable[..., int], drain: Callable[[], Any]
) -> None:
    """A page shows at most 256 KiB of a payload and says so; the file has it to the byte."""
    payload = {"text": "x" * 252_000, "more": "y" * 10_000}
    number = emit(payload)
    drain()
    (attempt,) = registry.deliveries.get(number).attempts
    path = f"hooks/{hook.id}/deliveries/{number}"
    assert f"Shown are the first 262144 of {len(attempt.request_body)} bytes." in shown(admin.get(path))
    file = admin.get(f"{path}/payload")
    assert file.content == attempt.request_body
    assert json.loads(file.content)["data"] == payload
    assert file.headers["content-disposition"].startswith("attachment")
    assert file.headers["content-type"] == "application/octet-stream"


def test_delivery_of_another_hook_is_not_found(
    admin: Visitor, registry: HookRegistry, hook: Hook, emit: Callable[..., int]
) -> None:
    """A delivery is found under its own hook only, also by those who would send it again or download it."""
    number = emit()
    other = registry.hooks.create("https://b.example/", namespace="b", company_id=8, project_id=6778)
    for part in ("", "/payload"):
        assert admin.get(f"hooks/{other.id}/deliveries/{number}{part}").status_code == 404
    assert admin.post(f"hooks/{other.id}/deliveries/{number}/redeliver").status_code == 404
    assert len(registry.deliveries.list()) == 1


def test_redeliver(
    admin: Visitor, registry: HookRegistry, hook: Hook, emit: Callable[..., int], drain: Callable[[], Any]
) -> None:
    """A final delivery can be sent again, and leads to the new one, which names the old; a waiting one cannot."""
    number = emit()
    assert "Redeliver" not in shown(admin.get(f"hooks/{hook.id}/deliveries/{number}"))
    refused = admin.post(f"hooks/{hook.id}/deliveries/{number}/redeliver")
    assert refused.status_code == 409
    assert "is enqueued" in shown(refused)
    drain()
    page = admin.follow(admin.post(f"hooks/{hook.id}/deliveries/{number}/redeliver"))
    assert f"Redelivery of {number}" in shown(page)
    assert registry.deliveries.list()[0].redelivery_of == number


def test_send_a_test(admin: Visitor, registry: HookRegistry, hook: Hook, drain: Callable[[], Any]) -> None:
    """It leads to the delivery of a test event; of a paused hook it is refused, in words."""
    page = admin.follow(admin.post(f"hooks/{hook.id}/test"))
    assert "A test is on its way." in shown(page)
    assert drain().delivered == 1
    registry.hooks.disable(hook.id)
    refused = admin.post(f"hooks/{hook.id}/test")
    assert refused.status_code == 409
    assert "is disabled" in shown(refused)


def test_recover_failures_since(
    admin: Visitor,
    registry: HookRegistry,
    hook: Hook,
    emit: Callable[..., int],
    drain: Callable[[], Any],
    endpoint: ScriptedEndpoint,
    clock: ManualClock,
) -> None:
    """It sends again what failed since the moment, each event once, and says how many."""
    path = f"hooks/{hook.id}/deliveries"
    for _ in range(3):
        endpoint.reply(400, headers=ABORT)
        emit()
        drain()
        clock.advance(timedelta(hours=1))
    page = admin.follow(admin.post(path, since="2025-01-01T01:00"))
    assert "2 failures are on their way again." in shown(page)
    assert "There was nothing to recover" in shown(admin.follow(admin.post(path, since="2025-01-01T01:00:00")))
    page = admin.follow(admin.post(path, since="2025-01-01T00:00:00"))
    assert "1 failure is on its way again." in shown(page)
    assert len(registry.deliveries.list(hook.id, status="enqueued")) == 3


@pytest.mark.parametrize(
    "since", ["", "yesterday", EVIL, "2999-01-01T00:00", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00+23:00"]
)
def test_wrong_moment_stands_beside_its_field(admin: Visitor, registry: HookRegistry, hook: Hook, since: str) -> None:
    """A moment that is none, or one to come, is an error beside the field, and nothing is sent."""
    page = admin.post(f"hooks/{hook.id}/deliveries", since=since)
    assert page.status_code == 422
    assert 'id="since-wrong"' in page.text
    assert EVIL not in page.text
    assert len(registry.deliveries.list()) == 0


def test_unchanged_list_is_not_sent_again(
    admin: Visitor, hook: Hook, emit: Callable[..., int], drain: Callable[[], Any]
) -> None:
    """Asked for news, list and details answer 204 until a delivery comes or changes."""
    number = emit()
    for path in (f"hooks/{hook.id}/deliveries", f"hooks/{hook.id}/deliveries/{number}", f"hooks/{hook.id}", ""):
        version = re.search(r'data-live="(\w+)"', admin.get(path).text)
        assert version
        answer = admin.get(path, headers={"x-unless-version": version[1]})
        assert (answer.status_code, answer.content) == (204, b"")
        assert admin.get(path, headers={"x-unless-version": "older"}).status_code == 200
    page = admin.get(f"hooks/{hook.id}/deliveries")
    version = re.search(r'data-live="(\w+)"', page.text)
    drain()
    assert version
    answer = admin.get(f"hooks/{hook.id}/deliveries", headers={"x-unless-version": version[1]})
    assert "Delivered" in shown(answer)


def test_strip_of_the_last_day(
    admin: Visitor,
    hook: Hook,
    emit: Callable[..., int],
    drain: Callable[[], Any],
    endpoint: ScriptedEndpoint,
    clock: ManualClock,
) -> None:
    """A bar for each quarter of an hour with deliveries, its counts in words, and the sums; older ones are left out."""
    emit()
    drain()
    clock.advance(timedelta(hours=24))
    endpoint.reply(400, headers=ABORT)
    emit()
    emit()
    drain()
    clock.advance(timedelta(minutes=20))
    emit()
    page = admin.get(f"hooks/{hook.id}/last-day")
    assert re.findall(r"<title>([^<]*UTC[^<]*)</title>", page.text) == [
        "2025-01-02 00:00 UTC: 1 delivered, 0 waiting, 1 failed",
        "2025-01-02 00:15 UTC: 0 delivered, 1 waiting, 0 failed",
    ]
    assert "Last 24 hours: 1 delivered, 1 waiting, 1 failed or discarded" in page.text
