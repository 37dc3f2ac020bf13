"""A relay in namespaces: two sides that see their own zone alone, a keeper that sees none, and messages that cross."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.cli.main import main
from cofferdam.enforce.putback import clean
from tests.enforce.site import DEVICE, ERP, GATE_IT, GATE_OT, STRANGER, Site, at, netns
from tests.gate.plant import Gate
from tests.waiting import PATIENT

pytestmark = netns
PORT = 8443
CONDUITS = f"""
  counts:
    from: plant
    to: office
    broker: relay
    owner: tests
    reason: tests
    listen:
      office: {{at: "{GATE_IT}:{PORT}", plain: true}}
      plant: {{at: "{GATE_OT}:{PORT}", plain: true}}
    tables:
      plant: {{at: "{DEVICE}:5432", database: mes}}
    channels: {{counts: {{}}}}
    allow:
      - {{who: mes, push: counts}}
      - {{who: line, push: counts, via: table}}
      - {{who: erp, pull: counts}}
"""


class Live:
    """A gate with a relay, and its command line."""

    def __init__(self, site: Site) -> None:
        self.site = site
        text = site.text(rules=CONDUITS).replace(
            "conduits:",
            f"  mes: {{zone: plant, addresses: [{DEVICE}]}}\n"
            "  line: {zone: plant, addresses: [10.82.0.18]}\nconduits:",
        )
        site.policy.write_text(text)
        self.gate = Gate(site.state, site.policy)

    def cofferdam(self, *words: str) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main([*words, "--state", str(self.site.state)])
        return code, said.getvalue()

    def key(self, who: str) -> str:
        code, said = self.cofferdam("relay", "key", "new", who, "--json")
        assert code == 0, said
        return str(json.loads(said)["key"])

    def http(self, who: str, key: str, method: str, path: str, said: Any = None) -> tuple[int, Any]:
        """One request from a principal's own host."""
        namespace, own, gate = (self.site.plant, DEVICE, GATE_OT) if who == "mes" else (self.site.office, ERP, GATE_IT)
        body = b"" if said is None else json.dumps(said).encode()
        with at(namespace), socket.socket() as sock:
            sock.settimeout(PATIENT)
            sock.bind((own, 0))
            sock.connect((gate, PORT))
            sock.sendall(
                f"{method} {path} HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            answer = b""
            while data := sock.recv(65536):
                answer += data
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content) if content else None


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as folder, Site(Path(folder)) as site:
        made = Live(site)
        try:
            made.gate.wait_ready()
            yield made
            assert made.gate.stop() == 0
            assert not site.gates()
        finally:
            made.gate.close()
            clean(site.state)


def test_a_message_crosses_and_nothing_else(live: Live) -> None:
    mes, erp = live.key("mes"), live.key("erp")
    status, _ = live.http("mes", mes, "PUT", "/v1/channels/counts/messages/one", {"n": 1})
    assert status == 201
    status, taken = live.http("erp", erp, "POST", "/v1/channels/counts/lease", {"max": 5})
    assert (status, [each["data"] for each in taken["messages"]]) == (200, [{"n": 1}])
    settled = {"lease": taken["lease"], "done": [taken["messages"][0]["number"]]}
    assert live.http("erp", erp, "POST", "/v1/channels/counts/settle", settled)[0] == 200
    code, said = live.cofferdam("relay", "verify")
    assert (code, "no findings" in said) == (0, True), said


def test_a_stranger_reaches_no_side_and_no_side_the_others_zone(live: Live) -> None:
    for own, target in ((STRANGER, GATE_IT), (ERP, GATE_OT), (ERP, DEVICE)):
        with at(live.site.office), socket.socket() as sock:
            sock.settimeout(1)
            sock.bind((own, 0))
            with pytest.raises(OSError, match=r"timed out|refused|reset|unreachable|No route"):
                sock.connect((target, PORT))
                assert sock.recv(1) != b"", "closed"
                raise AssertionError("connected")
    status, _ = live.http("erp", live.key("mes"), "GET", "/v1")
    assert status == 401


def test_the_part_with_tables_reaches_the_database(live: Live, tmp_path: Path) -> None:
    """What it dials is let through, under the filter and by its user; what shows itself there is no database."""
    with at(live.site.plant), socket.create_server((DEVICE, 5432)) as database:
        database.settimeout(PATIENT)
        (tmp_path / "password").write_text("a password\n")
        code, said = live.cofferdam("relay", "password", "plant", "--file", str(tmp_path / "password"))
        assert code == 0, said
        client, (source, _) = database.accept()
        with client:
            assert source == GATE_OT
            client.settimeout(PATIENT)
            assert client.recv(8) == bytes.fromhex("0000000804d2162f"), "it asks for TLS before it says anything"
            client.sendall(b"N")
            assert client.recv(1) == b"", "and says nothing without"


def test_what_holds_each_part_is_proved(live: Live) -> None:
    crews = {pair["name"]: pair for pair in live.gate.status()["pairs"]}
    (relay,) = (pair for name, pair in crews.items() if name.startswith("relay/"))
    assert [half["role"] for half in relay["halves"]] == ["outer", "keeper", "inner-tables", "inner"]
    code, said = live.cofferdam("prove")
    assert code == 0, said
