"""The proof of a gate with crews of two and of three parts: a proxy, and a relay with a keeper and its store. What it
expects of each follows from what they declare; what they may not hold is found."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.brokers.registry import CREWS
from cofferdam.enforce import journal, stores
from cofferdam.enforce.plans.network import network_plan
from cofferdam.enforce.profile import Can, Crew
from cofferdam.enforce.putback import clean
from cofferdam.enforce.users import read
from cofferdam.gate.client import ask
from cofferdam.lab.packer.play import Packer
from cofferdam.proof import crossings, processes, structure
from cofferdam.proof import run as proof
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Part, Subject, open_subject, places
from tests.enforce.site import ERP, GATE_IT, GATE_OT, PlantDevice, Site, netns
from tests.gate.plant import Gate
from tests.prove.stage import staged
from tests.verbs import cli
from tests.waiting import eventually, kill

pytestmark = netns
RELAY = f"""
  orders-to-mes:
    from: office
    to: plant
    broker: relay
    owner: tests
    reason: tests
    listen:
      office: {{at: "{GATE_IT}:8443", plain: true}}
      plant: {{at: "{GATE_OT}:8443", plain: true}}
    channels:
      orders: {{schema: order.json, most: 100 kB}}
    allow:
      - {{who: erp, push: orders}}
      - {{who: mes, pull: orders}}
