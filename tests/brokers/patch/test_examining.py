"""What the keeper makes of an examiner's answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.catalogue import FileRow
from cofferdam.brokers.patch.examining import Examining
from cofferdam.brokers.patch.feeding import FOLDER, LEAST_BYTES, MODE, Feed
from cofferdam.brokers.patch.reports import Order, Report
from cofferdam.brokers.patch.sealing import Sealing
from cofferdam.crossing.reactor import Reactor
from cofferdam.policy.terms.patch_rows import Origin, PatchRows, Product
from tests.brokers.patch.test_keeper_verbs import Log
from tests.disk import library, needs_gcc
from tests.waiting import PATIENT

HOSTS = Product(name="hosts", origin=Origin(proof="apt", keys=()), most=1, scan="")


@pytest.mark.parametrize(
    ("date", "suite", "state"),
    [
        ("20270101T000000Z", "stable", "passed"),
        ("20261201T000000Z", "stable", "refused"),  # the vendor's own signature, and a mirror that holds time back
        ("20261201T000000Z", "stable-security", "passed"),
    ],
)
def test_a_repository_that_is_older_than_the_last_is_refused(tmp_path: Path, date: str, suite: str, state: str) -> None:
    files: Table[FileRow] = Table(Book(tmp_path / "book.db"), "file", FileRow)
    log = Log()
    keeper: Any = SimpleNamespace(
        files=files, now=1, keep=lambda row: files.put(row.number, row), thin=lambda: None, product_of=lambda _: HOSTS,
        setting=SimpleNamespace(audit=log), figures_=SimpleNamespace(add=lambda *_: None),
    )  # fmt: skip

    def came(number: int, date: str, suite: str) -> FileRow:
        files.put(number, FileRow(number=number, product="hosts", version=str(number), file="f", size=1, sha256="ab",
                                  by="debian", how="fetch", at=1, state="examining"))  # fmt: skip
        report = Report(sha256="ab", size=1, origin="apt", facts={"date": date, "suite": suite}, refused="",
                        archive="", kind="", scan="not asked", scan_detail="", base="")  # fmt: skip
        Examining(keeper).judge(number, report, "")
        log.write(True)
        found = files.get(number)
        assert found is not None
        return found

    assert came(1, "20261215T000000Z", "stable").state == "passed"
    found = came(2, date, suite)
    assert found.state == state, found
    assert ("older repository than file 1" in found.reason) == (state == "refused")


GOOD = Report(sha256="ab" * 32, size=3 * LEAST_BYTES, origin="o", refused="", facts={}, kind="k", archive="",
              scan="clean", scan_detail="", base="clamd")  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "error", "state", "says"),
    [
        (msgspec.json.encode(GOOD), "", "passed", ""),
        (msgspec.json.encode(GOOD), "unread", "failed", "has not read all of it"),
        (msgspec.json.encode(replace(GOOD, sha256="cd" * 32)), "", "refused", "another file than came"),
        (msgspec.json.encode(replace(GOOD, size=4)), "", "refused", "another file than came"),
        (msgspec.json.encode(replace(GOOD, scan="not asked")), "", "not-scanned", "no scanner has looked at it"),
        (msgspec.json.encode(replace(GOOD, scan="found", scan_detail="Eicar")), "", "refused", "found Eicar"),
        (msgspec.json.encode(replace(GOOD, refused="no key")), "", "refused", "no key"),
        (msgspec.json.encode(GOOD).replace(b'"clean"', b'"certified"'), "", "failed", "makes no sense"),
        (msgspec.json.encode(GOOD)[:-1] + b', "release": true}', "", "failed", "makes no sense"),
        (b"\xff" * 99, "", "failed", "makes no sense"),
        (b"", "it was not done within 900 s", "failed", "not done within"),
    ],
)
def test_what_an_examiner_that_was_taken_over_may_say(
    tmp_path: Path, answer: bytes, error: str, state: str, says: str
) -> None:
    error, reads = ("", False) if error == "unread" else (error, True)
    files: Table[FileRow] = Table(Book(tmp_path / "book.db"), "file", FileRow)
    log, product = Log(), Product(name="fw", origin=Origin(proof="pgp", keys=()), most=1, scan="clamd")
    for folder in ("quarantine", FOLDER):
        (tmp_path / folder).mkdir()
    sealing = Sealing(b"k" * 32, encrypt=True)
    out = sealing.create(tmp_path / "quarantine" / "1")
    out.write(b"abc" * LEAST_BYTES)
    out.sync()
    out.close()
    ordered: list[Any] = []
    keeper: Any = SimpleNamespace(
        files=files, now=1, store=tmp_path, stopping=False, keep=lambda row: files.put(row.number, row),
        thin=lambda: None, product_of=lambda _: product, figures_=SimpleNamespace(add=lambda *_: None), passwords={},
        rows=PatchRows(products=(product,)), sealing=sealing,
        setting=SimpleNamespace(audit=log, reactor=Reactor(),
                                run_job=lambda _name, order, done: ordered.append((order, done))),
    )  # fmt: skip
    files.put(1, FileRow(number=1, product="fw", version="1", file="f", size=3 * LEAST_BYTES, sha256="ab" * 32,
                         by="stage", how="put", at=1, state="examining"))  # fmt: skip
    Examining(keeper).add(1)
    ((asked, done),) = ordered
    order = msgspec.json.decode(asked, type=Order)
    assert order.opens == {"quarantine/1": sealing.key_of(tmp_path / "quarantine" / "1")}
    assert (tmp_path / order.feed).is_fifo() and sealing.key not in order.opens.values()
    if reads:
        with (tmp_path / order.feed).open("rb", buffering=0) as opened:
            os.set_blocking(opened.fileno(), False)
            while (tmp_path / order.feed).exists():
                keeper.setting.reactor.turn(0.1)
                opened.read()
    done(answer, error)
    log.write(True)
    row = files.rows["1"]
    assert (row.state, says in row.reason) == (state, True), row
    assert not list((tmp_path / FOLDER).iterdir())


def test_however_many_wait_that_cannot_be_read_each_is_told(tmp_path: Path) -> None:
    """The quarantine's disk fails, or its key is gone, while a thousand wait for an examiner."""
    files: Table[FileRow] = Table(Book(tmp_path / "book.db"), "file", FileRow)
    log, ordered = Log(), list[Any]()
    keeper: Any = SimpleNamespace(
        files=files, now=1, store=tmp_path, stopping=False, keep=lambda row: files.put(row.number, row),
        thin=lambda: None, product_of=lambda _: HOSTS, figures_=SimpleNamespace(add=lambda *_: None), passwords={},
        rows=PatchRows(products=(HOSTS,)), sealing=Sealing(b"k" * 32, encrypt=True),
        setting=SimpleNamespace(audit=log, run_job=lambda _name, _order, done: ordered.append(done)),
    )  # fmt: skip
    (tmp_path / "quarantine").mkdir()
    examining, count = Examining(keeper), 2 + sys.getrecursionlimit()
    for number in range(1, count + 1):
        files.put(number, FileRow(number=number, product="hosts", version="1", file="f", size=1, sha256="ab",
                                  by="debian", how="fetch", at=1, state="examining"))  # fmt: skip
        if number <= 2:  # they are being looked at, and all others wait
            (tmp_path / "quarantine" / str(number)).write_bytes(b"x")
        examining.add(number)
    for done in ordered:
        done(b"", "the examiner has ended")
    log.write(True)
    assert len(ordered) == 2
    reasons = [row.reason for row in files.rows.values() if row.state == "failed"]
    assert reasons.count("the keeper's disk: No such file or directory") == count - 2 and len(reasons) == count


