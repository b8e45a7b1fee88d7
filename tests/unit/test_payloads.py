"""The four built-in bodies, byte for byte, and an app's own formats."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from procore_hooks._core.frozen import FrozenDict
from procore_hooks._core.json_strict import serialise
from procore_hooks._core.models import Event
from procore_hooks._core.payloads import BUILT_IN, check_version, render
from procore_hooks.exceptions import InvalidPayload, UnknownPayloadVersion

FULL = Event(
    id=9007199254740993,
    ulid="01JKEKQ8CP5A0PYQ0V5M4WHJ3C",
    resource="RFIs",
    action="update",
    resource_id="54321",
    company_id="8",
    project_id="6778",
    user_id="42",
    occurred_at=datetime(2025, 2, 6, 23, 34, 12, 246562, tzinfo=UTC),
    payload_json='{"subject":"Tür 12","big":12345678901234567890.0e0}'.encode(),
    metadata=FrozenDict({"source_application_id": "app-1", "trace": [1, {"a": None}]}),
    related_resources=(FrozenDict({"id": "7", "name": "Drawings"}), FrozenDict({"name": "Photos", "id": "x"})),
)
BARE = Event(
    id=1,
    ulid="01JKEKQ8CP5A0PYQ0V5M4WHJ3C",
    resource="Company Vendors",
    action="create",
    occurred_at=datetime(2025, 2, 6, tzinfo=UTC),
)

V2_FULL = (
    '{"id":9007199254740993,"ulid":"01JKEKQ8CP5A0PYQ0V5M4WHJ3C","timestamp":"2025-02-06T23:34:12.246562Z",'
    '"metadata":{"source_user_id":42,"source_project_id":6778,"source_operation_id":null,"source_company_id":8,'
    '"source_application_id":"app-1","trace":[1,{"a":null}]},"user_id":42,"company_id":8,"project_id":6778,'
    '"api_version":"v2.0","event_type":"update","resource_name":"RFIs","resource_id":54321}'
)
V2_BARE = (
    '{"id":1,"ulid":"01JKEKQ8CP5A0PYQ0V5M4WHJ3C","timestamp":"2025-02-06T00:00:00.000000Z",'
    '"metadata":{"source_user_id":null,"source_project_id":null,"source_operation_id":null,"source_company_id":null,'
    '"source_application_id":null},"user_id":null,"company_id":null,"project_id":null,'
    '"api_version":"v2.0","event_type":"create","resource_name":"Company Vendors","resource_id":null}'
)
GOLDEN = [
    ("v2.0", FULL, V2_FULL),
    ("v2.0", BARE, V2_BARE),
    (
        "v3.0",
        FULL,
        V2_FULL.replace("v2.0", "v3.0")[:-1]
        + ',"related_resources":[{"id":7,"name":"Drawings"},{"name":"Photos","id":"x"}]}',
    ),
    ("v3.0", BARE, V2_BARE.replace("v2.0", "v3.0")[:-1] + ',"related_resources":[]}'),
    (
        "v4.0",
        FULL,
        '{"id":"01JKEKQ8CP5A0PYQ0V5M4WHJ3C","timestamp":"2025-02-06T23:34:12.246562Z","reason":"update",'
        '"company_id":"8","project_id":"6778","user_id":"42","resource_type":"RFIs","resource_id":"54321",'
        '"payload_version":"v4.0","data":{"subject":"Tür 12","big":12345678901234567890.0e0},'
        '"metadata":{"source_application_id":"app-1","trace":[1,{"a":null}]},'
        '"related_resources":[{"id":"7","name":"Drawings"},{"name":"Photos","id":"x"}]}',
    ),
    (
        "v4.0",
        BARE,
        '{"id":"01JKEKQ8CP5A0PYQ0V5M4WHJ3C","timestamp":"2025-02-06T00:00:00.000000Z","reason":"create",'
        '"company_id":"","project_id":"","user_id":"","resource_type":"Company Vendors","resource_id":"",'
        '"payload_version":"v4.0"}',
    ),
    (
        "standard",
        FULL,
        '{"type":"RFIs.update","timestamp":"2025-02-06T23:34:12.246562Z",'
        '"data":{"subject":"Tür 12","big":12345678901234567890.0e0}}',
    ),
    (
        "standard",
        BARE,
        '{"type":"Company Vendors.create","timestamp":"2025-02-06T00:00:00.000000Z","data":{}}',
    ),
]


@pytest.mark.parametrize(("version", "event", "golden"), GOLDEN)
def test_built_in_bodies_byte_for_byte(version: str, event: Event, golden: str) -> None:
    """Each format is exactly what is documented, on each rendering; the payload goes in as it was serialised."""
    assert render(version, event, {}) == golden.encode()
    assert BUILT_IN[version](event) == render(version, event, {})
    json.loads(golden)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-5", -5),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", None),
        ("12345678901234567890123", None),
        ("007", None),
        ("-0", None),
        ("+1", None),
        ("1.0", None),
        ("1_000", None),
        (" 1", None),
        ("1\n", None),
        ("۱۲", None),
        ("A-42", None),
    ],
)
@pytest.mark.parametrize("version", ["v2.0", "v3.0"])
def test_ids_are_integers_only_where_nothing_is_lost(version: str, text: str, number: int | None) -> None:
    """An id whose text is not exactly that of a 64-bit integer stays text, everywhere in the body."""
    event = attrs.evolve(BARE, resource_id=text, company_id=text, project_id=text, user_id=text)
    body = json.loads(render(version, event, {}))
    ids = [body[name] for name in ("resource_id", "company_id", "project_id", "user_id")]
    ids += [body["metadata"][f"source_{name}_id"] for name in ("company", "project", "user")]
    assert ids == [text if number is None else number] * 7
    assert [type(one) for one in ids] == [str if number is None else int] * 7


def test_v4_sends_all_ids_as_text() -> None:
    """Also the ids of related resources, whatever they were stored as."""
    event = attrs.evolve(FULL, related_resources=(FrozenDict({"id": 7, "name": "Drawings"}),))
    assert json.loads(render("v4.0", event, {}))["related_resources"] == [{"id": "7", "name": "Drawings"}]


@pytest.mark.parametrize("payload", [False, 0, "", [], {}, "null"])
def test_a_falsy_payload_is_still_data(payload: object) -> None:
    """Only a null payload is left out."""
    event = attrs.evolve(BARE, payload_json=serialise(payload))
    assert json.loads(render("v4.0", event, {}))["data"] == payload
    assert json.loads(render("standard", event, {}))["data"] == payload


def test_an_apps_bytes_are_sent_as_they_are() -> None:
    """A format may return any bytes, JSON or not."""
    assert render("mine", FULL, {"mine": lambda event: b"\xff" + event.ulid.encode()}) == b"\xff" + FULL.ulid.encode()


def test_an_apps_value_is_serialised_strictly() -> None:
    """A JSON value of up to 20 MiB will do; what is wrong with one is named under the format's own name."""
    own: dict[str, Any] = {
        "mine": lambda event: {"at": event.occurred_at, "payload": event.payload},
        "large": lambda event: "x" * 1_000_000,
        "broken": lambda event: {"lines": [float("nan")]},
    }
    assert render("mine", BARE, own) == b'{"at":"2025-02-06T00:00:00.000000Z","payload":null}'
    assert len(render("large", BARE, own)) == 1_000_002
    with pytest.raises(InvalidPayload) as caught:
        render("broken", BARE, own)
    assert caught.value.field == "broken.lines[0]"


