"""A sender that is another's by now, and holds its key: what it says is refused outside, its channel stops, others go
on, and what the outside has stays whole. And a disk that is full, a scan that fails, a ticket that is used twice."""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import os
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cofferdam.brokers.broker import Asked
from cofferdam.brokers.diode import keeper_files, keeper_records, pairing, records, spool, spool_files, spool_lanes
from cofferdam.brokers.diode.keeper import SILENT_NS, Keeper
from cofferdam.brokers.diode.ledger import JUMP_MOST
from cofferdam.brokers.diode.outbox import encode
from cofferdam.brokers.diode.records import FILES, Beat, Chunk, Epoch, Manifest, Piece, Span, Told
from cofferdam.brokers.diode.spool import Spool
from cofferdam.brokers.kit.clamd import Scanned
from cofferdam.brokers.registry import BROKERS
from cofferdam.cli import diode_shown
from cofferdam.crossing import strand, strand_missing
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce import kernel
from cofferdam.errors import CofferdamError, CrossingError
from cofferdam.limits import strand_end
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS

POLICY = """
site: hostile
zones:
  office: {side: it}
  plant: {side: ot}
  strand-in: {side: ot, addresses: [127.0.0.1/8], crossing: diode}
  strand-out: {side: it, addresses: [127.0.0.2/8], crossing: diode}
principals:
  lake: {zone: office, addresses: [127.0.0.1]}
assets:
  plc: {zone: plant, address: 127.0.0.1, protocol: modbus, unit: 1, points: {level: {at: input 12, type: uint16}}}
conduits:
  history:
    {from: plant, to: office, broker: mirror, owner: tests, reason: tests, sources: {plc: {asset: plc}},
     mirror: {acks: none}, listen: {office: {at: "127.0.0.1:8443", plain: true}}, allow: [{who: lake, read: all}]}
  strand:
    {from: strand-in, to: strand-out, broker: diode, owner: tests, reason: tests, wait: 1 s,
     repeat: {younger: 24 h, at: "02:00"}, spool: {keep: 72 h, most: 2 MB},
     carries: [history, "gate:log", "gate:status", files:reports, files:others],
     files: {reports: {names: ["*.csv"], most: 1 MB, per_day: 3 MB}, others: {names: ["*.bin"], scan: true}}}
"""
WALL, EPOCH = 10**18, 5
SIGN, SIGNED = pairing.new_signer()


@functools.cache
def sliced() -> CompiledPolicy:
    """What a part gets of the policy."""
    whole = compile_policy(loads(POLICY), now_ns=WALL)
    scope = Scope(frozenset({"strand"}), frozenset({"strand"}))
    return CompiledPolicy(KINDS["diode"].slice(whole, scope, "keeper"))


