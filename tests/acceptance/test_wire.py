"""What goes over a real socket: the body to the byte, a signature that others verify, every header of the contract."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
import standardwebhooks
import svix

from procore_hooks import Dispatcher, HookRegistry, VerificationError, __version__, verify
from procore_hooks.testing import ReceivedRequest, WebhookReceiver

from .conftest import hook_for

PAYLOAD = {"subject": "Tür 12 \U0001f6aa", "n": 12345678901234567890, "list": [1, 2.5, None, True]}
SERIALISED = '{"subject":"Tür 12 \U0001f6aa","n":12345678901234567890,"list":[1,2.5,null,true]}'.encode()


def received(registry: HookRegistry, receiver: WebhookReceiver) -> ReceivedRequest:
    """The POST of one event."""
    registry.emit("RFIs", "update", PAYLOAD, resource_id=54321, company_id=8, project_id=6778, user_id=9)
    before = len(receiver.requests)
    assert Dispatcher(registry).drain().delivered == 1
    return receiver.requests[before]


def verified_by_all(request: ReceivedRequest, secret: str) -> None:
    headers = dict(request.headers)
    expected = json.loads(request.body)
    assert verify(request.body, headers, secret) == expected
    assert standardwebhooks.Webhook(secret).verify(request.body, headers) == expected
    assert svix.Webhook(secret).verify(request.body, headers) in (expected, None)


@pytest.mark.parametrize("version", ["v2.0", "v3.0", "v4.0", "standard"])
def test_the_body_arrives_and_verifies(filed: HookRegistry, version: str) -> None:
    """In every format the body is what the history says, byte for byte, and three verifiers accept its signature."""
    with WebhookReceiver() as receiver:
        hook = hook_for(filed, receiver.url, payload_version=version)
        request = received(filed, receiver)
    (delivery,) = filed.deliveries.list()
    assert filed.deliveries.get(delivery.id).attempts[0].request_body == request.body
    verified_by_all(request, hook.signing_secret.reveal())
    if version in ("v4.0", "standard"):
        assert b'"data":' + SERIALISED in request.body

    with pytest.raises(VerificationError):
        verify(request.body + b" ", request.headers, hook.signing_secret)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(hook.signing_secret.reveal()).verify(request.body + b" ", dict(request.headers))


def test_every_header_of_the_contract_is_there(filed: HookRegistry) -> None:
    """A POST has the contract's headers, the configured ones, and no others that an HTTP client would add."""
    with WebhookReceiver() as receiver:
        url = f"{receiver.url}procore?token=abc"
        hook_for(filed, url, destination_headers={"Authorization": "Bearer c3a24b8208", "X-Own": "1"})
        request = received(filed, receiver)
        host = receiver.url.removeprefix("http://").rstrip("/")

    (delivery,) = filed.deliveries.list()
    assert (request.method, request.path) == ("POST", "/procore?token=abc")
    headers = dict(request.headers)
    assert headers.pop("webhook-id") == delivery.event.ulid
    assert int(headers.pop("webhook-timestamp")) == int(delivery.attempts[0].started_at.timestamp())
    assert re.fullmatch(r"v1,[A-Za-z0-9+/]{43}=", headers.pop("webhook-signature"))
    assert int(headers.pop("content-length")) == len(request.body)
    assert headers == {
        "host": host,
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": f"procore-hooks/{__version__}",
        "authorization": "Bearer c3a24b8208",
        "x-own": "1",
    }


def test_retries_keep_their_id_and_are_signed_anew(filed: HookRegistry) -> None:
    """Each retry and redelivery has the event's `webhook-id` and the same body."""
    with WebhookReceiver() as receiver:
        receiver.reply(500)
        hook = hook_for(filed, receiver.url)
        (sent,) = filed.emit("RFIs", "update", PAYLOAD).delivery_ids
        Dispatcher(filed).drain()
        filed.hooks.enable(hook.id)
        Dispatcher(filed).drain()
        filed.deliveries.redeliver(sent)
        Dispatcher(filed).drain()
        requests = receiver.requests
    assert len(requests) == 3
    assert len({request.headers["webhook-id"] for request in requests}) == 1
    assert len({request.body for request in requests}) == 1
    for request in requests:
        verified_by_all(request, hook.signing_secret.reveal())


def test_after_rotation_both_secrets_verify(filed: HookRegistry) -> None:
    """While the grace lasts a POST carries a signature by each secret; afterwards the old one is no good."""
    with WebhookReceiver() as receiver:
        old = hook_for(filed, receiver.url).signing_secret.reveal()
        new = filed.hooks.rotate_secret(1).signing_secret.reveal()
        request = received(filed, receiver)
        assert old != new
        assert len(request.headers["webhook-signature"].split()) == 2
        verified_by_all(request, old)
        verified_by_all(request, new)

        newest = filed.hooks.rotate_secret(1, grace=timedelta(0)).signing_secret.reveal()
        request = received(filed, receiver)
        verified_by_all(request, newest)
        verified_by_all(request, old)  # its own grace goes on
        with pytest.raises(VerificationError):
            verify(request.body, request.headers, new)
