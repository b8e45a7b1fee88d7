"""Claiming: which queues have their turn, and which of their deliveries go out now."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from ..._core.claims import Claim
from ..._core.models import Hook
from ...exceptions import SecretUnreadable
from ...keyring import KeyRing
from .encryption import set_aside
from .ready import ready
from .rows import EVENT_COLUMNS, HOOK_COLUMNS, event_from_row, hook_from_row, moment_or_none

__all__ = ["DUE", "HookCache", "Loaded", "Queue", "end_waits", "load_claims", "pick"]

_log = logging.getLogger("procore_hooks")

_MOST_CACHED: Final = 10_000
_LOG_EVERY: Final = 60.0  # seconds

_WAKE: Final = "UPDATE procore_hooks_queues SET ready_at = 0 WHERE ready_at > 0 AND ready_at <= ?"
# The indexes are named: after an ANALYZE that saw one hook with nearly all deliveries, SQLite would look for the fresh
# ones of any hook among all that are newer than its head.
_RETURNED: Final = """FROM procore_hooks_deliveries INDEXED BY procore_hooks_deliveries_returned
    WHERE hook_id = q.hook_id AND due_at IS NOT NULL AND due_at <= :due ORDER BY due_at, id LIMIT"""
_FRESH: Final = """FROM procore_hooks_deliveries INDEXED BY procore_hooks_deliveries_hook
    WHERE hook_id = q.hook_id AND id > q.head AND state = 0 AND due_at IS NULL AND lease_until IS NULL
        AND unindexed IS NULL
    ORDER BY id LIMIT"""
_GREATEST: Final = "(SELECT max(id) FROM procore_hooks_deliveries WHERE hook_id = %s.hook_id AND unindexed IS NULL)"
_ROOM: Final = "iif(q.paused_until > :due, 0, iif(q.failures > 0, 1, q.max_in_flight) - q.in_flight)"
# With the first delivery of each, which is all there is room for where many hooks wait: to ask for them by themselves
# would take half of a turn. The first fresh one is looked for once: its id, and in the last bit whether another
# follows, or may follow where there is room for no more. What comes last is 0 where that bit is set, else the greatest
# id of the hook.
_PICK_QUEUES: Final = f"""
SELECT json_group_array(json_array(hook_id, version, failing_since, paused_until, room, epoch, failures, head, returned,
    fresh >> 1, iif(fresh & 1, 0, {_GREATEST % "ready"})))
FROM (
    SELECT q.hook_id, h.version, q.failing_since, q.paused_until,
        {_ROOM} AS room, q.epoch, q.failures, q.head, (SELECT id {_RETURNED} 1) AS returned,
        iif({_ROOM} = 1, (SELECT (id << 1) | 1 {_FRESH} 1),
            (SELECT (min(id) << 1) | (count(*) > 1) FROM (SELECT id {_FRESH} 2))) AS fresh
    FROM procore_hooks_queues q CROSS JOIN procore_hooks_hooks h ON h.id = q.hook_id
    WHERE q.ready_at = 0 ORDER BY q.served, q.hook_id LIMIT :wanted OFFSET :known) ready
"""
_SEEN: Final = 4  # of these, what tells whether a hook is still the one that is known
# An object of numbers instead of an array of pairs: to take a pair apart would cost more than to find its rows.
_PICK_DELIVERIES: Final = f"""
SELECT json_group_array(json_array(
    json((SELECT json_group_array(id) FROM (SELECT id {_RETURNED} :share))),
    json((SELECT json_group_array(id) FROM (SELECT id {_FRESH} :share + 1))), {_GREATEST % "q"}))
FROM (SELECT CAST(key AS INTEGER) AS hook_id, value AS head FROM json_each(:heads)) q
"""
_CLAIM: Final = """
UPDATE procore_hooks_deliveries
SET attempt_count = attempt_count + 1, lease_until = :until, claimed_at = :now, began_at = coalesce(began_at, :now),
    due_at = NULL
