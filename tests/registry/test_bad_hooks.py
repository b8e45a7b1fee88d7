"""Bad input about hooks, in one table: the typed error with field, value and fix, and nothing stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from procore_hooks import (
    HookRegistry,
    InvalidDestination,
    InvalidHeader,
    InvalidInput,
    Secret,
    UnknownPayloadVersion,
)

Call = Callable[[HookRegistry, int], object]
# Wherever a value may be a secret, or hold one, this is in it; the fixture `refused` looks for it.
SECRET = "hunter2-hunter2-hunter2"
URL = "https://hooks.acme.example/in"


def create(**fields: Any) -> Call:
    given = {"destination_url": URL, "namespace": "acme", **fields}
    return lambda registry, hook: registry.hooks.create(**given)


def update(**changes: Any) -> Call:
    return lambda registry, hook: registry.hooks.update(hook, **changes)


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
}


@pytest.mark.parametrize("case", TABLE)
def test_bad_input(refused: Callable[..., None], case: str) -> None:
    """The typed error with field, value and fix; one line, no secret; nothing has changed."""
    refused(*TABLE[case])
