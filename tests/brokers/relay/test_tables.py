"""The relay and a real PostgreSQL: outbox and inbox by a real part under its filter, by TLS and SCRAM, and all that
goes wrong with a database."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from cofferdam.audit.events.http import KeysSet
from cofferdam.brokers.kit.http.keys import Secrets
from cofferdam.brokers.kit.supervision import SetSevered
from cofferdam.cli.main import main
from tests import services
from tests.brokers.relay.certificates import make
from tests.brokers.relay.crew import FILES, TABLES, RunningCrew, crew, policy_text
from tests.services import Postgres, needs_postgres
from tests.waiting import PATIENT, eventually

pytestmark = [needs_postgres, pytest.mark.heavy]
NUMBERS = itertools.count(1)
PASSWORD = "three words and 1"
OURS = "select count(*) from pg_stat_activity where application_name = 'cofferdam' and usename = %s"
"""Sessions of a relay: one for its outbox, one for each inbox."""


class Server:
    """A cluster that lets the relay's roles in by TLS and SCRAM alone, and can be stopped and started."""

    def __init__(self, made: Postgres) -> None:
        assert services.POSTGRES_BIN is not None
        self.made = made
        self.data = made.folder / "data"
        user = services._unprivileged()
        self._as: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        certificate = make("postgres.plant")
        for name, content in (("server.crt", certificate.pem), ("server.key", certificate.key)):
            (self.data / name).write_bytes(content)
            (self.data / name).chmod(0o600)
            if user is not None:
                os.chown(self.data / name, user.pw_uid, user.pw_gid)
        (self.data / "pg_hba.conf").write_text(
            f"local all all trust\nhost all {services.USER} 127.0.0.1/32 trust\nhostssl all all all scram-sha-256\n"
        )
        with psycopg.connect(made.dsn(), autocommit=True) as conn:
            conn.execute("alter system set ssl = on")
            conn.execute("select pg_reload_conf()")

    def _ctl(self, *words: str) -> None:
        assert services.POSTGRES_BIN is not None
        command = [str(services.POSTGRES_BIN / "pg_ctl"), "-D", str(self.data), "-w", "-t", f"{PATIENT:.0f}", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.made.folder, **self._as)

    def stop(self) -> None:
        """As if its power had failed."""
        self._ctl("stop", "-m", "immediate")

    def start(self) -> None:
        options = (
            f"-p {self.made.port} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=50 -c wal_level=logical"
        )
        self._ctl("start", "-l", str(self.made.folder / "log2"), "-o", f"{options} -k {self.made.folder}")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with services.postgres() as made:
        found = Server(made)
        eventually(lambda: _tls(made))
        try:
            yield found
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                found.stop()


def _tls(made: Postgres) -> bool:
    with psycopg.connect(made.dsn()) as conn:
        row = conn.execute("show ssl").fetchone()
        return row is not None and row[0] == "on"


