"""Bad input about triggers, events and lists, in one table, unknown hooks, and registries that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from procore_hooks import (
    PROCORE,
    EventInput,
    HookRegistry,
    InvalidCursor,
    InvalidInput,
    InvalidPayload,
    NotFound,
    Secret,
    Storage,
    UnknownResource,
    UnsupportedAction,
)
from procore_hooks.testing import ManualClock

Call = Callable[[HookRegistry, int], object]
# Wherever a value may be a secret, or hold one, this is in it; the fixture `refused` looks for it.
SECRET = "hunter2-hunter2-hunter2"
NAIVE = datetime(2025, 1, 1)
AWARE = datetime(2025, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
DEEP = "payload" + "[0]" * 100
URL = "https://hooks.acme.example/in"


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
    "payload: too deep": (emit(payload=nested(101)), InvalidPayload, DEEP, ("100", "flatter")),
    "payload: within itself": (
        emit(payload=within_itself()),
        InvalidPayload,
        DEEP,
        ("100", "flatter"),
    ),
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
    "bucket: not a length of time": (
        lambda registry, hook: registry.deliveries.stats(since=AWARE, bucket=900),
        InvalidInput,
        "bucket",
        ("900", "timedelta(minutes=15)"),
    ),
    "bucket: backwards": (
        lambda registry, hook: registry.deliveries.stats(since=AWARE, bucket=timedelta(minutes=-15)),
        InvalidInput,
        "bucket",
        ("-1 day, 23:45:00", "above zero"),
    ),
    "bucket: too many": (
        lambda registry, hook: registry.deliveries.stats(since=LONG_AGO, bucket=timedelta(minutes=1)),
        InvalidInput,
        "bucket",
        ("0:01:00", "1970-01-01T00:00:00", "at most 5,000"),
    ),
    "since: naive, of stats": (
        lambda registry, hook: registry.deliveries.stats(since=NAIVE),
        InvalidInput,
        "since",
        ("2025-01-01T00:00:00", "UTC"),
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_bad_input(refused: Callable[..., None], case: str) -> None:
    """The typed error with field, value and fix; one line, no secret; nothing has changed."""
    refused(*TABLE[case])


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
def test_unknown_hook(registry: HookRegistry, verb: Callable[[HookRegistry], object]) -> None:
    """Every verb that takes a hook raises `NotFound`, which is a LookupError and names the kind and the id."""
    with pytest.raises(NotFound, match=r"^there is no hook with id 99$") as caught:
        verb(registry)
    assert isinstance(caught.value, LookupError)
    assert len(registry.hooks.list()) == len(registry.deliveries.list()) == 0


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
