"""The fence around parts that stand in the host's network: put up before such a part starts, looked after, taken away.

The kernel numbers the changes of a namespace's rules. The launcher asks for that number once a second; where it is
another, it looks whether our table is as it was, and puts it back if it is not. Its name follows from the state
directory, so a later process finds what a killed one has left.

Not here: what it says (plans.fence), who is told (gate.watch.fence), which parts must wait for it (launcher).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
from pathlib import Path
from typing import Final, NamedTuple

from cofferdam.enforce import firewall
from cofferdam.enforce.counters import Counters
from cofferdam.enforce.inside import inside
from cofferdam.enforce.netlink import Rules
from cofferdam.enforce.plans.fence import HOOK, NAME, PARTS, counter, fence, table_name
from cofferdam.enforce.plans.records import Hosted
from cofferdam.errors import GateError

LOOK_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 5.0
"""Between two attempts to put it back."""
LEAVING_SECONDS: Final = 5.0
"""For parts of a gate that was killed."""
_BROKEN = (OSError, struct.error, KeyError)
_SHORT: Final = 4
"""Letters of the tag that names had before."""


class NoFence(GateError):
    """This machine takes none, or lacks the program for it."""


class Looked(NamedTuple):
    """What became of it: whether it stands, and what had happened."""

    stands: bool
    detail: str


def tag(state: Path) -> str:
    """What tells this gate's names in the host's network from those of another gate's: whatever leads to its state
    directory. (Of a table that sleeps and has a longer name, nft 1.0.6 lists no JSON to its end.)"""
    state = state.resolve()
    return "" if state == Path("/var/lib/cofferdam").resolve() else hashlib.sha256(os.fsencode(state)).hexdigest()[:8]


def _names(state: Path) -> tuple[str, ...]:
    """Of its table: as it is named, and as a build before the first release named it."""
    tagged = tag(state)
    return (table_name(tagged), *((table_name(tagged[:_SHORT]),) if tagged else ()))


def remove(state: Path) -> bool:
    """Takes away what a gate with this state directory has left; whether there was something. Raises: GateError."""
    try:
        rules = Rules()
    except OSError:
        return False  # a kernel without such tables, or nobody who may look: then there is none of ours
    try:
        left = [name for name in _names(state) if rules.table(name, ()) != b""]
    except _BROKEN:
        left = []
    finally:
        rules.close()
    for name in left:
        gone = {"nftables": [{"delete": {"table": {"family": "inet", "name": name}}}]}
        said = inside(None, firewall.apply, firewall.find_nft(), gone)
        if said:
            raise GateError(f"the table {name} stays behind: {said}", hint=f"nft delete table inet {name}")
    return bool(left)


def _alone(users: dict[str, int]) -> None:
    """The table goes by users, so nobody else may be one of these in this network. Raises: GateError."""
    until = time.monotonic() + LEAVING_SECONDS
    while found := _others(set(users.values())):
        if time.monotonic() > until:
            pid, user = found
            who = next(who for who, held in users.items() if held == user)
            raise GateError(
                f"user {user}, by whom the firewall is to know {who}, runs process {pid} of somebody else's",
                hint="another gate on this machine? give each a range of its own: `cofferdam up --users FIRST-LAST`",
            )
        time.sleep(0.1)  # what a killed gate has left is about to end


def _others(users: set[int]) -> tuple[int, int] | None:
    """A process in this network namespace that is one of these users, and which."""
    home = Path("/proc/self/ns/net").stat().st_ino
    for entry in Path("/proc").iterdir() if users else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or may not be looked at
                said = (entry / "status").read_text().partition("\nUid:")[2].split(None, 2)
                if int(said[1]) in users and (entry / "ns/net").stat().st_ino == home:
                    return int(entry.name), int(said[1])
    return None


def _other_fences(own: str, ours: range) -> None:
    """Another gate's table would refuse what our parts send. Raises: GateError."""
    try:
        rules = Rules()
    except OSError:
        return
    try:
        names = [name for name in rules.tables() if name.startswith(NAME) and name != own]
    except _BROKEN:
        return
    finally:
        rules.close()
    for name in names:
        rows = firewall.table(firewall.find_nft(), name)
        held = [rule["expr"][0]["match"]["right"] for row in rows
                if (rule := row.get("rule", {})).get("chain") == HOOK and "match" in rule["expr"][0]]  # fmt: skip
        if taken := sorted(user for user in held if isinstance(user, int) and user in ours):
            raise GateError(
                f"another gate's firewall, the table inet {name}, knows its own parts by user {taken[0]}, which is in "
                "this gate's range",
                hint="give each gate a range of its own (`cofferdam up --users FIRST-LAST`); if that gate was killed: "
                f"`cofferdam down` with its --state, or `nft delete table inet {name}`",
            )


