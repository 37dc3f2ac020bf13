"""Any part of a mirror may be killed at any time: at the end source and mirror are equal."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.mirror.crew import PARTS, Plant, RunningCrew, crew, historian
from tests.services import Postgres, needs_postgres

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
    assert 40 * len(rounds) < 3000  # what is from the future is not read yet
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
@pytest.mark.parametrize("lot", range(15))
def test_every_part_is_killed_a_thousand_times(tmp_path: Path, made: Postgres, lot: int) -> None:
    kills(tmp_path, made, [(PARTS[(lot + number) % len(PARTS)],) for number in range(70)])
