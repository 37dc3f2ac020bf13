"""Plans and rules: worked out from a policy alone, and held against what the policy says."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import msgspec
import pytest

from cofferdam.enforce.firewall import find_nft
from cofferdam.enforce.orders import PLANS
from cofferdam.enforce.plans.network import NAMES, doors, network_plan
from cofferdam.enforce.plans.records import Link, NetworkPlan, Ping, Route, SidePlan, check, namespace_name
from cofferdam.enforce.plans.rules import counter_names, ruleset
from cofferdam.errors import CrossingError, GateError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.proof.rules.claims import LIVE, PLAN, confinement, drift
from cofferdam.proof.rules.listing import Ruleset
from cofferdam.proof.rules.solver import ask

POLICY = """
site: works
zones:
  office: {{side: it, interface: eth0, addresses: [10.1.0.1/16, "fd00:1::1/64"]}}
  lab: {{side: it, interface: eth2, vlan: 30, addresses: [10.3.0.1/16]}}
  plant: {{side: ot, interface: eth1, attach: macvlan, addresses: [10.2.0.1/16],
          routes: [10.9.0.0/16 via 10.2.0.254]}}
assets:
  a: {{zone: plant, address: 10.2.0.7, protocol: modbus, overlay: 100.65.0.7, points: {{p: {{at: holding 0, type: uint16}}}}}}
  b: {{zone: plant, address: 10.2.0.8, port: 1502, protocol: modbus, listen: "10.1.0.1:5020",
      points: {{p: {{at: holding 0, type: uint16}}}}}}
  c: {{zone: plant, address: 10.2.0.9, protocol: modbus, overlay: "fd00:64::9",
      points: {{p: {{at: holding 0, type: uint16}}}}}}
principals:
  erp: {{zone: office, addresses: [10.1.0.20, 10.1.4.0/24, 10.1.4.9, 10.1.5.0/24, "fd00:1::20"]}}
  bench: {{zone: lab, addresses: [10.3.0.5]}}
conduits:
  one: {{from: office, to: plant, broker: modbus, owner: o, reason: r, allow: [{{who: erp, asset: [a, b], read: all}}]}}
  six: {{from: office, to: plant, broker: modbus, owner: o, reason: r, allow: [{{who: erp, asset: c, read: all}}]}}
  two: {{from: lab, to: plant, broker: modbus, owner: o, reason: r, allow: [{{who: bench, asset: a, read: all}}]}}
gate: {{{gate}}}
"""  # noqa: E501
TWO_ROADS = POLICY.replace("asset: [a, b]", "asset: b").replace("  six: ", "  # six: ")
"""Two crews, whose inner halves stand in one namespace."""
INTERFACES = {"office": "eth0", "lab": "cdv30", "plant": "cdm1"}
OVERLAY = """overlay:
  prefix: 100.65.0.0/24
  prefix6: "fd00:64::/64"
  wireguard: {{endpoint: "gate.example:51820", peers: 10.64.8.0/24}}
"""
LOOP = dict.fromkeys(INTERFACES, "lo")


def plan(gate: str = "", text: str = POLICY) -> NetworkPlan:
    return network_plan(compile_policy(loads(text.format(gate=gate)), now_ns=0))


def test_names_are_told_by_a_tunnel_to_who_comes_to_a_place_that_has_one() -> None:
    """A vendor whose peer leads to the jump server's door alone learns nothing of what else there is."""
    text = (
        "\n".join((POLICY.replace("gate: {{", OVERLAY + "gate: {{"), ""))
        .replace(
            "conduits:\n",
            "  near: {{zone: office, peer: near}}\n  vendor: {{zone: office, peer: vendor}}\nconduits:\n"
            "  tunnel: {{from: office, to: plant, broker: modbus, owner: o, reason: r,"
            " allow: [{{who: near, asset: a, read: all}}]}}\n"
            "  help: {{from: office, to: plant, broker: jump, owner: o, reason: r, clients: vendor,"
            ' listen: "10.1.0.1:22",'
            " allow: [{{who: {{group: vendors}}, asset: d, as: svc, do: shell}}]}}\n",
        )
        .replace("principals:\n", "  d: {{zone: plant, address: 10.2.0.10, protocol: ssh}}\nprincipals:\n")
    )
    policy = compile_policy(loads(text.format(gate="")), now_ns=0)
    overlay = policy.overlay
    assert overlay is not None
    peers = {name: policy.principals[name].networks for name in ("near", "vendor")}
    names = [one for side in network_plan(policy).sides for one in side.listens if one.conduit == NAMES and one.tunnel]
    assert {source for one in names for source in one.sources} == set(peers["near"])
    assert doors(policy, "vendor") == ("10.1.0.1",)
    assert set(overlay.dns) < set(doors(policy, "near"))


