"""Options that the verbs around the running gate share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_state(parser: argparse.ArgumentParser) -> None:
    """--state DIR."""
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="the gate's state directory (default: /var/lib/cofferdam as root, or in a group that its gate lets ask; "
        "else ~/.local/state/cofferdam)",
    )


def add_reason(parser: argparse.ArgumentParser) -> None:
    """--reason TEXT: as much of it as an entry holds. Whatever is wrong with the words, nobody's cut waits for that."""
    parser.add_argument("--reason", default="", type=_as_recorded, help="why, for the record")


def _as_recorded(text: str) -> str:
    from cofferdam.audit.events.base import clip

    return clip(text)


def add_json(
    parser: argparse.ArgumentParser, prints: str, module: str = "cofferdam.cli.json_shapes", text: str = "print JSON"
) -> None:
    """--json. `prints`: the type of what is printed then, as an annotation that holds in `module`, which is loaded when
    its schema is asked for alone (cli.json_schemas)."""
    parser.add_argument("--json", action="store_true", help=text)
    parser.set_defaults(prints=(module, prints))


def print_text(args: argparse.Namespace, form: str, text: str) -> None:
    """A text that is the verb's whole answer; with --json within an object (json_shapes.Text)."""
    print(json.dumps({"form": form, "text": text}) if args.json else text.removesuffix("\n"))


def state_of(args: argparse.Namespace, *, own: bool = False) -> Path:
    """The state directory, absolute. `own`: this user's, also where root's gate would let them ask."""
    from cofferdam.gate.state import default_state

    state: Path = args.state if args.state is not None else default_state(own=own)
    return state.absolute()
