"""The frozen rows of the patch relay's sources: where files are fetched from, when, and which of them. PURE.

Not here: how rows are made from a policy file (terms.patch), who fetches (brokers.patch.fetcher).
"""

from __future__ import annotations

import fnmatch
import functools
import re
from typing import Final, Literal

import msgspec

from cofferdam.policy.hours import Window

FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")
"""A file's name or a version: as records.FileName has it."""
VERSION: Final = "{version}"


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A server that a source may be asked at. `name`: what its certificate is for, and what it is asked as. It is known
    by `authority` (PEM), by the hex SHA-256 of its public key (`key`), or by both."""

    name: str
    address: str
    port: int
    authority: bytes = b""
    key: str = ""


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a vendor's JSON has what is needed: words with dots between them, "" for what it has not. `items` leads to
    a list; the others begin at one of its entries. `file` may be a whole URL."""

    items: str = ""
    file: str = "file"
    version: str = ""
    sha256: str = ""


class Apt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Debian repository: dists/SUITE beneath the source's path."""

    suite: str
    components: tuple[str, ...]
    architectures: tuple[str, ...]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One source. `hosts`: the first is asked, and may lead to the others. `via`: a proxy of the site's that connects
    to them (address, port). `every`: seconds; `rate`: bytes a second. `folder`: the site's, for a kind of its own.
    `since`: the first day whose documents of a CSAF provider are wanted, as 20250101; "": all."""

    name: str
    kind: Literal["https", "apt", "folder"]
    hosts: tuple[Host, ...] = ()
    via: tuple[str, int] | None = None
    path: str = "/"
    listing: Literal["directory", "list", "json", "csaf", ""] = ""
    since: str = ""
    mapping: Mapping | None = None
    apt: Apt | None = None
    every: int = 21_600
    windows: tuple[Window, ...] = ()
    rate: int = 1_000_000
    folder: str = ""


class Fetch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which files of a source are a product's. `number` counts the conduit's lines from 0. `files`: patterns, with `*`
    and {version}; `packages`: of a Debian repository, with `*`."""

    number: int
    source: str
    product: str
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def version_of(self, file: str, said: str = "") -> str:
        """The version of a file by its name, where a pattern takes it; `said`: what the source says it is, for patterns
        that do not tell. "": no pattern takes it."""
        if not FILE.match(file):
            return ""
        for pattern in self.files:
            found = compiled(pattern).match(file)
            if found is not None:
                version = found["version"] if VERSION in pattern else said
                if FILE.match(version):
                    return version
        return ""

    def takes(self, file: str, version: str) -> bool:
        """Whether this line names such a file."""
        return bool(version) and self.version_of(file, version) == version

    def wants(self, package: str) -> bool:
        return any(fnmatch.fnmatchcase(package, pattern) for pattern in self.packages)


@functools.lru_cache(256)
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of file names."""
    made = ""
    for piece in re.split(r"(\{version\}|\*)", pattern):
        if piece == VERSION:
            made += r"(?P<version>[A-Za-z0-9][A-Za-z0-9._+-]*?)"
        else:
            made += "[A-Za-z0-9._+-]*" if piece == "*" else re.escape(piece)
    return re.compile(made + r"\Z")


def bundle_name(suite: str, version: str) -> str:
    """The file that a snapshot of a Debian repository becomes."""
    return f"{suite.replace('/', '-')}-{version}.tar"
