"""A real clamd beside the gate, with a base of one signature: that of the test file which every scanner knows.

Not here: who asks it (the jump server's archivist), what follows (steps).
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path

from cofferdam.brokers.kit.clamd import EICAR
from cofferdam.errors import CofferdamError
from cofferdam.lab.scene import START_SECONDS, Scene

HOW = "there is no clamd (Debian: clamav-daemon), and nothing passes that it should look through"


def there() -> str:
    """The program; "" where there is none."""
    return shutil.which("clamd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or ""


async def start(scene: Scene) -> None:
    """Starts it, where there is one, and tells the gate of its socket. Raises: CofferdamError."""
    program = await asyncio.to_thread(there)
    if not program:
        return
    folder = scene.directory / "scanner"
    config, socket = await asyncio.to_thread(_written, folder)
    actor = await scene.start("scanner", "gate", [program, "-c", str(config)], events_out=False)
    for _ in range(int(START_SECONDS / 0.1)):
        if await asyncio.to_thread(socket.exists):
            scene.options += ["--socket", f"clamd={socket}"]
            return
        if not actor.running:
            break
        await asyncio.sleep(0.1)
    raise CofferdamError(f"clamd did not start: {actor.complaint()}")


def _written(folder: Path) -> tuple[Path, Path]:
    """Its base and configuration; where that is, and its socket."""
    (folder / "base").mkdir(parents=True, exist_ok=True)
    known = hashlib.md5(EICAR, usedforsecurity=False).hexdigest()
    (folder / "base" / "lab.hdb").write_text(f"{known}:{len(EICAR)}:Lab.Test.File\n")
    config, socket = folder / "clamd.conf", folder / "clamd.ctl"
    socket.unlink(missing_ok=True)
    config.write_text(
        f"LocalSocket {socket}\nLocalSocketMode 666\nDatabaseDirectory {folder}/base\nTemporaryDirectory {folder}\n"
        "Foreground yes\nAlertExceedsMax yes\n"
    )
    return config, socket
