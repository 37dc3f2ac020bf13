"""Part (a), processes: where each part of a crew stands, what it may do, see and hold, by the declaration of its kind
and the policy; and that gate, auditor and launcher hold nothing of a side.

Not here: what parts share with each other (crossings), reading it (reading).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cofferdam.enforce import inside as worker
from cofferdam.enforce import kernel, stores
from cofferdam.enforce.profile import Can, Profile
from cofferdam.enforce.users import NEEDED, USEFUL
from cofferdam.errors import GateError
from cofferdam.proof import reading
from cofferdam.proof.reading import SPARE
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Part, Subject, road

Json = dict[str, Any]
PART = "structure"
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_MAY_BE_OPEN = {"/dev/null", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"}
_SOCKETS = Can.ACCEPT | Can.DIAL_TCP | Can.DATAGRAMS | Can.DIAL_UDP | Can.PING | Can.DIAL_LOCAL | Can.EMIT | Can.COLLECT
"""Who may do none of this has no socket."""


def read(subject: Subject, out: Statements) -> dict[Part, Json]:
    """What the kernel says of all parts."""
    found = {}
    for part in subject.parts:
        facts = reading.process(part.pid)
        if facts is None:
            out.say(PART, f"{part.name}: process", "failed", f"{part.name} (pid {part.pid}) is not there any more")
        else:
            found[part] = facts
    return found


def state(subject: Subject, part: Part, facts: Json, out: Statements) -> None:
    """All that is to be said of one part."""
    profile = subject.profile(part)
    writes, reads = _folders(subject, part, profile)
    _user(subject, part, facts, out)
    _place(subject, part, facts, out)
    groups = {path.stat().st_gid for path in (*reads, *part.folders)}
    powers(
        subject,
        part.name,
        facts,
        out,
        threads=Can.READ in profile.can,
        groups=groups,
    )
    _view(subject, part, facts, writes, out)
    _descriptors(subject, part, profile, facts, (writes, reads), out)


def _user(subject: Subject, part: Part, facts: Json, out: Statements) -> None:
    """By its user the firewall knows it: the user is that of its road, and no part of another road has it."""
    own = int(facts["status"]["Uid"].split()[0])
    name = f"{road(part.crew)}/{part.part}"
    known = subject.users.get(name)
    wrong = [] if known == own else [f"it is user {own}, and the rules know {known}"]
    wrong += [f"{other} is too" for other, user in subject.users.items() if user == own and other != name]
    out.check(PART, f"{part.name}: known", "is the user by whom the firewall knows it, and no other part is", wrong,
              [f"uid {own}"])  # fmt: skip


def _folders(subject: Subject, part: Part, profile: Profile) -> tuple[list[Path], list[Path]]:
    """Those that it may write, and those that it may read."""
    store = [stores.of(subject.state, part.crew, part.part)] if profile.store else []
    there = {other.part for other in subject.parts if other.crew == part.crew}
    log = [subject.state / "audit"] if profile.log else []
    return [*store, *part.folders], [
        *log, *(stores.of(subject.state, part.crew, name) for name in profile.reads if name in there)
    ]  # fmt: skip


def _place(subject: Subject, part: Part, facts: Json, out: Statements) -> None:
    own = {kind: Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in reading.NAMESPACES}
    wrong = [f"it shares the host's {kind} namespace" for kind in reading.NAMESPACES if facts[kind] == own[kind]]
    if part.side:
        side = subject.sides[part.side]
        wrong += [] if facts["net"] == side.inode else [f"it is in network namespace {facts['net']}"]
        where = f"stands in {side.namespace}"
    else:
        wrong += _empty_space(part.pid, facts["net"])
        where = "is alone in an empty network namespace"
    out.check(
        PART, f"{part.name}: namespaces", f"{where}, and has file, process, message and name namespaces that are not "
        "the host's", wrong, [f"{kind} {facts[kind]}" for kind in reading.NAMESPACES],
    )  # fmt: skip


def powers(
    subject: Subject, name: str, facts: Json, out: Statements, *, threads: bool = False, groups: set[int] | None = None
) -> None:
    """Its users, capabilities and filters. `groups`: whose files it may read."""
    status = facts["status"]
    wrong = [f"{field} is {status.get(field)}" for field in _CAPABILITIES if int(status.get(field, "1"), 16)]
    ids = set(status["Uid"].split()) | set(status["Gid"].split())
    if len(ids) != 1 or ids & {"0"}:
        wrong.append(f"user ids {status['Uid']}, group ids {status['Gid']}")
    if {int(group) for group in status.get("Groups", "").split()} != (groups or set()):
        wrong.append(f"groups {status.get('Groups')}")
    out.check(PART, f"{name}: user", "runs as a user of its own, without any capability, now or ever", wrong,
              [f"uid {status['Uid'].split()[0]}", "CapBnd 0"])  # fmt: skip
    wrong = [] if status.get("NoNewPrivs") == "1" else ["it may gain privileges"]
    wrong += [] if status.get("Seccomp") == "2" else [f"Seccomp is {status.get('Seccomp')}"]
    wrong += [] if facts["threads"] == 1 or threads else [f"it has {facts['threads']} threads"]
    wrong += traced(status)
    count, above = status.get("Seccomp_filters"), _filters_of(subject.launcher)
    if count is not None and above is not None and int(count) != above + 1:
        wrong.append(f"it has {count} filters, and the launcher {above}: its own should be one more")
    counted = f"{count} filters, the launcher {above}" if count is not None else "this kernel does not count filters"
    out.check(PART, f"{name}: filter",
              f"is under system-call filters, one of its own and those of the launcher (mode and number were compared, "
              f"not what is in them), {'' if threads else 'has one thread, '}can gain no privilege, and is traced by "
              "nobody",
              wrong, [f"Seccomp 2, {counted}", "NoNewPrivs 1"])  # fmt: skip


def _filters_of(pid: int) -> int | None:
    """How many system-call filters a process is under: the service manager may have given it some."""
    facts = reading.process(pid)
    count = facts["status"].get("Seccomp_filters") if facts is not None else None
    return None if count is None else int(count)


def traced(status: Mapping[str, str]) -> list[str]:
    tracer = status.get("TracerPid", "?")
    return [] if tracer == "0" else [f"process {tracer} traces it, and can do with it what it likes"]


def _view(subject: Subject, part: Part, facts: Json, writes: list[Path], out: Statements) -> None:
    given = subject.folders.get(part.crew, {}).get(part.part, frozenset())
    wrong = [f"it has the folder {path}, which the policy does not give it" for path in part.folders
             if path.name not in given]  # fmt: skip
    for path, said in facts["mounts"]:
        options = said.split(",")
        if path.split("/")[1:2] in (["proc"], ["sys"], ["dev"], ["run"]) and not _is_within(path, writes):
            wrong.append(f"{path} is there")
        if "ro" in options:
            continue
        if Path(path) not in writes:
            wrong.append(f"{path} can be written")
        else:
            wrong += [f"{path} is mounted without {one}" for one in ("nosuid", "nodev", "noexec") if one not in options]
    what = "no file that it could write" + (f" but in {', '.join(map(str, writes))}" if writes else "")
    out.check(PART, f"{part.name}: files", f"sees {what}, and no /proc, /sys, /dev or /run", wrong,
              [path for path, _ in facts["mounts"]])  # fmt: skip


def _is_within(path: str, folders: list[Path]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def _descriptors(
    subject: Subject, part: Part, profile: Profile, facts: Json, folders: tuple[list[Path], list[Path]],
    out: Statements,
) -> None:  # fmt: skip
    writes, reads = folders
    # A strand's part has an end of each of its links, in namespaces that are for it alone.
    who = f"{road(part.crew)}/{part.part}"
    links = {name for name, side in subject.sides.items() if side.plan.strand and side.plan.strand.who == who}
    mine = {part.side, *links} if part.side else set()
    own = {sock["inode"]: sock for name in mine for sock in subject.sides[name].reading["sockets"]}
    far = {
        sock["inode"] for name, side in subject.sides.items() if name not in mine for sock in side.reading["sockets"]
    } - {0}  # fmt: skip
    wrong, good = [], []
    for file in facts["files"]:
        target, shown = file["target"], f"{file['fd']} {file['target']}"
        path = target.removesuffix(" (deleted)")
        if target.startswith("socket:["):
            inode = int(target[8:-1])
            if inode in far:
                wrong.append(f"{shown} is a socket of the other side")
            elif not profile.can & _SOCKETS:
                wrong.append(f"{shown} is a socket, and it may have none")
            elif inode in own or _read_again(subject, part, inode):
                good.append(f"{shown} {own[inode]['protocol'] if inode in own else 'tcp'}")
            else:
                wrong.append(f"{shown} is a socket of no kind that a part has")
        elif target.startswith("pipe:[") or target in _MAY_BE_OPEN or (target == "anon_inode:inotify" and writes):
            good.append(shown)
        elif file["fd"] <= 2:
            good.append(f"{shown} (standard stream, given at the start)")
        elif _is_within(path, writes) or _is_within(path, reads):
            good.append(shown)
        else:
            wrong.append(f"{shown} is open")
    has = "pipes, sockets of its own side" if profile.can & _SOCKETS else "pipes, no socket"
    files = ", files where it may have some" if writes or reads else ""
    out.check(PART, f"{part.name}: descriptors", f"holds {has}{files}, and nothing of the other side", wrong, good)


def _read_again(subject: Subject, part: Part, inode: int) -> bool:
    """A connection that was made since the namespace was read; or one that ended, whose socket is in no table."""
    fresh = subject.sides[part.side].run(reading.sockets) if part.side else []
    if any(sock["inode"] == inode for sock in fresh):
        return True
    still = reading.process(part.pid)
    return still is None or not any(file["target"] == f"socket:[{inode}]" for file in still["files"])


def pipes(facts: Json) -> dict[str, Json]:
    """The pipes of a process, by their names."""
    return {file["target"]: file for file in facts["files"] if file["target"].startswith("pipe:[")}


def others(subject: Subject, out: Statements) -> None:
    """The gate, the auditor and the launcher hold no socket of the plant's side."""
    for name, pid in (("gate", subject.gate), ("auditor", subject.auditor), ("launcher", subject.launcher)):
        facts = reading.process(pid)
        if facts is None:
            out.say(PART, f"{name}: process", "failed", f"the {name} (pid {pid}) is not there")
            continue
        held = {int(file["target"][8:-1]) for file in facts["files"] if file["target"].startswith("socket:[")}
        mine = {side.name: held & ({sock["inode"] for sock in side.reading["sockets"]} - {0})
                for side in subject.sides.values()}  # fmt: skip
        wrong = ["it stands in a side's namespace"] if facts["net"] in {s.inode for s in subject.sides.values()} else []
        listening = {sock["inode"] for side in subject.sides.values() for sock in side.reading["sockets"]
                     if sock["listening"]}  # fmt: skip
        for side, inodes in mine.items():
            extra = inodes - listening if name == "launcher" else inodes
            wrong += [f"socket {inode} of side {side}" for inode in sorted(extra)]
        says = {
            "gate": "the gate holds no socket of either side",
            "auditor": "the auditor holds no socket of either side, and is alone in a network namespace without any "
            "interface but a loopback that is down, without addresses, routes and sockets of IP",
            "launcher": "the launcher holds listeners that it opened, no connection, stands in neither side, and has "
            "the capabilities that it needs",
        }[name]
        if name == "auditor":
            wrong += _empty_space(pid, facts["net"])
        status = facts["status"]
        wrong += traced(status)
        allowed = sum(1 << kernel.CAPABILITIES[one] for one in (*NEEDED, *USEFUL)) if name == "launcher" else 0
        wrong += [f"{field} is {status[field]}: it may have {allowed:x} and nothing else" for field in _CAPABILITIES
                  if int(status.get(field, "1"), 16) & ~allowed]  # fmt: skip
        out.check(PART, f"{name}: sockets", says, wrong, [f"pid {pid}", f"uid {status['Uid'].split()[0]}",
                                                          f"CapEff {status['CapEff']}"])  # fmt: skip


def _empty_space(pid: int, inode: int) -> list[str]:
    """What is in the network namespace of the auditor, which has nobody to talk to."""
    if inode == Path("/proc/self/ns/net").stat().st_ino:
        return ["it is in the host's network namespace"]
    try:
        with Path(f"/proc/{pid}/ns/net").open("rb") as space:
            read: Json = worker.inside(space.fileno(), reading.network)
    except (OSError, GateError) as error:
        return [f"its network namespace cannot be read: {error}"]
    wrong = [f"pid {other} ({name}) is there as well" for other, name in reading.processes_in(inode) if other != pid]
    for link in read["links"]:
        if link["up"]:
            wrong.append(f"interface {link['name']} is up")
        elif link["name"] != "lo" and SPARE.get(link["name"]) != link["kind"]:
            wrong.append(f"interface {link['name']} is there")
    wrong += [f"address {text}" for text in read["addresses"]]
    wrong += [f"route {text}" for text in read["routes"]]
    wrong += [f"socket {sock['protocol']} {sock['address']}:{sock['port']}" for sock in read["sockets"]]
    return wrong
