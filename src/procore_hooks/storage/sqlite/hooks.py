"""Hooks and triggers."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import attrs

from ..._core.matching import scope_key
from ..._core.models import Hook, Trigger
from ...exceptions import DuplicateTrigger, NotFound
from ...keyring import KeyRing
from .._base import Changes, HookQuery, Wanted, changes_for, wanted_of
from .ready import READY
from .rows import HOOK_COLUMNS, hook_from_row, secret_columns, stamp, trigger_from_row
from .sweeping import drop_waiting

__all__ = [
    "add_hook",
    "add_trigger",
    "delete_hook",
    "delete_trigger",
    "disable_hook",
    "enable_hook",
    "get_hook",
    "list_hooks",
    "list_triggers",
    "replace_triggers",
    "require_hook",
    "update_hook",
]

_FROM: Final = "procore_hooks_hooks h JOIN procore_hooks_queues q ON q.hook_id = h.id WHERE h.deleted_at IS NULL"
# Above every id: whatever comes back to the queue of a deleted hook is dropped.
_EVERYTHING: Final = (1 << 62) - 1
_NO_SECRETS: Final = {"destination_headers": "{}", "signing_secrets": '[""]'}


def _enabled(hook: Hook) -> int:
    if hook.status == "active":
        return 1
    return -1 if hook.when_disabled == "drop" else 0


def _columns(hook: Hook) -> dict[str, object]:
    return {
        "namespace": hook.namespace,
        "destination_url": hook.destination_url,
        "company_id": hook.company_id,
        "project_id": hook.project_id,
        "include_projects": int(hook.include_projects),
        "status": hook.status,
        "when_disabled": hook.when_disabled,
        "payload_version": hook.payload_version,
        "max_in_flight": hook.max_in_flight,
        "created_at": stamp(hook.created_at),
        "updated_at": stamp(hook.updated_at),
    }


def add_hook(cursor: sqlite3.Cursor, hook: Hook, keys: KeyRing | None) -> Hook:
    """Store a hook and its queue."""
    # Secrets are encrypted for one row, whose id is known once it is there.
    columns = _columns(hook) | _NO_SECRETS
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    cursor.execute(f"INSERT INTO procore_hooks_hooks ({names}) VALUES ({marks})", tuple(columns.values()))
    stored = attrs.evolve(hook, id=int(cursor.lastrowid or 0))
    cursor.execute(
        "INSERT INTO procore_hooks_queues (hook_id, max_in_flight, enabled) VALUES (?, ?, ?)",
        (stored.id, stored.max_in_flight, _enabled(stored)),
    )
    _set(cursor, stored.id, secret_columns(stored, keys))
    return stored


def _set(cursor: sqlite3.Cursor, hook_id: int, columns: Mapping[str, object]) -> None:
    names = ", ".join(f"{name} = ?" for name in columns)
    cursor.execute(f"UPDATE procore_hooks_hooks SET {names} WHERE id = ?", (*columns.values(), hook_id))


def get_hook(cursor: sqlite3.Cursor, hook_id: int, keys: KeyRing | None) -> Hook:
    """The hook. Raises `NotFound` and `SecretUnreadable`."""
    row = cursor.execute(f"SELECT {HOOK_COLUMNS} FROM {_FROM} AND h.id = ?", (hook_id,)).fetchone()
    if row is None:
        raise NotFound("hook", hook_id)
    return hook_from_row(row, keys)


def require_hook(cursor: sqlite3.Cursor, hook_id: int) -> int:
    """1 for an active hook, 0 for a disabled one that keeps, -1 for one that drops. Raises `NotFound`."""
    row = cursor.execute(f"SELECT q.enabled FROM {_FROM} AND h.id = ?", (hook_id,)).fetchone()
    if row is None:
        raise NotFound("hook", hook_id)
    return int(row[0])


def list_hooks(cursor: sqlite3.Cursor, query: HookQuery, keys: KeyRing | None) -> list[Hook]:
    """The hooks that fit, by id. Raises `SecretUnreadable`."""
    wanted = {
        "namespace": query.namespace,
        "company_id": query.company_id,
        "project_id": query.project_id,
        "status": query.status,
    }
    wanted = {name: value for name, value in wanted.items() if value is not None}
    conditions = "".join(f" AND h.{name} = ?" for name in wanted)
    rows = cursor.execute(
        f"SELECT {HOOK_COLUMNS} FROM {_FROM} AND h.id > ?{conditions} ORDER BY h.id LIMIT ?",
        (query.after, *wanted.values(), query.limit),
    )
    return [hook_from_row(row, keys) for row in rows.fetchall()]


def _store(cursor: sqlite3.Cursor, hook: Hook, keys: KeyRing | None) -> None:
    _set(cursor, hook.id, _columns(hook) | secret_columns(hook, keys))
    cursor.execute(
        "UPDATE procore_hooks_queues SET max_in_flight = ?, enabled = ? WHERE hook_id = ?",
        (hook.max_in_flight, _enabled(hook), hook.id),
    )


def _refresh_ready(cursor: sqlite3.Cursor, hook_id: int, now: int) -> None:
    cursor.execute(
        f"UPDATE procore_hooks_queues SET ready_at = {READY} WHERE hook_id = :hook", {"hook": hook_id, "due": now}
    )


def update_hook(cursor: sqlite3.Cursor, hook_id: int, changes: Changes, now: datetime, keys: KeyRing | None) -> Hook:
    """Set the named fields."""
    hook = get_hook(cursor, hook_id, keys)
    hook = attrs.evolve(hook, **changes_for(changes, hook), updated_at=now)
    _store(cursor, hook, keys)
    cursor.execute(
        "UPDATE procore_hooks_triggers SET scope = ?, company_id = ? WHERE hook_id = ?",
        (scope_key(hook.company_id, hook.project_id, hook.include_projects), hook.company_id, hook_id),
    )
    _refresh_ready(cursor, hook_id, stamp(now))
    return hook


def enable_hook(cursor: sqlite3.Cursor, hook_id: int, now: datetime, keys: KeyRing | None) -> Hook:
    """Make it active, with a clean slate: retries of later are due at once too."""
    hook = attrs.evolve(
        get_hook(cursor, hook_id, keys), status="active", failing_since=None, paused_until=None, updated_at=now
    )
    _store(cursor, hook, keys)
    cursor.execute(
        """UPDATE procore_hooks_queues SET failures = 0, failing_since = NULL, paused_until = NULL, epoch = epoch + 1
        WHERE hook_id = ?""",
        (hook_id,),
    )
    cursor.execute("UPDATE procore_hooks_deliveries SET due_at = 0 WHERE hook_id = ? AND due_at > 0", (hook_id,))
    _refresh_ready(cursor, hook_id, stamp(now))
    return hook


def disable_hook(
    cursor: sqlite3.Cursor, hook_id: int, now: datetime, drop_reason: str | None, keys: KeyRing | None
) -> Hook:
    """Make it disabled; with a reason, mark what waits as dropped."""
    hook = attrs.evolve(get_hook(cursor, hook_id, keys), status="disabled", updated_at=now)
    _store(cursor, hook, keys)
    cursor.execute("UPDATE procore_hooks_queues SET epoch = epoch + 1, ready_at = NULL WHERE hook_id = ?", (hook_id,))
    if drop_reason is not None:
        drop_waiting(cursor, hook_id, drop_reason)
    return hook


def delete_hook(cursor: sqlite3.Cursor, hook_id: int, now: datetime, reason: str) -> None:
    """Delete it, its triggers and its secrets, and mark what waits as dropped. The row stays for the history."""
    require_hook(cursor, hook_id)
    _set(cursor, hook_id, {"deleted_at": stamp(now), "status": "disabled", **_NO_SECRETS})
    cursor.execute("DELETE FROM procore_hooks_triggers WHERE hook_id = ?", (hook_id,))
    drop_waiting(cursor, hook_id, reason)
    cursor.execute(
        """UPDATE procore_hooks_queues SET enabled = 0, failures = 0, failing_since = NULL, paused_until = NULL,
        epoch = epoch + 1, dropped_through = ? WHERE hook_id = ?""",
        (_EVERYTHING, hook_id),
    )


def add_trigger(cursor: sqlite3.Cursor, hook_id: int, resource: str, action: str) -> Trigger:
    """Store a trigger of the hook, with the hook's scope beside it."""
    scope = cursor.execute(
        f"SELECT h.company_id, h.project_id, h.include_projects FROM {_FROM} AND h.id = ?", (hook_id,)
    ).fetchone()
    if scope is None:
        raise NotFound("hook", hook_id)
    company_id, project_id, include_projects = scope
    if cursor.execute(
        "SELECT 1 FROM procore_hooks_triggers WHERE hook_id = ? AND resource = ? AND action = ?",
        (hook_id, resource, action),
    ).fetchone():
        raise DuplicateTrigger(f"hook {hook_id} has the trigger ({resource!r}, {action!r}) already")
    cursor.execute(
        "INSERT INTO procore_hooks_triggers (hook_id, resource, action, scope, company_id) VALUES (?, ?, ?, ?, ?)",
        (hook_id, resource, action, scope_key(company_id, project_id, bool(include_projects)), company_id),
    )
    return Trigger(id=int(cursor.lastrowid or 0), hook_id=hook_id, resource=resource, action=action)


