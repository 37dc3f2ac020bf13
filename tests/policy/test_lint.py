"""Warnings, each with its place; a clean policy has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from cofferdam.policy.lint import CHECKS, lint
from cofferdam.policy.load import load, loads
from cofferdam.policy.terms.kinds import KINDS
from tests.policy.plant import BASE, NOW, conduit

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "riverside-water.yaml"
DAY = 86_400 * 10**9
EXPIRES = "expires: 2027-06-30"
READS = conduit("{who: [erp, ops], asset: plc, read: all}")

# What is added or replaced in BASE and READS; the check; the start of the line it points at.
TABLE = [
    (conduit("{who: ops, asset: plc, write: speed}"), "", "", "no-expiry", "c:"),
    (conduit("{who: ops, asset: plc, write_functions: 8/1}"), "", "", "no-expiry", "c:"),
    (conduit("{who: ops, asset: plc, read: all}", "{who: ops, asset: plc, read: flow}"), "", "", "useless-rule",
     "{who: ops, asset: plc, read: flow}"),
    (conduit("{who: ops, asset: plc, read: flow}", "{who: ops, asset: plc, registers: holding 100-101}"), "", "",
     "useless-rule", "{who: ops, asset: plc, registers"),
    (conduit("{who: ops, asset: plc, registers: [holding 0-9, holding 10-19]}",
             "{who: ops, asset: plc, registers: holding 5-14}"), "", "", "useless-rule",
              "{who: ops, asset: plc, registers: holding 5"),
    (conduit("{who: ops, asset: plc, functions: [8, 7]}", "{who: ops, asset: plc, functions: 8/0}"), "", "",
     "useless-rule",
     "{who: ops, asset: plc, functions: 8/0}"),
    (READS, "principals:\n", "  bare: {zone: plant, address: 10.0.0.1, protocol: modbus}\nprincipals:\n",
     "no-points", "bare"),
    (READS, "principals:\n", "  bare: {zone: plant, address: 10.20.0.17, protocol: modbus}\nprincipals:\n",
     "shared-address",
     "10.20.0.17"),
    (READS, "principals:\n", "  two: {zone: plant, address: 10.20.0.17, protocol: modbus, unit: 2}\n"
     "  three: {zone: plant, address: 10.20.0.17, protocol: modbus, unit: 2}\nprincipals:\n",
     "shared-address",
     "10.20.0.17, protocol: modbus, unit: 2}"),
    (READS, "conduits:\n", "  all: {zone: office, addresses: 0.0.0.0/0}\nconduits:\n", "everyone", "0.0.0.0/0"),
    (READS, "conduits:\n", "  ERP: {zone: office, addresses: 10.9.9.9}\nconduits:\n", "alike", "ERP:"),
    (conduit("{who: ops, asset: both, write_registers: holding 0}", extra=EXPIRES), "principals:\n",
     "  both: {zone: plant, address: 10.20.0.18, protocol: modbus, unit: any, listen: 127.0.0.1:1503}\nprincipals:\n",
     "any-unit", "any"),
    (READS, "serial: {at: holding 300,", "serial: {at: holding 40301,", "counted-from-one", "holding 40301"),
    (READS, "listen: 127.0.0.1:1502", "overlay: 100.64.7.17", "carrier-grade", "100.64.7.17"),
    (READS, "listen: 127.0.0.1:1502", "listen: 10.20.0.17:1502", "own-address", "10.20.0.17:1502"),
    (READS, "plant: {side: ot}", "plant: {side: ot, interface: e1, addresses: 10.30.0.2/24}", "no-way", "10.20.0.17"),
    (READS, "office: {side: it}",
     "office: {side: it, interface: e0, addresses: 10.1.0.2/24, routes: 10.1.0.0/16 via 10.1.0.1}", "no-way",
     "[10.1.5.0/24"),
    (READS, "plant: {side: ot}", "plant: {side: ot, interface: e1, addresses: 10.20.0.0/24}", "network-address",
     "10.20.0.0/24"),
    (READS, "listen: 127.0.0.1:1502", 'listen: "[::1]:1502"', "never-meet", "erp:"),
    (READS, "listen: 127.0.0.1:1502", "port: 503", "no-listener", "plc:"),
    (READS, "conduits:\n", "  guard: {zone: office, addresses: 10.9.9.9}\nconduits:\n", "unused", "guard"),
    (READS, "  plant: {side: ot}\n", "  plant: {side: ot}\n  yard: {side: ot}\n", "unused", "yard"),
    (READS, "plant: {side: ot}", "plant: {side: it}", "same-side", "c:"),
    (conduit("{who: ops, asset: plc, read: all}", extra="expires: 2026-11-22"), "", "", "expired", "2026-11-22"),
    (conduit("{who: ops, asset: plc, read: all}", extra="expires: 2026-12-10"), "", "", "expires-soon", "2026-12-10"),
    (conduit("{who: ops, asset: plc, write_registers: holding 0-50}", extra=EXPIRES), "", "", "wide-write",
     "holding 0-50"),
    (conduit("{who: ops, asset: plc, write: serial}", extra=EXPIRES), "", "", "no-range", "serial"),
    (conduit("{who: ops, asset: cell, write_functions: 7/142}", extra=EXPIRES).replace("modbus", "enip"),
     "principals:\n", "  cell: {zone: plant, address: 10.20.0.19, protocol: enip, listen: 127.0.0.1:1504, "
     "points: {a: {at: tag A, type: dint}}}\nprincipals:\n", "alarming", "7/142"),
    (conduit("{who: ops, asset: line, read: all}").replace("modbus", "opcua"), "principals:\n",
     "  line: {zone: plant, address: 127.0.0.1, protocol: opcua, listen: 10.1.0.1:4840, "
     "security: {clients: [Basic256Sha256, none], asset: none}, points: {a: {at: nsu=u;s=a, type: Double}}}\n"
     "principals:\n", "unsecured", "[Basic256Sha256, none]"),
    (conduit("{who: ops, asset: line, read: all}").replace("modbus", "opcua"), "principals:\n",
     "  line: {zone: plant, address: 10.20.0.19, protocol: opcua, listen: 127.0.0.1:4840, "
     "security: {clients: none, asset: none}, points: {a: {at: nsu=u;s=a, type: Double}}}\n"
     "principals:\n", "unsecured", "none}, points"),
    (conduit("{who: ops, asset: plc, write: speed}", extra=EXPIRES), ", writes_per_minute: 2", "", "no-ramp", "speed"),
    (READS, "run: {at: coil 0}", "alias: {at: holding 199-200, type: uint32}", "overlap", "speed"),
    (conduit("{who: ops, asset: plc, write: speed}", extra=f"{EXPIRES}\ndeny: silent"), "", "", "silent-writes",
     "silent"),
    (READS, "site: works\n", "site: works\ngate: {leak_probe: off}\n", "leak-probe-off", "off"),
    (READS, "  plant: {side: ot}\n", "  plant: {side: ot, interface: e1, addresses: 10.20.0.1/24}\n"
     "overlay:\n  prefix: 10.20.0.128/25\n", "plant-prefix", "10.20.0.128/25"),
    (READS, "site: works\n", "site: works\noverlay:\n  prefix: 10.20.0.0/16\n", "plant-prefix", "10.20.0.0/16"),
    (READS, "  plant: {side: ot}\n", "  plant: {side: ot, interface: e1, addresses: [10.20.0.1/24, 'fd20::1/64']}\n"
     "overlay:\n  prefix6: fd20::/56\n", "plant-prefix", "fd20::/56"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("conduits", "old", "new", "check", "at"), TABLE, ids=[f"{r[3]}-{n}" for n, r in enumerate(TABLE)]
)
def test_a_warning_points_at_its_place(conduits: str, old: str, new: str, check: str, at: str) -> None:
    text = BASE.replace(old, new, 1) + conduits if old else BASE + conduits
    found = [p for p in lint(loads(text), now_ns=NOW) if p.check == check]
    assert len(found) == 1, found
    problem = found[0]
    assert text.splitlines()[problem.line - 1][problem.column - 1 :].startswith(at), problem
    assert str(problem).startswith(f"policy.yaml:{problem.line}:{problem.column}: warning: found ")


@pytest.mark.parametrize(
    ("points", "found"),
    [
        ("{a: {at: holding 9.0}, b: {at: holding 9.1}, c: {at: holding 9.4-7, max: 5}, d: {at: holding 9.8}}", 0),
        ("{a: {at: holding 9.0}, c: {at: holding 9.4-7, max: 5}, d: {at: holding 9.6, min: 0}}", 1),
        ("{a: {at: holding 9.0}, b: {at: holding 9.1}, w: {at: holding 9, type: uint16, max: 7}}", 1),
        ("{w: {at: holding 8, type: uint32, max: 7}, a: {at: holding 9.0}, b: {at: holding 9.15}}", 2),
        ("{a: {at: holding 9.0}, w: {at: holding 9-10, type: uint32, max: 7}, b: {at: holding 10.3}}", 2),
    ],
)
def test_bits_of_one_word_overlap_where_they_share_a_bit(points: str, found: int) -> None:
    asset = f"  word: {{zone: plant, address: 10.20.0.40, protocol: modbus, points: {points}}}\n"
    text = BASE.replace("principals:\n", f"{asset}principals:\n", 1) + READS
    assert len([p for p in lint(loads(text), now_ns=NOW) if p.check == "overlap"]) == found


def test_a_clean_policy_has_no_warnings() -> None:
    assert lint(loads(BASE + READS), now_ns=NOW) == ()
    assert lint(load(EXAMPLE), now_ns=NOW) == ()


def test_every_check_of_the_table_is_tested_and_documented() -> None:
    # (Those of the conduits of a broker that is no proxy are tested with its terms: test_relay_terms and so on.)
    others = {name for terms in KINDS.values() if terms.dialect is None for name in terms.warnings}
    assert len({check for *_, check, _ in TABLE}) >= len(CHECKS.keys() - others) - 1
    assert all(check.__doc__ for check in CHECKS.values())


def test_two_equal_rules_leave_one() -> None:
    line = "{who: ops, asset: plc, read: flow}"
    found = [p for p in lint(loads(BASE + conduit(line, line)), now_ns=NOW) if p.check == "useless-rule"]
    assert [p.found for p in found] == ["rule c/1, all of which c/0 allows"]


def test_a_rule_that_one_principal_needs_is_not_useless() -> None:
    rules = ("{who: erp, asset: plc, read: all}", "{who: [erp, ops], asset: plc, read: flow}")
    assert not [p for p in lint(loads(BASE + conduit(*rules)), now_ns=NOW) if p.check == "useless-rule"]
