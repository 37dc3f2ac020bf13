"""OPC UA with a hostile process in the place of each half: what the outer one says reaches the asset within policy or
not at all, and the outer half tells a client nothing that this client did not ask for."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.proxy import records
from cofferdam.errors import CofferdamError, CrossingError
from cofferdam.model import Assign, Deny, Fault, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.base import (
    NEED_DATA,
    Facing,
    LocalAnswer,
    NoticeReceived,
    Over,
    Released,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
)
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.trust import Trust
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.values import Bool, Float32, Float64, Int32, Int64, Octets, Text, Value
from tests.brokers.stage import Stage, Wire
from tests.examples import examples
from tests.policy.plant import NOW
from tests.protocols.opcua.site import policy

OPCUA = PROTOCOLS["opcua"]
LINE = "nsu=urn:plant:line;s=Line1"
RESET, PURGE, RINSE = (f"{LINE} -> {LINE}.{name}" for name in ("Reset", "Purge", "Rinse"))
RULES = (
    "{who: mes, asset: filler, read: [speed, level, counts, limits, title, due, order, target, verdict, topic, grid], "
    "subscribe: [level], "
    "write: [speed, recipe, counts, due, order, grid], call: [reset, rinse], history: [level], events: [brief]}",
    "{who: guest, asset: filler, read: [level]}",
)
WHO = ("mes: {zone: office, addresses: [127.0.0.1]}", "guest: {zone: office, addresses: 10.1.0.66}")
SOURCES = {1: "127.0.0.1", 2: "10.1.0.66", 3: "10.9.9.9"}


class Device:
    """The plant's server: our machine for that side, which says yes to all that it is asked."""

    def __init__(self, link: Wire, stage: OpcUaStage) -> None:
        self.link = link
        self.stage = stage
        asset = stage.policy.assets["filler"]
        self.machine = OpcUaServer(
            Facing(Trust({}), asset, os.urandom, stage.wall, lambda _op: True, lambda _verb, _item: True,
                   "127.0.0.1", ("127.0.0.1", 4840))
        )  # fmt: skip
        self.asked: list[Any] = []
        self.watched: list[int] = []
        self.notifies: dict[int, int] = {}  # tokens of events: how many fields
        self.held: dict[str, Value] = {}
        self.speeds: list[float] = []

    def turn(self) -> bool:
        data = b"".join(self.link.take())
        self.machine.on_time(self.stage.reactor.now)
        self.machine.receive_data(data)
        while (event := self.machine.next_event()) is not NEED_DATA:
            if isinstance(event, RequestReceived):
                self.asked.append(event.request)
                if isinstance(event.request, m.Subscribe):
                    self.watched.append(event.token)
                if isinstance(event.request, m.Events):
                    self.notifies[event.token] = len(event.request.fields)
                self._say(self.machine.send(event.token, self._answer(event.request)))
            elif isinstance(event, (LocalAnswer, Released, RequestRefused)):
                self._say(self.machine.send(event.token, event.reply))
        self._say(self.machine.take_output())
        return bool(data)

    def news(self) -> None:
        for token in self.watched[:3]:
            self._say(self.machine.notice(token, m.Changed((m.Sample(Float64((4.0,))),))))
        for token, fields in list(self.notifies.items())[:3]:
            self._say(self.machine.notice(token, m.Happened(((Text(("jam",)),) * fields,))))

    def _say(self, data: bytes) -> None:
        if data and not self.link.closed:
            self.link.on_data(data)

    def _answer(self, request: Any) -> Any:
        match request:
            case m.Read(items):
                return m.Values(tuple(m.Sample(self.held.get(one.name, Float64((7.0,)))) for one in items))
            case m.Write(writes):
                for write in writes:
                    assert write.value is not None
                    if write.item.name == f"{LINE}.Speed":
                        self.speeds.append(float(write.value.values[0]))
                    self.held[write.item.name] = write.value
                return m.Written((0,) * len(writes))
            case m.CallMethod():
                return m.Outputs(0, (), ())
            case m.CallMethods(calls):
                return m.Results((m.Outputs(0, (), ()),) * len(calls))
            case m.Survey(items):
                return m.Described(tuple(m.Node(one.name, 2, ("", "x"), m.Localized("", "x")) for one in items
                                         if " -> " not in one.name))  # fmt: skip
            case m.History():
                return m.Samples((m.Sample(Float64((1.0,))),))
            case m.Subscribe() | m.Events():
                return m.Subscribed(request.interval_us, 1)
        raise AssertionError(request)


