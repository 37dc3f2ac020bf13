"""Sources of all kinds, as they behave when nobody looks after them: historians that change while they are read, with
times and values that no plant should have; a device that stops answering; folders in which anybody leaves anything.
One crew has all of them."""

from __future__ import annotations

import contextlib
import csv
import datetime
import importlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cofferdam.audit.events.mirror import SamplesRefused, SourceTold
from cofferdam.brokers.mirror.blocks import EPOCH_NS
from cofferdam.brokers.mirror.nodes import QUEUE
from cofferdam.brokers.mirror.points import spans
from cofferdam.model import Point, Span
from cofferdam.protocols.modbus import messages as m
from cofferdam.values import ValueType
from tests import services
from tests.brokers.mirror.between import HEAD, Between, between, data, huge, row
from tests.brokers.mirror.crew import FILES, LOADER, PASSWORD, Plant, RunningCrew, crew, historian
from tests.brokers.mirror.test_kill import verified
from tests.ports import held_port
from tests.protocols.device import Device, served
from tests.protocols.opcua import site as opcua_site
from tests.services import Postgres, needs_postgres
from tests.waiting import PATIENT, eventually, kill

pytestmark = pytest.mark.heavy
ASSETS = """
assets:
  plc:
    zone: plant
    address: 127.0.0.1
    port: {port}
    protocol: modbus
    unit: 1
    timeout: 5 s
    points:
      level: {{at: input 12, type: uint16, unit: mm}}
      flow: {{at: input 13, type: uint16}}
      total: {{at: holding 100, type: uint32}}
      far: {{at: holding 150, type: uint16}}
      beyond: {{at: holding 400, type: uint16}}
      pump: {{at: coil 3, type: bool}}
  filler:
    zone: plant
    address: 127.0.0.1
    port: {opcua}
    protocol: opcua
    timeout: 20 s
    security: {{asset: none}}
    points:
      level: {{at: "nsu=urn:plant:line;s=Line1.Level", type: Double}}
      recipe: {{at: "nsu=urn:plant:line;s=Line1.Recipe", type: String, max_length: 8}}
"""
ALSO = """{name}: {{at: "127.0.0.1:{port}", database: {database}, role: mirror, plain: true,
                  quality: quality, password: historian, every: 200 ms, since: 90 days, {more}}}"""
SLOW = """query: "SELECT tag, time, CASE WHEN value = 12000 AND pg_advisory_xact_lock_shared(7) IS NULL THEN 0
                  ELSE value END AS value, quality FROM public.samples ORDER BY time" """
TABLE = "table: samples, tags: all"
LAB = """lab: {folder: lab, delimiter: ";", decimal: ",", settle: 0 s, times: "%d.%m.%Y %H:%M:%S", zone: Europe/Berlin,
            every: 200 ms}"""
BATCH = "batch: {folder: batch, form: parquet, settle: 0 s, every: 200 ms}"
OPC_DA = "da: {folder: da, of: opc_da, quality: quality, qualities: opc-da, times: s, settle: 0 s, every: 200 ms}"


ODD = [
    ("nan", "NaN", "now()"), ("inf", "Infinity", "now()"), ("minus", "-0", "now()"),
    ("tiny", "5e-324", "now()"), ("none", None, "now()"), ("old", "1", "'1969-07-20 20:17:40Z'"),
    ("future", "1", "now() + interval '2 hours'"),
    ("late", "1", "'2262-04-12 00:00:00Z'"), ("never", "1", "'infinity'"), ("", "1", "now()"),
    ("with\nline", "1", "now()"), ("ünïcode", "1", "now()"), ("x" * 201, "1", "now()"),
    ("dup", "1", "'2026-01-01Z'"), ("dup", "1", "'2026-01-01Z'"), ("dup", "2", "'2026-01-01Z'"),
]  # fmt: skip


DRIVER = Path("/usr/lib/x86_64-linux-gnu/odbc/psqlodbcw.so")


class Plc(Device):
    """One that may stop answering."""

    silent = odd = False

    def answer(self, request: m.ModbusRequest) -> m.ModbusResponse:
        if self.silent:
            raise ConnectionError
        if self.odd and isinstance(request, m.ReadInputRegisters):
            return m.ReadInputRegistersResponse.of((1, 2, 3))
        return super().answer(request)


class Site:
    """All that the crew reads."""

    def __init__(self, made: Postgres) -> None:
        self.changes, self.odd, self.mends, self.slow, self.hostile, self.filled, self.liar = (
            Plant(made) for _ in range(7)
        )
        self.ascii = Plant(made, "-E", "SQL_ASCII", "-T", "template0", "--locale=C")
        self.device = Plc()
        self.office = made.fresh()
        """A database of the office's, which history is copied into."""
        with psycopg.connect(self.office, autocommit=True) as conn:
            for role in ("cofferdam_loader", "bi", "coarse"):
                with contextlib.suppress(psycopg.errors.DuplicateObject):
                    conn.execute(f"create role {role} login password '{PASSWORD}'")
            conn.execute(f"grant create on database {self.office_name} to cofferdam_loader")
        self.between: Between
        self.between_liar: Between
        self.mirror: RunningCrew
        self.lake: httpx.Client

    @property
    def office_name(self) -> str:
        return self.office.split("dbname=")[1].split()[0]

    def sql(self, statement: str, user: str = "", **said: Any) -> list[Any]:
        """What a tool of the office's gets from its database."""
        login = f" user={user} password='{PASSWORD}'" if user else ""
        with psycopg.connect(self.office + login, autocommit=True) as conn:
            return conn.execute(statement, said).fetchall()

    def value(self, tag: str, **said: str) -> Any:
        """Its values; None where there is no such tag."""
        answer = self.lake.get("/v1/samples", params={"tag": tag, "from": "1960-01-01", "to": "2261-01-01", **said})
        return [row["value"] for row in answer.json()["samples"]] if answer.status_code == 200 else None

    def last(self, tag: str) -> Any:
        answer = self.lake.get("/v1/samples", params={"tag": tag, "last": "1h"})
        return answer.json()["samples"][-1] if answer.status_code == 200 and answer.json()["samples"] else {}

    def told(self, state: str) -> list[str]:
        return [one.detail for one in self.mirror.auditor.of(SourceTold) if one.state == state]


