"""Outgoing webhooks as a library: declare hooks and triggers, emit events, and they are delivered.

See `HookRegistry` and `Dispatcher`, and `procore_hooks.testing` for tests.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from ._async_registry import AsyncHookRegistry
    from ._clock import Clock
    from ._core.destinations import DestinationPolicy, Judgement
    from ._core.models import (
        Attempt,
        AttemptOutcome,
        Delivery,
        DeliveryBucket,
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
    from .resources import PROCORE, Resource, ResourceCatalog
    from .retry import RetryPolicy
    from .storage._base import Storage
    from .storage.memory import MemoryStorage
    from .storage.sqlite import SQLiteStorage
    from .verification import verify

__all__ = [
    "PROCORE",
    "AsyncHookRegistry",
    "Attempt",
    "AttemptOutcome",
    "BoundRegistry",
    "Clock",
    "Conflict",
    "Delivery",
    "DeliveryBucket",
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


# Each name is imported when it is first asked for. A worker that only emits needs no dispatcher and no HTTP library,
# and importing them takes longer than all the rest.
_MODULES = {
    "_async_registry": "AsyncHookRegistry",
    "_clock": "Clock",
    "_core.destinations": "DestinationPolicy Judgement",
    "_core.models": (
        "Attempt AttemptOutcome Delivery DeliveryBucket DeliveryStats DeliveryStatus DrainReport Emission "
        "EndpointReport EndpointStage Event EventInput Hook HookStatus Page PreviousSecret Timeouts Trigger Verdict "
        "WhenDisabled"
    ),
    "_core.secret": "Secret",
    "_dispatcher": "Dispatcher",
    "_registry": "BoundRegistry HookRegistry",
    "_signing_secrets": "generate_ed25519_secret",
    "_transport": "GuardedTransport",
    "exceptions": (
        "Conflict DuplicateTrigger IdempotencyConflict InvalidCursor InvalidDestination InvalidHeader "
        "InvalidInput InvalidPayload NotFound ProcoreHooksError SchemaTooNew SecretUnreadable StorageBusy "
        "StorageCorrupt StorageError StorageFull UnknownPayloadVersion UnknownResource UnsupportedAction "
        "VerificationError"
    ),
    "keyring": "KeyRing",
    "resources": "PROCORE Resource ResourceCatalog",
    "retry": "RetryPolicy",
    "storage._base": "Storage",
    "storage.memory": "MemoryStorage",
    "storage.sqlite": "SQLiteStorage",
    "verification": "verify",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}
_PUBLIC_MODULES = ("exceptions", "keyring", "observers", "resources", "retry", "storage", "verification")


def __getattr__(name: str) -> object:
    if name in _PUBLIC_MODULES:
        return import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PUBLIC_MODULES})
