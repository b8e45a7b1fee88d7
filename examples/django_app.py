import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.db import connection, transaction

from procore_hooks import HookRegistry, SQLiteStorage

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "app.db"  # the file of DATABASES["default"]
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path}})
django.setup()
registry = HookRegistry(SQLiteStorage(path))

hook = registry.hooks.create("https://hooks.acme.example/procore", namespace="acme", project_id=6778)
registry.triggers.create(hook.id, "RFIs", "update")


def answer(rfi_id: int) -> None:  # stands for a view that saves a model
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO rfis VALUES (%s, 'answered')", [rfi_id])
    registry.emit("RFIs", "update", resource_id=rfi_id, project_id=6778, connection=connection)


with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE rfis (id INTEGER PRIMARY KEY, status TEXT)")

with transaction.atomic():
    answer(54321)

try:
    with transaction.atomic():
        answer(54322)
        raise RuntimeError("something else went wrong")
except RuntimeError:
    pass  # the row and its delivery were taken back

for delivery in registry.deliveries.list(hook.id):
    print(delivery.event.resource_id, delivery.status)

registry.close()
connection.close()
folder.cleanup()
