"""A ruleset as `nft -j list ruleset` prints it, or as a transaction adds it, turned into rules that can be reasoned on.
PURE.

A rule becomes a list of steps: what must hold, and the verdict. Implied conditions that nft leaves out of its listing
(`tcp dport 80` is also "the protocol is TCP, and the packet is no later fragment") are put back.

    understood            addresses, ports, protocols, interfaces, TCP flags, ICMP types, mark, user of the socket,
                          connection state, sets, maps to verdicts, concatenations, ranges, prefixes, negations, jumps
    left free             every other match (may be true or false), limits, quotas, sets that packets can change
    refused               every other statement: address translation, forwarding to a device, flowtables, changes of a
                          packet; `Unmodelled` names it, since what it does to a proof is not known here

Not here: what rules mean together (solver).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from cofferdam.errors import CofferdamError
from cofferdam.proof.rules import fields
from cofferdam.proof.rules.fields import Among, AnyOf, Clause, Conj, Free, Named

Json = dict[str, Any]
ChainName = tuple[str, str, str]
"""(family, table, chain)"""

_HARMLESS: Final = {"counter", "log", "comment", "notrack", "last", "continue"}
_MAY_END: Final = {"limit", "quota", "ct count", "connlimit", "set", "meter", "map"}
"""Statements after which the rule goes on or ends, by something that packets before have done."""
_VERDICTS: Final = {"accept": "accept", "drop": "drop", "reject": "drop", "return": "return"}
_TCP: Final[Conj] = (Among("l4proto", ((6, 6),)),)
_WHOLE: Final = Among("fragment", ((0, 0),))
_V4: Final = Among("ethertype", ((fields.IPV4, fields.IPV4),))
_V6: Final = Among("ethertype", ((fields.IPV6, fields.IPV6),))


class Unmodelled(CofferdamError):
    """A ruleset holds something that the proof does not know how to treat. Nothing may be concluded about it."""


class ListedRule(NamedTuple):
    """`verdict` is accept, drop, return, jump or goto; `target` a chain for the last two."""

    conj: Conj
    verdict: str
    target: str
    where: str


class Base(NamedTuple):
    """A chain that the kernel calls. `device` for the families that have one; "" where nft does not say."""

    name: ChainName
    hook: str
    priority: int
    accepts: bool
    device: str


@dataclass
class Ruleset:
    """What one namespace has. `skipped` are statements that change nothing here, with how often."""

    chains: dict[ChainName, list[ListedRule]] = field(default_factory=dict)
    bases: list[Base] = field(default_factory=list)
    flowtables: list[str] = field(default_factory=list)
    rules: int = 0

    @classmethod
    def read(cls, listed: Json) -> Ruleset:
        """From nft's JSON. Raises: Unmodelled."""
        return _Reader(listed).result


