"""What rides on a strand, all of it on one machine: a mirror, whose copy outside is read as any, shows what was lost
and is whole again once a ticket has been carried; and files that a scanner looks through."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cofferdam.cli.main import main
from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from cofferdam.protocols.modbus import messages as m
from tests.brokers.diode.machines import eventually
from tests.brokers.patch.makers import EICAR, HAS_CLAMD, clamd
from tests.enforce.site import netns
from tests.gate.plant import QuickGate, events
from tests.ports import held_ports
from tests.protocols.device import Device, served
from tests.verbs import cli

pytestmark = netns
POLICY = """
site: works
zones:
  office: {{side: it, level: 4}}
  plant: {{side: ot, level: 2}}
  strand-in: {{side: ot, addresses: [127.83.0.1/8], crossing: diode}}
  strand-out: {{side: it, addresses: [127.83.0.2/8], crossing: diode}}
principals:
  lake: {{zone: office, addresses: [127.0.0.1]}}
  mes: {{zone: plant, addresses: [127.0.0.1]}}
assets:
  plc:
    zone: plant
    address: 127.0.0.1
    port: {device}
    protocol: modbus
    unit: 1
    points: {{level: {{at: input 12, type: uint16}}, total: {{at: holding 100, type: uint32}}}}
conduits:
  history:
    from: plant
    to: office
    broker: mirror
    owner: compliance
    reason: flow totals for the regulator
    sources: {{plc: {{asset: plc, every: 100 ms}}}}
    mirror: {{acks: none}}
    listen: {{office: {{at: "127.0.0.1:{office}", plain: true}}}}
    allow: [{{who: lake, read: all, sql: true}}]
  counts-out:
    from: plant
    to: office
    broker: relay
    owner: production
    reason: daily counts
    channels: {{counts: {{order: parallel 100}}}}
    listen:
      plant: {{at: "127.0.0.1:{plant}", plain: true}}
      office: {{at: "127.0.0.1:{pulls}", plain: true}}
    allow: [{{who: mes, push: counts}}, {{who: lake, pull: counts}}]
  strand:
    {{from: strand-in, to: strand-out, broker: diode, owner: compliance, reason: telemetry, rate: 80 Mbit/s,
     port: {port}, wait: 1 s, carries: [history, files:reports, counts-out],
     files: {{reports: {{names: ["*.csv"], scan: true}}}}}}
