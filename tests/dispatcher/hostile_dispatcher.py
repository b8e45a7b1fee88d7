"""Two processes of their own: one emits, and one has a dispatcher, whose memory is then not that of the receivers, nor
that of an emit.

``emit`` reads from its input what to send where, and prints the ids of the deliveries. ``dispatch`` sends what is there
and prints what was recorded of the deliveries whose ids it reads, again and again. All as JSON, a line each.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from tenacity import stop_never, wait_fixed

from procore_hooks import Delivery, DestinationPolicy, Dispatcher, HookRegistry, RetryPolicy, SQLiteStorage, Timeouts


def described(delivery: Delivery) -> dict[str, Any]:
    return {
        "status": delivery.status,
        "attempts": [
            {
                "outcome": attempt.outcome,
                "status": attempt.response_status,
                "error": attempt.response_error,
                "body": base64.b64encode(attempt.response_body).decode("ascii"),
                "headers": dict(attempt.response_headers),
                "seconds": (attempt.completed_at - attempt.started_at).total_seconds() if attempt.completed_at else 1e9,
            }
            for attempt in delivery.attempts
        ],
    }


def most_memory() -> int:
    """The most memory that this process has had so far, in bytes; 0 where Linux does not tell.

    `getrusage` would do but for this: what it tells includes the parent, as it was when it began us.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def registry_of(path: str) -> HookRegistry:
    storage = SQLiteStorage(path, durability="normal")
    return HookRegistry(storage, destinations=DestinationPolicy.local(), max_payload_bytes=20 * 2**20)


def emit(registry: HookRegistry) -> None:
    for line in sys.stdin:
        ids: dict[str, list[int]] = {}
        for name, one in json.loads(line).items():
            hook = registry.hooks.create(one["url"], namespace="hostile")
            registry.triggers.create(hook.id, name, "update")
            payload = {"text": "x" * one["payload_bytes"]}
            ids[name] = [registry.emit(name, "update", payload).delivery_ids[0] for _ in range(one["events"])]
        print(json.dumps(ids), flush=True)


def dispatch(registry: HookRegistry) -> None:
    retry = RetryPolicy(wait=wait_fixed(3600), stop=stop_never)
    dispatcher = Dispatcher(registry, retry=retry, timeouts=Timeouts(connect=1.6, response=1.6, total=2.0))
    for line in sys.stdin:
        dispatcher.drain(30)
        most = most_memory()  # not what it takes to read it all again, below
        recorded = {
            name: [described(registry.deliveries.get(one)) for one in ids] for name, ids in json.loads(line).items()
        }
        print(json.dumps({"recorded": recorded, "most_memory": most}), flush=True)


if __name__ == "__main__":
    {"emit": emit, "dispatch": dispatch}[sys.argv[1]](registry_of(sys.argv[2]))
