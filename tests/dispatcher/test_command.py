"""``python -m procore_hooks dispatch``: delivers in a process of its own, stops gracefully, and says what is wrong."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import procore_hooks
from procore_hooks import DestinationPolicy, Dispatcher, EventInput, HookRegistry, SQLiteStorage
from procore_hooks.__main__ import _parser
from procore_hooks._command import _carry_out, _registry_on_file, _Signals
from procore_hooks.testing import WebhookReceiver

from ..scene import untraced_environment
from .conftest import BOUND, hook_for

COMMAND = [sys.executable, "-m", "procore_hooks"]
SOURCE = str(Path(procore_hooks.__file__).parents[1])
ENVIRONMENT = {**untraced_environment(), "PYTHONPATH": SOURCE}
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (DEBUG|INFO|WARNING|ERROR) .+")


class Running:
    """The command at work in a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def read_until(self, words: str) -> None:
        """Read log lines until one holds these words."""
        assert self.process.stderr is not None
        while not self.lines or words not in self.lines[-1]:
            line = self.process.stderr.readline()
            assert line, f"it ended, and said {self.lines}"
            self.lines.append(line.rstrip("\n"))

    def end(self, number: signal.Signals | None = None) -> int:
        """Send the signal, wait until it has ended, and return the exit code."""
        if number is not None:
            self.process.send_signal(number)
        assert self.process.stderr is not None
        patience = threading.Timer(BOUND, self.process.kill)
        patience.start()
        try:
            self.lines += self.process.stderr.read().splitlines()  # not communicate(): it forgets what is buffered
            return self.process.wait()
        finally:
            patience.cancel()


