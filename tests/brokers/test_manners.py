"""How devices want to be asked, and how clients ask: each setting and each habit, step by step, at a simulated peer."""

from __future__ import annotations

import socket

import pytest

from cofferdam.audit.events.access import LimitHit, WriteOutcome
from cofferdam.brokers.kit.transport import TcpTransport
from cofferdam.crossing.reactor import Reactor
from cofferdam.errors import PolicyError
from cofferdam.protocols.modbus.quirks import crc
from tests.brokers.harness import make_policy
from tests.brokers.stage import Stage, Wire, answer, exception, read, write


def asked(stage: Stage, wire: Wire) -> list[bytes]:
    stage.cross()
    return wire.take()


def test_a_device_that_wants_to_be_left_alone_after_connecting() -> None:
    stage = Stage(asset_extra="connect_delay: 1 s")
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    assert asked(stage, device) == []
    stage.reactor.advance(0.99)
    assert asked(stage, device) == []
    stage.reactor.advance(0.02)
    [question] = asked(stage, device)  # although the asset's timeout of 1 s is over: the delay is no part of it
    device.on_data(answer(question, 1, 2))
    assert asked(stage, client) == [answer(read(1), 1, 2)]
    client.on_data(read(2))
    assert len(asked(stage, device)) == 1, "the connection is up, and is asked at once"


@pytest.mark.parametrize("question", [read(1), write(1, 200, 7)])
def test_who_waited_for_a_device_that_is_off_is_not_told_that_it_is_busy(question: bytes) -> None:
    """Nothing refuses the connection of a host that is gone: the wait in line ends before the attempt does."""
    stage = Stage()
    client = stage.client()
    for _ in range(2):
        client.on_data(question)
        stage.cross()
        stage.reactor.advance(1.1)
        assert asked(stage, client) == [exception(1, question[7], 0x0A)]
    assert all(one.outcome == "unreachable" for one in stage.of(WriteOutcome))


def test_a_device_that_wants_a_pause_after_each_answer_whoever_asks_next() -> None:
    stage = Stage(asset_extra="pause: 60 ms")
    one, other = stage.client(), stage.client(port=40001)
    one.on_data(read(1))
    other.on_data(read(1, 10))
    stage.cross()
    device = stage.up()
    for client in (one, other):
        [question] = asked(stage, device)
        device.on_data(answer(question, 1, 2))
        assert len(asked(stage, client)) == 1, "the answer does not wait"
        client.on_data(read(2))
        assert asked(stage, device) == []
        stage.reactor.advance(0.055)
        assert asked(stage, device) == []
        stage.reactor.advance(0.01)


def test_an_idle_connection_is_closed_when_the_asset_says_so() -> None:
    stage = Stage(asset_extra="idle: 2 s")
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(asked(stage, device)[0], 1, 2))
    stage.reactor.advance(1.9)
    stage.inner.tick()
    closed = [device.closed]
    stage.reactor.advance(0.2)
    stage.inner.tick()
    assert [*closed, device.closed] == [False, True]
    client.on_data(read(2))
    stage.cross()
    assert len(stage.dials) == 2


@pytest.mark.parametrize(("said", "again"), [("yes", True), ("no", False)])
def test_a_read_whose_connection_broke_is_repeated_once_where_the_asset_says_so(said: str, again: bool) -> None:
    stage = Stage(asset_extra=f"repeat_reads: {said}")
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    stage.up().on_closed("Connection reset by peer")
    if not again:
        assert asked(stage, client) == [exception(1, 3, 0x0A)]
        return
    assert asked(stage, client) == []
    device = stage.up()
    [question] = asked(stage, device)
    device.on_closed("Connection reset by peer")
    assert asked(stage, client) == [exception(1, 3, 0x0A)], "once, and not again"
    assert len(stage.dials) == 2
    assert question[7] == 3


def test_a_write_is_never_repeated() -> None:
    stage = Stage(asset_extra="repeat_reads: yes")
    client = stage.client()
    client.on_data(write(1, 200, 7))
    stage.cross()
    device = stage.up()
    assert len(asked(stage, device)) == 1
    device.on_closed("Connection reset by peer")
    assert asked(stage, client) == [exception(1, 6, 0x0B)]
    assert len(stage.dials) == 1
    assert [o.outcome for o in stage.of(WriteOutcome)] == ["unknown"]


