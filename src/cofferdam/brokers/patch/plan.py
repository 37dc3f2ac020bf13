"""What goes where and when: rings, windows, thresholds, and what is never done twice. PURE: no clock, no I/O.

For each asset and product the newest release counts. An asset's turn comes when

    its product is not paused, and the release not stopped
    every asset of the rings before is done with this release, and the last of those rings has rested (soak)
    its window is open, and the transfer would end inside it (an emergency release asks for no window and no soak)
    no more assets are under way than may be at once
    no point says that production runs (`unless`)

A step that has begun is in the installer's book before anything is sent. "sending" after a crash becomes "unknown":
nobody knows what the asset has. Failed and unknown steps are never begun again by themselves; a person says what is
there. So many of them (`stop_after`) stop the release for all.

Not here: transfers (sftp, serving), whose signatures count (trust).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal

from msgspec import Struct

from cofferdam.brokers.patch.records import Release
from cofferdam.model import NEVER
from cofferdam.policy import windows
from cofferdam.policy.hours import Clock, Window
from cofferdam.policy.terms.patch_rows import Install, PatchRows

NS: Final = 1_000_000_000
UPCOMING_MOST: Final = 200
"""Rows of windows that are told ahead."""
URGENT_SECONDS: Final = 86_400
"""How long an emergency is told of once it has gone where it was to go."""

State = Literal["sending", "sent", "done", "failed", "unknown", "backing", "back", "again"]
"""`again`: it may be begun anew, since nothing came of it; what the asset had before is still known."""
UNSETTLED: Final = ("failed", "unknown", "back")
"""A person has to look."""


class Step(Struct, frozen=True, kw_only=True):
    """Where an asset stands with a product. `release`: its number; `at`: since when (UTC ns); `previous`: the release
    that it had before, 0 for none that is known here; `tries`: how often the asset has left before the end; `begun`:
    which start it goes back to, whatever the clock has done since."""

    asset: str
    product: str
    release: int
    version: str
    sha256: str
    state: State
    at: int
    detail: str = ""
    previous: int = 0
    tries: int = 0
    begun: int = 0

    @property
    def key(self) -> str:
        return f"{self.asset}/{self.product}"


class Held(Struct, frozen=True, kw_only=True):
    """What people have set: paused products, stopped releases, and failures of a release that they have let pass."""

    paused: tuple[str, ...] = ()
    stopped: tuple[int, ...] = ()
    passed: dict[int, int] = {}


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether it is an asset's turn. `until`: when that lapses, or when it may change (UTC ns); `why` for people."""

    asset: str
    product: str
    release: Release | None
    install: Install
    due: bool
    why: str
    until: int = NEVER
    held: bool = False
    """Nothing but a point holds it back, or does not: it is looked at."""


