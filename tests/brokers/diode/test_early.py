"""What comes before the announcement of its epoch waits for it, within bounds, and is then taken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cofferdam.brokers.diode import pairing, records
from cofferdam.brokers.diode.inbox import EARLY_BYTES, EARLY_NS, OPEN_MOST, Early
from cofferdam.brokers.diode.outbox import Outbox, encode
from cofferdam.brokers.diode.receiver import RECORDS, Receiver
from cofferdam.brokers.diode.sealing import HELLO_BYTES, Seal, announce, new_seal
from cofferdam.brokers.diode.wire import BULK, HELLO, Packet, pack, unpack
from cofferdam.crossing.reactor import Reactor
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from tests.brokers.diode.strand import worked

POLICY = """
site: early
zones:
  strand-in: {side: ot, addresses: [127.0.0.1/8], crossing: diode}
  strand-out: {side: it, addresses: [127.0.0.2/8], crossing: diode}
conduits:
  strand:
    {from: strand-in, to: strand-out, broker: diode, owner: tests, reason: tests, carries: [files:reports],
     files: {reports: {names: ["*.csv"]}}}
"""
WALL = 10**18


def packet_of(epoch: int, block: int = 1, size: int = 64) -> Packet:
    return unpack(pack(BULK, epoch, block, 0, 1, 2) + bytes(size))


def test_packets_wait_for_their_announcement_and_no_longer() -> None:
    early = Early()
    for number in range(1, 4):
        early.keep(packet_of(7, number), now=number)
    early.keep(packet_of(6), now=4)
    early.keep(packet_of(9), now=5)
    assert [packet.block for packet in early.take(7)] == [1, 2, 3]
    assert early.foreign == 1  # of epoch 6, which is over
    assert early.take(7) == [] and early.held > 0
    early.expire(5 + EARLY_NS)
    assert early.held > 0
    early.expire(6 + EARLY_NS)
    assert (early.held, early.foreign, early.take(9)) == (0, 2, [])


def test_packets_that_wait_are_bounded_and_the_newest_stay() -> None:
    early, size = Early(), 8896
    count = EARLY_BYTES // size + 100
    for number in range(count):
        early.keep(packet_of(7, number, size), now=0)
    assert early.held <= EARLY_BYTES
    kept = early.take(7)
    assert kept[-1].block == count - 1 and early.foreign == count - len(kept) and early.held == 0


class Hearing:
    """A receiver without a socket, and one who is paired with it: packets in, records for the keeper out."""

    def __init__(self, folder: Path) -> None:
        (folder / "policy.yaml").write_text(POLICY)
        policy = compile_policy(load(folder / "policy.yaml"), now_ns=WALL)
        self._private, self._seal_to = pairing.new_sealer()
        self._signer, self._public = pairing.new_signer()
        self.wall = WALL
        self.records: list[Any] = []
        self.reactor = Reactor()
        setting = SimpleNamespace(
            policy=policy, reactor=self.reactor, severed=frozenset(), wall=lambda: self.wall,
            secrets=self.secrets(pairing.EVER),
            senders={"keeper": SimpleNamespace(send=self.records.append, backlog=0)},
        )  # fmt: skip
        self.receiver = Receiver(cast(Any, setting))
        self.receiver.on_record("keeper", records.Start(0))

    def secrets(self, until: int) -> dict[str, bytes]:
        """The receiver's keys, where the sender's is good until then."""
        keys = pairing.ReceiverKeys(self._private, (pairing.Good(self._public, until),))
        return {pairing.SECRET: msgspec.json.encode(keys)}

    def epoch(self, number: int) -> tuple[Seal, bytes]:
        """A new one, and the packet that announces it."""
        seal = new_seal(number, aes=True)
        (body,) = announce(seal, WALL, [bytes.fromhex(self._signer)], [bytes.fromhex(self._seal_to)])
        return seal, pack(HELLO, number, 0, 0, 0, 0) + body

    def feed(self, *packets: bytes, work: bool = True) -> None:
        """`work`: with all turns of the loop that they ask for."""
        self.receiver._feed(list(packets))
        while work and self.receiver._working:
            self.reactor.turn(0)

    @property
    def numbers(self) -> list[int]:
        """Of the pieces that the keeper was given, in that order."""
        return [one.number for one in self.records if isinstance(one, records.Piece)]

    @property
    def foreign(self) -> object:
        return self.receiver.figures()["foreign"]


def sent(seal: Seal, *bodies: bytes) -> list[bytes]:
    """The packets of one bulk block."""
    out = Outbox(seal, 1408)
    for number, body in enumerate(bodies, 1):
        out.put(encode(records.Piece("files:reports", seal.epoch, number, body)), 0, prompt=False)
    out.tick(10**9)
    return worked(out).bulk(100, 2 * 10**9)


def test_what_overtakes_its_announcement_is_taken(tmp_path: Path) -> None:
    hearing = Hearing(tmp_path)
    seal, hello = hearing.epoch(5)
    hearing.feed(*sent(seal, b"one", b"two"))
    assert hearing.records == []
    hearing.feed(hello)
    assert [type(one).__name__ for one in hearing.records] == ["Epoch", "Piece", "Piece"]
    assert [one.body for one in hearing.records[1:]] == [b"one", b"two"]
    assert hearing.foreign == {"": 0}


def test_so_it_is_when_a_new_epoch_begins_and_the_old_one_is_over_then(tmp_path: Path) -> None:
    hearing = Hearing(tmp_path)
    old, first = hearing.epoch(5)
    new, second = hearing.epoch(6)
    late = sent(old, b"late")
    hearing.feed(first, *sent(new, b"new"), second, *late)
    assert [one.body for one in hearing.records if isinstance(one, records.Piece)] == [b"new"]
    assert hearing.foreign == {"": len(late)}


def test_two_senders_with_one_key_are_named(tmp_path: Path) -> None:
    hearing = Hearing(tmp_path)
    (_, older), (_, newer) = hearing.epoch(5), hearing.epoch(6)
    hearing.feed(newer)
    for second in range(4):
        assert ("two" in hearing.receiver.alarms()) == (second >= 3)
        hearing.feed(older)
        for _ in range(2):
            hearing.receiver.tick()
    for _ in range(2):
        hearing.receiver.tick()
    assert "two" not in hearing.receiver.alarms()  # it has ceased


@pytest.mark.parametrize("how", ["withdrawn", "its day"])
def test_the_epoch_of_a_sender_that_is_paired_no_longer_is_over(tmp_path: Path, how: str) -> None:
    hearing = Hearing(tmp_path)
    seal, hello = hearing.epoch(5)
    first, second = sent(seal, b"one"), [packet for packet in sent(seal, b"one", b"two")]
    hearing.feed(hello, *first)
    assert hearing.numbers == [1]
    hearing.receiver.take_secrets(hearing.secrets(WALL if how == "withdrawn" else WALL + 1))
    if how == "its day":
        hearing.wall += 1
        for _ in range(2):
            hearing.receiver.tick()
    hearing.feed(*second, hello)
    assert hearing.numbers == [1] and "withdrawn" in hearing.receiver.alarms()
    hearing.receiver.take_secrets(hearing.secrets(pairing.EVER))  # it is taken in again
    hearing.feed(hello)
    assert "withdrawn" not in hearing.receiver.alarms()


def test_what_has_come_waits_while_the_strand_is_severed(tmp_path: Path) -> None:
    hearing = Hearing(tmp_path)
    seal, hello = hearing.epoch(5)
    hearing.feed(hello, *woven(seal, 3), work=False)
    hearing.receiver.set_severed({"it"})
    for _ in range(100):
        hearing.reactor.turn(0)
    assert hearing.numbers == []
    hearing.receiver.set_severed(())
    hearing.feed()
    assert hearing.numbers == [1, 2, 3]


def test_false_announcements_do_not_hold_up_a_true_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than can be looked at, each second, before the true one."""
    monkeypatch.setattr("cofferdam.brokers.diode.receiver.HELLOS_A_SECOND", 20)
    hearing = Hearing(tmp_path)
    _, hello = hearing.epoch(5)
    for second in range(1, 60):
        head = hello[: -HELLO_BYTES + 8]
        hearing.feed(*(head + second.to_bytes(4) + number.to_bytes(4) + hello[len(head) + 8 :] for number in range(60)))
        hearing.feed(hello)
        hearing.receiver.tick()
        hearing.receiver.tick()
        if any(isinstance(one, records.Epoch) for one in hearing.records):
            break
    assert second < 40  # ten seconds at a chance of one half are already one in a thousand


