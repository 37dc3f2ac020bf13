"""`cofferdam down`: stops the running gate in order, and waits until it is gone; puts the network back that a killed
gate had taken. Done twice, the second time finds nothing to do."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from pathlib import Path

from cofferdam.errors import GateError

WAIT_SECONDS = 30.0


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    add_state(parser)
    add_json(parser, "Down")


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask, wait_until_gone

    state = state_of(args)
    try:
        ask(state, "down")
    except GateError:
        cleared = _clear_up(state)
        if cleared is None:
            raise
        said = "; the network that it had taken is back in place" if cleared else ", and there is nothing to clear up"
        said = f"no gate runs{said}"
        _say(said, json_wanted=args.json, stopped=False, cleared=cleared)
        return 0
    if not wait_until_gone(state, WAIT_SECONDS):
        print(f"cofferdam down: the gate still runs after {WAIT_SECONDS:.0f} s; see its messages", file=sys.stderr)
        if args.json:
            _say("", json_wanted=True, stopped=False, cleared=False)
        return 1
    _say("the gate has stopped", json_wanted=args.json, stopped=True, cleared=False)
    return 0


def _say(text: str, *, json_wanted: bool, stopped: bool, cleared: bool) -> None:
    """`stopped`: a gate ran, and stopped; `cleared`: none ran, and the network of a killed one was put back."""
    print(json.dumps({"stopped": stopped, "cleared": cleared}) if json_wanted else text)


def _clear_up(state: Path) -> bool | None:
    """Puts back what a gate that was killed had moved; False if there was nothing. None if a gate runs there, or none
    of root's ever did.

    Raises:
        GateError: it cannot be put back.
    """
    from cofferdam.enforce import fence, journal

    if not journal.folder(state).exists():
        return None
    try:
        lock = os.open(state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if journal.load(state) is None:
            return fence.remove(state)  # it had taken no interface, and may have had exports
        from cofferdam.enforce.putback import clean

        for said in clean(state):
            print(f"cofferdam down: {said}", file=sys.stderr)
        if journal.load(state) is not None:
            raise GateError("not everything could be put back", hint="put the rest right, then do this again")
    except BlockingIOError:
        return None
    finally:
        os.close(lock)
    return True
