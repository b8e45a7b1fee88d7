"""The values that apps see: frozen, silent about secrets, and checked where they take input."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from procore_hooks._core import models
from procore_hooks._core.frozen import FrozenDict
from procore_hooks._core.models import (
    Attempt,
    Delivery,
    DeliveryStats,
    DrainReport,
    Event,
    EventInput,
    Hook,
    Page,
    Timeouts,
    masked_url,
)
from procore_hooks._core.secret import Secret
from procore_hooks.exceptions import InvalidInput

NOW = datetime(2025, 1, 1, tzinfo=UTC)
CLASSES = [value for name in models.__all__ if inspect.isclass(value := getattr(models, name))]


def an_event(**fields: Any) -> Event:
    return Event(id=1, ulid="01", resource="RFIs", action="update", occurred_at=NOW, **fields)


def an_attempt(number: int) -> Attempt:
    return Attempt(number=number, outcome="retried", request_url="https://acme.example/", started_at=NOW)


def a_delivery(*attempts: Attempt) -> Delivery:
    return Delivery(id=1, hook_id=1, event=an_event(), status="enqueued", attempts=attempts, created_at=NOW)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_value_is_frozen(kind: type) -> None:
    """No field of any class can be set, and there is no room for another."""
    assert attrs.has(kind)
    value = object.__new__(kind)
    for name in (*(field.name for field in attrs.fields(kind)), "other"):
        with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
            setattr(value, name, 1)


def test_mappings_inside_are_read_only() -> None:
    """What was given as a dict is a copy that refuses changes."""
    headers = {"Authorization": Secret("a")}
    hook = Hook(
        id=1,
        namespace="a",
        destination_url="https://acme.example/",
        destination_headers=headers,
        signing_secret=Secret("a"),
        created_at=NOW,
        updated_at=NOW,
    )
    headers["X"] = Secret("b")
    assert list(hook.destination_headers) == ["Authorization"]
    assert isinstance(hook.destination_headers, FrozenDict)
    assert isinstance(an_event(metadata={"a": 1}).metadata, FrozenDict)
    assert isinstance(an_attempt(1).request_headers, FrozenDict)


def test_repr_shows_neither_query_nor_bodies() -> None:
    """What may hold a token or personal data is not printed; the rest is."""
    hook = Hook(
        id=1,
        namespace="a",
        destination_url="https://acme.example/in?token=hunter2#hunter2",
        signing_secret=Secret("hunter2"),
        created_at=NOW,
        updated_at=NOW,
    )
    event = an_event(payload_json=b'"hunter2"', metadata={"a": "hunter2"}, related_resources=(FrozenDict(a="hunter2"),))
    attempt = attrs.evolve(an_attempt(1), request_body=b"hunter2", response_body=b"hunter2")
    given = EventInput("RFIs", "update", "hunter2", metadata={"a": "hunter2"}, related_resources=[{"a": "hunter2"}])
    for value in (hook, event, attempt, given):
        assert "hunter2" not in repr(value)
    assert "https://acme.example/in?*****" in repr(hook)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/b", "https://a.example/b"),
        ("https://a.example/b?c=d", "https://a.example/b?*****"),
        ("https://a.example/b?", "https://a.example/b?*****"),
        ("https://a.example/?a?b", "https://a.example/?*****"),
    ],
)
def test_masked_url(url: str, shown: str) -> None:
    """The query is stars; the rest is as it was."""
    assert masked_url(url) == shown


def test_the_payload_reads_back_read_only() -> None:
    """JSON values without a way to change them; absent is None."""
    event = an_event(payload_json=b'{"lines":[{"n":1}]}')
    assert event.payload == {"lines": ({"n": 1},)}
    assert event.payload is event.payload
    with pytest.raises(TypeError):
        event.payload["x"] = 1
    assert an_event().payload is None


def test_last_attempt() -> None:
    """The newest, None before the first."""
    assert a_delivery().last_attempt is None
    assert a_delivery(an_attempt(1), an_attempt(2)).last_attempt == an_attempt(2)


def test_a_page_is_a_sequence() -> None:
    """Indices, slices, `in`, `len`, `reversed`, iteration and truth, as of a tuple; the cursor beside them."""
    page = Page([3, 4, 5], "next")
    assert isinstance(page, Sequence)
    assert (page[0], page[-1], page[1:], len(page)) == (3, 5, (4, 5), 3)
    assert (list(page), list(reversed(page)), 4 in page, page.index(5)) == ([3, 4, 5], [5, 4, 3], True, 2)
    assert (page.items, page.next_cursor) == ((3, 4, 5), "next")
    assert (bool(Page(())), bool(page), Page(()).next_cursor) == (False, True, None)
    assert page == Page((3, 4, 5), "next") != Page((3, 4, 5))
    with pytest.raises(IndexError):
        page[3]


def test_values_without_secrets_copy_and_pickle() -> None:
    """Copies and pickles are equal."""
    for value in (Page([1], "x"), a_delivery(an_attempt(1)), an_event(metadata={"a": 1}), Timeouts(), DrainReport()):
        assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value


def test_stats_total() -> None:
    """The sum of all five."""
    assert DeliveryStats(since=NOW, enqueued=1, retrying=2, delivered=4, failed=8, discarded=16).total == 31


@pytest.mark.parametrize("field", ["connect", "response", "total"])
@pytest.mark.parametrize("value", [0, -1, 3600.5, math.inf, -math.inf, math.nan, True, "5", None, 10**400], ids=str)
def test_timeouts_are_finite(field: str, value: Any) -> None:
    """Above 0, at most an hour, a number; the error names field and value."""
    with pytest.raises(InvalidInput) as caught:
        Timeouts(**{field: value})
    assert caught.value.field == field
    assert "3600" in caught.value.problem


def test_timeouts() -> None:
    """Procore's 5 seconds to answer, ten in all; in order, or by name."""
    assert Timeouts() == Timeouts(5, 5, 10) == Timeouts(total=10.0)
    assert Timeouts(0.001, 3600, total=1).response == 3600
