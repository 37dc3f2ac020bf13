"""What an inner half remembers of points: last known values (for max_step) and recent writes (for writes_per_minute),
and of methods their recent calls.

Time comes in as monotonic nanoseconds. Memory is bounded by the policy: one value for each point with a max_step, and
as many times as its limit for each point with writes_per_minute.

The caller's duties, which keep the memory honest:
- `note_write` in the same step as the `Allow`, before anything is awaited: it counts the write, and forgets the value,
  since nobody knows what the device holds until it answers;
- `note_confirmed` when the device has acknowledged the write: the written value is then known;
- `note_ended` when the write is over, however it ended and whether or not it was sent: until then no read teaches
  anything about its points, since nobody knows which of the two the device served first;
- `note_values` for good read replies, with the time at which the *read was sent*: an answer to a read that was sent
  before a write ended says nothing about what the write left.

Not here: judging (policy.decide). Two pairs of halves that write the same point each count their own writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from cofferdam.model import Asset, Assign, Change, Method, Operation, Point, Span, Write
from cofferdam.policy.points import values

NS = 1_000_000_000
MINUTE = 60 * NS

Key = tuple[str, str]  # asset, point


class PointState:
    """Known values and recent writes of the assets' points that have a `max_step` or `writes_per_minute`."""

    __slots__ = ("_ended", "_known", "_paced", "_points", "_stepped", "_under_way", "_writes", "known_value_ns")

    def __init__(self, assets: Mapping[str, Asset], known_value_seconds: float = 5.0) -> None:
        # The value, None where a write has left it unknown; and since when it is so.
        self._known: dict[Key, tuple[values.Number | None, int]] = {}
        self._writes: dict[Key, deque[int]] = {}
        self._under_way: dict[tuple[str, Operation], int] = {}
        self._ended: dict[Key, int] = {}
        self._points: dict[Key, Point | Method] = {}
        # By asset and space: of cells, or of an item.
        self._stepped: dict[tuple[str, str], tuple[Point, ...]] = {}
        self._paced: dict[tuple[str, str], tuple[Point | Method, ...]] = {}
        self.known_value_ns = 0
        self.adopt(assets, known_value_seconds)

    def adopt(self, assets: Mapping[str, Asset], known_value_seconds: float = 5.0) -> None:
        """Take a new policy's assets. Recent writes keep counting; known values of changed points are lost."""
        old_points, old_known, old_writes = self._points, self._known, self._writes
        self._points, self._known, self._writes, self._stepped, self._paced = {}, {}, {}, {}, {}
        self.known_value_ns = int(known_value_seconds * NS)
        for asset in assets.values():
            things: tuple[Point | Method, ...] = (*asset.points, *asset.methods)
            for point in things:
                key, place = (asset.name, point.name), (asset.name, point.at.space)
                if isinstance(point, Point) and point.max_step is not None:
                    self._stepped[place] = (*self._stepped.get(place, ()), point)
                if point.writes_per_minute is not None:
                    self._paced[place] = (*self._paced.get(place, ()), point)
                    self._writes[key] = old_writes.get(key, deque())
                self._points[key] = point
                if key in old_known and old_points.get(key) == point:
                    self._known[key] = old_known[key]

    def spend_all(self, mono_ns: int) -> None:
        """Takes every writes_per_minute as used up at this time: nobody knows what was written just before."""
        for (asset, name), times in self._writes.items():
            limit = self._points[(asset, name)].writes_per_minute or 0
            times.extend([mono_ns] * limit)

    def note_past(
        self, asset: str, spans: Iterable[tuple[str, int, int]], points: Collection[str], items: bool, mono_ns: int
    ) -> None:
        """A write of an earlier life, as the log tells of it: cells as (space, start, count), points that it gave a
        value. Of `items` the log has names only: all that is named and paced is taken as written."""
        cells = tuple(spans)
        for (space_asset, space), paced in self._paced.items():
            for point in paced if space_asset == asset else ():
                at = point.at
                named = not isinstance(at, Span) and items
                touched = any(
                    where == space and at.start < first + count and first < at.stop for where, first, count in cells
                )
                if named or touched or point.name in points:
                    times = self._writes[(asset, point.name)]
                    times.append(mono_ns)
                    if len(times) > 1 and times[-2] > mono_ns:
                        self._writes[(asset, point.name)] = deque(sorted(times))

    def watches(self, asset: str) -> bool:
        """Whether `note_values` of this asset can have an effect: one of its points has a `max_step`."""
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
                if point.at.start < change.stop and change.start < point.at.stop:
                    times = self._writes[(asset, point.name)]
                    while times and times[0] + MINUTE <= mono_ns:
                        times.popleft()
                    times.append(mono_ns)
            for stepped in self._stepped.get(place, ()):
                if stepped.at.start < change.stop and change.start < stepped.at.stop:
                    self._known[(asset, stepped.name)] = (None, mono_ns)
        # By the write itself and not by its points: a new policy may move those while it is under way.
        self._under_way[(asset, op)] = self._under_way.get((asset, op), 0) + 1

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
        """The points with a max_step that a write touches."""
        return [
            (asset, point.name)
            for change in op.writes
            for point in self._stepped.get((asset, change.space), ())
            if point.at.start < change.stop and change.start < point.at.stop
        ]

    def _in_doubt(self, key: Key) -> bool:
        """Whether a write that touches the point is under way."""
        return any(key[0] == asset and key in self._touched(asset, op) for asset, op in self._under_way)

    def in_doubt(self, asset: str, op: Operation) -> bool:
        """Whether a write is under way that touches a point with a max_step which `op` touches as well."""
        if not self._under_way:
            return False
        mine = set(self._touched(asset, op))
        return any(not mine.isdisjoint(self._touched(where, other)) for where, other in self._under_way)

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
                    self._known[(asset, point.name)] = (value, mono_ns)

    def last(self, asset: str, point: str) -> values.Number | None:
        """The last value that was known, however old; None where none ever was, or a write left it unknown."""
        found = self._known.get((asset, point))
        return None if found is None else found[0]

    def known(self, asset: str, point: str, mono_ns: int) -> values.Number | None:
        """The last known value, or None where none is known or it is older than `known_value_ns`."""
        found = self._known.get((asset, point))
        if found is None or found[0] is None or not 0 <= mono_ns - found[1] <= self.known_value_ns:
            return None
        return found[0]

    def wait_ns(self, asset: str, point: str, mono_ns: int) -> int:
        """How long until one more write is within writes_per_minute; 0 for now. The window slides over 60 s."""
        times = self._writes.get((asset, point))
        limit = self._points[(asset, point)].writes_per_minute if times is not None else None
        if times is None or limit is None or len(times) < limit:
            return 0
        # By the present limit, over all writes of the last minute: an earlier policy may have allowed more or fewer.
        return max(0, times[-limit] + MINUTE - mono_ns)

    def _learn(self, key: Key, value: values.Number, mono_ns: int) -> None:
        if mono_ns < self._ended.get(key, 0) or (self._under_way and self._in_doubt(key)):
            return
        known = self._known.get(key)
        if known is None or mono_ns > known[1]:
            self._known[key] = (value, mono_ns)


def _value_of(point: Point, held: Write) -> values.Number | None:
    """What a point is where these cells or this item hold what they say; None where they do not say it, or not all."""
    at = point.at
    if at.start < held.start or at.stop > held.stop:
        return None
    if isinstance(held, Change):
        if not held.exact or len(held.values) != held.count or not isinstance(at, Span):
            return None
        cells = held.values[at.start - held.start : at.stop - held.start]
        return values.decode(point.type, point.word_order, cells)
    if not isinstance(held, Assign) or held.value is None or held.value.type is not point.type:
        return None
    index = max(at.start, 0) - max(held.start, 0)
    found = held.value.values
    # A step is judged of single numbers only (policy.crosscheck).
    one = found[index] if index < len(found) else None
    return one if isinstance(one, (int, float)) else None
