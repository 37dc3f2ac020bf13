"""`cofferdam diode report` and `gather`: the inside's status and its audit log ride as files of a channel, so that
`cofferdam audit verify` works outside.

The log is copied as it grows: what a signed checkpoint covers and the last report did not. Outside nothing that has
come is ever written over: a log that was rewritten inside shows itself there.

Not here: folders, numbers and tickets (brokers.diode), what a log has to be (audit.verify).
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cofferdam import owned
from cofferdam.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from cofferdam.audit.dropped import DROPPED
from cofferdam.audit.files import DirFiles, LogReader
from cofferdam.audit.frames import segment_header, segment_path
from cofferdam.audit.keys import find_public
from cofferdam.audit.show import verify_folder
from cofferdam.audit.tiles import ENTRIES, parse_path, tile_path
from cofferdam.audit.tree import WIDTH
from cofferdam.audit.verify import CHECKPOINT
from cofferdam.errors import AuditError

NOTED: Final = "diode-reported.json"
"""In the state folder: how far the log has been reported, by channel."""
MEMBER_BYTES: Final = 32 << 20
"""The largest file of a log: 256 entries of 64 kB."""
MEMBERS_MOST: Final = 200_000
"""Files in one report."""
TRIES: Final = 5
_NAME: Final = re.compile(r"audit-([0-9]{12})-([0-9]{12})(?:\.[0-9]{1,6})?\.tar\Z")


def new_files(old: int, new: int, kept: int = 0) -> Iterator[str]:
    """What a log of `new` entries has, by paths, and one of `old` entries has not: tiles of every level, and entries;
    and the unfinished ones at its edge. Entries below `kept`, and their leaf hashes, are there no more."""
    levels: list[tuple[int | str, int, int]] = [(ENTRIES, old, new)]
    level, low, high = 0, old, new
    while high:
        levels.append((level, low, high))
        level, low, high = level + 1, low // WIDTH, high // WIDTH
    for name, low, high in levels:
        gone = kept // WIDTH if name in (ENTRIES, 0) else 0
        for index in range(max(low // WIDTH, gone), high // WIDTH):
            yield tile_path(name, index)
        if high % WIDTH:
            yield tile_path(name, high // WIDTH, high % WIDTH)


# --- inside -----------------------------------------------------------------------------------------------------------


def report(state: Path, folder: Path, status: dict[str, Any], channel: str) -> list[str]:
    """Puts the status, and what is new of the log, into a channel's folder; what was put there. Raises: OSError,
    AuditError."""
    now = datetime.now(UTC)
    text = json.dumps({"told": f"{now:%Y-%m-%dT%H:%M:%SZ}", "status": status}).encode()
    found = [_put(folder, f"status-{now:%Y%m%dT%H%M%SZ}.json", text)]
    try:
        done: dict[str, int] = json.loads(owned.read_below(state, [NOTED]))
    except FileNotFoundError:
        done = {}
    old = done.get(channel, 0)
    size, packed = _pack(state, old)
    if packed:
        found.append(_put(folder, f"audit-{old:012d}-{size:012d}.tar", packed))
        owned.write(state, [NOTED], json.dumps({**done, channel: size}).encode(), os.geteuid())
    return found


def _pack(state: Path, old: int) -> tuple[int, bytes]:
    """What is new of the log since it had `old` entries, behind its checkpoint; b"" for nothing."""
    reader = LogReader(state / "audit", find_public(None, state / "keys" / "audit.pub"))
    for _ in range(TRIES):
        note = reader.checkpoint_note()
        size = open_checkpoint(note, reader.key).size
        if size <= old:
            return size, b""
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            if all([_add(tar, path, reader.files.read(path)) for path in new_files(old, size, reader.first())]):
                _add(tar, DROPPED, reader.files.read(DROPPED))
                _add(tar, CHECKPOINT, note)
                break
    else:
        raise AuditError("the log grows faster than it can be copied", hint="try again when less is written")
    return size, held.getvalue()


def _add(tar: tarfile.TarFile, path: str, data: bytes | None) -> bool:
    """An unfinished tile goes when the next checkpoint is signed: then all is looked at again."""
    if data is None:
        return False
    member = tarfile.TarInfo(path)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return True


def _put(folder: Path, name: str, data: bytes) -> str:
    """A file appears whole, and the spool may read it. No link of the spool's is written through."""
    part = folder / f".{name}"
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        os.fchmod(fd, 0o644)
    part.rename(folder / name)
    return name


