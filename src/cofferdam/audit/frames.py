"""The bytes of the journal: what makes an append durable before it stands in tiles and under a checkpoint.

The journal is a row of segments, `journal/<index of its first entry, 20 digits>`. A segment is a header of text and
then frames, one per append (group commit), in a file that is allocated ahead and so ends in zeros:

    header   "cofferdam journal v1" LF origin LF first index LF base64 of the tree's root at that size LF LF
    frame    "CofF" | u32 payload bytes | u64 first index | u32 entries | 4 bytes check | payload | signature | LF

Numbers are big-endian, the payload is an entry bundle (tiles.join_entries). A chain of SHA-256 runs through the
frames: it begins with the hash of the header, and each frame's digest is the hash of the digest before, the first 20
bytes of the frame and the payload. `check` is the beginning of the hash of the digest before and these 20 bytes. The
signature is Ed25519 by the log's key over a fixed prefix and the digest. The prefix holds a zero byte, which no signed
note can hold.

A frame that a power cut left unfinished has lost whole disk sectors, which then read as zeros, and a frame that is
whole has no 512 zero bytes in a row. That tells an unfinished append, which nobody was promised and which may be cut
off, from a changed byte, which may not.

Not here: files (log).
"""

from __future__ import annotations

import base64
import struct
from hashlib import sha256

import msgspec

from cofferdam.audit.checkpoint import SignerKey, VerifierKey
from cofferdam.audit.tiles import join_entries, split_entries
from cofferdam.errors import AuditError

MAGIC = b"CofF"
HEAD = struct.Struct(">4sIQI")
CHECK_BYTES, SIGNATURE_BYTES = 4, 64
START = HEAD.size + CHECK_BYTES
TAIL = SIGNATURE_BYTES + 1
SECTOR = 512
MAX_PAYLOAD = 256 << 20
"""The largest payload that a reader takes for possible (bytes)."""
FIRST_LINE = "cofferdam journal v1"
PREFIX = b"cofferdam journal frame\x00"
FOLDER = "journal"
_ZEROS = bytes(1 << 16)


class Frame(msgspec.Struct, frozen=True):
    """One append as read back: its place in the file, the index of its first entry, its entries."""

    offset: int
    first: int
    entries: list[bytes]


class Segment(msgspec.Struct):
    """A segment as read back. `end` is where its last good frame ends, `digest` the chain there. `damage` says what is
    wrong at `end`, if anything; `cut_bytes` is the length of an unfinished append there (then `damage` is "")."""

    path: str
    first: int
    root: bytes
    frames: list[Frame]
    end: int
    digest: bytes
    damage: str = ""
    cut_bytes: int = 0

    @property
    def stop(self) -> int:
        """The index after the segment's last entry."""
        return self.frames[-1].first + len(self.frames[-1].entries) if self.frames else self.first


def segment_path(first: int) -> str:
    """The path of the segment that begins with entry `first`."""
    return f"{FOLDER}/{first:020d}"


def segment_header(origin: str, first: int, root: bytes) -> bytes:
    """The header of a segment."""
    return f"{FIRST_LINE}\n{origin}\n{first}\n{base64.b64encode(root).decode()}\n\n".encode()


def make_frame(digest: bytes, first: int, entries: list[bytes], key: SignerKey) -> tuple[bytes, bytes]:
    """The bytes of a frame behind `digest`, and the digest after it."""
    payload = join_entries(entries)
    head = HEAD.pack(MAGIC, len(payload), first, len(entries))
    chain = sha256(digest + head)
    check = chain.digest()[:CHECK_BYTES]
    chain.update(payload)
    after = chain.digest()
    return b"".join((head, check, payload, key.sign(PREFIX + after), b"\n")), after


def read_segment(path: str, data: bytes, key: VerifierKey) -> Segment:
    """What a segment's file holds. Raises: AuditError if its header is not whole."""
    lines = data[:4096].split(b"\n", 5)
    try:
        first = int(lines[2])
        root = base64.b64decode(lines[3], validate=True)
        header = segment_header(key.name, first, root)
    except (IndexError, ValueError) as error:
        raise AuditError(f"{path}: the head of this journal segment is missing or was changed") from error
    if not data.startswith(header) or path != segment_path(first) or len(root) != 32:
        raise AuditError(f"{path}: the head of this journal segment was changed, or it is of another log")
    segment = Segment(path, first, root, [], len(header), sha256(header).digest())
    used = _written(data)
    while segment.end < used:
        problem = _read_frame(data, segment, key)
        if problem:
            if _unfinished(data, segment, used):
                segment.cut_bytes = used - segment.end
            else:
                segment.damage = problem
            break
    return segment


def _written(data: bytes) -> int:
    """Bytes before the zeros that a segment ends in: megabytes of them, which are compared and not counted."""
    end, step = len(data), len(_ZEROS)
    while end > step and data[end - step : end] == _ZEROS:
        end -= step
    start = max(0, end - step)
    return start + len(data[start:end].rstrip(b"\x00"))


def _head(data: bytes, at: int, digest: bytes) -> tuple[int, int, int] | None:
    """(payload bytes, first index, entries) of the frame at `at`, if its head is whole."""
    if at + START > len(data):
        return None
    magic, length, first, count = HEAD.unpack_from(data, at)
    check = sha256(digest + data[at : at + HEAD.size]).digest()[:CHECK_BYTES]
    if magic != MAGIC or check != data[at + HEAD.size : at + START] or length > MAX_PAYLOAD:
        return None
    return length, first, count


def _read_frame(data: bytes, segment: Segment, key: VerifierKey) -> str:
    """Take the frame at `segment.end` in; returns what is wrong with it, or ""."""
    at = segment.end
    head = _head(data, at, segment.digest)
    if head is None:
        return "the head of a frame was changed"
    length, first, count = head
    stop = at + START + length
    if stop + TAIL > len(data):
        return "the file ends inside a frame"
    digest = sha256(segment.digest + data[at : at + HEAD.size] + data[at + START : stop]).digest()
    signature = data[stop : stop + SIGNATURE_BYTES]
    if data[stop + SIGNATURE_BYTES] != 10 or not key.verify(PREFIX + digest, signature):
        return "the signature of a frame does not fit it: a byte was changed"
    entries, left = split_entries(data[at + START : stop])
    if left or len(entries) != count or first != segment.stop or not count:
        return "a frame does not follow the one before"
    segment.frames.append(Frame(at, first, entries))
    segment.end, segment.digest = stop + TAIL, digest
    return ""


def _unfinished(data: bytes, segment: Segment, used: int) -> bool:
    """Is what stands at `segment.end` an append that a crash left unfinished (and not a changed byte)?"""
    at = segment.end
    # Appends come one after the other, each durable before the next: whole frames behind it mean damage.
    found = data.find(MAGIC, at + 1, used)
    while found >= 0:
        if found + START <= used:
            _, length, first, count = HEAD.unpack_from(data, found)
            stop = found + START + length
            if stop + TAIL <= len(data) and first >= segment.stop and data[stop + SIGNATURE_BYTES] == 10:
                entries, left = split_entries(data[found + START : stop])
                if not left and len(entries) == count:
                    return False
        found = data.find(MAGIC, found + 1, used)
    head = _head(data, at, segment.digest)
    stop = at + START if head is None else at + START + head[0] + TAIL
    if stop > len(data):
        return False  # the file is allocated before a frame is written: it was cut short by someone else
    while at < stop:
        end = min((at // SECTOR + 1) * SECTOR, stop)
        if not data[at:end].strip(b"\x00"):
            return True
        at = end
    return False
