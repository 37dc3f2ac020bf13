"""What is remembered of EtherNet/IP's reads by their exact bytes changes nothing: as test_same_bytes has it of
Modbus."""

from __future__ import annotations

import contextlib
import copy
import functools
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cofferdam.brokers.proxy import kept
from cofferdam.model import Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points import decide
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, requests, server, single, together, wire
from cofferdam.protocols.enip.operations import Enip
from cofferdam.protocols.enip.values import ATOMIC
from cofferdam.values import Int32
from tests.brokers.stage import Stage
from tests.brokers.test_enip_forged import POLICY
from tests.brokers.test_same_bytes import Nothing, Pair, steps
from tests.examples import examples
from tests.policy.plant import NOW
from tests.protocols import enip as e
from tests.protocols.enip import rr, tag

TYPES = {
    "flag": 0xC1, "flags": 0xC1, "small": 0xC2, "large": 0xC5, "bare": 0xC9, "floats": 0xCA, "double": 0xCB,
    "bits": 0xD3, "level": 0xCA, "pump.speed": 0xC4, "counts": 0xC4,
}  # fmt: skip
"""Tags of the device."""
MORE = """
      flag: {at: tag Flag, type: bool}
      flags: {at: "tag Flags[0-9]", type: bool}
      small: {at: tag Small, type: sint}
      large: {at: tag Large, type: lint}
      bare: {at: tag Bare, type: ulint}
      double: {at: "tag Double[0-9]", type: lreal}
      floats: {at: "tag Floats[0-9]", type: real}
      bits: {at: tag Bits, type: udint}
      label: {at: tag Label, type: string}
"""
PLANT = POLICY.replace("    points:", f"    points:{MORE.rstrip()}").replace(
    "serial],", f"serial, {', '.join(name for name in TYPES if name not in POLICY.lower())}, label],"
)
"""A policy with tags of all types."""
POLICIES = [
    ("", ""),
    ("read: [pump, ", "read: ["),
    ("at: tag Pump.Speed, type: dint, min: 0, max: 1500", "at: tag Pump.Speed, type: dint, min: 0, max_step: 100"),
    ("reason: a test", "reason: a test\n    expires: 2027-01-15"),
    ("reason: a test", 'reason: a test\n    window: {days: fri, from: "08:00", to: "08:01", zone: UTC}'),
    # What Counts means by itself: its first element, or the whole of a tag that is no array.
    ('tag Counts[0-9]", type: dint', 'tag Counts", type: dint'),
    ("zones:", "limits: {client_requests_per_second: 3, client_requests_burst: 3}\nzones:"),
]


@functools.cache
def compiled() -> list[bytes]:
    return [compile_policy(loads(PLANT.replace(*change, 1)), now_ns=NOW).to_bytes() for change in POLICIES]


class EnipStage(Stage):
    zones = (("office",), "plant")
    place = ("127.0.0.1", 44818)


class EnipPair(Pair):
    def __init__(self, forgets: bool) -> None:
        self.forgets = forgets
        self.policies = [CompiledPolicy.from_bytes(data) for data in compiled()]
        self.stage = EnipStage(policy=self.policies[0], broker="enip", protocols={"enip": Enip()})
        self.clients = [self.stage.client("127.0.0.1"), self.stage.client("127.0.0.1", port=40001),
                        self.stage.client("10.9.9.9")]  # fmt: skip
        self.questions: list[bytes] = []
        self.recalled = self.decoded = self.learnt = self.kept = 0
        for client in self.clients:
            client.arrive(e.REGISTER)
        self.forget()

    def forget(self) -> None:
        super().forget()
        if self.forgets:
            requests.read_tag.cache_clear()
            single.forms.clear()
            together.memory.clear()
        for client in self.stage.outer.clients:
            machine: Any = client.machine
            if self.forgets:
                machine._reads, machine._packets = Nothing(), Nothing()
            self.decoded += len(machine._reads) and len(machine._packets)
        self.kept += len(self.stage.inner._kept._places)
        for device in self.stage.inner._devices.values():
            for connection in device._connections:
                asking: Any = connection.machine
                if self.forgets:
                    asking._reads._known = Nothing()
                self.learnt += len(together.memory) and len(asking._reads._known)


def _value(name: str, count: int, seed: int, code: int) -> bytes:
    """A tag's, with its type before it: any bits that are one, those of a signalling NaN among them."""
    if name == "label":
        return b"\xa0\x02\xce\x0f" + (4).to_bytes(4, "little") + b"text".ljust(84, b"\0")
    rng = random.Random(seed)
    kind, size = ATOMIC[code][2], ATOMIC[code][3]
    if kind == "?":
        return bytes((code, 0, *rng.choices((0, 1, 255), k=count)))
    if kind == "f" and seed % 3 == 0:
        return bytes((code, 0)) + b"\1\0\x80\x7f" * count
    return bytes((code, 0)) + rng.randbytes(size * count)


