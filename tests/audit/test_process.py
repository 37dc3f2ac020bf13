"""The auditor process in this one: producers that come and go under one name."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit import service
from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.audit.events.access import LimitHit, OfItem, PointValue, RefusedMany, WriteAllowed
from cofferdam.audit.events.gate import Severed
from cofferdam.audit.files import LogReader
from cofferdam.audit.process import HEAVY_SECONDS, RECORDS_A_TURN, Process, Producer
from cofferdam.audit.records import Ack, Batch, Counting, FromAuditor, Hello, ToAuditor
from cofferdam.audit.service import MOST_COUNTS
from cofferdam.audit.supervision import FromAuditorControl, Open, Recent, ToAuditorControl
from cofferdam.crossing.framing import PACKET, Assembler, frame, pack
from cofferdam.crossing.introduction import INTRODUCTIONS, Introduction
from cofferdam.crossing.pipe import PIPE_PACKETS, make_pipe
from cofferdam.crossing.reactor import Timer
from cofferdam.crossing.records import RecordCodec

NAME = "modbus/it-ot/inner"


def send(fd: int, data: bytes) -> None:
    for packet in pack([data]):
        os.write(fd, packet)


def packets(fd: int, limit: int) -> list[bytes]:
    """The records that wait in a pipe, encoded."""
    assembler = Assembler(limit)
    found: list[bytes] = []
    while True:
        try:
            found += assembler.feed(os.read(fd, PACKET))
        except BlockingIOError:
            return found


def received(fd: int) -> list[FromAuditor]:
    """All that waits in a pipe from the auditor."""
    codec: RecordCodec[FromAuditor] = RecordCodec(FromAuditor)
    return [codec.decode(data) for data in packets(fd, codec.limit)]


class Stand:
    """An auditor's process in this one, with a log, as a launcher and a gate see it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._launcher, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control_in, self._control = make_pipe()
        self._reports, control_out = make_pipe()
        self.process = Process(state, control_in, control_out, theirs.detach())
        orders: RecordCodec[ToAuditorControl] = RecordCodec(ToAuditorControl)
        send(self._control, orders.encode(Open("site")))
        self.settle()

    def settle(self) -> None:
        for _ in range(4):
            self.process._reactor.turn(0.02)

    def producer(
        self, name: str, *first: ToAuditor, resumed: bool = False, says: tuple[str, ...] = ("refused-many",)
    ) -> int:
        """Its end of the pipe. `first`: what lies in it."""
        (batches_in, batches_out), (_, answers_out) = make_pipe(), make_pipe()
        for one in first:
            send(batches_out, RecordCodec[ToAuditor](ToAuditor).encode(one))
        said = INTRODUCTIONS.encode(Introduction(name, resumed, says))
        socket.send_fds(self._launcher, [said], [batches_in, answers_out])
        os.close(batches_in)
        os.close(answers_out)
        self.settle()
        return batches_out

    def say(self, end: int, *counts: ToAuditor) -> None:
        codec: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)
        for count in counts:
            send(end, codec.encode(count))
        self.settle()

    def recorded(self) -> list[tuple[str, int]]:
        """The counts in the log: who said it, and how many."""
        key = VerifierKey.parse((self.state / "keys" / "audit.pub").read_text().strip())
        reader = LogReader(self.state / "audit", key)
        entries = dict(reader.journal()) | dict(reader.entries())
        found = [msgspec.json.decode(entry) for _, entry in sorted(entries.items())]
        return [(one["maker"], one["event"]["count"]) for one in found if one["event"]["kind"] == "refused-many"]

    def go(self) -> None:
        """The gate has ended, and then the launcher."""
        os.close(self._control)
        self.settle()
        self._launcher.close()
        assert self.process.run() == 0
        os.close(self._reports)
        self.process._launcher.close()
        self.process._reactor.close()


def count(number: int, so_far: int, *, over: bool = False, batch: int = 0) -> Counting:
    draft = RefusedMany(wall_ns=1, session="s", source="10.0.0.1", asset="plc", count=so_far, is_write=True)
    return Counting(number, "", draft, over, batch)


