#!/usr/bin/env python3
"""Checks a Cofferdam audit log without Cofferdam. Needs Python 3.9 or later and the `cryptography` package.

    verify_audit.py FOLDER --key audit.pub [--checkpoint KEPT] [--archive ARCHIVE]
    verify_audit.py --proof PROOF.json --key audit.pub

FOLDER holds the log (checkpoint, tile/, journal/), or a copy of it. The key file holds its public key in vkey form.
KEPT is a checkpoint that was copied away earlier: the log must still begin with the entries it stands for. ARCHIVE is
the folder that sealed entries were moved to; without it, entries of which the log itself says that they were dropped or
moved may be missing.

Exit code: 0 all good, 1 something is wrong (each finding is named), 2 the log or the key cannot be read.

The format: RFC 6962 tree, C2SP tlog-tiles, tlog-checkpoint and signed-note, and docs/audit-format.md for entries and
the journal. This file is written from these documents alone and shares no code with the product.
"""

import argparse
import base64
import hashlib
import json
import lzma
import os
import re
import stat
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH, HASH = 256, 32
INDEX = re.compile(rb',"index":(\d+),"maker":"')
TIME = re.compile(rb',"time":"([0-9T:.-]+Z)"}$')
SEALED = re.compile(r"sealed/(\d{20})-(\d{20})")
BLOCK, BLOCK_BYTES = 1024, 1 << 26
JOURNAL_HEAD = struct.Struct(">4sIQI")
sha256 = hashlib.sha256


class Wrong(Exception):
    """Something is not what it should be."""


# --- the tree (RFC 6962, 2.1) ---


def node(left, right):
    return sha256(b"\x01" + left + right).digest()


def leaf(entry):
    return sha256(b"\x00" + entry).digest()