class OpcUaStage(Stage):
    zones = (("office",), "plant")
    place = ("127.0.0.1", 4841)

    def __init__(self) -> None:
        text = policy(4840, 4841, *RULES, who=WHO)
        super().__init__(policy=compile_policy(loads(text), now_ns=NOW), broker="opcua")
        self.plant: list[Device] = []

    def wall(self) -> int:
        return self.reactor.now + self.wall_offset

    def turn(self) -> None:
        """The inner half and the device come to rest; nobody is at the outer end."""
        for _ in range(30):
            self.reactor.settle()
            if self.audit_pipe.unanswered:
                self.acknowledge()
            for link in self.devices[len(self.plant) :]:
                self.plant.append(Device(link, self))
                assert link.on_connected is not None
                link.on_connected()
            busy = [device.turn() for device in self.plant if not device.link.closed]
            if not any(busy) and not self.audit_pipe.unanswered:
                return


NODES = [f"{LINE}.{name}" for name in (*["Speed"] * 4, "Level", "Level", "Recipe", "Recipe", "Counts",
    "Counts", "Secret", "Due", "Order", "Grid")] + [
    LINE, "i=2255", "i=2258", "nsu=urn:plant:other;s=Line1.Speed", f"{LINE}.speed", f"{LINE}.Speed ",
]  # fmt: skip
GUID, YEAR_2027 = "09087e75-8e5e-499b-954f-f2a9603db28a", 134432352000000000
FIELDS = ["Message"] * 8 + ["Severity"] * 4 + ["EventId", "ActiveState/Id", "nsu=urn:plant:line;Batch", "a//b"]
LIES = [
    "ns=2;s=Line1.Speed", "s=Line1.Speed", "nsu=urn:plant:line;i=007", "nsu=urn%3Aplant:line;s=Line1.Speed", "",
    f"{LINE}.Speed\0", RESET, "nsu=http://opcfoundation.org/UA/;i=2255",
]  # fmt: skip


