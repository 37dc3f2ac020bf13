"""What a policy says of who signs a sigstore bundle, and what is wrong with that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from cofferdam.brokers.patch import apt_sign
from cofferdam.errors import PolicyError
from cofferdam.policy.notations import NAME
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from cofferdam.policy.terms.patch_rows import Origin, PatchRows, Product
from tests.brokers.patch.test_source_words import compiled

POLICY = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
principals: {stage: {zone: office, addresses: 10.1.0.9}}
conduits:
  firmware:
    {from: office, to: plant, broker: patch, owner: maintenance, reason: firmware, root: root.json,
     listen: {office: {at: "10.1.0.1:8443", plain: true}},
     products: {fw: {origin: {sigstore: trust.json, identity: "release@vendor.example", issuer: "https://i.example"},
                     scan: none}},
     ways: {press: {address: 10.0.0.1, tftp: {}}},
     allow: [{who: stage, put: fw}, {asset: press, install: fw}]}
gate: {separation: processes}
"""
TRUST = b'{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'


def test_the_keeper_alone_is_told_who_signs(tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_bytes(TRUST)
    policy = compiled(tmp_path, POLICY)
    scope = Scope(frozenset({"firmware"}), frozenset({"fw"}))

    def told(part: str) -> tuple[tuple[bytes, ...], str, str]:
        terms = KINDS["patch"].slice(policy, scope, part).conduits["firmware"].terms
        assert isinstance(terms, PatchRows)
        return terms.products[0].origin.keys, terms.products[0].origin.identity, terms.products[0].origin.issuer

    assert told("keeper") == ((TRUST,), "release@vendor.example", "https://i.example")
    assert told("installer") == told("intake") == ((), "", "")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (', identity: "release@vendor.example"', "", "without `identity`"),
        (', issuer: "https://i.example"', "", "without `issuer`"),
        ("sigstore: trust.json", "pgp: trust.json", "`sigstore` with `identity` and `issuer`"),
        ("release@vendor.example", "https://forge.example/*", "behind `@refs/`"),
        ("release@vendor.example", "https://f.example/a.yml@refs/tags/v{version}*", "behind `@refs/`"),
        ("sigstore: trust.json", "sigstore: root.json", "a trust root of sigstore's"),
        ("sigstore: trust.json", "sigstore: none.json", "none.json"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path: Path, old: str, new: str, says: str) -> None:
    (tmp_path / "trust.json").write_bytes(TRUST)
    compiled(tmp_path, POLICY.replace("release@vendor.example", "https://f.example/a.yml@refs/tags/*"))
    with pytest.raises(PolicyError) as error:
        compiled(tmp_path, POLICY.replace(old, new))
    assert says in str(error.value.problems)


def test_a_key_for_repositories_is_for_repositories(tmp_path: Path) -> None:
    """And nobody but who uses it hears of it."""
    (tmp_path / "trust.json").write_bytes(TRUST)
    with pytest.raises(PolicyError) as error:
        compiled(tmp_path, POLICY.replace("origin:", "sign: site-apt, origin:", 1))
    assert "is no Debian repository" in str(error.value.problems)
    products = [Product(name="fw", origin=Origin(proof="apt", keys=()), most=1, sign="site-apt")]
    row, scope = PatchRows(products=tuple(products)), Scope(frozenset({"firmware"}), frozenset({"fw"}))
    conduit = replace(compiled(tmp_path, POLICY).conduits["firmware"], terms=row)
    terms = KINDS["patch"]
    told = {part: terms.cut(conduit, scope, part) for part in ("intake", "fetcher", "installer")}
    assert {part: found.products[0].sign for part, found in told.items() if isinstance(found, PatchRows)} == {
        "intake": "", "fetcher": "", "installer": "site-apt",
    }  # fmt: skip


def test_a_key_for_repositories_has_a_place_that_no_assets_secret_can_have() -> None:
    """Whoever gives an asset the same name: the asset is not shown the key, and its password does not overwrite it."""
    assert apt_sign.place("press") != "press"
    assert not re.fullmatch(NAME, apt_sign.place("press"))
