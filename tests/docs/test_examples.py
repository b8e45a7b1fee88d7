"""The scripts in `examples` run by themselves, print what the docs show, and stand in the README as they are."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import procore_hooks
from procore_hooks import DestinationPolicy, Dispatcher, HookRegistry

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# Where the package is found from here, for the processes that run the examples.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(procore_hooks.__file__).parents[1]),
    "PYTHONDONTWRITEBYTECODE": "1",
}
SECRET = "whsec_" + "c2VjcmV0" * 4
PLUGIN = "procore_hooks.testing.pytest_plugin"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder of the examples; warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", *command],
        cwd=EXAMPLES,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as an app would, without this project's settings."""
    installed = any(point.value == PLUGIN for point in importlib.metadata.entry_points(group="pytest11"))
    plugin = () if installed else ("-p", PLUGIN)  # what an installation does by itself
    return run("-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", *plugin, *arguments)


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("script.py", "delivered 200\n{'subject': 'Door 12'}\n"),
        ("async_app.py", "delivered 200\n"),
    ],
)
def test_script_delivers(script: str, printed: str) -> None:
    """A script runs to its end, prints what the docs show, and writes nothing to stderr."""
    done = run(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def test_suite_of_an_app_passes() -> None:
    """The pytest suite that is shown passes with nothing but the package's own fixtures."""
    done = run_pytest("test_my_app.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_contract_runs_against_a_storage() -> None:
    """The file that is shown collects the whole contract, and the storage passes what is run of it here."""
    done = run_pytest("test_my_storage.py", "-k", "trigger")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize(("library", "script"), [("sqlalchemy", "sqlalchemy_app.py"), ("django", "django_app.py")])
def test_emit_joins_the_transaction(library: str, script: str) -> None:
    """What the app commits is queued, what it rolls back is not."""
    pytest.importorskip(library)
    done = run(script)
    assert (done.returncode, done.stdout) == (0, "54321 enqueued\n"), done.stderr


def test_demo_ends_well() -> None:
    """The demo ends by itself within its time, with the whole story told and nothing on stderr."""
    done = run("demo.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "none yet" in done.stdout
    assert "HTTP 500" in done.stdout
    assert "authorization: *****b8208" in done.stdout
    assert "the endpoint aborted this message (HTTP 422)" in done.stdout
    assert done.stdout.count("signature verified") == 6


def test_receiver_takes_what_is_signed_and_nothing_else() -> None:
    """The receiver that is shown reads a real delivery, once, and refuses one that another secret has signed."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "receiver.py", "0"],
        cwd=EXAMPLES,
        env={**ENVIRONMENT, "WEBHOOK_SECRET": SECRET},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process, HookRegistry(destinations=DestinationPolicy.local()) as registry:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            right = registry.hooks.create(url, namespace="right", signing_secret=SECRET)
            registry.triggers.create(right.id, "RFIs", "*")
            emission = registry.emit("RFIs", "update", resource_id=1)
            dispatcher = Dispatcher(registry)
            assert dispatcher.drain(timeout=30).delivered == 1
            registry.deliveries.redeliver(emission.delivery_ids[0])
            wrong = registry.hooks.create(url, namespace="wrong")
            registry.triggers.create(wrong.id, "Submittals", "*")
            registry.emit("Submittals", "create", resource_id=2)
            report = dispatcher.drain(timeout=30)
        finally:
            process.terminate()
        assert (report.delivered, report.retried) == (1, 1)
        read = process.stdout.read().splitlines()
    assert read[0] == "RFIs update 1"
    assert len(read) == 2
    assert read[1].startswith("refused: ")


@pytest.mark.parametrize("name", ["script.py", "async_app.py", "test_my_app.py"])
def test_readme_shows_the_example_to_the_letter(name: str) -> None:
    """What a reader copies from the README is what the other tests run."""
    assert f"```python\n{(EXAMPLES / name).read_text(encoding='utf-8')}```\n" in (ROOT / "README.md").read_text("utf-8")


def test_links_lead_somewhere() -> None:
    """Each relative link of the README leads to a file that is there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", readme):
        assert (ROOT / target).exists(), target
