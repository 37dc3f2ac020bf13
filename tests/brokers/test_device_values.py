"""What a policy says of bits, texts, decimal digits and scale factors, at a simulated device through both halves: what
reaches the device, what the client gets, what the log has. And connections that are kept in use."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from cofferdam.audit.events.access import WriteAllowed, WriteOutcome
from cofferdam.cli.main import main
from cofferdam.errors import PolicyError
from cofferdam.model import Allow, AllowBits, Change, Deny, NeedValues, Operation
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.asking import operation
from cofferdam.policy.points.decide import Flow
from cofferdam.policy.points.state import PointState
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.modbus.dialect import MODBUS
from tests.brokers.stage import Stage, Wire, adu, exception, read, write

POLICY = """
site: test
zones: {{enterprise: {{side: it}}, control: {{side: ot}}}}
assets:
  plc:
    zone: control
    address: 127.0.0.1
    port: 5020
    protocol: modbus
    unit: 1
    listen: 127.0.0.1:502
    {extra}
    points:
      run:    {{at: holding 40.3}}
      mode:   {{at: holding 40.4-7, max: 5}}
      other:  {{at: holding 40.12}}
      steps:  {{at: holding 41.0-7, max_step: 2}}
      whole:  {{at: holding 42, type: uint16}}
      clock:  {{at: holding 50, type: bcd, max: 2359}}
      long:   {{at: holding 51-52, type: bcd, word_order: little}}
      name:   {{at: holding 60-63, type: text, max_length: 6}}
      swap:   {{at: holding 64-65, type: string, byte_order: BADC}}
      power:  {{at: holding 70, type: int16, scale_from: holding 71, unit: W, min: -100, max: 100}}
      free:   {{at: holding 72, type: uint16, scale_from: holding 73}}
principals: {{tester: {{zone: enterprise, addresses: [127.0.0.1]}}}}
conduits:
  main:
    {{from: enterprise, to: control, broker: modbus, owner: tests, reason: tests, expires: 2099-01-01,
     allow: [{{who: tester, asset: plc, read: all, write: [{write}]}}, {{who: tester, asset: plc, {more}}}]}}
