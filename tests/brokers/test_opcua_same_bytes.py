"""What is remembered of OPC UA's reads changes nothing: as test_same_bytes has it of Modbus."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import random
import struct
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from cofferdam.errors import RemoteProtocolError
from cofferdam.model import Assign, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.base import NEED_DATA, Facing, LocalAnswer, Released, RequestReceived, RequestRefused
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import numbers
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import Data, NodeId, QualifiedName, Variant
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.names import Unnamed
from cofferdam.protocols.opcua.remembered import Heard, Said
from cofferdam.protocols.opcua.rendered import plainly
from cofferdam.protocols.opcua.trust import Trust
from cofferdam.values import Float64
from tests.brokers.stage import Stage, Wire
from tests.brokers.test_same_bytes import Nothing, Pair, steps
from tests.examples import examples
from tests.policy.plant import NOW
from tests.protocols.opcua.pair import asset
from tests.protocols.opcua.site import policy

LINE = "nsu=urn:plant:line;s=Line1"
KINDS = {"Flag": 1, "Small": 2, "Tiny": 3, "Counts": 6, "Large": 8, "Bare": 9, "Level": 11, "Speed": 11, "Ratio": 10}
"""What the device has, and of which type."""
POINTS = "\n".join(
    f'      {name.lower()}: {{at: "{LINE}.{name}", type: {kind}}}'
    for name, kind in (("Flag", "Boolean"), ("Small", "SByte"), ("Tiny", "Byte"), ("Large", "Int64"),
                       ("Bare", "UInt64"), ("Ratio", "Float"))
)  # fmt: skip
RULES = (
    "{who: mes, asset: filler, read: [speed, level, counts, title, limits, flag, small, tiny, large, bare, ratio], "
    "write: [speed]}",
    "{who: guest, asset: filler, read: [level]}",
)
WHO = ("mes: {zone: office, addresses: [127.0.0.1]}", "guest: {zone: office, addresses: 10.1.0.66}")
PLANT = policy(4840, 4841, *RULES, who=WHO).replace("    points:", f"    points:\n{POINTS}")
POLICIES = [
    ("", ""),
    ("read: [speed, ", "read: ["),
    ("    outstanding: 8", "    outstanding: 8\n    share_reads: 200ms"),
    ("reason: OEE", "reason: OEE\n    expires: 2027-01-15"),
    ("reason: OEE", 'reason: OEE\n    window: {days: fri, from: "08:00", to: "08:01", zone: UTC}'),
    (f'level: {{at: "{LINE}.Level", type: Double', f'level: {{at: "{LINE}.Level", type: Float'),
    # From now on that is a structure, or would be.
    (f'level: {{at: "{LINE}.Level", type: Double, fastest: 50 ms}}',
     f'level: {{at: "{LINE}.Level", type: ByteString, structure: "i=886", max_length: 64}}'),
    ("limits: {", "limits: {client_requests_per_second: 3, client_requests_burst: 3, "),
]  # fmt: skip


@functools.cache
def compiled() -> list[bytes]:
    assert all(change[0] in PLANT for change in POLICIES)
    return [compile_policy(loads(PLANT.replace(*change, 1)), now_ns=NOW).to_bytes() for change in POLICIES]


class OpcUaStage(Stage):
    zones = (("office",), "plant")
    place = ("127.0.0.1", 4841)


class Client:
    """A client on a transport: our machine, in the hands of which anything can be put."""

    def __init__(self, stage: Stage, source: str, port: int) -> None:
        self.stage, self.wire = stage, stage.client(source, port)
        facing = Facing(Trust({}), asset(), os.urandom, lambda: stage.reactor.now + stage.wall_offset,
                        lambda _op: True, lambda _verb, _item: True)  # fmt: skip
        self.machine = OpcUaClient(facing, 64)
        self.answers: list[Any] = []
        self.hear()

    def ask(self, questions: list[Any]) -> None:
        """Reads, which leave in one go."""
        if not self.machine.established:
            return
        for nodes, stamps in questions:
            self.machine.start(0, self._asking(nodes, stamps))
        self._turn(b"")

    def _asking(self, nodes: list[tuple[str, int, str | None]], stamps: int) -> Any:
        asked = []
        for name, attribute, part in nodes:
            try:
                node = self.machine.namespaces.node(name)
            except Unnamed:
                node = NodeId(9, name, "s")
            asked.append(s.ReadValueId(node, attribute, part, QualifiedName(0, None)))
        answer = yield s.ReadRequest(self.machine.header(), 0.0, stamps, asked)
        self.answers.append(repr(answer))

    def hear(self) -> list[Any]:
        """What it was answered since, and in how many bytes."""
        for _ in range(20):
            data = b"".join(self.wire.take())
            if data:
                self.answers.append(len(data))
            self._turn(data)
            self.stage.cross()
            if not self.wire.written:
                break
        answers, self.answers = self.answers, []
        return answers

    def _turn(self, data: bytes) -> None:
        self.machine.on_time(self.stage.reactor.now)
        self.machine.receive_data(data)
        try:
            while (event := self.machine.next_event()) is not NEED_DATA:
                assert event is not None
        except RemoteProtocolError as error:
            self.answers.append(str(error))
        out = self.machine.take_output()
        if out and not self.wire.closed:
            self.wire.arrive(out)


class Device:
    """The plant's server: our machine, whose answers to reads are the story's."""

    def __init__(self, stage: Stage, wire: Wire) -> None:
        self.stage, self.wire = stage, wire
        facing = Facing(Trust({}), stage.policy.assets["filler"], os.urandom,
                        lambda: stage.reactor.now + stage.wall_offset, lambda _op: True, lambda _verb, _item: True,
                        "127.0.0.1", ("127.0.0.1", 4840))  # fmt: skip
        self.machine = OpcUaServer(facing)
        self.asked: list[tuple[int, Any]] = []

    def turn(self) -> bool:
        """Takes what it is told, and answers what is no question of the story's. Whether there was something."""
        data = b"".join(self.wire.take())
        self.machine.on_time(self.stage.reactor.now)
        self.machine.receive_data(data)
        while (event := self.machine.next_event()) is not NEED_DATA:
            if isinstance(event, RequestReceived):
                self.asked.append((event.token, event.request))
            elif isinstance(event, (LocalAnswer, Released, RequestRefused)):
                self._say(self.machine.send(event.token, event.reply))
        self._say(self.machine.take_output())
        return bool(data)

    def answer(self, token: int, request: Any, make: Any) -> None:
        """To a read, a body that `make` makes."""
        if not isinstance(request, m.Read):
            count = len(request.writes) if isinstance(request, m.Write) else 0
            self._say(self.machine.send(token, m.Written((0,) * count) if count else m.Described(())))
            return
        data = self.machine.send(token, m.Values((m.Sample(None),) * len(request.items)))
        made = make(request)  # in the place of the body of that
        self._say(data[:4] + (24 + len(made)).to_bytes(4, "little") + data[8:24] + made)

    def _say(self, data: bytes) -> None:
        if data and not self.wire.closed:
            self.wire.on_data(data)