def test_a_device_that_refuses_the_next_connection_for_a_while() -> None:
    """It closes after each answer. Whoever asks meanwhile waits, and so is one refusal waited out; with two in a row it
    is taken for away, and fails at once until it is there again."""
    stage = Stage(asset_extra="reconnect_delay: 600 ms\n    wait: 2 s")
    client, other = stage.client(), stage.client(port=40001)
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(asked(stage, device)[0], 1, 2))
    device.on_closed("closed by the peer")
    assert asked(stage, client) == [answer(read(1), 1, 2)]
    client.on_data(read(2))
    other.on_data(write(3, 200, 7))
    stage.cross()
    stage.reactor.advance(0.59)
    assert (len(stage.dials), asked(stage, client), asked(stage, other)) == (1, [], [])
    stage.refuse_dials = True
    stage.reactor.advance(0.02)
    assert (len(stage.dials), asked(stage, client), asked(stage, other)) == (2, [], [])
    stage.refuse_dials = False
    stage.reactor.advance(0.61)
    device = stage.up()
    [question] = asked(stage, device)
    device.on_data(question)
    assert asked(stage, other) == [write(3, 200, 7)], "a write goes first"
    device.on_data(answer(asked(stage, device)[0], 1, 2))
    assert asked(stage, client) == [answer(read(2), 1, 2)]
    device.on_closed("closed by the peer")
    stage.refuse_dials = True
    client.on_data(read(4))
    stage.cross()
    stage.reactor.advance(1.3)
    assert (len(stage.dials), asked(stage, client)) == (5, [exception(4, 3, 0x0A)])
    client.on_data(read(5))
    assert asked(stage, client) == [exception(5, 3, 0x0A)]
    stage.refuse_dials = False
    stage.reactor.advance(0.6)
    client.on_data(read(6))
    stage.cross()
    device = stage.up()
    device.on_data(answer(asked(stage, device)[0], 1, 2))
    assert asked(stage, client) == [answer(read(6), 1, 2)]


@pytest.mark.parametrize(("said", "done"), [("", False), ("\n    wait: 20 s", True)])
def test_no_order_is_done_long_after_it_was_given(said: str, done: bool) -> None:
    """A client that has given up may have given another order: a write waits through the pause only where the policy
    says for how long."""
    stage = Stage(asset_extra=f"reconnect_delay: 10 s{said}")
    client, other = stage.client(), stage.client(port=40001)
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(asked(stage, device)[0], 1, 2))
    device.on_closed("closed by the peer")
    client.on_data(write(2, 200, 7))
    other.on_data(read(3))
    stage.cross()
    stage.reactor.advance(1.2)
    assert asked(stage, client)[1:] == ([] if done else [exception(2, 6, 6)])
    stage.reactor.advance(9)
    device = stage.up()
    if done:
        [question] = asked(stage, device)
        assert question[6:] == write(2, 200, 7)[6:]
        device.on_data(question)
    device.on_data(answer(asked(stage, device)[0], 1, 2))
    assert asked(stage, other) == [answer(read(3), 1, 2)], "a read has waited"


def test_a_write_behind_a_read_that_may_wait_longer_is_told_when_its_own_time_is_over() -> None:
    stage = Stage(asset_extra="reconnect_delay: 10 s")
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(asked(stage, device)[0], 1, 2))
    device.on_closed("closed by the peer")
    client.on_data(read(2) + write(3, 200, 7) + read(4, 10))
    stage.cross()
    client.take()
    stage.reactor.advance(0.99)
    assert asked(stage, client) == []
    stage.reactor.advance(0.02)
    assert asked(stage, client) == [exception(3, 6, 6)]
    assert [one.outcome for one in stage.of(WriteOutcome)] == ["not-sent"]
    stage.reactor.advance(9)
    device = stage.up()
    for number, start in ((2, 0), (4, 10)):  # the reads have kept their order
        [question] = asked(stage, device)
        assert question[6:] == read(1, start)[6:]
        device.on_data(answer(question, 1, 2))
        assert asked(stage, client) == [answer(read(number, start), 1, 2)]


