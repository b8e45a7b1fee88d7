"""The journey through the page in the example app of each framework, served as its documentation says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from procore_hooks.testing import WebhookReceiver

from ..integrations.servers import PASSWORD, create_rfi, serving, signed_in
from .chromium import launched, pages_of
from .journey import Keyboard, Mouse, journey

PAGE = "/webhooks/companies/8/projects/6778"


@attrs.frozen
class Case:
    """An example, how it is served, and how the journey through it goes."""

    example: str
    command: str
    options: tuple[str, ...] = ()
    width: int = 1280
    keyboard: bool = False


CASES = {
    "fastapi": Case("fastapi_app", "uvicorn"),
    "flask": Case("flask_app", "gunicorn", width=360, keyboard=True),
    "django": Case("django_site", "manage.py", ("--noreload",), width=360),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.mark.parametrize("framework", CASES)
def test_journey(framework: str, browser: Any, tmp_path: Path) -> None:
    """From the empty page to a failed delivery and its redelivery, in each framework.

    Once without a mouse: everything is reached by the tabulator, and shows that it has the focus. On a narrow screen no
    page is wider than it.
    """
    case = CASES[framework]
    with (
        pages_of(browser) as open_page,
        WebhookReceiver() as receiver,
        serving(case.example, case.command, *case.options, database=tmp_path / "rfis.db") as server,
    ):
        server.wait_until_it_answers()
        with contextlib.closing(signed_in(server)) as client:
            page = open_page(case.width, 800, http_credentials={"username": "admin", "password": PASSWORD})
            page.context.add_cookies(
                [{"name": one.name, "value": one.value, "url": server.url} for one in client.cookies.jar]
            )

            def emit() -> None:
                assert create_rfi(server, client, "Door 12").status_code < 400

            def fits(name: str) -> None:
                # A text may be found before the style sheet is there.
                page.wait_for_load_state("load")
                assert page.evaluate("document.documentElement.scrollWidth") <= case.width, name

            hand = Keyboard(page) if case.keyboard else Mouse()
            journey(page, server.url + PAGE, emit, receiver, hand=hand, look=fits)
