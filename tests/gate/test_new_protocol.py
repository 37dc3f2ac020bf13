"""What the guide promises (docs/add-a-protocol.md): a protocol is one folder and two lines. Here the toy is added to a
copy of the product in just that way, and runs behind a real gate, which a user starts as any other.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import cofferdam
from cofferdam.model import Assign
from cofferdam.protocols.base import FrameReceived, NoticeReceived
from cofferdam.values import Float32, Int32
from tests.brokers.toyplant import Caller, Plant
from tests.brokers.toystage import item
from tests.gate.plant import Gate, events, log_of
from tests.ports import held_ports
from tests.protocols import toy
from tests.protocols.toy import messages as m
from tests.protocols.toy.site import BASE, toy_conduit
from tests.waiting import PATIENT, eventually

FOLDER = ("__init__", "dialect", "machine", "messages", "operations", "view", "wire")
LINES = (
    ("dialects.py", "for dialect in (", "for dialect in (TOY, ", "dialect import TOY"),
    ("registry.py", "PLACES = {\n", 'PLACES = {\n    "toy": "cofferdam.protocols.toy.operations:Toy",\n', ""),
)


def copy_of_the_product(root: Path) -> tuple[Path, str]:
    """A copy of the package in `root`, to be added to, and a Python that has it."""
    product = root / "src" / "cofferdam"
    shutil.copytree(Path(cofferdam.__file__).parent, product, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    venv.create(root / "venv", symlinks=True)
    [packages] = (root / "venv").glob("lib/*/site-packages")
    (packages / "product.pth").write_text(f"{root / 'src'}\n{sysconfig.get_path('purelib')}\n")
    return product, str(root / "venv" / "bin" / "python")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python whose cofferdam speaks the toy protocol as well."""
    product, program = copy_of_the_product(tmp_path_factory.mktemp("product"))
    protocols = product / "protocols"
    (protocols / "toy").mkdir()
    for name in FOLDER:
        text = (Path(toy.__file__).parent / f"{name}.py").read_text()
        (protocols / "toy" / f"{name}.py").write_text(text.replace("tests.protocols.toy", "cofferdam.protocols.toy"))
    for name, line, longer, what in LINES:
        text = (protocols / name).read_text()
        imports = "from cofferdam.protocols.modbus"
        assert line in text
        if what:
            assert imports in text
            text = text.replace(imports, f"from cofferdam.protocols.toy.{what}\n{imports}", 1)
        (protocols / name).write_text(text.replace(line, longer))
    return program


def run(python: str, *arguments: str | Path) -> tuple[int, str]:
    command = [python, "-m", "cofferdam.cli.main", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * PATIENT)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def plant() -> Iterator[Plant]:
    device = Plant()
    device.start()
    yield device
    device.stop()


def text(port: int, device: int, conduits: str = "") -> str:
    base = BASE.replace("127.0.0.1:7008", f"127.0.0.1:{port}")
    return base.replace("protocol: toy\n", f"protocol: toy\n    port: {device}\n") + (conduits or toy_conduit())


def test_the_product_itself_knows_no_toy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(text(1, 2))
    code, said = run(sys.executable, "check", policy)
    assert code == 2 and "toy" in said


def test_a_protocol_of_one_folder_and_two_lines_runs_behind_a_gate(python: str, tmp_path: Path, plant: Plant) -> None:
    [port] = held_ports(1)
    state, policy = tmp_path / "state", tmp_path / "policy.yaml"
    policy.write_text(text(port, plant.port))
    assert run(python, "check", policy)[0] == 0
    code, said = run(python, "explain", policy, "--who", "mes", "--asset", "line", "--operation", "call mix 61 red")
    assert code == 1 and "mix: seconds = 61 s is asked; 1 to 60 s is allowed" in said, said

    class Product(Gate):
        program = (python, "-m", "cofferdam.cli.main")

    gate = Product(state, policy)
    try:
        gate.wait_ready()
        with Caller(port) as client:
            assert client.ask(m.Read((item("Pump.Speed"),)))[1] == m.Values((Int32((100,)),))
            assert client.ask(m.Write((Assign(item("Pump.Speed"), Int32((150,))),)))[1] == m.Done()
            assert client.ask(m.Write((Assign(item("Pump.Speed"), Int32((1501,))),)))[1] == m.Refusal(3)
            assert client.ask(m.CallMethod(item("method Line.Reset")))[1] == m.Done()
            assert client.ask(m.Subscribe(item("Pump.Level"), 100_000))[1] == m.Agreed()
            client.until(lambda: len(client.of(NoticeReceived)) == 3)
            stream, agreed = client.ask(m.Open(item("io Drive"), 10_000))
            assert agreed == m.Agreed()
            client.socket.sendall(client.machine.frame(stream, m.Signals((m.Signal("setpoint", Float32((1.0,))),))))
            client.until(lambda: bool(client.of(FrameReceived)))
            [pair] = gate.status()["pairs"]
            assert pair["name"].startswith("toy/")
            # Less is allowed from now on: what stands is ended.
            policy.write_text(text(port, plant.port, toy_conduit("{who: mes, asset: line, read: all}")))
            assert run(python, "reload", "--state", state)[0] == 0
            eventually(lambda: plant.asked.count("drop") == 2)
            assert client.ask(m.Read((item("Pump.Speed"),)))[1] == m.Values((Int32((100,)),))
        assert gate.stop() == 0
    finally:
        gate.close()
    items = [write["items"][0][0] for write in events(state, "write-allowed")]
    assert items == ["tag pump.speed", "method line.reset", "io drive"]
    refused = [(one["fault"], one["items"][0][1]) for one in events(state, "refused")]
    assert refused[0] == ("value", "write")
    assert sorted(refused[1:]) == [("function", "stream"), ("function", "subscribe")], "what the new policy has ended"
    [ended] = events(state, "stream-ended")
    assert (ended["sent"], ended["received"]) == (1, 1)
    assert sum(counted.get("notices", 0) for counted in events(state, "reads-counted")) == 3
    assert [entry["event"]["kind"] for entry in log_of(state)].count("write-outcome") == 3
