"""The strand's play: the tour keeps every promise between two machines, and its screens are what they should be."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cofferdam.lab import layout, plays
from cofferdam.lab.diode import events, screen
from cofferdam.lab.diode.play import Diode, DiodePicture
from cofferdam.lab.play import machine, policy
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.lint import lint
from cofferdam.policy.load import loads
from tests.enforce.site import netns
from tests.waiting import PATIENT

DEMO = [sys.executable, "-m", "cofferdam.cli.main", "lab", "demo", "--tour", "--play", "diode", "--json"]


def keeps_every_promise(*options: str) -> list[str]:
    """What was seen."""
    done = subprocess.run(
        [*DEMO, *options], capture_output=True, text=True, timeout=8 * PATIENT, check=False
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [finding for result in results for finding in result["findings"] if not finding["ok"]]
    assert not failed
    assert [result["step"] for result in results] == [step.__name__ for step in Diode.steps], done.stderr
    assert done.returncode == 0, done.stderr
    return [finding["seen"] for result in results for finding in result["findings"]]


@pytest.mark.heavy
@pytest.mark.skipif(bool(Diode().missing()), reason=Diode().missing())
class TestBetweenTwoMachines:
    pytestmark = netns

    def test_the_tour_keeps_every_promise(self) -> None:
        seen = keeps_every_promise()
        assert "not tried in the loopback layout" not in " ".join(seen)


@pytest.mark.soak
@pytest.mark.skipif(bool(Diode().missing()), reason=Diode().missing())
def test_the_tour_says_what_it_does_not_try_where_nothing_is_separated() -> None:
    seen = keeps_every_promise("--no-namespaces")
    assert sum("not tried in the loopback layout" in one for one in seen) == 3


def test_the_policy_names_both_machines_and_lint_has_nothing_to_say() -> None:
    stage = plays.plays(("water", "diode"))
    where = layout.shipped(plays.spots(stage))
    text, _ = policy(stage, where)
    assert machine(stage, where) == "inside" and machine((plays.plays(("water",))), where) == ""
    compiled = compile_policy(loads(text), now_ns=0)
    assert compiled.machines == ("inside", "outside")
    assert compiled.zones["control"].machine == "inside" and compiled.zones["regulators"].machine == "outside"
    assert lint(loads(text)) == ()


def test_tickets_are_read_from_the_screen_with_their_codes() -> None:
    texts = ["ABCDE FGHJK 23456", "VWXYZ 98765"]
    plain = ["".join(text.split()) for text in texts]
    shown = "".join(
        f"ticket {number} for 4 records of files:reports, good once, until 2027-01-01:\n  {text}\n{screen.code(one)}\n"
        for number, (text, one) in enumerate(zip(texts, plain, strict=True), 1)
    )
    found, codes = screen.tickets(f"{shown}Inside: cofferdam diode resend --ticket 'TEXT'\n")
    assert found == plain and codes == [screen.code(one) for one in plain]
    assert codes[0] != codes[1]


def test_the_picture_shows_both_ends() -> None:
    picture = DiodePicture(layout.Loopback(Diode.spots))
    picture.note(events.Metered(812))
    picture.note(events.Told(1, 9, 201))
    picture.note(events.Regulated("total", 200, (807,), behind_ms=230))
    picture.note(events.Regulated("counts", 200, (1, 2, 3), ((4, 5),)))
    assert picture.line() == "strand: 812 l inside, 807 l and 3 of 9 counts outside"
    ((panel, _),) = picture.panels()
    assert "2 missing" in str(getattr(panel, "renderable", ""))
