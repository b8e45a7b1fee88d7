"""A world: a file, a receiver, and a fork server whose children live on the file and die."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from procore_hooks.testing import WebhookReceiver

from ..faults.evidence import Evidence, drain_dry, open_registry
from ..scene import untraced_environment
from .fork_server import TIMEOUTS, Life

ROOT = Path(__file__).parents[2]
# Each life begins when the leases of the one before are over.
A_LIFE_AHEAD = 60.0
EVENTS_OF_A_LIFE = 1000


class ForkServer:
    """The process that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.fork_server"],
            cwd=ROOT,
            env=untraced_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def give(self, life: Life) -> int:
        """The signal that ended this life."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(attrs.asdict(life)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the fork server has ended"
        return int(answer)

    def close(self) -> None:
        self._process.communicate(timeout=60)


@attrs.define
class World(Evidence):
    """The evidence of one file, and lives on it, one after another."""

    server: ForkServer = attrs.field(kw_only=True)
    receiver: WebhookReceiver = attrs.field(kw_only=True)
    options: dict[str, str] = attrs.field(factory=dict, kw_only=True)
    lives: int = 0

    def found(self) -> None:
        """Make the file, with its hooks."""
        with open_registry(self.path, **self.options) as registry:
            self.add_hooks(registry, self.receiver.url)

    def live(self, **what: Any) -> int:
        """A life; the signal that ended it."""
        life = Life(
            path=str(self.path),
            notes=str(self.notes),
            ahead=self._ahead.total_seconds(),
            first=self.lives * EVENTS_OF_A_LIFE,
            options=self.options,
            **what,
        )
        self.lives += 1
        return self.server.give(life)

    @property
    def _ahead(self) -> timedelta:
        return timedelta(seconds=self.lives * A_LIFE_AHEAD)

    def look_now(self) -> list[str]:
        """Which final states have changed since the last look."""
        with open_registry(self.path, **self.options) as registry:
            return self.look(registry)

    def end(self, **options: Any) -> list[str]:
        """Deliver until nothing is due; all that is broken then."""
        with open_registry(self.path, self._ahead, **self.options) as registry:
            drain_dry(registry, timeouts=TIMEOUTS)
            return self.verdict(registry, self.receiver.requests, **options)


@pytest.fixture(scope="package")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def world(tmp_path: Path, fork_server: ForkServer, receiver: WebhookReceiver) -> World:
    return World(tmp_path, server=fork_server, receiver=receiver)