@pytest.fixture(scope="module")
def made() -> Iterator[Postgres]:
    with historian() as found:
        yield found


@pytest.fixture(scope="module")
def site(made: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(made)
    found.mends.conn.execute("alter table samples alter column value type bigint using value::bigint")
    found.mends.conn.execute("alter table samples add column server timestamptz")
    for tag, value, when in ODD:
        found.odd.conn.execute(f"insert into samples values (%s, {when}, %s)", (tag, value))
    opcua = held_port()
    with (
        served(found.device) as port, opcua_site.plant(opcua), between(made.port) as found.between,
        between(made.port) as found.between_liar,
    ):  # fmt: skip
        more = ["plc: {asset: plc, every: 200 ms}", "line: {asset: filler, every: 200 ms}", LAB, BATCH, OPC_DA]
        for name, plant, words in (
            ("odd", found.odd, TABLE), ("mends", found.mends, "table: samples, server: server"),
            ("slow", found.slow, SLOW), ("ascii", found.ascii, TABLE), ("filled", found.filled, TABLE),
        ):  # fmt: skip
            more.append(ALSO.format(name=name, port=made.port, database=plant.database, more=words))
        database, port_between = found.hostile.database, found.between.port
        more.append(ALSO.format(name="hostile", port=port_between, database=database, more="table: samples"))
        database, port_between = found.liar.database, found.between_liar.port
        more.append(ALSO.format(name="liar", port=port_between, database=database, more="table: samples"))
        where = f'at: "127.0.0.1:{made.port}", database: {found.office_name}'
        copy = f", keep: 90 years, store: postgresql, postgresql: {{{where}, plain: true}}"
        folders, assets = ("lab", "batch", "da"), ASSETS.format(port=port, opcua=opcua)
        with (
            crew(tmp_path_factory.mktemp("sources"), found.changes, folders=folders, more="\n      ".join(more),
                 assets=assets, mirror=copy) as found.mirror,
            found.mirror.client("lake") as found.lake,
        ):  # fmt: skip
            yield found
            found.mirror.ends_well()
    for plant in (found.odd, found.mends, found.slow, found.ascii, found.hostile, found.filled, found.liar):
        plant.conn.close()


# --- historians -----------------------------------------------------------------------------------------------------


@needs_postgres
def test_a_historian_that_changes_under_it(site: Site) -> None:
    """A column goes, rights are taken away, the table is emptied: told, and nothing is doubled or lost."""
    plant, mirror = site.changes, site.mirror
    now = int(time.time())
    plant.add([("a", now - 600 + s, s, 192) for s in range(500)])
    eventually(lambda: len(site.value("a") or ()) == 500)
    plant.conn.execute("alter table samples rename column value to worth")
    eventually(lambda: any("value" in words for words in site.told("away")))
    plant.conn.execute("alter table samples rename column worth to value")
    eventually(lambda: site.told("back"))
    plant.conn.execute("revoke select on samples from mirror")
    eventually(lambda: any("denied" in words for words in site.told("away")))
    plant.conn.execute("grant select on samples to mirror")
    plant.conn.execute("alter table samples alter column time type timestamp using time at time zone 'UTC'")
    eventually(lambda: any("says nothing in the autumn hour" in words for words in site.told("differs")))
    plant.conn.execute("alter table samples alter column time type timestamptz using time at time zone 'UTC'")
    plant.conn.execute("truncate samples")
    plant.conn.execute("alter table samples alter column value type int using value::int")
    plant.conn.execute("alter table samples add column note text")
    plant.add([("a", now - 50, 7, 192), ("b", now - 49, 8, 192)])
    eventually(lambda: (len(site.value("a")), site.value("b")) == (501, [8]))
    run = verified(mirror, (now - 600) // 3600, now // 3600)
    assert run["differences"] == 0 and run["source_has_less"], run


@needs_postgres
def test_times_and_values_that_no_plant_should_have(site: Site) -> None:
    value = site.value
    eventually(lambda: value("ünïcode") == [1])
    assert (value("nan"), value("inf"), value("none")) == ([None], [None], [None])
    assert value("tiny") == [5e-324]
    assert str(value("minus")) == "[-0.0]"
    for tag in ("future", "late", "never", "with\nline", "x" * 201):
        assert value(tag) is None, tag
    found = site.lake.post("/v1/sql", content="SELECT tag FROM samples WHERE isnan(value) AND tag IN ('nan', 'none')")
    assert len(found.json()["rows"]) == 2
    eventually(lambda: "from the future" in str(site.mirror.children["collector"].status().alarms))
    # What is older than `since` comes when it is asked for, and what is there twice is there once.
    site.mirror.ask("keeper", "backfill", first=-4000, last=-3900)
    site.mirror.ask("keeper", "backfill", first=490_800, last=491_000)
    eventually(lambda: value("old") == [1])
    eventually(lambda: value("dup") == [2])
    assert value("dup", revisions="all") == [1, 2]


@needs_postgres
def test_what_changes_in_a_historian_while_it_is_read(site: Site) -> None:
    """A whole number's column becomes a float: nothing is rounded. A value is mended and mended back: the last stays. A
    time of the historian's own that has no place ends nothing."""
    plant, value = site.mends, site.value
    plant.conn.execute("insert into samples values ('s', now(), 1, 192, 'infinity'), ('s', now(), 2, 192, '3000-1-1')")
    # A little ahead of the clock, so that each reading sees it again.
    plant.conn.execute("insert into samples values ('c', now() + interval '9 min', 1, 192)")
    eventually(lambda: (value("c"), value("s", revisions="all")) == ([1], [1, 2]))
    for changed in (2, 1):
        plant.conn.execute("update samples set value = %s where tag = 'c'", (changed,))
        eventually(lambda changed=changed: value("c") == [changed])  # type: ignore[misc]
    assert value("s", revisions="all") == [1, 2]  # nothing more by being read again
    plant.conn.execute("insert into samples values ('w', now(), %s, 192)", (-(1 << 63),))
    plant.conn.execute("insert into samples values ('w', now(), %s, 192)", ((1 << 63) - 1,))
    eventually(lambda: value("w") == ["-9223372036854775808", "9223372036854775807"])  # no double has those
    plant.conn.execute("alter table samples alter column value type float8")
    plant.conn.execute("insert into samples values ('f', now(), 7.25, 192)")
    eventually(lambda: value("f") == [7.25])


@needs_postgres
def test_texts_of_a_database_that_does_not_say_how_they_are_encoded(site: Site) -> None:
    """What is no UTF-8 is told, with its tag and its time, and hides no other row."""
    plant, value = site.ascii, site.value
    plant.conn.execute("alter table samples alter column value type text")
    plant.conn.execute("set client_encoding to 'SQL_ASCII'")
    long = "x" * 1_000_000
    for tag, text in (("t", b""), ("t", b"caf\xc3\xa9"), ("t", b"caf\xe9"), ("t\xe9".encode("latin-1"), b"1"),
                      ("long", long.encode()), ("long", b"y" * (1 << 20))):  # fmt: skip
        name = tag if isinstance(tag, bytes) else tag.encode()
        statement = b"insert into samples values ('" + name + b"', clock_timestamp(), '" + text + b"', 192)"
        plant.conn.execute(statement)
    eventually(lambda: value("t") == ["", "café"])
    eventually(lambda: value("long") == [long])
    eventually(lambda: len([one for one in site.mirror.auditor.of(SamplesRefused) if one.source == "ascii"]) > 1)
    told = {one.fault: one.detail for one in site.mirror.auditor.of(SamplesRefused) if one.source == "ascii"}
    assert "called so" in told["tag"] and told["value"].startswith(("a text that is no UTF-8 from byte 3", "a text of"))
    now = int(time.time())
    run = verified(site.mirror, now // 3600 - 1, now // 3600)
    assert run["differences"] == 0 and not run["failed"], run  # texts beside numbers of other sources


@needs_postgres
def test_a_historian_that_is_filled_late(site: Site) -> None:
    """While nothing newer is there, no time counts as read: what an outage of its own held back comes as soon as it is
    written. What is newer is reached at once, however long nothing was recorded."""
    now = int(time.time())
    site.filled.add([("filled", now - 80 * 86_400, 0, 192)])
    for hours in (30, 29, 9, 7, 2):
        eventually(lambda: len(site.value("filled") or ()) > 0)
        before = site.value("filled")
        site.filled.add([("filled", now - hours * 3600 + s * 300, hours + s, 192) for s in range(12)])
        wanted = before + [hours + s for s in range(12)]
        eventually(lambda wanted=wanted: site.value("filled") == wanted)  # type: ignore[misc]
    upto = (now - 2 * 3600 + 11 * 300) * 10**9

    def told() -> tuple[int, int]:
        """The collector knows a little later than whoever reads."""
        (found,) = (one for one in site.mirror.ask("collector", "status") if one["source"] == "filled")
        return found["upto"], found["newest"]

    eventually(lambda: told() == (upto, upto))
    site.filled.add([("filled", now, 1.5, 192)])
    eventually(lambda: site.value("filled")[-1] == 1.5)
    # What is ahead of the clock does not count as a time up to which all is there, nor does the clock.
    site.filled.add([("ahead", now + 540, 2.5, 192)])
    eventually(lambda: site.value("ahead") == [2.5])
    eventually(lambda: told() == (now * 10**9, (now + 540) * 10**9))


HOSTILE: dict[str, tuple[list[tuple[bytes, int]], str]] = {
    "a row of 8 MB": (huge(8 << 20), "a row of 8388608 bytes"),
    "a row of 700 MB": (huge(700 << 20), ""),  # what first has no room for it differs: libpq, or this part
    "a number of no bytes": (
        [(data(HEAD + row(bytes(8), b"", None, None, None, b"x") + b"\xff\xff"), 1), (b"c\0\0\0\4", 1)], "no COPY"
    ),
    "a time of three bytes": ([(data(HEAD + row(b"abc", bytes(8), None, None, None, b"x")), 1)], ""),
    "a row that ends early": ([(data(HEAD + b"\0\6\0\0"), 1)], "no COPY"),
}  # fmt: skip


@needs_postgres
def test_a_historian_that_was_taken_over(site: Site) -> None:
    """Whatever it sends in the place of rows is told, and ends the reading of it for a moment, and of nobody else."""
    hostile, mirror = site.hostile, site.mirror
    hostile.add([("h", time.time(), 0.0, 192)])
    eventually(lambda: site.value("h") == [0])
    process = mirror.children["collector"].process
    assert process is not None
    for number, (what, (said, words)) in enumerate(HOSTILE.items(), 1):
        site.between.say = list(said)
        eventually(lambda number=number: site.between.said == number)  # type: ignore[misc]
        hostile.add([("h", time.time(), float(number), 192)])
        eventually(lambda number=number: site.value("h")[-1] == number)  # type: ignore[misc]
        site.odd.add([("beside", time.time(), float(number), 192)])
        eventually(lambda number=number: (site.value("beside") or [0])[-1] == number)  # type: ignore[misc]

        def told(words: str = words) -> bool:
            return any(words in one.detail for one in mirror.auditor.of(SourceTold) if one.source == "hostile")

        eventually(told)
        assert process.poll() is None, (what, mirror.stderr("collector"))


@needs_postgres
def test_a_historian_that_sends_too_many_rows_at_once_keeps_silent_or_answers_in_other_types(site: Site) -> None:
    liar, between, mirror = site.liar, site.between_liar, site.mirror
    process = mirror.children["collector"].process
    assert process is not None

    def goes_on(number: float) -> None:
        for plant, tag in ((liar, "liar"), (site.odd, "beside")):
            plant.add([(tag, time.time(), number, 192)])
            eventually(lambda tag=tag: (site.value(tag) or [0])[-1] == number)  # type: ignore[misc]
        assert process.poll() is None, mirror.stderr("collector")

    goes_on(-1)
    at = (time.time_ns() - EPOCH_NS) // 1000 + 60 * 10**6
    many = 60_000 * row(at.to_bytes(8, "big"), bytes(8), bytes(8), None, None, b"liars")
    between.say = [(data(HEAD + many), 1)]
    eventually(lambda: between.said == 1)
    goes_on(-2)
    between.goes_on.clear()  # it says that the rows are over, and nothing else
    between.say = [(data(HEAD + b"\xff\xff"), 1), (b"c\0\0\0\4", 1), (b"C\0\0\0\x0bCOPY 0\0", 1)]
    eventually(lambda: between.said == 2)
    site.odd.add([("beside", time.time(), -3.0, 192)])
    eventually(lambda: site.value("beside")[-1] == -3)
    name_as_bool = re.compile(rb"(typname\0.{6})\0\0\0\x13", re.DOTALL)
    between.change = lambda message: name_as_bool.sub(lambda found: found[1] + b"\0\0\0\x10", message)
    between.say = [(data(HEAD + bytes(2)), 1)]  # it is connected to anew after that
    between.goes_on.set()
    eventually(lambda: any("not understood" in one for one in site.told("differs")))
    between.change = bytes
    goes_on(-4)


@needs_postgres
def test_a_historian_that_is_slow_and_is_killed_in_mid_reading(site: Site) -> None:
    """It stands still in mid reading; the others are not late for it, and what it had sent is not doubled."""
    now, many = int(time.time()), 15_000
    site.slow.conn.execute("select pg_advisory_lock(7)")
    site.slow.add([("slow", now - 500 + s / 30, s, 192) for s in range(many)])
    eventually(lambda: len(site.value("slow", limit="100000") or ()) >= 9_000)
    some = len(site.value("slow", limit="100000"))
    assert some < many
    site.odd.add([("quick", now, 1, 192)])
    eventually(lambda: site.value("quick") == [1])
    assert len(site.value("slow", limit="100000")) == some
    asked = "select pid from pg_locks where locktype = 'advisory' and not granted"
    eventually(lambda: site.slow.conn.execute(asked).fetchone())
    (pid,) = site.slow.conn.execute(asked).fetchone() or (0,)
    kill(pid)  # the whole cluster begins anew
    eventually(lambda: len(site.value("slow", limit="100000")) == many)
    for plant in (site.changes, site.odd, site.mends, site.slow, site.ascii, site.hostile, site.filled, site.liar):
        plant.conn.close()
        eventually(lambda plant=plant: _again(plant))  # type: ignore[misc]
    assert len(site.value("slow", limit="100000", revisions="all")) == many
    site.odd.add([("quick", now + 1, 2, 192)])
    eventually(lambda: site.value("quick") == [1, 2])


def _again(plant: Plant) -> bool:
    try:
        plant.again()
    except psycopg.OperationalError:
        return False
    return True


# --- a device -------------------------------------------------------------------------------------------------------


def point(name: str, space: str, start: int, count: int = 1) -> Point:
    return Point(name, Span(space, start, count), ValueType.UINT16)


def test_neighbours_are_read_together_and_nothing_between() -> None:
    found = spans([point("c", "holding", 13), point("a", "holding", 10, 2), point("b", "holding", 12),
                   point("x", "holding", 15), point("i", "input", 16)])  # fmt: skip
    assert [(span.space, span.start, span.count) for span, _ in found] == [
        ("holding", 10, 4), ("holding", 15, 1), ("input", 16, 1),
    ]  # fmt: skip
    many = spans([point(str(n), "holding", n) for n in range(300)])
    assert [span.count for span, _ in many] == [125, 125, 50]


@needs_postgres
def test_a_real_device(site: Site) -> None:
    last = site.last
    for tag in ("plc.pump", "plc.total", "plc.beyond"):
        eventually(lambda tag=tag: last(tag))  # type: ignore[misc]
    eventually(lambda: (found := last("plc.level")) and (found["value"], found["quality"]) == (2012, 0))
    tags = site.lake.get("/v1/tags", params={"search": "LEVEL plc"}).json()["tags"]
    assert [(one["tag"], one["unit"]) for one in tags] == [("plc.level", "mm")]
    eventually(lambda: last("plc.total")["value"] == 1100 << 16 | 1101)
    eventually(lambda: last("plc.pump")["value"] is True)
    # An exception of the device: bad, with its code.
    eventually(lambda: (found := last("plc.beyond"))["value"] is None and found["quality"] == 0x80000002)
    reads = {(type(one), one.address, one.count) for one in site.device.seen}
    assert (m.ReadInputRegisters, 12, 2) in reads  # two points in one read
    assert not any(isinstance(one, (m.WriteSingleRegister, m.WriteMultipleRegisters)) for one in site.device.seen)
    site.device.input[12] = 7
    eventually(lambda: last("plc.level")["value"] == 7)
    for counted in (65_535, 0):  # a counter that begins again is what it is
        site.device.input[13] = counted
        eventually(lambda counted=counted: last("plc.flow")["value"] == counted)  # type: ignore[misc]
    site.device.odd = True  # it was asked for two registers: what it says is no answer, and the others come
    eventually(lambda: last("plc.level")["quality"] == 0x80050000)
    count = sum(value is True for value in site.value("plc.pump"))
    eventually(lambda: sum(value is True for value in site.value("plc.pump")) > count)
    site.device.odd = False
    eventually(lambda: last("plc.level")["value"] == 7)
    site.device.silent = True  # a mirror of it says so, and goes on saying so
    eventually(lambda: last("plc.level")["quality"] == 0x80050000)
    count = len(site.value("plc.level"))
    eventually(lambda: len(site.value("plc.level")) > count + 1)
    site.device.silent = False
    eventually(lambda: last("plc.level")["value"] == 7)


@needs_postgres
def test_a_server_of_opc_ua(site: Site) -> None:
    """Each change that it tells of is there, with its own time, and its status whole; and where a connection broke for
    longer than it remembers, which is five seconds of a busy machine, a bad sample says so. (It does not say so where
    nobody asked it for that long: then all that it remembered comes.)"""
    eventually(lambda: site.last("filler.recipe"))
    assert site.last("filler.recipe")["value"] == "cola"
    eventually(lambda: len(site.value("filler.level")) > 20)
    values = site.value("filler.level")
    good = [value for value in values if value is not None]
    assert good == sorted(good)
    holes = [at for at in range(1, len(good)) if good[at] != good[at - 1] + 1]
    assert None in values or all(after - at >= QUEUE for at, after in itertools.pairwise(holes)), holes
    eventually(lambda: site.last("filler.level")["quality"] == 0)


# --- folders --------------------------------------------------------------------------------------------------------


def leave(site: Site, folder: str, name: str, data: bytes) -> Path:
    """A file that is renamed in whole."""
    path = site.mirror.folder(folder)
    (path / f".{name}").write_bytes(data)
    (path / f".{name}").rename(path / name)
    return path / name


@needs_postgres
def test_files_that_are_left_in_a_folder(site: Site) -> None:
    text = "tag;time;value\nlab_ph;29.01.2026 13:00:00;7,25\nlab_ph;29.01.2026 14:00:00;\n"
    path = leave(site, "lab", "shift.csv", text.encode())
    eventually(lambda: (path.parent / "done" / "shift.csv").exists())
    eventually(lambda: site.value("lab_ph") == [7.25, None])
    out = io.BytesIO()
    at = pa.array([1_770_000_000_000 + n for n in range(25_000)], pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"tag": ["batch_1"] * 25_000, "time": at, "value": list(range(25_000))}), out)
    other = leave(site, "batch", "run.parquet", out.getvalue())
    eventually(lambda: len(site.value("batch_1") or ()) == 25_000)
    eventually(lambda: (other.parent / "done" / "run.parquet").exists())
    leave(site, "lab", "again.csv", text.encode())  # the same once more changes nothing
    eventually(lambda: (path.parent / "done" / "again.csv").exists())
    eventually(lambda: site.mirror.ask("spooler", "status")["lanes"]["backfill"]["waiting"] == 0)
    assert site.value("lab_ph", revisions="all") == [7.25, None]
    waits = {"lab": 0, "batch": 0, "da": 0}
    eventually(lambda: {one["source"]: one["waits"] for one in site.mirror.ask(FILES, "status")} == waits)


@needs_postgres
def test_a_file_of_a_time_that_is_held_is_taken_whatever_its_age(site: Site) -> None:
    lab = site.mirror.folder("lab")
    at = int(datetime.datetime(1930, 1, 29, 12, tzinfo=datetime.UTC).timestamp()) // 3600
    span = {"first": at, "last": at, "by": "eve", "reason": "an inquiry"}
    text = "tag;time;value\nlab_held;29.01.1930 {hour}:30:00;{value}\n"
    assert site.mirror.ask("keeper", "hold", **span) == {"holds": 1}
    leave(site, "lab", "held.csv", text.format(hour=13, value=1).encode())
    leave(site, "lab", "beside.csv", text.format(hour=14, value=2).encode())
    eventually(lambda: site.value("lab_held", **{"from": "1900-01-01"}) == [1])
    eventually((lab / "done" / "held.csv").exists)
    eventually((lab / "bad" / "beside.csv.reason").exists)
    assert "older than the policy's `keep`" in (lab / "bad" / "beside.csv.reason").read_text()
    assert site.mirror.ask("keeper", "release", **span) == {"holds": 0}
    leave(site, "lab", "later.csv", text.format(hour=13, value=3).encode())
    eventually((lab / "bad" / "later.csv.reason").exists)


@needs_postgres
def test_files_that_are_not_as_declared_lie_in_bad_with_row_and_column(site: Site) -> None:
    lab = site.mirror.folder("lab")
    leave(site, "lab", "point.csv", b"tag;time;value\nlab_x;29.01.2026 13:00:00;1\nlab_x;29.01.2026 13:00:01;7.25\n")
    reason = lab / "bad" / "point.csv.reason"
    eventually(reason.exists)
    assert reason.read_text() == "row 3, column value: '7.25' is no number (decimal mark ',')\n"
    assert site.value("lab_x") is None  # nothing of a file that is not whole
    (lab / "link.csv").symlink_to("/etc/passwd")
    (lab / "half.csv.part").write_bytes(b"tag;time;value\nlab_x;29.01.2026 13:00:00;1\n")
    os.mkfifo(lab / "pipe")
    leave(site, "lab", "two\nlines.csv", b"tag;time;value\nlab_x;29.01.2026 13:00:00;1\n")
    leave(site, "batch", "bomb.parquet", b"PAR1" + os.urandom(4096) + b"\xff\xff\xff\x7fPAR1")
    eventually((lab / "bad" / "two\\x0alines.csv.reason").exists)
    eventually((site.mirror.folder("batch") / "bad" / "bomb.parquet.reason").exists)
    assert (lab / "link.csv").is_symlink() and (lab / "half.csv.part").exists() and (lab / "pipe").exists()
    assert site.value("lab_x") is None
    eventually(lambda: "left alone" in str(site.mirror.children[FILES].status().alarms))
    refused = [one.detail for one in site.mirror.auditor.of(SamplesRefused) if one.source == "lab"]
    assert any("row 3, column value" in one for one in refused)
    for name in ("link.csv", "half.csv.part", "pipe"):
        (lab / name).unlink()
    leave(site, "lab", "good.csv", b"tag;time;value\nlab_x;29.01.2026 13:00:00;1\n")  # the others go on
    eventually(lambda: site.value("lab_x") == [1])


@needs_postgres
def test_a_folder_that_somebody_replaces_by_a_link(site: Site, tmp_path: Path) -> None:
    """The part moves no file to where its producer may not."""
    lab = site.mirror.folder("lab")
    (lab / "done").rename(lab / "done-before")
    (lab / "done").symlink_to(tmp_path)
    leave(site, "lab", "later.csv", b"tag;time;value\nlab_y;29.01.2026 13:00:00;1\n")
    eventually(lambda: any("done" in words for words in site.told("away")))
    assert not list(tmp_path.iterdir())
    (lab / "done").unlink()
    eventually(lambda: site.value("lab_y") == [1])
    assert (lab / "done" / "later.csv").exists() or not list(tmp_path.iterdir())


# --- the copy in a database of the office's --------------------------------------------------------------------------


@needs_postgres
def test_a_quality_is_bad_in_all_answers_where_its_source_says_so(site: Site) -> None:
    """0 is bad in OPC DA, and good where nothing is said; it is kept as it is."""
    day = (int(time.time()) // 86_400 - 1) * 86_400
    rows = [(0, "1", "192"), (10, "9", "0"), (20, "", "0"), (30, "2", "64"), (60, "3", "192")]
    leave(site, "da", "one.csv", "\n".join(["time,value,quality", *(
        f"{day + at},{value},{quality}" for at, value, quality in rows), ""]).encode())  # fmt: skip
    eventually(lambda: site.value("opc_da") == [1, 9, None, 2, 3])
    said = {"tag": "opc_da", "from": str(day * 10**9), "to": str((day + 60) * 10**9)}
    assert [one["quality"] for one in site.lake.get("/v1/samples", params=said).json()["samples"]] == [192, 0, 0, 64]
    asked = {**said, "every": "1min", "functions": "count,max,good,uncertain,bad"}
    (found,) = site.lake.get("/v1/aggregates", params=asked).json()["aggregates"]
    assert [found[name] for name in ("count", "max", "good", "uncertain", "bad")] == [2, 2, 10, 30, 20]
    terms = site.lake.post("/v1/sql", json={"sql": "FROM tags SELECT qualities WHERE tag = 'opc_da'"}).json()["rows"]
    assert terms == [{"qualities": "opc-da"}]
    minutes = "select count, max from cofferdam.minutes where tag = 'opc_da' order by time"
    eventually(lambda: len(site.sql(minutes)) == 2)
    assert site.sql(minutes) == [(2, 2), (1, 3)]


@needs_postgres
def test_what_is_mirrored_is_in_the_office_s_database_too(site: Site) -> None:
    """Once, whatever came late, twice or is older than anything; each principal sees what it may."""
    now = int(time.time())
    some = [now - 3600 + s for s in range(25)] + [now + s for s in range(25)]
    site.odd.add([("flow_1", at, s / 7, 192 if s % 2 else 0x80000000) for s, at in enumerate(some)])
    for first, last in ((-4000, -3900), (now // 3600 - 1, now // 3600)):
        site.mirror.ask("keeper", "backfill", first=first, last=last)
    eventually(lambda: len(site.value("flow_1") or ()) == 50 and site.value("old") == [1])
    commit = site.mirror.ask("keeper", "status")["commit"]
    eventually(lambda: site.sql("select commit from cofferdam.position")[0][0] >= commit)
    everything = "SELECT tag, epoch_us(time) AS us, value, whole, text, quality FROM samples ORDER BY tag, us"
    there = "select tag, (extract(epoch from time) * 1000000)::int8, value, whole, text, quality from cofferdam.samples"
    mine = site.lake.post("/v1/sql", json={"sql": everything, "limit": 1000000, "format": "arrow"})
    assert mine.status_code == 200, mine.text
    rows = [tuple(row.values()) for row in pa.ipc.open_stream(mine.content).read_all().to_pylist()]
    plain = [row for row in rows if not row[0].startswith(("plc.", "filler."))]
    copied = sorted(
        (row for row in site.sql(there) if not row[0].startswith(("plc.", "filler."))), key=lambda row: row[:2]
    )
    # The sign of a zero is lost where SQL sorts.
    both = [str(some).replace("-0.0,", "0.0,") for some in (plain, copied)]
    assert len(plain) == len(copied) > 50 and both[0] == both[1]
    assert [str(value) for tag, _, value, *_ in copied if tag == "minus"] == ["-0.0"]
    assert site.sql("select count(*) from cofferdam.history_19690720")[0][0] > 0  # what is kept has a partition by day
    assert site.sql("select count(*) from cofferdam.history_rest where time > '1960-01-01'") == [(0,)]
    assert site.sql("select tag, max(count) from cofferdam.minutes where tag = 'flow_1' group by 1")[0][1] <= 30
    tags = {tag for (tag,) in site.sql("select distinct tag from cofferdam.samples_of_bi", "bi")}
    assert tags == {"flow_1"}
    # Of steps that are over: what is of this minute, and of the next, is none of its yet.
    coarse = "select seconds, sum(count), max(time) < now() - '1 min'::interval from cofferdam.aggregates_of_coarse"
    assert site.sql(f"{coarse} where time < to_timestamp({now - 1800}) group by 1", "coarse") == [(60, 12, True)]
    running = "select 1 from cofferdam.aggregates_of_coarse where time >= date_trunc('minute', now())"
    assert site.sql(running, "coarse") == []
    for user, table in (("bi", "samples"), ("bi", "history"), ("coarse", "samples_of_bi"), ("bi", "position")):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            site.sql(f"select 1 from cofferdam.{table}", user)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        site.sql("insert into cofferdam.samples_of_bi select * from cofferdam.samples_of_bi returning 1", "bi")
    assert site.mirror.ask(LOADER, "status")[0]["trouble"] == ""


def psql(site: Site, statement: str) -> str:
    """What the program prints for the role of a principal."""
    port = site.mirror.plant.made.port if site.mirror.plant else 0
    command = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "bi", "-d", site.office_name, "-At", "-c", statement]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENT,
                           env={**os.environ, "PGPASSWORD": PASSWORD})  # fmt: skip
    assert found.returncode == 0, (statement, found.stderr)
    return found.stdout


@needs_postgres
@pytest.mark.skipif(not DRIVER.exists() or shutil.which("isql") is None, reason="no psqlodbc (Debian: odbc-postgresql)")
def test_odbc_and_psql_read_it(site: Site, tmp_path: Path) -> None:
    eventually(lambda: site.sql("select count(*) from cofferdam.samples_of_bi", "bi") == [(50,)])
    port = site.mirror.plant.made.port if site.mirror.plant else 0
    (tmp_path / "odbc.ini").write_text(
        f"[history]\nDriver={DRIVER}\nServername=127.0.0.1\nPort={port}\nDatabase={site.office_name}\nSSLmode=disable\n"
        "ConnSettings=set search_path to cofferdam\n"
    )
    asked = "select count(*), max(quality) from cofferdam.samples_of_bi\n"
    command = ["isql", "-b", "-d;", "history", "bi", PASSWORD]
    found = subprocess.run(command, input=asked, capture_output=True, text=True, check=True, timeout=PATIENT,
                           env={**os.environ, "ODBCINI": str(tmp_path / "odbc.ini")})  # fmt: skip
    assert "50;2147483648" in found.stdout
    # What Excel and Power BI ask a driver for first: which tables there are, and the columns of one.
    for verb, words in (("help", "samples_of_bi"), ("help samples_of_bi", "quality")):
        listed = subprocess.run(command, input=f"{verb}\n", capture_output=True, text=True, check=True,
                                timeout=PATIENT, env={**os.environ, "ODBCINI": str(tmp_path / "odbc.ini")})  # fmt: skip
        assert words in listed.stdout, listed.stdout + listed.stderr
    assert psql(site, asked) == "50|2147483648\n"


JDBC = Path("/usr/share/java/postgresql.jar")


@needs_postgres
@pytest.mark.skipif(
    not JDBC.exists() or shutil.which("javac") is None, reason="no JDBC driver (Debian: libpostgresql-jdbc-java) or JDK"
)
def test_jdbc_reads_it(site: Site) -> None:
    """Views and columns by the driver's own questions, rows some at a time; writing is refused."""
    site.odd.add([("flow_j", time.time() + s / 100, s / 2, 192) for s in range(20)])
    eventually(lambda: site.sql("select count(*) from cofferdam.samples_of_bi where tag = 'flow_j'", "bi") == [(20,)])
    port = site.mirror.plant.made.port if site.mirror.plant else 0
    url = f"jdbc:postgresql://127.0.0.1:{port}/{site.office_name}"
    program = str(Path(__file__).with_name("Reader.java"))
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", str(JDBC), program, url, "bi", PASSWORD, "samples_of_bi"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * PATIENT)
    lines = found.stdout.splitlines()
    assert found.returncode == 0, found.stderr
    assert {"view samples_of_bi", "column time timestamptz", "column value float8"} <= {*lines}, lines
    assert lines[-2:] == ["rows 20 95.0", "refused 42501"], lines


# --- Grafana's files: no Grafana can be had here, so its requests are made as it makes them ---------------------------

GRAFANA = Path(__file__).parents[3] / "examples" / "grafana"


def panels(name: str, said: dict[str, str]) -> list[Any]:
    """The panels of a dashboard, as they are with these variables, or its own."""
    text = (GRAFANA / name).read_text()
    own = {one["name"]: one["current"]["value"] for one in json.loads(text)["templating"]["list"]}
    for variable, value in (own | said).items():
        text = text.replace("${" + variable + "}", value)
    assert "${" not in text
    found: list[Any] = json.loads(text)["panels"]
    return found


@pytest.fixture(scope="module")
def graphed(site: Site) -> Site:
    """With something to show, from now on: what lies back waits a minute for its turn."""
    site.odd.add([("flow_g", time.time() + s / 100, 1 + s / 7, 192) for s in range(50)])
    eventually(lambda: len(site.value("flow_g") or ()) == 50)
    return site


@needs_postgres
def test_grafana_s_files_for_infinity(graphed: Site) -> None:
    """Each request, as the plugin makes it, has the columns that the panel shows."""
    site, now = graphed, int(time.time())
    moments = {f"__{name}:date:iso": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now + seconds))
               for name, seconds in (("from", -86400), ("to", 3600))}  # fmt: skip
    (source,) = [one for one in yaml.safe_load((GRAFANA / "datasources.yaml").read_text())["datasources"]
                 if one["uid"] == "cofferdam-history"]  # fmt: skip
    assert (source["jsonData"]["auth_method"], source["secureJsonData"]["bearerToken"]) == (
        "bearerToken", "$COFFERDAM_KEY",
    )  # fmt: skip
    rows = {}
    with site.mirror.client("bi") as grafana:
        for panel in panels("history.json", moments):
            (target,) = panel["targets"]
            assert target["datasource"]["uid"] == source["uid"] and target["datasource"]["type"] == source["type"]
            asked = {one["key"]: one["value"] for one in target["url_options"]["params"]}
            answer = grafana.get(target["url"], params=asked)
            assert answer.status_code == 200, answer.text
            read = csv.DictReader(io.StringIO(answer.text))
            assert {one["selector"] for one in target["columns"]} <= {*(read.fieldnames or ())}, panel["title"]
            rows[panel["title"]] = list(read)
    assert sum(float(row["avg"]) for row in rows["Averages"] if row["tag"] == "flow_g") > 0
    assert {"flow_g"} <= {row["tag"] for row in rows["Tags"]}
    for panel in json.loads((GRAFANA / "history.json").read_text())["templating"]["list"]:
        if panel["name"] == "every":
            for step in panel["query"].split(","):
                said = {"tag": "flow_g", "last": "1h", "every": step}
                assert site.lake.get("/v1/aggregates", params=said).status_code == 200, step


