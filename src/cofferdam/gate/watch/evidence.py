"""What the gate itself finds out for its evidence, once a minute; and findings of others, which it takes, records, and
raises alarms for.

An outcome is an entry of the log when it changes, and once a day. A check that failed is an alarm, `check-ID`, until it
is found otherwise, also over restarts of the gate.

Not here: the checks (evidence.checks), what needs the log, root or a proof (the verbs `evidence` and `prove`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.evidence import FACTS, CheckDone, ExportStood, Told
from cofferdam.errors import GateError
from cofferdam.evidence.catalogue import catalogue
from cofferdam.evidence.checks.logs import ANEW
from cofferdam.evidence.checks.registry import run
from cofferdam.evidence.checks.tables import MINUTE
from cofferdam.evidence.history import WITNESS, Happening
from cofferdam.evidence.inputs import Inputs
from cofferdam.evidence.model import Finding, Missing
from cofferdam.evidence.standing import of_a_policy
from cofferdam.gate import state
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context
from cofferdam.gate.crew.auditor import Auditor
from cofferdam.gate.watch.exports import Exports
from cofferdam.gate.watch.nightly import Nightly
from cofferdam.gate.watch.witness import Witnesses


class CheckReport(msgspec.Struct, frozen=True):
    """A check of the evidence, as far as this life of the gate knows it. `last_ns`: when it was found last."""

    name: str
    failed: bool
    last_ns: int


ROUND_SECONDS = 60.0
FIRST_SECONDS = 20.0
"""After the start: the gate's own start comes first."""
AGAIN_NS = 86_400 * 10**9
"""An outcome that stays is an entry again after so long, or after half of what it is valid."""
MOST = 5000
"""Outcomes that are remembered; beyond it the oldest is forgotten, and would be recorded once more."""
MOST_FAILED = 20
"""Subjects of one check that failed and are remembered one by one."""
DAMAGED = "failed-checks-unknown"
BY = "gate"


