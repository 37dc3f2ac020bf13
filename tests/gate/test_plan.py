"""Which pairs a policy needs, and what a new policy does to those that run."""

from __future__ import annotations

import pytest

from cofferdam.errors import PolicyError
from cofferdam.gate.crew.plan import CrewPlan, change_crews, plan_crews
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy

NOW = 1_800_000_000_000_000_000


def policy(
    assets: dict[str, tuple[str, int]],
    roads: list[tuple[str, str, str]],
    *,
    zones: dict[str, str] | None = None,
) -> CompiledPolicy:
    """`assets`: name -> (device, listening port); `roads`: (from zone, to zone, asset)."""
    zones = zones or {"enterprise": "it", "business": "it", "control": "ot"}
    lines = ["site: s", "zones:", *(f"  {name}: {{side: {side}}}" for name, side in zones.items()), "assets:"]
    homes = {asset: to for _, to, asset in roads}
    for name, (device, port) in assets.items():
        lines.append(
            f"  {name}: {{zone: {homes.get(name, 'control')}, address: {device}, protocol: modbus, unit: any, "
            f'listen: "127.0.0.1:{port}", points: {{p: {{at: holding 0, type: uint16}}}}}}'
        )
    lines.append("principals:")
    for zone in sorted({source for source, _, _ in roads}):
        lines.append(f"  {zone}-host: {{zone: {zone}, addresses: [10.0.0.{len(zone)}]}}")
    lines.append("conduits:")
    for number, (source, target, asset) in enumerate(roads):
        lines.append(
            f"  road-{number}: {{from: {source}, to: {target}, broker: modbus, owner: o, reason: r, "
            f"allow: [{{who: {source}-host, asset: {asset}, read: [p]}}]}}"
        )
    return compile_policy(loads("\n".join(lines) + "\n"), now_ns=NOW)


def shape(plans: dict[str, CrewPlan]) -> dict[str, tuple[str, ...]]:
    return {name: plan.asset_names for name, plan in plans.items()}


EC = "modbus/enterprise-control"


def test_one_pair_for_each_road() -> None:
    plans = plan_crews(
        policy(
            {"a": ("10.1.0.1", 5001), "b": ("10.1.0.2", 5002), "c": ("10.1.0.3", 5003)},
            [("enterprise", "control", "a"), ("enterprise", "control", "b"), ("business", "control", "c")],
        )
    )
    assert shape(plans) == {EC: ("a", "b"), "modbus/business-control": ("c",)}
    assert [part.place and part.place.side for part in plans[EC].parts.values()] == ["it", "ot"]
    assert [str(spot) for spot in plans[EC].spots] == ["127.0.0.1:5001", "127.0.0.1:5002"]


def test_zones_that_reach_one_device_share_a_pair() -> None:
    """Two inner halves would open twice the connections that the device bears."""
    plans = plan_crews(
        policy(
            {"a": ("10.1.0.1", 5001), "b": ("10.1.0.1", 5002), "c": ("10.1.0.3", 5003)},
            [("enterprise", "control", "a"), ("business", "control", "b"), ("business", "control", "c")],
        )
    )
    assert shape(plans) == {"modbus/business+enterprise-control": ("a", "b", "c")}


def test_zones_of_two_sides_can_not_share_a_device() -> None:
    with pytest.raises(PolicyError) as refused:
        policy(
            {"a": ("10.1.0.1", 5001)},
            [("enterprise", "control", "a"), ("other", "control", "a")],
            zones={"enterprise": "it", "other": "ot", "control": "ot"},
        )
    [problem] = refused.value.problems
    assert "different sides and reach the same device: the device 10.1.0.1:502 of side ot" in str(problem)


def test_shards_spread_devices_and_never_split_one() -> None:
    assets = {f"a{n:02}": (f"10.1.0.{n // 2}", 5000 + n) for n in range(40)}
    plans = plan_crews(policy(assets, [("enterprise", "control", name) for name in assets]), shards=4)
    assert set(plans) == {f"{EC}:{n}" for n in range(1, 5)}
    homes: dict[object, set[str]] = {}
    for plan in plans.values():
        for share in plan.shares:
            homes.setdefault(share.key, set()).add(plan.name)
    assert all(len(found) == 1 for found in homes.values())
    assert sorted(name for plan in plans.values() for name in plan.asset_names) == sorted(assets)


def after(old: dict[str, tuple[str, int]], new: dict[str, tuple[str, int]]) -> tuple[object, object, object, object]:
    running = plan_crews(policy(old, [("enterprise", "control", name) for name in old]))
    fresh = plan_crews(policy(new, [("enterprise", "control", name) for name in new]))
    change = change_crews(running, fresh)
    return (
        shape({plan.name: plan for plan in change.keep}),
        shape({plan.name: plan for plan in change.restart}),
        shape({plan.name: plan for plan in change.start}),
        change.stop,
    )


ONE = {"a": ("10.1.0.1", 5001)}
TWO = ONE | {"b": ("10.1.0.2", 5002)}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(ONE, ONE, ({EC: ("a",)}, {}, {}, ()), id="same"),
        pytest.param(TWO, ONE, ({EC: ("a",)}, {}, {}, ()), id="asset-gone"),
        pytest.param(ONE, TWO, ({EC: ("a",)}, {}, {f"{EC}+2": ("b",)}, ()), id="device-added"),
        pytest.param(
            ONE, ONE | {"b": ("10.1.0.1", 5002)}, ({}, {EC: ("a", "b")}, {}, ()), id="asset-added-behind-a-known-device"
        ),
        pytest.param(ONE, {"a": ("10.1.0.1", 6001)}, ({}, {EC: ("a",)}, {}, ()), id="listens-elsewhere"),
        pytest.param(ONE, {"a": ("10.1.0.9", 5001)}, ({EC: ("a",)}, {}, {}, ()), id="device-moved"),
        pytest.param(ONE, {"b": ("10.1.0.2", 5002)}, ({}, {}, {f"{EC}+2": ("b",)}, (EC,)), id="all-other"),
    ],
)
def test_from_one_policy_to_the_next(
    old: dict[str, tuple[str, int]], new: dict[str, tuple[str, int]], expected: tuple[object, ...]
) -> None:
    assert after(old, new) == expected


def test_a_second_addition_gets_the_next_number() -> None:
    running = plan_crews(policy(TWO, [("enterprise", "control", name) for name in TWO]))
    lone = {EC: running[EC]}
    three = TWO | {"c": ("10.1.0.3", 5003)}
    fresh = plan_crews(policy(three, [("enterprise", "control", name) for name in three]))
    first = change_crews(lone, fresh).start[0]
    four = three | {"d": ("10.1.0.4", 5004)}
    again = plan_crews(policy(four, [("enterprise", "control", name) for name in four]))
    second = change_crews(lone | {first.name: first}, again).start[0]
    assert (first.name, second.name) == (f"{EC}+2", f"{EC}+3")


def test_roads_that_come_to_share_a_device_become_one_pair() -> None:
    assets = {"a": ("10.1.0.1", 5001), "b": ("10.1.0.2", 5002)}
    roads = [("enterprise", "control", "a"), ("business", "control", "b")]
    running = plan_crews(policy(assets, roads))
    change = change_crews(running, plan_crews(policy(assets, [*roads, ("business", "control", "a")])))
    assert change.stop == ("modbus/business-control", EC)
    assert [plan.name for plan in change.start] == ["modbus/business+enterprise-control"]
    assert not change.keep and not change.restart
