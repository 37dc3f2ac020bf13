"""A file of the quarantine on its way to an examiner, unsealed, by a named pipe: what checks OpenPGP reads nothing but
a file that has a name, to its end, and the examiner has no place to write one.

It is written as the examiner reads, a pipe's room at a time, between the keeper's other work. Whoever could read the
pipe instead of the one that it is for would have to know its name, which nobody can list.

Not here: what the examiner does with it (origin), how it is sealed (sealing).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cofferdam.brokers.patch.sealing import NotSealed
from cofferdam.crossing.reactor import Reactor

FOLDER: Final = "fed"
MODE: Final = 0o710
"""Whoever sees the store may open what lies in the folder, and not list it."""
LEAST_BYTES: Final = 8 << 20
"""What is smaller is held in memory as it is read. More than a pipe has room for: so when all of a file has been
written, the examiner has it open."""
PIPE_BYTES: Final = 1 << 20
SOON_SECONDS: Final = 0.001
"""Until a reader that is at work has made room."""
LATEST_SECONDS: Final = 0.064


class Feed:
    """One file."""

    def __init__(self, reactor: Reactor, store: Path, name: str, pieces: Iterator[bytes | memoryview]) -> None:
        """Raises: OSError."""
        self.path = store / FOLDER / f"{name}-{secrets.token_hex(16)}"
        self.error = ""
        """Why it did not get all of it, "" if it did or may yet."""
        self.whole = False
        """All of it went in, and nearly all was read."""
        self._reactor, self._pieces = reactor, pieces
        self._rest = memoryview(b"")
        self._wait = SOON_SECONDS
        os.mkfifo(self.path, 0o640)
        try:
            # To read as well, so that this waits for nobody who would.
            self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            self.path.unlink()
            raise
        with contextlib.suppress(OSError):  # beyond the user's share of such room it just fills earlier
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._timer = reactor.call_in(0, self._step)

    def _step(self) -> None:
        try:
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
            if not self._rest:
                self.whole = True
                self.close()
                return
            self._rest = self._rest[os.write(self._fd, self._rest) :]
            self._wait = SOON_SECONDS
        except BlockingIOError:
            self._wait = min(2 * self._wait, LATEST_SECONDS)
        except (OSError, NotSealed) as error:
            self.error = f"the keeper's disk: {error.strerror}" if isinstance(error, OSError) else str(error)
            self.close()
            return
        self._timer = self._reactor.call_in(self._wait if self._rest else 0, self._step)

    def close(self) -> None:
        """No more comes."""
        if self._fd >= 0:
            self._timer.cancel()
            os.close(self._fd)
            self._fd = -1
            self.path.unlink(missing_ok=True)
