"""CSAF 2.0 (OASIS Standard, November 2022): one document, checked by its JSON Schema and by what the schema cannot say.

Of its mandatory tests (6.1) these are held: 6.1.1 a product that is not defined, 6.1.2 one that is defined twice, 6.1.3
relationships in a circle, 6.1.6 a product that is affected and not affected at once. The others judge the author's
craft, not what is read here.

Not here: signatures (origin), versions (matching).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.brokers.patch.advice.matching import NotRead, Says, Stated, identity, matches
from cofferdam.brokers.patch.advice.records import Advice
from cofferdam.policy.terms.patch_rows import Software

PRODUCTS_MOST: Final = 100_000
DEEPEST: Final = 100
_SCHEMAS: Final = {
    path.name: msgspec.json.decode(path.read_bytes()) for path in (Path(__file__).parent / "schema").glob("*.json")
}
_STATUS: Final[dict[str, Says]] = {
    "known_affected": "affected", "first_affected": "affected", "last_affected": "affected",
    "known_not_affected": "not affected", "fixed": "fixed", "first_fixed": "fixed",
    "under_investigation": "investigated",
}  # fmt: skip
"""What is stated by each list of product_status (3.2.3.9); `recommended` states nothing of what runs."""


def _referred(uri: str) -> Any:
    """The schemas that CSAF's refers to: nothing is fetched."""
    return _SCHEMAS[uri.rpartition("/")[2]]


_VALIDATOR: Final = jsonschema_rs.Draft202012Validator(
    _SCHEMAS["csaf.json"], retriever=_referred, validate_formats=True
)


class _Product(msgspec.Struct):
    vendor: str = ""
    names: tuple[str, ...] = ()
    version: str = ""
    ranged: bool = False
    on: str = ""


def read(document: Any, provider: str, inventory: tuple[Software, ...]) -> tuple[Advice, str]:
    """(what it says, who published it). Raises: NotRead."""
    wrong = next(iter(_VALIDATOR.iter_errors(document)), None)
    if wrong is not None:
        place = "/".join(map(str, wrong.instance_path))
        raise NotRead(f"it is not as the schema of CSAF 2.0 has it: {place[:80]}: {str(wrong.message)[:160]}")
    head = document["document"]
    publisher = str(head["publisher"]["namespace"])
    if publisher.rstrip("/") != provider.rstrip("/"):
        raise NotRead(f"it is published by {publisher[:100]}, and the policy has {provider}")
    tracking = head["tracking"]
    if tracking["status"] not in ("final", "interim"):
        raise NotRead(f"it is a {tracking['status']}")
    products = _products(document.get("product_tree", {}))
    vulnerabilities = document.get("vulnerabilities", [])
    statements = list(_statements(vulnerabilities, products))
    severity = head.get("aggregate_severity", {}).get("text", "")
    rated = [score for each in vulnerabilities for score in each.get("scores", ())]
    scores = [score.get("cvss_v3", {}).get("baseScore", 0) for score in rated]
    if scores and max(scores):
        severity = f"{severity} CVSS {max(scores)}".strip()
    advice = Advice(
        id=identity(tracking["id"]), title=clip(head["title"], 300), revision=tracking["version"][:64],
        released=moment(tracking["current_release_date"]), severity=clip(severity, 64),
        vulnerabilities=tuple(str(each["cve"])[:64] for each in vulnerabilities if "cve" in each)[:32],
        patch=clip(_patch(vulnerabilities), 300), matches=matches(statements, inventory),
    )  # fmt: skip
    return advice, publisher


def moment(text: str) -> int:
    """A time of RFC 3339, as UTC ns. Raises: NotRead."""
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return max(0, int(found.timestamp())) * 1_000_000_000
    except (ValueError, OverflowError):
        raise NotRead(f"a time that is none: {text[:40]!r}") from None


