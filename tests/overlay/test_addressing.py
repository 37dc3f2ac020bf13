"""Overlay addresses: from the name, from the policy, from the record; nobody moves when somebody comes."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from cofferdam.errors import PolicyError
from cofferdam.policy import addressing
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.lint import lint
from cofferdam.policy.load import Loaded, load, loads, overlay_record
from cofferdam.policy.table import CompiledPolicy
from tests.overlay.works import NOW_NS, compiled, text

WIREGUARD = 'prefix: 10.64.7.0/24\nwireguard: {endpoint: "vpn.example.com:51820", peers: 10.64.8.0/24}'


def problems(source: str) -> str:
    with pytest.raises(PolicyError) as caught:
        loads(source)
    return "\n".join(map(str, caught.value.problems))


def test_an_asset_gets_an_address_of_each_version_from_the_prefix() -> None:
    policy = compiled()
    four, six = policy.assets["plc-7"].places
    assert ipaddress.ip_address(four[0]) in ipaddress.ip_network("10.64.7.0/24")
    assert ipaddress.ip_address(six[0]) in ipaddress.ip_network(addressing.ula("riverside-water", 0))
    assert four[1] == six[1] == 502
    assert policy.overlays == {"plc-7": four[0]}


def test_the_ula_is_local_and_the_sites_own() -> None:
    one, other = (ipaddress.ip_network(addressing.ula(site, 0)) for site in ("riverside-water", "lakeside-water"))
    assert one != other
    for network in (one, other):
        assert network.prefixlen == 64
        assert network.subnet_of(ipaddress.IPv6Network("fd00::/8"))  # type: ignore[arg-type]


def test_an_address_of_its_own_replaces_one_version_only() -> None:
    policy = compiled(text({"plc-7": "overlay: 10.64.7.17"}))
    assert policy.assets["plc-7"].places[0][0] == "10.64.7.17"
    assert ":" in policy.assets["plc-7"].places[1][0]
    policy = compiled(text({"plc-7": "overlay: 'fd00::17'"}))
    assert policy.assets["plc-7"].places[1][0] == "fd00::17"
    assert policy.assets["plc-7"].places[0][0].startswith("10.64.7.")


def test_where_the_policy_names_a_place_there_is_no_other() -> None:
    assert compiled(text({"plc-7": "listen: '10.1.0.1:1502'"})).assets["plc-7"].places == (("10.1.0.1", 1502),)


def test_without_ipv6() -> None:
    policy = compiled(text(overlay="prefix: 10.64.7.0/24\nprefix6: none"))
    assert [":" in address for address, _ in policy.assets["plc-7"].places] == [False]


def test_another_asset_moves_none() -> None:
    """Name by name: each policy has all addresses of the one before, or is refused."""
    before: dict[str, tuple[tuple[str, int], ...]] = {}
    assets: dict[str, str] = {}
    refused = 0
    for number in range(60):
        assets[f"plc-{number}"] = ""
        try:
            policy = compiled(text(assets))
        except PolicyError:
            refused += 1
            del assets[f"plc-{number}"]
            continue
        now = {name: asset.places for name, asset in policy.assets.items()}
        assert {name: now[name] for name in before} == before
        before = now
    assert refused, "60 names in 254 addresses collide somewhere"


def _with_record(folder: Path, source: str) -> Loaded:
    """As `overlay assign` does it."""
    from cofferdam.gate.overlay.record import write_record

    path = folder / "policy.yaml"
    path.write_text(source)
    write_record(path)
    return load(path)


def _places(loaded: Loaded) -> dict[str, tuple[tuple[str, int], ...]]:
    policy: CompiledPolicy = compile_policy(loaded, now_ns=NOW_NS)
    return {name: asset.places for name, asset in policy.assets.items()}


def test_the_record_keeps_every_address(tmp_path: Path) -> None:
    names = [f"plc-{number}" for number in range(200)]
    before: dict[str, tuple[tuple[str, int], ...]] = {}
    for count in (20, 21, 90, 200):
        now = _places(_with_record(tmp_path, text(dict.fromkeys(names[:count], ""))))
        assert {name: now[name] for name in before} == before
        found = [place for places in now.values() for place in places]
        assert len(set(found)) == len(found) == 2 * count
        before = now
    # An asset that went and came back has its address, though another had the chance to take it.
    _with_record(tmp_path, text(dict.fromkeys(names[5:], "")))
    assert _places(_with_record(tmp_path, text(dict.fromkeys(names, "")))) == before


def test_a_full_prefix_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        _with_record(tmp_path, text({f"plc-{n}": "" for n in range(20)}, overlay="prefix: 10.64.7.0/28"))
    assert "all of whose addresses are taken" in str(caught.value.problems)


def test_the_record_lies_beside_a_file_and_within_a_folder(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(text())
    assert overlay_record(tmp_path / "one.yaml") == tmp_path / "one.overlay.yaml"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "one.yaml").write_text(text())
    from cofferdam.gate.overlay.record import write_record

    assert write_record(folder) == folder / "overlay-assigned.yaml"
    assert not lint(load(folder))


def test_lint_asks_for_a_record_and_is_content_with_one(tmp_path: Path) -> None:
    assert [problem.check for problem in lint(loads(text()))] == ["not-recorded"]
    assert not lint(_with_record(tmp_path, text()))


def test_a_collision_is_a_finding_with_the_way_out() -> None:
    prefix = "prefix: 10.64.7.0/30"  # two addresses, one of which serves names
    found = problems(text({"a": "", "b": "", "c": ""}, overlay=prefix))
    assert "cofferdam overlay assign POLICY" in found


def test_a_recorded_address_outside_the_prefix_is_found() -> None:
    found = problems(text(overlay="prefix: 10.64.7.0/24\nassigned: {plc-7: 10.99.0.1}"))
    assert "10.99.0.1 for asset plc-7, outside 10.64.7.0/24" in found


def test_one_address_recorded_twice_is_found() -> None:
    found = problems(text({"a": "", "b": ""}, overlay="prefix: 10.64.7.0/24\nassigned: {a: 10.64.7.5, b: 10.64.7.5}"))
    assert "a has as well" in found


def test_two_names_that_dns_can_not_tell_apart() -> None:
    assert "DNS" in problems(text({"PLC-7": "", "plc-7": ""}))
    assert "the name server" in problems(text({"ns": ""}))


def test_a_prefix_in_the_carrier_grade_range_is_linted() -> None:
    assert "carrier-grade" in {problem.check for problem in lint(loads(text(overlay="prefix: 100.64.7.0/24")))}


@pytest.mark.parametrize(
    "field", ["prefix: 10.64.7.1/24", "prefix: 10.0.0.0/7", "prefix: 'fd00::/64'", "prefix6: 10.0.0.0/24",
              "prefix6: maybe", "domain: 'a..b'", "domain: -", "prefix: 10.64.7.0/24\nport: 1"],
)  # fmt: skip
def test_wrong_fields_are_found(field: str) -> None:
    assert "overlay" in problems(text(overlay=field)) or "expected" in problems(text(overlay=field))


def test_no_asset_answers_at_the_address_of_a_host_that_the_policy_knows() -> None:
    """The gate would answer for it on the office's wire, and take its packets for forged ones."""
    assert "10.1.0.20, which erp has" in problems(text({"plc-7": "overlay: 10.1.0.20"}))
    loads(text({"plc-7": "overlay: 10.1.0.21"}))
    (address, _), _ = compiled(text(overlay="prefix: 10.1.5.0/24")).assets["plc-7"].places
    there = {"overlay": "prefix: 10.1.5.0/24", "principals": f"other: {{zone: enterprise, addresses: {address}}}"}
    assert f"{address} for asset plc-7, other has as well" in problems(text(**there))  # type: ignore[arg-type]
    # A network of hosts may hold the slice.
    loads(text(overlay="prefix: 10.1.5.0/24", principals="all: {zone: enterprise, addresses: 10.1.0.0/16}"))


