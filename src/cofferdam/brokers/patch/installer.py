"""The installer: the part that decides. It believes signatures by its own root, holds each step to the policy, writes
it into its own book and into the audit log, and only then touches an asset.

The keeper's tree is bound read-only; a file is copied into the installer's own store while it is checked, so that what
is sent is what was signed, whatever the keeper does meanwhile.

    book.db     steps, what people have set, and starts whose end the log may not have
    trusted/    metadata that was believed
    files/      released files, by hash

Not here: booking, trust, plan, copying, sftp, health: each a module; what assets fetch themselves (serving).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from cofferdam.audit.entry import Draft
from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Setting
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.kit.http.connection import Limits
from cofferdam.brokers.kit.supervision import Listener
from cofferdam.brokers.patch import ddi, hands, health, pushing, sftp
from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.booking import NOT_BEGUN, Booking
from cofferdam.brokers.patch.figures import INSTALLER
from cofferdam.brokers.patch.installer_verbs import InstallerVerbs, Known
from cofferdam.brokers.patch.outcome import Outcome, Refused
from cofferdam.brokers.patch.pacing import Pacer
from cofferdam.brokers.patch.plan import Held, Plan, Step, Verdict
from cofferdam.brokers.patch.pointed import Guards
from cofferdam.brokers.patch.records import Release
from cofferdam.brokers.patch.serving import ServingApi
from cofferdam.brokers.patch.tftp_serving import TftpServing
from cofferdam.brokers.patch.trust import NotBelieved, Trust
from cofferdam.brokers.patch.witnesses import witnesses_of
from cofferdam.errors import StoreError
from cofferdam.policy import windows
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.doors import Door
from cofferdam.policy.terms.patch_rows import Install, PatchRows, Way

LIMITS: Final = Limits(body_bytes=64 << 10, rest_bytes=64 << 10, connections=1024, connections_source=16)
LOOK_SECONDS: Final = 0.5
REFRESH_SECONDS: Final = 60.0
TRIES_MOST: Final = 25
"""How often an asset may leave before the end of what it fetches; then a person has to look."""


def _had(before: Step | None) -> int:
    """The release that an asset has by then, 0 for none that is known here."""
    if before is None:
        return 0
    return before.release if before.state == "done" else before.previous


class Installer(Booking):
    """The part."""

    api: ServingApi

    def __init__(self, setting: Setting) -> None:
        if setting.store is None or "keeper" not in setting.reads:
            raise StoreError("the installer has no store, or does not see the keeper's")
        sftp.prepare()
        self._offered = setting.reads["keeper"] / "tuf"
        self._files = setting.store / "files"
        self._files.mkdir(mode=0o700, exist_ok=True)
        self._book = Book(setting.store / "book.db")
        self.steps: Table[Step] = Table(self._book, "step", Step)
        self._held: Table[Held] = Table(self._book, "held", Held)
        self._open: Table[Step] = Table(self._book, "open", Step)
        self._untold: list[tuple[str, Draft]] = []
        self.figures_ = Figures(INSTALLER)
        self.rows = PatchRows()
        self._trusted = setting.store / "trusted"
        self._trust: Trust | None = None
        self._look = True
        self._refreshed = 0.0
        self._why = ""
        """Why what the keeper offers is not believed, "" if it is. Meanwhile nothing begins."""
        self._lacking: dict[str, tuple[float, str]] = {}
        """Files that cannot be had, by hash: until when nobody asks again, and why."""
        self._copying: dict[str, asyncio.Task[Path]] = {}
        self._sha1: dict[str, str] = {}
        self._unwritten: set[str] = set()
        self._full = ""
        self._stamp = (0, 0)
        self._cut = False
        self._running: dict[str, tuple[str, int]] = {}
        """Assets that are sent something: product, and bytes that went."""
        self._pacer = Pacer(lambda: self.loop.time())
        self._guards = Guards(lambda: self.loop.time(), lambda work: setting.start(work) if setting.start else None)
        self._tftp: list[TftpServing] = []
        super().__init__(setting, LIMITS)
        self._left_open()
        for step in list(self.steps.rows.values()):
            if step.state in ("sending", "backing"):
                self.settle(step, "unknown", "the installer ended while it was under way")
        if setting.start is not None:
            setting.start(self._work())

    def make_api(self) -> ServingApi:
        return ServingApi(self, self.note, self.setting.wall)

    def doors(self, policy: CompiledPolicy) -> Iterable[Door]:
        found = [each.terms for each in policy.conduits.values() if isinstance(each.terms, PatchRows)]
        if not found:
            return []
        first = found[0]
        self._pacer.rate = first.bandwidth
        self._guards.assets = policy.table.assets
        share = first.bandwidth // (first.at_once or 1)
        self.rows = replace(
            first,
            products=tuple(each for row in found for each in row.products),
            ways=tuple(replace(each, rate=min(each.rate, share or each.rate)) for row in found for each in row.ways),
            installs=tuple(each for row in found for each in row.installs),
            laid=tuple(each for row in found for each in row.laid),
        )
        self._trust = Trust(
            first.root, self._trusted, self._offered / "metadata", signatures=first.signatures,
            separate=first.separate, wall=self.setting.wall, witnesses=witnesses_of(self.rows, self.setting.secrets),
        )  # fmt: skip
        self._look = True
        return [door for row in found for door in row.doors]

    def serve_datagrams(self, sock: socket.socket, listener: Listener) -> None:
        if self.setting.start is not None:
            serving = TftpServing(self, self.setting.reactor, sock, self.setting.wall, self.setting.start)
            self._tftp.append(serving)

    def end_datagrams(self, sock: socket.socket) -> None:
        for each in [each for each in self._tftp if each.socket is sock]:
            each.forget()
            self._tftp.remove(each)

    def set_severed(self, sides: Collection[str]) -> None:
        super().set_severed(sides)
        self._cut = bool(sides)

    def on_record(self, source: str, record: Any) -> None:
        self._look = True

    @property
    def releases(self) -> tuple[Release, ...]:
        return self._trust.releases if self._trust is not None else ()

    @property
    def known(self) -> Known:
        """For people."""
        trust = self._trust
        root = trust.root.version if trust is not None and trust.root is not None else 0
        why = self._why or next((why for _, why in self._lacking.values()), "")
        running = tuple((asset, *found) for asset, found in self._running.items())
        return Known(trust.version if trust is not None else 0, root, why, running, self.api.unsigned())

    def plan(self) -> Plan:
        clocks = self.policy.table.clocks
        return Plan(self.rows, self.releases, self.steps.rows, self.held, clocks, self._guards.why)

    def way(self, asset: str) -> Way | None:
        return next((each for each in self.rows.ways if each.asset == asset), None)

    def shut(self) -> str:
        """Why nothing goes out now, "" if it may."""
        if self._cut:
            return "an operator has cut a side off"
        if self.stopping:
            return "the gate stops"
        if self._why:
            return f"what the keeper offers is not believed: {self._why}"
        if self._full:
            return self._full
        for conduit in self.policy.conduits.values():
            found = standing(conduit, self.policy.table.clocks, self.setting.wall())
            if not found.open:
                return f"the conduit {conduit.name} is {found.says}"
        return ""

    # --- work -------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        for step in [each for each in self.steps.rows.values() if each.state == "sent"]:
            self._resume(step)
        while not self.stopping:
            now = self.loop.time()
            if self._full:
                self._try_book()
            untold, self._untold = self._untold, []
            for key, draft in untold:
                self._tell_end(key, draft)
            if self._look or self._stamp_changed() or now - self._refreshed > REFRESH_SECONDS:
                self._look, self._refreshed = False, now
                await self._refresh()
            verdicts = list(self.plan().verdicts(self.setting.wall()))
            self._guards.look(each.install for each in verdicts if each.held)
            for verdict in verdicts:
                self._begin_one(verdict)
            await asyncio.sleep(LOOK_SECONDS if not self._look else 0)

    def _begin_one(self, verdict: Verdict) -> None:
        """Has an asset sent what is due, one thing at a time, if no more are under way than may be."""
        way, start = self.way(verdict.asset), self.setting.start
        if way is None or start is None or not verdict.due or not pushing.kind(way) or self.shut():
            return
        if verdict.release is not None and self.lacks(verdict.release):
            return
        if verdict.asset not in self._running and len(self._running) < (self.rows.at_once or 1):
            self._running[verdict.asset] = (verdict.product, 0)
            start(self._install(verdict, way))

    def _stamp_changed(self) -> bool:
        """Whether the keeper offers another time stamp, which it might not have told us."""
        try:
            found = (self._offered / "metadata" / "timestamp.json").lstat()
            fresh = (found.st_ino, found.st_mtime_ns)
        except OSError:
            fresh = (0, 0)
        before, self._stamp = self._stamp, fresh
        return before != fresh

    async def _refresh(self) -> None:
        trust = self._trust
        if trust is None:
            return
        try:
            changed = trust.refresh()
        except NotBelieved as error:
            if str(error) != self._why:
                self._why = str(error)
                self.setting.audit.note(events.ReleasesNotBelieved(wall_ns=self.setting.wall(), detail=clip(self._why)))
                self.tell_keeper(trust)
            return
        if self._why or changed:
            self._why = ""
            people = tuple(sorted(trust.signers))
            believed = events.ReleasesBelieved(
                wall_ns=self.setting.wall(), root=trust.root.version if trust.root else 0, targets=trust.version,
                releases=len(trust.releases), people=people[:16],
            )  # fmt: skip
            self.setting.audit.note(believed)
            self.tell_keeper(trust)
            if self.setting.start is not None:
                self.setting.start(self._take_ahead())

    async def _take_ahead(self) -> None:
        """Copies what assets are going to get: a file that cannot be had is told of now, and not in a window at night;
        and who fetches it waits for no copy."""
        plan = self.plan()
        for product in {product for each in self.rows.installs for product in each.products}:
            if (release := plan.newest(product)) is not None:
                await self.copy_of(release)

    # --- a step -----------------------------------------------------------------------------------------------------

    async def begin(self, verdict: Verdict, how: str) -> Step | str:
        """Everything before an asset is touched: the file, the book, the log. The step, or why not."""
        release, install = verdict.release, verdict.install
        if release is None:
            return "nothing is released"
        if any(key == f"{install.asset}/{verdict.product}" for key, _ in self._untold):
            return "the log does not have yet what became of the last one"
        try:
            await self.take_copy(release)
        except NotBelieved as error:
            return str(error)
        before = self.steps.get(f"{install.asset}/{verdict.product}")
        now = self.setting.wall()
        step = Step(
            asset=install.asset, product=verdict.product, release=release.custom.number,
            version=release.custom.version, sha256=release.sha256, state="sending", at=now, begun=now,
            previous=_had(before), tries=before.tries if before is not None and before.state == "again" else 0,
        )  # fmt: skip
        if why := await self._open_step(
            step, self._started(step, how, install.ring, emergency=release.custom.emergency)
        ):
            return why
        # The time that this took may have ended its turn.
        again = self.plan().verdict(install, verdict.product, self.setting.wall())
        why = again.why if not again.due or again.release != release else self.shut()
        if not why and not self._put(step):
            why = self._full
        if why:
            self._tell_end(step.key, self._ended(step, "failed", f"{NOT_BEGUN}: {why}"))
            return why
        self.figures_.add("patch_installs", 1, step.asset)
        return step

    def _resume(self, step: Step) -> None:
        """A file that had arrived when we ended: what was to follow, follows."""
        install = next(
            (each for each in self.rows.installs if each.asset == step.asset and step.product in each.products), None
        )
        way = self.way(step.asset)
        if install is None or way is None or self.setting.start is None:
            return
        if pushing.kind(way) or way.tftp_read or install.health is not None:
            self.setting.start(self.finish(step, install, way))

    async def _install(self, verdict: Verdict, way: Way) -> None:
        try:
            step = await self.begin(verdict, pushing.kind(way))
            if isinstance(step, str) or verdict.release is None:
                return
            outcome = await self._push(way, verdict.release, verdict.install)
            if outcome.state != "sent":
                self.settle(step, "failed" if outcome.state == "failed" else "unknown", outcome.detail)
                return
            step = self.settle(step, "sent", outcome.detail)
            await self.finish(step, verdict.install, way)
        finally:
            del self._running[verdict.asset]

    async def copy_of(self, release: Release) -> Path | None:
        """Our own copy, made now where it is not there; None: it cannot be had."""
        try:
            return await self.take_copy(release)
        except NotBelieved:
            return None  # `begin` says so, and stops the release

    def at(self, asset: str, number: int) -> Release | None:
        """The release of this number, if the asset is at it now."""
        found = next((each for each in self.releases if each.custom.number == number), None)
        if found is None:
            return None
        step = self.steps.get(f"{asset}/{found.custom.product}")
        if step is None or not ddi.under_way(step, number):
            return None
        if step.state == "again" and not step.tries and self.plan().newest(found.custom.product) is not found:
            return None  # it was let begin anew and has not, and by now another one is to be had
        return found

    def given_up(self, asset: str) -> Step | None:
        """What an asset is at, and should leave: an operator has stopped its release."""
        for step in self.steps.rows.values():
            if step.asset == asset and step.release in self.held.stopped and ddi.under_way(step, step.release):
                return step
        return None

    def dealt_with(self, step: Step) -> None:
        """A person has said what became of a step: what lies there for technicians is taken away."""
        way = self.way(step.asset)
        release = next((each for each in self.releases if each.custom.number == step.release), None)
        if way is not None and way.hands and release is not None:
            hands.take_away(self.setting.folders.get(way.hands), way.asset, release.custom.file)

    async def sent(self, count: int) -> None:
        """Bytes that an asset has fetched; waits until more may go."""
        self.figures_.add("patch_sent_bytes", count)
        await self._pacer.went(count)

    def fetched(self, step: Step, install: Install, way: Way, whole: bool) -> None:
        """An asset has fetched a file itself, or left before its end: then it may fetch it again."""
        if self.steps.get(step.key) != step:
            return
        if not whole and step.tries + 1 >= TRIES_MOST:
            self.settle(step, "failed", f"the asset left before the end, {TRIES_MOST} times")
            return
        if not whole:
            why = "the asset left before the end; it may fetch it again"
            self.settle(replace(step, tries=step.tries + 1), "again", why)
            self._tell_end(step.key, self._ended(step, "failed", why))
            return
        fresh = self.settle(step, "sent", "fetched whole")
        # By TFTP it has no way to say more than that it has acknowledged the last block.
        if (install.health is not None or way.tftp_read) and self.setting.start is not None:
            self.setting.start(self.finish(fresh, install, way))

    def reported(self, asset: str, product: str, says: str, detail: str) -> bool:
        """What an asset says of what it fetched. Whether it can be so: that it failed, it may say in mid transfer."""
        step = self.steps.get(f"{asset}/{product}")
        if step is None or step.state not in ("sent", "sending", "again") or (says == "done" and step.state != "sent"):
            return False
        self.settle(step, "done" if says == "done" else "failed", f"the asset says so: {detail}")
        return True

    async def _push(self, way: Way, release: Release, install: Install | None = None) -> Outcome:
        """`install`: by which it goes, where its window may stop it."""
        stops = install is not None and install.when_shut == "stop" and not release.custom.emergency

        async def progress(count: int) -> None:
            product, sent = self._running.get(way.asset, (release.custom.product, 0))
            if way.asset in self._running:
                self._running[way.asset] = (product, sent + count)
            await self.sent(count)
            if stops and install is not None and not self._is_open(install):
                raise Refused("its window has shut")

        file, name = self._files / release.sha256, release.custom.file
        if way.hands:
            return await hands.lay_out(self.setting.folders.get(way.hands), way.asset, release, file)
        return await pushing.push(way, self.secret(way), file, name, release.size, release.sha256, progress)

    def _is_open(self, install: Install) -> bool:
        return windows.state(install.windows, self.policy.table.clocks, self.setting.wall())[0]

    def secret(self, way: Way) -> str:
        return self.credential(way.secret)

    def credential(self, name: str) -> str:
        return self.secrets.passwords.get(name, "")

    async def finish(self, step: Step, install: Install, way: Way) -> None:
        """The health check, and what a failure leads to."""
        if way.hands:
            return  # a person says what became of it
        if install.health is None:
            self.settle(step, "done")
            return
        why = await health.check(install.health, way, self.secret(way), step.version, self.policy.table.assets)
        now = self.steps.get(step.key)
        if now is None or now.release != step.release or now.state not in ("sent", "done"):
            return  # the asset itself, or a person, has said what became of it
        if not why and install.health.person:
            return
        if not why:
            self.settle(step, "done", "the health check holds")
            return
        if install.back == "previous" and pushing.kind(way):
            await self._back(step, way, f"the health check fails: {why}")
        else:
            self.settle(step, "failed", f"the health check fails: {why}")

    async def _back(self, step: Step, way: Way, why: str) -> None:
        """What the asset had before is sent again: it is still released, or nothing goes."""
        previous = next((each for each in self.releases if each.custom.number == step.previous), None)
        if previous is None:
            self.settle(step, "failed", f"{why}; there is no file that it had before")
            return
        now = self.setting.wall()
        back = replace(
            step, version=previous.custom.version, sha256=previous.sha256, release=step.previous, at=now, begun=now
        )
        try:
            await self.take_copy(previous)
        except NotBelieved as error:
            self.settle(step, "failed", f"{why}; {error}")
            return
        if no := await self._open_step(back, self._started(back, pushing.kind(way), "", back=True)):
            self.settle(step, "failed", f"{why}; not sent back: {no}")
            return
        backing = self.settle(replace(step, begun=back.begun), "backing", why)
        if self._full:  # after a crash nobody would know that it was sent
            self.settle(backing, "failed", f"{why}; not sent back: {self._full}")
            return
        outcome = await self._push(way, previous)
        if outcome.state == "sent":
            self.settle(backing, "back", f"{why}; it has {previous.custom.version} again")
        else:
            self.settle(backing, "unknown", f"{why}; the way back: {outcome.detail}")

    # --- operators --------------------------------------------------------------------------------------------------

    def command(self, asked: Asked) -> None:
        if not InstallerVerbs(self).command(asked):
            super().command(asked)

    # --- the gate ---------------------------------------------------------------------------------------------------

    def figures(self) -> Reported:
        unsettled = sum(1 for step in self.steps.rows.values() if step.state in ("failed", "unknown", "back"))
        self.figures_.set("patch_unsettled", unsettled)
        self.figures_.set("patch_releases", len(self.releases))
        return {**super().figures(), **self.figures_.report()}

    def alarms(self) -> dict[str, str]:
        found = super().alarms() | {f"patch-sign-{name}": clip(why) for name, why in self.api.unsigned().items()}
        if self._full:
            found["patch-book"] = clip(self._full)
        for step in self.steps.rows.values():
            if step.state in ("failed", "unknown", "back") and len(found) < 16:
                found[f"patch-asset-{step.asset}"] = clip(
                    f"{step.asset} is {step.state} with {step.product} {step.version}: {step.detail}"
                )
        for release in self.plan().emergencies(self.setting.wall()):
            if len(found) < 24:
                found[f"patch-emergency-{release.custom.number}"] = clip(
                    f"{release.path} was released as an emergency: {release.custom.reason}"
                )
        return found

    @property
    def busy(self) -> int:
        return len(self._running)

    def end(self) -> None:
        super().end()
        self._book.close()
