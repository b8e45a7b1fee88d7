"""What tests of several folders begin with: a hook that hears everything, and a wait that has a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from procore_hooks import Hook, HookRegistry

URL = "https://hooks.example/procore"


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
