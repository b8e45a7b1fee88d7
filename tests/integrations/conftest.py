"""A file for each test that an example keeps its rows and hooks in."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from procore_hooks.testing import WebhookReceiver

from .servers import serving


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the Django site, once its one documented command has made the tables and the admin."""
    path = tmp_path_factory.mktemp("migrated") / "rfis.db"
    with serving("django_site", "manage.py", "--noreload", database=path) as server:
        server.wait_until_it_answers()
        server.terminate()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # for those who copy the file alone
    return path


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """The file for an example: one that is not there, or for the Django site one that was migrated."""

    def path_for(example: str) -> Path:
        path = tmp_path / "rfis.db"
        if example == "django_site":
            shutil.copy(request.getfixturevalue("migrated"), path)
        return path

    return path_for
