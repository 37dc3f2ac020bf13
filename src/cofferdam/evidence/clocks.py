"""Standing duties: when each was done last, when it is due again, and how often it was late.

A clock is set by what the log has: a result of a check, an attestation, a drill, a pack. Its dates follow from the log
alone, so nothing keeps them elsewhere.

Not here: raising alarms (the verb hands them to the gate), the calendar's transport.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from cofferdam.evidence.attest import approvals
from cofferdam.evidence.history import History
from cofferdam.evidence.model import Catalogue, Clock

NS = 1_000_000_000
RESET: dict[str, tuple[str, ...]] = {
    "log-review": ("attestation:log.reviewed",),
    "baseline-update": ("baseline:approved",),
    "baseline-watch": ("check:config.drift",),
    "patch-evaluation": ("attestation:patch-evaluation", "attestation:patch.answered", "event:advisory-evaluated"),
    "patch-plan": ("attestation:patch-plan", "check:patch.on-schedule", "event:mitigation-approved"),
    "log-retention": ("check:log.retention",),
    "account-review": ("attestation:access.reviewed",),
    "vulnerability": ("attestation:vulnerability", "attestation:paper.assessment"),
    "island-drill": ("drill:island",),
    "restore-drill": ("drill:restore", "check:backup.restored", "attestation:backup.restored"),
    "evidence-keep": ("pack:",),
}
"""What sets a clock anew: a kind of happening and what it is about."""


SHOWN = 100
"""Times at which a duty was done that are listed; the latest."""


class Done(msgspec.Struct, frozen=True):
    """One time that it was done: the day (UTC), its entry, and whether that was after the day on which it was due."""

    day: str
    entry: int
    late: bool


class Due(msgspec.Struct, frozen=True):
    """One clock. `state`: "on time", "due soon", "overdue", "never done"; dates are UTC days, "" for none. `late`: how
    often it was done after its day, of `times`; `history` has each of the latest."""

    clock: str
    state: str
    last: str
    due: str
    left_days: int
    late: int
    times: int
    done: str
    serves: tuple[str, ...]
    entry: int = -1
    history: tuple[Done, ...] = ()


def day(ns: int) -> str:
    return datetime.fromtimestamp(ns // NS, UTC).strftime("%Y-%m-%d")


def dues(catalogue: Catalogue, history: History, now_ns: int) -> tuple[Due, ...]:
    """Every clock. `now_ns`: the later of clock and log: what was done in a future that never came is not done."""
    return tuple(_due(clock, history, max(now_ns, history.last_ns)) for clock in catalogue.clocks.values())


def _due(clock: Clock, history: History, now_ns: int) -> Due:
    times = sorted(_times(clock.id, history))
    begins = [(history.first_ns, -1), *times]  # the first time is due from the day on which the log begins
    done = [
        Done(day(after), entry, after - before > clock.after * NS)
        for (before, _), (after, entry) in itertools.pairwise(begins)
    ]
    late = sum(one.late for one in done)
    # What was never done is due from the day on which the log begins.
    start = times[-1][0] if times else history.first_ns or now_ns
    due_ns = start + clock.after * NS
    left = (due_ns - now_ns) // (86_400 * NS)
    if now_ns > due_ns:
        state = "overdue"
    elif now_ns > due_ns - clock.remind * NS:
        state = "due soon"
    else:
        state = "on time" if times else "never done"
    last, entry = (day(times[-1][0]), times[-1][1]) if times else ("", -1)
    return Due(clock.id, state, last, day(due_ns), left, late, len(times), clock.done, clock.serves, entry,
               tuple(done[-SHOWN:]))  # fmt: skip


def _times(name: str, history: History) -> Iterator[tuple[int, int]]:
    """(time, entry) of each time that it was done."""
    for one in RESET.get(name, ()):
        kind, _, about = one.partition(":")
        match kind:
            case "check":
                for (check, _), results in history.results.items():
                    if check == about:
                        yield from ((result.time_ns, result.index) for result in results
                                    if result.outcome not in ("failed", "not covered"))  # fmt: skip
            case "attestation":
                for made in history.attestations:
                    if made.check == about and made.withdrawn < 0 and not made.trouble:
                        yield made.time_ns, made.index
            case "baseline":
                for approved in approvals(history):
                    if not approved.trouble:
                        yield approved.time_ns, approved.entry
            case "event":
                yield from ((happened.time_ns, happened.index) for happened in history.of(about))
            case "drill":
                for happened in history.of("drill-done"):
                    if happened.event.get("drill") == about:
                        yield happened.time_ns, happened.index
            case _:
                for happened in history.of("pack-made"):
                    yield happened.time_ns, happened.index


def calendar(found: tuple[Due, ...], site: str) -> str:
    """The due days as a calendar file (RFC 5545)."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Cofferdam//evidence//EN"]
    for one in found:
        start = one.due.replace("-", "")
        lines += [
            "BEGIN:VEVENT", f"UID:{one.clock}@{_ics(site)}", f"DTSTAMP:{start}T000000Z", f"DTSTART;VALUE=DATE:{start}",
            f"SUMMARY:{_ics(f'{site}: {one.clock}')}", f"DESCRIPTION:{_ics(one.done)}", "END:VEVENT",
        ]  # fmt: skip
    return "".join(_folded(line) for line in (*lines, "END:VCALENDAR"))


def _ics(text: str) -> str:
    return text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")


def _folded(line: str) -> str:
    """RFC 5545, 3.1: at most 75 octets in a line."""
    out, current = [], ""
    for letter in line:
        if len((current + letter).encode()) > 73:
            out.append(current)
            current = " "
        current += letter
    return "\r\n".join((*out, current)) + "\r\n"
