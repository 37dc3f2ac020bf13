"""What a reader has of history, the same by both stores: the keeper's files, by the reader's API, and the copy in a
PostgreSQL (a real one), by its views. One set of tests, and each store answers it in its own way."""

from __future__ import annotations

import io
import math
import struct
import time
from collections.abc import Iterator
from typing import Any, Protocol

import psycopg
import pyarrow.parquet as pq
import pytest

from tests.brokers.mirror.crew import LOADER, PASSWORD, Plant, RunningCrew, crew, historian
from tests.services import needs_postgres
from tests.waiting import eventually

pytestmark = needs_postgres
BEGIN = int(time.time()) // 3600 * 3600 - 30 * 3600
"""Of what these tests read: it is over, and of two days."""
BAD = 0x80000000
Rows = list[tuple[str, int, bytes, int]]
"""(tag, microseconds, the value's bytes, quality), in order."""
Steps = dict[tuple[str, int], tuple[float, float, float, int]]
"""(tag, seconds) -> average, least, most, count."""
ODD = (0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, -0.0)


class Store(Protocol):
    def caught_up(self) -> None: ...
    def samples(self, who: str, tag: str) -> Rows:
        """None of a tag that there is not, for `who`."""

    def tags(self, who: str) -> set[str]: ...
    def minutes(self, who: str) -> Steps: ...
    def is_refused(self, who: str, tag: str) -> bool:
        """Whether `who` gets no samples as they are."""

    def writes(self, who: str, statement: str) -> str:
        """What becomes of a statement that writes."""


def row(tag: str, us: int, value: float | None, quality: int) -> tuple[str, int, bytes, int]:
    if value is None or math.isnan(value):  # a sample without a value is one of bad quality
        value = math.nan  # a database has one of them
    return tag, us, struct.pack("<d", value), quality


class Files:
    """The reader's API over what the keeper keeps."""

    def __init__(self, mirror: RunningCrew) -> None:
        self._mirror = mirror

    def caught_up(self) -> None:
        self._mirror.catches_up()

    def samples(self, who: str, tag: str) -> Rows:
        with self._mirror.client(who) as client:
            said = {"tag": tag, "from": str(BEGIN * 10**9), "to": str((BEGIN + 86_400) * 10**9), "format": "parquet"}
            answer = client.get("/v1/samples", params=said)
        if answer.status_code == 404:
            return []
        assert answer.status_code == 200, answer.text
        table = pq.read_table(io.BytesIO(answer.content))
        times = table["time"].cast("int64").to_pylist()
        return [row(tag, at // 1000, value, quality) for at, value, quality in
                zip(times, table["value"].to_pylist(), table["quality"].to_pylist(), strict=True)]  # fmt: skip

    def tags(self, who: str) -> set[str]:
        with self._mirror.client(who) as client:
            return {one["tag"] for one in client.get("/v1/tags").json()["tags"]}

    def minutes(self, who: str) -> Steps:
        said = {"from": str(BEGIN * 10**9), "to": str((BEGIN + 86_400) * 10**9), "every": "1min",
                "functions": "avg,min,max,count", "tags": "flow_*"}  # fmt: skip
        with self._mirror.client(who) as client:
            answer = client.get("/v1/aggregates", params=said | {"format": "parquet"})
        assert answer.status_code == 200, answer.text
        table = pq.read_table(io.BytesIO(answer.content)).to_pydict()
        begins = [int(at.timestamp()) for at in table["time"]]
        found = zip(table["tag"], begins, table["avg"], table["min"], table["max"], table["count"], strict=True)
        return {(tag, at): (avg, low, high, count) for tag, at, avg, low, high, count in found if count}

    def is_refused(self, who: str, tag: str) -> bool:
        with self._mirror.client(who) as client:
            return client.get("/v1/samples", params={"tag": tag, "last": "40h"}).status_code in (403, 404)

    def writes(self, who: str, statement: str) -> str:
        with self._mirror.client(who) as client:
            answer = client.post("/v1/sql", content=statement)
        return "refused" if answer.status_code in (400, 403) else answer.text


class Database:
    """The views of the copy, by each principal's role."""

    def __init__(self, mirror: RunningCrew, office: str) -> None:
        self._mirror, self._office = mirror, office

    def _sql(self, who: str, statement: str, *said: Any) -> list[Any]:
        login = f" user={who} password='{PASSWORD}' options='-c timezone=UTC'"
        with psycopg.connect(self._office + login, autocommit=True) as conn:
            return conn.execute(statement, said).fetchall()

    def caught_up(self) -> None:
        self._mirror.catches_up()
        commit = self._mirror.ask("keeper", "status")["commit"]
        with psycopg.connect(self._office, autocommit=True) as conn:
            eventually(lambda: conn.execute("select max(commit) from cofferdam.position").fetchall()[0][0] >= commit)

    def samples(self, who: str, tag: str) -> Rows:
        found = self._sql(
            who, f"select tag, (extract(epoch from time) * 1000000)::int8, value, quality"
            f" from cofferdam.samples_of_{who} where tag = %s and time between to_timestamp(%s) and to_timestamp(%s)"
            " order by time", tag, BEGIN, BEGIN + 86_400,
        )  # fmt: skip
        return [row(*one) for one in found]

    def tags(self, who: str) -> set[str]:
        return {tag for (tag,) in self._sql(who, f"select distinct tag from cofferdam.samples_of_{who}")}

    def minutes(self, who: str) -> Steps:
        found = self._sql(
            who, "select tag, extract(epoch from time)::int8, avg, min, max, count"
            f" from cofferdam.aggregates_of_{who} where tag like 'flow\\_%%' and seconds = 60"
            " and time between to_timestamp(%s) and to_timestamp(%s)", BEGIN, BEGIN + 86_399,
        )  # fmt: skip
        return {(tag, at): (avg, low, high, count) for tag, at, avg, low, high, count in found}

    def is_refused(self, who: str, tag: str) -> bool:
        try:
            self._sql(who, "select 1 from cofferdam.samples where tag = %s", tag)
        except psycopg.errors.InsufficientPrivilege:
            return not self.samples(who, tag) if who != "coarse" else True
        return False

    def writes(self, who: str, statement: str) -> str:
        try:
            return str(self._sql(who, statement))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable,
                psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.WrongObjectType):  # fmt: skip
            return "refused"


