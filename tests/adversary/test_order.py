"""Requests of one session reach its device in the order in which they came, whatever waits on the way; nobody waits for
ever, whoever else writes; and a unit that is dead costs its neighbours little. Devices here record what reaches them.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.events.access import (
    LimitHit,
    ReadsCounted,
    Refused,
    RefusedMany,
    SessionClosed,
    SessionOpened,
    WriteOutcome,
)
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from tests.brokers.harness import POLICY, QUICK
from tests.brokers.stage import WALL, Stage, Wire, answer, exception, read, write
from tests.brokers.test_adversary import SPEED, STEP, compiled, connected, learn

OPERATORS = ("addresses: [127.0.0.1]", 'addresses: ["127.0.0.1", "10.0.0.0/8"]')


class Plant:
    """Registers behind every connection that the gate makes; `reached` has each request in the order in which it left,
    which is that of arrival at a device with one connection or several."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.cells: dict[int, int] = {}
        self.reached: list[tuple[int, int, int]] = []  # function, register, value or count
        self.dead: set[int] = set()

    def turn(self) -> bool:
        """Answers what has come; False if nothing has."""
        self.stage.cross()
        for device in self.stage.devices:
            up, device.on_connected = device.on_connected, None
            if up is not None and not device.closed:
                up()
                return True
        frames = [(device, frame) for device in self.stage.devices for frame in device.take()]
        for _, frame in frames:
            function, register, value = (
                frame[7],
                int.from_bytes(frame[8:10], "big"),
                int.from_bytes(frame[10:12], "big"),
            )
            self.reached.append((function, register, value))
            if function == 6:
                self.cells[register] = value
        for device, frame in frames:
            if frame[6] not in self.dead:
                register, count = int.from_bytes(frame[8:10], "big"), int.from_bytes(frame[10:12], "big")
                device.on_data(answer(frame, *(self.cells.get(register + n, 0) for n in range(count))))
        self.stage.cross()
        return bool(frames)

    def run(self) -> None:
        while self.turn():
            pass


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["read", "write", "step"])), min_size=1, max_size=14),
    st.integers(1, 3), st.integers(1, 4), st.booleans(),
)  # fmt: skip
def test_each_session_is_served_in_its_order(
    asked: list[tuple[int, str]], connections: int, outstanding: int, auto: bool
) -> None:
    """With waits for the disk, parked steps and several connections: what reaches the device of a session is in its
    order, and a read behind a write sees it."""
    extra = f"connections: {connections}\n    outstanding: {outstanding}"
    stage = Stage(policy=compiled(OPERATORS, asset_extra=extra), auto=auto)
    plant = Plant(stage)
    clients = [stage.client(f"10.0.0.{n}", 40000 + n) for n in range(3)]
    sent: list[list[tuple[int, int, int]]] = [[], [], []]
    for number, (who, kind) in enumerate(asked, 1):
        # Cells of its own, but for the point with a step, which all share.
        if kind == "step":
            frame, told = write(number, STEP, 50 + number), (6, STEP, 50 + number)
        elif kind == "write":
            frame, told = write(number, SPEED, 100 * (who + 1) + number), (6, SPEED, 100 * (who + 1) + number)
        else:
            frame, told = read(number, 10 * who, number), (3, 10 * who, number)
        sent[who].append(told)
        clients[who].on_data(frame)
        if number % 3 == 0:
            plant.turn()
    for _ in range(40):
        plant.run()
        if stage.audit_pipe.unanswered:
            stage.acknowledge()
    for own in sent:
        found = [one for one in plant.reached if one in own]
        assert found == [one for one in own if one in found], "another order"
        # What the gate asks for itself (a step's present value) is not theirs.
        assert len(found) == len(own) or any(function == 6 and place == STEP for function, place, _ in own)


