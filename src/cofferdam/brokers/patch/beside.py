"""What lies beside a file and is none of its own: its detached signature, or the signed list of hashes that it stands
in; and by which way a file came, for products that nobody signs.

Not here: whether a signature holds (origin, in the examiner).
"""

from __future__ import annotations

from typing import Final

from cofferdam.brokers.patch.catalogue import FileRow, How
from cofferdam.brokers.patch.records import same_person
from cofferdam.policy.terms.patch_rows import Product

ENDINGS: Final[dict[str, tuple[str, ...]]] = {
    "pgp": (".asc", ".sig"), "minisign": (".minisig",), "cms": (".p7s", ".sig"), "wsus": (".asc", ".sig"),
    "sigstore": (".sigstore.json", ".sigstore"),
}  # fmt: skip
"""How a signature is called, behind the name of what it signs, by the kind of proof."""
SIGNATURES: Final = tuple(dict.fromkeys(ending for endings in ENDINGS.values() for ending in endings))
"""All of them."""
LIST: Final = ".list"
"""The list of a product's version, among names of files: none begins with a dot."""


def signature_of(product: Product, file: str) -> str:
    """The file whose detached signature this is, by its name (LIST: the list's); "" for one that is none."""
    if not product.origin.detached:
        return ""
    base = next((file[: -len(end)] for end in SIGNATURES if file.endswith(end) and len(file) > len(end)), "")
    if product.origin.list:
        return LIST if base == product.origin.list else ""
    return base


def is_list(product: Product, file: str) -> bool:
    return bool(product.origin.list) and file == product.origin.list


def waits_for(product: Product, row: FileRow) -> str:
    """What a file waits for, "" if it can be examined."""
    if product.origin.proof == "two-sources":
        return "" if row.second else "the same file by another way, from somebody else"
    if not product.origin.detached or row.signed:
        return ""
    if product.origin.list:
        return f"the list {product.origin.list} of its version, and the list's signature"
    return f"its signature, {row.file}{' or '.join(ENDINGS[product.origin.proof])}"


def another_way(row: FileRow, by: str, how: How) -> bool:
    """Whether this is a second source of a file: by another way, and from another one. What one outer part says of whom
    it got a file from, nobody else has seen: all that comes by it is one way."""
    if same_person(by) == same_person(row.by):
        return False
    return how != row.how or how == "put"
