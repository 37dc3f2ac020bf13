"""What conduits need is said once: crews, firewall and listeners follow from it, and agree; what two crews want is
refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cofferdam.cli.main import main
from cofferdam.enforce.plans.network import network_plan
from cofferdam.errors import PolicyError
from cofferdam.gate.crew.plan import plan_crews
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.crews import groups
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.kinds import KINDS
from tests.policy.plant import NOW

ZONES = """
site: works
zones:
  office: {side: it, interface: e0, addresses: [10.1.0.1/24]}
  plant: {side: ot, interface: e1, addresses: [10.2.0.1/24]}
  yard: {side: ot, interface: e2, addresses: [10.3.0.1/24]}
principals:
  erp: {zone: office, addresses: [10.1.0.20]}
  ops: {zone: office, addresses: [10.1.0.21, 10.1.0.22]}
  hmi: {zone: plant, addresses: [10.2.0.30]}
"""
ROAD = "  {name}: {{from: {source}, to: {target}, broker: modbus, owner: o, reason: r, allow: [{rules}]}}\n"
RULE = "{{who: {who}, asset: {asset}, registers: holding 0-9}}"


def asset(name: str, zone: str, address: str, more: str) -> str:
    return f"  {name}: {{zone: {zone}, address: {address}, protocol: modbus, {more}}}\n"


def road(name: str, *rules: tuple[str, str], source: str = "office", target: str = "plant") -> str:
    said = ", ".join(RULE.format(who=who, asset=what) for who, what in rules)
    return ROAD.format(name=name, source=source, target=target, rules=said)


def made(assets: str, conduits: str, zones: str = ZONES) -> CompiledPolicy:
    return compile_policy(loads(f"{zones}assets:\n{assets}conduits:\n{conduits}"), now_ns=NOW)


def wrong(assets: str, conduits: str, zones: str = ZONES) -> list[str]:
    with pytest.raises(PolicyError) as refused:
        made(assets, conduits, zones)
    return list(map(str, refused.value.problems))


TWO = asset("a", "plant", "10.2.0.7", "overlay: 100.65.0.7") + asset("b", "plant", "10.2.0.8", "listen: 10.1.0.1:5020")
ROADS = road("one", ("erp", "a"), ("ops", "b")) + road("two", ("ops", "a"))


def test_what_a_proxy_needs() -> None:
    policy = made(TWO, ROADS)
    needs = KINDS["modbus"].needs(policy.conduits["one"], policy)
    assert list(needs.parts) == ["outer", "inner"]
    outer, inner = needs.parts.values()
    assert outer.place is not None and (outer.place.side, outer.place.zone) == ("it", "office")
    assert inner.place is not None and (inner.place.side, inner.place.zone) == ("ot", "plant")
    assert [(at.address, at.port, at.who, at.share) for at in outer.listens] == [
        ("100.65.0.7", 502, ("erp",), "a"), ("10.1.0.1", 5020, ("ops",), "b"),
    ]  # fmt: skip
    assert [(to.address, to.port, to.zone) for to in inner.reaches] == [
        ("10.2.0.7", 502, "plant"), ("10.2.0.8", 502, "plant"),
    ]  # fmt: skip
    assert not outer.reaches and not inner.listens and outer.store is None and inner.store is None
    assert needs.apart.keys() == {"a", "b"}


def test_crews_listeners_and_firewall_agree() -> None:
    policy = made(TWO, ROADS)
    plan, crews = network_plan(policy), plan_crews(policy)
    it, ot = plan.sides
    assert {(at, listen.port) for listen in it.listens for at in listen.addresses} == {
        (spot.address, spot.port) for crew in crews.values() for spot in crew.spots
    }
    reached = {(at, reach.port) for reach in ot.reaches for at in reach.addresses}
    assert reached == {to for crew in crews.values() for share in crew.shares for to in share.reaches}
    assert {(reach.crew, reach.part) for reach in ot.reaches} == {(crew.base, "inner") for crew in crews.values()}
    # Who may come is the conduit's, and not the union of all.
    assert {(listen.conduit, listen.port, listen.sources) for listen in it.listens} == {
        ("one", 502, ("10.1.0.20/32",)), ("one", 5020, ("10.1.0.21/32", "10.1.0.22/32")),
        ("two", 502, ("10.1.0.21/32", "10.1.0.22/32")),
    }  # fmt: skip


def test_a_proxy_that_would_decide_on_the_office_side_is_refused() -> None:
    """`from` says who begins; who decides stands at the device, and that must not be the less trusted side."""
    printer = asset("printer", "office", "10.1.0.99", "listen: 10.2.0.1:502")
    with pytest.raises(PolicyError) as caught:
        made(printer, road("out", ("hmi", "printer"), source="plant", target="office"))
    [problem] = caught.value.problems
    assert str(problem).startswith(
        "policy.yaml:14:15: found plant, which is ot, towards office, which is it, expected "
    )
    assert "a modbus proxy decides where the devices are" in str(problem)


def test_on_one_side_the_part_at_the_devices_decides() -> None:
    policy = made(
        asset("a", "yard", "10.3.0.7", "listen: 10.2.0.1:502"), road("c", ("hmi", "a"), source="plant", target="yard")
    )
    crew = plan_crews(policy)["modbus/plant-yard"]
    assert [(name, part.place and part.place.zone) for name, part in crew.parts.items()] == [
        ("outer", "plant"), ("inner", "yard"),
    ]  # fmt: skip


TWICE = asset("a", "plant", "10.2.0.7", "unit: 1, listen: 10.1.0.1:502")
TWICE += asset("b", "yard", "10.3.0.8", "unit: 2, listen: 10.1.0.1:502")
APART = road("one", ("erp", "a")) + road("two", ("ops", "b"), target="yard")


def test_a_listener_that_two_crews_want_is_refused_with_both_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Units tell devices behind one listener apart, but only within one crew: a socket has one owner."""
    assert wrong(TWICE, APART) == [
        "policy.yaml:13:73: found 10.1.0.1 port 502, which another crew has for a (policy.yaml:12:74), "
        "expected an address and port of its own"
    ]
    file = tmp_path / "policy.yaml"
    file.write_text(f"{ZONES}assets:\n{TWICE}conduits:\n{APART}")
    assert main(["check", str(file)]) == 2
    assert f"{file}:13:73: found 10.1.0.1 port 502" in capsys.readouterr().err
    assert main(["up", "--check-only", str(file)]) == 2
    assert f"{file}:13:73: found 10.1.0.1 port 502" in capsys.readouterr().err


