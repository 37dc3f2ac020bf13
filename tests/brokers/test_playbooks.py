"""What the proxy's halves do, step by step: decide, record, act; and every way in which that can go wrong."""

from __future__ import annotations

import itertools

import pytest

from cofferdam.audit.events.access import (
    LimitHit,
    Malformed,
    ReadsCounted,
    Refused,
    RefusedMany,
    SessionClosed,
    SessionOpened,
    WriteAllowed,
    WriteOutcome,
)
from cofferdam.brokers.proxy.records import Closed, Opened, Request
from cofferdam.errors import CrossingError
from cofferdam.protocols.modbus.messages import ReadHoldingRegisters, WriteSingleRegister
from tests.brokers.harness import make_policy
from tests.brokers.stage import Stage, adu, answer, exception, read, write
from tests.brokers.test_adversary import compiled


def test_a_read_is_made_anew_and_answered_with_the_clients_own_id() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(0x1234, 100, 2))
    stage.cross()
    assert stage.dials == [("127.0.0.1", 5020)]
    device = stage.up()
    [question] = device.take()
    assert question[2:] == read(0, 100, 2)[2:]
    device.on_data(answer(question, 7, 8))
    stage.cross()
    assert client.take() == [answer(read(0x1234, 100, 2), 7, 8)]
    [opened] = stage.of(SessionOpened)
    assert (opened.source, opened.asset, opened.principals) == ("127.0.0.1", "plc", ("tester",))


def test_a_write_waits_for_the_disk() -> None:
    stage = Stage(auto=False)
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(device.take()[0], 1, 2))
    stage.cross()
    client.take()
    client.on_data(write(2, 200, 1400))
    stage.cross()
    assert device.take() == [], "the write left before its entry was on disk"
    [allowed] = stage.of(WriteAllowed)
    assert (allowed.points[0].point, allowed.points[0].value) == ("speed", "1400")
    stage.acknowledge()
    stage.cross()
    [question] = device.take()
    device.on_data(question)
    stage.cross()
    assert client.take() == [write(2, 200, 1400)]
    [outcome] = stage.of(WriteOutcome)
    assert (outcome.write, outcome.outcome) == (allowed.write, "done")


def test_a_write_that_is_not_recorded_is_refused_and_never_sent() -> None:
    stage = Stage(auto=False)
    client = stage.client()
    client.on_data(write(2, 200, 1400))
    stage.cross()
    stage.acknowledge(False, "no space left")
    stage.cross()
    assert client.take() == [exception(2, 6, 4)]
    assert stage.devices == []
    assert stage.of(WriteOutcome)[0].outcome == "not-sent"


def test_a_write_that_is_not_confirmed_in_time_is_refused_and_a_late_word_changes_nothing() -> None:
    stage = Stage(auto=False)
    client = stage.client()
    client.on_data(write(2, 200, 1400))
    stage.cross()
    stage.reactor.advance(stage.policy.limits.audit_wait_seconds + 0.1)
    stage.cross()
    assert client.take() == [exception(2, 6, 4)]
    stage.acknowledge()
    stage.cross()
    assert stage.devices == []


def test_reads_without_a_log_go_on_only_where_the_policy_says_so() -> None:
    for reads, expected in (("refuse", [exception(1, 3, 4)]), ("allow", [])):
        stage = Stage(reads=reads, asset_extra="outstanding: 4")
        client = stage.client()
        stage.writable(False)
        client.on_data(read(1) + write(2, 200, 3))
        stage.cross()
        assert client.take() == [*expected, exception(2, 6, 4)]
        assert len(stage.dials) == (0 if reads == "refuse" else 1)
        stage.writable(True)
        client.on_data(write(3, 200, 3))
        stage.cross()
        device = stage.up()
        assert any(question[7] == 6 for question in device.take()), "writes work again when the log does"


REFUSALS = [
    ("an address that no rule allows", read(9, 300, 1), exception(9, 3, 2), "address"),
    ("one register too many", read(9, 98, 5), exception(9, 3, 2), "address"),
    ("half of a point", read(9, 100, 1), None, None),
    ("above the maximum", write(9, 200, 1501), exception(9, 6, 3), "value"),
    ("a write to what may only be read", write(9, 50, 1), exception(9, 6, 2), "address"),
    ("a function that no rule allows", adu(9, b"\x11"), exception(9, 17, 1), "function"),
    ("another unit", read(9, 0, 1, unit=7), exception(9, 3, 0x0A, unit=7), "unit"),
]


