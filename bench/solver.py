"""How long the proof takes, from nft's JSON to the answer: `python bench/solver.py [RULES ...]`."""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from cofferdam.proof.rules.fields import Named
from cofferdam.proof.rules.listing import Ruleset
from cofferdam.proof.rules.solver import Question, ask

Json = dict[str, Any]
ROUNDS = 7


def match(left: Json, right: Any, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def rule(expr: list[Json], verdict: str) -> Json:
    body = {"family": "inet", "table": "t", "chain": "forward", "expr": [*expr, {"counter": {}}, {verdict: None}]}
    return {"rule": body}


def address(rng: random.Random) -> str:
    return f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def rules(count: int, seed: int, *, road: bool = False) -> list[Json]:
    """Accepts and drops of addresses, prefixes, ports and ranges in turn, between interfaces that lead nowhere near the
    plant; with `road`, one in the middle that does."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        interface = "ot0" if road and number == count // 2 else rng.choice(["dmz0", "dmz1", "mgmt0"])
        source: Any = address(rng)
        if rng.random() < 0.3:
            source = {"prefix": {"addr": f"10.{rng.randrange(256)}.0.0", "len": 16}}
        low = rng.randrange(1, 60000)
        port: Any = rng.choice([low, {"range": [low, low + rng.randrange(1, 500)]}])
        protocol = rng.choice(["tcp", "udp"])
        made.append(rule([
            match({"meta": {"key": "iifname"}}, rng.choice(["it0", "it1"])),
            match({"meta": {"key": "oifname"}}, interface),
            match({"payload": {"protocol": "ip", "field": "saddr"}}, source),
            match({"payload": {"protocol": "ip", "field": "daddr"}}, address(rng)),
            match({"payload": {"protocol": protocol, "field": "dport"}}, port),
        ], "drop" if rng.random() < 0.2 and not (road and number == count // 2) else "accept"))  # fmt: skip
    return made


def covered(count: int, seed: int) -> list[Json]:
    """The hard case: policy accept, and only all rules together shut the road (ports and addresses tile the space)."""
    made = []
    step = 65536 // count
    for number in range(count):
        low, high = number * step, 65535 if number == count - 1 else number * step + step - 1
        made.append(rule([
            match({"meta": {"key": "oifname"}}, "ot0"), match({"payload": {"protocol": "th", "field": "dport"}},
                                                             {"range": [low, high]}),
        ], "drop"))  # fmt: skip
    random.Random(seed).shuffle(made)
    later = [match({"payload": {"protocol": "ip", "field": "frag-off"}}, 0, "!=")]
    later[0]["match"]["left"] = {"&": [later[0]["match"]["left"], 8191]}
    return [*made, rule(later, "drop"), rule([match({"meta": {"key": "nfproto"}}, "ipv6")], "drop")]


def listing(body: list[Json], policy: str = "drop") -> Json:
    chain = {"family": "inet", "table": "t", "name": "forward", "type": "filter", "hook": "forward", "prio": 0,
             "policy": policy}  # fmt: skip
    return {"nftables": [{"table": {"family": "inet", "name": "t"}}, {"chain": chain}, *body]}


NAMES = ["lo", "it0", "it1", "ot0", "dmz0", "dmz1", "mgmt0"]
ROAD = (Named("iif", ("it0", "it1"), True), Named("oif", ("ot0",), True))


def timed(what: str, count: int, work: Callable[[], str]) -> Json:
    figures, cpu, said = [], [], ""
    for _ in range(ROUNDS):
        start, busy = time.perf_counter(), time.process_time()
        said = work()
        figures.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    figures.sort()
    cpu.sort()
    result = {"case": what, "rules": count, "median_s": round(figures[len(figures) // 2], 3), "cpu_s": round(cpu[len(cpu) // 2], 3),  # noqa: E501
              "max_s": round(figures[-1], 3), "answer": said[:110]}  # fmt: skip
    print(f"{what:34} {count:6} rules  median {result['median_s']:.3f} s  max {result['max_s']:.3f} s  "
          f"processor {result['cpu_s']:.3f} s  {said[:90]}")  # fmt: skip
    return result


def crossing(text: str) -> str:
    ruleset = Ruleset.read(msgspec.json.decode(text))
    (answer,) = ask({"live": ruleset}, [Question("crosses", "forward", "live", ROAD)], NAMES)
    return "no packet crosses" if answer.packet is None else str(answer.packet)


def drift(one: str, other: str) -> str:
    sets = {"live": Ruleset.read(msgspec.json.decode(one)), "plan": Ruleset.read(msgspec.json.decode(other))}
    (answer,) = ask(sets, [Question("drift", "forward", "live", differs="plan")], NAMES)
    return "the same" if answer.packet is None else str(answer.packet)


def cases(count: int) -> list[Json]:
    plain, road = json.dumps(listing(rules(count, 1))), json.dumps(listing(rules(count, 1, road=True)))
    tiles = json.dumps(listing(covered(count, 2), "accept"))
    hole = json.dumps(listing(covered(count, 2)[1:], "accept"))
    accepts = [entry for entry in rules(count, 3) if {"accept": None} in entry["rule"]["expr"]]
    shuffled = accepts[:]
    random.Random(4).shuffle(shuffled)
    ordered, disordered = json.dumps(listing(accepts)), json.dumps(listing(shuffled))
    return [
        timed("no road (UNSAT)", count, lambda: crossing(plain)),
        timed("one road among them (SAT)", count, lambda: crossing(road)),
        timed("all rules together shut it (UNSAT)", count, lambda: crossing(tiles)),
        timed("the same with one hole (SAT)", count, lambda: crossing(hole)),
        timed("drift, same rules", count, lambda: drift(plain, plain)),
        timed("drift, one rule differs", count, lambda: drift(plain, road)),
        timed("drift, same rules in other order", count, lambda: drift(ordered, disordered)),
    ]


def main() -> None:
    gc.disable()  # as the verb does: it is a short life
    results = []
    for count in [int(word) for word in sys.argv[1:]] or [1000, 5000]:
        results += cases(count)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