@needs_postgres
def test_grafana_s_files_for_postgresql(graphed: Site) -> None:
    """Each statement, with Grafana's macros as it spells them out, as the role of a principal."""
    count = "select count(*) from cofferdam.samples_of_bi where tag = 'flow_g'"
    eventually(lambda: graphed.sql(count, "bi") == [(50,)])
    for panel in panels("history-in-postgresql.json", {"tag": "flow_g"}):
        (target,) = panel["targets"]
        between = "\"time\" BETWEEN '2020-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'"
        group = 'floor(extract(epoch from "time")/60)*60 AS "time"'
        statement = target["rawSql"].replace('$__timeFilter("time")', between)
        statement = statement.replace('$__timeGroupAlias("time", $__interval)', group)
        assert "$__" not in statement
        found = graphed.sql(statement, "bi")
        assert found and all("flow_g" in row for row in found)


GRAFANA_ASKS = {
    "which tables the editor offers": "SELECT table_schema || '.' || table_name FROM information_schema.tables"
    " WHERE table_schema NOT IN ('information_schema', 'pg_catalog')",
    "which columns": "SELECT column_name FROM information_schema.columns WHERE table_name = 'samples_of_bi'"
    " AND data_type IN ('timestamp with time zone', 'double precision', 'text')",
    "which version": "SELECT current_setting('server_version_num')::int / 100",
    "TimescaleDB": "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'",
    "$__timeGroup": 'SELECT floor(extract(epoch from "time")/3600)*3600 AS "time", tag AS metric, count(*)'
    " FROM cofferdam.samples_of_bi WHERE {filter} GROUP BY 1, 2 ORDER BY 1",
    "$__timeFrom, $__time": 'SELECT "time" AS "time", value FROM cofferdam.samples_of_bi'
    " WHERE \"time\" >= '{since}' AND \"time\" <= '{until}' ORDER BY 1",
    "$__timeEpoch, $__unixEpochFilter": 'SELECT extract(epoch from "time") as "time", value FROM'
    ' cofferdam.samples_of_bi WHERE extract(epoch from "time") >= 0 AND extract(epoch from "time") <= 4102444800',
}