class _Reader:
    def __init__(self, listed: Json) -> None:
        self.result = Ruleset()
        objects = [_unwrapped(entry) for entry in listed.get("nftables", [])]
        self._sets: dict[ChainName, Json] = {}
        self._changing: set[ChainName] = set()
        self._mark_changes = False
        self._cache: dict[str, tuple[Clause, ...]] = {}
        rules: list[Json] = []
        for kind, body in objects:
            if kind in ("set", "map"):
                self._sets[(body["family"], body["table"], body["name"])] = body
                if body.get("timeout") or set(body.get("flags", ())) & {"timeout", "dynamic"}:
                    self._changing.add((body["family"], body["table"], body["name"]))
            elif kind == "table" and body.get("flags"):
                # Dormant: the kernel calls none of its chains, though they are listed as ever.
                raise Unmodelled(f"the table {body['family']} {body['name']} has flags ({body['flags']}): it may sleep")
            elif kind == "chain":
                self._chain(body)
            elif kind == "rule":
                rules.append(body)
                self._look_ahead(body)
            elif kind == "flowtable":
                self.result.flowtables.append(f"{body['family']} {body['table']} {body['name']}")
            elif kind == "element":
                name = (body["family"], body["table"], body["name"])
                self._sets[name] = {**self._sets[name], "elem": [*self._sets[name].get("elem", []), *body["elem"]]}
            elif kind not in _KNOWN_OBJECTS:
                raise Unmodelled(f"the ruleset has a {kind!r}, which the proof does not know")
        counts: dict[ChainName, int] = {}
        for body in rules:
            name = (body["family"], body["table"], body["chain"])
            counts[name] = counts.get(name, 0) + 1
            self._rule(name, body, counts[name])
        self.result.rules = len(rules)

    def _chain(self, body: Json) -> None:
        name = (body["family"], body["table"], body["name"])
        self.result.chains[name] = []
        if "hook" in body:
            device = body.get("dev", "")
            self.result.bases.append(
                Base(name, body["hook"], int(body.get("prio", 0)), body.get("policy", "accept") == "accept",
                     device if isinstance(device, str) else ",".join(device))
            )  # fmt: skip

    def _look_ahead(self, body: Json) -> None:
        """What a rule changes matters to rules before it as well: the next packet meets those."""
        for statement in body.get("expr", ()):
            if "set" in statement or "map" in statement:
                changed = statement.get("set", statement.get("map"))
                named = changed.get("set", changed.get("map", "")) if isinstance(changed, dict) else ""
                if isinstance(named, str):
                    self._changing.add((body["family"], body["table"], named.removeprefix("@")))
            if "mangle" in statement and statement["mangle"].get("key") == {"meta": {"key": "mark"}}:
                self._mark_changes = True

    # --- rules --------------------------------------------------------------------------------------------------------

    def _rule(self, chain: ChainName, body: Json, number: int) -> None:
        where = f"{' '.join(chain)}, rule {number}"
        rules = self.result.chains.get(chain)
        if rules is None:
            raise Unmodelled(f"{where}: there is no such chain")
        conj: list[Clause] = []
        for position, statement in enumerate(body.get("expr", ())):
            kind: str
            content: Any
            ((kind, content),) = statement.items() if isinstance(statement, dict) else ((str(statement), {}),)
            if kind == "match":
                conj += self._match(chain, content)
            elif kind in _HARMLESS:
                continue
            elif kind in _VERDICTS:
                rules.append(ListedRule(tuple(conj), _VERDICTS[kind], "", where))
                return
            elif kind in ("jump", "goto"):
                rules.append(ListedRule(tuple(conj), kind, content["target"], where))
                return  # nft lets nothing stand behind a verdict
            elif kind == "vmap":
                for rule in self._verdict_map(chain, tuple(conj), content, where):
                    rules.append(rule)
            elif kind in _MAY_END:
                # With its text, so that another limit is another condition.
                said = json.dumps(content, sort_keys=True)
                conj.append(Free(f"{where}, statement {position + 1} ({kind}): {said}"))
            elif kind == "queue":
                rules.append(ListedRule((*conj, Free(f"{where}: a program accepts")), "accept", "", where))
                rules.append(ListedRule(tuple(conj), "drop", "", where))
                return
            elif kind == "mangle":
                self._mangle(content, where)
            else:
                raise Unmodelled(
                    f"{where}: the statement {kind!r} is not modelled",
                    hint="the proof says nothing about a ruleset with it; remove it, or prove without the solver",
                )

    @staticmethod
    def _mangle(content: Json, where: str) -> None:
        key = content.get("key", {})
        harmless = (
            ("meta" in key and key["meta"].get("key") in ("mark", "priority", "nftrace"))
            or ("ct" in key and key["ct"].get("key") in ("mark", "label", "zone", "event"))
            or ("tcp option" in key)
        )
        if not harmless:
            raise Unmodelled(f"{where}: it changes {json.dumps(key)} of packets, which is not modelled")

    def _verdict_map(self, chain: ChainName, conj: Conj, content: Json, where: str) -> Iterator[ListedRule]:
        data = content["data"]
        if isinstance(data, str):
            name = (chain[0], chain[1], data.removeprefix("@"))
            if name in self._changing or name not in self._sets:
                raise Unmodelled(f"{where}: the verdict map {data} can change by itself, which is not modelled")
            pairs = self._sets[name].get("elem", [])
        else:
            pairs = data["set"]
        for key, verdict in pairs:
            key = key["elem"]["val"] if isinstance(key, dict) and "elem" in key else key
            ((kind, target),) = verdict.items()
            if kind == "continue":
                # Later pairs do not match where this one does, so nothing is to be said.
                continue
            match = self._match(chain, {"op": "==", "left": content["key"], "right": key})
            if any(isinstance(clause, Free) for clause in match):
                # Pairs exclude each other, which free matches would not: every verdict may come, or none.
                match = [Free(f"{where}: {json.dumps(key)}")]
            if kind in ("jump", "goto"):
                yield ListedRule((*conj, *match), kind, target["target"], where)
            elif kind in _VERDICTS:
                yield ListedRule((*conj, *match), _VERDICTS[kind], "", where)
            else:
                raise Unmodelled(f"{where}: the verdict {kind!r} is not modelled")

    # --- matches ------------------------------------------------------------------------------------------------------

    def _match(self, chain: ChainName, match: Json) -> list[Clause]:
        op, left, right = match["op"], match["left"], match["right"]
        if isinstance(right, str) and right.startswith("@"):
            key = f"{chain[0]} {chain[1]} {op} {json.dumps(left)} {right}"
            known = self._cache.get(key)
            if known is None:
                known = self._cache[key] = tuple(self._match_set(chain, op, left, right, key))
            return list(known)
        return self._compare(op, left, right, lambda: f"{op} {json.dumps(left)} {json.dumps(right)}")

    def _match_set(self, chain: ChainName, op: str, left: Json, right: str, key: str) -> list[Clause]:
        name = (chain[0], chain[1], right.removeprefix("@"))
        if name in self._changing or name not in self._sets:
            return [Free(key)]
        return self._compare(op, left, {"set": self._sets[name].get("elem", [])}, lambda: key)

    def _compare(self, op: str, left: Json, right: Any, key: Any) -> list[Clause]:
        if "concat" in left:
            found = self._concatenation(op, left["concat"], right)
            return [Free(key())] if found is None else found
        if "&" in left:
            found = _masked(op, left["&"], right)
            return [Free(key())] if found is None else found
        side = _side(left)
        if side is None or (side[0] == "mark" and self._mark_changes):
            return [Free(key())]
        name, implied = side
        if name == "skuid" and op not in ("==", "in"):
            return [Free(key())]  # a packet without a socket has no user, and is not unlike any either
        if name in fields.INTERFACES:
            names = _names(right)
            return [Free(key())] if names is None or op not in ("==", "!=") else [Named(name, names, op == "==")]
        ranges = _ranges(name, op, right)
        return [Free(key())] if ranges is None else [*implied, Among(name, ranges)]

    def _concatenation(self, op: str, parts: list[Json], right: Any) -> list[Clause] | None:
        sides = [_side(part) for part in parts]
        elements = right["set"] if isinstance(right, dict) and "set" in right else [right]
        if op not in ("==", "!=") or not isinstance(elements, list):
            return None
        implied: list[Clause] = []
        for side in sides:
            if side is None or (side[0] == "mark" and self._mark_changes):
                return None
            implied += side[1]
        options: list[tuple[Among | Named, ...]] = []
        for element in elements:
            element = element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element
            if not isinstance(element, dict) or len(element.get("concat", ())) != len(parts):
                return None
            option: list[Among | Named] = []
            for side, value in zip(sides, element["concat"], strict=True):
                name = side[0] if side is not None else ""
                if name in fields.INTERFACES:
                    names = _names(value)
                    if names is None:
                        return None
                    option.append(Named(name, names, True))
                else:
                    ranges = fields.values(name, value)
                    if ranges is None:
                        return None
                    option.append(Among(name, ranges))
            options.append(tuple(option))
        return [*dict.fromkeys(implied), AnyOf(tuple(options), op == "==")]


