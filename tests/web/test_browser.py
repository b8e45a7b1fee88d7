"""The page in headless Chromium, with a dispatcher and a receiver at work: what people see and can do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from procore_hooks import PROCORE, DestinationPolicy, Dispatcher, HookRegistry, SQLiteStorage
from procore_hooks.testing import WebhookReceiver

from ..scene import wait_until
from .chromium import launched, needed, pages_of, violations
from .conftest import PROJECT, mounted
from .journey import journey


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    with pages_of(browser) as new_page:
        yield new_page


@attrs.frozen
class Stage:
    """An app that is up, with what a journey needs of it."""

    url: str
    registry: HookRegistry
    receiver: WebhookReceiver

    def emit(self) -> None:
        self.registry.emit("RFIs", "update", {"subject": "Door 12"}, resource_id=54321, company_id=8, project_id=6778)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    uvicorn = needed("uvicorn")
    storage = SQLiteStorage(tmp_path / "hooks.db", durability="normal")
    with (
        WebhookReceiver() as receiver,
        HookRegistry(storage, destinations=DestinationPolicy.local(), resources=PROCORE) as registry,
        Dispatcher(registry),
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        config = uvicorn.Config(mounted(registry), log_level="error", ws="none", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started, bound=10)
        yield Stage(f"http://127.0.0.1:{listener.getsockname()[1]}{PROJECT}", registry, receiver)
        server.should_exit = True
        thread.join(10)


def test_journey_with_a_mouse(open_page: Callable[..., Any], stage: Stage) -> None:
    """From the empty page to a failed delivery, its details and its redelivery; axe-core finds nothing on the way."""
    page = open_page()
    journey(page, stage.url, stage.emit, stage.receiver, look=lambda name: _no_violations(page, name))


def _no_violations(page: Any, name: str) -> None:
    assert violations(page) == [], name


def test_german_fits_any_screen(open_page: Callable[..., Any], stage: Stage) -> None:
    """The longer words fit 360 pixels, and widths where the layout has just changed, whatever a receiver answers."""
    hook = stage.registry.hooks.create(
        f"{stage.receiver.url}{'a-long-path/' * 12}", namespace="n" * 100, company_id=8, project_id=6778
    )
    stage.registry.triggers.create(hook.id, "RFIs", "update")
    stage.receiver.reply(500, headers={"x-long": "y" * 400}, body=b"z" * 400)
    stage.emit()
    wait_until(lambda: stage.registry.hooks.get(hook.id).failing_since, bound=10)
    (delivery,) = stage.registry.deliveries.list(hook.id)
    page = open_page(locale="de-DE", color_scheme="dark")
    tabs = [f"/deliveries/{delivery.id}?tab={tab}" for tab in ("payload", "request", "response", "body")]
    for part in ("/..", "", "/last-day", "/events", "/deliveries", *tabs):
        page.goto(f"{stage.url}/hooks/{hook.id}{part}")
        for width in (360, 750, 940):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (part, width)
        assert page.locator("html").get_attribute("lang") == "de"


def test_news_appear_by_themselves(open_page: Callable[..., Any], stage: Stage) -> None:
    """New deliveries come on top of the pages loaded so far; ticks of somebody else show; a deleted hook is gone."""
    registry = stage.registry
    hook = registry.hooks.create(stage.receiver.url, namespace="a", company_id=8, project_id=6778)
    trigger = registry.triggers.create(hook.id, "RFIs", "update")
    for _ in range(30):
        stage.emit()
    wait_until(lambda: not registry.deliveries.list(hook.id, status="enqueued"), bound=10)
    page = open_page()
    page.goto(f"{stage.url}/hooks/{hook.id}/deliveries")
    rows = page.locator("#rows tr")
    assert rows.count() == 25
    page.get_by_role("link", name="More deliveries").click()
    rows.nth(29).wait_for()
    assert page.locator("#more").count() == 0
    page.locator("#rows .cover").nth(3).focus()
    focused = page.evaluate("document.activeElement.id")
    stage.emit()
    rows.nth(30).wait_for()
    rows.first.get_by_text("Delivered").wait_for()
    ids = [int(row.get_attribute("data-id")) for row in rows.all()]
    assert ids == sorted(ids, reverse=True)
    assert page.evaluate("document.activeElement.id") == focused

    page.goto(f"{stage.url}/hooks/{hook.id}/events")
    registry.triggers.delete(trigger.id)
    registry.triggers.create(hook.id, "Submittals", "create")
    page.locator('.box[data-key="r|create|Submittals"][aria-checked="true"]').wait_for()
    assert page.locator('.box[data-key="r|update|RFIs"]').get_attribute("aria-checked") == "false"
    page.get_by_text("1 of 275 events").wait_for()
    registry.hooks.delete(hook.id)
    page.get_by_role("heading", name="Not found").wait_for()


def test_page_says_that_it_has_no_connection(open_page: Callable[..., Any], stage: Stage) -> None:
    """Without the server the page says so, a tick is shown as not saved, and both pass when it is back."""
    hook = stage.registry.hooks.create(stage.receiver.url, namespace="a", company_id=8, project_id=6778)
    page = open_page()
    page.goto(f"{stage.url}/hooks/{hook.id}/events?q=rfis")
    box = page.get_by_role("checkbox", name="RFIs: update")
    page.context.set_offline(True)
    page.get_by_text("This page is not up to date").wait_for()
    box.click()
    page.get_by_text("Not saved: RFIs: update").wait_for()
    assert box.get_attribute("aria-checked") == "false"
    page.context.set_offline(False)
    box.click()
    page.get_by_text("✓ Saved: RFIs: update").wait_for()
    assert box.get_attribute("aria-checked") == "true"


def test_without_scripts(open_page: Callable[..., Any], stage: Stage) -> None:
    """A browser that runs no script makes a hook, ticks a box, and sees a delivery."""
    page = open_page(java_script_enabled=False)
    page.goto(stage.url)
    page.get_by_role("link", name="Create hook").click()
    page.get_by_label("Notification endpoint").fill(stage.receiver.url)
    page.get_by_role("button", name="Save endpoint").click()
    page.get_by_text("It took a test POST").wait_for()
    page.get_by_role("link", name="Events", exact=True).click()
    page.get_by_role("checkbox", name="RFIs: update").click()
    page.locator('.box[data-key="r|update|RFIs"][aria-checked="true"]').wait_for()
    assert page.url.endswith("#r-RFIs")
    stage.emit()
    wait_until(lambda: stage.registry.deliveries.list(status="delivered"), bound=10)
    page.get_by_role("link", name="Deliveries", exact=True).click()
    page.locator("#rows .cover").click()
    page.get_by_role("link", name="Response headers").click()
    assert "tab=response" in page.url
    page.get_by_role("link", name="All deliveries").click()
    page.get_by_role("link", name="Last 24 hours").click()
    page.get_by_role("img", name="Last 24 hours: 1 delivered").wait_for()


def test_late_news_do_not_undo_a_tick(open_page: Callable[..., Any], stage: Stage) -> None:
    """News that were read before a tick, and come after its answer, do not show the box as it was before."""
    hook = stage.registry.hooks.create(stage.receiver.url, namespace="a", company_id=8, project_id=6778)
    page = open_page()
    held: list[tuple[Any, Any]] = []

    def hold(route: Any) -> None:
        if "x-unless-version" in route.request.headers:
            held.append((route, route.fetch(headers={**route.request.headers, "x-unless-version": "none"})))
        else:
            route.continue_()

    def until_held(number: int) -> None:
        wait_until(lambda: page.wait_for_timeout(10) or len(held) == number, bound=10)

    page.route("**/events", hold)
    page.goto(f"{stage.url}/hooks/{hook.id}/events")
    until_held(1)
    box = page.get_by_role("checkbox", name="RFIs: update")
    box.click()
    page.get_by_text("Saved: RFIs: update").wait_for()
    route, before = held[0]
    route.fulfill(response=before)
    until_held(2)
    assert box.get_attribute("aria-checked") == "true"
    page.unroute_all(behavior="ignoreErrors")
