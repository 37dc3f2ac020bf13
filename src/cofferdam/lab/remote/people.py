"""People with a real ssh: a key, a code generator, and what they type.

Not here: what they do (steps, visitor), the station that they reach (play).
"""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

SECONDS = 150.0
"""How long a command may take: what a session that nobody ends would do takes less, and ends well."""
ASKPASS = '#!/bin/sh\ncase "$1" in *ode*) echo "$LAB_CODE";; *) echo no;; esac\n'


class Said(msgspec.Struct, frozen=True):
    """What came of a command: its exit code and its words."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that was said, in one line."""
        return " ".join((self.out + " " + self.err).split())


class Person:
    """Somebody at the office, or away. `source` is their address, "" where there is no choice; `code` gives a code that
    has not been used; `run_in` puts a command at their host."""

    def __init__(
        self, name: str, folder: Path, door: tuple[str, int], source: str, code: Callable[[], str],
        run_in: Callable[[list[str]], list[str]],
    ) -> None:  # fmt: skip
        self.name = name
        self._folder = folder
        self._door = door
        self._source = source
        self._code = code
        self._run_in = run_in

    def options(self, key: str = "") -> list[str]:
        """Of ssh and scp. `key`: another one than the person's own."""
        said = {
            "UserKnownHostsFile": str(self._folder / "known_hosts"), "IdentitiesOnly": "yes", "LogLevel": "ERROR",
            "NumberOfPasswordPrompts": "1", "StrictHostKeyChecking": "yes",
            "IdentityFile": str(self._folder / (key or self.name)), "ConnectTimeout": "60",
        } | ({"BindAddress": self._source} if self._source else {})  # fmt: skip
        return ["-F", "none", *(word for name, value in said.items() for word in ("-o", f"{name}={value}"))]

    def ssh(self, user: str, *words: str, more: tuple[str, ...] = (), key: str = "") -> list[str]:
        """`ssh USER@gate WORDS`."""
        address, port = self._door
        return ["ssh", *self.options(key), *more, "-p", str(port), f"{user}@{address}", *words]

    def jump_config(self, authority: list[str]) -> Path:
        """A configuration by which `ssh station` goes by ProxyJump. `authority`: lines by which the gate is known."""
        address, port = self._door
        trusted, config = self._folder / "trusted", self._folder / f"{self.name}-config"
        trusted.write_text("\n".join(authority) + "\n")
        config.write_text(
            f"Host gate\n HostName {address}\n Port {port}\n User {self.name}\n"
            + (f" BindAddress {self._source}\n" if self._source else "")
            + f"Host station\n ProxyJump gate\n User {getpass.getuser()}\n"
            f"Host *\n IdentityFile {self._folder / self.name}\n IdentitiesOnly yes\n UserKnownHostsFile {trusted}\n"
            " StrictHostKeyChecking yes\n LogLevel ERROR\n ConnectTimeout 60\n"
        )
        return config

    def scp(self, source: str, target: str) -> list[str]:
        """`scp SOURCE TARGET`; `gate:` stands for the station by way of the gate."""
        address, port = self._door
        places = [place.replace("gate:", f"station@{address}:") for place in (source, target)]
        return ["scp", *self.options(), "-P", str(port), *places]

    async def begin(self, argv: list[str], code: str = "") -> asyncio.subprocess.Process:
        """Starts a command of theirs. `code`: another one than theirs."""
        askpass = self._folder / "askpass"
        environment = {
            **os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force",
            "LAB_CODE": code or await asyncio.to_thread(self._code),
        }  # fmt: skip
        return await asyncio.create_subprocess_exec(
            *self._run_in(argv), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=environment, start_new_session=True,
        )  # fmt: skip

    async def run(self, argv: list[str], code: str = "") -> Said:
        """Runs a command of theirs to its end."""
        return await finish(await self.begin(argv, code))


async def finish(process: asyncio.subprocess.Process) -> Said:
    """What came of it. One that does not end is ended."""
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
    return Said(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


def write_askpass(folder: Path) -> None:
    """What ssh asks for a code by."""
    file = folder / "askpass"
    file.write_text(ASKPASS)
    file.chmod(0o755)
