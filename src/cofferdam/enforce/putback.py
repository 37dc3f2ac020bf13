"""Puts back what a gate has moved or made in the host's network, as its journal says: at once or in a later process.

Not here: making it (namespaces), the journal's form (journal).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from cofferdam.enforce import fence, journal, netns
from cofferdam.enforce.inside import inside
from cofferdam.enforce.overlay.tunnel import SOCKETS
from cofferdam.errors import GateError


def clean(state: Path) -> list[str]:
    """Puts back what the journal in a state folder says; nothing if there is none. What could not be put back, in
    sentences. The journal stays only while a later try may do better. The caller knows that no gate runs there."""
    try:
        fence.remove(state)
        log = journal.load(state)
    except GateError as error:
        return [f"{error} ({error.hint})" if error.hint else str(error)]
    if log is None:
        return []
    if log.boot != journal.boot_id():
        journal.remove(state)
        return []  # the machine was started anew since: all of it is gone
    home = netns.own()
    said: list[str] = []
    try:
        if os.fstat(home).st_ino != log.host:
            return ["the gate was started in another network namespace than this one: run this command there"]
        if _put_back(log, home, said):
            journal.remove(state)
    except (GateError, OSError) as error:
        said.append(str(error))
    finally:
        os.close(home)
    return said


def _put_back(log: journal.Journal, home: int, said: list[str]) -> bool:
    """Whether all that could be put back was; `said` gets what could not."""
    whole = True
    for entry in log.namespaces:
        if not entry.inode:
            netns.remove_namespace(entry.name)  # ended while it was made: nothing was moved yet
            continue
        fd = netns.open_namespace(entry.name, entry.inode)
        try:
            for made in log.made:
                if made.namespace == entry.name:
                    (SOCKETS / f"{made.name}.sock").unlink(missing_ok=True)
                    for where in (None, fd) if fd is not None else (None,):
                        _try(said, where, netns.delete_interface, made.name)
            for moved in log.moved:
                if moved.namespace != entry.name:
                    continue
                if fd is not None and inside(fd, netns.has_interface, moved.name):
                    _try(said, fd, netns.move, moved.name, home)
                    stuck = inside(fd, netns.has_interface, moved.name)
                    whole = whole and not stuck
                    if stuck:
                        continue
                said += _try(said, None, netns.restore, msgspec.to_builtins(moved)) or []
        finally:
            if fd is not None:
                os.close(fd)
        if fd is not None and whole:
            netns.remove_namespace(entry.name)
    return whole


def _try(said: list[str], where: int | None, work: Any, *arguments: Any) -> Any:
    try:
        return inside(where, work, *arguments)
    except GateError as error:
        said.append(str(error))
        return None
