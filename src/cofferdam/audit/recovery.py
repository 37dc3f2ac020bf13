"""Opening the audit log: begin a new one, or find out what the last writer left, and go on from there.

A log that was changed is not opened: the error names file and entry. What a crash leaves is put right: entries of the
journal that no checkpoint covered are taken in, an append that was not finished (so nobody was told that it was
durable) is cut off, and the log says both.

Not here: appending (log), the verification itself (verify).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cofferdam.audit.checkpoint import Checkpoint, SignerKey, open_checkpoint, sign_checkpoint
from cofferdam.audit.dropped import DROPPED, parse_dropped
from cofferdam.audit.entry import Draft, EntryHead, format_time, parse_time
from cofferdam.audit.events.log import ClockJump, LogOpened, TornTail
from cofferdam.audit.files import DirFiles, LogReader
from cofferdam.audit.frames import FOLDER, Segment, read_segment, segment_header, segment_path
from cofferdam.audit.keys import load_key, make_key, store_key, sync_folder, write_file
from cofferdam.audit.log import JUMP_NS, MAKER, SECOND, AuditLog
from cofferdam.audit.tiles import ENTRIES, edge, split_entries, tile_path
from cofferdam.audit.tree import EMPTY_ROOT, WIDTH, Tree
from cofferdam.audit.upkeep import finish
from cofferdam.audit.verify import CHECKPOINT, Verification, verify_log
from cofferdam.errors import AuditError, LogUnwritable

DEEP = 65536
"""Entries at the end of the log that are checked when it is opened, if they are not too large (`files.TAIL_BYTES`). Of
those before, only the hashes are; a full check is `cofferdam audit verify`."""


def origin(site: str) -> str:
    """The name of a site's log, which its key carries and its checkpoints begin with."""
    return f"cofferdam/{site}"


def open_log(
    folder: Path,
    key_path: Path,
    *,
    site: str,
    wall_ns: Callable[[], int] = time.time_ns,
    mono_ns: Callable[[], int] = time.monotonic_ns,
    interval_ns: int = SECOND,
    retry_ns: int = SECOND // 5,
    background: bool = True,
    deep: int = DEEP,
    anchor: Checkpoint | None = None,
) -> AuditLog:
    """Open the log in `folder` for writing, or begin one if there is neither a log nor a key.

    `interval_ns` is the longest time an entry waits for a checkpoint, `retry_ns` the shortest between two attempts to
    mend a fault. With `background` checkpoints are synced in a thread. `anchor`: a checkpoint that the caller has seen
    of this log; it must still begin with that.

    Raises: AuditError if another process has it open, if the key is missing, damaged or readable by others, or if the
    log is damaged or was put back to an earlier state; LogUnwritable if the disk does not take the first entries.
    """
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AuditError(f"the audit log's folder {folder} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuditError(
                f"another process is writing the audit log in {folder}",
                hint="a gate runs already; cofferdam status shows it",
            ) from None
        key = load_key(key_path)
        if key is None and anchor is not None and not (folder / CHECKPOINT).exists():
            raise AuditError(f"the audit log of {site} was removed, with its key {key_path}", hint=_PUT_BACK)
        key = key or _begin(folder, key_path, site)
        files = DirFiles(folder)
        report = verify_log(files, key.verifier, start=_start(files, key, deep))
        _refuse_damage(folder, report)
        if anchor is not None:
            _refuse_earlier(folder, verify_log(files, key.verifier, start=report.size, earlier=anchor))
        return _open(
            AuditLogArguments(
                folder, key, site, lock, wall_ns, mono_ns, interval_ns, retry_ns, background,
                anchor.size if anchor is not None else 0,
            ),
            report,
        )  # fmt: skip
    except OSError as error:
        os.close(lock)
        raise AuditError(f"the audit log in {folder} cannot be opened: {error}") from error
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(lock)
        raise


class AuditLogArguments(msgspec.Struct, frozen=True):
    """What `open_log` was given."""

    folder: Path
    key: SignerKey
    site: str
    lock: int
    wall_ns: Callable[[], int]
    mono_ns: Callable[[], int]
    interval_ns: int
    retry_ns: int
    background: bool
    anchor: int = 0


def _begin(folder: Path, key_path: Path, site: str) -> SignerKey:
    """A new log and, as the last step, its key. What a first start left that was cut short is begun again."""
    files = DirFiles(folder)
    left = files.paths()
    virgin = {CHECKPOINT, segment_path(0), CHECKPOINT + ".new", segment_path(0) + ".new"}
    segment = (files.read(segment_path(0)) or b"").rstrip(b"\x00")
    if set(left) - virgin or b"\n\nCofF" in segment:
        raise AuditError(
            f"there is an audit log in {folder}, but its key {key_path} is missing",
            hint="restore the key from a backup, or move the log's folder away to begin a new log",
        )
    key = make_key(origin(site))
    try:
        (folder / FOLDER).mkdir(exist_ok=True)
        write_file(folder / segment_path(0), segment_header(key.name, 0, EMPTY_ROOT), 0o640)
        write_file(folder / CHECKPOINT, sign_checkpoint(Checkpoint(key.name, 0, EMPTY_ROOT), key))
        sync_folder(folder)
    except OSError as error:
        raise AuditError(f"a new audit log cannot be begun in {folder}: {error.strerror}") from error
    store_key(key_path, key)
    return key


def _start(files: DirFiles, key: SignerKey, deep: int) -> int:
    """From which entry on all is checked."""
    size = _size(files, key)
    try:
        return LogReader(files.folder, key.verifier).tail(deep)
    except AuditError:  # what is wrong there is to be named
        return max(0, size - deep)


