"""`cofferdam evidence witness`: the log's head to a folder or a stick, by hand; the key by which the gate signs in to
those that it reaches by SFTP; and who the witnesses of the policy are, for `cofferdam audit verify --witness`.

Not here: the visits that the gate makes by itself (gate.watch.witness).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofferdam.errors import AuditError, CofferdamError, GateError

if TYPE_CHECKING:
    from cofferdam.audit.files import LogReader
    from cofferdam.evidence.witness_asking import Said
    from cofferdam.policy.rows import Witness


def add(verbs: Any, common: Any) -> None:
    """Declares the sub-verb."""
    witness = verbs.add_parser("witness", help="leave the log's checkpoint in a folder elsewhere, or on a stick")
    witness.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="on another machine, or a stick")
    witness.add_argument(
        "--key", action="store_true", help="print the public key by which the gate signs in by SFTP; made at first"
    )
    witness.add_argument("--log", type=Path, metavar="LOG", help="the checkpoint of this log, such as the copy that a "
                         "strand has brought, and not of the gate's own")  # fmt: skip
    witness.add_argument("--log-key", metavar="KEY", help="with --log: its public key, a file or the key itself")
    common(witness, "WitnessKept | WitnessWrong | PublicKey")


def run(args: argparse.Namespace) -> int:
    """Leaves the head, or prints the key."""
    from cofferdam.audit.events.base import clip
    from cofferdam.audit.files import LogReader
    from cofferdam.audit.keys import find_public
    from cofferdam.audit.lines import escaped
    from cofferdam.cli.evidence_bench import tell
    from cofferdam.cli.gate_options import state_of
    from cofferdam.evidence import gather, witness

    state = state_of(args)
    if args.key:
        line = public_key(state)
        print(json.dumps({"key": line}) if args.json else line)
        return 0
    if args.folder is None:
        raise CofferdamError("name a folder", hint="cofferdam evidence witness DIR; or --key for the key of SFTP")
    folder = args.folder.absolute()
    name = clip(f"{witness.COLLECTOR}{folder.name}", 128)
    event: dict[str, Any] = {"kind": "export-stood", "collector": name, "working": True, "next": 0}
    wrong: AuditError | None = None
    size = before = -1
    try:
        if args.log is not None:
            reader = LogReader(args.log, find_public(args.log_key, args.log.parent / "keys" / "audit.pub"))
        else:
            reader = LogReader(state / "audit", gather.log_key(state))
        size, before = witness.keep(reader, folder)
        event["next"] = size
    except AuditError as error:
        wrong, event["working"], event["detail"] = error, False, clip(str(error))
    try:
        if args.log is None:  # what another machine's log leaves is no event of this one's
            tell(state, "record", event=event)
    except GateError as untold:
        print(f"not recorded: {untold}")
    if wrong is not None:
        print(json.dumps({"good": False, "problem": str(wrong)}) if args.json else escaped(f"WRONG: {wrong}"))
        return 1
    went_on = f"; it goes on from the {before:,} that were kept" if before >= 0 else ""
    plain = {"good": True, "entries": size, "before": before}
    print(json.dumps(plain) if args.json else f"kept: {size:,} entries{went_on}")
    return 0


def _secret_file(state: Path) -> Path:
    from cofferdam.gate.secrets import secret_file
    from cofferdam.gate.watch.witness import SFTP_KEY

    return secret_file(state, "witness", "witness", SFTP_KEY)


def public_key(state: Path) -> str:
    """The public key for SFTP, as a line of `authorized_keys`; made where there is none. Raises: CofferdamError."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cofferdam.gate.secrets import read_secret, write_secret

    path = _secret_file(state)
    try:
        try:
            data = read_secret(path)
        except FileNotFoundError:
            made = Ed25519PrivateKey.generate()
            data = made.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())
            write_secret(state, path, data)
        key = forms.load_ssh_private_key(data, None)
    except OSError as error:
        raise CofferdamError(f"{path} cannot be had: {error.strerror}", hint="as root, or as the gate's user") from None
    except ValueError:
        raise CofferdamError(f"{path} is no private SSH key", hint="remove it; then a new one is made") from None
    line = key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH).decode()
    return f"{line} cofferdam-witness"


def named(args: argparse.Namespace, names: Sequence[str]) -> tuple[tuple[Witness, ...], bytes]:
    """The witnesses of the policy with these names ("": all), and the key for SFTP. Raises: CofferdamError."""
    import time

    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.gate.secrets import read_secret
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load
    from cofferdam.policy.problems import nearest, one_of
    from cofferdam.proof.run import policy_path

    state = state_of(args)
    if args.policy is None:
        try:
            path = policy_path(state, ask(state, "status"))
        except GateError as error:
            raise CofferdamError(
                f"nobody says which witnesses there are: {error}", hint="--policy FILE names them without a gate"
            ) from None
    else:
        path = args.policy
    rows = {one.name: one for one in compile_policy(load(path), now_ns=time.time_ns()).audit.witnesses}
    if not rows:
        raise CofferdamError(f"{path} names no witness", hint="`witnesses:` in the policy's `audit:`")
    for name in names:
        if name and name not in rows:
            near = nearest(name, rows)
            hint = f"did you mean {near}?" if near else f"there is {one_of(rows)}"
            raise CofferdamError(f"the policy has no witness {name!r}", hint=hint)
    chosen = tuple(rows.values()) if "" in names else tuple(rows[name] for name in dict.fromkeys(names))
    if not any(one.way == "sftp" for one in chosen):
        return chosen, b""
    path = _secret_file(state)
    try:
        return chosen, read_secret(path)
    except FileNotFoundError:
        return chosen, b""
    except OSError as error:
        raise CofferdamError(f"{path} cannot be had: {error.strerror}", hint="as root, or as the gate's user") from None


def folder_says(reader: LogReader, folder: Path) -> Said:
    """What a folder has, which is left as it is."""
    from cofferdam.evidence.witness import look
    from cofferdam.evidence.witness_asking import Said

    try:
        return Said(folder.name, str(folder), size=look(reader, folder))
    except AuditError as wrong:
        return Said(folder.name, str(folder), wrong=str(wrong))
    except CofferdamError as trouble:
        return Said(folder.name, str(folder), trouble=str(trouble))
