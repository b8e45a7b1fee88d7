"""The grid of a hook's events, and what a tick does."""

from __future__ import annotations

from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from procore_hooks import Hook, Trigger

from ._grid import Grid, make_grid, read_tick
from ._history import hook_state
from ._hook_pages import crumb_of
from ._tokens import digest
from ._visit import Visit

__all__ = ["events", "tick"]

_AT_ONCE = 1000


def _triggers(visit: Visit, hook: Hook) -> list[Trigger]:
    found: list[Trigger] = []
    cursor: str | None = None
    while True:
        page = visit.registry.triggers.list(hook.id, page_size=_AT_ONCE, cursor=cursor)
        found += page
        cursor = page.next_cursor
        if cursor is None:
            return found


def _grid(visit: Visit, hook: Hook, triggers: list[Trigger]) -> Grid:
    return make_grid(visit.console.catalogue, visit.scope.level, hook.include_projects, triggers)


async def events(visit: Visit) -> Response:
    """The grid, or the rows of it whose resources have a text in their names."""

    def read() -> tuple[Hook, list[Trigger]]:
        hook = visit.hook()
        return hook, _triggers(visit, hook)

    hook, triggers = await visit.run(read)
    version = digest(hook.status, hook.failing_since, hook.paused_until, [one.id for one in triggers])
    if visit.unchanged(version):
        return Response(status_code=204)
    grid = _grid(visit, hook, triggers)
    return visit.page(
        "events.html",
        crumb_of(visit, hook),
        (visit.say("events"), ""),
        here="events",
        hook=hook,
        state=hook_state(hook),
        trigger_count=len(triggers),
        grid=grid,
        names=_action_names(visit, grid),
        sought=visit.request.query_params.get("q", "").strip(),
        version=version,
    )


def _action_names(visit: Visit, grid: Grid) -> dict[str, str]:
    """The actions in the visitor's language; those of an app's own as they are."""
    known = {action: visit.say(f"action_{action}") for action in ("create", "update", "delete")}
    others = {trigger.action: trigger.action for trigger in grid.others}
    return {**others, **{action: action for action in grid.actions}, **known, "*": visit.say("any_action")}


async def tick(visit: Visit) -> Response:
    """Create or delete the triggers that a box stands for, and answer with all boxes as they are then."""
    asked = visit.form.get("tick", "")

    def change() -> tuple[Hook, Grid]:
        hook = visit.hook()
        triggers = _triggers(visit, hook)
        wanted = read_tick(asked, _grid(visit, hook, triggers), triggers)
        # The tick of somebody else at this moment stays. Whoever came first did the same.
        unticked = [(one.resource, one.action) for one in triggers if one.id in wanted.delete]
        changed = visit.registry.triggers.change(hook.id, add=wanted.create, remove=unticked)
        return hook, _grid(visit, hook, list(changed))

    hook, grid = await visit.run(change)
    if visit.wants_json:
        count = visit.say("count_subscribed", count=grid.subscribed, total=grid.total)
        return JSONResponse({"states": grid.states, "count": count}, headers={"cache-control": "no-store"})
    row = asked.rpartition("|")[2].replace(" ", "_")
    return visit.go(f"{visit.at.hook(hook.id, 'events')}?done=saved#r-{quote(row)}")