@pytest.mark.parametrize("state", ["whole", "damaged", "nobody reads", "somebody stops reading"])
def test_a_file_is_fed_to_its_end_or_it_is_said_why_not(tmp_path: Path, state: str) -> None:
    (tmp_path / FOLDER).mkdir(mode=MODE)
    assert (tmp_path / FOLDER).stat().st_mode & 0o044 == 0  # nobody but the keeper lists it
    sealing, file, data = Sealing(b"k" * 32, encrypt=True), tmp_path / "f", os.urandom(LEAST_BYTES)
    out = sealing.create(file)
    out.write(data)
    out.sync()
    out.close()
    if state == "damaged":
        with file.open("r+b") as opened:
            opened.seek(LEAST_BYTES // 2)
            opened.write(bytes(64))
    reactor, got = Reactor(), bytearray()
    feed = Feed(reactor, tmp_path, "1", sealing.pieces(file))
    path, ended = feed.path, threading.Event()

    def read() -> None:
        with path.open("rb", buffering=0) as opened:
            while (piece := opened.read(100_000)) and (state != "somebody stops reading" or len(got) < 1 << 20):
                got.extend(piece)
        ended.set()

    reader = threading.Thread(target=read)
    if state == "nobody reads":
        ended.set()
    else:
        reader.start()
    until = time.monotonic() + PATIENT
    while path.exists() and not (state not in ("whole", "damaged") and ended.is_set()):
        assert time.monotonic() < until
        reactor.turn(0.1)
    for _ in range(3):  # it waits for room, and for nobody
        reactor.turn(0.1)
    feed.close()
    feed.close()
    assert not path.exists()
    if reader.ident:
        reader.join(PATIENT)
    if state == "whole":
        assert (bytes(got), feed.error) == (data, "")
    elif state == "damaged":
        assert data.startswith(bytes(got)) and len(got) < LEAST_BYTES // 2 + 1 and "f is damaged" in feed.error
    else:
        assert data.startswith(bytes(got)) and feed.error == ""


def test_a_scanner_that_does_not_work_is_told_before_a_file_needs_it() -> None:
    orders: list[tuple[Order, Any]] = []

    def run_job(job: str, order: bytes, done: Any) -> None:
        orders.append((msgspec.json.decode(order, type=Order), done))

    product = Product(name="fw", origin=Origin(proof="pgp", keys=()), most=1, scan="clamd")
    keeper: Any = SimpleNamespace(
        stopping=False, rows=PatchRows(products=(HOSTS,)), setting=SimpleNamespace(run_job=run_job)
    )
    examining = Examining(keeper)
    examining.watch()
    assert not orders  # nothing is scanned here
    keeper.rows = PatchRows(products=(HOSTS, product))
    for _ in range(2):
        examining.watch()
    ((order, done),) = orders
    assert (order.file, order.scan) == ("", "clamd")
    nothing = Report(sha256="0" * 64, size=0, origin="", facts={}, refused="", archive="", kind="", scan="not scanned",
                     scan_detail="its base is 30 days old", base="")  # fmt: skip
    done(msgspec.json.encode(nothing), "")
    assert examining.unfit == "its base is 30 days old"
    done(b"", "it crashed")
    assert examining.unfit == "it crashed"
    keeper.rows = PatchRows(products=(HOSTS,))
    examining.watch()
    assert examining.unfit == ""  # no policy asks for it any more
    keeper.rows = PatchRows(products=(HOSTS, product))
    done(msgspec.json.encode(msgspec.structs.replace(nothing, scan="clean", base="clamd 1.4")), "")
    assert (examining.unfit, examining.scanner) == ("", "clamd 1.4")
    examining.watch()
    assert len(orders) == 1  # not before hours have gone by


UNSEALS = """
import sys
from pathlib import Path
from cofferdam.brokers.patch.examining import unseal
from cofferdam.brokers.patch.sealing import Sealing
from cofferdam.crossing.reactor import Reactor

reactor, said, (source, target) = Reactor(), [], map(Path, sys.argv[1:3])
unseal(Sealing(None, encrypt=False), reactor, source, target, said.append, sync=sys.argv[3] == "sync")
while not said:
    reactor.turn(1)
assert said == [""], said
"""


@needs_gcc
@pytest.mark.parametrize("sync", ["sync", "no"])
def test_what_an_examiner_looks_at_is_not_waited_for_until_it_is_on_disk(tmp_path: Path, sync: str) -> None:
    source, target = tmp_path / "quarantined", tmp_path / "laid-out"
    source.write_bytes(os.urandom(20 << 20))
    disk = {"LD_PRELOAD": str(library(tmp_path)), "DISK_FILE": "/laid-out", "DISK_TELL": "1"}
    words = (sys.executable, "-c", UNSEALS, str(source), str(target), sync)
    said = subprocess.run(words, env={**os.environ, **disk}, check=True, capture_output=True, text=True).stdout.split()
    assert target.read_bytes() == source.read_bytes()
    assert "write" in said
    assert ("fsync" in said) == (sync == "sync")
