"""What the safeguards of sending cost: deliveries per second of a processor with them over those without.

A processor's second, and not one of the clock: the difference is smaller than what a neighbour does to the clock. It
is smaller, too, than what a neighbour does to the caches, so the sides are taken in turn, very many short rounds.

Without them no URL, address, header or id is judged, no peer is compared, and no secret is looked for in what comes
back. Each side once as a dispatcher works, on kept connections, and once with a new connection for every delivery.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from unittest import mock

from procore_hooks import DestinationPolicy, Dispatcher, GuardedTransport, HookRegistry, Judgement
from procore_hooks._core.frozen import FrozenDict
from procore_hooks._core.masking import SecretsOfHook

from ._backlog import emit, listen, opened
from ._harness import Bar, Options, Result, alternate, folder, main, ratio, require, side
from .sink import sink

_HEADERS = {"Authorization": "Bearer c3a24b8208d9f1ce", "X-Tenant": "acme-4711-west"}


def measure(options: Options) -> Sequence[Result]:
    """Two rows."""
    number = options.size(2_000, 200)
    with folder() as where, sink() as receiver, opened(where / "hooks.db") as registry:
        hook = listen(registry, f"{receiver.url}/?token=9d3c27b15aa04e")
        registry.hooks.update(hook.id, destination_headers=_HEADERS)
        sides = {
            "kept, with": lambda: _rate(registry, number, 2.0),
            "kept, without": lambda: _unguarded(registry, number, 2.0),
            "new, with": lambda: _rate(registry, number // 4, 0.0),
            "new, without": lambda: _unguarded(registry, number // 4, 0.0),
        }
        rates = alternate(options.size(8 * options.runs, options.runs), sides)
    return [
        ratio(
            f"deliveries per second of CPU with all safeguards of sending ÷ without, {words}",
            f"drains of {count:,}, with two headers and a token in the URL",
            side("with", rates[f"{which}, with"], "deliveries/CPU s"),
            side("without", rates[f"{which}, without"], "deliveries/CPU s"),
            Bar(0.95, 1.0) if which == "kept" else None,
        )
        for which, words, count in (
            ("kept", "on kept connections", number),
            ("new", "a new connection for each", number // 4),
        )
    ]


def _rate(registry: HookRegistry, number: int, idle_seconds: float) -> float:
    emit(registry, number)
    transport = GuardedTransport(registry.destinations, idle_seconds=idle_seconds, max_idle_per_destination=100)
    dispatcher = Dispatcher(registry, transport=transport)
    before = time.process_time()
    report = dispatcher.drain()
    seconds = time.process_time() - before
    require(report.delivered == number, f"{number} waited, and this came of them: {report}")
    return number / seconds


def _unguarded(registry: HookRegistry, number: int, idle_seconds: float) -> float:
    with _without_safeguards():
        return _rate(registry, number, idle_seconds)


@contextlib.contextmanager
def _without_safeguards() -> Iterator[None]:
    # What is parsed stays: somebody has to find out host and port.
    allowed = Judgement(True, "")
    with contextlib.ExitStack() as stack:
        for owner, name, instead in (
            (DestinationPolicy, "check", DestinationPolicy.parse),
            (DestinationPolicy, "judge", lambda *_, **__: allowed),
            (SecretsOfHook, "masked_in_headers", lambda _, raw: raw),
            (SecretsOfHook, "masked_in_answer", lambda _, body, most, *, is_cut: body[:most]),
        ):
            stack.enter_context(mock.patch.object(owner, name, instead))
        for name, instead in (
            ("procore_hooks._requests.check_headers", FrozenDict),
            ("procore_hooks._requests._SIGNED_ID", mock.Mock(fullmatch=str)),
            ("procore_hooks._dialling.is_own_address", lambda address: False),
        ):
            stack.enter_context(mock.patch(name, instead))
        yield


if __name__ == "__main__":
    main(measure)
