"""`cofferdam relay tables sql`, and the parts of the relay that have keys, certificates and passwords.

Not here: what is done with those (cli.keys), the SQL (brokers.relay.table_schema).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofferdam.cli import keys
from cofferdam.errors import GateError, extra

if TYPE_CHECKING:
    from cofferdam.policy.table import CompiledPolicy


def _sides(policy: CompiledPolicy, crew: str) -> list[keys.Side]:
    from cofferdam.gate.crew.plan import plan_crews
    from cofferdam.policy.terms.relay import INNER, INNER_TABLES, OUTER, OUTER_NATS, OUTER_TABLES
    from cofferdam.policy.terms.relay_rows import RelayRows

    found = []
    for plan in plan_crews(policy).values():
        if plan.broker != "relay" or crew not in ("", plan.name):
            continue
        rows = [row for name in plan.conduits if isinstance(row := policy.conduits[name].terms, RelayRows)]
        for part in (OUTER, INNER):
            zones = {row.outer if part == OUTER else row.inner for row in rows}
            who = {name for row in rows for name, zone in row.stands.items() if zone in zones}
            tls = {door.tls for row in rows for door in row.doors if door.zone in zones and door.tls}
            found.append(keys.Side(plan.base, part, frozenset(who), frozenset(tls)))
        for part in (OUTER_TABLES, INNER_TABLES, OUTER_NATS):
            zones = set(plan.parts[part].zones) if part in plan.parts else set()
            names = {table.password for row in rows for table in row.tables if table.zone in zones}
            if part == OUTER_NATS:
                names = {hub.password for row in rows for hub in row.nats if hub.zone in zones and hub.user}
            if zones:
                found.append(keys.Side(plan.base, part, passwords=frozenset(names)))
    return found


KEYS = keys.Keys("relay", ("push", "pull", "browse"), "channel", _sides, "API keys of those who push and pull")


def add(verbs: Any, verb: Any, parser_of: Any) -> None:
    """The words."""
    keys.add_keys(KEYS, parser_of(verbs, "key", KEYS.why), verb)
    keys.add_certificate(KEYS, verbs, verb)
    keys.add_password(KEYS, verbs, verb)
    tables = parser_of(verbs, "tables", "tables of a database as a way in and out")
    statements = verb(
        "sql", "print the SQL that makes a principal's tables, and the role for them", _sql, "list[str]", tables
    )
    statements.add_argument("--for", dest="principal", required=True, metavar="PRINCIPAL", help="whose tables")
    statements.add_argument("--policy", type=Path, metavar="POLICY", help="a policy (default: the running gate's)")


def _sql(args: argparse.Namespace) -> int:
    from cofferdam.policy.terms.relay_rows import Changes, RelayRows, Table

    found: dict[Table, tuple[set[str], set[str], set[Changes]]] = {}
    for conduit in keys.policy_of(args).conduits.values():
        row = conduit.terms
        if isinstance(row, RelayRows):
            lines = [line for line in row.lines if line.via == "table" and args.principal in line.who]
            for table in row.tables if lines else ():
                if table.zone == row.stands[args.principal]:
                    pushed, pulled, own = found.setdefault(table, (set(), set(), set()))
                    pushed.update(channel for line in lines for channel in line.push)
                    pulled.update(channel for line in lines for channel in line.pull)
                    own.update(each for each in row.changes if each.zone == table.zone and each.channel in pushed)
    if not found:
        raise GateError(f"{args.principal!r} has no tables in the policy", hint="a rule with `via: table`")
    try:
        from cofferdam.brokers.relay.table_schema import ddl
    except ImportError as error:
        raise GateError(f"tables need psycopg: {error}", hint=extra("relay")) from None
    texts = [
        ddl(table, pushed, pulled, sorted(own, key=lambda each: each.channel))
        for table, (pushed, pulled, own) in found.items()
    ]
    print(json.dumps(texts) if args.json else "\n".join(texts), end="" if not args.json else "\n")
    return 0
