"""The log in the long run: sealed, dropped, moved away. What is left verifies and reads as before."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit.checkpoint import Checkpoint, sign_checkpoint
from cofferdam.audit.dropped import DROPPED
from cofferdam.audit.entry import Draft, decode_entry
from cofferdam.audit.events.access import (
    PointValue,
    ReadsCounted,
    SessionClosed,
    SessionOpened,
    WriteAllowed,
    WriteOutcome,
    Written,
)
from cofferdam.audit.files import DirFiles, LogReader
from cofferdam.audit.log import AuditLog, prepare
from cofferdam.audit.proof import check_proof, prove_consistency, prove_inclusion
from cofferdam.audit.recovery import open_log
from cofferdam.audit.sealed import BLOCK, Sealed, parse_sealed
from cofferdam.audit.tree import WIDTH, range_root
from cofferdam.audit.upkeep import LOOK_NS, Retention, Upkeep
from cofferdam.audit.verify import Verification, verify_log
from cofferdam.brokers.diode.keeper_inside import LogCopy
from cofferdam.brokers.diode.teller import units
from cofferdam.errors import AuditError, CofferdamError
from cofferdam.evidence import gather, witness
from tests.audit.conftest import Clock, write


def runpy_module(path: Path) -> Any:
    """A file of Python that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL: Any = runpy_module(Path(__file__).parents[2] / "tools/verify_audit.py")
SEAL = BLOCK
DAY = 86_400_000_000_000


class Kept:
    """A log of six sealed files' worth of entries, a day apart in each hundred, and its upkeep."""

    def __init__(self, home: Path) -> None:
        self.home, self.clock = home, Clock()
        self.log = self.again()
        self.upkeep = self.tend()
        self.notes: list[bytes] = []

    def again(self, **options: object) -> AuditLog:
        arguments: dict[str, object] = {
            "site": "riverside", "wall_ns": lambda: self.clock.wall, "mono_ns": lambda: self.clock.mono,
            "retry_ns": 0, "background": False, "deep": SEAL,
        } | options  # fmt: skip
        return open_log(self.home / "audit", self.home / "keys/audit.key", **arguments)  # type: ignore[arg-type]

    def tend(self) -> Upkeep:
        return Upkeep(
            self.log, wall_ns=lambda: self.clock.wall, mono_ns=lambda: self.clock.mono, seal=SEAL, age_ns=0,
            background=False,
        )  # fmt: skip

    def fill(self, entries: int) -> None:
        for number in range(0, entries, 256):
            self.log.append([write(number + at) for at in range(256)], maker="inner")
            self.clock.move(DAY)
        self.log.publish()

    def work(self) -> None:
        """Until there is nothing to do."""
        self.clock.move(LOOK_NS)
        for _ in range(16):
            self.upkeep.tick()
            if b"entries-dropped" in self.log._bundle[-1] if self.log._bundle else False:
                self.log.publish()
        assert not self.upkeep.growth.trouble

    @property
    def folder(self) -> Path:
        return self.log.folder

    def verify(self, archive: Path | None = None, earlier: Checkpoint | None = None) -> Verification:
        return verify_log(DirFiles(self.folder, archive), self.log.key.verifier, earlier=earlier)

    def reader(self, archive: Path | None = None) -> LogReader:
        return LogReader(self.folder, self.log.key.verifier, archive)


def by_tool(kept: Kept, *options: str | Path) -> tuple[int, str]:
    """What the verifier that stands alone says."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = TOOL.main(list(map(str, [kept.folder, "--key", kept.home / "keys/audit.pub", *options])))
    return code, out.getvalue()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Clock, dict[int, bytes], Checkpoint]]:
    """A closed log of seven and a half files' worth, all of it plain; what it holds, and a checkpoint of it halfway."""
    kept = Kept(tmp_path_factory.mktemp("filled"))
    kept.fill(3 * SEAL + 256)
    halfway = kept.log.publish()
    kept.fill(4 * SEAL)
    kept.log.close()
    yield kept.home, kept.clock, dict(kept.reader().entries()), halfway


@pytest.fixture
def kept(filled: tuple[Path, Clock, dict[int, bytes], Checkpoint], tmp_path: Path) -> Iterator[Kept]:
    home, clock, _, _ = filled
    shutil.copytree(home, tmp_path / "state")
    one = Kept.__new__(Kept)
    one.home, one.clock = tmp_path / "state", Clock()
    one.clock.wall, one.clock.mono = clock.wall, clock.mono
    one.log = one.again()
    one.upkeep = one.tend()
    yield one
    one.log.close()


def sealed(kept: Kept) -> list[Path]:
    return sorted((kept.folder / "sealed").glob("*"))


