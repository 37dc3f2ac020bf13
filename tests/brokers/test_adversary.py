"""What an intruder, a busy plant, or bad luck in the timing could do to writes: each test holds a promise against it.

A step is judged from what the device really holds; a write leaves once, for the machine that the policy names, while
somebody waits for it; who leaves, reloads or severs ends what must end, and nothing else hangs.
"""

from __future__ import annotations

import pytest

from cofferdam.audit.events.access import LimitHit, WriteAllowed, WriteOutcome
from cofferdam.brokers.proxy.records import Closed, Opened, Request
from cofferdam.errors import CrossingError, PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.modbus.messages import WriteSingleRegister
from tests.brokers.harness import POLICY, QUICK
from tests.brokers.stage import WALL, Stage, Wire, answer, exception, read, write

SPEED, STEP, PACE = 200, 210, 220
"""Registers of the policy's points: a plain one, one with max_step 100, one with two writes a minute."""


def compiled(*changes: tuple[str, str], asset_extra: str = "", conduit_extra: str = "") -> CompiledPolicy:
    """The tests' policy with pieces of its text changed."""
    text = POLICY.format(
        device_port=5020, port=502, asset_extra=asset_extra, conduit_extra=conduit_extra, limits=QUICK,
        reads="allow", registers="0-99",
    )  # fmt: skip
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return compile_policy(loads(text), now_ns=WALL)


