"""`emit` on Django's own connection."""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from procore_hooks import Emission

from ._configuration import get_registry

__all__ = ["emit"]


def emit(
    resource: str, action: str, payload: Any = None, *, using: str = DEFAULT_DB_ALIAS, **keywords: Any
) -> Emission:
    """Emit inside Django's transaction: within `transaction.atomic`, the deliveries exist if, and only if, it commits.

    Nothing has to wait for `transaction.on_commit`: the event is stored by the same commit as the rows.

    Args:
        resource, action, payload: as `HookRegistry.emit` has them.
        using: the alias of the database whose connection is used; the hooks must live in it.
        keywords: those of `HookRegistry.emit`, without `connection`.

    Raises:
        What `HookRegistry.emit` raises, and ImproperlyConfigured.
    """
    return get_registry().emit(resource, action, payload, connection=connections[using], **keywords)