def test_a_plan_has_what_the_policy_says() -> None:
    made = plan()
    assert made.namespaces and not made.required and check(made) == ""
    it, ot = made.sides
    assert [(link.zone, link.kind, link.vlan) for link in it.links] == [("lab", "vlan", 30), ("office", "move", 0)]
    assert [(link.zone, link.kind) for link in ot.links] == [("plant", "macvlan")]
    assert it.overlay == ("100.65.0.7", "fd00:64::9")  # 10.1.0.1 is an interface's own
    assert ot.routes == (Route("plant", "10.9.0.0/16", "10.2.0.254"),)
    assert {(reach.conduit, reach.addresses, reach.port) for reach in ot.reaches} == {
        ("one", ("10.2.0.7",), 502), ("one", ("10.2.0.8",), 1502), ("six", ("10.2.0.9",), 502),
        ("two", ("10.2.0.7",), 502),
    }  # fmt: skip
    one = next(listen for listen in it.listens if listen.conduit == "one" and listen.port == 502)
    # Networks without overlap, and neighbours as one: a set of the firewall takes nothing else.
    assert one.sources == ("10.1.0.20/32", "10.1.4.0/23", "fd00:1::20/128")
    assert not it.reaches and not ot.listens


@pytest.mark.parametrize(
    ("gate", "namespaces", "required"),
    [("", True, False), ("separation: processes", False, False), ("separation: namespaces", True, True),
     ("require: namespaces", True, True)],
)  # fmt: skip
def test_when_namespaces_are_wanted(gate: str, namespaces: bool, required: bool) -> None:
    made = plan(gate)
    assert (made.namespaces, made.required) == (namespaces, required)


def test_without_an_interface_for_a_zone_in_use_there_are_none() -> None:
    assert not plan(text=POLICY.replace("interface: eth2, vlan: 30, ", "")).namespaces
    made = plan("require: namespaces", text=POLICY.replace("interface: eth2, vlan: 30, ", ""))
    assert made.required and "lab" in check(made)


def test_a_plan_travels_and_nothing_else_does() -> None:
    made = plan()
    assert PLANS.decode(PLANS.encode(made)) == made
    raw = msgspec.msgpack.decode(PLANS.encode(made))
    for wrong in ([*raw, "more"], ["other", *raw[1:]], [*raw[:1], "../etc", *raw[2:]]):
        with pytest.raises(CrossingError):
            PLANS.decode(msgspec.msgpack.encode(wrong))
    link = msgspec.structs.replace(made.sides[0].links[0], interface="eth0; reboot")
    broken = msgspec.structs.replace(made, sides=(msgspec.structs.replace(made.sides[0], links=(link,)), made.sides[1]))
    with pytest.raises(CrossingError):
        PLANS.decode(PLANS.encode(broken))


@pytest.mark.parametrize(
    ("links", "word"),
    [
        ((Link("a", "move", "e0"), Link("b", "move", "e0")), "two zones"),
        ((Link("a", "vlan", "e0"),), "VLAN"),
        ((Link("a", "move", "e0", 5),), "VLAN"),
        ((Link("a", "vlan", "e0", 5), Link("b", "vlan", "e0", 5)), "two zones"),
        ((Link("a", "move", "e0"), Link("b", "vlan", "e0", 5)), "carries"),
        ((Link("a", "move", "e0"), Link("a", "move", "e1")), "two interfaces"),
        ((Link("a", "move", "e0", 0, ("10.0.0.999/24",)),), "10.0.0.999"),
    ],
)
def test_plans_that_make_no_sense(links: tuple[Link, ...], word: str) -> None:
    made = NetworkPlan("s", True, False, (SidePlan("it", links), SidePlan("ot")))
    assert word in check(made)


def users(side: SidePlan) -> dict[str, int]:
    """A user for each part that reaches something."""
    return {who: 64002 + number for number, who in enumerate(sorted({there.who for there in side.towards}))}


def rules(side: SidePlan) -> list[tuple[str, str]]:
    """(chain, all that the rule says) of each rule."""
    found: list[Any] = [command["add"]["rule"] for command in ruleset(side, INTERFACES, users(side))["nftables"]
                        if "rule" in command.get("add", {})]  # fmt: skip
    return [(rule["chain"], json.dumps(rule["expr"])) for rule in found]


def test_every_hook_drops_and_nothing_is_forwarded() -> None:
    for side in plan().sides:
        chains = [command["add"]["chain"] for command in ruleset(side, INTERFACES, users(side))["nftables"]
                  if "chain" in command.get("add", {})]  # fmt: skip
        assert {chain["hook"] for chain in chains} == {"input", "output", "forward", "ingress", "egress"}
        assert {chain["policy"] for chain in chains} == {"drop"}
        assert [text for chain, text in rules(side) if chain == "forward" and "accept" in text] == []


