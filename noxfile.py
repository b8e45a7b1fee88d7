"""The longer checks: every Python, the lowest dependencies, the built wheel, a second type checker, the docs.

`scripts/test` is the short way. Here nothing is said twice: the Pythons come from the classifiers, the packages from
the dependency groups, and the lower bounds from the dependencies in pyproject.toml.
"""

from __future__ import annotations

from pathlib import Path

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
OLDEST = PYTHONS[0]
# Absolute, so that the children that tests start in other folders write beside the rest.
COVERAGE = {"COVERAGE_FILE": str(Path(__file__).with_name(".coverage"))}

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "tests", "coverage", "lowest", "docs"]


def group(name: str) -> list[str]:
    """The packages of a dependency group."""
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Test the built wheel under coverage."""
    session.install(".", *group("test"))
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=COVERAGE)


@nox.session(python=OLDEST)
def coverage(session: nox.Session) -> None:
    """Combine what `tests` measured on every Python, and hold the threshold."""
    session.install(*group("test"))
    session.run("coverage", "combine", env=COVERAGE)
    session.run("coverage", "report", env=COVERAGE)


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """Test with the lowest versions that the package says it works with."""
    lowest_versions = [requirement.replace(">=", "==") for requirement in PYPROJECT["project"]["dependencies"]]
    session.install(".", *lowest_versions, *group("test"))
    # These versions bring an older anyio, whose pytest plugin uses what a newer pytest has renamed.
    session.run("pytest", "-W", "default::pytest.PytestDeprecationWarning", *session.posargs)


@nox.session(python=PYTHONS)
def speed(session: nox.Session) -> None:
    """Test with what the extra ``speed`` brings."""
    session.install(".[speed]", *group("test"))
    session.run("pytest", *session.posargs)


@nox.session(python=OLDEST)
def long(session: nox.Session) -> None:
    """The long form of what `docs/what-can-happen.md` promises: faults, crashes, a simulation, a soak; over an hour."""
    session.install("--editable", ".", *group("test"))
    environment = {"PROCORE_HOOKS_FULL": "1", "PROCORE_HOOKS_STEPS": "100000000"}
    tests = ["crash", "faults", "powerloss", "state_machines", "simulation", "destinations"]
    tests += ["transport/test_rebinding.py", "sqlite/test_processes.py", "integrations"]
    no_hang = ["-o", "faulthandler_timeout=3600"]  # the longest test has 80,000 deliveries to make
    session.run("pytest", "-s", *no_hang, *(f"tests/{name}" for name in tests), env=environment)
    session.run("python", "-m", "tests.soak.soak", "--minutes", "10")
    session.run("python", "scripts/safeguards.py")


@nox.session(python=OLDEST)
def typing(session: nox.Session) -> None:
    """Check the types with mypy and with pyright, and that no public name lacks one."""
    session.install("--editable", ".", *group("test"), *group("lint"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "procore_hooks", "--ignoreexternal")


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Lint, and check the format."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install(".", *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
