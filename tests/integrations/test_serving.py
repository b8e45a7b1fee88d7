"""Where a dispatcher is started: in processes that serve, once in each."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from procore_hooks import AsyncHookRegistry, DestinationPolicy, Dispatcher, HookRegistry, InvalidInput
from procore_hooks.integrations import _serving
from procore_hooks.integrations._serving import (
    ServedDispatcher,
    checked_path,
    chosen_dispatcher,
    is_gunicorn,
    is_gunicorn_worker,
)

from ..scene import untraced_environment


@pytest.fixture
def registry() -> Iterator[HookRegistry]:
    with HookRegistry(destinations=DestinationPolicy.local()) as registry:
        yield registry


@pytest.fixture
def arbiter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that calls a function the way in which gunicorn's arbiter calls workers, and forks."""
    module: Any = ModuleType("gunicorn.arbiter")
    exec("def spawn_worker(call): return call()\ndef setup(call): return call()", vars(module))
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", module)
    return module


def test_what_is_given(registry: HookRegistry) -> None:
    """A dispatcher is taken, True makes one, False none; for either kind of registry."""
    own = Dispatcher(registry)
    assert chosen_dispatcher(registry, own) is own
    assert chosen_dispatcher(registry, False) is None
    assert isinstance(chosen_dispatcher(registry, True), Dispatcher)
    assert isinstance(chosen_dispatcher(AsyncHookRegistry(), True), Dispatcher)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda registry: chosen_dispatcher(None, True), "registry"),
        (lambda registry: chosen_dispatcher(None, False), "registry"),
        (lambda registry: chosen_dispatcher(registry, None), "dispatcher"),
        (lambda registry: chosen_dispatcher(registry, 1), "dispatcher"),
        (lambda registry: checked_path("webhooks"), "path"),
        (lambda registry: checked_path("/"), "path"),
        (lambda registry: checked_path(None), "path"),
    ],
)
def test_bad_input(registry: HookRegistry, call: Callable[[HookRegistry], object], field: str) -> None:
    """What is no registry, no dispatcher or no path is refused by the name of its field."""
    with pytest.raises(InvalidInput) as caught:
        call(registry)
    assert str(caught.value).startswith(f"{field}: ")


def test_a_slash_at_the_end_of_a_path_does_not_count() -> None:
    """The same place, with and without."""
    assert checked_path("/hooks/") == checked_path("/hooks") == "/hooks"


def test_no_gunicorn() -> None:
    """A process that gunicorn did not start is none of its workers."""
    assert (is_gunicorn(), is_gunicorn_worker()) == (False, False)


def test_gunicorns_worker(arbiter: Any) -> None:
    """What gunicorn calls while it makes a worker is a worker; what its master loads before is not."""
    assert is_gunicorn()
    assert arbiter.spawn_worker(is_gunicorn_worker) is True
    assert arbiter.spawn_worker(lambda: [is_gunicorn_worker()]) == [True]
    assert arbiter.setup(is_gunicorn_worker) is False


def test_a_child_of_gunicorn_goes_on_and_others_do_not(
    registry: HookRegistry, arbiter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fork, a worker dispatches at once; any other child does not."""
    monkeypatch.setattr(_serving, "_served", weakref.WeakSet())  # those of other tests are none of this one's
    served = ServedDispatcher(Dispatcher(registry))
    arbiter.setup(_serving._after_fork)
    assert not served.runs_here
    arbiter.spawn_worker(_serving._after_fork)
    assert served.runs_here
    served.stop()


def test_it_starts_once_whoever_asks(registry: HookRegistry) -> None:
    """Many first requests at once start one; a dispatcher that is started twice would raise."""
    served = ServedDispatcher(Dispatcher(registry))
    failed: list[BaseException] = []
    barrier = threading.Barrier(8)

    def first_request() -> None:
        barrier.wait(30)
        try:
            served.start()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=first_request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (failed, served.runs_here) == ([], True)
    served.stop()
    assert not served.runs_here
    served.stop()
    served.start()
    served.stop()


AFTER_A_FORK = """
import os, sys
from procore_hooks import DestinationPolicy, Dispatcher, HookRegistry, SQLiteStorage
from procore_hooks.integrations._serving import ServedDispatcher
from procore_hooks.testing import WebhookReceiver
registry = HookRegistry(SQLiteStorage(sys.argv[1]), destinations=DestinationPolicy.local())
served = ServedDispatcher(Dispatcher(registry))
served.start()
child = os.fork()
if child == 0:
    before = served.runs_here
    served.start()
    with WebhookReceiver() as receiver:
        hook = registry.hooks.create(receiver.url, namespace="child")
        registry.triggers.create(hook.id, "*", "*")
        registry.emit("RFIs", "create")
        arrived = receiver.wait_for(1, timeout=30)
    served.stop()
    os._exit(0 if (before, len(arrived)) == (False, True) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), served.runs_here)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_fork_leaves_it_with_the_parent(tmp_path: Any) -> None:
    """A child does not run its parent's dispatcher, and starts and delivers by itself once it serves."""
    done = subprocess.run(
        # Later Pythons warn of a fork beside threads, which is what this is about.
        [sys.executable, "-W", "ignore", "-c", AFTER_A_FORK, str(tmp_path / "hooks.db")],
        capture_output=True,
        text=True,
        timeout=120,
        env=untraced_environment(),
    )
    assert done.stdout == "0 True\n", done.stderr