def test_a_read_behind_a_write_waits_for_it() -> None:
    stage = Stage(auto=False, asset_extra="connections: 2")
    plant = Plant(stage)
    client, other = stage.client(port=1), stage.client(port=2)
    client.on_data(write(1, SPEED, 700) + read(2, SPEED, 1))
    other.on_data(read(9, 1, 1))
    plant.run()
    assert [function for function, _, _ in plant.reached] == [3], "another session does not wait"
    assert client.take() == []
    stage.acknowledge()
    plant.run()
    assert client.take() == [write(1, SPEED, 700), answer(read(2, SPEED, 1), 700)]


def test_what_is_behind_a_parked_write_is_sent_behind_it() -> None:
    """Start before setpoint would be a hazard."""
    stage = Stage()
    plant = Plant(stage)
    plant.cells[STEP] = 890
    client = stage.client()
    client.on_data(write(1, STEP, 900) + write(2, SPEED, 1))
    plant.run()
    assert [one for one in plant.reached if one[0] == 6] == [(6, STEP, 900), (6, SPEED, 1)]


def test_a_request_that_waits_has_a_deadline_of_its_own() -> None:
    stage = Stage(auto=False)
    client = stage.client()
    connected(stage, client)
    client.on_data(write(1, SPEED, 700) + read(2, SPEED, 1))
    stage.cross()
    stage.reactor.advance(1.1)
    stage.cross()
    assert client.take() == [exception(2, 3, 0x06)]


def test_a_stepped_write_is_served_while_others_write_without_end() -> None:
    """H7: one write of somebody else is always under way, to other cells."""
    stage = Stage(policy=compiled(OPERATORS), auto=False)
    plant = Plant(stage)
    busy, operator = stage.client("10.0.0.1", 1), stage.client("10.0.0.2", 2)
    plant.cells[STEP] = 500
    for number in range(1, 60):
        busy.on_data(write(number, SPEED, number))
        if number == 10:
            operator.on_data(write(1, STEP, 520))
        plant.turn()
        if number % 3 == 0 and stage.audit_pipe.unanswered:
            # All but the newest: another one is under way at every moment.
            stage.audit_pipe.unanswered, newest = stage.audit_pipe.unanswered[-1:], stage.audit_pipe.unanswered[:-1]
            for batch in newest:
                stage.audit_pipe.unanswered.append(batch)
            stage.acknowledge()
    plant.run()
    assert (6, STEP, 520) in plant.reached
    assert operator.take() == [write(1, STEP, 520)]


def test_a_parked_write_is_answered_in_time_though_its_point_stays_in_doubt() -> None:
    stage = Stage(policy=compiled(OPERATORS), auto=False)
    first, second = stage.client("10.0.0.1", 1), stage.client("10.0.0.2", 2)
    device = connected(stage, first)
    learn(stage, first, device, 500)
    first.on_data(write(5, STEP, 510))  # its entry never comes back
    stage.cross()
    second.on_data(write(1, STEP, 520))
    stage.cross()
    assert second.take() == []
    stage.reactor.advance(1.01)
    stage.cross()
    assert second.take() == [exception(1, 6, 0x06)]
    [refused] = stage.of(Refused)
    assert (refused.fault, refused.is_write, refused.values) == ("busy", True, (520,))


# --- every attempt is on record -----------------------------------------------------------------------------------


def test_harmless_refusals_do_not_hide_a_refused_write() -> None:
    """H8: 25 refused reads, then a refused write, by one session; and the same by many connections."""
    stage = Stage()
    for port in range(1, 9):
        client = stage.client(port=port)
        for number in range(30):
            client.on_data(read(number + 1, 5000))
        client.on_data(write(99, SPEED, 31337))
        client.on_closed("gone")
        stage.cross()
    found = [entry for entry in stage.of(Refused) if entry.is_write]
    assert [entry.values for entry in found] == [(31337,)] * 8
    assert all(entry.principals == ("tester",) for entry in found)


