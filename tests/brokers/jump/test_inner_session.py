"""A session of the inner part by itself: what is told at its end."""

from __future__ import annotations

from typing import Any

import pytest

from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.inner_session import Live

GRANT = records.Grant(
    session=7, name="s:7", person="ada", source="10.1.0.7", conduit="c", asset="plc", login="tech",
    credential=records.Credential("none", b""), host_key=b"", what="exec", seconds=60, record=True,
    command="echo never",
)  # fmt: skip


class Ways:
    """Keeps what is said to whom."""

    def __init__(self) -> None:
        self.outer: list[Any] = []
        self.archivist: list[Any] = []

    def to_outer(self, record: Any) -> None:
        self.outer.append(record)

    def to_archivist(self, record: Any) -> None:
        self.archivist.append(record)

    def ended(self, live: Live, reason: str) -> None: ...

    def idle(self, live: Live) -> None: ...

    def now(self) -> int:
        return 0


class Leg:
    """An asset that takes everything."""

    def write(self, data: bytes) -> bool:
        return True

    def write_eof(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    def signal(self, name: str) -> None: ...

    def hold(self, held: bool) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("trouble", ["", "no room"])
def test_what_cannot_be_recorded_has_not_ended_well(trouble: str) -> None:
    """The program has ended, with 0, before the archivist said what became of its words."""
    ways = Ways()
    live = Live(GRANT, ways)
    live.start(Leg())
    live.leg_says(b"never\n")
    live.leg_eof()
    live.finish("", 0)
    assert not [one for one in ways.outer if isinstance(one, records.Shown | records.Closed)]
    live.stored(1, trouble)
    shown = [one.data for one in ways.outer if isinstance(one, records.Shown)]
    [closed] = [one for one in ways.outer if isinstance(one, records.Closed)]
    assert (shown, closed.status, closed.reason == "") == (([], 1, False) if trouble else ([b"never\n"], 0, True))
