"""The list of safeguards fits the source, and the table in the docs is the list."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAFEGUARDS = runpy.run_path(str(ROOT / "scripts/safeguards.py"))["SAFEGUARDS"]
TABLE = (ROOT / "docs/what-can-happen.md").read_text(encoding="utf-8").partition("<!-- safeguards -->")[2]


@pytest.mark.parametrize(("name", "changes", "test"), SAFEGUARDS, ids=[one[0].partition(":")[0] for one in SAFEGUARDS])
def test_it_can_be_taken_out(name: str, changes: list[tuple[str, str, str]], test: str) -> None:
    """What `scripts/safeguards.py` takes out is still there, once, and its test exists; the docs name both."""
    for file, there, instead in changes:
        assert (ROOT / "src/procore_hooks" / file).read_text(encoding="utf-8").count(there) == 1, (file, there)
        assert there != instead
    path, _, function = test.partition("::")
    assert (ROOT / path).exists()
    if function:
        sought = f"def {function.rpartition('::')[2].partition('[')[0]}("
        places = [ROOT / path, *(ROOT / "src/procore_hooks/testing").glob("*.py")]
        assert any(sought in place.read_text(encoding="utf-8") for place in places)
    assert f"| {name} | `{test.removeprefix('tests/')}` |" in TABLE
