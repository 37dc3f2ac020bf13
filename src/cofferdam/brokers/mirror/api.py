"""The HTTP API of the mirror's reader.

    GET  /v1/tags                 which tags there are: pattern, search, after, limit
    GET  /v1/samples              tag= or tags=A,B; from, to, last; limit; revisions=all; after=COMMIT for what is new
    GET  /v1/aggregates           the same, with every= (1s to 1month), zone=, functions=avg,max,...
    GET  /v1/at                   the value at a time: previous, or how=linear
    GET  /v1/gaps                 what is known to be missing
    GET  /v1/stream               server-sent events of what is committed; Last-Event-ID resumes
    POST /v1/sql                  SQL, for those who may read everything
    GET  /v1, /v1/openapi.json, /health

A tag that one may not read does not exist. Where a rule has a resolution there are aggregates of that step or a longer
one, of steps that are over and begin at its multiples, and nothing else: with steps that begin anywhere, or go on, the
first of one would be whatever sample one likes. Each answer is of one generation; `ETag` names it.

Not here: files (query), forms (forms), SQL (sql), doors and keys (kit.http).
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
import re
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any, Final, TypeVar

import msgspec
import pyarrow as pa

from cofferdam.brokers.kit.http import api
from cofferdam.brokers.kit.http.api import Note, method, path_of, query_of
from cofferdam.brokers.kit.http.connection import Request
from cofferdam.brokers.kit.http.keys import Known
from cofferdam.brokers.kit.http.messages import Answer, Gone
from cofferdam.brokers.kit.http.problems import Problems, Refusal, answer, refusal, time_of
from cofferdam.brokers.kit.threads import Busy, Threads
from cofferdam.brokers.mirror import forms, sql
from cofferdam.brokers.mirror.aggregates import FUNCTIONS, aggregate, joined
from cofferdam.brokers.mirror.catalogue import ANY_SOURCE
from cofferdam.brokers.mirror.query import Deadline, Reading, TooMuch, View
from cofferdam.errors import StoreError
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.terms.mirror_rows import About, Matcher, MirrorRows, ReadRule, Rights, rights_of

ROWS_MOST: Final = 1_000_000
"""Of one answer."""
ROWS_USUAL: Final = 100_000
TAGS_MOST: Final = 1_000
"""Tags of one query."""
TAGS_PAGE: Final = 10_000
QUERY_SECONDS: Final = 60.0
QUERIES_EACH: Final = 4
"""Queries of one principal at a time."""
RUN_EACH: Final = 2
"""Of these, so many are reckoned at a time: fewer than there are threads."""
STATEMENTS_MOST: Final = 2
"""Of SQL at a time, whosever they are: they share the database's memory."""
STEP_MOST: Final = 31 * 86_400
"""Seconds of the longest step of a fixed length: a resolution beyond it is one of months, which begin where they do."""
PATTERNS_MOST: Final = 100
"""Patterns of one query."""
STREAMS_EACH: Final = 4
STREAMS_MOST: Final = 100
STREAM_SECONDS: Final = 0.25
BEAT_SECONDS: Final = 15.0
STREAM_ROWS: Final = 10_000
SQL_BYTES: Final = 64 << 10
ZIP_WINDOW: Final = 31
"""What zlib calls gzip."""
PROBLEMS: Final = Problems("urn:cofferdam:mirror:", {"limit": "Too much"}, {"limit": 413})
_OPENAPI: Final = files("cofferdam.brokers.mirror").joinpath("openapi.json").read_bytes()
_WORDS: Final = {
    "samples": {"tag", "tags", "from", "to", "last", "zone", "limit", "format", "revisions", "after"},
    "aggregates": {"tag", "tags", "from", "to", "last", "zone", "every", "functions", "format"},
    "at": {"tag", "tags", "time", "zone", "how", "format"},
    "tags": {"pattern", "search", "after", "limit", "format"},
    "gaps": {"from", "to", "last", "zone", "format"},
    "stream": {"tag", "tags", "after"},
}
_RECKONING: Final = (ArithmeticError, ValueError, LookupError, TypeError, MemoryError, pa.ArrowException)
"""Of an answer that is reckoned from files nobody here writes: nothing is left behind by it."""
_FIXED: Final = re.compile(r"\d{4}-|-?\d{10,}\Z")
"""A time that is not so long ago: a day, or ns since 1970."""
NOTHING: Final = About()
T = TypeVar("T")
Count = Callable[[str, str, str, int, int, tuple[str, ...], int], None]
"""(principal, key, what, rows, bytes, tags, ns): an answer, for figures and the audit log."""


