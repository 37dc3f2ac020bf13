"""Whose processes hold what is the gate's. Here this process is the launcher, and the pipe a part's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cofferdam.proof import strangers

WAITS = "import sys; print(flush=True); sys.stdin.read()"
BEARS = (
    "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'],"
    " pass_fds=[int(sys.argv[1])]).pid, flush=True); sys.stdin.read()"
)


def _child(pipe: int, words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", words, str(pipe)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        pass_fds=[pipe],
    )  # fmt: skip


def test_a_child_of_the_launcher_that_is_born_while_it_is_looked_is_no_stranger() -> None:
    """Nor is anybody else let off: not a grandchild, and not a child of somebody else."""
    launcher = os.getpid()
    own = strangers.ours({launcher}, launcher)
    reader, writer = os.pipe()
    pipe = str(Path(f"/proc/self/fd/{writer}").readlink())
    with _child(writer, WAITS) as child, _child(writer, BEARS) as mother:
        assert child.stdout is not None and mother.stdout is not None
        child.stdout.readline()
        grandchild = int(mother.stdout.readline())
        found, _ = strangers.holders(own, launcher, set(), {pipe})
        assert [said.split()[1] for said in found] == [str(grandchild)]
        found, _ = strangers.holders(own, grandchild, set(), {pipe})
        assert {int(said.split()[1]) for said in found} == {child.pid, mother.pid, grandchild}
    os.close(reader)
    os.close(writer)
