"""What `cofferdam diode` says of what the parts answer: sizes, and the rate to type in."""

from __future__ import annotations

from typing import Any

import pytest

from cofferdam.cli import diode, diode_shown
from cofferdam.errors import GateError
from tests.verbs import cli


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (23_270_780, "23.3 MB"), (20 * 10**9, "20 GB")],
)
def test_a_size_for_people(count: int, said: str) -> None:
    assert diode_shown.size(count) == said


def _step(rate: int, got: int, run: int = 1) -> dict[str, Any]:
    return {"run": run, "rate": rate * 10**6, "got": got, "of": 10, "seconds": 1.0, "age": 60.0}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([_step(10, 10), _step(20, 10), _step(40, 9)], "rate: 16 Mbit/s"),
        ([_step(10, 10), _step(20, 0), _step(40, 10)], "rate: 8 Mbit/s"),  # by chance a faster one was spared
        ([_step(40, 10, run=1), _step(10, 10, run=2)], "rate: 8 Mbit/s"),  # the last run, not what an earlier one found
        ([_step(10, 9), _step(20, 10)], "nothing to type in: the slowest rate lost as well"),
        ([], "no test has come"),
    ],
)
def test_the_rate_to_type_in(steps: list[dict[str, Any]], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diode, "_ends", lambda _args: ["outside"])
    monkeypatch.setattr(diode, "_ask", lambda *_args, **_more: steps)
    code, out, _ = cli("diode", "test")
    assert code == 0 and said in out.splitlines()[-1]


def test_telling_is_a_verb_of_the_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diode, "_ends", lambda _args: ["outside"])
    code, _, err = cli("diode", "tell")
    assert code == 2 and "it is a verb for the inside machine" in err


def test_a_ticket_that_is_refused_does_not_hold_up_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(_args: object, _part: str, _verb: str, *, ticket: str, go: bool) -> dict[str, Any]:
        if ticket == "used":
            raise GateError("ticket 1 was used before", hint="have a new one made")
        return {"serial": 2, "channel": "gate:log", "records": 3, "bytes": 1500, "seconds": 0.1, "go": go, "lost": 0}

    monkeypatch.setattr(diode, "_ask", ask)
    code, out, err = cli("diode", "resend", "--ticket", "used", "--ticket", "good", "--go")
    assert code == 2 and "ticket 2: 3 records of gate:log, 1.5 kB, about 0.1 s: is sent" in out
    assert "1 of 2 tickets: ticket 1 was used before" in err and "have a new one made" in err