def test_an_apps_own_format_does_not_replace_a_built_in_one() -> None:
    """A built-in name keeps its meaning."""
    assert render("v2.0", FULL, {"v2.0": lambda event: b"mine"}) == V2_FULL.encode()


@pytest.mark.parametrize("version", ["v5.0", "", "V4.0", None, 4, ["v4.0"]])
def test_unknown_versions_are_named_with_the_known_ones(version: Any) -> None:
    """The error lists what may be used, the app's own formats included."""
    own = {"mine": lambda event: b""}
    with pytest.raises(UnknownPayloadVersion) as caught:
        check_version(version, own)
    assert str(caught.value).endswith("use one of 'v2.0', 'v3.0', 'v4.0', 'standard', 'mine'")
    assert check_version("mine", own) == "mine"
    assert check_version("v4.0", {}) == "v4.0"


def test_render_refuses_an_unknown_version() -> None:
    """As check_version does."""
    with pytest.raises(UnknownPayloadVersion, match=r"'v9' is not known: use one of 'v2.0'"):
        render("v9", FULL, {})


@pytest.mark.parametrize("version", sorted(BUILT_IN))
def test_text_that_others_stored_and_no_receiver_decodes_is_named(version: str) -> None:
    """Half a surrogate pair in an event's own text is refused with its place, in every format."""
    with pytest.raises(InvalidPayload) as caught:
        render(version, attrs.evolve(FULL, resource="R\ud800", action="u\ud800"), {})
    assert caught.value.field.startswith("event")
