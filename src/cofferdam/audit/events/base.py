"""What all drafts of audit events share: the base class, the types of their members and their greatest lengths."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_SAFE_INTEGER = (1 << 53) - 1
"""Beyond this an integer is not exact in every JSON tool (RFC 8785, 3.2.2.3 and appendix D)."""
NAME, TEXT, ADDRESS = 128, 512, 80
"""Greatest lengths in characters: of a name, of a sentence, of an IP address, or `jump:` and the name of a conduit."""
Name = Annotated[str, Meta(max_length=NAME)]
Text = Annotated[str, Meta(max_length=TEXT)]
Address = Annotated[str, Meta(max_length=ADDRESS)]
Hash = Annotated[str, Meta(max_length=64, pattern="^([0-9a-f]{64})?$")]
Count = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
Small = Annotated[int, Meta(ge=-1, le=1 << 32)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Cell = Annotated[int, Meta(ge=0, le=65535)]
WallNs = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Names = Annotated[tuple[Name, ...], Meta(max_length=16)]


def kebab(name: str) -> str:
    """The kind of a draft class: WriteAllowed is "write-allowed"."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def clip(text: str, length: int = TEXT) -> str:
    """`text`, cut to `length` characters with an ellipsis, and without what is not Unicode text (lone surrogates)."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= length else text[: length - 1] + "…"


class Event(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=kebab
):
    """What all drafts share: `wall_ns`, when it happened by the maker's clock, UTC, ns since 1970; 0 if unknown."""

    wall_ns: WallNs = 0


def number(value: float | int | bool) -> str:
    """A point's value as text: shortest form that reads back as the same number."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
