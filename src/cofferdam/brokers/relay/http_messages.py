"""What the bodies of the HTTP API say: messages one by one, in lines, as CloudEvents, and what a consumer says of them.

All JSON is read strictly (policy.messages), what a consumer says as well. A CloudEvent's `data` is the message; its
source and id are the message's key. Its other attributes are not carried: a channel says what crosses, and they would
be a second way.

Not here: answers (http_answers), who may (http_api).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, NamedTuple, TypeGuard, TypeVar

import msgspec
from msgspec import Meta, Struct

from cofferdam.brokers.kit.http.problems import Refusal, refusal
from cofferdam.brokers.relay.records import HANDED_MOST, ITEMS_MOST, Item, Verdict, printable
from cofferdam.policy.messages.checked import Checked, Problem
from cofferdam.policy.messages.checking import Checks, located
from cofferdam.policy.messages.json_reading import NotJson, line_and_column, read, spans

JSON: Final = "application/json"
XML: Final = ("application/xml", "text/xml")
NDJSON: Final = "application/x-ndjson"
CLOUD_EVENT: Final = "application/cloudevents+json"
CLOUD_EVENTS: Final = "application/cloudevents-batch+json"
MOST_LINES: Final = ITEMS_MOST
LINES_AT_ONCE: Final = 64
BYTES_AT_ONCE: Final = 1 << 16
"""Lines are read together up to here, before others have their turn."""
KEY_CHARACTERS: Final = 256
_UNREADABLE: Final = ("syntax", "size")

S = TypeVar("S", bound=Struct)
Number = Annotated[int, Meta(ge=1, le=(1 << 44) - 1)]


class LeaseSaid(Struct, frozen=True, forbid_unknown_fields=True):
    """`max` messages for `seconds` (0: as long as the channel lets), and how long to wait for one."""

    max: Annotated[int, Meta(ge=1, le=HANDED_MOST)] = 1
    seconds: Annotated[int, Meta(ge=0, le=31_536_000)] = 0
    wait: Annotated[float, Meta(ge=0, le=60)] = 0


class FailedSaid(Struct, frozen=True, forbid_unknown_fields=True):
    """The consumer could not work on it, why, and how long from now it does not want it again."""

    number: Number
    reason: Annotated[str, Meta(max_length=512)] = ""
    seconds: Annotated[int, Meta(ge=0, le=31_536_000)] = 0


class ExtendSaid(Struct, frozen=True, forbid_unknown_fields=True):
    """The consumer needs so many seconds more, from now."""

    number: Number
    seconds: Annotated[int, Meta(ge=1, le=31_536_000)]


class SettleSaid(Struct, frozen=True, forbid_unknown_fields=True):
    """What a consumer says of messages that it leased together."""

    lease: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,18}$")]
    done: tuple[Number, ...] = ()
    failed: tuple[FailedSaid, ...] = ()
    extend: tuple[ExtendSaid, ...] = ()


class BrowseSaid(Struct, frozen=True, forbid_unknown_fields=True):
    """Messages after this number, at most so many."""

    after: Annotated[int, Meta(ge=0, le=(1 << 44) - 1)] = 0
    max: Annotated[int, Meta(ge=1, le=HANDED_MOST)] = 100


class Outcome:
    """One message that came: what goes to the keeper (`item`), or why nothing does (`problem`). With both, the message
    can be read but fails the channel's checks. `at` is where it stands in its text; `line` is that text (None: the
    body), with `above` lines before it, and `beside` characters before it in its first one.

    A message that is one of many has a text of its own: whoever looks for a place in it reads that, and not the whole
    body once for each message."""

    __slots__ = ("above", "at", "beside", "item", "key", "line", "problem")

    def __init__(
        self,
        key: str,
        item: Item | None,
        problem: Problem | None,
        at: tuple[str | int, ...] = (),
        line: bytes | None = None,
        above: int = 0,
        beside: int = 0,
    ) -> None:
        self.key = key
        self.item = item
        self.problem = None if problem is None else _lower(problem, above, beside)
        self.at = at
        self.line = line
        self.above = above
        self.beside = beside

    def located(self, problem: Problem, body: bytes) -> Problem:
        """A problem that the keeper found, with its place in what was sent."""
        own = body if self.line is None else self.line
        return _lower(located(problem, own, self.at), self.above, self.beside)


def _lower(problem: Problem, above: int, beside: int) -> Problem:
    if not problem.line or not (above or beside):
        return problem
    column = problem.column + beside if problem.line == 1 else problem.column
    return msgspec.structs.replace(problem, line=problem.line + above, column=column)


def media_type(header: str) -> str:
    """A content type without its parameters; "" where its charset is not UTF-8."""
    kind, _, parameters = header.partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "charset" and value.strip('"').lower() not in ("utf-8", "utf8"):
            return ""
    return kind.strip().lower()


def said(kind: type[S], given: bytes | Mapping[str, str]) -> S:
    """What a body (or a query) says. Raises: Refusal with the place."""
    try:
        if isinstance(given, bytes):
            return msgspec.convert(read(given)[0] if given else {}, kind)
        return msgspec.convert(given, kind, strict=False)
    except NotJson as error:
        line, column = line_and_column(given.decode("utf-8", "replace") if isinstance(given, bytes) else "", error.at)
        raise Refusal(Problem("request", error.words[:500]), pointer=error.pointer, line=line, column=column) from None
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `")
        pointer = place.rstrip("`").removeprefix("$").replace(".", "/").replace("[", "/").replace("]", "")
        raise Refusal(Problem("request", words[:500]), pointer=pointer) from None


def verdicts(wanted: SettleSaid) -> tuple[Verdict, ...]:
    """A settling as records have it: done, failed, extended, in this order. Raises: Refusal."""
    found = (
        *(Verdict(number, "done") for number in wanted.done),
        *(Verdict(each.number, "failed", each.reason, each.seconds) for each in wanted.failed),
        *(Verdict(each.number, "extend", "", each.seconds) for each in wanted.extend),
    )
    if len(found) > ITEMS_MOST:
        raise refusal("size", f"{len(found)} messages; at most {ITEMS_MOST} are settled at once")
    if len({verdict.number for verdict in found}) < len(found):
        raise refusal("request", "a message twice in one settling")
    return found


# --- messages ---------------------------------------------------------------------------------------------------


def single(checks: Checks, channel: str, key: str, body: bytes) -> Outcome:
    """One message that is a body."""
    found = checks(channel, body)
    if isinstance(found, Checked):
        return Outcome(key, Item(key, found.body), None)
    if found.fault not in _UNREADABLE:
        readable = checks.readable(channel, body)
        if isinstance(readable, bytes):
            return Outcome(key, Item(key, readable, doubtful=True), found)
        found = readable
    return Outcome(key, None, found)


class _Text(NamedTuple):
    """The text in which a message stands. `many`: it is one of many in a body, with lines and characters before it."""

    text: str
    many: bool = False
    above: int = 0
    beside: int = 0


def _within(checks: Checks, channel: str, key: str, value: Any, where: _Text, at: tuple[str | int, ...]) -> Outcome:
    """One message that is a part of a text that was read."""
    found = checks.judge(channel, value, where.text, at)
    own = where.text.encode() if where.many else None
    place = (at, own, where.above, where.beside)
    if isinstance(found, Checked):
        return Outcome(key, Item(key, found.body), None, *place)
    again: Any = read(where.text.encode())[0]
    for step in at:
        again = again[step]
    before = checks.readable_value(channel, again)
    if isinstance(before, Problem):
        return Outcome(key, None, before, *place)
    return Outcome(key, Item(key, before, doubtful=True), found, *place)


def line_outcomes(checks: Checks, channel: str, body: bytes) -> Iterator[list[Outcome]]:
    """Messages in lines: {"id": ..., "data": ...} each, some after the other. Raises: Refusal, for all of them."""
    rows = body.split(b"\n")
    if rows and not rows[-1].strip():
        rows.pop()
    if not 1 <= len(rows) <= MOST_LINES:
        raise refusal("size", f"{len(rows)} lines; 1 to {MOST_LINES} are taken")
    return _lines(checks, channel, rows)


def _lines(checks: Checks, channel: str, rows: list[bytes]) -> Iterator[list[Outcome]]:
    first = 0
    while first < len(rows):
        last, size, end = first + 1, len(rows[first]), min(len(rows), first + LINES_AT_ONCE)
        while last < end and (size := size + len(rows[last])) <= BYTES_AT_ONCE:
            last += 1
        some = rows[first:last]
        found = checks.lines(channel, some) if len(rows[first]) <= BYTES_AT_ONCE else None
        outcomes: list[Outcome] = []
        for above, row in enumerate(some, first):
            line, checked = found[above - first] if found is not None else ({}, None)
            key = line.get("id")
            if checked is not None and len(line) == 2 and is_key(key):
                outcomes.append(Outcome(key, Item(key, checked.body), None, ("data",), row, above))
                continue
            yield outcomes
            yield [_line(checks, channel, row, above)]  # takes longer: others may have their turn
            outcomes = []
        yield outcomes
        first = last


def _line(checks: Checks, channel: str, row: bytes, above: int) -> Outcome:
    try:
        value, text = read(row)
    except NotJson as error:
        _, column = line_and_column(row.decode("utf-8", "replace"), error.at)
        return Outcome("", None, Problem("syntax", error.words[:500], error.pointer, 1, column), above=above)
    key = value.get("id") if isinstance(value, dict) else None
    if not isinstance(value, dict) or value.keys() != {"id", "data"} or not is_key(key):
        words = 'a line has {"id": ..., "data": ...} and nothing else; an id is a text of 1 to 200 printable characters'
        named = str(key) if is_key(key) else ""
        return Outcome(named, None, Problem("syntax", words, "", 1, 1), above=above)
    return _within(checks, channel, str(key), value["data"], _Text(text, True, above), ("data",))


def is_key(key: object) -> TypeGuard[str]:
    """Whether it can be a producer's key for a message."""
    return isinstance(key, str) and 1 <= len(key) <= 200 and printable(key)


