"""From plain to encrypted, and from one key to the next, beside everything else that goes on."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from procore_hooks import (
    Hook,
    InvalidInput,
    KeyRing,
    NotFound,
    Secret,
    SecretUnreadable,
)
from procore_hooks.storage._base import HookQuery
from procore_hooks.storage.sqlite import encryption
from procore_hooks.storage.sqlite.connection import Database
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

from .key_rings import (
    BOTH,
    NEW,
    OLD,
    SECRETS,
    Open,
    Rows,
    bytes_of,
    key_ids,
    secretive,
)


def test_rotation(open_with: Open, rows: Rows, outside: sqlite3.Connection) -> None:
    """With a new current key old text is read and new text is written by the new key; after `reencrypt` the old key
    may go, and a second `reencrypt` finds nothing to write. Deleted hooks, which hold no secrets, are left alone.
    """
    old = open_with(OLD)
    hooks = [old.add_hook(secretive(namespace=f"n{number}")) for number in range(5)]
    old.delete_hook(hooks[2].id, T0, "deleted")
    plain = open_with(None).add_hook(secretive())
    # One of the columns as it should be, and not the other.
    current = NEW.encrypt("{}", table="procore_hooks_hooks", row_id=hooks[3].id, column="destination_headers")
    rows("UPDATE procore_hooks_hooks SET destination_headers = ? WHERE id = ?", current, hooks[3].id)
    hooks[3] = attrs.evolve(hooks[3], destination_headers={})
    storage = open_with(BOTH)
    kept = [*hooks[:2], *hooks[3:], plain]
    assert storage.list_hooks(HookQuery()) == kept
    kept[0] = storage.update_hook(hooks[0].id, {"namespace": "other"}, at(1))
    assert key_ids(rows)[0] == ("2026-11", "2026-11")
    before = rows("SELECT * FROM procore_hooks_hooks WHERE id IN (?, ?)", hooks[0].id, hooks[2].id)
    assert storage.reencrypt() == 4
    assert rows("SELECT * FROM procore_hooks_hooks WHERE id IN (?, ?)", hooks[0].id, hooks[2].id) == before
    assert [ids for ids in key_ids(rows) if ids != ("", "")] == [("2026-11", "2026-11")] * 5
    outside.execute("BEGIN IMMEDIATE")
    assert open_with(BOTH, busy_timeout=0).reencrypt() == 0
    outside.execute("ROLLBACK")
    assert open_with(NEW).list_hooks(HookQuery()) == kept


def test_reencrypt_needs_keys(open_with: Open) -> None:
    """Without keys there is nothing that it could do."""
    with pytest.raises(InvalidInput, match=r"^keys: the storage was opened without: use SQLiteStorage\(path, keys="):
        open_with(None).reencrypt()


def test_reencrypt_leaves_out_what_it_cannot_read(open_with: Open, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that does not decrypt is left as it is; all others are done, and then the error tells."""
    monkeypatch.setattr(encryption, "_AT_ONCE", 2)
    lost = KeyRing({"lost": bytes(32)}, current="lost")
    open_with(OLD).add_hook(secretive())
    for _ in range(2):
        open_with(lost).add_hook(secretive())
    for _ in range(2):
        open_with(OLD).add_hook(secretive())
    storage = open_with(BOTH)
    with pytest.raises(SecretUnreadable, match=r"^hook 2, destination_headers: .*'lost'"):
        storage.reencrypt()
    assert [headers for headers, _ in key_ids(rows)] == ["2026-11", "lost", "lost", "2026-11", "2026-11"]
    for hook_id in (2, 3):
        storage.delete_hook(hook_id, T0, "its key is lost")
    assert storage.reencrypt() == 0


INTERRUPTED = """
import logging, os, signal, sys
logging.disable()
from procore_hooks import KeyRing, SQLiteStorage
from procore_hooks.storage.sqlite import encryption

path, left = sys.argv[1], int(sys.argv[2])
encrypted = encryption.encrypted

def dying(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return encrypted(*arguments)

encryption.encrypted = dying
encryption._AT_ONCE = 10
keys = KeyRing({"2025-01": bytes(range(32)), "2026-11": bytes(range(100, 132))}, current="2026-11")
SQLiteStorage(path, durability="normal", keys=keys).reencrypt()
"""


