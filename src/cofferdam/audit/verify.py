"""Is a log what its checkpoint says, to the last byte? Finds what is wrong and names file and entry.

The order of belief is: the signed checkpoint; the hashes that lead up to it; the entries. An entry that does not fit
its leaf hash is to blame if that hash fits the level above, else the tile is. Entries that were sealed have no leaf
hashes beside them; a bundle of those is held against the level above. Entries may be missing below the one of which an
entry of the log says so, with the root that the tree then had (dropped).

What no look at the files alone can find: a log cut back to an earlier state of its own, whole (an old backup put in
place). For that, keep checkpoints elsewhere and give one as `earlier`.

Not here: reading files (files), telling people (cli.audit).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from cofferdam.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from cofferdam.audit.dropped import DROPPED, NOTHING, Dropped, parse_dropped, root_said
from cofferdam.audit.entry import EntryHead
from cofferdam.audit.frames import FOLDER, Segment, read_segment
from cofferdam.audit.sealed import Sealed, parse_sealed
from cofferdam.audit.tiles import ENTRIES, HASH_BYTES, edge, parse_path, split_entries, split_hashes, tile_path
from cofferdam.audit.tree import EMPTY_ROOT, WIDTH, edge_root, leaf_hash, perfect_root
from cofferdam.errors import AuditError

CHECKPOINT = "checkpoint"
RESERVE = "reserve"
"""A file without content: room that is kept for a full disk (log)."""
MAX_FINDINGS = 100
"""Findings kept; what comes after is only counted."""

_heads = msgspec.json.Decoder(EntryHead)


class Files(Protocol):
    """A log's folder, or a copy of it from anywhere."""

    def read(self, path: str) -> bytes | None:
        """The file's bytes, or None if there is no such file."""

    def paths(self) -> Iterable[str]:
        """Every file below the folder, as relative paths with "/"."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong. `entry` is the index of the entry it begins at, or -1; `unfinished` marks what a crash
    leaves behind and opening the log repairs."""

    file: str
    entry: int
    problem: str
    unfinished: bool = False

    def __str__(self) -> str:
        return f"{self.file}: " + (f"entry {self.entry}: " if self.entry >= 0 else "") + self.problem


class Verification(msgspec.Struct):
    """What was found. `size` is what the checkpoint covers, `total` what the journal adds to it; `checked` entries were
    hashed and compared. `gone` were dropped, or moved to where they were not looked for, as the log itself says."""

    origin: str = ""
    size: int = 0
    total: int = 0
    checked: int = 0
    gone: int = 0
    root: bytes = b""
    findings: list[Finding] = []
    more: int = 0

    @property
    def good(self) -> bool:
        """Nothing is wrong."""
        return not self.findings

    def add(self, file: str, entry: int, problem: str, *, unfinished: bool = False) -> None:
        """Note a finding."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(file, entry, problem, unfinished))
        else:
            self.more += 1


def verify_log(
    files: Files,
    key: VerifierKey,
    *,
    start: int = 0,
    earlier: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Check the whole log, entries from `start` on (hash tiles always all). `earlier` is a checkpoint kept elsewhere
    that the log must still begin with. `progress(done, total)` is called every 16,384 entries."""
    return _Check(files, key, start, earlier, progress).run()


