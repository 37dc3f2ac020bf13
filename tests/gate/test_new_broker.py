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
POLICY = """
site: toys
zones: {office: {side: it, level: 4}, plant: {side: ot, level: 3}}
gate: {separation: processes}
principals:
  guest: {zone: office, addresses: [127.0.0.1]}
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


def test_a_broker_of_its_own_files_and_four_lines_runs_behind_a_gate(python: str, tmp_path: Path) -> None:
    [port] = held_ports(1)
    state, policy = tmp_path / "state", tmp_path / "policy.yaml"
    policy.write_text(POLICY.replace("7008", str(port)).replace("ring: [front]", "push: [front]"))
    code, said = run(python, "check", policy)
    assert code == 2 and "a word of relay, in a rule of bell, expected one of who, ring" in said, said
    policy.write_text(POLICY.replace("7008", str(port)))
    code, said = run(python, "explain", policy, "--who", "guest", "--bell", "back")
    assert code == 1 and "no rule lets guest ring back" in said, said

    class Product(Gate):
        program = (python, "-m", "cofferdam.cli.main")

    gate = Product(state, policy)
    try:
        gate.wait_ready()
        assert [ring(port, line) for line in (b"front\n", b"back\n", b"FRONT\n")] == [b"ok\n", b"no\n", b""]
        [crew] = gate.status()["pairs"]
        assert crew["name"].startswith("bell/")
        eventually(
            lambda: [one["values"] for one in gate.status()["figures"] if one["name"] == "rung"] == [{"front": 1}]
        )
        policy.write_text(POLICY.replace("7008", str(port)).replace("[front]", "[back]"))
        assert run(python, "reload", "--state", state)[0] == 0
        assert [ring(port, line) for line in (b"front\n", b"back\n")] == [b"no\n", b"ok\n"]
        code, said = run(python, "audit", "show", "--state", state, "--kind", "bell-rung")
        assert code == 0 and "guest rings front" in said and "guest rings back" in said, said
        assert gate.stop() == 0
    finally:
        gate.close()
    assert [one["bell"] for one in events(state, "bell-rung")] == ["front", "back"]
