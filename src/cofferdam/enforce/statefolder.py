"""The state directory's locks: one gate at a time, and one who looks at a gate's namespaces at a time.

Not here: what lies in it (gate.state, journal, stores, the auditor).
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from cofferdam.enforce import journal
from cofferdam.errors import GateError

LOOKING = "prove.lock"
"""Held by whoever is in the namespaces without being a broker's part: a proof, or a round of the leak probe. Each would
take the other for a stranger."""

BUSY = "a proof is under way"


def hold_network(state: Path) -> int:
    """The lock on looking; the descriptor that holds it. Raises: GateError, if somebody looks now."""
    lock = os.open(journal.folder(state) / LOOKING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise GateError(BUSY, hint="it looks at the same namespaces; this waits for it") from None
    return lock


def lock_state(state: Path) -> int:
    """Takes the state directory for this gate; the descriptor that holds it."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        _own(state)
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise GateError(
            f"cannot use the state directory {state}: {error.strerror}",
            hint="give another one with --state, or make it writable for this user",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise GateError(
            f"another gate runs with the state directory {state}",
            hint=f"`cofferdam status --state {state}` shows it, `cofferdam down --state {state}` stops it; "
            "a second gate needs a --state of its own",
        ) from None
    # Whoever has to reach this process without the gate (gate.client.cut_off) finds it here, as long as the lock holds.
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
    return lock


def _own(state: Path) -> None:
    """Whoever can write to the state directory can restore a severed side and swap the log: it must be ours alone.

    Raises: GateError.
    """
    found = state.stat()
    sticky_group = found.st_mode & stat.S_ISVTX and not found.st_mode & stat.S_IWOTH
    if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not sticky_group):
        raise GateError(
            f"the state directory {state} can be written to by others",
            hint=f"make it this user's alone: chown {os.geteuid()} {state} && chmod 700 {state}; or another --state",
        )
