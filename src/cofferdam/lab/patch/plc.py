"""A controller that takes firmware by SFTP into `update/`, starts what is new there, and says in `update/version` what
runs: the version, or that it does not work.

Not here: who may bring firmware (the gate).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from cofferdam.lab.patch import events

LOOK_SECONDS = 0.05
NAME = "filler.bin"


async def serve(folder: Path, address: str, port: int, sink: events.Sink) -> None:
    """Until it is ended."""
    import asyncssh  # an extra's: not for who only wants to know what it is called

    update = folder / "update"

    class Files(asyncssh.SFTPServer):
        def __init__(self, channel: Any) -> None:
            super().__init__(channel, chroot=str(update).encode())

    server = await asyncssh.listen(
        address, port, server_host_keys=[str(folder / "host.key")], sftp_factory=Files,
        authorized_client_keys=str(folder / "machine.pub"), config=(), allow_scp=False,
    )  # fmt: skip
    sink(events.Listening(address, server.get_port()))
    running = b""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        path = update / NAME
        data = path.read_bytes() if path.is_file() else b""
        if data and data != running:
            running = data
            _, version, state = (*data.split(b"\n", 1)[0].decode("ascii", "replace").split(), "", "", "")[:3]
            good = state == "good"
            (update / "version").write_text(f"{version}\n" if good else "fault\n")
            sink(events.Started(version, good))
