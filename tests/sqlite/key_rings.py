"""What tests of encryption share: keys, hooks with planted secrets, and looks into the file."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from procore_hooks import (
    Hook,
    KeyRing,
    PreviousSecret,
    Secret,
    SQLiteStorage,
)
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import at

Rows = Callable[..., list[Any]]
Open = Callable[..., SQLiteStorage]

OLD_KEY, NEW_KEY = bytes(range(32)), bytes(range(100, 132))
OLD = KeyRing({"2025-01": OLD_KEY}, current="2025-01")
BOTH = KeyRing({"2025-01": OLD_KEY, "2026-11": NEW_KEY}, current="2026-11")
NEW = KeyRing({"2026-11": NEW_KEY}, current="2026-11")
WRONG = KeyRing({"2025-01": NEW_KEY}, current="2025-01")

SECRETS = ("Bearer planted-token", "whsec_cGxhbnRlZC1zaWduaW5nLXNlY3JldA==", "whsec_cGxhbnRlZC1vbGRlci1zZWNyZXQtb2Y=")


def secretive(**fields: Any) -> Hook:
    """A hook, not stored yet, that holds all three kinds of secrets."""
    hook = make.a_hook(
        destination_headers={"Authorization": Secret(SECRETS[0])},
        previous_secrets=(PreviousSecret(secret=Secret(SECRETS[2]), expires_at=at(60)),),
        **fields,
    )
    return attrs.evolve(hook, signing_secret=Secret(SECRETS[1]))


def shows_no_secret(text: str, *more: str) -> bool:
    """Whether neither the planted secrets nor a key, in any notation, are in the text, and it is one line."""
    keys = [form for key in (OLD_KEY, NEW_KEY) for form in (base64.b64encode(key).decode()[:20], repr(key), key.hex())]
    return "\n" not in text and not any(secret in text for secret in (*SECRETS, *keys, *more))


def bytes_of(path: Path) -> bytes:
    """The file and its WAL, read by another process: to close a file here would drop SQLite's locks on it."""
    read = "import pathlib, sys; sys.stdout.buffer.write(b''.join(pathlib.Path(p).read_bytes() for p in sys.argv[1:]))"
    files = [str(file) for file in sorted(path.parent.glob(f"{path.name}*")) if not file.name.endswith("-shm")]
    assert str(path) in files
    return subprocess.run([sys.executable, "-c", read, *files], capture_output=True, check=True).stdout


def columns_of(rows: Rows, hook_id: int) -> tuple[str, str]:
    """What the file holds of a hook's secrets."""
    return rows("SELECT destination_headers, signing_secrets FROM procore_hooks_hooks WHERE id = ?", hook_id)[0]


def key_ids(rows: Rows) -> list[tuple[str, str]]:
    """The ids of the keys that each hook's columns are encrypted with; ``""`` is plain."""

    def key_id(text: str) -> str:
        found = re.fullmatch(r"aes256gcm:([A-Za-z0-9_-]+):[A-Za-z0-9+/]+=*", text)
        return found[1] if found else ""

    found = rows("SELECT destination_headers, signing_secrets FROM procore_hooks_hooks ORDER BY id")
    return [(key_id(headers), key_id(secrets)) for headers, secrets in found]
