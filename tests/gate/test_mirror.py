"""The mirror in a gate that was started as a user starts it: keys and password by the command line, history by HTTP."""

from __future__ import annotations

import getpass
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cofferdam.cli import mirror
from tests.brokers.mirror.crew import PASSWORD, Plant, historian
from tests.gate.plant import QuickGate
from tests.ports import held_ports
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.site import pki
from tests.protocols.opcua.site import plant as plant_of_opcua
from tests.services import needs_postgres
from tests.verbs import cli
from tests.waiting import PATIENT, eventually, kill

pytestmark = needs_postgres
POLICY = """
site: works
zones:
  office: {{side: it, level: 4}}
  plant: {{side: ot, level: 2}}
principals:
  lake: {{zone: office, addresses: [127.0.0.1]}}
assets:
  filler:
    zone: plant
    address: 127.0.0.1
    port: {opcua}
    protocol: opcua
    timeout: 20 s
    security: {{asset: Aes256_Sha256_RsaPss, server: "urn:plant:server"}}
    points: {{level: {{at: "nsu=urn:plant:line;s=Line1.Level", type: Double, unit: cm}}}}
conduits:
  history:
    from: plant
    to: office
    broker: mirror
    owner: data
    reason: reports
    sources:
      historian:
        at: "127.0.0.1:{historian}"
        database: {database}
        role: mirror
        plain: true
        table: public.samples
        quality: quality
        every: 200 ms
        since: 2 days
      line: {{asset: filler, every: 200 ms}}
      lab: {{folder: lab, form: csv, settle: 0 s, of: lab_ph}}
    listen:
      office: {{at: "127.0.0.1:{office}", plain: true}}
    allow:
      - {{who: lake, read: all, sql: true}}
gate: {{separation: processes, management: "127.0.0.1:{management}"}}
"""


class Works:
    """A gate with a mirror, and its command line."""

    def __init__(self, folder: Path, plant: Plant) -> None:
        self.state = folder / "state"
        self.office, management, self.opcua = held_ports(3)
        policy = folder / "policy.yaml"
        policy.write_text(POLICY.format(
            office=self.office, management=management, opcua=self.opcua, historian=plant.made.port,
            database=plant.database,
        ))  # fmt: skip
        self.password = folder / "password"
        self.password.write_text(PASSWORD + "\n")
        self.gate = QuickGate(self.state, policy)

    def mirror(self, *words: str, code: int = 0) -> str:
        """`cofferdam mirror ...`."""
        found, said, complained = cli("mirror", *words, "--state", self.state)
        assert found == code, complained + said
        return said + complained

    def pids(self) -> dict[str, int]:
        """Of the mirror's parts that are ready."""
        found = {}
        for pair in self.gate.status()["pairs"]:
            for half in pair["halves"]:
                if pair["broker"] == "mirror" and half["ready"]:
                    found[half["name"].rpartition("/")[2]] = half["pid"]
        return found


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    with historian() as made:
        found = Plant(made)
        now = int(time.time())
        found.add([("flow", now - 7200 + s, s / 10, 192) for s in range(0, 7200, 10)])
        yield found
        found.conn.close()


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory, plant: Plant) -> Iterator[Works]:
    made = Works(tmp_path_factory.mktemp("works"), plant)
    try:
        made.gate.wait_ready()
        yield made
    finally:
        made.gate.stop()


def test_a_server_under_keys_and_a_reader_that_is_killed(works: Works, tmp_path: Path) -> None:
    """Keys come by the verbs that the proxies of OPC UA have; a reader that ends is born again, and nobody else is."""
    theirs = make(tmp_path / "plant", "urn:plant:server")
    said = ["--state", str(works.state), "--json"]
    made = json.loads(done(pki("new", *said)))
    assert [name.rpartition("/")[2] for name in made] == ["collector"]
    with plant_of_opcua(works.opcua, "secure", theirs):
        key = json.loads(works.mirror("key", "new", "lake", "--json"))["key"]
        with httpx.Client(
            base_url=f"http://127.0.0.1:{works.office}", timeout=PATIENT, trust_env=False,
            headers={"authorization": f"Bearer {key}"},
        ) as lake:  # fmt: skip

            def levels() -> int:
                try:
                    answer = lake.get("/v1/samples", params={"tag": "filler.level", "last": "1h"})
                except httpx.TransportError:  # a connection of the reader's that was killed
                    return 0
                rows = answer.json()["samples"] if answer.status_code == 200 else []
                return sum(row["quality"] == 0 for row in rows)

            eventually(lambda: "is not trusted" in works.mirror("status"))
            assert not levels()
            [side] = json.loads(done(pki("list", *said)))
            assert side["words"].startswith("towards assets, whose") and len(side["refused"]) == 1
            done(pki("trust", side["refused"][0]["thumbprint"], *said))
            eventually(lambda: levels() > 3)
            before = works.pids()
            for _ in range(3):
                reader = works.pids()["reader"]
                kill(reader)
                eventually(lambda reader=reader: works.pids().get("reader", reader) != reader)  # type: ignore[misc]
                count = levels()
                eventually(lambda count=count: levels() > count)  # type: ignore[misc]
            after = works.pids()
            assert {**after, "reader": 0} == {**before, "reader": 0}
            kill(after["keeper"])  # which takes all of them along, as ever
            eventually(lambda: not set(works.pids().values()) & set(after.values()) and len(works.pids()) == len(after))
            eventually(levels)


