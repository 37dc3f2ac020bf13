"""How fast policy is: loading and compiling 10,000 rules, and one decision, with 10 and with 10,000 rules.

Goals: compile under 1 s; a decision under 2 µs at the median, and no slower with 10,000 rules. Run it:
    .venv/bin/python bench/policy.py [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cofferdam.model import Allow, Change, Deny, NeedValues, Operation, Span
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow
from cofferdam.policy.table import CompiledPolicy

NOW = 1_780_000_000_000_000_000


def policy_text(rules: int, spread: bool) -> str:
    """A policy of so many rules: spread over conduits, assets and principals as in a plant, or all for one flow."""
    lines = ["site: bench", "zones: {it: {side: it}, ot: {side: ot}}", "assets:"]
    assets = max(1, rules // 10) if spread else 1
    for a in range(assets):
        lines.append(f"  plc-{a}:")
        lines.append(f"    {{zone: ot, address: 10.{a >> 16}.{a >> 8 & 255}.{a & 255}, protocol: modbus, points: {{")
        lines += [f"      p{i}: {{at: holding {i * 4}, type: uint32}}," for i in range(10)]
        lines.append("      speed: {at: holding 200, type: uint16, min: 0, max: 1500}}}")
    lines.append("principals:")
    lines += [
        f"  user-{a}: {{zone: it, addresses: 172.{16 + (a >> 16)}.{a >> 8 & 255}.{a & 255}}}" for a in range(assets)
    ]
    lines.append("conduits:")
    for a in range(assets):
        lines.append(f"  c-{a}:")
        lines.append("    {from: it, to: ot, broker: modbus, owner: me, reason: a benchmark, expires: 2030-01-01,")
        lines.append('     window: {days: all, from: "00:00", to: "24:00", zone: Europe/Paris}, allow: [')
        count = rules // assets
        for r in range(count - 1):
            what = f"read: p{r % 10}" if spread else f"registers: holding {1000 + r * 4}-{1000 + r * 4 + 1}"
            lines.append(f"      {{who: user-{a}, asset: plc-{a}, {what}}},")
        lines.append(f"      {{who: user-{a}, asset: plc-{a}, write: speed}}]}}")
    return "\n".join(lines)


def measure(call: Callable[[], object], calls: int = 30_000) -> dict[str, float]:
    """Nanoseconds of one call, the timer's own cost taken off; each call timed by itself."""
    clock = time.perf_counter_ns
    empty = []
    for _ in range(calls):
        start = clock()
        empty.append(clock() - start)
    cost = statistics.median(empty)
    times = []
    for _ in range(calls):
        start = clock()
        call()
        times.append(clock() - start - cost)
    times.sort()
    return {
        name: times[min(int(calls * q), calls - 1)] for name, q in (("median", 0.5), ("p99", 0.99), ("p99.9", 0.999))
    }


def read(start: int, count: int = 2) -> Operation:
    return Operation(3, -1, 1, False, (Span("holding", start, count),), ())


def write(value: int) -> Operation:
    return Operation(6, -1, 1, True, (), (Change("holding", 200, 1, (value,)),))


def decisions(policy: CompiledPolicy, base: int) -> dict[str, dict[str, float]]:
    flow = policy.flow("modbus", policy.principals["user-0"].networks[0].split("/")[0], "plc-0")
    if not isinstance(flow, Flow):
        sys.exit(f"the benchmark's policy is wrong: {flow}")
    state = policy.point_state()
    # As on the wire: each request is a new object, equal to an earlier one or not.
    hits = iter([read(base + 4 * (i % 8)) for i in range(30_000)])
    denies = iter([read(60_000 + (i % 8)) for i in range(30_000)])
    misses = iter([read(base, 1 + i % 2) if i % 600 == 599 else read(61_000 + i % 4000) for i in range(30_000)])
    writes = iter([write(i % 1501) for i in range(30_000)])
    full = iter([write(i % 1501) for i in range(30_000)])
    wrong = iter([write(1501 + i % 1000) for i in range(30_000)])
    expected = (
        (flow.decide(read(base), NOW), Allow), (flow.decide(read(60_000), NOW), Deny),
        (flow.decide(write(3), NOW), Allow), (flow.decide(write(1501), NOW), Deny),
        (flow.decide_full(write(3), NOW, 0, state), (Allow, NeedValues)),
    )  # fmt: skip
    for verdict, kind in expected:
        if not isinstance(verdict, kind):
            sys.exit(f"the benchmark's policy is wrong: {verdict}")
    return {
        "read allowed": measure(lambda: flow.decide(next(hits), NOW)),
        "read denied": measure(lambda: flow.decide(next(denies), NOW)),
        "read denied, never seen before": measure(lambda: flow.decide(next(misses), NOW)),
        "write allowed": measure(lambda: flow.decide(next(writes), NOW)),
        "write allowed, inner half": measure(lambda: flow.decide_full(next(full), NOW, 0, state)),
        "write denied by value": measure(lambda: flow.decide(next(wrong), NOW)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    args = parser.parse_args()
    report: dict[str, object] = {}
    for label, rules, spread in (
        ("10 rules", 10, True),
        ("10,000 rules", 10_000, True),
        ("10,000 in one flow", 10_000, False),
    ):
        text = policy_text(rules, spread)
        gc.collect()
        start = time.perf_counter()
        loaded = loads(text)
        parsed = time.perf_counter()
        policy = compile_policy(loaded, now_ns=NOW)
        compiled = time.perf_counter()
        data = policy.to_bytes()
        packed = time.perf_counter()
        CompiledPolicy.from_bytes(data)
        unpacked = time.perf_counter()
        phases = {
            "load (parse, validate, cross-check)": parsed - start,
            "compile": compiled - parsed,
            "to_bytes": packed - compiled,
            "from_bytes": unpacked - packed,
        }
        print(f"\n{label}: {len(text) >> 10} KiB of YAML, {len(data) >> 10} KiB compiled")
        for name, seconds in phases.items():
            print(f"  {name:38} {seconds * 1000:9.1f} ms")
        figures = decisions(policy, 0 if spread else 1000)
        print(f"  {'decision, ns':38} {'median':>9} {'p99':>9} {'p99.9':>9}")
        for name, numbers in figures.items():
            print(f"  {name:38} {numbers['median']:9.0f} {numbers['p99']:9.0f} {numbers['p99.9']:9.0f}")
        report[label] = {"seconds": phases, "decision_ns": figures, "policy_bytes": len(data)}
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"\nwritten to {args.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
