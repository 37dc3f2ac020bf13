#!/usr/bin/env python3
"""Checks a pack of evidence of a Cofferdam gate without Cofferdam. Needs Python 3.9 or later and `cryptography`.

    verify_evidence.py PACK.zip --key log.vkey [--checkpoint KEPT] [--witness w.vkey] [--at 2027-01-31]

The key file holds the public key of the gate's audit log in vkey form: NAME+ID+BASE64. Have it by another way than the
pack. KEPT is a checkpoint of the log that was copied away earlier; it must be of the same log. --witness names the key
of a witness, had by another way as well: a head in the pack must have its co-signature (C2SP tlog-cosignature). --at is
the day on which the pack is looked at: attestations that have ended by then are named.

What is checked: the archive (names, sizes); the manifest against every file; the signature over it; the checkpoint's
signature, and that the log goes on from a kept one, and from each head that a witness has; each entry's proof of
inclusion; that every result shown is what its entry says, is not older than its check allows, is no stronger, and that
no newer one is passed over; that each control has the status of its weakest check, and page, table and OSCAL say the
same; signatures of people by keys that were theirs at that time; reports of proofs and papers by their hashes.

What no pack can show: that nothing was left out of it by who holds the log's key. The whole log shows that: compare it
with `cofferdam audit verify`, or tools/verify_audit.py, and a checkpoint that was kept elsewhere.

Exit code: 0 all good, 1 something is wrong (each finding is named), 2 pack or key cannot be read.

This file is written from docs/evidence-format.md and the standards that it names alone: RFC 6962, C2SP signed-note and
tlog-checkpoint, OpenSSH's PROTOCOL.sshsig. It shares no code with the product.
"""

import argparse
import base64
import binascii
import bisect
import contextlib
import csv
import datetime
import hashlib
import html.parser
import io
import json
import re
import stat
import sys
import zipfile

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

MAX_FILES, MAX_FILE, MAX_TOTAL, MAX_RATIO = 60_000, 128 << 20, 1 << 30, 200
MAX_UNSIGNED = 8 << 20  # of a JSON file that no signature covers: read as objects it takes thirty times its size
MAX_SHOWN = 1 << 20  # of a page or a table that no signature covers
STRANGE, LONGEST = 8, 1000  # of what is strange in a page, so much is named; letters of one finding
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
HEX = re.compile(r"[0-9a-f]{64}")
ORDER = ["proved", "tested", "observed", "attested", "stale", "not covered", "failed"]
NEEDED = ["manifest.json", "manifest.note", "checkpoint", "results.json", "signers.json", "report.html"]
NAMESPACE = "attestation@cofferdam"
FUTURE = 300
OF_A_POLICY = ("proof.", "policy.", "ports.", "access.no-direct")
OF_ANY_POLICY = ("policy.reviewed", "policy.change-approved", "proof.canaries", "proof.sabotage")
SIGNED_BY_HASH = ("policy.reviewed", "policy.change-approved")
UTC = datetime.timezone.utc  # noqa: UP017 - for Python 3.9
sha256 = hashlib.sha256


def plain(text):
    """What a pack says, without what would drive a terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class Wrong(Exception):
    """Something is not what it should be."""


class Unreadable(Exception):
    """There is nothing to check."""


# --- signed notes, checkpoints, proofs ---------------------------------------------------------------------------


class Key:
    """A log's public key in vkey form."""

    def __init__(self, text):
        name, _, rest = text.strip().partition("+")
        identity, _, data = rest.partition("+")
        try:
            raw = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            raise Unreadable("the key is not in vkey form: NAME+ID+BASE64") from None
        if len(raw) != 33 or raw[0] != 1 or not name:
            raise Unreadable("the key is no Ed25519 key in vkey form")
        self.name, self.id = name, sha256(name.encode() + b"\n" + raw).digest()[:4]
        if self.id.hex() != identity:
            raise Unreadable("the key's id does not belong to it")
        self.key = Ed25519PublicKey.from_public_bytes(raw[1:])

    def open(self, data, what):
        """The text of a signed note."""
        try:
            note = data.decode()
        except UnicodeDecodeError:
            raise Wrong("%s is no text" % what) from None
        text, separator, tail = note.rpartition("\n\n")
        if not separator or not tail.endswith("\n"):
            raise Wrong("%s has no signature" % what)
        text += "\n"
        for line in tail[:-1].split("\n"):
            name, _, encoded = line[2:].partition(" ")
            try:
                raw = base64.b64decode(encoded, validate=True)
            except (ValueError, binascii.Error):
                raise Wrong("a signature of %s is not base64" % what) from None
            if line[:2] == "\u2014 " and name == self.name and raw[:4] == self.id:
                try:
                    self.key.verify(raw[4:], text.encode())
                except InvalidSignature:
                    raise Wrong("the signature of %s does not fit its text" % what) from None
                return text
        raise Wrong("%s is not signed by the key %s+%s" % (what, self.name, self.id.hex()))


class Witness:
    """A witness's public key in vkey form (C2SP tlog-cosignature, Ed25519)."""

    def __init__(self, text):
        self.name, _, rest = text.strip().partition("+")
        identity, _, data = rest.partition("+")
        try:
            raw = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            raise Unreadable("the witness's key is not in vkey form: NAME+ID+BASE64") from None
        self.id = sha256(self.name.encode() + b"\n" + raw).digest()[:4]
        if len(raw) != 33 or raw[0] != 4 or self.id.hex() != identity:
            raise Unreadable("the witness's key is no Ed25519 key of a witness in vkey form")
        self.key = Ed25519PublicKey.from_public_bytes(raw[1:])

    def signed(self, note):
        """When it signed the note (seconds since 1970), or None."""
        text, _, tail = note.decode("utf-8", "replace").rpartition("\n\n")
        for line in tail.splitlines():
            name, _, encoded = line[2:].partition(" ")
            try:
                raw = base64.b64decode(encoded, validate=True)
            except (ValueError, binascii.Error):
                continue
            if line[:2] != "\u2014 " or name != self.name or len(raw) != 76 or raw[:4] != self.id:
                continue
            at = int.from_bytes(raw[4:12], "big")
            try:
                self.key.verify(raw[12:], ("cosignature/v1\ntime %d\n%s\n" % (at, text)).encode())
            except InvalidSignature:
                continue
            return at
        return None


