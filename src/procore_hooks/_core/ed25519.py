"""Keys and signatures of ed25519 (RFC 8032) in the textual form of Standard Webhooks 1.0.

``whsk_`` stands before the base64 of a private key: 64 bytes, the seed and then the public key. The specification does
not say how many; this is what the Svix server, of the same authors, reads and writes. The seed alone, 32 bytes, is read
too. ``whpk_`` stands before the base64 of a public key, 32 bytes.

The arithmetic of a signature is that of the package `cryptography`. It comes with the extra ``crypto`` and is imported
when a key is used, so that whoever has no such key needs no such package.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NoReturn

from ..exceptions import InvalidInput
from .secret import Secret, reveal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "PRIVATE_PREFIX",
    "PUBLIC_PREFIX",
    "VERSION",
    "PrivateKey",
    "PublicKey",
    "decoded",
    "public_key_of",
    "secret_from_seed",
]

PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"
# What stands before the comma of such a signature.
VERSION: Final = "v1a"

_FIELD = "signing_secret"
_SEED = 32
_TEXT_OF_32 = re.compile(r"[A-Za-z0-9+/]{43}=?", re.ASCII)
_TEXT_OF_64 = re.compile(r"[A-Za-z0-9+/]{86}(?:==)?", re.ASCII)
_MOST_REMEMBERED = 256

# The curve of RFC 8032, section 5.1.
_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P


class PrivateKey:
    """What signs. Any thread may use it.

    Attributes:
        text: seed and public key, ``whsk_`` and base64 of 64 bytes, whichever form it came in.
        public_text: the public key, ``whpk_`` and base64.

    Raises `InvalidInput`, which does not show the text, for one that holds no private key, or a pair that is none, and
    if the package `cryptography` is missing.
    """

    __slots__ = ("_key", "public_text", "text")

    def __init__(self, text: str) -> None:
        raw = _raw_private(text)
        self._key = _private(raw[:_SEED])
        public = self._key.public_key().public_bytes_raw()
        # Cut, or put together from two: receivers would be given a key that verifies nothing.
        if raw[_SEED:] not in (b"", public):
            _refuse("the public key in its second half is not that of its first: use the pair as it was made")
        self.text = Secret(PRIVATE_PREFIX + _base64(raw[:_SEED] + public))
        self.public_text = PUBLIC_PREFIX + _base64(public)

    def signature(self, head: bytes, body: bytes) -> str:
        """``v1a,<base64>`` of `head` and `body` together."""
        return f"{VERSION},{_base64(self._key.sign(head + body))}"


class PublicKey:
    """What verifies. Any thread may use it.

    Raises `InvalidInput` for a text that holds no public key, for one that anyone could sign for, and if the package
    `cryptography` is missing.
    """

    __slots__ = ("_key",)

    def __init__(self, text: str) -> None:
        encoded = text.removeprefix(PUBLIC_PREFIX)
        if not _TEXT_OF_32.fullmatch(encoded):
            _refuse(f"it is not base64 of 32 bytes with {PUBLIC_PREFIX!r} before it: use all of the public key")
        raw = decoded(encoded)
        if not _is_sound(raw):
            _refuse("its 32 bytes are no public key of ed25519: use it as it was given")
        self._key = _public(raw)

    @staticmethod
    @lru_cache(maxsize=_MOST_REMEMBERED)
    def of(text: str) -> PublicKey:
        """The key of this text: a receiver has the same one for each request."""
        return PublicKey(text)

    def matches(self, signature: str, message: bytes) -> bool:
        """Whether `signature`, ``v1a,<base64>``, is one of `message`. Never raises, whatever the text is."""
        from cryptography.exceptions import InvalidSignature

        version, _, encoded = signature.partition(",")
        if version != VERSION or not _TEXT_OF_64.fullmatch(encoded):
            return False
        raw = decoded(encoded)
        # One text for each signature, as with v1: neither the padding nor the bits that base64 leaves over vary.
        if _base64(raw) != encoded:
            return False
        try:
            self._key.verify(raw, message)
        except InvalidSignature:
            return False
        return True


def secret_from_seed(seed: bytes) -> Secret:
    """The private key of 32 random bytes, as text. Raises `InvalidInput` if the package `cryptography` is missing."""
    return PrivateKey(PRIVATE_PREFIX + _base64(seed)).text


def public_key_of(secret: str | Secret) -> str | None:
    """The public key of a private one, both as text; None if `secret` is of another kind."""
    text = reveal(secret)
    if not text.startswith(PRIVATE_PREFIX):
        return None
    # In the pair it can be read, so that showing it needs no package.
    public = _raw_private(text)[_SEED:]
    return PUBLIC_PREFIX + _base64(public) if public else PrivateKey(text).public_text


def _raw_private(text: str) -> bytes:
    encoded = text.removeprefix(PRIVATE_PREFIX)
    if not (_TEXT_OF_64.fullmatch(encoded) or _TEXT_OF_32.fullmatch(encoded)):
        _refuse(
            f"it is not base64 of 64 bytes (seed and public key), or of 32 (the seed), with {PRIVATE_PREFIX!r} before "
            "it: use all of the private key"
        )
    return decoded(encoded)


def _is_sound(key: bytes) -> bool:
    """Whether `key` is a point (RFC 8032, section 5.1.3) of large order.

    Of the few points whose order divides 8 anybody can make signatures; the bytes of an empty setting are such a point.
    """
    y = int.from_bytes(key, "little") & (2**255 - 1)
    if y >= _P:
        return False
    square = y * y
    numerator, denominator = square - 1, _D * square + 1
    # Orders 4, 1 and 2, and 8: a point whose double has y = 0.
    if y * numerator * (_D * square * square + 2 * square - 1) % _P == 0:
        return False
    # x * x = numerator / denominator has a root: Euler's criterion.
    return pow(numerator * denominator, (_P - 1) // 2, _P) == 1


def _private(seed: bytes) -> Ed25519PrivateKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise _missing() from error
    try:
        return Ed25519PrivateKey.from_private_bytes(seed)
    except UnsupportedAlgorithm:
        raise _unsupported() from None


def _public(raw: bytes) -> Ed25519PublicKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise _missing() from error
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except UnsupportedAlgorithm:
        raise _unsupported() from None


def _missing() -> InvalidInput:
    return InvalidInput(_FIELD, "keys for ed25519 need the package 'cryptography': pip install 'procore-hooks[crypto]'")


def _unsupported() -> InvalidInput:
    # OpenSSL in FIPS mode.
    return InvalidInput(_FIELD, "the OpenSSL of this process offers no ed25519: use a secret that begins with 'whsec_'")


def _refuse(problem: str) -> NoReturn:
    raise InvalidInput(_FIELD, problem)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def decoded(encoded: str) -> bytes:
    """The bytes of base64, padded or not. Raises `binascii.Error` for text that was cut short."""
    bare = encoded.rstrip("=")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