def test_reencrypt_goes_on_after_kill_9(open_with: Open, path: Path, rows: Rows) -> None:
    """Killed in the midst of any batch, it has done the batches before and nothing of that one; every hook is readable,
    and another call does the rest and says how much that was.
    """
    old = open_with(OLD)
    hooks = [old.add_hook(secretive(namespace=f"n{number}")) for number in range(45)]
    storage = open_with(BOTH)
    done = 0
    for columns, batches in ((0, 0), (7, 0), (21, 1), (39, 1)):
        run = subprocess.run([sys.executable, "-c", INTERRUPTED, str(path), str(columns)], capture_output=True)
        assert run.returncode == -signal.SIGKILL, run.stderr
        done += 10 * batches
        assert key_ids(rows) == [("2026-11", "2026-11")] * done + [("2025-01", "2025-01")] * (45 - done)
        assert storage.list_hooks(HookQuery(limit=100)) == hooks
    assert storage.reencrypt() == 45 - done == 25
    assert open_with(NEW).list_hooks(HookQuery(limit=100)) == hooks
    assert rows("PRAGMA integrity_check") == [("ok",)]


def test_a_hook_that_changes_under_reencrypt(open_with: Open, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others do to a hook between the look at it and its rewriting stays as they did it."""
    old, new = open_with(OLD), open_with(BOTH)
    hooks = [old.add_hook(secretive()) for _ in range(4)]
    changes = {"destination_headers": {"Authorization": Secret("Bearer changed")}}
    changed: list[Hook] = []
    write, interfere = Database.write, iter([True])

    def interfering(database: Database, *arguments: Any) -> Any:
        if next(interfere, False):
            changed.append(old.update_hook(hooks[0].id, changes, at(1)))
            changed.append(new.update_hook(hooks[1].id, changes, at(1)))
            old.delete_hook(hooks[2].id, at(1), "deleted")
        return write(database, *arguments)

    storage = open_with(BOTH)
    monkeypatch.setattr(Database, "write", interfering)
    assert storage.reencrypt() == 2
    monkeypatch.undo()
    assert open_with(NEW).list_hooks(HookQuery()) == [*changed, hooks[3]]
    with pytest.raises(NotFound):
        storage.get_hook(hooks[2].id)
    assert key_ids(rows)[2] == ("", "")


def test_reencrypt_beside_everything(open_with: Open, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """While threads emit, claim, update, add and delete, `reencrypt` goes on; nobody meets an error, and in the end
    each hook is as its last update left it, and encrypted with the current key.
    """
    monkeypatch.setattr(encryption, "_AT_ONCE", 5)
    old = open_with(OLD)
    hooks = [make.listening(old, destination_headers={"X-Key": Secret("0")}) for _ in range(40)]
    storage = open_with(BOTH)
    last: dict[int, Hook] = {}
    errors: list[BaseException] = []
    updated = threading.Event()

    def guard(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                call()
            except BaseException as error:
                errors.append(error)

        return run

    def update() -> None:
        for number in range(3):
            for hook in hooks[:20]:
                changes = {"destination_headers": {"X-Key": Secret(f"{number} of {hook.id}")}}
                last[hook.id] = storage.update_hook(hook.id, changes, at(number))
        updated.set()

    def delete() -> None:
        for hook in hooks[20:25]:
            storage.delete_hook(hook.id, T0, "deleted")
            last[storage.add_hook(secretive()).id] = secretive()

    def deliver() -> None:
        while not updated.is_set():
            make.emit(storage)
            turn = make.turn(storage)
            make.turn(storage, *map(make.accepted, turn.claims), capacity=0)
            assert all(claim.hook.destination_headers["X-Key"].reveal()[0] in "012" for claim in turn.claims)

    counts: list[int] = []
    calls = (update, delete, deliver, lambda: counts.append(storage.reencrypt()))
    threads = [threading.Thread(target=guard(call)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert errors == []
    assert storage.reencrypt() == 0
    assert counts[0] <= 40
    current = {hook.id: hook for hook in open_with(NEW).list_hooks(HookQuery(limit=100))}
    assert {hook_id: hook.destination_headers for hook_id, hook in current.items() if hook_id in last} == {
        hook_id: hook.destination_headers for hook_id, hook in last.items()
    }
    assert all(current[hook.id].destination_headers["X-Key"] == Secret("0") for hook in hooks[25:])
    assert [ids for ids in key_ids(rows) if ids != ("2026-11", "2026-11")] == [("", "")] * 5


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_no_old_plaintext_is_left(open_with: Open, path: Path, journal_mode: str) -> None:
    """After `reencrypt`, VACUUM and a checkpoint, what was plain is nowhere in the file or its WAL any more."""
    plain = open_with(None, journal_mode=journal_mode)
    for number in range(60):
        plain.add_hook(secretive(namespace=f"n{number}"))
    plain.update_hook(1, {"namespace": "other"}, T0)
    plain.delete_hook(2, T0, "deleted")
    assert all(secret.encode() in bytes_of(path) for secret in SECRETS)
    storage = open_with(NEW, journal_mode=journal_mode)
    assert storage.reencrypt() == 59
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    held = bytes_of(path)
    assert [secret for secret in SECRETS if secret.encode() in held] == []
    assert storage.get_hook(1).signing_secret == Secret(SECRETS[1])
