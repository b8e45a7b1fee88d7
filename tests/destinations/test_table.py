"""Policies against a second table, written apart from the first: see table.py.

30,000 addresses by default, 1,000,000 with PROCORE_HOOKS_FULL=1. The edges of every block, alone and in every form that
carries an IPv4 address, are among them each time.
"""

from __future__ import annotations

import pytest

from procore_hooks import DestinationPolicy, Judgement

from ..scene import FULL
from . import table
from .players import play


def test_addresses_are_judged_as_by_the_second_table() -> None:
    """At every edge of a block and at random addresses of every form, policies and the second table agree."""
    told, broken = play("table", 1_000_000 if FULL else 30_000)
    assert told
    assert not broken


def test_every_verdict_occurs() -> None:
    """Among the edges alone each table allows some addresses and denies others, or they would show nothing."""
    for name, each in table.TABLES.items():
        verdicts = {each.allows(address, 443) for address in table.addresses(1, 0)}
        assert verdicts == {True, False}, name


def test_a_policy_that_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that judges as nobody should is found out, with the address."""
    judge = DestinationPolicy.judge

    def wrong(policy: DestinationPolicy, text: str, port: int) -> Judgement:
        judgement = judge(policy, text, port)
        return Judgement(not judgement.allowed, "as a test") if text == "224.0.0.0" else judgement

    monkeypatch.setattr(DestinationPolicy, "judge", wrong)
    assert any(line.startswith("224.0.0.0 at") for line in table.compare(1, 0))
