"""Headless Chromium, as the system's packages bring it, driven by Playwright."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .journey import BOUND

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Continuous integration says so when it has seen to it.
IS_PROMISED = os.environ.get("PROCORE_HOOKS_BROWSER") == "yes"


def needed(module: str) -> Any:
    """A package that a test needs. Where it is missing the test is skipped, unless a browser was promised."""
    return importlib.import_module(module) if IS_PROMISED else pytest.importorskip(module)


@contextmanager
def launched() -> Iterator[Any]:
    """A browser, of Playwright's synchronous API. Without Chromium the test is skipped, or fails if it was promised."""
    if CHROMIUM is None:
        (pytest.fail if IS_PROMISED else pytest.skip)("no Chromium is installed: apt-get install chromium")
    with needed("playwright.sync_api").sync_playwright() as playwright:
        # Chromium's sandbox needs rights that a container seldom gives; the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def pages_of(browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens a page in a context of its own; English, wide and light unless told otherwise."""
    contexts = []

    def new_page(width: int = 1280, height: int = 900, **options: Any) -> Any:
        size = {"width": width, "height": height}
        contexts.append(browser.new_context(viewport=size, **{"locale": "en-GB", **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(BOUND)
        return page

    yield new_page
    for context in contexts:
        context.close()


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong with a page, in light and in dark."""
    axe = needed("axe_playwright_python.sync_playwright").Axe()
    # What differs in the dark are the colours.
    rules: dict[str, dict[str, Any]] = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}
    found = []
    for scheme, options in rules.items():
        page.emulate_media(color_scheme=scheme)
        for one in axe.run(page, options=options).response["violations"]:
            found += [f"{scheme}: {one['id']}: {node['html'][:120]} {node['failureSummary']}" for node in one["nodes"]]
    return found
