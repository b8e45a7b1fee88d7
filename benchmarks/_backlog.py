"""A registry on a file, a backlog in it, and how fast a dispatcher drains it. By public names only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from procore_hooks import DestinationPolicy, Dispatcher, EventInput, Hook, HookRegistry, SQLiteStorage

from ._harness import require, timed

__all__ = ["PAYLOAD", "PAYLOAD_JSON", "drain_rate", "emit", "emit_and_drain", "listen", "opened"]

PAYLOAD: Final = {"subject": "Door 12", "text": "x" * 991}
PAYLOAD_JSON: Final = json.dumps(PAYLOAD, separators=(",", ":")).encode()
_AT_ONCE: Final = 500


@contextlib.contextmanager
def opened(path: Path, durability: Literal["full", "normal"] = "normal") -> Iterator[HookRegistry]:
    """A registry on this file that may deliver to loopback."""
    storage = SQLiteStorage(path, durability=durability)
    with HookRegistry(storage, destinations=DestinationPolicy.local()) as registry:
        yield registry


def listen(registry: HookRegistry, url: str, hooks: int = 1, max_in_flight: int = 100, resource: str = "RFIs") -> Hook:
    """So many hooks that want every update of `resource`; the first of them, whose id the others' follow."""
    made = []
    for number in range(hooks):
        hook = registry.hooks.create(f"{url}/{number}", namespace="benchmark", max_in_flight=max_in_flight)
        registry.triggers.create(hook.id, resource, "update")
        made.append(hook)
    return made[0]


def emit(registry: HookRegistry, number: int, resource: str = "RFIs") -> None:
    """So many events of 1 KB."""
    one = EventInput(resource, "update", PAYLOAD, resource_id=54321, company_id=8, project_id=6778, user_id=42)
    for start in range(0, number, _AT_ONCE):
        registry.emit_many([one] * min(_AT_ONCE, number - start))


def drain_rate(dispatcher: Dispatcher, number: int) -> float:
    """Deliveries per second of a drain, from its call to its return, of the `number` that wait."""
    reports = []
    seconds = timed(lambda: reports.append(dispatcher.drain()))
    require(reports[0].delivered == number, f"{number} waited, and this came of them: {reports[0]}")
    return number / seconds


def emit_and_drain(registry: HookRegistry, number: int, max_in_flight: int = 100) -> float:
    """The same, of `number` that are emitted first, by a new dispatcher."""
    emit(registry, number)
    return drain_rate(Dispatcher(registry, max_in_flight=max_in_flight), number)
