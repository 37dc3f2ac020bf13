"""Which separation a gate gets: what its policy asks for, as far as this machine can give it.

The policy is read in a child that says one word: the launcher itself never reads it. Should the file say something
else by the time that the gate reads it, the gate refuses what does not fit.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from cofferdam.enforce import kernel
from cofferdam.enforce.isolation import Isolation, PlainIsolation
from cofferdam.enforce.users import NEEDED, USEFUL, Users
from cofferdam.enforce.worker import inside
from cofferdam.errors import GateError, PolicyError

_HINT = "or take `require: namespaces` (or `separation: namespaces`) out of the policy's `gate:` section"


def choose(policy: Path, state: Path, *, split: bool, users: Users) -> Isolation:
    """The separation for a gate that is about to start. In namespaces, the calling process gives up the capabilities
    that a launcher does not need.

    Raises:
        GateError: the policy requires namespaces and they can not be had: why, and the way out.
    """
    wanted, required = _ask(policy)
    if not wanted:
        return PlainIsolation()
    missing = _missing(split)
    if missing:
        if required:
            raise GateError(f"the policy requires network namespaces: {missing[0]}", hint=f"{missing[1]}, {_HINT}")
        return PlainIsolation(f"no namespaces, which the policy is ready for: {missing[0]}")
    try:
        # Here, and not above: pyroute2 is large, and a gate without namespaces has no use for it.
        from cofferdam.enforce.namespaces import NamespaceIsolation

        isolation = NamespaceIsolation(state, policy, users)
    except GateError as error:
        if required:
            raise GateError(f"the policy requires network namespaces: {error}", hint=f"{error.hint}, {_HINT}") from None
        return PlainIsolation(f"no namespaces, which the policy is ready for: {error}")
    lacking = kernel.missing_capabilities(USEFUL)
    kept = [*NEEDED, *(name for name in USEFUL if name not in lacking)]
    kernel.drop_bounding_set(kept)
    kernel.set_capabilities(kept)
    return isolation


def _missing(split: bool) -> tuple[str, str] | None:
    """What keeps this process from making namespaces, and what would help."""
    if not split:
        return "both halves are to run in one process", "start without --one-process"
    lacking = kernel.missing_capabilities(NEEDED)
    if os.geteuid() != 0:
        return "this user may not make them", "start as root"
    if lacking:
        return f"capabilities are missing: {', '.join(f'CAP_{name.upper()}' for name in lacking)}", "start with them"
    if not Path("/proc/self/ns/net").exists():
        return "this kernel has none", "start on one that has"
    return None


def _ask(policy: Path) -> tuple[bool, bool]:
    """(namespaces, required) by the policy; (False, False) where it can not be read, which the gate will report."""
    wanted, required = inside(None, _read, str(policy))
    return bool(wanted), bool(required)


def _read(policy: str) -> tuple[bool, bool]:
    from cofferdam.enforce.plans.network import network_plan
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    try:
        plan = network_plan(compile_policy(load(Path(policy)), now_ns=time.time_ns()))
    except PolicyError:
        return False, False
    return plan.namespaces, plan.required
