"""What every group of checks uses: the list of what passed, the site's policy, and the machine's hosts."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cofferdam.enforce.compiled import FOLDER, NEWEST
from tests.vm.image import NICS, ROOT
from tests.vm.machine import Machine, MachineError

Group = Callable[[Machine, "Checks"], None]

ERP, STRANGER, DEVICE, OTHER_DEVICE = "10.81.0.20", "10.81.0.66", "10.82.0.17", "10.82.20.17"
GATE_IT, GATE_OT, OVERLAY = "10.81.0.1", "10.82.0.1", "100.65.7.17"
MGMT, AWAY = "192.0.2.1", "192.0.2.2"
POLICY = "/etc/cofferdam/policy.yaml"
READY_SECONDS = 120


class Checks:
    """Prints a line for each check, and counts."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.group = ""

    def check(self, name: str, ok: object, detail: object = "") -> bool:
        """`detail` is shown where it failed. Returns whether it did not."""
        said = str(detail).strip()
        (self.passed if ok else self.failed).append(f"{self.group}: {name}")
        print(f"{'pass' if ok else 'FAIL'}  {self.group}: {name}", flush=True)
        if not ok and said:
            print("      " + said[-3000:].replace("\n", "\n      "), flush=True)
        return bool(ok)

    def note(self, text: str) -> None:
        """A fact worth reading that is no check."""
        print(f"      {text}", flush=True)


def policy(*, it: str = "", ot: str = "", write: str = "[speed]", more: str = "", who: str = "erp") -> str:
    it = it or f"interface: it0, addresses: [{GATE_IT}/24]"
    ot = ot or f"interface: ot0, addresses: [{GATE_OT}/24]"
    points = "{level: {at: holding 0, type: uint16}, speed: {at: holding 200, type: uint32}}"
    return f"""\
site: vm
zones:
  office: {{side: it, {it}}}
  plant: {{side: ot, {ot}}}
assets:
  plc: {{zone: plant, address: {DEVICE}, protocol: modbus, unit: 1, overlay: {OVERLAY}, points: {points}}}
principals:
  erp: {{zone: office, addresses: [{ERP}]}}
{"  alice: {zone: office, peer: alice}" if "alice" in who else ""}
conduits:
  main:
    from: office
    to: plant
    broker: modbus
    owner: tests
    reason: tests
    expires: 2099-01-01
    allow:
      - {{who: [{who}], asset: plc, read: all, {f"write: {write}" if write else ""}}}
gate: {{require: namespaces}}
{more}
"""


LISTENS = "for i in $(seq 150); do ip netns exec plant ss -Hltn | grep -q ':502 ' && break; sleep 0.2; done"
"""Until the device listens."""
PEERS = f"""
set -e
for at in office:office0:{ERP}/24 office:office0:{STRANGER}/24 plant:plant0:{DEVICE}/24 away:away0:{AWAY}/24; do
  IFS=: read -r space card address <<<"$at"
  ip netns add $space 2>/dev/null && ip link set $card netns $space && ip -n $space link set lo up
  ip -n $space link set $card up
  ip -n $space addr replace $address dev $card
done
ip -n office route replace 100.65.0.0/16 via {GATE_IT}
systemd-run --quiet --unit=device --working-directory=/opt/cofferdam -p Restart=always \
  /opt/venv/bin/python -m tests.vm.guest device plant {DEVICE}
{LISTENS}
"""
"""The hosts on the wires, in namespaces of their own, each behind its own card; and a device."""

LISTENER = """\
[Unit]
DefaultDependencies=no
After=local-fs.target
Conflicts=shutdown.target
[Service]
ExecStart=/usr/bin/python3 -c "import socket, time; s = socket.create_server(('', 2222)); time.sleep(1 << 30)"
Restart=always
[Install]
WantedBy=sysinit.target
"""
"""Something of the machine itself that listens everywhere from early on, which the gate's cards must not lead to."""


def network(card: str, address: str) -> str:
    """A card in systemd-networkd's hands."""
    return f"[Match]\nName={card}\n\n[Network]\nAddress={address}/24\n"


def put(machine: Machine, path: str, text: str) -> None:
    machine.must(
        f"mkdir -p $(dirname {path}); cat > {path} <<'END-OF-FILE'\n{text.rstrip()}\nEND-OF-FILE\nchmod 644 {path}"
    )