@pytest.mark.parametrize(("late", "sent"), [(0.08, True), (0.3, False)])
def test_what_has_waited_too_long_is_not_sent_by_a_loop_that_is_late_itself(late: float, sent: bool) -> None:
    """The machine was busy: the answer that makes room is met before the timer by which the time is over."""
    stage = Stage(asset_extra="connections: 1\n    outstanding: 1\n    wait: 100 ms")
    client, other = stage.client(), stage.client(port=40001)
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    [question] = asked(stage, device)
    other.on_data(write(2, 200, 7))
    stage.cross()
    stage.reactor.now += int(late * 1e9)
    device.on_data(answer(question, 1, 2))
    assert [frame[6:] for frame in asked(stage, device)] == ([write(2, 200, 7)[6:]] if sent else [])
    assert asked(stage, other) == ([] if sent else [exception(2, 6, 6)])


@pytest.mark.parametrize(("late", "sent"), [(0.8, True), (1.2, False)])
def test_a_write_is_as_old_as_what_it_lay_in_the_crossing_for(late: float, sent: bool) -> None:
    """The inner half was stopped: the client has given up, and may have given another order."""
    stage = Stage()
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(asked(stage, device)[0], 1, 2))
    assert len(asked(stage, client)) == 1
    client.on_data(write(2, 200, 7))
    stage.reactor.now += int(late * 1e9)
    assert [frame[6:] for frame in asked(stage, device)] == ([write(2, 200, 7)[6:]] if sent else [])
    assert asked(stage, client) == ([] if sent else [exception(2, 6, 6)])
    assert [one.outcome for one in stage.of(WriteOutcome)] == ([] if sent else ["not-sent"])


def test_reads_that_wait_for_writes_of_their_session_leave_no_timers_behind() -> None:
    """There was one of each for as long as the asset may take, and it went on for as long again where it found a read
    that waited."""
    stage = Stage(auto=False, asset_extra="timeout: 30 s\n    outstanding: 4")
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(asked(stage, device)[0], 1, 2))
    for number in range(2, 400, 2):
        client.on_data(write(number, 200, 7) + read(number + 1))
        stage.cross()
        stage.reactor.advance(0.001)
        stage.acknowledge()
        for frame in asked(stage, device):
            device.on_data(frame if frame[7] == 6 else answer(frame, 1, 2))
        stage.cross()
    assert len(client.take()) == 399
    assert sum(timer.call is not None for timer in stage.reactor._timers) < 10


def test_a_device_that_is_away_costs_nobody_the_wait_that_follows_a_connection() -> None:
    stage = Stage(asset_extra="reconnect_delay: 600 ms")
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    for _ in range(2):
        assert asked(stage, client) == []
        stage.devices[-1].on_closed("Connection refused")  # later than the attempt, as the kernel says it
        stage.cross()
        stage.reactor.advance(0.61)
    assert (len(stage.dials), asked(stage, client)) == (2, [exception(1, 3, 0x0A)])
    stage.reactor.advance(0.3)
    client.on_data(read(2))
    stage.cross()
    stage.devices[-1].on_closed("Connection refused")
    assert asked(stage, client) == [exception(2, 3, 0x0A)]
    client.on_data(read(3))
    assert asked(stage, client) == [exception(3, 3, 0x0A)], "at once"


@pytest.mark.parametrize(("said", "left"), [("", 1.1), ("wait: 4 s", 4.1), ("wait: 100 ms, timeout: 5 s", 1.1)])
def test_waiting_in_line_has_a_time_of_its_own(said: str, left: float) -> None:
    stage = Stage(asset_extra=said.replace(", ", "\n    "))
    one, other = stage.client(), stage.client(port=40001)
    one.on_data(read(1))
    stage.cross()
    device = stage.up()
    assert len(asked(stage, device)) == 1
    other.on_data(read(5))
    assert asked(stage, device) == []
    if said.startswith("wait: 4"):
        stage.reactor.advance(1.1)  # the first has had no answer: the second is asked, though it waited longer than 1 s
        assert asked(stage, one) == [exception(1, 3, 0x0B)]
        assert len(asked(stage, device)) == 1
        return
    stage.reactor.advance(left)
    assert asked(stage, other) == [exception(5, 3, 6)]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("connect_delay: 31 s", "31000 ms"),
        ("reconnect_delay: 31 s", "31000 ms"),
        ("idle: 20 ms", "20 ms"),
        ("pause: 1 min", "60000 ms"),
        ("wait: 2 min", "120000 ms"),
        ("pause: 20 ms\n    outstanding: 2", "2 with a pause"),
    ],
)
def test_what_a_policy_may_not_say(said: str, found: str) -> None:
    with pytest.raises(PolicyError) as caught:
        make_policy(device_port=5020, port=502, asset_extra=said)
    assert found in str(caught.value.problems[0])


