"""A file with hooks, a receiver that hears them, and the law that is read at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from procore_hooks import HookRegistry
from procore_hooks.testing import WebhookReceiver

from .evidence import Evidence, Notebook, open_registry


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(tmp_path)


@pytest.fixture
def registry(evidence: Evidence) -> Iterator[HookRegistry]:
    """A registry on the file, by a clock that can be set forward."""
    with open_registry(evidence.path) as registry:
        yield registry


@pytest.fixture
def notebook(evidence: Evidence) -> Iterator[Notebook]:
    notebook = Notebook(evidence.notes)
    yield notebook
    notebook.close()
