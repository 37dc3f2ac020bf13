"""Which separation a gate gets: what its policy asks for, as far as this machine can give it.

The policy is read in a child that says yes or no: the launcher itself never reads it. Should the file say something
else by the time that the gate reads it, `prepare` refuses what does not fit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

from cofferdam.enforce import kernel
from cofferdam.enforce.inside import inside
from cofferdam.enforce.isolation import Isolation, PlainIsolation
from cofferdam.enforce.rooted import RootIsolation
from cofferdam.enforce.users import NEEDED, USEFUL, Users
from cofferdam.errors import GateError, PolicyError


def choose(policy: Path, state: Path, *, users: Users, take: Collection[str] = (), machine: str = "") -> Isolation:
    """The separation for a gate that is about to start. Where there is any, the calling process gives up the
    capabilities that a launcher does not need."""
    missing = _missing()
    if missing is not None:
        return PlainIsolation(missing)
    isolation = _for_root(policy, state, users, take, machine)
    lacking = kernel.missing_capabilities(USEFUL)
    kept = [*NEEDED, *(name for name in USEFUL if name not in lacking)]
    kernel.drop_bounding_set(kept)
    kernel.set_capabilities(kept)
    return isolation


def _for_root(policy: Path, state: Path, users: Users, take: Collection[str], machine: str) -> Isolation:
    if not inside(None, _asks_for_namespaces, str(policy), machine):
        return RootIsolation(state, policy, users)
    # Here, and not above: pyroute2 is large, and a gate without namespaces has no use for it.
    from cofferdam.enforce.namespaces import NamespaceIsolation

    try:
        return NamespaceIsolation(state, policy, users, take=take)
    except GateError as error:
        return RootIsolation(state, policy, users, (str(error), error.hint))


def _missing() -> tuple[str, str] | None:
    """What keeps this process from making namespaces, and what would help."""
    if os.geteuid() != 0:
        return "only root can make them", "start as root"
    lacking = kernel.missing_capabilities(NEEDED)
    if lacking:
        names = ", ".join(f"CAP_{name.upper()}" for name in lacking)
        return f"capabilities are missing ({names})", f"start with {names}"
    if not Path("/proc/self/ns/net").exists():
        return "this kernel has none", "start on a kernel that has them"
    return None


def _asks_for_namespaces(policy: str, machine: str) -> bool:
    """False also for a policy that cannot be read or is wrong, which the gate will report."""
    path = Path(policy)
    try:
        files = [path] if path.is_file() else [*path.glob("*.yaml"), *path.glob("*.yml")]
        # Most policies name no interface, and that is seen without reading them as a policy.
        if not any(word in file.read_bytes() for file in files for word in (b"interface", b"namespaces")):
            return False
        from cofferdam.enforce.plans.network import network_plan
        from cofferdam.policy.compile import compile_policy
        from cofferdam.policy.load import load

        return network_plan(compile_policy(load(path), now_ns=time.time_ns()).on(machine)).namespaces
    except (PolicyError, OSError):
        return False
