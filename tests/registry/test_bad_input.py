"""Bad input, in one table: the typed error with field, value and fix on one line, no secret in it, nothing stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from procore_hooks import (
    PROCORE,
    EventInput,
    Hook,
    HookRegistry,
    InvalidCursor,
    InvalidDestination,
    InvalidHeader,
    InvalidInput,
    InvalidPayload,
    NotFound,
    Secret,
    Storage,
    UnknownPayloadVersion,
    UnknownResource,
    UnsupportedAction,
)
from procore_hooks.testing import ManualClock

Call = Callable[[HookRegistry, int], object]
# Wherever a value may be a secret, or hold one, this is in it.
SECRET = "hunter2-hunter2-hunter2"
NAIVE = datetime(2025, 1, 1)
AWARE = datetime(2025, 1, 1, tzinfo=UTC)
URL = "https://hooks.acme.example/in"


def create(**fields: Any) -> Call:
    given = {"destination_url": URL, "namespace": "acme", **fields}
    return lambda registry, hook: registry.hooks.create(**given)


def update(**changes: Any) -> Call:
    return lambda registry, hook: registry.hooks.update(hook, **changes)


def emit(resource: Any = "RFIs", action: Any = "update", payload: Any = None, **keywords: Any) -> Call:
    return lambda registry, hook: registry.emit(resource, action, payload, **keywords)


def deliveries(**filters: Any) -> Call:
    return lambda registry, hook: registry.deliveries.list(**filters)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def within_itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def other_list(registry: HookRegistry, hook: int) -> object:
    return registry.deliveries.list(cursor=registry.hooks.list(page_size=1).next_cursor)


def cut_cursor(registry: HookRegistry, hook: int) -> object:
    return registry.hooks.list(cursor=(registry.hooks.list(page_size=1).next_cursor or "")[:-1])


# What is called, the error, its field, and words of its message: the value where it may be shown, and the fix.
TABLE: dict[str, tuple[Call, type[Exception], str, tuple[str, ...]]] = {
    # Destinations
    "url: none": (create(destination_url=None), InvalidDestination, "destination_url", ("NoneType", "string")),
    "url: bytes": (create(destination_url=URL.encode()), InvalidDestination, "destination_url", ("bytes", "string")),
    "url: empty": (create(destination_url=""), InvalidDestination, "destination_url", ("https://host/path",)),
    "url: a name": (create(destination_url="acme.example"), InvalidDestination, "destination_url", ("write",)),
    "url: http": (
        create(destination_url=f"http://acme.example/?key={SECRET}"),
        InvalidDestination,
        "destination_url",
        ("'http'", "use https"),
    ),
    "url: credentials": (
        create(destination_url=f"https://me:{SECRET}@acme.example/"),
        InvalidDestination,
        "destination_url",
        ("destination_headers",),
    ),
    "url: space": (
        create(destination_url=f"https://acme.example/a b?{SECRET}"),
        InvalidDestination,
        "destination_url",
        ("percent-encode",),
    ),
    "url: port": (
        create(destination_url=f"https://acme.example:65536/?{SECRET}"),
        InvalidDestination,
        "destination_url",
        ("1 to 65535",),
    ),
    "url: loopback": (
        create(destination_url=f"https://127.0.0.1/?{SECRET}"),
        InvalidDestination,
        "destination_url",
        ("127.0.0.1",),
    ),
    "url: metadata": (
        create(destination_url="https://169.254.169.254/"),
        InvalidDestination,
        "destination_url",
        ("169.254.169.254",),
    ),
    "url: in update": (
        update(destination_url=f"https://10.0.0.1/?{SECRET}"),
        InvalidDestination,
        "destination_url",
        ("10.0.0.1",),
    ),
    # Headers
    "header: line break": (
        create(destination_headers={"Authorization": f"{SECRET}\r\nX-Evil: 1"}),
        InvalidHeader,
        "destination_headers.Authorization",
        ("encode",),
    ),
    "header: white space": (
        create(destination_headers={"Authorization": f" {SECRET}"}),
        InvalidHeader,
        "destination_headers.Authorization",
        ("strip()",),
    ),
    "header: beyond ASCII": (
        create(destination_headers={"Authorization": f"{SECRET}é"}),
        InvalidHeader,
        "destination_headers.Authorization",
        ("encode",),
    ),
    "header: not text": (
        create(destination_headers={"Authorization": SECRET.encode()}),
        InvalidHeader,
        "destination_headers.Authorization",
        ("bytes", "use text"),
    ),
    "header: a reserved name": (
        create(destination_headers={"Webhook-Signature": SECRET}),
        InvalidHeader,
        "destination_headers.Webhook-Signature",
        ("leave it out",),
    ),
    "header: a wrong name": (
        create(destination_headers={"X Key": SECRET}),
        InvalidHeader,
        "destination_headers",
        ("mend",),
    ),
    "header: twice": (
        create(destination_headers={"X-Key": SECRET, "x-key": SECRET}),
        InvalidHeader,
        "destination_headers.x-key",
        ("keep one",),
    ),
    "headers: a list": (create(destination_headers=[]), InvalidHeader, "destination_headers", ("list", "dict")),
    "headers: text": (create(destination_headers=SECRET), InvalidHeader, "destination_headers", ("str", "dict")),
    "headers: zero": (update(destination_headers=0), InvalidHeader, "destination_headers", ("int", "dict")),
    # The rest of a hook
    "namespace": (create(namespace="Acme Sync"), InvalidInput, "namespace", ("'Acme Sync'", "'acme-sync'")),
    "namespace: none": (create(namespace=None), InvalidInput, "namespace", ("None", "use one")),
    "namespace: in update": (update(namespace=""), InvalidInput, "namespace", ("''", "use one")),
    "payload_version": (create(payload_version="v5.0"), UnknownPayloadVersion, "payload_version", ("'v5.0'", "'v4.0'")),
    "payload_version: none": (create(payload_version=None), UnknownPayloadVersion, "payload_version", ("None", "use")),
    "payload_version: a list": (create(payload_version=[]), UnknownPayloadVersion, "payload_version", ("list", "use")),
    "signing_secret: short": (create(signing_secret=f"whsec_{SECRET}"), InvalidInput, "signing_secret", ("use",)),
    "signing_secret: not text": (create(signing_secret=Secret(SECRET)), InvalidInput, "signing_secret", ("use",)),
    "signing_secret: a number": (create(signing_secret=7), InvalidInput, "signing_secret", ("int", "use text")),
    "include_projects: no company": (
        create(include_projects=True),
        InvalidInput,
        "include_projects",
        ("True", "company_id"),
    ),
    "include_projects: a project": (
        create(include_projects=True, company_id=8, project_id=1),
        InvalidInput,
        "include_projects",
        ("True", "company hook only"),
    ),
    "include_projects: in update": (update(include_projects=True), InvalidInput, "include_projects", ("company_id",)),
    "include_projects: 1": (
        create(include_projects=1, company_id=8),
        InvalidInput,
        "include_projects",
        ("1", "True", "False"),
    ),
    "when_disabled": (create(when_disabled="forget"), InvalidInput, "when_disabled", ("'forget'", "'keep', 'drop'")),
    "max_in_flight: 0": (create(max_in_flight=0), InvalidInput, "max_in_flight", ("0", "1 to 1000")),
    "max_in_flight: True": (update(max_in_flight=True), InvalidInput, "max_in_flight", ("True", "1 to 1000")),
    "company_id: True": (create(company_id=True), InvalidInput, "company_id", ("True", "use a number")),
    "project_id: False": (create(project_id=False), InvalidInput, "project_id", ("False", "use a number")),
    "company_id: a float": (create(company_id=8.0), InvalidInput, "company_id", ("8.0", "use a number")),
    "company_id: empty": (create(company_id=""), InvalidInput, "company_id", ("''", "use a number")),
    # What update does not change
    "update: payload_version": (update(payload_version="v2.0"), InvalidInput, "payload_version", ("another hook",)),
    "update: status": (update(status="disabled"), InvalidInput, "status", ("enable()", "disable()")),
    "update: signing_secret": (update(signing_secret=SECRET), InvalidInput, "signing_secret", ("rotate_secret()",)),
    "update: unknown": (update(url=f"{URL}?{SECRET}"), InvalidInput, "url", ("destination_url",)),
    "update: id": (update(id=2), InvalidInput, "id", ("destination_url",)),
    # Verbs of hooks
    "disable: queued": (
        lambda registry, hook: registry.hooks.disable(hook, "forget"),  # type: ignore[arg-type]
        InvalidInput,
        "queued",
        ("'forget'", "'keep', 'drop'"),
    ),
    "rotate_secret: negative": (
        lambda registry, hook: registry.hooks.rotate_secret(hook, grace=timedelta(days=-1)),
        InvalidInput,
        "grace",
        ("-1 day", "365 days"),
    ),
    "rotate_secret: too long": (
        lambda registry, hook: registry.hooks.rotate_secret(hook, grace=timedelta(days=366)),
        InvalidInput,
        "grace",
        ("366 days", "365 days"),
    ),
    "rotate_secret: seconds": (
        lambda registry, hook: registry.hooks.rotate_secret(hook, grace=3600),  # type: ignore[arg-type]
        InvalidInput,
        "grace",
        ("3600", "timedelta"),
    ),
    "list: status": (
        lambda registry, hook: registry.hooks.list(status="on"),  # type: ignore[arg-type]
        InvalidInput,
        "status",
        ("'on'", "'active', 'disabled'"),
    ),
    # Ids
    "hook id: True": (lambda registry, hook: registry.hooks.get(True), InvalidInput, "hook_id", ("True", "`id`")),
    "hook id: text": (
        lambda registry, hook: registry.hooks.delete("1"),  # type: ignore[arg-type]
        InvalidInput,
        "hook_id",
        ("'1'", "`id`"),
    ),
    "hook id: check": (lambda registry, hook: registry.hooks.check(True), InvalidInput, "hook_id", ("True", "`id`")),
    "trigger id: True": (
        lambda registry, hook: registry.triggers.delete(True),
        InvalidInput,
        "trigger_id",
        ("True", "`id`"),
    ),
    "delivery id: True": (
        lambda registry, hook: registry.deliveries.get(True),
        InvalidInput,
        "delivery_id",
        ("True", "`id`"),
    ),
    # Triggers
    "trigger: resource": (
        lambda registry, hook: registry.triggers.create(hook, " RFIs", "update"),
        InvalidInput,
        "resource",
        ("' RFIs'", "'RFIs'"),
    ),
    "trigger: action": (
        lambda registry, hook: registry.triggers.create(hook, "RFIs", "Update"),
        InvalidInput,
        "action",
        ("'Update'", "use 'update'"),
    ),
    # Emit
    "resource: any": (emit(resource="*"), InvalidInput, "resource", ("'*'", "name one")),
    "resource: empty": (emit(resource=""), InvalidInput, "resource", ("''", "'RFIs'")),
    "resource: too long": (emit(resource="x" * 201), InvalidInput, "resource", ("201 characters", "200")),
    "resource: none": (emit(resource=None), InvalidInput, "resource", ("None", "'RFIs'")),
    "action: any": (emit(action="*"), InvalidInput, "action", ("'*'", "name one")),
    "action: upper case": (emit(action="UPDATE"), InvalidInput, "action", ("'UPDATE'", "'update'")),
    "action: a number": (emit(action=7), InvalidInput, "action", ("7", "'update'")),
    "payload: NaN": (emit(payload={"a": [float("nan")]}), InvalidPayload, "payload.a[0]", ("nan", "send None")),
    "payload: infinity": (emit(payload=float("-inf")), InvalidPayload, "payload", ("-inf", "send None")),
    "payload: a number as key": (emit(payload={1: SECRET}), InvalidPayload, "payload", ("int", "str(key)")),
    "payload: keys that merge": (emit(payload={1: 1, "1": 2}), InvalidPayload, "payload", ("int", "str(key)")),
    "payload: surrogate": (emit(payload=[f"{SECRET}\ud800"]), InvalidPayload, "payload[0]", ("surrogate", "decode")),
    "payload: naive datetime": (
        emit(payload={"at": NAIVE}),
        InvalidPayload,
        "payload.at",
        ("naive", "datetime.now(UTC)"),
    ),
    "payload: too deep": (emit(payload=nested(101)), InvalidPayload, "payload", ("100", "flatter")),
    "payload: within itself": (emit(payload=within_itself()), InvalidPayload, "payload", ("100", "flatter")),
    "payload: too large": (emit(payload=SECRET * 20_000), InvalidPayload, "payload", ("262,144", "send less")),
    "payload: bytes": (emit(payload={"a": SECRET.encode()}), InvalidPayload, "payload.a", ("bytes", "base64")),
    "payload: a set": (emit(payload={SECRET}), InvalidPayload, "payload", ("set", "sorted")),
    "payload: a Secret": (emit(payload={"a": Secret(SECRET)}), InvalidPayload, "payload.a", ("leave it out",)),
    "payload: an object": (emit(payload=object()), InvalidPayload, "payload", ("object", "convert")),
    "metadata": (emit(metadata=[1]), InvalidInput, "metadata", ("list", "dict")),
    "metadata: NaN": (emit(metadata={"a": float("nan")}), InvalidPayload, "metadata.a", ("nan", "send None")),
    "metadata: too large": (emit(metadata={"a": SECRET * 1000}), InvalidPayload, "metadata", ("16,384", "send less")),
    "related_resources": (emit(related_resources={"id": 1}), InvalidInput, "related_resources", ("dict", "'id'")),
    "related_resources: no name": (
        emit(related_resources=[{"id": 1}]),
        InvalidInput,
        "related_resources[0]",
        ("'name'", "use"),
    ),
    "occurred_at: naive": (emit(occurred_at=NAIVE), InvalidInput, "occurred_at", ("2025-01-01T00:00:00", "UTC")),
    "occurred_at: a date": (
        emit(occurred_at=date(2025, 1, 1)),
        InvalidInput,
        "occurred_at",
        ("2025-01-01", "datetime"),
    ),
    "idempotency_key: empty": (emit(idempotency_key=""), InvalidInput, "idempotency_key", ("''", "use one")),
    "idempotency_key: too long": (emit(idempotency_key="k" * 256), InvalidInput, "idempotency_key", ("256", "255")),
    "resource_id: True": (emit(resource_id=True), InvalidInput, "resource_id", ("True", "use a number")),
    "company_id: in emit": (emit(company_id=True), InvalidInput, "company_id", ("True", "use a number")),
    "project_id: in emit": (emit(project_id=1.5), InvalidInput, "project_id", ("1.5", "use a number")),
    "user_id: in emit": (emit(user_id=" 1"), InvalidInput, "user_id", ("' 1'", "use a number")),
    "connection: of nothing": (emit(connection=object()), InvalidInput, "connection", ("object",)),
    "emit_many: one is wrong": (
        lambda registry, hook: registry.emit_many([EventInput("RFIs", "update"), EventInput("RFIs", "*")]),
        InvalidInput,
        "action",
        ("'*'", "name one"),
    ),
    "explain: an id": (
        lambda registry, hook: registry.explain("RFIs", "update", company_id=True),
        InvalidInput,
        "company_id",
        ("True", "use a number"),
    ),
    # Lists
    "cursor: garbage": (deliveries(cursor="garbage"), InvalidCursor, "cursor", ("next_cursor",)),
    "cursor: a number": (deliveries(cursor=7), InvalidCursor, "cursor", ("int", "next_cursor")),
    "cursor: empty": (deliveries(cursor=""), InvalidCursor, "cursor", ("next_cursor",)),
    "cursor: of another list": (other_list, InvalidCursor, "cursor", ("hooks", "deliveries", "next_cursor")),
    "cursor: cut": (cut_cursor, InvalidCursor, "cursor", ("next_cursor",)),
    "page_size: 0": (deliveries(page_size=0), InvalidInput, "page_size", ("0", "1 to 1000")),
    "page_size: 10,000": (deliveries(page_size=10_000), InvalidInput, "page_size", ("10000", "1 to 1000")),
    "page_size: of hooks": (
        lambda registry, hook: registry.hooks.list(page_size=1001),
        InvalidInput,
        "page_size",
        ("1001", "1 to 1000"),
    ),
    "page_size: of triggers": (
        lambda registry, hook: registry.triggers.list(hook, page_size=True),
        InvalidInput,
        "page_size",
        ("True", "1 to 1000"),
    ),
    "status": (deliveries(status="successful"), InvalidInput, "status", ("'successful'", "'delivered'")),
    "status: one of several": (deliveries(status=["failed", 7]), InvalidInput, "status", ("7", "'delivered'")),
    "only_failures": (deliveries(only_failures="no"), InvalidInput, "only_failures", ("'no'", "True")),
    "resource: in a list": (deliveries(resource="*"), InvalidInput, "resource", ("'*'", "name one")),
    "resource_id: in a list": (deliveries(resource_id=True), InvalidInput, "resource_id", ("True", "use")),
    "start: naive": (deliveries(start=NAIVE), InvalidInput, "start", ("2025-01-01T00:00:00", "UTC")),
    "end: naive": (deliveries(end=NAIVE), InvalidInput, "end", ("2025-01-01T00:00:00", "UTC")),
    "end: naive, and nothing can fit": (
        deliveries(end=NAIVE, only_failures=True, status="delivered"),
        InvalidInput,
        "end",
        ("2025-01-01T00:00:00", "UTC"),
    ),
    "iter: naive": (
        lambda registry, hook: next(registry.deliveries.iter(start=NAIVE)),
        InvalidInput,
        "start",
        ("2025-01-01T00:00:00", "UTC"),
    ),
    "since: naive": (
        lambda registry, hook: registry.deliveries.recover(hook, since=NAIVE),
        InvalidInput,
        "since",
        ("2025-01-01T00:00:00", "UTC"),
    ),
    "until: naive": (
        lambda registry, hook: registry.deliveries.recover(hook, since=AWARE, until=NAIVE),
        InvalidInput,
        "until",
        ("2025-01-01T00:00:00", "UTC"),
    ),
    "before: naive": (
        lambda registry, hook: registry.deliveries.prune(before=NAIVE),
        InvalidInput,
        "before",
        ("2025-01-01T00:00:00", "UTC"),
    ),
    "since: naive, of stats": (
        lambda registry, hook: registry.deliveries.stats(since=NAIVE),
        InvalidInput,
        "since",
        ("2025-01-01T00:00:00", "UTC"),
    ),
}


def stored(registry: HookRegistry) -> list[object]:
    hooks = registry.hooks.list(page_size=1000).items
    triggers = [trigger for hook in hooks for trigger in registry.triggers.list(hook.id)]
    return [*hooks, *triggers, *registry.deliveries.list(page_size=1000)]


@pytest.fixture
def hook(listening: Callable[..., Hook]) -> Hook:
    """A hook that would get any event, and a second one, so that lists have a second page."""
    hook = listening(("*", "*"))
    listening()
    return hook


@pytest.mark.parametrize("case", TABLE)
def test_bad_input(registry: HookRegistry, hook: Hook, case: str) -> None:
    """The error is of its type and a ValueError, says all on one line and no secret, and nothing has changed."""
    call, kind, field, words = TABLE[case]
    registry.emit("RFIs", "update")
    before = stored(registry)
    with pytest.raises(kind) as caught:
        call(registry, hook.id)
    error = caught.value
    assert type(error) is kind
    assert isinstance(error, InvalidInput)
    assert isinstance(error, ValueError)
    assert error.field == field
    text = str(error)
    assert "\n" not in text
    assert len(text) < 500
    for word in words:
        assert word in text
    for shown in (text, repr(error), *map(str, error.args)):
        assert SECRET not in shown
    assert stored(registry) == before


@pytest.mark.parametrize(
    "verb",
    [
        lambda registry: registry.hooks.get(99),
        lambda registry: registry.hooks.update(99, namespace="acme"),
        lambda registry: registry.hooks.delete(99),
        lambda registry: registry.hooks.enable(99),
        lambda registry: registry.hooks.disable(99),
        lambda registry: registry.hooks.disable(99, "drop"),
        lambda registry: registry.hooks.ping(99),
        lambda registry: registry.hooks.rotate_secret(99),
        lambda registry: registry.hooks.check(99),
        lambda registry: registry.triggers.create(99, "RFIs", "update"),
        lambda registry: registry.triggers.list(99),
        lambda registry: registry.triggers.replace(99, {}),
        lambda registry: registry.deliveries.list(99),
        lambda registry: registry.deliveries.recover(99, since=AWARE),
        lambda registry: registry.deliveries.stats(99, since=AWARE),
    ],
    ids=range(15),
)
def test_unknown_hook(registry: HookRegistry, hook: Hook, verb: Callable[[HookRegistry], object]) -> None:
    """Every verb that takes a hook raises `NotFound`, which is a LookupError and names the kind and the id."""
    before = stored(registry)
    with pytest.raises(NotFound, match=r"^there is no hook with id 99$") as caught:
        verb(registry)
    assert isinstance(caught.value, LookupError)
    assert stored(registry) == before


@pytest.mark.parametrize("id", [0, -1, 2**63, 2**200])
def test_a_number_that_no_id_can_have(registry: HookRegistry, id: int) -> None:
    """Not found, rather than an error of the driver."""
    for get in (registry.hooks.get, registry.deliveries.get, registry.triggers.delete):
        with pytest.raises(NotFound):
            get(id)


def test_a_resource_that_the_catalogue_does_not_know(storage: Storage, clock: ManualClock) -> None:
    """With Procore's catalogue, the nearest names and the supported actions are in the error."""
    with HookRegistry(storage, resources=PROCORE, clock=clock) as registry:
        hook = registry.hooks.create(URL, namespace="acme")
        registry.triggers.create(hook.id, "*", "*")
        for call in (
            lambda: registry.emit("RFI", "update"),
            lambda: registry.explain("RFI", "update"),
            lambda: registry.triggers.create(hook.id, "RFI", "*"),
            lambda: registry.triggers.replace(hook.id, {"RFI": ["update"]}),
        ):
            with pytest.raises(UnknownResource, match=r"^resource: 'RFI' .*did you mean 'RFIs'"):
                call()
        with pytest.raises(UnsupportedAction, match=r"^action: 'close' .*'create', 'update' or 'delete'"):
            registry.emit("RFIs", "close")
        assert registry.deliveries.list().items == ()
        assert len(registry.triggers.list(hook.id)) == 1


