"""``python -m procore_hooks dispatch``: a dispatcher in a process of its own, for apps that want none in theirs.

Here is what it understands; `_command` does it. Exit codes: 0 when it was done or was asked to stop, 1 when the file or
the app is not what it should be, 2 when the command is not understood.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from ._version import __version__

__all__ = ["main"]

_DESCRIPTION = """\
Deliver what waits in a storage, until SIGTERM or SIGINT: it then claims nothing more, waits for the attempts in flight
and leaves the rest queued. A second signal ends it at once, and even then nothing is lost. Any number of such
processes share the work."""
_EPILOG = """\
A FILE must be there already: the app makes it when it first opens it. What a registry is told beyond the options here
(payload formats, keys, a resolver, a clock) is told by the app: use --app."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def _parser() -> _Parser:
    parser = _Parser(prog="python -m procore_hooks", description="Outgoing webhooks.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"procore-hooks {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dispatch = commands.add_parser(
        "dispatch",
        help="deliver what waits in a storage",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    dispatch.set_defaults(parser=dispatch)
    what = dispatch.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", metavar="FILE", help="the SQLite file that the app emits to")
    what.add_argument(
        "--app",
        metavar="MODULE:NAME",
        help="instead of a file: a HookRegistry, AsyncHookRegistry or Dispatcher of the app's own, or a function "
        "without arguments that returns one; the current directory is searched too",
    )
    _add_work(dispatch)
    _add_settings_of_dispatcher(dispatch.add_argument_group("dispatcher", "not with the Dispatcher of an --app"))
    _add_settings_of_registry(dispatch.add_argument_group("file", "not with --app, whose registry says it"))
    return parser


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--drain", action="store_true", help="send what is due now, print what came of it, and exit")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="with --drain: how long to wait at most (default: no limit)"
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        help="what is logged, to stderr (default: info; the app's, if that has set up logging); debug has a line for "
        "each attempt, and the traceback of an app that fails",
    )


def _add_settings_of_dispatcher(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-in-flight", type=int, metavar="N", help="attempts under way at once, over all hooks (default: 100)"
    )
    group.add_argument(
        "--retry",
        choices=("procore", "standard"),
        help="when to try again: Procore's schedule (default), or that of Standard Webhooks",
    )
    group.add_argument(
        "--timeouts",
        type=float,
        nargs=3,
        metavar=("CONNECT", "RESPONSE", "TOTAL"),
        help="how long an attempt may take, in seconds (default: 5 5 10)",
    )


def _add_settings_of_registry(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--durability",
        choices=("full", "normal"),
        help="full (default) keeps what was acknowledged even when the power goes, normal is faster",
    )
    group.add_argument(
        "--journal-mode", choices=("wal", "delete"), help="as the app opens the file (default: wal); see SQLiteStorage"
    )
    group.add_argument(
        "--http", action="store_true", default=None, help="deliver to http:// too, not to https:// alone"
    )
    group.add_argument(
        "--allow", action="append", metavar="NETWORK", help="addresses to open, such as 10.1.0.0/16:8443; repeatable"
    )
    group.add_argument("--deny", action="append", metavar="NETWORK", help="addresses to refuse; repeatable")
    group.add_argument(
        "--local",
        action="store_true",
        default=None,
        help="for development: deliver to this machine and by http://, as DestinationPolicy.local() does",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say, `sys.argv`'s by default, and return the exit code."""
    options = _parser().parse_args(arguments)
    # Only now: it imports most of the package, which a question after the version need not wait for.
    from ._command import dispatch

    return dispatch(options)


if __name__ == "__main__":
    sys.exit(main())