@contextlib.contextmanager
def begin(folder: Path, *arguments: object) -> Iterator[Running]:
    """The command, which has begun to deliver."""
    command = [*COMMAND, "dispatch", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True) as process:
        running = Running(process)
        try:
            running.read_until("delivering what is in")
            yield running
        finally:
            process.kill()


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What comes of the command, which ends by itself."""
    command = [*COMMAND, "dispatch", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=BOUND)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[HookRegistry]:
    """The registry of an app on ``hooks.db``."""
    with HookRegistry(SQLiteStorage(tmp_path / "hooks.db"), destinations=DestinationPolicy.local()) as registry:
        yield registry


def emit(registry: HookRegistry, number: int) -> None:
    registry.emit_many(EventInput("RFIs", "update", {"number": each}) for each in range(number))


# At work


def test_it_delivers_what_another_process_emits(
    tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver
) -> None:
    """What is emitted here, while it runs there, arrives; each line that it logs has a time and a level."""
    hook_for(registry, receiver.url)
    with begin(tmp_path, "hooks.db", "--local") as command:
        registry.emit("RFIs", "update", {"subject": "Door 12"})
        assert receiver.wait_for(1, BOUND)[0].json()["data"] == {"subject": "Door 12"}
        assert command.end(signal.SIGTERM) == 0
    assert [line for line in command.lines if not LINE.fullmatch(line)] == []
    assert command.lines[-1].endswith("INFO stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_lets_the_attempt_in_flight_end(
    tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver, number: signal.Signals
) -> None:
    """Asked to stop in mid-attempt, it waits for the answer and stores it, and leaves the next delivery alone."""
    hook_for(registry, receiver.url)
    receiver.reply(200, delay=0.3)
    emit(registry, 2)
    with begin(tmp_path, "hooks.db", "--local") as command:
        receiver.wait_for(1, BOUND)
        assert command.end(number) == 0
    assert f"{number.name}: claiming nothing more" in command.lines[-2]
    later, earlier = registry.deliveries.list()
    assert (earlier.status, later.status, later.attempt_count) == ("delivered", "enqueued", 0)


def test_a_second_signal_ends_it_at_once(tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver) -> None:
    """It does not wait any longer for an answer that does not come, and says so by its exit code."""
    hook_for(registry, receiver.url)
    receiver.reply(200, delay=600)
    emit(registry, 1)
    with begin(tmp_path, "hooks.db", "--local", "--timeouts", 5, 600, 600) as command:
        receiver.wait_for(1, BOUND)
        command.process.send_signal(signal.SIGTERM)
        command.read_until("SIGTERM: claiming nothing more")
        assert command.end(signal.SIGTERM) == 128 + signal.SIGTERM
    (delivery,) = registry.deliveries.list()
    assert (delivery.status, delivery.attempt_count) == ("enqueued", 1)


def test_two_share_the_work(tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver) -> None:
    """Two processes on one file both deliver, and each delivery arrives once."""
    hook_for(registry, receiver.url, max_in_flight=10)
    receiver.reply(200, delay=0.01, times=60)
    options = ("hooks.db", "--local", "--max-in-flight", 2, "--log-level", "debug")
    with begin(tmp_path, *options) as one, begin(tmp_path, *options) as other:
        emit(registry, 60)
        receiver.wait_for(60, BOUND)
        assert (one.end(signal.SIGTERM), other.end(signal.SIGTERM)) == (0, 0)
    assert sorted(request.json()["data"]["number"] for request in receiver.requests) == list(range(60))
    assert {delivery.attempt_count for delivery in registry.deliveries.iter()} == {1}
    for each in (one, other):
        assert any("attempt 1 ok (200)" in line for line in each.lines)


def test_killed_and_begun_again_it_loses_nothing(
    tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver
) -> None:
    """kill -9 in mid-attempt: one that begins after the lease has run out sends that again, and all the rest."""
    hook_for(registry, receiver.url)
    receiver.reply(200, delay=600)
    emit(registry, 3)
    with begin(tmp_path, "hooks.db", "--local") as command:
        receiver.wait_for(1, BOUND)
        command.process.kill()
    tmp_path.joinpath("an_hour_later.py").write_text(APP.format(clock="ManualClock(datetime.now(UTC) + HOUR)"))
    assert run(tmp_path, "--app", "an_hour_later:registry", "--drain").stdout.startswith("delivered 3, ")
    assert [request.json()["data"]["number"] for request in receiver.requests] == [0, 0, 1, 2]
    outcomes = [[one.outcome for one in delivery.attempts] for delivery in registry.deliveries.list()]
    assert outcomes == [["ok"], ["ok"], ["unknown", "ok"]]


# The app's own

APP = """
from datetime import UTC, datetime, timedelta
from procore_hooks import AsyncHookRegistry, DestinationPolicy, Dispatcher, HookRegistry, SQLiteStorage
from procore_hooks.testing import ManualClock
HOUR = timedelta(hours=1)
settings = {{
    "destinations": DestinationPolicy.local(),
    "payload_formats": {{"own": lambda event: ["own", event.resource]}},
    "clock": {clock},
}}
registry = HookRegistry(SQLiteStorage("hooks.db"), **settings)
asynchronous = AsyncHookRegistry(SQLiteStorage("hooks.db"), **settings)
class App:
    dispatcher = Dispatcher(registry)
def make():
    return Dispatcher(registry)
"""


@pytest.mark.parametrize("name", ["registry", "asynchronous", "App.dispatcher", "make"])
def test_an_app_of_ones_own(tmp_path: Path, receiver: WebhookReceiver, name: str) -> None:
    """Each kind of object that may be named delivers by the app's destinations and formats, from this directory."""
    settings: dict[str, Any] = {"payload_formats": {"own": lambda event: None}}
    path = tmp_path / "hooks.db"
    tmp_path.joinpath("shop").mkdir()
    tmp_path.joinpath("shop/webhooks.py").write_text(APP.format(clock="None"))
    with HookRegistry(SQLiteStorage(path), destinations=DestinationPolicy.local(), **settings) as registry:
        hook_for(registry, receiver.url, payload_version="own")
        registry.emit("RFIs", "update")
        done = run(tmp_path, "--app", f"shop.webhooks:{name}", "--drain")
    assert (done.returncode, done.stdout) == (
        0,
        "delivered 1, retried 0, failed 0, discarded 0; nothing is due later\n",
    )
    assert receiver.requests[0].json() == ["own", "RFIs"]