@given(st.lists(st.integers(1501, 65535), min_size=1, max_size=300))
def test_of_many_refused_writes_none_is_without_a_trace(values: list[int]) -> None:
    stage = Stage()
    clients = [stage.client(port=port) for port in range(1, 4)]
    for number, value in enumerate(values):
        clients[number % 3].on_data(write(number % 60000 + 1, SPEED, value))
    for client in clients:
        client.on_closed("gone")
    stage.cross()
    stage.outer.end()
    alone = [entry.values[0] for entry in stage.of(Refused)]
    many = [entry for entry in stage.of(RefusedMany) if entry.is_write]
    assert len(alone) + sum(entry.count for entry in many) == len(values)
    for value in set(values) - set(alone):
        assert any(entry.least <= value <= entry.greatest for entry in many)
    for entry in many:
        assert entry.principals == ("tester",) and entry.asset == "plc" and 0 < entry.from_ns <= entry.to_ns
        assert [(span.space, span.start, span.count) for span in entry.spans] == [("holding", SPEED, 1)]


@pytest.mark.parametrize("how", ["the value cannot be read", "it waited too long at the gate"])
def test_a_write_that_is_turned_away_has_an_entry(how: str) -> None:
    stage = Stage(limits="client_wait_seconds: 0.1, client_outstanding: 1")
    client = stage.client()
    device = connected(stage, client)
    if "read" in how:
        client.on_data(write(2, STEP, 10))
        stage.cross()
        device.on_data(exception(int.from_bytes(device.take()[0][:2], "big"), 3, 0x0B))
    else:
        client.on_data(read(2, 1, 1))
        client.arrive(write(3, SPEED, 10))
        stage.cross()
        stage.reactor.advance(0.9)
        device.on_data(answer(device.take()[0], 0))
    stage.cross()
    [refused] = stage.of(Refused)
    assert refused.is_write and refused.fault == "busy" and refused.values == (10,)
    client.on_closed("gone")
    stage.cross()
    assert [entry.writes for entry in stage.of(SessionClosed)] == [0]


def test_writes_are_counted_when_they_are_done() -> None:
    stage = Stage()
    plant = Plant(stage)
    client = stage.client()
    client.on_data(write(1, SPEED, 10) + write(2, SPEED, 9999))
    plant.run()
    client.on_closed("gone")
    stage.cross()
    [closed] = stage.of(SessionClosed)
    assert (closed.writes, closed.refused) == (1, 1)


def test_a_write_that_may_have_been_done_is_never_told_as_not_done() -> None:
    """M3: its connection is lost, or a side is severed, while the device works."""
    for end in ("lost", "severed"):
        stage = Stage()
        client = stage.client()
        device = connected(stage, client)
        client.on_data(write(2, SPEED, 10))
        stage.cross()
        assert len(device.take()) == 1
        if end == "lost":
            device.on_closed("reset")
        else:
            stage.inner.set_severed({"ot"})
        stage.cross()
        assert client.take() == [exception(2, 6, 0x0B)]
        assert [entry.outcome for entry in stage.of(WriteOutcome)] == ["unknown"]


def test_evidence_names_the_conduit_that_allowed_it() -> None:
    """M4: the first conduit of the flow has expired."""
    policy = compiled(
        ("conduits:\n", "conduits:\n  a-old: {from: enterprise, to: control, broker: modbus, owner: o, reason: r, "
         "expires: 2020-01-01, allow: [{who: tester, asset: plc, registers: [holding 0-99]}]}\n"),
    )  # fmt: skip
    stage = Stage(policy=policy)
    plant = Plant(stage)
    client = stage.client()
    client.on_data(read(1, 1, 1))
    plant.run()
    client.on_closed("gone")
    stage.cross()
    assert [(entry.conduit, entry.reads) for entry in stage.of(ReadsCounted)] == [("main", 1)]


# --- a dead unit ---------------------------------------------------------------------------------------------------


