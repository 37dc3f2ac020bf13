"""How the inner part goes on while its keeper is away, and what it tells the next one.

No session begins, since there is nobody who would grant it. Those that there are end by themselves at their time, which
runs by the monotonic clock; at once where what only the keeper can judge is about to change: another policy, a clock
that was set, nobody who could be known to watch. No file is released. An operator can have them shown, and end one.

Not here: what the keeper makes of what it is told (resuming).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from cofferdam.audit.events.base import clip
from cofferdam.audit.lines import escaped
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.jump import lists, records, standing_records, told
from cofferdam.brokers.jump.inner_session import Live
from cofferdam.errors import GateError

ENDS_KEPT: Final = 1_024
"""Sessions that ended, which the next keeper is told of: it may be that the last one never read it."""
CLOCK_NS: Final = 2 * 10**9
"""By how much the clock may drift from the monotonic one before it counts as set."""
LOOKS_KEPT: Final = 20
"""At the clock, two a second: a keeper that hung has judged nothing for a while before anybody knew that, ..."""
UNJUDGED_NS: Final = LOOKS_KEPT // 2 * 10**9
"""... by no policy either that came in so long. (What hangs is ended sooner.)"""
LOADED: Final = "the policy was loaded, and the gate's keeper, who would judge by it, is away"


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    """As the keeper takes it (keeper_verbs)."""

    number: Annotated[int, Meta(ge=1, le=1 << 53)]
    by: Annotated[str, Meta(min_length=1, max_length=128)]
    bar: Literal["person", "asset", "pair", "both", "none"] = "pair"
    reason: Annotated[str, Meta(max_length=400)] = ""


class Without:
    """`away`: there is no keeper. `live`: the sessions by number; `now` is monotonic, `wall` UTC."""

    def __init__(
        self, live: Mapping[int, Live], tell: Callable[[Any], None], now: Callable[[], int], wall: Callable[[], int]
    ) -> None:
        self._live, self._tell, self._now, self._wall = live, tell, now, wall
        self.away = False
        self._offsets: deque[int] = deque([wall() - now()], maxlen=LOOKS_KEPT)
        self._loaded = now() - UNJUDGED_NS
        self._ends: deque[records.Ended] = deque(maxlen=ENDS_KEPT)
        self._turning: dict[int, records.Rotate] = {}
        self._turned: list[records.Rotated] = []

    def begin(self) -> None:
        """The keeper has ended."""
        self.away = True
        unjudged = self._now() - self._loaded < UNJUDGED_NS
        for live in list(self._live.values()):
            if unjudged and live.began <= self._loaded:
                live.end(LOADED)
            elif live.grant.watched:
                live.end("nobody watches any more: the gate's keeper is away")

    def over(self, last: int) -> None:
        """Another has come, and is told all. `last`: the last session that had a grant."""
        self.away = False
        for ended in self._ends:
            self._tell(ended)
        lives = tuple((live.number, live.grant.name, live.locked) for live in self._live.values())
        changes = tuple((one.number, one.asset, one.login) for one in self._turning.values())
        self._tell(standing_records.Lives(lives, changes, last))
        turned, self._turned = self._turned, []
        for done in turned:
            self._turned_out(done)

    def loaded(self) -> int:
        """Another policy is in force. Returns how many sessions that has ended."""
        self._loaded, count = self._now(), len(self._live)
        if self.away:
            self.end_all(LOADED)
        return count if self.away else 0

    def tick(self) -> None:
        offset = self._wall() - self._now()
        if not self.away:
            self._offsets.append(offset)
        elif abs(offset - self._offsets[0]) > CLOCK_NS:
            self.end_all("the clock was set, and the gate's keeper, who would say what goes on, is away")

    def end_all(self, reason: str) -> None:
        for live in list(self._live.values()):
            live.end(reason)

    # --- what is told -------------------------------------------------------------------------------------------------

    def ended(self, record: records.Ended) -> None:
        """A session has ended."""
        self._ends.append(record)
        self._tell(record)

    def turns(self, asked: records.Rotate) -> None:
        """A password is being changed."""
        self._turning[asked.number] = asked

    def turned(self, done: records.Rotated) -> None:
        """What came of it. While nobody is there to hear it, it counts as under way."""
        if self.away:
            self._turned.append(done)
        else:
            self._turned_out(done)

    def _turned_out(self, done: records.Rotated) -> None:
        self._turning.pop(done.number, None)
        self._tell(done)

    # --- operators ----------------------------------------------------------------------------------------------------

    def command(self, asked: Asked) -> None:
        """What the keeper answers else. Raises: GateError."""
        if asked.verb == "sessions":
            said = asked.decode(lists.Which)
            asked.answer(lists.piece(self._rows(said.after), said))
        elif asked.verb == "kill":
            self._kill(asked)
        else:
            raise GateError(f"nobody answers {asked.verb!r} while the keeper is away")

    def _rows(self, after: str) -> Iterator[tuple[str, told.Session]]:
        for one in self._live.values():
            grant, minutes = one.grant, (self._now() - one.began) // 60_000_000_000
            what = escaped(f"{grant.what} {grant.command}".strip())
            yield lists.order(one.number), {
                "number": one.number, "session": grant.name, "person": grant.person, "source": grant.source,
                "asset": grant.asset, "login": grant.login, "what": grant.what, "command": grant.command,
                "conduit": grant.conduit, "request": 0, "since_ns": self._wall() - (self._now() - one.began),
                "factors": (),
                "line": f"{one.number:>4}  {grant.person} ({grant.source}) at {grant.asset} as {grant.login}: {what}, "
                f"{minutes} min{', locked' if one.locked else ''}, the keeper is away",
            }  # fmt: skip

    def _kill(self, asked: Asked) -> None:
        said = asked.decode(Kill)
        live = self._live.get(said.number)
        if live is None:
            raise GateError(f"there is no session {said.number}", hint="`cofferdam jump sessions` shows them")
        live.end(clip(f"ended by {said.by}" + (f": {said.reason}" if said.reason else "")))
        bars = "" if said.bar == "none" else (
            "; nobody is barred, since the keeper is away: nobody comes in either until it is back, and then "
            "`cofferdam jump block` bars them"
        )  # fmt: skip
        asked.answer(f"{live.grant.name} is ended{bars}")
