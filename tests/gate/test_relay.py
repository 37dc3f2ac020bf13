"""The relay in a gate that was started as a user starts it: keys by the command line, messages by HTTP, both outlive
what dies."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cofferdam.cli.main import main
from cofferdam.enforce import kernel
from cofferdam.enforce.users import FILE, NEEDED
from tests.brokers.relay.certificates import make
from tests.gate.plant import QuickGate, cli, events
from tests.ports import held_ports
from tests.waiting import PATIENT, eventually, kill

POLICY = """
site: works
zones:
  office: {{side: it, level: 4}}
  plant: {{side: ot, level: 2}}
principals:
  erp: {{zone: office, addresses: [127.0.0.1]}}
  mes: {{zone: plant, addresses: [127.0.0.1]}}
conduits:
  counts-to-erp:
    from: plant
    to: office
    broker: relay
    owner: production
    reason: daily counts
    listen:
      office: {{at: "127.0.0.1:{office}"}}
      plant: {{at: "127.0.0.1:{plant}", plain: true}}
    channels:
      counts: {{schema: count.json, most: 100 kB}}
    allow:
      - {{who: mes, push: counts}}
      - {{who: erp, pull: counts}}
gate: {{separation: processes, management: "127.0.0.1:{management}"}}
"""
COUNTS = "/v1/channels/counts"
AUTHORITY = make("tests", ca=True)
SERVER = make("relay.test", by=AUTHORITY)

LACKING = os.geteuid() != 0 or bool(kernel.missing_capabilities(NEEDED))

LOGGED_IN = """
import sys
open("/proc/self/loginuid", "w").write(sys.argv.pop(1))
from cofferdam.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def may_log_in() -> bool:
    """Whether a process of a test may say who logged in, as a login does."""
    tried = "open('/proc/self/loginuid', 'w').write('1')"
    return subprocess.run([sys.executable, "-c", tried], capture_output=True, timeout=PATIENT).returncode == 0


