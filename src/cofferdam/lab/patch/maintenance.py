"""Maintenance: brings firmware in, of which every third is not the vendor's, and has two people approve the rest.

Not here: the firmware and the keys (props).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from cofferdam.errors import CofferdamError, GateError
from cofferdam.gate.client import ask
from cofferdam.lab.patch import events
from cofferdam.lab.patch.plc import NAME
from cofferdam.lab.patch.vendor import Vendor, firmware
from cofferdam.lab.scene import in_the_end

LOOK_SECONDS = 0.1
LOOKS = 1800


class Desk:
    """Its tools. `folder` has keys, `state` is the gate's state directory."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self.state = state
        self.vendor = Vendor((folder / "vendor.key").read_bytes())

    async def patch(self, *words: str) -> tuple[int, str]:
        """`cofferdam patch ...`: its exit code, and all that it said."""
        argv = [sys.executable, "-m", "cofferdam.cli.main", "patch", *words, "--state", str(self.state)]
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        if not process.returncode:
            return 0, out.decode("utf-8", "replace").strip()
        said = err.decode("utf-8", "replace").strip()
        return process.returncode, said[max(0, said.rfind("cofferdam patch:")) :]

    async def told(self, *words: str) -> Any:
        """Its answer as JSON. Raises: CofferdamError."""
        code, said = await self.patch(*words, "--json")
        if code:
            raise CofferdamError(said)
        return json.loads(said)

    async def ask(self, part: str, verb: str, **words: object) -> Any:
        """What a part of the patch relay says, without a process of its own for the question. Raises: GateError."""
        question = functools.partial(
            ask, self.state, "ask-part", broker="patch", part=part, verb=verb, arguments=words, crew=""
        )
        return (await asyncio.to_thread(question))[0]["result"]

    async def ready(self) -> None:
        """Once all parts of the patch relay answer. Raises: CofferdamError."""
        said = ""
        for _ in range(LOOKS):
            try:
                await self.ask("keeper", "status")
                await self.ask("installer", "plan")
                return
            except GateError as error:
                said = str(error)
            await asyncio.sleep(LOOK_SECONDS)
        raise CofferdamError(said)

    async def bring(
        self, version: str, data: bytes, signature: str, *, product: str = "filler-firmware", name: str = NAME
    ) -> dict[str, Any]:
        """A file with this signature, and what the examiner made of it. Raises: CofferdamError."""
        file = self.folder / name
        beside = self.folder / f"{name}.minisig"
        file.write_bytes(data)
        beside.write_text(signature)
        words = ("--product", product, "--version", version, "--signature", str(beside))
        number = (await self.told("put", str(file), *words))["number"]
        passes = () if product == "filler-advisories" else ("passed",)  # documents are read then
        ends = ("read", "refused", "failed", "not-scanned", *passes)
        for _ in range(LOOKS):
            found: dict[str, Any] = await self.ask("keeper", "show", number=number)
            if found["state"] in ends:
                return found
            await asyncio.sleep(LOOK_SECONDS)
        raise CofferdamError(f"file {number} was not examined")

    async def request(self, found: dict[str, Any]) -> None:
        """As `patch request` does it. Raises: CofferdamError."""
        await self.ask("keeper", "request", number=found["number"], claim={
            "what": f"{found['product']}/{found['version']}/{found['file']}", "sha256": found["sha256"],
        })  # fmt: skip

    async def approve(self, number: int, who: str) -> tuple[int, str]:
        """As `patch approve` does it: (0, ""), or (2, why not)."""
        from cofferdam.brokers.patch import trustkeys  # an extra's libraries: not for all plays

        try:
            said, more = "", 1
            while more:
                asked = await self.ask("keeper", "to-sign", number=number, offset=len(said))
                said, more = said + asked["metadata"], asked["more"]
            metadata = trustkeys.decode(said.encode(), trustkeys.Targets)
            process = await asyncio.create_subprocess_exec(
                "ssh-keygen", "-q", "-Y", "sign", "-n", trustkeys.NAMESPACE, "-f", str(self.folder / f"{who}.key"),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            signature, _ = await process.communicate(trustkeys.to_sign(metadata.signed))
            await self.ask("keeper", "approve", number=number, signature=signature.decode("ascii", "replace"))
        except CofferdamError as error:
            return 2, str(error)
        return 0, ""

    async def asset(self, name: str = "filler-plc") -> dict[str, Any]:
        """Where a controller stands."""
        found: list[dict[str, Any]] = (await self.ask("installer", "plan"))["assets"]
        return next(each for each in found if each["asset"] == name)

    async def told_why(self, name: str, word: str) -> dict[str, Any]:
        """Where a controller stands once that has this word for it, or time is up."""
        return await in_the_end(lambda: self.asset(name), lambda found: word in found["why"])

    async def settled(self, number: int, name: str = "filler-plc") -> dict[str, Any]:
        """Where it stands once this release is through. Raises: CofferdamError."""
        found: dict[str, Any] = {}
        for _ in range(LOOKS):
            found = await self.asset(name)
            ended = found["state"] in ("failed", "unknown", "back") or (
                found["state"] == "done" and found["has"] == found["release"]
            )
            if found["number"] >= number and ended:
                return found
            await asyncio.sleep(LOOK_SECONDS)
        raise CofferdamError(f"{name} is {found.get('state') or 'untouched'}: {found.get('why')}")


async def forever(folder: Path, state: Path, pause: float, sink: events.Sink) -> None:
    """Works until it is ended."""
    desk = Desk(folder, state)
    await desk.ready()
    for number in itertools.count(1):
        version = f"1.{number}"
        data = firmware(version)
        signature = desk.vendor.sign(data if number % 3 else data[:-1])
        found = await desk.bring(version, data, signature)
        if found["state"] == "passed":
            await desk.request(found)
            for who in ("alice", "bob"):
                await desk.approve(found["number"], who)
        sink(events.Judged(version, found["state"], found["reason"]))
        await asyncio.sleep(pause)
