"""The quarantine's rows in the keeper's store, and reading the store through for damage.

A row keeps the message as it came, why it did not pass, and what people did with it: a new body, and by whom; who was
the first of two to release it. An edit takes back an approval, since another body was approved.

Not here: what may be done with a row, and by whom (keeper_verbs).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from cofferdam.audit.tree import edge_root
from cofferdam.brokers.relay.gaps import Gaps
from cofferdam.brokers.relay.keeper_rows import Stored
from cofferdam.brokers.relay.ledger import Batch, message_leaf
from cofferdam.brokers.relay.store import Store
from cofferdam.policy.messages.checked import Problem

EDITORS: Final = 16
"""People who may edit one row."""
VERIFIED_BYTES: Final = 8 << 20
"""Bodies that one step of `verify` reads, before others have their turn."""

_problem = msgspec.msgpack.Decoder(Problem)
_names = msgspec.msgpack.Decoder(tuple[str, ...])
_encode = msgspec.msgpack.Encoder().encode
_COLUMNS: Final = "h.id,c.name,p.name,h.key,h.sha256,h.size,h.at,h.problem,h.body,h.edited,h.editors,h.approved"
_FROM: Final = "FROM held h JOIN channels c ON c.id=h.channel JOIN principals p ON p.id=h.who"


class Held(msgspec.Struct, frozen=True):
    """A row. `sha256` and `body` are of what came, `size` of what would be released: `edited`, if there is one."""

    row: int
    channel: str
    who: str
    key: str
    sha256: bytes
    size: int
    at: int
    problem: Problem
    body: bytes
    edited: bytes | None
    editors: tuple[str, ...]
    approved: str

    @property
    def now(self) -> bytes:
        """What would be released."""
        return self.body if self.edited is None else self.edited


class Shelf:
    """The quarantine in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, channel: str, who: str, key: str, sha256: bytes) -> tuple[int, Problem] | None:
        """The row of a message that came before, just so."""
        sql = f"SELECT h.id, h.problem {_FROM} WHERE c.name=? AND p.name=? AND h.key=? AND h.sha256=? LIMIT 1"
        row = self._store.one(sql, channel, who, key, sha256)
        return (row[0], _problem.decode(row[1])) if row else None

    def put(self, channel: str, who: str, key: str, body: bytes, sha256: bytes, at: int, problem: Problem) -> int:
        """Keeps a message. Returns its row."""
        self._store.begin()
        values = (
            self._store.channel(channel),
            self._store.who(who),
            key,
            sha256,
            len(body),
            at,
            _encode(problem),
            body,
        )
        sql = "INSERT INTO held VALUES(NULL,?,?,?,?,?,?,?,?,NULL,?,?)"
        return self._store.run(sql, *values, _encode(()), "").lastrowid or 0

    def get(self, row: int) -> Held | None:
        """One row."""
        found = self._store.one(f"SELECT {_COLUMNS} {_FROM} WHERE h.id=?", row)
        return self._held(found) if found else None

    def rows(self, channel: str, after: int, most: int) -> list[Held]:
        """Rows of a channel ("": of all), without their bodies."""
        columns = _COLUMNS.replace("h.body,h.edited", "x'',iif(h.edited IS NULL, NULL, x'')")
        where = "WHERE h.id>? AND (?='' OR c.name=?) ORDER BY h.id LIMIT ?"
        rows = self._store.all(f"SELECT {columns} {_FROM} {where}", after, channel, channel, most)
        return [self._held(row) for row in rows]

    def _held(self, row: tuple[Any, ...]) -> Held:
        id_, channel, who, key, sha256, size, at, problem, body, edited, editors, approved = row
        why, people = _problem.decode(problem), _names.decode(editors)
        return Held(id_, channel, who, key, sha256, size, at, why, body, edited, people, approved)

    def edit(self, held: Held, body: bytes, by: str) -> None:
        """Another body is to be released."""
        self._store.begin()
        editors = tuple(dict.fromkeys((*held.editors, by)))
        sql = "UPDATE held SET edited=?, size=?, editors=?, approved='' WHERE id=?"
        self._store.run(sql, body, len(body), _encode(editors), held.row)

    def approve(self, held: Held, by: str) -> None:
        """The first of two has released it."""
        self._store.begin()
        self._store.run("UPDATE held SET approved=? WHERE id=?", by, held.row)

    def drop(self, held: Held) -> None:
        """The row is decided on."""
        self._store.begin()
        self._store.run("DELETE FROM held WHERE id=?", held.row)


# --- reading the store through ------------------------------------------------------------------------------------


class Verified(msgspec.Struct, frozen=True):
    """One step of reading a channel through. `next`: where the next one begins, 0: it is through. `batches`: what each
    commit brought, to be held against the log (`ledger.compare`)."""

    findings: list[str]
    batches: list[Batch]
    next: int


def verify(store: Store, channel: str, after: int, gone: int, last: int, most: int, gaps: Gaps) -> Verified:
    """Reads messages after a number, up to `last`: none is missing above `gone` but what is known to be (`gaps`), and
    each body has its hash. A step ends between two commits, so that `batches` are whole."""
    findings: list[str] = []
    batches: list[Batch] = []
    run: list[Stored] = []
    expected = max(after, gone) + 1
    read = bytes_ = 0
    while True:
        found = store.messages(channel, after, 64, last, VERIFIED_BYTES)
        for one in found:
            if run and one.group != run[0].group:
                batches.append(_batch(channel, run))
                run = []
                if read >= most or bytes_ >= VERIFIED_BYTES:
                    return Verified(findings, batches, one.number - 1)
            if one.number > gone:
                for low, high in gaps.uncovered(expected, one.number - 1):
                    findings.append(f"{channel}: {low} to {high} are missing")
                expected = one.number + 1
            if hashlib.sha256(one.body).digest() != one.sha256 or len(one.body) != one.size:
                findings.append(f"{channel} {one.number}: the body is not the one that was stored")
            run.append(msgspec.structs.replace(one, body=b""))
            after = one.number
            read += 1
            bytes_ += one.size
        if not found:
            if run:
                batches.append(_batch(channel, run))
            for low, high in gaps.uncovered(expected, last):
                findings.append(f"{channel}: {low} to {high} are missing")
            return Verified(findings, batches, 0)


def _batch(channel: str, run: list[Stored]) -> Batch:
    leaves = [message_leaf(channel, one.number, one.who, one.key, one.sha256, one.size) for one in run]
    return Batch(
        run[0].group, channel, run[0].number, len(run), sum(one.size for one in run), edge_root([leaves]).hex()
    )
