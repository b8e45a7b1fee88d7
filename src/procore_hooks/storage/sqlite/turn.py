"""A turn: settle what finished, discard what was dropped, return what a crash left open, claim what fits.

Every step is one statement for all rows together, and what it finds comes back as one row of JSON: a statement that
returns a row for each delivery would give the interpreter lock away each time, inside the write transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from ..._core.claims import Claim, Settled, Settlement, Turn
from ..._core.models import Attempt, Hook, masked_url
from .connection import Database
from .ready import ready
from .rows import (
    ATTEMPTS_PER_DELIVERY,
    EVENT_COLUMNS,
    HOOK_COLUMNS,
    STATES,
    attempt_row,
    event_from_row,
    hook_from_row,
    moment,
    moment_or_none,
    stamp,
    stamp_or_none,
)

__all__ = ["Turns", "sweep"]

_LEFT_OPEN: Final = "no result was recorded: the process that made this attempt ended, or lost its lease"
_RETRYING, _DISCARDED = 1, 4
_SWEPT_AT_ONCE: Final = 1000
_EXPIRED_AT_ONCE: Final = 1000

_NEXT_DUE: Final = """
SELECT (SELECT min(ready_at) FROM procore_hooks_queues WHERE ready_at IS NOT NULL),
    (SELECT min(lease_until) FROM procore_hooks_deliveries WHERE lease_until IS NOT NULL),
    EXISTS (SELECT 1 FROM procore_hooks_queues WHERE sweep_from IS NOT NULL)
"""
_HOLDING: Final = """
SELECT json_group_array(json_array(j.key, q.epoch, d.id <= q.dropped_through, q.drop_reason))
FROM json_each(?) j CROSS JOIN procore_hooks_deliveries d ON d.id = j.value ->> 0
    CROSS JOIN procore_hooks_queues q ON q.hook_id = d.hook_id
WHERE d.lease_until IS NOT NULL AND d.attempt_count = j.value ->> 1
"""
_EXPIRED: Final = """
SELECT json_group_array(json_array(d.id, d.hook_id, d.attempt_count, d.claimed_at, h.destination_url,
    d.id <= q.dropped_through, q.drop_reason))
FROM (SELECT id FROM procore_hooks_deliveries WHERE lease_until IS NOT NULL AND lease_until <= ? LIMIT ?) x
    CROSS JOIN procore_hooks_deliveries d ON d.id = x.id
    CROSS JOIN procore_hooks_queues q ON q.hook_id = d.hook_id
    CROSS JOIN procore_hooks_hooks h ON h.id = d.hook_id
"""
_END_ATTEMPTS: Final = """
UPDATE procore_hooks_deliveries SET state = j.state, completed_at = j.completed_at, due_at = j.due_at,
    reason = j.reason, lease_until = NULL, claimed_at = NULL
FROM (SELECT value ->> 0 AS id, value ->> 1 AS state, value ->> 2 AS completed_at, value ->> 3 AS due_at,
    value ->> 4 AS reason FROM json_each(?)) AS j
WHERE procore_hooks_deliveries.id = j.id
"""
_LEAVE_FLIGHT: Final = f"""
UPDATE procore_hooks_queues SET in_flight = in_flight - j.ended,
    ready_at = {ready(in_flight="in_flight - j.ended")}
FROM (SELECT value ->> 0 AS hook_id, value ->> 1 AS ended FROM json_each(:ended)) AS j
WHERE procore_hooks_queues.hook_id = j.hook_id
"""
_CHANGE: Final = f"""
UPDATE procore_hooks_queues SET failures = j.failures, failing_since = j.failing_since, paused_until = j.paused_until,
    enabled = CASE WHEN NOT j.disabled THEN enabled
        WHEN (SELECT when_disabled FROM procore_hooks_hooks h WHERE h.id = j.hook_id) = 'drop' THEN -1 ELSE 0 END,
    epoch = epoch + 1,
    ready_at = {ready(failures="j.failures", paused_until="j.paused_until", enabled="iif(j.disabled, 0, enabled)")}
FROM (SELECT value ->> 0 AS hook_id, value ->> 1 AS failures, value ->> 2 AS failing_since, value ->> 3 AS paused_until,
    value ->> 4 AS disabled FROM json_each(:changes)) AS j
