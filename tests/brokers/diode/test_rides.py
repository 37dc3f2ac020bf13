"""What rides on a strand, all of it on one machine: a mirror, whose copy outside is read as any, shows what was lost
and is whole again once a ticket has been carried; a relay; and files that a scanner looks through. Mirror and relay
then pass tests of their own crews, whose bodies are those of their folders, over a strand that loses packets."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from cofferdam.crossing.strand import waiting
from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from cofferdam.limits import strand_end
from cofferdam.protocols.modbus import messages as m
from tests.brokers.diode.machines import eventually, sender_is_empty
from tests.brokers.mirror import test_mirror as history
from tests.brokers.mirror.crew import PASSWORD, Plant, RunningCrew, historian
from tests.brokers.patch.makers import EICAR, HAS_CLAMD, clamd
from tests.brokers.relay import crew as relay_crew
from tests.brokers.relay import test_http as relay
from tests.enforce.site import netns
from tests.gate.plant import QuickGate, events
from tests.ports import held_ports
from tests.protocols.device import Device, served
from tests.services import POSTGRES_BIN
from tests.verbs import cli
from tests.waiting import PATIENT, kill

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
  bi: {{zone: office, addresses: [127.0.0.1]}}
  coarse: {{zone: office, addresses: [127.0.0.1]}}
  far: {{zone: office, addresses: [127.0.0.9]}}
  erp: {{zone: office, addresses: [127.0.0.1]}}
  mes: {{zone: plant, addresses: [127.0.0.1]}}
assets:
  plc:
    zone: plant
    address: 127.0.0.1
    port: {device}
    protocol: modbus
    unit: 1
    timeout: 60 s
    points: {{level: {{at: input 12, type: uint16}}, total: {{at: holding 100, type: uint32}}}}
conduits:
  history:
    from: plant
    to: office
    broker: mirror
    owner: compliance
    reason: flow totals for the regulator
    sources:
      plc: {{asset: plc, every: 100 ms}}
      {historian}
    mirror: {{acks: none}}
    listen: {{office: {{at: "127.0.0.1:{office}", plain: true}}}}
    allow:
      - {{who: lake, read: all, sql: true}}
      - {{who: bi, read: [flow_*, tank]}}
      - {{who: coarse, read: [flow_*], resolution: 1 min}}
      - {{who: far, read: all}}
  counts-out:
    from: plant
    to: office
    broker: relay
    owner: production
    reason: daily counts
    channels: {{counts: {{schema: count.json, most: 100 kB, order: parallel 1000}}}}
    listen:
      plant: {{at: "127.0.0.1:{plant}", plain: true}}
      office: {{at: "127.0.0.1:{pulls}", plain: true}}
    allow:
      - {{who: mes, push: counts}}
      - {{who: [lake, erp], pull: counts}}
      - {{who: lake, browse: counts}}
  strand:
    {{from: strand-in, to: strand-out, broker: diode, owner: compliance, reason: telemetry, rate: 80 Mbit/s,
     port: {port}, wait: 1 s, carries: [history, files:reports, counts-out],
     files: {{reports: {{names: ["*.csv"], scan: true}}}}}}
gate: {{separation: processes, management: "127.0.0.1:{management}"}}
"""
HISTORIAN = """historian:
        {{at: "127.0.0.1:{port}", database: {database}, role: mirror, plain: true, table: samples, quality: quality,
         every: 200 ms, since: 90 days}}
"""