class Evidence:
    """One gate's. All methods are called from the event loop."""

    def __init__(
        self, gate: Context, status: Callable[[], Any], clock: Callable[[], int] = now_ns,
        auditor: Auditor | None = None,
    ) -> None:  # fmt: skip
        """`auditor`: who signs the log's heads; without one they are given to nobody."""
        self._gate = gate
        self.witnesses = Witnesses(gate, auditor, self.told) if auditor is not None else None
        self.exports = Exports(gate, auditor, self.told) if auditor is not None else None
        self.nightly = Nightly(gate)
        self._clock = clock
        self._status = status
        self._known: dict[tuple[str, str], tuple[str, str, int]] = {}
        """Check and subject to the hash of the outcome, the policy that it was about, and when it was recorded."""
        self._alarms: dict[str, dict[str, str]] = {}
        """Check to the subjects that failed, with their words."""
        self._found: dict[str, int] = {}
        """When each check was found last, by whoever."""
        self._clocks: set[str] = set()
        self._last: dict[str, int] = {}
        """When each check of ours ran last."""
        self._about = ""
        """The policy of the last round."""
        self._stood: dict[str, Happening] = {}
        """How each export and witness stands, as we were told last."""
        self._stood_at: dict[str, float] = {}
        """When that was (monotonic): a clock that is set makes nobody silent."""

    def restore(self) -> None:
        """Raises again what had failed when the gate stopped last, and was not found otherwise."""
        failed, stood, damage = state.load_failed(self._gate.options.state)
        self._gate.alarm(DAMAGED, clip(damage))
        for check, subjects in failed.items():
            self._alarms[check] = dict(subjects)
            for words in list(subjects.values())[:1]:
                self._gate.alarm(f"check-{check}", clip(words))
        for name, words in stood.items():  # nobody says it again by itself
            if self._is_by_hand(name):
                self.told(ExportStood(collector=name, next=0, working=False, detail=clip(words)))

    async def work(self, stop: asyncio.Event) -> None:
        """Round after round, until the gate stops."""
        self.restore()
        await self.take_policy()
        self._gate.spawn(self.nightly.work(stop))
        wait = FIRST_SECONDS
        while not stop.is_set():
            try:
                async with asyncio.timeout(wait):
                    await stop.wait()
            except TimeoutError:
                self.round()
            wait = ROUND_SECONDS
        if self.witnesses is not None:
            await self.witnesses.stop()
        if self.exports is not None:
            await self.exports.stop()

    async def take_policy(self) -> None:
        """The policy in force says who gets the log's heads, and who its entries."""
        if self.witnesses is not None:
            await self.witnesses.take(self._gate.policy.audit.witnesses)
        if self.exports is not None:
            await self.exports.take(self._gate.policy.audit.collectors)

    @property
    def facts(self) -> tuple[tuple[str, bool, str], ...]:
        """What is in force in its parts, and what the gate does by itself."""
        witness = self.witnesses.facts if self.witnesses is not None else ()
        exports = self.exports.facts if self.exports is not None else ()
        return (*((f"witness: {one[0]}", one[1], one[2]) for one in witness), *exports, self.nightly.fact())

    def round(self) -> None:
        """Runs what is due."""
        now, checks = self._clock(), catalogue().checks
        if self._about != self._gate.policy_hash:  # what was found of another one counts no more
            self._about = self._gate.policy_hash
            self._last = {name: at for name, at in self._last.items() if not of_a_policy(name)}
        due = [
            one for one in MINUTE
            if now - self._last.get(one.id, 0) >= max(checks[one.id].every, 0) * 10**9 or now < self._last[one.id]
        ]  # fmt: skip
        if not due:
            return
        for one in due:
            self._last[one.id] = now
        known = Inputs(
            now, status=msgspec.to_builtins(self._status()), policy=self._gate.policy, stood=tuple(self._as_it_stands())
        )
        found, missing = run(due, known)
        self.take([*found, *(one.over for one in missing if one.gone and self._was_found(one))], BY)

    def _as_it_stands(self) -> Iterator[Happening]:
        """How each export and witness stands; the time is by the clock as it is now, however it was set since."""
        now, at = self._clock(), time.monotonic()
        for name, one in self._stood.items():
            when = now - int((at - self._stood_at[name]) * 1e9)
            yield msgspec.structs.replace(one, event=one.event | {"wall_ns": when})

    def _was_found(self, one: Missing) -> bool:
        """Whether something was found of it, in this life or, where that failed, before."""
        known = self._known.get((one.check, ""))
        return "" in self._alarms.get(one.check, ()) or (known is not None and known[0] != one.over.digest)

    def take(self, found: Iterable[Finding], by: str) -> int:
        """Records what is new or due, and keeps the alarms. How many entries it makes."""
        now, checks, count, changed = self._clock(), catalogue().checks, 0, False
        for one in found:
            check = checks.get(one.check)
            if check is None:
                continue
            changed = self._alarm(one) or changed
            # What rests on something earlier is as old as that: an old proof, looked at again, is no news.
            when = min(one.at_ns, now) if one.at_ns > 0 and one.outcome != "failed" else now
            self._found[one.check] = when
            key = (one.check, clip(one.subject, 128))
            digest, policy, at = self._known.pop(key, ("", "", 0))
            about = self._gate.policy_hash if of_a_policy(one.check) else ""
            again = min(AGAIN_NS, check.valid * 10**9 // 2)
            if (digest, policy) == (one.digest, about) and (0 <= when - at < again or when < at <= now):
                self._known[key] = (digest, policy, at)
                continue
            self._known[key] = (one.digest, about, when)
            while len(self._known) > MOST:
                del self._known[next(iter(self._known))]
            self._gate.note(
                CheckDone(
                    check=one.check, subject=key[1], outcome=one.outcome, says=clip(one.says), result=one.digest,
                    valid_seconds=check.valid, facts=tuple(clip(fact) for fact in one.facts[:FACTS]), by=clip(by, 128),
                    wall_ns=when,
                )
            )  # fmt: skip
            count += 1
        if changed:
            self._save()
        return count

    def _save(self) -> None:
        failed = {name: one for name, one in self._alarms.items() if one}
        stood = {
            name: str(one.event.get("detail", "")) for name, one in self._stood.items()
            if not one.event.get("working") and self._is_by_hand(name)
        }  # fmt: skip
        try:
            state.save_failed(self._gate.options.state, failed, stood)
        except GateError as error:
            self._gate.alarm(DAMAGED, clip(str(error)))
        else:
            self._gate.alarm(DAMAGED, "")

    def _is_by_hand(self, name: str) -> bool:
        """Whether it is a folder or a stick to which somebody brings the head, and no witness of the policy."""
        policy = self._gate.policy
        named = () if policy is None else (one.name for one in policy.audit.witnesses)
        return name.startswith(WITNESS) and name.removeprefix(WITNESS) not in named

    def reports(self) -> tuple[CheckReport, ...]:
        """What status and metrics say of it."""
        return tuple(CheckReport(name, bool(self._alarms.get(name)), at) for name, at in sorted(self._found.items()))

    def clocks(self, due: Mapping[str, str]) -> int:
        """Raises an alarm for each duty that is due, and clears those of all others. How many stand."""
        for name in self._clocks - due.keys():
            self._gate.alarm(f"clock-{name}", "")
        for name, detail in due.items():
            self._gate.alarm(f"clock-{name}", clip(detail))
        self._clocks = set(due)
        return len(due)

    def told(self, event: Told) -> None:
        """What others do outside the gate: an export that stands still is an alarm."""
        if isinstance(event, ExportStood):
            if event.detail != ANEW:
                at, said = event.wall_ns or self._clock(), msgspec.to_builtins(event)
                self._stood[event.collector] = Happening(-1, at, "gate", self._gate.policy_hash, said)
                self._stood_at[event.collector] = time.monotonic()
                while len(self._stood) > MOST:
                    del self._stood_at[first := next(iter(self._stood))], self._stood[first]
                if self._is_by_hand(event.collector):
                    self._save()  # as often as somebody comes by
            self._gate.alarm(f"export-{event.collector}", "" if event.working else event.detail or "it stands still")

    def _alarm(self, one: Finding) -> bool:
        """Raises it or clears it; whether other subjects than before have failed now."""
        failed = self._alarms.setdefault(one.check, {})
        before = set(failed)
        if one.outcome == "failed":
            about = f"{one.subject}: " if one.subject else ""
            fact = f" ({one.facts[0]})" if one.facts else ""
            words = clip(f"{about}{one.says}{fact}")
            if len(failed) < MOST_FAILED:
                failed[clip(one.subject, 128)] = words
            self._gate.alarm(f"check-{one.check}", words)
        else:
            failed.pop(clip(one.subject, 128), None)
            if not failed:
                self._gate.alarm(f"check-{one.check}", "")
        return before != set(failed)