def open_checkpoint(data, key, what="the checkpoint"):
    lines = key.open(data, what).split("\n")
    try:
        origin, size, root = lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)
    except (IndexError, ValueError, binascii.Error):
        raise Wrong("%s lacks origin, size or root" % what) from None
    if origin != key.name or size < 0 or len(root) != 32:
        raise Wrong("%s is of another log" % what)
    return size, root


def node(left, right):
    return sha256(b"\x01" + left + right).digest()


def included(entry, index, size, path, root):
    """RFC 6962, 2.1.1: does the path lead from this entry at this index to the root?"""
    if not 0 <= index < size:
        return False
    found, first, last = sha256(b"\x00" + entry).digest(), index, size - 1
    for other in path:
        if last == 0:
            return False
        if first & 1 or first == last:
            found = node(other, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node(found, other)
        first, last = first >> 1, last >> 1
    return last == 0 and found == root


def consistent(size, root, new_size, new_root, path):
    """RFC 6962, 2.1.2 (as RFC 9162, 2.1.4.2 checks it): does the log of `size` entries begin the newer one?"""
    path = list(path)
    if size == new_size:
        return not path and root == new_root
    if not 0 < size < new_size or not path:
        return False
    if size & (size - 1) == 0:
        path.insert(0, root)
    first, last = size - 1, new_size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old = new = path[0]
    for other in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            old, new = node(other, old), node(other, new)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            new = node(new, other)
        first, last = first >> 1, last >> 1
    return last == 0 and old == root and new == new_root


# --- SSH signatures ----------------------------------------------------------------------------------------------


class Fields:
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, count):
        if self.at + count > len(self.data):
            raise Wrong("it is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def string(self):
        return self.raw(int.from_bytes(self.raw(4), "big"))


def string(data):
    return len(data).to_bytes(4, "big") + data


ARMOUR = re.compile(r"\s*-----BEGIN SSH SIGNATURE-----\s([A-Za-z0-9+/=\s]+)-----END SSH SIGNATURE-----\s*")


def named_key(armour):
    """The key that a signature names (base64), so that it is not tried with thousands of others; None of none."""
    found = ARMOUR.fullmatch(armour)
    try:
        fields = Fields(base64.b64decode("".join(found.group(1).split()), validate=True))
        fields.raw(10)
        return base64.b64encode(fields.string()).decode()
    except (AttributeError, ValueError, Wrong):
        return None


def check_ssh(armour, message, key):
    """Whether this is `key`'s signature over the message, for our namespace."""
    found = re.fullmatch(r"\s*-----BEGIN SSH SIGNATURE-----\s([A-Za-z0-9+/=\s]+)-----END SSH SIGNATURE-----\s*", armour)
    if found is None:
        raise Wrong("it is no SSH signature")
    kind, encoded = key.split()[:2]
    blob = base64.b64decode(encoded, validate=True)
    fields = Fields(base64.b64decode("".join(found.group(1).split()), validate=True))
    if fields.raw(6) != b"SSHSIG" or fields.raw(4) != b"\x00\x00\x00\x01":
        raise Wrong("it is no SSH signature of version 1")
    public, namespace, reserved, used, signature = [fields.string() for _ in range(5)]
    if public != blob:
        raise Wrong("another key made it")
    if namespace.decode("utf-8", "replace") != NAMESPACE or reserved:
        raise Wrong("it was made for something else")
    if used not in (b"sha256", b"sha512"):
        raise Wrong("its hash is unknown")
    inner = hashlib.new(used.decode(), message).digest()
    signed = b"SSHSIG" + string(namespace) + string(b"") + string(used) + string(inner)
    part = Fields(signature)
    made, raw = part.string().decode("ascii", "replace"), part.string()
    try:
        if kind.startswith("sk-"):
            tail, own = part.raw(5), Fields(blob)
            own.string()
            if kind.startswith("sk-ecdsa"):
                own.string()
            point, application = own.string(), own.string()
            if made != kind or not tail[0] & 1:
                raise Wrong("nobody touched the hardware key")
            signed = sha256(application).digest() + tail + sha256(signed).digest()
            if kind.startswith("sk-ssh-ed25519"):
                Ed25519PublicKey.from_public_bytes(point).verify(raw, signed)
            else:
                ecdsa(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point), raw, signed)
            return
        loaded = load_ssh_public_key(key.encode())
        if isinstance(loaded, Ed25519PublicKey) and made == "ssh-ed25519":
            loaded.verify(raw, signed)
        elif isinstance(loaded, ec.EllipticCurvePublicKey) and made == kind:
            ecdsa(loaded, raw, signed)
        elif isinstance(loaded, rsa.RSAPublicKey) and made in ("rsa-sha2-256", "rsa-sha2-512"):
            digest = hashes.SHA256() if made == "rsa-sha2-256" else hashes.SHA512()
            loaded.verify(raw, signed, padding.PKCS1v15(), digest)
        else:
            raise Wrong("it is of the kind %s" % made)
    except InvalidSignature:
        raise Wrong("it does not fit the text") from None


def ecdsa(key, raw, signed):
    numbers = Fields(raw)
    r, s = int.from_bytes(numbers.string(), "big"), int.from_bytes(numbers.string(), "big")
    digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.curve.key_size]
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))


TAGS = re.compile("html|head|meta|title|style|body|h1|h2|p|table|thead|tbody|tr|th|td|div|span|ul|li|b|br|dl|dt|dd")
ATTRIBUTES = {"class", "charset", "content", "http-equiv", "lang", "name", "aria-hidden"}
BEGINS = b"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>"
"""How pages of ours begin. By another alphabet a browser would read other things in the same bytes."""
CLASSES = "note|age|entry|rest|facts|controls|id|counts|check|s (?:coming|not-covered|%s)" % "|".join(
    one for one in ORDER if one != "not covered"
)
START = re.compile(
    r"<(?:%s)>|<(?:span|div|table|td|p) class='(?:%s)'>|<html lang='en'>|<meta charset='utf-8'>"
    r"|<span aria-hidden='true'>|<meta name='viewport' content='width=device-width'>"
    r"|<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    % (TAGS.pattern, CLASSES)
)
"""How tags of ours are written, to the letter: of anything else a browser may make something else."""
DEEPEST = 10  # one in the other: what is small becomes smaller by each
WHOLE = re.compile(r"<[^<>]{1,200}>")
"""What begins with < in a page: where it does not end, a reader looks for its end again from each of thousands."""
MARKS = "\u25cf\u270e\u25cc\u2013\u2717\u2192"
"""Before a status, for a print in black and white. Other letters beside it say something else."""
STYLES = {"04a9e196f3ec03166f5c34c41950b618c5a2f6d9e780472197de9b95db094457"}
"""SHA-256 of each style that pages of ours have had: by another one something may be too small to be seen."""


