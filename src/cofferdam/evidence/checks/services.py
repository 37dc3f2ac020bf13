"""Checks over what the services wrote into the log: people's sessions, files, software, history.

They are about what happened within a check's time; where nothing happened they say so, and nothing is claimed. A
finding is as old as the latest of what it rests on. The self-tests of these services are their own; here the log is
held against itself.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable

from cofferdam.evidence.checks.registry import Table
from cofferdam.evidence.history import Happening, History
from cofferdam.evidence.inputs import Inputs, Unknown
from cofferdam.evidence.model import Finding, several

TABLE = Table()
DAYS = 35
DAY_NS = 86_400 * 10**9
FACTS = 8
MARK_NS = 60 * 10**9
"""After a session, for its recording to be marked as ended."""
APPROVED = ("approved", "granted")
"""How the keeper says that somebody approved: others have to as well, or it is enough."""
SETTLE = ("advisory-evaluated", "mitigation-approved", "patch-state-set")
"""What answers an advisory."""
BEGINS = "the log begins with entry {}, and does not have"


def lately(history: History, kind: str, nothing: str = "") -> list[Happening]:
    """What happened within DAYS. Raises: Unknown, with `nothing`, where nothing did and that is said."""
    found = [one for one in history.of(kind) if history.last_ns - one.time_ns <= DAYS * DAY_NS]
    if nothing and not found:
        raise Unknown(nothing)
    return found


def _may_lack(history: History, one: Happening) -> bool:
    """Whether what it rests on may have been older than the log's first entry that is kept."""
    return history.first > 0 and one.time_ns - history.first_ns < DAYS * DAY_NS


def pushed_out(history: History, kind: str, one: Happening) -> bool:
    """Whether what it rests on may be among entries of this kind that were too many to be kept, within DAYS of it."""
    first = history.kept_from.get(kind)
    return first is not None and one.time_ns - first.time_ns < DAYS * DAY_NS


def before_kept(history: History, kind: str, one: Happening) -> bool:
    """Whether what came of it may be among entries of this kind that were too many to be kept."""
    first = history.kept_from.get(kind)
    return first is not None and one.index < first.index


def lacks(history: History, count: int, what: str, those: str) -> Unknown:
    """That something is not known of `count` of those."""
    if history.kept_from or history.crowded:
        return Unknown(f"there are so many entries that {what} of {count} {those} are not known any more")
    return Unknown(f"{BEGINS.format(history.first)} {what} of {count} {those}")


def verdict(
    check: str, wrong: list[str], outcome: str, says: str, facts: list[str], rests: Iterable[Happening]
) -> Finding:
    if wrong:
        return Finding(check, "failed", wrong[0][:500], tuple(one[:500] for one in wrong[:FACTS]))
    at = max((one.at_ns for one in rests), default=0)
    return Finding(check, outcome, says, tuple(one[:500] for one in facts[-FACTS:]), at_ns=at)  # type: ignore[arg-type]


def session(one: Happening) -> str:
    return f"entry {one.index}: {one.event.get('person')} to {one.event.get('asset')}"


def ends(history: History) -> dict[str, Happening]:
    """What ended each session. They end with the inner part that has them, by whatever that ends: where no keeper came
    that could say so, the entry of its death is theirs, or of the next start. A keeper that comes again goes on with
    them."""
    found = {str(one.event["session"]): one for one in history.of("access-ended")}
    over: dict[str, list[Happening]] = {}
    for one in (*history.of("half-died"), *history.of("half-started")):
        over.setdefault(str(one.event.get("half")), []).append(one)
    starts = history.of("gate-started")
    for part in {one.maker for one in history.of("access-opened")}:
        inner = f"{part.rpartition('/')[0]}/inner"
        over[part] = sorted((*over.get(inner, ()), *starts), key=lambda one: one.index)
    for one in history.of("access-opened"):
        after = bisect(over[one.maker], one.index, key=lambda each: each.index)
        if after < len(over[one.maker]):
            found.setdefault(str(one.event["session"]), over[one.maker][after])
    return found


