"""Storing events under ids that nobody else has drawn."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from .exceptions import InvalidInput
from .storage._base import EventIdTaken

__all__ = ["until_ids_are_free"]

T = TypeVar("T")

_TRIES: Final = 20


def until_ids_are_free(now: datetime, store: Callable[[], T]) -> T:
    """What `store` returns, which draws other event ids each time.

    Two processes draw the same number in the same millisecond once in about two million times.
    """
    for _ in range(_TRIES):
        try:
            return store()
        except EventIdTaken:
            pass
    raise InvalidInput("clock", f"no free event id was found at {now.isoformat()}: does the clock stand still?")
