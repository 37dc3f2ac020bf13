"""`cofferdam pki ...`: keys and certificates of the two sides of OPC UA, whom they trust, who may log in.

Each side has a file of its own in the state directory, which nothing but the gate's user reads; a side that runs is
given a changed one at once. Not here: what the file means (protocols.opcua.trust), where it lies (gate.secrets).
"""

from __future__ import annotations

import argparse
import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cofferdam.cli import pki_people
from cofferdam.cli.pki_sides import (
    MIRROR,
    ListFacts,
    Shown,
    Side,
    ask,
    chain_of_file,
    facts_of,
    locked,
    of_file,
    policy_of,
    read,
    save,
    sensible,
    sides_of,
    tell,
)
from cofferdam.errors import GateError

DAYS = 730
WARN_DAYS = 30
LEAST_PREFIX = 8


def add(parser: argparse.ArgumentParser) -> None:
    """The words."""
    from cofferdam.cli.gate_options import add_json, add_state

    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(name: str, text: str, work: Any, prints: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(work=work)
        sub.add_argument("--policy", type=Path, metavar="POLICY", help="a policy (default: the running gate's)")
        sub.add_argument(
            "--side", choices=["outer", "inner", MIRROR],
            help="outer: towards clients; inner: towards assets; mirror: towards assets whose history is mirrored",
        )  # fmt: skip
        add_state(sub)
        add_json(sub, prints, "cofferdam.cli.pki_sides")
        return sub

    new = verb("new", "a key and a self-signed certificate for each side that has none", _new, "dict[str, Mark]")
    new.add_argument("--again", action="store_true", help="also where there is one: peers have to trust the new one")
    new.add_argument("--days", type=int, default=DAYS, help=f"how long it is good (default: {DAYS})")
    verb("list", "what each side has, trusts, and has refused of late", _list, "list[Shown]")
    trust = verb("trust", "trust a certificate that was refused, or one of a file", _trust, "dict[str, Taken]")
    trust.add_argument("thumbprint", nargs="?", metavar="THUMBPRINT", help="its SHA-1, or the first digits of it")
    trust.add_argument("--file", type=Path, metavar="FILE", help="a certificate (DER or PEM), or an authority's")
    trust.add_argument(
        "--issuer", action="store_true", help="with --file: know this authority, which is as good as those above it"
    )
    reject = verb("reject", "trust a certificate no longer, ever; its channels end", _reject, "dict[str, Mark]")
    reject.add_argument("thumbprint", metavar="THUMBPRINT", help="its SHA-1, or the first digits of it")
    crl = verb("crl", "take a revocation list of an authority that is trusted", _crl, "dict[str, ListTaken]")
    crl.add_argument("file", type=Path, metavar="FILE", help="the list (DER or PEM), of a newer date than the last")
    export = verb("export", "write our certificates out, for the peers to trust", _export, "dict[str, str]")
    export.add_argument("folder", type=Path, metavar="FOLDER", help="where; one file for each side")
    csr = verb(
        "csr", "write requests for certificates of our keys out, for an authority to sign", _csr, "dict[str, str]"
    )
    csr.add_argument("folder", type=Path, metavar="FOLDER", help="where; one file (PEM) for each side")
    imported = verb(
        "import", "take a certificate that an authority has made of our request", _import, "dict[str, Taken]"
    )
    imported.add_argument("file", type=Path, metavar="FILE", help="the certificate (DER or PEM)")
    user = verb("user", "give a user a password or a certificate, by which clients log in", pki_people.user, "User")
    user.add_argument("name", metavar="NAME", help="the user, as a principal names it")
    user.add_argument("--password-file", type=Path, metavar="FILE", help="the password (default: it is asked for)")
    user.add_argument(
        "--certificate", type=Path, metavar="FILE", help="instead: the user's own certificate (DER or PEM)"
    )
    user.add_argument("--remove", action="store_true", help="take both away")
    password = verb("password", "the password by which we log in at an asset", pki_people.password, "LogsIn")
    password.add_argument("asset", metavar="ASSET", help="the asset, whose `security: user:` names the user")
    identity = verb("identity", "a key and certificate by which we log in at an asset", pki_people.identity, "Identity")
    identity.add_argument("asset", metavar="ASSET", help="the asset, with `security: login: certificate`")
    identity.add_argument("--key", type=Path, metavar="FILE", help="the key (PEM; default: one is made)")
    identity.add_argument("--certificate", type=Path, metavar="FILE", help="its certificate (DER or PEM)")
    identity.add_argument("--export", type=Path, metavar="FILE", help="write the certificate out, for the asset")


def run(args: argparse.Namespace) -> int:
    code: int = args.work(args)
    return code


# --- keys ---------------------------------------------------------------------------------------------------------


def _new(args: argparse.Namespace) -> int:
    from msgspec.structs import replace

    from cofferdam.protocols.opcua.pki import application
    from cofferdam.protocols.opcua.trust import mark

    if not 1 <= args.days <= 36_500:
        raise GateError(f"{args.days} days are no life of a certificate", hint="1 to 36500")
    policy = policy_of(args)
    done: dict[str, Any] = {}
    with locked(args):
        for side in sides_of(args, policy):
            secret = read(args, side)
            if secret.certificate and not args.again:
                continue
            made = application(policy.site, side.part, side.addresses, datetime.now(UTC), args.days)
            runs = save(args, side, replace(secret, key=made.key, certificate=made.certificate, above=()))
            done[side.name] = {"thumbprint": mark(made.certificate), "in_use": runs}
    lines = [f"{name}: {found['thumbprint']}" for name, found in done.items()]
    return tell(args, "\n".join(lines) or "each side has a certificate; --again makes new ones", done)


def _list(args: argparse.Namespace) -> int:
    found: list[Shown] = []
    for side in sides_of(args, policy_of(args)):
        secret = read(args, side)
        refused = _rejected(args, side)
        found.append({
            "side": side.name,
            "words": side.words,
            "own": facts_of(secret.certificate) if secret.certificate else None,
            "trusted": [facts_of(der) for der in secret.trusted],
            "issuers": [facts_of(der) for der in secret.issuers],
            "identities": {asset: facts_of(der) for asset, (_, der) in secret.identities.items()},
            "revoked": list(secret.revoked),
            "lists": [_list_facts(der) for der in secret.lists],
            "refused": [facts_of(base64.b64decode(der)) for der in refused.values()],
            "users": sorted({*secret.users, *secret.user_certificates}),
            "passwords": sorted(secret.passwords),
        })  # fmt: skip
    if args.json:
        print(json.dumps(found))
        return 0
    for one in found:
        print(f"{one['side']} ({one['words']})")
        own = one["own"]
        print(f"  own      {_line(own)}" if isinstance(own, dict) else "  own      none: `cofferdam pki new` makes one")
        for word, those in (("trusts", one["trusted"]), ("issuer", one["issuers"]), ("refused", one["refused"])):
            for facts in those:
                print(f"  {word:8} {_line(facts)}")
        for gone in one["revoked"]:
            print(f"  rejected {gone}")
        for each in one["lists"]:
            print(f"  has      {_list_line(each)}")
        for asset, shown in one["identities"].items():
            print(f"  logs in  at {asset} by {_line(shown)}")
        if one["users"]:
            print(f"  users    {', '.join(one['users'])}")
    return 0


def _line(facts: Any) -> str:
    from cofferdam.audit.lines import escaped

    end = f"until {facts['until'][:10]}"
    if facts["days"] < 0:
        end = f"EXPIRED {facts['until'][:10]}"
    elif facts["days"] < WARN_DAYS:
        end += f", {facts['days']} days from now"
    return f"{facts['thumbprint']}  {escaped(facts['application'] or facts['subject'])}  {end}"


# --- trust --------------------------------------------------------------------------------------------------------


def _trust(args: argparse.Namespace) -> int:
    from cofferdam.protocols.opcua.issuers import authorities
    from cofferdam.protocols.opcua.pki import trusting

    if (args.thumbprint is None) == (args.file is None):
        raise GateError("what is to be trusted?", hint="a THUMBPRINT that `pki list` shows as refused, or --file")
    sides = sides_of(args, policy_of(args))
    if args.issuer and (args.file is None or not authorities([of_file(args.file)])):
        raise GateError("--issuer is for the certificate of an authority", hint="--file FILE says which")
    if args.file is not None and args.side is None:
        raise GateError("who is to trust it?", hint="--side outer (a client's), inner (an asset's) or mirror (too)")
    done = {}
    with locked(args):
        for side in sides:
            der = of_file(args.file) if args.file is not None else _refused(args, side, args.thumbprint)
            if der is not None:
                runs = save(args, side, trusting(read(args, side), der, issuer=args.issuer))
                done[side.name] = {**facts_of(der), "in_use": runs}
    if not done:
        raise GateError(
            f"nobody has refused a certificate {args.thumbprint}", hint="`cofferdam pki list` shows what was refused"
        )
    says = "knows the issuer" if args.issuer else "trusts"
    return tell(args, "\n".join(f"{name} {says} {_line(one)}" for name, one in done.items()), done)


def _rejected(args: argparse.Namespace, side: Side) -> dict[str, str]:
    """What a running side has refused of late: thumbprint -> certificate, base64."""
    return {name: der for one in ask(args, side, "rejected", {}) or [] for name, der in one.items()}


def _refused(args: argparse.Namespace, side: Side, text: str) -> bytes | None:
    wanted = text.replace(":", "").lower()
    if len(wanted) < LEAST_PREFIX:
        raise GateError(f"{text!r} could be any", hint=f"at least {LEAST_PREFIX} digits of the thumbprint")
    found = [der for name, der in _rejected(args, side).items() if name.startswith(wanted)]
    if len(found) > 1:
        raise GateError(f"{text!r} is the beginning of several", hint="more digits")
    return base64.b64decode(found[0]) if found else None


def _reject(args: argparse.Namespace) -> int:
    from cofferdam.protocols.opcua.pki import rejecting
    from cofferdam.protocols.opcua.trust import mark

    wanted = args.thumbprint.replace(":", "").lower()
    if len(wanted) < LEAST_PREFIX or wanted.strip("0123456789abcdef"):
        raise GateError(f"{args.thumbprint!r} is no thumbprint", hint="`cofferdam pki list` shows them")
    done = {}
    with locked(args):
        for side in sides_of(args, policy_of(args)):
            if (found := rejecting(read(args, side), wanted)) is not None:
                secret, gone = found
                done[side.name] = {"thumbprint": mark(gone), "in_use": save(args, side, secret)}
    if not done:
        raise GateError(f"nobody trusts a certificate {args.thumbprint}", hint="`cofferdam pki list` shows them")
    return tell(args, "\n".join(f"{name} trusts {one['thumbprint']} no longer" for name, one in done.items()), done)


def _crl(args: argparse.Namespace) -> int:
    from cofferdam.protocols.opcua.pki import listing, revocation_list
    from cofferdam.protocols.opcua.revocation import LIST_BYTES

    with args.file.open("rb") as file:
        data = file.read(2 * LIST_BYTES + 1)
    if len(data) > 2 * LIST_BYTES:
        raise GateError(f"{args.file} has more than {LIST_BYTES >> 10} KiB")
    done = {}
    with sensible(args.file):
        der = revocation_list(data)
    with locked(args):
        for side in sides_of(args, policy_of(args)):
            with sensible(args.file, side):
                secret = listing(read(args, side), der)
            if secret is not None:
                done[side.name] = {**_list_facts(der), "in_use": save(args, side, secret)}
    if not done:
        raise GateError(
            f"{args.file} is signed by no authority that is trusted", hint="`cofferdam pki trust --file AUTHORITY`"
        )
    return tell(args, "\n".join(f"{name} has {_list_line(one)}" for name, one in done.items()), done)


def _list_facts(der: bytes) -> ListFacts:
    from cryptography import x509

    found = x509.load_der_x509_crl(der)
    until = found.next_update_utc
    return {"issuer": found.issuer.rfc4514_string(), "revoked": len(found),
            "until": None if until is None else until.isoformat(),
            "days": None if until is None else (until - datetime.now(UTC)).days}  # fmt: skip


def _list_line(facts: Any) -> str:
    from cofferdam.audit.lines import escaped

    late = "PAST ITS TIME " if facts["days"] is not None and facts["days"] < 0 else "until "
    end = "without an end" if facts["until"] is None else late + facts["until"][:10]
    return f"the revocation list of {escaped(facts['issuer'])}: {facts['revoked']} certificates, {end}"


def _export(args: argparse.Namespace) -> int:
    args.folder.mkdir(parents=True, exist_ok=True)
    done = {}
    for side in sides_of(args, policy_of(args)):
        secret = read(args, side)
        if secret.certificate:
            path = args.folder / f"{side.crew.replace('/', '-')}-{side.part}.der"
            path.write_bytes(secret.certificate)
            done[side.name] = str(path)
    if not done:
        raise GateError("no side has a certificate", hint="`cofferdam pki new` makes them")
    return tell(args, "\n".join(done.values()), done)


def _csr(args: argparse.Namespace) -> int:
    from cofferdam.protocols.opcua.pki import request

    args.folder.mkdir(parents=True, exist_ok=True)
    done = {}
    for side in sides_of(args, policy_of(args)):
        secret = read(args, side)
        if secret.certificate:
            path = args.folder / f"{side.crew.replace('/', '-')}-{side.part}.csr"
            try:
                path.write_bytes(request(secret))
            except ValueError as error:
                raise GateError(f"the key of {side.name}: {error}", hint="cofferdam pki new --again") from None
            done[side.name] = str(path)
    if not done:
        raise GateError("no side has a key", hint="`cofferdam pki new` makes them")
    return tell(args, "\n".join(done.values()), done)


def _import(args: argparse.Namespace) -> int:
    from cofferdam.protocols.opcua.pki import answered

    chain = chain_of_file(args.file)
    done = {}
    with locked(args):
        for side in sides_of(args, policy_of(args)):
            with sensible(args.file, side):
                secret = answered(read(args, side), chain, datetime.now(UTC))
            if secret is not None:
                done[side.name] = {**facts_of(chain[0]), "in_use": save(args, side, secret)}
    if not done:
        raise GateError(f"{args.file} is for no key of ours", hint="`cofferdam pki csr` writes requests for them")
    return tell(args, "\n".join(f"{name} shows {_line(facts)}" for name, facts in done.items()), done)