@pytest.mark.parametrize(("why", "frame", "expected", "fault"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_what_policy_refuses_is_answered_and_recorded(
    why: str, frame: bytes, expected: bytes | None, fault: str | None
) -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(frame)
    stage.cross()
    if expected is None:
        assert stage.dials, "reading half of a point gives nothing away and is allowed"
        return
    assert client.take() == [expected]
    assert stage.dials == []
    [refused] = stage.of(Refused)
    assert refused.fault == fault
    assert refused.detail


def test_a_source_that_no_principal_has_is_refused() -> None:
    stage = Stage()
    client = stage.client("10.66.6.6")
    client.on_data(read(1) + write(2, 200, 3))
    stage.cross()
    assert client.take() == [exception(1, 3, 1), exception(2, 6, 1)]
    assert [refused.fault for refused in stage.of(Refused)] == ["principal", "principal"]
    assert stage.to_inner.waiting == []


def test_a_silent_refusal_says_nothing() -> None:
    stage = Stage(conduit_extra="deny: silent")
    client = stage.client()
    client.on_data(read(1, 300, 1))
    stage.cross()
    assert client.take() == []
    assert stage.of(Refused)


def test_malformed_frames_get_the_standards_answer_and_harm_nobody_else() -> None:
    stage = Stage()
    good, bad = stage.client(port=1), stage.client(port=2)
    bad.on_data(read(5, 0, 126))
    stage.cross()
    assert bad.take() == [exception(5, 3, 3)]
    bad.on_data(b"\x00\x01\x00\x07\x00\x06\x01\x03\x00\x00\x00\x01")
    assert bad.closed
    assert [entry.section for entry in stage.of(Malformed)]
    good.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(device.take()[0], 1, 2))
    stage.cross()
    assert len(good.take()) == 1


def test_several_frames_in_one_segment_and_one_in_several() -> None:
    stage = Stage(asset_extra="outstanding: 4")
    client = stage.client()
    frames = read(1, 0) + read(2, 2) + read(3, 4)
    client.on_data(frames[:20])
    client.on_data(frames[20:29])
    client.on_data(frames[29:])
    stage.cross()
    device = stage.up()
    questions = device.take()
    assert len(questions) == 3
    device.on_data(b"".join(answer(question, n, n) for n, question in reversed(list(enumerate(questions)))))
    stage.cross()
    assert sorted(client.take()) == sorted(answer(read(n + 1, 2 * n), n, n) for n in range(3))


def test_never_more_than_the_connections_and_requests_that_the_asset_bears() -> None:
    stage = Stage(asset_extra="connections: 2\n    outstanding: 3")
    clients = [stage.client(port=n) for n in range(10)]
    for n, client in enumerate(clients):
        client.on_data(read(n + 1) + read(n + 100))
    stage.cross()
    while any(device.on_connected for device in stage.devices):
        for device in stage.devices:
            connected, device.on_connected = device.on_connected, None
            if connected:
                connected()
                stage.cross()
    assert len(stage.devices) == 2
    seen = 0
    for _ in range(30):
        for device in stage.devices:
            questions = device.take()
            assert len(questions) <= 3
            seen += len(questions)
            for question in questions:
                device.on_data(answer(question, 1, 2))
            stage.cross()
    assert seen == 20
    assert all(len(client.take()) == 2 for client in clients)


def test_one_busy_client_does_not_keep_another_waiting() -> None:
    stage = Stage()
    greedy, modest = stage.client(port=1), stage.client(port=2)
    greedy.on_data(b"".join(read(n, 0, 2) for n in range(16)))
    modest.on_data(read(77, 10, 2))
    stage.cross()
    device = stage.up()
    order = []
    for _ in range(17):
        [question] = device.take()
        order.append(question[9])
        device.on_data(answer(question, 1, 2))
        stage.cross()
    assert order.index(10) <= 2, f"the modest client came {order.index(10)}th"


def test_an_asset_that_cannot_be_reached() -> None:
    stage = Stage()
    stage.refuse_dials = True
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    assert client.take() == [exception(1, 3, 0x0A)]
    client.on_data(read(2))
    stage.cross()
    assert client.take() == [exception(2, 3, 0x0A)]
    assert len(stage.dials) == 1, "during the pause nobody dials"
    stage.refuse_dials = False
    stage.reactor.advance(1)
    client.on_data(read(3))
    stage.cross()
    device = stage.up()
    device.on_data(answer(device.take()[0], 1, 2))
    stage.cross()
    assert client.take() == [answer(read(3), 1, 2)]


def test_the_pause_between_attempts_grows_to_its_limit() -> None:
    stage = Stage(limits="asset_backoff_seconds: 1, asset_backoff_max_seconds: 4")
    stage.refuse_dials = True
    client = stage.client()
    attempts = []
    for second in range(40):
        before = len(stage.dials)
        client.on_data(read(second + 1))
        stage.cross()
        if len(stage.dials) > before:
            attempts.append(second)
        stage.reactor.advance(1)
    gaps = [b - a for a, b in itertools.pairwise(attempts)]
    assert gaps[:3] == [1, 2, 4]
    assert set(gaps[2:]) == {4}


def test_a_silent_asset_a_late_answer_and_an_answer_given_twice() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(1, 0))
    stage.cross()
    device = stage.up()
    [first] = device.take()
    stage.reactor.advance(1.1)
    stage.cross()
    assert client.take() == [exception(1, 3, 0x0B)]
    client.on_data(read(2, 4))
    stage.cross()
    [second] = device.take()
    device.on_data(answer(first, 99, 99))
    stage.cross()
    assert client.take() == [], "the late answer reached the wrong request"
    device.on_data(answer(second, 5, 6) + answer(second, 7, 8))
    stage.cross()
    assert client.take() == [answer(read(2, 4), 5, 6)]
    figures = stage.inner.figures()
    assert [list(figures[name].values()) for name in ("late", "unasked")] == [[1], [1]]


