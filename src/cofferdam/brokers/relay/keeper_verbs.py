"""What an operator may ask of the keeper, and who may: verbs with arguments as JSON, answered by JSON.

`by` is who asks. The gate says so, not the command's sender; a verb that changes anything, or shows a body, needs it,
leaves an entry, and is answered when that is in the log. Long answers come by pages: `after` begins the next one.

    status · positions                                  how channels and consumers stand
    list · show · export                                messages
    held · held-show · release · reject · edit          the quarantine
    dead · replay · skip                                what a consumer gets (again), or no more
    pause · resume · clear · give-up                    a channel
    verify                                              the store, read through by steps

Nothing leaves quarantine but by `release`, by one person or by two, none of whom has edited the message. It is checked
again, as any message, but for limits that compare it with what came before (`max_step`, `per_minute`, its age): that it
may follow is what the people say.

Not here: how a verb is spelled on the command line (cli), what is kept (store, shelf).
"""

from __future__ import annotations

import base64
import difflib
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from cofferdam.audit.events import relay as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.relay import shelf, told
from cofferdam.brokers.relay.keeper import PULL, PUSH, Channel, Consumer
from cofferdam.brokers.relay.keeper_work import Work
from cofferdam.errors import GateError, StoreError
from cofferdam.policy.messages.checked import Problem

PAGE: Final = 1_000
"""Rows of one answer."""
PAGE_BYTES: Final = 384 << 10
"""Bytes of bodies in one answer; base64 adds a third."""
DIFF_LINES: Final = 400
GAPS_SHOWN: Final = 100
CLEARED_A_TURN: Final = 5_000
"""Messages that are removed at once, so that others have their turn."""

Name = Annotated[str, Meta(min_length=1, max_length=128)]
By = Annotated[str, Meta(min_length=1, max_length=128)]
Number = Annotated[int, Meta(ge=0, le=1 << 44)]
Most = Annotated[int, Meta(ge=1, le=PAGE)]


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    by: str = ""


class Page(msgspec.Struct, forbid_unknown_fields=True):
    channel: str = ""
    after: Number = 0
    most: Most = 100
    by: str = ""


class Show(msgspec.Struct, forbid_unknown_fields=True):
    channel: Name
    number: Number
    body: bool = False
    by: str = ""


class Export(msgspec.Struct, forbid_unknown_fields=True):
    """`offset`: where to go on in the body of message `after` + 1."""

    channel: Name
    by: By
    after: Number = 0
    most: Most = 100
    offset: Annotated[int, Meta(ge=0)] = 0


class Row(msgspec.Struct, forbid_unknown_fields=True):
    row: Number
    by: By
    body: bool = False
    reason: Annotated[str, Meta(max_length=512)] = ""


class Edit(msgspec.Struct, forbid_unknown_fields=True):
    row: Number
    by: By
    body: str


class Dead(msgspec.Struct, forbid_unknown_fields=True):
    channel: Name
    consumer: Name
    after: Number = 0
    most: Most = 100
    by: str = ""


class Position(msgspec.Struct, forbid_unknown_fields=True):
    """`one`: this message alone, which is dead to the consumer."""

    channel: Name
    consumer: Name
    first: Annotated[int, Meta(ge=1, le=1 << 44)]
    by: By
    one: bool = False


class Rest(msgspec.Struct, forbid_unknown_fields=True):
    """What is to rest, or to go on."""

    channel: Name
    by: By
    push: bool = True
    pull: bool = True


class Clear(msgspec.Struct, forbid_unknown_fields=True):
    """Messages up to this number, as far as everybody has settled them."""

    channel: Name
    upto: Annotated[int, Meta(ge=1, le=1 << 44)]
    by: By


class Verify(msgspec.Struct, forbid_unknown_fields=True):
    channel: Name
    after: Number = 0
    by: str = ""


A = TypeVar("A")


