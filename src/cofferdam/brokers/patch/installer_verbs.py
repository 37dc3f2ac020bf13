"""What operators ask of the installer: the plan, pause, resume and stop, and what an asset has where nobody knows.

Not here: when anything is sent (plan), sending (installer).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from cofferdam.audit.entry import Draft
from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Setting
from cofferdam.brokers.patch import asks, records, told
from cofferdam.brokers.patch.book import Table
from cofferdam.brokers.patch.plan import NS, Held, Plan, State, Step, upcoming
from cofferdam.brokers.patch.records import Release
from cofferdam.errors import GateError, StoreError
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.patch_rows import PatchRows, Way

WEEKS: Final = 4
"""Windows are shown so far ahead."""


class Known(Struct, frozen=True):
    """The versions of targets and root that are believed, why what is offered is not, and what goes out now: asset,
    product, bytes. `unsigned`: keys of the site's that cannot sign repositories, and why."""

    targets: int
    root: int
    refused: str
    under_way: tuple[tuple[str, str, int], ...]
    unsigned: dict[str, str]


class Installing(Protocol):
    """The installer, as its verbs know it."""

    setting: Setting
    policy: CompiledPolicy
    rows: PatchRows
    steps: Table[Step]

    @property
    def releases(self) -> tuple[Release, ...]:
        """What is released."""

    @property
    def held(self) -> Held:
        """What people have set."""

    @property
    def known(self) -> Known:
        """What it believes, and does."""

    def hold(self, held: Held) -> None:
        """What people have set, on disk. Raises: StoreError."""

    def plan(self) -> Plan:
        """As things are now."""

    def shut(self) -> str:
        """Why nothing goes out now, "" if it may."""

    def settle(self, step: Step, state: State, detail: str = "") -> Step:
        """Writes what became of a step."""

    def way(self, asset: str) -> Way | None:
        """How an asset gets its files."""

    def dealt_with(self, step: Step) -> None:
        """A person has said what became of it."""


