"""Random calls of the registry and its dispatcher: each does what it does to a plain model, on every storage.

PROCORE_HOOKS_FULL=1 searches for long, and makes what it finds short, for which it may need
``-o faulthandler_timeout=0``. Otherwise a failure shows the whole sequence of calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from procore_hooks import EventInput

from ..scene import FULL
from .machine import RegistryMachine

PARTS = range(20 if FULL else 1)
EXAMPLES, STEPS = (75, 60) if FULL else (60, 40)

on_each_storage = pytest.mark.parametrize("is_on_disk", [False, True], ids=["memory", "sqlite"])


@on_each_storage
@pytest.mark.parametrize("part", PARTS)
def test_any_calls_do_what_they_do_to_the_model(is_on_disk: bool, part: int) -> None:
    """After each of any sequence of calls, all that the registry tells is what the model holds."""

    def machine() -> RegistryMachine:
        return RegistryMachine(is_on_disk)

    phases = {Phase.explicit, Phase.reuse, Phase.generate} | ({Phase.shrink} if FULL else set())
    run_state_machine_as_test(
        seed(part)(machine) if FULL else machine,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, phases=phases),
    )


@pytest.fixture
def machine(is_on_disk: bool) -> Iterator[RegistryMachine]:
    """One whose two hooks hear of RFIs, and have had one event."""
    machine = RegistryMachine(is_on_disk)
    machine.begin("pause", {}, [EventInput("RFIs", "update", {"number": 1})])
    yield machine
    machine.everything_agrees()
    machine.teardown()


# Sequences that were found by the search, or that it is unlikely to find.


@on_each_storage
def test_what_is_discarded_when_its_lease_runs_out_is_reported(machine: RegistryMachine) -> None:
    """A drain counts as discarded what a killed dispatcher left under way for a hook that was deleted since."""
    machine.claim_and_die(timedelta(0))
    machine.delete(0)
    machine.pass_time_and_drain(timedelta(seconds=15))


@on_each_storage
def test_of_two_pings_the_newer_one_goes_first(machine: RegistryMachine) -> None:
    """A ping is ahead of all that waits, an earlier ping too."""
    machine.ping(0)
    machine.ping(0)
    machine.drain()


@on_each_storage
def test_what_is_under_way_to_a_deleted_hook_has_nowhere_to_go_again(machine: RegistryMachine) -> None:
    """Redelivery without the hook is `NotFound`, also while the delivery is not final."""
    machine.claim_and_die(timedelta(0))
    machine.delete(0)
    machine.redeliver(0)