class Fence:
    """One gate's. `held` grows: a part that the policy names no more may still be alive."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.name = table_name(tag(state))
        self._hosted: tuple[Hosted, ...] = ()
        self.held: dict[str, int] = {}
        """User by part: of all who are held by it."""
        self._up = False
        self._rules: Rules | None = None
        self._counters: Counters | None = None
        self._said = b""
        self._generation = -1
        self._looked_at = 0.0
        self._before: dict[str, int] = {}
        self._last: dict[str, int] = {}

    @property
    def stands(self) -> bool:
        return self._up

    def put(self, hosted: tuple[Hosted, ...], users: dict[str, int], ours: range = range(0)) -> None:
        """These parts reach these places from now on, and nobody of ours anything else. `ours`: users that parts in
        this network may have. Raises: GateError."""
        held = {**self.held, **users}
        _other_fences(self.name, ours)
        with contextlib.suppress(GateError):
            self.refused()  # a new table counts from 0
        _alone({who: user for who, user in users.items() if who not in self.held})
        if held:
            self._put(hosted, held)
        self._hosted, self.held = hosted, held

    def _put(self, hosted: tuple[Hosted, ...], held: dict[str, int]) -> None:
        try:
            said = inside(None, firewall.apply, firewall.find_nft(), fence(self.name, hosted, held))
        except GateError as error:
            raise NoFence(str(error), hint=error.hint) from None
        if said:
            raise NoFence(f"the fence around parts in the host's network cannot be put in force: {said}")
        for who, packets in self._last.items():
            self._before[who] = self._before.get(who, 0) + packets
        self._last = {}
        try:
            self._rules = self._rules or Rules()
            self._generation = self._rules.generation()
            self._said = self._rules.table(self.name, (HOOK, PARTS))
        except _BROKEN as error:
            raise GateError(f"the fence around parts in the host's network cannot be looked at: {error}") from None
        if not self._said:
            raise GateError(f"the table {self.name} was put in force, and is not there")
        self._up = True

    def look(self) -> Looked | None:
        """Once in a while: puts back what somebody has changed. None where there is nothing to say."""
        now = time.monotonic()
        if not self.held or now - self._looked_at < (LOOK_SECONDS if self._up else AGAIN_SECONDS):
            return None
        self._looked_at = now
        was_up = self._up
        try:
            if was_up and (why := self._changed()) == "":
                return None
            if not was_up:
                why = "it is back"
            self._up = False
            self._put(self._hosted, self.held)
        except (GateError, *_BROKEN) as error:
            self._up = False
            return Looked(False, str(error)) if was_up else None
        return Looked(True, why)

    def _changed(self) -> str:
        """What somebody did to it, "" if nothing. Raises: OSError, struct.error, KeyError."""
        rules = self._rules
        if rules is None:
            return ""
        generation = rules.generation()
        if generation == self._generation:
            return ""
        found = rules.table(self.name, (HOOK, PARTS))
        if found == self._said:
            self._generation = generation
            return ""
        return "somebody changed it" if found else "somebody took it away, as `nft flush ruleset` does"

    def refused(self) -> dict[str, int]:
        """Packets that were refused to each part. Raises: GateError."""
        if not self.held:
            return {}
        if self._counters is None:
            try:
                self._counters = Counters(self.name)
            except OSError as error:
                raise GateError(f"the fence's counters cannot be read: {error}") from None
        found = self._counters.packets(counter(who) for who in self.held)
        for who in self.held:
            if counter(who) in found:
                self._last[who] = found[counter(who)]
        return {who: self._before.get(who, 0) + self._last.get(who, 0) for who in self.held}

    def take_away(self) -> None:
        """All parts have ended. Never raises; what stays is named by whoever finds it (`remove`)."""
        for held in (self._rules, self._counters):
            if held is not None:
                held.close()
        self._rules = self._counters = None
        if self.held:
            with contextlib.suppress(GateError):
                remove(self._state)
        self.held, self._hosted, self._up = {}, (), False