class OpcUaPair(Pair):
    def __init__(self, forgets: bool) -> None:
        self.forgets = forgets
        self.policies = [CompiledPolicy.from_bytes(data) for data in compiled()]
        self.stage = OpcUaStage(policy=self.policies[0], broker="opcua")
        self.plant: list[Device] = []
        self.people = [Client(self.stage, "127.0.0.1", 40000), Client(self.stage, "127.0.0.1", 40001),
                       Client(self.stage, "10.1.0.66", 40002)]  # fmt: skip
        self.clients = [one.wire for one in self.people]
        self.questions: list[Any] = []
        self.recalled = self.decoded = self.learnt = self.kept = self.answered = 0
        self.forget()

    def forget(self) -> None:
        super().forget()
        for client in self.stage.outer.clients:
            machine: Any = client.machine
            if self.forgets:
                machine.heard = Heard()
                machine.heard._known = Nothing()
            self.decoded += len(machine.heard._known)
        self.kept += len(self.stage.inner._kept._places)
        for device in self.stage.inner._devices.values():
            for connection in device._connections:
                asking: Any = connection.machine
                if self.forgets:
                    asking.said = Said()
                    asking.said._known = Nothing()
                self.learnt += sum(1 for one in asking.said._known.values() if one.heads)

    def _do(self, what: str, value: Any) -> None:
        if what == "ask":
            number, frames = value
            self.people[number].ask(frames)
        elif what == "answer":
            if self.questions:
                device, token, request = self.questions.pop(0)
                if not device.wire.closed:
                    device.answer(token, request, value)
        else:
            super()._do(what, value)

    def asked(self) -> list[list[Any]]:
        for _ in range(20):
            stage = self.stage
            self.plant += [Device(stage, wire) for wire in stage.devices[len(self.plant) :]]
            for device in self.plant:
                if device.wire.on_connected is not None and not device.wire.closed:
                    device.wire.on_connected()
                    device.wire.on_connected = None
            busy = [device.turn() for device in self.plant if not device.wire.closed]
            self.stage.cross()
            if not any(busy):
                break
        found: list[list[Any]] = []
        for device in self.plant:
            self.questions += [(device, *one) for one in device.asked]
            found.append([repr(request) for _, request in device.asked])
            device.asked.clear()
        return found

    def heard(self) -> list[Any]:
        found = [(one.hear(), one.wire.closed, one.wire.paused) for one in self.people]
        self.answered += sum(isinstance(one, str) for answers, _, _ in found for one in answers)
        return found


