"""The how-tos for a SIEM and for keys, run as they stand on their pages: policy, rsyslog's configuration and commands,
with this machine's addresses, ports and folders in the place of a site's."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.brokers.relay.certificates import Made, make
from tests.gate.plant import Client, QuickGate, cli, log_of, policy_text
from tests.gate.test_relay import POLICY as RELAY
from tests.ports import held_port, held_ports
from tests.protocols.opcua.site import policy as opcua_policy
from tests.waiting import PATIENT, eventually

DOCS = Path(__file__).parents[2] / "docs"
CA = make("plant and soc", ca=True)
GTLS = list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so"))


def blocks(page: str, title: str) -> list[str]:
    """The fenced blocks under a heading, without the fences."""
    text = (DOCS / page).read_text()
    section = re.split(r"\n## ", text[text.index(f"\n## {title}\n") + 4 :])[0]
    return [block.partition("\n")[2] for block in section.split("\n```")[1::2]]


class Site:
    """A gate with Modbus, OPC UA and a relay, and a folder in which somebody types what a page says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.policy = folder, folder / "state", folder / "policy.yaml"
        modbus, device, opcua, office, plant, management = held_ports(6)
        self.port = modbus
        self.said: dict[str, Any] = yaml.safe_load(policy_text({"plc": (device, modbus)}))
        other = yaml.safe_load(opcua_policy(held_port(), opcua).replace("mes", "viewer"))
        relay = yaml.safe_load(RELAY.format(office=office, plant=plant, management=management).replace("erp", "orders"))
        for part in (other, relay):
            for section in ("zones", "assets", "principals", "conduits"):
                self.said[section] |= part.get(section, {})
        self.said["gate"] = relay["gate"]
        self.gate = QuickGate(self.state, self._write())
        self.bring("server.pem", "server.key", make("relay.test", by=CA))
        self.bring("gate.pem", "gate.key", make("gate", by=CA))
        self.bring("export.pem", "export.key", make("gate.example", by=CA))
        (folder / "plant-ca.pem").write_bytes(CA.pem)

    def _write(self) -> Path:
        (self.folder / "count.json").write_text('{"type": "object"}')
        self.policy.write_text(yaml.safe_dump(self.said, sort_keys=False))
        return self.policy

    def collect(self, collectors: dict[str, Any]) -> None:
        self.said["audit"] = {"collectors": collectors}
        self._write()
        code, _, err = cli("reload", self.policy, "--state", self.state)
        assert code == 0, err

    def bring(self, certificate: str, key: str, made: Made) -> None:
        (self.folder / certificate).write_bytes(made.pem)
        (self.folder / key).write_bytes(made.key)

    def typed(self, block: str) -> Iterator[tuple[str, int, str]]:
        """Does what the lines of a block say. Yields (line, exit code, what was said)."""
        for raw in block.splitlines():
            line = raw.partition("  #")[0].strip().removeprefix("sudo ").replace("/var/lib/cofferdam", str(self.state))
            if "ID" in line.split():
                keys = json.loads(cli("relay", "key", "list", "--json", "--state", self.state)[1])
                line = line.replace("ID", keys[0]["id"])
            words = shlex.split(line)
            if words[:1] == ["cofferdam"]:
                code, out, err = cli(*words[1:], "--state", self.state)
                yield line, code, out + err
                if words[1] == "down":
                    self.gate.close()
            elif line == "systemctl start cofferdam":
                self.gate = QuickGate(self.state, self.policy)
                self.gate.wait_ready()
            elif words:
                done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENT, cwd=self.folder)
                yield line, done.returncode, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    made.gate.wait_ready()
    yield made
    made.gate.close()


@pytest.fixture(autouse=True)
def here(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.folder)


