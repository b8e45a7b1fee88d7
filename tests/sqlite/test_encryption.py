"""Secrets in the file: encrypted with keys that the file does not hold."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from procore_hooks import (
    InvalidInput,
    KeyRing,
    SecretUnreadable,
    SQLiteStorage,
    Storage,
    StorageError,
)
from procore_hooks.storage._base import HookQuery
from procore_hooks.storage.sqlite import encryption
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0
from procore_hooks.testing.storage_contract import StorageContract

from .key_rings import (
    BOTH,
    NEW,
    OLD,
    OLD_KEY,
    SECRETS,
    WRONG,
    Open,
    Rows,
    bytes_of,
    columns_of,
    key_ids,
    secretive,
    shows_no_secret,
)


class TestEncryptedSQLiteStorage(StorageContract):
    """Everything that `Storage` says holds with keys too."""

    model_steps = 20  # TestSQLiteStorage plays them to the end

    @pytest.fixture
    def storage(self, path: Path) -> Iterator[SQLiteStorage]:
        storage = SQLiteStorage(path, durability="normal", keys=BOTH)
        yield storage
        storage.close()

    @pytest.fixture
    def reopen(self, path: Path) -> Callable[[], Storage]:
        return lambda: SQLiteStorage(path, durability="normal", keys=BOTH)


def test_a_file_without_keys_needs_no_package(tmp_path: Path) -> None:
    """Whoever has no keys needs no `cryptography`, not even for a file that others encrypt."""
    SQLiteStorage(tmp_path / "hooks.db", keys=NEW).close()
    code = """
import logging, sys
logging.disable()
sys.modules["cryptography"] = None
from procore_hooks import HookRegistry, SQLiteStorage
with HookRegistry(SQLiteStorage("hooks.db")) as registry:
    hook = registry.hooks.create("https://hooks.example/in", namespace="acme", destination_headers={"X-Key": "plain"})
    registry.triggers.create(hook.id, "*", "*")
    assert registry.hooks.get(hook.id) == hook
    assert len(registry.emit("RFIs", "update").delivery_ids) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize("keys", [{"2025-01": OLD_KEY}, OLD_KEY, OLD_KEY.hex(), KeyRing])
def test_keys_that_are_no_ring(path: Path, keys: Any) -> None:
    """A storage takes a KeyRing and nothing else, and makes no file before it has looked."""
    with pytest.raises(InvalidInput, match=r"^keys: a value of type ") as raised:
        SQLiteStorage(path, keys=keys)
    assert shows_no_secret(str(raised.value))
    assert not path.exists()


def test_no_secret_is_in_the_file(open_with: Open, path: Path, rows: Rows) -> None:
    """Headers and signing secrets, old ones too, are nowhere in the file or its WAL, through all that writes a hook."""
    storage = open_with(NEW)
    for _ in range(20):
        hook = storage.add_hook(secretive())
    assert storage.get_hook(hook.id) == attrs.evolve(secretive(), id=hook.id)
    storage.update_hook(hook.id, {"namespace": "other"}, T0)
    storage.disable_hook(hook.id, T0, None)
    assert storage.enable_hook(hook.id, T0) == storage.get_hook(hook.id)
    assert storage.list_hooks(HookQuery())[-1] == storage.get_hook(hook.id)
    assert key_ids(rows) == [("2026-11", "2026-11")] * 20
    held = bytes_of(path)
    assert [secret for secret in SECRETS if secret[7:19].encode() in held] == []
    assert b"https://hooks.example/in" in held  # as the docs say
    plain = open_with(None)
    plain.add_hook(secretive())
    assert all(secret.encode() in bytes_of(path) for secret in SECRETS)  # it would be seen


def test_moved_ciphertexts_do_not_decrypt(open_with: Open, rows: Rows) -> None:
    """Who can write to the file cannot give one hook the secrets of another, nor swap columns."""
    storage = open_with(NEW)
    one, other = storage.add_hook(secretive()), storage.add_hook(secretive())
    headers, secrets = columns_of(rows, one.id)
    for column, text in (("destination_headers", headers), ("signing_secrets", secrets)):
        before = columns_of(rows, other.id)
        rows(f"UPDATE procore_hooks_hooks SET {column} = ? WHERE id = ?", text, other.id)
        with pytest.raises(SecretUnreadable, match=f"^hook {other.id}, {column}: ") as raised:
            storage.get_hook(other.id)
        assert raised.value.key_id == "2026-11"
        rows(
            "UPDATE procore_hooks_hooks SET destination_headers = ?, signing_secrets = ? WHERE id = ?",
            *before,
            other.id,
        )
    assert storage.get_hook(other.id).id == other.id
    rows("UPDATE procore_hooks_hooks SET destination_headers = ?, signing_secrets = ? WHERE id = 1", secrets, headers)
    with pytest.raises(SecretUnreadable, match=r"^hook 1, destination_headers: "):
        storage.get_hook(one.id)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (None, "opened without keys: use SQLiteStorage(path, keys=KeyRing(...))"),
        (NEW, "encrypted with the key '2025-01', and the KeyRing has only 2026-11: add that key"),
        (WRONG, "does not decrypt with the key '2025-01': the KeyRing has another key under this id, or "),
    ],
    ids=["no keys", "missing", "wrong"],
)
def test_a_key_that_is_not_there(open_with: Open, rows: Rows, keys: KeyRing | None, says: str) -> None:
    """Opening works; what needs the secrets raises one typed error that names the hook and the key's id and shows
    nothing more. What needs none works: emitting, triggers, deleting.
    """
    hook = open_with(OLD).add_hook(secretive())
    stored = columns_of(rows, hook.id)
    storage = open_with(keys)
    for call in (
        lambda: storage.get_hook(hook.id),
        lambda: storage.list_hooks(HookQuery()),
        lambda: storage.update_hook(hook.id, {"namespace": "other"}, T0),
        lambda: storage.enable_hook(hook.id, T0),
        lambda: storage.disable_hook(hook.id, T0, "dropped"),
    ):
        with pytest.raises(SecretUnreadable) as raised:
            call()
        assert isinstance(raised.value, StorageError)
        assert raised.value.key_id == "2025-01"
        assert says in str(raised.value)
        assert str(raised.value).startswith(f"hook {hook.id}, destination_headers: ")
        assert shows_no_secret(str(raised.value), stored[0][20:40])
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    assert columns_of(rows, hook.id) == stored
    storage.add_trigger(hook.id, "RFIs", "update")
    storage.replace_triggers(hook.id, [("RFIs", "*")])
    assert len(make.emit(storage).delivery_ids) == 1
    storage.delete_hook(hook.id, T0, "deleted")
    assert key_ids(rows) == [("", "")]


