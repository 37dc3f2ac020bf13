"""The jump server's archivist: writes recordings, and says what is in their files. It has no network.

A piece is acknowledged once it is written; each second, and at the end, it is on disk. A running SHA-256 goes into the
audit log every ten seconds or 256 KiB, and at the end: what was cut or changed later shows up to the last such mark.

Not here: the form of a recording (recording), who looks at one (cli.jump).
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.jump import FileDecided, RecordingMarked, RecordingUsed
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.jump import records, told
from cofferdam.brokers.jump.quarantine import Quarantine, Room
from cofferdam.brokers.jump.recording import FOLDER, SUFFIX, Writer, began
from cofferdam.brokers.kit.figures import Reported
from cofferdam.errors import CrossingError, GateError, StoreError
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.jump_rows import JumpRows

MARK_NS: Final = 10 * 10**9
MARK_BYTES: Final = 256 << 10
SYNC_NS: Final = 10**9
SLOW_NS: Final = 2 * 10**9
LOOK_NS: Final = 60 * 10**9
"""Between two looks for recordings that are old, or for which there is no room: sooner where much is written."""
LOOKS_A_ROOM: Final = 16
"""Looks while as much is written as there is room for."""
READ_A_TURN: Final = 100
"""Recordings of earlier lives of which it is read whose they are."""
FRESH_SECONDS: Final = 7 * 86_400
"""Of one person who has more than half of the room, what is younger does not go for others' sake, nor for theirs: they
are recorded no more instead. Nobody gets rid of what they did by having much shown."""
RECORDINGS_MOST: Final = 4_096
"""Open at a time: more than sessions that may live."""
PIECE_BYTES: Final = 512 << 10
HEAD_MOST: Final = 64 << 10
"""Bytes of a recording's first line: a command of 4,096 signs may take 48 KiB of it."""
LIST_MOST: Final = 2_000
NEW: Final = ".new"
"""Behind the name of a recording of which the log does not know yet: nothing of it was shown to anybody."""
HOLD: Final = ".hold"
SHOWN_MOST: Final = 256

By = Annotated[str, Meta(min_length=1, max_length=128)]
FileName = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    by: str = ""


class Read(msgspec.Struct, forbid_unknown_fields=True):
    name: FileName
    by: By
    offset: Annotated[int, Meta(ge=0)] = 0


class Holding(msgspec.Struct, forbid_unknown_fields=True):
    """`held`: whether it is kept whatever the policy says."""

    name: FileName
    by: By
    held: bool
    reason: Annotated[str, Meta(min_length=1, max_length=400)]


class Removing(msgspec.Struct, forbid_unknown_fields=True):
    """A file of the quarantine."""

    name: FileName
    by: By
    reason: Annotated[str, Meta(max_length=400)] = ""


