"""A slow, plain evaluator of rulesets for one packet at a time, straight from nft's JSON: what the solver is held to.

It shares no code with the solver. A packet is a mapping of field names to text and numbers as nft writes them.
"""

from __future__ import annotations

import ipaddress
from typing import Any

Json = dict[str, Any]
Packet = dict[str, Any]
PATHS = {"forward": ["prerouting", "forward", "postrouting"], "input": ["prerouting", "input"]}
NUMBERS = {
    "tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58, "gre": 47, "echo-request": 8, "echo-reply": 0,
    "destination-unreachable": 3, "ip": 0x800, "ip6": 0x86DD, "ipv4": 0x800, "ipv6": 0x86DD,
}  # fmt: skip
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16}


class Missing(Exception):
    """The packet has no such field: a rule that looks at it does not match."""


def accepts(listed: Json, packet: Packet, path: str) -> bool:
    objects = [entry for entry in listed["nftables"]]
    chains = [entry["chain"] for entry in objects if "chain" in entry]
    family = "ip" if packet["version"] == 4 else "ip6"
    for hook in PATHS[path]:
        for chain in sorted((c for c in chains if c.get("hook") == hook), key=lambda c: int(c["prio"])):
            if chain["family"] in ("inet", family):
                verdict = walk(objects, chain, {**packet, "hook": hook})
                if (verdict if verdict in ("accept", "drop") else chain["policy"]) == "drop":
                    return False
    return True


def walk(objects: list[Json], chain: Json, packet: Packet) -> str:
    """accept, drop, or "" if the packet comes out at the end or returns."""
    for entry in objects:
        rule = entry.get("rule")
        if rule is None or (rule["family"], rule["table"], rule["chain"]) != (
            chain["family"], chain["table"], chain["name"],
        ):  # fmt: skip
            continue
        verdict = run(objects, rule, packet)
        if verdict == "return":
            return ""
        if verdict.startswith("goto "):
            return walk(objects, {**chain, "name": verdict[5:]}, packet)
        if verdict.startswith("jump "):
            inner = walk(objects, {**chain, "name": verdict[5:]}, packet)
            if inner:
                return inner
        elif verdict:
            return verdict
    return ""


def run(objects: list[Json], rule: Json, packet: Packet) -> str:
    for statement in rule["expr"]:
        ((kind, body),) = statement.items()
        try:
            if kind == "match":
                if not holds(objects, rule, body, packet):
                    return ""
            elif kind == "vmap":
                for key, verdict in elements(objects, rule, body["data"]):
                    if same(value(body["key"], packet), key):
                        ((name, target),) = verdict.items()
                        return f"{name} {target['target']}" if target else str(name)
            elif kind in ("jump", "goto"):
                return f"{kind} {body['target']}"
            elif kind == "reject":
                return "drop"
            elif kind in ("accept", "drop", "return"):
                return str(kind)
        except Missing:
            return ""
    return ""


def elements(objects: list[Json], rule: Json, data: Any) -> list[Any]:
    if isinstance(data, str):
        for entry in objects:
            body = entry.get("set", entry.get("map"))
            if body and (body["table"], body["name"]) == (rule["table"], data[1:]):
                return list(body.get("elem", []))
        raise AssertionError(data)
    return list(data["set"])


def holds(objects: list[Json], rule: Json, match: Json, packet: Packet) -> bool:
    op, right = match["op"], match["right"]
    left = value(match["left"], packet)
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": elements(objects, rule, right)}
    if match["left"] == {"ct": {"key": "state"}}:
        states = right if isinstance(right, list) else right["set"] if isinstance(right, dict) else [right]
        return bool((left in states) == (op in ("in", "==")))
    if match["left"] == {"payload": {"protocol": "tcp", "field": "flags"}} and op in ("in", "!"):
        mask = bits(right)
        return bool(bool(left & mask) == (op == "in"))
    if "&" in match["left"]:
        return bool((left == bits(right)) == (op == "=="))
    if op in ("==", "!="):
        options = right["set"] if isinstance(right, dict) and "set" in right else [right]
        return bool(any(same(left, option) for option in options) == (op == "=="))
    bound = number(right)
    return bool({"<": left < bound, "<=": left <= bound, ">": left > bound, ">=": left >= bound}[op])


def bits(names: Any) -> int:
    return sum(FLAGS[name] for name in (names if isinstance(names, list) else [names]))


def number(value: Any) -> Any:
    if isinstance(value, int):
        return value
    if value in FLAGS:
        return FLAGS[value]
    if value in NUMBERS:
        return NUMBERS[value]
    try:
        return int(ipaddress.ip_address(value))
    except ValueError:
        return value


def same(left: Any, right: Any) -> bool:
    if isinstance(right, dict) and "concat" in right:
        return all(same(one, other) for one, other in zip(left, right["concat"], strict=True))
    if isinstance(right, dict) and "range" in right:
        low, high = map(number, right["range"])
        return bool(low <= left <= high)
    if isinstance(right, dict) and "prefix" in right:
        network = ipaddress.ip_network(f"{right['prefix']['addr']}/{right['prefix']['len']}")
        return bool(int(network[0]) <= left <= int(network[-1]))
    if isinstance(left, str) and isinstance(right, str) and right.endswith("*"):
        return left.startswith(right[:-1])
    return bool(left == number(right))


def value(left: Json, packet: Packet) -> Any:
    if "concat" in left:
        return tuple(value(part, packet) for part in left["concat"])
    if "&" in left:
        return value(left["&"][0], packet) & bits(left["&"][1])
    if "ct" in left:
        return packet["state"]
    if "meta" in left:
        return meta(left["meta"]["key"], packet)
    protocol, field = left["payload"]["protocol"], left["payload"]["field"]
    if protocol in ("ip", "ip6"):
        if packet["version"] != (4 if protocol == "ip" else 6):
            raise Missing
        return packet["l4proto"] if field == "protocol" else int(ipaddress.ip_address(packet[field]))
    if packet["fragment"] or (protocol != "th" and packet["l4proto"] != NUMBERS[protocol]):
        raise Missing
    if protocol == "icmp" and packet["version"] != 4:
        raise Missing
    # `th dport` of a packet that must be ICMP is listed as what stands there in ICMP.
    return packet[{"type": "icmp type", "checksum": "dport"}.get(field, field)]


def meta(key: str, packet: Packet) -> Any:
    if key in ("iifname", "oifname"):
        known = {"iifname": ("prerouting", "forward", "input"), "oifname": ("forward", "postrouting")}
        if packet["hook"] not in known[key]:
            raise Missing
        return packet[key]
    if key == "nfproto":
        return 0x800 if packet["version"] == 4 else 0x86DD
    return packet[key]
