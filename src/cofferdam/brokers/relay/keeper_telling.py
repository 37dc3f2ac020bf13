"""What happens often, and is counted for some seconds instead of having an entry each time: refusals, and readings
without a lease.

Not here: what commits tell (ledger).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events import relay as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.relay.keeper_work import Work
from cofferdam.policy.messages.checked import Problem

KINDS_MOST: Final = 1_000
KINDS_OF_ONE: Final = 64
"""Kinds of refusals that are counted apart, and those of one principal: what is more of it is one entry."""


class Telling:
    """What was counted since it was told."""

    def __init__(self, work: Work, audit: AuditClient) -> None:
        self._work = work
        self._audit = audit
        self._refusals: dict[tuple[str, str, str, str], events.MessageRefused] = {}
        self._times: dict[tuple[str, str, str, str], int] = {}
        self._kinds_of: dict[str, int] = {}
        self._read: dict[tuple[str, str], list[int]] = {}

    def count(self, record: Any, problem: Problem, key: str = "") -> None:
        """For the audit log."""
        self._work.figures.add("refused", 1, record.channel if record.channel in self._work.relay.channels else "")
        verb = type(record).__name__.lower()
        at = (record.channel, record.who, verb, problem.fault)
        if at not in self._refusals:
            kinds = self._kinds_of[record.who] = self._kinds_of.get(record.who, 0) + 1
            if kinds > KINDS_OF_ONE:
                at = ("", record.who, "any", "many")
                problem = Problem("many", "refusals of more kinds than are told apart")
        if at in self._refusals:
            self._times[at] += 1
        elif len(self._refusals) < KINDS_MOST:
            self._times[at] = 1
            right = self._work.relay.right(record.who, "push" if verb == "push" else "pull", record.channel)
            self._refusals[at] = events.MessageRefused(
                wall_ns=self._work.wall, channel=at[0], principal=record.who, verb=at[2], fault=problem.fault,
                detail=clip(problem.detail), place=clip(problem.place), key=clip(key), rule=right.rule if right else "",
            )  # fmt: skip

    def read(self, channel: str, who: str, count: int, first: int, last: int) -> None:
        """Messages of a channel were read without a lease."""
        read = self._read.setdefault((channel, who), [0, first, 0, self._work.wall])
        read[0] += count
        read[1], read[2] = min(read[1], first), max(read[2], last)

    def tell(self) -> None:
        """Hands the log what was counted."""
        refusals, self._refusals = self._refusals, {}
        for at, refused in refusals.items():
            self._audit.note(msgspec.structs.replace(refused, count=self._times[at]))
        self._times, self._kinds_of = {}, {}
        read, self._read = self._read, {}
        for (channel, who), (count, first, last, since) in read.items():
            self._audit.note(
                events.MessagesBrowsed(
                    wall_ns=self._work.wall, channel=channel, principal=who, count=count, first=first, last=last,
                    from_ns=since, to_ns=self._work.wall,
                )
            )  # fmt: skip
