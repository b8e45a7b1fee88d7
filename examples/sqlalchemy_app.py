import tempfile
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from procore_hooks import HookRegistry, SQLiteStorage

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "app.db"  # one file, for the app's tables and for the hooks
engine = create_engine(f"sqlite:///{path}")
registry = HookRegistry(SQLiteStorage(path))

hook = registry.hooks.create("https://hooks.acme.example/procore", namespace="acme", project_id=6778)
registry.triggers.create(hook.id, "RFIs", "update")

with Session(engine) as session, session.begin():
    session.execute(text("CREATE TABLE rfis (id INTEGER PRIMARY KEY, status TEXT)"))

with Session(engine) as session, session.begin():
    session.execute(text("INSERT INTO rfis VALUES (54321, 'answered')"))
    registry.emit("RFIs", "update", resource_id=54321, project_id=6778, connection=session)

with Session(engine) as session:
    session.execute(text("INSERT INTO rfis VALUES (54322, 'answered')"))
    registry.emit("RFIs", "update", resource_id=54322, project_id=6778, connection=session)
    session.rollback()  # takes the row and its delivery back

for delivery in registry.deliveries.list(hook.id):
    print(delivery.event.resource_id, delivery.status)

registry.close()
engine.dispose()
folder.cleanup()
