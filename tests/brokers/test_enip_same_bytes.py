"""What is remembered of EtherNet/IP's reads by their exact bytes changes nothing: as test_same_bytes has it of
Modbus."""

from __future__ import annotations

import functools
import struct
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from cofferdam.model import Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, requests, wire
from cofferdam.protocols.enip.operations import Enip
from cofferdam.values import Int32
from tests.brokers.stage import Stage
from tests.brokers.test_enip_forged import POLICY
from tests.brokers.test_same_bytes import Nothing, Pair, steps
from tests.examples import examples
from tests.policy.plant import NOW
from tests.protocols import enip as e
from tests.protocols.enip import rr, tag

POLICIES = [
    ("", ""),
    ("read: [pump, level, counts, serial]", "read: [level]"),
    ("reason: a test", "reason: a test\n    expires: 2027-01-15"),
    ("reason: a test", 'reason: a test\n    window: {days: fri, from: "08:00", to: "08:01", zone: UTC}'),
    # What Counts means by itself: its first element, or the whole of a tag that is no array.
    ('tag Counts[0-9]", type: dint', 'tag Counts", type: dint'),
    ("zones:", "limits: {client_requests_per_second: 3, client_requests_burst: 3}\nzones:"),
]


@functools.cache
def compiled() -> list[bytes]:
    return [compile_policy(loads(POLICY.replace(*change, 1)), now_ns=NOW).to_bytes() for change in POLICIES]


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
        self.recalled = self.decoded = 0
        for client in self.clients:
            client.arrive(e.REGISTER)
        self.forget()

    def forget(self) -> None:
        super().forget()
        if self.forgets:
            requests.read_tag.cache_clear()
        for client in self.stage.outer.clients:
            machine: Any = client.machine
            if self.forgets:
                machine._reads = Nothing()
            self.decoded += len(machine._reads)


def _answered(cip: bytes, value: int) -> bytes:
    """What a good device says to one request."""
    if cip[0] == requests.PACKET:
        return b"\x8a\0\0\0" + requests.packet([_answered(part, value) for part in requests.parts_of(cip[6:])])
    if cip[0] != requests.READ:
        return bytes([cip[0] | 0x80, 0, 0, 0])
    count = int.from_bytes(cip[-2:], "little")
    return b"\xcc\0\0\0\xc4\0" + struct.pack(f"<{count}i", *range(value, value + count))


def answer(question: bytes, value: int = 7, say: bytes | None = None) -> bytes:
    """A device's frame; `say`: the CIP in it."""
    if question[0] == wire.REGISTER:
        return wire.frame(wire.REGISTER, 9, question[12:20], b"\1\0\0\0")
    cip = wire.items_of(question[wire.SIZE :])[1][1]
    if cip[0] == requests.UNCONNECTED_SEND:
        cip = cip[10 : 10 + int.from_bytes(cip[8:10], "little")]
    return rr(_answered(cip, value) if say is None else say, 9, question[12:20])


CONTEXTS = st.sampled_from([b"one.....", b"two.....", b"three..."])
COUNTS = [tag("counts", body=bytes([count, 0])) for count in (1, 2, 60)]
SAID = st.sampled_from([
    tag("pump.speed"), tag("pump.speed"), tag("Level"), tag("level"), *COUNTS, tag("secret"), tag("status"),
    tag("level", body=b"\0\0"), tag("level", body=b"\1"),
    tag("pump.speed", service=requests.WRITE, body=b"\xc4\0\1\0\x05\0\0\0"),
    tag("pump.speed", service=requests.WRITE, body=b"\xc4\0\1\0\xff\xff\0\0"),
    requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet([tag("level"), tag("pump.speed")])),
    requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet([tag("level"), tag("secret")])),
])  # fmt: skip
FRAMES = st.builds(lambda cip, context: rr(cip, context=context), SAID, CONTEXTS)
ANSWERS = [
    answer,
    lambda question: answer(question, 900),
    lambda question: answer(question, say=b"\xcc\0\5\0"),
    lambda question: answer(question, say=b"\xcc\0\0\0\xc3\0\1"),
    lambda question: answer(question[:12] + b"somebody" + question[20:]),
    lambda question: b"\0\7garbage" + question,
]
STEPS = steps(FRAMES, st.just(rr(tag("level"))), ANSWERS, len(POLICIES), [
    m.ReadTag(Item("tag", "level")), m.ReadTag(Item("tag", "secret")), m.ReadTag(Item("tag", "Level")),
    m.WriteTag(Item("tag", "pump.speed"), 0xC4, 0, Int32((5,))),
])  # fmt: skip
BEGIN = [("ask", (0, rr(tag("level")))), ("answer", answer), ("answer", answer), ("ask", (0, rr(tag("level"))))]


AS_BEFORE = [("ask", (0, rr(COUNTS[0]))), ("answer", answer)]


@examples(60)
@example([*AS_BEFORE, ("reload", 4), *AS_BEFORE])
@given(st.lists(STEPS, min_size=1, max_size=30))
def test_a_pair_that_remembers_and_one_that_does_not_do_the_same(story: list[tuple[str, Any]]) -> None:
    remembers, forgets = EnipPair(False), EnipPair(True)
    for at, (what, value) in enumerate([*BEGIN, *story]):
        seen, expected = remembers.step(what, value), forgets.step(what, value)
        assert seen == expected, (at, what)
        if seen[0]:
            return  # that half has stopped
    assert remembers.recalled and remembers.decoded
    assert not forgets.recalled and not forgets.decoded
