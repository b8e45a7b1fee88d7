"""Hooks that sign with ed25519: on the wire, while their keys rotate, and where the extra is not installed."""

from __future__ import annotations

import asyncio
import json
import subprocess
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

import procore_hooks._requests
from procore_hooks import (
    AsyncHookRegistry,
    DestinationPolicy,
    Dispatcher,
    Hook,
    HookRegistry,
    InvalidInput,
    PreviousSecret,
    Secret,
    VerificationError,
    generate_ed25519_secret,
    verify,
)
from procore_hooks._core.signing import Signer
from procore_hooks._requests import RequestMaker
from procore_hooks.testing import ManualClock, ReceivedRequest, ScriptedEndpoint, WebhookReceiver

from .conftest import BOUND, begin, hook_for

EXTRA = "pip install 'procore-hooks[crypto]'"


def sent_to(endpoint: ScriptedEndpoint | WebhookReceiver, registry: HookRegistry) -> ReceivedRequest:
    """The POST of one event."""
    transport = endpoint if isinstance(endpoint, ScriptedEndpoint) else None
    registry.emit("RFIs", "update", {"subject": "Door 12"})
    assert Dispatcher(registry, transport=transport).drain().delivered == 1
    return endpoint.requests[-1]


def accepted(request: ReceivedRequest, *secrets: str | Secret | None, clock: ManualClock) -> list[bool]:
    """Which of the secrets the request verifies with."""

    def is_accepted(secret: str | Secret | None) -> bool:
        assert secret is not None
        try:
            return bool(verify(request.body, request.headers, secret, now=clock.now()))
        except VerificationError:
            return False

    return [is_accepted(secret) for secret in secrets]


def kinds(request: ReceivedRequest) -> list[str]:
    return [one.partition(",")[0] for one in request.headers["webhook-signature"].split(" ")]


def test_a_post_carries_a_signature_that_the_public_key_verifies(filed: HookRegistry) -> None:
    """Over a socket: one `v1a` signature, right for `hook.public_key`; the history has it, and no key."""
    with WebhookReceiver() as receiver:
        hook = hook_for(filed, receiver.url, signing_secret=generate_ed25519_secret())
        request = sent_to(receiver, filed)
        report = filed.hooks.check(hook.id)
        checked = receiver.requests[-1]
    assert hook.public_key is not None
    assert hook.public_key.startswith("whpk_")
    assert filed.hooks.get(hook.id) == hook
    assert kinds(request) == ["v1a"]
    assert verify(request.body, request.headers, hook.public_key)["data"] == {"subject": "Door 12"}
    with pytest.raises(VerificationError):
        verify(request.body + b" ", request.headers, hook.public_key)
    assert report.ok
    assert verify(checked.body, checked.headers, hook.public_key)["reason"] == "ping"

    (delivery,) = filed.deliveries.list()
    attempt = filed.deliveries.get(delivery.id).attempts[0]
    assert attempt.request_headers["webhook-signature"] == request.headers["webhook-signature"]
    seed = hook.signing_secret.reveal()[5:40]
    shown = repr((hook, attrs.asdict(hook), attempt, attrs.asdict(delivery), request.headers))
    assert seed not in shown


def test_a_hook_keeps_its_kind_when_its_secret_rotates(by_hand: HookRegistry, clock: ManualClock) -> None:
    """A new pair follows a pair, and both sign until the grace is over."""
    endpoint = ScriptedEndpoint()
    old = hook_for(by_hand, signing_secret=generate_ed25519_secret())
    new = by_hand.hooks.rotate_secret(old.id, grace=timedelta(hours=1))
    assert new.signing_secret.reveal().startswith("whsk_")
    assert new.public_key != old.public_key
    assert by_hand.hooks.get(old.id) == new

    request = sent_to(endpoint, by_hand)
    assert kinds(request) == ["v1a", "v1a"]
    assert accepted(request, old.public_key, new.public_key, clock=clock) == [True, True]
    clock.advance(timedelta(hours=1))
    request = sent_to(endpoint, by_hand)
    assert kinds(request) == ["v1a"]
    assert accepted(request, old.public_key, new.public_key, clock=clock) == [False, True]

    shared = hook_for(by_hand)
    assert by_hand.hooks.rotate_secret(shared.id).signing_secret.reveal().startswith("whsec_")