class Mes:
    """The MES's database, as its owner sees it."""

    def __init__(self, server: Server, folder: Path, **words: str) -> None:
        self.server = server
        self.dsn = server.made.fresh()
        self.role = f"relay{next(NUMBERS)}"
        database = self.dsn.split("dbname=")[1].split()[0]
        at = f'at: "127.0.0.1:{server.made.port}", database: {database}, role: {self.role}'
        tables = f"tables: {{plant: {{{at}}}}}"
        if own := words.pop("changes", ""):
            words["counts_tables"] = f"tables: {{plant: {{{at}{own}}}}}"
        self.words = {"tables": tables, "via": ", via: table", **words}
        self.slot = ""
        if before := self.words.pop("before", ""):
            self.run(before)
        self.sql = self._printed(folder)
        self.run_each(self.sql)
        self.run(f"alter role {self.role} password '{PASSWORD}'")

    def _printed(self, folder: Path) -> str:
        """What `cofferdam relay tables sql` says."""
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        path = folder / "policy.yaml"
        path.write_text(policy_text(self.words, outer=1, inner=2))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main(["relay", "tables", "sql", "--for", "mes", "--policy", str(path)]) == 0
        return out.getvalue()

    def run(self, text: str, *values: Any) -> list[Any]:
        """One statement or several, committed."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            cursor = conn.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []

    def run_each(self, script: str) -> None:
        """As psql does with a script: what follows COMMIT is no part of the transaction."""
        inside, end, after = script.partition("COMMIT;")
        self.run(inside + end)
        for statement in (line for line in after.splitlines() if line.startswith("SELECT")):
            self.run(statement)

    def put(self, count: int, first: int = 0) -> None:
        self.run(
            "insert into cofferdam.outbox (channel, key, body) select 'counts', 'c' || i,"
            " json_build_object('line', 'L1', 'n', i) from generate_series(%s::int, %s::int) i",
            first, first + count - 1,
        )  # fmt: skip

    def booked(self) -> list[int]:
        """The numbers in the inbox."""
        return [row[0] for row in self.run("select number from cofferdam.inbox order by number")]

    def left(self) -> int:
        return int(self.run("select count(*) from cofferdam.outbox where done is null")[0][0])


@pytest.fixture
def mes(server: Server, tmp_path: Path) -> Mes:
    return Mes(server, tmp_path, orders="lease: 1 s\n        tries: 1000\n        order: parallel 50")


@pytest.fixture(scope="module")
def plant(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Mes:
    folder = tmp_path_factory.mktemp("plant")
    return Mes(server, folder, orders="lease: 1 s\n        tries: 1000\n        order: parallel 50")


@pytest.fixture(scope="module")
def runs(plant: Mes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCrew]:
    """A crew for all tests that leave it as it was, but for what they have sent."""
    with crew(tmp_path_factory.mktemp("crew") / "store", passwords={"plant": PASSWORD}, words=plant.words) as made:
        yield made
        made.ends_well()


@pytest.fixture
def works(mes: Mes, tmp_path: Path) -> Iterator[RunningCrew]:
    with crew(tmp_path / "store", passwords={"plant": PASSWORD}, words=mes.words) as made:
        yield made


def order(works: RunningCrew, count: int, first: int = 0) -> None:
    """The ERP orders, by HTTP. A crew that is just being born again is asked again, under the same ids."""
    lines = "".join(f'{{"id": "o{i}", "data": {{"quantity": 5}}}}\n' for i in range(first, first + count))
    with works.client("erp") as erp:
        answer = erp.post(
            "/v1/channels/orders/messages", content=lines, headers={"content-type": "application/x-ndjson"}
        )
        assert answer.status_code == 200, answer.text
        assert answer.text.count('"status":201') == count, answer.text


def counts(works: RunningCrew) -> list[Any]:
    """All that the data lake sees in the channel, in order."""
    with works.client("lake") as lake:
        return list(lake.get("/v1/channels/counts/messages", params={"max": 1000}).json()["messages"])


def lag(works: RunningCrew) -> int:
    """How many orders the MES has before it."""
    channels = msgspec.json.decode(works.ask("keeper", "status", {"by": "root"}).result)["channels"]
    (orders,) = (channel for channel in channels if channel["channel"] == "orders")
    return int(orders["consumers"][0]["lag"])


def alarms(works: RunningCrew) -> dict[str, str]:
    return dict(works.children[TABLES].status().alarms)


def says(works: RunningCrew, *words: str) -> bool:
    found = " ".join(alarms(works).values())
    return all(word in found for word in words)


def test_both_ways(runs: RunningCrew, plant: Mes) -> None:
    plant.put(700)
    order(runs, 120)
    eventually(lambda: plant.left() == 0 and plant.booked() == list(range(1, 121)))
    rows = plant.run("select key, outcome, number, problem from cofferdam.outbox order by id")
    assert [row[2] for row in rows] == list(range(1, 701))
    assert {row[1] for row in rows} == {"stored"}
    assert [one["data"]["n"] for one in counts(runs)] == list(range(700))
    key, who, body, sha256 = plant.run("select key, who, body, sha256 from cofferdam.inbox where number = 7")[0]
    assert (key, who, body) == ("o6", "erp", {"quantity": 5, "site": "works"})
    assert len(sha256) == 64
    assert plant.run("select number, missing from cofferdam.position") == [(120, [])]
    # The part counts what the database has told it, a little later than whoever looks there.
    eventually(lambda: runs.children[TABLES].status().figures["table_rows_taken"] == {"": 700})
    eventually(lambda: runs.children[TABLES].status().figures["table_rows_booked"] == {"": 120})
    assert not alarms(runs)


def test_rows_that_do_not_pass_are_told_and_hold_nobody_up(runs: RunningCrew, plant: Mes) -> None:
    plant.run("""insert into cofferdam.outbox (channel, key, body) values
        ('counts', 'schema', '{"line": "L1", "n": -1}'), ('counts', 'twice', '{"line": "a", "line": "b", "n": 1}'),
        ('counts', E'two\\nlines', '{}'), ('stock', 'x', '{}'), ('counts', 'good', '{"line": "L1", "n": 1}')""")
    eventually(lambda: plant.left() == 1 and says(runs, "'stock'", "lets nobody push"))
    found = dict(plant.run("select key, outcome || coalesce(' ' || problem, '') from cofferdam.outbox"))
    assert found["good"] == "stored"
    assert found["schema"].startswith("quarantined schema at /n: ")
    assert found["twice"].startswith("refused syntax")
    assert found["two\nlines"].startswith("refused syntax at the whole: a key is")
    assert found["x"] is None
    plant.run("delete from cofferdam.outbox where channel = 'stock'")
    eventually(lambda: not alarms(runs))


def test_a_later_id_that_commits_first(runs: RunningCrew, plant: Mes) -> None:
    def seen() -> list[str]:
        return [one["id"] for one in counts(runs) if one["id"] in ("late", "early")]

    insert = 'insert into cofferdam.outbox (channel, key, body) values (\'counts\', %s, \'{"line": "L", "n": 1}\')'
    with psycopg.connect(plant.dsn) as early, psycopg.connect(plant.dsn) as late:
        early.execute(insert, ("early",))
        late.execute(insert, ("late",))
        late.commit()
        eventually(lambda: seen() == ["late"])
        early.commit()
    eventually(lambda: seen() == ["late", "early"])
    assert [row[0] for row in plant.run("select key from cofferdam.outbox order by id desc limit 2")] == [
        "late",
        "early",
    ]


@pytest.mark.parametrize("times", [1, pytest.param(250, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_killed_at_any_moment_nothing_is_lost_or_twice(works: RunningCrew, mes: Mes, times: int) -> None:
    turns = [TABLES, "keeper"] * times
    for turn, part in enumerate(turns):
        mes.put(100, 100 * turn)
        order(works, 30, 30 * turn)
        time.sleep(0.03 + 0.02 * (turn % 8))  # at another moment each time
        works.kill(part)
        works.start()
    rows, orders = 100 * len(turns), 30 * len(turns)
    eventually(lambda: mes.left() == 0 and len(mes.booked()) == orders, PATIENT + len(turns))
    assert mes.booked() == list(range(1, orders + 1))
    assert mes.run("select count(distinct key) from cofferdam.inbox") == [(orders,)]
    numbers = "select count(*), count(distinct number), max(number) from cofferdam.outbox where outcome = 'stored'"
    assert mes.run(numbers) == [(rows, rows, rows)], "none is lost, and none is there twice"
    assert mes.run("select number, missing from cofferdam.position") == [(orders, [])]


def test_what_is_handed_out_again_is_known_though_its_row_is_gone(works: RunningCrew, mes: Mes) -> None:
    order(works, 20)
    eventually(lambda: len(mes.booked()) == 20)
    mes.run("delete from cofferdam.inbox where number <= 10")
    eventually(lambda: not works.ask("keeper", "replay", {
        "channel": "orders", "consumer": "mes", "first": 1, "one": False, "by": "root"}).error)  # fmt: skip
    order(works, 1, 20)
    eventually(lambda: 21 in mes.booked())
    eventually(lambda: lag(works) == 0)
    assert mes.booked() == list(range(11, 22))


def test_a_database_that_dies_and_comes_back(server: Server, works: RunningCrew, mes: Mes) -> None:
    mes.put(50)
    order(works, 10)
    eventually(lambda: mes.left() == 0 and len(mes.booked()) == 10)
    server.stop()
    try:
        order(works, 10, 10)  # nobody notices on the other side
        eventually(lambda: len(alarms(works)) == 2)
        assert set(alarms(works)) == {"plant-outbox", "plant-inbox-orders"}
    finally:
        server.start()
    mes.put(50, 50)
    eventually(lambda: mes.left() == 0 and len(mes.booked()) == 20)
    eventually(lambda: not alarms(works))
    assert [one["data"]["n"] for one in counts(works)] == list(range(100))
    works.ends_well()


def test_tables_that_are_not_as_they_have_to_be(works: RunningCrew, mes: Mes) -> None:
    eventually(lambda: not alarms(works))
    mes.run("""alter table cofferdam.outbox drop column problem, alter column number type int;
        alter table cofferdam.inbox drop constraint inbox_pkey""")
    # Once that is committed: who came back before it would have found the tables as they were.
    mes.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cofferdam'")
    eventually(lambda: says(
        works, "outbox.problem: there is no such column", "outbox.number is integer, expected bigint",
        "inbox has no unique key (channel, number)"))  # fmt: skip
    mes.put(5)
    order(works, 5)
    mes.run("""alter table cofferdam.outbox add column problem text, alter column number type bigint;
        alter table cofferdam.inbox add primary key (channel, number)""")
    eventually(lambda: says(works, "outbox.problem: the role lacks the right to UPDATE"))
    mes.run(f"grant update (problem) on cofferdam.outbox to {mes.role}")
    eventually(lambda: mes.left() == 0 and len(mes.booked()) == 5 and not alarms(works))


def test_a_wrong_password_and_the_right_one(works: RunningCrew, mes: Mes) -> None:
    eventually(lambda: not alarms(works))
    works.give(TABLES, Secrets(passwords={"plant": "another"}))
    mes.put(5)
    eventually(lambda: says(works, "password authentication failed"))
    assert "another" not in str(alarms(works)) + works.stderr(TABLES)
    (told,) = works.auditor.of(KeysSet)
    assert (told.side, told.by, told.passwords) == (TABLES, "root", ("plant",))
    works.give(TABLES, Secrets())
    eventually(lambda: says(works, "there is no password: `cofferdam relay password plant`"))
    assert mes.left() == 5
    works.give(TABLES, Secrets(passwords={"plant": PASSWORD}))
    eventually(lambda: mes.left() == 0 and not alarms(works))


def test_rows_of_others_locks_and_time_limits(runs: RunningCrew, plant: Mes) -> None:
    """What another gate has under way is left to it; a lock on the whole table is waited for."""
    with psycopg.connect(plant.dsn) as other:
        plant.put(10, 1000)
        other.execute("lock table cofferdam.outbox in access exclusive mode")
        mes_pid = other.execute("select pg_backend_pid()").fetchone()
        assert mes_pid is not None
        with psycopg.connect(plant.dsn, autocommit=True) as third:
            third.execute(f"alter role {plant.role} set lock_timeout = '1ms'")
        other.commit()
    eventually(lambda: plant.left() == 0)
    with psycopg.connect(plant.dsn) as other:
        plant.run("alter table cofferdam.outbox disable trigger hint")
        other.execute("begin")
        plant.put(10, 1010)
        eventually(lambda: plant.left() == 0)  # by looking alone: nothing notified
    plant.run(f"alter role {plant.role} reset lock_timeout; alter table cofferdam.outbox enable trigger hint")


def test_another_content_under_a_known_number_stops_it(works: RunningCrew, mes: Mes) -> None:
    mes.run("insert into cofferdam.inbox values ('orders', 2, 'erp', 'o9', repeat('0', 64), now(), '{}')")
    order(works, 3)
    eventually(lambda: says(works, "another content for message 2 of orders", "put back or replaced"))
    assert mes.booked() == [2]
    mes.run("delete from cofferdam.inbox")
    eventually(lambda: mes.booked() == [1, 2, 3])


def test_a_store_that_began_anew_stops_it(works: RunningCrew, mes: Mes) -> None:
    """Though no row is left to compare with."""
    order(works, 5)
    eventually(lambda: len(mes.booked()) == 5)
    mes.run("delete from cofferdam.inbox")
    eventually(lambda: lag(works) == 0)
    works.kill("keeper")
    for path in works.store.iterdir():
        path.unlink()
    works.start()
    order(works, 3, 5)
    eventually(lambda: says(works, "message 1 of orders is newer than all", "put back or replaced"))
    assert mes.booked() == []
    mes.run("delete from cofferdam.position")
    eventually(lambda: mes.booked() == [1, 2, 3])


def test_a_side_that_is_cut_off_has_no_session(works: RunningCrew, mes: Mes) -> None:
    eventually(lambda: mes.run(OURS, mes.role) == [(2,)])
    for part in works.parts:
        works.children[part].send(SetSevered(("ot",)))
    eventually(lambda: mes.run(OURS, mes.role) == [(0,)])
    mes.put(5)
    for part in works.parts:
        works.children[part].send(SetSevered(()))
    eventually(lambda: mes.left() == 0)
    works.reload(works.policy(via="", tables=""))
    eventually(lambda: mes.run(OURS, mes.role) == [(0,)])


def test_the_role_may_do_no_more_than_it_does(works: RunningCrew, mes: Mes) -> None:
    dsn = mes.dsn.replace(f"user={services.USER}", f"user={mes.role} password='{PASSWORD}'").replace(
        "sslmode=disable", "sslmode=require"
    )
    for text in (
        "select body from cofferdam.inbox", "delete from cofferdam.outbox", "update cofferdam.outbox set body = '{}'",
        "update cofferdam.inbox set body = '{}'", "insert into cofferdam.outbox (channel, body) values ('a', '{}')",
        "create table cofferdam.mine (a int)", "truncate cofferdam.position",
    ):  # fmt: skip
        with psycopg.connect(dsn) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(text)


def test_a_database_that_shows_no_password_is_not_spoken_with(server: Server, works: RunningCrew, mes: Mes) -> None:
    """Whoever poses as the database and lets everybody in learns nothing, and gets no message."""
    eventually(lambda: mes.run(OURS, mes.role) == [(2,)])  # none is let in by the old words later on
    hba = server.data / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text(f"hostssl all {mes.role} all trust\n" + before)
    try:
        (loaded,) = mes.run("select pg_conf_load_time(), pg_reload_conf()")
        eventually(lambda: mes.run("select pg_conf_load_time() > %s", loaded[0]) == [(True,)])
        mes.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cofferdam'")
        eventually(lambda: len(alarms(works)) == 2)
        eventually(lambda: says(works, "scram-sha-256", "did not complete authentication"))
    finally:
        hba.write_text(before)
        mes.run("select pg_reload_conf()")


def test_what_the_database_ends_is_done_again(runs: RunningCrew, plant: Mes) -> None:
    """A deadlock with the site's own work, a statement that takes too long, a row that is too large."""
    plant.run("create table cofferdam.stock (n int); insert into cofferdam.stock values (0)")
    plant.run("""create function cofferdam.takes() returns trigger language plpgsql security definer as
        $$begin update cofferdam.stock set n = n + 1; return null; end$$""")
    plant.run("create trigger takes after insert on cofferdam.inbox for each row execute function cofferdam.takes()")
    before = len(plant.booked())
    waits = "select pid from pg_stat_activity where usename = %s and wait_event_type = 'Lock'"
    for done, what in ((1, "deadlock"), (2, "cancel")):
        with psycopg.connect(plant.dsn) as site:
            site.execute("set deadlock_timeout = '1h'")  # so that it is the relay's work that is ended
            site.execute("update cofferdam.stock set n = 0")
            order(runs, 1, 300 + done)
            eventually(lambda: len(plant.run(waits, plant.role)) == 1)
            if what == "deadlock":
                site.execute("select 1 from cofferdam.position for update")
                site.commit()
            else:  # as statement_timeout does
                plant.run("select pg_cancel_backend(pid) from pg_stat_activity where usename = %s and query like %s",
                        plant.role, "INSERT%")  # fmt: skip
                eventually(lambda: says(runs, "57014"))
                site.rollback()
        eventually(functools.partial(_is_booked, plant, list(range(1, before + done + 1))))
    peak = _peak(runs)
    plant.run("""insert into cofferdam.outbox (channel, key, body) values
        ('counts', 'large', json_build_object('note', repeat('x', 21000000))),
        ('counts', 'small', '{"line": "L", "n": 1}')""")
    eventually(lambda: plant.left() == 0)
    said = dict(plant.run("select key, outcome || coalesce(' ' || problem, '') from cofferdam.outbox"))
    assert said["small"] == "stored" and said["large"].startswith("refused size at the whole: no body, or one of more")
    assert _peak(runs) - peak < 8, "the database says how large it is: it is not read"
    plant.run("drop trigger takes on cofferdam.inbox")


