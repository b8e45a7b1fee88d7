"""Every error that this library raises, under one root.

::

    ProcoreHooksError
    ├── InvalidInput (ValueError)       a value is wrong: which one, what it was, how to mend it
    │   ├── InvalidDestination          a URL or an address that no delivery may use
    │   ├── InvalidHeader               a header name or value that may not be sent
    │   ├── InvalidPayload              a payload that does not serialise strictly to JSON
    │   ├── InvalidCursor               a page cursor that this list did not give out
    │   ├── UnknownResource             a resource that the catalogue does not know
    │   ├── UnsupportedAction           an action that the resource does not support
    │   └── UnknownPayloadVersion       neither a built-in format nor one of the app's own
    ├── NotFound (LookupError)          no hook, trigger or delivery has this id
    ├── Conflict (RuntimeError)         the call contradicts what is stored or running
    │   ├── DuplicateTrigger            the hook has this trigger already
    │   └── IdempotencyConflict         the key was used before, for other content
    ├── VerificationError (ValueError)  a received webhook is not what its sender signed
    └── StorageError (RuntimeError)     the storage could not do its work; nothing was half done
        ├── StorageBusy (TimeoutError)  it stayed locked by others for too long
        ├── StorageFull (OSError)       no space is left, or a file may not grow
        ├── StorageCorrupt              the file is not a database, or a damaged one
        ├── SecretUnreadable            an encrypted secret whose key is missing or wrong, or a damaged one
        └── SchemaTooNew                a newer release wrote this database; it was left untouched

Messages are one line and name the field, the value and the fix. They never hold a secret, and of a URL
they hold no query.
"""

from __future__ import annotations

__all__ = [
    "Conflict",
    "DuplicateTrigger",
    "IdempotencyConflict",
    "InvalidCursor",
    "InvalidDestination",
    "InvalidHeader",
    "InvalidInput",
    "InvalidPayload",
    "NotFound",
    "ProcoreHooksError",
    "SchemaTooNew",
    "SecretUnreadable",
    "StorageBusy",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "UnknownPayloadVersion",
    "UnknownResource",
    "UnsupportedAction",
    "VerificationError",
]


class ProcoreHooksError(Exception):
    """The root of all errors of this library."""


class InvalidInput(ProcoreHooksError, ValueError):
    """A value is wrong.

    Attributes:
        field: the name of the argument or field, such as ``"namespace"``.
        problem: what is wrong with it, and how to mend it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class InvalidDestination(InvalidInput):
    """A URL, or the address behind it, that no delivery may use."""


class InvalidHeader(InvalidInput):
    """A header name or value that may not be sent."""


class InvalidPayload(InvalidInput):
    """A payload that does not serialise strictly to JSON."""


class InvalidCursor(InvalidInput):
    """A page cursor that this list did not give out."""


class UnknownResource(InvalidInput):
    """A resource that the catalogue does not know."""


class UnsupportedAction(InvalidInput):
    """An action that the resource does not support."""


class UnknownPayloadVersion(InvalidInput):
    """A payload version that is neither built in nor one of the app's own."""


class NotFound(ProcoreHooksError, LookupError):
    """No hook, trigger or delivery has this id.

    Attributes:
        kind: ``"hook"``, ``"trigger"`` or ``"delivery"``.
        id: the id that was asked for.
    """

    def __init__(self, kind: str, id: object) -> None:
        super().__init__(kind, id)
        self.kind = kind
        self.id = id

    def __str__(self) -> str:
        return f"there is no {self.kind} with id {self.id!r}"


class Conflict(ProcoreHooksError, RuntimeError):
    """The call contradicts what is stored or what is running."""


class DuplicateTrigger(Conflict):
    """The hook has this trigger already."""


class IdempotencyConflict(Conflict):
    """The idempotency key was used before, for other content."""


class VerificationError(ProcoreHooksError, ValueError):
    """A received webhook is not what its sender signed, or is too old."""


class StorageError(ProcoreHooksError, RuntimeError):
    """The storage could not do its work; nothing was half done."""


class StorageBusy(StorageError, TimeoutError):
    """The storage stayed locked by others for longer than it may."""


class StorageFull(StorageError, OSError):
    """No space is left, or a file may not grow any further."""


class StorageCorrupt(StorageError):
    """The file is not a database, or a damaged one."""


class SecretUnreadable(StorageError):
    """An encrypted secret does not decrypt: its key is missing or wrong, or its text is damaged.

    Attributes:
        key_id: the id of the key that it is encrypted with; None if the text is too damaged to name one.
        problem: what does not decrypt and why, and how to mend it.
    """

    def __init__(self, key_id: str | None, problem: str) -> None:
        super().__init__(key_id, problem)
        self.key_id = key_id
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class SchemaTooNew(StorageError):
    """A newer release of this library wrote the database; it was left untouched."""
