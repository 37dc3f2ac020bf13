"""What every part of a mirror asks of its slice of the policy. Not here: the rows (policy.terms.mirror_rows)."""

from __future__ import annotations

from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.mirror_rows import MirrorRows


def own(policy: CompiledPolicy) -> tuple[str, MirrorRows]:
    """The conduit that the crew serves, and what it says: the policy lets there be one between two zones. An empty one
    where a reload has just taken it away."""
    for name, conduit in sorted(policy.conduits.items()):
        if isinstance(conduit.terms, MirrorRows):
            return name, conduit.terms
    return "", MirrorRows()
