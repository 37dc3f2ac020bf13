"""`cofferdam overlay ...`: addresses, names, routes and peers of the overlay.

`assign`, `addresses`, `zone` and `routes` read a policy (the running gate's, if none is named). `add-peer`, `revoke`
and `peers` speak with the running gate. A peer's private key is made here, printed once, and stored nowhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofferdam.errors import GateError, PolicyError

if TYPE_CHECKING:
    from cofferdam.policy.table import CompiledPolicy


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state
    from cofferdam.enforce.plans.overlay import STYLES

    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(name: str, text: str, work: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(work=work)
        return sub

    def reader(name: str, text: str, work: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        sub = verb(name, text, work)
        sub.add_argument("policy", type=Path, nargs="?", help="a policy file or folder (default: the running gate's)")
        add_state(sub)
        return sub

    assign = verb("assign", "put the overlay addresses of all names on record, beside the policy", _assign)
    assign.add_argument("policy", type=Path, help="a policy file or folder")
    add_json(assign, "OverlayAssign")
    add_json(reader("addresses", "which asset and which peer has which addresses", _addresses), "OverlayAddresses")
    zone = reader("zone", "the names as zone files for the site's own DNS server", _zone)
    zone.add_argument("--reverse", action="store_true", help="the reverse zones too, one after the other")
    zone.add_argument("--dir", type=Path, metavar="DIR", help="write a file for each zone, reverse zones too")
    zone.add_argument("--serial", type=int, metavar="N", help="of the SOA records (default: the time, in seconds)")
    add_json(zone, "dict[str, str] | list[str]")
    lines = reader("routes", "what to configure on the office's routers", _routes)
    lines.add_argument("--style", choices=STYLES, default="linux", help="whose configuration language")
    add_json(lines, "list[OverlayRoute]")
    peer = verb("add-peer", "let a peer in: its ready configuration, with a key that is made now", _add_peer)
    peer.add_argument("name", help="the peer; a principal of the policy names it (`peer: NAME`)")
    peer.add_argument("--key", metavar="PUBLIC", help="the peer's own public key: no private one is made")
    peer.add_argument("--qr", action="store_true", help="print it as a QR code as well")
    peer.add_argument("--png", type=Path, metavar="FILE", help="write the QR code to a file of mode 0600")
    peer.add_argument("--output", type=Path, metavar="FILE", help="write it to a file of mode 0600, and print no key")
    add_state(peer)
    add_json(peer, "OverlayPeer")
    revoke = verb("revoke", "shut a peer out at once: its key and its open sessions", _revoke)
    revoke.add_argument("name", help="the peer")
    add_state(revoke)
    add_json(revoke, "OverlayRevoked")
    peers = verb(
        "peers", "who is let in, when each was last heard, how much it sent; what the name server was asked", _peers
    )
    add_state(peers)
    add_json(peers, "OverlayPeers")


def run(args: argparse.Namespace) -> int:
    code: int = args.work(args)
    return code


# --- of a policy --------------------------------------------------------------------------------------------------


def _policy(args: argparse.Namespace, *, section: bool = True) -> CompiledPolicy:
    """The policy that is named, else the running gate's. `section`: only one with `overlay:`. Raises: PolicyError,
    GateError."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    path = args.policy or Path(ask(state_of(args), "status", fresh=False)["policy"]["path"])
    policy = compile_policy(load(path), now_ns=time.time_ns())
    if section and policy.overlay is None:
        raise PolicyError(f"{path} has no `overlay:` section", hint="docs/overlay.md says how to write it")
    return policy


def _assign(args: argparse.Namespace) -> int:
    from cofferdam.gate.overlay.record import write_record

    path = write_record(args.policy)
    if args.json:
        print(json.dumps({"record": str(path)}))
    else:
        print(f"addresses are on record in {path}; keep it with the policy, and `cofferdam reload`")
    return 0


def _addresses(args: argparse.Namespace) -> int:
    from cofferdam.enforce.plans.overlay import asset_addresses, peer_addresses

    policy = _policy(args, section=False)
    if not asset_addresses(policy):  # an asset may name its address itself; else there is such a section
        policy = _policy(args)
    assets, peers = asset_addresses(policy), peer_addresses(policy)
    if args.json:
        print(json.dumps({"assets": assets, "peers": peers}))
        return 0
    for title, found in (("asset", assets), ("peer", peers)):
        for name, addresses in found.items():
            print(f"{title:6} {name:24} {'  '.join(addresses)}")
    return 0


