"""``python -m procore_hooks dispatch``: what is wrong with the file, the app or the command is said in one line."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from procore_hooks import SQLiteStorage
from procore_hooks.__main__ import main


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[object, str]]]:
    """Runs the command in this process; its exit code, and what it said to stderr, which is one line."""
    log = logging.getLogger("procore_hooks")
    handlers, level = list(log.handlers), log.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def said(*arguments: object, lines: int = 1) -> tuple[object, str]:
        with pytest.raises(SystemExit) as caught:
            main(["dispatch", *map(str, arguments)])
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.count("\n") == lines, told.err
        return caught.value.code, told.err

    yield said
    log.handlers[:] = handlers
    log.setLevel(level)
    sys.modules.pop("broken", None)
    importlib.invalidate_caches()


def damaged(path: Path) -> None:
    path.write_text("this is a letter to a friend, and no database at all\n" * 40)


def too_new(path: Path) -> None:
    SQLiteStorage(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE procore_hooks_schema SET version = 999")


def of_another_app(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE customers (name TEXT)")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (None, "hooks.db does not exist: the app makes it"),
        (Path.mkdir, "hooks.db is not a file"),
        (damaged, "hooks.db is not an SQLite database, or a damaged one"),
        (Path.touch, "hooks.db holds no hooks"),
        (of_another_app, "hooks.db holds no hooks"),
        (too_new, "hooks.db has schema 999, this release knows"),
    ],
    ids=["missing", "folder", "damaged", "empty", "another's", "too new"],
)
def test_a_file_that_is_none_of_ours(
    tmp_path: Path, said: Callable[..., tuple[object, str]], make: Callable[[Path], None] | None, words: str
) -> None:
    """One line and exit code 1, and the file is as it was: a path with a typo makes nothing."""
    path = tmp_path / "hooks.db"
    if make is not None:
        make(path)
    before = path.read_bytes() if path.is_file() else None
    code, line = said("hooks.db", "--drain", "--journal-mode", "delete")
    assert code == 1
    assert words in line
    assert (path.read_bytes() if path.is_file() else None) == before
    assert make is not None or not path.exists()


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        (None, "broken:registry", "--app broken:registry: ModuleNotFoundError: No module named 'broken'"),
        ("import nothing_there", "broken:registry", "No module named 'nothing_there' ("),
        ("\n1 / 0", "broken:registry", "ZeroDivisionError: division by zero ("),
        ("raise SystemExit('two\\nlines')", "broken:registry", "SystemExit: two lines ("),
        ("def (", "broken:registry", "SyntaxError: "),
        ("", "broken:registry", "AttributeError: module 'broken' has no attribute 'registry'"),
        ("registry = 5", "broken:registry", "it is of type int: name a HookRegistry, AsyncHookRegistry or Dispatcher"),
        ("def make():\n    return 'x'", "broken:make", "it is of type str"),
        ("async def make(): pass", "broken:make", "it is of type coroutine"),
        ("def make(settings): pass", "broken:make", "TypeError: make() missing 1 required positional argument"),
        ("from procore_hooks import Timeouts; Timeouts(0)", "broken:x", "InvalidInput: "),
    ],
)
def test_an_app_that_is_not_what_it_should_be(
    tmp_path: Path, said: Callable[..., tuple[object, str]], source: str | None, name: str, words: str
) -> None:
    """One line and exit code 1, with the place in the app where it raised."""
    if source is not None:
        tmp_path.joinpath("broken.py").write_text(source)
    code, line = said("--app", name)
    assert code == 1
    assert words in line
    if source == "\n1 / 0":
        assert f"({tmp_path / 'broken.py'}, line 2)" in line


def test_debug_shows_the_traceback_of_an_app(tmp_path: Path, said: Callable[..., tuple[object, str]]) -> None:
    """With ``--log-level debug`` whoever wrote the app sees where it broke."""
    tmp_path.joinpath("broken.py").write_text("1 / 0")
    with pytest.raises(AssertionError, match=r"(?s)Traceback .*broken\.py.*ZeroDivisionError"):
        said("--app", "broken:registry", "--log-level", "debug")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "one of the arguments FILE --app is required"),
        ("hooks.db --app a:b", "not allowed with argument"),
        ("hooks.db other.db", "unrecognized arguments: other.db"),
        ("hooks.db --max-in-flight 0", "--max-in-flight: 0 is not 1 to 10000"),
        ("hooks.db --max-in-flight many", "--max-in-flight: invalid int value: 'many'"),
        ("hooks.db --max 5", "unrecognized arguments: --max"),
        ("hooks.db --retry never", "--retry: invalid choice: 'never'"),
        ("hooks.db --durability some", "--durability: invalid choice: 'some'"),
        ("hooks.db --journal-mode off", "--journal-mode: invalid choice: 'off'"),
        ("hooks.db --log-level loud", "--log-level: invalid choice: 'loud'"),
        ("hooks.db --timeouts 5 5 nan", "--timeouts: "),
        ("hooks.db --timeouts 5 0 5", "--timeouts: "),
        ("hooks.db --timeouts 5", "--timeouts: expected 3 arguments"),
        ("hooks.db --allow everything", "--allow: 'everything' is no network"),
        ("hooks.db --deny 10.0.0.1/8", "--deny: '10.0.0.1/8' has bits beyond its prefix"),
        ("hooks.db --timeout 5", "--timeout: it is for --drain"),
        ("hooks.db --drain --timeout 0", "--timeout: '0' is not a number of seconds above 0"),
        ("hooks.db --drain --timeout soon", "--timeout: 'soon' is not a number of seconds above 0"),
        ("--app no_colon", "--app: 'no_colon' is not MODULE:NAME"),
        ("--app :name", "--app: ':name' is not MODULE:NAME"),
        ("--app a:b --durability full", "--durability: the registry of an --app says it itself"),
        ("--app a:b --journal-mode wal", "--journal-mode: the registry"),
        ("--app a:b --local", "--local: the registry"),
        ("--app a:b --http", "--http: the registry"),
        ("--app a:b --allow ::1", "--allow: the registry"),
        ("--app a:b --deny ::1", "--deny: the registry"),
        ("--app broken:dispatcher --max-in-flight 5", "--max-in-flight: broken:dispatcher is a Dispatcher, which says"),
        ("--app broken:dispatcher --retry standard", "--retry: broken:dispatcher is a Dispatcher, which says"),
        ("--app broken:dispatcher --timeouts 1 1 1", "--timeouts: broken:dispatcher is a Dispatcher, which says"),
    ],
)
def test_a_command_that_is_not_understood(
    tmp_path: Path, said: Callable[..., tuple[object, str]], arguments: str, words: str
) -> None:
    """One line that names the option and the fix, and exit code 2."""
    source = "from procore_hooks import Dispatcher, HookRegistry\ndispatcher = Dispatcher(HookRegistry())"
    tmp_path.joinpath("broken.py").write_text(source)
    SQLiteStorage(tmp_path / "hooks.db").close()
    code, line = said(*arguments.split())
    assert code == 2
    assert words in line
