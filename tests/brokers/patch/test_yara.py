"""The site's YARA rules, by the real yara-x: what they find, also within archives, and what they are not shown."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from cofferdam.brokers.kit import archives
from cofferdam.brokers.patch import yara

pytest.importorskip("yara_x")

RULES = b'rule Bad { strings: $a = "not for this plant" condition: $a }\nrule Never { condition: false }\n'
BAD = b"x" * 5000 + b"not for this plant" + b"y" * 5000


def zipped(data: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", data)
    return held.getvalue()


@pytest.mark.parametrize(
    ("data", "rules", "verdict", "detail"),
    [
        (b"firmware", RULES, "clean", ""),
        (BAD, RULES, "found", "rule Bad"),
        (zipped(BAD), RULES, "found", "rule Bad"),
        (zipped(gzip.compress(zipped(BAD))), RULES, "found", "rule Bad"),
        (zipped(b"firmware"), RULES, "clean", ""),
        (b"firmware", b"rule Bad {", "not scanned", "are none"),
        (b"firmware", b"\xff", "not scanned", "are none"),
        (b"!<arch>\ndebian-binary", RULES, "not scanned", "Debian package"),
        (zipped(b"!<arch>\ndebian-binary"), RULES, "not scanned", "Debian package"),
        (zipped(b"x" * 100)[:-30], RULES, "not scanned", "damaged"),
    ],
)
def test_what_the_rules_say(tmp_path: Path, data: bytes, rules: bytes, verdict: str, detail: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    found = yara.scan(rules, file)
    assert (found.verdict, detail in found.detail) == (verdict, True), found
    if verdict == "clean":
        assert found.base == "YARA rules of the site, 2"


def test_an_entry_that_is_too_large_is_not_called_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SEEN_BYTES", 2 << 20)
    file = tmp_path / "file.zip"
    file.write_bytes(zipped(bytes(4 << 20) + BAD))
    assert "at the most" in yara.scan(RULES, file).detail
