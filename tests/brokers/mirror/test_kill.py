"""Any part of a mirror may be killed at any time, and the historian with it: at the end source and mirror are equal."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.events.mirror import SourceTold
from tests.brokers.mirror.crew import PARTS, Plant, RunningCrew, crew, historian
from tests.services import Postgres, needs_postgres
from tests.waiting import eventually

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def made() -> Iterator[Postgres]:
    with historian() as found:
        yield found


def verified(mirror: RunningCrew, first: int, last: int) -> Any:
    run = mirror.ask("keeper", "verify", first=first, last=last, against="source")
    assert not isinstance(run, str), run
    while not run["ended"]:
        time.sleep(0.05)
        run = mirror.ask("keeper", "verified", number=run["number"])
    return run


def kills(tmp_path: Path, made: Postgres, rounds: Sequence[Sequence[str]]) -> None:
    dice = random.Random(7)
    plant = Plant(made)
    begin = int(time.time()) - 3000
    at = begin
    with crew(tmp_path, plant) as mirror:
        for parts in rounds:
            plant.add([(f"tag{n}", at + s, n + s / 7, 192) for s in range(40) for n in range(20)])
            at += 40
            time.sleep(dice.random() * 0.5)
            if dice.random() < 0.3:
                mirror.ask("keeper", "seal")
            mirror.kill(*parts)
            mirror.start()
        mirror.catches_up()
        run = verified(mirror, begin // 3600, at // 3600)
        assert run["differences"] == 0 and not run["failed"] and not run["source_has_less"], run
        assert run["points"] == plant.count()
        assert mirror.ask("keeper", "gaps")["count"] == 0
        mirror.ends_well()


def test_every_part_is_killed(tmp_path: Path, made: Postgres) -> None:
    """In two rounds: the others end by themselves each time."""
    kills(tmp_path, made, [("keeper", "reader"), ("spooler", "collector")])


@pytest.mark.soak
def test_every_part_is_killed_a_thousand_times(tmp_path: Path, made: Postgres) -> None:
    kills(tmp_path, made, [(PARTS[number % len(PARTS)],) for number in range(1000)])


def test_a_historian_that_changes_under_it(tmp_path: Path, made: Postgres) -> None:
    """A column goes, rights are taken away, the table is emptied: told, and nothing is doubled or lost."""
    plant = Plant(made)
    now = int(time.time())
    plant.add([("a", now - 600 + s, s, 192) for s in range(500)])
    with crew(tmp_path, plant) as mirror:
        mirror.catches_up()

        def told(state: str) -> list[str]:
            return [one.detail for one in mirror.auditor.of(SourceTold) if one.state == state]

        plant.conn.execute("alter table samples rename column value to worth")
        eventually(lambda: any("value" in words for words in told("away")))
        plant.conn.execute("alter table samples rename column worth to value")
        eventually(lambda: told("back"))
        plant.conn.execute("revoke select on samples from mirror")
        eventually(lambda: any("denied" in words for words in told("away")))
        plant.conn.execute("grant select on samples to mirror")
        plant.conn.execute("truncate samples")
        plant.conn.execute("alter table samples alter column value type int using value::int")
        plant.conn.execute("alter table samples add column note text")
        plant.add([("a", now - 50, 7, 192), ("b", now - 49, 8, 192)])
        eventually(lambda: mirror.mirrored() == 502)
        run = verified(mirror, (now - 600) // 3600, now // 3600)
        assert run["differences"] == 0 and run["source_has_less"], run
        with mirror.client("lake") as lake:
            row = lake.get("/v1/at", params={"tag": "b"}).json()["values"][0]
        assert row["value"] == 8


def test_times_and_values_that_no_plant_should_have(tmp_path: Path, made: Postgres) -> None:
    plant = Plant(made)
    now = int(time.time())
    plant.add([("a", now - 60, 1.0, 192)])
    odd = [
        ("nan", "NaN", "now()"), ("inf", "Infinity", "now()"), ("minus", "-0", "now()"),
        ("tiny", "5e-324", "now()"), ("none", None, "now()"), ("old", "1", "'1969-07-20 20:17:40Z'"),
        ("future", "1", "now() + interval '2 hours'"),
        ("late", "1", "'2262-04-12 00:00:00Z'"), ("never", "1", "'infinity'"), ("", "1", "now()"),
        ("with\nline", "1", "now()"), ("ünïcode", "1", "now()"), ("x" * 201, "1", "now()"),
        ("dup", "1", "'2026-01-01Z'"), ("dup", "1", "'2026-01-01Z'"), ("dup", "2", "'2026-01-01Z'"),
    ]  # fmt: skip
    for tag, said_value, when in odd:
        plant.conn.execute(f"insert into samples values (%s, {when}, %s)", (tag, said_value))
    with crew(tmp_path, plant, source="", mirror="") as mirror:
        with mirror.client("lake") as lake:

            def value(tag: str, **said: str) -> Any:
                answer = lake.get("/v1/samples", params={"tag": tag, "from": "1960-01-01", **said})
                return [row["value"] for row in answer.json()["samples"]] if answer.status_code == 200 else None

            eventually(lambda: value("ünïcode") == [1])
            assert (value("nan"), value("inf"), value("none")) == ([None], [None], [None])
            assert value("tiny") == [5e-324]
            assert str(value("minus")) == "[-0.0]"
            for tag in ("future", "late", "never", "with\nline", "x" * 201):
                assert value(tag) is None, tag
            assert lake.post("/v1/sql", content="SELECT count(*) AS n FROM samples WHERE isnan(value)").json()[
                "rows"
            ] == [{"n": 2}]
        eventually(lambda: "from the future" in str(mirror.children["collector"].status().alarms))
        # What is older than `since` comes when it is asked for, and what is there twice is there once.
        mirror.ask("keeper", "backfill", first=-4000, last=-3900)
        mirror.ask("keeper", "backfill", first=490_800, last=491_000)
        with mirror.client("lake") as lake:
            eventually(lambda: value("old") == [1])
            eventually(lambda: value("dup") == [2])
            assert value("dup", revisions="all") == [1, 2]


def test_what_changes_in_a_historian_while_it_is_read(tmp_path: Path, made: Postgres) -> None:
    """A whole number's column becomes a float: nothing is rounded. A value is mended and mended back: the last stays. A
    time of the historian's own that has no place ends nothing."""
    plant = Plant(made)
    plant.conn.execute("alter table samples alter column value type bigint using value::bigint")
    plant.conn.execute("alter table samples add column server timestamptz")
    now = int(time.time())
    plant.add([("a", now - 5, 1, 192)])
    plant.conn.execute("insert into samples values ('s', now(), 1, 192, 'infinity'), ('s', now(), 2, 192, '3000-1-1')")
    with (
        crew(tmp_path, plant, source="server: server\n        overlap: 60 s") as mirror,
        mirror.client("lake") as lake,
    ):

        def value(tag: str, **said: str) -> Any:
            answer = lake.get("/v1/samples", params={"tag": tag, "last": "1h", **said})
            return [row["value"] for row in answer.json()["samples"]] if answer.status_code == 200 else None

        eventually(lambda: (value("a"), value("s", revisions="all")) == ([1], [1, 2]))
        for changed in (2, 1):
            plant.conn.execute("update samples set value = %s where tag = 'a'", (changed,))
            eventually(lambda changed=changed: value("a") == [changed])  # type: ignore[misc]
        assert value("s", revisions="all") == [1, 2]  # nothing more by being read again
        plant.conn.execute("alter table samples alter column value type float8")
        plant.conn.execute("insert into samples values ('f', now(), 7.25, 192)")
        eventually(lambda: value("f") == [7.25])
        mirror.ends_well()
