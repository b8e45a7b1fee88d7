"""The columns that hold secrets: encrypted where there is a `KeyRing`, and brought to its current key.

They are ``destination_headers`` and ``signing_secrets`` of ``procore_hooks_hooks``. A plain one is read as it is, so
that a file may get its first `KeyRing` at any time; whatever writes a hook encrypts both anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from ...exceptions import SecretUnreadable
from ...keyring import DAMAGED, KeyRing, key_id_of
from .connection import Database

__all__ = ["decrypted", "encrypted", "reencrypt", "set_aside"]

_TABLE: Final = "procore_hooks_hooks"
_COLUMNS: Final = ("destination_headers", "signing_secrets")
# So many hooks are looked at, and at most rewritten, in one transaction: a few milliseconds.
_AT_ONCE: Final = 100
_LOOK_AGAIN: Final = 10_000_000  # microseconds

_PAGE: Final = """
SELECT h.id, h.destination_headers, h.signing_secrets FROM procore_hooks_hooks h
WHERE h.id > ? AND h.deleted_at IS NULL ORDER BY h.id LIMIT ?
"""
_OF_HOOKS: Final = """
SELECT h.id, h.destination_headers, h.signing_secrets
FROM json_each(?) j CROSS JOIN procore_hooks_hooks h ON h.id = j.value WHERE h.deleted_at IS NULL
"""
_REWRITE: Final = "UPDATE procore_hooks_hooks SET destination_headers = ?, signing_secrets = ? WHERE id = ?"
_SET_ASIDE: Final = """
UPDATE procore_hooks_queues SET ready_at = ? WHERE hook_id IN (SELECT value FROM json_each(?))
"""


def encrypted(keys: KeyRing | None, hook_id: int, column: str, text: str) -> str:
    """What to store for `text` in this column of this hook."""
    return text if keys is None else keys.encrypt(text, table=_TABLE, row_id=hook_id, column=column)


def decrypted(keys: KeyRing | None, hook_id: int, column: str, text: str) -> str:
    """What `encrypted` was given, or `text` itself if it is plain. Raises `SecretUnreadable`."""
    if text[:1] in ("{", "["):
        return text
    where, key_id = f"hook {hook_id}, {column}", key_id_of(text)
    if key_id is not None and keys is None:
        raise SecretUnreadable(
            key_id,
            f"{where}: it is encrypted with the key {key_id!r}, and the storage was opened without keys: use "
            "SQLiteStorage(path, keys=KeyRing(...))",
        )
    if key_id is None or keys is None:
        raise SecretUnreadable(None, f"{where}: {DAMAGED}")
    try:
        return keys.decrypt(text, table=_TABLE, row_id=hook_id, column=column)
    except SecretUnreadable as error:
        raise SecretUnreadable(error.key_id, f"{where}: {error.problem}") from None


def reencrypt(database: Database, keys: KeyRing) -> int:
    """Bring every hook to the current key, some at a time. Returns how many were rewritten.

    Hooks that do not decrypt are left as they are, and once the others are done the error of the first is raised.
    """
    rewritten, unreadable, after = 0, None, 0
    while True:
        rows = database.read(_page_of_hooks, after)
        if not rows:
            break
        after = rows[-1][0]
        stale = [hook_id for hook_id, *texts in rows if not all(map(keys.is_current, texts))]
        if stale:
            count, error = database.write(_rewrite, keys, stale)
            rewritten += count
            unreadable = unreadable or error
    if unreadable is not None:
        raise unreadable
    return rewritten


def _page_of_hooks(cursor: sqlite3.Cursor, after: int) -> list[Any]:
    return cursor.execute(_PAGE, (after, _AT_ONCE)).fetchall()


def _rewrite(cursor: sqlite3.Cursor, keys: KeyRing, hook_ids: Sequence[int]) -> tuple[int, SecretUnreadable | None]:
    """Encrypt these hooks anew, as they are now: they may have been changed since they were looked at."""
    rewritten, unreadable = 0, None
    for hook_id, *texts in cursor.execute(_OF_HOOKS, (json.dumps(hook_ids),)).fetchall():
        if all(map(keys.is_current, texts)):
            continue
        columns = list(zip(_COLUMNS, texts, strict=True))
        try:
            plain = [(column, decrypted(keys, hook_id, column, text)) for column, text in columns]
        except SecretUnreadable as error:
            unreadable = unreadable or error
            continue
        cursor.execute(_REWRITE, (*(encrypted(keys, hook_id, *one) for one in plain), hook_id))
        rewritten += 1
    return rewritten, unreadable


def set_aside(cursor: sqlite3.Cursor, hook_ids: Sequence[int], due: int) -> None:
    """Let these queues wait for a little: what they hold stays, and others have their turn meanwhile."""
    cursor.execute(_SET_ASIDE, (due + _LOOK_AGAIN, json.dumps(hook_ids)))