"""
WRITE = "run, mode, steps, clock, long, name, swap, power, free"


def policy(extra: str = "connections: 1", write: str = WRITE, more: str = "registers: holding 0-99") -> CompiledPolicy:
    return compile_policy(loads(POLICY.format(extra=extra, write=write, more=more)), now_ns=time.time_ns())


class Plc:
    """A device that keeps registers. `masks`: it knows function 22."""

    def __init__(self, stage: Stage, masks: bool = True) -> None:
        self.stage = stage
        self.masks = masks
        self.registers = [0] * 100
        self.asked: list[int] = []
        self.wire: Wire | None = None

    def serve(self) -> None:
        """Answers until nothing is asked any more."""
        self.stage.cross()
        if self.wire is None:
            if not self.stage.devices:
                return  # nobody has asked it anything yet
            self.wire = self.stage.up()
        for _ in range(20):
            questions = self.wire.take()
            if not questions:
                return
            for question in questions:
                self.stage.reactor.advance(0.001)
                self.asked.append(question[7])
                body = self._answer(question[6:])
                self.wire.on_data(question[:4] + len(body).to_bytes(2, "big") + body)
            self.stage.cross()
        raise AssertionError("it is asked for ever")

    def _answer(self, asked: bytes) -> bytes:
        unit, function, at = asked[:1], asked[1], int.from_bytes(asked[2:4], "big")
        words = [int.from_bytes(asked[i : i + 2], "big") for i in range(4, len(asked) - 1, 2)]
        if function == 3:
            body = b"".join(word.to_bytes(2, "big") for word in self.registers[at : at + words[0]])
            return unit + bytes([3, len(body)]) + body
        if function == 6:
            self.registers[at] = words[0]
        elif function == 16:
            data = asked[7:]
            for i in range(words[0]):
                self.registers[at + i] = int.from_bytes(data[2 * i : 2 * i + 2], "big")
            return asked[:6]
        elif function == 22 and self.masks:
            # As the standard has it but for its last step, which some devices forget: nothing may hang on that.
            self.registers[at] = (self.registers[at] & words[0]) | words[1]
        else:
            return unit + bytes([function | 0x80, 1])
        return asked


def many(transaction: int, start: int, *values: int) -> bytes:
    data = b"".join(value.to_bytes(2, "big") for value in values)
    return adu(
        transaction, b"\x10" + start.to_bytes(2, "big") + len(values).to_bytes(2, "big") + bytes([len(data)]) + data
    )


def bits(transaction: int, start: int, and_mask: int, or_mask: int) -> bytes:
    return adu(transaction, b"\x16" + b"".join(word.to_bytes(2, "big") for word in (start, and_mask, or_mask)))


def at(stage: Stage, plc: Plc, question: bytes) -> bytes:
    """What one client gets for one question."""
    stage.reactor.advance(0.01)
    client = stage.client()
    client.on_data(question)
    plc.serve()
    [got] = client.take()
    client.on_closed("")
    stage.cross()
    return got


HELD = 0x1050  # of holding 40: bit 12 is set, mode is 5
CASES = [
    # what is asked, what the register holds afterwards (None: refused), which functions the device is asked
    ("a bit by itself", bits(1, 40, 0xFFF7, 0x0008), 0x1058, {"alone": [22], "read-first": [3, 6]}),
    ("a bit in the whole word", write(1, 40, 0x1058), 0x1058, {"alone": [3, 22], "read-first": [3, 6]}),
    ("the same by function 16", many(1, 40, 0x1058), 0x1058, {"alone": [3, 22], "read-first": [3, 6]}),
    ("bit and field together", write(1, 40, 0x1038), 0x1038, {"alone": [3, 22], "read-first": [3, 6]}),
    ("a field by itself", bits(1, 40, 0xFF0F, 0x0020), 0x1020, {"alone": [22], "read-first": [3, 6]}),
    ("nothing changes", write(1, 40, HELD), HELD, {"alone": [3, 22], "read-first": [3, 6]}),
    ("a bit, and more in the or-mask", bits(1, 40, 0xFFF7, 0xFFFF), 0x1058, {"alone": [22], "read-first": [3, 6]}),
    ("no bit at all", bits(1, 40, 0xFFFF, 0x0008), None, {"alone": [], "read-first": []}),
    ("a bit that no rule names", bits(1, 40, 0xEFFF, 0), None, {"alone": [], "read-first": []}),
    ("a bit that is no point", bits(1, 40, 0xFFFE, 1), None, {"alone": [], "read-first": []}),
    ("the whole word, and a bit that no rule names", write(1, 40, 0x0058), None, {"alone": [3], "read-first": [3]}),
    ("half of a field", bits(1, 40, 0xFFEF, 0), None, {"alone": [], "read-first": []}),
    ("a field beyond its limit", bits(1, 40, 0xFF0F, 0x0060), None, {"alone": [], "read-first": []}),
    ("a field beyond its limit in the whole word", write(1, 40, 0x1060), None, {"alone": [3], "read-first": [3]}),
    ("the word with others", many(1, 39, 0, 0x1058), None, {"alone": [], "read-first": []}),
]  # fmt: skip


@pytest.fixture(scope="module")
def stages() -> dict[str, tuple[Stage, Plc]]:
    made: dict[str, tuple[Stage, Plc]] = {}
    for how in ("alone", "read-first"):
        stage = Stage(policy=policy(f"write_bits: {how}"))
        made[how] = stage, Plc(stage, masks=how == "alone")
    return made


@pytest.mark.parametrize("how", ["alone", "read-first"])
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_bits_of_a_word(
    how: str, case: tuple[str, bytes, int | None, dict[str, list[int]]], stages: dict[str, tuple[Stage, Plc]]
) -> None:
    _, question, left, asked = case
    stage, plc = stages[how]
    plc.registers[40], plc.asked = HELD, []
    stage.audit_pipe.drafts.clear()
    got = at(stage, plc, question)
    assert plc.asked == asked[how]
    if left is None:
        assert got[7] == question[7] | 0x80 and plc.registers[40] == HELD
        assert not stage.of(WriteAllowed)
        return
    assert got == (question[:5] + b"\x06" + question[6:12] if question[7] == 16 else question), "in the client's words"
    assert plc.registers[40] == left
    [allowed] = stage.of(WriteAllowed)
    assert not allowed.exact and allowed.points and [one.outcome for one in stage.of(WriteOutcome)] == ["done"]
    told = {one.point: one.value for one in allowed.points}
    assert told == {
        name: value for name, value in (("run", str(left >> 3 & 1)), ("mode", str(left >> 4 & 15))) if name in told
    }


def test_two_clients_never_tear_a_word_that_is_read_and_written_back() -> None:
    """Each sets a bit of its own; and one writes the whole of it by a raw range, in between."""
    stage = Stage(policy=policy("write_bits: read-first", write="run, other", more="write_registers: holding 40"))
    # run and other are also in the raw range here: all of the word may be written, and bits alone as well.
    plc = Plc(stage, masks=False)
    one, other, raw = stage.client(), stage.client(port=40001), stage.client(port=40002)
    one.on_data(bits(1, 40, 0xFFF7, 0x0008))
    other.on_data(bits(2, 40, 0xEFFF, 0x1000))
    raw.on_data(write(3, 40, 0x0101))
    other.on_data(bits(4, 40, 0xFFFE, 0))
    plc.serve()
    assert plc.registers[40] == 0x0100, "the last two: the whole word, then a bit of it"
    assert plc.asked == [3, 6, 3, 6, 3, 6, 3, 6], "each is made from what the one before it left"
    assert [len(client.take()) for client in (one, other, raw)] == [1, 2, 1]


def test_a_write_of_no_bit_counts_as_a_write_of_the_word() -> None:
    """By whom all of the word may be written: it was sent as often as asked."""
    text = POLICY.format(extra="connections: 1", write="run", more="write_registers: holding 40")
    text = text.replace("holding 40.3}", "holding 40.3, writes_per_minute: 2}")
    stage = Stage(policy=compile_policy(loads(text), now_ns=time.time_ns()))
    plc = Plc(stage)
    plc.registers[40] = HELD
    got = [at(stage, plc, bits(n, 40, 0xFFFF, 0xFFFF)) for n in (1, 2, 3)]
    assert got[:2] == [bits(n, 40, 0xFFFF, 0xFFFF) for n in (1, 2)], "in the client's words"
    assert got[2][7] == 22 | 0x80 and plc.asked == [22, 22] and plc.registers[40] == HELD
    assert at(stage, plc, bits(4, 40, 0xFFF7, 8))[7] == 22 | 0x80, "of which the point has had its share"


@pytest.mark.parametrize(
    ("question", "held"), [(write(1, 41, 2), 0), (many(1, 70, 5), 0), (write(1, 40, 0x1058), HELD)]
)
def test_what_was_judged_by_a_value_is_not_sent_when_that_is_old(question: bytes, held: int) -> None:
    """A device that closed behind the reading was left alone for 5 s, and then had a step, a scaled number, or the
    other bits of a word, from what it had held before."""
    stage = Stage(policy=policy("reconnect_delay: 5 s\n    wait: 20 s\n    write_bits: read-first"))
    stage.reactor.advance(0.01)
    client = stage.client()
    client.on_data(question)
    stage.cross()
    device = stage.up()
    stage.cross()
    [asked] = device.take()
    stage.reactor.advance(0.001)
    device.on_data(asked[:4] + adu(0, b"\x03\x02" + held.to_bytes(2, "big"))[4:])
    device.on_closed("closed by the peer")
    stage.cross()
    assert len(stage.of(WriteAllowed)) == 1 and not client.take()
    stage.reactor.advance(1.1)
    stage.cross()
    assert client.take() == [exception(1, question[7], 6)]
    assert [(one.outcome, one.detail) for one in stage.of(WriteOutcome)] == [
        ("not-sent", "waited too long for a place at the device")
    ]


def test_a_write_that_was_judged_by_a_power_of_ten_known_before_does_not_outlive_a_reconnect_delay() -> None:
    text = POLICY.format(extra="reconnect_delay: 5 s\n    wait: 20 s", write=WRITE, more="registers: holding 0-99")
    text += "limits: {known_value_seconds: 5}\n"
    stage = Stage(policy=compile_policy(loads(text), now_ns=time.time_ns()))
    plc = Plc(stage)
    at(stage, plc, read(1, 70, 2))
    assert plc.wire is not None
    plc.wire.on_closed("closed by the peer")
    client = stage.client()
    client.on_data(write(2, 70, 50))
    stage.cross()
    assert len(stage.of(WriteAllowed)) == 1 and not client.take()
    stage.reactor.advance(1.1)
    stage.cross()
    assert client.take() == [exception(2, 6, 6)]
    assert [one.outcome for one in stage.of(WriteOutcome)] == ["not-sent"]


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_bit_that_the_device_has_changed_is_written_all_the_same(seconds: int) -> None:
    """What was known of the word for a while said that the bit is as it is asked."""
    text = POLICY.format(extra="connections: 1", write=WRITE, more="registers: holding 0-99")
    text += f"limits: {{known_value_seconds: {seconds}}}\n"
    stage = Stage(policy=compile_policy(loads(text), now_ns=time.time_ns()))
    plc = Plc(stage)
    plc.registers[40] = HELD
    assert at(stage, plc, write(1, 40, 0x1058))[7] == 6 and plc.registers[40] == 0x1058
    assert at(stage, plc, read(2, 40, 1))[-2:] == b"\x10\x58", "which is known now"
    plc.registers[40] = HELD  # it has taken its command back
    assert at(stage, plc, write(3, 40, 0x1038))[7] == 6 and plc.registers[40] == 0x1038


def test_a_device_without_such_writes_says_so_to_the_client() -> None:
    stage = Stage(policy=policy())
    plc = Plc(stage, masks=False)
    assert at(stage, plc, write(7, 40, 8)) == exception(7, 6, 1)
    assert [(one.outcome, one.code) for one in stage.of(WriteOutcome)] == [("exception", 1)]


def test_steps_of_a_field_are_counted_from_what_it_is() -> None:
    stage = Stage(policy=policy())
    plc = Plc(stage)
    plc.registers[41] = 0xAB05
    assert at(stage, plc, bits(1, 41, 0xFF00, 7))[7] == 22 and plc.registers[41] == 0xAB07
    assert at(stage, plc, bits(1, 41, 0xFF00, 10)) == exception(1, 22, 3) and plc.registers[41] == 0xAB07
    assert at(stage, plc, write(1, 41, 0xAB09)) == write(1, 41, 0xAB09) and plc.registers[41] == 0xAB09


SCALED = [
    # power of ten that the device has, what is written, whether it is allowed
    (0, 100, True), (0, 101, False), (0, 0x10000 - 100, True), (0, 0x10000 - 101, False), (-2, 10000, True),
    (-2, 10001, False), (1, 10, True), (1, 11, False), (0x8000, 0, False), (11, 0, False),
]  # fmt: skip


def test_a_value_is_judged_with_the_factor_that_the_device_has_just_then() -> None:
    stage = Stage(policy=policy())
    plc = Plc(stage)
    for power, value, allowed in SCALED:
        plc.registers[70], plc.registers[71], plc.asked = 7, power & 0xFFFF, []
        got = at(stage, plc, write(1, 70, value))
        assert (got[7] == 6) is allowed, (power, value)
        assert plc.asked == ([3, 6] if allowed else [3])
        assert plc.registers[70] == (value if allowed else 7)
    plc.asked = []
    assert at(stage, plc, write(1, 72, 9))[7] == 6 and plc.asked == [6], "no limit, nothing to read"
    assert stage.of(WriteAllowed)[0].points[0].unit == "× 10^(holding 71) W"


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (write(1, 71, 4), False),
        (many(1, 70, 50, 3), False),
        (bits(1, 71, 0, 4), False),
        (many(1, 68, 1, 2, 3, 4), False),
        (write(1, 73, 4), True),  # of a point without limits
        (write(1, 74, 4), True),
    ],
)
def test_nobody_writes_the_factor_by_which_limits_are_judged(asked: bytes, allowed: bool) -> None:
    """Fifty that was allowed would be fifty thousand, whoever may write all registers."""
    stage = Stage(policy=policy(more="write_registers: holding 65-99"))
    plc = Plc(stage)
    got = at(stage, plc, asked)
    assert (got[7] < 0x80) is allowed
    assert plc.registers[70:72] == [0, 0] and bool(set(plc.asked) & {6, 16, 22}) is allowed


WHOLE = [
    # what is written from where on, whether it is allowed, what the log calls it
    (many(1, 50, 0x2359), True, ("clock", "2359")), (many(1, 50, 0x2360), False, None),
    (many(1, 50, 0x1A00), False, None),
    (many(1, 51, 0x5678, 0x1234), True, ("long", "12345678")), (many(1, 51, 0x567A, 0), False, None),
    (many(1, 60, 0x4261, 0x7463, 0x6820, 0), True, ("name", "Batch")),
    (many(1, 60, 0x4261, 0x7463, 0x6837, 0x3700), False, None),  # seven characters
    (many(1, 60, 0x4261, 0x7463, 0x6800, 0x3700), False, None),  # something behind the end
    (many(1, 60, 0x1B5B, 0, 0, 0), False, None),  # a terminal's escape
    (many(1, 60, 0x4261), False, None),  # a piece of it
    (many(1, 64, 0x4241, 0x0043), True, ("swap", "ABC")),
]  # fmt: skip


def test_texts_and_decimal_digits() -> None:
    stage = Stage(policy=policy())
    plc = Plc(stage)
    for question, allowed, told in WHOLE:
        stage.audit_pipe.drafts.clear()
        got = at(stage, plc, question)
        assert (got[7] == 16) is allowed, question.hex()
        if not allowed:
            assert got == exception(1, 16, 3)
        names = [(one.point, one.value) for entry in stage.of(WriteAllowed) for one in entry.points]
        assert names == ([told] if told else [])


def test_whatever_is_claimed_only_allowed_bits_change() -> None:
    """Operations as a hostile half may claim them, against what each would leave in the register."""
    dice = random.Random(5)
    for how in ("alone", "read-first"):
        compiled = policy(f"write_bits: {how}")
        flow = compiled.flow("modbus", "127.0.0.1", "plc", ("enterprise",))
        assert isinstance(flow, Flow)
        state, now, wall, allowed = PointState(compiled.assets), 10**9, time.time_ns(), 0
        for _ in range(3000):
            held, exact, now = dice.choice([0, 0xFFFF, HELD, dice.getrandbits(16)]), dice.random() < 0.5, now + 10
            if exact:
                some = [held, held ^ 8, held ^ 0x10, dice.getrandbits(16), -1, 70000]
                values = tuple(dice.choice(some) for _ in range(dice.choice([0, 1, 1, 1, 1, 2])))
            else:
                values = tuple(dice.choice([0xFFFF, 0xFFF7, 0xFF0F, dice.getrandbits(16)]) for _ in range(2))
            count = dice.choice([0, 1, 1, 1, 1, 2])
            op = Operation(
                6, -1, 1, True, (), (Change("holding", dice.choice([39, 40, 40, 40]), count, values, exact),)
            )
            found = flow.decide_full(op, wall, now, state)
            if isinstance(found, NeedValues):
                for span in found.spans:
                    state.note_values("plc", span.space, span.start, (held,), now + 1)
                found = flow.decide_full(op, wall, now + 2, state, now)
            if isinstance(found, Allow):
                assert isinstance(found, AllowBits)
                [change] = found.operation.writes
                assert isinstance(change, Change)
                left = (held & change.values[0]) | (change.values[1] & ~change.values[0])
                assert not (left ^ held) & ~0x00F8
                assert not exact or left == values[0], "what the client wrote is there"
                assert change.values[0] & 0xF0 or left >> 4 & 15 <= 5
                assert found.held == (held if how == "read-first" else -1)
                allowed += 1
        assert allowed > 300


EXPLAINED = [
    # what is asked, whether it is allowed, and words of the answer
    ("write run 1", True, ""), ("write other 1", False, "bit 12 of holding 40 is asked; allowed is"),
    ("write mode 6", False, "mode = 6 is asked; 5 or less"), ("write clock 2359", True, ""),
    ("write name Batch", True, ""), ("write name Batch77", False, "7 characters"), ("write holding 40 9", True, ""),
]  # fmt: skip


def test_questions_about_them() -> None:
    compiled = policy()
    asset = compiled.assets["plc"]
    flow = compiled.flow("modbus", "127.0.0.1", "plc", ("enterprise",))
    assert isinstance(flow, Flow)
    for text, allowed, words in EXPLAINED:
        verdict = flow.decide(operation(text, asset, MODBUS), time.time_ns())
        assert isinstance(verdict, Allow if allowed else Deny), (text, verdict)
        assert isinstance(verdict, Allow) or words in verdict.detail, verdict
    whole = operation("write holding 40 9", asset, MODBUS)
    assert flow.only_bits(whole, time.time_ns()) == "mode (bits 4-7 of holding 40), run (bit 3 of holding 40)"


WRONG = [
    ("run: {at: holding 40.16}", "bits from 0, the least significant one, to 15"),
    ("run: {at: holding 40.7-4}", 'did you mean "holding 40.4-7"'),
    ("run: {at: coil 40.1}", "bits of coil"),
    ("run: {at: holding 40.1, type: uint16}", "bool: it is a single bit"),
    ("run: {at: holding 40.0-3, max: 16}", "a value that it can hold (0 to 15)"),
    ("run: {at: holding 40.1, max_step: 1}", "max_step of a bit"),
    ("run: {at: holding 40-42, type: bcd}", "one cell, two or four"),
    ("run: {at: holding 40, type: bcd, max: 10000}", "0 to 9999"),
    ("run: {at: holding 40-41, type: text, max_length: 5}", "at most 4"),
    ("run: {at: holding 40-41, type: text, min: 5}", "min of a text"),
    ("run: {at: holding 40, type: int16, scale_from: coil 3}", "one word that can be read by itself"),
    ("run: {at: holding 40, type: int16, scale_from: holding 3, max_step: 3}", "max_step with scale_from"),
    ("run: {at: holding 40, type: float32, scale_from: holding 3}", "a whole number"),
    ("run: {at: holding 40, type: int16, byte_order: big, word_order: big}", "one of them"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "words"), WRONG)
def test_what_cannot_be_said(said: str, words: str) -> None:
    text = POLICY.format(extra="connections: 1", write="run", more="registers: holding 0-9")
    points = text[text.index("      run:") : text.index("principals:")]
    with pytest.raises(PolicyError) as caught:
        loads(text.replace(points, f"      {said}\n"))
    [problem] = caught.value.problems  # one, and no cascade
    assert words in str(problem)


def test_a_connection_is_kept_in_use() -> None:
    stage = Stage(policy=policy("keep_alive: 2 s, idle: 5 s".replace(", ", "\n    ")))
    plc = Plc(stage)
    at(stage, plc, read(1, 10))
    for _ in range(4):
        before = len(plc.asked)
        stage.reactor.advance(1.5)
        stage.inner.tick()
        plc.serve()
        assert len(plc.asked) == before
        stage.reactor.advance(0.6)
        stage.inner.tick()
        plc.serve()
        assert plc.asked[before:] == [3], "the gate's own read"
    assert len(stage.dials) == 1 and plc.wire is not None and not plc.wire.closed


def test_a_connection_is_not_kept_in_use_where_nobody_may_read() -> None:
    stage = Stage(policy=policy("keep_alive: 2 s\n    idle: 5 s"))
    plc = Plc(stage)
    at(stage, plc, read(1, 10))
    stage.wall_offset += 100 * 365 * 86_400 * 10**9
    for _ in range(6):
        stage.reactor.advance(1.1)
        stage.inner.tick()
        plc.serve()
    assert plc.asked == [3] and plc.wire is not None and plc.wire.closed


def test_every_wish_of_the_field_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wishes = Path(__file__).parents[3] / "shared/findings/field/policy_wishes.yaml"
    if not wishes.exists():
        pytest.skip("the field's wishes are not here")
    assert main(["check", str(wishes)]) == 0
    assert "21 assets" in capsys.readouterr().out
