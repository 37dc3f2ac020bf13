"""CycloneDX SBOMs (1.4 to 1.6, JSON): of what a product of a version is made. What is stated of a part is stated of
each asset that runs the product.

Not here: XML, SPDX, vulnerabilities and VEX within an SBOM (say that by CSAF).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from cofferdam.brokers.patch.advice.matching import NotRead, folded
from cofferdam.brokers.patch.advice.versions import VERS
from cofferdam.policy.terms.patch_rows import Software

PARTS_MOST: Final = 20_000
_VERSIONS: Final = ("1.4", "1.5", "1.6")
_PURL: Final = re.compile(r"pkg:([a-zA-Z0-9.+-]+)/")
Text = Annotated[str, Meta(max_length=500)]


class _Maker(Struct):
    name: Text = ""


class _Component(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=500)]
    version: Text = ""
    group: Text = ""
    publisher: Text = ""
    supplier: _Maker | None = None
    manufacturer: _Maker | None = None
    purl: Text = ""
    components: tuple[_Component, ...] = ()

    @property
    def vendors(self) -> tuple[str, ...]:
        makers = [maker.name for maker in (self.supplier, self.manufacturer) if maker is not None]
        return tuple(dict.fromkeys(name for name in (*makers, self.publisher, self.group) if name)) or (self.name,)


class _Metadata(Struct):
    component: _Component


class Bom(Struct):
    """As far as it is read here. `bomFormat` and `specVersion` are CycloneDX's words."""

    bomFormat: str
    specVersion: str
    metadata: _Metadata
    components: tuple[_Component, ...] = ()


def read(document: Any) -> Bom:
    """Raises: NotRead."""
    try:
        found = msgspec.convert(document, Bom)
    except msgspec.ValidationError as error:
        raise NotRead(f"the SBOM is not as CycloneDX has it: {error}") from None
    if found.bomFormat != "CycloneDX" or found.specVersion not in _VERSIONS:
        raise NotRead(f"an SBOM of {found.bomFormat[:20]} {found.specVersion[:10]}; CycloneDX {', '.join(_VERSIONS)}")
    top = found.metadata.component
    if not top.version:
        raise NotRead("the SBOM does not say which version of what it describes (metadata.component)")
    if sum(1 for _ in _walk(found)) > PARTS_MOST:
        raise NotRead(f"the SBOM has more than {PARTS_MOST} parts")
    return found


def _walk(bom: Bom) -> Any:
    stack = list(bom.components)
    while stack:
        one = stack.pop()
        yield one
        stack += one.components


def parts_of(bom: Bom, inventory: tuple[Software, ...]) -> list[Software]:
    """What runs on those assets that run what the SBOM describes, besides."""
    top = bom.metadata.component
    vendors = {folded(vendor) for vendor in top.vendors}
    assets = sorted({
        one.asset for one in inventory
        if folded(top.version) == folded(one.version)
        and any(folded(product) == folded(top.name) for product in one.product)
        and any(folded(vendor) in vendors for vendor in one.vendor)
    })  # fmt: skip
    found: list[Software] = []
    for one in _walk(bom) if assets else ():
        kind = _PURL.match(one.purl)
        scheme: Any = VERS.get(kind[1].lower(), "intdot") if kind else "intdot"
        for asset in assets:
            found.append(
                Software(asset=asset, vendor=one.vendors, product=(one.name,), version=one.version, scheme=scheme)
            )
        if len(found) > PARTS_MOST:
            raise NotRead(f"SBOMs give more than {PARTS_MOST} parts on assets")
    return found
