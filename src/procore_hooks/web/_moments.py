"""Moments as people read them: in UTC, and how long ago."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from ._texts import Language, say

__all__ = ["ago", "exact", "in_form", "read_moment", "span"]

_UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def exact(moment: datetime) -> str:
    """``2025-02-06 23:34:12``, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def span(length: timedelta) -> str:
    """``12 ms`` or ``1.5 s``."""
    seconds = length.total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def in_form(moment: datetime) -> str:
    """As the field of a form takes it, in UTC, down to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def read_moment(text: str) -> datetime | None:
    """The moment that someone typed, in UTC unless it says otherwise; None for what is no moment."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def ago(moment: datetime, now: datetime, language: Language) -> str:
    """``3 minutes ago`` or ``in 2 hours``, in the greatest unit of which there is at least one."""
    seconds = round((now - moment).total_seconds())
    direction = "in" if seconds < 0 else "ago"
    for unit, length in _UNITS:
        count = abs(seconds) // length
        if count >= 1:
            return say(language, f"{direction}_{unit}{'' if count == 1 else 's'}", count=count)
    return say(language, "just_now")