GATEWAY = """
site: s
zones: {enterprise: {side: it}, control: {side: ot}}
assets:
%s
principals:
  erp: {zone: enterprise, addresses: [10.0.0.0/24]}
  operator: {zone: enterprise, addresses: [10.0.1.1]}
conduits:
  reads: {from: enterprise, to: control, broker: modbus, owner: o, reason: r,
    allow: [{who: [erp, operator], asset: [%s], registers: [holding 0-99, input 0-9],
      write_registers: [holding 0-99]}]}
limits: {client_requests_burst: 4000, client_connections: 12, client_connections_per_address: 3}
"""


def gateway(units: int) -> CompiledPolicy:
    names = [f"u{n}" for n in range(1, units + 1)]
    assets = "\n".join(
        f'  {name}: {{zone: control, address: 10.9.9.9, protocol: modbus, unit: {n}, listen: "127.0.0.1:502"}}'
        for n, name in enumerate(names, 1)
    )
    return compile_policy(loads(GATEWAY % (assets, ", ".join(names))), now_ns=WALL)


def poll(stage: Stage, plant: Plant, live: Wire, pollers: list[Wire], seconds: float) -> int:
    """One round after the other, 50 ms each: how many of the live unit's requests were answered well in time."""
    good = 0
    for number in range(int(seconds / 0.05)):
        for poller in pollers:
            if poller.take() or number == 0:
                poller.on_data(read(number % 60000 + 1, 0, 1, unit=2))
        live.on_data(read(number % 60000 + 1, 0, 1, unit=1))
        plant.run()
        stage.reactor.advance(0.05)
        plant.run()
        good += any(frame[7] == 3 for frame in live.take())
    return good


def test_a_dead_unit_leaves_its_neighbours_nine_tenths_of_the_line() -> None:
    """H11: five hosts that poll a unit that is switched off."""
    stage = Stage(policy=gateway(2))
    plant = Plant(stage)
    plant.dead = {2}
    live = stage.client("10.0.1.1")
    pollers = [stage.client(f"10.0.0.{n}") for n in range(1, 6)]
    poll(stage, plant, live, pollers, 3.0)
    assert poll(stage, plant, live, pollers, 60.0) >= 0.9 * 1200
    plant.dead = set()
    stage.reactor.advance(15)
    pollers[0].take()
    pollers[0].on_data(read(7, 0, 1, unit=2))
    plant.run()
    assert pollers[0].take()[-1][7] == 3, "it is served again when it is there again"


def test_a_gateway_that_answers_for_a_dead_unit_is_asked_as_sparingly() -> None:
    """It waits for the unit itself, half a second, and says 0x0B: the line is busy all the same."""
    stage = Stage(policy=gateway(2))
    live = stage.client("10.0.1.1")
    pollers = [stage.client(f"10.0.0.{n}") for n in range(1, 6)]
    good, busy_until, number, last = 0, 0.0, 0, -1
    waiting: dict[float, tuple[Wire, bytes]] = {}
    while stage.reactor.now < 64e9:
        number += 1
        if number % 5 == 0:  # the live unit is polled every 50 ms, and wants its answer by then
            last = number % 60000 + 1
            live.on_data(read(last, 0, 1, unit=1))
        for poller in pollers:
            if poller.take() or number == 1:
                poller.on_data(read(number % 60000 + 1, 0, 1, unit=2))
        stage.cross()
        for device in stage.devices:
            up, device.on_connected = device.on_connected, None
            if up is not None:
                up()
                stage.cross()
            for frame in device.take():  # one after the other, as on a serial line
                busy_until = max(busy_until, stage.reactor.now / 1e9) + (0.5 if frame[6] == 2 else 0.005)
                waiting[busy_until] = (device, frame)
        stage.reactor.advance(0.01)
        for at in sorted(waiting):
            if at <= stage.reactor.now / 1e9:
                device, frame = waiting.pop(at)
                number_asked = int.from_bytes(frame[:2], "big")
                device.on_data(exception(number_asked, 3, 0x0B, 2) if frame[6] == 2 else answer(frame, 7))
                stage.cross()
        settled = stage.reactor.now > 4e9  # it has been found out
        good += settled and any(frame[7] == 3 and int.from_bytes(frame[:2], "big") == last for frame in live.take())
    assert good >= 0.9 * 1200
    figures = stage.inner.figures()
    asked = figures["requests"]
    assert isinstance(asked, dict) and int(asked["u2"]) < 40 < int(asked["u1"])  # type: ignore[arg-type]


