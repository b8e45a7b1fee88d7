"""What the settings say: ``PROCORE_HOOKS``, a dict of dotted names.

=============  ====================================================================================================
``REGISTRY``   a `HookRegistry`, or a function that makes one; called once in each process, when first needed
``AUTHORIZE``  a function of Django's request and the ids of company and project: who may open the page. Without
               it there is no page
``DISPATCHER`` a function that is given the registry and makes a `Dispatcher`; without it, one with the defaults
=============  ====================================================================================================
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.module_loading import import_string

from procore_hooks import Dispatcher, HookRegistry, SQLiteStorage

__all__ = ["KEYS", "get_authorize", "get_dispatcher", "get_registry", "named", "storage_in"]

KEYS: Final = ("REGISTRY", "AUTHORIZE", "DISPATCHER")

_lock = threading.Lock()
_made: dict[str, HookRegistry] = {}


def named(key: str) -> Any:
    """What the dotted name under `key` stands for; None where there is none.

    Raises:
        ImproperlyConfigured: it cannot be imported, or the settings are of another shape.
    """
    given = getattr(settings, "PROCORE_HOOKS", None)
    if not isinstance(given, dict):
        raise ImproperlyConfigured("PROCORE_HOOKS: there is none: use {'REGISTRY': 'myapp.webhooks.make_registry'}")
    name = given.get(key)
    if name is None:
        return None
    if not isinstance(name, str):
        raise ImproperlyConfigured(f"PROCORE_HOOKS[{key!r}]: {name!r} is not a dotted name: use 'myapp.webhooks.name'")
    try:
        return import_string(name)
    except ImportError as error:
        raise ImproperlyConfigured(f"PROCORE_HOOKS[{key!r}]: {name!r} cannot be imported: {error}") from error


def get_registry() -> HookRegistry:
    """The project's registry: what ``REGISTRY`` names, or makes at the first call in this process.

    Raises:
        ImproperlyConfigured: it is not named, or is none.
    """
    found = named("REGISTRY")
    if found is None:
        raise ImproperlyConfigured("PROCORE_HOOKS['REGISTRY']: it is missing: use 'myapp.webhooks.make_registry'")
    if isinstance(found, HookRegistry):
        return found
    if not callable(found):
        raise ImproperlyConfigured(f"PROCORE_HOOKS['REGISTRY']: a {type(found).__name__} is no HookRegistry")
    name = settings.PROCORE_HOOKS["REGISTRY"]
    with _lock:
        if name not in _made:
            made = found()
            if not isinstance(made, HookRegistry):
                raise ImproperlyConfigured(f"PROCORE_HOOKS['REGISTRY']: {name} made no HookRegistry, but {made!r}")
            _made[name] = made
        return _made[name]


def get_dispatcher() -> Dispatcher:
    """A new dispatcher of the project's registry, made as ``DISPATCHER`` says.

    Raises:
        ImproperlyConfigured: what it names makes none.
    """
    make: Callable[[HookRegistry], Dispatcher] = named("DISPATCHER") or Dispatcher
    made = make(get_registry())
    if not isinstance(made, Dispatcher):
        raise ImproperlyConfigured(f"PROCORE_HOOKS['DISPATCHER']: it made no Dispatcher, but {made!r}")
    return made


def get_authorize() -> Callable[..., Any] | None:
    """The function that ``AUTHORIZE`` names."""
    authorize: Callable[..., Any] | None = named("AUTHORIZE")
    return authorize


def storage_in(alias: str = DEFAULT_DB_ALIAS, **options: Any) -> SQLiteStorage:
    """A storage in the file of a database of Django's, so that an emit can join its transactions.

    While Django runs tests, that is the file of the test database.

    Args:
        alias: of ``DATABASES``.
        options: for `SQLiteStorage`.

    Raises:
        ImproperlyConfigured: the database is not SQLite's, or is in memory.
    """
    connection = connections[alias]
    if connection.vendor != "sqlite":
        raise ImproperlyConfigured(f"DATABASES[{alias!r}]: {connection.vendor} is no SQLite: use its own storage")
    if connection.is_in_memory_db():
        fix = "for tests, name a file in its 'TEST': {'NAME': ...}"
        raise ImproperlyConfigured(f"DATABASES[{alias!r}]: it is in memory, where no other connection reaches: {fix}")
    return SQLiteStorage(connection.settings_dict["NAME"], **options)
