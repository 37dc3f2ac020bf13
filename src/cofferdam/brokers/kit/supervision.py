"""The records between the gate and a part: what the gate tells it, and what it reports.

They travel over pipes of the same kind as a crossing, decoded as strictly: a broken part can lie in its report, but
cannot make the gate do more than show the lie. A report has at most REPORT_BYTES; what is more comes in pages, and what
is long (sessions) only when it is asked for. A part never receives a descriptor here, and no path but that of its own
store. Secrets come here and by no other way: at birth, to the part whose profile lists them, and again with a new
policy where its broker takes them while it runs.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from cofferdam.audit.supervision import PastWrite
from cofferdam.brokers.kit.figures import LABELS, Reported

Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
AlarmName = Annotated[str, Meta(min_length=1, max_length=300, pattern="^[!-~]+$")]
Alarms = Annotated[dict[AlarmName, Annotated[str, Meta(min_length=1, max_length=512)]], Meta(max_length=32)]
"""What needs a person, by a stable name, each with a sentence."""
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Word = Annotated[str, Meta(max_length=64, pattern="^[a-z][a-z0-9_-]*$")]
"""The name of a limit or of a fault: code gives them, nobody else."""
Words = Annotated[dict[Word, Count], Meta(max_length=256)]
Hash = Annotated[str, Meta(max_length=64, pattern="^[0-9a-f]*$")]
Sides = Annotated[tuple[Literal["it", "ot"], ...], Meta(max_length=2)]
Folder = Annotated[str, Meta(max_length=4096)]

ARGUMENT_BYTES: Final = 64 << 10
"""The largest question of an operator to a part, as JSON."""
RESULT_BYTES: Final = 1 << 20
"""The largest answer, as JSON."""
REPORT_BYTES: Final = 64 << 10
"""The largest record of a part that is no answer to a question."""
SESSIONS: Final = 1000
"""Sessions that one answer to HOUSE_SESSIONS tells of."""
HOUSE_SESSIONS: Final = "house:sessions"
"""A verb that every part knows: answered with its sessions, the first SESSIONS of them (`SessionStatus` as JSON)."""
HOUSE_END: Final = "house:end"
"""Another: end all sessions that come from these addresses (`EndSources`); answered with how many there were."""

HOUSE_STATUS: Final = "house:status"
"""Said each minute to parts whose profile is `told`: the gate's status (StatusReport as JSON, compressed by zlib), or
where that is too large, its first lines."""


class Listener(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One socket that the part inherited: its descriptor and the address it is bound to. `datagrams`: by UDP. `way`: it
    goes out alone, or in alone; or it is an end of a seam's pipe, by which it is served what is published there."""

    fd: int
    address: Name
    port: int
    datagrams: bool = False
    way: Literal["", "out", "in", "forth-out", "forth-in", "back-out", "back-in"] = ""

    @property
    def is_seam(self) -> bool:
        return self.way not in ("", "out", "in")


