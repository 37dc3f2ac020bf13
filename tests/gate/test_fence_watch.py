"""When refused packets of an export or the witness call for somebody."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cofferdam.gate.watch import fence

NAME = "fence-tried"


class Around:
    """The gate and its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.alarms: dict[str, str] = {}
        monkeypatch.setattr(fence, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.watch = fence.FenceWatch(self)  # type: ignore[arg-type]

    def alarm(self, name: str, detail: str) -> None:
        if detail:
            self.alarms.setdefault(name, detail)  # as the gate: told once
        else:
            self.alarms.pop(name, None)

    def refuses(self, **packets: int) -> str:
        self.now += 10
        self.watch.refused(packets)
        return self.alarms.get(NAME, "")


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Around:
    return Around(monkeypatch)


def test_who_tries_slowly_is_an_alarm_too(around: Around) -> None:
    said = [around.refuses(soc=4 * step) for step in range(120)]  # 24 a minute
    assert not any(said[:70])
    assert "soc tried to reach" in said[-1]


def test_an_honest_one_is_none(around: Around) -> None:
    for step in range(2 * 8640):
        assert not around.refuses(soc=step // 60)  # six packets an hour: a proof or a reload each


def test_who_cries_hides_no_other(around: Around) -> None:
    around.refuses(soc=0, witness=0)
    assert "soc tried" in around.refuses(soc=1000, witness=0)
    said = around.refuses(soc=2000, witness=40)
    assert "soc tried" in said and "witness tried" in said
    around.now += fence.STANDS_SECONDS
    around.refuses(soc=2000, witness=40)
    assert not around.refuses(soc=2000, witness=40)
    assert "soc" not in around.refuses(soc=2000, witness=80)
