"""The app of Django's: what it checks, and what it does after a migration."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.signals import post_migrate

from ._configuration import KEYS, get_registry, named

__all__ = ["ProcoreHooksConfig"]


class ProcoreHooksConfig(AppConfig):  # type: ignore[misc]
    """Checks ``PROCORE_HOOKS``, and lets ``migrate`` make the tables of the hooks."""

    name = "procore_hooks.integrations.django"
    label = "procore_hooks"
    verbose_name = "Webhooks"

    def ready(self) -> None:
        """Register the check and the step after a migration. Nothing is opened, and nothing delivered."""
        checks.register(check_settings)
        # From whichever app: Django sends none for an app without models, as this one is.
        post_migrate.connect(make_tables, dispatch_uid="procore_hooks.tables")


def check_settings(**context: Any) -> list[checks.CheckMessage]:
    """What ``manage.py check`` says of ``PROCORE_HOOKS``."""
    found: list[checks.CheckMessage] = []
    for key in KEYS:
        try:
            value = named(key)
        except ImproperlyConfigured as error:
            found.append(checks.Error(str(error), id="procore_hooks.E001"))
            if "there is none" in str(error):
                break
            continue
        if key == "REGISTRY" and value is None:
            missing = "PROCORE_HOOKS['REGISTRY']: it is missing: use 'myapp.webhooks.make_registry'"
            found.append(checks.Error(missing, id="procore_hooks.E002"))
        elif key != "REGISTRY" and value is not None and not callable(value):
            found.append(checks.Error(f"PROCORE_HOOKS[{key!r}]: it cannot be called", id="procore_hooks.E003"))
    return found


def make_tables(using: str = DEFAULT_DB_ALIAS, **context: Any) -> None:
    """Open the registry once, which makes its tables, before anybody emits inside a transaction."""
    connection = connections[using]
    if connection.vendor == "sqlite" and not connection.is_in_memory_db():
        get_registry()
