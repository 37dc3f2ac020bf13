"""The vendor's own end of a WireGuard tunnel, somewhere outside: all that they have of this works.

Not here: the road there (lab.away), the gate's end (`cofferdam overlay`), who comes by it (people).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

from cofferdam.enforce.overlay.tunnel import SOCKETS
from cofferdam.errors import CofferdamError
from cofferdam.lab.cable import run
from cofferdam.lab.scene import START_SECONDS, Actor, Scene

PEERS = "10.64.8.0/24"
NAME = "vendor-laptop"
KNOCK = """
import json, select, socket, sys
door, *others = [tuple(place) for place in json.loads(sys.argv[1])]
tried = {}
for place in (*others, door):
    tried[place] = one = socket.socket()
    one.setblocking(False)
    one.connect_ex(place)
# What was sent before it along the same way has had its answer when the last one has.
last = select.poll()
last.register(tried[door], select.POLLOUT)
last.poll(float(sys.argv[2]) * 1000)
def there(one):
    try:
        return bool(one.getpeername())
    except OSError:
        return False
print(json.dumps([place for place, one in tried.items() if there(one)]))
"""
"""Which of these places let somebody in, the door first; run at the vendor's."""


def lacking() -> str:
    """What there is not that a tunnel takes, in words; "" where all is there."""
    programs = [name for name in ("wireguard-go", "wg", "ip") if shutil.which(name) is None]
    if programs:
        return f"there is no {programs[0]} (Debian: wireguard-go, wireguard-tools)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no /dev/net/tun that we may open"
    return ""


class Tunnel:
    """Up from `raised` on."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._interface = f"cdlw{os.getpid() % 10_000_000}"
        self._program: Actor | None = None

    async def raised(self, config: str) -> None:
        """As the gate's configuration says, but that all goes into it: whoever owns this end keeps to no list of ours.
        Raises: CofferdamError."""
        socket_there = SOCKETS / f"{self._interface}.sock"
        argv = ["env", "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=error", "wireguard-go", "-f", self._interface]
        self._program = await self._scene.start("vendor-tunnel", "away", argv, events_out=False)
        for _ in range(int(START_SECONDS / 0.1)):
            if await asyncio.to_thread(socket_there.exists):
                break
            if not self._program.running:
                raise CofferdamError(f"wireguard-go did not start: {self._program.complaint()}")
            await asyncio.sleep(0.1)
        fields = dict(line.split(" = ", 1) for line in config.splitlines() if " = " in line)
        await asyncio.to_thread(self._set_up, config, fields)

    def _set_up(self, config: str, fields: dict[str, str]) -> None:
        lines = [line for line in config.splitlines() if line.split(" = ")[0] not in ("Address", "DNS", "MTU")]
        said = "\n".join("AllowedIPs = 0.0.0.0/0" if line.startswith("AllowedIPs") else line for line in lines)
        file = Path(self._scene.directory / "vendor-tunnel.conf")
        file.touch(mode=0o600)
        file.write_text(said + "\n")
        self._away("wg", "setconf", self._interface, str(file))
        for address in fields["Address"].split(", "):
            self._away("ip", "addr", "add", address, "dev", self._interface)
        self._away("ip", "link", "set", self._interface, "mtu", fields["MTU"], "up")
        self._away("ip", "route", "add", "default", "dev", self._interface)

    def _away(self, *argv: str) -> str:
        return run(*self._scene.layout.run_in("away", list(argv)))

    async def lets_in(self, door: tuple[str, int], *others: tuple[str, int], seconds: float) -> list[tuple[str, int]]:
        """Where somebody answers who is asked from here. `seconds`: how long the door may take."""
        argv = [sys.executable, "-c", KNOCK, json.dumps([door, *others]), f"{seconds:g}"]
        said = await asyncio.to_thread(self._away, *argv)
        return [(str(address), int(port)) for address, port in json.loads(said)]