def _zone(args: argparse.Namespace) -> int:
    from cofferdam.enforce.plans.overlay import name_zone, zone_files

    zone = name_zone(_policy(args), args.serial if args.serial is not None else int(time.time()))
    if zone is None:
        return 1
    files = zone_files(zone)
    if args.dir is not None:
        try:
            args.dir.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (args.dir / f"{name}.zone").write_text(text, encoding="ascii")
        except OSError as error:
            raise GateError(f"cannot write to {args.dir}: {error.strerror}", hint="name another folder") from None
        print(json.dumps(sorted(files)) if args.json else f"{len(files)} zone files in {args.dir}")
    elif args.json:
        print(json.dumps(files))
    else:
        chosen = files if args.reverse else {zone.domain: files[zone.domain]}
        print("\n".join(chosen.values()), end="")
    return 0


def _routes(args: argparse.Namespace) -> int:
    from cofferdam.enforce.plans.overlay import router_lines, routes, routes_text

    policy = _policy(args)
    found = routes(policy)
    if args.json:
        print(json.dumps([
            {"zone": r.zone, "network": r.network, "via": r.via, "by_neighbour": r.by_neighbour,
             "line": router_lines(r, args.style)} for r in found
        ]))  # fmt: skip
    else:
        for line in routes_text(policy, args.style):
            print(line)
    return 0 if found else 1


# --- peers --------------------------------------------------------------------------------------------------------


def _add_peer(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.enforce.plans.overlay import peer_config
    from cofferdam.gate.client import ask
    from cofferdam.gate.overlay.peers import new_key, private_file

    if args.key:
        public, private = args.key, "<the peer's own>"
    else:
        public, private = new_key()
    found = ask(state_of(args), "add-peer", name=args.name, key=public)
    config = peer_config(
        private_key=private, addresses=found["addresses"], server_key=found["server_key"],
        endpoint=(found["host"], found["port"]), networks=found["networks"], dns=found["dns"], domain=found["domain"],
        keepalive=found["keepalive"],
    )  # fmt: skip
    try:
        if args.output is not None:
            with private_file(args.output) as file:
                file.write(config.encode())
        if args.png is not None:
            with private_file(args.png) as file:
                _code(config).save(file, kind="png", scale=6)
    except OSError as error:
        ask(state_of(args), "revoke-peer", name=args.name)
        raise GateError(
            f"cannot write {error.filename}: {error.strerror}; the peer was revoked again", hint="name another file"
        ) from None
    if args.json:
        shown = {"config": config} if args.output is None else {"output": str(args.output)}
        print(json.dumps({"name": args.name, "key": public, **found, **shown}))
        return 0
    if args.output is None:
        print(config, end="")
    else:
        print(f"{args.output} holds the configuration of {args.name}, with its private key")
    if args.qr:
        _code(config).terminal(out=sys.stdout, compact=True)
    print("# the private key is stored nowhere else; a lost one is revoked and the peer added anew", file=sys.stderr)
    return 0


def _code(config: str) -> Any:
    import segno

    return segno.make(config, error="l", micro=False)


def _revoke(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    found = ask(state_of(args), "revoke-peer", name=args.name)
    if args.json:
        print(json.dumps(found))
    else:
        print(f"{args.name} is revoked; {found['sessions']} sessions were ended")
    return 0


def _peers(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    found = ask(state_of(args), "peers")
    if args.json:
        print(json.dumps(found))
        return 0
    print(f"tunnel: {found['tunnel'] or 'none'}")
    names = found["names"]
    if names is not None:
        print(
            f"names: {found['domain']}; {names['questions']} questions, {names['answers']} answers, {names['refused']} "
            f"refused, {names['limited']} held back, {names['malformed']} malformed"
        )
    now = time.time()
    for peer in found["peers"]:
        heard = peer["handshake"]
        when = "never" if not heard else f"{max(0, int(now - heard))} s ago"
        state = "" if peer["in_policy"] else "  (no principal names it: shut out)"
        addresses = " ".join(peer["addresses"])
        print(f"{peer['name']:24} {addresses:44} handshake {when:14} "
              f"in {peer['received']:>10} out {peer['sent']:>10}{state}")  # fmt: skip
    return 0