# --- people -----------------------------------------------------------------------------------------------------


@TABLE.check("access.mfa", "history")
def mfa(known: Inputs) -> Finding:
    """No session of a person began with fewer than two factors."""
    history = known.the_history()
    signed = history.began_by
    opened = lately(history, "access-opened", "no person has had a session yet")
    wrong, lacking = [], 0
    for one in opened:
        by = signed.get(str(one.event["session"]))
        if by is None and (_may_lack(history, one) or history.crowded.get(str(one.event["session"]))):
            lacking += 1
        elif by is None or by.event.get("person") != one.event["person"]:
            wrong.append(f"{session(one)}: no sign-in of this person by this connection")
        elif len(set(by.event.get("factors", ()))) < 2:
            wrong.append(f"{session(one)}: signed in with {', '.join(by.event.get('factors', ())) or 'nothing'}")
    if lacking and not wrong:
        raise lacks(history, lacking, "the sign-ins", "sessions")
    facts = [f"{session(one)}, {' and '.join(signed[str(one.event['session'])].event['factors'])}"
             for one in opened[-FACTS:] if not wrong]  # fmt: skip
    return verdict(
        "access.mfa",
        wrong,
        "observed",
        f"each of {several(len(opened), 'sessions')} began with two factors",
        facts,
        opened,
    )


@TABLE.check("access.unique", "history")
def unique(known: Inputs) -> Finding:
    """Each session belongs to one named person."""
    opened = lately(known.the_history(), "access-opened", "no person has had a session yet")
    wrong = [f"entry {one.index}: a session of nobody" for one in opened if not one.event.get("person")]
    people = sorted({str(one.event["person"]) for one in opened})
    says = f"{several(len(opened), 'sessions')} of {several(len(people), 'named people', 'named person')}"
    return verdict("access.unique", wrong, "observed", says, people, opened)


def _of(one: Happening) -> tuple[object, object]:
    return one.event.get("person"), one.event.get("asset")


@TABLE.check("access.approval", "history")
def approval(known: Inputs) -> Finding:
    """Each session that rests on an approval had one, for this person and asset, that had not ended; or the sealed
    code, which counts for one request."""
    history = known.the_history()
    granted = {one.event["request"]: one for one in history.of("access-decided")
               if one.event.get("decision") == "granted"}  # fmt: skip
    glass: dict[tuple[object, object], list[int]] = {}
    for one in history.of("glass-used"):
        if one.event.get("how") == "broken":
            glass.setdefault(_of(one), []).append(one.index)
    opened_by: dict[int, object] = {}
    asked = [one for one in lately(history, "access-opened") if one.event.get("request")]
    if not asked:
        raise Unknown("no session has rested on an approval yet")
    wrong, facts, lacking = [], [], 0
    for one in asked:
        by = granted.get(one.event["request"])
        used = glass.get(_of(one), [])
        use = used[at - 1] if (at := bisect(used, one.index)) else -1
        if by is None and use >= 0 and opened_by.setdefault(use, one.event["request"]) == one.event["request"]:
            facts.append(f"{session(one)}: by the sealed code, entry {use} (access.break-glass)")
        elif by is None and (_may_lack(history, one) or pushed_out(history, "access-decided", one)):
            lacking += 1
        elif by is None or by.index > one.index:
            wrong.append(f"{session(one)}: request {one.event['request']} was not approved before it")
        elif (by.event["person"], by.event["asset"]) != (one.event["person"], one.event["asset"]):
            wrong.append(f"{session(one)}: approved for {by.event['person']} to {by.event['asset']}")
        elif 0 < int(by.event.get("until_ns", 0)) < one.at_ns:
            wrong.append(f"{session(one)}: its approval had ended")
        else:
            facts.append(f"{session(one)}: approved by {', '.join(by.event.get('people', ())) or by.event['by']}")
    if lacking and not wrong:
        raise lacks(history, lacking, "the approvals", "sessions")
    others = sum(not one.event.get("request") for one in lately(history, "access-opened"))
    says = several(len(asked), "sessions had their approval", "session had its approval")
    if others:
        says += f"; {others} more needed none by their rules"
    return verdict("access.approval", wrong, "observed", says, facts, asked)


