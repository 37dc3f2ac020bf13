"""What the gate inside tells of itself: its log, copied as it grows, holds by itself outside, and nothing that came is
written over; its status is bounded and no more than that."""

from __future__ import annotations

import random
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.checkpoint import Checkpoint, SignerKey, sign_checkpoint
from cofferdam.audit.files import DirFiles
from cofferdam.audit.keys import load_public, make_key
from cofferdam.audit.log import AuditLog
from cofferdam.audit.tiles import growth
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.diode import keeper_inside
from cofferdam.brokers.diode.keeper_inside import STATUS_BYTES, Inside, LogCopy, unpacked
from cofferdam.brokers.diode.records import GATE, Bit, Go, LogFile, LogUnit, Piece, StatusUnit, parts
from cofferdam.brokers.diode.teller import BATCH_BYTES, LOOK_TICKS, Teller, units
from cofferdam.brokers.kit.supervision import ARGUMENT_BYTES, HOUSE_STATUS
from cofferdam.cli.diode import _plain
from cofferdam.cli.main import main
from cofferdam.errors import AuditError, CrossingError, StoreFull
from cofferdam.gate.watch import telling
from tests.audit.conftest import Opener, write
from tests.audit.conftest import clock as clock  # fixtures
from tests.audit.conftest import opener as opener
from tests.brokers.diode.test_hostile import EPOCH, WALL, Outside, file, sliced


def grow(log: AuditLog, count: int) -> None:
    for at in range(0, count, 256):
        some = [write(number) for number in range(at, min(count, at + 256))]
        log.append(some, maker="modbus/it-ot/inner", policy="ab" * 32)
    log.publish()


class Both:
    """A log inside, and the copy outside."""

    def __init__(self, state: Path, log: AuditLog) -> None:
        self.state, self.log = state, log
        self.key = load_public(state / "keys" / "audit.pub")
        self.told = 0
        self.folder = state / "outside"
        self.copy = LogCopy(self.folder, self.key)

    def tell(self) -> list[LogUnit]:
        """What goes over the strand."""
        found = []
        for told, unit in units(DirFiles(self.state / "audit"), self.told):
            self.told = told or self.told
            found.append(unit)
        return found

    def take(self, told: list[LogUnit]) -> None:
        for unit in told:
            self.copy.take(unit)

    def verified(self) -> bool:
        log, key = str(self.copy.folder), str(self.state / "keys" / "audit.pub")
        return main(["audit", "verify", "--log", log, "--key", key]) == 0


@pytest.fixture
def both(opener: Opener, tmp_path: Path) -> Any:
    (tmp_path / "outside").mkdir()
    found = Both(tmp_path, opener())
    yield found
    found.log.close()


