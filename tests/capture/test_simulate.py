"""Simulation: each request judged as the gate would, in whatever state the capture is."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.capture.simulate import Simulation, simulate
from tests.capture.maker import (
    ACK,
    FIN,
    SECOND,
    T0,
    Connection,
    Frame,
    adu,
    pcap,
    pcapng,
    read_answer,
    read_request,
    write_many,
    write_request,
)
from tests.capture.traffic import Dialogue, dialogues, frames, policy, stream
from tests.examples import examples

POLICY = """
site: test
zones:
  enterprise: {side: it}
  control: {side: ot}
assets:
  plc:
    zone: control
    address: 10.20.0.17
    protocol: modbus
    unit: 1
    listen: "100.64.0.17:5020"
    points:
      level: {at: holding 10, type: uint16}
      speed: {at: holding 200, type: uint16, min: 0, max: 1500, max_step: 100}
      valve: {at: coil 3, writes_per_minute: 2}
  drive:
    zone: control
    address: 10.20.0.17
    protocol: modbus
    unit: 2
principals:
  erp: {zone: enterprise, addresses: [10.1.0.0/24]}
conduits:
  all-day:
    from: enterprise
    to: control
    broker: modbus
    owner: tests
    reason: tests
    allow:
      - {who: erp, asset: plc, read: all, registers: [holding 0-99], write: [valve]}
      - {who: erp, asset: drive, registers: [input 0-9]}
  daytime:
    from: enterprise
    to: control
    broker: modbus
    owner: tests
    reason: tests
    expires: 2024-01-31
    window: {days: all, from: "20:00", to: "23:00", zone: UTC}
    allow:
      - {who: erp, asset: plc, write: [speed]}
