"""Every Python block of the README and of the docs runs, page by page, and prints what the page says it prints."""

from __future__ import annotations

import contextlib
import doctest
import io
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

import procore_hooks
from procore_hooks import HookRegistry
from procore_hooks.testing import WebhookReceiver

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OUTPUT = "text"  # the language of the blocks that hold what the blocks before them print


class Output(io.StringIO):
    """What a page has printed since its last block of output."""

    def take(self) -> str:
        printed = self.getvalue()
        self.seek(0)
        self.truncate()
        return printed


def parse(page: Path, output: Output) -> Document:
    """The page, its blocks in the order in which they stand."""

    def compare(example: Example) -> str | None:
        printed = output.take()
        if doctest.OutputChecker().check_output(str(example.parsed), printed, doctest.ELLIPSIS):
            return None
        return f"this was expected:\n{example.parsed}\nand this was printed:\n{printed}"

    return Sybil([PythonCodeBlockParser(), CodeBlockParser(OUTPUT, compare)]).parse(page)


def close(namespace: dict[str, Any]) -> None:
    """Close what the page has opened. A reader's interpreter would end here."""
    for value in reversed(list(namespace.values())):
        if isinstance(value, HookRegistry | WebhookReceiver | sqlite3.Connection):
            value.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_runs_as_printed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who types the blocks of a page into one interpreter, in an empty folder, sees what the page shows."""
    monkeypatch.chdir(tmp_path)
    # Where the package is found from, for the processes that a page starts.
    monkeypatch.setenv("PYTHONPATH", str(Path(procore_hooks.__file__).parents[1]))
    output = Output()
    document = parse(page, output)
    try:
        with contextlib.redirect_stdout(output):
            for example in document.examples():
                example.evaluate()
    finally:
        close(document.namespace)


def test_shown_output_is_compared(tmp_path: Path) -> None:
    """A page that shows another output than it prints fails."""
    page = tmp_path / "page.md"
    page.write_text("```python\nprint('delivered 200')\n```\n\n```text\ndelivered 500\n```\n")
    output = Output()
    with contextlib.redirect_stdout(output):
        python, text = parse(page, output).examples()
        python.evaluate()
        with pytest.raises(AssertionError, match=r"(?s)delivered 500.*delivered 200"):
            text.evaluate()
