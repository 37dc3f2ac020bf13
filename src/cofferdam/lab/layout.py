"""Where the lab's processes live: two layouts of the same hosts behind one interface.

    office (it)          gate               plant (ot)
    ERP, operator,  ───  outer ══ inner ─── PLC 7, MES
    intruder                 ║
                           strand (lab.cable)
                             ║
    regulator       ───  the gate of a second machine, outside, where a play has one
    away            ───  the gate's machine, and neither side (lab.away), where a play has somebody there

`Loopback` needs no root: everything on this machine, and who is who is told by addresses of 127.0.0.0/8. Nothing
but Cofferdam's own processes separates the sides there, and a host that knows the device's loopback address can
reach it; the demo says so. `Namespaces` gives the office and the plant network namespaces of their own, with a
veth pair from each towards the gate, so that the gate is the only neighbour that both have.

A layout knows addresses and how a command is run at a host. It makes and removes only what carries its own unique
name.

Not here: starting processes (lab.scene), policies (lab.play), the gate's own namespaces (enforce).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.lab.away import Away
from cofferdam.lab.cable import Cable, ip

Host = Literal["office", "gate", "plant", "outside", "regulator", "away"]


class GateEnd(msgspec.Struct, frozen=True):
    """An interface of the gate, and the gate's own address on it with the prefix length."""

    interface: str
    address: str


Ground = Literal[
    "office", "plant", "overlay", "gate-office", "gate-plant", "regulator", "gate-regulator", "strand", "away"
]
FAR = ("regulator", "gate-regulator", "strand")
"""Who is there only where a play has a second machine."""


class Spot(msgspec.Struct, frozen=True):
    """A place that a play needs. In the office, the plant or the overlay (where the gate answers for an asset) it is an
    address of its own; at the gate it is a port at the gate's address on that side, on the strand one at its far end.
    Who is away has none before the gate's tunnel gives them one; on the loopback network they are in the office.
    `port` is its port where the hosts are apart (on the loopback network it gets a free one), 0: it needs none."""

    name: str
    on: Ground
    port: int = 0


class Addresses(msgspec.Struct, frozen=True):
    """Everybody's address. `listen` is what the office connects to; `device` is the plant itself. `gate_it` and
    `gate_ot` are the gate's own, one towards each side; `ends` are its interfaces there (it, ot), where it has any."""

    erp: str
    operator: str
    intruder: str
    operators: str  # the operators' network
    device: str
    device_port: int
    mes: str
    gate_it: str
    gate_ot: str
    office_door: int  # the ports of the relay's doors
    plant_door: int
    listen: str
    listen_port: int
    management: str
    management_port: int
    insider: str = ""  # a host in the operators' network that is an intruder's, where a firewall keeps others out
    ends: tuple[GateEnd | None, GateEnd | None] = (None, None)
    spots: dict[str, tuple[str, int]] = {}
    strand: tuple[GateEnd, GateEnd] = (GateEnd("", "127.83.0.1/8"), GateEnd("", "127.83.0.2/8"))
    """The ends of the cable to the second machine, inside and outside; on the loopback network without interfaces."""
    far: GateEnd | None = None
    """The second machine's interface towards the regulator, where it has one."""
    far_port: int = 19465
    """Of the second machine's own metrics."""
    endpoint: str = ""
    """ADDRESS:PORT where a WireGuard of somebody away finds the gate, where a play has somebody there."""

    def host(self, name: str) -> str:
        """The address of a play's spot."""
        return self.spots[name][0]

    def port(self, name: str) -> int:
        """The port of a play's spot."""
        return self.spots[name][1]

    def at(self, name: str) -> str:
        """ADDRESS:PORT of a play's spot."""
        return "{}:{}".format(*self.spots[name])


SHIPPED = Addresses(
    erp="127.10.1.20",
    operator="127.10.5.11",
    intruder="127.66.6.6",
    operators="127.10.5.0/24",
    device="127.20.0.17",
    device_port=15020,
    mes="127.20.0.30",
    gate_it="127.64.7.1",
    gate_ot="127.64.8.1",
    office_door=18443,
    plant_door=18444,
    listen="127.64.7.17",
    listen_port=15502,
    management="127.0.0.1",
    management_port=19464,
)
"""The addresses in the policy that `cofferdam lab policy` prints."""
LOOPBACK_NETS = {
    "office": "127.10.2.", "plant": "127.20.1.", "overlay": "127.64.9.", "regulator": "127.30.1.", "away": "127.10.2.",
}  # fmt: skip
LOOPBACK_FAR, LOOPBACK_STRAND = "127.64.10.1", "127.83.0.2"
FIRST_PORT = 15100


def _placed(
    spots: Sequence[Spot], nets: Mapping[str, str], gate_it: str, gate_ot: str, gate_far: str, strand: str
) -> dict[str, tuple[str, int]]:
    """Each spot's address, and its own port."""
    gate = {"gate-office": gate_it, "gate-plant": gate_ot, "gate-regulator": gate_far, "strand": strand}
    return {
        spot.name: (gate.get(spot.on) or (f"{nets[spot.on]}{number}" if spot.on in nets else ""), spot.port)
        for number, spot in enumerate(spots, 10)
    }