def _products(tree: Any) -> dict[str, _Product]:
    found: dict[str, _Product] = {}

    def take(product: Any, made: _Product) -> None:
        number = product["product_id"]
        if number in found:
            raise NotRead(f"the product {number[:60]!r} is defined twice (6.1.2)")
        if len(found) >= PRODUCTS_MOST:
            raise NotRead(f"it has more than {PRODUCTS_MOST} products")
        helper = product.get("product_identification_helper", {})
        models = (*helper.get("model_numbers", ()), *helper.get("skus", ()))
        names = made.names or (product["name"],)
        found[number] = msgspec.structs.replace(made, names=(*names, *models))

    stack: list[tuple[Any, _Product, int]] = [(branch, _Product(), 1) for branch in reversed(tree.get("branches", []))]
    while stack:
        branch, above, depth = stack.pop()
        if depth > DEEPEST:
            raise NotRead(f"its branches are deeper than {DEEPEST}")
        made = _under(branch, above)
        if "product" in branch:
            take(branch["product"], made)
        stack += [(each, made, depth + 1) for each in reversed(branch.get("branches", []))]
    for product in tree.get("full_product_names", []):
        take(product, _Product())
    _relate(tree.get("relationships", []), found)
    for group in tree.get("product_groups", []):
        for number in group["product_ids"]:
            if number not in found:
                raise NotRead(f"the product {number[:60]!r} is not defined (6.1.1)")
    return found


def _under(branch: Any, above: _Product) -> _Product:
    category, name = branch["category"], branch["name"]
    replace = msgspec.structs.replace
    if category == "vendor":
        return replace(above, vendor=name)
    if category == "product_name":
        return replace(above, names=(*above.names, name))
    if category in ("product_version", "product_version_range"):
        return replace(above, version=name, ranged=category == "product_version_range")
    if category in ("patch_level", "service_pack"):
        return replace(above, version=f"{above.version} {name}".strip(), ranged=False)
    return above


def _relate(relations: Any, found: dict[str, _Product]) -> None:
    """A product that is made of two: what is stated of it holds where the first runs on the second. Those that refer to
    others are done when the others are; what is left over then goes in a circle, or refers to nothing."""
    rest = list(relations)
    if len(rest) + len(found) > PRODUCTS_MOST:
        raise NotRead(f"it has more than {PRODUCTS_MOST} products")
    waits: dict[str, list[Any]] = {}
    ready = []
    for one in rest:
        number = one["full_product_name"]["product_id"]
        if number in found:
            raise NotRead(f"the product {number[:60]!r} is defined twice (6.1.2)")
        missing = next((one[word] for word in ("product_reference", "relates_to_product_reference")
                        if one[word] not in found), None)  # fmt: skip
        if missing is None:
            ready.append(one)
        else:
            waits.setdefault(missing, []).append(one)
    done = 0
    while ready:
        one = ready.pop()
        done += 1
        first, second = found[one["product_reference"]], found[one["relates_to_product_reference"]]
        number = one["full_product_name"]["product_id"]
        if number in found:
            raise NotRead(f"the product {number[:60]!r} is defined twice (6.1.2)")
        on = " ".join((*second.names[:1], second.version)) or "another product"
        found[number] = msgspec.structs.replace(first, on=on[:100])
        for other in waits.pop(number, ()):
            missing = next((other[word] for word in ("product_reference", "relates_to_product_reference")
                            if other[word] not in found), None)  # fmt: skip
            if missing is None:
                ready.append(other)
            else:
                waits.setdefault(missing, []).append(other)
    if done < len(rest):
        missing = next(iter(waits))
        known = {one["full_product_name"]["product_id"] for one in rest}
        if missing in known:
            raise NotRead(f"its relationships go in a circle at {missing[:60]!r} (6.1.3)")
        raise NotRead(f"the product {missing[:60]!r} is not defined (6.1.1)")


def _statements(vulnerabilities: Any, products: dict[str, _Product]) -> Iterator[Stated]:
    for each in vulnerabilities:
        status = each.get("product_status", {})
        kinds: dict[str, str] = {}
        for word, numbers in status.items():
            says = _STATUS.get(word)
            for number in numbers:
                product = products.get(number)
                if product is None:
                    raise NotRead(f"the product {number[:60]!r} is not defined (6.1.1)")
                if says is None:
                    continue
                other = kinds.setdefault(number, says)
                if other != says:
                    raise NotRead(f"the product {number[:60]!r} is {other} and {says} at once (6.1.6)")
                if not product.vendor or not product.version:
                    yield Stated("", (" ".join((product.vendor, *product.names)),), "", says)
                else:
                    yield Stated(product.vendor, product.names, product.version, says, product.ranged, product.on)


def _patch(vulnerabilities: Any) -> str:
    for each in vulnerabilities:
        for remedy in each.get("remediations", ()):
            if remedy["category"] == "vendor_fix":
                return f"{remedy['details']} {remedy.get('url', '')}".strip()
    return ""
