"""Authenticode: the signature that a Windows file carries, of programs (PE), installer packages (MSI), cabinets (CAB,
MSU) and catalogues (CAT). Runs in the examiner, which may start no program: a strict reader of our own.

    PE    all bytes but the check sum, the entry that names the table of signatures, and that table at the end
    CAB   all bytes but the reserved words of the header, and the signature at the end
    MSI   each stream in order, and before them the names, sizes and times of all (MsiDigitalSignatureEx)
    CAT   the signature is the file

What no signature covers must be what the format has there, or nothing: data in the padding, behind the signature or
behind the last sector, parts of a program within the table of signatures, a package whose names nobody signed are
refused as "what is signed is not all of it".

Not here: the signature itself (cms), who signed (chains), nested signatures, page hashes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import IO, Final

from cofferdam.brokers.patch import cms
from cofferdam.brokers.patch.compound import DEEP, MAGIC, STORAGE, STREAM, Compound, Entry, NotCompound

SIGNATURE_BYTES: Final = 16 << 20
"""The largest signature: that of a catalogue of thousands of files."""
PIECE: Final = 1 << 20
_INDIRECT: Final = bytes.fromhex("2b060104018237020104")
_TRUST_LIST: Final = bytes.fromhex("2b0601040182370a01")
_PLAIN_SIGNATURE: Final = "\x05DigitalSignature\0".encode("utf-16-le")
_EX_SIGNATURE: Final = "\x05MsiDigitalSignatureEx\0".encode("utf-16-le")
_NOT_ALL: Final = "what is signed is not all of it"
_CAB_RESERVED: Final = bytes.fromhex("00001000")
_SECTIONS_MOST: Final = 96

Hashing = Callable[[str], bytes]
"""The file's hash, by the name of an algorithm."""


def signer(opened: IO[bytes], length: int) -> tuple[str, cms.Signed]:
    """(what kind of file it is, its signature, which holds over all of it).

    Raises:
        NotSigned, NotCompound: with the reason.
    """
    opened.seek(0)
    head = opened.read(8)
    opened.seek(0)
    if head[:2] == b"MZ":
        return "PE", _holds(*_pe(opened, length))
    if head[:4] == b"MSCF":
        return "CAB", _holds(*_cab(opened, length))
    if head == MAGIC:
        return "MSI", _holds(*_msi(opened, length))
    if head[:1] == b"\x30" and length <= SIGNATURE_BYTES:
        return "CAT", cms.opened_signature(opened.read(), (_TRUST_LIST,))
    raise cms.NotSigned("no PE, MSI, CAB or CAT file: Authenticode is checked in those alone")


def _holds(signature: bytes, hashing: Hashing) -> cms.Signed:
    """Whether the signature holds, and is over this file. Raises: NotSigned."""
    signed = cms.opened_signature(signature, (_INDIRECT,))
    indirect = cms.Der(signed.content)
    indirect.take(cms.SEQUENCE)
    said = cms.Der(indirect.take(cms.SEQUENCE))
    indirect.end()
    name, _ = cms.hash_of(cms.Der(said.take(cms.SEQUENCE)).take(cms.OID))
    digest = said.take(cms.OCTETS)
    said.end()
    if hashing(name) != digest:
        raise cms.NotSigned("the Authenticode signature does not hold: the file is another than was signed")
    return signed


def _hash(opened: IO[bytes], name: str, *parts: tuple[int, int]) -> bytes:
    """Of the bytes from one place up to another, part by part."""
    made = hashlib.new(name)
    for start, stop in parts:
        opened.seek(start)
        while start < stop:
            piece = opened.read(min(PIECE, stop - start))
            if not piece:
                raise cms.NotSigned("the file is cut off")
            made.update(piece)
            start += len(piece)
    return made.digest()


def _at(opened: IO[bytes], start: int, count: int) -> bytes:
    opened.seek(start)
    data = opened.read(count)
    if len(data) != count:
        raise cms.NotSigned("the file is cut off")
    return data


def _pe(opened: IO[bytes], length: int) -> tuple[bytes, Hashing]:
    """Raises: NotSigned."""
    header = int.from_bytes(_at(opened, 0x3C, 4), "little")
    if not 0x40 <= header <= length - 256 or _at(opened, header, 4) != b"PE\0\0":
        raise cms.NotSigned("a PE file that cannot be read")
    sections, optional = struct.unpack("<H12xH", _at(opened, header + 6, 16))
    head = header + 24
    wide = {0x10B: 0, 0x20B: 16}.get(int.from_bytes(_at(opened, head, 2), "little"), -1)
    if wide < 0 or optional < 136 + wide or sections > _SECTIONS_MOST:
        raise cms.NotSigned("a PE file that cannot be read")
    count = int.from_bytes(_at(opened, head + 92 + wide, 4), "little")
    if count < 5 or 96 + wide + 8 * count > optional:
        raise cms.NotSigned("it has no Authenticode signature")
    entry = head + 128 + wide
    start, size = struct.unpack("<II", _at(opened, entry, 8))
    if not start and not size:
        raise cms.NotSigned("it has no Authenticode signature")
    if start + size != length:
        raise cms.NotSigned(f"{_NOT_ALL}: data behind the signature")
    ends = [int.from_bytes(_at(opened, head + 60, 4), "little"), head + optional + 40 * sections]
    for number in range(sections):
        raw, at = struct.unpack("<II", _at(opened, head + optional + 40 * number + 16, 8))
        ends.append(at + raw if raw else 0)
    if max(ends) > start or start % 8:
        raise cms.NotSigned(f"{_NOT_ALL}: parts of the program are in the table of signatures")
    signature = _in_table(_at(opened, start, size) if size <= SIGNATURE_BYTES else b"")
    return signature, lambda name: _hash(opened, name, (0, head + 64), (head + 68, entry), (entry + 8, start))


