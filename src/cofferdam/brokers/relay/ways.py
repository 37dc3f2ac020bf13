"""What all ways in and out but HTTP have in common: tables, folders, NATS.

A way is a part of a side; to the keeper it is a side like any other. It has work for each thing that the policy wants
of it. Work is done again and again until it is not wanted any more; whatever is in its way, it says why (`trouble`,
which becomes an alarm), waits, longer each time, and goes on. What it asks of the keeper it may ask twice: a push is
known by its keys, and what was pulled and not settled comes again.

Not here: what a way does (table_work, folder_work, nats_work).
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, ClassVar, Final, Generic, TypeVar

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.http import KeysSet
from cofferdam.audit.events.relay import MessageRefused
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.kit.http.keys import Given, read_secrets
from cofferdam.brokers.kit.http.problems import Refusal
from cofferdam.brokers.relay.http_asking import Keeper
from cofferdam.brokers.relay.records import Answered, Handed, Result, ToKeeper, keeper_of
from cofferdam.errors import CofferdamError, LocalProtocolError
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.relay_rows import Relay, RelayRows, fingerprint

FIRST_SECONDS, LAST_SECONDS = 0.5, 30.0
"""How long is waited after trouble: twice as long each time."""
LEASE_SECONDS: Final = 30
"""After a crash, what was on its way out comes again so much later."""
WAIT_MS: Final = 20_000
"""How long a message is waited for before the work looks around itself."""
ALARMS_MOST: Final = 32

A = TypeVar("A", Answered, Handed)
K = TypeVar("K", bound=tuple[Any, ...])
W = TypeVar("W", bound="Work")


class Stopped(Exception):
    """The work is no longer wanted."""


class Trouble(CofferdamError):
    """It does not work just now; a person may have to look."""


class Work(abc.ABC):
    """Something that is done again and again until it is stopped. `zone`: of those whom it works for."""

    foreign: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    """What libraries raise where the other end is to blame: said and waited out. All else ends the part."""

    def __init__(self, owner: Way[Any, Any], zone: str) -> None:
        self.owner = owner
        self.zone = zone
        self.trouble = ""
        """Why it does not work just now."""
        self.ended = False
        self.moved = False
        """Something came to its end in this session: the next trouble is waited out from the shortest time on."""
        self._wanted_no_more = asyncio.Event()
        self._give_up: Callable[[], None] | None = None

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """For alarms."""

    @abc.abstractmethod
    async def session(self) -> None:
        """Works until it is stopped (Stopped), or something is wrong (Trouble, or one of `foreign`)."""

    def words(self, error: Exception) -> str:
        """What a foreign error says, in one line."""
        return " ".join(str(error).split()) or type(error).__name__

    def stop(self, *, now: bool = False) -> None:
        """Asks the keeper nothing more; what is under way comes to its end, unless it has to end `now`."""
        self._wanted_no_more.set()
        if self._give_up is not None:
            self._give_up()

    async def run(self) -> None:
        wait = FIRST_SECONDS
        try:
            while not self._wanted_no_more.is_set():
                began, self.moved, least = time.monotonic(), False, 0
                try:
                    await self.session()
                except Stopped:
                    return
                except Trouble as error:
                    self.trouble = str(error)
                except Refusal as refused:  # paused, full, busy, a reload: the keeper says when to come again
                    self.trouble = refused.problem.detail
                    least = refused.retry
                except self.foreign as error:
                    self.trouble = self.words(error)
                if self.moved or time.monotonic() - began > LAST_SECONDS:
                    wait = FIRST_SECONDS
                wait = min(max(wait, least), LAST_SECONDS)
                await self.sleep(wait)
                wait = min(2 * wait, LAST_SECONDS)
        finally:
            self.ended = True

    def check(self) -> None:
        """Raises: Stopped."""
        if self._wanted_no_more.is_set():
            raise Stopped

    async def sleep(self, seconds: float) -> None:
        """So long, or until the work is no longer wanted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted_no_more.wait()

    async def ask(self, kind: type[A], make: Callable[[int], ToKeeper], *, waits: bool = False) -> A:
        """The keeper's answer. Raises: Refusal; Stopped, since by another policy it may not be allowed any more."""
        self.check()
        try:
            return await self.owner.keeper.ask(kind, make, self._may_give_up if waits else None)
        finally:
            self._give_up = None

    def _may_give_up(self, give_up: Callable[[], None]) -> None:
        self._give_up = give_up


