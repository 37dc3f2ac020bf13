"""What one client may do to another: by what they share, by asking more, by leaving, by filling the log."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from cofferdam.audit.client import BATCH_BYTES, AuditClient
from cofferdam.audit.entry import MAX_BATCH_DRAFTS
from cofferdam.audit.events.access import LimitHit, Refused, WriteOutcome
from cofferdam.audit.events.log import NotRecorded
from cofferdam.audit.records import Batch, Hello, ToAuditor
from cofferdam.brokers.kit.limit_notes import NOTES
from cofferdam.crossing.framing import Assembler
from cofferdam.crossing.records import RecordCodec
from cofferdam.policy.points.decide import Flow
from tests.brokers.stage import AuditPipe, ManualReactor, Stage, Wire, answer, exception, read, write
from tests.brokers.test_adversary import SPEED, STEP, compiled, connected, leave, reload, run_device

# --- shared reads -------------------------------------------------------------------------------------------------


def test_a_reload_while_a_shared_read_is_under_way() -> None:
    stage = Stage(asset_extra="share_reads: 200 ms")
    first, second = stage.client(port=1), stage.client(port=2)
    device = connected(stage, first)
    stage.reactor.advance(1)
    first.on_data(read(5, 20, 2))
    second.on_data(read(6, 20, 2))
    stage.cross()
    [question] = device.take()
    reload(stage, stage.policy)
    device.on_data(answer(question, 1, 2))
    stage.cross()
    assert first.take() == [answer(read(5, 20, 2), 1, 2)]
    assert second.take() == [answer(read(6, 20, 2), 1, 2)]
    assert not first.closed and not second.closed
    assert (stage.inner.busy, stage.outer.busy) == (0, 0)


@pytest.mark.parametrize("then", ["", "share_reads: 50 ms", "share_reads: 200 ms\n    outstanding: 2"])
def test_a_reload_that_changes_sharing_answers_all_who_wait(then: str) -> None:
    stage = Stage(policy=compiled(asset_extra="share_reads: 200 ms"))
    first, second = stage.client(port=1), stage.client(port=2)
    device = connected(stage, first)
    stage.reactor.advance(1)
    first.on_data(read(5, 20, 2))
    second.on_data(read(6, 20, 2))
    stage.cross()
    [question] = device.take()
    reload(stage, compiled(asset_extra=then))
    if not device.closed:
        device.on_data(answer(question, 1, 2))
    run_device(stage)
    assert len(first.take()) == len(second.take()) == 1
    assert (stage.inner.busy, stage.outer.busy) == (0, 0)


def behind_another(asset_extra: str) -> tuple[Stage, Wire, Wire, Wire]:
    """Two clients, of whom the first has asked and waits behind a third; and the device."""
    stage = Stage(asset_extra=asset_extra)
    first, second, other = (stage.client(port=number) for number in range(3))
    device = connected(stage, first)
    stage.reactor.advance(1)
    other.on_data(read(1, 50, 1))
    first.on_data(read(2, 20, 2))
    return stage, first, second, device


def test_who_shares_a_question_that_its_asker_has_left() -> None:
    stage, first, second, device = behind_another("share_reads: 200 ms")
    second.on_data(read(3, 20, 2))
    stage.cross()
    leave(stage, first)
    [question] = device.take()
    device.on_data(answer(question, 1))
    stage.cross()
    assert [frame[9] for _, frame in run_device(stage, 7)] == [20]
    assert second.take() == [answer(read(3, 20, 2), 7, 7)]
    assert (stage.inner.busy, stage.outer.busy) == (0, 0)


def test_who_shares_a_question_and_has_left_himself_does_not_ask_again() -> None:
    stage, first, second, device = behind_another("share_reads: 200 ms")
    second.on_data(read(3, 20, 2))
    stage.cross()
    leave(stage, second)
    leave(stage, first)
    [question] = device.take()
    device.on_data(answer(question, 1))
    assert run_device(stage) == []
    assert (stage.inner.busy, stage.outer.busy) == (0, 0)


def test_who_shares_a_question_that_was_never_sent_asks_for_themselves() -> None:
    """They had just come, and were told that they had waited for too long: as whoever had asked first."""
    stage, first, second, device = behind_another("share_reads: 200 ms\n    wait: 300 ms")
    stage.cross()
    stage.reactor.advance(0.25)
    second.on_data(read(3, 20, 2))
    stage.cross()
    stage.reactor.advance(0.1)
    stage.cross()
    assert (first.take(), second.take()) == ([exception(2, 3, 6)], [])
    [question] = device.take()
    device.on_data(answer(question, 1))
    stage.cross()
    assert [frame[9] for _, frame in run_device(stage, 7)] == [20]
    assert second.take() == [answer(read(3, 20, 2), 7, 7)]
    assert (stage.inner.busy, stage.outer.busy) == (0, 0)


def test_nobody_shares_an_answer_older_than_the_policy_says() -> None:
    stage = Stage(asset_extra="share_reads: 200 ms\n    timeout: 5 s")
    first, second = stage.client(port=1), stage.client(port=2)
    device = connected(stage, first)
    stage.reactor.advance(1)
    first.on_data(read(2, 20, 1))
    stage.cross()
    [question] = device.take()
    stage.reactor.advance(3)
    second.on_data(read(3, 20, 1))
    stage.cross()
    device.on_data(answer(question, 1))
    stage.cross()
    assert second.take() == [], "the question left three seconds before it asked"
    assert [frame[9] for _, frame in run_device(stage, 2)] == [20]
    assert second.take() == [answer(read(3, 20, 1), 2)]


# --- time ---------------------------------------------------------------------------------------------------------


def test_each_of_two_assets_at_one_device_has_its_own_timeout() -> None:
    fast = (
        "principals:",
        "  fast: {zone: control, address: 127.0.0.1, port: 5020, protocol: modbus, unit: 2, timeout: 1 s, "
        'connections: 2, listen: "127.0.0.1:503"}\nprincipals:',
    )
    rule = ("limits:", "      - {who: tester, asset: fast, registers: [holding 0-99]}\nlimits:")
    stage = Stage(policy=compiled(fast, rule, asset_extra="timeout: 30 s\n    connections: 2"))
    patient, hasty = stage.client(port=1), Wire()
    stage.outer.accept(hasty, "127.0.0.1", 2, ("127.0.0.1", 503))
    connected(stage, patient)
    stage.reactor.advance(5)
    patient.on_data(read(1, 0, 1))
    stage.cross()
    hasty.on_data(read(2, 0, 1, unit=2))
    stage.cross()
    assert len(stage.devices) == 2
    stage.up()
    stage.reactor.advance(1.1)
    stage.cross()
    assert hasty.take() == [exception(2, 3, 0x0B, unit=2)]
    assert patient.take() == []


def test_a_client_whose_frames_overlap_segments_is_not_slow() -> None:
    """Each frame is complete within half a second, and another one has always begun."""
    stage = Stage(asset_extra="outstanding: 4")
    client = stage.client()
    device = connected(stage, client)
    frames = b"".join(read(number, 0, 1) for number in range(1, 60))
    client.on_data(frames[:6])
    for turn in range(20):
        client.on_data(frames[6 + 12 * turn : 18 + 12 * turn])
        stage.cross()
        for frame in device.take():
            device.on_data(answer(frame, 1))
        stage.cross()
        stage.reactor.advance(0.5)
        stage.outer.tick()
    assert not client.closed
    assert len(client.take()) == 20
    stage.reactor.advance(stage.policy.limits.client_frame_seconds)
    stage.outer.tick()
    assert client.closed, "the last one stays unfinished"


# --- places in line -------------------------------------------------------------------------------------------------


def test_one_reader_with_many_connections_does_not_keep_others_out() -> None:
    changes = (("addresses: [127.0.0.1]", 'addresses: ["127.0.0.1", "10.0.0.7"]'),)
    stage = Stage(policy=compiled(*changes, asset_extra="timeout: 10 s"))
    operator = stage.client("10.0.0.7")
    device = connected(stage, operator)
    readers = [stage.client(port=number) for number in range(20)]
    for reader in readers:
        reader.on_data(b"".join(read(number, number, 1) for number in range(1, 17)))
    stage.cross()
    assert stage.inner._devices["127.0.0.1", 5020, ""].queued(-1) == stage.policy.limits.asset_queue
    operator.on_data(write(9, SPEED, 10))
    operator.on_data(write(10, STEP, 10))  # for this one the gate has to read first
    stage.cross()
    assert operator.take() == [], "not turned away"
    order = []
    while frames := device.take():
        for frame in frames:
            order.append(frame)
            device.on_data(answer(frame, 10))
        stage.cross()
    assert operator.take() == [write(9, SPEED, 10), write(10, STEP, 10)]
    assert max(index for index, frame in enumerate(order) if frame[7] == 6) < 12, "and it waits for a turn, not for all"
    assert sum(len(reader.take()) for reader in readers) == 20 * 16, "each request is answered"
    assert (stage.inner.busy, stage.outer.busy) == (0, 0)


def test_when_all_places_are_taken_equals_are_served_alike() -> None:
    """Of two clients of one address the one with more waiting gives way, down to equal shares."""
    stage = Stage(asset_extra="timeout: 10 s", limits="asset_queue: 32, client_outstanding: 32")
    greedy, modest = stage.client(port=1), stage.client(port=2)
    connected(stage, modest)
    greedy.on_data(b"".join(read(number, 1, 1) for number in range(1, 33)))
    stage.cross()
    modest.on_data(b"".join(read(number, 2, 1) for number in range(1, 33)))
    stage.cross()
    served = [frame[9] for _, frame in run_device(stage)]
    assert 14 <= served.count(2) <= 18
    assert greedy.take() and modest.take()


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_outcome_of_a_write_is_recorded_though_the_auditor_is_slow() -> None:
    stage = Stage()
    client = stage.client()
    device = connected(stage, client)
    client.on_data(write(2, SPEED, 1400))
    stage.cross()
    [question] = device.take()
    stage.audit_pipe.backlog = stage.audit_pipe.backlog_limit + 1
    device.on_data(question)
    client.on_data(read(3, 300, 1))
    stage.cross()
    assert [entry.outcome for entry in stage.of(WriteOutcome)] == ["done"]
    assert stage.of(Refused) == [], "there was no room for this one"
    stage.audit_pipe.backlog = 0
    client.on_data(read(4, 300, 1))
    stage.cross()
    assert [(lost.count, lost.reason) for lost in stage.of(NotRecorded)] == [(1, "the auditor did not keep up")]
    assert len(stage.of(Refused)) == 1


class _Measured(AuditPipe):
    """Encodes what it is given, as a pipe to the auditor would."""

    def __init__(self) -> None:
        super().__init__()
        self.codec: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)
        self.sizes: list[int] = []

    def send(self, record: ToAuditor) -> None:
        self.sizes.append(len(self.codec.encode(record)))
        assert isinstance(record, Batch) and len(record.drafts) <= MAX_BATCH_DRAFTS
        super().send(record)


def test_a_batch_is_never_larger_than_its_channel() -> None:
    """Many connections, many refused writes of many registers, all in one turn."""
    stage = Stage()
    reactor, pipe = ManualReactor(), _Measured()
    audit = AuditClient(reactor, pipe, wait_seconds=1)
    audit.on_record(Hello(True))
    client = stage.client()
    client.on_data(b"\0\1\0\0\0\xcd\1\x10\xff\0\0\x63\xc6" + b"\xff" * 198)
    [refused] = stage.of(Refused)
    assert len(refused.values) == 99
    big = msgspec.structs.replace(refused, detail="x" * 512, is_write=False)
    answered: list[bool] = []
    for number in range(5000):
        audit.note(big)
        if number % 1000 == 0:
            audit.record(big, lambda ok, why: answered.append(ok))
    reactor.settle()
    assert sum(1 for draft in pipe.drafts) == 5005
    assert max(pipe.sizes) <= BATCH_BYTES + 4096
    assert len(pipe.unanswered) == 5, "each that wants an answer stands in a batch that gets one"


def test_every_connection_that_is_turned_away_is_counted() -> None:
    """By address while that is few, all others together, in an interval and not at once."""
    stage = Stage(limits="client_connections: 1, stranger_connections: 1")
    stage.client()
    for number in range(1000):
        stage.client(f"10.0.{number >> 8}.{number & 255}")
    told_at_once = len(stage.of(LimitHit))
    assert told_at_once <= NOTES + 4
    stage.reactor.advance(11)
    stage.outer.tick()
    hits = stage.of(LimitHit)
    assert len(hits) <= 2 * (NOTES + 4)
    assert sum(hit.count for hit in hits if hit.limit != "log_entries") == 1000


def test_an_idle_stranger_gives_his_place_up_and_keeps_nobody_out() -> None:
    stage = Stage()
    limits = stage.policy.limits
    strangers = [stage.client(f"10.6.{number}.1", number) for number in range(2 * limits.stranger_connections)]
    assert sum(not wire.closed for wire in strangers) == limits.stranger_connections
    known = stage.client()
    assert not known.closed
    stage.reactor.advance(limits.stranger_idle_seconds + 1)
    stage.outer.tick()
    assert all(wire.closed for wire in strangers)
    assert not known.closed
    assert isinstance(next(iter(stage.outer.clients)).sessions["plc"].flow, Flow)


def test_a_device_that_answers_twice_and_in_another_order() -> None:
    stage = Stage(asset_extra="outstanding: 2")
    first, second = stage.client(port=1), stage.client(port=2)
    device = connected(stage, first)
    first.on_data(read(1, 0, 1))
    second.on_data(read(1, 5, 1))
    stage.cross()
    one, two = device.take()
    device.on_data(answer(two, 55) + answer(two, 66) + answer(one, 11))
    stage.cross()
    assert first.take() == [answer(read(1, 0, 1), 11)]
    assert second.take() == [answer(read(1, 5, 1), 55)]


def test_reads_that_wait_are_sent_by_turns_of_addresses_not_of_connections() -> None:
    changes = (("addresses: [127.0.0.1]", 'addresses: ["127.0.0.1", "10.0.0.7"]'),)
    stage = Stage(policy=compiled(*changes, asset_extra="timeout: 10 s"))
    crowd = [stage.client(port=number) for number in range(10)]
    alone = stage.client("10.0.0.7")
    connected(stage, alone)
    for client in crowd:
        client.on_data(read(1, 1, 1) + read(2, 1, 1))
    alone.on_data(b"".join(read(number, 2, 1) for number in range(10)))
    served = [frame[9] for _, frame in run_device(stage)]
    assert served[:20].count(2) >= 9


# --- a half that was taken over, against the gate's memory -----------------------------------------------------------


def test_many_small_chunks_cost_no_more_memory_than_they_carry() -> None:
    limit = 1 << 16
    assembler = Assembler(limit)
    assembler.feed(b"\x01\x00\x06" + limit.to_bytes(4, "big") + b"xy")
    packet = b"\x02\x00\x02zz" * 100
    tracemalloc.start()
    try:
        for _ in range((limit - 8) // (2 * 100)):
            assert assembler.feed(packet) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * limit