class Secret(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A key, a certificate or a password, by the name that the policy calls it. Prints as `<secret>`."""

    name: Name
    value: bytes

    def __repr__(self) -> str:
        return f"Secret({self.name!r}, <secret>)"


# --- gate to part -----------------------------------------------------------------------------------------------


class Configure(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The first record to a part. `policy` is its slice, as CompiledPolicy.to_bytes(); `boot` makes session ids unique;
    `store` is its own folder, `reads` are those of other parts, by part; `folders` are
    the site's, by name. `dials`: the policy names something that it opens connections to."""

    crew: Name
    part: Name
    broker: Name
    source_zones: tuple[Name, ...]
    target_zone: Name
    boot: Name
    policy: bytes
    severed: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    assets: tuple[str, ...] = ()
    again: bool = False
    """What was written to its assets in the last minute is not known."""
    recent: Annotated[tuple[PastWrite, ...], Meta(max_length=8192)] = ()
    """What was, where it is known."""
    store: Folder = ""
    reads: dict[Name, Folder] = {}
    secrets: tuple[Secret, ...] = ()
    folders: dict[Name, Folder] = {}
    dials: bool = True
    life: Count = 0
    """Of a part that comes again while the others go on: how many of its lives have ended before, among these."""


class NewPolicy(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Judge by this policy from now on; end the sessions that it does not allow. Answered by PolicyTaken."""

    policy: bytes
    listeners: tuple[Listener, ...] = ()
    assets: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] | None = None
    """As they are by now, for a part that takes them anew (`Broker.rekeys`)."""


class SetSevered(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """The sides ("it", "ot") that are cut off from now on. A part of such a side ends its sessions."""

    sides: tuple[str, ...]


class EndSources(Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of HOUSE_END: addresses, or names of sessions, and a reason for the audit log. `by`: who asks."""

    sources: Annotated[tuple[Name, ...], Meta(max_length=4096)]
    reason: Annotated[str, Meta(max_length=512)]
    by: Name = ""
    sessions: Annotated[tuple[Name, ...], Meta(max_length=256)] = ()


class ReportNow(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """Send a PartStatus now. (A part also sends one a second.)"""


class Stop(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """Take no new work, finish what is under way for at most `seconds`, then exit with code 0."""

    seconds: float


class Command(Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True):
    """An operator asks the part something: a verb of its broker, and arguments as a JSON object. Answered once, by
    CommandDone with the same number. The gate sets `by` in the arguments: who asks, as the kernel knows them."""

    number: Count
    verb: Name
    arguments: Annotated[bytes, Meta(max_length=ARGUMENT_BYTES)]


class JobDone(Struct, frozen=True, array_like=True, tag=8, forbid_unknown_fields=True):
    """What became of a job that the part had started (`StartJob`): its answer, or why there is none. The gate has not
    looked into it: it is what a process says that may have been taken over by what it read."""

    number: Count
    result: Annotated[bytes, Meta(max_length=RESULT_BYTES)] = b""
    error: Text = ""


class Away(Struct, frozen=True, array_like=True, tag=9, forbid_unknown_fields=True):
    """A part of the crew has ended, in this life, and comes again (enforce.profile.Crew.returns)."""

    part: Name
    life: Count


ToPart = Configure | NewPolicy | SetSevered | ReportNow | Stop | Command | JobDone | Away


# --- part to gate -----------------------------------------------------------------------------------------------


class Ready(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The part is configured and takes work. `facts` says which separation it has put itself under:
    (name, in force, detail), e.g. ("seccomp", True, "41 rules")."""

    pid: int
    policy: Hash
    facts: Annotated[tuple[tuple[Name, bool, Text], ...], Meta(max_length=64)] = ()


class SessionStatus(Struct, frozen=True, forbid_unknown_fields=True):
    """One client session, as the part that has it sees it. Times: UTC ns."""

    session: Name
    asset: Name
    source: Name
    port: Annotated[int, Meta(ge=0, le=65535)]
    principals: Annotated[tuple[Name, ...], Meta(max_length=256)]
    since: Count
    requests: Count
    refused: Count
    last: Count


class AssetStatus(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One device, as the part that reaches it sees it. `state`: idle, connecting, up, backing-off, silent (it has
    not answered what it was asked last)."""

    asset: Name
    state: Name
    detail: Text = ""


class PartStatus(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """What a part is doing. Counters run since its start; `figures` are those that its broker declares, by name;
    `limits` counts each limit that was hit, by name; `faults` counts refusals by model.Fault; `open` counts sessions by
    asset. `more`: pages of the same report follow, with further figures and assets; all else is the same in each."""

    crew: Name
    part: Name
    policy: Hash
    severed: Sides
    open: Annotated[dict[Name, Count], Meta(max_length=LABELS)] = {}
    assets: Annotated[tuple[AssetStatus, ...], Meta(max_length=LABELS)] = ()
    figures: Reported = {}
    limits: Words = {}
    faults: Words = {}
    malformed: Count = 0
    backlog: Count = 0
    alarms: Alarms = {}
    more: bool = False


class PolicyTaken(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """The part judges by the policy of this hash now; `ended` sessions were not allowed by it."""

    policy: Hash
    ended: Count


class Failing(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """The part is about to exit because of this; `hint`: the way out. `store`: what is in a store of its crew's cannot
    be used, or nobody knows for what it is; not for what the operator gave it, such as a certificate."""

    reason: Text
    hint: Text = ""
    store: bool = False


class CommandDone(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """The answer to a Command: JSON, or why not and the way out."""

    number: Count
    result: Annotated[bytes, Meta(max_length=RESULT_BYTES)] = b""
    error: Text = ""
    hint: Text = ""


class StartJob(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """Start a job of the part's crew, and give it this. Answered once, by JobDone with the same number."""

    number: Count
    job: Name
    arguments: Annotated[bytes, Meta(max_length=ARGUMENT_BYTES)]


FromPart = Ready | PartStatus | PolicyTaken | Failing | CommandDone | StartJob


# --- gate and job -----------------------------------------------------------------------------------------------


class DoJob(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """All that a job is told: its work, the folders that it may read (by part), services of the host (by name)."""

    arguments: Annotated[bytes, Meta(max_length=ARGUMENT_BYTES)]
    reads: dict[Name, Folder] = {}
    sockets: dict[Name, Folder] = {}


class JobResult(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """All that a job says, once: its answer, or why there is none."""

    result: Annotated[bytes, Meta(max_length=RESULT_BYTES)] = b""
    error: Text = ""
