"""History in pieces: continuation points of ours, by time."""

from __future__ import annotations

from typing import Any

import pytest

from cofferdam.model import Item
from cofferdam.protocols.base import ResponseReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import Data, NodeId, QualifiedName, Variant
from cofferdam.values import Float64
from tests.protocols.opcua.pair import LEVEL, Pair, plain

BAD_POINT = 0x804A0000


class Historian:
    """A client that reads back, before an asset that has these values: (time, value)."""

    def __init__(self, past: list[tuple[int, float]], may: Any = lambda _op: True) -> None:
        self.pair: Pair = plain(may=may)
        self.past = past
        self.answers: list[Any] = []
        self.pair.client._body = lambda body: self.answers.append(wire.decode(body.data, request=False))  # type: ignore[method-assign]

    def ask(self, start: int, end: int, most: int, point: bytes | None = None, release: bool = False,
            node: str = "Line1.Level") -> s.HistoryResult:  # fmt: skip
        client = self.pair.client
        details = wire.pack(s.RawDetails(False, start, end, most, False))
        wanted = s.HistoryNode(NodeId(2, node, "s"), None, QualifiedName(0, None), point)
        body = wire.encode(s.HistoryReadRequest(client.header(), details, 2, release, [wanted]))
        self.pair.to_server(client.channel.send(client.channel.request_id(), body))
        while self.pair.asked:
            self.pair.answer(self.told(self.pair.asked[0][1]))
        result: s.HistoryResult = self.answers[-1].results[0]
        return result

    def told(self, asked: m.History) -> m.Samples:
        """As a server has it: the oldest first, unless the end is before the start."""
        low, high = min(asked.start, asked.end), max(asked.start, asked.end)
        found = [one for one in self.past if low <= one[0] <= high]
        if asked.end < asked.start:
            found.reverse()
        samples = tuple(m.Sample(Float64((value,)), 0, time, time) for time, value in found[: asked.most])
        return m.Samples(samples, len(found) > asked.most)

    def all(self, start: int, end: int, most: int) -> list[float]:
        found: list[float] = []
        result = self.ask(start, end, most)
        for _ in range(100):
            data = wire.unpack(result.data)
            found += [one.value.value for one in data.values]
            if result.point is None:
                return found
            assert result.status == 0x00A60000 and data.values
            result = self.ask(start, end, most, result.point)
        raise AssertionError("it never ends")


TIMES = {
    "each its own": list(range(10, 60)),
    "pairs": [10 + at // 2 for at in range(50)],
    "threes": [10 + at // 3 for at in range(50)],
    "one": [10],
    "none": [],
}


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("most", [4, 7, 49, 50, 51])
def test_all_of_a_span_comes_in_pieces_forward_and_backward(times: str, most: int) -> None:
    past = [(time, float(number)) for number, time in enumerate(TIMES[times])]
    historian = Historian(past)
    expected = [value for _, value in past]
    assert historian.all(1, 1000, most) == expected
    assert historian.all(1000, 1, most) == expected[::-1]


def test_more_values_of_one_time_than_come_at_once_have_no_way_between_them() -> None:
    historian = Historian([(5, 1.0), (5, 2.0), (5, 3.0), (6, 4.0)])
    assert historian.all(1, 1000, 2) == [1.0, 2.0, 4.0]


def test_where_one_bound_is_open_the_number_is_all_that_is_wanted() -> None:
    historian = Historian([(time, 0.0) for time in range(10, 60)])
    assert historian.ask(0, 1000, 5).point is None


def test_a_point_is_good_once_for_its_own_node_until_it_is_given_back() -> None:
    historian = Historian([(time, 0.0) for time in range(10, 60)])
    first = historian.ask(1, 1000, 5).point
    assert first is not None and len(first) == 16
    assert historian.ask(1, 1000, 5, first, node="Line1.Speed").status == BAD_POINT
    assert historian.ask(1, 1000, 5, first).status == BAD_POINT
    again = historian.ask(1, 1000, 5).point
    assert historian.ask(1, 1000, 5, again, release=True).status == 0
    assert historian.ask(1, 1000, 5, again).status == BAD_POINT
    assert historian.ask(1, 1000, 5, b"x" * 16).status == BAD_POINT
    points = [historian.ask(1, 1000, 5).point for _ in range(15)]
    assert historian.ask(1, 1000, 5, points[0]).status == BAD_POINT, "ten are kept"
    assert historian.ask(1, 1000, 5, points[-1]).status == 0x00A60000


def test_our_client_tells_that_there_is_more_and_takes_no_more_than_a_record_holds() -> None:
    pair = plain()
    answers: list[s.HistoryResult] = []

    def history(number: int, request: s.HistoryReadRequest) -> None:
        if not request.release:
            pair.server.reply(number, request.header.handle, s.HistoryReadResponse, [answers[0]], [])

    pair.server.services._by_kind[s.HistoryReadRequest] = history

    def read(values: int, size: int, point: bytes | None, status: int = 0) -> Any:
        data = wire.pack(s.HistoryData([Data(Variant(12, "x" * size), 0, 5 + at, 0) for at in range(values)]))
        answers[:] = [s.HistoryResult(status, point, data)]
        token, sent = pair.client.send(m.History(Item("history", LEVEL), 1, 1000, 10_000))
        pair.to_server(sent)
        pair.run()
        return next(one.response for one in pair.heard if isinstance(one, ResponseReceived) and one.token == token)

    assert (len(read(5, 1, None).samples), read(5, 1, None).more) == (5, False)
    assert read(5, 1, b"p").more and read(5, 1, None, 0x00A60000).more
    much = read(19, 50_000, None)
    assert much.more and 10 < len(much.samples) < 19
