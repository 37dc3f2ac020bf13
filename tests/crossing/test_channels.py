"""The pipe, on both loops, and the memory channel: the same tests for all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct, msgpack

from cofferdam.crossing.channel import Receiver, Sender
from cofferdam.crossing.framing import PACKET, Assembler, mark, pack, pack_batches
from cofferdam.crossing.loops import LoopReactor
from cofferdam.crossing.memory import memory_channel
from cofferdam.crossing.pipe import PipeReceiver, PipeSender, make_pipe
from cofferdam.crossing.reactor import READ, Reactor
from cofferdam.crossing.records import RecordCodec, Unpacker
from cofferdam.errors import CrossingError, LocalProtocolError
from tests.examples import examples


class Small(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    number: Annotated[int, Meta(ge=0, le=1 << 20)]


class Large(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    body: bytes


Records = Small | Large
LIMIT = 1 << 17


class Channel:
    """Both ends in one reactor, with what arrived."""

    def __init__(self, kind: str, *, backlog_limit: int = 1 << 16) -> None:
        self.loop = asyncio.new_event_loop() if kind == "pipe on asyncio" else None
        self.reactor = Reactor() if self.loop is None else LoopReactor(self.loop)
        self.got: list[Records] = []
        self.closed = 0
        codec: RecordCodec[Records] = RecordCodec(Records, limit=LIMIT)
        self.sender: Sender[Records]
        self.receiver: Receiver[Records]
        if kind != "memory":
            read_fd, write_fd = make_pipe()
            self.sender = PipeSender(
                self.reactor, write_fd, codec, backlog_limit=backlog_limit, batches=kind == "pipe with batches"
            )
            self.receiver = PipeReceiver(self.reactor, read_fd, codec, self.take, self.gone)
        else:
            self.sender, self.receiver = memory_channel(
                self.reactor, codec, self.take, self.gone, backlog_limit=backlog_limit
            )

    def take(self, record: Records) -> None:
        self.got.append(record)

    def gone(self) -> None:
        self.closed += 1

    def turn(self, longest: float) -> None:
        """What is there is delivered, or `longest` seconds pass."""
        if self.loop is None:
            self.reactor.turn(longest)
        else:
            self.loop.run_until_complete(asyncio.sleep(longest / 10))

    def run(self, until: Callable[[], bool], turns: int = 20000) -> None:
        for _ in range(turns):
            if until():
                return
            self.turn(0.01)
        raise AssertionError(f"did not come about; {len(self.got)} records arrived")

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        self.reactor.close()
        if self.loop is not None:
            self.loop.close()


@pytest.fixture(params=["pipe", "pipe with batches", "pipe on asyncio", "memory"])
def channel(request: pytest.FixtureRequest) -> Iterator[Channel]:
    made = Channel(request.param)
    yield made
    made.close()


def test_records_arrive_in_order(channel: Channel) -> None:
    sent: list[Records] = [Small(n) if n % 7 else Large(bytes([n & 255]) * (n * 37 % 9000)) for n in range(3000)]
    for record in sent:
        channel.sender.send(record)
    channel.run(lambda: len(channel.got) >= len(sent))
    assert channel.got == sent


@pytest.mark.parametrize("size", [0, 1, PACKET - 8, PACKET - 7, PACKET - 6, PACKET, 2 * PACKET, LIMIT - 64])
def test_a_record_of_any_size_up_to_the_limit(channel: Channel, size: int) -> None:
    body = os.urandom(size)
    channel.sender.send(Small(1))
    channel.sender.send(Large(body))
    channel.sender.send(Small(2))
    channel.run(lambda: len(channel.got) == 3)
    assert channel.got == [Small(1), Large(body), Small(2)]


def test_a_record_above_the_limit_is_our_own_error(channel: Channel) -> None:
    with pytest.raises(LocalProtocolError, match="at most"):
        channel.sender.send(Large(bytes(LIMIT)))


def test_a_paused_receiver_holds_the_sender_back_and_nothing_is_lost(channel: Channel) -> None:
    channel.receiver.pause()
    room: list[int] = []
    channel.sender.on_room = lambda: room.append(len(channel.got))
    sent = 0
    while not channel.sender.full:
        channel.sender.send(Large(sent.to_bytes(4, "big") * 500))
        sent += 1
        channel.turn(0)
        assert sent < 100_000
    assert channel.got == []
    assert channel.sender.backlog > 1 << 16
    channel.receiver.resume()
    channel.run(lambda: len(channel.got) == sent)
    assert [record for record in channel.got] == [Large(n.to_bytes(4, "big") * 500) for n in range(sent)]
    assert room, "the sender was not told that there is room again"
    assert channel.sender.backlog == 0


def test_what_was_sent_arrives_before_the_end_is_told(channel: Channel) -> None:
    for n in range(100):
        channel.sender.send(Small(n))
    channel.turn(0)
    channel.sender.close()
    channel.run(lambda: channel.closed > 0)
    assert len(channel.got) == 100
    assert channel.closed == 1


def test_a_sender_learns_that_the_other_end_has_gone(channel: Channel) -> None:
    gone: list[bool] = []
    channel.sender.on_closed = lambda: gone.append(True)
    channel.receiver.close()

    def notices() -> bool:
        if not gone:
            channel.sender.send(Small(1))
        return bool(gone)

    channel.run(notices)
    assert gone == [True]
    assert channel.sender.closed


def test_two_channels_back_to_back_do_not_deadlock() -> None:
    """Both directions full at once: the answering side holds its questions back, and all comes through."""
    for kind in ("pipe", "memory"):
        reactor = Reactor()
        codec: RecordCodec[Records] = RecordCodec(Records, limit=LIMIT)
        answers: list[Records] = []
        there: tuple[Sender[Records], Receiver[Records]]
        back: tuple[Sender[Records], Receiver[Records]]

        def answer(record: Records) -> None:
            back[0].send(record)  # noqa: B023
            if back[0].full:  # noqa: B023
                there[1].pause()  # noqa: B023

        def open_channel(
            take: Callable[[Records], None], kind: str = kind, reactor: Reactor = reactor,
            codec: RecordCodec[Records] = codec,
        ) -> tuple[Sender[Records], Receiver[Records]]:  # fmt: skip
            if kind == "memory":
                return memory_channel(reactor, codec, take, backlog_limit=1 << 14)
            read_fd, write_fd = make_pipe()
            sender: Sender[Records] = PipeSender(reactor, write_fd, codec, backlog_limit=1 << 14)
            return sender, PipeReceiver(reactor, read_fd, codec, take)

        there = open_channel(answer)
        back = open_channel(answers.append)
        back[0].on_room = there[1].resume
        sent = 0
        turns = 0
        while len(answers) < 4000:
            while sent < 4000 and not there[0].full:
                there[0].send(Large(sent.to_bytes(4, "big") * 300))
                sent += 1
            reactor.turn(0.01)
            turns += 1
            assert turns < 100_000, f"{kind}: stuck at {len(answers)} of {sent}"
        assert answers == [Large(n.to_bytes(4, "big") * 300) for n in range(4000)]
        for end in (*there, *back):
            end.close()
        reactor.close()


# --- strictness -----------------------------------------------------------------------------------------------

BAD_RECORDS: list[tuple[str, Any]] = [
    ("unknown type", [9, 1]),
    ("extra field", [1, 1, 2]),
    ("missing field", [1]),
    ("out of range", [1, 1 << 30]),
    ("negative", [1, -1]),
    ("wrong type", [1, "1"]),
    ("text for bytes", [2, 5]),
    ("no array", 5),
    ("nothing", None),
]


@pytest.mark.parametrize(("why", "value"), BAD_RECORDS, ids=[why for why, _ in BAD_RECORDS])
def test_a_record_that_is_none_is_refused(why: str, value: Any) -> None:
    with pytest.raises(CrossingError):
        RecordCodec[Records](Records).decode(msgpack.encode(value))


def test_spare_bytes_behind_a_record_are_refused() -> None:
    with pytest.raises(CrossingError):
        RecordCodec[Records](Records).decode(msgpack.encode(Small(1)) + b"\0")


BAD_PACKETS: list[tuple[str, list[bytes]]] = [
    ("ends in a header", [b"\x00\x00"]),
    ("frame longer than the packet", [b"\x00\x00\x05abc"]),
    ("spare bytes", [b"\x00\x00\x01a\x00"]),
    ("unknown kind", [b"\x07\x00\x01a"]),
    ("chunk of nothing", [b"\x02\x00\x01a"]),
    ("whole record among chunks", [b"\x01\x00\x06\x00\x00\x00\x09ab", b"\x00\x00\x01a"]),
    ("record begins among chunks", [b"\x01\x00\x06\x00\x00\x00\x09ab", b"\x01\x00\x06\x00\x00\x00\x09ab"]),
    ("more than announced", [b"\x01\x00\x06\x00\x00\x00\x03ab", b"\x02\x00\x02cd"]),
    ("announced above the limit", [b"\x01\x00\x06\x7f\xff\xff\xffab"]),
    ("first chunk without a length", [b"\x01\x00\x03abc"]),
    ("empty chunk", [b"\x01\x00\x06\x00\x00\x00\x09ab", b"\x02\x00\x00"]),
]


@pytest.mark.parametrize(("why", "packets"), BAD_PACKETS, ids=[why for why, _ in BAD_PACKETS])
def test_a_packet_that_is_none_is_refused(why: str, packets: list[bytes]) -> None:
    assembler = Assembler(LIMIT)
    for packet in packets[:-1]:
        assembler.feed(packet)
    with pytest.raises(CrossingError):
        assembler.feed(packets[-1])


@given(st.lists(st.binary(max_size=12000), max_size=30))
def test_packing_and_assembling_give_the_same_records(records: list[bytes]) -> None:
    packets = pack(records)
    assert all(0 < len(packet) <= PACKET for packet in packets)
    assembler = Assembler(LIMIT)
    assert [record for packet in packets for record in assembler.feed(packet)] == records


@examples(300)
@given(st.lists(st.binary(min_size=1, max_size=PACKET), max_size=5))
def test_any_packets_are_records_or_refused(packets: list[bytes]) -> None:
    assembler = Assembler(LIMIT)
    codec: RecordCodec[Records] = RecordCodec(Records)
    try:
        for packet in packets:
            for record in assembler.feed(packet):
                codec.decode(record)
    except CrossingError:
        pass


def test_a_pipe_cannot_carry_a_descriptor() -> None:
    """Why the crossing is a pipe: SCM_RIGHTS needs a socket."""
    import array
    import socket

    read_fd, write_fd = make_pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
    with pytest.raises(OSError, match="non-socket"), socket.socket(fileno=write_fd) as sock:
        sock.sendmsg([b"x"], rights)
    os.close(read_fd)


def test_many_small_records_share_a_packet() -> None:
    codec: RecordCodec[Records] = RecordCodec(Records)
    records: list[Records] = [Small(n) for n in range(500)]
    packets = pack_batches([codec.encode(record) for record in records])
    assert len(packets) == 1
    assert Unpacker(codec).feed(packets[0]) == records


@given(st.lists(st.integers(0, 3 * PACKET), max_size=40))
@examples(60)
def test_batches_and_chunks_bring_back_what_was_sent(sizes: list[int]) -> None:
    codec: RecordCodec[Records] = RecordCodec(Records, limit=LIMIT)
    records: list[Records] = [Large(bytes([n & 255]) * size) for n, size in enumerate(sizes)]
    packets = pack_batches([codec.encode(record) for record in records])
    assert all(len(packet) <= PACKET for packet in packets)
    unpacker = Unpacker(codec)
    assert [record for packet in packets for record in unpacker.feed(packet)] == records


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x91", b"\x92\x92\x01\x05", b"\x91\x92\x03\x05", b"\x91\x93\x01\x05\x05",
        b"\x91\x92\x01\x05\x00", b"\x92\x01\x05", b"\x91\x92\x01\xff", b"\xdd\xff\xff\xff\xff",
        b"\x92\x92\x01\x05\x92\x01\xa1x",
    ],
)  # fmt: skip
def test_a_batch_with_anything_wrong_is_refused_whole(body: bytes) -> None:
    with pytest.raises(CrossingError, match="a batch of records was refused"):
        Unpacker[Records](RecordCodec(Records)).feed(b"\x03" + body)


def test_a_batch_within_a_chunked_record_is_refused() -> None:
    codec: RecordCodec[Records] = RecordCodec(Records, limit=LIMIT)
    unpacker = Unpacker(codec)
    first, *_ = pack_batches([codec.encode(Large(bytes(2 * PACKET)))])
    assert unpacker.feed(first) == []
    with pytest.raises(CrossingError, match="in the middle"):
        unpacker.feed(pack_batches([codec.encode(Small(1))])[0])


def test_a_channel_without_batches_takes_none() -> None:
    codec: RecordCodec[Records] = RecordCodec(Records)
    packet = pack_batches([codec.encode(Large(bytes(0xDC)))])[0]
    with pytest.raises(CrossingError):
        Assembler(LIMIT).feed(packet)
    with pytest.raises(CrossingError, match="unknown kind 3"):
        Assembler(LIMIT).feed(b"\x03\x00\x00")


def test_no_more_is_read_in_a_turn_than_is_said() -> None:
    """Who talks without end holds up nobody for longer."""
    reactor, got = Reactor(), list[Records]()
    read_fd, write_fd = make_pipe()
    codec: RecordCodec[Records] = RecordCodec(Records, limit=LIMIT)
    receiver = PipeReceiver(reactor, read_fd, codec, got.append, packets=2)
    for _ in range(5):
        os.write(write_fd, pack([codec.encode(Large(bytes(3000)))])[0])
    reactor.turn(0)
    assert len(got) == 2
    receiver.close()
    os.close(write_fd)
    reactor.close()


class Returning:
    """A pipe whose reader or writer is another process after a while: what arrived, and the lives that began."""

    def __init__(self, *, life: int = 0) -> None:
        self.reactor, self.got, self.lives = Reactor(), list[Records](), list[int]()
        self.codec: RecordCodec[Records] = RecordCodec(Records, limit=LIMIT)
        read_fd, self.raw = make_pipe()
        self.sender = PipeSender(self.reactor, os.dup(self.raw), self.codec, backlog_limit=1 << 10, batches=True)
        self.receiver = PipeReceiver(
            self.reactor, read_fd, self.codec, self.got.append, on_anew=None if life else self.lives.append, life=life
        )

    def turns(self) -> None:
        for _ in range(64):
            self.reactor.turn(0)

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        os.close(self.raw)
        self.reactor.close()


def test_a_life_that_begins_ends_what_was_begun_before() -> None:
    """The writer died in the middle of a record."""
    pipe = Returning()
    os.write(pipe.raw, pack([pipe.codec.encode(Small(1))])[0])
    os.write(pipe.raw, pack([pipe.codec.encode(Large(bytes(9_000)))])[0])
    pipe.sender.anew(1)
    pipe.sender.send(Small(2))
    pipe.turns()
    assert (pipe.got, pipe.lives) == ([Small(1), Small(2)], [1])
    pipe.close()


def test_what_is_for_another_life_is_thrown_away_unread() -> None:
    """Also what would be no record, and what the life before was told when it began."""
    pipe = Returning(life=3)
    for packet in (b"\0\0\1\xc1", *pack([pipe.codec.encode(Large(bytes(9_000)))])[:2], mark(2), mark(4), b"\4\0"):
        os.write(pipe.raw, packet)
    pipe.sender.anew(3)
    pipe.sender.send(Small(3))
    pipe.turns()
    assert pipe.got == [Small(3)]
    os.write(pipe.raw, mark(3))
    with pytest.raises(CrossingError, match="a life begins"):
        pipe.turns()
    pipe.close()


@pytest.mark.parametrize("packet", [mark(0), mark(1), b"\4", b"\4\0\0\2", mark(2) + b"x"], ids=repr)
def test_a_life_that_is_none_is_refused(packet: bytes) -> None:
    """One that was there before, or a mark that is none; and any where nobody comes again."""
    pipe = Returning()
    os.write(pipe.raw, mark(1))
    pipe.turns()
    os.write(pipe.raw, packet)
    with pytest.raises(CrossingError, match="a life begins"):
        pipe.turns()
    pipe.close()
    plain = Channel("pipe")
    assert isinstance(plain.sender, PipeSender)
    plain.sender.anew(2)
    with pytest.raises(CrossingError, match="a life begins"):
        plain.run(lambda: False, 10)
    plain.close()


def test_what_waits_for_one_that_is_away_goes_nowhere() -> None:
    """Nor does what is sent until it comes; and nobody is held up by it, however full its pipe is."""
    pipe = Returning()
    rooms: list[int] = []
    pipe.sender.on_room = lambda: rooms.append(1)
    while not pipe.sender.full:
        pipe.sender.send(Large(bytes(60_000)))
        pipe.sender.flush()
    pipe.sender.away()
    assert (pipe.sender.backlog, rooms) == (0, [1])
    pipe.sender.send(Small(1))
    pipe.sender.flush()
    assert not pipe.sender.backlog
    pipe.sender.anew(1)  # the pipe is full still: the mark waits, and what comes after it
    pipe.sender.send(Small(2))
    pipe.sender.flush()
    pipe.turns()
    assert pipe.lives == [1]
    assert pipe.got[-1] == Small(2) and Small(1) not in pipe.got
    pipe.close()


def test_what_follows_from_a_lone_event_leaves_at_once_and_the_rest_together() -> None:
    reactor, gone = Reactor(), list[bool]()
    (read_fd, write_fd), (event_read, event_write) = make_pipe(), os.pipe()
    codec: RecordCodec[Records] = RecordCodec(Records, limit=LIMIT)
    sender: PipeSender[Records] = PipeSender(reactor, write_fd, codec, batches=True)
    sender.on_closed = lambda: gone.append(True)
    seen: list[list[Records]] = []
    unpack = Unpacker(codec).feed

    def arrived() -> list[Records]:
        try:
            return list(unpack(os.read(read_fd, PACKET)))
        except BlockingIOError:
            return []

    def told(_events: int) -> None:
        os.read(event_read, 1)
        for number in range(3):
            sender.send(Small(number))
            seen.append(arrived())

    reactor.add(event_read, READ, told)
    os.write(event_write, b"x")
    reactor.turn(1)
    assert seen == [[Small(0)], [], []]
    assert arrived() == [Small(1), Small(2)], "the rest has left at the end of the turn, in one packet"

    # The other end is gone: whoever sends is not told so in the middle of it.
    def told_to_nobody(_events: int) -> None:
        os.read(event_read, 1)
        sender.send(Small(4))
        seen.append([])
        assert not gone and not sender.closed

    reactor.remove(event_read)
    reactor.add(event_read, READ, told_to_nobody)
    os.close(read_fd)
    os.write(event_write, b"x")
    reactor.turn(1)
    assert gone == [True] and sender.closed and len(seen) == 4

    # Where several have come, all leaves at the end.
    (read_fd, write_fd), (second_read, second_write) = make_pipe(), os.pipe()
    sender = PipeSender(reactor, write_fd, codec, batches=True)
    reactor.remove(event_read)
    for fd in (event_read, second_read):

        def both(_events: int, fd: int = fd) -> None:
            os.read(fd, 1)
            sender.send(Small(fd))
            assert not arrived()

        reactor.add(fd, READ, both)
    os.write(event_write, b"x")
    os.write(second_write, b"x")
    reactor.turn(1)
    assert len(arrived()) == 2
    sender.close()
    for fd in (read_fd, event_read, event_write, second_read, second_write):
        os.close(fd)
    reactor.close()
