"""Rows of a PostgreSQL's COPY (FORMAT BINARY) become records, many rows in one go.

The database sends a message for each row. Most rows are alike (a tag, a time, a number, a quality), and these are taken
apart together, column by column; one that is otherwise (no value, a text, a time that has no place) is looked at by
itself, in its place among the others.

Not here: what is asked of the database (postgres), when it is read (collector).
"""

from __future__ import annotations

import datetime
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import compress, groupby
from typing import Final, Literal, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn
from psycopg.waiting import Wait

from cofferdam.brokers.mirror.columns import BAD, GOOD, NO_TIME, as_int64
from cofferdam.brokers.mirror.records import BOOL, FLOAT, POINTS_MOST, TEXT, TEXT_BYTES, Lane, Samples
from cofferdam.brokers.mirror.seen import Seen, marked
from cofferdam.policy.terms.mirror_rows import TAG_CHARACTERS, Matcher, tag_name

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
EPOCH_NS: Final = 946_684_800_000_000_000
"""PostgreSQL counts from 2000."""
NAN_BITS: Final = 0x7FF8 << 48
INFINITE: Final = ((1 << 63) - 1, -(1 << 63))
BATCH_POINTS: Final = 10_000
TEXT_MOST: Final = TEXT_BYTES - 1024
NAME_MOST: Final = 4 * TAG_CHARACTERS + 4
"""Of a tag's name, so much is asked for and remembered: a longer one is none that is taken, whatever else it has."""
ROW_BYTES: Final = 4 << 20
"""Of one row. No honest database sends more, since longer values stay there."""
PIECES: Final = 2_000
"""Rows that are taken from the connection in one go."""
PIECE_BYTES: Final = 1 << 20
KNOWN_MOST: Final = 200_000
EARLIEST_NS, LATEST_NS = -(1 << 63) + 1, (1 << 63) - 1
EARLIEST_US, LATEST_US = (EARLIEST_NS - EPOCH_NS) // 1000, -((EPOCH_NS - LATEST_NS) // 1000)
"""As PostgreSQL counts: what is between these has a place."""
TRAILER: Final = b"\xff\xff"

Value = int | bytes | None
"""The eight bytes of a number as an int64, a bool, or a text."""


class Differs(Exception):
    """The source is not as the policy has it."""


class Fault(NamedTuple):
    """A row that is not taken, and why."""

    tag: str
    fault: str
    detail: str


class Reading:
    """What one reading has come to: rows, times, and what was not taken."""

    def __init__(self) -> None:
        self.rows = 0
        self.waited = 0.0
        """Seconds for the historian."""
        self.latest_ns = NO_TIME
        self.faults: dict[str, tuple[int, Fault]] = {}

    def fault(self, found: Fault) -> None:
        """Faults of one kind are told together."""
        count, first = self.faults.get(found.fault, (0, found))
        self.faults[found.fault] = (count + 1, first)


def pieces(pgconn: PGconn) -> PQGen[tuple[list[bytes], bool]]:
    """What comes of a COPY, some rows at once, and whether that was all: psycopg by itself gives one at a time, which
    takes longer than to read it. Raises: psycopg.Error, Differs."""
    found: list[bytes] = []
    size = 0
    while len(found) < PIECES and size < PIECE_BYTES:
        count, data = pgconn.get_copy_data(1)
        if count > ROW_BYTES:
            raise Differs(f"a row of {count} bytes; at most {ROW_BYTES} are read")
        if count > 0:
            found.append(bytes(data))
            size += count
        elif count == 0:
            yield Wait.R
            pgconn.consume_input()
        else:
            yield from _ended(pgconn)
            return found, True
    return found, False


def _ended(pgconn: PGconn) -> PQGen[None]:
    """What comes behind the rows. libpq waits for a result by itself, and with it everybody else, unless it is asked
    before each whether it would."""
    while True:
        while pgconn.is_busy():
            yield Wait.R
            pgconn.consume_input()
        if (result := pgconn.get_result()) is None:
            return
        if result.status != ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result)


