"""The part of a side that has folders of the site's: pushes the files that come, writes those that go.

It stands apart, sees these folders and no other file, and has no network. To the keeper it is a side like any other.

Not here: the work on folders (folder_work), what lies in files (folder_files).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import Any, Final

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.relay import MessageRefused
from cofferdam.brokers.broker import Part, Setting
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.relay.folder_work import Inward, Outward, Work
from cofferdam.brokers.relay.http_asking import Keeper
from cofferdam.errors import LocalProtocolError
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.relay_rows import Folder, Relay, RelayRows, fingerprint

ALARMS_MOST: Final = 32

Wanted = tuple[Folder, str, str]
"""(folder, "push" or "pull", principal)."""


class Folders(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.start is None:
            raise LocalProtocolError("a part with folders needs a loop with tasks")
        self._setting = setting
        self._start = setting.start
        self.keeper = Keeper(setting.senders["keeper"], asyncio.get_event_loop())
        self.checks = Checks(Relay(()))
        self.counts = {"folder_files_taken": 0, "folder_messages_taken": 0, "folder_files_written": 0}
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

    def _settle_work(self) -> None:
        """Starts what is wanted and stops the rest."""
        wanted = frozenset() if self._cut or self._stopping else self._wanted
        for key in [key for key in self._work if key not in wanted]:
            work = self._work.pop(key)
            work.stop()
            self._leaving.append(work)
        for folder, verb, who in sorted(wanted - self._work.keys(), key=repr):
            path = self._setting.folders[folder.name]
            made: Work = (Inward if verb == "push" else Outward)(self, folder, who, path)
            self._work[folder, verb, who] = made
            self._start(made.run())

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        before = set(self._work)
        self._work_by(policy)
        return len(before - self._work.keys())

    def set_severed(self, sides: Collection[str]) -> None:
        zones = {folder.zone for folder, _, _ in self._wanted}
        self._cut = any(self.policy.zones[zone].side in sides for zone in zones)
        self._settle_work()

    def on_record(self, source: str, record: Any) -> None:
        self.keeper.on_record(record)

    def stop(self) -> None:
        self._stopping = True
        self._settle_work()

    @property
    def busy(self) -> int:
        self._leaving = [work for work in self._leaving if not work.ended]
        return len(self._leaving)

    # --- what is told

    def refused(self, folder: Folder, who: str, problem: Problem, key: str) -> None:
        """A message that does not even reach the keeper."""
        self.faults[problem.fault] = self.faults.get(problem.fault, 0) + 1
        self._setting.audit.note(
            MessageRefused(
                wall_ns=self._setting.wall(), channel=folder.channel, principal=who, verb="push", fault=problem.fault,
                detail=clip(problem.detail), place=clip(problem.place), key=clip(key),
            )
        )  # fmt: skip

    def figures(self) -> Reported:
        troubled = sum(1 for work in self._work.values() if work.trouble)
        return {"folders_troubled": {"": troubled}, **{name: {"": n} for name, n in self.counts.items()}}

    def alarms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for work in self._work.values():
            if work.trouble and len(found) < ALARMS_MOST:
                found[f"folder-{work.folder.name}"] = clip(work.trouble)
        return found


def _wanted(rows: Collection[RelayRows]) -> Iterator[Wanted]:
    for row in rows:
        for folder in row.folders:
            for line in row.lines:
                for who in line.who:
                    if row.stands[who] == folder.zone:
                        if folder.channel in line.push:
                            yield folder, "push", who
                        if folder.channel in line.pull:
                            yield folder, "pull", who
