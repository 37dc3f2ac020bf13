"""What is kept of each advisory, and the clocks of CIP-007-6. PURE: time is given.

    R2.2   evaluated within `evaluate` after it was available: every asset that it may concern has an answer
    R2.3   within `plan` after that, each asset that it concerns has it installed, or stands in an approved plan
    R2.4   on a plan's own date, its assets have it installed

A clock starts when the vendor released the document, at the earliest on the day that the policy names (`since`), at the
latest when it came here: one that says it is of next year does not stop time. A revision or a policy by which an asset
is told something else takes that asset's answer back, and the first clock starts anew then.

States (IEC TR 62443-2-3) are what people say of an asset and a patch: they are kept, with who and when. Only
"installed" and "not-authorized" end anything here.

Not here: who may say what (desk), what documents say (matching).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from cofferdam.brokers.patch.advice.records import Advice, Match, VendorState
from cofferdam.policy.terms.patch_rows import Duties

NS: Final = 1_000_000_000
OwnerState = Literal["in-internal-test", "not-authorized", "authorized", "effective", "installed", "superseded"]
"""IEC TR 62443-2-3: where a patch stands at the owner of the asset."""
ClockName = Literal["evaluate", "plan", "carry-out"]
PLANS_MOST: Final = 100
"""Plans for one advisory."""
HISTORY_MOST: Final = 20
"""Changes of state of one asset that are kept here; all are in the log."""


class Answer(Struct, frozen=True, kw_only=True):
    """What a person said of an asset: whether an advisory concerns it, and why."""

    applies: bool
    note: str
    by: str
    at: int
    match: str = ""
    """What the document said of it then: "affected", "not affected" or "unknown"."""


class Change(Struct, frozen=True, array_like=True):
    """A state of the owner's, by whom and when (UTC ns)."""

    state: OwnerState
    by: str
    at: int
    note: str = ""


class Mitigation(Struct, frozen=True, kw_only=True):
    """A plan for assets that do not have the patch yet: who owns it, what is done, until when (UTC ns). It counts once
    somebody else has approved it."""

    number: int
    assets: tuple[str, ...]
    owner: str
    text: str
    until: int
    by: str
    at: int
    approver: str = ""
    approved: int = 0


class Row(Struct, frozen=True, kw_only=True):
    """One advisory. `product`: whose documents it came with; `file`: the document's number; `at`: when it came (UTC
    ns); `start`: when its first clock started; `evaluated`: when the last asset was answered, 0: not yet; `told`: the
    clocks of which the log has that they ran out."""

    product: str
    file: int
    provider: str
    advice: Advice
    at: int
    start: int
    answers: dict[str, Answer] = {}
    rest: Answer | None = None
    """Of all assets that it does not name."""
    evaluated: int = 0
    plans: tuple[Mitigation, ...] = ()
    states: dict[str, tuple[Change, ...]] = {}
    told: tuple[str, ...] = ()
    vendor: tuple[tuple[VendorState, int], ...] = ()

    @property
    def key(self) -> str:
        return f"{self.product}/{self.advice.id}"

    def verdict(self, asset: str) -> Match:
        found = next((one for one in self.advice.matches if one.asset == asset), None)
        return found if found is not None else Match(asset, "unknown", "it is not named")

    @property
    def affected(self) -> tuple[str, ...]:
        return tuple(one.asset for one in self.advice.matches if one.verdict == "affected")

    @property
    def concerned(self) -> tuple[str, ...]:
        """Assets that a person said it concerns."""
        return tuple(sorted(asset for asset, answer in self.answers.items() if answer.applies))

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Assets that it names and of which nobody has said anything."""
        return tuple(one.asset for one in self.advice.matches if one.asset not in self.answers)

    def state(self, asset: str) -> str:
        changes = self.states.get(asset, ())
        return changes[-1].state if changes else ""

    def settled(self, asset: str) -> bool:
        return self.state(asset) in ("installed", "superseded")


class Clock(Struct, frozen=True):
    """One that runs, or ran out: `due` in UTC ns, `assets` that it waits for."""

    name: ClockName
    due: int
    overdue: bool
    assets: tuple[str, ...] = ()
    plan: int = 0

    @property
    def key(self) -> str:
        """For `told`: a later due day is another one."""
        return f"{self.name}:{self.due}"


def start_of(released: int, at: int, duties: Duties) -> int:
    """When the first clock of an advisory starts that came at `at`."""
    return min(max(released or at, duties.since), at)


def clocks(row: Row, duties: Duties, now: int) -> tuple[Clock, ...]:
    """Those that run for it, the first due first."""
    if not row.evaluated:
        due = row.start + duties.evaluate * NS
        return (Clock("evaluate", due, now > due, row.unanswered),)
    found = []
    open_ = [asset for asset in row.concerned if not row.settled(asset)]
    planned: dict[str, Mitigation] = {}
    for plan in row.plans:  # a later plan takes an earlier one's place, once it is approved
        if plan.approver:
            planned.update(dict.fromkeys(plan.assets, plan))
    waiting = tuple(asset for asset in open_ if asset not in planned)
    if waiting:
        due = row.evaluated + duties.plan * NS
        found.append(Clock("plan", due, now > due, waiting))
    for plan in {one.number: one for one in planned.values()}.values():
        behind = tuple(asset for asset in open_ if planned.get(asset) is plan)
        if behind:
            found.append(Clock("carry-out", plan.until, now > plan.until, behind, plan.number))
    return tuple(sorted(found, key=lambda clock: clock.due))


def standing(row: Row, duties: Duties, now: int) -> str:
    """ "open", "to plan", "planned", "done", and "overdue" before any of them."""
    running = clocks(row, duties, now)
    if any(clock.overdue for clock in running):
        return "overdue"
    if not row.evaluated:
        return "open"
    return "to plan" if any(clock.name == "plan" for clock in running) else "planned" if running else "done"


def answered(row: Row, answers: dict[str, Answer], rest: Answer | None, now: int) -> Row:
    """With what people said. It is evaluated when each named asset has its answer, and the rest as well."""
    fresh = replace(row, answers={**row.answers, **answers}, rest=rest or row.rest)
    if fresh.evaluated or fresh.unanswered or fresh.rest is None:
        return fresh
    return replace(fresh, evaluated=now)


def revised(row: Row, advice: Advice, file: int, provider: str, now: int) -> tuple[Row, tuple[str, ...]]:
    """With a newer document, or matched anew; and the assets whose answers that took back."""
    verdicts = {one.asset: one.verdict for one in advice.matches}
    more = set(advice.vulnerabilities) - set(row.advice.vulnerabilities)
    gone = tuple(sorted(
        asset for asset, answer in row.answers.items() if more or answer.match != verdicts.get(asset, "unknown")
    ))  # fmt: skip
    vendor = row.vendor
    if advice.vendor and (not vendor or vendor[-1][0] != advice.vendor):
        vendor = (*vendor, (advice.vendor, now))[-HISTORY_MOST:]
    answers = {asset: answer for asset, answer in row.answers.items() if asset not in gone}
    fresh = replace(row, advice=advice, file=file, provider=provider, answers=answers, vendor=vendor)
    if row.evaluated and (gone or fresh.unanswered):
        fresh = replace(fresh, evaluated=0, start=now)
    return fresh, gone


def moved(row: Row, asset: str, change: Change) -> Row:
    changes = (*row.states.get(asset, ()), change)[-HISTORY_MOST:]
    return replace(row, states={**row.states, asset: changes})


def day(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // NS, UTC):%Y-%m-%d}"
