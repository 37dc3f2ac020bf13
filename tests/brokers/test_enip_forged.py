"""EtherNet/IP with a hostile process in the place of each half: what the outer one says reaches the asset within policy
or not at all, and the outer half believes no answer that fits no question."""

from __future__ import annotations

import random
import struct
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.proxy import records
from cofferdam.errors import CofferdamError, CrossingError
from cofferdam.model import Allow, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.base import NEED_DATA, LocalAnswer, Released, RequestReceived
from cofferdam.protocols.enip import faults, io, requests, wire
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.server import EnipServer
from cofferdam.values import Bool, Float32, Int16, Int32, Octets, UInt32
from tests.brokers.stage import Stage, Wire
from tests.examples import examples
from tests.policy.plant import NOW
from tests.protocols import enip as e
from tests.protocols.enip import ENIP, cip_of, rr, tag

POLICY = """\
site: works
zones:
  office: {side: it}
  plant: {side: ot}
assets:
  packer:
    zone: plant
    address: 127.0.0.1
    protocol: enip
    listen: 127.0.0.1:44818
    points:
      pump: {at: tag Pump.Speed, type: dint, min: 0, max: 1500}
      level: {at: tag Level, type: real}
      counts: {at: "tag Counts[0-9]", type: dint, min: 0, max: 99}
      alarm: {at: tag Status.3, type: bool}
      serial: {at: cip 1/1/6, type: udint}
      reference: {at: io Drive.0, type: dint, min: 0, max: 1500}
    streams:
      drive: {at: io Drive, fastest: 10 ms, form: "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"}
principals:
  mes: {zone: office, addresses: [127.0.0.1]}
  guest: {zone: office, addresses: 10.1.0.66}
conduits:
  c:
    from: office
    to: plant
    broker: enip
    owner: someone
    reason: a test
    allow:
      - {who: mes, asset: packer, read: [pump, level, counts, serial], write: [pump, counts, alarm], stream: drive}
      - {who: guest, asset: packer, read: level}
"""
SOURCES = {1: "127.0.0.1", 2: "10.1.0.66", 3: "10.9.9.9"}


class Device:
    """What stands at the other end: the server's machine, which says yes to all that it is asked."""

    def __init__(self, link: Wire, policy: Any) -> None:
        self.link = link
        self.machine = EnipServer(e.facing(policy.assets["packer"]))
        self.asked: list[Any] = []

    def turn(self) -> bool:
        data = b"".join(self.link.take())
        self.machine.receive_data(data)
        while (event := self.machine.next_event()) is not NEED_DATA:
            if isinstance(event, RequestReceived):
                self.asked.append(event.request)
                self._say(self.machine.send(event.token, self._answer(event.request)))
            elif isinstance(event, (LocalAnswer, Released)):
                self._say(self.machine.send(event.token, event.reply))
        return bool(data)

    def _say(self, data: bytes) -> None:
        if not self.link.closed:
            self.link.on_data(data)

    def _answer(self, request: Any) -> Any:
        match request:
            case m.ReadTag(item):
                return m.Held(0xC4, 0, Int32((7,) * item.count, item.first >= 0))
            case m.GetAttribute():
                return m.Held(0, 0, UInt32((7,)))
            case m.OpenIo(_, rpi_out, rpi_in):
                return m.IoOpened(rpi_out, rpi_in)
            case m.ListTags():
                return m.TagList(tuple(m.Symbol(n, name, 0xC4, (0, 0, 0)) for n, name in enumerate(
                    ("Pump", "Level", "Secret", "Counts", "Program:Main"), 1)))  # fmt: skip
            case m.Packet(parts):
                return m.Answers(tuple(self._answer(part) for part in parts))
            case m.Identify():
                return m.Identity(1, 2, 3, 4, 5, 6, 7, "a device")
            case m.GetAttributes(items):
                return m.HeldList(tuple(UInt32((1,)) for _ in items))
        return m.Done()


