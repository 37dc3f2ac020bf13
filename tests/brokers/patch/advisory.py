"""Documents as vendors write them: CSAF 2.0, CycloneDX, a list of patches."""

from __future__ import annotations

import json
from typing import Any

VENDOR = "https://vendor.example"


def csaf(
    number: str = "VEN-2026-1", *, versions: tuple[tuple[str, str, str], ...] = (("product_version_range",
    "vers:intdot/<3.0", "known_affected"), ("product_version_range", "vers:intdot/>=3.0", "fixed")),
    released: str = "2026-11-01T08:00:00Z", revision: str = "1", namespace: str = VENDOR, vendor: str = "Vendor",
    product: str = "PLC 9", status: str = "final",
) -> dict[str, Any]:  # fmt: skip
    """`versions`: (category, name, list of product_status)."""
    branches = [
        {"category": category, "name": name, "product": {"product_id": f"P{index}", "name": f"{product} {name}"}}
        for index, (category, name, _) in enumerate(versions)
    ]
    lists: dict[str, list[str]] = {}
    for index, (_, _, says) in enumerate(versions):
        lists.setdefault(says, []).append(f"P{index}")
    return {
        "document": {
            "category": "csaf_security_advisory", "csaf_version": "2.0", "title": "A way past the login",
            "publisher": {"category": "vendor", "name": vendor, "namespace": namespace},
            "tracking": {
                "id": number, "status": status, "version": revision, "initial_release_date": "2026-11-01T08:00:00Z",
                "current_release_date": released,
                "revision_history": [{"date": "2026-11-01T08:00:00Z", "number": "1", "summary": "first"}],
            },
        },
        "product_tree": {"branches": [{"category": "vendor", "name": vendor, "branches": [
            {"category": "product_name", "name": product, "branches": branches}]}]},
        "vulnerabilities": [{
            "cve": "CVE-2026-1234", "product_status": lists,
            "remediations": [{"category": "vendor_fix", "details": "Update to 3.0", "product_ids": ["P0"]}],
        }],
    }  # fmt: skip


def dumped(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


LIST = b"""id,title,vendor,product,versions,patch,released,state,severity,cve
KB1,Cumulative update,Vendor,PLC 9,<3.0,KB1,2026-11-01,approved,high,CVE-2026-1;CVE-2026-2
KB1,Cumulative update,Maker,Panel,*,KB1,2026-11-01,approved,high,CVE-2026-1
KB2,Another,Maker,Panel,<7,KB2,2026-11-02,in-test,,
"""
BOM = {
    "bomFormat": "CycloneDX", "specVersion": "1.5",
    "metadata": {"component": {"type": "firmware", "name": "PLC 9", "version": "3.1", "supplier": {"name": "Vendor"}}},
    "components": [{
        "type": "library", "name": "openssl", "version": "3.0.7", "publisher": "OpenSSL",
        "purl": "pkg:generic/openssl@3.0.7",
    }],
}  # fmt: skip
