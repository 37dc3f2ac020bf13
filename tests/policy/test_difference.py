"""What a policy changes against another: grants and settings, both ways; none where the hash is the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.policy.compile import compile_policy
from cofferdam.policy.difference import NOTHING, Difference, Grant, difference
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from tests.policy.plant import BASE, NOW, conduit, policy

RULES = (
    "{who: erp, asset: plc, read: all}", "{who: erp, asset: plc, read: flow}", "{who: ops, asset: plc, write: all}",
    "{who: [erp, ops], asset: plc, functions: 8}", "{who: ops, asset: plc, read: [flow]}",
    "{who: erp, asset: plc, registers: [holding 400-401]}",
)  # fmt: skip
RELAY = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
principals:
  erp: {zone: office, addresses: 10.1.0.20}
  mes: {zone: plant, addresses: 10.20.0.20}
conduits:
  counts:
    from: plant
    to: office
    broker: relay
    owner: o
    reason: r
    listen: {office: {at: "127.0.0.1:8443", tls: gate-2027}, plant: {at: "127.0.0.1:8444", tls: gate-2027}}
    channels: {counts: {keep: 30 days, room: 1 GB}}
    allow:
      - {who: mes, push: counts}
      - {who: erp, pull: counts}
"""


def made(*rules: str, base: str = BASE) -> CompiledPolicy:
    return compile_policy(loads(base + conduit(*rules)), now_ns=NOW)


@given(st.lists(st.sampled_from(RULES), max_size=4), st.lists(st.sampled_from(RULES), max_size=4))
def test_there_and_back_are_each_other(some: list[str], others: list[str]) -> None:
    one, other = made(*some or RULES[:1]), made(*others or RULES[:1])
    there, back = difference(one.table, other.table), difference(other.table, one.table)
    assert (there.gained, there.lost) == (back.lost, back.gained)
    assert {setting.path for setting in there.changed} == {setting.path for setting in back.changed}
    if one.hash == other.hash:
        assert not there


def test_who_gains_and_who_loses() -> None:
    found = difference(made(RULES[1]).table, made(RULES[4]).table)
    assert found == Difference(
        gained=(Grant("c", "ops", "read plc: flow"),), lost=(Grant("c", "erp", "read plc: flow"),)
    )


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("max: 1500", "max: 1501", ("assets", "plc", "points", "speed", "max")),
        ("10.1.0.20", "10.1.0.21", ("principals", "erp", "networks")),
        ("unit: 1", "unit: 2", ("assets", "plc", "unit")),
        ("side: it", "side: it, level: 4", ("zones", "office", "level")),
    ],
)
def test_a_setting_is_named_by_its_place(old: str, new: str, path: tuple[str, ...]) -> None:
    text = BASE + conduit(RULES[0])
    found = difference(
        compile_policy(loads(text), now_ns=NOW).table,
        compile_policy(loads(text.replace(old, new, 1)), now_ns=NOW).table,
    )
    assert (found.gained, found.lost) == ((), ())
    assert path in {setting.path for setting in found.changed}


@pytest.mark.parametrize(
    ("old", "new", "path", "said"),
    [
        ("at: holding 200", "at: holding 201", "at", ("holding 200", "holding 201")),
        ("max: 1500", "max: 1501.5", "max", ("1500", "1501.5")),
        ("owner: someone", "owner: someone\n    expires: 2027-06-30", "expires",
         ("never", "at the end of 2027-06-30 UTC")),
        ("unit: 1", "unit: 1\n    repeat_reads: yes", "repeat_reads", ("no", "yes")),
    ],
)  # fmt: skip
def test_a_setting_is_told_as_a_policy_says_it(old: str, new: str, path: str, said: tuple[str, str]) -> None:
    text = BASE + conduit(RULES[0])
    changed = difference(
        compile_policy(loads(text), now_ns=NOW).table,
        compile_policy(loads(text.replace(old, new, 1)), now_ns=NOW).table,
    ).changed
    assert [(one.path[-1], (one.old, one.new)) for one in changed] == [(path, said)]


def test_an_entry_that_comes_is_one_setting() -> None:
    more = BASE.replace("conduits:\n", "  guest: {zone: office, addresses: 10.1.0.77}\nconduits:\n", 1)
    (setting,) = difference(made(RULES[0]).table, made(RULES[0], base=more).table).changed
    assert (setting.path, setting.old) == (("principals", "guest"), NOTHING)
    assert setting.new == "zone: office, networks: [10.1.0.77/32]"


def test_a_conduit_that_comes_is_told_without_what_is_empty() -> None:
    more = compile_policy(loads(BASE + conduit(RULES[0]) + conduit(RULES[0], name="d")), now_ns=NOW)
    (setting,) = difference(made(RULES[0]).table, more.table).changed
    assert (setting.path, setting.old) == (("conduits", "d"), NOTHING)
    assert "terms" not in setting.new and "owner: someone" in setting.new


def test_lines_of_a_broker_without_assets_are_grants() -> None:
    old = compile_policy(loads(RELAY), now_ns=NOW)
    new = compile_policy(loads(RELAY.replace("{who: erp, pull: counts}", "{who: erp, browse: counts}")), now_ns=NOW)
    found = difference(old.table, new.table)
    assert [(one.who, one.what.split(" (")[0]) for one in found.gained] == [("erp", "browse counts")]
    assert [(one.who, one.what.split(" (")[0]) for one in found.lost] == [("erp", "pull counts")]
    assert not found.changed


def test_what_the_order_of_lines_is_does_not_matter() -> None:
    found = difference(policy(conduit(*RULES)).table, policy(conduit(*reversed(RULES))).table)
    assert not found
