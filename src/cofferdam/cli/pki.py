"""`cofferdam pki ...`: keys and certificates of the two sides of OPC UA, whom they trust, who may log in.

Each side has a file of its own in the state directory, which nothing but the gate's user reads; a side that runs is
given a changed one at once. Not here: what the file means (protocols.opcua.trust), where it lies (gate.secrets).
"""

from __future__ import annotations

import argparse
import base64
import getpass
import ipaddress
import json
import os
import secrets as dice
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.policy.table import CompiledPolicy
    from cofferdam.protocols.opcua.trust import Secret

BROKER, KIND = "opcua", "opcua"
DAYS = 730
WARN_DAYS = 30
START_SECONDS = 5.0
"""How long a side that does not answer is asked again."""
LEAST_PREFIX = 8


class Side(NamedTuple):
    """One side: its part of a crew, and where its listeners are."""

    crew: str
    part: str
    addresses: tuple[str, ...]

    @property
    def words(self) -> str:
        return "towards clients" if self.part == "outer" else "towards assets"


def add(parser: argparse.ArgumentParser) -> None:
    """The words."""
    from cofferdam.cli.gate_options import add_json, add_state

    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(name: str, text: str, work: Any) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(work=work)
        sub.add_argument("--policy", type=Path, metavar="POLICY", help="a policy (default: the running gate's)")
        sub.add_argument("--side", choices=["outer", "inner"], help="outer: towards clients; inner: towards assets")
        add_state(sub)
        add_json(sub)
        return sub

    new = verb("new", "a key and a self-signed certificate for each side that has none", _new)
    new.add_argument("--again", action="store_true", help="also where there is one: peers have to trust the new one")
    new.add_argument("--days", type=int, default=DAYS, help=f"how long it is good (default: {DAYS})")
    verb("list", "what each side has, trusts, and has refused of late", _list)
    trust = verb("trust", "trust a certificate that was refused, or one of a file", _trust)
    trust.add_argument("thumbprint", nargs="?", metavar="THUMBPRINT", help="its SHA-1, or the first digits of it")
    trust.add_argument("--file", type=Path, metavar="FILE", help="a certificate (DER or PEM), or an authority's")
    reject = verb("reject", "trust a certificate no longer, ever; its channels end", _reject)
    reject.add_argument("thumbprint", metavar="THUMBPRINT", help="its SHA-1, or the first digits of it")
    crl = verb("crl", "take a revocation list of an authority that is trusted", _crl)
    crl.add_argument("file", type=Path, metavar="FILE", help="the list (DER or PEM), of a newer date than the last")
    export = verb("export", "write our certificates out, for the peers to trust", _export)
    export.add_argument("folder", type=Path, metavar="FOLDER", help="where; one file for each side")
    csr = verb("csr", "write requests for certificates of our keys out, for an authority to sign", _csr)
    csr.add_argument("folder", type=Path, metavar="FOLDER", help="where; one file (PEM) for each side")
    imported = verb("import", "take a certificate that an authority has made of our request", _import)
    imported.add_argument("file", type=Path, metavar="FILE", help="the certificate (DER or PEM)")
    user = verb("user", "give a user a password or a certificate, by which clients log in", _user)
    user.add_argument("name", metavar="NAME", help="the user, as a principal names it")
    user.add_argument("--password-file", type=Path, metavar="FILE", help="the password (default: it is asked for)")
    user.add_argument(
        "--certificate", type=Path, metavar="FILE", help="instead: the user's own certificate (DER or PEM)"
    )
    user.add_argument("--remove", action="store_true", help="take both away")
    password = verb("password", "the password by which we log in at an asset", _password)
    password.add_argument("asset", metavar="ASSET", help="the asset, whose `security: user:` names the user")


def run(args: argparse.Namespace) -> int:
    code: int = args.work(args)
    return code


# --- where --------------------------------------------------------------------------------------------------------


def _policy(args: argparse.Namespace) -> CompiledPolicy:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    path = args.policy or Path(ask(state_of(args), "status", fresh=False)["policy"]["path"])
    return compile_policy(load(path), now_ns=time.time_ns())