@pytest.mark.parametrize("quirk", ["", "    quirks: rtu_over_tcp\n"])
def test_a_device_whose_unit_is_another_than_clients_can_say(quirk: str) -> None:
    stage = Stage(asset_extra=f"device_unit: 0\n{quirk}")
    client = stage.client()
    client.on_data(read(7) + write(8, 200, 5))
    stage.cross()
    device = stage.up()
    for _ in range(2):
        [question] = asked(stage, device)
        if quirk:
            body = b"\0\3\4\0\1\0\2" if question[1] == 3 else question[:-2]
            assert question[0] == 0
            device.on_data(body + crc(body))
        else:
            assert question[6] == 0
            device.on_data(question if question[7] == 6 else answer(question, 1, 2))
    assert asked(stage, client) == [answer(read(7), 1, 2), write(8, 200, 5)]


# --- clients ---------------------------------------------------------------------------------------------------


def test_a_request_that_is_repeated_under_its_id_joins_the_first() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(9))
    stage.cross()
    device = stage.up()
    [question] = asked(stage, device)
    client.on_data(read(9) + read(9))
    assert (asked(stage, device), client.closed) == ([], False)
    device.on_data(answer(question, 1, 2))
    assert asked(stage, client) == [answer(read(9), 1, 2)]
    client.on_data(read(9))
    assert len(asked(stage, device)) == 1, "it was answered: asked again, it is asked anew"
    assert [hit.limit for hit in stage.of(LimitHit)] == ["repeated_requests"]


def test_a_write_that_is_repeated_under_its_id_is_written_once() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(write(9, 200, 7))
    stage.cross()
    device = stage.up()
    [question] = asked(stage, device)
    client.on_data(write(9, 200, 7))
    assert asked(stage, device) == []
    device.on_data(question)
    assert asked(stage, client) == [write(9, 200, 7)]
    assert asked(stage, device) == []
    assert len(stage.of(WriteOutcome)) == 1


def test_another_request_under_an_id_that_is_under_way_waits_its_turn() -> None:
    """A client that uses one id for everything and does not wait: as over a plain path, all is answered, in order."""
    stage = Stage()
    client = stage.client()
    client.on_data(read(0, 1) + read(0, 2) + write(0, 200, 3) + read(0, 4))
    stage.cross()
    device = stage.up()
    got = []
    for _ in range(4):
        [question] = asked(stage, device)
        got.append(int.from_bytes(question[8:10], "big"))
        device.on_data(question if question[7] == 6 else answer(question, 5, 6))
        assert len(asked(stage, client)) == 1
    assert got == [1, 2, 200, 4]
    assert not client.closed
    assert not client.paused


def test_a_client_that_has_closed_its_sending_half_gets_its_answers() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(1) + write(2, 200, 7))
    assert client.on_end is not None
    assert client.on_end()
    stage.cross()
    device = stage.up()
    [question] = asked(stage, device)
    device.on_data(answer(question, 1, 2))
    assert asked(stage, client) == [answer(read(1), 1, 2)]
    closed = [client.closed]
    device.on_data(asked(stage, device)[0])
    assert asked(stage, client) == [write(2, 200, 7)]
    assert [*closed, client.closed] == [False, True]
    assert stage.outer.clients == set()


def test_a_client_that_has_asked_nothing_and_closes_is_over() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(1)[:5])
    assert client.on_end is not None
    assert not client.on_end()
    assert stage.outer.clients == set()


def test_half_a_connection_on_a_real_socket() -> None:
    reactor = Reactor()
    got: list[bytes] = []
    ended: list[str] = []
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = socket.create_connection(server.getsockname())
            transport = TcpTransport(reactor, server.accept()[0])
        ends: list[bool] = []

        def on_end() -> bool:
            ends.append(True)
            return True

        transport.on_data, transport.on_closed = got.append, ended.append
        transport.on_end = on_end
        with peer:
            peer.sendall(b"question")
            peer.shutdown(socket.SHUT_WR)
            while not ends:
                reactor.turn(1.0)
            for _ in range(3):
                reactor.turn(0.0)
            assert (got, ended, len(ends)) == ([b"question"], [], 1)
            transport.resume()  # nothing more is read, whoever asks for it
            transport.write(b"answer")
            reactor.turn(0.0)
            assert peer.recv(100) == b"answer"
            transport.close()
            assert peer.recv(100) == b""
    finally:
        reactor.close()
