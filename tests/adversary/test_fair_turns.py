"""Whoever has many connections has no more of what a device does than whoever has one: reads, writes, and writes that
need a present value each wait in lines that take turns by principal.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.events.access import Refused
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from tests.brokers.stage import WALL, Stage, Wire, answer, exception, read, write
from tests.examples import examples

POLICY = """
site: s
zones: {{enterprise: {{side: it}}, control: {{side: ot}}}}
assets:
  plc: {{zone: control, address: 10.9.9.9, protocol: modbus, listen: "127.0.0.1:502", connections: {connections},
    points: {{{points}}}}}
principals:
  p0: {{zone: enterprise, addresses: [10.0.0.0/24]}}
  p1: {{zone: enterprise, addresses: [10.0.1.0/24]}}
  p2: {{zone: enterprise, addresses: [10.0.2.0/24]}}
conduits:
  main: {{from: enterprise, to: control, broker: modbus, owner: o, reason: r,
    allow: [{{who: [p0, p1, p2], asset: plc, read: all, write: all}}]}}
limits: {{client_requests_burst: 4000, asset_queue: {queue}}}
"""
ROUND = 0.02
"""What an answer of the device takes (s)."""


def policy(connections: int = 1, queue: int = 256) -> CompiledPolicy:
    points = ", ".join(f"s{n}: {{at: holding {n}, type: uint16, max_step: 5}}" for n in range(100))
    points += ", " + ", ".join(f"f{n}: {{at: holding {100 + n}, type: uint16}}" for n in range(100))
    text = POLICY.format(connections=connections, points=points, queue=queue)
    return compile_policy(loads(text), now_ns=WALL)


class Crowd:
    """So many connections of each principal, each of which asks anew as soon as it has its answer. `good`: requests of
    each principal that the device has carried out."""

    def __init__(self, stage: Stage, numbers: list[int], kind: str, one_point: bool) -> None:
        self.stage = stage
        self.kind = kind
        self.good = [0] * len(numbers)
        self.clients: list[tuple[int, int, Wire]] = []
        for who, count in enumerate(numbers):
            for number in range(count):
                place = 0 if one_point else len(self.clients)
                wire = stage.client(f"10.0.{who}.{number % 10 + 1}", 40000 + number)
                self.clients.append((who, place, wire))
        self.asked = 0
        self.reads: list[tuple[int, Wire]] | None = None  # units of one line, each with who floods it with reads

    def _ask(self, place: int, wire: Wire) -> None:
        self.asked += 1
        number = self.asked % 60000 + 1
        if self.reads is not None:
            wire.on_data(write(number, 1, 3, unit=place))
        elif self.kind == "read":
            wire.on_data(read(number, place, 1))
        else:
            wire.on_data(write(number, place + (100 if self.kind == "write" else 0), 3))

    def run(self, rounds: int) -> None:
        stage = self.stage
        for _, place, wire in self.clients:
            self._ask(place, wire)
        for turn in range(rounds):
            for unit, wire in self.reads or ():
                if wire.take() or not turn:
                    wire.on_data(read(turn + 1, 1, 1, unit=unit))
            stage.cross()
            frames = []
            for device in stage.devices:
                up, device.on_connected = device.on_connected, None
                if up is not None:
                    up()
                    stage.cross()
                if not device.closed:
                    frames += [(device, frame) for frame in device.take()]
            stage.reactor.advance(ROUND)
            for device, frame in frames:
                device.on_data(answer(frame, 0))
            stage.cross()
            for who, place, wire in self.clients:
                for frame in wire.take():
                    self.good[who] += frame[7] in (3, 6)
                    self._ask(place, wire)


@pytest.mark.parametrize("one_point", [True, False], ids=["one point", "points of their own"])
def test_thirty_connections_leave_others_their_share_of_judged_writes(one_point: bool) -> None:
    """The line of writes that need a present value was one for all, first come first served."""
    stage = Stage(policy=policy())
    crowd = Crowd(stage, [30, 2], "judged", one_point)
    crowd.run(600)
    assert sum(crowd.good) >= 280, "a read and a write each"
    assert crowd.good[1] >= 0.45 * sum(crowd.good)


def line_of(units: int) -> Stage:
    """So many units of one line, each an asset with a point that has a step."""
    names = [f"u{n}" for n in range(1, units + 1)]
    assets = "\n".join(
        f"  {name}: {{zone: control, address: 10.9.9.9, protocol: modbus, gateway: serial, unit: {n}, "
        f'listen: "127.0.0.1:502", points: {{s: {{at: holding 1, type: uint16, max_step: 5}}}}}}'
        for n, name in enumerate(names, 1)
    )
    head, _, tail = POLICY.format(connections=1, points="", queue=256).partition("  plc:")
    text = head + assets + "\nprincipals:" + tail.partition("principals:")[2].replace("asset: plc", f"asset: {names}")
    return Stage(policy=compile_policy(loads(text), now_ns=WALL))


def test_many_assets_of_one_line_are_no_more_than_one() -> None:
    """One principal writes to twenty units of a line at once, and floods it with reads from twenty addresses; another
    writes to one: each value is read in the turn of its principal."""
    stage = line_of(21)
    crowd = Crowd(stage, [], "judged", one_point=True)
    crowd.good, crowd.reads = [0, 0], []
    for unit in range(1, 21):
        crowd.clients.append((0, unit, stage.client(f"10.0.0.{unit}", 40000 + unit)))
        crowd.reads.append((unit, stage.client(f"10.0.0.{unit}", 41000 + unit)))
    crowd.clients.append((1, 21, stage.client("10.0.1.1")))
    crowd.run(600)
    assert crowd.good[1] >= 0.4 * 600 / 2, crowd.good


@pytest.mark.parametrize(("elsewhere", "here"), [(20, 1), (20, 5), (40, 1)])
def test_whose_turn_is_far_off_holds_up_nobody_at_the_same_point(elsewhere: int, here: int) -> None:
    """One principal writes to many units, and to the point that another writes to: the other's value was read after
    that of the first, which waited for its turn behind all its own."""
    stage = line_of(elsewhere + 1)
    crowd = Crowd(stage, [], "judged", one_point=True)
    crowd.good, crowd.reads = [0, 0], []
    for number in range(elsewhere + here):
        unit = min(number, elsewhere) + 1
        crowd.clients.append((0, unit, stage.client(f"10.0.0.{number + 1}", 40000 + number)))
    crowd.clients.append((1, elsewhere + 1, stage.client("10.0.1.1")))
    crowd.run(400)
    assert crowd.good[1] >= 0.4 * 400 / 2 and crowd.good[0], crowd.good


@examples(60)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 15)), min_size=1, max_size=8),
        min_size=1, max_size=6,
    ),
    st.integers(1, 2), st.sets(st.integers(0, 60)), st.integers(0, 40),
)  # fmt: skip
def test_principals_at_once_make_no_larger_step(
    acts: list[list[tuple[int, int, int]]], connections: int, refused: set[int], clamp: int
) -> None:
    """Values are read for several principals at a time: each write is a step from what the device holds, also where it
    refuses some writes, or says that it has done more than it has."""
    stage = Stage(policy=policy(connections))
    clients = [stage.client(f"10.0.{who}.1", 40000 + number) for who in range(3) for number in range(4)]
    held, number, done = [10, 10], 0, 0
    for act in acts:
        for turn, (who, point, value) in enumerate(act):
            number += 1
            clients[who * 4 + turn % 4].on_data(write(number, point, value))
        stage.cross()
        while True:
            frames = []
            for device in stage.devices:
                up, device.on_connected = device.on_connected, None
                if up is not None:
                    up()
                    stage.cross()
                frames += [(device, frame) for frame in device.take()]
            if not frames:
                break
            for device, frame in frames:
                stage.reactor.advance(0.001)
                point, value = frame[9], int.from_bytes(frame[10:12], "big")
                done += 1
                if frame[7] == 3:
                    device.on_data(answer(frame, held[point]))
                elif done in refused:
                    device.on_data(exception(int.from_bytes(frame[:2], "big"), 6, 4))
                else:
                    assert abs(value - held[point]) <= 5, "a larger step has arrived"
                    held[point] = min(value, clamp)
                    device.on_data(answer(frame))
                stage.cross()
    assert sum(len(client.take()) for client in clients) == number, "each has its answer"
    served = stage.inner._served["plc"]
    assert not served.judging and not served.parked.count


def test_who_has_most_waiting_gives_way() -> None:
    """The line is full of one principal's writes: the others' still find a place, and what gives way is on record."""
    stage = Stage(policy=policy(queue=8))
    crowd = Crowd(stage, [30, 1, 1], "judged", one_point=False)
    crowd.run(300)
    assert min(crowd.good[1:]) >= 0.3 * sum(crowd.good)
    told = [entry for entry in stage.of(Refused) if entry.fault == "busy"]
    assert told and {entry.source.rpartition(".")[0] for entry in told} == {"10.0.0"}


@examples(25)
@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=3), st.sampled_from(["read", "write", "judged"]), st.booleans(),
    st.integers(1, 2), st.sampled_from([4, 16, 256]),
)  # fmt: skip
def test_no_principal_gains_by_connections(
    numbers: list[int], kind: str, one_point: bool, connections: int, queue: int
) -> None:
    """The kind: whatever waits, waits in turns by principal. Where all always have something waiting, each has its
    share; with one connection for each place at the device there is a moment without."""
    stage = Stage(policy=policy(connections, queue))
    crowd = Crowd(stage, numbers, kind, one_point)
    crowd.run(120)
    share = sum(crowd.good) / len(numbers)
    for who, good in enumerate(crowd.good):
        if numbers[who] > connections:
            assert good >= 0.8 * share - 2, (crowd.good, who)
        else:  # it has nothing waiting while its own is served
            assert good >= 0.4 * share - 2, (crowd.good, who)
