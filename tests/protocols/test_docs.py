"""The protocols' pages name everything that the code has: functions, quirks, exceptions that we make."""

from __future__ import annotations

from pathlib import Path

import pytest

from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus.operations import FAILURES, REFUSALS
from cofferdam.protocols.registry import PROTOCOLS

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_function_and_quirk_is_documented(name: str) -> None:
    page = (DOCS / f"protocol-{name}.md").read_text()
    protocol = PROTOCOLS[name]
    missing = [f"function {code}" for code, words in protocol.functions.items() if f"| {code} | {words} |" not in page]
    missing += [quirk for quirk in protocol.dialect.quirks if f"| `{quirk}` |" not in page]
    missing += [] if f"port {protocol.dialect.default_port}" in page else ["default port"]
    assert not missing, f"docs/protocol-{name}.md does not say: {', '.join(missing)}"


def test_every_exception_that_we_make_is_documented() -> None:
    page = (DOCS / "protocol-modbus.md").read_text()
    for code in {*REFUSALS.values(), *FAILURES.values()}:
        assert f"| {code:02X} {m.EXCEPTIONS[code]} |" in page


def test_the_guide_names_the_modules_that_there_are() -> None:
    guide = (DOCS / "add-a-protocol.md").read_text()
    for name in ("dialect", "messages", "wire", "machine", "operations", "view"):
        assert f"`{name}.py`" in guide
        for protocol in PROTOCOLS:
            assert (DOCS.parent / "src" / "cofferdam" / "protocols" / protocol / f"{name}.py").exists()
        assert (Path(__file__).parent / "toy" / f"{name}.py").exists()
