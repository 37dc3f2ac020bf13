"""The mirror end to end: a real PostgreSQL, four processes under their filters, real readers."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cofferdam.brokers.kit.http.keys import Secrets
from cofferdam.brokers.mirror import api, catalogue, query, sql
from cofferdam.brokers.mirror.query import Deadline, Reading, TooMuch
from tests.brokers.mirror.crew import PRINCIPALS, Plant, RunningCrew, crew, historian
from tests.services import Postgres, needs_postgres
from tests.waiting import eventually

pytestmark = needs_postgres
NOW = int(time.time())
BEGIN = NOW - 7200
LAST = {"last": "12h"}
"""All of it, though the module was loaded when the run began, which may be hours ago."""
LOSSES = [
    catalogue.Loss(source, BEGIN * 10**9, NOW * 10**9, 7, "the spool had no room for it", NOW * 10**9)
    for source in ("historian", "elsewhere", "*")
]
"""Known before anything came; `elsewhere` is a source of which nobody here may read a tag by name."""


@pytest.fixture(scope="module")
def made() -> Iterator[Postgres]:
    with historian() as found:
        yield found


def fill(plant: Plant) -> None:
    """What these tests read."""
    plant.add([(f"flow_{n}", BEGIN + s, n + s / 10, 192) for s in range(0, 7200, 10) for n in range(5)])
    plant.add([("tank", NOW - 60, 1.5, 192), ("secret", NOW - 60, 7.0, 192), ("flow_nan", NOW - 50, float("nan"), 0)])
    plant.add([("flow_now", NOW + 300, 1.0, 192)])  # of a step that goes on
    plant.add([("flow_bad", BEGIN + 60 * s, float(s), 0x80000000 if s % 2 else 192) for s in range(100)])


@pytest.fixture(scope="module")
def mirror(made: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCrew]:
    plant = Plant(made)
    fill(plant)
    stores = tmp_path_factory.mktemp("mirror")
    (stores / "keeper").mkdir(mode=0o700)
    catalogue.save(stores / "keeper", catalogue.Catalogue(losses=LOSSES))
    with crew(stores, plant) as running:
        running.catches_up()
        yield running
        running.ends_well()


def get(mirror: RunningCrew, who: str, path: str, **params: Any) -> Any:
    with mirror.client(who) as client:
        return client.get(f"/v1/{path}", params=params)


def test_the_description_names_each_word_that_is_understood(mirror: RunningCrew) -> None:
    described = get(mirror, "bi", "openapi.json").json()["paths"]
    assert {path[4:] for path in described if path != "/v1"} == {*api._WORDS, "sql", "openapi.json"}
    for what, words in api._WORDS.items():
        assert {one["name"] for one in described[f"/v1/{what}"]["get"]["parameters"]} - {"Last-Event-ID"} == words, what


def test_samples_of_a_tag_in_every_form(mirror: RunningCrew) -> None:
    wanted = [1 + s / 10 for s in range(0, 7200, 10)]
    answer = get(mirror, "bi", "samples", tag="flow_1", **LAST)
    rows = answer.json()["samples"]
    assert [row["value"] for row in rows] == wanted
    assert {row["quality"] for row in rows} == {192}
    lines = get(mirror, "bi", "samples", tag="flow_1", format="ndjson", **LAST).text.splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = csv.DictReader(io.StringIO(get(mirror, "bi", "samples", tag="flow_1", format="csv", **LAST).text))
    assert [float(row["value"]) for row in table] == wanted
    parquet = pq.read_table(io.BytesIO(get(mirror, "bi", "samples", tag="flow_1", format="parquet", **LAST).content))
    arrow = pa.ipc.open_stream(get(mirror, "bi", "samples", tag="flow_1", format="arrow", **LAST).content).read_all()
    assert parquet["value"].to_pylist() == arrow["value"].to_pylist() == wanted
    steps = pq.read_table(io.BytesIO(get(mirror, "bi", "aggregates", tag="flow_1", format="parquet", **LAST).content))
    for made in (parquet, arrow, steps):  # no reader takes them for times of its own clock
        assert made.schema.field("time").type == pa.timestamp("ns", "UTC")
    with duckdb.connect() as db:
        assert db.sql("select count(*) from arrow").fetchall() == [(720,)]


def test_what_json_has_not_is_null(mirror: RunningCrew) -> None:
    (row,) = get(mirror, "bi", "samples", tag="flow_nan", **LAST).json()["samples"]
    assert row["value"] is None and row["quality"] == 0


def test_a_tag_that_one_may_not_read_does_not_exist(mirror: RunningCrew) -> None:
    assert {tag["tag"] for tag in get(mirror, "bi", "tags").json()["tags"]} == {
        *(f"flow_{n}" for n in range(5)), "tank", "flow_nan", "flow_bad", "flow_now",
    }  # fmt: skip
    for way in ({"tag": "secret"}, {"tags": "secret"}, {"tags": "se*"}, {"tag": "flow_17"}):
        answer = get(mirror, "bi", "samples", **way, **LAST)
        assert answer.status_code == 404, answer.text
    everything = get(mirror, "bi", "samples", tags="*", format="ndjson", **LAST).text
    assert "secret" not in everything
    assert "secret" in get(mirror, "lake", "samples", tags="*", format="ndjson", **LAST).text
    for what in ("aggregates", "at"):
        assert get(mirror, "bi", what, tag="secret", **({} if what == "at" else LAST)).status_code == 404


def test_gaps_of_sources_of_which_one_may_read_nothing_are_not_told(mirror: RunningCrew) -> None:
    def told(who: str) -> set[tuple[str, int | None]]:
        return {(one["source"], one["points"]) for one in get(mirror, who, "gaps", last="1d").json()["gaps"]}

    assert told("lake") == {("historian", 7), ("elsewhere", 7), ("*", 7)}
    assert told("bi") == {("historian", 7), ("*", None)}  # of what else was lost, not how much
    later = {"from": str((NOW + 5) * 10**9), "to": str((NOW + 7200) * 10**9)}
    assert get(mirror, "bi", "gaps", **later).json()["gaps"] == []


def test_resolution_holds_in_every_answer(mirror: RunningCrew) -> None:
    for path, said in (
        ("samples", LAST), ("at", {}), ("aggregates", {**LAST, "every": "10s"}), ("aggregates", {**LAST, "every": "1s"})
    ):  # fmt: skip
        answer = get(mirror, "coarse", path, tag="flow_1", **said)
        assert answer.status_code == 403, (path, answer.text)
    answer = get(mirror, "coarse", "aggregates", tag="flow_1", every="1min", **LAST)
    assert answer.status_code == 200 and len(answer.json()["aggregates"]) in (120, 121)
    with mirror.client("coarse") as client:
        assert client.post("/v1/sql", content="select 1").status_code == 404
    # Steps that begin anywhere have any sample one likes as their first, and one that goes on has each as its last.
    zone = "Asia/Kathmandu"
    for said in ({**LAST, "every": "61s"}, {**LAST, "every": "90s"}, {**LAST, "every": "1ms"}):
        answer = get(mirror, "coarse", "aggregates", tag="flow_1", functions="first", **said)
        assert answer.status_code in (400, 403), (said, answer.text)
    assert "every=60s" in get(mirror, "coarse", "aggregates", tag="flow_1", every="61s", **LAST).json()["detail"]
    for said in ({"every": "120s"}, {"every": "1d", "zone": zone}, {"every": "1month", "zone": zone}):
        assert get(mirror, "coarse", "aggregates", tag="flow_1", **LAST, **said).status_code == 200, said
    wanted = {"tag": "flow_now", "every": "1h", "last": "5h", "to": str((NOW + 7200) * 10**9)}
    assert len(get(mirror, "bi", "aggregates", **wanted).json()["aggregates"]) == 1
    for row in get(mirror, "coarse", "aggregates", **wanted).json()["aggregates"]:
        assert datetime.datetime.fromisoformat(row["time"]).timestamp() + 3600 <= time.time()


def test_aggregates_are_those_of_a_reference(mirror: RunningCrew) -> None:
    begin = (BEGIN + 600) // 300 * 300
    said = {"from": str(begin * 10**9), "to": str((begin + 3600) * 10**9), "every": "5min"}
    functions = "avg,min,max,count,first,last,delta,time_avg,good,bad"
    rows = get(mirror, "bi", "aggregates", tag="flow_2", functions=functions, **said).json()["aggregates"]
    assert len(rows) == 12
    for index, row in enumerate(rows):
        low = begin + 300 * index
        values = [(BEGIN + s, 2 + s / 10) for s in range(0, 7200, 10) if low <= BEGIN + s < low + 300]
        only = [value for _, value in values]
        assert row["count"] == len(only) == 30
        assert row["avg"] == pytest.approx(sum(only) / 30)
        assert (row["min"], row["max"], row["first"], row["last"]) == (only[0], only[-1], only[0], only[-1])
        assert row["delta"] == pytest.approx(only[-1] - only[0])
        held = [(max(at, low), value) for at, value in [(values[0][0] - 10, only[0] - 1), *values]]
        ends = [at for at, _ in held[1:]] + [low + 300]
        weighted = sum(value * (end - at) for (at, value), end in zip(held, ends, strict=True)) / 300
        assert row["time_avg"] == pytest.approx(weighted)
        assert row["good"] == pytest.approx(300) and row["bad"] == 0
    bad = get(mirror, "bi", "aggregates", tag="flow_bad", functions="good,bad,count", **said).json()["aggregates"]
    assert sum(row["bad"] for row in bad) == pytest.approx(1800, abs=61)
    assert sum(row["count"] for row in bad) in (29, 30, 31)


def test_the_autumn_hour_is_two(mirror: RunningCrew) -> None:
    said = {"from": "2026-10-25", "to": "2026-10-26", "zone": "Europe/Paris", "every": "1h"}
    answer = get(mirror, "bi", "aggregates", tag="flow_1", **said)
    assert answer.status_code == 200 and answer.json()["aggregates"] == []
    refused = get(mirror, "bi", "samples", tag="flow_1", **{"from": "2026-10-25T02:30:00"})
    assert refused.status_code == 400 and "offset" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("at", "says"),
    [("2026-10-25T02:30:00", "comes twice in Europe/Paris: an offset says which (+02:00 or +01:00"),
     ("2026-03-29T02:30:00", "does not come in Europe/Paris")],
)  # fmt: skip
def test_a_clock_of_a_doubled_hour_and_of_none_is_refused(mirror: RunningCrew, at: str, says: str) -> None:
    said = {"from": at, "to": "2026-11-01", "zone": "Europe/Paris"}
    refused = get(mirror, "bi", "samples", tag="flow_1", **said)
    assert refused.status_code == 400 and says in refused.json()["detail"]
    assert get(mirror, "bi", "samples", tag="flow_1", **{**said, "from": f"{at}+01:00"}).status_code == 200
    assert get(mirror, "bi", "samples", tag="flow_1", **{**said, "from": at[:10]}).status_code == 200


def test_the_value_at_a_time(mirror: RunningCrew) -> None:
    at = str((BEGIN + 105) * 10**9)
    assert get(mirror, "bi", "at", tag="flow_1", time=at).json()["values"][0]["value"] == 11.0
    assert get(mirror, "bi", "at", tag="flow_1", time=at, how="linear").json()["values"][0]["value"] == 11.5
    long_ago = get(mirror, "bi", "at", tag="flow_1", time="2020-01-01T00:00:00Z").json()["values"][0]
    assert long_ago["value"] is None


@pytest.mark.parametrize(
    "said",
    [
        {}, {"tag": "flow_1"}, {"tag": "flow_1", "from": "yesterday"}, {"tag": "flow_1", "last": "1 lightyear"},
        {"tag": "flow_1", "last": "3h", "limit": "0"}, {"tag": "flow_1", "last": "3h", "format": "xlsx"},
        {"tag": "flow_1", "last": "3h", "what": "1"}, {"tag": "flow_1", "tags": "x", "last": "3h"},
        {"tag": "flow_1", "from": "2300-01-01T00:00:00Z"}, {"tag": "flow_1", "from": "now", "to": "-1h"},
    ],
)  # fmt: skip
def test_what_is_not_understood_is_said(mirror: RunningCrew, said: dict[str, str]) -> None:
    answer = get(mirror, "bi", "samples", **said)
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"]


def test_limits_are_named(mirror: RunningCrew) -> None:
    answer = get(mirror, "bi", "samples", tags="flow_*", limit="10", **LAST)
    assert answer.status_code == 413 and "10 rows" in answer.json()["detail"]


def test_an_etag_saves_the_answer_and_gzip_works(mirror: RunningCrew) -> None:
    fixed = {"tag": "flow_1", "from": str(BEGIN * 10**9), "to": str(NOW * 10**9)}
    first = get(mirror, "bi", "samples", **fixed)
    assert first.headers["content-encoding"] == "gzip"
    mark = {"if-none-match": first.headers["etag"]}
    with mirror.client("bi", params={"tag": "flow_1"}) as client:
        plain = client.get("/v1/samples", params=fixed, headers={"accept-encoding": "gzip;q=0, identity"})
        assert "content-encoding" not in plain.headers and plain.json() == first.json()
        again = client.get("/v1/samples", params=fixed, headers=mark)
        assert again.status_code == 304 and not again.content
        assert client.get("/v1/samples", params={**fixed, "format": "csv"}, headers=mark).status_code == 200
        assert client.get("/v1/samples", params=fixed, headers={**mark, "accept": "text/csv"}).status_code == 200
        for said in (LAST, {"from": "-3h", "to": "now"}, {"from": fixed["from"]}):  # of another time each time
            asked = client.get("/v1/samples", params=said)
            mine = {"if-none-match": asked.headers["etag"]}
            assert client.get("/v1/samples", params=said, headers=mine).status_code == 200


def test_a_cursor_of_commits_loses_nothing_late(mirror: RunningCrew) -> None:
    assert mirror.plant is not None
    found, after = [], 0
    while True:
        page = get(mirror, "bi", "samples", tags="flow_*", after=str(after), limit="1000").json()
        found += [(row["tag"], row["time"]) for row in page["samples"]]
        after = page["commit"]
        if not page["more"]:
            break
    assert len(found) == len(set(found)) == 5 * 720 + 100 + 2
    mirror.plant.add([("flow_late", BEGIN + 3, 1.0, 192)])  # long behind the newest, within the overlap's next reading
    mirror.ask("keeper", "backfill", first=BEGIN // 3600, last=BEGIN // 3600)

    def late() -> list[Any]:
        rows: list[Any] = get(mirror, "bi", "samples", tags="flow_*", after=str(after)).json()["samples"]
        return [row for row in rows if row["tag"] == "flow_late"]

    eventually(lambda: get(mirror, "bi", "samples", tag="flow_late", **LAST).status_code == 200)
    eventually(late)


def test_events_of_what_is_committed(mirror: RunningCrew) -> None:
    assert mirror.plant is not None
    with mirror.client("bi") as client, client.stream("GET", "/v1/stream", params={"tags": "flow_*"}) as events:
        assert events.headers["content-type"] == "text/event-stream"
        lines = events.iter_lines()
        assert next(lines).startswith(":")
        mirror.plant.add([("flow_1", time.time(), 4711.0, 192), ("secret", time.time(), 4712.0, 192)])
        commit, rows = "", []
        for line in lines:
            if line.startswith("id: "):
                commit = line[4:]
            if line.startswith("data: "):
                rows = json.loads(line[6:])
                break
    assert [row["value"] for row in rows] == [4711.0] and commit.isdigit()
    with (
        mirror.client("bi") as client,
        client.stream("GET", "/v1/stream", params={"tag": "flow_1"}, headers={"last-event-id": "0"}) as events,
    ):
        data = next(line for line in events.iter_lines() if line.startswith("data: "))
        assert len(json.loads(data[6:])) >= 720  # all since then, again


def test_a_cursor_of_another_store_is_refused(mirror: RunningCrew) -> None:
    """Of one that was put back, say: what follows here would be passed over, and nobody would hear of it."""
    answer = get(mirror, "bi", "samples", tag="flow_1", after="9" * 12)
    assert answer.status_code == 400 and "put back" in answer.json()["detail"]
    with (
        mirror.client("bi") as client,
        client.stream("GET", "/v1/stream", params={"tag": "flow_1"}, headers={"last-event-id": "9" * 12}) as events,
    ):
        lines = list(events.iter_lines())
    assert lines[0] == "event: end" and "put back" in lines[1]


def test_keys_of_nobody_and_for_some_tags(mirror: RunningCrew) -> None:
    with mirror.client("") as client:
        assert client.get("/v1/tags").status_code == 401
        assert client.get("/health").status_code == 204
    answer = get(mirror, "far", "tags")  # a key that somebody has taken along to another machine
    assert answer.status_code in (401, 403), answer.text


def test_clients_that_do_not_read_hold_up_nobody(mirror: RunningCrew) -> None:
    """They have asked for all there is, and take nothing of it."""
    ask = "GET /v1/samples?tags=*&last=3h&format=json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n"
    slow = []
    for who in ("lake", "lake", "bi", "bi"):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", mirror.port))
        one.sendall(ask.format(mirror.keys[who]).encode())
        slow.append(one)
    for who in ("bi", "lake"):
        for _ in range(5):
            assert len(get(mirror, who, "samples", tag="flow_2", **LAST).json()["samples"]) == 720
    for one in slow:
        one.close()


SQL_THAT_WRITES = (
    "COPY (SELECT 1) TO '/tmp/x.csv'", "COPY samples TO '{store}/x.parquet'", "ATTACH '{store}/x.db'", "INSTALL httpfs",
    "LOAD httpfs", "SET memory_limit = '10GB'", "PRAGMA database_list; SELECT 1", "CREATE TABLE t AS SELECT 1",
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_parquet('/etc/passwd')", "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/etc/*')", "SELECT * FROM read_text('/proc/self/environ')", "DROP VIEW samples",
    "EXPORT DATABASE '{store}/x'", "SELECT getenv('HOME')", "CALL pragma_version()", "SELECT 1; SELECT 2", "",
    "SELECT * FROM sys", "DELETE FROM hot_log", "RESET enable_external_access",
    "EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1", "EXPLAIN ANALYZE CREATE TEMP TABLE mine AS SELECT 1",
    "explain /* */ analyze INSERT INTO hot_log SELECT 1", "EXPLAIN ANALYZE COPY (SELECT 1) TO '{store}/x.csv'",
    "SELECT * FROM add_grammar_extension('x')", "SELECT * FROM enable_logging('FileSystem', storage='file')",
    "SELECT * FROM pandas_scan()", "SELECT * FROM arrow_scan()", "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''/tmp/x.csv''')", "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM enable_profiling(save_location='{store}/x')", "WITH x AS (INSERT INTO hot_log VALUES (1)) SELECT 1",
    "SELECT length(repeat('x', 4000000000))", "SELECT list_sum(range(1000000000))",
)  # fmt: skip


def _strange(mirror: RunningCrew) -> list[str]:
    """What lies in the store that a keeper, which may seal or merge at any time, does not make."""
    own = re.compile(r"hours-.*|[hd]-?\d.*|hot-.*|catalogue.*|.*\.(arrows|json|new)")
    return sorted(path.name for path in mirror.store("keeper").iterdir() if not own.fullmatch(path.name))


@pytest.mark.parametrize("text", SQL_THAT_WRITES)
def test_sql_that_does_more_than_read_the_history(mirror: RunningCrew, text: str) -> None:
    before = _strange(mirror)
    with mirror.client("lake") as lake:
        answer = lake.post("/v1/sql", content=text.format(store=mirror.store("keeper")))
    assert answer.status_code == 400, answer.text
    assert _strange(mirror) == before


def test_sql_reads(mirror: RunningCrew) -> None:
    with mirror.client("lake") as lake:
        one = lake.post("/v1/sql", content="SELECT max(value) AS v, min(time) AS t FROM samples WHERE tag = 'tank'")
        assert one.json()["rows"] == [
            {"v": 1.5, "t": time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime(NOW - 60))}
        ]
        many = lake.post("/v1/sql", json={"sql": "SELECT tag, count(*) AS n FROM samples GROUP BY tag ORDER BY n DESC"})
        assert {row["tag"] for row in many.json()["rows"]} >= {"tank", "secret"}
        huge = lake.post("/v1/sql", content="SELECT * FROM samples a, samples b, samples c")
        assert huge.status_code == 413 and "rows" in huge.json()["detail"]
        assert lake.post("/v1/sql", content="SELECT tag FROM tags").status_code == 200
        twice = lake.post("/v1/sql", content="SELECT 1 AS a, 2 AS a_1, 3 AS a")
        assert twice.json()["rows"] == [{"a": 1, "a_1": 2, "a_2": 3}]
    with mirror.client("bi") as bi:
        assert bi.post("/v1/sql", content="SELECT 1").status_code == 404


def test_sql_is_ended_when_its_time_is_over(mirror: RunningCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "SECONDS", 0.2)
    reading = Reading(mirror.store("keeper"))
    asked = sql.Sql(reading)
    for text in (
        "SELECT count(*) FROM range(1000000000000) a, range(1000000) b",
        "WITH RECURSIVE t AS (SELECT 1 i UNION ALL SELECT i + 1 FROM t) SELECT count(*) FROM t",
    ):
        with pytest.raises(TooMuch, match="took more than"):
            asked.run("lake", reading.view(), text, 100)
    monkeypatch.undo()
    assert asked.run("lake", reading.view(), "EXPLAIN ANALYZE SELECT 1", 100).num_rows == 1


def test_a_key_for_some_tags_has_no_sql(mirror: RunningCrew) -> None:
    """SQL sees all tags: a key that is limited to some would be no limit."""

    def brought(secrets: Secrets) -> None:
        assert mirror.ask("reader", "secrets", secrets=msgspec.to_builtins(secrets))["keys"] == len(PRINCIPALS)

    keys = mirror.rows | {"lake": msgspec.structs.replace(mirror.rows["lake"], scopes=("flow_*",))}
    brought(Secrets(keys=tuple(keys.values())))
    try:
        assert get(mirror, "lake", "samples", tag="secret", **LAST).status_code == 404
        with mirror.client("lake") as lake:
            assert lake.post("/v1/sql", content="SELECT 1").status_code == 404
    finally:
        brought(mirror.secrets("reader"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("aggregates", {"from": "1677-09-21T00:12:44Z", "to": "2262-04-11T23:47:16Z", "every": "1month"}),
        ("aggregates", {"from": "2262-04-01", "to": "2262-04-11T23:47:16Z", "every": "12month"}),
        ("aggregates", {"from": "2262-04-01", "to": "2262-04-11T23:47:16Z", "every": "0d"}),
        ("samples", {"last": "1h", "limit": "9" * 5000}),
        ("at", {"time": "9223372036854775807", "how": "linear", "format": "\0"}),
        ("samples", {"tags": ",".join(["*"] * 200), "last": "1h"}),
        ("samples", {"last": "1h", "zone": "Mars/Base"}),
        ("aggregates", {"last": "1h", "functions": "avg,min,avg"}),
    ],
)  # fmt: skip
def test_the_borders_of_numbers_are_refused_and_end_nothing(
    mirror: RunningCrew, path: str, said: dict[str, str]
) -> None:
    answer = get(mirror, "bi", path, **({"tag": "flow_1"} | said if "tags" not in said else said))
    assert answer.status_code in (400, 404, 413), answer.text[:500]
    assert get(mirror, "bi", "samples", tag="flow_1", **LAST).status_code == 200


def test_an_answer_has_a_limit_of_bytes(mirror: RunningCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "BYTES_MOST", 1000)
    view = Reading(mirror.store("keeper")).view()
    with pytest.raises(TooMuch, match="MiB"):
        view.samples(["flow_1"], BEGIN * 10**9, NOW * 10**9, Deadline(60), most=1_000_000)


def test_verify_finds_what_is_late_and_fetches_it(mirror: RunningCrew) -> None:
    assert mirror.plant is not None
    mirror.catches_up()
    mirror.plant.add([("flow_1", BEGIN + 5, 99.0, 192), ("tank", BEGIN + 6, 98.0, 192)])  # far behind the overlap
    first, last = BEGIN // 3600, NOW // 3600
    for against, late in (("counts", 2.0), ("counts", 2.0), ("source", 77.0)):
        run = mirror.ask("keeper", "verify", first=first, last=last, against=against)

        def ended() -> bool:
            nonlocal run
            run = mirror.ask("keeper", "verified", number=run["number"])
            return bool(run["ended"])

        eventually(ended)
        assert run["differences"] == 0 and not run["failed"] and not run["source_has_less"], run
        mirror.catches_up()
        rows = get(mirror, "bi", "samples", tag="flow_2", **LAST).json()["samples"]
        assert rows[0]["value"] == late
        # A value that is corrected late: there are as many samples as before.
        mirror.plant.conn.execute("update samples set value = 77 where tag = 'flow_2' and value = 2")


def test_sealed_or_not_the_answer_is_the_same(mirror: RunningCrew) -> None:
    before = get(mirror, "lake", "samples", tags="*", limit="1000000", **{"from": str(BEGIN * 10**9)}).json()["samples"]
    hours = {"tag": "flow_1", "every": "1h", "from": str(BEGIN * 10**9), "to": str(NOW * 10**9)}
    hour = get(mirror, "bi", "aggregates", **hours).json()["aggregates"]
    assert mirror.ask("keeper", "seal")
    eventually(lambda: mirror.ask("keeper", "status")["files"] >= 1)
    after = get(mirror, "lake", "samples", tags="*", limit="1000000", **{"from": str(BEGIN * 10**9)}).json()["samples"]
    assert before == after
    assert hour == get(mirror, "bi", "aggregates", **hours).json()["aggregates"]
    assert get(mirror, "bi", "at", tag="flow_1", time=str((BEGIN + 105) * 10**9)).json()["values"][0]["value"] == 11.0
    mirror.catches_up()
