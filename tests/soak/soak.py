"""Everything at once, for minutes: one of a hundred of all things goes wrong, and the conservation law holds.

    python -m tests.soak.soak --minutes 10

An app emits and dispatches (`app`), and a second one beside it, which is killed, stopped beyond its leases and started
again. Between them and the receiver is a proxy that cuts, delays and loses; the receiver fails and dawdles; the file is
locked by a stranger; the machine's clock is set by days. At the end the faults cease, all is delivered, and the law is
read. It says how much memory the app took each minute, and how many files it had open.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from procore_hooks import DestinationPolicy, Dispatcher, HookRegistry, SQLiteStorage
from procore_hooks._core.payloads import render
from procore_hooks.testing import WebhookReceiver

from ..faults.evidence import Evidence, duplicates
from ..faults.proxy import Fault, Proxy
from ..scene import untraced_environment
from .app import RETRY, TIMEOUTS, SetClock

ROOT = Path(__file__).parents[2]
LEASE = TIMEOUTS.total + 5
WARM_UP = 120.0  # seconds after which the memory should not grow any more
BOUND = 300.0


@attrs.frozen
class Report:
    """What came of it."""

    broken: list[str]
    events: int
    deliveries: int
    requests: int
    duplicates: int
    kills: int
    stops: int
    clock_set: int
    bytes_per_minute: float
    files: tuple[float, float]  # on average, in the first quarter and in the last


@attrs.define
class _App:
    """An app process, and what it says of itself."""

    process: subprocess.Popen[str]
    samples: list[tuple[float, int, int]] = attrs.field(factory=list)
    _listener: threading.Thread = attrs.field(
        init=False, default=attrs.Factory(lambda self: threading.Thread(target=self._listen, daemon=True), True)
    )

    @classmethod
    def start(cls, folder: Path, life: int, rate: float) -> _App:
        command = [sys.executable, "-W", "ignore", "-m", "tests.soak.app", str(folder), str(life), str(rate)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=untraced_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        app = cls(process)
        app._listener.start()
        return app

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            memory, files = line.split()
            self.samples.append((time.monotonic(), int(memory), int(files)))

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self._gone()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._gone()

    def _gone(self) -> int:
        code = self.process.wait(BOUND)
        self._listener.join(BOUND)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Soak:
    """One soak in one folder."""

    def __init__(self, folder: Path, seconds: float, rate: float, seed: int) -> None:
        self._folder = folder
        self._seconds = seconds
        self._rate = rate
        self._dice = random.Random(seed)
        self._evidence = Evidence(folder)
        self._lives = 0
        self._kills = self._stops = self._clock_set = 0
        self._stopped_until = 0.0
        self._set_days(0)

    def run(self) -> Report:
        with WebhookReceiver() as receiver, Proxy(int(receiver.url.rstrip("/").rpartition(":")[2])) as proxy:
            self._receiver, self._proxy = receiver, proxy
            with self._registry() as registry:
                self._evidence.add_hooks(registry, proxy.url, payload_version="soak")
            app = self._start(self._rate)
            self._other = self._start(self._rate / 4)
            self._go_on_until(time.monotonic() + self._seconds)
            self._wake_other()
            ended = [app.end(), self._other.end()]
            receiver.reply(200, times=None)
            return self._report(app, [f"an app ended with {code}" for code in ended if code])

    def _registry(self) -> HookRegistry:
        return HookRegistry(
            SQLiteStorage(self._evidence.path, durability="normal"),
            destinations=DestinationPolicy.local(),
            clock=SetClock(self._folder / "days"),
            payload_formats={"soak": lambda event: render("v4.0", event, {})},
        )

    def _start(self, rate: float) -> _App:
        self._lives += 1
        return _App.start(self._folder, self._lives, rate)

    def _go_on_until(self, end: float) -> None:
        every: dict[Callable[[], None], float] = {
            self._feed: 0.05,
            self._lock: 3.0,
            self._kill: 7.0,
            self._stop: 23.0,
            self._set_clock: 11.0,
        }
        due = {action: time.monotonic() + self._dice.random() * seconds for action, seconds in every.items()}
        while time.monotonic() < end:
            time.sleep(0.02)
            for action, moment in due.items():
                if time.monotonic() >= moment:
                    action()
                    due[action] = time.monotonic() + every[action] * (0.5 + self._dice.random())
            if self._stopped_until and time.monotonic() > self._stopped_until:
                self._wake_other()

    def _feed(self) -> None:
        """Of a hundred connections one is cut or slow, of a hundred requests three are answered badly."""
        if self._proxy.faults_left < 200:
            k = self._dice.randrange(1, 600)
            fault = self._dice.choice(
                [
                    Fault(latency=0.2),
                    Fault(bytes_per_second=5_000),
                    Fault(cut_request_at=k),
                    Fault(cut_answer_at=k),
                    Fault(close_request_at=k),
                    Fault(close_answer_at=k),
                    Fault(lose_answer=True),
                ]
            )
            self._proxy.next(*[Fault()] * self._dice.randrange(99), fault)
        if len(self._receiver._replies) < 20:
            self._receiver.reply(200, times=self._dice.randrange(50, 150)).reply(500)
            self._receiver.reply(200, times=self._dice.randrange(50, 150)).reply(200, delay=TIMEOUTS.total + 1)
            self._receiver.reply(200, times=self._dice.randrange(50, 150)).reply(429, {"retry-after": "1"})

    def _lock(self) -> None:
        stranger = sqlite3.connect(self._evidence.path, isolation_level=None, timeout=BOUND)
        stranger.execute("BEGIN EXCLUSIVE")
        time.sleep(0.2)
        stranger.execute("ROLLBACK")
        stranger.close()

    def _kill(self) -> None:
        self._wake_other()
        self._other.kill()
        self._kills += 1
        self._other = self._start(self._rate / 4)

    def _stop(self) -> None:
        self._other.process.send_signal(signal.SIGSTOP)
        self._stops += 1
        self._stopped_until = time.monotonic() + LEASE + 1

    def _wake_other(self) -> None:
        self._stopped_until = 0.0
        self._other.process.send_signal(signal.SIGCONT)

    def _set_clock(self) -> None:
        self._clock_set += 1
        self._set_days(self._dice.randrange(-10, 11))

    def _set_days(self, days: int) -> None:
        # All at once, as a clock is set.
        (self._folder / "days.new").write_text(str(days))
        os.replace(self._folder / "days.new", self._folder / "days")

    def _report(self, app: _App, broken: list[str]) -> Report:
        give_up = time.monotonic() + BOUND
        with self._registry() as registry:
            while Dispatcher(registry, retry=RETRY, timeouts=TIMEOUTS).drain(BOUND).next_due_at is not None:
                if time.monotonic() > give_up:
                    broken.append("2: something is still due")
                    break
                time.sleep(0.1)
            deliveries = list(registry.deliveries.iter(page_size=1000))
            requests = self._receiver.requests
            broken += self._evidence.verdict(registry, requests)
        return Report(
            broken=broken,
            events=len(self._evidence.law.emitted),
            deliveries=len(deliveries),
            requests=len(requests),
            duplicates=duplicates(requests),
            kills=self._kills,
            stops=self._stops,
            clock_set=self._clock_set,
            bytes_per_minute=_slope(app.samples),
            files=_ends([files for _, _, files in _warm(app.samples)]),
        )


def _warm(samples: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """The samples after the warm-up; all of a soak that is shorter."""
    return [one for one in samples if one[0] - samples[0][0] > WARM_UP] or samples


def _slope(samples: list[tuple[float, int, int]]) -> float:
    """By how many bytes the memory grows in a minute."""
    moments, memory = zip(*[(moment, resident) for moment, resident, _ in _warm(samples)], strict=True)
    return statistics.linear_regression(moments, memory).slope * 60 if len(moments) > 1 else 0.0


def _ends(values: list[int]) -> tuple[float, float]:
    quarter = -(-len(values) // 4)
    return round(statistics.mean(values[:quarter]), 1), round(statistics.mean(values[-quarter:]), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Everything at once, for minutes.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=40.0, help="events per second")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Soak(Path(folder), options.minutes * 60, options.rate, options.seed).run()
    for name, value in attrs.asdict(report).items():
        sys.stdout.write(f"{name.replace('_', ' '):>18}: {value}\n")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
