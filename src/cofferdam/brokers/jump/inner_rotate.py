"""A password of ours is changed at an asset: by a command of the policy, and then it is tried.

What is secret goes to the command's stdin, never into its line, which others at the asset may see. Whether it was
changed is what a sign-in by the new one says, not what the command says.

Not here: which one, when, and what is kept until then (rotating, in the keeper).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import asyncssh

from cofferdam.audit.events.base import clip
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.inner_ssh import NoLeg, connect

COMMAND_SECONDS: Final = 30.0
SAID_BYTES: Final = 4_096
"""Of what the command says, kept to tell why it failed."""


class _Run(asyncssh.SSHClientSession[bytes]):
    """One command. `said`: the last of its output."""

    def __init__(self) -> None:
        self.said = b""
        self.status: int | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.said = (self.said + data)[-SAID_BYTES:]

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def rotate(asked: records.Rotate, address: str, port: int) -> records.Rotated:
    """What came of it: "changed" where the new one works, "kept" where the old one does, else "unknown"."""
    why = ""
    if asked.command:
        try:
            why = await _command(asked, address, port)
        except NoLeg as error:
            why = str(error)
    refused = ""
    for outcome, credential in (("changed", asked.fresh), ("kept", asked.credential)):
        try:
            (await connect(asked, address, port, credential)).abort()
        except NoLeg as error:
            refused = str(error)
        else:
            said = "" if outcome == "changed" else why or "the new password does not work, the old one does"
            return records.Rotated(asked.number, outcome, clip(said))  # type: ignore[arg-type]
    why = f"neither the old nor the new one lets us in: {why or refused}"
    return records.Rotated(asked.number, "unknown", clip(why))


async def _command(asked: records.Rotate, address: str, port: int) -> str:
    """Runs it. Returns what was wrong with it, as it seems. Raises: NoLeg: it never ran."""
    connection = await connect(asked, address, port, asked.credential)
    run = _Run()
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            chan, _ = await connection.create_session(lambda: run, asked.command, encoding=None)
            chan.write(b"".join(line + b"\n" for line in asked.lines))
            chan.write_eof()
            await run.over
    except TimeoutError:
        return "the command did not end"
    except (asyncssh.Error, OSError) as error:
        return f"the command could not be run: {error}"
    finally:
        connection.abort()
    if run.status == 0:
        return ""
    said = run.said
    for secret in (asked.fresh.secret, asked.credential.secret):
        said = said.replace(secret, b"***")
    return f"the command ended with {run.status}: {said.decode('utf-8', 'replace').strip()[-200:]}"
