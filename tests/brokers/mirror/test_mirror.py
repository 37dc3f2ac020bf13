"""The mirror end to end: a real PostgreSQL, four processes under their filters, real readers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.brokers.mirror.crew import Plant, RunningCrew, crew, historian
from tests.services import Postgres, needs_postgres

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def made() -> Iterator[Postgres]:
    with historian() as found:
        yield found


@pytest.fixture(scope="module")
def mirror(made: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCrew]:
    plant = Plant(made)
    now = int(time.time())
    plant.add([(f"flow_{n}", now - 7200 + s, n + s / 10, 192) for s in range(0, 7200, 10) for n in range(5)])
    plant.add([("tank", now - 60, 1.5, 192), ("secret", now - 60, 7.0, 192)])
    with crew(tmp_path_factory.mktemp("mirror"), plant) as running:
        running.catches_up()
        yield running


def test_samples_of_a_tag(mirror: RunningCrew) -> None:
    with mirror.client("bi") as bi:
        answer = bi.get("/v1/samples", params={"tag": "flow_1", "last": "3h"})
        assert answer.status_code == 200, answer.text
        rows = answer.json()["samples"]
        assert len(rows) == 720
        assert [row["value"] for row in rows] == [1 + s / 10 for s in range(0, 7200, 10)]
