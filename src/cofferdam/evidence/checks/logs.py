"""Checks that read the log, and the machine that it lies on."""

from __future__ import annotations

from cofferdam.audit.entry import DRAFTS, parse_time
from cofferdam.evidence.checks.registry import Table
from cofferdam.evidence.history import WITNESS, Happening, History
from cofferdam.evidence.inputs import Disk, Gone, Inputs, Unknown
from cofferdam.evidence.model import Finding, several, spoken

TABLE = Table()
DAY_NS = 86_400 * 10**9
LEAST_DAYS = 14
"""Days of room that the log must have at its present rate."""
LEAST_FREE = 0.05
"""The share of the disk that must be free whatever the rate is."""
RETENTION_DAYS = 90
SILENT_SECONDS = 2 * 3600
"""So long a collector or a witness of the policy may say nothing, which says so every hour."""
MAX_ERROR_SECONDS = 1.0
OUT = "it is out of the policy"
"""What the gate says of a witness or a collector that the policy no longer names (gate.watch)."""
ANEW = "it is told anew from here on"
"""What it tells itself of one whose alarm is over, before it is told again."""


@TABLE.check("log.whole", "files")
def whole(known: Inputs) -> Finding:
    """No entry was changed, removed, added or moved."""
    verified = known.verified
    if verified is None:
        raise Unknown("the log was not verified this time")
    if verified.findings:
        return Finding("log.whole", "failed", f"{len(verified.findings)} findings in the log",
                       tuple(one[:500] for one in verified.findings[:8]))  # fmt: skip
    return Finding("log.whole", "tested", f"all {verified.entries:,} entries fit the signed checkpoint")


@TABLE.check("log.content", "history")
def content(known: Inputs) -> Finding:
    """An entry says what, when, where, who, on what, and how it ended: by the schema of the events."""
    facts = ("every entry: index, time (UTC, ns), site, maker, hash of the policy, event",
             "refusals and writes: principals, source, asset, conduit, rule, function, values",
             "write-outcome: how it ended, by the id of its write-allowed")  # fmt: skip
    if strange := known.the_history().problems:
        says = "the log has entries that no gate of ours writes: its gate may be in somebody else's hands"
        return Finding("log.content", "failed", says, tuple(one[:500] for one in strange[:8]))
    return Finding(
        "log.content", "observed", f"{len(DRAFTS)} kinds of events, each with a closed set of members", facts
    )


def _room(known: Inputs) -> Disk | None:
    """By the gate's own word where it runs, which knows better how fast the log grows."""
    said = known.status["audit"].get("disk") if known.status is not None else None
    if not said or said["free"] < 0 or said["total"] <= 0:
        return known.disk
    # The first minutes of a log are its busiest, and its files have room that is still empty: no rate on its first day.
    young = not said["since"] or known.now_ns - parse_time(said["since"]) < DAY_NS
    more = max(0, said["most"] - said["bytes"]) if said["most"] else None
    return Disk(said["free"], said["total"], 0 if young else max(0, said["per_day"]), more)


@TABLE.check("log.capacity", "status")
def capacity(known: Inputs) -> Finding:
    """There is room for the log: for what `at_most` lets it take, or for some time on the disk. How long entries are
    kept by that is log.retention's to say."""
    disk = _room(known)
    if disk is None:
        raise Unknown("the log's disk was not looked at")
    share = disk.free / max(1, disk.total)
    days = disk.free // disk.per_day if disk.per_day > 0 else -1
    facts = (f"{disk.free / 2**30:,.1f} GiB free of {disk.total / 2**30:,.1f} ({share:.0%})",
             f"the log grows by {disk.per_day / 2**20:,.1f} MiB a day" if disk.per_day else "no rate yet")  # fmt: skip
    if disk.more is not None and disk.more <= disk.free:
        room = f"{disk.more / 2**30:,.1f} GiB more by the policy (at_most), then the oldest go"
        return Finding("log.capacity", "observed", "there is room for all that the log may take", (*facts, room))
    if share < LEAST_FREE or 0 <= days < LEAST_DAYS:
        lasts = f", enough for {days} days" if days >= 0 else ""
        return Finding("log.capacity", "failed", f"{disk.free / 2**30:,.1f} GiB are free for the log{lasts}", facts)
    lasts = f"for {days:,} days at the present rate" if days >= 0 else "so far"
    return Finding("log.capacity", "observed", f"there is room for the log {lasts}", facts)


