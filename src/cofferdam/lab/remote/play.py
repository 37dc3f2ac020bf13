"""Remote access: a vendor, a shift lead and a technician reach an engineering station by the jump server, with real ssh
before the gate and a real sshd behind it.

Not here: what they do (steps, visitor), how (people).
"""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyotp
from rich.console import RenderableType
from rich.panel import Panel

from cofferdam.errors import CofferdamError, GateError
from cofferdam.gate.client import ask
from cofferdam.lab import events
from cofferdam.lab.layout import Addresses, Ground, Host, Layout, Spot
from cofferdam.lab.play import Picture, Play, Sections
from cofferdam.lab.remote import scanner, tunnel
from cofferdam.lab.remote.people import Person, write_askpass
from cofferdam.lab.remote.steps import STEPS, Cast
from cofferdam.lab.scene import Scene

STATION, DOOR, VENDOR, TECH = "remote-station", "remote-door", "remote-vendor", "remote-tech"
PEOPLE = {"vendor": ("vendors", VENDOR), "lead": ("shift-leads", TECH), "tech": ("technicians", TECH)}
"""Name -> group, and where they are."""
FILES = f"/tmp/cofferdam-station-{os.getuid()}"  # noqa: S108 - as the policy has it; each lab has its own folder in it
READY_SECONDS = 120.0


class Remote(Play):
    """The jump server at work."""

    name = "remote"
    who = "a vendor, a shift lead, a technician and an engineering station"
    steps = STEPS

    def __init__(self) -> None:
        vendors: Ground = "office" if tunnel.lacking() else "away"
        self.spots = (
            Spot(STATION, "plant", 22), Spot(DOOR, "gate-office", 22), Spot(VENDOR, vendors), Spot(TECH, "office"),
        )  # fmt: skip

    def missing(self) -> str:
        lacking = [name for name in ("ssh", "scp", "ssh-keygen") if shutil.which(name) is None]
        if shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
            lacking.append("sshd")
        return f"{', '.join(lacking)} (Debian: openssh-client, openssh-server)" if lacking else ""

    def sections(self, where: Addresses) -> Sections:
        address, port = where.spots[STATION]
        door, door_port = where.spots[DOOR]
        rule = f"asset: station, as: {getpass.getuser()}"
        tunnelled = f'{{endpoint: "{where.endpoint}", peers: {tunnel.PEERS}}}'
        vendors = f"peer: {tunnel.NAME}" if where.endpoint else f"addresses: [{where.host(VENDOR)}]"
        return Sections(
            overlay=f"overlay: {{prefix6: none, wireguard: {tunnelled}}}\n" if where.endpoint else "",
            assets=f"  station: {{zone: control, address: {address}, port: {port}, protocol: ssh}}\n",
            principals=(
                f"  vendor-net: {{zone: enterprise, {vendors}}}\n"
                f"  plant-staff: {{zone: enterprise, addresses: [{where.host(TECH)}]}}\n"
            ),
            conduits=f"""\
  vendor-helps:
    from: enterprise
    to: control
    broker: jump
    owner: maintenance
    reason: contract 4711
    expires: 2035-06-30
    listen: "{door}:{door_port}"
    clients: vendor-net
    notice: Riverside Water. Authorised people only; what you are shown is recorded.
    approval: {{by: shift-leads, window: 4 h}}
    files: {{scan: true, most: 10 MB}}
    allow:
      - {{who: {{group: vendors}}, {rule}, do: [shell, exec, up], commands: ["echo *"], paths: ["{FILES}/**"]}}

  staff-helps:
    from: enterprise
    to: control
    broker: jump
    owner: maintenance
    reason: the plant's own technicians
    expires: 2035-06-30
    listen: "{door}:{door_port}"
    clients: plant-staff
    allow:
      - {{who: [{{group: technicians}}, {{group: shift-leads}}], {rule}, do: [exec, up, down],
          commands: ["echo *", "sleep *", uptime], paths: ["{FILES}/**"]}}
""",
        )  # fmt: skip

    async def before_gate(self, scene: Scene, listener: events.Sink | None) -> None:
        """The station: a real sshd, for whoever runs the lab. And the scanner, where there is one."""
        address, port = scene.layout.addresses.spots[STATION]
        config = _station(scene.directory / "station", address, port)
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "sshd"
        await scene.start("station", "plant", [sshd, "-D", "-e", "-f", str(config)], events_out=False)
        await scanner.start(scene)

    async def live(self, scene: Scene, listener: events.Sink) -> None:
        _, secrets = await self._people(scene)
        door = scene.layout.addresses.spots[DOOR]
        argv = [
            sys.executable, "-m", "cofferdam.lab.remote.visitor", str(scene.directory), door[0], str(door[1]),
            scene.layout.addresses.host(TECH),
        ]  # fmt: skip
        actor = await scene.start("technician", "office", argv, listener=listener)
        if actor.process.stdin is not None:
            actor.process.stdin.write(secrets["tech"].encode() + b"\n")
            await actor.process.stdin.drain()

    async def cast(self, scene: Scene) -> Any:
        people, _ = await self._people(scene)
        files = Path(FILES) / scene.directory.name
        await asyncio.to_thread(files.mkdir, parents=True, exist_ok=True)
        return Cast(scene, people, files)

    async def _people(self, scene: Scene) -> tuple[dict[str, Person], dict[str, str]]:
        """Everybody with a key and a code generator, and the station as the gate knows it."""
        write_askpass(scene.directory)
        keeper = Keeper(scene.state)
        found = await asyncio.to_thread(keeper.ready)
        door = scene.layout.addresses.spots[DOOR]
        (scene.directory / "known_hosts").write_text(
            f"[{door[0]}]:{door[1]} {found['key']}\n{door[0]} {found['key']}\n"
        )
        people: dict[str, Person] = {}
        secrets: dict[str, str] = {}
        for name, (group, spot) in PEOPLE.items():
            key = scene.directory / name
            _keygen(key)
            await asyncio.to_thread(keeper.person, name, group, key.with_suffix(".pub").read_text())
            secrets[name] = await asyncio.to_thread(keeper.secret, name)
            source = scene.layout.addresses.host(spot)
            host: Host = "office" if source else "away"
            people[name] = Person(
                name, scene.directory, door, source, _codes(keeper, name), partial(scene.layout.run_in, host)
            )
        made = await asyncio.to_thread(
            keeper.ask, "credential-set", asset="station", login=getpass.getuser(), kind="new-key"
        )
        (scene.directory / "station" / "authorized_keys").write_text(made["public_key"] + "\n")
        pin = (scene.directory / "station" / "host_key.pub").read_text()
        await asyncio.to_thread(keeper.ask, "host-key", asset="station", key=pin)
        return people, secrets

    def picture(self, layout: Layout) -> Picture:
        return RemotePicture()


