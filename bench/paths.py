"""The ways from a client to the device that the benchmark compares: how each is started and stopped.

A path is started with the device's port and gives the address for clients and the processes in the middle, whose CPU
time counts. To add one: a subclass of `Middle` and a line in `PATHS`.

Not here: the load (load.c), the order of runs and the figures (run.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from netns import LEGS, Place
from processes import HERE, LOAD, BenchError, Process, held_port

CONNECTIONS = 32
OUTSTANDING = 16
"""Towards the device. HAProxy opens one connection for each client; Cofferdam gets as many as there are clients in
the main comparison, and may have as many requests under way on each as the Modbus guide allows."""

HAPROXY_CONFIG = """\
global
    nbthread 1
    maxconn 8192
defaults
    mode tcp
    timeout connect 3s
    timeout client 60s
    timeout server 60s
listen bench
    bind {front}:{port}
    server device {device}:{device_port}
"""

POLICY = """\
site: benchmark
zones:
  office: {{side: it, level: 4{office}}}
  plant: {{side: ot, level: 2{plant}}}
assets:
  device:
    zone: plant
    address: {device}
    port: {device_port}
    protocol: modbus
    unit: 1
    listen: "{front}:{port}"
    connections: {connections}
    outstanding: {outstanding}
principals:
  load: {{zone: office, addresses: ["{clients}"]}}
conduits:
  bench:
    from: office
    to: plant
    broker: modbus
    owner: benchmark
    reason: the load generator reads and writes as fast as it can
    allow:
      - {{who: load, asset: device, registers: [holding 0-65535], write_registers: [holding 1000-65535]}}
limits:
  client_connections: 4096
  client_connects_per_second: 100000
  client_connections_per_address: 4096
  client_requests_per_second: {rate}
  client_requests_burst: {rate}
  asset_queue: 65536
  asset_queue_per_client: 4096
"""


class Middle:
    """A path with processes of its own between client and device. `start` and `stop` may be repeated."""

    name = ""
    label = ""
    only = ""
    """The one place where this path can be measured; "" for any."""
    forwards = False
    """The kernel of the middle namespace must route (only in place `namespaces`)."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._process: Process | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def check(self) -> None:
        """Raises: BenchError when something is missing on this machine."""

    def command(self, place: Place, folder: Path, port: int, device_port: int) -> list[str]:
        """Writes what the program needs into `folder` and returns how to start it."""
        raise NotImplementedError

    def start(self, place: Place, device_port: int) -> tuple[str, int]:
        """Returns the address and port for clients, when a read through the path has worked. Raises: BenchError."""
        # Another namespace has all its ports free; ours has not.
        port = held_port(place.front, self._port) if not place.middle else self._port or 15020
        self._folder = tempfile.TemporaryDirectory(prefix="cofferdam-bench-")
        command = self.command(place, Path(self._folder.name), port, device_port)
        self._process = Process(self.label, command, prefix=place.middle)
        front = self.front(place)
        until = time.monotonic() + 20
        while not _answers(place, front, port):
            if not self._process.running() or time.monotonic() > until:
                why = self._process.said()
                self.stop()
                raise BenchError(
                    f"{self.label} does not answer on {front}:{port}:\n{why}",
                    f"to measure without it, leave {self.name} out of --paths",
                )
            time.sleep(0.05)
        return front, port

    def front(self, place: Place) -> str:
        """The address that clients use."""
        return place.front

    def pids(self) -> list[int]:
        return self._process.family() if self._process else []

    def stop(self) -> None:
        if self._process:
            self._process.stop()
            self._process = None
        if self._folder:
            self._folder.cleanup()
            self._folder = None


class Direct(Middle):
    """No middle at all: what client, device and kernel can do."""

    name, label, forwards = "direct", "direct", True

    def start(self, place: Place, device_port: int) -> tuple[str, int]:
        return place.device_address, device_port


class HAProxy(Middle):
    """HAProxy in TCP mode with one thread. It passes the bytes on and does not look inside."""

    name, label = "haproxy", "HAProxy"

    def check(self) -> None:
        if not shutil.which("haproxy"):
            raise BenchError(
                "haproxy is not installed, and it is what the others are compared with",
                "sudo apt-get install haproxy, or leave it out with --paths direct,cofferdam-one,cofferdam-split",
            )

    def command(self, place: Place, folder: Path, port: int, device_port: int) -> list[str]:
        config = folder / "haproxy.cfg"
        config.write_text(
            HAPROXY_CONFIG.format(front=place.front, port=port, device=place.device_address, device_port=device_port)
        )
        return ["haproxy", "-db", "-q", "-f", str(config)]