# --- outside ----------------------------------------------------------------------------------------------------------


def gather(folder: Path, log: Path, key: VerifierKey) -> int:
    """Takes the reports in a folder into a copy of the log, in their order, and verifies it; how many were taken.

    Raises:
        AuditError: one is missing, is none, or contradicts what came before; the copy does not hold.
    """
    log.mkdir(parents=True, exist_ok=True)
    first = have = _have(log, key)
    count = 0
    named = sorted((int(match[2]), int(match[1]), match.string) for path in folder.iterdir()
                   if (match := _NAME.match(path.name)))  # fmt: skip
    try:
        for size, old, name in named:
            before = have.size if have is not None else 0
            if size <= before:
                continue  # it came already, or twice
            if old > before:
                raise AuditError(
                    f"the log was told of up to entry {before}, and {name} begins at {old}",
                    hint="what lies between has not come: `cofferdam diode status`, `cofferdam diode ticket`",
                )
            note = _unpack(folder / name, log)
            said = open_checkpoint(note, key)
            if said.size != size:
                raise AuditError(f"{name} has a checkpoint over {said.size} entries")
            _replace(log / CHECKPOINT, note)
            have = said
            count += 1
    finally:
        if have is not None:
            _end(log, have)
    if have is None:
        raise AuditError(f"no report of a log is in {folder}", hint="inside: cofferdam diode report")
    # Each time, also where nothing came: what an earlier run took and found to be wrong must not pass for good now.
    found = verify_folder(log, key, first, None).findings
    if found:
        raise AuditError(f"the copy in {log} does not hold: {found[0]}")
    return count


def _end(log: Path, checkpoint: Checkpoint) -> None:
    """A log has a journal of what came after its checkpoint; that of a copy is empty."""
    path = log / segment_path(checkpoint.size)
    path.parent.mkdir(exist_ok=True)
    _replace(path, segment_header(checkpoint.origin, checkpoint.size, checkpoint.root))
    for other in path.parent.iterdir():
        if other != path:
            other.unlink()


def _have(log: Path, key: VerifierKey) -> Checkpoint | None:
    note = DirFiles(log).read(CHECKPOINT)
    return open_checkpoint(note, key) if note is not None else None


def _unpack(path: Path, log: Path) -> bytes:
    """Writes the tiles of a report that are not there yet; its checkpoint. Raises: AuditError."""
    note, count = b"", 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                count += 1
                known = member.name in (CHECKPOINT, DROPPED) or parse_path(member.name) is not None
                source = tar.extractfile(member) if known and member.isreg() else None
                if source is None or member.size > MEMBER_BYTES or count > MEMBERS_MOST:
                    raise AuditError(f"{path.name} holds what is no part of a log: {member.name[:100]!r}")
                data = source.read()
                if member.name == CHECKPOINT:
                    note = data
                elif member.name == DROPPED:
                    _replace(log / DROPPED, data)
                else:
                    _keep(log, member.name, data)
    except tarfile.TarError as error:
        raise AuditError(f"{path.name} is no report: {error}") from None
    return note


def _keep(log: Path, name: str, data: bytes) -> None:
    """Each file of a log is what it is for good: its name says how many entries it has."""
    there = DirFiles(log).read(name)
    if there == data:
        return
    if there is not None:
        raise AuditError(f"{name} is not what came before: the log inside was written anew, or a report is false")
    target = log / name
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(target, data)


def _replace(target: Path, data: bytes) -> None:
    part = target.with_name(f".{target.name}.new")
    part.write_bytes(data)
    part.rename(target)