def list_triggers(cursor: sqlite3.Cursor, hook_id: int, after: int, limit: int) -> list[Trigger]:
    """The hook's triggers by id; a negative limit is none."""
    require_hook(cursor, hook_id)
    rows = cursor.execute(
        """SELECT id, hook_id, resource, action FROM procore_hooks_triggers
        WHERE hook_id = ? AND id > ? ORDER BY id LIMIT ?""",
        (hook_id, after, limit),
    )
    return [trigger_from_row(row) for row in rows.fetchall()]


def delete_trigger(cursor: sqlite3.Cursor, trigger_id: int) -> None:
    """Delete it. Raises `NotFound`."""
    if cursor.execute("DELETE FROM procore_hooks_triggers WHERE id = ?", (trigger_id,)).rowcount == 0:
        raise NotFound("trigger", trigger_id)


def replace_triggers(cursor: sqlite3.Cursor, hook_id: int, wanted: Wanted) -> list[Trigger]:
    """Make `wanted` the hook's triggers; those that stay keep their ids."""
    triggers = list_triggers(cursor, hook_id, 0, -1)
    pairs, present = wanted_of(wanted, triggers), {(t.resource, t.action): t.id for t in triggers}
    for pair, trigger_id in present.items():
        if pair not in pairs:
            delete_trigger(cursor, trigger_id)
    for resource, action in pairs:
        if (resource, action) not in present:
            add_trigger(cursor, hook_id, resource, action)
    return list_triggers(cursor, hook_id, 0, -1)
