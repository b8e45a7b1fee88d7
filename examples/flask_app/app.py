"""RFIs with webhooks, in Flask. Start it in this folder:

    RFIS_PASSWORD=door-12 gunicorn --workers 2 app:app

and open http://127.0.0.1:8000/ with that password. ``flask run --debug`` serves it too, on port 5000.
"""

import hashlib
import os
import secrets
import sqlite3
from contextlib import closing

from flask import Flask, Request, abort, redirect, render_template_string, request, session
from werkzeug.wrappers import Response

from procore_hooks import DestinationPolicy, HookRegistry, InvalidPayload, SQLiteStorage
from procore_hooks.integrations.flask import install

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

app = Flask(__name__)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
# The same in every worker, and of no use to whoever does not know the password.
app.secret_key = hashlib.scrypt(PASSWORD.encode(), salt=b"sessions of RFIs", n=2**14, r=8, p=1)

LOGIN = """<!doctype html><title>Sign in</title><h1>Sign in</h1><form method="post">
<label>Password <input type="password" name="password" autofocus></label><button>Sign in</button></form>"""
INDEX = """<!doctype html><title>RFIs</title><h1>RFIs</h1><form method="post" action="rfis">
<label>Subject <input name="subject" required></label><button>Create</button></form>
<ul>{% for id, subject in rfis %}<li>{{ id }} {{ subject }}</li>{% endfor %}</ul>
<p><a href="webhooks/companies/{{ company }}/projects/{{ project }}">Webhooks of project {{ project }}</a></p>"""


def may_administer(request: Request, company_id: str | None, project_id: str | None) -> bool:
    """Whoever signed in may administer the webhooks of this company and of its projects."""
    require_login()
    return company_id == str(COMPANY)


def require_login() -> None:
    """Lead whoever did not sign in to the form."""
    if "signed_in" not in session:
        abort(redirect("/login"))


install(app, registry, authorize=may_administer)


@app.route("/login", methods=["GET", "POST"])
def login() -> str | Response:
    if request.method == "GET":
        return render_template_string(LOGIN)
    if not secrets.compare_digest(request.form.get("password", "").encode(), PASSWORD.encode()):
        abort(403)
    session["signed_in"] = True
    return redirect("/")


@app.post("/rfis")
def create() -> Response:
    """Store an RFI and its webhooks, both or neither."""
    require_login()
    subject = request.form["subject"]
    with closing(sqlite3.connect(DATABASE, timeout=30)) as connection:
        try:
            with connection:  # commits at its end
                (rfi_id,) = connection.execute(
                    "INSERT INTO rfis (subject) VALUES (?) RETURNING id", [subject]
                ).fetchone()
                registry.emit(
                    "RFIs",
                    "create",
                    {"subject": subject},
                    resource_id=rfi_id,
                    company_id=COMPANY,
                    project_id=PROJECT,
                    connection=connection,
                )
        except InvalidPayload:
            abort(422)
    return redirect("/")


@app.get("/")
def index() -> str:
    require_login()
    with closing(sqlite3.connect(DATABASE, timeout=30)) as connection:
        rfis = connection.execute("SELECT id, subject FROM rfis ORDER BY id DESC LIMIT 100").fetchall()
    return render_template_string(INDEX, rfis=rfis, company=COMPANY, project=PROJECT)
