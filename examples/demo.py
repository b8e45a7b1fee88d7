"""What `scripts/demo` runs: an endpoint that fails twice and then accepts, and the delivery log, as a person reads it.

Nothing is pretended: the endpoint is an HTTP server on this machine, the storage is an SQLite file, the waits
between attempts are those of Procore.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from procore_hooks import (
    PROCORE,
    Attempt,
    Delivery,
    DestinationPolicy,
    Dispatcher,
    Hook,
    HookRegistry,
    SQLiteStorage,
    verify,
)
from procore_hooks.observers import AttemptRecorded, HookPaused, Notice
from procore_hooks.testing import WebhookReceiver

HEADINGS = ("id", "resource", "action", "resource id", "status", "attempts", "next attempt, or reason")
FINAL = ("delivered", "failed", "discarded")


def main() -> None:
    """Show a hook from its creation to its history."""
    # What the library logs belongs into the story, in its place.
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="log: %(levelname)s %(message)s")
    with tempfile.TemporaryDirectory() as folder, WebhookReceiver() as receiver:
        receiver.reply(500, body="the database is away", times=2)
        receiver.reply(200, body="thank you", times=3)
        receiver.reply(422, {"webhook-delivery": "abort-message"}, body="submittal 9001 is archived")
        # "delete" costs some speed, and spares older SQLite releases, as many systems have them, a warning.
        storage = SQLiteStorage(Path(folder) / "hooks.db", journal_mode="delete")
        with HookRegistry(storage, resources=PROCORE, destinations=DestinationPolicy.local()) as registry:
            show(registry, receiver)


def show(registry: HookRegistry, receiver: WebhookReceiver) -> None:
    """Go through it, step by step."""
    title("A project hook, with an Authorization header and two resources ticked")
    hook = registry.hooks.create(
        receiver.url,
        namespace="acme-invoice-sync",
        destination_headers={"Authorization": "Bearer c3a24b8208"},
        company_id=8,
        project_id=6778,
    )
    registry.triggers.replace(hook.id, {"RFIs": ["create", "update"], "Submittals": ["create", "update"]})
    print(f"hook {hook.id} in {hook.namespace!r}: project {hook.project_id} -> {hook.destination_url}")
    for trigger in registry.triggers.list(hook.id):
        print(f"  [x] {trigger.resource} {trigger.action}")

    title("Five events")
    emit_five(registry)

    title("The dispatcher starts; the endpoint is failing")
    notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
    with Dispatcher(registry, observers=[notices.put]):
        while not (isinstance(notice := notices.get(timeout=10), HookPaused) and notice.failures == 2):
            pass
        title("The delivery log, while it is failing (newest first, times in UTC)")
        print_log(registry.deliveries.list(hook.id))
        print("\nDelivery 1 is tried again; the others keep their order behind it. Waiting for the third attempt ...")
        done = 0
        while done < 4:
            notice = notices.get(timeout=10)
            done += isinstance(notice, AttemptRecorded) and notice.status in FINAL

    title("The same log, after")
    print_log(registry.deliveries.list(hook.id))
    title("Only failures")
    print_log(registry.deliveries.list(hook.id, only_failures=True))
    title("One delivery in full")
    oldest = list(registry.deliveries.iter(hook.id))[-1]
    print_delivery(registry.deliveries.get(oldest.id))
    title("What the endpoint saw")
    print_received(receiver, hook)


def emit_five(registry: HookRegistry) -> None:
    """Emit what an app would, when something changes."""
    door = {"subject": "Door 12", "status": "open"}
    project = registry.bind(company_id=8, project_id=6778, user_id=42)
    for resource, action, resource_id, payload in (
        ("RFIs", "create", 54321, door),
        ("RFIs", "update", 54321, {**door, "status": "answered"}),
        ("Punch Items", "create", 7, {"name": "Scratch on door 12"}),
        ("Submittals", "create", 9002, {"title": "Door hardware"}),
        ("Submittals", "update", 9001, {"title": "Old door hardware"}),
    ):
        emission = project.emit(resource, action, payload, resource_id=resource_id)
        stored = f"delivery {emission.delivery_ids[0]}" if emission.delivery_ids else "no hook wants it, nothing stored"
        print(f"emit {resource} {action} {resource_id}: {stored}")


def title(text: str) -> None:
    """Begin a part."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def print_log(deliveries: Iterable[Delivery]) -> None:
    """The deliveries as a table: a row for each, and one more for each further attempt."""
    rows = [HEADINGS, *(row for delivery in deliveries for row in log_rows(delivery))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def log_rows(delivery: Delivery) -> Iterator[Sequence[str]]:
    """The rows of one delivery."""
    event = delivery.event
    outlook = delivery.reason or (f"at {clock_time(delivery.next_attempt_at)}" if delivery.next_attempt_at else "")
    tried = [f"{clock_time(attempt.started_at)} {answer_of(attempt)}" for attempt in delivery.attempts] or ["none yet"]
    known = (str(delivery.id), event.resource, event.action, event.resource_id or "", delivery.status)
    yield *known, tried[0], outlook
    for attempt in tried[1:]:
        yield *("",) * len(known), attempt, ""


def answer_of(attempt: Attempt) -> str:
    """What came back, in two words."""
    return f"HTTP {attempt.response_status}" if attempt.response_status else attempt.response_error or attempt.outcome


def clock_time(moment: datetime) -> str:
    """Hours, minutes, seconds and tenths."""
    return f"{moment:%H:%M:%S.%f}"[:-5]


def print_delivery(delivery: Delivery) -> None:
    """The last attempt of a delivery: what was sent and what came back."""
    attempt = delivery.attempts[-1]
    print(f"delivery {delivery.id}, {delivery.status}, attempt {attempt.number} of {delivery.attempt_count}\n")
    print(f"> POST {attempt.request_url}")
    for name, value in attempt.request_headers.items():
        print(f"> {name}: {value}")
    print(indented(attempt.request_body))
    print(f"\n< {attempt.response_status}")
    for name, value in attempt.response_headers.items():
        print(f"< {name}: {value}")
    print(f"  {attempt.response_body.decode()}")


def indented(body: bytes) -> str:
    """A JSON body, for the eye."""
    text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    return "\n".join(f"  {line}" for line in text.splitlines())


def print_received(receiver: WebhookReceiver, hook: Hook) -> None:
    """Each request, as the endpoint would check it: `verify` raises if anything is not as it was signed."""
    for number, request in enumerate(receiver.requests, 1):
        event = verify(request.body, request.headers, hook.signing_secret)
        what = f"{event['resource_type']} {event['reason']} {event['resource_id']}"
        print(f"{number}. {request.headers['webhook-id']}  {what:<24}  signature verified")
    print(f"\nWith each of them came authorization: {receiver.requests[0].headers['authorization']}")
    print("The first three are one event, tried three times under one webhook-id: by that a receiver knows it again.")


if __name__ == "__main__":
    main()
