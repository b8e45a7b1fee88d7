"""The two languages, moments, JSON laid out: what is decided without any I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import procore_hooks.web
from procore_hooks.web._json_layout import laid_out
from procore_hooks.web._moments import ago, read_moment
from procore_hooks.web._texts import choose_language, say
from procore_hooks.web._wording import WORDING

from .conftest import Visitor, shown

FOLDER = Path(procore_hooks.web.__file__).parent
NOW = datetime(2025, 2, 6, 23, 34, 12, tzinfo=UTC)


def placeholders(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


# The same word in both languages.
SHARED = {"webhooks", "hooks", "hook", "status", "optional", "header_name", "action_ping"}
# Keys that a page puts together, from the state of a hook, a box or an attempt.
PUT_TOGETHER = re.compile(r"(check|tab|done|outcome|ago|in|action)_\w+|\w+_why")


def test_each_text_says_the_same_in_both_languages() -> None:
    """Both take the same values, and the German is not the English left as it was by mistake."""
    assert [key for key, (english, german) in WORDING.items() if not english.strip() or not german.strip()] == []
    assert [key for key, texts in WORDING.items() if placeholders(texts[0]) != placeholders(texts[1])] == []
    assert {key for key, (english, german) in WORDING.items() if english == german} <= SHARED


def test_each_text_is_used_and_each_used_text_exists() -> None:
    """No page asks for a text that there is not, and no text lies around."""
    files = [*FOLDER.glob("templates/*.html"), *FOLDER.glob("_*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in files if path.name != "_wording.py")
    asked = set(re.findall(r"""\b(?:t|say)\((?:\w+\.\w+, |language, )?["'](\w+)["'][,)]""", source))
    assert asked - set(WORDING) == set()
    named = set(re.findall(r"""["'](\w+)["']""", source))
    named |= {"enqueued", "retrying", "delivered", "failed", "discarded", "active", "paused", "failing"}
    assert [key for key in WORDING if key not in named and not PUT_TOGETHER.fullmatch(key)] == []


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        (None, "", "en"),
        (None, "de", "de"),
        (None, "de-AT,de;q=0.9,en;q=0.8", "de"),
        (None, "fr,en;q=0.5,de;q=0.7", "de"),
        (None, "en;q=0.4, de;q=0", "en"),
        (None, "de;q=0", "en"),
        (None, "de;q=x,*;q=0.1", "en"),
        (None, "DE", "de"),
        ("de", "en", "de"),
        ("fr", "de", "de"),
        ("en", "de", "en"),
    ],
)
def test_language(chosen: str | None, accepted: str, language: str) -> None:
    """What was chosen by hand counts first, then what the browser wants most, then English."""
    assert choose_language(chosen, accepted) == language


def test_chosen_language_stays(admin: Visitor) -> None:
    """The link to the other language holds for the pages that follow, and the page says which language it is in."""
    assert '<html lang="en">' in admin.get("new").text
    page = admin.get("new?lang=de")
    assert '<html lang="de">' in page.text
    assert "Endpunkt speichern" in shown(page)
    assert "Noch keine Hooks" in shown(admin.get())
    assert "No hooks yet" in shown(admin.get("?lang=en"))


def test_every_page_speaks_german(
    admin: Visitor, hook: Any, emit: Callable[..., int], drain: Callable[[], Any], endpoint: Any
) -> None:
    """Each page renders in German too, error pages included."""
    endpoint.reply(500)
    number = emit()
    drain()
    german = {"accept-language": "de"}
    pages = {
        "": "Zuletzt geändert",
        f"hooks/{hook.id}": "Gestört seit",
        f"hooks/{hook.id}/events": "Ein Haken gilt sofort",
        f"hooks/{hook.id}/deliveries": "Nur Fehler zeigen",
        f"hooks/{hook.id}/deliveries/{number}": "Nächster Versuch",
        "hooks/99": "Nicht gefunden",
    }
    for path, words in pages.items():
        assert words in shown(admin.get(path, headers=german))


@pytest.mark.parametrize(
    ("passed", "english", "german"),
    [
        (0, "just now", "gerade eben"),
        (1, "1 second ago", "vor 1 Sekunde"),
        (59, "59 seconds ago", "vor 59 Sekunden"),
        (60, "1 minute ago", "vor 1 Minute"),
        (7199, "1 hour ago", "vor 1 Stunde"),
        (86400 * 30, "30 days ago", "vor 30 Tagen"),
        (-90, "in 1 minute", "in 1 Minute"),
        (-7200, "in 2 hours", "in 2 Stunden"),
    ],
)
def test_how_long_ago(passed: int, english: str, german: str) -> None:
    """In the greatest unit of which there is at least one, in both directions."""
    moment = NOW - timedelta(seconds=passed)
    assert (ago(moment, NOW, "en"), ago(moment, NOW, "de")) == (english, german)


def test_read_moment() -> None:
    """A moment without a zone is in UTC, as the field says."""
    assert read_moment("2025-02-06T23:34") == datetime(2025, 2, 6, 23, 34, tzinfo=UTC)
    assert read_moment(" 2025-02-06T23:34:12+01:00 ") == datetime(2025, 2, 6, 22, 34, 12, tzinfo=UTC)
    assert read_moment("soon") is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(value=VALUES, ascii_only=st.booleans())
def test_layout_is_what_json_would_lay_out(value: Any, ascii_only: bool) -> None:
    """Compact or not, what comes out is what `json` itself lays out with two spaces."""
    expected = json.dumps(value, indent=2, ensure_ascii=ascii_only)
    assert laid_out(json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)) == expected
    assert laid_out(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a":1.10,"a":1e400}', '{\n  "a": 1.10,\n  "a": 1e400\n}'),
        ('["\\u00e4",9007199254740993]', '[\n  "\\u00e4",\n  9007199254740993\n]'),
        ("1" * 5000, "1" * 5000),
        ("not JSON, but text", "not JSON, but text"),
        ('{"a":', '{"a":'),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
        ("[" * 50_000 + "]" * 50_000, "[" * 50_000 + "]" * 50_000),
    ],
    ids=range(8),
)
def test_literals_stay_to_the_letter(text: str, expected: str) -> None:
    """Numbers, escapes and repeated keys are shown as they were sent; what is not JSON is left alone."""
    assert laid_out(text) == expected


def test_unknown_text_is_an_error() -> None:
    """A misspelt key does not pass in silence."""
    with pytest.raises(KeyError):
        say("en", "no such text")
