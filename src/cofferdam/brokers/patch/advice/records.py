"""What a reader is given, and what it says of a document. The keeper judges the answer as an attacker's.

Not here: what a document says of versions (matching), what becomes of it (ledger).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from cofferdam.policy.terms.patch_rows import Software

ADVICE_MOST: Final = 2000
"""Advisories of one document: a list has many."""
MATCHES_MOST: Final = 10_000
"""Assets that one document names, over all its advisories."""
DOCUMENT_BYTES: Final = 32 << 20

Id = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/+-]*$")]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Line = Annotated[str, Meta(max_length=300)]
Word = Annotated[str, Meta(max_length=64)]
Day = Annotated[int, Meta(ge=0, le=(1 << 62))]

Verdict = Literal["affected", "not affected", "unknown"]
VendorState = Literal["", "available", "in-test", "not-approved", "not-applicable", "approved"]
"""IEC TR 62443-2-3: where a patch stands at the vendor of the product that it is for."""


class Match(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What an advisory says of an asset that it names. Assets that it does not name are unknown as well."""

    asset: Name
    verdict: Verdict
    why: Line = ""


class Advice(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One advisory, or one patch of a list. `released`: UTC ns, 0 where it is not said."""

    id: Id
    title: Line = ""
    revision: Word = ""
    released: Day = 0
    severity: Word = ""
    vulnerabilities: Annotated[tuple[Word, ...], Meta(max_length=32)] = ()
    patch: Line = ""
    """What is to be installed, in its own words."""
    vendor: VendorState = ""
    matches: Annotated[tuple[Match, ...], Meta(max_length=MATCHES_MOST)] = ()


class Reading(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`refused`: why it is none of the documents that are known here."""

    kind: Literal["csaf", "list", "sbom", ""] = ""
    refused: Line = ""
    provider: Line = ""
    advice: Annotated[tuple[Advice, ...], Meta(max_length=ADVICE_MOST)] = ()


class ReadOrder(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Paths beneath the keeper's store; `boms`: SBOMs that were taken before."""

    file: str
    name: str
    provider: str = ""
    inventory: tuple[Software, ...] = ()
    boms: tuple[str, ...] = ()
