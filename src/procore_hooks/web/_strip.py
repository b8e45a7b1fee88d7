"""The strip of the last day: a bar for each quarter of an hour, as numbers for an SVG."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from procore_hooks import DeliveryBucket, DeliveryStats

__all__ = ["BUCKET", "HEIGHT", "WIDTH", "Bar", "Strip", "Strips", "begin_of_strip", "draw"]

BUCKET: Final = timedelta(minutes=15)
HEIGHT: Final = 56
WIDTH: Final = 960

_BARS: Final = 96
_GAP: Final = 2
_KEPT_PER_COST: Final = 20
_KEPT_AT_MOST: Final = 60.0
_MOST_KEPT: Final = 1000
# So that one failure among a thousand deliveries is seen.
_SHORTEST: Final = 3


@attrs.frozen(kw_only=True)
class Piece:
    """One colour of a bar: ``delivered``, ``retrying`` or ``failed``, and where it is drawn."""

    kind: str
    y: int
    height: int


@attrs.frozen(kw_only=True)
class Bar:
    """A quarter of an hour: how many became what, and where it is drawn."""

    start: datetime
    delivered: int
    retrying: int
    failed: int
    x: int
    width: int
    pieces: tuple[Piece, ...]


@attrs.frozen(kw_only=True)
class Strip:
    """The bars, oldest first, without those that are empty, and the sums: `retrying` counts all that wait."""

    bars: tuple[Bar, ...]
    delivered: int
    retrying: int
    failed: int


def begin_of_strip(now: datetime) -> datetime:
    """The beginning of the oldest quarter of an hour of the strip; `now` lies in the newest."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + ((now - midnight) // BUCKET - (_BARS - 1)) * BUCKET


def draw(stats: DeliveryStats) -> Strip:
    """The strip of these counts, the tallest bar as high as the strip."""
    buckets = stats.buckets[-_BARS:]
    most = max((bucket.total for bucket in buckets), default=0)
    bars = [_bar(index, bucket, most) for index, bucket in enumerate(buckets)]
    return Strip(
        bars=tuple(bar for bar in bars if bar.pieces),
        delivered=stats.delivered,
        retrying=stats.enqueued + stats.retrying,
        failed=stats.failed + stats.discarded,
    )


def _bar(index: int, bucket: DeliveryBucket, most: int) -> Bar:
    counts = {
        "delivered": bucket.delivered,
        "retrying": bucket.enqueued + bucket.retrying,
        "failed": bucket.failed + bucket.discarded,
    }
    # Rare ones first: what they need to be seen is taken off the deliveries that went well.
    heights: dict[str, int] = {}
    for kind in ("failed", "retrying", "delivered"):
        if counts[kind]:
            tallest = HEIGHT - sum(heights.values())
            heights[kind] = min(max(round(counts[kind] * HEIGHT / most), _SHORTEST), tallest)
    bottom = HEIGHT
    pieces: list[Piece] = []
    for kind in reversed(heights):
        bottom -= heights[kind]
        pieces.append(Piece(kind=kind, y=bottom, height=heights[kind]))
    width = WIDTH // _BARS
    return Bar(start=bucket.start, x=index * width, width=width - _GAP, pieces=tuple(pieces), **counts)


class _Kept:
    """What is kept of one hook, until when, and a lock for whoever counts."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.until = 0.0
        self.strip: Strip | None = None


class Strips:
    """The strips drawn last. Each is kept for 20 times as long as it took to count, at most a minute, so that however
    many people look at a busy hook, counting takes at most a twentieth of a processor.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._lock = threading.Lock()
        self._kept: dict[int, _Kept] = {}

    def get(self, hook_id: int, count: Callable[[], DeliveryStats]) -> Strip:
        """The strip of a hook, from what `count` finds, if it is not kept."""
        with self._lock:
            kept = self._kept.pop(hook_id, None) or _Kept()
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[hook_id] = kept
        with kept.lock:
            begun = self._steady()
            if kept.strip is None or begun >= kept.until:
                kept.strip = draw(count())
                done = self._steady()
                kept.until = done + min((done - begun) * _KEPT_PER_COST, _KEPT_AT_MOST)
            return kept.strip
