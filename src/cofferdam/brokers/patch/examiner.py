"""The examiner: one process for one file, thrown away afterwards (enforce.profile, Crew.jobs).

It reads what a stranger made: signatures, archives, and whatever a library finds in them. So it has no network and no
store, sees the keeper's files read-only, and says one thing. The keeper holds its answer to what it can check itself
(the hash), and shows people the rest.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from cofferdam.brokers.broker import Job
from cofferdam.brokers.kit import archives
from cofferdam.brokers.kit import clamd as scanner
from cofferdam.brokers.kit.source import Source
from cofferdam.brokers.patch import apt_bundle, debs, origin, wsus_bundle, yara
from cofferdam.brokers.patch.reports import Order, Report
from cofferdam.brokers.patch.sealing import Kept
from cofferdam.errors import CofferdamError

PIECE: Final = 1 << 20
KEYS_BYTES: Final = 4 << 20
ABSENT: Final = scanner.Scanned("not scanned", "no scanner: give its socket with `cofferdam up --socket clamd=PATH`")


def examine(job: Job) -> bytes:
    """The work of the job. Raises: CofferdamError: the order makes no sense."""
    order = msgspec.json.decode(job.arguments, type=Order)
    store = job.reads["keeper"]
    if not order.file:
        return _scanner_alone(job.sockets.get("clamd", ""))
    file = _kept(store, order, order.file)
    whole = _Hash()
    refused, said, facts = "", "", {}
    try:
        proved = _prove(store, order, file)
        said, facts = proved.detail, proved.facts
    except origin.NotProved as error:
        refused = str(error)
    archive, kind, counting = "", "opaque to the scanner: no archive that is known here", None
    try:
        # Only what its maker signed gets as far as the readers of archives.
        counting = archives.look(file, password=order.password) if not refused else None
        if counting is None:
            kind = "not looked into"
        elif counting.deepest:
            kind = f"archive, {counting.entries} entries, {counting.unpacked} bytes unpacked, {counting.deepest} deep"
    except archives.ArchiveRefused as error:
        archive = str(error)
    before = "it was refused before" if refused or archive else ""
    scanned = scanner.Scanned("not scanned", before, "")
    if not refused and not archive and order.scan == "clamd":
        path = job.sockets.get("clamd", "")
        largest = counting.largest if counting is not None and order.proof not in ("apt", "wsus") else 0
        parts = archives.contents(file, order.password) if counting and counting.sealed else _parts(order, file)
        scanned = scanner.scan(path, file, parts, largest=largest, seen=whole.add) if path else ABSENT
    if not refused and not archive and order.yara and scanned.verdict in ("clean", "not scanned"):
        scanned = _yara(scanned, order, store, file)
    if whole.size != file.stat().st_size:  # no scanner was given all of it
        whole = _hash(file)
    return msgspec.json.encode(
        Report(
            sha256=whole.digest.hexdigest(),
            size=whole.size,
            origin=said[:1000],
            refused=refused[:1000],
            facts={name[:64]: value[:1000] for name, value in facts.items()},
            kind=kind,
            archive=archive[:1000],
            scan=scanned.verdict if order.scan or order.yara else "not asked",
            scan_detail=scanned.detail[:1000],
            base=scanned.base[:1000],
        )
    )


def _scanner_alone(path: str) -> bytes:
    """Whether it works: what it has to find before each file, and no file."""
    found = scanner.scan(path, Path(path), (), largest=0) if path else ABSENT
    nothing = hashlib.sha256().hexdigest()
    return msgspec.json.encode(
        Report(
            sha256=nothing, size=0, origin="", refused="", facts={}, kind="", archive="", scan=found.verdict,
            scan_detail=found.detail[:1000], base=found.base[:1000],
        )
    )  # fmt: skip


def _parts(order: Order, file: Source) -> scanner.Parts | None:
    """A repository is scanned package by package and an export file by file (as a whole they are larger than scanners
    look), and a package by what it is made of."""
    if order.proof == "apt":
        return apt_bundle.contents(file)
    if order.proof == "wsus":
        return wsus_bundle.contents(file)
    with file.open("rb") as opened:
        is_package = opened.read(len(debs.MAGIC)) == debs.MAGIC
    return debs.of(file) if is_package else None


def _prove(store: Path, order: Order, file: Source) -> origin.Proved:
    """Raises: NotProved."""

    def read(names: tuple[str, ...]) -> list[bytes]:
        return [_read(store, order, name, KEYS_BYTES) for name in names]

    pins = origin.Pins(read(order.keys), order.publisher, read(order.stamps), order.identity, order.issuer)
    if order.proof == "apt":
        return apt_bundle.prove(file, order.version, pins.keys, order.packages)
    if order.proof == "two-sources":
        if not order.second:
            raise origin.NotProved("it has come by one way only")
        facts = {"first": order.first, "second": order.second}
        return origin.Proved(f"TWO SOURCES, unsigned by its maker: {order.first}, and {order.second}", facts)
    signature = _read(store, order, order.signature, origin.SIGNATURE_BYTES) if order.signature else b""
    if order.proof == "wsus":
        return wsus_bundle.prove(file, signature, read(order.exporters), pins)
    if order.list:
        listed = _kept(store, order, order.list)
        proved = origin.prove(order.proof, listed, signature, pins, lines=True)
        names = _read(store, order, order.list, origin.SIGNATURE_BYTES)
        origin.in_list(names, order.name, _hash(file).digest.hexdigest())
        return origin.Proved(f"{proved.detail}, by its list of SHA-256", {**proved.facts, "list": "SHA-256"})
    return origin.prove(order.proof, file, signature, pins)


def _yara(before: scanner.Scanned, order: Order, store: Path, file: Source) -> scanner.Scanned:
    """The site's own rules, besides what a scanner says. Without one, they are the scan."""
    found = yara.scan(_read(store, order, order.yara, KEYS_BYTES), file, order.password)
    if found.verdict != "clean":
        return found
    if not order.scan:
        return found
    return before if before.verdict != "clean" else scanner.Scanned("clean", "", f"{before.base}; {found.base}")


def _kept(store: Path, order: Order, name: str) -> Kept:
    """A file of the keeper's. Raises: CofferdamError."""
    path, feed = store / name, store / order.feed if order.feed and name == order.file else None
    for each in (path, feed):
        if each is not None and (".." in each.parts or not each.is_relative_to(store) or each.is_symlink()):
            raise CofferdamError("the order names no file of the store")
    if not path.is_file() or (feed is not None and not feed.is_fifo()):
        raise CofferdamError("the order names no file of the store")
    return Kept(path, order.opens.get(name, b""), feed)


def _read(store: Path, order: Order, name: str, most: int) -> bytes:
    with _kept(store, order, name).open("rb") as opened:
        data: bytes = opened.read(most + 1)
    if len(data) > most:
        raise CofferdamError(f"{name} has more than {most} bytes")
    return data


class _Hash:
    """Of what it was given so far."""

    def __init__(self) -> None:
        self.digest, self.size = hashlib.sha256(), 0

    def add(self, piece: bytes | memoryview) -> None:
        self.digest.update(piece)
        self.size += len(piece)


def _hash(file: Source) -> _Hash:
    whole, buffer = _Hash(), memoryview(bytearray(PIECE))
    with file.open("rb", buffering=0) as opened:
        while count := opened.readinto(buffer):
            whole.add(buffer[:count])
    return whole
