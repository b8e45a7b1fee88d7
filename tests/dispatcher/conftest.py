"""Registries with a hook, endpoints that a test holds in its hand, and waits with a bound."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from procore_hooks import DestinationPolicy, HookRegistry, MemoryStorage, SQLiteStorage, Storage
from procore_hooks.testing import ManualClock

from .. import scene
from ..scene import URL as URL
from ..scene import hook_for as hook_for

BOUND = 20.0  # seconds after which a test that waits for something has failed
wait_until = partial(scene.wait_until, bound=BOUND)


def emit(registry: HookRegistry, payload: Any = None) -> int:
    """Emit an event that one hook gets, and return the delivery's id."""
    (delivery_id,) = registry.emit("RFIs", "update", payload).delivery_ids
    return delivery_id


class HeldEndpoint(httpx.AsyncBaseTransport):
    """Takes every request, and answers none before the test says so."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[httpx.Response]]] = []
        self.requests: list[httpx.Request] = []
        self.most_at_once = 0
        self._at_once = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[httpx.Response] = loop.create_future()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        with self._changed:
            self.requests.append(request)
            self._open.append((loop, answer))
            self._changed.notify_all()
        try:
            return await answer
        finally:
            self._at_once -= 1

    def wait_for(self, count: int) -> None:
        """Wait until so many requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, BOUND), f"{len(self.requests)} came"

    def answer(self, index: int, status: int = 200) -> None:
        """Answer the request of this index."""
        loop, answer = self._open[index]
        loop.call_soon_threadsafe(lambda: answer.done() or answer.set_result(httpx.Response(status)))


def answering(status: int = 200, headers: dict[str, str] | None = None, content: Any = b"") -> httpx.MockTransport:
    """An endpoint that gives this answer, always."""
    return httpx.MockTransport(lambda request: httpx.Response(status, headers=headers, content=content))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each of the storages that need no server."""
    if request.param == "memory":
        return MemoryStorage()
    return SQLiteStorage(tmp_path / "hooks.db", durability="normal")


@pytest.fixture
def registry(storage: Storage) -> Iterator[HookRegistry]:
    """A registry by the machine's clock, over each of the storages."""
    with HookRegistry(storage, destinations=DestinationPolicy.local()) as registry:
        yield registry


@pytest.fixture
def by_hand(storage: Storage, clock: ManualClock) -> Iterator[HookRegistry]:
    """A registry whose clock stands still until it is told, over each of the storages."""
    with HookRegistry(storage, destinations=DestinationPolicy.local(), clock=clock) as registry:
        yield registry


@pytest.fixture
def plain() -> Iterator[HookRegistry]:
    """A registry in memory, by the machine's clock, where the storage does not matter."""
    with HookRegistry(destinations=DestinationPolicy.local()) as registry:
        yield registry