class Api(api.Api):
    """The application."""

    problems = PROBLEMS

    def __init__(
        self, reading: Reading, threads: Threads, note: Note, count: Count, wall: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(note, wall)
        self.reading = reading
        self.row = MirrorRows()
        self.open = True
        self.streams = 0
        self.stopping = False
        self._threads = threads
        self._count = count
        self._under_way: dict[str, int] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._streams: dict[str, int] = {}
        self._sql = sql.Sql(reading)
        self._statements = asyncio.Semaphore(STATEMENTS_MOST)

    def stuck(self) -> str:
        """Whose statement cannot be ended; "": nobody's."""
        return self._sql.stuck()

    async def respond(self, request: Request) -> Answer:
        path = path_of(request)
        if path == ("health",):
            return Answer(204)
        known = await self.who(request)
        if not self.open:
            raise refusal("window", "the conduit is not open at this time", retry=60)
        match path:
            case ("v1",):
                method(request, "GET")
                return answer({"principal": known.principal, "key": known.key, "sql": self._rights(known).sql})
            case ("v1", "openapi.json"):
                method(request, "GET")
                return Answer(200, _OPENAPI)
            case ("v1", "sql"):
                method(request, "POST")
                return await self._limited(request, known, "sql", {}, self._ask_sql)
            case ("v1", "stream"):
                method(request, "GET")
                return self._stream(request, known, self._words(request, "stream"))
            case ("v1", "tags" | "samples" | "aggregates" | "at" | "gaps" as what):
                method(request, "GET")
                work = {"tags": self._tags, "samples": self._samples, "aggregates": self._aggregates, "at": self._at,
                        "gaps": self._gaps}[what]  # fmt: skip
                return await self._limited(request, known, what, self._words(request, what), work)
        raise refusal("not-found", "no such path")

    def _words(self, request: Request, what: str) -> dict[str, str]:
        found = query_of(request)
        if unknown := sorted(found.keys() - _WORDS[what]):
            raise refusal(
                "request", f"{', '.join(unknown)[:200]}: the words here are {', '.join(sorted(_WORDS[what]))}"
            )
        return found

    def _rights(self, known: Known) -> Rights:
        rights = rights_of([self.row], known.principal)
        if (known.verbs and "sql" not in known.verbs) or (known.scopes and not Matcher(known.scopes).all):
            rights.sql = False  # a key for some tags: SQL is for those who may read everything
        return rights

    def _rule(self, known: Known, rights: Rights, tag: str) -> ReadRule | None:
        if known.scopes and not Matcher(known.scopes)(tag):
            return None
        return rights.rule(tag)

    async def _limited(
        self, request: Request, known: Known, what: str, said: dict[str, str],
        work: Callable[[Request, Known, dict[str, str]], Any],
    ) -> Answer:  # fmt: skip
        """One query, within what its principal may have at a time."""
        who = known.principal
        if self._under_way.get(who, 0) >= QUERIES_EACH:
            raise self._limit(request, known, what, f"{QUERIES_EACH} queries of {who} are under way", retry=1)
        self._under_way[who] = self._under_way.get(who, 0) + 1
        began = time.monotonic_ns()
        try:
            found, rows, tags = await work(request, known, said)
        except TooMuch as error:
            raise self._limit(request, known, what, str(error)) from None
        except Busy:
            raise self._limit(request, known, what, "too many queries wait", retry=2) from None
        except StoreError as error:
            raise Refusal(Problem("store", str(error)[:500]), retry=30) from None
        except _RECKONING as error:
            raise self._unanswered(request, known, what, error) from None
        finally:
            self._under_way[who] -= 1
            if not self._under_way[who]:
                del self._under_way[who]
        made: Answer = found
        size = len(made.body) if isinstance(made.body, bytes) else 0
        self._count(who, known.key, what, rows, size, tuple(tags)[:8], time.monotonic_ns() - began)
        return made

    def _unanswered(self, request: Request, known: Known, what: str, error: Exception) -> Refusal:
        """A query that reckoning stumbles over, such as at the borders of what a number can be, ends nothing else."""
        problem = Problem("request", f"this cannot be reckoned ({type(error).__name__})")
        self.tell(request, known, what, "read", problem)
        return Refusal(problem)

    def _limit(self, request: Request, known: Known, what: str, words: str, retry: int = 0) -> Refusal:
        problem = Problem("limit" if not retry else "busy", words[:500])
        self.tell(request, known, what, "read", problem)
        return Refusal(problem, retry=retry)

    # --- what is asked

    def _span(self, said: dict[str, str]) -> tuple[int, int]:
        now, zone = self._wall(), said.get("zone", "")
        forms.known_zone(zone)
        if "last" in said:
            if "from" in said:
                raise refusal("request", "from, or last, not both")
            until = forms.moment(said["to"], now, zone) if "to" in said else now + 1
            since = until - forms.span_ns(said["last"])
        else:
            if "from" not in said:
                raise refusal("request", "from= (a time), or last= (such as 24h), is needed")
            since = forms.moment(said["from"], now, zone)
            until = forms.moment(said["to"], now, zone) if "to" in said else now + 1
        if until <= since:
            raise refusal("request", "a time that ends before it begins")
        return since, until

    def _asked(self, known: Known, said: dict[str, str], view: View, edges: Sequence[int] = ()) -> list[str]:
        """The tags that are asked for, as this principal may read them. `edges`: of the steps of aggregates; none:
        samples. Raises: Refusal."""
        if ("tag" in said) == ("tags" in said):
            raise refusal("request", "tag=NAME, or tags=NAME,NAME,... (patterns with * as well)")
        rights = self._rights(known)
        if sum("*" in one for one in said.get("tags", "").split(",")) > PATTERNS_MOST:
            raise TooMuch(f"more than {PATTERNS_MOST} patterns")
        names = [said["tag"]] if "tag" in said else [one for one in said["tags"].split(",") if one]
        found: dict[str, None] = {}
        for name in names:
            if "*" in name:
                match = Matcher([name])
                some = [tag for tag in view.tags() if match(tag) and self._rule(known, rights, tag) is not None]
            else:
                some = [name] if name in view.tags() else []
            allowed = [tag for tag in some if self._rule(known, rights, tag) is not None]
            if not allowed:
                raise refusal("not-found", f"there is no tag {name[:200]!r} for you")
            found.update(dict.fromkeys(sorted(allowed)))
        if len(found) > TAGS_MOST:
            raise TooMuch(f"{len(found)} tags; at most {TAGS_MOST} are answered at once")
        step = min((b - a for a, b in itertools.pairwise(edges)), default=0) // 10**9
        grid = math.gcd(*edges)
        for tag in found:
            finest = self._resolution(known, rights, tag)
            if finest > step or (finest and finest <= STEP_MOST and grid % (finest * 10**9)):
                raise refusal(
                    "policy",
                    f"of {tag[:200]} there are aggregates of {finest} s and longer for you, which begin at whole"
                    f" multiples of it since 1970 (every={finest}s does), and no more",
                )
        return list(found)

    def _resolution(self, known: Known, rights: Rights, tag: str) -> int:
        """Of how many seconds the finest aggregates are that one may have of a tag; 0: samples."""
        rule = self._rule(known, rights, tag)
        return rule.resolution if rule is not None else 0

    def _limit_of(self, said: dict[str, str], usual: int, most: int) -> int:
        text = said.get("limit", str(usual))
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
            raise refusal("request", f"limit is a whole number from 1 to {most}")
        return int(text)

    async def _view(self, known: Known) -> View:
        return await self._run(known.principal, self.reading.view)

    async def _run(self, who: str, work: Callable[[], T]) -> T:
        """Does it in a thread; a thread is left for others, however much one asks for."""
        turn = self._turns.setdefault(who, asyncio.Semaphore(RUN_EACH))
        async with turn:
            return await self._threads.run(work)

    # --- answers

    async def _tags(self, request: Request, known: Known, said: dict[str, str]) -> tuple[Answer, int, list[str]]:
        view = await self._view(known)
        rights, after = self._rights(known), said.get("after", "")
        limit = self._limit_of(said, 1_000, TAGS_PAGE)
        match, words = Matcher([said.get("pattern", "*")]), said.get("search", "").casefold().split()
        about = self.row.about

        def work() -> list[dict[str, Any]]:
            found = []
            for name, tag in sorted(view.tags().items()):
                if name > after and match(name) and (rule := self._rule(known, rights, name)) is not None:
                    told = about.get(name, NOTHING)
                    if words and not all(word in f"{name} {told.description}".casefold() for word in words):
                        continue
                    one = {"tag": name, "source": tag.source, "type": ("float", "int", "bool", "text")[tag.kind],
                           "unit": told.unit, "description": told.description,
                           "first": time_of(tag.first), "last": time_of(tag.last)}  # fmt: skip
                    if rule.resolution:
                        one["resolution"] = f"{rule.resolution}s"
                    found.append(one)
                    if len(found) >= limit:
                        break
            return found

        rows = await self._run(known.principal, work)
        more = {"after": rows[-1]["tag"]} if len(rows) >= limit else {}
        form = forms.form_of(said.get("format", ""), request.headers.get("accept", ""))
        names = ("tag", "source", "type", "unit", "description", "first", "last", "resolution")
        return self._rows(request, known, view, form, more, "tags", names, iter(rows)), len(rows), []

    async def _samples(self, request: Request, known: Known, said: dict[str, str]) -> tuple[Answer, int, list[str]]:
        view = await self._view(known)
        if (same := self._unchanged(request, view, said)) is not None:
            return same, 0, []
        tags = await self._run(known.principal, lambda: self._asked(known, said, view))
        limit = self._limit_of(said, ROWS_USUAL, ROWS_MOST)
        revisions = said.get("revisions", "last")
        if revisions not in ("last", "all"):
            raise refusal("request", "revisions is last or all")
        deadline = Deadline(QUERY_SECONDS)
        head: dict[str, Any] = {"commit": view.commit}
        if "after" in said:
            if not said["after"].isascii() or not said["after"].isdigit() or len(said["after"]) > 18:
                raise refusal("request", "after is a commit's number")
            after = int(said["after"])
            if after > view.commit:
                raise refusal("request", _unknown(after, view))
            table, head["commit"] = await self._run(known.principal, lambda: view.changes(tags, after, deadline, limit))
            head["more"] = head["commit"] < view.commit
        else:
            since, until = self._span(said)
            every = revisions == "all"
            table = await self._run(
                known.principal, lambda: view.samples(tags, since, until, deadline, most=limit, revisions=every)
            )
        form = forms.form_of(said.get("format", ""), request.headers.get("accept", ""))
        rows = table.num_rows
        if form in ("parquet", "arrow"):
            make = forms.parquet_of if form == "parquet" else forms.arrow_of
            data = await self._run(known.principal, lambda: make(forms.in_utc(table)))
            return self._answer(request, view, data, form, head), rows, tags
        with_commit = revisions == "all" or "after" in said
        names = ("tag", "time", "value", "quality", "server", *(("commit",) if with_commit else ()))
        found = forms.rows_of(table, revisions=with_commit)
        return self._rows(request, known, view, form, head, "samples", names, found), rows, tags

    async def _aggregates(self, request: Request, known: Known, said: dict[str, str]) -> tuple[Answer, int, list[str]]:
        view = await self._view(known)
        since, until = self._span(said)
        every = said.get("every", "1min")
        edges = forms.edges_of(every, since, until, said.get("zone", ""))
        # What holds until now, and which steps are over, is another answer a moment later.
        if edges[-1] <= self._wall() and (same := self._unchanged(request, view, said)) is not None:
            return same, 0, []
        functions = [one for one in said.get("functions", "avg,min,max,count").split(",") if one]
        if unknown := [one for one in functions if one not in FUNCTIONS]:
            raise refusal("request", f"{', '.join(unknown)[:100]}: the functions are {', '.join(FUNCTIONS)}")
        if len(set(functions)) != len(functions):
            raise refusal("request", "a function twice")
        tags = await self._run(known.principal, lambda: self._asked(known, said, view, edges))
        if len(tags) * (len(edges) - 1) > ROWS_MOST:
            raise TooMuch(f"more than {ROWS_MOST} rows: ask for less time, fewer tags or a longer step")
        deadline, now, rights = Deadline(QUERY_SECONDS), self._wall(), self._rights(known)
        # A step that goes on, asked for again and again, shows each sample as it comes.
        over = edges[: bisect.bisect_right(edges, now)]

        def work() -> list[pa.Table]:
            found: list[pa.Table] = []
            for tag in tags:
                some = over if self._resolution(known, rights, tag) else edges
                if len(some) > 1:
                    found += aggregate(view, [tag], some, functions, deadline, 4 * ROWS_MOST, now)
            return found

        tables = await self._run(known.principal, work)
        count = sum(table.num_rows for table in tables)
        form = forms.form_of(said.get("format", ""), request.headers.get("accept", ""))
        if form in ("parquet", "arrow"):
            make = forms.parquet_of if form == "parquet" else forms.arrow_of
            data = await self._run(known.principal, lambda: make(forms.in_utc(joined(tables, functions))))
            return self._answer(request, view, data, form, {}), count, tags
        rows = itertools.chain.from_iterable(map(forms.aggregates_of, tables))
        names = ("tag", "time", *functions)
        made = self._rows(request, known, view, form, {"every": every}, "aggregates", names, rows)
        return made, count, tags

    async def _at(self, request: Request, known: Known, said: dict[str, str]) -> tuple[Answer, int, list[str]]:
        view = await self._view(known)
        how = said.get("how", "previous")
        if how not in ("previous", "linear"):
            raise refusal("request", "how is previous or linear")
        at = forms.moment(said.get("time", "now"), self._wall(), said.get("zone", ""))
        tags = await self._run(known.principal, lambda: self._asked(known, said, view))
        deadline = Deadline(QUERY_SECONDS)

        def work() -> list[dict[str, Any]]:
            return [_value_at(view, tag, at, how, deadline) for tag in tags]

        rows = await self._run(known.principal, work)
        form = forms.form_of(said.get("format", ""), request.headers.get("accept", ""))
        names = ("tag", "time", "value", "quality", "of")
        return self._rows(request, known, view, form, {}, "values", names, iter(rows)), len(rows), tags

    async def _gaps(self, request: Request, known: Known, said: dict[str, str]) -> tuple[Answer, int, list[str]]:
        view = await self._view(known)
        since, until = self._span(said) if "from" in said or "last" in said else (-(1 << 63), 1 << 63)
        rights = self._rights(known)
        everything = rights.all and (not known.scopes or Matcher(known.scopes).all)

        def work() -> list[dict[str, Any]]:
            own = {tag.source for name, tag in view.tags().items() if self._rule(known, rights, name) is not None}
            found = []
            for one in view.catalogue.losses:
                here = one.known and one.since < until and one.until >= since
                if here and (everything or one.source in own or (one.source == ANY_SOURCE and own)):
                    # How much of what one may not read was lost as well is nobody's business.
                    points = one.points if everything or one.source in own else None
                    found.append({"source": one.source, "from": time_of(one.since), "to": time_of(one.until),
                                  "points": points, "why": one.why})  # fmt: skip
            return found

        rows = await self._run(known.principal, work)
        form = forms.form_of(said.get("format", ""), request.headers.get("accept", ""))
        names = ("source", "from", "to", "points", "why")
        return self._rows(request, known, view, form, {}, "gaps", names, iter(rows)), len(rows), []

    async def _ask_sql(self, request: Request, known: Known, said: dict[str, str]) -> tuple[Answer, int, list[str]]:
        if not self._rights(known).sql:
            self.tell(request, known, "sql", "sql", Problem("policy", "no rule allows it"))
            raise refusal("not-found", "no such path for you")
        body = await request.body(SQL_BYTES, known.principal)
        if body is None:
            raise refusal("size", f"SQL of more than {SQL_BYTES} bytes")
        asked = sql.asked(body, request.headers.get("content-type", ""))
        form = forms.form_of(asked.format, request.headers.get("accept", ""))
        try:
            view, table = await self._statement(known, asked)
        except sql.Refused as error:
            self.tell(request, known, "sql", "sql", Problem("request", str(error)[:500]))
            raise refusal("request", str(error)[:500]) from None
        if form in ("parquet", "arrow"):
            make = forms.parquet_of if form == "parquet" else forms.arrow_of
            data = await self._run(known.principal, lambda: make(table))
            return self._answer(request, view, data, form, {}), table.num_rows, []
        rows = await self._run(known.principal, lambda: sql.plain(table))
        return self._rows(request, known, view, form, {}, "rows", table.schema.names, iter(rows)), table.num_rows, []

    async def _statement(self, known: Known, asked: sql.Asked) -> tuple[View, pa.Table]:
        async with self._statements:
            view, who = await self._view(known), known.principal
            return view, await self._run(who, lambda: self._sql.run(who, view, asked.sql, asked.limit))

    # --- forms

    def _unchanged(self, request: Request, view: View, said: dict[str, str]) -> Answer | None:
        """That an answer is as it was; never of one that depends on the time at which it is asked for."""
        fixed = "after" in said or all(_FIXED.match(said.get(word, "now")) for word in ("from", "to"))
        mark = self._mark(request, view)
        if fixed and request.headers.get("if-none-match", "") == mark:
            return Answer(304, headers={"etag": mark})
        return None

    def _mark(self, request: Request, view: View) -> str:
        """An ETag: of a generation, of what is asked for in which form, under these rules."""
        some = [request.headers.get(name, "") for name in ("accept", "accept-encoding")]
        return f'"{view.mark}-{zlib.crc32(repr((request.target, some, self.row.rules)).encode()):08x}"'

    def _headers(self, request: Request, view: View) -> dict[str, str]:
        return {"etag": self._mark(request, view), "cache-control": "private, no-cache"}

    def _rows(
        self, request: Request, known: Known, view: View, form: str, head: dict[str, Any], name: str, names: Any,
        rows: Iterator[dict[str, Any]],
    ) -> Answer:  # fmt: skip
        if form == "csv":
            pieces = forms.csv_pieces(names, rows)
        elif form == "ndjson":
            pieces = forms.line_pieces(rows)
        else:
            form, pieces = "json", forms.json_pieces(head, name, rows)
        headers = self._headers(request, view)
        if form != "json":
            headers |= {f"x-mirror-{key}": str(value) for key, value in head.items()}
        zipped = forms.takes_gzip(request.headers.get("accept-encoding", ""))
        if zipped:
            headers["content-encoding"] = "gzip"
        return Answer(200, self._pieces(known, pieces, zipped), forms.KINDS[form], headers)

    async def _pieces(self, known: Known, pieces: Iterator[bytes], zipped: bool) -> AsyncIterator[bytes]:
        """Pieces, made in a thread as the client takes them. Zipped, they are one member: many clients take what
        follows on a first one for nothing, and the answer for whole."""
        squeeze = zlib.compressobj(1, zlib.DEFLATED, ZIP_WINDOW) if zipped else None

        def work() -> bytes | None:
            piece = next(pieces, None)
            if piece is None or squeeze is None:
                return piece
            return squeeze.compress(piece) + squeeze.flush(zlib.Z_SYNC_FLUSH)

        while True:
            piece = await self._patient(known, work)
            if piece is None:
                break
            if piece:
                yield piece
        if squeeze is not None:
            yield squeeze.flush()

    async def _patient(self, known: Known, work: Callable[[], bytes | None]) -> bytes | None:
        while True:
            try:
                return await self._run(known.principal, work)
            except Busy:
                await asyncio.sleep(0.05)
            except _RECKONING:
                raise Gone from None  # the answer has begun: it ends short, and the client sees that

    def _answer(self, request: Request, view: View, data: bytes, form: str, head: dict[str, Any]) -> Answer:
        headers = self._headers(request, view) | {f"x-mirror-{key}": str(value) for key, value in head.items()}
        return Answer(200, data, forms.KINDS[form], headers)

    # --- what is committed, as it is

    def _stream(self, request: Request, known: Known, said: dict[str, str]) -> Answer:
        who = known.principal
        if self._streams.get(who, 0) >= STREAMS_EACH or self.streams >= STREAMS_MOST:
            raise self._limit(request, known, "stream", f"{STREAMS_EACH} streams of {who} are open", retry=10)
        text = request.headers.get("last-event-id", said.get("after", ""))
        if text and (not text.isascii() or not text.isdigit() or len(text) > 18):
            raise refusal("request", "Last-Event-ID is a commit's number")
        headers = {"cache-control": "no-store"}
        body = self._events(request, known, said, int(text) if text else -1)
        return Answer(200, body, "text/event-stream", headers)

    async def _events(self, request: Request, known: Known, said: dict[str, str], after: int) -> AsyncIterator[bytes]:
        who = known.principal
        self._streams[who] = self._streams.get(who, 0) + 1
        self.streams += 1
        beat = 0.0
        try:
            while not self.stopping and self.open and self.known(request) == known:
                view = await self._view(known)
                if after < 0:
                    after = view.commit
                if after > view.commit:
                    yield b"event: end\ndata: " + msgspec.json.encode(_unknown(after, view)) + b"\n\n"
                    return
                if view.commit > after or not beat:
                    try:
                        tags = await self._run(known.principal, lambda view=view: self._asked(known, said, view))  # type: ignore[misc]
                        table, upto = await self._run(
                            known.principal,
                            lambda view=view, tags=tags, after=after: view.changes(  # type: ignore[misc]
                                tags, after, Deadline(QUERY_SECONDS), STREAM_ROWS
                            ),
                        )
                    except (Refusal, TooMuch, Busy, StoreError, *_RECKONING) as error:
                        yield b"event: end\ndata: " + msgspec.json.encode(str(error)) + b"\n\n"
                        return
                    after = upto
                    if table.num_rows:
                        rows = list(forms.rows_of(table))
                        beat = time.monotonic()
                        yield b"id: %d\ndata: %b\n\n" % (upto, msgspec.json.encode(rows))
                        continue
                if time.monotonic() - beat > BEAT_SECONDS or not beat:
                    beat = time.monotonic()
                    yield b": %d\n\n" % after
                await asyncio.sleep(STREAM_SECONDS)
        finally:
            self.streams -= 1
            self._streams[who] -= 1
            if not self._streams[who]:
                del self._streams[who]


def _unknown(after: int, view: View) -> str:
    """Of a cursor of another store: where this one was put back, the numbers that follow stand for something else."""
    return f"there is no commit {after}, the last is {view.commit}: the store was put back or made anew; begin again"


def _value_at(view: View, tag: str, at: int, how: str, deadline: Deadline) -> dict[str, Any]:
    before = view.before(tag, at, deadline)
    if not before.num_rows:
        return {"tag": tag, "time": time_of(at), "value": None, "quality": None, "of": None}
    (row,) = forms.rows_of(before)
    found = {"tag": tag, "time": time_of(at), "value": row["value"], "quality": row["quality"], "of": row["time"]}
    here = before["time"].cast(pa.int64())[0].as_py()
    if how == "linear" and here != at and forms.between(row["value"]):
        after = view.after(tag, at, deadline)
        if after.num_rows:
            (later,) = forms.rows_of(after)
            there = after["time"].cast(pa.int64())[0].as_py()
            if forms.between(later["value"]):
                share = (at - here) / (there - here)
                found["value"] = row["value"] + (later["value"] - row["value"]) * share
    return found
