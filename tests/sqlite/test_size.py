"""How much room the history takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from procore_hooks import DestinationPolicy, SQLiteStorage
from procore_hooks._core.claims import Claim, Settlement
from procore_hooks._core.frozen import FrozenDict
from procore_hooks._core.models import Attempt
from procore_hooks._core.secret import Secret
from procore_hooks._requests import RequestMaker
from procore_hooks.storage._base import EmitRequest
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

Rows = Callable[..., list[Any]]
MOST = 800
EVENTS, HOOKS = 1_000, 3
ANSWER = {
    "content-type": "text/plain; charset=utf-8",
    "content-length": "2",
    "date": "Sat, 17 May 2031 09:30:01 GMT",
    "server": "nginx",
}


def an_event(number: int) -> Any:
    """An event as a registry makes it, with a payload of 1 KB."""
    payload = json.dumps({"subject": f"Door {number}", "text": "x" * 1_000}).encode()[:1_024]
    ms = int(T0.timestamp() * 1000) + number
    return make.an_event(
        id=ms << 21 | 12345,
        ulid=f"01JG{number:022d}",
        resource_id="54321",
        company_id="8",
        project_id="6778",
        user_id="42",
        payload_json=payload,
    )


def sent(requests: RequestMaker, claim: Claim) -> Settlement:
    """The claim's request went out, signed, and was answered."""
    prepared = requests.request(claim.hook, claim.event, claim.claimed_at)
    attempt = Attempt(
        number=claim.number,
        outcome="ok",
        request_url=prepared.url,
        request_headers=prepared.headers,
        request_body=prepared.stored_body,
        response_status=200,
        response_headers=ANSWER,
        response_body=b"ok",
        started_at=claim.claimed_at,
        completed_at=claim.claimed_at + timedelta(milliseconds=120),
    )
    return Settlement(claim=claim, attempt=attempt, status="delivered")


def test_bytes_per_delivery(path: Path, storage: SQLiteStorage, rows: Rows) -> None:
    """With a fan-out of three, a payload of 1 KB and one attempt recorded in full, a delivery takes at most 800 bytes
    of the file; and the attempt is all there.
    """
    for _ in range(HOOKS):
        hook = make.a_hook(
            max_in_flight=1_000, destination_headers={"Authorization": Secret("Bearer c3a24b8208")}, project_id="6778"
        )
        storage.add_trigger(storage.add_hook(hook).id, "RFIs", "update")
    empty = path.stat().st_size
    for start in range(0, EVENTS, 100):
        events = [EmitRequest(event=an_event(number)) for number in range(start, start + 100)]
        storage.emit(events, T0, None)
    requests = RequestMaker(DestinationPolicy(), {})
    settlements: list[Settlement] = []
    attempts: dict[int, Attempt] = {}
    while claims := make.turn(storage, *settlements, now=at(1.25), capacity=64).claims:
        settlements = [sent(requests, claim) for claim in claims]
        attempts |= {one.claim.delivery_id: one.attempt for one in settlements}
    assert len(attempts) == EVENTS * HOOKS
    (attempt,) = storage.get_delivery(EVENTS * HOOKS).attempts
    assert attempt == attempts[EVENTS * HOOKS]
    assert set(attempt.request_headers) >= {"authorization", "webhook-id", "webhook-timestamp", "webhook-signature"}
    rows("PRAGMA wal_checkpoint(TRUNCATE)")
    each = (path.stat().st_size - empty) / (EVENTS * HOOKS)
    print(f"{each:.0f} bytes per delivery")
    assert each <= MOST


@pytest.mark.parametrize(
    ("name", "value"),
    [("webhook-timestamp", "1"), ("webhook-timestamp", None), ("webhook-id", None), ("webhook-signature", None)],
)
def test_headers_that_do_not_follow_from_the_event(storage: SQLiteStorage, name: str, value: str | None) -> None:
    """Headers that are made again from the event and the start, to save room, come back as they were where they were
    others, or not all there.
    """
    make.listening(storage)
    make.emit(storage, an_event(1))
    (claim,) = make.turn(storage).claims
    settlement = sent(RequestMaker(DestinationPolicy(), {}), claim)
    headers = dict(settlement.attempt.request_headers)
    headers.pop(name)
    changed = FrozenDict(headers if value is None else headers | {name: value})
    attempt = attrs.evolve(settlement.attempt, request_headers=changed)
    make.turn(storage, attrs.evolve(settlement, attempt=attempt), now=at(1))
    assert storage.get_delivery(claim.delivery_id).attempts == (attempt,)
