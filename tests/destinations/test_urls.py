"""Whatever URL a policy accepts, every reader of URLs sees the same scheme, host and port in it.

20,000 generated URLs by default, 100,000 with PROCORE_HOOKS_FULL=1. To play a seed again:
`python -m tests.destinations.urls --seed 1`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from procore_hooks import InvalidDestination

from ..scene import FULL
from . import whatwg
from .players import play
from .urls import BOTH, READERS, disagreement

COUNT = 100_000 if FULL else 20_000
NODE: list[tuple[str, list[str | int] | None]] = json.loads(
    (Path(__file__).parents[1] / "data/whatwg_urls.json").read_text(encoding="utf-8")
)["urls"]


def test_accepted_urls_are_read_alike_by_all() -> None:
    """Of URLs made of hostile pieces, what is accepted is the same to httpx, urllib and a WHATWG reader."""
    told, broken = play("urls", COUNT)
    assert not broken
    accepted = sum(int(found) for text in told for found in re.findall(r": (\d+) of", text))
    assert accepted > COUNT // 4, "too few pass for this to tell anything"


@pytest.mark.parametrize("name", READERS)
def test_a_reader_that_differs_is_told(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A reader that sees something else in an accepted URL is named, with what it sees."""
    assert disagreement("https://a.example/") == (True, "")
    monkeypatch.setitem(READERS, name, lambda url: ("https", "b.example", 443))
    is_accepted, problem = disagreement("https://a.example/")
    assert is_accepted
    assert f"'{name}': ('https', 'b.example', 443)" in problem


def test_accepted_urls_are_what_node_reads() -> None:
    """Node, whose readings are on file, sees the same destination in each of its URLs that is accepted."""
    accepted = 0
    for url, reading in NODE:
        try:
            destination = BOTH.parse(url)
        except InvalidDestination:
            continue
        accepted += 1
        host = f"[{destination.host}]" if ":" in destination.host else destination.host
        assert reading is not None, ascii(url)
        assert [destination.scheme, whatwg.read_host(host), destination.port] == reading, ascii(url)
    assert accepted > 100


def test_the_reader_reads_as_node_does() -> None:
    """Our WHATWG reader sees what Node sees; about labels outside ASCII it may be stricter, or have newer tables."""
    same = 0
    for url, reading in NODE:
        ours = whatwg.read(url)
        if ours == (None if reading is None else tuple(reading)):
            same += 1
        elif ours is None:
            assert reading is not None
            assert "xn--" in str(reading[1]), f"{url!a} is refused, and Node reads {reading}"
        else:
            assert reading is None or "\u1e9e" in url, f"{url!a} is {ours}, and to Node {reading}"
            assert not url.isascii(), f"{url!a} is {ours}, and Node refuses it"
    assert same > len(NODE) * 0.97