def test_no_plan_is_made_of_rows_that_clash() -> None:
    """The gate plans from rows, and does not trust that they were checked."""
    policy = made(TWICE.replace("unit: 2, listen: 10.1.0.1:502", "unit: 2, listen: 10.1.0.1:503"), APART)
    moved = msgspec.structs.replace(policy.assets["b"], listen=("10.1.0.1", 502))
    table = msgspec.structs.replace(policy.table, assets={**policy.assets, "b": moved})
    for refuses in (groups, plan_crews, network_plan):
        with pytest.raises(PolicyError, match=r"b: 10\.1\.0\.1 port 502, which another crew has for a"):
            refuses(CompiledPolicy(table))


def test_devices_behind_one_listener_stay_in_one_crew_however_many_shards() -> None:
    behind = "".join(asset(f"u{n}", "plant", f"10.2.0.{n}", f"unit: {n}, listen: 10.1.0.1:502") for n in range(1, 40))
    policy = made(behind, road("c", *(("erp", f"u{n}") for n in range(1, 40))))
    crews = plan_crews(policy, shards=8)
    assert len(crews) == 1
    assert len(next(iter(crews.values())).shares) == 39


def test_two_crews_of_one_name_are_refused() -> None:
    """Names of zones may hold the hyphen that stands between them."""
    zones = ZONES.replace(
        "  plant:", "  a-b: {side: it}\n  a: {side: it}\n  c: {side: ot}\n  b-c: {side: ot}\n  plant:"
    )
    zones += "  one: {zone: a-b, addresses: [10.5.0.1]}\n  two: {zone: a, addresses: [10.5.0.2]}\n"
    assets = asset("x", "c", "10.6.0.1", "listen: 127.0.0.1:5001") + asset(
        "y", "b-c", "10.6.0.2", "listen: 127.0.0.1:5002"
    )
    conduits = road("first", ("one", "x"), source="a-b", target="c") + road(
        "second", ("two", "y"), source="a", target="b-c"
    )
    [problem] = wrong(assets, conduits, zones)
    assert "found the name modbus/a-b-c, which another crew has for conduit first (policy.yaml:" in problem
