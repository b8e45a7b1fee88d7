"""What people fill in: read from a request, turned into what the registry takes, and errors put beside fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import attrs

from procore_hooks import DeliveryStatus, Hook, InvalidInput, Secret

__all__ = [
    "EndpointForm",
    "Filters",
    "Form",
    "field_of",
    "masked_credential",
    "other_headers",
    "read_form",
    "read_number",
]

Form = Mapping[str, str]

_MOST_FIELDS: Final = 100
_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_STATUSES: Final[tuple[DeliveryStatus, ...]] = ("enqueued", "retrying", "delivered", "failed", "discarded")
_AUTHORIZATION: Final = "Authorization"
# Where an error of the registry has another name for the field than the form.
_FIELDS: Final = {"destination_url": "url", "destination_headers": "authorization"}


def read_form(body: bytes) -> Form:
    """The fields of a urlencoded body; of a name that comes twice, the last. Raises `InvalidInput` for another body."""
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS, separator="&"
        )
    except ValueError:
        raise InvalidInput("body", "it is not a form in UTF-8 with at most 100 fields: send one") from None
    return dict(pairs)


def read_number(text: str | None) -> int | None:
    """A number in plain digits, as ids are; None for anything else."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def field_of(error: InvalidInput) -> str:
    """The name of the form's field that `error` is about."""
    field = error.field.partition(".")[0]
    return _FIELDS.get(field, field)


def masked_credential(hook: Hook) -> str | None:
    """The hook's Authorization header as Procore shows it, stars and the last five characters; None without one.

    A credential too short to show the end of is stars only.
    """
    _, value = _authorization(hook)
    if value is None:
        return None
    text = value.reveal()
    credential = re.split(r"[\s,;:=\"']+", text.rstrip("=\"' \t"))[-1]
    return f"{Secret(text)}{text[-5:]}" if len(credential) >= 10 else str(Secret(text))


def other_headers(hook: Hook) -> list[str]:
    """The names of the headers that the page does not change."""
    return [name for name in hook.destination_headers if name.lower() != _AUTHORIZATION.lower()]


def _authorization(hook: Hook) -> tuple[str, Secret | None]:
    """The name of the hook's Authorization header as it is written there, and its value."""
    for name, value in hook.destination_headers.items():
        if name.lower() == _AUTHORIZATION.lower():
            return name, value
    return _AUTHORIZATION, None


@attrs.frozen(kw_only=True)
class EndpointForm:
    """The form of an endpoint, as it was typed.

    Attributes:
        authorization: empty to keep what is there, if anything.
        remove_authorization: send none any more.
        version: of the endpoint that the form was filled from.
        namespace, payload_version, include_projects: of a new hook only.
    """

    url: str = ""
    authorization: str = attrs.field(default="", repr=False)
    remove_authorization: bool = False
    version: str = ""
    namespace: str = "default"
    payload_version: str = "v4.0"
    include_projects: bool = False

    @classmethod
    def typed(cls, form: Form) -> EndpointForm:
        """What was typed; spaces around a value, which come with a paste, are taken away."""
        return cls(
            url=form.get("url", "").strip(),
            authorization=form.get("authorization", "").strip(),
            remove_authorization="remove_authorization" in form,
            version=form.get("version", ""),
            namespace=form.get("namespace", "").strip(),
            payload_version=form.get("payload_version", "v4.0"),
            include_projects="include_projects" in form,
        )

    def for_new_hook(self) -> dict[str, Any]:
        """The keywords of `hooks.create`."""
        return {
            "namespace": self.namespace,
            "payload_version": self.payload_version,
            "include_projects": self.include_projects,
            "destination_headers": {_AUTHORIZATION: self.authorization} if self.authorization else {},
        }

    def changes(self, hook: Hook) -> dict[str, Any]:
        """The keywords of `hooks.update` that make `hook` what was typed; headers of other names stay."""
        changes: dict[str, Any] = {}
        if self.url != hook.destination_url:
            changes["destination_url"] = self.url
        name, saved = _authorization(hook)
        others = {each: value for each, value in hook.destination_headers.items() if each != name}
        if self.remove_authorization and saved is not None:
            changes["destination_headers"] = others
        elif not self.remove_authorization and self.authorization and saved != Secret(self.authorization):
            changes["destination_headers"] = {**others, name: self.authorization}
        return changes


@attrs.frozen(kw_only=True)
class Filters:
    """Which deliveries a list shows."""

    only_failures: bool = False
    status: DeliveryStatus | None = None
    resource: str = ""
    resource_id: str = ""

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Filters:
        """The filters in an address; a status that there is not is left out."""
        status: DeliveryStatus | None = next((one for one in _STATUSES if one == query.get("status")), None)
        return cls(
            only_failures=query.get("only_failures") == "1",
            status=status,
            resource=query.get("resource", "").strip(),
            resource_id=query.get("resource_id", "").strip(),
        )

    @property
    def query(self) -> dict[str, str]:
        """The filters for an address; those that are not set are left out."""
        query = {"status": self.status or "", "resource": self.resource, "resource_id": self.resource_id}
        return {
            **({"only_failures": "1"} if self.only_failures else {}),
            **{name: value for name, value in query.items() if value},
        }

    @property
    def for_list(self) -> dict[str, Any]:
        """The keywords of `deliveries.list`."""
        return {
            "only_failures": self.only_failures,
            "status": self.status,
            "resource": self.resource or None,
            "resource_id": self.resource_id or None,
        }

    @property
    def narrowed(self) -> bool:
        """Whether more than the failures are asked for."""
        return bool(self.status or self.resource or self.resource_id)