class Plan:
    """By the rows, releases and steps as they are now."""

    def __init__(
        self, rows: PatchRows, releases: Iterable[Release], steps: Mapping[str, Step], held: Held,
        clocks: Mapping[str, Clock], guard: Callable[[Install], str] = lambda _: "",
    ) -> None:  # fmt: skip
        self._rows = rows
        self._steps = steps
        self._held = held
        self._clocks = clocks
        self._guard = guard
        """Why a point holds an install back, "" if none does."""
        self._active: set[str] | None = None
        self._soak = dict(rows.soak)
        self._rates = {way.asset: way.rate for way in rows.ways}
        self._failed: Counter[int] | None = None
        self._rings: dict[tuple[str, str, int], tuple[str, int]] = {}
        self._newest: dict[str, Release] = {}
        for release in releases:
            if release.custom.number not in held.stopped:
                self._newest[release.custom.product] = release

    def newest(self, product: str) -> Release | None:
        """The one that counts."""
        return self._newest.get(product)

    def emergencies(self, wall_ns: int) -> Iterator[Release]:
        """Releases that go outside windows: as long as an asset is still to get one, and for a day after that."""
        for product, release in self._newest.items():
            if not release.custom.emergency:
                continue
            mine = [each for each in self._rows.installs if product in each.products]
            steps = [self._steps.get(f"{each.asset}/{product}") for each in mine]
            number, since = release.custom.number, wall_ns - URGENT_SECONDS * NS
            if any(each is None or each.release < number or each.state != "done" or each.at > since for each in steps):
                yield release

    def verdicts(self, wall_ns: int, asset: str = "") -> Iterator[Verdict]:
        """One for each asset and product, in the order of rings; `asset`: for this one alone."""
        order = {ring: number for number, ring in enumerate(self._rows.rings)}
        mine = [each for each in self._rows.installs if asset in ("", each.asset)]
        for install in sorted(mine, key=lambda each: (order.get(each.ring, 0), each.asset)):
            for product in install.products:
                yield self.verdict(install, product, wall_ns)

    def verdict(self, install: Install, product: str, wall_ns: int) -> Verdict:
        release = self._newest.get(product)

        def no(why: str, until: int = NEVER) -> Verdict:
            return Verdict(
                asset=install.asset, product=product, release=release, install=install, due=False, why=why, until=until
            )

        if release is None:
            return no("nothing is released")
        step = self._steps.get(f"{install.asset}/{product}")
        number = release.custom.number
        if step is not None and step.state in UNSETTLED:
            what = f"release {step.release} is {step.state}"
            return no(f"{what}: a person has to say what the asset has (`cofferdam patch result`)")
        if step is not None and step.state in ("sending", "sent", "backing"):
            return no(f"release {step.release} is under way ({step.state})")
        if step is not None and step.state == "done" and step.release >= number:
            return no(f"done with {step.version}")
        if product in self._held.paused:
            return no("paused")
        if why := self.stopped(release):
            return no(why)
        if not release.custom.emergency:
            why, until = self._rings_before(install, product, release, wall_ns)
            if why:
                return no(why, until)
            is_open, until = windows.state(install.windows, self._clocks, wall_ns)
            if not is_open:
                return no("its window is shut", until)
            needs = release.size * NS // self._rates.get(install.asset, 1)
            if until != NEVER and wall_ns + needs > until:
                return no(f"its window ends before {release.size} bytes could be there", until)
        else:
            until = NEVER
        if self._rows.at_once and len(busy := self.active - {install.asset}) >= self._rows.at_once:
            count = f"{len(busy)} assets are" if len(busy) > 1 else "1 asset is"
            return no(f"{count} under way, and {self._rows.at_once} may be at once")
        why = self._guard(install) if install.unless else ""
        return Verdict(
            asset=install.asset, product=product, release=release, install=install, due=not why, why=why or "now",
            until=until, held=bool(install.unless),
        )  # fmt: skip

    @property
    def active(self) -> set[str]:
        """Assets that are being changed: sent to, fetching, or looked at afterwards by us."""
        if self._active is None:
            looked_at = {
                f"{each.asset}/{product}"
                for each in self._rows.installs if each.health is not None and not each.health.person
                for product in each.products
            }  # fmt: skip
            self._active = {
                step.asset for key, step in self._steps.items()
                if step.state in ("sending", "backing") or (step.state == "sent" and key in looked_at)
            }  # fmt: skip
        return self._active

    def failures(self, release: Release) -> int:
        """Assets that failed with a release, of those that no person has let pass."""
        number = release.custom.number
        if self._failed is None:
            self._failed = Counter(step.release for step in self._steps.values() if step.state in UNSETTLED)
        return max(0, self._failed[number] - self._held.passed.get(number, 0))

    def stopped(self, release: Release) -> str:
        """Why a release stands still for all, "" if it does not."""
        count = self.failures(release)
        if count < self._rows.stop_after:
            return ""
        return f"stopped: {count} of its assets failed, and {self._rows.stop_after} stop it"

    def _rings_before(self, install: Install, product: str, release: Release, wall_ns: int) -> tuple[str, int]:
        for ring in self._rows.rings:
            if ring == install.ring:
                break
            lacks, last = self._ring(ring, product, release.custom.number)
            if lacks:
                return f"ring {ring} comes first, and {lacks} is not done", NEVER
            rests = last + self._soak.get(ring, 0) * NS
            if last and wall_ns < rests:
                return f"ring {ring} rests until it has been good for {self._soak[ring]} s", rests
        return "", NEVER

    def _ring(self, ring: str, product: str, number: int) -> tuple[str, int]:
        """(an asset that is not done with a release, when the last one was): reckoned once, for all that wait."""
        found = self._rings.get((ring, product, number))
        if found is None:
            lacks, last = "", 0
            for other in self._rows.installs:
                if other.ring != ring or product not in other.products:
                    continue
                step = self._steps.get(f"{other.asset}/{product}")
                if step is None or step.state != "done" or step.release < number:
                    lacks = other.asset
                    break
                last = max(last, step.at)
            found = self._rings[ring, product, number] = (lacks, last)
        return found


def upcoming(
    some: tuple[Window, ...], clocks: Mapping[str, Clock], wall_ns: int, until_ns: int
) -> list[tuple[int, int]]:
    """When the windows are open between two times, as (from, to) in UTC ns; one that is open at an end is cut there.
    No windows: always. What is shown here is what `windows.state` says later."""
    found: list[tuple[int, int]] = []
    at, since = wall_ns, -1
    is_open, edge = windows.state(some, clocks, at)
    while at < until_ns and len(found) < UPCOMING_MOST:
        if is_open and since < 0:
            since = at
        if not is_open and since >= 0:
            found.append((since, at))
            since = -1
        if edge == NEVER or edge >= until_ns:
            break
        at = edge
        is_open, edge = windows.state(some, clocks, at)
    if since >= 0 and is_open:
        found.append((since, until_ns))
    return found
