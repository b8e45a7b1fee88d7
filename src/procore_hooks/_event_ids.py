"""Storing events under ids that nobody else has drawn."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from .exceptions import InvalidInput
from .storage._base import EventIdTaken

__all__ = ["until_ids_are_free"]

T = TypeVar("T")

_MORE_TRIES: Final = 19


def until_ids_are_free(now: datetime, store: Callable[[bool], T]) -> T:
    """What `store` returns; called with True, it draws other event ids than before.

    Two processes draw the same number in the same millisecond once in about two million times.
    """
    for again in (False, *(True,) * _MORE_TRIES):
        try:
            return store(again)
        except EventIdTaken:
            pass
    raise InvalidInput("clock", f"no free event id was found at {now.isoformat()}: does the clock stand still?")
