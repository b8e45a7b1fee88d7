"""The tables, and how a file gets from one version of them to the next.

The tables may live in the app's own database, so that events can join the app's transactions; their names start with
``procore_hooks_`` for that reason, and the version of the schema is in a table of its own. In a file that holds nothing
else, ``application_id`` and ``user_version`` tell the same to people and tools that look at the file from outside.

Times are microseconds since 1970. States of deliveries are numbers: 0 enqueued, 1 retrying, 2 delivered, 3 failed,
4 discarded. Of what a queue's columns mean, `ready` tells. An event's `uses` are its
deliveries and its idempotency key: without any, it is pruned.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from ...exceptions import SchemaTooNew
from .connection import Database
from .quarters import QUARTER

__all__ = ["APPLICATION_ID", "FAILING", "VERSION", "migrate"]

APPLICATION_ID: Final = 0x50_68_6B_73  # "Phks"
# Retrying, failed or discarded; 5 is a row that keeps a number taken. Only a query that says it in these very words may
# use the indexes on such deliveries.
FAILING: Final = "state <> 0 AND state <> 2 AND state <> 5"

# Ids are never used again: AUTOINCREMENT sees to it where rows can be deleted at will. Deliveries do without it, since
# it costs every emit one more page: of them `prune` keeps the newest.
_VERSION_1: Final = """
CREATE TABLE procore_hooks_hooks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    destination_url TEXT NOT NULL,
    destination_headers TEXT NOT NULL,
    company_id TEXT,
    project_id TEXT,
    include_projects INTEGER NOT NULL,
    status TEXT NOT NULL,
    when_disabled TEXT NOT NULL,
    payload_version TEXT NOT NULL,
    max_in_flight INTEGER NOT NULL,
    signing_secrets TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
);
CREATE TABLE procore_hooks_queues (
    hook_id INTEGER PRIMARY KEY,
    ready_at INTEGER,
    served INTEGER NOT NULL DEFAULT 0,
    head INTEGER NOT NULL DEFAULT 0,
    in_flight INTEGER NOT NULL DEFAULT 0,
    max_in_flight INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    failing_since INTEGER,
    paused_until INTEGER,
    epoch INTEGER NOT NULL DEFAULT 0,
    dropped_through INTEGER NOT NULL DEFAULT 0,
    drop_reason TEXT,
    sweep_from INTEGER
);
CREATE INDEX procore_hooks_queues_ready ON procore_hooks_queues (ready_at, served) WHERE ready_at IS NOT NULL;
CREATE INDEX procore_hooks_queues_sweep ON procore_hooks_queues (hook_id) WHERE sweep_from IS NOT NULL;
CREATE TABLE procore_hooks_turns (number INTEGER NOT NULL, steady TEXT, ahead INTEGER);
INSERT INTO procore_hooks_turns (number) VALUES (0);
CREATE TABLE procore_hooks_triggers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hook_id INTEGER NOT NULL,
    resource TEXT NOT NULL,
    action TEXT NOT NULL,
    scope TEXT NOT NULL,
    company_id TEXT
);
CREATE UNIQUE INDEX procore_hooks_triggers_match
    ON procore_hooks_triggers (resource, action, scope, hook_id, company_id);
