"""The soak in short: some seconds of everything at once. `python -m tests.soak.soak` plays it for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .soak import Soak

pytest.importorskip("resource", reason="this system has no signals that stop a process")


def test_everything_at_once(tmp_path: Path) -> None:
    """With all faults together the law holds, and what the app has open stays the same."""
    report = Soak(tmp_path, seconds=8, rate=40, seed=1).run()
    assert report.broken == []
    assert report.deliveries > 100