def test_the_eleventh_rotation_ends_the_oldest_secret(by_hand: HookRegistry, clock: ManualClock) -> None:
    """Ten old secrets sign beside the new one, newest first; with an eleventh the oldest does no more, grace or not."""
    endpoint = ScriptedEndpoint()
    hooks = [hook_for(by_hand, signing_secret=generate_ed25519_secret())]
    for _ in range(10):
        hooks.append(by_hand.hooks.rotate_secret(1, grace=timedelta(days=365)))
    keys = [hook.public_key for hook in hooks]
    request = sent_to(endpoint, by_hand)
    assert kinds(request) == ["v1a"] * 11
    assert accepted(request, *keys, clock=clock) == [True] * 11

    newest = by_hand.hooks.rotate_secret(1, grace=timedelta(minutes=1))
    assert [one.secret for one in newest.previous_secrets] == [hook.signing_secret for hook in hooks[:0:-1]]
    request = sent_to(endpoint, by_hand)
    assert accepted(request, *keys, newest.public_key, clock=clock) == [False] + [True] * 11
    # One whose grace has ended takes no place of the ten.
    clock.advance(timedelta(minutes=1))
    last = by_hand.hooks.rotate_secret(1, grace=timedelta(days=1))
    request = sent_to(endpoint, by_hand)
    assert accepted(request, *keys, newest.public_key, last.public_key, clock=clock) == [False] + [True] * 9 + [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("first", ["whsec", "whsk"])
def test_secrets_of_both_kinds_sign_together(by_hand: HookRegistry, clock: ManualClock, first: str) -> None:
    """A hook with old secrets of the other kind sends a signature of each, also once it is rotated again."""
    endpoint = ScriptedEndpoint()
    pair = hook_for(by_hand, signing_secret=generate_ed25519_secret(), when_disabled="drop")
    by_hand.hooks.disable(pair.id)
    shared = hook_for(by_hand)
    current, older = (shared, pair) if first == "whsec" else (pair, shared)
    previous = PreviousSecret(secret=older.signing_secret, expires_at=clock.now() + timedelta(hours=1))
    changes = {"signing_secret": current.signing_secret, "previous_secrets": (previous,)}
    by_hand.storage.update_hook(shared.id, changes, clock.now())

    request = sent_to(endpoint, by_hand)
    order = ["v1", "v1a"] if first == "whsec" else ["v1a", "v1"]
    assert kinds(request) == order
    assert accepted(request, pair.public_key, shared.signing_secret, clock=clock) == [True, True]
    assert by_hand.hooks.rotate_secret(shared.id).signing_secret.reveal().startswith(f"{first}_")
    request = sent_to(endpoint, by_hand)
    assert kinds(request) == [order[0], *order]
    assert accepted(request, pair.public_key, shared.signing_secret, clock=clock) == [True, True]
    clock.advance(timedelta(days=1))
    assert kinds(sent_to(endpoint, by_hand)) == order[:1]


def test_keys_are_prepared_once_until_one_of_them_ends(
    by_hand: HookRegistry, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of a hook in rotation are made ready when one ends, or begins again by a clock set back; no oftener."""
    made: list[int] = []

    def counted(secrets: tuple[Secret, ...]) -> Signer:
        made.append(len(secrets))
        return Signer(secrets)

    monkeypatch.setattr(procore_hooks._requests, "Signer", counted)
    hook_for(by_hand, signing_secret=generate_ed25519_secret())
    by_hand.hooks.rotate_secret(1, grace=timedelta(minutes=2))
    hook = by_hand.hooks.rotate_secret(1, grace=timedelta(minutes=1))
    event = by_hand.emit("RFIs", "update").event
    maker = RequestMaker(DestinationPolicy(), {})
    for minutes, signatures in ((0, 3), (0, 3), (1, 2), (1, 2), (2, 1), (9, 1), (1, 2), (0, 3), (0, 3)):
        headers = maker.request(hook, event, clock.now() + timedelta(minutes=minutes)).headers
        assert len(headers["webhook-signature"].split()) == signatures
    assert made == [3, 2, 1, 2, 3]


def test_a_given_key_is_checked_before_anything_is_stored(by_hand: HookRegistry) -> None:
    """A seed is taken and completed; what is no private key is refused, not shown, and leaves nothing."""
    hook = by_hand.hooks.create("https://a.example/", namespace="a", signing_secret="whsk_" + "AAAB" * 10 + "AAA=")
    assert len(hook.signing_secret) == len("whsk_") + 88
    assert hook.public_key is not None
    for wrong in ("whsk_hunter2", hook.public_key, Secret(hook.signing_secret.reveal()[:-4] + "AA==")):
        with pytest.raises(InvalidInput) as caught:
            by_hand.hooks.create("https://a.example/", namespace="a", signing_secret=wrong)
        assert caught.value.field == "signing_secret"
        assert "hunter2" not in str(caught.value)
        assert hook.signing_secret.reveal()[5:30] not in str(caught.value)
    assert len(by_hand.hooks.list()) == 1


def test_the_same_awaited(clock: ManualClock) -> None:
    """The asynchronous registry makes and rotates such hooks too."""

    async def rotated() -> tuple[Hook, Hook]:
        registry = AsyncHookRegistry(clock=clock)
        made = await registry.hooks.create(
            "https://a.example/", namespace="a", signing_secret=generate_ed25519_secret()
        )
        return made, await registry.hooks.rotate_secret(made.id)

    old, new = asyncio.run(rotated())
    assert old.public_key != new.public_key
    assert new.previous_secrets[0].secret == old.signing_secret


# Runs where `cryptography` cannot be imported: on a file with a hook of each kind, 1 and 2, and with an event to send.
_WITHOUT = """
import json
from procore_hooks import InvalidInput, generate_ed25519_secret, verify

class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

assert "cryptography" not in sys.modules
sys.meta_path.insert(0, Blocked)

def error_of(call):
    try:
        call()
    except InvalidInput as error:
        return str(error)

public = registry.hooks.get(1).public_key
errors = {
    "generate": error_of(generate_ed25519_secret),
    "create": error_of(
        lambda: registry.hooks.create("http://127.0.0.1/", namespace="a", signing_secret=sys.stdin.readline().strip())
    ),
    "rotate": error_of(lambda: registry.hooks.rotate_secret(1)),
    "check": error_of(lambda: registry.hooks.check(1)),
    "verify": error_of(lambda: verify(b"{}", {}, public)),
}
registry.hooks.rotate_secret(2)
report = Dispatcher(registry).drain(timeout=30)
print(json.dumps([public, errors, report.delivered, report.retried]))
"""


def test_without_the_extra(filed: HookRegistry, path: Path) -> None:
    """A process that lacks the package says what to install, stores nothing, and goes on with hooks of the other kind.

    The attempt that it cannot sign is in the history, in words; a process with the package delivers it later.
    """
    with WebhookReceiver() as receiver:
        hook = hook_for(filed, receiver.url, signing_secret=generate_ed25519_secret())
        other = hook_for(filed, receiver.url)
        filed.emit("RFIs", "update")
        process = begin(_WITHOUT, path)
        printed, complaints = process.communicate(hook.signing_secret.reveal().encode() + b"\n", timeout=BOUND)
        assert (process.returncode, complaints) == (0, b"")
        public, errors, delivered, retried = json.loads(printed)

        assert public == hook.public_key
        assert set(errors) == {"generate", "create", "rotate", "check", "verify"}
        assert [
            what for what, text in errors.items() if EXTRA not in text or not text.startswith("signing_secret: ")
        ] == []
        assert {seen.id for seen in filed.hooks.list()} == {hook.id, other.id}
        assert (filed.hooks.get(hook.id).signing_secret, filed.hooks.get(hook.id).previous_secrets) == (
            hook.signing_secret,
            (),
        )

        assert (delivered, retried) == (1, 1)
        (waiting,) = filed.deliveries.list(hook.id)
        attempt = filed.deliveries.get(waiting.id).attempts[0]
        assert (waiting.status, attempt.outcome, attempt.response_status) == ("retrying", "retried", None)
        assert EXTRA in (attempt.response_error or "")
        seed = hook.signing_secret.reveal()[5:30]
        assert seed not in repr((waiting, attempt)) + printed.decode()

        assert len(receiver.requests) == 1
        filed.hooks.enable(hook.id)
        assert Dispatcher(filed).drain().delivered == 1
        assert verify(receiver.requests[-1].body, receiver.requests[-1].headers, hook.public_key or "")
    (waiting,) = filed.deliveries.list(hook.id)
    assert waiting.status == "delivered"


@pytest.mark.parametrize(
    "use",
    [
        "import procore_hooks",
        "from procore_hooks import *",
        "registry.hooks.create('http://127.0.0.1/', namespace='a')",
        "from procore_hooks import verify\ntry: verify(b'', {}, registry.hooks.create('http://127.0.0.1/', "
        "namespace='a').signing_secret)\nexcept ValueError: pass",
    ],
    ids=["import", "all names", "create", "verify"],
)
def test_who_has_no_such_key_needs_no_such_package(path: Path, use: str) -> None:
    """Nothing imports `cryptography` until a key is used."""
    process: subprocess.Popen[bytes] = begin(f"{use}\nprint('cryptography' in sys.modules)", path)
    assert process.communicate(timeout=BOUND) == (b"False\n", b"")
