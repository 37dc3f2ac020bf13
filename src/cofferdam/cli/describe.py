"""`cofferdam describe ASSET`: where an asset is and answers, how it does, who may do what with it, and who is on it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cofferdam.errors import CofferdamError


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument("asset", metavar="ASSET", help="the asset's name in the policy")
    parser.add_argument("--policy", type=Path, metavar="POLICY", help="ask this file, and not the running gate")
    add_state(parser)
    add_json(parser, "Describe")
    parser.epilog = (
        "Exit code: 0 told, 1 the running gate does not reach it, 2 there is no such asset, or no gate runs."
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli import diff
    from cofferdam.cli.findings import count_of
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.policy.difference import grants_on
    from cofferdam.policy.problems import nearest
    from cofferdam.policy.terms.jump_rows import JumpRows

    status: dict[str, Any] = {}
    if args.policy is not None:
        policy = diff.compiled(args.policy)
    else:
        policy = diff.in_force(ask(state_of(args), "policy"))
        status = ask(state_of(args), "status")
    asset = policy.assets.get(args.asset)
    if asset is None:
        near = nearest(args.asset, policy.assets)
        raise CofferdamError(
            f"the policy has no asset {args.asset}",
            hint=f"did you mean {near}?" if near else f"it has {', '.join(sorted(policy.assets)) or 'none'}",
        )
    does = next((one for one in status.get("assets", ()) if one["name"] == asset.name), None)
    sessions = [one for one in status.get("sessions", ()) if one["asset"] == asset.name]
    may = sorted(set(grants_on(policy.table, asset.name)))
    places = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in asset.places]
    doors = sorted({
        f"[{row.address}]:{row.port}" if ":" in row.address else f"{row.address}:{row.port}"
        for row in (conduit.terms for conduit in policy.table.conduits.values())
        if isinstance(row, JumpRows) and any(asset.name in line.assets for line in row.lines)
    })  # fmt: skip
    away = does is not None and does["state"] in ("backing-off", "silent")
    if args.json:
        print(json.dumps({
            "asset": asset.name, "zone": asset.zone, "address": asset.address, "port": asset.port,
            "protocol": asset.protocol, "answers_at": places, "state": does, "sessions": sessions,
            "may": [{"conduit": one.conduit, "who": one.who, "what": one.what} for one in may],
        }))  # fmt: skip
        return 1 if away else 0
    print(f"{asset.name}: {asset.protocol} at {asset.address}:{asset.port}, zone {asset.zone}")
    if doors:
        print(f"  people reach it by the jump server at {' and '.join(doors)}: ssh {asset.name}@GATE")
    if places or not doors:
        print(f"  clients find it at {' and '.join(places) or 'no address: nothing listens for it'}")
    if does is not None:
        counts = f"{count_of(does['connections'], 'connections')}, {count_of(does['requests'], 'requests')}"
        print(f"  {does['state']}: {counts}, "
              f"{does['failures']} failed, {does['late']} late, {does['queued']} wait")  # fmt: skip
        if does["detail"]:
            print(f"  last: {does['detail']}")
    for one in may:
        print(f"  {one.who} may {one.what}   (conduit {one.conduit})")
    if not may:
        print("  nobody may do anything with it")
    for one in sessions:
        print(f"  open: session {one['session']} of {' or '.join(one['principals']) or one['source']}, "
              f"{one['requests']} requests, {one['refused']} refused")  # fmt: skip
    return 1 if away else 0