def test_a_write_is_never_sent_twice_whatever_fails() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(write(1, 200, 7))
    stage.cross()
    device = stage.up()
    assert len(device.take()) == 1
    device.on_closed("connection reset")
    stage.cross()
    assert client.take() == [exception(1, 6, 0x0B)]  # 0A says that it was not done, and it may have been
    assert stage.of(WriteOutcome)[0].outcome == "unknown"
    client.on_data(read(2))
    stage.cross()
    device = stage.up()
    assert [question[7] for question in device.take()] == [3]
    client.on_data(write(3, 200, 8))
    stage.cross()
    stage.reactor.advance(5)
    stage.cross()
    assert stage.of(WriteOutcome)[1].outcome in ("timeout", "not-sent")
    sent = [question for wire in stage.devices for question in wire.take() if question[7] == 6]
    assert len(sent) <= 1


def test_a_write_that_waits_too_long_for_its_place_is_not_sent() -> None:
    stage = Stage()
    client, other = stage.client(port=1), stage.client(port=2)
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.take()
    other.on_data(write(2, 200, 7))
    stage.cross()
    stage.reactor.advance(1.05)
    stage.cross()
    assert other.take() == [exception(2, 6, 6)]
    assert stage.of(WriteOutcome)[0].outcome == "not-sent"
    assert all(question[7] != 6 for question in device.take())


def test_a_write_of_a_client_that_has_gone_is_not_sent() -> None:
    stage = Stage(auto=False)
    client = stage.client()
    client.on_data(write(1, 200, 7))
    stage.cross()
    client.on_closed("closed by the peer")
    stage.cross()
    stage.acknowledge()
    stage.cross()
    assert stage.devices == []
    assert stage.of(WriteOutcome)[0].outcome == "not-sent"


def test_what_does_not_fit_the_question_is_no_answer() -> None:
    stage = Stage()
    client = stage.client()
    for number, reply in enumerate((answer(read(0), 1), write(0, 0, 1), answer(read(0), 1, 2, 3)), start=1):
        client.on_data(read(number))
        stage.cross()
        device = stage.up() if number == 1 else stage.devices[-1]
        [question] = device.take()
        device.on_data(question[:2] + reply[2:])
        stage.cross()
        assert client.take() == [exception(number, 3, 0x0B)]
    assert stage.of(Malformed)


def test_an_asset_that_talks_nonsense_is_hung_up_on() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(b"HTTP/1.1 400 Bad Request\r\n")
    stage.cross()
    assert device.closed
    assert client.take() == [exception(1, 3, 0x0B)]


