"""Outgoing webhooks as a library: declare hooks and triggers, emit events, and they are delivered.

See `HookRegistry` and `Dispatcher`, and `procore_hooks.testing` for tests.
"""

from typing import TYPE_CHECKING

from ._async_registry import AsyncHookRegistry
from ._clock import Clock
from ._core.destinations import DestinationPolicy, Judgement
from ._core.models import (
    Attempt,
    AttemptOutcome,
    Delivery,
    DeliveryStats,
    DeliveryStatus,
    DrainReport,
    Emission,
    EndpointReport,
    EndpointStage,
    Event,
    EventInput,
    Hook,
    HookStatus,
    Page,
    PreviousSecret,
    Timeouts,
    Trigger,
    Verdict,
    WhenDisabled,
)
from ._core.secret import Secret
from ._dispatcher import Dispatcher
from ._registry import BoundRegistry, HookRegistry
from ._signing_secrets import generate_ed25519_secret
from ._transport import GuardedTransport
from ._version import __version__
from .exceptions import (
    Conflict,
    DuplicateTrigger,
    IdempotencyConflict,
    InvalidCursor,
    InvalidDestination,
    InvalidHeader,
    InvalidInput,
    InvalidPayload,
    NotFound,
    ProcoreHooksError,
    SchemaTooNew,
    SecretUnreadable,
    StorageBusy,
    StorageCorrupt,
    StorageError,
    StorageFull,
    UnknownPayloadVersion,
    UnknownResource,
    UnsupportedAction,
    VerificationError,
)
from .keyring import KeyRing
from .resources import Resource, ResourceCatalog
from .retry import RetryPolicy
from .storage._base import Storage
from .storage.memory import MemoryStorage
from .verification import verify

if TYPE_CHECKING:
    from .resources import PROCORE
    from .storage.sqlite import SQLiteStorage

__all__ = [
    "PROCORE",
    "AsyncHookRegistry",
    "Attempt",
    "AttemptOutcome",
    "BoundRegistry",
    "Clock",
    "Conflict",
    "Delivery",
    "DeliveryStats",
    "DeliveryStatus",
    "DestinationPolicy",
    "Dispatcher",
    "DrainReport",
    "DuplicateTrigger",
    "Emission",
    "EndpointReport",
    "EndpointStage",
    "Event",
    "EventInput",
    "GuardedTransport",
    "Hook",
    "HookRegistry",
    "HookStatus",
    "IdempotencyConflict",
    "InvalidCursor",
    "InvalidDestination",
    "InvalidHeader",
    "InvalidInput",
    "InvalidPayload",
    "Judgement",
    "KeyRing",
    "MemoryStorage",
    "NotFound",
    "Page",
    "PreviousSecret",
    "ProcoreHooksError",
    "Resource",
    "ResourceCatalog",
    "RetryPolicy",
    "SQLiteStorage",
    "SchemaTooNew",
    "Secret",
    "SecretUnreadable",
    "Storage",
    "StorageBusy",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "Timeouts",
    "Trigger",
    "UnknownPayloadVersion",
    "UnknownResource",
    "UnsupportedAction",
    "Verdict",
    "VerificationError",
    "WhenDisabled",
    "__version__",
    "generate_ed25519_secret",
    "verify",
]


def __getattr__(name: str) -> object:
    # What needs a driver or reads a file is imported when it is asked for.
    if name == "SQLiteStorage":
        from .storage.sqlite import SQLiteStorage

        return SQLiteStorage
    if name == "PROCORE":
        from .resources import PROCORE

        return PROCORE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
