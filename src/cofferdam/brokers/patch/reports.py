"""What the keeper orders of an examiner, and what an examiner answers. Without the libraries that an examination takes.

Not here: the examination (examiner), what an answer leads to (examining).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=1000)]


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """What to look at: paths beneath the keeper's store; without a `file`, at the scanner alone. `opens`: the keys of
    those that are sealed; `feed`: by which the file comes once, for what opens no seal (feeding). `list`: of hashes,
    which is what `signature` signs; `name`, `version`: the file's; `first`, `second`: how it came, where nobody signs
    it; `yara`: the site's rules."""

    file: str
    proof: str
    keys: tuple[str, ...]
    publisher: str = ""
    signature: str = ""
    list: str = ""
    name: str = ""
    version: str = ""
    first: str = ""
    second: str = ""
    stamps: tuple[str, ...] = ()
    exporters: tuple[str, ...] = ()
    identity: str = ""
    issuer: str = ""
    packages: tuple[str, ...] = ()
    """Of a repository's snapshot: what its rules name."""
    scan: str = ""
    yara: str = ""
    opens: dict[str, bytes] = {}
    feed: str = ""
    password: str = ""
    """Of archives."""

    def __repr__(self) -> str:
        return f"Order({self.file}, <secret>)"


class Report(Struct, frozen=True, forbid_unknown_fields=True):
    """What was found. `proved`: "" or why its origin is not; `archive`: "" or why it is refused as one."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Meta(ge=0)]
    origin: Text
    refused: Text
    facts: Annotated[dict[Annotated[str, Meta(max_length=64)], Text], Meta(max_length=16)]
    kind: Text
    archive: Text
    scan: Literal["clean", "found", "not scanned", "not asked"]
    scan_detail: Text
    base: Text