def _event_key(source: object, key: object) -> str | Problem:
    """CloudEvents say that source and id together are unique. No source has a space, so that the two cannot be taken
    for another two."""
    if not is_key(source) or not is_key(key) or " " in str(source) or len(f"{source} {key}") > KEY_CHARACTERS:
        words = f"an event has a source and an id of printable characters, at most {KEY_CHARACTERS} in all"
        return Problem("syntax", words)
    return f"{source} {key}"


def _event(checks: Checks, channel: str, event: Any, where: _Text) -> Outcome:
    if not isinstance(event, dict) or event.get("specversion") != "1.0" or not is_key(event.get("type")):
        return Outcome("", None, Problem("syntax", "no CloudEvent of specversion 1.0 with a type"))
    key = _event_key(event.get("source"), event.get("id"))
    if isinstance(key, Problem):
        return Outcome("", None, key)
    kind = media_type(str(event.get("datacontenttype", JSON)))
    if kind not in (JSON, *XML) or "data" not in event or "data_base64" in event:
        return Outcome(key, None, Problem("syntax", f"an event has its data as {JSON}, or XML as a text"))
    return _within(checks, channel, key, event["data"], where, ("data",))


def event_outcome(checks: Checks, channel: str, body: bytes) -> Outcome:
    """One event in structured mode. Raises: Refusal."""
    value, text = _read(body)
    return _event(checks, channel, value, _Text(text))


