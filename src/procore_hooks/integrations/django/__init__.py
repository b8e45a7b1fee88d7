"""The settings page, a dispatcher and emits in a Django project. It needs the extra ``django``.

In the settings::

    INSTALLED_APPS = [..., "procore_hooks.integrations.django"]
    PROCORE_HOOKS = {
        "REGISTRY": "rfis.webhooks.make_registry",
        "AUTHORIZE": "rfis.webhooks.may_administer",
    }

In ``urls.py``::

    path("webhooks/", include("procore_hooks.integrations.django.urls"))

In ``wsgi.py`` or ``asgi.py``::

    application = install(get_wsgi_application())

and in a view::

    with transaction.atomic():
        rfi.save()
        emit("RFIs", "update", {"subject": rfi.subject}, resource_id=rfi.id, project_id=rfi.project_id)
"""

from __future__ import annotations

from .._extras import without_extra

try:
    import asgiref as _asgiref
    import django as _django

    from ._application import install
    from ._configuration import get_dispatcher, get_registry, storage_in
    from ._emitting import emit
except ImportError as error:
    raise without_extra("django", error) from error

__all__ = ["emit", "get_dispatcher", "get_registry", "install", "storage_in"]

del _asgiref, _django
