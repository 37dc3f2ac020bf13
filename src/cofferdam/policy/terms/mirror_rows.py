"""The frozen rows of the historian mirror: sources, what is kept of them, and who may read what. PURE.

Not here: how rows are made from a policy file (terms.mirror), what parts do with them (brokers.mirror).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, Literal

import msgspec

from cofferdam.policy.terms.doors import Door

EVERYTHING: Final = "*"
TAG_CHARACTERS: Final = 200
"""Of a tag's name."""
SINCE_1970: Final = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
"""Units of times that are counted since 1970, in ns."""
TAGS_MOST: Final = 100_000
"""Tags of one mirror."""


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What an engineer says of a tag."""

    unit: str = ""
    description: str = ""


Term = Literal["", "opc-da", "opc-ua", "none"]
"""What the raw qualities of a source mean; "": those of OPC UA above 65535, those of OPC DA below, and 0 is good."""


class Postgres(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="postgresql"):
    """A historian in PostgreSQL: the columns of a table (SCHEMA.TABLE), or of what a query gives. `password` names a
    secret; `plain`: without TLS. `quality` and `server` may be "": there is no such column. `tags`: patterns. `every`
    in ms, other times in seconds."""

    name: str
    address: str
    port: int
    database: str
    role: str
    password: str
    plain: bool = False
    table: str = ""
    query: str = ""
    tag: str = "tag"
    time: str = "time"
    value: str = "value"
    quality: str = ""
    qualities: Term = ""
    server: str = ""
    tags: tuple[str, ...] = (EVERYTHING,)
    every: int = 10_000
    overlap: int = 600
    since: int = 0
    """How far back the first reading goes."""
    points_per_second: int = 0
    """No more than so many rows a second are asked for. 0: as fast as they come."""

    @property
    def at(self) -> str:
        """ADDRESS:PORT/DATABASE."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}/{self.database}"


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="device"):
    """Points of an asset of the policy, read in turn. A tag is ASSET.POINT. `every` in ms. `history`: what it was may
    be asked for later as well, if its server has kept it."""

    name: str
    asset: str
    points: tuple[str, ...]
    every: int = 1_000
    history: bool = False


class Drop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="folder"):
    """Files that are left in a folder of the site's. `form`: csv or parquet. `wide`: each column but that of the time
    is a tag; `of`: all samples are of this tag. `times`: iso, a unit since 1970 (s, ms, us, ns), or a pattern as
    strptime has it; `zone`: where clocks without an offset hang. `kind`: of a value in CSV. `settle` and `keep_files`
    in seconds, `every` in ms."""

    name: str
    folder: str
    form: Literal["csv", "parquet"] = "csv"
    tag: str = "tag"
    time: str = "time"
    value: str = "value"
    quality: str = ""
    qualities: Term = ""
    server: str = ""
    wide: bool = False
    of: str = ""
    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    times: str = "iso"
    zone: str = ""
    kind: Literal["number", "integer", "bool", "text"] = "number"
    tags: tuple[str, ...] = (EVERYTHING,)
    settle: int = 2
    keep_files: int = 0
    every: int = 10_000


Source = Postgres | Device | Drop


