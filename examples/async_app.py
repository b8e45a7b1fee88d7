import asyncio

from procore_hooks import AsyncHookRegistry, DestinationPolicy, Dispatcher
from procore_hooks.testing import WebhookReceiver


async def main() -> None:
    registry = AsyncHookRegistry(destinations=DestinationPolicy.local())
    with WebhookReceiver() as receiver:
        hook = await registry.hooks.create(receiver.url, namespace="acme-invoice-sync", project_id=6778)
        await registry.triggers.create(hook.id, "RFIs", "update")

        async with Dispatcher(registry) as dispatcher:  # delivers in this event loop
            await registry.emit("RFIs", "update", {"subject": "Door 12"}, resource_id=54321, project_id=6778)
            await dispatcher.drain_async(timeout=10)

        async for delivery in registry.deliveries.iter(hook.id):
            print(delivery.status, delivery.last_attempt.response_status)


asyncio.run(main())
