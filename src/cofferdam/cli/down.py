"""`cofferdam down`: stops the running gate in order, and waits until it is gone; puts the network back that a killed
gate had taken. Done twice, the second time finds nothing to do."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from pathlib import Path

from cofferdam.errors import GateError

WAIT_SECONDS = 30.0


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_state

    add_state(parser)


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask, wait_until_gone

    state = state_of(args)
    try:
        ask(state, "down")
    except GateError:
        if _clear_up(state):
            return 0
        raise
    if not wait_until_gone(state, WAIT_SECONDS):
        print(f"cofferdam down: the gate still runs after {WAIT_SECONDS:.0f} s; see its messages", file=sys.stderr)
        return 1
    print("the gate has stopped")
    return 0


def _clear_up(state: Path) -> bool:
    """Puts back what a gate that was killed had moved. False if a gate runs there, or never ran in namespaces.

    Raises:
        GateError: it can not be put back.
    """
    from cofferdam.enforce import journal

    if not journal.folder(state).exists():
        return False
    try:
        lock = os.open(state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if journal.load(state) is None:
            print("no gate runs, and there is nothing to clear up")
            return True
        from cofferdam.enforce.namespaces import clean

        for said in clean(state):
            print(f"cofferdam down: {said}", file=sys.stderr)
        if journal.load(state) is not None:
            raise GateError("not all could be put back", hint="put the rest right, then do this again")
        print("no gate runs; the network that it had taken is back in place")
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