class Way(Part, Generic[K, W]):
    """The part. `K` says what one piece of work is for; it begins with a frozen row of the policy."""

    figures_of: ClassVar[tuple[str, ...]] = ()
    """Counters that work may add to (`counts`)."""
    troubled: ClassVar[str]
    """The gauge of work that has trouble just now."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.start is None:
            raise LocalProtocolError("a way of the relay needs a loop with tasks")
        self.setting = setting
        self._start = setting.start
        self.keeper = Keeper(keeper_of(setting.senders), asyncio.get_event_loop(), setting.reactor)
        self.checks = Checks(Relay(()))
        self.relay = Relay(())
        self.counts = dict.fromkeys(self.figures_of, 0)
        self._secrets = read_secrets(setting.secrets, setting.broker)
        self._wanted: frozenset[K] = frozenset()
        self._work: dict[K, W] = {}
        self._leaving: list[W] = []
        self._cut = False
        self._stopping = False
        self._work_by(setting.policy)
        self.set_severed(setting.severed)

    @abc.abstractmethod
    def wanted(self, rows: Collection[RelayRows]) -> Iterable[K]:
        """What the policy wants of this part."""

    @abc.abstractmethod
    def make(self, key: K) -> W:
        """The work for it."""

    @abc.abstractmethod
    def place(self, key: K) -> tuple[str, str]:
        """(its zone, where it is, for people)."""

    # --- the gate

    def _work_by(self, policy: CompiledPolicy) -> None:
        rows = {
            name: conduit.terms for name, conduit in policy.conduits.items() if isinstance(conduit.terms, RelayRows)
        }
        self.policy = policy
        self.relay = Relay(rows.items())
        self.checks = Checks(self.relay)
        self._wanted = frozenset(self.wanted(rows.values()))
        self._settle_work()  # what is no longer allowed asks for nothing any more
        self.keeper.works(fingerprint(rows))

    def _settle_work(self, renewed: Collection[str] = ()) -> None:
        """Starts what is wanted and stops the rest; `renewed`: passwords that are others now."""
        wanted = frozenset() if self._cut or self._stopping else self._wanted
        for key in list(self._work):
            if key not in wanted or getattr(key[0], "password", "") in renewed:
                work = self._work.pop(key)
                work.stop(now=self._cut)
                self._leaving.append(work)
        for key in sorted(wanted - self._work.keys(), key=repr):
            self._work[key] = work = self.make(key)
            self._start(self._run(work))

    async def _run(self, work: W) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # while it connected, by itself
            await work.run()

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        before = set(self._work)
        self._work_by(policy)
        return len(before - self._work.keys())

    def set_severed(self, sides: Collection[str]) -> None:
        zones = {self.place(key)[0] for key in self._wanted}
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
        self.setting.audit.note(
            KeysSet(
                wall_ns=self.setting.wall(), side=self.setting.part, by=clip(given.by, 128), keys=0,
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

    def password(self, name: str) -> str:
        """The password of that name, "" if there is none yet."""
        return self._secrets.passwords.get(name, "")

    def refused(self, channel: str, who: str, source: str, problem: Problem, key: str) -> None:
        """A message that does not even reach the keeper."""
        self.faults[problem.fault] = self.faults.get(problem.fault, 0) + 1
        self.setting.audit.note(
            MessageRefused(
                wall_ns=self.setting.wall(), channel=channel, principal=who, source=source, verb="push",
                fault=problem.fault, detail=clip(problem.detail), place=clip(problem.place), key=clip(key),
            )
        )  # fmt: skip

    # --- what is told

    def is_troubled(self, work: W) -> bool:
        """Whether it counts for the gauge `troubled`."""
        return bool(work.trouble)

    def figures(self) -> Reported:
        troubled = sum(1 for work in self._work.values() if self.is_troubled(work))
        return {self.troubled: {"": troubled}, **{name: {"": n} for name, n in self.counts.items()}}

    def alarms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, work in self._work.items():
            if work.trouble and len(found) < ALARMS_MOST:
                name, number = f"{work.zone}-{work.name}", 2
                while name in found:
                    name, number = f"{work.zone}-{work.name}-{number}", number + 1
                found[name] = clip(f"{self.place(key)[1]}: {work.trouble}")
        return found


def in_words(problem: Problem) -> str:
    """A problem in one line, for those who have no other place for it."""
    return f"{problem.fault} at {problem.place or 'the whole'}: {problem.detail}"


def conflict(result: Result) -> str:
    """Why a message with a known key is refused."""
    return f"the key is taken by another content: {result.sha256.hex()} here, {result.other.hex()} there"