def test_a_message_that_the_inbox_does_not_take(runs: RunningCrew, plant: Mes) -> None:
    plant.run("alter table cofferdam.inbox add constraint small check (key <> 'o403')")
    last = len(plant.booked())
    order(runs, 8, 400)
    eventually(lambda: len(plant.booked()) == last + 7)
    assert plant.booked()[last:] == [last + n for n in (1, 2, 3, 5, 6, 7, 8)]
    eventually(lambda: plant.run("select number, missing from cofferdam.position") == [(last + 8, [last + 4])])
    order(runs, 1, 408)
    eventually(lambda: last + 9 in plant.booked())


STEPS = (
    "before update on cofferdam.outbox",
    "after update on cofferdam.outbox deferrable initially deferred",
    "before insert on cofferdam.inbox",
    "before update on cofferdam.position",
    "after insert on cofferdam.inbox deferrable initially deferred",
)
"""Where the relay's work is held up, until the database ends it: as it marks, books, moves the position, commits."""


def _through_each_step(works: RunningCrew, mes: Mes, end: Callable[[], None], first: int) -> None:
    """A row or an order for each step; each is there in the end, once, and in order."""
    mes.run("""create function cofferdam.step() returns trigger language plpgsql security definer as $$begin
        perform pg_catalog.pg_advisory_xact_lock(8);
        if tg_when = 'AFTER' then return null; end if; return new; end$$""")
    held = "select pid from pg_stat_activity where usename = %s and wait_event = 'advisory'"
    booked = mes.booked()
    for number, step in enumerate(STEPS, first):
        kind = "constraint trigger" if "deferred" in step else "trigger"
        mes.run(f"create {kind} step {step} for each row execute function cofferdam.step()")
        holder = psycopg.connect(mes.dsn, autocommit=True)
        try:
            holder.execute("select pg_advisory_lock(8)")
            if "outbox" in step:
                mes.put(1, number)
            else:
                order(works, 1, number)
                booked.append(max(booked, default=0) + 1)
            eventually(lambda: len(mes.run(held, mes.role)) == 1)
            end()
        finally:
            holder.close()
        eventually(lambda: mes.left() == 0)
        eventually(functools.partial(_is_booked, mes, list(booked)))
        mes.run(f"drop trigger step on {step.split()[3]}")
    found = [one["data"]["n"] for one in counts(works) if one["data"]["n"] >= first]
    assert found == [number for number, step in enumerate(STEPS, first) if "outbox" in step]


