"""What the verbs around evidence share: one look at log and gate, and telling the gate what was found.

Not here: what the verbs do (evidence, evidence_signing).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.evidence.workbench import Bench


def bench_of(args: argparse.Namespace) -> Bench:
    """What the log and the running gate say. Raises: CofferdamError."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.evidence.workbench import Bench
    from cofferdam.gate.client import ask

    state = state_of(args)
    try:
        status = ask(state, "status")
    except GateError:
        status = None  # the log can be read without the gate
    return Bench.read(state, status)


def tell(state: Path, verb: str, **fields: Any) -> Any:
    """Has the running gate do something. Raises: GateError, naming what is needed."""
    from cofferdam.gate.client import ask

    return ask(state, verb, **fields)


def record(bench: Bench, found: list[Any]) -> int:
    """Hands findings to the running gate; how many it recorded."""
    import msgspec

    if bench.status is None:
        return 0
    recorded = 0
    for start in range(0, len(found), 4):  # a request has 64 KiB
        some = [msgspec.to_builtins(one) for one in found[start : start + 4]]
        recorded += tell(bench.state, "findings", found=some)["recorded"]
    return recorded


def remind(bench: Bench) -> None:
    """Tells the gate which clocks are due, as alarms."""
    if bench.status is not None:
        due = {
            one.clock: f"{one.state}: {one.due}; set anew by: {one.done}"
            for one in bench.clocks()
            if one.state in ("overdue", "due soon")
        }
        tell(bench.state, "clocks", due=due)
