"""``manage.py procore_hooks_dispatch``: deliver in a process of its own."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand

from ..._configuration import get_dispatcher

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc]
    """Deliver until SIGTERM or Ctrl-C; attempts in flight are waited for, and what is not sent stays queued."""

    help = "Delivers webhooks until it is told to stop, by SIGTERM or Ctrl-C. Any number of these may run."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run a dispatcher, made as ``PROCORE_HOOKS`` says."""
        told = threading.Event()

        def tell(number: int, frame: FrameType | None) -> None:
            told.set()

        dispatcher = get_dispatcher()
        before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with dispatcher:
                self.stdout.write("Delivering webhooks; SIGTERM or Ctrl-C stops it.")
                self.stdout.flush()
                told.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.stdout.write("Stopped; what was not sent stays queued.")
