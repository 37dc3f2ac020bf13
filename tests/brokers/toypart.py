"""The processes of a proxy for the toy protocol: its declaration, made as `brokers.proxy.broker` makes Modbus's, and
the program of its parts, which knows this broker alone.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from cofferdam.brokers import half
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.proxy import records
from cofferdam.brokers.proxy.broker import proxy
from cofferdam.brokers.proxy.inner import Inner
from cofferdam.brokers.proxy.outer import Outer
from cofferdam.crossing.records import RecordCodec
from cofferdam.policy.table import CompiledPolicy
from tests.protocols.toy.site import TOYS

ROOT = Path(__file__).parent.parent.parent
START = f"""
import sys
sys.path[:0] = {[str(ROOT), *(path for path in sys.path if "site-packages" in path)]!r}
from tests.brokers import toypart
sys.exit(toypart.main())
"""
BUILD = ("-c", START)
"""How to start a part, after `python -I`."""


def outer(setting: Setting) -> Outer:
    return Outer(setting, TOYS)


def inner(setting: Setting) -> Inner:
    return Inner(setting, TOYS)


def to_inner(policy: CompiledPolicy, broker: str) -> RecordCodec[Any]:
    return records.to_inner(policy, broker, TOYS)


def to_outer(policy: CompiledPolicy, broker: str) -> RecordCodec[Any]:
    return records.to_outer(policy, broker, TOYS)


TOY = replace(
    proxy("toy"),
    make={"outer": "tests.brokers.toypart:outer", "inner": "tests.brokers.toypart:inner"},
    records={
        ("outer", "inner"): "tests.brokers.toypart:to_inner",
        ("inner", "outer"): "tests.brokers.toypart:to_outer",
    },
)


def main() -> int:
    return half.main(brokers={"toy": TOY})