# --- peers ----------------------------------------------------------------------------------------------------------


def test_a_peer_is_a_principal_by_the_address_of_its_key() -> None:
    policy = compiled(text(overlay=WIREGUARD, principals="alice: {zone: enterprise, peer: alice-laptop}"))
    alice = policy.principals["alice"]
    assert alice.peer == "alice-laptop"
    four, six = alice.networks
    assert ipaddress.ip_network(four).subnet_of(ipaddress.IPv4Network("10.64.8.0/24"))  # type: ignore[arg-type]
    assert six.endswith("/128")
    assert policy.principals_of(four.split("/")[0], "enterprise") == ("alice",)
    assert policy.overlay is not None and policy.overlay.wireguard is not None
    assert policy.overlay.wireguard.port == 51820


@pytest.mark.parametrize(
    ("overlay", "principals", "expected"),
    [
        ("prefix: 10.64.7.0/24", "alice: {zone: enterprise, peer: alice}", "by which peers come"),
        (WIREGUARD, "alice: {zone: enterprise, peer: alice, addresses: 10.1.0.9}", "addresses and a peer"),
        (WIREGUARD, "alice: {zone: enterprise}", "principal alice without addresses"),
        (WIREGUARD, "office: {zone: enterprise, addresses: 10.0.0.0/8}", "which holds 10.64.8.0/24"),
        (WIREGUARD, "office: {zone: enterprise, addresses: 10.64.8.7}", "which holds 10.64.8.0/24"),
        (WIREGUARD, "plant: {zone: control, peer: alice}", "a peer in zone control of side ot"),
        (WIREGUARD.replace("vpn.example.com:51820", "vpn.example.com"), "", "a host and a port"),
        (WIREGUARD.replace("51820", "443"), "", ""),
        (WIREGUARD.replace("10.64.8.0", "10.64.7.0"), "", "10.64.7.0/24, the overlay's prefix"),
        (WIREGUARD.replace("10.64.8.0/24", "10.64.0.0/16"), "", "10.64.7.0/24, the overlay's prefix"),
        (WIREGUARD.replace("10.64.8.0/24", "10.1.0.0/28"), "", "the gate's address in zone enterprise"),
        (WIREGUARD.replace("10.64.8.0/24", "10.1.9.0/24"), "", ""),
    ],
)
def test_peers_are_checked(overlay: str, principals: str, expected: str) -> None:
    source = text(overlay=overlay, principals=principals)
    if expected:
        assert expected in problems(source)
    else:
        loads(source)
