"""Which hooks get an event.

A hook's scope is one key, kept beside each of its triggers; an event has a few keys, and a trigger fits when its
key is among them. So the question "who wants this?" is one look-up by (resource, action, key), and hooks of
other scopes cost nothing.

=====================================  ===========  ==========================================
hook                                   key          gets events of
=====================================  ===========  ==========================================
no company, no project                 ``*``        everything
company 8                              ``c:8``      company 8 itself
company 8, `include_projects`          ``C:8``      company 8 and every project of it
project 6778 (company 8 or unsaid)     ``p:6778``   project 6778
=====================================  ===========  ==========================================

Of a project hook that names a company, the event must not name another one: two tenants of an app may well have
projects with the same id.
"""

from __future__ import annotations

from collections.abc import Iterable

from .models import Event, Hook, Trigger, Verdict

__all__ = ["ANY", "company_fits", "explain", "scope_key", "scope_keys", "wanted_pairs"]

ANY = "*"


def scope_key(company_id: str | None, project_id: str | None, include_projects: bool) -> str:
    """The key of a hook with this scope."""
    if project_id is not None:
        return f"p:{project_id}"
    if company_id is not None:
        return f"C:{company_id}" if include_projects else f"c:{company_id}"
    return ANY


def scope_keys(company_id: str | None, project_id: str | None) -> tuple[str, ...]:
    """The keys of the hooks that may get an event of this company and project."""
    keys = [ANY]
    if company_id is not None:
        keys.append(f"C:{company_id}")
        if project_id is None:
            keys.append(f"c:{company_id}")
    if project_id is not None:
        keys.append(f"p:{project_id}")
    return tuple(keys)


def company_fits(hook_company: str | None, event_company: str | None) -> bool:
    """Whether both name the same company, or one of them names none."""
    return hook_company is None or event_company is None or hook_company == event_company


def wanted_pairs(resource: str, action: str) -> tuple[tuple[str, str], ...]:
    """The (resource, action) of the triggers that an event of this resource and action sets off."""
    return (resource, action), (resource, ANY), (ANY, action), (ANY, ANY)


def explain(hook: Hook, triggers: Iterable[Trigger], event: Event) -> Verdict:
    """Whether `hook`, with these `triggers`, gets `event`, and why or why not, in words."""
    pairs = wanted_pairs(event.resource, event.action)
    fitting = next((t for t in triggers if (t.resource, t.action) in pairs), None)
    refusal = _scope_refusal(hook, event)
    if refusal is not None:
        return Verdict(hook=hook, delivers=False, why=refusal)
    if fitting is None:
        return Verdict(hook=hook, delivers=False, why=f"no trigger for {event.resource!r} and {event.action!r}")
    trigger = f"trigger {fitting.id} ({fitting.resource!r}, {fitting.action!r})"
    if hook.status == "disabled" and hook.when_disabled == "drop":
        return Verdict(hook=hook, delivers=False, why=f"{trigger} fits, but the hook is disabled and drops events")
    if hook.status == "disabled":
        return Verdict(hook=hook, delivers=True, why=f"{trigger} fits; the hook is disabled: it waits until enabled")
    return Verdict(hook=hook, delivers=True, why=f"{trigger} fits")


def _scope_refusal(hook: Hook, event: Event) -> str | None:
    key = scope_key(hook.company_id, hook.project_id, hook.include_projects)
    if key in scope_keys(event.company_id, event.project_id):
        if company_fits(hook.company_id, event.company_id):
            return None
        return f"the hook is for company {hook.company_id}, the event is of company {event.company_id}"
    if hook.project_id is not None:
        of = "no project" if event.project_id is None else f"project {event.project_id}"
        return f"the hook is for project {hook.project_id}, the event is of {of}"
    if hook.company_id != event.company_id:
        of = "no company" if event.company_id is None else f"company {event.company_id}"
        return f"the hook is for company {hook.company_id}, the event is of {of}"
    return f"the hook is for company {hook.company_id} alone; include_projects=True adds its projects' events"
