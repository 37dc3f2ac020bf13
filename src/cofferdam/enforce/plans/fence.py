"""The fence around parts that stand in the host's network, as nftables JSON, worked out from the plan. PURE.

A table of ours in the host's own network namespace, with a hook for what leaves and none for what comes. A packet of a
user that is no part's passes one comparison for each part, and nothing is said of it. What a part's user sends passes
where it goes to an address and port of that part's; everything else is counted and refused, of whatever protocol.

All packets are asked, not openings alone: a connection that was there before the table, or goes to a collector that the
policy names no more, ends. Letting a packet pass is the end of our table only: what the host's own tables drop stays
dropped. The hook comes before theirs, so what counts is where the part wanted to go, and not where a rule of theirs
sends it.

Not here: the rules of sides (rules), keeping the table in force (enforce.fence).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cofferdam.enforce.plans.records import Goal, Hosted
from cofferdam.enforce.plans.rules import EARLY

Json = dict[str, Any]
NAME = "cofferdam-host"
HOOK, PARTS = "output", "parts"
"""Its chains: the one at the hook, and the one that packets of our parts go through."""
SPACE = "host"
"""Stands for a side where packets are counted."""


def table_name(tag: str) -> str:
    """`tag` tells gates of one machine apart; "" for that with the default state directory."""
    return f"{NAME}-{tag}" if tag else NAME


def counter(who: str) -> str:
    """The counter of what was refused to a part."""
    return f"dropped-{who}"


def fence(table: str, hosted: tuple[Hosted, ...], users: Mapping[str, int]) -> Json:
    """The transaction that puts the table in the place of an earlier one. `users`: all that are held, by the names of
    their parts; those that are not in `hosted` reach nothing."""
    where = {"family": "inet", "name": table}
    commands: list[Json] = [{"metainfo": {"json_schema_version": 1}}]
    commands += [{"add": {"table": where}}, {"delete": {"table": where}}, {"add": {"table": where}}]
    commands += [{"add": {"counter": {"family": "inet", "table": table, "name": counter(who)}}} for who in users]
    chain = {"family": "inet", "table": table}
    commands.append({"add": {"chain": {**chain, "name": PARTS}}})
    commands.append({"add": {"chain": {
        **chain, "name": HOOK, "type": "filter", "hook": "output", "prio": EARLY, "policy": "accept",
    }}})  # fmt: skip
    for name, rules in expected(hosted, users).items():
        commands += [{"add": {"rule": {**chain, "chain": name, "expr": rule}}} for rule in rules]
    return {"nftables": commands}


def expected(hosted: tuple[Hosted, ...], users: Mapping[str, int]) -> dict[str, list[list[Json]]]:
    """The rules of each chain, in order, as nft lists them."""
    ids = sorted(users.items(), key=lambda one: one[1])
    parts = [
        [_user(users[one.who]), *_goal(goal), {"accept": None}]
        for one in sorted(hosted, key=lambda one: one.who)
        for goal in one.goals
    ]
    parts += [[_user(user), {"counter": counter(who)}] for who, user in ids]
    parts.append([_is({"meta": {"key": "l4proto"}}, "tcp"), {"reject": {"type": "tcp reset"}}])
    parts.append([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}])
    return {HOOK: [[_user(user), {"jump": {"target": PARTS}}] for _, user in ids], PARTS: parts}


def _goal(goal: Goal) -> list[Json]:
    version, protocol = "ip6" if ":" in goal.address else "ip", "udp" if goal.datagrams else "tcp"
    address = {"payload": {"protocol": version, "field": "daddr"}}
    return [_is(address, goal.address), _is({"payload": {"protocol": protocol, "field": "dport"}}, goal.port)]


def _user(user: int) -> Json:
    return _is({"meta": {"key": "skuid"}}, user)


def _is(left: Json, right: str | int) -> Json:
    return {"match": {"op": "==", "left": left, "right": right}}