def _in_table(table: bytes) -> bytes:
    """The one signature in a PE file's table of them. Raises: NotSigned."""
    if len(table) < 8:
        raise cms.NotSigned("a PE file with a table of signatures that is none")
    length, revision, kind = struct.unpack_from("<IHH", table)
    if (revision, kind) != (0x0200, 2) or not 8 < length <= len(table):
        raise cms.NotSigned(f"{_NOT_ALL}: a table of signatures that is wrong")
    if (length + 7) & ~7 < len(table):
        raise cms.NotSigned("it has several signatures: it is not said which counts")
    return _unpadded(table[8:length], table[length:])


def _unpadded(data: bytes, more: bytes = b"") -> bytes:
    """The signature without the zeros to the next multiple of eight. Raises: NotSigned."""
    whole = cms.Der(data).whole(cms.SEQUENCE)[0]
    padding = data[len(whole) :] + more
    if len(padding) > 7 or any(padding):
        raise cms.NotSigned(f"{_NOT_ALL}: data in the padding of the signature")
    return whole


def _cab(opened: IO[bytes], length: int) -> tuple[bytes, Hashing]:
    """Raises: NotSigned."""
    head = _at(opened, 0, 60) if length > 60 else b""
    if not head or not int.from_bytes(head[30:32], "little") & 4 or int.from_bytes(head[36:38], "little") != 20:
        raise cms.NotSigned("it has no Authenticode signature")
    if head[30] & 3 or any(head[34:36]):
        raise cms.NotSigned(f"{_NOT_ALL}: a cabinet of a set, which goes on in others")
    start, size = struct.unpack_from("<II", head, 44)
    if not start or not size:
        raise cms.NotSigned("it has no Authenticode signature")
    if start + size != length or start < 60:
        raise cms.NotSigned(f"{_NOT_ALL}: data behind the signature")
    if any(head[4:8]) or head[38:44] != b"\0\0" + _CAB_RESERVED or any(head[52:56]):
        raise cms.NotSigned(f"{_NOT_ALL}: data in the reserved words of the cabinet")
    signature = _unpadded(_at(opened, start, size) if size <= SIGNATURE_BYTES else b"")
    return signature, lambda name: _hash(opened, name, (0, 4), (8, 34), (56, start))


def _msi(opened: IO[bytes], length: int) -> tuple[bytes, Hashing]:
    """Raises: NotSigned, NotCompound."""
    package = Compound(opened, length)
    seen: set[int] = set()
    tree = _tree(package, package.root, seen, 0)
    package.alone(seen)
    signatures = {one.name: one for one, _ in tree if one.name in (_PLAIN_SIGNATURE, _EX_SIGNATURE)}
    plain, ex = signatures.get(_PLAIN_SIGNATURE), signatures.get(_EX_SIGNATURE)
    if plain is None:
        raise cms.NotSigned("it has no Authenticode signature")
    if ex is None:
        raise cms.NotSigned(f"{_NOT_ALL}: the names in the package are not (MsiDigitalSignatureEx is missing)")
    signature = b"".join(package.stream(plain)) if plain.size <= SIGNATURE_BYTES else b""
    told = b"".join(package.stream(ex)) if ex.size <= 64 else b""
    tree = [each for each in tree if each[0] not in (plain, ex)]

    def hashing(name: str) -> bytes:
        names, made = hashlib.new(name), hashlib.new(name)
        names.update(_about(package.root))
        _names(tree, names.update)
        if names.digest() != told:
            raise cms.NotSigned("the Authenticode signature does not hold: names in the package were changed")
        made.update(told)
        _contents(package, package.root, tree, made.update)
        package.end()
        return made.digest()

    return _unpadded(signature), hashing


Tree = list[tuple[Entry, "Tree"]]


def _tree(package: Compound, storage: Entry, seen: set[int], depth: int) -> Tree:
    """Raises: NotCompound."""
    if depth > DEEP:
        raise NotCompound(f"storages in storages, deeper than {DEEP}")
    return [
        (one, _tree(package, one, seen, depth + 1) if one.kind == STORAGE else [])
        for one in package.children(storage, seen)
    ]


def _about(one: Entry) -> bytes:
    """What is signed of an entry besides its contents."""
    if one.kind == STREAM:
        return one.name[:-2] + (one.size & 0xFFFFFFFF).to_bytes(4, "little") + one.state + one.times
    if one.kind == STORAGE:
        return one.name[:-2] + one.clsid + one.state + one.times
    return one.clsid + one.state


def _names(tree: Tree, feed: Callable[[bytes], None]) -> None:
    for one, beneath in tree:
        feed(_about(one))
        _names(beneath, feed)


def _contents(package: Compound, storage: Entry, tree: Tree, feed: Callable[[bytes], None]) -> None:
    for one, beneath in tree:
        if one.kind == STORAGE:
            _contents(package, one, beneath, feed)
        else:
            for piece in package.stream(one):
                feed(piece)
    feed(storage.clsid)