gate: {{separation: processes, management: "127.0.0.1:{management}"}}
"""


class Works:
    """One machine on which all stands, the strand between two of its addresses."""

    def __init__(self, folder: Path, device: int, clamd: Path | None) -> None:
        self.state = folder / "state"
        office, plant, pulls, management, self.port = held_ports(5)
        self.policy = folder / "policy.yaml"
        self.policy.write_text(
            POLICY.format(device=device, office=office, plant=plant, pulls=pulls, management=management, port=self.port)
        )
        for verb, first, other in (("--output", "inside", "outside"), ("--take", "outside", "inside")):
            for end, file in (("inside", first), ("outside", other)):
                self.cli("diode", "pair", end, "--policy", str(self.policy), verb, str(folder / f"{file}.pair"))
        self.gate = QuickGate(self.state, self.policy, *(["--socket", f"clamd={clamd}"] if clamd else []))
        try:
            self.gate.wait_ready()
        except BaseException:
            self.gate.close()
            raise
        key = json.loads(self.cli("mirror", "key", "new", "lake", "--json"))["key"]
        self.lake = httpx.Client(base_url=f"http://127.0.0.1:{office}", headers={"authorization": f"Bearer {key}"})

        self.mes, self.taker = (
            httpx.Client(base_url=f"http://127.0.0.1:{port}/v1/channels/counts",
                         headers={"authorization": f"Bearer {self._key(who)}"})
            for port, who in ((plant, "mes"), (pulls, "lake"))
        )  # fmt: skip

    def _key(self, who: str) -> str:
        return str(json.loads(self.cli("relay", "key", "new", who, "--json"))["key"])

    def close(self) -> None:
        print(self.gate.said())
        for client in (self.lake, self.mes, self.taker):
            client.close()
        self.gate.close()

    def cli(self, *words: str) -> str:
        code, said, complained = cli(*words, "--state", self.state)
        assert code == 0, complained + said
        return said

    def ask(self, broker: str, part: str, verb: str, **arguments: object) -> Any:
        with contextlib.suppress(GateError):
            found = ask(self.state, "ask-part", broker=broker, part=part, verb=verb, arguments=arguments, crew="")
            return found[0]["result"]
        return {}

    def given(self, conduit: str) -> int:
        """The last number that the strand has taken of what rides."""
        channels = self.ask("diode", "spool", "status")["channels"]
        return max(int(one["highest"]) for one in channels if one["channel"] == f"records:{conduit}")

    def named(self, conduit: str) -> int:
        """How many of them the strand names as missing."""
        channels = self.ask("diode", "keeper", "status")["channels"]
        (missing,) = (one["missing"] for one in channels if one["channel"] == f"records:{conduit}")
        return int(missing)

    def push(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            answer = self.mes.put(f"/messages/shift-{number}", json={"n": number})
            assert answer.status_code == 201, answer.text

    def pull(self) -> list[int]:
        """All that the taker gets now; it settles it."""
        found: list[int] = []
        while True:
            handed = self.taker.post("/lease", json={"max": 100, "seconds": 30}).json()
            if not handed["messages"]:
                return found
            found += [one["data"]["n"] for one in handed["messages"]]
            done = [one["number"] for one in handed["messages"]]
            answer = self.taker.post("/settle", json={"lease": handed["lease"], "done": done})
            assert answer.status_code == 200, answer.text

    def pid(self, part: str, broker: str = "mirror") -> int:
        pairs = ask(self.state, "status", fresh=False)["pairs"]
        (found,) = [half["pid"] for pair in pairs if pair["name"].startswith(f"{broker}/") for half in pair["halves"]
                    if half["role"] == part]  # fmt: skip
        return int(found)

    def values(self, tag: str = "plc.level") -> list[int]:
        """None where whoever would say has just been killed."""
        try:
            answer = self.lake.get("/v1/samples", params={"tag": tag, "last": "1h"})
        except httpx.TransportError:
            return []
        return [one["value"] for one in answer.json()["samples"]] if answer.status_code == 200 else []

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        rules = (
            f"table inet cut {{\nchain in {{\ntype filter hook input priority 0;\nudp dport {self.port} drop\n}}\n}}\n"
        )
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        try:
            yield
        finally:
            subprocess.run(["nft", "delete", "table", "inet", "cut"], check=True)


@pytest.fixture(scope="module")
def device() -> Device:
    return Device()


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory, device: Device) -> Iterator[Works]:
    with contextlib.ExitStack() as held:
        port = held.enter_context(served(device))
        short = held.enter_context(tempfile.TemporaryDirectory(prefix="clamd-"))  # a socket's path has 107 bytes
        scanner = held.enter_context(clamd(Path(short) / "one")) if HAS_CLAMD else None
        yield held.enter_context(contextlib.closing(Works(tmp_path_factory.mktemp("works"), port, scanner)))


def show(device: Device, value: int) -> None:
    """Until it has been read, however busy who reads it is."""
    device.input[12] = value
    before = len(device.seen)
    eventually(lambda: any(isinstance(one, m.ReadInputRegisters) for one in device.seen[before:]))


def test_history_comes_out(works: Works, device: Device) -> None:
    eventually(lambda: 2012 in works.values())
    device.input[12] = 7
    eventually(lambda: works.values()[-1:] == [7])
    assert works.ask("mirror", "keeper", "status")["gaps"] == 0
    facts = works.ask("diode", "keeper", "status")
    channel = facts["channels"][-1]
    assert channel["channel"] == "records:history" and channel["epochs"][0]["highest"] > 1


def test_a_cut_shows_as_lost_and_a_ticket_mends_it(works: Works, device: Device) -> None:
    eventually(works.values)
    device.input[12] = 100
    eventually(lambda: works.values()[-1:] == [100])
    with works.cut():
        for value in range(101, 111):
            show(device, value)
    device.input[12] = 200
    eventually(lambda: works.values()[-1:] == [200])  # what is newer does not wait for what is missing
    eventually(lambda: works.ask("mirror", "keeper", "status").get("gaps"))
    (gap,) = works.ask("mirror", "keeper", "gaps")["gaps"]
    assert gap["lane"] == "live" and 0 < gap["until"] - gap["since"] < 60 * 10**9
    assert "the strand has not brought it" in gap["why"]
    with contextlib.redirect_stdout(io.StringIO()) as said:  # nobody can count at the source, and numbers tell it
        assert main(["mirror", "verify", "--last", "1h", "--state", str(works.state)]) == 1
    assert said.getvalue().startswith("1 times of which the strand has not brought all")
    assert 105 not in works.values()
    eventually(lambda: works.ask("diode", "keeper", "status")["channels"][-1]["missing"])
    assert not events(works.state, "part-ended")  # nobody's crew ended by it

    (ticket,) = json.loads(works.cli("diode", "ticket", "--json"))["tickets"]
    works.cli("diode", "resend", "--ticket", ticket["text"], "--go")
    eventually(lambda: works.ask("mirror", "keeper", "status").get("gaps") == 0)
    found = works.values()
    assert set(range(101, 111)) <= set(found), sorted(set(found))
    assert works.cli("mirror", "verify", "--last", "1h").startswith("no gaps, no differences: ")
    eventually(lambda: not works.ask("diode", "keeper", "status")["channels"][-1]["missing"])


def test_a_keeper_that_is_killed_loses_nothing(works: Works, device: Device) -> None:
    """What the strand brings while the mirror's outside is away lies in its folder until it is back."""
    eventually(works.values)
    for turn in range(3):
        os.kill(works.pid(("spooler", "keeper", "reader")[turn]), signal.SIGKILL)
        for value in range(300 + 20 * turn, 310 + 20 * turn):
            show(device, value)
        eventually(lambda value=value: works.values()[-1:] == [value])  # type: ignore[misc]
    assert works.ask("mirror", "keeper", "status")["gaps"] == 0


