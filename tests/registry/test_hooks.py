"""`registry.hooks`: each verb, over each storage."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import attrs
import pytest

from procore_hooks import (
    Conflict,
    Dispatcher,
    DrainReport,
    Hook,
    HookRegistry,
    NotFound,
    Secret,
    verify,
)
from procore_hooks.storage._base import EventIdTaken
from procore_hooks.testing import ManualClock, ScriptedEndpoint

Listening = Callable[..., Hook]
Drain = Callable[[], DrainReport]


def test_create_keeps_what_was_given(registry: HookRegistry, clock: ManualClock) -> None:
    """Every argument is in the hook, ids as text, header values wrapped, and `get` gives the same hook."""
    hook = registry.hooks.create(
        "https://hooks.acme.example/procore?key=1",
        namespace="acme-invoice-sync",
        destination_headers={"Authorization": "Bearer c3a24b8208"},
        company_id=8,
        include_projects=True,
        when_disabled="drop",
        payload_version="v2.0",
        max_in_flight=7,
        signing_secret="whsec_" + "Zm9v" * 8,
    )
    assert (hook.namespace, hook.destination_url) == ("acme-invoice-sync", "https://hooks.acme.example/procore?key=1")
    assert hook.destination_headers == {"Authorization": Secret("Bearer c3a24b8208")}
    assert (hook.company_id, hook.project_id, hook.include_projects) == ("8", None, True)
    assert (hook.status, hook.when_disabled, hook.payload_version, hook.max_in_flight) == ("active", "drop", "v2.0", 7)
    assert hook.signing_secret == Secret("whsec_" + "Zm9v" * 8)
    assert hook.created_at == hook.updated_at == clock.now()
    assert hook.failing_since is hook.paused_until is None
    assert registry.hooks.get(hook.id) == hook


def test_create_makes_a_secret_of_its_own(registry: HookRegistry) -> None:
    """Without a secret each hook gets one at random, and each another."""
    hooks = [registry.hooks.create("https://hooks.acme.example/", namespace="acme") for _ in range(2)]
    assert all(hook.signing_secret.reveal().startswith("whsec_") for hook in hooks)
    assert hooks[0].signing_secret != hooks[1].signing_secret


def test_list_filters(registry: HookRegistry, listening: Listening) -> None:
    """Each filter takes exactly the hooks with that value, ids in either spelling, and they combine."""
    a = listening(namespace="a", company_id=8).id
    b = listening(namespace="b", company_id=8, project_id=6778).id
    c = listening(namespace="b", project_id="6778").id
    registry.hooks.disable(c)
    for filters, expected in (
        ({}, [a, b, c]),
        ({"namespace": "b"}, [b, c]),
        ({"company_id": "8"}, [a, b]),
        ({"project_id": 6778}, [b, c]),
        ({"status": "active"}, [a, b]),
        ({"status": "disabled"}, [c]),
        ({"namespace": "b", "status": "active"}, [b]),
        ({"namespace": "none"}, []),
    ):
        assert [hook.id for hook in registry.hooks.list(**filters)] == expected


def test_list_in_pages(registry: HookRegistry, listening: Listening) -> None:
    """Pages follow one another without a gap, also where a hook is deleted or made between them."""
    ids = [listening().id for _ in range(5)]
    first = registry.hooks.list(page_size=2)
    assert [hook.id for hook in first] == ids[:2]
    registry.hooks.delete(ids[1])
    ids.append(listening().id)
    rest = []
    page = first
    while page.next_cursor is not None:
        page = registry.hooks.list(page_size=2, cursor=page.next_cursor)
        rest += [hook.id for hook in page]
    assert rest == ids[2:]


def test_a_full_last_page_has_no_cursor(registry: HookRegistry, listening: Listening) -> None:
    """No page follows that turns out to be empty."""
    for _ in range(2):
        listening()
    assert registry.hooks.list(page_size=2).next_cursor is None
    assert registry.hooks.list(page_size=1).next_cursor is not None


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("destination_url", "https://new.acme.example/", "https://new.acme.example/"),
        ("destination_headers", {"X-Key": "k"}, {"X-Key": Secret("k")}),
        ("destination_headers", None, {}),
        ("namespace", "other", "other"),
        ("company_id", 9, "9"),
        ("project_id", 1, "1"),
        ("include_projects", True, True),
        ("when_disabled", "drop", "drop"),
        ("max_in_flight", 4, 4),
    ],
    ids=str,
)
def test_update_changes_only_what_is_given(
    registry: HookRegistry, clock: ManualClock, field: str, value: Any, kept: object
) -> None:
    """One field changes, and `updated_at`; all else stays."""
    before = registry.hooks.create(
        "https://hooks.acme.example/", namespace="acme", company_id=8, destination_headers={"Authorization": "a b"}
    )
    clock.advance(timedelta(minutes=1))
    after = registry.hooks.update(before.id, **{field: value})
    assert registry.hooks.get(before.id) == after
    changed = {field.name for field in attrs.fields(Hook) if getattr(before, field.name) != getattr(after, field.name)}
    assert changed == {field, "updated_at"}
    assert getattr(after, field) == kept
    assert after.updated_at == clock.now()


def test_update_takes_effect_for_the_next_attempt(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain, clock: ManualClock
) -> None:
    """A retry of a delivery that was emitted before goes to the new URL with the new headers."""
    hook = listening(url="https://hooks.acme.example/old")
    registry.emit("RFIs", "update")
    endpoint.reply(500)
    drain()
    registry.hooks.update(
        hook.id, destination_url="https://hooks.acme.example/new", destination_headers={"Authorization": "Bearer new"}
    )
    clock.advance(timedelta(hours=1))
    assert drain().delivered == 1
    assert [request.path for request in endpoint.requests] == ["/old", "/new"]
    assert endpoint.requests[1].headers["authorization"] == "Bearer new"


def test_update_of_the_scope_goes_for_the_triggers(registry: HookRegistry, listening: Listening) -> None:
    """After a change of scope the hook gets the events of the new one, and of the old one no more."""
    hook = listening(company_id=8)
    registry.hooks.update(hook.id, company_id=None, project_id=6778)
    assert registry.emit("RFIs", "update", company_id=8).delivery_ids == ()
    assert len(registry.emit("RFIs", "update", project_id=6778).delivery_ids) == 1


def test_delete_discards_what_waits_and_keeps_the_history(
    registry: HookRegistry, listening: Listening, drain: Drain
) -> None:
    """A deleted hook is not found, hears nothing, and its deliveries tell why they were not sent."""
    hook = listening()
    sent = registry.emit("RFIs", "update").delivery_ids[0]
    drain()
    waits = registry.emit("RFIs", "update").delivery_ids[0]
    registry.hooks.delete(hook.id)
    assert registry.emit("RFIs", "update").delivery_ids == ()
    assert registry.hooks.list().items == ()
    assert registry.deliveries.get(sent).status == "delivered"
    discarded = registry.deliveries.get(waits)
    assert (discarded.status, discarded.reason, discarded.attempts) == ("discarded", "the hook was deleted", ())
    assert {delivery.id for delivery in registry.deliveries.list(hook.id)} >= {sent, waits}
    for verb in (registry.hooks.get, registry.hooks.delete, registry.hooks.enable, registry.hooks.ping):
        with pytest.raises(NotFound):
            verb(hook.id)


def test_kept_deliveries_wait_and_flow_after_enable(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain
) -> None:
    """A disabled hook is never sent to, never counts as delivered, and gets all in order once enabled."""
    hook = listening()
    before = registry.emit("RFIs", "update", {"n": 1}).delivery_ids[0]
    assert registry.hooks.disable(hook.id).status == "disabled"
    during = registry.emit("RFIs", "update", {"n": 2}).delivery_ids[0]
    assert drain() == DrainReport()
    assert endpoint.requests == []
    assert {registry.deliveries.get(one).status for one in (before, during)} == {"enqueued"}
    assert registry.deliveries.get(before).next_attempt_at is None
    assert registry.hooks.enable(hook.id).status == "active"
    assert drain().delivered == 2
    assert [request.json()["data"]["n"] for request in endpoint.requests] == [1, 2]


def test_a_hook_that_drops_discards_new_events_with_a_reason(registry: HookRegistry, listening: Listening) -> None:
    """`when_disabled="drop"`: what waited is kept, what comes is discarded, and says why."""
    hook = listening(when_disabled="drop")
    before = registry.emit("RFIs", "update").delivery_ids[0]
    registry.hooks.disable(hook.id)
    during = registry.deliveries.get(registry.emit("RFIs", "update").delivery_ids[0])
    assert registry.deliveries.get(before).status == "enqueued"
    assert (during.status, during.attempts) == ("discarded", ())
    assert during.reason is not None
    assert "disabled" in during.reason
    assert during.completed_at is not None


def test_disable_may_drop_the_queue(registry: HookRegistry, listening: Listening, drain: Drain) -> None:
    """`queued="drop"` discards what waits now; `when_disabled` alone says what happens to new events."""
    hook = listening()
    before = registry.emit("RFIs", "update").delivery_ids[0]
    registry.hooks.disable(hook.id, queued="drop")
    during = registry.emit("RFIs", "update").delivery_ids[0]
    dropped = registry.deliveries.get(before)
    assert (dropped.status, dropped.reason) == ("discarded", "the hook was disabled and its queue dropped")
    registry.hooks.enable(hook.id)
    assert drain().delivered == 1
    assert registry.deliveries.get(during).status == "delivered"


def test_enable_forgets_failures_and_pause(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain
) -> None:
    """A failing hook that is enabled is tried at once."""
    hook = listening()
    registry.emit("RFIs", "update")
    endpoint.reply(500)
    drain()
    failing = registry.hooks.get(hook.id)
    assert failing.failing_since is not None
    assert failing.paused_until is not None
    assert drain().delivered == 0
    enabled = registry.hooks.enable(hook.id)
    assert enabled.failing_since is enabled.paused_until is None
    assert drain().delivered == 1


def test_ping_is_a_real_delivery(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain
) -> None:
    """A ping needs no trigger, is sent ahead of what waits though the hook is paused, and is in the history."""
    hook = listening()
    registry.emit("RFIs", "update")
    endpoint.reply(500)
    drain()
    ping = registry.hooks.ping(hook.id)
    assert (ping.hook_id, ping.status, ping.event.action) == (hook.id, "enqueued", "ping")
    assert drain().delivered == 2
    assert [request.json()["reason"] for request in endpoint.requests] == ["update", "ping", "update"]
    assert registry.deliveries.get(ping.id).status == "delivered"
    assert ping.id in [delivery.id for delivery in registry.deliveries.list(hook.id)]


def test_ping_of_a_disabled_hook_is_a_conflict(registry: HookRegistry, listening: Listening) -> None:
    """It could not be delivered; nothing is stored."""
    hook = listening()
    registry.hooks.disable(hook.id)
    with pytest.raises(Conflict, match="enable"):
        registry.hooks.ping(hook.id)
    assert registry.deliveries.list().items == ()


def test_ping_draws_another_number_where_one_is_taken(
    registry: HookRegistry, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes may draw the same event id: the ping goes on with the next, and the app sees nothing of it."""
    hook = listening()
    taken = registry.hooks.ping(hook.id).event
    real = registry._next_ids
    drawn = [(taken.id, taken.ulid)]
    monkeypatch.setattr(registry, "_next_ids", lambda now: drawn.pop() if drawn else real(now))
    assert registry.hooks.ping(hook.id).event.id != taken.id
    monkeypatch.setattr(registry, "_next_ids", lambda now: (taken.id, taken.ulid))
    with pytest.raises(ValueError, match="clock") as caught:
        registry.hooks.ping(hook.id)
    assert not isinstance(caught.value, EventIdTaken)


def test_rotate_secret_signs_with_both_for_the_grace(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain, clock: ManualClock
) -> None:
    """Receivers with the old secret verify until the grace is over, those with the new one from now on."""
    old = listening()
    new = registry.hooks.rotate_secret(old.id, grace=timedelta(hours=1))
    assert new.signing_secret != old.signing_secret
    assert registry.hooks.get(old.id) == new

    def accepted_by(hook: Hook) -> bool:
        registry.emit("RFIs", "update")
        drain()
        request = endpoint.requests[-1]
        try:
            verify(request.body, request.headers, hook.signing_secret, now=clock.now())
        except ValueError:
            return False
        return True

    assert (accepted_by(old), accepted_by(new)) == (True, True)
    clock.advance(timedelta(hours=1))
    assert (accepted_by(old), accepted_by(new)) == (False, True)


def test_rotate_secret_without_grace_and_very_often(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain
) -> None:
    """Without grace the old one is out at once; old secrets do not pile up, and it still delivers."""
    hook = listening()
    assert registry.hooks.rotate_secret(hook.id, grace=timedelta(0)).previous_secrets == ()
    for _ in range(30):
        hook = registry.hooks.rotate_secret(hook.id)
    assert len(hook.previous_secrets) == 10
    registry.emit("RFIs", "update")
    assert drain().delivered == 1
    assert len(endpoint.requests[0].headers["webhook-signature"].split()) == 11


def test_every_post_carries_the_standard_headers(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint, drain: Drain, clock: ManualClock
) -> None:
    """id, timestamp and signature of Standard Webhooks, the configured headers, and the same id on each retry."""
    hook = listening(destination_headers={"X-Tenant": "acme"})
    event = registry.emit("RFIs", "update", {"subject": "Door 12"}, resource_id=54321, company_id=8).event
    endpoint.reply(503)
    drain()
    clock.advance(timedelta(hours=1))
    drain()
    assert len(endpoint.requests) == 2
    for request in endpoint.requests:
        headers = request.headers
        assert headers["webhook-id"] == event.ulid
        assert headers["content-type"] == "application/json"
        assert headers["user-agent"].startswith("procore-hooks/")
        assert headers["x-tenant"] == "acme"
        moment = clock.now() if request is endpoint.requests[1] else clock.now() - timedelta(hours=1)
        body = verify(request.body, headers, hook.signing_secret, now=moment)
        assert (body["data"], body["resource_id"], body["company_id"]) == ({"subject": "Door 12"}, "54321", "8")


def test_max_in_flight_trades_order_for_throughput(
    registry: HookRegistry, listening: Listening, endpoint: ScriptedEndpoint
) -> None:
    """With 1, a failing first delivery holds up the second; with more, both are tried in the same drain."""
    for most, tried in ((1, 1), (2, 2)):
        hook = listening(("Photos", "create"), max_in_flight=most)
        endpoint.reset()
        endpoint.reply(500, times=None)
        for _ in range(2):
            registry.emit("Photos", "create")
        Dispatcher(registry, transport=endpoint).drain()
        assert len(endpoint.requests) == tried
        registry.hooks.delete(hook.id)


def test_an_update_of_what_was_read_minds_other_changes(registry: HookRegistry, listening: Listening) -> None:
    """With the hook as it was read, an update goes through once; after another change it is refused.
    A failing delivery is no such change.
    """
    read = listening()
    changed = registry.hooks.update(read.id, if_unchanged=read, max_in_flight=2)
    assert changed.max_in_flight == 2
    with pytest.raises(Conflict, match=f"hook {read.id} was changed meanwhile"):
        registry.hooks.update(read.id, if_unchanged=read, max_in_flight=3)
    assert registry.hooks.get(read.id) == changed
    registry.emit("RFIs", "update")
    Dispatcher(registry, transport=ScriptedEndpoint().reply(500)).drain()
    failing = registry.hooks.get(read.id)
    assert failing.failing_since is not None
    assert registry.hooks.update(read.id, if_unchanged=changed, max_in_flight=4).max_in_flight == 4


def test_of_updates_of_what_was_read_one_wins(registry: HookRegistry, listening: Listening) -> None:
    """Of several at once, of the same state, one changes the hook and the others are refused."""
    for _ in range(10):
        read, together = listening(), Barrier(4)

        def change(number: int, read: Hook = read, together: Barrier = together) -> bool:
            together.wait(30)
            try:
                return bool(registry.hooks.update(read.id, if_unchanged=read, max_in_flight=number))
            except Conflict:
                return False

        with ThreadPoolExecutor(4) as threads:
            won = [one.result(30) for one in [threads.submit(change, number) for number in range(2, 6)]]
        assert won.count(True) == 1
        assert registry.hooks.get(read.id).max_in_flight == 2 + won.index(True)


def test_secrets_rotated_at_once_all_sign(registry: HookRegistry) -> None:
    """Of rotations that run at the same time each returns a secret that signs: none writes over another's."""
    for _ in range(10):
        hook = registry.hooks.create("https://hooks.example/procore", namespace="rotated")
        together = Barrier(4)

        def rotate(hook_id: int = hook.id, together: Barrier = together) -> Secret:
            together.wait(30)
            return registry.hooks.rotate_secret(hook_id).signing_secret

        with ThreadPoolExecutor(4) as threads:
            returned = {one.result(30).reveal() for one in [threads.submit(rotate) for _ in range(4)]}
        now = registry.hooks.get(hook.id)
        signing = {now.signing_secret.reveal(), *(one.secret.reveal() for one in now.previous_secrets)}
        assert signing == returned | {hook.signing_secret.reveal()}
