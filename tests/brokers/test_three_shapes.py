"""Calls, watches and streams through the real halves, with a protocol whose machines speak by themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cofferdam.audit.events.access import (
    LimitHit,
    Malformed,
    ReadsCounted,
    Refused,
    StreamEnded,
    WriteAllowed,
    WriteOutcome,
)
from cofferdam.brokers.proxy import records
from cofferdam.errors import CrossingError
from cofferdam.model import Assign, Call, Item, Operation
from cofferdam.protocols.base import FrameReceived, NoticeReceived, Over
from cofferdam.values import Float32, Int32, Text, Value
from tests.brokers.stage import Stage
from tests.brokers.toystage import ToyPeer, ToyStage, item
from tests.policy.plant import ns
from tests.protocols.toy import messages as m
from tests.protocols.toy.site import BASE, toy_conduit, toy_policy
from tests.protocols.toy.wire import frame

LEVEL = m.Subscribe(item("Pump.Level"), 100_000)
DRIVE = m.Open(item("io Drive"), 10_000)
READ = m.Read((item("Pump.Speed"),))


def watching(stage: ToyStage, peer: ToyPeer | None = None) -> tuple[ToyPeer, int]:
    peer = peer or stage.peer()
    token = peer.ask(LEVEL)
    stage.everything()
    assert peer.answers()[-1] == m.Agreed()
    return peer, token


def streaming(stage: ToyStage) -> tuple[ToyPeer, int]:
    peer = stage.peer()
    token = peer.ask(DRIVE)
    stage.everything()
    assert peer.answers() == [m.Agreed()]
    return peer, token


def real(value: float) -> Value:
    return Float32((value,))


# --- calls, and machines that speak --------------------------------------------------------------------------------


def test_a_read_by_name_is_made_anew_after_two_handshakes() -> None:
    stage = ToyStage()
    peer = stage.peer()
    assert not stage.plant, "nothing is asked of the device before a client asks"
    peer.ask(m.Read((Item("tag", "PUMP.Speed"), item("Counts[2-3]"))))
    stage.everything()
    assert stage.device.asked == [m.Read((item("Pump.Speed"), item("Counts[2-3]")))], "spelt as everywhere"
    assert peer.answers() == [m.Values((Int32((7,)), Int32((7,))))]


def test_nothing_is_sent_to_a_device_before_it_has_agreed() -> None:
    stage = ToyStage()
    peer = stage.peer()
    peer.ask(READ)
    stage.cross()
    [wire] = stage.devices
    assert wire.on_connected is not None
    wire.on_connected()
    stage.cross()
    assert wire.take() == [frame(0, m.Hello(1))], "only the hello"
    wire.on_data(frame(0, m.Welcome()))
    stage.cross()
    assert wire.take() == [frame(1, READ)]


def test_a_device_that_never_agrees_counts_as_away() -> None:
    stage = ToyStage(toy_policy(base=BASE.replace("zones:", "limits: {asset_connect_seconds: 0.5}\nzones:")))
    peer = stage.peer()
    peer.ask(READ)
    stage.cross()
    wire = stage.devices[0]
    assert wire.on_connected is not None
    wire.on_connected()
    stage.reactor.advance(0.6)
    stage.cross()
    peer.take()
    assert wire.closed and peer.answers() == [m.Refusal(5)]


def test_a_client_that_says_nothing_is_closed_at_its_machines_deadline() -> None:
    stage = ToyStage()
    wire = stage.client()
    stage.reactor.advance(1.9)
    assert len(stage.outer.clients) == 1
    stage.reactor.advance(0.2)
    assert wire.closed
    assert "no Hello in time" in stage.of(Malformed)[0].detail


def test_machines_keep_a_connection_alive_by_themselves() -> None:
    stage = ToyStage()
    peer, _ = watching(stage)
    for _ in range(60):  # five minutes, past what a client without requests is given
        stage.reactor.advance(5.1)
        stage.outer.tick()
        stage.inner.tick()
        stage.everything()
    assert not peer.wire.closed and not stage.device.wire.closed


def test_a_local_answer_never_crosses() -> None:
    stage = ToyStage()
    peer = stage.peer("10.66.6.6")  # whom no rule knows
    peer.say(frame(77, m.Who()))
    assert stage.to_inner.waiting == []
    assert peer.wire.take() == [frame(77, m.Name("the gate"))]
    assert stage.of(Refused) == []


def test_the_quirk_of_a_mute_device() -> None:
    stage = ToyStage(toy_policy(base=BASE.replace("protocol: toy\n", "protocol: toy\n    quirks: mute\n")))
    peer = stage.peer()
    peer.ask(READ)
    stage.cross()
    wire = stage.devices[0]
    assert wire.on_connected is not None
    wire.on_connected()
    stage.cross()
    assert wire.take() == [frame(1, READ)], "no hello"


# --- writes and calls of methods -----------------------------------------------------------------------------------


def test_a_write_by_name_waits_for_the_disk_and_is_logged_with_its_name() -> None:
    stage = ToyStage(auto=False)
    peer = stage.peer()
    writes = (Assign(item("Recipe"), Text(("Batch 7",))), Assign(item("Counts[3]"), Int32((5,))))
    peer.ask(m.Write(writes))
    stage.everything()
    assert not stage.plant, "the write left before its entry was on disk"
    [allowed] = stage.of(WriteAllowed)
    assert [tuple(one) for one in _plain(allowed.items)] == [
        ("tag recipe", "write", "text", ('"Batch 7"',)), ("tag counts[3]", "write", "int32", ("5",)),
    ]  # fmt: skip
    assert [(p.point, p.value) for p in allowed.points] == [("recipe", '"Batch 7"')]
    assert (allowed.function, allowed.unit, allowed.writes, allowed.exact) == (2, -1, (), True)
    stage.acknowledge()
    stage.everything()
    assert stage.device.asked == [m.Write(writes)] and peer.answers() == [m.Done()]
    assert [outcome.outcome for outcome in stage.of(WriteOutcome)] == ["done"]


def _plain(items: Any) -> list[tuple[Any, ...]]:
    return [(one.item, one.act, one.type, one.values) for one in items]


def test_a_call_is_a_write() -> None:
    stage = ToyStage(auto=False)
    peer = stage.peer()
    peer.ask(m.CallMethod(item("method Line.Mix"), (Int32((5,)), Text(("red",)))))
    stage.everything()
    [allowed] = stage.of(WriteAllowed)
    assert _plain(allowed.items) == [("method line.mix", "call", "", ("5", '"red"'))]
    assert not stage.plant
    stage.acknowledge()
    stage.everything()
    assert len(stage.device.asked) == 1 and peer.answers() == [m.Done()]


def test_calls_have_their_pace_and_arguments_their_limits() -> None:
    stage = ToyStage()
    peer = stage.peer()
    for _ in range(3):
        peer.ask(m.CallMethod(item("method Line.Reset")))
        stage.everything()
    assert peer.answers() == [m.Done(), m.Done(), m.Refusal(4)]
    peer.ask(m.CallMethod(item("method Line.Mix"), (Int32((61,)), Text(("red",)))))
    stage.everything()
    assert peer.answers()[-1] == m.Refusal(3)
    rate, value = stage.of(Refused)
    assert (rate.fault, value.fault) == ("rate", "value")
    assert _plain(value.items) == [("method line.mix", "call", "", ("61", '"red"'))]
    assert len(stage.device.asked) == 2


def test_a_step_is_judged_from_a_value_that_the_half_reads_itself() -> None:
    stage = ToyStage()
    peer = stage.peer()
    peer.ask(m.Write((Assign(item("Pump.Speed"), Int32((100,))),)))
    stage.everything()
    assert stage.device.asked == [READ, m.Write((Assign(item("Pump.Speed"), Int32((100,))),))]
    peer.ask(m.Write((Assign(item("Pump.Speed"), Int32((201,))),)))
    stage.everything()
    assert peer.answers() == [m.Done(), m.Refusal(3)]
    assert "it is 100, and a step of 100 rpm is allowed" in stage.of(Refused)[0].detail


def test_refused_items_stand_in_the_log() -> None:
    stage = ToyStage()
    peer = stage.peer()
    peer.ask(m.Read((item("Secret"), item("Counts[5-20]"))))
    peer.ask(m.Subscribe(item("Recipe"), 0))
    peer.ask(m.Open(item("io Other"), 0))
    stage.everything()
    assert peer.answers() == [m.Refusal(2)] * 3 and not stage.plant
    assert [_plain(refused.items) for refused in stage.of(Refused)] == [
        [("tag secret", "read", "", ()), ("tag counts[5-20]", "read", "", ())],
        [("tag recipe", "subscribe", "", ())], [("io other", "stream", "", ("0 us",))],
    ]  # fmt: skip


def test_a_value_too_long_for_an_entry_is_told_by_its_hash() -> None:
    stage = ToyStage(
        toy_policy(
            base=BASE.replace(
                "recipe: {at: tag Recipe, type: text, max_length: 8}", "recipe: {at: tag Recipe, type: text}"
            )
        )
    )
    peer = stage.peer()
    for end in ("a", "b"):
        peer.ask(m.Write((Assign(item("Recipe"), Text(("x" * 5000 + end,))),)))
    stage.everything()
    first, second = (allowed.items[0].values[0] for allowed in stage.of(WriteAllowed))
    assert len(first) == len(second) == 4096 and first != second and "… sha256 " in first


# --- watches -------------------------------------------------------------------------------------------------------


def test_news_of_a_watch_reach_the_client_that_asked() -> None:
    stage = ToyStage()
    peer, token = watching(stage)
    other = stage.peer()
    assert stage.device.asked == [LEVEL]
    for number in range(3):
        stage.device.news("pump.level", real(number))
    stage.everything()
    assert [(e.standing, e.message) for e in peer.of(NoticeReceived)] == [(token, m.News(real(n))) for n in range(3)]
    assert other.of(NoticeReceived) == []
    stage.reactor.advance(11)
    stage.inner.tick()
    [counted] = stage.of(ReadsCounted)
    assert (counted.reads, counted.cells, counted.notices) == (1, 1, 3)


def test_news_that_overtake_the_answer_are_not_lost() -> None:
    stage = ToyStage()
    peer = stage.peer()
    peer.ask(READ)
    stage.everything()
    token = peer.ask(LEVEL)
    stage.cross()
    device = stage.device
    [asked] = device.wire.take()
    device.machine.receive_data(asked)
    event: Any = device.machine.next_event()
    together = device.machine.send(event.token, m.Agreed()) + device.machine.notice(event.token, m.News(real(1)))
    device.wire.on_data(together)
    stage.everything()
    assert [event.standing for event in peer.of(NoticeReceived)] == [token]


def test_a_client_gives_a_watch_up() -> None:
    stage = ToyStage()
    peer, token = watching(stage)
    peer.drop(token)
    stage.everything()
    assert stage.device.asked == [LEVEL, "drop"] and stage.device.standing == {}
    assert not stage.inner._standings and not len(stage.outer._standings)
    watching(stage, peer)


def test_a_watch_ends_with_its_client() -> None:
    stage = ToyStage()
    peer, _ = watching(stage)
    peer.wire.on_closed("gone")
    stage.everything()
    assert stage.device.asked == [LEVEL, "drop"]
    assert not stage.inner._standings and not len(stage.outer._standings)


def test_a_client_that_leaves_before_the_answer_leaves_nothing_standing() -> None:
    stage = ToyStage()
    peer = stage.peer()
    peer.ask(READ)
    stage.everything()
    peer.ask(LEVEL)
    stage.cross()
    peer.wire.on_closed("gone")
    stage.everything()
    assert stage.device.asked == [READ, LEVEL, "drop"] and not stage.inner._standings


def test_a_watch_ends_with_the_connection_and_the_client_is_told() -> None:
    stage = ToyStage()
    peer, token = watching(stage)
    stage.device.wire.on_closed("reset by peer")
    stage.everything()
    assert [(over.standing, over.detail) for over in peer.of(Over)] == [(token, "ended by the device with 5")]
    assert not stage.inner._standings and not peer.wire.closed


def test_a_watch_that_the_device_ends() -> None:
    stage = ToyStage()
    peer, token = watching(stage)
    device = stage.device
    device.send(device.machine.over(device.standing["pump.level"], None))
    stage.everything()
    assert [over.standing for over in peer.of(Over)] == [token] and not stage.inner._standings


def test_a_watch_that_the_device_refuses_does_not_stand() -> None:
    stage = ToyStage()
    peer = stage.peer()
    peer.ask(READ)
    stage.everything()
    stage.device.refuses = 2
    peer.ask(LEVEL)
    stage.everything()
    assert peer.answers()[-1] == m.Refusal(2) and not stage.inner._standings


def test_a_late_yes_of_the_device_does_not_stand() -> None:
    stage = ToyStage()
    peer = stage.peer()
    peer.ask(READ)
    stage.everything()
    stage.device.mute = True
    peer.ask(LEVEL)
    stage.everything()
    stage.reactor.advance(1.1)
    stage.everything()
    assert peer.answers()[-1] == m.Refusal(5)
    device = stage.device
    device.mute = False
    token = max(device.machine._open.values())
    device.send(device.machine.send(token, device.answer(token, LEVEL)))
    stage.everything()
    assert device.asked[-1] == "drop" and device.standing == {}


def test_a_reload_judges_what_stands_again() -> None:
    stage = ToyStage()
    peer, token = watching(stage)
    less = toy_policy(toy_conduit("{who: mes, asset: line, read: all}"))
    for half in (stage.outer, stage.inner):
        assert half.take_policy(less, ("line",)) == 0, "the session itself is still allowed"
    stage.everything()
    assert [(over.standing, over.detail) for over in peer.of(Over)] == [(token, "ended by the device with 1")]
    assert stage.device.asked == [LEVEL, "drop"]
    assert "subscribe tag pump.level is asked; c allows only reading here" in stage.of(Refused)[0].detail
    again = ToyStage()
    other, _ = watching(again)
    for half in (again.outer, again.inner):
        half.take_policy(toy_policy(), ("line",))
    again.device.news("pump.level", real(0))
    again.everything()
    assert len(other.of(NoticeReceived)) == 1, "what is still allowed goes on"


def test_a_reload_that_slows_a_watch_down_ends_it() -> None:
    stage = ToyStage()
    peer, _ = watching(stage)
    slower = toy_policy(base=BASE.replace("fastest: 100 ms", "fastest: 1 s"))
    for half in (stage.outer, stage.inner):
        half.take_policy(slower, ("line",))
    stage.everything()
    assert len(peer.of(Over)) == 1 and stage.of(Refused)[0].fault == "rate"


def test_a_window_that_closes_ends_a_watch() -> None:
    extra = 'window: {days: all, from: "00:00", to: "08:00", zone: UTC}'
    stage = ToyStage(toy_policy(toy_conduit(extra=extra)))
    stage.wall_offset = ns("2027-01-15T07:59:50") - stage.reactor.now
    peer, _ = watching(stage)
    stage.device.news("pump.level", real(1))
    stage.everything()
    stage.reactor.advance(11)
    stage.device.news("pump.level", real(2))
    stage.everything()
    assert len(peer.of(NoticeReceived)) == 1 and len(peer.of(Over)) == 1
    assert stage.of(Refused)[0].fault == "window"
    quiet = ToyStage(toy_policy(toy_conduit(extra=extra)))
    quiet.wall_offset = ns("2027-01-15T07:59:50") - quiet.reactor.now
    peer, _ = watching(quiet)
    quiet.reactor.advance(11)
    quiet.inner.tick()
    quiet.everything()
    assert len(peer.of(Over)) == 1, "also where no news come"


@pytest.mark.parametrize("side", ["it", "ot"])
def test_a_severed_side_ends_what_stands(side: str) -> None:
    stage = ToyStage()
    watching(stage)
    device = stage.device
    stage.inner.set_severed([side])
    stage.everything()
    assert not stage.inner._standings and (device.wire.closed or device.asked[-1] == "drop")


def test_without_a_log_nothing_stands_unless_the_policy_says_so() -> None:
    for reads, left in (("refuse", 0), ("allow", 1)):
        stage = ToyStage(toy_policy(base=BASE.replace("zones:", f"audit: {{reads: {reads}}}\nzones:")))
        peer, _ = watching(stage)
        peer.ask(DRIVE)
        stage.everything()
        stage.writable(False)
        stage.inner.tick()
        stage.everything()
        assert len(stage.inner._standings) == left
        assert len(stage.of(StreamEnded)) == 1


def test_a_client_may_have_so_many_watches_and_no_more() -> None:
    limits = "limits: {client_standing: 2, asset_standing: 3}\nzones:"
    stage = ToyStage(toy_policy(base=BASE.replace("zones:", limits)))
    peers = [stage.peer(), stage.peer()]
    for peer in peers:
        for _ in range(3):
            peer.ask(LEVEL)
            stage.everything()
    assert peers[0].answers() == [m.Agreed(), m.Agreed(), m.Refusal(4)]
    assert peers[1].answers() == [m.Agreed(), m.Refusal(4), m.Refusal(4)]
    assert {hit.limit for hit in stage.of(LimitHit)} >= {"client_standing", "asset_standing"}


def test_a_stream_that_has_no_place_is_on_record() -> None:
    limits = "limits: {client_standing: 1}\nzones:"
    stage = ToyStage(toy_policy(base=BASE.replace("zones:", limits)))
    peer, _ = watching(stage)
    peer.ask(DRIVE)
    stage.everything()
    assert peer.answers()[-1] == m.Refusal(4)
    [refused] = stage.of(Refused)
    assert refused.is_write and refused.fault == "busy" and refused.items


def test_a_full_asset_takes_from_who_has_most_for_who_has_less() -> None:
    """Subscriptions of one principal by many connections take all places; who may have none ends none of them."""
    limits = "limits: {asset_standing: 4}\nzones:"
    rules = ("{who: [mes, guest], asset: line, subscribe: level}",)
    stage = ToyStage(toy_policy(toy_conduit(*rules), base=BASE.replace("zones:", limits)))
    greedy = [stage.peer("10.1.0.20") for _ in range(4)]
    for peer in greedy:
        peer.ask(LEVEL)
    stage.everything()
    other = stage.peer("10.1.0.66")
    other.ask(DRIVE)
    stage.everything()
    assert len(stage.inner._standings) == 4 and not any(peer.of(Over) for peer in greedy)
    for _ in range(3):
        other.ask(LEVEL)
        stage.everything()
    assert [type(one) for one in other.answers()] == [m.Refusal, m.Agreed, m.Agreed, m.Refusal], "half of them"
    assert [len(peer.of(Over)) for peer in greedy] == [0, 0, 1, 1]


def test_news_that_find_no_room_end_the_watch_and_not_the_half() -> None:
    stage = ToyStage()
    peer, _ = watching(stage)
    stage.to_outer.backlog = 1 << 30
    stage.device.news("pump.level", real(1))
    stage.to_outer.backlog = 0
    stage.everything()
    assert peer.of(NoticeReceived) == [] and len(peer.of(Over)) == 1


# --- streams -------------------------------------------------------------------------------------------------------


def test_a_stream_is_opened_as_a_recorded_write_and_its_frames_are_counted() -> None:
    stage = ToyStage(auto=False)
    peer = stage.peer()
    token = peer.ask(DRIVE)
    stage.everything()
    [allowed] = stage.of(WriteAllowed)
    assert _plain(allowed.items) == [("io drive", "stream", "", ("10000 us",))] and not stage.plant
    stage.acknowledge()
    stage.everything()
    assert peer.answers() == [m.Agreed()]
    for number in range(3):
        peer.signals(token, ("setpoint", real(number * 5.0)))
        stage.device.signals("drive", ("actual", real(number)))
        stage.everything()
    assert len(stage.device.frames) == 3 and [e.standing for e in peer.of(FrameReceived)] == [token] * 3
    peer.drop(token)
    stage.everything()
    stage.acknowledge()
    [ended] = stage.of(StreamEnded)
    assert (ended.write, ended.sent, ended.received, ended.refused) == (allowed.write, 3, 3, 0)
    assert ended.reason == "given up by the client"
    assert len(stage.of(WriteAllowed)) == 1, "a frame has no entry of its own"


def test_a_frame_outside_its_limits_is_not_sent_and_three_in_a_row_end_the_stream() -> None:
    stage = ToyStage()
    peer, token = streaming(stage)
    for value in (10.0, 51.0, math.nan, 20.0, 31.0, 5.0, -1.0):
        peer.signals(token, ("setpoint", real(value)))
        stage.everything()
    assert [f.signals[0].value.values for f in stage.device.frames] == [(10.0,), (20.0,)]
    assert stage.device.asked == [DRIVE, "drop"], "31, 5 and -1 were three in a row"
    [over] = peer.of(Over)
    [ended] = stage.of(StreamEnded)
    assert over.standing == token and ended.refused == 5 and "3 frames in a row were refused" in ended.reason
    assert {refused.fault for refused in stage.of(Refused)} == {"value"}


def test_a_step_counts_from_the_last_frame_also_of_an_earlier_stream() -> None:
    stage = ToyStage()
    peer, token = streaming(stage)
    peer.signals(token, ("setpoint", real(40.0)))
    stage.everything()
    peer.drop(token)
    stage.everything()
    stage.reactor.advance(60)
    token = peer.ask(DRIVE)
    stage.everything()
    peer.signals(token, ("setpoint", real(0.0)))
    stage.everything()
    assert len(stage.device.frames) == 1, "a new stream is no way round max_step"


def test_frames_that_come_too_fast_are_dropped_and_counted() -> None:
    stage = ToyStage(toy_policy(base=BASE.replace("zones:", "limits: {asset_frames_per_second: 5}\nzones:")))
    peer, token = streaming(stage)
    for _ in range(8):
        peer.signals(token, ("setpoint", real(1.0)))
    stage.everything()
    assert len(stage.device.frames) == 5
    stage.reactor.advance(1)
    peer.signals(token, ("setpoint", real(1.0)))
    stage.everything()
    peer.drop(token)
    stage.everything()
    [ended] = stage.of(StreamEnded)
    assert (ended.sent, ended.dropped) == (6, 3)


def test_frames_that_find_no_room_are_dropped() -> None:
    stage = ToyStage()
    peer, _ = streaming(stage)
    stage.to_outer.backlog = 1 << 30
    stage.device.signals("drive", ("actual", real(1.0)))
    stage.to_outer.backlog = 0
    stage.device.signals("drive", ("actual", real(2.0)))
    stage.everything()
    assert [frame.message.signals[0].value for frame in peer.of(FrameReceived)] == [real(2.0)]


def test_a_reload_ends_a_stream_and_a_sever_does() -> None:
    less = toy_policy(toy_conduit("{who: mes, asset: line, read: all}"))
    for reload in (True, False):
        stage = ToyStage()
        peer, _ = streaming(stage)
        if reload:
            stage.inner.take_policy(less, ("line",))
        else:
            stage.inner.set_severed(["it"])
        stage.everything()
        assert len(peer.of(Over)) == 1 and len(stage.of(StreamEnded)) == 1
        assert stage.device.asked[-1] == "drop"


def test_a_part_that_ends_in_order_counts_its_streams() -> None:
    stage = ToyStage()
    streaming(stage)
    stage.inner.end()
    [ended] = stage.of(StreamEnded)
    assert ended.reason == "the session has ended"


# --- a hostile outer half, a hostile inner half, a hostile device -----------------------------------------------------


def opened(stage: ToyStage) -> int:
    """A session that an outer half has announced."""
    stage.inner.take(records.Opened(1, "s", "127.0.0.1", "line"))
    return 1


def take(stage: ToyStage, record: Any) -> None:
    """As it comes over the crossing: encoded, decoded strictly, and taken."""
    stage.to_inner.send(record)
    for decoded in stage.to_inner.take():
        stage.inner.take(decoded)


def test_an_outer_half_cannot_invent_a_handle() -> None:
    for record in (records.Unwatch(1, 1), records.Unwatch(1, 99), records.Frame(1, m.Signals(()))):
        stage = ToyStage()
        opened(stage)
        with pytest.raises(CrossingError, match="was never given out"):
            take(stage, record)


def test_an_outer_half_cannot_use_the_handle_of_another_session() -> None:
    stage = ToyStage()
    watching(stage)
    take(stage, records.Opened(100, "other", "127.0.0.1", "line"))
    with pytest.raises(CrossingError, match="handle 1 is not of session 100"):
        take(stage, records.Unwatch(100, 1))


def test_a_handle_that_has_ended_is_no_lie() -> None:
    stage = ToyStage()
    peer, token = watching(stage)
    peer.drop(token)
    stage.everything()
    take(stage, records.Unwatch(1, 1))
    take(stage, records.Frame(1, m.Signals(())))


LIES: list[tuple[str, Any, str]] = [
    ("a read as a watch", records.Watch(1, 1, READ), "is asked as a watch, and is none"),
    ("a write as a watch", records.Watch(1, 1, m.Write((Assign(item("Run"), None),))), "is asked as a watch"),
    ("an opening as a watch", records.Watch(1, 1, DRIVE), "is asked as a watch"),
    ("a watch as a call", records.Request(1, 1, LEVEL), "is a watch, and is not asked as one"),
    ("a name spelt another way", records.Watch(1, 1, m.Subscribe(Item("tag", "PUMP.Level"), 0)), "not spelt"),
    ("a name that is none", records.Request(1, 1, m.Read((Item("tag", "a b"),))), "is no path"),
    ("a range of the whole", records.Request(1, 1, m.Read((Item("tag", "run", -1, 3),))), "is no path"),
    ("a value of no type", records.Request(1, 1, m.Write((Assign(item("Run"), Float32((1e39,))),))), "outside float32"),
]


@pytest.mark.parametrize(("why", "record", "match"), LIES, ids=[row[0] for row in LIES])
def test_an_outer_half_that_lies_is_found_out(why: str, record: Any, match: str) -> None:
    stage = ToyStage()
    opened(stage)
    with pytest.raises(CrossingError, match=match):
        take(stage, record)
    assert not stage.devices


def test_a_watch_has_its_number_among_the_requests() -> None:
    stage = ToyStage()
    opened(stage)
    take(stage, records.Watch(1, 5, LEVEL))
    with pytest.raises(CrossingError, match="request 5 comes after request 5"):
        take(stage, records.Request(1, 5, READ))


def test_a_watch_of_no_session_is_denied() -> None:
    stage = ToyStage()
    take(stage, records.Watch(7, 5, LEVEL))
    [denied] = stage.to_outer.take()
    assert isinstance(denied, records.Denied) and denied.id == 5


def test_a_frame_for_a_watch_is_a_lie() -> None:
    stage = ToyStage()
    watching(stage)
    with pytest.raises(CrossingError, match="which is a watch"):
        take(stage, records.Frame(1, m.Signals(())))


def test_a_frame_says_nothing_outside_its_stream() -> None:
    stage = ToyStage()
    streaming(stage)
    with pytest.raises(CrossingError, match="a signal named"):
        take(stage, records.Frame(1, m.Signals((m.Signal("../x", Int32((1,))),))))


def test_modbus_has_no_such_records() -> None:
    """What a protocol has not cannot cross: the half stops at the first byte of it."""
    stage = Stage()
    for link in (stage.to_inner, stage.to_outer):
        for record in (
            records.Watch(1, 1, None), records.Unwatch(1, 1), records.Frame(1, None), records.Notice(1, None),
            records.Watched(1, 1, None, 0, 0), records.Unwatched(1, "", "", None, ""),
        ):  # fmt: skip
            link.send(record)
            with pytest.raises(CrossingError):
                link.take()
            link.waiting = []


def test_an_answer_that_does_not_fit_its_request_ends_the_outer_half() -> None:
    stage = ToyStage()
    peer = stage.peer()
    peer.ask(m.Read((item("Run"), item("Table"))))
    stage.reactor.settle()
    stage.to_outer.send(records.Reply(stage.outer._next, m.Values((Int32((1,)),)), 0, 0))
    with pytest.raises(CrossingError, match="does not fit its request: 1 values for 2 items"):
        for record in stage.to_outer.take():
            stage.outer.take(record)


def test_news_that_a_client_cannot_have_end_that_client_alone() -> None:
    stage = ToyStage()
    peer, _ = watching(stage)
    other = stage.peer()
    machine: Any = next(client for client in stage.outer.clients if client.standing).machine
    machine._standing.clear()  # as a bug of ours would leave it
    stage.device.news("pump.level", real(1))
    stage.cross()
    assert peer.wire.closed and not other.wire.closed
    assert any(hit.limit == "internal_error" for hit in stage.of(LimitHit))


def test_a_device_that_sends_news_of_nothing_harms_nobody() -> None:
    stage = ToyStage()
    peer, _ = watching(stage)
    device = stage.device
    for strange in (m.News(real(1)), m.Signals(()), m.Over(3), m.Name("me"), m.Agreed()):
        device.send(frame(999, strange))
    device.send(frame(1, m.Signals(())))  # frames for a watch
    stage.everything()
    assert not device.wire.closed and peer.of(NoticeReceived) == [] and peer.of(Over) == []
    device.send(b"nonsense")
    stage.everything()
    assert stage.devices[0].closed and len(peer.of(Over)) == 1


def test_an_operation_of_more_items_than_an_entry_names_is_refused() -> None:
    stage = ToyStage()
    opened(stage)
    session = stage.inner._sessions[1]
    many = Operation(2, -1, -1, True, (), tuple(Call(item(f"method m{n}"), ()) for n in range(257)))
    verdict: Any = stage.inner._decide(session, many)
    assert verdict.fault == "audit" and "257 items in one write are asked; at most 256" in verdict.detail
