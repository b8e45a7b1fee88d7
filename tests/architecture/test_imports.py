"""The shape of the package, held over its source text: who may import whom, names, and sizes.

::

    exceptions  <-  _core  <-  storage  <-  _registry, _dispatcher  <-  web, integrations, testing
                           <-  _transport, _connection, _dialling   (the HTTP side; knows no storage)

Each rule is also shown a text that breaks it, so that a rule which catches nothing is itself caught.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import procore_hooks

PACKAGE = "procore_hooks"
ROOT = Path(procore_hooks.__file__).parent
PROJECT = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = sorted(ROOT.rglob("*.py"))

# Pure: the same answer for the same arguments, and nothing seen or changed outside. No os, time, random, logging;
# of threading the locks only, which is held below by name, as the calls are that need no import.
CORE_LIBRARIES = {
    *("__future__", "abc", "attrs", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses"),
    *("datetime", "decimal", "difflib", "email.utils", "enum", "fractions", "functools", "hashlib", "heapq", "hmac"),
    *("httpx.InvalidURL", "httpx.URL", "idna", "ipaddress", "itertools", "json", "math", "operator", "re", "string"),
    *("struct", "threading", "types", "typing", "typing_extensions", "unicodedata"),
    *("urllib.parse", "uuid.UUID", "zlib"),
    # The same signature for the same key and message: deterministic (RFC 8032). Nothing else of the package, whose
    # recipes read clocks and draw nonces.
    *("cryptography.exceptions", "cryptography.hazmat.primitives.asymmetric.ed25519"),
    # The same bytes for the same value. Nothing else of the package.
    "orjson.dumps",
}
CORE_CALLS_NEVER = {
    *("eval", "exec", "input", "open", "print"),
    *("now", "today", "utcnow"),
    *("Thread", "Timer"),
}
# What a part may import of the package itself, for those parts where a list says it all.
MAY_IMPORT = {
    "exceptions": {"exceptions"},
    "_core": {"_core", "exceptions"},
    "keyring": {"_core", "exceptions"},
    "storage": {"_core", "exceptions", "keyring", "storage"},
}
HTTP_SIDE = {"_transport", "_connection", "_dialling"}
HTTP_LIBRARIES = {"asyncio", "h11", "httpcore", "httpx", "socket", "ssl"}
ABOVE_HTTP = {"storage", "_registry", "_dispatcher"}
# Nothing below imports these, and the first two use public names only.
EDGES = {"web", "integrations", "testing"}
PUBLIC_NAMES_ONLY = {"web", "integrations"}
# Where a distribution's name and its module's differ.
MODULE_OF = {"attrs": {"attr", "attrs"}, "opentelemetry-api": {"opentelemetry"}}

BANNED_WORDS = {"base2", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
LONGEST_FILE = 450
LONGEST_FUNCTION = 60


@attrs.frozen
class Import:
    """One imported name.

    Attributes:
        target: its full dotted name: ``from ..storage import Storage`` is ``procore_hooks.storage.Storage``.
        eager: happens when the module is imported, not within a function or for a type checker.
    """

    target: str
    line: int
    eager: bool

    def is_of(self, names: set[str]) -> bool:
        """Whether this is one of the modules or names, or inside one."""
        return any(self.target == name or self.target.startswith(f"{name}.") for name in names)

    @property
    def part(self) -> str | None:
        """The top-level part of the package that is imported; None for another package's."""
        package, _, rest = self.target.partition(".")
        return rest.partition(".")[0] if package == PACKAGE else None


@attrs.frozen
class Module:
    """A module of the package as text. `name` is dotted and without the package's; empty for the package itself."""

    name: str
    source: str
    is_package: bool = False

    @classmethod
    def of(cls, path: Path) -> Module:
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        return cls(".".join(parts[:-1] if is_package else parts), path.read_text(encoding="utf-8"), is_package)

    @property
    def part(self) -> str:
        return self.name.partition(".")[0]

    def nodes(self) -> Iterator[tuple[ast.AST, bool]]:
        """Every node, and whether it runs when the module is imported."""
        waiting: list[tuple[ast.AST, bool]] = [(ast.parse(self.source), True)]
        while waiting:
            node, eager = waiting.pop()
            yield node, eager
            eager = eager and not is_deferred(node)
            waiting.extend((child, eager) for child in ast.iter_child_nodes(node))

    def imports(self) -> list[Import]:
        return [found for node, eager in self.nodes() for found in self._imported_by(node, eager)]

    def _imported_by(self, node: ast.AST, eager: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, eager)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                here = [PACKAGE, *filter(None, self.name.split("."))]
                base = here[: len(here) + self.is_package - node.level] + base
            for alias in node.names:
                yield Import(".".join([*base, alias.name]), node.lineno, eager)


