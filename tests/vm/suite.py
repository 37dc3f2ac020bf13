"""The project's own tests of what needs a kernel, inside the machine."""

from __future__ import annotations

import re

from tests.vm.checks import Checks, unpack
from tests.vm.machine import Machine

FOLDERS = ("tests/cli", "tests/enforce", "tests/overlay", "tests/prove")
SECONDS = 3600
TEST_SECONDS = 600
"""For one test: the machine may be ten times slower than this one."""


def tests(machine: Machine, checks: Checks) -> None:
    """Runs pytest on the path that is the group's name."""
    machine.boot()
    unpack(machine)
    path = checks.group
    command = f"cd /opt/cofferdam && COFFERDAM_TEST_PATIENCE=2 python -m pytest -q --timeout={TEST_SECONDS} {path} 2>&1"
    done = machine.run(f"{command} | tail -n 150; exit ${{PIPESTATUS[0]}}", seconds=SECONDS)
    lines = done.out.splitlines()
    last = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "no summary")
    checks.check(f"pytest: {last.strip('= ')}", done.ok, done.out)
    for line in lines:
        if line.startswith("SKIPPED"):
            checks.note(line)
