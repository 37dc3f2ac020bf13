"""What is wrong with a strand, said before anything runs; and what `explain` answers of one."""

from __future__ import annotations

import importlib.util
import math
import os
from fractions import Fraction
from pathlib import Path

import pytest

from cofferdam.cli.up_ready import lacks
from cofferdam.errors import CofferdamError
from cofferdam.gate.crew.plan import plan_crews
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.explain import Question
from cofferdam.policy.lint import lint
from cofferdam.policy.load import loads
from cofferdam.policy.terms import diode_lint
from cofferdam.policy.terms.diode import rows_of
from cofferdam.policy.terms.diode_rows import DiodeRows
from cofferdam.policy.terms.kinds import KINDS
from tests.enforce.site import ip
from tests.policy.test_errors import changed, problems
from tests.verbs import cli

GOOD = """
site: works
zones:
  plant: {side: ot, machine: inside}
  office: {side: it, machine: outside}
  strand-in: {side: ot, machine: inside, addresses: [10.9.9.1/30], crossing: diode}
  strand-out: {side: it, machine: outside, addresses: [10.9.9.2/30], crossing: diode}
  second-in: {side: ot, machine: inside, addresses: [10.9.8.1/30], crossing: diode}
  second-out: {side: it, machine: outside, addresses: [10.9.8.2/30], crossing: diode}
assets:
  plc: {zone: plant, address: 10.1.1.7, protocol: modbus, unit: 1, points: {level: {at: input 12, type: uint16}}}
principals:
  lake: {zone: office, addresses: [10.5.0.9]}
conduits:
  history:
    {from: plant, to: office, broker: mirror, owner: me, reason: flow, sources: {plc: {asset: plc}},
     mirror: {acks: none}, listen: {office: {at: "10.5.0.1:8443", plain: true}}, allow: [{who: lake, read: all}]}
  strand:
    from: strand-in
    to: strand-out
    broker: diode
    owner: me
    reason: flow
    carries: [history, files:reports]
    files: {reports: {names: ["*.csv"], most: 1 MB}}
    links: [{from: second-in, to: second-out}]
    spool: {keep: 72 h, most: 20 GB}
    block: 1000
"""
TABLE = [
    # a conduit that needs answers
    ("acks: none", "acks: crossing", "crossing", "it rides on strand, over which nothing comes back", "mean none"),
    ("[history, files", "[histry, files", "histry", "found the conduit", "did you mean history"),
    ("[history, files", "[history, history, files", "history", "a second time, expected each rider once", ""),
    ("files:reports]", "files:report]", "files:report", "found the channel of files", "did you mean files:reports"),
    ("files:reports]", "gate:log]", "reports:", "found reports, which does not ride", ""),
    ("[history, ", "[", "office", "hangs on another machine than plant", ""),
    # what the rider reads
    ("protocol: modbus,", "protocol: modbus, tls: {asset: yes},", "plc}", "found plc, which is spoken with by TLS", ""),
    # ends
    ("    from: strand-in", "    from: strand-out", "strand-out", "expected a zone of side ot", ""),
    ("    from: strand-in", "    from: plant", "plant", "expected a zone with crossing: diode", ""),
    ("[10.9.9.2/30]", "[10.9.9.1/30]", "strand-out", "expected two addresses of one network", ""),
    ("[10.9.9.2/30]", "[10.9.7.2/30]", "strand-out", "expected two addresses of one network", ""),
    ("[10.9.9.2/30]", "[10.9.9.2/30, 10.9.9.3/30]", "strand-out", "found 2 addresses", ""),
    ("  lake: {zone: office", "  lake: {zone: strand-out", "lake", "a strand has two ends and nothing else", ""),
    ("links: [{from: second-in", "links: [{from: strand-in", "strand-in", "which is an end already", ""),
    ("second-out: {side: it, machine: outside", "second-out: {side: it, machine: inside", "second-out",
     "expected those of the strand's first link", ""),
    # sizes and times
    ("block: 1000", "block: 3000\n    overhead: 50 %", "3000", "expected at most 4096 packets in a block", ""),
    ("block: 1000", "repeat: {younger: 10 d}", "10 d", "expected at most spool: keep", ""),
    ("block: 1000", "block: 199", "199", "expected a whole number from 200 to 3000", ""),
    ("block: 1000", "block: 2000\n    jumbo: true", "2000", "expected at most 1800, with `jumbo`", ""),
    # by channel
    ("block: 1000", "channels: {histry: {class: bulk}}", "histry", "which does not ride", "did you mean history"),
    ("block: 1000", "channels: {history: {class: quick}}", "quick", "expected prompt or bulk", ""),
    ("block: 1000", "block: 3000\n    channels: {history: {overhead: 50 %}}", "50 %",
     "expected at most 4096 packets in a block", ""),
    ("block: 1000", "rate: 400 Mbits", "400 Mbits", "expected a rate with its unit", ""),
    ("block: 1000", 'window: {days: mon, from: "06:00", to: "18:00", zone: UTC}', "window",
     "found hours or an end of a strand", ""),
    ("block: 1000", "allow: [{who: lake}]", "", "what passes stands under `carries`", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "says", "near"), TABLE)