@TABLE.check("log.retention", "history")
def retention(known: Inputs) -> Finding:
    """Entries are kept: all since the first, or as many days as the standards ask for, and what went is on record."""
    history = known.the_history()
    if not history.size:
        raise Unknown("the log is empty")
    days = (history.last_ns - history.first_ns) // DAY_NS
    if not history.first:
        young = f"; younger than {RETENTION_DAYS} days itself" if days < RETENTION_DAYS else ""
        since = f"the first entry is {days} days older than the last{young}"
        return Finding("log.retention", "observed", "every entry since the first is kept", (since,))
    gone = history.last("entries-dropped")
    root = f"; entry {gone.index} has their root{', moved away' if gone.event.get('moved') else ''}" if gone else ""
    facts = (f"entries below {history.first:,} have gone, by the policy's retention{root}",
             f"the first that is kept is {days} days older than the last")  # fmt: skip
    if days < RETENTION_DAYS:
        says = f"{days} days of the log are kept, and {RETENTION_DAYS} are asked for"
        return Finding("log.retention", "failed", says, facts)
    return Finding("log.retention", "observed", f"{days} days of the log are kept", facts)


def _stood(known: Inputs, before: str) -> tuple[dict[str, Happening], list[str]]:
    """How each stands that counts, by its name without `before`; and those of the policy of which no word has come
    since the gate started. One that the policy no longer names counts no more, also where it was taken out while no
    gate ran; but a folder or a stick to which somebody brings the head by hand is in no policy."""
    last: dict[str, Happening] = {}
    visited: set[str] = set()
    for one in known.how_it_stood():
        name = str(one.event.get("collector", ""))
        if name.startswith(WITNESS) == bool(before):
            name = name.removeprefix(before)
            last[name] = one
            if one.event.get("note"):
                visited.add(name)
    named: set[str] | None = None
    if known.policy is not None:
        audit = known.policy.audit
        named = {one.name for one in (audit.witnesses if before else audit.collectors)}
    found = {
        name: one for name, one in last.items()
        if one.event.get("detail") != OUT
        and (named is None or name in named or (bool(before) and name not in visited))
    }  # fmt: skip
    # The gate knows what it was told itself; the log has words of earlier lives as well.
    started = known.history.last("gate-started") if known.stood is None and known.history is not None else None
    since = started.index if started is not None and known.now_ns - started.at_ns < SILENT_SECONDS * 10**9 else -1
    silent = [
        name for name in sorted(named or ())
        if name not in found or (since >= 0 and 0 <= found[name].index < since and found[name].event.get("working"))
    ]  # fmt: skip
    return found, silent


def goes_elsewhere(history: History) -> bool:
    """Whether the policy has the log taken elsewhere, as far as the log says: a stick that somebody brings is in no
    policy, and who is out of it says so."""
    last = {str(one.event.get("collector", "")): one for one in history.of("export-stood")}
    visited = {str(one.event.get("collector", "")) for one in history.of("export-stood") if one.event.get("note")}
    return any(
        one.event.get("detail") != OUT
        and (not name.startswith(WITNESS) or name in visited or not one.event.get("working"))
        for name, one in last.items()
    )


def _entry(one: Happening) -> str:
    """Its number, where the log was read: the gate is told before there is an entry."""
    return f" (entry {one.index})" if one.index >= 0 else ""


@TABLE.check("log.exported", "exports")
def exported(known: Inputs) -> Finding:
    """Entries reach the central collector, in order and without gaps."""
    stood, silent = _stood(known, "")
    if not stood and not silent:
        raise Gone("nothing is exported: `collectors:` in the policy's `audit:` names who gets the entries")
    wrong, good = [], []
    for name, one in stood.items():
        ago = (known.now_ns - one.at_ns) // 10**9
        words = f"{name}: next entry {one.event.get('next')}, {spoken(ago)} ago{_entry(one)}"
        if not one.event.get("working"):
            wrong.append(f"{words}: {one.event.get('detail')}"[:500])
        elif name in silent:
            continue
        elif ago > SILENT_SECONDS:
            wrong.append(f"{words}: it says so every hour")
        else:
            good.append(words)
    if wrong:
        return Finding("log.exported", "failed", "entries do not reach a collector", tuple(wrong[:8]))
    if silent:
        raise Unknown(f"no word of {silent[0]} has come since the gate started")
    # Each has said so lately, or it would have failed: the newest of them ends a failure, whichever it was of.
    says = f"entries reach {several(len(good), 'collectors')} in order"
    return Finding("log.exported", "observed", says, tuple(good[:8]),
                   at_ns=max(one.at_ns for one in stood.values()))  # fmt: skip