def damaged(text: str) -> Iterator[str]:
    """The text in many damaged forms."""
    start = text.rindex(":") + 1
    # Not the last of base64, whose last bits may mean nothing.
    for index in (0, 9, start, start + 20, len(text) - 30, len(text) - 6):
        yield text[:index] + ("A" if text[index] != "A" else "B") + text[index + 1 :]
    yield from (text[:-4], text[: start + 16], text[:start], text[: start - 1], text[:9], "", " " + text)
    yield text[:start] + "*" + text[start:]
    yield text[:start] + "é" + text[start:]
    yield text.replace("2025-01", "")
    yield text.replace("2025-01", "planted secret")
    yield "planted secret"


def test_damaged_ciphertexts(open_with: Open, rows: Rows) -> None:
    """Whatever the columns hold, it is read rightly or raises `SecretUnreadable`, and nothing of it is shown."""
    storage = open_with(OLD)
    hook = storage.add_hook(secretive())
    whole = columns_of(rows, hook.id)
    for column, text in zip(("destination_headers", "signing_secrets"), whole, strict=True):
        forms = list(damaged(text))
        assert text not in forms
        for form in forms:
            rows(f"UPDATE procore_hooks_hooks SET {column} = ?", form)
            with pytest.raises(SecretUnreadable, match=f"^hook {hook.id}, {column}: ") as raised:
                storage.get_hook(hook.id)
            assert shows_no_secret(str(raised.value), "planted secret", text[-20:])
            assert raised.value.key_id in (None, "2025-01", "A025-01")
        rows(f"UPDATE procore_hooks_hooks SET {column} = ?", text)
    assert storage.get_hook(hook.id) == hook


def test_keys_on_a_file_that_is_there(open_with: Open, rows: Rows) -> None:
    """Plain hooks are read as they are, and encrypted when they are next written; others stay plain until then."""
    plain = open_with(None)
    hooks = [plain.add_hook(secretive()) for _ in range(4)]
    storage = open_with(NEW)
    assert storage.list_hooks(HookQuery()) == hooks
    storage.update_hook(hooks[0].id, {"namespace": "other"}, T0)
    storage.enable_hook(hooks[1].id, T0)
    storage.disable_hook(hooks[2].id, T0, None)
    assert key_ids(rows) == [("2026-11", "2026-11")] * 3 + [("", "")]
    assert [hook.signing_secret for hook in storage.list_hooks(HookQuery())] == [hooks[0].signing_secret] * 4


@pytest.mark.parametrize("statement", ["_PAGE", "_OF_HOOKS", "_REWRITE", "_SET_ASIDE"])
def test_statements_find_their_rows_by_an_index(open_with: Open, rows: Rows, statement: str) -> None:
    """None looks at a whole table, and none sorts."""
    open_with(NEW).add_hook(secretive())
    sql = getattr(encryption, statement)
    steps = [row[3] for row in rows(f"EXPLAIN QUERY PLAN {sql}", *["[]"] * sql.count("?"))]
    on_tables = [step for step in steps if re.search(r"\b(h|procore_hooks_\w+)\b", step)]
    assert on_tables
    assert all(step.startswith("SEARCH") and "INTEGER PRIMARY KEY" in step for step in on_tables), steps
    assert not any("TEMP B-TREE" in step for step in steps)


def test_every_statement_is_listed_above() -> None:
    """The test above leaves no statement of the module out."""
    statements = {name for name, value in vars(encryption).items() if isinstance(value, str) and " WHERE " in value}
    statements |= {name for name, value in vars(encryption).items() if isinstance(value, str) and "\nSELECT" in value}
    assert statements == {"_PAGE", "_OF_HOOKS", "_REWRITE", "_SET_ASIDE"}
