"""The journey of an admin, from the empty page to a delivery that failed and was sent again, in a real browser.

It needs the address of a project's page without hooks, a way to make the app emit a new or changed RFI of that project,
and the receiver that the hook will point to. It knows nothing of the framework around, so that each one can be driven
through it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from procore_hooks.testing import WebhookReceiver

EVIL = "<script>document.title = 'broken'</script>"
BOUND = 15_000  # milliseconds until what is waited for must be there
ABORT = {"webhook-delivery": "abort-message", "content-type": "text/html"}


class Hand(Protocol):
    """How somebody presses and types."""

    def press(self, what: Any) -> None:
        """Press a link, a button or a box."""

    def type(self, what: Any, text: str) -> None:
        """Fill a field."""


class Mouse:
    """Points and clicks."""

    def press(self, what: Any) -> None:
        what.click()

    def type(self, what: Any, text: str) -> None:
        what.fill(text)


class Keyboard:
    """Goes from one thing to the next with the tabulator, and never touches a mouse."""

    MOST_STEPS = 150

    def __init__(self, page: Any) -> None:
        self._page = page

    def press(self, what: Any) -> None:
        self._go_to(what)
        name = what.evaluate("one => one.matches('a, summary') ? 'Enter' : 'Space'")
        self._page.keyboard.press(name)

    def type(self, what: Any, text: str) -> None:
        self._go_to(what)
        self._page.keyboard.press("Control+a")
        self._page.keyboard.type(text)

    def _go_to(self, what: Any) -> None:
        what.wait_for(state="visible", timeout=BOUND)
        for _ in range(self.MOST_STEPS):
            if what.evaluate("one => one === document.activeElement"):
                outline = what.evaluate(
                    "one => [one, '::after'].map(p => getComputedStyle(one, p === one ? null : p).outlineStyle)"
                )
                assert "solid" in outline or "auto" in outline, "what has the focus does not show it"
                return
            self._page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not reach {what}")


def journey(
    page: Any,
    base_url: str,
    emit: Callable[[], object],
    receiver: WebhookReceiver,
    *,
    hand: Hand | None = None,
    look: Callable[[str], object] = lambda name: None,
) -> None:
    """Go through it all, and fail where a person would be stuck.

    Args:
        page: of Playwright's synchronous API.
        base_url: of the project's list of hooks, such as ``http://127.0.0.1:8000/webhooks/companies/8/projects/6778``.
        emit: makes the app emit that an RFI was created or updated; called from this thread.
        receiver: where the hook will point; its script must be empty.
        hand: the mouse, if left out.
        look: called at each stop with its name.
    """
    page.set_default_timeout(BOUND)
    hand = hand or Mouse()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if _is_trouble(message) else None)
    page.goto(base_url)
    _create_hook(page, hand, receiver, look)
    _choose_events(page, hand, look)
    _deliver(page, hand, emit, receiver, look)
    _look_into_the_failure(page, hand, look)
    _pause_and_resume(page, hand, receiver)
    assert errors == []


def _is_trouble(message: Any) -> bool:
    # Chromium tells of the refused form, which is a page with status 422, as of an error.
    return message.type == "error" and "status of 422" not in message.text


def _create_hook(page: Any, hand: Hand, receiver: WebhookReceiver, look: Callable[[str], object]) -> None:
    page.get_by_role("heading", name="No hooks yet").wait_for()
    look("empty")
    hand.press(page.get_by_role("link", name="Create hook"))
    hand.type(page.get_by_label("Notification endpoint"), "ftp://nowhere")
    hand.type(page.get_by_label("Authorization header"), "Bearer c3a24b8208xMiJ9")
    hand.press(page.get_by_role("button", name="Save endpoint"))
    page.get_by_text("Nothing was saved").wait_for()
    assert page.get_by_label("Notification endpoint").input_value() == "ftp://nowhere"
    look("refused")
    hand.type(page.get_by_label("Notification endpoint"), receiver.url)
    hand.press(page.get_by_role("button", name="Save endpoint"))
    page.get_by_text("It took a test POST").wait_for()
    assert page.locator("#secret").inner_text().startswith("whsec_")
    look("created")


def _choose_events(page: Any, hand: Hand, look: Callable[[str], object]) -> None:
    hand.press(page.get_by_role("link", name="Events", exact=True))
    hand.type(page.get_by_label("Search resources"), "rfis")
    page.locator("#r-RFIs").wait_for()
    page.locator(".grid tr[data-name]:visible").nth(1).wait_for(state="detached")  # the others are hidden
    assert page.url.endswith("?q=rfis")
    for action in ("create", "update"):
        box = page.get_by_role("checkbox", name=f"RFIs: {action}")
        hand.press(box)
        page.get_by_text(f"Saved: RFIs: {action}").wait_for()
        assert box.get_attribute("aria-checked") == "true"
    assert re.fullmatch(r"2 of \d+ events", page.locator("#count").inner_text())
    look("events")


def _deliver(
    page: Any, hand: Hand, emit: Callable[[], object], receiver: WebhookReceiver, look: Callable[[str], object]
) -> None:
    hand.press(page.get_by_role("link", name="Deliveries", exact=True))
    page.get_by_text("No deliveries yet").wait_for()
    emit()
    first = page.locator("#rows tr").nth(0)
    first.get_by_text("Delivered").wait_for()
    receiver.reply(400, headers=ABORT, body=EVIL.encode())
    emit()
    page.locator("#rows tr").nth(1).wait_for()
    first.get_by_text("Failed").wait_for()
    assert page.locator("#rows tr").count() == 2
    page.locator("#strip svg").wait_for()
    look("deliveries")
    hand.press(page.get_by_label("Show only failures"))
    page.wait_for_url(re.compile("only_failures=1"))
    assert page.locator("#rows tr").count() == 1


def _look_into_the_failure(page: Any, hand: Hand, look: Callable[[str], object]) -> None:
    hand.press(page.locator("#rows .cover").first)
    page.get_by_role("heading", name=re.compile("RFIs · (create|update)")).wait_for()
    assert '"resource_type": "RFIs"' in page.locator("#body").inner_text()
    look("delivery")
    hand.press(page.get_by_role("link", name="Request headers"))
    page.get_by_role("rowheader", name="authorization").wait_for()
    assert "c3a24b8208" not in page.content()
    hand.press(page.get_by_role("link", name="Response headers"))
    page.get_by_role("rowheader", name="webhook-delivery").wait_for()
    hand.press(page.get_by_role("link", name="Response body"))
    page.locator("#body").get_by_text(EVIL).wait_for()
    assert "broken" not in page.title()
    assert "tab=body" in page.url
    look("response")
    hand.press(page.get_by_role("button", name="Redeliver"))
    page.get_by_text("On its way again").wait_for()
    page.locator("#summary").get_by_text("Delivered").wait_for()
    hand.press(page.get_by_role("link", name="All deliveries"))
    page.locator("#rows tr").nth(2).wait_for()


def _pause_and_resume(page: Any, hand: Hand, receiver: WebhookReceiver) -> None:
    hand.press(page.get_by_role("button", name="Pause"))
    page.get_by_text("Hook paused.").wait_for()
    hand.press(page.get_by_role("button", name="Resume"))
    page.get_by_text("Hook resumed").wait_for()
    seen = len(receiver.requests)
    hand.press(page.get_by_role("button", name="Send a test"))
    page.locator("#summary").get_by_text("Delivered").wait_for()
    assert len(receiver.requests) == seen + 1
