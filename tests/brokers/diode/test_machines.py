"""Two gates on two machines: what goes in inside comes out outside, and nothing comes back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cofferdam.cli import diode
from cofferdam.cli.main import main
from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from cofferdam.proof.frames import FAMILIES
from tests.brokers.diode.machines import Machine, Strand, eventually
from tests.enforce.site import ip, netns
from tests.gate.plant import events
from tests.verbs import cli
from tests.waiting import kill

pytestmark = [*netns, pytest.mark.heavy]


def put(strand: Strand, name: str, data: bytes) -> str:
    """A file into the inside's folder, as a user would put it there; its hash."""
    folder = strand.inside.folder()
    hidden = folder / f".{name}"
    hidden.write_bytes(data)
    hidden.chmod(0o644)
    hidden.rename(folder / name)
    return hashlib.sha256(data).hexdigest()


def told(machine: Machine, kind: str, name: str) -> dict[str, Any]:
    """The entry of a file, once it is in the log."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [one for one in events(machine.state, kind) if one["name"] == name]
        return bool(found)

    eventually(there)
    return found[0]


def sent_as(strand: Strand, name: str) -> dict[str, Any]:
    """The entry of a file that is sent."""
    return told(strand.inside, "diode-file-sent", name)


def arrived(strand: Strand, name: str, digest: str) -> None:
    path = strand.outside.folder() / name
    try:
        eventually(path.exists)
    except AssertionError as error:
        raise AssertionError(strand.said()) from error
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_files_come_whole(strand: Strand) -> None:
    digests = {name: put(strand, name, data) for name, data in {
        "empty.csv": b"", "small.csv": b"1,2\n", "large.csv": os.urandom(3_000_000),
    }.items()}  # fmt: skip
    for name, digest in digests.items():
        arrived(strand, name, digest)
    for name, digest in digests.items():
        sent = sent_as(strand, name)
        came = told(strand.outside, "diode-file-received", name)
        assert sent["sha256"] == came["sha256"] == digest
        assert (sent["first"], sent["last"]) == (came["first"], came["last"])
    eventually(lambda: not any(strand.outside.state.glob("stores/*/keeper/part/*")))


def test_five_percent_of_loss_are_repaired(strand: Strand) -> None:
    strand.lose(0.05)
    try:
        digest = put(strand, "lossy.csv", os.urandom(5_000_000))
        arrived(strand, "lossy.csv", digest)
    finally:
        strand.lose(0)
    assert strand.outside.status()["channels"][0]["missing"] == 0


def _again(strand: Strand, ticket: str, *, go: bool) -> dict[str, Any]:
    found: dict[str, Any] = strand.inside.ask("resend", ticket=ticket, go=go)
    return found


def test_a_gap_is_named_and_closed_by_one_ticket(strand: Strand) -> None:
    """All is lost for a while; then the outside says what is missing, and a person carries that inside."""
    strand.lose(1)
    try:
        put(strand, "gone.csv", os.urandom(400_000))
        sent = sent_as(strand, "gone.csv")
        eventually(lambda: any(one["highest"] >= sent["last"] for one in strand.inside.status()["channels"]))
        strand.left()
    finally:
        strand.lose(0)
    eventually(lambda: strand.outside.status()["channels"][0]["missing"] == sent["last"] - sent["first"] + 1)
    eventually(lambda: events(strand.outside.state, "diode-gap"))
    (gap,) = strand.outside.status()["channels"][0]["gaps"]
    assert (gap["first"], gap["last"]) == (sent["first"], sent["last"])
    (ticket,) = strand.outside.ask("ticket", channel="files:reports")["tickets"]  # others may have lost a word as well
    assert len(ticket["text"]) <= 200
    shown = _again(strand, ticket["text"], go=False)
    assert (
        shown["records"] == ticket["missing"]
        and shown["lost"] == 0
        and not (strand.outside.folder() / "gone.csv").exists()
    )
    _again(strand, ticket["text"], go=True)
    arrived(strand, "gone.csv", sent["sha256"])
    eventually(lambda: strand.outside.status()["channels"][0]["missing"] == 0)
    with pytest.raises(GateError, match="used before"):
        _again(strand, ticket["text"], go=True)

    def said() -> list[str]:
        found = events(strand.outside.state, "diode-gap")
        return [one["what"] for one in found if one["channel"] == "files:reports"]

    eventually(lambda: said()[-1:] == ["closed"])
    assert "missing" in said()
    assert events(strand.inside.state, "diode-ticket-used")[-1]["count"] == ticket["missing"]


_SOAK = pytest.mark.soak


@pytest.mark.parametrize("machine,part", [
    ("inside", "spool"), ("outside", "keeper"), pytest.param("inside", "sender", marks=_SOAK),
    pytest.param("outside", "receiver", marks=_SOAK),
])  # fmt: skip
def test_a_part_that_is_killed_costs_nothing_that_a_ticket_does_not_bring(
    strand: Strand, machine: str, part: str
) -> None:
    where = strand.inside if machine == "inside" else strand.outside
    data = os.urandom(6_000_000)
    name = f"killed-{part}.csv"
    digest = put(strand, name, data)
    sent_as(strand, name)
    before = where.pid(part)
    kill(before)
    eventually(lambda: where.pid(part) != before)
    path = strand.outside.folder() / name

    def whole() -> bool:
        status = strand.outside.status()["channels"][0]
        if not path.exists() and status["missing"]:
            for ticket in strand.outside.ask("ticket")["tickets"]:
                _again(strand, ticket["text"], go=True)
            time.sleep(1)
        return path.exists()

    eventually(whole)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert not (strand.outside.folder() / f"killed-{part}.2.csv").exists()


def test_nothing_leaves_the_outside_nor_enters_the_inside(strand: Strand) -> None:
    """Frames of every family from the receiver's own namespace, by root: none arrives, and none would be taken. With
    the rules away, the same frames arrive: the probe works."""
    script = str(Path(__file__).with_name("frames.py"))
    heard = strand.inside.pid("sender")

    def round_of(count: int) -> int:
        command = ["nsenter", "-t", str(heard), "-n", sys.executable, script, "hear", "strand0"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as listener:
            assert listener.stdout is not None and listener.stdout.readline() == "ready\n"
            strand.outside.within("receiver", sys.executable, script, "send", "strand0", "10.83.0.1", str(count))
            return int(listener.communicate(timeout=240)[0])

    assert round_of(150) == 0
    rules = strand.outside.within("receiver", "nft", "list", "table", "netdev", "cofferdam")
    strand.outside.within("receiver", "nft", "delete", "table", "netdev", "cofferdam")
    wall = strand.inside.within("sender", "nft", "list", "table", "netdev", "cofferdam")
    try:
        assert round_of(20) > 0  # a packet socket hears before the sender's own wall, which drops them
        after = strand.inside.within("sender", "nft", "list", "table", "netdev", "cofferdam")
        assert after != wall
    finally:
        command = ["nsenter", "-t", str(strand.outside.pid("receiver")), "-n", "nft", "-f", "-"]
        subprocess.run(command, input=rules, text=True, check=True)
    assert round_of(20) == 0


def test_the_log_and_the_status_of_the_inside_are_outside(
    strand: Strand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As records, within seconds of their time; verified by the usual verb, and left to a witness."""
    state, key = str(strand.outside.state), str(strand.inside.state / "keys" / "audit.pub")
    before = 0
    for at in range(2):
        assert main(["diode", "tell", "--state", str(strand.inside.state), *(["--again"] if at else [])]) == 0
        eventually(lambda: strand.outside.status()["told"]["log"]["entries"] > before)  # noqa: B023
        told = strand.outside.status()["told"]["log"]
        before = told["entries"]
        assert main(["audit", "verify", "--log", told["folder"], "--key", key]) == 0
        words = ["evidence", "witness", str(tmp_path), "--log", told["folder"], "--log-key", key]
        assert main([*words, "--state", state]) == 0
        digest = put(strand, f"between-{at}.csv", b"1\n")  # it makes an entry
        arrived(strand, f"between-{at}.csv", digest)
        capsys.readouterr()
        eventually(lambda: _signed(strand.inside.state) > before)  # noqa: B023
    eventually(lambda: strand.outside.status()["told"]["came_ns"])
    assert main(["diode", "inside", "--state", state, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"]["site"] == strand.site
    assert main(["diode", "inside", "--state", state]) == 0
    assert strand.site in capsys.readouterr().out


def _signed(state: Path) -> int:
    return int(ask(state, "status", fresh=False)["audit"]["signed"])


def test_status_says_what_makes_it_one_way(strand: Strand, capsys: pytest.CaptureFixture[str]) -> None:
    strand.lose(0.05)
    arrived(strand, "seen.csv", put(strand, "seen.csv", os.urandom(1_000_000)))
    strand.lose(0)
    for machine in strand.machines:
        assert main(["diode", "status", "--state", str(machine.state)]) == 0
        said = capsys.readouterr().out
        assert f"the {machine.name} end, one-way by software\n" in said and "nothing is attested" in said
        counts = {
            "inside": r"sends \S+ Mbit/s now; [1-9]\d* packets went out",
            "outside": r"hears \S+ Mbit/s now; [1-9]\d* packets came, some \S+ % were lost before repair, [1-9]",
        }[machine.name]
        assert re.search(counts, said), said
        facts = {fact["name"] for fact in (machine.gate.status() if machine.gate else {})["facts"]}
        assert "one way" in facts or "system-call filter" in facts


def test_a_ramp_says_what_came_and_what_to_type_in(
    strand: Strand, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = (["--state", str(machine.state)] for machine in strand.machines)

    def said() -> list[str]:
        assert main(["diode", "test", *outside]) == 0
        return capsys.readouterr().out.splitlines()

    assert main(["diode", "test", "--rates", "20,40", "--seconds", "0.2", *inside]) == 0
    assert capsys.readouterr().out.startswith("run ")
    eventually(
        lambda: said()[-1] == "the setting to type in: rate: 32 Mbit/s (four fifths of the fastest without loss)"
    )
    assert [line.endswith(" 0.00 % lost") for line in said()] == [True, True, False]
    monkeypatch.setattr(diode, "COMING_SECONDS", 10**6)  # as it is while it goes on: there is no word of a setting
    assert said()[-1].startswith("it may still be coming")


def test_a_verb_of_the_other_end_says_so(strand: Strand, capsys: pytest.CaptureFixture[str]) -> None:
    for machine, verb in (
        (strand.outside, ["resend", "--ticket", "x"]), (strand.inside, ["ticket"]), (strand.inside, ["give-up", "x"]),
    ):  # fmt: skip
        assert main(["diode", *verb, "--state", str(machine.state)]) == 2
        other = "inside" if machine is strand.outside else "outside"
        assert f"this machine has no {other} end of a strand" in capsys.readouterr().err


def _relay(strand: Strand, machine: str, path: str, *words: str) -> dict[str, Any]:
    """What a side of the relay answers whoever is at its machine's network."""
    at, end = ("10.84.0.1", strand.inside) if machine == "inside" else ("10.85.0.1", strand.outside)
    url = f"http://{at}:8443/v1/channels/counts/{path}"
    command = ["ip", "netns", "exec", f"{end.namespace}-c", "curl", "-sS", "--fail-with-body", "-m", "60", *words, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_messages_cross_are_named_where_they_are_missing_and_end_equal(strand: Strand, tmp_path: Path) -> None:
    """Two keepers on two machines, 5 % of all packets lost, then all of them for a while; the channel waits."""
    keys = {}
    for end, who in ((strand.inside, "mes"), (strand.outside, "erp")):
        words = ["relay", "key", "new", who, "--json", "--state", str(end.state)]
        keys[who] = f"Authorization: Bearer {json.loads(cli(*words)[1])['key']}"
    lines = tmp_path / "lines"

    def push(first: int, last: int) -> None:
        lines.write_text("".join(f'{{"id": "k{n}", "data": {{"n": {n}}}}}\n' for n in range(first, last + 1)))
        pushed = ("-H", keys["mes"], "-H", "Content-Type: application/x-ndjson", "--data-binary", f"@{lines}")
        _relay(strand, "inside", "messages", *pushed)

    got: list[int] = []

    def take() -> dict[str, Any]:
        asked = ("-H", keys["erp"], "-d", '{"max": 1000, "seconds": 60}')
        handed = _relay(strand, "outside", "lease", *asked)
        if handed["messages"]:
            done = json.dumps({"lease": handed["lease"], "done": [one["number"] for one in handed["messages"]]})
            _relay(strand, "outside", "settle", "-H", keys["erp"], "-d", done)
        got.extend(one["data"]["n"] for one in handed["messages"])
        return handed

    def left() -> bool:
        (found,) = ask(strand.inside.state, "ask-part", broker="relay", part="keeper", verb="status", arguments={})
        return bool(found["result"]["channels"][0]["consumers"][0]["lag"] == 0)

    def brought() -> bool:
        """Of 400 small records such a line takes one with its parity: that has a ticket."""
        if any(
            one["channel"] == "records:counts-out" and one["missing"] for one in strand.outside.status()["channels"]
        ):
            for ticket in strand.outside.ask("ticket")["tickets"]:
                _again(strand, ticket["text"], go=True)
        return bool(take()) and len(got) == 500

    strand.lose(0.05)
    push(1, 500)
    eventually(brought)
    strand.lose(1)
    push(501, 520)
    eventually(left)
    strand.left()
    strand.lose(0)  # nothing else is missing
    push(521, 600)
    eventually(lambda: take().get("missing") == [[501, 520]])
    assert len(got) == 500, "it waits"
    eventually(lambda: any(one["channel"] == "records:counts-out" and one["missing"]
                           for one in strand.outside.status()["channels"]))  # fmt: skip
    for ticket in strand.outside.ask("ticket")["tickets"]:
        _again(strand, ticket["text"], go=True)
    eventually(lambda: take() and len(got) == 600)
    assert got == list(range(1, 601)), "in order, each once"
    listed = []
    for end in strand.machines:
        for verb in (["list", "counts", "--most", "0", "--json"], ["verify"]):
            assert cli("relay", *verb, "--state", end.state)[0] == 0
        listing = cli("relay", "list", "counts", "--most", "0", "--json", "--state", end.state)[1]
        listed.append([(one["number"], one["key"], one["sha256"]) for one in json.loads(listing)])
    assert listed[0] == listed[1] and len(listed[0]) == 600
    missed = [(one["first"], one["last"]) for one in events(strand.outside.state, "numbers-missing")]
    assert [each for each in missed if each[1] > 500] == [(501, 520)]


ZONES = """
  plant: {side: ot, machine: inside, interface: plant0, addresses: [10.84.0.1/24]}
  office: {side: it, machine: outside, interface: office0, addresses: [10.85.0.1/24]}
principals:
  lake: {zone: office, addresses: [10.85.0.9]}
"""
HISTORY = """
  history:
    {from: plant, to: office, broker: mirror, owner: tests, reason: tests, mirror: {acks: none},
     sources: {drop: {folder: drops, zone: UTC, settle: 1 s, tags: ["*"]}},
     listen: {office: {at: "10.85.0.1:8443", plain: true}}, allow: [{who: lake, read: all}]}
"""


@pytest.mark.soak
def test_a_mirror_rides_between_users_that_do_not_know_each_other(tmp_path: Path) -> None:
    """Each part under its own user, with its own folders: a sample that is left in a folder inside is kept outside."""
    tmp_path.chmod(0o755)
    with Strand(tmp_path, zones=ZONES, conduits=HISTORY, carries="files:reports, history") as strand:
        for machine, name in ((strand.inside, "plant0"), (strand.outside, "office0")):
            ip("-n", machine.namespace, "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        strand.up()
        folder = strand.inside.state / "folders" / "drops"
        taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        (folder / ".a").write_text(f"tag,time,value\nflow,{taken},42\n")
        (folder / ".a").chmod(0o644)
        (folder / ".a").rename(folder / "a.csv")

        def kept() -> Any:
            state, part = strand.outside.state, "keeper"
            found = ask(state, "ask-part", broker="mirror", part=part, verb="status", arguments={}, crew="")
            return found[0]["result"]["newest"]

        eventually(kept)
        for machine in strand.machines:
            assert not events(machine.state, "part-ended")
            code, said, complained = cli("mirror", "status", "--state", str(machine.state))
            assert code == 0, complained
            assert "on the strand's other machine" in said


# --- `cofferdam prove`: it holds, and it fails where a wall has a hole ------------------------------------------------


def failed(statements: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, one in statements.items() if one["status"] == "failed"}


def end(strand: Strand, name: str) -> tuple[Machine, str, str]:
    """A machine, its part with the socket, and what its end is called in the proof."""
    if name == "inside":
        return strand.inside, "sender", "ot.strand-in"
    return strand.outside, "receiver", "it.strand-out"


@pytest.mark.parametrize("name", ["inside", "outside"])
class TestAtBothEnds:
    def test_a_whole_proof_holds_and_names_both_kinds(self, strand: Strand, name: str) -> None:
        machine, _, side = end(strand, name)
        code, found = machine.prove("--no-probes")
        assert (code, failed(found)) == (0, set())
        software, hardware = (found[f"{side}: one-way by {kind}"] for kind in ("software", "hardware"))
        assert software["status"] == "tested" and "hardware" not in software["says"]
        assert hardware["status"] == "assumed" and "attests no tap" in hardware["says"]
        for family in FAMILIES:
            one = found[f"{side}: {family} frames"]
            assert one["status"] == "tested" and one["evidence"][0].startswith("0 of ")

    def test_a_hole_for_one_family_is_found(self, strand: Strand, name: str) -> None:
        machine, part, side = end(strand, name)
        hook = "ingress" if name == "inside" else "egress"
        chain = ("netdev", "cofferdam", f"{hook}-strand0")
        machine.within(part, "nft", "insert", "rule", *chain, "ether", "type", "0x88cc", "accept")
        try:
            code, found = machine.prove("--diode")
        finally:
            listed = machine.within(part, "nft", "-a", "list", "chain", *chain)
            handle = next(line.split()[-1] for line in listed.splitlines() if "accept # handle" in line)
            machine.within(part, "nft", "delete", "rule", *chain, "handle", handle)
        wanted = {f"{side}: {one}" for one in ("lldp frames", "any frame", "one-way by software")}
        assert code == 1 and failed(found) >= wanted
        assert f"{side}: goose frames" not in failed(found) and f"{side}: on the strand itself" not in found

    def test_other_ways_back_are_found(self, strand: Strand, name: str) -> None:
        """ARP is on, and IPv6; the interface of the strand has no wall."""
        machine, part, side = end(strand, name)
        rules = machine.within(part, "nft", "list", "table", "netdev", "cofferdam")
        machine.within(part, "ip", "link", "set", "strand0", "arp", "on")
        machine.within(part, "nft", "delete", "table", "netdev", "cofferdam")
        try:
            code, found = machine.prove("--diode")
        finally:
            machine.within(part, "sh", "-c", f"nft -f - <<'END'\n{rules}\nEND")
            machine.within(part, "ip", "link", "set", "strand0", "arp", "off")
        assert code == 1 and {f"{side}: silent", f"{side}: wall"} <= failed(found)
        assert found[f"{side}: one-way by software"]["status"] == "failed"
