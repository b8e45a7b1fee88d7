"""Hostile receivers over real sockets, all at once, through one dispatcher and its own transport."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from ..scene import untraced_environment
from ..transport.conftest import answers_ok, receiver
from .conftest import BOUND
from .hostile_receivers import RECEIVERS, Hostile

TOTAL = 2.0  # the total deadline of an attempt in hostile_dispatcher.py, in seconds
MOST_MORE = 20 * 2**20


@attrs.frozen
class Outcome:
    """What one process recorded of all of them, and by how much its memory grew: first by all but two, then by these.

    The two are those with large payloads, which are as large as the app made them.
    """

    recorded: dict[str, list[dict[str, Any]]]
    more_bytes: tuple[int, int] | None


class Process:
    """`hostile_dispatcher.py` in one of its modes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def started(cls, mode: str, path: Path) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("hostile_dispatcher.py")),
            mode,
            str(path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=2**24,
            env=untraced_environment(),
        )
        return cls(process)

    async def answer(self, question: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, (await self._process.stderr.read()).decode()
        return json.loads(line)

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


async def _serve_and_send(path: Path) -> Outcome:
    async with AsyncExitStack() as stack, asyncio.timeout(3 * BOUND):
        hostile: dict[str, Any] = {}
        for name, one in RECEIVERS.items():
            seen = await stack.enter_async_context(receiver(one.script))
            hostile[name] = {
                "url": f"{one.scheme}://127.0.0.1:{seen.port}/",
                "events": len(one.statuses),
                "payload_bytes": one.payload_bytes,
            }
        well_behaved = await stack.enter_async_context(receiver(answers_ok))
        quiet = {"url": f"http://127.0.0.1:{well_behaved.port}/", "events": 1, "payload_bytes": 1000}
        # What is made only once, such as what TLS needs, is there before anything is measured.
        first = {f"well behaved {number}": quiet for number in range(50)}
        first["no TLS"] = hostile["speaks plainly where TLS is due"] | {"events": 1}
        large = {name: hostile.pop(name) for name in [*hostile] if hostile[name]["payload_bytes"]}
        emitter, dispatcher = await Process.started("emit", path), await Process.started("dispatch", path)
        stack.push_async_callback(emitter.end)
        stack.push_async_callback(dispatcher.end)
        before, most, after = [
            await dispatcher.answer(await emitter.answer(events)) for events in (first, hostile, large)
        ]
        more = most["most_memory"] - before["most_memory"], after["most_memory"] - most["most_memory"]
        return Outcome(most["recorded"] | after["recorded"], more if before["most_memory"] else None)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return asyncio.run(_serve_and_send(tmp_path_factory.mktemp("hostile") / "hooks.db"))


@pytest.mark.parametrize("name", RECEIVERS)
def test_a_hostile_receiver_fails_its_own_delivery_at_most(outcome: Outcome, name: str) -> None:
    """One recorded attempt per delivery, within the deadline, with a status or an error in words."""
    hostile: Hostile = RECEIVERS[name]
    deliveries = outcome.recorded[name]
    attempts = [attempt for delivery in deliveries for attempt in delivery["attempts"]]
    assert [len(delivery["attempts"]) for delivery in deliveries] == [1] * len(hostile.statuses)
    assert tuple(attempt["status"] for attempt in attempts) == hostile.statuses
    for delivery, attempt in zip(deliveries, attempts, strict=True):
        taken = attempt["status"] is not None and 200 <= attempt["status"] <= 299
        assert (delivery["status"], attempt["outcome"]) == (("delivered", "ok") if taken else ("retrying", "retried"))
        assert attempt["seconds"] <= TOTAL + 0.5
        assert attempt["status"] is not None or attempt["error"]
        assert len(base64.b64decode(attempt["body"])) <= 8192
        assert len(attempt["headers"]) <= 50
        assert sum(len(key) + len(value) for key, value in attempt["headers"].items()) <= 16_384
    last = attempts[-1]
    if hostile.error is None:
        assert last["error"] is None
    else:
        assert re.fullmatch(hostile.error, str(last["error"])), last["error"]
    if hostile.body is not None:
        assert base64.b64decode(last["body"]) == hostile.body


def test_all_of_them_together_need_little_memory(outcome: Outcome) -> None:
    """Bombs, endless answers and an upload of 5 MB are in memory piece by piece, or once or twice."""
    if outcome.more_bytes is None:
        pytest.skip("the most memory that a process has had is asked of Linux")
    assert max(outcome.more_bytes) <= MOST_MORE


def test_there_are_many_of_them() -> None:
    """What this file claims."""
    assert len(RECEIVERS) >= 60
