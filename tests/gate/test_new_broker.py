"""What the guide promises (docs/add-a-broker.md): a broker is its folder, its terms, its events and four lines. Here a
toy, the bell, is added to a copy of the product in just that way, and runs behind a real gate as any other.
"""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path

import pytest

from tests.gate import bell
from tests.gate.plant import Gate, events
from tests.gate.test_new_protocol import copy_of_the_product, run
from tests.ports import held_ports
from tests.waiting import PATIENT, eventually

PLACES = {
    "rows": "policy/terms/bell_rows",
    "terms": "policy/terms/bell",
    "events": "audit/events/bell",
    "broker": "brokers/bell/broker",
    "records": "brokers/bell/records",
    "outer": "brokers/bell/outer",
    "inner": "brokers/bell/inner",
}
TERMS = "from cofferdam.policy.terms"
LINES = (
    ("brokers/registry.py", '"relay": ', '"bell": "cofferdam.brokers.bell.broker:BELL",\n    '),
    ("policy/terms/kinds.py", "yield RelayTerms()", "yield BellTerms()\n    "),
    ("policy/terms/kinds.py", f"{TERMS}.diode ", f"{TERMS}.bell import BellTerms\n"),
    ("policy/rows.py", "RelayRows | ", "BellRows | "),
    ("policy/rows.py", f"{TERMS}.diode_rows ", f"{TERMS}.bell_rows import BellRows\n"),
    ("audit/entry.py", "| relay.Draft", "| bell.Draft\n    "),
    ("audit/entry.py", "diode, evidence", "bell, "),
)
"""File, what stands there once, and what comes before it."""
TAKEN_OVER = """
        if record.bell == "escape":
            socket.socketpair()
        if record.bell == "lie":
            self._outer.send(record)  # type: ignore[arg-type]
"""
"""What the inner part of the copy does besides, as one that somebody else has the say in."""
POLICY = """
site: toys
zones: {office: {side: it, level: 4}, annex: {side: it, level: 4}, plant: {side: ot, level: 3}}
gate: {separation: processes}
principals:
  guest: {zone: office, addresses: [127.0.0.1]}
  neighbour: {zone: annex, addresses: [127.0.0.1]}
conduits:
  door:
    from: office
    to: plant
    broker: bell
    owner: porter
    reason: guests
    listen: 127.0.0.1:7008
    allow:
      - {who: guest, ring: [front]}
  side-door: {from: annex, to: plant, broker: bell, owner: porter, reason: neighbours, listen: "127.0.0.1:7009",
    allow: [{who: neighbour, ring: [side]}]}
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python whose cofferdam has the bell as well."""
    product, program = copy_of_the_product(tmp_path_factory.mktemp("product"))
    (product / "brokers" / "bell").mkdir()
    shutil.copy(Path(bell.__file__), product / "brokers" / "bell" / "__init__.py")
    for name, place in PLACES.items():
        text = (Path(bell.__file__).parent / f"{name}.py").read_text()
        for other, there in PLACES.items():
            said = f"cofferdam.{there.replace('/', '.')}"
            text = re.sub(rf"tests\.gate\.bell\.{other}\b", said, text)
            package, _, module = said.rpartition(".")
            text = re.sub(
                rf"from tests\.gate\.bell import {other}\b", f"from {package} import {module} as {other}", text
            )
        assert "tests." not in text
        if name == "inner":
            question = "        who = self._policy"
            assert text.count(question) == 1
            text = text.replace(question, TAKEN_OVER + question).replace("from typing", "import socket\nfrom typing")
        (product / f"{place}.py").write_text(text)
    for name, there, before in LINES:
        text = (product / name).read_text()
        assert text.count(there) == 1
        (product / name).write_text(text.replace(there, before + there))
    return program


def ring(port: int, what: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENT) as sock:
        sock.sendall(what)
        return sock.recv(100)


def pids(gate: Gate, zone: str) -> dict[str, int]:
    """The parts of the crew between a zone and the plant; none while it is not working."""
    [crew] = [one for one in gate.status()["pairs"] if zone in one["name"]]
    return {part["role"]: part["pid"] for part in crew["halves"]} if crew["working"] else {}


def test_a_broker_of_its_own_files_and_four_lines_runs_behind_a_gate(python: str, tmp_path: Path) -> None:
    port, side = held_ports(2)
    state, policy = tmp_path / "state", tmp_path / "policy.yaml"
    text = POLICY.replace("7008", str(port)).replace("7009", str(side))
    policy.write_text(text.replace("ring: [front]", "push: [front]"))
    code, said = run(python, "check", policy)
    assert code == 2 and "a word of relay, in a rule of bell, expected one of who, ring" in said, said
    policy.write_text(text)
    code, said = run(python, "explain", policy, "--who", "guest", "--bell", "back")
    assert code == 1 and "no rule lets guest, neighbour ring back" in said, said

    class Product(Gate):
        program = (python, "-m", "cofferdam.cli.main")

    gate = Product(state, policy)
    try:
        gate.wait_ready()
        assert [ring(port, line) for line in (b"front\n", b"back\n", b"FRONT\n")] == [b"ok\n", b"no\n", b""]
        eventually(lambda: [one["values"] for one in gate.status()["figures"]] == [{"front": 1}])
        policy.write_text(text.replace("[front]", "[back]"))
        assert run(python, "reload", "--state", state)[0] == 0
        assert [ring(port, line) for line in (b"front\n", b"back\n")] == [b"no\n", b"ok\n"]
        # A part that breaks its bounds costs its own crew one life, and no other crew anything.
        others = pids(gate, "annex")
        for word in (b"escape\n", b"lie\n"):
            before = pids(gate, "office")
            assert ring(port, word) == b""
            eventually(lambda before=before: {*pids(gate, "office").values()}.isdisjoint(before.values()))  # type: ignore[misc]
            eventually(lambda: pids(gate, "office"))
            assert [ring(port, b"back\n"), ring(side, b"side\n")] == [b"ok\n", b"ok\n"]
        assert pids(gate, "annex") == others
        code, said = run(python, "audit", "show", "--state", state, "--kind", "bell-rung")
        assert code == 0 and "guest rings back" in said and "neighbour rings side" in said, said
        assert gate.stop() == 0
    finally:
        gate.close()
    assert [one["bell"] for one in events(state, "bell-rung")] == ["front", "back", *2 * ["back", "side"]]
    ended = [(one["half"].rpartition("/")[2], one["reason"]) for one in events(state, "half-died") if one["reason"]]
    # Which call it was the kernel's log says, where it can be read.
    assert any(part == "inner" and why.startswith("a system call outside its profile") for part, why in ended), ended
    assert any(part == "outer" and why.startswith("inner broke the crossing's rules") for part, why in ended), ended
    [wrong] = events(state, "record-violation")
    assert wrong["half"] == "bell/office-plant/inner"
