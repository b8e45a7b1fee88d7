"""Delivering where secrets are encrypted: as ever, and where a key is missing."""

from __future__ import annotations

import logging
import sqlite3
import traceback
from typing import Any

import pytest

from procore_hooks import (
    DestinationPolicy,
    Dispatcher,
    HookRegistry,
    KeyRing,
    Secret,
    SecretUnreadable,
    verify,
)
from procore_hooks.testing import ManualClock, WebhookReceiver
from procore_hooks.testing import _contract_values as make
from procore_hooks.testing._contract_values import T0, at

from .key_rings import (
    BOTH,
    NEW,
    OLD,
    Open,
    Rows,
    shows_no_secret,
)


def test_a_hook_is_decrypted_once(open_with: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims go on with the hook that was decrypted, until its row changes."""
    storage = open_with(NEW)
    hook = make.listening(storage, max_in_flight=100)
    calls: list[str] = []
    decrypt = KeyRing.decrypt

    def counting(ring: KeyRing, text: str, **place: Any) -> str:
        calls.append(place["column"])
        return decrypt(ring, text, **place)

    monkeypatch.setattr(KeyRing, "decrypt", counting)
    claimed = []
    for _ in range(3):
        make.emit_many(storage, 2)
        claimed += make.turn(storage).claims
    assert len(claimed) == 6
    assert calls == ["destination_headers", "signing_secrets"]
    assert all(claim.hook is claimed[0].hook for claim in claimed)
    assert make.SIGNING_SECRET.reveal() not in repr((claimed, storage, storage._turns, storage._turns._hooks))
    storage.update_hook(hook.id, {"destination_headers": {"X-Key": Secret("k")}}, at(1))
    del calls[:]
    make.emit(storage)
    (claim,) = make.turn(storage).claims
    assert claim.hook.destination_headers == {"X-Key": Secret("k")}
    assert len(calls) == 2


def test_a_change_by_hand_goes_for_the_next_claim(open_with: Open, rows: Rows) -> None:
    """A hook that is known is read again when its row changed, whoever changed it and whatever the time is; and what
    the queue knows of its failures is as it is now.
    """
    storage = open_with(None)
    hook = make.listening(storage, max_in_flight=100)
    make.emit(storage)
    (before,) = make.turn(storage).claims
    assert before.hook == hook
    rows("UPDATE procore_hooks_hooks SET destination_url = 'https://elsewhere.example/'")
    make.emit(storage)
    (after,) = make.turn(storage).claims
    assert after.hook.destination_url == "https://elsewhere.example/"
    make.turn(storage, make.accepted(before), make.fails_and_pauses(after, T0, at(9)), now=at(1))
    make.emit(storage)
    later = make.turn(storage, now=at(10)).claims
    assert [(one.hook.failing_since, one.hook.paused_until) for one in later] == [(T0, at(9))]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        *(("destination_headers", text) for text in ('{"X": "hunter2', '["hunter2"]', '{"X": 7}', '{"X": null}')),
        *(("signing_secrets", text) for text in ("{}", "[]", "[7]", '["a", "hunter2"]', '["a", ["hunter2", 1e300]]')),
    ],
)
def test_a_hook_whose_row_others_spoilt_holds_up_nobody(open_with: Open, rows: Rows, column: str, text: str) -> None:
    """What is no longer ours in a row, plain as it is, is a typed error that shows none of it; the others go on."""
    storage = open_with(None)
    spoilt, sound = make.listening(storage), make.listening(storage)
    make.emit(storage)
    rows(f"UPDATE procore_hooks_hooks SET {column} = ? WHERE id = ?", text, spoilt.id)
    assert [claim.hook.id for claim in make.turn(storage).claims] == [sound.id]
    with pytest.raises(SecretUnreadable, match=f"hook {spoilt.id}, {column}: the text was damaged") as caught:
        storage.get_hook(spoilt.id)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None


def test_a_hook_without_its_key_holds_up_nobody(open_with: Open, rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    """Hooks that cannot be read wait, untouched, more of them than a turn has room for; the others have their turn at
    once. It is said once a minute. When the key is there, all that waited is delivered, in its order.
    """
    for _ in range(5):
        make.listening(open_with(OLD), max_in_flight=9)
    storage = open_with(NEW)
    readable = [make.listening(storage).id for _ in range(2)]
    emitted = make.emit_many(storage, 3)
    untouched = (
        "SELECT DISTINCT attempt_count, state, due_at, lease_until FROM procore_hooks_deliveries WHERE hook_id <= 5"
    )
    queues = (
        "SELECT DISTINCT failures, failing_since, paused_until, in_flight, head FROM procore_hooks_queues "
        "WHERE hook_id <= 5"
    )
    with caplog.at_level(logging.INFO, "procore_hooks"):
        turn = make.turn(storage, capacity=2)
        assert [claim.hook.id for claim in turn.claims] == readable
        assert turn.next_due_at == at(10)
        for number in range(1, 60):
            turn = make.turn(storage, *map(make.accepted, turn.claims), now=at(number), capacity=2)
            assert turn.next_due_at is not None
            assert turn.next_due_at > at(number)
    assert rows(
        "SELECT hook_id, count(*) FROM procore_hooks_attempts JOIN procore_hooks_deliveries d ON "
        "d.id = procore_hooks_attempts.id / 1048576 GROUP BY 1"
    ) == [(hook_id, 3) for hook_id in readable]
    assert rows(untouched) == [(0, 0, None, None)]
    assert rows(queues) == [(0, None, None, 0, 0)]
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.ERROR, "procore_hooks")
    text = record.getMessage()
    assert text.startswith(
        "hooks that cannot be read, whose deliveries wait meanwhile: 5; the first: hook 1, destination_"
    )
    assert "encrypted with the key '2025-01', and the KeyRing has only 2026-11: add that key" in text
    assert shows_no_secret(text)
    claims = make.turn(open_with(BOTH), now=at(70)).claims
    assert [claim.delivery_id for claim in claims] == [one for first in range(5) for one in emitted[first::7]]
    assert {claim.number for claim in claims} == {1}


def test_it_is_said_again_after_a_minute(
    open_with: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a hook cannot be read, each minute has a line, and no more."""
    minutes = iter(range(10))
    monkeypatch.setattr("procore_hooks.storage.sqlite.claiming.time.monotonic", lambda: 1000.0 + 20 * next(minutes))
    make.listening(open_with(OLD))
    storage = open_with(NEW)
    make.emit(storage)
    for number in range(7):
        assert make.turn(storage, now=at(20 * number)).claims == ()
    assert len(caplog.records) == 3


def test_nothing_is_logged_within_a_transaction(open_with: Open, outside: sqlite3.Connection) -> None:
    """An app's log may be in the same file: when a line comes, the file can be written to."""
    written: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            outside.execute("CREATE TABLE log (line TEXT)")
            outside.execute("INSERT INTO log VALUES (?)", (record.getMessage(),))
            written.append(record.getMessage())

    make.listening(open_with(OLD))
    storage = open_with(NEW)
    make.emit(storage)
    log, handler = logging.getLogger("procore_hooks"), Handler()
    log.addHandler(handler)
    try:
        make.turn(storage)
    finally:
        log.removeHandler(handler)
    assert len(written) == 1


def test_a_dispatcher_without_keys_claims_nothing(open_with: Open, rows: Rows) -> None:
    """Where the storage has no keys at all, a turn fails as a whole and leaves everything to those who have them."""
    make.listening(open_with(OLD))
    storage = open_with(None)
    make.emit(storage)
    before = rows("SELECT * FROM procore_hooks_queues"), rows("SELECT * FROM procore_hooks_deliveries")
    with pytest.raises(SecretUnreadable, match="opened without keys"):
        make.turn(storage)
    assert (rows("SELECT * FROM procore_hooks_queues"), rows("SELECT * FROM procore_hooks_deliveries")) == before
    assert len(make.turn(open_with(OLD)).claims) == 1


def test_delivering_with_keys(open_with: Open) -> None:
    """From `create` to the receiver: the header arrives, the signature is right, and a hook whose key is missing waits
    until the key is back.
    """
    clock = ManualClock(T0)
    local = DestinationPolicy.local()
    with WebhookReceiver() as receiver:
        for keys, name in ((OLD, "old"), (NEW, "new")):
            registry = HookRegistry(open_with(keys), destinations=local, clock=clock)
            hook = registry.hooks.create(receiver.url, namespace=name, destination_headers={"X-Name": name})
            registry.triggers.create(hook.id, "*", "*")
        registry.emit("RFIs", "update")
        report = Dispatcher(registry).drain(timeout=30)
        assert (report.delivered, report.next_due_at) == (1, at(10))
        clock.advance(at(10) - T0)
        registry = HookRegistry(open_with(BOTH), destinations=local, clock=clock)
        assert Dispatcher(registry).drain(timeout=30).delivered == 1
        assert [request.headers["x-name"] for request in receiver.requests] == ["new", "old"]
        hooks = {hook.namespace: hook for hook in registry.hooks.list()}
        for request in receiver.requests:
            secret = hooks[request.headers["x-name"]].signing_secret
            assert verify(request.body, request.headers, secret, now=clock.now())["resource_type"] == "RFIs"