@pytest.mark.skipif(not HAS_CLAMD, reason="there is no clamd (Debian)")
def test_files_are_scanned_before_they_are_there(works: Works) -> None:
    out, into = (works.state / "folders" / f"reports-{way}" for way in ("out", "in"))
    for name, data in (("bad.csv", EICAR), ("good.csv", b"1,2\n")):
        (out / f".{name}").write_bytes(data)
        (out / f".{name}").rename(out / name)
    eventually((into / "good.csv").exists)
    eventually(lambda: events(works.state, "diode-file-refused"))
    (refused,) = events(works.state, "diode-file-refused")
    assert refused["name"] == "bad.csv" and "Test.Eicar" in refused["detail"]
    (received,) = events(works.state, "diode-file-received")
    assert received["name"] == "good.csv" and received["scan"].startswith("clean (clamd")
    assert [path.name for path in into.iterdir()] == ["good.csv"]


def test_messages_come_out_under_their_numbers_and_a_ticket_brings_what_is_missing(works: Works) -> None:
    works.push(1, 20)
    got: list[int] = []

    def until(wanted: set[int]) -> None:
        def there() -> bool:
            got.extend(works.pull())
            return set(got) >= wanted

        eventually(there)

    until(set(range(1, 21)))
    with works.cut():
        works.push(21, 40)
        eventually(lambda: works.ask("relay", "keeper", "status")["channels"][0]["consumers"][0]["lag"] == 0)
        eventually(lambda: works.given("counts-out") == 40)
        time.sleep(0.5)  # what has left the spool leaves the sender
    works.push(41, 50)
    until(set(range(41, 51)))
    assert not set(got) & set(range(21, 41))
    handed = works.taker.post("/lease", json={"max": 1, "seconds": 1}).json()
    assert handed["missing"] == [[21, 40]]
    said = works.cli("relay", "status")
    assert "numbers 21 to 40: missing since" in said and "(outside)" in said
    assert "not brought by the strand: counts 21 to 40" in works.cli("relay", "verify", "--end", "outside")
    eventually(lambda: works.named("counts-out") == 20)  # the strand lets what is late come before it names it
    for ticket in json.loads(works.cli("diode", "ticket", "--json"))["tickets"]:
        works.cli("diode", "resend", "--ticket", ticket["text"], "--go")
    until(set(range(1, 51)))
    assert sorted(got) == list(range(1, 51))
    assert "missing" not in works.taker.post("/lease", json={"max": 1, "seconds": 1}).json()
    inside, outside = (
        [(one["number"], one["key"], one["sha256"]) for one in
         json.loads(works.cli("relay", "list", "counts", "--end", end, "--json"))] for end in ("inside", "outside")
    )  # fmt: skip
    assert inside == outside and len(inside) == 50
    for end in ("inside", "outside"):
        assert "no findings" in works.cli("relay", "verify", "--end", end)


def test_a_relay_that_is_killed_at_either_end_loses_nothing(works: Works) -> None:
    first = works.ask("relay", "keeper", "status")["channels"][0]["next"]
    got: list[int] = []
    for turn, part in enumerate(("far", "keeper", "far", "inner")):
        works.push(first + 10 * turn, first + 10 * turn + 9)
        os.kill(works.pid(part, "relay"), signal.SIGKILL)
        wanted = set(range(first, first + 10 * turn + 10))

        def whole(wanted: set[int] = wanted) -> bool:
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                got.extend(works.pull())
            return set(got) >= wanted

        eventually(whole)
    assert works.ask("relay", "far", "status")["channels"][0]["missing"] == []
    assert "no findings" in works.cli("relay", "verify", "--end", "outside")
