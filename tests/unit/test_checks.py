"""Checks of input: what is taken, how it is normalised, and what the errors say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum
from typing import Any

import pytest

from procore_hooks._core import checks
from procore_hooks._core.frozen import FrozenDict
from procore_hooks._core.secret import Secret
from procore_hooks.exceptions import InvalidInput, InvalidPayload


class Company(IntEnum):
    ACME = 8


class Telling:
    def __repr__(self) -> str:
        return "hunter2\nhunter2"


def refusal(check: Callable[..., object], *arguments: Any, **keywords: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        check(*arguments, **keywords)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    assert "hunter2" not in text
    # Problem and fix: the fix comes after a colon.
    assert ": " in caught.value.problem
    return caught.value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (8, "8"),
        (-8, "-8"),
        (2**63, str(2**63)),
        (10**150, str(10**150)),
        (Company.ACME, "8"),
        ("007", "007"),
        ("A 42/é", "A 42/é"),
        ("x" * 200, "x" * 200),
    ],
)
def test_ids_become_text(value: Any, text: str | None) -> None:
    """Integers and text are kept as text, exactly."""
    kept = checks.check_id("company_id", value)
    assert kept == text
    assert kept is None or type(kept) is str


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        1.0,
        "",
        " ",
        " 8",
        "8 ",
        "a\nb",
        "a\x00",
        "\ud800",
        "x" * 201,
        10**5000,
        b"8",
        [8],
        Telling(),
        Secret("hunter2"),
    ],
    ids=range(16),
)
def test_what_is_no_id(value: Any) -> None:
    """A bool is not 1, a float is not an id, and no id hides spaces or control characters."""
    error = refusal(checks.check_id, "company_id", value)
    assert error.field == "company_id"
    assert "use" in error.problem


@pytest.mark.parametrize("value", ["a", "acme-invoice-sync", "0-9", "-", "x" * 100])
def test_namespaces(value: str) -> None:
    """a-z, 0-9 and - only."""
    assert checks.check_namespace(value) == value


@pytest.mark.parametrize("value", ["", "Acme", "a_b", "a b", "é", "x" * 101, "a\n", None, 7, "۱", Telling()])
def test_what_is_no_namespace(value: Any) -> None:
    """Procore takes no other characters, and neither do we."""
    assert refusal(checks.check_namespace, value).field == "namespace"


def test_a_namespace_close_to_a_right_one_is_mended_in_words() -> None:
    """The error proposes what was likely meant."""
    assert "'acme-invoice-sync'" in refusal(checks.check_namespace, "Acme Invoice_Sync!").problem


def test_resources() -> None:
    """Any printable name without spaces around it; the wildcard in triggers only."""
    for value in ("RFIs", "Company Vendors", "é", "x" * 200, "**"):
        assert checks.check_resource(value) == value
    assert checks.check_resource("*", wildcard=True) == "*"
    assert "trigger" in refusal(checks.check_resource, "*").problem
    for wrong in ("", " RFIs", "RFIs ", "a\tb", "x" * 201, None, 7, Telling()):
        assert refusal(checks.check_resource, wrong, wildcard=True).field == "resource"


def test_actions() -> None:
    """Lower-case words, and more than create, update and delete; the wildcard in triggers only."""
    for value in ("create", "0", "a_b.c:d-e", "x" * 64):
        assert checks.check_action(value) == value
    assert checks.check_action("*", wildcard=True) == "*"
    assert "trigger" in refusal(checks.check_action, "*").problem
    assert "use 'update'" in refusal(checks.check_action, "UPDATE").problem
    for wrong in ("", "_a", "-a", "a b", "a\n", "é", "x" * 65, None, 7, Telling()):
        assert refusal(checks.check_action, wrong, wildcard=True).field == "action"


def test_moments_come_back_in_utc() -> None:
    """Any zone in, UTC out; the moment stays the same."""
    moment = datetime(2025, 2, 7, 1, tzinfo=timezone(timedelta(hours=2)))
    assert checks.check_moment("start", moment) == moment
    assert checks.check_moment("start", moment).tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (datetime(2025, 1, 1), "2025-01-01T00:00:00 is naive: add its time zone, with value.replace(tzinfo=UTC)"),
        (datetime(2025, 1, 1).date(), "2025-01-01 is not a datetime"),
        ("2025-01-01", "not a datetime"),
        (0, "not a datetime"),
        (None, "not a datetime"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=2))), "1 to 9999"),
    ],
)
def test_what_is_no_moment(value: Any, words: str) -> None:
    """The error says how to mend a naive datetime."""
    error = refusal(checks.check_moment, "start", value)
    assert error.field == "start"
    assert words in error.problem


@pytest.mark.parametrize(
    ("check", "field"), [(checks.check_page_size, "page_size"), (checks.check_max_in_flight, "max_in_flight")]
)
def test_sizes_are_1_to_1000(check: Callable[[Any], int], field: str) -> None:
    """Whole numbers only; True is none."""
    assert [check(1), check(1000), check(Company.ACME)] == [1, 1000, 8]
    for wrong in (0, 1001, -1, True, 1.0, "25", None, 10**5000, Telling()):
        assert refusal(check, wrong).field == field


def test_choices() -> None:
    """One of the given, or an error that lists them."""
    assert checks.check_choice("queued", "keep", ("keep", "drop")) == "keep"
    for wrong in ("Keep", "", None, 7, ["keep"], Telling()):
        error = refusal(checks.check_choice, "queued", wrong, ("keep", "drop"))
        assert (error.field, error.problem.endswith("use one of 'keep', 'drop'")) == ("queued", True)


def test_statuses() -> None:
    """None, one or several become a set."""
    assert checks.check_statuses(None) == checks.check_statuses([]) == frozenset()
    assert checks.check_statuses("failed") == {"failed"}
    assert checks.check_statuses(iter(["failed", "discarded", "failed"])) == {"failed", "discarded"}
    for wrong in ("successful", ["failed", "x"], [["failed"]], 7, [None], Telling()):
        error = refusal(checks.check_statuses, wrong)
        assert error.field == "status"
        assert "'enqueued', 'retrying', 'delivered', 'failed', 'discarded'" in error.problem


def test_idempotency_keys() -> None:
    """1 to 255 printable characters, or none."""
    for value in (None, "k", "k" * 255, "invoice 42"):
        assert checks.check_idempotency_key(value) == value
    for wrong in ("", "k" * 256, "a\nb", " k", 7, True, b"k", Telling()):
        assert refusal(checks.check_idempotency_key, wrong).field == "idempotency_key"


def test_metadata_is_frozen_as_it_will_read_back() -> None:
    """Values become what JSON makes of them, at every depth, and cannot be changed."""
    inner = {"at": datetime(2025, 1, 1, tzinfo=UTC), "list": (1, 2)}
    checked = checks.check_metadata("metadata", {"a": inner})
    inner["list"] = ()
    assert checked == {"a": {"at": "2025-01-01T00:00:00.000000Z", "list": (1, 2)}}
    assert isinstance(checked["a"], FrozenDict)
    assert checks.check_metadata("metadata", None) == checks.check_metadata("metadata", {}) == {}


def test_wrong_metadata() -> None:
    """Strict JSON of at most 16 KiB, in a mapping."""
    assert len(checks.check_metadata("metadata", {"a": "x" * (16_384 - 8)})["a"]) == 16_376
    with pytest.raises(InvalidPayload, match="16,384"):
        checks.check_metadata("metadata", {"a": "x" * (16_384 - 7)})
    for wrong, field in (({"a": float("nan")}, "metadata.a"), ({1: 2}, "metadata"), ({"a": Telling()}, "metadata.a")):
        assert refusal(checks.check_metadata, "metadata", wrong).field == field
    for no_mapping in ([], "a", 7, Telling()):
        assert "is not a mapping" in refusal(checks.check_metadata, "metadata", no_mapping).problem


def test_related_resources() -> None:
    """Each has an id, kept as text, and a name; further keys stay, and nothing can be changed."""
    given = [{"id": 7, "name": "Drawings", "extra": [1]}, FrozenDict({"name": "Photos", "id": "x"})]
    checked = checks.check_related_resources(given)
    assert checked == ({"id": "7", "name": "Drawings", "extra": (1,)}, {"name": "Photos", "id": "x"})
    assert [list(one) for one in checked] == [["id", "name", "extra"], ["name", "id"]]
    assert all(isinstance(one, FrozenDict) for one in checked)
    assert checks.check_related_resources(iter(given)) == checked
    assert checks.check_related_resources(None) == checks.check_related_resources([]) == ()


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"id": 1, "name": "a"}, "related_resources"),
        ("ab", "related_resources"),
        (7, "related_resources"),
        ([7], "related_resources[0]"),
        ([{"id": 1, "name": "a"}, {"id": 1}], "related_resources[1]"),
        ([{"name": "a"}], "related_resources[0]"),
        ([{"id": None, "name": "a"}], "related_resources[0]"),
        ([{"id": True, "name": "a"}], "related_resources[0].id"),
        ([{"id": 1, "name": ""}], "related_resources[0].name"),
        ([{"id": 1, "name": 7}], "related_resources[0].name"),
        ([{"id": 1, "name": "a", "x": b"hunter2"}], "related_resources[0].x"),
        ([{"id": 1, "name": "a", 7: 7}], "related_resources[0]"),
        ([{"id": 1, "name": "a" * 100}] * 200, "related_resources"),
    ],
    ids=range(13),
)
def test_wrong_related_resources(value: Any, field: str) -> None:
    """The error says which one and which part of it."""
    assert refusal(checks.check_related_resources, value).field == field


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", "'a\\nb'"),
        ("x" * 61, "'" + "x" * 60 + "'... (61 characters)"),
        (7, "7"),
        (10**5000, "an integer of 16,610 bits"),
        (None, "None"),
        (0.5, "0.5"),
        (Secret("hunter2"), "a value of type Secret"),
        (b"hunter2", "a value of type bytes"),
        (Telling(), "a value of type Telling"),
    ],
    ids=range(9),
)
def test_values_are_shown_short_and_on_one_line(value: Any, text: str) -> None:
    """What an error shows of a value is bounded, and of unknown objects only the type."""
    assert checks.shown(value) == text
