"""`cofferdam pki ...`: keys and certificates of the two sides of OPC UA, whom they trust, who may log in.

Each side has a file of its own in the state directory, which nothing but the gate's user reads; a side that runs is
given a changed one at once. Not here: what the file means (protocols.opcua.trust), where it lies (gate.secrets).
"""

from __future__ import annotations

import argparse
import base64
import ipaddress
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    sides_of,
    tell,
)
from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.protocols.opcua.trust import Secret

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


# --- where --------------------------------------------------------------------------------------------------------


# --- keys ---------------------------------------------------------------------------------------------------------


def _make(site: str, side: Side, days: int) -> Secret:
    """A new key, and its certificate as OPC 10000-6, 6.2.2 wants one."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    from cofferdam.protocols.opcua.trust import Secret

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Cofferdam {site} {side.part}"[:64])])
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"urn:cofferdam:{site}:{side.part}")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in side.addresses]
    now = datetime.now(UTC)
    public = key.public_key()
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    return Secret(key=pem.decode(), certificate=certificate.public_bytes(serialization.Encoding.DER))


def _new(args: argparse.Namespace) -> int:
    from msgspec.structs import replace

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
            made = _make(policy.site, side, args.days)
            runs = save(args, side, replace(secret, key=made.key, certificate=made.certificate, above=()))
            done[f"{side.crew}/{side.part}"] = {"thumbprint": mark(made.certificate), "in_use": runs}
    lines = [f"{name}: {found['thumbprint']}" for name, found in done.items()]
    return tell(args, "\n".join(lines) or "each side has a certificate; --again makes new ones", done)


def _list(args: argparse.Namespace) -> int:
    found: list[Shown] = []
    for side in sides_of(args, policy_of(args)):
        secret = read(args, side)
        refused = _rejected(args, side)
        found.append({
            "side": f"{side.crew}/{side.part}",
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
    from msgspec.structs import replace

    from cofferdam.protocols.opcua.issuers import authorities
    from cofferdam.protocols.opcua.trust import mark

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
            if der is None:
                continue
            secret = read(args, side)
            revoked = tuple(one for one in secret.revoked if one != mark(der))
            word = "issuers" if args.issuer else "trusted"
            known = tuple(one for one in getattr(secret, word) if one != der)
            runs = save(args, side, replace(secret, **{word: (*known, der)}, revoked=revoked))
            done[f"{side.crew}/{side.part}"] = {**facts_of(der), "in_use": runs}
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
    from msgspec.structs import replace

    from cofferdam.protocols.opcua.trust import mark

    wanted = args.thumbprint.replace(":", "").lower()
    if len(wanted) < LEAST_PREFIX or wanted.strip("0123456789abcdef"):
        raise GateError(f"{args.thumbprint!r} is no thumbprint", hint="`cofferdam pki list` shows them")
    done = {}
    with locked(args):
        for side in sides_of(args, policy_of(args)):
            secret = read(args, side)
            gone = [der for der in (*secret.trusted, *secret.issuers) if mark(der).startswith(wanted)]
            for der in gone[:1]:
                kept = tuple(one for one in secret.trusted if one != der)
                issuers = tuple(one for one in secret.issuers if one != der)
                revoked = (*secret.revoked, mark(der))
                runs = save(args, side, replace(secret, trusted=kept, issuers=issuers, revoked=revoked))
                done[f"{side.crew}/{side.part}"] = {"thumbprint": mark(der), "in_use": runs}
    if not done:
        raise GateError(f"nobody trusts a certificate {args.thumbprint}", hint="`cofferdam pki list` shows them")
    return tell(args, "\n".join(f"{name} trusts {one['thumbprint']} no longer" for name, one in done.items()), done)


def _crl(args: argparse.Namespace) -> int:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from msgspec.structs import replace

    from cofferdam.protocols.opcua.issuers import authorities
    from cofferdam.protocols.opcua.revocation import LIST_BYTES, LISTS, issuer_of

    data = args.file.read_bytes()
    if len(data) > 2 * LIST_BYTES:
        raise GateError(f"{args.file} has more than {LIST_BYTES >> 10} KiB")
    try:
        pem = data.lstrip().startswith(b"-----")
        found = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
    except ValueError as error:
        raise GateError(f"{args.file} is no revocation list", hint="one in PEM or DER is wanted") from error
    der = found.public_bytes(Encoding.DER)
    if len(der) > LIST_BYTES:
        raise GateError(f"{args.file} has more than {LIST_BYTES >> 10} KiB")
    done = {}
    with locked(args):
        for side in sides_of(args, policy_of(args)):
            secret = read(args, side)
            known = authorities((*secret.trusted, *secret.issuers))
            number = issuer_of(der, known)[1]
            if number < 0:
                continue
            olds = {one: issuer_of(one, known)[0] for one in secret.lists if issuer_of(one, known)[1] == number}
            if any(old.last_update_utc > found.last_update_utc for old in olds.values()):
                raise GateError(f"{args.file} is older than the list that {side.crew}/{side.part} has")
            kept = tuple(one for one in secret.lists if one not in olds)
            if len(kept) >= LISTS:
                raise GateError(f"{side.crew}/{side.part} has {LISTS} lists already")
            runs = save(args, side, replace(secret, lists=(*kept, der)))
            done[f"{side.crew}/{side.part}"] = {**_list_facts(der), "in_use": runs}
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
            done[f"{side.crew}/{side.part}"] = str(path)
    if not done:
        raise GateError("no side has a certificate", hint="`cofferdam pki new` makes them")
    return tell(args, "\n".join(done.values()), done)


def _csr(args: argparse.Namespace) -> int:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    args.folder.mkdir(parents=True, exist_ok=True)
    done = {}
    for side in sides_of(args, policy_of(args)):
        secret = read(args, side)
        if not secret.certificate:
            continue
        key = serialization.load_pem_private_key(secret.key.encode(), None)
        if not isinstance(key, RSAPrivateKey):
            raise GateError(f"the key of {side.crew}/{side.part} is no RSA key", hint="cofferdam pki new --again")
        own = x509.load_der_x509_certificate(secret.certificate)
        wanted = x509.CertificateSigningRequestBuilder().subject_name(own.subject)
        # What an application has to have (OPC 10000-6, 6.2.2); the authority adds what is its own.
        for extension in own.extensions:
            if isinstance(extension.value, (x509.SubjectAlternativeName, x509.KeyUsage, x509.ExtendedKeyUsage)):
                wanted = wanted.add_extension(extension.value, extension.critical)
        path = args.folder / f"{side.crew.replace('/', '-')}-{side.part}.csr"
        path.write_bytes(wanted.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        done[f"{side.crew}/{side.part}"] = str(path)
    if not done:
        raise GateError("no side has a key", hint="`cofferdam pki new` makes them")
    return tell(args, "\n".join(done.values()), done)


def _import(args: argparse.Namespace) -> int:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from msgspec.structs import replace

    from cofferdam.protocols.opcua.trust import application_uri

    der, *above = chain_of_file(args.file)
    made = x509.load_der_x509_certificate(der)
    done = {}
    with locked(args):
        for side in sides_of(args, policy_of(args)):
            secret = read(args, side)
            if not secret.certificate:
                continue
            if serialization.load_pem_private_key(secret.key.encode(), None).public_key() != made.public_key():
                continue
            uri = application_uri(x509.load_der_x509_certificate(secret.certificate))
            if application_uri(made) != uri:
                raise GateError(
                    f"{args.file} is for the application {application_uri(made)!r}, and we are {uri!r}",
                    hint="the authority has to take over the alternative names of the request",
                )
            if not made.not_valid_before_utc <= datetime.now(UTC) <= made.not_valid_after_utc:
                raise GateError(f"{args.file} is not valid now")
            runs = save(args, side, replace(secret, certificate=der, above=tuple(above)))
            done[f"{side.crew}/{side.part}"] = {**facts_of(der), "in_use": runs}
    if not done:
        raise GateError(f"{args.file} is for no key of ours", hint="`cofferdam pki csr` writes requests for them")
    return tell(args, "\n".join(f"{name} shows {_line(facts)}" for name, facts in done.items()), done)
