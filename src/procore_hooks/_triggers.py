"""`registry.triggers`: what a hook wants to hear about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ._core.checks import check_action, check_page_size, check_resource, check_row_id, shown
from ._core.cursors import after_cursor, page_of
from ._core.models import Page, Trigger
from .exceptions import InvalidInput

if TYPE_CHECKING:
    from ._registry import HookRegistry

__all__ = ["Triggers"]


class Triggers:
    """The triggers of a registry."""

    def __init__(self, registry: HookRegistry) -> None:
        self._registry = registry
        self._storage = registry.storage

    def create(self, hook_id: int, resource: str, action: str) -> Trigger:
        """Let a hook hear of a resource and an action, from the next emit on; ``"*"`` stands for every one.

        Raises:
            NotFound: there is no such hook.
            DuplicateTrigger: the hook has it already.
            UnknownResource, UnsupportedAction: the registry's catalogue does not know it.
            InvalidInput: a value is wrong; nothing was stored.
        """
        resource, action = self._checked(resource, action)
        return self._storage.add_trigger(check_row_id("hook", hook_id), resource, action)

    def _checked(self, resource: str, action: str) -> tuple[str, str]:
        checked = check_resource(resource, wildcard=True), check_action(action, wildcard=True)
        if self._registry.resources is not None:
            self._registry.resources.check_trigger(*checked)
        return checked

    def list(self, hook_id: int, *, page_size: int = 25, cursor: str | None = None) -> Page[Trigger]:
        """The hook's triggers, oldest first. Raises `NotFound`.

        Args:
            page_size: 1 to 1000.
            cursor: `next_cursor` of the page before.
        """
        size = check_page_size(page_size)
        after = after_cursor("triggers", cursor) or 0
        return page_of("triggers", self._storage.list_triggers(check_row_id("hook", hook_id), after, size + 1), size)

    def delete(self, trigger_id: int) -> None:
        """Delete a trigger. Raises `NotFound`."""
        self._storage.delete_trigger(check_row_id("trigger", trigger_id))

    def change(
        self,
        hook_id: int,
        *,
        add: Iterable[tuple[str, str]] = (),
        remove: Iterable[tuple[str, str]] = (),
    ) -> Page[Trigger]:
        """Add and remove triggers of a hook, all at once. Others stay, also those that somebody else adds meanwhile.

        Args:
            add, remove: (resource, action) of each. To add one that is there, or to remove one that is not, changes
                nothing.

        Returns:
            All that the hook has then, in one page.

        Raises:
            NotFound, InvalidInput, UnknownResource, UnsupportedAction: as for `create`; nothing was changed then.
        """
        added = [self._checked(*pair) for pair in _pairs("add", add)]
        removed = frozenset(_pairs("remove", remove))

        def wanted(present: Sequence[Trigger]) -> Sequence[tuple[str, str]]:
            return [*(pair for one in present if (pair := (one.resource, one.action)) not in removed), *added]

        return Page(self._storage.replace_triggers(check_row_id("hook", hook_id), wanted))

    def replace(self, hook_id: int, wanted: Mapping[str, Iterable[str]]) -> Page[Trigger]:
        """Make `wanted` the hook's triggers, all at once; those that it has keep their ids.

        Args:
            wanted: the actions for each resource: ``{"RFIs": ["create", "update"]}``.

        Returns:
            All of them, in one page.

        Raises:
            NotFound, InvalidInput: as for `create`; nothing was changed then.
        """
        if not isinstance(wanted, Mapping):
            raise InvalidInput("wanted", f'{shown(wanted)} is not a mapping: use one such as {{"RFIs": ["update"]}}')
        pairs = []
        for resource, actions in wanted.items():
            if isinstance(actions, str | bytes) or not isinstance(actions, Iterable):
                raise InvalidInput("wanted", f"{shown(actions)} is not a list of actions: use one such as ['update']")
            pairs += [self._checked(resource, action) for action in actions]
        return Page(self._storage.replace_triggers(check_row_id("hook", hook_id), pairs))


def _pairs(field: str, given: object) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for one in given if isinstance(given, Iterable) and not isinstance(given, str) else (given,):
        match one:
            case (str() as resource, str() as action):
                pairs.append((resource, action))
            case _:
                raise InvalidInput(
                    field, f"{shown(one)} is not (resource, action): use pairs such as ('RFIs', 'update')"
                )
    return pairs