class Part:
    """One of the strand's parts without its process: what it is told goes in, what it says comes out."""

    def __init__(self, folder: Path, make: Callable[[Any], Any], keys: Any) -> None:
        self.folder = folder
        (folder / "store").mkdir(exist_ok=True)
        names = (
            "reports-in",
            "reports-out",
            "others-in",
            "others-out",
            "strand-inside",
            *(strand_end("history", way) for way in ("in", "out")),
        )
        self.folders = {name: folder / name for name in names}
        for path in self.folders.values():
            path.mkdir(exist_ok=True)
        policy = sliced()
        self.now = 10**12
        self.said: list[Any] = []
        self.sent: list[Any] = []
        self.later: list[Callable[[], Any]] = []
        self.turns = 0
        self.jobs: list[Callable[[bytes, str], None]] = []
        channel = SimpleNamespace(send=self.sent.append, backlog=0)

        def record(event: Any, done: Callable[[bool, str], None]) -> None:
            self.said.append(event)
            self.later.append(lambda: done(True, ""))

        self.setting = SimpleNamespace(
            policy=policy, severed=frozenset(), wall=lambda: WALL + self.now, clock=lambda: self.now,
            secrets={pairing.SECRET: msgspec.json.encode(keys)}, folders=self.folders, store=folder / "store",
            senders={"receiver": channel, "sender": channel},
            run_job=lambda job, order, done: self.jobs.append(done),
            reactor=SimpleNamespace(later=self.later.append, call_in=self._call_in, add=lambda *_: None),
            audit=SimpleNamespace(note=lambda event, **_: self.said.append(event), record=record, writable=True),
        )  # fmt: skip
        self.part = make(cast(Any, self.setting))

    def _call_in(self, seconds: float, call: Callable[[], Any]) -> None:
        """What is put off to another turn comes in it; what is for later never does here."""
        if not seconds:
            self.turns += 1
            self.later.append(call)

    def turn(self) -> None:
        while self.later:
            self.later.pop(0)()

    def ticks(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.now += 500_000_000
            self.part.tick()
            self.turn()

    def kinds(self) -> list[str]:
        return [type(one).__name__ for one in self.said]

    def ask(self, verb: str, **arguments: object) -> Any:
        found: list[Any] = []
        asked = Asked(verb, msgspec.json.encode(arguments), lambda *answer: found.append(answer))
        try:
            self.part.command(asked)
        except CofferdamError as error:
            return str(error)
        self.turn()
        result, why, _ = found[0]
        return msgspec.json.decode(result) if result else why


class Outside(Part):
    def __init__(self, folder: Path, log: str = "") -> None:
        super().__init__(folder, Keeper, pairing.KeeperKeys(SIGN, log))
        self.say(Epoch(EPOCH, WALL, "words"))

    def say(self, *told: Any) -> None:
        for record in told:
            self.part.on_record("receiver", record)
        self.turn()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    found = Outside(tmp_path)
    yield found
    found.part.halt()


def file(number: int, name: str, data: bytes = b"", *, channel: str = "files:reports", sha256: str = "") -> list[Piece]:
    size = len(data)
    digest = sha256 or hashlib.sha256(data).hexdigest()
    found = [
        Piece(channel, EPOCH, number, FILES.encode(Manifest(name, size, digest, 1, -(-size // records.CHUNK_BYTES))))
    ]
    for at in range(0, size, records.CHUNK_BYTES):
        body = FILES.encode(Chunk(number, at, data[at : at + records.CHUNK_BYTES]))
        found.append(Piece(channel, EPOCH, number + 1 + at // records.CHUNK_BYTES, body))
    return found


def beat(
    channel: str = "files:reports", epoch: int = EPOCH, oldest: int = 1, highest: int = 0, of: int = EPOCH
) -> Beat:
    return Beat(of, WALL, 0, (Told(channel, (Span(epoch, oldest, highest),)),))


def raw(number: int, body: bytes, channel: str = "files:reports", epoch: int = EPOCH) -> Piece:
    return Piece(channel, epoch, number, body)


def chunk(number: int, manifest: int, offset: int, data: bytes = b"x") -> Piece:
    return raw(number, FILES.encode(Chunk(manifest, offset, data)))


def manifest(number: int, name: str = "a.csv", size: int = 10, chunks: int = 1) -> Piece:
    return raw(number, FILES.encode(Manifest(name, size, "0" * 64, 1, chunks)))


@pytest.mark.parametrize(
    ("told", "why"),
    [
        pytest.param([manifest(1, "../../etc/x")], "a file called", id="a way up"),
        pytest.param([manifest(1, "/etc/passwd.csv")], "a file called", id="a way from the root"),
        pytest.param([manifest(1, ".hidden.csv")], "a file called", id="a hidden name"),
        pytest.param([manifest(1, "a\n.csv")], "a file called", id="a name that does not show itself"),
        pytest.param([manifest(1, chunks=1 << 32)], "chunks of a file", id="a manifest without end"),
        pytest.param([manifest(1, size=1 << 44, chunks=0)], "chunks of a file", id="a size that its chunks have not"),
        pytest.param([manifest(1), chunk(2, 1, 5)], "at byte 5", id="a chunk at another place"),
        pytest.param([chunk(2, 9, 0)], "of file 9", id="a chunk before its manifest's number"),
        pytest.param([manifest(1), chunk(2, 1, 0, b"x" * 11)], "11 bytes or more", id="more than the manifest says"),
        pytest.param([raw(1, b"\xc1")], "refused", id="no record"),
        pytest.param([raw(1, FILES.encode(Chunk(1, 0, b"x"))[:-1])], "refused", id="half a record"),
        pytest.param([raw(1 << 40, b"")], "refused|number", id="a number far ahead"),
        pytest.param([manifest(1 << 40)], "number", id="a manifest far ahead"),
        pytest.param([Piece("files:reports", EPOCH + 1, 1, manifest(1).body)], "epoch", id="an epoch of the future"),
        pytest.param([beat(highest=JUMP_MOST + 1)], "heartbeat", id="a heartbeat far ahead"),
        pytest.param([beat(oldest=9, highest=3)], "heartbeat", id="a heartbeat that contradicts itself"),
        pytest.param([beat(epoch=EPOCH + 1, highest=1)], "above", id="a heartbeat of an epoch to come"),
    ],
)  # fmt: skip
def test_a_sender_that_lies_stops_its_channel_and_no_other(outside: Outside, told: list[Any], why: str) -> None:
    outside.say(*told)
    stopped = outside.part._stopped
    assert list(stopped) == ["files:reports"]
    assert re.search(why, stopped["files:reports"]), stopped
    assert any(name.startswith("stopped-") for name in outside.part.alarms())
    assert outside.kinds().count("DiodeStopped") == 1
    outside.say(*file(1, "b.bin", b"fine", channel="files:others"))  # the other channel goes on, to its scan
    assert len(outside.jobs) == 1
    outside.jobs.pop()(msgspec.json.encode(Scanned("clean", "", "clamd 1")), "")
    outside.turn()
    assert (outside.folders["others-in"] / "b.bin").read_bytes() == b"fine"
    assert not any(path.name[0] != "." for path in outside.folders["reports-in"].iterdir())
    assert not list(outside.folder.parent.glob("etc"))
    outside.ticks(1)


def test_channels_that_do_not_ride(outside: Outside) -> None:
    outside.say(*(Piece(f"files:x{number}", EPOCH, 1, b"") for number in range(2 * records.CHANNELS_MOST)))
    assert len(outside.part._stopped) == records.CHANNELS_MOST
    assert len(outside.part.alarms()) <= 32
    outside.say(*file(1, "a.csv", b"1"))
    assert (outside.folders["reports-in"] / "a.csv").exists()


def test_what_waited_for_one_record_is_handed_on_in_many_turns(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it was synced in one, one by one: with some thousands the part was ended for its silence, and its
    successor, which had them on disk and waited anew, as well."""
    monkeypatch.setattr(keeper_records, "TURN_MOST", 10)
    history, folder = "records:history", outside.folders[strand_end("history", "in")]
    for number in range(2, 72):
        outside.say(raw(number, records.parts(b"x")[0], history))
    assert strand.waiting(folder) == []
    turns = outside.turns
    outside.say(raw(1, records.parts(b"x")[0], history))
    assert len(strand.waiting(folder)) == 71 and outside.turns - turns == 7
    assert list(outside.part._store.held()) == []


def test_names_that_nobody_knows_hide_no_channel_that_is_stopped(outside: Outside) -> None:
    """With 256 of them no other channel was stopped any more, and with eight no alarm told of it."""
    for number in range(records.CHANNELS_MOST + 9):
        outside.say(raw(1, b"x", f"files:x{number}"))
    outside.say(manifest(1, "../../etc/x"), beat(of=EPOCH - 1))
    assert {"files:reports", "heartbeat"} < set(outside.part._stopped)
    assert sum(one.startswith("files:reports of") for one in outside.part.alarms().values()) == 1
    assert len(outside.part._stopped) == records.CHANNELS_MOST + 2


def test_what_is_no_crime_and_not_wanted(outside: Outside) -> None:
    """Names, sizes and days that the policy does not let through are refused, one by one, and the channel goes on."""
    outside.say(*file(1, "a.exe", b"x"), *file(3, "large.csv", bytes(1_100_000)))
    at = 3 + 1 + -(-1_100_000 // records.CHUNK_BYTES)
    for number in range(4):
        pieces = file(at, f"{number}.csv", os.urandom(900_000))
        outside.say(*pieces)
        at += len(pieces)
    outside.say(*file(at, "false.csv", b"12", sha256="1" * 64))
    refused = [one for one in outside.said if type(one).__name__ == "DiodeFileRefused"]
    assert [one.name for one in refused] == ["a.exe", "large.csv", "3.csv", "false.csv"]
    assert "of a day" in refused[2].detail and "hash" in refused[3].detail
    there = {path.name for path in outside.folders["reports-in"].iterdir() if path.name[0] != "."}
    assert there == {"0.csv", "1.csv", "2.csv"} and not outside.part._stopped


def test_records_that_contradict_each_other(outside: Outside) -> None:
    one = records.parts(b"\xdd" + bytes(300_000))
    assert len(one) == 2
    outside.say(Piece("records:history", EPOCH, 1, one[0]), Piece("records:history", EPOCH, 2, one[0]))
    outside.say(Piece("records:history", EPOCH, 2, records.parts(b"x")[0]))  # of another unit: so it never ends
    assert not outside.part._stopped
    outside.say(beat("records:history", highest=3), beat("records:history", oldest=4, highest=3))
    outside.ticks(3)
    assert strand.waiting(outside.folders[strand_end("history", "in")]) == []
    assert outside.part._channels["records:history"].epochs[EPOCH].lost == 3  # the two that came are of no use
    assert not list(outside.part._store.held())
    outside.say(Piece("records:history", EPOCH, 4, b"\x00\x05\x00\x02x"))
    assert "piece 5 of 2" in outside.part._stopped["records:history"]


def test_what_a_part_outside_cannot_take_stops_its_channel(outside: Outside) -> None:
    """A record that no honest part would send: its receiver marks the folder, and takes nothing more."""
    folder = outside.folders[strand_end("history", "in")]
    outside.say(Piece("records:history", EPOCH, 1, records.parts(b"no record")[0]))
    (name,) = strand.waiting(folder)
    taken: list[Any] = []
    reactor = SimpleNamespace(call_in=lambda _, call: calls.append(call), add=lambda *_: None, remove=lambda _: None)
    calls: list[Callable[[], None]] = []
    codec: Any = RecordCodec(Beat)
    strand.StrandReceiver(cast(Any, reactor), folder, codec, taken.append, lambda: 0)
    with pytest.raises(CrossingError):
        calls.pop()()
    assert taken == [] and strand.waiting(folder) == [name]
    again: Any = strand.StrandReceiver(cast(Any, reactor), folder, codec, taken.append, lambda: 0)
    calls.pop()()
    assert taken == [] and again is not None  # so it is when the part has begun anew
    outside.ticks(1)
    assert "takes nothing more" in outside.part._stopped["records:history"]
    assert any("records:history" in words for words in outside.part.alarms().values())


def test_records_in_pieces_come_whole_and_once_whatever_dies(tmp_path: Path) -> None:
    """Pieces in any order, the keeper begun anew between any two of them: the part gets each once, whole."""
    bodies = [b"\xdd" + os.urandom(size) for size in (10, 700_000, 20, 300_000)]
    pieces, at = [], 1
    for body in bodies:
        parts = records.parts(body)
        pieces += [Piece("records:history", EPOCH, at + n, part) for n, part in enumerate(parts)]
        at += len(parts)
    for order in (pieces, pieces[::-1], pieces[1::2] + pieces[::2]):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for piece in order:
            outside = Outside(folder)
            outside.say(piece, piece)
            outside.part.halt()
        again = Outside(folder)
        into = again.folders[strand_end("history", "in")]
        assert [strand.read(into, name) for name in strand.waiting(into)] == bodies
        assert not list(again.part._store.held())
        again.part.halt()


def test_a_disk_that_is_full_outside(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept is missing, and so named; nothing counts as come that is not on disk."""
    monkeypatch.setattr(keeper_files, "RESERVE_BYTES", 1 << 60)
    outside.say(*file(1, "a.csv", b"1"))
    assert "too few" in outside.part._full and "store" in outside.part.alarms()
    monkeypatch.undo()
    outside.say(beat(highest=2))
    outside.ticks(3)
    assert outside.part._status()["channels"][0]["missing"] + outside.part._status()["channels"][1]["missing"] >= 1
    outside.say(*file(1, "a.csv", b"1"))
    assert (outside.folders["reports-in"] / "a.csv").read_bytes() == b"1"


def test_a_folder_that_takes_nothing(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(strand, "put", full)
    outside.say(Piece("records:history", EPOCH, 1, records.parts(b"\xdd1")[0]))
    assert "full" in outside.part._full
    monkeypatch.undo()
    outside.ticks(1)
    folder = outside.folders[strand_end("history", "in")]
    assert [strand.read(folder, name) for name in strand.waiting(folder)] == [b"\xdd1"]


def test_a_scan_that_gives_no_verdict_lets_nothing_through(outside: Outside) -> None:
    outside.say(*file(1, "b.bin", b"fine", channel="files:others"))
    for answer, why in (
        (b"", "it took too long"),
        (b"{}", ""),
        (msgspec.json.encode(Scanned("not scanned", "away")), ""),
    ):
        outside.jobs.pop()(answer, why)
        outside.turn()
        assert "wait for their scan" in outside.part.alarms()["scan"]
        outside.part._files._scan(outside.part._store.file("files:others", EPOCH, 1))
    assert not (outside.folders["others-in"] / "b.bin").exists()


def test_how_much_of_a_file_has_come_is_told(outside: Outside) -> None:
    pieces = file(1, "a.csv", bytes(7 * records.CHUNK_BYTES))
    outside.say(*pieces[:3])
    (channel,) = (one for one in outside.ask("status")["channels"] if one["channel"] == "files:reports")
    assert channel["under_way"] == [{"name": "a.csv", "size": 7 * records.CHUNK_BYTES, "done": 3, "of": 8}]
    assert "    a.csv: 37 % of 344 kB has come" in diode_shown._under_way(channel["under_way"], "come")


def test_how_much_of_a_file_has_been_sent_is_told(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_lanes, "CREDIT_BYTES", 2 * records.CHUNK_BYTES)
    (inside.folders["reports-out"] / "a.csv").write_bytes(bytes(7 * records.CHUNK_BYTES))
    inside.ticks(1.5)
    (found,) = inside.ask("status")["under_way"]
    assert (found["name"], found["of"]) == ("a.csv", 8) and 2 <= found["done"] < 8


def test_silence_is_an_alarm(outside: Outside) -> None:
    outside.say(beat())
    assert "silent" not in outside.part.alarms()
    outside.now += SILENT_NS + 1
    assert "silent" in outside.part.alarms()


def test_a_part_outside_is_told_what_has_not_come(outside: Outside) -> None:
    """It counts numbers of its own, and cannot know that the last ones are missing."""
    folder = outside.folders[strand_end("history", "in")]

    def told(missing: int, behind: int) -> bool:
        found = msgspec.structs.replace(strand_missing.missing(folder), since=0)
        return found == strand_missing.Missing(missing, behind)

    history = "records:history"
    outside.say(beat(history, highest=3), raw(2, records.parts(b"x")[0], history))
    outside.ticks(2)
    assert told(2, 1)
    outside.say(raw(4, records.parts(b"x")[0], history))
    outside.ticks(0.5)
    assert told(2, 0)
    outside.say(beat(history, oldest=7, highest=6))  # 1, 3, 5 and 6 are not kept inside any more: no ticket brings them
    outside.ticks(0.5)
    assert told(0, 2)
    outside.part.halt()
    again = Outside(outside.folder)
    again.say(beat(history, oldest=7, highest=6))
    again.ticks(0.5)
    assert told(0, 2)
    again.say(raw(7, records.parts(b"x")[0], history))
    again.ticks(0.5)
    assert told(0, 0)
    (one,) = beat(history, oldest=7, highest=6).channels  # what waits inside is not there, and not lost
    again.say(msgspec.structs.replace(beat(history), channels=(Told(one.channel, one.spans, 9),)))
    again.ticks(0.5)
    assert strand_missing.missing(folder) == strand_missing.Missing(waits=9)
    again.say(beat(history, oldest=7, highest=6))
    again.ticks(0.5)
    assert told(0, 0)
    heard = WALL + again.part._beat_at
    again.ticks(SILENT_NS / 1e9 + 1)
    assert strand_missing.missing(folder) == strand_missing.Missing(silent=True, heard=heard)
    again.part.halt()
    third = Outside(outside.folder)  # born anew, and the inside is as silent as before
    third.ticks(0.5)
    assert strand_missing.missing(folder) == strand_missing.Missing(silent=True, heard=heard)
    third.part.halt()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_what_cannot_be_told_on_a_full_disk_is_unknown(outside: Outside) -> None:
    """The mark stayed as it was: a mirror outside had "no gaps" for as long as its disk was full. And with a record to
    hand on each tick ended the part."""
    history, folder = "records:history", outside.folders[strand_end("history", "in")]
    kernel.mount("tmpfs", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=64k")
    try:
        outside.say(beat(history))
        outside.ticks(0.5)
        assert strand_missing.missing(folder) == strand_missing.Missing()
        with pytest.raises(OSError, match="No space"):
            (folder / ".filler").write_bytes(bytes(1 << 20))
        data = records.parts(bytes(8000))[0]
        outside.say(raw(1, data, history), raw(4, data, history), beat(history, highest=4))
        outside.ticks(2)
        assert "full" in outside.part.alarms()["store"]
        with pytest.raises(CrossingError, match="is the disk full"):
            strand_missing.missing(folder)
        (folder / ".filler").unlink()
        outside.ticks(1)
        assert strand_missing.missing(folder).missing == 2 and len(strand.waiting(folder)) == 2
    finally:
        kernel.umount(str(folder))


def test_when_the_newest_gap_was_found_is_told(outside: Outside) -> None:
    """So that a part knows whether it can know of it by its own numbers; it does not of the last ones."""
    history, folder = "records:history", outside.folders[strand_end("history", "in")]
    outside.say(raw(2, records.parts(b"x")[0], history), beat(history, highest=2))
    outside.ticks(2)
    first = strand_missing.missing(folder).since
    assert WALL < first <= WALL + outside.now - 10**9
    outside.say(beat(history, highest=3))
    outside.ticks(2)
    assert strand_missing.missing(folder) == strand_missing.Missing(2, 1, since=first)
    outside.say(raw(4, records.parts(b"x")[0], history))
    outside.ticks(0.5)
    assert strand_missing.missing(folder).since > first


def test_a_clock_that_is_set_back_hides_no_gap(outside: Outside) -> None:
    """It was told as closed, and the mirror that rides said "no gaps", for as long as the clock was set back."""
    history, wall = "records:history", outside.setting.wall
    outside.say(beat(history, highest=3), raw(2, records.parts(b"x")[0], history))
    outside.ticks(2)
    outside.said.clear()
    outside.setting.wall = lambda: wall() - 3600 * 10**9
    outside.say(beat(history, highest=3))
    outside.ticks(2)
    assert strand_missing.missing(outside.folders[strand_end("history", "in")]).missing == 2
    assert "DiodeGap" not in outside.kinds() and outside.ask("ticket")["tickets"][0]["missing"] == 2


def test_what_is_taken_no_more_is_no_copy_without_gaps(outside: Outside) -> None:
    """Of a channel that is stopped nobody counts what does not come; nor does anybody while the strand's part is
    gone. And what waited inside once is no gap for good."""
    history, folder = "records:history", outside.folders[strand_end("history", "in")]
    outside.say(Beat(EPOCH, WALL, 0, (Told(history, (Span(EPOCH, 1, 0),), 2**53 - 1),)))
    outside.ticks(0.5)
    assert strand_missing.missing(folder).waits == 2**53 - 1
    outside.say(Epoch(EPOCH + 1, WALL, "words"), Beat(EPOCH + 1, WALL, 0, ()))  # another sender, which has sent none
    outside.ticks(0.5)
    assert strand_missing.missing(folder) == strand_missing.Missing()
    outside.say(raw(2**50, records.parts(b"x")[0], history))
    outside.say(raw(2, records.parts(b"x")[0], history), beat(history, highest=9, of=EPOCH + 1))
    outside.ticks(2)
    assert strand_missing.missing(folder) == strand_missing.Missing(stopped=True)
    outside.part.end()
    found = strand_missing.missing(folder)
    assert found.silent and WALL + outside.now - 2 * 10**9 <= found.heard <= WALL + outside.now


# --- tickets, inside --------------------------------------------------------------------------------------------------


def test_a_ticket_is_used_once_and_asks_for_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    inside = Part(tmp_path / "in", Spool, pairing.SpoolKeys((pairing.Good(SIGNED),)))
    outside = Outside(tmp_path / "out")
    outside.say(beat(highest=3))
    outside.ticks(2)
    text = outside.ask("ticket", channel="", by="me")["tickets"][0]["text"]
    told = inside.ask("resend", ticket=text)
    assert told["records"] == 0 and told["go"] is False
    assert told["lost"] == 3  # of an epoch of which this spool has nothing: that of a machine that is lost
    assert inside.ask("resend", ticket=text, go=True)["go"] is True
    assert "used before" in inside.ask("resend", ticket=text, go=True)
    assert "used before" in inside.ask("resend", ticket=text)
    (tmp_path / "anew").mkdir()
    anew = Outside(tmp_path / "anew")  # the outside is set up anew, and its tickets begin with 1
    anew.now += 10 * 10**9
    anew.say(beat(highest=3))
    anew.ticks(2)
    another = anew.ask("ticket", channel="", by="me")["tickets"][0]
    assert another["serial"] == told["serial"]
    assert inside.ask("resend", ticket=another["text"], go=True)["go"] is True
    assert "used before" in inside.ask("resend", ticket=another["text"], go=True)
    anew.part.halt()
    wrong = text[:-1] + ("2" if text[-1] != "2" else "3")
    assert "mistyped" in inside.ask("resend", ticket=wrong, go=True)
    inside.now += 8 * 86_400 * 10**9
    fresh = outside.ask("ticket", channel="", by="me")["tickets"][0]["text"]
    assert "expired" in inside.ask("resend", ticket=fresh, go=True)
    inside.part.halt()
    outside.part.halt()


# --- inside -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Part]:
    found = Part(tmp_path, Spool, pairing.SpoolKeys((pairing.Good(SIGNED),)))
    yield found
    found.part.halt()


def hand(inside: Part, name: str, data: bytes) -> None:
    """A file into the folder of a channel, until it has been sent."""
    (inside.folders["reports-out"] / name).write_bytes(data)
    inside.ticks(1.5)
    inside.part.on_record("sender", records.Room(1 << 30))


def pieces(inside: Part, *, again: bool) -> list[tuple[str, int]]:
    return [(one.channel, one.number) for one in inside.sent if isinstance(one, Piece) and one.again is again]


def test_blind_backfill_sends_again_what_is_younger(inside: Part) -> None:
    assert (inside.setting.wall() // 10**9) % 86_400 // 3600 == 2  # within its hour: there is nothing yet
    inside.ticks(0.5)
    hand(inside, "old.csv", b"old")
    inside.now += 12 * 3600 * 10**9
    hand(inside, "young.csv", b"young")
    assert pieces(inside, again=False) == [("files:reports", number) for number in (1, 2, 3, 4)]
    assert pieces(inside, again=True) == []
    inside.now += 12 * 3600 * 10**9  # the next night; the old one is more than 24 h old by some seconds
    inside.ticks(0.5)
    assert pieces(inside, again=True) == [("files:reports", 3), ("files:reports", 4)]
    inside.ticks(2)
    assert len(pieces(inside, again=True)) == 2  # once a night


def test_what_is_sent_again_is_not_all_in_memory(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night's backfill of 1,000 records a second was a list of 86 million, 256 bytes each."""
    monkeypatch.setattr(spool_lanes, "CREDIT_BYTES", 1_000)
    history, store, epoch = "records:history", inside.part._store, inside.part.epoch
    store.take_messages(history, epoch, [bytes(100)] * 4_000, 1, "1")
    store.left(history, epoch, 4_000)
    tracemalloc.start()
    try:
        inside.part._resend([(history, epoch, 2, 3_999)], 0)
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()
    inside.part._lanes.left(records.Room(1 << 30))
    inside.part._lanes.left(records.Room(1 << 30))
    assert [number for _, number in pieces(inside, again=True)] == list(range(2, 2 + 30))


def test_a_clock_that_is_set_forward_empties_no_spool(inside: Part) -> None:
    hand(inside, "a.csv", b"a")
    inside.ticks(11)
    wall = inside.setting.wall
    inside.setting.wall = lambda: wall() + 365 * 86_400 * 10**9
    inside.ticks(11)
    assert inside.ask("status")["channels"][0]["oldest"] == 1
    inside.setting.wall = wall
    inside.now += 71 * 3600 * 10**9
    inside.ticks(11)
    assert inside.ask("status")["channels"][0]["oldest"] == 1
    inside.now += 3600 * 10**9
    inside.ticks(11)
    assert inside.ask("status")["channels"][0]["oldest"] == 3  # its time is up


def test_a_ramp_goes_on_to_its_next_rate_once_the_last_one_has_left(inside: Part) -> None:
    inside.ask("test", rates=[2_000_000, 1_000_000], seconds=1.0)

    def sent() -> list[Any]:
        """Paces, and (rate, how many, whether they are known blocks themselves)."""
        told = [one for one in inside.sent if isinstance(one, records.Pace | records.Known)]
        inside.sent.clear()
        groups = itertools.groupby(
            told, key=lambda one: one.rate if isinstance(one, records.Pace) else (one.rate, one.at < one.of)
        )
        return [(key, len(list(group))) for key, group in groups]

    def left() -> None:
        inside.part.on_record("sender", records.Room(1 << 20))

    assert sent() == [(1_000_000, 1), ((2_000_000, False), 1), ((1_000_000, False), 1)]  # slowly: what will come
    left()
    assert sent() == [(2_000_000, 1), ((2_000_000, True), 4)]
    left()
    assert sent() == [(1_000_000, 1), ((1_000_000, True), 2)]
    left()
    assert sent() == [(0, 1)]


def test_a_spool_that_is_too_small_is_foreseen(inside: Part) -> None:
    hand(inside, "a.csv", os.urandom(500_000))
    assert "spool" not in inside.part.alarms()  # nobody can say yet
    inside.now += 3600 * 10**9
    inside.ticks(0.5)
    assert "at this pace the oldest goes after 4.0 h" in inside.part.alarms()["spool"]
    assert inside.ask("status")["spool"]["room_seconds"] // 3600 == 4
    for number in range(4):  # beyond its room the oldest goes, and the heartbeat tells it
        hand(inside, f"{number}.csv", os.urandom(450_000))
    inside.ticks(11)
    beats = [one for one in inside.sent if isinstance(one, Beat)]
    assert beats[-1].dropped > 0
    (told,) = beats[-1].channels
    assert told.spans[0].oldest > 1


def test_what_was_never_sent_goes_last(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went for a file that came, with what was sent long before kept: named as lost, and for ever."""
    monkeypatch.setattr(spool_lanes, "CREDIT_BYTES", 100_000)
    history, body, count = "records:history", bytes(20_000), 60
    store, epoch, folder = inside.part._store, inside.part.epoch, inside.folders[strand_end("history", "out")]
    hand(inside, "old.csv", bytes(400_000))
    for _ in range(9):
        inside.part.on_record("sender", records.Room(100_000))
    for number in range(1, count + 1):
        strand.put(folder, f"{number:020d}", body, synced=False)
    while inside.part._look():
        pass

    def kept() -> int:
        number: int = store.messages(history, epoch, 1, count)[0]
        return number

    waits = inside.folders["reports-out"] / "new.csv"
    waits.write_bytes(bytes(900_000))
    inside.ticks(2)
    assert kept() == count and not store.files("sent")
    assert waits.exists() and any("not sent yet: it waits" in why for why in inside.part.alarms().values())
    asked, make = [], inside.part._files._make_room
    others = [waits.with_name(f"{number}.csv") for number in range(5)]
    for other in others:
        other.write_bytes(waits.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(inside.part._files, "_make_room", lambda most: asked.append(make(most)))
        inside.ticks(2)
    assert len(asked) == 4  # once in a scan, and not for each of thousands
    for other in others:
        other.unlink()
    while store.unsent():
        inside.part.on_record("sender", records.Room(100_000))
        inside.turn()
    inside.ticks(2)
    assert not waits.exists() and 0 < kept() < count  # no more of them went than had to

    for at in (1, 5):
        store.take_messages("records:other", epoch, [body], at, "1")
    store.take_messages("records:held", epoch, [body] * 2, 5, "1")
    store.left("records:other", epoch, 1)
    while store.expire(inside.setting.wall()):
        pass
    assert [store.messages(f"records:{name}", epoch, 1, 2)[0] for name in ("other", "held")] == [1, 2]
    store.left("records:other", epoch, 2)
    assert store.shrink(store.size - 1, unsent=True)[:2] == ("records:other", 1)
    assert store.shrink(store.size - 1, unsent=False)[:2] == ("", 0)
    assert store.shrink(store.size - 1, unsent=True)[:2] == ("records:held", 1)


def test_more_than_the_rate_waits_on_disk_and_is_told(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that would be prompt fill no memory, neither the sender's nor here; files have a part of it all the
    same."""
    history, body = "records:history", bytes(8000)
    folder, credit = inside.folders[strand_end("history", "out")], 20_000
    for name, value in (("prompt_credit", lambda _: credit), ("CREDIT_BYTES", 100_000), ("FLOOR", 2)):
        monkeypatch.setattr(spool_lanes, name, value)
    for number in range(1, 61):
        strand.put(folder, f"{number:020d}", body, synced=False)
    while inside.part._look():
        pass
    (inside.folders["reports-out"] / "a.csv").write_bytes(bytes(100_000))
    inside.ticks(1.5)

    def sent(channel: str, prompt: bool) -> list[int]:
        return [
            one.number for one in inside.sent
            if isinstance(one, Piece) and (one.channel, one.prompt, one.again) == (channel, prompt, False)
        ]  # fmt: skip

    first = sent(history, True)
    assert first == [1, 2, 3] and sent(history, False) == list(range(4, 4 + 13))
    assert not sent("files:reports", False)
    lanes = inside.part._lanes
    assert sum(len(runs) for runs in lanes._records.values()) == 1  # however many wait
    assert lanes.waiting == 44 * (len(body) + 4)

    def waits() -> int:
        *_, beat = (one for one in inside.sent if isinstance(one, Beat))
        assert beat.queue >= lanes.waiting
        return sum(one.waits for one in beat.channels if one.channel == history)

    assert waits() == 0  # it may all be on its way
    inside.ticks(7)
    assert waits() >= 44
    monkeypatch.setattr(spool, "BEHIND_SECONDS", 0)
    assert "behind" in inside.part.alarms()

    for _ in range(2):
        inside.part.on_record("sender", records.Room(150_000))
    assert sent(history, False)[-1] < 60 and sent("files:reports", False)  # neither waits for the other
    for _ in range(9):
        inside.part.on_record("sender", records.Room(100_000, credit))
    assert sent(history, False) == list(range(4, 61)) and len(sent("files:reports", False)) == 4
    assert "behind" not in inside.part.alarms()
    inside.ticks(1.5)
    assert waits() == 0
    strand.put(folder, f"{10**6:020d}", body, synced=False)
    inside.part._look()
    assert sent(history, True) == [1, 2, 3, 61]  # there is room again


def test_no_more_is_told_as_sent_than_can_be_there(inside: Part) -> None:
    """Not what is in the sender, nor what is in a block of which more is to leave: at a low rate it is there in
    minutes, and would be named as missing until then. What is not kept any more counts as sent."""
    history, body = "records:history", bytes(20_000)
    folder = inside.folders[strand_end("history", "out")]
    for number in range(1, 6):
        strand.put(folder, f"{number:020d}", body, synced=False)
    inside.part._look()
    size = len(body) + 4

    def told() -> int:
        inside.part._beat()
        beat = next(one for one in reversed(inside.sent) if isinstance(one, Beat))
        return next((one.spans[0].highest for one in beat.channels if one.channel == history), 0)

    assert told() == 0  # all of them are in the sender
    inside.part.on_record("sender", records.Room(3 * size, 0, 2 * size))
    assert told() == 1
    inside.part.on_record("sender", records.Room(2 * size, 0, size))
    assert told() == 4
    inside.part.on_record("sender", records.Room(0, 0, 0))
    assert told() == 5
    assert inside.part._store.unsent() == []

    store = inside.part._store
    first = store.take_messages(history, inside.part.epoch, [body] * 3, 1, "9")
    store.shrink(store.size - 2 * size, unsent=True)
    with store.db.commit():
        store.db.run("DELETE FROM messages WHERE number>?", first)
    inside.part._bulk(history, first, first + 2, 3 * size)
    inside.part.on_record("sender", records.Room(size))
    assert told() == first + 2


def test_large_records_of_one_channel_leave_another_its_share(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """They took turns record by record: what needs a hundredth of the strand waited for ever behind what filled it."""
    monkeypatch.setattr(spool_lanes, "CREDIT_BYTES", 1_000_000)
    lanes, store, epoch = inside.part._lanes, inside.part._store, inside.part.epoch

    def put(channel: str, count: int, size: int) -> None:
        first = store.take_messages(channel, epoch, [bytes(size)] * count, 1, "1")
        lanes.put(channel, epoch, first, first + count - 1, count * size)

    def sent(channel: str) -> int:
        return sum(isinstance(one, Piece) and one.channel == channel for one in inside.sent)

    put("records:large", 60, 200_000)
    for _ in range(3):
        lanes.left(records.Room(1_000_000))
    put("records:small", 400, 100)
    lanes.left(records.Room(1_000_000))
    assert sent("records:small") == 400
    before = sent("records:large")
    put("records:small", 400, 100)  # it has no claim to what it did not need
    put("records:other", 60, 200_000)
    lanes.left(records.Room(4_000_000))
    assert sent("records:small") == 800 and abs(sent("records:large") - before - sent("records:other")) <= 5


def test_a_channel_pays_for_nothing_that_nobody_else_wanted(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent alone counted against it the next time: behind another that had more than the strand carries it
    waited until that had sent as much."""
    monkeypatch.setattr(spool_lanes, "CREDIT_BYTES", 1_000_000)
    lanes, store, epoch = inside.part._lanes, inside.part._store, inside.part.epoch

    def put(channel: str) -> None:
        first = store.take_messages(channel, epoch, [bytes(200_000)] * 40, 1, "1")
        lanes.put(channel, epoch, first, first + 39, 40 * 200_000)

    put("records:alone")
    for _ in range(9):
        lanes.left(records.Room(1_000_000))
    inside.sent.clear()
    put("records:other")
    put("records:alone")
    for _ in range(3):
        lanes.left(records.Room(1_000_000))
    found = [one.channel for one in inside.sent if isinstance(one, Piece)]
    assert found.count("records:alone") >= 5


def test_small_files_of_a_prompt_channel_go_before_large_ones(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """But before none of their own channel: the outside would name as missing what they overtook."""
    monkeypatch.setattr(spool_lanes, "CREDIT_BYTES", 2 * records.CHUNK_BYTES)
    row = inside.part._row
    inside.part._row = msgspec.structs.replace(row, prompt=("files:others",))

    def pieces(channel: str) -> list[Piece]:
        return [one for one in inside.sent if isinstance(one, Piece) and one.channel == channel and not one.again]

    (inside.folders["reports-out"] / "large.csv").write_bytes(bytes(9 * records.CHUNK_BYTES))
    inside.ticks(1.5)
    large = len(pieces("files:reports"))
    assert large < 10
    (inside.folders["others-out"] / "small.bin").write_bytes(b"small")
    inside.ticks(1.5)
    inside.part.on_record("sender", records.Room(records.CHUNK_BYTES))
    assert [one.prompt for one in pieces("files:others")] == [True, True] and len(pieces("files:reports")) < 10
    for name in ("second.bin", "third.bin"):  # at a time, and though bulk has no room
        (inside.folders["others-out"] / name).write_bytes(b"small")
    inside.ticks(2.5)
    assert [one.prompt for one in pieces("files:others")] == [True] * 6 and len(pieces("files:reports")) < 10
    (inside.folders["others-out"] / "large.bin").write_bytes(bytes(4 * records.CHUNK_BYTES))
    inside.ticks(1.5)
    (inside.folders["others-out"] / "last.bin").write_bytes(b"last")
    inside.ticks(1.5)
    for _ in range(20):
        inside.part.on_record("sender", records.Room(1 << 20, 1000))
    found = pieces("files:others")
    assert [one.prompt for one in found[:11]] == [True] * 6 + [False] * 5
    assert [one.number for one in found] == list(range(1, 14))


def test_heartbeats_do_not_grow_with_each_start(inside: Part) -> None:
    """Of 64 epochs of ten channels they had 10 kB each second, more than a slow strand has."""
    part = inside.part
    part._row = msgspec.structs.replace(part._row, rate=64_000)
    with part._store.db.commit():
        for number, channel in itertools.product(range(1, 65), range(10)):
            part._store.db.run("INSERT INTO channels VALUES(?, ?, 70000, 70000)", f"files:x{channel}", number)
    inside.ticks(70)
    beats = [one for one in inside.sent if isinstance(one, Beat)][1:]
    assert max(len(encode(one)) for one in beats) < 800
    told = {(one.channel, span.epoch) for beat in beats for one in beat.channels for span in one.spans}
    assert len(told) == 640  # each has its turn
    assert all(one.spans[0].epoch == 64 for beat in beats for one in beat.channels)


def test_heartbeats_do_not_heap_up_while_nothing_leaves(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_lanes, "prompt_credit", lambda _: 10_000)
    for _ in range(2_000):
        inside.part._beat()
    beats = [one for one in inside.sent if isinstance(one, Beat)]
    assert 10_000 < sum(len(encode(one)) for one in beats) <= 21_000


def test_what_conduits_hand_over_is_numbered_once(inside: Part) -> None:
    """The process ends between taking and removing: the file is passed over by the next."""
    folder = inside.folders[strand_end("history", "out")]
    strand.put(folder, "00000000000000000001", b"\xdd1")
    inside.part._riding.look(inside.part.epoch)
    assert strand.waiting(folder) == []
    strand.put(folder, "00000000000000000001", b"\xdd1")  # as if it had not been removed
    strand.put(folder, "00000000000000000002", bytes(300_000))
    inside.part._riding.look(inside.part.epoch)
    found = [(one.number, one.prompt) for one in inside.sent if isinstance(one, Piece)]
    assert found == [(1, True), (2, False), (3, False)]


def test_a_large_file_is_worked_on_in_many_turns(
    inside: Part, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte in one turn, and the part says nothing meanwhile: it would be ended as silent, again and again."""
    for module in (spool_files, keeper_files):
        monkeypatch.setattr(module, "SLICE_BYTES", 10_000)
        monkeypatch.setattr(module, "SYNC_BYTES", 20_000)
    hand(inside, "a.csv", data := os.urandom(100_000))
    assert inside.turns >= 9
    outside = Outside(tmp_path_factory.mktemp("outside"))
    outside.say(*file(1, "a.csv", data))
    assert outside.turns >= 9 and (outside.folders["reports-in"] / "a.csv").read_bytes() == data
    outside.part.halt()


def test_keys_have_their_day() -> None:
    first = pairing.take((), "a" * 64, 0, 100)
    both = pairing.take(first, "b" * 64, 10, 100)
    assert [(one.key[0], one.until) for one in both] == [("a", 100), ("b", pairing.EVER)]
    assert [one.key[0] for one in pairing.take(both, "c" * 64, 100, 200)] == ["b", "c"]  # the first had its day
    assert [one.key[0] for one in pairing.take(both, "b" * 64, 20, 20)] == ["b"]


def _large(path: Path) -> None:
    path.touch()
    os.truncate(path, strand.LARGEST + 1)


MISCHIEF: dict[str, Callable[[Path], object]] = {
    "a link": lambda path: path.symlink_to("/etc/passwd"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "another name": lambda path: path.with_name("zzz").write_bytes(b"x"),
    "a file that is too large": _large,
}


@pytest.mark.parametrize("what", MISCHIEF)
def test_a_folder_that_is_another_s_costs_its_own_channel_alone(inside: Part, what: str) -> None:
    """Whoever rides may be owned: what it leaves in its folder stops its channel, and files go on."""
    MISCHIEF[what](inside.folders[strand_end("history", "out")] / f"{7:020d}")
    inside.part._look()
    assert list(inside.part._riding.stopped) == ["records:history"]
    assert "stopped-history" in inside.part.alarms()
    hand(inside, "a.csv", b"1")
    assert [one.channel for one in inside.sent if isinstance(one, Piece)] == ["files:reports"] * 2


@pytest.mark.parametrize("what", ["a folder", "a pipe"])
def test_so_it_is_outside(outside: Outside, what: str) -> None:
    folder = outside.folders[strand_end("history", "in")]
    MISCHIEF[what](folder / f".{EPOCH:020d}-{1:020d}.new")
    MISCHIEF[what](folder / strand.STOPPED)
    outside.say(Piece("records:history", EPOCH, 1, records.parts(b"\xdd1")[0]))
    outside.ticks(1)
    assert list(outside.part._stopped) == ["records:history"]
    outside.say(*file(1, "a.csv", b"1"))
    assert (outside.folders["reports-in"] / "a.csv").exists()


def test_a_clock_that_is_set_back_loses_nothing(inside: Part) -> None:
    """Names go on after the last that was taken, whatever the clock says by then."""
    folder = inside.folders[strand_end("history", "out")]
    codec: Any = RecordCodec(Beat)
    reactor = SimpleNamespace(later=lambda call: call(), call_in=lambda *_: None, add=lambda *_: None)
    for wall in (10**18, 10**17):
        sender: Any = strand.StrandSender(cast(Any, reactor), folder, codec, wall=functools.partial(int, wall))
        sender.send(beat())
        inside.part._riding.look(inside.part.epoch)
    assert [one.number for one in inside.sent if isinstance(one, Piece)] == [1, 2]


def test_many_records_of_which_nothing_follows(outside: Outside) -> None:
    """Pieces whose others never come, and records whose numbers are far apart: bounded, and told as lost."""
    outside.say(*(Piece("records:history", EPOCH, 2000 * n, b"\x00\x00\x04\x00x") for n in range(1, 400)))
    units = outside.part._handing._units["records:history"]
    assert len(units) <= 256
    assert outside.part._channels["records:history"].epochs[EPOCH].lost >= 399 - 256


def test_what_rides_is_said_in_one_way() -> None:
    """The crew's pipes that may go over a strand are those of the terms, and their ends have folders."""
    riding = [word for word, terms in KINDS.items() if terms.rides[0]]
    assert riding
    for word in riding:
        crew = BROKERS[word].crew
        assert crew.rides == (KINDS[word].rides,) and set(crew.rides) <= set(BROKERS[word].records)
        assert KINDS[word].conduit.may_ride and all(crew.parts[part].folders for part in KINDS[word].rides)
    assert not [word for word, broker in BROKERS.items() if broker.crew.rides and word not in riding]