# --- what is asked and answered ---------------------------------------------------------------------------------------

TIME = 133_000_000_000_000_000
WIDTHS = {1: 1, 2: 1, 3: 1, 6: 4, 8: 8, 9: 8, 10: 4, 11: 8}


def one_value(name: str, rng: random.Random, mask: int, kind: int = -1) -> bytes:
    """What the device has there: any bits that are of its type, those of a signalling NaN among them."""
    kind = KINDS.get(name.rpartition(".")[2], 11) if kind < 0 else kind
    made = bytes([mask])
    if mask & 1:
        bits = rng.randbytes(WIDTHS[kind])
        if kind == 10 and rng.random() < 0.3:
            bits = b"\1\0\x80\x7f"
        made += bytes([kind]) + (bytes([bits[0] & 1]) if kind == 1 else bits)
    made += bytes(4) if mask & 2 else b""
    for bit in (4, 8):
        made += struct.pack("<q", TIME + rng.randrange(100)) if mask & bit else b""
    return made


def answer(request: m.Read, seed: int = 7, mask: int = 15, change: str = "") -> bytes:
    """The body of a device's answer. `change`: what is other than usual in it."""
    rng = random.Random(seed)
    values = [one_value(item.name, rng, mask) for item in request.items]
    at = rng.randrange(len(values))
    name = request.items[at].name
    values[at] = {
        "": values[at], "type": one_value(name, rng, mask, 8 if KINDS.get(name.rpartition(".")[2]) != 8 else 11),
        "fields": one_value(name, rng, mask ^ 4), "null": b"\1\0", "nothing": b"\0",
        "bad": plainly(Data(None, 0x80310000, TIME, TIME)), "doubtful": plainly(Data(Variant(11, 1.5), 0x40000000)),
        "text": plainly(Data(Variant(12, "full"), 0, TIME, TIME)), "array": plainly(Data(Variant(6, [1, 2], True))),
        "no time": b"\x05\x0b" + bytes(16), "a bool": b"\1\1\7", "picoseconds": b"\x15\x0b" + bytes(18),
        "reserved": b"\xc1\x0b" + bytes(8),
    }.get(change, values[at])  # fmt: skip
    values = values[1:] if change == "few" else [*values, values[0]] if change == "many" else values
    data = numbers.answer(TIME, 5, len(values), values)
    if change == "short":
        return data[:-1]
    if change == "long":
        return data + b"\0"
    if change == "refused":
        return data[:16] + (0x80310000).to_bytes(4, "little") + data[20:]
    if change == "diagnostics":
        return data[:-4] + b"\1\0\0\0\0"
    return b"\1\0\xff\xff" if change == "garbage" else data


