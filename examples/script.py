from procore_hooks import DestinationPolicy, Dispatcher, HookRegistry
from procore_hooks.testing import WebhookReceiver

receiver = WebhookReceiver()  # stands for your customer's endpoint: a real HTTP server on this machine
registry = HookRegistry(destinations=DestinationPolicy.local())  # keeps everything in memory

hook = registry.hooks.create(
    receiver.url,
    namespace="acme-invoice-sync",
    destination_headers={"Authorization": "Bearer c3a24b8208"},
    company_id=8,
    project_id=6778,
)
registry.triggers.create(hook.id, "RFIs", "update")

with Dispatcher(registry) as dispatcher:  # delivers in the background while the app runs
    registry.emit("RFIs", "update", {"subject": "Door 12"}, resource_id=54321, company_id=8, project_id=6778)
    dispatcher.drain(timeout=10)  # a script waits; an app just goes on

for delivery in registry.deliveries.list(hook.id):  # newest first, 25 a page
    print(delivery.status, delivery.last_attempt.response_status)
print(receiver.requests[0].json()["data"])
