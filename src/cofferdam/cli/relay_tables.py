"""`cofferdam relay password` and `cofferdam relay tables sql`: the relay as a client of databases.

A password is written into the state directory, for the one part that shows it, and given to that part if the gate runs.
Not here: the files (brokers.relay.vault), the SQL (brokers.relay.table_schema).
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from pathlib import Path
from typing import Any

from cofferdam.errors import GateError


def add(verbs: Any, verb: Any, parser_of: Any) -> None:
    """The words."""
    password = verb("password", "the passwords that the relay shows to databases: list them, or bring one in",
                    _password, verbs)  # fmt: skip
    password.add_argument("name", nargs="?", metavar="NAME", help="its name in the policy: `password`, or the zone's")
    password.add_argument("--file", type=Path, metavar="FILE", help="the password, on its first line; `-` for stdin "
                          "(default: ask for it)")  # fmt: skip
    tables = parser_of(verbs, "tables", "tables of a database as a way in and out")
    statements = verb("sql", "print the SQL that makes a principal's tables, and the role for them", _sql, tables)
    statements.add_argument("--for", dest="principal", required=True, metavar="PRINCIPAL", help="whose tables")
    for sub in (password, statements):
        sub.add_argument("--policy", type=Path, metavar="POLICY", help="a policy (default: the running gate's)")


def _password(args: argparse.Namespace) -> int:
    from cofferdam.brokers.relay.vault import locked
    from cofferdam.cli.gate_options import state_of
    from cofferdam.cli.relay_keys import save, sides_of, vault_of
    from cofferdam.policy.problems import nearest, one_of

    sides = sides_of(args)
    if args.name is None:
        found = [
            {"name": name, "side": f"{side.crew}/{side.part}", "there": name in vault_of(args, side).secrets.passwords}
            for side in sides for name in sorted(side.passwords)
        ]  # fmt: skip
        for row in found if not args.json else ():
            print(f"{row['name']:20} {row['side']}  {'there' if row['there'] else 'MISSING: its tables are at rest'}")
        if args.json:
            print(json.dumps(found))
        return 0
    own = [side for side in sides if args.name in side.passwords]
    if not own:
        known = sorted({name for side in sides for name in side.passwords})
        near = nearest(args.name, known)
        hint = f"did you mean {near}?" if near else f"it names {one_of(known)}" if known else "it has no tables"
        raise GateError(f"no tables of the policy have a password {args.name!r}", hint=hint)
    password = _read(args.file)
    runs = True
    with locked(state_of(args)):
        for side in own:
            vault = vault_of(args, side)
            vault.set_password(args.name, password)
            runs = save(args, side, vault) and runs
    if args.json:
        print(json.dumps({"name": args.name, "in_use": runs}))
    else:
        print(f"{args.name}: the password is there" + ("" if runs else "; it is used once the gate runs"))
    return 0


def _read(file: Path | None) -> str:
    if file is None:
        return getpass.getpass("Password: ")
    try:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GateError(f"{file} cannot be read: {error}") from None
    return text.partition("\n")[0].rstrip("\r")


def _sql(args: argparse.Namespace) -> int:
    from cofferdam.cli.relay_keys import policy_of
    from cofferdam.policy.terms.relay_rows import RelayRows, Table

    found: dict[Table, tuple[set[str], set[str]]] = {}
    for conduit in policy_of(args).conduits.values():
        row = conduit.terms
        if isinstance(row, RelayRows):
            lines = [line for line in row.lines if line.via == "table" and args.principal in line.who]
            for table in row.tables if lines else ():
                if table.zone == row.stands[args.principal]:
                    pushed, pulled = found.setdefault(table, (set(), set()))
                    pushed.update(channel for line in lines for channel in line.push)
                    pulled.update(channel for line in lines for channel in line.pull)
    if not found:
        raise GateError(f"{args.principal!r} has no tables in the policy", hint="a rule with `via: table`")
    try:
        from cofferdam.brokers.relay.table_schema import ddl
    except ImportError as error:
        raise GateError(f"tables need psycopg: {error}", hint="pip install 'cofferdam[relay]'") from None
    texts = [ddl(table, pushed, pulled) for table, (pushed, pulled) in found.items()]
    print(json.dumps(texts) if args.json else "\n".join(texts), end="" if not args.json else "\n")
    return 0