WHERE id IN (SELECT value FROM json_each(:ids))
"""
_ENTER_FLIGHT: Final = f"""
UPDATE procore_hooks_queues SET in_flight = in_flight + :taken, head = j.value, served = iif(:taken, :turn, served),
    ready_at = {ready(in_flight="in_flight + :taken", head="j.value")}
FROM json_each(:heads) AS j WHERE procore_hooks_queues.hook_id = CAST(j.key AS INTEGER)
"""
# When there is something to do again: a queue is ready, a lease ends; and whether a queue is being swept.
DUE: Final = """(SELECT min(ready_at) FROM procore_hooks_queues WHERE ready_at IS NOT NULL),
    (SELECT min(lease_until) FROM procore_hooks_deliveries WHERE lease_until IS NOT NULL),
    EXISTS (SELECT 1 FROM procore_hooks_queues WHERE sweep_from IS NOT NULL)"""
_NEXT_DUE: Final = f"SELECT {DUE}"
_LOAD: Final = f"""
SELECT d.id, d.hook_id, d.attempt_count, iif(d.attempt_count > 1, d.began_at, NULL), {EVENT_COLUMNS}, {DUE}
FROM json_each(?) j CROSS JOIN procore_hooks_deliveries d ON d.id = j.value
    CROSS JOIN procore_hooks_events e ON e.id = d.event_id
"""
_LOAD_HOOKS: Final = f"""
SELECT json_group_array(json_array({HOOK_COLUMNS}))
FROM json_each(?) j CROSS JOIN procore_hooks_hooks h ON h.id = j.value
    CROSS JOIN procore_hooks_queues q ON q.hook_id = h.id