def test_an_app_that_has_signals_and_logs_of_its_own(tmp_path: Path, registry: HookRegistry) -> None:
    """SIGTERM stops it gracefully even where the app ignores it; log lines go where the app sends them, once."""
    source = "import logging, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    source += 'logging.basicConfig(format="of the app: %(message)s", level="INFO")\n'
    tmp_path.joinpath("app.py").write_text(source + APP.format(clock="None"))
    with begin(tmp_path, "--app", "app:registry") as command:
        assert command.end(signal.SIGTERM) == 0
    said = [line for line in command.lines if "SQLite" not in line]  # a warning of some releases, as it is opened
    assert said == [
        "of the app: delivering what is in app:registry",
        "of the app: SIGTERM: claiming nothing more, and waiting for what is in flight",
        "of the app: stopped",
    ]


def test_a_signal_before_the_beginning(tmp_path: Path, registry: HookRegistry) -> None:
    """A signal that comes while the app is imported is not lost: it stops as soon as it has begun."""
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n"
    tmp_path.joinpath("app.py").write_text(source + APP.format(clock="None"))
    done = run(tmp_path, "--app", "app:registry")
    assert (done.returncode, done.stderr.splitlines()[-1][-7:]) == (0, "stopped")


class Late(Dispatcher):
    """Begins to run only after somebody has asked it to stop."""

    def __init__(self, registry: HookRegistry) -> None:
        super().__init__(registry)
        self._asked = threading.Event()

    def stop(self, timeout: float | None = None) -> None:
        super().stop(timeout)
        self._asked.set()

    def run(self) -> None:
        assert self._asked.wait(BOUND)
        super().run()


def test_a_signal_in_the_beginning(plain: HookRegistry) -> None:
    """A signal that comes when there is nothing to stop yet, but just after, stops it all the same."""
    options = _parser().parse_args(["dispatch", "hooks.db"])
    with _Signals() as signals:
        signals._hear(signal.SIGTERM, None)
        thread = threading.Thread(target=_carry_out, args=(Late(plain), options, signals), daemon=True)
        thread.start()
        thread.join(BOUND)
    assert not thread.is_alive()


# Options


@pytest.mark.parametrize(
    ("options", "counts"),
    [((), "retried 1"), (("--retry", "procore"), "retried 1"), (("--retry", "standard"), "retried 2")],
)
def test_drain_and_retry(
    tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver, options: tuple[str, ...], counts: str
) -> None:
    """A drain sends what is due and says what came of it. By Procore's schedule the first failure pauses the hook."""
    hook_for(registry, receiver.url)
    receiver.reply(500, times=2)
    emit(registry, 2)
    done = run(tmp_path, "hooks.db", "--local", "--drain", *options)
    assert done.returncode == 0
    due = min(one.next_attempt_at for one in registry.deliveries.list() if one.next_attempt_at and one.attempts)
    next_due = f"; next due at {due:%Y-%m-%dT%H:%M:%SZ}\n"
    assert done.stdout == f"delivered 0, {counts}, failed 0, discarded 0{next_due}"
    assert datetime.now(UTC) < due or counts == "retried 2"


def test_drain_waits_no_longer_than_it_may(tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver) -> None:
    """``--timeout`` cuts short what is in flight; the delivery stays queued."""
    hook_for(registry, receiver.url)
    receiver.reply(200, delay=600)
    emit(registry, 1)
    limits = ("--timeouts", 5, 600, 600, "--timeout", 0.2)
    assert run(tmp_path, "hooks.db", "--local", "--drain", *limits).returncode == 0
    assert [one.outcome for one in registry.deliveries.get(1).attempts] == ["unknown"]


def test_max_in_flight_and_timeouts(tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver) -> None:
    """No more attempts than that are claimed, though the hook may have ten; an answer may take as long as is said."""
    hook_for(registry, receiver.url, max_in_flight=10)
    receiver.reply(200, delay=600, times=5)
    emit(registry, 5)
    with begin(tmp_path, "hooks.db", "--local", "--max-in-flight", 2, "--timeouts", 1, 0.3, 1) as command:
        receiver.wait_for(2, BOUND)
        assert sorted(delivery.attempt_count for delivery in registry.deliveries.list()) == [0, 0, 0, 1, 1]
        assert command.end(signal.SIGTERM) == 0
    errors = {one.response_error for delivery in registry.deliveries.list() for one in delivery.attempts}
    assert len(errors) == 1
    assert "within 0.3 s" in str(errors)