def _loopback(spots: Sequence[Spot]) -> dict[str, tuple[str, int]]:
    return _placed(spots, LOOPBACK_NETS, SHIPPED.gate_it, SHIPPED.gate_ot, LOOPBACK_FAR, LOOPBACK_STRAND)


def shipped(spots: Sequence[Spot]) -> Addresses:
    """The addresses in the policy that `cofferdam lab policy` prints, with those of the plays."""
    placed = _loopback(spots)
    numbered = {
        name: (address, FIRST_PORT + number if port else 0)
        for number, (name, (address, port)) in enumerate(placed.items())
    }
    return msgspec.structs.replace(SHIPPED, spots=numbered)


class Layout(Protocol):
    """Three hosts. Use as a context manager: set up on entry, removed on exit, whatever happens between."""

    name: str
    separated: bool  # is there nothing but the gate between office and plant?
    addresses: Addresses

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def run_in(self, host: Host, argv: list[str]) -> list[str]:
        """The command line that runs `argv` at `host`."""


class Port:
    """A free port at an address, held as long as this object lives or until it is closed: the kernel gives it to nobody
    who asks for any port, and the lab's own processes may listen there all the same."""

    def __init__(self, address: str) -> None:
        """Raises CofferdamError where the address is not ours."""
        holder = _bound(address)
        self.number: int = holder.getsockname()[1]
        self.close = weakref.finalize(self, os.close, holder.detach())


def _bound(address: str) -> socket.socket:
    holder = socket.socket()
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((address, 0))
        return holder
    except OSError as error:
        holder.close()
        raise CofferdamError(
            f"no free port at {address}: {error.strerror}",
            hint="the demo needs the loopback network 127.0.0.0/8, as Linux has it",
        ) from error