def woven(seal: Seal, count: int) -> list[bytes]:
    """The packets of so many full bulk blocks that leave at the same time, each with one record."""
    out = Outbox(seal, 1408, k=20, m=2)
    body = bytes(out.bulk_room - 200)
    for number in range(1, count + 1):
        out.put(encode(records.Piece("files:reports", seal.epoch, number, body)), 0, prompt=False)
    out.tick(10**9)
    return worked(out).bulk(1000, 2 * 10**9)


def test_what_is_prompt_does_not_wait_for_blocks_that_are_whole_all_at_once(tmp_path: Path) -> None:
    hearing = Hearing(tmp_path)
    seal, hello = hearing.epoch(5)
    out = Outbox(seal, 1408)
    out.put(encode(records.Piece("records:reports", 5, 99, b"x", prompt=True)), 0, prompt=True)
    out.tick(10**9)
    first = out.prompt()
    out.put(encode(records.Piece("records:reports", 5, 100, b"x", prompt=True)), 10**9, prompt=True)
    out.tick(2 * 10**9)
    hearing.feed(hello, *woven(seal, 3), first, work=False)
    assert hearing.numbers == [99]
    hearing.reactor.turn(0)  # a step of opening the first
    hearing.feed(out.prompt(), work=False)
    assert hearing.numbers == [99, 100]
    hearing.feed()
    assert hearing.numbers == [99, 100, 1, 2, 3]