def nodes(*names: str, attribute: int = 13, part: str | None = None) -> list[tuple[str, int, str | None]]:
    return [(name if name.startswith("i=") else f"{LINE}.{name}", attribute, part) for name in names]


ALL = nodes(*KINDS)
LISTS = [
    ALL, ALL, ALL, ALL * 4, nodes("Level"), nodes("Level", "Speed"), nodes("Level", "Secret"), nodes("Secret"),
    nodes("Level", "Title"), nodes("Counts", part="0:1"), nodes("Level", "Counts", part="0"),
    [*nodes("Level", "Speed"), *nodes("i=2259")], nodes("Level", attribute=3), nodes("Level", "Limits"), [],
]  # fmt: skip
QUESTIONS = st.tuples(st.sampled_from(LISTS), st.sampled_from([2, 2, 0, 1, 3, 3, 9]))
CHANGES = [
    "type", "fields", "null", "nothing", "bad", "doubtful", "text", "array", "no time", "a bool", "picoseconds",
    "reserved", "few", "many", "short", "long", "refused", "diagnostics", "garbage",
]  # fmt: skip
ANSWERS = [
    answer,
    *[functools.partial(answer, seed=seed, mask=mask) for seed in (1, 2, 3) for mask in (13, 7, 1)],
    *[functools.partial(answer, seed=at, change=change) for change in CHANGES for at in range(2)],
]
AGAIN = [(ALL, 2)]
SPEED, LEVEL, SECRET = (Item("node", f"{LINE}.{name}") for name in ("Speed", "Level", "Secret"))
STEPS = steps(
    QUESTIONS, st.sampled_from([[(nodes("Level"), 2)], AGAIN, AGAIN, AGAIN, AGAIN * 2]), ANSWERS,
    len(POLICIES), [
        m.Read((LEVEL,)), m.Read((LEVEL, SPEED)), m.Read((LEVEL, SECRET)), m.Read((SECRET,)),
        m.Write((Assign(SPEED, Float64((5.0,))),)), m.Write((Assign(SPEED, Float64((9e9,))),)),
    ], [m.Read((LEVEL,)), m.Read((SECRET,)), m.Read((LEVEL, SPEED))], list,
)  # fmt: skip
ONCE = [("ask", (0, AGAIN)), ("answer", answer)]
BEGIN = [*ONCE, *ONCE, *ONCE, ("ask", (1, AGAIN)), ("answer", ANSWERS[1]), ("ask", (0, AGAIN))]

IN_ALL_FORMS: list[tuple[str, Any]] = [
    one for stamps in (0, 1, 3) for made in ANSWERS[:4]
    for one in [("ask", (0, [(ALL, stamps)])), ("answer", made)] * 3
]  # fmt: skip


@examples(60)
@example([("answer", answer), *[step for one in ANSWERS for step in (("ask", (0, AGAIN)), ("answer", one), *ONCE)]])
@example([step for number in range(len(POLICIES)) for step in (("answer", answer), ("reload", number), *ONCE, *ONCE)])
@example(IN_ALL_FORMS)
@given(st.lists(STEPS, min_size=1, max_size=30))
def test_a_pair_that_remembers_and_one_that_does_not_do_the_same(story: list[tuple[str, Any]]) -> None:
    forgets, remembers = OpcUaPair(True), OpcUaPair(False)
    with contextlib.closing(forgets), contextlib.closing(remembers):
        for at, (what, value) in enumerate([*BEGIN, *story]):
            expected = copy.deepcopy(forgets.step(what, value))
            seen = remembers.step(what, value)
            assert seen == expected, (at, what)
            if seen[0]:
                break  # that half has stopped
    assert remembers.answered > 2
    assert remembers.recalled and remembers.decoded and remembers.learnt and remembers.kept
    assert not forgets.recalled and not forgets.decoded and not (forgets.learnt or forgets.kept)
