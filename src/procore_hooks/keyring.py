"""Keys that a storage encrypts secrets with, by AES-256-GCM (NIST SP 800-38D).

Encrypted text is ``aes256gcm:<key id>:<base64 of nonce and ciphertext>``. Table, row and column are authenticated with
it, so that what was encrypted for one place does not decrypt in another. The arithmetic is that of the package
`cryptography`, which comes with the extra ``crypto`` and is imported when a `KeyRing` is made.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NoReturn

from ._core.secret import Secret, reveal
from .exceptions import InvalidInput, SecretUnreadable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["DAMAGED", "KeyRing", "key_id_of"]

DAMAGED: Final = "the text was damaged: restore it from a backup"

_MARKER: Final = "aes256gcm:"
_KEY_LENGTH: Final = 32
_NONCE_LENGTH: Final = 12
_ID = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_ENCRYPTED = re.compile(rf"{_MARKER}({_ID.pattern}):", re.ASCII)
_TEXT_OF_32_BYTES = re.compile(r"[A-Za-z0-9+/]{43}=?", re.ASCII)
_ID_RULE: Final = "1 to 32 of A-Z, a-z, 0-9, '_' and '-', such as '2026-11'"
_KEY_RULE: Final = "32 random bytes, or base64 text of them, such as KeyRing.generate_key() makes"


class KeyRing:
    """Keys for `SQLiteStorage(path, keys=...)`: the current one encrypts, all of them decrypt.

    ``KeyRing({"2026-11": key, "2025-01": old_key}, current="2026-11")``. Needs the extra ``crypto``. Printing one shows
    the ids only, and it does not pickle. Any thread may use it.

    Args:
        keys: each key by an id of 1 to 32 of ``A-Z``, ``a-z``, ``0-9``, ``_`` and ``-``, which is stored beside what
            the key encrypts. A key is 32 random bytes, as `bytes` or as base64 text, in a `Secret` or not.
        current: the id of the key that encrypts.

    Raises:
        InvalidInput: an id or a key is wrong, which is not shown, or the package `cryptography` is missing.
    """

    __slots__ = ("_ciphers", "_current")

    def __init__(self, keys: Mapping[str, bytes | str | Secret], *, current: str) -> None:
        if not isinstance(keys, Mapping) or not keys:
            raise InvalidInput("keys", "they are not a mapping of ids to keys, or an empty one: use {'2026-11': key}")
        cipher = _aesgcm()
        self._ciphers = {_checked_id(key_id): cipher(_raw(key_id, key)) for key_id, key in keys.items()}
        if not isinstance(current, str) or current not in self._ciphers:
            raise InvalidInput("current", f"it is not the id of one of the keys: use one of {', '.join(self.ids)}")
        self._current = current

    @staticmethod
    def generate_key() -> str:
        """A new key: 32 random bytes as base64 text. Keep it away from the database and its backups."""
        return base64.b64encode(os.urandom(_KEY_LENGTH)).decode("ascii")

    @property
    def current(self) -> str:
        """The id of the key that encrypts."""
        return self._current

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, sorted."""
        return tuple(sorted(self._ciphers))

    def encrypt(self, text: str, *, table: str, row_id: int, column: str) -> str:
        """`text` encrypted with the current key, for this place and no other."""
        nonce = os.urandom(_NONCE_LENGTH)
        sealed = self._ciphers[self._current].encrypt(nonce, text.encode(), _place(table, row_id, column))
        return f"{_MARKER}{self._current}:{base64.b64encode(nonce + sealed).decode('ascii')}"

    def decrypt(self, text: str, *, table: str, row_id: int, column: str) -> str:
        """What `encrypt` was given for this place.

        Raises:
            SecretUnreadable: its key is not here or is another one, or the text is damaged or from another place.
        """
        from cryptography.exceptions import InvalidTag

        key_id = key_id_of(text)
        if key_id is None:
            raise SecretUnreadable(None, DAMAGED)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            has = ", ".join(self.ids)
            raise SecretUnreadable(
                key_id, f"it is encrypted with the key {key_id!r}, and the KeyRing has only {has}: add that key"
            )
        try:
            raw = base64.b64decode(text[len(f"{_MARKER}{key_id}:") :], validate=True)
            plain = cipher.decrypt(raw[:_NONCE_LENGTH], raw[_NONCE_LENGTH:], _place(table, row_id, column))
        except (InvalidTag, ValueError):
            raise SecretUnreadable(
                key_id,
                f"it does not decrypt with the key {key_id!r}: the KeyRing has another key under this id, or the text "
                "was damaged or moved: give the right key, or restore the text from a backup",
            ) from None
        return plain.decode()

    def is_current(self, text: str) -> bool:
        """Whether `text` is encrypted with the current key."""
        return key_id_of(text) == self._current

    def __repr__(self) -> str:
        return f"KeyRing(current={self._current!r}, ids={self.ids!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyRing does not pickle, since a pickle would show its keys: make one in each process")


def key_id_of(text: str) -> str | None:
    """The id of the key that encrypted `text`; None if no `KeyRing` has made it, or if it was damaged."""
    found = _ENCRYPTED.match(text)
    return found[1] if found else None


def _place(table: str, row_id: int, column: str) -> bytes:
    return f"{table}/{row_id}/{column}".encode()


def _checked_id(key_id: object) -> str:
    # Not shown: it may be a key, where the two were given the wrong way round.
    if not isinstance(key_id, str) or not _ID.fullmatch(key_id):
        raise InvalidInput("keys", f"an id is something else than {_ID_RULE}: use such text for it")
    return key_id


def _raw(key_id: str, key: object) -> bytes:
    """The 32 bytes of a key that was given in any of its forms."""
    field = f"keys[{key_id!r}]"
    if isinstance(key, bytes):
        if len(key) != _KEY_LENGTH:
            raise InvalidInput(field, f"it has {len(key)} bytes: use {_KEY_RULE}")
        return key
    if not isinstance(key, str | Secret):
        raise InvalidInput(field, f"a value of type {type(key).__name__} is no key: use {_KEY_RULE}")
    text = reveal(key)
    if not _TEXT_OF_32_BYTES.fullmatch(text):
        raise InvalidInput(field, f"its text is not base64 of 32 bytes with nothing around it: use {_KEY_RULE}")
    return base64.b64decode(text.rstrip("=") + "=")


def _aesgcm() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise InvalidInput(
            "keys", "a KeyRing needs the package 'cryptography': pip install 'procore-hooks[crypto]'"
        ) from error
    return AESGCM