def test_the_office_can_open_connections_inwards_only_and_the_plant_side_outwards_only() -> None:
    it, ot = plan().sides
    syn = '"op": "!="'
    for chain, text in rules(it):
        if "tcp" in text and "@strangers" not in text:
            assert (chain == "output") == (syn in text), (chain, text)
    for chain, text in rules(ot):
        if "tcp" in text and "@strangers" not in text:  # what opens a connection outwards has its part's user
            assert (chain == "input" or "skuid" not in text) == (syn in text), (chain, text)
            assert chain == "output" or "skuid" not in text
    assert "fd00:64::9" in str(rules(it)) and "icmpv6" in str(rules(it)) and "ip6" not in str(rules(ot))


def test_what_opens_a_connection_to_a_device_must_be_of_its_own_part() -> None:
    it, ot = plan(text=TWO_ROADS).sides
    assert {reach.who for reach in ot.reaches} == {"modbus/office-plant/inner", "modbus/lab-plant/inner"}
    known = users(ot)
    opens = [json.loads(text) for chain, text in rules(ot) if chain == "output" and "skuid" in text]
    found = {(rule[1]["match"]["right"], rule[-3]["match"]["right"]) for rule in opens}
    assert found == {
        ("10.2.0.8", known["modbus/office-plant/inner"]), ("10.2.0.7", known["modbus/lab-plant/inner"]),
    }  # fmt: skip
    assert "skuid" not in str(rules(it))


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize("breaking", ["", "another's user", "no user", "every segment"])
def test_the_solver_sees_whose_road_it_is(breaking: str) -> None:
    """As nft lists the rules, and with a rule that lets another part, or anybody, open the connection."""
    try:
        find_nft()
    except GateError:
        pytest.skip("the program nft is missing")
    side = plan(text=TWO_ROADS).sides[1]
    known = users(side)
    in_force = listed(side)
    for entry in in_force["nftables"]:
        steps = entry.get("rule", {}).get("expr", [])
        mine = [step for step in steps if step.get("match", {}).get("left") == {"meta": {"key": "skuid"}}]
        if mine and mine[0]["match"]["right"] == known["modbus/lab-plant/inner"]:
            if breaking == "another's user":
                mine[0]["match"]["right"] = known["modbus/office-plant/inner"]
            elif breaking == "no user":
                steps.remove(mine[0])
            elif breaking == "every segment":
                steps[:] = [step for step in steps if "payload" not in str(step) or "flags" not in str(step)]
    live, made = Ruleset.read(in_force), Ruleset.read(ruleset(side, LOOP, known, tunnel="cdw0"))
    asked = (*confinement(side, LOOP, known), *drift(made, live))
    answers = ask({LIVE: live, PLAN: made}, asked, ("lo", "cdw0"))
    found = {answer.question.name: answer.packet for answer in answers if answer.packet is not None}
    if breaking in ("", "every segment"):
        # Any segment of the right user is what both rules together let through.
        assert not found
        return
    assert set(found) == {"out goes only what the policy declares", "as in the policy: output"}
    packet = found["out goes only what the policy declares"]
    assert packet is not None and packet.fields["daddr"] == "10.2.0.7"
    assert packet.fields["user"] != str(known["modbus/lab-plant/inner"])


def pinging() -> SidePlan:
    """The plant's side, where one part may ask one device of each IP version for an echo."""
    ping = Ping("one", "plant", ("10.2.0.7", "fd00:2::7"), "patch/office-plant", "installer")
    return msgspec.structs.replace(plan(text=TWO_ROADS).sides[1], pings=(ping,))


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize(
    ("breaking", "path"), [("", ""), ("any user", "output"), ("any device", "output"), ("any kind", "input")]
)
def test_the_solver_sees_who_asks_whom_for_an_echo(breaking: str, path: str) -> None:
    """As nft lists the rules, and with one that lets anybody ask, anyone be asked, or another message in."""
    try:
        find_nft()
    except GateError:
        pytest.skip("the program nft is missing")
    side = pinging()
    known = users(side)
    in_force = listed(side)
    broken = 0
    for entry in in_force["nftables"]:
        steps = entry.get("rule", {}).get("expr", [])
        asks, replies = "echo-request" in str(steps), "echo-reply" in str(steps)
        lacks = {"any user": "skuid", "any device": "daddr"}.get(breaking, "") if asks else ""
        if replies and breaking == "any kind":
            lacks = "'field': 'type'"
        kept = [step for step in steps if not lacks or lacks not in str(step)]
        broken += kept != steps
        steps[:] = kept
    assert bool(broken) == bool(breaking)
    live, made = Ruleset.read(in_force), Ruleset.read(ruleset(side, LOOP, known, tunnel="cdw0"))
    asked = (*confinement(side, LOOP, known), *drift(made, live))
    answers = ask({LIVE: live, PLAN: made}, asked, ("lo", "cdw0"))
    found = {answer.question.name for answer in answers if answer.packet is not None}
    way = {"output": "out goes", "input": "in comes"}.get(path)
    assert found == ({f"{way} only what the policy declares", f"as in the policy: {path}"} if path else set())