"""


class Running:
    """A gate with both crews."""

    def __init__(self, site: Site, gate: Gate) -> None:
        self.site = site
        self.gate = gate

    @contextlib.contextmanager
    def subject(self) -> Iterator[Subject]:
        state = self.gate.state
        status = ask(state, "status")
        policy = proof.policy_in_force(status, proof.policy_path(state, status))
        plan = network_plan(policy)
        with proof.alone(state, lambda _: None):
            made = open_subject(state, plan, status, places(policy, plan, status), CREWS)
            try:
                made.read()
                yield made
            finally:
                made.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as name, Site(Path(name)) as site:
        site.folder.chmod(0o711)
        text = site.text(rules=RELAY).replace("conduits:", "  mes: {zone: plant, addresses: [10.82.0.7]}\nconduits:")
        site.policy.write_text(text)
        (site.folder / "order.json").write_text('{"type": "object"}')
        for path in (site.policy, site.folder / "order.json"):
            path.chmod(0o644)
        device = PlantDevice(site.plant)
        gate = Gate(site.state, site.policy)
        try:
            gate.wait_ready()
            yield Running(site, gate)
        finally:
            gate.close()
            clean(gate.state)
            device.close()


def failed(out: Statements) -> dict[str, list[str]]:
    return {said.name: [said.says, *said.evidence] for said in out.found if said.status == "failed"}


def test_all_that_is_said_of_both_crews_holds(running: Running) -> None:
    document = json.loads(cli("prove", "--json", "--state", running.gate.state)[1])["report"]
    found = {said["name"]: said for said in document["statements"]}
    # The packet filter's programs are those of the whole host, where other tests may run.
    assert {name for name, said in found.items() if said["status"] == "failed"} <= {"host: packet filter programs"}
    relay = next(name for name in found if name.endswith("/keeper: files")).removesuffix("/keeper: files")
    assert len(found[f"{relay}: crossing"]["evidence"]) == 4
    assert "no file that it could write but in" in found[f"{relay}/keeper: files"]["says"]
    assert "is alone in an empty network namespace" in found[f"{relay}/keeper: namespaces"]["says"]
    assert "pipes, no socket, files where it may have some" in found[f"{relay}/keeper: descriptors"]["says"]
    kinds = ("modbus/outer", "modbus/inner", "relay/outer", "relay/keeper", "relay/inner", "leaks/probe")
    assert {found[f"{kind}: system calls"]["status"] for kind in kinds} == {"tested"}
    refused = {kind: " ".join(found[f"{kind}: system calls"]["evidence"]) for kind in kinds}
    assert all("make a file (openat)" in said and "TCP socket (socket)" in said for said in
               (refused["modbus/outer"], refused["relay/outer"], refused["relay/keeper"]))  # fmt: skip
    assert "accept (accept4)" in refused["relay/keeper"] and "accept (accept4)" not in refused["relay/outer"]


def test_a_crew_that_is_held_is_named_and_fails_no_proof_by_its_tries(running: Running) -> None:
    """Its processes come and go while it is proved: they are no strangers, and who is in their place is one."""
    state = running.gate.state
    (crew,) = [pair for pair in ask(state, "status")["pairs"] if pair["broker"] == "relay"]
    file = stores.of(state, crew["name"], "keeper") / "keeper.db"
    file.rename(file.with_name("sound"))
    file.mkdir()
    with contextlib.ExitStack() as back:
        back.callback(file.with_name("sound").rename, file)
        back.callback(file.rmdir)
        kill(next(half["pid"] for half in crew["halves"] if half["role"] == "keeper"))
        eventually(lambda: any(alarm["name"].endswith("/crew-held") for alarm in ask(state, "status")["alarms"]))
        for _ in range(3):
            document = json.loads(cli("prove", "--json", "--no-probes", "--state", state)[1])["report"]
            wrong = {said["name"] for said in document["statements"] if said["status"] == "failed"}
            assert wrong <= {"host: packet filter programs"}
            (held,) = [said for said in document["statements"] if said["name"] == f"{crew['name']}: held"]
            assert held["status"] == "observed" and "nothing passes by it" in held["says"]
            assert f"{file} is no plain file" in held["evidence"][0]
        users = [read(journal.folder(state))[f"{crew['name']}/outer"], 12345]
        for user in users:  # also one that has taken the user of a part of it
            with running.subject() as subject, stranger(subject.sides["it"].namespace, user):
                out = Statements()
                structure.state(subject, out)
            assert "sleep" in " ".join(failed(out)["it: inhabitants"])
    eventually(lambda: all(pair["working"] for pair in ask(state, "status")["pairs"]))


@contextlib.contextmanager
def stranger(namespace: str, user: int) -> Iterator[None]:
    """A process of nobody's in a side's namespace."""
    command = ["ip", "netns", "exec", namespace, "setpriv", "--reuid", str(user), "--clear-groups", "sleep", "600"]
    process = subprocess.Popen(command)
    try:
        eventually(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(bool(Packer().missing()), reason="a library of the lab is missing")
def test_a_part_that_exchanges_datagrams_with_devices_may_wait_for_them_and_no_other() -> None:
    with staged((Packer(),)) as stage:
        code, document = stage.prove("--no-probes")
        found = {said["name"]: said for said in document["report"]["statements"]}
        assert code == 0, [said for said in found.values() if said["status"] == "failed"]
        assert any("2222 (of enip/" in said and "towards devices" in said for said in found["ot: sockets"]["evidence"])
        with stage.subject() as subject:
            # The same socket, of a part that by the policy has none.
            plan = subject.sides["ot"].plan
            reaches = tuple(reach for reach in plan.reaches if not reach.datagrams)
            subject.sides["ot"].plan = msgspec.structs.replace(plan, reaches=reaches)
            out = Statements()
            structure.state(subject, out)
        assert "udp 0.0.0.0:2222 is declared nowhere" in failed(out)["ot: sockets"]


def _changed(kind: str, **parts: Any) -> dict[str, Crew]:
    """The crews as they are declared, but for some profiles of one kind."""
    from msgspec.structs import replace

    crew = CREWS[kind]
    profiles = {name: replace(profile, **parts.get(name, {})) for name, profile in crew.parts.items()}
    return {**CREWS, kind: replace(crew, parts=profiles)}


NO_FILES = {"store": False, "folders": False, "can": Can.NOTHING}


@pytest.mark.parametrize(
    ("declared", "where", "why"),
    [
        (_changed("relay", outer={"can": Can.NOTHING}), "outer: descriptors", "is a socket, and it may have none"),
        (_changed("relay", keeper=NO_FILES), "keeper: files", "can be written"),
        (_changed("relay", keeper=NO_FILES), "keeper: descriptors", "is open"),
        (_changed("relay", keeper={"says": ()}), ": pipes", "has 2 pipe(s) to the auditor"),
        (_changed("modbus", inner={"says": ()}), ": pipes", "has 2 pipe(s) to the auditor"),
    ],
)  # fmt: skip
def test_what_a_part_holds_beyond_what_is_declared_is_found(
    running: Running, declared: dict[str, Crew], where: str, why: str
) -> None:
    """The same processes, judged by a declaration that gives a part less."""
    out = Statements()
    with running.subject() as subject:
        subject.crews = declared
        found = processes.read(subject, out)
        for part, facts in found.items():
            processes.state(subject, part, facts, out)
        crossings.state(subject, found, out)
    wrong = failed(out)
    assert len(wrong) <= 2 and any(name.endswith(where) and why in " ".join(said) for name, said in wrong.items()), (
        wrong
    )


def test_pipes_that_are_declared_otherwise_are_found(running: Running) -> None:
    from msgspec.structs import replace

    crew = CREWS["relay"]
    for pipes, why in (
        ((("outer", "keeper"), ("inner", "keeper"), ("keeper", "inner")), "from keeper to outer are declared nowhere"),
        ((*crew.pipes, ("outer", "inner")), "there is no pipe from outer to inner"),
    ):
        out = Statements()
        with running.subject() as subject:
            subject.crews = {**CREWS, "relay": replace(crew, pipes=pipes)}
            crossings.state(subject, processes.read(subject, out), out)
        (said,) = failed(out).values()
        assert why in " ".join(said)


def test_a_part_that_is_not_the_user_whom_the_rules_know_is_found(running: Running) -> None:
    out = Statements()
    with running.subject() as subject:
        part = next(part for part in subject.parts if part.part == "inner" and part.kind == "modbus")
        facts = processes.read(subject, out)[part]
        name = next(name for name in subject.users if name.startswith("modbus/") and name.endswith("/inner"))
        subject.users = {**subject.users, "someone/inner": subject.users[name], name: 64900}
        processes.state(subject, part, facts, out)
    said = failed(out)[f"{part.name}: known"]
    assert any("the rules know 64900" in line for line in said) and "someone/inner is too" in said


def test_a_part_of_a_kind_that_is_not_known_is_no_silence(running: Running) -> None:
    from cofferdam.errors import GateError

    with running.subject() as subject, pytest.raises(GateError, match="of a kind that is not known here"):
        subject.profile(Part("x/outer", "x", "no-such-kind", "outer", os.getpid(), "it"))


def test_a_message_crosses_where_all_this_stands(running: Running) -> None:
    """And the halves beside it serve."""
    with contextlib.closing(running.site.client(source=ERP)) as client:
        assert client.read() == b"\x03\x02\x00\x2a"
