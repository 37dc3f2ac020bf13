"""`cofferdam BROKER key ...`, `certificate` and `password`: by what clients are known to the parts of a broker that
answer HTTP, the broker by clients, and by databases.

They are written into the state directory, for the part at which a principal stands, and given to that part if the gate
runs. A key is printed once, when it is made. A broker's verbs say what is theirs (`Keys`), and call `add_keys`,
`add_certificate`, `add_password`. Not here: the files (brokers.kit.http.vault).
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Required, TypedDict

from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.brokers.kit.http.vault import Vault
    from cofferdam.policy.table import CompiledPolicy

START_SECONDS = 5.0
"""How long a part that does not answer is asked again."""


class Side(NamedTuple):
    """One part of one crew: who shows it a key, the certificates that its doors show, and the passwords that it shows
    to databases. `made`: names of keys that it signs with, which are made here and brought by nobody."""

    crew: str
    part: str
    principals: frozenset[str] = frozenset()
    tls: frozenset[str] = frozenset()
    passwords: frozenset[str] = frozenset()
    made: frozenset[str] = frozenset()


class Keys(NamedTuple):
    """What keys of one broker are for: `verbs`, on `scope` (its word for what: "channel"). `sides`: the parts that a
    policy gives it, of one crew ("": of all). `why`: what keys are there for."""

    broker: str
    verbs: tuple[str, ...]
    scope: str
    sides: Callable[[CompiledPolicy, str], list[Side]]
    why: str


# --- what is printed as JSON: times in UTC ns ---------------------------------------------------------------------


class NewKey(TypedDict):
    """`key` is shown this once. `in_use`: the parts that run have it."""

    key: str
    id: str
    principal: str
    expires: int
    in_use: bool


class KeyShown(TypedDict, total=False):
    """`channels`, `tags`, `products`: what it is for alone, by the broker's word; empty: all."""

    id: Required[str]
    principal: Required[str]
    created: Required[int]
    expires: Required[int]
    expired: Required[bool]
    verbs: Required[tuple[str, ...]]
    channels: tuple[str, ...]
    tags: tuple[str, ...]
    products: tuple[str, ...]
    by: Required[str]
    sides: Required[list[str]]
    in_policy: Required[bool]


class Revoked(TypedDict):
    id: str
    principal: str
    in_use: bool


class Certificate(TypedDict):
    """`subject` and `until` are empty where there is none."""

    name: str
    side: str
    subject: str
    until: str
    in_policy: bool


class CertificateTaken(TypedDict):
    name: str
    until: str
    in_use: bool


class Password(TypedDict):
    name: str
    side: str
    there: bool


class PasswordTaken(TypedDict):
    name: str
    in_use: bool


# --- the words ----------------------------------------------------------------------------------------------------


def _reader(of: Keys, verb: Any) -> Callable[..., Any]:
    def reader(name: str, text: str, work: Any, prints: str, parent: Any) -> Any:
        sub = verb(name, text, work, prints, parent, __name__)
        sub.set_defaults(keys=of)
        sub.add_argument("--policy", type=Path, metavar="POLICY", help="a policy (default: the running gate's)")
        return sub

    return reader


def add_keys(of: Keys, keys: Any, verb: Any) -> None:
    """`key ...`; `keys`: the subparsers beneath it, `verb`: makes one, with the options that all verbs have."""
    reader = _reader(of, verb)
    new = reader("new", "make a key for a principal, and print it: this once", _new, "NewKey", keys)
    new.add_argument("principal", metavar="PRINCIPAL", help="for whom; a principal may have two keys at a time")
    new.add_argument("--for", dest="span", default="365 days", metavar="TIME", help="how long it is good, such as "
                     '"90 days", or `ever` (default: 365 days)')  # fmt: skip
    new.add_argument("--only", nargs="+", default=[], choices=list(of.verbs), help="for these verbs alone")
    if of.scope:
        new.add_argument(f"--{of.scope}", dest="scopes", nargs="+", default=[], metavar=of.scope.upper(),
                         help=f"for these {of.scope}s alone")  # fmt: skip
    reader("list", "the keys that there are: for whom, since when, until when", _list, "list[KeyShown]", keys)
    revoke = reader("revoke", "take a key away, at once", _revoke, "Revoked", keys)
    revoke.add_argument("id", metavar="ID", help="the key's id, as `list` shows it")


