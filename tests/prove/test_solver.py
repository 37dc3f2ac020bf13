"""The solver against rulesets that real nft has read and listed, and against an evaluator that is plain and slow."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, reject
from hypothesis import strategies as st

from cofferdam.proof.rules.fields import Among, Named
from cofferdam.proof.rules.listing import Ruleset, Unmodelled
from cofferdam.proof.rules.reduce import differences
from cofferdam.proof.rules.solver import Packet, Question, ask, script
from tests.examples import examples
from tests.prove import evaluator

Json = dict[str, Any]
NAMES = ("lo", "it0", "it1", "ot0")
ROAD = (Named("iif", ("it0", "it1"), True), Named("oif", ("ot0",), True))
needs_nft = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None or shutil.which("unshare") is None,
    reason="needs root, nft and unshare",
)


def listed(text: str, *, as_json: bool = False) -> Json:
    """What nft lists after reading `text`, in a network namespace that ends with the command."""
    command = f"nft {'-j ' if as_json else ''}-f - && nft -j list ruleset"
    done = subprocess.run(["unshare", "-n", "sh", "-c", command], input=text, capture_output=True, text=True)
    if as_json and "conflicting" in done.stderr:
        reject()  # nft refuses combinations that cannot be, such as TCP and UDP
    assert done.returncode == 0, done.stderr
    result: Json = json.loads(done.stdout)
    return result


def forward(*rules: str, policy: str = "drop", more: str = "") -> str:
    body = "\n".join(rules)
    return f"""table inet t {{
{more}
chain forward {{ type filter hook forward priority 0; policy {policy};
{body}
}}
}}"""


def crossing(text: str) -> Packet | None:
    (answer,) = ask({"live": Ruleset.read(listed(text))}, [Question("cross", "forward", "live", ROAD)], NAMES)
    return answer.packet


def found(text: str) -> dict[str, str]:
    packet = crossing(text)
    assert packet is not None, "no packet found"
    return packet.fields


pytestmark = [pytest.mark.netns, needs_nft]


@pytest.mark.parametrize(
    "rules",
    [
        (),
        ("iifname it0 oifname it1 accept",),
        ("iifname ot0 oifname it0 accept", "iifname lo accept"),
        ("oifname ot0 drop", "accept"),
        ("ct state established,related accept",),
        ("tcp dport 80 meta l4proto != tcp accept",),
        ("icmp type echo-request meta mark 1 drop", "icmp type echo-request meta mark 1 accept"),
        ('iifname "ot*" accept',),
        ("meta l4proto != { 0-255 } accept",),
        ("ip daddr 10.0.0.0-10.0.0.9 drop", "ip daddr 10.0.0.0/29 accept"),
        ("tcp flags & (syn|ack) == syn drop", "tcp flags & (syn|ack) != syn drop", "meta l4proto tcp tcp dport 1 accept"),  # noqa: E501
        ("iifname { it0, it1 } reject", "accept"),
        ("th dport < 100 drop", "th dport >= 100 drop", "tcp dport 7 accept"),
    ],
)  # fmt: skip
def test_no_road(rules: tuple[str, ...]) -> None:
    assert crossing(forward(*rules)) is None


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (("iifname it0 accept",), {"in": "it0", "out": "ot0"}),
        (('iifname "it*" oifname "ot*" tcp dport 502 accept',), {"protocol": "tcp", "dport": "502"}),
        (("ip saddr 10.1.0.0/16 ip daddr 10.20.0.17 udp dport 53 accept",),
         {"saddr": "10.1.0.0", "daddr": "10.20.0.17", "protocol": "udp"}),
        (("ip6 daddr fd00::17 icmpv6 type echo-request accept",),
         {"version": "6", "daddr": "fd00::17", "icmpv6 type": "echo-request"}),
        (("tcp dport 22 drop", "tcp dport 21-23 tcp dport != 21 accept",), {"dport": "23"}),
        (("ct state new accept",), {"out": "ot0"}),
        (("ct state vmap { established : accept, new : accept, invalid : drop }",), {"out": "ot0"}),
        (("tcp flags & (syn|ack) == syn tcp flags != syn drop", "tcp flags & (syn|ack) == syn accept"),
         {"tcp flags": "syn"}),
        (("ip saddr . tcp dport { 10.0.0.1 . 80-90 } tcp dport != 80-89 accept",),
         {"saddr": "10.0.0.1", "dport": "90"}),
        (("ip daddr != { 0.0.0.0/1, 128.0.0.0-255.255.255.254 } accept",), {"daddr": "255.255.255.255"}),
        (("ip protocol gre accept",), {"protocol": "gre"}),
        (("ip frag-off & 0x1fff != 0 accept",), {"fragment": "a later one"}),
        (("meta mark 7 accept",), {"mark": "7"}),
        (("counter log prefix \"x\" limit rate 5/second accept",), {"out": "ot0"}),
        (("fib daddr type local accept",), {"out": "ot0"}),
    ],
)  # fmt: skip
def test_the_packet(rules: tuple[str, ...], expected: dict[str, str]) -> None:
    fields = found(forward(*rules))
    assert fields.items() >= expected.items(), fields


def test_jump_goto_and_return() -> None:
    chains = """
    chain bad { tcp dport 80 accept
      udp dport 53 return
      drop
    }
    chain far { tcp dport 99 accept
    }
    """
    assert found(forward("oifname ot0 jump bad", "udp dport 53 accept", more=chains))["dport"] in ("80", "53")
    assert crossing(forward("oifname ot0 tcp dport != 80 jump bad", "tcp dport 9 accept", more=chains)) is None
    # After goto nothing of the calling chain comes, so its accept is never reached.
    assert found(forward("goto far", "accept", more=chains))["dport"] == "99"
    # A return in the base chain is its policy.
    assert crossing(forward("return", "accept")) is None


def test_sets_and_maps() -> None:
    sets = """
    set a { type ipv4_addr
     flags interval
     elements = { 10.20.0.0/24, 10.9.9.9-10.9.9.12 }
    }
    set empty { type ipv4_addr
    }
    set seen { type ipv4_addr
     flags dynamic,timeout
     timeout 1m
    }
    map m { type inet_service : verdict
     elements = { 80 : drop, 81 : accept }
    }
    """
    assert found(forward("ip daddr @a accept", more=sets))["daddr"] in ("10.20.0.0", "10.9.9.9")
    assert crossing(forward("ip daddr @empty accept", more=sets)) is None
    assert found(forward("tcp dport vmap @m", more=sets))["dport"] == "81"
    # What is in a set that packets fill, nobody knows: a road may be there.
    packet = crossing(forward("ip daddr @seen tcp dport 1 accept", more=sets))
    assert packet is not None and any("@seen" in free for free in packet.free)


def test_every_base_chain_must_accept() -> None:
    early = """
    table ip other {
    chain p { type filter hook prerouting priority -300; policy accept;
     ip saddr 10.0.0.0/8 drop
    }
    }
    """
    packet = found(forward("tcp dport 80 accept") + early)
    assert packet["version"] == "6" or not packet["saddr"].startswith("10.")
    assert crossing(forward("ip saddr 10.2.3.4 accept") + early) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("table ip n {\nchain p { type nat hook prerouting priority -100;\n tcp dport 80 dnat to 10.0.0.1\n}\n}", "dnat"),  # noqa: E501
        ("table ip n {\nchain p { type nat hook postrouting priority 100;\n masquerade\n}\n}", "masquerade"),
        ("table netdev n {\nchain i { type filter hook ingress device lo priority 0;\n fwd to lo\n}\n}", "fwd"),
        ("table inet n {\nchain f { type filter hook forward priority 0;\n ip ttl set 5\n}\n}", "changes"),
    ],
)  # fmt: skip
def test_what_is_not_modelled_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(Unmodelled, match=named):
        Ruleset.read(listed(text))


def drift(one: str, other: str) -> Packet | None:
    rulesets = {"live": Ruleset.read(listed(one)), "plan": Ruleset.read(listed(other))}
    (answer,) = ask(rulesets, [Question("drift", "forward", "live", differs="plan")], NAMES)
    return answer.packet


def test_drift_is_about_meaning() -> None:
    one = forward("tcp dport { 1, 2, 3 } accept", "ip saddr 10.0.0.0/9 accept", "ip saddr 10.128.0.0/9 accept")
    same = forward("ip saddr 10.0.0.0/8 accept", "tcp dport 1-3 accept")
    assert drift(one, same) is None
    other = forward("ip saddr 10.0.0.0/8 ip saddr != 10.9.9.9 accept", "tcp dport 1-3 accept")
    packet = drift(one, other)
    assert packet is not None and packet.fields["saddr"] == "10.9.9.9"


def test_drift_of_one_rule_is_narrowed_to_it() -> None:
    rules = [f"ip daddr 10.0.{n}.1 tcp dport {n + 1} accept" for n in range(50)]
    changed = [*rules[:20], "ip daddr 10.0.20.1 tcp dport 21-22 accept", *rules[21:]]
    one, other = Ruleset.read(listed(forward(*rules))), Ruleset.read(listed(forward(*changed)))
    assert len(differences(one, other) or ()) == 2
    question = Question("drift", "forward", "one", differs="other")
    assert script({"one": one, "other": other}, question, NAMES).count("\n") < 60
    (answer,) = ask({"one": one, "other": other}, [question], NAMES)
    assert answer.packet is not None and answer.packet.fields["dport"] == "22"


# --- random rulesets --------------------------------------------------------------------------------------------------

ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.168.0.1"]
PORTS = [1, 2, 3, 80, 65535]


def _match(left: Json, right: Any, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


addresses = st.one_of(
    st.sampled_from(ADDRESSES),
    st.just({"prefix": {"addr": "10.0.0.0", "len": 24}}),
    st.just({"range": ["10.0.0.1", "10.0.0.2"]}),
)
ports = st.one_of(st.sampled_from(PORTS), st.just({"range": [2, 80]}))
equal = st.sampled_from(["==", "!="])
matches = st.one_of(
    st.builds(lambda end, a, op: _match(_payload("ip", end), a, op), st.sampled_from(["saddr", "daddr"]), addresses, equal),  # noqa: E501
    st.builds(lambda a, op: _match(_payload("ip", "daddr"), {"set": sorted(set(a))}, op),
              st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3), equal),
    st.builds(lambda p, n, op: _match(_payload(p, "dport"), n, op), st.sampled_from(["tcp", "udp", "th"]), ports, equal),  # noqa: E501
    st.builds(lambda n, op: _match(_payload("tcp", "sport"), n, op), st.sampled_from([2, 80]),
              st.sampled_from(["<", "<=", ">", ">="])),
    st.builds(lambda k, n, op: _match({"meta": {"key": k}}, n, op), st.sampled_from(["iifname", "oifname"]),
              st.sampled_from(["it0", "ot0", "it*"]), equal),
    st.builds(lambda n, op: _match({"meta": {"key": "l4proto"}}, n, op), st.sampled_from(["tcp", "udp", "icmp"]), equal),  # noqa: E501
    st.builds(lambda n: _match({"meta": {"key": "nfproto"}}, n), st.sampled_from(["ipv4", "ipv6"])),
    st.builds(lambda n, op: _match(_payload("icmp", "type"), n, op), st.sampled_from(["echo-request", "echo-reply"]), equal),  # noqa: E501
    st.builds(lambda op: _match({"&": [_payload("tcp", "flags"), ["syn", "ack"]]}, "syn", op), equal),
    st.builds(lambda s: _match({"ct": {"key": "state"}}, s, "in"),
              st.sampled_from([["established"], ["new"], ["new", "established"], ["invalid"]])),
    st.builds(lambda a, p: _match({"concat": [_payload("ip", "saddr"), _payload("tcp", "dport")]},
                                  {"set": [{"concat": [a, p]}]}), st.sampled_from(ADDRESSES), st.sampled_from(PORTS)),
)  # fmt: skip


def _verdict(depth: int) -> st.SearchStrategy[Json]:
    plain = st.sampled_from([{"accept": None}, {"drop": None}, {"return": None}])
    if not depth:
        return plain
    targets = [f"c{n}" for n in range(depth)]
    jumps = st.builds(
        lambda kind, to: {kind: {"target": to}}, st.sampled_from(["jump", "goto"]), st.sampled_from(targets)
    )
    vmap = st.builds(
        lambda one, two: {"vmap": {"key": _payload("tcp", "dport"), "data": {"set": [[1, one], [80, two]]}}},
        plain,
        jumps,
    )
    return st.one_of(plain, plain, jumps, vmap)


def _rules(depth: int) -> st.SearchStrategy[list[list[Json]]]:
    rule = st.builds(lambda m, v: [*m, v], st.lists(matches, max_size=3), _verdict(depth))
    return st.lists(rule, max_size=5)


rulesets = st.tuples(
    _rules(0), _rules(1), _rules(2), _rules(0), st.sampled_from(["accept", "drop"]), st.sampled_from(["accept", "drop"])
)


def _as_json(made: tuple[Any, ...]) -> Json:
    bodies = {"c0": made[0], "c1": made[1], "forward": made[2], "pre": made[3]}
    commands: list[Json] = [{"add": {"table": {"family": "inet", "name": "t"}}}]
    for name in bodies:
        chain: Json = {"family": "inet", "table": "t", "name": name}
        if name in ("forward", "pre"):
            hook, policy = ("forward", made[4]) if name == "forward" else ("prerouting", made[5])
            chain |= {"type": "filter", "hook": hook, "prio": 0, "policy": policy}
        commands.append({"add": {"chain": chain}})
    for name, rules in bodies.items():
        for expr in rules:
            commands.append({"add": {"rule": {"family": "inet", "table": "t", "chain": name, "expr": expr}}})
    return {"nftables": commands}


def _packet(rng: random.Random) -> evaluator.Packet:
    version = rng.choice([4, 4, 4, 6])
    return {
        "version": version, "iifname": rng.choice(NAMES), "oifname": rng.choice(NAMES),
        "saddr": rng.choice([*ADDRESSES, "1.2.3.4"]) if version == 4 else "fd00::1",
        "daddr": rng.choice([*ADDRESSES, "1.2.3.4"]) if version == 4 else "fd00::2",
        "l4proto": rng.choice([6, 6, 17, 1, 47]), "sport": rng.choice([*PORTS, 7]), "dport": rng.choice([*PORTS, 7]),
        "icmp type": rng.choice([0, 8, 3]), "flags": rng.choice([2, 16, 18, 4]), "state": rng.choice(["new", "invalid"]),  # noqa: E501
        "fragment": rng.choice([False, False, False, True]),
    }  # fmt: skip


def _exactly(packet: evaluator.Packet) -> tuple[Among | Named, ...]:
    """The one packet, as the solver writes it."""
    number = evaluator.number
    family = "ip" if packet["version"] == 4 else "ip6"
    values = {
        "ethertype": 0x800 if family == "ip" else 0x86DD, f"{family} saddr": number(packet["saddr"]),
        f"{family} daddr": number(packet["daddr"]), "l4proto": packet["l4proto"], "sport": packet["sport"],
        "dport": packet["dport"], "icmp type": packet["icmp type"], "tcp flags": packet["flags"],
        "ct state": {"new": 0, "invalid": 1}[packet["state"]], "fragment": int(packet["fragment"]),
    }  # fmt: skip
    tests = [Among(field, ((value, value),)) for field, value in values.items()]
    return (*tests, Named("iif", (packet["iifname"],), True), Named("oif", (packet["oifname"],), True))


# nft lists the port of a packet that must be ICMP as ICMP's checksum, which stands at the same place.
LISTED_AS_CHECKSUM: list[Json] = [
    _match(_payload("icmp", "type"), "echo-request"), _match(_payload("th", "dport"), 1), {"accept": None},
]  # fmt: skip


@examples(60, suppress_health_check=list(HealthCheck))
@given(made=rulesets, seed=st.integers(0, 1 << 30))
@example(made=([], [], [LISTED_AS_CHECKSUM], [], "drop", "accept"), seed=1)
def test_random_rulesets_and_packets(made: tuple[Any, ...], seed: int) -> None:
    shown = listed(json.dumps(_as_json(made)), as_json=True)
    ruleset, rng = Ruleset.read(shown), random.Random(seed)
    packets = [_packet(rng) for _ in range(8)]
    questions = [Question("this packet", "forward", "live", _exactly(packet)) for packet in packets]
    # Names in a hook without that interface are free where they are negated, so those may be accepted as well.
    for packet, answer in zip(packets, ask({"live": ruleset}, questions, NAMES), strict=True):
        if answer.packet is None or not answer.packet.free:
            assert evaluator.accepts(shown, packet, "forward") == (answer.packet is not None), packet
    (road,) = ask({"live": ruleset}, [Question("cross", "forward", "live", ROAD)], NAMES)
    if road.packet is None:
        for packet in (_packet(rng) | {"iifname": "it0", "oifname": "ot0"} for _ in range(200)):
            assert not evaluator.accepts(shown, packet, "forward"), packet


@examples(40, suppress_health_check=list(HealthCheck))
@given(made=rulesets, data=st.data())
def test_random_drift(made: tuple[Any, ...], data: st.DataObject) -> None:
    changed = list(made)
    rules = list(made[2])
    if rules:
        where = data.draw(st.integers(0, len(rules) - 1))
        action = data.draw(st.sampled_from(["drop it", "twice", "swap"]))
        if action == "drop it":
            del rules[where]
        elif action == "twice":
            rules.insert(where, rules[where])
        else:
            rules[where], rules[-1] = rules[-1], rules[where]
    changed[2] = rules
    one, other = (
        listed(json.dumps(_as_json(made)), as_json=True),
        listed(json.dumps(_as_json(tuple(changed))), as_json=True),
    )
    sets = {"one": Ruleset.read(one), "other": Ruleset.read(other)}
    (answer,) = ask(sets, [Question("drift", "forward", "one", differs="other")], NAMES)
    if answer.packet is None:
        rng = random.Random(1)
        for packet in (_packet(rng) for _ in range(300)):
            assert evaluator.accepts(one, packet, "forward") == evaluator.accepts(other, packet, "forward"), packet
