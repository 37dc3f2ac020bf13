"""The tables of a site's database that are a way in and out: what they have to be, and the SQL that makes them.

An outbox has a row for each message; `done` says when the relay was finished with it. An inbox has a row for each
message, with its number in the channel. The position knows which numbers have been written there, so that a row may be
deleted once it has been worked on.

Not here: what is done with them (table_work).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from psycopg import AsyncConnection, sql

from cofferdam.policy.terms.relay_rows import Changes, Table

_TEXT: Final = ("text", "character varying")
_BODY: Final = ("json", "jsonb", "text")
_TIME: Final = ("timestamp with time zone",)
_NUMBER: Final = ("bigint",)
OUTBOX: Final = {
    "id": ("bigint", "integer"), "channel": _TEXT, "key": _TEXT, "body": _BODY, "done": _TIME, "outcome": _TEXT,
    "number": _NUMBER, "problem": _TEXT,
}  # fmt: skip
INBOX: Final = {
    "channel": _TEXT, "number": _NUMBER, "who": _TEXT, "key": _TEXT, "sha256": _TEXT, "at": _TIME, "body": _BODY,
}  # fmt: skip
POSITION: Final = {"channel": _TEXT, "number": _NUMBER, "missing": ("bigint[]",), "newest": _NUMBER}
MARKED: Final = ("done", "outcome", "number", "problem")
"""What the relay writes into the outbox."""
COMPARED: Final = ("channel", "number", "sha256")
"""What it reads of the inbox."""
HINT: Final = "cofferdam_outbox"
"""On which the outbox notifies. A hint: the relay looks every second all the same."""
_FROM: Final = (
    "FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped"
)
_UNIQUE: Final = (
    "SELECT 1 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = %s AND c.relname = %s AND i.indisunique AND i.indisvalid AND i.indimmediate"
    " AND i.indpred IS NULL AND (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attname)"
    " FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY(i.indkey)) = %s"
)


def named(table: str) -> sql.Identifier:
    """SCHEMA.TABLE, quoted."""
    return sql.Identifier(*table.split(".", 1))


async def _differs(
    conn: AsyncConnection[Any], table: str, columns: dict[str, tuple[str, ...]], rights: dict[str, Iterable[str]],
    unique: tuple[str, ...] = (),
) -> list[str]:  # fmt: skip
    schema, name = table.split(".", 1)
    cursor = await conn.execute(f"SELECT a.attname, pg_catalog.format_type(a.atttypid, NULL) {_FROM}", (schema, name))
    found = dict(await cursor.fetchall())
    if not found:
        return [f"{table}: there is no such table"]
    wrong = [
        f"{table}.{column}: there is no such column, expected {kinds[0]}"
        if column not in found
        else f"{table}.{column} is {found[column]}, expected {' or '.join(kinds)}"
        for column, kinds in columns.items()
        if found.get(column) not in kinds
    ]
    if unique and not await (await conn.execute(_UNIQUE, (schema, name, sorted(unique)))).fetchone():
        wrong.append(f"{table} has no unique key ({', '.join(unique)})")
    may = "pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_column_privilege(c.oid, a.attnum, %s)"
    for right, wanted in rights.items():
        cursor = await conn.execute(
            f"SELECT a.attname {_FROM} AND a.attname = ANY(%s) AND NOT ({may})", (schema, name, list(wanted), right)
        )
        wrong += [f"{table}.{column}: the role lacks the right to {right}" for (column,) in await cursor.fetchall()]
    return wrong


async def outbox_differs(conn: AsyncConnection[Any], table: Table) -> list[str]:
    """What of the outbox is not as it has to be, column by column."""
    read = ("id", "channel", "key", "body", "done")
    return await _differs(conn, table.outbox, OUTBOX, {"SELECT": read, "UPDATE": MARKED})


async def inbox_differs(conn: AsyncConnection[Any], table: Table) -> list[str]:
    """What of the inbox and its position is not as it has to be, column by column."""
    inbox = await _differs(
        conn, table.inbox, INBOX, {"SELECT": COMPARED, "INSERT": INBOX}, ("channel", "number")
    )  # fmt: skip
    every = dict.fromkeys(("SELECT", "INSERT", "UPDATE"), POSITION)
    return inbox + await _differs(conn, table.position, POSITION, {**every}, ("channel",))


def changes_functions(table: Table, changes: Changes) -> tuple[str, str]:
    """The functions by which the relay reaches a replication slot: one reads, one moves it on."""
    schema = table.outbox.split(".", 1)[0]
    return f"{schema}.{changes.slot}_peek", f"{schema}.{changes.slot}_advance"


async def changes_schema(conn: AsyncConnection[Any], table: Table, changes: Changes) -> list[str]:
    """What of a table of the site's own is not as it has to be: there it must be, and nothing else is asked of it."""
    return await _differs(conn, changes.table, {}, {})


# --- SQL --------------------------------------------------------------------------------------------------------


def _quoted(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split(".", 1))