class Page(html.parser.HTMLParser):
    """The rows of the page's table of controls: (id, status) of each row of four cells that begins with an id.
    `strange`: what a page of ours has not, such as what runs, loads, leads elsewhere, or hides a part of it."""

    def __init__(self, text):
        super().__init__()
        self.strange, self._style, self._title = [], None, False
        self.rows, self._cells, self._inner, self._badge = [], [], 0, False
        self._id = self._status = self._class = ""
        self._open, self._more = [], False
        at = text.find("<")
        while at >= 0:
            if WHOLE.match(text, at) is None:
                raise Wrong("has what no page of ours has: a tag without its end, at %d" % at)
            at = text.find("<", at + 1)
        with contextlib.suppress(StopIteration):
            self.feed(text)
            self.close()
            self._end_style()

    def handle_decl(self, decl):
        self._enough()

    def _enough(self):
        """Ends the reading, where more is strange than is told."""
        if len(self.strange) > STRANGE:
            raise StopIteration

    def _end_style(self):
        if self._style is not None and sha256(self._style.encode()).hexdigest() not in STYLES:
            self.strange.append("a style that is none of ours (it hides or adds something, or is a newer version's)")
        self._style = None

    def handle_starttag(self, tag, attrs):
        self._enough()
        given = dict(attrs)
        named = (given.get("class") or "").split()
        if len(given) != len(attrs):
            self.strange.append("<%s> with the same attribute twice" % tag)  # a browser takes the first
        if not TAGS.fullmatch(tag) or not set(given) <= ATTRIBUTES or given.get("http-equiv", "").lower() == "refresh":
            self.strange.append("<%s %s>" % (tag, " ".join(sorted(given))))
        elif not START.fullmatch(self.get_starttag_text()):
            self.strange.append("a tag written like %s" % self.get_starttag_text()[:60])
        if tag not in ("meta", "br"):
            self._open.append(tag)
            if len(self._open) > DEEPEST:
                self.strange.append("<%s> in %d others" % (tag, len(self._open) - 1))
        if self._title:
            self.strange.append("<%s> in a title" % tag)  # which a browser shows as letters, if at all
        self._title = self._title or tag == "title"
        if tag == "style":
            self._style = ""
        if tag == "tr":
            self._cells, self._id, self._status, self._class, self._more = [], "", "", "", False
        elif tag == "td":
            self._cells.append("id" in named)
        elif tag == "div":
            self._inner += 1
        elif tag == "span" and named[:1] == ["s"] and len(self._cells) == 3 and not self._status:
            self._badge, self._status, self._class = True, "", named[1:]
        elif len(self._cells) in (1, 3) and not self._badge:
            self._more = True

    def handle_startendtag(self, tag, attrs):
        """No tag of ours: to a browser it is open."""
        self.strange.append("<%s/>" % tag)
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        self._enough()
        self._end_style()
        if not self._open or self._open.pop() != tag:
            self.strange.append("</%s> that ends something else" % tag)
        self._title = self._title and tag != "title"
        if tag == "tr" and len(self._cells) == 4 and self._cells[0]:
            self.rows.append((self._id.strip(), self._status.strip()))
            if self._more or self._class != [self._status.strip().replace(" ", "-")]:
                self.strange.append("a row of %s with more than its status" % self._id.strip())
        elif tag == "div":
            self._inner -= 1
        elif tag == "td":
            self._badge = False

    def handle_comment(self, data):
        self.strange.append("a comment")

    def handle_pi(self, data):
        self.strange.append("an instruction")

    def unknown_decl(self, data):
        self.strange.append("a declaration")

    def handle_data(self, data):
        if self._style is not None:
            self._style += data
        if len(self._cells) == 1 and not self._inner:
            self._id += data
        elif self._badge and not self._inner:
            self._status += "".join(letter for letter in data if letter not in MARKS)
        elif len(self._cells) == 3 and not self._inner and data.strip():
            self._more = True


# --- the pack ----------------------------------------------------------------------------------------------------


def ns(text):
    """A log's time (RFC 3339 with decimals) as ns since 1970."""
    main, _, fraction = text.rstrip("Z").partition(".")
    moment = datetime.datetime.strptime(main, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])


def signed_facts(said):
    """What a report shows of a statement."""
    role, paper = said.get("role"), said.get("paper")
    lines = [str(said.get("text")), "%s%s, %s, counts until %s" % (
        said.get("person"), ", %s" % role if role else "", said.get("made"), said.get("until"),
    )]  # fmt: skip
    if isinstance(said.get("entries"), int):
        lines.append("about the log up to its entry %d, and the policy %s" % (said["entries"] - 1, said.get("policy")))
    if isinstance(paper, dict):
        lines.append("about the paper %s, SHA-256 %s" % (paper.get("name"), paper.get("sha256")))
    return [" ".join(text.split())[:500] for text in lines]


