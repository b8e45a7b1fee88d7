"""Mappings and sequences that cannot be changed, and still go through `json.dumps`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

__all__ = ["FrozenDict", "freeze"]

K = TypeVar("K")
V = TypeVar("V")


def _refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise TypeError("this mapping is read-only: make a dict() of it to change a copy")


# Each method that it stands for has a signature of its own.
_refused: Any = _refuse


class FrozenDict(dict[K, V]):
    """A dict that refuses every change.

    A subclass of dict and not a view, so that `json.dumps`, `isinstance(x, dict)` and pickling go on working.
    """

    __slots__ = ()

    __setitem__ = _refused
    __delitem__ = _refused
    __ior__ = _refused
    clear = _refused
    pop = _refused
    popitem = _refused
    setdefault = _refused
    update = _refused

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[type[FrozenDict[K, V]], tuple[dict[K, V]]]:
        return type(self), (dict(self),)


def freeze(value: Any) -> Any:
    """`value`, a plain JSON value, with its dicts and lists made read-only at every depth."""
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value