def test_shared_reads_reach_the_device_once() -> None:
    stage = Stage(asset_extra="share_reads: 200 ms")
    one, two, three = (stage.client(port=n) for n in range(3))
    one.on_data(read(1, 0, 10))
    two.on_data(read(2, 0, 10))
    stage.cross()
    device = stage.up()
    [question] = device.take()
    device.on_data(answer(question, *range(10)))
    stage.cross()
    three.on_data(read(3, 4, 2))
    stage.cross()
    assert device.take() == []
    assert one.take() == [answer(read(1, 0, 10), *range(10))]
    assert two.take() == [answer(read(2, 0, 10), *range(10))]
    assert three.take() == [answer(read(3, 4, 2), 4, 5)]
    stage.reactor.advance(0.25)
    three.on_data(read(4, 4, 2))
    stage.cross()
    assert len(device.take()) == 1, "older than the limit: the device is asked again"


def test_a_write_ends_the_sharing_of_what_was_read_before() -> None:
    stage = Stage(asset_extra="share_reads: 10 s\n    outstanding: 4")
    client = stage.client()
    client.on_data(read(1, 200, 1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(device.take()[0], 5))
    stage.cross()
    client.on_data(read(2, 200, 1))
    stage.cross()
    assert device.take() == []
    client.on_data(write(3, 200, 6))
    stage.cross()
    device.on_data(answer(device.take()[0]))
    stage.cross()
    client.on_data(read(4, 200, 1))
    stage.cross()
    [question] = device.take()
    device.on_data(answer(question, 6))
    stage.cross()
    assert client.take()[-1] == answer(read(4, 200, 1), 6)


def test_a_step_is_judged_from_the_value_that_the_asset_has_now() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(write(1, 210, 550))
    stage.cross()
    device = stage.up()
    [question] = device.take()
    assert question[7] == 3, "the gate reads the point before it judges the step"
    device.on_data(answer(question, 500))
    stage.cross()
    [question] = device.take()
    assert question[7] == 6
    device.on_data(question)
    stage.cross()
    assert client.take() == [write(1, 210, 550)]
    client.on_data(write(2, 210, 651))
    stage.cross()
    assert client.take() == [exception(2, 6, 3)]
    assert stage.of(Refused)[-1].fault == "step"


def test_two_steps_at_once_are_judged_one_after_the_other() -> None:
    stage = Stage(asset_extra="outstanding: 4\n    connections: 2")
    client = stage.client()
    client.on_data(write(1, 210, 590) + write(2, 210, 410))
    stage.cross()
    device = stage.up()
    device.on_data(answer(device.take()[0], 500))
    stage.cross()
    [first] = device.take()
    assert first[7] == 6
    device.on_data(first)
    stage.cross()
    replies = client.take()
    assert replies == [write(1, 210, 590), exception(2, 6, 3)], "from 590 to 410 is more than a step of 100"


def test_a_step_whose_value_cannot_be_read_is_not_sent() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(write(1, 210, 550))
    stage.cross()
    device = stage.up()
    device.take()
    stage.reactor.advance(1.1)
    stage.cross()
    assert client.take() == [exception(1, 6, 0x0B)]
    assert stage.of(WriteAllowed) == []


def test_the_rate_of_writes_is_held() -> None:
    stage = Stage()
    client = stage.client()
    stage_replies = []
    for number in range(4):
        client.on_data(write(number, 220, number))
        stage.cross()
        device = stage.up() if not number else stage.devices[0]
        for question in device.take():
            device.on_data(question)
            stage.cross()
        stage_replies += client.take()
    assert stage_replies[2:] == [exception(2, 6, 6), exception(3, 6, 6)]
    stage.reactor.advance(61)
    client.on_data(write(9, 220, 9))
    stage.cross()
    device = stage.devices[-1] if not stage.devices[-1].closed else stage.up()
    assert [question[7] for question in device.take()] == [6]


def test_an_idle_client_and_one_that_dawdles_are_closed() -> None:
    stage = Stage(limits="client_idle_seconds: 10, client_frame_seconds: 2")
    idle, slow = stage.client(port=1), stage.client(port=2)
    slow.on_data(read(1)[:5])
    stage.reactor.advance(1)
    slow.on_data(read(1)[5:6])
    stage.reactor.advance(1.5)
    stage.outer.tick()
    assert [slow.closed, idle.closed] == [True, False], "one byte now and then does not keep a frame open"
    stage.reactor.advance(8)
    stage.outer.tick()
    assert [slow.closed, idle.closed] == [True, True]
    assert {hit.limit for hit in stage.of(LimitHit)} == {"client_frame_seconds", "client_idle_seconds"}


def test_a_client_that_never_reads_is_closed() -> None:
    stage = Stage()
    client = stage.client()
    client.unsent = stage.policy.limits.client_unsent_bytes + 1
    client.on_data(read(1, 300, 1))
    stage.cross()
    assert client.closed
    assert stage.of(LimitHit)[0].limit == "client_unsent_bytes"


def test_connections_are_limited_in_all_and_by_address() -> None:
    stage = Stage(limits="client_connections: 5, client_connections_per_address: 3")
    mine = [stage.client("127.0.0.1", port) for port in range(4)]
    assert [client.closed for client in mine] == [False, False, False, True]
    others = [stage.client(f"10.0.0.{n}") for n in range(3)]
    assert [client.closed for client in others] == [False, False, True]
    mine[0].on_closed("closed by the peer")
    assert not stage.client().closed
    assert {hit.limit for hit in stage.of(LimitHit)} == {"client_connections", "client_connections_per_address"}


def test_a_client_of_the_policy_that_connects_too_fast_is_an_alarm_and_a_stranger_is_none() -> None:
    stage = Stage(limits="client_connects_per_second: 1")
    for port in range(1, 6):
        stage.client(source="10.9.9.9", port=port)
    assert stage.outer.alarms() == {}
    taken = [stage.client(port=port) for port in range(1, 6)]
    assert [client.closed for client in taken] == [False] * 4 + [True]
    assert "at 127.0.0.1: client_connects_per_second" in stage.outer.alarms()["clients-turned-away"]
    stage.reactor.advance(61)
    assert stage.outer.alarms() == {}


def test_who_connects_too_fast_is_known_before_anything_is_made_of_a_connection() -> None:
    stage = Stage(limits="client_connects_per_second: 1")
    outer = stage.outer
    assert not outer.is_hasty("127.0.0.1") and not outer.is_hasty("127.0.0.1"), "to be asked takes nothing"
    taken = [stage.client(port=port) for port in range(1, 5)]
    assert not any(client.closed for client in taken)
    assert outer.is_hasty("127.0.0.1") and not outer.is_hasty("127.0.0.2"), "each source for itself"
    assert outer.limit_hits == {"client_connects_per_second": 1}
    assert "at 127.0.0.1: client_connects_per_second" in outer.alarms()["clients-turned-away"]
    for _ in range(100):
        assert outer.is_hasty("127.0.0.1")
    stage.reactor.advance(1)
    assert not outer.is_hasty("127.0.0.1"), "those that were turned away cost it nothing"
    assert not stage.client(port=5).closed and outer.is_hasty("127.0.0.1")
    for port in range(1, 5):
        stage.client(source="10.9.9.9", port=port)
    stage.reactor.advance(61)
    assert outer.alarms() == {}
    for port in range(5, 9):
        stage.client(source="10.9.9.9", port=port)
    assert outer.is_hasty("10.9.9.9") and outer.alarms() == {}, "nobody whom the policy knows"


def test_a_flood_waits_for_its_turns_and_does_not_fill_the_log() -> None:
    stage = Stage(limits="client_requests_per_second: 10, client_requests_burst: 20")
    client = stage.client()
    client.on_data(b"".join(read(number, 300, 1) for number in range(100)))
    assert len(client.take()) == 20
    assert [client.paused] == [True], "more of it is not even read"
    for _ in range(50):
        stage.reactor.advance(0.1)
    assert 49 <= len(client.take()) <= 50
    stage.reactor.advance(10)
    assert len(client.take()) in (30, 31)
    assert not client.paused
    stage.outer.tick()
    hits = stage.of(LimitHit)
    assert {hit.limit for hit in hits} == {"client_requests_per_second"}
    assert len(hits) == 2
    assert 70 <= hits[-1].count <= 80
    assert len(stage.of(Refused)) <= 40


def test_the_connections_of_a_flood_take_turns_and_others_do_not_wait() -> None:
    stage = Stage(limits="client_requests_per_second: 10, client_requests_burst: 10")
    flood = [stage.client("10.0.0.1", port) for port in range(3)]
    for client in flood:
        client.on_data(b"".join(read(number, 300, 1) for number in range(50)))
    assert [len(client.take()) for client in flood] == [10, 0, 0]
    other = stage.client("10.0.0.2")
    other.on_data(read(1, 300, 1))
    assert len(other.take()) == 1
    stage.reactor.advance(3)
    got = [len(client.take()) for client in flood]
    assert sum(got) in (29, 30, 31)
    assert max(got) - min(got) <= 1
    flood[0].on_closed("closed by the peer")
    stage.reactor.advance(1)
    assert flood[0].take() == []
    assert sum(len(client.take()) for client in flood[1:]) in (9, 10, 11)


def test_a_source_that_comes_back_has_no_new_burst() -> None:
    stage = Stage(limits="client_requests_per_second: 10, client_requests_burst: 20")
    first = stage.client()
    first.on_data(b"".join(read(number, 300, 1) for number in range(30)))
    assert len(first.take()) == 20
    first.on_closed("closed by the peer")
    stage.outer.tick()
    second = stage.client()
    second.on_data(b"".join(read(number, 300, 1) for number in range(30)))
    assert len(second.take()) <= 1
    second.on_closed("closed by the peer")
    stage.reactor.advance(5)
    stage.outer.tick()
    third = stage.client()
    third.on_data(b"".join(read(number, 300, 1) for number in range(30)))
    assert len(third.take()) == 20


def test_a_write_that_waited_too_long_is_answered_busy_and_never_sent() -> None:
    """In line behind others of its source, and unread in the socket while nothing was read."""
    stage = Stage(limits="client_requests_per_second: 10, client_requests_burst: 1, client_wait_seconds: 1.0")
    client = stage.client()
    client.on_data(b"".join(write(number, 200, 1) for number in range(30)))
    stage.cross()
    device = stage.up()
    for _ in range(60):
        for question in device.take():
            device.on_data(answer(question))
        stage.cross()
        stage.reactor.advance(0.1)
    replies = client.take()
    done = [reply for reply in replies if reply[7] == 6]
    assert len(replies) == 30
    assert 10 <= len(done) <= 12
    assert replies[-1] == exception(29, 6, 6)
    assert len(stage.of(LimitHit)) >= 1
    assert {hit.limit for hit in stage.of(LimitHit)} == {"client_requests_per_second", "client_wait_seconds"}


def test_what_lay_in_the_socket_may_be_as_old_as_the_pause() -> None:
    """So a write in it is refused, while one that came after it was emptied is sent."""
    stage = Stage(limits="client_requests_per_second: 10, client_requests_burst: 1, client_wait_seconds: 1.0")
    client = stage.client()
    client.on_data(b"".join(read(number, 300, 1) for number in range(20)))
    assert [client.paused] == [True]
    stage.reactor.advance(0.5)
    client.arrive(write(98, 200, 1))
    stage.reactor.advance(3)
    assert exception(98, 6, 6) in client.take()
    assert not client.paused
    assert not stage.devices, "it has not even been dialled for that"
    client.arrive(write(99, 200, 2))
    stage.reactor.advance(0.2)
    stage.cross()
    device = stage.up()
    device.on_data(answer(device.take()[0]))
    stage.cross()
    assert client.take() == [write(99, 200, 2)]


def test_a_forbidden_write_is_recorded_as_that_however_late_it_comes() -> None:
    """Else a flood before it would hide it."""
    stage = Stage(limits="client_requests_per_second: 10, client_requests_burst: 1, client_wait_seconds: 1.0")
    client = stage.client()
    client.on_data(b"".join(read(number, 300, 1) for number in range(15)) + write(98, 301, 1))
    stage.reactor.advance(3)
    answered = client.take()
    assert len(answered) == 16
    assert answered[-1][:9] in (exception(98, 6, 1), exception(98, 6, 2)), "refused, and not: busy"
    assert [entry.spans[0].start for entry in stage.of(Refused) if entry.is_write] == [301]


def test_a_short_pause_does_not_make_a_write_old() -> None:
    stage = Stage(limits="client_requests_per_second: 10, client_requests_burst: 1, client_wait_seconds: 1.0")
    client = stage.client()
    client.on_data(read(1, 300, 1) + read(2, 300, 1))
    assert [client.paused] == [True]
    client.arrive(write(3, 200, 2))
    stage.reactor.advance(0.5)
    stage.cross()
    device = stage.up()
    device.on_data(answer(device.take()[0]))
    stage.cross()
    assert client.take()[-1] == write(3, 200, 2)


def test_many_refusals_are_told_as_a_count() -> None:
    stage = Stage()
    client = stage.client()
    for number in range(500):
        client.on_data(read(number, 300, 1))
        stage.cross()
    assert len(stage.of(Refused)) == 20
    client.on_closed("closed by the peer")
    [many] = stage.of(RefusedMany)
    assert many.count == 480
    assert dict(many.faults) == {"address": 480}
    assert stage.of(SessionClosed)[0].refused == 500


def test_a_client_with_too_many_refusals_is_closed() -> None:
    stage = Stage(limits="client_refusals_per_connection: 30")
    client = stage.client()
    client.on_data(b"".join(read(number, 300, 1) for number in range(40)))
    stage.cross()
    assert client.closed
    assert len(client.take()) == 31


def test_more_than_sixteen_requests_wait_at_the_client() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(b"".join(read(n) for n in range(20)))
    stage.cross()
    assert [client.paused] == [True]
    assert stage.outer.busy == 16
    device = stage.up()
    for _ in range(20):
        for question in device.take():
            device.on_data(answer(question, 1, 2))
        stage.cross()
    assert len(client.take()) == 20
    assert not client.paused


def test_severing_the_it_side_ends_its_clients_and_refuses_new_ones() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    for half in (stage.inner, stage.outer):
        half.set_severed(("it",))
    stage.cross()
    assert client.closed
    assert not device.closed, "the plant side runs on"
    assert stage.client().closed
    for half in (stage.inner, stage.outer):
        half.set_severed(())
    again = stage.client()
    again.on_data(read(2))
    stage.cross()
    assert not again.closed
    assert "severed" in stage.of(SessionClosed)[0].reason


def test_severing_the_ot_side_closes_its_connections_and_refuses_requests() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    for half in (stage.inner, stage.outer):
        half.set_severed(("ot",))
    stage.cross()
    assert device.closed
    assert not client.closed
    assert client.take() == [exception(1, 3, 0x0A)]
    client.on_data(read(2) + write(3, 200, 1))
    stage.cross()
    assert client.take() == [exception(2, 3, 0x0A), exception(3, 6, 0x0A)]
    assert len(stage.devices) == 1


def test_a_write_that_waits_for_the_disk_while_the_side_is_severed_is_not_sent() -> None:
    stage = Stage(auto=False)
    client = stage.client()
    client.on_data(write(1, 200, 5))
    stage.cross()
    stage.inner.set_severed(("it",))
    stage.acknowledge()
    stage.cross()
    assert stage.devices == []
    assert stage.of(WriteOutcome)[0].outcome == "not-sent"


def test_a_new_policy_ends_what_it_does_not_allow_and_leaves_the_rest() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.on_data(answer(device.take()[0], 1, 2))
    stage.cross()
    client.take()
    narrower = make_policy(device_port=5020, port=502, registers="50-99")
    for half in (stage.inner, stage.outer):
        assert half.take_policy(narrower, tuple(narrower.assets)) == 0
    assert not client.closed
    assert not device.closed
    client.on_data(read(2, 0) + read(3, 60))
    stage.cross()
    assert client.take() == [exception(2, 3, 2)]
    assert len(device.take()) == 1


def test_a_write_that_comes_after_a_new_policy_has_ended_its_session_is_on_record() -> None:
    """It had left the outer half before that heard of it."""
    stage = hostile()
    others = compiled(("addresses: [127.0.0.1]", "addresses: [10.0.0.1]"))
    assert stage.inner.take_policy(others, tuple(others.assets)) == 1
    stage.inner.take(Request(1, 5, WriteSingleRegister(1, 200, 7)))
    stage.inner.take(Request(1, 6, ReadHoldingRegisters(1, 0, 2)))
    stage.reactor.settle()
    [refused] = stage.of(Refused)
    assert (refused.session, refused.source, refused.asset, refused.values) == ("t-1", "127.0.0.1", "plc", (7,))
    with pytest.raises(CrossingError, match="opened twice"):
        stage.inner.take(Opened(1, "t-2", "127.0.0.1", "plc"))
    stage.inner.take(Closed(1))
    stage.inner.take(Opened(1, "t-2", "127.0.0.1", "plc"))


def test_a_write_that_the_new_policy_forbids_while_it_waits_is_not_sent() -> None:
    stage = Stage(auto=False)
    client = stage.client()
    client.on_data(write(1, 200, 1400))
    stage.cross()
    lower = make_policy(device_port=5020, port=502, conduit_extra="expires: 2020-01-01")
    stage.inner.take_policy(lower, tuple(lower.assets))
    stage.acknowledge()
    stage.cross()
    assert stage.devices == []
    assert stage.of(WriteOutcome)[0].outcome == "not-sent"


def test_reads_are_counted_by_interval_and_at_the_end() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(read(1, 0, 10))
    stage.cross()
    device = stage.up()
    for number in range(2, 6):
        for question in device.take():
            device.on_data(answer(question, *range(10)))
            stage.cross()
        client.on_data(read(number, 0, 10))
        stage.cross()
    stage.reactor.advance(10.5)
    stage.inner.tick()
    [counted] = stage.of(ReadsCounted)
    assert (counted.reads, counted.cells, counted.principals) == (5, 50, ("tester",))


def test_a_half_that_stops_sends_nothing_more_and_says_what_is_not_known() -> None:
    stage = Stage(auto=False)
    client, other = stage.client(port=1), stage.client(port=2)
    client.on_data(write(1, 200, 5))
    stage.cross()
    stage.acknowledge()
    stage.cross()
    device = stage.up()
    assert len(device.take()) == 1
    other.on_data(write(2, 200, 6))
    stage.cross()
    stage.inner.halt()
    stage.acknowledge()
    stage.cross()
    assert device.closed
    assert device.take() == []
    assert len(stage.devices) == 1, "a new connection was opened by a half that stops"
    assert [outcome.outcome for outcome in stage.of(WriteOutcome)] == ["unknown", "unreachable"]


# --- a hostile outer half -----------------------------------------------------------------------------------------


def hostile() -> Stage:
    stage = Stage()
    stage.inner.take(Opened(1, "t-1", "127.0.0.1", "plc"))
    return stage


def test_the_inner_half_decides_again() -> None:
    stage = hostile()
    stage.inner.take(Request(1, 5, ReadHoldingRegisters(1, 300, 2)))
    stage.inner.take(Request(1, 6, WriteSingleRegister(1, 200, 1501)))
    stage.inner.take(Request(1, 7, WriteSingleRegister(2, 200, 100)))
    stage.reactor.settle()
    assert [record.fault for record in stage.to_outer.take()] == ["address", "value", "unit"]
    assert stage.dials == []
    assert len(stage.of(Refused)) == 3


def test_a_session_from_nowhere_gets_nothing() -> None:
    stage = Stage()
    stage.inner.take(Opened(1, "t-1", "10.6.6.6", "plc"))
    stage.inner.take(Opened(2, "t-2", "127.0.0.1", "no-such-plc"))
    for session in (1, 2, 3):
        stage.inner.take(Request(session, 10 + session, ReadHoldingRegisters(1, 0, 2)))
    assert [record.fault for record in stage.to_outer.take()] == ["principal", "asset", "conduit"]
    assert stage.dials == []


def test_records_that_no_honest_half_sends_stop_the_half() -> None:
    stage = hostile()
    with pytest.raises(CrossingError, match="opened twice"):
        stage.inner.take(Opened(1, "t-1", "127.0.0.1", "plc"))
    stage.inner.take(Request(1, 5, ReadHoldingRegisters(1, 0, 2)))
    with pytest.raises(CrossingError, match="comes after"):
        stage.inner.take(Request(1, 5, ReadHoldingRegisters(1, 0, 2)))
    with pytest.raises(CrossingError):
        stage.inner.take(Request(1, 9, ReadHoldingRegisters(1, 65535, 2)))


def test_more_requests_than_an_honest_half_lets_through_are_turned_away() -> None:
    stage = hostile()
    for number in range(5, 300):
        stage.inner.take(Request(1, number, ReadHoldingRegisters(1, 0, 2)))
    busy = [record for record in stage.to_outer.take() if getattr(record, "failure", None) == "busy"]
    assert len(busy) >= 295 - 64
    assert stage.inner.busy <= 64


def test_a_bug_ends_one_session_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one place where a fault is put in on purpose: a machine that fails on a certain register."""
    stage = Stage()
    flawed, fine = stage.client(port=1), stage.client(port=2)
    operation = type(stage.protocol).operation

    def broken(self: object, request: ReadHoldingRegisters) -> object:
        if request.address == 66:
            raise ZeroDivisionError("division by zero")
        return operation(stage.protocol, request)

    monkeypatch.setattr(type(stage.protocol), "operation", broken)
    flawed.on_data(read(1, 66, 1))
    fine.on_data(read(2, 0, 1))
    stage.cross()
    assert flawed.closed
    assert not fine.closed
    device = stage.up()
    assert len(device.take()) == 1
    assert stage.of(LimitHit)[0].limit == "internal_error"
    assert "ZeroDivisionError" in stage.of(SessionClosed)[0].reason