class EnipStage(Stage):
    zones = (("office",), "plant")
    place = ("127.0.0.1", 44818)

    def __init__(self) -> None:
        super().__init__(policy=compile_policy(loads(POLICY), now_ns=NOW), broker="enip")
        self.plant: list[Device] = []
        self.out: list[bytes] = []
        datagrams: Any = self.inner._datagrams
        datagrams.send = lambda address, port, data: self.out.append(data)

    def turn(self) -> None:
        """The inner half and the device come to rest; nobody is at the outer end."""
        for _ in range(20):
            self.reactor.settle()
            if self.audit_pipe.unanswered:
                self.acknowledge()
            for link in self.devices[len(self.plant) :]:
                self.plant.append(Device(link, self.policy))
                assert link.on_connected is not None
                link.on_connected()
            busy = [device.turn() for device in self.plant if not device.link.closed]
            if not any(busy) and not self.audit_pipe.unanswered:
                return


class Forger:
    """Makes records by chance, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kept: list[int] = []

    def request(self) -> Any:
        rng = self.rng
        names = ("pump.speed", "pump.speed", "level", "counts", "status", "secret", "pump", "Level", "a[1,2]")
        name = rng.choice(names)
        first = rng.choice((-1, -1, 0, 5, 8, 200))
        item = Item("tag", name, first, rng.choice((1, 1, 2, 5)) if first >= 0 else 1)
        number = rng.choice((-1, 0, 50, 99, 100, 1500, 1501))
        array = first >= 0 and rng.random() < 0.9
        value = rng.choice((Int32, Int32, Int32, Int16))((number,) * item.count, array)
        attribute = Item("cip", rng.choice(("1/1/6", "1/1/7", "6/1/1", "01/1/6")))
        code = 0xC3 if isinstance(value, Int16) else 0xC4
        stream = Item("io", rng.choice(("drive", "drive", "other")))
        return rng.choice(
            (
                m.ReadTag(item),
                m.WriteTag(item, code, 0, value),
                m.WriteTag(item, code, 0, value),
                m.WriteTag(item, 0x02A0, 0x77, Octets((b"abcd",))),
                m.WriteTag(item, 0xCA, 0, Float32((1.5,), array)),
                m.WriteBit(Item("tag", f"{name}.{rng.choice((3, 4))}"), 4, rng.random() < 0.5),
                m.WriteBit(Item("tag", "status.3"), 4, rng.random() < 0.5),
                m.ModifyTag(item, 4, 3, 0xFFFFFFFF),
                m.GetAttribute(attribute),
                m.SetAttribute(attribute, UInt32((1,))),
                m.Service(rng.choice((5, 7)), rng.choice((1, 0x8E)), 1),
                m.Identify(),
                m.ListTags(rng.choice(("", "Program:Main"))),
                m.OpenIo(stream, rng.choice((9_999, 10_000)), 10_000, 0, 1),
                m.OpenIo(stream, 10_000, 10_000, 0, 1, m.Key(1, 0, 0, 0, 0, compatible=False), config=True),
                m.Packet((m.ReadTag(Item("tag", "level")), m.WriteTag(item, code, 0, value))),
                m.Packet((m.ReadTag(Item("tag", "level")), m.ReadTag(item))),
                m.Unserved(7, 0x8E, "x") if rng.random() < 0.1 else m.Identify(),
            )
        )

    def record(self, number: int, inner: Any) -> Any:
        rng = self.rng
        streams = list(inner._standings.values())
        if streams and rng.random() < 0.5:
            value = rng.choice((0, 700, 1500, 1501, -1)).to_bytes(4, "little", signed=True)
            return records.Frame(rng.choice(streams).handle, m.IoData(True, True, value[: rng.choice((4, 4, 4, 3))]))
        request = self.request()
        while (
            faults.request_fault(request) and rng.random() < 0.98
        ):  # a lie that is found out at once tries nothing more
            request = self.request()
        session = rng.choice((1, 1, 1, 1, 2, 3))
        changes = ENIP.operation(request).is_write
        if rng.random() < (0.001 if changes else 0.3):  # what is kept is asked for by whoever says its place
            self.kept.append(rng.randint(1, 9))
            return records.Kept(session, number, request, self.kept[-1])
        if self.kept and rng.random() < 0.3:
            return records.Again(number, [session, rng.choice(self.kept) if rng.random() < 0.995 else 10])
        return records.Request(session, number, request)


def run(seed: int) -> EnipStage:
    stage, forger = EnipStage(), Forger(seed)
    for number, source in SOURCES.items():
        stage.inner.take(records.Opened(number, f"s{number}", source, "packer"))
    try:
        for number in range(100, 140):
            stage.to_inner.send(forger.record(number, stage.inner))
            for decoded in stage.to_inner.take():
                stage.inner.take(decoded)
            stage.turn()
            answers = stage.to_outer.take()
            for record in answers:
                listed = getattr(record, "message", None)
                if isinstance(listed, m.TagList):
                    names = {one.name for one in listed.symbols}
                    assert "Secret" not in names and "Program:Main" not in names
    except CrossingError:
        pass  # the half stops: what came before was within policy all the same
    stage.turn()
    stage.inner.end()
    return stage


@given(st.integers(0, 1 << 60))
@examples(250)
def test_nothing_reaches_the_asset_that_policy_does_not_allow(seed: int) -> None:
    stage = run(seed)
    flows = [stage.policy.flow("enip", source, "packer", ("office",)) for source in SOURCES.values()]
    allowed = [flow for flow in flows if isinstance(flow, Flow)]
    for device in stage.plant:
        for request in device.asked:
            verdicts = [flow.decide(ENIP.operation(request), stage.inner._wall()) for flow in allowed]
            assert any(isinstance(verdict, Allow) for verdict in verdicts), request
    for data in stage.out:
        [_, (_, body)] = wire.items_at(data, 0)
        assert 0 <= int.from_bytes(body[6:10], "little", signed=True) <= 1500


def test_the_forger_tries_what_it_should() -> None:
    """The test above would hold nothing if nothing ever reached the device."""
    seen: Counter[str] = Counter()
    for seed in range(100):
        stage = run(seed)
        seen["frames"] += len(stage.out)
        for device in stage.plant:
            seen.update(type(one).__name__ for one in device.asked)
    for kind in ("ReadTag", "WriteTag", "WriteBit", "Packet", "OpenIo", "ListTags", "GetAttribute", "frames"):
        assert seen[kind] > 5, seen


def test_what_no_policy_can_allow_ends_the_half_that_says_it() -> None:
    stage = EnipStage()
    stage.inner.take(records.Opened(1, "s", "127.0.0.1", "packer"))
    with pytest.raises(CrossingError):
        stage.inner.take(records.Request(1, 2, m.Unserved(7, 0x8E, "stop")))
    stage.inner.end()


READS = m.Packet((m.ReadTag(Item("tag", "level")), m.ReadTag(Item("tag", "pump.speed"))))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([records.Again(2, [1, 5])], "nothing is kept"),
        ([records.Kept(1, 2, READS, 5), records.Again(3, [1, 6])], "nothing is kept"),
        ([records.Kept(1, 2, READS, 5), records.Again(2, [1, 5])], "comes after request 2"),
        ([records.Kept(1, 2, m.WriteTag(Item("tag", "pump.speed"), 0xC4, 0, Int32((5,))), 5)], "a write is to be kept"),
        ([records.Kept(1, 2, m.Packet((m.ReadTag(Item("tag", "a b")),)), 5)], "a b"),
        ([records.Kept(1, 2, READS, 0)], "refused"),
        ([records.Again(2, [1])], "refused"),
        ([records.Again(2, [1, records.PLACES + 1])], "nothing is kept"),
        ([records.Again(2, [1, 0])], "refused"),
        ([records.Again(2, [])], "refused"),
        ([records.Again(records.MOST_ID, [1, 5])], "at their end"),
        ([records.Kept(1, 2, READS, 5), records.Again(3, [1, 5, 1])], "does not say for what"),
    ],
)
def test_what_no_honest_half_would_keep_or_ask_for_again_ends_the_half_that_is_asked(said: list[Any], why: str) -> None:
    stage = EnipStage()
    stage.inner.take(records.Opened(1, "s", "127.0.0.1", "packer"))
    for record in said[:-1]:
        stage.inner.take(record)
    stage.to_inner.send(said[-1])
    with pytest.raises(CrossingError, match=why):
        for record in stage.to_inner.take():
            stage.inner.take(record)
    stage.inner.end()


def test_what_is_kept_is_judged_for_whoever_asks_for_it() -> None:
    stage = EnipStage()
    for number, source in SOURCES.items():
        stage.inner.take(records.Opened(number, f"s{number}", source, "packer"))
    stage.inner.take(records.Kept(1, 10, READS, 7))
    for number in (11, 12, 13):
        stage.inner.take(records.Again(number, [1 if number == 11 else number - 10, 7]))
    stage.inner.take(records.Again(14, [99, 7]))
    stage.turn()
    told = {one.id: type(one) for one in stage.to_outer.take()}
    assert told == {number: records.Reply if number < 12 else records.Denied for number in range(10, 15)}
    stage.inner.take(records.Kept(1, 15, m.ReadTag(Item("tag", "level")), 7))
    stage.inner.take(records.Again(16, [2, 7]))
    stage.turn()
    assert [type(one) for one in stage.to_outer.take()] == [records.Reply, records.Reply]
    assert [type(one) for device in stage.plant for one in device.asked] == [m.Packet] * 2 + [m.ReadTag] * 2
    stage.inner.end()


def test_what_is_kept_is_the_message_that_the_flow_remembers() -> None:
    """It would be compared part by part with that one each time."""
    stage = EnipStage()
    stage.inner.take(records.Opened(1, "s", "127.0.0.1", "packer"))
    for record in (records.Request(1, 2, READS), records.Kept(1, 3, READS, 7)):
        stage.to_inner.send(record)
    first, second = stage.to_inner.take()
    assert first.message == second.message and first.message is not second.message
    for record in (first, second):
        stage.inner.take(record)
    assert stage.inner._kept.at(7).message is first.message
    stage.inner.end()


def test_a_read_crosses_whole_twice_and_from_then_on_by_its_place() -> None:
    stage = EnipStage()
    client = stage.client("127.0.0.1")
    client.arrive(e.REGISTER)
    frame = rr(requests.packet_of([tag("level"), tag("pump.speed")]), e.SESSION)
    for _ in range(4):
        client.arrive(frame)
    said = [one for one in stage.to_inner.take() if not isinstance(one, records.Opened)]
    assert [type(one) for one in said] == [records.Request, records.Kept, records.Again]
    assert said[0].message == said[1].message == READS and said[1].place == 1
    assert said[2] == records.Again(said[1].id + 1, [1, 1, 1, 1])
    stage.inner.end()


@given(st.integers(0, 1 << 60))
@examples(60)
def test_the_outer_half_believes_no_answer_that_fits_no_question(seed: int) -> None:
    """An inner half that was taken over says anything: the client gets what fits its request, or the crew stops."""
    rng = random.Random(seed)
    stage = EnipStage()
    client = stage.client("127.0.0.1")
    client.arrive(e.REGISTER)
    client.arrive(rr(tag("pump"), e.SESSION))
    client.take()
    client.arrive(rr(tag("counts", body=b"\3\0"), e.SESSION))
    sent = [one for one in stage.to_inner.take() if isinstance(one, records.Request)]
    assert [type(one.message) for one in sent] == [m.ReadTag]
    answer = rng.choice(
        (
            m.Done(), m.Held(0xC4, 0, Int32((1, 2, 3), True)), m.Held(0xC4, 0, Int32((1, 2), True)),
            m.Held(0, 0, UInt32((1,))), m.TagList(()), m.IoOpened(10_000, 10_000), m.CipError(5),
            m.Held(0xC1, 0, Bool((True,) * 3, True)), m.Held(0xC4, 9, Int32((1, 2, 3), True)), m.Answers((m.Done(),)),
        )
    )  # fmt: skip
    kind: Any = rng.choice((records.Reply, records.Watched))
    record = kind(sent[0].id, answer, 0, 0) if kind is records.Reply else kind(sent[0].id, 5, answer, 0, 0)
    try:
        stage.outer.take(record)
    except CofferdamError:
        return
    finally:
        stage.inner.end()
    told = [cip_of(data) for data in client.take() if data[0] == wire.SEND_RR]
    assert all(one[0] == 0xCC for one in told)
    fits = isinstance(answer, m.CipError) or (isinstance(answer, m.Held) and not ENIP.mismatch(sent[0].message, answer))
    assert fits or not told


@pytest.mark.parametrize(
    ("codes", "data", "fits"),
    [
        (b"\xca\xc4", bytes(8), True), (b"\xc1\xc4", b"\1" + bytes(4), True), (b"\xca\xc4", bytes(7), False),
        (b"\xca\xc4", bytes(9), False), (b"\xca", bytes(4), False), (b"\xca\xc4\xc4", bytes(12), False),
        (b"\xca\xa0", bytes(8), False), (b"\xc1\xc4", b"\xff" + bytes(4), False), (b"\0\0", bytes(8), False),
    ],
)  # fmt: skip
def test_values_side_by_side_that_are_not_those_of_a_packet_end_the_outer_half(
    codes: bytes, data: bytes, fits: bool
) -> None:
    stage = EnipStage()
    client = stage.client("127.0.0.1")
    client.arrive(e.REGISTER)
    client.take()
    client.arrive(rr(requests.packet_of([tag("level"), tag("pump.speed")]), e.SESSION))
    [sent] = [one for one in stage.to_inner.take() if isinstance(one, records.Request)]
    stage.to_outer.send(records.Reply(sent.id, m.HeldAll(codes, data), 0, 0))
    if fits:
        for record in stage.to_outer.take():
            stage.outer.take(record)
        [told] = client.take()
        assert cip_of(told)[:6] == b"\x8a\0\0\0\2\0"
    else:
        with pytest.raises(CrossingError, match="does not fit"):
            for record in stage.to_outer.take():
                stage.outer.take(record)
        assert not client.take()
    stage.inner.end()


def test_a_form_says_its_sizes() -> None:
    form = io.form_of("outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151")
    assert form is not None and (form.size_out(1), form.size_in(1), form.size_out(0)) == (10, 10, 8)
    heartbeat = io.form_of("outputs 152 of 0 bytes, inputs 100 of 8 bytes, no run")
    assert heartbeat is not None and heartbeat.size_out(1) == 2
    assert io.form_of("outputs 1 of 2000 bytes, inputs 1 of 1 bytes") is None


@pytest.mark.parametrize("pause", [0.8, 1.2])
def test_a_list_in_many_pages_has_the_assets_time_for_each(pause: float) -> None:
    """The asset may take a second (`timeout`): each page may, and no page more."""
    stage = EnipStage()
    stage.inner.take(records.Opened(1, "s", "127.0.0.1", "packer"))
    stage.inner.take(records.Request(1, 2, m.ListTags()))
    stage.reactor.settle()
    [link] = stage.devices
    assert link.on_connected is not None
    link.on_connected()
    stage.reactor.settle()
    link.take()
    link.on_data(wire.frame(wire.REGISTER, 9, bytes(8), b"\1\0\0\0"))
    for number in range(1, 5):
        stage.reactor.settle()
        asked = link.take()
        if not asked:
            break
        stage.reactor.advance(pause)
        entry = struct.pack("<IH", number, 4) + b"Pump" + struct.pack("<H3I", 0xC4, 0, 0, 0)
        more = 6 if number < 4 else 0
        link.on_data(rr(b"\xd5\0" + bytes([more, 0]) + entry, 9, asked[0][12:20]))
    stage.reactor.settle()
    [answer] = [one for one in stage.to_outer.take() if isinstance(one, (records.Reply, records.Failed))]
    if pause < 1:
        assert isinstance(answer, records.Reply) and len(answer.message.symbols) == 4
    else:
        assert isinstance(answer, records.Failed)
    stage.inner.end()
