"""`registry.hooks`: who wants to hear, and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import attrs

from ._core.checks import (
    check_choice,
    check_id,
    check_max_in_flight,
    check_namespace,
    check_page_size,
    check_row_id,
    check_switch,
    shown,
)
from ._core.cursors import after_cursor, page_of
from ._core.headers import check_headers
from ._core.models import Delivery, EndpointReport, Hook, HookStatus, Page, PreviousSecret, Timeouts, WhenDisabled
from ._core.payloads import check_version
from ._core.secret import Secret
from ._core.signing import check_secret
from ._event_ids import until_ids_are_free
from ._signing_secrets import another_of_its_kind, random_secret
from .exceptions import Conflict, InvalidInput
from .storage._base import HookQuery

if TYPE_CHECKING:
    import httpx

    from ._registry import HookRegistry

__all__ = ["Hooks"]

_MOST_PREVIOUS_SECRETS = 10
_LONGEST_GRACE = timedelta(days=365)
_SCOPE = ("company_id", "project_id", "include_projects")
_CHANGEABLE = ("destination_url", "destination_headers", "namespace", *_SCOPE, "when_disabled", "max_in_flight")
_DELETED = "the hook was deleted"
_DROPPED = "the hook was disabled and its queue dropped"


class Hooks:
    """The hooks of a registry."""

    def __init__(self, registry: HookRegistry) -> None:
        self._registry = registry
        self._storage = registry.storage

    def create(
        self,
        destination_url: str,
        *,
        namespace: str,
        destination_headers: Mapping[str, str | Secret] | None = None,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
        include_projects: bool = False,
        when_disabled: WhenDisabled = "keep",
        payload_version: str = "v4.0",
        max_in_flight: int = 1,
        signing_secret: str | Secret | None = None,
    ) -> Hook:
        """Store a hook. It hears nothing until it has triggers.

        Args:
            destination_url: where its deliveries are POSTed to.
            namespace: the integration that it belongs to: ``a-z``, ``0-9`` and ``-``.
            destination_headers: sent with each POST, such as ``{"Authorization": "Bearer ..."}``.
            company_id, project_id: its scope; with neither it hears everything.
            include_projects: a company hook hears its projects' events too.
            when_disabled: what happens to new events while it is disabled: ``"keep"`` or ``"drop"``.
            payload_version: ``"v2.0"``, ``"v3.0"``, ``"v4.0"``, ``"standard"``, or one of the app's own formats.
            max_in_flight: how many deliveries may be under way at once; 1 keeps them in order.
            signing_secret: ``whsec_`` and base64 of 24 to 64 bytes, or an ed25519 private key, ``whsk_`` and base64,
                such as `generate_ed25519_secret` makes; a ``whsec_`` is made at random if left out.

        Raises:
            InvalidInput: a value is wrong, or a ``whsk_`` was given and the extra ``crypto`` is missing; nothing was
                stored.
        """
        now = self._registry.clock.now()
        hook = Hook(
            id=0,
            created_at=now,
            updated_at=now,
            signing_secret=random_secret() if signing_secret is None else check_secret(signing_secret),
            payload_version=check_version(payload_version, self._registry.payload_formats),
            **self._checked(
                {
                    "destination_url": destination_url,
                    "namespace": namespace,
                    "destination_headers": destination_headers,
                    "company_id": company_id,
                    "project_id": project_id,
                    "include_projects": include_projects,
                    "when_disabled": when_disabled,
                    "max_in_flight": max_in_flight,
                }
            ),
        )
        _check_scope(hook.company_id, hook.project_id, hook.include_projects)
        return self._storage.add_hook(hook)

    def _checked(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The values, each checked by the rule of its field."""
        rules: dict[str, Callable[[Any], Any]] = {
            "destination_url": self._check_url,
            "namespace": check_namespace,
            "destination_headers": lambda headers: check_headers({} if headers is None else headers),
            "company_id": lambda value: check_id("company_id", value),
            "project_id": lambda value: check_id("project_id", value),
            "include_projects": lambda value: check_switch("include_projects", value),
            "when_disabled": lambda value: check_choice("when_disabled", value, ("keep", "drop")),
            "max_in_flight": check_max_in_flight,
        }
        return {name: rules[name](value) for name, value in changes.items()}

    def _check_url(self, url: str) -> str:
        self._registry.destinations.check(url)
        return url

    def get(self, hook_id: int) -> Hook:
        """The hook. Raises `NotFound`."""
        return self._storage.get_hook(check_row_id("hook", hook_id))

    def list(
        self,
        *,
        namespace: str | None = None,
        company_id: int | str | None = None,
        project_id: int | str | None = None,
        status: HookStatus | None = None,
        page_size: int = 25,
        cursor: str | None = None,
    ) -> Page[Hook]:
        """The hooks that fit, oldest first.

        Args:
            namespace, company_id, project_id, status: only hooks with exactly this; None means any.
            page_size: 1 to 1000.
            cursor: `next_cursor` of the page before.
        """
        size = check_page_size(page_size)
        query = HookQuery(
            namespace=None if namespace is None else check_namespace(namespace),
            company_id=check_id("company_id", company_id),
            project_id=check_id("project_id", project_id),
            status=None if status is None else check_choice("status", status, ("active", "disabled")),
            after=after_cursor("hooks", cursor) or 0,
            limit=size + 1,
        )
        return page_of("hooks", self._storage.list_hooks(query), size)

    def update(self, hook_id: int, *, if_unchanged: Hook | None = None, **changes: Any) -> Hook:
        """Change a hook; its next attempt goes by the new values.

        Args:
            if_unchanged: the hook as it was read; if anything of it was changed since, this changes nothing. That its
                deliveries failed or succeeded meanwhile is no change of it.
            changes: any of `destination_url`, `destination_headers` (all of them anew), `namespace`, `company_id`,
                `project_id`, `include_projects`, `when_disabled`, `max_in_flight`. Only what is given changes.

        Raises:
            NotFound: there is no such hook.
            Conflict: the hook is no longer as in `if_unchanged`; nothing was stored.
            InvalidInput: a value is wrong, or the field does not change this way; nothing was stored.
        """
        advice = {
            "payload_version": "it is fixed once the hook exists; create another hook",
            "status": "use enable() and disable()",
            "signing_secret": "use rotate_secret()",
        }
        fields = ", ".join(_CHANGEABLE)
        for name in changes:
            if name not in _CHANGEABLE:
                raise InvalidInput(name, advice.get(name, f"a hook has no such field to change: use one of {fields}"))
        checked = self._checked(changes)

        def fitting(hook: Hook) -> Mapping[str, Any]:
            if if_unchanged is not None and _settings(hook) != _settings(if_unchanged):
                raise Conflict(f"hook {hook.id} was changed meanwhile: read it again, and decide anew")
            _check_scope(**{name: checked.get(name, getattr(hook, name)) for name in _SCOPE})
            return checked

        return self._storage.update_hook(check_row_id("hook", hook_id), fitting, self._registry.clock.now())

    def delete(self, hook_id: int) -> None:
        """Delete a hook with its triggers and secrets, discard what waits for it, keep its history.

        Raises:
            NotFound: there is no such hook.
        """
        self._storage.delete_hook(check_row_id("hook", hook_id), self._registry.clock.now(), _DELETED)

    def enable(self, hook_id: int) -> Hook:
        """Make a hook active, and try at once: its failures and its pause are forgotten. Raises `NotFound`."""
        return self._storage.enable_hook(check_row_id("hook", hook_id), self._registry.clock.now())

    def disable(self, hook_id: int, queued: Literal["keep", "drop"] = "keep") -> Hook:
        """Stop delivering to a hook. Raises `NotFound`.

        Args:
            queued: whether what waits now is kept, to flow after `enable`, or discarded. For new events it is the
                hook's `when_disabled` that says so.
        """
        check_choice("queued", queued, ("keep", "drop"))
        reason = _DROPPED if queued == "drop" else None
        return self._storage.disable_hook(check_row_id("hook", hook_id), self._registry.clock.now(), reason)

    def check(
        self,
        url_or_id: str | int,
        *,
        timeouts: Timeouts | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> EndpointReport:
        """Try an endpoint: its name, address, connection, TLS, and whether it takes a POST of a test event.

        Args:
            url_or_id: a URL, or the id of a hook, whose headers and signature are then sent too.
            timeouts: how long it may take.
            transport: tries through this one and not through the library's own.

        Raises:
            NotFound: there is no such hook.
        """
        # Here and below: what sends takes longer to import than all that an app needs in order to emit.
        from ._checking import run_apart

        return run_apart(self.check_async(url_or_id, timeouts=timeouts, transport=transport))

    async def check_async(
        self,
        url_or_id: str | int,
        *,
        timeouts: Timeouts | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> EndpointReport:
        """The same as `check`, in the caller's loop."""
        from ._checking import check_hook

        def get() -> Hook:
            return self._unsaved(url_or_id) if isinstance(url_or_id, str) else self.get(url_or_id)

        return await check_hook(self._registry, get, timeouts or Timeouts(), transport)

    def _unsaved(self, url: str) -> Hook:
        now = self._registry.clock.now()
        return Hook(
            id=0,
            namespace="check",
            destination_url=url,
            signing_secret=random_secret(),
            created_at=now,
            updated_at=now,
        )

    def ping(self, hook_id: int) -> Delivery:
        """Deliver a test event, ahead of all that waits; a paused hook is tried at once. It is in the history.

        Raises:
            NotFound: there is no such hook.
            Conflict: the hook is disabled.
        """
        hook = self.get(hook_id)
        now = self._registry.clock.now()
        return until_ids_are_free(now, lambda: self._storage.add_ping(hook.id, self._registry.ping_event(hook), now))

    def rotate_secret(self, hook_id: int, *, grace: timedelta = timedelta(hours=24)) -> Hook:
        """Give a hook a new signing secret of the same kind. The old one signs too, beside it, for `grace`.

        At most ten old ones are kept: with an eleventh the oldest signs no more, however long its grace.

        Raises:
            NotFound: there is no such hook.
            InvalidInput: `grace` is negative or longer than a year, or the hook has an ed25519 key and the extra
                ``crypto`` is missing; nothing was stored.
        """
        if not isinstance(grace, timedelta) or not timedelta(0) <= grace <= _LONGEST_GRACE:
            raise InvalidInput("grace", f"{_span(grace)} is not a timedelta between 0 and 365 days: use one")
        now = self._registry.clock.now()

        def rotated(hook: Hook) -> Mapping[str, Any]:
            old = PreviousSecret(secret=hook.signing_secret, expires_at=now + grace)
            still = [one for one in (old, *hook.previous_secrets) if one.expires_at > now]
            return {
                "signing_secret": another_of_its_kind(hook.signing_secret),
                "previous_secrets": tuple(still[:_MOST_PREVIOUS_SECRETS]),
            }

        return self._storage.update_hook(check_row_id("hook", hook_id), rotated, now)


def _settings(hook: Hook) -> Hook:
    """What was set of a hook, without what its deliveries make of it."""
    return attrs.evolve(hook, failing_since=None, paused_until=None)


def _span(value: object) -> str:
    return str(value) if isinstance(value, timedelta) else shown(value)


def _check_scope(company_id: str | None, project_id: str | None, include_projects: bool) -> None:
    if include_projects and project_id is not None:
        raise InvalidInput("include_projects", "True goes with a company hook only, this one is for a project")
    if include_projects and company_id is None:
        raise InvalidInput("include_projects", "True needs a company_id; without one a hook hears everything already")