class Works:
    """A gate with a relay, and its command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.office, self.plant, self.management = held_ports(3)
        (folder / "count.json").write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
        self.policy = folder / "policy.yaml"
        self.policy.write_text(POLICY.format(office=self.office, plant=self.plant, management=self.management))
        for name, made in (("ca", AUTHORITY), ("server", SERVER)):
            (folder / f"{name}.pem").write_bytes(made.pem)
            (folder / f"{name}.key").write_bytes(made.key)
        self.gate = QuickGate(self.state, self.policy)

    def relay(self, *words: str, code: int = 0) -> str:
        """`cofferdam relay ...`."""
        found, said, complained = cli("relay", *words, "--state", self.state)
        assert found == code, complained + said
        return said if code == 0 else complained

    def alarms(self) -> str:
        """The alarms that stand, as `cofferdam status --json` has them."""
        return str(json.loads(cli("status", "--json", "--state", self.state)[1])["alarms"])

    def key(self, who: str) -> str:
        """A new one, in the place of those that it had."""
        for known in json.loads(self.relay("key", "list", "--json")):
            if known["principal"] == who:
                self.relay("key", "revoke", known["id"])
        return str(json.loads(self.relay("key", "new", who, "--json"))["key"])

    def client(self, who: str, key: str) -> httpx.Client:
        base = f"http://127.0.0.1:{self.plant}" if who == "mes" else f"https://127.0.0.1:{self.office}"
        return httpx.Client(
            base_url=base,
            headers={"authorization": f"Bearer {key}"},
            verify=ssl.create_default_context(cadata=AUTHORITY.pem.decode()),
            trust_env=False,
            timeout=PATIENT,
        )


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    made = Works(tmp_path_factory.mktemp("works"))
    try:
        made.gate.wait_ready()
        eventually(lambda: "relay-office-certificate" in json.dumps(made.gate.status()["alarms"]))
        made.relay("certificate", "office", "--certificate", str(made.folder / "server.pem"),
                   "--key", str(made.folder / "server.key"))  # fmt: skip
        yield made
        assert made.gate.stop() == 0
        added = [name for event in events(made.state, "keys-set") for name in event["added"]]
        assert {name.split()[1] for name in added} == {"mes", "erp"}
        assert events(made.state, "messages-pushed")  # in a log that is whole
    finally:
        made.gate.close()


def pushed(client: httpx.Client, name: str, value: Any = 1) -> bool:
    """Whether a message is there: pushed again and again, as a client does."""
    with contextlib.suppress(httpx.TransportError):
        return client.put(f"{COUNTS}/messages/{name}", json={"n": value}).status_code in (200, 201)
    return False


def taken(erp: httpx.Client) -> dict[str, int]:
    """What lies there for it now: the number of each by its name. All of it is settled."""
    found: dict[str, int] = {}
    while (lease := erp.post(f"{COUNTS}/lease", json={"max": 100}).json()).get("messages"):
        found |= {each["id"]: each["number"] for each in lease["messages"]}
        done = {"lease": lease["lease"], "done": [each["number"] for each in lease["messages"]]}
        results = erp.post(f"{COUNTS}/settle", json=done).json().get("results", ())
        assert {each["status"] for each in results} <= {200}
    return found


def test_messages_cross_and_operators_see_them(works: Works) -> None:
    with works.client("mes", works.key("mes")) as mes, works.client("erp", works.key("erp")) as erp:
        assert mes.put(f"{COUNTS}/messages/one", json={"n": 1}).status_code == 201
        assert mes.put(f"{COUNTS}/messages/bad", json={"n": "x"}).status_code == 422
        assert re.search(r"erp +\d+ behind for \d+ s, 0 leased", works.relay("status"))
        found = taken(erp)
    assert "bad" not in found
    number = str(found["one"])
    assert "one" in works.relay("list", "counts")
    assert '{"n":1}' in works.relay("show", "counts", number, "--body")
    assert "erp: settled" in works.relay("show", "counts", number)
    assert "1 in quarantine" in works.relay("status")
    eventually(lambda: "counts-quarantine" in works.alarms())
    rows = json.loads(works.relay("quarantine", "list", "--json"))
    row = str(rows[0]["row"])
    assert "not of type" in works.relay("quarantine", "list")
    assert "does not pass" in works.relay("quarantine", "release", row, code=2)
    (works.folder / "good.json").write_text('{"n": 2}')
    assert "it passes now" in works.relay("quarantine", "edit", row, str(works.folder / "good.json"))
    assert "cannot release it" in works.relay("quarantine", "release", row, code=2)  # who edited
    works.relay("quarantine", "reject", row, "--reason", "a slip")
    assert "nothing is in quarantine" in works.relay("quarantine", "list")
    eventually(lambda: "counts-quarantine" not in works.alarms())
    works.relay("export", "counts", "--output", str(works.folder / "out.ndjson"))
    assert json.loads((works.folder / "out.ndjson").read_text().splitlines()[-1])["data"] == {"n": 1}
    assert "no findings" in works.relay("verify")
    works.relay("replay", "counts", "--from", number, "--to", "erp")
    assert '"paused"' in works.relay("pause", "counts", "--json")
    works.relay("resume", "counts")
    assert "no channel" in works.relay("list", "cuonts", code=2)


def test_keys_come_and_go_while_the_gate_runs(works: Works) -> None:
    for known in json.loads(works.relay("key", "list", "--json")):
        works.relay("key", "revoke", known["id"])
    first = works.key("mes")
    second, end, rest = works.relay("key", "new", "mes").partition("\n")
    assert (second[:4], end, rest) == ("cdk_", "\n", "")  # the key and nothing else, as KEY=$(...) takes it
    assert "mes has 2 keys" in works.relay("key", "new", "mes", code=2)
    for key in (first, second):
        with works.client("mes", key) as mes:
            assert mes.get("/v1").json()["principal"] == "mes"
    listed = json.loads(works.relay("key", "list", "--json"))
    assert [each["principal"] for each in listed] == ["mes", "mes"]
    works.relay("key", "revoke", listed[0]["id"])
    with works.client("mes", first) as mes:
        assert mes.get("/v1").status_code == 401
    with works.client("mes", second) as mes:
        assert mes.get("/v1").status_code == 200
    assert "did you mean mes" in works.relay("key", "new", "mse", code=2)
    assert "no key" in works.relay("key", "revoke", "nothing0", code=2)
    for path in (works.state / "secrets").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        if path.is_file():
            assert second not in path.read_text()
    works.relay("key", "revoke", listed[1]["id"])


def test_a_severed_conduit_carries_no_message_either_way(works: Works) -> None:
    """The operator's hand holds for a broker that knows nothing of it."""
    with works.client("mes", works.key("mes")) as mes, works.client("erp", works.key("erp")) as erp:
        eventually(lambda: pushed(mes, "before-severing"))
        for kind, name in (("conduit", "counts-to-erp"), ("zone", "plant")):
            assert main(["sever", kind, name, "--reason", "a test", "--state", str(works.state)]) == 0
            assert mes.put(f"{COUNTS}/messages/meanwhile-{kind}", json={"n": 1}).status_code == 403
            assert erp.post(f"{COUNTS}/lease", json={"max": 1}).status_code == 403
            assert main(["restore", kind, name, "--state", str(works.state)]) == 0
            eventually(lambda kind=kind: pushed(mes, f"after-{kind}"))  # type: ignore[misc]