class Verbs:
    """All verbs."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._verbs: dict[str, Callable[[Asked], None]] = {
            "status": functools.partial(self._read, Nothing, self._status),
            "positions": functools.partial(self._read, Nothing, self._positions),
            "list": functools.partial(self._read, Page, self._list),
            "show": functools.partial(self._read, Show, self._show),
            "export": functools.partial(self._read, Export, self._export),
            "held": functools.partial(self._read, Page, self._held),
            "held-show": functools.partial(self._read, Row, self._held_show),
            "dead": functools.partial(self._read, Dead, self._dead),
            "verify": functools.partial(self._read, Verify, self._verify),
            "release": functools.partial(self._act, Row, self._release),
            "reject": functools.partial(self._act, Row, self._reject),
            "edit": functools.partial(self._act, Edit, self._edit),
            "replay": functools.partial(self._act, Position, self._replay),
            "skip": functools.partial(self._act, Position, self._skip),
            "pause": functools.partial(self._act, Rest, self._pause),
            "resume": functools.partial(self._act, Rest, self._resume),
            "clear": functools.partial(self._act, Clear, self._clear),
            "give-up": functools.partial(self._act, Clear, self._give_up),
        }

    def command(self, asked: Asked) -> None:
        """An operator asks. Raises: GateError: that is the answer."""
        verb = self._verbs.get(asked.verb)
        if verb is None:
            raise GateError(f"the relay has no {asked.verb!r}", hint=f"it has {', '.join(self._verbs)}")
        try:
            verb(asked)
        except StoreError as error:
            self._work.guard(error)
            raise

    def _read(self, kind: type[A], answer: Callable[[A], Any], asked: Asked) -> None:
        asked.answer(answer(asked.decode(kind)))

    def _act(self, kind: type[A], act: Callable[[A], Any], asked: Asked) -> None:
        """Answers when what was done is recorded."""
        if down := self._work.log_down:
            raise GateError(f"nothing can be recorded: {down}", hint="an operator's acts need an entry each")
        result = act(asked.decode(kind))

        def no(problem: Problem, _retry: int) -> None:
            asked.refuse(problem.detail)

        self._work.after_log(lambda: asked.answer(result), no)

    def _channel(self, name: str) -> Channel:
        channel = self._work.machine.channels.get(name)
        if channel is None:
            known = ", ".join(sorted(self._work.machine.channels)) or "none"
            raise GateError(f"there is no channel {name!r}", hint=f"the relay has {known}")
        return channel

    def _consumer(self, channel: str, name: str) -> Consumer:
        consumers = self._channel(channel).consumers
        if name not in consumers:
            raise GateError(
                f"{name!r} is no consumer of {channel}", hint=f"it has {', '.join(sorted(consumers)) or 'none'}"
            )
        return consumers[name]

    # --- how things stand -------------------------------------------------------------------------------------------

    def _status(self, _: Nothing) -> told.Stands:
        work = self._work
        free, size = work.store.room()
        return {
            "store": work.store.name, "commit": work.store.group, "free": free, "disk": size, "full": work.full,
            "unlogged": work.unlogged,
            "channels": [self._stands(channel) for _, channel in sorted(work.machine.channels.items())],
        }  # fmt: skip

    def _stands(self, channel: Channel) -> told.ChannelStands:
        row = channel.row
        present = [consumer for consumer in channel.consumers.values() if consumer.present]
        return {
            "channel": channel.name, "served": channel.served, "next": channel.next, "shown": channel.shown,
            "gone": channel.gone, "messages": channel.messages, "size": channel.size, "room": row.room,
            "room_messages": row.room_messages, "quarantine": channel.held, "paused": _resting(channel.paused),
            "order": row.order, "waiting": max((consumer.lag for consumer in present), default=0),
            "missing": _gaps(channel),
            "consumers": [self._place(consumer) for _, consumer in sorted(channel.consumers.items())],
        }  # fmt: skip

    def _place(self, consumer: Consumer) -> told.Place:
        return {
            "consumer": consumer.name, "present": consumer.present, "cursor": consumer.cursor,
            "lowest": consumer.lowest, "lag": consumer.lag, "leased": len(consumer.leased),
            "returned": len(consumer.free), "dead": consumer.dead, "stopped": consumer.stopped,
            "asked_ns": self._work.now - consumer.asked, "oldest_ns": self._work.oldest(consumer),
        }  # fmt: skip

    def _positions(self, _: Nothing) -> Any:
        return [
            {"channel": name, **self._place(consumer)}
            for name, channel in sorted(self._work.machine.channels.items())
            for _, consumer in sorted(channel.consumers.items())
        ]

    def _list(self, page: Page) -> list[told.Listed]:
        channel = self._channel(page.channel)
        found = self._work.store.messages(channel.name, page.after, page.most, channel.next, shelf.VERIFIED_BYTES)
        return [
            {"number": one.number, "who": one.who, "key": one.key, "sha256": one.sha256.hex(), "size": one.size,
             "at": one.at, "recorded": one.number <= channel.shown}
            for one in found
        ]  # fmt: skip

    def _show(self, show: Show) -> told.Shown:
        channel = self._channel(show.channel)
        one = self._work.store.message(channel.name, show.number)
        if one is None:
            raise GateError(f"{channel.name} has no message {show.number}", hint=f"it has {_range(channel)}")
        said: told.Shown = {
            "channel": channel.name, "number": one.number, "who": one.who, "key": one.key,
            "sha256": one.sha256.hex(), "size": one.size, "at": one.at, "commit": one.group,
            "consumers": {name: _state(consumer, one.number) for name, consumer in sorted(channel.consumers.items())},
        }  # fmt: skip
        if show.body:
            self._saw(channel.name, "show", show.by, one.number, one.number, 1)
            said["body"] = one.body[:PAGE_BYTES].decode("utf-8", "replace")
            said["whole"] = one.size <= PAGE_BYTES
        return said

    def _saw(self, channel: str, how: str, by: str, first: int, last: int, count: int) -> None:
        if not by:
            raise GateError("who wants to see it is not known")
        if down := self._work.log_down:
            raise GateError(f"nothing can be recorded: {down}", hint="whoever sees a message leaves an entry")
        wall = self._work.wall
        self._work.note(
            events.MessagesBrowsed(
                wall_ns=wall, channel=channel, by=by, how=how, count=count, first=first, last=last,  # type: ignore[arg-type]
                from_ns=wall, to_ns=wall,
            )
        )  # fmt: skip

    def _export(self, page: Export) -> told.Page:
        channel = self._channel(page.channel)
        found = self._work.store.messages(channel.name, page.after, page.most, channel.shown, PAGE_BYTES)
        if not found:
            return {"messages": [], "after": page.after, "offset": 0}
        self._saw(channel.name, "export", page.by, found[0].number, found[-1].number, len(found))
        first = found[0]
        end = page.offset + PAGE_BYTES
        if page.offset or first.size > PAGE_BYTES:
            more = end < first.size
            said = [_exported(first, first.body[page.offset : end])]
            return {"messages": said, "after": page.after if more else first.number, "offset": end if more else 0}
        return {"messages": [_exported(one, one.body) for one in found], "after": found[-1].number, "offset": 0}

    def _dead(self, page: Dead) -> list[told.Dead]:
        self._consumer(page.channel, page.consumer)
        rows = self._work.store.dead(page.channel, page.consumer, page.after, page.most)
        return [{"number": row.number, "tries": row.count, "reason": row.reason, "at": row.at} for row in rows]

    def _verify(self, asked: Verify) -> Any:
        channel = self._channel(asked.channel)
        step = shelf.verify(
            self._work.store, channel.name, asked.after, channel.gone, channel.shown, PAGE, channel.gaps
        )
        return {
            "store": self._work.store.name, "channel": channel.name, "gone": channel.gone, "last": channel.shown,
            "findings": step.findings, "missing": _gaps(channel), "batches": step.batches, "after": step.next,
        }  # fmt: skip

    # --- the quarantine ---------------------------------------------------------------------------------------------

    def _held(self, page: Page) -> list[told.Held]:
        if page.channel:
            self._channel(page.channel)
        return [_held(row) for row in self._work.shelf.rows(page.channel, page.after, page.most)]

    def _row(self, number: int) -> shelf.Held:
        held = self._work.shelf.get(number)
        if held is None:
            raise GateError(
                f"the quarantine has no row {number}", hint="`cofferdam relay quarantine list` says what it has"
            )
        return held

    def _held_show(self, asked: Row) -> told.Held:
        held = self._row(asked.row)
        said = _held(held)
        if asked.body:
            self._saw(held.channel, "show", asked.by, 0, 0, 1)
            said["body"] = held.body[:PAGE_BYTES].decode("utf-8", "replace")
            said["diff"] = _diff(held.body, held.now)
        return said

    def _release(self, asked: Row) -> told.Released:
        work, held = self._work, self._row(asked.row)
        channel = self._channel(held.channel)
        if not channel.served:
            raise GateError(f"the policy has no channel {channel.name} any more")
        if asked.by in held.editors:
            raise GateError(f"{asked.by} has edited row {held.row}, and cannot release it", hint="another person can")
        if held.approved == asked.by:
            raise GateError(f"{asked.by} has released row {held.row} already", hint="it takes another person as well")
        if work.full:
            raise GateError(f"the relay's store is full: {work.full}")
        known = work.store.find(held.channel, held.who, held.key)
        if known is not None:
            raise GateError(
                f"{held.who}'s key {held.key} is message {known.number} of {channel.name} by now",
                hint="reject the row, if that message is right",
            )
        checked = work.checks(channel.name, held.now)
        if isinstance(checked, Problem):
            raise GateError(
                f"row {held.row} does not pass: {checked.fault} at {checked.place or 'the whole'}: {checked.detail}",
                hint="edit it, and let somebody else release it",
            )
        if channel.row.release == 2 and not held.approved:
            work.shelf.approve(held, asked.by)
            self._decided(held, "approved", asked.by, people=(asked.by,))
            return {"row": held.row, "released": False, "waits": "another person has to release it as well"}
        body = checked.body
        result = work.machine.push(channel, checked, len(body), work.wall, released=True)
        if result.state != "stored":
            raise GateError(result.problem.detail if result.problem else "it was refused")
        sha256 = hashlib.sha256(body).digest()
        work.store.series.remember(work.machine.steps)
        work.store.add(channel.name, result.number, held.who, held.key, body, sha256, held.sha256, work.wall)
        work.told.push(channel.name, result.number, held.who, held.key, sha256, len(body))
        work.shelf.drop(held)
        work.machine.unheld(channel, held.size)
        people = tuple(dict.fromkeys((held.approved, asked.by))) if held.approved else (asked.by,)
        self._decided(held, "released", asked.by, people=people, number=result.number, sha256=sha256.hex())
        work.figures.add("pushed", 1, channel.name)
        return {"row": held.row, "released": True, "number": result.number, "people": people}

    def _reject(self, asked: Row) -> told.Rejected:
        held = self._row(asked.row)
        self._work.shelf.drop(held)
        self._work.machine.unheld(self._channel(held.channel), held.size)
        self._decided(held, "rejected", asked.by, reason=clip(asked.reason))
        return {"row": held.row, "rejected": True}

    def _edit(self, asked: Edit) -> told.Edited:
        work, held = self._work, self._row(asked.row)
        channel = self._channel(held.channel)
        if not channel.served:
            raise GateError(f"the policy has no channel {channel.name} any more")
        if len(held.editors) >= shelf.EDITORS and asked.by not in held.editors:
            raise GateError(f"{shelf.EDITORS} people have edited row {held.row}", hint="reject it")
        body = work.checks.readable(channel.name, asked.body.encode())
        if isinstance(body, Problem):
            raise GateError(f"{body.fault} in line {body.line}, column {body.column}: {body.detail}")
        if body == held.now:
            raise GateError(f"row {held.row} would stay as it is")
        work.shelf.edit(held, body, asked.by)
        work.machine.resized(channel, len(body) - held.size)
        sha256, before = hashlib.sha256(body).hexdigest(), hashlib.sha256(held.now).hexdigest()
        self._decided(held, "edited", asked.by, sha256=sha256, before=before)
        checked = work.checks(channel.name, body)
        return {
            "row": held.row, "by": asked.by, "diff": _diff(held.now, body),
            "problem": _why(checked) if isinstance(checked, Problem) else None,
        }  # fmt: skip

    def _decided(self, held: shelf.Held, decision: str, by: str, **more: Any) -> None:
        more.setdefault("sha256", hashlib.sha256(held.now).hexdigest())
        self._work.told.add(
            events.QuarantineDecided, channel=held.channel, row=held.row, decision=decision, by=by, principal=held.who,
            key=clip(held.key), **more,
        )  # fmt: skip

    # --- consumers and channels -------------------------------------------------------------------------------------

    def _replay(self, asked: Position) -> told.Replayed:
        work = self._work
        consumer = self._consumer(asked.channel, asked.consumer)
        channel = consumer.channel
        if not channel.gone < asked.first < channel.next and not asked.one:
            raise GateError(f"{channel.name} has no message {asked.first}", hint=f"it has {_range(channel)}")
        if asked.one:
            self._one_dead(asked)
            work.machine.revive(consumer, asked.first, work.now)
        else:
            work.store.begin()
            work.machine.replay(consumer, asked.first, work.store.revive(channel.name, consumer.name, asked.first))
        self._position(asked, "one" if asked.one else "replay")
        return {"channel": channel.name, "consumer": consumer.name, "lag": consumer.lag}

    def _skip(self, asked: Position) -> told.Skipped:
        work = self._work
        consumer = self._consumer(asked.channel, asked.consumer)
        channel = consumer.channel
        self._one_dead(asked)
        work.machine.skip(consumer)
        work.let_go(channel, asked.first)
        self._position(asked, "skip")
        return {"channel": channel.name, "consumer": consumer.name, "dead": consumer.dead}

    def _one_dead(self, asked: Position) -> None:
        """It is dead to the consumer no more. Raises: GateError: it was not."""
        store = self._work.store
        found = store.dead(asked.channel, asked.consumer, asked.first - 1, 1)
        if not found or found[0].number != asked.first:
            raise GateError(f"message {asked.first} of {asked.channel} is not dead to {asked.consumer}")
        store.begin()
        store.revive(asked.channel, asked.consumer, asked.first, asked.first)

    def _position(self, asked: Position, how: str) -> None:
        self._work.told.add(
            events.PositionSet, channel=asked.channel, consumer=asked.consumer, how=how, first=asked.first, by=asked.by
        )

    def _clear(self, asked: Clear) -> told.ClearedSome:
        """Room is made before its time: of what everybody has settled, as many as one turn may remove."""
        work, channel = self._work, self._channel(asked.channel)
        upto = min(asked.upto, channel.removable)
        if upto <= channel.gone:
            waits = [
                consumer.name
                for consumer in channel.consumers.values()
                if consumer.present and consumer.lowest <= asked.upto
            ]
            raise GateError(
                f"{channel.name} has nothing up to {asked.upto} that everybody is done with",
                hint=f"not done with message {channel.gone + 1}: {', '.join(sorted(waits))}"
                if waits
                else f"it has {_range(channel)}",
            )
        work.store.begin()
        last, count, size = work.store.remove(channel.name, channel.gone, upto, 1 << 62, CLEARED_A_TURN)
        work.machine.removed(channel, last, count, size)
        work.told.add(events.MessagesRemoved, channel=channel.name, last=last, count=count, by=asked.by)
        work.store.drop_segments(channel.name, last)
        work.figures.add("removed", count, channel.name)
        return {"channel": channel.name, "removed": count, "size": size, "last": last, "more": last < upto}

    def _give_up(self, asked: Clear) -> told.GivenUp:
        """Nobody waits any more for what a strand has not brought. If it comes after all it is taken."""
        channel = self._channel(asked.channel)
        found = self._work.machine.give_up(channel, asked.upto)
        if not found:
            raise GateError(
                f"nothing of {channel.name} is missing up to {asked.upto}", hint="`cofferdam relay status` says what is"
            )
        for gap in found:
            self._work.told.add(
                events.NumbersMissing, channel=channel.name, first=gap.first, last=gap.last, what="given-up",
                by=asked.by,
            )  # fmt: skip
        return {"channel": channel.name, "given_up": [(gap.first, gap.last) for gap in found]}

    def _pause(self, asked: Rest) -> told.Rests:
        return self._rest(asked, self._channel(asked.channel).paused | _bits(asked))

    def _resume(self, asked: Rest) -> told.Rests:
        return self._rest(asked, self._channel(asked.channel).paused & ~_bits(asked))

    def _rest(self, asked: Rest, bits: int) -> told.Rests:
        channel = self._channel(asked.channel)
        self._work.machine.pause(channel, bits)
        self._work.told.add(events.ChannelSet, channel=channel.name, paused=tuple(_resting(bits)), by=asked.by)
        return {"channel": channel.name, "paused": _resting(bits)}


def _gaps(channel: Channel) -> list[told.Missing]:
    return [
        {"first": gap.first, "last": gap.last, "since": gap.since, "given_up": gap.given}
        for gap in channel.gaps.rows[:GAPS_SHOWN]
    ]


def _bits(asked: Rest) -> int:
    return (PUSH if asked.push else 0) | (PULL if asked.pull else 0)


def _resting(bits: int) -> list[str]:
    return [word for word, bit in (("push", PUSH), ("pull", PULL)) if bits & bit]


def _range(channel: Channel) -> str:
    return f"{channel.gone + 1} to {channel.next - 1}" if channel.next > channel.gone + 1 else "none"


def _state(consumer: Consumer, number: int) -> str:
    if number in consumer.leased:
        return f"leased, {consumer.leased[number].count} times by now"
    if number in consumer.free:
        count = consumer.free[number].count
        return f"waits to be handed out again, after {count} times" if count else "waits to be handed out again"
    return "settled or dead" if number < consumer.cursor else "waits to be handed out"


def _why(problem: Problem) -> told.Why:
    return {
        "fault": problem.fault, "detail": problem.detail, "place": problem.place, "line": problem.line,
        "column": problem.column,
    }  # fmt: skip


def _held(held: shelf.Held) -> told.Held:
    why = held.problem
    return {
        "row": held.row, "channel": held.channel, "who": held.who, "key": held.key, "sha256": held.sha256.hex(),
        "size": held.size, "at": held.at, "fault": why.fault, "detail": why.detail, "place": why.place,
        "line": why.line, "column": why.column,
        "edited": held.edited is not None, "editors": held.editors, "approved": held.approved,
    }  # fmt: skip


def _exported(one: Any, body: bytes) -> told.Carried:
    return {
        "number": one.number, "who": one.who, "key": one.key, "sha256": one.sha256.hex(), "size": one.size,
        "at": one.at, "body": base64.b64encode(body).decode(),
    }  # fmt: skip


def _diff(before: bytes, after: bytes) -> list[str]:
    """Line by line; of a JSON text with a member a line."""
    if max(len(before), len(after)) > PAGE_BYTES:
        return ["(too long to be shown)"]
    lines = difflib.unified_diff(_lines(before), _lines(after), "before", "after", lineterm="", n=2)
    return list(lines)[:DIFF_LINES]


def _lines(body: bytes) -> list[str]:
    try:
        return json.dumps(json.loads(body), indent=1, ensure_ascii=False, sort_keys=True).splitlines()
    except ValueError:
        return body.decode("utf-8", "replace").splitlines()
