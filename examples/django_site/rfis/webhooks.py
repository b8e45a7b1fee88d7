"""Who gets webhooks, and who may say so."""

from django.conf import settings
from django.http import HttpRequest

from procore_hooks import DestinationPolicy, HookRegistry
from procore_hooks.integrations.django import storage_in

COMPANY, PROJECT = 8, 6778


def make_registry() -> HookRegistry:
    """The hooks live in the site's own database, so that events join its transactions."""
    destinations = DestinationPolicy.local() if settings.LOCAL_RECEIVERS else DestinationPolicy()
    return HookRegistry(storage_in("default"), destinations=destinations)


def may_administer(request: HttpRequest, company_id: str | None, project_id: str | None) -> bool:
    """Admins may administer the webhooks of this company and of its projects."""
    return request.user.is_superuser and company_id == str(COMPANY)