class Qualities(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What the raw qualities of some tags (patterns) mean."""

    term: Term
    tags: tuple[str, ...]


def qualities_of(sources: Iterable[Source]) -> tuple[Qualities, ...]:
    """What qualities mean, by tag: the first that has it counts, and of a tag that none has they mean what they do
    where nothing is said. It goes by names and not by what a source has sent, so that it is the same after a store was
    made anew of its files; the checks see to it that no two sources may mean the same tag otherwise."""
    terms: dict[Term, set[str]] = {}
    for source in sources:
        terms.setdefault("" if isinstance(source, Device) else source.qualities, set()).update(names_of(source))
    if len(terms) == 1:  # whatever a tag is called; what is to be mirrored may change, and nothing is reckoned anew
        terms = {term: {EVERYTHING} for term in terms}
    wild = {term: {tag for tag in tags if "*" in tag} for term, tags in terms.items() if term}
    others = Matcher(tag for tags in wild.values() for tag in tags)
    exact = {term: {tag for tag in tags if "*" not in tag and (term or others(tag))} for term, tags in terms.items()}
    return tuple(
        Qualities(term, tuple(sorted(tags))) for some in (exact, wild) for term, tags in sorted(some.items()) if tags
    )


def terms_of(qualities: Iterable[Qualities], tags: Collection[str]) -> list[Term]:
    """What the qualities of each tag mean."""
    found = [(Matcher(one.tags), one.term) for one in qualities]
    return [next((term for match, term in found if match(tag)), "") for tag in tags]


def names_of(source: Source) -> tuple[str, ...]:
    """The tags of a source: names, and patterns."""
    if isinstance(source, Device):
        return tuple(f"{source.asset}.{point}" for point in source.points)
    return (source.of,) if isinstance(source, Drop) and source.of else source.tags


class ReadRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of `allow`: who may read which tags (patterns). `resolution` in seconds: nothing finer than aggregates
    over so long (0: samples as they are). `sql`: any SQL, which only one who may read everything has."""

    number: int
    who: tuple[str, ...]
    read: tuple[str, ...]
    resolution: int = 0
    sql: bool = False


class Copy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The site's PostgreSQL that history is copied into. `password` names a secret; `plain`: without TLS. `rules`:
    whose views there are; `keep` in seconds."""

    name: str
    address: str
    port: int
    database: str
    role: str
    password: str
    plain: bool = False
    keep: int = 0
    rules: tuple[ReadRule, ...] = ()


class Publish(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A bucket of an object store (S3) in which history is published as an Iceberg table, beneath `path`. `key`: the
    access key's id; `password` names its secret; `authority`: PEM, whose certificates are taken; `host`: whose name."""

    name: str
    address: str
    port: int
    bucket: str
    path: str
    key: str
    password: str
    region: str
    host: str = ""
    authority: bytes = b""
    plain: bool = False


class MirrorRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="mirror"):
    """What one conduit of the mirror says. Sizes are bytes, times seconds. `most`: of sealed files (0: what the disk
    has). `future`: a sample may be so far ahead of the clock. `outer` and `inner`: the zones of readers and plant;
    `stands`: where each principal does; `about`: what is said of tags, by name."""

    sources: tuple[Source, ...] = ()
    rules: tuple[ReadRule, ...] = ()
    keep: int = 0
    most: int = 0
    spool: int = 0
    future: int = 600
    acks: Literal["crossing", "none"] = "crossing"
    nightly: bool = True
    store: Literal["embedded", "postgresql"] = "embedded"
    outer: str = ""
    inner: str = ""
    stands: dict[str, str] = {}
    doors: tuple[Door, ...] = ()
    copy: Copy | None = None
    publish: Publish | None = None
    published: bool = False
    """Whether there is such a place: which it is, the keeper need not know."""
    about: dict[str, About] = {}


class Matcher:
    """Whether a tag is one of some patterns; `*` stands for anything."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        self.all = EVERYTHING in self.patterns
        self._names = {pattern for pattern in self.patterns if "*" not in pattern}
        wild = [_expression(pattern) for pattern in self.patterns if "*" in pattern]
        self._wild = re.compile(f"(?:{'|'.join(wild)})\\Z", re.DOTALL) if wild else None

    def __call__(self, tag: str) -> bool:
        return self.all or tag in self._names or (self._wild is not None and self._wild.match(tag) is not None)


def meet(one: str, other: str) -> bool:
    """Whether a tag may be of both of two patterns."""
    reached = {0}  # of `other`, where one may stand once the letters of `one` so far are through
    for letter in one:
        reached = _past_stars(other, reached)
        if letter == "*":
            reached = set(range(min(reached), len(other) + 1)) if reached else set()
        else:
            steps = ((at, other[at]) for at in reached if at < len(other))
            reached = {at if there == "*" else at + 1 for at, there in steps if there in (letter, "*")}
    return len(other) in _past_stars(other, reached)


def _past_stars(pattern: str, places: Iterable[int]) -> set[int]:
    """The places, and those that are reached from them where `*` stands for nothing."""
    found = set()
    for at in places:
        found.add(at)
        while at < len(pattern) and pattern[at] == "*":
            at += 1
            found.add(at)
    return found


def _expression(pattern: str) -> str:
    """A pattern as a regular expression that looks at each letter once for each of its pieces: where a piece was found
    first is never given up again, since a later place would help none of those behind it. Readers write patterns, and a
    search that tries all places would keep the process from everybody else."""
    first, *pieces, last = map(re.escape, pattern.split("*"))
    return "".join((first, *(f"(?>.*?{piece})" for piece in pieces if piece), ".*", last))


class Rights:
    """What one principal may read."""

    def __init__(self, rules: Collection[ReadRule]) -> None:
        self._rules = [(Matcher(rule.read), rule) for rule in rules]
        self.all = any(match.all for match, _ in self._rules)
        """Whether there is nothing that one may not read in some way."""
        self.sql = any(rule.sql and EVERYTHING in rule.read and not rule.resolution for rule in rules)

    def rule(self, tag: str) -> ReadRule | None:
        """The rule that lets one see most of a tag: the finest resolution; None where no rule has it."""
        found = [rule for match, rule in self._rules if match(tag)]
        return min(found, key=lambda rule: rule.resolution) if found else None


def rights_of(rows: Iterable[MirrorRows], who: str) -> Rights:
    """What a principal may read in these mirrors together."""
    return Rights([rule for row in rows for rule in row.rules if who in rule.who])


def tag_name(text: str) -> bool:
    """Whether a tag may have this name."""
    return 0 < len(text) <= TAG_CHARACTERS and text.isprintable() and text.strip() == text and "*" not in text
