"""More checks over the jump server's sessions: their ends, their limits, what is seen of them, what happens in need.

As in `services`: the log and the policy are held against each other, and where nothing happened nothing is claimed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from cofferdam.brokers.registry import BROKERS
from cofferdam.enforce.profile import Can
from cofferdam.evidence.checks.registry import Table
from cofferdam.evidence.checks.services import BEGINS, FACTS, before_kept, ends, lacks, lately, session, verdict
from cofferdam.evidence.inputs import FUTURE_NS, Gone, Inputs, Unknown
from cofferdam.evidence.model import Finding, several
from cofferdam.policy.terms.jump_rows import GROUP, PERSON, JumpRows

TABLE = Table()
GRACE_NS = 120 * 10**9
"""After the end of a window, for a session to end in."""
REVIEW_NS = 7 * 86_400 * 10**9
"""For a use of the emergency account to be reviewed."""
STARTS = ("gate-started", "half-started")
"""Entries by which a session had ended at the latest."""
IDLE = ("nobody typed for too long", "nothing went on for too long", "nobody came to watch")
"""How the jump server says that a session was idle."""
PAUSED = "too many tries: a pause"
"""How it says that somebody had to wait, after failures (brokers.jump.signin)."""
UNRECORDED = "it cannot be recorded"
PASSWORD_DAYS = 456
"""How old a password may be: fifteen months, as CIP-007-6 R5.6 has it."""
DAY_NS = 86_400 * 10**9
NO_PASSWORDS = {
    "a short one": "Xk7-pq2-Mn9", "one that is tried first": "administrator", "the person's own name": "ada-lovelace-1",
    "one letter over and over": "aaaaaaaaaaaaaaaa",
}  # fmt: skip
"""What nobody may take as a password, ada-lovelace least of all."""
GOOD_ONE = "seven green bulkheads"
"""As the control."""
LEAST_KIB, LEAST_TURNS = 19_456, 2
"""Memory and passes of argon2id, at the least (OWASP's Password Storage Cheat Sheet)."""


def _rows(known: Inputs) -> dict[str, JumpRows]:
    """The conduits of the jump server. Raises: Unknown, where there is none."""
    found = {name: one.terms for name, one in known.the_policy().conduits.items() if isinstance(one.terms, JumpRows)}
    if not found:
        raise Gone("the policy has no conduit of the jump server")
    return found


@TABLE.check("access.window", "history")
def window(known: Inputs) -> Finding:
    """No session outlived the window of its approval."""
    history = known.the_history()
    until = {one.event["request"]: int(one.event.get("until_ns", 0)) for one in history.of("access-decided")
             if one.event.get("decision") in ("approved", "granted")}  # fmt: skip
    over = ends(history)
    bound = [one for one in lately(history, "access-opened") if until.get(one.event.get("request"), 0) > 0]
    if not bound:
        raise Unknown("no session has had a window yet")
    wrong, facts, lacking = [], [], 0
    for one in bound:
        end = over.get(str(one.event["session"]))
        if end is None and before_kept(history, "access-ended", one):
            lacking += 1
            continue
        limit = until[one.event["request"]] + GRACE_NS
        started = end is not None and end.event["kind"] in STARTS  # nobody knows when before
        if not started and (end.at_ns if end is not None else known.now_ns) > limit:
            wrong.append(f"{session(one)}: {'ended' if end is not None else 'is open'} after its window")
        else:
            how = "is within its window"
            if end is not None:
                why = "its part, or the gate, began anew" if started else end.event.get("reason")
                how = f"ended by entry {end.index}: {why}"
            facts.append(f"{session(one)}: {how}")
    if lacking and not wrong:
        raise lacks(history, lacking, "the ends", "sessions")
    return verdict(
        "access.window",
        wrong,
        "observed",
        several(len(bound), "sessions stayed within their windows", "session stayed within its window"),
        facts,
        bound,
    )


@TABLE.check("access.idle-lock", "history", "policy")
def idle(known: Inputs) -> Finding:
    """An idle session ends after the set time."""
    rows = _rows(known)
    ended = [one for one in known.the_history().of("access-ended") if one.event.get("reason") in IDLE]
    facts = [f"{name}: {row.idle} s" for name, row in rows.items()]
    facts += [f"entry {one.index}: {one.event.get('person')}: {one.event.get('reason')}" for one in ended]
    says = f"each of {several(len(rows), 'conduits')} ends what is idle; sessions ended for it: {len(ended)}"
    return Finding("access.idle-lock", "observed", says, tuple(facts[-8:]))


@TABLE.check("access.concurrency", "history", "policy")
def concurrency(known: Inputs) -> Finding:
    """Nobody holds more sessions than the policy allows: by the beginnings and ends in the log."""
    history, rows = known.the_history(), _rows(known)
    opened = lately(history, "access-opened", "no person has had a session yet")
    over = {name: one.index for name, one in ends(history).items()}
    open_now: dict[tuple[str, str], list[int]] = {}
    wrong, most, lacking = [], 0, 0
    for one in opened:
        if str(one.event["session"]) not in over and before_kept(history, "access-ended", one):
            lacking += 1
            continue
        key = (str(one.event["person"]), str(one.event["conduit"]))
        there = [end for end in open_now.get(key, []) if end > one.index]
        there.append(over.get(str(one.event["session"]), 1 << 62))
        open_now[key] = there
        most = max(most, len(there))
        if key[1] in rows and len(there) > rows[key[1]].sessions:
            wrong.append(f"{session(one)}: the {len(there)}th at once, and {rows[key[1]].sessions} are allowed")
    if lacking and not wrong:
        raise lacks(history, lacking, "the ends", "sessions")
    says = f"at most {most} at once of one person in one conduit, in {several(len(opened), 'sessions')}"
    facts = [f"{name}: {row.sessions} allowed" for name, row in rows.items()]
    return verdict("access.concurrency", wrong, "observed", says, facts, opened)


@TABLE.check("access.lockout", "history")
def lockout(known: Inputs) -> Finding:
    """Repeated failures shut a person or an address out for a time, and are recorded."""
    refused = lately(known.the_history(), "sign-in-refused", "nobody has failed to sign in yet")
    paused = [one for one in refused if one.event.get("reason") == PAUSED]
    if not paused:
        raise Unknown(f"{len(refused)} failed sign-ins are on record, and nobody failed often enough for a pause yet")
    facts = [f"entry {one.index}: {one.event.get('user')}: {one.event.get('reason')}" for one in paused]
    says = f"{len(refused)} failed sign-ins are on record, {len(paused)} of them in a pause after others"
    return verdict("access.lockout", [], "observed", says, facts, refused)


@TABLE.check("access.banner", "policy")
def banner(known: Inputs) -> Finding:
    """A notice is shown before sign-in: each conduit of the jump server has one, by its hash."""
    rows = _rows(known)
    without = [f"{name} has no `notice`" for name, row in rows.items() if not row.notice.strip()]
    facts = [f"{name}: SHA-256 {hashlib.sha256(row.notice.encode()).hexdigest()}" for name, row in rows.items()]
    return verdict(
        "access.banner",
        without,
        "observed",
        several(len(rows), "conduits show a notice before sign-in", "conduit shows a notice before sign-in"),
        facts,
        (),
    )


@TABLE.check("access.break-glass", "history")
def glass(known: Inputs) -> Finding:
    """Each use of the emergency account was alarmed and reviewed."""
    used = known.the_history().of("glass-used")
    if not used:
        raise Unknown("no emergency account has been sealed: `cofferdam jump glass`")
    broken = [one for one in used if one.event.get("how") == "broken"]
    wrong = [
        f"entry {one.index}: broken by {one.event.get('by')}, and nobody has reviewed it"
        for one in broken
        if known.now_ns - one.at_ns > REVIEW_NS
        and not any(other.event.get("how") == "reviewed" and other.index > one.index for other in used)
    ]
    facts = [f"entry {one.index}: {one.event.get('how')} by {one.event.get('by')}" for one in used]
    return verdict(
        "access.break-glass", wrong, "observed", f"{several(len(broken), 'uses')}, each on record", facts, used[-1:]
    )


@TABLE.check("access.vendor-list", "status", "policy")
def vendors(known: Inputs) -> Finding:
    """Sessions that are open now can be seen: the gate's status has them."""
    rows = _rows(known)
    conduits = {one["name"]: one["sessions"] for one in known.the_status()["conduits"] if one["name"] in rows}
    facts = tuple(f"{name}: {count} open now" for name, count in sorted(conduits.items())[:8])
    return Finding(
        "access.vendor-list",
        "observed",
        several(sum(conduits.values()), "sessions are open now", "session is open now"),
        facts,
    )


@TABLE.check("access.ends-here", "history")
def ends_here(known: Inputs) -> Finding:
    """The session's encryption ends at the gate: what went over it was seen and recorded here."""
    history = known.the_history()
    marked = {str(one.event["session"]): one for one in history.of("recording-marked") if one.event.get("size")}
    seen = [one for one in lately(history, "access-opened") if str(one.event["session"]) in marked]
    if not seen:
        raise Unknown("no session has been recorded yet: only what was seen shows that encryption ends here")
    facts = [f"{session(one)}: entry {marked[str(one.event['session'])].index} has "
             f"{marked[str(one.event['session'])].event['size']:,} bytes of it" for one in seen]  # fmt: skip
    return verdict(
        "access.ends-here",
        [],
        "observed",
        several(len(seen), "sessions were seen in the clear here", "session was seen in the clear here"),
        facts,
        seen,
    )


@TABLE.check("recording.whole", "files", "policy")
def whole(known: Inputs) -> Finding:
    """No recording was changed or cut: each against its digests in the log."""
    _rows(known)
    found = known.recorded
    if found is None:
        raise Unknown("no recordings were read this time: root reads them: sudo cofferdam evidence run recording.whole")
    if found.left and not found.findings:
        raise Unknown(
            f"{found.left:,} of {found.count + found.left:,} recordings were not compared within the time there was, "
            "the others are whole; all: sudo cofferdam evidence run recording.whole"
        )
    if not found.count:
        raise Unknown("nothing of which the log has a digest was recorded yet")
    facts = [f"{found.unknown} more are older than the log, or begin now"] if found.unknown else []
    says = several(found.count, "recordings are what the log says of them", "recording is what the log says of it")
    return verdict("recording.whole", found.findings, "tested", says, facts, ())


@TABLE.check("recording.fail-closed", "history")
def unrecorded(known: Inputs) -> Finding:
    """A session ends when it cannot be recorded."""
    ended = [one for one in known.the_history().of("access-ended") if UNRECORDED in str(one.event.get("reason"))]
    if not ended:
        raise Unknown(
            "no session has been without its recording yet; ending the archivist while one is open is the drill"
        )
    facts = [f"entry {one.index}: {one.event.get('person')} at {one.event.get('asset')}: {one.event.get('reason')}"
             for one in ended]  # fmt: skip
    says = f"{several(len(ended), 'sessions')} ended for want of a recording"
    return verdict("recording.fail-closed", [], "tested", says, facts, ended)


@TABLE.check("secret.strength", "history", "policy")
def strength(known: Inputs) -> Finding:
    """Weak passwords are refused and others kept by argon2id: by the keeper's own rules, asked here; and no password is
    too old, by the entries that set them. (They need a library that the gate does not load.)"""
    from argon2 import Type, extract_parameters

    from cofferdam.brokers.jump.signin import hasher, weak

    _rows(known)
    history = known.the_history()
    kept = (history.last_ns - history.first_ns) // DAY_NS
    if history.first and kept < PASSWORD_DAYS:
        raise Unknown(
            f"the log is kept for {kept} days: of passwords set before, which may be too old, it says nothing"
        )
    wrong = [f"{what} would be taken as a password" for what, one in NO_PASSWORDS.items()
             if not weak("ada-lovelace", one)]  # fmt: skip
    if why := weak("ada-lovelace", GOOD_ONE):
        wrong.append(f"a good password would be refused: {why}")
    form = extract_parameters(hasher().hash(GOOD_ONE))
    how = f"{form.type.name}, {form.memory_cost:,} KiB, {form.time_cost} passes"
    if form.type is not Type.ID or form.memory_cost < LEAST_KIB or form.time_cost < LEAST_TURNS:
        wrong.append(f"passwords are kept by argon2 {how}")
    wrong += [f"the password of {name} is older than the {kept} days of the log" for name in sorted(history.older)
              if kept >= PASSWORD_DAYS]  # fmt: skip
    ages = {name: (known.now_ns - one.at_ns) // DAY_NS for name, one in history.passwords.items()}
    wrong += [f"the password of {name} is {age} days old (entry {history.passwords[name].index})"
              for name, age in sorted(ages.items()) if age > PASSWORD_DAYS]  # fmt: skip
    if history.older and not wrong:
        raise Unknown(f"{min(history.older)} signs in by a password that was set before the log's {kept} days")
    ahead = sorted(name for name, one in history.passwords.items() if one.at_ns > known.now_ns + FUTURE_NS)
    if ahead and not wrong:
        raise Unknown(f"the password of {ahead[0]} was set by a clock that was ahead (entry "
                      f"{history.passwords[ahead[0]].index}): nobody knows how old it is")  # fmt: skip
    facts = [f"refused: {', '.join(NO_PASSWORDS)}", f"kept by argon2 {how}"]
    facts.append(
        f"people with a password: {len(ages)}; the oldest is {several(max(ages.values(), default=0), 'days')} old"
    )
    if history.first:
        facts.append("of a password that was set before the log begins and not used since, it says nothing")
    says = "weak passwords are refused, others are kept by argon2id, none is too old"
    return verdict("secret.strength", wrong, "observed", says, facts, ())


@TABLE.check("access.roles", "history", "policy")
def roles(known: Inputs) -> Finding:
    """Rights come from groups, and who had a session was in its rule's group: by the entries that put people there."""
    history, rows = known.the_history(), _rows(known)
    lines = {f"{name}/{line.number}": frozenset(line.who) for name, row in rows.items() for line in row.lines}
    by_name = sorted(rule for rule, who in lines.items() if any(one.startswith(PERSON) for one in who))
    if by_name:
        raise Unknown(f"{by_name[0]} gives a right to a person by name, as {len(by_name)} of {len(lines)} rules do: "
                      "rights come from groups where rules name none but groups")  # fmt: skip
    policy = known.the_policy().hash
    opened = [one for one in lately(history, "access-opened")
              if one.policy == policy and one.event["rule"] in lines and one.event["session"] in history.began_as
    ]  # fmt: skip
    wrong = []
    for one in opened:
        had = history.began_as[one.event["session"]]
        if lines[one.event["rule"]].isdisjoint(GROUP + group for group in had):
            wrong.append(f"{session(one)}: by {one.event['rule']}, and by the log nobody had put them in a group of it")
    if wrong and history.first:
        raise Unknown(f"{BEGINS.format(history.first)} who was put in which group before")
    members: dict[str, list[str]] = {}
    for person, groups in sorted(history.members.items()):
        for group in groups:
            members.setdefault(group, []).append(person)
    facts = [f"{group}: {', '.join(people)}" for group, people in sorted(members.items())]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    facts = [
        *facts[: FACTS - 1],
        f"{several(len(members), 'groups with their people', 'group with its people')}, SHA-256 {digest}",
    ]
    alone = several(len(lines), "rules give rights to groups alone", "rule gives rights to groups alone")
    says = f"{alone}; in {several(len(opened), 'sessions')} each person was in one of them"
    if not opened:
        says = f"{alone}; nobody has had a session under this policy lately"
    return verdict("access.roles", wrong, "observed", says, facts, opened)


@TABLE.check("secret.hardware", "history")
def hardware(known: Inputs) -> Finding:
    """Who signs in does so by a security key, the only kind whose signatures say that it is hardware. A site that signs
    in otherwise as well has not failed: it has not shown this."""
    signed = lately(known.the_history(), "signed-in", "nobody has signed in yet")
    by_key = [one for one in signed if "security key" in one.event.get("factors", ())]
    if len(by_key) < len(signed):
        raise Unknown(f"{len(by_key)} of {len(signed)} sign-ins were by security keys: of other keys and codes nobody "
                      "knows where they lie")  # fmt: skip
    facts = [f"entry {one.index}: {one.event['person']} by {one.event.get('key')}" for one in by_key]
    return verdict("secret.hardware", [], "observed", f"all {len(by_key)} sign-ins were by security keys that had "
                   "verified their user", facts, by_key)  # fmt: skip


@TABLE.check("files.scanned", "history", "policy")
def scanned(known: Inputs) -> Finding:
    """What went to an asset by a conduit that has files scanned was found clean before."""
    history, rows = known.the_history(), _rows(known)
    if not any(row.files.scan for row in rows.values()):
        raise Gone("no conduit has files scanned: `files: {scan: true}`")
    by_session = {str(one.event["session"]): str(one.event["conduit"]) for one in history.of("access-opened")}
    policy = known.the_policy().hash  # under an earlier one it may not have been asked
    passed = [
        one
        for one in lately(history, "asset-file-passed")
        if one.event.get("way") == "up"
        and one.policy == policy
        and (row := rows.get(by_session.get(str(one.event["session"]), ""))) is not None
        and row.files.scan
    ]
    if not passed:
        raise Unknown("no file has gone by a conduit that has files scanned under this policy yet")
    wrong = [f"entry {one.index}: {one.event['path']} was not scanned" for one in passed
             if one.event.get("scan") != "clean"]  # fmt: skip
    unseen = [name for name, row in rows.items() if not row.files.scan and any("up" in line.do for line in row.lines)]
    if unseen and not wrong:
        raise Unknown(f"{unseen[0]} lets files through that nobody scans, so what comes in by others shows "
                      "too little: `files: {scan: true}`")  # fmt: skip
    facts = [f"entry {one.index}: {one.event['path']}: {one.event.get('scan')}" for one in passed]
    return verdict(
        "files.scanned",
        wrong,
        "observed",
        several(len(passed), "files were found clean first", "file was found clean first"),
        facts,
        passed,
    )


@TABLE.check("secret.asset-hidden", "policy")
def hidden(known: Inputs) -> Finding:
    """No part that faces people has a secret, a store, or another's store to read: by what the launcher gives them."""
    _rows(known)
    wrong = list(_holding())
    says = "the part that faces people is given no secret and sees no store"
    parts = BROKERS["jump"].crew.parts
    facts = [f"{name} stands {one.stands}{', has a store' if one.store else ''}" for name, one in parts.items()]
    return verdict("secret.asset-hidden", wrong, "observed", says, facts, ())


def _holding() -> Iterator[str]:
    for name, one in BROKERS["jump"].crew.parts.items():
        if one.stands == "outer" and (one.secrets or one.store or one.reads or one.can & (Can.STORE | Can.READ)):
            yield f"{name} faces people and is given secrets or files"
