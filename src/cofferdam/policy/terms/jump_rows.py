"""The frozen rows of the jump server, and who may do what by them. PURE.

A line names people (persons and groups of the keeper), assets, the login there and what may be done. The keeper
decides by them; the inner part gets what a session may do with its grant.

Not here: how rows are made from a policy file (terms.jump), accounts and approvals (brokers.jump).
"""

from __future__ import annotations

import fnmatch
import string
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, Literal

import msgspec

from cofferdam.policy.hours import Window

Do = Literal["shell", "exec", "up", "down", "port"]
DOES: Final[tuple[Do, ...]] = ("shell", "exec", "up", "down", "port")
"""What may be done at an asset: a terminal, one command, files to it, files from it, asking it by the broker of its
own protocol."""
PERSON, GROUP = "person:", "group:"


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of `allow`. `who`: "person:NAME" or "group:NAME". `login`: the account at the asset. `commands`: what
    `exec` may run, as patterns. `paths`: where files may be, as patterns; empty: anywhere that the login may. `opaque`:
    programs that `exec` may run whatever they are told, recorded both ways."""

    number: int
    who: tuple[str, ...]
    assets: tuple[str, ...]
    login: str
    do: tuple[Do, ...]
    commands: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose word it takes: `people` members of the groups `by`, for at most `window` seconds. `watched`: and one of
    them has to look on all the time. `signed`: their word is a signature by their own key. `always`: the hours in which
    it takes nobody's word."""

    by: tuple[str, ...]
    people: Literal[1, 2] = 1
    window: int = 14_400
    watched: bool = False
    signed: bool = False
    always: tuple[Window, ...] = ()


class Files(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What holds for files: the largest, all of a session, all of a person's day, how many in a second (bytes; 0: no
    limit), whether they are scanned, permission bits that may be set."""

    most: int = 1_000_000_000
    quota: int = 10_000_000_000
    day: int = 0
    rate: int = 0
    scan: bool = False
    mode: int = 0o666


class Rotate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a password is changed at an asset: `command` is run there, and `says` are the lines that it reads, with
    `{old}`, `{new}` and `{login}`. `every`: seconds after which that is done by itself; 0: when asked for."""

    command: str
    says: tuple[str, ...]
    every: int = 0


class JumpRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="jump"):
    """A conduit of the jump server. `clients` are principals by address. Times in seconds. `record`: terminals are
    recorded, and kept for `keep`, and all together in `room` bytes. `names`: as what people know the door. `lock`: when
    a terminal at which nobody types is blanked; 0: never. `certificates`: how long one counts; 0: there are none.
    `sessions`: of one person at a time; `sessions_at_asset`: of whomever; 0: no limit."""

    outer: str
    inner: str
    address: str
    port: int
    clients: tuple[str, ...]
    lines: tuple[Line, ...]
    approval: Approval | None = None
    record: bool = True
    keep: int = 31_536_000
    room: int = 50_000_000_000
    idle: int = 900
    lock: int = 0
    sessions: int = 4
    sessions_at_asset: int = 0
    files: Files = Files()
    rotate: Rotate | None = None
    certificates: int = 0
    notice: str = ""
    names: tuple[str, ...] = ()


class Right(msgspec.Struct, frozen=True):
    """What a line of a conduit lets somebody do."""

    conduit: str
    line: Line
    row: JumpRows

    @property
    def rule(self) -> str:
        return f"{self.conduit}/{self.line.number}"


def names(person: str, groups: Iterable[str]) -> frozenset[str]:
    """As whom a person counts in rules."""
    return frozenset({PERSON + person, *(GROUP + group for group in groups)})


def rights(rows: Mapping[str, JumpRows], who: Collection[str]) -> Iterator[Right]:
    """All that they may do, whether or not a conduit is open now."""
    for conduit, row in rows.items():
        for line in row.lines:
            if not who.isdisjoint(line.who) if isinstance(who, frozenset) else set(who) & set(line.who):
                yield Right(conduit, line, row)


def matching(
    rows: Mapping[str, JumpRows], who: Collection[str], asset: str, do: Do, login: str = "", command: str = ""
) -> list[Right]:
    """The lines that let them do this. `login` "": whichever the line says."""
    return [
        right for right in rights(rows, who)
        if asset in right.line.assets and do in right.line.do and login in ("", right.line.login)
        and (do != "exec" or fits(command, right.line.commands) or is_opaque(command, right.line.opaque))
    ]  # fmt: skip


def fits(text: str, patterns: Iterable[str]) -> bool:
    """Whether a command is one of these: exactly, or by `*` within a pattern. What a shell would read as more than one
    command never fits a pattern, only its own exact text."""
    for pattern in patterns:
        if text == pattern:
            return True
        if "*" in pattern and not set(text) & set(";&|<>`$\n\r\\(){}") and fnmatch.fnmatchcase(text, _literal(pattern)):
            return True
    return False


def is_opaque(text: str, programs: Iterable[str]) -> bool:
    """Whether a command is one of these programs, by the very word that the rule has, with whatever arguments, and for
    a shell nothing but that one command. An rsync that is a client of its own is none: it would begin things there."""
    words = words_of(text)
    if not words or words[0] not in programs:
        return False
    return words[0].rpartition("/")[2] != "rsync" or words[1:2] == ["--server"]


def words_of(text: str) -> list[str]:
    """The words of a command, if any POSIX shell reads it as one command and puts nothing in the place of what stands
    there but names of files; none: it does not."""
    words: list[str] = []
    word, quote, escaped = "", "", False
    begun = False
    for letter in text:
        if not letter.isprintable():
            return []
        if escaped:
            word, escaped = word + letter, False
        elif quote == "'":
            word, quote = (word, "") if letter == "'" else (word + letter, quote)
        elif quote:
            if letter in "$`\\":
                return []
            word, quote = (word, "") if letter == '"' else (word + letter, quote)
        elif letter in "'\"":
            quote, begun = letter, True
        elif letter == "\\":
            escaped = begun = True
        elif letter == " ":
            if begun:
                words.append(word)
            word, begun = "", False
        elif letter in _PLAIN:
            word, begun = word + letter, True
        else:
            return []
    if quote or escaped:
        return []
    return [*words, word] if begun else words


_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "-._/:=,+%@^*?[]~")
"""What is nothing to a shell, and `*?[]~`, which stand for names of files."""


def _literal(pattern: str) -> str:
    """Only `*` is special."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def within(path: str, patterns: Iterable[str]) -> bool:
    """Whether an absolute, real path is in one of these: `/srv/logs/**` is the folder and all beneath it, `*` stands
    for anything within one name."""
    parts = path.split("/")
    return any(_within(parts, pattern.split("/")) for pattern in patterns)


def _within(parts: list[str], pattern: list[str]) -> bool:
    for index, word in enumerate(pattern):
        if word == "**":
            return index == len(pattern) - 1
        if index >= len(parts) or not fnmatch.fnmatchcase(parts[index], _literal(word)):
            return False
    return len(parts) == len(pattern)


def leads_to(path: str, patterns: Iterable[str]) -> bool:
    """Whether a folder lies on the way to one of these, so that it may be looked at."""
    parts = [part for part in path.split("/") if part]
    for pattern in patterns:
        words = [word for word in pattern.split("/") if word]
        if len(parts) <= len(words) and all(
            word == "**" or fnmatch.fnmatchcase(part, _literal(word)) for part, word in zip(parts, words, strict=False)
        ):
            return True
    return False
