"""What a PostgreSQL says of changed rows: messages of its plugin `pgoutput`, protocol version 1, made into rows. PURE.

(PostgreSQL's manual, "Logical Replication Message Formats".) A row becomes the text of a JSON object with a member for
each column: numbers, booleans, json and NULL as such, all else as the text that the database has for it. That text is
not believed to be JSON: it is read and checked as whatever else a producer sends.

Not here: who asks the database (table_changes), streamed or prepared transactions (they are not asked for), deletions.
"""

from __future__ import annotations

import json
import struct
from typing import Final, NamedTuple

from cofferdam.errors import RemoteProtocolError

SECTION: Final = "PostgreSQL, Logical Replication Message Formats"
COLUMNS_MOST: Final = 1_664
"""PostgreSQL has no more in a row."""
RELATIONS_MOST: Final = 1_000
_BARE: Final = frozenset((20, 21, 23, 26, 700, 701, 1700, 114, 3802))
"""Types whose text is JSON: whole numbers, floats, numeric (a NaN is refused later, as any text that is no JSON), json
and jsonb."""
_BOOLEAN: Final = 16


class Column(NamedTuple):
    """`type`: its OID."""

    name: str
    type: int


class Relation(NamedTuple):
    """A table as the database describes it before its first row. `name`: SCHEMA.TABLE."""

    name: str
    columns: tuple[Column, ...]


class Row(NamedTuple):
    """A row that was inserted or changed. `key`: the transaction's place in the database's log, and which of its rows
    this is: the same however often it is read. `body` None: the value of `lacks` did not change, and is not there."""

    key: str
    table: str
    body: str | None
    lacks: str = ""
    oid: int = 0
    """Of the table, whatever its name is by then."""


class Decoder:
    """Takes the messages of one reading, in order. `end`: behind the last transaction that has come whole."""

    def __init__(self) -> None:
        self.end = 0
        self._relations: dict[int, Relation] = {}
        self._commit = 0
        self._rows = 0

    def take(self, message: bytes) -> Row | None:
        """One message. Raises: RemoteProtocolError."""
        read = _Reader(message)
        kind = read.take(1)
        if kind == b"B":
            self._commit, self._rows = read.number("q"), 0
            read.take(12)
        elif kind == b"C":
            read.take(9)
            self.end = read.number("q")
            read.take(8)
            self._commit = 0
        elif kind == b"R":
            self._relation(read)
        elif kind in (b"I", b"U"):
            return self._row(read)
        elif kind not in (b"D", b"T", b"O", b"Y"):  # deleted, emptied, where it came from, the name of a type
            raise read.wrong(f"a message of kind {kind!r}")
        else:
            return None
        read.end()
        return None

    def _relation(self, read: _Reader) -> None:
        number, schema, name = read.number("I"), read.text(), read.text()
        read.take(1)
        columns = []
        for _ in range(read.count()):
            read.take(1)
            columns.append(Column(read.text(), read.number("I")))
            read.take(4)
        if len(self._relations) >= RELATIONS_MOST:
            raise read.wrong(f"more than {RELATIONS_MOST} tables")
        self._relations[number] = Relation(f"{schema}.{name}", tuple(columns))

    def _row(self, read: _Reader) -> Row:
        if not self._commit:
            raise read.wrong("a row outside a transaction")
        oid = read.number("I")
        relation = self._relations.get(oid)
        if relation is None:
            raise read.wrong("a row of a table that was not described")
        before: list[str | None] = []
        which = read.take(1)
        if which in (b"K", b"O"):  # as it was before: its key alone, or all of it
            old = self._values(read, relation)
            before = old if which == b"O" else []
            which = read.take(1)
        if which != b"N":
            raise read.wrong("a row without its new values")
        values = self._values(read, relation)
        read.end()
        self._rows += 1
        key = f"{self._commit:X}/{self._rows}"
        for at, value in enumerate(values):
            if value is None:
                value = values[at] = before[at] if before else None
            if value is None:
                return Row(key, relation.name, None, relation.columns[at].name, oid)
        pairs = zip(relation.columns, values, strict=True)
        body = "{" + ",".join(f"{json.dumps(one.name)}:{said}" for one, said in pairs) + "}"
        return Row(key, relation.name, body, oid=oid)

    def _values(self, read: _Reader, relation: Relation) -> list[str | None]:
        """As JSON; None: not there, since it is large and did not change."""
        if read.count() != len(relation.columns):
            raise read.wrong("a row with other columns than its table")
        return [read.value(column.type) for column in relation.columns]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def wrong(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"the database sends {what}", section=SECTION, offset=self._at)

    def take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if count < 0 or len(found) < count:
            raise self.wrong("a message that ends too early")
        self._at += count
        return found

    def number(self, form: str) -> int:
        found: int = struct.unpack(f">{form}", self.take(struct.calcsize(f">{form}")))[0]
        if found < 0:
            raise self.wrong("a negative number")
        return found

    def count(self) -> int:
        found = self.number("h")
        if found > COLUMNS_MOST:
            raise self.wrong(f"{found} columns")
        return found

    def text(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise self.wrong("a name without an end")
        return self._text(self.take(end + 1 - self._at)[:-1])

    def value(self, type_: int) -> str | None:
        kind = self.take(1)
        if kind == b"n":
            return "null"
        if kind == b"u":
            return None
        if kind != b"t":
            raise self.wrong(f"a value of kind {kind!r}")
        said = self._text(self.take(self.number("i")))
        if type_ == _BOOLEAN and said in ("t", "f"):
            return "true" if said == "t" else "false"
        return said if type_ in _BARE else json.dumps(said, ensure_ascii=False)

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.wrong("a text that is not UTF-8") from None

    def end(self) -> None:
        if self._at != len(self._data):
            raise self.wrong("a message with something behind it")
