"""RFIs with webhooks, in FastAPI. Start it in this folder:

    RFIS_PASSWORD=door-12 uvicorn app:app --workers 2

and open http://127.0.0.1:8000/ as admin, with that password.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel

from procore_hooks import DestinationPolicy, HookRegistry, InvalidPayload, SQLiteStorage
from procore_hooks.integrations.fastapi import install

PASSWORD = os.environ["RFIS_PASSWORD"]  # there is no default, so nobody is let in by one
DATABASE = os.environ.get("RFIS_DATABASE", "rfis.db")
COMPANY, PROJECT = 8, 6778

# Receivers on this very machine, and without https, are for trying it out.
local = os.environ.get("RFIS_LOCAL_RECEIVERS") == "1"
registry = HookRegistry(
    SQLiteStorage(DATABASE), destinations=DestinationPolicy.local() if local else DestinationPolicy()
)
with closing(sqlite3.connect(DATABASE)) as setup, setup:
    setup.execute("CREATE TABLE IF NOT EXISTS rfis (id INTEGER PRIMARY KEY, subject TEXT NOT NULL)")

app = FastAPI()
basic = HTTPBasic()


def admin(credentials: Annotated[HTTPBasicCredentials, Depends(basic)]) -> str:
    """Whoever signed in; anybody else is asked for the password."""
    name, password = credentials.username.encode(), credentials.password.encode()
    if not (secrets.compare_digest(name, b"admin") & secrets.compare_digest(password, PASSWORD.encode())):
        raise HTTPException(401, "wrong name or password", {"WWW-Authenticate": "Basic"})
    return credentials.username


async def may_administer(request: Request, company_id: str | None, project_id: str | None) -> bool:
    """The admin may administer the webhooks of this company and of its projects."""
    credentials = await basic(request)
    return credentials is not None and admin(credentials) == "admin" and company_id == str(COMPANY)


install(app, registry, authorize=may_administer)


def database() -> Iterator[sqlite3.Connection]:
    """A connection for one request."""
    with closing(sqlite3.connect(DATABASE, timeout=30, check_same_thread=False)) as connection:
        yield connection


Connection = Annotated[sqlite3.Connection, Depends(database)]


class NewRfi(BaseModel):
    subject: str


@app.post("/rfis", status_code=201, dependencies=[Depends(admin)])
def create(rfi: NewRfi, connection: Connection) -> dict[str, int | str]:
    """Store an RFI and its webhooks, both or neither."""
    try:
        with connection:  # commits at its end
            (rfi_id,) = connection.execute(
                "INSERT INTO rfis (subject) VALUES (?) RETURNING id", [rfi.subject]
            ).fetchone()
            registry.emit(
                "RFIs",
                "create",
                {"subject": rfi.subject},
                resource_id=rfi_id,
                company_id=COMPANY,
                project_id=PROJECT,
                connection=connection,
            )
    except InvalidPayload as error:
        raise HTTPException(422, str(error)) from error
    return {"id": rfi_id, "subject": rfi.subject}


@app.get("/rfis", dependencies=[Depends(admin)])
def rfis(connection: Connection) -> list[dict[str, int | str]]:
    """All RFIs, newest first."""
    rows = connection.execute("SELECT id, subject FROM rfis ORDER BY id DESC LIMIT 100")
    return [{"id": rfi_id, "subject": subject} for rfi_id, subject in rows]


@app.get("/", response_class=HTMLResponse, dependencies=[Depends(admin)])
def index() -> str:
    """Where to go."""
    return f"""<!doctype html><title>RFIs</title><h1>RFIs</h1>
<p><a href="docs">Create and list RFIs</a></p>
<p><a href="webhooks/companies/{COMPANY}/projects/{PROJECT}">Webhooks of project {PROJECT}</a></p>"""
