"""The public API: which names there are, and what importing them costs."""

from __future__ import annotations

import pytest

import procore_hooks

from ..scene import in_fresh_interpreter

# Pinned: a name that comes or goes is a decision, and a line in the changelog.
NAMES = [
    "PROCORE",
    "AsyncHookRegistry",
    "Attempt",
    "AttemptOutcome",
    "BoundRegistry",
    "Clock",
    "Conflict",
    "Delivery",
    "DeliveryBucket",
    "DeliveryStats",
    "DeliveryStatus",
    "DestinationPolicy",
    "Dispatcher",
    "DrainReport",
    "DuplicateTrigger",
    "Emission",
    "EndpointReport",
    "EndpointStage",
    "Event",
    "EventInput",
    "GuardedTransport",
    "Hook",
    "HookRegistry",
    "HookStatus",
    "IdempotencyConflict",
    "InvalidCursor",
    "InvalidDestination",
    "InvalidHeader",
    "InvalidInput",
    "InvalidPayload",
    "Judgement",
    "KeyRing",
    "MemoryStorage",
    "NotFound",
    "Page",
    "PreviousSecret",
    "ProcoreHooksError",
    "Resource",
    "ResourceCatalog",
    "RetryPolicy",
    "SQLiteStorage",
    "SchemaTooNew",
    "Secret",
    "SecretUnreadable",
    "Storage",
    "StorageBusy",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "Timeouts",
    "Trigger",
    "UnknownPayloadVersion",
    "UnknownResource",
    "UnsupportedAction",
    "Verdict",
    "VerificationError",
    "WhenDisabled",
    "__version__",
    "generate_ed25519_secret",
    "verify",
]


def test_the_list_is_pinned() -> None:
    """Exactly these names, in this order."""
    assert procore_hooks.__all__ == NAMES


def test_every_error_is_public() -> None:
    """Whatever the library raises can be caught by a public name."""
    assert set(procore_hooks.exceptions.__all__) <= set(procore_hooks.__all__)


def test_star_import() -> None:
    """`from procore_hooks import *` brings just these, the lazy ones too."""
    found = in_fresh_interpreter(
        "before = set(globals()) | {'before'}\n"
        "from procore_hooks import *\n"
        "print(*sorted(set(globals()) - before))\n"
        "assert SQLiteStorage.__name__ == 'SQLiteStorage' and len(PROCORE) == 121"
    ).split()
    assert sorted(found) == sorted(NAMES)


def test_import_is_light() -> None:
    """No driver, no framework, no test tool, and nothing that reads a file, is imported before it is asked for."""
    loaded = set(in_fresh_interpreter("import sys, procore_hooks; print(*sys.modules)").split())
    unwanted = {"csv", "pytest", "_pytest", "hypothesis", "sqlite3", "_sqlite3", "psycopg", "sqlalchemy", "django"}
    unwanted |= {"starlette", "jinja2", "flask", "fastapi", "cryptography", "uvloop", "orjson", "rich"}
    unwanted |= {f"procore_hooks.{name}" for name in ("storage.sqlite", "testing", "web", "integrations")}
    assert unwanted & loaded == set()
    unwanted = {"httpx", "asyncio", "tenacity", "procore_hooks._registry"}
    assert unwanted & loaded == set()


def test_what_emits_is_light() -> None:
    """Nothing that sends is imported in order to declare hooks and to emit: no HTTP library, no event loop."""
    code = (
        "import sys\n"
        "from procore_hooks import HookRegistry, MemoryStorage\n"
        "registry = HookRegistry(MemoryStorage())\n"
        "registry.emit('RFIs', 'update', {'id': 1})\n"
        "print(*sys.modules)"
    )
    loaded = set(in_fresh_interpreter(code).split())
    unwanted = {"httpx", "h11", "httpcore", "tenacity", "ssl", "socket"}
    unwanted |= {f"procore_hooks.{name}" for name in ("_dispatcher", "_engine", "_transport", "_requests")}
    assert unwanted & loaded == set()


def test_every_name_has_a_module() -> None:
    """The table of modules, what type checkers read and the list of names are of the same names."""
    assert {*procore_hooks._MODULE_OF, "__version__"} == set(NAMES)


@pytest.mark.parametrize(
    ("use", "module"),
    [("SQLiteStorage", "procore_hooks.storage.sqlite"), ("SQLiteStorage", "sqlite3"), ("PROCORE", "csv")],
)
def test_lazy_names_import_when_asked_for(use: str, module: str) -> None:
    """The name brings its module in, and is the same each time."""
    code = (
        f"import sys, procore_hooks as p; print({module!r} in sys.modules); p.{use}; print({module!r} in sys.modules)"
    )
    assert in_fresh_interpreter(f"{code}; assert p.{use} is p.{use}").split() == ["False", "True"]


def test_dir_and_wrong_names() -> None:
    """`dir()` lists the lazy names too, and a wrong name is an AttributeError as of any module."""
    assert set(NAMES) <= set(dir(procore_hooks))
    with pytest.raises(AttributeError, match=r"'procore_hooks' has no attribute 'Webhooks'"):
        _ = procore_hooks.Webhooks
    with pytest.raises(ImportError):
        from procore_hooks import Webhooks  # noqa: F401


def test_public_classes_say_what_they_are() -> None:
    """Each has a docstring."""
    things = [getattr(procore_hooks, name) for name in NAMES]
    assert [thing for thing in things if isinstance(thing, type) and not thing.__doc__] == []


def test_version() -> None:
    """One version, of digits and dots."""
    assert procore_hooks.__version__.replace(".", "").isdigit()