@TABLE.check("log.witnessed", "exports")
def witnessed(known: Inputs) -> Finding:
    """A copy of the log's head is where the gate cannot change it."""
    stood, silent = _stood(known, WITNESS)
    if not stood and not silent:
        raise Gone("no checkpoint is kept elsewhere: `cofferdam evidence witness` gives them away")
    # One that says no is never outvoted by another: it holds a head that this log does not lead to.
    wrong = [f"{name}: {one.event.get('detail')}{_entry(one)}"[:500] for name, one in stood.items()
             if not one.event.get("working")]  # fmt: skip
    if wrong:
        return Finding("log.witnessed", "failed", "a witness says no, or does not have the head", tuple(wrong[:8]))
    # Those of the policy, whose entries have a note, are visited each minute. (A stick is, when somebody comes by.)
    wrong = [f"{name}: nothing was heard of it lately{_entry(one)}, and it is told each hour"[:500]
             for name, one in stood.items() if name not in silent
             and one.event.get("note") and known.now_ns - one.at_ns > SILENT_SECONDS * 10**9]  # fmt: skip
    if wrong:
        return Finding("log.witnessed", "failed", "nobody says whether a witness has the head", tuple(wrong[:8]))
    if silent:
        raise Unknown(f"no word of {silent[0]} has come since the gate started")
    facts = tuple(
        f"{name}: {one.event.get('next')} entries, {spoken((known.now_ns - one.at_ns) // 10**9)} ago"
        for name, one in stood.items()
    )
    return Finding("log.witnessed", "observed", "the log's head is kept elsewhere", facts[:8],
                   at_ns=max(one.at_ns for one in stood.values()))  # fmt: skip


@TABLE.check("clock.sound", "files", "history")
def clock(known: Inputs) -> Finding:
    """The clock is synchronised, and every jump is in the log."""
    daemon = known.time_daemon
    if daemon is None:
        raise Unknown("the kernel's clock was not asked")
    jumps = known.history.of("clock-jump") if known.history is not None else []
    facts = [f"the kernel admits an error of {daemon.error_seconds * 1000:,.0f} ms"]
    facts += [f"entry {one.index}: jumped by {int(one.event['jump_ns']) / 1e9:+.3f} s" for one in jumps[-4:]]
    if not daemon.synchronised or daemon.error_seconds > MAX_ERROR_SECONDS:
        return Finding("clock.sound", "failed", "no time daemon keeps this machine's clock", tuple(facts))
    return Finding("clock.sound", "observed", f"the clock is synchronised; {len(jumps)} jumps in the log", tuple(facts))


# --- what happened ----------------------------------------------------------------------------------------------


@TABLE.check("broker.strict-parse", "history")
def strict_parse(known: Inputs) -> Finding:
    """A message that breaks its protocol goes no further. The self-test tries it; the log shows what came by itself."""
    history = known.the_history()
    tally = history.tallies.get("malformed")
    if tally is None:
        raise Unknown("no broken message has come yet; `cofferdam evidence selftest` tries one")
    says = several(tally.count, "entries", "entry") + " of broken messages that went no further"
    return Finding("broker.strict-parse", "observed", says, (f"the last is entry {tally.last}",),
                   at_ns=parse_time(tally.last_time))  # fmt: skip


@TABLE.check("sever.works", "history")
def severed(known: Inputs) -> Finding:
    """One action cuts a side off, and it can be restored."""
    history = known.the_history()
    pairs = []
    for cut in (one for one in history.of("severed") if not one.event.get("what")):  # whole sides
        back = next((one for one in history.of("restored")
                     if one.index > cut.index and one.event["side"] == cut.event["side"]
                     and not one.event.get("what")), None)  # fmt: skip
        if back is not None:
            pairs.append((cut, back))
    if not pairs:
        raise Unknown("no side has been severed and restored yet; a drill is `cofferdam sever` and `cofferdam restore`")
    cut, back = pairs[-1]
    opened = [one for one in history.of("refused") if cut.index < one.index < back.index]
    facts = [f"entry {cut.index}: {cut.event['side']} severed by {cut.event.get('by')}, "
             f"{cut.event.get('sessions')} sessions ended", f"entry {back.index}: restored by {back.event.get('by')}",
             f"{len(opened)} writes refused in between"]  # fmt: skip
    if not opened and not cut.event.get("sessions"):
        says = "a side was severed and restored; nothing was open, and nobody asked for anything meanwhile"
        return Finding("sever.works", "observed", says, tuple(facts), at_ns=back.at_ns)
    return Finding("sever.works", "tested", "a side was severed and restored", tuple(facts), at_ns=back.at_ns)


