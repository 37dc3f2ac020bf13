"""What the keeper knows: people, groups, factors, assets' host keys and credentials, requests, approvals, blocks.

One SQLite file in the keeper's own folder, which no other part can see. Secrets in it (keys of the gate's own, of codes
and of assets, and argon2id hashes of passwords) are sealed by a key that the gate hands over (kit.sealed): who has a
copy of the file alone has names, public keys, requests and approvals, and nothing to sign in by.

Not here: who may do what (policy.terms.jump_rows, deciding), how somebody signs in (signin).
"""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import asyncssh

from cofferdam.brokers.jump.broker import STORE_KEY
from cofferdam.brokers.jump.reserve import Reserve
from cofferdam.brokers.kit.database import check_plain
from cofferdam.brokers.kit.sealed import KEY_BYTES, NotOpened, Sealed
from cofferdam.errors import GateError, StoreError

FILE: Final = "access.db"
APPLICATION: Final = 0x4A554D50
PLAIN, SEALING, UNBOUND, VERSION = 1, 2, 3, 4
"""Formats: secrets as they are; sealed, and what was overwritten may still lie in the file; sealed, and an asset's
secrets not bound to their kind; bound to it. (The second may be either.)"""
PEOPLE_MOST: Final = 10_000
KEYS_OF_PERSON: Final = 16
REQUESTS_WAITING: Final = 1_000
REQUESTS_A_DAY: Final = 100
"""Of one person: what was asked for is kept, also where it was withdrawn."""
DAY_NS: Final = 86_400 * 10**9
_TABLES: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB) STRICT;
CREATE TABLE person(name TEXT PRIMARY KEY, full TEXT NOT NULL, account TEXT NOT NULL, source TEXT NOT NULL,
    active INTEGER NOT NULL, totp TEXT NOT NULL, step INTEGER NOT NULL, password TEXT NOT NULL,
    last_ns INTEGER NOT NULL, last_source TEXT NOT NULL) STRICT;
CREATE TABLE served(session_id BLOB PRIMARY KEY) STRICT;
CREATE TABLE member(person TEXT NOT NULL, grp TEXT NOT NULL, PRIMARY KEY(person, grp)) STRICT;
CREATE TABLE ssh_key(blob BLOB PRIMARY KEY, person TEXT NOT NULL, comment TEXT NOT NULL, added_ns INTEGER NOT NULL,
    counter INTEGER NOT NULL) STRICT;
CREATE TABLE asset_key(asset TEXT NOT NULL, blob BLOB NOT NULL, by TEXT NOT NULL, PRIMARY KEY(asset)) STRICT;
CREATE TABLE credential(asset TEXT NOT NULL, login TEXT NOT NULL, kind TEXT NOT NULL, secret BLOB NOT NULL,
    by TEXT NOT NULL, set_ns INTEGER NOT NULL, PRIMARY KEY(asset, login)) STRICT;
CREATE TABLE request(id INTEGER PRIMARY KEY, person TEXT NOT NULL, asset TEXT NOT NULL, conduit TEXT NOT NULL,
    seconds INTEGER NOT NULL, reason TEXT NOT NULL, ticket TEXT NOT NULL, at_ns INTEGER NOT NULL,
    state TEXT NOT NULL, until_ns INTEGER NOT NULL) STRICT;
CREATE TABLE approval(request INTEGER NOT NULL, person TEXT NOT NULL, how TEXT NOT NULL, at_ns INTEGER NOT NULL,
    PRIMARY KEY(request, person)) STRICT;
CREATE TABLE block(kind TEXT NOT NULL, name TEXT NOT NULL, by TEXT NOT NULL, reason TEXT NOT NULL,
    at_ns INTEGER NOT NULL, PRIMARY KEY(kind, name)) STRICT
"""
_USED: Final = """
CREATE TABLE IF NOT EXISTS used(person TEXT NOT NULL, conduit TEXT NOT NULL, day INTEGER NOT NULL,
    bytes INTEGER NOT NULL, PRIMARY KEY(person, conduit)) STRICT
