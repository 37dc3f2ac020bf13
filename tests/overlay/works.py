"""A policy with an overlay, to vary."""

from __future__ import annotations

from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy

NOW_NS = 1_795_000_000 * 10**9
POINTS = "points: {flow: {at: holding 0, type: uint16}, speed: {at: holding 200, type: uint32}}"


def text(
    assets: dict[str, str] | None = None, *, overlay: str = "prefix: 10.64.7.0/24", more: str = "",
    principals: str = "",
) -> str:  # fmt: skip
    """`assets`: name -> further fields in flow style. `overlay`: the section's fields, one a line."""
    assets = {"plc-7": ""} if assets is None else assets
    lines = [
        "site: riverside-water",
        "zones:",
        "  enterprise: {side: it, addresses: [10.1.0.1/16, 'fd01::1/64']}",
        "  control: {side: ot, addresses: 10.20.0.1/16}",
        "overlay:",
        *(f"  {line}" for line in overlay.splitlines()),
        "assets:",
    ]
    for number, (name, fields) in enumerate(assets.items()):
        extra = f", {fields}" if fields else ""
        address = f"10.20.{number // 250}.{number % 250 + 2}"
        lines.append(f"  {name}: {{zone: control, address: {address}, protocol: modbus, {POINTS}{extra}}}")
    lines += ["principals:", "  erp: {zone: enterprise, addresses: 10.1.0.20}"]
    lines += [f"  {line}" for line in principals.splitlines()]
    who = ", ".join(["erp", *(line.partition(":")[0] for line in principals.splitlines())])
    lines += [
        "conduits:",
        "  c:",
        "    from: enterprise",
        "    to: control",
        "    broker: modbus",
        "    owner: someone",
        "    reason: a test",
        "    allow:",
        f"      - {{who: [{who}], asset: [{', '.join(assets)}], read: all}}",
    ]
    return "\n".join(lines) + "\n" + more


def compiled(source: str | None = None) -> CompiledPolicy:
    return compile_policy(loads(text() if source is None else source), now_ns=NOW_NS)