"""
# Claims, and what DUE says.
Loaded = tuple[tuple[Claim, ...], tuple[int | None, int | None, int]]


@attrs.define
class Queue:
    """A queue that calls itself ready, and what is taken from it.

    After a clock stepped back, or where the last row above the head is no longer fresh, there may be nothing to take.

    Attributes:
        hook: as it is now, and not later: once it is deleted it has no secrets any more.
        taken: ids of deliveries.
        new_head: nothing up to it is fresh any more.
    """

    hook: Hook
    room: int
    epoch: int
    failures: int
    head: int
    is_short: bool
    new_head: int
    share: int = 0
    taken: list[int] = attrs.field(factory=list)

    def take(self, share: int, returned: list[int], fresh: list[int], beyond: int | None) -> None:
        """Take `share` of what there is, or all if it is less.

        `beyond` is 0 where more fresh ones follow those in `fresh`, else the hook's greatest id, if it has any.
        """
        self.share = share
        self.taken = (returned + fresh)[:share]
        self.is_short = len(self.taken) < share
        fresh_taken = self.taken[len(returned) :]
        if len(fresh_taken) == len(fresh) and beyond != 0:
            # The last fresh one is taken: what lies above it, if anything, is no longer fresh.
            self.new_head = beyond or self.head
        else:
            self.new_head = fresh_taken[-1] if fresh_taken else self.head


def end_waits(cursor: sqlite3.Cursor, due: int) -> None:
    """Make ready the queues whose pause is over, or whose next delivery is due."""
    cursor.execute(_WAKE, (due,))


def pick(
    cursor: sqlite3.Cursor, cache: HookCache, turn: int, now: int, due: int, lease: timedelta, capacity: int
) -> list[Queue]:
    """Claim up to `capacity` deliveries, from the queues that were served longest ago, in the turn of that number."""
    if capacity <= 0:
        return []
    queues = _find_queues(cursor, cache, due, capacity)
    if not queues:
        return []
    _share_out(cursor, queues, capacity, due)
    _mark_claimed(cursor, queues, turn, now, due, lease)
    return [queue for queue in queues if queue.taken]


def _find_queues(cursor: sqlite3.Cursor, cache: HookCache, due: int, capacity: int) -> list[Queue]:
    """The queues whose turn it is: as many as there is room for, those with nothing to take not counted.

    Those of hooks whose secrets cannot be read wait, as they are, and do not count either.
    """
    queues: list[Queue] = []
    while True:
        wanted = capacity - sum(1 for queue in queues if queue.taken)
        parameters = {"due": due, "wanted": wanted, "known": len(queues)}
        rows = json.loads(cursor.execute(_PICK_QUEUES, parameters).fetchone()[0])
        hooks = cache.load(cursor, [tuple(row[:_SEEN]) for row in rows])
        found = [_with_the_first(hooks[row[0]], row) for row in rows if row[0] in hooks]
        queues += found
        if len(found) < len(rows):
            set_aside(cursor, [row[0] for row in rows if row[0] not in hooks], due)
        # Else there may be more of them: nobody gets a second delivery before they had a first.
        if len(rows) < wanted or (len(found) == len(rows) and all(queue.taken for queue in found)):
            return queues


def _with_the_first(hook: Hook, row: Sequence[Any]) -> Queue:
    """The queue that is a row of _PICK_QUEUES, with its first delivery taken."""
    room, epoch, failures, head, returned, fresh, beyond = row[_SEEN:]
    first = fresh if returned is None else returned
    if room <= 0:
        return Queue(hook, room, epoch, failures, head, is_short=True, new_head=head)
    new_head = head
    if fresh is None:
        new_head = beyond or head
    elif returned is None:
        new_head = beyond or fresh
    # Where a single event waits, which is where most emits find a dispatcher, no statement asks for more.
    is_short = returned is None and beyond != 0
    return Queue(hook, room, epoch, failures, head, is_short, new_head, 1, [] if first is None else [first])


def _share_out(cursor: sqlite3.Cursor, queues: Sequence[Queue], capacity: int, due: int) -> None:
    """Share the room evenly; what a short queue leaves over goes to the others in another round."""
    if all(queue.is_short for queue in queues):
        return
    while sum(len(queue.taken) for queue in queues) < capacity:
        shares = _even_shares([len(q.taken) if q.is_short else q.room for q in queues], capacity)
        grown: dict[int, list[Queue]] = {}
        for queue, share in zip(queues, shares, strict=True):
            if share > queue.share and not queue.is_short:
                grown.setdefault(share, []).append(queue)
        if not grown:
            return
        for share, hungry in grown.items():
            _take(cursor, hungry, share, due)


def _take(cursor: sqlite3.Cursor, queues: Sequence[Queue], share: int, due: int) -> None:
    heads = json.dumps({queue.hook.id: queue.head for queue in queues})
    parameters = {"heads": heads, "share": share, "due": due}
    rows = json.loads(cursor.execute(_PICK_DELIVERIES, parameters).fetchone()[0])
    for queue, (returned, fresh, greatest) in zip(queues, rows, strict=True):
        queue.take(share, returned, fresh[:share], 0 if len(fresh) > share else greatest)


def _even_shares(rooms: Sequence[int], capacity: int) -> list[int]:
    """Share `capacity` among queues with these rooms: nobody gets a second before everybody has a first."""
    shares = [0] * len(rooms)
    open_queues = [index for index, room in enumerate(rooms) if room > 0]
    while capacity > 0 and open_queues:
        each = max(1, capacity // len(open_queues))
        for index in open_queues:
            more = min(each, rooms[index] - shares[index], capacity)
            shares[index] += more
            capacity -= more
        open_queues = [index for index in open_queues if shares[index] < rooms[index]]
    return shares


def _mark_claimed(
    cursor: sqlite3.Cursor, queues: Sequence[Queue], turn: int, now: int, due: int, lease: timedelta
) -> None:
    ids = [delivery_id for queue in queues for delivery_id in queue.taken]
    if ids:
        until = now + lease // timedelta(microseconds=1)
        cursor.execute(_CLAIM, {"until": until, "now": now, "ids": json.dumps(ids)})
    heads: dict[int, dict[int, int]] = {}
    for queue in queues:
        heads.setdefault(len(queue.taken), {})[queue.hook.id] = queue.new_head
    for taken, alike in heads.items():
        cursor.execute(_ENTER_FLIGHT, {"taken": taken, "heads": json.dumps(alike), "turn": turn, "due": due})


class HookCache:
    """Hooks by the versions of their rows: to decrypt and decode one anew for each claim would be most of the work."""

    def __init__(self, keys: KeyRing | None) -> None:
        self._keys = keys
        self._hooks: dict[int, tuple[tuple[Any, ...], Hook]] = {}
        self._unreadable: list[SecretUnreadable] = []
        self._logged_at = float("-inf")

    def load(self, cursor: sqlite3.Cursor, seen: Sequence[tuple[Any, ...]]) -> dict[int, Hook]:
        """The hooks as they are now, without those whose secrets are damaged, or not decrypted by the keys at hand.

        `seen` has what is known of each: id, version, failing since, paused until; the latter two are the queue's.

        Raises `SecretUnreadable` if one is encrypted and there are no keys at all: this process is at fault then.
        """
        known: dict[int, Hook] = {}
        unknown: dict[int, tuple[Any, ...]] = {}
        for one in seen:
            was, hook = self._hooks.get(one[0], (None, None))
            if hook is not None and was == one:
                known[one[0]] = hook
            else:
                unknown[one[0]] = one
        if not unknown:
            return known
        found = self._read(cursor, list(unknown))
        if len(self._hooks) > _MOST_CACHED:
            self._hooks.clear()
        self._hooks.update((hook_id, (unknown[hook_id], hook)) for hook_id, hook in found.items())
        return known | found

    def _read(self, cursor: sqlite3.Cursor, hook_ids: Sequence[int]) -> dict[int, Hook]:
        found = {}
        for row in json.loads(cursor.execute(_LOAD_HOOKS, (json.dumps(hook_ids),)).fetchone()[0]):
            try:
                found[row[0]] = hook_from_row(row, self._keys)
            except SecretUnreadable as error:
                if self._keys is None and error.key_id is not None:
                    raise
                self._unreadable.append(error)
        return found

    def log_trouble(self) -> None:
        """Say, once a minute, what could not be read. After the transaction, since a log may be in this very file."""
        unreadable, self._unreadable = self._unreadable, []
        now = time.monotonic()
        if unreadable and now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            _log.error(
                "hooks that cannot be read, whose deliveries wait meanwhile: %d; the first: %s",
                len(unreadable),
                unreadable[0],
            )


def load_claims(cursor: sqlite3.Cursor, picked: Sequence[Queue], now: datetime, lease_until: datetime) -> Loaded:
    """The claims of what was picked, with their events; and what DUE says."""
    queues = {queue.hook.id: queue for queue in picked}
    ids = [delivery_id for queue in picked for delivery_id in queue.taken]
    claims, due = [], None
    # Row by row: each is let go before the next one comes.
    for delivery_id, hook_id, number, began_at, *event, ready_at, lease_ends, sweeping in (
        cursor.execute(_LOAD, (json.dumps(ids),)) if ids else ()
    ):
        due = ready_at, lease_ends, sweeping
        queue = queues[hook_id]
        claims.append(
            Claim(
                delivery_id=delivery_id,
                hook=queue.hook,
                event=event_from_row(event),
                number=number,
                epoch=queue.epoch,
                failures=queue.failures,
                first_attempt_at=moment_or_none(began_at),
                claimed_at=now,
                lease_until=lease_until,
            )
        )
    return tuple(claims), due or cursor.execute(_NEXT_DUE).fetchone()
