"""The addresses of the settings page, for `include`."""

from __future__ import annotations

from django.db import connections, transaction
from django.urls import path

from ._view import page

# The registry writes through a connection of its own, which would wait for Django's transaction with ATOMIC_REQUESTS.
for alias in connections:
    page = transaction.non_atomic_requests(using=alias)(page)

app_name = "procore_hooks"
urlpatterns = [path("", page, name="page"), path("<path:rest>", page, name="page")]
