"""What a first look costs: bytes, requests, and work that does not grow with the history."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from procore_hooks import DeliveryBucket, DeliveryStats, Hook, MemoryStorage
from procore_hooks.web._strip import HEIGHT, Strips, draw

from .conftest import Visitor

MOST_BYTES = 60 * 1024
MOST_REQUESTS = 6


def on_the_wire(visitor: Visitor, path: str) -> tuple[int, list[str]]:
    """The bytes of a page as it is sent, headers included, and the addresses that a browser loads with it."""
    request = visitor.client.build_request("GET", path, headers={"accept-encoding": "gzip"})
    response = visitor._runner.run(visitor.client.send(request, stream=True))
    body = b"".join(visitor._runner.run(_raw(response)))
    head = sum(len(name) + len(value) + 4 for name, value in response.headers.raw)
    text = gzip.decompress(body) if response.headers.get("content-encoding") == "gzip" else body
    return head + len(body), re.findall(r'<(?:link|script|img)[^>]*(?:href|src)="([^"]+)"', text.decode("utf-8"))


async def _raw(response: Any) -> list[bytes]:
    return [chunk async for chunk in response.aiter_raw()]


@pytest.mark.parametrize("page", ["", "/events", "/deliveries", "/deliveries/1?tab=payload"])
def test_first_look_is_small(admin: Visitor, hook: Hook, emit: Callable[..., int], page: str) -> None:
    """Page, style, script and icon: at most 60 KiB on the wire in at most 6 requests, all from here."""
    for _ in range(30):
        emit({"subject": "Door 12"})
    path = f"/webhooks/companies/8/projects/6778/hooks/{hook.id}{page}"
    size, more = on_the_wire(admin, path)
    assert all(address.startswith("/webhooks/static/") for address in more)
    assert 1 + len(more) <= MOST_REQUESTS
    together = size + sum(on_the_wire(admin, address)[0] for address in more)
    assert together <= MOST_BYTES
    assert together <= 30_000  # where it is today, with some room: growth is to be noticed


def test_pages_ask_for_no_more_than_they_show(
    admin: Visitor, hook: Hook, emit: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the history, a page reads 26 deliveries of it, and counts none: only the strip of a day does."""
    number = emit()
    limits: list[int] = []
    counted: list[str] = []
    list_deliveries = MemoryStorage.list_deliveries

    def listed(storage: MemoryStorage, query: Any) -> Any:
        limits.append(query.limit)
        return list_deliveries(storage, query)

    monkeypatch.setattr(MemoryStorage, "list_deliveries", listed)
    for name in ("count_deliveries", "count_in_buckets"):
        count = getattr(MemoryStorage, name)
        monkeypatch.setattr(MemoryStorage, name, lambda *args, count=count: counted.append("once") or count(*args))
    for page in ("", "/events", "/deliveries", f"/deliveries/{number}"):
        assert admin.get(f"hooks/{hook.id}{page}").status_code == 200
    assert (limits, counted) == ([26], [])
    admin.get(f"hooks/{hook.id}/last-day")
    assert counted == ["once"]


def test_strip_is_kept_for_twenty_times_its_cost() -> None:
    """What took a second to count is shown for twenty, a cheap one is counted anew, and none is kept over a minute."""
    now = 0.0
    cost = 1.0
    counted: list[int] = []
    strips = Strips(steady=lambda: now)

    def look(hook_id: int) -> int:
        def count() -> DeliveryStats:
            nonlocal now
            now += cost
            counted.append(hook_id)
            return DeliveryStats(since=datetime(2025, 1, 1, tzinfo=UTC), delivered=len(counted))

        return strips.get(hook_id, count).delivered

    assert [look(1), look(1), look(2)] == [1, 1, 2]
    now = 20.9
    assert look(1) == 1
    now = 21.1
    assert look(1) == 3
    cost = 10.0
    now = 100.0
    assert look(1) == 4
    now = 169.0
    assert look(1) == 4
    now = 171.0
    assert look(1) == 5
    cost = 0.0
    now = 1000.0
    assert [look(3), look(3)] == [6, 7]


def test_strip_shows_one_failure_among_thousands() -> None:
    """A bar has a height that is seen for whatever there is of it, and none is higher than the strip."""
    bucket = DeliveryBucket(start=datetime(2025, 1, 1, tzinfo=UTC), delivered=100_000, retrying=1, failed=1)
    strip = draw(DeliveryStats(since=bucket.start, delivered=100_000, retrying=1, failed=1, buckets=(bucket,)))
    (bar,) = strip.bars
    assert [(piece.kind, piece.height > 0) for piece in bar.pieces] == [
        ("delivered", True),
        ("retrying", True),
        ("failed", True),
    ]
    assert sum(piece.height for piece in bar.pieces) <= HEIGHT
    assert min(piece.y for piece in bar.pieces) >= 0
