"""Is this software affected, by what an advisory states: affected, not affected, unknown. PURE.

    named, and its version is in one that is affected            affected
    named, and whether it is in one does not compare             unknown
    named, and its version is one that is said to be unaffected
        or fixed, or outside of all affected *ranges*            not affected
    named otherwise: other versions listed one by one, under
        investigation, named without a version                   unknown

What contradicts itself counts as affected. An asset that is not named at all is told to nobody as "not affected": it
does not appear, and stays unknown until a person says so (desk).

Not here: how versions compare (versions), how documents state it (csaf, lists, boms).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct

from cofferdam.audit.events.base import clip
from cofferdam.brokers.patch.advice.records import MATCHES_MOST, Match, Verdict
from cofferdam.brokers.patch.advice.versions import covers
from cofferdam.errors import CofferdamError
from cofferdam.policy.terms.patch_rows import Software

Says = Literal["affected", "not affected", "fixed", "investigated"]
_ORDER: Final = {"affected": 2, "unknown": 1, "not affected": 0}


class NotRead(CofferdamError):
    """It is none of the documents that are known here."""


class Stated(Struct, frozen=True):
    """What an advisory states of versions of a product. `vendor` "": its name alone is known, as one text, and of which
    version it speaks is not. `versions`: a range, or one version. `on`: products that must be there as well, whose
    presence is not known here."""

    vendor: str
    products: tuple[str, ...]
    versions: str
    says: Says
    ranged: bool = False
    on: str = ""


_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,99}\Z")


def identity(text: str) -> str:
    """An advisory's name, as people type it. Raises: NotRead."""
    name = "-".join(text.split())
    if not _ID.match(name):
        raise NotRead(f"its id {text[:60]!r} is none: letters, digits and . _ : / + -, at most 100")
    return name


def folded(text: str) -> str:
    return " ".join(text.casefold().split())


def matches(statements: Sequence[Stated], inventory: Iterable[Software]) -> tuple[Match, ...]:
    """Of each asset that is named, what is stated of it; the worst of what runs there."""
    named: dict[str, list[Stated]] = {}
    loose = [(folded(" ".join(one.products)), one) for one in statements if not one.vendor]
    for one in statements:
        for product in one.products if one.vendor else ():
            named.setdefault(folded(product), []).append(one)
    found: dict[str, Match] = {}
    for software in inventory:
        verdict = _of(software, named, loose)
        if verdict is None:
            continue
        what = f"{software.product[0]} {software.version}: {verdict[1]}"
        match = Match(software.asset, verdict[0], clip(what, 300))
        before = found.get(software.asset)
        if before is None or _ORDER[match.verdict] > _ORDER[before.verdict]:
            found[software.asset] = match
            if len(found) > MATCHES_MOST:
                raise NotRead(f"it names more than {MATCHES_MOST} assets")
    return tuple(found[asset] for asset in sorted(found))


def _of(
    software: Software, named: dict[str, list[Stated]], loose: list[tuple[str, Stated]]
) -> tuple[Verdict, str] | None:
    vendors = {folded(vendor) for vendor in software.vendor}
    products = [folded(product) for product in software.product]
    mine = [one for product in products for one in named.get(product, ()) if folded(one.vendor) in vendors]
    if not mine:
        for text, one in loose:
            if any(product in text for product in products):
                return "unknown", f"it is named as {one.products[0]!r}, without a vendor or version that compares"
        return None
    unsure = ""
    for one in mine:
        if one.says != "affected":
            continue
        within = _covers(one, software)
        if within and not one.on:
            return "affected", f"affected: {one.versions}"
        if within is None or within:
            unsure = f"affected on {one.on}" if within else f"does not compare with {one.versions!r}"
    if unsure:
        return "unknown", unsure
    for one in mine:
        if one.says == "investigated" and _covers(one, software) is not False:
            return "unknown", "under investigation"
    for one in mine:
        if one.says in ("not affected", "fixed") and _covers(one, software):
            return "not affected", f"{one.says}: {one.versions}"
    ranges = [one for one in mine if one.says == "affected"]
    if ranges and all(one.ranged for one in ranges):
        return "not affected", f"not in {'; '.join(sorted({one.versions for one in ranges}))}"
    return "unknown", "named, and nothing is said of this version"


def _covers(one: Stated, software: Software) -> bool | None:
    if one.ranged:
        return covers(one.versions, software.version, software.scheme)
    if folded(one.versions) == folded(software.version):
        return True
    return covers(f"={one.versions}", software.version, software.scheme)
