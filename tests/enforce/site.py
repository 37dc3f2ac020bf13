"""An office and a plant in network namespaces of their own, joined only by what the gate is to take.

    office (it namespace)  net0 ══ cdtXXXXi   host   cdtXXXXo ══ net0  (ot namespace)  plant

The gate's ends lie in the namespace of the test, with addresses, as on a machine that was set up by hand.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from cofferdam.enforce import kernel
from tests.gate.plant import UNHURRIED, Client, Device
from tests.waiting import PATIENT

netns = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]
ERP, STRANGER, DEVICE = "10.81.0.20", "10.81.0.66", "10.82.0.17"
GATE_IT, GATE_OT = "10.81.0.1", "10.82.0.1"
OVERLAY, NEAR = "100.65.7.17", "10.81.0.77"
"""An address that the office reaches by a route, and one within the office's own network."""
PORT = 502


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def at(namespace: str) -> Iterator[None]:
    """This thread is in a namespace; sockets made there stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    kernel.setns(there, kernel.CLONE_NEWNET)
    try:
        yield
    finally:
        kernel.setns(home, kernel.CLONE_NEWNET)
        os.close(home)
        os.close(there)


class PlantDevice(Device):
    """A device in a namespace."""

    def __init__(self, namespace: str, address: str = DEVICE) -> None:
        self.writes: list[int] = []
        self.connections = 0
        with at(namespace):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            self._listener = socket.create_server((address, PORT), family=family, backlog=64)
        self.open: set[socket.socket] = set()
        self.port = PORT
        threading.Thread(target=self._accept, daemon=True).start()


class Site:
    """Both hosts. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        tag = secrets.token_hex(2)
        self.number = int(tag, 16)
        self.name = f"t{os.getpid()}{tag}"
        self.office, self.plant = f"cdt{os.getpid()}-{tag}-it", f"cdt{os.getpid()}-{tag}-ot"
        self.it, self.ot = f"cdt{tag}i", f"cdt{tag}o"
        self.folder = folder
        self.state, self.policy = folder / "state", folder / "policy.yaml"
        self.policy.write_text(self.text())

    def text(self, *, more: str = "", office: str = "", plant: str = "", rules: str = "", gate: str = "") -> str:
        office = office or f"interface: {self.it}, addresses: [{GATE_IT}/24]"
        plant = plant or f"interface: {self.ot}, addresses: [{GATE_OT}/24]"
        points = "{level: {at: holding 0, type: uint16}, speed: {at: holding 200, type: uint32}}, timeout: 20 s"
        return f"""
site: {self.name}
limits: {UNHURRIED}
zones:
  office: {{side: it, {office}}}
  plant: {{side: ot, {plant}}}
assets:
  plc: {{zone: plant, address: {DEVICE}, protocol: modbus, unit: 1, overlay: {OVERLAY}, points: {points}}}
  near: {{zone: plant, address: {DEVICE}, protocol: modbus, unit: 1, overlay: {NEAR}, points: {points}}}
{more}
principals:
  erp: {{zone: office, addresses: [{ERP}]}}
conduits:
  main:
    from: office
    to: plant
    broker: modbus
    owner: tests
    reason: tests
    allow:
      - {{who: erp, asset: [plc, near], read: all, write: [speed]}}
{rules}
gate: {{{gate}}}
"""

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def _make(self) -> None:
        for namespace, ours, address in ((self.office, self.it, GATE_IT), (self.plant, self.ot, GATE_OT)):
            ip("netns", "add", namespace)
            ip("link", "add", ours, "type", "veth", "peer", "name", "net0", "netns", namespace)
            ip("-n", namespace, "link", "set", "net0", "up")
            ip("addr", "add", f"{address}/24", "dev", ours)
            ip("link", "set", ours, "up")
        for address in (ERP, STRANGER):
            ip("-n", self.office, "addr", "add", f"{address}/24", "dev", "net0")
        ip("-n", self.office, "route", "add", "100.65.0.0/16", "via", GATE_IT)
        # What an intruder would add: the plant by way of the gate.
        ip("-n", self.office, "route", "add", "10.82.0.0/24", "via", GATE_IT)
        ip("-n", self.plant, "addr", "add", f"{DEVICE}/24", "dev", "net0")
        ip("-n", self.plant, "route", "add", "10.81.0.0/24", "via", GATE_OT)
        # Several sites may stand at once: the metric keeps their routes apart.
        ip("route", "add", "10.99.0.0/16", "via", "10.82.0.254", "dev", self.ot, "metric", str(self.number + 1))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for namespace in (self.office, self.plant):
            subprocess.run(["ip", "-n", namespace, "link", "del", "net0"], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)

    def client(
        self, address: str = OVERLAY, *, source: str = ERP, timeout: float = PATIENT, port: int = PORT
    ) -> Client:
        """A Modbus client in the office. Raises: OSError."""
        client = Client.__new__(Client)
        with at(self.office):
            client._socket = socket.create_connection((address, port), timeout=timeout, source_address=(source, 0))
        client._id = 0
        return client

    def gates(self) -> list[str]:
        """The namespaces of this site's gate."""
        found = [line.split()[0] for line in ip("netns", "list").splitlines() if line]
        return sorted(name for name in found if name.startswith(f"cofferdam-{self.name}-"))

    def host(self) -> dict[str, str]:
        """How the gate's ends look in the host's namespace, without what changes by itself."""
        shown = {}
        for name in (self.it, self.ot):
            done = subprocess.run(["ip", "-br", "addr", "show", name], capture_output=True, text=True, check=False)
            words = [word for word in done.stdout.split() if not word.startswith("fe80")]
            routes = subprocess.run(["ip", "route", "show", "dev", name], capture_output=True, text=True, check=False)
            shown[name] = " ".join(words) + " | " + " ".join(sorted(routes.stdout.split("\n")))
        return shown