def _answered(cip: bytes, seed: int, change: str = "") -> bytes:
    """What a good device says to one request, with values by chance. `change`: what is not good in it."""
    if cip[0] == requests.PACKET:
        parts = [_answered(part, seed + at) for at, part in enumerate(requests.parts_of(cip[6:]))]
        if change:
            at = seed % len(parts)
            parts[at] = _answered(requests.parts_of(cip[6:])[at], seed, change)
            parts = parts[1:] if change == "few" else parts
        failed = any(part[2] for part in parts)
        return bytes((0x8A, 0, 0x1E if failed else 0, 0)) + requests.packet(parts)
    if cip[0] != requests.READ:
        return bytes([cip[0] | 0x80, 0, 0, 0])
    path = paths.parse(cip, 2, len(cip) - 2)
    name = ".".join(one for one, _ in path.names)
    code = 0xC2 if change == "type" else TYPES.get(name, 0xC4)
    one = b"\xcc\0\0\0" + _value(name, int.from_bytes(cip[-2:], "little"), seed, code)
    return {
        "gone": b"\xcc\0\5\0", "words": b"\xcc\0\xff\1\5\x21", "kind": b"\xd2" + one[1:], "short": one[:-1],
        "long": one + b"\0", "bool": b"\xcc\0\0\0\xc1\0\7", "more": b"\xcc\0\6\0", "reserved": b"\xcc\1" + one[2:],
        "good words": b"\xcc\0\0\1\0\0" + one[4:],
    }.get(change, one)  # fmt: skip


def answer(question: bytes, seed: int = 7, say: bytes | None = None, change: str = "") -> bytes:
    """A device's frame; `say`: the CIP in it."""
    if question[0] == wire.REGISTER:
        return wire.frame(wire.REGISTER, 9, question[12:20], b"\1\0\0\0")
    cip = wire.items_of(question[wire.SIZE :])[1][1]
    if cip[0] == requests.UNCONNECTED_SEND:
        cip = cip[10 : 10 + int.from_bytes(cip[8:10], "little")]
    return rr(_answered(cip, seed, change) if say is None else say, 9, question[12:20])


def read(name: str, first: int = -1, count: int = 1) -> bytes:
    """Read Tag."""
    return requests.read_tag(Item("tag", name, first, count))


def packet(*parts: bytes) -> bytes:
    """All of these in one."""
    return requests.packet_of(list(parts))