WHERE procore_hooks_queues.hook_id = j.hook_id
"""
_DISABLE: Final = """
UPDATE procore_hooks_hooks SET status = 'disabled', updated_at = ?2
WHERE id IN (SELECT value FROM json_each(?1)) AND deleted_at IS NULL
"""
_FLUSH: Final = """
UPDATE procore_hooks_queues SET drop_reason = ?1, sweep_from = coalesce(sweep_from, head), ready_at = NULL,
(dropped_through, head) = (SELECT m, m FROM (SELECT coalesce(max(id), 0) AS m FROM procore_hooks_deliveries d
    WHERE d.hook_id = ?2))
WHERE hook_id = ?2
"""
_SWEEP_RETURNED: Final = """
SELECT json_group_array(id) FROM (
    SELECT id FROM procore_hooks_deliveries INDEXED BY procore_hooks_deliveries_returned
    WHERE hook_id = ?1 AND due_at IS NOT NULL AND id <= ?3 LIMIT ?4)
"""
_SWEEP_FRESH: Final = """
SELECT json_group_array(id) FROM (
    SELECT id FROM procore_hooks_deliveries
    WHERE hook_id = ?1 AND id > ?2 AND id <= ?3 AND state = 0 AND lease_until IS NULL ORDER BY id LIMIT ?4)
"""
_DISCARD: Final = """
UPDATE procore_hooks_deliveries SET state = 4, completed_at = ?2, due_at = NULL, reason = ?3
WHERE id IN (SELECT value FROM json_each(?1))
"""
_SWEPT: Final = f"""
UPDATE procore_hooks_queues SET sweep_from = NULL, ready_at = {ready(sweep_from="NULL")} WHERE hook_id = :hook
"""
_WAKE: Final = "UPDATE procore_hooks_queues SET ready_at = 0 WHERE ready_at > 0 AND ready_at <= ?"
_PICK_QUEUES: Final = """
SELECT json_group_array(json_array(hook_id, room, epoch, failures, head)) FROM (
    SELECT hook_id, iif(failures > 0, 1, max_in_flight) - in_flight AS room, epoch, failures, head
    FROM procore_hooks_queues WHERE ready_at = 0 ORDER BY served LIMIT ?)
"""
_PICK_DELIVERIES: Final = """
SELECT json_group_array(json_array(value ->> 0,
    (SELECT json_group_array(id) FROM (SELECT id FROM procore_hooks_deliveries
        WHERE hook_id = value ->> 0 AND due_at IS NOT NULL AND due_at <= :due ORDER BY due_at, id LIMIT :share)),
    (SELECT json_group_array(id) FROM (SELECT id FROM procore_hooks_deliveries
        WHERE hook_id = value ->> 0 AND id > value ->> 1 AND state = 0 AND due_at IS NULL AND lease_until IS NULL
        ORDER BY id LIMIT :share)),
    (SELECT max(id) FROM procore_hooks_deliveries WHERE hook_id = value ->> 0)))
FROM json_each(:hooks)
"""
_CLAIM: Final = """
UPDATE procore_hooks_deliveries
SET attempt_count = attempt_count + 1, lease_until = ?2, claimed_at = ?3, due_at = NULL
WHERE id IN (SELECT value FROM json_each(?1))
"""
_ENTER_FLIGHT: Final = f"""
UPDATE procore_hooks_queues SET in_flight = in_flight + j.taken, head = j.head, served = :turn,
    ready_at = {ready(in_flight="in_flight + j.taken", head="j.head")}
FROM (SELECT value ->> 0 AS hook_id, value ->> 1 AS taken, value ->> 2 AS head FROM json_each(:picked)) AS j
WHERE procore_hooks_queues.hook_id = j.hook_id
"""
_LOAD: Final = f"""
SELECT d.id, d.hook_id, d.attempt_count, a.started_at, {EVENT_COLUMNS}
FROM json_each(?) j CROSS JOIN procore_hooks_deliveries d ON d.id = j.value
    CROSS JOIN procore_hooks_events e ON e.id = d.event_id
    LEFT JOIN procore_hooks_attempts a ON a.id = d.id * {ATTEMPTS_PER_DELIVERY} + 1
"""
_LOAD_HOOKS: Final = f"""
SELECT json_group_array(json_array({HOOK_COLUMNS})) FROM json_each(?) j CROSS JOIN procore_hooks_hooks h ON h.id = j.value
    CROSS JOIN procore_hooks_queues q ON q.hook_id = h.id
