"""Three network namespaces for the benchmark: a client's, a device's, and one in the middle with a leg in each network.

    client -- it0 == gw-it -- middle -- gw-ot == ot0 -- device

Nothing of the host's own network is touched. The namespaces carry the number of the process that made them, so that
those of a benchmark that was killed are found and removed by the next one.

Not here: what runs in them (paths.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from processes import BenchError

PREFIX = "cofferdam-bench-"
IT_CLIENT, IT_MIDDLE = "192.0.2.10", "192.0.2.1"  # RFC 5737: addresses for examples, routed nowhere
OT_DEVICE, OT_MIDDLE = "198.51.100.10", "198.51.100.1"
LEGS = (("gw-it", IT_MIDDLE), ("gw-ot", OT_MIDDLE))
"""The interfaces of the middle namespace, and their addresses."""


@dataclass(frozen=True)
class Place:
    """Where the parts of a path run: what goes before each command, and the addresses between them."""

    name: str
    client: tuple[str, ...]
    middle: tuple[str, ...]
    device: tuple[str, ...]
    front: str
    """Where a middle listens for clients."""
    device_address: str
    clients_network: str


LOOPBACK = Place("loopback", (), (), (), "127.0.0.1", "127.0.0.1", "127.0.0.0/8")


class Namespaces:
    """Context manager: the three namespaces, joined and addressed; all gone afterwards."""

    def __init__(self) -> None:
        tag = f"{PREFIX}{os.getpid()}"
        self._it, self._middle, self._ot = f"{tag}-it", f"{tag}-mid", f"{tag}-ot"

    def __enter__(self) -> Place:
        if os.geteuid() != 0:
            raise BenchError("network namespaces need root", "sudo make bench ARGS=..., or leave --namespaces out")
        if not shutil.which("ip"):
            raise BenchError("the program ip is missing", "sudo apt-get install iproute2")
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        execute = ("ip", "netns", "exec")
        return Place(
            "namespaces",
            (*execute, self._it),
            (*execute, self._middle),
            (*execute, self._ot),
            IT_MIDDLE,
            OT_DEVICE,
            "192.0.2.0/24",
        )

    def __exit__(self, *_: object) -> None:
        self._remove()

    def route(self, on: bool) -> None:
        """Lets the kernel of the middle forward between its legs (the direct path), or not (all others)."""
        _ip("netns", "exec", self._middle, "sh", "-c", f"echo {int(on)} > /proc/sys/net/ipv4/ip_forward")

    def _make(self) -> None:
        for name in (self._it, self._middle, self._ot):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        legs = ((self._it, "it0", IT_CLIENT, "gw-it", IT_MIDDLE), (self._ot, "ot0", OT_DEVICE, "gw-ot", OT_MIDDLE))
        for name, end, address, leg, gateway in legs:
            _ip("-n", name, "link", "add", end, "type", "veth", "peer", "name", leg, "netns", self._middle)
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", self._middle, "address", "add", f"{gateway}/24", "dev", leg)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", self._middle, "link", "set", leg, "up")
            _ip("-n", name, "route", "add", "default", "via", gateway)
        self.route(False)

    def _remove(self) -> None:
        for name in (self._it, self._middle, self._ot):
            if (Path("/run/netns") / name).exists():
                _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"ip {' '.join(words)}: {done.stderr.strip()}", "namespaces need root and a kernel with veth")


def remove_left_over() -> None:
    """Deletes the namespaces of benchmarks that were killed."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return
    root = Path("/run/netns")
    for path in root.glob(f"{PREFIX}*") if root.is_dir() else ():
        maker = path.name.removeprefix(PREFIX).split("-")[0]
        if maker.isdigit() and not Path(f"/proc/{maker}").exists():
            _ip("netns", "delete", path.name)
