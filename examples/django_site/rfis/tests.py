from django.contrib.auth.models import User
from django.test import TestCase, TransactionTestCase

from procore_hooks import Dispatcher
from procore_hooks.integrations.django import get_registry
from procore_hooks.testing import ScriptedEndpoint

from .models import Rfi
from .views import create
from .webhooks import COMPANY, PROJECT


class WebhooksTest(TransactionTestCase):  # a TestCase commits nothing, so nothing of it could be delivered
    def test_a_new_rfi_is_delivered(self) -> None:
        registry, endpoint = get_registry(), ScriptedEndpoint()
        hook = registry.hooks.create(
            "https://hooks.acme.example/procore", namespace="acme", company_id=COMPANY, project_id=PROJECT
        )
        registry.triggers.create(hook.id, "RFIs", "create")
        self.client.force_login(User.objects.create_user("ann"))
        self.client.post("/", {"subject": "Door 12"})
        Dispatcher(registry, transport=endpoint).drain()
        assert [request.json()["data"] for request in endpoint.requests] == [{"subject": "Door 12"}]


class RfiTest(TestCase):
    def test_an_rfi_is_stored(self) -> None:
        create("Door 12")
        assert Rfi.objects.get().subject == "Door 12"