class Loopback:
    """Everything on this machine, without root."""

    name = "loopback"
    separated = False

    def __init__(self, spots: Sequence[Spot] = ()) -> None:
        self._ports = {
            "device_port": Port(SHIPPED.device),
            "office_door": Port(SHIPPED.gate_it),
            "plant_door": Port(SHIPPED.gate_ot),
            "listen_port": Port(SHIPPED.listen),
            "management_port": Port(SHIPPED.management),
            "far_port": Port(SHIPPED.management),
        }
        numbers = {name: port.number for name, port in self._ports.items()}
        placed = _loopback(spots)
        for name, (address, port) in placed.items():
            if port:
                self._ports[f"spot {name}"] = held = Port(address)
                placed[name] = (address, held.number)
        self.addresses = msgspec.structs.replace(SHIPPED, spots=placed, **numbers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for port in self._ports.values():
            port.close()

    def run_in(self, host: Host, argv: list[str]) -> list[str]:
        return list(argv)


PREFIX = "cdlab-"
"""Every namespace of the lab begins with it. `cofferdam lab clean` removes those whose maker is gone."""

GATE_IT, GATE_OT = "10.1.0.1", "10.20.0.1"
"""The gate's own addresses in the namespace layout; it gets them from the policy."""
GATE_FAR = "10.30.0.1"
"""The second machine's, towards the regulator."""
STRAND = ("10.83.0.1", "10.83.0.2")
NETS = {"office": "10.1.2.", "plant": "10.20.1.", "overlay": "100.64.9.", "regulator": "10.30.1."}


class Namespaces:
    """An office host and a plant host, each in a network namespace, one veth pair each to the gate's side.

    The gate's ends (`it_interface`, `ot_interface`) are left in the namespace that this process is in; the gate
    moves them where its policy says. Names hold this process's id and a random part, so two labs never meet.
    Needs root and the `ip` program. Raises CofferdamError where either is missing or a command fails.
    """

    name = "namespaces"
    separated = True

    def __init__(self, spots: Sequence[Spot] = ()) -> None:
        if os.geteuid() != 0:
            raise CofferdamError("network namespaces need root", hint="run as root, or with --no-namespaces")
        if shutil.which("ip") is None:
            raise CofferdamError("the program ip is missing", hint="Debian: apt-get install iproute2")
        self._management = Port("127.0.0.1")
        tag = secrets.token_hex(2)
        self.tag = tag
        self.office = f"{PREFIX}{os.getpid()}-{tag}-office"
        self.plant = f"{PREFIX}{os.getpid()}-{tag}-plant"
        # An interface name has at most 15 characters.
        self.it_interface = f"cdl{tag}it"
        self.ot_interface = f"cdl{tag}ot"
        self.cable = Cable(f"{PREFIX}{os.getpid()}-{tag}") if any(spot.on in FAR for spot in spots) else None
        somebody = any(spot.on == "away" for spot in spots)
        self.away = Away(f"{PREFIX}{os.getpid()}-{tag}-away", tag) if somebody else None
        placed = _placed(spots, NETS, GATE_IT, GATE_OT, GATE_FAR, STRAND[1])
        self.addresses = Addresses(
            erp="10.1.0.20",
            operator="10.1.5.11",
            intruder="10.1.66.6",
            insider="10.1.5.66",
            operators="10.1.5.0/24",
            device="10.20.0.17",
            device_port=502,
            mes="10.20.0.30",
            gate_it=GATE_IT,
            gate_ot=GATE_OT,
            office_door=8443,
            plant_door=8443,
            listen="100.64.7.17",
            listen_port=502,
            management="127.0.0.1",
            management_port=self._management.number,
            ends=(GateEnd(self.it_interface, f"{GATE_IT}/16"), GateEnd(self.ot_interface, f"{GATE_OT}/16")),
            spots=placed, strand=(GateEnd(f"cdl{tag}st", f"{STRAND[0]}/30"), GateEnd("strand0", f"{STRAND[1]}/30")),
            far=GateEnd("reg0", f"{GATE_FAR}/16"), far_port=self._management.number,
            endpoint=self.away.endpoint if self.away is not None else "",
        )  # fmt: skip
        self._own = {
            ground: [self.addresses.host(spot.name) for spot in spots if spot.on == ground]
            for ground in ("office", "plant", "regulator")
        }

    def __enter__(self) -> Self:
        # What an earlier lab left behind when it was killed goes first; it could hold addresses that we need.
        clean()
        try:
            for namespace in (self.office, self.plant):
                ip("netns", "add", namespace)
                ip("-n", namespace, "link", "set", "lo", "up")
            self._connect(self.office, self.it_interface)
            self._connect(self.plant, self.ot_interface)
            office, plant = (("-n", self.office), ("-n", self.plant))
            for address in (
                self.addresses.erp, self.addresses.operator, self.addresses.intruder, self.addresses.insider,
                *self._own["office"],
            ):  # fmt: skip
                ip(*office, "addr", "add", f"{address}/16", "dev", "net0")
            # The office's router sends the overlay to the gate's office address.
            ip(*office, "route", "add", "100.64.0.0/16", "via", GATE_IT)
            for address in (self.addresses.device, self.addresses.mes, *self._own["plant"]):
                ip(*plant, "addr", "add", f"{address}/16", "dev", "net0")
            if self.cable is not None:
                self.cable.lay(self.addresses.strand[0].interface, self._own["regulator"])
            if self.away is not None:
                self.away.lay()
        except BaseException:
            self._remove()
            raise
        return self

    def _connect(self, namespace: str, gate_end: str) -> None:
        ip("link", "add", gate_end, "type", "veth", "peer", "name", "net0", "netns", namespace)
        ip("-n", namespace, "link", "set", "net0", "up")
        ip("link", "set", gate_end, "up")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        self._management.close()

    def _remove(self) -> None:
        more = [*(self.cable.spaces if self.cable is not None else ())]
        more += [self.away.space] if self.away is not None else []
        remove_namespaces([self.office, self.plant, *more])

    def run_in(self, host: Host, argv: list[str]) -> list[str]:
        match host:
            case "office":
                return ["ip", "netns", "exec", self.office, *argv]
            case "plant":
                return ["ip", "netns", "exec", self.plant, *argv]
            case "outside" | "regulator" if self.cable is not None:
                return ["ip", "netns", "exec", self.cable.space(host), *argv]
            case "away" if self.away is not None:
                return ["ip", "netns", "exec", self.away.space, *argv]
            case _:
                return list(argv)


def leftovers() -> list[str]:
    """Namespaces of labs whose process is gone."""
    found = subprocess.run(["ip", "-j", "netns", "list"], capture_output=True, text=True, check=False).stdout
    names = [str(entry["name"]) for entry in json.loads(found or "[]")]
    return [name for name in names if name.startswith(PREFIX) and not maker_lives(name, PREFIX)]


def clean() -> list[str]:
    """Remove what labs left behind that were killed; the names of what was removed."""
    if shutil.which("ip") is None:
        return []
    names = leftovers()
    remove_namespaces(names)
    return names


def maker_lives(name: str, prefix: str) -> bool:
    """Does the process still run whose id stands after `prefix` in `name`?"""
    pid = name.removeprefix(prefix).split("-")[0]
    if not pid.isdigit():
        return True  # not one of our names: leave it alone
    command = Path(f"/proc/{pid}/cmdline")
    try:
        # The number may belong to somebody else by now.
        words = command.read_bytes()
    except OSError:
        return False
    return b"python" in words or b"cofferdam" in words


def remove_namespaces(names: list[str]) -> None:
    """Deleting a namespace deletes its end of the veth pair, and with it the gate's end, wherever that is.

    A namespace lives on while a process is in it, so those go first: they can only be the lab's.
    """
    for name in names:
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
        for pid in inside.split():
            try:
                os.kill(int(pid), 9)
            except ProcessLookupError:
                continue
        subprocess.run(["ip", "-n", name, "link", "del", "net0"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
