"""The verdict itself: each thing that could be wrong is seen."""

from __future__ import annotations

import contextlib
import sqlite3

import attrs
import pytest

from procore_hooks import Dispatcher, HookRegistry
from procore_hooks.testing import WebhookReceiver

from .evidence import BOUND, Evidence, Notebook, duplicates

OTHER = """CAST('{"number": 3}' AS BLOB)"""
EVENT = "SELECT max(id) FROM procore_hooks_events"


@pytest.fixture
def delivered(receiver: WebhookReceiver, registry: HookRegistry, evidence: Evidence, notebook: Notebook) -> Evidence:
    """Some events, delivered without a fault."""
    evidence.add_hooks(registry, receiver.url)
    for number in range(8):
        notebook.emit(registry, number)
    Dispatcher(registry).drain(BOUND)
    assert evidence.verdict(registry, receiver.requests, is_faultless=True) == []
    return evidence


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (f"DELETE FROM procore_hooks_deliveries WHERE event_id = ({EVENT}) AND hook_id = 1", "1: event"),
        (f"DELETE FROM procore_hooks_deliveries WHERE event_id = ({EVENT})", "is stored without deliveries"),
        ("UPDATE procore_hooks_deliveries SET state = 3, reason = 'x' WHERE id = 1", "2: delivery 1 was delivered"),
        ("UPDATE procore_hooks_deliveries SET state = 0 WHERE id = 1", "2: delivery 1 is enqueued although"),
        ("UPDATE procore_hooks_deliveries SET attempt_count = 2 WHERE id = 1", "3: delivery 1 has attempts"),
        ("UPDATE procore_hooks_attempts SET outcome = 1", "with ok attempts []"),
        ("UPDATE procore_hooks_deliveries SET lease_until = 1 WHERE id = 1", "3: delivery 1 is still leased"),
        ("UPDATE procore_hooks_queues SET in_flight = 1", "still counts deliveries in flight"),
        (f"UPDATE procore_hooks_events SET payload = {OTHER} WHERE id = ({EVENT})", "with another body"),
    ],
)
def test_a_file_that_is_wrong(
    delivered: Evidence, registry: HookRegistry, receiver: WebhookReceiver, statement: str, says: str
) -> None:
    """What is wrong in the file is told."""
    with contextlib.closing(sqlite3.connect(delivered.path)) as connection, connection:
        connection.execute(statement)
    assert says in "; ".join(delivered.verdict(registry, receiver.requests))


def test_a_receiver_that_got_something_else(
    delivered: Evidence, registry: HookRegistry, receiver: WebhookReceiver
) -> None:
    """What never arrived, arrived too often, forged, or in another order is told."""
    requests = receiver.requests
    assert "never arrived" in "; ".join(delivered.verdict(registry, requests[1:]))
    assert "arrived 2 times in 1 attempts" in "; ".join(delivered.verdict(registry, [*requests, requests[0]]))
    forged = attrs.evolve(requests[0], body=requests[0].body + b" ")
    assert "no signature matches" in "; ".join(delivered.verdict(registry, [forged, *requests[1:]]))
    assert "7: hook" in "; ".join(delivered.verdict(registry, requests[::-1]))
    assert duplicates([*requests, requests[0]]) == 1


def test_an_emit_that_never_returned(delivered: Evidence, registry: HookRegistry, receiver: WebhookReceiver) -> None:
    """An event whose emitter never heard back may be there, but only whole; one that nobody noted may not."""
    lines = delivered.notes.read_text().splitlines(keepends=True)
    blank = attrs.evolve(delivered, law=type(delivered.law)())
    delivered.notes.write_text("".join(lines[:-1]))
    assert blank.verdict(registry, receiver.requests) == []
    blank = attrs.evolve(delivered, law=type(delivered.law)())
    delivered.notes.write_text("".join(line for line in lines if '"RFIs"' not in line))
    assert "was never emitted" in "; ".join(blank.verdict(registry, receiver.requests))
