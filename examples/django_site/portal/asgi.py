import os

from django.conf import settings
from django.core.asgi import get_asgi_application

from procore_hooks.integrations.django import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
application = install(get_asgi_application(), dispatcher=settings.DISPATCH_IN_SERVER)
