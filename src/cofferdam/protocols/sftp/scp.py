"""The old protocol of scp (OpenSSH 8 and before, `scp -O`, `pscp -scp`): its command, and the lines that both ends say.
PURE.

There is no standard: what is here is what OpenSSH's and PuTTY's programs say. A line names a file or a folder within
the one before, and nothing else: a name that leads elsewhere is refused, whoever says it.

Not here: who does what when (the brokers), SFTP (machine).
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from msgspec import Struct

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.sftp.messages import PATH_BYTES

SECTION: Final = "scp"
"""No standard has it."""
LINE_BYTES: Final = 4_608
NAME_BYTES: Final = 255
PATHS_MOST: Final = 64
_HEAD: Final = re.compile(rb"([CD])([0-7]{4,5}) (0|[1-9][0-9]{0,18}) (.+)\Z", re.DOTALL)
_TIMES: Final = re.compile(rb"T(0|[1-9][0-9]{0,9}) [0-9]{1,6} (0|[1-9][0-9]{0,9}) [0-9]{1,6}\Z")
_WORD: Final = (1 << 32) - 1


class Asked(Struct, frozen=True):
    """What a client wants: to bring files (`up`), or to be given some. `folder`: the target has to be one."""

    up: bool
    paths: tuple[str, ...]
    recursive: bool = False
    times: bool = False
    folder: bool = False


class Head(Struct, frozen=True):
    """A file of so many bytes comes, or a folder begins."""

    folder: bool
    mode: int
    size: int
    name: str


class Times(Struct, frozen=True):
    """Of the file that comes next: changed, read (UTC seconds)."""

    changed: int
    read: int


class End(Struct, frozen=True):
    """The folder is over."""


class Said(Struct, frozen=True):
    """The other end has a complaint; with `fatal` it goes."""

    text: str
    fatal: bool


def command(text: str) -> Asked | None:
    """What `scp -t ...` or `scp -f ...` asks for, as scp has a shell run it; None: it is another command. What only a
    shell would make of it (patterns, variables) stands for itself."""
    if not text.startswith(("scp ", "/usr/bin/scp ")):
        return None
    try:
        _, *words = shlex.split(text)
    except ValueError:
        return None
    flags = ""
    while words and words[0].startswith("-") and len(words[0]) > 1:
        word = words.pop(0)
        if word == "--":
            break
        flags += word[1:]
    good = all(len(path.encode("utf-8", "surrogateescape")) <= PATH_BYTES and "\0" not in path for path in words)
    if set(flags) - set("tfrpdqv") or ("t" in flags) == ("f" in flags) or not good:
        return None
    if not words or len(words) > (1 if "t" in flags else PATHS_MOST):
        return None
    return Asked("t" in flags, tuple(path or "." for path in words), "r" in flags, "p" in flags, "d" in flags)


def line(data: bytes) -> Head | Times | End | Said:
    """One line of a client that brings files, without its end. Raises: RemoteProtocolError."""
    if data[:1] in (b"\1", b"\2"):
        return Said(data[1:].decode("utf-8", "replace")[:400], data[:1] == b"\2")
    if data == b"E":
        return End()
    if times := _TIMES.match(data):
        changed, read = int(times[1]), int(times[2])
        if max(changed, read) > _WORD:
            raise RemoteProtocolError("a time that is none", section=SECTION)
        return Times(changed, read)
    head = _HEAD.match(data)
    if head is None:
        raise RemoteProtocolError(f"a line that is none: {data[:40]!r}", section=SECTION)
    size = int(head[3])
    if size >= 1 << 63:
        raise RemoteProtocolError("a size that is none", section=SECTION)
    return Head(head[1] == b"D", int(head[2], 8) & 0o7777, size, _name(head[4]))


def _name(data: bytes) -> str:
    try:
        name = data.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("a name that is no UTF-8", section=SECTION) from None
    if name in (".", "..") or "/" in name or "\0" in name or "\n" in name or len(data) > NAME_BYTES:
        raise RemoteProtocolError("a name that leads elsewhere, or is none", section=SECTION)
    return name


def head(said: Head) -> bytes:
    """The line for a file or folder that is given."""
    name = said.name.replace("\n", "\\n")
    return f"{'D' if said.folder else 'C'}{said.mode & 0o777:04o} {said.size} {name}\n".encode()


def times(said: Times) -> bytes:
    """The line before it."""
    return f"T{said.changed} 0 {said.read} 0\n".encode()


def complaint(text: str) -> bytes:
    """Why something was not done. What stands in it must not be a line of its own."""
    return b"\1scp: " + "".join(letter if letter.isprintable() else "?" for letter in text).encode() + b"\n"