def once(pairs):
    """A record, each name in it once: of two, other readers take the first."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Wrong("has a name twice in one record")
    return found


class Pack:
    def __init__(self, path, key, kept, day, say, witness=None):
        self.key, self.kept, self.day, self.say, self.witness = key, kept, day, say, witness
        self.cosigned = self.backed = None
        self.notes = []
        self.findings = 0
        self.entries = {}
        self.unreadable = set()
        self.turns, self.said, self.taken, self.gone = {}, {}, {}, {}
        self.path = path

    def wrong(self, where, problem):
        self.findings += 1
        if self.findings <= 100:
            text = "%s: %s" % (where, problem)
            self.say(plain(text if len(text) <= LONGEST else text[:LONGEST] + "..."))

    def attempt(self, where, work, *arguments):
        """Runs a check; whatever breaks in it is a finding."""
        try:
            return work(*arguments)
        except Wrong as error:
            self.wrong(where, str(error))
        except Exception as error:
            self.wrong(where, "is not understood: %s %s" % (type(error).__name__, error))
        return None

    def check(self):
        files = self.read()
        for name in NEEDED:
            if name not in files and name not in self.unreadable:
                self.wrong(name, "is missing")
        self.files = files
        self.manifest = {}
        self.manifest = self.attempt("manifest.json", self.json, "manifest.json") or {}
        self.attempt("manifest.json", self.check_manifest)
        self.attempt("manifest.note", self.check_note)
        self.size, self.root = self.attempt("checkpoint", self.check_checkpoint) or (0, b"")
        for name in sorted(files):
            if name.startswith("entries/"):
                self.attempt(name, self.check_entry, name)
        self.results = self.attempt("results.json", self.json, "results.json")
        self.attempt("results.json", self.check_results)
        self.attempt("results.json", self.check_controls)
        self.attempt("entries", self.read_people)
        self.attempt("signers.json", self.check_signers)
        self.attempt("results.json", self.check_attestations)
        self.attempt("proofs", self.check_documents)
        self.attempt("witnesses", self.check_witnesses)
        return len(self.entries)

    # --- archive, manifest, checkpoint

    def read(self):
        try:
            archive = zipfile.ZipFile(self.path)
        except Exception as error:  # also of versions and fields that the library does not know
            raise Unreadable("%s is no zip file: %s" % (self.path, error)) from None
        files, total = {}, 0
        with archive:
            names = archive.infolist()
            self.attempt("the archive", self.check_archive, archive, names)
            if len(names) > MAX_FILES:
                raise Unreadable("the pack has %d files: it is none of ours" % len(names))
            for info in names:
                name, mode = info.filename, info.external_attr >> 16
                if not NAME.fullmatch(name) or ".." in name.split("/"):
                    self.wrong(repr(name), "is no name of a file of a pack")
                    continue
                if name in files:
                    self.wrong(name, "stands twice in the archive")
                    continue
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                    self.wrong(name, "is no plain file")
                    continue
                if info.flag_bits & 1:
                    self.wrong(name, "is encrypted")
                    self.unreadable.add(name)
                    continue
                total += info.file_size
                if info.file_size > MAX_FILE or total > MAX_TOTAL:
                    raise Unreadable("%s would be too large: the pack is none of ours" % name)
                if info.file_size > MAX_RATIO * max(1, info.compress_size):
                    self.wrong(name, "is packed so tightly that it is a bomb")
                    self.unreadable.add(name)
                    continue
                if info.compress_type != zipfile.ZIP_STORED:
                    self.wrong(name, "is compressed: no file of a pack is, so that nothing becomes large in memory")
                    self.unreadable.add(name)
                    continue
                try:
                    with archive.open(info) as file:
                        data = file.read(MAX_FILE + 1)
                except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
                    self.wrong(name, "cannot be read: %s" % error)
                    self.unreadable.add(name)
                    continue
                except Exception as error:  # zlib's own
                    self.wrong(name, "cannot be read: %s" % error)
                    self.unreadable.add(name)
                    continue
                files[name] = data
        return files

    def check_archive(self, archive, names):
        """Files one after the other and nothing else, so that no other reader finds something else in these bytes."""
        at = 0
        for info in sorted(names, key=lambda one: one.header_offset):
            if info.header_offset != at:
                raise Wrong("has bytes that belong to no file, or to two, at %d" % min(at, info.header_offset))
            if info.extra or info.comment or info.flag_bits & 8:
                raise Wrong("has more than a name before %s" % info.filename)
            at += 30 + len(info.orig_filename.encode()) + info.compress_size
        archive.fp.seek(0, 2)
        size = archive.fp.tell()
        archive.fp.seek(max(0, size - 22))
        end = archive.fp.read()
        listed, begins = int.from_bytes(end[12:16], "little"), int.from_bytes(end[16:20], "little")
        if end[:4] != b"PK\x05\x06" or begins != at or begins + listed + 22 != size:
            raise Wrong("has bytes that belong to no file at %d, or behind the last" % at)

    def json(self, name):
        if name not in self.files:
            return None
        self.bounded(name, MAX_UNSIGNED)
        found = json.loads(self.files[name].decode(), object_pairs_hook=once)
        if not isinstance(found, (dict, list)):
            raise Wrong("is no record")
        return found

    def bounded(self, name, most):
        """Raises Wrong, where a file that anybody may have put here would take too long to read."""
        if len(self.files.get(name, b"")) > most and not self.is_signed(name):
            raise Wrong("is not looked at: it is large, and no signature by the log's key covers it")

    def is_signed(self, name):
        """Whether the log's key has signed for these bytes: the manifest's by its note, any other by the manifest."""
        digest = sha256(self.files[name]).hexdigest()
        try:
            if name != "manifest.json":
                return self.is_signed("manifest.json") and self.manifest["files"][name]["sha256"] == digest
            return self.key.open(self.files["manifest.note"], "the manifest's note").split("\n")[1] == digest
        except (Wrong, KeyError, TypeError, IndexError):
            return False

    def check_manifest(self):
        manifest = self.manifest
        if manifest.get("format") != "cofferdam-evidence-pack-v1":
            raise Wrong("is of another format: %r" % manifest.get("format"))
        left = manifest.get("left_out", {"entries": 1, "below": 1})
        if not isinstance(left, dict) or any(type(left.get(one)) is not int for one in ("entries", "below")):
            raise Wrong("does not say as we do what was left out")
        if type(manifest.get("not_cited", 0)) is not int:
            raise Wrong("does not say as we do how many entries it names and has not")
        missing = manifest.get("missing")
        if not isinstance(missing, list) or not all(isinstance(one, str) for one in missing):
            raise Wrong("does not say as we do what is missing")
        listed = manifest["files"]
        for name in sorted(set(listed) - set(self.files) - self.unreadable):
            self.wrong(name, "is in the manifest and not in the pack: removed, or renamed")
        for name in sorted(set(self.files) - set(listed) - {"manifest.json", "manifest.note"}):
            self.wrong(name, "is not in the manifest: added, or renamed")
        for name in sorted(set(self.files) & set(listed)):
            data = self.files[name]
            if listed[name]["sha256"] != sha256(data).hexdigest() or listed[name]["bytes"] != len(data):
                self.wrong(name, "was changed: its hash is not the manifest's")

    def check_note(self):
        if "manifest.note" not in self.files:
            return
        text = self.key.open(self.files["manifest.note"], "the manifest's note")
        lines = text.split("\n")
        if len(lines) < 4 or lines[0] != "cofferdam evidence pack of %s" % self.manifest.get("site"):
            raise Wrong("is the note of another pack")
        if lines[1] != sha256(self.files.get("manifest.json", b"")).hexdigest():
            raise Wrong("is the note of another manifest: the manifest was changed, or is another pack's")
        if lines[2] != self.manifest.get("framework") or lines[3] != "%s entries" % self.manifest.get("entries"):
            raise Wrong("does not fit the manifest")

    def check_checkpoint(self):
        size, root = open_checkpoint(self.files["checkpoint"], self.key)
        if size != self.manifest.get("entries"):
            self.wrong(
                "checkpoint", "covers %d entries, and the manifest says %s" % (size, self.manifest.get("entries"))
            )
        if self.kept is not None:
            kept, kept_root = open_checkpoint(self.kept, self.key, "the kept checkpoint")
            if kept > size:
                self.wrong(
                    "checkpoint",
                    "covers %d entries, and the kept one %d: the pack, of %s, is older, or the log was cut back; a "
                    "pack made after it, with `--kept` of it, shows which" % (size, kept, self.manifest.get("to")),
                )
            elif kept == size and kept_root != root:
                self.wrong("checkpoint", "has another root than the kept one of the same size: two logs")
            elif kept < size:
                self.attempt("checkpoint", self.check_kept, kept, kept_root, size, root)
        return size, root

    def check_kept(self, kept, kept_root, size, root):
        name = "consistency/%d.json" % kept
        if name not in self.files:
            raise Wrong(
                "cannot be compared with the kept one of %d entries: no witness on record had that one; "
                "a pack made with `--kept` of it can be" % kept
            )
        path = [base64.b64decode(one, validate=True) for one in self.json(name)["hashes"]]
        if not consistent(kept, kept_root, size, root, path):
            raise Wrong("does not go on from the kept one of %d entries: the log was written anew" % kept)

    def check_witnesses(self):
        """Each head that a witness has: on record as the newest, of this log, and the log goes on from it."""
        newest = {}
        for index in sorted(self.entries):
            event = self.entries[index]["event"]
            if event.get("kind") == "export-stood" and event.get("note"):
                newest["witnesses/%s.note" % event["collector"].partition(":")[2]] = (index, event)
        for name in sorted(set(newest) - set(self.files) - set(self.manifest.get("missing", ()))):
            self.wrong(name, "is missing: entry %d has it on record" % newest[name][0])
        signed = []
        for name in sorted(one for one in self.files if one.startswith("witnesses/")):
            if name not in newest or newest[name][1]["note"].encode() != self.files[name]:
                self.wrong(name, "is not the newest head that the log has on record of this witness")
                continue
            self.attempt(name, self.check_head, name, signed)
        if self.witness is not None:
            if not signed:
                raise Wrong("no head in the pack has a co-signature of %s" % self.witness.name)
            self.cosigned = max(signed)

    def check_head(self, name, signed):
        size, root = open_checkpoint(self.files[name], self.key, "the head")
        if size > self.size or (size == self.size and root != self.root):
            raise Wrong("is no beginning of this log: it covers %d entries" % size)
        if size < self.size:
            path = "consistency/%d.json" % size
            if path not in self.files:
                raise Wrong("cannot be compared with the checkpoint: %s is missing" % path)
            hashes = [base64.b64decode(one, validate=True) for one in self.json(path)["hashes"]]
            if not consistent(size, root, self.size, self.root, hashes):
                raise Wrong("does not lead to the checkpoint: there were two logs")
        at = self.witness.signed(self.files[name]) if self.witness is not None else None
        if at is not None:
            if at > ns(self.results["report"]["made"]) // 1_000_000_000 + FUTURE:
                raise Wrong(
                    "was co-signed at a time that was still to come: the witness's clock or the log's was wrong"
                )
            signed.append((size, at))

    # --- entries

    def check_entry(self, name):
        found = self.json(name)
        index, text = found["index"], found["entry"]
        if name != "entries/%d.json" % index:
            raise Wrong("is the entry of another number, %r" % index)
        path = [base64.b64decode(one, validate=True) for one in found["hashes"]]
        if index >= self.size:
            raise Wrong("is newer than the checkpoint, which covers %d entries" % self.size)
        if not included(text.encode(), index, self.size, path, self.root):
            raise Wrong("is not in the log: its proof does not lead to the checkpoint")
        entry = json.loads(text)
        if entry["index"] != index or entry["site"] != self.manifest.get("site"):
            raise Wrong("says another number or site of itself")
        self.entries[index] = entry

    def event(self, index, kind):
        if index not in self.entries:
            raise Wrong("entry %s is not in the pack, or not proven" % index)
        event = self.entries[index]["event"]
        if event.get("kind") != kind:
            raise Wrong("entry %s is a %s, not a %s" % (index, event.get("kind"), kind))
        return event

    # --- results

    def check_results(self):
        if self.results is None:
            return
        checks, report = self.results["checks"], self.results["report"]
        for member in ("site", "framework", "entries", "level"):
            if report[member] != self.manifest.get(member):
                self.wrong("results.json", "is of another %s than the manifest" % member)
        made = ns(report["made"])
        self.newest, self.starts = {}, []
        for index in sorted(self.entries):
            event = self.entries[index]["event"]
            if event.get("kind") == "gate-started":
                self.starts.append((index, event.get("version")))
            if event.get("kind") == "check-done":
                self.newest.setdefault(event["check"], {})[event.get("subject", "")] = index
        self.unknown = set(report.get("unknown", ())) - set(checks) - set(self.results["now"])
        for name in sorted(set(self.newest) - set(self.results["now"])):
            if name in self.unknown:
                self.note("check %s has results here, and the version that made the pack does not know it" % name)
            else:
                self.wrong("check %s" % name, "has entries, and is not shown")
        loaded = [at for at in sorted(self.entries) if self.entries[at]["event"].get("kind") == "policy-loaded"]
        if loaded and self.entries[loaded[-1]]["event"].get("policy") != report["policy"]:
            self.wrong("results.json", "is of another policy than entry %d, the last that loaded one" % loaded[-1])
        for row in self.results["history"]:
            self.attempt("result %s of entry %s" % (row.get("check"), row.get("index")), self.check_row, row, checks)
        for name, state in self.results["now"].items():
            self.attempt("check %s" % name, self.check_state, name, state, checks, made)

    def check_row(self, row, checks):
        event = self.event(row["index"], "check-done")
        for member, says in (("check", "check"), ("outcome", "outcome"), ("says", "says"), ("valid", "valid_seconds")):
            if row[member] != event.get(says):
                raise Wrong("says another %s than its entry" % member)
        if row.get("subject", "") != event.get("subject", "") or list(row["facts"]) != list(event.get("facts", [])):
            raise Wrong("says other facts than its entry")
        if row["check"] not in self.unknown and row["valid"] > checks[row["check"]]["valid"]:
            version = self.version_at(row["index"])
            if version in (None, self.results["report"]["version"]):
                raise Wrong("is said to count longer than its check allows")
            self.note("%s counted for longer by version %s; none counts so long now" % (row["check"], version))
        if row["time_ns"] != ns(self.entries[row["index"]]["time"]):
            raise Wrong("has another time than its entry")

    def version_at(self, index):
        """Which version the gate had when an entry was written, as far as the pack has that; or None."""
        before = [version for at, version in self.starts if at < index]
        return before[-1] if before else None

    def note(self, text):
        """What is to be known, and not wrong."""
        if text not in self.notes:
            self.notes.append(text)

    def check_state(self, name, state, checks, made):
        status, index = state["status"], state["index"]
        if name not in checks or status not in ORDER:
            raise Wrong("there is no such check or status")
        newest = self.newest.get(name, {})
        failed = [at for at in newest.values() if self.entries[at]["event"]["outcome"] == "failed"]
        if failed and status != "failed":
            raise Wrong("is shown as %s, and failed by entry %d" % (status, max(failed)))
        if any(self.entries[at]["event"]["outcome"] != "not covered" for at in newest.values()) and not state["counts"]:
            raise Wrong("is left out, and has results: entry %d" % max(newest.values()))
        if status in ("not covered", "stale"):
            return
        if status == "attested":
            self.check_attested(name, state, checks, made)
            return
        if (
            status == "failed"
            and index in self.entries
            and self.entries[index]["event"].get("kind") == "attestation-made"
        ):
            if self.event(index, "attestation-made").get("check") != name:
                raise Wrong("rests on an attestation for something else")
            return
        event = self.event(index, "check-done")
        if event.get("check") != name or event.get("says") != state["says"]:
            raise Wrong("does not say what its entry says")
        if list(state["facts"]) != list(event.get("facts", [])):
            raise Wrong("is shown with other facts than its entry's")
        if index not in newest.values():
            raise Wrong("rests on entry %s, which is not the newest of this check" % index)
        outcome, best = event["outcome"], checks[name]["best"]
        if (outcome == "failed") != (status == "failed"):
            raise Wrong("is shown as %s, and its entry says %s" % (status, outcome))
        if status != "failed":
            if ORDER.index(status) < max(ORDER.index(outcome), ORDER.index(best)):
                raise Wrong(
                    "is shown as %s: more than its entry (%s) or its check (%s) can say" % (status, outcome, best)
                )
            entry = self.entries[index]
            wall = int(event.get("wall_ns", "0"))
            age = max(made - ns(entry["time"]), made - wall) // 1_000_000_000
            valid = min(event["valid_seconds"], checks[name]["valid"])
            if age > valid + 1:
                raise Wrong("is shown as %s, and is %d s old: it counts for %d" % (status, age, valid))
            if wall > made + FUTURE * 1_000_000_000:
                raise Wrong("was found at a time that was still to come")
            if (name.startswith("proof.") or outcome == "proved") and not self.is_backed(wall, entry.get("policy")):
                raise Wrong("is shown as %s, and no report signed with the log's key is of that proof" % status)
            self.check_policy(name, OF_ANY_POLICY, entry.get("policy"))

    def check_policy(self, name, exempt, policy):
        """What is about the rules of one policy counts for no other."""
        now = self.results["report"]["policy"]
        if now and policy != now and name.startswith(OF_A_POLICY) and name not in exempt:
            raise Wrong("rests on what was found or signed under another policy, %s" % str(policy)[:12])

    def is_backed(self, wall, policy):
        """Whether the pack has a signed report of a proof of this time, under this policy. An entry says what the gate
        says; a report is root's, who alone has the log's key beside the auditor."""
        if self.backed is None:
            self.backed = set()
            for name in sorted(self.files):
                if name.startswith("proofs/"):
                    with contextlib.suppress(Exception):  # what is wrong is said where it is looked at by itself
                        document = self.json(name)
                        self.check_note_of(document, document["sha256"])
                        self.backed.add((document["report"]["finished_ns"], document["report"]["policy"]))
        return (wall, policy) in self.backed

    def check_attested(self, name, state, checks, made):
        index = state["index"]
        event = self.event(index, "attestation-made")
        if event.get("check") != name:
            raise Wrong("rests on an attestation for something else")
        if index not in {row.get("index") for row in self.results["attestations"]}:
            raise Wrong("rests on the attestation of entry %d, which is not shown" % index)
        if int(event["until_ns"]) < made:
            raise Wrong("rests on an attestation that ended on %s" % when(int(event["until_ns"]))[:10])
        if made - ns(self.entries[index]["time"]) > (checks[name]["valid"] + 1) * 1_000_000_000:
            raise Wrong("rests on an attestation that is older than it counts")
        said = json.loads(event["statement"])
        exempt = [one for one in OF_ANY_POLICY if one not in SIGNED_BY_HASH]
        self.check_policy(name, exempt, said.get("policy"))
        if state["says"] != "%s signed for it" % event["person"] or list(state["facts"]) != signed_facts(said):
            raise Wrong("is shown with other words than were signed")

    def check_controls(self):
        if self.results is None:
            return
        report, now = self.results["report"], self.results["now"]
        counts = {}
        for row in report["rows"]:
            control = row["control"]
            where = "control %s" % control.get("id")
            self.attempt(where, self.check_control, control, row, now, report["made"][:10])
            counts[control["status"]] = counts.get(control["status"], 0) + 1
        if counts != report["coverage"]:
            self.wrong("results.json", "its counts by status are not those of its controls")
        page = self.files.get("report.html", b"")
        if not page.startswith(BEGINS):
            self.wrong("report.html", "does not begin as pages of ours do: a browser may read something else in it")
        page = page.decode("utf-8", "replace")
        if "<script" in page.lower():
            self.wrong("report.html", "holds a script")
        said = [(row["control"]["id"], row["control"]["status"]) for row in report["rows"]]
        self.attempt("report.html", self.check_page, page, said)
        self.attempt("report.csv", self.check_table, said)
        self.attempt("oscal/assessment-results.json", self.check_oscal, [status for _, status in said])

    def check_page(self, page, said):
        self.bounded("report.html", MAX_SHOWN)
        shown = Page(page)
        for one in shown.strange[:STRANGE]:
            self.wrong("report.html", "has what no page of ours has: %s" % one)
        self.same("report.html", shown.rows, said)

    def check_table(self, said):
        if "report.csv" in self.files:
            self.bounded("report.csv", MAX_SHOWN)
            rows = csv.DictReader(io.StringIO(self.files["report.csv"].decode(), newline=""))
            if len(set(rows.fieldnames or ())) != len(rows.fieldnames or ()):
                raise Wrong("has a column twice")
            self.same("report.csv", [(row["control"], row["status"]) for row in rows], said)

    def same(self, name, shown, said):
        if len(shown) != len(said):
            self.wrong(name, "shows %d controls, and the results have %d" % (len(shown), len(said)))
        elif shown != said:
            at = next(at for at in range(len(said)) if shown[at] != said[at])
            self.wrong(name, "shows %s as %s, and the results say %s: %s" % (shown[at] + said[at]))

    def check_oscal(self, said):
        document = self.json("oscal/assessment-results.json")
        if document is None:
            return
        found = document["assessment-results"]["results"][0].get("findings", [])
        shown = [prop["value"] for one in found for prop in one["props"] if prop["name"] == "status"]
        if shown != said or len(document["assessment-results"]["results"]) != 1:
            raise Wrong("says another status of a control than the results")
        for at, row in enumerate(self.results["report"]["rows"]):
            good = said[at] in ORDER[:4] and row["control"]["by"] != "part"
            if found[at]["target"]["status"]["state"] != ("satisfied" if good else "not-satisfied"):
                raise Wrong("says %s of a control otherwise" % found[at]["target"]["status"]["state"])

    def check_control(self, control, row, now, day):
        counting = [now[name] for name in control["checks"] if now[name]["counts"]]
        lacking = [name for name in control.get("needs", ()) if not now[name]["counts"]]
        failed = any(state["status"] == "failed" for state in counting)
        if control["by"] == "outside" or not counting or (lacking and not failed):
            weakest = "not covered"
        else:
            weakest = max((state["status"] for state in counting), key=ORDER.index)
        if control["status"] == "coming":
            if not control["starts"] > day:
                raise Wrong("is shown as coming, and is in force from %s on" % control["starts"])
            return
        if control["starts"] > day:
            raise Wrong("is shown as %s, and is not in force yet" % control["status"])
        if control["status"] != weakest:
            raise Wrong("is shown as %s, and its weakest check is %s" % (control["status"], weakest))
        if control["by"] == "part" and not control["rest"]:
            raise Wrong("is carried in part, and does not say what the operator shows")
        if [state["id"] for state in row["checks"]] != list(control["checks"]):
            raise Wrong("shows other checks than it rests on")
        for state in row["checks"]:
            if state != now[state["id"]]:
                raise Wrong("shows %s otherwise than the check itself" % state["id"])

    # --- people

    def check_signers(self):
        for one in self.json("signers.json") or []:
            event = self.event(one["added"], "signer-added")
            if (event.get("person"), event.get("key")) != (one["person"], one["key"]):
                raise Wrong("entry %d let somebody else sign" % one["added"])
            if one["removed"] >= 0:
                event = self.event(one["removed"], "signer-removed")
                if (event.get("person"), event.get("key")) != (one["person"], one["key"]):
                    raise Wrong("entry %d removed somebody else" % one["removed"])
            gone = self.gone.get((one["person"], one["key"]), [])
            at = bisect.bisect(gone, one["added"])
            if one["removed"] != (gone[at] if at < len(gone) else -1):
                raise Wrong("does not say as the entries do when %s ceased to sign" % one["person"])

    def read_people(self):
        """Whose key counted when, which statement came first, and what takes which back: by the entries themselves,
        once, since a gate in an intruder's hands may have said it of thousands."""
        for at in sorted(self.entries):
            event = self.entries[at]["event"]
            kind = event.get("kind")
            if kind in ("signer-added", "signer-removed"):
                if kind == "signer-removed":
                    self.gone.setdefault((event["person"], event["key"]), []).append(at)
                for name in {None, (event["key"].split()[1:2] or [""])[0]}:
                    times, keys, now = self.turns.setdefault((event["person"], name), ([], [], {}))
                    if kind == "signer-added":
                        now[event["key"]] = None
                    else:
                        now.pop(event["key"], None)
                    times.append(at)
                    keys.append(next(iter(now), None))
            elif kind == "attestation-made":
                self.said.setdefault(event["statement"], at)
            elif kind == "attestation-withdrawn":
                self.taken.setdefault(event["attestation"], []).append(at)

    def key_of(self, person, name, index):
        """A key of this person's at that entry that is named so (base64), or any of theirs; None of none."""
        times, keys, _ = self.turns.get((person, name), ([], [], {}))
        at = bisect.bisect_left(times, index)
        return keys[at - 1] if at else None

    def check_attestations(self):
        if self.results is None:
            return
        used = {state["index"] for state in self.results["now"].values() if state["status"] == "attested"}
        for row in self.results["attestations"]:
            where = "attestation of entry %s" % row.get("index")
            self.attempt(where, self.check_attestation, row, row["index"] in used)

    def check_attestation(self, row, is_used):
        event = self.event(row["index"], "attestation-made")
        for member in ("check", "person", "statement", "signature"):
            if row[member] != event.get(member):
                raise Wrong("says another %s than its entry" % member)
        said = json.loads(event["statement"])
        if (said.get("format"), said.get("check"), said.get("person"), said.get("site")) != (
            "cofferdam-attestation-v1", event["check"], event["person"], self.manifest.get("site"),
        ):  # fmt: skip
            raise Wrong("its statement is about something else")
        until = int(event["until_ns"])
        if said.get("until") != when(until):
            raise Wrong("its statement ends at another time")
        paper = (said.get("paper") or {}).get("sha256", "")
        if paper != event.get("paper", ""):
            raise Wrong("its statement is about another paper")
        self.check_signature(event, row["index"])
        first = self.said.get(event["statement"], row["index"])
        if first < row["index"]:
            raise Wrong("repeats the statement of entry %d" % first)
        withdrawn = [at for at in self.taken.get(row["index"], ()) if is_used and self.withdraws(at, row["index"])]
        if is_used and withdrawn:
            raise Wrong("counts in the report, and entry %d withdrew it" % withdrawn[0])
        if is_used and self.day is not None and until < self.day:
            raise Wrong("ended on %s" % when(until)[:10])

    def withdraws(self, at, index):
        """Whether this entry takes that attestation back, by somebody who might sign then."""
        event = self.entries[at]["event"]
        if event.get("kind") != "attestation-withdrawn" or event.get("attestation") != index or at < index:
            return False
        try:
            said = json.loads(event["statement"])
            if (said.get("format"), said.get("attestation"), said.get("person"), said.get("site")) != (
                "cofferdam-withdrawal-v1", index, event["person"], self.manifest.get("site"),
            ):  # fmt: skip
                return False
            self.check_signature(event, at)
        except (Wrong, ValueError, AttributeError, RecursionError):
            return False
        return True

    def check_signature(self, event, index):
        any_key = self.key_of(event["person"], None, index)
        if any_key is None:
            raise Wrong("%s was nobody who might sign then: never let, or removed before" % event["person"])
        named, problem = named_key(event["signature"]), "another key made it"
        key = any_key if named is None else self.key_of(event["person"], named, index)
        if key is not None:
            try:
                check_ssh(event["signature"], event["statement"].encode(), key)
                return
            except Wrong as error:
                problem = str(error)
        raise Wrong("its signature does not hold: %s" % problem)

    # --- documents

    def check_documents(self):
        proofs, papers, baselines = {}, set(), set()
        for entry in self.entries.values():
            event = entry["event"]
            if event.get("kind") == "proof-done":
                proofs[event["report"]] = event
            elif event.get("kind") == "attestation-made" and event.get("paper"):
                papers.add(event["paper"])
            elif event.get("kind") == "baseline-taken":
                baselines.add(event["baseline"])
                if event.get("statement"):
                    self.attempt("baseline of entry %s" % entry["index"], self.check_approval, event, entry["index"])
        missing = set(self.manifest.get("missing", []))
        for digest in sorted(proofs):
            self.attempt("proofs/%s.json" % digest[:16], self.check_proof, digest, proofs[digest], missing)
        for kind, end, digests in (("papers", "", papers), ("baselines", ".json", baselines)):
            for digest in sorted(digests):
                name = "%s/%s%s" % (kind, digest, end)
                if name in self.files:
                    if sha256(self.files[name]).hexdigest() != digest:
                        self.wrong(name, "is not the document that the log names")
                elif name not in missing:
                    self.wrong(name, "is named by the log, and neither in the pack nor said to be missing")
        for name in sorted(self.files):
            kind, _, rest = name.partition("/")
            known = {"proofs": set(proofs), "papers": papers, "baselines": baselines}.get(kind)
            if known is not None and rest.split(".")[0] not in known:
                self.wrong(name, "is named by no entry of the pack")

    def check_approval(self, event, index):
        said = json.loads(event["statement"])
        if (said.get("format"), said.get("baseline"), said.get("person"), said.get("site")) != (
            "cofferdam-baseline-approval-v1", event["baseline"], event["person"], self.manifest.get("site"),
        ):  # fmt: skip
            raise Wrong("its approval is about something else")
        self.check_signature(event, index)

    def check_proof(self, digest, event, missing):
        name = "proofs/%s.json" % digest
        if name not in self.files:
            if name not in missing:
                raise Wrong("is named by the log, and neither in the pack nor said to be missing")
            return
        document = self.json(name)
        self.check_note_of(document, digest)
        if document["report"]["site"] != self.manifest.get("site"):
            raise Wrong("is of another site")
        ok = not any(one["status"] == "failed" for one in document["report"]["statements"])
        if ok != document["report"]["ok"] or ok != (event["result"] == "proved"):
            raise Wrong("its verdict is not that of its statements")

    def check_note_of(self, document, digest):
        said = json.dumps(document["report"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if sha256(said.encode()).hexdigest() != digest or document["sha256"] != digest:
            raise Wrong("is not the report that the log names")
        text = self.key.open(document["note"].encode(), "the proof's note")
        if text.split("\n")[1] != digest:
            raise Wrong("its note is of another report")


def when(moment):
    found = datetime.datetime.fromtimestamp(moment // 1_000_000_000, UTC)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Checks a pack of evidence of a Cofferdam gate without Cofferdam.")
    parser.add_argument("pack", help="the zip file")
    parser.add_argument("--key", required=True, metavar="FILE", help="the log's public key, in vkey form")
    parser.add_argument("--checkpoint", metavar="FILE", help="a checkpoint of the log that was kept elsewhere")
    parser.add_argument("--witness", metavar="FILE", help="the key of a witness that must have signed, in vkey form")
    parser.add_argument("--at", metavar="DAY", help="name attestations that have ended by this day")
    args = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # a console that has not all letters loses no finding
    try:
        with open(args.key, encoding="utf-8", errors="replace") as file:
            key = Key(file.read())
        kept = None
        if args.checkpoint:
            with open(args.checkpoint, "rb") as file:
                kept = file.read()
        day = ns(args.at + "T00:00:00Z") if args.at else None
        witness = None
        if args.witness:
            with open(args.witness, encoding="utf-8") as file:
                witness = Witness(file.read())
        pack = Pack(args.pack, key, kept, day, print, witness)
        entries = pack.check()
    except (Unreadable, OSError, UnicodeDecodeError, ValueError) as error:
        print("verify_evidence: %s" % plain(str(error)), file=sys.stderr)
        return 2
    if pack.findings:
        print("WRONG: %d findings in the pack" % pack.findings)
        return 1
    print(plain("good: the pack of %s for %s as of %s, %d files, %d entries proven under a checkpoint of %d" % (
        pack.manifest["site"], pack.manifest["framework"], pack.results["report"]["made"], len(pack.files), entries,
        pack.size,
    )))  # fmt: skip
    for name in pack.manifest["missing"]:
        print(plain("  missing, as it says itself: %s" % name))
    for text in pack.notes[:100]:
        print(plain("  %s" % text))
    left = pack.manifest.get("left_out")
    if left:
        print("  left out, as it says itself: %d entries of its period, all before entry %d" % (
            left["entries"], left["below"],
        ))  # fmt: skip
    if pack.manifest.get("not_cited"):
        print("  left out, as it says itself: %d entries that its report names" % pack.manifest["not_cited"])
    if pack.cosigned is not None:
        size, at = pack.cosigned
        print("  %s has signed that its first %d entries are these, at %s" % (
            witness.name, size, when(at * 1_000_000_000),
        ))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
