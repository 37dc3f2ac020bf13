"""Events of the jump server: who signed in or failed to, what was asked for and approved, sessions, recordings, files,
and what was tried that is no session.

What a person typed never stands here, nor a code, a password or a key; a recording is named, and its bytes are told by
their SHA-256 up to a length.
"""

from __future__ import annotations

from typing import Literal

from cofferdam.audit.events.base import Address, Count, Event, Hash, Name, Names, Port, Text, WallNs
from cofferdam.audit.events.evidence import Signature, Statement
from cofferdam.audit.events.lines import Line, Said


class SignedIn(Event, frozen=True, kw_only=True):
    """A person showed two factors. `factors`: which ones."""

    connection: Name
    person: Name
    source: Address
    port: Port
    factors: Names
    key: Text = ""


class SignInRefused(Event, frozen=True, kw_only=True):
    """Somebody did not get in. `user` is what they called themselves. `count`: so many alike, told together."""

    connection: Name
    user: Text
    source: Address
    reason: Text
    count: Count = 1


class AccessSet(Event, frozen=True, kw_only=True):
    """An operator changed what the keeper knows: people, groups, factors, assets' host keys and credentials, blocks. Or
    the gate changed a password at an asset, or signed a certificate for somebody's key."""

    what: Name
    name: Text
    by: Name
    detail: Text = ""


class AccessRequested(Event, frozen=True, kw_only=True):
    """A person asked for approval."""

    request: Count
    person: Name
    asset: Name
    conduit: Name
    seconds: Count
    reason: Text
    ticket: Name = ""


class AccessDecided(Event, frozen=True, kw_only=True):
    """Somebody else approved or denied a request, or took an approval back; or who asked withdrew it. `people`: all who
    approved. `how`: in a session that was signed in shortly before, at the gate itself, or by a signature, which is
    here with what was signed (OpenSSH's, namespace cofferdam-approval, base64)."""

    request: Count
    decision: Literal["approved", "granted", "denied", "revoked", "withdrawn"]
    by: Name
    how: Name
    person: Name
    asset: Name
    people: Names = ()
    until_ns: WallNs = 0
    reason: Text = ""
    statement: Statement = ""
    signature: Signature = ""


class AccessOpened(Event, frozen=True, kw_only=True):
    """A session may begin: this entry is on disk before the asset hears of it."""

    session: Name
    connection: Name
    person: Name
    source: Address
    asset: Name
    login: Name
    what: Name
    conduit: Name
    rule: Name
    request: Count = 0
    command: Text = ""
    recorded: bool = False


class AccessRefused(Event, frozen=True, kw_only=True):
    """A person who is signed in was refused a session, or something within one."""

    connection: Name
    person: Name
    source: Address
    asset: Name
    what: Name
    reason: Text
    count: Count = 1


class AccessEnded(Event, frozen=True, kw_only=True):
    """A session has ended. Bytes are those of the person and of the asset."""

    session: Name
    person: Name
    asset: Name
    reason: Text
    sent: Count = 0
    received: Count = 0
    opened_ns: WallNs = 0


class TunnelRefused(Event, frozen=True, kw_only=True):
    """Somebody who is signed in asked for what would be a way round: a forwarded port, an agent, X11, a tunnel."""

    connection: Name
    person: Name
    source: Address
    what: Name
    target: Text = ""
    count: Count = 1


class GlassUsed(Event, frozen=True, kw_only=True):
    """The sealed code that takes the place of an approval was made, used, refused, or its use was reviewed."""

    by: Name
    how: Literal["sealed", "broken", "refused", "reviewed"]
    person: Name = ""
    asset: Name = ""
    reason: Text = ""


class AccessWatched(Event, frozen=True, kw_only=True):
    """Somebody watches a session live, has joined it, or does so no more. Before they see anything, that is here."""

    session: Name
    by: Name
    how: Literal["watches", "joined", "left"]
    source: Address = ""


