#!/usr/bin/env python3
"""Takes each safeguard out of a copy of the source, and sees whether the test that is named here fails.

    scripts/safeguards.py             all of them, some minutes; prints the table of docs/what-can-happen.md
    scripts/safeguards.py fence pause those whose name holds one of the words

Run it with the Python that has the package's tests installed (.venv/bin/python). It ends with 1 if a safeguard can be
taken out without anybody noticing, or if its test fails with the safeguard in place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SQLITE = "storage/sqlite"

# (what is taken out, [(file of the package, what stands there, what is put there)], the test that has to fail)
SAFEGUARDS: list[tuple[str, list[tuple[str, str, str]], str]] = [
    (
        "fence: a result counts only for the attempt that it belongs to",
        [
            (
                f"{SQLITE}/settling.py",
                "if numbers.get(claim.delivery_id) != claim.number:",
                "if claim.delivery_id not in numbers:",
            )
        ],
        "tests/contract/test_sqlite.py::TestSQLiteStorage::test_a_result_of_a_lease_that_ran_out_is_late",
    ),
    (
        "state: a result counts only while its attempt is open",
        [
            (
                f"{SQLITE}/settling.py",
                "WHERE d.lease_until IS NOT NULL",
                "",
            )
        ],
        "tests/contract/test_sqlite.py::TestSQLiteStorage::test_a_result_counts_once",
    ),
    (
        "count at claim: an attempt counts from its claim on, not from its result",
        [
            ("storage/_memory_turn.py", "        row.attempt_count += 1\n", ""),
            (
                "storage/_memory_turn.py",
                "        row.attempts.append(settlement.attempt)\n",
                "        row.attempts.append(settlement.attempt)\n        row.attempt_count += 1\n",
            ),
            ("storage/_memory_turn.py", "            row.attempts.append(_unknown_attempt(number, row.lease))\n", ""),
        ],
        "tests/simulation/test_simulation.py::test_millions_of_steps",
    ),
    (
        "lease: it is longer than an attempt can take",
        [
            (
                "_engine.py",
                "timedelta(seconds=settings.timeouts.total) + _LEASE_MARGIN",
                "timedelta(seconds=settings.timeouts.total)",
            )
        ],
        "tests/dispatcher/test_trouble.py::test_a_result_after_the_lease_is_dropped[sqlite]",
    ),
    (
        "time to send: a claim that took too long is not sent",
        [("_engine.py", "if not claims or asyncio.get_running_loop().time() < send_by:", "if True:")],
        "tests/dispatcher/test_set_clocks.py::test_a_claim_that_took_too_long_is_not_sent[sqlite]",
    ),
    (
        "immediate: a transaction that will write takes the lock first",
        [(f"{SQLITE}/connection.py", 'self._run("BEGIN IMMEDIATE"', 'self._run("BEGIN"')],
        "tests/faults/test_processes.py::test_a_crowd_on_one_file",
    ),
    (
        "once per hook: two triggers that match make one delivery",
        [(f"{SQLITE}/matching.py", "SELECT DISTINCT t.hook_id", "SELECT t.hook_id")],
        "tests/state_machines/test_registry.py::test_any_calls_do_what_they_do_to_the_model[0-sqlite]",
    ),
    (
        "commit first: a claim is stored before the POST",
        [
            (
                f"{SQLITE}/turn.py",
                "        picked = pick(cursor, self._hooks, number, at, due, lease, capacity)\n",
                (
                    "        cursor.execute('SAVEPOINT claims')\n"
                    "        picked = pick(cursor, self._hooks, number, at, due, lease, capacity)\n"
                    "        self.claims, _ = load_claims(cursor, picked, moment(at), moment(at) + lease)\n"
                    "        cursor.execute('ROLLBACK TO claims')\n"
                ),
            ),
            (
                f"{SQLITE}/turn.py",
                "attrs.evolve(turn, claims=claims, next_due_at=_earliest(*next_due))",
                "attrs.evolve(turn, claims=self.claims, next_due_at=_earliest(*next_due))",
            ),
        ],
        "tests/acceptance/test_processes.py::test_two_processes_deliver_each_event_once",
    ),
    (
        "pause: a hook that failed is left alone until its pause is over",
        [
            (f"{SQLITE}/ready.py", "THEN iif({paused_until} > :due, {paused_until}, 0)", "THEN 0"),
            (f"{SQLITE}/claiming.py", "iif(q.paused_until > :due, 0, ", "iif(0, 0, "),
        ],
        "tests/simulation/test_simulation.py::test_the_same_worlds_on_sqlite",
    ),
    (
        "probe: a hook that failed gets one attempt at a time",
        [
            (
                f"{SQLITE}/claiming.py",
                "iif(q.failures > 0, 1, q.max_in_flight) - q.in_flight",
                "q.max_in_flight - q.in_flight",
            )
        ],
        "tests/acceptance/test_retry_schedules.py::test_a_failing_hook_gets_one_probe_at_a_time[sqlite]",
    ),
    (
        "order: the oldest delivery of a hook goes first",
        [("storage/_memory_queue.py", "self._fresh.popleft()", "self._fresh.pop()")],
        "tests/acceptance/test_order_and_fairness.py::test_first_arrivals_are_in_order_of_emission[memory]",
    ),
    (
        "atomic: an event and its deliveries are stored in one transaction",
        [
            (
                f"{SQLITE}/emit.py",
                "        _insert_event(cursor, event, uses)\n",
                (
                    "        _insert_event(cursor, event, uses)\n"
                    "        cursor.execute('COMMIT')\n        cursor.execute('BEGIN IMMEDIATE')\n"
                ),
            )
        ],
        "tests/crash/test_failpoints.py",
    ),
    (
        "epoch: a success of before the failure does not lift the pause",
        [
            (
                f"{SQLITE}/settling.py",
                "change is not None and epochs.get(hook_id) == claim.epoch",
                "change is not None",
            )
        ],
        "tests/contract/test_sqlite.py::TestSQLiteStorage::test_a_success_of_before_the_failure_does_not_lift_the_pause",
    ),
    (
        "doom: what was under way when its queue was dropped does not come back",
        [(f"{SQLITE}/settling.py", 'if status == "retrying" else None\n', "if False else None\n")],
        "tests/contract/test_sqlite.py::TestSQLiteStorage::test_a_flush_reaches_what_is_under_way",
    ),
    (
        "expiry: what a process that died had claimed returns",
        [(f"{SQLITE}/settling.py", "(now, _EXPIRED_AT_ONCE)).fetchone()[0])", "(0, _EXPIRED_AT_ONCE)).fetchone()[0])")],
        "tests/crash/test_random_kills.py",
    ),
    (
        "full: every commit is on the disk before it is acknowledged",
        [(f"{SQLITE}/connection.py", '"FULL" if self._journal_mode', '"NORMAL" if self._journal_mode')],
        "tests/powerloss/test_power_loss.py::test_full_durability_loses_nothing[wal-0]",
    ),
    (
        "extra: without a WAL the folder is synced too",
        [(f"{SQLITE}/connection.py", 'else "EXTRA"', 'else "FULL"')],
        "tests/powerloss/test_power_loss.py::test_full_durability_loses_nothing[delete-0]",
    ),
    (
        "fork: no connection is open across a fork",
        [(f"{SQLITE}/connection.py", 'if hasattr(os, "register_at_fork"):', "if False:")],
        "tests/sqlite/test_forks.py",
    ),
    (
        "one maker: who waited for the lock looks again whether the tables are there",
        [
            (
                f"{SQLITE}/schema.py",
                (
                    "    # Another process may have done it while we waited for the lock.\n"
                    "    version = _version(cursor, path)\n"
                ),
                "    version = 0\n",
            )
        ],
        "tests/sqlite/test_processes.py::test_eight_processes_make_one_file",
    ),
    (
        "clock: what is to come moves with a wall clock that is set",
        [(f"{SQLITE}/clocks.py", "for statement in _MOVE if by else ():", "for statement in ():")],
        "tests/dispatcher/test_set_clocks.py",
    ),
    (
        "kept results: what the storage could not take is brought again",
        [("_engine.py", "if by else one for one in batch])", "if by else one for one in batch[:0]])")],
        "tests/dispatcher/test_trouble.py::test_results_wait_for_the_storage[sqlite]",
    ),
    (
        "cut short: a cancelled attempt is settled, and returns at once",
        [
            ("_in_flight.py", "self._settlements.append(left_open(one.claim, now))", "del now"),
            ("_in_flight.py", "*(left_open(claim, now) for claim in unsaid)", ""),
        ],
        "tests/faults/test_cancellation.py",
    ),
    (
        "observers: one that raises stops nobody",
        [
            (
                "_engine.py",
                '            except Exception:\n                _log.exception("an observer',
                '            except ZeroDivisionError:\n                _log.exception("an observer',
            )
        ],
        "tests/faults/test_callables.py::test_observers_that_raise",
    ),
    (
        "deadline: an attempt ends, whatever the endpoint does",
        [("_sending.py", "min(loop.time() + self._timeouts.total, send_by)", "loop.time() + 9e9")],
        "tests/dispatcher/test_answers.py::test_the_total_deadline_ends_an_attempt[sqlite]",
    ),
    (
        "lock: a call of the memory storage is atomic",
        [
            (
                "storage/memory.py",
                "        with self._lock:\n            if self._closed:\n",
                "        if True:\n            if self._closed:\n",
            )
        ],
        "tests/contract/test_memory.py::TestMemoryStorage::test_threads_that_emit_and_turn",
    ),
    (
        "own: no connection to an address of this machine",
        [("_dialling.py", "if_own if judgement.allowed and self._is_own(address) else judgement", "judgement")],
        "tests/transport/test_own_addresses.py::test_own_address_is_refused",
    ),
    (
        "judged: no connection to an address that was not judged",
        [("_dialling.py", "if not judgement.allowed:", "if False:")],
        "tests/transport/test_dialling.py::test_name_that_flips_is_judged_at_each_dial",
    ),
    (
        "remembered: who gets an event is asked again after any change",
        [(f"{SQLITE}/matching.py", "match is None or match.generation != generation", "match is None")],
        "tests/sqlite/test_matching.py",
    ),
    (
        "versions: a hook that is known is read again after any change",
        [(f"{SQLITE}/claiming.py", "hook is not None and was == one", "hook is not None")],
        "tests/sqlite/test_encrypted_delivery.py",
    ),
    (
        "last wall: headers that others stored are checked before they are sent",
        [("_requests.py", "        check_headers(hook.destination_headers)\n", "")],
        "tests/transport/test_header_bytes.py",
    ),
    (
        "masked: what a receiver sends back of a hook's secrets is not kept",
        [
            (
                "_core/masking.py",
                "kept_response_headers(self.masked_in_headers(raw))",
                "kept_response_headers(raw)",
            )
        ],
        "tests/dispatcher/test_planted_secrets.py",
    ),
    (
        "whole: an answer is read without h11 only if nothing is missing and nothing follows",
        [("_http1.py", "plain[1] != len(data) - end", "plain[1] > len(data) - end")],
        "tests/unit/test_http1.py",
    ),
    (
        "indexed: what an emit left out of the index of its hook is put in before anybody looks there",
        [(f"{SQLITE}/turn.py", "        cursor.execute(INDEX)\n", "")],
        "tests/sqlite/test_indexing.py::test_a_turn_leaves_none_out",
    ),
    (
        "at once: a dispatcher's loop does not wait for whoever keeps the file locked",
        [("_engine.py", "now, capacity, wait=False)", "now, capacity, wait=True)")],
        "tests/dispatcher/test_lifecycle.py::test_a_turn_that_would_wait_is_another_threads",
    ),
    (
        "token: the settings page changes nothing without the form's token",
        [("web/_visit.py", 'if not is_form_token(key, form.get("token")):', "if False:")],
        "tests/web/test_safety.py",
    ),
]


def main() -> int:
    words = sys.argv[1:]
    chosen = [one for one in SAFEGUARDS if not words or any(word in one[0] for word in words)]
    missed: list[str] = []
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("src", "tests", "examples", "docs"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, copy / name)
        for name, changes, test in chosen:
            before = fails(copy, test)
            originals = change(copy, changes)
            after = fails(copy, test)
            for path, text in originals.items():
                path.write_text(text, encoding="utf-8")
            is_caught = after is not None and before is None
            rows.append(f"| {name} | `{test.removeprefix('tests/')}` |")
            said = before or after or "the test passed"
            print(f"{'caught' if is_caught else 'MISSED'}: {name}\n    {said}", flush=True)
            if not is_caught:
                missed.append(name)
    print("\n| safeguard | the test that fails without it |\n| --- | --- |", *rows, sep="\n")
    print(f"\n{len(chosen) - len(missed)} of {len(chosen)} safeguards are watched", *missed, sep="\n  missed: ")
    return 1 if missed else 0


def change(copy: Path, changes: list[tuple[str, str, str]]) -> dict[Path, str]:
    """Take a safeguard out. Returns the texts of the files as they were."""
    originals: dict[Path, str] = {}
    for file, there, instead in changes:
        path = copy / "src/procore_hooks" / file
        text = path.read_text(encoding="utf-8")
        originals.setdefault(path, text)
        if text.count(there) != 1:
            sys.exit(f"{file}: {text.count(there)} times: {there!r}; bring this script up to date")
        path.write_text(text.replace(there, instead), encoding="utf-8")
    return originals


def fails(copy: Path, test: str) -> str | None:
    """None if the test passes; else what it said, in a line."""
    environment = {**os.environ, "PYTHONPATH": "src", "PROCORE_HOOKS_STEPS": "200000", "CI": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", test]
    options = {"cwd": copy, "env": environment, "capture_output": True, "text": True, "timeout": 600}
    try:
        run = subprocess.run(command, check=False, **options)
    except subprocess.TimeoutExpired:
        return "it never ended"
    if run.returncode == 0:
        return None
    if run.returncode != 1:
        sys.exit(f"{test}: pytest ended with {run.returncode}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    errors = [line for line in run.stdout.splitlines() if line.startswith("E  ")]
    return " ".join(errors[0].split())[2:160] if errors else run.stdout.splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
