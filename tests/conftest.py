"""What every test shares: how Hypothesis searches."""

from __future__ import annotations

import os

import hypothesis
import pytest

# The contract's plain asserts then tell the values when they fail.
pytest.register_assert_rewrite("procore_hooks.testing")

# No deadline: on a busy machine it measures the neighbours. A failure prints how to see it again.
hypothesis.settings.register_profile("home", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "home")
