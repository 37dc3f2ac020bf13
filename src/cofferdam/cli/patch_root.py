"""`cofferdam patch root ...`: whose signatures release files, and whose may change that.

A root is a file beside the policy: approvers and holders with their OpenSSH keys, and the keeper's own key, which says
what is newest and can release nothing. Holders sign it, each on a machine of their own.

Not here: what the installer makes of it (brokers.patch.trust).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofferdam.cli.ssh_signing import ssh_sign
from cofferdam.errors import CofferdamError, GateError

if TYPE_CHECKING:
    from cofferdam.brokers.patch import told


def add(verbs: Any, verb: Any) -> None:
    text = "whose signatures release files: make a root, sign it, bring the next one in"
    root = verbs.add_parser("root", help=text, description=text[0].upper() + text[1:] + ".")
    which = root.add_subparsers(dest="which", metavar="WHICH", required=True)
    new = verb("new", "make the first root, and the keeper's own key", _new, "Root", which)
    new.add_argument("policy", type=Path, metavar="POLICY", help="the policy that names the root")
    _people(new)
    new.add_argument("--out", type=Path, required=True, metavar="FILE", help="the root: a new file, beside the policy")
    following = verb("next", "make the next root from the one before: other people, a later end", _next, "Root", which)
    following.add_argument("old", type=Path, metavar="OLD", help="the root that holds now")
    _people(following)
    following.add_argument("--out", type=Path, required=True, metavar="FILE", help="the next root: a new file")
    sign = verb("sign", "sign a root with a holder's OpenSSH key", _sign, "Root", which)
    sign.add_argument("root", type=Path, metavar="FILE", help="the root, which gets the signature")
    sign.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="the key, or its .pub where an agent has it"
    )
    install = verb(
        "install", "give the running keeper a next root that its holders have signed", _install, "RootTaken", which
    )
    install.add_argument("root", type=Path, metavar="FILE", help="the root")
    show = verb("show", "who is in a root, and who has signed it", _show, "Root", which)
    show.add_argument("root", type=Path, metavar="FILE", help="the root")


def _people(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--approver", action="append", default=[], metavar="NAME=FILE.pub", help="one who may release")
    parser.add_argument("--holder", action="append", default=[], metavar="NAME=FILE.pub", help="one who holds the root")
    parser.add_argument("--signatures", type=int, default=2, metavar="N", help="how many release a file (default: 2)")
    parser.add_argument("--holders", type=int, default=2, metavar="N", help="how many change the root (default: 2)")
    parser.add_argument("--days", type=int, default=365, metavar="N", help="how long it is good (default: 365)")


def _keys(said: list[str]) -> list[Any]:
    from cofferdam.brokers.patch import trustkeys

    found = []
    for text in said:
        name, _, file = text.partition("=")
        if not name or not file:
            raise GateError(f"{text!r} is not NAME=FILE.pub")
        try:
            found.append(trustkeys.person_key(Path(file).read_text("utf-8"), name))
        except CofferdamError as error:
            raise GateError(f"{file}: {error}", hint=error.hint) from None
        except UnicodeDecodeError:
            raise GateError(f"{file} is no public key") from None
    return found


def _write_new(file: Path, data: bytes) -> None:
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise GateError(f"{file} is there already", hint="a root is never written over: give another --out") from None
    with os.fdopen(fd, "wb") as out:
        out.write(data)


def _new(args: argparse.Namespace) -> int:
    import time

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from cofferdam.brokers.patch import trustkeys
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.crew.plan import plan_crews
    from cofferdam.gate.secrets import secret_file, write_secret
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    private = Ed25519PrivateKey.generate()
    online = trustkeys.SSlibKey.from_crypto(private.public_key())
    root = trustkeys.make_root(
        _keys(args.approver), _keys(args.holder), online, signatures=args.signatures, root_signatures=args.holders,
        days=args.days,
    )  # fmt: skip
    _write_new(args.out, trustkeys.encode(root))
    try:
        policy = compile_policy(load(args.policy), now_ns=time.time_ns())
        plans = [
            plan for plan in plan_crews(policy).values() if plan.broker == "patch" and args.crew in ("", plan.name)
        ]
        if len(plans) != 1:
            raise GateError(f"the policy has {len(plans)} patch relays", hint="say which with --crew NAME")
        path = secret_file(state_of(args), plans[0].base, "keeper", "online")
        if path.exists():
            raise GateError(f"the keeper has a key already: {path}", hint="`cofferdam patch root next` for a next root")
        write_secret(state_of(args), path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except BaseException:
        args.out.unlink()
        raise
    next_step = f"{args.out}: to be signed by {args.holders} holders: cofferdam patch root sign {args.out} --key KEY"
    return _tell(args, root, next_step)


def _read(file: Path) -> Any:
    from tuf.api.metadata import Root

    from cofferdam.brokers.patch import trustkeys

    try:
        return trustkeys.decode(file.read_bytes(), Root)
    except OSError as error:
        raise GateError(f"{file}: {error.strerror or error}") from None


def _next(args: argparse.Namespace) -> int:
    from cofferdam.brokers.patch import trustkeys

    old = _read(args.old).signed
    online = old.keys[next(iter(old.roles["timestamp"].keyids))]

    def kept(role: str) -> list[Any]:
        return [old.keys[keyid] for keyid in old.roles[role].keyids]

    root = trustkeys.make_root(
        _keys(args.approver) or kept("targets"), _keys(args.holder) or kept("root"), online,
        signatures=args.signatures, root_signatures=args.holders, version=old.version + 1, days=args.days,
    )  # fmt: skip
    _write_new(args.out, trustkeys.encode(root))
    next_step = f"{args.out}: root {old.version + 1}, to be signed by holders of root {old.version} and of its own"
    return _tell(args, root, next_step)


def _sign(args: argparse.Namespace) -> int:
    from cofferdam.brokers.patch import trustkeys

    metadata = _read(args.root)
    signature = trustkeys.signature(ssh_sign(args.key, trustkeys.to_sign(metadata.signed)))
    if metadata.signed.version == 1 and signature.keyid not in metadata.signed.roles["root"].keyids:
        holders = ", ".join(sorted(trustkeys.people_of(metadata.signed, "root").values()))
        raise GateError(f"{args.key} is no holder's key: it would count for nothing", hint=f"holders: {holders}")
    metadata.signatures[signature.keyid] = signature
    fresh = args.root.with_name(args.root.name + ".new")
    fresh.write_bytes(trustkeys.encode(metadata))
    fresh.replace(args.root)
    return _show(args)


def _facts(metadata: Any) -> told.Root:
    from cofferdam.brokers.patch import trustkeys

    root = metadata.signed

    def who(role: str) -> told.Role:
        return {"people": sorted(trustkeys.people_of(root, role).values()), "needs": root.roles[role].threshold}

    return {
        "version": root.version, "expires": root.expires.isoformat(), "targets": who("targets"), "root": who("root"),
        "signed": sorted(trustkeys.signed_by(root, "root", metadata)),
    }  # fmt: skip


def _tell(args: argparse.Namespace, metadata: Any, words: str) -> int:
    """What was made, and what is to be done with it."""
    print(json.dumps(_facts(metadata)) if args.json else words)
    return 0


def _show(args: argparse.Namespace) -> int:
    metadata = _read(args.root)
    root, found = metadata.signed, _facts(metadata)
    if args.json:
        print(json.dumps(found))
        return 0
    print(f"root {root.version}, good until {root.expires:%Y-%m-%d}")
    print(f"  release: {found['targets']['needs']} of {', '.join(found['targets']['people'])}")
    print(f"  change the root: {found['root']['needs']} of {', '.join(found['root']['people'])}")
    print(f"  signed by {', '.join(found['signed']) or 'nobody'}")
    return 0


def _install(args: argparse.Namespace) -> int:
    from cofferdam.cli.patch_asking import ask_part

    metadata = _read(args.root)
    _, found = ask_part(args, "keeper", "root", metadata=args.root.read_text("utf-8"))
    words = f"root {found['root']} is offered to the installer, which checks it by root {metadata.signed.version - 1}"
    print(json.dumps(found) if args.json else words)
    return 0