"""


@attrs.frozen
class _Ended:
    """An attempt that is over: what its delivery becomes."""

    delivery_id: int
    hook_id: int
    state: int
    completed_at: int | None
    due_at: int | None
    reason: str | None
    attempt: Attempt


@attrs.frozen
class _Picked:
    """Deliveries taken from one queue."""

    hook_id: int
    delivery_ids: list[int]
    head: int
    epoch: int
    failures: int


class Turns:
    """The turns of one database, with what is worth remembering between them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._request_ids: dict[tuple[str, str], int] = {}
        self._hooks: dict[int, tuple[list[Any], Hook]] = {}

    def turn(
        self, settlements: Sequence[Settlement], now: datetime, due_by: datetime, lease: timedelta, capacity: int
    ) -> Turn:
        """See `Storage.turn`."""
        if not settlements:
            with self._database.read() as cursor:
                ready_at, lease_until, sweeping = cursor.execute(_NEXT_DUE).fetchone()
            claimable = capacity > 0 and ready_at is not None and ready_at <= stamp(due_by)
            if not (claimable or sweeping or (lease_until is not None and lease_until <= stamp(now))):
                return Turn(next_due_at=_earliest(ready_at, lease_until, sweeping))
        try:
            with self._database.write() as cursor:
                settled, late = self._settle(cursor, settlements, stamp(now), stamp(due_by))
                expired = self._return_expired(cursor, stamp(now), stamp(due_by))
                discarded = sweep(cursor, stamp(now), stamp(due_by))
                picked = _pick(cursor, stamp(now), stamp(due_by), lease, capacity)
                # Here and not later: a hook that is deleted in between has no secrets any more.
                hooks = self._load_hooks(cursor, [one.hook_id for one in picked])
        except BaseException:
            self._request_ids.clear()  # some may have been rolled back
            raise
        with self._database.read() as cursor:
            claims = _load(cursor, picked, hooks, now, now + lease)
            next_due_at = _earliest(*cursor.execute(_NEXT_DUE).fetchone())
        return Turn(
            settled=tuple(settled),
            late=tuple(late),
            discarded=discarded,
            expired=expired,
            claims=tuple(claims),
            next_due_at=next_due_at,
        )

    def _settle(
        self, cursor: sqlite3.Cursor, settlements: Sequence[Settlement], now: int, due: int
    ) -> tuple[list[Settled], list[Settlement]]:
        if not settlements:
            return [], []
        fences = json.dumps([[s.claim.delivery_id, s.claim.number] for s in settlements])
        holding: dict[int, list[Any]] = {
            row[0]: row[1:] for row in json.loads(cursor.execute(_HOLDING, (fences,)).fetchone()[0])
        }
        epochs: dict[int, int] = {}
        settled: list[Settled] = []
        ended: list[_Ended] = []
        for index, settlement in enumerate(settlements):
            if index not in holding:
                continue
            epoch, dropped, drop_reason = holding[index]
            hook_id = settlement.claim.hook.id
            changed = settlement.hook_change is not None and epochs.get(hook_id, epoch) == settlement.claim.epoch
            if changed:
                epochs[hook_id] = epoch + 1
            one = _ended(settlement, drop_reason if dropped else None, now)
            ended.append(one)
            settled.append(Settled(settlement=settlement, status=STATES[one.state], changed=changed))
        self._end_attempts(cursor, ended, due)
        _change_queues(cursor, settled, now, due)
        return settled, [s for index, s in enumerate(settlements) if index not in holding]

    def _return_expired(self, cursor: sqlite3.Cursor, now: int, due: int) -> int:
        rows = json.loads(cursor.execute(_EXPIRED, (now, _EXPIRED_AT_ONCE)).fetchone()[0])
        ended = []
        for delivery_id, hook_id, number, claimed_at, url, dropped, drop_reason in rows:
            attempt = Attempt(
                number=number,
                outcome="unknown",
                request_url=masked_url(url),
                response_error=_LEFT_OPEN,
                started_at=moment(claimed_at),
            )
            if dropped:
                ended.append(_Ended(delivery_id, hook_id, _DISCARDED, now, None, drop_reason, attempt))
            else:
                ended.append(_Ended(delivery_id, hook_id, _RETRYING, None, 0, None, attempt))
        self._end_attempts(cursor, ended, due)
        return len(ended)

    def _end_attempts(self, cursor: sqlite3.Cursor, ended: Sequence[_Ended], due: int) -> None:
        if not ended:
            return
        self._insert_attempts(cursor, ended)
        rows = [[e.delivery_id, e.state, e.completed_at, e.due_at, e.reason] for e in ended]
        cursor.execute(_END_ATTEMPTS, (json.dumps(rows),))
        per_hook: dict[int, int] = {}
        for one in ended:
            per_hook[one.hook_id] = per_hook.get(one.hook_id, 0) + 1
        cursor.execute(_LEAVE_FLIGHT, {"ended": json.dumps(list(per_hook.items())), "due": due})

    def _insert_attempts(self, cursor: sqlite3.Cursor, ended: Sequence[_Ended]) -> None:
        rows = [attempt_row(e.delivery_id, e.attempt, self._request_id(cursor, e.attempt)) for e in ended]
        # Bodies are bytes, which JSON cannot hold: so many rows of parameters. Sizes are powers of two, so that a
        # few statements serve and stay prepared.
        start = 0
        while start < len(rows):
            size = min(128, 1 << ((len(rows) - start).bit_length() - 1))
            chunk = rows[start : start + size]
            marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * size)
            parameters = [value for row in chunk for value in row]
            cursor.execute(f"INSERT INTO procore_hooks_attempts VALUES {marks}", parameters)
            start += size

    def _request_id(self, cursor: sqlite3.Cursor, attempt: Attempt) -> int:
        """The URL and the headers are the same for most attempts of a hook: they are stored once."""
        headers = {
            name: value
            for name, value in attempt.request_headers.items()
            if name not in ("webhook-id", "webhook-timestamp", "webhook-signature")
        }
        key = (attempt.request_url, json.dumps(headers, separators=(",", ":")))
        known = self._request_ids.get(key)
        if known is None:
            cursor.execute("INSERT OR IGNORE INTO procore_hooks_requests (url, headers) VALUES (?, ?)", key)
            known = int(
                cursor.execute("SELECT id FROM procore_hooks_requests WHERE url = ? AND headers = ?", key).fetchone()[0]
            )
            if len(self._request_ids) > 10_000:
                self._request_ids.clear()
            self._request_ids[key] = known
        return known

    def _load_hooks(self, cursor: sqlite3.Cursor, hook_ids: list[int]) -> dict[int, Hook]:
        if not hook_ids:
            return {}
        if len(self._hooks) > 10_000:
            self._hooks.clear()
        found = {}
        for row in json.loads(cursor.execute(_LOAD_HOOKS, (json.dumps(hook_ids),)).fetchone()[0]):
            cached = self._hooks.get(row[0])
            if cached is None or cached[0] != row:
                cached = self._hooks[row[0]] = (row, hook_from_row(row))
            found[row[0]] = cached[1]
        return found


