"""Events: what a filter means, there and back; what is refused of it, by name; and what a client is told of its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import CrossingError
from cofferdam.model import Deny, Fault, Item, Operation, Watch
from cofferdam.protocols.base import NoticeReceived, ResponseReceived
from cofferdam.protocols.opcua import events as ev
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import LocalizedText, Malformed, NodeId, QualifiedName, Variant
from cofferdam.protocols.opcua.dialect import field_path, field_text
from cofferdam.protocols.opcua.names import UA, Namespaces
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.values import Float64, Int16, Text
from tests.protocols.opcua.pair import Pair, plain

LINE = "nsu=urn:plant:line;s=Line1"
OPCUA = PROTOCOLS["opcua"]
NAMES = Namespaces((UA, "urn:own", "urn:plant:line", "http://other/names;%"))
TYPES = st.sampled_from(["i=2041", "i=2782", "nsu=urn:plant:line;i=5", "nsu=urn:plant:line;s=Jam"])
PATHS = st.lists(
    st.tuples(st.sampled_from(["", "urn:plant:line", "http://other/names;%"]),
              st.text("abc %;=n\u00e9", min_size=1, max_size=8)),
    min_size=1, max_size=4,
)  # fmt: skip


def request(*fields: str, **more: Any) -> m.Events:
    chosen = tuple(("i=2041", field) for field in fields or ("Message", "Severity"))
    return m.Events(Item("event", LINE), 100_000, chosen, 10, **more)


@given(PATHS)
def test_a_field_has_one_spelling(path: list[tuple[str, str]]) -> None:
    text = field_text(path)
    assert field_path(text) == tuple(path) and OPCUA.dialect.notation.field(text) == text


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "a//b", "nsu=;x", "nsu=u;", "nsu=u", "a\0", "a -> b", "x" * 1025,
                                  "/".join("a" * 21), "nsu=a%;b", "nsu=a%2F;b"])  # fmt: skip
def test_what_is_no_field(text: str) -> None:
    with pytest.raises(ValueError, match="field"):
        field_path(text)


@given(st.builds(
    request, st.just("Message"), st.just("ConditionId"), st.just("ActiveState/Id"), severity=st.integers(0, 1000),
    of=st.lists(st.sampled_from(["i=2782", "nsu=urn:plant:line;i=5", "i=2130"]), unique=True, max_size=3).map(tuple),
    exactly=st.lists(st.sampled_from(["i=2041", "nsu=urn:plant:line;s=Jam"]), unique=True, max_size=2).map(tuple),
))  # fmt: skip
def test_a_filter_made_anew_means_the_same(asked: m.Events) -> None:
    found = wire.unpack(ev.filter_of(asked, NAMES))
    assert isinstance(found, s.EventFilter)
    assert tuple(ev.selected(clause, NAMES) for clause in found.select) == asked.fields
    where = ev.narrowed(found.where, NAMES)
    assert (where.severity, sorted(where.of), sorted(where.exactly)) == (
        asked.severity, sorted(asked.of), sorted(asked.exactly),
    )  # fmt: skip


def clause(*path: str, attribute: int = 13, ns: int = 0, kind: int = 2041, range: str | None = None) -> s.SimpleOperand:
    return s.SimpleOperand(NodeId(0, kind), [QualifiedName(ns, one) for one in path], attribute, range)


@pytest.mark.parametrize(("asked", "status"), [
    (clause("Message", range="1"), 0x80360000), (clause("Message", attribute=3), 0x80350000), (clause(), 0x80350000),
    (clause("a/b"), 0x80600000), (clause("a", ns=9), 0x80600000), (clause(""), 0x80600000),
    (s.SimpleOperand(NodeId(9, 1), [], 1, None), 0x80630000),
])  # fmt: skip
def test_a_select_clause_that_is_none(asked: s.SimpleOperand, status: int) -> None:
    assert ev.selected(asked, NAMES) == status


def element(operator: int, *operands: Any) -> s.FilterElement:
    return s.FilterElement(operator, [wire.pack(one) for one in operands])


def literal(value: Any, kind: int = 17) -> s.LiteralOperand:
    return s.LiteralOperand(Variant(kind, value))


def to(index: int) -> s.ElementOperand:
    return s.ElementOperand(index)


JAM = literal(NodeId(2, 5))
SEVERE = element(4, clause("Severity"), literal(500, 5))
REFUSED: dict[str, list[s.FilterElement]] = {
    "Like": [element(6, clause("Message"), literal("a%", 12))],
    "Not": [element(7, to(1)), SEVERE],
    "GreaterThanOrEqual": [element(4, clause("Cost"), literal(5, 5))],
    "LessThan": [element(3, clause("Severity"), literal(5, 5))],
    "Equals": [element(0, clause("SourceName"), literal("x", 12))],
    "Or": [element(11, to(1), to(2)), SEVERE, element(14, JAM)],
    "And between types": [element(10, to(1), to(2)), element(14, JAM), element(14, JAM)],
    "operator 99": [element(99)],
    "operand": [element(10, to(0), to(1)), SEVERE],
    "of its own": [element(10, to(1), to(1)), SEVERE],
    "leads to no": [element(10, to(1), to(7)), SEVERE],
    "of 1 operands": [element(10, to(1)), SEVERE],
    "OfType of nothing": [element(14)],
    "no NodeId": [element(14, literal(5, 5))],
    "no number": [element(4, clause("Severity"), literal("x", 12))],
    "more than": [element(10, to(1), to(2))] * 51,
    "or 400 operands": [element(9, clause("EventType"), *[JAM] * 401)],
    "namespace 9": [element(14, literal(NodeId(9, 1)))],
    # Each element leads to the next two: without a rule that each is led to once, 2 to the power of 40 steps.
    "leads": [element(10, to(at + 1), to(at + 2)) for at in range(40)] + [SEVERE, SEVERE],
}


@pytest.mark.parametrize("word", REFUSED)
def test_a_where_clause_is_refused_by_name(word: str) -> None:
    with pytest.raises(Malformed, match=word):
        ev.narrowed(REFUSED[word], NAMES)


def test_what_a_where_clause_may_say() -> None:
    def meant(*elements: s.FilterElement) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
        where = ev.narrowed(list(elements), NAMES)
        return where.severity, where.of, where.exactly

    assert meant() == (0, (), ())
    assert meant(SEVERE) == (500, (), ())
    assert meant(element(2, clause("Severity"), literal(500, 7))) == (501, (), ())
    assert meant(element(14, JAM)) == (0, ("nsu=urn:plant:line;i=5",), ())
    assert meant(element(14, literal(NodeId(0, 2041)))) == (0, (), ()), "that is all events"
    assert meant(element(0, clause("EventType"), JAM)) == (0, (), ("nsu=urn:plant:line;i=5",))
    assert meant(element(10, to(1), to(2)), SEVERE, element(14, JAM)) == (500, ("nsu=urn:plant:line;i=5",), ())
    limits = [literal(NodeId(0, number)) for number in (9341, 9482)]
    _, of, exactly = meant(element(9, clause("EventType"), *limits))
    assert of == ("i=9341",) and exactly == ("i=9341", "i=9482"), "all that we show of a type means all of it"
    assert meant(element(9, clause("EventType"), limits[0]))[1] == (), "some of it does not"


def test_each_field_is_a_read_of_its_own_and_so_is_what_a_filter_looks_at() -> None:
    operation = OPCUA.operation(request("Message", severity=500, of=("i=2782",)))
    assert operation == Operation(751, -1, -1, False, (
        Watch(Item("event", LINE), 100_000), Item("event", f"{LINE} -> Message"), Item("event", f"{LINE} -> Severity"),
        Item("event", f"{LINE} -> EventType"),
    ))  # fmt: skip


@pytest.mark.parametrize("wrong", [
    request("a//b"), request("Message", of=("ns=2;i=5",)), request("x" * 1025),
    m.Events(Item("node", LINE), 0, (("i=2041", "Message"),)),
    m.Events(Item("event", LINE, 0, 1), 0, (("i=2041", "Message"),)),
    m.Events(Item("event", f"{LINE} -> Message"), 0, (("i=2041", "Message"),)),
    m.Events(Item("event", f"nsu=u;s={'x' * 4000}"), 0, (("i=2041", "Message" * 20),)),
    m.Events(Item("event", LINE), 0, (("Message", "Message"),)),
])  # fmt: skip
def test_no_other_request_passes(wrong: m.Events) -> None:
    with pytest.raises(CrossingError):
        OPCUA.check(wrong)


def test_news_fit_their_request_or_are_none() -> None:
    happened = m.Happened(((Text(("a",)), Int16((5,))),))
    assert OPCUA.misfit(request(), happened) == ""
    assert OPCUA.misfit(request("Message"), happened)
    assert OPCUA.misfit(m.Subscribe(Item("node", LINE), 0), happened)
    assert OPCUA.misfit(request(), m.Changed((m.Sample(None),)))
    assert OPCUA.misfit(request(), m.Happened(((Text(("a", "b")), None),)))


# --- both machines ------------------------------------------------------------------------------------------------


class Client:
    """A client of ours, by hand: what it sends, and the answers that it has not expected."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.answers: list[Any] = []
        pair.client._body = lambda body: self.answers.append(wire.decode(body.data, request=False))  # type: ignore[method-assign]

    def ask(self, kind: Any, *fields: Any) -> Any:
        client = self.pair.client
        self.pair.to_server(
            client.channel.send(client.channel.request_id(), wire.encode(kind(client.header(), *fields)))
        )
        self.pair.run()
        return self.answers[-1] if self.answers else None

    def subscribe(self) -> None:
        assert self.ask(s.CreateSubscriptionRequest, 100.0, 1000, 10, 0, True, 0).subscription == 1

    def watch(self, *clauses: s.SimpleOperand, queue: int = 0, where: list[s.FilterElement] | None = None,
              oldest: bool = True) -> Any:  # fmt: skip
        filter = wire.pack(s.EventFilter(list(clauses), where or []))
        item = s.ItemToCreate(s.ReadValueId(NodeId(2, "Line1", "s"), 12, None, QualifiedName(0, None)), 2,
                              s.MonitoringParameters(7, 0.0, filter, queue, oldest))  # fmt: skip
        return self.ask(s.CreateItemsRequest, 1, 2, [item])

    def published(self) -> list[list[Any]]:
        """The fields of the events that come with the next turn."""
        self.answers.clear()
        self.ask(s.PublishRequest, [])
        self.pair.later(200_000_000)
        parts = [part for one in self.answers if isinstance(one, s.PublishResponse) for part in one.message.data]
        return [[value.value for value in event.fields] for part in parts for event in wire.unpack(part).events]