@pytest.mark.parametrize(("level", "kinds"), [("debug", {"DEBUG", "INFO", "WARNING"}), ("error", set())])
def test_log_level_and_what_is_never_logged(
    tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver, level: str, kinds: set[str]
) -> None:
    """Each level shows what it is to show, and none a secret of the hook, of its URL or of the payload."""
    headers = {"Authorization": "Bearer planted-header"}
    secret = "whsec_" + "cGxhbnRlZC1z" * 3
    hook_for(registry, f"{receiver.url}/?token=planted-query", destination_headers=headers, signing_secret=secret)
    receiver.reply(500, body=b"planted-header planted-query")
    registry.emit("RFIs", "update", "planted-payload")
    done = run(tmp_path, "hooks.db", "--local", "--drain", "--log-level", level)
    assert "planted" not in done.stdout + done.stderr
    assert secret[6:] not in done.stderr
    said = [line for line in done.stderr.splitlines() if "SQLite" not in line]
    assert {line.split()[1] for line in said} == kinds


def opened(registry: HookRegistry, tmp_path: Path, *options: str) -> HookRegistry:
    """The registry that the command makes of these options."""
    return _registry_on_file(_parser().parse_args(["dispatch", str(tmp_path / "hooks.db"), *options]))


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ((), DestinationPolicy()),
        (("--local",), DestinationPolicy.local()),
        (("--http",), DestinationPolicy(("https", "http"))),
        (("--allow", "10.0.0.0/8", "--allow", "::1"), DestinationPolicy(allow=("10.0.0.0/8", "::1"))),
        (("--deny", "8.8.8.8"), DestinationPolicy(deny=("8.8.8.8",))),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_destinations(
    registry: HookRegistry, tmp_path: Path, options: tuple[str, ...], policy: DestinationPolicy
) -> None:
    """Each option opens or closes what it says, and without any the policy is the strict one."""
    with opened(registry, tmp_path, *options) as made:
        assert made.destinations == policy


def test_a_strict_policy_is_the_default(tmp_path: Path, registry: HookRegistry, receiver: WebhookReceiver) -> None:
    """Without ``--local`` nothing is sent to this machine."""
    hook_for(registry, receiver.url)
    emit(registry, 1)
    assert run(tmp_path, "hooks.db", "--drain").stdout.startswith("delivered 0, retried 1, ")
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("options", "synchronous", "journal"),
    [((), 2, "wal"), (("--durability", "normal"), 1, "wal"), (("--journal-mode", "delete"), 3, "delete")],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_durability_and_journal_mode(
    tmp_path: Path, registry: HookRegistry, options: tuple[str, ...], synchronous: int, journal: str
) -> None:
    """The file is opened as the options say, by default as `SQLiteStorage` does."""
    registry.close()
    with opened(registry, tmp_path, *options) as made:
        assert isinstance(made.storage, SQLiteStorage)
        for name, value in (("synchronous", synchronous), ("journal_mode", journal)):
            read = f"PRAGMA {name}"
            assert made.storage._database.read(lambda cursor, sql: cursor.execute(sql).fetchone(), read) == (value,)


def test_version_at_once(tmp_path: Path) -> None:
    """``--version`` says it, and does not wait for the import of an HTTP library."""
    script = "import sys; from procore_hooks.__main__ import main\ntry: main(['--version'])\nfinally: "
    script += 'sys.exit(f\'too much: {sys.modules.keys() & {"httpx", "asyncio", "sqlite3"}}\')'
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=BOUND
    )
    assert done.stdout == f"procore-hooks {procore_hooks.__version__}\n"
    assert done.stderr == "too much: set()\n"
    done = subprocess.run([*COMMAND, "--version"], env=ENVIRONMENT, capture_output=True, text=True, timeout=BOUND)
    assert (done.returncode, done.stdout) == (0, f"procore-hooks {procore_hooks.__version__}\n")


def test_a_registry_in_memory_is_worth_a_warning(tmp_path: Path) -> None:
    """Nothing that another process emits can come to it: that is said, for somebody will wait for it."""
    tmp_path.joinpath("app.py").write_text("from procore_hooks import HookRegistry\nregistry = HookRegistry()")
    done = run(tmp_path, "--app", "app:registry", "--drain")
    assert done.returncode == 0
    assert "WARNING the registry keeps everything in memory" in done.stderr