def unpack(machine: Machine) -> None:
    """The project comes from the second disk, and the compiled build with it. Its libraries fit every release of Python
    3.11, but the gate asks for the very one, and the very place, that they were built with."""
    machine.must("tar -x -f /dev/vdb -C /opt && test -x /opt/venv/bin/cofferdam && cofferdam --version", seconds=120)
    build = f"/opt/venv/lib/cofferdam-fast/{NEWEST}"
    tag = "$(python -c 'import platform; print(platform.python_version())')"
    retag = f'sed -i -E "s/3\\.11\\.[0-9]+/{tag}/" {build}/manifest.json'
    move = f'sed -i "s|{ROOT}/src|/opt/cofferdam/src|" {build}/manifest.json {build}/__main__.py'
    machine.run(f"[ ! -d {build} ] || {{ {retag}; {move}; python -m compileall -q {build}/; }}", seconds=120)


def install(machine: Machine, text: str) -> None:
    """The policy, and both units as `cofferdam install` writes them."""
    put(machine, POLICY, text)
    machine.must(f"cofferdam install {POLICY} && systemctl daemon-reload", seconds=120)


def guest(*words: str) -> str:
    return "cd /opt/cofferdam && python -m tests.vm.guest " + " ".join(words)


def exchange(machine: Machine, space: str = "office", source: str = ERP, address: str = OVERLAY) -> str:
    return machine.run(guest("exchange", space, source, address), seconds=60).out.strip()


WORKS = "read 0302002a write done"


def wait_ready(machine: Machine, *, other_than: str = "") -> float:
    """Until systemd counts the gate as started, with another main process than `other_than`; the seconds it took.
    -1 if that does not happen."""
    started = time.monotonic()
    script = f"""for i in $(seq {READY_SECONDS * 4}); do
      now=$(systemctl show -p ActiveState -p MainPID cofferdam | sort | paste -sd' ')
      case "$now" in *MainPID=0|*"MainPID={other_than}") ;; ActiveState=active*) exit 0 ;; esac
      sleep 0.25
    done; exit 1"""
    return time.monotonic() - started if machine.run(script, seconds=READY_SECONDS + 30).ok else -1.0


def start(machine: Machine) -> None:
    """Both units, enabled and started. Raises: MachineError, with what the gate said."""
    units = "cofferdam-shut cofferdam"
    done = machine.run(f"systemctl enable -q {units}; systemctl start {units}", seconds=180)
    if not done.ok:
        raise MachineError(f"the gate does not start: {done.out}{said(machine)}")


def show(machine: Machine, unit: str, *properties: str) -> dict[str, str]:
    out = machine.must(f"systemctl show {unit} " + " ".join(f"-p {name}" for name in properties))
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def status(machine: Machine) -> dict[str, Any]:
    out = machine.run("cofferdam status --json", seconds=60).out
    try:
        found: dict[str, Any] = json.loads(out[out.index("{") :])
    except ValueError:
        return {"said": out}
    return found


def said(machine: Machine, unit: str = "cofferdam", lines: int = 25) -> str:
    return machine.run(f"journalctl -b -u {unit} --no-pager -n {lines} -o short-monotonic").out


def cards(machine: Machine) -> str:
    """How the gate's cards look in the machine's own namespace: addresses, state and routes."""
    out = machine.run("for n in it0 ot0; do ip -br addr show $n; ip route show dev $n; done 2>&1").out
    return re.sub(r" +(fe80\S+)?", " ", out)


def tarball(folder: Path) -> Path:
    """The working tree without what git ignores; the newest compiled build and the Debian package, if there are any."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout.split(b"\0")
    there = [name for name in sorted(names) if name and (ROOT / name.decode()).is_file()]
    at = folder / "project.tar"
    subprocess.run(
        ["tar", "-c", "-f", at, "--null", "--owner=0", "--group=0", "--transform=s,^,cofferdam/,", "--no-recursion",
         "-T", "-"], input=b"\0".join(there) + b"\0", cwd=ROOT, check=True,
    )  # fmt: skip
    builds = ROOT / ".venv" / FOLDER
    if (builds / NEWEST).is_dir():
        subprocess.run(
            ["tar", "-r", "-f", at, "--owner=0", "--group=0", f"--transform=s,^,venv/{FOLDER}/,S", "-C", builds,
             NEWEST, (builds / NEWEST).resolve().name], check=True,
        )  # fmt: skip
    for package in sorted((ROOT / "dist").glob("cofferdam_*.deb"))[-1:]:
        subprocess.run(
            ["tar", "-r", "-f", at, "--owner=0", "--group=0", "--transform=s,^.*$,cofferdam.deb,", "-C", package.parent,
             package.name], check=True,
        )  # fmt: skip
    return at


def from_card(machine: Machine, hub: int, card: str) -> list[Any]:
    return machine.wires[hub].frames(NICS[card])