def again(batch: int, counted: int) -> Batch:
    return Batch(batch, "", (count(0, counted).draft,))


def test_what_a_half_had_counted_when_it_ended_is_written_down_once(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    first, second, third = (stand.producer(name) for name in ("a", "b", "c"))
    stand.say(first, count(1, 5), count(2, 1), count(1, 7))
    stand.say(second, count(1, 3), count(1, 4, over=True), count(2, 2))
    stand.say(third, count(1, 9))
    assert stand.recorded() == [("b", 4)]
    os.close(first)
    stand.settle()
    assert sorted(stand.recorded()) == [("a", 1), ("a", 7), ("b", 4)]
    send(third, RecordCodec[ToAuditor](ToAuditor).encode(count(1, 12)))  # its last words
    stand.go()
    assert sorted(stand.recorded()) == [("a", 1), ("a", 7), ("b", 2), ("b", 4), ("c", 12)]


def test_what_is_said_again_to_another_auditor_is_written_down_once(tmp_path: Path) -> None:
    """The first that it reads lay in the pipe: the last auditor had read all that came before that, and confirmed none
    of it."""
    stand = Stand(tmp_path)
    end = stand.producer("a", count(3, 30, over=True, batch=3), again(4, 40), resumed=True)
    stand.say(end, again(2, 20), again(3, 30), again(4, 40), again(5, 50), count(7, 60, over=True, batch=6))
    assert [counted for _, counted in stand.recorded()] == [30, 40, 20, 50, 60]
    os.close(end)
    stand.settle()
    stand.go()


def test_who_keeps_more_counts_than_there_are_is_read_no_further(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    owned = stand.producer("owned")
    stand.say(owned, *(count(number, 1) for number in range(MOST_COUNTS)))
    assert "owned" in stand.process._producers
    stand.say(owned, count(MOST_COUNTS, 1))
    assert "owned" not in stand.process._producers
    assert len(stand.recorded()) == MOST_COUNTS
    os.close(owned)
    big = OfItem("x", "write", "", ("v" * 4096,) * 6)
    owned = stand.producer("owned as well")
    stand.say(owned, Counting(1, "", msgspec.structs.replace(count(1, 1).draft, items=(big,) * 4)))
    assert "owned as well" not in stand.process._producers
    os.close(owned)
    stand.go()


def test_who_talks_without_end_is_not_waited_for(tmp_path: Path) -> None:
    """An owned half that wrote faster than it was read kept the auditor for itself as soon as a part was born: nothing
    was recorded any more, and no write of anybody's done."""
    stand = Stand(tmp_path)
    end, heard = stand.producer("owned"), []
    owned, honest = stand.process._producers["owned"], stand.process._on_said

    def on_said(producer: Producer, said: ToAuditor, size: int) -> None:
        heard.append(said)
        assert len(heard) <= 2 * PIPE_PACKETS
        send(end, RecordCodec[ToAuditor](ToAuditor).encode(count(1, len(heard))))
        honest(producer, said, size)

    owned._on_said = on_said
    send(end, RecordCodec[ToAuditor](ToAuditor).encode(count(1, 1)))
    stand.process._tell_recent(1, frozenset())
    assert heard
    owned._on_said = honest
    os.close(end)
    stand.settle()
    stand.go()


def test_counts_without_end_are_read_no_faster_than_an_honest_half_says_them(tmp_path: Path) -> None:
    """They take no room in the log, by which all else that a part says is slowed down."""
    stand = Stand(tmp_path)
    end = stand.producer("owned")
    said = frame(RecordCodec[ToAuditor](ToAuditor).encode(count(1, 1)))
    packet = said * (PACKET // len(said))
    for _ in range(400):
        if stand.process._producers["owned"]._resting:
            break
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(end, packet)
        stand.process._producers["owned"]._on_event(0)  # in one turn of the reactor: its clock stands
    else:
        raise AssertionError("it is read as fast as it writes")
    os.close(end)
    stand.go()


def test_small_words_without_end_are_read_no_faster_than_an_honest_half_says_them(tmp_path: Path) -> None:
    """What is not taken, and so has no share of the log: an owned half that said nothing but such words had the auditor
    busy for seconds each turn, and no write of anybody's was done."""
    stand = Stand(tmp_path)
    end = stand.producer("owned")
    foreign = RecordCodec[ToAuditor](ToAuditor).encode(Batch(1, "", (Severed(side="it"),), wants_ack=False))
    packet = frame(foreign) * (PACKET // len(frame(foreign)))
    taken: list[int] = []
    for _ in range(400):
        if stand.process._producers["owned"]._resting:
            break
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(end, packet)
        before = stand.process._batches
        stand.process._producers["owned"]._on_event(0)
        taken.append(stand.process._batches - before)
    else:
        raise AssertionError("it is read as fast as it writes")
    assert max(taken) < RECORDS_A_TURN + len(packet) // len(frame(foreign))
    os.close(end)
    stand.settle()
    stand.go()


def test_who_has_written_their_share_does_not_keep_the_auditor_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of thousands takes long, and the next one was read a moment later."""
    stand = Stand(tmp_path)
    end = stand.producer("owned")
    auditor = stand.process._auditor
    assert auditor is not None
    honest = auditor.submit

    def slow(*said: Any) -> bool:
        time.sleep(0.1)
        return honest(*said)

    monkeypatch.setattr(auditor, "submit", slow)
    monkeypatch.setattr(auditor, "over", lambda producer: True)
    rests: list[float] = []
    reactor = stand.process._reactor
    later = reactor.call_in

    def call_in(seconds: float, call: Callable[[], None]) -> Timer:
        rests.append(seconds)
        return later(seconds, call)

    monkeypatch.setattr(reactor, "call_in", call_in)
    stand.say(end, again(1, 1))
    assert max(rests) >= 0.4
    os.close(end)
    stand.settle()
    stand.go()


def test_who_says_more_than_is_made_lasting_meanwhile_is_read_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owned inner half that said large entries had the auditor grow to 240 MB, and more where the disk is slower."""
    stand = Stand(tmp_path)
    end = stand.producer("owned", says=("write-allowed",))
    other = stand.producer("honest", says=("write-allowed",))
    auditor = stand.process._auditor
    assert auditor is not None
    log = auditor._log
    monkeypatch.setattr(service, "HEAVY_BYTES", 50_000)
    monkeypatch.setattr(log, "_try_publish", lambda **_: None)  # the disk takes its time
    rests: list[float] = []
    monkeypatch.setattr(stand.process._producers["owned"], "rest", rests.append)
    large = tuple(msgspec.structs.replace(wrote(f"w{number}", "plc", "1"), body="0" * 512) for number in range(30))
    for number in range(1, 4):
        stand.say(end, Batch(number, "", large))
    assert rests and set(rests) == {HEAVY_SECONDS} and auditor.heavy("owned")
    stand.say(other, Batch(1, "", (wrote("w1", "plc", "1"),)))
    assert not auditor.heavy("honest")
    monkeypatch.setattr(log, "stuck", "no space left")
    assert not auditor.heavy("owned"), "what room a full disk has is for whoever changes something"
    monkeypatch.undo()
    log.publish()
    assert not auditor.heavy("owned")
    os.close(end)
    os.close(other)
    stand.settle()
    stand.go()


def test_a_batch_of_nothing_is_no_batch(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    end = stand.producer("owned")
    stand.say(end, Batch(1, "", ()))
    assert "owned" not in stand.process._producers
    os.close(end)
    stand.go()


def test_who_takes_no_answers_does_not_fill_the_auditor(tmp_path: Path) -> None:
    """Each birth of a part read all that lay in the pipe of an owned half, which never read what became of it."""
    stand = Stand(tmp_path)
    end = stand.producer("owned")
    refused = RecordCodec[ToAuditor](ToAuditor).encode(Batch(1, "", (Severed(side="it"),)))
    packet = frame(refused) * (PACKET // len(frame(refused)))
    for _ in range(40):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(end, packet)
        stand.process._tell_recent(1, frozenset())
        stand.process._reactor.turn(0)
    assert stand.process._producers["owned"].answers.backlog < 8 << 20
    os.close(end)
    stand.settle()
    stand.go()


def wrote(write: str, asset: str, value: str) -> WriteAllowed:
    points = (PointValue("p", value),)
    return WriteAllowed(
        wall_ns=1, session="s", write=write, principals=(), source="a", asset=asset, conduit="c", rule="1", function=6,
        points=points, before=points,
    )  # fmt: skip


@pytest.mark.parametrize("value", ["9" * 40, "-" + "9" * 40, "--1", "1e999", "nan", "\u00b2", "1_0"])
def test_no_number_that_a_half_says_ends_the_auditor(tmp_path: Path, value: str) -> None:
    """One that no record carries ended it at each birth of a part for a minute, and meanwhile nobody wrote."""
    stand = Stand(tmp_path)
    end = stand.producer("owned", says=("write-allowed",))
    stand.say(end, Batch(1, "", (wrote("w1", "plc", value),)))
    stand.process._tell_recent(1, frozenset({"plc"}))
    stand.settle()
    codec: RecordCodec[FromAuditorControl] = RecordCodec(FromAuditorControl)
    said = [codec.decode(data) for data in packets(stand._reports, codec.limit)]
    [told] = [one for one in said if isinstance(one, Recent)]
    assert told.complete and [write.points for write in told.writes] == [("p",)]
    os.close(end)
    stand.settle()
    stand.go()


def test_names_that_fill_more_than_a_record_do_not_end_the_auditor(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    end = stand.producer("owned", says=("write-allowed",))
    for batch in range(30):
        names = (f"{batch:03}{number:03}" + "\U0001f511" * 120 for number in range(100))
        drafts = tuple(wrote(name[:6], name, "1") for name in names)
        stand.say(end, Batch(batch + 1, "", drafts))
    stand.process._tell_recent(1, frozenset({"plc"}))
    stand.settle()
    codec: RecordCodec[FromAuditorControl] = RecordCodec(FromAuditorControl)
    [told] = [one for one in map(codec.decode, packets(stand._reports, codec.limit)) if isinstance(one, Recent)]
    assert not told.complete
    os.close(end)
    stand.settle()
    stand.go()


def test_a_half_is_not_told_what_became_of_its_predecessors_batches(tmp_path: Path) -> None:
    """Both number their batches from 1 up: an answer to the dead one would count as the living one's confirmation."""
    launcher, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control_in, control = make_pipe()
    reports, control_out = make_pipe()
    process = Process(tmp_path, control_in, control_out, theirs.detach())
    reactor = process._reactor
    orders: RecordCodec[ToAuditorControl] = RecordCodec(ToAuditorControl)
    batches: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)

    def settle() -> None:
        for _ in range(4):
            reactor.turn(0.02)

    def introduce() -> tuple[int, int]:
        """A half comes; its ends of the pipes: (to write batches to, to read answers from)."""
        (batches_in, batches_out), (answers_in, answers_out) = make_pipe(), make_pipe()
        said = INTRODUCTIONS.encode(Introduction(NAME, False, ("limit-hit",)))
        socket.send_fds(launcher, [said], [batches_in, answers_out])
        os.close(batches_in)
        os.close(answers_out)
        return batches_out, answers_in

    send(control, orders.encode(Open("site")))
    settle()
    old_out, old_in = introduce()
    settle()
    assert received(old_in) == [Hello(True)]
    # The half dies with a batch in its pipe, and the next one comes, before the auditor looks again.
    send(old_out, batches.encode(Batch(7, "", (LimitHit(limit="x", source="", detail=""),))))
    new_out, new_in = introduce()
    settle()
    assert received(new_in) == [Hello(True)]
    send(new_out, batches.encode(Batch(7, "", (LimitHit(limit="y", source="", detail=""),))))
    settle()
    assert received(new_in) == [Ack(7, True)]
    for fd in (old_out, old_in, new_out, new_in, control, reports):
        os.close(fd)
    launcher.close()
    process._launcher.close()
    reactor.close()
