"""What `cofferdam prove` says of what an operator attests. The proof of two machines: test_machines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cofferdam.proof import one_way
from cofferdam.proof.statements import Statements


@pytest.mark.parametrize("attested", ["", "a tap of the works"])
def test_what_is_attested_is_no_finding(attested: str) -> None:
    out = Statements()
    end = SimpleNamespace(zone="strand-in", way="out")
    one_way._kinds(cast(Any, SimpleNamespace(name="ot")), cast(Any, end), attested, [], out)
    software, hardware, back = out.found
    assert software.status == "tested" and "hardware" not in software.says
    assert hardware.status == back.status == "assumed" and attested in hardware.says
    assert ("as the operator attests" in hardware.says) == bool(attested)
