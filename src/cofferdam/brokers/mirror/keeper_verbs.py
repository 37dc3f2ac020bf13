"""What operators ask of the mirror's keeper. `by` is who asks, as the gate says.

Not here: the command line (cli.mirror)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.mirror import HistoryHeld
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.mirror import catalogue, times, told
from cofferdam.brokers.mirror.catalogue import Hold
from cofferdam.brokers.mirror.columns import HOUR_NS, NO_TIME
from cofferdam.brokers.mirror.keeping import Keeping
from cofferdam.brokers.mirror.records import HOLDS_MOST, Fetch, Held, Hour
from cofferdam.brokers.mirror.verifying import Verifying
from cofferdam.errors import GateError
from cofferdam.policy.syntax import show_span
from cofferdam.policy.terms.mirror_rows import Device, Matcher, Postgres

TAGS_MOST: Final = 1_000
GAPS_MOST: Final = 500
HOURS_MOST: Final = 24 * 366 * 10
"""Hours of one verification."""


class SpanSaid(Struct, frozen=True, forbid_unknown_fields=True):
    """Hours since 1970, both included."""

    first: Hour
    last: Hour
    by: Annotated[str, Meta(max_length=128)] = ""
    reason: Annotated[str, Meta(max_length=512)] = ""


class VerifySaid(Struct, frozen=True, forbid_unknown_fields=True):
    """What is verified, against what."""

    first: Hour
    last: Hour
    against: Literal["store", "counts", "source"] = "store"
    tags: tuple[str, ...] = ()
    by: Annotated[str, Meta(max_length=128)] = ""


class RunSaid(Struct, frozen=True, forbid_unknown_fields=True):
    """A run's number."""

    number: int
    by: str = ""


class TagsSaid(Struct, frozen=True, forbid_unknown_fields=True):
    """Which tags, and after which one in order."""

    pattern: Annotated[str, Meta(max_length=200)] = "*"
    after: str = ""
    by: str = ""


