"""Whether a conduit is open now, and when that changes: what its window and its expiry say, for people.

Not here: judging a request by it (policy.decide), severed sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from cofferdam.model import NEVER
from cofferdam.policy import windows
from cofferdam.policy.rows import Clock, Conduit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Standing(msgspec.Struct, frozen=True):
    """`open` now; `changes_ns`: when it opens or shuts next, `expires_ns`: when it ends for good (UTC, ns since 1970;
    0: never, or not within a week). `says`: whether it is open and until when; `expires`: its last day and the zone of
    that, as the policy has it."""

    open: bool
    changes_ns: int
    expires_ns: int
    says: str
    expires: str


def standing(conduit: Conduit, clocks: Mapping[str, Clock], wall_ns: int) -> Standing:
    """How a conduit stands at `wall_ns` (UTC, ns since 1970)."""
    is_open, changes, says = _now(conduit, clocks, wall_ns)
    expires_ns = conduit.expires if conduit.expires != NEVER else 0
    expires = "" if conduit.held_back else conduit.expires_text.removeprefix("at the end of ").strip()
    return Standing(is_open, changes, expires_ns, says, expires)


def _now(conduit: Conduit, clocks: Mapping[str, Clock], wall_ns: int) -> tuple[bool, int, str]:
    if wall_ns >= conduit.expires:
        return False, 0, conduit.held_back or f"EXPIRED {conduit.expires_text.strip()}"
    if windows.beyond_horizon(conduit.windows, clocks, wall_ns):
        return False, 0, "shut until the policy is loaded anew: its time zones' years are over"
    is_open, changes = windows.state(conduit.windows, clocks, wall_ns)
    if changes != NEVER and windows.state(conduit.windows, clocks, changes)[0] == is_open:
        changes = NEVER  # the answer lapses then, but stays the same
    word = "open" if is_open else "shut"
    if conduit.expires != NEVER and changes >= conduit.expires:
        if not is_open:
            return False, 0, "shut, and expires before it opens again"
        return True, conduit.expires, word
    if changes == NEVER:
        return is_open, 0, word
    return is_open, changes, f"{word} until {_EPOCH + timedelta(seconds=changes // windows.NS):%a %Y-%m-%d %H:%M} UTC"