def is_deferred(node: ast.AST) -> bool:
    """Whether what is inside does not run when the module is imported."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def modules_of(requirements: list[str]) -> set[str]:
    """The top-level modules that these requirements install."""
    names = [re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower() for requirement in requirements]
    return set().union(*(MODULE_OF.get(name, {name.replace("-", "_")}) for name in names))


REQUIRED = modules_of(PROJECT["dependencies"])
OPTIONAL = modules_of([each for extra in PROJECT.get("optional-dependencies", {}).values() for each in extra])


def broken_rules(module: Module) -> list[str]:
    """What is wrong with the module, a line for each."""
    complaints = [
        f"line {imported.line}: {module.name or PACKAGE} imports {imported.target}: {why}"
        for imported in module.imports()
        for why in forbids(module, imported)
    ]
    complaints.extend(f"the name {word!r} says nothing" for word in set(re.split(r"[._]", module.name)) & BANNED_WORDS)
    if (lines := len(module.source.splitlines())) > LONGEST_FILE:
        complaints.append(f"{lines} lines: a file has at most {LONGEST_FILE}")
    for node, _ in module.nodes():
        complaints.extend(too_long(node))
        if module.part == "_core":
            complaints.extend(impure(node))
    return complaints


def forbids(module: Module, imported: Import) -> Iterator[str]:
    """The rules that this import breaks."""
    if imported.part is not None:
        yield from forbids_own(module, imported, imported.part)
        return
    if module.part == "_core" and not imported.is_of(CORE_LIBRARIES):
        yield "the core does no I/O and reads no clock"
    if module.part == "storage" and imported.is_of(HTTP_LIBRARIES):
        yield "a storage knows no HTTP"
    name = imported.target.partition(".")[0]
    if name in sys.stdlib_module_names or name in REQUIRED or (module.part == "testing" and name == "pytest"):
        return
    if name not in OPTIONAL:
        yield "pyproject.toml does not name it"
    elif imported.eager and module.part not in EDGES | {"storage"}:
        yield "what an extra installs is imported where it is used"


def forbids_own(module: Module, imported: Import, part: str) -> Iterator[str]:
    """The rules that an import of the package's own breaks."""
    if module.part in MAY_IMPORT and part not in MAY_IMPORT[module.part]:
        yield f"{module.part} may import {', '.join(sorted(MAY_IMPORT[module.part]))} only"
    if module.part in HTTP_SIDE and part in ABOVE_HTTP:
        yield "the HTTP side knows no storage"
    if part in EDGES and module.part not in EDGES:
        yield f"nothing below imports {part}"
    private = [name for name in imported.target.split(".")[1:] if name.startswith("_") and name != "__version__"]
    if module.part in PUBLIC_NAMES_ONLY and part != module.part and private:
        yield f"{module.part} uses public names only"