def event_values(checks: Checks, channel: str, body: bytes) -> Iterator[list[Outcome]]:
    """A batch of events, one after the other. Raises: Refusal, for all of them."""
    value, text = _read(body)
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_LINES:
        raise refusal("request", f"a batch is an array of 1 to {MOST_LINES} events")
    texts = _texts(text, checks.places(channel))
    return ([_event(checks, channel, event, where)] for event, where in zip(value, texts, strict=True))


def _texts(text: str, places: bool) -> Iterator[_Text]:
    """Each event's own text. `places`: what is found in it is told by its place in the whole."""
    above = beside = last = 0
    for start, end in spans(text):
        if lines := text.count("\n", last, start):
            above, beside = above + lines, start - text.rfind("\n", last, start) - 1
        else:
            beside += start - last
        last = start
        yield _Text(text[start:end], True, above, beside) if places else _Text(text[start:end], True)


def binary_event(checks: Checks, channel: str, headers: Mapping[str, str], body: bytes) -> Outcome:
    """One event in binary mode: attributes are header fields. Raises: Refusal."""
    if headers.get("ce-specversion") != "1.0" or not is_key(headers.get("ce-type")):
        raise refusal("request", "no CloudEvent of specversion 1.0 with a type")
    key = _event_key(headers.get("ce-source"), headers.get("ce-id"))
    if isinstance(key, Problem):
        raise refusal("request", key.detail)
    return single(checks, channel, key, body)


def _read(body: bytes) -> tuple[Any, str]:
    try:
        return read(body)
    except NotJson as error:
        line, column = line_and_column(body.decode("utf-8", "replace"), error.at)
        raise Refusal(Problem("syntax", error.words[:500], error.pointer, line, column)) from None
