"""What the verbs around evidence share: one look at log and gate, and telling the gate what was found.

Not here: what the verbs do (evidence, evidence_signing).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.evidence.workbench import Bench


def bench_of(args: argparse.Namespace) -> Bench:
    """What the log and the running gate say. Raises: CofferdamError."""
    from cofferdam.audit.lines import escaped
    from cofferdam.cli.gate_options import state_of
    from cofferdam.evidence.workbench import Bench
    from cofferdam.gate.client import ask, whole

    state, status = state_of(args), None
    try:
        said = ask(state, "status")
    except GateError:
        return Bench.read(state, None)  # the log can be read without the gate
    try:
        status = whole(said)
    except GateError as error:
        print(f"the log alone is looked at, and nothing is recorded: {escaped(str(error))}", file=sys.stderr)
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


def keep_baseline(state: Path, document: dict[str, Any]) -> str:
    """Keeps a baseline by its hash, which it returns. Raises: OSError."""
    from cofferdam.audit.keys import write_beside
    from cofferdam.evidence import baseline, gather

    digest = baseline.digest(document)
    path = gather.folder(state, gather.BASELINES, make=True) / f"{digest}.json"
    if not path.exists():
        write_beside(path, baseline.canonical(document), 0o600)
    return digest


def take_baseline(bench: Bench) -> None:
    """Keeps the configuration as it is now and has it recorded, where it is another than the last on record, so that
    what differs has a time."""
    from cofferdam.evidence import baseline, drifting, gather

    if bench.status is None:
        return
    document = drifting.now(bench.status, bench.history, gather.installed())
    last = bench.history.last("baseline-taken")
    if last is None or last.event.get("baseline") != baseline.digest(document):
        digest = keep_baseline(bench.state, document)
        tell(bench.state, "record", event={"kind": "baseline-taken", "baseline": digest})
