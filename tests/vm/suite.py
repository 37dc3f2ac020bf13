"""The project's own tests of what needs a kernel, inside the machine."""

from __future__ import annotations

import re

from tests.vm.checks import Checks, unpack
from tests.vm.machine import Machine


def _pytest(machine: Machine, checks: Checks, *words: str, seconds: float) -> None:
    """One run of pytest; a check for the run, and a line for what was left out."""
    command = f"cd /opt/cofferdam && python -m pytest -q -p no:cacheprovider --timeout=600 {' '.join(words)} 2>&1"
    done = machine.run(f"{command} | tail -n 120; exit ${{PIPESTATUS[0]}}", seconds=seconds)
    last = next((line for line in reversed(done.out.splitlines()) if " in " in line), "no summary")
    checks.check(f"pytest {' '.join(words)}", done.ok and re.search(r"\d+ passed", last), done.out)
    checks.note(last.strip("= "))
    for line in done.out.splitlines():
        if line.startswith("SKIPPED"):
            checks.note(line)


def _ready(machine: Machine) -> None:
    machine.boot()
    unpack(machine)


def enforce(machine: Machine, checks: Checks) -> None:
    """tests/enforce"""
    _ready(machine)
    _pytest(machine, checks, "tests/enforce", seconds=1500)


def overlay(machine: Machine, checks: Checks) -> None:
    """tests/overlay"""
    _ready(machine)
    _pytest(machine, checks, "tests/overlay", seconds=1500)


def prove(machine: Machine, checks: Checks) -> None:
    """tests/prove"""
    _ready(machine)
    _pytest(machine, checks, "tests/prove", seconds=2400)


def cli(machine: Machine, checks: Checks) -> None:
    """tests/cli"""
    _ready(machine)
    _pytest(machine, checks, "tests/cli", seconds=900)
