"""`cofferdam tls`: the certificate, the key and the authorities by which a side of Modbus/TCP Security speaks.

They lie in the state directory, where the part of the gate that needs them is given them (gate.secrets).
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from cofferdam.errors import CofferdamError, GateError

MOST = 1 << 16
PARTS = {"clients": "outer", "assets": "inner"}


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument("side", choices=list(PARTS), help="towards whom: clients, or assets")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="what we show (PEM, with its chain)")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key (PEM, without a password)")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="who has to have signed theirs, or theirs (PEM)")
    parser.add_argument("--policy", type=Path, metavar="POLICY", help="a policy (default: the running gate's)")
    add_state(parser)
    add_json(parser, "list[TlsSide]")
    parser.epilog = (
        "Without files: what there is. Then `cofferdam reload` has a running gate take it; a gate whose policy had no "
        "tls when it started has to be started anew. Example: cofferdam tls clients --certificate gate.pem "
        "--key gate.key --trust plant-ca.pem"
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.brokers.proxy.securing import check_authorities, context_of
    from cofferdam.cli.gate_options import state_of
    from cofferdam.cli.pki_sides import policy_of
    from cofferdam.gate.crew.plan import plan_crews
    from cofferdam.gate.secrets import read_secret, save_secret, secret_file
    from cofferdam.protocols.dialects import DIALECTS

    given = {"certificate": args.certificate, "key": args.key, "trusted": args.trust}
    named = [name for name, path in given.items() if path is not None]
    if named and len(named) < len(given):
        raise CofferdamError(f"{' and '.join(named)} alone", hint="all three: --certificate, --key, --trust")
    policy, state, part = policy_of(args), state_of(args), PARTS[args.side]
    crews = {
        plan.base for plan in plan_crews(policy).values()
        if (dialect := DIALECTS.get(plan.broker)) is not None and dialect.secure_port
    }  # fmt: skip
    if not crews:
        raise CofferdamError("the policy has no conduit of a protocol that is spoken within TLS", hint="Modbus is")
    if named:
        found = {name: _read(path) for name, path in given.items() if path is not None}
        context_of(found, part == "outer")  # says what is wrong with it before anything is written
        if part == "outer":
            check_authorities(found["trusted"])
        owner = state.stat().st_gid if state.is_dir() else 0  # the gate's group is its user's own
        for crew in sorted(crews):
            for name, data in found.items():
                save_secret(secret_file(state, crew, part, name), data, owner)
    rows = []
    for crew in sorted(crews):
        try:
            kept = {name: read_secret(secret_file(state, crew, part, name)) for name in given}
        except FileNotFoundError:
            rows.append({"crew": crew, "side": args.side, "until": "", "good": False})
            continue
        except OSError as error:
            raise GateError(f"secrets of {crew} cannot be read: {error.strerror or error}") from None
        rows.append({"crew": crew, "side": args.side, **_until(kept["certificate"])})
    if args.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            what = f"a certificate until {row['until']}" if row["until"] else "no certificate"
            print(f"{row['crew']}, towards {args.side}: {what}{'' if row['good'] or not row['until'] else ', EXPIRED'}")
        if named:
            print("kept; `cofferdam reload` has the gate take it")
    return 0 if all(row["good"] for row in rows) else 1


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST + 1)
    except OSError as error:
        raise CofferdamError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MOST:
        raise CofferdamError(f"{path} has more than {MOST >> 10} KiB")
    return data


def _until(certificate: bytes) -> dict[str, object]:
    from cofferdam.brokers.kit.tls import good_until

    until = good_until(certificate)
    shown = datetime.fromtimestamp(until // 10**9, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"until": shown, "good": until > time.time_ns()}