FIELDS = (clause("Message"), clause("Severity"), clause("Batch", ns=2), clause("nowhere", ns=9))


def subscribed(**more: Any) -> tuple[Pair, Client, int]:
    """With an item of three fields, of which the last is not allowed: its token."""

    def may(operation: Operation) -> bool:
        return not any(isinstance(read, Item) and read.name.endswith("Batch") for read in operation.reads)

    pair = plain(may=may)
    client = Client(pair)
    client.subscribe()
    client.watch(*FIELDS, **more)
    [(token, asked)] = pair.asked
    assert isinstance(asked, m.Events) and asked.fields == (("i=2041", "Message"), ("i=2041", "Severity"))
    pair.answer(m.Subscribed(0, 10))
    return pair, client, token


def event(text: str, severity: int) -> m.Happening:
    return m.Texts((m.Localized("", text),)), Int16((severity,))


def test_a_client_has_the_allowed_fields_and_is_told_of_the_others() -> None:
    pair, client, token = subscribed()
    [made] = client.answers[-1].results
    assert made.status == 0 and made.queue == 1000
    assert wire.unpack(made.filter).clauses == [0, 0, 0x801F0000, 0x80600000]
    pair.to_client(pair.server.notice(token, m.Happened((event("a", 1), event("b", 2)))))
    assert client.published() == [
        [LocalizedText(None, "a"), 1, None, None], [LocalizedText(None, "b"), 2, None, None],
    ]  # fmt: skip


