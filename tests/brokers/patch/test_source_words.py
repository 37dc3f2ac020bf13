"""What a policy says of the patch relay's sources, and what is wrong with it, in words."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cofferdam.errors import PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.patch_rows import PatchRows

KEY = "ab" * 32
SERVER = f"at: '203.0.113.7:443', host: vendor.example, key: '{KEY}'"
POLICY = f"""
site: works
zones: {{office: {{side: it}}, plant: {{side: ot}}}}
principals:
  stage: {{zone: office, addresses: 10.1.0.9}}
conduits:
  firmware:
    from: office
    to: plant
    broker: patch
    owner: maintenance
    reason: firmware
    root: root.json
    listen:
      office: {{at: "10.1.0.1:8443", plain: true}}
    products:
      fw: {{origin: {{two_sources: true}}, scan: none}}
    sources:
      vendor: {{https: {{{SERVER}, path: /csaf/provider-metadata.json, listing: csaf, since: 2026-01-01}}}}
    allow:
      - {{source: vendor, fetch: fw, files: "*.json"}}
      - {{who: stage, put: fw}}
"""


def compiled(tmp_path: Path, text: str = POLICY) -> CompiledPolicy:
    (tmp_path / "policy.yaml").write_text(text)
    roles = {"targets": {"threshold": 2}}
    (tmp_path / "root.json").write_text(json.dumps({"signed": {"_type": "root", "roles": roles}}))
    return compile_policy(load(tmp_path / "policy.yaml"), now_ns=time.time_ns())


def test_a_csaf_provider_travels_as_it_is_said(tmp_path: Path) -> None:
    terms = compiled(tmp_path).conduits["firmware"].terms
    assert isinstance(terms, PatchRows)
    (source,) = terms.sources
    assert (source.listing, source.since, source.path) == ("csaf", "20260101", "/csaf/provider-metadata.json")
    assert terms.may_fetch("vendor", "fw", "20260304T050607Z", "adv-1.json") is not None
    assert terms.may_fetch("vendor", "fw", "20260304T050607Z", "adv-1.json.asc") is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("listing: csaf, ", "", "a listing that is a directory, expected `listing: csaf`"),
        ("*.json", "adv-{version}.json", "where a document's version is when it was changed"),
        ("listing: csaf", "listing: json", "`listing: json` with `json: {...}`"),
        ("listing: csaf", "listing: csav", "csaf"),
        ("since: 2026-01-01", "since: 1.1.2026", "a date such as 2027-06-30"),
        (", listing: csaf, since: 2026-01-01", "", "which does not say where the version is"),
        ("source: vendor", "source: vender", "vendor"),
        ("at: '203.0.113.7:443', ", "", "at: ADDRESS:PORT, since no part resolves names"),
        (f", key: '{KEY}'", "", "authority: FILE, or key: SHA-256"),
        (f"key: '{KEY}'", "key: abc", "64 hexadecimal digits"),
        ("      - {source: vendor, fetch: fw, files: \"*.json\"}\n", "", "from which no rule fetches"),
        ("{https: {", "{folder: in, https: {", "one of"),
        ('files: "*.json"', "packages: [openssl]", "files: [NAME-{version}.bin]"),
        ('fetch: fw, files: "*.json"', 'fetch: fw, files: "*.json", who: stage', "`source` with `fetch`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = POLICY.replace(old, new, 1)
    assert text != POLICY
    with pytest.raises(PolicyError) as error:
        compiled(tmp_path, text)
    assert any(says in str(problem) for problem in error.value.problems), "\n".join(map(str, error.value.problems))
