"""Signatures as Standard Webhooks 1.0 has them (https://www.standardwebhooks.com).

What is signed is ``<webhook-id>.<webhook-timestamp>.<body>``. A secret that both sides know (``whsec_``) signs with
HMAC-SHA256, ``v1,<base64>``; a private key (``whsk_``, see `ed25519`) with ed25519, ``v1a,<base64>``. The header
``webhook-signature`` holds one for each secret in use, so that a receiver may know the new secret or still the old one.

Verifying reads what anyone on the network may send. Whatever that is, it ends in a dict or in a `VerificationError`.
Mistakes of the receiver's own code, such as a secret that is none, are `InvalidInput`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

from ..exceptions import InvalidInput, VerificationError
from .ed25519 import PRIVATE_PREFIX, PUBLIC_PREFIX, VERSION, PrivateKey, PublicKey, decoded
from .secret import Secret, reveal

__all__ = ["SECRET_PREFIX", "Signer", "check_secret", "secret_from_bytes", "verify_at"]

SECRET_PREFIX: Final = "whsec_"

_FIELD = "signing_secret"
_MIN_KEY = 24
_MAX_KEY = 64
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,15}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# More than any sender's rotation makes; a hostile header may hold thousands.
_MAX_SIGNATURES = 100
# Each of these is hashed with the body and computed anew for each key, where the others are made once.
_MAX_ED25519_SIGNATURES = 20

# RFC 2104. Its block is as long as the longest key, so no key needs hashing first.
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


def secret_from_bytes(random: bytes) -> Secret:
    """A signing secret made of 24 to 64 random bytes: ``whsec_`` and their base64. Raises `InvalidInput`."""
    if not _MIN_KEY <= len(random) <= _MAX_KEY:
        raise InvalidInput("random", f"{len(random)} bytes do not make a signing secret: use {_MIN_KEY} to {_MAX_KEY}")
    return Secret(SECRET_PREFIX + base64.b64encode(random).decode("ascii"))


def check_secret(secret: str | Secret) -> Secret:
    """`secret`, wrapped, as it was given: base64 of 24 to 64 bytes, with or without ``whsec_`` before it.

    Or a private key, ``whsk_`` and base64; a bare seed comes back with its public key. Raises `InvalidInput`, which
    does not show it.
    """
    signs = _signing(secret)
    if isinstance(signs, PrivateKey):
        return signs.text
    return secret if isinstance(secret, Secret) else Secret(secret)


class _SharedKey:
    """What signs with HMAC-SHA256."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        # HMAC of the standard library wraps these two hashes; to copy them oneself takes two thirds of the time.
        padded = key.ljust(_MAX_KEY, b"\0")
        self._inner = hashlib.sha256(padded.translate(_INNER_PAD))
        self._outer = hashlib.sha256(padded.translate(_OUTER_PAD))

    def signature(self, head: bytes, body: bytes) -> str:
        """``v1,<base64>`` of `head` and `body` together."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(head)
        inner.update(body)
        outer.update(inner.digest())
        return "v1," + binascii.b2a_base64(outer.digest(), newline=False).decode("ascii")


class Signer:
    """Signs messages with one or several secrets, the current one first.

    Making one prepares the keys, which is half of the work of a signature: keep it while the secrets stay the same.
    Any thread may use it. Raises `InvalidInput` for no secret and for what `check_secret` refuses.
    """

    __slots__ = ("_signing",)

    def __init__(self, secrets: str | Secret | Sequence[str | Secret]) -> None:
        self._signing = tuple(_signing(secret) for secret in _several(secrets))

    def sign(self, webhook_id: str, timestamp: int, body: bytes) -> str:
        """The value of ``webhook-signature`` for a message sent at `timestamp`, in Unix seconds."""
        return " ".join(self.signatures(f"{webhook_id}.{timestamp}.".encode(), body))

    def signatures(self, head: bytes, body: bytes) -> list[str]:
        """One ``v1,<base64>`` or ``v1a,<base64>`` for each secret, of `head` (id, dot, timestamp, dot) and `body`."""
        return [one.signature(head, body) for one in self._signing]

    def __repr__(self) -> str:
        return f"Signer({len(self._signing)} secrets)"


class _Verifier:
    """Knows a signature of one or several secrets and public keys. Raises `InvalidInput` for what is none."""

    __slots__ = ("_public", "_shared")

    def __init__(self, secrets: str | Secret | Sequence[str | Secret]) -> None:
        self._shared: list[_SharedKey] = []
        self._public: list[PublicKey] = []
        for secret in _several(secrets):
            public = _public_text(secret)
            if public is None:
                self._shared.append(_SharedKey(_key(secret)))
            else:
                self._public.append(PublicKey.of(public))

    def knows(self, signatures: str, head: bytes, body: bytes) -> bool:
        """Whether one of `signatures`, the text of a header, is of `head` and `body`. Never raises."""
        given = signatures.split(" ", _MAX_SIGNATURES)[:_MAX_SIGNATURES]
        return self._knows_shared(given, head, body) or self._knows_public(given, head, body)

    def _knows_shared(self, given: list[str], head: bytes, body: bytes) -> bool:
        expected = [key.signature(head, body).encode("ascii") for key in self._shared]
        matches = False
        for one in given:
            # The text is compared, not what it decodes to: so nothing needs decoding that may not be base64 at all.
            text = one.encode("utf-8", "surrogatepass")
            for wanted in expected:
                matches |= hmac.compare_digest(text, wanted)
        return matches

    def _knows_public(self, given: list[str], head: bytes, body: bytes) -> bool:
        if not self._public:
            return False
        of_this_kind = [one for one in given if one.startswith(f"{VERSION},")][:_MAX_ED25519_SIGNATURES]
        message = head + body
        # Nothing here is secret, so the first that is right ends it.
        return any(key.matches(one, message) for one in of_this_kind for key in self._public)


def verify_at(
    body: object,
    headers: object,
    secret: str | Secret | Sequence[str | Secret],
    *,
    tolerance: timedelta,
    now: datetime,
) -> dict[str, Any]:
    """The object in `body`, if one of its signatures is of `secret` and its time is within `tolerance` of `now`.

    `secret` may be a public key, or hold several of either kind. Of ed25519 signatures the first 20 are looked at.

    Raises `VerificationError` for anything that is wrong with `body` and `headers`, and `InvalidInput` for anything
    that is wrong with the other arguments.
    """
    verifier = _Verifier(secret)
    if not isinstance(now, datetime) or now.utcoffset() is None:
        raise InvalidInput("now", "it is not an aware datetime: use one, such as datetime.now(UTC)")
    if not isinstance(tolerance, timedelta) or tolerance < timedelta(0):
        raise InvalidInput("tolerance", "it is not a timedelta of 0 or more: use one, such as timedelta(minutes=5)")
    webhook_id, timestamp, signature = _webhook_headers(headers)
    raw = _raw(body)
    _check_time(timestamp, tolerance, now)
    if not verifier.knows(signature, f"{webhook_id}.{timestamp}.".encode("utf-8", "surrogatepass"), raw):
        raise VerificationError(
            "webhook-signature: no signature matches: check the secret, and pass the body unchanged"
        )
    return _parsed(raw)


def _several(secrets: str | Secret | Sequence[str | Secret]) -> Sequence[str | Secret]:
    several = (secrets,) if isinstance(secrets, str | Secret) else secrets
    if not isinstance(several, Sequence):
        _refuse_secret(f"a value of type {type(secrets).__name__} is no secret: use text, a Secret, or a list of them")
    if not several:
        _refuse_secret("there is no secret: use one, or several")
    return several


def _text(secret: object) -> str:
    if not isinstance(secret, str | Secret):
        _refuse_secret(f"a value of type {type(secret).__name__} is no secret: use text, or a Secret")
    return reveal(secret)


def _signing(secret: object) -> _SharedKey | PrivateKey:
    text = _text(secret)
    if text.startswith(PUBLIC_PREFIX):
        _refuse_secret(f"this is a public key, which only verifies: use the private one, {PRIVATE_PREFIX!r}")
    return PrivateKey(text) if text.startswith(PRIVATE_PREFIX) else _SharedKey(_key(text))


def _public_text(secret: object) -> str | None:
    """The public key of a secret that verifies by one; None for a secret of both sides."""
    text = _text(secret)
    if text.startswith(PUBLIC_PREFIX):
        return text
    return PrivateKey(text).public_text if text.startswith(PRIVATE_PREFIX) else None


def _key(secret: str | Secret) -> bytes:
    """The bytes of a secret that both sides know."""
    encoded = reveal(secret).removeprefix(SECRET_PREFIX)
    # Strict, for decoders that skip what they do not know make another key of it than the receiver's.
    if not _BASE64.fullmatch(encoded):
        _refuse_secret("it is not base64 (A-Z, a-z, 0-9, '+', '/'), with or without 'whsec_' before it: use such text")
    try:
        key = decoded(encoded)
    except binascii.Error:
        _refuse_secret("it is base64 that was cut short: pass all of it")
    if not _MIN_KEY <= len(key) <= _MAX_KEY:
        _refuse_secret(f"its base64 holds {len(key)} bytes: use {_MIN_KEY} to {_MAX_KEY} random ones")
    return key


def _refuse_secret(problem: str) -> NoReturn:
    raise InvalidInput(_FIELD, problem)


def _webhook_headers(headers: object) -> tuple[str, str, str]:
    """Id, timestamp and signatures, from the ``webhook-`` headers or else from the older ``svix-`` ones."""
    found = _found(headers)
    for prefix in ("webhook-", "svix-"):
        values = [found.get(prefix + name, "") for name in ("id", "timestamp", "signature")]
        if all(values):
            return values[0], values[1], values[2]
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if not found.get(name)]
    raise VerificationError(f"headers: {', '.join(missing)} missing or empty: pass all headers of the request")


def _found(headers: object) -> dict[str, str]:
    """The headers with names of interest, in lower case."""
    try:
        # Web frameworks have mappings of their own; most have no common class, all have items().
        items = list(headers.items())  # type: ignore[attr-defined]
        found: dict[str, str] = {}
        for given, value in items:
            name = str.lower(given) if isinstance(given, str) else ""
            if not name.startswith(("webhook-", "svix-")):
                continue
            if not isinstance(value, str):
                raise VerificationError(
                    f"{name[:40]!r}: the value is of type {type(value).__name__}, not str: decode it"
                )
            if found.setdefault(name, str.__str__(value)) != value:
                raise VerificationError(f"{name[:40]!r}: it is there twice, with different values")
    except VerificationError:
        raise
    except Exception:
        # Whatever the object is, and whatever its methods raise.
        raise VerificationError(
            f"headers: {type(headers).__name__} is not a mapping of names to text: pass one"
        ) from None
    return found


def _raw(body: object) -> bytes:
    try:
        if isinstance(body, bytes | bytearray | memoryview):
            return bytes(body)
        if isinstance(body, str):
            return str.encode(body)
    except ValueError:  # text with surrogates, a released memoryview
        raise VerificationError("body: it is not what was sent: pass the raw bytes of the request") from None
    raise VerificationError(f"body: it is of type {type(body).__name__}: pass the raw bytes of the request, unparsed")


def _check_time(timestamp: str, tolerance: timedelta, now: datetime) -> None:
    if not _SECONDS.fullmatch(timestamp):
        raise VerificationError("webhook-timestamp: it is not a number of Unix seconds")
    # Whole seconds on both sides: the sender cut off the rest.
    apart = (now - _EPOCH) // timedelta(seconds=1) - int(timestamp)
    if abs(apart) > tolerance.total_seconds():
        age = "old" if apart > 0 else "far in the future"
        raise VerificationError(f"webhook-timestamp: it is too {age}, by more than {tolerance}: check both clocks")


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        # Decoded here, for json.loads would guess at UTF-16 and pass surrogates.
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise VerificationError("body: the signature is right, but this is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise VerificationError(
            f"body: the signature is right, but this is a JSON {type(value).__name__}, not an object"
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")