@needs_postgres
@pytest.mark.skipif(shutil.which("psql") is None, reason="no psql")
def test_what_grafana_s_postgresql_source_asks_besides(graphed: Site) -> None:
    """By psql, as the role of a principal: what its editor asks of a database, and macros that our files do not use. It
    is offered what it may read, and nothing else."""
    flow = "select count(*) from cofferdam.samples_of_bi where tag = 'flow_g'"
    eventually(lambda: graphed.sql(flow, "bi") == [(50,)])
    since, until = "2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"
    said: dict[str, list[str]] = {}
    for what, statement in GRAFANA_ASKS.items():
        whole = statement.format(filter=f"\"time\" BETWEEN '{since}' AND '{until}'", since=since, until=until)
        said[what] = psql(graphed, whole).splitlines()
    assert said["which tables the editor offers"] == ["cofferdam.samples_of_bi"]
    assert {"tag", "time", "value"} <= {*said["which columns"]}
    assert said["TimescaleDB"] == ["0"] and int(said["which version"][0]) >= 1300
    assert sum(int(row.split("|")[2]) for row in said["$__timeGroup"] if "|flow_g|" in row) == 50
    assert len(said["$__timeFrom, $__time"]) == len(said["$__timeEpoch, $__unixEpochFilter"]) >= 50


