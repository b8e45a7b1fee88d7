"""Which hooks get an event: asked of the index once, and remembered until a trigger or a hook changes.

To find out anew costs an emit more than anything else but the commit. The file holds a generation, a random number that
SQLite itself draws again with every change that an answer depends on (see `schema`), whoever makes it. So what is
remembered is right as long as the number is the same: also after a rollback, and in another process.

The statement that reads the number tells by the way whether a queue of these hooks is asleep: an emit has to wake it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

import attrs

from ..._core.matching import scope_keys
from ..._core.models import Event
from .._base import EmitRequest
from .ready import ASLEEP

__all__ = ["FEW", "VALUES", "Match", "MatchCache"]

# The index is probed for each of (this resource, any) x (this action, any) x scopes: hooks that do not match cost
# nothing. Named, since after an ANALYZE that saw many alike SQLite would rather walk all triggers than sort a few.
_MATCHES: Final = """
SELECT json_group_array(json_array(hook_id, enabled)) FROM (
    SELECT DISTINCT t.hook_id AS hook_id, q.enabled AS enabled
    FROM procore_hooks_triggers t INDEXED BY procore_hooks_triggers_match
        CROSS JOIN procore_hooks_queues q ON q.hook_id = t.hook_id
    WHERE t.resource IN (:resource, '*') AND t.action IN (:action, '*')
        AND t.scope IN (:scope_1, :scope_2, :scope_3, :scope_4)
        AND (t.company_id IS NULL OR :company IS NULL OR t.company_id = :company)
    ORDER BY t.hook_id)
"""
_GENERATION: Final = "SELECT generation, 1 FROM procore_hooks_matching"
_MOST_REMEMBERED: Final = 10_000
# Up to so many hooks, values in the statement are quicker than JSON: a table of them by their number.
FEW: Final = 32
VALUES: Final = tuple(f"(VALUES {', '.join(['(?)'] * number)})" for number in range(FEW + 1))
_LOOK: Final = tuple(
    f"""
SELECT generation, EXISTS (
    SELECT 1 FROM {values} CROSS JOIN procore_hooks_queues ON hook_id = column1 WHERE {ASLEEP.replace(":now", "?")})
FROM procore_hooks_matching"""
    for values in VALUES
)


@attrs.frozen
class Match:
    """The hooks that get an event, by ascending id.

    Attributes:
        hook_ids: of all of them.
        dropping: of those that are disabled and drop.
        are_few: 1 to `FEW` hooks, none of which drops.
        as_json: [hook id, enabled] of each; enabled is 1, 0 for a disabled one that keeps, -1 for one that drops.
    """

    generation: int
    hook_ids: tuple[int, ...]
    dropping: tuple[int, ...]
    are_few: bool
    as_json: str

    @classmethod
    def found(cls, generation: int, as_json: str) -> Match:
        """The match that a row of _MATCHES tells of."""
        wanted = json.loads(as_json)
        hook_ids = tuple(hook_id for hook_id, _ in wanted)
        dropping = tuple(hook_id for hook_id, enabled in wanted if enabled < 0)
        return cls(generation, hook_ids, dropping, 0 < len(hook_ids) <= FEW and not dropping, as_json)


class MatchCache:
    """The hooks for the events that came up so far. May be used from any thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str | None, str | None], Match] = {}

    def of(self, cursor: sqlite3.Cursor, event: Event, now: int) -> tuple[Match, bool]:
        """The hooks for an event, and whether a queue of theirs may be asleep."""
        key = _key(event)
        match = self._known.get(key)
        # Before the index is asked: what is remembered under a number is then at least as new as that number.
        if match is not None and match.are_few:
            row = cursor.execute(_LOOK[len(match.hook_ids)], (*match.hook_ids, now)).fetchone()
        else:
            row = cursor.execute(_GENERATION).fetchone()
        generation, is_asleep = row
        if match is None or match.generation != generation:
            match, is_asleep = Match.found(generation, cursor.execute(_MATCHES, _parameters(event)).fetchone()[0]), True
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = match
        return match, is_asleep

    def are_wanted(self, cursor: sqlite3.Cursor, requests: Sequence[EmitRequest], now: int) -> bool:
        """Whether any hook wants any of the events."""
        return any(self.of(cursor, request.event, now)[0].hook_ids for request in requests)

    def may_be_wanted(self, requests: Sequence[EmitRequest]) -> bool:
        """Whether it is worth opening a write transaction: a key has to be kept, or somebody wanted such an event last.

        Asks nobody, so a False is to be looked into.
        """
        for request in requests:
            match = self._known.get(_key(request.event))
            if request.idempotency_key is not None or (match is not None and match.hook_ids):
                return True
        return False


def _key(event: Event) -> tuple[str, str, str | None, str | None]:
    return event.resource, event.action, event.company_id, event.project_id


def _parameters(event: Event) -> dict[str, object]:
    keys = scope_keys(event.company_id, event.project_id)
    padded = (*keys, *(keys[0],) * (4 - len(keys)))
    scopes = {f"scope_{number}": key for number, key in enumerate(padded, 1)}
    return {"resource": event.resource, "action": event.action, "company": event.company_id, **scopes}
