"""What a policy says of who signs a sigstore bundle, and what is wrong with that."""

from __future__ import annotations

from pathlib import Path

import pytest

from cofferdam.errors import PolicyError
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from cofferdam.policy.terms.patch_rows import PatchRows
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
