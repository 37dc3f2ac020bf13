"""What docs/relay-http.md shows is tried: its policy, its commands, and its program, which books every message once."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cofferdam.policy.load import loads
from cofferdam.policy.messages.checked import Checked, Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.terms.relay_rows import Channel, Limit, Relay, RelayRows
from tests.brokers.relay.crew import OFFICE, PLANT, RunningCrew, crew
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


CURL = re.findall(r"^curl (?:.*\\\n)*.*$", PAGE, re.MULTILINE)
"""The commands of the page: push, lease, settle."""


def run_curl(command: str, relay: RunningCrew, who: str, **said: str) -> tuple[int, Any]:
    """One of them, for this relay; what it is answered. `said`: what stands there for an example, and what is meant."""
    side, address = ("inner", PLANT) if who == "mes" else ("outer", OFFICE)
    for example, meant in said.items():
        command = command.replace(example, meant)
    command, hosts = re.subn(r"https://[0-9.:]+/", f"http://{address}:{relay.port(side)}/", command)
    command, authorities = re.subn(
        r"--cacert \S+", f"-sS --noproxy '*' --interface {address} -w '\\n%{{http_code}}'", command
    )
    assert hosts == authorities == 1, command
    environment = os.environ | {"KEY": relay.keys[who]}
    done = subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=PATIENT, capture_output=True)
    answer, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(answer)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_commands_with_curl(tmp_path: Path) -> None:
    """Their bodies are sent as what curl calls a form, unless they say otherwise, as PowerShell does."""
    push, lease, settle = CURL
    example = '\'{"line": "filler-1", "shift": "2027-01-04 early", "good": 8312}\''
    with crew(tmp_path / "store") as relay:
        for status in (201, 200):
            found, told = run_curl(push, relay, "mes", **{example: '\'{"line": "filler-1", "n": 8312}\''})
            assert (found, told["number"], told["id"]) == (status, 1, "filler-1.2027-01-04.early")
        found, leased = run_curl(lease, relay, "erp")
        assert (found, leased["seconds"]) == (200, 60)
        assert [message["data"] for message in leased["messages"]] == [{"line": "filler-1", "n": 8312}]
        found, told = run_curl(settle, relay, "erp", **{'"41"': f'"{leased["lease"]}"', "[17, 18]": "[1]"})
        assert (found, told["results"]) == (200, [{"number": 1, "status": 200}])


SCHEMAS = Path(os.environ.get("B2MML_SCHEMAS", "/nowhere"))
"""MESA's schema files of B2MML, which are not ours to copy: the folder `Schema` of their publication."""
QUANTITY = (
    "/OperationsPerformance/OperationsResponse/SegmentResponse/MaterialActual/Quantity/QuantityString"  # as in the page
)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="B2MML_SCHEMAS does not say where MESA's schemas are")
def test_the_message_of_b2mml_is_one_by_the_schemas_of_its_makers() -> None:
    files = {path.name: path.read_bytes() for path in SCHEMAS.glob("*.xsd")}
    name = "B2MML-OperationsPerformance.xsd"
    channel = Channel(name="p", form="xml", schema=name, limits=(Limit(at=QUANTITY, min=0, max=100_000),))
    checks = Checks(Relay([("c", RelayRows(channels=(channel,), schemas=files))]))
    message = block("xml")
    assert isinstance(checks("p", message.encode()), Checked), checks("p", message.encode())
    for before, after, fault in (
        (">4711<", ">10000000<", "limit"), ("<MaterialActual>", "<MaterialUsed/><MaterialActual>", "schema"),
        ("<DataType>integer</DataType>", "<DataType>whole</DataType>", "schema"),
    ):  # fmt: skip
        assert before in message
        refused = checks("p", message.replace(before, after).encode())
        assert isinstance(refused, Problem) and refused.fault == fault, refused


def test_the_page_limits_what_it_shows() -> None:
    assert f"      {QUANTITY}: " in PAGE
    channel = Channel(name="p", form="xml", limits=(Limit(at=QUANTITY, max=5),))
    checks = Checks(Relay([("c", RelayRows(channels=(channel,)))]))
    refused = checks("p", block("xml").encode())
    assert isinstance(refused, Problem) and refused.place.startswith("/OperationsPerformance"), refused