class Both:
    """A crew with both, and what its historian has: of each tag and time the last value and quality."""

    def __init__(self, plant: Plant, mirror: RunningCrew, office: str) -> None:
        self.plant, self.mirror = plant, mirror
        self.stores: dict[str, Store] = {"files": Files(mirror), "database": Database(mirror, office)}
        self.has: dict[tuple[str, float], tuple[float | None, int]] = {}

    def add(self, rows: list[tuple[str, float, float | None, int]]) -> None:
        """The historian has these now, in the place of what it had of these times, and the mirror is to have them."""
        with self.plant.conn.cursor() as cursor:
            again = [(tag, at) for tag, at, _, _ in rows if (tag, at) in self.has]
            cursor.executemany("delete from samples where tag = %s and time = to_timestamp(%s)", again)
        self.plant.add(rows)
        for tag, at, value, quality in rows:
            self.has[tag, at] = (value, quality)

    def rows(self, tag: str) -> Rows:
        return [row(name, round(at * 10**6), value, quality)
                for (name, at), (value, quality) in sorted(self.has.items()) if name == tag]  # fmt: skip

    def bring(self) -> None:
        """What is older than what is read again by itself."""
        answer = self.mirror.ask("keeper", "backfill", first=BEGIN // 3600, last=BEGIN // 3600 + 23)
        assert isinstance(answer, dict), answer


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with historian() as made:
        plant, office = Plant(made), made.fresh()
        roles(office)
        name = office.split("dbname=")[1].split()[0]
        where = f'at: "127.0.0.1:{made.port}", database: {name}'
        copy = f", store: postgresql, postgresql: {{{where}, plain: true}}"
        with crew(tmp_path_factory.mktemp("stores"), plant, mirror=copy) as mirror:
            found = Both(plant, mirror, office)
            found.add([(f"flow_{n}", BEGIN + s, n + s / 7, BAD if s % 5 == 0 else 192)
                       for s in range(0, 3 * 3600, 20) for n in range(3)])  # fmt: skip
            found.add([("tank", BEGIN + n, value, 192) for n, value in enumerate(ODD)])
            found.add([("tank", BEGIN + 100, None, BAD), ("secret", BEGIN + 5, 1.0, 192)])
            found.bring()
            mirror.catches_up()
            yield found
            mirror.ends_well()


def roles(office: str) -> None:
    with psycopg.connect(office, autocommit=True) as conn:
        for role in ("cofferdam_loader", "bi", "coarse", "lake"):
            conn.execute(f"create role {role} login password '{PASSWORD}'")
        name = office.split("dbname=")[1].split()[0]
        conn.execute(f"grant create on database {name} to cofferdam_loader")


@pytest.fixture(params=["files", "database"])
def store(both: Both, request: pytest.FixtureRequest) -> Store:
    found = both.stores[request.param]
    found.caught_up()
    return found


def test_each_value_is_there_by_its_bits(both: Both, store: Store) -> None:
    assert store.samples("lake", "tank") == both.rows("tank") and len(both.rows("tank")) == len(ODD) + 1
    for number in range(3):
        assert store.samples("lake", f"flow_{number}") == both.rows(f"flow_{number}")


def test_a_tag_that_one_may_not_read_does_not_exist(both: Both, store: Store) -> None:
    assert store.tags("lake") >= {"flow_0", "flow_1", "flow_2", "tank", "secret"}
    assert store.tags("bi") >= {"flow_0", "flow_1", "flow_2", "tank"} and "secret" not in store.tags("bi")
    assert store.samples("bi", "flow_1") == both.rows("flow_1")
    assert store.is_refused("bi", "secret") and store.is_refused("coarse", "flow_1")


def test_who_may_read_minutes_has_those_of_good_samples(both: Both, store: Store) -> None:
    steps: dict[tuple[str, int], list[float]] = {}
    for (tag, at), (value, quality) in both.has.items():
        if tag.startswith("flow_") and quality != BAD and value is not None:
            steps.setdefault((tag, int(at) // 60 * 60), []).append(value)
    found = store.minutes("coarse")
    assert found.keys() == steps.keys()
    for key, values in steps.items():
        avg, low, high, count = found[key]
        assert (low, high, count) == (min(values), max(values), len(values)) and math.isclose(avg, sum(values) / count)


@pytest.mark.parametrize("statement", [
    "insert into samples values ('flow_1', now(), 1)", "delete from cofferdam.samples", "drop table cofferdam.history",
    "update cofferdam.samples_of_lake set value = 1", "create table mine(x int8)",
])  # fmt: skip
def test_nobody_writes(both: Both, store: Store, statement: str) -> None:
    before = store.samples("lake", "flow_0")
    assert store.writes("lake", statement) == "refused"
    assert store.samples("lake", "flow_0") == before == both.rows("flow_0")


def test_another_value_of_a_time_is_what_is_read_and_what_comes_twice_is_there_once(both: Both) -> None:
    """Also where it is sealed in between, and where the parts of both stores are killed."""
    for turn, killed in enumerate(((), ("keeper",), (LOADER,))):
        both.add([("flow_1", BEGIN + s, 1000.0 * (turn + 1) + s, 192) for s in range(0, 600, 20)])
        both.add([(f"new_{turn}", BEGIN + 7200 + s, float(s), 192) for s in range(30)])
        for _ in range(2):
            both.bring()
        if killed:
            both.mirror.kill(*killed)
            both.mirror.start()
            both.bring()
        last = max(value for value, _ in (both.has["flow_1", BEGIN + s] for s in range(0, 600, 20)) if value)
        for found in both.stores.values():
            found.caught_up()
            eventually(lambda found=found, last=last: last in _values(found.samples("lake", "flow_1")))  # type: ignore[misc]
            assert found.samples("lake", "flow_1") == both.rows("flow_1")
            assert found.samples("lake", f"new_{turn}") == both.rows(f"new_{turn}")
        both.mirror.ask("keeper", "seal")


def _values(rows: Rows) -> list[float]:
    return [struct.unpack("<d", value)[0] for _, _, value, _ in rows]
