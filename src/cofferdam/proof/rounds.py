"""Rounds of the leak probe: each in a process of its own, so that none leaves anything behind.

Not here: when a round is due by the policy (gate.watch.leaks), what one finds (leaking).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from cofferdam.enforce.plans.network import network_plan
from cofferdam.errors import CofferdamError, GateError
from cofferdam.policy.table import CompiledPolicy
from cofferdam.proof import leaking, run
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import open_subject

NOT_UP_SECONDS = 2
"""Before a gate that does not answer is asked again for the leak probe's turn."""
NAMES_AT_ONCE = 50
"""Assets in one message to the gate, which takes 64 KiB at most."""
NOTHING_TO_DO = 3
"""Exit code of a round: without namespaces there is no IT side to ask from."""


class Ask(Protocol):
    """Asks the running gate something (gate.client)."""

    def __call__(self, verb: str, *, seconds: float | None = 60.0, **fields: object) -> Any: ...


def tell_leaks(ask: Ask, policy: CompiledPolicy, out: Statements) -> None:
    """Tells the gate what a round has found."""
    names: dict[str, list[str]] = {}
    for asset in policy.assets.values():
        names.setdefault(asset.address, []).append(asset.name)
    tried, found = leaking.verdicts(out, names)
    leaks = dict(found)
    for start in range(0, len(tried), NAMES_AT_ONCE):
        some = tried[start : start + NAMES_AT_ONCE]
        ask("leaks", tried=some, found=[{"asset": name, "detail": leaks[name][:500]} for name in some if name in leaks])


def keep_asking(state: Path, every: str, ask: Ask, status: Callable[[], dict[str, Any]]) -> None:
    """Round after round: every so many seconds, or by the "policy", for which the gate gives the turns. Returns where
    there is nothing to ask from.

    Raises: GateError, if `every` is neither.
    """
    if not (every == "policy" or (every.isdecimal() and int(every) >= 1)):
        raise GateError(
            "--every goes with --leaks, and is at least 1, or `policy`", hint="cofferdam prove --leaks --every 300"
        )
    while _turn(ask, every):
        pid = os.fork()
        if pid == 0:
            os._exit(one_round(state, ask, status))
        _, code = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(code) == NOTHING_TO_DO:
            return


def _turn(ask: Ask, every: str) -> bool:
    """Waits until a round is due; False where there will be none."""
    if every != "policy":
        time.sleep(int(every))
        return True
    while True:
        try:
            return bool(ask("leak-turn", seconds=None)["ask"])
        except GateError:
            time.sleep(NOT_UP_SECONDS)  # a gate that starts with this process is not up yet


def one_round(state: Path, ask: Ask, status: Callable[[], dict[str, Any]]) -> int:
    """Tries each asset's real address from the IT side and tells the gate; the process's exit code."""
    try:
        now = status()
        if now["separation"] != "namespaces":
            return NOTHING_TO_DO
        try:
            policy = run.policy_in_force(now, run.policy_path(state, now))
        except GateError:
            time.sleep(NOT_UP_SECONDS)  # a reload is under way: the gate has its policy, and root has not said so yet
            now = status()
            policy = run.policy_in_force(now, run.policy_path(state, now))
        plan = network_plan(policy)
        out = Statements()
        with run.alone(state, lambda _: None), contextlib.closing(open_subject(state, plan, now)) as subject:
            leaking.state(subject, leaking.targets(plan), out)
        tell_leaks(ask, policy, out)
        unasked = [s.says for s in out.found if s.name == leaking.PROBE]
    except CofferdamError as error:
        unasked = [str(error)]
    except Exception as error:
        unasked = [f"{type(error).__name__}: {error}"]
    for says in unasked:
        with contextlib.suppress(CofferdamError):
            ask("leaks", tried=[], trouble=says[:4000])
        print(f"cofferdam: the leak probe did not run: {says}", file=sys.stderr, flush=True)
    return 1 if unasked else 0
