"""How `cofferdam jump ...` asks the parts, and shows what they say."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from datetime import UTC, datetime
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


def show(args: argparse.Namespace, found: Any, lines: Iterable[str]) -> int:
    """Prints JSON, or lines for people."""
    from cofferdam.audit.lines import escaped

    if args.json:
        print(json.dumps(found))
    else:
        for line in lines:
            print(escaped(line))
    return 0


def time_of(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M} UTC"
