"""The settings of the site; what concerns webhooks is marked."""

import hashlib
import os
from pathlib import Path

HERE = Path(__file__).parents[1]
PASSWORD = os.environ["RFIS_PASSWORD"]  # there is no default, so nobody is let in by one
# The same in every worker, and of no use to whoever does not know the password.
SECRET_KEY = hashlib.scrypt(PASSWORD.encode(), salt=b"sessions of RFIs", n=2**14, r=8, p=1).hex()
DEBUG = os.environ.get("RFIS_DEBUG") == "1"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "procore_hooks.integrations.django",  # webhooks
    "rfis",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
LOGIN_URL, LOGIN_REDIRECT_URL = "login", "index"

DATABASE = os.environ.get("RFIS_DATABASE", str(HERE / "rfis.db"))
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATABASE,
        # A transaction that begins by reading could not wait for another's to end.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 30},
        "TEST": {"NAME": f"{DATABASE}-test"},  # webhooks: not in memory, where no other connection reaches
    }
}

# Webhooks
PROCORE_HOOKS = {
    "REGISTRY": "rfis.webhooks.make_registry",
    "AUTHORIZE": "rfis.webhooks.may_administer",
}
# Receivers on this very machine, and without https, are for trying it out.
LOCAL_RECEIVERS = os.environ.get("RFIS_LOCAL_RECEIVERS") == "1"
# "0" leaves the delivering to `manage.py procore_hooks_dispatch`.
DISPATCH_IN_SERVER = os.environ.get("RFIS_DISPATCH", "1") == "1"
