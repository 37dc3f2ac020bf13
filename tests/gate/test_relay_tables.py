"""A relay with tables in a gate that was started as a user starts it: SQL and password by the command line, messages in
the office's database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.brokers.relay.test_tables import PASSWORD, Server, server
from tests.gate.test_relay import COUNTS, Works
from tests.services import needs_postgres
from tests.waiting import eventually

pytestmark = needs_postgres
__all__ = ["server"]


@pytest.fixture
def office(server: Server, tmp_path: Path) -> Iterator[tuple[Works, str]]:
    """A gate whose ERP pulls by a table, and how its owner gets to the database."""
    dsn = server.made.fresh()
    database = dsn.split("dbname=")[1].split()[0]
    made = Works(tmp_path)
    text = made.policy.read_text().replace("erp, pull: counts", "erp, pull: counts, via: table")
    at = f'tables: {{office: {{at: "127.0.0.1:{server.made.port}", database: {database}, role: relay-of-erp}}}}'
    made.policy.write_text(text.replace("    channels:\n", f"    {at}\n    channels:\n"))
    try:
        made.gate.wait_ready()
        yield made, dsn
        assert made.gate.stop() == 0
    finally:
        made.gate.close()


def test_from_the_sql_to_the_inbox(office: tuple[Works, str]) -> None:
    works, dsn = office
    eventually(lambda: "there is no password: `cofferdam relay password office`" in works.alarms())
    assert "MISSING" in works.relay("password")
    assert "has no tables in the policy" in works.relay("tables", "sql", "--for", "mes", code=2)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(works.relay("tables", "sql", "--for", "erp"))
        conn.execute(f"alter role \"relay-of-erp\" password '{PASSWORD}'")
    (works.folder / "password").write_text(PASSWORD + "\n")
    assert "did you mean office" in works.relay("password", "ofice", "--file", str(works.folder / "password"), code=2)
    said = works.relay("password", "office", "--file", str(works.folder / "password"))
    assert said == "office: the password is there\n"
    for path in (works.state / "secrets").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert "there" in works.relay("password") and "MISSING" not in works.relay("password")
    with works.client("mes", works.key("mes")) as mes, psycopg.connect(dsn, autocommit=True) as conn:
        for number in range(3):
            assert mes.put(f"{COUNTS}/messages/m{number}", json={"n": number}).status_code == 201
        rows = "select number, key, body from cofferdam.inbox order by number"
        eventually(lambda: [row[0] for row in conn.execute(rows).fetchall()] == [1, 2, 3])
        assert conn.execute(rows).fetchall()[2] == (3, "m2", {"n": 2})
    eventually(lambda: "erp: settled" in works.relay("show", "counts", "3"))  # after the row is there
    eventually(lambda: "office-inbox" not in works.alarms())
    halves = {half["role"]: half for pair in works.gate.status()["pairs"] for half in pair["halves"]}
    assert list(halves) == ["outer", "outer-tables", "keeper", "inner"]
