"""Which resources there are, and what can happen to them.

Without a catalogue, a registry takes any name, and a trigger with a misspelt one waits in silence. With one, the
mistake raises and the nearest names are given. `PROCORE` holds Procore's own resources; it is read from the
package's data when it is first used.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, get_args

import attrs

from ._core.frozen import FrozenDict
from ._core.matching import ANY
from .exceptions import InvalidInput, UnknownResource, UnsupportedAction

__all__ = ["PROCORE", "Resource", "ResourceCatalog", "ResourceLevel"]

ResourceLevel = Literal["company", "project"]

# In this order wherever actions are listed; an app's own come after them.
_USUAL_ACTIONS = ("create", "update", "delete")
_MOST_NEAREST = 3
_MOST_LISTED = 10
_LONGEST_SHOWN = 100


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.strip() != "" and value.isprintable() and value != ANY


def _check_word(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not _is_word(value):
        raise InvalidInput(attribute.name, f"{_shown(value)} is not a name; use printable text other than '*'")


def _check_level(instance: object, attribute: attrs.Attribute[ResourceLevel], value: object) -> None:
    if value not in get_args(ResourceLevel):
        raise InvalidInput("level", f"{_shown(value)} is neither 'company' nor 'project'")


def _action_set(actions: object) -> frozenset[str]:
    # A bare string is iterable too, and would silently become an action for each letter.
    if isinstance(actions, str) or not isinstance(actions, Iterable):
        raise InvalidInput("actions", f"{_shown(actions)} is not a list of actions; write ['create', 'update']")
    return frozenset(actions)


def _check_actions(instance: object, attribute: attrs.Attribute[frozenset[str]], value: frozenset[str]) -> None:
    if not value:
        raise InvalidInput("actions", "a resource without actions is never heard of; name at least one")
    for action in value:
        if not _is_word(action):
            raise InvalidInput("actions", f"{_shown(action)} is not an action; use printable text other than '*'")


@attrs.frozen
class Resource:
    """Something that changes, such as ``"RFIs"``.

    Attributes:
        level: whether it belongs to a company or to a project.
        category: the group under which settings pages list it.
        actions: what can happen to it, such as ``"create"``.

    Raises `InvalidInput` for values that are none of these.
    """

    name: str = attrs.field(validator=_check_word)
    level: ResourceLevel = attrs.field(validator=_check_level)
    category: str = attrs.field(validator=_check_word)
    actions: frozenset[str] = attrs.field(converter=_action_set, validator=_check_actions)


class ResourceCatalog:
    """The resources that an app's events may be about; it never changes.

    Args:
        resources: each name once, in the order in which settings pages list them.

    Raises `InvalidInput` for a name that comes twice.
    """

    __slots__ = ("_by_name", "_categories")

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._by_name: dict[str, Resource] = {}
        grouped: dict[str, list[Resource]] = {}
        for resource in resources:
            if resource.name in self._by_name:
                raise InvalidInput("resources", f"{_shown(resource.name)} is there twice; leave one of them out")
            self._by_name[resource.name] = resource
            grouped.setdefault(resource.category, []).append(resource)
        self._categories = FrozenDict({category: tuple(members) for category, members in grouped.items()})

    @classmethod
    def from_mapping(
        cls,
        actions: Mapping[str, Iterable[str]],
        *,
        level: ResourceLevel = "project",
        category: str = "Resources",
    ) -> ResourceCatalog:
        """A catalogue of an app's own resources, all of one level and category.

        Args:
            actions: the actions of each resource, such as ``{"RFIs": ["create", "update"]}``.
        """
        return cls(Resource(name, level, category, _action_set(supported)) for name, supported in actions.items())

    @property
    def categories(self) -> Mapping[str, tuple[Resource, ...]]:
        """The resources of each category; both in the order of the catalogue."""
        return self._categories

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __repr__(self) -> str:
        return f"ResourceCatalog({len(self)} resources)"

    def get(self, name: str) -> Resource:
        """The resource of this name, to the letter. Raises `UnknownResource`, with the nearest names."""
        resource = self._by_name.get(name)
        if resource is None:
            advice = _advice(name, self._by_name) or self._what_there_is()
            raise UnknownResource("resource", f"{_shown(name)} is not in the catalogue; {advice}")
        return resource

    def check(self, resource: str, action: str) -> None:
        """Return if an event may be about this. Raises `UnknownResource` or `UnsupportedAction`."""
        supported = self.get(resource).actions
        if action not in supported:
            raise UnsupportedAction("action", _unsupported(action, supported, repr(resource)))

    def check_trigger(self, resource: str, action: str) -> None:
        """Return if a trigger may name this: ``"*"`` is for every resource, or for every action.

        Raises `UnknownResource`, or `UnsupportedAction` where an event can never fit: with ``"*"`` for the
        resource, if no resource at all supports the action.
        """
        if action == ANY:
            if resource != ANY:
                self.get(resource)
        elif resource != ANY:
            self.check(resource, action)
        else:
            supported = frozenset[str]().union(*(each.actions for each in self))
            if action not in supported:
                raise UnsupportedAction("action", _unsupported(action, supported, "any resource"))

    def _what_there_is(self) -> str:
        if 0 < len(self) <= _MOST_LISTED:
            return f"it has {_listed(map(repr, self._by_name), 'and')}"
        return f"none of its {len(self)} names is like it; iterate over it to see them"


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."


def _listed(words: Iterable[str], link: str) -> str:
    *most, last = words
    return f"{', '.join(most)} {link} {last}" if most else last


def _advice(word: object, known: Iterable[str]) -> str:
    """``did you mean ...?`` with the nearest of the known words, ignoring case; empty if none is near."""
    by_folded: dict[str, list[str]] = {}
    for each in known:
        by_folded.setdefault(each.casefold(), []).append(each)
    folded = str(word).strip().casefold()
    near = [folded] if folded in by_folded else difflib.get_close_matches(folded, by_folded, n=_MOST_NEAREST)
    nearest = [each for match in near for each in by_folded[match]]
    return f"did you mean {_listed(map(repr, nearest), 'or')}?" if nearest else ""


def _unsupported(action: object, supported: frozenset[str], by: str) -> str:
    if not supported:
        return f"{_shown(action)} is not supported by {by}: the catalogue is empty"
    usual = [each for each in _USUAL_ACTIONS if each in supported]
    actions = usual + sorted(supported.difference(usual))
    advice = _advice(action, actions)
    what = f"{_shown(action)} is not supported by {by}; use {_listed(map(repr, actions), 'or')}"
    return f"{what}; {advice}" if advice else what


def _read_procore() -> ResourceCatalog:
    import csv
    from importlib.resources import files

    text = files("procore_hooks").joinpath("_data", "procore_resources.csv").read_text(encoding="utf-8")
    return ResourceCatalog(
        Resource(
            row["resource_name"],
            "company" if row["level"] == "company" else "project",
            row["category"],
            frozenset(action for action in _USUAL_ACTIONS if row[action] == "yes"),
        )
        for row in csv.DictReader(text.splitlines())
    )


PROCORE: ResourceCatalog


def __getattr__(name: str) -> object:
    if name != "PROCORE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # setdefault is one step: threads that come at the same time all get the same catalogue.
    return globals().setdefault(name, _read_procore())
