"""What somebody who owns the mirror's reader has in hand, and may do in its place.

Its descriptors are looked at from outside. Then a process of our own goes into its network and its view of the files,
as its user, and tries. It has more than the reader has: no filter of system calls is on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cofferdam.enforce import kernel

DIAL_SECONDS = 2.0


def owned_reader(
    reader: int, others: Sequence[int], store: Path, historian: str, door: str
) -> dict[str, Any] | None:  # fmt: skip
    """What there is in its hands that should not be: sockets, pipes of which others have an end; and what came of
    writing and of dialling the historian. None: we may not look."""
    if os.geteuid():
        return None
    port = int(door.rpartition(":")[2])
    links = _links(reader)
    known = {one for name in ("tcp", "tcp6") for one in _of_door(Path(f"/proc/{reader}/net/{name}"), port)}
    links &= _links(reader)  # not what it closed meanwhile, which is in no table any more
    sockets = [link for link in sorted(links) if link.startswith("socket:") and link[8:-1] not in known]
    theirs = {link: other for other in others for link in _links(other) if link.startswith("pipe:")}
    pipes = [f"{link} of process {theirs[link]}" for link in sorted(links) if link in theirs]
    return {"sockets": ", ".join(sockets), "pipes": ", ".join(pipes), **_in_its_place(reader, store, historian)}


def _links(process: int) -> set[str]:
    """What it has open. It works meanwhile: what it has closed between two looks is none."""
    found = set()
    for path in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(path.readlink()))
    return found


def _of_door(table: Path, port: int) -> set[str]:
    """The inodes of sockets whose own end is this port: the door, and who came to it."""
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port}


def _in_its_place(reader: int, store: Path, historian: str) -> dict[str, Any]:
    said = Path(f"/proc/{reader}/status").read_text()
    user, group = (int(re.findall(rf"^{word}:\t(\d+)", said, re.M)[0]) for word in ("Uid", "Gid"))
    spaces = [(os.open(f"/proc/{reader}/ns/{name}", os.O_RDONLY), kind)
              for name, kind in (("net", kernel.CLONE_NEWNET), ("mnt", kernel.CLONE_NEWNS))]  # fmt: skip
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            for space, kind in spaces:
                kernel.setns(space, kind)
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
            os.write(writes, json.dumps(_tried(store, historian)).encode())
        finally:
            os._exit(0)
    os.close(writes)
    for space, _ in spaces:
        os.close(space)
    with os.fdopen(reads, "rb") as file:
        found: dict[str, Any] = json.loads(file.read() or b"{}")
    os.waitpid(child, 0)
    return found


def _tried(store: Path, historian: str) -> dict[str, Any]:
    known = store / "catalogue.json"
    ways: dict[str, Callable[[], object]] = {
        "make a file in the store": lambda: (store / "mine.parquet").write_bytes(b"x"),
        "put another catalogue in place": lambda: known.rename(store / "mine.json"),
        "remove the catalogue": known.unlink,
        "change a byte of it": lambda: os.close(os.open(known, os.O_WRONLY)),
        "make a file anywhere else": lambda: Path("/mine").write_bytes(b"x"),
    }
    done = {}
    for words, way in ways.items():
        try:
            way()
            done[words] = "done"
        except OSError as error:
            done[words] = os.strerror(error.errno or 0)
    address, _, port = historian.rpartition(":")
    try:
        socket.create_connection((address, int(port)), DIAL_SECONDS).close()
        dialled = "connected"
    except TimeoutError:
        dialled = "no answer"
    except OSError as error:
        dialled = os.strerror(error.errno or 0)
    read_only = os.statvfs(store).f_flag & os.ST_RDONLY
    return {"writes": done, "historian": dialled, "mount": "read-only" if read_only else "it can be written"}
