"""Evidence for the conservation law: what was emitted, what arrived, what the file says; and the verdict on it.

An emitter writes down each event before its emit and again when the emit has returned. What is written down once only
may be there or not: its emit raised, or its process died. The number of an event is in its payload, so that it can be
known again when the emitter never learned its id.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from procore_hooks import Delivery, DestinationPolicy, Dispatcher, Emission, Hook, HookRegistry, SQLiteStorage, verify
from procore_hooks._core.payloads import render
from procore_hooks.testing.script import ReceivedRequest

from .. import scene
from ..scene import FULL as FULL
from ..simulation.law import Emitted, Hit, Law

BOUND = 60.0  # seconds after which a test that waits for something has failed
RESOURCES = ("RFIs", "Submittals", "RFIs", "nobody's")


wait_until = partial(scene.wait_until, bound=BOUND)


class AheadClock:
    """The machine's clock, and some hours: so leases are over without anybody waiting for them."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self.ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def open_registry(path: Path, ahead: timedelta = timedelta(0), **options: Any) -> HookRegistry:
    """A registry on the file, whose clock is ahead."""
    options.setdefault("durability", "normal")
    return HookRegistry(SQLiteStorage(path, **options), destinations=DestinationPolicy.local(), clock=AheadClock(ahead))


class Notebook:
    """Where an emitter writes down what it is about to emit, and what it has emitted. It survives a kill -9."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def emit(self, registry: HookRegistry, number: int, resource: str | None = None, **keywords: Any) -> Emission:
        """Emit an event with this number, and write it down before and after."""
        resource = RESOURCES[number % len(RESOURCES)] if resource is None else resource
        self._write("about to emit", number, resource)
        payload = {"number": number, "text": "Door 12 " * (number % 50)}
        emission = registry.emit(resource, "update", payload, **keywords)
        self._write("emitted", number, resource, emission.event.id, emission.event.ulid, len(emission.delivery_ids))
        return emission

    def _write(self, what: str, *values: object) -> None:
        os.write(self._file, json.dumps([what, *values]).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


@attrs.define
class Evidence:
    """Of one file: its hooks, the emitters' notebook, and all that arrived."""

    folder: Path
    law: Law = attrs.field(factory=Law)
    hooks: dict[int, Hook] = attrs.field(factory=dict)
    resources: dict[int, frozenset[str]] = attrs.field(factory=dict)

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / "hooks.db"

    @property
    def notes(self) -> Path:
        """The notebook's file."""
        return self.folder / "notes"

    def add_hooks(self, registry: HookRegistry, url: str, **keywords: Any) -> None:
        """Three hooks, two of them in order, that want some of `RESOURCES`; the receiver sees by the path which."""
        for name, wanted, most in (("a", {"RFIs"}, 1), ("b", {"RFIs", "Submittals"}, 1), ("c", {"RFIs"}, 3)):
            self.add_hook(registry, f"{url}{name}", wanted, max_in_flight=most, **keywords)

    def add_hook(self, registry: HookRegistry, url: str, wanted: Iterable[str], **keywords: Any) -> Hook:
        """A hook with triggers for these resources."""
        hook = registry.hooks.create(url, namespace="evidence", **keywords)
        registry.triggers.replace(hook.id, {resource: ["update"] for resource in wanted})
        self.hooks[hook.id] = hook
        self.resources[hook.id] = frozenset(wanted)
        return hook

    def _read_notes(self) -> dict[int, tuple[str, int | None]]:
        """Of each number its resource, and how many deliveries its emit said it made, if it returned."""
        noted: dict[int, tuple[str, int | None]] = {}
        for line in self.notes.read_text().splitlines() if self.notes.exists() else ():
            what, number, resource, *rest = json.loads(line)
            hook_ids = frozenset(hook for hook, wanted in self.resources.items() if resource in wanted)
            noted[number] = (resource, None)
            if what == "emitted":
                event_id, ulid, deliveries = rest
                noted[number] = (resource, deliveries)
                self.law.add(Emitted(event_id, ulid, hook_ids))
        return noted

    def look(self, registry: HookRegistry) -> list[str]:
        """Which final states have changed since the last look."""
        return self.law.look(registry.deliveries.iter(page_size=1000))

    def verdict(self, registry: HookRegistry, requests: Sequence[ReceivedRequest], **options: Any) -> list[str]:
        """All that is broken, once nothing is due; the options are `Law.check`'s."""
        deliveries = list(registry.deliveries.iter(page_size=1000))
        broken = self._add_unsure(deliveries)
        options.setdefault("in_order", frozenset(one.id for one in self.hooks.values() if one.max_in_flight == 1))
        hits, forged = self._hits(requests)
        options.setdefault("body_of", _body_of)
        broken += self.law.check(deliveries, hits, **options)
        return broken + forged + self._look_inside()

    def _add_unsure(self, deliveries: Iterable[Delivery]) -> list[str]:
        """Let the law know of events whose emitter never heard that they are stored."""
        noted, broken = self._read_notes(), []
        for number, (resource, count) in noted.items():
            wanted = sum(resource in one for one in self.resources.values())
            if count not in (None, wanted):
                broken.append(f"1: emit {number} of {resource} said {count} deliveries, and {wanted} hooks match")
        for event in {one.event.id: one.event for one in deliveries}.values():
            number = event.payload["number"]
            if event.id not in self.law.emitted and noted.get(number, ("", 0))[1] is None:
                wants = frozenset(hook for hook, wanted in self.resources.items() if event.resource in wanted)
                self.law.add(Emitted(event.id, event.ulid, wants, is_sure=False))
        return broken

    def _hits(self, requests: Iterable[ReceivedRequest]) -> tuple[list[Hit], list[str]]:
        """What arrived, and what of it was not rightly signed."""
        by_path = {one.destination_url.rpartition("/")[2]: one for one in self.hooks.values()}
        hits, forged = [], []
        for request in requests:
            hook = by_path[request.path.removeprefix("/").partition("?")[0]]
            sent_at = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
            try:
                verify(request.body, request.headers, hook.signing_secret, now=sent_at)
            except ValueError as error:
                forged.append(f"4: {error}")
            hits.append(Hit(hook.id, request.headers["webhook-id"], request.body))
        return hits, forged

    def _look_inside(self) -> list[str]:
        """No lease and no flight may be left over, and SQLite must call the file sound."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            sound = connection.execute("PRAGMA integrity_check").fetchall()
            leased = connection.execute(
                "SELECT id FROM procore_hooks_deliveries WHERE lease_until IS NOT NULL"
            ).fetchall()
            flying = connection.execute("SELECT hook_id FROM procore_hooks_queues WHERE in_flight <> 0").fetchall()
            events = connection.execute(
                "SELECT id FROM procore_hooks_events WHERE id NOT IN (SELECT event_id FROM procore_hooks_deliveries)"
            ).fetchall()
        broken = [] if sound == [("ok",)] else [f"the file is damaged: {sound}"]
        broken += [f"3: delivery {one} is still leased" for (one,) in leased]
        broken += [f"3: hook {one} still counts deliveries in flight" for (one,) in flying]
        return broken + [f"1: event {one} is stored without deliveries" for (one,) in events]


def _body_of(delivery: Delivery) -> bytes:
    return render("v4.0", delivery.event, {})


def duplicates(requests: Iterable[ReceivedRequest]) -> int:
    """How many requests were not the first of their delivery."""
    seen = Counter((one.path, one.headers["webhook-id"]) for one in requests)
    return seen.total() - len(seen)


def drain_dry(registry: HookRegistry, **options: Any) -> None:
    """Deliver until nothing is due any more, ever; the registry's `AheadClock` is set forward to each retry."""
    clock = registry.clock
    assert isinstance(clock, AheadClock)
    give_up = time.monotonic() + BOUND
    while (next_due_at := Dispatcher(registry, **options).drain(BOUND / 2).next_due_at) is not None:
        assert time.monotonic() < give_up, f"something is still due at {next_due_at}"
        clock.ahead += max(next_due_at - clock.now(), timedelta(0)) + timedelta(milliseconds=1)