@TABLE.check("access.four-eyes", "history")
def four_eyes(known: Inputs) -> Finding:
    """Nobody approved a request of their own."""
    decided = [one for one in lately(known.the_history(), "access-decided", "nothing has been approved yet")
               if one.event.get("decision") in APPROVED]  # fmt: skip
    if not decided:
        raise Unknown("nothing has been approved yet")
    wrong = [
        f"entry {one.index}: {one.event['person']} approved for themselves"
        for one in decided
        if one.event["person"] in (one.event["by"], *one.event.get("people", ()))
    ]
    facts = [f"entry {one.index}: {one.event['by']} for {one.event['person']}" for one in decided]
    says = f"{several(len(decided), 'approvals')}, each by somebody else"
    return verdict("access.four-eyes", wrong, "observed", says, facts, decided)


@TABLE.check("access.no-tunnel", "history")
def no_tunnel(known: Inputs) -> Finding:
    """What would be a way round a session was asked for, and refused."""
    refused = lately(known.the_history(), "tunnel-refused", "nobody has asked for a forwarded port or the like yet")
    facts = [f"entry {one.index}: {one.event['person']} asked for {one.event['what']}" for one in refused]
    kinds = len({one.event["what"] for one in refused})
    says = f"{several(len(refused), 'requests')} of {several(kinds, 'kinds')}, each refused"
    return verdict("access.no-tunnel", [], "observed", says, facts, refused)


@TABLE.check("access.kill", "history")
def kill(known: Inputs) -> Finding:
    """One action ends a session, and bars its return."""
    history = known.the_history()
    killed = [one for one in history.of("access-killed") if not before_kept(history, "access-ended", one)]
    if not killed and (forgotten := history.count("access-killed")):
        raise lacks(history, forgotten, "the ends", "sessions that an operator ended")
    if not killed:
        raise Unknown("no session has been ended by an operator yet; a drill is one")
    ended = ends(history)
    opened = history.of("access-opened")
    begun = {one.event["session"] for one in opened}
    # One that still waited for who is to watch it has neither entry: it never began.
    killed = [
        one for one in killed
        if one.event["session"] in begun or pushed_out(history, "access-opened", one) or _may_lack(history, one)
    ]  # fmt: skip
    if not killed:
        raise Unknown("no session that had begun has been ended by an operator yet; a drill is one")
    wrong, facts = [], []
    for one in killed[-50:]:
        over = ended.get(str(one.event["session"]))
        if over is None and history.last_ns - one.time_ns > 60 * 10**9:
            wrong.append(f"entry {one.index}: the session {one.event['session']} has no end in the log")
        if any(again.event["session"] == one.event["session"] and again.index > one.index for again in opened):
            wrong.append(f"entry {one.index}: the session {one.event['session']} came back")
        facts.append(f"entry {one.index}: by {one.event['by']}, ended by entry {over.index if over else '?'}")
    says = several(len(killed), "sessions were ended by one action each", "session was ended by one action")
    return verdict("access.kill", wrong, "tested", says, facts, killed)


@TABLE.check("recording.complete", "history")
def recorded(known: Inputs) -> Finding:
    """Every session that has to be recorded was, to its end."""
    history = known.the_history()
    marks = history.of("recording-marked")
    marked = {str(one.event["session"]): one for one in marks if one.event.get("ended")}
    begun = {str(one.event["session"]) for one in marks}
    ended = {str(one.event["session"]): one for one in history.of("access-ended")}
    over, wrong, lacking = [], [], 0
    for one in lately(history, "access-opened"):
        name = str(one.event["session"])
        end = ended.get(name)
        if end is None or not one.event.get("recorded"):
            continue
        if name in marked:
            over.append(one)
        elif pushed_out(history, "recording-marked", one):
            lacking += 1
        elif name not in begun and not end.event.get("sent") and not end.event.get("received"):
            continue  # it ended before its asset answered: nothing was shown, and there is no recording
        elif known.now_ns - end.at_ns > MARK_NS:
            wrong.append(f"{session(one)}: no whole recording")
    if lacking and not wrong:
        raise lacks(history, lacking, "the last marks", "recordings")
    if not over and not wrong:
        raise Unknown("no session that is recorded has ended yet")
    facts = [f"{session(one)}: {marked[str(one.event['session'])].event['size']:,} bytes" for one in over if not wrong]
    says = f"{several(len(over), 'sessions')}, each recorded to its end"
    return verdict("recording.complete", wrong, "observed", says, facts, over)


