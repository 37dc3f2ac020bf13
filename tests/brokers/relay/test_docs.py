"""What docs/relay-http.md shows is tried: its policy loads, its program books every message once."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

from cofferdam.policy.load import loads
from tests.brokers.relay.crew import OFFICE, crew
from tests.waiting import PATIENT

PAGE = (Path(__file__).parents[3] / "docs" / "relay-http.md").read_text("utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_the_policy_loads() -> None:
    loaded = loads(block("yaml"), files={"production-count.json": b"{}", "order.json": b"{}"})
    assert set(loaded.policy.conduits) == {"counts-to-erp", "orders-to-mes"}


def test_the_program_books_every_message_once(tmp_path: Path) -> None:
    program = tmp_path / "pull.py"
    program.write_text(block("python"))
    with crew(tmp_path / "store") as relay, relay.client("mes") as mes:
        environment = {
            "RELAY_URL": f"http://{OFFICE}:{relay.port('outer')}", "RELAY_KEY": relay.keys["erp"], "ONCE": "1",
            "BOOKS": str(tmp_path / "books.db"), "no_proxy": "*",
        }  # fmt: skip
        for number in range(3):
            for again in (False, True):
                answer = mes.put(f"/v1/channels/counts/messages/shift-{number}", json={"line": "a", "n": number})
                assert answer.status_code == (200 if again else 201)
            command = [sys.executable, str(program)]
            subprocess.run(command, env=os.environ | environment, check=True, timeout=PATIENT)
    with sqlite3.connect(tmp_path / "books.db") as books:
        assert books.execute("SELECT number FROM counts ORDER BY number").fetchall() == [(1,), (2,), (3,)]
    books.close()
