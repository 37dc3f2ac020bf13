"""The user ids that the gate's processes run under in namespaces, and what the launcher itself needs for it.

A part has a user of its own, the same one at each birth and after each start: so it can own a store, and so the
firewall can tell it from others. Which name has which id is kept in a file of the launcher's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cofferdam.errors import GateError

NEEDED = (
    "chown", "dac_override", "fowner", "kill", "net_admin", "net_bind_service", "setgid", "setpcap", "setuid",
    "sys_admin",
)  # fmt: skip
"""The capabilities that the launcher keeps."""
USEFUL = ("dac_read_search", "net_raw", "sys_nice", "sys_ptrace", "sys_resource")
"""Kept as well where they are there: the first for some gates without namespaces (rooted); the leak probe's sockets are
made with the second; by the third, parts with I/O may have a real-time priority; by the fourth, the nightly proof sees
in which namespaces the parts are and what they hold open (it traces nothing: the unit forbids that call); with the
last, the pipes of many crews may all be large."""
FILE = "users.json"


@dataclass(frozen=True)
class Users:
    """Numeric user ids for the gate's processes; no entry in /etc/passwd is needed. The first is the gate's, the second
    the auditor's, the last a proof's probes'; parts have those between."""

    first: int = 64000
    last: int = 64999

    @property
    def gate(self) -> int:
        return self.first

    @property
    def auditor(self) -> int:
        return self.first + 1

    @property
    def probe(self) -> int:
        return self.last

    @property
    def parts(self) -> range:
        return range(self.first + 2, self.last)

    @classmethod
    def parse(cls, text: str) -> Users:
        """From "64000-64999". Raises: GateError."""
        first, _, last = text.partition("-")
        if not (first.isdigit() and last.isdigit()) or not 1000 <= int(first) <= int(last) - 9 < (1 << 31):
            raise GateError(
                f"{text!r} is not a range of user ids for the gate's processes",
                hint="at least 10 ids from 1000 on that no account has, such as 64000-64999",
            )
        return cls(int(first), int(last))


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    users: dict[str, int]


def read(folder: Path) -> dict[str, int]:
    """Which part has which user, by the launcher's file. Raises: GateError."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept).users
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GateError(
            f"{path} cannot be understood: {error}",
            hint="it says which part has which user; remove it, then give the stores of parts to their new users",
        ) from None


class Allotted:
    """Which part has which user. `folder` is the launcher's own; nobody else can write there."""

    def __init__(self, users: Users, folder: Path, keep: Callable[[str], Collection[int]] = lambda _: ()) -> None:
        """`keep` says which users must not be given to a part of this name: they own what is another's."""
        self._users = users
        self._keep = keep
        self._path = folder / FILE
        self._asked: set[str] = set()

    def of(self, name: str) -> int:
        """The user of the part with this name. If all are taken, names are forgotten that were not asked for in this
        life of the gate and whose users own nothing.

        Raises:
            GateError: the file cannot be read or written, or there are more parts than users.
        """
        self._asked.add(name)
        known = self.known()
        if name not in known:
            known[name] = self._free(known, set(self._keep(name)))
            self._save(known)
        return known[name]

    def known(self) -> dict[str, int]:
        """All of them, as far as they are in the present range. Raises: GateError."""
        return {name: user for name, user in read(self._path.parent).items() if user in self._users.parts}

    def _free(self, known: dict[str, int], kept: set[int]) -> int:
        taken = set(known.values())
        if taken | kept >= set(self._users.parts):
            for name in [name for name, user in known.items() if name not in self._asked and user not in kept]:
                taken.discard(known.pop(name))
        free = next((user for user in self._users.parts if user not in taken | kept), None)
        if free is None:
            raise GateError(
                f"there are more parts than users for them ({len(self._users.parts)})",
                hint="a larger range: `cofferdam up --users FIRST-LAST`",
            )
        return free

    def _save(self, known: dict[str, int]) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(_Kept(known))))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise GateError(f"cannot write {self._path}: {error.strerror}", hint="give another --state") from None