@pytest.mark.parametrize("oldest", [True, False])
def test_events_that_find_no_room_are_told(oldest: bool) -> None:
    pair, client, token = subscribed(queue=2, oldest=oldest)
    pair.to_client(pair.server.notice(token, m.Happened(tuple(event(str(number), number) for number in range(5)))))
    lost, *kept = client.published()
    assert "dropped" in lost[0].text and lost[1] == 500
    assert [one[1] for one in kept] == ([3, 4] if oldest else [0, 1])
    assert client.published() == [], "and told once"


def test_a_plant_that_is_away_and_comes_back_is_told_by_events() -> None:
    pair, client, token = subscribed()
    pair.to_client(pair.server.over(token, None))
    [[text, *_]] = client.published()
    assert "away" in text.text
    pair.later(2 * 10**9)
    pair.answer(m.Subscribed(0, 10))
    [[text, *_]] = client.published()
    assert "come again" in text.text


def test_policy_that_ends_it_is_told_and_nothing_is_asked_again() -> None:
    pair, client, token = subscribed()
    pair.to_client(pair.server.over(token, Deny("c", "c/0", Fault.FUNCTION, "no")))
    assert "policy" in client.published()[0][0].text
    pair.later(60 * 10**9)
    assert not pair.asked


def refresh(client: Client, *arguments: Variant) -> Any:
    """ConditionRefresh, or with two arguments ConditionRefresh2."""
    method = NodeId(0, 3875 if len(arguments) == 1 else 12912)
    client.answers.clear()
    return client.ask(s.CallRequest, [s.MethodToCall(NodeId(0, 2782), method, list(arguments))])


def test_a_refresh_is_a_watch_anew_that_takes_the_place_of_the_old() -> None:
    pair, client, old = subscribed()
    for arguments in ([Variant(7, 1)], [Variant(7, 1), Variant(7, 1)]):
        assert refresh(client, *arguments) is None, "it is answered when the asset has"
        [(token, asked)] = pair.asked
        assert isinstance(asked, m.Events) and asked.refresh
        pair.answer(m.Subscribed(0, 10))
        assert client.answers[-1].results[0].status == 0
        assert set(pair.server.services._standing) == {token} and token != old
        pair.to_client(pair.server.notice(token, m.Happened((event("a", 1),))))
        assert [one[1] for one in client.published()] == [1], "and no word of a gap"
        assert refresh(client, *arguments).results[0].status == 0x80970000, "in progress: one a second"
        pair.later(10**9)
        old = token