def test_blocks_that_heap_up_are_opened_whole_in_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else more packets are read between their steps than they have, and a receiver that is behind stays so."""
    hearing = Hearing(tmp_path)
    seal, hello = hearing.epoch(5)
    monkeypatch.setattr("cofferdam.brokers.diode.receiver.BEHIND_BYTES", 100_000)
    hearing.feed(hello, *woven(seal, 6), work=False)
    hearing.reactor.turn(0)
    assert hearing.numbers


def test_small_blocks_that_heap_up_are_none_of_them_lost(tmp_path: Path) -> None:
    """They are no 24 MB, and would be given up in favour of what comes."""
    hearing = Hearing(tmp_path)
    seal, hello = hearing.epoch(5)
    hearing.feed(hello)
    out = Outbox(seal, 1408, k=100, m=10)
    count = 4 * OPEN_MOST[BULK]
    for number in range(1, count + 1):
        body = bytes(out.bulk_room - 200)
        out.put(encode(records.Piece("files:reports", 5, number, body)), 0, prompt=False)
        worked(out)
        while packets := out.bulk(512, 0):
            hearing.feed(*packets, work=False)
            hearing.reactor.turn(0)
    out.tick(10**9)
    hearing.feed(*worked(out).bulk(512, 2 * 10**9), work=False)
    hearing.feed()
    assert sorted(hearing.numbers)[: count - 8] == list(range(1, count - 7))


def test_what_is_prompt_does_not_wait_for_what_is_in_a_block(tmp_path: Path) -> None:
    hearing = Hearing(tmp_path)
    seal, hello = hearing.epoch(5)
    many = 3 * RECORDS
    out = Outbox(seal, 1408)
    out.put(encode(records.Piece("records:reports", 5, 99, b"x", prompt=True)), 0, prompt=True)
    out.tick(10**9)
    hearing.feed(hello, *sent(seal, *[b"body"] * many), work=False)
    while not hearing.numbers:
        hearing.reactor.turn(0)
    hearing.feed(out.prompt(), work=False)
    assert hearing.numbers == [*range(1, RECORDS + 1), 99]
    hearing.feed()
    assert hearing.numbers == [*range(1, RECORDS + 1), 99, *range(RECORDS + 1, many + 1)]


def test_blocks_that_wait_to_be_opened_are_of_their_epoch(tmp_path: Path) -> None:
    hearing = Hearing(tmp_path)
    seal, hello = hearing.epoch(5)
    hearing.feed(hello, *woven(seal, 3), work=False)
    hearing.feed(hearing.epoch(6)[1], work=False)
    assert hearing.numbers == [1, 2, 3]
    assert [one.epoch for one in hearing.records if isinstance(one, records.Epoch)] == [5, 6]
    assert isinstance(hearing.records[-1], records.Epoch)
    hearing.reactor.turn(0)
    assert len(hearing.numbers) == 3