def _load(
    cursor: sqlite3.Cursor, picked: Sequence[_Picked], hooks: dict[int, Hook], now: datetime, lease_until: datetime
) -> list[Claim]:
    if not picked:
        return []
    queues = {one.hook_id: one for one in picked}
    ids = [delivery_id for one in picked for delivery_id in one.delivery_ids]
    return [
        Claim(
            delivery_id=row[0],
            hook=hooks[row[1]],
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


def _earliest(ready_at: int | None, lease_until: int | None, sweeping: int) -> datetime | None:
    if sweeping:
        return moment(0)
    moments = [value for value in (ready_at, lease_until) if value is not None]
    return moment(min(moments)) if moments else None


def _ended(settlement: Settlement, drop_reason: str | None, now: int) -> _Ended:
    claim, status, attempt = settlement.claim, settlement.status, settlement.attempt
    if status == "retrying" and drop_reason is None:
        due_at = stamp_or_none(settlement.due_at) or 0
        return _Ended(claim.delivery_id, claim.hook.id, _RETRYING, None, due_at, None, attempt)
    reason = settlement.reason
    if status == "retrying":
        status, reason = "discarded", drop_reason
        attempt = attrs.evolve(attempt, outcome="discarded")
    state = STATES.index(status)
    return _Ended(claim.delivery_id, claim.hook.id, state, now, None, reason, attempt)


def _change_queues(cursor: sqlite3.Cursor, settled: Sequence[Settled], now: int, due: int) -> None:
    changes = [
        (one.settlement.claim.hook.id, one.settlement.hook_change)
        for one in settled
        if one.changed and one.settlement.hook_change is not None
    ]
    if not changes:
        return
    rows = [
        [hook_id, c.failures, stamp_or_none(c.failing_since), stamp_or_none(c.paused_until), int(c.disable)]
        for hook_id, c in changes
    ]
    cursor.execute(_CHANGE, {"changes": json.dumps(rows), "due": due})
    disabled = [hook_id for hook_id, change in changes if change.disable]
    if disabled:
        cursor.execute(_DISABLE, (json.dumps(disabled), now))
    for hook_id, change in changes:
        if change.flush_reason is not None:
            cursor.execute(_FLUSH, (change.flush_reason, hook_id))


def sweep(cursor: sqlite3.Cursor, now: int, due: int, hook_id: int | None = None) -> int:
    """Discard some of what was dropped; of one hook, or of whichever have something left."""
    left = _SWEPT_AT_ONCE
    only = "" if hook_id is None else "AND hook_id = ?1"
    rows = cursor.execute(
        f"""SELECT hook_id, dropped_through, drop_reason, sweep_from FROM procore_hooks_queues
        WHERE sweep_from IS NOT NULL {only} LIMIT 100""",
        () if hook_id is None else (hook_id,),
    ).fetchall()
    for hook, through, reason, start in rows:
        for statement in (_SWEEP_RETURNED, _SWEEP_FRESH):
            if left <= 0:
                break
            ids = json.loads(cursor.execute(statement, (hook, start, through, left)).fetchone()[0])
            cursor.execute(_DISCARD, (json.dumps(ids), now, reason))
            left -= len(ids)
            if statement is _SWEEP_FRESH and ids:
                # The next one goes on from here, and does not look at these rows again.
                cursor.execute("UPDATE procore_hooks_queues SET sweep_from = ? WHERE hook_id = ?", (ids[-1], hook))
        if left > 0:
            cursor.execute(_SWEPT, {"hook": hook, "due": due})
    return _SWEPT_AT_ONCE - left


def _pick(cursor: sqlite3.Cursor, now: int, due: int, lease: timedelta, capacity: int) -> list[_Picked]:
    if capacity <= 0:
        return []
    cursor.execute(_WAKE, (due,))
    queues = json.loads(cursor.execute(_PICK_QUEUES, (capacity,)).fetchone()[0])
    if not queues:
        return []
    picked = []
    shares = _even_shares([row[1] for row in queues], capacity)
    by_share: dict[int, list[list[int]]] = {}
    for (hook_id, _, _, _, head), share in zip(queues, shares, strict=True):
        if share:
            by_share.setdefault(share, []).append([hook_id, head])
    facts = {row[0]: row for row in queues}
    for share, hooks in by_share.items():
        parameters = {"hooks": json.dumps(hooks), "share": share, "due": due}
        for hook_id, returned, fresh, greatest in json.loads(
            cursor.execute(_PICK_DELIVERIES, parameters).fetchone()[0]
        ):
            returned_ids, fresh_ids = _ids(returned), _ids(fresh)
            taken = (returned_ids + fresh_ids)[:share]
            fresh_taken = taken[len(returned_ids) :]
            head = facts[hook_id][4]
            if len(fresh_taken) < len(fresh_ids) or len(fresh_ids) == share:
                head = fresh_taken[-1] if fresh_taken else head
            else:
                # The last fresh one is taken: what lies above it, if anything, is no longer fresh.
                head = greatest or head
            picked.append(_Picked(hook_id, taken, head, facts[hook_id][2], facts[hook_id][3]))
    _mark_claimed(cursor, picked, now, due, lease)
    return [one for one in picked if one.delivery_ids]


def _ids(value: str | list[int]) -> list[int]:
    # JSON made by a subquery arrives as text inside the JSON around it.
    return list(json.loads(value)) if isinstance(value, str) else value


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


def _mark_claimed(cursor: sqlite3.Cursor, picked: Sequence[_Picked], now: int, due: int, lease: timedelta) -> None:
    ids = [delivery_id for one in picked for delivery_id in one.delivery_ids]
    if ids:
        cursor.execute(_CLAIM, (json.dumps(ids), now + lease // timedelta(microseconds=1), now))
    cursor.execute("UPDATE procore_hooks_turns SET number = number + 1")
    turn = cursor.execute("SELECT number FROM procore_hooks_turns").fetchone()[0]
    rows = [[one.hook_id, len(one.delivery_ids), one.head] for one in picked]
    cursor.execute(_ENTER_FLIGHT, {"picked": json.dumps(rows), "turn": turn, "due": due})