def test_what_is_wrong_is_said_where_it_stands(old: str, new: str, at: str, says: str, near: str) -> None:
    text = changed(old, new, GOOD)
    found = problems(text)
    one = next((each for each in found if says in str(each) and near in str(each)), None)
    assert one is not None, [str(each) for each in found]
    line = text.splitlines()[one.line - 1]
    assert at in line[one.column - 1 :], (line, one.column)


LINTED = [
    ("second-in: {side: ot, machine: inside, addresses: [10.9.8.1/30]", "second-in: {side: ot, machine: inside, "
     "addresses: [10.9.8.1/24]", "shared-wire", "10.9.8.1/24"),
    ("keep: 72 h", "keep: 23 h", "short-spool", "23 h"),
    ("most: 1 MB", "most: 30 GB", "file-over-spool", "reports:"),
    ("block: 1000", "overhead: 2 %", "thin-parity", "2 %"),
    ("block: 1000", "channels: {history: {overhead: 2 %}}", "thin-parity", "2 %}"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "check", "at"), LINTED)
def test_what_is_unwise_is_warned_of(old: str, new: str, check: str, at: str) -> None:
    good = changed("[10.9.8.2/30]", "[10.9.8.2/24]", GOOD) if check == "shared-wire" else GOOD
    text = changed(old, new, good)
    (found,) = (one for one in lint(loads(text)) if one.check in diode_lint.CHECKS)
    assert found.check == check
    assert text.splitlines()[found.line - 1][found.column - 1 :].startswith(at)
    if check == "shared-wire":
        text = changed("block: 1000", "hostile_wire: true", text)
        assert not [one for one in lint(loads(text)) if one.check in diode_lint.CHECKS]


@pytest.mark.parametrize(("block", "overhead", "bears"), [(1000, 10, 5.0), (1000, 3, 0.9), (200, 10, 2.1)])
def test_what_parity_bears(block: int, overhead: int, bears: float) -> None:
    """Docs and `thin-parity` say so; worked out by another way."""
    found = diode_lint.borne(block, overhead) / 100
    parity = block * overhead // 100
    whole = sum(
        math.comb(block + parity, lost) * Fraction(found) ** lost * (1 - Fraction(found)) ** (block + parity - lost)
        for lost in range(parity + 1)
    )
    assert 0.9e-8 < float(1 - whole) < 1.1e-8 and found * 100 == pytest.approx(bears, abs=0.1)