class Keeper:
    """The keeper, as an operator's command line asks it."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def ask(self, verb: str, **arguments: object) -> Any:
        """Raises: CofferdamError, where it says no."""
        answers = ask(self._state, "ask-part", broker="jump", part="keeper", verb=verb, arguments=arguments)
        if "error" in answers[0]:
            raise CofferdamError(answers[0]["error"])
        return answers[0]["result"]

    def ready(self) -> Any:
        """By what the gate is known, once the keeper runs. Raises: CofferdamError."""
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                return self.ask("gate-key")
            except (GateError, CofferdamError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def person(self, name: str, group: str, key: str) -> None:
        """Somebody new; who is known from an earlier run is made anew."""
        if any(one["person"] == name for one in self.ask("people")):
            self.ask("person-remove", person=name)
        self.ask("person-add", person=name)
        self.ask("group-join", person=name, group=group)
        self.ask("key-add", person=name, key=key)

    def secret(self, name: str) -> str:
        """Of a new code generator."""
        return str(self.ask("code-new", person=name)["secret"])


def _codes(keeper: Keeper, name: str) -> Callable[[], str]:
    """Codes that have not been used: the lab cannot wait 30 s for each, and takes a new generator instead. The next one
    counts for a minute at least: a client on a busy machine may take longer than half of that."""
    return lambda: pyotp.TOTP(keeper.secret(name)).at(int(time.time()) + 30)


def _keygen(path: Path) -> None:
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _station(folder: Path, address: str, port: int) -> Path:
    """Its folder, keys and configuration."""
    folder.mkdir(exist_ok=True)
    host_key = folder / "host_key"
    _keygen(host_key)
    (folder / "authorized_keys").touch(mode=0o600)
    if getpass.getuser() == "root":
        Path("/run/sshd").mkdir(exist_ok=True)
    config = folder / "config"
    config.write_text(
        f"Port {port}\nListenAddress {address}\nHostKey {host_key}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"Subsystem sftp internal-sftp\nSetEnv HOME={folder}\n"  # not the shell's start of whoever runs the demo
    )
    return config


class RemotePicture(Picture):
    """Who is on what now, by the audit log, and what the technician tried last."""

    def __init__(self) -> None:
        self._last: deque[events.Experience] = deque(maxlen=4)
        self._times = 0
        self._live: dict[str, str] = {}

    def note(self, event: events.Event) -> None:
        if isinstance(event, events.Experience) and event.who == "tech":
            self._last.append(event)
            self._times += 1
        elif isinstance(event, events.Entry):
            self._entry(event.entry.get("event", {}))

    def _entry(self, said: dict[str, Any]) -> None:
        if said.get("kind") == "access-opened":
            what = said["command"] or said["what"]
            self._live[said["session"]] = f"{said['person']} on {said['asset']} as {said['login']}: {what}"
        elif said.get("kind") == "access-ended":
            self._live.pop(said["session"], None)

    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        lines = [f"{'✓' if one.outcome == 'ok' else '✗'} {one.action[:34]}: {one.detail[:60]}" for one in self._last]
        now = [f"• {one[:96]}" for one in self._live.values()]
        shown = "\n".join([*(now or ["nobody is on anything now"]), *lines])
        return ((Panel(shown, title="jump server: who is on what, and what a technician tried last"), 2),)

    def line(self) -> str:
        last = self._last[-1] if self._last else None
        said = f"jump server: {len(self._live)} on it now, {self._times} visits"
        return said + (f", last {last.action}: {last.outcome}" if last else "")