@TABLE.check("recovery.known-state", "history")
def recovery(known: Inputs) -> Finding:
    """After a crash the gate comes back to its declared state, and says what it lost."""
    history = known.the_history()
    died = history.of("half-died")
    torn = history.of("torn-tail")
    back = [
        (one, again)
        for one in died
        if (again := next((other for other in history.of("half-started") if other.index > one.index
                           and other.event.get("half") == one.event.get("half")), None)) is not None
    ]  # fmt: skip
    facts = [
        f"entry {one.index}: {one.event.get('half')} died, back by entry {again.index}" for one, again in back[-4:]
    ]
    facts += [f"entry {one.index}: {one.event.get('entries')} entries recovered, {one.event.get('cut_bytes')} bytes of "
              "an unfinished append cut off" for one in torn[-4:]]  # fmt: skip
    gone = [one for one in died[-20:] if all(one is not first for first, _ in back)]
    if not facts and not gone:
        raise Unknown("no part has died and the log was always closed in order; kill -9 of a part is the drill")
    running = known.status is not None and all(pair["working"] for pair in known.status["pairs"])
    if gone and not running:
        return Finding("recovery.known-state", "failed", "a part that died did not come back",
                       tuple(f"entry {one.index}: {one.event.get('half')}" for one in gone[:8]))  # fmt: skip
    if not facts:
        raise Unknown("a part has died just now, and is still to come back")
    at_ns = max(one.at_ns for one in (*(again for _, again in back), *torn))
    past = history.results.get(("recovery.known-state", ""), [])
    if running and past and past[-1].outcome == "failed":
        # Looked at before it was back, and written down after: that all of it runs now is what ends the failure.
        at_ns = max(at_ns, known.now_ns)
    return Finding("recovery.known-state", "tested", "what crashed came back, and the log says what was lost",
                   tuple(facts), at_ns=at_ns)  # fmt: skip


# --- the gate's own files ---------------------------------------------------------------------------------------


@TABLE.check("software.integrity", "files")
def integrity(known: Inputs) -> Finding:
    """The gate's own files are those of its release."""
    software = known.software
    if software is None:
        raise Unknown("the installed files have no record of a release to compare with")
    if software.wrong:
        return Finding("software.integrity", "failed", f"{len(software.wrong)} installed files are not those of the "
                       "release", tuple(one[:500] for one in software.wrong[:8]))  # fmt: skip
    return Finding("software.integrity", "tested", f"{software.files} installed files have the hashes of release "
                   f"{software.version}")  # fmt: skip


@TABLE.check("config.baseline", "files")
def baseline(known: Inputs) -> Finding:
    """The gate's configuration is on record as one document with a hash."""
    if known.drift is None:
        raise Unknown("no baseline was taken this time")
    return Finding("config.baseline", "observed", f"the baseline has the hash {known.drift.now}")


@TABLE.check("config.drift", "files", "history")
def drift(known: Inputs) -> Finding:
    """The configuration has not changed without approval."""
    if known.drift is None:
        raise Unknown("no baseline was taken this time")
    if not known.drift.approved:
        if known.drift.why:
            raise Unknown(f"the baseline's approval does not count: {known.drift.why}")
        raise Unknown("no baseline has been approved: `cofferdam evidence baseline --approve --key KEY`")
    if known.drift.differences:
        facts = tuple(str(one)[:500] for one in known.drift.differences[:10])
        return Finding("config.drift", "failed", f"{len(known.drift.differences)} differences from the approved "
                       "baseline", facts)  # fmt: skip
    return Finding("config.drift", "tested", f"as in the baseline that {known.drift.by} approved",
                   (f"approved {known.drift.approved}",))  # fmt: skip


@TABLE.check("inventory.gate", "files")
def components(known: Inputs) -> Finding:
    """The gate's components are listed with versions."""
    if known.components is None:
        raise Unknown("the bill of materials was not made this time")
    return Finding("inventory.gate", "observed", f"{known.components} components with versions (CycloneDX)")
