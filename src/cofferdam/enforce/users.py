"""The user ids that the gate's processes run under in namespaces, and what the launcher itself needs for it."""

from __future__ import annotations

from dataclasses import dataclass

from cofferdam.errors import GateError

NEEDED = (
    "chown", "dac_override", "fowner", "kill", "net_admin", "net_bind_service", "setgid", "setpcap", "setuid",
    "sys_admin",
)  # fmt: skip
"""The capabilities that the launcher keeps."""
USEFUL = ("sys_resource",)
"""Kept as well where it is there: with it, the pipes of many pairs of halves may all be large."""


@dataclass(frozen=True)
class Users:
    """Numeric user ids for the gate's processes; no entry in /etc/passwd is needed. The first is the gate's, the second
    the auditor's, and each new half gets the next of the others in turn."""

    first: int = 64000
    last: int = 64999

    @property
    def gate(self) -> int:
        return self.first

    @property
    def auditor(self) -> int:
        return self.first + 1

    def half(self, number: int) -> int:
        return self.first + 2 + number % (self.last - self.first - 1)

    @classmethod
    def parse(cls, text: str) -> Users:
        """From "64000-64999". Raises: GateError."""
        first, _, last = text.partition("-")
        if not (first.isdigit() and last.isdigit()) or not 1000 <= int(first) <= int(last) - 9 < (1 << 31):
            raise GateError(
                f"{text!r} is no range of user ids for the gate's processes",
                hint="at least 10 ids from 1000 on that no account has, such as 64000-64999",
            )
        return cls(int(first), int(last))