class ModbusProxy(Middle):
    """modbus-proxy (PyPI): reads each frame's header, and passes one request at a time over one connection to the
    device. It checks nothing and refuses nobody. Not installed with Cofferdam."""

    name, label = "modbus-proxy", "modbus-proxy"

    def check(self) -> None:
        if not shutil.which("modbus-proxy"):
            raise BenchError(
                "modbus-proxy is not on PATH",
                "install it into an environment of its own (`python3 -m venv DIR`, `DIR/bin/pip install modbus-proxy`)",
            )

    def command(self, place: Place, folder: Path, port: int, device_port: int) -> list[str]:
        bind, device = f"{place.front}:{port}", f"tcp://{place.device_address}:{device_port}"
        return ["modbus-proxy", "--bind", bind, "--modbus", device]


class CofferdamSplit(Middle):
    """`cofferdam up` as users run it: two halves, two pipes, the audit log on disk."""

    name, label = "cofferdam-split", "Cofferdam, split"
    program: tuple[str, ...] = ("-m", "cofferdam.cli.main")

    def policy(self, place: Place, port: int, device_port: int) -> str:
        return policy_text(place, self.front(place), port, device_port)

    def command(self, place: Place, folder: Path, port: int, device_port: int) -> list[str]:
        policy = folder / "policy.yaml"
        policy.write_text(self.policy(place, port, device_port))
        folder.chmod(0o755)  # the gate reads the policy as a user of its own
        state = folder / "state"
        return [sys.executable, *self.program, "up", str(policy), "--state", str(state)]


class CofferdamOne(CofferdamSplit):
    """Both halves in one process, with the memory channel between them: a program of this benchmark, and no form that
    Cofferdam has. The audit log is on all the same."""

    name, label = "cofferdam-one", "Cofferdam, one process"
    program = (str(HERE / "one_process.py"),)


class CofferdamSealed(CofferdamSplit):
    """Each half in a network namespace of its side, behind a firewall, with user, file tree and filter of its own."""

    name, label = "cofferdam-sealed", "Cofferdam, sealed"
    only = "namespaces"

    def policy(self, place: Place, port: int, device_port: int) -> str:
        return policy_text(place, self.front(place), port, device_port, interfaces=True)


class CofferdamBare(CofferdamSealed):
    """The same without the halves' sandbox: network namespaces and firewall, but no filter, users and file trees."""

    name, label = "cofferdam-bare", "Cofferdam, bare"
    program = (str(HERE / "bare.py"),)


class CofferdamOverlay(CofferdamSealed):
    """The same, reached at an overlay address that no interface has."""

    name, label = "cofferdam-overlay", "Cofferdam, overlay"

    def front(self, place: Place) -> str:
        return OVERLAY


OVERLAY = "203.0.113.7"  # RFC 5737, like the other addresses of the benchmark; clients come by their default route
PATHS: dict[str, type[Middle]] = {kind.name: kind for kind in (Direct, HAProxy, ModbusProxy)} | {
    kind.name: kind for kind in (CofferdamOne, CofferdamSplit, CofferdamBare, CofferdamSealed, CofferdamOverlay)
}


def policy_text(place: Place, front: str, port: int, device_port: int, *, interfaces: bool = False) -> str:
    """The policy that the benchmark runs under. It allows what the load generator does, and nothing else. With
    `interfaces` the gate takes the middle's legs into namespaces of its own."""
    legs = [f', interface: {name}, addresses: ["{address}/24"]' for name, address in LEGS] if interfaces else ["", ""]
    return POLICY.format(
        office=legs[0],
        plant=legs[1],
        device=place.device_address,
        device_port=device_port,
        front=front,
        port=port,
        connections=CONNECTIONS,
        outstanding=OUTSTANDING,
        clients=place.clients_network,
        rate=10_000_000,
    )


def haproxy_version() -> str:
    if not shutil.which("haproxy"):
        return "none"
    said = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\S+)", said)
    return match.group(1) if match else "unknown"


def _answers(place: Place, address: str, port: int) -> bool:
    command = [*place.client, str(LOAD), "client", "--connect", f"{address}:{port}"]
    options = ["--seconds", "0.05", "--warmup", "0", "--timeout", "1"]
    return subprocess.run([*command, *options], capture_output=True, check=False, timeout=30).returncode == 0
