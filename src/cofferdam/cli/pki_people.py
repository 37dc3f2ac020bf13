"""`cofferdam pki user|password|identity`: who may log in, and as whom we do at assets. See pki."""

from __future__ import annotations

import argparse
import getpass
import secrets as dice
import sys
from datetime import UTC, datetime
from pathlib import Path

from cofferdam.cli.pki_sides import (
    Identity,
    facts_of,
    locked,
    logs_in,
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


def _of_user(path: Path) -> bytes:
    """A certificate that a user may log in by."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from cofferdam.protocols.opcua.security import LEAST_KEY_BITS, MOST_KEY_BITS

    der = of_file(path)
    key = x509.load_der_x509_certificate(der).public_key()
    if not isinstance(key, RSAPublicKey) or not LEAST_KEY_BITS <= key.key_size <= MOST_KEY_BITS:
        raise GateError(f"the key of {path} is no RSA key of {LEAST_KEY_BITS} to {MOST_KEY_BITS} bits")
    return der


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


def user(args: argparse.Namespace) -> int:
    from msgspec.structs import replace

    from cofferdam.protocols.opcua.trust import hash_password

    if args.remove + (args.certificate is not None) + (args.password_file is not None) > 1:
        raise GateError("one of --remove, --certificate and --password-file")
    der = b"" if args.certificate is None else _of_user(args.certificate)
    made = "" if args.remove or der else hash_password(_password_of(args), dice.token_bytes(16))
    known, runs = policy_of(args), True
    with locked(args):
        for side in sides_of(args, known):
            if side.part == "outer":
                secret = read(args, side)
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
                runs = save(args, side, replace(secret, users=users, user_certificates=shown)) and runs
    return tell(args, f"{args.name} {'is gone' if args.remove else 'may log in'}", {"user": args.name, "in_use": runs})


def password(args: argparse.Namespace) -> int:
    from msgspec.structs import replace

    known = policy_of(args)
    asset = known.assets.get(args.asset)
    if asset is None or asset.security is None or not asset.security.user:
        raise GateError(f"{args.asset!r} is no asset with a user to log in as", hint="`security: {user: NAME}`")
    text, runs = _ask_password(f"password of {asset.security.user} at {args.asset}: "), True
    with locked(args):
        for side in sides_of(args, known):
            if logs_in(side, known, args.asset):
                secret = read(args, side)
                runs = save(args, side, replace(secret, passwords={**secret.passwords, args.asset: text})) and runs
    return tell(args, f"we log in at {args.asset} as {asset.security.user}", {"asset": args.asset, "in_use": runs})


def identity(args: argparse.Namespace) -> int:
    """A key and a certificate of our own, by which we log in at an asset."""
    from msgspec.structs import replace

    from cofferdam.protocols.opcua import pki

    known = policy_of(args)
    asset = known.assets.get(args.asset)
    if asset is None or asset.security is None or asset.security.login != "certificate":
        raise GateError(f"{args.asset!r} is no asset that we log in at so", hint="`security: {login: certificate}`")
    if (args.key is None) != (args.certificate is None):
        raise GateError("a key and its certificate go together", hint="--key FILE --certificate FILE, or neither")
    if args.key is not None:
        with sensible(args.key):
            made = pki.login_of(args.key.read_bytes(), _of_user(args.certificate))
    else:
        made = pki.login(known.site, args.asset, datetime.now(UTC), DAYS)
    runs = True
    with locked(args):
        for side in sides_of(args, known):
            if logs_in(side, known, args.asset):
                secret = read(args, side)
                identities = {**secret.identities, args.asset: made}
                runs = save(args, side, replace(secret, identities=identities)) and runs
    if args.export is not None:
        args.export.write_bytes(made[1])
    found: Identity = {"asset": args.asset, **facts_of(made[1]), "in_use": runs}
    return tell(args, f"we log in at {args.asset} by the certificate {found['thumbprint']}", found)
