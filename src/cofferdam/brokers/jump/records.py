"""All that the parts of the jump server can say to each other.

    outer ──► keeper     who has connected, what is to be signed, what is shown as proof, what is asked for
    keeper ──► outer     signatures, verdicts, answers
    keeper ──► inner     grants, and their end
    inner ──► keeper     what became of a grant
    outer ◄─► inner      the data of sessions that have a grant
    inner ◄─► archivist  what is to be recorded or kept apart, and that it is on disk

Nobody believes the outer part: it may say that anybody connected, and gets a grant only for what was proved to the
keeper. With a session that lives it can do what the person could. What it cannot do: sign in, make a grant, name an
asset or an account, learn a credential, change what was recorded.

Rules of order (breaking one ends the crew, with an entry):

    1. connections are numbered 1, 2, 3, ... by `Began`; the same holds for sessions by `Open`, across connections
    2. nothing is said of a connection before it began, nor after it has `Gone`
    3. a session's data flow between `Started` and `Closed`; what the outer part says of one that has ended is dropped,
       since both may have been on their way
    4. who sends data keeps to the credit that it has: `CREDIT` bytes, and what was given back
    5. a keeper that comes again is told first what stands (standing_records); its numbers go on after those
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from cofferdam.brokers.jump.file_records import Cleared, Unclean
from cofferdam.brokers.jump.standing_records import Lives, Stands
from cofferdam.crossing.records import RecordCodec
from cofferdam.protocols.sftp import messages as sftp

PIECE: Final = 32_768
"""Bytes of data in one record."""
CREDIT: Final = 1 << 20
"""Bytes under way in one direction of one session."""
TAKE_BYTES: Final = CREDIT // 16
"""What was handed on is told when it is so much: not with each key."""
KEY_BYTES: Final = 256
"""What is smaller is typed by a person, or its echo, and does not wait for the end of a turn."""
RECORD_BYTES: Final = 1 << 20
FILE_PIECE: Final = 261_120
"""Bytes of one read or write of a file: what OpenSSH's sftp-server takes at most."""
HELD_MOST: Final = 512
"""Files at a time that wait for their scan."""