class Shape:
    """How the rows of a source look: time, value, quality, the historian's own time, the length of a text that stayed
    there, and the tag. `quality`, `server`: whether there are such columns; they are NULL otherwise."""

    def __init__(self, kind: int, tags: Iterable[str], *, quality: bool, server: bool) -> None:
        self.kind = kind
        lengths = [8, 1 if kind == BOOL else 8, 8 if quality else -1, 8 if server else -1, -1]
        fixed = list(enumerate(struct.pack(">h", 6)))
        self._places: list[int] = []
        """Where time, value, quality and the historian's own time are."""
        at = 2
        for length in lengths:
            fixed += enumerate(struct.pack(">i", length), at)
            at += 4
            self._places.append(at)
            at += max(0, length)
        self._name, self._size = at, at + 4
        """Where the length of the name is, and the name itself."""
        self._fixed = [(at, bytes((byte,))) for at, byte in fixed]
        """What each such row has in its other places."""
        head, mask = bytearray(self._size), bytearray(self._size)
        for at, byte in fixed:
            head[at], mask[at] = byte, 0xFF
        self._head, self._mask = int.from_bytes(head, "big"), int.from_bytes(mask, "big")
        self._quality, self._server = quality, server
        self._match = Matcher(tags)
        self.known: dict[bytes, str | None] = {}

    def columns(self, rows: Sequence[bytes]) -> Plain | None:
        """Rows of which each has everything that such a row has, and nothing else; None: not all are so."""
        count, size = len(rows), self._size
        heads = b"".join([row[:size] for row in rows])
        if self.kind == TEXT or len(heads) != count * size:
            return None
        if any(heads[at::size].count(byte) != count for at, byte in self._fixed):
            return None
        if _numbers(heads, self._name, size, "i").tolist() != [len(row) - size for row in rows]:
            return None
        time, value, quality, server, _ = self._places
        values = array("q", list(heads[value::size])) if self.kind == BOOL else _numbers(heads, value, size)
        if self.kind == BOOL and max(values) > 1:
            return None
        times = as_int64(_numbers(heads, time, size))
        ends = pc.min_max(times).as_py()
        if ends["min"] <= EARLIEST_US or ends["max"] >= LATEST_US:
            return None
        return Plain(
            [row[size:] for row in rows], _array(pc.add(pc.multiply(times, 1000), EPOCH_NS)), values,
            _numbers(heads, quality, size) if self._quality else array("q", (GOOD,)) * count,
            array("q", map(_server, _numbers(heads, server, size))) if self._server else array("q", (NO_TIME,)) * count,
            ends["min"] * 1000 + EPOCH_NS, ends["max"] * 1000 + EPOCH_NS,
        )  # fmt: skip

    def plain(self, row: bytes) -> bool:
        """Whether it is such a row."""
        head = row[: self._size]
        return (
            self.kind != TEXT
            and len(head) == self._size
            and int.from_bytes(head, "big") & self._mask == self._head
            and int.from_bytes(head[self._name :], "big") == len(row) - self._size
            and (self.kind != BOOL or head[self._places[1]] <= 1)
            and EARLIEST_US < _whole(head[self._places[0] :][:8]) < LATEST_US
        )

    def tags(self, names: Sequence[bytes], reading: Reading) -> list[str | None]:
        """Of some names, each as the mirror has it."""
        found = list(map(self.known.get, names))
        if None in found:
            by_name = {name: self.tag(name, reading) for name in set(names)}
            found = [by_name[name] for name in names]
        return found

    def tag(self, name: bytes | None, reading: Reading) -> str | None:
        """Its name, where the mirror has it."""
        if name is None:
            reading.fault(Fault("", "tag", "a sample without a tag"))
            return None
        name = name[: NAME_MOST + 1]
        if name in self.known:
            return self.known[name]
        text = text_of(name)
        found: str | None = text if self._match(text) else None
        if found is not None and not tag_name(text):  # what is no UTF-8 is no printable text either
            reading.fault(Fault(text[:200], "tag", "a tag that cannot be called so"))
            found = None
        if len(self.known) < KNOWN_MOST:
            self.known[name] = found
        return found

    def matches(self, tag: str) -> bool:
        """Whether it is one of the mirror's."""
        return tag_name(tag) and self._match(tag)


class Plain(NamedTuple):
    """Columns of rows that are alike. `first`, `last`: the least and the greatest of their times."""

    names: list[bytes]
    times: array[int]
    values: array[int]
    qualities: array[int]
    servers: array[int]
    first: int
    last: int