@pytest.mark.parametrize(
    ("arguments", "field", "word"),
    [
        ({"payload_formats": {"v4.0": print}}, "payload_formats", "'v4.0'"),
        ({"payload_formats": {"standard": print}}, "payload_formats", "'standard'"),
        ({"payload_formats": {"": print}}, "payload_formats", "''"),
        ({"payload_formats": {7: print}}, "payload_formats", "7"),
        ({"payload_formats": {"own": "text"}}, "payload_formats", "'own'"),
        ({"payload_formats": [print]}, "payload_formats", "list"),
        ({"payload_formats": ()}, "payload_formats", "tuple"),
        ({"max_payload_bytes": 0}, "max_payload_bytes", "0"),
        ({"max_payload_bytes": 20 * 1024 * 1024 + 1}, "max_payload_bytes", "20971521"),
        ({"max_payload_bytes": True}, "max_payload_bytes", "True"),
        ({"max_payload_bytes": 1.5}, "max_payload_bytes", "1.5"),
        ({"max_payload_bytes": "1"}, "max_payload_bytes", "'1'"),
    ],
    ids=str,
)
def test_a_registry_that_cannot_be(arguments: dict[str, Any], field: str, word: str) -> None:
    """An own format never shadows a built-in one, and the limit is a whole number of bytes up to 20 MiB."""
    with pytest.raises(InvalidInput) as caught:
        HookRegistry(**arguments)
    assert caught.value.field == field
    assert word in str(caught.value)
    assert ": " in caught.value.problem