@pytest.mark.parametrize("name", ["history.json", "history-in-postgresql.json"])
def test_grafana_s_dashboards_are_of_its_schema(name: str) -> None:
    """Read and written by the types that Grafana makes of its schema, nothing is lost: each word is one of it."""
    dashboards = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    encoder = importlib.import_module("grafana_foundation_sdk.cog.encoder")
    importlib.import_module("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    said = json.loads((GRAFANA / name).read_text())
    made = json.loads(encoder.JSONEncoder().encode(dashboards.Dashboard.from_json(said)))
    assert _within(said, made), name


def _within(said: Any, made: Any) -> bool:
    if isinstance(said, dict):
        return isinstance(made, dict) and all(key in made and _within(said[key], made[key]) for key in said)
    if isinstance(said, list):
        return isinstance(made, list) and len(said) == len(made) and all(map(_within, said, made))
    return bool(said == made)


@needs_postgres
def test_readers_of_a_hot_standby(graphed: Site, made: Postgres) -> None:
    """What the loader writes into the primary is read there, by the same roles and views, and nothing is written."""
    site = graphed
    with services.standby(made) as standby:
        login = f"{standby.dsn(site.office_name)} user=bi password='{PASSWORD}'"

        def count(tag: str) -> int:
            with psycopg.connect(login, autocommit=True) as conn:
                asked = "select count(*) from cofferdam.samples_of_bi where tag = %s"
                ((found,),) = conn.execute(asked, (tag,)).fetchall()
            return int(found)

        eventually(lambda: count("flow_g") == 50)
        site.odd.add([("flow_s", time.time(), 1.0, 192)])
        eventually(lambda: count("flow_s") == 1)
        with psycopg.connect(login, autocommit=True) as conn:
            for statement in ("create temp table t(a int)", "create table public.t(a int)"):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    conn.execute(statement)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("select 1 from cofferdam.samples")


@needs_postgres
def test_a_conduit_that_is_severed_or_over_reads_nothing_and_copies_nothing(site: Site) -> None:
    """Neither historian nor office's database is connected to, by whatever part; afterwards everything comes."""
    asked = "select count(*) from pg_stat_activity where application_name = 'cofferdam-mirror'"
    policy = site.mirror.policy()
    eventually(lambda: site.sql(asked)[0][0] > 1)
    site.mirror.reload(policy.held(conduits={"history": "severed"}))
    eventually(lambda: site.sql(asked) == [(0,)])
    for part in ("collector", FILES, LOADER):
        eventually(lambda part=part: _at_rest(site, part))  # type: ignore[misc]
    now = time.time()
    site.filled.add([("filled", now, 77, 192)])
    (site.mirror.folder("batch") / "late.parquet").write_bytes(b"")
    eventually(lambda: site.lake.get("/v1/tags").status_code == 403)
    site.mirror.reload(policy)
    eventually(lambda: (site.value("filled") or [0])[-1] == 77)
    eventually(lambda: not site.mirror.folder("batch").joinpath("late.parquet").exists())
    eventually(lambda: site.sql("select max(value) from cofferdam.samples where tag = 'filled'") == [(77,)])
    site.mirror.reload(policy.held(until={"history": time.time_ns() + 10**9}))
    eventually(lambda: site.sql(asked) == [(0,)])  # its time is over, and nobody has to say so
    site.mirror.reload(policy)
    eventually(lambda: site.sql(asked)[0][0] > 1)


def _at_rest(site: Site, part: str) -> bool:
    return {one["trouble"] for one in site.mirror.ask(part, "status")} == {"not at work: the conduit is severed"}


@needs_postgres
def test_a_database_that_was_away_has_everything_once(site: Site) -> None:
    """Its connection is cut while samples come, and its position belongs to nobody else."""
    now = int(time.time()) + 60
    site.odd.add([("flow_2", now + s / 10, s, 192) for s in range(100)])
    site.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'cofferdam_loader'")
    site.odd.add([("flow_2", now + s / 10, s, 192) for s in range(100, 300)])
    eventually(lambda: site.sql("select count(*) from cofferdam.samples where tag = 'flow_2'") == [(300,)])
    assert site.sql("select count(*) from cofferdam.history where tag = 'flow_2'") == [(300,)]
    with psycopg.connect(site.office, autocommit=True) as conn:
        conn.execute("update cofferdam.position set commit = commit + 1000000")
        eventually(lambda: "position in the database" in str(site.mirror.children[LOADER].status().alarms))
        conn.execute("update cofferdam.position set commit = commit - 1000000")
    site.odd.add([("flow_2", now + 120, 1.5, 192)])
    eventually(lambda: site.sql("select count(*) from cofferdam.samples where tag = 'flow_2'") == [(301,)])
