"""The part of a side that speaks with databases: drains outboxes, fills inboxes, and asks the keeper.

It has no store and opens no file; it connects to the databases that the policy names for its zone, and to nothing else
(the firewall holds that, too). To the keeper it is a side like any other.

Not here: the work on tables (table_work), their columns and SQL (table_schema).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from typing import Any, Final

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.http import KeysSet
from cofferdam.audit.events.relay import MessageRefused
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.kit.http.keys import Given, read_secrets
from cofferdam.brokers.relay.http_asking import Keeper
from cofferdam.errors import GateError, LocalProtocolError
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.relay_rows import Relay, RelayRows, Table, fingerprint

try:
    from cofferdam.brokers.relay.table_work import Inbox, Outbox, Work
except ImportError as error:  # said once the part is made
    _MISSING: ImportError | None = error
else:
    _MISSING = None

ALARMS_MOST: Final = 32

Wanted = tuple[Table, str, tuple[tuple[str, str], ...]]
"""(database, "push" or "pull", ((channel, principal), ...)): what one connection is for."""


class Tables(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if _MISSING is not None:
            raise GateError(f"a relay with tables needs psycopg: {_MISSING}", hint="pip install 'cofferdam[relay]'")
        if setting.start is None:
            raise LocalProtocolError("a part with databases needs a loop with tasks")
        self._setting = setting
        self._start = setting.start
        self.keeper = Keeper(setting.senders["keeper"], asyncio.get_event_loop())
        self.checks = Checks(Relay(()))
        self.counts = {"table_rows_taken": 0, "table_rows_booked": 0}
        self._secrets = read_secrets(setting.secrets, setting.broker)
        self._wanted: frozenset[Wanted] = frozenset()
        self._work: dict[Wanted, Work] = {}
        self._leaving: list[Work] = []
        self._cut = False
        self._stopping = False
        self._work_by(setting.policy)
        self.set_severed(setting.severed)

    # --- the gate

    def _work_by(self, policy: CompiledPolicy) -> None:
        rows = {
            name: conduit.terms for name, conduit in policy.conduits.items() if isinstance(conduit.terms, RelayRows)
        }
        self.policy = policy
        self.checks = Checks(Relay(rows.items()))
        self._wanted = frozenset(_wanted(rows.values()))
        self._settle_work()  # what is no longer allowed asks for nothing any more
        self.keeper.works(fingerprint(rows))

    def _settle_work(self, renewed: Collection[str] = ()) -> None:
        """Starts what is wanted and stops the rest; `renewed`: passwords that are others now."""
        wanted = frozenset() if self._cut or self._stopping else self._wanted
        for key in [key for key in self._work if key not in wanted or key[0].password in renewed]:
            work = self._work.pop(key)
            work.stop(now=self._cut)
            self._leaving.append(work)
        for table, verb, ways in sorted(wanted - self._work.keys(), key=repr):
            made: Work = Outbox(self, table, ways) if verb == "push" else Inbox(self, table, *ways[0])
            self._work[table, verb, ways] = made
            self._start(self._run(made))

    async def _run(self, work: Work) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # while it connected, by itself
            await work.run()

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        before = set(self._work)
        self._work_by(policy)
        return len(before - self._work.keys())

    def set_severed(self, sides: Collection[str]) -> None:
        zones = {table.zone for table, _, _ in self._wanted}
        self._cut = any(self.policy.zones[zone].side in sides for zone in zones)
        self._settle_work()

    def command(self, asked: Asked) -> None:
        if asked.verb != "secrets":
            super().command(asked)
            return
        given = asked.decode(Given)
        before, now = self._secrets.passwords, given.secrets.passwords
        self._secrets = given.secrets
        renewed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        self._settle_work(renewed)
        self._setting.audit.note(
            KeysSet(
                wall_ns=self._setting.wall(), side=self._setting.part, by=clip(given.by, 128), keys=0,
                passwords=tuple(clip(name, 128) for name in renewed),
            )
        )  # fmt: skip
        asked.answer({"passwords": len(now)})

    def on_record(self, source: str, record: Any) -> None:
        self.keeper.on_record(record)

    def stop(self) -> None:
        self._stopping = True
        self._settle_work()

    def end(self) -> None:
        for work in self._leaving:
            work.stop(now=True)

    @property
    def busy(self) -> int:
        self._leaving = [work for work in self._leaving if not work.ended]
        return len(self._leaving)

    # --- what work asks for

    def password(self, table: Table) -> str:
        """The password of the role, "" if there is none yet."""
        return self._secrets.passwords.get(table.password, "")

    def refused(self, channel: str, who: str, table: Table, problem: Problem, key: str) -> None:
        """A row that does not even reach the keeper."""
        self.faults[problem.fault] = self.faults.get(problem.fault, 0) + 1
        self._setting.audit.note(
            MessageRefused(
                wall_ns=self._setting.wall(), channel=channel, principal=who, source=table.address, verb="push",
                fault=problem.fault, detail=clip(problem.detail), place=clip(problem.place), key=clip(key),
            )
        )  # fmt: skip

    # --- what is told

    def figures(self) -> Reported:
        away = sum(1 for work in self._work.values() if work.away)
        return {"table_connections_away": {"": away}, **{name: {"": n} for name, n in self.counts.items()}}

    def alarms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for work in self._work.values():
            if work.trouble and len(found) < ALARMS_MOST:
                name, number = f"{work.table.zone}-{work.name}", 2
                while name in found:
                    name, number = f"{work.table.zone}-{work.name}-{number}", number + 1
                found[name] = clip(f"{work.table.at}: {work.trouble}")
        return found


def _wanted(rows: Collection[RelayRows]) -> Iterator[Wanted]:
    pushes: dict[Table, set[tuple[str, str]]] = {}
    for row in rows:
        for table in row.tables:
            for line in row.lines:
                for who in line.who:
                    if row.stands[who] == table.zone:
                        pushes.setdefault(table, set()).update((channel, who) for channel in line.push)
                        for channel in line.pull:
                            yield table, "pull", ((channel, who),)
    for table, ways in pushes.items():
        if ways:
            yield table, "push", tuple(sorted(ways))