# --- files, software --------------------------------------------------------------------------------------------


@TABLE.check("files.hashed", "history")
def hashed(known: Inputs) -> Finding:
    """Each file that crossed is known by hash, direction, size and person."""
    passed = [one for one in lately(known.the_history(), "asset-file-passed") if one.event.get("way") in ("up", "down")]
    if not passed:
        raise Unknown("no file has crossed a person's session yet")
    wrong = [f"entry {one.index}: {one.event['path']} has no hash" for one in passed if not one.event.get("sha256")]
    facts = [f"entry {one.index}: {one.event['person']} {one.event['way']} {one.event['path']}" for one in passed]
    return verdict(
        "files.hashed", wrong, "observed", f"{several(len(passed), 'files')}, each with its hash", facts, passed
    )


@TABLE.check("patch.source-verified", "history")
def verified(known: Inputs) -> Finding:
    """Software was held until source and content were verified: nothing was installed that none had passed."""
    history = known.the_history()
    good = history.of("file-examined")
    passed = {str(one.event["sha256"]): one for one in good}
    started = lately(history, "install-started")
    if not started and not passed:
        raise Unknown("no software has come yet")
    unexamined = [one for one in started if one.index not in history.examined]
    if unexamined and "file-examined" in history.kept_from:  # one may have passed long before it is installed
        raise lacks(history, len(unexamined), "the examinations", "installations")
    wrong = [
        f"entry {one.index}: {one.event['product']} {one.event['version']} went to {one.event['asset']} unexamined"
        for one in unexamined
    ]
    facts = [f"entry {one.index}: {one.event['product']} {one.event['version']}: {one.event.get('origin', '')}"
             for one in passed.values()]  # fmt: skip
    says = f"{several(len(passed), 'files')} passed, {several(len(started), 'installations')} of such files"
    return verdict("patch.source-verified", wrong, "tested", says, facts, [*good, *started])


@TABLE.check("patch.approved", "history")
def approved(known: Inputs) -> Finding:
    """Software went on when somebody else than its requester had approved it."""
    history = known.the_history()
    asked = {(one.event["number"], one.event["sha256"]): one for one in history.of("release-requested")}
    released = [one for one in history.of("release-decided") if one.event.get("decision") == "released"]
    if not released:
        raise Unknown("no software has been released yet")
    wrong, facts, lacking = [], [], 0
    for one in released:
        by = asked.get((one.event["number"], one.event["sha256"]))
        people = {str(person) for person in one.event.get("people", ())}
        if by is None and pushed_out(history, "release-requested", one):
            lacking += 1
        elif by is None or not people - {str(by.event["by"])}:
            wrong.append(
                f"entry {one.index}: {one.event['product']} {one.event['version']} was released by nobody else"
            )
        facts.append(f"entry {one.index}: {one.event['product']} {one.event['version']} by {', '.join(sorted(people))}")
    if lacking and not wrong:
        raise lacks(history, lacking, "the requests", "releases")
    says = f"{several(len(released), 'releases')}, each signed by others"
    return verdict("patch.approved", wrong, "observed", says, facts, released)


