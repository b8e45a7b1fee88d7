"""A registry over each storage, by the time of a clock that stands still, and an endpoint that answers by a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import (
    Dispatcher,
    DrainReport,
    Hook,
    HookRegistry,
    InvalidInput,
    MemoryStorage,
    SQLiteStorage,
    Storage,
)
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


def stored(registry: HookRegistry) -> list[object]:
    """All that a registry holds."""
    hooks = registry.hooks.list(page_size=1000).items
    triggers = [trigger for hook in hooks for trigger in registry.triggers.list(hook.id)]
    return [*hooks, *triggers, *registry.deliveries.list(page_size=1000)]


@pytest.fixture
def refused(registry: HookRegistry, listening: Callable[..., Hook]) -> Callable[..., None]:
    """Holds that a call, on a hook that gets every event, is refused with an error of this type, field and words.

    The error is a ValueError, says all on one line and no secret, and nothing has changed.
    """
    hook = listening(("*", "*"))
    listening()
    registry.emit("RFIs", "update")

    def check(
        call: Callable[[HookRegistry, int], object], kind: type[InvalidInput], field: str, words: Iterable[str]
    ) -> None:
        before = stored(registry)
        with pytest.raises(kind) as caught:
            call(registry, hook.id)
        error = caught.value
        assert type(error) is kind
        assert isinstance(error, ValueError)
        assert error.field == field
        text = str(error)
        assert "\n" not in text
        assert len(text) < 500
        assert [word for word in words if word not in text] == []
        assert [shown for shown in (text, repr(error), *map(str, error.args)) if "hunter2" in shown] == []
        assert stored(registry) == before

    return check