"""
_HELD: Final = """
CREATE TABLE IF NOT EXISTS held(id INTEGER PRIMARY KEY AUTOINCREMENT, person TEXT NOT NULL, asset TEXT NOT NULL,
    conduit TEXT NOT NULL, way TEXT NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
    detail TEXT NOT NULL, kept TEXT NOT NULL, at_ns INTEGER NOT NULL, state TEXT NOT NULL, by TEXT NOT NULL,
    reason TEXT NOT NULL, seconds INTEGER NOT NULL, until_ns INTEGER NOT NULL) STRICT
"""
_LIVE: Final = "CREATE TABLE IF NOT EXISTS live(number INTEGER PRIMARY KEY, said BLOB NOT NULL) STRICT"
_INDICES: Final = (
    "CREATE INDEX IF NOT EXISTS key_of ON ssh_key(person)",
    "CREATE INDEX IF NOT EXISTS request_is ON request(state)",
    "CREATE INDEX IF NOT EXISTS request_of ON request(person, at_ns)",
)
"""All of them are younger than the format: a store of before gets them, and a version of before does not mind them. A
file's number is given once: people speak of files by it."""


_PRAGMAS: Final = ("synchronous=FULL", "temp_store=MEMORY", "mmap_size=0", "trusted_schema=OFF", "secure_delete=ON")


@dataclass(frozen=True)
class Person:
    """Somebody who may sign in. `account`: the user of the gate's own machine who is the same person, "" for none.
    `source`: who keeps the entry ("local"). `step`: the last code's, which and whose predecessors count no more.
    `totp`, `password`: sealed (`Accounts.factor`), "" for none."""

    name: str
    full: str
    account: str
    source: str
    active: bool
    totp: str
    step: int
    password: str
    last_ns: int
    last_source: str

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(name for name, there in (("code", self.totp), ("password", self.password)) if there)


@dataclass(frozen=True)
class Request:
    """Somebody asks for approval. `state`: "waiting", "granted", "denied", "revoked", "withdrawn", "over"."""

    id: int
    person: str
    asset: str
    conduit: str
    seconds: int
    reason: str
    ticket: str
    at_ns: int
    state: str
    until_ns: int


