"""`cofferdam up`, but for the sandbox of the halves: what that costs can only be measured where it is missing.

The halves stand in the network namespaces of their sides, behind the same firewall, with the same gate and auditor
beside them. They see the host's files and processes, are root, and have no system-call filter and no Landlock.

Cofferdam itself has no switch for this, and must not get one. So this program replaces two things in its own process:
how a half is put in its place, and with which program it starts (bare_half.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from cofferdam.cli.main import main
from cofferdam.enforce import compiled, kernel, namespaces
from cofferdam.enforce.compiled import Build
from cofferdam.enforce.isolation import Berth
from cofferdam.enforce.profile import Profile

HALF = Path(__file__).resolve().parent / "bare_half.py"


class Bare(namespaces.NamespaceIsolation):
    """Namespaces of the network only, for halves; all else as it is."""

    def user(self, name: str) -> int:
        """Root, whom the firewall then takes for every part."""
        return 0 if "/" in name and name != "auditor/auditor" else super().user(name)

    @contextlib.contextmanager
    def forking(self, profile: Profile) -> Iterator[None]:
        yield

    def child_setup(self, berth: Berth) -> None:
        if berth.place is None:
            super().child_setup(berth)
            return
        self._enter_side(berth.place)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._launcher:
            raise OSError(errno.ESRCH, "the launcher ended while this child started")


def without_a_filter(build: Build) -> Build:
    """The same half, compiled or not, started by bare_half.py."""
    how = (build.arguments[0], "--run") if build.is_compiled else ()
    return Build((*how, str(HALF)), build.is_compiled, build.why)


if __name__ == "__main__":
    found = compiled.find()
    compiled.find = lambda folder=None: without_a_filter(found)  # type: ignore[assignment]
    namespaces.NamespaceIsolation = Bare  # type: ignore[misc]
    sys.exit(main())
