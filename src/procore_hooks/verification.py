"""For receivers: whether a webhook is from its sender, unchanged and recent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ._core.secret import Secret
from ._core.signing import verify_at

__all__ = ["verify"]


def verify(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Secret | Sequence[str | Secret],
    *,
    tolerance: timedelta = timedelta(minutes=5),
    now: datetime | None = None,
) -> dict[str, Any]:
    """The JSON object in `body`, once its Standard Webhooks signature was checked.

    Args:
        body: the raw body of the request, as it arrived; parsing and writing it again breaks the signature.
        headers: all headers of the request; case does not matter. ``svix-`` names are read too.
        secret: the hook's signing secret (``whsec_``) or its public key (``whpk_``), or several of them while it is
            being rotated. A public key needs the extra ``crypto``, and its prefix: without one it would be taken for a
            secret. A private key (``whsk_``) stands for its public one.
        tolerance: how far the sender's clock may be from `now`, either way.
        now: an aware datetime; the present moment if left out.

    Raises `VerificationError`, and nothing else, for whatever is wrong with the request; `InvalidInput` for a secret,
    key, tolerance or `now` that is none, and for an ed25519 key where the extra is missing. A webhook may arrive twice:
    remember its ``webhook-id`` to notice that.
    """
    return verify_at(body, headers, secret, tolerance=tolerance, now=datetime.now(UTC) if now is None else now)