def too_long(node: ast.AST) -> Iterator[str]:
    """Whether a function is longer than one can read at a glance."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
        lines = node.end_lineno - node.lineno + 1
        if lines > LONGEST_FUNCTION:
            yield f"line {node.lineno}: {node.name} has {lines} lines: a function has at most {LONGEST_FUNCTION}"


def impure(node: ast.AST) -> Iterator[str]:
    """Whether a call reads a clock, does I/O or starts a thread through a name that the core may have."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in CORE_CALLS_NEVER:
            yield f"line {node.lineno}: the core calls {name}()"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_module_keeps_every_rule(path: Path) -> None:
    """Each module imports only what its place allows, has a name that says something, and a size one can read."""
    assert broken_rules(Module.of(path)) == []


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("_core.decide", "import time", "the core does no I/O"),
        ("_core.decide", "import httpx", "the core does no I/O"),
        ("_core.decide", "def f():\n    import socket", "the core does no I/O"),
        ("_core.decide", "import threading\nthreading.Thread(target=f).start()", "the core calls Thread()"),
        ("_core.decide", "from uuid import uuid4", "the core does no I/O"),
        ("_core.ed25519", "def f():\n    from cryptography.fernet import Fernet", "the core does no I/O"),
        (
            "_core.ed25519",
            "from cryptography.hazmat.primitives.asymmetric import ed25519",
            "what an extra installs is imported where it is used",
        ),
        ("_core.decide", "from datetime import datetime\ndatetime.now()", "the core calls now()"),
        ("_core.decide", "open('x')", "the core calls open()"),
        ("_core.decide", "from ..storage._base import Claim", "_core may import _core, exceptions only"),
        ("_core.decide", "from .. import observers", "_core may import _core, exceptions only"),
        ("exceptions", "from ._core import models", "exceptions may import exceptions only"),
        ("storage.memory", "import asyncio", "a storage knows no HTTP"),
        ("storage.memory", "from httpx import URL", "a storage knows no HTTP"),
        ("storage.sql.schema", "from ..._dispatcher import Dispatcher", "storage may import"),
        ("_transport", "from .storage import MemoryStorage", "the HTTP side knows no storage"),
        ("_dialling", "def f():\n    from ._registry import HookRegistry", "the HTTP side knows no storage"),
        ("_registry", "from .testing import ManualClock", "nothing below imports testing"),
        ("web.rest", "from .._registry import HookRegistry", "web uses public names only"),
        ("integrations.flask", "from procore_hooks._core.models import Hook", "integrations uses public names only"),
        ("_dispatcher", "import left_pad", "pyproject.toml does not name it"),
        ("_dispatcher", "import pytest", "pyproject.toml does not name it"),
        ("_core.url_utils", "", "the name 'utils' says nothing"),
        ("_manager", "", "the name 'manager' says nothing"),
        ("_registry", "\n" * (LONGEST_FILE + 1), f"a file has at most {LONGEST_FILE}"),
        ("_registry", "def f():\n" + "    0\n" * LONGEST_FUNCTION, f"at most {LONGEST_FUNCTION}"),
    ],
)
def test_broken_rule_is_noticed(name: str, source: str, complaint: str) -> None:
    """Each rule catches a text that breaks it, and says nothing else about it."""
    found = broken_rules(Module(name, source))
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("_core.decide", "from ..exceptions import InvalidInput\nfrom .models import Hook\nfrom httpx import URL"),
        ("_core.ed25519", "def f():\n    from cryptography.exceptions import InvalidSignature"),
        ("_core.decide", "from threading import Lock\nfrom collections.abc import Mapping\nimport email.utils"),
        ("storage.memory", "import threading\nfrom .._core.models import Hook\nfrom ._base import Storage"),
        ("_transport", "import ssl\nimport httpx\nfrom ._dialling import dial"),
        ("testing.pytest_plugin", "import pytest\nfrom .._registry import HookRegistry"),
        ("web.rest", "from procore_hooks import HookRegistry, __version__\nfrom ._pages import page"),
    ],
)
def test_allowed_import_passes(name: str, source: str) -> None:
    """What a place allows raises no complaint."""
    assert broken_rules(Module(name, source)) == []


def test_package_reaches_its_dependencies_only() -> None:
    """What `import procore_hooks` imports, at whatever remove, are the standard library and the named dependencies."""
    modules = {f"{PACKAGE}.{module.name}".rstrip("."): module for module in map(Module.of, FILES)}
    seen: set[str] = set()
    outside: set[str] = set()
    waiting = [PACKAGE]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules:
            continue
        seen.add(name)
        for imported in modules[name].imports():
            if imported.eager and imported.part is None:
                outside.add(imported.target.partition(".")[0])
            elif imported.eager:
                pieces = imported.target.split(".")
                waiting.extend(".".join(pieces[:length]) for length in range(1, len(pieces) + 1))
    assert outside - REQUIRED - sys.stdlib_module_names == set()


def test_import_loads_no_driver_and_no_framework() -> None:
    """In a fresh interpreter, `import procore_hooks` brings in no database driver, web or test framework."""
    unwanted = {"cryptography", "django", "fastapi", "flask", "jinja2", "opentelemetry", "orjson", "prometheus_client"}
    unwanted |= {"psycopg", "pytest", "sqlalchemy", "starlette", "uvloop", *(f"{PACKAGE}.{edge}" for edge in EDGES)}
    code = "import sys, procore_hooks; print(*sys.modules, sep='\\n')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert unwanted & set(run.stdout.split()) == set()


def rank(name: str) -> tuple[int, str]:
    """The order of `__all__`, which is ruff's: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_public_names_are_sorted_and_exist() -> None:
    """`__all__` is sorted, names each thing once, and each name is there."""
    names = procore_hooks.__all__
    assert list(names) == sorted(set(names), key=rank)
    assert [name for name in names if not hasattr(procore_hooks, name)] == []