class AccessLocked(Event, frozen=True, kw_only=True):
    """A terminal at which nobody typed for long was locked, or unlocked again, by which factor of its person's."""

    session: Name
    person: Name
    how: Literal["locked", "unlocked"]
    factor: Name = ""


class AccessKilled(Event, frozen=True, kw_only=True):
    """Somebody ended a session. `blocked`: who or what may not come back until that is lifted."""

    session: Name
    by: Name
    blocked: Names = ()
    reason: Text = ""


class HostKeyRefused(Event, frozen=True, kw_only=True):
    """An asset showed another host key than the one that was accepted."""

    session: Name
    asset: Name
    found: Text
    expected: Text


class RecordingMarked(Event, frozen=True, kw_only=True):
    """A recording had `size` bytes, with this SHA-256. `ended`: there will be no more."""

    recording: Name
    session: Name
    size: Count
    sha256: Hash
    ended: bool = False
    reason: Text = ""


class RecordingUsed(Event, frozen=True, kw_only=True):
    """An operator looked at a recording, has it held whatever the policy says, or let it go; or it was removed, or was
    not ("not-removed"), although an entry before this one says so."""

    recording: Name
    how: Literal["read", "removed", "not-removed", "held", "released"]
    by: Name
    reason: Text = ""


class AssetFilePassed(Event, frozen=True, kw_only=True):
    """A file went to an asset or came from it; or something else was done with one. What is read has two entries: one
    before its first byte ("open", with the size that it has), one with what was handed out ("down")."""

    session: Name
    person: Name
    asset: Name
    way: Literal["up", "down", "open", "remove", "rename", "mkdir", "rmdir", "mode"]
    path: Text
    to: Text = ""
    size: Count = 0
    sha256: Hash = ""
    scan: Text = ""


class AssetFileRefused(Event, frozen=True, kw_only=True):
    """A file was refused. `kept`: its name in quarantine."""

    session: Name
    person: Name
    asset: Name
    way: Name
    path: Text
    reason: Text
    size: Count = 0
    sha256: Hash = ""
    kept: Name = ""
    count: Count = 1


class FileDecided(Event, frozen=True, kw_only=True):
    """Somebody decided about a file in quarantine that could not be scanned whole: it passes from now on for whoever
    brought it, for so long; or never. Or a file was removed from quarantine. `file`: its number, 0 for none; `kept`:
    its name there. `statement` and `signature` as in `access-decided`."""

    file: Count
    kept: Name = ""
    decision: Literal["released", "rejected", "removed"]
    person: Name = ""
    asset: Name = ""
    way: Name = ""
    path: Text = ""
    size: Count = 0
    sha256: Hash = ""
    until_ns: WallNs = 0
    by: Name
    how: Name = ""
    reason: Text = ""
    statement: Statement = ""
    signature: Signature = ""


Draft = (
    FileDecided
    | SignedIn
    | SignInRefused
    | AccessSet
    | AccessRequested
    | AccessDecided
    | AccessOpened
    | AccessRefused
    | AccessEnded
    | TunnelRefused
    | GlassUsed
    | AccessWatched
    | AccessLocked
    | AccessKilled
    | HostKeyRefused
    | RecordingMarked
    | RecordingUsed
    | AssetFilePassed
    | AssetFileRefused
)
GATE: tuple[type[Event], ...] = ()
OUTER: tuple[type[Event], ...] = (TunnelRefused,)
KEEPER: tuple[type[Event], ...] = (
    SignedIn, SignInRefused, AccessSet, AccessRequested, AccessDecided, AccessOpened, AccessRefused, AccessEnded,
    AccessWatched, AccessLocked, AccessKilled, GlassUsed, FileDecided,
)  # fmt: skip
INNER: tuple[type[Event], ...] = (HostKeyRefused, AssetFilePassed, AssetFileRefused)
ARCHIVIST: tuple[type[Event], ...] = (RecordingMarked, RecordingUsed, FileDecided)


def _many(event: Said) -> str:
    return f" ({event['count']} times)" if event.get("count", 1) > 1 else ""