def _sides(args: argparse.Namespace, policy: CompiledPolicy) -> list[Side]:
    from cofferdam.gate.crew.plan import plan_crews

    found: dict[tuple[str, str], Side] = {}
    for plan in plan_crews(policy).values():
        if plan.broker != BROKER:
            continue
        places = {place[0] for asset in policy.assets.values() if asset.protocol == BROKER for place in asset.places}
        for part in ("outer", "inner"):
            if args.side in (None, part):
                found[plan.base, part] = Side(plan.base, part, tuple(sorted(places)) if part == "outer" else ())
    if not found:
        raise GateError("the policy has no conduit with `broker: opcua`")
    return list(found.values())


def _read(args: argparse.Namespace, side: Side) -> Secret:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.secrets import read_secret, secret_file
    from cofferdam.protocols.opcua.trust import read

    path = secret_file(state_of(args), side.crew, side.part, KIND)
    try:
        return read(read_secret(path))
    except FileNotFoundError:
        return read(b"")
    except OSError as error:
        raise GateError(f"{path} cannot be read: {error.strerror or error}") from None


def _save(args: argparse.Namespace, side: Side, secret: Secret) -> bool:
    """Writes a side's file. Returns whether a side that runs has it already."""
    import msgspec

    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.secrets import save_secret, secret_file

    state = state_of(args)
    data = msgspec.json.encode(secret)
    owner = state.stat().st_gid if os.geteuid() == 0 else os.geteuid()  # the gate's group is its user's own
    save_secret(secret_file(state, side.crew, side.part, KIND), data, owner)
    answer = _ask(args, side, "secrets", {"secret": msgspec.json.decode(data)})
    return answer is not None


def _ask(args: argparse.Namespace, side: Side, verb: str, arguments: Any) -> list[Any] | None:
    """What a running side says, each of its pairs; None where no gate runs."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.gate.state import control_socket

    state = state_of(args)
    if not control_socket(state).exists():
        return None
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            said = ask(state, "ask-part", broker=BROKER, part=side.part, verb=verb, arguments=arguments)
            answers = [each for each in said if each["crew"] == side.crew or each["crew"].startswith(f"{side.crew}:")]
            wrong = next((each["error"] for each in answers if "error" in each), "" if answers else "it is not up")
            if not wrong:
                return [each["result"] for each in answers]
        except GateError as error:
            wrong = str(error)
        if time.monotonic() >= deadline:
            raise GateError(f"{side.crew}/{side.part} does not have it: {wrong}", hint="it has it once it starts anew")
        time.sleep(0.2)  # it may just be starting


def _locked(args: argparse.Namespace) -> Any:
    from cofferdam.brokers.kit.http.vault import locked
    from cofferdam.cli.gate_options import state_of

    state = state_of(args)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return locked(state)


def _tell(args: argparse.Namespace, text: str, found: dict[str, Any]) -> int:
    print(json.dumps(found) if args.json else text)
    return 0


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
    policy = _policy(args)
    done: dict[str, Any] = {}
    with _locked(args):
        for side in _sides(args, policy):
            secret = _read(args, side)
            if secret.certificate and not args.again:
                continue
            made = _make(policy.site, side, args.days)
            runs = _save(args, side, replace(secret, key=made.key, certificate=made.certificate))
            done[f"{side.crew}/{side.part}"] = {"thumbprint": mark(made.certificate), "in_use": runs}
    lines = [f"{name}: {found['thumbprint']}" for name, found in done.items()]
    return _tell(args, "\n".join(lines) or "each side has a certificate; --again makes new ones", done)


def _facts(der: bytes) -> dict[str, Any]:
    from cryptography import x509

    from cofferdam.protocols.opcua.trust import application_uri, mark

    certificate = x509.load_der_x509_certificate(der)
    until = certificate.not_valid_after_utc
    return {
        "thumbprint": mark(der),
        "subject": certificate.subject.rfc4514_string(),
        "application": application_uri(certificate),
        "until": until.isoformat(),
        "days": (until - datetime.now(UTC)).days,
    }


def _list(args: argparse.Namespace) -> int:
    found = []
    for side in _sides(args, _policy(args)):
        secret = _read(args, side)
        refused = _rejected(args, side)
        found.append({
            "side": f"{side.crew}/{side.part}",
            "words": side.words,
            "own": _facts(secret.certificate) if secret.certificate else None,
            "trusted": [_facts(der) for der in secret.trusted],
            "revoked": list(secret.revoked),
            "lists": [_list_facts(der) for der in secret.lists],
            "refused": [_facts(base64.b64decode(der)) for der in refused.values()],
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
        for word, key in (("trusts", "trusted"), ("refused", "refused")):
            for facts in one[key]:  # type: ignore[union-attr]
                print(f"  {word:8} {_line(facts)}")
        for gone in one["revoked"]:  # type: ignore[union-attr]
            print(f"  rejected {gone}")
        for facts in one["lists"]:  # type: ignore[union-attr]
            print(f"  has      {_list_line(facts)}")
        if one["users"]:
            print(f"  users    {', '.join(one['users'])}")  # type: ignore[arg-type]
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

    from cofferdam.protocols.opcua.trust import mark

    if (args.thumbprint is None) == (args.file is None):
        raise GateError("what is to be trusted?", hint="a THUMBPRINT that `pki list` shows as refused, or --file")
    sides = _sides(args, _policy(args))
    if args.file is not None and args.side is None:
        raise GateError("who is to trust it?", hint="--side outer (a client's) or --side inner (an asset's)")
    done = {}
    with _locked(args):
        for side in sides:
            der = _of_file(args.file) if args.file is not None else _refused(args, side, args.thumbprint)
            if der is None:
                continue
            secret = _read(args, side)
            known = tuple(one for one in secret.trusted if one != der)
            revoked = tuple(one for one in secret.revoked if one != mark(der))
            runs = _save(args, side, replace(secret, trusted=(*known, der), revoked=revoked))
            done[f"{side.crew}/{side.part}"] = {**_facts(der), "in_use": runs}
    if not done:
        raise GateError(
            f"nobody has refused a certificate {args.thumbprint}", hint="`cofferdam pki list` shows what was refused"
        )
    return _tell(args, "\n".join(f"{name} trusts {_line(facts)}" for name, facts in done.items()), done)


def _of_file(path: Path) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    data = path.read_bytes()
    try:
        pem = data.lstrip().startswith(b"-----")
        certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
    except ValueError as error:
        raise GateError(f"{path} is no certificate", hint="one in PEM or DER is wanted") from error
    return certificate.public_bytes(Encoding.DER)


def _of_user(path: Path) -> bytes:
    """A certificate that a user may log in by."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from cofferdam.protocols.opcua.security import LEAST_KEY_BITS, MOST_KEY_BITS

    der = _of_file(path)
    key = x509.load_der_x509_certificate(der).public_key()
    if not isinstance(key, RSAPublicKey) or not LEAST_KEY_BITS <= key.key_size <= MOST_KEY_BITS:
        raise GateError(f"the key of {path} is no RSA key of {LEAST_KEY_BITS} to {MOST_KEY_BITS} bits")
    return der


