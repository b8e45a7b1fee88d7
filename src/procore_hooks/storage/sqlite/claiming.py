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

__all__ = ["HookCache", "Picked", "end_waits", "load_claims", "pick"]

_log = logging.getLogger("procore_hooks")

_MOST_CACHED: Final = 10_000
_LOG_EVERY: Final = 60.0  # seconds

_WAKE: Final = "UPDATE procore_hooks_queues SET ready_at = 0 WHERE ready_at > 0 AND ready_at <= ?"
_PICK_QUEUES: Final = """
SELECT json_group_array(json_array(
    hook_id, version, failing_since, paused_until, room, epoch, failures, head, is_paused))
FROM (
    SELECT q.hook_id, h.version, q.failing_since, q.paused_until,
        iif(q.failures > 0, 1, q.max_in_flight) - q.in_flight AS room, q.epoch, q.failures, q.head,
        coalesce(q.paused_until > ?, 0) AS is_paused
    FROM procore_hooks_queues q CROSS JOIN procore_hooks_hooks h ON h.id = q.hook_id
    WHERE q.ready_at = 0 ORDER BY q.served, q.hook_id LIMIT ? OFFSET ?)
"""
_SEEN: Final = 4  # of these, what tells whether a hook is still the one that is known
# The indexes are named: after an ANALYZE that saw one hook with nearly all deliveries, SQLite would look for the fresh
# ones of any hook among all that are newer than its head.
_PICK_DELIVERIES: Final = """
SELECT json_group_array(json_array(value ->> 0,
    json((SELECT json_group_array(id) FROM (SELECT id
        FROM procore_hooks_deliveries INDEXED BY procore_hooks_deliveries_returned
        WHERE hook_id = value ->> 0 AND due_at IS NOT NULL AND due_at <= :due ORDER BY due_at, id LIMIT :share))),
    json((SELECT json_group_array(id) FROM (SELECT id
        FROM procore_hooks_deliveries INDEXED BY procore_hooks_deliveries_hook
        WHERE hook_id = value ->> 0 AND id > value ->> 1 AND state = 0 AND due_at IS NULL AND lease_until IS NULL
        ORDER BY id LIMIT :share + 1))),
    (SELECT max(id) FROM procore_hooks_deliveries WHERE hook_id = value ->> 0)))
FROM json_each(:hooks)
"""
_CLAIM: Final = """
UPDATE procore_hooks_deliveries
SET attempt_count = attempt_count + 1, lease_until = :until, claimed_at = :now, began_at = coalesce(began_at, :now),
    due_at = NULL
WHERE id IN (SELECT value FROM json_each(:ids))
"""
_ENTER_FLIGHT: Final = f"""
UPDATE procore_hooks_queues SET in_flight = in_flight + j.taken, head = j.head, served = iif(j.taken, :turn, served),
    ready_at = {ready(in_flight="in_flight + j.taken", head="j.head")}
FROM (SELECT value ->> 0 AS hook_id, value ->> 1 AS taken, value ->> 2 AS head FROM json_each(:picked)) AS j
WHERE procore_hooks_queues.hook_id = j.hook_id
"""
_LOAD: Final = f"""
SELECT d.id, d.hook_id, d.attempt_count, iif(d.attempt_count > 1, d.began_at, NULL), {EVENT_COLUMNS}
FROM json_each(?) j CROSS JOIN procore_hooks_deliveries d ON d.id = j.value
    CROSS JOIN procore_hooks_events e ON e.id = d.event_id
"""
_LOAD_HOOKS: Final = f"""
SELECT json_group_array(json_array({HOOK_COLUMNS}))
FROM json_each(?) j CROSS JOIN procore_hooks_hooks h ON h.id = j.value
    CROSS JOIN procore_hooks_queues q ON q.hook_id = h.id
"""


@attrs.frozen
class Picked:
    """Deliveries taken from one queue.

    Attributes:
        hook: as it is now, and not later: once it is deleted it has no secrets any more.
        head: the queue's new head: nothing up to it is fresh any more.
    """

    hook: Hook
    delivery_ids: list[int]
    head: int
    epoch: int
    failures: int


@attrs.define
class _Queue:
    """A queue that calls itself ready, and what is taken from it.

    After a clock stepped back, or where the last row above the head is no longer fresh, there may be nothing to take.
    """

    hook: Hook
    room: int
    epoch: int
    failures: int
    head: int
    is_short: bool
    share: int = 0
    taken: list[int] = attrs.field(factory=list)
    new_head: int = attrs.field(default=attrs.Factory(lambda self: self.head, takes_self=True))


def end_waits(cursor: sqlite3.Cursor, due: int) -> None:
    """Make ready the queues whose pause is over, or whose next delivery is due."""
    cursor.execute(_WAKE, (due,))


def pick(cursor: sqlite3.Cursor, cache: HookCache, now: int, due: int, lease: timedelta, capacity: int) -> list[Picked]:
    """Claim up to `capacity` deliveries, from the queues that were served longest ago."""
    if capacity <= 0:
        return []
    queues = _find_queues(cursor, cache, due, capacity)
    if not queues:
        return []
    _share_out(cursor, queues, capacity, due)
    picked = [Picked(q.hook, q.taken, q.new_head, q.epoch, q.failures) for q in queues]
    _mark_claimed(cursor, picked, now, due, lease)
    return [one for one in picked if one.delivery_ids]


