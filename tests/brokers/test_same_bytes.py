"""What is remembered of reads by their exact bytes changes nothing: two pairs of halves live through the same story and
one of them forgets all at once; every answer, question, entry and count is equal, and so is what ends a half."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.proxy import records
from cofferdam.errors import CrossingError
from cofferdam.policy.points.decide import Flow, Known
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.base import RequestReceived, RequestRefused
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus.machine import Form, Meanings, ModbusServer
from cofferdam.protocols.modbus.messages import ModbusRequest
from cofferdam.protocols.modbus.operations import Modbus
from tests.brokers.harness import make_policy
from tests.brokers.stage import Stage, adu, answer, exception, read, write
from tests.examples import examples

POLICIES = [
    {},
    {"registers": "50-99"},
    {"conduit_extra": "expires: 2027-01-15"},
    {"conduit_extra": 'window: {days: fri, from: "08:00", to: "08:01", zone: UTC}'},
    {"limits": "client_requests_per_second: 3, client_requests_burst: 3"},
    {"asset_extra": "share_reads: 200ms"},
    {"reads": "refuse"},
]
"""The first is in force at the beginning, which is a Friday, 08:00:00 UTC."""


@functools.cache
def compiled() -> list[bytes]:
    return [make_policy(device_port=5020, port=502, **extra).to_bytes() for extra in POLICIES]


class Nothing(dict[Any, Any]):
    """Remembers nothing."""

    def get(self, key: Any, default: Any = None) -> Any:
        return default


class NoMeanings(Meanings):
    """Remembers nothing."""

    def request(self, body: bytes) -> Form | None:
        return None

    def form(self, request: ModbusRequest) -> Form | None:
        return None

    def encoded(self, request: ModbusRequest, frame: bytes) -> Form:
        return Form(request)


class Pair:
    """A stage, and what it does in each step of a story."""

    def __init__(self, forgets: bool) -> None:
        self.forgets = forgets
        self.protocol = Modbus()
        if forgets:
            self.protocol._meanings = NoMeanings()
        # One for each pair: a policy keeps its flows, and flows remember.
        self.policies = [CompiledPolicy.from_bytes(data) for data in compiled()]
        self.stage = Stage(policy=self.policies[0], protocols={"modbus": self.protocol})
        self.clients = [self.stage.client(), self.stage.client(port=40001), self.stage.client("10.9.9.9")]
        self.questions: list[bytes] = []
        self.recalled = 0
        self.crossed: set[type] = set()
        """Kinds of records that have crossed."""
        for link in (self.stage.to_inner, self.stage.to_outer):
            link.take = functools.partial(self._taken, link.take)  # type: ignore[method-assign]
        self.forget()

    def close(self) -> None:
        """Its halves end, and their sockets are closed."""
        self.stage.inner.end()
        self.stage.outer.end()

    def _taken(self, take: Callable[[], list[Any]]) -> list[Any]:
        found = take()
        self.crossed.update(type(record) for record in found)
        return found

    def forget(self) -> None:
        for _, session in self.stage.outer._sessions.values():
            self._look(session.flow)
        for one in self.stage.inner._sessions.values():
            self._look(one.flow)

    def _look(self, flow: Any) -> None:
        if isinstance(flow, Flow):
            if self.forgets:
                flow._recalled = Nothing()
            self.recalled += len(flow._recalled)

    def step(self, what: str, value: Any) -> list[Any]:
        """Does it, and returns all that can be seen of it."""
        stage = self.stage
        raised = ""
        try:
            self._do(what, value)
            self.forget()
            stage.cross()
        except CrossingError as error:
            raised = str(error)
        for wire in stage.devices:
            if wire.on_connected is not None and not wire.closed:
                wire.on_connected()
                wire.on_connected = None
        if not raised:
            stage.cross()
        asked, heard = self.asked(), self.heard()
        drafts, stage.audit_pipe.drafts = stage.audit_pipe.drafts, []
        outer, inner = stage.outer, stage.inner
        return [
            raised, heard, asked,
            sorted(drafts, key=repr), outer.figures(), inner.figures(), sorted(outer.sessions(), key=repr),
            outer.limit_hits, inner.limit_hits, outer.faults, inner.faults,
            outer.malformed, inner.malformed, outer.busy, inner.busy, inner.alarms(), outer.alarms(),
        ]  # fmt: skip

    def asked(self) -> list[list[Any]]:
        """What each device is asked, which are questions to be answered from now on."""
        found = [wire.take() for wire in self.stage.devices]
        self.questions += [question for questions in found for question in questions]
        return found

    def heard(self) -> list[Any]:
        """What the clients are answered."""
        return [(client.take(), client.closed, client.paused) for client in self.clients]

    def _do(self, what: str, value: Any) -> None:
        stage = self.stage
        if what == "ask":
            number, frames = value
            if not self.clients[number].closed:
                self.clients[number].arrive(frames)
        elif what == "answer" and self.questions:
            question = self.questions.pop(0)
            device = stage.devices[-1]
            if not device.closed:
                device.on_data(value(question))
        elif what == "pass":
            stage.reactor.advance(value)
            stage.outer.tick()
            stage.inner.tick()
        elif what == "reload":
            policy = self.policies[value]
            stage.audit.policy = policy.hash
            for half in (stage.inner, stage.outer):
                half.take_policy(policy, tuple(policy.assets))
        elif what == "sever":
            for half in (stage.inner, stage.outer):
                half.set_severed(value)
        elif what == "log":
            stage.writable(value)
        elif what == "forged":
            session, ahead, message = value
            stage.inner.take(records.Request(session, stage.inner._last_id + ahead, message))
        elif what == "kept":
            # Whoever remembers is asked by a place that no honest half has given, the other by the message itself.
            asked, message = value
            number = stage.inner._last_id + 1
            if self.forgets:
                for at, session in enumerate(asked):
                    stage.inner.take(records.Request(session, number + at, message))
            else:
                stage.inner.take(records.Kept(asked[0], number, message, records.PLACES))
                if asked[1:]:
                    again = [one for session in asked[1:] for one in (session, records.PLACES)]
                    stage.inner.take(records.Again(number + 1, again))


TRANSACTIONS = st.integers(1, 4)
FRAMES = st.one_of(
    st.builds(read, TRANSACTIONS, st.sampled_from([0, 0, 0, 60, 98, 200]), st.sampled_from([1, 2, 2]),
              st.sampled_from([1, 1, 1, 2]), st.sampled_from([3, 3, 3, 4])),
    st.builds(write, TRANSACTIONS, st.sampled_from([200, 210, 220, 0]), st.sampled_from([1, 90, 1501])),
    st.builds(adu, TRANSACTIONS, st.sampled_from([bytes.fromhex(text) for text in (
        "0300000000", "03ffff0002", "030000007e", "03000000020000", "0800000000", "11", "7f", "0000000001",
        "170000000100c800010200ff", "01000a0004",
    )])),
)  # fmt: skip
ANSWERS = [
    lambda question: answer(question, *range(7, 7 + int.from_bytes(question[10:12], "big") % 100)),
    lambda question: exception(int.from_bytes(question[:2], "big"), question[7], 2, question[6]),
    lambda question: question[:7] + b"\x03\x02\x00\x01",
    lambda question: b"\0\1\0\7garbage" + question,
]


def steps(
    frames: Any, again: Any, answers: list[Any], policies: int, forged: list[Any], kept: list[Any],
    joined: Any = b"".join,
) -> st.SearchStrategy[Any]:  # fmt: skip
    """What may happen next. `again`: what is asked often; `answers`: of a device, the first is the usual one;
    `forged`: requests that the inner half may be told; `kept`: reads that it may be told to keep; `joined`: makes one
    of several frames."""
    return st.one_of(
        st.tuples(st.just("ask"), st.tuples(
            st.sampled_from([0, 0, 0, 1, 2]), st.lists(frames, min_size=1, max_size=3).map(joined)
        )),
        st.tuples(st.just("ask"), st.tuples(st.just(0), again)),
        st.tuples(st.just("answer"), st.sampled_from([answers[0], answers[0], answers[0], *answers])),
        st.tuples(st.just("pass"), st.sampled_from([0.001, 0.3, 1.5, 61.0, 57_600.0])),
        st.tuples(st.just("reload"), st.integers(0, policies - 1)),
        st.tuples(st.just("sever"), st.sampled_from([("it",), ("ot",), (), ()])),
        st.tuples(st.just("log"), st.booleans()),
        st.tuples(st.just("forged"), st.tuples(
            st.integers(1, 4), st.sampled_from([1, 1, 1, 0]), st.sampled_from(forged)
        )),
        st.tuples(st.just("kept"), st.tuples(
            st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from(kept)
        )),
    )  # fmt: skip


STEPS = steps(FRAMES, st.builds(read, TRANSACTIONS), ANSWERS, len(POLICIES), [
    m.ReadHoldingRegisters(1, 0, 2), m.ReadHoldingRegisters(1, 200, 1), m.ReadHoldingRegisters(1, 65535, 2),
    m.ReadHoldingRegisters(9, 0, 2), m.WriteSingleRegister(1, 200, 5),
], [m.ReadHoldingRegisters(1, 0, 2), m.ReadHoldingRegisters(1, 98, 3), m.ReadInputRegisters(1, 0, 2)])  # fmt: skip


@examples(60)
@given(st.lists(STEPS, min_size=1, max_size=30))
def test_a_pair_that_remembers_and_one_that_does_not_do_the_same(story: list[tuple[str, Any]]) -> None:
    remembers, forgets = Pair(False), Pair(True)
    for at, (what, value) in enumerate([("ask", (0, read(1))), ("answer", ANSWERS[0]), ("ask", (0, read(1))), *story]):
        seen, expected = remembers.step(what, value), forgets.step(what, value)
        assert seen == expected, (at, what)
        if seen[0]:
            return  # that half has stopped
    assert remembers.recalled
    assert not forgets.recalled
    assert not forgets.crossed & {records.Kept, records.Again}


def test_the_pairs_are_as_different_as_they_should_be() -> None:
    """The test above would hold nothing if both crossed by the same records."""
    remembers, forgets = Pair(False), Pair(True)
    for pair in (remembers, forgets):
        for _ in range(3):
            pair.step("ask", (0, read(1)))
            pair.step("answer", ANSWERS[0])
        pair.step("kept", ([1, 1], m.ReadHoldingRegisters(1, 0, 2)))
    assert remembers.crossed == {records.Opened, records.Request, records.Kept, records.Again, records.Rows}
    assert forgets.crossed == {records.Opened, records.Request, records.Rows}


def test_a_machine_remembers_what_a_decoder_said_and_nothing_of_a_write() -> None:
    meanings = Meanings()
    first, second = ModbusServer(meanings), ModbusServer(meanings)
    asked: list[ModbusRequest] = []
    for machine in (first, second, first):
        for frame in (read(5), write(6, 200, 1), adu(7, bytes.fromhex("0300000000"))):
            machine.receive_data(frame)
            event = machine.next_event()
            assert isinstance(event, RequestReceived | RequestRefused)
            machine.release(event.token)
            if isinstance(event, RequestReceived):
                asked.append(event.request)
    form = meanings.request(read(5)[6:])
    assert form is not None and asked[0] is asked[2] is asked[4] is form.request
    assert asked[1] == asked[3] and asked[1] is not asked[3]
    assert meanings.request(write(6, 200, 1)[6:]) is None
    assert meanings.request(adu(7, bytes.fromhex("0300000000"))[6:]) is None


def test_what_is_known_of_a_request_is_what_it_says() -> None:
    flow = make_policy(device_port=5020, port=502).flow("modbus", "127.0.0.1", "plc", ("enterprise",))
    assert isinstance(flow, Flow)
    request = m.ReadHoldingRegisters(1, 3, 9)
    operation = Modbus().operation(request)
    verdict = flow.decide(operation, 1_800_000_000_000_000_000)
    known = Known(request, operation, verdict)  # type: ignore[arg-type]
    assert (known.cells, known.unit, known.conduit) == (9, 1, "main")
