"""The policy of the water works alone, with the addresses that `cofferdam lab policy` prints."""

from __future__ import annotations

from cofferdam.lab import layout
from cofferdam.lab.play import policy
from cofferdam.lab.water.play import Water


def shown_policy() -> str:
    return policy((Water(),), layout.SHIPPED)[0]