def ddl(table: Table, pushed: Iterable[str], pulled: Iterable[str], own: Sequence[Changes] = ()) -> str:
    """The SQL that makes the tables of a database, and the role, which may do with them what the relay does and no
    more. To be run by whoever owns the database. `pushed`, `pulled`: the channels; `own`: those of them that come from
    tables of the site's."""
    role = '"' + table.role.replace('"', '""') + '"'
    into, out = sorted(set(pushed) - {each.channel for each in own}), sorted(pulled)
    used = [*([table.outbox] if into or own else []), *([table.inbox, table.position] if out else [])]
    schemas = sorted({name.split(".", 1)[0] for name in used})
    lines = [f"-- The relay's tables in {table.at}.", "BEGIN;"]
    lines += [f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)};" for schema in schemas]
    lines += [
        f"CREATE ROLE {role} LOGIN NOINHERIT CONNECTION LIMIT {2 * (bool(into) + len(own) + len(out))};",
        f"-- Its password: \\password {role}, and the same with `cofferdam relay password {table.password}`.",
        *(f"GRANT USAGE ON SCHEMA {_quoted(schema)} TO {role};" for schema in schemas),
    ]
    if into:
        outbox, schema = _quoted(table.outbox), _quoted(table.outbox.split(".", 1)[0])
        lines += [
            "",
            f"-- The outbox, for {', '.join(into)}. Insert channel and body, and a key that is the message's own if",
            "-- there is one. The relay writes done and outcome: 'stored' (number is the message's), 'quarantined' or",
            "-- 'refused' (problem says why). Rows with done may be deleted.",
            f"CREATE TABLE {outbox} (",
            "    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,",
            "    channel text NOT NULL,",
            "    key text NOT NULL DEFAULT gen_random_uuid()::text,",
            "    body json NOT NULL,",
            "    at timestamptz NOT NULL DEFAULT now(),",
            "    done timestamptz,",
            "    outcome text,",
            "    number bigint,",
            "    problem text,",
            "    UNIQUE (channel, key)",
            ");",
            f"CREATE INDEX ON {outbox} (channel, id) WHERE done IS NULL;",
            f"CREATE FUNCTION {schema}.outbox_hint() RETURNS trigger LANGUAGE plpgsql AS",
            f"    $$BEGIN PERFORM pg_notify('{HINT}', ''); RETURN NULL; END$$;",
            f"CREATE TRIGGER hint AFTER INSERT ON {outbox} FOR EACH STATEMENT EXECUTE FUNCTION {schema}.outbox_hint();",
            f"GRANT SELECT, UPDATE ({', '.join(MARKED)}) ON {outbox} TO {role};",
        ]
    if out:
        inbox, position = _quoted(table.inbox), _quoted(table.position)
        lines += [
            "",
            f"-- The inbox, for {', '.join(out)}. Each message is inserted once; rows may be deleted.",
            f"CREATE TABLE {inbox} (",
            "    channel text NOT NULL,",
            "    number bigint NOT NULL,",
            "    who text NOT NULL,",
            "    key text NOT NULL,",
            "    sha256 text NOT NULL,",
            "    at timestamptz NOT NULL,",
            "    body json NOT NULL,",
            "    arrived timestamptz NOT NULL DEFAULT now(),",
            "    PRIMARY KEY (channel, number)",
            ");",
            "-- What has been inserted, whether or not it is still there: up to number, without what is missing.",
            "-- newest: when the relay had the newest of it, in ns since 1970.",
            f"CREATE TABLE {position} (",
            "    channel text PRIMARY KEY,",
            "    number bigint NOT NULL,",
            "    missing bigint[] NOT NULL,",
            "    newest bigint NOT NULL",
            ");",
            f"GRANT INSERT, SELECT ({', '.join(COMPARED)}) ON {inbox} TO {role};",
            f"GRANT SELECT, INSERT, UPDATE ON {position} TO {role};",
        ]
    after = []
    for each in own:
        lines += ["", *_publication(table, each, role)]
        after.append(f"SELECT pg_create_logical_replication_slot('{each.slot}', 'pgoutput');")
    if own:
        after = [
            "",
            "-- In postgresql.conf, and a restart: wal_level = logical. And a bound (max_slot_wal_keep_size = 10GB),",
            "-- so that what is kept for a relay that is away cannot fill the disk. The relay loses what is beyond.",
            "-- From here on the database keeps its log for the relay:",
            *after,
        ]
    return "\n".join([*lines, "COMMIT;", *after]) + "\n"


def _publication(table: Table, changes: Changes, role: str) -> list[str]:
    """The table stays as it is. The two functions have the rights of who makes them, who may replicate; the role may
    call them, and so read this publication and nothing else."""
    peek, advance = (_quoted(name) for name in changes_functions(table, changes))
    slot = changes.slot
    lines = [f"-- {changes.table}, whose rows are {changes.channel}. To be run by a superuser, or who may replicate."]
    if "update" in changes.on:
        lines.append("-- It needs a primary key or a replica identity: else its own updates fail from here on.")
    return [
        *lines,
        f"CREATE PUBLICATION {slot} FOR TABLE {_quoted(changes.table)}",
        f"    WITH (publish = '{', '.join(changes.on)}', publish_via_partition_root = true);",
        f"CREATE FUNCTION {peek}(integer) RETURNS SETOF bytea LANGUAGE sql SECURITY DEFINER",
        "    SET search_path = pg_catalog, pg_temp AS",
        f"    $$SELECT data FROM pg_logical_slot_peek_binary_changes('{slot}', NULL, $1,",  # noqa: S608 - [a-z0-9_]
        f"        'proto_version', '1', 'publication_names', '{slot}')$$;",
        f"CREATE FUNCTION {advance}(pg_lsn) RETURNS void LANGUAGE sql SECURITY DEFINER",
        f"    SET search_path = pg_catalog, pg_temp AS $$SELECT pg_replication_slot_advance('{slot}', $1)$$;",
        f"REVOKE ALL ON FUNCTION {peek}(integer), {advance}(pg_lsn) FROM PUBLIC;",
        f"GRANT EXECUTE ON FUNCTION {peek}(integer), {advance}(pg_lsn) TO {role};",
    ]
