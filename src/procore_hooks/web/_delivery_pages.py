"""The list of a hook's deliveries, the details of one, and what can be done about them."""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from procore_hooks import Delivery, Hook, InvalidInput, NotFound, Page

from ._forms import Filters, read_number
from ._history import TABS, details_of, next_step, read_tab, took
from ._hook_pages import around, crumb_of
from ._moments import in_form, read_moment
from ._tokens import digest
from ._visit import Visit

__all__ = ["deliveries", "delivery", "download", "recover", "redeliver", "send_test"]

_A_DAY = timedelta(days=1)


async def deliveries(visit: Visit) -> Response:
    """25 deliveries, newest first, that fit the filters."""
    return await _list(visit)


async def _list(
    visit: Visit, *, status: int = 200, since: str | None = None, since_error: str | None = None
) -> Response:
    filters = Filters.from_query(visit.request.query_params)
    cursor = visit.request.query_params.get("cursor") or None

    def read() -> tuple[Hook, Page[Delivery], str | None]:
        hook = visit.hook()
        try:
            return hook, visit.registry.deliveries.list(hook.id, cursor=cursor, **filters.for_list), None
        except InvalidInput as error:
            return hook, Page(()), error.problem

    hook, page, problem = await visit.run(read)
    version = digest(_state(hook), [_state_of(one) for one in page], page.next_cursor)
    if visit.unchanged(version):
        return Response(status_code=204)
    return visit.page(
        "deliveries.html",
        crumb_of(visit, hook),
        (visit.say("deliveries"), ""),
        here="deliveries",
        status=422 if problem is not None else status,
        **await around(visit, hook),
        deliveries=page,
        filters=filters,
        problem=problem,
        cursor=cursor,
        version=version,
        recovered=_recovered(visit),
        since=in_form(hook.failing_since or visit.now - _A_DAY) if since is None else since,
        since_error=since_error,
        resources=[resource.name for resource in visit.console.catalogue],
    )


def _recovered(visit: Visit) -> int | None:
    """How many deliveries were just recovered, if that is what led here."""
    query = visit.request.query_params
    return read_number(query.get("count")) if query.get("done") == "recovered" else None


def _state(hook: Hook) -> tuple[object, ...]:
    return hook.status, hook.failing_since, hook.paused_until


def _state_of(one: Delivery) -> tuple[object, ...]:
    return one.id, one.status, one.attempt_count, len(one.attempts), one.next_attempt_at


def _delivery(visit: Visit) -> tuple[Hook, Delivery]:
    """The hook and the delivery of the address. Raises `NotFound`, also for a delivery to another hook."""
    hook = visit.hook()
    found = visit.registry.deliveries.get(visit.number("delivery_id"))
    if found.hook_id != hook.id:
        raise NotFound("delivery", found.id)
    return hook, found


async def delivery(visit: Visit) -> Response:
    """One delivery: its attempts, and of one of them what went out and what came back."""
    hook, found = await visit.run(_delivery, visit)
    version = digest(_state(hook), _state_of(found))
    if visit.unchanged(version):
        return Response(status_code=204)
    query = visit.request.query_params
    number = read_number(query.get("attempt"))
    return visit.page(
        "delivery.html",
        crumb_of(visit, hook),
        (visit.say("deliveries"), visit.at.hook(hook.id, "deliveries")),
        (visit.say("delivery", id=found.id), ""),
        here="deliveries",
        **await around(visit, hook),
        delivery=found,
        details=details_of(found, number, read_tab(query.get("tab"))),
        chosen=number,
        tabs=TABS,
        took=took,
        step=next_step(found, hook, visit.now),
        version=version,
    )


async def download(visit: Visit) -> Response:
    """The body of an attempt to the byte, as a file."""
    _, found = await visit.run(_delivery, visit)
    details = details_of(found, read_number(visit.request.query_params.get("attempt")), "payload")
    body = found.event.payload_json if details.sent is None else details.sent
    headers = {"content-disposition": f'attachment; filename="delivery-{found.id}.json"', "cache-control": "no-store"}
    return Response(body, media_type="application/octet-stream", headers=headers)


async def redeliver(visit: Visit) -> Response:
    """Send the same event again, and go to the new delivery."""
    hook, found = await visit.run(_delivery, visit)
    again = await visit.run(visit.registry.deliveries.redeliver, found.id)
    return visit.go(visit.at.delivery(hook.id, again.id), done="redelivered")


async def send_test(visit: Visit) -> Response:
    """Deliver a test event, and go to its delivery."""
    hook = await visit.run(visit.hook)
    ping = await visit.run(visit.registry.hooks.ping, hook.id)
    return visit.go(visit.at.delivery(hook.id, ping.id), done="test")


async def recover(visit: Visit) -> Response:
    """Deliver again what failed or was discarded since a moment."""
    hook = await visit.run(visit.hook)
    text = visit.form.get("since", "")
    since = read_moment(text)
    if since is None:
        problem = visit.say("bad_moment", text=text[:40])
        return await _list(visit, status=422, since=text[:40], since_error=problem)
    try:
        count = await visit.run(visit.registry.deliveries.recover, hook.id, since=since)
    except InvalidInput as error:
        return await _list(visit, status=422, since=text[:40], since_error=error.problem)
    return visit.go(visit.at.hook(hook.id, "deliveries"), done="recovered", count=count)
