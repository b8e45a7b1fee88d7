"""The list of hooks, the form for a new one, and a hook's overview with all that changes it."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import attrs
from starlette.responses import Response

from procore_hooks import Conflict, DeliveryStats, EndpointReport, Hook, InvalidInput, NotFound

from ._forms import EndpointForm, field_of, masked_credential, other_headers
from ._history import hook_state
from ._strip import BUCKET, HEIGHT, WIDTH, begin_of_strip
from ._tokens import Note, digest, endpoint_version
from ._visit import Visit

__all__ = [
    "around",
    "create_hook",
    "crumb_of",
    "delete_hook",
    "hooks",
    "last_day",
    "new_hook",
    "overview",
    "pause",
    "resume",
    "rotate_secret",
    "save_endpoint",
]

_ENOUGH = 25
_MOST_TRIGGERS = 1000
_PAYLOAD_VERSIONS = ("v4.0", "v3.0", "v2.0", "standard")
_logger = logging.getLogger("procore_hooks")


async def hooks(visit: Visit) -> Response:
    """The hooks of the scope, oldest first."""

    def read() -> tuple[list[tuple[Hook, int]], str | None]:
        found: list[Hook] = []
        cursor = visit.request.query_params.get("cursor") or None
        while True:
            # The registry takes "no project" for "any": those of the company's projects are left out here.
            page = visit.registry.hooks.list(
                company_id=visit.scope.company_id, project_id=visit.scope.project_id, cursor=cursor
            )
            found += [hook for hook in page if visit.scope.owns(hook)]
            cursor = page.next_cursor
            if cursor is None or len(found) >= _ENOUGH:
                break
        counted = []
        for hook in found:
            with contextlib.suppress(NotFound):  # deleted meanwhile
                counted.append((hook, len(visit.registry.triggers.list(hook.id, page_size=_MOST_TRIGGERS))))
        return counted, cursor

    found, cursor = await visit.run(read)
    version = digest(found, cursor)
    if visit.unchanged(version):
        return Response(status_code=204)
    first = not visit.request.query_params.get("cursor")
    return visit.page("hooks.html", hooks=found, cursor=cursor, first=first, hook_state=hook_state, version=version)


async def new_hook(visit: Visit) -> Response:
    """The empty form."""
    return _form_page(visit, EndpointForm(), {})


async def create_hook(visit: Visit) -> Response:
    """Store a hook, check its endpoint, and go to it."""
    typed = EndpointForm.typed(visit.form)
    try:
        hook = await visit.run(
            visit.registry.hooks.create,
            typed.url,
            company_id=visit.scope.company_id,
            project_id=visit.scope.project_id,
            **typed.for_new_hook(),
        )
    except InvalidInput as error:
        return _form_page(visit, typed, {field_of(error): error.problem})
    report = await _check(visit, hook)
    response = visit.go(visit.at.hook(hook.id), done="created")
    return visit.leave_note(response, Note(show_secret=True, report=report), hook)


def _form_page(visit: Visit, typed: EndpointForm, errors: dict[str, str]) -> Response:
    versions = [*_PAYLOAD_VERSIONS, *(name for name in visit.registry.payload_formats if name not in _PAYLOAD_VERSIONS)]
    status = 422 if errors else 200
    crumb = (visit.say("new_hook"), visit.at.new_hook)
    return visit.page("new_hook.html", crumb, status=status, typed=typed, errors=errors, payload_versions=versions)


async def _check(visit: Visit, hook: Hook) -> EndpointReport | None:
    try:
        return await visit.registry.hooks.check_async(hook.id)
    except NotFound:
        raise
    except Exception:
        # An app's own payload format may raise anything. What was saved is saved.
        _logger.exception("the endpoint of hook %s could not be checked", hook.id)
        return None


async def overview(visit: Visit) -> Response:
    """The hook's endpoint, status and secret."""
    return await _overview(visit)