"""
# T0 is 2023-11-14 22:13:20 UTC


def judge(frames: list[Frame], **options: Any) -> Simulation:
    return simulate(policy(POLICY), stream(pcap(frames, nano=True)), "test.pcap", **options)


def verdicts(report: Simulation) -> list[tuple[str, str, str, int]]:
    """(verdict, function, reason, count) of all groups."""
    return [(g.verdict, g.function, g.reason, g.count) for flow in report.flows for g in flow.groups]


def test_allowed_and_refused_by_flow_with_counts_and_places() -> None:
    connection = Connection().open()
    for number in range(3):
        connection.ask(read_request(number, 10 + number, 2))
    connection.ask(read_request(7, 90, 20))
    connection.ask(read_request(8, 0, 4, unit=2, function=4))
    connection.ask(read_request(9, 0, 4, unit=9))
    connection.ask(adu(10, 1, b"\x2b\x0e\x01\x00"))
    report = judge(connection.frames)
    assert (report.allowed, report.refused, report.malformed, report.depends) == (4, 3, 0, 0)
    plc, drive = report.flows
    assert (plc.asset, drive.asset) == ("plc", "drive")
    assert (plc.client, plc.server, plc.port) == ("10.1.0.20", "10.20.0.17", 502)
    first = plc.groups[0]
    assert (first.verdict, first.count, first.first_packet, first.reads) == ("allowed", 3, 4, ["holding 10-13"])
    assert (first.conduit, first.rule, first.name) == ("all-day", "all-day/0", "read holding registers")
    assert first.first_ns == connection.frames[3].time_ns
    assert [(g.function, g.reason) for g in plc.groups[1:]] == [("3", "address"), ("43/14", "function")]
    assert [(g.function, g.reason) for g in drive.groups] == [("4", ""), ("3", "unit")]
    assert "the nearest allowed is holding 0-99" in plc.groups[1].detail


def test_the_listen_address_is_the_asset_too_and_other_servers_are_unknown() -> None:
    listening = Connection(server=("100.64.0.17", 5020)).open()
    listening.ask(read_request(1, 10, 1))
    other = Connection(server=("10.20.0.99", 502)).open()
    other.ask(read_request(1, 10, 1))
    stranger = Connection(client=("192.0.2.5", 4000)).open()
    stranger.ask(read_request(1, 10, 1))
    report = judge(listening.frames + other.frames + stranger.frames)
    assert [flow.asset for flow in report.flows] == ["plc", "", "plc"]
    assert verdicts(report) == [("allowed", "3", "", 1), ("refused", "3", "asset", 1), ("refused", "3", "principal", 1)]
    assert "10.20.0.99:502 is asked; no asset" in report.flows[1].groups[0].detail


def test_windows_and_expiry_go_by_the_packets_or_by_another_time() -> None:
    connection = Connection().open()
    connection.ask(read_request(1, 200, 1))
    connection.answer(read_answer(1, [1000]))
    connection.ask(write_request(2, 200, 1050))
    connection.answer(write_request(2, 200, 1050))
    assert verdicts(judge(connection.frames))[1][:3] == ("allowed", "6", "")
    assert verdicts(judge(connection.frames, at_ns=T0 - 4 * 3600 * SECOND))[1][:3] == ("refused", "6", "window")
    assert verdicts(judge(connection.frames, at_ns=T0 + 100 * 86400 * SECOND))[1][:3] == ("refused", "6", "expired")


def test_steps_and_pace_are_judged_by_what_the_capture_shows() -> None:
    connection = Connection().open()
    connection.ask(write_request(1, 200, 700))  # nobody knows what it was
    connection.answer(write_request(1, 200, 700))
    connection.ask(write_request(2, 200, 790))  # 90 more than what was confirmed: needs the answer above
    connection.answer(write_request(2, 200, 790))
    connection.ask(write_request(3, 200, 1000))  # 210 more
    connection.answer(write_request(3, 200, 1000))
    connection.ask(read_request(4, 200, 1))
    connection.answer(read_answer(4, [1400]))
    connection.ask(write_request(5, 200, 1450))
    connection.ask(write_request(6, 200, 1600))
    for number in range(7, 10):
        connection.ask(write_request(number, 3, 0xFF00, function=5))
    report = judge(connection.frames)
    assert verdicts(report) == [
        ("depends", "6", "step", 1),
        ("allowed", "6", "", 2),
        ("refused", "6", "step", 1),
        ("allowed", "3", "", 1),
        ("refused", "6", "value", 1),
        ("allowed", "5", "", 2),
        ("refused", "5", "rate", 1),
    ]


def test_malformed_requests_name_the_section_and_the_stream_goes_on() -> None:
    connection = Connection().open()
    connection.ask(read_request(1, 0, 200))
    connection.ask(adu(2, 1, b"\x09"))
    connection.ask(read_request(3, 10, 1))
    connection.ask(b"\0\x04\0\x07\0\x06\x01\x03\0\x0a\0\x01")  # protocol id 7: closes
    connection.ask(read_request(5, 11, 1))
    report = judge(connection.frames)
    assert (report.allowed, report.malformed) == (2, 3)
    bad = [g for flow in report.flows for g in flow.groups if g.verdict == "malformed"]
    assert [(g.function, g.first_packet) for g in bad] == [("3", 4), ("9", 5), ("", 7)]
    assert "6.3" in bad[0].reason
    assert "protocol id" in bad[2].detail.lower()
    assert report.links[0].skipped_bytes == 12


def test_an_id_in_use_is_what_the_gate_says_it_is() -> None:
    """Two requests with one id before an answer: the gate has the second wait. It is judged all the same."""
    connection = Connection().open()
    connection.ask(read_request(1, 10, 1))
    connection.answer(read_answer(1, [1]))
    connection.ask(read_request(1, 10, 1))
    connection.time_ns += 2 * SECOND
    connection.ask(read_request(1, 10, 1))
    connection.ask(read_request(1, 11, 1))
    report = judge(connection.frames)
    assert (report.allowed, report.malformed) == (4, 0)
    one_sided = [frame for frame in connection.frames if int.from_bytes(frame.data[34:36], "big") == 40000]
    assert judge(one_sided).allowed == 4


def test_a_capture_that_starts_in_the_middle_finds_its_way() -> None:
    whole = b"".join(read_request(n, 10, 1) for n in range(6))
    connection = Connection()
    connection.ask(whole[5:40])
    connection.ask(whole[40:])
    report = judge(connection.frames)
    assert report.allowed == 5
    assert report.links[0].skipped_bytes == 7
    assert report.links[0].mid_stream == 1
    (remark,) = report.remarks
    assert (remark.kind, remark.packet) == ("skipped", 1)
    assert remark.text.startswith("7 bytes of the client")


def test_after_a_hole_it_finds_its_way_and_says_what_is_missing() -> None:
    connection = Connection().open()
    frames = [connection.ask(read_request(n, 10, 1)[:]) for n in range(6)]
    del connection.frames[connection.frames.index(frames[2])]
    halves = Connection(client=("10.1.0.21", 40000)).open()
    halves.ask(read_request(1, 10, 1) + read_request(2, 10, 1)[:7])
    lost = halves.ask(read_request(2, 10, 1)[7:] + read_request(3, 10, 1)[:4])
    halves.ask(read_request(3, 10, 1)[4:] + read_request(4, 10, 1))
    halves.frames.remove(lost)
    report = judge(connection.frames + halves.frames)
    assert report.allowed == 5 + 2
    assert [(link.gaps, link.gap_bytes, link.skipped_bytes) for link in report.links] == [(1, 12, 0), (1, 9, 15)]


def test_a_frame_cut_off_by_the_snap_length_costs_only_itself() -> None:
    connection = Connection().open()
    for number in range(3):
        connection.ask(read_request(number, 10, 1))
    frame = connection.frames[4]
    frame.wire, frame.data = len(frame.data), frame.data[:58]
    report = judge(connection.frames)
    assert report.allowed == 2
    assert report.links[0].gap_bytes == 8


def test_pcapng_gives_the_same() -> None:
    connection = Connection().open()
    connection.ask(read_request(1, 10, 1) + read_request(2, 150, 1))
    first = judge(connection.frames)
    second = simulate(policy(POLICY), stream(pcapng(connection.frames)), "test.pcap")
    assert (first.flows, first.links) == (second.flows, second.links)
    assert summary(first)


def test_a_broken_capture_reports_what_was_read() -> None:
    connection = Connection().open()
    connection.ask(read_request(1, 10, 1))
    connection.ask(read_request(2, 11, 1))
    data = pcap(connection.frames)
    report = simulate(policy(POLICY), stream(data[:-5]), "test.pcap")
    assert report.allowed == 1
    assert report.reading.packets == 4
    assert "cut off in the packet 5 at byte" in report.reading.error


def test_more_kinds_than_lines_are_counted() -> None:
    from cofferdam.capture.limits import CaptureLimits

    connection = Connection().open()
    for unit in range(1, 9):
        connection.ask(read_request(unit, 10, 1, unit=unit))
    report = judge(connection.frames, limits=CaptureLimits(groups=3))
    assert report.requests == 8
    assert report.groups_left_out == 5


def test_many_ranges_are_joined_and_say_so() -> None:
    connection = Connection().open()
    for at in range(100):
        connection.ask(read_request(at, 1000 + 5 * at, 1))
    (group,) = judge(connection.frames).flows[0].groups
    assert len(group.reads) == 64
    assert group.cells_joined


@given(dialogues(), st.randoms(use_true_random=False), st.lists(st.integers(1, 30), min_size=1, max_size=10))
@examples(60)
def test_any_cut_order_and_repetition_gives_the_same_requests(
    dialogue: Dialogue, chance: random.Random, sizes: list[int]
) -> None:
    """The same byte streams, cut into other segments, shuffled a little, some sent twice."""
    expected = judge(frames(dialogue), ports={1502: "modbus"})
    connection = Connection((dialogue.client, 40000), (dialogue.server, dialogue.port)).open()
    for number, exchange in enumerate(dialogue.exchanges):
        for from_client, pdu in ((True, exchange.request), (False, exchange.answer)):
            if not from_client and not dialogue.answered:
                continue
            data, at = adu(number, exchange.unit, pdu), 0
            while at < len(data):
                size = sizes[chance.randrange(len(sizes))]
                connection.packet(from_client, ACK, data[at : at + size])
                at += size
    body: list[Frame] = []
    for frame in connection.frames[3:]:
        body += [frame] * chance.choice([1, 1, 1, 2])
    for at in range(len(body) - 1):
        if chance.random() < 0.3:
            body[at], body[at + 1] = body[at + 1], body[at]
    times = sorted(frame.time_ns for frame in body)
    body = [dataclasses.replace(frame, time_ns=time) for frame, time in zip(body, times, strict=True)]
    found = judge(connection.frames[:3] + body, ports={1502: "modbus"})
    assert summary(found) == summary(expected)
    assert found.links[0].gaps == found.links[0].skipped_bytes == found.links[0].inconsistent == 0


def summary(report: Simulation) -> list[tuple[object, ...]]:
    """What was judged, and how; where and when left out."""
    return sorted(
        (f.client, f.server, f.port, f.asset, g.verdict, g.function, g.unit, g.count, g.rule, g.reason, *g.reads, *g.writes)  # noqa: E501
        for f in report.flows
        for g in f.groups
    )  # fmt: skip


@pytest.mark.parametrize("closing", [FIN | ACK, ACK])
def test_a_request_in_pieces_over_the_end_is_counted_as_skipped(closing: int) -> None:
    connection = Connection().open()
    connection.ask(write_many(1, 10, [1, 2, 3])[:9])
    connection.packet(True, closing)
    report = judge(connection.frames)
    assert report.requests == 0
    assert report.links[0].skipped_bytes == 9
