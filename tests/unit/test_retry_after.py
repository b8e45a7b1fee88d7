"""The header ``Retry-After``: what is understood of it, and within which bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from procore_hooks._core.decide import parse_retry_after

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("0120", 120),
        ("3600", 3600),
        ("3601", 3600),
        ("999999999", 3600),
        ("9999999999", 3600),
        ("99999999999999999999", 3600),
        ("9" * 5000, 3600),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("۱۲۰", None),
        ("²", None),
        ("1_000", None),
        ("inf", None),
        ("soon", None),
        ("Wed, 01 Jan 2025 12:02:00 GMT", 120),
        ("Wednesday, 01-Jan-25 12:02:00 GMT", 120),
        ("Wed Jan  1 12:02:00 2025", 120),
        ("Wed, 01 Jan 2025 12:02:00 -0000", 120),
        ("Wed, 01 Jan 2025 14:02:00 +0200", 120),
        ("Wed, 01 Jan 2025 11:59:59 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Mon, 01 Jan 0001 00:00:00 +2300", 0),
        ("Wed, 99 Jan 2025 12:02:00 GMT", None),
        ("Wed, 01 Jan 99999 12:02:00 GMT", None),
        ("Wed, 01 Jan 2025 12:02:00 +99999999999", None),
    ],
)
def test_parse_retry_after(value: str | None, seconds: int | None) -> None:
    """Seconds and HTTP dates, clamped to 0..most; all else is as if it were absent."""
    found = parse_retry_after(value, NOW, HOUR)
    assert found == (None if seconds is None else timedelta(seconds=seconds))


@given(
    st.text() | st.from_regex(r"(Mon|Wed)?,? ?\d{1,3} [A-Z][a-z]{2} \d{1,5} \d{1,3}:\d\d(:\d\d)? ([+-]\d{4,12}|GMT)")
)
@example("0")
def test_no_retry_after_raises_or_leaves_its_bounds(value: str) -> None:
    """Whatever an endpoint sends."""
    found = parse_retry_after(value, NOW, HOUR)
    assert found is None or timedelta(0) <= found <= HOUR
