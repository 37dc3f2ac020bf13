"""What the gate shows itself by: a host key, and a certificate over it by an authority of the gate's own, with the
names of doors and assets. Users trust one line (`@cert-authority`), for the gate and for every asset behind it
(`ssh -J`).

Both keys are the keeper's. A certificate is for 30 days and made anew each day, and when names change; it says nothing
of machines elsewhere.

Not here: signing key exchanges (signin).
"""

from __future__ import annotations

from typing import Final

import asyncssh

from cofferdam.brokers.jump.accounts import Accounts
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.jump_rows import JumpRows

DAY_NS: Final = 86_400 * 10**9
DAYS: Final = 30
NAMES_MOST: Final = 500
"""In one certificate, which has to fit into a record."""


class Shown:
    """The certificate that holds now."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        found = accounts.meta("host-authority")
        if not found:
            found = asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh")
            accounts.set_meta("host-authority", found)
        self.authority: asyncssh.SSHKey = asyncssh.import_private_key(found)
        self.names: tuple[str, ...] = ()
        self._made_ns = 0

    def due(self, policy: CompiledPolicy, wall_ns: int) -> bytes | None:
        """A certificate, if the last one is old, not good yet (the clock was set back), or of other names."""
        names = _names(policy)
        if names == self.names and 0 <= wall_ns - self._made_ns < DAY_NS:
            return None
        self.names, self._made_ns = names, wall_ns
        if not names:
            return b""
        now = wall_ns // 10**9
        made = self.authority.generate_host_certificate(
            self._accounts.host_key, f"cofferdam {policy.table.site}", principals=list(names),
            valid_after=max(0, now - 86_400), valid_before=now + DAYS * 86_400,
        )  # fmt: skip
        return made.public_data


def _names(policy: CompiledPolicy) -> tuple[str, ...]:
    rows = [each.terms for each in policy.conduits.values() if isinstance(each.terms, JumpRows)]
    doors = {row.address for row in rows} | {name for row in rows for name in row.names}
    assets = {name for row in rows for line in row.lines for name in line.assets}
    return (*sorted(doors), *sorted(assets - doors))[:NAMES_MOST]
