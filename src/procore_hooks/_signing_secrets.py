"""Signing secrets made at random."""

from __future__ import annotations

import secrets

from ._core.ed25519 import public_key_of, secret_from_seed
from ._core.secret import Secret
from ._core.signing import secret_from_bytes

__all__ = ["another_of_its_kind", "generate_ed25519_secret", "random_secret"]


def random_secret() -> Secret:
    """A new secret for HMAC-SHA256, that both sides know: ``whsec_`` and base64 of 32 bytes."""
    return secret_from_bytes(secrets.token_bytes(32))


def generate_ed25519_secret() -> Secret:
    """A new ed25519 private key, for `hooks.create(..., signing_secret=generate_ed25519_secret())`.

    ``whsk_`` and base64 of seed and public key. The hook's `public_key` is what its receiver verifies with. Such
    signatures, ``v1a``, are part of Standard Webhooks 1.0. Needs the extra ``crypto``.

    Raises:
        InvalidInput: the package `cryptography` is missing.
    """
    return secret_from_seed(secrets.token_bytes(32))


def another_of_its_kind(secret: Secret) -> Secret:
    """A new secret to follow `secret`: private keys are followed by private keys."""
    return random_secret() if public_key_of(secret) is None else generate_ed25519_secret()