Number = Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
Name = Annotated[str, Meta(max_length=128)]
User = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=1024)]
Long = Annotated[str, Meta(max_length=65_536)]
Data = Annotated[bytes, Meta(max_length=PIECE)]
Blob = Annotated[bytes, Meta(max_length=16_384)]
Hash = Annotated[bytes, Meta(min_length=20, max_length=64)]
Address = Annotated[str, Meta(max_length=64)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Cells = Annotated[int, Meta(ge=1, le=1_000)]
Command = Annotated[str, Meta(max_length=4_096)]
What = Literal["shell", "exec", "sftp", "port"]
SignalName = Literal["ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2"]


class Terminal(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a session is shown on. `modes`: POSIX terminal modes by their opcode (RFC 4254, 8)."""

    term: Annotated[str, Meta(max_length=64, pattern="^[A-Za-z0-9._+-]*$")]
    columns: Cells
    rows: Cells
    modes: Annotated[dict[Annotated[int, Meta(ge=1, le=159)], Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]],
                     Meta(max_length=64)] = {}  # fmt: skip


# --- outer to keeper --------------------------------------------------------------------------------------------


class Began(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """A client has connected. `parent`: within a connection that is signed in, for this asset (`ssh -J`); 0: none."""

    conn: Number
    source: Address
    port: Port
    parent: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)] = 0
    asset: Name = ""


class Exchange(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """A key exchange's hash, to be signed by the host key. The first of a connection is its session id."""

    conn: Number
    hash: Hash


class Proof(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """A user's signature over the session id and a request to sign in as `user` by `algorithm` and `key` (RFC 4252,
    7). The keeper builds what was signed anew."""

    conn: Number
    user: User
    algorithm: Annotated[str, Meta(max_length=128)]
    key: Blob
    signature: Blob


class Answers(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """What a person typed at the prompts."""

    conn: Number
    user: User
    answers: Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(max_length=2)]

    def __repr__(self) -> str:
        return f"Answers({self.conn}, {self.user!r}, <secret>)"


class Open(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """Somebody who is signed in wants a session at an asset."""

    conn: Number
    session: Number
    asset: Name
    what: What
    command: Command = ""
    terminal: Terminal | None = None


class Ask(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """A line typed at the menu. One at a time for each connection."""

    conn: Number
    line: Command


class Gone(Struct, frozen=True, gc=False, array_like=True, tag=7, forbid_unknown_fields=True):
    """The connection has ended."""

    conn: Number


class Left(Struct, frozen=True, gc=False, array_like=True, tag=8, forbid_unknown_fields=True):
    """Whoever watched a session by this connection does not any more."""

    conn: Number


class Unlocking(Struct, frozen=True, gc=False, array_like=True, tag=9, forbid_unknown_fields=True):
    """What was typed at a session that is locked."""

    conn: Number
    session: Number
    answer: Annotated[str, Meta(max_length=1024)]

    def __repr__(self) -> str:
        return f"Unlocking({self.conn}, {self.session}, <secret>)"


ToKeeper = Began | Exchange | Proof | Answers | Open | Ask | Gone | Left | Unlocking | Stands


# --- keeper to outer --------------------------------------------------------------------------------------------


class HostKey(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """What the gate shows itself by: a public key in SSH's form, and a certificate over it. Said first, and again when
    the certificate is another."""

    key: Blob
    certificate: Annotated[bytes, Meta(max_length=65_536)] = b""


class Signed(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """The signature over a hash."""

    conn: Number
    signature: Blob


class Verdict(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """What came of a proof: "no", "code" (a key was shown, the code is missing), "in". `asset`: what the user name
    asked for, "" for the menu. `text` is shown to the person."""

    conn: Number
    state: Literal["no", "code", "in"]
    person: Name = ""
    asset: Name = ""
    text: Text = ""


class SessionRefused(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """There will be no such session."""

    session: Number
    reason: Text


class Told(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """The answer to a line of the menu. `refused`: it was not done."""

    conn: Number
    text: Long
    refused: bool = False


class Drop(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """The connection is to end."""

    conn: Number
    reason: Text


class Watch(Struct, frozen=True, gc=False, array_like=True, tag=7, forbid_unknown_fields=True):
    """The line that waits for its answer there was to watch this session: from now on that channel is shown what the
    session is shown. `join`: what is typed there goes to the asset as well."""

    conn: Number
    session: Number
    join: bool


class Unwatch(Struct, frozen=True, gc=False, array_like=True, tag=8, forbid_unknown_fields=True):
    """It watches no more."""

    conn: Number
    reason: Text


class Wait(Struct, frozen=True, gc=False, array_like=True, tag=9, forbid_unknown_fields=True):
    """Words for a session that has not begun, or is locked."""

    session: Number
    text: Text


FromKeeper = HostKey | Signed | Verdict | SessionRefused | Told | Drop | Watch | Unwatch | Wait


# --- keeper to inner --------------------------------------------------------------------------------------------


class Credential(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """By what we sign in at the asset. Prints as `<secret>`."""

    kind: Literal["key", "password", "certificate", "none"]
    secret: Annotated[bytes, Meta(max_length=16_384)]
    certificate: Annotated[bytes, Meta(max_length=16_384)] = b""

    def __repr__(self) -> str:
        return f"Credential({self.kind!r}, <secret>)"


class Grant(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """A session may begin now, and may last for `seconds`. `name` is the session's in the log. `host_key`: what the
    asset must show (SSH's form); empty where it has none. `up`, `down`: where files may go to and come from. `opaque`:
    what is typed is recorded as well, before it is sent. `left`: bytes of files that the person may still move today,
    where the rows have a limit. `watched`: it may not go on when nobody watches."""

    session: Number
    name: Name
    person: Name
    source: Address
    conduit: Name
    asset: Name
    login: Name
    credential: Credential
    host_key: Blob
    what: What
    seconds: Annotated[float, Meta(gt=0, le=1e9)]
    record: bool
    command: Command = ""
    terminal: Terminal | None = None
    up: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()
    down: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()
    opaque: bool = False
    left: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)] = 0
    watched: bool = False


class Revoke(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """A session is to end at once."""

    session: Number
    reason: Text


class Warn(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """Words for the person in a session."""

    session: Number
    text: Text


class Unlock(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """A session that is locked goes on."""

    session: Number


class Rotate(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """A password is to be changed at an asset: sign in by `credential`, run `command` with `lines` on its stdin, and
    see whether `fresh` lets us in. Without a command: only see which of the two does. Numbered 1, 2, 3, ..."""

    number: Number
    conduit: Name
    asset: Name
    login: Name
    credential: Credential
    fresh: Credential
    host_key: Blob
    command: Command
    lines: Annotated[tuple[Blob, ...], Meta(max_length=8)]

    def __repr__(self) -> str:
        return f"Rotate({self.number}, {self.asset!r}, {self.login!r}, <secret>)"


ToInner = Grant | Revoke | Warn | Unlock | Rotate | Cleared


class Ended(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """A grant is used up: the session has ended, or never began. Bytes are those of the person and of the asset."""

    session: Number
    reason: Text
    sent: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)] = 0
    received: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)] = 0


class Idle(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """Nobody typed for so long that the terminal is locked: nothing goes either way until it is unlocked."""

    session: Number


class Rotated(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """What came of a change of password: the new one let us in, the old one does, or neither."""

    number: Number
    outcome: Literal["changed", "kept", "unknown"]
    why: Text


class Used(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """So many bytes of files went for a person by a conduit since that was said last."""

    conduit: Name
    person: Name
    count: Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]


FromInner = Ended | Idle | Rotated | Used | Unclean | Lives


# --- outer and inner --------------------------------------------------------------------------------------------


class Send(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """What a person typed, or what a program said on stdin."""

    session: Number
    data: Data


class SendEnd(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """No more comes from the person's side."""

    session: Number


class Resize(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """The person's terminal has another size."""

    session: Number
    columns: Cells
    rows: Cells


class Signal(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """A signal for the program at the asset (RFC 4254, 6.9)."""

    session: Number
    signal: SignalName


class Close(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """The person's end of the session is gone."""

    session: Number


class Took(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """So many bytes were handed on: they may be sent again. Said by both."""

    session: Number
    count: Annotated[int, Meta(ge=1, le=CREDIT)]


class Started(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """The asset has let us in."""

    session: Number


class Shown(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """What the asset says, on stdout or stderr."""

    session: Number
    data: Data
    error: bool = False


class ShownEnd(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """No more comes from the asset."""

    session: Number


class Notice(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """Words of the gate for the person."""

    session: Number
    text: Text


class Closed(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """The session has ended: with a status of the program, by a signal, or for a reason of ours."""

    session: Number
    status: Annotated[int, Meta(ge=0, le=255)] = 0
    signal: Annotated[str, Meta(max_length=32, pattern="^[A-Z0-9]*$")] = ""
    reason: Text = ""


class FileAsk(Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True):
    """Something with files. `request` is the outer part's number for it, 1, 2, 3, ... in each session."""

    session: Number
    request: Number
    operation: sftp.Operation


class FileTold(Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True):
    """What came of it. Each request has one answer, in whatever order."""

    session: Number
    request: Number
    answer: sftp.Answer


class Locked(Struct, frozen=True, gc=False, array_like=True, tag=8, forbid_unknown_fields=True):
    """The terminal is to be blanked, and what is typed there is for the keeper; or that is over."""

    session: Number
    locked: bool


class Lent(Struct, frozen=True, gc=False, array_like=True, tag=9, forbid_unknown_fields=True):
    """A session of a forwarded port lives, and another broker knows it: its channel goes by the seam to this place, as
    of this session and conduit."""

    session: Number
    address: Address
    port: Port
    name: Name
    conduit: Name


# --- inner and archivist ----------------------------------------------------------------------------------------


class Record(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """A recording begins."""

    session: Number
    name: Annotated[str, Meta(min_length=1, max_length=128, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    person: Name
    asset: Name
    login: Name
    source: Address
    command: Command
    columns: Cells
    rows: Cells
    term: Annotated[str, Meta(max_length=64)]


class Happened(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """What was shown ("o") or typed ("i"), a resizing ("r", COLUMNSxROWS), a mark ("m"), the end ("x", the exit).
    Numbered from 1 in each session."""

    session: Number
    number: Number
    kind: Literal["o", "i", "r", "m", "x"]
    data: Data


class Stored(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """All up to this number is in the recording's file. `trouble`: it could not be written, and no more will be."""

    session: Number
    number: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
    trouble: Text = ""


class Hold(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """A file of somebody's is kept apart. Files are numbered 1, 2, 3, ..."""

    file: Number
    person: Name


class HoldPiece(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """Its next bytes."""

    file: Number
    data: Annotated[bytes, Meta(max_length=FILE_PIECE)]


class Judge(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """It is whole: have it looked through."""

    file: Number


class Give(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """Its bytes from here on, for the asset."""

    file: Number
    offset: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]


class Let(Struct, frozen=True, gc=False, array_like=True, tag=7, forbid_unknown_fields=True):
    """It is not needed any more: away with it, or kept for people to look at."""

    file: Number
    keep: bool


class Held(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """So many bytes of it are there. `trouble`: it could not be written."""

    file: Number
    size: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
    trouble: Text = ""


class Judged(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """What the scanner says. `name`: in quarantine. `partly`: it has found nothing in what it could see."""

    file: Number
    verdict: Literal["clean", "found", "not scanned"]
    detail: Text
    name: Name
    partly: bool = False


class Given(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """Bytes of it; none: there are no more."""

    file: Number
    offset: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
    data: Annotated[bytes, Meta(max_length=FILE_PIECE)]


ToArchivist = Record | Happened | Hold | HoldPiece | Judge | Give | Let
FromArchivist = Stored | Held | Judged | Given
OuterToInner = Send | SendEnd | Resize | Signal | Close | Took | FileAsk
InnerToOuter = Started | Shown | ShownEnd | Notice | Closed | Took | FileTold | Locked | Lent


def to_keeper(*_: Any) -> RecordCodec[ToKeeper]:
    return RecordCodec(ToKeeper, limit=RECORD_BYTES)


def from_keeper(*_: Any) -> RecordCodec[FromKeeper]:
    return RecordCodec(FromKeeper, limit=RECORD_BYTES)


def to_inner(*_: Any) -> RecordCodec[ToInner]:
    return RecordCodec(ToInner, limit=RECORD_BYTES)


def from_inner(*_: Any) -> RecordCodec[FromInner]:
    return RecordCodec(FromInner, limit=RECORD_BYTES)


def outer_to_inner(*_: Any) -> RecordCodec[OuterToInner]:
    return RecordCodec(OuterToInner, limit=RECORD_BYTES)


def inner_to_outer(*_: Any) -> RecordCodec[InnerToOuter]:
    return RecordCodec(InnerToOuter, limit=RECORD_BYTES)


def to_archivist(*_: Any) -> RecordCodec[ToArchivist]:
    return RecordCodec(ToArchivist, limit=RECORD_BYTES)


def from_archivist(*_: Any) -> RecordCodec[FromArchivist]:
    return RecordCodec(FromArchivist, limit=RECORD_BYTES)