def test_a_plan_with_an_echo_is_held_to_its_zones_and_addresses() -> None:
    made = plan(text=TWO_ROADS)
    assert check(msgspec.structs.replace(made, sides=(made.sides[0], pinging()))) == ""
    elsewhere = msgspec.structs.replace(pinging(), pings=(Ping("one", "lab", ("10.2.0.7",), "c", "p"),))
    assert "zone lab" in check(msgspec.structs.replace(made, sides=(made.sides[0], elsewhere)))
    none = msgspec.structs.replace(pinging(), pings=(Ping("one", "plant", ("10.2.0.999",), "c", "p"),))
    assert "10.2.0.999" in check(msgspec.structs.replace(made, sides=(made.sides[0], none)))
    assert pinging().has_ipv6 and not plan(text=TWO_ROADS).sides[1].has_ipv6


def test_counters_are_named_for_conduits() -> None:
    it, ot = plan().sides
    assert counter_names(it)[:3] == ("clients-one", "clients-six", "clients-two")
    assert counter_names(ot)[:3] == ("devices-one", "devices-six", "devices-two")


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_nft_takes_the_rules_twice() -> None:
    """In an empty namespace, with `lo` for every interface; the second time replaces the first."""
    try:
        nft = find_nft()
    except GateError:
        pytest.skip("the program nft is missing")
    for side in plan().sides:
        text = json.dumps(ruleset(side, LOOP, users(side)))
        command = f"{nft} -j -f - <<'E' && {nft} -j -f - <<'E' && {nft} -j list ruleset\n{text}\nE\n{text}\nE\n"
        done = subprocess.run(["unshare", "-n", "bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        listed = json.loads(done.stdout)["nftables"]
        assert sum("chain" in item for item in listed) == 5


def test_names_of_namespaces() -> None:
    assert namespace_name("works", "it", "") == "cofferdam-works-it"
    assert len(namespace_name("x" * 63, "ot", "abcd")) < 80


def listed(side: SidePlan) -> dict[str, Any]:
    """The rules as nft lists them, from an empty namespace."""
    text = json.dumps(ruleset(side, LOOP, users(side), tunnel="cdw0"))
    command = f"{find_nft()} -j -f - <<'E' && {find_nft()} -j list ruleset\n{text}\nE\n"
    done = subprocess.run(["unshare", "-n", "bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_the_limit_of_openings_is_part_of_what_the_rules_mean() -> None:
    """In every way by which clients come; and its numbers belong to it, though the solver leaves it free."""
    try:
        find_nft()
    except GateError:
        pytest.skip("the program nft is missing")
    peers = POLICY
    for old, new in (
        ("assets:", f"{OVERLAY}\nassets:"),
        ("  bench:", "  alice: {{zone: office, peer: alice}}\n  bench:"),
        ("who: erp, asset: c", "who: [erp, alice], asset: [a, c]"),
    ):
        peers = peers.replace(old, new, 1)
    side = plan(text=peers).sides[0]
    assert side.openings == 100
    rules = listed(side)
    steps = [step for entry in rules["nftables"] if "rule" in entry for step in entry["rule"]["expr"]]
    counted = [step["set"] for step in steps if "set" in step and "strangers" not in step["set"]["set"]]
    assert {step["set"] for step in counted} == {"@wire-ip", "@wire-ip6", "@tunnel-ip", "@tunnel-ip6"}
    limit = {"rate": 100, "burst": 400, "per": "second", "inv": True}
    assert [step["stmt"] for step in counted] == [[{"limit": limit}]] * 4
    live = Ruleset.read(rules)

    def changed(openings: int) -> list[str]:
        made = Ruleset.read(ruleset(msgspec.structs.replace(side, openings=openings), LOOP, users(side), tunnel="cdw0"))
        answers = ask({LIVE: live, PLAN: made}, drift(made, live), ("lo", "cdw0"))
        return [answer.question.name for answer in answers if answer.packet is not None]

    assert changed(100) == []
    assert changed(101) == ["as in the policy: input"]
    assert changed(0) == ["as in the policy: input"]
