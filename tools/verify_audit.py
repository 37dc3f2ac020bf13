#!/usr/bin/env python3
"""Checks a Cofferdam audit log without Cofferdam. Needs Python 3.9 or later and the `cryptography` package.

    verify_audit.py FOLDER --key audit.pub [--checkpoint KEPT]
    verify_audit.py --proof PROOF.json --key audit.pub

FOLDER holds the log (checkpoint, tile/, journal/), or a copy of it. The key file holds its public key in vkey form.
KEPT is a checkpoint that was copied away earlier: the log must still begin with the entries it stands for.

Exit code: 0 all good, 1 something is wrong (each finding is named), 2 the log or the key cannot be read.

The format: RFC 6962 tree, C2SP tlog-tiles, tlog-checkpoint and signed-note, and docs/audit-format.md for entries and
the journal. This file is written from these documents alone and shares no code with the product.
"""

import argparse
import base64
import hashlib
import json
import os
import re
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH, HASH = 256, 32
INDEX = re.compile(rb',"index":(\d+),"maker":"')
TIME = re.compile(rb',"time":"([0-9T:.-]+Z)"}$')
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
        """A full level 0 tile, or at the end a part of one."""
        self.size += len(hashes)
        level, row = 0, list(hashes)
        while len(row) == WIDTH:
            digest, self.edge[level] = perfect(row), []
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


class Log:
    def __init__(self, folder, key, out):
        self.folder, self.key, self.out = folder, key, out
        self.findings = 0
        self.seen = {"checkpoint"}
        self.time = b""

    def wrong(self, path, entry, what):
        self.findings += 1
        if self.findings <= 100:
            where = "" if entry is None else "entry %d: " % entry
            print(f"{path}: {where}{what}", file=self.out)

    def read(self, path):
        try:
            with open(os.path.join(self.folder, path), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

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
        for index in range((size + WIDTH - 1) // WIDTH):
            width = min(WIDTH, size - index * WIDTH)
            path, data = self.tile("entries", index, width)
            tile_name, hashes = stored.row(0, index, width)
            entries, left = ([], 0) if data is None else self.entries(path, data, index * WIDTH, width)
            leaves = [leaf(entry) for entry in entries]
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
        self.below, self.size = below, size
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
        return row[index % WIDTH] if index % WIDTH < len(row) else None

    def compare_kept(self, kept, size):
        old, old_root = kept
        if old > size:
            self.wrong("checkpoint", size, "covers %d entries, once it covered %d: the log was cut back" % (size, old))
            return
        tree = Grower()
        for index in range((old + WIDTH - 1) // WIDTH):
            tree.add_tile(self.leaves[index][: min(WIDTH, old - index * WIDTH)])
        if root_of(tree.edge) != old_root:
            self.wrong("checkpoint", None, "the first %d entries are not those of the kept checkpoint" % old)

    # --- the journal ---

    def journal(self, size):
        self.extra, total = [], size
        try:
            names = sorted(os.listdir(os.path.join(self.folder, "journal")))
        except OSError:
            names = []
        if not names:
            self.wrong("journal", size, "is missing: entries after the checkpoint may be lost")
        stop = None
        for name in names:
            path = "journal/" + name
            if name.endswith(".new"):
                continue
            self.seen.add(path)
            data = self.read(path)
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

    def others(self, size, total):
        for base, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.relpath(os.path.join(base, name), self.folder).replace(os.sep, "/")
                if path not in self.seen and not path.endswith(".new"):
                    self.other(path, total)

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
        self.log, self.size, self.cache = log, size, {}

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
        log = Log(args.folder, key, sys.stdout)
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
