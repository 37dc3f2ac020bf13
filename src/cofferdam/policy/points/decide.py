"""The decision: may this operation be carried out on this asset, for this source, now?

`CompiledPolicy.flow` (policy.table) finds once per session and asset what a source may do: a `Flow`. Its `decide` then
judges each operation without a walk over rules: verdicts on the form of an operation (which function, which cells) are
kept in a bounded cache, and a miss costs a few bisections.

What counts as allowed:
- *One* conduit must allow an operation whole; within it, its rules for the flow's principals and asset add up. A
  conduit is an agreement with one owner, one reason and one expiry, and the audit log names one. Two conduits never
  add up.
- Reads and writes are judged by the cells or items that they touch; calls, watches and streams are their kinds with
  rules of their own. An operation that touches nothing (diagnostics, identification) is judged by its function code:
  `functions` where it leaves the device's state alone, `write_functions` where it may not.
- A limit belongs to the point, not to the rule: whatever lets a write through to the cells of a point, also a raw
  range, the point's limits hold. A write touches a point of cells wholly or not at all; of an array's elements each
  is a value by itself.

No protocol's words are known here: which spaces hold bits, and which names are parts of which, the asset's row says.

Not here: what one conduit allows (points.ways), points of items (points.items), the memory behind max_step, max_rate
and writes_per_minute (points.state), and how a verdict is told to people (policy.explain). Imported by the halves: no
clock, no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cofferdam.model import (
    NEVER,
    Allow,
    AllowBits,
    Asset,
    Change,
    Deny,
    Fault,
    Item,
    NeedValues,
    Operation,
    Point,
    Span,
    cells_of,
)
from cofferdam.policy import windows
from cofferdam.policy.points import values
from cofferdam.policy.points.checks import CellCheck, Check, IdleCheck
from cofferdam.policy.points.items import Items
from cofferdam.policy.points.state import PointState, idle
from cofferdam.policy.points.ways import VERBS, Way, name_piece, rules_named
from cofferdam.policy.rows import Clock, Piece
from cofferdam.protocols.dialect import bits_text, show_range

__all__ = ["Flow", "Known", "PointState"]

CACHE_ENTRIES = 2048
"""Forms of operations that one flow remembers; all are forgotten when one more comes, ..."""
CACHE_BYTES = 6 << 20
"""... or when there is no more room: so many bytes of verdicts, and of requests that are recalled, by an estimate
(bulk). What a protocol keeps with such a request may be as much again."""

# How far an operation got in a conduit. The conduit in which it got furthest is the nearest one.
_STAGES = (Fault.FUNCTION, Fault.ADDRESS, Fault.EXPIRED, Fault.WINDOW, Fault.VALUE, Fault.STEP, Fault.RATE)


class _Form:
    """The verdict on a write's form, and what remains to be checked of its values. `bits`: those of the word that it
    writes which may be written alone; none where the whole of it may."""

    __slots__ = ("bits", "ranged", "stateful", "verdict")

    def __init__(self, verdict: Allow | Deny, checks: Sequence[Check], bits: Sequence[Piece] = ()) -> None:
        self.verdict = verdict
        self.bits = tuple(bits)
        self.ranged = tuple(check for check in checks if check.ranged)
        self.stateful = tuple(check for check in checks if check.stateful)


class Known:
    """What a flow remembers of a request: the request itself, what it means, and the verdict that allowed it; besides,
    of these, what is asked each time: the conduit, the cells that are read, the unit. `place`: a number that whoever
    asks has given it, 0 for none."""

    __slots__ = ("cells", "conduit", "operation", "place", "request", "unit", "verdict")

    def __init__(self, request: Any, operation: Operation, verdict: Allow) -> None:
        self.request = request
        self.operation = operation
        self.verdict = verdict
        self.conduit = verdict.conduit
        self.cells = cells_of(operation)
        self.unit = operation.unit
        self.place = 0


def bulk(op: Operation) -> int:
    """About how many bytes are kept with an operation that reads."""
    size = 300
    for read in op.reads:
        size += 350 + (2 * len(read.name) if isinstance(read, Item) else 0)
    return size


class Flow:
    """What one set of principals may do to one asset. Made by `CompiledPolicy.flow`; shared between sessions."""

    __slots__ = (
        "_bits", "_clocks", "_factors", "_forms", "_frames", "_items", "_kept_in", "_points", "_recalled", "_room",
        "_verdicts", "_words", "asset", "conduits", "principals", "silent", "since", "until", "ways",
    )  # fmt: skip

    def __init__(
        self, principals: tuple[str, ...], asset: Asset, ways: Sequence[Way], clocks: Mapping[str, Clock]
    ) -> None:
        self.principals = principals
        self.asset = asset
        self.ways = tuple(ways)
        self.conduits = tuple(way.conduit.name for way in ways)
        self.silent = all(way.conduit.silent for way in ways)
        """Every conduit of the flow says `deny: silent`: a refusal is not answered."""
        self._clocks = clocks
        self._points: dict[str, list[Point]] = {}
        for point in sorted(asset.points, key=lambda p: p.at.start):
            if isinstance(point.at, Span):
                self._points.setdefault(point.at.space, []).append(point)
        self._words = frozenset({(point.at.space, point.at.start) for point in asset.points if point.mask})
        """Words of which points are bits."""
        self._bits = frozenset(asset.bits)
        self._kept_in = {bits: (words, first) for bits, words, first in asset.bits_of}
        self._factors = tuple(
            (point.factor, point.name) for point in asset.points if point.factor is not None and values.has_range(point)
        )
        """Cells by which limits are judged."""
        # An asset without items keeps the short way.
        self._items = Items(asset) if asset.kinds else None
        self.since = 0
        self.until = -1
        self._verdicts: dict[Operation, Allow | Deny] = {}
        self._forms: dict[object, _Form] = {}
        self._recalled: dict[object, Known] = {}
        self._room = [CACHE_BYTES, CACHE_BYTES]  # of these, and of verdicts
        self._frames: dict[object, tuple[str, list[Check]]] = {}

    def recall(self, request: object, wall_ns: int) -> Known | None:
        """What `remember` was told of an equal request, while no window and no expiry has come in between."""
        if self.since <= wall_ns < self.until:
            return self._recalled.get(request)
        return None

    def remember(self, request: object, op: Operation, verdict: Allow) -> None:
        """Keeps what `decide` just said of a request, which is any hashable, immutable object that `op` follows from.
        Reads only: the verdict on a write also depends on what was written before."""
        if op.is_write or op.writes:
            return
        self._make_room(0, self._recalled, op)
        self._recalled[request] = Known(request, op, verdict)

    def decide(self, op: Operation, wall_ns: int) -> Allow | Deny:
        """Everything but max_step, max_rate and writes_per_minute: the outer half's answer. `wall_ns` is UTC."""
        if not self.since <= wall_ns < self.until:
            self._refresh(wall_ns)
        if op.writes:
            return self._decide_write(op, wall_ns)[0]
        verdict = self._verdicts.get(op)
        if verdict is None:
            verdict = self._judge(op, wall_ns).verdict
            self._make_room(1, self._verdicts, op)
            self._verdicts[op] = verdict
        return verdict

    def _make_room(self, which: int, memory: dict[Any, Any], op: Operation) -> None:
        """For one more entry of a memory, whose size follows from what is read."""
        size = bulk(op)
        left = self._room[which] - size
        if left < 0 or len(memory) >= CACHE_ENTRIES:
            memory.clear()
            left = CACHE_BYTES - size
        self._room[which] = left

    def decide_full(
        self, op: Operation, wall_ns: int, mono_ns: int, state: PointState, since_ns: int | None = None
    ) -> Allow | Deny | NeedValues:
        """Everything: the inner half's answer. `NeedValues`: read these spans, tell `state`, and decide again, with the
        time at which the reading was begun as `since_ns`."""
        if not op.writes:
            return self.decide(op, wall_ns)
        if not self.since <= wall_ns < self.until:
            self._refresh(wall_ns)
        verdict, form = self._decide_write(op, wall_ns)
        if isinstance(verdict, Deny):
            return verdict
        if self._words:
            other = self._in_words(op, verdict, form, wall_ns, mono_ns, state, since_ns)
            if other is not None:
                return other
        if not form.stateful:
            return verdict
        return self._check_state(op, verdict, form, mono_ns, state, since_ns)

    def only_bits(self, op: Operation, wall_ns: int) -> str:
        """Of which bits alone a write of a word is allowed, in words; "" where all of it is, or nothing."""
        if not op.writes or not isinstance(self.decide(op, wall_ns), Allow):
            return ""
        return ", ".join(name_piece(piece) for piece in self._decide_write(op, wall_ns)[1].bits)

    def _in_words(
        self, op: Operation, verdict: Allow, form: _Form, wall_ns: int, mono_ns: int, state: PointState,
        since_ns: int | None,
    ) -> Allow | Deny | NeedValues | None:  # fmt: skip
        """The verdict on a write that is to words of which points are bits; None: it is judged as any other is.

        Where only some bits of a word may be written, a client that writes all of it has to leave the others as they
        are, and what is done is a write of these bits. A device that knows no such writes has each write of these words
        made from what they hold, one after the other."""
        asset = self.asset
        unknown: list[Span | Item] = []
        words = [
            (change, cell) for change in op.writes if isinstance(change, Change) for space, cell in self._words
            if space == change.space and change.start <= cell < change.stop
        ]  # fmt: skip
        held = -1
        if form.bits or asset.read_first:
            for change, cell in words:
                # Never a value that was known before: a bit that the device has changed since would pass for written.
                known = state.known(asset.name, f"{change.space} {cell}", mono_ns, since_ns, fresh=True)
                if known is None:
                    unknown.append(Span(change.space, cell, 1))
                else:
                    held = int(known)
        if unknown:
            return NeedValues(tuple(unknown))
        if len(words) != 1 or len(op.writes) != 1 or words[0][0].count != 1:
            return None
        change = words[0][0]
        if form.bits and change.exact:
            changed = (change.values[0] ^ held) & 0xFFFF
            mask = wide = 0
            for piece in form.bits:
                wide |= piece.mask
                mask |= piece.mask if piece.mask & changed else 0
            if changed & ~wide:
                word = show_range(Span(change.space, change.start, 1), change.start, change.stop)
                known_as = ", ".join(name_piece(piece) for piece in form.bits)
                what = f"{bits_text(changed & ~wide)} of {word} would change, which holds {held:#06x}"
                return _deny(verdict, Fault.VALUE, f"{what}; a change of {known_as} alone is allowed")
            mask = mask or wide
            masks = (~mask & 0xFFFF, change.values[0] & mask)
            bits = Operation(
                op.function, op.sub, op.unit, True, (), (Change(change.space, change.start, 1, masks, False),)
            )
            return self.decide_full(bits, wall_ns, mono_ns, state, since_ns)
        if change.exact:
            return None
        found = self._check_state(op, verdict, form, mono_ns, state, since_ns)
        if not isinstance(found, Allow):
            return found
        # What is sent sets no bit that was not judged, however the device puts the two masks together.
        masks = (change.values[0], change.values[1] & ~change.values[0] & 0xFFFF)
        if masks != change.values:
            op = Operation(
                op.function, op.sub, op.unit, True, (), (Change(change.space, change.start, 1, masks, False),)
            )
        return AllowBits(found.conduit, found.rule, found.valid_until, op, held if asset.read_first else -1)

    def reaches(self, verb: str, item: Item) -> bool:
        """Whether some rule allows to "write" or "call" such an item, whatever the value and the hour."""
        access = VERBS.index(verb)
        return any(way.reaches(access, item) for way in self.ways)

    def pace(self, item: Item) -> tuple[int, int]:
        """The shortest and the longest interval (µs) at which rules let an item be watched; 0 for no limit."""
        found = [way.pace(item) for way in self.ways if way.is_open and way.reaches(VERBS.index("subscribe"), item)]
        if not found:
            return 0, 0
        slowest = [longest for _, longest in found]
        return min(shortest for shortest, _ in found), 0 if 0 in slowest else max(slowest)

    def assess(self, op: Operation, wall_ns: int) -> list[tuple[Way, Allow | Deny]]:
        """The verdict of each conduit alone, values included, in the policy's order. For explanations; not cached."""
        self._refresh(wall_ns)
        found: list[tuple[Way, Allow | Deny]] = []
        for way in self.ways:
            form = self._judge(op, wall_ns, (way,))
            verdict = form.verdict
            if isinstance(verdict, Allow) and op.writes:
                verdict = self._check_values(op, form)
            found.append((way, verdict))
        return found

    def sees(self, item: Item) -> bool:
        """Whether the flow may do something with an item, or a part of it, so that lists of what there is show it."""
        separators = dict(self.asset.kinds).get(item.kind, "")
        return any(way.is_open and way.sees(item, separators) for way in self.ways)

    def check_frame(self, stream: Item, op: Operation, state: PointState, mono_ns: int) -> str:
        """What is wrong with the values that a frame of an open stream would write; "" if they may be sent.

        Whether the stream may be open is judged by its opening. A frame writes nothing outside the stream; it is held
        to the limits of its points, but for how often they may be written. A step, and a max_rate, is counted from the
        last value that was known, however old: nobody reads in between.
        """
        if self._items is None:
            return f"{self.asset.name} has no streams"
        key = (stream.space, self._items.key(op))
        found = self._frames.get(key)
        if found is None:
            checks: list[Check] = []
            wrong = self._items.outside(stream, op) or self._items.touched(op, set(), checks)[1]
            if len(self._frames) >= CACHE_ENTRIES:
                self._frames.clear()
            found = self._frames[key] = (wrong, checks)
        wrong = found[0] or self._items.faulty(op)
        if wrong:
            return wrong
        for check in found[1]:
            wrong = check.wrong(op) if check.ranged else ""
            if not wrong and check.valued:
                known = state.last(self.asset.name, check.name)
                wrong = "" if known is None else self._moves(check, op, known, mono_ns, state)
            if wrong:
                return wrong
        return ""

    # --- inside

    def _refresh(self, wall_ns: int) -> None:
        self._verdicts.clear()
        self._forms.clear()
        self._recalled.clear()
        self._room = [CACHE_BYTES, CACHE_BYTES]
        self.since = wall_ns
        self.until = min([way.refresh(self._clocks, wall_ns) for way in self.ways], default=NEVER)

    def _decide_write(self, op: Operation, wall_ns: int) -> tuple[Allow | Deny, _Form]:
        key: object
        if self._items is not None:
            key = self._items.key(op)
        elif len(op.writes) == 1:
            change: Change = op.writes[0]  # type: ignore[assignment]
            key = (
                op.function, op.sub, op.unit, op.is_write, op.reads,
                change.space, change.start, change.count, change.exact, len(change.values),
            )  # fmt: skip
            if self._words and not change.exact:  # which bits it changes is a part of its form
                key = (key, change.values[0])
        else:
            key = (
                op.function, op.sub, op.unit, op.is_write, op.reads,
                tuple((c.space, c.start, c.count, c.exact, len(c.values)) for c in op.writes),  # type: ignore[union-attr]
            )  # fmt: skip
        form = self._forms.get(key)
        if form is None:
            form = self._judge(op, wall_ns)
            if len(self._forms) >= CACHE_ENTRIES:
                self._forms.clear()
            self._forms[key] = form
        if isinstance(form.verdict, Deny):
            return form.verdict, form
        return self._check_values(op, form), form

    def _judge(self, op: Operation, wall_ns: int, ways: Sequence[Way] | None = None) -> _Form:
        """The verdict on an operation's form, and for writes the points whose limits its values must meet."""
        ways = self.ways if ways is None else ways
        if self.asset.unit not in (op.unit, -1):
            way = ways[0]
            detail = f"unit {op.unit} is asked; {self.asset.name} is unit {self.asset.unit}"
            return _Form(Deny(way.conduit.name, rules_named(way, way.rules[0].number), Fault.UNIT, detail), ())
        if op.is_write and op.unit == self.asset.broadcast and self.asset.unit == -1:
            way = ways[0]
            detail = f"a write to unit {op.unit} is asked, which reaches every device of a line; an asset of that unit"
            detail += " would have to be named"
            return _Form(Deny(way.conduit.name, rules_named(way, way.rules[0].number), Fault.UNIT, detail), ())
        nearest: tuple[int, int, Deny] | None = None
        for way in ways:
            found = way.form(op)
            if isinstance(found, tuple):
                fault, distance, number, detail = found
            elif way.is_open:
                allow = Allow(way.conduit.name, rules_named(way, *found), way.until)
                if self._words:
                    alone = way.alone(op)
                    change = op.writes[0] if alone else None
                    if isinstance(change, Change) and change.exact and len(change.values) == 1:
                        # What is written of the word, and so which limits count, follows from what it holds.
                        return _Form(allow, (), [piece for piece, _ in alone])
                fault, torn, checks = self._touched(op)
                return _Form(Deny(allow.conduit, allow.rule, fault, torn) if torn else allow, checks)
            else:
                distance, number = 0, found[0]
                fault, detail = self._closed(way, wall_ns)
            rank = (_STAGES.index(fault), -distance)
            if nearest is None or rank > nearest[:2]:
                nearest = (*rank, Deny(way.conduit.name, rules_named(way, number), fault, detail))
        if nearest is None:
            return _Form(Deny("", "", Fault.CONDUIT, f"no rule concerns {self.asset.name}"), ())
        return _Form(nearest[2], ())

    def _closed(self, way: Way, wall_ns: int) -> tuple[Fault, str]:
        conduit = way.conduit
        if wall_ns >= conduit.expires and conduit.held_back:
            return Fault.EXPIRED, f"{conduit.name} is {conduit.held_back}"
        if wall_ns >= conduit.expires:
            return Fault.EXPIRED, f"{show_utc(wall_ns)} is now; {conduit.name} expired {conduit.expires_text}".rstrip()
        if windows.beyond_horizon(conduit.windows, self._clocks, wall_ns):
            return Fault.WINDOW, (
                f"{show_utc(wall_ns)} is beyond the time zone data of the compiled policy; reload the policy"
            )
        local = show_local(wall_ns, self._clocks[conduit.windows[0].zone], conduit.windows[0].zone)
        return Fault.WINDOW, f"{local} is now; open {' and '.join(window.text for window in conduit.windows)}"

    def _touched(self, op: Operation) -> tuple[Fault, str, list[Check]]:
        """What is wrong with a form at the asset's points ("" if nothing), and which limits a write's values must
        meet."""
        checks: list[Check] = []
        limited: set[str] = set()
        for index, change in enumerate(op.writes):
            if isinstance(change, Change):
                torn = self._touched_cells(index, change, limited, checks) or self._touched_otherwise(change)
                if torn:
                    return Fault.VALUE, torn, []
        if self._items is not None:
            fault, torn = self._items.touched(op, limited, checks)
            if torn:
                return fault, torn, []
        return Fault.VALUE, "", checks

    def _touched_cells(self, index: int, change: Change, limited: set[str], checks: list[Check]) -> str:
        if change.exact and len(change.values) != change.count:
            return f"{len(change.values)} values for {change.count} cells are asked; one for each is allowed"
        for point in self._points.get(change.space, ()):
            at = point.at
            if at.stop <= change.start or at.start >= change.stop:
                continue
            if at.start < change.start or at.stop > change.stop:
                part = show_range(at, max(at.start, change.start), min(at.stop, change.stop))
                whole = show_range(at, at.start, at.stop)
                return f"only {part} of {point.name} is asked; {whole} is allowed as a whole"
            offset = at.start - change.start
            if point.mask and not change.exact:
                touched = ~change.values[0] & point.mask
                if not touched:
                    if idle(change) and point.writes_per_minute is not None:
                        checks.append(IdleCheck(point, index))
                    continue
                if touched != point.mask:
                    return (
                        f"only {bits_text(touched)} of {point.name} is asked; {bits_text(point.mask)} of "
                        f"{show_range(at, at.start, at.stop)} is allowed as a whole"
                    )
                offset = 1
            if not values.is_judged(point):
                continue
            if not change.exact and not point.mask:
                sentence = f"a change of single bits of {point.name} is asked, whose result cannot be checked"
                return f"{sentence} against its limits; writing a whole value is allowed"
            if values.has_limit(point):
                if point.name in limited:
                    return f"{point.name} is asked twice in one request; once is allowed"
                limited.add(point.name)
            checks.append(CellCheck(point, index, offset))
        return ""

    def _touched_otherwise(self, change: Change) -> str:
        """What is wrong with a write of bits that the device keeps in words with limits, or of such words: it would
        pass the limits round. Nor is a power of ten written by which limits are judged: what the point holds already
        would become another value, which nobody has judged."""
        for cell, name in self._factors:
            if change.space == cell.space and change.start < cell.stop and cell.start < change.stop:
                return f"{show_range(cell, cell.start, cell.stop)} is asked, by which the limits of {name} are judged"
        for bits, (words, first) in self._kept_in.items():
            if change.space == bits:
                low, high = first + change.start // 16, first + (change.stop - 1) // 16 + 1
                other, what = words, "bits"
            elif change.space == words:
                low, high = 16 * (change.start - first), 16 * (change.stop - first)
                other, what = bits, "words"
            else:
                continue
            for point in self._points.get(other, ()):
                if values.has_limit(point) and point.at.start < high and low < point.at.stop:
                    whole = show_range(point.at, point.at.start, point.at.stop)
                    return f"{what} of {point.name} are asked, which the device keeps in {whole}; that is allowed"
        return ""

    def _check_values(self, op: Operation, form: _Form) -> Allow | Deny:
        verdict = form.verdict
        for change in op.writes:
            if type(change) is Change and change.exact:
                cells = change.values
                top = 1 if change.space in self._bits else 0xFFFF
                bad = not 0 <= cells[0] <= top if len(cells) == 1 else max(cells) > top or min(cells) < 0
                if bad:
                    return _deny(verdict, Fault.VALUE, f"a cell value outside 0 to {top} is asked")
        if self._items is not None:
            wrong = self._items.faulty(op)
            if wrong:
                return _deny(verdict, Fault.VALUE, wrong)
        for check in form.ranged:
            wrong = check.wrong(op)
            if wrong:
                return _deny(verdict, Fault.VALUE, wrong)
        return verdict

    def _check_state(
        self, op: Operation, verdict: Allow, form: _Form, mono_ns: int, state: PointState, since_ns: int | None
    ) -> Allow | Deny | NeedValues:
        asset = self.asset.name
        unknown: list[Span | Item] = []
        for check in form.stateful:
            if check.pace is not None:
                wait = state.wait_ns(asset, check.name, mono_ns)
                if wait:
                    pace = f"{check.pace} {check.plural} a minute are allowed"
                    again = f"the next one in {-(-wait // windows.NS)} s"
                    asked = f"one more {check.word} of {check.name} is asked"
                    return _deny(verdict, Fault.RATE, f"{asked}; {pace}, {again}")
            if check.factor is not None:
                known = state.known(asset, check.factor_name, mono_ns, since_ns)
                if known is None:
                    unknown.append(check.factor)
                else:
                    wrong = check.wrong_scaled(op, int(known))
                    if wrong:
                        return _deny(verdict, Fault.VALUE, wrong)
            if not check.valued:
                continue
            wait = state.unknown_ns(asset, check.name, mono_ns)
            if wait:
                asked = f"a write of {check.name} is asked, of which nobody knows what was written just before"
                return _deny(verdict, Fault.RATE, f"{asked}; the next one is allowed in {-(-wait // windows.NS)} s")
            known = state.known(asset, check.name, mono_ns, since_ns)
            if known is None:
                unknown.append(check.at)
                continue
            wrong = self._moves(check, op, known, mono_ns, state)
            if wrong:
                return _deny(verdict, Fault.STEP, wrong)
        return NeedValues(tuple(unknown)) if unknown else verdict

    def _moves(self, check: Check, op: Operation, known: values.Number, mono_ns: int, state: PointState) -> str:
        """What is wrong with how far, or how fast, a write moves a point from its present value; "" for nothing."""
        value = check.number(op)
        wrong = "" if check.max_step is None else check.too_far(value, known)
        if wrong or check.max_rate is None:
            return wrong
        return check.too_fast(value, *state.lately(self.asset.name, check.name, known, mono_ns))


def show_utc(wall_ns: int) -> str:
    """A time in words: 2027-06-30 12:00:00 UTC."""
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(seconds=wall_ns // windows.NS):%Y-%m-%d %H:%M:%S} UTC"


def show_local(wall_ns: int, clock: Clock, zone: str) -> str:
    """A time on the wall clock of a zone: Mon 2027-06-28 05:59 Europe/Paris."""
    second = wall_ns // windows.NS
    offset = windows.offset_at(clock, second)
    if offset is None:
        return show_utc(wall_ns)
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(seconds=second + offset):%a %Y-%m-%d %H:%M} {zone}"


def _deny(verdict: Allow | Deny, fault: Fault, detail: str) -> Deny:
    return Deny(verdict.conduit, verdict.rule, fault, detail)
