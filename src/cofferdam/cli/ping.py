"""`cofferdam ping ASSET`: does it answer, and which half, or the device, takes how long?"""

from __future__ import annotations

import argparse
import json


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument("asset", metavar="ASSET", help="the asset's name in the policy")
    add_state(parser)
    add_json(parser, "Ping")
    parser.epilog = (
        "It reads one value that the policy lets some client read, shows it to nobody, and has an entry in the log. "
        "Exit code: 0 it answers, 1 it does not, 2 nothing was asked. Example: cofferdam ping plc-7"
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    told = ask(state_of(args), "ping", asset=args.asset)
    if args.json:
        print(json.dumps(told))
        return 0 if told["answered"] else 1
    where = f"{told['address']}:{told['port']}"
    print(f"outer half  {told['outer_ms']:8.2f} ms  clients find {told['asset']} at "
          f"{' and '.join(told['clients_at']) or 'no address'}")  # fmt: skip
    print(f"inner half  {told['inner_ms']:8.2f} ms  it judged the read, and its entry is in the log")
    if told["answered"]:
        more = f"; {told['detail']}" if told["detail"] else ""
        print(f"device      {told['device_ms']:8.2f} ms  {where} answers a read of {told['what']} "
              f"(rule {told['rule']}){more}")  # fmt: skip
        if told["waited_ms"] >= 1:
            print(f"            {told['waited_ms']:8.2f} ms  more it waited for a place: others were before it")
        return 0
    did = "does not answer" if told["asked"] or told["what"] else "was not asked"
    print(f"device             -     {where} {did}: {told['detail'] or told['state']}")
    if told["what"]:
        print("both halves work: look at the device, its cable, its address, and whether another master has it")
    return 1
