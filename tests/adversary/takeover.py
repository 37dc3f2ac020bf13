"""A gate in plain mode whose outer half has a hole (tests.prove.owned), and code that an intruder would run there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.gate.conftest import Site
from tests.gate.plant import Client, Device, Gate, policy_text
from tests.ports import held_ports
from tests.waiting import eventually

PRELUDE = """
from cofferdam.brokers.kit.supervision import *
from cofferdam.brokers.kit.figures import Distribution
from cofferdam.audit.events.access import *
from cofferdam.audit.records import Batch
control = int(sys.argv[sys.argv.index("--control-out") + 1])
audit = int(sys.argv[sys.argv.index("--audit-out") + 1])

def push(fd, *found):
    for packet in pack([msgspec.msgpack.encode(record) for record in found]):
        while True:
            try:
                os.write(fd, packet)
                break
            except BlockingIOError:
                time.sleep(0.001)

def report(**said):
    push(control, PartStatus("c", "outer", "", (), **said))
"""


class OwnedGate(Gate):
    program = (sys.executable, "-m", "tests.prove.owned")

    def __init__(self, state: Path, policy: Path) -> None:
        self.state = state
        self.errors = state.parent / f"{state.name}.stderr"
        env = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
        with self.errors.open("ab") as errors:
            command = [*self.program, str(policy), str(state)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, env=env)


class Taken:
    """Two roads, two pairs: the intruder has the outer half of the first, an operator works by the second."""

    def __init__(self, folder: Path, addresses: str = "127.0.0.1") -> None:
        """`addresses`: of those who may ask."""
        self.site = Site(folder)
        self.device, self.other = self.site.device, Device()
        self.port, self.other_port, management = held_ports(3)
        text = policy_text(
            {"plc": (self.device.port, self.port), "dcs": (self.other.port, self.other_port)}, management=management
        )
        head, _, tail = text.partition("conduits:")
        head = head.replace("  control: {side: ot}", "  control: {side: ot}\n  second: {side: ot}")
        first, _, rest = head.partition("  dcs:")
        head = first + "  dcs:" + rest.replace("zone: control", "zone: second", 1)
        before, _, after = tail.partition("  dcs-road:")
        tail = before + "  dcs-road:" + after.replace("to: control", "to: second", 1)
        head = head.replace("addresses: [127.0.0.1]", f"addresses: [{addresses}]")
        self.site.policy.write_text(f"{head}conduits:{tail}")
        self.management = management
        self.gate = OwnedGate(self.site.state, self.site.policy)

    def inject(self, code: str, port: int = 0, source: str = "") -> str:
        """Runs code in the outer half of the first road, or of that which listens there; what it said, "" if it ended
        first."""
        self.gate.wait_ready()
        with Client(port or self.port, source=source) as client:
            client._socket.sendall(b"OWNED" + (PRELUDE + code).encode())
            with contextlib.suppress(ConnectionError):
                return client._socket.recv(4096).decode().strip()
        return ""

    def restarts(self) -> dict[str, int]:
        return {pair["name"]: pair["restarts"] for pair in self.gate.status()["pairs"]}

    def ended(self, before: dict[str, int]) -> bool:
        """Whether the intruder's pair, and it alone, was ended and started anew."""
        eventually(lambda: self.restarts() != before)
        now = self.restarts()
        return {name for name in now if now[name] != before[name]} == {"modbus/enterprise-control"}

    def memory(self) -> int:
        """Of the gate process, in MiB."""
        status = Path(f"/proc/{self.gate.pids()['gate']}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) >> 10

    def close(self) -> None:
        self.gate.close()
        self.device.close()
        self.other.close()


@contextlib.contextmanager
def taken(folder: Path, addresses: str = "127.0.0.1") -> Iterator[Taken]:
    scene = Taken(folder, addresses)
    try:
        scene.gate.wait_ready()
        yield scene
    finally:
        scene.close()
