"""What tests of several folders begin with: a hook that hears everything, a wait that has a bound, the long forms."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from procore_hooks import Hook, HookRegistry

URL = "https://hooks.example/procore"
# The long forms of tests that have one.
FULL = os.environ.get("PROCORE_HOOKS_FULL") == "1"


def untraced_environment() -> dict[str, str]:
    """The environment for a process without coverage's tracer, which can cost more than the work and brings modules of
    its own; a process that is killed would leave half a data file.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def in_fresh_interpreter(source: str) -> str:
    """What a process of its own prints that runs `source`."""
    return subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=untraced_environment(),
    ).stdout


def wait_until(condition: Callable[[], object], *, bound: float) -> None:
    """Wait until `condition` holds; fail when `bound` seconds are over."""
    give_up = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < give_up, "what was waited for did not come"
        time.sleep(0.002)


def hook_for(registry: HookRegistry, url: str = URL, **keywords: Any) -> Hook:
    """A hook that hears everything."""
    hook = registry.hooks.create(url, namespace="test", **keywords)
    registry.triggers.create(hook.id, "*", "*")
    return hook