def test_nobody_silences_a_unit_for_others_by_what_it_does_not_answer() -> None:
    """One principal asks a unit without end for what it does not answer; others go on being served."""
    stage = Stage(policy=gateway(2))
    plant = Plant(stage)
    hostile, good, late = stage.client("10.0.0.1"), stage.client("10.0.1.1"), stage.client("10.0.1.1", 2)

    def turn(number: int, who: Wire) -> bool:
        """What one round brings: the unit answers all but function 4."""
        hostile.take()
        hostile.on_data(read(number % 60000 + 1, 0, 1, unit=2, function=4))
        who.on_data(read(number % 60000 + 1, 0, 1, unit=2))
        for _ in range(6):
            stage.cross()
            for device in stage.devices:
                up, device.on_connected = device.on_connected, None
                if up is not None:
                    up()
                    stage.cross()
                for frame in device.take():
                    stage.reactor.advance(0.02)
                    refused = exception(int.from_bytes(frame[:2], "big"), 4, 0x0B, 2)
                    device.on_data(refused if frame[7] == 4 else answer(frame, 7))
        stage.reactor.advance(0.05)
        return any(frame[7] == 3 for frame in who.take())

    assert sum(turn(number, good) for number in range(200)) >= 195
    figures = stage.inner.figures()["requests"]
    assert isinstance(figures, dict)
    before = int(figures["u2"])  # type: ignore[arg-type]
    assert before < 200 + 60, "and what it asks in vain is spared"
    assert sum(turn(number, late) for number in range(200, 250)) >= 45
    assert not plant.reached


def test_units_of_one_line_are_told_apart() -> None:
    """One that is dead is silent, with the requests that were its; the others are neither."""
    stage = Stage(policy=gateway(3))
    plant = Plant(stage)
    plant.dead = {2}
    client = stage.client("10.0.0.1")
    for number in range(3):
        client.on_data(read(number + 1, 0, 1, unit=1) + read(number + 11, 0, 1, unit=2))
        plant.run()
        stage.reactor.advance(1.01)
        plant.run()
    told = {one.asset: one.state for one in stage.inner.assets()}
    assert told == {"u1": "up", "u2": "silent", "u3": "up"}
    figures = stage.inner.figures()
    assert figures["requests"] == {"u1": 3, "u2": 2, "u3": 0}
    assert figures["failures"] == {"u1": 0, "u2": 3, "u3": 0}
    plant.dead = set()
    stage.reactor.advance(15)
    client.on_data(read(99, 0, 1, unit=2))
    plant.run()
    assert {one.asset: one.state for one in stage.inner.assets()} == {"u1": "up", "u2": "up", "u3": "up"}


def test_requests_to_a_silent_unit_are_answered_at_once() -> None:
    stage = Stage(policy=gateway(2))
    plant = Plant(stage)
    plant.dead = {2}
    client = stage.client("10.0.0.1")
    for number in (1, 2):
        client.on_data(read(number, 0, 1, unit=2))
        plant.run()
        stage.reactor.advance(1.01)
        plant.run()
    client.take()
    client.on_data(read(3, 0, 1, unit=2) + write(4, 1, 5, unit=2))
    plant.run()
    assert client.take() == [exception(3, 3, 0x0B, 2), exception(4, 6, 0x0B, 2)]
    assert [entry.outcome for entry in stage.of(WriteOutcome)] == ["not-sent"]


# --- places ---------------------------------------------------------------------------------------------------------


