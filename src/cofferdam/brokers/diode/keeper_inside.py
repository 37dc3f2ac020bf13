"""What the gate inside tells of itself, kept outside in a folder of the site's:

    status.json    its status, as it was told last, and when
    log/           a copy of its audit log, which `cofferdam audit verify` and a witness read as any log
    coming/        what has come of it, and no checkpoint that is in force covers

Each file of a log is what it is for good, so nothing that has come is ever written over: a log that was written anew
inside shows itself. A checkpoint is in force here once all is there that it covers and it goes on from the one before:
then its files go into the log, and it last of all. Until then it waits, for what a ticket brings, or for a newer one.
Who has signed it is checked where the pair file brought the log's key. What entries say is for the verifier, who has
the key in any case.

Not here: how it comes (keeper_records).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from cofferdam import disk
from cofferdam.audit.checkpoint import Checkpoint, VerifierKey, claimed_checkpoint, open_checkpoint
from cofferdam.audit.dropped import DROPPED, parse_dropped
from cofferdam.audit.files import DirFiles, Hashes
from cofferdam.audit.frames import segment_header, segment_path
from cofferdam.audit.tiles import ENTRIES, HASH_BYTES, growth, parse_path
from cofferdam.audit.tree import WIDTH, check_consistency, consistency_proof
from cofferdam.audit.verify import CHECKPOINT
from cofferdam.brokers.diode.records import GATE, LogUnit, StatusUnit
from cofferdam.brokers.diode.told import Copy, Tells
from cofferdam.crossing.strand import sync
from cofferdam.errors import AuditError, CrossingError, GateError, StoreFull
from cofferdam.policy.terms.diode_rows import LOG

STATUS_BYTES: Final = 8 << 20
"""Of a status, unpacked."""
RESERVE_BYTES: Final = 256 << 20
"""Room on the disk that a log may not take: files have theirs first."""
LEVELS_MOST: Final = 8
"""Levels of tiles: 256^8 entries."""
COMING: Final = "coming"


class LogCopy:
    """The copy, in a folder that has the two. `key`: that of the log, where it is known."""

    def __init__(self, folder: Path, key: VerifierKey | None) -> None:
        self.folder, self.key = folder / LOG, key
        self.coming = folder / COMING
        self._log, self._new = DirFiles(self.folder), DirFiles(self.coming)
        self.head: Checkpoint | None = None
        self.waits: Checkpoint | None = None
        """Of which something has not come."""
        self.wrong = ""
        """Why nothing is taken: what lies there is no copy of this log."""
        try:
            self._begin()
        except (AuditError, OSError) as error:
            self.wrong = f"{self.folder}: {error}; move {folder} away, to begin anew"

    def _begin(self) -> None:
        """Raises: AuditError, OSError."""
        for one in (self.folder, self.coming):
            one.mkdir(mode=0o750, exist_ok=True)
        if (note := self._log.read(CHECKPOINT)) is not None:
            self.head = self._open(note)
        try:
            if (note := self._new.read(CHECKPOINT)) is not None:
                self.waits = self._open(note)
            self.look()  # the process before may have ended in the middle of it
        except AuditError:
            self._drop()  # it is of no use: a later one will be

    def _drop(self) -> None:
        """The checkpoint that waits is none that this log could have."""
        (self.coming / CHECKPOINT).unlink(missing_ok=True)
        (self.coming / DROPPED).unlink(missing_ok=True)
        self.waits = None

    def read(self, path: str) -> bytes | None:
        """A file of the log, whether it is in force or not."""
        there = self._log.read(path)
        return there if there is not None else self._new.read(path)

    def tells(self) -> tuple[int, int]:
        """Entries that the checkpoint in force covers, and the one that waits; 0 for none."""
        return (self.head.size if self.head is not None else 0), (self.waits.size if self.waits is not None else 0)

    def _open(self, note: bytes) -> Checkpoint:
        return open_checkpoint(note, self.key) if self.key is not None else claimed_checkpoint(note)

    def take(self, unit: LogUnit) -> None:
        """What was told is on disk on return. Raises: AuditError: no honest gate would tell it; StoreFull; OSError."""
        if self.wrong:
            raise AuditError(self.wrong)
        size = sum(len(file.data) for file in unit.files)
        if disk.room(self.folder)[0] < RESERVE_BYTES + size:
            raise StoreFull(f"{self.folder} has too little room for what is new of the log")
        for file in unit.files:
            self._keep(file.path, file.data)
        if unit.head:
            said = self._open(unit.head)
            if self.head is not None and said.origin != self.head.origin:
                raise AuditError(f"a checkpoint of {said.origin!r} for the log {self.head.origin!r}")
            if unit.dropped:
                parse_dropped(unit.dropped, said.origin)
                put(self.coming / DROPPED, unit.dropped)
            if self.head is not None and said.size <= self.head.size:
                self._check_older(said, self.head)
                return  # it came before, or late
            if self.waits is None or said.size >= self.waits.size:
                put(self.coming / CHECKPOINT, unit.head)
                self.waits = said
        try:
            self.look()
        except AuditError:
            self._drop()
            raise

    def _check_older(self, said: Checkpoint, head: Checkpoint) -> None:
        """One that comes late is one that the log has gone on from. Raises: AuditError: of two logs one is false."""
        if said.size == head.size:
            same = said.root == head.root
        else:
            try:
                proof = consistency_proof(said.size, head.size, Hashes(self, head.size))
            except AuditError:
                return  # what it takes is not kept inside any more
            same = not said.size or check_consistency(said.size, said.root, head.size, head.root, proof)
        if not same:
            raise AuditError(
                f"a checkpoint over {said.size} entries that the one over {head.size} does not go on from: "
                "there are two logs of one key"
            )

    def look(self) -> None:
        """Puts the checkpoint that waits in force, if all is there that it covers. Raises: AuditError: it does not go
        on from the one before; OSError."""
        said, head = self.waits, self.head
        if said is None:
            return
        old = head.size if head is not None else 0
        kept = parse_dropped(self._new.read(DROPPED) or self._log.read(DROPPED), said.origin).stop
        paths = list(growth(old, said.size, kept))
        if not all((self.folder / path).exists() or (self.coming / path).exists() for path in paths):
            return
        if head is not None and old >= max(1, kept):  # of what is not kept inside, nobody can show it any more
            proof = consistency_proof(old, said.size, Hashes(self, said.size))
            if not check_consistency(old, head.root, said.size, said.root, proof):
                raise AuditError(
                    f"the checkpoint over {said.size} entries does not go on from the one over {old}: "
                    "the log inside was written anew, or is not that log"
                )
        for path in (*paths, DROPPED):
            self._move(path)
        self._end(said)
        self._move(CHECKPOINT)
        self.head, self.waits = said, None
        # Unfinished tiles whose place newer ones took go; those of later checkpoints stay.
        for path in self._new.paths():
            place = parse_path(path)
            if place is not None:
                level, index, width = place
                if (index * WIDTH + width) * WIDTH ** (0 if level == ENTRIES else int(level)) <= said.size:
                    (self.coming / path).unlink()

    def _move(self, path: str) -> None:
        """Into the log, if it has come since."""
        if (self.coming / path).exists():
            target = self.folder / path
            target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            (self.coming / path).rename(target)
            sync(target.parent)

    def _end(self, checkpoint: Checkpoint) -> None:
        """A log has a journal of what came after its checkpoint; that of a copy is empty."""
        path = self.folder / segment_path(checkpoint.size)
        path.parent.mkdir(mode=0o750, exist_ok=True)
        put(path, segment_header(checkpoint.origin, checkpoint.size, checkpoint.root))
        for other in path.parent.iterdir():
            if other != path:
                other.unlink()

    def _keep(self, name: str, data: bytes) -> None:
        """A tile, which is what it is for good. Raises: AuditError."""
        place = parse_path(name)
        if place is None or (place[0] != ENTRIES and int(place[0]) > LEVELS_MOST):
            raise AuditError(f"{name[:100]!r} is no part of a log")
        if place[0] != ENTRIES and len(data) != place[2] * HASH_BYTES:
            raise AuditError(f"{name} has {len(data)} bytes")
        there = self.read(name)
        if there == data:
            return
        if there is not None:
            raise AuditError(f"{name} is not what came before: the log inside was written anew, or what came is false")
        target = self.coming / name
        target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        put(target, data)


class Inside:
    """Both, for one keeper. `folder`: the site's, for what is told."""

    def __init__(self, folder: Path, log: bool, key: str, wall: Callable[[], int]) -> None:
        """`key`: of the log, "" where it is not known. Raises: GateError."""
        self._folder = folder
        self._copy = LogCopy(folder, _key(key)) if log else None
        self._wall = wall
        self.told_ns = self.came_ns = 0
        self._waits_ns = 0
        """When the status was told, by the clock inside, and when it came, by ours; UTC ns."""
        self.status = b""
        """As it was told last, compressed: whoever looks unpacks it (`unpacked`)."""

    def take_key(self, key: str) -> None:
        """The log's key from now on. Raises: GateError."""
        if self._copy is not None:
            self._copy.key = _key(key)

    def take(self, whole: bytes) -> None:
        """One thing that was told. Raises: CrossingError, StoreFull, OSError."""
        unit = GATE.decode(whole)
        if isinstance(unit, StatusUnit):
            self._status(unit)
            return
        if self._copy is None:
            raise CrossingError("a log, which does not ride")
        try:
            self._copy.take(unit)
        except AuditError as error:
            raise CrossingError(str(error)) from None

    def _status(self, unit: StatusUnit) -> None:
        """Raises: CrossingError, OSError."""
        status = unpacked(unit.data)
        if unit.wall_ns < self.told_ns:
            return  # it comes late
        self.told_ns, self.came_ns, self.status = unit.wall_ns, self._wall(), unit.data
        told = {"told_ns": self.told_ns, "came_ns": self.came_ns, "status": status}
        put(self._folder / "status.json", msgspec.json.encode(told))

    def waits(self) -> tuple[int, int, int]:
        """(entries that a checkpoint in force covers, entries of the one that waits, for how many ns there has been
        such a one); (0, 0, 0) where none waits."""
        copy = self._copy
        if copy is None or copy.waits is None:
            self._waits_ns = 0
            return 0, 0, 0
        self._waits_ns = self._waits_ns or self._wall()
        return *copy.tells(), self._wall() - self._waits_ns

    def tells(self) -> Tells:
        """What is known, in short."""
        copy = self._copy
        log: Copy | None = None
        if copy is not None:
            entries, waits = copy.tells()
            log = {
                "entries": entries,
                "waits": waits,
                "signed": copy.key is not None,
                "folder": str(copy.folder),
            }
        return {"folder": str(self._folder), "told_ns": self.told_ns, "came_ns": self.came_ns, "log": log}


def unpacked(data: bytes) -> dict[str, Any]:
    """A status as it was told. Raises: CrossingError."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, STATUS_BYTES)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise CrossingError("a status that is too large, or cut short")
        status: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CrossingError(f"a status that is none: {error}") from None
    return status


def _key(text: str) -> VerifierKey | None:
    """Raises: GateError."""
    try:
        return VerifierKey.parse(text) if text else None
    except AuditError as error:
        raise GateError(f"the key of the inside's log is none: {error}", hint="pair the ends anew") from None


def put(target: Path, data: bytes) -> None:
    """A file that is there whole, and on disk, or as it was before. Raises: OSError."""
    hidden = target.with_name(f".{target.name}.new")
    file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o640)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fdatasync(file)
    finally:
        os.close(file)
    hidden.rename(target)
    sync(target.parent)
