"""The plays of the lab, in the order in which they come on. A new service adds one line."""

from __future__ import annotations

from cofferdam.lab.orders.play import Orders
from cofferdam.lab.play import Play
from cofferdam.lab.water.play import Water


def plays() -> tuple[Play, ...]:
    """All of them, anew."""
    return (Water(), Orders())