@TABLE.check("patch.on-schedule", "history")
def scheduled(known: Inputs) -> Finding:
    """Each target's result is on record."""
    history = known.the_history()
    started = lately(history, "install-started", "nothing has been installed yet")
    ended = {(one.event["asset"], one.event["sha256"]): one.index for one in history.of("install-ended")}  # the last
    unknown = [
        one for one in started
        if history.last_ns - one.time_ns > DAY_NS
        and ended.get((one.event["asset"], one.event["sha256"]), -1) < one.index
    ]  # fmt: skip
    lacking = {one.index for one in unknown if before_kept(history, "install-ended", one)}
    wrong = [
        f"entry {one.index}: what became of {one.event['product']} on {one.event['asset']} is not known after a day"
        for one in unknown if one.index not in lacking
    ]  # fmt: skip
    if lacking and not wrong:
        raise lacks(history, len(lacking), "the results", "installations")
    facts = [f"entry {one.index}: {one.event['product']} to {one.event['asset']}" for one in started]
    says = several(len(started), "installations with their results", "installation with its result")
    return verdict("patch.on-schedule", wrong, "observed", says, facts, started)


@TABLE.check("patch.answered", "history")
def answered(known: Inputs) -> Finding:
    """Advisories are evaluated, planned for and carried out in time: no clock of one ran out and is still behind."""
    history = known.the_history()
    matched = history.of("advisory-matched")
    if not matched:
        raise Unknown("no advisory has come yet")
    settles = {
        "evaluate": [one for one in history.of("advisory-evaluated") if one.event.get("complete")],
        "plan": [*history.of("mitigation-approved"), *history.of("patch-state-set")],
        "carry-out": history.of("patch-state-set"),
    }
    settled: dict[tuple[str, object, object], int] = {}
    for clock, answers in settles.items():
        for one in answers:
            key = (clock, one.event["advisory"], one.event["product"])
            settled[key] = max(settled.get(key, -1), one.index)
    behind = [
        one
        for one in history.of("advisory-overdue")
        if settled.get((str(one.event["clock"]), one.event["advisory"], one.event["product"]), -1) < one.index
    ]
    lacking = {one.index for one in behind if any(before_kept(history, kind, one) for kind in SETTLE)}
    wrong = [
        f"entry {one.index}: {one.event['advisory']}: {one.event['clock']} was due {one.event['due']}"
        for one in behind if one.index not in lacking
    ]  # fmt: skip
    if lacking and not wrong:
        raise lacks(history, len(lacking), "the answers", "advisories")
    names = {(str(one.event["product"]), str(one.event["advisory"])) for one in matched}
    facts = [f"entry {one.index}: {one.event['advisory']} by {one.event['by']}" for one in settles["evaluate"]]
    says = several(len(names), "advisories", "advisory") + ", each evaluated and planned for in its time so far"
    return verdict("patch.answered", wrong, "observed", says, facts, [*matched, *settles["evaluate"]])


# --- history ----------------------------------------------------------------------------------------------------


@TABLE.check("mirror.no-gaps", "history")
def no_gaps(known: Inputs) -> Finding:
    """Every sample that the source had is in the mirror: by the last comparison with the source."""
    history = known.the_history()
    last: dict[str, Happening] = {}
    for one in history.of("mirror-verified"):
        if one.event.get("against") == "source":
            last[str(one.event["conduit"])] = one
    if not last:
        raise Unknown("no mirror has been compared with its source yet: `cofferdam mirror verify`")
    lost = [one for one in history.of("samples-lost") if one.index > last.get(str(one.event["conduit"]), one).index]
    wrong = [
        f"entry {one.index}: {name}: {one.event['differ']} tags and hours differ, {one.event.get('damaged', 0)} damaged"
        for name, one in last.items()
        if one.event["differ"] or one.event.get("damaged")
    ]
    wrong += [f"entry {one.index}: {one.event['points']} samples of {one.event['source']} are lost" for one in lost]
    facts = [f"entry {one.index}: {name}: {one.event['points']:,} samples of {one.event['tags']} tags"
             for name, one in last.items()]  # fmt: skip
    says = several(len(last), "mirrors have what their sources have", "mirror has what its source has")
    oldest = min(last.values(), key=lambda one: one.at_ns)  # of several, none counts longer than the first compared
    return verdict("mirror.no-gaps", wrong, "observed", says, facts, [oldest])
