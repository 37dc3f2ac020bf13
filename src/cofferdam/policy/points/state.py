"""What an inner half remembers of points: last known values (for max_step and max_rate), values of the last minute (for
max_rate) and recent writes (for writes_per_minute), and of methods their recent calls.

Time comes in as monotonic nanoseconds. Memory is bounded by the policy: one value for each point with a max_step or
max_rate, a few more for one with a max_rate, and as many times as its limit for each point with writes_per_minute.

What is remembered belongs to cells and items of a device, not to names: a point or an asset that another policy calls
otherwise keeps it.

The caller's duties, which keep the memory honest:
- `note_write` in the same step as the `Allow`, before anything is awaited: it counts the write, and forgets the value,
  since nobody knows what the device holds until it answers;
- `note_confirmed` when the device has acknowledged the write: the written value is then known;
- `note_ended` when the write is over, however it ended and whether or not it was sent: until then no read teaches
  anything about its points, since nobody knows which of the two the device served first;
- `note_values` for good read replies, with the time at which the *read was sent*: an answer to a read that was sent
  before a write ended says nothing about what the write left.

Not here: judging (policy.decide). That one part alone writes a device is seen to by policy.crews.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from cofferdam.model import Asset, Assign, Change, Item, Method, Operation, Point, Span, Write
from cofferdam.policy.points import values
from cofferdam.policy.points.ramps import Ramp

NS = 1_000_000_000
MINUTE = 60 * NS

Key = tuple[str, str]  # asset, point


class PointState:
    """Known values and recent writes of the assets' points that have a `max_step`, `max_rate` or
    `writes_per_minute`."""

    __slots__ = (
        "_assets", "_ended", "_known", "_paced", "_points", "_ramps", "_stepped", "_under_way", "_writes",
        "known_value_ns",
    )  # fmt: skip

    def __init__(self, assets: Mapping[str, Asset], known_value_seconds: float = 0.0) -> None:
        # The value, None where a write has left it unknown; and since when it is so.
        self._known: dict[Key, tuple[values.Number | None, int]] = {}
        self._writes: dict[Key, deque[int]] = {}
        self._under_way: dict[tuple[str, Operation], int] = {}
        self._ended: dict[Key, int] = {}
        self._points: dict[Key, Point | Method] = {}
        self._ramps: dict[Key, Ramp] = {}
        self._assets: dict[str, Asset] = {}
        # By asset and space: of cells, or of an item.
        self._stepped: dict[tuple[str, str], tuple[Point, ...]] = {}
        self._paced: dict[tuple[str, str], tuple[Point | Method, ...]] = {}
        self.known_value_ns = 0
        self.adopt(assets, known_value_seconds)

    def adopt(self, assets: Mapping[str, Asset], known_value_seconds: float = 0.0) -> None:
        """Take a new policy's assets. Recent writes keep counting, by whatever names; known values of changed points
        are lost."""
        old_points, old_known, old_writes, old_ramps = self._points, self._known, self._writes, self._ramps
        before = self._by_place()
        self._points, self._known, self._writes, self._stepped, self._paced = {}, {}, {}, {}, {}
        self._ramps, self._assets = {}, dict(assets)
        self.known_value_ns = int(known_value_seconds * NS)
        for asset in assets.values():
            for word in asset.present:
                key, place = (asset.name, word.name), (asset.name, word.at.space)
                self._stepped[place] = (*self._stepped.get(place, ()), word)
                self._points[key] = word
                if key in old_known and old_points.get(key) == word:
                    self._known[key] = old_known[key]
            things: tuple[Point | Method, ...] = (*asset.points, *asset.methods)
            for point in things:
                key, place = (asset.name, point.name), (asset.name, point.at.space)
                limited = isinstance(point, Point) and point.max_rate is not None
                if isinstance(point, Point) and (limited or point.max_step is not None):
                    self._stepped[place] = (*self._stepped.get(place, ()), point)
                was = [key] if key in old_points else []
                if point.writes_per_minute is not None or limited:
                    was += [one for one in before.get((*_device(asset), point.at.space), ()) if one != key]
                    was = [one for one in was if one == key or _meet(old_points[one], point)]
                if point.writes_per_minute is not None:
                    self._paced[place] = (*self._paced.get(place, ()), point)
                    found = [old_writes[one] for one in was if one in old_writes]
                    self._writes[key] = found[0] if len(found) == 1 else deque(sorted(t for old in found for t in old))
                if isinstance(point, Point) and limited:
                    ramp = self._ramps[key] = Ramp(point.rate_seconds * NS)
                    for one in was:
                        if one in old_ramps:
                            ramp.inherit(old_ramps[one])
                self._points[key] = point
                if key in old_known and old_points.get(key) == point:
                    self._known[key] = old_known[key]

    def spend_all(self, mono_ns: int) -> None:
        """Takes every writes_per_minute as used up at this time: nobody knows what was written just before."""
        for (asset, name), times in self._writes.items():
            limit = self._points[(asset, name)].writes_per_minute or 0
            times.extend([mono_ns] * limit)
        for ramp in self._ramps.values():
            ramp.block(mono_ns)

    def note_past(
        self,
        asset: str,
        spans: Iterable[tuple[str, int, int]],
        points: Collection[str],
        items: bool,
        mono_ns: int,
        moves: Iterable[tuple[str, values.Number, values.Number]] = (),
    ) -> None:
        """A write of an earlier life, as the log tells of it: cells as (space, start, count), points that it gave a
        value, and from what to what it moved some of them. Of `items` the log has names only: all that is named and
        paced is taken as written, and all that is named and has a max_rate as moved from nobody knows where."""
        cells = tuple(spans)
        moved = {point: (held, given) for point, held, given in moves}
        for (of, name), ramp in self._ramps.items():
            if of != asset:
                continue
            at = self._points[(of, name)].at
            if name in moved:
                for value in moved[name]:
                    ramp.add(value, mono_ns)
            elif name in points or (items and not isinstance(at, Span)) or _among(at, cells):
                ramp.block(mono_ns)
        for (space_asset, _), paced in self._paced.items():
            for point in paced if space_asset == asset else ():
                at = point.at
                named = not isinstance(at, Span) and items
                if named or _among(at, cells) or point.name in points:
                    times = self._writes[(asset, point.name)]
                    times.append(mono_ns)
                    if len(times) > 1 and times[-2] > mono_ns:
                        self._writes[(asset, point.name)] = deque(sorted(times))

    def watches(self, asset: str) -> bool:
        """Whether `note_values` of this asset can have an effect: one of its points has a `max_step` or `max_rate`."""
        return any(place[0] == asset for place in self._stepped)

    def note_values(self, asset: str, space: str, start: int, cells: tuple[int, ...], mono_ns: int) -> None:
        """A good reply to a read that was sent at `mono_ns`: `cells` are what `space` holds from `start` on."""
        if (asset, space) in self._stepped:
            self._note(asset, Change(space, start, len(cells), cells), mono_ns)

    def note_items(self, asset: str, held: tuple[Assign, ...], mono_ns: int) -> None:
        """The same for items: what they hold, by a reply to a read that was sent at `mono_ns`, or by a notice or frame
        that came then."""
        for assign in held:
            if (asset, assign.space) in self._stepped:
                self._note(asset, assign, mono_ns)

    def _note(self, asset: str, held: Change | Assign, mono_ns: int) -> None:
        for point in self._stepped[(asset, held.space)]:
            value = _value_of(point, held)
            if value is not None:
                self._learn((asset, point.name), value, mono_ns)

    def note_write(self, asset: str, op: Operation, mono_ns: int) -> None:
        """The write has been allowed and is about to be sent: it counts, and what the device holds is unknown."""
        for change in op.writes:
            place = (asset, change.space)
            for point in self._paced.get(place, ()):
                if _hit(point, change) or (isinstance(point, Point) and point.mask and idle(change)):
                    times = self._writes[(asset, point.name)]
                    while times and times[0] + MINUTE <= mono_ns:
                        times.popleft()
                    times.append(mono_ns)
            for stepped in self._stepped.get(place, ()):
                if _hit(stepped, change):
                    self._moves(asset, stepped, change, mono_ns)
                    self._known[(asset, stepped.name)] = (None, mono_ns)
        # By the write itself and not by its points: a new policy may move those while it is under way.
        self._under_way[(asset, op)] = self._under_way.get((asset, op), 0) + 1

    def _moves(self, asset: str, point: Point, change: Write, mono_ns: int) -> None:
        """A write gives the point a value: that, and the one that it has, count for its max_rate."""
        ramp = self._ramps.get((asset, point.name))
        if ramp is not None:
            for value in (self.last(asset, point.name), _value_of(point, change)):
                if value is None:
                    ramp.block(mono_ns)  # not before it was judged, and never without it
                else:
                    ramp.add(value, mono_ns)

    def note_ended(self, asset: str, op: Operation, mono_ns: int) -> None:
        """A write that was noted is over: confirmed, failed, or never sent. Reads sent before `mono_ns` teach nothing;
        a time in the future says that the write may still take effect until then."""
        waiting = self._under_way.get((asset, op), 0)
        if not waiting:
            return
        if waiting > 1:
            self._under_way[(asset, op)] = waiting - 1
        else:
            del self._under_way[(asset, op)]
        for key in self._touched(asset, op):
            self._ended[key] = max(mono_ns, self._ended.get(key, mono_ns))

    def _touched(self, asset: str, op: Operation) -> list[Key]:
        """The points with a max_step or max_rate that a write touches."""
        return [
            (asset, point.name)
            for change in op.writes
            for point in self._stepped.get((asset, change.space), ())
            if _hit(point, change)
        ]

    def _in_doubt(self, key: Key) -> bool:
        """Whether a write that touches the point is under way."""
        return any(key[0] == asset and key in self._touched(asset, op) for asset, op in self._under_way)

    def in_doubt(self, asset: str, op: Operation) -> bool:
        """Whether a write is under way that touches a point with a max_step or max_rate which `op` touches as
        well."""
        if not self._under_way:
            return False
        mine = set(self._touched(asset, op))
        return any(not mine.isdisjoint(self._touched(where, other)) for where, other in self._under_way)

    def meet(self, asset: str, one: Operation, other: Operation) -> bool:
        """Whether two writes touch the same point with a max_step or max_rate."""
        return not set(self._touched(asset, one)).isdisjoint(self._touched(asset, other))

    def note_confirmed(self, asset: str, op: Operation, mono_ns: int) -> None:
        """The device has acknowledged the write that was sent at `mono_ns` (the time given to `note_write`).

        Ignored where another write was sent since, because then the order at the device decides.
        """
        for change in op.writes:
            for point in self._stepped.get((asset, change.space), ()):
                value = _value_of(point, change)
                if value is not None:
                    known = self._known.get((asset, point.name))
                    if known is None or known[1] == mono_ns:
                        self._known[(asset, point.name)] = (value, mono_ns)

    def note_sent(self, asset: str, op: Operation, mono_ns: int) -> None:
        """A frame of a stream has been sent: nobody confirms it, and the next one is a step from it."""
        for change in op.writes:
            for point in self._stepped.get((asset, change.space), ()):
                value = _value_of(point, change)
                if value is not None:
                    ramp, last = self._ramps.get((asset, point.name)), self.last(asset, point.name)
                    if ramp is not None:
                        ramp.add(value if last is None else last, mono_ns)
                        ramp.add(value, mono_ns)
                    self._known[(asset, point.name)] = (value, mono_ns)

    def last(self, asset: str, point: str) -> values.Number | None:
        """The last value that was known, however old; None where none ever was, or a write left it unknown."""
        found = self._known.get((asset, point))
        return None if found is None else found[0]

    def held(self, asset: str, op: Operation) -> tuple[tuple[Point, values.Number], ...]:
        """The points with a max_step or max_rate that a write touches, with the value that was known of each last."""
        found: list[tuple[Point, values.Number]] = []
        for change in op.writes:
            for point in self._stepped.get((asset, change.space), ()):
                value = self.last(asset, point.name)
                if value is not None and _hit(point, change):
                    found.append((point, value))
        return tuple(found)

    def known(
        self, asset: str, point: str, mono_ns: int, since_ns: int | None = None, fresh: bool = False
    ) -> values.Number | None:
        """The last known value; None where none is known, or only one that is older than `known_value_ns` and than
        `since_ns`. `fresh`: than `since_ns`, whatever may do elsewhere."""
        found = self._known.get((asset, point))
        if found is None or found[0] is None or found[1] > mono_ns:
            return None
        oldest = mono_ns if fresh else mono_ns - self.known_value_ns
        if since_ns is not None and since_ns < oldest:
            oldest = since_ns
        return found[0] if found[1] >= oldest else None

    def lately(self, asset: str, point: str, now: values.Number, mono_ns: int) -> tuple[values.Number, values.Number]:
        """The least and the greatest value that a point with a max_rate had within its time, `now` being the present
        one."""
        ramp = self._ramps.get((asset, point))
        return (now, now) if ramp is None else ramp.range(now, mono_ns)

    def unknown_ns(self, asset: str, point: str, mono_ns: int) -> int:
        """How long it is not known what values a point with a max_rate had within its time; 0 where it is known."""
        ramp = self._ramps.get((asset, point))
        return 0 if ramp is None else ramp.wait_ns(mono_ns)

    def wait_ns(self, asset: str, point: str, mono_ns: int) -> int:
        """How long until one more write is within writes_per_minute; 0 for now. The window slides over 60 s."""
        times = self._writes.get((asset, point))
        limit = self._points[(asset, point)].writes_per_minute if times is not None else None
        if times is None or limit is None or len(times) < limit:
            return 0
        # By the present limit, over all writes of the last minute: an earlier policy may have allowed more or fewer.
        return max(0, times[-limit] + MINUTE - mono_ns)

    def _by_place(self) -> dict[tuple[str, int, int, str], list[Key]]:
        """The points by what they are: address, port, unit and space."""
        found: dict[tuple[str, int, int, str], list[Key]] = {}
        for key, point in self._points.items():
            found.setdefault((*_device(self._assets[key[0]]), point.at.space), []).append(key)
        return found

    def _learn(self, key: Key, value: values.Number, mono_ns: int) -> None:
        if mono_ns < self._ended.get(key, 0) or (self._under_way and self._in_doubt(key)):
            return
        known = self._known.get(key)
        if known is None or mono_ns > known[1]:
            self._known[key] = (value, mono_ns)


def _device(asset: Asset) -> tuple[str, int, int]:
    return asset.address, asset.port, asset.unit if asset.device_unit < 0 else asset.device_unit


def _meet(one: Point | Method, other: Point | Method) -> bool:
    """Whether two points of one space of one device have something in common."""
    return one.at.start < other.at.stop and other.at.start < one.at.stop


def _hit(point: Point | Method, change: Write) -> bool:
    """Whether a write touches a point: of bits of a word, whether it changes any of them."""
    if point.at.start >= change.stop or change.start >= point.at.stop:
        return False
    if isinstance(point, Point) and point.mask and isinstance(change, Change) and not change.exact:
        return bool(~change.values[0] & point.mask)
    return True


def idle(change: Write) -> bool:
    """Whether it asks for a write of bits of a word, and for none of them."""
    return isinstance(change, Change) and not change.exact and change.values[0] & 0xFFFF == 0xFFFF


def _among(at: Span | Item, cells: Iterable[tuple[str, int, int]]) -> bool:
    """Whether cells, as (space, start, count), meet a place."""
    return any(where == at.space and at.start < first + count and first < at.stop for where, first, count in cells)


def _value_of(point: Point, held: Write) -> values.Number | None:
    """What a point is where these cells or this item hold what they say; None where they do not say it, or not all."""
    at = point.at
    if at.start < held.start or at.stop > held.stop:
        return None
    if type(held) is Change:
        if not held.exact and point.mask and not held.values[0] & point.mask:
            return values.of(point, held.values[1:])  # all its bits are changed
        if not held.exact or len(held.values) != held.count or not isinstance(at, Span):
            return None
        return values.of(point, held.values[at.start - held.start : at.stop - held.start])
    if type(held) is not Assign or held.value is None or held.value.type is not point.type:
        return None
    index = max(at.start, 0) - max(held.start, 0)
    found = held.value.values
    # A step is judged of single numbers only (policy.crosscheck).
    one = found[index] if index < len(found) else None
    return one if isinstance(one, (int, float)) else None
