"""The life of a delivery, as a table.

A delivery is made ``enqueued`` (or at once ``discarded``, when its hook is disabled and drops events). Each attempt
ends in one of the happenings below, and so may its waiting. ``delivered``, ``failed`` and ``discarded`` are final:
nothing leads out of them. The statuses are Procore's v2.0 words, the outcomes of attempts its v1.0 words.

============  ==========================================================================================
happening     meaning
============  ==========================================================================================
accepted      the endpoint answered with a 2xx
put_off       the attempt failed and another one will follow
exhausted     the attempt failed and was the last that the retry policy allows
aborted       the endpoint answered that it will never take this message (``webhook-delivery: abort-message``)
left_open     nobody recorded a result before the lease ran out
dropped       flushed, or its hook was deleted, or disabled with `drop`
============  ==========================================================================================
"""

from __future__ import annotations

from typing import Final, Literal

from .models import AttemptOutcome, DeliveryStatus

__all__ = ["FINAL", "OUTCOMES", "TRANSITIONS", "WAITING", "Happening", "after"]

Happening = Literal["accepted", "put_off", "exhausted", "aborted", "left_open", "dropped"]

WAITING: Final[frozenset[DeliveryStatus]] = frozenset({"enqueued", "retrying"})
FINAL: Final[frozenset[DeliveryStatus]] = frozenset({"delivered", "failed", "discarded"})

_FROM_WAITING: Final[dict[Happening, DeliveryStatus]] = {
    "accepted": "delivered",
    "put_off": "retrying",
    "exhausted": "failed",
    "aborted": "failed",
    "left_open": "retrying",
    "dropped": "discarded",
}

TRANSITIONS: Final[dict[DeliveryStatus, dict[Happening, DeliveryStatus]]] = {
    "enqueued": _FROM_WAITING,
    "retrying": _FROM_WAITING,
    "delivered": {},
    "failed": {},
    "discarded": {},
}

# What the attempt is called in the history.
OUTCOMES: Final[dict[Happening, AttemptOutcome]] = {
    "accepted": "ok",
    "put_off": "retried",
    "exhausted": "failed",
    "aborted": "failed",
    "left_open": "unknown",
    "dropped": "discarded",
}


def after(status: DeliveryStatus, happening: Happening) -> DeliveryStatus:
    """The status that follows. Raises `ValueError` where the table has no way: a final state never changes."""
    try:
        return TRANSITIONS[status][happening]
    except KeyError:
        raise ValueError(f"a delivery that is {status} cannot be {happening}") from None