def test_what_is_sealed_and_not_yet_removed_verifies(kept: Kept, tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(kept.folder / "tile", before)
    kept.work()
    assert any((kept.folder / "sealed").iterdir())
    shutil.copytree(before, kept.folder / "tile", dirs_exist_ok=True)  # as between the two steps
    found = kept.verify()
    assert not found.findings
    assert found.checked == found.size


def test_what_is_sealed_reads_verifies_and_proves_as_before(
    kept: Kept, filled: tuple[Path, Clock, dict[int, bytes], Checkpoint]
) -> None:
    _, _, before, halfway = filled
    size = sum(path.stat().st_size for path in (kept.folder / "tile").rglob("*") if path.is_file())
    kept.work()
    assert [parse_sealed(f"sealed/{path.name}") for path in sealed(kept)] == [
        (at, at + SEAL) for at in range(0, 6 * SEAL, SEAL)
    ]
    after = sum(
        path.stat().st_size
        for path in kept.folder.rglob("*")
        if path.is_file() and path.parent.name != "journal" and path.name != "reserve"
    )
    assert after < size / 3  # a seventh of it is still plain
    report = kept.verify(earlier=halfway)
    assert report.good and report.checked == report.total and not report.gone, report.findings
    code, said = by_tool(kept)
    assert code == 0, said
    assert before.items() <= dict(kept.reader().entries()).items()
    for index in (0, 255, SEAL - 1, SEAL, 3 * SEAL + 77, 7 * SEAL):
        assert check_proof_of(kept, index) == index
    assert check_consistent(kept, 1_000) and check_consistent(kept, 5 * SEAL + 3)
    kept.log.close()
    kept.log = kept.again()
    assert kept.verify().good


def check_proof_of(kept: Kept, index: int) -> int:
    return check_proof(msgspec.json.encode(prove_inclusion(kept.reader(), index)), kept.log.key.verifier).index


def check_consistent(kept: Kept, old: int) -> bool:
    document = msgspec.json.encode(prove_consistency(kept.reader(), old))
    return check_proof(document, kept.log.key.verifier).size == old


@pytest.mark.parametrize("move", [False, True])
def test_what_is_too_old_or_too_much_goes_and_the_log_says_so(
    kept: Kept, move: bool, filled: tuple[Path, Clock, dict[int, bytes], Checkpoint]
) -> None:
    before = filled[2]
    kept.work()
    archive = kept.home / "archive"
    if move:
        archive.mkdir()
    days = (7 * SEAL - 2 * SEAL) // 256 - 1
    kept.upkeep.retention = Retention(keep_ns=days * DAY, move=move)
    for _ in range(3):
        kept.work()
    said = [decode_entry(data).event for _, data in kept.reader().entries() if b'"entries-dropped"' in data]
    assert [(one["first"], one["stop"], one["why"], one["moved"]) for one in said][:2] == [
        (0, SEAL, "keep", move), (SEAL, 2 * SEAL, "keep", move),
    ]  # fmt: skip
    report = kept.verify()
    assert report.good and report.gone == said[-1]["stop"] >= 2 * SEAL, report.findings
    assert next(kept.reader().entries())[0] == report.gone == kept.reader().first()
    assert kept.upkeep.growth.first == report.gone
    code, text = by_tool(kept)
    assert code == 0 and str(report.gone) in text, text
    with pytest.raises(AuditError, match="no longer kept"):
        prove_inclusion(kept.reader(), 5)
    assert check_proof_of(kept, 4 * SEAL + 1) and check_consistent(kept, 5 * SEAL + 3)
    early = Checkpoint(report.origin, SEAL, kept_root(kept, SEAL))
    assert kept.verify(earlier=early).good
    if not move:
        return
    whole = kept.verify(archive)
    assert whole.good and whole.checked == whole.total and not whole.gone, whole.findings
    code, text = by_tool(kept, "--archive", archive)
    assert code == 0 and "no longer here" not in text, text
    assert before.items() <= dict(kept.reader(archive).entries()).items()
    damaged = sorted((archive / "sealed").iterdir())[0]
    damaged.write_bytes(flipped(damaged.read_bytes(), 5000))
    assert not kept.verify(archive).good and by_tool(kept, "--archive", archive)[0] == 1


def kept_root(kept: Kept, size: int) -> bytes:
    return range_root(0, size, kept.reader().hashes(kept.reader().checkpoint().size))


def test_a_log_that_is_too_large_loses_its_oldest(kept: Kept) -> None:
    kept.log.keep_reserve()
    kept.work()
    two = sum(path.stat().st_blocks * 512 for path in sealed(kept)[:2])
    kept.work()
    kept.upkeep.retention = Retention(most=kept.upkeep.growth.bytes - two)
    kept.work()
    report = kept.verify()
    assert report.good and 2 * SEAL <= report.gone < 6 * SEAL
    assert by_tool(kept)[0] == 0


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def remove_one(kept: Kept) -> None:
    sealed(kept)[2].unlink()


def flip(at: int) -> Callable[[Kept], None]:
    def change(kept: Kept) -> None:
        path = sealed(kept)[2]
        path.write_bytes(flipped(path.read_bytes(), at))

    return change


def cut(kept: Kept) -> None:
    path = sealed(kept)[1]
    path.write_bytes(path.read_bytes()[:-1])


def pad(kept: Kept) -> None:
    path = sealed(kept)[1]
    path.write_bytes(path.read_bytes() + bytes(4))


def swap(kept: Kept) -> None:
    one, two = sealed(kept)[1:3]
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


def claim(kept: Kept) -> None:
    """The one who removes entries says that they were dropped."""
    sealed(kept)[0].unlink()
    (kept.folder / DROPPED).write_text(f"cofferdam dropped v1\ncofferdam/riverside\n{SEAL}\n{7 * SEAL}\n")


def overlap(kept: Kept) -> None:
    """A second file for the same entries, with others in it."""
    path = sealed(kept)[0]
    path.with_name(f"{0:020d}-{2 * SEAL:020d}").write_bytes(path.read_bytes())


DAMAGES = [remove_one, flip(0), flip(30), flip(95), flip(130), flip(5000), flip(-1), cut, pad, swap, claim, overlap]


def test_every_change_of_a_sealed_file_is_found_by_both_verifiers(kept: Kept) -> None:
    kept.work()
    kept.log.close()
    saved = kept.home / "saved"
    shutil.copytree(kept.folder, saved)
    for damage in DAMAGES:
        damage(kept)
        assert not kept.verify().good, damage
        code, said = by_tool(kept)
        assert code == 1, (damage, said)
        shutil.rmtree(kept.folder)
        shutil.copytree(saved, kept.folder)
    kept.log = kept.again()


DEATH: dict[str, int] = {}
"""After so many files that are put in place or removed."""


def _look(event: str, _: tuple[object, ...]) -> None:
    if DEATH and event in ("os.rename", "os.remove"):
        DEATH["at"] -= 1
        if not DEATH["at"]:
            raise KeyboardInterrupt


sys.addaudithook(_look)


def test_who_changes_the_times_of_a_sealed_file_does_not_have_it_dropped(kept: Kept) -> None:
    """Else the log itself would say that what they want to be gone was old."""
    kept.work()
    kept.upkeep.retention = Retention(keep_ns=365 * 10 * DAY)
    path = sealed(kept)[0]
    data = path.read_bytes()
    head = Sealed(f"sealed/{path.name}", data).head
    until = "1990" + head.until[4:]
    forged = data.replace(head.encode(), msgspec.structs.replace(head, until=until).encode())
    path.write_bytes(forged)
    kept.clock.move(LOOK_NS)
    for _ in range(4):
        kept.upkeep.tick()
    assert "older than it is" in kept.upkeep.growth.trouble
    assert path.exists() and not kept.reader().first()


def test_a_kill_between_two_steps_leaves_a_whole_log(kept: Kept) -> None:
    """At each file that is put in place or removed, the process is gone."""
    kept.log.close()
    saved = kept.home / "saved"
    shutil.copytree(kept.folder, saved)
    for stop_at in (1, 2, 7, 20, 40):
        kept.log = kept.again()
        kept.upkeep = kept.tend()
        DEATH.update(at=stop_at)
        kept.upkeep.retention = Retention(most=1)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(200):
                kept.upkeep.tick()
                kept.log.publish()
        DEATH.clear()
        kept.log.abandon()
        os.close(kept.log._lock)
        kept.log = kept.again(deep=1 << 30)  # as a log is opened that is still short: all of it is looked at
        assert kept.verify().good, (stop_at, kept.verify().findings[:3])
        kept.upkeep = kept.tend()
        kept.work()
        assert kept.verify().good and by_tool(kept)[0] == 0
        kept.log.close()
        shutil.rmtree(kept.folder)
        shutil.copytree(saved, kept.folder)
    kept.log = kept.again()


def test_a_log_put_back_to_an_earlier_state_is_not_opened(kept: Kept) -> None:
    kept.log.close()
    shutil.copytree(kept.folder, kept.home / "old")
    kept.log = kept.again()
    kept.log.append([write(n) for n in range(10)], maker="inner")
    anchor = kept.log.publish()
    kept.log.close()
    kept.again(anchor=anchor).close()  # as it is, it opens
    shutil.rmtree(kept.folder)
    (kept.home / "old").rename(kept.folder)
    with pytest.raises(AuditError, match="put back to an earlier state") as caught:
        kept.again(anchor=anchor)
    assert "anchor.json" in caught.value.hint
    kept.log = kept.again()
    other = Checkpoint(anchor.origin, WIDTH, bytes(32))
    with pytest.raises(AuditError, match="another process"):
        kept.again(anchor=other)
    kept.log.close()
    with pytest.raises(AuditError, match="put back"):
        kept.again(anchor=other)
    kept.log = kept.again()


def test_a_copy_outside_by_the_diode_knows_what_was_dropped(kept: Kept, tmp_path: Path) -> None:
    kept.work()
    kept.upkeep.retention = Retention(keep_ns=(5 * SEAL // 256 - 1) * DAY)
    for _ in range(2):
        kept.work()
    kept.log.publish()
    gone = kept.reader().first()
    assert gone
    (tmp_path / "outside").mkdir()
    copy = LogCopy(tmp_path / "outside", kept.log.key.verifier)
    for _, unit in units(DirFiles(kept.home / "audit"), 0):
        copy.take(unit)
    report = verify_log(DirFiles(copy.folder), kept.log.key.verifier)
    assert report.good and report.gone == gone


def test_witnesses_and_evidence_see_what_is_left(kept: Kept, tmp_path: Path) -> None:
    folder, old = tmp_path / "witness", tmp_path / "old"
    folder.mkdir()
    old.mkdir()
    size = kept.log.publish().size
    assert witness.keep(kept.reader(), folder) == (size, -1)
    shutil.copy(folder / "checkpoint", old)
    kept.work()
    kept.upkeep.retention = Retention(keep_ns=(5 * SEAL // 256 - 1) * DAY)
    kept.work()
    kept.work()
    assert witness.keep(kept.reader(), folder).before == size < kept.log.publish().size
    (old / "checkpoint").write_bytes(sign_checkpoint(Checkpoint(kept.log.origin, 777, bytes(32)), kept.log.key))
    with pytest.raises(CofferdamError, match="keeps none below"):
        witness.keep(kept.reader(), old)
    size = kept.reader().checkpoint().size
    _, history = gather.history(kept.home, size)
    first = kept.reader().first()
    assert first and history.of("log-opened") and all(one.index >= first for one in history.of("log-opened"))


def stories(number: int, wall: int) -> list[Draft]:
    """A write with its outcome, as a real gate has them; every value differs."""
    session, name = f"788cdf59.1-{number // 50}", f"788cdf59.1-w{number}"
    return [
        WriteAllowed(
            wall_ns=wall, session=session, write=name, principals=("erp",), source="10.81.0.20", asset="plc-7",
            conduit="pump-setpoint", rule="pump-setpoint/0", function=16, unit=1,
            writes=(Written("holding", 200, (0, number * 7 % 1500)),),
            points=(PointValue("pump_speed", str(number * 7 % 1500), "rpm"),),
        ),
        WriteOutcome(
            wall_ns=wall + 4_000_000 + number * 7919 % 900_000, session=session, write=name, asset="plc-7",
            outcome="done", device_ns=4_216_661 + number * 7919 % 900_000,
        ),
    ]  # fmt: skip


def polls(number: int, wall: int) -> list[Draft]:
    """A client that connects, reads once and closes."""
    session, later = f"788cdf59.1-{number}", wall + 3_000_000 + number * 7919 % 900_000
    return [
        SessionOpened(
            wall_ns=wall, session=session, half="modbus/enterprise-control/outer", source="10.81.0.20",
            source_port=32768 + number * 7919 % 28000, asset="plc-7", principals=("erp",), conduits=("pump-setpoint",),
        ),
        ReadsCounted(
            wall_ns=later, session=session, principals=("erp",), source="10.81.0.20", asset="plc-7",
            conduit="pump-setpoint", reads=1, cells=1, from_ns=wall, to_ns=later,
        ),
        SessionClosed(
            wall_ns=later, session=session, reason="closed by the peer", requests=1, bytes_in=12, bytes_out=11,
            opened_ns=wall,
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(("make", "most"), [(stories, 300), (polls, 200)])
def test_how_much_room_it_takes_in_the_long_run(
    tmp_path: Path, make: Callable[[int, int], list[Draft]], most: int
) -> None:
    kept = Kept(tmp_path)
    count = 0
    while kept.log.size <= 2 * SEAL:
        drafts = make(count, kept.clock.wall)
        kept.log.append_all([prepare("modbus/enterprise-control/inner", "30f1" * 16, [one]) for one in drafts])
        kept.clock.move(7_777_777 + count * 104_729 % 1_000_000)
        count += 1
    kept.log.publish()
    kept.work()
    files = sealed(kept)
    each = len(make(0, 0)) * sum(path.stat().st_blocks * 512 for path in files) / (len(files) * SEAL)
    tiles = len(make(0, 0)) * 32 / WIDTH * 1.01  # the levels above the leaves
    print(f"{make.__name__}: {each + tiles:.0f} bytes on disk")
    assert files and each + tiles <= most
    kept.log.close()
