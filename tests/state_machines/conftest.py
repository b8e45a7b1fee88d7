"""The plain asserts of the machine and of the model tell the values when they fail."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(*(f"tests.state_machines.{name}" for name in ("comparing", "machine", "model")))
