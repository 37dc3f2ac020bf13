"""A log's folder on disk, for those who only read it: the verifier, `audit show`, proofs.

Reading needs no lock and no private key, and works while the gate runs. What has been sealed reads as it did before
(sealed); what was moved away can be given as an archive.

Not here: writing (log).
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from cofferdam.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from cofferdam.audit.dropped import DROPPED, parse_dropped
from cofferdam.audit.frames import FOLDER, read_segment
from cofferdam.audit.sealed import FOLDER as SEALED
from cofferdam.audit.sealed import Sealed, bundle_bytes, parse_sealed
from cofferdam.audit.tiles import ENTRIES, HASH_BYTES, join_hashes, parse_path, split_entries, split_hashes, tile_path
from cofferdam.audit.tree import WIDTH, leaf_hash
from cofferdam.audit.verify import CHECKPOINT
from cofferdam.errors import AuditError

SURE_NS = 100_000_000
"""After so long a file's time tells it from one that was written later; the kernel counts by some milliseconds."""

TAIL_BYTES = 128 << 20
"""What a start reads of the log's last entries: an owned half can make them so large that it would take minutes, while
all writes wait."""


class DirFiles:
    """The files below a folder. Symbolic links are not followed. Bundles and leaf hashes that were sealed are read from
    there. `archive`: where sealed files lie that were moved away."""

    def __init__(self, folder: Path, archive: Path | None = None) -> None:
        self.folder, self.archive = folder, archive
        self._prefix = f"{folder}/"
        self._sealed: Sealed | None = None  # the last one read

    def read(self, path: str) -> bytes | None:
        """The file's bytes, or None if there is no such file. Raises: AuditError if it cannot be read."""
        data = self._read(self._prefix + path)
        if data is None and self.archive is not None and path.startswith(SEALED + "/"):
            data = self._read(f"{self.archive}/{path}")
        return data if data is not None else self._unsealed(path)

    def _unsealed(self, path: str) -> bytes | None:
        """A whole bundle, or its leaf hashes, from the sealed file that holds it. Raises: AuditError."""
        place = parse_path(path)
        if place is None or place[0] not in (ENTRIES, 0) or place[2] != WIDTH:
            return None
        level, index, _ = place
        sealed = self._sealed
        if sealed is None or not sealed.covers(index):
            found = next((p for p in self._sealed_paths() if _holds(p, index)), None)
            data = None if found is None else self.read(found)
            if found is None or data is None:
                return None
            sealed = self._sealed = Sealed(found, data)
        if level == ENTRIES:
            return bundle_bytes(sealed, index)
        return join_hashes([leaf_hash(entry) for entry in sealed.bundle(index)])

    def _sealed_paths(self) -> list[str]:
        found: set[str] = set()
        for root in (self.folder, self.archive):
            try:
                found |= {f"{SEALED}/{path.name}" for path in (root / SEALED).iterdir()} if root is not None else set()
            except OSError:
                continue
        return sorted(found)

    def _read(self, path: str) -> bytes | None:
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe is not waited for
            descriptor = os.open(path, flags)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise AuditError(f"{path} cannot be read: {error.strerror}") from error
        try:
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise AuditError(f"{path} is no plain file")
                return file.read()
        except OSError as error:
            raise AuditError(f"{path} cannot be read: {error.strerror}") from error

    def paths(self) -> list[str]:
        """Every file below the folder, and every symbolic link, also to a folder."""
        found = []
        for root, folders, names in os.walk(self.folder):
            base = "" if root == str(self.folder) else os.path.relpath(root, self.folder) + "/"
            found += [base + name for name in names]
            found += [base + name for name in folders if Path(root, name).is_symlink()]
        if self.archive is not None:
            found = list({*found, *(path for path in self._sealed_paths() if parse_sealed(path))})
        return found


def _holds(path: str, bundle: int) -> bool:
    """Whether the sealed file of this path holds the bundle."""
    place = parse_sealed(path)
    return place is not None and place[0] <= bundle * WIDTH < place[1]