def _size(files: DirFiles, key: SignerKey) -> int:
    data = files.read(CHECKPOINT)
    if data is None:
        raise AuditError(
            f"{files.folder}/{CHECKPOINT} is missing, but the log's key exists: the log was removed or is damaged",
            hint="restore the log from a backup; to begin a new one, move its folder, its key and anchor.json away",
        )
    try:
        return open_checkpoint(data, key.verifier).size
    except AuditError as error:
        raise AuditError(f"the audit log is damaged: {files.folder}/{CHECKPOINT}: {error}", hint=_HINT) from error


_HINT = (
    "cofferdam audit verify lists all that is wrong; restore the log, or move it, its key and anchor.json away and "
    "begin a new one"
)


def _refuse_damage(folder: Path, report: Verification) -> None:
    damage = [finding for finding in report.findings if not finding.unfinished]
    if damage:
        more = len(damage) + report.more - 1
        also = f" (and {more} more)" if more else ""
        raise AuditError(f"the audit log is damaged: {folder}/{damage[0]}{also}", hint=_HINT)


_PUT_BACK = (
    "put the right folder back. If this one is meant to be used, as after a loss of the disk: move anchor.json of the "
    "state directory away and start again; the log will show that the gate knew of no earlier one"
)


def _refuse_earlier(folder: Path, report: Verification) -> None:
    """The folder is whole, but it is not what it once was."""
    for finding in report.findings:
        if not finding.unfinished:
            raise AuditError(f"the audit log in {folder} was put back to an earlier state: {finding}", hint=_PUT_BACK)


def _open(given: AuditLogArguments, report: Verification) -> AuditLog:
    folder, key = given.folder, given.key
    files = DirFiles(folder)
    reader = LogReader(folder, key.verifier)
    size = report.size
    hashes = reader.hashes(size)
    levels: list[list[bytes]] = []
    for level, index, width in edge(size):
        while len(levels) < level:
            levels.append([])
        levels.append(list(hashes(level, index * WIDTH, width)))
    tree = Tree(levels, size)
    width = size % WIDTH
    bundle: list[bytes] = []
    if width:
        data = files.read(tile_path(ENTRIES, size // WIDTH, width)) or files.read(tile_path(ENTRIES, size // WIDTH))
        bundle = split_entries(data or b"")[0][:width]
    segments = _segments(files, key)
    fresh = _fresh(segments, size)
    last = fresh[-1] if fresh else bundle[-1] if bundle else _last_of_full(files, size)
    last_ns = parse_time(msgspec.json.decode(last, type=EntryHead).time) if last else 0
    for finding in report.findings:  # tiles that a crash left half written; they are made anew from the journal
        if not finding.file.startswith(FOLDER):
            (folder / finding.file).unlink(missing_ok=True)
    _sweep(folder, files)
    finish(folder, parse_dropped(files.read(DROPPED), key.name))
    log = AuditLog(
        folder,
        key,
        site=given.site,
        lock=given.lock,
        tree=tree,
        bundle=bundle,
        last_ns=last_ns,
        wall_ns=given.wall_ns,
        mono_ns=given.mono_ns,
        interval_ns=given.interval_ns,
        retry_ns=given.retry_ns,
        background=given.background,
    )
    try:
        _greet(log, given, segments, fresh, last_ns)
    except BaseException:
        log.abandon()
        raise
    return log


def _greet(log: AuditLog, given: AuditLogArguments, segments: list[Segment], fresh: list[bytes], last_ns: int) -> None:
    """Take in what only the journal had, say what was found, and publish it."""
    size = log.size
    log.resume([segment.path for segment in segments], fresh)
    wall = given.wall_ns()
    drafts: list[Draft] = [
        LogOpened(wall_ns=wall, key=given.key.verifier.text, size=size + len(fresh), anchor=given.anchor)
    ]
    cut = sum(segment.cut_bytes for segment in segments)
    if fresh or cut:
        drafts.append(TornTail(wall_ns=wall, entries=len(fresh), cut_bytes=cut))
    if wall < last_ns - JUMP_NS:
        drafts.append(ClockJump(wall_ns=wall, jump_ns=str(wall - last_ns), clock=format_time(wall).decode()))
    log.append(drafts, maker=MAKER)
    try:
        log.publish()
    except LogUnwritable:
        if not log.stuck:  # on a full disk, the log goes on in its reserve
            raise


def _segments(files: DirFiles, key: SignerKey) -> list[Segment]:
    found = []
    for path in sorted(files.paths()):
        if path.startswith(FOLDER + "/") and not path.endswith(".new"):
            data = files.read(path)
            if data is not None:
                found.append(read_segment(path, data, key.verifier))
    return found


def _fresh(segments: list[Segment], size: int) -> list[bytes]:
    """The journal's entries from `size` on; verified before, so they are without gaps."""
    fresh: list[bytes] = []
    for segment in segments:
        for frame in segment.frames:
            fresh += frame.entries[max(0, size + len(fresh) - frame.first) :]
    return fresh


def _last_of_full(files: DirFiles, size: int) -> bytes:
    if not size:
        return b""
    entries, _ = split_entries(files.read(tile_path(ENTRIES, (size - 1) // WIDTH)) or b"")
    return entries[-1] if entries else b""


def _sweep(folder: Path, files: DirFiles) -> None:
    """Remove files that were about to be put in place, and partial tiles whose full tile is there."""
    paths = files.paths()
    for path in paths:
        if path.endswith(".new"):
            (folder / path).unlink(missing_ok=True)
    for parent in {str(Path(path).parent) for path in paths if "/" in path}:
        if parent.endswith(".p") and (folder / parent.removesuffix(".p")).is_file():
            shutil.rmtree(folder / parent, ignore_errors=True)