class InstallerVerbs:
    """The installer's."""

    def __init__(self, part: Installing) -> None:
        self._part = part

    def command(self, asked: Asked) -> bool:
        """Does what is asked. False: it is no verb of these."""
        if asked.verb == "plan":
            asked.decode(asks.By)
            asked.answer(self._plan_told())
        elif asked.verb == "believed":
            asked.decode(asks.By)
            asked.answer({each.path: each.digest[: records.SHORT] for each in self._part.releases})
        elif asked.verb in ("pause", "resume", "stop"):
            said = asked.decode(asks.Product)
            self._held_by(asked.verb, said)  # refuses now what makes no sense
            draft = events.PlanSet(
                wall_ns=self._part.setting.wall(), what=asked.verb, by=clip(said.by, 128), product=said.product
            )
            self._decided(asked, draft, lambda: self._part.hold(self._held_by(asked.verb, said)))
        elif asked.verb == "result":
            found = asked.decode(asks.Result)
            self._settled_by(found)
            draft = events.PlanSet(
                wall_ns=self._part.setting.wall(), what=f"result-{found.says}", by=clip(found.by, 128),
                product=found.product, asset=found.asset, detail=found.detail, technician=clip(found.technician, 128),
                reads=clip(found.reads, 128),
            )  # fmt: skip
            self._decided(asked, draft, lambda: self._result(found))
        else:
            return False
        return True

    def _decided(self, asked: Asked, draft: Draft, act: Callable[[], None]) -> None:
        """What a person decides: recorded, then done, then answered."""

        def told(ok: bool, why: str) -> None:
            if not ok:
                asked.refuse(f"nothing can be recorded: {why or 'the log'}", "nothing has changed")
                return
            try:
                act()
            except (GateError, StoreError) as error:
                asked.refuse(str(error))
                return
            asked.answer(self._plan_told())

        self._part.setting.audit.record(draft, told)

    def _held_by(self, verb: str, said: asks.Product) -> Held:
        """Raises: GateError."""
        if self._part.rows.product(said.product) is None:
            known = ", ".join(sorted({product for each in self._part.rows.installs for product in each.products}))
            raise GateError(f"there is no product {said.product}", hint=f"assets get {known or 'none'}")
        held = self._part.held
        newest = next((each for each in reversed(self._part.releases) if each.custom.product == said.product), None)
        if verb == "pause":
            return replace(held, paused=tuple(sorted({*held.paused, said.product})))
        if verb == "stop":
            if newest is None:
                raise GateError(f"nothing is released for {said.product}")
            return replace(held, stopped=tuple(sorted({*held.stopped, newest.custom.number})))
        paused = tuple(each for each in held.paused if each != said.product)
        stopped = tuple(n for n in held.stopped if newest is None or n != newest.custom.number)
        passed = dict(held.passed)
        if newest is not None:
            passed[newest.custom.number] = passed.get(newest.custom.number, 0) + self._part.plan().failures(newest)
        return replace(held, paused=paused, stopped=stopped, passed=passed)

    def _settled_by(self, said: asks.Result) -> Step:
        """The step that a person may settle now. Raises: GateError."""
        step = self._part.steps.get(f"{said.asset}/{said.product}")
        if step is None:
            raise GateError(f"nothing was sent to {said.asset} of {said.product}")
        if step.state not in ("failed", "unknown", "back", "sent"):
            raise GateError(f"{said.asset} is {step.state}: there is nothing to settle")
        if said.says not in ("done", "again", "failed"):
            raise GateError("a result is done, failed, or again")
        way = self._part.way(said.asset)
        if way is not None and way.hands and said.says == "done" and not (said.technician and said.reads):
            raise GateError(
                f"{said.asset} is installed by hand: who did it, and which version does it show?",
                hint="--technician NAME --reads VERSION",
            )
        return step

    def _result(self, said: asks.Result) -> None:
        step = self._settled_by(said)
        state: State = "again" if said.says == "again" else "done" if said.says == "done" else "failed"
        words = [said.by, *([f"by {said.technician}"] if said.technician else [])]
        if said.reads and said.reads != step.version and state == "done":
            state = "failed"
            words.append(f"it shows {said.reads} and not {step.version}")
        self._part.settle(replace(step, tries=0), state, f"{', '.join(words)}: {said.detail}")
        self._part.dealt_with(step)

    def _plan_told(self) -> told.Plan:
        now = self._part.setting.wall()
        plan = self._part.plan()
        until = now + WEEKS * 7 * 86_400 * NS
        rows: list[told.Due] = []
        for verdict in plan.verdicts(now):
            step = self._part.steps.get(f"{verdict.asset}/{verdict.product}")
            rows.append(
                {
                    "asset": verdict.asset,
                    "product": verdict.product,
                    "ring": verdict.install.ring,
                    "release": verdict.release.custom.version if verdict.release else "",
                    "number": verdict.release.custom.number if verdict.release else 0,
                    "due": verdict.due,
                    "why": verdict.why,
                    "state": step.state if step is not None else "",
                    "has": step.version if step is not None else "",
                    "detail": step.detail if step is not None else "",
                    "at": step.at if step is not None else 0,
                    "windows": upcoming(verdict.install.windows, self._part.policy.table.clocks, now, until),
                }
            )
        known = self._part.known
        return {
            "targets": known.targets,
            "root": known.root,
            "refused": known.refused,
            "unsigned": known.unsigned,
            "shut": self._part.shut(),
            "under_way": [
                {"asset": asset, "product": product, "sent": sent} for asset, product, sent in known.under_way
            ],
            "paused": list(self._part.held.paused),
            "stopped": list(self._part.held.stopped),
            "releases": [_released(each) for each in self._part.releases[-200:]],
            "assets": rows,
        }


def _released(each: Release) -> told.Released:
    said = each.custom
    return {
        "path": each.path, "sha256": each.sha256, "size": each.size, "number": said.number, "product": said.product,
        "version": said.version, "file": said.file, "uploaded_by": said.uploaded_by, "requested_by": said.requested_by,
        "origin": said.origin, "scan": said.scan, "at": said.at, "emergency": said.emergency, "reason": said.reason,
    }  # fmt: skip
