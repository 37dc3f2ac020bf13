"""The part that decides and rings: decide, record, act."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cofferdam.brokers.broker import Part, Setting
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.errors import CrossingError
from cofferdam.policy.table import CompiledPolicy
from tests.gate.bell.broker import BELL
from tests.gate.bell.events import BellRung
from tests.gate.bell.records import Ring, Rung
from tests.gate.bell.rows import BellRows


class Inner(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._setting = setting
        self._policy = setting.policy
        self._outer = setting.senders["outer"]
        self._figures = Figures(BELL.figures["inner"])
        self._severed = frozenset(setting.severed)
        self._halted = False

    def on_record(self, source: str, record: Any) -> None:
        if not isinstance(record, Ring):
            raise CrossingError("no question")
        who = self._policy.principals_of(record.source)
        if self._severed or not self._allows(who, record.bell):
            self._outer.send(Rung(record.number, False))
            return

        def recorded(durable: bool, reason: str) -> None:
            if self._halted:
                return
            if durable:
                self._figures.add("rung", label=record.bell)
            self._outer.send(Rung(record.number, durable))

        rung: Any = BellRung(
            wall_ns=self._setting.wall(), principal=who[0], bell=record.bell
        )  # no draft, but in the copy
        self._setting.audit.record(rung, recorded)

    def _allows(self, who: Collection[str], bell: str) -> bool:
        found = [conduit.terms for conduit in self._policy.conduits.values()]
        return any(isinstance(row, BellRows) and row.allows(who, bell) for row in found)

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._policy = policy
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        self._severed = frozenset(sides)

    def halt(self) -> None:
        self._halted = True

    def figures(self) -> Reported:
        return self._figures.report()
