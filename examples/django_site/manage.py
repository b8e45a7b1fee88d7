"""RFIs with webhooks, in Django. Start it in this folder:

    RFIS_PASSWORD=door-12 python manage.py start

and sign in at http://127.0.0.1:8000/ as admin, with that password. Once it was started, gunicorn serves it too:

    RFIS_PASSWORD=door-12 gunicorn --workers 2 portal.wsgi
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    execute_from_command_line(sys.argv)
