"""What the jump server's parts answer to operators' verbs, as types: the verbs are checked by them, and the schemas of
what `cofferdam jump ... --json` prints are made from them. What is not here is answered by a sentence.

Times end in `_ns` (UTC). Not here: the verbs (keeper_verbs, archivist_part).
"""

from __future__ import annotations

from typing import TypedDict

import msgspec


class Key(TypedDict):
    fingerprint: str
    comment: str


class Person(TypedDict):
    person: str
    full: str
    account: str
    source: str
    groups: tuple[str, ...]
    factors: tuple[str, ...]
    keys: list[Key]
    last_ns: int
    last_source: str


class Imported(TypedDict):
    """Somebody in a file. `new`: they were not known; `groups` and `key` (its fingerprint): what they did not have."""

    person: str
    new: bool
    groups: list[str]
    key: str


class OfPerson(TypedDict):
    person: str


class Groups(TypedDict):
    groups: tuple[str, ...]


class Fingerprint(TypedDict):
    fingerprint: str


class Code(TypedDict):
    """The secret of a code generator, which is shown this once."""

    secret: str
    uri: str


class Credential(TypedDict):
    """`state`: "" where nothing is to be said of it."""

    login: str
    kind: str
    by: str
    set_ns: int
    state: str


class AssetCredential(Credential):
    asset: str


class Asset(TypedDict):
    asset: str
    protocol: str
    host_key: str
    credentials: list[Credential]
    logins: list[str]


class HostKey(TypedDict):
    asset: str
    fingerprint: str
    before: str


class CredentialSet(TypedDict):
    asset: str
    login: str
    kind: str
    public_key: str


class GateKey(TypedDict):
    key: str
    fingerprint: str
    doors: list[tuple[str, int]]
    authority: str
    names: tuple[str, ...]


class Request(TypedDict):
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
    approved: list[str]


class Session(TypedDict):
    """`line`: all of it, in words."""

    number: int
    session: str
    person: str
    source: str
    asset: str
    login: str
    what: str
    command: str
    conduit: str
    request: int
    since_ns: int
    factors: tuple[str, ...]
    line: str


class Block(TypedDict):
    kind: str
    name: str


class Unblocked(TypedDict):
    name: str


class Blocked(Block):
    by: str
    reason: str
    at_ns: int


class Used(msgspec.Struct, forbid_unknown_fields=True):
    """A use of the sealed code that is to be reviewed; the store has it as well."""

    by: str
    person: str
    asset: str
    reason: str
    request: int
    at_ns: int


class Glass(TypedDict):
    sealed: bool
    used: Used | None


class HeldFile(TypedDict):
    """A file that the scanner could not see all of. `way`: "up" or "down"; `state`: "waits", "released", "rejected", or
    "found" (something was found in the same bytes); `kept`: its name in quarantine; `line`: all of it, in words. What
    lies there besides (something was found in it, or nothing could look) has the number 0 and is "kept"."""

    number: int
    line: str
    state: str
    person: str
    way: str
    asset: str
    path: str
    sha256: str
    size: int
    conduit: str
    detail: str
    kept: str
    at_ns: int
    until_ns: int
    by: str
    reason: str


class Kept(TypedDict):
    """A file in quarantine."""

    name: str
    size: int
    at_ns: int


class Recording(TypedDict):
    """`live`: the session's number while it is recorded, else 0. `began`: seconds since 1970."""

    name: str
    size: int
    live: int
    began: int
    title: str
    held: bool


class Use(TypedDict):
    """Somebody looked at a recording, had it held, or let it go."""

    at_ns: int
    by: str
    how: str
    reason: str


class Facts(Recording):
    """`marks`: how often the log has its SHA-256; `findings`: where the two do not agree."""

    seconds: float
    command: str
    marks: int
    findings: list[str]
    used: list[Use]


class Holding(TypedDict):
    name: str
    held: bool


# --- what the command line adds ---------------------------------------------------------------------------------------


class Sealed(TypedDict):
    """The code for the envelope, which is shown this once."""

    code: str


class Written(TypedDict):
    name: str
    bytes: int


class Seen(TypedDict):
    """A line that a recording showed, `at` seconds from its beginning."""

    name: str
    title: str
    at: float
    line: str