def test_a_refresh_that_is_refused_leaves_all_as_it_was() -> None:
    pair, client, token = subscribed()
    for answer, status in ((m.Refused(0x800A0000), 0x800A0000), (m.Subscribed(0, 10, 0x80750000), 0x80750000)):
        refresh(client, Variant(7, 1))
        pair.answer(answer)
        assert client.answers[-1].results[0].status == status
        assert len(pair.server.services._standing) == 1
        pair.later(10**9)
    for arguments, status in (
        ([Variant(7, 9)], 0x80280000), ([Variant(7, 1), Variant(7, 9)], 0x80420000), ([Variant(12, "1")], 0x80AB0000),
        ([Variant(7, 1)] * 3, 0x80AB0000), ([], 0x80AB0000),
    ):  # fmt: skip
        assert refresh(client, *arguments).results[0].status == status
    assert not pair.asked and token
    pair.to_client(pair.server.over(next(iter(pair.server.services._standing)), None))
    assert refresh(client, Variant(7, 1)).results[0].status == 0x80310000, "the asset is away"


@pytest.mark.parametrize(("known", "status"), [((12912, 3875), 0), ((3875,), 0), ((), 0x80750000)])
def test_our_client_asks_conditions_of_a_server(known: tuple[int, ...], status: int) -> None:
    """Of its item alone, or of its subscription where the server knows no better."""
    pair = plain()
    called: list[int] = []

    def call(number: int, request: s.CallRequest) -> None:
        [one] = request.methods
        assert isinstance(one.method.id, int)
        called.append(one.method.id)
        good = one.method.id in known
        pair.server.reply(number, request.header.handle, s.CallResponse,
                          [s.MethodResult(0 if good else 0x80750000, [], [], [])], [])  # fmt: skip

    pair.server.services._by_kind[s.CallRequest] = call
    token, data = pair.client.send(request("Message", refresh=True))
    pair.to_server(data)
    pair.run()
    pair.answer(m.Subscribed(0, 10))
    assert ResponseReceived(token, m.Subscribed(0, 10, status)) in pair.heard
    assert called == ([12912] if 12912 in known else [12912, 3875])


def test_what_cannot_be_had_has_a_status() -> None:
    pair = plain(may=lambda op: not any(isinstance(read, (Watch, Item)) and read.space.startswith("event")
                                        for read in op.reads))  # fmt: skip
    client = Client(pair)
    client.subscribe()
    for answer, found in (
        (0x80470000, client.watch()), (0x80C20000, client.watch(clause("Message"), where=REFUSED["Like"])),
        (0x80490000, client.watch(clause("Message"), where=REFUSED["operand"])),
        (0x80470000, client.watch(*[clause("Message")] * 101)), (0x80470000, client.watch(clause("a/b"))),
    ):  # fmt: skip
        assert found.results[0].status == answer and not pair.asked
    client.watch(clause("Message"))
    assert len(pair.asked) == 1, "what no rule allows is asked for all the same: so the refusal is recorded"
    pair.answer(m.Refused(0x801F0000))
    assert client.answers[-1].results[0].status == 0x801F0000
    assert client.ask(s.CreateItemsRequest, 1, 2, [s.ItemToCreate(
        s.ReadValueId(NodeId(2, "Line1", "s"), 12, None, QualifiedName(0, None)), 2,
        s.MonitoringParameters(7, 0.0, wire.NO_EXTENSION, 1, True))]).results[0].status == 0x80470000  # fmt: skip


def test_our_client_has_events_of_a_server() -> None:
    """Our client's machine beside our server's: what is asked crosses twice, and so does what happens."""
    pair = plain()
    token, data = pair.client.send(request("Message", "Severity", severity=200, of=("i=2782",)))
    pair.to_server(data)
    pair.run()
    [(standing, asked)] = pair.asked
    assert asked == request("Message", "Severity", severity=200, of=("i=2782",))
    pair.answer(m.Subscribed(0, 10))
    assert any(isinstance(one, ResponseReceived) and one.token == token for one in pair.heard)
    wrong = m.Happened(((m.Texts((m.Localized("", "a"),)), Float64((1.5,))),))
    pair.to_client(pair.server.notice(standing, wrong))
    pair.later(200_000_000)
    assert NoticeReceived(token, wrong) in pair.heard
    pair.client.give_up(token)
    assert not pair.client.watches.subscriptions