def _rejected(args: argparse.Namespace, side: Side) -> dict[str, str]:
    """What a running side has refused of late: thumbprint -> certificate, base64."""
    return {name: der for one in _ask(args, side, "rejected", {}) or [] for name, der in one.items()}


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
    with _locked(args):
        for side in _sides(args, _policy(args)):
            secret = _read(args, side)
            gone = [der for der in secret.trusted if mark(der).startswith(wanted)]
            for der in gone[:1]:
                kept = tuple(one for one in secret.trusted if one != der)
                runs = _save(args, side, replace(secret, trusted=kept, revoked=(*secret.revoked, mark(der))))
                done[f"{side.crew}/{side.part}"] = {"thumbprint": mark(der), "in_use": runs}
    if not done:
        raise GateError(f"nobody trusts a certificate {args.thumbprint}", hint="`cofferdam pki list` shows them")
    return _tell(args, "\n".join(f"{name} trusts {one['thumbprint']} no longer" for name, one in done.items()), done)


def _crl(args: argparse.Namespace) -> int:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from msgspec.structs import replace

    from cofferdam.protocols.opcua.revocation import LIST_BYTES, LISTS, issuer_of
    from cofferdam.protocols.opcua.trust import authorities

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
    with _locked(args):
        for side in _sides(args, _policy(args)):
            secret = _read(args, side)
            known = authorities(secret.trusted)
            number = issuer_of(der, known)[1]
            if number < 0:
                continue
            olds = {one: issuer_of(one, known)[0] for one in secret.lists if issuer_of(one, known)[1] == number}
            if any(old.last_update_utc > found.last_update_utc for old in olds.values()):
                raise GateError(f"{args.file} is older than the list that {side.crew}/{side.part} has")
            kept = tuple(one for one in secret.lists if one not in olds)
            if len(kept) >= LISTS:
                raise GateError(f"{side.crew}/{side.part} has {LISTS} lists already")
            runs = _save(args, side, replace(secret, lists=(*kept, der)))
            done[f"{side.crew}/{side.part}"] = {**_list_facts(der), "in_use": runs}
    if not done:
        raise GateError(
            f"{args.file} is signed by no authority that is trusted", hint="`cofferdam pki trust --file AUTHORITY`"
        )
    return _tell(args, "\n".join(f"{name} has {_list_line(one)}" for name, one in done.items()), done)


