"""`cofferdam down`: stops the running gate in order, and waits until it is gone."""

from __future__ import annotations

import argparse
import sys

WAIT_SECONDS = 30.0


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_state

    add_state(parser)


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask, wait_until_gone

    state = state_of(args)
    ask(state, "down")
    if not wait_until_gone(state, WAIT_SECONDS):
        print(f"cofferdam down: the gate still runs after {WAIT_SECONDS:.0f} s; see its messages", file=sys.stderr)
        return 1
    print("the gate has stopped")
    return 0
