import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from procore_hooks.integrations.django import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
application = install(get_wsgi_application(), dispatcher=settings.DISPATCH_IN_SERVER)