def test_its_figures_are_shown_without_code_of_theirs(works: Works) -> None:
    with works.client("mes", works.key("mes")) as mes:
        assert mes.put(f"{COUNTS}/messages/counted", json={"n": 1}).status_code == 201
        assert mes.put(f"{COUNTS}/messages/counted", json={"n": 1}).status_code == 200
    status = works.gate.status()
    figures = {figure["name"]: figure for figure in status["figures"] if figure["broker"] == "relay"}
    assert figures["pushed"]["values"]["counts"] >= 1 and figures["repeated"]["values"]["counts"] >= 1
    assert figures["store_free"]["unit"] == "bytes" and figures["store_free"]["values"][""] > 0
    assert figures["commit"]["values"][""]["count"] >= 1
    assert [conduit["broker"] for conduit in status["conduits"]] == ["relay"] and status["assets"] == []
    code, text, _ = cli("status", "--state", works.state)
    words = " ".join(text.split())
    assert code in (0, 1) and "relay by channel" in words and "pushed" in words and "Durations of relay" in words
    with httpx.Client(trust_env=False, timeout=PATIENT) as operator:
        page = operator.get(f"http://127.0.0.1:{works.management}/metrics").text
    samples = [line.rpartition(" ")[0] for line in page.splitlines() if line and not line.startswith("#")]
    assert len(samples) == len(set(samples)), "Prometheus refuses a page with a sample twice"
    assert 'cofferdam_relay_pushed_total{channel="counts"}' in samples
    assert "cofferdam_relay_store_free_bytes" in samples and "cofferdam_relay_commit_seconds_count" in samples
    assert "cofferdam_relay_http_requests_total" in samples
    assert not [name for name in samples if name.startswith("cofferdam_requests_total")], "no proxy, no figures of one"


def test_what_dies_comes_back_and_nothing_is_lost(works: Works) -> None:
    mes_key, erp_key = works.key("mes"), works.key("erp")
    with works.client("mes", mes_key) as mes, works.client("erp", erp_key) as erp:
        for number, part in enumerate(("keeper", "inner", "outer", "keeper")):
            eventually(lambda number=number: pushed(mes, f"before-{number}"))  # type: ignore[misc]
            eventually(lambda part=part: part in works.gate.pids())  # type: ignore[misc]  # all are ready, not only these
            kill(works.gate.pid(part))
            eventually(lambda number=number: pushed(mes, f"after-{number}"))  # type: ignore[misc]
        wanted = {f"{when}-{number}" for when in ("before", "after") for number in range(4)}
        found: set[str] = set()

        def all_there() -> bool:
            with contextlib.suppress(httpx.TransportError):
                found.update(taken(erp))
            return found >= wanted

        eventually(all_there)
    assert "no findings" in works.relay("verify")