class Ingest(http.server.BaseHTTPRequestHandler):
    """What takes JSON lines by HTTPS."""

    protocol_version = "HTTP/1.1"
    tokens: set[str | None] = set()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).tokens.add(self.headers["Authorization"])
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def lake(site: Site) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ingest)
    secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secured.load_cert_chain(site.folder / "soc.pem", site.folder / "soc.key")
    server.socket = secured.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def rsyslog(site: Site, config: str, port: int) -> Iterator[Path]:
    """A real one. Where it writes events."""
    out, file = site.folder / "cofferdam.ocsf", site.folder / "rsyslog.conf"
    text = config.replace("/etc/rsyslog.d", str(site.folder)).replace("/var/log/cofferdam.ocsf", str(out))
    text = text.replace('"6514"', f'"{port}" address="127.0.0.1"')
    file.write_text(f'global(workDirectory="{site.folder}")\n{text}')
    process = subprocess.Popen(["rsyslogd", "-n", "-f", str(file), "-i", str(site.folder / "pid")])
    try:
        yield out
    finally:
        process.terminate()
        process.wait(PATIENT)


@pytest.mark.skipif(shutil.which("rsyslogd") is None or not GTLS, reason="no rsyslog with gtls (rsyslog-gnutls)")
def test_the_log_goes_to_a_siem(site: Site) -> None:
    policy, commands, config = blocks("siem.md", "Fifteen minutes")
    for name in ("soc-ca.pem", "lake-ca.pem"):
        (site.folder / name).write_bytes(CA.pem)
    site.bring("soc.pem", "soc.key", make("soc.example", by=CA))
    (site.folder / "lake.token").write_text("Bearer of-the-lake\n")
    syslog = held_port()
    with (
        lake(site) as https,
        rsyslog(site, config, syslog) as out,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon,
    ):
        daemon.bind(("127.0.0.1", 0))
        said = yaml.safe_load(policy)["audit"]["collectors"]
        said["soc"]["to"] = said["soc"]["to"].replace("10.1.0.50:6514", f"127.0.0.1:{syslog}")
        said["lake"]["to"] = said["lake"]["to"].replace("10.1.0.51:8443", f"127.0.0.1:{https}")
        said["local"]["to"] = said["local"]["to"].replace("514", str(daemon.getsockname()[1]))
        site.collect(said)
        told = {line: (code, text) for line, code, text in site.typed(commands)}
        assert len(told) == 5
        for line, (code, text) in told.items():
            assert code == 0 or line.endswith(("export test", "export status")), (line, text)
        eventually(lambda: cli("export", "test", "--state", site.state)[0] == 0)
        with Client(site.port) as client:
            client.ask(b"\x03\x00\x63\x00\x01")  # of a register that nobody may read

        def refusal() -> bool:
            events = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
            return any(one["unmapped"]["event"]["kind"] == "refused" for one in events if "unmapped" in one)

        eventually(refusal)
        assert Ingest.tokens == {"Bearer of-the-lake"}
        archive = site.state / "folders" / "export-archive" / "cofferdam.jsonl"
        eventually(lambda: archive.exists() and '"refused"' in archive.read_text())
        eventually(lambda: cli("export", "status", "--state", site.state)[0] == 0)


def test_keys_are_changed(site: Site) -> None:
    api, certificates, log = blocks("howto.md", "... change keys")
    before = (site.state / "keys" / "audit.pub").read_text()
    site.collect(
        {"soc": {"to": f"tls://127.0.0.1:{held_port()}", "authority": "plant-ca.pem"}}
    )  # nothing listens there: its secret is kept all the same
    cli("pki", "new", "--state", site.state)
    cli("relay", "key", "new", "mes", "--state", site.state)
    for block in (api, certificates):
        for line, code, text in site.typed(block):
            assert code == 0, (line, text)
    [key] = json.loads(cli("relay", "key", "list", "--json", "--state", site.state)[1])
    assert key["principal"] == "mes", "the second one is left"
    assert cli("reload", "--state", site.state)[0] == 0
    for line, code, text in site.typed(log):
        assert code == 0, (line, text)
    assert (site.state / "keys" / "audit.pub").read_text() != before
    assert (site.folder / "old-log" / "keys" / "audit.pub").read_text() == before
    assert log_of(site.state)[0]["event"]["kind"] == "log-opened"
    left = json.loads(cli("relay", "key", "list", "--json", "--state", site.state)[1])
    assert [one["id"] for one in left] == [key["id"]], "what is not the log's stays"
