"""How the gate tells things: a policy's files in an entry, where assets are, its last error to the launcher. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from cofferdam.audit.events.base import clip
from cofferdam.enforce.orders import Finish
from cofferdam.errors import CofferdamError, PolicyError
from cofferdam.gate.crew.plan import CrewPlan, Spot


def told_files(files: tuple[str, ...]) -> tuple[str, ...]:
    """The files of a policy as an entry names them."""
    more = (f"and {len(files) - 31} more",) if len(files) > 32 else ()
    return (*(clip(file) for file in files[: 31 if more else 32]), *more)


def assets_at(plans: Iterable[CrewPlan]) -> dict[Spot, str]:
    """For messages: which asset is published where."""
    return {spot: share.name for plan in plans for share in plan.shares for spot in share.all_spots}


def failure(group: BaseExceptionGroup[CofferdamError]) -> Finish:
    """The first error of a group as the launcher's last order."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, PolicyError):
        lines = [str(error), *map(str, error.problems)]
        return Finish(2, "\n".join(lines)[:16000], error.hint)
    hint = error.hint if isinstance(error, CofferdamError) else ""
    return Finish(2, str(error)[:16000], hint[:16000])
