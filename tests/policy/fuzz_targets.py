"""Fuzz targets: policy files and compiled policies of any content."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from cofferdam.errors import PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy
from tests.fuzz.engine import Target

NOW = 1_800_000_000_000_000_000
EXAMPLE = Path(__file__).parents[2] / "examples" / "riverside-water.yaml"


def _text(data: bytes) -> Hashable:
    try:
        loaded = loads(data.decode("utf-8", "surrogateescape"))
    except PolicyError as error:
        kinds = {problem.check for problem in error.problems if isinstance(problem, Problem)}
        return "refused", frozenset(kinds), min(len(error.problems), 4)
    compiled = compile_policy(loaded, now_ns=NOW)
    if CompiledPolicy.from_bytes(compiled.to_bytes()).hash != compiled.hash:
        raise ValueError("a policy that changes on its way to a half")
    return len(compiled.conduits), len(compiled.assets)


def _compiled(data: bytes) -> Hashable:
    try:
        policy = CompiledPolicy.from_bytes(data)
    except PolicyError as error:
        return str(error)[:48]
    return len(policy.assets)


TARGETS = [
    Target("policy-text", lambda: [EXAMPLE.read_bytes()], _text, tokens=(b"*a", b"&a ", b"<<: ", b"? ", b"!!")),
    Target(
        "policy-compiled", lambda: [compile_policy(loads(EXAMPLE.read_text()), now_ns=NOW).to_bytes()], _compiled,
        max_bytes=16384,
    ),
]  # fmt: skip
