"""The grid of resources and actions: which boxes there are, what each shows, and what a tick changes.

A box is ``on`` or ``off``; ``mixed``, of a category, when some of its boxes are on; ``covered`` when a wider trigger
includes it, so that it cannot be taken away by itself; ``unsupported`` when the resource does not have the action.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import attrs

from procore_hooks import InvalidInput, NotFound, ResourceCatalog, Trigger
from procore_hooks.resources import Resource, ResourceLevel

__all__ = ["Box", "Change", "Grid", "Group", "Row", "make_grid", "read_tick"]

State = Literal["on", "off", "mixed", "covered", "unsupported"]

_ANY: Final = "*"
_USUAL: Final = ("create", "update", "delete")


@attrs.frozen
class Box:
    """One box. `key` names it in a form: ``r|update|RFIs``, ``c|update|Core`` or ``t|12``."""

    key: str
    action: str
    state: State

    @property
    def tick(self) -> str:
        """What pressing it asks for."""
        return f"{'on' if self.state in ('off', 'mixed') else 'off'}|{self.key}"

    @property
    def checked(self) -> str:
        """Its `aria-checked`."""
        return "mixed" if self.state == "mixed" else "true" if self.state in ("on", "covered") else "false"


@attrs.frozen
class Row:
    """A resource and its boxes, in the order of the grid's actions."""

    resource: str
    boxes: tuple[Box, ...]


@attrs.frozen
class Group:
    """A category, the boxes that stand for all of its resources, and its rows."""

    category: str
    boxes: tuple[Box, ...]
    rows: tuple[Row, ...]


@attrs.frozen(kw_only=True)
class Grid:
    """All that the page of a hook's events shows.

    Attributes:
        others: triggers that no box stands for, wildcards and names that the catalogue does not have.
        subscribed, total: of the boxes, how many are on or covered, and how many there are.
    """

    actions: tuple[str, ...]
    groups: tuple[Group, ...]
    others: tuple[Trigger, ...]
    subscribed: int
    total: int

    @property
    def states(self) -> dict[str, State]:
        """The state of each box that is neither off nor unsupported, by its key."""
        boxes = [box for group in self.groups for box in group.boxes]
        boxes += [box for group in self.groups for row in group.rows for box in row.boxes]
        states = {box.key: box.state for box in boxes if box.state not in ("off", "unsupported")}
        return states | dict.fromkeys((f"t|{trigger.id}" for trigger in self.others), "on")


@attrs.frozen
class Change:
    """What a tick asks for: triggers to create, as (resource, action), and ids of triggers to delete."""

    create: tuple[tuple[str, str], ...] = ()
    delete: tuple[int, ...] = ()


def make_grid(catalogue: ResourceCatalog, level: ResourceLevel, both_levels: bool, triggers: Iterable[Trigger]) -> Grid:
    """The grid of a hook with these triggers.

    Args:
        level: of the resources that are shown; where the catalogue has none of it, all are.
        both_levels: show all in any case, for a company hook that hears its projects' events too.
    """
    pairs = {(trigger.resource, trigger.action): trigger for trigger in triggers}
    shown = _shown(catalogue, level, both_levels)
    actions = _actions(resource for rows in shown.values() for resource in rows)
    groups = tuple(_group(category, rows, actions, pairs) for category, rows in shown.items())
    boxes = [box for group in groups for row in group.rows for box in row.boxes if box.state != "unsupported"]
    named = {(row.resource, box.action) for group in groups for row in group.rows for box in row.boxes}
    return Grid(
        actions=actions,
        groups=groups,
        others=tuple(trigger for pair, trigger in pairs.items() if pair not in named),
        subscribed=sum(box.state != "off" for box in boxes),
        total=len(boxes),
    )


def _shown(catalogue: ResourceCatalog, level: ResourceLevel, both_levels: bool) -> dict[str, Sequence[Resource]]:
    if both_levels or all(resource.level != level for resource in catalogue):
        return dict(catalogue.categories)
    kept = {name: [one for one in rows if one.level == level] for name, rows in catalogue.categories.items()}
    return {name: rows for name, rows in kept.items() if rows}


def _actions(resources: Iterable[Resource]) -> tuple[str, ...]:
    all_actions = {action for resource in resources for action in resource.actions}
    usual = [action for action in _USUAL if action in all_actions]
    return (*usual, *sorted(all_actions.difference(usual)))


def _group(
    category: str,
    resources: Sequence[Resource],
    actions: Sequence[str],
    pairs: dict[tuple[str, str], Trigger],
) -> Group:
    rows = tuple(
        Row(one.name, tuple(Box(f"r|{action}|{one.name}", action, _state(one, action, pairs)) for action in actions))
        for one in resources
    )
    columns = zip(*(row.boxes for row in rows), strict=True)
    boxes = tuple(
        Box(f"c|{action}|{category}", action, _together([box.state for box in column]))
        for action, column in zip(actions, columns, strict=True)
    )
    return Group(category, boxes, rows)


def _state(resource: Resource, action: str, pairs: dict[tuple[str, str], Trigger]) -> State:
    if action not in resource.actions:
        return "unsupported"
    if any(pair in pairs for pair in ((resource.name, _ANY), (_ANY, action), (_ANY, _ANY))):
        return "covered"
    return "on" if (resource.name, action) in pairs else "off"


def _together(states: Sequence[State]) -> State:
    supported = set(states) - {"unsupported"}
    if not supported:
        return "unsupported"
    if supported == {"covered"}:
        return "covered"
    if "off" not in supported:
        return "on"
    return "off" if supported == {"off"} else "mixed"


def read_tick(tick: str, grid: Grid, triggers: Iterable[Trigger]) -> Change:
    """What a tick changes: ``on|r|update|RFIs`` wants the box with this key on, ``off|...`` wants it off.

    It says what is wanted and not "the other way", so that it may come twice, and so that the tick of somebody else
    in between is not undone. Raises `InvalidInput` for text that is no tick, `NotFound` for a box that there is not.
    """
    wanted, _, key = tick.partition("|")
    if wanted not in ("on", "off") or not key:
        raise InvalidInput("tick", "it is not 'on' or 'off' and the key of a box: use the boxes of the page")
    ids = {(trigger.resource, trigger.action): trigger.id for trigger in triggers}
    pairs = _pairs_of(key, grid)
    if wanted == "on":
        return Change(create=tuple(pair for pair in pairs if pair not in ids))
    return Change(delete=tuple(ids[pair] for pair in pairs if pair in ids))


def _pairs_of(key: str, grid: Grid) -> list[tuple[str, str]]:
    """The supported (resource, action) pairs that the box with this key stands for."""
    for trigger in grid.others:
        if key == f"t|{trigger.id}":
            return [(trigger.resource, trigger.action)]
    for group in grid.groups:
        wanted = {box.action for box in group.boxes if box.key == key and box.state != "unsupported"}
        pairs = [
            (row.resource, box.action)
            for row in group.rows
            for box in row.boxes
            if box.state not in ("unsupported", "covered") and (box.key == key or box.action in wanted)
        ]
        if pairs or wanted:
            return pairs
    raise NotFound("box", key)