def test_ended_in_each_step_nothing_is_lost_or_twice(runs: RunningCrew, plant: Mes) -> None:
    def end() -> None:
        ended = "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s and wait_event = 'advisory'"
        assert plant.run(ended, plant.role) == [(True,)]

    _through_each_step(runs, plant, end, 5000)


@pytest.mark.soak
def test_a_row_of_a_gigabyte_is_refused_unread(works: RunningCrew, mes: Mes) -> None:
    """(As large as the database makes one; it takes several times that of its own memory.)"""
    eventually(lambda: not alarms(works))
    peak = _peak(works)
    mes.run("""insert into cofferdam.outbox (channel, key, body) values
        ('counts', 'huge', ('{"line": "L", "n": 1, "note": "' || repeat('x', 1000000000) || '"}')::json)""")
    mes.put(1)
    eventually(lambda: mes.left() == 0, 600)
    [(said,)] = mes.run("select problem from cofferdam.outbox where key = 'huge'")
    assert said.startswith("size at the whole: no body, or one of more")
    assert _peak(works) - peak < 8
    assert [one["data"]["n"] for one in counts(works)] == [0]


@pytest.mark.soak
def test_a_database_that_crashes_in_each_step(server: Server, works: RunningCrew, mes: Mes) -> None:
    def end() -> None:
        server.stop()
        server.start()

    _through_each_step(works, mes, end, 5000)