def test_no_principal_keeps_another_out() -> None:
    """H10: many addresses of one principal take all places."""
    stage = Stage(policy=gateway(1))
    crowd = [stage.client(f"10.0.0.{n}", n) for n in range(1, 13)]
    assert not any(client.closed for client in crowd)
    operator = stage.client("10.0.1.1")
    assert not operator.closed
    assert sum(client.closed for client in crowd) == 1
    assert list(stage.outer.alarms()) == ["connections-full"]
    late = stage.client("10.0.0.99", 99)
    assert late.closed and not operator.closed


def test_a_network_of_ipv6_is_one_source() -> None:
    """M13: whoever has a network of 64 bits has 2^64 addresses, and no more places and entries than one host."""
    text = POLICY.format(device_port=5020, port=502, asset_extra="", conduit_extra="", limits=QUICK, reads="allow",
                         registers="0-99").replace("addresses: [127.0.0.1]", 'addresses: ["fd00::/32"]')  # fmt: skip
    stage = Stage(policy=compile_policy(loads(text), now_ns=WALL))
    most = stage.policy.limits.client_connections_per_address
    crowd = [stage.client(f"fd00::{n:x}:{n:x}", n) for n in range(1, most + 20)]
    assert [client.closed for client in crowd].count(False) <= most
    assert not stage.client("fd00:0:0:1::1").closed


def hurried(erp: str = "10.0.0.0/24") -> CompiledPolicy:
    """Ten requests a second, and ten at once."""
    text = GATEWAY % (
        '  u1: {zone: control, address: 10.9.9.9, protocol: modbus, unit: 1, listen: "127.0.0.1:502"}',
        "u1",
    )
    text = text.replace("10.0.0.0/24", erp)
    paced = text.replace("client_requests_burst: 4000", "client_requests_burst: 10, client_requests_per_second: 10")
    return compile_policy(loads(paced), now_ns=WALL)


def test_a_principal_asks_no_faster_by_more_addresses() -> None:
    """M13: five hosts of one principal have the pace of one; other principals, and strangers, do not wait for them."""
    stage = Stage(policy=hurried())
    crowd = [stage.client(f"10.0.0.{n}", n) for n in range(1, 6)]
    for client in crowd:
        client.on_data(b"".join(read(number, 300, 1) for number in range(1, 51)))
    assert [len(client.take()) for client in crowd] == [10, 0, 0, 0, 0]
    for other in (stage.client("10.0.1.1"), stage.client("10.7.7.7")):
        other.on_data(read(1, 300, 1))
        assert len(other.take()) == 1
    stage.reactor.advance(4)
    got = [len(client.take()) for client in crowd]
    assert sum(got) in (39, 40, 41) and max(got) - min(got) <= 1
    assert {hit.limit for hit in stage.of(LimitHit)} == {"client_requests_per_second"}


def test_who_waits_for_a_turn_has_it_under_another_policy_too() -> None:
    stage = Stage(policy=hurried())
    first, second = (stage.client(f"10.0.0.{n}", n) for n in (1, 2))
    first.on_data(b"".join(read(number, 300, 1) for number in range(1, 31)))
    assert len(first.take()) == 10
    policy = hurried("10.0.0.2")
    stage.outer.take_policy(policy, tuple(policy.assets))  # to which the first is nobody
    second.on_data(b"".join(read(number, 300, 1) for number in range(1, 31)))
    stage.reactor.advance(10)
    assert first.closed
    assert len(second.take()) == 30, "who has gone holds up nobody"


def test_a_connection_that_asks_nothing_is_told_of_once_however_many_units_there_are() -> None:
    """H9: 247 units at one listener, and a stranger's bare connects."""
    stage = Stage(policy=gateway(40))
    for port in range(20):
        stage.client("10.7.7.7", port).on_closed("gone")
        stage.client("10.0.0.1", port).on_closed("gone")
    stage.cross()
    assert len(stage.of(SessionOpened)) == len(stage.of(SessionClosed)) == 40