class Archivist(Part):
    """The part."""

    spins = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.store is None:
            raise StoreError("the archivist has no folder")
        self._setting = setting
        self._inner = setting.senders["inner"]
        self._folder = setting.store / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._writers: dict[int, Writer] = {}
        self._answers: dict[int, int] = {}
        self._trouble = ""
        self._looked = -LOOK_NS
        self._removing = False
        self._bytes = 0
        self._failed = 0
        self._count = sum(1 for _ in self._folder.glob(f"*{SUFFIX}"))
        self._keep = _keep(setting.policy)
        self._room = Room(self._folder)
        self._quarantine = Quarantine(setting.store, setting.boot, setting.run_job, self._inner.send, self._room)
        self._orphans = set(self._folder.glob(f"*{SUFFIX}{NEW}"))
        self._adopting: set[Path] = set()
        self._unread = [path.name for path in self._folder.glob(f"*{SUFFIX}")]
        self._whose: dict[str, str] = {}
        """Recordings, and who was recorded."""
        self._full: set[str] = set()
        """Those who are recorded no more."""
        self._near = ""
        """Who soon will not be."""
        self._stay: dict[str, str] = {}
        """What cannot be removed, and why: it is not tried again in this life."""
        self._fixed = ""
        """Why nothing can be removed just now."""
        self._looked_at = 0
        self._shown: dict[tuple[str, str], None] = {}
        """Who looks at which recording, by an entry of this life."""

    # --- the gate -----------------------------------------------------------------------------------------------------

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._keep = _keep(policy)
        self._looked -= LOOK_NS  # there may be more room, or less
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        """It is on no side."""

    @property
    def busy(self) -> int:
        return len(self._writers)

    def figures(self) -> Reported:
        return {
            "recordings": {"": self._count},
            "recordings_live": {"": len(self._writers)},
            "recorded_bytes": {"": self._bytes},
            "recordings_failed": {"": self._failed},
            "files_in_quarantine": {"": self._quarantine.kept},
        }

    def alarms(self) -> dict[str, str]:
        found = {"jump-recording": f"recordings cannot be written: {self._trouble}"} if self._trouble else {}
        if self._near:
            found["jump-room"] = (
                f"{self._near}'s recordings of a week have three eighths of the room for all, without what is held: "
                "where there is no room left, and they have half of it, they are recorded no more"
            )
        stay = self._quarantine.stay | self._stay
        if why := self._fixed or next((f"{name}: {why}" for name, why in stay.items()), ""):
            more = f" (and {len(stay) - 1} more)" if len(stay) > 1 and not self._fixed else ""
            found["jump-stays"] = clip(f"what is not to be kept any longer cannot be removed: {why}{more}")
        if kept := self._quarantine.kept:
            found["jump-quarantine"] = f"{kept} file{'' if kept == 1 else 's'} in quarantine"
        return found

    def tick(self) -> None:
        now = self._setting.clock()
        for session, writer in list(self._writers.items()):
            began = time.monotonic_ns()
            try:
                self._room.look()  # a session in which nothing happens would not find out
                writer.sync(now, SYNC_NS)
            except OSError as error:
                self._fail(session, writer, error)
                continue
            self._took(began)
            if writer.due(now, MARK_NS, MARK_BYTES):
                self._mark(writer, now)
        self._adopt()
        for name in self._unread[-READ_A_TURN:]:
            if person := str(self._head(name).get("title", "")).partition(" (")[0]:
                self._whose[name] = person
        del self._unread[-READ_A_TURN:]
        if now - self._looked >= LOOK_NS or self._bytes - self._looked_at >= self._keep.room // LOOKS_A_ROOM:
            self._remove_old()

    def end(self) -> None:
        for session in list(self._writers):
            self._finish(session, "the gate stops")
        self._quarantine.close()

    # --- recording ----------------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        if isinstance(record, records.Record):
            if record.session in self._writers or len(self._writers) >= RECORDINGS_MOST:
                raise CrossingError(f"a second recording of session {record.session}, or too many")
            self._begin(record)
            return
        if not isinstance(record, records.Happened):
            self._quarantine.on_record(record)
            return
        writer = self._writers.get(record.session)
        if writer is None:
            return  # it could not be written; that has been said
        if record.number != writer.number + 1:
            raise CrossingError(f"piece {record.number} of a recording after {writer.number}")
        now, began = self._setting.clock(), time.monotonic_ns()
        try:
            self._room.check(len(record.data))
            self._bytes += writer.add(record.kind, record.data, now, record.number)
        except OSError as error:
            self._fail(record.session, writer, error)
            return
        self._took(began)
        if writer.vouched:
            self._inner.send(records.Stored(record.session, record.number))
        if record.kind == "x":
            self._finish(record.session)
        elif writer.due(now, MARK_NS, MARK_BYTES):
            self._mark(writer, now)

    def _begin(self, record: records.Record) -> None:
        path = self._folder / f"{self._setting.wall() // 10**9}-{record.name}{SUFFIX}{NEW}"
        try:
            self._room.look()
            if record.person in self._full:
                raise OSError(errno.EDQUOT, _too_much(record.person))
            writer = Writer(path, record, self._setting.wall(), self._setting.clock())
        except OSError as error:
            self._failed += 1
            self._trouble = error.strerror or str(error)
            self._inner.send(records.Stored(record.session, 0, clip(self._trouble)))
            return
        self._trouble = ""
        self._count += 1
        self._writers[record.session] = writer
        self._whose[path.name.removesuffix(NEW)] = record.person
        writer.marked(self._setting.clock())

        def vouched(ok: bool, why: str) -> None:
            """Nothing is shown before the log knows that there is a recording; the session may be over by then."""
            if ok:
                try:
                    writer.path = self._known(writer.path)
                except OSError as error:
                    if self._writers.get(record.session) is writer:
                        self._fail(record.session, writer, error)
                    return
            else:
                self._orphans.add(writer.path)
            if writer.failed:
                return
            if ok:
                writer.vouched = True
                if writer.number:
                    self._inner.send(records.Stored(record.session, writer.number))
            elif self._writers.get(record.session) is writer:
                self._fail(record.session, writer, OSError(errno.EIO, f"the log does not take it: {why}"))
            else:
                self._inner.send(records.Stored(record.session, 0, clip(f"the log does not take it: {why}")))

        self._setting.audit.record(self._entry(writer, False), vouched)

    def _known(self, path: Path) -> Path:
        """The log knows this recording."""
        return path.rename(path.with_suffix("")) if path.suffix == NEW else path

    def _adopt(self) -> None:
        """What this part began and never got into the log, in this life or the last, gets there now, as ended."""
        live = {writer.path for writer in self._writers.values()}
        for path in self._orphans - live - self._adopting:
            try:
                data = path.read_bytes()
            except OSError:
                self._orphans.discard(path)  # somebody has taken it away
                continue
            self._adopting.add(path)
            entry = RecordingMarked(
                wall_ns=self._setting.wall(), recording=path.with_suffix("").name,
                session=path.name.partition("-")[2].removesuffix(SUFFIX + NEW), size=len(data),
                sha256=hashlib.sha256(data).hexdigest(), ended=True, reason="it ended before the log knew of it",
            )  # fmt: skip

            def adopted(ok: bool, why: str, path: Path = path) -> None:
                self._adopting.discard(path)
                if ok:
                    self._orphans.discard(path)
                    self._count += 1
                    with contextlib.suppress(OSError):
                        self._unread.append(self._known(path).name)

            self._setting.audit.record(entry, adopted)

    def _took(self, began_ns: int) -> None:
        """A disk that takes seconds is told; the inner part ends what waits for it for too long."""
        if (took := time.monotonic_ns() - began_ns) >= SLOW_NS:
            self._trouble = f"the disk took {took / 1e9:.0f} s over one write"

    def _fail(self, session: int, writer: Writer, error: OSError) -> None:
        self._failed += 1
        self._trouble = error.strerror or str(error)
        del self._writers[session]
        writer.failed = True
        writer.close()
        self._inner.send(records.Stored(session, 0, clip(self._trouble)))
        self._note(writer, True, self._trouble)

    def _finish(self, session: int, reason: str = "") -> None:
        writer = self._writers.pop(session)
        try:
            writer.sync(self._setting.clock(), 0)
        except OSError as error:
            reason = error.strerror or str(error)
        self._note(writer, True, reason)
        writer.close()

    def _mark(self, writer: Writer, now: int) -> None:
        writer.marked(now)
        self._note(writer, False)

    def _note(self, writer: Writer, ended: bool, reason: str = "") -> None:
        self._setting.audit.note(self._entry(writer, ended, reason), always=True)

    def _entry(self, writer: Writer, ended: bool, reason: str = "") -> RecordingMarked:
        return RecordingMarked(
            wall_ns=self._setting.wall(), recording=writer.path.name.removesuffix(NEW), session=writer.session,
            size=writer.size,
            sha256=writer.digest, ended=ended, reason=clip(reason),
        )  # fmt: skip

    def _remove_old(self) -> None:
        """The oldest that is older than any conduit keeps it, or for which there is no room any more, and that nobody
        holds: one a look, and none before that is in the log. Where it cannot be removed after all, the log has that as
        well."""
        self._looked, self._looked_at = self._setting.clock(), self._bytes
        if self._removing or not self._keep.age:
            return
        live = {writer.path.name for writer in self._writers.values()}
        sizes = self._sizes()
        loose = [name for name in sizes if name not in self._stay and not self._hold(name).exists()]
        old = next((name for name in loose if name not in live), None)
        reason = f"kept for {self._keep.age} s"
        if old is None or self._age(old) <= self._keep.age:
            old = self._for_room(sizes, loose, live)
            reason = f"all together have more than {self._keep.room} bytes"
        self._fixed = _fixed(self._folder) if old is not None else ""
        if old is None or self._fixed:
            return
        self._removing = True
        entry = RecordingUsed(
            wall_ns=self._setting.wall(), recording=old, how="removed", by="the policy", reason=reason
        )

        def done(ok: bool, why: str) -> None:
            self._removing = False
            if not ok:
                return
            self._looked -= LOOK_NS  # there may be more
            why = "somebody holds it now" if self._hold(old).exists() else ""
            try:
                if not why:
                    (self._folder / old).unlink(missing_ok=True)
            except OSError as error:
                why = self._stay[old] = error.strerror or str(error)
            if why:
                self._setting.audit.note(
                    RecordingUsed(
                        wall_ns=self._setting.wall(), recording=old, how="not-removed", by="the policy",
                        reason=clip(why),
                    ),
                    always=True,
                )  # fmt: skip
                return
            self._count -= 1
            self._whose.pop(old, None)

        self._setting.audit.record(entry, done)

    def _age(self, name: str) -> int:
        return self._setting.wall() // 10**9 - began(name)[0]

    def _sizes(self) -> dict[str, int]:
        """Of each recording, the oldest first; one that somebody takes away meanwhile is left out, and a folder."""
        found: dict[str, int] = {}
        for path in sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda path: began(path.name)):
            with contextlib.suppress(OSError):
                facts = path.stat()
                if stat.S_ISDIR(facts.st_mode):
                    self._stay[path.name] = "it is a folder"
                else:
                    found[path.name] = facts.st_size
        return found

    def _for_room(self, sizes: dict[str, int], loose: list[str], live: set[str]) -> str | None:
        """The oldest that goes where all together have more than there is room for; `loose`: those that nobody holds.
        Of who has more than half of what holds leave of it, the oldest that is not fresh; where all are, they are
        recorded no more, and what they have beyond their half is nobody else's to make room for."""
        total = sum(sizes.values())
        held = total - sum(sizes[name] for name in loose)
        half = max(self._keep.room - held, 0) // 2
        self._full.clear()
        self._near = ""
        if total <= self._keep.room * 7 // 8 or self._unread:
            return None
        of: dict[str, list[str]] = {}
        for name in loose:
            of.setdefault(self._whose.get(name, ""), []).append(name)
        of.pop("", None)
        fresh = {
            person: sum(sizes[name] for name in theirs if self._age(name) <= FRESH_SECONDS)
            for person, theirs in of.items()
        }
        most = max(fresh, key=fresh.__getitem__, default="")
        self._near = most if fresh.get(most, 0) > half * 3 // 4 else ""
        if total <= self._keep.room:
            return None
        for person, theirs in of.items():
            beyond = sum(sizes[name] for name in theirs) - half
            if beyond <= 0:
                continue
            ripe = next((name for name in theirs if name not in live and self._age(name) > FRESH_SECONDS), None)
            if ripe is not None:
                return ripe
            self._full.add(person)
            total -= beyond
            loose = [name for name in loose if name not in theirs]
            for session, writer in list(self._writers.items()):
                if writer.path.name in theirs:
                    self._fail(session, writer, OSError(errno.EDQUOT, _too_much(person)))
        return next((name for name in loose if name not in live), None) if total > self._keep.room else None

    def _hold(self, name: str) -> Path:
        """What stands beside a recording that is held."""
        return self._folder / f"{name}{HOLD}"

    # --- operators ----------------------------------------------------------------------------------------------------

    def command(self, asked: Asked) -> None:
        if asked.verb == "recordings":
            asked.decode(Nothing)
            asked.answer(self._list())
        elif asked.verb == "recording-read":
            said = asked.decode(Read)
            path = self._path(said.name)
            whose = (said.name, said.by)
            if said.offset and whose in self._shown:
                _show(asked, path, said.offset)
                return
            entry = RecordingUsed(wall_ns=self._setting.wall(), recording=said.name, how="read", by=said.by)

            def done(ok: bool, why: str) -> None:
                if ok:
                    self._shown[whose] = None
                    if len(self._shown) > SHOWN_MOST:
                        del self._shown[next(iter(self._shown))]
                    _show(asked, path, said.offset)
                else:
                    asked.refuse(f"not shown, since it cannot be recorded who looks: {why}")

            self._setting.audit.record(entry, done)
        elif asked.verb == "recording-hold":
            self._holds(asked)
        elif asked.verb == "quarantine":
            asked.decode(Nothing)
            asked.answer(self._quarantine.listed())
        elif asked.verb == "quarantine-remove":
            self._remove(asked)
        else:
            super().command(asked)

    def _remove(self, asked: Asked) -> None:
        """Somebody has a file of the quarantine thrown away."""
        said = asked.decode(Removing)
        size = self._quarantine.size(said.name)
        entry = FileDecided(
            wall_ns=self._setting.wall(), file=0, decision="removed", by=said.by, how="at the gate", kept=said.name,
            size=size, reason=clip(said.reason),
        )  # fmt: skip

        def done(ok: bool, why: str) -> None:
            if not ok:
                asked.refuse(f"not done, since it cannot be recorded: {why}")
            elif trouble := self._quarantine.remove(said.name):
                asked.refuse(f"not done: {trouble}")
            else:
                asked.answer(said.name)

        self._setting.audit.record(entry, done)

    def _holds(self, asked: Asked) -> None:
        """Somebody has a recording kept whatever the policy says, or lets it go."""
        said = asked.decode(Holding)
        self._path(said.name)
        mark = self._hold(said.name)
        if said.held == mark.exists():
            raise GateError(f"{said.name} is {'held already' if said.held else 'not held'}")
        entry = RecordingUsed(
            wall_ns=self._setting.wall(), recording=said.name, how="held" if said.held else "released", by=said.by,
            reason=clip(said.reason),
        )  # fmt: skip

        def done(ok: bool, why: str) -> None:
            if not ok:
                asked.refuse(f"not done, since it cannot be recorded: {why}")
                return
            try:
                if said.held:
                    mark.write_text(f"{said.by}: {said.reason}", "utf-8")
                else:
                    mark.unlink(missing_ok=True)
            except OSError as error:
                asked.refuse(f"not done: {error.strerror}")
                return
            answer: told.Holding = {"name": said.name, "held": said.held}
            asked.answer(answer)

        self._setting.audit.record(entry, done)

    def _path(self, name: str) -> Path:
        path = self._folder / name
        if not name.endswith(SUFFIX) or not path.is_file():
            raise GateError(f"there is no recording {name!r}", hint="`cofferdam jump recording list` shows them")
        return path

    def _list(self) -> list[told.Recording]:
        live = {writer.path.name: number for number, writer in self._writers.items()}
        found: list[told.Recording] = []
        for name, size in list(reversed(self._sizes().items()))[:LIST_MOST]:
            said = self._head(name)
            found.append({
                "name": name, "size": size, "live": live.get(name, 0),
                "began": said.get("timestamp", 0), "title": said.get("title", "?"), "held": self._hold(name).exists(),
            })  # fmt: skip
        return found

    def _head(self, name: str) -> dict[str, Any]:
        """What its first line says; nothing where that is none, or cannot be read: one bad sector or a file that went
        meanwhile is no reason to end everybody's session."""
        try:
            with (self._folder / name).open("rb") as file:
                return msgspec.json.decode(file.readline(HEAD_MOST), type=dict[str, Any])
        except (OSError, ValueError):
            return {}


def _fixed(folder: Path) -> str:
    """Why nothing in a folder can be removed, where that can be seen without trying it."""
    try:
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError as error:
        return error.strerror or str(error)
    return "the file system is read-only" if read_only else ""


def _too_much(person: str) -> str:
    return f"more than half of the room for recordings, without what is held, is {person}'s, all of this week"


def _show(asked: Asked, path: Path, offset: int) -> None:
    """A piece of a recording."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(PIECE_BYTES)
        size = path.stat().st_size
    except OSError as error:
        asked.refuse(f"{path.name} cannot be read: {error.strerror}")
        return
    asked.answer({"data": base64.b64encode(data).decode(), "size": size})


class _Keep(msgspec.Struct, frozen=True):
    """How long recordings are kept (seconds), and how much of them (bytes)."""

    age: int
    room: int


def _keep(policy: CompiledPolicy) -> _Keep:
    """As the conduit says that keeps most."""
    rows = [each.terms for each in policy.conduits.values() if isinstance(each.terms, JumpRows)]
    return _Keep(max((row.keep for row in rows), default=0), max((row.room for row in rows), default=0))
