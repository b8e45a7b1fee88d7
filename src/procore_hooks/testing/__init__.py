"""What apps, and this library itself, test with: a clock to turn, and endpoints that answer by a script.

Nothing is imported before it is used: pytest loads `procore_hooks.testing.pytest_plugin` in every run, also where
no test asks for a webhook, and `StorageContract` needs pytest, which the rest does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clock import ManualClock
    from .endpoint import ScriptedEndpoint
    from .receiver import WebhookReceiver
    from .script import ReceivedRequest
    from .storage_contract import StorageContract

__all__ = ["ManualClock", "ReceivedRequest", "ScriptedEndpoint", "StorageContract", "WebhookReceiver"]

_HOME = {
    "ManualClock": "clock",
    "ReceivedRequest": "script",
    "ScriptedEndpoint": "endpoint",
    "StorageContract": "storage_contract",
    "WebhookReceiver": "receiver",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
