"""The relay from its clients' side: real processes, real sockets, real HTTP clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.relay.crew import RunningCrew, crew


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCrew]:
    with crew(tmp_path_factory.mktemp("relay") / "store") as running:
        yield running


def test_a_message_crosses_and_is_done(tmp_path: Path) -> None:
    with crew(tmp_path / "store") as relay, relay.client("mes") as mes, relay.client("erp") as erp:
        answer = mes.put("/v1/channels/counts/messages/shift-1", json={"line": "filler", "n": 7})
        assert answer.status_code == 201, answer.text
        assert answer.json()["number"] == 1
        taken = erp.post("/v1/channels/counts/lease", json={"max": 10}).json()
        assert [(each["number"], each["id"], each["from"], each["data"]) for each in taken["messages"]] == [
            (1, "shift-1", "mes", {"line": "filler", "n": 7})
        ]
        settled = erp.post("/v1/channels/counts/settle", json={"lease": taken["lease"], "done": [1]})
        assert settled.json() == {"results": [{"number": 1, "status": 200}]}
        relay.ends_well()