_KNOWN_OBJECTS: Final = {
    "metainfo", "table", "counter", "quota", "limit", "ct helper", "ct timeout", "ct expectation", "secmark",
    "synproxy", "",
}  # fmt: skip


def _unwrapped(entry: Json) -> tuple[str, Json]:
    ((kind, body),) = entry.items()
    if kind == "add":
        ((kind, body),) = body.items()
    elif kind in ("delete", "flush"):
        return "", {}
    return kind, body


def _ranges(name: str, op: str, right: Any) -> fields.Ranges | None:
    if name == "tcp flags" and not (isinstance(right, dict) and "set" in right):
        return fields.flags(op, None, right)
    if name == "ct state" and isinstance(right, list):
        ranges = fields.many(name, right)
    else:
        ranges = None if isinstance(right, list) else fields.values(name, right)
    return None if ranges is None else fields.compared(name, op, ranges)


def _masked(op: str, parts: list[Any], right: Any) -> list[Clause] | None:
    left, mask = parts
    if left == {"payload": {"protocol": "tcp", "field": "flags"}}:
        ranges = fields.flags(op, mask, right)
        return None if ranges is None else [*_TCP, _WHOLE, Among("tcp flags", ranges)]
    if left == {"payload": {"protocol": "ip", "field": "frag-off"}} and mask == 8191 and right == 0 and op in _EQ:
        later = 0 if op == "==" else 1
        return [_V4, Among("fragment", ((later, later),))]
    return None


