"""`cofferdam schema`: prints the JSON Schema of the policy file, for editors, or of what a command prints as JSON."""

from __future__ import annotations

import argparse
import json

from cofferdam.cli.gate_options import add_json
from cofferdam.errors import CofferdamError


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="WHAT",
        nargs="*",
        help="of what: the policy file (default), a field of it (asset.points), what a verb prints with --json (check, "
        "grant list, ...), an entry of the audit log (entry), an error of any verb (error)",
    )
    parser.add_argument("--list", action="store_true", help="of what there are schemas")
    add_json(parser, "dict[str, Any]", text="print JSON, as without it but for --list and errors")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "In an editor with the YAML language server, put this at the top of a policy:\n"
        "# yaml-language-server: $schema=policy.schema.json"
    )


def run(args: argparse.Namespace) -> int:
    what = " ".join(args.what) or "policy"
    if what == "policy" and not args.list:
        from cofferdam.policy.reference import schema_text

        print(schema_text(), end="")
        return 0
    from cofferdam.cli.json_schemas import known, schema_of
    from cofferdam.policy.problems import nearest

    there = known()
    if args.list:
        names = ("policy", *sorted(there))
        print(json.dumps({"names": names}) if args.json else "\n".join(names))
        return 0
    if what in there:
        print(json.dumps(schema_of(what, there[what]), indent=1))
        return 0
    from cofferdam.policy.reference import part_of

    try:
        part = part_of(what)
    except LookupError as error:
        number, fields = error.args
        words = what.split(".")
        words[number] = nearest(words[number], fields)
        hint = ".".join(words) if words[number] else nearest(what, there)
        raise CofferdamError(
            f"there is no schema of {what!r}", hint=f"did you mean {hint}?" if hint else "cofferdam schema --list"
        ) from None
    print(json.dumps(part, indent=1, ensure_ascii=False))
    return 0