def in_use(folder: Path) -> bool:
    """Does a process have the log open for writing?"""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class LogReader:
    """Entries, hashes and the checkpoint of a log, as of when each is asked for."""

    def __init__(self, folder: Path, key: VerifierKey, archive: Path | None = None) -> None:
        if not (folder / CHECKPOINT).exists():
            raise AuditError(
                f"there is no audit log in {folder}", hint="name its folder with --log, or the gate's with --state"
            )
        self.folder, self.key = folder, key
        self.files = DirFiles(folder, archive)

    def first(self) -> int:
        """The index of the first entry that is still here, by the log's own word. Raises: AuditError."""
        found = parse_dropped(self.files.read(DROPPED), self.key.name)
        if found.stop and self.files.archive is not None:
            held = [parse_sealed(path) for path in self.files._sealed_paths()]
            return min((place[0] for place in held if place is not None), default=found.stop)
        return found.stop

    def checkpoint(self) -> Checkpoint:
        """What the log has signed last. Raises: AuditError."""
        return open_checkpoint(self.checkpoint_note(), self.key)

    def checkpoint_note(self) -> bytes:
        """The signed checkpoint as it is stored. Raises: AuditError."""
        data = self.files.read(CHECKPOINT)
        if data is None:
            raise AuditError(f"{self.folder}/{CHECKPOINT} is missing")
        return data

    def _bundle(self, index: int, width: int) -> list[bytes]:
        data = self.files.read(tile_path(ENTRIES, index, width))
        if data is None and width < WIDTH:
            data = self.files.read(tile_path(ENTRIES, index))
        if data is None:
            first = self.first()
            if (index + 1) * WIDTH <= first:
                raise AuditError(
                    f"entries below {first} are no longer kept here: entry {index * WIDTH} is one of them",
                    hint="if they were moved away, name that folder with --archive",
                )
            raise AuditError(f"{self.folder}/{tile_path(ENTRIES, index, width)} is missing")
        return split_entries(data)[0][:width]

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """(index, bytes) of each durable entry from `start` on, or from the first that is still kept: those under the
        checkpoint, then the journal's."""
        at, looks = max(start, self.first()), 0
        while looks < 100:
            before, size = at, self.checkpoint().size
            while at < size:
                index, offset = divmod(at, WIDTH)
                for entry in self._bundle(index, min(WIDTH, size - index * WIDTH))[offset:]:
                    yield at, entry
                    at += 1
            for index, entry in self.journal():
                if index > at:
                    break  # published and removed from the journal while we looked: it is in the tiles now
                if index == at:
                    yield index, entry
                    at += 1
            else:
                if self.checkpoint().size <= at:
                    return  # else it was published before we looked into the journal, which has it no longer
            looks = 0 if at > before else looks + 1  # whoever reads slowly finds more each time
        raise AuditError(f"{self.folder}/{FOLDER}: entry {at} is missing", hint="cofferdam audit verify says more")

    def tail(self, most: int) -> int:
        """Where the last `most` entries begin; of those under the checkpoint no more than take TAIL_BYTES. Raises:
        AuditError."""
        size = at = self.checkpoint().size
        first, room = max(self.first(), self.size() - most), TAIL_BYTES
        while at > first:
            index = (at - 1) // WIDTH
            room -= sum(map(len, self._bundle(index, min(WIDTH, size - index * WIDTH))))
            if room < 0:
                break
            at = index * WIDTH
        return max(at, first)

    def some(self, indexes: Iterable[int], size: int) -> Iterator[tuple[int, bytes]]:
        """Entries by index, in order; all of them below `size`, which a checkpoint covers. Raises: AuditError."""
        bundle: list[bytes] = []
        at = -1
        for index in sorted(set(indexes)):
            if not 0 <= index < size:
                raise AuditError(f"entry {index} is not under the checkpoint of {size} entries")
            if index // WIDTH != at:
                at = index // WIDTH
                bundle = self._bundle(at, min(WIDTH, size - at * WIDTH))
            yield index, bundle[index % WIDTH]

    def mark(self) -> tuple[tuple[str, int], ...]:
        """What the files look like that each new entry changes: as long as it is the same, there is none. () where that
        cannot be told: a file was written so lately that its time may not show the next time that it is."""
        found = []
        try:
            for path in (self.folder / CHECKPOINT, *sorted((self.folder / FOLDER).iterdir())):
                found.append((path.name, path.lstat().st_mtime_ns))
        except OSError:
            return ()  # whoever reads says what is wrong
        return () if max(at for _, at in found) > time.time_ns() - SURE_NS else tuple(found)

    def size(self) -> int:
        """Durable entries, including those that no checkpoint covers yet."""
        while True:
            size = max([self.checkpoint().size, *(index + 1 for index, _ in self.journal())])
            if self.checkpoint().size <= size:
                return size  # as in `entries`

    def journal(self) -> Iterator[tuple[int, bytes]]:
        """(index, bytes) of the entries that stand in the journal."""
        try:
            names = sorted(path.name for path in (self.folder / FOLDER).iterdir())
        except OSError as error:
            raise AuditError(f"{self.folder / FOLDER} cannot be read: {error.strerror}") from error
        for name in names:
            path = f"{FOLDER}/{name}"
            data = self.files.read(path) if name.isdigit() else None
            if data is None:
                continue
            for frame in read_segment(path, data, self.key).frames:
                yield from enumerate(frame.entries, frame.first)

    def hashes(self, size: int) -> Hashes:
        """A reader of tile hashes for proofs in the tree of `size` entries."""
        return Hashes(self.files, size)


class Readable(Protocol):
    """A log's folder, or what stands for one."""

    folder: Path

    def read(self, path: str) -> bytes | None:
        """The file's bytes, or None if there is no such file. Raises: AuditError."""


class Hashes:
    """Reads hashes of tiles, keeping the last few tiles."""

    def __init__(self, files: Readable, size: int) -> None:
        self.files, self.size = files, size
        self.kept: dict[tuple[int, int], list[bytes]] = {}

    def __call__(self, level: int, first: int, count: int) -> Sequence[bytes]:
        tile, offset = divmod(first, WIDTH)
        hashes = self.kept.get((level, tile))
        if hashes is None:
            width = min(WIDTH, self.size // WIDTH**level - tile * WIDTH)
            path = tile_path(level, tile, width)
            data = self.files.read(path)
            if data is None and width < WIDTH:
                data = self.files.read(tile_path(level, tile))
            if data is None or len(data) < width * HASH_BYTES:
                raise AuditError(f"{self.files.folder}/{path} is missing or cut short")
            hashes = self.kept[level, tile] = split_hashes(data[: width * HASH_BYTES])
        return hashes[offset : offset + count]
