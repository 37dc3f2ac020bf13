"""A read gets a place where the other half keeps it once it has crossed whole, and not before."""

from __future__ import annotations

from typing import Any

import pytest

from cofferdam.brokers.proxy import kept
from cofferdam.brokers.proxy.kept import Keeping
from cofferdam.brokers.proxy.records import PLACES, Again, Kept
from cofferdam.crossing.channel import Sender
from cofferdam.errors import LocalProtocolError
from cofferdam.model import Allow, Item, Operation
from cofferdam.policy.points.decide import Known, bulk


class Narrow(Sender[Any]):
    """A crossing that takes no message of more than nine characters."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.sent: list[Any] = []

    def send(self, record: Any) -> None:
        if isinstance(record, Kept) and len(record.message) > 9:
            raise LocalProtocolError("too large")
        self.sent.append(record)

    def close(self) -> None:
        self.closed = True


def known(text: str) -> Known:
    return Known(text, Operation(1, -1, -1, False, (Item("tag", "x"),)), Allow("road", "rule", 0))


def test_what_could_not_cross_has_no_place() -> None:
    """The next one who asks would ask for what nobody keeps."""
    crossing = Narrow()
    keeping = Keeping(crossing)
    large, small = known("a large one"), known("a")
    for number in (1, 2):
        with pytest.raises(LocalProtocolError):
            keeping.send(1, number, large)
    assert not crossing.sent
    keeping.send(1, 3, small)
    keeping.send(2, 4, small)
    assert crossing.sent == [Kept(1, 3, "a", 1), Again(4, [2, 1])]


def test_the_place_that_was_taken_longest_ago_is_given_anew() -> None:
    crossing = Narrow()
    keeping = Keeping(crossing)
    all_of_them = [known(str(number)) for number in range(PLACES + 1)]
    for number, one in enumerate(all_of_them):
        keeping.send(1, number + 1, one)
    keeping.send(1, PLACES + 2, all_of_them[0])
    assert crossing.sent[-2:] == [Kept(1, PLACES + 1, str(PLACES), 1), Kept(1, PLACES + 2, "0", 2)]
    assert [one.place for one in all_of_them[:3]] == [2, 0, 3]


def test_a_place_is_gone_where_there_was_no_room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten that are kept one has no room, and then the next: each crosses whole again, and is kept anew."""
    each = bulk(known("0").operation)
    monkeypatch.setattr(kept, "PLACES_BYTES", 9 * each)
    crossing = Narrow()
    keeping = Keeping(crossing)
    ten = [known(str(number)) for number in range(10)]
    for number, one in enumerate((*ten, ten[1], ten[0], ten[1])):
        keeping.send(1, number + 1, one)
    said = [record.message if isinstance(record, Kept) else record.asked[1] for record in crossing.sent]
    assert said == [*"0123456789", 2, "0", "1"]
    assert [one.place for one in ten[:4]] == [11, 12, 0, 4]
