"""The machine outside: a second gate by the same policy, and what an operator does there.

Not here: the cable between the machines (lab.cable), what is tried (steps).
"""

from __future__ import annotations

import asyncio
import os
import pty
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cofferdam.errors import CofferdamError, GateError
from cofferdam.gate.client import ask
from cofferdam.lab.cable import Cable, run
from cofferdam.lab.layout import Namespaces
from cofferdam.lab.scene import COFFERDAM, PATIENCE_SECONDS, Actor, Answer, Scene

INSIDE, OUTSIDE = "inside", "outside"
LOSS: Final = 0.05
"""What the cable loses, all the while."""


class Outside:
    """The second machine. `cable` is None where there is none: on the loopback network the link is of the kernel's."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.state = scene.directory / OUTSIDE
        self.policy = scene.directory / "outside.yaml"
        self.gate: Actor | None = None
        layout = scene.layout
        self.cable: Cable | None = layout.cable if isinstance(layout, Namespaces) else None

    async def pair(self) -> None:
        """Each end gets keys of its own, and the other's small file. Raises CofferdamError."""
        self.state.mkdir(mode=0o700, exist_ok=True)
        where = self.scene.layout.addresses
        text = self.scene.policy.read_text(encoding="utf-8")
        # Each machine has metrics of its own; on the loopback network they would meet.
        mine = f"{where.management}:{where.management_port}"
        self.policy.write_text(text.replace(mine, f"{where.management}:{where.far_port}"), encoding="utf-8")
        files = {end: self.scene.directory / f"{end}.pair" for end in (INSIDE, OUTSIDE)}
        made = await asyncio.gather(*(self._pair(end, "--output", str(files[end])) for end in files))
        made += await asyncio.gather(
            self._pair(INSIDE, "--take", str(files[OUTSIDE])), self._pair(OUTSIDE, "--take", str(files[INSIDE]))
        )
        for answer in made:
            if answer.code:
                raise CofferdamError(f"the ends of the strand are not paired: {answer.text}")

    async def _pair(self, end: str, *words: str) -> Answer:
        state = self.scene.state if end == INSIDE else self.state
        policy = self.scene.policy if end == INSIDE else self.policy
        return await self.scene.verb(
            "diode", "pair", end, "--policy", str(policy), "--state", str(state), *words, state=False
        )

    async def up(self) -> None:
        """Starts its gate, and does not wait for it."""
        if self.cable is not None:
            await asyncio.to_thread(self.cable.lose, LOSS)
        argv = [*COFFERDAM, "up", str(self.policy), "--state", str(self.state), "--machine", OUTSIDE]
        self.gate = await self.scene.start("gate-outside", "outside", argv, events_out=False)

    async def heard(self) -> None:
        """Waits until its gate works, and hears the inside. Raises CofferdamError."""
        if self.gate is None:
            raise CofferdamError("the gate outside was not started")
        await self.scene.ready(self.gate, self.state)
        await until(lambda: self.keeper("status")["heartbeat"], "the outside hears the inside")

    async def verb(self, *words: str) -> Answer:
        """`cofferdam WORDS` on the machine outside."""
        return await self.scene.verb(*words, "--state", str(self.state), state=False)

    def keeper(self, verb: str) -> Any:
        """What the strand's keeper outside answers. Raises GateError."""
        return _ask(self.state, "keeper", verb)

    def folder(self, state: Path, part: str) -> Path:
        """Where files go out (of the spool) or come in (of the keeper). Raises GateError."""
        return Path(_ask(state, part, "status")["folders"]["files:flow-reports"])

    def alarms(self) -> list[str]:
        """What stands outside. Raises GateError."""
        return [str(one["name"]) for one in ask(self.state, "status", fresh=True)["alarms"]]

    def spool(self, state: Path) -> Any:
        """What the inside's spool says of itself. Raises GateError."""
        return _ask(state, "spool", "status")

    async def at_terminal(self, *words: str) -> str:
        """What `cofferdam WORDS` draws on a terminal outside: QR codes are for eyes."""
        screen, ours = pty.openpty()
        argv = [*COFFERDAM, *words, "--state", str(self.state)]
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=ours, stderr=ours, env={**os.environ, "COLUMNS": "120"}
        )
        os.close(ours)
        drawn = await asyncio.to_thread(_read_all, screen)
        if await process.wait():
            raise CofferdamError(f"cofferdam {' '.join(words)}: {drawn[-300:]}")
        return drawn.replace("\r\n", "\n")

    def within(self, state: Path, part: str, *argv: str) -> str:
        """Runs a command, as root, in the network namespace of a part of the strand. Raises CofferdamError."""
        return run("nsenter", "-t", str(_pid(state, part)), "-n", *argv)

    async def prove(self, state: Path) -> Answer:
        """`cofferdam prove --diode` on one of the two machines, from the network that its gate was started in."""
        launcher = _parent((await self.scene.status(state)).pid)
        argv = ["nsenter", "-t", launcher, "-n", "-m", *COFFERDAM, "prove", "--diode", "--json", "--state", str(state)]
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        return Answer(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


def _ask(state: Path, part: str, verb: str) -> Any:
    return ask(state, "ask-part", broker="diode", part=part, verb=verb, arguments={}, crew="")[0]["result"]


def _pid(state: Path, part: str) -> int:
    """Of a part of the strand. Raises GateError."""
    pairs = ask(state, "status", fresh=True)["pairs"]
    found = [half["pid"] for pair in pairs if pair["broker"] == "diode" for half in pair["halves"]
             if half["role"] == part and half["ready"]]  # fmt: skip
    if not found:
        raise GateError(f"the strand's {part} does not run")
    return int(found[0])


def _parent(pid: int) -> str:
    """The process id of a process's parent."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))


def _read_all(screen: int) -> str:
    found = b""
    try:
        while data := os.read(screen, 1 << 16):
            found += data
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(screen)
    return found.decode(errors="replace")


async def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Waits for what comes by itself. Raises CofferdamError where it does not."""
    end = asyncio.get_running_loop().time() + seconds
    why = ""
    while True:
        try:
            if await asyncio.to_thread(condition):
                return
        except GateError as error:
            why = f": {error}"
        if asyncio.get_running_loop().time() > end:
            raise CofferdamError(f"not in {seconds:g} s: {what}{why}")
        await asyncio.sleep(0.2)
