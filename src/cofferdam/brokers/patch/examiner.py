"""The examiner: one process for one file, thrown away afterwards (enforce.profile, Crew.jobs).

It reads what a stranger made: signatures, archives, and whatever a library finds in them. So it has no network and no
store, sees the keeper's files read-only, and says one thing. The keeper holds its answer to what it can check itself
(the hash), and shows people the rest.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from cofferdam.brokers.broker import Job
from cofferdam.brokers.kit import clamd as scanner
from cofferdam.brokers.patch import archives, origin
from cofferdam.errors import CofferdamError

Text = Annotated[str, Meta(max_length=1000)]
PIECE: Final = 1 << 20
KEYS_BYTES: Final = 4 << 20


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """What to look at: paths beneath the keeper's store."""

    file: str
    proof: str
    keys: tuple[str, ...]
    publisher: str = ""
    signature: str = ""
    scan: str = ""


class Report(Struct, frozen=True, forbid_unknown_fields=True):
    """What was found. `proved`: "" or why its origin is not; `archive`: "" or why it is refused as one."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Meta(ge=0)]
    origin: Text
    refused: Text
    facts: Annotated[dict[Annotated[str, Meta(max_length=64)], Text], Meta(max_length=16)]
    kind: Text
    archive: Text
    scan: Literal["clean", "found", "not scanned", "not asked"]
    scan_detail: Text
    base: Text


def examine(job: Job) -> bytes:
    """The work of the job. Raises: CofferdamError: the order makes no sense."""
    order = msgspec.json.decode(job.arguments, type=Order)
    store = job.reads["keeper"]
    file = _beneath(store, order.file)
    digest, size = _hash(file)
    refused, said, facts = "", "", {}
    try:
        keys = [_read(store, key, KEYS_BYTES) for key in order.keys]
        signature = _read(store, order.signature, origin.SIGNATURE_BYTES) if order.signature else b""
        proved = origin.prove(order.proof, file, signature, keys, order.publisher)
        said, facts = proved.detail, proved.facts
    except origin.NotProved as error:
        refused = str(error)
    archive, kind = "", "opaque to the scanner: no archive that is known here"
    try:
        # Only what its maker signed gets as far as the readers of archives.
        counting = archives.look(file) if not refused else None
        if counting is None:
            kind = "not looked into"
        elif counting.deepest:
            kind = f"archive, {counting.entries} entries, {counting.unpacked} bytes unpacked, {counting.deepest} deep"
    except archives.ArchiveRefused as error:
        archive = str(error)
    scanned = scanner.Scanned("not scanned", "it was refused before", "")
    if not refused and not archive and order.scan == "clamd":
        path = job.sockets.get("clamd", "")
        absent = scanner.Scanned("not scanned", "no scanner: give its socket with `cofferdam up --socket clamd=PATH`")
        scanned = scanner.scan(path, file) if path else absent
    return msgspec.json.encode(
        Report(
            sha256=digest,
            size=size,
            origin=said[:1000],
            refused=refused[:1000],
            facts={name[:64]: value[:1000] for name, value in facts.items()},
            kind=kind,
            archive=archive[:1000],
            scan=scanned.verdict if order.scan else "not asked",
            scan_detail=scanned.detail[:1000],
            base=scanned.base[:1000],
        )
    )


def _beneath(store: Path, name: str) -> Path:
    path = store / name
    if ".." in Path(name).parts or not path.is_relative_to(store) or path.is_symlink() or not path.is_file():
        raise CofferdamError("the order names no file of the store")
    return path


def _read(store: Path, name: str, most: int) -> bytes:
    with _beneath(store, name).open("rb") as opened:
        data = opened.read(most + 1)
    if len(data) > most:
        raise CofferdamError(f"{name} has more than {most} bytes")
    return data


def _hash(file: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size