def _list_facts(der: bytes) -> dict[str, Any]:
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
    for side in _sides(args, _policy(args)):
        secret = _read(args, side)
        if secret.certificate:
            path = args.folder / f"{side.crew.replace('/', '-')}-{side.part}.der"
            path.write_bytes(secret.certificate)
            done[f"{side.crew}/{side.part}"] = str(path)
    if not done:
        raise GateError("no side has a certificate", hint="`cofferdam pki new` makes them")
    return _tell(args, "\n".join(done.values()), done)


def _csr(args: argparse.Namespace) -> int:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    args.folder.mkdir(parents=True, exist_ok=True)
    done = {}
    for side in _sides(args, _policy(args)):
        secret = _read(args, side)
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
    return _tell(args, "\n".join(done.values()), done)


def _import(args: argparse.Namespace) -> int:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from msgspec.structs import replace

    from cofferdam.protocols.opcua.trust import application_uri

    der = _of_file(args.file)
    made = x509.load_der_x509_certificate(der)
    done = {}
    with _locked(args):
        for side in _sides(args, _policy(args)):
            secret = _read(args, side)
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
            runs = _save(args, side, replace(secret, certificate=der))
            done[f"{side.crew}/{side.part}"] = {**_facts(der), "in_use": runs}
    if not done:
        raise GateError(f"{args.file} is for no key of ours", hint="`cofferdam pki csr` writes requests for them")
    return _tell(args, "\n".join(f"{name} shows {_line(facts)}" for name, facts in done.items()), done)


# --- people -------------------------------------------------------------------------------------------------------


def _ask_password(words: str) -> str:
    text = getpass.getpass(words) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    return _checked(text)


def _checked(text: str) -> str:
    if not 1 <= len(text.encode()) <= 64:
        raise GateError("a password has 1 to 64 bytes")
    return text


def _password_of(args: argparse.Namespace) -> str:
    if args.password_file is None:
        return _ask_password(f"password of {args.name}: ")
    return _checked(args.password_file.read_text().rstrip("\n"))


def _user(args: argparse.Namespace) -> int:
    from msgspec.structs import replace

    from cofferdam.protocols.opcua.trust import hash_password

    if args.remove + (args.certificate is not None) + (args.password_file is not None) > 1:
        raise GateError("one of --remove, --certificate and --password-file")
    der = b"" if args.certificate is None else _of_user(args.certificate)
    made = "" if args.remove or der else hash_password(_password_of(args), dice.token_bytes(16))
    policy, runs = _policy(args), True
    with _locked(args):
        for side in _sides(args, policy):
            if side.part == "outer":
                secret = _read(args, side)
                users, shown = dict(secret.users), dict(secret.user_certificates)
                if made:
                    users[args.name] = made
                elif der:
                    taken = next((name for name, one in shown.items() if one == der and name != args.name), "")
                    if taken:
                        raise GateError(f"that is the certificate of {taken!r} already")
                    shown[args.name] = der
                elif args.name in users or args.name in shown:
                    users.pop(args.name, None)
                    shown.pop(args.name, None)
                else:
                    raise GateError(f"there is no user {args.name!r}")
                runs = _save(args, side, replace(secret, users=users, user_certificates=shown)) and runs
    return _tell(args, f"{args.name} {'is gone' if args.remove else 'may log in'}", {"user": args.name, "in_use": runs})


def _password(args: argparse.Namespace) -> int:
    from msgspec.structs import replace

    policy = _policy(args)
    asset = policy.assets.get(args.asset)
    if asset is None or asset.security is None or not asset.security.user:
        raise GateError(f"{args.asset!r} is no asset with a user to log in as", hint="`security: {user: NAME}`")
    text, runs = _ask_password(f"password of {asset.security.user} at {args.asset}: "), True
    with _locked(args):
        for side in _sides(args, policy):
            if side.part == "inner":
                secret = _read(args, side)
                runs = _save(args, side, replace(secret, passwords={**secret.passwords, args.asset: text})) and runs
    return _tell(args, f"we log in at {args.asset} as {asset.security.user}", {"asset": args.asset, "in_use": runs})
