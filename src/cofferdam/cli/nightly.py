"""The nightly proof: what an operator would type, each in a process of its own, and each tells the gate what it found.

The launcher starts this beside itself when the gate orders it, with its own rights (enforce.crews). The launcher tells
it the state directory and whether there are namespaces to prove; the gate tells it nothing, so that a gate in the hands
of an intruder leaves nothing out. What one of them could not do keeps none of the others from being done, and the gate
is told.

Not here: when (gate.watch.nightly), what is done (the verbs).
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from typing import Final

from cofferdam.crossing.pipe import PipeSender
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce.isolation import prctl
from cofferdam.evidence.nightly_records import FROM_NIGHT, NightDone

PROOF: Final = ("prove",)
OTHERS: Final = (("evidence", "selftest"), ("evidence", "run"))
PLAIN: Final = "processes"
"""The launcher's word for a gate without namespaces."""
EACH_SECONDS: Final = 1200.0
_PR_SET_PDEATHSIG: Final = 1
DONE: Final = (0, 1)
"""A verb that ends with 1 has found something, and has told the gate; with any other it could not do its work."""


def _end_with_us() -> None:
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def do(verb: tuple[str, ...], state: str) -> tuple[bool, str]:
    """Runs a verb: whether it found nothing wrong, and why it could not do its work, or ""."""
    command = [sys.executable, "-I", "-B", "-m", "cofferdam.cli.main", *verb, "--state", state]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=EACH_SECONDS,
            check=False, preexec_fn=_end_with_us,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"it was not done within {EACH_SECONDS / 60:.0f} minutes"
    except OSError as error:
        return False, f"it did not start: {error.strerror}"
    words = " ".join(done.stderr.decode("utf-8", "replace").split())
    if done.returncode in DONE and "Traceback (most recent call last)" not in words:
        return done.returncode == 0, ""
    why = (words[-400:] or f"it ended ({done.returncode})") if done.returncode >= 0 else f"signal {-done.returncode}"
    return False, why


def due(isolation: str) -> tuple[tuple[str, ...], ...]:
    """The verbs, by the launcher's word for what keeps the gate's processes apart. Of a gate without namespaces a
    proof would find each night what everybody knows."""
    return OTHERS if isolation == PLAIN else (PROOF, *OTHERS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="cofferdam-nightly")
    for option in ("name", "kind", "part", "state", "isolation"):
        parser.add_argument(f"--{option}", default="")
    for option in ("control-in", "control-out"):
        parser.add_argument(f"--{option}", type=int, required=True)
    args = parser.parse_args()
    told = {" ".join(verb): do(verb, args.state) for verb in due(args.isolation)}
    reactor = Reactor()
    gate: PipeSender[NightDone] = PipeSender(reactor, args.control_out, FROM_NIGHT)
    failed = tuple((name, why[:500]) for name, (_, why) in told.items() if why)
    gate.send(NightDone(tuple((name, good) for name, (good, why) in told.items() if not why), failed))
    gate.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
