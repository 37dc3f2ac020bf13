"""What each part of a crew gets of a policy: what it must know, and no more."""

from __future__ import annotations

import msgspec
import pytest

from cofferdam.errors import PolicyError
from cofferdam.gate.crew.plan import CrewPlan, plan_crews
from cofferdam.model import Allow, Deny, Operation, Span
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow
from cofferdam.policy.table import CompiledPolicy
from tests.policy.plant import NOW, read, write

# Each name and number stands for one thing, so that its bytes can be looked for.
POLICY = """
site: works
zones:
  office: {side: it, interface: ethit, addresses: [10.91.0.1/24], routes: [10.92.0.0/16 via 10.91.0.254]}
  bureau: {side: it, interface: ethbu, addresses: [10.93.0.1/24]}
  plant: {side: ot, interface: ethot, addresses: [10.94.0.1/24], routes: [10.95.0.0/16 via 10.94.0.254]}
  yard: {side: ot, interface: ethya, addresses: [10.96.0.1/24]}
assets:
  boiler: {zone: plant, address: 10.94.0.17, port: 1517, protocol: modbus, overlay: 100.65.0.17,
           points: {heat: {at: holding 5, type: uint16, min: 11, max: 4711}, glow: {at: holding 6, type: uint16}}}
  pump: {zone: plant, address: 10.94.0.18, port: 1518, protocol: modbus, overlay: 100.65.0.18,
         points: {rate: {at: holding 7, type: uint16, min: 12, max: 4712}}}
  crane: {zone: yard, address: 10.96.0.19, port: 1519, protocol: modbus, overlay: 100.65.0.19,
          points: {hook: {at: holding 8, type: uint16, min: 13, max: 4713}}}
principals:
  erp: {zone: office, addresses: [10.91.0.20]}
  pult: {zone: office, addresses: [10.91.0.21]}
  boss: {zone: bureau, addresses: [10.93.0.22]}
conduits:
  warm: {from: office, to: plant, broker: modbus, owner: smith, reason: heating, latency_budget: 4 ms,
         window: {from: "06:00", to: "18:00", zone: Europe/Paris},
         allow: [{who: erp, asset: boiler, read: all, write: heat}, {who: [erp, pult], asset: pump, read: all}]}
  lift: {from: bureau, to: yard, broker: modbus, owner: jones, reason: hoisting,
         window: {from: "06:00", to: "18:00", zone: Asia/Tokyo},
         allow: [{who: boss, asset: crane, read: all, write: hook}]}
gate: {management: "127.0.0.1:9414"}
overlay: {prefix: 100.65.0.0/24, prefix6: none, domain: works.example}
"""
WHOLE = compile_policy(loads(POLICY), now_ns=NOW)
CREWS = plan_crews(WHOLE)
WARM, LIFT = CREWS["modbus/office-plant"], CREWS["modbus/bureau-yard"]


def own(crew: CrewPlan, part: str) -> CompiledPolicy:
    return CompiledPolicy.from_bytes(crew.slice(WHOLE, part))


@pytest.mark.parametrize("crew", [WARM, LIFT], ids=lambda crew: crew.name)
def test_an_outer_part_gets_no_address_of_a_device(crew: CrewPlan) -> None:
    data = crew.slice(WHOLE, "outer")
    for asset in WHOLE.assets.values():
        assert asset.address.encode() not in data
        assert asset.port not in numbers(data)
    for network in (b"10.94.", b"10.95.", b"10.96."):  # nor how the plant is reached, by the gate or by routers
        assert network not in data


@pytest.mark.parametrize("part", ["outer", "inner"])
@pytest.mark.parametrize(("crew", "other"), [(WARM, LIFT), (LIFT, WARM)], ids=["warm", "lift"])
def test_no_part_gets_anything_of_another_crew(crew: CrewPlan, other: CrewPlan, part: str) -> None:
    data = crew.slice(WHOLE, part)
    foreign = {
        "lift": ("lift", "crane", "hook", "boss", "jones", "hoisting", "yard", "bureau", "Tokyo"),
        "warm": ("warm", "boiler", "heat", "pump", "erp", "pult", "smith", "heating", "plant", "office", "Paris"),
    }
    for word in foreign[other.conduits[0]]:
        assert word.encode() not in data, word
    limits = {"lift": {13, 4713}, "warm": {11, 4711, 12, 4712}}
    assert not limits[other.conduits[0]] & numbers(data)
    assert not any(address.encode() in data for share in other.shares for address, _ in share.reaches)
    assert not any(spot.address.encode() in data for spot in other.spots)


