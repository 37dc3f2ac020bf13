"""Learning: the policy loads, allows all that was seen, and nothing beside it."""

from __future__ import annotations

import itertools
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.capture.conversation import Asked, Malformed, Note, Watcher
from cofferdam.capture.frames import address_text
from cofferdam.capture.learn import Learned, learn
from cofferdam.capture.reading import default_ports, follow, followed
from cofferdam.capture.simulate import Simulation, simulate
from cofferdam.capture.streams import TcpFlow
from cofferdam.errors import PolicyError
from cofferdam.model import Allow, Change, Deny, Fault, NeedValues, Operation, Span
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.registry import PROTOCOLS
from tests.capture.maker import T0, Connection, adu, pcap, read_answer, read_request, write_many, write_request
from tests.capture.traffic import Dialogue, capture, dialogues, policy, stream
from tests.examples import examples

CAPTURES = Path(__file__).parents[3] / "shared" / "captures" / "modbus"
PORTS = {1502: "modbus"}


class Collector(Watcher):
    """Keeps every request."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.bad = 0

    def asked(self, asked: Asked) -> None:
        self.requests.append(asked)

    def answered(self, asked: Asked, response: Any, time_ns: int) -> None:
        pass

    def malformed(self, malformed: Malformed) -> None:
        self.bad += 1

    def note(self, note: Note) -> None:
        pass

    def ended(self, flow: TcpFlow) -> None:
        pass


def requests(data: bytes) -> list[Asked]:
    collector = Collector()
    follow(stream(data), "test", collector, default_ports() | PORTS)
    return collector.requests


def learned(data: bytes, **options: Any) -> tuple[Learned, CompiledPolicy]:
    result = learn(stream(data), "test.pcap", ports=PORTS, **options)
    return result, policy(result.text)


def simulated(table: CompiledPolicy, data: bytes) -> Simulation:
    return simulate(table, stream(data), "test.pcap", ports=PORTS)


def verdict(table: CompiledPolicy, asked: Asked, op: Operation) -> Allow | Deny | NeedValues:
    """What the policy says to another operation of the same client on the same device."""
    server, port = address_text(asked.flow.server), asked.flow.server_port
    names = [a.name for a in table.assets.values() if (a.address, a.port, a.unit) == (server, port, op.unit)]
    if not names:
        return Deny("", "", Fault.ASSET, "no such asset")
    flow = table.flow(asked.protocol, address_text(asked.flow.client), names[0])
    if isinstance(flow, Deny):
        return flow
    return flow.decide_full(op, T0, T0, table.point_state())


def neighbours(everything: list[Asked]) -> list[tuple[Asked, Operation]]:
    """Operations next to what was seen, that were not seen: one cell more at each end of each range, another unit,
    another function, a value outside what was written."""

    def place(asked: Asked) -> tuple[bytes, bytes, int, int]:
        return asked.flow.client, asked.flow.server, asked.flow.server_port, asked.operation.unit

    read: set[tuple[object, ...]] = set()
    written: set[tuple[object, ...]] = set()
    values: dict[tuple[object, ...], tuple[int, int]] = {}
    inexact: set[tuple[object, ...]] = set()
    codes: set[tuple[object, ...]] = set()
    units: dict[tuple[bytes, int], set[int]] = {}
    for asked in everything:
        units.setdefault((asked.flow.server, asked.flow.server_port), set()).add(asked.operation.unit)
    for asked in everything:
        here, op = place(asked), asked.operation
        for span in op.reads:
            read |= {(*here, span.space, cell) for cell in range(span.start, span.stop)}
        for change in op.writes:
            assert isinstance(change, Change)
            written |= {(*here, change.space, cell) for cell in range(change.start, change.stop)}
            for offset in range(change.count):
                point = (*here[1:], change.space, change.start + offset)
                if not change.exact or ":" in change.space:
                    inexact.add(point)
                else:
                    value = change.values[offset]
                    low, high = values.get(point, (value, value))
                    values[point] = (min(low, value), max(high, value))
        if not op.writes and not op.reads:
            codes.add((*here, op.function, op.sub))
    found: list[tuple[Asked, Operation]] = []
    for asked in everything:
        here, op = place(asked), asked.operation
        for span in op.reads:
            for cell in (span.start - 1, span.stop):
                if 0 <= cell < 65536 and (*here, span.space, cell) not in read:
                    found.append((asked, Operation(op.function, op.sub, op.unit, False, (Span(span.space, cell, 1),))))
                    wide = Span(span.space, min(cell, span.start), span.count + 1)
                    found.append((asked, Operation(op.function, op.sub, op.unit, False, (wide,))))
        for change in op.writes:
            for cell in (change.start - 1, change.stop):
                if 0 <= cell < 65536 and (*here, change.space, cell) not in written:
                    beside = Change(change.space, cell, 1, (0,))
                    found.append((asked, Operation(op.function, op.sub, op.unit, True, (), (beside,))))
            point = (*here[1:], change.space, change.start)
            beside_all = units[asked.flow.server, asked.flow.server_port]
            if 0 in beside_all and len(beside_all) > 1:
                continue  # where a broadcast is written, no limit would hold, and none is proposed
            if point in values and point not in inexact:
                low, high = values[point]
                top = 1 if change.space == "coil" else 0xFFFF
                for value in {low - 1, high + 1} & set(range(top + 1)):
                    beside = Change(change.space, change.start, 1, (value,))
                    found.append((asked, Operation(6, -1, op.unit, True, (), (beside,))))
        for function, sub in ((7, -1), (8, 4), (8, 2), (17, -1)):
            if (*here, function, sub) not in codes:
                found.append((asked, Operation(function, sub, op.unit, sub == 4)))
        found.append((asked, Operation(op.function, op.sub, 99, op.is_write, op.reads, op.writes)))
    return found


@given(st.lists(dialogues(), min_size=1, max_size=4))
@examples(60)
def test_what_was_seen_is_allowed_and_what_lies_next_to_it_is_not(many: list[Dialogue]) -> None:
    data = capture(many)
    result, table = learned(data)
    count = sum(len(dialogue.exchanges) for dialogue in many)
    assert result.requests == count
    report = simulated(table, data)
    assert (report.allowed, report.requests) == (count, count)
    assert report.refused == report.malformed == report.depends == 0
    seen = requests(data)
    assert len(seen) == count
    for asked, op in neighbours(seen):
        assert isinstance(verdict(table, asked, op), Deny), op
    for asked, other in itertools.product(seen[:3], repeat=2):
        if asked.flow.client != other.flow.client:
            pairs = {(one.flow.client, one.flow.server, one.flow.server_port) for one in seen}
            if (other.flow.client, asked.flow.server, asked.flow.server_port) not in pairs:
                name = next(a.name for a in table.assets.values() if a.address == address_text(asked.flow.server)
                            and a.port == asked.flow.server_port and a.unit == asked.operation.unit)  # fmt: skip
                flow = table.flow("modbus", address_text(other.flow.client), name)
                assert isinstance(flow, Deny)


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures beside the checkout")
@pytest.mark.parametrize(
    ("name", "well_formed", "malformed"),
    [
        ("iti-modbustcp.pcap", 7990, 0),
        ("iti-quickdraw-part1.pcap", 16, 3),
        ("iti-quickdraw-part2.pcap", 16, 125),
        ("icsnpp-modbus-example.pcap", 22, 2),
    ],
)
def test_real_captures(name: str, well_formed: int, malformed: int) -> None:
    data = (CAPTURES / name).read_bytes()
    _, table = learned(data)
    report = simulated(table, data)
    assert (report.allowed, report.malformed) == (well_formed, malformed)
    assert report.refused == report.depends == 0
    for asked, op in neighbours(requests(data))[:4000]:
        assert isinstance(verdict(table, asked, op), Deny), op


def one_device() -> Connection:
    connection = Connection().open()
    connection.ask(read_request(1, 100, 3))
    connection.answer(read_answer(1, [1, 2, 3]))
    connection.ask(read_request(2, 103, 2))
    connection.answer(read_answer(2, [4, 5]))
    connection.ask(read_request(3, 110, 1))
    connection.answer(read_answer(3, [6]))
    for number, value in enumerate((900, 700, 1200), 4):
        connection.ask(write_request(number, 200, value))
        connection.answer(write_request(number, 200, value))
    connection.ask(adu(9, 1, b"\x2b\x0e\x01\x00"))
    connection.answer(adu(9, 1, b"\xab\x01"))
    return connection


def test_the_text_of_a_small_policy() -> None:
    result, table = learned(pcap(one_device().frames), site="works")
    assert "site: works" in result.text
    assert "holding-200: {at: holding 200, type: uint16, min: 700, max: 1200}   # written 3 times" in result.text
    assert "registers: [holding 100-104, holding 110]" in result.text
    assert "write: [holding-200]" in result.text
    assert 'functions: ["43/14"]' in result.text
    assert "# answered 1 of 7 requests with an error" in result.text
    assert (result.clients, result.assets, result.points) == (1, 1, 1)
    (conduit,) = table.conduits.values()
    assert conduit.owner == "filled-in: who answers for this"
    assert conduit.reason.startswith("filled-in: why ")
    with pytest.raises(PolicyError) as refused:  # nobody has said who answers for it
        loads(result.text)
    assert {problem.check for problem in refused.value.problems} == {"fill-in"}  # type: ignore[attr-defined]
    (asset,) = table.assets.values()
    assert (asset.address, asset.port, asset.unit) == ("10.20.0.17", 502, 1)


def test_networks_leave_out_what_is_no_traffic_between_the_sides() -> None:
    inside = Connection(client=("10.20.0.99", 40000)).open()
    inside.ask(read_request(1, 0, 1))
    data = pcap(one_device().frames + inside.frames)
    result, table = learned(data, it=[ip_network("10.1.0.0/16")], ot=[ip_network("10.20.0.0/16")])
    assert (result.requests, result.left_out) == (7, 1)
    assert "10.20.0.99" not in result.text
    assert [p.networks for p in table.principals.values()] == [("10.1.0.20/32",)]
    nothing = learn(stream(data), "test.pcap", ot=[ip_network("192.0.2.0/24")])
    assert (nothing.requests, nothing.left_out) == (0, 8)


def test_a_register_that_was_written_by_mask_gets_no_limit() -> None:
    connection = Connection().open()
    connection.ask(write_request(1, 5, 17))
    connection.ask(adu(2, 1, b"\x16\x00\x05\x00\xf2\x00\x25"))
    connection.ask(write_request(3, 6, 18))
    data = pcap(connection.frames)
    result, table = learned(data)
    assert "write_registers: [holding 5]" in result.text
    assert "write: [holding-6]" in result.text
    assert simulated(table, data).allowed == 3


def test_too_many_written_cells_become_ranges() -> None:
    connection = Connection().open()
    for number in range(3):
        connection.ask(write_many(number, 100 * number, [7] * 100))
    data = pcap(connection.frames)
    result, table = learned(data)
    assert result.points == 0
    assert "write_registers: [holding 0-299]" in result.text
    assert simulated(table, data).allowed == 3


def test_devices_that_never_answer_and_clients_that_are_servers_are_pointed_out() -> None:
    first = Connection().open()
    first.ask(read_request(1, 0, 1))
    second = Connection(client=("10.20.0.17", 41000), server=("10.20.0.30", 502)).open()
    second.ask(read_request(1, 0, 1))
    text = learned(pcap(first.frames + second.frames))[0].text
    assert text.count("never answered in the capture") == 2
    assert "this address is also a server" in text
    assert "this address is also a client" in text


def test_a_hostile_file_name_stays_in_its_comment() -> None:
    result = learn(stream(pcap(one_device().frames)), "x\nsite: evil\r\u2028zones: {}")
    policy(result.text)
    assert "\nsite: evil" not in result.text


def test_a_damaged_capture_says_so_in_the_policy() -> None:
    data = pcap(one_device().frames)
    result, _ = learned(data[:-30])
    assert result.reading.error
    assert "# NOT COMPLETE" in result.text


def test_no_protocol_is_without_a_view() -> None:
    assert followed().keys() == PROTOCOLS.keys()