def perfect(hashes):
    digest = sha256
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [digest(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
    return hashes[0]


def root_of(edge):
    """The root from the unfinished row of each tile level, lowest first."""
    peaks = []
    for hashes in reversed(edge):
        at = 0
        while at < len(hashes):
            size = 1 << ((len(hashes) - at).bit_length() - 1)
            peaks.append(perfect(hashes[at : at + size]))
            at += size
    if not peaks:
        return sha256(b"").digest()
    root = peaks.pop()
    while peaks:
        root = node(peaks.pop(), root)
    return root


class Grower:
    """Builds the tree from leaf hashes and keeps every tile level's hashes above the leaves."""

    def __init__(self):
        self.edge = [[]]
        self.rows = [[]]  # rows[l]: all hashes of tile level l, for l above 0
        self.size = 0

    def add_tile(self, hashes):
        """A full level 0 tile, or at the end a part of one. Of a tile that is gone: its root alone."""
        gone = isinstance(hashes, bytes)
        self.size += WIDTH if gone else len(hashes)
        level, row = 0, ([hashes] * WIDTH if gone else list(hashes))
        while len(row) == WIDTH:
            digest, self.edge[level] = hashes if gone and level == 0 else perfect(row), []
            level += 1
            if level == len(self.edge):
                self.edge.append([])
                self.rows.append([])
            self.edge[level].append(digest)
            self.rows[level].append(digest)
            row = self.edge[level]
        if level == 0:
            self.edge[0] = row


# --- signed notes ---


class Key:
    def __init__(self, text):
        name, _, rest = text.strip().partition("+")
        identity, _, data = rest.partition("+")
        try:
            raw = base64.b64decode(data, validate=True)
        except ValueError:
            raise Wrong("the key is not in vkey form") from None
        if len(raw) != 33 or raw[0] != 1:
            raise Wrong("the key is not an Ed25519 key in vkey form")
        self.name, self.id = name, sha256(name.encode() + b"\n" + raw).digest()[:4]
        if self.id.hex() != identity:
            raise Wrong("the key's id does not belong to it: the key was changed")
        self._key = Ed25519PublicKey.from_public_bytes(raw[1:])

    def signed(self, message, signature):
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def open_checkpoint(data, key):
    """(size, root) of a checkpoint that the key has signed."""
    try:
        note = data.decode()
    except UnicodeDecodeError:
        raise Wrong("is not text") from None
    text, gap, tail = note.rpartition("\n\n")
    if not gap or not tail.endswith("\n") or any(ord(c) < 32 and c != "\n" for c in note):
        raise Wrong("is cut short, or no signed note")
    text, good = text + "\n", False
    for line in tail[:-1].split("\n"):
        name, _, encoded = line[2:].partition(" ")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except ValueError:
            raise Wrong("has a signature that is not base64") from None
        if line[:2] != "\u2014 " or base64.b64encode(raw).decode() != encoded or len(raw) < 5:
            raise Wrong("has a line among its signatures that is none")
        if name == key.name and raw[:4] == key.id:
            if not key.signed(text.encode(), raw[4:]):
                raise Wrong("its signature does not fit: it was changed")
            good = True
    if not good:
        raise Wrong("is not signed by this key")
    lines = text.split("\n")
    if len(lines) < 4 or lines[0] != key.name:
        raise Wrong("is of another log")
    size, root = lines[1], base64.b64decode(lines[2], validate=True)
    if not size.isdigit() or str(int(size)) != size or len(root) != HASH:
        raise Wrong("is malformed")
    return int(size), root


# --- files ---


def tile_path(level, index, width=WIDTH):
    name = "%03d" % (index % 1000)
    while index >= 1000:
        index //= 1000
        name = "x%03d/%s" % (index % 1000, name)
    return "tile/{}/{}{}".format(level, name, "" if width == WIDTH else ".p/%d" % width)


class Sealed:
    """A file of sealed entries."""

    def __init__(self, path, data, name):
        lines = data[:1024].split(b"\n", 7)
        match = SEALED.fullmatch(path)
        head = b"\n".join(lines[:7]) + b"\n"
        try:
            self.first, self.stop, self.times = int(lines[2]), int(lines[3]), lines[4:6]
            good = lines[0] == b"cofferdam sealed v1" and lines[1].decode() == name and lines[6] == b""
            good = good and lines[2:4] == [b"%d" % self.first, b"%d" % self.stop]
            good = good and (self.first, self.stop) == (int(match[1]), int(match[2])) and self.first < self.stop
        except (IndexError, ValueError, TypeError):
            good = False
        if not good:
            raise Wrong("its head was changed, or it is not in its place")
        at = len(head) + 4 * ((self.stop - self.first + BLOCK - 1) // BLOCK)
        if at > len(data):
            raise Wrong("is cut short")
        self.spans = []
        for (length,) in struct.iter_unpack(">I", data[len(head) : at]):
            self.spans.append((at, at + length))
            at += length
        if at != len(data):
            raise Wrong("is cut short, padded or changed")
        self.path, self.data, self.block, self.entries = path, data, -1, []

    def bundle(self, index):
        """The entries of a bundle."""
        block, at = divmod(index * WIDTH - self.first, BLOCK)
        if block != self.block:
            begin, end = self.spans[block]
            unpack = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=1 << 26)
            try:
                raw = unpack.decompress(self.data[begin:end], BLOCK_BYTES + 1)
            except (lzma.LZMAError, MemoryError, EOFError):
                raise Wrong("a block cannot be unpacked: changed") from None
            found, where = [], 0
            while where + 2 <= len(raw):
                stop = where + 2 + (raw[where] << 8 | raw[where + 1])
                found.append(raw[where + 2 : stop])
                where = stop
            count = min(BLOCK, self.stop - self.first - block * BLOCK)
            if not unpack.eof or unpack.unused_data or where != len(raw) or len(found) != count:
                raise Wrong("a block does not hold what it should: changed")
            self.block, self.entries = block, found
        return self.entries[at : at + WIDTH]


class Log:
    def __init__(self, folder, key, out, archive=None):
        self.folder, self.key, self.out, self.archive = folder, key, out, archive
        self.sealed, self.gone, self.dropped = None, 0, 0
        self.findings = 0
        self.seen = {"checkpoint"}
        self.time = b""

    def wrong(self, path, entry, what):
        self.findings += 1
        if self.findings <= 100:
            where = "" if entry is None else "entry %d: " % entry
            print(f"{path}: {where}{what}", file=self.out)

    def read(self, path):
        places = [self.folder] + ([self.archive] if self.archive and path.startswith("sealed/") else [])
        for place in places:
            try:  # a pipe that somebody left there is not waited for
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with os.fdopen(os.open(os.path.join(place, path), flags), "rb") as file:
                    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        return file.read()
                    return b""
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def sealed_files(self):
        """(first, stop, path) of what is sealed."""
        found = set()
        for place in filter(None, (self.folder, self.archive)):
            try:
                names = os.listdir(os.path.join(place, "sealed"))
            except OSError:
                continue
            for name in names:
                match = SEALED.fullmatch("sealed/" + name)
                if match:
                    found.add((int(match[1]), int(match[2]), match[0]))
        return sorted(found)

    def unseal(self, path, index):
        """The entries of a bundle in a sealed file; None, and a finding, if it cannot be had."""
        try:
            if self.sealed is None or self.sealed.path != path:
                self.sealed = None
                self.sealed = Sealed(path, self.read(path) or b"", self.key.name)
            entries = self.sealed.bundle(index)
            first = index * WIDTH
            for at, entry, time in ((0, entries[0], 0), (WIDTH - 1, entries[-1], 1)):
                said = b',"time":"' + self.sealed.times[time] + b'"}'
                if first + at in (self.sealed.first, self.sealed.stop - 1) and not entry.endswith(said):
                    raise Wrong("its head gives other times than its entries have")
        except Wrong as error:
            self.wrong(path, index * WIDTH, str(error))
            return None
        return entries

    def what_was_dropped(self, size):
        """(stop, root as it was said) of the entries that the log itself says are no longer kept."""
        data = self.read("dropped")
        if data is None:
            return 0, None
        match = re.fullmatch(rb"cofferdam dropped v1\n([^\n]+)\n([1-9]\d*)\n([1-9]\d*)\n", data)
        if match is None or match[1].decode() != self.key.name or int(match[2]) % WIDTH:
            self.wrong("dropped", None, "was changed, or is of another log")
            return 0, None
        stop, index = int(match[2]), int(match[3])
        if index >= size or index < stop:
            self.wrong("dropped", None, "names an entry that no checkpoint covers")
            return 0, None
        return stop, index

    def check_statement(self, stop, entry):
        """Does the entry say that those below `stop` were dropped, with the root that the tree has there?"""
        try:
            said = json.loads(entry)
            event = said["event"]
            good = event["kind"] == "entries-dropped" and said["maker"] == "auditor" and event["stop"] == stop
            good = good and base64.b64decode(event["root"], validate=True) == root_of(self.grow(stop).edge)
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            self.wrong("dropped", None, "the entry that it names does not say that those below %d were dropped" % stop)

    def grow(self, size):
        """The tree of the first `size` entries; None, if too little is left to tell."""
        tree = Grower()
        for index in range((size + WIDTH - 1) // WIDTH):
            row = self.leaves[index]
            width = min(WIDTH, size - index * WIDTH)
            if isinstance(row, bytes) and width < WIDTH:
                return None
            tree.add_tile(row if isinstance(row, bytes) else row[:width])
        return tree

    def tile(self, level, index, width):
        """(path, bytes or None) of a tile; the full tile may have replaced a partial one."""
        path = tile_path(level, index, width)
        self.seen.add(path)
        data = self.read(path)
        if data is None and width < WIDTH:
            data = self.read(tile_path(level, index))
            if data is not None:
                path = tile_path(level, index)
        return path, data

    def entries(self, path, data, first, width):
        """The entries of a bundle; a bundle that does not end as it should is named by the caller's hashes."""
        found, at = [], 0
        while at + 2 <= len(data) and (len(found) < width or not path.endswith(".p/%d" % width)):
            stop = at + 2 + (data[at] << 8 | data[at + 1])
            if stop > len(data):
                break
            found.append(data[at + 2 : stop])
            at = stop
        full = width < WIDTH and path == tile_path("entries", first // WIDTH)
        left = 0 if full else len(data) - at
        return found[:width], left or max(0, len(found) - width if not full else 0)

    def order(self, path, first, entries):
        for offset, entry in enumerate(entries, first):
            index, time = INDEX.search(entry, max(0, entry.rfind(b'},"index":'))), TIME.search(entry)
            if index is None or time is None or entry[:10] != b'{"event":{':
                self.wrong(path, offset, "is no audit entry")
                continue
            if int(index[1]) != offset:
                self.wrong(path, offset, "says that it is entry %d" % int(index[1]))
            if time[1] < self.time:
                self.wrong(path, offset, "is older than the entry before it")
            self.time = time[1]

    def check(self, kept=None, progress=False):
        # In this order: what a log that grows meanwhile takes from its journal is under the checkpoint that comes then.
        self.paths = self.everything()
        journal = sorted(path for path in self.paths if path.startswith("journal/") and not path.endswith(".new"))
        self.segments = [(path[len("journal/") :], self.read(path)) for path in journal]
        data = self.read("checkpoint")
        if data is None:
            self.wrong("checkpoint", None, "is missing")
            return 0, 0
        try:
            size, root = open_checkpoint(data, self.key)
        except Wrong as error:
            self.wrong("checkpoint", None, str(error))
            return 0, 0
        stored = Stored(self, size)
        below = Grower()  # the tree as the entries make it
        suspects = []  # (bundle path, first, leaves, level 0 path, its hashes) where the two differ
        self.leaves = []
        files, statement = self.sealed_files(), b""
        stop, said_at = self.what_was_dropped(size)
        for index in range((size + WIDTH - 1) // WIDTH):
            width = min(WIDTH, size - index * WIDTH)
            while files and files[0][1] <= index * WIDTH:
                files.pop(0)
            packed = files[0][2] if files and files[0][0] <= index * WIDTH and files[0][1] <= size else None
            plain = os.path.lexists(os.path.join(self.folder, tile_path("entries", index, width)))
            if width == WIDTH and (packed or index * WIDTH < stop):
                above = leaves = stored.above(index)
                entries = None
                if packed:
                    self.seen.add(packed)
                    entries = self.unseal(packed, index)
                if entries is not None:
                    leaves = [leaf(entry) for entry in entries]
                    if perfect(leaves) != above:
                        self.wrong(packed, index * WIDTH, "entries do not fit their hash in the tree: changed")
                        leaves = above
                if not plain:
                    if entries is not None:
                        self.order(packed, index * WIDTH, entries)
                        if said_at is not None and said_at // WIDTH == index:
                            statement = entries[said_at % WIDTH]
                    self.gone += 0 if packed else WIDTH
                    self.leaves.append(leaves)
                    below.add_tile(leaves)
                    continue
            path, data = self.tile("entries", index, width)
            tile_name, hashes = stored.row(0, index, width)
            entries, left = ([], 0) if data is None else self.entries(path, data, index * WIDTH, width)
            leaves = [leaf(entry) for entry in entries]
            if said_at is not None and said_at // WIDTH == index and len(entries) > said_at % WIDTH:
                statement = entries[said_at % WIDTH]
            if data is None:
                self.wrong(path, index * WIDTH, "is missing")
            elif leaves == hashes:
                self.order(path, index * WIDTH, entries)
                if left:
                    self.wrong(path, index * WIDTH + width - 1, "has bytes after its last entry")
            if leaves != hashes:
                suspects.append((path, data, index, width, leaves, left, tile_name, hashes, entries))
            believed = hashes if hashes is not None else leaves
            if leaves != hashes and hashes is not None and len(leaves) == width and not stored.fits(0, index, hashes):
                believed = leaves
            self.leaves.append(believed)
            below.add_tile(believed if len(believed) == width else (believed + [b""] * width)[:width])
            if progress and index % 256 == 0:
                print("\r%d of %d entries" % (index * WIDTH, size), end="", file=sys.stderr, flush=True)
        if progress:
            print("\r%d of %d entries" % (size, size), file=sys.stderr)
        if root_of(below.edge) != root and suspects and suspects[-1][3] < WIDTH:
            # The unfinished tile has no hash above it: only the root tells which of the two is right.
            path, data, index, width, leaves, left, tile_name, hashes, entries = suspects[-1]
            if len(leaves) == width:
                below.edge[0] = leaves
                if root_of(below.edge) == root:
                    self.leaves[-1] = leaves
        last_time = self.time
        for path, data, index, width, leaves, left, tile_name, hashes, entries in suspects:
            self.time = b""
            first, believed = index * WIDTH, self.leaves[index]
            if hashes is not None and hashes != believed:
                bad = next(n for n, (a, b) in enumerate(zip(hashes, believed, strict=False)) if a != b)
                self.wrong(tile_name, first + bad, "hash %d of this tile was changed" % bad)
            if data is not None and leaves != believed:
                bad = next((n for n, (a, b) in enumerate(zip(leaves, believed, strict=False)) if a != b), len(leaves))
                self.wrong(
                    path, first + bad, "is cut short" if bad == len(leaves) else "does not fit its hash: changed"
                )
            elif data is not None:
                self.order(path, first, entries)
                if left:
                    self.wrong(path, first + width - 1, "has bytes after its last entry")
        self.time = max(self.time, last_time)
        stored.compare(below)
        if root_of(below.edge) != root and not self.findings:
            self.wrong("checkpoint", None, "its root does not fit the %d entries: they were replaced" % size)
        if said_at is not None:
            self.check_statement(stop, statement)
        self.below, self.size, self.root = below, size, root
        total = self.journal(size)
        self.others(size, total)
        if kept is not None:
            self.compare_kept(kept, size)
        return size, total

    def leaf_at(self, index):
        if index >= self.size:
            past = index - self.size
            return leaf(self.extra[past]) if past < len(self.extra) else None
        row = self.leaves[index // WIDTH]
        if isinstance(row, bytes):
            return None
        return row[index % WIDTH] if index % WIDTH < len(row) else None

    def compare_kept(self, kept, size):
        old, old_root = kept
        if old > size:
            self.wrong("checkpoint", size, "covers %d entries, once it covered %d: the log was cut back" % (size, old))
            return
        tree = self.grow(old)
        if tree is None:
            self.wrong("checkpoint", None, "entries below %d are not here: the kept one cannot be compared" % self.gone)
        elif root_of(tree.edge) != old_root:
            self.wrong("checkpoint", None, "the first %d entries are not those of the kept checkpoint" % old)

    # --- the journal ---

    def journal(self, size):
        self.extra, total = [], size
        if not self.segments:
            self.wrong("journal", size, "is missing: entries after the checkpoint may be lost")
        stop = None
        for name, data in self.segments:
            path = "journal/" + name
            self.seen.add(path)
            if data is None:
                continue
            lines = data[:4096].split(b"\n", 5)
            head = b"\n".join(lines[:5]) + b"\n"
            try:
                first = int(lines[2])
                good = lines[0] == b"cofferdam journal v1" and lines[1].decode() == self.key.name and lines[4] == b""
                good = good and name == "%020d" % first and b"%d" % first == lines[2]
                good = good and len(base64.b64decode(lines[3], validate=True)) == HASH
                good = good and base64.b64encode(base64.b64decode(lines[3])) == lines[3]
            except (IndexError, ValueError):
                good = False
            if not good:
                self.wrong(path, None, "the head of this journal segment is missing or was changed")
                continue
            if (stop is not None and first != stop) or first > total:
                self.wrong(path, total, "begins with entry %d: those before it are missing" % first)
            if first <= size:
                tree = self.below if first == size else self.grow(first)
                if tree is not None and root_of(tree.edge) != base64.b64decode(lines[3]):
                    self.wrong(path, None, "its head gives another root for the first %d entries" % first)
            stop, total = self.frames(path, data, head, first, total)
        return total

    def frames(self, path, data, head, first, total):
        digest, at, index = sha256(head).digest(), len(head), first
        used = len(data.rstrip(b"\x00"))
        while at < used:
            start = data[at : at + JOURNAL_HEAD.size]
            problem = "a frame was changed, or an append was not finished (byte %d)" % at
            if len(start) < JOURNAL_HEAD.size:
                self.wrong(path, index, problem)
                break
            magic, length, begins, count = JOURNAL_HEAD.unpack(start)
            body = at + JOURNAL_HEAD.size + 4
            stop = body + length
            check = sha256(digest + start).digest()[:4]
            if magic != b"CofF" or check != data[body - 4 : body] or stop + 65 > len(data) or begins != index:
                self.wrong(path, index, problem)
                break
            after = sha256(digest + start + data[body:stop]).digest()
            message = b"cofferdam journal frame\x00" + after
            if data[stop + 64] != 10 or not self.key.signed(message, data[stop : stop + 64]):
                self.wrong(path, index, problem)
                break
            entries, left = self.entries(path, data[body:stop], 1, 1 << 32)
            if left or len(entries) != count:
                self.wrong(path, index, problem)
                break
            for entry in entries:
                if index < total:
                    known = self.leaf_at(index)
                    if known is not None and known != leaf(entry):
                        self.wrong(path, index, "differs from what the tree has in this place")
                elif index == total:
                    self.order(path, index, [entry])
                    self.extra.append(entry)
                    total += 1
                index += 1
            digest, at = after, stop + 65
        return index, total

    # --- files that the checkpoint does not need ---

    def everything(self):
        found = []
        places = [self.folder] + ([os.path.join(self.archive, "sealed")] if self.archive else [])
        for place in places:
            for base, folders, names in os.walk(place):
                links = [name for name in folders if os.path.islink(os.path.join(base, name))]
                root = self.folder if place == self.folder else self.archive
                for name in names + links:
                    found.append(os.path.relpath(os.path.join(base, name), root).replace(os.sep, "/"))
        return found

    def others(self, size, total):
        for path in self.paths:
            if path not in self.seen and path not in ("reserve", "dropped") and not self.arriving(path):
                self.other(path, total)

    def arriving(self, path):
        """Is this a file that was about to be put in place?"""
        name = path[:-4]
        known = name in ("checkpoint", "dropped", "reserve") or name.startswith(("tile/", "journal/", "sealed/"))
        return path.endswith(".new") and known

    def other(self, path, total):
        match = re.fullmatch(r"tile/(entries|\d+)/((?:x\d{3}/)*\d{3})(?:\.p/([1-9]\d{0,2}))?", path)
        if match is None or not path.startswith("tile/"):
            self.wrong(path, None, "does not belong to the log")
            return
        index = int(match[2].replace("x", "").replace("/", ""))
        width, data = int(match[3] or WIDTH), self.read(path)
        if data is None:
            return
        scale = 1 if match[1] == "entries" else WIDTH ** int(match[1])
        if (index * WIDTH + width) * scale > total:
            self.wrong(path, index * WIDTH * scale, "is of entries that the log does not have")
            return
        if match[1] == "entries" or match[1] == "0":
            right = [self.leaf_at(index * WIDTH + n) for n in range(width)]
        else:
            row = self.below.rows[int(match[1])] if int(match[1]) < len(self.below.rows) else []
            right = row[index * WIDTH : index * WIDTH + width]
            if len(right) < width:  # a tile that no checkpoint covers yet; its parts are checked
                right = None
        if right is None or None in right:
            return
        if match[1] == "entries":
            entries, left = self.entries("", data, 1, 1 << 32)
            good = not left and [leaf(entry) for entry in entries] == right
        else:
            good = data == b"".join(right)
        if not good:
            self.wrong(path, index * WIDTH * scale, "does not agree with the entries: changed or cut short")


class Stored:
    """The tiles as they stand in files."""

    def __init__(self, log, size):
        self.log, self.size, self.cache, self.roots = log, size, {}, {}

    def row(self, level, index, width):
        """(path, hashes or None); a tile of the wrong length is named and counts as none."""
        path, data = self.log.tile(level, index, width)
        first = index * WIDTH ** (level + 1)
        if data is None:
            self.log.wrong(path, first, "is missing")
            return path, None
        if path == tile_path(level, index) and width < WIDTH:
            data = data[: width * HASH]
        if len(data) != width * HASH:
            what = "has %d bytes instead of %d: cut short or padded" % (len(data), width * HASH)
            self.log.wrong(path, first + min(len(data) // HASH, width) * WIDTH**level, what)
            return path, None
        return path, [data[at : at + HASH] for at in range(0, len(data), HASH)]

    def above(self, index):
        """The hash of a bundle as the level above has it."""
        place, offset = divmod(index, WIDTH)
        if place not in self.roots:
            self.roots = {place: self.log.tile(1, place, self.width(1, place))[1] or b""}
        return self.roots[place][offset * HASH : (offset + 1) * HASH].ljust(HASH, b"\0")

    def width(self, level, index):
        return min(WIDTH, self.size // WIDTH**level - index * WIDTH)

    def fits(self, level, index, hashes):
        """Does a tile fit the hash that the level above stores for it? An unfinished one has none: True."""
        if len(hashes) < WIDTH:
            return True
        above, offset = divmod(index, WIDTH)
        if (level + 1, above) not in self.cache:
            self.cache = {(level + 1, above): self.log.tile(level + 1, above, self.width(level + 1, above))[1] or b""}
        data = self.cache[level + 1, above]
        return data[offset * HASH : (offset + 1) * HASH] == perfect(hashes)

    def compare(self, below):
        """The tiles above level 0 against those that the entries make."""
        for level in range(1, len(below.rows)):
            row = below.rows[level]
            for index in range((len(row) + WIDTH - 1) // WIDTH):
                right = row[index * WIDTH : (index + 1) * WIDTH]
                path, hashes = self.row(level, index, len(right))
                if hashes is not None and hashes != right:
                    bad = next(n for n, (a, b) in enumerate(zip(hashes, right, strict=False)) if a != b)
                    first = (index * WIDTH + bad) * WIDTH**level
                    self.log.wrong(path, first, "hash %d of this tile was changed" % bad)


# --- proofs ---


def check_proof(data, key):
    """A sentence on what the proof shows."""
    proof = json.loads(data)
    size, root = open_checkpoint(proof["checkpoint"].encode(), key)
    hashes = [base64.b64decode(text, validate=True) for text in proof["hashes"]]
    if proof["proof"] == "cofferdam-inclusion-proof-v1":
        start, end, index, path = 0, size, proof["index"], list(hashes)
        turns = []
        while end - start > 1:
            middle = start + (1 << ((end - start - 1).bit_length() - 1))
            turns.append(index >= middle)
            start, end = (middle, end) if index >= middle else (start, middle)
        if not 0 <= index < size or len(turns) != len(path):
            raise Wrong("the proof has not the right number of hashes")
        found = leaf(proof["entry"].encode())
        for right, other in zip(reversed(turns), path, strict=False):
            found = node(other, found) if right else node(found, other)
        if found != root:
            raise Wrong("the proof does not hold: entry %d is not this one" % index)
        return "entry %d of the log of %s, under a checkpoint of %d entries:\n%s" % (
            index,
            key.name,
            size,
            proof["entry"],
        )
    if proof["proof"] != "cofferdam-consistency-proof-v1":
        raise Wrong("this is no proof of a kind that is known here")
    old, old_root = proof["size"], base64.b64decode(proof["root"], validate=True)
    if not 0 <= old <= size:
        raise Wrong("the proof is of more entries than the checkpoint covers")
    if old in (0, size):
        if hashes or old_root != (root if old else sha256(b"").digest()):
            raise Wrong("the proof does not hold")
    else:
        spans, start, end, whole = [], 0, size, True
        while end != old:  # the nodes that the proof names, from the top down
            middle = start + (1 << ((end - start - 1).bit_length() - 1))
            if old <= middle:
                spans.append(False)
                end = middle
            else:
                spans.append(True)
                start, whole = middle, False
        path = list(hashes)
        first = old_root if whole else (path.pop(0) if path else b"")
        if len(path) != len(spans):
            raise Wrong("the proof has not the right number of hashes")
        earlier = later = first
        for left, other in zip(reversed(spans), path, strict=False):
            if left:
                earlier, later = node(other, earlier), node(other, later)
            else:
                later = node(later, other)
        if earlier != old_root or later != root:
            raise Wrong("the proof does not hold: the log does not begin with these %d entries" % old)
    return "the log of %s with %d entries begins with the one of %d entries and root %s" % (
        key.name, size, old, proof["root"],
    )  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Checks a Cofferdam audit log without Cofferdam.")
    parser.add_argument("folder", nargs="?", help="the log's folder")
    parser.add_argument("--key", required=True, metavar="FILE", help="the public key, in vkey form")
    parser.add_argument("--checkpoint", metavar="FILE", help="a checkpoint kept elsewhere that the log must extend")
    parser.add_argument("--archive", metavar="FOLDER", help="where sealed entries were moved to")
    parser.add_argument("--proof", metavar="FILE", help="check a proof instead of a log")
    args = parser.parse_args(arguments)
    try:
        with open(args.key, encoding="utf-8") as file:
            key = Key(file.read())
        if args.proof:
            with open(args.proof, "rb") as file:
                data = file.read()
            try:
                print("good: " + check_proof(data, key))
            except (Wrong, ValueError, KeyError, TypeError) as error:
                print(f"wrong: {error}")
                return 1
            return 0
        if not args.folder:
            parser.error("name the log's folder, or a proof with --proof")
        if not os.path.isdir(args.folder):
            raise Wrong(f"there is no folder {args.folder}")
        kept = None
        if args.checkpoint:
            with open(args.checkpoint, "rb") as file:
                kept = open_checkpoint(file.read(), key)
        log = Log(args.folder, key, sys.stdout, args.archive)
        size, total = log.check(kept, sys.stderr.isatty())
    except (Wrong, OSError, UnicodeDecodeError) as error:
        print(f"verify_audit: {error}", file=sys.stderr)
        return 2
    if log.findings:
        print("WRONG: %d findings in the log of %s" % (log.findings, key.name))
        return 1
    extra = total - size
    more = " (%d of them only in the journal: no checkpoint covers them yet)" % extra if extra else ""
    print("good: all %d entries of %s%s" % (total, key.name, more))
    if log.gone:
        print("%d of them are no longer here, as the log itself says; their hashes are" % log.gone)
    return 0


if __name__ == "__main__":
    sys.exit(main())