class _Check:
    def __init__(
        self,
        files: Files,
        key: VerifierKey,
        start: int,
        earlier: Checkpoint | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.files, self.key, self.earlier, self.progress = files, key, earlier, progress
        self.start = start // WIDTH * WIDTH
        self.report = Verification()
        self.time = ""
        self.known: set[str] = set()
        self.paths: set[str] = set()
        self.dropped: Dropped = NOTHING
        self.archives: list[tuple[int, int, str]] = []  # what is sealed: first, stop, path
        self.open: Sealed | None = None  # the last of them that was read
        self.broken: set[str] = set()  # those that cannot be read at all, and what was said of others
        self.extra: list[bytes] = []  # entries that only the journal has
        # What is believed of the tree under the checkpoint, whatever the files say:
        self.rows: dict[int, dict[int, bytes]] = {}  # tile level above 0 -> index of a hash -> the hash
        self.last: list[bytes] = []  # leaf hashes of the bundle that is not full
        self.mended: dict[int, list[bytes]] = {}  # full bundle whose level 0 tile is wrong -> its leaf hashes
        self.cached: tuple[int, list[bytes]] = (-1, [])

    def run(self) -> Verification:
        report = self.report
        paths = self.paths = set(self.files.paths())
        # The log may grow meanwhile. A segment goes once a checkpoint covers it, so the journal is read first: what has
        # gone from it by then stands under the checkpoint that is read after it.
        journal = [
            (path, data)
            for path in sorted(path for path in paths if path.startswith(FOLDER + "/") and not path.endswith(".new"))
            if (data := self.files.read(path)) is not None
        ]
        data = self.files.read(CHECKPOINT)
        if data is None:
            report.add(CHECKPOINT, -1, "is missing: nothing says how many entries there must be")
            return report
        try:
            checkpoint = open_checkpoint(data, self.key)
        except AuditError as error:
            report.add(CHECKPOINT, -1, str(error))
            return report
        report.origin, report.size, report.root = checkpoint.origin, checkpoint.size, checkpoint.root
        report.total = checkpoint.size
        self.archives = sorted((*spot, path) for path in paths if (spot := parse_sealed(path)) is not None)
        self.known |= {path for _, stop, path in self.archives if stop <= self.start and stop <= report.size}
        self._tiles(checkpoint)
        self.known |= {path for path in paths if path.startswith(FOLDER + "/") and not path.endswith(".new")}
        self._journal(journal)
        self._beyond(paths)
        for path in sorted(paths - self.known - {CHECKPOINT, DROPPED, RESERVE}):
            place = path.removesuffix(".new")  # a file that was about to be put in place
            named = place in (CHECKPOINT, DROPPED, RESERVE) or parse_path(place) or parse_sealed(place)
            if place == path or not (named or _is_segment(place)):
                report.add(path, -1, "does not belong to the log")
        self._compare_earlier()
        if self.progress:
            self.progress(report.total, report.total)
        return report

    # --- tiles under the checkpoint

    def _read_tile(self, level: int | str, index: int, width: int) -> tuple[str, bytes | None]:
        """The tile's path and bytes: the partial file of this width, or the full one that has replaced it."""
        path = tile_path(level, index, width)
        self.known.add(path)
        data = self.files.read(path)
        if data is None and width < WIDTH:
            full = tile_path(level, index)
            data = self.files.read(full)
            if data is not None:
                path = full
                if level != ENTRIES:
                    data = data[: width * HASH_BYTES]
        if data is None:
            first = index * WIDTH ** (1 if level == ENTRIES else int(level) + 1)
            self.report.add(path, first, "is missing")
        return path, data

    def _hashes(self, level: int, index: int, width: int) -> tuple[str, list[bytes] | None]:
        path, data = self._read_tile(level, index, width)
        if data is not None and len(data) != width * HASH_BYTES:
            first = (index * WIDTH + min(len(data) // HASH_BYTES, width)) * WIDTH**level
            self.report.add(path, first, f"has {len(data)} bytes instead of {width * HASH_BYTES}: cut short or padded")
            return path, None
        return path, None if data is None else split_hashes(data)

    def _tiles(self, checkpoint: Checkpoint) -> None:
        """Check all tiles under the checkpoint, upper levels first, so that each hash is believed or not when used."""
        size = checkpoint.size
        if not size:
            if checkpoint.root != EMPTY_ROOT:
                self.report.add(CHECKPOINT, -1, "an empty log has another root hash")
            return
        levels = 1
        while size >= WIDTH**levels:
            levels += 1
        edges = {level: (index, width) for level, index, width in edge(size)}
        stored: list[tuple[str, list[bytes] | None]] = []
        for level in range(levels):
            index, width = edges.get(level, (0, 0))
            stored.append(self._hashes(level, index, width) if width else ("", []))
        whole = [hashes for _, hashes in stored if hashes is not None]
        trusted = len(whole) == levels and edge_root(whole) == checkpoint.root
        above: dict[int, bytes] = {}  # index of a tile one level down -> the hash it must have
        if trusted:
            believed = {level: stored[level][1] or [] for level in range(levels)}
        else:
            believed = self._from_below(size, levels, stored, checkpoint)
        for level in reversed(range(levels)):
            index, _ = edges.get(level, (size // WIDTH ** (level + 1), 0))
            below: dict[int, bytes] = {}
            if level:
                for full in range(index):
                    for offset, digest in enumerate(self._full(level, full, above.get(full))):
                        below[full * WIDTH + offset] = digest
                for offset, digest in enumerate(believed.get(level, [])):
                    below[index * WIDTH + offset] = digest
                above = self.rows[level] = below
        self.last = believed.get(0, [])
        self._what_was_dropped()
        self._bundles(size, above, self.last)

    def _full(self, level: int, index: int, expected: bytes | None) -> list[bytes]:
        """The hashes of a full tile, read once; wrong ones are named and, where possible, put right from below."""
        path, hashes = self._hashes(level, index, WIDTH)
        if hashes is not None and (expected is None or perfect_root(hashes) == expected):
            return hashes
        right = [self._subtree(level - 1, index * WIDTH + offset) for offset in range(WIDTH)] if level else None
        if hashes is not None:
            wrong = -1
            if right is not None:
                wrong = next((at for at in range(WIDTH) if right[at] != hashes[at]), -1)
            entry = (index * WIDTH + max(wrong, 0)) * WIDTH**level
            self.report.add(path, entry, f"hash {max(wrong, 0)} of this tile does not fit the level above: changed")
        if right is not None and expected is not None and None not in right:
            good = [digest for digest in right if digest is not None]
            if perfect_root(good) == expected:
                return good
        return hashes or []

    def _subtree(self, level: int, index: int) -> bytes | None:
        """The hash of a full tile as its own file gives it, quietly."""
        data = self.files.read(tile_path(level, index))
        return perfect_root(split_hashes(data)) if data is not None and len(data) == WIDTH * HASH_BYTES else None

    def _from_below(
        self, size: int, levels: int, stored: list[tuple[str, list[bytes] | None]], checkpoint: Checkpoint
    ) -> dict[int, list[bytes]]:
        """The edge of the tree does not give the checkpoint's root: make it anew from below, and see who is wrong."""
        made: list[list[bytes]] = []
        for level in range(levels):
            index, width = size // WIDTH ** (level + 1), size // WIDTH**level % WIDTH
            if level:
                row = [self._subtree(level - 1, index * WIDTH + offset) for offset in range(width)]
                made.append([digest or b"" for digest in row])
            else:
                data = self.files.read(tile_path(ENTRIES, index, width)) if width else b""
                if data is None:
                    data = self.files.read(tile_path(ENTRIES, index)) or b""
                made.append([leaf_hash(entry) for entry in split_entries(data)[0][:width]])
        # Try each level's stored hashes against the ones made from below; few levels, so all ways are tried.
        for choice in range(1 << levels):
            mixed = [
                made[level]
                if choice >> level & 1
                else (stored[level][1] if stored[level][1] is not None else made[level])
                for level in range(levels)
            ]
            if all(row is not None for row in mixed) and edge_root([row or [] for row in mixed]) == checkpoint.root:
                for level in range(levels):
                    path, hashes = stored[level]
                    if choice >> level & 1 and hashes is not None:
                        wrong = next(
                            (n for n, (a, b) in enumerate(zip(hashes, made[level], strict=False)) if a != b), 0
                        )
                        first = (size // WIDTH ** (level + 1) * WIDTH + wrong) * WIDTH**level
                        self.report.add(path, first, f"hash {wrong} of this tile was changed")
                return {level: list(mixed[level] or []) for level in range(levels)}
        if all(hashes is not None for _, hashes in stored):
            self.report.add(
                CHECKPOINT,
                -1,
                f"its root hash does not fit the {size} entries: they were replaced, or it is of another log",
            )
        return {level: hashes if hashes is not None else made[level] for level, (_, hashes) in enumerate(stored)}

    # --- what was sealed, and what is no longer kept

    def _what_was_dropped(self) -> None:
        """What the log itself says of entries that it no longer has. What fits is believed; all else is missing."""
        try:
            dropped = parse_dropped(self.files.read(DROPPED), self.key.name)
            if not dropped.stop:
                return
            index, offset = divmod(dropped.entry, WIDTH)
            if dropped.entry >= self.report.size:
                raise AuditError(f"{DROPPED}: names an entry that no checkpoint covers")
            width = min(WIDTH, self.report.size - index * WIDTH)
            data = self.files.read(tile_path(ENTRIES, index, width)) or self.files.read(tile_path(ENTRIES, index))
            entries = split_entries(data or b"")[0]
            leaf = self._leaf(dropped.entry)
            above = self.rows.get(1, {}).get(index)  # of a whole bundle: it may be one that nobody has looked at
            whole = above is None or above == perfect_root([leaf_hash(entry) for entry in entries])
            if offset >= len(entries) or leaf != leaf_hash(entries[offset]) or not whole:
                raise AuditError(f"{DROPPED}: entry {dropped.entry}, which it names, is missing or was changed")
            if root_said(entries[offset], dropped) != self._root_at(dropped.stop):
                raise AuditError(f"{DROPPED}: entry {dropped.entry} gives another root for the first {dropped.stop}")
        except AuditError as error:
            self.report.add(DROPPED, -1, str(error).removeprefix(f"{DROPPED}: "))
            return
        self.dropped = dropped

    def _archive(self, index: int) -> str:
        """The path of the sealed file that holds a bundle, or ""."""
        at = bisect.bisect_right(self.archives, (index * WIDTH, 1 << 63, "")) - 1
        if at < 0 or self.archives[at][1] <= index * WIDTH or self.archives[at][1] > self.report.size:
            return ""
        return self.archives[at][2]

    def _sealed_bundle(self, path: str, index: int, expected: bytes | None) -> None:
        """Check a bundle in a sealed file against the level above."""
        self.known.add(path)
        first = index * WIDTH
        if path in self.broken:
            return
        try:
            if self.open is None or self.open.path != path:
                self.open = Sealed(path, self.files.read(path) or b"")
                if self.open.head.origin != self.key.name:
                    raise AuditError(f"{path}: is of another log")
            sealed = self.open
        except AuditError as error:
            self.broken.add(path)
            self.report.add(path, first, str(error).removeprefix(f"{path}: "))
            return
        try:
            entries = sealed.bundle(index)
        except AuditError as error:
            said = str(error).removeprefix(f"{path}: ")  # of the whole block: once
            if said not in self.broken:
                self.broken.add(said)
                self.report.add(path, first, said)
            return
        if expected is None or perfect_root([leaf_hash(entry) for entry in entries]) != expected:
            self.report.add(path, first, f"entries {first} to {first + WIDTH - 1} do not fit their hash in the tree")
            return
        self._order(path, first, entries)
        ends = [(sealed.head.since, entries[0])] if first == sealed.head.first else []
        ends += [(sealed.head.until, entries[-1])] if first + WIDTH == sealed.head.stop else []
        if any(said.encode() not in entry[-64:] for said, entry in ends):
            self.report.add(path, first, "its head gives other times than its entries have")
        self.report.checked += len(entries)

    # --- entries under the checkpoint

    def _bundles(self, size: int, above: dict[int, bytes], last: list[bytes]) -> None:
        full, width = divmod(size, WIDTH)
        for index in range(full + bool(width)):
            partial = index == full
            expected = None if partial else above.get(index)
            path = "" if partial else self._archive(index)
            plain = tile_path(ENTRIES, index) in self.paths
            time, checked = self.time, self.report.checked
            if path and index * WIDTH >= self.start:
                self._sealed_bundle(path, index, expected)
            if not plain and not partial:
                if path:
                    self._step(index, size)
                    continue
                if (index + 1) * WIDTH <= self.dropped.stop:
                    self.report.gone += WIDTH
                    continue
            if partial:
                leaves: list[bytes] = last
            elif index * WIDTH >= self.start or expected is None:
                leaves = self._leaves(index, expected)
            else:
                leaves = self._full(0, index, expected)
            if index * WIDTH >= self.start:
                self.time, self.report.checked = time, checked  # what is sealed lies here as well until it is removed
                self._bundle(index, width if partial else WIDTH, leaves)
            else:
                self.known.add(tile_path(ENTRIES, index, width if partial else WIDTH))
            self._step(index, size)

    def _step(self, index: int, size: int) -> None:
        if self.progress and index % 64 == 0:
            self.progress(index * WIDTH, size)

    def _leaves(self, index: int, expected: bytes | None) -> list[bytes]:
        """The leaf hashes of a full bundle: the tile's, unless it is wrong and the bundle itself is right."""
        path, hashes = self._hashes(0, index, WIDTH)
        if hashes is not None and (expected is None or perfect_root(hashes) == expected):
            return hashes
        entries, _ = split_entries(self.files.read(tile_path(ENTRIES, index)) or b"")
        made = [leaf_hash(entry) for entry in entries]
        right = len(made) == WIDTH and perfect_root(made) == expected
        if hashes is not None:
            wrong = next((n for n, (a, b) in enumerate(zip(hashes, made, strict=False)) if a != b), 0) if right else 0
            self.report.add(path, index * WIDTH + wrong, f"hash {wrong} of this tile was changed")
        self.mended[index] = made if right else (hashes or [])
        return self.mended[index]

    def _bundle(self, index: int, width: int, leaves: list[bytes]) -> None:
        report, first = self.report, index * WIDTH
        path, data = self._read_tile(ENTRIES, index, width)
        if data is None:
            return
        entries, left = split_entries(data)
        if path == tile_path(ENTRIES, index) and width < WIDTH:
            entries, left = entries[:width], 0
        made = [leaf_hash(entry) for entry in entries]
        if made[:width] != leaves:
            for offset, (mine, other) in enumerate(zip(made, leaves, strict=False)):
                if mine != other:
                    report.add(path, first + offset, "does not fit its hash in the tree: changed, or not in its place")
                    return
            if len(made) < width:
                report.add(path, first + len(made), f"is cut short: {len(made)} of {width} entries are there")
                return
        if left or len(entries) > width:
            report.add(path, first + len(entries) - 1, "has bytes after its last entry that are not part of it")
        self._order(path, first, entries)
        report.checked += len(entries)

    def _order(self, path: str, first: int, entries: list[bytes]) -> None:
        """Each entry says its own place, and times do not go back. The maker of the log is held to it, too."""
        time, decode = self.time, _heads.decode
        for offset, entry in enumerate(entries):
            try:
                head = decode(entry)
            except msgspec.MsgspecError as error:
                self.report.add(path, first + offset, f"is not an audit entry: {error}")
                continue
            if head.index != first + offset:
                self.report.add(path, first + offset, f"says that it is entry {head.index}")
            if head.time < time:
                self.report.add(path, first + offset, f"is of {head.time}, earlier than the entry before it ({time})")
            time = head.time
        self.time = time

    # --- the journal, and what it adds

    def _journal(self, files: list[tuple[str, bytes]]) -> None:
        report = self.report
        segments: list[Segment] = []
        for path, data in files:
            try:
                segments.append(read_segment(path, data, self.key))
            except AuditError as error:
                report.add(path, -1, str(error).removeprefix(f"{path}: "))
        if not segments and not any(path.startswith(FOLDER + "/") for path in self.known):
            report.add(FOLDER, report.size, "is missing: entries after the checkpoint may be lost")
        for place, segment in enumerate(segments):
            if segment.damage:
                report.add(segment.path, segment.stop, f"{segment.damage} (byte {segment.end})")
            elif segment.cut_bytes:
                what = f"{segment.cut_bytes} bytes at {segment.end} are an append that was not finished"
                report.add(segment.path, segment.stop, what, unfinished=True)
            stop = segments[place - 1].stop if place else segment.first
            # (One that a checkpoint covers may have gone between two of these that were read.)
            if segment.first < stop or segment.first > max(stop, report.size):
                report.add(segment.path, stop, f"begins with entry {segment.first}: a gap before it")
            elif segment.first > report.total:
                report.add(
                    segment.path, report.total, f"begins with entry {segment.first}: those before it are missing"
                )
            if segment.first <= report.size and segment.root != self._root_at(segment.first):
                report.add(segment.path, -1, f"its head gives another root for the first {segment.first} entries")
            for frame in segment.frames:
                self._frame(segment.path, frame.first, frame.entries)

    def _frame(self, path: str, first: int, entries: list[bytes]) -> None:
        report = self.report
        fresh = first + len(entries) - report.total
        for offset, entry in enumerate(entries[: len(entries) - max(fresh, 0)]):
            index = first + offset
            leaf = self._leaf(index)
            if leaf is not None and leaf != leaf_hash(entry):
                report.add(path, index, "differs from what the tree has in this place")
        if first <= report.total and fresh > 0:
            new = entries[len(entries) - fresh :]
            self._order(path, report.total, new)
            self.extra += new
            report.total += fresh
            report.checked += fresh

    def _leaf(self, index: int) -> bytes | None:
        """The hash of an entry as it is believed, or None if it is not known."""
        past = index - self.report.size
        if past >= 0:
            return leaf_hash(self.extra[past]) if past < len(self.extra) else None
        bundle, offset = divmod(index, WIDTH)
        if bundle == self.report.size // WIDTH:
            return self.last[offset] if offset < len(self.last) else None
        if bundle != self.cached[0]:
            try:
                data = self.files.read(tile_path(0, bundle)) or b""
            except AuditError:  # of a sealed file; it has been named
                data = b""
            hashes = split_hashes(data) if len(data) == WIDTH * HASH_BYTES else []
            self.cached = (bundle, self.mended.get(bundle, hashes))
        return self.cached[1][offset] if offset < len(self.cached[1]) else None

    # --- files beside the checkpoint's own

    def _beyond(self, paths: set[str]) -> None:
        """Tiles that are superseded (narrower partial ones) or not under a checkpoint yet must agree all the same."""
        for path in sorted(paths - self.known):
            found = parse_path(path)
            if found is None:
                continue
            level, index, width = found
            self.known.add(path)
            data = self.files.read(path)
            if data is None:  # superseded and removed while we looked
                continue
            scale = 1 if level == ENTRIES else WIDTH ** int(level)
            first, stop = index * WIDTH * scale, (index * WIDTH + width) * scale
            # What no checkpoint covers was not synced yet: a power cut may leave any of it.
            early = stop > self.report.size
            if stop > self.report.total:
                self.report.add(path, first, "is of entries that the log does not have", unfinished=early)
                continue
            if not self._agrees(level, index, width, data):
                what = "does not agree with the entries: changed or cut short"
                self.report.add(path, first, what, unfinished=early)

    def _agrees(self, level: int | str, index: int, width: int, data: bytes) -> bool:
        """Does a tile that the checkpoint does not need hold what it should, as far as that is known?"""
        right = self._row(level, index, width)
        if level == ENTRIES:
            entries, left = split_entries(data)
            return not left and len(entries) == width and (right is None or right == [leaf_hash(e) for e in entries])
        return len(data) == width * HASH_BYTES and (right is None or b"".join(right) == data)

    def _row(self, level: int | str, index: int, width: int) -> list[bytes] | None:
        """The hashes that a tile should hold, or for a bundle the leaf hashes of its entries."""
        row: list[bytes] = []
        for at in range(index * WIDTH, index * WIDTH + width):
            if level == ENTRIES or level == 0:
                digest = self._leaf(at)
            else:
                digest = self.rows.get(int(level), {}).get(at) or self._subtree(int(level) - 1, at)
            if digest is None:
                return None
            row.append(digest)
        return row

    def _compare_earlier(self) -> None:
        earlier = self.earlier
        if earlier is None or any(not finding.unfinished for finding in self.report.findings):
            return
        if earlier.size > self.report.total:
            self.report.add(
                CHECKPOINT,
                self.report.total,
                f"the log has {self.report.total} entries, once it had {earlier.size}: cut back",
            )
            return
        if not self._known(earlier.size):
            self.report.add(
                CHECKPOINT,
                -1,
                f"the earlier checkpoint is of {earlier.size} entries, and those below {self.dropped.stop} are no "
                "longer kept here: it cannot be compared (with the archive that they were moved to, it can)",
            )
        elif self._root_at(earlier.size) != earlier.root:
            self.report.add(CHECKPOINT, -1, f"the first {earlier.size} entries are not those of the earlier checkpoint")

    def _known(self, size: int) -> bool:
        """Whether the root of the first `size` entries can be told. Where whole bundles end it always can."""
        return not size % WIDTH or size > self.dropped.stop or self._row(0, size // WIDTH, size % WIDTH) is not None

    def _root_at(self, size: int) -> bytes:
        """The root when the log had `size` entries, from tiles that have been checked by now."""
        rows: list[list[bytes]] = []
        for level, index, width in edge(size):
            while len(rows) < level:
                rows.append([])
            rows.append(self._row(level, index, width) or [])
        return edge_root(rows)


def _is_segment(path: str) -> bool:
    """Whether a path is that of a journal segment."""
    folder, _, name = path.rpartition("/")
    return folder == FOLDER and name.isascii() and name.isdigit()
