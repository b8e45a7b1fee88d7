"""No space: a disk that is full, and full again, and a limit on the size of files."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from procore_hooks import Dispatcher, HookRegistry, StorageFull
from procore_hooks.testing import WebhookReceiver

from .evidence import BOUND, Evidence, Notebook, open_registry, wait_until

MOST_EMITS = 3000
ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here ({mounted.stderr.strip()}): only root may")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def emit_until_full(registry: HookRegistry, notebook: Notebook, numbers: Iterator[int]) -> int:
    """Emit until there is no space; how many were stored."""
    for stored in range(MOST_EMITS):
        try:
            notebook.emit(registry, next(numbers), "RFIs")
        except StorageFull as error:
            assert "no space is left" in str(error)  # noqa: PT017 - of many emits, the last one raises
            return stored
    raise AssertionError(f"{MOST_EMITS} emits found space")


def fill(disk: Path) -> Path:
    """A file that leaves no space to others."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 512):
            pass
    return ballast


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_full_disk(
    small_disk: Path, tmp_path: Path, notebook: Notebook, receiver: WebhookReceiver, journal_mode: str
) -> None:
    """On a full disk emits raise `StorageFull` and nothing is half done; the dispatcher keeps the results that it
    cannot store. With space all goes on, and full again is the same again.
    """
    evidence = OnDisk(tmp_path, disk=small_disk)
    registry = open_registry(evidence.path, journal_mode=journal_mode, busy_timeout=1)
    evidence.add_hooks(registry, receiver.url)
    numbers = iter(range(10 * MOST_EMITS))
    with Dispatcher(registry) as dispatcher:
        for _ in range(2):
            so_far = len(receiver.requests)
            receiver.reply(200, delay=0.2, times=3).reply(200, times=None)
            notebook.emit(registry, next(numbers), "RFIs")
            receiver.wait_for(so_far + 3, BOUND)
            ballast = fill(small_disk)
            # The answers come now, and cannot be recorded, or only just.
            for _ in range(3):
                emit_until_full(registry, notebook, numbers)
            ballast.unlink()
            notebook.emit(registry, next(numbers), "RFIs")
            wait_until(lambda: dispatcher.drain(BOUND).next_due_at is None)
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []
    registry.close()


class OnDisk(Evidence):
    """Evidence whose database is on a small disk, and its notebook is not."""

    def __init__(self, folder: Path, disk: Path) -> None:
        super().__init__(folder)
        self._disk = disk

    @property
    def path(self) -> Path:
        return self._disk / "hooks.db"


def test_a_disk_that_is_filled_by_events(
    small_disk: Path, tmp_path: Path, notebook: Notebook, receiver: WebhookReceiver
) -> None:
    """Events alone fill the disk, while nobody delivers. Once the disk is larger they are all delivered."""
    evidence = OnDisk(tmp_path, disk=small_disk)
    registry = open_registry(evidence.path)
    evidence.add_hooks(registry, receiver.url)
    numbers = iter(range(MOST_EMITS + 10))
    assert emit_until_full(registry, notebook, numbers) > 30
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    notebook.emit(registry, next(numbers), "RFIs")
    assert Dispatcher(registry).drain(BOUND).next_due_at is None
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []
    registry.close()


LIMITED = """
import itertools, logging, resource, sys
from pathlib import Path
from procore_hooks import Dispatcher, StorageFull
from tests.faults.evidence import Notebook, open_registry
logging.disable()
registry, notebook, numbers = open_registry(Path(sys.argv[1])), Notebook(Path(sys.argv[2])), itertools.count()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
with Dispatcher(registry) as dispatcher:
    notebook.emit(registry, next(numbers), "RFIs")
    dispatcher.drain(60)
    for room in (0, 200_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]) + room, hard))
        refused = 0
        while refused < 3:
            try:
                notebook.emit(registry, next(numbers), "RFIs")
            except StorageFull:
                refused += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        notebook.emit(registry, next(numbers), "RFIs")
        dispatcher.drain(60)
"""


def test_a_limit_on_the_size_of_files(receiver: WebhookReceiver, evidence: Evidence) -> None:
    """Under RLIMIT_FSIZE, reached twice while a dispatcher works: what emit refused is not there, all else arrives."""
    with open_registry(evidence.path) as registry:
        evidence.add_hooks(registry, receiver.url)
    wal_or_file = max(path.stat().st_size for path in evidence.folder.iterdir())
    limited = subprocess.run(
        [sys.executable, "-c", LIMITED, evidence.path, evidence.notes, str(wal_or_file + 100_000)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (limited.returncode, limited.stderr) == (0, "")
    with open_registry(evidence.path) as registry:
        assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []
