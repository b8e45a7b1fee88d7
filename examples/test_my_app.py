from datetime import timedelta

from procore_hooks import Dispatcher


def answer_rfi(registry, rfi_id):  # stands for the code of your app
    registry.emit("RFIs", "update", {"status": "answered"}, resource_id=rfi_id, project_id=6778)


def test_an_answered_rfi_reaches_the_customer(hook_registry, webhook_receiver):
    hook = hook_registry.hooks.create(webhook_receiver.url, namespace="acme", project_id=6778)
    hook_registry.triggers.create(hook.id, "RFIs", "update")

    answer_rfi(hook_registry, 54321)
    report = Dispatcher(hook_registry).drain()

    assert report.delivered == 1
    assert webhook_receiver.requests[0].json()["resource_id"] == "54321"


def test_an_endpoint_that_is_down_gets_it_later(hook_registry, hook_clock, webhook_receiver):
    hook = hook_registry.hooks.create(webhook_receiver.url, namespace="acme", project_id=6778)
    hook_registry.triggers.create(hook.id, "RFIs", "update")
    webhook_receiver.reply(500, times=2)  # then 200, as long as nothing else is scripted

    answer_rfi(hook_registry, 54321)
    dispatcher = Dispatcher(hook_registry)
    while dispatcher.drain().next_due_at is not None:
        hook_clock.advance(timedelta(minutes=1))  # passes at once

    (delivery,) = hook_registry.deliveries.list(hook.id)
    assert [attempt.response_status for attempt in delivery.attempts] == [500, 500, 200]