def nobody(words: str) -> str:
    """What asking for a password comes to where standard input is at its end."""
    raise EOFError


def done(found: tuple[int, str, str]) -> str:
    """What a command said, which went well."""
    assert found[0] == 0, found
    return found[1]


def test_from_a_password_to_a_plot(works: Works, plant: Plant) -> None:
    assert "there is no password" in works.mirror("status")
    with pytest.MonkeyPatch.context() as patch:  # a script has no terminal to ask at
        patch.setattr(getpass, "getpass", nobody)
        assert "--file FILE" in works.mirror("password", "historian", code=2)
    works.mirror("password", "historian", "--file", str(works.password))
    key = json.loads(works.mirror("key", "new", "lake", "--json"))["key"]
    eventually(lambda: json.loads(works.mirror("status", "--json"))["keeper"]["newest"])
    with httpx.Client(base_url=f"http://127.0.0.1:{works.office}", timeout=PATIENT, trust_env=False) as client:

        def count() -> int:
            answer = client.get(
                "/v1/samples", params={"tag": "flow", "last": "3h"}, headers={"authorization": f"Bearer {key}"}
            )
            return len(answer.json()["samples"]) if answer.status_code == 200 else 0

        eventually(lambda: count() == 720)
    assert "flow: 720 samples" in works.mirror("query", "flow", "--last", "3h")
    assert "flow" in works.mirror("tags")
    assert "no gaps, no differences: 1 tags, 720 samples" in works.mirror(
        "verify", "--last", "3h", "--against", "source"
    )
    with pytest.MonkeyPatch.context() as patch:  # a pipe is told how far it is, line by line
        patch.setattr(mirror, "LINE_SECONDS", 0.0)
        assert re.search(r"^\d+ of \d+ hours$", works.mirror("verify", "--last", "3h", "--against", "counts"), re.M)
    wrong = works.mirror("verify", "--last", "3h", "--tags", "flwo", code=2)
    assert "there is no tag 'flwo'" in wrong and "did you mean flow?" in wrong
    assert "0 damaged" in works.mirror("check")
    assert "no gaps are known" in works.mirror("gaps")
    lab = works.state / "folders" / "lab"
    (lab / ".ph.csv").write_text("time,value\n2026-01-29T12:00:00Z,7.25\n")
    (lab / ".ph.csv").rename(lab / "ph.csv")
    eventually(lambda: "lab_ph" in works.mirror("tags"))
    eventually(lambda: "0 files wait" in works.mirror("status"))
    assert (lab / "done" / "ph.csv").exists()
    plant.add([("flow_none", int(time.time()), float("nan"), 192)])  # what lies back waits a minute for its turn
    eventually(lambda: "flow_none" in works.mirror("tags"))
    assert "flow_none: 1 samples, and no number" in works.mirror("query", "flow_none")
    target = works.state / "out.csv"
    works.mirror("export", "lab_ph", "--from", "2026-01-01", "--output", str(target))
    assert target.read_text().splitlines()[1].startswith("lab_ph,2026-01-29T12:00:00.000000000Z,7.25,0")
    assert "1 times are held" in works.mirror("hold", "--from", "2026-01-29", "--to", "2026-01-30", "--reason", "audit")
    assert "audit" in works.mirror("status")
    assert "0 times are held" in works.mirror("hold", "--from", "2026-01-29", "--to", "2026-01-30", "--release")
    assert "no such hold" in works.mirror("hold", "--from", "2026-01-29", "--to", "2026-01-30", "--release", code=2)
    assert "is read again" in works.mirror("backfill", "--last", "3h")
    assert "being sealed" in works.mirror("seal")
    works.mirror("key", "revoke", json.loads(works.mirror("key", "list", "--json"))[0]["id"])
