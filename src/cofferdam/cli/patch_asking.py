"""How the verbs of the patch relay ask its parts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from cofferdam.errors import GateError

LONG_SECONDS: Final = 600.0
"""For what reads whole files."""


def ask_part(args: argparse.Namespace, part: str, verb: str, **arguments: object) -> tuple[str, Any]:
    """(crew, answer) of the one patch relay that runs. Raises: GateError."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    answers: list[dict[str, Any]] = ask(
        state_of(args), "ask-part", broker="patch", part=part, verb=verb, arguments=arguments, crew=args.crew,
        seconds=LONG_SECONDS,
    )  # fmt: skip
    good = [each for each in answers if "error" not in each]
    if len(good) > 1:
        crews = ", ".join(each["crew"] for each in good)
        raise GateError(f"several patch relays run: {crews}", hint="say which with --crew NAME")
    return good[0]["crew"], good[0]["result"]


def claim_of(row: dict[str, Any]) -> dict[str, str]:
    """Which file is meant, for what the gate vouches for: as who asks was shown it."""
    return {"what": f"{row['product']}/{row['version']}/{row['file']}", "sha256": row["sha256"]}


def print_told(args: argparse.Namespace, found: Any, lines: Iterable[str]) -> int:
    """As JSON, or line by line, harmless to a terminal."""
    from cofferdam.audit.lines import escaped

    if args.json:
        print(json.dumps(found))
    else:
        for line in lines:
            print(escaped(line))
    return 0


def time_of(ns: int) -> str:
    """A time in UTC ns, for people."""
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M} UTC"