class Accounts:
    """The store. Raises StoreError from everywhere: what cannot be kept ends the keeper."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.path = folder / FILE
        if len(key) != KEY_BYTES:
            raise StoreError(
                f"the key of {self.path} has {len(key)} bytes, and not {KEY_BYTES}",
                hint=f"put the secret {STORE_KEY!r} of this keeper back as it was (docs/jump.md, secrets at rest)",
            )
        self._sealed = Sealed(key, b"cofferdam access")
        check_plain(self.path)
        self.reserve = Reserve(folder)
        try:
            self._db = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from None
        self.run("PRAGMA locking_mode=EXCLUSIVE")
        known = self.one("SELECT count(*) FROM sqlite_master")[0]
        version = self.one("PRAGMA user_version")[0] if known else VERSION
        if known and (self.one("PRAGMA application_id")[0] != APPLICATION or not PLAIN <= version <= VERSION):
            raise StoreError(f"{self.path} is of another format", hint="run the version that wrote it, or move it away")
        if self.one("PRAGMA journal_mode=WAL")[0] != "wal":
            raise StoreError(f"{self.path} cannot have a write-ahead log", hint="is it on a local disk?")
        for pragma in (
            "synchronous=FULL",
            "temp_store=MEMORY",
            "mmap_size=0",
            "trusted_schema=OFF",
            "secure_delete=ON",
        ):
            self.run(f"PRAGMA {pragma}")
        if known and self.one("PRAGMA quick_check(1)")[0] != "ok":
            raise StoreError(f"{self.path} is damaged", hint="bring back the last backup")
        self.run("BEGIN IMMEDIATE")
        if not known:
            for statement in _TABLES.split(";\n"):
                self.run(statement)
            self.run(f"PRAGMA application_id={APPLICATION}")
            self.run(f"PRAGMA user_version={VERSION}")
            self.set_meta("host-key", asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
        self.run(_USED)
        self.run(_HELD)
        self.run(_LIVE)
        for statement in _INDICES:
            self.run(statement)
        if version == PLAIN:
            self._seal_all()
        elif version < VERSION:
            self._host_key()  # by another key nothing opens, and it would be taken for bound
            self._bind_all()
        self.run("COMMIT")
        if version < UNBOUND:
            self._scrub()
        self.host_key: asyncssh.SSHKey = asyncssh.import_private_key(self._host_key())

    def _host_key(self) -> bytes:
        """Raises: StoreError, and nothing more is done with the file: there is none, or our key does not open it."""
        found = self.one("SELECT value FROM meta WHERE name='host-key'")
        if found is None:
            self._db.close()
            raise StoreError(f"{self.path} has no host key", hint="bring back the last backup")
        try:
            return self._sealed.open(found[0], "meta", "host-key")
        except NotOpened:
            self._db.close()
            raise StoreError(
                f"{self.path} is sealed by another key than this keeper was given",
                hint=f"put the secret {STORE_KEY!r} that belongs to it back; without it what is sealed is lost: move "
                "the file away to begin anew (docs/jump.md, secrets at rest)",
            ) from None

    def _seal_all(self) -> None:
        """Seals what a version of before has kept as it is. A transaction is open. Raises: StoreError, and nothing is
        changed: it says that it is of before, and is sealed."""
        try:
            asyncssh.import_private_key(self.one("SELECT value FROM meta WHERE name='host-key'")[0])
        except (TypeError, asyncssh.KeyImportError):
            self._db.close()
            raise StoreError(
                f"{self.path} says that nothing in it is sealed, and its host key is none that can be read so",
                hint="somebody has changed the file: bring back the last backup",
            ) from None
        for name, value in self.all("SELECT name, value FROM meta"):
            self.set_meta(name, value)
        for name, totp, password in self.all("SELECT name, totp, password FROM person"):
            self.set_totp(name, totp, self.known(name).step)
            self.set_password(name, password)
        self._reseal(lambda secret, *_: secret)
        self.run(f"PRAGMA user_version={SEALING}")

    def _bind_all(self) -> None:
        """Binds assets' secrets to their kind, where a version of before has not. A transaction is open. What does not
        open stays as it is: it is refused when it is asked for."""

        def opened(secret: bytes, asset: str, login: str, kind: str) -> bytes | None:
            try:
                return self._sealed.open(secret, "credential", asset, login)
            except NotOpened:
                return None

        self._reseal(opened)
        if self.one("PRAGMA user_version")[0] == UNBOUND:
            self.run(f"PRAGMA user_version={VERSION}")

    def _reseal(self, opened: Callable[[bytes, str, str, str], bytes | None]) -> None:
        """Seals assets' secrets anew, but for those that `opened` does not give."""
        for asset, login, kind, sealed in self.all("SELECT asset, login, kind, secret FROM credential"):
            if (secret := opened(sealed, asset, login, kind)) is not None:
                anew = self._sealed.close(secret, *_credential(asset, login, kind))
                self.run("UPDATE credential SET secret=? WHERE asset=? AND login=?", anew, asset, login)

    def _scrub(self) -> None:
        """Has the file written anew, and its write-ahead log emptied: pages that are free by now, and the log, still
        have what was sealed. Done anew by the next life where this one ends before."""
        self.run("VACUUM")
        if self.one("PRAGMA wal_checkpoint(TRUNCATE)")[0]:
            raise StoreError(f"{self.path}: its write-ahead log is in use", hint="does another program have it open?")
        self.run(f"PRAGMA user_version={VERSION}")

    def run(self, statement: str, *values: Any) -> int:
        """Runs one statement. Returns the number of the row that it put in, or of rows that it changed."""
        alone = not self._db.in_transaction
        try:
            cursor = self._db.execute(statement, values)
        except sqlite3.Error as error:
            # Of a statement that found no room nothing was done; of a transaction nobody knows.
            if alone and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL and self.reserve.give_up():
                return self.run(statement, *values)
            raise StoreError(f"{self.path}: {error}") from None
        return int(
            (cursor.lastrowid or 0)
            if statement.startswith(("INSERT INTO request", "INSERT INTO held"))
            else cursor.rowcount
        )

    def one(self, statement: str, *values: Any) -> Any:
        """The first row that it finds; None."""
        try:
            return self._db.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from None

    def all(self, statement: str, *values: Any) -> list[Any]:
        """All rows that it finds."""
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from None

    def close(self) -> None:
        self._db.close()

    def meta(self, name: str) -> bytes:
        """Something there is one of; b"" where it is not set."""
        row = self.one("SELECT value FROM meta WHERE name=?", name)
        try:
            return b"" if row is None else self._sealed.open(row[0], "meta", name)
        except NotOpened as error:
            raise StoreError(f"{self.path}: {error}", hint="bring back the last backup") from None

    def set_meta(self, name: str, value: bytes) -> None:
        self.run("INSERT OR REPLACE INTO meta VALUES(?, ?)", name, self._sealed.close(value, "meta", name))

    # --- people -----------------------------------------------------------------------------------------------------

    def person(self, name: str) -> Person | None:
        row = self.one("SELECT * FROM person WHERE name=?", name)
        return None if row is None else _person(row)

    def known(self, name: str) -> Person:
        """Raises: GateError."""
        found = self.person(name)
        if found is None:
            raise GateError(f"there is nobody called {name!r}", hint="`cofferdam jump person list` shows them")
        return found

    def people(self, after: str = "") -> Iterator[Person]:
        """By their names, those after this one."""
        return map(_person, self.all("SELECT * FROM person WHERE name>? ORDER BY name", after))

    def by_account(self, account: str) -> Person | None:
        """The person whom a user of this machine is."""
        row = self.one("SELECT name FROM person WHERE account=? AND account!='' AND active", account)
        return self.person(row[0]) if row is not None else None

    def add_person(self, name: str, full: str, account: str) -> None:
        if self.person(name) is not None:
            raise GateError(f"{name!r} is there already")
        if account and (other := self.one("SELECT name FROM person WHERE account=?", account)) is not None:
            raise GateError(f"{account} is the account of {other[0]} already", hint="one person has one entry")
        if self.one("SELECT count(*) FROM person")[0] >= PEOPLE_MOST:
            raise GateError(f"there are {PEOPLE_MOST} people already")
        self.run("INSERT INTO person VALUES(?, ?, ?, 'local', 1, '', 0, '', 0, '')", name, full, account)

    def remove_person(self, name: str) -> None:
        self.known(name)
        self.run("BEGIN IMMEDIATE")
        for table in ("member", "ssh_key", "held"):  # who is called so later is somebody else
            self.run(f"DELETE FROM {table} WHERE person=?", name)  # noqa: S608 - one of the words above
        self.run("UPDATE request SET state='revoked' WHERE person=? AND state IN ('waiting', 'granted')", name)
        self.run(
            "DELETE FROM approval WHERE person=? AND request IN (SELECT id FROM request WHERE state='waiting')", name
        )
        self.run("UPDATE held SET state='waits' WHERE by=? AND state='released'", name)
        self.run("DELETE FROM person WHERE name=?", name)
        self.run("COMMIT")

    def groups(self, name: str) -> tuple[str, ...]:
        return tuple(row[0] for row in self.all("SELECT grp FROM member WHERE person=? ORDER BY grp", name))

    def members(self, groups: Iterable[str]) -> set[str]:
        """All who are in one of the groups."""
        wanted = set(groups)
        return {row[0] for row in self.all("SELECT person, grp FROM member") if row[1] in wanted}

    def join(self, name: str, group: str) -> None:
        self.known(name)
        self.run("INSERT OR IGNORE INTO member VALUES(?, ?)", name, group)

    def leave(self, name: str, group: str) -> None:
        if not self.run("DELETE FROM member WHERE person=? AND grp=?", name, group):
            raise GateError(f"{name} is not in {group}")

    def factor(self, person: Person, which: Literal["totp", "password"]) -> str:
        """The secret of somebody's code generator, or the hash of their password; "" for none. Raises: NotOpened."""
        sealed: str = getattr(person, which)
        try:
            blob = base64.b64decode(sealed)
        except ValueError:  # not what we wrote there: nothing opens it
            blob = b""
        return self._sealed.open(blob, which, person.name).decode() if sealed else ""

    def _factor(self, which: Literal["totp", "password"], name: str, secret: str) -> str:
        return base64.b64encode(self._sealed.close(secret.encode(), which, name)).decode() if secret else ""

    def set_totp(self, name: str, secret: str, step: int = 0) -> None:
        self.known(name)
        self.run("UPDATE person SET totp=?, step=? WHERE name=?", self._factor("totp", name, secret), step, name)

    def used_step(self, name: str, step: int) -> None:
        """The code of this step, and all before it, have been used."""
        self.run("UPDATE person SET step=? WHERE name=? AND step<?", step, name, step)

    def set_password(self, name: str, hashed: str) -> None:
        self.known(name)
        self.run("UPDATE person SET password=? WHERE name=?", self._factor("password", name, hashed), name)

    def signed_in(self, name: str, wall_ns: int, source: str) -> None:
        self.run("UPDATE person SET last_ns=?, last_source=? WHERE name=?", wall_ns, source, name)

    # --- keys -------------------------------------------------------------------------------------------------------

    def owner(self, blob: bytes) -> str:
        """Whose key it is; "" for nobody's."""
        row = self.one("SELECT person FROM ssh_key WHERE blob=?", blob)
        return "" if row is None else str(row[0])

    def counter(self, blob: bytes) -> int:
        row = self.one("SELECT counter FROM ssh_key WHERE blob=?", blob)
        return 0 if row is None else int(row[0])

    def set_counter(self, blob: bytes, counter: int) -> None:
        self.run("UPDATE ssh_key SET counter=? WHERE blob=?", counter, blob)

    def keys(self, name: str) -> list[tuple[bytes, str, int]]:
        rows = self.all("SELECT blob, comment, added_ns FROM ssh_key WHERE person=? ORDER BY added_ns", name)
        return [(bytes(row[0]), row[1], row[2]) for row in rows]

    def serves(self, session_id: bytes) -> bool:
        """Whether a signature over this session id is the first that counts; from now on none does."""
        return self.run("INSERT OR IGNORE INTO served VALUES(?)", session_id) == 1

    def add_key(self, name: str, blob: bytes, comment: str, wall_ns: int) -> None:
        self.known(name)
        if owner := self.owner(blob):
            raise GateError(f"that key is {owner}'s already")
        if len(self.keys(name)) >= KEYS_OF_PERSON:
            raise GateError(f"{name} has {KEYS_OF_PERSON} keys already")
        self.run("INSERT INTO ssh_key VALUES(?, ?, ?, ?, 0)", blob, name, comment, wall_ns)

    def remove_key(self, blob: bytes) -> None:
        self.run("DELETE FROM ssh_key WHERE blob=?", blob)

    # --- assets -----------------------------------------------------------------------------------------------------

    def asset_key(self, asset: str) -> bytes:
        """What the asset must show; b"" if nobody has accepted anything yet."""
        row = self.one("SELECT blob FROM asset_key WHERE asset=?", asset)
        return b"" if row is None else bytes(row[0])

    def set_asset_key(self, asset: str, blob: bytes, by: str) -> None:
        self.run("INSERT OR REPLACE INTO asset_key VALUES(?, ?, ?)", asset, blob, by)

    def credential(self, asset: str, login: str) -> tuple[str, bytes] | None:
        """(kind, secret). Raises: NotOpened."""
        row = self.one("SELECT kind, secret FROM credential WHERE asset=? AND login=?", asset, login)
        if row is None:
            return None
        kind = str(row[0])
        return kind, self._sealed.open(row[1], *_credential(asset, login, kind))

    def has_credential(self, asset: str, login: str) -> bool:
        return self.one("SELECT 1 FROM credential WHERE asset=? AND login=?", asset, login) is not None

    def set_credential(self, asset: str, login: str, kind: str, secret: bytes, by: str, wall_ns: int) -> None:
        sealed = self._sealed.close(secret, *_credential(asset, login, kind))
        self.run("INSERT OR REPLACE INTO credential VALUES(?, ?, ?, ?, ?, ?)", asset, login, kind, sealed, by, wall_ns)

    def credentials(self) -> list[tuple[str, str, str, str, int]]:
        """(asset, login, kind, by, when), without the secrets."""
        return self.all("SELECT asset, login, kind, by, set_ns FROM credential ORDER BY asset, login")

    # --- requests ---------------------------------------------------------------------------------------------------

    def ask(self, person: str, asset: str, conduit: str, seconds: int, reason: str, ticket: str, wall_ns: int) -> int:
        """Returns the request's number."""
        return self.run(
            "INSERT INTO request(person, asset, conduit, seconds, reason, ticket, at_ns, state, until_ns)"
            " VALUES(?, ?, ?, ?, ?, ?, ?, 'waiting', 0)",
            person, asset, conduit, seconds, reason, ticket, wall_ns,
        )  # fmt: skip

    def waiting(self) -> int:
        return int(self.one("SELECT count(*) FROM request WHERE state='waiting'")[0])

    def asked(self, person: str, wall_ns: int) -> int:
        """How often somebody has asked within a day."""
        found = "SELECT count(*) FROM request WHERE person=? AND at_ns BETWEEN ? AND ?"
        return int(self.one(found, person, wall_ns - DAY_NS, wall_ns)[0])

    def request(self, number: int) -> Request:
        """Raises: GateError."""
        row = self.one("SELECT * FROM request WHERE id=?", number)
        if row is None:
            raise GateError(f"there is no request {number}")
        return Request(*row)

    def requests(self, states: tuple[str, ...] = ("waiting", "granted")) -> list[Request]:
        marks = ", ".join("?" * len(states))
        rows = self.all(f"SELECT * FROM request WHERE state IN ({marks}) ORDER BY id", *states)  # noqa: S608
        return [Request(*row) for row in rows]

    def approvals(self, request: int) -> list[str]:
        return [row[0] for row in self.all("SELECT person FROM approval WHERE request=? ORDER BY at_ns", request)]

    def approve(self, request: int, person: str, how: str, wall_ns: int) -> None:
        self.run("INSERT OR REPLACE INTO approval VALUES(?, ?, ?, ?)", request, person, how, wall_ns)

    def settle(self, request: int, state: str, until_ns: int) -> None:
        self.run("UPDATE request SET state=?, until_ns=? WHERE id=?", state, until_ns, request)

    # --- sessions ---------------------------------------------------------------------------------------------------

    def live(self) -> list[tuple[int, bytes]]:
        """Those that have a grant, by number: what another life of the keeper has to know (resuming)."""
        return self.all("SELECT number, said FROM live ORDER BY number")

    def keep(self, number: int, said: bytes) -> None:
        self.run("INSERT INTO live VALUES(?, ?)", number, said)

    def forget(self, number: int) -> None:
        self.run("DELETE FROM live WHERE number=?", number)

    # --- what was moved ---------------------------------------------------------------------------------------------

    def used(self, person: str, conduit: str, day: int) -> int:
        """Bytes of files that somebody has moved by a conduit in this day (of UTC, counted since 1970); or in a later
        one, where the clock was set back."""
        row = self.one("SELECT bytes FROM used WHERE person=? AND conduit=? AND day>=?", person, conduit, day)
        return int(row[0]) if row is not None else 0

    def use(self, person: str, conduit: str, day: int, count: int) -> None:
        self.run(
            "INSERT INTO used VALUES(?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET "
            "bytes=CASE WHEN day<?3 THEN 0 ELSE bytes END + ?4, day=max(day, ?3)",
            person, conduit, day, count,
        )  # fmt: skip

    # --- blocks -----------------------------------------------------------------------------------------------------

    def blocked(self, person: str, asset: str) -> str:
        """Why this person may not come to this asset; "" if nothing bars them."""
        for kind, name in (("person", person), ("asset", asset), ("pair", f"{person} {asset}")):
            row = self.one("SELECT by, reason FROM block WHERE kind=? AND name=?", kind, name)
            if row is not None:
                return f"{row[0]} has barred {name.replace(' ', ' from ')}" + (f": {row[1]}" if row[1] else "")
        return ""

    def block(self, kind: str, name: str, by: str, reason: str, wall_ns: int) -> None:
        self.run("INSERT OR REPLACE INTO block VALUES(?, ?, ?, ?, ?)", kind, name, by, reason, wall_ns)

    def unblock(self, kind: str, name: str) -> None:
        if not self.run("DELETE FROM block WHERE kind=? AND name=?", kind, name):
            raise GateError(f"nothing bars {name!r}", hint="`cofferdam jump blocks` shows who and what is barred")

    def blocks(self) -> list[tuple[str, str, str, str, int]]:
        """(kind, name, by, reason, when)."""
        return self.all("SELECT kind, name, by, reason, at_ns FROM block ORDER BY kind, name")


def _credential(asset: str, login: str, kind: str) -> tuple[str, ...]:
    """What it is sealed to."""
    return "credential", asset, login, kind


def _person(row: Any) -> Person:
    name, full, account, source, active, *rest = row
    return Person(name, full, account, source, bool(active), *rest)


def key_name(blob: bytes) -> str:
    """A key's fingerprint, as `ssh-keygen -l` shows it; "" for none."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}" if blob else ""