def connected(stage: Stage, client: Wire) -> Wire:
    """The device, once a read of this client has opened the connection to it."""
    client.on_data(read(1, 0, 1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(device.take()[0], 0))
    stage.cross()
    client.take()
    return device


def learn(stage: Stage, client: Wire, device: Wire, value: int) -> None:
    """Lets the gate know what the step point holds."""
    client.on_data(read(2, STEP, 1))
    stage.cross()
    device.on_data(answer(device.take()[0], value))
    stage.cross()
    client.take()
    stage.reactor.advance(0.01)


def writes(frames: list[bytes]) -> list[int]:
    """The values of the writes among frames."""
    return [int.from_bytes(frame[10:12], "big") for frame in frames if frame[7] == 6]


def reload(stage: Stage, policy: CompiledPolicy) -> None:
    """Both halves take a policy."""
    stage.policy = policy
    stage.inner.take_policy(policy, tuple(policy.assets))
    stage.outer.take_policy(policy, tuple(policy.assets))
    stage.cross()


def leave(stage: Stage, client: Wire) -> None:
    """The client closes its connection."""
    client.on_closed("closed by the client")
    stage.cross()


def run_device(stage: Stage, value: int = 1000, *, zero_id: bool = False) -> list[tuple[int, bytes]]:
    """A plant that takes connections and answers everything until all is quiet: (port, frame) of what reached it."""
    reached: list[tuple[int, bytes]] = []
    for _ in range(50):
        stage.cross()
        busy = False
        for (_, port), device in zip(stage.dials, stage.devices, strict=True):
            frames = device.take()
            assert not (frames and device.closed), "sent over a connection that was closed"
            if device.closed:
                continue
            up, device.on_connected = device.on_connected, None
            if up is not None:
                busy = True
                up()
            for frame in frames:
                busy = True
                reached.append((port, frame))
                count = int.from_bytes(frame[10:12], "big")
                reply = answer(frame, *[value] * count)
                device.on_data(b"\0\0" + reply[2:] if zero_id else reply)
        if not busy:
            return reached
    raise AssertionError("the device is asked without end")


# --- a step is judged from what the device holds ------------------------------------------------------------------


def test_a_poller_between_verdict_and_answer_does_not_move_the_base_of_a_step() -> None:
    """A read that leaves after the verdict on a write, and reaches the device before it, is newer only by the clock."""
    stage = Stage(auto=False, asset_extra="outstanding: 4")
    writer, poller = stage.client(port=1), stage.client(port=2)
    device = connected(stage, writer)
    learn(stage, writer, device, 1000)
    writer.on_data(write(3, STEP, 1100))
    stage.cross()
    stage.reactor.advance(0.001)
    poller.on_data(read(7, STEP, 1))
    stage.cross()
    device.on_data(answer(device.take()[0], 1000))
    stage.cross()
    stage.reactor.advance(0.001)
    stage.acknowledge()
    stage.cross()
    [first] = device.take()
    device.on_data(first)
    stage.cross()
    stage.reactor.advance(0.001)
    writer.on_data(write(4, STEP, 900))  # 200 away from what was written, 100 from what the poller saw
    stage.auto = True
    stage.cross()
    assert writes(device.take()) == []


def test_a_write_behind_another_is_not_judged_from_a_read_in_between() -> None:
    stage = Stage(auto=False, asset_extra="outstanding: 4")
    writer, poller = stage.client(port=1), stage.client(port=2)
    device = connected(stage, writer)
    learn(stage, writer, device, 1000)
    writer.on_data(write(3, STEP, 1100))
    stage.cross()
    stage.reactor.advance(0.001)
    poller.on_data(read(7, STEP, 1))
    stage.cross()
    device.on_data(answer(device.take()[0], 1000))
    stage.cross()
    stage.reactor.advance(0.001)
    writer.on_data(write(4, STEP, 900))
    stage.cross()
    stage.acknowledge()
    stage.cross()
    assert writes(device.take()) == [1100]


def test_a_write_that_was_not_answered_leaves_the_value_in_doubt() -> None:
    """The device may apply it late: another answer of its own says nothing about what it will hold."""
    stage = Stage(asset_extra="connections: 2\n    timeout: 1 s")
    client = stage.client()
    device = connected(stage, client)
    learn(stage, client, device, 1000)
    client.on_data(write(3, STEP, 1100))
    stage.cross()
    assert writes(device.take()) == [1100]
    stage.reactor.advance(1.1)
    stage.cross()
    assert client.take() == [exception(3, 6, 0x0B)]
    client.on_data(write(4, STEP, 900))
    assert writes([frame for _, frame in run_device(stage, 1000)]) == [], "a second step left in doubt of the first"
    assert client.take() == [exception(4, 6, 6)]
    stage.reactor.advance(3)
    client.on_data(write(5, STEP, 1050))
    assert writes([frame for _, frame in run_device(stage, 1100)]) == [1050], "the doubt has to end"


def test_a_reload_while_a_step_is_under_way_does_not_leave_its_point_in_doubt() -> None:
    stage = Stage(auto=False, policy=compiled())
    client = stage.client()
    device = connected(stage, client)
    learn(stage, client, device, 1000)
    client.on_data(write(3, STEP, 1100))
    stage.cross()
    reload(stage, compiled((", max_step: 100", "")))
    stage.auto = True
    run_device(stage)
    reload(stage, compiled())
    stage.reactor.advance(1)
    client.take()
    client.on_data(write(4, STEP, 1010))
    assert writes([frame for _, frame in run_device(stage, 1000)]) == [1010]
    assert client.take() == [write(4, STEP, 1010)]


# --- the rate of writes -------------------------------------------------------------------------------------------


def sent_at_pace(stage: Stage, first: int) -> int:
    """How many of four writes to the paced point reach the device."""
    client = stage.client(port=first)
    for number in range(4):
        client.on_data(write(first + number, PACE, number))
    return len(writes([frame for _, frame in run_device(stage)]))


def test_a_pair_that_is_started_again_does_not_start_the_minute_again() -> None:
    first = Stage()
    assert sent_at_pace(first, 1) == 2
    again = Stage(again=True)
    assert sent_at_pace(again, 1) == 0
    again.reactor.advance(60)
    assert sent_at_pace(again, 11) == 2


def test_a_smaller_limit_for_a_moment_does_not_make_a_larger_one_forget() -> None:
    stage = Stage(policy=compiled())
    assert sent_at_pace(stage, 1) == 2
    reload(stage, compiled(("writes_per_minute: 2", "writes_per_minute: 1")))
    reload(stage, compiled())
    assert sent_at_pace(stage, 11) == 0
    stage.reactor.advance(60)
    assert sent_at_pace(stage, 21) == 2


# --- nothing leaves late ------------------------------------------------------------------------------------------


def test_no_write_leaves_after_its_client_has_given_up() -> None:
    """Twelve steps of one moment at a slow device: each one that leaves does so within the timeout."""
    stage = Stage(asset_extra="timeout: 1 s")
    client, writer = stage.client(port=1), stage.client(port=2)
    device = connected(stage, client)
    began = stage.reactor.now
    for number in range(12):
        writer.on_data(write(100 + number, STEP, 1000))
    stage.cross()
    left = []
    for _ in range(40):
        for frame in device.take():
            left += [stage.reactor.now - began] * (frame[7] == 6)
            stage.reactor.advance(0.45)
            device.on_data(answer(frame, 1000))
            stage.cross()
    assert left
    assert max(left) <= 1_000_000_000
    stage.reactor.advance(5)
    stage.cross()
    assert len(writer.take()) == 12, "each is answered"


def test_a_write_whose_entry_took_longer_than_its_client_waits_is_not_sent() -> None:
    stage = Stage(auto=False, asset_extra="timeout: 1 s")
    client = stage.client()
    device = connected(stage, client)
    client.on_data(write(2, SPEED, 77))
    stage.cross()
    stage.reactor.advance(1.5)
    stage.acknowledge()
    stage.cross()
    assert writes(device.take()) == []
    assert client.take() == [exception(2, 6, 6)]
    assert [entry.outcome for entry in stage.of(WriteOutcome)] == ["not-sent"]


def test_a_step_that_waited_for_another_one_too_long_is_not_even_allowed() -> None:
    stage = Stage(auto=False, asset_extra="timeout: 1 s")
    client, second = stage.client(port=1), stage.client(port=2)
    device = connected(stage, client)
    learn(stage, client, device, 1000)
    client.on_data(write(3, STEP, 1010))
    second.on_data(write(4, STEP, 1020))
    stage.cross()
    stage.reactor.advance(0.9)
    stage.acknowledge()
    stage.cross()
    [first] = device.take()
    stage.reactor.advance(0.2)
    device.on_data(first)
    stage.auto = True
    stage.cross()
    assert len(stage.of(WriteAllowed)) == 1
    assert second.take() == [exception(4, 6, 6)]


@pytest.mark.parametrize("waits_for", ["disk", "place"])
def test_a_window_that_closes_while_a_write_waits(waits_for: str) -> None:
    policy = compiled(asset_extra="timeout: 8 s", conduit_extra='expires: "2027-01-15 UTC"')
    stage = Stage(auto=False, policy=policy)
    stage.wall_offset += (16 * 3600 - 10) * 10**9  # ten seconds before midnight
    client, writer = stage.client(port=1), stage.client(port=2)
    device = connected(stage, client)
    stage.reactor.advance(9)
    if waits_for == "place":
        client.on_data(read(5, 0, 1))
        stage.cross()
    occupied = device.take()
    writer.on_data(write(2, SPEED, 77))
    stage.cross()
    if waits_for == "place":
        stage.acknowledge()
    stage.reactor.advance(1.5)
    stage.acknowledge()
    for frame in occupied:
        device.on_data(answer(frame, 1))
    stage.cross()
    assert writes(device.take()) == []
    [outcome] = stage.of(WriteOutcome)
    assert outcome.outcome == "not-sent"
    assert len(writer.take()) == 1


# --- reload, sever and leaving, in every state of a write -----------------------------------------------------------

STATES = ("its value is read", "another step goes first", "disk", "connection", "place", "device")
EVENTS = (
    "the asset moves", "other connections", "not allowed any more", "source not allowed any more", "asset gone",
    "sever it", "sever it, told to the inner half alone", "sever ot", "client leaves", "the half stops",
)  # fmt: skip


def write_in_state(state: str) -> tuple[Stage, Wire]:
    """A stage with a client whose write (to 1050 or 77) waits for what `state` says, or is at the device."""
    stage = Stage(auto=False, policy=compiled(asset_extra="timeout: 5 s"))
    writer = stage.client(port=1)
    if state == "connection":
        writer.on_data(write(9, SPEED, 77))
        stage.cross()
        stage.acknowledge()
        stage.cross()
        assert len(stage.devices) == 1
        return stage, writer
    other = stage.client(port=2)
    device = connected(stage, other)
    if state == "its value is read":
        writer.on_data(write(9, STEP, 1050))
        stage.cross()
        assert stage.inner._served["plc"].judging
        return stage, writer
    learn(stage, other, device, 1000)
    if state == "another step goes first":
        other.on_data(write(8, STEP, 1040))
        stage.cross()
        stage.acknowledge()
        stage.cross()
    if state == "place":
        other.on_data(read(8, 0, 1))
        stage.cross()
    writer.on_data(write(9, STEP, 1050))
    stage.cross()
    if state in ("place", "device"):
        stage.acknowledge()
        stage.cross()
    assert (stage.inner._served["plc"].parked.count == 1) == (state == "another step goes first")
    return stage, writer


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_what_happens_to_a_write_when_the_world_changes(state: str, event: str) -> None:
    """It does not leave any more, is answered once, has one outcome in the log, and the next write is served."""
    stage, writer = write_in_state(state)
    original = stage.policy
    before = [frame for device in stage.devices for frame in device.take()]
    old_devices = list(stage.devices)
    same_road = False
    if event == "the asset moves":
        reload(stage, compiled(("port: 5020", "port: 5021"), asset_extra="timeout: 5 s"))
    elif event == "other connections":
        reload(stage, compiled(asset_extra="timeout: 5 s\n    outstanding: 2"))
    elif event == "not allowed any more":
        reload(stage, compiled(("write: [speed, step, pace]", "write: [pace]"), asset_extra="timeout: 5 s"))
        same_road = True
    elif event == "source not allowed any more":
        reload(stage, compiled(("addresses: [127.0.0.1]", "addresses: [127.0.0.9]"), asset_extra="timeout: 5 s"))
        same_road = True
    elif event == "asset gone":
        policy = compiled(asset_extra="timeout: 5 s")
        stage.inner.take_policy(policy, ())
        stage.outer.take_policy(policy, ())
    elif event.startswith("sever"):
        side = event[6:8]
        stage.inner.set_severed((side,))
        if not event.endswith("alone"):
            stage.outer.set_severed((side,))
        same_road = side == "it"
    elif event == "client leaves":
        leave(stage, writer)
        same_road = True
    else:
        stage.inner.end()
        stage.outer.stop()
    if same_road:  # what was at the device before is answered
        for frame in before:
            old_devices[0].on_data(answer(frame, 1000))
    stage.auto = True
    stage.acknowledge()
    reached = run_device(stage)
    for _ in range(4):
        stage.reactor.advance(3)
        stage.inner.tick()
        stage.outer.tick()
        reached += run_device(stage)
    assert writes([frame for _, frame in reached]) == [], "it left after the event"
    allowed = [entry.write for entry in stage.of(WriteAllowed)]
    outcomes = [entry.write for entry in stage.of(WriteOutcome)]
    assert sorted(allowed) == sorted(outcomes)
    if state == "disk":
        assert {entry.outcome for entry in stage.of(WriteOutcome)} == {"not-sent"}, "not even tried"
    done = [entry for entry in stage.of(WriteOutcome) if entry.outcome == "done"]
    assert len(done) <= len(writes(before))
    answers = [frame for frame in writer.take() if frame[:2] == b"\0\x09"]
    assert len(answers) <= 1
    assert answers or writer.closed or event == "client leaves"
    assert (stage.outer.busy, stage.inner.busy) == (0, 0)
    assert not [hit for hit in stage.of(LimitHit) if hit.limit == "internal_error"]
    owned = [connection.transport for device in stage.inner._devices.values() for connection in device._connections]
    assert all(device.closed or device in owned for device in stage.devices), "a connection that nobody owns"
    if event == "the half stops":
        return
    # And the next write is served, as if nothing had been.
    stage.inner.set_severed(())
    stage.outer.set_severed(())
    reload(stage, original)
    stage.reactor.advance(30)
    late = stage.client(port=3)
    late.on_data(write(1, STEP, 1010))
    assert writes([frame for _, frame in run_device(stage, 1000)]) == [1010]
    assert late.take() == [write(1, STEP, 1010)]


@pytest.mark.parametrize("operation", ["read", "write"])
def test_severing_the_it_side_ends_what_waits_for_the_device_at_once(operation: str) -> None:
    """Not when its turn comes, and not only if the outer half says that its clients are gone."""
    stage = Stage(asset_extra="timeout: 60 s")
    client, waiting = stage.client(port=1), stage.client(port=2)
    device = connected(stage, client)
    client.on_data(read(5, 0, 1))
    stage.cross()
    waiting.on_data(write(6, SPEED, 77) if operation == "write" else read(6, 0, 1))
    stage.cross()
    assert stage.inner.busy == 2
    stage.inner.set_severed(("it",))
    assert stage.inner.busy == 1, "what the device has is all that is left"
    [question] = device.take()
    device.on_data(answer(question, 1))
    stage.reactor.settle()
    assert device.take() == []
    assert stage.inner.busy == 0


def test_a_device_that_comes_with_a_reload_while_its_side_is_severed_is_not_asked() -> None:
    stage = Stage(policy=compiled())
    connected(stage, stage.client())
    stage.inner.set_severed(("ot",))  # the outer half has not been told, or does not care
    stage.inner.take_policy(compiled(("port: 5020", "port: 5021")), ("plc",))
    assert [device.held for device in stage.inner._devices.values()] == [True]


# --- what waits for a present value is never forgotten ---------------------------------------------------------------


def test_the_writes_of_clients_that_left_are_forgotten() -> None:
    stage = Stage()
    client = stage.client(port=1)
    device = connected(stage, client)
    waiting = stage.client(port=2)
    waiting.on_data(write(1, STEP, 5))
    stage.cross()
    for number in range(5):
        passing = stage.client(port=10 + number)
        passing.on_data(write(1, STEP, 7))
        stage.cross()
        leave(stage, passing)
    assert stage.outer.busy == 1, "what is left is the one that still waits"
    for _ in range(2):
        for frame in device.take():
            device.on_data(answer(frame, 5))
        stage.cross()
    assert waiting.take() == [write(1, STEP, 5)]
    assert (stage.outer.busy, stage.inner.busy) == (0, 0)


def test_a_connection_spoilt_by_a_timeout_is_not_used_by_who_is_told_of_it() -> None:
    """A device that gives no ids: after a timeout its connection is closed, and a waiting step asks on the next one."""
    stage = Stage(asset_extra="quirks: [zero_transaction_id]\n    timeout: 1 s")
    client, second = stage.client(port=1), stage.client(port=2)
    client.on_data(write(2, STEP, 1000))
    stage.cross()
    device = stage.up()
    [question] = device.take()
    device.on_data(b"\0\0" + answer(question, 1000)[2:])
    stage.cross()
    assert writes(device.take()) == [1000]
    stage.reactor.advance(0.5)
    second.on_data(write(3, STEP, 1010))
    stage.cross()
    stage.reactor.advance(0.6)
    run_device(stage, zero_id=True)
    assert device.closed
    assert not client.closed and not second.closed
    assert client.take() == [exception(2, 6, 0x0B)]
    assert len(second.take()) == 1, "answered, one way or the other"
    assert not stage.of(LimitHit)
    stage.reactor.advance(5)
    late = stage.client(port=3)
    late.on_data(write(9, STEP, 1020))
    assert writes([frame for _, frame in run_device(stage, zero_id=True)]) == [1020]


def test_who_is_told_of_a_dead_connection_does_not_ask_on_it() -> None:
    """Three requests in a row without an answer: the connection is closed, and nothing new goes down with it."""
    stage = Stage(asset_extra="timeout: 1 s\n    outstanding: 4")
    clients = [stage.client(port=number) for number in range(4)]
    device = connected(stage, clients[0])
    for number, client in enumerate(clients[:3]):
        client.on_data(read(5, number, 1))
    clients[3].on_data(write(6, STEP, 1000))  # for which the gate reads first
    stage.cross()
    assert len(device.take()) == 4
    stage.reactor.advance(1.1)
    stage.cross()
    assert device.closed and device.take() == []


# --- a client that says it is somebody else -------------------------------------------------------------------------


def test_a_session_number_that_comes_again_does_not_revive_a_write() -> None:
    stage = Stage(auto=False)
    inner = stage.inner
    inner.take(Opened(1, "t-1", "127.0.0.1", "plc"))
    inner.take(Request(1, 2, WriteSingleRegister(1, SPEED, 1400)))
    stage.reactor.settle()
    inner.take(Closed(1))
    inner.take(Opened(1, "t-other", "127.0.0.1", "plc"))
    stage.acknowledge()
    stage.reactor.settle()
    assert stage.devices == []
    assert [entry.outcome for entry in stage.of(WriteOutcome)] == ["not-sent"]


def test_sessions_may_be_announced_in_any_order_but_not_twice() -> None:
    """A client that connects and waits is announced after one that came later and asked at once."""
    stage = Stage()
    early, late = stage.client(port=1), stage.client(port=2)
    late.on_data(read(1))
    early.on_data(read(2))
    run_device(stage)
    assert early.take() and late.take()
    number = next(iter(stage.inner._sessions))
    with pytest.raises(CrossingError, match="opened twice"):
        stage.inner.take(Opened(number, "t-x", "127.0.0.1", "plc"))


def alias(rule: str, *, address: str = "127.0.0.1", unit: str = "1") -> tuple[tuple[str, str], ...]:
    """A second name of the device, with a rule of its own."""
    asset = (
        f'  alias: {{zone: control, address: "{address}", port: 5020, protocol: modbus, unit: {unit}, '
        'listen: "127.0.0.1:503"}\nprincipals:'
    )
    return ("principals:", asset), ("limits:", f"      - {{who: tester, asset: alias, {rule}}}\nlimits:")


@pytest.mark.parametrize(("address", "unit"), [("127.0.0.1", "1"), ("127.0.0.1", "any"), ("::ffff:127.0.0.1", "1")])
def test_a_second_name_of_a_device_does_not_go_around_its_limits(address: str, unit: str) -> None:
    with pytest.raises(PolicyError) as caught:
        compiled(*alias("write_registers: [holding 200-230]", address=address, unit=unit))
    assert ["one asset for both" in str(problem) for problem in caught.value.problems] == [True]


def test_a_second_name_that_may_only_read_is_taken() -> None:
    assert "alias" in compiled(*alias("registers: [holding 0-9]")).assets