async def _overview(
    visit: Visit, *, status: int = 200, typed: EndpointForm | None = None, errors: dict[str, str] | None = None
) -> Response:
    hook = await visit.run(visit.hook)
    version = digest(attrs.astuple(hook, recurse=False))
    if visit.unchanged(version):
        return Response(status_code=204)
    note = visit.found_note(hook)
    form = EndpointForm(url=hook.destination_url) if typed is None else typed
    response = visit.page(
        "overview.html",
        crumb_of(visit, hook),
        here="overview",
        status=status,
        **await around(visit, hook),
        version=version,
        form=attrs.evolve(form, version=endpoint_version(hook)),
        errors=errors or {},
        masked=masked_credential(hook),
        other_headers=other_headers(hook),
        note=note or Note(),
        old_secrets=[one for one in hook.previous_secrets if one.expires_at > visit.now],
    )
    return response if note is None else visit.forget_note(response)


async def around(visit: Visit, hook: Hook) -> dict[str, Any]:
    """What every page of a hook shows at its head."""
    triggers = await visit.run(visit.registry.triggers.list, hook.id, page_size=_MOST_TRIGGERS)
    return {"hook": hook, "state": hook_state(hook), "trigger_count": len(triggers)}


def crumb_of(visit: Visit, hook: Hook) -> tuple[str, str]:
    """The hook in the line that says where one is."""
    return visit.say("hook", id=hook.id), visit.at.hook(hook.id)


async def last_day(visit: Visit) -> Response:
    """The strip of the last 24 hours, which the other pages fetch once they are shown."""
    hook = await visit.run(visit.hook)

    def count() -> DeliveryStats:
        return visit.registry.deliveries.stats(hook.id, since=begin_of_strip(visit.now), bucket=BUCKET)

    strip = await visit.run(visit.console.strips.get, hook.id, count)
    frame = await around(visit, hook)
    crumbs = crumb_of(visit, hook), (visit.say("last_day"), "")
    return visit.page("last_day.html", *crumbs, here="", **frame, strip=strip, width=WIDTH, height=HEIGHT)


def _save(visit: Visit, typed: EndpointForm) -> tuple[Hook, bool]:
    """The hook as it is now, and whether what was typed is saved: not if somebody changed it meanwhile.

    Raises `NotFound` and `InvalidInput`.
    """
    hook = visit.hook()
    changes = typed.changes(hook)
    if not changes:
        return hook, True
    if typed.version != endpoint_version(hook):
        return hook, False
    try:
        return visit.registry.hooks.update(hook.id, if_unchanged=hook, **changes), True
    except Conflict:
        return visit.hook(), False


async def save_endpoint(visit: Visit) -> Response:
    """Change the endpoint and its authorization header, and check it."""
    typed = EndpointForm.typed(visit.form)
    try:
        hook, saved = await visit.run(_save, visit, typed)
    except InvalidInput as error:
        return await _overview(visit, status=422, typed=typed, errors={field_of(error): error.problem})
    if not saved:
        return await _overview(visit, status=409, typed=typed, errors={"changed": _whats_there(visit, hook, typed)})
    report = await _check(visit, hook)
    return visit.leave_note(visit.go(visit.at.hook(hook.id)), Note(report=report), hook)


def _whats_there(visit: Visit, hook: Hook, typed: EndpointForm) -> str:
    text = visit.say("changed_meanwhile", url=hook.destination_url)
    return f"{text} {visit.say('header_changed_meanwhile')}" if hook.destination_url == typed.url else text


async def pause(visit: Visit) -> Response:
    """Stop delivering; what waits is kept."""
    hook = await visit.run(visit.hook)
    await visit.run(visit.registry.hooks.disable, hook.id)
    return visit.go(visit.at.hook(hook.id), done="paused")


async def resume(visit: Visit) -> Response:
    """Deliver again, at once, and forget the failures."""
    hook = await visit.run(visit.hook)
    await visit.run(visit.registry.hooks.enable, hook.id)
    return visit.go(visit.at.hook(hook.id), done="resumed")


async def rotate_secret(visit: Visit) -> Response:
    """Make another signing secret, to be shown once."""
    hook = await visit.run(visit.hook)
    hook = await visit.run(visit.registry.hooks.rotate_secret, hook.id)
    response = visit.go(visit.at.hook(hook.id), done="rotated")
    return visit.leave_note(response, Note(show_secret=hook.public_key is None), hook)


async def delete_hook(visit: Visit) -> Response:
    """Delete the hook for good."""
    hook = await visit.run(visit.hook)
    await visit.run(visit.registry.hooks.delete, hook.id)
    return visit.go(visit.at.hooks, done="deleted")