CREATE UNIQUE INDEX procore_hooks_triggers_hook ON procore_hooks_triggers (hook_id, resource, action);
CREATE TABLE procore_hooks_events (
    id INTEGER PRIMARY KEY,
    ulid TEXT NOT NULL,
    resource TEXT NOT NULL,
    action TEXT NOT NULL,
    resource_id TEXT,
    company_id TEXT,
    project_id TEXT,
    user_id TEXT,
    occurred_at INTEGER NOT NULL,
    payload BLOB NOT NULL,
    metadata TEXT,
    related_resources TEXT,
    uses INTEGER NOT NULL
);
CREATE TABLE procore_hooks_deliveries (
    id INTEGER PRIMARY KEY,
    hook_id INTEGER NOT NULL,
    event_id INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempt_count INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    completed_at INTEGER,
    due_at INTEGER,
    lease_until INTEGER,
    claimed_at INTEGER,
    began_at INTEGER,
    redelivery_of INTEGER,
    reason TEXT
);
CREATE INDEX procore_hooks_deliveries_hook ON procore_hooks_deliveries (hook_id, id);
CREATE INDEX procore_hooks_deliveries_returned
    ON procore_hooks_deliveries (hook_id, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX procore_hooks_deliveries_leased ON procore_hooks_deliveries (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX procore_hooks_deliveries_failing ON procore_hooks_deliveries (id) WHERE state IN (1, 3, 4);
CREATE INDEX procore_hooks_deliveries_failing_of_hook
    ON procore_hooks_deliveries (hook_id, id) WHERE state IN (1, 3, 4);
CREATE INDEX procore_hooks_deliveries_repeated
    ON procore_hooks_deliveries (hook_id, event_id) WHERE redelivery_of IS NOT NULL;
CREATE TABLE procore_hooks_requests (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL,
    headers TEXT NOT NULL,
    UNIQUE (url, headers)
);
CREATE TABLE procore_hooks_attempts (
    id INTEGER PRIMARY KEY,
    outcome INTEGER NOT NULL,
    request_id INTEGER NOT NULL,
    request_body BLOB,
    signature TEXT,
    response_status INTEGER,
    response_headers TEXT,
    response_body BLOB,
    response_error TEXT,
    started_at INTEGER NOT NULL,
    completed_at INTEGER
);
CREATE TABLE procore_hooks_idempotency_keys (
    key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    event_id INTEGER NOT NULL,
    delivery_ids TEXT NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX procore_hooks_idempotency_keys_age ON procore_hooks_idempotency_keys (created_at);
"""

# Drawn anew with every change that the answer to "which hooks get this event?" depends on, whoever makes it: see
# `matching`. A random number, and no count: a count would come again after a rollback.
_VERSION_2: Final = """
CREATE TABLE procore_hooks_matching (generation INTEGER NOT NULL);
INSERT INTO procore_hooks_matching VALUES (random());
CREATE TRIGGER procore_hooks_matching_more AFTER INSERT ON procore_hooks_triggers
    BEGIN UPDATE procore_hooks_matching SET generation = random(); END;
CREATE TRIGGER procore_hooks_matching_less AFTER DELETE ON procore_hooks_triggers
    BEGIN UPDATE procore_hooks_matching SET generation = random(); END;
CREATE TRIGGER procore_hooks_matching_else AFTER UPDATE ON procore_hooks_triggers
    BEGIN UPDATE procore_hooks_matching SET generation = random(); END;
CREATE TRIGGER procore_hooks_matching_hooks AFTER UPDATE OF enabled ON procore_hooks_queues
    BEGIN UPDATE procore_hooks_matching SET generation = random(); END;
"""

# See `quarters`.
_VERSION_3: Final = f"""
CREATE TABLE procore_hooks_times (quarter INTEGER PRIMARY KEY, first_id INTEGER NOT NULL);
INSERT INTO procore_hooks_times
SELECT created_at / {QUARTER}, min(id) FROM procore_hooks_deliveries GROUP BY created_at / {QUARTER};
CREATE TRIGGER procore_hooks_deliveries_first AFTER INSERT ON procore_hooks_deliveries
WHEN NOT EXISTS (SELECT 1 FROM procore_hooks_times WHERE quarter = NEW.created_at / {QUARTER})
BEGIN INSERT INTO procore_hooks_times VALUES (NEW.created_at / {QUARTER}, NEW.id); END;
"""

# Drawn anew whenever anything of the hook's row changes, whoever changes it: what is kept of a hook in memory,
# decrypted and decoded, is good as long as the number is the same.
_VERSION_4: Final = """
ALTER TABLE procore_hooks_hooks ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER procore_hooks_hooks_changed AFTER UPDATE ON procore_hooks_hooks WHEN NEW.version = OLD.version
    BEGIN UPDATE procore_hooks_hooks SET version = random() WHERE id = NEW.id; END;
"""

# Emits note the quarter themselves: the trigger made up a tenth of one with ten matches.
_VERSION_5: Final = "DROP TRIGGER procore_hooks_deliveries_first;"

# For `state IN (1, 3, 4)` SQLite built a set of the three in each statement that wrote a delivery, once for each index:
# with one match that made up a tenth of an emit, with ten a sixth.
_VERSION_6: Final = f"""
DROP INDEX procore_hooks_deliveries_failing;
DROP INDEX procore_hooks_deliveries_failing_of_hook;
CREATE INDEX procore_hooks_deliveries_failing ON procore_hooks_deliveries (id) WHERE {FAILING};
CREATE INDEX procore_hooks_deliveries_failing_of_hook
    ON procore_hooks_deliveries (hook_id, id) WHERE {FAILING};
"""

# See `indexing`.
_VERSION_7: Final = """
ALTER TABLE procore_hooks_deliveries ADD COLUMN unindexed INTEGER;
ALTER TABLE procore_hooks_turns ADD COLUMN indexed_through INTEGER NOT NULL DEFAULT 0;
UPDATE procore_hooks_turns SET indexed_through = (SELECT coalesce(max(id), 0) FROM procore_hooks_deliveries);
DROP INDEX procore_hooks_deliveries_hook;
CREATE INDEX procore_hooks_deliveries_hook ON procore_hooks_deliveries (hook_id, id) WHERE unindexed IS NULL;
"""

_MIGRATIONS: Final = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6, _VERSION_7)
VERSION: Final = len(_MIGRATIONS)


def migrate(database: Database) -> None:
    """Bring the file to this release's schema. Raises `SchemaTooNew`, and changes nothing, if it is ahead."""
    version = database.read(_version, database.path)
    # Not before: to set the journal mode changes the file.
    database.set_journal_mode()
    if version == VERSION:
        return
    database.write(_bring_up_to_date, database.path)


def _bring_up_to_date(cursor: sqlite3.Cursor, path: str) -> None:
    # Another process may have done it while we waited for the lock.
    version = _version(cursor, path)
    alone = not cursor.execute("SELECT 1 FROM sqlite_schema").fetchone()
    if version == 0:
        cursor.execute("CREATE TABLE procore_hooks_schema (version INTEGER NOT NULL)")
        cursor.execute("INSERT INTO procore_hooks_schema VALUES (0)")
    if alone:
        cursor.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for script in _MIGRATIONS[version:]:
        _run(cursor, script)
    cursor.execute("UPDATE procore_hooks_schema SET version = ?", (VERSION,))
    if alone or _is_ours_alone(cursor):
        cursor.execute(f"PRAGMA user_version = {VERSION}")


def _run(cursor: sqlite3.Cursor, script: str) -> None:
    # Not executescript(): that commits first.
    for statement in script.split(";\n"):
        if statement.strip():
            cursor.execute(statement)


def _is_ours_alone(cursor: sqlite3.Cursor) -> bool:
    return bool(cursor.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID)


def _version(cursor: sqlite3.Cursor, path: str) -> int:
    known = cursor.execute("SELECT 1 FROM sqlite_schema WHERE name = 'procore_hooks_schema'").fetchone()
    version = int(cursor.execute("SELECT version FROM procore_hooks_schema").fetchone()[0]) if known else 0
    if known and _is_ours_alone(cursor):
        version = max(version, int(cursor.execute("PRAGMA user_version").fetchone()[0]))
    if version > VERSION:
        raise SchemaTooNew(
            f"{path} has schema {version}, this release knows up to {VERSION}; it was left untouched: "
            "upgrade procore-hooks"
        )
    return version
