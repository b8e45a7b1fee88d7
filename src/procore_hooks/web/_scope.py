"""Whose hooks a page is about, and the address of each page.

===================================  ===========================================================
address, below where the app mounts  hooks
===================================  ===========================================================
``/companies/8``                     of company 8 itself
``/companies/8/projects/6778``       of project 6778 of company 8
``/projects/6778``                   of project 6778, where no company was named
===================================  ===========================================================

A page shows the hooks of exactly its scope. Two tenants of an app may well have projects with the same id, so a hook
whose company was not named is on none of the companies' pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

import attrs

from procore_hooks import Hook, InvalidInput, NotFound
from procore_hooks.resources import ResourceLevel

__all__ = ["Addresses", "Scope", "console_path", "with_query"]

_LONGEST_ID = 200


@attrs.frozen
class Scope:
    """A company, a project, or a project of a company; ids as text."""

    company_id: str | None = None
    project_id: str | None = None

    @classmethod
    def from_address(cls, parts: Mapping[str, str]) -> Scope:
        """The scope in an address. Raises `NotFound` for text that no id can be."""
        scope = cls(parts.get("company_id"), parts.get("project_id"))
        for kind, value in (("company", scope.company_id), ("project", scope.project_id)):
            if value is not None and not _is_id(value):
                raise NotFound(kind, value)
        return scope

    @property
    def level(self) -> ResourceLevel:
        """Whether its hooks hear of a project's resources or of a company's."""
        return "company" if self.project_id is None else "project"

    @property
    def path(self) -> str:
        """The address of its list of hooks."""
        company = "" if self.company_id is None else f"/companies/{quote(self.company_id, safe='')}"
        return company if self.project_id is None else f"{company}/projects/{quote(self.project_id, safe='')}"

    def owns(self, hook: Hook) -> bool:
        """Whether `hook` is of exactly this scope."""
        return (hook.company_id, hook.project_id) == (self.company_id, self.project_id)


def _is_id(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_ID and text.isprintable() and text == text.strip() and "/" not in text


def console_path(*, company_id: int | str | None = None, project_id: int | str | None = None) -> str:
    """The path of a company's or a project's page, to append to where `console_app` is mounted.

    Args:
        company_id, project_id: at least one of them; ids with a slash have no page.

    Raises:
        InvalidInput: both are left out, or an id is not one.
    """
    scope = Scope(*(None if value is None else str(value) for value in (company_id, project_id)))
    if scope == Scope():
        raise InvalidInput("company_id", "it is missing, and so is project_id: name one of them, or both")
    for field, value in (("company_id", scope.company_id), ("project_id", scope.project_id)):
        if value is not None and not _is_id(value):
            raise InvalidInput(field, "it is not printable text of 1 to 200 characters without a slash: use an id")
    return scope.path


@attrs.frozen
class Addresses:
    """The address of each page of a scope, as a path. `root` is where the app is mounted."""

    root: str
    scope: Scope
    static_version: str = ""

    @property
    def hooks(self) -> str:
        """The list of hooks."""
        return self.root + self.scope.path

    @property
    def new_hook(self) -> str:
        """The form for another hook."""
        return f"{self.hooks}/new"

    def hook(self, hook_id: int, part: str = "") -> str:
        """A hook's overview, or a `part` of it: ``events``, ``deliveries``, or a verb."""
        return f"{self.hooks}/hooks/{hook_id}{'/' if part else ''}{part}"

    def delivery(self, hook_id: int, delivery_id: int, part: str = "", **query: str | int | None) -> str:
        """A delivery's details, or a `part`; of the query, what is None is left out."""
        there = {name: value for name, value in query.items() if value is not None}
        path = self.hook(hook_id, f"deliveries/{delivery_id}{'/' if part else ''}{part}")
        return with_query(path, there)

    def static(self, name: str) -> str:
        """A file of the page; its address changes with its content."""
        return f"{self.root}/static/{name}?v={self.static_version}"


def with_query(path: str, query: Mapping[str, str | int]) -> str:
    """`path` with a query, if there is any."""
    return f"{path}?{urlencode(query)}" if query else path