_EQ: Final = ("==", "!=")


def _names(right: Any) -> tuple[str, ...] | None:
    elements = right["set"] if isinstance(right, dict) and "set" in right else [right]
    # nft 1.0.6 prints wildcards in a set as an empty range: what they were is lost.
    return tuple(elements) if all(isinstance(name, str) and name for name in elements) else None


def _side(left: Json) -> tuple[str, Conj] | None:
    """The field of a match's left side and what else it implies; None if it is not known here."""
    if "payload" in left:
        return _PAYLOADS.get((left["payload"].get("protocol", ""), left["payload"].get("field", "")))
    if "meta" in left:
        return _METAS.get(left["meta"].get("key", ""))
    if left.get("ct") == {"key": "state"}:
        return ("ct state", ())
    return None


_METAS: Final[dict[str, tuple[str, Conj]]] = {
    "iifname": ("iif", ()), "iif": ("iif", ()), "oifname": ("oif", ()), "oif": ("oif", ()),
    "l4proto": ("l4proto", ()), "protocol": ("ethertype", ()), "nfproto": ("ethertype", ()), "mark": ("mark", ()),
    "skuid": ("skuid", ()),
}  # fmt: skip


def _payloads() -> dict[tuple[str, str], tuple[str, Conj]]:
    found: dict[tuple[str, str], tuple[str, Conj]] = {
        ("ether", "type"): ("ethertype", ()),
        ("ip", "saddr"): ("ip saddr", (_V4,)),
        ("ip", "daddr"): ("ip daddr", (_V4,)),
        ("ip", "protocol"): ("l4proto", (_V4,)),
        ("ip", "ttl"): ("ip ttl", (_V4,)),
        ("ip6", "saddr"): ("ip6 saddr", (_V6,)),
        ("ip6", "daddr"): ("ip6 daddr", (_V6,)),
        ("ip6", "hoplimit"): ("ip6 hoplimit", (_V6,)),
        ("ip6", "nexthdr"): ("ip6 nexthdr", (_V6,)),
        ("tcp", "flags"): ("tcp flags", (*_TCP, _WHOLE)),
        ("th", "sport"): ("sport", (_WHOLE,)),
        ("th", "dport"): ("dport", (_WHOLE,)),
    }
    for protocol in ("tcp", "udp", "sctp", "dccp", "udplite"):
        number = fields.PROTOCOLS[protocol]
        for name in ("sport", "dport"):
            found[(protocol, name)] = (name, (Among("l4proto", ((number, number),)), _WHOLE))
    for protocol, version in (("icmp", _V4), ("icmpv6", _V6)):
        number = fields.PROTOCOLS[protocol]
        for name in ("type", "code"):
            implied = (version, Among("l4proto", ((number, number),)), _WHOLE)
            found[(protocol, name)] = (f"{protocol} {name}", implied)
    return found


_PAYLOADS: Final = _payloads()