class Verbs:
    """The keeper's."""

    def __init__(self, keeper: Keeping, verifying: Verifying) -> None:
        self._keeper = keeper
        self._verifying = verifying
        self._verbs: dict[str, Callable[[Asked], None]] = {
            "status": self._status, "tags": self._tags, "gaps": self._gaps, "verify": self._verify,
            "verified": self._verified, "backfill": self._backfill, "hold": self._hold, "release": self._release,
            "seal": self._seal,
        }  # fmt: skip

    def say_held(self) -> None:
        """What is held, to those who judge what is too old."""
        sender = self._keeper.setting.senders.get("spooler")
        if sender is not None and self._keeper.acks:
            sender.send(Held(tuple((one.first, one.last) for one in self._keeper.store.catalogue.holds[:HOLDS_MOST])))

    def command(self, asked: Asked) -> None:
        """Answers. Raises: GateError."""
        verb = self._verbs.get(asked.verb)
        if verb is None:
            asked.refuse(f"there is no {asked.verb!r} here")
        else:
            verb(asked)

    def _status(self, asked: Asked) -> None:
        keeper, found = self._keeper, self._keeper.store.catalogue
        rows = sum(file.rows for file in found.files)
        size = sum(file.size for file in found.files)
        newest = keeper.store.newest
        answer: told.Keeper = (
            {
                "conduit": keeper.conduit, "generation": found.generation, "commit": keeper.store.commit,
                "tags": len(found.tags), "hot": keeper.store.hot_rows, "files": len(found.files), "rows": rows,
                "size": size, "bytes_a_point": round(size / rows, 2) if rows else 0,
                "first": min((tag.first for tag in found.tags.values()), default=0),
                "newest": newest if newest != NO_TIME else 0,
                "lag_ns": max(0, keeper.setting.wall() - newest) if newest != NO_TIME else 0,
                "sealed_hour": max((file.last for file in found.files), default=0),
                "gaps": len(self._losses()),
                "holds": [msgspec.to_builtins(hold) for hold in found.holds][:100], "full": keeper.full,
                "taken": {str(lane): count for lane, count in keeper.store.taken.items()},
                "sources": [one.name for one in keeper.row.sources], "copied": keeper.row.store == "postgresql",
                "published": keeper.row.published,
            }
        )  # fmt: skip
        asked.answer(answer)

    def _tags(self, asked: Asked) -> None:
        said = asked.decode(TagsSaid)
        match = Matcher([said.pattern])
        found = []
        for name, tag in sorted(self._keeper.store.catalogue.tags.items()):
            if name > said.after and match(name):
                found.append({"tag": name, **msgspec.to_builtins(tag)})
                if len(found) >= TAGS_MOST:
                    break
        asked.answer({"tags": found, "more": len(found) >= TAGS_MOST})

    def _losses(self) -> list[catalogue.Loss]:
        known = [loss for loss in self._keeper.store.catalogue.losses if loss.known]
        return known + self._keeper.strand_gaps(known)

    def _gaps(self, asked: Asked) -> None:
        losses = self._losses()
        answer: told.Gaps = {"count": len(losses), "gaps": [msgspec.to_builtins(loss) for loss in losses[-GAPS_MOST:]]}
        asked.answer(answer)

    def _verify(self, asked: Asked) -> None:
        said = asked.decode(VerifySaid)
        _in_order(said.first, said.last)
        keeper = self._keeper
        if not keeper.acks and said.against != "store":
            raise GateError("nothing goes back to the plant (acks: none): only the plant's end can count there")
        run = self._verifying.begin(said.first, said.last, said.against, said.by, frozenset(said.tags))
        asked.answer(run.told())

    def _verified(self, asked: Asked) -> None:
        run = self._verifying.runs.get(asked.decode(RunSaid).number)
        if run is None:
            raise GateError("there is no such run; the keeper may have been born anew")
        asked.answer(run.told())

    def _backfill(self, asked: Asked) -> None:
        said = asked.decode(SpanSaid)
        _in_order(said.first, said.last)
        keeper = self._keeper
        old = (said.last + 1) * HOUR_NS <= times.oldest(keeper.row, keeper.setting.wall())
        if old and not any(one.first <= said.last and one.last >= said.first for one in keeper.store.catalogue.holds):
            raise GateError(
                f"older than `keep` ({show_span(keeper.row.keep)}): none of it would be taken",
                hint="a longer `keep`, or `cofferdam mirror hold` over that time first",
            )
        sources = [
            one.name
            for one in keeper.row.sources
            if isinstance(one, Postgres) or (isinstance(one, Device) and one.history)
        ]
        if not sources or not keeper.acks:
            raise GateError("no source can be read again", hint="those in PostgreSQL can")
        for name in sources:
            fetch = Fetch(name, said.first * HOUR_NS, (said.last + 1) * HOUR_NS)
            keeper.setting.senders["spooler"].send(fetch)
        answer: told.Backfilled = {"sources": sources}
        asked.answer(answer)

    def _hold(self, asked: Asked) -> None:
        said = asked.decode(SpanSaid)
        _in_order(said.first, said.last)
        found = self._keeper.store.catalogue
        if len(found.holds) >= HOLDS_MOST:
            raise GateError(f"{HOLDS_MOST} times are held already", hint="let some go: cofferdam mirror hold --release")
        found.holds = [*found.holds, Hold(said.first, said.last, said.by, said.reason)]
        self._keeper.store.save()
        self._tell(said, held=True)
        answer: told.Holds = {"holds": len(found.holds)}
        asked.answer(answer)

    def _release(self, asked: Asked) -> None:
        said = asked.decode(SpanSaid)
        found = self._keeper.store.catalogue
        kept = [hold for hold in found.holds if (hold.first, hold.last) != (said.first, said.last)]
        if len(kept) == len(found.holds):
            raise GateError("there is no such hold", hint="`cofferdam mirror status` lists them")
        found.holds = kept
        self._keeper.store.save()
        self._tell(said, held=False)
        answer: told.Holds = {"holds": len(kept)}
        asked.answer(answer)

    def _tell(self, said: SpanSaid, *, held: bool) -> None:
        self.say_held()
        self._keeper.setting.audit.note(
            HistoryHeld(
                wall_ns=self._keeper.setting.wall(), conduit=self._keeper.conduit, first=said.first, last=said.last,
                by=clip(said.by, 128), reason=clip(said.reason), held=held,
            )
        )  # fmt: skip

    def _seal(self, asked: Asked) -> None:
        self._keeper.seal_now()
        answer: told.Sealing = {"hot": self._keeper.store.hot_rows}
        asked.answer(answer)


def _in_order(first: int, last: int) -> None:
    if last < first or last - first > HOURS_MOST:
        raise GateError("a time that ends before it begins, or is longer than ten years")