def test_the_copy_outside_is_verified_by_the_usual_verb(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for count in (3, 300, 1, 600):  # unfinished tiles, full ones, and both
        grow(both.log, count)
        told = both.tell()
        sizes.append(sum(len(file.data) for unit in told for file in unit.files))
        both.take(told)
        assert both.copy.head is not None and both.copy.head.size == both.told
        assert both.verified()
    assert sizes[2] < sizes[1] < sizes[3]  # what had been told is not told again, but for the edge
    assert both.tell() == []
    assert "good: all 905 entries" in capsys.readouterr().out
    again = LogCopy(both.folder, both.key)  # another process
    assert again.head == both.copy.head and again.waits is None


def test_a_log_is_told_in_steps_and_no_more_than_some_of_it_is_in_memory(both: Both) -> None:
    """One that nobody was told of: in bits of a bounded size, and where the process ends in between it goes on."""
    grow(both.log, 70 * 256 + 5)
    told = list(units(DirFiles(both.state / "audit"), 0))
    assert len(told) > 3 and not any(unit.head for _, unit in told[:-1])
    assert all(sum(len(file.data) for file in unit.files) <= 2 * BATCH_BYTES for _, unit in told)
    (step, *_, last) = [mark for mark, _ in told if mark]
    assert (step, last) == (64 * 256, 70 * 256 + 5 + 1)
    at = next(at for at, (mark, _) in enumerate(told) if mark == step)
    both.take([unit for _, unit in told[: at + 1]])
    both.told = step
    both.take(both.tell())
    assert both.copy.head is not None and both.copy.head.size == last


def test_what_is_missing_is_waited_for_and_may_come_late(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    grow(both.log, 200)
    both.take(both.tell())
    grow(both.log, 400)
    lost = both.tell()
    grow(both.log, 1)
    both.take(both.tell())
    assert both.copy.tells() == (201, 602)
    assert both.verified()  # what came is a log all the same
    again = LogCopy(both.folder, both.key)
    assert again.waits == both.copy.waits  # whatever ends in between
    both.take(lost)
    assert both.copy.tells() == (602, 0)
    assert both.verified()


def test_a_log_that_was_written_anew_shows_itself(both: Both, opener: Opener) -> None:
    grow(both.log, 200)
    both.log.close()
    shutil.copytree(both.state / "audit", both.state / "earlier")
    both.log = opener()
    grow(both.log, 100)
    both.take(both.tell())
    before = {path: (both.copy.folder / path).read_bytes() for path in DirFiles(both.copy.folder).paths()}
    both.log.close()
    shutil.rmtree(both.state / "audit")
    (both.state / "earlier").rename(both.state / "audit")
    both.log = opener()  # by the same key: somebody who owns the inside
    for number in range(600):
        both.log.append([write(number + 7)], maker="modbus/it-ot/inner", policy="ab" * 32)
    both.log.publish()
    told = both.tell()  # it goes on from what was told: the old tiles are not told again
    with pytest.raises(AuditError, match=r"does not go on|is not what came before"):
        both.take(told)
    both.told = 0
    with pytest.raises(AuditError, match="is not what came before"):
        both.take(both.tell())
    assert all((both.copy.folder / path).read_bytes() == data for path, data in before.items())


def test_a_log_that_was_put_back_is_told_at_both_ends(both: Both, opener: Opener) -> None:
    """Inside at once, though nothing is new of it; outside where a checkpoint comes that the copy does not go on
    from. One that is late and the log's own is no crime."""
    grow(both.log, 200)
    both.log.close()
    shutil.copytree(both.state / "audit", both.state / "earlier")
    both.log = opener()
    grow(both.log, 100)
    first = both.tell()
    grow(both.log, 100)
    both.take([*first, *both.tell()])
    head = both.copy.head
    both.take(first)
    assert both.copy.head == head and both.verified()
    both.log.close()
    shutil.rmtree(both.state / "audit")
    (both.state / "earlier").rename(both.state / "audit")
    both.log = opener()
    for number in range(50):
        both.log.append([write(number + 7)], maker="modbus/it-ot/inner", policy="ab" * 32)
    both.log.publish()
    with pytest.raises(AuditError, match="it was put back"):
        both.tell()
    both.told = 0
    with pytest.raises(AuditError, match="there are two logs of one key"):
        both.copy.take(LogUnit((), both.tell()[-1].head))


@pytest.mark.parametrize(
    ("unit", "why"),
    [
        pytest.param(LogUnit((LogFile(name, b"x"),)), "no part of a log", id=name)
        for name in ("../checkpoint", "/etc/passwd", "tile/0/../../x", "tile/0/1", "journal/000", "x", "tile/9/000", "")
    ]
    + [
        pytest.param(LogUnit((LogFile("tile/0/000", bytes(31)),)), "31 bytes", id="a tile that is too short"),
        pytest.param(LogUnit((), b"no note"), "note|lacks", id="no checkpoint"),
        pytest.param(LogUnit((), sign_checkpoint(Checkpoint("x", 1, bytes(32)), make_key("x"))), "not signed",
                     id="a checkpoint by another"),
    ],
)  # fmt: skip
def test_what_is_no_part_of_a_log_is_refused(both: Both, unit: LogUnit, why: str) -> None:
    grow(both.log, 3)
    both.take(both.tell())
    before = {path: (both.copy.folder / path).read_bytes() for path in DirFiles(both.copy.folder).paths()}
    with pytest.raises(AuditError, match=why):
        both.copy.take(unit)
    assert {path: (both.copy.folder / path).read_bytes() for path in DirFiles(both.copy.folder).paths()} == before
    assert both.verified()


def test_without_the_key_a_checkpoint_has_to_go_on_all_the_same(both: Both) -> None:
    copy = LogCopy(both.folder, None)
    grow(both.log, 300)
    for unit in both.tell():
        copy.take(unit)
    assert copy.head is not None and copy.head.size == 301
    other = SignerKey(both.key.name, bytes(32))
    false = [LogFile(path, b"x" if "entries" in path else bytes(32) * int(path.rpartition("/")[2]))
             for path in growth(301, 302) if "tile/1/" not in path]  # fmt: skip
    with pytest.raises(AuditError, match="does not go on"):
        copy.take(LogUnit(tuple(false), sign_checkpoint(Checkpoint(both.key.name, 302, bytes(32)), other)))
    with pytest.raises(AuditError, match="of 'x' for the log"):
        copy.take(LogUnit((), sign_checkpoint(Checkpoint("x", 400, bytes(32)), make_key("x"))))


def test_a_disk_that_is_full_takes_nothing_of_a_log(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(both.log, 3)
    told = both.tell()
    monkeypatch.setattr(keeper_inside, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(StoreFull):
        both.take(told)
    assert both.copy.head is None and not list(both.copy.folder.rglob("*"))
    monkeypatch.undo()
    both.take(told)
    assert both.copy.head is not None


def test_a_checkpoint_that_does_not_go_on_is_forgotten(both: Both) -> None:
    """Else the next process would fall over it, and nothing of any channel would be taken."""
    grow(both.log, 300)
    both.take(both.tell())
    forged = sign_checkpoint(Checkpoint(both.key.name, 301 + 1, bytes(32)), SignerKey(both.key.name, bytes(32)))
    (both.copy.coming / "checkpoint").write_bytes(forged)
    again = LogCopy(both.folder, both.key)
    assert again.tells() == (301, 0) and not again.wrong
    (both.copy.coming / "checkpoint").write_bytes(b"\xff no note")
    assert LogCopy(both.folder, both.key).tells() == (301, 0)
    grow(both.log, 1)
    for unit in both.tell():
        again.take(unit)
    assert again.tells() == (302, 0)


@pytest.mark.parametrize("what", ["another log", "a file", "a checkpoint that is none"])
def test_a_copy_that_is_none_costs_its_channel_alone(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "strand-inside"
    folder.mkdir()
    if what == "a file":
        (folder / "log").write_text("x")
    else:
        (folder / "log").mkdir()
        other = sign_checkpoint(Checkpoint("x", 1, bytes(32)), make_key("x"))
        (folder / "log" / "checkpoint").write_bytes(other if what == "another log" else b"x")
    outside = Outside(tmp_path, log=make_key("inside").verifier.text)
    whole = GATE.encode(LogUnit(()))
    outside.say(Piece("gate:log", EPOCH, 1, parts(whole)[0]), *file(1, "a.csv", b"1"))
    outside.ticks(1)
    assert list(outside.part._stopped) == ["gate:log"] and "to begin anew" in outside.part._stopped["gate:log"]
    assert (outside.folders["reports-in"] / "a.csv").read_bytes() == b"1"
    outside.part.halt()


def test_a_log_without_room_costs_its_channel_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = Outside(tmp_path)
    monkeypatch.setattr(keeper_inside, "RESERVE_BYTES", 1 << 60)
    whole = GATE.encode(LogUnit((LogFile("tile/0/000.p/1", bytes(32)),)))
    outside.say(Piece("gate:log", EPOCH, 1, parts(whole)[0]), *file(1, "a.csv", b"1"))
    outside.ticks(1)
    assert (outside.folders["reports-in"] / "a.csv").read_bytes() == b"1" and not outside.part._stopped
    assert "too little room" in outside.part.alarms()["waits-log"]
    outside.say(Piece("gate:log", EPOCH, 2, parts(whole)[0]))  # it is missing, and so named
    monkeypatch.undo()
    outside.ticks(1)
    assert (outside.folders["strand-inside"] / "coming" / "tile" / "0" / "000.p" / "1").exists()
    assert "waits-log" not in outside.part.alarms()
    outside.part.halt()


def test_what_the_inside_tells_drives_no_terminal() -> None:
    told = {"site": "\x1b[2J", "alarms": [{"na\nme": "\x9b31m", "n": 1}], "ok": True}
    assert _plain(told) == {"site": "\\x1b[2J", "alarms": [{"na\\nme": "\\x9b31m", "n": 1}], "ok": True}


@pytest.mark.parametrize(
    "data",
    [b"", b"no zlib", zlib.compress(b"[1]"), zlib.compress(b"{"), zlib.compress(b"{}")[:-1],
     zlib.compress(b"[" * 100_000), zlib.compress(b'{"a":"' + bytes(STATUS_BYTES) + b'"}')],
)  # fmt: skip
def test_a_status_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    inside = Inside(tmp_path, False, "", lambda: WALL)
    with pytest.raises(CrossingError, match="a status"):
        inside.take(GATE.encode(StatusUnit(1, data)))
    with pytest.raises(CrossingError, match="does not ride"):
        inside.take(GATE.encode(LogUnit(())))
    assert not list(tmp_path.iterdir())


def test_the_last_status_stands(tmp_path: Path) -> None:
    inside = Inside(tmp_path, False, "", lambda: WALL)
    for at in (5, 9, 7):  # the last comes late
        inside.take(GATE.encode(StatusUnit(at, zlib.compress(b'{"site": "%d"}' % at))))
    assert unpacked(inside.status) == {"site": "9"} and inside.tells()["told_ns"] == 9
    kept = msgspec.json.decode((tmp_path / "status.json").read_bytes())
    assert kept == {"told_ns": 9, "came_ns": WALL, "status": {"site": "9"}}


def test_a_status_is_handed_over_within_its_bound() -> None:
    small = {"site": "s", "alarms": [], "conduits": ["x"]}
    assert msgspec.json.decode(zlib.decompress(telling.packed(small))) == small
    noise = {"site": "s", "alarms": [], "conduits": [random.Random(1).randbytes(200_000).hex()]}
    told = telling.packed(noise)
    assert len(told) <= ARGUMENT_BYTES and "conduits" not in msgspec.json.decode(zlib.decompress(told))


class Telling:
    """A teller without its process."""

    def __init__(self, log: Path) -> None:
        self.sent: list[Any] = []
        spool = SimpleNamespace(send=self.sent.append)
        self.part = Teller(cast(Any, SimpleNamespace(
            policy=sliced(), senders={"spool": spool}, reads={"audit": log}, wall=lambda: WALL,
        )))  # fmt: skip

    def status(self, text: bytes) -> None:
        self.part.command(Asked(HOUSE_STATUS, zlib.compress(text), lambda *_: None))

    def units(self) -> list[LogUnit | StatusUnit]:
        found, data = [], b""
        for bit in self.sent:
            assert isinstance(bit, Bit)
            data += bit.data
            if not bit.more:
                found.append(GATE.decode(data))
                data = b""
        return found


def test_the_teller_says_one_thing_after_the_other(both: Both) -> None:
    grow(both.log, 200)
    teller = Telling(both.state / "audit")
    for _ in range(2 * LOOK_TICKS):
        teller.part.tick()
    teller.status(b"{}")
    assert teller.sent == []  # the spool takes nothing yet
    teller.part.on_record("spool", Go(0))
    (status,) = teller.units()
    assert isinstance(status, StatusUnit)
    for _ in range(LOOK_TICKS):
        teller.part.tick()
    assert len(teller.units()) == 1  # one at a time
    teller.part.on_record("spool", Go(0))
    _, log = teller.units()
    assert isinstance(log, LogUnit) and log.head and teller.sent[-1].log == 201
    teller.part.on_record("spool", Go(201))
    for _ in range(LOOK_TICKS):
        teller.part.tick()
    assert len(teller.units()) == 2  # it has not grown
    for number in range(9):
        teller.status(b"%d" % number)
        teller.part.on_record("spool", Go(201))
    assert len(teller.units()) == 11
    (both.state / "audit" / "checkpoint").write_bytes(b"nonsense")
    for _ in range(LOOK_TICKS):
        teller.part.tick()
    assert "does not go" in teller.part.alarms()["log"]


@given(st.lists(st.integers(0, 70_000), min_size=2, max_size=4))
def test_what_is_told_piece_by_piece_is_all_that_a_log_of_that_size_has(sizes: list[int]) -> None:
    steps = sorted(sizes)
    told: set[str] = set()
    old = 0
    for new in steps:
        told |= set(growth(old, new))
        old = new
    assert set(growth(0, steps[-1])) <= told