def _find_queues(cursor: sqlite3.Cursor, cache: HookCache, due: int, capacity: int) -> list[_Queue]:
    """The queues whose turn it is: as many as there is room for, those with nothing to take not counted.

    Those of hooks whose secrets cannot be read wait, as they are, and do not count either.
    """
    queues: list[_Queue] = []
    while True:
        wanted = capacity - sum(1 for queue in queues if not queue.is_short or queue.taken)
        rows = json.loads(cursor.execute(_PICK_QUEUES, (due, wanted, len(queues))).fetchone()[0])
        hooks = cache.load(cursor, [row[:_SEEN] for row in rows])
        found = [_Queue(hooks[row[0]], *row[_SEEN:]) for row in rows if row[0] in hooks]
        queues += found
        if len(found) < len(rows):
            set_aside(cursor, [row[0] for row in rows if row[0] not in hooks], due)
        if len(rows) < wanted:
            return queues
        # There may be more of them: nobody gets a second delivery before they had a first.
        _take(cursor, [queue for queue in found if not queue.is_short], 1, due)
        if len(found) == len(rows) and all(queue.taken for queue in found):
            return queues


def _share_out(cursor: sqlite3.Cursor, queues: Sequence[_Queue], capacity: int, due: int) -> None:
    """Share the room evenly; what a short queue leaves over goes to the others in another round."""
    while True:
        shares = _even_shares([len(q.taken) if q.is_short else q.room for q in queues], capacity)
        grown: dict[int, list[_Queue]] = {}
        for queue, share in zip(queues, shares, strict=True):
            if share > queue.share and not queue.is_short:
                grown.setdefault(share, []).append(queue)
        if not grown:
            return
        for share, hungry in grown.items():
            _take(cursor, hungry, share, due)


def _take(cursor: sqlite3.Cursor, queues: Sequence[_Queue], share: int, due: int) -> None:
    parameters = {"hooks": json.dumps([[q.hook.id, q.head] for q in queues]), "share": share, "due": due}
    rows = json.loads(cursor.execute(_PICK_DELIVERIES, parameters).fetchone()[0])
    for queue, (_, returned_ids, fresh_ids, greatest) in zip(queues, rows, strict=True):
        queue.share = share
        queue.taken = (returned_ids + fresh_ids)[:share]
        fresh_taken = queue.taken[len(returned_ids) :]
        queue.is_short = len(queue.taken) < share
        if len(fresh_taken) == len(fresh_ids):
            # The last fresh one is taken: what lies above it, if anything, is no longer fresh.
            queue.new_head = greatest or queue.head
        else:
            queue.new_head = fresh_taken[-1] if fresh_taken else queue.head


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


def _mark_claimed(cursor: sqlite3.Cursor, picked: Sequence[Picked], now: int, due: int, lease: timedelta) -> None:
    ids = [delivery_id for one in picked for delivery_id in one.delivery_ids]
    if ids:
        until = now + lease // timedelta(microseconds=1)
        cursor.execute(_CLAIM, {"until": until, "now": now, "ids": json.dumps(ids)})
    turn = cursor.execute("UPDATE procore_hooks_turns SET number = number + 1 RETURNING number").fetchone()[0]
    rows = [[one.hook.id, len(one.delivery_ids), one.head] for one in picked]
    cursor.execute(_ENTER_FLIGHT, {"picked": json.dumps(rows), "turn": turn, "due": due})


class HookCache:
    """Hooks by the versions of their rows: to decrypt and decode one anew for each claim would be most of the work."""

    def __init__(self, keys: KeyRing | None) -> None:
        self._keys = keys
        self._hooks: dict[int, tuple[list[Any], Hook]] = {}
        self._unreadable: list[SecretUnreadable] = []
        self._logged_at = float("-inf")

    def load(self, cursor: sqlite3.Cursor, seen: Sequence[list[Any]]) -> dict[int, Hook]:
        """The hooks as they are now, without those whose secrets are damaged, or not decrypted by the keys at hand.

        `seen` has what is known of each: id, version, failing since, paused until; the latter two are the queue's.

        Raises `SecretUnreadable` if one is encrypted and there are no keys at all: this process is at fault then.
        """
        known: dict[int, Hook] = {}
        unknown: dict[int, list[Any]] = {}
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


def load_claims(cursor: sqlite3.Cursor, picked: Sequence[Picked], now: datetime, lease_until: datetime) -> list[Claim]:
    """The claims of what was picked, with their events."""
    if not picked:
        return []
    queues = {one.hook.id: one for one in picked}
    ids = [delivery_id for one in picked for delivery_id in one.delivery_ids]
    return [
        Claim(
            delivery_id=row[0],
            hook=queues[row[1]].hook,
            event=event_from_row(row[4:]),
            number=row[2],
            epoch=queues[row[1]].epoch,
            failures=queues[row[1]].failures,
            first_attempt_at=moment_or_none(row[3]),
            claimed_at=now,
            lease_until=lease_until,
        )
        for row in cursor.execute(_LOAD, (json.dumps(ids),)).fetchall()
    ]