def _numbers(rows: bytes, at: int, size: int, kind: Literal["q", "i"] = "q") -> array[int]:
    """The numbers that rows of so many bytes have in one place, whose bytes come the greatest first."""
    found = array(kind)
    width = found.itemsize
    data = bytearray(len(rows) // size * width)
    for index in range(width):
        data[index::width] = rows[at + index :: size]
    found.frombytes(data)
    if sys.byteorder == "little":
        found.byteswap()
    return found


def _array(column: pa.Array) -> array[int]:
    found = array("q")
    found.frombytes(memoryview(column.buffers()[1])[: 8 * len(column)])
    return found


class Block:
    """Samples that have been read and not been handed on. Those of one time are handed on together, unless there are
    too many of them: what a tag has there is looked at as a whole, so that a value which was mended and mended back is
    sent again, and two rows of one time, which are always there, are not."""

    def __init__(
        self, source: str, lane: Lane, shape: Shape, reading: Reading, seen: Seen | None, since_ns: int, now_ns: int,
        until_ns: int = LATEST_NS,
    ) -> None:  # fmt: skip
        self._source, self._lane, self._shape, self._reading = source, lane, shape, reading
        self._seen = seen if seen is not None and seen.remembers else None
        self._now, self._since, self._until = now_ns, since_ns, until_ns
        self._on_time = since_ns
        """The latest time that is not ahead of the clock."""
        self._latest = NO_TIME
        self._begun = False
        self._tags: list[str] = []
        self._times = array("q")
        self._values: list[Value] = []
        self._qualities = array("q")
        self._servers = array("q")
        self._weight = 0

    def take(self, rows: list[bytes]) -> None:
        """What the database has sent, in the order of time. Raises: Differs."""
        try:
            if rows and not self._begun:
                head = rows.pop(0)
                self._odd(head[19 + struct.unpack_from(">i", head, 15)[0] :])
                self._begun = True
            if rows and rows[-1] == TRAILER:
                rows.pop()
            if not rows:
                return
            if (found := self._shape.columns(rows)) is not None:
                self._plain(found)
                return
            for plain, some in groupby(rows, self._shape.plain):
                alike = list(some)
                if plain and (found := self._shape.columns(alike)) is not None:
                    self._plain(found)
                else:
                    for row in alike:
                        self._odd(row)
        except (struct.error, LookupError, ArithmeticError, ValueError) as error:
            raise Differs(f"what it sends is no COPY of its columns ({error})") from None

    @property
    def full(self) -> bool:
        """Whether something is to be handed on."""
        return self._weight >= BATCH_POINTS

    def _plain(self, found: Plain) -> None:
        self._asked_for(found.first, found.last)
        self._reading.rows += len(found.names)
        tags = self._shape.tags(found.names, self._reading)
        _, times, values, qualities, servers, _, last = found
        if None in tags:
            ours = [tag is not None for tag in tags]
            times, values, qualities, servers = (_of(one, ours) for one in (times, values, qualities, servers))
            last = max(times, default=NO_TIME)
        self._tags += filter(None, tags)
        self._times += times
        self._values += values
        self._qualities += qualities
        self._servers += servers
        self._weight += len(times)
        if times:
            self._saw(last)

    def _odd(self, row: bytes) -> None:
        """Whatever came in one piece."""
        at = 0
        while at + 2 <= len(row) and row[at : at + 2] != TRAILER:
            if row[at : at + 2] != b"\0\6":
                raise ValueError("a row of other columns")
            fields: list[bytes | None] = []
            at += 2
            for _ in range(6):
                (length,) = _LENGTH(row, at)
                at += 4
                fields.append(None if length < 0 else row[at : at + length])
                at += max(0, length)
            if at > len(row):
                raise ValueError("a row that ends early")
            self._reading.rows += 1
            self._row(*fields)

    def _row(
        self, when: bytes | None, value: bytes | None, quality: bytes | None, server: bytes | None,
        long: bytes | None, name: bytes | None,
    ) -> None:  # fmt: skip
        reading = self._reading
        tag = self._shape.tag(name, reading)
        if tag is None or when is None:
            if when is None:
                reading.fault(Fault(tag or "?", "time", "a sample without a time"))
            return
        us = _whole(when)
        ns = us * 1000 + EPOCH_NS
        if us in INFINITE or not EARLIEST_NS < ns < LATEST_NS:
            reading.fault(Fault(tag, "time", f"a time that has no place: {us} µs from 2000"))
            return
        self._asked_for(ns, ns)
        self._saw(ns)
        found: Value = None
        if self._shape.kind == TEXT:
            if wrong := _wrong(value, long):
                reading.fault(Fault(tag, "value", f"{wrong}, at {EPOCH + datetime.timedelta(microseconds=ns // 1000)}"))
                return
            found = value
        elif value is not None:
            found = _number(value, self._shape.kind)
        self._tags.append(tag)
        self._times.append(ns)
        self._values.append(found)
        without = BAD if found is None else GOOD
        self._qualities.append(_whole(quality) if quality is not None else without)
        self._servers.append(_server(_whole(server)) if server is not None else NO_TIME)
        self._weight += _weight(found)

    def _asked_for(self, first: int, last: int) -> None:
        """Times of any year would be a sealed file for each of their days. Raises: ValueError."""
        if first < self._since // 1000 * 1000 or last > self._until:
            raise ValueError("rows of another time than was asked for")

    def _saw(self, ns: int) -> None:
        self._latest = self._reading.latest_ns = max(self._latest, ns)
        if ns <= self._now:
            self._on_time = max(self._on_time, ns)

    def some(self) -> Samples:
        """What is there, or as much of it as a batch may have, but for those of the last time, of which there may be
        more; it has been read up to there."""
        last = min(len(self._times), POINTS_MOST) - 1
        upto = self._times[last] - 1
        return self._hand_on(bisect_left(self._times, self._times[last], 0, last) or last + 1, upto)

    def rest(self) -> Samples:
        """All that is there: nothing else comes."""
        return self._hand_on(len(self._times), max(self._latest, self._since))

    def _hand_on(self, count: int, upto: int) -> Samples:
        if late := bisect_right(self._times, self._now):
            self._on_time = max(self._on_time, self._times[late - 1])
        if upto > self._now:
            upto = self._on_time
        tags, times, values = self._tags[:count], self._times[:count], self._values[:count]
        qualities, servers = self._qualities[:count], self._servers[:count]
        del self._tags[:count], self._times[:count], self._values[:count]
        del self._qualities[:count], self._servers[:count]
        self._weight = sum(map(_weight, self._values))
        if self._seen is not None and tags and not (self._times and times[-1] < self._seen.past_ns):
            news = self._seen.news(times, *marked(tags, times, values, qualities))
            if not news.true_count:
                tags, values = [], []
                times = qualities = servers = array("q")
            elif news.true_count < len(news):
                ours = news.to_pylist()
                tags, values = list(compress(tags, ours)), list(compress(values, ours))
                times, qualities, servers = (_of(one, ours) for one in (times, qualities, servers))
        places = {name: place for place, name in enumerate(dict.fromkeys(tags))}
        kinds, bits, texts = self._contents(values)
        return Samples(
            self._lane, 0, self._source, upto if self._lane == "live" else -1, tuple(places),
            array("I", map(places.__getitem__, tags)).tobytes(), times.tobytes(), kinds, bits, qualities.tobytes(),
            servers.tobytes() if servers.count(NO_TIME) != len(servers) else b"", texts,
        )  # fmt: skip

    def _contents(self, values: list[Value]) -> tuple[bytes, bytes, tuple[str, ...]]:
        """Their kinds, their eight bytes, and texts."""
        try:  # all are numbers, as nearly always
            return bytes((self._shape.kind,)) * len(values), _int64(values).tobytes(), ()
        except TypeError:
            pass
        kinds, bits, texts = bytearray(), array("q"), list[str]()
        for value in values:
            if value is None:
                kinds.append(FLOAT)
                bits.append(NAN_BITS)
            elif isinstance(value, bytes):
                kinds.append(TEXT)
                bits.append(len(texts))
                texts.append(value.decode())
            else:
                kinds.append(self._shape.kind)
                bits.append(value)
        return bytes(kinds), bits.tobytes(), tuple(texts)


def _int64(values: list[Value]) -> array[int]:
    """Raises: TypeError, where one is no number."""
    return array("q", cast(list[int], values))


def _of(column: array[int], which: Iterable[bool]) -> array[int]:
    return array("q", compress(column, which))


def _weight(value: Value) -> int:
    """A text takes the room of more samples the longer it is."""
    return 1 + len(value) // 64 if isinstance(value, bytes) else 1


def _number(field: bytes, kind: int) -> int:
    """Raises: ValueError, for what is none of its kind."""
    if kind != BOOL:
        return _whole(field)
    if field not in (b"\0", b"\1"):
        raise ValueError("a bool that is neither")
    return field[0]


def _server(us: int) -> int:
    """A historian's own time (µs since 2000) as UTC ns; one that has no place is none."""
    ns = us * 1000 + EPOCH_NS
    return ns if EARLIEST_NS < ns < LATEST_NS else NO_TIME


def _whole(field: bytes) -> int:
    """Raises: ValueError, for what does not have eight bytes."""
    if len(field) != 8:
        raise ValueError(f"{len(field)} bytes in the place of eight")
    return int.from_bytes(field, "big", signed=True)


def text_of(raw: str | bytes) -> str:
    """Of a database that does not say how its texts are encoded, they come as bytes. What is no UTF-8 is left as
    surrogates, which no tag's name may have."""
    return raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")


def _wrong(value: bytes | None, long: bytes | None) -> str:
    """Why a text is not taken; "" if it is. `long`: its length, where it is longer than any that is."""
    if long is not None or (value is not None and len(value) > TEXT_MOST):
        size = _whole(long) if long is not None else len(value or b"")
        return f"a text of {size} bytes; at most {TEXT_MOST} are taken"
    if value is None:
        return ""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"a text that is no UTF-8 from byte {error.start} on"
    return ""


_LENGTH: Final = struct.Struct(">i").unpack_from