def add_certificate(of: Keys, verbs: Any, verb: Any) -> None:
    """`certificate`."""
    text = f"the certificates that the {of.broker} shows: list them, or bring one in"
    certificate = _reader(of, verb)("certificate", text, _tls, "list[Certificate] | CertificateTaken", verbs)
    certificate.add_argument("name", nargs="?", metavar="NAME", help="its name in the policy: `tls`, or the zone's")
    certificate.add_argument("--certificate", type=Path, metavar="FILE", help="PEM: the certificate and its chain")
    certificate.add_argument("--key", type=Path, metavar="FILE", help="PEM: its key, without a password")


def add_password(of: Keys, verbs: Any, verb: Any) -> None:
    """`password`."""
    text = f"the passwords that the {of.broker} shows to databases: list them, or bring one in"
    password = _reader(of, verb)("password", text, _password, "list[Password] | PasswordTaken", verbs)
    password.add_argument("name", nargs="?", metavar="NAME", help="its name in the policy: `password`, or the default")
    password.add_argument("--file", type=Path, metavar="FILE", help="the password, on its first line; `-` for stdin "
                          "(default: ask for it)")  # fmt: skip


# --- where --------------------------------------------------------------------------------------------------------


def policy_of(args: argparse.Namespace) -> CompiledPolicy:
    """The policy that is meant."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    path = args.policy or Path(ask(state_of(args), "status", fresh=False)["policy"]["path"])
    return compile_policy(load(path), now_ns=time.time_ns())


def sides_of(args: argparse.Namespace) -> list[Side]:
    """All parts of the policy's crews of this broker that have keys, certificates or passwords."""
    of: Keys = args.keys
    found = of.sides(policy_of(args), args.crew)
    if not found:
        raise GateError(f"the policy has no {of.broker}", hint=f"conduits with `broker: {of.broker}`")
    return found


def vault_of(args: argparse.Namespace, side: Side) -> Vault:
    """A part's file."""
    from cofferdam.brokers.kit.http.vault import Vault
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.secrets import secret_file

    broker: str = args.keys.broker
    return Vault(secret_file(state_of(args), side.crew, side.part, broker), broker)


def save(args: argparse.Namespace, side: Side, vault: Vault) -> bool:
    """Writes a part's file, for the gate's user. Returns whether a part that runs has it already."""
    import msgspec

    from cofferdam.brokers.kit.http.keys import Given
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.gate.state import control_socket

    state = state_of(args)
    owner = state.stat().st_gid if os.geteuid() == 0 else os.geteuid()  # the gate's group is its user's own
    vault.save(owner)
    if not control_socket(state).exists():
        return False
    broker: str = args.keys.broker
    given = msgspec.to_builtins(Given(secrets=vault.secrets))
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ask(state, "ask-part", broker=broker, part=side.part, verb="secrets", arguments=given, crew=side.crew)
        except GateError as error:
            if time.monotonic() < deadline:  # it may just be starting, with the file as it was before
                time.sleep(0.2)
                continue
            raise GateError(
                f"it is written, and {side.part} of {side.crew} does not have it: {error}",
                hint=error.hint or "it has it once it is started anew",
            ) from None
        return True


