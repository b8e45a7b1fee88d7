"""Keys by their ids: what is refused, what is shown, and that a ciphertext belongs to its place."""

from __future__ import annotations

import base64
import copy
import pickle
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from procore_hooks import (
    InvalidInput,
    KeyRing,
    Secret,
    SecretUnreadable,
)

from ..sqlite.key_rings import (
    BOTH,
    OLD,
    OLD_KEY,
    shows_no_secret,
)

PLACE: dict[str, Any] = {"table": "procore_hooks_hooks", "row_id": 7, "column": "signing_secrets"}
KEY_TEXT = base64.b64encode(OLD_KEY).decode()


@pytest.mark.parametrize("key", [OLD_KEY, KEY_TEXT, KEY_TEXT.rstrip("="), Secret(KEY_TEXT)], ids=range(4))
def test_a_key_in_each_form(key: bytes | str | Secret) -> None:
    """32 bytes, base64 of them with or without padding, and a Secret of it, are the same key."""
    ring = KeyRing({"2025-01": key}, current="2025-01")
    assert ring.decrypt(OLD.encrypt("text", **PLACE), **PLACE) == "text"


def test_a_new_key_is_a_key() -> None:
    """`generate_key` gives base64 text of 32 bytes, another one each time."""
    keys = {f"key_{number}": KeyRing.generate_key() for number in range(9)}
    assert len(set(keys.values())) == 9
    assert {len(base64.b64decode(key, validate=True)) for key in keys.values()} == {32}
    ring = KeyRing(keys, current="key_4")
    assert (ring.ids, ring.current) == (tuple(keys), "key_4")


@pytest.mark.parametrize(
    ("keys", "current", "field"),
    [
        ({}, "a", "keys"),
        (None, "a", "keys"),
        ([("a", OLD_KEY)], "a", "keys"),
        (KEY_TEXT, "a", "keys"),
        ({"": OLD_KEY}, "", "keys"),
        ({"a b": OLD_KEY}, "a b", "keys"),
        ({"a:": OLD_KEY}, "a:", "keys"),
        ({"a\n": OLD_KEY}, "a\n", "keys"),
        ({"ä": OLD_KEY}, "ä", "keys"),
        ({"a" * 33: OLD_KEY}, "a" * 33, "keys"),
        ({1: OLD_KEY}, 1, "keys"),
        ({OLD_KEY: "a"}, OLD_KEY, "keys"),
        ({KEY_TEXT: "a"}, KEY_TEXT, "keys"),
        ({"a": OLD_KEY[:31]}, "a", "keys['a']"),
        ({"a": OLD_KEY * 2}, "a", "keys['a']"),
        ({"a": KEY_TEXT.encode()}, "a", "keys['a']"),
        ({"a": KEY_TEXT + "\n"}, "a", "keys['a']"),
        ({"a": KEY_TEXT[:-2]}, "a", "keys['a']"),
        ({"a": Secret(KEY_TEXT[1:])}, "a", "keys['a']"),
        ({"a": OLD_KEY.hex()}, "a", "keys['a']"),
        ({"a": base64.urlsafe_b64encode(b"\xff" * 32).decode()}, "a", "keys['a']"),
        ({"a": ""}, "a", "keys['a']"),
        ({"a": None}, "a", "keys['a']"),
        ({"a": bytearray(OLD_KEY)}, "a", "keys['a']"),
        ({"a": OLD_KEY, "b": 7}, "a", "keys['b']"),
        ({"a": OLD_KEY}, "b", "current"),
        ({"a": OLD_KEY}, None, "current"),
        ({"a": OLD_KEY}, OLD_KEY, "current"),
        ({"a": OLD_KEY}, KEY_TEXT, "current"),
        ({"a": OLD_KEY}, ["a"], "current"),
    ],
)
def test_wrong_keys_are_refused(keys: Any, current: Any, field: str) -> None:
    """A ring of wrong ids or keys raises `InvalidInput` that names the field and shows nothing that may be a key."""
    with pytest.raises(InvalidInput) as raised:
        KeyRing(keys, current=current)
    assert raised.value.field == field
    assert shows_no_secret(str(raised.value), KEY_TEXT[1:20], OLD_KEY.hex()[:20], "_____")
    assert ": use " in str(raised.value)


def test_a_ring_shows_ids_and_no_keys() -> None:
    """Printed, a ring shows the ids; it does not pickle, and no attribute of it gives a key."""
    assert repr(BOTH) == str(BOTH) == f"{BOTH}" == "KeyRing(current='2026-11', ids=('2025-01', '2026-11'))"
    assert not hasattr(BOTH, "__dict__")
    for refused in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a KeyRing does not pickle"):
            refused(BOTH)
    with pytest.raises(AttributeError):
        BOTH.current = "2025-01"  # type: ignore[misc]


def test_what_was_encrypted_once_stays_readable() -> None:
    """The text that releases have stored: marker, key id, base64 of nonce and ciphertext, bound to its place."""
    stored = "aes256gcm:2025-01:AAECAwQFBgcICQoLHCChc7aAoUTuc8Hh0oQuXaGLJUirB+PHlcy1TU7ZvYMLuw=="
    assert OLD.decrypt(stored, **PLACE) == '["whsec_c2VjcmV0"]'


def test_the_same_text_is_encrypted_anew_each_time() -> None:
    """A nonce is never used twice: a thousand ciphertexts of one text have a thousand."""
    texts = [BOTH.encrypt("text", **PLACE) for _ in range(1000)]
    assert len({base64.b64decode(text.rpartition(":")[2])[:12] for text in texts}) == 1000
    assert all(text.startswith("aes256gcm:2026-11:") for text in texts)


@pytest.mark.parametrize("other", [{"table": "other"}, {"row_id": 8}, {"column": "destination_headers"}], ids=str)
def test_a_ciphertext_belongs_to_its_place(other: Mapping[str, Any]) -> None:
    """In another table, row or column it does not decrypt."""
    with pytest.raises(SecretUnreadable, match="'2025-01'"):
        OLD.decrypt(OLD.encrypt("text", **PLACE), **PLACE | other)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `cryptography` is missing, a ring says which extra to install."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(InvalidInput, match=r"^keys: .*'cryptography': pip install 'procore-hooks\[crypto\]'$"):
        KeyRing({"a": OLD_KEY}, current="a")
