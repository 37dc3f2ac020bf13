"""What ships is whole, and a file that is not is refused with its place and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cofferdam.errors import PolicyError
from cofferdam.evidence.catalogue import FRAMEWORKS, catalogue, read_checks, read_framework, with_own
from cofferdam.evidence.checks.proofs import SAYS, STATEMENTS
from cofferdam.evidence.checks.tables import CHECKS, MINUTE
from cofferdam.evidence.clocks import RESET
from cofferdam.evidence.model import MEANINGS, seconds, spoken

DATA = Path(__file__).parent.parent.parent / "src/cofferdam/evidence/data"
OWN = """\
framework: house-rules
title: Rules of our own
controls:
  A-1: {by: gate, theme: [log], says: "the log is whole", checks: [log.whole]}
"""


def test_what_ships() -> None:
    found = catalogue()
    assert tuple(found.frameworks) == FRAMEWORKS
    assert len(found.checks) == 95
    assert {name: len(one.controls) for name, one in found.frameworks.items()} == {
        "iec62443-3-3": 100, "iec62443-3-2": 7, "nerc-cip": 52, "nist-800-53r5": 73, "nis2": 29,
    }  # fmt: skip
    named = {
        check for one in found.frameworks.values() for control in one.controls.values() for check in control.checks
    }
    assert named <= set(found.checks)
    used = {theme for one in found.frameworks.values() for control in one.controls.values() for theme in control.themes}
    assert used == set(found.themes)
    assert set(RESET) == set(found.clocks)


def test_every_function_has_its_entry_and_no_check_can_say_more_than_it_may() -> None:
    assert set(CHECKS) <= set(catalogue().checks)
    assert set(STATEMENTS) == set(SAYS) <= set(CHECKS)
    assert all(catalogue().checks[name].best != "attested" for name in CHECKS)
    assert {one.id for one in MINUTE} <= {name for name, one in catalogue().checks.items() if one.every}
    # What is said to be looked at again within the day, the gate looks at itself: all else waits for the night.
    often = {name for name, one in catalogue().checks.items() if 0 < one.every < 86_400}
    assert often & set(CHECKS) <= {one.id for one in MINUTE}
    assert all(one.valid > one.every for one in catalogue().checks.values())  # or a night that is late makes it stale


def test_the_word_that_an_assessor_alone_may_say_is_nowhere() -> None:
    root = Path(__file__).parent.parent.parent
    for path in [*(root / "src/cofferdam").rglob("*.py"), *DATA.glob("*.yaml"), *(root / "docs").glob("evidence*.md")]:
        assert "compliant" not in path.read_text("utf-8").lower(), path
    assert "compliant" not in " ".join(MEANINGS.values())


@pytest.mark.parametrize(
    ("change", "line", "found", "near"),
    [
        (("log.whole]", "log.hole]"), 4, '"log.hole"', "log.whole"),
        (("[log]", "[lag]"), 4, '"lag"', "log"),
        (("by: gate", "by: gait"), 4, '"gait"', "gate"),
        (("by: gate", "by: part"), 4, "`by: part` without its rest", ""),
        (("by: gate", "by: outside"), 4, "checks of a control that is outside", ""),
        (("by: gate", "by: operator"), 4, "a check that no person signs", ""),
        ((", checks: [log.whole]", ""), 4, "no checks", ""),
        (("[log.whole]", "[log.whole, log.whole]"), 4, '"log.whole" again', ""),
        (("[log.whole]", "[log.whole], needs: [log.hole]"), 4, '"log.hole"', "log.whole"),
        (("by: gate", "by: gate, form: 2028-04-01"), 4, 'the field "form"', "from"),
        (("by: gate", "by: gate, from: 2028-14-01"), 4, '"2028-14-01"', ""),
        (("by: gate", "by: gate, level: 5"), 4, '"5"', ""),
        (("title: Rules of our own\n", ""), 1, "no title", ""),
        (("framework: house-rules", "framework: nis2"), 1, '"nis2"', ""),
        (("says: \"the log is whole\"", "says: \"\""), 4, '""', ""),
    ],
)  # fmt: skip
def test_a_framework_that_is_wrong(tmp_path: Path, change: tuple[str, str], line: int, found: str, near: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace(*change))
    with pytest.raises(PolicyError) as raised:
        with_own(catalogue(), [path])
    problem = raised.value.problems[0]
    assert (problem.file, problem.line, problem.near) == (str(path), line, near)  # type: ignore[attr-defined]
    assert found in problem.found  # type: ignore[attr-defined]


def test_a_control_twice_and_what_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    for text in (OWN + '  A-1: {by: outside, theme: [log], says: "x"}\n', "[" * 5000, "a: [", "- 1\n", "\x00", ""):
        path.write_text(text)
        with pytest.raises(PolicyError):
            with_own(catalogue(), [path])
    with pytest.raises(PolicyError, match="cannot be read"):
        with_own(catalogue(), [tmp_path / "none.yaml"])
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="UTF-8"):
        with_own(catalogue(), [path])


def test_a_framework_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    found = with_own(catalogue(), [path])
    assert list(found.frameworks) == [*FRAMEWORKS, "house-rules"]
    assert ("house-rules", "A-1") in found.carried_by("log.whole")
    assert list(catalogue().frameworks) == list(FRAMEWORKS)
    assert found.related("house-rules", found.frameworks["house-rules"].controls["A-1"])


@pytest.mark.parametrize(
    "change",
    [("best: proved", "best: certain"), ("valid: 7 d", "valid: soon"), ("every: 24 h", "every: 9 d"),
     ("room: house", "room: cellar"), ("remind: 3 d", "remind: 15 d")],
)  # fmt: skip
def test_checks_that_are_wrong(change: tuple[str, str]) -> None:
    text = (DATA / "checks.yaml").read_text("utf-8")
    assert change[0] in text
    with pytest.raises(PolicyError):
        read_checks("checks.yaml", text.replace(*change, 1))


def test_a_shipped_framework_over_other_checks_is_refused() -> None:
    base = catalogue()
    fewer = {name: check for name, check in base.checks.items() if name != "log.whole"}
    with pytest.raises(PolicyError):
        read_framework("x.yaml", OWN, type(base)(base.themes, base.clocks, fewer, {}))


def test_durations() -> None:
    assert [seconds(text) for text in ("5 min", "24 h", "7 d", "1s")] == [300, 86400, 604800, 1]
    for wrong in ("", "7", "d", "-1 d", "1.5 h", "7 weeks", "9999999 d"):
        with pytest.raises(ValueError, match="no duration"):
            seconds(wrong)
    assert [spoken(length) for length in (0, 59, 60, 119, 3600, 90_000, 172_800)] == [
        "0 s", "59 s", "1 min", "119 s", "1 h", "25 h", "2 d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("framework", "name"),
    [("nerc-cip", "CIP-005-7 R1.2"), ("nist-800-53r5", "sc-7.3"), ("nist-800-53r5", "sc-7.28"),
     ("iec62443-3-2", "ZCR 3.2"), ("iec62443-3-2", "ZCR 3.6")],
)  # fmt: skip
def test_a_gate_does_not_see_the_ways_round_it(framework: str, name: str) -> None:
    one = catalogue().frameworks[framework].controls[name]
    assert one.by == "part" and "no way round the gate" in one.rest