@pytest.mark.skipif(LACKING, reason="needs root and its capabilities")
def test_what_a_gate_left_that_was_root_in_all_its_parts_is_taken_over(works: Works) -> None:
    """Its log, keys, secrets and stores were root's; they are handed to the users of today, and nothing is lost."""
    mes_key, erp_key = works.key("mes"), works.key("erp")
    with works.client("mes", mes_key) as mes:
        eventually(lambda: pushed(mes, "of-root"))
    assert works.gate.stop() == 0
    there = [works.state, *(path for path in works.state.rglob("*") if path.is_file() or path.is_dir())]
    for path in there:
        os.chown(path, 0, 0)
    works.state.chmod(0o700)
    for path in works.state.rglob(FILE):  # who has which user: nobody had one
        path.unlink()
    works.gate = QuickGate(works.state, works.policy).wait_ready()
    pids = works.gate.pids()
    users = {part: Path(f"/proc/{pids[part]}").stat().st_uid for part in ("keeper", "gate", "outer", "inner")}
    status = Path(f"/proc/{pids['auditor']}/status").read_text()  # not dumpable: its folder there is root's
    users["auditor"] = int(status.partition("Uid:")[2].split()[0])
    assert len(set(users.values())) == 5 and 0 not in users.values()
    [store] = (works.state / "stores").glob("*/keeper")
    for folder, part in ((store, "keeper"), *((works.state / name, "auditor") for name in ("audit", "keys"))):
        owned = {path.lstat().st_uid for path in [folder, *folder.rglob("*")] if os.path.lexists(path)}
        assert owned == {users[part]}, folder
    with works.client("mes", mes_key) as mes, works.client("erp", erp_key) as erp:
        eventually(lambda: pushed(mes, "of-a-user"))
        assert taken(erp).keys() >= {"of-root", "of-a-user"}
    assert "no findings" in works.relay("verify")
    assert cli("audit", "verify", "--state", works.state)[0] == 0


def test_a_certificate_that_is_not_there_is_told(works: Works) -> None:
    assert "MISSING" not in works.relay("certificate")
    assert "relay.test" in works.relay("certificate")
    (works.folder / "other.key").write_bytes(make("other").key)
    wrong = ["certificate", "office", "--certificate", str(works.folder / "server.pem"),
             "--key", str(works.folder / "other.key")]  # fmt: skip
    assert "not that of the certificate" in works.relay(*wrong, code=2)
    assert "did you mean office" in works.relay("certificate", "ofice", "--certificate", "/x", "--key", "/x", code=2)


@pytest.mark.skipif(not may_log_in(), reason="the kernel lets nobody log in here")
def test_people_are_told_apart_although_each_is_root(works: Works) -> None:
    def says(login: int, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", LOGGED_IN, str(login), "relay", "quarantine", *words, "--state", str(works.state)],
            capture_output=True, text=True, timeout=PATIENT,
        )  # fmt: skip
        return done.stdout + done.stderr

    with works.client("mes", works.key("mes")) as mes:
        assert mes.put(f"{COUNTS}/messages/twisted", json={"n": "y"}).status_code == 422
    row = str(json.loads(works.relay("quarantine", "list", "--json"))[0]["row"])
    (works.folder / "mended.json").write_text('{"n": 3}')
    assert "it passes now" in says(1, "edit", row, str(works.folder / "mended.json"))
    assert f"{pwd.getpwuid(1).pw_name} has edited row {row}, and cannot release it" in says(1, "release", row)
    assert f"now, released by {pwd.getpwuid(2).pw_name}" in says(2, "release", row)
    assert "nothing is in quarantine" in works.relay("quarantine", "list")