class Forger:
    """Makes records by chance, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def item(self, kind: str = "node") -> Item:
        rng = self.rng
        name = rng.choice(NODES if rng.random() < 0.985 else [one or "x" for one in LIES])
        where = rng.choice((*((-1, 1),) * 12, (0, 1), (0, 4), (1, 2), (3, 1), (4, 1), (8, 1), (2, 9)))
        if kind != "node":
            where = (-1, 1)
        return Item(kind, name, *where)

    def value(self, item: Item) -> Any:
        rng = self.rng
        number = rng.choice((0.0, 5.0, 400.0, 507.0, 508.0, 900.0, 1500.0, 1501.0, -1.0, float("nan"), float("inf")))
        array = rng.random() < (0.8 if item.first >= 0 or item.name.endswith("Counts") else 0.1)
        count = rng.choice((item.count, item.count, 4, 1, 2)) if array else 1
        if item.name.endswith("Recipe"):
            return Text(tuple("x" * rng.choice((0, 8, 8, 9, 1)) for _ in range(count)), array)
        if item.name.endswith("Counts"):
            return Int32(tuple(rng.randint(-5, 5) for _ in range(count)), array)
        if item.name.endswith("Due"):
            return Int64(
                (rng.choice((0, YEAR_2027, YEAR_2027 - 1, YEAR_2027 + 10**14, YEAR_2027 + 10**15)),) * count, array
            )
        if item.name.endswith("Grid"):
            return Float64((rng.choice((0.0, 9.0, 9.0, 10.0)),) * rng.choice((6, 6, 6, 5)), rng.random() < 0.9)
        if item.name.endswith("Order"):
            return Text((rng.choice((GUID, GUID, GUID.upper(), "junk")),) * count, array)
        kind = rng.choice((Float64, Float64, Float64, Float64, Float32, Int32, Text, Octets, Bool))
        if kind in (Float64, Float32):
            return kind((number,) * count, array)
        one: Any = {Int32: 5, Text: "5", Octets: b"5", Bool: True}[kind]
        return kind((one,) * count, array)

    def write(self) -> Any:
        writes = []
        for _ in range(self.rng.choice((1, 1, 1, 2))):
            item = self.item()
            writes.append(Assign(item, self.value(item)))
        return m.Write(tuple(writes))

    def call(self, name: str) -> Any:
        rng = self.rng
        count: Any = Int32((rng.choice((0, 3, 10, 10, 11)),), rng.random() < 0.1)
        return m.CallMethod(
            Item("method", name), rng.choice(((count,),) * 4 + ((), (count, count), (Float64((1.0,)),)))
        )

    def request(self) -> Any:
        rng = self.rng
        chance = rng.random()
        if chance < 0.4:
            return self.write()
        if chance < 0.6:
            return m.Read(tuple(self.item() for _ in range(rng.choice((1, 1, 2, 5)))))
        if chance < 0.75:
            if chance < 0.65:
                names = rng.choice(((RESET, RINSE), (RINSE, RESET), (RESET, RESET), (RESET, PURGE)))
                return m.CallMethods(tuple(self.call(name) for name in names))
            return self.call(rng.choice((RESET, RESET, RESET, PURGE)))
        if chance < 0.78:
            fields = rng.choices(FIELDS, k=rng.choice((1, 1, 2)))
            narrow = rng.choice(((0, (), ()),) * 4 + ((500, (), ()), (0, ("i=2782",), ()), (0, (), ("i=2041",))))
            return m.Events(Item("event", rng.choice((LINE, LINE, LINE, "i=2253"))), 100_000,
                            tuple(("i=2041", field) for field in fields), 10, True, *narrow)  # fmt: skip
        if chance < 0.9:
            us = rng.choice((0, 49_999, 50_000, 50_000, 10**10))
            return m.Subscribe(self.item(), us, rng.choice((1, 100)), True, rng.choice((0, 1, 2)), 0.0)
        if chance < 0.95:
            return m.History(self.item("history"), 0, rng.choice((0, 1 << 62)), rng.choice((1, 10_000)))
        kind = rng.choice(("about", "about", "tree"))
        return m.Survey(tuple(self.item(kind) for _ in range(rng.choice((1, 2)))))

    def record(self, number: int, inner: Any) -> Any:
        """The next record; `number` is that of a request."""
        rng, session, chance = self.rng, self.rng.choice((1,) * 8 + (2, 3)), self.rng.random()
        standing = list(inner._standings.values())
        if chance < 0.005:
            return records.Closed(session)
        if chance < 0.007:
            return records.Opened(rng.choice((session, 9)), "s", SOURCES[1], rng.choice(("filler", "other")))
        if standing and chance < 0.05:
            one = rng.choice(standing)
            return records.Unwatch(one.session.id if rng.random() < 0.98 else 7, one.handle)
        if chance < 0.052:
            return records.Unwatch(session, rng.randint(1, 99))
        request = self.request()
        while _lie(request) and rng.random() < 0.99:  # a lie that is found out at once tries nothing more
            request = self.request()
        kind: Any = records.Watch if isinstance(request, (m.Subscribe, m.Events)) else records.Request
        if chance > 0.998:
            kind = records.Request if kind is records.Watch else records.Watch
        return kind(session, number if chance < 0.996 else number - 30, request)


def _lie(request: Any) -> bool:
    try:
        OPCUA.check(request)
    except CrossingError:
        return True
    return False


def run(seed: int) -> OpcUaStage:
    stage, forger = OpcUaStage(), Forger(seed)
    for number, source in SOURCES.items():
        stage.inner.take(records.Opened(number, f"s{number}", source, "filler"))
    try:
        for number in range(100, 145):
            stage.to_inner.send(forger.record(number, stage.inner))
            for decoded in stage.to_inner.take():
                stage.inner.take(decoded)
            stage.turn()
            for device in stage.plant:
                device.news()
            stage.to_outer.take()
    except CrossingError:
        pass  # the half stops: what came before was within policy all the same
    stage.turn()
    stage.inner.end()
    return stage


@given(st.integers(0, 1 << 60))
@examples(700)
def test_nothing_reaches_the_asset_that_policy_does_not_allow(seed: int) -> None:
    stage = run(seed)
    flows = [stage.policy.flow("opcua", source, "filler", ("office",)) for source in SOURCES.values()]
    allowed = [flow for flow in flows if isinstance(flow, Flow)]
    last: float | None = None
    for device in stage.plant:
        for request in device.asked:
            verdicts = [flow.decide(OPCUA.operation(request), stage.inner._wall()) for flow in allowed]
            # Whether a step is within its limit is a matter of values, and looked at below.
            assert any(not isinstance(verdict, Deny) for verdict in verdicts), request
            if isinstance(request, m.Write):
                _within(request)
            calls = request.calls if isinstance(request, m.CallMethods) else (request,)
            for call in calls if isinstance(calls[0], m.CallMethod) else ():
                count: Any = call.arguments[0].values[0]
                assert call.item.name in (RESET, RINSE) and 0 <= count <= 10, request
        for speed in device.speeds:
            assert last is None or abs(speed - last) <= 500, device.speeds
            last = speed


def _within(request: m.Write) -> None:
    """The limits of the policy, said here a second time, and of nothing but what is sent."""
    for write in request.writes:
        name, value = write.item.name.removeprefix(f"{LINE}."), write.value
        assert value is not None
        match name:
            case "Speed":
                assert write.item.first < 0 and not value.array and type(value) is Float64
                assert 0 <= value.values[0] <= 1500
            case "Recipe":
                assert write.item.first < 0 and not value.array and type(value) is Text and len(value.values[0]) <= 8
            case "Counts":
                assert value.array and type(value) is Int32
                if write.item.first < 0:
                    assert len(value.values) == 4
                else:
                    assert len(value.values) == write.item.count and write.item.first + write.item.count <= 4
            case "Due":  # at the server a DateTime, which the device's own machine has told to be one
                assert write.item.first < 0 and not value.array and type(value) is Int64
                assert YEAR_2027 <= value.values[0] < YEAR_2027 + 365 * 864 * 10**9
            case "Grid":  # at the server of two rows of three
                assert write.item.first < 0 and value.array and len(value.values) == 6
                assert type(value) is Float64 and all(0 <= one <= 9 for one in value.values)
            case "Order":
                assert write.item.first < 0 and value == Text((GUID,))
            case _:
                raise AssertionError(request)


def test_the_forger_tries_what_it_should() -> None:
    """The test above would hold nothing if nothing ever reached the device."""
    seen: Counter[str] = Counter()
    for seed in range(300):
        for device in run(seed).plant:
            seen.update(type(one).__name__ for one in device.asked)
            seen.update(one.writes[0].item.name for one in device.asked if isinstance(one, m.Write))
    kinds = ("Read", "Write", "CallMethod", "CallMethods", "Subscribe", "History", "Survey", "Events")
    for kind in (*kinds, *(f"{LINE}.{name}" for name in ("Speed", "Recipe", "Counts", "Due", "Order", "Grid"))):
        assert seen[kind] > 5, seen


class Client:
    """A client of the outer half: our machine for that side."""

    def __init__(self, stage: OpcUaStage) -> None:
        self.stage = stage
        self.link = stage.client()
        asset = stage.policy.assets["filler"]
        self.machine = OpcUaClient(
            Facing(Trust({}), asset, os.urandom, stage.wall, lambda _op: True, lambda _verb, _item: True), 8
        )
        self.heard: list[Any] = []
        self.turn()

    def turn(self) -> None:
        for _ in range(20):
            self.machine.on_time(self.stage.reactor.now)
            said = self.machine.take_output()
            if said and not self.link.closed:
                self.link.arrive(said)
            self.stage.reactor.settle()
            data = b"".join(self.link.take())
            self.machine.receive_data(data)
            while (event := self.machine.next_event()) is not NEED_DATA:
                self.heard.append(event)
            if not said and not data:
                return

    def ask(self, request: Any) -> Any:
        """What crosses of a request."""
        _, data = self.machine.send(request)
        self.link.arrive(data)
        self.turn()
        sent = [one for one in self.stage.to_inner.take() if not isinstance(one, records.Opened)]
        return sent[-1] if sent else None

    def of(self, kind: Any) -> list[Any]:
        return [event for event in self.heard if isinstance(event, kind)]


LEVEL, SPEED, COUNTS = (Item("node", f"{LINE}.{name}") for name in ("Level", "Speed", "Counts"))
QUESTIONS = [
    m.Read((SPEED, LEVEL)), m.Read((Item("node", f"{LINE}.Counts", 1, 2),)),
    m.Write((Assign(SPEED, Float64((5.0,))),)), m.CallMethod(Item("method", RESET), (Int32((3,)),)),
    m.History(Item("history", LEVEL.name), 0, 1 << 60, 5), m.Subscribe(LEVEL, 100_000),
    m.Events(Item("event", LINE), 100_000, (("i=2041", "Message"), ("i=2041", "Severity"))),
]  # fmt: skip
SAMPLE = m.Sample(Float64((1.0,)))
MANY = m.Sample(Int32((1, 2, 3), True))
ANSWERS = [
    m.Values((SAMPLE, SAMPLE)), m.Values((SAMPLE,)), m.Values((MANY,)), m.Values(()), m.Written((0,)),
    m.Written((0, 0)), m.Written((0x40000000,)), m.Outputs(0, (), (Int32((1,)),)), m.Samples((SAMPLE,) * 3),
    m.Samples((SAMPLE,) * 9), m.Subscribed(100_000, 1), m.Refused(0x80340000), m.Refused(0),
    m.Described((m.Node("i=5", 2, ("", "x"), m.Localized("", "x")),)),
    m.Values((m.Sample(m.Nodes(("ns=2;s=x",))), SAMPLE)), m.Values((m.Sample(Float64(())), SAMPLE)),
]  # fmt: skip


@given(st.integers(0, 1 << 60))
@examples(150)
def test_the_outer_half_tells_a_client_nothing_that_it_did_not_ask(seed: int) -> None:
    """An inner half that was taken over says anything: a client gets what fits its request, or the crew stops."""
    rng = random.Random(seed)
    stage = OpcUaStage()
    try:
        client, other = Client(stage), Client(stage)
        asked = [(client.ask(question), question) for question in rng.sample(QUESTIONS, 3)]
        before = len(client.heard)
        standing: set[int] = set()
        for _ in range(6):
            number = rng.choice([*(record.id for record, _ in asked if record is not None), 999])
            answer = rng.choice(ANSWERS)
            handle = rng.choice((1, 2, 2, 3, 9))
            record: Any = rng.choice(
                (
                    records.Reply(number, answer, 0, 0), records.Reply(number, answer, 0, 0),
                    records.Watched(number, handle, answer, 0, 0),
                    records.Notice(handle, m.Changed((rng.choice((SAMPLE, MANY)),))),
                    records.Notice(handle, m.Happened(((Text(("jam",)),) * rng.choice((1, 2, 2)),))),
                    records.Unwatched(handle, "", "", rng.choice((None, Fault.CONDUIT)), ""),
                    records.Denied(number, "", "", Fault.VALUE, ""),
                )
            )  # fmt: skip
            try:
                stage.outer.take(record)
            except CofferdamError:
                return
            if isinstance(record, records.Watched) and any(one.id == number for one, _ in asked if one is not None):
                standing.add(handle)
            client.turn()
            if isinstance(record, records.Notice):
                assert record.handle in standing or not client.of(NoticeReceived)
        other.turn()
        assert not [one for one in other.heard if isinstance(one, (ResponseReceived, NoticeReceived, Over))]
        for event in client.heard[before:]:
            if isinstance(event, ResponseReceived):
                fitting = [question for _, question in asked if not OPCUA.mismatch(question, event.response)]
                assert fitting, event
    finally:
        stage.outer.end()


def watching(stage: OpcUaStage) -> tuple[Client, Any]:
    """A client with a watch of Level, by handle 1."""
    client = Client(stage)
    record = client.ask(m.Subscribe(LEVEL, 100_000))
    assert isinstance(record, records.Watch)
    stage.outer.take(records.Watched(record.id, 1, m.Subscribed(100_000, 1), 0, 0))
    client.turn()
    assert client.of(ResponseReceived)
    return client, record


def test_news_come_to_who_asked_for_them() -> None:
    stage = OpcUaStage()
    client, _ = watching(stage)
    stage.outer.take(records.Notice(1, m.Changed((SAMPLE,))))
    for _ in range(4):
        stage.reactor.advance(0.1)
        client.turn()
    assert [event.message for event in client.of(NoticeReceived)] == [m.Changed((SAMPLE,))]
    stage.outer.end()


@pytest.mark.parametrize(
    "news",
    [
        m.Changed((m.Sample(Float64(())),)),  # a single value that is none
        m.Changed((m.Sample(m.Nodes(("ns=2;s=Line1",))),)),  # a node by its number
    ],
)
def test_news_that_do_not_hold_together_end_the_half(news: m.Changed) -> None:
    stage = OpcUaStage()
    watching(stage)
    with pytest.raises(CrossingError, match="does not fit its request"):
        stage.outer.take(records.Notice(1, news))
    stage.outer.end()


def test_more_elements_than_a_watch_asks_for_end_the_half() -> None:
    assert OPCUA.misfit(m.Subscribe(Item("node", COUNTS.name, 1, 2), 100_000), m.Changed((MANY,)))
    assert not OPCUA.misfit(m.Subscribe(Item("node", COUNTS.name, 1, 3), 100_000), m.Changed((MANY,)))
    assert OPCUA.misfit(m.Read((LEVEL,)), m.Changed((SAMPLE,)))


def test_a_handle_is_given_out_once_and_for_what_stands() -> None:
    stage = OpcUaStage()
    client, _ = watching(stage)
    read = client.ask(m.Read((SPEED,)))
    with pytest.raises(CrossingError, match="asked for nothing that stands"):
        stage.outer.take(records.Watched(read.id, 2, m.Values((SAMPLE,)), 0, 0))
    again = client.ask(m.Subscribe(LEVEL, 200_000))
    with pytest.raises(CrossingError, match="handle 1 again"):
        stage.outer.take(records.Watched(again.id, 1, m.Subscribed(200_000, 1), 0, 0))
    with pytest.raises(CrossingError, match="never given out"):
        stage.outer.take(records.Notice(7, m.Changed((SAMPLE,))))
    stage.outer.end()
