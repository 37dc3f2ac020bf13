"""Rows of a COPY as columns: many at once say what they say one by one."""

import itertools
import math
import random
import struct
from array import array
from collections.abc import Sequence

import pytest

from cofferdam.brokers.mirror.blocks import BATCH_POINTS, EPOCH_NS, LATEST_NS, Block, Differs, Reading, Shape
from cofferdam.brokers.mirror.columns import BAD, GOOD, check
from cofferdam.brokers.mirror.records import BOOL, FLOAT, POINTS_MOST, TEXT, WHOLE, Samples
from cofferdam.brokers.mirror.seen import Seen, marked
from tests.brokers.mirror.between import HEAD, row

SINCE, NOW = EPOCH_NS, EPOCH_NS + 10**15
MOST, LEAST = b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7)
VALUES: dict[int, list[bytes | None]] = {
    FLOAT: [
        *(struct.pack(">d", each) for each in (1.5, -0.0, 5e-324, float("nan"), float("inf"), -float("inf"))),
        b"\x7f\xf0\0\0\0\0\0\1", None,
    ],
    WHOLE: [*(struct.pack(">q", each) for each in (0, -1, 7)), MOST, LEAST, None],
    BOOL: [b"\0", b"\1", None],
    TEXT: [b"", b"on", "\u00e4\0".encode(), b"\xff", None],
}  # fmt: skip
TIMES: list[bytes | None] = [MOST, LEAST, (9 * 10**18 // 1000).to_bytes(8, "big"), None]
NAMES: list[bytes | None] = [b"a", b"tank_1", "Öl".encode(), b"other", b"a\n", b"\xff", b"", None]


def whole(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)


def odd_and_even(kind: int, *, quality: bool, server: bool) -> list[bytes]:
    """Rows of all sorts, runs of plain ones among them, in the order of time."""
    rows = []
    for n in range(400):
        at = whole(n // 3 * 10**6)
        value, name = VALUES[kind][n % len(VALUES[kind])], NAMES[n // 7 % len(NAMES)]
        if n % 40 > 9:  # a run of those that are as most are
            value, name = VALUES[kind][n % 2], NAMES[n % 3]
        raw = whole(192 + n % 2) if quality and n % 41 else None
        own = whole(n * 10**6) if server and n % 43 else None
        own = MOST if server and n % 50 == 49 else own
        long = whole(1 << 21) if kind == TEXT and n % 31 == 0 else None
        rows.append(row(at if n % 57 else TIMES[n // 57 % len(TIMES)], value, raw, own, long, name))
    return rows


def read(
    shape: Shape, pieces: Sequence[bytes], seen: Seen | None = None, now: int = NOW
) -> tuple[list[Samples], Reading]:
    reading = Reading()
    block = Block("h", "live", shape, reading, seen, SINCE, now)
    block.take(list(pieces))
    found = []
    while block.full:
        found.append(block.some())
    return [*found, block.rest()], reading


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("quality", [False, True])
@pytest.mark.parametrize("kind", [FLOAT, WHOLE, BOOL, TEXT])
def test_many_rows_at_once_say_what_they_say_one_by_one(kind: int, quality: bool, server: bool) -> None:
    rows = odd_and_even(kind, quality=quality, server=server)
    shape = Shape(kind, ("a", "tank_*", "Öl"), quality=quality, server=server)
    apart, told = read(Shape(kind, ("a", "tank_*", "Öl"), quality=quality, server=server), [HEAD + b"".join(rows)])
    together, told_together = read(shape, [HEAD, *rows, b"\xff\xff"])
    assert together == apart
    assert together[0].count > 200
    assert (told.rows, told.latest_ns) == (told_together.rows, told_together.latest_ns)
    assert told.rows == 400
    assert set(told.faults) == set(told_together.faults) >= {"tag", "time"}
    plain = [one for one in rows if shape.plain(one)]
    assert (len(plain) > 200) == (kind != TEXT)
    assert shape.columns(plain) is not None or kind == TEXT


def test_only_a_row_that_has_all_and_nothing_else_is_plain() -> None:
    shape = Shape(WHOLE, ("*",), quality=True, server=False)
    whole_row = row(whole(1), whole(2), whole(192), None, None, b"a")
    assert shape.plain(whole_row)
    lengths = (1, 5, 17, 29, 41, 45, 49)  # of the row, its time, value, quality, server, text and tag
    for at in lengths:
        assert not shape.plain(whole_row[:at] + bytes((whole_row[at] ^ 1,)) + whole_row[at + 1 :]), at
    assert not shape.plain(whole_row[:-1])
    two, _ = read(shape, [HEAD, whole_row + row(whole(2), whole(3), whole(192), None, None, b"a"), b"\xff\xff"])
    assert [one.count for one in two] == [2]


def test_what_has_no_value_has_a_quality_that_says_so() -> None:
    shape = Shape(FLOAT, ("*",), quality=True, server=False)
    rows = [row(whole(n), value, raw, None, None, b"a") for n, (value, raw) in
            enumerate([(None, None), (None, whole(7)), (whole(0), None), (whole(0), whole(8))])]  # fmt: skip
    (found,), _ = read(shape, [HEAD, *rows])
    assert list(memoryview(found.quality).cast("q")) == [BAD, 7, GOOD, 8]
    numbers = list(memoryview(found.value).cast("d"))
    assert [math.isnan(one) for one in numbers] == [True, True, False, False]


def test_where_nothing_is_read_again_nothing_is_remembered() -> None:
    shape, seen = Shape(WHOLE, ("*",), quality=False, server=False), Seen(0)
    rows = [row(whole(at * 10**6), whole(at), None, None, None, b"a") for at in range(5)]
    assert [read(shape, [HEAD, *rows, b"\xff\xff"], seen)[0][0].count for _ in range(2)] == [5, 5]
    assert not seen.count


@pytest.mark.parametrize("seed", range(8))
def test_what_is_new_is_what_a_table_of_all_that_was_read_says(seed: int) -> None:
    """Readings that begin anywhere, in pieces that end anywhere; some samples are others each time, or there twice."""
    dice = random.Random(seed)
    seen, known = Seen(60 * dice.choice((1, 7, 60))), dict[tuple[str, int], frozenset[object]]()
    history = {(f"tag{n % 5}", n // 5 * 10**9 // 3 - 10**11): float(n) for n in range(3000)}
    for _ in range(12):
        for key in dice.sample(sorted(history), 40):
            history[key] += dice.choice((0.0, 1.0))
        history |= {(f"tag{n}", dice.randrange(-(10**11), 10**11)): 1.0 for n in range(3)}
        low = dice.randrange(-(10**11), 10**11)
        rows = sorted((at, tag, value) for (tag, at), value in history.items() if at >= low)
        rows = [row for one in rows for row in [one] * dice.choice((1, 1, 1, 2))]
        while rows:
            count = dice.randrange(1, 500)
            while count < len(rows) and rows[count - 1][0] == rows[count][0]:
                count += 1
            some, rows = rows[:count], rows[count:]
            times = array("q", [at for at, _, _ in some])
            bits = [struct.unpack("<q", struct.pack("<d", value))[0] for _, _, value in some]
            keys, marks = marked([tag for _, tag, _ in some], times, bits, array("q", [192]) * len(some))
            said: dict[tuple[str, int], set[object]] = {}
            for at, tag, value in some:
                said.setdefault((tag, at), set()).add(value)
            wanted = [known.get((tag, at), frozenset()) != frozenset(said[tag, at]) for at, tag, _ in some]
            assert seen.news(times, keys, marks).to_pylist() == wanted
            known |= {key: frozenset(values) for key, values in said.items()}
        assert len(known) <= seen.count


@pytest.mark.parametrize("quality", [-2, -1, 0, 1, 1 << 62])
def test_what_says_something_else_is_told_apart(quality: int) -> None:
    """Values and qualities that are close to each other, of all kinds; a number is no text and no value is no zero."""
    marks = {
        marked(["a"], array("q", (7,)), [value], array("q", (said,)))[1][0].as_py()
        for value in (0, 1, -1, -2, 2, 1 << 62, None, b"", b"0", b"-1")
        for said in (quality, quality + 1, quality + 2)
    }
    assert len(marks) == 30
    beside = marked(["a", "b"], array("q", (7, 7)), [-1, None], array("q", (quality, quality)))[1].to_pylist()
    alone = [marked(["a"], array("q", (7,)), [value], array("q", (quality,)))[1][0].as_py() for value in (-1, None)]
    assert beside == alone  # whatever it comes with


def test_what_was_read_before_is_not_sent_again_unless_it_is_otherwise() -> None:
    shape, seen = Shape(FLOAT, ("*",), quality=False, server=False), Seen(60)

    def sent(*values: tuple[int, float]) -> list[tuple[int, float]]:
        rows = [row(whole(at * 10**6), struct.pack(">d", value), None, None, None, b"a") for at, value in values]
        (found,), _ = read(shape, [HEAD, *rows, b"\xff\xff"], seen)
        times, numbers = memoryview(found.time).cast("q"), memoryview(found.value).cast("d")
        return [((time - EPOCH_NS) // 10**9, number) for time, number in zip(times, numbers, strict=True)]

    first = [(0, 1.0), (59, 2.0), (60, 3.0), (61, 4.0), (61, 5.0), (200, 6.0)]
    assert sent(*first) == first
    assert sent(*first) == []
    assert sent(first[0], (59, 9.0), *first[2:]) == [(59, 9.0)]
    assert sent(*first) == [(59, 2.0)]  # mended back
    assert sent(*first[:4], first[5]) == [(61, 4.0)]  # one of two is gone: what is left is said again
    assert sent((61, 5.0), (61, 4.0)) == [(61, 5.0), (61, 4.0)]
    assert sent((61, 4.0), (61, 5.0)) == []


def test_those_of_one_time_are_handed_on_together_and_it_says_up_to_when() -> None:
    shape = Shape(WHOLE, ("*",), quality=False, server=False)
    few, many = BATCH_POINTS - 1, BATCH_POINTS + 5
    counted = ((5, few), (6, 2), (7, many), (8, 1))
    rows = [row(whole(at), whole(n), None, None, None, b"t%d" % n) for at, count in counted for n in range(count)]
    reading, counts = Reading(), []
    block = Block("h", "live", shape, reading, None, SINCE, NOW)
    for at, piece in enumerate([HEAD, *rows]):
        block.take([piece])
        while block.full:
            found = block.some()
            counts.append((found.count, found.upto - EPOCH_NS))
            assert found.count <= POINTS_MOST, at
    rest = block.rest()
    assert counts == [(few, 5_999), (2, 6_999), (BATCH_POINTS, 6_999)]
    assert (rest.count, rest.upto - EPOCH_NS) == (6, 8_000)
    # What is ahead of the clock says nothing of what comes on time.
    ahead, _ = read(shape, [HEAD, *rows, b"\xff\xff"], now=EPOCH_NS + 6_500)
    assert [one.upto - EPOCH_NS for one in ahead][-1] == 6_000


def test_of_what_is_long_past_only_the_last_is_remembered() -> None:
    """History that is brought in is not read again, but for its end."""
    shape, seen = Shape(WHOLE, ("*",), quality=False, server=False), Seen(60)
    rows = [row(whole(n), whole(n), None, None, None, b"a") for n in range(BATCH_POINTS + 5)]
    seen.past_ns = NOW
    assert [one.count for one in read(shape, [HEAD, *rows], seen)[0]] == [BATCH_POINTS + 4, 1]
    seen.past_ns = SINCE  # now it is read again
    assert [one.count for one in read(shape, [HEAD, *rows], seen)[0]] == [BATCH_POINTS + 4, 0]
    assert [one.count for one in read(shape, [HEAD, *rows], seen)[0]] == [0, 0]


def test_what_no_database_sends_ends_the_reading_and_not_the_mirror() -> None:
    """The spooler ends the whole crew over a batch that none may be."""

    def refused(kind: int, *rows: bytes) -> bool:
        block = Block("h", "live", Shape(kind, ("*",), quality=True, server=True), Reading(), None, SINCE, NOW, NOW)
        try:
            block.take([HEAD, *rows])
        except Differs:
            return True
        return False

    good: list[bytes | None] = [whole(1), whole(2), whole(3), whole(4), None, b"a"]
    assert not refused(WHOLE, row(*good))
    for at, field in ((0, b"abc"), (1, b"abc"), (2, bytes(9)), (3, b""), (0, whole(-1)), (0, whole(10**15))):
        assert refused(WHOLE, row(*good[:at], field, *good[at + 1 :])), at
    assert refused(WHOLE, row(*good, None)) and refused(WHOLE, row(*good)[:-1])
    assert refused(WHOLE, row(whole(-1), None, *good[2:])) and refused(WHOLE, row(whole(10**15), None, *good[2:]))
    for field in (b"\2", b"\xff", whole(1), b""):
        assert refused(BOOL, row(good[0], field, *good[2:])), field


def test_however_many_rows_come_in_one_piece_a_batch_has_no_more_than_it_may() -> None:
    many = 3 * POINTS_MOST + 5
    for times in (range(many), [7] * many):
        rows = b"".join(row(whole(at), whole(n), None, None, None, b"a") for n, at in enumerate(times))
        found, _ = read(Shape(WHOLE, ("*",), quality=False, server=False), [HEAD + rows])
        for one in found:
            check(one)
        values = b"".join(one.value for one in found)
        assert list(memoryview(values).cast("q")) == list(range(many))
        for one, after in itertools.pairwise(found):  # nothing of what it says has been read comes later
            assert one.upto < memoryview(after.time).cast("q")[0]


def test_what_is_remembered_has_a_limit_whatever_its_times_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, seen = Shape(WHOLE, ("*",), quality=False, server=False), Seen(60)
    monkeypatch.setattr(seen, "MOST", 10)
    last = (LATEST_NS - EPOCH_NS) // 1000
    for n in range(5, 0, -1):
        read(
            shape, [HEAD, *[row(whole(last - n), None, None, None, None, b"%d-%d" % (n, at)) for at in range(9)]], seen
        )
        assert seen.count < 20
    names = [bytes((at,)) * 5000 for at in range(9)]
    told = read(shape, [HEAD, *[row(whole(1), whole(1), None, None, None, name) for name in names]])[1]
    assert told.faults["tag"][0] == 9
    assert sum(map(len, shape.known)) < 9 * 1000


def test_minus_one_is_not_minus_two() -> None:
    """`hash` says that they are the same."""
    shape, seen = Shape(WHOLE, ("*",), quality=True, server=False), Seen(60)
    for value, quality in ((-1, 0), (-2, 0), (-1, -1), (-1, -2), (-2, -2), (None, -1), (None, -2)):
        number = whole(value) if value is not None else None
        rows = [HEAD, row(whole(1), number, whole(quality), None, None, b"a")]
        assert [read(shape, rows, seen)[0][0].count for _ in range(2)] == [1, 0], (value, quality)