@pytest.mark.parametrize("part", ["outer", "inner"])
def test_no_part_gets_what_is_for_people_and_for_the_gate(part: str) -> None:
    data = WARM.slice(WHOLE, part)
    for text in (b"smith", b"heating", b"ethit", b"ethot", b"9414", b"works.example", b"100.65.0.0"):
        assert text not in data
    assert own(WARM, part).conduits["warm"].latency_budget_us == 0


def test_an_inner_part_gets_its_devices_and_not_where_clients_find_them() -> None:
    inner = own(WARM, "inner")
    assert {(asset.address, asset.port) for asset in inner.assets.values()} == {
        ("10.94.0.17", 1517), ("10.94.0.18", 1518),
    }  # fmt: skip
    assert all(not asset.places for asset in inner.assets.values())
    outer = own(WARM, "outer")
    assert {asset.name: asset.places for asset in outer.assets.values()} == {
        "boiler": (("100.65.0.17", 502),), "pump": (("100.65.0.18", 502),),
    }  # fmt: skip


def test_a_slice_names_the_whole_policy() -> None:
    """Entries and reports say under which policy something was done: the one that a person can look up."""
    for crew in (WARM, LIFT):
        for part in crew.parts:
            assert own(crew, part).hash == WHOLE.hash
            again = CompiledPolicy.from_bytes(own(crew, part).to_bytes())
            assert (again.hash, again.table) == (WHOLE.hash, own(crew, part).table)


def test_both_parts_judge_as_the_whole_policy_would() -> None:
    asked = [(who, asset) for who in ("10.91.0.20", "10.91.0.21") for asset in ("boiler", "pump")]
    ops = [read("holding", start, count) for start in (5, 6, 7) for count in (1, 2)]
    ops += [write("holding", start, value) for start in (5, 6, 7) for value in (5, 50, 5000)]
    ops.append(Operation(8, -1, 1, False))
    for source, asset in asked:
        for hour in range(0, 24, 5):
            now = NOW + hour * 3600 * 10**9
            for op in ops:
                expected = verdict(WHOLE, source, asset, op, now)
                for part in ("outer", "inner"):
                    assert verdict(own(WARM, part), source, asset, op, now) == expected


def verdict(policy: CompiledPolicy, source: str, asset: str, op: Operation, now: int) -> tuple[object, ...]:
    """But for the sentence: a verdict that is remembered may name an earlier hour."""
    flow = policy.flow("modbus", source, asset, ("office",))
    found: Allow | Deny = flow.decide(op, now) if isinstance(flow, Flow) else flow
    return found.conduit, found.rule, found.valid_until if isinstance(found, Allow) else found.fault


def test_an_asset_of_another_shard_is_unknown() -> None:
    """Shards of one crew serve assets of their own; who may come is the same for all."""
    shards = plan_crews(WHOLE, shards=64)
    mine = next(crew for crew in shards.values() if crew.asset_names == ("pump",))
    outer = CompiledPolicy.from_bytes(mine.slice(WHOLE, "outer"))
    assert set(outer.assets) == {"pump"}
    assert [rule.asset for rule in outer.conduits["warm"].rules] == ["pump"]
    assert outer.principals_of("10.91.0.20", "office") == ("erp",)
    denied = outer.flow("modbus", "10.91.0.20", "boiler", ("office",))
    assert isinstance(denied, Deny)


@pytest.mark.parametrize("wrong", ["x", "0" * 63, "G" * 64, 5])
def test_a_slice_of_no_policy_is_refused(wrong: object) -> None:
    raw = msgspec.msgpack.decode(WARM.slice(WHOLE, "outer"))
    with pytest.raises(PolicyError):
        CompiledPolicy.from_bytes(msgspec.msgpack.encode({**raw, "slice_of": wrong}))


def numbers(data: bytes) -> set[int]:
    """Every whole number in msgpack."""
    found: set[int] = set()
    waiting = [msgspec.msgpack.decode(data)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple)):
            waiting += one
        elif isinstance(one, (int, float)) and not isinstance(one, bool):
            found.add(int(one)) if one == one and abs(one) < 1e300 else None
    return found


def test_numbers_are_found() -> None:
    assert numbers(msgspec.msgpack.encode({"a": [1, 2.0, {"b": 3}], "c": Span("x", 4, 5)})) >= {1, 2, 3, 4, 5}