def _digest(event: Said) -> str:
    return f", SHA-256 {str(event['sha256'])[:16]}…" if event.get("sha256") else ""


def _because(event: Said) -> str:
    return f": {event['reason']}" if event.get("reason") else ""


def _decided(event: Said) -> str:
    return (
        f"request {event.get('request')} of {event.get('person')} for {event.get('asset')} {event.get('decision')}"
        f" by {event.get('by')} ({event.get('how')}){_because(event)}"
    )


LINES: dict[str, Line] = {
    "signed-in": lambda e: f"{e.get('person')} ({e.get('source')}) by {' and '.join(e.get('factors', ()))}",
    "sign-in-refused": lambda e: f"{e.get('user') or '?'} ({e.get('source')}){_because(e)}{_many(e)}",
    "access-set": lambda e: f"{e.get('what')} {e.get('name')} by {e.get('by')} {e.get('detail', '')}".rstrip(),
    "access-requested": lambda e: (
        f"request {e.get('request')}: {e.get('person')} for {e.get('asset')}, {int(e.get('seconds', 0)) // 60} min"
        f"{_because(e)}"
    ),
    "access-decided": _decided,
    "access-opened": lambda e: (
        f"{e.get('session')}: {e.get('person')} ({e.get('source')}) → {e.get('login')}@{e.get('asset')},"
        f" {e.get('what')} {e.get('command', '')}".rstrip()
    ),
    "access-refused": lambda e: (
        f"{e.get('person')} ({e.get('source')}) {e.get('what')} at {e.get('asset')}{_because(e)}{_many(e)}"
    ),
    "access-ended": lambda e: (
        f"{e.get('session')}: {e.get('person')} at {e.get('asset')}{_because(e)},"
        f" {e.get('sent', 0)} bytes there, {e.get('received', 0)} back"
    ),
    "tunnel-refused": lambda e: f"{e.get('person')} ({e.get('source')}) {e.get('what')} {e.get('target')}{_many(e)}",
    "glass-used": lambda e: (
        f"{e.get('how')} by {e.get('by')} {e.get('person', '')} {e.get('asset', '')}".rstrip() + _because(e)
    ),
    "access-locked": lambda e: (
        f"{e.get('session')} of {e.get('person')} {e.get('how')}" + (f" by {e['factor']}" if e.get("factor") else "")
    ),
    "access-watched": lambda e: f"{e.get('session')}: {e.get('by')} {e.get('how')}",
    "access-killed": lambda e: (
        f"{e.get('session')} by {e.get('by')}, barred: {', '.join(e.get('blocked', ())) or 'nobody'}{_because(e)}"
    ),
    "host-key-refused": lambda e: (
        f"{e.get('session')}: {e.get('asset')} showed {e.get('found')} instead of {e.get('expected')}"
    ),
    "recording-marked": lambda e: (
        f"{e.get('recording')} {e.get('size')} bytes, SHA-256 {str(e.get('sha256'))[:16]}…"
        f"{' at its end' if e.get('ended') else ''}{_because(e)}"
    ),
    "file-decided": lambda e: (
        f"{e.get('kept') or e.get('path')} {e.get('decision')} by {e.get('by')} {e.get('how', '')}".rstrip()
        + (f", of {e['person']} for {e.get('asset')} {e.get('path')}" if e.get("person") else "")
        + _because(e)
    ),
    "recording-used": lambda e: f"{e.get('recording')} {e.get('how')} by {e.get('by')}{_because(e)}",
    "asset-file-passed": lambda e: (
        f"{e.get('session')}: {e.get('person')} {e.get('way')} {e.get('asset')}:{e.get('path')} {e.get('to', '')}"
        f" {e.get('size')} bytes{_digest(e)} {e.get('scan', '')}".rstrip()
    ),
    "asset-file-refused": lambda e: (
        f"{e.get('session')}: {e.get('person')} {e.get('way')} {e.get('asset')}:{e.get('path')}{_because(e)}{_many(e)}"
    ),
}
