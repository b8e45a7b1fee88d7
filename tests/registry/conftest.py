"""A registry over each storage, by the time of a clock that stands still, and an endpoint that answers by a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import Dispatcher, DrainReport, Hook, HookRegistry, MemoryStorage, SQLiteStorage, Storage
from procore_hooks.testing import ManualClock, ScriptedEndpoint


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the SQLite storage."""
    return tmp_path / "hooks.db"


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, path: Path) -> Storage:
    # "normal" spares the disk: no test here cuts the power.
    return MemoryStorage() if request.param == "memory" else SQLiteStorage(path, durability="normal")


@pytest.fixture
def registry(storage: Storage, clock: ManualClock) -> Iterator[HookRegistry]:
    with HookRegistry(storage, clock=clock) as registry:
        yield registry


@pytest.fixture
def endpoint() -> ScriptedEndpoint:
    return ScriptedEndpoint()


@pytest.fixture
def drain(registry: HookRegistry, endpoint: ScriptedEndpoint) -> Callable[[], DrainReport]:
    """Sends what is due to the endpoint."""
    return Dispatcher(registry, transport=endpoint).drain


@pytest.fixture
def listening(registry: HookRegistry) -> Callable[..., Hook]:
    """Makes a hook that listens for updates of RFIs, or for the pairs given."""

    def make(*pairs: tuple[str, str], **fields: Any) -> Hook:
        hook = registry.hooks.create(
            fields.pop("url", "https://hooks.acme.example/in"), namespace=fields.pop("namespace", "acme"), **fields
        )
        for resource, action in pairs or (("RFIs", "update"),):
            registry.triggers.create(hook.id, resource, action)
        return hook

    return make
