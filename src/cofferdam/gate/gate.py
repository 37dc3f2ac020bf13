"""The gate: the composition root. Reads the policy, has listeners opened and processes started, and watches over them.

The order of a start: the auditor is started (it takes longest), the policy is read, listeners are opened, the log is
open, the first entries are on disk, the crews are up, the control socket answers. Whatever fails on the way ends
the start with one sentence, and the launcher clears up.

Not here: one crew's life (crew), taking a new policy (reload), the control socket (control).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

import cofferdam
from cofferdam.audit.entry import Draft
from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import (
    Alarm,
    CommandFailed,
    GateStarted,
    GateStopped,
    PolicyLoaded,
    RecordViolation,
    Severed,
)
from cofferdam.audit.supervision import PastWrite
from cofferdam.brokers.kit.supervision import SessionStatus
from cofferdam.brokers.registry import check_installed
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce.orders import Asked, Fenced, Finish, Notify, Prepared, Severing
from cofferdam.enforce.plans.network import network_plan
from cofferdam.errors import CofferdamError, GateError, StoreUnfit
from cofferdam.gate import expiry, state
from cofferdam.gate.asking import ASK_SECONDS, ask_parts
from cofferdam.gate.audit import GateAudit, now_ns
from cofferdam.gate.context import Options
from cofferdam.gate.crew.auditor import Auditor
from cofferdam.gate.crew.crew import Crew
from cofferdam.gate.crew.launcher import LauncherLink
from cofferdam.gate.crew.listeners import Listeners
from cofferdam.gate.crew.plan import CrewPlan, plan_crews
from cofferdam.gate.hands import OperatorsHands
from cofferdam.gate.loading import load_policy
from cofferdam.gate.log import Log
from cofferdam.gate.overlay.overlay import Overlay
from cofferdam.gate.past_writes import PastWrites
from cofferdam.gate.sides import RECORD_SECONDS, Sides
from cofferdam.gate.told import assets_at, failure, told_files
from cofferdam.gate.watch import report, telling
from cofferdam.gate.watch.drops import Drops
from cofferdam.gate.watch.evidence import Evidence
from cofferdam.gate.watch.fence import FenceWatch
from cofferdam.gate.watch.forwarding import forwarded
from cofferdam.gate.watch.leaks import LeakProbe
from cofferdam.gate.watch.management import Management
from cofferdam.gate.watch.recent import STEP_SECONDS, Recent
from cofferdam.gate.watch.totals import Totals
from cofferdam.gate.watch.troubles import Troubles, wire_reports
from cofferdam.gate.watch.ways_out import verdict, way_out
from cofferdam.policy.table import CompiledPolicy

if TYPE_CHECKING:
    from cofferdam.gate.watch.metrics import Metrics

RECENT_SECONDS = 1.0
"""For the auditor to say what was written in the last minute; then all that a point may be is taken as spent."""
STOP_SECONDS = 2.0
"""For what is under way at an orderly stop."""
REPORT_SECONDS = 1.0
ROUNDS = 5
"""How often sessions that are to end are looked for: one may begin while others are being ended."""
KEEP_ALIVE_SECONDS = 1.0
AUDITOR_TELLS = "log-unwritable"
"""The alarm that the auditor itself records, as soon as it can."""


class Service(Protocol):
    """What listens for commands while the gate runs."""

    async def listen(self) -> None: ...

    async def close(self) -> None: ...


class Gate(Sides):
    """One running gate. `run()` is its life and returns the last order to the launcher."""

    def __init__(
        self,
        options: Options,
        launcher: LauncherLink,
        audit: GateAudit,
        reactor: Reactor,
        log: Log,
        on_reload: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.on_reload = on_reload
        self.options = options
        self.launcher = launcher
        self.audit = audit
        self.reactor = reactor
        self.log = log
        self.boot = secrets.token_hex(4)
        self.births: Iterator[int] = itertools.count(1)
        self.started_ns = now_ns()
        self.auditor = Auditor(self, options.state)
        self.past_writes = PastWrites(lambda names: self.auditor.recent(names, RECENT_SECONDS), time.monotonic_ns)
        self.listeners = Listeners(launcher)
        self.management = Management(self._exposition, self._health, log)
        self.overlay = Overlay(self)
        self.leaks = LeakProbe(self)
        self.fence = FenceWatch(self)
        self.drops = Drops(self, self.fence.refused)
        self.troubles = Troubles(self)
        self.evidence = Evidence(self, self.status, auditor=self.auditor)
        self.recent = Recent()
        self._metrics: Metrics | None = None
        self.crews: dict[str, Crew] = {}
        self.earlier = Totals()
        """Counted by crews that are no more."""
        self.changing = asyncio.Lock()
        """Held while the policy and the set of crews change."""
        self.cutting = asyncio.Lock()
        """Held while the severed sides change: not the same, so that severing never waits for a reload."""
        self.leaving: set[Crew] = set()
        """Pairs that a reload is ending."""
        self.policy_path = options.policy
        self.policy_loaded_ns = 0
        self.policy_hash = ""
        self.severed: tuple[str, ...] = ()
        self.cuts = state.Severed(())
        self.expiries = expiry.Expiries(options.state)
        self.hands = OperatorsHands(options.state)
        self.separation = Prepared(0, "processes", ())
        self.alarms: dict[str, report.AlarmReport] = {}
        self._policy: CompiledPolicy | None = None
        self._base: CompiledPolicy | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stop_reason = ""
        self._sessions: tuple[SessionStatus, ...] = ()
        """As they were told when somebody last looked."""
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def policy(self) -> CompiledPolicy:
        """The policy in force."""
        if self._policy is None:
            raise GateError("the gate has no policy yet")
        return self._policy

    @property
    def base(self) -> CompiledPolicy:
        """The same before anything was held back by an operator's hand."""
        if self._base is None:
            raise GateError("the gate has no policy yet")
        return self._base

    def hold(self) -> None:
        """The policy in force is made anew from what was loaded and what is held back."""
        self._policy = self.hands.held(self.base)

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self, control: Service) -> Finish:
        """Starts everything, and ends it when asked. Raises nothing that a user can cause."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self.auditor.run())
                try:
                    await self._start(control)
                    await self._stop.wait()
                finally:
                    # Also after a failed start: what did start is ended in order, and the log is closed.
                    await self._end(control)
        except BaseExceptionGroup as group:
            ours, bugs = group.split(CofferdamError)
            if ours is None or bugs is not None:
                raise
            return failure(ours)
        return Finish(0)

    async def _start(self, control: Service) -> None:
        policy, files = await load_policy(self.options.policy, machine=self.options.machine)
        cuts = state.load_severed(self.options.state)
        if self.hands.damage and not cuts.damage:
            now = now_ns()
            cuts = state.Severed(tuple(state.Cut(side, now, "gate", "hands.json is damaged") for side in ("it", "ot")))
        self.take_severed(cuts)
        self.launcher.notify(Severing(self.severed))  # type: ignore[arg-type]
        network = network_plan(policy)
        self.separation = await self.launcher.prepare(network)
        self.check_separation(policy)
        self.log.info("separation", kind=self.separation.isolation)
        if network.namespaces:  # the policy is ready for them: what is missing is worth a word at start
            for name, in_force, detail in self.separation.facts:
                if not in_force:
                    self.log.warning("separation-lacks", what=name, detail=detail)
        plans = plan_crews(policy, shards=self.options.shards)
        check_installed(plan.broker for plan in plans.values())
        self.auditor.open(policy.site)
        await self.management.listen(policy.gate.management)
        await self.listeners.open((spot for plan in plans.values() for spot in plan.spots), assets_at(plans.values()))
        await self.auditor.first
        policy = expiry.hold(self, policy)
        self.set_policy(policy, self.options.policy)
        await self._record_start(files)
        self.leaks.set(policy.gate.leak_probe_seconds)
        self.spawn(self.leaks.work())
        self.spawn(self.drops.watch(self._stop))
        self.spawn(self.troubles.watch(self._stop))
        self.spawn(self.evidence.work(self._stop))
        self.spawn(telling.work(self.crews, self.status, self._stop))
        self.spawn(expiry.watch(self, self._stop))
        self.spawn(self.hands.watch(self, self._stop))
        self._keep_recent()
        await self.overlay.start(policy)
        await control.listen()
        await self.start_crews(plans.values())
        held = sum(not crew.working for crew in self.crews.values()) or None
        self.log.info("gate-ready", policy=self.policy_hash[:12], crews=len(self.crews), held=held, site=policy.site)
        self.launcher.notify(Notify("READY=1"))
        self._keep_alive()

    async def _record_start(self, files: tuple[str, ...]) -> None:
        self.note(
            GateStarted(
                version=cofferdam.__version__,
                separation=self.separation.isolation,
                host=clip(socket.gethostname(), 128),
                pid=os.getpid(),
                wall_ns=now_ns(),
            )
        )
        loaded = PolicyLoaded(policy=self.policy_hash, files=told_files(files), wall_ns=now_ns())
        if not await self.audit.record(loaded, RECORD_SECONDS):
            self.log.warning("start-not-recorded-yet", reason=self.audit.reason)
        if self.cuts.damage:
            self.alarm("severed-state-damaged", self.cuts.damage)
        if self.cuts.untold:
            await self.tell_untold()

    async def start_crews(self, plans: Iterable[CrewPlan]) -> None:
        """Starts crews and waits until all are ready. One that cannot live for the sake of its store is held: it is
        tried again by itself, and the others serve meanwhile.

        Raises:
            GateError: one does not start for any other reason; or none that could serve is left.
        """
        fresh = []
        for plan in plans:
            crew = Crew(self, plan, self.listeners.of(plan.spots))
            self.crews[plan.name] = crew
            fresh.append(crew)
            self.spawn(crew.run())
        held = [why for why in await asyncio.gather(*(crew.first for crew in fresh)) if why is not None]
        if held and len(held) == len(fresh):
            raise StoreUnfit("\n".join(map(str, held)), hint=held[0].hint)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task of the gate; if it fails, the gate ends."""
        if self._tasks is None:
            raise GateError("the gate does not run")
        self._tasks.create_task(work)

    async def _end(self, control: Service) -> None:
        self._stop.set()
        self.leaks.end()
        self.launcher.notify(Notify("STOPPING=1"))
        reason = self._stop_reason or "the gate could not start"
        await self.overlay.stop()
        self.log.info("gate-stops", reason=reason)
        hurry = asyncio.get_running_loop().create_task(self._hurry.wait())
        try:
            crews = list(self.crews.values())
            stops = asyncio.gather(*(crew.stop(STOP_SECONDS) for crew in crews))
            waiting: set[asyncio.Future[Any]] = {hurry, stops}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not stops.done():
                for crew in crews:
                    crew.kill()
            await stops
        finally:
            hurry.cancel()
        await self.drops.end()
        if self.policy_hash:
            await self.audit.record(GateStopped(reason=clip(reason), wall_ns=now_ns()), RECORD_SECONDS)
        await self.auditor.close()
        await self.management.close()
        await control.close()

    def stop(self, reason: str) -> None:
        """Ends the gate in order; asked a second time: at once."""
        if self._stop.is_set():
            self._hurry.set()
        else:
            self._stop_reason = reason
            self._stop.set()

    def on_asked(self, asked: Asked | Fenced) -> None:
        """A signal to the launcher, or what it found by itself."""
        if isinstance(asked, Fenced):
            self.separation = self.fence.take(asked)
        elif asked.what == "stop":
            self.stop("stopped by a signal")
        elif asked.what in ("sever-it", "sever-ot"):
            self.spawn(self.severed_by_launcher(asked.what.removeprefix("sever-")))
        elif self._policy is not None and not self._stop.is_set():
            self.spawn(self.on_reload())

    def _keep_alive(self) -> None:
        """As long as this loop turns, the launcher is told so, and through it the service manager."""
        if not self._stop.is_set():
            self.launcher.notify(Notify("WATCHDOG=1"))
            asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._keep_alive)

    def _keep_recent(self) -> None:
        """What was counted until now is what the next minutes are compared with."""
        if not self._stop.is_set():
            counted = report.totals(list(self.crews.values()), self.earlier)
            loop = asyncio.get_running_loop()
            packets = {f"{name} {report.PACKETS}": one for name, one in counted.all_durations("packets")}
            self.recent.keep(loop.time(), dict(counted.all_durations("added")) | packets)
            loop.call_later(STEP_SECONDS, self._keep_recent)

    # --- what is in force ---------------------------------------------------------------------------------------

    def check_separation(self, policy: CompiledPolicy) -> None:
        """Raises: GateError if the policy requires more than can be had."""
        named = {zone.name for zone in policy.zones.values() if zone.interface}
        before = {zone.name for zone in self._policy.zones.values() if zone.interface} if self._policy else named
        if named - before and self.separation.isolation != "namespaces" and policy.gate.separation != "processes":
            raise GateError(
                f"the zone {min(named - before)} names an interface, and interfaces are taken when the gate starts",
                hint="stop the gate and start it with this policy; or say `separation: processes` in its `gate:`",
            )
        wants = policy.gate.require_namespaces or policy.gate.separation == "namespaces"
        if wants and self.separation.isolation != "namespaces":
            raise GateError(
                "the policy requires network namespaces, and they cannot be had here",
                hint="start as root on a kernel with namespaces; "
                "or take `require: namespaces` (or `separation: namespaces`) out of the policy's `gate:` section",
            )

    def set_policy(self, policy: CompiledPolicy, path: Path) -> None:
        """From here on every start of a part gets this policy."""
        self._base = policy
        self.hold()
        self.policy_hash = self.audit.policy = policy.hash
        self.auditor.keep(policy.audit)
        self.policy_path = path
        self.policy_loaded_ns = now_ns()
        self.past_writes.take(policy.assets)

    def note(self, draft: Draft) -> None:
        """Hands the audit log an entry."""
        self.audit.note(draft)

    def alarm(self, name: str, detail: str, way: str = "") -> None:
        """Raises an alarm; clears it if `detail` is empty. Told once, not again and again."""
        known = self.alarms.get(name)
        if detail and known is None:
            self.alarms[name] = report.AlarmReport(name, detail, now_ns(), way or way_out(name))
            self.log.error("alarm", name=name, detail=detail)
            if name != AUDITOR_TELLS:
                self.note(Alarm(name=name, detail=clip(detail), wall_ns=now_ns()))
        elif not detail and known is not None:
            del self.alarms[name]
            self.log.info("alarm-cleared", name=name)
            if name != AUDITOR_TELLS:
                self.note(Alarm(name=name, detail=clip(known.detail), cleared=True, wall_ns=now_ns()))

    def command_failed(self, command: str, by: str, error: Exception) -> None:
        """A bug of ours, or of the system around us, has shown in a command: it costs that command."""
        trouble = f"{type(error).__name__}: {error}"
        self.log.error("command-failed", command=command, by=by, reason=trouble)
        self.log.trace(error)
        self.note(CommandFailed(command=clip(command, 128), by=clip(by, 128), reason=clip(trouble), wall_ns=now_ns()))

    def violation(self, producer: str, detail: str) -> None:
        """The auditor was sent what this producer may not say: recorded, and the producer is ended."""
        self.log.error("record-violation", part=producer, detail=detail)
        self.note(RecordViolation(half=clip(producer, 128), detail=clip(detail), wall_ns=now_ns()))
        for crew in self.crews.values():
            for part in crew.parts:
                if part.name == producer:
                    crew.kill_part(part)

    async def recent_writes(self, assets: Sequence[str]) -> tuple[PastWrite, ...] | None:
        """The writes of the last minute to these assets, as the log has them; None where nobody can say."""
        return await self.past_writes.of(assets)

    async def end_session(self, session: str, by: str, reason: str) -> int:
        """Ends one session, in force and then recorded. Raises: GateError: there is none of that name."""
        why = f"ended by {by}{f': {reason}' if reason else ''}"
        crews = list(self.crews.values())
        ended = sum(await asyncio.gather(*(crew.end_named([session], why, ASK_SECONDS) for crew in crews)))
        if not ended:
            raise GateError(f"no session {session} is open", hint="`cofferdam status --all` lists them")
        entry = Severed(
            side="", by=clip(by, 128), sessions=1, what="session", name=clip(session, 128), reason=clip(reason),
            wall_ns=now_ns(),
        )  # fmt: skip
        await self.audit.record(entry, RECORD_SECONDS if self.audit.writable else 0)
        return 1

    async def end_sessions(self, sources: Collection[str], reason: str) -> int:
        """Ends the sessions of all crews that come from these addresses; how many there were."""
        crews = list(self.crews.values())
        total = 0
        for _ in range(ROUNDS):
            ended = sum(await asyncio.gather(*(crew.end_sessions(sources, reason, ASK_SECONDS) for crew in crews)))
            total += ended
            if not ended:
                break
        return total

    async def ask(
        self, broker: str, part: str, verb: str, arguments: dict[str, Any], crew: str, by: str
    ) -> list[dict[str, Any]]:
        """As `asking.ask_parts`. Raises: GateError."""
        return await ask_parts(self.crews, broker, part, verb, arguments, crew, by)

    # --- status -------------------------------------------------------------------------------------------------

    async def reports(self, seconds: float = REPORT_SECONDS) -> None:
        """Has every process report; waits at most so long for it."""
        crews = self.crews.values()
        await asyncio.gather(*(crew.report(seconds) for crew in crews), self.auditor.report(seconds))

    async def look_at_sessions(self) -> None:
        """Has the parts tell their sessions, for the next `status`: they are not told unasked."""
        found = await asyncio.gather(*(crew.sessions(REPORT_SECONDS) for crew in list(self.crews.values())))
        self._sessions = tuple(session for some in found for session in some)

    def status(self) -> report.StatusReport:
        """The present state, from the last reports."""
        crews = list(self.crews.values())
        counted = report.totals(crews, self.earlier)
        sessions = report.session_reports(self._sessions)
        log = self.auditor.status
        commits = log.commits if log is not None else 0
        found = report.StatusReport(
            version=cofferdam.__version__,
            site=self.policy.site,
            pid=os.getpid(),
            started_ns=self.started_ns,
            now_ns=now_ns(),
            policy=report.PolicyReport(self.policy_hash, str(self.policy_path), self.policy_loaded_ns),
            separation=self.separation.isolation,
            facts=self._facts(crews),
            severed=self.cuts.cuts,
            closures=self.hands.now.closures,
            grants=self.hands.now.grants,
            conduits=report.conduit_reports(self.policy, counted, self.recent, sessions, self.severed),
            unmatched=report.unmatched(counted),
            pairs=tuple(report.crew_report(self.policy, crew) for crew in crews),
            sessions=sessions,
            open=report.open_by_asset(crews),
            assets=report.asset_reports(crews, counted),
            audit=report.AuditReport(
                running=self.auditor.pid != 0 and log is not None,
                writable=log.writable if log is not None else False,
                reason=log.reason if log is not None else "the auditor does not run",
                size=log.size if log is not None else 0,
                signed=log.signed if log is not None else 0,
                key=self.auditor.key,
                pid=self.auditor.pid,
                restarts=self.auditor.restarts,
                commit_mean=round(log.commit_ns / commits / 1000, 1) if log is not None and commits else 0.0,
                commit_max=round(log.commit_max_ns / 1000, 1) if log is not None else 0.0,
                disk=report.log_disk(log, self.policy.audit.most_bytes),
            ),
            limits=counted.limits.values,
            faults=counted.faults.values,
            malformed=counted.malformed,
            alarms=tuple(self.alarms.values()),
            management=self.management.address,
            leak_probe=self.leaks.report(),
            dropped=self.drops.reports(),
            figures=report.figure_reports(self.policy, crews, counted),
            checks=self.evidence.reports(),
            machine=self.options.machine,
            strangers=self.troubles.strangers(),
            wires=wire_reports(self.drops),
        )
        ok, said, way = verdict(found)
        return msgspec.structs.replace(found, ok=ok, verdict=said, way_out=way)

    def _health(self) -> tuple[bool, bool, str]:
        """Whether the gate takes work, whether all is well, and the verdict in one line."""
        found = self.status()
        ready = bool(found.pairs) and all(pair.working for pair in found.pairs) and found.audit.writable
        return ready, found.ok, f"{found.verdict}{f'; do: {found.way_out}' if found.way_out else ''}"

    def _exposition(self) -> bytes:
        if self._metrics is None:  # most gates are asked for none, and the library behind it is a large one
            from cofferdam.gate.watch.metrics import Metrics

            self._metrics = Metrics()
        return self._metrics.render(self.status(), report.totals(list(self.crews.values()), self.earlier))

    def _facts(self, crews: list[Crew]) -> tuple[report.FactReport, ...]:
        parts = report.FactReport(
            "processes", True, "each part of a crew is a process of its own; a crew shares one-way pipes"
        )
        said = report.part_facts(crews)
        said = [*said, *(report.FactReport(f"name server: {fact[0]}", *fact[1:]) for fact in self.overlay.facts)]
        said = [*said, *(report.FactReport(*fact) for fact in self.evidence.facts)]
        names = {fact.name for fact in said}
        launcher = [report.FactReport(*fact) for fact in self.separation.facts if fact[0] not in names]
        if self.separation.isolation != "namespaces":  # else the sides have networks of their own, and switches there
            launcher.append(report.FactReport("no forwarding", *forwarded()))
        probe = self.leaks.report()
        return (parts, *launcher, *said, report.FactReport("leak probe", probe.works, probe.detail))