def _peak(works: RunningCrew) -> int:
    """MiB that the part of tables has taken at most."""
    process = works.children[TABLES].process
    assert process is not None
    return int(Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) >> 10


def _is_booked(mes: Mes, numbers: list[int]) -> bool:
    return mes.booked() == numbers


def test_two_gates_drain_one_outbox_and_each_row_goes_to_one(works: RunningCrew, mes: Mes, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with crew(tmp_path / "other" / "store", passwords={"plant": PASSWORD}, words=mes.words) as other:
        for first in range(0, 1000, 100):
            mes.put(100, first)
        eventually(lambda: mes.left() == 0)
        found = [one["data"]["n"] for each in (works, other) for one in counts(each)]
        assert sorted(found) == list(range(1000))
        assert mes.run("select distinct outcome from cofferdam.outbox") == [("stored",)]


# --- a table that the site cannot change --------------------------------------------------------------------------

MADE = """create schema line;
    create table line.made (line text, n integer, note text, primary key (line, n)) partition by range (n);
    create table line.made_few partition of line.made for values from (0) to (400);
    create table line.made_more partition of line.made for values from (400) to (10000);
    create table line.other (line text, n int)"""
OWN = ", changes: {counts: {table: line.made, on: [insert, update], slot: SLOT}}"


@pytest.fixture
def vendors(server: Server, tmp_path: Path) -> Iterator[Mes]:
    """A database whose table is its vendor's: a row is a message, and nothing is written beside it."""
    slot = f"slot{next(NUMBERS)}"
    found = Mes(server, tmp_path, changes=OWN.replace("SLOT", slot), before=MADE)
    found.slot = slot
    found.run("alter system set max_slot_wal_keep_size = '1GB'")
    found.run("select pg_reload_conf()")
    try:
        yield found
    finally:
        found.run("alter system reset max_slot_wal_keep_size")
        eventually(lambda: not found.run("select 1 from pg_replication_slots where slot_name = %s and active", slot))
        found.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", slot)


@pytest.fixture
def reads(vendors: Mes, tmp_path: Path) -> Iterator[RunningCrew]:
    with crew(tmp_path / "store", passwords={"plant": PASSWORD}, words=vendors.words) as made:
        yield made


def seen(works: RunningCrew) -> list[int]:
    return [one["data"]["n"] for one in counts(works)]


def moved_on(mes: Mes) -> bool:
    """Whether the slot is behind nothing."""
    upto = "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where slot_name = %s"
    now = mes.run("select pg_current_wal_flush_lsn()::text")[0][0]
    eventually(lambda: mes.run(upto, now, mes.slot) == [(True,)])
    return True


def test_the_rows_of_a_table_that_stays_as_it_is(reads: RunningCrew, vendors: Mes) -> None:
    """In the order of their commits, one transaction's rows together; what was taken back never comes."""
    with (
        psycopg.connect(vendors.dsn) as early,
        psycopg.connect(vendors.dsn) as late,
        psycopg.connect(vendors.dsn) as no,
    ):
        for conn, numbers in ((early, (1, 2)), (no, (8, 9)), (late, (3, 4))):
            for n in numbers:
                conn.execute("insert into line.made values ('L\"1', %s, %s)", (n, "é\n" if n == 1 else None))
        vendors.run("insert into line.other values ('x', 1)")
        late.commit()
        no.rollback()
        early.commit()
    # A note that is NULL is no text: the schema refuses it, and it waits for a person.
    eventually(lambda: seen(reads) == [1])
    eventually(lambda: len(reads.ask("keeper", "held", {"channel": "counts", "by": "root"}).result) > 10)
    vendors.run("update line.made set note = 'again' where n in (1, 3)")
    eventually(lambda: seen(reads) == [1, 1, 3])
    first = counts(reads)[0]
    assert first["data"] == {"line": 'L"1', "n": 1, "note": "é\n"}
    assert first["id"].startswith(f"{vendors.slot}/")
    vendors.run("insert into line.made select 'L2', i, 'x' from generate_series(100, 2600) i")
    eventually(lambda: len(seen(reads)) == 1000)  # what one look shows
    held = msgspec.json.decode(reads.ask("keeper", "status", {"by": "root"}).result)["channels"][0]
    eventually(lambda: moved_on(vendors))
    assert held["quarantine"] == 3
    assert not any("changes" in name for name in alarms(reads))
    eventually(lambda: reads.children[TABLES].status().figures["table_rows_taken"] == {"": 2507})
    reads.ends_well()


def test_killed_while_it_reads_each_row_comes_once(reads: RunningCrew, vendors: Mes) -> None:
    for turn, part in enumerate([TABLES, "keeper"]):
        vendors.run(
            "insert into line.made select 'L', i, 'x' from generate_series(%s::int, %s::int) i",
            400 * turn, 400 * turn + 399,
        )  # fmt: skip
        time.sleep(0.05)
        reads.kill(part)
        reads.start()
    eventually(lambda: len(seen(reads)) == 800)
    assert moved_on(vendors)
    assert seen(reads) == list(range(800))


def test_a_slot_that_nobody_bounds_is_lost_or_is_gone(reads: RunningCrew, vendors: Mes) -> None:
    eventually(lambda: not alarms(reads))
    vendors.run("alter system set max_slot_wal_keep_size = -1")
    vendors.run("select pg_reload_conf()")
    eventually(lambda: says(reads, "max_slot_wal_keep_size is not set", "the disk is full"))
    vendors.run("insert into line.made values ('L', 1, 'x')")
    eventually(lambda: seen(reads) == [1])  # an alarm, and it goes on
    vendors.run("alter system set max_slot_wal_keep_size = '1GB'")
    vendors.run("select pg_reload_conf()")
    eventually(lambda: not alarms(reads))
    vendors.run(f"alter publication {vendors.slot} add table line.other")
    vendors.run("insert into line.other values ('L', 9)")
    eventually(
        lambda: says(reads, "rows of line.other are passed over", f"{vendors.slot} is to publish line.made alone")
    )
    vendors.run(f"alter publication {vendors.slot} drop table line.other; alter table line.made rename to done")
    vendors.run("insert into line.done values ('L', 8, 'x'); alter table line.done rename to made")
    eventually(lambda: seen(reads) == [1, 8])
    vendors.run(f"alter publication {vendors.slot} set (publish = 'insert')")
    vendors.run(f"revoke execute on function cofferdam.{vendors.slot}_advance from {vendors.role}")
    vendors.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cofferdam'")
    eventually(lambda: says(reads, "does not publish update", "lacks the right to EXECUTE"))
    # Nobody reads, and the database throws away what it would have kept without a bound.
    vendors.run("alter system set max_slot_wal_keep_size = '1MB'")
    vendors.run("select pg_reload_conf()")
    for n in range(2, 6):
        vendors.run("insert into line.made values ('L', %s, 'x')", n)
        vendors.run("select pg_switch_wal()")
    vendors.run("checkpoint")
    vendors.run(f"alter publication {vendors.slot} set (publish = 'insert, update')")
    vendors.run(f"grant execute on function cofferdam.{vendors.slot}_advance to {vendors.role}")
    eventually(lambda: says(reads, "has thrown away what was not read", "rows are missing"))
    vendors.run(f"drop publication {vendors.slot}")
    eventually(lambda: says(reads, f"there is no publication {vendors.slot} of line.made"))
    eventually(
        lambda: not vendors.run("select 1 from pg_replication_slots where slot_name = %s and active", vendors.slot)
    )
    vendors.run(f"select pg_drop_replication_slot('{vendors.slot}')")
    eventually(lambda: says(reads, f"there is no replication slot {vendors.slot}"))


def test_the_role_reads_one_publication_and_nothing_else(vendors: Mes) -> None:
    dsn = vendors.dsn.replace(f"user={services.USER}", f"user={vendors.role} password='{PASSWORD}'").replace(
        "sslmode=disable", "sslmode=require"
    )
    for text in (
        "select * from line.made", "select pg_create_logical_replication_slot('mine', 'test_decoding')",
        f"select pg_logical_slot_peek_changes('{vendors.slot}', null, null)", "insert into line.made values ('a', 1)",
    ):  # fmt: skip
        with psycopg.connect(dsn) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(text)


def test_the_statements_of_the_page(works: RunningCrew, mes: Mes) -> None:
    page = (Path(__file__).parents[3] / "docs" / "relay.md").read_text("utf-8")
    found = re.search(r"```sql\n(INSERT INTO cofferdam\.outbox.*?)```", page, re.DOTALL)
    assert found is not None
    insert, look, take = found[1].splitlines()
    order(works, 1)
    mes.run(insert)
    eventually(lambda: mes.left() == 0 and mes.booked() == [1])
    assert mes.run(look) == [("shift-17", "stored", 1, None)]
    mine = take.replace("4711", "1")
    assert mes.run(mine) == [({"quantity": 5, "site": "works"},)]
    assert mes.run(mine) == []
