"""Several processes on one file at the same time. PROCORE_HOOKS_FULL=1 makes the file a hundred times."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procore_hooks import SQLiteStorage
from procore_hooks.testing import _contract_values as make

from ..scene import FULL

Rows = Callable[..., list[Any]]

WAL_FILES, OTHER_FILES = (100, 100) if FULL else (20, 5)

STARTS = """
import itertools, json, logging, sys
logging.disable()
from procore_hooks import SQLiteStorage
from procore_hooks.testing import _contract_values as make

number = int(sys.argv[1])
# Each process numbers its events by itself.
make._EVENT_IDS = itertools.count((number + 1) * 1_000_000)
"""


class Processes:
    """Processes that run one script; what is said to one is said to all, before any answer is waited for."""

    def __init__(self, count: int, script: str) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", STARTS + script, str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]

    def ask(self, line: str) -> list[Any]:
        for process in self._processes:
            assert process.stdin
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        answers = []
        for process in self._processes:
            assert process.stdout
            assert process.stderr
            answer = process.stdout.readline()
            assert answer, process.stderr.read()
            answers.append(json.loads(answer))
        return answers

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


MIGRATE = """
for line in sys.stdin:
    path, mode = json.loads(line)
    storage = SQLiteStorage(path, durability="normal", journal_mode=mode)
    make.listening(storage, (f"of {number}", "*"))
    ids = make.emit(storage, make.an_event(f"of {number}")).delivery_ids
    storage.close()
    print(json.dumps(ids), flush=True)
"""


@pytest.mark.parametrize(("journal_mode", "times"), [("wal", WAL_FILES), ("delete", OTHER_FILES)])
def test_eight_processes_make_one_file(tmp_path: Path, journal_mode: str, times: int) -> None:
    """Eight processes that open the same new file at once all succeed, and emit: it is made once."""
    with Processes(8, MIGRATE) as processes:
        for number in range(times):
            path = tmp_path / f"{number}.db"
            answers = processes.ask(json.dumps([str(path), journal_mode]))
            assert sorted(answers) == [[n] for n in range(1, 9)]
            assert path.stat().st_mode & 0o777 == 0o600


WORK = """
path, number_of_deliveries = json.loads(sys.stdin.readline())
storage = SQLiteStorage(path, durability="normal")
emitted, claims, settled, settlements, late = [], [], [], [], 0
while True:
    if len(emitted) < number_of_deliveries:
        emitted += make.emit(storage).delivery_ids
    result = make.turn(storage, *settlements, capacity=7)
    settled += [one.settlement.claim.delivery_id for one in result.settled]
    late += len(result.late)
    settlements = [make.accepted(claim) for claim in result.claims]
    claims += [(claim.delivery_id, claim.number) for claim in result.claims]
    waits = len(emitted) < number_of_deliveries or settlements
    if not waits and set(storage.count_deliveries(None, make.T0)) == {"delivered"}:
        break
storage.close()
print(json.dumps([emitted, claims, settled, late]), flush=True)
"""


def test_four_processes_emit_and_turn(path: Path, rows: Rows) -> None:
    """Of 2,000 deliveries that four processes emit, claim and settle together, each is claimed once and settled once;
    no process meets a busy error.
    """
    storage = SQLiteStorage(path, durability="normal")
    for _ in range(2):
        make.listening(storage, max_in_flight=30)
    storage.close()
    with Processes(4, WORK) as processes:
        answers = processes.ask(json.dumps([str(path), 500]))
    emitted = [delivery_id for answer in answers for delivery_id in answer[0]]
    claims = [tuple(claim) for answer in answers for claim in answer[1]]
    settled = [delivery_id for answer in answers for delivery_id in answer[2]]
    assert len(set(emitted)) == len(emitted) == 2_000
    assert Counter(claims) == Counter((delivery_id, 1) for delivery_id in emitted)
    assert Counter(settled) == Counter(emitted)
    assert [answer[3] for answer in answers] == [0] * 4
    assert all(answer[1] for answer in answers)  # nobody was left out
    assert rows("SELECT state, attempt_count, count(*) FROM procore_hooks_deliveries GROUP BY 1, 2") == [(2, 1, 2_000)]
    assert rows("SELECT count(*), count(DISTINCT id), sum(outcome) FROM procore_hooks_attempts") == [(2_000, 2_000, 0)]
    assert rows("SELECT sum(in_flight), count(ready_at) FROM procore_hooks_queues") == [(0, 0)]
    assert rows("PRAGMA integrity_check") == [("ok",)]