class Works:
    """One machine on which all stands, the strand between two of its addresses."""

    def __init__(self, folder: Path, device: int, clamd: Path | None, plant: Plant | None = None) -> None:
        self.state = folder / "state"
        self.plant = plant
        office, pushes, pulls, management, self.port = held_ports(5)
        (folder / "count.json").write_bytes(relay_crew.FILES["count.json"])
        self.policy = folder / "policy.yaml"
        self.policy.write_text(POLICY.format(
            device=device, office=office, plant=pushes, pulls=pulls, management=management, port=self.port,
            historian=HISTORIAN.format(port=plant.made.port, database=plant.database) if plant else "",
        ))  # fmt: skip
        for verb, first, other in (("--output", "inside", "outside"), ("--take", "outside", "inside")):
            for end, file in (("inside", first), ("outside", other)):
                self.cli("diode", "pair", end, "--policy", str(self.policy), verb, str(folder / f"{file}.pair"))
        self.gate = QuickGate(self.state, self.policy, *(["--socket", f"clamd={clamd}"] if clamd else []))
        try:
            self.gate.wait_ready()
        except BaseException:
            self.gate.close()
            raise
        self.ports = {"mirror": office, "mes": pushes, "erp": pulls, "lake": pulls}
        self.keys: dict[tuple[str, str], str] = {}
        if plant:
            (folder / "password").write_text(f"{PASSWORD}\n")
            self.cli("mirror", "password", "historian", "--file", str(folder / "password"))
        self.lake = self.client("mirror", "lake")
        self.mes, self.taker = self.client("relay", "mes"), self.client("relay", "lake")
        for one in (self.mes, self.taker):
            one.base_url = one.base_url.join("/v1/channels/counts")

    def client(self, broker: str, who: str) -> httpx.Client:
        """Of a principal with its key, at the side that is its own."""
        if who and (broker, who) not in self.keys:
            said = json.loads(self.cli(broker, "key", "new", who, "--json"))
            self.keys[broker, who] = said["key"]
        headers = {"authorization": f"Bearer {self.keys[broker, who]}"} if who else {}
        port = self.ports["mirror" if broker == "mirror" else who]
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=PATIENT, trust_env=False)

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
        """What the part says; it is waited for while its crew starts anew."""
        found: list[Any] = []

        def answered() -> bool:
            with contextlib.suppress(GateError):
                found[:] = ask(
                    self.state, "ask-part", broker=broker, part=part, verb=verb, arguments=arguments, crew=""
                )
            return bool(found)

        eventually(answered)
        return found[0]["result"]

    def given(self, conduit: str) -> int:
        """The last number that the strand has taken of what rides."""
        channels = self.ask("diode", "spool", "status")["channels"]
        return max((int(one["highest"]) for one in channels if one["channel"] == f"records:{conduit}"), default=0)

    def left(self) -> None:
        """Waits until what the spool has handed over has left the sender."""
        sender_is_empty(self.state, lambda: cast(dict[str, Any], self.ask("diode", "spool", "status")))

    def named(self, conduit: str) -> int:
        """How many of them the strand names as missing."""
        channels = self.ask("diode", "keeper", "status")["channels"]
        (missing,) = (one["missing"] for one in channels if one["channel"] == f"records:{conduit}")
        return int(missing)

    def gaps(self) -> list[dict[str, Any]]:
        """What the mirror shows as missing."""
        found: list[dict[str, Any]] = self.ask("mirror", "keeper", "gaps")["gaps"]
        return found

    def verified(self) -> tuple[int, str]:
        """What `mirror verify` of the last hour ends with, and says first."""
        code, said, _ = cli("mirror", "verify", "--last", "1h", "--state", str(self.state))
        return code, said.partition(":")[0]

    def push(self, first: int, last: int) -> None:
        """Again where it met a part that has just been killed: the same message is taken once."""

        def taken(number: int) -> bool:
            try:
                answer = self.mes.put(f"/messages/shift-{number}", json={"line": "filler", "n": number})
            except httpx.TransportError:
                return False
            assert answer.status_code in (201, 503), answer.text
            return answer.status_code == 201

        for number in range(first, last + 1):
            eventually(lambda number=number: taken(number))  # type: ignore[misc]

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
        """Of a part that is ready, which it may not be for a while after another died."""
        found: list[int] = []

        def there() -> bool:
            pairs = [pair for pair in ask(self.state, "status", fresh=False)["pairs"] if pair["broker"] == broker]
            halves = [half for pair in pairs for half in pair["halves"]]
            found[:] = [half["pid"] for half in halves if half["role"] == part and half["ready"]]
            return bool(found)

        eventually(there)
        return found[0]

    def values(self, tag: str = "plc.level") -> list[int]:
        """None where whoever would say has just been killed."""
        try:
            answer = self.lake.get("/v1/samples", params={"tag": tag, "last": "1h"})
        except httpx.TransportError:
            return []
        return [one["value"] for one in answer.json()["samples"]] if answer.status_code == 200 else []

    def level(self) -> None:
        """Until the relay's keeper outside has all that the one inside has; what the strand names as missing is brought
        by tickets."""

        def there() -> bool:
            inside, outside = (self.ask("relay", part, "status")["channels"][0] for part in ("keeper", "far"))
            self.carry("counts-out")
            return bool(inside["next"] == outside["next"] and not outside["missing"])

        eventually(there)

    def carry(self, conduit: str) -> None:
        """What the strand names as missing, in tickets, to the inside."""
        if self.named(conduit):
            for ticket in self.ask("diode", "keeper", "ticket")["tickets"]:
                self.ask("diode", "spool", "resend", ticket=ticket["text"], go=True)

    @contextlib.contextmanager
    def cut(self, which: str = "") -> Iterator[None]:
        """Meanwhile all packets are lost, or `which` says which."""
        rules = (
            "table inet cut {\nchain in {\ntype filter hook input priority 0;\n"
            f"udp dport {self.port} {which} drop\n}}\n}}\n"
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
        plant = Plant(held.enter_context(historian())) if POSTGRES_BIN is not None else None
        if plant is not None:
            held.callback(plant.conn.close)
            history.fill(plant)
        made = Works(tmp_path_factory.mktemp("works"), port, scanner, plant)
        yield held.enter_context(contextlib.closing(made))


def show(device: Device, value: int) -> None:
    """Until it has been read, however busy who reads it is."""
    device.input[12] = value
    before = len(device.seen)
    eventually(lambda: any(isinstance(one, m.ReadInputRegisters) for one in device.seen[before:]))


@contextlib.contextmanager
def last(device: Device, value: int) -> Iterator[None]:
    """Once the device has been read with this value it says nothing any more."""
    answer, again, read = device.answer, threading.Event(), False

    def slow(request: Any) -> Any:
        nonlocal read
        if isinstance(request, m.ReadInputRegisters):
            if read:
                again.wait(PATIENT)
            read = device.input[12] == value
        return answer(request)

    device.answer = slow  # type: ignore[method-assign]
    try:
        yield
    finally:
        device.answer = answer  # type: ignore[method-assign]
        again.set()


def test_history_comes_out(works: Works, device: Device) -> None:
    eventually(lambda: 2012 in works.values())
    device.input[12] = 7
    eventually(lambda: works.values()[-1:] == [7])
    eventually(lambda: works.ask("mirror", "keeper", "status")["gaps"] == 0)  # the strand looks now and then
    facts = works.ask("diode", "keeper", "status")
    channel = facts["channels"][-1]
    assert channel["channel"] == "records:history" and channel["epochs"][0]["highest"] > 1


def test_a_cut_shows_as_lost_and_a_ticket_mends_it(works: Works, device: Device) -> None:
    eventually(works.values)
    began = time.monotonic_ns()
    device.input[12] = 100
    eventually(lambda: works.values()[-1:] == [100])
    with works.cut():
        for value in range(101, 111):
            show(device, value)
    device.input[12] = 200
    eventually(lambda: works.values()[-1:] == [200])  # what is newer does not wait for what is missing
    eventually(lambda: [one["lane"] for one in works.gaps()] == ["live"])
    (gap,) = works.gaps()
    assert 0 < gap["until"] - gap["since"] < time.monotonic_ns() - began + 60 * 10**9
    assert "the strand has not brought it" in gap["why"]
    eventually(lambda: works.verified() == (1, "1 times of which the strand has not brought all"))  # numbers tell it
    assert 105 not in works.values()
    eventually(lambda: works.ask("diode", "keeper", "status")["channels"][-1]["missing"])
    assert not events(works.state, "part-ended")  # nobody's crew ended by it

    for ticket in json.loads(works.cli("diode", "ticket", "--json"))["tickets"]:  # others may have lost a word as well
        works.cli("diode", "resend", "--ticket", ticket["text"], "--go")
    eventually(lambda: works.ask("mirror", "keeper", "status").get("gaps") == 0)
    found = works.values()
    assert set(range(101, 111)) <= set(found), sorted(set(found))
    eventually(lambda: works.verified() == (0, "no gaps, no differences"))
    assert not works.named("history")


def test_what_was_sent_last_and_is_missing_shows_as_well(works: Works, device: Device) -> None:
    """No batch comes after it whose number would tell: the strand does, by the heartbeat, and by its silence."""
    device.input[12] = 300
    eventually(lambda: works.values()[-1:] == [300] and not works.gaps())
    with last(device, 301):
        with works.cut():
            device.input[12] = 301
            eventually(lambda: [one["why"][:16] for one in works.gaps()] == ["nothing is heard"])
            eventually(lambda: works.verified() == (1, "1 times of which the strand has not brought all"))
        eventually(lambda: [one["why"][:30] for one in works.gaps()] == ["the strand has not brought the"])
        (gap,) = works.gaps()
        assert not gap["lane"] and 0 < gap["since"] < gap["until"]
        eventually(lambda: works.verified() == (1, "1 times of which the strand has not brought all"))
    works.carry("history")
    eventually(lambda: not works.gaps())
    assert works.values()[-1:] == [301]
    eventually(lambda: works.verified() == (0, "no gaps, no differences"))


def test_a_keeper_that_is_killed_loses_nothing(works: Works, device: Device) -> None:
    """What the strand brings while the mirror's outside is away lies in its folder until it is back."""
    eventually(works.values)
    for turn in range(3):
        kill(works.pid(("spooler", "keeper", "reader")[turn]))
        for value in range(300 + 20 * turn, 310 + 20 * turn):
            show(device, value)
        eventually(lambda value=value: works.values()[-1:] == [value])  # type: ignore[misc]
    eventually(lambda: works.ask("mirror", "keeper", "status")["gaps"] == 0)


@pytest.mark.skipif(not HAS_CLAMD, reason="there is no clamd (Debian)")
def test_files_are_scanned_before_they_are_there(works: Works) -> None:
    out, into = (works.state / "folders" / f"reports-{way}" for way in ("out", "in"))
    for name, data in (("bad.csv", EICAR), ("good.csv", b"1,2\n")):
        (out / f".{name}").write_bytes(data)
        (out / f".{name}").rename(out / name)
    eventually((into / "good.csv").exists)
    eventually(lambda: events(works.state, "diode-file-refused") and events(works.state, "diode-file-received"))
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
        works.left()
    works.push(41, 50)
    until(set(range(41, 51)))
    assert not set(got) & set(range(21, 41))
    handed = works.taker.post("/lease", json={"max": 1, "seconds": 1}).json()
    assert handed["missing"] == [[21, 40]]
    said = works.cli("relay", "status")
    assert "numbers 21 to 40: missing since" in said and "(outside)" in said
    assert "not brought by the strand: counts 21 to 40" in works.cli("relay", "verify", "--end", "outside")
    # The strand lets what is late come before it names it. The keeper may have said how it stood meanwhile, as well.
    eventually(lambda: works.named("counts-out") >= 20)
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
        kill(works.pid(part, "relay"))
        wanted = set(range(first, first + 10 * turn + 10))

        def whole(wanted: set[int] = wanted) -> bool:
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                got.extend(works.pull())
            return set(got) >= wanted

        eventually(whole)
    eventually(lambda: works.ask("relay", "far", "status")["channels"][0]["missing"] == [])
    assert "no findings" in works.cli("relay", "verify", "--end", "outside")


# --- what their own tests say, over a strand that loses each twentieth packet ----------------------------------------


@pytest.fixture
def lossy(works: Works) -> Iterator[Works]:
    for part in ("keeper", "far"):  # they may have been killed just now
        eventually(lambda part=part: works.ask("relay", part, "status"))  # type: ignore[misc]
    with works.cut("numgen inc mod 20 == 0"):
        yield works


@pytest.fixture
def mes(lossy: Works) -> Iterator[httpx.Client]:
    with lossy.client("relay", "mes") as client:
        yield client


def level(works: Works, who: str) -> httpx.Client:
    """One who takes once the outside has what the inside has: over a pipe that is so when a push is answered."""
    client = works.client("relay", who)
    client.event_hooks = {"request": [lambda _: works.level()]}
    return client


@pytest.fixture
def erp(lossy: Works) -> Iterator[httpx.Client]:
    with level(lossy, "erp") as client:
        yield client


@pytest.fixture(name="relay")
def relay_crew_of(lossy: Works) -> RunningCrew:
    return cast(RunningCrew, SimpleNamespace(client=lambda who: level(lossy, who)))


test_many_in_lines = relay.test_many_in_lines_each_with_its_result
test_a_thousand_lines = relay.test_a_thousand_lines_and_no_more
test_cloud_events = relay.test_cloud_events
test_what_failed_comes_again = relay.test_what_failed_comes_again_and_then_is_dead
test_what_a_consumer_says = relay.test_what_a_consumer_says_is_read_strictly
test_a_repeat = relay.test_a_repeat_gets_the_first_answer_and_another_content_a_conflict
test_each_who_pulls = relay.test_each_who_pulls_has_a_place_of_its_own
test_what_was_never_leased = relay.test_what_was_never_leased_cannot_be_settled
test_browsing = relay.test_browsing


@pytest.fixture
def mirror(lossy: Works) -> RunningCrew:
    if (plant := lossy.plant) is None:
        pytest.skip("there is no PostgreSQL (Debian: postgresql)")
    text = "SELECT count(DISTINCT (tag, time)) AS n FROM samples WHERE tag NOT LIKE 'plc.%'"

    def there() -> bool:
        lossy.carry("history")
        answer = lossy.lake.post("/v1/sql", content=text)
        return answer.status_code == 200 and answer.json()["rows"][0]["n"] == plant.count()

    eventually(there)
    return cast(RunningCrew, SimpleNamespace(plant=plant, client=lambda who: lossy.client("mirror", who)))


test_samples_in_every_form = history.test_samples_of_a_tag_in_every_form
test_a_tag_that_one_may_not_read = history.test_a_tag_that_one_may_not_read_does_not_exist
test_resolution_holds = history.test_resolution_holds_in_every_answer
test_aggregates = history.test_aggregates_are_those_of_a_reference
test_the_value_at_a_time = history.test_the_value_at_a_time
test_keys_of_nobody = history.test_keys_of_nobody_and_for_some_tags
test_sql_reads = history.test_sql_reads
test_events = history.test_events_of_what_is_committed
test_what_json_has_not = history.test_what_json_has_not_is_null
test_the_autumn_hour = history.test_the_autumn_hour_is_two
test_limits = history.test_limits_are_named


def test_history_is_equal(mirror: RunningCrew, works: Works) -> None:
    assert works.cli("mirror", "verify", "--last", "3h").startswith("no gaps, no differences: ")


def test_all_of_it_by_tickets(works: Works) -> None:
    """Whatever the relay's own tests have pushed, and a thousand lines of which no packet came: equal at both ends."""
    lines = "".join(json.dumps({"id": f"t-{n}", "data": {"line": "a", "n": n}}) + "\n" for n in range(1000))
    (folder,) = works.state.rglob(strand_end("counts-out", "out"))
    tickets = len(events(works.state, "diode-ticket-used"))
    with works.cut():
        pushed = works.mes.post("/messages", content=lines, headers={"content-type": "application/x-ndjson"})
        assert pushed.status_code == 200
        number = json.loads(pushed.text.splitlines()[-1])["number"]
        eventually(lambda: works.ask("relay", "keeper", "status")["channels"][0]["consumers"][0]["lag"] == 0)
        eventually(lambda: not waiting(folder))
        works.left()
    works.level()
    inside, outside = (
        [(one["number"], one["key"], one["sha256"]) for one in
         json.loads(works.cli("relay", "list", "counts", "--most", "0", "--end", end, "--json"))]
        for end in ("inside", "outside")
    )  # fmt: skip
    assert inside == outside and inside[-1][0] == number
    assert len(events(works.state, "diode-ticket-used")) > tickets
    for end in ("inside", "outside"):
        assert "no findings" in works.cli("relay", "verify", "--end", end)