CONTEXTS = st.sampled_from([b"one.....", b"two.....", b"three..."])
COUNTS = [tag("counts", body=bytes([count, 0])) for count in (1, 2, 60)]
SAID = st.sampled_from([
    tag("pump.speed"), tag("pump.speed"), tag("Level"), tag("level"), *COUNTS, tag("secret"), tag("status"),
    tag("level", body=b"\0\0"), tag("level", body=b"\1"),
    tag("pump.speed", service=requests.WRITE, body=b"\xc4\0\1\0\x05\0\0\0"),
    tag("pump.speed", service=requests.WRITE, body=b"\xc4\0\1\0\xff\xff\0\0"),
    packet(tag("level"), tag("pump.speed")), packet(tag("level"), tag("secret")),
    packet(tag("level"), tag("pump.speed", service=requests.WRITE, body=b"\xc4\0\1\0\x05\0\0\0")),
    packet(tag("level"), tag("pump.speed", service=requests.READ_PIECE, body=b"\1\0\0\0\0\0")),
])  # fmt: skip
ALL = [
    read("level"), read("flag"), read("flags", 2, 3), read("small"), read("large"), read("bare"), read("double", 0, 2),
    read("floats", 1, 3), read("bits"), read("counts", 0, 4), read("pump.speed"),
]  # fmt: skip
PACKETS = st.sampled_from([packet(*ALL), packet(*ALL * 4), packet(*ALL, read("label")), packet(*ALL[:3])])
"""What a poller asks. The second has no room in one packet to the device, nor its answer in one to the client."""
SINGLES = st.sampled_from(ALL)
FRAMES = st.builds(lambda cip, context: rr(cip, context=context), st.one_of(SAID, PACKETS, PACKETS, SINGLES), CONTEXTS)
ANSWERS = [
    answer,
    lambda question: answer(question, 900),
    lambda question: answer(question, say=b"\xcc\0\5\0"),
    lambda question: answer(question, say=b"\xcc\0\0\0\xc3\0\1"),
    lambda question: answer(question[:12] + b"somebody" + question[20:]),
    lambda question: b"\0\7garbage" + question,
    *[functools.partial(answer, seed=seed) for seed in range(1, 5)],
    *[
        functools.partial(answer, seed=at, change=change)
        for change in (
            "type",
            "gone",
            "words",
            "kind",
            "short",
            "long",
            "bool",
            "more",
            "reserved",
            "good words",
            "few",
        )
        for at in range(3)
    ],
]
AGAIN = rr(packet(*ALL))
STEPS = steps(FRAMES, st.sampled_from([rr(ALL[0]), rr(ALL[2]), AGAIN, AGAIN]), ANSWERS, len(POLICIES), [
    m.Packet((m.ReadTag(Item("tag", "level")), m.ReadTag(Item("tag", "pump.speed")))),
    m.Packet((m.ReadTag(Item("tag", "level")), m.ReadTag(Item("tag", "secret")))),
    m.ReadTag(Item("tag", "level")), m.ReadTag(Item("tag", "secret")), m.ReadTag(Item("tag", "Level")),
    m.WriteTag(Item("tag", "pump.speed"), 0xC4, 0, Int32((5,))),
], [
    m.ReadTag(Item("tag", "level")), m.ReadTag(Item("tag", "secret")),
    m.Packet((m.ReadTag(Item("tag", "level")), m.ReadTag(Item("tag", "pump.speed")))),
])  # fmt: skip
ONE = 12_000
"""Bytes in which a packet of all these tags has room."""
ONCE = [("ask", (0, AGAIN)), ("answer", answer)]
BEGIN = [("ask", (0, rr(tag("level")))), ("answer", answer), ("answer", answer), ("ask", (0, rr(tag("level")))),
         ("answer", answer), *ONCE, *ONCE, ("ask", (0, AGAIN)), ("answer", ANSWERS[-1])]  # fmt: skip
EACH = [[("ask", (0, rr(one))), ("answer", answer)] for one in ALL]
"""Each tag by itself."""
AS_BEFORE = [("ask", (0, rr(COUNTS[0]))), ("answer", answer)]


@examples(60)
@example([*AS_BEFORE, ("reload", 5), *AS_BEFORE])
@example([step for one in ANSWERS for step in (*ONCE, *ONCE, ("ask", (0, AGAIN)), ("answer", one), *ONCE)])
@example([step for one in ANSWERS[:2] for each in EACH * 3 for step in (each[0], ("answer", one))])
@example([step for one in ANSWERS for each in EACH[:4] for step in (*each, *each, each[0], ("answer", one), *each)])
@given(st.lists(STEPS, min_size=1, max_size=30))
def test_a_pair_that_remembers_and_one_that_does_not_do_the_same(story: list[tuple[str, Any]]) -> None:
    """One after the other, so that what is remembered for all machines is forgotten for one pair alone."""
    forgets = EnipPair(True)
    with contextlib.closing(forgets):
        expected = [copy.deepcopy(forgets.step(what, value)) for what, value in [*BEGIN, *story]]
    remembers = EnipPair(False)
    with contextlib.closing(remembers):
        for at, (what, value) in enumerate([*BEGIN, *story]):
            seen = remembers.step(what, value)
            assert seen == expected[at], (at, what)
            if seen[0]:
                break  # that half has stopped
    assert remembers.recalled and remembers.decoded and remembers.learnt and remembers.kept
    assert not forgets.recalled and not forgets.decoded and not (forgets.learnt or forgets.kept)
    if "kept" not in {what for what, _ in story}:  # what is forged is kept by one end alone
        _with_room_for_one(story, expected)


def _with_room_for_one(story: list[tuple[str, Any]], expected: list[list[Any]]) -> None:
    """The same with halves of which each forgets nearly all packets for the next one."""
    with pytest.MonkeyPatch.context() as short:
        short.setattr(decide, "CACHE_BYTES", ONE)
        short.setattr(kept, "PLACES_BYTES", ONE)
        short.setattr(server, "KEPT", ONE)
        forgetful = EnipPair(False)
        with contextlib.closing(forgetful):
            for at, (what, value) in enumerate([*BEGIN, *story]):
                seen = forgetful.step(what, value)
                assert seen == expected[at], (at, what)
                if seen[0]:
                    break
                places = forgetful.stage.inner._kept._places
                assert len(places) < 20
                assert sorted(places) == [at for at, one in enumerate(forgetful.stage.outer._keeping._places) if one]
    assert forgetful.recalled and forgetful.kept
