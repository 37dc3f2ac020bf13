"""`cofferdam install`: writes the systemd units of the gate, and the rules that close its interfaces without it."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from pathlib import Path

from cofferdam.errors import GateError

POLICY, STATE = Path("/etc/cofferdam/policy.yaml"), Path("/var/lib/cofferdam")
OPERATORS = "cofferdam-operators"
"""The group that the Debian package makes."""
NEXT = "systemctl daemon-reload && systemctl enable --now cofferdam-shut cofferdam"


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument(
        "policy", metavar="POLICY", type=Path, nargs="?", default=POLICY, help=f"the policy (default: {POLICY})"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", default=Path("/"), help="write below this folder")
    parser.add_argument("--program", metavar="PATH", help="the cofferdam command in the unit (default: this one)")
    parser.add_argument("--print", action="store_true", dest="show", help="print the files, and write none")
    parser.add_argument(
        "--look", metavar="GROUP",
        help=f"members of this group may ask the gate for status, without being root (default: {OPERATORS}, where "
        "there is such a group; an empty word: nobody)",
    )  # fmt: skip
    parser.add_argument("--sever", metavar="GROUP", help="members of this group may look, and sever as well")
    add_state(parser)
    add_json(parser, "Install | dict[str, str]")
    parser.epilog = f"Then: {NEXT}. To be run again when the policy names other interfaces."


def run(args: argparse.Namespace) -> int:
    from cofferdam.enforce import doors
    from cofferdam.enforce.installing import files, write

    # Not resolved: a virtual environment's program is known by its own name.
    beside = Path(sys.executable).with_name("cofferdam")
    program = args.program or (str(beside) if beside.exists() else shutil.which("cofferdam")) or ""
    if not program.startswith("/"):
        raise GateError("the cofferdam command was not found", hint="name it with --program")
    state: Path = (args.state or STATE).absolute()
    look = args.look
    if look is None:
        with contextlib.suppress(GateError):
            doors.group(OPERATORS)
            look = OPERATORS
    groups = {role: name for role, name in (("look", look), ("sever", args.sever)) if name}
    found = files(args.policy.absolute(), state, program, groups)
    if args.show:
        if args.json:
            print(json.dumps(found))
        else:
            for path, text in found.items():
                print(f"# --- {path}\n{text}")
        return 0
    written, same = write(found, state, args.root)
    if args.json:
        print(json.dumps({"written": list(map(str, written)), "unchanged": list(map(str, same))}))
    else:
        for target in written:
            print(f"wrote {target}")
        for target in same:
            print(f"unchanged: {target}")
        if args.root == Path("/"):
            print(f"next: {NEXT}")
    return 0