def by() -> str:
    """Who asks."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


# --- keys ---------------------------------------------------------------------------------------------------------


def _new(args: argparse.Namespace) -> int:
    from cofferdam.brokers.kit.http.vault import locked
    from cofferdam.cli.gate_options import state_of
    from cofferdam.policy.problems import nearest, one_of

    sides = sides_of(args)
    own = [side for side in sides if args.principal in side.principals]
    if not own:
        known = sorted({name for side in sides for name in side.principals})
        near = nearest(args.principal, known)
        raise GateError(
            f"{args.principal!r} is nobody who shows a key to a {args.keys.broker} of the policy",
            hint=f"did you mean {near}?" if near else f"it knows {one_of(known)}",
        )
    now = time.time_ns()
    expires = 0 if args.span == "ever" else now + _seconds(args.span) * 10**9
    with locked(state_of(args)):
        text, kept, runs = "", None, True
        for side in own:
            vault = vault_of(args, side)
            if kept is None:
                text, kept = vault.add(
                    args.principal, expires=expires, verbs=args.only, scopes=getattr(args, "scopes", ()),
                    by=by(), now_ns=now,
                )  # fmt: skip
            else:  # one who stands at several has the same key at all of them
                vault.put(kept)
            runs = save(args, side, vault) and runs
    if kept is None:
        raise GateError("no key was made")
    if args.json:
        print(json.dumps({"key": text, "id": kept.id, "principal": args.principal, "expires": expires, "in_use": runs}))
    else:
        print(text)
        # The key alone goes to stdout, so that KEY=$(cofferdam BROKER key new ...) is the key.
        print(f"  key {kept.id} of {args.principal}, good {_until(expires)}; it is not shown again", file=sys.stderr)
        if not runs:
            print("  it counts once the gate runs", file=sys.stderr)
    return 0


def _seconds(text: str) -> int:
    from pydantic_core import PydanticCustomError

    from cofferdam.policy import syntax

    try:
        return syntax.long_span(text, 60, 10 * syntax.YEAR_SECONDS)
    except PydanticCustomError as error:
        raise GateError(f"{text!r} is no time: {error.message()} is expected", hint="or `ever`") from None


def _until(ns: int) -> str:
    return f"until {datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M} UTC" if ns else "without an end"


def _list(args: argparse.Namespace) -> int:
    now = time.time_ns()
    found: dict[str, dict[str, Any]] = {}
    for side in sides_of(args):
        for key in vault_of(args, side).secrets.keys:
            there = found.setdefault(key.id, {
                "id": key.id, "principal": key.principal, "created": key.created, "expires": key.expires,
                "expired": bool(key.expires and key.expires <= now), "verbs": key.verbs,
                f"{args.keys.scope or 'scope'}s": key.scopes,
                "by": key.by, "sides": [],
                "in_policy": key.principal in side.principals,
            })  # fmt: skip
            there["sides"].append(f"{side.crew}/{side.part}")
    if args.json:
        print(json.dumps(list(found.values())))
        return 0
    for key_found in found.values():
        limits = (*key_found["verbs"], *key_found[f"{args.keys.scope or 'scope'}s"])
        only = f", only {', '.join(limits)}" if limits else ""
        state = " EXPIRED" if key_found["expired"] else ""
        state += "" if key_found["in_policy"] else " (the policy no longer knows it)"
        print(f"{key_found['id']}  {key_found['principal']:20} {_until(key_found['expires'])}{state}{only}"
              f"  by {key_found['by']}")  # fmt: skip
    if not found:
        print(f"there are no keys; `cofferdam {args.keys.broker} key new PRINCIPAL` makes one")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    from cofferdam.brokers.kit.http.vault import locked
    from cofferdam.cli.gate_options import state_of

    with locked(state_of(args)):
        gone = []
        for side in sides_of(args):
            vault = vault_of(args, side)
            key = vault.revoke(args.id)
            if key is not None:
                gone.append((key, save(args, side, vault)))
    if not gone:
        raise GateError(f"there is no key {args.id!r}", hint=f"`cofferdam {args.keys.broker} key list` shows them")
    key, runs = gone[0]
    if args.json:
        print(json.dumps({"id": key.id, "principal": key.principal, "in_use": runs}))
    else:
        print(f"key {key.id} of {key.principal} is revoked" + ("" if runs else "; no gate runs"))
    return 0


# --- certificates -------------------------------------------------------------------------------------------------


def _tls(args: argparse.Namespace) -> int:
    if args.name is None:
        return _certificates(args)
    from cofferdam.brokers.kit.http.vault import locked
    from cofferdam.cli.gate_options import state_of
    from cofferdam.policy.problems import nearest, one_of

    if args.certificate is None or args.key is None:
        raise GateError("a certificate comes with its key", hint="--certificate FILE --key FILE")
    sides = sides_of(args)
    own = [side for side in sides if args.name in side.tls]
    if not own:
        known = sorted({name for side in sides for name in side.tls})
        near = nearest(args.name, known)
        hint = f"did you mean {near}?" if near else f"it names {one_of(known)}" if known else "it has no door with TLS"
        raise GateError(f"no door of the policy shows a certificate {args.name!r}", hint=hint)
    pem, key = args.certificate.read_bytes(), args.key.read_bytes()
    runs, certificate = True, None
    with locked(state_of(args)):
        for side in own:
            vault = vault_of(args, side)
            certificate = vault.bring(args.name, pem, key)
            runs = save(args, side, vault) and runs
    if certificate is None:
        raise GateError("no certificate was brought in")
    until = certificate.not_valid_after_utc
    if args.json:
        print(json.dumps({"name": args.name, "until": until.isoformat(), "in_use": runs}))
    else:
        print(f"{args.name}: {certificate.subject.rfc4514_string()}, good until {until:%Y-%m-%d}"
              + ("" if runs else "; it is shown once the gate runs"))  # fmt: skip
    return 0


def _certificates(args: argparse.Namespace) -> int:
    found = [row for side in sides_of(args) for row in _stand(side, vault_of(args, side))]
    if args.json:
        print(json.dumps(found))
        return 0
    for row in found:
        if row["subject"]:
            print(f"{row['name']:20} {row['side']}  {row['subject']}, good until {row['until'][:10]}")
        else:
            print(f"{row['name']:20} {row['side']}  MISSING: nobody is let in at its door")
    return 0


def _stand(side: Side, vault: Vault) -> Iterator[Certificate]:
    there = dict(vault.certificates())
    for name in sorted(side.tls | there.keys()):
        certificate = there.get(name)
        yield {
            "name": name,
            "side": f"{side.crew}/{side.part}",
            "subject": certificate.subject.rfc4514_string() if certificate is not None else "",
            "until": certificate.not_valid_after_utc.isoformat() if certificate is not None else "",
            "in_policy": name in side.tls,
        }


# --- passwords ---------------------------------------------------------------------------------------------------


def _password(args: argparse.Namespace) -> int:
    from cofferdam.brokers.kit.http.vault import locked
    from cofferdam.cli.gate_options import state_of
    from cofferdam.policy.problems import nearest, one_of

    sides = sides_of(args)
    if args.name is None:
        found = [
            {"name": name, "side": f"{side.crew}/{side.part}", "there": name in vault_of(args, side).secrets.passwords}
            for side in sides for name in sorted(side.passwords)
        ]  # fmt: skip
        for row in found if not args.json else ():
            print(f"{row['name']:20} {row['side']}  {'there' if row['there'] else 'MISSING: nothing is asked there'}")
        if args.json:
            print(json.dumps(found))
        return 0
    own = [side for side in sides if args.name in side.passwords]
    if not own:
        known = sorted({name for side in sides for name in side.passwords})
        near = nearest(args.name, known)
        hint = f"did you mean {near}?" if near else f"it names {one_of(known)}" if known else "it names none"
        raise GateError(f"no {args.keys.broker} of the policy shows a password {args.name!r}", hint=hint)
    password = _read(args.file)
    runs = True
    with locked(state_of(args)):
        for side in own:
            vault = vault_of(args, side)
            vault.set_password(args.name, password)
            runs = save(args, side, vault) and runs
    if args.json:
        print(json.dumps({"name": args.name, "in_use": runs}))
    else:
        print(f"{args.name}: the password is there" + ("" if runs else "; it is used once the gate runs"))
    return 0


def _read(file: Path | None) -> str:
    if file is None:
        try:
            return getpass.getpass("Password: ")
        except EOFError:
            raise GateError("nobody typed a password", hint="--file FILE has it, or --file - for stdin") from None
    try:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GateError(f"{file} cannot be read: {error}") from None
    return text.partition("\n")[0].rstrip("\r")
