"""The life of a delivery: the whole table, walked."""

from __future__ import annotations

from typing import get_args

import pytest

from procore_hooks._core.models import AttemptOutcome, DeliveryStatus
from procore_hooks._core.states import FINAL, OUTCOMES, TRANSITIONS, WAITING, Happening, after

STATUSES: tuple[DeliveryStatus, ...] = get_args(DeliveryStatus)
HAPPENINGS: tuple[Happening, ...] = get_args(Happening)
# Written out once more on purpose: a change of the table has to be meant.
LEADS_TO: dict[Happening, DeliveryStatus] = {
    "accepted": "delivered",
    "put_off": "retrying",
    "exhausted": "failed",
    "aborted": "failed",
    "left_open": "retrying",
    "dropped": "discarded",
}


@pytest.mark.parametrize("happening", HAPPENINGS)
@pytest.mark.parametrize("status", STATUSES)
def test_every_cell(status: DeliveryStatus, happening: Happening) -> None:
    """From a waiting state each happening leads where it must; from a final one none leads anywhere."""
    if status in ("enqueued", "retrying"):
        assert after(status, happening) == LEADS_TO[happening]
    else:
        with pytest.raises(ValueError, match=f"{status} cannot be {happening}"):
            after(status, happening)


def test_states_are_waiting_or_final() -> None:
    """Every status has a row and is one of the two; final ones have no way out, and only they."""
    assert TRANSITIONS.keys() == set(STATUSES)
    assert set(STATUSES) == WAITING | FINAL
    assert not WAITING & FINAL
    assert {status for status, ways in TRANSITIONS.items() if not ways} == FINAL == {"delivered", "failed", "discarded"}


def test_every_final_state_is_reached_and_nothing_returns_to_enqueued() -> None:
    """From the start all states are reachable but the start itself: nobody unsends an attempt."""
    reached: set[DeliveryStatus] = set()
    waiting: list[DeliveryStatus] = ["enqueued"]
    while waiting:
        found = set(TRANSITIONS[waiting.pop()].values()) - reached
        reached |= found
        waiting += found
    assert reached == {"retrying", "delivered", "failed", "discarded"}


def test_outcomes() -> None:
    """Each happening has the name of an attempt's outcome, and each outcome a happening."""
    assert OUTCOMES.keys() == set(HAPPENINGS)
    assert set(OUTCOMES.values()) == set(get_args(AttemptOutcome))
    assert {h: OUTCOMES[h] for h in HAPPENINGS} == {
        "accepted": "ok",
        "put_off": "retried",
        "exhausted": "failed",
        "aborted": "failed",
        "left_open": "unknown",
        "dropped": "discarded",
    }


@pytest.mark.parametrize(("status", "happening"), [("lost", "accepted"), ("enqueued", "lost")])
def test_unknown_words(status: DeliveryStatus, happening: Happening) -> None:
    """What is not in the table has no way."""
    with pytest.raises(ValueError, match="cannot be"):
        after(status, happening)
