"""How `cofferdam jump ...` asks the parts, and shows what they say."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cofferdam.errors import GateError


def ask(args: argparse.Namespace, verb: str, part: str = "keeper", **arguments: object) -> Any:
    """The part's answer. Raises: GateError, where it says no, or several could be meant."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask as ask_gate

    answers = ask_gate(
        state_of(args), "ask-part", broker="jump", part=part, verb=verb, arguments=arguments, crew=args.crew
    )
    good = [each for each in answers if "error" not in each]
    if not good:
        first = answers[0]
        raise GateError(first["error"], hint=first.get("hint", ""))
    if len(good) > 1:
        raise GateError(
            f"several jump servers run: {', '.join(each['crew'] for each in good)}", hint="say which with --crew NAME"
        )
    return good[0]["result"]


_GO_BY: dict[str, tuple[str, ...]] = {
    "people": ("person",), "assets": ("asset",), "requests": ("id",), "sessions": ("number",), "files": ("number",),
    "blocks": ("kind", "name"),
}  # fmt: skip
"""What the keeper's lists go by."""


def ask_all(args: argparse.Namespace, verb: str) -> list[Any]:
    """All rows of a list of the keeper's, in pieces, with the word that was asked for."""
    from cofferdam.brokers.jump.lists import order

    found: list[Any] = []
    after, search = "", getattr(args, "word", None) or ""
    while some := ask(args, verb, search=search, after=after):
        found += some
        values = [some[-1][name] for name in _GO_BY[verb]]
        after = " ".join(order(one) if isinstance(one, int) else str(one) for one in values)
    return found


def show(args: argparse.Namespace, found: Any, lines: Iterable[str]) -> int:
    """Prints JSON, or lines for people."""
    from cofferdam.audit.lines import escaped

    if args.json:
        print(json.dumps(found))
    else:
        for line in lines:
            print(escaped(line))
    return 0


def add_signing(parser: argparse.ArgumentParser) -> None:
    """How something is signed."""
    signing = parser.add_mutually_exclusive_group()
    signing.add_argument("--key", type=Path, metavar="FILE", help="sign it by this OpenSSH key of yours")
    signing.add_argument("--signature", type=Path, metavar="FILE",
                         help="what `ssh-keygen -Y sign -n cofferdam-approval` made of it")  # fmt: skip


def signature(args: argparse.Namespace, statement: Callable[[], str]) -> dict[str, str]:
    """The signature that was made elsewhere, or one by a key that is here over what is to be signed."""
    import base64

    from cofferdam.brokers.kit.sshsig import SignatureRefused, dearmor
    from cofferdam.cli.ssh_signing import ssh_sign

    key: Path | None = getattr(args, "key", None)
    file: Path | None = getattr(args, "signature", None)
    try:
        if key is not None:
            text = statement()
            print(text, file=sys.stderr)
            armored = ssh_sign(key, text.encode())
        elif file is not None:
            armored = file.read_bytes()
        else:
            return {}
        return {"signature": base64.b64encode(dearmor(armored)).decode()}
    except OSError as error:
        raise GateError(f"{file} cannot be read: {error.strerror}") from None
    except SignatureRefused as refused:
        raise GateError(str(refused), hint=refused.hint) from None


def time_of(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M} UTC"