def test_channels_have_a_class_and_parity_of_their_own() -> None:
    def row(text: str) -> DiodeRows:
        return rows_of(compile_policy(loads(text), now_ns=0).conduits["strand"])

    before = row(GOOD)
    assert before.is_prompt("records:history", 8192) and not before.is_prompt("records:history", 8193)
    assert not before.is_prompt("files:reports", 10) and before.parity == ()
    said = "channels: {history: {class: bulk, overhead: 30 %}, files:reports: {class: prompt}}"
    after = row(changed("block: 1000", said, GOOD))
    assert after.prompt == ("files:reports",) and after.parity == (("records:history", 300),)


def test_the_good_one_is_good() -> None:
    compiled = compile_policy(loads(GOOD), now_ns=0)
    assert compiled.machines == ("inside", "outside")


@pytest.mark.parametrize(("file", "allowed", "why"), [
    ("a.csv", True, ""), ("a.exe", False, "a.exe"), ("../a.csv", False, "a.csv"),
])  # fmt: skip
def test_files_are_explained(file: str, allowed: bool, why: str) -> None:
    compiled = compile_policy(loads(GOOD), now_ns=0)
    found = KINDS["diode"].explain(compiled, Question("", {"file": file, "files": "reports"}, 0))
    assert found.allowed == allowed and why in str(found)
    with pytest.raises(CofferdamError, match="no channel of files 'report'") as error:
        KINDS["diode"].explain(compiled, Question("", {"file": file, "files": "report"}, 0))
    assert error.value.hint == "did you mean reports?"


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="interfaces take root")
@pytest.mark.parametrize(("rate", "named"), [("20 Gbit/s", True), ("5 Gbit/s", False)])
def test_a_rate_above_a_link_s_card_is_named_before_the_gate_starts(tmp_path: Path, rate: str, named: bool) -> None:
    """Of the second link as of the first one. Cards of a veth say 10 Gbit/s."""
    text = GOOD.replace("block: 1000", f"rate: {rate}")
    for zone, card in (("strand-in", "cdr0"), ("second-in", "cdr1"), ("plant", "cdr2")):
        begins = f"{zone}: {{side: ot, machine: inside"
        text = changed(begins, f"{begins}, interface: {card}", text)
    try:
        for card in ("cdr0", "cdr1", "cdr2"):
            ip("link", "add", card, "type", "veth", "peer", "name", f"{card}p")
        policy = compile_policy(loads(text), now_ns=0).on("inside")
        said = [lack.what for lack in lacks(policy, plan_crews(policy), tmp_path) if "sends at" in lack.what]
    finally:
        for card in ("cdr0", "cdr1", "cdr2"):
            ip("link", "del", card)
    wanted = [f"the strand strand sends at 20 Gbit/s, and {card} has 10 Gbit/s: what is more is lost"
              for card in ("cdr0", "cdr1")]  # fmt: skip
    assert said == (wanted if named else [])


def test_a_spool_that_the_disk_does_not_hold_is_named_before_the_gate_starts(tmp_path: Path) -> None:
    def said(most: str) -> list[str]:
        policy = compile_policy(loads(changed("most: 20 GB", f"most: {most}", GOOD)), now_ns=0).on("inside")
        return [lack.what for lack in lacks(policy, plan_crews(policy), tmp_path) if "may keep" in lack.what]

    assert [one for one in said("90 TB") if one.startswith("diode/strand-in/spool may keep up to 112500 GB")]
    assert not [one for one in said("1 MB") if one.startswith("diode/")]


def test_a_library_that_is_not_installed_is_named_before_the_gate_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = compile_policy(loads(GOOD), now_ns=0).on("inside")
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "duckdb" else there(name))
    said = [lack for lack in lacks(policy, plan_crews(policy), tmp_path) if "not installed" in lack.what]
    assert [(lack.hard, "mirror needs" in lack.what, "duckdb" in lack.what) for lack in said] == [(True,) * 3]
    assert "pip install '.[mirror]'" in said[0].way_out


def test_check_says_who_knows_of_cards_and_disks(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(GOOD)
    code, said, _ = cli("check", str(tmp_path / "policy.yaml"))
    assert code == 0 and "cofferdam up POLICY --machine NAME --check-only" in said
